//! Paths to values in a configuration, such as `nodes[3].podCIDR`.

use std::{borrow::Cow, fmt};

/// A segment of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// A key of a mapping.
    Key(Cow<'static, str>),
    /// An index in a list, from 0.
    Index(usize),
}

/// A path from the root of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigPath(Vec<Segment>);

impl ConfigPath {
    /// Returns the path of the whole file.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Returns the path of `key` in this mapping.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.with(Segment::Key(Cow::Owned(key.into())))
    }

    /// Returns the path of a key that hostgw itself defines, which is not copied.
    #[must_use]
    pub fn known_key(&self, key: &'static str) -> Self {
        self.with(Segment::Key(Cow::Borrowed(key)))
    }

    /// Returns the path of the element at `index` of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// Returns the path in the whole file of a path in a part of it, whose nodes have these `indexes` there.
    #[must_use]
    pub fn with_nodes(mut self, indexes: &[usize]) -> Self {
        if let [Segment::Key(key), Segment::Index(index), ..] = &mut self.0[..]
            && key == "nodes"
            && let Some(whole) = indexes.get(*index)
        {
            *index = *whole;
        }
        self
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        Self(segments)
    }

    /// Returns the segments from the root.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if key.contains('.') => write!(f, "[{key:?}]")?,
                Segment::Key(key) if at == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ConfigPath;

    #[test]
    fn paths_print_as_users_would_write_them() {
        let path = ConfigPath::root().key("nodes").index(3).key("podCIDR");
        assert_eq!(path.to_string(), "nodes[3].podCIDR");
        let path = ConfigPath::root().key("sysctls").key("net.ipv4.ip_forward");
        assert_eq!(path.to_string(), "sysctls[\"net.ipv4.ip_forward\"]");
    }
}
