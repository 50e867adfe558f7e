//! The rules that masquerade the packets of pods, and what they mean for `nat` of the configuration.

use ipnet::IpNet;

use super::{
    iptables::MatchedPrefix,
    nat_rules::{
        Condition, ConditionKind, Exclusion, MAX_VISITS, MasqueradeRule, Matched, NatRules, RuleOrigin,
        SourceTarget,
    },
    plugin,
    pods::{self, NodeView},
};
use crate::{
    diagnose::{Diagnostic, Rule},
    forwarding::MAX_DEPTH,
    model::{Family, PerFamily},
    state::RouteType,
    text::{Untrusted, list},
};

/// `nat` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NatChoice {
    pub masquerade: bool,
    /// The destinations outside the cluster that see the addresses of pods.
    pub exclude: Vec<IpNet>,
    pub is_source_pods: bool,
    pub is_random_fully: bool,
    /// The source addresses that packets get, as far as rules masquerade them.
    pub targets: PerFamily<SourceTarget>,
}

impl NatChoice {
    /// hostgw's defaults.
    pub const DEFAULT: Self = Self {
        masquerade: true,
        exclude: Vec::new(),
        is_source_pods: false,
        is_random_fully: false,
        targets: PerFamily { v4: None, v6: None },
    };

    /// Nothing is masqueraded.
    pub fn none() -> Self {
        Self { masquerade: false, ..Self::DEFAULT }
    }
}

/// Whether hostgw can leave packets to a network alone. It does so anyway inside the cluster; multicast is not masqueraded.
fn can_be_excluded(net: IpNet, pods: &[IpNet]) -> bool {
    let is_of_family = |pods: &IpNet| Family::from(*pods) == Family::from(net);
    pods.iter().any(is_of_family)
        && !pods.iter().any(|pods| pods.contains(&net))
        && !net.network().is_multicast()
        && net.prefix_len() > 0
}

/// What determines which packets of pods rules are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct NatScope<'a> {
    pub view: &'a NodeView<'a>,
    /// The cluster prefixes.
    pub prefixes: &'a [IpNet],
    /// The node's own pod CIDRs.
    pub own: &'a [IpNet],
}

/// What becomes of a rule about pods after the configuration is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleFate {
    /// hostgw's rules replace it.
    Replaced,
    /// hostgw's rules replace it for pods, but it may serve other networks, too.
    Unclear,
    /// The configuration does not contain it.
    Kept,
}

/// Whether packets from pods that leave the cluster meet a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Always,
    Never,
    Sometimes,
}

/// The sources of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sources {
    Any,
    /// The pods of this node, and possibly others.
    Pods,
    /// Only some pods.
    Part,
}

/// A rule about pods.
struct Judged<'r, 'a> {
    rule: &'r MasqueradeRule<'a>,
    sources: Sources,
    /// The only destination.
    destination: Option<IpNet>,
    /// The destinations that it leaves alone.
    excluded: Vec<IpNet>,
    /// What a configuration cannot express.
    obstacles: Vec<Untrusted>,
}

/// What the rules of all firewalls mean for the configuration.
pub(super) struct NatReading<'a> {
    pub choice: NatChoice,
    /// What the configuration does not keep.
    pub findings: Vec<Diagnostic>,
    has_kept: bool,
    decisions: Vec<(RuleOrigin<'a>, RuleFate)>,
}

impl<'a> NatReading<'a> {
    pub fn new(rules: &NatRules<'a>, scope: &NatScope<'_>) -> Self {
        let mut decisions = Vec::new();
        let mut judged: Vec<Judged<'_, 'a>> = Vec::new();
        for rule in &rules.masquerades {
            if scope.leads_to_pods(&rule.matched) {
                decisions.push((rule.origin, RuleFate::Replaced));
            }
            judged.extend(scope.judge(rules, rule));
        }
        // The chains of plugins are removed, so that hostgw has to replace their rules, even with some that do more.
        let is_imported = |it: &&Judged<'_, '_>| it.obstacles.is_empty() || it.rule.matched.is_of_plugin;
        let (imported, others): (Vec<_>, Vec<_>) = judged.iter().partition(is_imported);
        let (covered, kept): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|other| imported.iter().any(|it| it.covers(other)));
        for it in imported.iter().chain(&covered) {
            decisions.push((it.rule.origin, scope.replaced(it)));
        }
        for it in &kept {
            let is_unclear = it.sources == Sources::Any;
            decisions.push((it.rule.origin, if is_unclear { RuleFate::Unclear } else { RuleFate::Kept }));
        }
        let choice = NatChoice::of(&imported, scope.prefixes);
        let mut findings = Vec::new();
        let named = |it: &&Judged<'_, '_>| quoted(&it.rule.origin, &it.obstacles);
        let kept: Vec<String> = kept.iter().map(named).collect();
        if !kept.is_empty() {
            let (rules, stay) = match kept.len() {
                1 => (
                    "a rule that masquerades pod traffic was not imported, because a configuration cannot express its conditions",
                    "this rule stays in effect: keep it if pods need it",
                ),
                _ => (
                    "rules that masquerade pod traffic were not imported, because a configuration cannot express their conditions",
                    "these rules stay in effect: keep them if pods need them",
                ),
            };
            findings.push(
                Diagnostic::new(Rule::NatNotImported, format!("{rules}: {}", list(&kept, 8))).with_remedy(
                    format!(
                        "{stay}. `nat` only selects by destination (`exclude`) and by source (`source: pods`)"
                    ),
                ),
            );
        }
        if rules.is_cut_short {
            let message = format!(
                "NAT rules that may masquerade pod traffic were not read: chains are nested more than {MAX_DEPTH} levels deep, or have more \
                 than {MAX_VISITS} rules in total"
            );
            findings.push(
                Diagnostic::new(Rule::NatNotImported, message).with_remedy(
                    "compare `nat` with what `iptables-save -t nat` and `nft list ruleset` print",
                ),
            );
        }
        let has_kept = !kept.is_empty();
        let mut wider: Vec<String> =
            imported.iter().filter(|it| !it.obstacles.is_empty()).map(named).collect();
        let mut exclusions = Vec::new();
        for exclusion in imported.iter().flat_map(|it| rules.before(it.rule)) {
            // Packets that another rule masquerades before are not excluded.
            let precedes = |it: &&&Judged<'_, '_>| {
                rules.before(it.rule).any(|before| before.origin.is(&exclusion.origin))
            };
            let is_effective =
                imported.iter().filter(|it| it.shares_family(&exclusion.matched)).all(|it| precedes(&it));
            if let (Excluded::Partly(obstacles), true) = (scope.excluded(&exclusion.matched), is_effective) {
                let text = quoted(&exclusion.origin, &obstacles);
                if !exclusions.contains(&text) {
                    exclusions.push(text);
                }
            }
        }
        exclusions.reverse();
        wider.extend(exclusions);
        if !wider.is_empty() {
            let message = format!(
                "the configuration masquerades more packets than the current rules do, because it cannot express {} conditions: {}",
                if wider.len() == 1 { "this rule's" } else { "these rules'" },
                list(&wider, 8)
            );
            findings.push(Diagnostic::new(Rule::NatNotImported, message).with_remedy(
                "if the other packets must keep their source address, add their destinations to `nat.exclude`",
            ));
        }
        findings.extend(scope.other_family(&imported));
        for exclusion in &rules.exclusions {
            let Some(decision) = scope.of_exclusion(rules, exclusion, &decisions) else { continue };
            // A rule with a set of destinations is one exclusion for each of them.
            match decisions.iter_mut().find(|(known, _)| known.is(&exclusion.origin)) {
                Some((_, known)) if *known != decision => *known = RuleFate::Unclear,
                Some(_) => {}
                None => decisions.push((exclusion.origin, decision)),
            }
        }
        Self { choice, findings, has_kept, decisions }
    }

    /// Whether rules that masquerade packets of pods are not in the configuration.
    pub fn has_kept(&self) -> bool {
        self.has_kept
    }

    /// What becomes of a rule; `None` if it is not about pods.
    pub fn decision(&self, origin: &RuleOrigin<'_>) -> Option<RuleFate> {
        self.decisions.iter().find(|(known, _)| known.is(origin)).map(|(_, decision)| *decision)
    }
}

/// A rule, and the conditions that a configuration cannot express.
fn quoted(origin: &RuleOrigin<'_>, obstacles: &[Untrusted]) -> String {
    let obstacles: Vec<String> = obstacles.iter().map(|it| format!("`{it}`")).collect();
    format!("{} (only for {})", origin.text(), list(&obstacles, 8))
}

impl NatChoice {
    /// What rules say that a configuration can express.
    fn of(rules: &[&Judged<'_, '_>], pods: &[IpNet]) -> Self {
        if rules.is_empty() {
            return Self::none();
        }
        let is_excluded = |net: &IpNet| {
            let family = Family::from(*net);
            let mut of_family = rules.iter().filter(|it| it.is_of(family));
            of_family.all(|it| it.excluded.iter().any(|excluded| excluded.contains(net)))
        };
        let mut exclude: Vec<IpNet> = rules.iter().flat_map(|it| it.excluded.iter().copied()).collect();
        exclude.retain(|net| can_be_excluded(*net, pods) && is_excluded(net));
        exclude.sort_unstable();
        exclude.dedup();
        let mut targets = PerFamily::default();
        for family in Family::ALL {
            let of_family = rules.iter().filter(|it| it.is_of(family));
            *targets.get_mut(family) = SourceTarget::common(of_family.map(|it| it.rule.target));
        }
        Self {
            masquerade: true,
            exclude,
            is_source_pods: rules.iter().all(|it| it.sources != Sources::Any),
            is_random_fully: rules.iter().all(|it| it.rule.is_random_fully),
            targets,
        }
    }
}

impl Judged<'_, '_> {
    fn is_of(&self, family: Family) -> bool {
        self.rule.matched.family.is_none_or(|own| own == family)
    }

    fn shares_family(&self, other: &Matched) -> bool {
        other.family.is_none_or(|family| self.is_of(family))
    }

    /// Whether this rule does the same with all packets of pods that the other one is about.
    fn covers(&self, other: &Self) -> bool {
        let is_of_family = match other.rule.matched.family {
            Some(family) => self.is_of(family),
            None => self.rule.matched.family.is_none(),
        };
        let is_disjoint =
            |net: &IpNet, destination: &IpNet| !net.contains(destination) && !destination.contains(net);
        let reaches = match &other.destination {
            Some(destination) => self.excluded.iter().all(|net| is_disjoint(net, destination)),
            None => self.excluded.iter().all(|net| other.excluded.iter().any(|it| it.contains(net))),
        };
        is_of_family && reaches && self.rule.target == other.rule.target && !other.rule.has_ports
    }
}

/// What an exclusion means for the packets of pods that leave the cluster.
enum Excluded {
    Nothing,
    Everything,
    Network(IpNet),
    /// Some packets, by these conditions.
    Partly(Vec<Untrusted>),
}

impl NatScope<'_> {
    fn own(&self, family: Option<Family>) -> impl Iterator<Item = &IpNet> {
        self.own.iter().filter(move |net| family.is_none_or(|family| Family::from(**net) == family))
    }

    fn prefixes(&self, family: Option<Family>) -> impl Iterator<Item = &IpNet> {
        self.prefixes.iter().filter(move |net| family.is_none_or(|family| Family::from(**net) == family))
    }

    fn is_in_cluster(&self, net: IpNet) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(&net))
    }

    /// The sources of a rule. `None` if there are no pods of this node among them.
    fn sources(&self, matched: &Matched) -> Option<Sources> {
        let Some(MatchedPrefix { prefix, is_negated }) = matched.source.filter(|_| !matched.is_for_pods)
        else {
            return Some(if matched.is_for_pods { Sources::Pods } else { Sources::Any });
        };
        // A machine without pods, or one whose pods are not known, is judged by the pods of the cluster.
        let has_own = self.own(matched.family).next().is_some();
        let pods: Vec<&IpNet> = if has_own {
            self.own(matched.family).collect()
        } else {
            self.prefixes(matched.family).collect()
        };
        let contained = pods.iter().filter(|net| prefix.contains(**net)).count();
        let is_part = pods.iter().any(|net| net.contains(&prefix)) || self.is_in_cluster(prefix);
        match (is_negated, contained) {
            (false, 0) if is_part => Some(Sources::Part),
            (false, 0) => None,
            (false, _) => Some(Sources::Pods),
            (true, 0) if pods.iter().any(|net| net.contains(&prefix)) => Some(Sources::Part),
            (true, 0) => Some(Sources::Any),
            (true, number) if number == pods.len() => None,
            (true, _) => Some(Sources::Part),
        }
    }

    /// Whether a rule is about packets that go to pods, which hostgw never masquerades.
    fn leads_to_pods(&self, matched: &Matched) -> bool {
        let to_pods = matched.destination.is_some_and(|to| !to.is_negated && self.is_in_cluster(to.prefix));
        let is_of_others = matched.source.is_some_and(|from| {
            let overlaps = |pods: &&IpNet| pods.contains(&from.prefix) || from.prefix.contains(*pods);
            !self.prefixes.iter().any(|pods| overlaps(&pods))
        });
        to_pods && (matched.is_of_plugin || !is_of_others)
    }

    /// Judges a rule that masquerades packets. `None` if it is not about those of pods that leave the cluster.
    fn judge<'r, 'a>(&self, rules: &'r NatRules<'a>, rule: &'r MasqueradeRule<'a>) -> Option<Judged<'r, 'a>> {
        let matched = &rule.matched;
        self.prefixes(matched.family).next()?;
        let sources = self.sources(matched)?;
        let mut obstacles = Vec::new();
        if sources == Sources::Part
            && let Some(from) = matched.source
        {
            obstacles.push(option("-s", from));
        }
        let (mut excluded, mut destination) = (Vec::new(), None);
        match matched.destination {
            Some(to) if to.prefix.prefix_len() == 0 => (!to.is_negated).then_some(())?,
            Some(to) if to.is_negated => excluded.push(to.prefix),
            Some(to) if self.is_in_cluster(to.prefix) => return None,
            Some(to) => {
                destination = Some(to.prefix);
                obstacles.push(option("-d", to));
            }
            None => {}
        }
        excluded.extend(&matched.outside);
        obstacles.extend(self.obstacles(matched)?);
        if rule.has_ports {
            obstacles.push("--to-ports".into());
        }
        for exclusion in rules.before(rule) {
            match self.excluded(&exclusion.matched) {
                Excluded::Everything => return None,
                Excluded::Network(net) => excluded.push(net),
                Excluded::Nothing | Excluded::Partly(_) => {}
            }
        }
        excluded.retain(|net| can_be_excluded(*net, self.prefixes));
        Some(Judged { rule, sources, destination, excluded, obstacles })
    }

    /// The conditions that a configuration cannot express. `None` if no packet of a pod that leaves the cluster meets them.
    fn obstacles(&self, matched: &Matched) -> Option<Vec<Untrusted>> {
        let mut obstacles = Vec::new();
        for condition in &matched.conditions {
            match self.truth(condition, matched) {
                Truth::Always => {}
                Truth::Never => return None,
                Truth::Sometimes => obstacles.push(condition.text.clone()),
            }
        }
        Some(obstacles)
    }

    fn truth(&self, condition: &Condition, matched: &Matched) -> Truth {
        let truth = match &condition.kind {
            ConditionKind::Output(device) => self.output(device, matched),
            // hostgw's rule leaves such packets alone, or kube-proxy's rules have masqueraded them.
            ConditionKind::LocalDestination | ConditionKind::KubeProxyMark | ConditionKind::ToPods => {
                Truth::Never
            }
            ConditionKind::FromPods => Truth::Always,
            ConditionKind::Other => Truth::Sometimes,
        };
        match (truth, condition.is_negated) {
            (Truth::Never, true) => Truth::Always,
            (Truth::Always, true) => Truth::Never,
            (truth, _) => truth,
        }
    }

    /// Whether packets of pods leave the cluster through an interface.
    fn output(&self, device: &str, matched: &Matched) -> Truth {
        let host = self.view.host;
        let of_pods = |name: &str| {
            host.addresses
                .iter()
                .any(|local| local.device == *name && self.own.iter().any(|own| own.contains(&local.address)))
        };
        let kind = host.link(device).and_then(|link| link.kind.as_ref()).map(Untrusted::as_raw);
        let is_own_tunnel = matched.is_of_plugin && plugin::of_tunnel(device, kind).is_some();
        if device == "lo" || of_pods(device) || is_own_tunnel {
            return Truth::Never;
        }
        let leads_elsewhere = self.view.routes.iter().any(|route| {
            let net = route.destination;
            route.kind == RouteType::Unicast
                && matched.family.is_none_or(|family| route.family() == family)
                && !self.is_in_cluster(net)
                && !pods::is_link_local(net.network())
                && !net.network().is_multicast()
                && route.hops().any(|(_, other)| {
                    *other != *device && !of_pods(other.as_raw()) && !self.view.is_local_bridge(other)
                })
        });
        if leads_elsewhere { Truth::Sometimes } else { Truth::Always }
    }

    fn excluded(&self, matched: &Matched) -> Excluded {
        let Some(sources) = self.sources(matched) else { return Excluded::Nothing };
        let mut obstacles = match (sources, matched.source) {
            (Sources::Part, Some(from)) => vec![option("-s", from)],
            _ => Vec::new(),
        };
        let network = match matched.destination {
            None => None,
            Some(to) if to.prefix.prefix_len() == 0 => {
                if to.is_negated {
                    return Excluded::Nothing;
                }
                None
            }
            Some(to) => {
                let is_harmless = self.is_in_cluster(to.prefix) || to.prefix.network().is_multicast();
                match (to.is_negated, is_harmless) {
                    (false, true) => return Excluded::Nothing,
                    (true, true) => None,
                    (false, false) => Some(to.prefix),
                    (true, false) => {
                        obstacles.push(option("-d", to));
                        None
                    }
                }
            }
        };
        let is_harmless = |net: &&IpNet| self.is_in_cluster(**net) || net.network().is_multicast();
        let others = matched.outside.iter().filter(|net| !is_harmless(net));
        obstacles.extend(others.map(|net| option("-d", MatchedPrefix { prefix: *net, is_negated: true })));
        let Some(more) = self.obstacles(matched) else { return Excluded::Nothing };
        obstacles.extend(more);
        match network {
            _ if !obstacles.is_empty() => Excluded::Partly(obstacles),
            Some(net) => Excluded::Network(net),
            None => Excluded::Everything,
        }
    }

    /// What becomes of a rule that hostgw's rules replace.
    fn replaced(&self, it: &Judged<'_, '_>) -> RuleFate {
        let matched = &it.rule.matched;
        let overlaps =
            |net: IpNet| self.prefixes.iter().any(|pods| pods.contains(&net) || net.contains(pods));
        let is_only_pods = match it.sources {
            Sources::Part => true,
            // A wider network contains more than pods.
            Sources::Pods => {
                matched.source.is_none_or(|from| from.is_negated || self.is_in_cluster(from.prefix))
            }
            Sources::Any => {
                let mut nets = matched.destination.iter().map(|to| &to.prefix).chain(&matched.outside);
                nets.any(|net| overlaps(*net))
            }
        };
        if matched.is_of_plugin || is_only_pods { RuleFate::Replaced } else { RuleFate::Unclear }
    }

    /// What becomes of an exclusion: it can be removed after all rules about pods that follow it.
    fn of_exclusion(
        &self,
        rules: &NatRules<'_>,
        exclusion: &Exclusion<'_>,
        decisions: &[(RuleOrigin<'_>, RuleFate)],
    ) -> Option<RuleFate> {
        let matched = &exclusion.matched;
        let excluded = self.excluded(matched);
        let is_of_pods =
            matched.source.is_some_and(|from| !from.is_negated && self.is_in_cluster(from.prefix))
                || matched.destination.is_some_and(|to| !to.is_negated && self.is_in_cluster(to.prefix));
        let is_imported = matches!(excluded, Excluded::Network(_));
        if !is_of_pods && !is_imported || matches!(excluded, Excluded::Partly(_) | Excluded::Everything) {
            return None;
        }
        let followers = rules
            .masquerades
            .iter()
            .filter(|rule| rules.before(rule).any(|before| before.origin.is(&exclusion.origin)));
        let followers: Vec<Option<RuleFate>> = followers
            .map(|rule| decisions.iter().find(|(origin, _)| origin.is(&rule.origin)).map(|(_, it)| *it))
            .filter(Option::is_some)
            .collect();
        let is_last = followers.iter().all(|it| *it == Some(RuleFate::Replaced));
        match followers.as_slice() {
            [] => None,
            _ if is_last && is_of_pods => Some(RuleFate::Replaced),
            _ => Some(RuleFate::Unclear),
        }
    }

    /// Warns if rules masquerade the packets of one family only: the configuration does so in both.
    fn other_family(&self, imported: &[&Judged<'_, '_>]) -> Option<Diagnostic> {
        let is_masqueraded = |family: &Family| imported.iter().any(|it| it.is_of(*family));
        let has_pods = |family: &Family| self.own(Some(*family)).next().is_some();
        let (masqueraded, other): (Vec<Family>, Vec<Family>) =
            Family::ALL.into_iter().filter(has_pods).partition(is_masqueraded);
        let ([family], [other]) = (masqueraded.as_slice(), other.as_slice()) else { return None };
        let message = format!(
            "the current rules masquerade only {family} pod traffic, but the configuration masquerades {other}, too: `nat` applies \
             to both"
        );
        Some(Diagnostic::new(Rule::NatNotImported, message).with_remedy(format!(
            "to keep the source addresses of {other} pod traffic, list its destinations in `nat.exclude`"
        )))
    }
}

/// A prefix as an option of iptables.
fn option(name: &str, matched: MatchedPrefix) -> Untrusted {
    let not = if matched.is_negated { "! " } else { "" };
    format!("{not}{name} {}", matched.prefix).into()
}
