//! A guide as a sequence of blocks, from which both formats are rendered.

use std::iter::Peekable;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A parsed guide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuidePage {
    pub blocks: Vec<Block>,
}

/// Text before it is broken into lines.
pub(super) type StyledLine = Vec<Piece>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    Heading(u8, StyledLine),
    Paragraph(StyledLine),
    /// A code block, with its trailing newline.
    Code(String),
    /// The items, and the number of the first one if the list is ordered.
    List(Option<u64>, Vec<Vec<Self>>),
    /// The rows of cells. The first row is the header.
    Table(Vec<Vec<StyledLine>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Plain(String),
    Code(String),
    Strong(String),
    Emphasis(String),
    /// A link to the guide with this name, following the link text.
    Guide(String),
    /// A link to another address, following the link text.
    Address(String),
}

impl GuidePage {
    pub(super) fn parse(markdown: &str) -> Self {
        let mut events = Parser::new_ext(markdown, Options::ENABLE_TABLES).peekable();
        Self { blocks: blocks(&mut events) }
    }
}

/// Parses blocks up to the end of the enclosing element.
fn blocks<'a>(events: &mut Peekable<impl Iterator<Item = Event<'a>>>) -> Vec<Block> {
    let mut blocks = Vec::new();
    while let Some(event) = events.peek() {
        match event {
            Event::End(_) => break,
            Event::Start(Tag::Heading { level, .. }) => {
                let level = *level as u8;
                events.next();
                blocks.push(Block::Heading(level, line(events)));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented)) => {
                events.next();
                blocks.push(Block::Code(plain(events)));
            }
            Event::Start(Tag::List(first)) => {
                let first = *first;
                events.next();
                blocks.push(Block::List(first, items(events)));
            }
            Event::Start(Tag::Table(_)) => {
                events.next();
                blocks.push(Block::Table(rows(events)));
            }
            Event::Start(Tag::HtmlBlock) => {
                // A comment that only the tests use.
                events.next();
                plain(events);
            }
            Event::Start(Tag::Paragraph) => {
                events.next();
                blocks.push(Block::Paragraph(line(events)));
            }
            // The text of a tight list item has no paragraph.
            Event::Text(_)
            | Event::Code(_)
            | Event::Start(Tag::Strong | Tag::Emphasis | Tag::Link { .. }) => {
                blocks.push(Block::Paragraph(loose_line(events)));
            }
            _ => {
                events.next();
            }
        }
    }
    blocks
}

fn items<'a>(events: &mut Peekable<impl Iterator<Item = Event<'a>>>) -> Vec<Vec<Block>> {
    let mut items = Vec::new();
    while let Some(event) = events.next() {
        match event {
            Event::Start(Tag::Item) => {
                items.push(blocks(events));
                events.next();
            }
            Event::End(TagEnd::List(_)) => break,
            _ => {}
        }
    }
    items
}

fn rows<'a>(events: &mut Peekable<impl Iterator<Item = Event<'a>>>) -> Vec<Vec<StyledLine>> {
    let mut rows: Vec<Vec<StyledLine>> = Vec::new();
    while let Some(event) = events.next() {
        match event {
            Event::Start(Tag::TableHead | Tag::TableRow) => rows.push(Vec::new()),
            Event::Start(Tag::TableCell) => {
                let cell = line(events);
                if let Some(row) = rows.last_mut() {
                    row.push(cell);
                }
            }
            Event::End(TagEnd::Table) => break,
            _ => {}
        }
    }
    rows
}

/// Returns the text up to the end of the enclosing element, which is consumed.
fn plain<'a>(events: &mut impl Iterator<Item = Event<'a>>) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Text(more) => text.push_str(&more),
            Event::End(_) => break,
            _ => {}
        }
    }
    text
}

/// Returns the pieces up to the end of the enclosing element, which is consumed.
fn line<'a>(events: &mut Peekable<impl Iterator<Item = Event<'a>>>) -> StyledLine {
    let line = loose_line(events);
    events.next();
    line
}

/// Returns the pieces up to the next block or the end of the enclosing element.
fn loose_line<'a>(events: &mut Peekable<impl Iterator<Item = Event<'a>>>) -> StyledLine {
    let (mut line, mut style, mut target) = (StyledLine::new(), Piece::Plain as fn(String) -> Piece, None);
    while let Some(event) = events.peek() {
        match event {
            Event::Text(text) => line.push(style(text.to_string())),
            Event::Code(text) => line.push(Piece::Code(text.to_string())),
            Event::SoftBreak | Event::HardBreak => line.push(Piece::Plain(" ".to_owned())),
            Event::Start(Tag::Strong) => style = Piece::Strong,
            Event::Start(Tag::Emphasis) => style = Piece::Emphasis,
            Event::End(TagEnd::Strong | TagEnd::Emphasis) => style = Piece::Plain,
            Event::Start(Tag::Link { dest_url, .. }) => target = Some(dest_url.to_string()),
            Event::End(TagEnd::Link) => line.extend(target.take().and_then(|target| link(&target))),
            Event::InlineHtml(_) => {}
            _ => break,
        }
        events.next();
    }
    line
}

/// Returns the piece that follows a link's text. Links within a guide have none.
fn link(target: &str) -> Option<Piece> {
    let file = target.split('#').next().filter(|file| !file.is_empty())?;
    Some(match file.strip_suffix(".md") {
        Some(guide) => Piece::Guide(guide.to_owned()),
        None => Piece::Address(target.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_from_markdown() {
        let text = "# Title\n\nSome `code`\nand [a link][x].\n\n<!-- hidden -->\n\n- one\n- **two**\n\n  more\n\n\
                    | a | b |\n|---|---|\n| 1 | 2 |\n\n```console\n$ hostgw plan\n```\n\n[x]: simulate.md#there\n";
        let plain = |text: &str| Piece::Plain(text.to_owned());
        let cell = |text: &str| vec![plain(text)];
        let expected = [
            Block::Heading(1, vec![plain("Title")]),
            Block::Paragraph(vec![
                plain("Some "),
                Piece::Code("code".to_owned()),
                plain(" "),
                plain("and "),
                plain("a link"),
                Piece::Guide("simulate".to_owned()),
                plain("."),
            ]),
            Block::List(
                None,
                vec![
                    vec![Block::Paragraph(vec![plain("one")])],
                    vec![
                        Block::Paragraph(vec![Piece::Strong("two".to_owned())]),
                        Block::Paragraph(vec![plain("more")]),
                    ],
                ],
            ),
            Block::Table(vec![vec![cell("a"), cell("b")], vec![cell("1"), cell("2")]]),
            Block::Code("$ hostgw plan\n".to_owned()),
        ];
        assert_eq!(GuidePage::parse(text).blocks, expected);
    }
}
