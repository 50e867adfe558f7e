//! The syntax tree of a script: what `tree-sitter` found, copied once into a form in which a node knows its children.
//! In the parser's own tree, finding a child means walking over its siblings.

use std::{cell::RefCell, collections::VecDeque, ops::Range, rc::Rc};

use tree_sitter::Parser;

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

/// The syntax tree of a script, and everything that the parser rejects.
///
/// The last few are cached: tests check and run the same scripts many times, and parsing takes longer than running.
pub fn parse(text: &str) -> Rc<(Tree, Vec<String>)> {
    const CACHED: usize = 8;
    type Parsed = (String, Rc<(Tree, Vec<String>)>);
    thread_local! {
        static LATEST: RefCell<VecDeque<Parsed>> = const { RefCell::new(VecDeque::new()) };
    }
    LATEST.with_borrow_mut(|latest| {
        if let Some((_, parsed)) = latest.iter().find(|(of, _)| of == text) {
            return Rc::clone(parsed);
        }
        let parsed = Rc::new(parse_anew(text));
        latest.truncate(CACHED - 1);
        latest.push_front((text.to_owned(), Rc::clone(&parsed)));
        parsed
    })
}

fn parse_anew(text: &str) -> (Tree, Vec<String>) {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).expect("the grammar");
    let parsed = parser.parse(text, None).expect("a tree");
    let (mut tree, mut wrong) = (Tree(Vec::new()), Vec::new());
    tree.copy(&mut parsed.walk(), None, text, &mut wrong);
    (tree, wrong)
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
        self.0.push(Data { kind, span, line, parent, children, named, inner: at });
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

    /// The line where it begins, from 1.
    pub fn line(self) -> usize {
        self.data().line
    }

    pub fn parent(self) -> Option<Self> {
        self.data().parent.map(|at| Self { at, ..self })
    }

    /// All children, with the punctuation and the comments between them.
    pub fn children(self) -> Vec<Self> {
        self.data().children.iter().map(|&at| Self { at, ..self }).collect()
    }

    /// The children that have a meaning of their own.
    pub fn named_children(self) -> Vec<Self> {
        self.data().named.iter().map(|&at| Self { at, ..self }).collect()
    }

    /// Skips wrapper nodes.
    pub fn inner(self) -> Self {
        Self { at: self.data().inner, ..self }
    }
}
