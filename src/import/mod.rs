//! Describes the nodes of a Kubernetes cluster, as its API lists them, in a configuration.
//!
//! [`import`] writes a new configuration, and [`import_live`] one from the routes of a node. [`update`] edits an existing one by position, so that comments, the order of nodes
//! and all other keys stay as they are. Both parse and validate their result, and return nothing else.
//!
//! | file | purpose |
//! |---|---|
//! | `list` | reads the output of kubectl: JSON or YAML, lists or single nodes |
//! | `node` | reads one node |
//! | `annotations` | reads the annotations of distributions and network plugins |
//! | `live` | describes a node that another program set up |
//! | `natural` | the order of names |
//! | `networks` | chooses one of several addresses, and finds addresses of other networks |
//! | `survey` | the nodes of the cluster, and the warnings about them |
//! | `prefix` | determines the cluster prefix |
//! | `syntax` | writes values in YAML and TOML |
//! | `write` | writes a new configuration |
//! | `changes` | compares a configuration with the list |
//! | `edit` | edits the text of a configuration |
//!
//! The order of the list, and of the addresses of a node, never matters.

mod annotations;
mod changes;
mod edit;
mod list;
mod live;
mod natural;
mod networks;
mod node;
mod prefix;
mod survey;
mod syntax;
mod write;

use ipnet::IpNet;
use serde_json::Value as Json;

pub use changes::{KeyChange, NodeChange, NodeChangeKind};
pub use list::{NodeList, is_json};
pub use live::{IptablesDump, Leftover, LeftoverKind, LiveImport, LiveOptions, LiveSources, import_live};
pub use natural::natural_order;

use crate::{
    config::{self, Document, Format, InvalidConfig, Loaded},
    diagnose::{Diagnostic, Rule},
    model::{Cluster, Family, NextHopMode, OperatingSystem},
    text::{count, list as list_of},
};
use changes::ChangeSet;
use node::ImportedNode;
use prefix::ClusterPrefix;
use survey::{HOST_GW, Relevance, Survey, names};
use write::{Egress, Head, NextHopChoice};

/// The egress interface of a configuration that has to name one. It is the first interface of most machines and
/// containers whose interfaces have no predictable names.
const USUAL_INTERFACE: &str = "eth0";

/// The options for a new configuration.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The language to write.
    pub format: Format,
    /// The cluster prefixes; none to determine them.
    pub cluster_prefixes: Vec<IpNet>,
    /// The egress interface of Linux nodes.
    pub egress_interface: Option<String>,
    /// The next hop.
    pub next_hop: Option<NextHopMode>,
    /// Whether to include nodes without pods.
    pub all: bool,
    /// Whether every node must have a pod CIDR.
    pub strict: bool,
}

/// A new configuration.
#[derive(Debug)]
pub struct Imported {
    /// The valid configuration.
    pub text: String,
    /// The number of its nodes.
    pub nodes: usize,
    /// The warnings.
    pub findings: Vec<Diagnostic>,
}

/// The options for an update.
#[derive(Debug, Clone, Default)]
pub struct UpdateOptions {
    /// Whether to add nodes without pods.
    pub all: bool,
    /// Whether every node must have a pod CIDR.
    pub strict: bool,
    /// Whether to keep nodes that are not in the list.
    pub keep_missing: bool,
    /// The egress interface of new Linux nodes.
    pub egress_interface: Option<String>,
}

/// An updated configuration.
#[derive(Debug)]
pub struct Updated {
    /// The valid configuration, without a byte order mark.
    pub text: String,
    /// The changes to nodes, in natural order; empty if the text is unchanged.
    pub changes: Vec<NodeChange>,
    /// The number of nodes in the configuration before.
    pub nodes_before: usize,
    /// How many of them an update could remove: all but those whose `podCIDR` is `none`.
    pub removable: usize,
    /// The number of nodes in the configuration now.
    pub nodes: usize,
    /// The warnings.
    pub findings: Vec<Diagnostic>,
}

/// Writes a configuration with the nodes of a list.
///
/// # Errors
/// Returns every reason why the list does not describe a valid configuration.
pub fn import(list: NodeList, options: &ImportOptions) -> Result<Imported, Vec<Diagnostic>> {
    let mut survey = Survey::new(list)?;
    strict(&survey, options.strict)?;
    if survey.nodes.is_empty() {
        return Err(vec![no_pod_cidrs(&survey)]);
    }
    let prefix = ClusterPrefix::find(&survey, &options.cluster_prefixes).map_err(|error| vec![error])?;
    survey.restrict(&prefix.families());
    if survey.nodes.is_empty() {
        return Err(vec![other_family(&prefix)]);
    }
    survey.examine(|_| Relevance::New);
    if options.all {
        let without_pods = std::mem::take(&mut survey.without_pods);
        survey.nodes.extend(without_pods);
        survey.nodes.sort_by(|one, other| natural_order(one.name.as_raw(), other.name.as_raw()));
    }
    left_out(&mut survey, |_| true);
    survey.findings.extend(prefix.warning());
    let next_hop = options.next_hop.map_or_else(|| next_hop(&survey), NextHopChoice::Given);
    let egress = options.egress_interface.clone().map_or(Egress::LeftOut, Egress::Given);
    let mut head = Head { prefix, egress, next_hop, has_all: options.all };
    let mut written = validated(&head, &survey.nodes, options.format);
    if let (Err(invalid), Egress::LeftOut) = (&written, &head.egress)
        && invalid.errors().iter().any(|error| error.rule == Rule::NoEgressInterface)
    {
        head.egress = Egress::Assumed(USUAL_INTERFACE);
        written = validated(&head, &survey.nodes, options.format);
        survey.findings.push(egress_assumed());
    }
    let (text, cluster) = written.map_err(|invalid| problems(&invalid, false))?;
    survey.findings.extend(config::warnings(&cluster));
    Ok(Imported { text, nodes: survey.nodes.len(), findings: survey.findings })
}

/// Writes and validates a configuration.
fn validated(
    head: &Head,
    nodes: &[ImportedNode],
    format: Format,
) -> Result<(String, Cluster), InvalidConfig> {
    let text = write::configuration(head, nodes, format);
    let document = Document::new("the imported configuration", text, format);
    let cluster = config::load(&document)?;
    Ok((document.text().to_owned(), cluster))
}

/// Returns the errors in a configuration that exists only in memory, so without their positions.
fn problems(invalid: &InvalidConfig, is_update: bool) -> Vec<Diagnostic> {
    let finding = |error: &config::ConfigError| {
        let remedy = match error.rule {
            Rule::MissingAddress => Some(
                "hostgw only uses addresses of type InternalIP: set one with kubelet's --node-ip, then import again"
                    .to_owned(),
            ),
            Rule::NoEgressInterface if is_update => {
                Some("pass --egress-interface NAME for the new nodes".to_owned())
            }
            Rule::CidrOutsideCluster if is_update => Some(
                "change clusterPrefix in the file first; this changes NAT on every node, so review it on its own"
                    .to_owned(),
            ),
            Rule::DuplicateAddress if is_update => Some(
                "if one of the two machines has left, remove it from the file; otherwise, kubelet chose an address that both have: \
                 set --node-ip on these nodes, then import again"
                    .to_owned(),
            ),
            Rule::DuplicateAddress => Some(
                "kubelet chose an address that several machines have: set --node-ip on these nodes, then import again"
                    .to_owned(),
            ),
            Rule::CidrOutsideCluster => Some("check the cluster prefix, and pass the right one with --cluster-prefix".to_owned()),
            _ => error.hint.clone(),
        };
        Diagnostic::new(error.rule, error.message.clone()).with_remedy_if(remedy)
    };
    invalid.errors().iter().map(finding).collect()
}

/// Without flannel, hostgw's own default, unless it cannot work.
fn next_hop(survey: &Survey) -> NextHopChoice {
    let mut backends = survey
        .listed
        .iter()
        .filter_map(|node| node.hints.flannel.as_ref())
        .map(|flannel| flannel.backend == HOST_GW)
        .peekable();
    if backends.peek().is_some() && backends.all(|is_host_gw| is_host_gw) {
        return NextHopChoice::Flannel;
    }
    let has_ipv6 = |node: &&ImportedNode| node.pod_cidrs.iter().any(|cidr| Family::from(*cidr) == Family::V6);
    let linux = |node: &&ImportedNode| node.os == OperatingSystem::Linux;
    let needs_addresses = survey.nodes.iter().filter(linux).any(|node| has_ipv6(&node));
    if needs_addresses && survey.nodes.iter().all(has_next_hops) {
        NextHopChoice::Ipv6
    } else {
        NextHopChoice::Default
    }
}

/// Returns whether a node has an address for each family of its pod CIDRs.
fn has_next_hops(node: &ImportedNode) -> bool {
    let has_address = |family: Family| node.addresses.iter().any(|address| Family::from(*address) == family);
    node.pod_cidrs.iter().all(|cidr| has_address((*cidr).into()))
}

fn egress_assumed() -> Diagnostic {
    let message = format!(
        "the Kubernetes API does not say which interface connects the nodes; assuming {USUAL_INTERFACE}"
    );
    Diagnostic::new(Rule::EgressAssumed, message).with_remedy(
        "pass --egress-interface NAME; on a node, `ip route get ADDRESS-OF-ANOTHER-NODE` shows the name after `dev`",
    )
}

/// Returns an error if a node has no pod CIDR, with `--strict`.
fn strict(survey: &Survey, is_strict: bool) -> Result<(), Vec<Diagnostic>> {
    if !is_strict || survey.without_pods.is_empty() {
        return Ok(());
    }
    let without = &survey.without_pods;
    let verb = if without.len() == 1 { "has" } else { "have" };
    let message = format!(
        "{} {verb} no pod CIDR: {}",
        count(without.len(), "node"),
        names(without.iter().map(|node| &node.name))
    );
    let remedy =
        "wait until kube-controller-manager assigns one, or remove --strict to leave out nodes without one";
    Err(vec![Diagnostic::new(Rule::NoPodCidrs, message).with_remedy(remedy)])
}

fn no_pod_cidrs(survey: &Survey) -> Diagnostic {
    let number = survey.without_pods.len();
    let message = match &survey.without_pods[..] {
        [one] => format!("node {} has no pod CIDR", one.name),
        _ => format!("none of the {} has a pod CIDR", count(number, "node")),
    };
    Diagnostic::new(Rule::NoPodCidrs, message).with_remedy(
        "kube-controller-manager assigns them with --allocate-node-cidrs; if the network plugin assigns them instead, \
         write each node's `podCIDR` by hand",
    )
}

fn other_family(prefix: &ClusterPrefix) -> Diagnostic {
    let prefixes = list_of(&prefix.prefixes, 2);
    let message = format!("no node has a pod CIDR of the address family of the cluster prefix {prefixes}");
    Diagnostic::new(Rule::NoPodCidrs, message)
        .with_remedy("pass the cluster prefix of the pods with --cluster-prefix")
}

fn other_cluster(document: &Document) -> Diagnostic {
    let message = format!(
        "the list has none of the nodes of {}, and no other node with a pod CIDR: no node would be left",
        document.name()
    );
    Diagnostic::new(Rule::NoPodCidrs, message).with_remedy("check that kubectl used the right cluster")
}

/// Warns of nodes that are left out.
fn left_out(survey: &mut Survey, is_left_out: impl Fn(&ImportedNode) -> bool) {
    let without: Vec<_> =
        survey.without_pods.iter().filter(|node| is_left_out(node)).map(|node| &node.name).collect();
    if without.is_empty() {
        return;
    }
    let (number, verb) = (without.len(), if without.len() == 1 { "has" } else { "have" });
    let message = format!(
        "{} {verb} no pod CIDR and {verb_out} left out: {}",
        count(number, "node"),
        names(without),
        verb_out = if number == 1 { "is" } else { "are" }
    );
    survey.findings.push(Diagnostic::new(Rule::NodeWithoutPodCidr, message).with_remedy(
        "a node that runs pods needs one: check kube-controller-manager (--allocate-node-cidrs, --cluster-cidr); \
         for machines without pods, pass --all",
    ));
}

/// Updates the nodes of a configuration to those of a list. A node whose `podCIDR` is `none`, which the API does not know,
/// is never removed.
///
/// # Errors
/// Returns every reason why the text cannot be edited, or why it would not be valid.
pub fn update(
    Loaded { document, .. }: &Loaded,
    list: NodeList,
    options: &UpdateOptions,
) -> Result<Updated, Vec<Diagnostic>> {
    let before = document
        .json()
        .ok_or_else(|| vec![edit::not_editable(document, "it is not valid YAML, TOML or JSON")])?;
    let mut survey = Survey::new(list)?;
    strict(&survey, options.strict)?;
    survey.restrict(&prefix_families(&before));
    let set = ChangeSet::new(&before, &survey, options);
    survey.examine(|name| set.relevance(name));
    left_out(&mut survey, |node| !options.all && !set.keeps(&node.name));
    set.contradictions(&survey.without_pods).into_iter().for_each(|finding| survey.findings.push(finding));
    if set.nodes_after() == 0 {
        return Err(vec![other_cluster(document)]);
    }
    let (nodes_before, removable) = (set.nodes_before(), set.removable());
    let text = if set.is_empty() {
        document.text().to_owned()
    } else {
        let text = edit::edited(document, &set).map_err(|error| vec![error])?;
        check(document, &text, &set.expected(&before))?;
        text
    };
    let nodes = set.nodes_after();
    let changes = set.into_changes();
    Ok(Updated { text, changes, nodes_before, removable, nodes, findings: survey.findings })
}

/// Returns the address families of the cluster prefix of a valid configuration.
fn prefix_families(configuration: &Json) -> Vec<Family> {
    let texts = changes::texts(&configuration["clusterPrefix"]);
    texts.iter().filter_map(|text| text.parse::<IpNet>().ok()).map(Family::from).collect()
}

/// Verifies that an edited text is a valid configuration with exactly the expected values.
fn check(document: &Document, text: &str, expected: &Json) -> Result<(), Vec<Diagnostic>> {
    let edited = Document::new(document.name().clone(), text.to_owned(), document.format());
    if edited.json().as_ref() != Some(expected) {
        return Err(vec![edit::not_editable(
            document,
            "the edited file would not match the list (this is a bug in hostgw)",
        )]);
    }
    config::load(&edited).map(|_| ()).map_err(|invalid| problems(&invalid, true))
}
