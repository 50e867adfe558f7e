//! What `ip` and `nft` print about a namespace. They judge every state once: while the kernel's own answers stay the same,
//! byte for byte, so does what they print, and starting them takes ten times as long as asking the kernel.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use rtnetlink::sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use sha2::{Digest, Sha256};

use super::Namespace;

/// What scripts printed, by the script and the state of the kernel.
static PRINTED: Mutex<Option<HashMap<[u8; 32], String>>> = Mutex::new(None);

impl Namespace {
    /// Runs a script that prints nothing but routes, rules, next hops and the nftables rules without handles, as `ip`
    /// and `nft` show them.
    #[track_caller]
    pub fn look(&self, script: &str) -> String {
        let key = || {
            let state = self.inside(kernel_state)??;
            Some(Sha256::new().chain_update(script).chain_update([0]).chain_update(state).finalize().into())
        };
        let before = key();
        if let Some(key) = before
            && let Some(text) =
                PRINTED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().get(&key)
        {
            return text.clone();
        }
        let text = self.sh(script);
        // Another program may have changed the state in between.
        if let Some(key) = before.filter(|_| before == key()) {
            let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
            printed.get_or_insert_default().insert(key, text.clone());
        }
        text
    }
}

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`
const INTERRUPTED: u16 = 0x10;

/// `RTM_GETLINK`
const LINKS: u16 = 18;
/// `RTM_GETROUTE`, `RTM_GETRULE` and `RTM_GETNEXTHOP`, with the length of their heads.
const TABLES: [(u16, usize); 3] = [(26, 12), (34, 12), (106, 8)];

/// `NFNL_SUBSYS_NFTABLES`
const NFTABLES: u16 = 10 << 8;
/// `NFT_MSG_GETTABLE`, `NFT_MSG_GETCHAIN`, `NFT_MSG_GETRULE`, `NFT_MSG_GETOBJ` and `NFT_MSG_GETFLOWTABLE`
const RULESET: [u16; 5] = [1, 4, 7, 19, 23];
const SETS: u16 = 10;
const ELEMENTS: u16 = 13;

/// The attributes that contain handles, by the type of the answer: every new object has another one.
const HANDLES: [(u16, &[u16]); 6] = [(0, &[4]), (3, &[2]), (6, &[3, 6]), (9, &[16]), (18, &[6]), (22, &[5])];

/// Returns the kernel's answers about everything that a script shows, or `None` if they changed in the meantime.
fn kernel_state() -> Option<Vec<u8>> {
    let mut state = Vec::new();
    let mut socket = connect(NETLINK_ROUTE);
    // Without counters.
    let ask = [vec![0; 16], attribute(29, &8_u32.to_ne_bytes())].concat();
    for message in dump(&mut socket, LINKS, &ask)? {
        let link = (message.kind != ERROR).then_some(&message.body)?;
        state.extend_from_slice(&link[4..8]);
        for (kind, value) in attributes(&link[16..]).filter(|(kind, _)| *kind == 3) {
            append(&mut state, kind, &link[value]);
        }
    }
    for (kind, length) in TABLES {
        for family in [2, 10] {
            let mut head = vec![0; length];
            head[0] = family;
            for message in dump(&mut socket, kind, &head)? {
                append(&mut state, message.kind, &message.body);
            }
        }
    }
    let mut socket = connect(NETLINK_NETFILTER);
    for kind in RULESET {
        for message in dump(&mut socket, NFTABLES | kind, &[0; 4])? {
            append(&mut state, message.kind, &without_handles(message));
        }
    }
    for set in dump(&mut socket, NFTABLES | SETS, &[0; 4])? {
        let mut ask = vec![set.body[0], 0, 0, 0];
        for (kind, value) in attributes(&set.body[4..]).filter(|(kind, _)| [1, 2].contains(kind)) {
            ask.extend(attribute(kind, &set.body[4..][value]));
        }
        append(&mut state, set.kind, &without_handles(set));
        for message in dump(&mut socket, NFTABLES | ELEMENTS, &ask)? {
            append(&mut state, message.kind, &without_handles(message));
        }
    }
    Some(state)
}

/// Does what `ip link set lo up` does, in this thread's namespace.
pub(super) fn set_loopback_up() {
    /// `RTM_NEWLINK`
    const LINK: u16 = 16;
    /// `NLM_F_REQUEST | NLM_F_ACK`
    const CHANGE: u16 = 5;
    /// `IFF_UP`
    const UP: u32 = 1;
    let words = [0, 1, UP, UP];
    let mut socket = connect(NETLINK_ROUTE);
    send(&mut socket, LINK, CHANGE, &words.map(u32::to_ne_bytes).concat());
    let (answer, _) = socket.recv_from_full().expect("an answer of the kernel");
    assert_eq!(answer[16..20], [0; 4], "lo cannot be set up");
}

/// A netlink message.
struct Message {
    kind: u16,
    body: Vec<u8>,
}

fn connect(protocol: isize) -> Socket {
    let mut socket = Socket::new(protocol).expect("a netlink socket");
    socket.bind_auto().expect("a netlink socket");
    socket.connect(&SocketAddr::new(0, 0)).expect("a netlink socket");
    socket
}

/// Asks for all objects of a kind. A refusal is an answer, too.
fn dump(socket: &mut Socket, kind: u16, body: &[u8]) -> Option<Vec<Message>> {
    send(socket, kind, DUMP, body);
    let mut messages = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full().expect("an answer of the kernel");
        let mut rest = &answer[..];
        while rest.len() >= 16 {
            let length = usize::try_from(u32::from_ne_bytes(rest[..4].try_into().expect("4 bytes")))
                .expect("an address");
            let [kind, flags] = [4, 6].map(|at| u16::from_ne_bytes([rest[at], rest[at + 1]]));
            if flags & INTERRUPTED != 0 {
                return None;
            }
            if kind == DONE {
                return Some(messages);
            }
            messages.push(Message { kind, body: rest[16..length].to_vec() });
            if kind == ERROR {
                return Some(messages);
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn send(socket: &mut Socket, kind: u16, flags: u16, body: &[u8]) {
    let length = u32::try_from(16 + body.len()).expect("a short message");
    let mut request = length.to_ne_bytes().to_vec();
    request.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    request.extend([0; 8]);
    request.extend(body);
    socket.send(&request, 0).expect("the kernel listens");
}

/// Returns the types and the places of attributes.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = bytes.get(at..at + 4)?;
        let [length, kind] = [0, 2].map(|from| u16::from_ne_bytes([head[from], head[from + 1]]));
        let value = at + 4..at + usize::from(length).max(4);
        at += usize::from(length).max(4).next_multiple_of(4);
        Some((kind & 0x3fff, value))
    })
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message of nftables without handles, and without the number of the generation in its head.
fn without_handles(message: Message) -> Vec<u8> {
    let Message { kind, mut body } = message;
    if kind == ERROR {
        return body;
    }
    body[2..4].fill(0);
    let handles =
        HANDLES.iter().find(|(of, _)| kind == NFTABLES | of).map_or(&[][..], |(_, handles)| handles);
    let places: Vec<_> = attributes(&body[4..]).filter(|(kind, _)| handles.contains(kind)).collect();
    for (_, place) in places {
        body[4..][place].fill(0);
    }
    body
}

/// Appends a message, so that no two different states have the same bytes.
fn append(state: &mut Vec<u8>, kind: u16, body: &[u8]) {
    state.extend(kind.to_ne_bytes());
    state.extend(body.len().to_ne_bytes());
    state.extend(body);
}
