//! The syntax tree of a script: what `tree-sitter` found, copied once into a form in which a node knows its children.
//! In the parser's own tree, finding a child means walking over its siblings.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use smallvec::SmallVec;
use tree_sitter::{InputEdit, Parser, Point};

/// The data of a node.
#[derive(Debug)]
struct Data {
    kind: &'static str,
    span: Range<usize>,
    line: usize,
    parent: Option<usize>,
    children: Vec<usize>,
    /// The children with names, without comments.
    named: Vec<usize>,
    /// The node that this one and its wrappers wrap: see [`Node::inner`].
    inner: usize,
    /// The text in lower case: PowerShell ignores the case of names.
    lower: OnceLock<Box<str>>,
}

/// Nodes that only wrap a single other node.
const TRANSPARENT: [&str; 32] = [
    "pipeline",
    "pipeline_chain",
    "logical_expression",
    "bitwise_expression",
    "comparison_expression",
    "additive_expression",
    "multiplicative_expression",
    "format_expression",
    "range_expression",
    "array_literal_expression",
    "unary_expression",
    "expression_with_unary_operator",
    "argument_expression",
    "logical_argument_expression",
    "bitwise_argument_expression",
    "comparison_argument_expression",
    "additive_argument_expression",
    "multiplicative_argument_expression",
    "format_argument_expression",
    "range_argument_expression",
    "string_literal",
    "integer_literal",
    "left_assignment_expression",
    "key_expression",
    "member_name",
    "script_block",
    "script_block_body",
    "for_initializer",
    "for_condition",
    "for_iterator",
    "attribute_list",
    "attribute",
];

/// The syntax tree of a script.
#[derive(Debug)]
pub struct Tree(Vec<Data>);

/// A node of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Node<'t> {
    tree: &'t Tree,
    at: usize,
}

/// The children of a node, which are rarely many.
pub type Nodes<'t> = SmallVec<[Node<'t>; 6]>;

/// A syntax tree, and everything that the parser rejects.
type Parsed = (Tree, Vec<String>);

/// A script that was parsed before.
struct Earlier {
    text: String,
    /// The parser's own tree, from which it continues if another script is similar.
    tree: tree_sitter::Tree,
    parsed: Arc<Parsed>,
}

/// The syntax tree of a script, and everything that the parser rejects.
///
/// The last few are cached: tests check and run the same scripts many times, and parsing takes longer than running. Of a
/// script that resembles one of them, only the difference is parsed: scripts differ in their data, and rarely in their code.
pub fn parse(text: &str) -> Arc<Parsed> {
    const CACHED: usize = 16;
    static EARLIER: Mutex<VecDeque<Earlier>> = Mutex::new(VecDeque::new());
    let lock = || EARLIER.lock().unwrap_or_else(PoisonError::into_inner);
    let similar = {
        let mut earlier = lock();
        if let Some(at) = earlier.iter().position(|earlier| earlier.text == text) {
            let used = earlier.remove(at).expect("its position");
            let parsed = Arc::clone(&used.parsed);
            earlier.push_front(used);
            return parsed;
        }
        let alike =
            |earlier: &&Earlier| common_prefix(&earlier.text, text) + common_suffix(&earlier.text, text);
        earlier.iter().max_by_key(alike).map(|earlier| (earlier.text.clone(), earlier.tree.clone()))
    };
    let tree = similar
        .and_then(|(other, tree)| parse_difference(text, &other, tree))
        .unwrap_or_else(|| parser_tree(text, None));
    let (mut copied, mut wrong) = (Tree(Vec::new()), Vec::new());
    copied.copy(&mut tree.walk(), None, text, &mut wrong);
    let parsed = Arc::new((copied, wrong));
    let mut earlier = lock();
    earlier.truncate(CACHED - 1);
    earlier.push_front(Earlier { text: text.to_owned(), tree, parsed: Arc::clone(&parsed) });
    parsed
}

/// Parses a script where it differs from another one. Returns `None` if it has an error: how the parser continues after one
/// depends on where it began.
fn parse_difference(text: &str, other: &str, mut tree: tree_sitter::Tree) -> Option<tree_sitter::Tree> {
    let start = (0..=common_prefix(other, text)).rfind(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let longest = other.len().min(text.len()) - start;
    let end = text.len() - common_suffix(other, text).min(longest);
    let new_end = (end..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let old_end = other.len() - (text.len() - new_end);
    tree.edit(&InputEdit {
        start_byte: start,
        old_end_byte: old_end,
        new_end_byte: new_end,
        start_position: position(text, start),
        old_end_position: position(other, old_end),
        new_end_position: position(text, new_end),
    });
    Some(parser_tree(text, Some(&tree))).filter(|tree| !tree.root_node().has_error())
}

fn parser_tree(text: &str, edited: Option<&tree_sitter::Tree>) -> tree_sitter::Tree {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).expect("the grammar");
    parser.parse(text, edited).expect("a tree")
}

/// Returns how many bytes two texts have in common at the beginning.
fn common_prefix(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

/// Returns how many bytes two texts have in common at the end.
fn common_suffix(one: &str, other: &str) -> usize {
    one.bytes().rev().zip(other.bytes().rev()).take_while(|(one, other)| one == other).count()
}

/// Returns the row and the column of a byte.
fn position(text: &str, at: usize) -> Point {
    let before = &text.as_bytes()[..at];
    let line = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    Point { row: before.iter().filter(|&&byte| byte == b'\n').count(), column: at - line }
}

#[test]
fn parsing_only_the_difference_makes_no_difference() {
    let base = "function Get-Two { param([int]$A = 1)\n  return $A + 1 }\n$Data = @(\n  'eins', 'zwei – drei'\n)\nGet-Two 3\n";
    let edits = [
        ("'eins'", "'one', 'two'"),
        ("'zwei – drei'", "'zwei — drei'"),
        ("$A + 1", "$A * (2 + $A)"),
        ("Get-Two 3\n", "Get-Two 3; if ($Data) { Get-Two 4 }\n"),
        ("function Get-Two", "# A comment.\nfunction Get-Three"),
        ("  'eins', 'zwei – drei'\n", ""),
        ("'eins'", "'<#'"),
        ("'eins', 'zwei", "\"eins $(Get-Two 1)\", 'zwei"),
    ];
    let copy = |tree: &tree_sitter::Tree, text: &str| {
        let mut copied = Tree(Vec::new());
        copied.copy(&mut tree.walk(), None, text, &mut Vec::new());
        format!("{copied:?}")
    };
    for (from, to) in edits {
        let text = base.replacen(from, to, 1);
        assert_ne!(text, base);
        for (old, new) in [(base, &*text), (&*text, base)] {
            let difference = parse_difference(new, old, parser_tree(old, None)).expect("no error");
            assert_eq!(copy(&difference, new), copy(&parser_tree(new, None), new), "{from} {to}");
        }
    }
    assert!(parse_difference("Get-Two 3)", "Get-Two 3", parser_tree("Get-Two 3", None)).is_none());
}

impl Tree {
    /// Copies the node at the cursor and everything below it. Returns its number.
    fn copy(
        &mut self,
        cursor: &mut tree_sitter::TreeCursor<'_>,
        parent: Option<usize>,
        text: &str,
        wrong: &mut Vec<String>,
    ) -> usize {
        let node = cursor.node();
        let line = node.start_position().row + 1;
        if node.is_error() || node.is_missing() {
            let text: String = text[node.byte_range()].chars().take(80).collect();
            wrong.push(format!("line {line}: {text:?}"));
        }
        let at = self.0.len();
        let span = node.byte_range();
        let (kind, children, named) = (node.kind(), Vec::new(), Vec::new());
        self.0.push(Data { kind, span, line, parent, children, named, inner: at, lower: OnceLock::new() });
        let mut has_child = cursor.goto_first_child();
        while has_child {
            let (is_named, kind) = (cursor.node().is_named(), cursor.node().kind());
            let child = self.copy(cursor, Some(at), text, wrong);
            self.0[at].children.push(child);
            if is_named && kind != "comment" {
                self.0[at].named.push(child);
            }
            has_child = cursor.goto_next_sibling();
            if !has_child {
                cursor.goto_parent();
            }
        }
        if TRANSPARENT.contains(&kind)
            && let [only] = self.0[at].named[..]
            && self.0[at].children.len() == 1
        {
            self.0[at].inner = self.0[only].inner;
        }
        at
    }

    pub fn root(&self) -> Node<'_> {
        Node { tree: self, at: 0 }
    }
}

impl<'t> Node<'t> {
    fn data(self) -> &'t Data {
        &self.tree.0[self.at]
    }

    pub fn kind(self) -> &'static str {
        self.data().kind
    }

    /// The bytes of the text.
    pub fn span(self) -> Range<usize> {
        self.data().span.clone()
    }

    /// Its part of the text in lower case.
    pub fn lower(self, text: &str) -> &'t str {
        self.data().lower.get_or_init(|| text[self.span()].to_lowercase().into())
    }

    /// The line where it begins, from 1.
    pub fn line(self) -> usize {
        self.data().line
    }

    pub fn parent(self) -> Option<Self> {
        self.data().parent.map(|at| Self { at, ..self })
    }

    /// All children, with the punctuation and the comments between them.
    pub fn children(self) -> Nodes<'t> {
        self.data().children.iter().map(|&at| Self { at, ..self }).collect()
    }

    /// The children that have a meaning of their own.
    pub fn named_children(self) -> Nodes<'t> {
        self.data().named.iter().map(|&at| Self { at, ..self }).collect()
    }

    /// Skips wrapper nodes.
    pub fn inner(self) -> Self {
        Self { at: self.data().inner, ..self }
    }
}
