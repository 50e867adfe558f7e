//! Routes in a journal: consecutive routes that differ only in destination and gateway share one description.
//!
//! The journal of an apply is written before its first change, and has a route or a key for every node of the cluster,
//! so it must be small. It is also exact: it contains the encoding of the scope ([`RouteScope::Spread`]), which no other
//! document shows.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{self, Display as _},
    net::Ipv4Addr,
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeStruct as _};

use crate::{
    model::{Family, SysctlKey},
    plan::Touched,
    state::{Route, RouteKey, RouteScope, State, Tables, Unknown},
    text::Untrusted,
};

/// The destination in a shared description.
const PLACEHOLDER: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

/// Objects that can share a description.
trait Packable: Clone + PartialEq + Serialize + for<'de> Deserialize<'de> {
    /// The object without the parts that are written for each one.
    fn description(&self) -> Self;

    /// Returns `true` if the two have the same description.
    fn is_like(&self, other: &Self) -> bool;

    /// Writes the parts that differ, separated by spaces.
    fn write_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Completes a description with what [`Self::write_rest`] wrote.
    fn complete(&self, rest: &str) -> Option<Self>;
}

impl Packable for RouteKey {
    fn description(&self) -> Self {
        Self { destination: PLACEHOLDER, ..*self }
    }

    fn is_like(&self, other: &Self) -> bool {
        Self { destination: other.destination, ..*self } == *other
    }

    fn write_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)
    }

    fn complete(&self, rest: &str) -> Option<Self> {
        Some(Self { destination: rest.parse().ok()?, ..*self })
    }
}

impl Packable for Route {
    fn description(&self) -> Self {
        let mut description = self.clone();
        description.destination = PLACEHOLDER;
        description.next_hop.gateway = None;
        description
    }

    fn is_like(&self, other: &Self) -> bool {
        let Self { destination: _, table, tos, metric, protocol, scope, kind, next_hop, source, mtu, opaque } =
            self;
        (*table, *tos, *metric, *protocol, *scope, *kind, *source, *mtu)
            == (
                other.table,
                other.tos,
                other.metric,
                other.protocol,
                other.scope,
                other.kind,
                other.source,
                other.mtu,
            )
            && next_hop.device == other.next_hop.device
            && next_hop.onlink == other.next_hop.onlink
            && *opaque == other.opaque
    }

    fn write_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)?;
        let Some(gateway) = self.next_hop.gateway else { return Ok(()) };
        write!(f, " {gateway}")?;
        if let RouteScope::Spread(spread) = self.scope { write!(f, " {}", spread.number()) } else { Ok(()) }
    }

    fn complete(&self, rest: &str) -> Option<Self> {
        let mut route = self.clone();
        let mut words = rest.split(' ');
        route.destination = words.next()?.parse().ok()?;
        route.next_hop.gateway = words.next().map(str::parse).transpose().ok()?;
        if let Some(number) = words.next() {
            route.scope = RouteScope::from_spread(number.parse().ok()?);
        }
        words.next().is_none().then_some(route)
    }
}

/// A group of objects with the same description.
struct Group<'a, T>(&'a [T]);

impl<T: Packable> Serialize for Group<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut group = serializer.serialize_struct("Group", 2)?;
        group.serialize_field("like", &self.0.first().map(T::description))?;
        group.serialize_field("each", &Each(self.0))?;
        group.end()
    }
}

/// The parts of the objects that differ.
struct Each<'a, T>(&'a [T]);

impl<T: Packable> Serialize for Each<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Rest))
    }
}

/// The parts of one object that differ.
struct Rest<'a, T>(&'a T);

impl<T: Packable> Serialize for Rest<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<T: Packable> fmt::Display for Rest<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_rest(f)
    }
}

/// A group as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadGroup<T> {
    like: T,
    each: Vec<String>,
}

/// A list of objects as groups, in the same order.
struct Packed<'a, T: Clone>(Cow<'a, [T]>);

impl<T: Packable> Serialize for Packed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.chunk_by(T::is_like).map(Group))
    }
}

impl<'de, T: Packable> Deserialize<'de> for Packed<'_, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let groups = Vec::<ReadGroup<T>>::deserialize(deserializer)?;
        let mut all = Vec::with_capacity(groups.iter().map(|group| group.each.len()).sum());
        for ReadGroup { like, each } in groups {
            for rest in each {
                let complete = like.complete(&rest);
                all.push(complete.ok_or_else(|| D::Error::custom(format_args!("invalid route {rest:?}")))?);
            }
        }
        Ok(Self(Cow::Owned(all)))
    }
}

/// A [`State`] whose routes are packed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PackedState<'a> {
    routes: Packed<'a, Route>,
    nat: Cow<'a, Tables>,
    sysctls: Cow<'a, BTreeMap<SysctlKey, Untrusted>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    unknown: Cow<'a, [Unknown]>,
}

/// [`Touched`] with packed keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PackedTouched<'a> {
    routes: Packed<'a, RouteKey>,
    nat: Cow<'a, [Family]>,
    sysctls: Cow<'a, [SysctlKey]>,
}

/// Packs the keys of a transaction; for `#[serde(with)]`.
pub mod touched {
    use super::*;

    /// Serializes the keys.
    ///
    /// # Errors
    /// Returns the error of the serializer.
    pub fn serialize<S: Serializer>(touched: &Touched, serializer: S) -> Result<S::Ok, S::Error> {
        let Touched { routes, nat, sysctls } = touched;
        let packed = PackedTouched {
            routes: Packed(Cow::Borrowed(routes)),
            nat: Cow::Borrowed(nat),
            sysctls: Cow::Borrowed(sysctls),
        };
        packed.serialize(serializer)
    }

    /// Deserializes the keys.
    ///
    /// # Errors
    /// Returns an error if one is invalid.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Touched, D::Error> {
        let PackedTouched { routes, nat, sysctls } = PackedTouched::deserialize(deserializer)?;
        Ok(Touched { routes: routes.0.into_owned(), nat: nat.into_owned(), sysctls: sysctls.into_owned() })
    }
}

/// Packs the routes of a state; for `#[serde(with)]`.
pub mod state {
    use super::*;

    /// Serializes the state.
    ///
    /// # Errors
    /// Returns the error of the serializer.
    pub fn serialize<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
        let State { routes, nat, sysctls, unknown } = state;
        let packed = PackedState {
            routes: Packed(Cow::Borrowed(routes)),
            nat: Cow::Borrowed(nat),
            sysctls: Cow::Borrowed(sysctls),
            unknown: Cow::Borrowed(unknown),
        };
        packed.serialize(serializer)
    }

    /// Deserializes the state.
    ///
    /// # Errors
    /// Returns an error if a part is invalid.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
        let PackedState { routes, nat, sysctls, unknown } = PackedState::deserialize(deserializer)?;
        Ok(State {
            routes: routes.0.into_owned().into(),
            nat: nat.into_owned(),
            sysctls: sysctls.into_owned(),
            unknown: unknown.into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{NextHop, OpaqueRoute, RouteType, Spread};

    /// Routes of every kind: in both families, with and without a gateway, and with each optional part.
    fn routes() -> Vec<Route> {
        let plain = |destination: &str, gateway: Option<&str>| Route {
            destination: destination.parse().expect("a prefix"),
            table: 254,
            tos: None,
            metric: 0,
            protocol: 87,
            scope: if gateway.is_some() { RouteScope::Global } else { RouteScope::Link },
            kind: RouteType::Unicast,
            next_hop: NextHop {
                gateway: gateway.map(|text| text.parse().expect("an address")),
                device: Some("eth 0\u{202e}".into()),
                onlink: false,
            },
            source: None,
            mtu: None,
            opaque: None,
        };
        let spread = |destination, gateway: &str| Route {
            scope: RouteScope::Spread(Spread::of(gateway.parse().expect("an address"))),
            ..plain(destination, Some(gateway))
        };
        let raw = Box::new(OpaqueRoute {
            attributes: vec!["2 next hops".into()],
            hops: Vec::new(),
            raw: "00ff".to_owned(),
        });
        vec![
            plain("10.0.0.0/8", None),
            spread("10.0.1.0/24", "10.0.1.1"),
            plain("10.0.1.0/24", Some("10.0.1.1")),
            spread("10.0.2.0/24", "10.0.2.1"),
            Route { metric: 5, mtu: Some(1400), ..spread("10.0.2.0/24", "10.0.2.1") },
            Route { opaque: Some(raw.clone()), ..plain("10.0.3.0/24", Some("10.0.3.1")) },
            Route { opaque: Some(raw), ..plain("10.0.3.0/24", None) },
            Route { tos: Some(16), protocol: 4, kind: RouteType::Blackhole, ..plain("0.0.0.0/0", None) },
            Route { scope: RouteScope::Other(201), ..plain("10.0.4.0/24", Some("10.0.4.1")) },
            Route { scope: RouteScope::Global, ..plain("fd00::/64", Some("fd00::1")) },
            Route { source: "fd00::9".parse().ok(), table: 70_000, ..plain("::/0", Some("fe80::1")) },
        ]
    }

    #[test]
    fn every_route_is_restored_exactly() {
        let whole = routes();
        for from in 0..whole.len() {
            for to in from..=whole.len() {
                let routes = &whole[from..to];
                let text = serde_json::to_string(&Packed(Cow::Borrowed(routes))).expect("JSON");
                let read: Packed<'_, Route> = serde_json::from_str(&text).expect(&text);
                assert_eq!(read.0.as_ref(), routes, "{text}");
                let numbers = |routes: &[Route]| -> Vec<u8> {
                    routes.iter().map(|route| route.scope.number()).collect()
                };
                assert_eq!(numbers(&read.0), numbers(routes), "{text}");
                let keys: Vec<_> = routes.iter().map(Route::key).collect();
                let text = serde_json::to_string(&Packed(Cow::Borrowed(&keys[..]))).expect("JSON");
                let read: Packed<'_, RouteKey> = serde_json::from_str(&text).expect(&text);
                assert_eq!(*read.0, *keys, "{text}");
            }
        }
    }

    #[test]
    fn a_damaged_group_is_an_error() {
        let text = serde_json::to_string(&Packed(Cow::Borrowed(&routes()[..2]))).expect("JSON");
        for (whole, damaged) in [
            ("10.0.1.0/24 10.0.1.1", "10.0.1.0/33 10.0.1.1"),
            ("10.0.1.0/24 10.0.1.1", "10.0.1.0/24  10.0.1.1"),
            ("10.0.1.0/24 10.0.1.1", "10.0.1.0/24 10.0.1.1 7 7"),
            ("10.0.1.0/24 10.0.1.1", ""),
        ] {
            assert!(text.contains(whole), "{text}");
            let read = serde_json::from_str::<Packed<'_, Route>>(&text.replace(whole, damaged));
            assert!(read.is_err_and(|error| error.to_string().contains("invalid route")), "{damaged}");
        }
    }
}
