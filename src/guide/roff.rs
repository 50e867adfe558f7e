//! Guides as manual pages, in man(7) format.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::{
    Guide,
    document::{Block, GuidePage, Piece, StyledLine},
};

/// A placeholder for an unknown date. The roff crate would omit an empty argument, and shift the next ones.
pub const NO_DATE: &str = "UNDATED";

/// Replaces [`NO_DATE`] in the title line of a page with an empty argument.
#[must_use]
pub fn without_date(page: &str) -> String {
    page.replacen(&format!(" {NO_DATE} "), " \"\" ", 1)
}

/// Returns the guide as a page of section 7; `date` is in ISO 8601, or empty if unknown, and `source` is the program
/// with its version.
#[must_use]
pub fn roff(guide: &Guide, date: &str, source: &str) -> String {
    let date = if date.is_empty() { NO_DATE } else { date };
    let mut page = Roff::new();
    let title = format!("hostgw-{}", guide.name);
    page.control("TH", [title.to_uppercase().as_str(), "7", date, source, "hostgw guides"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{title} - {}", guide.summary))]);
    let document = GuidePage::parse(guide.markdown);
    let first = document.blocks.get(1);
    if !matches!(first, Some(Block::Heading(..)) | None) {
        page.control("SH", ["DESCRIPTION"]);
    }
    blocks(&mut page, document.blocks.get(1..).unwrap_or_default());
    without_date(&page.render())
}

fn blocks(page: &mut Roff, blocks: &[Block]) {
    let mut after_text = false;
    for block in blocks {
        match block {
            Block::Heading(level, line) => {
                let text: String = inlines(line).iter().map(content).collect();
                let text = text.replace('-', "\\-").replace('"', "\\(dq");
                let text = if *level > 2 { text } else { text.to_uppercase() };
                page.control(if *level > 2 { "SS" } else { "SH" }, [text.as_str()]);
                after_text = false;
                continue;
            }
            Block::Paragraph(line) => {
                if after_text {
                    page.control("PP", []);
                }
                page.text(inlines(line));
            }
            Block::Code(code) => {
                if after_text {
                    page.control("PP", []);
                }
                page.control("RS", ["4"]).control("nf", []);
                for line in code.lines() {
                    // Some formatters end the block at an empty line.
                    page.text([if line.is_empty() { roman("\u{a0}") } else { roman(line) }]);
                }
                page.control("fi", []).control("RE", []);
            }
            Block::List(first, items) => {
                for (number, item) in (0..).zip(items) {
                    match first {
                        Some(first) => page.control("IP", [format!("{}.", first + number).as_str(), "4"]),
                        None => page.control("IP", ["\\(bu", "2"]),
                    };
                    nested(page, item, if first.is_some() { "4" } else { "2" });
                }
            }
            Block::Table(rows) => table(page, rows),
        }
        after_text = true;
    }
}

/// Renders the blocks of a list item. The first one follows the bullet, and the others have the same indent.
fn nested(page: &mut Roff, item: &[Block], indent: &str) {
    let Some((first, others)) = item.split_first() else { return };
    blocks(page, std::slice::from_ref(first));
    if !others.is_empty() {
        page.control("RS", [indent]);
        blocks(page, others);
        page.control("RE", []);
    }
}

/// Renders a table as a list of its first cells, each followed by the others.
fn table(page: &mut Roff, rows: &[Vec<StyledLine>]) {
    let Some((head, rows)) = rows.split_first() else { return };
    for row in rows {
        let Some((first, others)) = row.split_first() else { continue };
        page.control("TP", []);
        let term: String = inlines(first).iter().map(content).collect();
        page.text([bold(term)]);
        for (number, cell) in others.iter().enumerate() {
            if number > 0 {
                page.control("br", []);
            }
            let mut text = Vec::new();
            if others.len() > 1 {
                let label: String = head
                    .get(number + 1)
                    .map(|cell| inlines(cell).iter().map(content).collect())
                    .unwrap_or_default();
                text.push(italic(label));
                text.push(roman(": "));
            }
            text.extend(inlines(cell));
            page.text(text);
        }
    }
}

fn inlines(line: &StyledLine) -> Vec<Inline> {
    let inline = |piece: &Piece| match piece {
        Piece::Plain(text) => roman(text),
        Piece::Code(text) | Piece::Strong(text) => bold(text),
        Piece::Emphasis(text) => italic(text),
        Piece::Guide(name) => roman(format!(" (hostgw-{name}(7))")),
        Piece::Address(address) => roman(format!(" ({address})")),
    };
    line.iter().map(inline).collect()
}

fn content(inline: &Inline) -> &str {
    match inline {
        Inline::Roman(text) | Inline::Bold(text) | Inline::Italic(text) => text,
        Inline::LineBreak => " ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guides_render_as_manual_pages() {
        let markdown = "# Title\n\nFirst `--flag` words.\n\n## Part\n\nText.\n\n- one\n- two\n\n  more\n\n```sh\n.dot\n\nb\n```\n\n\
                        | key | meaning |\n|---|---|\n| `a-b` | one |\n";
        let guide = Guide { name: "test", summary: "a test", markdown };
        let page = roff(&guide, "2026-11-28", "hostgw 1");
        let undated = roff(&guide, "", "hostgw 1");
        assert!(undated.contains(".TH HOSTGW-TEST 7 \"\" \"hostgw 1\" \"hostgw guides\"\n"), "{undated}");
        let (_, text) = page.split_once(".TH").unwrap();
        assert_eq!(
            text,
            " HOSTGW-TEST 7 2026-11-28 \"hostgw 1\" \"hostgw guides\"\n.SH NAME\nhostgw\\-test \\- a test\n.SH DESCRIPTION\n\
             First \\fB\\-\\-flag\\fR words.\n.SH PART\nText.\n.IP \\(bu 2\none\n.IP \\(bu 2\ntwo\n.RS 2\nmore\n.RE\n.PP\n\
             .RS 4\n.nf\n\\&.dot\n\u{a0}\nb\n.fi\n.RE\n.TP\n\\fBa\\-b\\fR\none\n"
        );
    }
}
