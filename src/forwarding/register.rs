//! The registers that an nftables rule compares, as far as their values are known.

use std::cmp::Ordering;

use crate::state::{KeyRange, Operator};

/// Whether a rule applies. A condition of lower rank prevails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    No,
    /// The rule applies only to unusual packets, such as those of a flood.
    Rare,
    /// The rule applies to some packets between the two pods, but not to all of them.
    Some,
    /// The rule has a condition that cannot be decoded.
    Maybe,
    Yes,
}

impl Match {
    pub(super) const fn yes_if(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }

    const fn inverted_if(self, not: bool) -> Self {
        match self {
            Self::No if not => Self::Yes,
            Self::Yes if not => Self::No,
            other => other,
        }
    }
}

/// A byte, some bits of which may be unknown or vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Byte {
    value: u8,
    /// The bits that differ between the packets of two pods.
    varies: u8,
    /// The bits that are unknown.
    unknown: u8,
}

impl Byte {
    pub(super) const UNKNOWN: Self = Self { value: 0, varies: 0, unknown: 0xff };
    pub(super) const VARIES: Self = Self::varying(0, 0xff);

    pub(super) const fn known(value: u8) -> Self {
        Self { value, varies: 0, unknown: 0 }
    }

    /// Returns a byte in which these bits vary.
    pub(super) const fn varying(value: u8, varies: u8) -> Self {
        Self { value: value & !varies, varies, unknown: 0 }
    }

    /// Returns the value, if all bits are known.
    pub(super) const fn exact(self) -> Option<u8> {
        if self.open() == 0 { Some(self.value) } else { None }
    }

    const fn open(self) -> u8 {
        self.varies | self.unknown
    }

    const fn lowest(self) -> u8 {
        self.value & !self.open()
    }

    const fn highest(self) -> u8 {
        self.value | self.open()
    }
}

/// The registers of a rule: 16 words of 4 bytes.
#[derive(Debug)]
pub(super) struct Registers([Byte; 64]);

impl Registers {
    pub(super) const fn new() -> Self {
        Self([Byte::UNKNOWN; 64])
    }

    /// Returns the offset of a register: `NFT_REG_1` to `NFT_REG_4` have 16 bytes, `NFT_REG32_00` to `NFT_REG32_15` have 4.
    fn start(register: u32) -> Option<usize> {
        let number = usize::try_from(register).ok()?;
        match number {
            1..=4 => Some((number - 1) * 16),
            8..=23 => Some((number - 8) * 4),
            _ => None,
        }
    }

    /// Stores bytes, and zeros up to the end of the word, as the kernel does.
    pub(super) fn store(&mut self, register: u32, bytes: impl IntoIterator<Item = Byte>) {
        let Some(start) = Self::start(register) else { return };
        let mut at = start;
        for byte in bytes {
            if let Some(place) = self.0.get_mut(at) {
                *place = byte;
            }
            at += 1;
        }
        while !at.is_multiple_of(4) && at < self.0.len() {
            self.0[at] = Byte::known(0);
            at += 1;
        }
    }

    /// Masks the bytes of a register, and then inverts bits of them.
    pub(super) fn mask(&mut self, from: u32, into: u32, mask: &[u8], invert: &[u8]) {
        let bytes: Vec<Byte> = self.get(from, mask.len()).map_or_else(
            || vec![Byte::UNKNOWN; mask.len()],
            |bytes| {
                let masked = |(at, byte): (usize, &Byte)| {
                    let keep = mask.get(at).copied().unwrap_or(0);
                    Byte {
                        value: (byte.value & keep) ^ invert.get(at).copied().unwrap_or(0),
                        varies: byte.varies & keep,
                        unknown: byte.unknown & keep,
                    }
                };
                bytes.iter().enumerate().map(masked).collect()
            },
        );
        self.store(into, bytes);
    }

    /// Swaps the bytes of numbers of `size` bytes.
    pub(super) fn swap(&mut self, from: u32, into: u32, length: usize, size: usize) {
        let mut bytes = self.bytes(from, length);
        bytes.chunks_mut(size.max(1)).for_each(<[Byte]>::reverse);
        self.store(into, bytes);
    }

    /// The first bytes of a register, which are unknown if it does not exist.
    pub(super) fn bytes(&self, register: u32, length: usize) -> Vec<Byte> {
        self.get(register, length).map_or_else(|| vec![Byte::UNKNOWN; length.min(64)], <[Byte]>::to_vec)
    }

    /// The first bytes of a register.
    pub(super) fn get(&self, register: u32, length: usize) -> Option<&[Byte]> {
        let start = Self::start(register)?;
        self.0.get(start..start.checked_add(length)?)
    }

    /// Returns the first bytes of a register as a number in host byte order, if it is known.
    pub(super) fn number(&self, register: u32) -> Option<u32> {
        let bytes = self.get(register, 4)?;
        let is_known = bytes.iter().all(|byte| byte.open() == 0);
        let value = [bytes[0].value, bytes[1].value, bytes[2].value, bytes[3].value];
        is_known.then(|| u32::from_ne_bytes(value))
    }

    /// Compares the first bytes of a register with a value.
    pub(super) fn compare(&self, register: u32, operator: Operator, value: &[u8]) -> Match {
        let Some(bytes) = self.get(register, value.len()) else { return Match::Maybe };
        match operator {
            Operator::Equal => equals(bytes, value),
            Operator::Unequal => equals(bytes, value).inverted_if(true),
            _ => {
                let [low, high] = [Byte::lowest, Byte::highest].map(|end| order(bytes, end, value));
                match [low, high].map(|ordering| meets(operator, ordering)) {
                    [true, true] => Match::Yes,
                    [false, false] => Match::No,
                    _ => open(bytes),
                }
            }
        }
    }

    /// Looks up a register in a set. A key of several `fields` is in a range if each field is.
    pub(super) fn is_member(&self, register: u32, set: &[KeyRange], fields: &[usize], not: bool) -> Match {
        let matches = set.iter().map(|range| self.is_in(register, range, fields));
        matches.max().unwrap_or(Match::No).inverted_if(not)
    }

    /// Returns whether the range contains the register: certainly, for some packets, or possibly.
    pub(super) fn is_in(&self, register: u32, range: &KeyRange, fields: &[usize]) -> Match {
        // The catch-all element.
        if range.from.is_empty() {
            return Match::Yes;
        }
        let Some(bytes) = self.get(register, range.from.len()) else { return Match::Maybe };
        if range.to.as_ref() == Some(&range.from) {
            return equals(bytes, &range.from);
        }
        let mut start = 0;
        let whole = [range.from.len()];
        let fields = if fields.is_empty() { &whole } else { fields };
        let mut result = Match::Yes;
        for length in fields {
            // Each field begins with a word of its own.
            let end = (start + length).min(range.from.len());
            let part = |bytes: &[u8]| bytes.get(start..end).unwrap_or_default().to_vec();
            let (from, to) = (part(&range.from), range.to.as_ref().map(|to| part(to)));
            result = result.min(lies_between(&bytes[start..end], &from, to.as_deref()));
            start = (start + length.next_multiple_of(4)).min(range.from.len());
        }
        result
    }
}

fn lies_between(bytes: &[Byte], from: &[u8], to: Option<&[u8]>) -> Match {
    let is_from = |end: fn(Byte) -> u8| order(bytes, end, from).is_ge();
    let is_to = |end: fn(Byte) -> u8| to.is_none_or(|to| order(bytes, end, to).is_le());
    if is_from(Byte::lowest) && is_to(Byte::highest) {
        return Match::Yes;
    }
    if is_from(Byte::highest) && is_to(Byte::lowest) { open(bytes) } else { Match::No }
}

fn equals(bytes: &[Byte], value: &[u8]) -> Match {
    let differs = |(byte, value): (&Byte, &u8)| (byte.value ^ value) & !byte.open() != 0;
    if bytes.iter().zip(value).any(differs) {
        return Match::No;
    }
    open(bytes)
}

/// Returns the match of bytes whose known bits match, depending on their other bits.
fn open(bytes: &[Byte]) -> Match {
    if bytes.iter().any(|byte| byte.unknown != 0) {
        return Match::Maybe;
    }
    if bytes.iter().any(|byte| byte.varies != 0) { Match::Some } else { Match::Yes }
}

fn order(bytes: &[Byte], end: fn(Byte) -> u8, value: &[u8]) -> Ordering {
    bytes.iter().map(|byte| end(*byte)).cmp(value.iter().copied())
}

const fn meets(operator: Operator, ordering: Ordering) -> bool {
    match operator {
        Operator::Equal => ordering.is_eq(),
        Operator::Unequal => ordering.is_ne(),
        Operator::Less => ordering.is_lt(),
        Operator::LessOrEqual => ordering.is_le(),
        Operator::Greater => ordering.is_gt(),
        Operator::GreaterOrEqual => ordering.is_ge(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(bytes: &[u8]) -> Vec<Byte> {
        bytes.iter().map(|byte| Byte::known(*byte)).collect()
    }

    #[test]
    fn open_bits_decide_only_where_known_ones_do_not() {
        let mut registers = Registers::new();
        registers.store(1, [Byte::known(0x40), Byte::varying(0x60, 0x0f), Byte::UNKNOWN, Byte::VARIES]);
        let equal = |value: &[u8]| registers.compare(1, Operator::Equal, value);
        assert_eq!(equal(&[0x40]), Match::Yes);
        assert_eq!(equal(&[0x41]), Match::No);
        assert_eq!(equal(&[0x40, 0x65]), Match::Some);
        assert_eq!(equal(&[0x40, 0x75]), Match::No);
        assert_eq!(equal(&[0x40, 0x65, 1]), Match::Maybe);
        let less = |value: &[u8]| registers.compare(1, Operator::Less, value);
        assert_eq!(less(&[0x40, 0x70]), Match::Yes);
        assert_eq!(less(&[0x40, 0x60]), Match::No);
        assert_eq!(less(&[0x40, 0x68]), Match::Some);
        assert_eq!(registers.compare(1, Operator::Unequal, &[0x41]), Match::Yes);
        assert_eq!(registers.number(1), None);
    }

    #[test]
    fn masks_close_bits() {
        let mut registers = Registers::new();
        registers.store(1, [Byte::known(0x60), Byte::varying(0, 0x0f)]);
        registers.mask(1, 2, &[0x0f, 0xc0], &[0, 1]);
        assert_eq!(registers.compare(2, Operator::Equal, &[0, 1]), Match::Yes);
        registers.mask(9, 1, &[0xff], &[0]);
        assert_eq!(registers.compare(1, Operator::Equal, &[3]), Match::Maybe);
    }

    #[test]
    fn swapped_numbers_are_compared_in_network_order() {
        let mut registers = Registers::new();
        registers.store(1, [Byte::known(5), Byte::known(0), Byte::UNKNOWN, Byte::VARIES]);
        registers.swap(1, 2, 4, 2);
        assert_eq!(registers.compare(2, Operator::Equal, &[0, 5]), Match::Yes);
        registers.swap(1, 1, 4, 4);
        assert_eq!(registers.compare(1, Operator::Equal, &[1, 2, 0, 6]), Match::No);
        assert_eq!(registers.compare(1, Operator::Equal, &[1, 2, 0, 5]), Match::Maybe);
    }

    #[test]
    fn each_field_of_a_key_is_compared() {
        let mut registers = Registers::new();
        registers.store(1, known(&[10, 244, 0, 10]));
        registers.store(9, known(&[10, 0, 0, 1]));
        let range = KeyRange {
            from: vec![10, 244, 0, 0, 10, 244, 1, 0],
            to: Some(vec![10, 244, 0, 255, 10, 244, 1, 255]),
        };
        assert_eq!(registers.is_in(1, &range, &[]), Match::Yes, "the first bytes are in between");
        assert_eq!(registers.is_in(1, &range, &[4, 4]), Match::No);
        registers.store(9, known(&[10, 244, 1, 7]));
        assert_eq!(registers.is_in(1, &range, &[4, 4]), Match::Yes);
        let others = KeyRange { from: Vec::new(), to: None };
        assert_eq!(registers.is_member(1, &[others], &[], false), Match::Yes);
        assert_eq!(registers.is_member(1, &[range], &[4, 4], true), Match::No);
    }

    #[test]
    fn a_short_value_fills_its_word() {
        let mut registers = Registers::new();
        registers.store(8, known(&[6]));
        registers.store(9, known(&[0x5b, 0xa1]));
        assert_eq!(registers.compare(8, Operator::Equal, &[6, 0, 0, 0, 0x5b, 0xa1, 0, 0]), Match::Yes);
        registers.store(99, known(&[1]));
        assert_eq!(registers.compare(99, Operator::Equal, &[1]), Match::Maybe, "no such register");
    }
}
