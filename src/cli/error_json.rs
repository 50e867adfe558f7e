//! Errors in JSON documents: the same everywhere.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    config,
    diagnose::Severity,
    error::{Error, Kind, RuleCode},
    model::ConfigPath,
    text::Untrusted,
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The output of a command with `--json` that fails before it has a result.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw error")]
pub(super) struct ErrorDocument {
    /// The version of this format.
    format: u32,
    /// Why the command failed.
    error: ErrorJson,
}

impl ErrorDocument {
    pub(super) const fn new(error: ErrorJson) -> Self {
        Self { format: FORMAT, error }
    }
}

/// The failure of a command.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorJson {
    /// The exit code of the error.
    pub exit_code: u8,
    /// What the exit code means, as a name that never changes.
    pub outcome: Kind,
    /// The code of the violated rule, if any: `hostgw help CODE` explains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    code: Option<RuleCode>,
    /// What failed, and why.
    message: Untrusted,
    /// The details of the message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Untrusted>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<Untrusted>,
    /// The errors in the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ConfigErrorJson>,
    /// The number of errors that the list omits; absent if it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted_errors: Option<usize>,
    /// The error that led to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Box<Self>>,
}

impl ErrorJson {
    /// Creates the error for invalid configurations, with every error in them.
    pub(super) fn invalid(invalid: &[config::InvalidConfig]) -> Self {
        let error = Self::from(&Error::new(Kind::Invalid, "the configuration is invalid"));
        let omitted: usize = invalid.iter().map(config::InvalidConfig::omitted).sum();
        let omitted_errors = (omitted > 0).then_some(omitted);
        Self { errors: invalid.iter().flat_map(config_errors).collect(), omitted_errors, ..error }
    }

    /// Sets the cause.
    pub(super) fn because_of(self, cause: Option<Self>) -> Self {
        Self { cause: cause.map(Box::new).or(self.cause), ..self }
    }
}

impl From<&Error> for ErrorJson {
    fn from(error: &Error) -> Self {
        Self {
            exit_code: error.kind.exit_code(),
            outcome: error.kind,
            code: error.code,
            message: error.message.clone(),
            details: error.details.clone(),
            remedy: error.hint.clone(),
            errors: Vec::new(),
            omitted_errors: None,
            cause: None,
        }
    }
}

/// A location in a file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LocationJson {
    /// The path of the value, which can be missing, such as `nodes[3].podCIDR`; empty for the whole file.
    pub path: String,
    /// The file, as named on the command line.
    pub file: Untrusted,
    /// The line, starting with 1, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, starting with 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

/// An error in a configuration.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigErrorJson {
    /// The code of the rule that is violated: `hostgw help CODE` explains it.
    code: &'static str,
    /// The severity of the error.
    severity: Severity,
    /// The message.
    message: String,
    /// The invalid value, or the place of a missing one.
    location: LocationJson,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// The second location of an error that involves two.
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<RelatedJson>,
}

/// A location that is related to an error.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RelatedJson {
    /// A label for the location, such as `first used here`.
    message: String,
    /// The location.
    location: LocationJson,
}

fn config_errors(invalid: &config::InvalidConfig) -> impl Iterator<Item = ConfigErrorJson> {
    let location = |path: &ConfigPath, position: Option<config::Position>| LocationJson {
        path: path.to_string(),
        file: invalid.name().to_owned(),
        line: position.map(|position| position.line),
        column: position.map(|position| position.column),
    };
    invalid.errors().iter().map(move |error| ConfigErrorJson {
        code: error.rule.code(),
        severity: error.rule.severity(),
        message: error.message.clone(),
        location: location(&error.path, error.position),
        remedy: error.hint.clone(),
        related: error.related.as_ref().map(|related| RelatedJson {
            message: related.message.clone(),
            location: location(&related.path, related.position),
        }),
    })
}
