//! The plugins of a CNI configuration, and the addresses that they assign.

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::model::{ConfigPath, OperatingSystem};

/// Returns the entry with this key, ignoring case.
pub(super) fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<(&'a String, &'a Value)> {
    object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))
}

/// A value with its location.
#[derive(Debug, Clone)]
pub(super) struct Placed<'a> {
    pub path: ConfigPath,
    pub value: &'a Value,
}

impl Placed<'_> {
    /// Returns the value in JSON.
    pub fn text(&self) -> String {
        self.value.to_string()
    }
}

/// A plugin. A configuration is a single one or a list (`plugins`), and flannel and multus delegate to others.
#[derive(Debug, Clone)]
pub(super) struct Plugin<'a> {
    pub path: ConfigPath,
    object: &'a Map<String, Value>,
    /// Whether another plugin delegates to this one and completes its configuration.
    pub is_delegate: bool,
}

impl<'a> Plugin<'a> {
    /// Returns all plugins of a configuration, in order.
    pub fn all_of(configuration: &'a Value) -> Vec<Self> {
        let mut plugins = Vec::new();
        Self::collect(configuration, &ConfigPath::root(), false, &mut plugins);
        plugins
    }

    fn collect(value: &'a Value, path: &ConfigPath, is_delegate: bool, plugins: &mut Vec<Self>) {
        let Some(object) = value.as_object() else { return };
        let plugin = Self { path: path.clone(), object, is_delegate };
        // serde_json limits the depth of the recursion.
        for list in ["plugins", "delegates"] {
            let Some(Placed { path, value }) = plugin.entry(list) else { continue };
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                Self::collect(item, &path.index(index), false, plugins);
            }
        }
        if let Some(Placed { path, value }) = plugin.entry("delegate") {
            Self::collect(value, &path, true, plugins);
        }
        plugins.push(plugin);
    }

    /// Returns the entry with this key.
    pub fn entry(&self, key: &str) -> Option<Placed<'a>> {
        entry(self.object, &self.path, key)
    }

    /// Returns `true` if the entry with this key is `true`.
    pub fn is_true(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.value == &Value::Bool(true))
    }

    /// Returns the name of the plugin's program in lowercase, without `.exe`. flannel delegates to bridge by default.
    pub fn kind(&self) -> Option<String> {
        let kind = self.entry("type").and_then(|entry| entry.value.as_str());
        let kind = kind.or(self.is_delegate.then_some("bridge"))?.to_ascii_lowercase();
        Some(kind.strip_suffix(".exe").unwrap_or(&kind).to_owned())
    }

    /// Returns the operating system of the plugin's program, if it is for only one.
    pub fn os(&self) -> Option<OperatingSystem> {
        // The programs of github.com/containernetworking/plugins, of microsoft/windows-container-networking, and of
        // Azure.
        match self.kind()?.as_str() {
            "win-bridge" | "win-overlay" | "sdnbridge" | "sdnoverlay" | "l2bridge" | "nat" => {
                Some(OperatingSystem::Windows)
            }
            "ptp" | "macvlan" | "ipvlan" | "vlan" | "host-device" | "dummy" | "tap" => {
                Some(OperatingSystem::Linux)
            }
            "bridge" if !self.is_delegate || self.entry("type").is_some() => Some(OperatingSystem::Linux),
            _ => None,
        }
    }

    /// Returns the ranges of its `ipam`.
    pub fn ranges(&self) -> Vec<IpamRange<'a>> {
        let Some(ipam) = self.entry("ipam") else { return Vec::new() };
        let Some(object) = ipam.value.as_object() else { return Vec::new() };
        let mut ranges: Vec<_> = IpamRange::parse(object, &ipam.path).into_iter().collect();
        let sets = entry(object, &ipam.path, "ranges");
        for set in sets.iter().flat_map(elements) {
            let members = elements(&set);
            // The plugin refuses an empty set.
            let is_only = members.len() == 1;
            for range in members {
                let Some(parsed) =
                    range.value.as_object().and_then(|object| IpamRange::parse(object, &range.path))
                else {
                    continue;
                };
                let whole = if is_only { &set.path } else { &range.path }.clone();
                ranges.push(IpamRange { whole, ..parsed });
            }
        }
        ranges
    }

    /// Returns the location of one more set of ranges in its `ipam`, and whether the list of sets exists. Each set has the
    /// addresses of one family.
    pub fn next_set(&self) -> Option<(ConfigPath, bool)> {
        let ipam = self.entry("ipam")?;
        let sets = entry(ipam.value.as_object()?, &ipam.path, "ranges");
        let Some(sets) = sets.filter(|sets| sets.value.is_array()) else {
            return Some((ipam.path.key("ranges"), false));
        };
        Some((sets.path.index(elements(&sets).len()), true))
    }

    /// Returns the gateways of its default routes.
    pub fn default_gateways(&self) -> Vec<Placed<'a>> {
        let Some(ipam) = self.entry("ipam") else { return Vec::new() };
        let Some(object) = ipam.value.as_object() else { return Vec::new() };
        let routes = entry(object, &ipam.path, "routes");
        let routes = routes.iter().flat_map(elements);
        let gateway = |route: Placed<'a>| {
            let object = route.value.as_object()?;
            let destination = entry(object, &route.path, "dst").and_then(|dst| prefix(dst.value));
            let is_default = destination.is_none_or(|destination| destination.prefix_len() == 0);
            entry(object, &route.path, "gw").filter(|_| is_default)
        };
        routes.filter_map(gateway).collect()
    }
}

/// A range of addresses that `ipam` assigns.
#[derive(Debug, Clone)]
pub(super) struct IpamRange<'a> {
    /// The location of the range.
    pub at: ConfigPath,
    /// What has to be removed to remove the range.
    pub whole: ConfigPath,
    pub subnet: Placed<'a>,
    pub gateway: Option<Placed<'a>>,
}

impl<'a> IpamRange<'a> {
    fn parse(object: &'a Map<String, Value>, path: &ConfigPath) -> Option<Self> {
        let subnet = entry(object, path, "subnet")?;
        Some(Self {
            at: path.clone(),
            whole: subnet.path.clone(),
            subnet,
            gateway: entry(object, path, "gateway"),
        })
    }

    /// Returns the subnet, if it is a valid prefix.
    pub fn net(&self) -> Option<IpNet> {
        prefix(self.subnet.value)
    }
}

fn entry<'a>(object: &'a Map<String, Value>, path: &ConfigPath, key: &str) -> Option<Placed<'a>> {
    get(object, key).map(|(key, value)| Placed { path: path.key(key), value })
}

/// Returns the elements of a list, and none for other values.
fn elements<'a>(list: &Placed<'a>) -> Vec<Placed<'a>> {
    let items = list.value.as_array().map_or(&[][..], Vec::as_slice).iter().enumerate();
    items.map(|(index, value)| Placed { path: list.path.index(index), value }).collect()
}

fn prefix(value: &Value) -> Option<IpNet> {
    value.as_str()?.trim().parse().ok()
}
