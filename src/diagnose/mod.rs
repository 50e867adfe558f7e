//! Findings about a configuration, a node, or a CNI configuration: one rule for each kind.
//!
//! A rule has a stable code, a severity, and a file in `rules/` that explains it: what is wrong, why it matters, and what
//! to do. `hostgw help HG0003` prints that file. Codes are never reused.
//!
//! | codes | about | reported by |
//! |---|---|---|
//! | HG00xx | the form of a configuration | `config` |
//! | HG01xx | the cluster | `config` |
//! | HG02xx | its nodes | `config` |
//! | HG03xx | `nat` | `config` |
//! | HG04xx | `sysctls` | `config` |
//! | HG05xx | `routes` | `config` |
//! | HG06xx | `checks` | `config` |
//! | HG07xx | a node that the configuration does not fit | `plan::check` |
//! | HG08xx | a plan that can be applied, but deserves a warning | `plan::check`, `plan::foreign`, `forwarding`, `render::boot_file`, `cli::destroy` |
//! | HG09xx | a CNI configuration | `cni`, `cli::check_cni` |
//! | HG10xx | a node, as `hostgw doctor` examines it | `doctor` |
//! | HG11xx | a list of nodes, or a node, to import | `import` |
//! | HG12xx | a whole cluster, as `hostgw audit` judges it | `audit` |

mod rules;

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::ConfigPath;

pub use rules::Rule;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// An error: the configuration cannot be used, or pods lose packets.
    Error,
    /// A warning: the configuration or the node works, but perhaps not as intended.
    Warning,
}

impl Severity {
    /// The word before a message.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A finding of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The rule.
    pub rule: Rule,
    /// The severity in this case.
    pub severity: Severity,
    /// The message, which names the object and the problem: a sentence without a period.
    pub message: String,
    /// The line of the configuration that it concerns.
    pub path: Option<ConfigPath>,
    /// What to do next.
    pub remedy: Option<String>,
}

impl Diagnostic {
    /// Creates a finding that concerns no line of the configuration.
    #[must_use]
    pub const fn new(rule: Rule, message: String) -> Self {
        Self { rule, severity: rule.severity(), message, path: None, remedy: None }
    }

    /// Raises the severity to an error. A plan only warns of lost packets that it does not cause; `hostgw doctor` reports them
    /// as errors.
    #[must_use]
    pub const fn as_error(mut self) -> Self {
        self.severity = Severity::Error;
        self
    }

    /// Sets the severity, where the rule has both.
    #[must_use]
    pub const fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets the line of the configuration.
    #[must_use]
    pub fn at(mut self, path: Option<ConfigPath>) -> Self {
        self.path = path;
        self
    }

    /// Sets what to do next.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Sets what to do next, if anything is known.
    #[must_use]
    pub fn with_remedy_if(mut self, remedy: Option<String>) -> Self {
        self.remedy = remedy;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
