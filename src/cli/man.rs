//! `hostgw man`

use std::fs;

use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    VerbResult,
    arguments::{Arguments, DATE, ENVIRONMENT, EXIT_CODES, ManOptions},
    cannot_write,
    output::Output,
    render,
};
use crate::{
    guide::{GUIDES, NO_DATE, roff, without_date},
    text::{self, OsError},
};

/// Writes the manual pages of hostgw, of each command, and of each guide.
pub(super) fn run(options: &ManOptions, output: &Output) -> VerbResult {
    let folder = &options.folder;
    let failed = |error| cannot_write(folder, &OsError(&error));
    fs::create_dir_all(folder).map_err(failed)?;
    let pages = pages(DATE).map_err(failed)?;
    for (name, page) in &pages {
        render::write_file(&folder.join(name), page)?;
    }
    output.done(&format!("Wrote {} to {}.", text::count(pages.len(), "manual page"), text::path(folder)));
    Ok(0)
}

/// Returns every page with its file name.
fn pages(date: &str) -> std::io::Result<Vec<(String, String)>> {
    let mut command = Arguments::command().after_help(None::<&str>);
    command.build();
    let source = format!("hostgw {}", env!("CARGO_PKG_VERSION"));
    let mut pages = Vec::new();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for command in [&command].into_iter().chain(verbs) {
        pages.push(of_command(command, date, &source)?);
    }
    pages.extend(GUIDES.iter().map(|guide| (format!("hostgw-{}.7", guide.name), roff(guide, date, &source))));
    Ok(pages)
}

fn of_command(command: &Command, date: &str, source: &str) -> std::io::Result<(String, String)> {
    let is_whole = command.has_subcommands();
    let man = Man::new(command.clone().version(None::<&str>));
    let name = man.get_filename();
    let title = name.trim_end_matches(".1").to_uppercase();
    let date = if date.is_empty() { NO_DATE } else { date };
    let man = man.title(title).date(date).source(source).manual("hostgw manual");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut page = without_date(&without_noise(&String::from_utf8_lossy(&page)));
    let mut rest = Roff::new();
    if is_whole {
        section(&mut rest, "EXIT STATUS", EXIT_CODES);
        section(&mut rest, "ENVIRONMENT", ENVIRONMENT);
    } else {
        rest.control("SH", ["EXIT STATUS"]);
        rest.text([roman("See "), bold("hostgw"), roman("(1).")]);
    }
    rest.control("SH", ["SEE ALSO"]);
    if is_whole {
        for (number, guide) in GUIDES.iter().enumerate() {
            let end = if number + 1 < GUIDES.len() { "(7)," } else { "(7)" };
            rest.text([bold(format!("hostgw-{}", guide.name)), roman(end)]);
        }
    } else {
        rest.text([bold("hostgw"), roman("(1)")]);
    }
    page.push_str(&rest.to_roff());
    Ok((name, page))
}

/// Removes trailing spaces, and line breaks next to paragraph breaks: formatters warn about both.
fn without_noise(page: &str) -> String {
    let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
    let is_space = |at: Option<usize>| at.and_then(|at| lines.get(at)).is_some_and(|line| line.is_empty());
    let is_noise = |at: usize| lines[at] == ".br" && (is_space(at.checked_sub(1)) || is_space(Some(at + 1)));
    (0..lines.len()).filter(|at| !is_noise(*at)).map(|at| format!("{}\n", lines[at])).collect()
}

/// Adds a section with a list, whose first column becomes the terms.
fn section(page: &mut Roff, title: &str, list: &str) {
    page.control("SH", [title]);
    for line in list.lines().skip(1) {
        match line.trim_start().split_once("  ") {
            Some((term, text)) => {
                page.control("TP", []);
                page.text([bold(term)]);
                page.text([roman(text.trim_start())]);
            }
            None => {
                page.text([roman(line.trim_start())]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_every_guide_has_a_page() {
        let pages = pages("2026-11-28").unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["hostgw.1", "hostgw-plan.1", "hostgw-apply.1", "hostgw-help.1", "hostgw-glossary.7"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert!(!names.contains(&"hostgw-supervise.1"));
        let (_, whole) = pages.iter().find(|(name, _)| name == "hostgw.1").unwrap();
        assert!(whole.contains(".TH HOSTGW 1 2026-11-28 \"hostgw "), "{whole}");
        assert!(whole.contains(".SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\n"), "{whole}");
    }

    /// A crate archive has no commit and therefore no date.
    #[test]
    fn a_page_without_a_date_keeps_its_source_in_its_place() {
        for (name, page) in pages("").unwrap() {
            let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
            assert!(title.contains(" \"\" \"hostgw "), "{name}: {title}");
        }
    }
}
