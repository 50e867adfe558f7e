//! Lists of routes that share their memory.

use std::{borrow::Cow, fmt, ops::Deref, ops::Range, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Route;

/// A list of routes. A clone and a part share the memory of the whole list, so that a plan, which refers to the routes of
/// two states, takes little memory of its own.
#[derive(Clone, Default)]
pub struct RouteList {
    /// The whole list; `None` if it is empty.
    all: Option<Arc<Vec<Route>>>,
    // Indexes in the whole list.
    start: u32,
    end: u32,
}

impl RouteList {
    /// Returns the routes with these indexes.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        if range.is_empty() {
            return Self::default();
        }
        let index = |at: usize| self.start.saturating_add(short(at)).min(self.end);
        Self { all: self.all.clone(), start: index(range.start), end: index(range.end) }
    }
}

/// A node has far fewer routes than this type has values.
fn short(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Deref for RouteList {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        let all = self.all.as_ref().and_then(|all| all.get(self.start as usize..self.end as usize));
        all.unwrap_or_default()
    }
}

impl From<Vec<Route>> for RouteList {
    fn from(routes: Vec<Route>) -> Self {
        let end = short(routes.len());
        Self { all: (end > 0).then(|| Arc::new(routes)), start: 0, end }
    }
}

impl FromIterator<Route> for RouteList {
    fn from_iter<I: IntoIterator<Item = Route>>(routes: I) -> Self {
        Vec::from_iter(routes).into()
    }
}

impl<'a> IntoIterator for &'a RouteList {
    type Item = &'a Route;
    type IntoIter = std::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for RouteList {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for RouteList {}

impl fmt::Debug for RouteList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Serialize for RouteList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RouteList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

/// The schema is that of a list.
impl JsonSchema for RouteList {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Vec::<Route>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<Route>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(count: u8) -> Vec<Route> {
        let route = |third| {
            serde_json::from_value(serde_json::json!({
                "destination": format!("10.244.{third}.0/24"), "table": 254, "metric": 0, "protocol": 87,
                "scope": "global", "type": "unicast", "nextHop": {},
            }))
            .expect("a route")
        };
        (0..count).map(route).collect()
    }

    #[test]
    fn a_part_is_like_a_copy_of_it() {
        let copy = routes(5);
        let list = RouteList::from(copy.clone());
        for start in 0..=5 {
            for end in start..=5 {
                let part = list.part(start..end);
                assert_eq!(*part, copy[start..end]);
                assert_eq!(part, RouteList::from(copy[start..end].to_vec()));
                let inner = part.part(0..1.min(end - start));
                assert_eq!(*inner, copy[start..end.min(start + 1)]);
            }
        }
        assert!(list.part(7..9).is_empty());
        assert_eq!(list.part(3..9).len(), 2);
        assert!(RouteList::default().part(0..1).is_empty());
    }

    #[test]
    fn a_list_is_stored_as_an_array() {
        let list = RouteList::from(routes(2));
        let text = serde_json::to_string(&list).expect("JSON");
        assert_eq!(text, serde_json::to_string(&routes(2)).expect("JSON"));
        assert_eq!(serde_json::from_str::<RouteList>(&text).expect("a list"), list);
    }
}
