//! Examines what firewalls and the NAT of other programs do with packets between pods.

use std::collections::{BTreeSet, HashMap};

use super::{
    Effect, Examination, TrafficEffects,
    blockage::{Blockage, between, packets, peers},
    carriers,
    conditions::{TRY, is_for_ipset, partial_property, spot_text, undecided, undecoded},
    finding, hosts, outer_carriers, outside, own_packets,
    remedy::{accept, allow, is_open, remove},
    same_node,
    samples::{PodSample, PodSampler},
};
use crate::{
    diagnose::{Diagnostic, Rule, Severity},
    forwarding::{
        AddressChange, ChainIndex, Conditional, Direction, Distinctions, Filtering, ForwardingModel,
        HeaderPart, Overwriting, Packet, Passage, Paths, Region, SAMPLE_PORT, Spot, Transport, Treatment,
        Way,
    },
    model::Family,
    state::{Firewall, Host, Link, LowerChain, MatchedChains, PolicyRule},
    text::{ShellCommand, Untrusted, all_of, list},
};

/// The trouble that a packet meets.
#[derive(PartialEq)]
enum Trouble<'a> {
    Filtered(Filtering<'a>),
    /// Dropped or passed, depending on a property that differs between packets.
    Partly(Conditional<'a>),
    Redirected(AddressChange<'a>),
    Masqueraded(AddressChange<'a>),
    Overwritten(Overwriting<'a>),
    /// Given another mark before the routing decision.
    Marked(Spot<'a>, &'a PolicyRule),
}

impl<'a> Trouble<'a> {
    /// Returns whether the packets reach the other pod; `None` if they do.
    const fn effect(&self) -> Option<Effect> {
        match self {
            Self::Filtered(Filtering::Passed) | Self::Masqueraded(_) => None,
            Self::Filtered(Filtering::Dropped(_)) => Some(Effect::Lost),
            Self::Redirected(change) if change.is_certain() => Some(Effect::Lost),
            Self::Overwritten(Overwriting { part, depends_on, .. })
                if depends_on.is_none() && !matches!(part, HeaderPart::Source | HeaderPart::Unknown) =>
            {
                Some(Effect::Lost)
            }
            Self::Filtered(_)
            | Self::Redirected(_)
            | Self::Overwritten(_)
            | Self::Partly(_)
            | Self::Marked(..) => Some(Effect::Unclear),
        }
    }

    /// Returns the rule or policy that certainly drops the packets.
    const fn dropping(&self) -> Option<Spot<'a>> {
        match self {
            Self::Filtered(Filtering::Dropped(spot)) => Some(*spot),
            _ => None,
        }
    }

    /// Returns the rule or policy that drops the packets, depending on something.
    const fn maybe_dropping(&self) -> Option<Spot<'a>> {
        match self {
            Self::Filtered(Filtering::MaybeDropped(spot) | Filtering::DroppedUnless(spot, _)) => Some(*spot),
            Self::Partly(Conditional { spot, .. }) => Some(*spot),
            _ => None,
        }
    }
}

/// The packets that one kind of trouble affects.
#[derive(Default)]
struct Affected {
    samples: Vec<PodSample>,
    protocols: BTreeSet<Transport>,
}

/// The maximum number of rules to follow, which takes about a second. The paths to the remaining nodes are not examined.
const MAX_STEPS: usize = 10_000_000;

/// Returns errors for packets that `firewall` certainly drops, redirects or masquerades, following at most `limit` paths.
pub(super) fn errors(
    firewall: &Firewall,
    host: &Host,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    limit: usize,
) -> Vec<Diagnostic> {
    let chains = ChainIndex::new(firewall);
    let mut ignored = TrafficEffects::default();
    let distinctions = Distinctions::of(firewall, host);
    let troubles = between_pods(&chains, &distinctions, host, paths, model, limit, &mut ignored);
    // They only matter to the remedies for what drops packets between pods.
    let mut others = match troubles.dropping().is_empty() {
        true => Others::default(),
        false => Others::of(&chains, &distinctions, paths, model, &troubles),
    };
    let mut findings = troubles.findings(&mut others, &chains);
    findings.retain(|finding| finding.severity == Severity::Error);
    findings
}

/// The troubles of packets between pods.
struct PodTroubles<'a> {
    found: Vec<(Trouble<'a>, Affected)>,
    /// The number of other nodes.
    all: usize,
    /// Says that packets of some nodes were not examined.
    unexamined: Option<Diagnostic>,
}

impl<'a> PodTroubles<'a> {
    /// The rules and policies that certainly drop packets.
    fn dropping(&self) -> Vec<Spot<'a>> {
        self.found.iter().filter_map(|(trouble, _)| trouble.dropping()).collect()
    }

    /// Returns the findings. Takes those about the same rules and policies out of `others`, as far as a finding about pods covers them.
    fn findings(&self, others: &mut Others<'a>, chains: &ChainIndex<'a>) -> Vec<Diagnostic> {
        let finding = |(trouble, affected): &(Trouble<'a>, Affected)| match trouble.dropping() {
            Some(spot) => Some(dropped(affected, self.all, spot, others, chains)),
            None => diagnostic(trouble, affected, self.all),
        };
        self.found.iter().filter_map(finding).chain(self.unexamined.clone()).collect()
    }
}

/// What is not a pod, and exchanges packets with this node's pods.
#[derive(Default)]
struct OtherEnds {
    nodes: BTreeSet<Untrusted>,
    is_outside: bool,
}

impl OtherEnds {
    /// Names these ends and `pods`. They are all pods of `peers` if `is_whole`. `all` is the number of other nodes.
    fn with(&self, pods: String, peers: &[&Untrusted], is_whole: bool, all: usize) -> String {
        let outside = self.is_outside.then(|| outside::ENDS.to_owned());
        // Covers the pods as well.
        if is_whole && !self.nodes.is_empty() && self.nodes.iter().eq(peers.iter().copied()) {
            let nodes = self::peers(peers, all, false);
            return match outside {
                None => format!("{nodes}, including the pods there"),
                Some(outside) => all_of(&[nodes, "the pods there".to_owned(), outside]),
            };
        }
        let nodes = (!self.nodes.is_empty()).then(|| hosts::without_pods(&self.nodes, all));
        let ends: Vec<String> = [Some(pods), nodes, outside].into_iter().flatten().collect();
        let both = if ends.len() == 2 { "both " } else { "" };
        format!("{both}{}", all_of(&ends))
    }
}

/// The rules and policies that certainly drop packets between this node's pods and what is not a pod.
#[derive(Default)]
struct Others<'a> {
    hosts: Vec<Blockage<'a>>,
    outside: Vec<Blockage<'a>>,
    /// The other findings about packets to the outside.
    findings: Vec<Diagnostic>,
}

impl<'a> Others<'a> {
    fn of(
        chains: &ChainIndex<'a>,
        distinctions: &Distinctions,
        paths: &Paths<'_>,
        model: &ForwardingModel<'_>,
        troubles: &PodTroubles<'a>,
    ) -> Self {
        let known = troubles.found.iter();
        let known = known
            .filter_map(|(trouble, _)| trouble.dropping().or_else(|| trouble.maybe_dropping()))
            .collect();
        let hosts = hosts::blocked(chains, distinctions, paths, model);
        let (outside, findings) = outside::lost(paths, chains, model, known);
        Self { hosts, outside, findings }
    }

    /// Takes what a finding about packets between pods covers: it names the other ends, and the commands that accept all
    /// packets. If the remedy is to remove the rule, it is the same for everything.
    fn take(&mut self, of_pods: &mut Blockage<'a>) -> OtherEnds {
        let mut ends = OtherEnds::default();
        let Self { hosts, outside, .. } = self;
        for (known, is_outside) in [(hosts, false), (outside, true)] {
            let Some(at) = known.iter().position(|other| other.spot == of_pods.spot) else { continue };
            let other = &known[at];
            let is_same = other.directions == of_pods.directions && other.protocols == of_pods.protocols;
            if is_same {
                of_pods.commands.extend(other.commands.iter().cloned());
                match is_outside {
                    true => ends.is_outside = true,
                    false => ends.nodes.clone_from(&other.nodes),
                }
            }
            if is_same || !is_open(&of_pods.spot) {
                known.remove(at);
            }
        }
        ends
    }

    fn into_findings(self, all: usize, chains: &ChainIndex<'a>) -> Vec<Diagnostic> {
        let hosts = self.hosts.iter().map(|blockage| hosts::finding_of(blockage, all, chains));
        hosts.chain(self.outside.iter().map(outside::finding_of)).chain(self.findings).collect()
    }
}

pub(super) fn examine(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    let host = &examination.observed.host;
    let mut findings = hosts::unrouted(paths, model);
    let Some(firewall) = &host.firewall else {
        findings.push(finding(
            Rule::FirewallUnknown,
            "the firewall rules could not be read".to_owned(),
            "run `hostgw doctor` as root, or with CAP_NET_ADMIN; for a snapshot, run `hostgw snapshot` as root",
        ));
        effects.on_everything(Effect::Unclear);
        return findings;
    };
    let chains = ChainIndex::new(firewall);
    let distinctions = Distinctions::of(firewall, host);
    let troubles = between_pods(&chains, &distinctions, host, paths, model, usize::MAX, effects);
    let mut others = Others::of(&chains, &distinctions, paths, model, &troubles);
    findings.extend(troubles.findings(&mut others, &chains));
    findings.extend(own_packets::examine(&chains, &distinctions, paths, model));
    findings.extend(same_node::filtered(
        examination,
        paths,
        &chains,
        &distinctions,
        model,
        &troubles.dropping(),
    ));
    findings.extend(outside::excluded(examination, paths, &chains, model));
    findings.extend(others.into_findings(troubles.all, &chains));
    findings.extend(below_ip(examination, paths, firewall, effects));
    if !firewall.legacy.is_empty() {
        effects.on_everything(Effect::Unclear);
        findings.push(finding(
            Rule::LegacyTables,
            format!(
                "iptables-legacy has rules in {}, which hostgw cannot read: they may drop or masquerade pod traffic",
                list(&firewall.legacy, 5)
            ),
            "list them with `iptables-legacy-save`, and run `hostgw rehearse`, which sends packets through a copy of them",
        ));
    }
    findings
}

/// Follows the packets of at most `limit` paths between pods.
fn between_pods<'a>(
    chains: &ChainIndex<'a>,
    distinctions: &Distinctions,
    host: &'a Host,
    paths: &Paths<'_>,
    model: &ForwardingModel<'_>,
    limit: usize,
    effects: &mut TrafficEffects,
) -> PodTroubles<'a> {
    let mut found: Vec<(Trouble<'_>, Affected)> = Vec::new();
    // The troubles of each group of packets that no rule distinguishes.
    let mut alike: HashMap<_, Vec<(usize, Transport)>> = HashMap::new();
    let mut sampler = PodSampler::new(distinctions, host);
    let mut left = paths.between_pods().take(limit);
    let samples = left.by_ref().flat_map(|path| sampler.samples(path));
    for sample in samples {
        let path = &sample.path;
        let Packet { source, destination, input } = &path.packet;
        let output = &path.expected.device;
        let returns = distinctions.return_routes(model, &path.packet);
        let classes = [source, destination].map(|address| distinctions.class(*address));
        let key = (classes, input.clone(), output.clone(), returns);
        let happened = match alike.get(&key) {
            Some(happened) => happened.clone(),
            None => {
                let mut happened = Vec::new();
                let both = [false, true].into_iter();
                for (is_reply, transport) in
                    both.flat_map(|is_reply| Transport::ALL.map(|transport| (is_reply, transport)))
                {
                    let packet = &path.packet;
                    let passage =
                        Passage { packet, transport, port: SAMPLE_PORT, way: Way::Through, output, is_reply };
                    let treatment = chains.follow(model, &passage, MatchedChains::Others);
                    for trouble in troubles(&treatment, &host.rules) {
                        let at = found.iter().position(|(other, _)| *other == trouble).unwrap_or_else(|| {
                            found.push((trouble, Affected::default()));
                            found.len() - 1
                        });
                        happened.push((at, transport));
                    }
                }
                alike.insert(key, happened.clone());
                happened
            }
        };
        for (at, transport) in happened {
            let Affected { samples, protocols } = &mut found[at].1;
            protocols.insert(transport);
            if samples.last() != Some(&sample) {
                samples.push(sample.clone());
            }
        }
        if chains.steps() > MAX_STEPS {
            break;
        }
    }
    let all = paths.nodes().min(limit / 2);
    let unexamined = left.next().map(|path| {
        let node =
            path.node().map_or_else(String::new, |node| format!("; nodes from {node} on were not examined"));
        for path in std::iter::once(path).chain(left) {
            effects.on_path(&path, Effect::Unclear);
        }
        finding(
            Rule::ForwardUnclear,
            format!("there are too many firewall rules to trace the packets of every node{node}"),
            "run `hostgw rehearse`, which sends packets through a copy of the rules",
        )
    });
    // Pods that cannot ping each other can still talk.
    let is_ping = |transport: &Transport| *transport == Transport::Icmp;
    for (trouble, Affected { samples, protocols }) in &found {
        let Some(effect) = trouble.effect().filter(|_| !protocols.iter().all(is_ping)) else { continue };
        for PodSample { path, .. } in samples.iter().filter(|sample| sample.is_whole()) {
            effects.on_path(path, effect);
        }
    }
    PodTroubles { found, all, unexamined }
}

/// Returns the troubles of a packet.
fn troubles<'a>(treatment: &Treatment<'a>, rules: &'a [PolicyRule]) -> Vec<Trouble<'a>> {
    let Treatment { filter, partly, redirected, masquerade, overwritten, marked, .. } = treatment;
    let marked = marked.and_then(|(spot, mark)| {
        let selects = |rule: &&PolicyRule| {
            let wanted = rule.selector.mark;
            wanted.is_some_and(|wanted| mark.is_none_or(|mark| mark & wanted.mask == wanted.value))
        };
        Some(Trouble::Marked(spot, rules.iter().find(selects)?))
    });
    [
        (*filter != Filtering::Passed).then_some(Trouble::Filtered(*filter)),
        partly.map(Trouble::Partly),
        redirected.map(Trouble::Redirected),
        masquerade.filter(|change| !is_for_ipset(change)).map(Trouble::Masqueraded),
        overwritten.map(Trouble::Overwritten),
        marked,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn diagnostic(trouble: &Trouble<'_>, affected: &Affected, all: usize) -> Option<Diagnostic> {
    let direction = direction(&affected.samples, all, &OtherEnds::default());
    let packets = &packets(&affected.protocols);
    Some(match trouble {
        // Those that are certainly dropped are reported with others.
        Trouble::Filtered(Filtering::Passed | Filtering::Dropped(_)) => return None,
        Trouble::Filtered(Filtering::DroppedUnless(spot, by)) => unclear(packets, &direction, spot, Some(by)),
        Trouble::Filtered(Filtering::MaybeDropped(by)) => unclear(packets, &direction, by, None),
        Trouble::Partly(conditional) => partly(affected, &direction, conditional),
        Trouble::Redirected(AddressChange { spot, depends_on: None }) => finding(
            Rule::PodsRedirected,
            format!("{} changes the destination of {packets} {direction}", spot_text(spot)),
            remove(spot, "the cluster prefix"),
        ),
        Trouble::Redirected(AddressChange { spot, depends_on: Some(condition) }) => undecided(
            spot,
            &spot_text(spot),
            &format!("change the destination of {packets} {direction}"),
            condition,
        ),
        Trouble::Masqueraded(AddressChange { spot, depends_on: None }) => {
            masqueraded(packets, &direction, spot)
        }
        Trouble::Masqueraded(AddressChange { spot, depends_on: Some(condition) }) => undecided(
            spot,
            &spot_text(spot),
            &format!("change the source address of {packets} {direction}"),
            condition,
        ),
        Trouble::Overwritten(Overwriting { spot, part, depends_on }) => {
            overwritten(packets, &direction, spot, *part, depends_on.as_ref())
        }
        Trouble::Marked(spot, rule) => marked(packets, &direction, spot, rule),
    })
}

/// Describes the direction of the affected packets, and the affected nodes out of `all` other nodes. `ends` are further ends.
fn direction(samples: &[PodSample], all: usize, ends: &OtherEnds) -> String {
    // A trouble of most pods is one of their parts, too.
    let is_whole = samples.iter().any(PodSample::is_whole);
    let samples: Vec<&PodSample> = samples.iter().filter(|sample| !is_whole || sample.is_whole()).collect();
    let directions: BTreeSet<Direction> = samples.iter().map(|sample| sample.path.direction).collect();
    let nodes: BTreeSet<&Untrusted> = samples.iter().filter_map(|sample| sample.path.node()).collect();
    let nodes: Vec<&Untrusted> = nodes.into_iter().collect();
    let within = |part: fn(&PodSample) -> Option<Region>| {
        let parts: Option<Vec<String>> =
            samples.iter().map(|sample| Some(part(sample)?.to_string())).collect();
        let Some(mut parts) = parts else { return String::new() };
        parts.sort_unstable();
        parts.dedup();
        format!(" in {}", list(&parts, 3))
    };
    let own = format!("this node's pods{}", within(|sample| sample.own));
    let others = within(|sample| sample.other);
    let pods = if directions.contains(&Direction::Out) { "those" } else { "pods" };
    let pods = format!("{pods}{others} on {}", peers(&nodes, all, false));
    between(&directions, &own, &ends.with(pods, &nodes, others.is_empty(), all))
}

/// Reports a rule or policy that drops packets, also those in `others` to what is not a pod.
fn dropped<'a>(
    Affected { samples, protocols }: &Affected,
    all: usize,
    spot: Spot<'a>,
    others: &mut Others<'a>,
    chains: &ChainIndex<'a>,
) -> Diagnostic {
    let is_icmp = protocols.iter().all(|protocol| *protocol == Transport::Icmp);
    let (rule, effect) = match is_icmp {
        true => (Rule::PartlyBlocked, ": pods cannot ping each other or learn the MTU of a path"),
        false => (Rule::ForwardBlocked, ""),
    };
    let paths = || samples.iter().map(|sample| &sample.path);
    let mut blockage = Blockage {
        directions: paths().map(|path| path.direction).collect(),
        protocols: protocols.clone(),
        commands: allow(paths(), &spot),
        ..Blockage::new(spot)
    };
    let ends = others.take(&mut blockage);
    let direction = direction(samples, all, &ends);
    let traced = blockage.traced(chains);
    let message = format!("{} drops {} {direction}{effect}{traced}", spot_text(&spot), packets(protocols));
    finding(rule, message, blockage.remedy("traffic between pods"))
}

/// Reports a rule that drops some of the packets.
fn partly(
    Affected { samples, protocols }: &Affected,
    direction: &str,
    Conditional { spot, depends_on }: &Conditional<'_>,
) -> Diagnostic {
    let packets = packets(protocols);
    let remedy = match spot.rule {
        Some(_) => remove(spot, "traffic between pods"),
        None => accept(&allow(samples.iter().map(|sample| &sample.path), spot)),
    };
    let property = [depends_on, spot].into_iter().find_map(partial_property);
    finding(
        Rule::PartlyBlocked,
        format!(
            "{} drops some {packets} {direction}, depending on {}",
            spot_text(spot),
            property.unwrap_or_else(|| "what differs between them".to_owned())
        ),
        remedy,
    )
}

/// Reports a rule that overwrites headers.
fn overwritten(
    packets: &str,
    direction: &str,
    spot: &Spot<'_>,
    part: HeaderPart,
    condition: Option<&Spot<'_>>,
) -> Diagnostic {
    let (verb, verbs, what) = match part {
        HeaderPart::TimeToLive(_) => ("set", "sets", "the TTL"),
        HeaderPart::Destination => ("overwrite", "overwrites", "the destination address"),
        HeaderPart::Source => ("overwrite", "overwrites", "the source address"),
        HeaderPart::Ports => ("overwrite", "overwrites", "ports"),
        HeaderPart::Unknown => ("overwrite", "overwrites", "a part of the headers"),
    };
    if let Some(condition) = condition {
        return undecided(
            spot,
            &spot_text(spot),
            &format!("{verb} {what} of {packets} {direction}"),
            condition,
        );
    }
    let spot_text = spot_text(spot);
    let effect = match part {
        HeaderPart::TimeToLive(value) => {
            format!("{verbs} {what} of {packets} {direction} to {value}, so that the next router drops them")
        }
        HeaderPart::Source => format!("{verbs} {what} of {packets} {direction}, so that replies are lost"),
        HeaderPart::Unknown => {
            let message = format!(
                "{spot_text} {verbs} {what} of {packets} {direction}: hostgw cannot tell whether they still arrive"
            );
            return finding(Rule::ForwardUnclear, message, TRY);
        }
        HeaderPart::Destination | HeaderPart::Ports => {
            format!("{verbs} {what} of {packets} {direction}, so that they do not arrive")
        }
    };
    finding(Rule::PodsOverwritten, format!("{spot_text} {effect}"), remove(spot, "the cluster prefix"))
}

fn unclear(packets: &str, direction: &str, spot: &Spot<'_>, by: Option<&Spot<'_>>) -> Diagnostic {
    let message = match by {
        Some(by) => format!(
            "{} drops {packets} {direction} unless {} accepts them: hostgw cannot tell, because it cannot decode {}",
            spot_text(spot),
            spot_text(by),
            undecoded(by)
        ),
        None => format!(
            "{} may drop {packets} {direction}: hostgw cannot tell, because it cannot decode {}",
            spot_text(spot),
            undecoded(spot)
        ),
    };
    finding(Rule::ForwardUnclear, message, TRY)
}

fn masqueraded(packets: &str, direction: &str, spot: &Spot<'_>) -> Diagnostic {
    finding(
        Rule::PodsMasqueraded,
        format!(
            "{} changes the source address of {packets} {direction}: the pods see a node's address instead of the other pod's",
            spot_text(spot),
        ),
        remove(spot, "the cluster prefix"),
    )
}

fn marked(packets: &str, direction: &str, spot: &Spot<'_>, rule: &PolicyRule) -> Diagnostic {
    finding(
        Rule::RoutedByMark,
        format!(
            "{} changes the mark of {packets} {direction}, and the policy rule `{rule}` routes packets by their mark: hostgw cannot tell \
             whether it diverts them",
            spot_text(spot),
        ),
        TRY,
    )
}

/// Reports chains that see pod packets, or ARP requests for pod gateways, before or after all other chains.
fn below_ip(
    examination: &Examination<'_>,
    paths: &Paths<'_>,
    firewall: &Firewall,
    effects: &mut TrafficEffects,
) -> Vec<Diagnostic> {
    if firewall.lower.is_empty() {
        return Vec::new();
    }
    let inner = carriers(examination, paths);
    let outer = outer_carriers(examination, paths);
    let sees = |chain: &LowerChain, links: &[&Link]| match chain.family.as_raw() {
        "bridge" => links.iter().any(|link| link.is_a("bridge")),
        _ => chain.devices.iter().any(|name| links.iter().any(|link| link.name == *name)),
    };
    let diagnostic = |chain: &LowerChain| {
        let LowerChain { family, table, name, devices } = chain;
        let on = if devices.is_empty() { String::new() } else { format!(" on {}", list(devices, 3)) };
        finding(
            Rule::FirewallBelowIp,
            format!(
                "chain `{name}` in table `{family} {table}`{on} can drop pod traffic or ARP requests; hostgw does not evaluate its rules"
            ),
            format!(
                "check that it accepts pod traffic and ARP: `{}`",
                ShellCommand::new(["nft", "list", "chain", family.as_raw(), table.as_raw(), name.as_raw()])
            ),
        )
    };
    let is_everywhere = |chain: &LowerChain| chain.devices.is_empty() && chain.family.as_raw() != "bridge";
    let (seeing, others): (Vec<&LowerChain>, Vec<&LowerChain>) =
        firewall.lower.iter().partition(|chain| is_everywhere(chain) || sees(chain, &inner));
    let outside = others.into_iter().filter(|chain| sees(chain, &outer));
    for chain in &seeing {
        match chain.family.as_raw() {
            "arp" => [Direction::Out, Direction::In]
                .into_iter()
                .for_each(|direction| effects.on_all(Family::V4, direction, Effect::Unclear)),
            _ => effects.on_everything(Effect::Unclear),
        }
    }
    seeing.into_iter().chain(outside).map(diagnostic).collect()
}
