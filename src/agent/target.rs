//! Determines which configuration the agent keeps in effect after another command, if not the one in its file.

use std::collections::BTreeSet;

use crate::{
    config::Document,
    error::Error,
    kernel::EventScope,
    plan,
    reconcile::{self, Session},
    record::{Command, LastApplied, Pin, PinReason},
    state::{Route, RouteKey},
};

/// What another command's transaction means for the agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OtherCommand {
    /// The command applied the content of the agent's file.
    SameConfiguration,
    /// The agent keeps what is in effect now instead of its file.
    Pinned(Pin),
}

/// Classifies the newest transaction, `newest`, if another command made or undid one since the agent saw `seen`. `last` is
/// what is in effect now; `document` is the content of the agent's file, if readable.
pub(super) fn classify(
    seen: Option<u64>,
    newest: Option<u64>,
    last: Option<&LastApplied>,
    document: Option<&Document>,
) -> OtherCommand {
    let is_undone = newest < seen;
    let is_destroyed = last.is_none_or(|last| last.metadata.command == Command::Destroy);
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
        transaction_id: newest,
        file: last.and_then(|last| last.metadata.file.clone()),
        instead_of: document.map(|document| document.hash().into()),
    })
}

/// Returns the prefixes, addresses and interface whose changes can affect a session's cluster.
pub(super) fn event_scope(session: &Session) -> EventScope {
    let cluster = &session.loaded.cluster;
    let of_nodes = cluster.nodes.iter().flat_map(|node| node.addresses.iter());
    let mut addresses: Vec<_> = of_nodes.map(|(_, address)| *address).collect();
    addresses.sort_unstable();
    EventScope {
        prefixes: cluster.prefixes.iter().copied().collect(),
        addresses,
        interface: cluster
            .egress_interface_of(&cluster.nodes[session.index])
            .map(|name| name.as_str().into()),
    }
}

/// Returns the keys of the routes to other nodes that the configuration of a session asks for.
pub(super) fn gateways(session: &Session) -> BTreeSet<RouteKey> {
    let routes = plan::desired_routes(&session.loaded.cluster, session.index, |_| true);
    routes.iter().filter(|route| route.next_hop.gateway.is_some()).map(Route::key).collect()
}

/// Refuses a configuration that lacks most routes of the one in effect, whether or not these routes exist at the moment.
pub(super) fn check_removed_routes(before: &BTreeSet<RouteKey>, session: &Session) -> Result<(), Error> {
    let after = gateways(session);
    reconcile::check_mass_removal(before.difference(&after).count(), before.len(), None, after.is_empty())
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
            metadata: TransactionMeta::new(command, 0),
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
    fn only_the_same_configuration_is_followed() {
        let file = document("a");
        let classify = |seen, newest, last: Option<LastApplied>| {
            reason(&classify(seen, newest, last.as_ref(), Some(&file)))
        };
        let apply = |id, text| Some(applied(id, Command::Apply, Some(text)));
        assert_eq!(classify(Some(1), Some(2), apply(2, "a")), None);
        assert_eq!(classify(Some(1), Some(2), apply(2, "b")), Some(PinReason::Apply));
        assert_eq!(classify(Some(2), Some(1), apply(1, "b")), Some(PinReason::Rollback));
        assert_eq!(classify(Some(2), Some(1), apply(1, "a")), None, "rolled back to the content of the file");
        assert_eq!(
            classify(Some(1), None, None),
            Some(PinReason::Rollback),
            "the first apply was rolled back"
        );
        let destroy = Some(applied(2, Command::Destroy, None));
        assert_eq!(classify(Some(1), Some(2), destroy), Some(PinReason::Destroy));
    }
}
