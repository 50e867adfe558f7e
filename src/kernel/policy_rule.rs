//! Reads the policy rules, and adds those of simulated nodes.

use std::net::IpAddr;

use ipnet::IpNet;
use rustix::io::Errno;

use super::{
    netlink::{Attributes, KernelError, Malformed, Message, Socket, put_attribute, text},
    route::{NLM_F_CREATE, NLM_F_EXCL, address},
};
use crate::{
    model::Family,
    state::{Mark, PolicyRule, RuleAction, RuleSelector, protocol},
};

// linux/rtnetlink.h
pub const RTM_NEWRULE: u16 = 32;
pub const RTM_GETRULE: u16 = 34;

/// `FRA_*` (linux/fib_rules.h).
mod attribute {
    pub const DST: u16 = 1;
    pub const SRC: u16 = 2;
    pub const IIFNAME: u16 = 3;
    pub const GOTO: u16 = 4;
    pub const PRIORITY: u16 = 6;
    pub const FWMARK: u16 = 10;
    pub const TUN_ID: u16 = 12;
    pub const SUPPRESS_IFGROUP: u16 = 13;
    pub const SUPPRESS_PREFIXLEN: u16 = 14;
    pub const TABLE: u16 = 15;
    pub const FWMASK: u16 = 16;
    pub const OIFNAME: u16 = 17;
    pub const L3MDEV: u16 = 19;
    pub const UID_RANGE: u16 = 20;
    pub const PROTOCOL: u16 = 21;
    pub const IP_PROTO: u16 = 22;
    pub const SPORT_RANGE: u16 = 23;
    pub const DPORT_RANGE: u16 = 24;
    pub const DSCP: u16 = 25;
    pub const FLOWLABEL: u16 = 26;
}

// linux/fib_rules.h
const FIB_RULE_INVERT: u32 = 0x2;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_BLACKHOLE: u8 = 6;
const FR_ACT_UNREACHABLE: u8 = 7;
const FR_ACT_PROHIBIT: u8 = 8;
/// `sizeof(struct fib_rule_hdr)`.
const RULE_HEADER: usize = 12;

/// Dumps the rules of both families, in the order in which the kernel applies them. None if the kernel has none
/// (`CONFIG_IP_MULTIPLE_TABLES`).
///
/// # Errors
/// Returns the kernel's error.
pub fn all(socket: &mut Socket) -> Result<Vec<PolicyRule>, KernelError> {
    let mut rules = Vec::new();
    for family in Family::ALL {
        let mut header = [0; RULE_HEADER];
        header[0] = super::route::family_number(family);
        match socket.dump(RTM_GETRULE, 0, &header) {
            Ok(dump) => rules.extend(dump.iter().filter_map(|(_, payload)| rule(family, payload))),
            Err(error) if matches!(error.errno, Errno::OPNOTSUPP | Errno::AFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rules)
}

/// Returns the request that adds a rule, by which packets to a prefix use a table.
///
/// # Errors
/// Never returns [`Malformed`]: no attribute is long.
pub fn addition(to: IpNet, table: u32, priority: u32) -> Result<Message, Malformed> {
    let mut payload = vec![0; RULE_HEADER];
    payload[0] = super::route::family_number(to.into());
    payload[1] = to.prefix_len();
    payload[7] = FR_ACT_TO_TBL;
    match to.network() {
        IpAddr::V4(to) => put_attribute(&mut payload, attribute::DST, &to.octets())?,
        IpAddr::V6(to) => put_attribute(&mut payload, attribute::DST, &to.octets())?,
    }
    put_attribute(&mut payload, attribute::PRIORITY, &priority.to_ne_bytes())?;
    put_attribute(&mut payload, attribute::TABLE, &table.to_ne_bytes())?;
    put_attribute(&mut payload, attribute::PROTOCOL, &[protocol::BOOT])?;
    Ok(Message { message_type: RTM_NEWRULE, flags: NLM_F_CREATE | NLM_F_EXCL, payload })
}

fn rule(family: Family, payload: &[u8]) -> Option<PolicyRule> {
    let (header, rest) = payload.split_at_checked(RULE_HEADER)?;
    let &[_, to_length, from_length, tos, table, _, _, action, f0, f1, f2, f3] = header else { return None };
    let mut table = u32::from(table);
    let (mut goto, mut mark, mut mask) = (0, None, None);
    let mut rule = PolicyRule {
        family,
        priority: 0,
        selector: RuleSelector {
            not: u32::from_ne_bytes([f0, f1, f2, f3]) & FIB_RULE_INVERT != 0,
            tos: (tos != 0).then_some(tos),
            ..RuleSelector::default()
        },
        action: RuleAction::Nop,
        suppress_length: None,
        suppress_group: None,
        protocol: 0,
    };
    let selector = &mut rule.selector;
    for (kind, payload) in Attributes::new(rest).flatten() {
        let number = || Some(u32::from_ne_bytes(*payload.first_chunk()?));
        match kind {
            attribute::DST => selector.to = prefix(payload, to_length),
            attribute::SRC => selector.from = prefix(payload, from_length),
            attribute::IIFNAME => selector.input = Some(text(payload).into()),
            attribute::OIFNAME => selector.output = Some(text(payload).into()),
            attribute::GOTO => goto = number()?,
            attribute::PRIORITY => rule.priority = number()?,
            attribute::TABLE => table = number()?,
            attribute::FWMARK => mark = number().filter(|mark| *mark != 0),
            attribute::FWMASK => mask = number(),
            // -1 is none.
            attribute::SUPPRESS_PREFIXLEN => {
                rule.suppress_length = number().filter(|length| *length != u32::MAX);
            }
            attribute::PROTOCOL => rule.protocol = *payload.first()?,
            attribute::DSCP => selector.tos = payload.first().map(|dscp| dscp << 2).filter(|tos| *tos != 0),
            attribute::L3MDEV if payload.first() != Some(&0) => selector.others.push("l3mdev".into()),
            attribute::TUN_ID => selector.others.push("tun_id".into()),
            // struct fib_rule_uid_range, and struct fib_rule_port_range in host byte order.
            attribute::UID_RANGE => {
                let end = |at: usize| Some(u32::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
                selector.users = Some([end(0)?, end(4)?]);
            }
            attribute::IP_PROTO => selector.protocol = payload.first().copied().filter(|number| *number != 0),
            attribute::SPORT_RANGE => selector.source_ports = ports(payload),
            attribute::DPORT_RANGE => selector.destination_ports = ports(payload),
            attribute::FLOWLABEL => selector.others.push("flowlabel".into()),
            attribute::SUPPRESS_IFGROUP => {
                rule.suppress_group = number().filter(|group| *group != u32::MAX);
            }
            _ => {}
        }
    }
    // A mark of 0 with a mask selects packets without those bits.
    if mark.is_some() || mask.is_some_and(|mask| mask != 0) {
        selector.mark = Some(Mark { value: mark.unwrap_or(0), mask: mask.unwrap_or(u32::MAX) });
    }
    rule.action = match action {
        FR_ACT_TO_TBL => RuleAction::Lookup(table),
        FR_ACT_GOTO => RuleAction::Goto(goto),
        FR_ACT_BLACKHOLE => RuleAction::Blackhole,
        FR_ACT_UNREACHABLE => RuleAction::Unreachable,
        FR_ACT_PROHIBIT => RuleAction::Prohibit,
        _ => RuleAction::Nop,
    };
    Some(rule)
}

fn ports(payload: &[u8]) -> Option<[u16; 2]> {
    let end = |at: usize| Some(u16::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
    Some([end(0)?, end(2)?])
}

fn prefix(payload: &[u8], length: u8) -> Option<IpNet> {
    IpNet::new(address(payload)?, length).ok()
}
