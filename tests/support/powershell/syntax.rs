//! The syntax tree of a script: what `tree-sitter` found, copied once into a form in which a node knows its children.
//! In the parser's own tree, finding a child means walking over its siblings.

use std::ops::Range;

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
}

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
pub fn parse(text: &str) -> (Tree, Vec<String>) {
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
        self.0.push(Data { kind: node.kind(), span, line, parent, children: Vec::new(), named: Vec::new() });
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

    /// The only child, if it has a meaning of its own.
    pub fn only_child(self) -> Option<Self> {
        let data = self.data();
        match data.named[..] {
            [at] if data.children.len() == 1 => Some(Self { at, ..self }),
            _ => None,
        }
    }
}
