//! Finds, reads and loads the configuration that a command line names.

use std::path::{Path, PathBuf};

use super::{VerbFailure, environment};
use crate::{
    config::{self, Document, Loaded},
    error::{Error, Kind},
    input, text,
};

/// What Windows programs write before UTF-8 text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The folder of a node's own configuration.
const NODE_FOLDER: &str = "/etc/hostgw";

/// Reads the configuration `file`, or `-` for standard input, or the one that [`find`] finds.
pub(super) fn document(file: Option<&Path>) -> Result<Document, VerbFailure> {
    let found = file.map_or_else(find, |file| Ok(file.to_owned()))?;
    let document =
        if found.as_os_str() == "-" { Document::read_standard_input() } else { Document::read(&found) };
    Ok(document.map_err(|error| {
        let is_from_environment = file.is_none() && environment::file().is_some();
        let details = is_from_environment.then(|| format!("{} names it", environment::FILE));
        Error::from(&error).with_details(details)
    })?)
}

/// Finds the configuration if the command line names none: the one that the environment names, or else the one in the
/// working directory, or else the node's own.
pub(super) fn find() -> Result<PathBuf, VerbFailure> {
    if let Some(file) = environment::file() {
        return Ok(file);
    }
    let folders = ["", NODE_FOLDER].map(Path::new);
    Ok(config::find_in(&folders).map_err(|error| Error::from(&error))?)
}

/// Reads a text file other than a configuration, or `-` for standard input. Returns its name and its text.
pub(super) fn text_of(file: &Path) -> Result<(String, String), Error> {
    let (name, bytes) = if file.as_os_str() == "-" {
        ("standard input".to_owned(), input::read_standard_input())
    } else {
        (text::path(file).to_string(), input::read(file))
    };
    let bytes =
        bytes.map_err(|error| Error::new(Kind::Invalid, error.to_string()).with_hint_if(error.hint()))?;
    let text = text_in(&name, bytes)?;
    Ok((name, text))
}

/// Decodes the text in the file `name`.
pub(super) fn text_in(name: &str, bytes: Vec<u8>) -> Result<String, Error> {
    decoded(bytes).map_err(|why| {
        Error::new(Kind::Invalid, format!("cannot read {name}: {why}")).with_hint("save it as UTF-8")
    })
}

/// Decodes UTF-8, or UTF-16 with a byte order mark, as `>` in Windows PowerShell 5.1 writes it. The text has no byte order mark.
fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    let units = |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> Vec<u16> {
        bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect()
    };
    let units = match bytes.get(..2) {
        Some([0xff, 0xfe]) => units(&bytes[2..], u16::from_le_bytes),
        Some([0xfe, 0xff]) => units(&bytes[2..], u16::from_be_bytes),
        _ => {
            let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
            if text.starts_with(BYTE_ORDER_MARK) {
                text.drain(..BYTE_ORDER_MARK.len_utf8());
            }
            return Ok(text);
        }
    };
    String::from_utf16(&units).map_err(|_| "it is not UTF-16 text".to_owned())
}

/// Reads and validates a configuration.
pub(super) fn load(file: Option<&Path>) -> Result<Loaded, VerbFailure> {
    Ok(Loaded::new(document(file)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_in_every_encoding() {
        let units = |bytes: fn(u16) -> [u8; 2]| {
            let units = std::iter::once(0xfeff).chain("{ä}".encode_utf16());
            units.flat_map(bytes).collect::<Vec<u8>>()
        };
        let with_mark = [&[0xef, 0xbb, 0xbf], "{ä}".as_bytes()].concat();
        for bytes in ["{ä}".into(), with_mark, units(u16::to_le_bytes), units(u16::to_be_bytes)] {
            assert_eq!(decoded(bytes.clone()), Ok("{ä}".to_owned()), "{bytes:?}");
        }
        assert!(decoded(vec![0xc3]).is_err());
    }
}
