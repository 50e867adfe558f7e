//! Measures what hostgw computes without a node: reading a configuration, planning, comparing, and printing.
//!
//! `cargo bench --bench pure` measures every function for 1,000, 10,000 and 100,000 nodes, and compares it with the run
//! before. `cargo bench --bench pure -- plan` selects by name.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{fmt::Write as _, net::Ipv4Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hostgw::{
    config::{Document, Format, Loaded},
    plan::{self, ForeignPolicy, OriginalSysctls, PreviousConfig},
    render::{Locator, Palette, Report, plan_markdown, text},
    state::State,
};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

fn cidr(node: usize) -> String {
    let base = u32::from(Ipv4Addr::new(10, 0, 0, 0));
    format!("{}/26", Ipv4Addr::from(base + 64 * u32::try_from(node).expect("few nodes")))
}

/// A cluster in each of the forms that are read differently.
fn configuration(form: &str, nodes: usize) -> Document {
    let mut text = match form {
        "toml" => "clusterPrefix = '10.0.0.0/8'\negressInterface = 'eth0'\n".to_owned(),
        "json" => {
            "{\"clusterPrefix\": \"10.0.0.0/8\", \"egressInterface\": \"eth0\", \"nodes\": [\n".to_owned()
        }
        _ => "clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnodes:\n".to_owned(),
    };
    for node in 0..nodes {
        let cidr = cidr(node);
        let _ = match form {
            "toml" => writeln!(text, "[[nodes]]\nname = 'n{node}'\nos = 'linux'\npodCIDR = '{cidr}'"),
            "json" => {
                let comma = if node + 1 < nodes { "," } else { "" };
                writeln!(text, "{{\"name\": \"n{node}\", \"os\": \"linux\", \"podCIDR\": \"{cidr}\"}}{comma}")
            }
            // Tags are left to the YAML parser.
            "yaml-tagged" => writeln!(text, "  - {{name: n{node}, os: !!str linux, podCIDR: {cidr}}}"),
            _ => writeln!(text, "  - {{name: n{node}, os: linux, podCIDR: {cidr}}}"),
        };
    }
    if form == "json" {
        text.push_str("]}\n");
    }
    let format = if form == "toml" { Format::Toml } else { Format::Yaml };
    Document::new("hostgw.yaml", text, format)
}

fn loaded(nodes: usize) -> Loaded {
    Loaded::new(configuration("yaml", nodes)).expect("valid")
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64)).sample_size(10);
        for form in ["yaml", "yaml-tagged", "json", "toml"] {
            let document = configuration(form, size);
            group.bench_function(BenchmarkId::new(form, size), |bencher| {
                // A copy does not know its positions yet.
                let copy = || Document::new("hostgw.yaml", document.text().to_owned(), document.format());
                bencher.iter_with_large_drop(|| Loaded::new(copy()).expect("valid"));
            });
        }
        let (earlier, later) = (configuration("yaml", size - 1), loaded(size));
        group.bench_function(BenchmarkId::new("earlier", size), |bencher| {
            let copy = || Document::new("hostgw.yaml", earlier.text().to_owned(), earlier.format());
            bencher.iter_with_large_drop(|| Loaded::earlier(copy(), &later).expect("valid"));
        });
    }
}

fn planning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64)).sample_size(10);
        let (loaded, more) = (loaded(size), loaded(size + 1));
        let saved = OriginalSysctls::default();
        let desired = plan::desired(&loaded.cluster, 0, &saved).expect("a Linux node");
        group.bench_function(BenchmarkId::new("desired", size), |bencher| {
            bencher.iter_with_large_drop(|| plan::desired(&loaded.cluster, 0, &saved));
        });
        for (name, live) in [("nothing", State::default()), ("no-change", desired.state.clone())] {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_with_large_drop(|| plan::plan(&desired.state, &live, ForeignPolicy::Respect));
            });
        }
        let plan = plan::plan(&desired.state, &State::default(), ForeignPolicy::Respect);
        let locator = Locator::new(&loaded.document);
        let explain = |change: &_| plan::reason(Some(&loaded.cluster), &desired, &saved, None, change);
        let report = || Report::new(&plan, explain, |_, path| locator.source(path));
        group.bench_function(BenchmarkId::new("report", size), |bencher| {
            bencher.iter_with_large_drop(report);
        });
        let (report, palette) = (report(), Palette::new(false));
        group.bench_function(BenchmarkId::new("text", size), |bencher| {
            bencher.iter_with_large_drop(|| text(&report, &palette));
        });
        group.bench_function(BenchmarkId::new("markdown", size), |bencher| {
            bencher.iter_with_large_drop(|| plan_markdown(&report));
        });
        group.bench_function(BenchmarkId::new("compare", size), |bencher| {
            bencher.iter_with_large_drop(|| plan::compare(Some(&loaded.cluster), &more.cluster));
        });
        group.bench_function(BenchmarkId::new("previous", size), |bencher| {
            let plan = plan::Plan::default();
            bencher.iter_with_large_drop(|| PreviousConfig::new(&loaded.cluster, &more.cluster, 0, &plan));
        });
    }
}

criterion_group!(benches, reading, planning);
criterion_main!(benches);
