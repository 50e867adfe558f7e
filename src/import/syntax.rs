//! Writes the values of a node in the languages of a configuration.

use super::node::ImportedNode;
use crate::text::is_hidden;

/// A language, and whether it quotes everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// YAML, with quotes where they are needed.
    Yaml,
    /// YAML in which every key and value is quoted, such as JSON.
    Json,
    /// TOML.
    Toml,
}

/// The value of `podCIDR` of a machine without pods.
pub(super) const NO_PODS: &str = "none";

/// A key of a node with its values: one, or one per address family.
pub(super) type NodeKey = (&'static str, Vec<String>);

/// The keys of a node, in the order in which they are written.
pub(super) fn keys_of(node: &ImportedNode) -> Vec<NodeKey> {
    let pod_cidrs = match node.pod_cidrs.is_empty() {
        true => vec![NO_PODS.to_owned()],
        false => node.pod_cidrs.iter().map(ToString::to_string).collect(),
    };
    let mut keys = vec![
        ("name", vec![node.name.as_raw().to_owned()]),
        ("os", vec![node.os.to_string()]),
        ("podCIDR", pod_cidrs),
    ];
    if !node.addresses.is_empty() {
        keys.push(("address", node.addresses.iter().map(ToString::to_string).collect()));
    }
    keys
}

impl Syntax {
    /// Writes a text, in quotes if necessary.
    pub fn scalar(self, text: &str) -> String {
        match self {
            Self::Yaml if is_plain(text) => text.to_owned(),
            _ => quoted(text),
        }
    }

    /// Writes a value, or a list of several.
    pub fn value(self, values: &[String]) -> String {
        match values {
            [one] => self.scalar(one),
            several => {
                let items: Vec<String> = several.iter().map(|value| self.scalar(value)).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }

    /// Writes a key with its value.
    pub fn entry(self, key: &str, values: &[String]) -> String {
        let value = self.value(values);
        match self {
            Self::Yaml => format!("{key}: {value}"),
            Self::Json => format!("\"{key}\": {value}"),
            Self::Toml => format!("{key} = {value}"),
        }
    }

    /// Writes a node in braces, with this space inside them.
    pub fn inline(self, keys: &[NodeKey], space: &str) -> String {
        let entries: Vec<String> = keys.iter().map(|(key, values)| self.entry(key, values)).collect();
        format!("{{{space}{}{space}}}", entries.join(", "))
    }
}

/// Returns `true` if every version of YAML reads an unquoted text as that text.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"];
    let is_word = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        && !WORDS.contains(&text);
    // An IPv4 address or prefix.
    let is_ipv4 = text.bytes().filter(|byte| *byte == b'.').count() == 3
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'/'))
        && text.contains(|c: char| c.is_ascii_digit());
    is_word || is_ipv4
}

/// Quotes a text as YAML and TOML do, and JSON for characters of the basic plane.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            hidden if is_hidden(hidden) => {
                let number = u32::from(hidden);
                quoted.push_str(&if number > 0xffff {
                    format!("\\U{number:08x}")
                } else {
                    format!("\\u{number:04x}")
                });
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_something_else_are_quoted() {
        let yaml = |text: &str| Syntax::Yaml.scalar(text);
        for plain in ["linux-1", "ip-10-0-0-1.ec2.internal", "10.244.0.0/24", "172.30.0.11", "e10", "none"] {
            assert_eq!(yaml(plain), plain);
        }
        for quoted in
            ["null", "yes", "on", "12", "1e3", "0x1f", "1.5", "2024-01-01", "", "-", "~", "fd00::1", "A", "ä"]
        {
            assert_eq!(yaml(quoted), format!("\"{quoted}\""));
        }
        assert_eq!(yaml("a\"\\\n\u{202e}\u{e0001}"), "\"a\\\"\\\\\\u000a\\u202e\\U000e0001\"");
        assert_eq!(Syntax::Toml.scalar("linux-1"), "\"linux-1\"");
        assert_eq!(
            Syntax::Json.entry("podCIDR", &["10.1.0.0/24".into(), "fd00::/64".into()]),
            "\"podCIDR\": [\"10.1.0.0/24\", \"fd00::/64\"]"
        );
    }
}
