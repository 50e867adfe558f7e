//! `hostgw check-cni`

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Failure, Verdict,
    arguments::CheckCniOptions,
    output::Output,
    session::{load, text_of},
};
use crate::{
    cni::{self, Finding, Policy},
    config::{Document, Format, Positions},
    error::{Error, Kind},
    model::ConfigPath,
    render::Palette,
    text::{count, printable},
};

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// The result of `hostgw check-cni --json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "hostgw check-cni")]
pub(super) struct CniJson {
    /// Version of this form.
    format: u32,
    /// The CNI configuration, as named on the command line.
    file: String,
    /// Whether it leaves traffic inside the cluster alone.
    holds: bool,
    /// The exceptions that it needs.
    wanted: Vec<String>,
    /// The OutBoundNAT policies in it.
    policies: Vec<PolicyJson>,
}

/// One OutBoundNAT policy.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PolicyJson {
    /// The policy, as in `plugins[0].policies[1]`.
    path: String,
    /// The line of the policy, from 1, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The exceptions in it.
    exceptions: Vec<String>,
    /// Those of the exceptions that are neither a prefix nor an address.
    invalid: Vec<String>,
    /// The exceptions that it lacks.
    missing: Vec<String>,
    /// A spelling in it that a plugin of this apiVersion does not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<&'static str>,
}

/// Says whether a Windows CNI configuration leaves traffic inside the cluster alone.
pub(super) fn run(options: &CheckCniOptions, output: &Output) -> Verdict {
    let (name, text) = text_of(&options.cni)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    let configuration: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        Error::new(Kind::Invalid, format!("{name} is not JSON: {error}"))
            .with_hint("a CNI configuration is a JSON file, on Windows most often below C:\\k\\cni\\config or C:\\etc\\cni\\net.d")
    })?;
    let cluster = load(options.file.as_deref())?.cluster;
    let finding = cni::check(&configuration, &cluster);
    let positions = Document::new(name.clone(), text, Format::Yaml).positions();
    if options.json {
        output.json(&told(&name, &finding, &positions))?;
    } else {
        output.result(&picture(&name, &finding, &positions, &output.palette))?;
    }
    if finding.holds() {
        return Ok(0);
    }
    if !options.json {
        output.error(&wrong(&name, &finding));
    }
    Err(Failure::Said(Kind::Invalid))
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// The line of a place, or of what is around it.
fn line(positions: &Positions, paths: [&ConfigPath; 2]) -> Option<usize> {
    paths.into_iter().find_map(|path| positions.of(path)).map(|position| position.line)
}

fn told(name: &str, finding: &Finding, positions: &Positions) -> CniJson {
    let policy = |policy: &Policy| PolicyJson {
        path: policy.path.to_string(),
        line: line(positions, [&policy.path, &policy.at]),
        exceptions: policy.exceptions.clone(),
        invalid: policy.invalid.clone(),
        missing: texts(&policy.missing),
        unread: policy.unread,
    };
    CniJson {
        format: FORMAT,
        file: name.to_owned(),
        holds: finding.holds(),
        wanted: texts(&finding.wanted),
        policies: finding.policies.iter().map(policy).collect(),
    }
}

/// Every policy with its exceptions, and with what is to be added or removed.
fn picture(name: &str, finding: &Finding, positions: &Positions, palette: &Palette) -> String {
    let mut text = String::new();
    let mut add = |line: String| text.extend([line.as_str(), "\n"]);
    for policy in &finding.policies {
        let place = line(positions, [&policy.path, &policy.at]);
        let place = place.map_or_else(String::new, |line| format!(", {name}:{line}"));
        add(palette.head.apply_to(printable(&format!("{}{place}", policy.path))).to_string());
        if !finding.masquerade {
            add(palette.remove.apply_to("- the policy OutBoundNAT").to_string());
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
            texts(&finding.wanted).iter().map(|net| format!("\"{net}\"")).collect::<Vec<_>>().join(", ");
        add(palette
            .head
            .apply_to("policies, by the interface that the plugin speaks: HNS, or HCN (apiVersion 2)")
            .to_string());
        for policy in [
            format!(
                "{{\"Name\": \"EndpointPolicy\", \"Value\": {{\"Type\": \"OutBoundNAT\", \"ExceptionList\": [{list}]}}}}"
            ),
            format!(
                "{{\"name\": \"EndpointPolicy\", \"value\": {{\"type\": \"OutBoundNAT\", \"settings\": {{\"exceptions\": [{list}]}}}}}}"
            ),
        ] {
            add(palette.add.apply_to(format!("+ {policy}")).to_string());
        }
    }
    if finding.holds() {
        let what = if finding.masquerade {
            format!("holds {} in {}", texts(&finding.wanted).join(", "), policies(finding.policies.len()))
        } else {
            "masquerades nothing, as the file asks".to_owned()
        };
        add(printable(&format!("{name} {what}.")));
    }
    text
}

/// So many policies.
fn policies(number: usize) -> String {
    if number == 1 { "1 OutBoundNAT policy".to_owned() } else { format!("{number} OutBoundNAT policies") }
}

fn wrong(name: &str, finding: &Finding) -> Error {
    if !finding.masquerade {
        let what = policies(finding.policies.len());
        return Error::new(
            Kind::Invalid,
            format!("{name} masquerades ({what}), and nat.masquerade is false"),
        )
        .with_hint("remove the policy: without it every packet keeps the pod's address");
    }
    if finding.policies.is_empty() {
        return Error::new(
            Kind::Invalid,
            format!("{name} has no OutBoundNAT policy: nothing is masqueraded"),
        )
        .with_hint("add one of those above, or set nat.masquerade: false");
    }
    let missing: usize = finding.policies.iter().map(|policy| policy.missing.len()).sum();
    let invalid: usize = finding.policies.iter().map(|policy| policy.invalid.len()).sum();
    let mut parts = Vec::new();
    if missing > 0 {
        parts.push(format!("{} missing", count(missing, "exception")));
    }
    if invalid > 0 {
        parts.push(format!("{} neither a prefix nor an address", count(invalid, "exception")));
    }
    let unread = finding.policies.iter().find_map(|policy| policy.unread);
    let unread = unread.map(|spelling| format!("{spelling} is not read by a plugin of that apiVersion"));
    Error::new(
        Kind::Invalid,
        format!(
            "{name} does not keep the source address of traffic inside the cluster: {}",
            parts.join(", ")
        ),
    )
    .with_details(unread)
    .with_hint("change the lines with + and -; pods that run already keep the policy they were started with")
}
