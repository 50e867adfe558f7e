//! The guides of hostgw. `hostgw help NAME` shows them, `hostgw man` writes them as manual pages, and they are also
//! modules of this documentation.

mod document;
mod roff;
mod terminal;

pub use roff::{NO_DATE, roff, without_date};
pub use terminal::{explanation, text};

/// A guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guide {
    /// The name of the guide, as in `hostgw help NAME`.
    pub name: &'static str,
    /// The subject, as a sentence fragment.
    pub summary: &'static str,
    /// The text in Markdown.
    pub markdown: &'static str,
}

impl Guide {
    /// Returns the guide with this `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        GUIDES.iter().find(|guide| guide.name == name)
    }
}

/// Defines the guides, each as a module and as an item of [`GUIDES`].
///
/// Links between guides refer to files, as required for readers of the repository. `links.md` maps the same names to
/// the paths that rustdoc requires: if a name is defined twice, Markdown uses the first definition.
macro_rules! guides {
    ($($module:ident $name:literal $summary:literal)*) => {
        $(
            #[doc = include_str!("links.md")]
            #[doc = include_str!(concat!($name, ".md"))]
            pub mod $module {}
        )*

        /// Every guide, in the order for newcomers.
        pub const GUIDES: &[Guide] = &[
            $(Guide { name: $name, summary: $summary, markdown: include_str!(concat!($name, ".md")) },)*
        ];
    };
}

guides! {
    configuration "configuration" "every key of the configuration, and where hostgw looks for it"
    importing "importing" "write and update the configuration from the nodes that kubectl lists"
    plan_and_apply "plan-and-apply" "how to read a plan, apply it safely, and undo it"
    pull_requests "pull-requests" "review a change as the routes it will add and remove"
    windows "windows" "Windows nodes, and Linux nodes without hostgw"
    simulation "simulation" "try a configuration in network namespaces"
    rehearsal "rehearsal" "try a plan on a copy of this node, firewall included"
    ownership "ownership" "what hostgw manages, and what it never touches"
    node_agent "node-agent" "keep a node in sync with its configuration"
    auditing "auditing" "check a whole cluster from snapshots of its nodes"
    boot "boot" "what happens at boot, and how to restore routes, NAT and sysctls"
    kubernetes "kubernetes" "run the agent on every node of a cluster, as a DaemonSet"
    ansible "ansible" "roll out to many nodes with Ansible, in batches that roll back"
    exit_codes_and_json "exit-codes-and-json" "exit codes, JSON documents and environment variables"
    platforms "platforms" "the kernels and systems that hostgw runs on"
    performance "performance" "how fast hostgw is, and how to measure it"
    diagnostics "diagnostics" "the codes of errors and warnings, and what they mean"
    troubleshooting "troubleshooting" "common errors and how to fix them"
    migrating "migrating" "move from manual routes, flannel, kube-router or Calico"
    internals "internals" "what an apply does, step by step, and how hostgw survives failures"
    glossary "glossary" "the words that hostgw uses"
}

#[cfg(test)]
mod tests {
    use super::{
        document::{Block, GuidePage, Piece},
        *,
    };

    /// Collects every piece of text in `blocks`.
    fn pieces<'a>(blocks: &'a [Block], found: &mut Vec<&'a Piece>) {
        for block in blocks {
            match block {
                Block::Heading(_, text) | Block::Paragraph(text) => found.extend(text),
                Block::Code(_) => {}
                Block::List(_, items) => items.iter().for_each(|item| pieces(item, found)),
                Block::Table(rows) => found.extend(rows.iter().flatten().flatten()),
            }
        }
    }

    #[test]
    fn every_guide_starts_with_its_title() {
        for guide in GUIDES {
            let document = GuidePage::parse(guide.markdown);
            assert!(matches!(document.blocks.first(), Some(Block::Heading(1, _))), "{}", guide.name);
            let others = document.blocks.iter().skip(1);
            let is_title = |block: &Block| matches!(block, Block::Heading(1, _));
            assert!(!others.into_iter().any(is_title), "{} has two titles", guide.name);
        }
    }

    #[test]
    fn every_link_has_a_target() {
        for guide in GUIDES {
            let document = GuidePage::parse(guide.markdown);
            let mut found = Vec::new();
            pieces(&document.blocks, &mut found);
            // A link that the guide does not define is text, in several pieces.
            let mut plain = String::new();
            for piece in found {
                match piece {
                    Piece::Guide(name) => assert!(Guide::find(name).is_some(), "{}: {name}", guide.name),
                    Piece::Plain(text) => plain.push_str(text),
                    _ => {}
                }
            }
            assert!(!plain.contains("]["), "{}: {plain}", guide.name);
        }
    }

    #[test]
    fn every_link_between_guides_works_in_rustdoc() {
        let defined = |text: &str| -> Vec<String> {
            let names = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
            names.map(|(name, _)| name.to_owned()).collect()
        };
        let paths = defined(include_str!("links.md"));
        for guide in GUIDES {
            for name in defined(guide.markdown) {
                assert!(paths.contains(&name), "links.md does not define [{name}] of {}", guide.name);
            }
            assert!(!guide.markdown.contains(".md)"), "{}: name links between guides", guide.name);
        }
    }
}
