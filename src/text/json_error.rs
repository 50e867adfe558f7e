//! How errors of JSON documents read.

use std::fmt;

use serde_json::error::Category;

/// Prints why a JSON document could not be read: `missing field `format` on line 2, column 8`.
#[derive(Debug, Clone, Copy)]
pub struct JsonError<'a>(pub &'a serde_json::Error);

impl JsonError<'_> {
    /// Returns `true` if the document may be valid, but is nested too deeply to be read.
    #[must_use]
    pub fn is_too_deep(self) -> bool {
        // serde_json has no category for it.
        self.0.is_syntax() && self.words() == "recursion limit exceeded"
    }

    /// Returns serde_json's message without the position at its end.
    fn words(self) -> String {
        let text = self.0.to_string();
        let position = format!(" at line {} column {}", self.0.line(), self.0.column());
        text.strip_suffix(&position).map_or_else(|| text.clone(), ToOwned::to_owned)
    }
}

impl fmt::Display for JsonError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = (self.0.line(), self.0.column());
        match self.0.classify() {
            Category::Eof => write!(f, "unexpected end of file on line {line}"),
            _ if self.is_too_deep() => write!(f, "nested too deeply (line {line})"),
            // An error of a value that has no position.
            _ if line == 0 => f.write_str(&self.words()),
            _ => write!(f, "{} on line {line}, column {column}", self.words()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn positions_read_like_those_of_a_configuration() {
        let text = |json: &str| {
            let error = serde_json::from_str::<Value>(json).expect_err("invalid");
            JsonError(&error).to_string()
        };
        assert_eq!(text("{\n"), "unexpected end of file on line 2");
        assert_eq!(text("[1,\n 2"), "unexpected end of file on line 2");
        assert_eq!(text("{} x"), "trailing characters on line 1, column 4");
        assert_eq!(text(&"[".repeat(200)), "nested too deeply (line 1)");
        let error = serde_json::from_str::<u32>("\"x\"").expect_err("a string");
        let words = "invalid type: string \"x\", expected u32 on line 1, column 3";
        assert_eq!(JsonError(&error).to_string(), words);
        let error = serde_json::from_value::<u32>(Value::Bool(true)).expect_err("no position");
        assert_eq!(JsonError(&error).to_string(), "invalid type: boolean `true`, expected u32");
    }
}
