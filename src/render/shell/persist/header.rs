//! The header line by which hostgw recognizes a boot file.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Persist, PersistedNode};
use crate::render::Provenance;
use crate::text::JsonError;

/// The beginning of the line, before the JSON.
const MARK: &str = "# hostgw-persist: ";

/// The version of the line's format.
const FORMAT: u32 = 1;

/// The maximum number of lines to search: the line follows a shebang and a title.
const LINES: usize = 4;

/// The origin of a boot file, from its header line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistHeader {
    /// The program that the file is for.
    pub persist: Persist,
    /// The node that the file is for.
    pub node: String,
    /// The node's egress interface.
    pub interface: String,
    /// The SHA-256 of the configuration that the file was rendered from, as `sha256sum` prints it.
    pub config_hash: String,
}

/// The JSON in the line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeaderJson {
    format: u32,
    program: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netplan_id: Option<String>,
    node: String,
    interface: String,
    config_hash: String,
}

/// The error for a header line that this version cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnrecognizedHeader(String);

impl fmt::Display for UnrecognizedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnrecognizedHeader {}

/// The version alone, which tells a newer format from a damaged line.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl PersistHeader {
    pub(super) fn new(persist: &Persist, node: PersistedNode, provenance: &Provenance) -> Self {
        Self {
            persist: persist.clone(),
            node: node.name.to_owned(),
            interface: node.interface.to_owned(),
            config_hash: provenance.config_hash.to_owned(),
        }
    }

    /// The line in printable ASCII, because names can contain characters that change how a terminal shows the file.
    pub(super) fn line(&self) -> String {
        let line = HeaderJson {
            format: FORMAT,
            program: self.persist.name().to_owned(),
            netplan_id: self.persist.netplan_id().map(|id| id.as_str().to_owned()),
            node: self.node.clone(),
            interface: self.interface.clone(),
            config_hash: self.config_hash.clone(),
        };
        let mut text = MARK.to_owned();
        for character in serde_json::json!(line).to_string().chars() {
            if character == ' ' || character.is_ascii_graphic() {
                text.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        text + "\n"
    }

    /// Finds the header line in the text of a file, or in its beginning. Returns `None` if hostgw did not write the
    /// file.
    #[must_use]
    pub fn find(text: &str) -> Option<Result<Self, UnrecognizedHeader>> {
        let json = text.lines().take(LINES).find_map(|line| line.strip_prefix(MARK))?;
        Some(Self::parse(json))
    }

    fn parse(json: &str) -> Result<Self, UnrecognizedHeader> {
        let damaged = |error: serde_json::Error| {
            UnrecognizedHeader(format!("its second line is damaged: {}", JsonError(&error)))
        };
        let Version { format } = serde_json::from_str(json).map_err(damaged)?;
        if format != FORMAT {
            return Err(UnrecognizedHeader(format!(
                "it has format {format}, but this version of hostgw supports format {FORMAT}"
            )));
        }
        let HeaderJson { program, netplan_id, node, interface, config_hash, .. } =
            serde_json::from_str(json).map_err(damaged)?;
        let persist = Persist::from_name(&program, netplan_id.as_deref());
        let persist =
            persist.ok_or_else(|| UnrecognizedHeader(format!("it is for an unknown program, {program}")))?;
        Ok(Self { persist, node, interface, config_hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str) -> String {
        let node = PersistedNode { name, interface: "eth0" };
        let provenance = Provenance { file: "hostgw.yaml", config_hash: "abc" };
        let id = "uplink".parse().expect("an ID");
        PersistHeader::new(&Persist::Netplan(id), node, &provenance).line()
    }

    #[test]
    fn a_header_is_recognized_with_any_node_name() {
        for name in ["n1", "a\"b\\c", "\u{202e}Ü\u{1f600}", "x\ny # hostgw-persist: {}", "\u{7f}"] {
            let text = format!("#!/bin/sh\n# Routes\n{}# more\n", header(name));
            assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text}");
            let found = PersistHeader::find(&text).expect("a header").expect("a good one");
            assert_eq!(found.node, name);
            assert_eq!(found.persist, Persist::Netplan("uplink".parse().expect("an ID")));
        }
    }

    #[test]
    fn other_files_newer_formats_and_damage_are_distinguished() {
        assert_eq!(PersistHeader::find("[Route]\nDestination=10.0.0.0/8\n"), None);
        let below = format!("{}{}", "#\n".repeat(LINES), header("n1"));
        assert_eq!(PersistHeader::find(&below), None, "a quotation further down is no header");
        for (damage, message) in [
            (header("n1").replace("\"format\":1", "\"format\":2"), "it has format 2"),
            (header("n1").replace("netplan\"", "wicked\""), "unknown program"),
            (header("n1").replace("uplink", "../../x"), "unknown program"),
            (header("n1").replace("configHash", "hash"), "damaged"),
            (header("n1")[..40].to_owned(), "damaged"),
        ] {
            let found = PersistHeader::find(&damage).expect("a header").expect_err("a bad one");
            assert!(found.to_string().contains(message), "{found}: {damage}");
        }
    }
}
