//! A change as the commands that would make it by hand.

use crate::{
    model::Family,
    plan::{Change, NatChange, RouteChange},
    state::{NatObject, NatTable, Route},
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
        format!("{family} route {verb} {}", without_remark(route))
    };
    let mut commands = Vec::new();
    let mut standing = change.before.clone();
    if let (Some(old), Some(new)) = (standing.first_mut(), change.after.first())
        && !change.before.contains(new)
    {
        commands.push(ip("replace", new));
        *old = new.clone();
    }
    commands
        .extend(standing.iter().filter(|route| !change.after.contains(route)).map(|route| ip("del", route)));
    let missing = change.after.iter().filter(|route| !standing.contains(route));
    commands.extend(missing.map(|route| ip(if standing.is_empty() { "add" } else { "append" }, route)));
    commands
}

/// The route in words that `ip` takes, as far as hostgw has them.
fn without_remark(route: &Route) -> String {
    Route { more: None, ..route.clone() }.to_string()
}

fn nat_commands(change: &NatChange) -> Vec<String> {
    let name = format!("{} {}", change.family.nft(), NatTable::NAME);
    let mut commands = Vec::new();
    if change.before.is_some() {
        commands.push(format!("nft delete table {name}"));
    }
    let objects = change.after.as_ref().map(NatTable::objects).unwrap_or_default();
    commands.extend(objects.iter().map(|object| match object {
        NatObject::Rule { rule, .. } if rule.raw().is_some() => {
            format!("# by hand, it is not in hostgw's words: {object}")
        }
        _ => format!("nft 'add {}'", object.to_string().replace('\'', "'\\''")),
    }));
    commands
}
