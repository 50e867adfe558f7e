//! Resolves the scalars of YAML to values.

use std::borrow::Cow;

use super::tree::Value;

/// The form of a YAML scalar, as far as it determines the type.
#[derive(Debug, Clone, Copy)]
pub(super) enum ScalarForm<'t> {
    /// A scalar without quotes.
    Plain,
    /// In quotes, or as a block.
    Quoted,
    /// A scalar with a tag of the core schema, such as `!!int`: the last part of the tag.
    CoreTag(&'t str),
    /// A scalar with any other tag.
    OtherTag,
}

pub(super) fn value<'a>(text: Cow<'a, str>, form: ScalarForm<'_>) -> Value<'a> {
    match form {
        ScalarForm::Plain => resolve(text),
        ScalarForm::Quoted | ScalarForm::CoreTag("str") => Value::Text(text),
        ScalarForm::CoreTag(tag) => match (tag, resolve(text)) {
            ("null", value @ Value::Null)
            | ("bool", value @ Value::Flag(_))
            | ("int", value @ Value::Integer(_)) => value,
            _ => Value::Other("a tagged value"),
        },
        ScalarForm::OtherTag => Value::Other("a tagged value"),
    }
}

/// Resolves a plain scalar by the core schema of YAML 1.2, plus binary numbers.
fn resolve(text: Cow<'_, str>) -> Value<'_> {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Flag(true),
        "false" | "False" | "FALSE" => return Value::Flag(false),
        _ => {}
    }
    match number(&text) {
        Some(value) => value,
        None => Value::Text(text),
    }
}

fn number(text: &str) -> Option<Value<'static>> {
    // Names, addresses and prefixes do not look like numbers.
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'))
        || text.contains(['/', ':'])
        || text.bytes().filter(|byte| *byte == b'.').count() > 1
    {
        return None;
    }
    if let ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan"
    | ".NaN" | ".NAN" = text
    {
        return Some(Value::Other("a number"));
    }
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("-", digits)) => ("-", digits),
        Some(("+", digits)) => ("", digits),
        _ => ("", text),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        let Some(digits) = digits.strip_prefix(prefix).filter(|rest| !rest.starts_with(['+', '-'])) else {
            continue;
        };
        if let Ok(number) = i128::from_str_radix(&format!("{sign}{digits}"), radix) {
            return Some(integer(number));
        }
    }
    // 007 is a string in YAML 1.2.
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if let Ok(number) = format!("{sign}{digits}").parse() {
        return Some(integer(number));
    }
    digits.parse::<f64>().is_ok_and(f64::is_finite).then_some(Value::Other("a number"))
}

/// A number outside the range of `i64` is just "a number", which no key accepts.
fn integer(number: i128) -> Value<'static> {
    i64::try_from(number).map_or(Value::Other("a number"), Value::Integer)
}
