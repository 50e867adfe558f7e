//! Tests of large comments: what fits, and what is always included.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{COMMENT_LIMIT, comparison_markdown};
use crate::{
    config::{self, Document, Format},
    model::Cluster,
    plan::compare,
    render::{ComparedFiles, ComparisonReport, fold_names::expand_braces},
};

/// Creates a cluster of `nodes` nodes. `line` returns the name and the pod CIDR of each.
fn cluster(nodes: usize, head: &str, line: impl Fn(usize) -> (String, String)) -> Cluster {
    let mut text = format!("clusterPrefix: 10.0.0.0/8\negressInterface: eth0\n{head}\nnodes:\n");
    for node in 0..nodes {
        let (name, cidr) = line(node);
        let (high, low) = (node / 200, node % 200);
        let _ = writeln!(
            text,
            "  - {{name: '{name}', os: linux, podCIDR: {cidr}, address: 172.16.{high}.{low}}}"
        );
    }
    let document = Document::new("test", text, Format::Yaml);
    config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
}

fn usual(node: usize) -> (String, String) {
    (format!("node-{node}"), format!("10.{}.{}.0/24", node / 256, node % 256))
}

/// Pod CIDRs in no order, and random names.
fn scattered(node: usize) -> (String, String) {
    let place = node * 40_503 % 65_536;
    let name = format!("pool-{:05x}", node * 7_919_317 % 0x000f_ffff);
    (name, format!("10.{}.{}.{}/26", place / 256, place % 256, node % 4 * 64))
}

fn report(old: &Cluster, new: &Cluster) -> ComparisonReport {
    let files = ComparedFiles { old: Some((&"old.yaml".into(), old)), new: (&"new.yaml".into(), new) };
    ComparisonReport::new(compare(Some(old), new), files, |_, _| None)
}

/// Returns the names in the fenced lines that start with `-`, with folded names expanded.
fn removed(markdown: &str) -> BTreeSet<String> {
    let lines = markdown.lines().filter_map(|line| line.strip_prefix("- "));
    let words = lines.flat_map(|line| line.split(", ")).map(|word| {
        let word = word.split_once("  # ").map_or(word, |(object, _)| object);
        word.strip_prefix("node ").unwrap_or(word).trim()
    });
    let first = |word: &str| word.split(" via ").next().unwrap_or(word).to_owned();
    words.flat_map(expand_braces).map(|word| first(&word)).collect()
}

/// Asserts that the comment fits and lists every removal.
fn assert_fits(old: &Cluster, new: &Cluster, expected: impl Iterator<Item = String>) -> String {
    let markdown = comparison_markdown(&report(old, new), &"new.yaml".into());
    assert!(markdown.len() <= COMMENT_LIMIT, "{} bytes", markdown.len());
    let listed = removed(&markdown);
    let missing: Vec<String> = expected.filter(|name| !listed.contains(name)).collect();
    assert!(missing.is_empty(), "not listed: {:?} and {} in total", missing.first(), missing.len());
    markdown
}

fn cidr(line: (String, String)) -> String {
    line.1
}

#[test]
fn every_removal_of_5000_renumbered_nodes_is_listed() {
    for (before, after) in [(usual as fn(usize) -> _, 6_000), (scattered, 0)] {
        let old = cluster(5_000, "", before);
        // Each gets a /27, so no prefix stays.
        let new = cluster(5_000, "", |node| match after {
            0 => (before(node).0, before(node).1.replace("/26", "/27")),
            more => (before(node).0, usual(node + more).1),
        });
        let markdown = assert_fits(&old, &new, (0..5_000).map(|node| cidr(before(node))));
        assert!(
            markdown.contains("were omitted to fit the comment (removals never are)"),
            "{}",
            &markdown[..500]
        );
        assert!(markdown.contains("\n+ 5000 routes: "), "additions are collapsed");
    }
}

#[test]
fn every_removal_of_4999_nodes_is_listed() {
    let spread = |node: usize| (usual(node).0, scattered(node).1);
    for before in [usual as fn(usize) -> _, spread] {
        let old = cluster(5_000, "", before);
        let new = cluster(1, "", before);
        let names = (1..5_000).flat_map(|node| [before(node).0, before(node).1]);
        assert_fits(&old, &new, names);
    }
}

/// Every node gets the pod CIDR of the next one, so it loses the route to that one and gains one to its old CIDR.
#[test]
fn every_removal_of_5000_shifted_pod_cidrs_is_listed() {
    let old = cluster(5_000, "", usual);
    let new = cluster(5_000, "", |node| (usual(node).0, cidr(usual(node + 1))));
    assert_fits(&old, &new, (1..5_000).map(|node| cidr(usual(node))));
}

/// All 5,000 routes are replaced by routes with another metric.
#[test]
fn every_removal_of_5000_changed_metrics_is_listed() {
    let old = cluster(5_000, "routes: {metric: 7}", usual);
    let new = cluster(5_000, "routes: {metric: 8}", usual);
    assert_fits(&old, &new, (0..5_000).map(|node| format!("{} metric 7", cidr(usual(node)))));
}

/// Without removals, the other lines are omitted to fit: folded lines before visible ones.
#[test]
fn the_least_important_lines_are_omitted_first() {
    let nodes = |mtu: u32| cluster(1_500, &format!("routes: {{mtu: {mtu}}}"), usual);
    let markdown = comparison_markdown(&report(&nodes(1400), &nodes(1450)), &"new.yaml".into());
    assert!(
        markdown.len() <= COMMENT_LIMIT && markdown.len() > COMMENT_LIMIT - 500,
        "{} bytes",
        markdown.len()
    );
    assert!(markdown.contains("\n! 1501 routes: mtu 1400 -> 1450"), "{}", &markdown[..500]);
    assert!(markdown.contains("<summary>Details (1501 lines)</summary>"), "{}", &markdown[..500]);
    let listed = markdown.lines().filter(|line| line.starts_with("! 10.")).count();
    let cut = format!("_{} of 1502 lines were omitted", 1_501 - listed);
    assert!(listed > 500 && markdown.contains(&cut), "{listed} listed, not: {cut}");
}

/// With scattered pod CIDRs and random names, removed nodes are listed instead of the routes to them.
#[test]
fn unfoldable_removals_are_listed_once() {
    let old = cluster(5_000, "", scattered);
    let markdown = assert_fits(&old, &cluster(1, "", scattered), (1..5_000).map(|node| scattered(node).0));
    assert!(
        markdown.contains("\n- 4999 routes to the removed nodes, which are listed below\n"),
        "{}",
        &markdown[..500]
    );
}

/// A node name that cannot be folded.
fn unfoldable(node: usize) -> (String, String) {
    (format!("{}ö{node}", "x".repeat(40)), scattered(node).1)
}

#[test]
fn removed_nodes_with_long_names_are_listed_by_their_routes() {
    let old = cluster(5_000, "", unfoldable);
    let new = cluster(3_000, "", unfoldable);
    let markdown = assert_fits(&old, &new, (3_000..5_000).map(|node| unfoldable(node).1));
    assert!(markdown.contains("\n- the 2000 nodes that the routes above lead to\n"), "{}", &markdown[..500]);
}

#[test]
fn a_few_remaining_nodes_are_listed_instead_of_the_removed_ones() {
    let name =
        |node: usize| (unfoldable(node).0, format!("10.{}.{}.{}/28", node % 251, node % 241, node % 16 * 16));
    let (old, new) = (cluster(10_000, "", name), cluster(2, "", name));
    let markdown = assert_fits(&old, &new, std::iter::empty());
    let stay = format!("\n- every node of old.yaml except these:\n= {}, {}\n", name(0).0, name(1).0);
    assert!(markdown.contains(&stay), "{}", &markdown[..800]);
    assert!(
        markdown.contains("\n- 9998 routes to the removed nodes, which are listed below\n"),
        "{}",
        &markdown[..800]
    );
}

/// Removals that cannot fit are summarized as ranges with their numbers, and other changes follow.
#[test]
fn removals_that_cannot_fit_are_summarized() {
    let numbers = |markdown: &str| -> usize {
        let ranges = markdown.lines().filter(|line| line.starts_with("- "));
        let number = |line: &str| line.rsplit_once(" (")?.1.strip_suffix(')')?.parse::<usize>().ok();
        ranges.map(|line| number(line).unwrap_or(1)).sum()
    };
    let unusual =
        |node: usize| (unfoldable(node).0, format!("10.{}.{}.{}/28", node % 251, node % 241, node % 16 * 16));
    let (old, new) = (cluster(20_000, "", unusual), cluster(10_000, "", unusual));
    let removed = comparison_markdown(&report(&old, &new), &"new.yaml".into());
    // 10,000 nodes, and the route to each of them.
    assert_eq!(numbers(&removed), 20_000, "{removed}");
    // Each gets a /29, so no prefix stays.
    let smaller = |node: usize| (unusual(node).0, unusual(node).1.replace("/28", "/29"));
    let (old, new) = (cluster(20_000, "", unusual), cluster(20_000, "", smaller));
    let renumbered = comparison_markdown(&report(&old, &new), &"new.yaml".into());
    assert_eq!(numbers(&renumbered), 20_000, "{renumbered}");
    assert!(renumbered.contains("\n- 10.0.0.0/28 to "), "{renumbered}");
    assert!(renumbered.contains("\n+ 20000 routes: "), "additions are collapsed");
    for markdown in [removed, renumbered] {
        assert!(markdown.len() <= COMMENT_LIMIT, "{} bytes", markdown.len());
        assert!(
            markdown
                .contains("removals are summarized to fit the comment: run `hostgw diff --full` to see each"),
            "{markdown}"
        );
        assert!(!markdown.contains("removals never are"), "{markdown}");
    }
}
