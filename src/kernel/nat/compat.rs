//! The protocol of iptables-nft rules, which the kernel needs to create a rule but does not dump.
//!
//! Matches and targets of iptables, such as `-m multiport`, check that the rule is limited to their protocol. iptables
//! states it in `NFTA_RULE_COMPAT`, next to the expressions that compare the protocol of the packet.

use super::{
    abi::expr,
    decode::{self, RawExpression, get, number},
    key,
};
use crate::kernel::netlink::{Malformed, put_attribute};

// enum nft_rule_compat_attributes (linux/netfilter/nf_tables.h)
const PROTOCOL: u16 = 1;
const FLAGS: u16 = 2;
/// `NFT_RULE_COMPAT_F_INV`.
const INVERTED: u32 = 2;

/// `NFPROTO_BRIDGE` and `NFPROTO_IPV6` (linux/netfilter.h).
const BRIDGE: u8 = 7;
const IPV6: u8 = 10;
/// The Ethernet type in an Ethernet header, and its length.
const ETHER_TYPE: (u32, u32) = (12, 2);
/// The protocol in an IPv4 header, and the next header in an IPv6 header.
const PROTOCOL_OFFSETS: (u32, u32) = (9, 6);

/// Returns the value of `NFTA_RULE_COMPAT` for a rule with these expressions in a table of `family`; `None` if no
/// expression of iptables is among them.
///
/// # Errors
/// Returns [`Malformed`] if the value cannot be encoded.
pub(super) fn compat(family: u8, expressions: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let Some(list) = decode::list(expressions) else { return Ok(None) };
    if !list.iter().any(|expression| matches!(expression.name, b"match" | b"target")) {
        return Ok(None);
    }
    let (protocol, is_inverted) = protocol(family, &list).unwrap_or((0, false));
    let mut value = Vec::new();
    put_attribute(&mut value, PROTOCOL, &u32::from(protocol).to_be_bytes())?;
    put_attribute(&mut value, FLAGS, &(if is_inverted { INVERTED } else { 0 }).to_be_bytes())?;
    Ok(Some(value))
}

/// Finds the comparison of the protocol. Returns it, and whether it must differ.
fn protocol(family: u8, list: &[RawExpression<'_>]) -> Option<(u16, bool)> {
    list.windows(2).find_map(|pair| {
        let [load, cmp] = pair else { return None };
        if !loads_protocol(family, load) || cmp.name != b"cmp" {
            return None;
        }
        let protocol = match *decode::value(get(cmp.data, expr::CMP_DATA)?)? {
            [protocol] => u16::from(protocol),
            // As the kernel has it in memory (`nft_match_set_mtchk_param`, net/netfilter/nft_compat.c).
            [first, second] => u16::from_ne_bytes([first, second]),
            _ => return None,
        };
        Some((protocol, number(get(cmp.data, expr::CMP_OP))? == expr::CMP_NEQ))
    })
}

fn loads_protocol(family: u8, load: &RawExpression<'_>) -> bool {
    let field = |kind| number(get(load.data, kind));
    let (v4, v6) = PROTOCOL_OFFSETS;
    match load.name {
        b"payload" if family == BRIDGE => {
            field(expr::PAYLOAD_BASE) == Some(key::LINK_HEADER)
                && field(expr::PAYLOAD_OFFSET) == Some(ETHER_TYPE.0)
                && field(expr::PAYLOAD_LEN) == Some(ETHER_TYPE.1)
        }
        b"meta" => field(key::META_KEY) == Some(key::META_L4PROTO) && family != BRIDGE,
        b"payload" => {
            field(expr::PAYLOAD_BASE) == Some(expr::NETWORK_HEADER)
                && field(expr::PAYLOAD_LEN) == Some(1)
                && field(expr::PAYLOAD_OFFSET) == Some(if family == IPV6 { v6 } else { v4 })
        }
        _ => false,
    }
}
