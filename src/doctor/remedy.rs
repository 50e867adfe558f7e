//! Remedies for firewall rules that drop or change pod packets.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::{
    forwarding::{Direction, Packet, Path, Spot},
    model::Family,
    state::{FirewallChain, Hook, Operator, PacketPart, RuleVerdict, TableFamily, Term},
    text::{ShellCommand, Untrusted, all_of},
};

/// Returns the table as `nft` names it.
fn table(chain: &FirewallChain) -> String {
    format!("{} {}", chain.family.name(), chain.table)
}

/// Says to accept packets, with commands as an example.
pub(super) fn accept(commands: &[String]) -> String {
    let commands: Vec<String> = commands.iter().map(|command| format!("`{command}`")).collect();
    let example = match commands.as_slice() {
        [] => String::new(),
        commands => format!(", for example with {}", all_of(commands)),
    };
    format!("accept them in the program that manages this firewall{example}")
}

/// A rule that accepts packets, as options of iptables and as expressions of nft.
#[derive(Debug, Clone)]
pub(super) struct Acceptance {
    family: Family,
    options: Vec<String>,
    expressions: Vec<String>,
}

impl Acceptance {
    /// Returns a rule that accepts packets of a family.
    pub(super) const fn of(family: Family) -> Self {
        Self { family, options: Vec::new(), expressions: Vec::new() }
    }

    /// Returns a rule for packets from a prefix to another.
    pub(super) fn between(from: IpNet, to: IpNet) -> Self {
        Self::of(from.into()).with_source(from).with_destination(to)
    }

    /// Returns a rule for packets from the pods of this node on a path, which arrive on `device`. The interfaces of single pods come
    /// and go.
    pub(super) fn from_pods(path: &Path, device: &Untrusted) -> Self {
        let all = Self::of(path.own.into());
        if path.is_alone { all.with_source(path.own) } else { all.with_input(device) }
    }

    /// The same for packets to these pods.
    pub(super) fn to_pods(path: &Path, device: &Untrusted) -> Self {
        let all = Self::of(path.own.into());
        if path.is_alone { all.with_destination(path.own) } else { all.with_output(device) }
    }

    pub(super) fn with_source(self, from: IpNet) -> Self {
        self.prefix("-s", "saddr", from)
    }

    pub(super) fn with_destination(self, to: IpNet) -> Self {
        self.prefix("-d", "daddr", to)
    }

    pub(super) fn with_input(self, input: &Untrusted) -> Self {
        self.add(&["-i", input.as_raw()], &["iifname", input.as_raw()])
    }

    pub(super) fn with_output(self, output: &Untrusted) -> Self {
        self.add(&["-o", output.as_raw()], &["oifname", output.as_raw()])
    }

    pub(super) fn replies(self) -> Self {
        self.add(
            &["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"],
            &["ct", "state", "established,related"],
        )
    }

    fn prefix(self, option: &str, field: &str, prefix: IpNet) -> Self {
        let (family, prefix) = (self.family.nft(), prefix.to_string());
        self.add(&[option, &prefix], &[family, field, &prefix])
    }

    fn add(mut self, options: &[&str], expressions: &[&str]) -> Self {
        self.options.extend(options.iter().copied().map(str::to_owned));
        self.expressions.extend(expressions.iter().copied().map(str::to_owned));
        self
    }

    /// Returns the command that adds the rule before the one that drops the packets or, if the policy of the chain does, at the
    /// end.
    pub(super) fn command(&self, spot: &Spot<'_>) -> String {
        let FirewallChain { family, table, name, .. } = spot.chain;
        let is_policy = spot.rule.is_none();
        if is_main_chain(spot.chain) {
            let program = match self.family {
                Family::V4 => "iptables",
                Family::V6 => "ip6tables",
            };
            let words = [program, if is_policy { "-A" } else { "-I" }, name.as_raw()];
            let options = self.options.iter().map(String::as_str);
            return ShellCommand::new(words.into_iter().chain(options).chain(["-j", "ACCEPT"])).to_string();
        }
        let verb = if is_policy { "add" } else { "insert" };
        let words = ["nft", verb, "rule", family.name(), table.as_raw(), name.as_raw()];
        let expressions = self.expressions.iter().map(String::as_str);
        ShellCommand::new(words.into_iter().chain(expressions).chain(["accept"])).to_string()
    }
}

/// Returns the commands that accept packets between pods.
pub(super) fn allow<'p>(paths: impl Iterator<Item = &'p Path>, spot: &Spot<'_>) -> Vec<String> {
    acceptances(paths).map(|accepted| accepted.command(spot)).collect()
}

/// The same for packets that only reply to accepted ones.
pub(super) fn allow_replies<'p>(paths: impl Iterator<Item = &'p Path>, spot: &Spot<'_>) -> Vec<String> {
    acceptances(paths).map(|accepted| accepted.replies().command(spot)).collect()
}

fn acceptances<'p>(paths: impl Iterator<Item = &'p Path>) -> impl Iterator<Item = Acceptance> {
    let prefixes: BTreeSet<(IpNet, IpNet)> = paths.map(|path| (path.from_cluster, path.cluster)).collect();
    prefixes.into_iter().map(|(from, to)| Acceptance::between(from, to))
}

/// Returns the command that accepts packets from pods to the outside, or the replies to them.
pub(super) fn allow_outside(spot: &Spot<'_>, path: &Path) -> Option<String> {
    let accepted = match path.direction {
        Direction::In => Acceptance::to_pods(path, &path.expected.device).replies(),
        Direction::Out => Acceptance::from_pods(path, path.packet.input.as_ref()?),
    };
    Some(accepted.command(spot))
}

/// Returns `true` if the remedy for a rule or policy that drops packets is another rule that accepts them. Users add their own
/// rules to the chains of iptables, so adding one is better than removing one.
pub(super) fn is_open(spot: &Spot<'_>) -> bool {
    spot.rule.is_none() || is_main_chain(spot.chain)
}

/// Returns `true` for a chain of iptables to which users add their own rules.
fn is_main_chain(chain: &FirewallChain) -> bool {
    is_iptables(chain) && ["FORWARD", "INPUT", "OUTPUT"].contains(&chain.name.as_raw())
}

/// Returns the command that accepts packets between pods of this node.
pub(super) fn allow_between_own(
    spot: &Spot<'_>,
    packet: &Packet,
    output: &Untrusted,
    pods: IpNet,
) -> Option<String> {
    let input = packet.input.as_ref()?;
    // The interfaces of single pods come and go, and before routing, packets have no outgoing interface.
    let hook = spot.chain.base.as_ref().map(|base| base.hook);
    let is_bridged = input == output && hook != Some(Hook::Prerouting);
    let accepted = match is_bridged {
        true => Acceptance::of(packet.source.into()).with_input(input).with_output(output),
        false => Acceptance::between(pods, pods),
    };
    Some(accepted.command(spot))
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
