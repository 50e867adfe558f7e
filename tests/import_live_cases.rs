//! Folders of cases: `tests/cases/import-live/NAME/` holds the observed state of a node (`observed.json`), what the variants of
//! `iptables-save` print there, flannel's `subnet.env`, further `arguments`, and what `hostgw import --live` makes of them. A
//! new folder is a new test.
//!
//! Every configuration is valid, and a plan with it only takes routes over.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hostgw::{
    config::{self, Document, Format},
    import::{IptablesDump, LiveImport, LiveOptions, LiveSources, import_live},
    model::Family,
    plan::{self, Change, ForeignPolicy, Observed, OriginalSysctls, Scope},
};

use crate::support::cases;

/// The options that the command line would read.
fn options(arguments: &str) -> LiveOptions {
    let mut options = LiveOptions {
        format: Format::Yaml,
        cluster_prefixes: Vec::new(),
        egress_interface: None,
        pod_cidrs: None,
        node_name: None,
    };
    let mut words = arguments.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        let nets = |text: &str| text.split(',').map(|net| net.parse().expect("a prefix")).collect();
        match word {
            "--toml" => options.format = Format::Toml,
            "--cluster-prefix" => options.cluster_prefixes = nets(value()),
            "--egress-interface" => options.egress_interface = Some(value().to_owned()),
            "--node-name" => options.node_name = Some(value().to_owned()),
            "--pod-cidr" => {
                let value = value();
                options.pod_cidrs = Some(if value == "none" { Vec::new() } else { nets(value) });
            }
            other => panic!("unknown argument {other}"),
        }
    }
    options
}

/// The state of a case, and what is made of it.
fn imported(folder: &Path) -> (Observed, LiveOptions, Result<LiveImport, String>) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let observed: Observed = serde_json::from_str(&read("observed.json").expect("a state"))
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let dumps =
        ["iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"].into_iter().filter_map(|program| {
            let family = if program.starts_with("ip6") { Family::V6 } else { Family::V4 };
            Some(IptablesDump { program: program.to_owned(), family, text: read(&format!("{program}.txt"))? })
        });
    let dumps: Vec<IptablesDump> = dumps.collect();
    let options = options(&read("arguments").unwrap_or_default());
    let flannel = read("subnet.env");
    let sources = LiveSources {
        host_name: Some("machine"),
        state: &observed.state,
        host: &observed.host,
        iptables: &dumps,
        flannel: flannel.as_deref(),
    };
    let result = import_live(&sources, &options).map_err(|errors| {
        let line = |error: hostgw::diagnose::Diagnostic| {
            format!("error[{}]: {error}\n  help: {}\n", error.rule, error.remedy.as_deref().unwrap_or("none"))
        };
        errors.into_iter().map(line).collect()
    });
    (observed, options, result)
}

#[test]
fn every_node_is_described_in_these_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/import-live");
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut failures = Vec::new();
    for folder in &folders {
        let (observed, options, result) = imported(folder);
        let text = match &result {
            Err(errors) => errors.clone(),
            Ok(live) => {
                let finding = |finding: &hostgw::diagnose::Diagnostic| {
                    format!("warning[{}]: {finding}\n", finding.rule)
                };
                let findings: String = live.findings.iter().map(finding).collect();
                format!("{}--- {} nodes\n{findings}--- script\n{}", live.text, live.nodes, live.script)
            }
        };
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
        cases::compare(&folder.join("expected.txt"), &text, &mut failures);
        if let Ok(live) = &result {
            takes_over(folder, &observed, &options, live);
        }
    }
    cases::assert_none(folders.len(), &failures);
}

/// The plan neither adds nor removes a route, and no command removes one that it adopts.
fn takes_over(folder: &Path, observed: &Observed, options: &LiveOptions, live: &LiveImport) {
    let document = Document::new("hostgw.yaml", live.text.clone(), options.format);
    let cluster = config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
    let name = options.node_name.as_deref().unwrap_or("machine");
    let (index, _) = cluster.node(name).expect("this node");
    let desired = plan::desired(&cluster, index, &OriginalSysctls::default()).expect("a Linux node");
    let scope = Scope::of(&desired.state, desired.prefixes.clone());
    let within = observed.within(&scope);
    let plan = plan::plan(&desired.state, &within.state, ForeignPolicy::Adopt);
    for change in &plan.changes {
        if let Change::Route(change) = change {
            let is_taken_over = !change.before.is_empty() && !change.after.is_empty();
            assert!(is_taken_over, "{}: {change:?}", folder.display());
            for route in change.before.iter().chain(&change.after) {
                let removal = route.arguments().join(" ");
                assert!(
                    !live.script.contains(&format!("route del {removal}\n")),
                    "{}: {removal}",
                    folder.display()
                );
            }
        }
    }
}
