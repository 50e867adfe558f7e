//! A change as the commands that would make it by hand.

use crate::{
    model::Family,
    plan::{Change, NatChange, RouteChange, SysctlChange},
    state::{NatTable, Route, RouteType},
    text::ShellCommand,
};

/// The `ip`, `nft` and `sysctl` commands that make `change`, for somebody to run.
///
/// Each of them takes just the objects that it names, and none takes the place of another: what somebody else has
/// put there meanwhile makes a command fail, and stays.
#[must_use]
pub fn commands(change: &Change) -> Vec<ShellCommand> {
    match change {
        Change::Route(change) => route_commands(change),
        Change::Nat(change) => nat_commands(change),
        Change::Sysctl(SysctlChange { key, after, .. }) => {
            vec![ShellCommand::new(["sysctl", "-w", &format!("{key}={after}")])]
        }
    }
}

/// The first routes that are to stay do. Where one route takes the place of all others, IPv4 has it stand behind
/// them first, so that there is no moment without; IPv6 would make one route of the two.
fn route_commands(change: &RouteChange) -> Vec<ShellCommand> {
    if let Some(new) = change.prepended() {
        return new.iter().rev().map(|route| route_command("prepend", route)).collect();
    }
    let RouteChange { before, after, .. } = change;
    let kept = before.iter().zip(after).take_while(|(before, after)| before == after).count();
    let gone = before[kept..].iter().map(|route| route_command("del", route));
    let come = |is_empty: bool| {
        after[kept..]
            .iter()
            .enumerate()
            .map(move |(at, route)| route_command(if is_empty && at == 0 { "add" } else { "append" }, route))
    };
    let stands_behind = kept == 0 && !before.is_empty() && after.iter().all(|route| !before.contains(route));
    if stands_behind && change.key.family() == Family::V4 {
        come(false).chain(gone).collect()
    } else {
        gone.chain(come(kept == 0)).collect()
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
    if route.more.is_some() || matches!(route.kind, RouteType::Other(_)) {
        return ShellCommand::by_hand("hostgw cannot decode it", words);
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
        if object.is_in_nft_s_words() {
            ShellCommand::new(["nft", &format!("add {text}")])
        } else {
            ShellCommand::by_hand("hostgw cannot decode it", [text.as_str()])
        }
    }));
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Route;

    fn route(gateway: &str, device: &str, protocol: u8) -> Route {
        serde_json::from_value(serde_json::json!({
            "destination": if gateway.contains(':') { "fd00:244::/64" } else { "10.244.1.0/24" },
            "table": 254, "metric": 0, "protocol": protocol, "scope": "global", "type": "unicast",
            "next": { "gateway": gateway, "device": device },
        }))
        .expect("a route")
    }

    fn lines(before: &[&Route], after: &[&Route]) -> Vec<String> {
        let routes = |routes: &[&Route]| routes.iter().map(|route| (*route).clone()).collect::<Vec<_>>();
        let (before, after) = (routes(before), routes(after));
        let key = before.iter().chain(&after).next().expect("a route").key();
        let change = RouteChange { key, before, after };
        commands(&Change::Route(change)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_command_takes_the_place_of_a_route_that_it_does_not_name() {
        let (own, other) = (route("10.244.1.1", "eth0", 87), route("172.30.0.9", "x$(id)", 4));
        let own_words = "10.244.1.0/24 via 10.244.1.1 dev eth0 proto 87";
        let other_words = "10.244.1.0/24 via 172.30.0.9 dev 'x$(id)' proto static";
        assert_eq!(lines(&[], &[&own]), [format!("ip route add {own_words}")]);
        assert_eq!(
            lines(&[&own], &[&other]),
            [format!("ip route append {other_words}"), format!("ip route del {own_words}")]
        );
        assert_eq!(
            lines(&[&own, &other], &[&other, &own]),
            [
                format!("ip route del {own_words}"),
                format!("ip route del {other_words}"),
                format!("ip route add {other_words}"),
                format!("ip route append {own_words}")
            ]
        );
        assert_eq!(lines(&[&other], &[&other, &own]), [format!("ip route append {own_words}")]);
        assert_eq!(lines(&[&other], &[&own, &other]), [format!("ip route prepend {own_words}")]);
        let (own, other) = (route("fd00:244::1", "eth0", 87), route("fd00:1::9", "eth0", 4));
        assert_eq!(
            lines(&[&own], &[&other]),
            [
                "ip -6 route del fd00:244::/64 via fd00:244::1 dev eth0 proto 87",
                "ip -6 route add fd00:244::/64 via fd00:1::9 dev eth0 proto static"
            ]
        );
    }
}
