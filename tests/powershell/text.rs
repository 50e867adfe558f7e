//! The text of the scripts: it is valid PowerShell, contains the plan, and quotes all names.

use hostgw::{
    config::{self, Document, Format},
    model::{Cluster, InterfaceName},
    plan::{self, WindowsDesired, windows::WindowsObserved},
    render::{Provenance, windows_collector, windows_script},
};
use proptest::prelude::*;

use super::{CLUSTER, PROVENANCE, applied, cluster, machine, script_of, windows_nodes};
use crate::support::{
    cases,
    clusters::two,
    powershell::{lint, parse, routes_of, run},
};

/// Asserts what the script of the node at `index` must contain, by its syntax tree.
pub fn check_script(cluster: &Cluster, index: usize, desired: &WindowsDesired) -> String {
    let script = windows_script(cluster, index, desired, &PROVENANCE);
    for text in [&script, &windows_collector(cluster, index, &PROVENANCE)] {
        let (tree, errors) = &*parse(text);
        assert!(errors.is_empty(), "{errors:#?}");
        assert_eq!(lint(text, tree), Vec::<String>::new());
        assert!(text.lines().all(|line| line.len() <= 400), "lines are too long for a review");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "lines end as on Windows");
    }
    let (tree, _) = &*parse(&script);
    let routes: Vec<_> = desired
        .state
        .routes
        .iter()
        .map(|route| {
            let next_hop = route.next_hop.map(|address| address.to_string()).unwrap_or_default();
            (route.destination_prefix.to_string(), next_hop, route.route_metric.to_string())
        })
        .collect();
    assert_eq!(routes_of(&script, tree), routes);
    script
}

#[test]
fn scripts_of_every_example_are_valid_and_contain_the_plan() {
    let mut checked = 0;
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        if let (Some(_), Ok(document)) = (Format::of_path(&path), Document::read(&path)) {
            let cluster = config::load(&document).unwrap();
            for (index, desired) in windows_nodes(&cluster) {
                check_script(&cluster, index, &desired);
                checked += 1;
            }
        }
    }
    assert!(checked > 1);
}

/// The complete text, as a reviewer sees it.
#[test]
fn the_text_of_a_script() {
    let mut failures = Vec::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/render");
    let cluster = cluster(CLUSTER);
    for (index, desired) in windows_nodes(&cluster) {
        let name = &cluster.nodes[index].name;
        let script = windows_script(&cluster, index, &desired, &PROVENANCE);
        cases::compare(&root.join(format!("{name}.ps1")), &script, &mut failures);
    }
    let collector = windows_collector(&cluster, 1, &PROVENANCE);
    cases::compare(&root.join("win-1.collect.ps1"), &collector, &mut failures);
    cases::assert_none(3, &failures);
}

/// Names that would have an effect if they were not quoted.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "'",
        "''",
        "\"",
        "$",
        "$(exit 9)",
        "`",
        "`n",
        "\n",
        "\r\n",
        "\u{2018}",
        "\u{2019}",
        "\u{201b}",
        "\u{201c}",
        "\u{202e}",
        "\u{200b}",
        "#",
        "<#",
        "#>",
        "@'",
        "'@",
        "{",
        "}",
        ";",
        "; exit 9 #",
        "é",
        "\u{1f600}",
        "\0",
        "n",
        " ",
        "|",
        "&",
        "%",
        "[",
        "]",
        "*",
    ]);
    prop::collection::vec(pieces, 1..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scripts_of_random_clusters_are_valid_and_contain_the_plan((_, cluster) in two()) {
        for (index, desired) in windows_nodes(&cluster) {
            check_script(&cluster, index, &desired);
        }
    }

    /// A running script prints the exact names, and nothing in them is executed.
    #[test]
    fn hostile_names_are_quoted(
        names in prop::collection::vec(hostile(), 4),
        alias in hostile(),
        file in hostile(),
    ) {
        let mut cluster = cluster(CLUSTER);
        for (node, name) in cluster.nodes.iter_mut().zip(&names) {
            node.name = format!("{name}{}", node.name.as_raw()).into();
        }
        // Aliases with invisible characters are rejected.
        let alias = alias.replace(hostgw::text::is_hidden, "x") + "y";
        cluster.nodes[1].overrides_mut().egress_interface = Some(InterfaceName::windows(&alias).unwrap());
        let desired = plan::windows_desired(&cluster, 1).unwrap();
        let provenance = Provenance { file: &file, ..PROVENANCE };
        check_script(&cluster, 1, &desired);
        let script = windows_script(&cluster, 1, &desired, &provenance);
        let mut machine = machine();
        machine.interfaces[1].alias.clone_from(&alias);
        let outcome = run(&mut machine, &script, &[]);
        prop_assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
        let mut after = applied(super::machine());
        after.interfaces[1].alias.clone_from(&alias);
        prop_assert_eq!(machine.network(), after.network());
        for at in [0, 2, 3] {
            let routes = format!("{alias}: pods of node {}\n", cluster.nodes[at].name);
            prop_assert!(outcome.stdout.contains(&routes), "{routes:?} not in {:?}", outcome.stdout);
        }
        let collector = windows_collector(&cluster, 1, &provenance);
        let collected = run(&mut machine, &collector, &[]);
        let observed = WindowsObserved::parse("collected", &collected.stdout).unwrap();
        prop_assert_eq!(observed.node, cluster.nodes[1].name.as_raw());
    }
}

/// Scripts with one defect each: the checks must find it.
#[test]
fn the_checks_find_defects() {
    let script = script_of(CLUSTER, "win-1");
    let is_refused = |text: &str| {
        let (tree, errors) = &*parse(text);
        !errors.is_empty() || !lint(text, tree).is_empty()
    };
    assert!(!is_refused(&script));
    for (from, to) in [
        ("InterfaceIndex = $route.Index; ", ""),
        ("DestinationPrefix = $route.Destination; ", ""),
        ("; NextHop = $route.NextHop\r\n        Confirm", "\r\n        Confirm"),
        ("        Confirm = $false; WhatIf = $false; ErrorAction", "        WhatIf = $false; ErrorAction"),
        ("        Confirm = $false; WhatIf = $false; ErrorAction", "        Confirm = $false; ErrorAction"),
        ("Confirm = $false; WhatIf = $false; ErrorAction", "Confirm = $true; WhatIf = $false; ErrorAction"),
        ("WhatIf = $false; ErrorAction = 'Stop'", "WhatIf = $false; ErrorAction = 'Continue'"),
        ("Get-NetRoute -PolicyStore $store -ErrorAction Stop", "Get-NetRoute -PolicyStore $store"),
        ("Remove-NetRoute @target -PolicyStore $step.Store", "Remove-NetRoute @target"),
        (
            "Remove-NetRoute @target -PolicyStore $step.Store",
            "Remove-NetRoute @other -PolicyStore $step.Store",
        ),
        ("; AddressFamily = $change.Family\r\n", "\r\n"),
        ("'10.244.0.0/24'", "\"10.244.0.0/24$x\""),
        ("'pods of node linux-1'", "'pods of node linux'1'"),
        ("'pods of node linux-1'", "'pods of node linux\u{2019}1'"),
        ("$code = Invoke-Main", "$code = Invoke-Expression 'Invoke-Main'"),
        ("$code = Invoke-Main", "$code = & $main"),
        ("$code = Invoke-Main", "$code = [scriptblock]::Create('Invoke-Main')"),
        ("exit $code", "exit $code }"),
        ("$TaskPath; Confirm = $false; WhatIf", "$TaskPath; WhatIf"),
        ("TaskName = $TaskName; TaskPath = $TaskPath; Confirm", "TaskName = $TaskName; Confirm"),
        ("-TaskPath $TaskPath -ErrorAction Stop", "-TaskPath $TaskPath"),
        ("TaskPath = $TaskPath; ErrorAction = 'Stop'", "TaskPath = $TaskPath"),
        ("        $lock.Dispose()\r\n    }\r\n}", "        $lock.Dispose()\r\n    }\r\n"),
    ] {
        assert!(script.contains(from), "{from:?}");
        assert!(is_refused(&script.replacen(from, to, 1)), "{from:?} -> {to:?}");
    }
}

/// The self-test only runs on Windows. Here it is checked that it is valid PowerShell and only touches permitted
/// prefixes.
#[test]
fn the_self_test_is_valid_powershell() {
    let text = std::fs::read_to_string("examples/windows/self-test.ps1").unwrap();
    let (tree, errors) = &*parse(&text);
    assert!(errors.is_empty(), "{errors:#?}");
    let found = lint(&text, tree);
    let is_known = |line: &String| {
        ["calls the command in a variable", "SilentlyContinue", "does nothing"]
            .iter()
            .any(|known| line.contains(known))
    };
    assert!(found.iter().all(is_known), "{found:#?}");
    let document = Document::read(std::path::Path::new("examples/windows/self-test.yaml")).unwrap();
    let cluster = config::load(&document).unwrap();
    let (index, _) = cluster.node("self-test").unwrap();
    let desired = plan::windows_desired(&cluster, index).unwrap();
    for route in &desired.state.routes {
        let entry = format!(
            "@{{ Destination = '{}'; NextHop = '{}'; Metric = {} }}",
            route.destination_prefix,
            route.next_hop.unwrap(),
            route.route_metric
        );
        assert!(text.contains(&entry), "{entry}");
        let documentation = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"];
        let within =
            |prefix: &&str| prefix.parse::<ipnet::IpNet>().unwrap().contains(&route.destination_prefix);
        assert!(documentation.iter().any(within), "{route}");
    }
}
