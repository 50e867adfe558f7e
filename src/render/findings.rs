//! The findings in configurations, in the formats of the programs that show them: SARIF, GitHub annotations, Markdown.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::{Value, json};

use super::markdown::{escaped_name, quote_commands};
use crate::{
    config::{ConfigError, InvalidConfig, Position},
    diagnose::{Diagnostic, Rule, Severity},
    error::Error,
    text::Untrusted,
};

/// A finding in a file.
#[derive(Debug, Clone)]
pub struct FileFinding {
    /// The file, as named on the command line.
    pub file: Untrusted,
    /// The rule, or `None` if the file could not be read.
    pub rule: Option<Rule>,
    /// The severity of the finding.
    pub severity: Severity,
    /// The message of the finding.
    pub message: Untrusted,
    /// What to do next.
    pub remedy: Option<Untrusted>,
    /// The position in the file, if known.
    pub position: Option<Position>,
    /// The second position of a finding that involves two, and its label.
    pub related: Option<(Untrusted, Position)>,
}

impl FileFinding {
    /// Returns every error in an invalid configuration.
    pub fn of_config(invalid: &InvalidConfig) -> impl Iterator<Item = Self> {
        invalid.errors().iter().map(|error| {
            let ConfigError { rule, message, position, hint, related, .. } = error;
            let related = related.as_ref().and_then(|it| Some((it.message.as_str().into(), it.position?)));
            Self {
                file: invalid.name().clone(),
                rule: Some(*rule),
                severity: rule.severity(),
                message: message.as_str().into(),
                remedy: hint.as_deref().map(Into::into),
                position: *position,
                related,
            }
        })
    }

    /// Returns the reason that `file` could not be read.
    #[must_use]
    pub fn of_error(file: &Untrusted, error: &Error) -> Self {
        Self {
            file: file.clone(),
            rule: None,
            severity: Severity::Error,
            message: error.message.clone(),
            remedy: error.hint.clone(),
            position: None,
            related: None,
        }
    }

    /// Returns a warning about the configuration `file`.
    #[must_use]
    pub fn of_warning(file: &Untrusted, warning: &Diagnostic) -> Self {
        Self {
            file: file.clone(),
            rule: Some(warning.rule),
            severity: warning.severity,
            message: warning.message.as_str().into(),
            remedy: warning.remedy.as_deref().map(Into::into),
            position: None,
            related: None,
        }
    }

    fn text(&self) -> String {
        let remedy = self.remedy.as_ref().map_or_else(String::new, |remedy| format!("\nhelp: {remedy}"));
        format!("{}{remedy}", self.message)
    }
}

/// Renders SARIF 2.1.0 (OASIS), which code scanning services and editors read. `version` is that of hostgw.
#[must_use]
pub fn sarif(findings: &[FileFinding], version: &str) -> Value {
    let rules: BTreeSet<Rule> = findings.iter().filter_map(|finding| finding.rule).collect();
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|rule| {
            json!({
                "id": rule.code(),
                "shortDescription": { "text": rule.title() },
                "help": { "text": rule.explanation(), "markdown": rule.explanation() },
                "defaultConfiguration": { "level": rule.severity().name() },
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "hostgw", "version": version, "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": findings.iter().map(sarif_result).collect::<Vec<Value>>(),
        }],
    })
}

fn sarif_result(finding: &FileFinding) -> Value {
    let location = |position: Option<Position>| {
        let mut physical = json!({ "artifactLocation": { "uri": uri(finding.file.as_raw()) } });
        if let Some(Position { line, column }) = position {
            physical["region"] = json!({ "startLine": line, "startColumn": column });
        }
        json!({ "physicalLocation": physical })
    };
    let mut result = json!({
        "level": finding.severity.name(),
        "message": { "text": finding.text() },
        "locations": [location(finding.position)],
    });
    if let Some(rule) = finding.rule {
        result["ruleId"] = json!(rule.code());
    }
    if let Some((label, position)) = &finding.related {
        let mut related = location(Some(*position));
        related["message"] = json!({ "text": label.to_string() });
        result["relatedLocations"] = json!([related]);
    }
    result
}

/// Returns a path as a URI reference (RFC 3986): every byte that is not unreserved or a slash is percent-encoded.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

/// Renders workflow commands of GitHub Actions, which annotate the lines of a pull request.
#[must_use]
pub fn github_annotations(findings: &[FileFinding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mut properties = vec![format!("file={}", property(&finding.file.to_string()))];
        if let Some(Position { line, column }) = finding.position {
            properties.extend([format!("line={line}"), format!("col={column}")]);
        }
        properties.extend(finding.rule.map(|rule| format!("title={rule}")));
        let message = data(&finding.text());
        let _ = writeln!(text, "::{} {}::{message}", finding.severity.name(), properties.join(","));
    }
    text
}

/// Escapes the message of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Renders a list for a comment or a job summary.
#[must_use]
pub fn findings_markdown(findings: &[FileFinding], valid: &[(Untrusted, usize)]) -> String {
    let mut text = "### hostgw validate\n\n".to_owned();
    for (file, nodes) in valid {
        let nodes = crate::text::count(*nodes, "node");
        let _ = writeln!(text, "- `{}` is valid: {nodes}", escaped_name(file.as_raw()));
    }
    for finding in findings {
        let place = finding.position.map_or_else(String::new, |at| format!(":{}:{}", at.line, at.column));
        let head = match finding.rule {
            Some(rule) => format!("{}[{rule}]", finding.severity.name()),
            None => finding.severity.name().to_owned(),
        };
        let (file, message) = (escaped_name(finding.file.as_raw()), code_span(&finding.message));
        let _ = writeln!(text, "- **{head}** `{file}{place}`: {message}");
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "  - help: {}", code_span(remedy));
        }
    }
    text
}

/// Returns text that may contain anything as a code span.
#[must_use]
pub fn code_span(text: &Untrusted) -> String {
    format!("`{}`", escaped_name(&quote_commands(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_uri_reference() {
        assert_eq!(uri("clusters/eu 1.yaml"), "clusters/eu%201.yaml");
        assert_eq!(uri("ü?#%.yaml"), "%C3%BC%3F%23%25.yaml");
    }

    #[test]
    fn workflow_commands_are_escaped() {
        assert_eq!(data("50 %\r\n::error::x"), "50 %25%0D%0A::error::x");
        assert_eq!(property("a:b,c"), "a%3Ab%2Cc");
    }
}
