//! What firewalls and the NAT of other programs do with the packets of pods.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{Patient, egress, finding, journey::spot_text, samples};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::{
        Direction, Filtering, Packet, Passage, Path, Paths, Spot, Treatment, Way, follow, outside_address,
    },
    model::{Family, pod_address},
    state::{
        Firewall, FirewallChain, Link, LowerChain, MatchedChains, PacketPart, PolicyRule, RuleVerdict,
        TableFamily, Term,
    },
    text::{ShellCommand, Untrusted, count, list},
};

/// What happens to a packet.
#[derive(PartialEq)]
enum Trouble<'a> {
    Filtered(Filtering<'a>),
    Masqueraded(Spot<'a>),
    /// Its mark is changed before it is routed.
    Marked(Spot<'a>),
}

/// The number of paths to follow through the rules. Rules for single nodes are rare in larger clusters.
const MAX_PATHS: usize = 2000;

pub(super) fn examine(patient: &Patient<'_>, paths: &Paths<'_>) -> Vec<Diagnostic> {
    let host = &patient.observed.host;
    let Some(firewall) = &host.firewall else {
        return vec![finding(
            Rule::FirewallUnknown,
            "the firewall rules could not be read".to_owned(),
            "run `hostgw doctor` as root, or with CAP_NET_ADMIN; for a snapshot, run `hostgw snapshot` as root",
        )];
    };
    let by_mark = host.rules.iter().find(|rule| rule.selector.mark.is_some());
    let mut found: Vec<(Trouble<'_>, Vec<Path>)> = Vec::new();
    for path in paths.between_pods().take(MAX_PATHS) {
        for is_reply in [false, true] {
            let passage =
                Passage { packet: &path.packet, way: Way::Through, output: &path.expected.device, is_reply };
            let Treatment { filter, masquerade, marked } =
                follow(firewall, host, &passage, MatchedChains::Others);
            let marked = marked.filter(|_| by_mark.is_some()).map(Trouble::Marked);
            let masquerade = masquerade.map(Trouble::Masqueraded);
            let filter = (filter != Filtering::Passed).then_some(Trouble::Filtered(filter));
            for trouble in [filter, masquerade, marked].into_iter().flatten() {
                match found.iter_mut().find(|(other, _)| *other == trouble) {
                    Some((_, paths)) => paths.push(path.clone()),
                    None => found.push((trouble, vec![path.clone()])),
                }
            }
        }
    }
    let all = paths.nodes();
    let mut findings: Vec<Diagnostic> = found
        .iter()
        .filter_map(|(trouble, paths)| match trouble {
            Trouble::Filtered(Filtering::Dropped(spot)) => Some(dropped(paths, all, spot)),
            Trouble::Filtered(Filtering::DroppedUnless(spot, by)) => {
                Some(unclear(paths, all, spot, Some(by)))
            }
            Trouble::Filtered(Filtering::MaybeDropped(by)) => Some(unclear(paths, all, by, None)),
            Trouble::Filtered(Filtering::Passed) => None,
            Trouble::Masqueraded(spot) => Some(masqueraded(paths, all, spot)),
            Trouble::Marked(spot) => by_mark.map(|rule| marked(paths, all, spot, rule)),
        })
        .collect();
    findings.extend(outside(patient, paths, firewall));
    findings.extend(below_ip(patient, paths, firewall));
    if !firewall.legacy.is_empty() {
        findings.push(finding(
            Rule::LegacyTables,
            format!(
                "iptables-legacy has rules in {}, which hostgw cannot read: they may drop or masquerade pod traffic",
                list(&firewall.legacy, 5)
            ),
            "list them with `iptables-legacy-save`, and run `hostgw rehearse`, which sends packets through a copy of them",
        ));
    }
    findings
}

/// Whose packets are affected, of `all` other nodes.
fn direction(paths: &[Path], all: usize) -> String {
    let goes = |direction| paths.iter().any(|path| path.direction == direction);
    let nodes: BTreeSet<&Untrusted> = paths.iter().filter_map(Path::node).collect();
    let nodes: Vec<&Untrusted> = nodes.into_iter().collect();
    let others = match nodes.len() {
        some if some >= all.min(MAX_PATHS / 2) => "other nodes".to_owned(),
        1 => format!("node {}", nodes[0]),
        some => format!("{} ({})", count(some, "node"), list(&nodes, 6)),
    };
    match (goes(Direction::Out), goes(Direction::In)) {
        (true, true) => format!("between this node's pods and those on {others}"),
        (true, false) => format!("from this node's pods to those on {others}"),
        (false, _) => format!("from pods on {others} to this node's pods"),
    }
}

fn dropped(paths: &[Path], all: usize, spot: &Spot<'_>) -> Diagnostic {
    finding(
        Rule::ForwardBlocked,
        format!("{} drops packets {}", spot_text(spot), direction(paths, all)),
        match spot.rule {
            // The chain of iptables to which users add rules.
            Some(_) if !(is_iptables(spot.chain) && spot.chain.name == "FORWARD") => {
                remove(spot, "traffic between pods")
            }
            _ => allow(paths, spot),
        },
    )
}

fn unclear(paths: &[Path], all: usize, spot: &Spot<'_>, by: Option<&Spot<'_>>) -> Diagnostic {
    let affected = direction(paths, all);
    let message = match by {
        Some(by) => format!(
            "{} drops packets {affected} unless {} accepts them: hostgw cannot tell, because it cannot decode {}",
            spot_text(spot),
            spot_text(by),
            undecoded(by)
        ),
        None => format!(
            "{} may drop packets {affected}: hostgw cannot tell, because it cannot decode {}",
            spot_text(spot),
            undecoded(spot)
        ),
    };
    finding(
        Rule::ForwardUnclear,
        message,
        "try a connection between two pods on different nodes, or run `hostgw rehearse`",
    )
}

fn masqueraded(paths: &[Path], all: usize, spot: &Spot<'_>) -> Diagnostic {
    finding(
        Rule::PodsMasqueraded,
        format!(
            "{} changes the source address of packets {}: the pods see a node's address instead of the other pod's",
            spot_text(spot),
            direction(paths, all)
        ),
        remove(spot, "the cluster prefix"),
    )
}

fn marked(paths: &[Path], all: usize, spot: &Spot<'_>, rule: &PolicyRule) -> Diagnostic {
    finding(
        Rule::RoutedByMark,
        format!(
            "{} changes the mark of packets {}, and the policy rule `{rule}` routes packets by their mark: hostgw cannot tell \
             whether it diverts them",
            spot_text(spot),
            direction(paths, all)
        ),
        "try a connection between two pods on different nodes, or run `hostgw rehearse`",
    )
}

/// Chains that see the packets of pods, or the ARP requests for them, before or after all others.
fn below_ip(patient: &Patient<'_>, paths: &Paths<'_>, firewall: &Firewall) -> Vec<Diagnostic> {
    if firewall.lower.is_empty() {
        return Vec::new();
    }
    let host = &patient.observed.host;
    let pods = samples(paths).into_iter().map(|path| path.packet.input);
    let mut used: BTreeSet<Untrusted> = pods.filter(|name| host.link(name.as_raw()).is_some()).collect();
    used.extend(egress(patient).map(|link| link.name.clone()));
    let is_bridge = |link: &Link| link.kind.as_ref().is_some_and(|kind| kind == "bridge");
    // The ports of a bridge carry its packets.
    let carries = |link: &&Link| {
        used.contains(&link.name) || link.master.as_ref().is_some_and(|master| used.contains(master))
    };
    let carriers: Vec<&Link> = host.links.iter().filter(carries).collect();
    let sees = |chain: &&LowerChain| match chain.family.as_raw() {
        "bridge" => carriers.iter().any(|link| is_bridge(link)),
        _ => {
            let mut devices = chain.devices.iter();
            chain.devices.is_empty() || devices.any(|name| carriers.iter().any(|link| link.name == *name))
        }
    };
    let diagnostic = |chain: &LowerChain| {
        let LowerChain { family, table, name, devices } = chain;
        let on = if devices.is_empty() { String::new() } else { format!(" on {}", list(devices, 3)) };
        finding(
            Rule::FirewallBelowIp,
            format!(
                "chain {name} of table {family} {table}{on} can drop pod traffic or ARP requests; hostgw does not evaluate its rules"
            ),
            format!(
                "check that it accepts pod traffic and ARP: `{}`",
                ShellCommand::new(["nft", "list", "chain", family.as_raw(), table.as_raw(), name.as_raw()])
            ),
        )
    };
    firewall.lower.iter().filter(sees).map(diagnostic).collect()
}

/// Traffic that leaves the cluster and that the configuration does not masquerade.
fn outside(patient: &Patient<'_>, paths: &Paths<'_>, firewall: &Firewall) -> Vec<Diagnostic> {
    let cluster = patient.cluster;
    let host = &patient.observed.host;
    let mut findings = Vec::new();
    for path in samples(paths).into_iter().filter(|path| path.direction == Direction::Out) {
        let family = Family::from(path.packet.destination);
        let excluded = cluster.nat.exclude.iter().filter(|prefix| Family::from(**prefix) == family);
        let mut destinations: Vec<(IpAddr, String)> = excluded
            .map(|prefix| (pod_address(*prefix, None), format!("{prefix}, which nat.exclude contains")))
            .collect();
        if !cluster.nat.masquerade {
            let what = "destinations outside the cluster, but nat.masquerade is false";
            destinations.push((outside_address(family), what.to_owned()));
        }
        for (destination, what) in destinations {
            let packet = Packet { destination, ..path.packet.clone() };
            let passage = Passage {
                packet: &packet,
                way: Way::Through,
                output: &path.expected.device,
                is_reply: false,
            };
            if let Some(spot) = follow(firewall, host, &passage, MatchedChains::Others).masquerade {
                let message = format!("{} changes the source address of packets to {what}", spot_text(&spot));
                findings.push(finding(Rule::ForeignMasquerade, message, remove(&spot, "these destinations")));
                break;
            }
        }
    }
    findings
}

/// The table, as nft names it.
fn table(chain: &FirewallChain) -> String {
    format!("{} {}", chain.family.name(), chain.table)
}

fn undecoded(spot: &Spot<'_>) -> String {
    let names: Vec<String> = spot
        .rule
        .iter()
        .flat_map(|rule| &rule.terms)
        .filter_map(|term| match term {
            Term::Condition(name) | Term::Effect(name) => Some(name.to_string()),
            Term::Mark { .. } => Some("mark".to_owned()),
            Term::Load { what: PacketPart::Other(name), .. } => Some(name.to_string()),
            _ => None,
        })
        .collect();
    if names.is_empty() { "its conditions".to_owned() } else { format!("`{}`", list(&names, 3)) }
}

/// The commands that let packets between pods pass: before a rule, or after all rules of a chain with a policy.
fn allow(paths: &[Path], spot: &Spot<'_>) -> String {
    let chain = spot.chain;
    let is_policy = spot.rule.is_none();
    let prefixes: BTreeSet<IpNet> = paths.iter().map(|path| path.cluster).collect();
    let commands = prefixes.iter().map(|prefix| {
        let is_v4 = prefix.addr().is_ipv4();
        if is_iptables(chain) && chain.name == "FORWARD" {
            let program = if is_v4 { "iptables" } else { "ip6tables" };
            let option = if is_policy { "-A" } else { "-I" };
            return format!("`{program} {option} FORWARD -s {prefix} -d {prefix} -j ACCEPT`");
        }
        let verb = if is_policy { "add" } else { "insert" };
        let family = if is_v4 { "ip" } else { "ip6" };
        let (table, name) = (table(chain), &chain.name);
        format!("`nft {verb} rule {table} {name} {family} saddr {prefix} {family} daddr {prefix} accept`")
    });
    let commands: Vec<String> = commands.collect();
    format!(
        "accept them in the program that manages this firewall, for example with {}",
        commands.join(" and ")
    )
}

fn is_iptables(chain: &FirewallChain) -> bool {
    chain.family != TableFamily::Inet && ["filter", "nat"].contains(&chain.table.as_raw())
}

/// The command that removes a rule, or what to exclude in the program that added it.
fn remove(spot: &Spot<'_>, exclude: &str) -> String {
    if let Some(command) = recipe(spot) {
        return format!("if it is left over from a manual setup, remove it with `{command}`");
    }
    let rule = spot.rule.map_or(0, |rule| rule.handle);
    format!(
        "exclude {exclude} in the program that added it, or remove it with `nft delete rule {} {} handle {rule}`",
        table(spot.chain),
        spot.chain.name
    )
}

/// The command that removes the masquerade rule of the recipe, if this is one.
fn recipe(spot: &Spot<'_>) -> Option<String> {
    let rule = spot.rule.filter(|_| is_iptables(spot.chain) && spot.chain.base.is_some())?;
    let (mut prefix, mut is_not_local, mut offset_length) = (None, false, None);
    let mut mask = None;
    for term in &rule.terms {
        match term {
            Term::Load { what: PacketPart::Header { offset: 16 | 24, length }, .. } => {
                offset_length = Some(*length)
            }
            Term::Mask { mask: bits, .. } => mask = Some(bits.clone()),
            Term::Compare { operator: crate::state::Operator::Unequal, value, .. }
                if offset_length.take().is_some() =>
            {
                prefix = network(value, mask.as_deref(), spot.chain.family);
            }
            Term::AddressType { source: None, destination: Some(types) }
                if types.not && types.bits == 1 << 2 =>
            {
                is_not_local = true;
            }
            Term::Load { what: PacketPart::DestinationType, .. } => is_not_local = true,
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
