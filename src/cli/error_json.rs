//! Errors for programs: one shape wherever they appear.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    config,
    diagnose::Severity,
    error::{Error, Kind, RuleCode},
    text::Untrusted,
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// What a command with `--json` prints when it fails before it has a result.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw error")]
pub(super) struct ErrorDocument {
    /// Version of this form.
    format: u32,
    /// Why the command failed.
    error: ErrorJson,
}

impl ErrorDocument {
    pub(super) const fn new(error: ErrorJson) -> Self {
        Self { format: FORMAT, error }
    }
}

/// Why a command failed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorJson {
    /// The exit code that belongs to the error.
    pub exit_code: u8,
    /// What the exit code means, in one word that never changes.
    pub meaning: Kind,
    /// The code of the rule that the configuration violates, if it is one: `hostgw help CODE` explains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    code: Option<RuleCode>,
    /// What failed, and why.
    message: Untrusted,
    /// More lines that belong to the message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Untrusted>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Untrusted>,
    /// What is wrong with the configuration, mistake by mistake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mistakes: Vec<MistakeJson>,
    /// How many more mistakes there are than those in the list; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    more_mistakes: Option<usize>,
    /// The error that led to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Box<Self>>,
}

impl ErrorJson {
    /// Configurations that are not valid, with every mistake in them.
    pub(super) fn invalid(invalid: &[config::InvalidConfig]) -> Self {
        let error = Self::from(&Error::new(Kind::Invalid, "the configuration is invalid"));
        let more: usize = invalid.iter().map(config::InvalidConfig::omitted).sum();
        let more_mistakes = (more > 0).then_some(more);
        Self { mistakes: invalid.iter().flat_map(mistakes).collect(), more_mistakes, ..error }
    }

    /// The same error, because of `cause`.
    pub(super) fn because_of(self, cause: Option<Self>) -> Self {
        Self { cause: cause.map(Box::new).or(self.cause), ..self }
    }
}

impl From<&Error> for ErrorJson {
    fn from(error: &Error) -> Self {
        Self {
            exit_code: error.kind.exit_code(),
            meaning: error.kind,
            code: error.code,
            message: error.message.clone(),
            details: error.details.clone(),
            hint: error.hint.clone(),
            mistakes: Vec::new(),
            more_mistakes: None,
            cause: None,
        }
    }
}

/// One mistake in a configuration.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MistakeJson {
    /// The file, as named on the command line.
    file: Untrusted,
    /// The value that is wrong or missing, as in `nodes[3].podCIDR`; empty for the file as a whole.
    path: String,
    /// The line, from 1, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The column, from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    /// The code of the rule that is violated: `hostgw help CODE` explains it.
    code: &'static str,
    /// How bad it is.
    severity: Severity,
    /// What is wrong.
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The other place, of a mistake that needs two.
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<RelatedJson>,
}

/// A second place that a mistake is about.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RelatedJson {
    /// What is there, as in `first used here`.
    message: String,
    /// The value, as in `nodes[3].podCIDR`.
    path: String,
    /// The line, from 1, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The column, from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

fn mistakes(invalid: &config::InvalidConfig) -> impl Iterator<Item = MistakeJson> {
    let related = |related: &config::Related| RelatedJson {
        message: related.message.clone(),
        path: related.path.to_string(),
        line: related.position.map(|position| position.line),
        column: related.position.map(|position| position.column),
    };
    invalid.errors().iter().map(move |mistake| MistakeJson {
        file: invalid.name().to_owned(),
        path: mistake.path.to_string(),
        line: mistake.position.map(|position| position.line),
        column: mistake.position.map(|position| position.column),
        code: mistake.rule.code(),
        severity: mistake.rule.severity(),
        message: mistake.message.clone(),
        hint: mistake.hint.clone(),
        related: mistake.related.as_ref().map(related),
    })
}
