//! `hostgw check-cni`

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    VerbFailure, VerbResult,
    arguments::CheckCniOptions,
    configuration::{load, text_of},
    environment,
    error_json::LocationJson,
    output::Output,
};
use crate::{
    cni::{self, CniReport, Correction, Finding, FindingKind, MasqueradeReport, OutboundNatPolicy},
    config::{Document, Format, Positions},
    diagnose::{Rule, Severity},
    error::{Error, Kind},
    model::{Cluster, ConfigPath},
    plan::node_named,
    render::Palette,
    text::{JsonError, count, printable},
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The result of `hostgw check-cni --json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw check-cni")]
pub(super) struct CniJson {
    /// The version of this format.
    format: u32,
    /// The CNI configuration, as named on the command line.
    file: String,
    /// Whether the CNI configuration fits the node: it has no errors, but can have warnings.
    fits: bool,
    /// The node that it was checked for: the requested one, or else the one whose pod CIDR it assigns.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// The findings. `policies` has the details of that about masquerading on Windows.
    findings: Vec<FindingJson>,
    /// The exceptions that its OutBoundNAT policies must have.
    expected_exceptions: Vec<String>,
    /// The OutBoundNAT policies in it.
    policies: Vec<PolicyJson>,
}

/// A finding.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct FindingJson {
    /// The code of the rule: `hostgw help CODE` explains it.
    code: &'static str,
    /// The kind of finding.
    kind: FindingKind,
    /// Errors must be fixed. With a warning, the configuration works, but perhaps not as intended.
    severity: Severity,
    /// The message of the finding.
    message: String,
    /// The value, which can be missing, such as `plugins[0].ipam.subnet`.
    location: LocationJson,
    /// The value as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<String>,
    /// The correct value as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// An OutBoundNAT policy.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PolicyJson {
    /// The policy, such as `plugins[0].policies[1]`.
    location: LocationJson,
    /// The exceptions of the policy.
    exceptions: Vec<String>,
    /// The exceptions that are neither a prefix nor an address.
    invalid: Vec<String>,
    /// The exceptions that it lacks.
    missing: Vec<String>,
    /// A key of the policy that plugins of this `apiVersion` do not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored_key: Option<&'static str>,
}

/// A CNI configuration has a few hundred bytes. A much larger file is something else.
const MAX_BYTES: usize = 1 << 20;

/// The number of findings to show in text. JSON has all of them.
const MAX_SHOWN: usize = 50;

/// Checks that a CNI configuration fits a node and the cluster.
pub(super) fn run(options: &CheckCniOptions, output: &Output) -> VerbResult {
    let (name, text) = text_of(&options.cni)?;
    let configuration = parse(&name, &text)?;
    let cluster = load(options.file.as_deref())?.cluster;
    let node = environment::node(options.node.as_deref());
    let node = node.map(|node| node_named(&cluster, &node)).transpose()?;
    if let Some(podless) = node.map(|node| &cluster.nodes[node]).filter(|node| !node.has_pods()) {
        return Err(Error::new(
            Kind::Invalid,
            format!("node {} has no pods (podCIDR: none), so no CNI configuration fits it", podless.name),
        )
        .with_hint("pass the node that this file is for with --node NAME")
        .into());
    }
    let report = cni::check(&configuration, &cluster, node);
    let positions = Document::new(name.clone(), text, Format::Yaml).positions();
    let view = ReportView { name: &name, report: &report, cluster: &cluster, positions: &positions };
    if options.json {
        output.json(&view.json())?;
    } else {
        output.result(&view.picture(&output.palette))?;
    }
    if report.fits() {
        return Ok(0);
    }
    if !options.json {
        view.errors().iter().for_each(|error| output.error(error));
    }
    Err(VerbFailure::AlreadyReported(Kind::Invalid))
}

pub(super) fn parse(name: &str, text: &str) -> Result<serde_json::Value, Error> {
    let invalid = |why: String| {
        Error::new(Kind::Invalid, format!("{name} {why}"))
            .with_hint("pass a CNI configuration file (JSON); look in /etc/cni/net.d or, on Windows, in C:\\k\\cni\\config and C:\\etc\\cni\\net.d")
    };
    if text.len() > MAX_BYTES {
        return Err(invalid(format!("is larger than {} MiB", MAX_BYTES >> 20)));
    }
    serde_json::from_str(text).map_err(|error| {
        let error = JsonError(&error);
        let verb = if error.is_too_deep() { "is" } else { "is not valid JSON:" };
        invalid(format!("{verb} {error}"))
    })
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// Returns the line of a path or, if it does not exist, of its parent.
fn line(positions: &Positions, paths: [&ConfigPath; 2]) -> Option<usize> {
    paths.into_iter().find_map(|path| positions.of(path)).map(|position| position.line)
}

/// A report, and what is needed to show it.
struct ReportView<'a> {
    name: &'a str,
    report: &'a CniReport,
    cluster: &'a Cluster,
    positions: &'a Positions,
}

impl ReportView<'_> {
    fn node(&self) -> Option<&str> {
        let index = self.report.node?;
        self.cluster.nodes.get(index).map(|node| node.name.as_raw())
    }

    fn line(&self, finding: &Finding) -> Option<usize> {
        line(self.positions, [&finding.path, &finding.at])
    }

    fn location(&self, path: &ConfigPath, line: Option<usize>) -> LocationJson {
        LocationJson { path: path.to_string(), file: self.name.into(), line, column: None }
    }

    fn json(&self) -> CniJson {
        let policy = |policy: &OutboundNatPolicy| PolicyJson {
            location: self.location(&policy.path, line(self.positions, [&policy.path, &policy.at])),
            exceptions: policy.exceptions.clone(),
            invalid: policy.invalid.clone(),
            missing: texts(&policy.missing),
            ignored_key: policy.ignored_key,
        };
        let finding = |finding: &Finding| FindingJson {
            kind: finding.kind,
            code: finding.kind.rule().code(),
            severity: finding.severity,
            message: finding.message.clone(),
            location: self.location(&finding.path, self.line(finding)),
            actual: finding.actual.clone(),
            expected: finding.expected().map(ToOwned::to_owned),
            remedy: finding.remedy(),
        };
        let masquerade = self.report.masquerade.as_ref();
        let policies = masquerade.map_or(&[][..], |masquerade| &masquerade.policies);
        let about_policies = masquerade.filter(|masquerade| !masquerade.fits());
        let about_policies = about_policies.map(|masquerade| self.about_policies(masquerade));
        CniJson {
            format: FORMAT,
            file: self.name.to_owned(),
            fits: self.report.fits(),
            node: self.node().map(ToOwned::to_owned),
            findings: about_policies.into_iter().chain(self.report.findings.iter().map(finding)).collect(),
            expected_exceptions: masquerade.map_or_else(Vec::new, |masquerade| texts(&masquerade.expected)),
            policies: policies.iter().map(policy).collect(),
        }
    }

    /// Returns the finding about the `OutBoundNAT` policies, which text shows as an error.
    fn about_policies(&self, masquerade: &MasqueradeReport) -> FindingJson {
        let is_wrong = |policy: &&OutboundNatPolicy| !masquerade.masquerade || !policy.is_complete();
        let wrong_one = masquerade.policies.iter().find(is_wrong);
        let location = match wrong_one {
            Some(policy) => self.location(&policy.path, line(self.positions, [&policy.path, &policy.at])),
            None => self.location(&ConfigPath::root(), None),
        };
        let remedy = match wrong_one {
            _ if !masquerade.masquerade => "remove the policies, so that packets keep the pod's address".to_owned(),
            None => format!(
                "add an OutBoundNAT policy with the exceptions {}; or, if no node of the cluster masquerades, including Linux nodes, set `nat.masquerade: false`",
                texts(&masquerade.expected).join(", ")
            ),
            Some(_) => "in each policy, remove the exceptions listed in `invalid`, and add those listed in `missing`; then restart the node's pods: running pods keep their old policy".to_owned(),
        };
        FindingJson {
            kind: FindingKind::Masquerade,
            code: FindingKind::Masquerade.rule().code(),
            severity: Severity::Error,
            message: wrong(self.name, masquerade).message.to_string(),
            location,
            actual: None,
            expected: None,
            remedy: Some(remedy),
        }
    }

    /// Renders the findings with the values to add and remove.
    fn picture(&self, palette: &Palette) -> String {
        let mut text = String::new();
        for finding in self.report.findings.iter().take(MAX_SHOWN) {
            self.show(finding, palette, &mut text);
        }
        let rest = self.report.findings.len().saturating_sub(MAX_SHOWN);
        if rest > 0 {
            text.push_str(&format!("… and {} more; --json shows all of them\n", count(rest, "finding")));
        }
        // The error about the policies follows.
        if let Some(masquerade) = &self.report.masquerade {
            text.push_str(&picture(self.name, masquerade, self.positions, palette));
        }
        if let Some(node) = self.node().filter(|_| self.errors().is_empty()) {
            text.push_str(&printable(&format!("{} fits node {node}.", self.name)));
            text.push('\n');
        }
        text
    }

    fn show(&self, finding: &Finding, palette: &Palette, text: &mut String) {
        let mut add = |line: String| text.extend([line.as_str(), "\n"]);
        let place = self.line(finding).map_or_else(String::new, |line| format!(" ({}:{line})", self.name));
        let path =
            if finding.path == ConfigPath::root() { "the file".to_owned() } else { finding.path.to_string() };
        let head = format!("{}[{}]", finding.severity.name(), finding.kind.rule());
        add(palette
            .head
            .apply_to(printable(&format!("{head}: {path}{place}: {}", finding.message)))
            .to_string());
        if let Some(Correction::Other(advice)) = &finding.correction {
            add(printable(&format!("  {advice}")));
            return;
        }
        if let Some(actual) = &finding.actual {
            add(palette.remove.apply_to(printable(&format!("- {actual}"))).to_string());
        }
        if let Some(expected) = finding.expected() {
            add(palette.add.apply_to(printable(&format!("+ {expected}"))).to_string());
        }
    }

    /// Returns the errors, one for masquerading and one for everything else.
    fn errors(&self) -> Vec<Error> {
        let masquerade = self.report.masquerade.as_ref().filter(|masquerade| !masquerade.fits());
        let mut errors: Vec<_> =
            masquerade.map(|masquerade| wrong(self.name, masquerade)).into_iter().collect();
        let is_error = |finding: &&Finding| finding.severity == Severity::Error;
        let number = self.report.findings.iter().filter(is_error).count();
        if number > 0 {
            let whom = self.node().map_or_else(|| "the cluster".to_owned(), |node| format!("node {node}"));
            let all = number + usize::from(masquerade.is_some());
            let message = format!("{} does not fit {whom}: {}", self.name, count(all, "error"));
            let hint = match self.node() {
                Some(_) => {
                    "make these changes, then restart the node's pods: running pods keep their old configuration"
                }
                None => "pass --node NAME to choose the node that the file belongs to",
            };
            errors.push(Error::new(Kind::Invalid, message).with_hint(hint));
        }
        errors
    }
}

/// Renders every policy with its exceptions, and with those to add and remove.
fn picture(name: &str, finding: &MasqueradeReport, positions: &Positions, palette: &Palette) -> String {
    let mut text = String::new();
    let mut add = |line: String| text.extend([line.as_str(), "\n"]);
    for policy in &finding.policies {
        let place = line(positions, [&policy.path, &policy.at]);
        let place = place.map_or_else(String::new, |line| format!(", {name}:{line}"));
        add(palette.head.apply_to(printable(&format!("{}{place}", policy.path))).to_string());
        if !finding.masquerade {
            add(palette.remove.apply_to("- the OutBoundNAT policy").to_string());
            continue;
        }
        for exception in &policy.exceptions {
            let is_wrong = policy.invalid.contains(exception);
            let (symbol, style) = if is_wrong { ("-", &palette.remove) } else { (" ", &palette.dim) };
            add(style.apply_to(printable(&format!("{symbol} {exception:?}"))).to_string());
        }
        for missing in &policy.missing {
            add(palette.add.apply_to(format!("+ \"{missing}\"")).to_string());
        }
    }
    if finding.policies.is_empty() && finding.masquerade {
        let list =
            texts(&finding.expected).iter().map(|net| format!("\"{net}\"")).collect::<Vec<_>>().join(", ");
        add(palette
            .head
            .apply_to("no OutBoundNAT policy; add one of these, depending on the API that the plugin uses:")
            .to_string());
        for policy in [
            format!(
                "HNS:                {{\"Name\": \"EndpointPolicy\", \"Value\": {{\"Type\": \"OutBoundNAT\", \"ExceptionList\": [{list}]}}}}"
            ),
            format!(
                "HCN (apiVersion 2): {{\"name\": \"EndpointPolicy\", \"value\": {{\"type\": \"OutBoundNAT\", \"settings\": {{\"exceptions\": [{list}]}}}}}}"
            ),
        ] {
            add(format!("  {policy}"));
        }
    }
    if finding.fits() {
        let what = if finding.masquerade {
            format!(
                "exempts {} from masquerading ({})",
                texts(&finding.expected).join(", "),
                policies(finding.policies.len())
            )
        } else {
            "masquerades nothing, as configured".to_owned()
        };
        add(printable(&format!("{name} {what}.")));
    }
    text
}

/// Returns the number of policies as text.
fn policies(number: usize) -> String {
    if number == 1 { "1 OutBoundNAT policy".to_owned() } else { format!("{number} OutBoundNAT policies") }
}

/// Returns why the CNI does not masquerade as configured.
pub(super) fn wrong(name: &str, finding: &MasqueradeReport) -> Error {
    if !finding.masquerade {
        let what = policies(finding.policies.len());
        return Error::new(
            Kind::Invalid,
            format!("{name} masquerades ({what}), but nat.masquerade is false"),
        )
        .with_code(Rule::CniMasquerade.number())
        .with_hint("remove the policy, so that packets keep the pod's address");
    }
    if finding.policies.is_empty() {
        return Error::new(
            Kind::Invalid,
            format!("{name} has no OutBoundNAT policy, so nothing is masqueraded"),
        )
        .with_code(Rule::CniMasquerade.number())
        .with_hint("add one of the policies above; or, if no node of the cluster masquerades, including Linux nodes, set `nat.masquerade: false`");
    }
    let missing: usize = finding.policies.iter().map(|policy| policy.missing.len()).sum();
    let invalid: usize = finding.policies.iter().map(|policy| policy.invalid.len()).sum();
    let mut parts = Vec::new();
    let verb = |number| if number == 1 { "is" } else { "are" };
    if missing > 0 {
        parts.push(format!("{} {} missing", count(missing, "exception"), verb(missing)));
    }
    if invalid > 0 {
        let what = if missing > 0 { invalid.to_string() } else { count(invalid, "exception") };
        let kinds = if invalid == 1 { "a prefix nor an address" } else { "prefixes nor addresses" };
        parts.push(format!("{what} {} neither {kinds}", verb(invalid)));
    }
    let ignored_key = finding.policies.iter().find_map(|policy| policy.ignored_key);
    let ignored = ignored_key.map(|key| format!("plugins with this apiVersion ignore {key}"));
    Error::new(
        Kind::Invalid,
        format!("{name} masquerades traffic that must keep the pod's address: {}", parts.join(", and ")),
    )
    .with_details(ignored)
    .with_code(Rule::CniMasquerade.number())
    .with_hint(
        "make the changes marked + and -, then restart the node's pods: running pods keep their old policy",
    )
}
