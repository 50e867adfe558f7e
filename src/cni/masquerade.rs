//! Checks that the `OutBoundNAT` policies of a Windows node keep the source address of traffic inside the cluster.
//!
//! On Linux, hostgw masquerades traffic that leaves the cluster. On Windows, the CNI does so with an `OutBoundNAT`
//! policy: all destinations except those listed see the node's address, including other pods. The syntax of the
//! exceptions depends on the interface of the Host Networking Service that the plugin uses:
//!
//! | interface | `apiVersion` | exceptions |
//! |---|---|---|
//! | HNS, version 1 | 1 | `Value.ExceptionList` |
//! | HCN, version 2 | 2 | `Value.Settings.Exceptions` |
//!
//! Without an `apiVersion`, either syntax is accepted.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::plugin::get;
use crate::model::{Cluster, ConfigPath, Family};

/// A policy that masquerades, and its exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundNatPolicy {
    /// The location of its exceptions, or the one where they are missing.
    pub path: ConfigPath,
    /// The location of the policy.
    pub at: ConfigPath,
    /// The exceptions as written.
    pub exceptions: Vec<String>,
    /// The exceptions that are neither a prefix nor an address.
    pub invalid: Vec<String>,
    /// The missing exceptions.
    pub missing: Vec<IpNet>,
    /// The key of exceptions that the plugin ignores because of its `apiVersion`.
    pub ignored_key: Option<&'static str>,
}

impl OutboundNatPolicy {
    /// Returns `true` if it has the required exceptions, and all are valid.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.invalid.is_empty()
    }
}

/// The result of checking the masquerading in a CNI configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasqueradeReport {
    /// The `OutBoundNAT` policies, in the order of the file.
    pub policies: Vec<OutboundNatPolicy>,
    /// The required exceptions; empty if nothing is masqueraded.
    pub expected: Vec<IpNet>,
    /// Whether traffic should be masqueraded at all.
    pub masquerade: bool,
}

impl MasqueradeReport {
    /// Returns `true` if the CNI masquerades as configured for the cluster.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.policies.is_empty() != self.masquerade
            && self.policies.iter().all(OutboundNatPolicy::is_complete)
    }
}

/// The key of exceptions in HNS.
const HNS_KEY: &str = "ExceptionList";

/// The key of exceptions in HCN, under `Settings`.
const HCN_KEY: &str = "Exceptions";

/// Finds the `OutBoundNAT` policies anywhere in a CNI configuration and compares their exceptions with the cluster
/// prefixes and `nat.exclude` of `cluster`.
#[must_use]
pub fn masquerade(configuration: &Value, cluster: &Cluster) -> MasqueradeReport {
    let masquerade = cluster.nat.masquerade;
    let prefixes = cluster.prefixes.iter().copied();
    let expected: Vec<IpNet> =
        if masquerade { prefixes.chain(cluster.nat.exclude.iter().copied()).collect() } else { Vec::new() };
    let mut search = Search { expected: &expected, policies: Vec::new() };
    search.walk(configuration, &ConfigPath::root(), None);
    MasqueradeReport { policies: search.policies, expected, masquerade }
}

struct Search<'a> {
    expected: &'a [IpNet],
    policies: Vec<OutboundNatPolicy>,
}

impl Search<'_> {
    /// Searches `value`; `version` is the inherited `apiVersion`.
    fn walk(&mut self, value: &Value, path: &ConfigPath, version: Option<u64>) {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.walk(item, &path.index(index), version);
                }
            }
            Value::Object(object) => {
                let version = get(object, "apiVersion").and_then(|(_, value)| value.as_u64()).or(version);
                let kind = get(object, "type").and_then(|(_, value)| value.as_str());
                if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("OutBoundNAT")) {
                    let policy = self.policy(object, path, version);
                    self.policies.push(policy);
                    return;
                }
                for (key, value) in object {
                    self.walk(value, &path.key(key), version);
                }
            }
            _ => {}
        }
    }

    fn policy(
        &self,
        object: &Map<String, Value>,
        path: &ConfigPath,
        version: Option<u64>,
    ) -> OutboundNatPolicy {
        let list = get(object, HNS_KEY).map(|(key, value)| (path.key(key), value));
        let settings =
            get(object, "Settings").and_then(|(key, value)| Some((path.key(key), value.as_object()?)));
        let exceptions = settings
            .as_ref()
            .and_then(|(path, settings)| get(settings, HCN_KEY).map(|(key, value)| (path.key(key), value)));
        let below_settings = || match &settings {
            Some((path, _)) => path.key(HCN_KEY),
            None => path.key("Settings").key(HCN_KEY),
        };
        let (read, fallback, ignored_key) = match version {
            Some(2) => (exceptions, below_settings(), list.is_some().then_some(HNS_KEY)),
            Some(_) => {
                let other = exceptions.is_some().then_some("Settings.Exceptions");
                (list, path.key(HNS_KEY), other)
            }
            None if settings.is_some() => (exceptions.or(list), below_settings(), None),
            None => (list, path.key(HNS_KEY), None),
        };
        let (path_of_list, values) = read.unwrap_or((fallback, &Value::Null));
        let exceptions: Vec<String> = values
            .as_array()
            .into_iter()
            .flatten()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
            .collect();
        let (valid, invalid): (Vec<_>, Vec<_>) = exceptions.iter().partition(|text| prefix(text).is_some());
        let present: Vec<IpNet> = valid.into_iter().filter_map(|text| prefix(text)).collect();
        OutboundNatPolicy {
            path: path_of_list,
            at: path.clone(),
            missing: self.expected.iter().copied().filter(|expected| !covers(&present, *expected)).collect(),
            invalid: invalid.into_iter().cloned().collect(),
            ignored_key,
            exceptions,
        }
    }
}

/// Parses a prefix or a single address.
fn prefix(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse::<IpNet>().ok().map(|net| net.trunc()).or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Returns `true` if the prefixes in `present` together contain all of `expected`.
fn covers(present: &[IpNet], expected: IpNet) -> bool {
    if present.iter().any(|net| net.contains(&expected)) {
        return true;
    }
    let inside: Vec<IpNet> = present.iter().copied().filter(|net| expected.contains(net)).collect();
    let is_host = expected.prefix_len() == Family::from(expected).bits();
    let Some(halves) =
        (!is_host && !inside.is_empty()).then(|| expected.subnets(expected.prefix_len() + 1).ok()).flatten()
    else {
        return false;
    };
    let mut halves = halves;
    halves.all(|half| covers(&inside, half))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::{self, Document, Format};

    fn cluster(head: &str) -> Cluster {
        let text = format!(
            "clusterPrefix: [10.244.0.0/16, 'fd00:244::/48']\negressInterface: eth0\n{head}\nnodes:\n  - {{name: a, os: \
             linux, podCIDR: 10.244.0.0/24}}\n"
        );
        config::load(&Document::new("test", text, Format::Yaml))
            .unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
    }

    /// Returns the missing exceptions of the only policy.
    fn missing(configuration: &Value) -> Vec<String> {
        let finding = masquerade(configuration, &cluster(""));
        assert_eq!(finding.policies.len(), 1, "{configuration}");
        finding.policies[0].missing.iter().map(ToString::to_string).collect()
    }

    fn hns(exceptions: &[&str]) -> Value {
        json!({ "delegate": { "policies": [
            { "Name": "EndpointPolicy", "Value": { "Type": "ROUTE" } },
            { "Name": "EndpointPolicy", "Value": { "Type": "OutBoundNAT", "ExceptionList": exceptions } },
        ] } })
    }

    #[test]
    fn both_spellings_are_accepted_in_any_case() {
        let all = ["10.0.0.0/8", "fd00::/16"];
        assert!(missing(&hns(&all)).is_empty());
        assert_eq!(missing(&hns(&["10.244.0.0/16"])), ["fd00:244::/48"]);
        let hcn = |key: &str| {
            json!({ "plugins": [{ "APIVERSION": 2, "policies": [
            { "name": "EndpointPolicy", "value": { "type": "outboundnat", "settings": { key: all } } } ] }] })
        };
        assert!(missing(&hcn("exceptions")).is_empty());
        assert!(missing(&hcn("Exceptions")).is_empty());
        assert_eq!(missing(&hcn("exemptions")), ["10.244.0.0/16", "fd00:244::/48"]);
    }

    #[test]
    fn the_api_version_determines_the_spelling() {
        let mut configuration = hns(&["10.244.0.0/16", "fd00:244::/48"]);
        configuration["delegate"]["apiVersion"] = json!(2);
        let finding = masquerade(&configuration, &cluster(""));
        assert_eq!(finding.policies[0].ignored_key, Some("ExceptionList"));
        assert_eq!(finding.policies[0].missing.len(), 2);
        assert_eq!(finding.policies[0].path.to_string(), "delegate.policies[1].Value.Settings.Exceptions");
        configuration["delegate"]["apiVersion"] = json!(1);
        assert!(masquerade(&configuration, &cluster("")).fits());
    }

    #[test]
    fn halves_and_addresses_are_combined() {
        let halves = ["10.244.0.0/17", "10.244.128.0/17", "fd00:244::/48"];
        assert!(missing(&hns(&halves)).is_empty());
        assert_eq!(missing(&hns(&halves[1..])), ["10.244.0.0/16"]);
        let finding = masquerade(&hns(&["10.244.0.0", "10.244.0.0/33", "x"]), &cluster(""));
        assert_eq!(finding.policies[0].invalid, ["10.244.0.0/33", "x"]);
    }

    #[test]
    fn exclusions_are_required_and_policies_without_masquerading_rejected() {
        let all = ["10.244.0.0/16", "fd00:244::/48"];
        let excluded = cluster("nat: {exclude: [192.168.0.0/16]}");
        assert_eq!(
            masquerade(&hns(&all), &excluded).policies[0].missing,
            ["192.168.0.0/16".parse().unwrap()]
        );
        let off = cluster("nat: {masquerade: false}");
        assert!(!masquerade(&hns(&all), &off).fits());
        assert!(masquerade(&json!({}), &off).fits());
        assert!(!masquerade(&json!({ "policies": [] }), &cluster("")).fits());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Any partition of the prefix contains all of it, but not with one part missing.
        #[test]
        fn partitions_cover_the_prefix(cuts in prop::collection::vec(any::<bool>(), 0..40), left_out in any::<prop::sample::Index>()) {
            let mut parts: Vec<IpNet> = vec!["10.244.0.0/16".parse().unwrap()];
            for cut in cuts {
                let part = parts.remove(0);
                match part.subnets(part.prefix_len() + 1) {
                    Ok(halves) if cut => parts.extend(halves),
                    _ => parts.push(part),
                }
            }
            let expected = "10.244.0.0/16".parse().unwrap();
            prop_assert!(covers(&parts, expected));
            parts.remove(left_out.index(parts.len()));
            prop_assert!(!covers(&parts, expected));
        }

        /// Adding the missing exceptions is sufficient.
        #[test]
        fn adding_the_missing_exceptions_is_sufficient(present in prop::collection::vec(0_u8..=255, 0..4)) {
            let present: Vec<String> = present.iter().map(|part| format!("10.244.{part}.0/24")).collect();
            let present: Vec<&str> = present.iter().map(String::as_str).collect();
            let missing = missing(&hns(&present));
            let all: Vec<&str> = present.into_iter().chain(missing.iter().map(String::as_str)).collect();
            prop_assert!(masquerade(&hns(&all), &cluster("")).fits());
        }
    }
}
