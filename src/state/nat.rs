//! NAT tables by their meaning, independent of the kernel's encoding.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::is_zero;
use crate::{
    model::{Family, PerFamily},
    text::Untrusted,
};

/// The name of hostgw's table in every family, which marks it as managed.
pub(super) const TABLE_NAME: &str = "hostgw";

/// `NFT_TABLE_F_DORMANT` (linux/netfilter/nf_tables.h).
const DORMANT: u32 = 1;

/// At most one table per family.
pub type Tables = PerFamily<NatTable>;

/// The nftables table `hostgw` of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatTable {
    /// The family.
    pub family: Family,
    /// The flags (`NFT_TABLE_F_*`, linux/netfilter/nf_tables.h). A dormant table (1) has no effect.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flags: u32,
    /// The chains, in the kernel's order.
    pub chains: Vec<NatChain>,
    /// Objects in the table that hostgw can name but not write: sets, maps, flow tables, named counters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Untrusted>,
}

impl NatTable {
    /// The table's name.
    pub const NAME: &str = TABLE_NAME;

    /// Returns every object of the table, in `nft add` syntax: the table, its chains, their rules, and the others.
    #[must_use]
    pub fn objects(&self) -> Vec<NatObject> {
        let mut objects = vec![NatObject::Table { family: self.family, flags: self.flags }];
        for chain in &self.chains {
            objects.push(NatObject::Chain {
                family: self.family,
                name: chain.name.clone(),
                base: chain.base.clone(),
            });
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                objects.push(NatObject::Rule {
                    family: self.family,
                    chain: chain.name.clone(),
                    rule: rule.clone(),
                });
            }
        }
        for other in &self.others {
            objects.push(NatObject::Other { family: self.family, description: other.clone() });
        }
        objects
    }

    /// Iterates over the addresses that its rules set as the source of packets.
    pub fn source_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        let expressions = rules.flat_map(|rule| match &rule.body {
            RuleBody::Known(expressions) => &expressions[..],
            RuleBody::Other { .. } => &[],
        });
        expressions.filter_map(|expression| match expression {
            Expression::SourceNat { address, .. } => Some(*address),
            _ => None,
        })
    }

    /// Returns `true` if hostgw could recreate this table exactly.
    #[must_use]
    pub const fn can_be_restored(&self) -> bool {
        self.others.is_empty() && self.flags & !DORMANT == 0
    }

    /// Returns the parts of the table that hostgw could not recreate, such as `set blocked`.
    #[must_use]
    pub fn unrestorable(&self) -> Vec<Untrusted> {
        let flags = self.flags & !DORMANT;
        let flags = (flags != 0).then(|| format!("flags {flags:#x}").into());
        self.others.iter().cloned().chain(flags).collect()
    }
}

/// One line of a NAT table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatObject {
    /// The table itself.
    Table {
        /// The address family of the table.
        family: Family,
        /// The flags of the table.
        flags: u32,
    },
    /// A chain.
    Chain {
        /// The table's family.
        family: Family,
        /// The chain's name.
        name: Untrusted,
        /// The hook, if the chain is a base chain.
        base: Option<BaseChain>,
    },
    /// A rule.
    Rule {
        /// The table's family.
        family: Family,
        /// The name of its chain.
        chain: Untrusted,
        /// The rule.
        rule: NatRule,
    },
    /// Another object, such as a set.
    Other {
        /// The table's family.
        family: Family,
        /// The type and the name, such as `set blocked`.
        description: Untrusted,
    },
}

impl NatObject {
    /// Returns the name of the object without its contents. A rule has no name, so its text is used.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Table { family, .. } => format!("table {} {TABLE_NAME}", family.nft()),
            Self::Chain { family, name, .. } => format!("chain {} {TABLE_NAME} {name}", family.nft()),
            Self::Rule { .. } | Self::Other { .. } => self.to_string(),
        }
    }
}

impl NatObject {
    /// Returns `true` if the text of the object is valid `nft add` syntax.
    #[must_use]
    pub const fn is_valid_nft_syntax(&self) -> bool {
        match self {
            Self::Table { flags, .. } => *flags & !DORMANT == 0,
            Self::Chain { .. } => true,
            Self::Rule { rule, .. } => matches!(rule.body, RuleBody::Known(_)),
            Self::Other { .. } => false,
        }
    }
}

impl fmt::Display for NatObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { family, flags } => {
                write!(f, "table {} {TABLE_NAME}", family.nft())?;
                match flags {
                    0 => Ok(()),
                    1 => f.write_str(" { flags dormant; }"),
                    other => write!(f, " {{ flags {other:#x}; }}"),
                }
            }
            Self::Chain { family, name, base } => {
                write!(f, "chain {} {TABLE_NAME} {name}", family.nft())?;
                base.as_ref().map_or(Ok(()), |base| write!(f, " {{ {base} }}"))
            }
            Self::Rule { family, chain, rule } => {
                write!(f, "rule {} {TABLE_NAME} {chain} {rule}", family.nft())
            }
            Self::Other { family, description } => {
                let description = description.to_string();
                let (kind, name) = description.split_once(' ').unwrap_or((&description, ""));
                write!(f, "{kind} {} {TABLE_NAME} {name}", family.nft())
            }
        }
    }
}

/// A chain of the NAT table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatChain {
    /// The chain's name.
    pub name: Untrusted,
    /// The hook of a base chain. A chain without one is only reached by a jump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseChain>,
    /// The rules, in the order of evaluation.
    pub rules: Vec<NatRule>,
}

/// The position of a base chain in the packet path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaseChain {
    /// The type.
    #[serde(rename = "type")]
    pub kind: ChainType,
    /// The hook.
    pub hook: Hook,
    /// The priority. Lower values run first; `srcnat` is 100 (`NF_IP_PRI_NAT_SRC`, linux/netfilter_ipv4.h).
    pub priority: i32,
    /// What happens to packets that no rule accepts or drops.
    pub policy: ChainPolicy,
}

impl BaseChain {
    /// `NF_IP_PRI_NAT_SRC` and `NF_IP6_PRI_NAT_SRC`.
    pub const SRCNAT: i32 = 100;
}

impl fmt::Display for BaseChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {} hook {} priority ", self.kind, self.hook)?;
        match (self.hook, self.priority) {
            (Hook::Postrouting, Self::SRCNAT) => f.write_str("srcnat")?,
            (_, priority) => write!(f, "{priority}")?,
        }
        write!(f, "; policy {};", self.policy)
    }
}

/// Defines an enum whose variants are single words of nft.
macro_rules! nft_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)* })
            }
        }
    };
}

nft_enum! {
    /// The type of a base chain.
    ChainType {
        /// Network address translation.
        Nat = "nat",
        /// Packet filtering.
        Filter = "filter",
        /// Rerouting after headers were changed.
        Route = "route",
    }
}

nft_enum! {
    /// Netfilter hooks of the IP families.
    Hook {
        /// `NF_INET_PRE_ROUTING`.
        Prerouting = "prerouting",
        /// `NF_INET_LOCAL_IN`.
        Input = "input",
        /// `NF_INET_FORWARD`.
        Forward = "forward",
        /// `NF_INET_LOCAL_OUT`.
        Output = "output",
        /// `NF_INET_POST_ROUTING`.
        Postrouting = "postrouting",
    }
}

nft_enum! {
    /// A chain's policy.
    ChainPolicy {
        /// Accept.
        Accept = "accept",
        /// Drop.
        Drop = "drop",
    }
}

/// A rule. Rules are equal if they mean the same: the comment is irrelevant.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatRule {
    /// The contents.
    pub body: RuleBody,
    /// The comment, as shown by `nft list`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Untrusted>,
}

impl NatRule {
    /// Returns the kernel's encoding of a rule that hostgw cannot decode.
    #[must_use]
    pub fn raw(&self) -> Option<&str> {
        match &self.body {
            RuleBody::Known(_) => None,
            RuleBody::Other { raw, .. } => Some(raw),
        }
    }
}

impl PartialEq for NatRule {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body
    }
}

impl Eq for NatRule {}

impl fmt::Display for NatRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            RuleBody::Known(expressions) => {
                for (at, expression) in expressions.iter().enumerate() {
                    if at > 0 {
                        f.write_str(" ")?;
                    }
                    expression.fmt(f)?;
                }
            }
            RuleBody::Other { summary, .. } => write!(f, "({summary})")?,
        }
        self.comment.as_ref().map_or(Ok(()), |comment| write!(f, " comment {comment:?}"))
    }
}

/// The contents of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RuleBody {
    /// Expressions that hostgw can write.
    Known(Vec<Expression>),
    /// Other contents, kept so that the rule can be restored.
    Other {
        /// The names of the expressions, as the kernel reports them.
        summary: String,
        /// The attribute `NFTA_RULE_EXPRESSIONS` as the kernel dumped it, in hexadecimal.
        raw: String,
    },
}

/// A part of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Expression {
    /// Compares an address of the packet with a prefix.
    #[serde(rename_all = "camelCase")]
    Address {
        /// The address.
        field: Field,
        /// Whether the rule matches addresses *outside* the prefix.
        negated: bool,
        /// The prefix.
        #[schemars(with = "String")]
        prefix: IpNet,
    },
    /// `fib daddr type != local`: matches destinations that are not addresses of the node.
    NotLocal,
    /// Counts packets and bytes. The counts are not part of the state.
    Counter,
    /// Sets the source to the address of the outgoing interface.
    #[serde(rename_all = "camelCase")]
    Masquerade {
        /// The `NF_NAT_RANGE_*` flags (linux/netfilter/nf_nat.h): 4 is `random`, 8 `persistent`, 16 `fully-random`.
        flags: u32,
    },
    /// Sets the source to an address.
    #[serde(rename_all = "camelCase")]
    SourceNat {
        /// The address.
        address: IpAddr,
        /// The `NF_NAT_RANGE_*` flags, as of `masquerade`.
        #[serde(default, skip_serializing_if = "is_zero")]
        flags: u32,
    },
    /// Returns to the calling chain.
    Return,
}

impl Expression {
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` (linux/netfilter/nf_nat.h).
    pub const FULLY_RANDOM: u32 = 16;
}

/// An address of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// The source address.
    Saddr,
    /// The destination address.
    Daddr,
}

impl Field {
    /// Both addresses.
    pub const ALL: [Self; 2] = [Self::Saddr, Self::Daddr];

    /// Returns the offset in the header of IP in bytes (RFC 791, RFC 8200).
    #[must_use]
    pub const fn offset(self, family: Family) -> usize {
        match (family, self) {
            (Family::V4, Self::Saddr) => 12,
            (Family::V4, Self::Daddr) => 16,
            (Family::V6, Self::Saddr) => 8,
            (Family::V6, Self::Daddr) => 24,
        }
    }

    /// The name in nft.
    const fn name(self) -> &'static str {
        match self {
            Self::Saddr => "saddr",
            Self::Daddr => "daddr",
        }
    }
}

/// The placeholders for the values of one node in the text of an object.
#[derive(Debug, Clone, Copy, Default)]
pub struct NatPlaceholders<'a> {
    /// The source prefix, and its placeholder.
    pub source: Option<(IpNet, &'a str)>,
    /// The new source address, and its placeholder.
    pub address: Option<(IpAddr, &'a str)>,
}

impl Expression {
    /// Returns the expression as text, with placeholders.
    fn text_with(&self, placeholders: NatPlaceholders<'_>) -> String {
        match (self, placeholders) {
            (
                Self::Address { field: Field::Saddr, negated: false, prefix },
                NatPlaceholders { source: Some((own, placeholder)), .. },
            ) if *prefix == own => {
                format!("{} {} {placeholder}", Family::from(own).nft(), Field::Saddr.name())
            }
            (
                Self::SourceNat { address, flags },
                NatPlaceholders { address: Some((own, placeholder)), .. },
            ) if *address == own => format!("snat to {placeholder}{}", FlagWords(*flags)),
            (other, _) => other.to_string(),
        }
    }
}

impl NatObject {
    /// Returns the object as text, with placeholders.
    #[must_use]
    pub fn text_with(&self, placeholders: NatPlaceholders<'_>) -> String {
        match self {
            Self::Rule {
                family,
                chain,
                rule: NatRule { body: RuleBody::Known(expressions), comment, .. },
            } => {
                let words: Vec<String> =
                    expressions.iter().map(|expression| expression.text_with(placeholders)).collect();
                let comment = comment.as_ref().map_or_else(String::new, |it| format!(" comment {it:?}"));
                format!("rule {} {TABLE_NAME} {chain} {}{comment}", family.nft(), words.join(" "))
            }
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { field, negated, prefix } => {
                let negation = if *negated { "!= " } else { "" };
                write!(f, "{} {} {negation}", Family::from(*prefix).nft(), field.name())?;
                if prefix.prefix_len() == prefix.max_prefix_len() {
                    prefix.addr().fmt(f)
                } else {
                    prefix.fmt(f)
                }
            }
            Self::NotLocal => f.write_str("fib daddr type != local"),
            Self::Counter => f.write_str("counter"),
            Self::Masquerade { flags } => write!(f, "masquerade{}", FlagWords(*flags)),
            Self::SourceNat { address, flags } => write!(f, "snat to {address}{}", FlagWords(*flags)),
            Self::Return => f.write_str("return"),
        }
    }
}

/// `NF_NAT_RANGE_*` flags as nft prints them, after a space if there are any.
struct FlagWords(u32);

impl fmt::Display for FlagWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(4, "random"), (8, "persistent"), (Expression::FULLY_RANDOM, "fully-random")];
        let set: Vec<_> = names.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name).collect();
        if set.is_empty() { Ok(()) } else { write!(f, " {}", set.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_print_in_nft_syntax() {
        let rule = NatRule {
            body: RuleBody::Known(vec![
                Expression::Address {
                    field: Field::Daddr,
                    negated: true,
                    prefix: "10.244.0.0/16".parse().expect("a prefix"),
                },
                Expression::NotLocal,
                Expression::Counter,
                Expression::Masquerade { flags: Expression::FULLY_RANDOM },
            ]),
            comment: Some("a \"quoted\" word".into()),
        };
        let table = NatTable {
            family: Family::V4,
            flags: 1,
            chains: vec![NatChain {
                name: "postrouting".into(),
                base: Some(BaseChain {
                    kind: ChainType::Nat,
                    hook: Hook::Postrouting,
                    priority: 100,
                    policy: ChainPolicy::Accept,
                }),
                rules: vec![rule],
            }],
            others: vec!["set blocked".into()],
        };
        let lines: Vec<_> = table.objects().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "table ip hostgw { flags dormant; }",
                "chain ip hostgw postrouting { type nat hook postrouting priority srcnat; policy accept; }",
                "rule ip hostgw postrouting ip daddr != 10.244.0.0/16 fib daddr type != local counter masquerade fully-random comment \"a \\\"quoted\\\" word\"",
                "set ip hostgw blocked",
            ]
        );
    }
}
