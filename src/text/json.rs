//! JSON that is safe to show on a terminal.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::escape::is_hidden;

/// Serializes `value` as indented JSON. Hidden characters in strings are written as `\uXXXX` (RFC 8259, section 7):
/// programs read the text unchanged, and terminals do not interpret it.
///
/// # Errors
/// Returns an error if `value` cannot be represented in JSON.
pub fn to_json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    write_json(&mut bytes, value)?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// Writes `value` as [`to_json`] does. The document of a large plan takes more memory than the plan.
///
/// # Errors
/// Returns an error if `value` cannot be represented in JSON, or the error of `writer`.
pub fn write_json(writer: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, SafeFormatter(PrettyFormatter::new())))
}

/// Writes `value` as [`write_json`] does, but with one line for each element of an array: long lists take less space, and can be
/// compared line by line.
///
/// # Errors
/// As [`write_json`].
pub fn write_json_rows(writer: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, SafeFormatter(RowFormatter::default())))
}

/// Escapes hidden characters in strings.
struct SafeFormatter<F>(F);

/// Forwards methods to the inner formatter.
macro_rules! delegate {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $argument: $type)*) -> io::Result<()> {
            self.0.$name(writer $(, $argument)*)
        })*
    };
}

impl<F: Formatter> Formatter for SafeFormatter<F> {
    delegate! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        begin_object_value();
        end_object_value();
        write_char_escape(escape: CharEscape);
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hidden) {
            let (shown, hidden) = rest.split_at(at);
            writer.write_all(shown.as_bytes())?;
            let mut characters = hidden.chars();
            let mut units = [0; 2];
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// A [`PrettyFormatter`] that writes each element of an array on one line.
#[derive(Default)]
struct RowFormatter<'a> {
    pretty: PrettyFormatter<'a>,
    /// The indented arrays and objects around the current value, outermost first: `true` is an array.
    is_array: Vec<bool>,
    /// The number of arrays and objects around the current value that are written on one line.
    inline: usize,
}

impl RowFormatter<'_> {
    /// Begins an array or object. Returns `true` if it is indented.
    fn begin(&mut self, is_array: bool) -> bool {
        let is_indented = self.inline == 0 && self.is_array.last() != Some(&true);
        if is_indented {
            self.is_array.push(is_array);
        } else {
            self.inline += 1;
        }
        is_indented
    }

    /// Ends an array or object. Returns `true` if it is indented.
    fn end(&mut self) -> bool {
        let is_indented = self.inline == 0;
        if is_indented {
            self.is_array.pop();
        } else {
            self.inline -= 1;
        }
        is_indented
    }
}

impl Formatter for RowFormatter<'_> {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.begin(true) { self.pretty.begin_array(writer) } else { writer.write_all(b"[") }
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.end() { self.pretty.end_array(writer) } else { writer.write_all(b"]") }
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        match self.inline {
            0 => self.pretty.begin_array_value(writer, first),
            _ => CompactFormatter.begin_array_value(writer, first),
        }
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.inline == 0 { self.pretty.end_array_value(writer) } else { Ok(()) }
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.begin(false) { self.pretty.begin_object(writer) } else { writer.write_all(b"{") }
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.end() { self.pretty.end_object(writer) } else { writer.write_all(b"}") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        match self.inline {
            0 => self.pretty.begin_object_key(writer, first),
            _ => CompactFormatter.begin_object_key(writer, first),
        }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        match self.inline {
            0 => self.pretty.begin_object_value(writer),
            _ => CompactFormatter.begin_object_value(writer),
        }
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.inline == 0 { self.pretty.end_object_value(writer) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn hidden_characters_are_escaped_and_parse_unchanged() {
        let value = json!({ "a\u{202e}": ["\u{9b}31m\u{7f}\n", "\u{e0001}é"], "empty": [], "none": {} });
        let text = to_json(&value).expect("JSON");
        assert!(text.chars().all(|c| c == '\n' || !is_hidden(c)), "{text:?}");
        assert!(text.contains(r#""\u009b31m\u007f\n""#) && text.contains(r#""\udb40\udc01é""#), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("valid"), value);
    }

    #[test]
    fn ordinary_text_is_serialized_as_by_serde_json() {
        let value = json!({ "name": "linux-1", "routes": [1, 2.5, null, true], "nested": { "é": "\"\\/" } });
        assert_eq!(to_json(&value).expect("JSON"), serde_json::to_string_pretty(&value).expect("JSON"));
    }

    #[test]
    fn elements_of_arrays_are_rows() {
        let value = json!({
            "format": 2, "none": [], "state": { "routes": [{ "via": ["a", {}], "mtu": 1 }, [], 3] }, "bell\u{7}": [[[1]]],
        });
        let mut text = Vec::new();
        write_json_rows(&mut text, &value).expect("JSON");
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("valid"), value);
        assert_eq!(
            text,
            r#"{
  "bell\u0007": [
    [[1]]
  ],
  "format": 2,
  "none": [],
  "state": {
    "routes": [
      {"mtu":1,"via":["a",{}]},
      [],
      3
    ]
  }
}"#
        );
    }
}
