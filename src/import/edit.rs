//! Edits the nodes in the text of a configuration, and leaves every other byte as it is.

use std::ops::Range;

use super::{
    changes::{AddedNode, ChangeSet, KeyChange},
    syntax::{NodeKey, Syntax},
};
use crate::{
    config::{self, Document, EntryPlace, Format, ListLayout, NodePlace, Outline},
    diagnose::{Diagnostic, Rule},
};

/// Returns the error for a file that cannot be edited.
pub(super) fn not_editable(document: &Document, why: &str) -> Diagnostic {
    let message = format!("{} cannot be edited safely: {why}", document.name());
    Diagnostic::new(Rule::NotEditable, message).with_remedy(
        "make this change by hand, or write the nodes without anchors, aliases, tags and comments inside lists",
    )
}

/// Returns the text of a configuration with its changes.
///
/// # Errors
/// Returns why the text cannot be edited by position.
pub(super) fn edited(document: &Document, set: &ChangeSet) -> Result<String, Diagnostic> {
    const SHARED: &str = "uses an anchor, alias or tag";
    let refuse = |why: &str| not_editable(document, why);
    let refuse_node = |index: usize, why: &str| refuse(&format!("node {} {why}", set.name(index)));
    let outline = config::outline(document)
        .ok_or_else(|| refuse("the list of nodes is an alias, or has an anchor or a tag"))?;
    if outline.nodes.len() != set.nodes_before() {
        return Err(refuse("the list of nodes was not found"));
    }
    let mut editor =
        Editor { text: document.text(), format: document.format(), outline: &outline, edits: Vec::new() };
    for index in &set.removed {
        if outline.nodes.get(*index).is_some_and(|node| node.is_shared || node.has_anchor) {
            return Err(refuse_node(*index, SHARED));
        }
    }
    for (index, changes) in &set.updated {
        let Some(node) = outline.nodes.get(*index) else { continue };
        if node.is_shared {
            return Err(refuse_node(*index, SHARED));
        }
        let is_shared = |change: &&KeyChange| node.entry(change.key).is_some_and(|entry| entry.is_shared);
        if let Some(change) = changes.iter().find(is_shared) {
            return Err(refuse_node(*index, &format!("{SHARED} in its {}", change.key)));
        }
        editor.update(node, changes).map_err(|why| refuse_node(*index, &why))?;
    }
    match outline.layout {
        ListLayout::Flow => {
            editor.flow(set).ok_or_else(|| refuse("a comment comes before a comma in its list of nodes"))?;
        }
        ListLayout::Block | ListLayout::Tables => {
            set.removed.iter().for_each(|index| editor.remove_lines(*index));
            editor.insert_lines(&set.added);
        }
    }
    Ok(editor.finish())
}

struct Editor<'a> {
    text: &'a str,
    format: Format,
    outline: &'a Outline,
    /// The replacement of each range. Replacements at the same position are written in this order.
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Editor<'a> {
    fn finish(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut text = String::with_capacity(
            self.text.len() + self.edits.iter().map(|(_, new)| new.len()).sum::<usize>(),
        );
        let mut done = 0;
        for (range, new) in self.edits {
            text.push_str(self.text.get(done..range.start).unwrap_or_default());
            text.push_str(&new);
            done = done.max(range.end);
        }
        text.push_str(self.text.get(done..).unwrap_or_default());
        text
    }

    fn slice(&self, range: Range<usize>) -> &'a str {
        self.text.get(range).unwrap_or_default()
    }

    fn line_start(&self, at: usize) -> usize {
        self.slice(0..at).rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Returns the end of a line, after its line break.
    fn line_end(&self, at: usize) -> usize {
        self.slice(at..self.text.len()).find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// Returns the line break before a position, or the first one of the text.
    fn newline(&self, at: usize) -> &'static str {
        let last = self.slice(0..at).rfind('\n').or_else(|| self.text.find('\n'));
        let is_windows = last.is_some_and(|last| self.slice(0..last).ends_with('\r'));
        if is_windows { "\r\n" } else { "\n" }
    }

    /// Returns the syntax of the values near a node.
    fn syntax_of(&self, node: &NodePlace) -> Syntax {
        match self.format {
            Format::Toml => Syntax::Toml,
            Format::Yaml => {
                let is_quoted = |entry: &EntryPlace| self.slice(entry.key_range.clone()).starts_with('"');
                let is_json =
                    node.is_inline && !node.entries.is_empty() && node.entries.iter().all(is_quoted);
                if is_json { Syntax::Json } else { Syntax::Yaml }
            }
        }
    }

    /// Changes the values of a node.
    fn update(&mut self, node: &NodePlace, changes: &[KeyChange]) -> Result<(), String> {
        let syntax = self.syntax_of(node);
        for change in changes {
            match node.entry(change.key) {
                Some(entry) => self.replace(entry, change, syntax)?,
                None => self.insert_key(node, change, syntax)?,
            }
        }
        Ok(())
    }

    fn replace(&mut self, entry: &EntryPlace, change: &KeyChange, syntax: Syntax) -> Result<(), String> {
        let KeyChange { before, after, .. } = change;
        if before.len() == after.len() && entry.scalars.len() == after.len() {
            for ((place, old), new) in entry.scalars.iter().zip(before).zip(after) {
                if old != new {
                    let written = like(self.slice(place.clone()), new, syntax);
                    self.edits.push((place.clone(), written));
                }
            }
            return Ok(());
        }
        let value = syntax.value(after);
        let written = self.slice(entry.range.clone());
        if entry.is_list && written.contains('#') {
            return Err(format!("has a comment in its {} list", change.key));
        }
        let is_block_list = entry.is_list && !written.starts_with('[');
        if !is_block_list && !entry.range.is_empty() {
            self.edits.push((entry.range.clone(), value));
            return Ok(());
        }
        // The value follows on the next lines, or is empty.
        let colon =
            self.slice(entry.key_range.end..self.text.len()).find(':').ok_or("has a key without a colon")?;
        let start = entry.key_range.end + colon + 1;
        let end = if is_block_list { entry.range.end } else { start };
        if self.slice(start..end).contains('#') {
            return Err(format!("has a comment in its {} list", change.key));
        }
        self.edits.push((start..end, format!(" {value}")));
        Ok(())
    }

    /// Adds a key after the pod CIDR.
    fn insert_key(&mut self, node: &NodePlace, change: &KeyChange, syntax: Syntax) -> Result<(), String> {
        let anchor = node.entry("podCIDR").ok_or("has no podCIDR")?;
        let entry = syntax.entry(change.key, &change.after);
        if node.is_inline {
            self.edits.push((anchor.range.end..anchor.range.end, format!(", {entry}")));
            return Ok(());
        }
        let at = self.line_end(anchor.range.end);
        let column = anchor.key_range.start - self.line_start(anchor.key_range.start);
        let indent = " ".repeat(column);
        let lines = self.whole_lines(at, &format!("{indent}{entry}"));
        self.edits.push((at..at, lines));
        Ok(())
    }

    /// Lines to insert at the start of a line, or at the end of the text.
    fn whole_lines(&self, at: usize, lines: &str) -> String {
        let newline = self.newline(at);
        let is_after_line = at == 0 || self.slice(0..at).ends_with('\n');
        if is_after_line { format!("{lines}{newline}") } else { format!("{newline}{lines}") }
    }

    /// Returns `true` if a line that starts there is blank.
    fn is_blank(&self, at: usize) -> bool {
        at < self.text.len() && self.slice(at..self.line_end(at)).trim().is_empty()
    }

    /// Removes the lines of a node, and one of the blank lines around them.
    fn remove_lines(&mut self, index: usize) {
        let Some(node) = self.outline.nodes.get(index) else { return };
        let Range { start, mut end } = node.lines;
        let before = start.checked_sub(1).map(|at| self.line_start(at));
        if before.is_none_or(|before| self.is_blank(before)) && self.is_blank(end) {
            end = self.line_end(end);
        }
        self.edits.push((start..end, String::new()));
    }

    /// Returns `true` if nodes are separated by blank lines.
    fn is_separated(&self) -> bool {
        let nodes = &self.outline.nodes;
        let is_gap = |pair: &&[NodePlace]| {
            let between = self.slice(pair[0].lines.end..pair[1].lines.start);
            between.lines().any(|line| line.trim().is_empty())
        };
        let gaps = nodes.windows(2).filter(is_gap).count();
        if nodes.len() < 2 { self.outline.layout == ListLayout::Tables } else { 2 * gaps >= nodes.len() - 1 }
    }

    /// Returns the start of the comment right above a line, or of the line itself.
    fn start_with_comment(&self, line: usize) -> usize {
        let mut start = line;
        while let Some(above) = start.checked_sub(1).map(|end| self.line_start(end)) {
            if !self.slice(above..start).trim_start().starts_with('#') {
                break;
            }
            start = above;
        }
        start
    }

    /// Adds the lines of new nodes.
    fn insert_lines(&mut self, added: &[AddedNode]) {
        let is_separated = self.is_separated();
        for node in added {
            let Some(like) = self.outline.nodes.get(node.after.unwrap_or(0)) else { continue };
            let at = match node.after {
                Some(_) => like.lines.end,
                None => self.start_with_comment(like.lines.start),
            };
            let newline = self.newline(at);
            let lines = self.item_lines(like, &node.keys, newline);
            let lines = match (is_separated, node.after) {
                (false, _) => lines,
                (true, Some(_)) => format!("{newline}{lines}"),
                (true, None) => format!("{lines}{newline}"),
            };
            let lines = self.whole_lines(at, &lines);
            self.edits.push((at..at, lines));
        }
    }

    /// The lines of a new node, without the last line break, written like another one.
    fn item_lines(&self, like: &NodePlace, keys: &[NodeKey], newline: &str) -> String {
        let syntax = self.syntax_of(like);
        let first_line = self.slice(like.lines.start..self.line_end(like.lines.start));
        let indent = first_line.len() - first_line.trim_start_matches([' ', '\t']).len();
        let indent = first_line.get(..indent).unwrap_or_default();
        let entries = keys.iter().map(|(key, values)| syntax.entry(key, values));
        if self.outline.layout == ListLayout::Tables {
            let lines: Vec<String> = entries.map(|entry| format!("{indent}{entry}")).collect();
            return format!("{indent}[[nodes]]{newline}{}", lines.join(newline));
        }
        let prefix = self.slice(like.lines.start..like.range.start);
        let is_prefix = prefix.trim() == "-" && !prefix.contains(['\n', '#']);
        let prefix = if is_prefix { prefix.to_owned() } else { format!("{indent}- ") };
        if like.is_inline {
            return prefix + &syntax.inline(keys, self.space_in(like));
        }
        let below = format!("{newline}{}", " ".repeat(prefix.chars().count()));
        prefix + &entries.collect::<Vec<_>>().join(&below)
    }

    /// The space after the opening brace of a node.
    fn space_in(&self, node: &NodePlace) -> &'static str {
        if self.slice(node.range.clone()).starts_with("{ ") { " " } else { "" }
    }

    /// Removes nodes from a list in brackets, and adds nodes to it.
    fn flow(&mut self, set: &ChangeSet) -> Option<()> {
        let nodes = &self.outline.nodes;
        let places: Vec<FlowPlace> = nodes.iter().map(|node| self.flow_place(node)).collect::<Option<_>>()?;
        let last = places.last()?;
        let last_kept = (0..nodes.len()).rev().find(|index| !set.removed.contains(index));
        let last_new = set.added.iter().rposition(|node| node.after == last_kept);
        let is_last_new = last_new.is_some();
        for index in &set.removed {
            let place = places.get(*index)?;
            self.edits.push((place.own_start..place.after, String::new()));
        }
        match last_kept {
            Some(kept) if kept + 1 == nodes.len() && is_last_new && last.comma.is_none() => {
                let end = nodes.get(kept)?.range.end;
                self.edits.push((end..end, ",".to_owned()));
            }
            Some(kept) if kept + 1 < nodes.len() && !is_last_new && last.comma.is_none() => {
                let place = places.get(kept)?;
                let comma = place.comma?;
                let end = if place.has_own_lines { comma + 1 } else { place.after };
                self.edits.push((comma..end, String::new()));
            }
            _ => {}
        }
        for (number, node) in set.added.iter().enumerate() {
            let is_last = Some(number) == last_new;
            self.insert_item(node, &places, is_last && last.comma.is_none())?;
        }
        Some(())
    }

    /// Adds a node to a list in brackets.
    fn insert_item(&mut self, node: &AddedNode, places: &[FlowPlace], is_bare: bool) -> Option<()> {
        let index = node.after.unwrap_or(0);
        let (like, place) = (self.outline.nodes.get(index)?, places.get(index)?);
        let item = self.flow_item(like, &node.keys);
        let comma = if is_bare { "" } else { "," };
        let start = self.line_start(like.range.start);
        let indent = self.slice(start..like.range.start);
        let at = match node.after {
            Some(_) => place.after,
            None if place.has_own_lines => self.start_with_comment(place.own_start),
            None => place.own_start,
        };
        let text = if place.has_own_lines {
            self.whole_lines(at, &format!("{indent}{item}{comma}"))
        } else if node.after.is_some() {
            let (before, after) = if self.slice(0..at).ends_with(' ') { ("", " ") } else { (" ", "") };
            format!("{before}{item}{comma}{}", if is_bare { "" } else { after })
        } else {
            format!("{item}{comma} ")
        };
        self.edits.push((at..at, text));
        Some(())
    }

    /// A new node in a list in brackets, on as many lines as another one.
    fn flow_item(&self, like: &NodePlace, keys: &[NodeKey]) -> String {
        let syntax = self.syntax_of(like);
        let starts = [like.range.start, like.entries.first().map_or(0, |entry| entry.key_range.start)];
        let [outer, inner] = starts.map(|start| self.slice(self.line_start(start)..start));
        let is_spread = self.format == Format::Yaml
            && [outer, inner].iter().all(|indent| indent.trim().is_empty())
            && self.line_start(starts[0]) != self.line_start(starts[1]);
        if !is_spread {
            return syntax.inline(keys, self.space_in(like));
        }
        let newline = self.newline(starts[1]);
        let entries: Vec<String> =
            keys.iter().map(|(key, values)| format!("{inner}{}", syntax.entry(key, values))).collect();
        format!("{{{newline}{}{newline}{outer}}}", entries.join(&format!(",{newline}")))
    }

    /// Finds the text that belongs to a node in a list in brackets.
    fn flow_place(&self, node: &NodePlace) -> Option<FlowPlace> {
        let bytes = self.text.as_bytes();
        let mut at = node.range.end;
        // Blanks and comments may come before the comma.
        let comma = loop {
            match bytes.get(at)? {
                b',' => break Some(at),
                b']' => break None,
                b'#' => at = self.line_end(at),
                byte if byte.is_ascii_whitespace() => at += 1,
                _ => return None,
            }
        };
        let after = comma.map_or(node.range.end, |comma| comma + 1);
        // A comment in front of a comma would have to be moved.
        (!self.slice(node.range.end..after).contains('#')).then_some(())?;
        let start = self.line_start(node.range.start);
        let begins_line = self.slice(start..node.range.start).trim().is_empty();
        let rest = self.slice(after..self.line_end(after)).trim();
        let ends_line = (rest.is_empty() || rest.starts_with('#')) && self.line_end(after) > after;
        let has_own_lines = begins_line && ends_line;
        Some(FlowPlace {
            comma,
            has_own_lines,
            own_start: if has_own_lines { start } else { node.range.start },
            after: if has_own_lines {
                self.line_end(after)
            } else {
                after + self.slice(after..self.text.len()).bytes().take_while(|byte| *byte == b' ').count()
            },
        })
    }
}

/// The text that belongs to a node in a list in brackets.
struct FlowPlace {
    /// The comma after the node.
    comma: Option<usize>,
    /// Whether the node is alone on its lines.
    has_own_lines: bool,
    /// The start of the node, or of its line if it is alone there.
    own_start: usize,
    /// The position where the next node can start: after the comma, or after the line.
    after: usize,
}

/// Writes a value in the quotes of the value that it replaces.
fn like(old: &str, new: &str, syntax: Syntax) -> String {
    let is_safe =
        new.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'/' | b'-'));
    match old.as_bytes() {
        [quote @ (b'"' | b'\''), .., last]
            if quote == last && is_safe && !old.starts_with("\"\"\"") && !old.starts_with("'''") =>
        {
            let quote = char::from(*quote);
            format!("{quote}{new}{quote}")
        }
        [first, ..]
            if *first != b'"'
                && *first != b'\''
                && is_safe
                && !new.ends_with(':')
                && syntax == Syntax::Yaml =>
        {
            new.to_owned()
        }
        _ => syntax.scalar(new),
    }
}
