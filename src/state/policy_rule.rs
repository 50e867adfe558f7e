//! Policy rules, formatted as `ip rule` prints them.

use std::fmt;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LOCAL_TABLE;
use crate::{
    model::{Family, MAIN_TABLE},
    text::Untrusted,
};

/// `RT_TABLE_DEFAULT` (linux/rtnetlink.h).
const DEFAULT_TABLE: u32 = 253;

/// A rule that selects a routing table for packets, or refuses them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRule {
    /// The address family of the rule. A rule without addresses exists in each family separately.
    pub family: Family,
    /// The preference. Rules apply in ascending order.
    pub priority: u32,
    /// The packets that the rule applies to.
    #[serde(default)]
    pub selector: RuleSelector,
    /// What the rule does with these packets.
    pub action: RuleAction,
    /// Routes with at most this prefix length are ignored (`suppress_prefixlength`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress_length: Option<u32>,
    /// Routes through interfaces of this group are ignored (`suppress_ifgroup`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress_group: Option<u32>,
    /// The protocol number, which identifies the program that added the rule.
    pub protocol: u8,
}

/// The packets that a rule applies to. A packet must match all conditions that are present.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSelector {
    /// Whether the rule applies to all other packets instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
    /// Packets from these sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub from: Option<IpNet>,
    /// Packets to these destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub to: Option<IpNet>,
    /// Packets that come in through this interface; `lo` means packets of the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Untrusted>,
    /// Packets of a socket that is bound to this interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Untrusted>,
    /// Packets with this type of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Packets with this mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Packets of these users, from one to another. Forwarded packets belong to user 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<[u32; 2]>,
    /// Packets of this protocol (`IPPROTO_*`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Packets from these ports, from one to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<[u16; 2]>,
    /// Packets to these ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ports: Option<[u16; 2]>,
    /// The names of other conditions, such as `tun_id`, which no packet of a pod meets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Untrusted>,
}

/// A firewall mark, of which only the bits in the mask count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The value of the mark.
    pub value: u32,
    /// The bits of the mark that count.
    pub mask: u32,
}

/// What a rule does with the packets it selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// Looks up the route in this table. If there is no matching route, the next rule applies.
    Lookup(u32),
    /// Continues with the rule that has this preference.
    Goto(u32),
    /// Continues with the next rule.
    Nop,
    /// Drops the packet.
    Blackhole,
    /// Drops the packet and reports to its sender that the network is unreachable.
    Unreachable,
    /// Drops the packet and reports to its sender that it is prohibited.
    Prohibit,
}

impl PolicyRule {
    /// Returns the rules of a network namespace where no program has changed them.
    #[must_use]
    pub fn defaults(family: Family) -> Vec<Self> {
        let rule = |(priority, table)| Self {
            family,
            priority,
            selector: RuleSelector::default(),
            action: RuleAction::Lookup(table),
            suppress_length: None,
            suppress_group: None,
            protocol: super::protocol::KERNEL,
        };
        let rules = [(0, LOCAL_TABLE), (32766, MAIN_TABLE), (32767, DEFAULT_TABLE)];
        // IPv6 has no default table.
        rules
            .into_iter()
            .filter(|(_, table)| family == Family::V4 || *table != DEFAULT_TABLE)
            .map(rule)
            .collect()
    }

    /// Returns the words of `ip rule` that select this rule.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let RuleSelector {
            not,
            from,
            to,
            input,
            output,
            tos,
            mark,
            users,
            protocol,
            source_ports,
            destination_ports,
            others,
        } = &self.selector;
        let mut words = Vec::new();
        let mut add = |parts: &[&str]| words.extend(parts.iter().map(|part| (*part).to_owned()));
        if *not {
            add(&["not"]);
        }
        add(&["from", &from.map_or_else(|| "all".to_owned(), |from| from.to_string())]);
        if let Some(to) = to {
            add(&["to", &to.to_string()]);
        }
        if let Some(tos) = tos {
            add(&["tos", &format!("{tos:#04x}")]);
        }
        if let Some(Mark { value, mask }) = mark {
            let mask = if *mask == u32::MAX { String::new() } else { format!("/{mask:#x}") };
            add(&["fwmark", &format!("{value:#x}{mask}")]);
        }
        for (name, device) in [("iif", input), ("oif", output)] {
            if let Some(device) = device {
                add(&[name, &device.to_string()]);
            }
        }
        if let Some([first, last]) = users {
            add(&["uidrange", &format!("{first}-{last}")]);
        }
        if let Some(protocol) = protocol {
            add(&["ipproto", &protocol_name(*protocol)]);
        }
        for (name, ports) in [("sport", source_ports), ("dport", destination_ports)] {
            if let Some([first, last]) = ports {
                let last = if first == last { String::new() } else { format!("-{last}") };
                add(&[name, &format!("{first}{last}")]);
            }
        }
        for other in others {
            add(&[&other.to_string()]);
        }
        match self.action {
            RuleAction::Lookup(table) => add(&["lookup", &table_name(table)]),
            RuleAction::Goto(priority) => add(&["goto", &priority.to_string()]),
            RuleAction::Nop => add(&["nop"]),
            RuleAction::Blackhole => add(&["blackhole"]),
            RuleAction::Unreachable => add(&["unreachable"]),
            RuleAction::Prohibit => add(&["prohibit"]),
        }
        if let Some(length) = self.suppress_length {
            add(&["suppress_prefixlength", &length.to_string()]);
        }
        if let Some(group) = self.suppress_group {
            add(&["suppress_ifgroup", &group.to_string()]);
        }
        words
    }
}

/// The name of a protocol as `ip` prints it.
fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        other => other.to_string(),
    }
}

/// Returns the name of a table as `ip` prints it.
#[must_use]
pub fn table_name(table: u32) -> String {
    match table {
        LOCAL_TABLE => "local".to_owned(),
        MAIN_TABLE => "main".to_owned(),
        DEFAULT_TABLE => "default".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.priority, self.words().join(" "))
    }
}
