//! Which configuration the agent keeps in effect, if not the file's: what other commands did decides that.

use crate::{
    config::Document,
    record::{Command, LastApplied, Pin, PinReason},
};

/// What another command's transaction means for the agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OtherCommand {
    /// It applied the content of the agent's file: the agent keeps it.
    SameConfiguration,
    /// The agent keeps what is in effect now, instead of the file.
    Pinned(Pin),
}

/// Judges the newest transaction, `newest`, which another command made or undid since the agent saw `seen` as the newest.
/// `last` is what is in effect now; `document` is the content of the agent's file, if it can be read, and `hash` its hash.
pub(super) fn judge(
    seen: Option<u64>,
    newest: Option<u64>,
    last: Option<&LastApplied>,
    document: Option<&Document>,
) -> OtherCommand {
    let is_undone = newest < seen;
    let is_destroyed = last.is_none_or(|last| last.meta.command == Command::Destroy);
    let stored = last.and_then(|last| last.configuration.as_ref());
    if !is_destroyed && stored.zip(document).is_some_and(|(stored, document)| stored == document) {
        return OtherCommand::SameConfiguration;
    }
    let reason = match (is_undone, is_destroyed) {
        (true, _) => PinReason::Rollback,
        (false, true) => PinReason::Destroy,
        (false, false) => PinReason::Apply,
    };
    OtherCommand::Pinned(Pin {
        reason,
        transaction: newest,
        file: last.and_then(|last| last.meta.file.clone()),
        instead_of: document.map(|document| document.hash().into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Format, StoredConfig},
        record::TransactionMeta,
        state::State,
    };

    fn document(text: &str) -> Document {
        Document::new("hostgw.yaml", text.to_owned(), Format::Yaml)
    }

    fn applied(id: u64, command: Command, text: Option<&str>) -> LastApplied {
        LastApplied {
            id,
            meta: TransactionMeta::new(command, 0),
            state: State::default(),
            egress_interface: None,
            configuration: text.map(|text| StoredConfig::from(&document(text))),
        }
    }

    fn reason(turn: &OtherCommand) -> Option<PinReason> {
        match turn {
            OtherCommand::SameConfiguration => None,
            OtherCommand::Pinned(pin) => Some(pin.reason),
        }
    }

    #[test]
    fn only_the_same_configuration_is_taken_over() {
        let file = document("a");
        let judge = |seen, newest, last: Option<LastApplied>| {
            reason(&judge(seen, newest, last.as_ref(), Some(&file)))
        };
        let apply = |id, text| Some(applied(id, Command::Apply, Some(text)));
        assert_eq!(judge(Some(1), Some(2), apply(2, "a")), None);
        assert_eq!(judge(Some(1), Some(2), apply(2, "b")), Some(PinReason::Apply));
        assert_eq!(judge(Some(2), Some(1), apply(1, "b")), Some(PinReason::Rollback));
        assert_eq!(judge(Some(2), Some(1), apply(1, "a")), None, "rolled back to the content of the file");
        assert_eq!(judge(Some(1), None, None), Some(PinReason::Rollback), "the first apply was rolled back");
        let destroy = Some(applied(2, Command::Destroy, None));
        assert_eq!(judge(Some(1), Some(2), destroy), Some(PinReason::Destroy));
    }
}
