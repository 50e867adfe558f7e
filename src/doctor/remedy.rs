//! Remedies for firewall rules that drop or change pod packets.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::{
    forwarding::{Direction, Packet, Path, Spot},
    state::{FirewallChain, Hook, Operator, PacketPart, RuleVerdict, TableFamily, Term},
    text::{ShellCommand, Untrusted},
};

/// Returns the table as `nft` names it.
fn table(chain: &FirewallChain) -> String {
    format!("{} {}", chain.family.name(), chain.table)
}

const ACCEPT: &str = "accept them in the program that manages this firewall";

/// Says to accept packets, with a command as an example.
pub(super) fn accept(command: Option<String>) -> String {
    ACCEPT.to_owned() + &command.map_or_else(String::new, |command| format!(", for example with `{command}`"))
}

/// Returns the commands that accept packets between pods: with a rule before the one that drops them or, if the policy of the
/// chain does, with a rule at the end.
pub(super) fn allow<'p>(paths: impl Iterator<Item = &'p Path>, spot: &Spot<'_>) -> String {
    let chain = spot.chain;
    let is_policy = spot.rule.is_none();
    let prefixes: BTreeSet<(IpNet, IpNet)> = paths.map(|path| (path.from_cluster, path.cluster)).collect();
    let commands = prefixes.iter().map(|(from, to)| {
        let is_v4 = from.addr().is_ipv4();
        if is_main_chain(chain) {
            let program = if is_v4 { "iptables" } else { "ip6tables" };
            let option = if is_policy { "-A" } else { "-I" };
            return format!("`{program} {option} {} -s {from} -d {to} -j ACCEPT`", chain.name);
        }
        let verb = if is_policy { "add" } else { "insert" };
        let family = if is_v4 { "ip" } else { "ip6" };
        let (table, name) = (table(chain), &chain.name);
        format!("`nft {verb} rule {table} {name} {family} saddr {from} {family} daddr {to} accept`")
    });
    let commands: Vec<String> = commands.collect();
    format!("{ACCEPT}, for example with {}", commands.join(" and "))
}

/// Returns the command that accepts packets from pods to the outside, or the replies to them: with a rule before the one that
/// drops them or, if the policy of the chain does, with a rule at the end.
pub(super) fn allow_outside(spot: &Spot<'_>, path: &Path) -> Option<String> {
    let chain = spot.chain;
    let is_reply = path.direction == Direction::In;
    let pods = if is_reply { &path.expected.device } else { path.packet.input.as_ref()? };
    // The interfaces of single pods come and go.
    let (own, is_v4) = (path.own.to_string(), path.own.addr().is_ipv4());
    let end = if path.is_alone { &own } else { pods.as_raw() };
    let (family, program) = if is_v4 { ("ip", "iptables") } else { ("ip6", "ip6tables") };
    let (option, matches) = match (path.is_alone, is_reply) {
        (false, true) => ("-o", vec!["oifname"]),
        (false, false) => ("-i", vec!["iifname"]),
        (true, true) => ("-d", vec![family, "daddr"]),
        (true, false) => ("-s", vec![family, "saddr"]),
    };
    if is_main_chain(chain) {
        let verb = if spot.rule.is_none() { "-A" } else { "-I" };
        let state = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"];
        let words = [program, verb, chain.name.as_raw(), option, end].into_iter();
        let state = state.into_iter().filter(|_| is_reply);
        return Some(ShellCommand::new(words.chain(state).chain(["-j", "ACCEPT"])).to_string());
    }
    let verb = if spot.rule.is_none() { "add" } else { "insert" };
    let table = [chain.family.name(), chain.table.as_raw(), chain.name.as_raw()];
    let state = ["ct", "state", "established,related"].into_iter().filter(|_| is_reply);
    let words = ["nft", verb, "rule"].into_iter().chain(table).chain(matches).chain([end]).chain(state);
    Some(ShellCommand::new(words.chain(["accept"])).to_string())
}

/// Returns `true` for a chain of iptables to which users add their own rules.
pub(super) fn is_main_chain(chain: &FirewallChain) -> bool {
    is_iptables(chain) && ["FORWARD", "INPUT", "OUTPUT"].contains(&chain.name.as_raw())
}

/// Returns the command that accepts packets between pods of this node: with a rule before the one that drops them or, if the
/// policy of the chain does, with a rule at the end.
pub(super) fn allow_between_own(
    spot: &Spot<'_>,
    packet: &Packet,
    output: &Untrusted,
    pods: IpNet,
) -> Option<String> {
    let chain = spot.chain;
    let (input, output) = (packet.input.as_ref()?.as_raw(), output.as_raw());
    // The interfaces of single pods come and go, and before routing, packets have no outgoing interface.
    let hook = chain.base.as_ref().map(|base| base.hook);
    let is_bridged = input == output && hook != Some(Hook::Prerouting);
    let (from, to) = (pods.to_string(), pods.to_string());
    if is_main_chain(chain) {
        let program = if packet.source.is_ipv4() { "iptables" } else { "ip6tables" };
        let option = if spot.rule.is_none() { "-A" } else { "-I" };
        let ends = if is_bridged { ["-i", input, "-o", output] } else { ["-s", &from, "-d", &to] };
        let words = [program, option, chain.name.as_raw()].into_iter().chain(ends);
        return Some(ShellCommand::new(words.chain(["-j", "ACCEPT"])).to_string());
    }
    let verb = if spot.rule.is_none() { "add" } else { "insert" };
    let table = [chain.family.name(), chain.table.as_raw(), chain.name.as_raw()];
    let family = if packet.source.is_ipv4() { "ip" } else { "ip6" };
    let ends: Vec<&str> = match is_bridged {
        true => vec!["iifname", input, "oifname", output],
        false => vec![family, "saddr", &from, family, "daddr", &to],
    };
    let words = ["nft", verb, "rule"].into_iter().chain(table).chain(ends);
    Some(ShellCommand::new(words.chain(["accept"])).to_string())
}

pub(super) fn is_iptables(chain: &FirewallChain) -> bool {
    chain.family != TableFamily::Inet && ["filter", "nat"].contains(&chain.table.as_raw())
}

/// Returns what to do about a rule: remove it, or exclude `exclude` in the program that added it.
pub(super) fn remove(spot: &Spot<'_>, exclude: &str) -> String {
    if let Some(command) = recipe(spot) {
        return format!("if it is left over from a manual setup, remove it with `{command}`");
    }
    let rule = spot.rule.map_or(0, |rule| rule.handle);
    format!(
        "exempt {exclude} in the program that added it, or remove it with `nft delete rule {} {} handle {rule}`",
        table(spot.chain),
        spot.chain.name
    )
}

/// Returns the command that removes the recipe's masquerade rule, if `spot` is such a rule.
fn recipe(spot: &Spot<'_>) -> Option<String> {
    let rule = spot.rule.filter(|_| is_iptables(spot.chain) && spot.chain.base.is_some())?;
    let (mut prefix, mut is_not_local, mut offset_length) = (None, false, None);
    let mut mask = None;
    for term in &rule.terms {
        match term {
            Term::Load { part: PacketPart::Header { offset: 16 | 24, length }, .. } => {
                offset_length = Some(*length)
            }
            Term::Mask { mask: bits, .. } => mask = Some(bits.clone()),
            Term::Compare { operator: Operator::Unequal, value, .. } if offset_length.take().is_some() => {
                prefix = network(value, mask.as_deref(), spot.chain.family);
            }
            Term::AddressType { source: None, destination: Some(types) }
                if types.not && types.bits == 1 << 2 =>
            {
                is_not_local = true;
            }
            Term::Load { part: PacketPart::DestinationType, .. } => is_not_local = true,
            Term::Compare { .. } | Term::Neutral(_) | Term::Verdict(RuleVerdict::Masquerade) => {}
            _ => return None,
        }
    }
    let prefix = prefix.filter(|_| is_not_local)?;
    let program = if spot.chain.family == TableFamily::Ip6 { "ip6tables" } else { "iptables" };
    Some(format!(
        "{program} -t nat -D {} ! -d {prefix} -m addrtype ! --dst-type LOCAL -j MASQUERADE",
        spot.chain.name
    ))
}

fn network(value: &[u8], mask: Option<&[u8]>, family: TableFamily) -> Option<IpNet> {
    let length = mask.map_or(value.len() * 8, |mask| {
        mask.iter().map(|byte| byte.leading_ones() as usize).take_while(|ones| *ones > 0).sum()
    });
    let mut bytes = value.to_vec();
    let address: IpAddr = if family == TableFamily::Ip6 {
        bytes.resize(16, 0);
        <[u8; 16]>::try_from(bytes).ok()?.into()
    } else {
        bytes.resize(4, 0);
        <[u8; 4]>::try_from(bytes).ok()?.into()
    };
    IpNet::new(address, u8::try_from(length).ok()?).ok()
}
