//! Guides as text for a terminal.

use console::measure_text_width;

use super::{
    Guide,
    document::{Block, GuidePage, Piece, StyledLine},
};
use crate::{diagnose::Rule, render::Palette, text::padded};

/// The maximum width of lines. Longer ones are hard to read; clap wraps its help at the same width.
const MAX_WIDTH: usize = 100;

/// The space between two columns of a table.
const GAP: usize = 2;

/// Returns a guide as text, in lines that fit the terminal of `palette`.
#[must_use]
pub fn text(guide: &Guide, palette: &Palette) -> String {
    page(guide.markdown, palette)
}

/// Returns the explanation of a rule as text, in lines that fit the terminal of `palette`.
#[must_use]
pub fn explanation(rule: Rule, palette: &Palette) -> String {
    let severity = rule.severity().name();
    page(&rule.explanation().replacen("# ", &format!("# {rule} ({severity}): "), 1), palette)
}

fn page(markdown: &str, palette: &Palette) -> String {
    let width = palette.width.min(MAX_WIDTH);
    let mut page = Page { palette, width, text: String::new() };
    page.blocks(&GuidePage::parse(markdown).blocks, 0);
    page.text
}

struct Page<'a> {
    palette: &'a Palette,
    width: usize,
    text: String,
}

impl Page<'_> {
    fn blocks(&mut self, blocks: &[Block], indent: usize) {
        for (number, block) in blocks.iter().enumerate() {
            if number > 0 {
                self.text.push('\n');
            }
            self.block(block, indent);
        }
    }

    fn block(&mut self, block: &Block, indent: usize) {
        match block {
            Block::Heading(level, line) => {
                let mark = if *level == 1 { "" } else { "## " };
                let line: StyledLine =
                    [Piece::Plain(mark.to_owned())].into_iter().chain(line.iter().cloned()).collect();
                for text in self.fill(&line, self.width.saturating_sub(indent)) {
                    self.push_line(indent, &self.palette.head.apply_to(text).to_string());
                }
            }
            Block::Paragraph(line) => {
                for text in self.fill(line, self.width.saturating_sub(indent)) {
                    self.push_line(indent, &text);
                }
            }
            Block::Code(code) => {
                // Code is never broken, so that it can be copied.
                for line in code.lines() {
                    self.push_line(indent + 4, line);
                }
            }
            Block::List(first, items) => self.list(*first, items, indent),
            Block::Table(rows) => self.table(rows, indent),
        }
    }

    fn list(&mut self, first: Option<u64>, items: &[Vec<Block>], indent: usize) {
        for (number, item) in (0..).zip(items) {
            let mark = first.map_or_else(|| "- ".to_owned(), |first| format!("{}. ", first + number));
            let start = self.text.len();
            self.blocks(item, indent + mark.len());
            // The bullet replaces the indent of the first line.
            let mark = format!("{}{mark}", " ".repeat(indent));
            if self.text.get(start..start + mark.len()).is_some_and(|begin| begin.trim().is_empty()) {
                self.text.replace_range(start..start + mark.len(), &mark);
            }
        }
    }

    fn table(&mut self, rows: &[Vec<StyledLine>], indent: usize) {
        let widths = self.widths(rows, self.width.saturating_sub(indent));
        let is_too_wide = |(cell, width): (&StyledLine, &usize)| {
            self.words(cell).iter().any(|word| measure_text_width(word) > *width)
        };
        let total = indent + widths.iter().sum::<usize>() + widths.len().saturating_sub(1) * GAP;
        if total > self.width || rows.iter().any(|row| row.iter().zip(&widths).any(is_too_wide)) {
            return self.entries(rows, indent);
        }
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<Vec<String>> =
                row.iter().zip(&widths).map(|(cell, width)| self.fill(cell, *width)).collect();
            for at in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                let mut line = String::new();
                for (cell, width) in cells.iter().zip(&widths) {
                    let text = cell.get(at).map_or("", String::as_str);
                    line.push_str(&padded(text, width + GAP));
                }
                self.push_line(indent, line.trim_end());
            }
            if number == 0 {
                let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                self.push_line(indent, &rules.join(&" ".repeat(GAP)));
            }
        }
    }

    /// Renders a table that does not fit as a list: the first cell of each row, followed by the others.
    fn entries(&mut self, rows: &[Vec<StyledLine>], indent: usize) {
        const INDENT: usize = 4;
        let Some((head, rows)) = rows.split_first() else { return };
        for row in rows {
            let Some((first, others)) = row.split_first() else { continue };
            for text in self.fill(first, self.width.saturating_sub(indent)) {
                self.push_line(indent, &text);
            }
            for (cell, label) in others.iter().zip(head.iter().skip(1)) {
                let mut line = StyledLine::new();
                if others.len() > 1 {
                    line.extend(label.iter().cloned().chain([Piece::Plain(": ".to_owned())]));
                }
                line.extend(cell.iter().cloned());
                for text in self.fill(&line, self.width.saturating_sub(indent + INDENT)) {
                    self.push_line(indent + INDENT, &text);
                }
            }
        }
    }

    /// Returns the widths of the columns. Each is as wide as its cells, and the widest ones are narrowed until they
    /// fit.
    fn widths(&self, rows: &[Vec<StyledLine>], width: usize) -> Vec<usize> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| measure_text_width(&self.words(cell).join(" "))).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..columns).map(widest).collect();
        let available = width.saturating_sub(columns.saturating_sub(1) * GAP);
        while widths.iter().sum::<usize>() > available {
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > 8) else { break };
            *widest -= 1;
        }
        widths
    }

    /// Breaks a line between words.
    fn fill(&self, line: &StyledLine, width: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let mut column = 0;
        for word in self.words(line) {
            let length = measure_text_width(&word);
            match lines.last_mut() {
                Some(last) if column + 1 + length <= width => {
                    last.push(' ');
                    last.push_str(&word);
                    column += 1 + length;
                }
                _ => {
                    lines.push(word);
                    column = length;
                }
            }
        }
        lines
    }

    /// Returns the words of a line, each with its own style.
    fn words(&self, line: &StyledLine) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut push = |text: &str, styled: &dyn Fn(&str) -> String| {
            for (number, part) in text.split(' ').enumerate() {
                if number > 0 {
                    words.push(String::new());
                }
                if let (false, Some(word)) = (part.is_empty(), words.last_mut()) {
                    word.push_str(&styled(part));
                }
            }
        };
        for piece in line {
            match piece {
                Piece::Plain(text) | Piece::Emphasis(text) => push(text, &str::to_owned),
                Piece::Strong(text) => push(text, &|word| self.palette.head.apply_to(word).to_string()),
                Piece::Code(text) => push(&format!("`{text}`"), &str::to_owned),
                Piece::Guide(name) => push(&format!(" (`hostgw help {name}`)"), &str::to_owned),
                Piece::Address(address) => push(&format!(" ({address})"), &str::to_owned),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    fn push_line(&mut self, indent: usize, text: &str) {
        if !text.is_empty() {
            self.text.push_str(&" ".repeat(indent));
            self.text.push_str(text);
        }
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::{super::GUIDES, *};

    fn rendered(markdown: &'static str, width: usize) -> String {
        let guide = Guide { name: "test", summary: "a test", markdown };
        text(&guide, &Palette::new(false).with_width(width))
    }

    #[test]
    fn guides_render_as_plain_text() {
        let markdown = "# Title\n\nWords that `are code` and *more*,\nsee [there][simulate].\n\n## Part\n\n- one two three\n  four\n\
                        - five\n\n  ```sh\n  a command\n  ```\n\n| key | meaning |\n|---|---|\n| `a` | one two three |\n\n\
                        [simulate]: simulate.md\n";
        let expected = "\
Title

Words that `are code`
and more, see there
(`hostgw help
simulate`).

## Part

- one two three four
- five

      a command

key  meaning
---  -------------
`a`  one two three
";
        assert_eq!(rendered(markdown, 21), expected);
        assert!(
            rendered(markdown, 16).ends_with("key  meaning\n---  -----------\n`a`  one two\n     three\n")
        );
        assert!(rendered(markdown, 9).ends_with("`a`\n    one\n    two\n    three\n"));
    }

    /// Words that are wider than the terminal, and code, are not broken.
    #[test]
    fn every_guide_fits_a_terminal() {
        for guide in GUIDES {
            for width in [40, 80] {
                let document = GuidePage::parse(guide.markdown);
                let is_code = |line: &str| {
                    let has =
                        |block: &Block| matches!(block, Block::Code(code) if code.contains(line.trim()));
                    let within = |blocks: &[Block]| blocks.iter().any(has);
                    let lists = document.blocks.iter().filter_map(|block| match block {
                        Block::List(_, items) => Some(items),
                        _ => None,
                    });
                    within(&document.blocks) || lists.flatten().any(|item| within(item))
                };
                let text = text(guide, &Palette::new(false).with_width(width));
                for line in text.lines().filter(|line| line.chars().count() > width) {
                    let is_word = !line.trim_start_matches(['-', ' ', '#']).contains(' ');
                    assert!(is_word || is_code(line), "{}: {line:?} in {width} columns", guide.name);
                }
            }
        }
    }
}
