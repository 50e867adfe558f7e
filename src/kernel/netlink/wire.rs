//! The wire format of netlink: messages, the replies in them, and attributes.

use std::ops::Range;

use rustix::io::Errno;

use super::error::{KernelError, Malformed};

// Message types below 16 and header flags: linux/netlink.h.
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_MIN_TYPE: u16 = 16;
/// The message is a request.
pub const NLM_F_REQUEST: u16 = 0x1;
/// Requests an acknowledgment even if there is no error.
pub const NLM_F_ACK: u16 = 0x4;
/// A concurrent change made the dump inconsistent.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
/// Requests all objects (`NLM_F_ROOT | NLM_F_MATCH`).
pub const NLM_F_DUMP: u16 = 0x300;
/// The error message repeats only the header of the request.
pub(super) const NLM_F_CAPPED: u16 = 0x100;
/// The error or done message ends with the attributes of an extended acknowledgment.
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
// Attributes of the extended acknowledgment: enum nlmsgerr_attrs, linux/netlink.h.
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;
pub(super) const NLMSGERR_ATTR_OFFS: u16 = 2;
pub(super) const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER` (linux/netlink.h): flags in the type field of an attribute.
pub(super) const NLA_FLAGS: u16 = 0xc000;

/// `sizeof(struct nlmsghdr)` (linux/netlink.h).
pub const HEADER: usize = 16;
/// `sizeof(struct nlattr)` (linux/netlink.h).
pub(super) const ATTRIBUTE_HEADER: usize = 4;

/// A message received from the kernel.
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// The port of the socket that requested it; in a notification, the one that made the change, or 0 for the kernel.
    pub(super) port: u32,
    pub(super) payload: &'a [u8],
}

impl Received<'_> {
    /// The outcome of the request: done, rejected, or `None` if this message does not end the reply.
    pub(super) fn outcome(&self) -> Result<Option<Result<(), KernelError>>, Malformed> {
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => {}
            // Control messages (NLMSG_NOOP) are never part of a dump.
            kind if kind < NLMSG_MIN_TYPE => return Err(Malformed),
            _ => return Ok(None),
        }
        let code = match self.payload.first_chunk::<4>() {
            Some(code) => i32::from_ne_bytes(*code),
            // Some older dumps end with an empty NLMSG_DONE.
            None if self.kind == NLMSG_DONE => 0,
            None => return Err(Malformed),
        };
        if code >= 0 {
            return Ok(Some(Ok(())));
        }
        // The kernel's numbers are at most MAX_ERRNO, 4095 (linux/err.h).
        if code < -4095 {
            return Err(Malformed);
        }
        let mut error = KernelError::from(Errno::from_raw_os_error(-code));
        if self.flags & NLM_F_ACK_TLVS != 0 {
            self.read_extended_ack(&mut error);
        }
        Ok(Some(Err(error)))
    }

    /// Adds the extended acknowledgment to `error`, ignoring malformed parts.
    fn read_extended_ack(&self, error: &mut KernelError) {
        let Some(start) = self.extended_ack_start() else { return };
        for (kind, payload) in Attributes::new(self.payload.get(start..).unwrap_or_default()).flatten() {
            let number = payload.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes));
            match kind {
                NLMSGERR_ATTR_MSG => error.text = Some(text(payload)).filter(|text| !text.is_empty()),
                NLMSGERR_ATTR_OFFS => error.offset = number,
                NLMSGERR_ATTR_MISS_TYPE => error.missing = number,
                _ => {}
            }
        }
    }

    /// The offset of the extended acknowledgment in the payload.
    fn extended_ack_start(&self) -> Option<usize> {
        if self.kind == NLMSG_DONE {
            return Some(4);
        }
        if self.flags & NLM_F_CAPPED != 0 {
            return Some(4 + HEADER);
        }
        let length = u32::from_ne_bytes(*self.payload.get(4..)?.first_chunk()?);
        Some(4 + aligned(usize::try_from(length).ok()?.max(HEADER))?)
    }
}

/// Iterates over the messages of a datagram; ends after a malformed one.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Received<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = split_message(self.0);
        self.0 = message.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(message.map(|(message, _)| message).ok_or(Malformed))
    }
}

/// Splits off the first message of `bytes`.
fn split_message(bytes: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let message = Received {
        kind: half(4)?,
        flags: half(6)?,
        sequence: u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?),
        port: u32::from_ne_bytes(*bytes.get(12..)?.first_chunk()?),
        payload: bytes.get(HEADER..length)?,
    };
    Some((message, bytes.get(aligned(length)?..).unwrap_or_default()))
}

/// Rounds up to a multiple of 4, as netlink pads messages and attributes (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
fn aligned(length: usize) -> Option<usize> {
    length.checked_next_multiple_of(4)
}

/// Appends a message and its padding.
pub fn put_message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, payload: &[u8]) {
    // The kernel rejects datagrams long before their length exceeds u32.
    let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Sets the length of the message that begins at `start`, after its payload was appended, and pads it.
pub(super) fn close_message(bytes: &mut Vec<u8>, start: usize) {
    // The kernel rejects datagrams long before their length exceeds u32.
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = bytes.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Numbers the messages from `first` on, and requests the acknowledgment of only one of them.
pub(super) fn number(bytes: &mut [u8], first: u32, acknowledge: usize) -> Result<(), KernelError> {
    let invalid = || KernelError::with_text(Errno::INVAL, "the messages to send are malformed");
    let (mut at, mut index, mut sequence) = (0, 0, first);
    while at < bytes.len() {
        let header = bytes.get_mut(at..at + HEADER).ok_or_else(invalid)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let mut flags = u16::from_ne_bytes([header[6], header[7]]) & !NLM_F_ACK;
        if index == acknowledge {
            flags |= NLM_F_ACK;
        }
        header[6..8].copy_from_slice(&flags.to_ne_bytes());
        header[8..12].copy_from_slice(&sequence.to_ne_bytes());
        if length < HEADER || length > bytes.len() - at {
            return Err(invalid());
        }
        at += length.next_multiple_of(4);
        index += 1;
        sequence = sequence.wrapping_add(1);
    }
    Ok(())
}

/// The position of a netlink attribute in a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeAt {
    /// The attribute type, without flags.
    pub kind: u16,
    /// The range of the payload.
    pub payload: Range<usize>,
    /// The offset of the next attribute.
    pub next: usize,
}

/// Locates the attribute at offset `at`. Returns `None` at the end of `bytes`.
///
/// # Errors
///
/// Returns [`Malformed`] if the remaining bytes are not an attribute.
pub fn attribute_at(bytes: &[u8], at: usize) -> Option<Result<AttributeAt, Malformed>> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    let parse = || {
        let &[l0, l1, k0, k1] = rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        if length < ATTRIBUTE_HEADER || length > rest.len() {
            return None;
        }
        Some(AttributeAt {
            kind: u16::from_ne_bytes([k0, k1]) & !NLA_FLAGS,
            payload: at + ATTRIBUTE_HEADER..at + length,
            next: at + aligned(length)?,
        })
    };
    Some(parse().ok_or(Malformed))
}

/// Iterates over the type (without flags) and payload of each attribute in a slice; ends after a malformed one.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    /// Iterates over the attributes in `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the payload of the first attribute of this kind in `bytes`.
    #[must_use]
    pub fn find(bytes: &'a [u8], wanted: u16) -> Option<&'a [u8]> {
        Self::new(bytes).flatten().find(|(kind, _)| *kind == wanted).map(|(_, payload)| payload)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let attribute = attribute_at(self.bytes, self.at)?;
        self.at = attribute.as_ref().map_or(self.bytes.len(), |attribute| attribute.next);
        Some(attribute.and_then(|AttributeAt { kind, payload, .. }| {
            Ok((kind, self.bytes.get(payload).ok_or(Malformed)?))
        }))
    }
}

/// Appends an attribute and its padding.
///
/// # Errors
///
/// Returns [`Malformed`], and appends nothing, if the payload exceeds 65,531 bytes.
pub fn put_attribute(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) -> Result<(), Malformed> {
    let length = u16::try_from(ATTRIBUTE_HEADER + payload.len()).map_err(|_| Malformed)?;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(())
}

/// Decodes a string attribute, up to its first NUL.
#[must_use]
pub fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Returns the attributes in `bytes` whose types `keep` accepts, byte by byte. Ends at a malformed one.
pub fn retain(bytes: &[u8], keep: impl Fn(u16) -> bool) -> Vec<u8> {
    let (mut kept, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(Ok(attribute)) = attribute_at(bytes, at) {
        if keep(attribute.kind) {
            kept.extend_from_slice(bytes.get(at..attribute.payload.end).unwrap_or_default());
            kept.resize(kept.len().next_multiple_of(4), 0);
        }
        at = attribute.next;
    }
    kept
}
