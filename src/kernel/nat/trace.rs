//! Asks the kernel which rule drops a packet: nftables reports every rule that a marked packet matches (`nft monitor
//! trace`).
//!
//! Only used in copies of a node: it adds a table that marks packets.

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::{
    NatError,
    abi::{self, chain, expr, message},
    decode::{get, number},
    key,
    ruleset::family_name,
};
use crate::kernel::netlink::{
    KernelError, Malformed, NLM_F_REQUEST, Notification, Refused, Socket, put_attribute, put_message, text,
};

/// `NFNLGRP_NFTRACE` (linux/netfilter/nfnetlink.h).
const TRACE_GROUP: u32 = 9;
/// Flags of a request (linux/netlink.h).
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x400 | 0x800;
/// `NFPROTO_INET` (linux/netfilter.h).
const INET: u8 = 1;
const TABLE: &[u8] = b"hostgw-trace\0";
/// Before connection tracking, and before the table `raw` of iptables.
const PRIORITY: i32 = -450;
/// The offsets of the ports in the headers of TCP and UDP.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// enum `nft_trace_attributes`, enum `nft_trace_types`, and what else the rule needs (`linux/netfilter/nf_tables.h`).
mod attribute {
    pub(super) const TRACE_TABLE: u16 = 1;
    pub(super) const TRACE_CHAIN: u16 = 2;
    pub(super) const TRACE_RULE: u16 = 3;
    pub(super) const TRACE_TYPE: u16 = 4;
    pub(super) const TRACE_VERDICT: u16 = 5;
    pub(super) const TRACE_POLICY: u16 = 16;
    pub(super) const TYPE_POLICY: u32 = 1;
    pub(super) const TYPE_RULE: u32 = 3;
    pub(super) const META_SREG: u16 = 3;
    pub(super) const META_NFTRACE: u32 = 12;
    pub(super) const TRANSPORT_HEADER: u32 = 2;
    pub(super) const NF_DROP: u32 = 0;
    pub(super) const NF_ACCEPT: u32 = 1;
    pub(super) const NF_QUEUE: u32 = 3;
}

/// A decision about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedVerdict {
    /// The number of the table's family.
    pub family: u8,
    /// The name of the table.
    pub table: String,
    /// The name of the chain.
    pub chain: String,
    /// The handle of the rule; `None` for the policy of the chain.
    pub rule: Option<u64>,
    /// What happened to the packet.
    pub fate: PacketFate,
}

/// What a rule or a policy does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketFate {
    /// It continues.
    Accepted,
    /// The packet is dropped.
    Dropped,
    /// It waits for a program.
    Queued,
}

impl TracedVerdict {
    /// The name of the table's family in nft.
    #[must_use]
    pub fn family_name(&self) -> &'static str {
        family_name(self.family)
    }
}

/// A running trace of packets to one port of TCP and UDP, and of the answers from it.
pub struct FirewallTrace {
    socket: Socket,
}

impl FirewallTrace {
    /// Starts to trace packets to and from `port` in the namespace of the calling thread, by a table of its own.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses the table.
    pub fn start(port: u16) -> Result<Self, NatError> {
        let mut socket = Socket::open(NETLINK_NETFILTER).map_err(NatError::Open)?;
        let malformed = |error: Malformed| NatError::Unheard(error.into());
        let mut batch = table(port).map_err(malformed)?;
        socket.batch(&mut batch).map_err(refusal)?;
        socket.subscribe(TRACE_GROUP).map_err(NatError::Open)?;
        Ok(Self { socket })
    }

    /// Ends the trace.
    ///
    /// # Errors
    /// Returns an error if the kernel does not remove the table.
    pub fn stop(mut self) -> Result<(), NatError> {
        let mut batch = removal().map_err(|error| NatError::Unheard(error.into()))?;
        self.socket.batch(&mut batch).map_err(refusal)
    }

    /// Returns the decisions since the last call, in order. Rules without one, and those of the trace itself, are left
    /// out.
    pub fn verdicts(&mut self) -> Vec<TracedVerdict> {
        let mut verdicts = Vec::new();
        self.socket.drain(|Notification { kind, payload, .. }| {
            if kind == message::TRACE {
                verdicts.extend(verdict(payload));
            }
        });
        verdicts
    }
}

fn refusal(Refused { rejections, failure, .. }: Refused) -> NatError {
    let error = rejections.into_iter().next().map(|(_, error)| error).or(failure);
    NatError::Unheard(error.unwrap_or_else(|| KernelError::from(rustix::io::Errno::IO)))
}

fn verdict(payload: &[u8]) -> Option<TracedVerdict> {
    let rest = payload.get(abi::GENERIC_HEADER..)?;
    let field = |kind| get(rest, kind);
    let (code, rule) = match number(field(attribute::TRACE_TYPE))? {
        attribute::TYPE_POLICY => (number(field(attribute::TRACE_POLICY))?, None),
        attribute::TYPE_RULE => {
            let verdict = get(field(attribute::TRACE_VERDICT)?, expr::VERDICT_CODE);
            let handle = u64::from_be_bytes(field(attribute::TRACE_RULE)?.try_into().ok()?);
            (number(verdict)?, Some(handle))
        }
        _ => return None,
    };
    // The upper half is the number of a queue, or an error number.
    let fate = match code & 0xff {
        attribute::NF_DROP => PacketFate::Dropped,
        attribute::NF_ACCEPT => PacketFate::Accepted,
        attribute::NF_QUEUE => PacketFate::Queued,
        _ => return None,
    };
    let name = |kind| field(kind).map(text);
    let table = name(attribute::TRACE_TABLE)?;
    let is_own = table.as_bytes() == TABLE.strip_suffix(&[0])?;
    let chain = name(attribute::TRACE_CHAIN)?;
    (!is_own).then_some(TracedVerdict { family: *payload.first()?, table, chain, rule, fate })
}

/// The batch that creates the table: chains at the hooks where packets enter, with rules that mark packets to and from
/// `port`.
fn table(port: u16) -> Result<Vec<u8>, Malformed> {
    abi::batch(|batch| {
        let mut put = |kind, flags, attributes: &[(u16, Vec<u8>)]| put_object(batch, kind, flags, attributes);
        put(message::NEWTABLE, CREATE, &[(abi::table::NAME, TABLE.to_vec())])?;
        // NF_INET_PRE_ROUTING and NF_INET_LOCAL_OUT (linux/netfilter.h).
        for (name, hook) in [(b"prerouting\0".to_vec(), 0_u32), (b"output\0".to_vec(), 3)] {
            let hook = encoded(&[
                (chain::HOOK_NUMBER, hook.to_be_bytes().to_vec()),
                (chain::HOOK_PRIORITY, PRIORITY.to_be_bytes().to_vec()),
            ])?;
            put(
                message::NEWCHAIN,
                CREATE,
                &[
                    (chain::TABLE, TABLE.to_vec()),
                    (chain::NAME, name.clone()),
                    (chain::HOOK, hook),
                    (chain::TYPE, b"filter\0".to_vec()),
                ],
            )?;
            for offset in [SOURCE_PORT, DESTINATION_PORT] {
                put(
                    message::NEWRULE,
                    APPEND,
                    &[
                        (abi::rule::TABLE, TABLE.to_vec()),
                        (abi::rule::CHAIN, name.clone()),
                        (abi::rule::EXPRESSIONS, marking(offset, port)?),
                    ],
                )?;
            }
        }
        Ok(())
    })
}

fn removal() -> Result<Vec<u8>, Malformed> {
    abi::batch(|batch| put_object(batch, message::DELTABLE, 0, &[(abi::table::NAME, TABLE.to_vec())]))
}

fn put_object(
    batch: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    attributes: &[(u16, Vec<u8>)],
) -> Result<(), Malformed> {
    let payload = [vec![INET, 0, 0, 0], encoded(attributes)?].concat();
    put_message(batch, kind, flags | NLM_F_REQUEST, 0, &payload);
    Ok(())
}

/// `th dport PORT meta nftrace set 1`, or `sport`.
fn marking(offset: u32, port: u16) -> Result<Vec<u8>, Malformed> {
    let word = |number: u32| number.to_be_bytes().to_vec();
    let register = || word(expr::REG_1);
    let compare = |value: &[u8]| -> Result<Vec<u8>, Malformed> {
        element(
            "cmp",
            &[
                (expr::CMP_SREG, register()),
                (expr::CMP_OP, word(expr::CMP_EQ)),
                (expr::CMP_DATA, encoded(&[(expr::DATA_VALUE, value.to_vec())])?),
            ],
        )
    };
    let elements = [
        element(
            "payload",
            &[
                (expr::PAYLOAD_DREG, register()),
                (expr::PAYLOAD_BASE, word(attribute::TRANSPORT_HEADER)),
                (expr::PAYLOAD_OFFSET, word(offset)),
                (expr::PAYLOAD_LEN, word(2)),
            ],
        )?,
        compare(&port.to_be_bytes())?,
        element(
            "immediate",
            &[
                (expr::IMMEDIATE_DREG, register()),
                (expr::IMMEDIATE_DATA, encoded(&[(expr::DATA_VALUE, vec![1])])?),
            ],
        )?,
        element(
            "meta",
            &[(key::META_KEY, word(attribute::META_NFTRACE)), (attribute::META_SREG, register())],
        )?,
    ];
    encoded(&elements.map(|element| (abi::LIST_ELEMENT, element)))
}

fn element(name: &str, data: &[(u16, Vec<u8>)]) -> Result<Vec<u8>, Malformed> {
    encoded(&[(expr::NAME, [name.as_bytes(), &[0]].concat()), (expr::DATA, encoded(data)?)])
}

fn encoded(attributes: &[(u16, Vec<u8>)]) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes {
        put_attribute(&mut bytes, *kind, value)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{in_namespace, sh};

    #[test]
    fn the_rule_that_drops_a_packet_is_named() {
        in_namespace(|| {
            sh("ip link set lo up; nft add table ip t; \
                nft 'add chain ip t in { type filter hook input priority 0; policy drop; }'; \
                nft add chain ip t sub; nft add rule ip t in ip daddr 127.0.0.2 jump sub; \
                nft add rule ip t sub ip ttl gt 3 drop; nft add rule ip t in ip daddr 127.0.0.3 accept");
            let mut trace = FirewallTrace::start(50_000).expect("a trace");
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let mut ask = |target: &str| {
                // A dropped packet is an error of the sender on the loopback interface.
                let _ = socket.send_to(b"x", target);
                let verdicts = trace.verdicts();
                let last = verdicts.last().map(|it| (it.chain.clone(), it.rule.is_some(), it.fate));
                (last, verdicts.len())
            };
            assert_eq!(ask("127.0.0.2:50000"), (Some(("sub".to_owned(), true, PacketFate::Dropped)), 1));
            assert_eq!(ask("127.0.0.3:50000"), (Some(("in".to_owned(), true, PacketFate::Accepted)), 1));
            assert_eq!(ask("127.0.0.4:50000"), (Some(("in".to_owned(), false, PacketFate::Dropped)), 1));
            assert_eq!(ask("127.0.0.2:50001"), (None, 0));
            trace.stop().expect("stopped");
            assert!(!sh("nft list tables").contains("hostgw-trace"));
        });
    }
}
