//! Determines the cluster prefix, which the Kubernetes API does not expose.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{annotations::ServerArguments, survey::Survey};
use crate::{
    diagnose::{Diagnostic, Rule},
    model::{Family, common_prefix},
    text::{Untrusted, list, shortened},
};

/// The default of `--cluster-cidr` of k3s and RKE2.
const K3S_DEFAULT: &str = "10.42.0.0/16";

/// The private blocks (RFC 1918, RFC 6598, RFC 4193). A cluster prefix that reaches beyond the block of its pod CIDRs would
/// contain addresses of other networks.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

const REMEDY: &str = "pass --cluster-prefix with the value of kube-controller-manager's --cluster-cidr \
                      (kubeadm: podSubnet)";

/// The cluster prefix, and where it comes from.
#[derive(Debug)]
pub(super) struct ClusterPrefix {
    pub prefixes: Vec<IpNet>,
    pub origin: PrefixOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrefixOrigin {
    /// The command line.
    Given,
    /// `--cluster-cidr` of this distribution.
    Server(&'static str),
    /// The default of this distribution.
    ServerDefault(&'static str),
    /// The pod CIDRs.
    Computed,
}

impl ClusterPrefix {
    /// Determines the cluster prefix: the given one, or that of k3s or RKE2, or the smallest that contains all pod CIDRs.
    ///
    /// # Errors
    /// Returns why it cannot be determined.
    pub fn find(survey: &Survey, given: &[IpNet]) -> Result<Self, Diagnostic> {
        if !given.is_empty() {
            return Ok(Self { prefixes: given.to_vec(), origin: PrefixOrigin::Given });
        }
        if let Some(found) = Self::of_server(survey)? {
            return Ok(found);
        }
        let prefixes =
            Family::ALL.into_iter().filter_map(|family| cover(survey, family)).collect::<Result<_, _>>()?;
        Ok(Self { prefixes, origin: PrefixOrigin::Computed })
    }

    /// The families of the prefixes.
    pub fn families(&self) -> Vec<Family> {
        self.prefixes.iter().map(|prefix| Family::from(*prefix)).collect()
    }

    /// The warning about a computed prefix.
    pub fn warning(&self) -> Option<Diagnostic> {
        (self.origin == PrefixOrigin::Computed).then(|| {
            let message = format!(
                "clusterPrefix is computed as {}, the smallest that contains all pod CIDRs; the next node may not fit, and \
                 changing it later changes NAT on every node",
                list(&self.prefixes, 2)
            );
            Diagnostic::new(Rule::ClusterPrefixComputed, message).with_remedy(REMEDY)
        })
    }

    /// Returns the cluster CIDRs in the arguments of the k3s or RKE2 servers.
    fn of_server(survey: &Survey) -> Result<Option<Self>, Diagnostic> {
        let servers: Vec<&ServerArguments> =
            survey.listed.iter().filter_map(|node| node.hints.server.as_ref()).collect();
        let Some(first) = servers.first() else { return Ok(None) };
        let name = first.distribution;
        let values: BTreeSet<&Vec<String>> =
            servers.iter().map(|server| &server.cluster_cidrs).filter(|values| !values.is_empty()).collect();
        let mut values = values.into_iter();
        let used = |prefix: &IpNet| {
            survey
                .nodes
                .iter()
                .flat_map(|node| &node.pod_cidrs)
                .any(|cidr| Family::from(*cidr) == Family::from(*prefix))
        };
        match (values.next(), values.next()) {
            (Some(one), None) => {
                let parsed: Result<Vec<IpNet>, _> = one.iter().map(|text| text.parse::<IpNet>()).collect();
                let mut prefixes: Vec<IpNet> = match parsed {
                    Ok(prefixes) => prefixes.iter().map(IpNet::trunc).filter(used).collect(),
                    Err(_) => {
                        let text: Untrusted = shortened(&one.join(",")).into();
                        let message =
                            format!("{name} was started with --cluster-cidr {text}, which is not a prefix");
                        return Err(unknown(message));
                    }
                };
                prefixes.sort();
                prefixes.dedup();
                Ok((!prefixes.is_empty()).then_some(Self { prefixes, origin: PrefixOrigin::Server(name) }))
            }
            (Some(one), Some(other)) => {
                let [one, other] = [one, other].map(|value| Untrusted::from(shortened(&value.join(","))));
                Err(unknown(format!(
                    "the {name} servers were started with different values of --cluster-cidr: {one} and {other}"
                )))
            }
            (None, _) => {
                let Ok(default) = K3S_DEFAULT.parse::<IpNet>() else { return Ok(None) };
                let mut cidrs = survey.nodes.iter().flat_map(|node| &node.pod_cidrs);
                let fits = cidrs.all(|cidr| default.contains(cidr));
                Ok(fits
                    .then_some(Self { prefixes: vec![default], origin: PrefixOrigin::ServerDefault(name) }))
            }
        }
    }
}

fn unknown(message: String) -> Diagnostic {
    Diagnostic::new(Rule::ClusterPrefixUnknown, message).with_remedy(REMEDY)
}

/// The private block that contains a prefix.
pub(super) fn private_block(prefix: IpNet) -> Option<IpNet> {
    let blocks = PRIVATE.iter().filter_map(|block| block.parse::<IpNet>().ok());
    blocks.into_iter().find(|block| block.contains(&prefix))
}

/// The smallest prefix that contains all pod CIDRs of a family; `None` if there are none.
fn cover(survey: &Survey, family: Family) -> Option<Result<IpNet, Diagnostic>> {
    let cidrs = || {
        let all = survey.nodes.iter().flat_map(|node| &node.pod_cidrs);
        all.copied().filter(move |cidr| Family::from(*cidr) == family)
    };
    let cover = common_prefix(cidrs())?;
    let blocks = PRIVATE.iter().filter_map(|block| block.parse::<IpNet>().ok());
    for block in blocks {
        if let Some(cidr) = cidrs().find(|cidr| block.contains(cidr) && !block.contains(&cover)) {
            let message = format!(
                "the smallest prefix that contains all {family} pod CIDRs, {cover}, is larger than the private block {block}, which contains {cidr}"
            );
            return Some(Err(unknown(message)));
        }
    }
    let mut machines = survey.listed.iter().flat_map(|node| {
        node.internal.iter().chain(&node.other_addresses).map(move |address| (&node.name, *address))
    });
    if let Some((name, address)) = machines.find(|(_, address)| cover.contains(address)) {
        let message = format!(
            "the smallest prefix that contains all {family} pod CIDRs, {cover}, also contains {address}, an address of node {name}"
        );
        return Some(Err(unknown(message)));
    }
    Some(Ok(cover))
}
