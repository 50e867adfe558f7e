//! Reads the chains that forwarded packets pass.

use std::{collections::BTreeSet, fs};

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::{
    abi::{self, message},
    decode,
    read::{NftObject, base_chain, objects_of},
    terms::terms,
};
use crate::{
    kernel::netlink::{Socket, text},
    state::{ChainType, Firewall, FirewallChain, FirewallRule, Hook, TableFamily, Term},
};

/// The lists of tables that iptables-legacy uses in the namespace of the calling thread.
const LEGACY: [&str; 2] = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// Reads the chains at the hooks `prerouting` (without NAT), `forward` and `postrouting`, and those that they jump to. `None` if they cannot be read,
/// which needs `CAP_NET_ADMIN`.
#[must_use]
pub fn firewall() -> Option<Firewall> {
    let mut socket = Socket::open(NETLINK_NETFILTER).ok()?;
    let mut chains: Vec<FirewallChain> = Vec::new();
    for (family, object) in objects_of(&mut socket, message::GETCHAIN).ok()? {
        let Some(family) = family_of(family) else { continue };
        let table = text(object.get(abi::chain::TABLE).unwrap_or_default());
        let name = text(object.get(abi::chain::NAME).unwrap_or_default());
        let base = base_chain(&object).flatten();
        chains.push(FirewallChain {
            family,
            table: table.into(),
            name: name.into(),
            base,
            rules: Vec::new(),
        });
    }
    for (family, object) in objects_of(&mut socket, message::GETRULE).ok()? {
        let Some(family) = family_of(family) else { continue };
        let [table, name] =
            [abi::rule::TABLE, abi::rule::CHAIN].map(|kind| text(object.get(kind).unwrap_or_default()));
        let chain = chains.iter_mut().find(|chain| {
            chain.family == family && chain.table.as_raw() == table && chain.name.as_raw() == name
        });
        if let Some(chain) = chain {
            chain.rules.push(rule(family, &object));
        }
    }
    Some(Firewall { chains: passed(chains), legacy: legacy() })
}

const fn family_of(number: u8) -> Option<TableFamily> {
    // NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 (linux/netfilter.h).
    match number {
        1 => Some(TableFamily::Inet),
        2 => Some(TableFamily::Ip),
        10 => Some(TableFamily::Ip6),
        _ => None,
    }
}

fn rule(family: TableFamily, object: &NftObject) -> FirewallRule {
    let handle =
        object.get(abi::rule::HANDLE).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
    let list = object.get(abi::rule::EXPRESSIONS).map_or_else(|| Some(Vec::new()), decode::list);
    FirewallRule {
        handle: handle.unwrap_or(0),
        comment: object.get(abi::rule::USERDATA).and_then(decode::comment).map(Into::into),
        terms: list.map_or_else(|| vec![Term::Effect("malformed".into())], |list| terms(family, &list)),
    }
}

/// Keeps the chains that forwarded packets pass.
fn passed(chains: Vec<FirewallChain>) -> Vec<FirewallChain> {
    let is_entry = |chain: &FirewallChain| {
        chain.base.as_ref().is_some_and(|base| match base.hook {
            Hook::Prerouting => base.kind != ChainType::Nat,
            Hook::Forward | Hook::Postrouting => true,
            _ => false,
        })
    };
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    let mut open: Vec<usize> = (0..chains.len()).filter(|at| is_entry(&chains[*at])).collect();
    while let Some(at) = open.pop() {
        if !kept.insert(at) {
            continue;
        }
        let from = &chains[at];
        for target in from.rules.iter().flat_map(|rule| &rule.terms).filter_map(Term::target) {
            open.extend(chains.iter().position(|chain| {
                chain.family == from.family && chain.table == from.table && chain.name == *target
            }));
        }
    }
    let numbered = chains.into_iter().enumerate();
    numbered.filter(|(at, _)| kept.contains(at)).map(|(_, chain)| chain).collect()
}

fn legacy() -> Vec<crate::text::Untrusted> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let names: BTreeSet<String> =
        LEGACY.iter().flat_map(|file| read(file).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    names.into_iter().map(Into::into).collect()
}
