//! The rules that masquerade the packets of pods, and what they mean for `nat` of the configuration.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    iptables::{IptablesRule, IptablesTable, MatchedPrefix},
    plugin,
};
use crate::{
    model::{Family, PerFamily},
    state::{
        ChainType, Field, Firewall, FirewallChain, FirewallRule, Hook, NatTable, Operator, PacketPart,
        RuleVerdict, Term,
    },
};

/// The chains of a node.
pub(super) struct Chains<'a> {
    /// Those of iptables.
    pub iptables: Vec<IptablesTable>,
    /// Those that iptables does not know, except hostgw's own.
    pub native: Vec<&'a FirewallChain>,
}

impl<'a> Chains<'a> {
    /// Splits the chains of `firewall` into those that `iptables` knows and the others.
    pub fn new(firewall: Option<&'a Firewall>, iptables: Vec<IptablesTable>) -> Self {
        let is_native = |chain: &&FirewallChain| {
            // A table can have chains of both, and iptables only lists its own.
            let is_known = iptables.iter().any(|table| {
                let is_table =
                    chain.family.name() == table.family.nft() && chain.table == *table.name.as_str();
                let mut chains = table.chains.iter();
                !table.is_legacy && is_table && chains.any(|known| chain.name == *known.name.as_str())
            });
            chain.table != NatTable::NAME && !plugin::is_kube_proxy(chain) && !is_known
        };
        let native = firewall.iter().flat_map(|firewall| &firewall.chains).filter(is_native).collect();
        Self { iptables, native }
    }
}

/// The packets that a rule masquerades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concern {
    /// Those of pods.
    Pods,
    /// All packets, or some that the rule does not show.
    Unclear,
    /// Those of other networks.
    Others,
}

/// The source address that masqueraded packets get, or that routes prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceTarget {
    /// The one that the kernel chooses from those of the interface.
    Interface,
    /// A fixed address.
    Address(IpAddr),
    /// Several addresses, or one that the rule does not show.
    Unclear,
}

impl SourceTarget {
    /// Returns the common value of several targets, or [`Self::Unclear`] if they differ; `None` if there are none.
    pub fn common(targets: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut targets = targets.into_iter();
        let first = targets.next()?;
        Some(if targets.all(|target| target == first) { first } else { Self::Unclear })
    }
}

/// A rule that masquerades packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MasqueradeRule {
    pub family: Option<Family>,
    pub source: Option<MatchedPrefix>,
    pub destination: Option<MatchedPrefix>,
    /// Whether a network plugin created it.
    pub is_of_plugin: bool,
    /// Whether it only applies to sources that are pods, although it names no prefix.
    pub is_for_pods: bool,
    pub is_random_fully: bool,
    pub target: SourceTarget,
}

impl MasqueradeRule {
    /// A rule of iptables, if it masquerades.
    pub fn of_iptables(table: &IptablesTable, rule: &IptablesRule) -> Option<Self> {
        let is_masquerade = table.name == "nat" && matches!(rule.target()?, "MASQUERADE" | "SNAT");
        let plugin = plugin::of_rule(rule);
        (is_masquerade && (plugin.is_some() || rule.chain == "POSTROUTING")).then(|| Self {
            family: Some(table.family),
            source: rule.source(),
            destination: rule.destination(),
            is_of_plugin: plugin.is_some(),
            is_for_pods: plugin == Some(plugin::BRIDGE_PLUGIN)
                || rule.sets().any(|set| plugin::of_set(set).is_some()),
            is_random_fully: rule.has("--random-fully"),
            target: match rule.value("--to-source") {
                None => SourceTarget::Interface,
                Some(text) => text.parse().map_or(SourceTarget::Unclear, SourceTarget::Address),
            },
        })
    }

    /// A rule of nftables, if it masquerades.
    pub fn of_native(chain: &FirewallChain, rule: &FirewallRule) -> Option<Self> {
        let is_source_nat = chain
            .base
            .as_ref()
            .is_none_or(|base| base.kind == ChainType::Nat && base.hook == Hook::Postrouting);
        let is_masquerade =
            rule.terms.iter().any(|term| matches!(term, Term::Verdict(RuleVerdict::Masquerade)));
        let family = Family::ALL.into_iter().find(|family| chain.family.name() == family.nft());
        (is_source_nat && is_masquerade).then(|| {
            let matched = |field| family.and_then(|family| matched_prefix(&rule.terms, family, field));
            Self {
                family,
                source: matched(Field::Saddr),
                destination: matched(Field::Daddr),
                is_of_plugin: plugin::of_table(chain.table.as_raw()).is_some()
                    || plugin::of_chain(chain.name.as_raw()).is_some(),
                is_for_pods: false,
                is_random_fully: false,
                target: native_target(&rule.terms),
            }
        })
    }

    /// Which packets it is about, if `pods` are the cluster prefixes or the node's pod CIDRs.
    pub fn concern(&self, pods: &[IpNet]) -> Concern {
        let overlaps = |net: IpNet| pods.iter().any(|pods| pods.contains(&net) || net.contains(pods));
        match (self.source, self.destination) {
            _ if self.is_of_plugin => Concern::Pods,
            (Some(source), _) if overlaps(source.prefix) => Concern::Pods,
            (Some(_), _) => Concern::Others,
            (None, Some(destination)) if overlaps(destination.prefix) => Concern::Pods,
            (None, Some(destination)) if !destination.is_negated => Concern::Others,
            (None, _) => Concern::Unclear,
        }
    }

    /// Whether it is about packets that go to pods, which hostgw never masquerades.
    fn leads_to_pods(&self, pods: &[IpNet]) -> bool {
        self.destination.is_some_and(|to| !to.is_negated && pods.iter().any(|pods| pods.contains(&to.prefix)))
    }
}

/// All rules that masquerade packets.
pub(super) fn rules(chains: &Chains<'_>) -> Vec<MasqueradeRule> {
    let of_iptables = chains
        .iptables
        .iter()
        .flat_map(|table| table.rules.iter().filter_map(|rule| MasqueradeRule::of_iptables(table, rule)));
    let native = chains
        .native
        .iter()
        .flat_map(|chain| chain.rules.iter().filter_map(|rule| MasqueradeRule::of_native(chain, rule)));
    of_iptables.chain(native).collect()
}

/// `nat` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NatChoice {
    pub masquerade: bool,
    /// The destinations outside the cluster that see the addresses of pods.
    pub exclude: Vec<IpNet>,
    pub is_source_pods: bool,
    pub is_random_fully: bool,
    /// The source addresses that packets get, as far as rules masquerade them.
    pub targets: PerFamily<SourceTarget>,
}

impl NatChoice {
    /// hostgw's defaults.
    pub const DEFAULT: Self = Self {
        masquerade: true,
        exclude: Vec::new(),
        is_source_pods: false,
        is_random_fully: false,
        targets: PerFamily { v4: None, v6: None },
    };

    /// Nothing is masqueraded.
    pub fn none() -> Self {
        Self { masquerade: false, ..Self::DEFAULT }
    }

    /// What foreign `rules` say that masquerade the packets of pods.
    pub fn of_foreign(rules: &[MasqueradeRule], unmasqueraded: &[IpNet], pods: &[IpNet]) -> Self {
        let about_pods: Vec<&MasqueradeRule> = rules
            .iter()
            .filter(|rule| rule.concern(pods) != Concern::Others && !rule.leads_to_pods(pods))
            .collect();
        if about_pods.is_empty() {
            return Self::none();
        }
        let is_of_pods =
            |rule: &&&MasqueradeRule| rule.is_for_pods || rule.source.is_some_and(|from| !from.is_negated);
        let is_outside = |net: &IpNet, rule: &MasqueradeRule| {
            rule.destination.is_some_and(|to| to.is_negated && to.prefix.contains(net))
        };
        let outside = about_pods.iter().filter_map(|rule| rule.destination).map(|to| to.prefix);
        let mut exclude: Vec<IpNet> =
            outside.filter(|net| about_pods.iter().all(|rule| is_outside(net, rule))).collect();
        exclude.extend(unmasqueraded);
        exclude.retain(|net| can_be_excluded(*net, pods));
        exclude.sort_unstable();
        exclude.dedup();
        let mut targets = PerFamily::default();
        for family in Family::ALL {
            let of_family = about_pods.iter().filter(|rule| rule.family.is_none_or(|it| it == family));
            *targets.get_mut(family) = SourceTarget::common(of_family.map(|rule| rule.target));
        }
        Self {
            masquerade: true,
            exclude,
            is_source_pods: about_pods.iter().all(|rule| is_of_pods(&rule)),
            is_random_fully: about_pods.iter().all(|rule| rule.is_random_fully),
            targets,
        }
    }
}

/// Whether hostgw can leave packets to a network alone. It does so anyway inside the cluster; multicast is not masqueraded.
fn can_be_excluded(net: IpNet, pods: &[IpNet]) -> bool {
    let is_of_family = |pods: &IpNet| Family::from(*pods) == Family::from(net);
    pods.iter().any(is_of_family)
        && !pods.iter().any(|pods| pods.contains(&net))
        && !net.network().is_multicast()
        && net.prefix_len() > 0
}

/// The destinations of rules of iptables that end before packets are masqueraded, such as those of ip-masq-agent. Rules with
/// other conditions do not count.
pub(super) fn unmasqueraded(chains: &Chains<'_>) -> Vec<IpNet> {
    let tables = chains.iptables.iter().filter(|table| table.name == "nat");
    let rules = tables.flat_map(|table| &table.rules);
    let is_relevant = |rule: &&IptablesRule| {
        (rule.chain == "POSTROUTING" || plugin::of_rule(rule).is_some())
            && matches!(rule.target(), Some("RETURN" | "ACCEPT"))
            && rule.has_only_addresses()
            && rule.source().is_none()
    };
    rules
        .filter(is_relevant)
        .filter_map(IptablesRule::destination)
        .filter(|to| !to.is_negated)
        .map(|to| to.prefix)
        .collect()
}

/// The source address that the terms of a rule set. `snat to` loads it from a constant; `masquerade` has at most constants for
/// ports.
fn native_target(terms: &[Term]) -> SourceTarget {
    let constants = terms.iter().filter_map(|term| match term {
        Term::Constant { value, .. } if value.len() >= 4 => Some(value.as_slice()),
        _ => None,
    });
    match constants.collect::<Vec<_>>().as_slice() {
        [] => SourceTarget::Interface,
        [value] => address_of(value).map_or(SourceTarget::Unclear, SourceTarget::Address),
        _ => SourceTarget::Unclear,
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(v6)
}

/// The prefix that the terms of a rule compare the source or the destination with.
fn matched_prefix(terms: &[Term], family: Family, field: Field) -> Option<MatchedPrefix> {
    let start = field.offset(family);
    let at = terms.iter().position(
        |term| matches!(term, Term::Load { part: PacketPart::Header { offset, .. }, .. } if *offset == start),
    )?;
    let mut bits = None;
    for term in &terms[at + 1..] {
        match term {
            Term::Mask { mask, invert, .. } if invert.iter().all(|byte| *byte == 0) => {
                bits = Some(mask.iter().map(|byte| byte.count_ones()).sum::<u32>());
            }
            Term::Compare { operator, value, .. } => {
                let is_negated = match operator {
                    Operator::Equal => false,
                    Operator::Unequal => true,
                    _ => return None,
                };
                let length = match bits {
                    Some(bits) => u8::try_from(bits).ok()?,
                    None => u8::try_from(8 * value.len()).ok()?,
                };
                let prefix = family.prefix_of(value, length)?.trunc();
                return Some(MatchedPrefix { prefix, is_negated });
            }
            _ => return None,
        }
    }
    None
}
