//! Large comments: what fits, and what is there in any case.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{LIMIT, comparison_markdown};
use crate::{
    config::{self, Document, Format},
    model::Cluster,
    plan::compare,
    render::{ComparisonReport, Files, compact::expand},
};

/// A cluster of so many nodes; `line` gives the name and the pod CIDR of each.
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

/// Spread over the prefix without any order, and of names that say nothing.
fn scattered(node: usize) -> (String, String) {
    let place = node * 40_503 % 65_536;
    let name = format!("pool-{:05x}", node * 7_919_317 % 0x000f_ffff);
    (name, format!("10.{}.{}.{}/26", place / 256, place % 256, node % 4 * 64))
}

fn report(old: &Cluster, new: &Cluster) -> ComparisonReport {
    let files = Files { old: Some((&"old.yaml".into(), old)), new: (&"new.yaml".into(), new) };
    ComparisonReport::new(&compare(Some(old), new), files, |_, _| None)
}

/// Every name in the fenced lines that begin with `-`, with those that share a word.
fn removed(markdown: &str) -> BTreeSet<String> {
    let lines = markdown.lines().filter_map(|line| line.strip_prefix("- "));
    let words = lines.flat_map(|line| line.split(", ")).map(|word| {
        let word = word.split_once("  # ").map_or(word, |(object, _)| object);
        word.strip_prefix("node ").unwrap_or(word).trim()
    });
    let first = |word: &str| word.split(" via ").next().unwrap_or(word).to_owned();
    words.flat_map(expand).map(|word| first(&word)).collect()
}

/// Checks that it fits and that every removal is in it.
fn fits(old: &Cluster, new: &Cluster, gone: impl Iterator<Item = String>) -> String {
    let markdown = comparison_markdown(&report(old, new), &"new.yaml".into());
    assert!(markdown.len() <= LIMIT, "{} bytes", markdown.len());
    let told = removed(&markdown);
    let missing: Vec<String> = gone.filter(|name| !told.contains(name)).collect();
    assert!(missing.is_empty(), "not told: {:?} of {}", missing.first(), missing.len());
    markdown
}

fn cidr(line: (String, String)) -> String {
    line.1
}

#[test]
fn of_5000_renumbered_nodes_every_removal_is_told() {
    for (before, after) in [(usual as fn(usize) -> _, 6_000), (scattered, 0)] {
        let old = cluster(5_000, "", before);
        // A /27 each, so that no prefix stays.
        let new = cluster(5_000, "", |node| match after {
            0 => (before(node).0, before(node).1.replace("/26", "/27")),
            more => (before(node).0, usual(node + more).1),
        });
        let markdown = fits(&old, &new, (0..5_000).map(|node| cidr(before(node))));
        assert!(markdown.contains("were cut to fit a comment (removals never are)"), "{}", &markdown[..500]);
        assert!(markdown.contains("\n+ 5000 routes: "), "what comes is told in short");
    }
}

#[test]
fn of_4999_removed_nodes_every_removal_is_told() {
    let spread = |node: usize| (usual(node).0, scattered(node).1);
    for before in [usual as fn(usize) -> _, spread] {
        let old = cluster(5_000, "", before);
        let new = cluster(1, "", before);
        let names = (1..5_000).flat_map(|node| [before(node).0, before(node).1]);
        fits(&old, &new, names);
    }
}

/// Every node has the pod CIDR of the one after it: each gets a route to what was its own, and loses one.
#[test]
fn of_5000_shifted_pod_cidrs_every_removal_is_told() {
    let old = cluster(5_000, "", usual);
    let new = cluster(5_000, "", |node| (usual(node).0, cidr(usual(node + 1))));
    fits(&old, &new, (1..5_000).map(|node| cidr(usual(node))));
}

/// All 5,000 routes are other ones: with another metric, and in the words of people with a metric.
#[test]
fn of_5000_routes_with_another_metric_every_removal_is_told() {
    let old = cluster(5_000, "routes: {metric: 7}", usual);
    let new = cluster(5_000, "routes: {metric: 8}", usual);
    fits(&old, &new, (0..5_000).map(|node| format!("{} metric 7", cidr(usual(node)))));
}

/// Where nothing is removed, all else is cut to fit, what is folded before what is shown.
#[test]
fn what_is_least_dangerous_is_cut_first() {
    let nodes = |mtu: u32| cluster(1_500, &format!("routes: {{mtu: {mtu}}}"), usual);
    let markdown = comparison_markdown(&report(&nodes(1400), &nodes(1450)), &"new.yaml".into());
    assert!(markdown.len() <= LIMIT && markdown.len() > LIMIT - 500, "{} bytes", markdown.len());
    assert!(markdown.contains("\n! 1501 routes: mtu 1400 -> 1450"), "{}", &markdown[..500]);
    assert!(markdown.contains("<summary>One by one: 1501 lines</summary>"), "{}", &markdown[..500]);
    let told = markdown.lines().filter(|line| line.starts_with("! 10.")).count();
    let cut = format!("_{} of 1502 lines were cut", 1_501 - told);
    assert!(told > 500 && markdown.contains(&cut), "{told} told, not: {cut}");
}

/// With neither order in the pod CIDRs nor sense in the names: a removed node is named, and so are the routes to it.
#[test]
fn removals_without_any_order_are_told_too() {
    let old = cluster(5_000, "", scattered);
    let markdown = fits(&old, &cluster(1, "", scattered), (1..5_000).map(|node| scattered(node).0));
    assert!(
        markdown.contains("\n- 4999 routes to the removed nodes, which are listed below\n"),
        "{}",
        &markdown[..500]
    );
}

/// The name of a node that nobody can put in fewer words.
fn endless(node: usize) -> (String, String) {
    (format!("{}ö{node}", "x".repeat(40)), scattered(node).1)
}

#[test]
fn removed_nodes_of_endless_names_are_told_by_the_routes_to_them() {
    let old = cluster(5_000, "", endless);
    let new = cluster(3_000, "", endless);
    let markdown = fits(&old, &new, (3_000..5_000).map(|node| endless(node).1));
    assert!(markdown.contains("\n- the 2000 nodes that the routes above lead to\n"), "{}", &markdown[..500]);
}

#[test]
fn where_few_nodes_stay_these_are_told() {
    let name =
        |node: usize| (endless(node).0, format!("10.{}.{}.{}/28", node % 251, node % 241, node % 16 * 16));
    let (old, new) = (cluster(10_000, "", name), cluster(2, "", name));
    let markdown = fits(&old, &new, std::iter::empty());
    let stay = format!("\n- every node of old.yaml but these, which stay:\n= {}, {}\n", name(0).0, name(1).0);
    assert!(markdown.contains(&stay), "{}", &markdown[..800]);
    assert!(
        markdown.contains("\n- 9998 routes to the removed nodes, which are listed below\n"),
        "{}",
        &markdown[..800]
    );
}

/// Where nobody can put it in fewer words, it is too long, and whole.
#[test]
fn removals_that_cannot_fit_are_told_nonetheless() {
    let name =
        |node: usize| (endless(node).0, format!("10.{}.{}.{}/28", node % 251, node % 241, node % 16 * 16));
    let (old, new) = (cluster(20_000, "", name), cluster(10_000, "", name));
    let markdown = comparison_markdown(&report(&old, &new), &"new.yaml".into());
    assert!(markdown.len() > LIMIT, "{} bytes", markdown.len());
    let told = removed(&markdown);
    assert!((10_000..20_000).all(|node| told.contains(&name(node).1)));
}
