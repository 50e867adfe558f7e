//! An audit as one HTML page that needs nothing else.

use serde_json::Value;

use super::report::AuditReport;
use crate::{error::Error, text::printable};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Renders an audit as an HTML page.
///
/// # Errors
/// Returns an error if the report cannot be written as JSON.
pub fn audit_html(report: &AuditReport) -> Result<String, Error> {
    let failed = |error: serde_json::Error| Error::unexpected(format!("cannot write the page: {error}"));
    let mut data = serde_json::to_value(report).map_err(failed)?;
    escape(&mut data);
    let data = serde_json::to_string(&data).map_err(failed)?;
    // Nothing in the data can end the element that contains it.
    let data = data.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    Ok(PAGE.replace("/* style */", STYLE).replace("/* script */", SCRIPT).replace("/* data */", &data))
}

/// Makes hidden characters visible in all texts, as in a terminal.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = printable(text),
        Value::Array(values) => values.iter_mut().for_each(escape),
        Value::Object(entries) => entries.values_mut().for_each(escape),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        for text in [PAGE, STYLE, SCRIPT] {
            for outside in ["http:", "https:", "src=", "@import", "url(", "fetch(", "import("] {
                assert!(!text.contains(outside), "{outside}");
            }
        }
        for part in ["/* style */", "/* script */", "/* data */"] {
            assert_eq!(PAGE.matches(part).count(), 1, "{part}");
            assert!(!STYLE.contains(part) && !SCRIPT.contains(part), "{part}");
        }
    }
}
