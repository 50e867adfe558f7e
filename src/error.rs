//! Errors with a message, a suggestion and an exit code.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::Untrusted;

/// The kinds of errors. The numbers are the exit codes, which are documented, tested and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Kind {
    /// An unexpected error; nothing was changed.
    #[serde(rename = "unexpectedError")]
    Unexpected = 1,
    /// The configuration is invalid, or does not fit this node; nothing was changed.
    Invalid = 3,
    /// Another hostgw command holds the lock.
    Locked = 4,
    /// The live state no longer matches the facts of the plan.
    Stale = 5,
    /// The apply failed and was rolled back, and the rollback was verified.
    RolledBack = 6,
    /// The rollback could not be completed.
    RollbackIncomplete = 7,
    /// Not applied (declined, no terminal, mass removal refused, or nothing to confirm or cancel), or rolled back because it was
    /// canceled or not confirmed in time.
    #[serde(rename = "notApplied")]
    NotApplied = 8,
    /// Part of the live state could not be read.
    Incomplete = 9,
    /// The plan conflicts with objects that hostgw does not manage.
    Conflict = 10,
    /// The command line is wrong.
    #[serde(rename = "usageError")]
    Usage = 64,
    /// The command was interrupted, and any changes were rolled back.
    Interrupted = 130,
}

impl Kind {
    /// Returns the exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        self as u8
    }
}

/// The code of a rule, which prints as `HG0704`. [`diagnose`](crate::diagnose) defines the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RuleCode(pub u16);

impl RuleCode {
    const PREFIX: &str = "HG";
}

impl fmt::Display for RuleCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:04}", Self::PREFIX, self.0)
    }
}

impl From<RuleCode> for String {
    fn from(code: RuleCode) -> Self {
        code.to_string()
    }
}

impl TryFrom<String> for RuleCode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let number = text.strip_prefix(Self::PREFIX).and_then(|digits| digits.parse().ok());
        number.map(Self).filter(|code| code.to_string() == text).ok_or("not a code such as HG0704")
    }
}

/// An error of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Error {
    /// The kind, which determines the exit code.
    pub kind: Kind,
    /// The code of the rule that the configuration violates, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<RuleCode>,
    /// The failure, the object and the reason: a sentence in lower case without a period.
    pub message: Untrusted,
    /// Additional lines of the message.
    pub details: Vec<Untrusted>,
    /// The commands that would complete what hostgw could not, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Untrusted>,
    /// A suggestion.
    pub hint: Option<Untrusted>,
}

impl Error {
    /// Creates an error.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<Untrusted>) -> Self {
        Self {
            kind,
            code: None,
            message: message.into(),
            details: Vec::new(),
            commands: Vec::new(),
            hint: None,
        }
    }

    /// Creates an unexpected error.
    #[must_use]
    pub fn unexpected(message: impl Into<Untrusted>) -> Self {
        Self::new(Kind::Unexpected, message)
    }

    /// Sets the code of the rule that the configuration violates.
    #[must_use]
    pub const fn with_code(mut self, code: RuleCode) -> Self {
        self.code = Some(code);
        self
    }

    /// Sets the suggestion.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Untrusted>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the suggestion, if there is one.
    #[must_use]
    pub fn with_hint_if(self, hint: Option<impl Into<Untrusted>>) -> Self {
        match hint {
            Some(hint) => self.with_hint(hint),
            None => self,
        }
    }

    /// Iterates over the lines between the message and the commands: the details, and a heading for the commands.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let head = (!self.commands.is_empty()).then(|| "remaining commands, in this order:".to_owned());
        self.details.iter().map(ToString::to_string).chain(head)
    }

    /// Adds lines to the message.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = impl Into<Untrusted>>) -> Self {
        self.details.extend(details.into_iter().map(Into::into));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        for line in self.lines() {
            write!(f, "\n  {line}")?;
        }
        for command in &self.commands {
            write!(f, "\n    {command}")?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhelp: {hint}"))
    }
}

impl std::error::Error for Error {}
