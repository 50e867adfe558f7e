//! Renders a change as the commands that would make it manually.

use crate::{
    model::Family,
    plan::{Change, NatChange, RouteChange, SysctlChange},
    state::{NatTable, Route, RouteType},
    text::ShellCommand,
};

/// Returns the `ip`, `nft` and `sysctl` commands that make `change`.
///
/// Each command affects only the objects that it names, and none replaces an object. If another program has created an
/// object in its place, a command fails and that object stays.
#[must_use]
pub fn commands(change: &Change) -> Vec<ShellCommand> {
    match change {
        Change::Route(change) => route_commands(change),
        Change::Nat(change) => nat_commands(change),
        Change::Sysctl(change) => {
            let SysctlChange { key, after, .. } = &**change;
            vec![ShellCommand::new(["sysctl", "-w", &format!("{key}={after}")])]
        }
    }
}

/// Keeps the leading routes that do not change. If a new route replaces all others, it is appended first, so that IPv4
/// is never without a route; IPv6 would merge the two into one multipath route.
fn route_commands(change: &RouteChange) -> Vec<ShellCommand> {
    if let Some(new) = change.prepended() {
        return new.iter().rev().map(|route| route_command("prepend", route)).collect();
    }
    let RouteChange { before, after, .. } = change;
    let kept = before.iter().zip(after).take_while(|(before, after)| before == after).count();
    let deletions = before[kept..].iter().map(|route| route_command("del", route));
    let additions = |is_empty: bool| {
        after[kept..]
            .iter()
            .enumerate()
            .map(move |(at, route)| route_command(if is_empty && at == 0 { "add" } else { "append" }, route))
    };
    let is_replacement = kept == 0 && !before.is_empty() && after.iter().all(|route| !before.contains(route));
    if is_replacement && change.key.family() == Family::V4 {
        additions(false).chain(deletions).collect()
    } else {
        deletions.chain(additions(kept == 0)).collect()
    }
}

fn route_command(verb: &'static str, route: &Route) -> ShellCommand {
    let mut words = vec!["ip"];
    if route.family() == Family::V6 {
        words.push("-6");
    }
    words.extend(["route", verb]);
    let arguments = route.arguments();
    words.extend(arguments.iter().map(String::as_str));
    if route.opaque.is_some() || matches!(route.kind, RouteType::Other(_)) {
        return ShellCommand::manual("hostgw cannot decode it", words);
    }
    ShellCommand::new(words)
}

fn nat_commands(change: &NatChange) -> Vec<ShellCommand> {
    let family = change.family.nft();
    let mut commands = Vec::new();
    if change.before.is_some() {
        commands.push(ShellCommand::new(["nft", "delete", "table", family, NatTable::NAME]));
    }
    let objects = change.after.as_ref().map(NatTable::objects).unwrap_or_default();
    commands.extend(objects.iter().map(|object| {
        let text = object.to_string();
        if object.is_valid_nft_syntax() {
            ShellCommand::new(["nft", &format!("add {text}")])
        } else {
            ShellCommand::manual("hostgw cannot decode it", [text.as_str()])
        }
    }));
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Route, RouteList};

    fn route(gateway: &str, device: &str, protocol: u8) -> Route {
        serde_json::from_value(serde_json::json!({
            "destination": if gateway.contains(':') { "fd00:244::/64" } else { "10.244.1.0/24" },
            "table": 254, "metric": 0, "protocol": protocol, "scope": "global", "type": "unicast",
            "nextHop": { "gateway": gateway, "device": device },
        }))
        .expect("a route")
    }

    fn lines(before: &[&Route], after: &[&Route]) -> Vec<String> {
        let routes = |routes: &[&Route]| routes.iter().map(|route| (*route).clone()).collect::<Vec<_>>();
        let (before, after): (RouteList, RouteList) = (routes(before).into(), routes(after).into());
        let key = before.iter().chain(&after).next().expect("a route").key();
        let change = RouteChange { key, before, after };
        commands(&Change::Route(change)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_command_never_replaces_a_route_that_it_does_not_name() {
        let (managed, foreign) = (route("10.244.1.1", "eth0", 87), route("172.30.0.9", "x$(id)", 4));
        let managed_text = "10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87";
        let foreign_text = "10.244.1.0/24 via 172.30.0.9 dev 'x$(id)' proto static";
        assert_eq!(lines(&[], &[&managed]), [format!("ip route add {managed_text}")]);
        assert_eq!(
            lines(&[&managed], &[&foreign]),
            [format!("ip route append {foreign_text}"), format!("ip route del {managed_text}")]
        );
        assert_eq!(
            lines(&[&managed, &foreign], &[&foreign, &managed]),
            [
                format!("ip route del {managed_text}"),
                format!("ip route del {foreign_text}"),
                format!("ip route add {foreign_text}"),
                format!("ip route append {managed_text}")
            ]
        );
        assert_eq!(lines(&[&foreign], &[&foreign, &managed]), [format!("ip route append {managed_text}")]);
        assert_eq!(lines(&[&foreign], &[&managed, &foreign]), [format!("ip route prepend {managed_text}")]);
        let (managed, foreign) = (route("fd00:244::1", "eth0", 87), route("fd00:1::9", "eth0", 4));
        assert_eq!(
            lines(&[&managed], &[&foreign]),
            [
                "ip -6 route del fd00:244::/64 via fd00:244::1 dev eth0 proto 87",
                "ip -6 route add fd00:244::/64 via fd00:1::9 dev eth0 proto static"
            ]
        );
    }
}
