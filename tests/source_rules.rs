//! Rules that every source file of hostgw keeps, because breaking them once was a fault.

use std::{fs, path::Path};

/// Every Rust file below `folder`, with its text.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The placeholders of format strings in `text` whose width or precision is an argument: `{:width$}`, `{name:>1$}`,
/// `{:.*}`.
fn dynamic_placeholders(text: &str) -> Vec<&str> {
    let is_argument = |c: char| c.is_alphanumeric() || c == '_';
    let is_dynamic = |placeholder: &&str| {
        let Some((argument, format)) = placeholder.split_once(':') else { return false };
        let of_argument = |(at, _): (usize, &str)| format[..at].ends_with(is_argument);
        let is_format = !format.contains(['"', ' ', '\n']);
        argument.chars().all(is_argument)
            && is_format
            && (format.match_indices('$').any(of_argument) || format.contains(".*"))
    };
    let openings = text.match_indices('{').map(|(at, _)| &text[at + 1..]);
    openings.filter_map(|rest| rest.split(['{', '}']).next()).filter(is_dynamic).collect()
}

#[test]
fn no_width_of_a_format_string_comes_from_data() {
    // Rust panics on one above 65,535. `text::padded` does not.
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 50, "{}", files.len());
    for (path, text) in files {
        let found = dynamic_placeholders(&text);
        assert!(found.is_empty(), "{path} formats with a width that is not in the source: {found:?}");
    }
}

#[test]
fn dynamic_placeholders_are_told_from_others() {
    let dynamic = ["{:width$}", "{number:>width$} |", "{cell}{:1$}", "{0:.1$}", "{:.*}", "{x:#0w$b}"];
    for text in dynamic {
        assert_eq!(dynamic_placeholders(text).len(), 1, "{text}");
    }
    for text in ["{:>24}", "{name:?}", "$($name:ident)*", "{ $x: 1 }", "\"pattern\": \"^a$\" }", "{a}:$b"] {
        assert!(dynamic_placeholders(text).is_empty(), "{text}");
    }
}
