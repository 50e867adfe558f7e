//! A change as the commands that would make it by hand.

use crate::{
    model::Family,
    plan::{Change, NatChange, RouteChange, Step},
    state::{NatTable, Route},
};

/// The `ip`, `nft` and `sysctl` commands that make `change`, for somebody to run.
#[must_use]
pub fn commands(change: &Change) -> Vec<String> {
    match change {
        Change::Route(change) => route_commands(change),
        Change::Nat(change) => nat_commands(change),
        Change::Sysctl(change) => vec![format!("sysctl -w '{}={}'", change.key, change.after)],
    }
}

fn route_commands(change: &RouteChange) -> Vec<String> {
    let ip = |verb: &str, route: &Route| {
        let family = if route.family() == Family::V6 { "ip -6" } else { "ip" };
        format!("{family} route {verb} {route}")
    };
    let command = |verb, route: &Route| {
        // What `ip` would need more than hostgw has words for is for a person to add.
        let by_hand = if route.more.is_some() { "# by hand, for it says more: " } else { "" };
        format!("{by_hand}{}", ip(verb, route))
    };
    change
        .steps()
        .into_iter()
        .map(|step| match step {
            Step::Add(route) => command("add", route),
            Step::Replace { new, .. } => command("replace", new),
            Step::Append(route) => command("append", route),
            Step::Delete(route) => command("del", route),
        })
        .collect()
}

fn nat_commands(change: &NatChange) -> Vec<String> {
    let name = format!("{} {}", change.family.nft(), NatTable::NAME);
    let mut commands = Vec::new();
    if change.before.is_some() {
        commands.push(format!("nft delete table {name}"));
    }
    let objects = change.after.as_ref().map(NatTable::objects).unwrap_or_default();
    commands.extend(objects.iter().map(|object| match object {
        object if !object.is_in_nft_s_words() => {
            format!("# by hand, it is not in hostgw's words: {object}")
        }
        _ => format!("nft 'add {}'", object.to_string().replace('\'', "'\\''")),
    }));
    commands
}
