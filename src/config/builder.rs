//! Builds a tree from the events of a YAML parser, and hands over each node.

use std::{borrow::Cow, collections::HashMap};

use super::{
    capped::Capped,
    limits::{self, Budget, MAX_DEPTH},
    scalar::{self, ScalarForm},
    tree::{Mapping, NodeReceiver, Parsed, Span, SyntaxError, TreeNode, Value, push},
};
use crate::diagnose::Rule;

/// The usual number of keys of a node.
const NODE_KEYS: usize = 4;

/// The two kinds of collections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collection {
    List,
    Map,
}

/// A mapping or a list that is still being parsed.
struct OpenCollection<'a> {
    span: Span,
    anchor: usize,
    content: Content<'a>,
    size_before: usize,
}

enum Content<'a> {
    List(Vec<TreeNode<'a>>),
    Map(Box<Mapping<'a>>, Option<PendingKey<'a>>),
    /// The list of nodes, whose items are handed over.
    Nodes,
}

/// A key whose value is still to come. Has no text if it is not a scalar.
struct PendingKey<'a> {
    text: Option<Cow<'a, str>>,
    span: Span,
}

/// Receives the events of a YAML parser. An event with the anchor 0 has none.
pub(super) struct TreeBuilder<'a, 'r> {
    receiver: Option<&'r mut dyn NodeReceiver<'a>>,
    open: Vec<OpenCollection<'a>>,
    root: Option<TreeNode<'a>>,
    /// Anchored values, each with the number of nodes it contains.
    anchors: HashMap<usize, (TreeNode<'a>, usize)>,
    /// Includes values that aliases add.
    budget: Budget,
    errors: Capped<SyntaxError>,
}

impl<'a, 'r> TreeBuilder<'a, 'r> {
    /// Creates a builder for a text of `length` bytes. Without a receiver, the tree contains the nodes.
    pub fn new(length: usize, receiver: Option<&'r mut dyn NodeReceiver<'a>>) -> Self {
        Self {
            receiver,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            budget: Budget::new(length),
            errors: Capped::new(),
        }
    }

    /// Returns the tree of a text, given whether it is written plainly.
    pub fn finish(self, is_plain: bool) -> Parsed<'a> {
        let root = self.root.unwrap_or(TreeNode::new(0..0, Value::Null));
        Parsed::new(root, self.errors, is_plain)
    }

    pub fn scalar(
        &mut self,
        text: Cow<'a, str>,
        form: ScalarForm<'_>,
        span: Span,
        anchor: usize,
    ) -> Result<(), SyntaxError> {
        self.budget.take(1, &span)?;
        if anchor == 0 && self.expects_key() {
            self.key(Some(text), span);
            return Ok(());
        }
        let key = (anchor != 0 && self.expects_key()).then(|| text.clone());
        self.complete(TreeNode::new(span, scalar::value(text, form)), key, anchor, 1)
    }

    pub fn begin(&mut self, kind: Collection, span: Span, anchor: usize) -> Result<(), SyntaxError> {
        if self.open.len() == MAX_DEPTH {
            return Err(limits::too_deep(span));
        }
        self.budget.take(1, &span)?;
        let content = match kind {
            Collection::List if anchor == 0 && self.is_at_nodes() => Content::Nodes,
            Collection::List => Content::List(Vec::new()),
            Collection::Map => {
                let is_node =
                    matches!(self.open.last(), Some(OpenCollection { content: Content::Nodes, .. }));
                Content::Map(Mapping::with_capacity(if is_node { NODE_KEYS } else { 0 }).into(), None)
            }
        };
        self.open.push(OpenCollection { span, anchor, content, size_before: self.budget.used() - 1 });
        Ok(())
    }

    pub fn end(&mut self) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map(mapping, _) => Value::Map(mapping),
            Content::Nodes => Value::Nodes,
        };
        let size = self.budget.used() - open.size_before;
        self.complete(TreeNode::new(open.span, value), None, open.anchor, size)
    }

    pub fn alias(&mut self, anchor: usize, span: Span) -> Result<(), SyntaxError> {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            let message = "this alias refers to a value that contains it".to_owned();
            return Err(SyntaxError { rule: Rule::Syntax, message, span, hint: None });
        };
        self.budget.take(size, &span)?;
        let Some((node, _)) = self.anchors.get(&anchor) else { return Ok(()) };
        let node = TreeNode::new(span, node.value.clone());
        let key = match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.complete(node, key, 0, size)
    }

    /// Returns `true` if the next value is a key.
    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(OpenCollection { content: Content::Map(_, None), .. }))
    }

    /// Returns `true` if the next value is the list of nodes, and there is a receiver.
    fn is_at_nodes(&self) -> bool {
        let [OpenCollection { content: Content::Map(root, Some(key)), .. }] = &self.open[..] else {
            return false;
        };
        let Some(list) = self.receiver.as_ref().map(|receiver| receiver.list_key()) else { return false };
        key.text.as_deref() == Some(list) && root.get(list).is_none()
    }

    fn key(&mut self, text: Option<Cow<'a, str>>, span: Span) {
        let Some(OpenCollection { content: Content::Map(mapping, key), span: open, .. }) =
            self.open.last_mut()
        else {
            return;
        };
        // A mapping starts at its first key.
        if mapping.entries.is_empty() && open.start == open.end {
            *open = span.start..span.start;
        }
        if text.is_none() {
            self.errors.push(SyntaxError {
                rule: Rule::Syntax,
                message: "invalid key: expected a string, found a list or a mapping".to_owned(),
                span: span.clone(),
                hint: None,
            });
        }
        *key = Some(PendingKey { text, span });
    }

    /// Adds a complete value to the tree: as a key, a value, an item, or the root. A scalar can be a key.
    fn complete(
        &mut self,
        node: TreeNode<'a>,
        key: Option<Cow<'a, str>>,
        anchor: usize,
        size: usize,
    ) -> Result<(), SyntaxError> {
        if anchor != 0 {
            // The value is stored twice from here on.
            self.budget.take(size, &node.span())?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => push(items, node),
            Some(Content::Nodes) => {
                if let Some(receiver) = &mut self.receiver {
                    receiver.node(node);
                }
            }
            Some(Content::Map(_, None)) => self.key(key, node.span()),
            Some(Content::Map(mapping, pending)) => {
                if let Some(PendingKey { text: Some(text), span }) = pending.take() {
                    mapping.insert(text, span, node);
                }
            }
        }
        Ok(())
    }
}
