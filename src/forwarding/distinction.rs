//! Finds the addresses that no rule of a firewall distinguishes, so that one packet represents many.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{ForwardingModel, Packet};
use crate::{
    model::{Family, PerFamily, address_at, address_number, prefix_bounds},
    state::{Firewall, Host, KeyRange, Operator, PacketPart, Term},
};

/// The addresses that the rules of a firewall distinguish: single addresses, and the bounds of ranges.
#[derive(Debug, Default)]
pub struct Distinctions {
    points: HashSet<IpAddr>,
    bounds: PerFamily<Vec<u128>>,
    /// Whether a rule masks bits in the middle of an address, so that any two may differ.
    is_scattered: bool,
    /// Whether a rule depends on the return route.
    depends_on_routes: bool,
}

/// A class of addresses that every rule treats in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressClass {
    /// Rules for one family, and tables of one, do not see the packets of the other.
    family: Family,
    itself: Option<IpAddr>,
    region: usize,
}

/// Neighboring addresses that no range in a rule separates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
}

impl Region {
    /// Returns `true` for a region that contains the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    fn size(&self) -> u128 {
        address_number(self.last) - address_number(self.first)
    }
}

/// A prefix if the region is one, or else the first and the last address.
impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = Family::from(self.first).bits();
        let prefixes = (0..=bits).filter_map(|length| IpNet::new(self.first, length).ok());
        let mut prefixes = prefixes.filter(|prefix| prefix.network() == self.first);
        match prefixes.find(|prefix| prefix.broadcast() == self.last) {
            Some(prefix) => prefix.fmt(f),
            None => write!(f, "{} to {}", self.first, self.last),
        }
    }
}

impl Distinctions {
    /// Returns the distinctions of all rules of a firewall on a node.
    #[must_use]
    pub fn of(firewall: &Firewall, host: &Host) -> Self {
        let mut found = Boundaries::default();
        found.points.extend(host.addresses.iter().map(|local| local.address));
        for rule in firewall.chains.iter().flat_map(|chain| &chain.rules) {
            let mut mask: Option<&[u8]> = None;
            for term in &rule.terms {
                match term {
                    Term::Mask { mask: bits, .. } => mask = Some(bits),
                    Term::Load { part, .. } => {
                        mask = None;
                        found.depends_on_routes |= matches!(part, PacketPart::ReturnRoute { .. });
                        found.is_scattered |= is_inside_an_address(part);
                    }
                    Term::Compare { operator, value, .. } => found.add_comparison(*operator, value, mask),
                    Term::Member { set, .. } => set.iter().for_each(|range| found.add_range(range, mask)),
                    Term::Map { map, .. } => map.iter().for_each(|(range, _)| found.add_range(range, mask)),
                    _ => {}
                }
            }
        }
        let Boundaries { points, v4, v6, is_scattered, depends_on_routes } = found;
        let bounds = PerFamily { v4: Some(v4.into_iter().collect()), v6: Some(v6.into_iter().collect()) };
        Self { points, bounds, is_scattered, depends_on_routes }
    }

    /// Returns the class of an address.
    #[must_use]
    pub fn class(&self, address: IpAddr) -> AddressClass {
        let is_special = self.is_scattered || self.points.contains(&address);
        let number = address_number(address);
        let family = Family::from(address);
        let bounds = self.bounds.get(family).map_or(&[][..], Vec::as_slice);
        let region = bounds.partition_point(|bound| *bound <= number);
        AddressClass { family, itself: is_special.then_some(address), region }
    }

    /// Returns the regions of a prefix, the largest first.
    #[must_use]
    pub fn regions(&self, prefix: IpNet) -> Vec<Region> {
        let family = Family::from(prefix);
        let (first, last) = prefix_bounds(prefix);
        let bounds = self.bounds.get(family).map_or(&[][..], Vec::as_slice);
        let inside =
            bounds.partition_point(|bound| *bound <= first)..bounds.partition_point(|bound| *bound <= last);
        let mut starts = vec![first];
        starts.extend_from_slice(&bounds[inside]);
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([last]);
        let region = |(first, last): (&u128, u128)| {
            Some(Region { first: address_at(family, *first)?, last: address_at(family, last)? })
        };
        let mut regions: Vec<Region> = starts.iter().zip(ends).filter_map(region).collect();
        regions.sort_by_key(|region| std::cmp::Reverse(region.size()));
        regions
    }

    /// Returns an address in a region that represents most others: `usual`, if it is one, or else the first one that no rule
    /// names.
    #[must_use]
    pub fn sample(&self, region: &Region, usual: IpAddr) -> Option<IpAddr> {
        if region.contains(usual) && !self.points.contains(&usual) {
            return Some(usual);
        }
        // The first address of a pod CIDR is that of the network.
        let candidates =
            (1..=region.size()).map(|offset| address_number(region.first).saturating_add(offset));
        let mut addresses = candidates.filter_map(|number| address_at(Family::from(region.first), number));
        addresses.find(|address| !self.points.contains(address))
    }

    /// Iterates over the first addresses of everything that the rules distinguish, as numbers. `None` if any two addresses may differ.
    pub fn bounds(&self, family: Family) -> Option<impl Iterator<Item = u128> + '_> {
        let points = self.points.iter().filter(move |address| Family::from(**address) == family);
        let points = points.flat_map(|address| {
            let number = address_number(*address);
            [number, number.saturating_add(1)]
        });
        let bounds = self.bounds.get(family).into_iter().flatten().copied();
        (!self.is_scattered).then(|| points.chain(bounds))
    }

    /// Returns whether a packet has a return route: any, and one by its input interface. `None` if no rule depends on that.
    #[must_use]
    pub fn return_routes(&self, model: &ForwardingModel<'_>, packet: &Packet) -> Option<[bool; 2]> {
        let has_route = |by_input| model.has_return_route(packet, by_input);
        self.depends_on_routes.then(|| [false, true].map(has_route))
    }
}

/// Returns `true` if a part of a header begins in the middle of an address. IPv4 addresses begin at bytes 12 and 16, IPv6 addresses
/// at bytes 8 and 24.
const fn is_inside_an_address(part: &PacketPart) -> bool {
    match part {
        PacketPart::Header { offset: 8 | 12 | 16 | 24, .. } => false,
        PacketPart::Header { offset, length: 1 } => *offset > 12,
        PacketPart::Header { offset, length } => *offset + *length > 8,
        _ => false,
    }
}

#[derive(Default)]
struct Boundaries {
    points: HashSet<IpAddr>,
    v4: BTreeSet<u128>,
    v6: BTreeSet<u128>,
    is_scattered: bool,
    depends_on_routes: bool,
}

impl Boundaries {
    fn add_comparison(&mut self, operator: Operator, value: &[u8], mask: Option<&[u8]>) {
        match mask {
            None => match operator {
                Operator::Equal | Operator::Unequal => self.add_equality(value),
                Operator::Less | Operator::GreaterOrEqual => self.add_first(value),
                Operator::LessOrEqual | Operator::Greater => self.add_last(value),
            },
            Some(mask) => {
                let is_prefix =
                    mask.iter().map(|byte| byte.leading_ones() + byte.trailing_zeros()).all(|bits| bits >= 8);
                let fits = mask.is_sorted_by(|one, next| *one == 0xff || *next == 0);
                // Shorter values, such as flags, are not addresses.
                self.is_scattered |= mask.len() >= 4 && !(is_prefix && fits);
                let last: Vec<u8> = value.iter().zip(mask).map(|(value, mask)| value | !mask).collect();
                self.add_first(value);
                self.add_last(&last);
            }
        }
    }

    fn add_range(&mut self, range: &KeyRange, mask: Option<&[u8]>) {
        match &range.to {
            Some(to) if *to == range.from && mask.is_none() => self.add_equality(to),
            to => {
                self.add_first(&range.from);
                self.add_last(to.as_deref().unwrap_or(&range.from));
            }
        }
    }

    /// A value can be an address, several of them, or the beginning of one.
    fn add_equality(&mut self, value: &[u8]) {
        let words = value.chunks_exact(4).filter_map(|word| <[u8; 4]>::try_from(word).ok());
        self.points.extend(words.map(|word| IpAddr::from(Ipv4Addr::from(word))));
        let wide = value.windows(16).step_by(4).filter_map(|word| <[u8; 16]>::try_from(word).ok());
        self.points.extend(wide.map(|word| IpAddr::from(Ipv6Addr::from(word))));
        if value.len() < 4 {
            self.add_prefix::<4>(value);
        }
        if value.len() < 16 {
            self.add_prefix::<16>(value);
        }
    }

    fn add_prefix<const N: usize>(&mut self, value: &[u8]) {
        let filled = |with: u8| {
            let mut bytes = [with; N];
            bytes.iter_mut().zip(value).for_each(|(byte, known)| *byte = *known);
            number(&bytes)
        };
        let bounds = if N == 4 { &mut self.v4 } else { &mut self.v6 };
        bounds.extend([filled(0), filled(0xff).saturating_add(1)]);
    }

    /// Adds the first address of a range. The value can contain several.
    fn add_first(&mut self, value: &[u8]) {
        self.v4.extend(numbers::<4>(value));
        self.v6.extend(numbers::<16>(value));
    }

    /// Adds the first address after a range that ends with this one.
    fn add_last(&mut self, value: &[u8]) {
        self.v4.extend(numbers::<4>(value).map(|last| last.saturating_add(1)));
        self.v6.extend(numbers::<16>(value).map(|last| last.saturating_add(1)));
    }
}

/// Iterates over the addresses that a value can contain.
fn numbers<const N: usize>(value: &[u8]) -> impl Iterator<Item = u128> + '_ {
    value.windows(N).step_by(4).map(number)
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{FirewallChain, FirewallRule, TableFamily};

    fn distinctions(terms: Vec<Term>) -> Distinctions {
        let rule = FirewallRule { handle: 1, comment: None, terms };
        let chain = FirewallChain {
            family: TableFamily::Ip,
            table: "t".into(),
            name: "c".into(),
            base: None,
            rules: vec![rule],
        };
        Distinctions::of(&Firewall { chains: vec![chain], ..Firewall::default() }, &Host::default())
    }

    fn are_alike(distinctions: &Distinctions, one: &str, other: &str) -> bool {
        let class = |address: &str| distinctions.class(address.parse().expect("an address"));
        class(one) == class(other)
    }

    fn compare(operator: Operator, value: &[u8]) -> Term {
        Term::Compare { register: 1, operator, value: value.to_vec() }
    }

    #[test]
    fn a_single_address_differs_from_all_others() {
        let found = distinctions(vec![compare(Operator::Equal, &[10, 244, 7, 10])]);
        assert!(are_alike(&found, "10.244.6.10", "10.244.8.10"));
        assert!(!are_alike(&found, "10.244.6.10", "10.244.7.10"));
    }

    #[test]
    fn prefixes_and_ranges_have_an_inside() {
        let mask = Term::Mask { from: 1, into: 1, mask: vec![255, 255, 254, 0], invert: vec![0; 4] };
        let range = KeyRange { from: vec![10, 244, 6, 0], to: Some(vec![10, 244, 7, 255]) };
        let member = Term::Member { register: 1, set: vec![range], fields: Vec::new(), not: false };
        for terms in [vec![mask, compare(Operator::Equal, &[10, 244, 6, 0])], vec![member]] {
            let found = distinctions(terms);
            assert!(are_alike(&found, "10.244.6.10", "10.244.7.10"));
            assert!(are_alike(&found, "10.244.9.10", "10.244.8.10"));
            assert!(!are_alike(&found, "10.244.5.10", "10.244.6.10"));
            assert!(!are_alike(&found, "10.244.7.10", "10.244.8.10"));
        }
        let found = distinctions(vec![compare(Operator::Unequal, &[10, 244, 6])]);
        assert!(!are_alike(&found, "10.244.6.10", "10.244.7.10"));
        let found = distinctions(vec![compare(Operator::Equal, &[0xfd, 0, 2, 0x44, 0, 0, 0, 1])]);
        assert!(!are_alike(&found, "fd00:244:0:1::10", "fd00:244:0:2::10"));
        assert!(are_alike(&found, "fd00:244:0:3::10", "fd00:244:0:2::10"));
    }

    #[test]
    fn bytes_in_the_middle_tell_all_addresses_apart() {
        let load = Term::Load { into: 1, part: PacketPart::Header { offset: 18, length: 1 } };
        let found = distinctions(vec![load, compare(Operator::Equal, &[6])]);
        assert!(!are_alike(&found, "10.244.6.10", "10.244.7.10"));
        let load = Term::Load { into: 1, part: PacketPart::Header { offset: 9, length: 1 } };
        let found = distinctions(vec![load, compare(Operator::Equal, &[6])]);
        assert!(are_alike(&found, "10.244.6.10", "10.244.7.10"));
    }

    #[test]
    fn regions_cover_a_prefix_and_have_samples_that_no_rule_names() {
        let range = KeyRange { from: vec![10, 244, 1, 195], to: Some(vec![10, 244, 1, 205]) };
        let member = Term::Member { register: 1, set: vec![range], fields: Vec::new(), not: false };
        let found = distinctions(vec![member, compare(Operator::Equal, &[10, 244, 1, 10])]);
        let regions = found.regions("10.244.1.0/24".parse().expect("a prefix"));
        let texts: Vec<String> = regions.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["10.244.1.0 to 10.244.1.194", "10.244.1.206 to 10.244.1.255", "10.244.1.195 to 10.244.1.205"]
        );
        let sample = |region: usize, usual: &str| {
            let sample = found.sample(&regions[region], usual.parse().expect("an address"));
            sample.expect("a sample").to_string()
        };
        assert_eq!(sample(0, "10.244.1.10"), "10.244.1.1");
        assert_eq!(sample(0, "10.244.1.11"), "10.244.1.11");
        assert_eq!(sample(2, "10.244.1.11"), "10.244.1.196");
        let found = distinctions(vec![compare(Operator::Unequal, &[10, 244, 6])]);
        let regions = found.regions("10.244.4.0/22".parse().expect("a prefix"));
        let texts: Vec<String> = regions.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.244.4.0/23", "10.244.6.0/24", "10.244.7.0/24"]);
        let whole = Distinctions::default().regions("fd00:244::/64".parse().expect("a prefix"));
        assert_eq!(whole.iter().map(ToString::to_string).collect::<Vec<_>>(), ["fd00:244::/64"]);
    }

    #[test]
    fn addresses_of_different_families_differ() {
        let found = Distinctions::of(&Firewall::default(), &Host::default());
        assert!(are_alike(&found, "10.244.6.10", "10.244.7.10"));
        assert!(!are_alike(&found, "10.244.6.10", "fd00:244:0:1::10"));
    }

    #[test]
    fn bits_in_the_middle_tell_all_addresses_apart() {
        let mask = Term::Mask { from: 1, into: 1, mask: vec![0, 0, 0, 255], invert: vec![0; 4] };
        let found = distinctions(vec![mask, compare(Operator::Equal, &[0, 0, 0, 10])]);
        assert!(!are_alike(&found, "10.244.6.10", "10.244.7.10"));
    }
}
