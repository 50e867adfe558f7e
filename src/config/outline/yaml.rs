//! Finds the nodes in YAML.

use std::ops::Range;

use saphyr_parser::{Event, Parser, StrInput};

use super::{EntryPlace, ListLayout, NodePlace, Outline, line_end};
use crate::config::{
    tree::NODES,
    yaml::{Offsets, content_span},
};

/// Finds the nodes of a valid configuration.
pub(super) fn outline(text: &str) -> Option<Outline> {
    let mut walk = YamlWalk { text, offsets: Offsets::new(text), events: Parser::new_from_str(text) };
    loop {
        if let YamlEvent { kind: EventPart::Map, .. } = walk.next()? {
            break;
        }
    }
    loop {
        let key = walk.next()?;
        if matches!(key.kind, EventPart::End) {
            return None;
        }
        let is_nodes = matches!(&key.kind, EventPart::Scalar(text) if text == NODES);
        walk.finish(key)?;
        let value = walk.next()?;
        if is_nodes {
            return walk.list(&value);
        }
        walk.finish(value)?;
    }
}

/// A part of a text.
struct YamlEvent {
    kind: EventPart,
    range: Range<usize>,
    sharing: Sharing,
}

/// What a value shares with others.
#[derive(Debug, Clone, Copy, Default)]
struct Sharing {
    /// Whether it has an anchor or a tag, or is an alias.
    is_any: bool,
    has_anchor: bool,
}

impl Sharing {
    fn new(anchor: usize, has_tag: bool) -> Self {
        Self { is_any: anchor != 0 || has_tag, has_anchor: anchor != 0 }
    }

    /// What either of two values shares.
    const fn or(self, other: Self) -> Self {
        Self { is_any: self.is_any || other.is_any, has_anchor: self.has_anchor || other.has_anchor }
    }
}

enum EventPart {
    Scalar(String),
    List,
    Map,
    End,
}

/// The extent of a value.
struct YamlValue {
    range: Range<usize>,
    sharing: Sharing,
    is_list: bool,
    /// The scalar, or the items of a list of scalars; empty if there are others.
    scalars: Vec<Range<usize>>,
}

struct YamlWalk<'a> {
    text: &'a str,
    offsets: Offsets<'a>,
    events: Parser<'a, StrInput<'a>>,
}

impl YamlWalk<'_> {
    fn next(&mut self) -> Option<YamlEvent> {
        loop {
            let (event, span) = self.events.next()?.ok()?;
            let range = self.offsets.span(span.start, span.end);
            let (kind, sharing) = match event {
                Event::Scalar(text, _, anchor, tag) => {
                    (EventPart::Scalar(text.into_owned()), Sharing::new(anchor, tag.is_some()))
                }
                Event::Alias(_) => {
                    (EventPart::Scalar(String::new()), Sharing { is_any: true, has_anchor: false })
                }
                Event::SequenceStart(anchor, tag) => (EventPart::List, Sharing::new(anchor, tag.is_some())),
                Event::MappingStart(anchor, tag) => (EventPart::Map, Sharing::new(anchor, tag.is_some())),
                Event::SequenceEnd | Event::MappingEnd => {
                    return Some(YamlEvent { kind: EventPart::End, range, sharing: Sharing::default() });
                }
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd => continue,
            };
            return Some(YamlEvent { kind, range: content_span(self.text, range), sharing });
        }
    }

    /// Returns `true` if a collection that starts there has brackets. The parser locates a list that is not indented at its
    /// first item, which can be a mapping in braces.
    fn is_flow(&self, start: &Range<usize>, is_list: bool) -> bool {
        let bracket = if is_list { b'[' } else { b'{' };
        self.text.as_bytes().get(start.start) == Some(&bracket)
    }

    /// Reads the list of nodes.
    fn list(&mut self, start: &YamlEvent) -> Option<Outline> {
        (matches!(start.kind, EventPart::List) && !start.sharing.is_any).then_some(())?;
        let layout = if self.is_flow(&start.range, true) { ListLayout::Flow } else { ListLayout::Block };
        let mut nodes = Vec::new();
        loop {
            let item = self.next()?;
            match item.kind {
                EventPart::End => return Some(Outline { layout, nodes }),
                EventPart::Map => nodes.push(self.node(&item)?),
                // An alias of a node.
                _ => {
                    let Sharing { is_any: is_shared, has_anchor } = item.sharing;
                    let range = self.finish(item)?.range;
                    nodes.push(NodePlace {
                        lines: range.clone(),
                        range,
                        entries: Vec::new(),
                        is_inline: true,
                        is_shared,
                        has_anchor,
                    });
                }
            }
        }
    }

    fn node(&mut self, start: &YamlEvent) -> Option<NodePlace> {
        let is_inline = self.is_flow(&start.range, false);
        let mut node = NodePlace {
            range: start.range.clone(),
            lines: 0..0,
            entries: Vec::new(),
            is_inline,
            is_shared: start.sharing.is_any,
            has_anchor: start.sharing.has_anchor,
        };
        loop {
            let key = self.next()?;
            let text = match &key.kind {
                EventPart::End => {
                    if is_inline {
                        node.range.end = self.closed(&key.range, b'}')?;
                    } else {
                        node.range.start = node.entries.first()?.key_range.start;
                    }
                    return Some(node);
                }
                EventPart::Scalar(text) => text.clone(),
                _ => return None,
            };
            let first = self.next()?;
            let value = self.finish(first)?;
            let sharing = key.sharing.or(value.sharing);
            node.has_anchor |= sharing.has_anchor;
            node.range.end = value.range.end.max(key.range.end);
            node.entries.push(EntryPlace {
                key: text,
                key_range: key.range,
                range: value.range,
                scalars: value.scalars,
                is_list: value.is_list,
                is_shared: sharing.is_any,
            });
        }
    }

    /// The end of a closing bracket. The parser includes a comment after it, and locates the end of a collection with a
    /// comma after its last item at this comma.
    fn closed(&self, range: &Range<usize>, bracket: u8) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut at = range.start;
        if bytes.get(at) == Some(&b',') {
            at += 1;
            loop {
                match bytes.get(at)? {
                    b'#' => at = line_end(self.text, at),
                    byte if byte.is_ascii_whitespace() => at += 1,
                    _ => break,
                }
            }
        }
        (bytes.get(at) == Some(&bracket)).then_some(at + 1)
    }

    /// Reads the rest of a value.
    fn finish(&mut self, first: YamlEvent) -> Option<YamlValue> {
        let YamlEvent { kind, range, sharing } = first;
        let is_list = matches!(kind, EventPart::List);
        let is_flow = self.is_flow(&range, is_list);
        let bracket = match kind {
            EventPart::End => return None,
            EventPart::Scalar(_) => {
                return Some(YamlValue { scalars: vec![range.clone()], range, sharing, is_list });
            }
            EventPart::List => b']',
            EventPart::Map => b'}',
        };
        let mut value = YamlValue { range, sharing, is_list, scalars: Vec::new() };
        let mut items = 0;
        loop {
            let item = self.next()?;
            if let EventPart::End = item.kind {
                if is_flow {
                    value.range.end = self.closed(&item.range, bracket)?;
                }
                if !is_list || value.scalars.len() != items {
                    value.scalars.clear();
                }
                return Some(value);
            }
            let is_scalar = matches!(item.kind, EventPart::Scalar(_));
            let inner = self.finish(item)?;
            items += 1;
            if items == 1 && !is_flow {
                value.range.start = value.range.start.min(inner.range.start);
            }
            value.range.end = value.range.end.max(inner.range.end);
            value.sharing = value.sharing.or(inner.sharing);
            if is_scalar {
                value.scalars.push(inner.range);
            }
        }
    }
}
