//! Tests `hostgw help` and `hostgw man`.

use std::{fs, process::Command};

use crate::{
    e2e,
    support::{
        namespace::{Namespace, Privilege, Snapshots, is_root},
        say,
    },
};

fn node() -> Namespace {
    e2e::node(if is_root() { Privilege::Root } else { Privilege::User })
}

#[test]
fn help_explains_commands_and_guides() {
    let node = node();
    let mut snapshots = Snapshots::default();
    assert_eq!(node.hostgw_ok(&["help"]).stdout, node.hostgw_ok(&["--help"]).stdout);
    for command in ["plan", "apply", "simulate", "help"] {
        let help = node.hostgw_ok(&["help", command]).stdout;
        assert_eq!(help, node.hostgw_ok(&[command, "--help"]).stdout);
    }
    let help = node.hostgw_ok(&["help"]).stdout;
    for guide in hostgw::guide::GUIDES {
        assert!(help.contains(&format!("\n  {} ", guide.name)), "{} in {help}", guide.name);
        let text = node.hostgw_ok(&["help", guide.name]).stdout;
        let title = guide.markdown.lines().find_map(|line| line.strip_prefix("# ")).unwrap();
        assert!(text.starts_with(&format!("{title}\n")), "{text}");
    }
    snapshots.compare("help-glossary", &node.hostgw(&["help", "glossary"]));
    // Internal commands have no help, and an unknown topic suggests the nearest one.
    snapshots.compare("help-internal", &node.hostgw(&["help", "supervise"]));
    snapshots.compare("help-unknown", &node.hostgw(&["help", "glosary"]));
    snapshots.compare("help-no-suggestion", &node.hostgw(&["help", "\u{1b}[2Jquantum"]));
    snapshots.conclude();
}

#[test]
fn a_guide_is_shown_page_by_page() {
    let node = node();
    let plain = node.hostgw_ok(&["help", "glossary"]).stdout;
    let paged: String = plain.lines().map(|line| format!("paged:{line}\n")).collect();
    let script = "PAGER=\"sed s/^/paged:/\" \"$HOSTGW\" help glossary --color never";
    let shown = e2e::terminal::on_terminal(&node, 10, 100, script).expect(0).stdout;
    assert_eq!(shown, paged);
}

#[test]
fn manual_pages_are_clean() {
    let node = node();
    node.hostgw_ok(&["man", "share/man"]).warns("manual pages to share/man.");
    // Existing pages are replaced.
    node.hostgw_ok(&["man", "share/man"]);
    let folder = node.folder().join("share/man");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in ["hostgw.1", "hostgw-apply.1", "hostgw-check-cni.1", "hostgw-glossary.7", "hostgw-windows.7"]
    {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    assert_eq!(node.sh("find share -type f ! -perm 644"), "", "manual pages are readable by everyone");
    node.hostgw(&["man", "hostgw.yaml"]).expect(1).warns("cannot write hostgw.yaml: ");

    let Ok(lint) = Command::new("mandoc")
        .args(["-T", "lint", "-W", "warning"])
        .args(&names)
        .current_dir(&folder)
        .output()
    else {
        say("skipped: mandoc is not on the PATH, so the manual pages are not validated");
        return;
    };
    let found = String::from_utf8(lint.stdout).unwrap();
    // Outside of a repository, the date of a page is unknown.
    let warnings: Vec<&str> = found.lines().filter(|line| !line.contains("missing date")).collect();
    assert!(warnings.is_empty(), "{}", warnings.join("\n"));
}
