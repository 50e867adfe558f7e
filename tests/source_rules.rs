//! Rules for hostgw's own source files that neither the compiler nor clippy enforces.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Collects every Rust file below `folder` with its text.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Returns the placeholders of format strings whose width or precision is an argument: `{:width$}`, `{name:>1$}` or
/// `{:.*}`.
fn dynamic_placeholders(text: &str) -> Vec<&str> {
    let is_argument = |c: char| c.is_alphanumeric() || c == '_';
    let is_dynamic = |placeholder: &&str| {
        let Some((argument, format)) = placeholder.split_once(':') else { return false };
        let follows_argument = |(at, _): (usize, &str)| format[..at].ends_with(is_argument);
        let is_format = !format.contains(['"', ' ', '\n']);
        argument.chars().all(is_argument)
            && is_format
            && (format.match_indices('$').any(follows_argument) || format.contains(".*"))
    };
    let openings = text.match_indices('{').map(|(at, _)| &text[at + 1..]);
    openings.filter_map(|rest| rest.split(['{', '}']).next()).filter(is_dynamic).collect()
}

#[test]
fn format_strings_have_constant_widths() {
    // The standard library panics if a width exceeds 65,535. `text::padded` does not.
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 50, "{}", files.len());
    for (path, text) in files {
        let found = dynamic_placeholders(&text);
        assert!(found.is_empty(), "{path} uses a dynamic width (use text::padded): {found:?}");
    }
}

#[test]
fn dynamic_placeholders_are_recognized() {
    let dynamic = ["{:width$}", "{number:>width$} |", "{cell}{:1$}", "{0:.1$}", "{:.*}", "{x:#0w$b}"];
    for text in dynamic {
        assert_eq!(dynamic_placeholders(text).len(), 1, "{text}");
    }
    for text in ["{:>24}", "{name:?}", "$($name:ident)*", "{ $x: 1 }", "\"pattern\": \"^a$\" }", "{a}:$b"] {
        assert!(dynamic_placeholders(text).is_empty(), "{text}");
    }
}

/// Returns the modules that a source file declares, except `tests`.
fn declared_modules(text: &str) -> Vec<&str> {
    let declared = text.lines().filter_map(|line| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    declared.filter(|name| *name != "tests").collect()
}

/// Splits `text` at the commas outside of braces.
fn split_list(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Returns the first segment after `module` (such as `crate` or `super`) of every path in a source file, in imports
/// and elsewhere.
fn mentioned_names<'a>(source: &'a str, module: &str) -> Vec<&'a str> {
    let first = |path: &'a str| path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
    let start = format!("{module}::");
    let places = source.match_indices(&start).filter(|(at, _)| {
        let before = source[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
    });
    let mut names = Vec::new();
    for (at, _) in places {
        let rest = &source[at + start.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first(rest));
            continue;
        };
        let mut depth = 1;
        let end = group.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        names.extend(split_list(&group[..end.expect("braces that close")]).into_iter().map(first));
    }
    names
}

/// Returns a source file without its comments and unit tests.
fn without_comments(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_only_use_lower_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(root.join("lib.rs")).unwrap();
    // Parses "//! 3. `state`, …".
    let parse_layer = |line: &str| -> Option<Vec<String>> {
        let (number, names) = line.strip_prefix("//! ")?.split_once(". ")?;
        number.parse::<usize>().ok()?;
        Some(names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect())
    };
    let layers: Vec<Vec<String>> = map.lines().filter_map(parse_layer).collect();
    let layer_of = |module: &str| layers.iter().position(|modules| modules.iter().any(|name| name == module));
    for module in declared_modules(&map) {
        assert!(layer_of(module).is_some(), "{module} is missing from the layers in src/lib.rs");
        let is_listed =
            map.contains(&format!("//! | [`{module}`] |")) || map.contains(&format!("//! | `{module}` |"));
        assert!(is_listed || module == "hex", "{module} is missing from the module table in src/lib.rs");
        let mut files = Vec::new();
        sources(&root.join(module), &mut files);
        let file = root.join(format!("{module}.rs"));
        files.extend(fs::read_to_string(&file).ok().map(|text| (file.display().to_string(), text)));
        for (path, text) in files {
            let code = without_comments(&text);
            for other in mentioned_names(&code, "crate").into_iter().filter(|other| *other != module) {
                let Some(layer) = layer_of(other) else { continue };
                assert!(
                    Some(layer) < layer_of(module),
                    "{path} uses {other}, which is not in a layer below {module}"
                );
            }
        }
    }
}

#[test]
fn every_file_begins_with_what_it_does() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 200, "{}", files.len());
    for (path, text) in files.iter().filter(|(path, _)| !path.ends_with("/tests.rs")) {
        assert!(text.starts_with("//! "), "{path} must begin with `//!` and what it does");
    }
}

#[test]
fn the_map_only_names_paths_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let rows: Vec<&str> = map
        .lines()
        .skip_while(|line| *line != "//! # Where to make a change")
        .filter_map(|line| line.strip_prefix("//! | "))
        .collect();
    assert!(rows.len() > 15, "{rows:#?}");
    let spans = rows.iter().flat_map(|row| row.split('`').skip(1).step_by(2));
    let paths: Vec<&str> = spans.filter(|span| span.contains('/')).collect();
    assert!(paths.len() > 40, "{paths:#?}");
    for path in paths {
        assert!(root.join(path).exists(), "src/lib.rs names {path}, which does not exist");
    }
}

/// Resolves a name in a module to the child module that it refers to, either directly or through a re-export.
fn resolve_child<'a>(name: &str, children: &[&'a str], reexports: &[(&'a str, &'a str)]) -> Option<&'a str> {
    let own = children.iter().copied().find(|child| *child == name);
    own.or_else(|| reexports.iter().find(|(_, reexported)| *reexported == name).map(|(child, _)| *child))
}

/// Returns the files of the module at `folder` that depend on themselves through other files.
fn files_in_cycles(folder: &Path) -> Vec<String> {
    let beside = folder.with_extension("rs");
    let Ok(module) = fs::read_to_string(folder.join("mod.rs")).or_else(|_| fs::read_to_string(beside)) else {
        return Vec::new();
    };
    let module = without_comments(&module);
    let children = declared_modules(&module);
    let reexports: Vec<(&str, &str)> = module
        .split("use ")
        .filter_map(|rest| {
            let (path, names) = rest.split(';').next()?.split_once("::")?;
            let child = children.iter().copied().find(|child| *child == path)?;
            Some(
                split_list(names.trim_matches(['{', '}', '\n', ' ']))
                    .into_iter()
                    .map(move |name| (child, name)),
            )
        })
        .flatten()
        .collect();
    let uses = |one: &str| -> Vec<&str> {
        let mut files = Vec::new();
        sources_below(&folder.join(one), 2, &mut files);
        files.extend(fs::read_to_string(folder.join(one).with_extension("rs")).ok().map(|text| (1, text)));
        let mut used = Vec::new();
        for (depth, text) in files {
            let above = vec!["super"; depth].join("::");
            for name in mentioned_names(&without_comments(&text), &above) {
                used.extend(resolve_child(name, &children, &reexports).filter(|other| *other != one));
            }
        }
        used
    };
    let graph: Vec<(&str, Vec<&str>)> = children.iter().map(|child| (*child, uses(child))).collect();
    let used_by = |name: &str| graph.iter().find(|(node, _)| *node == name).map_or(&[][..], |(_, used)| used);
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut open) = (Vec::new(), vec![from]);
        while let Some(node) = open.pop() {
            for next in used_by(node) {
                if *next == to {
                    return true;
                }
                if !seen.contains(next) {
                    seen.push(*next);
                    open.push(*next);
                }
            }
        }
        false
    };
    children.iter().filter(|child| reaches(child, child)).map(|child| (*child).to_owned()).collect()
}

/// Collects every Rust file below a module's folder, with its text and its depth below the parent of that module.
fn sources_below(folder: &Path, depth: usize, found: &mut Vec<(usize, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path, depth + 1, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let depth = depth - usize::from(path.ends_with("mod.rs"));
            found.push((depth, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn files_of_a_module_do_not_use_each_other_in_a_cycle() {
    fn check(folder: &Path, count: &mut usize) {
        let found = files_in_cycles(folder);
        assert!(found.is_empty(), "{} contains a cycle: {found:?}", folder.display());
        *count += 1;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                check(&path, count);
            }
        }
    }
    let mut count = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check(&path, &mut count);
        }
    }
    assert!(count > 15, "{count} modules");
}

/// Type names that may be defined more than once, each with the reason.
const SHARED_TYPE_NAMES: [(&str, &str); 0] = [];

/// Returns the name of the type that a line defines. Associated types, which are indented, are not counted.
fn defined_type(line: &str) -> Option<&str> {
    let item = line.trim_start();
    let item = match item.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => item,
    };
    let (keyword, rest) = item.strip_prefix("unsafe ").unwrap_or(item).split_once(' ')?;
    let defines_type = match keyword {
        "struct" | "enum" | "trait" | "union" => true,
        "type" => !line.starts_with(' '),
        _ => false,
    };
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|name| defines_type && name.starts_with(char::is_uppercase))
}

#[test]
fn every_type_name_is_defined_once() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut definitions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, text) in &files {
        for name in text.lines().filter_map(defined_type) {
            definitions.entry(name).or_default().push(path);
        }
    }
    assert!(definitions.len() > 200, "{} types", definitions.len());
    let is_shared = |name: &str| SHARED_TYPE_NAMES.iter().any(|(shared, _)| *shared == name);
    definitions.retain(|name, paths| paths.len() > 1 && !is_shared(name));
    assert!(definitions.is_empty(), "one name, one meaning; defined more than once: {definitions:#?}");
}

/// Returns the words of a comment that are not in a code span, a link or a path.
fn prose_words(comment: &str) -> Vec<&str> {
    let outside = comment.split('`').step_by(2);
    let is_part = |c: char| c.is_alphanumeric() || "_:[](/.<>&".contains(c);
    outside
        .flat_map(|text| text.split(move |c| !is_part(c)))
        .map(|word| word.trim_end_matches(['.', ':', ')']))
        .collect()
}

#[test]
fn comments_name_types_as_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let is_compound = |name: &&str| name.chars().filter(|c| c.is_uppercase()).count() > 1;
    let types: std::collections::BTreeSet<String> = files
        .iter()
        .flat_map(|(_, text)| text.lines().filter_map(defined_type).filter(is_compound))
        .map(str::to_owned)
        .collect();
    sources(&root.join("tests"), &mut files);
    for (path, text) in &files {
        for (at, line) in text.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else { continue };
            let bare: Vec<&str> =
                prose_words(comment).into_iter().filter(|word| types.contains(*word)).collect();
            // Often the trace of a rename that also hit a word of the sentence.
            assert!(bare.is_empty(), "{path}:{}: {bare:?} in a comment is not in `code`", at + 1);
        }
    }
    assert_eq!(prose_words("/ RoutingTable 255 is `OnLink`, [`State`] or crate::Kind.").first(), Some(&"/"));
    assert!(prose_words(" RoutingTable 255.").contains(&"RoutingTable"));
    assert!(!prose_words(" `RoutingTable` 255, crate::RoutingTable").contains(&"RoutingTable"));
}

#[test]
fn definitions_of_types_are_recognized() {
    let definitions = [
        "struct Route {",
        "pub struct Route(u32);",
        "    pub(super) enum Route<'a> {",
        "pub(in crate::render) type Route = u32;",
        "pub unsafe trait Route: Copy {}",
        "union Route {",
    ];
    for line in definitions {
        assert_eq!(defined_type(line), Some("Route"), "{line}");
    }
    for line in ["    type Error = Error;", "// struct Route", "let struct_ = Route;", "pub struct $name {"] {
        assert_eq!(defined_type(line), None, "{line}");
    }
}

/// Collects the files below `folder`.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// Returns the numbers of the lines that print an `io::Error` as the standard library does, right where it is received.
fn plain_os_errors(source: &str) -> Vec<usize> {
    /// The number of lines of a closure or the beginning of a function.
    const NEAR: usize = 4;
    let lines: Vec<&str> = source.lines().collect();
    let receives = |line: &str| line.contains("error: io::Error") || line.contains("error: &io::Error");
    let is_plain = |at: usize| {
        receives(lines[at]) && lines.iter().skip(at).take(NEAR).any(|line| line.contains("{error}"))
    };
    (0..lines.len()).filter(|at| is_plain(*at)).map(|at| at + 1).collect()
}

/// `text::OsError` prints them all in the same form: `Permission denied (EACCES)`.
#[test]
fn errors_of_the_system_have_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    files_below(&root.join("tests/cases"), &mut files);
    assert!(files.len() > 500, "{}", files.len());
    for path in files {
        let text = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("(os error "), "{} contains the number of an error", path.display());
    }
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    for (path, text) in files {
        let text = without_comments(&text).replace("std::io::Error", "io::Error");
        let found = plain_os_errors(&text);
        assert!(found.is_empty(), "{path} prints an error without text::OsError at lines {found:?}");
    }
    let plain =
        "let cannot = |error: io::Error| {\n    Error::unexpected(format!(\"cannot: {error}\"))\n};\n";
    assert_eq!(plain_os_errors(plain), [1]);
    assert!(plain_os_errors(&plain.replace("{error}\"", "{}\", OsError(&error)")).is_empty());
}

/// Returns a count of one with a plural noun in a text: `1 routes`, `1 more findings`.
fn wrong_count(text: &str) -> Option<&str> {
    const OTHERS: [&str; 6] = ["is", "was", "has", "does", "rolls", "nftables"];
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    text.match_indices("1 ").map(|(at, _)| (&text[..at], &text[at + 2..])).find_map(|(before, rest)| {
        let rest = rest.strip_prefix("more ").or_else(|| rest.strip_prefix("other ")).unwrap_or(rest);
        let noun = rest.split(|c| !is_word(c)).next()?.trim_end_matches('.');
        let is_plural = noun.len() > 2
            && noun.ends_with('s')
            && !noun.ends_with("ss")
            && noun.chars().all(|c| c.is_ascii_lowercase());
        (is_plural && !before.ends_with(is_word) && !OTHERS.contains(&noun)).then_some(noun)
    })
}

#[test]
fn expected_outputs_count_one_in_the_singular() {
    fn check(folder: &Path, checked: &mut usize) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                check(&path, checked);
                continue;
            }
            // Compressed files, and those in other encodings.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for line in text.lines().filter(|line| !line.starts_with("--- ")) {
                *checked += 1;
                assert_eq!(wrong_count(line), None, "{}: {line}", path.display());
            }
        }
    }
    let mut lines = 0;
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"), &mut lines);
    assert!(lines > 10_000, "{lines}");
}

#[test]
fn wrong_counts_are_recognized() {
    for text in ["1 routes", "and 1 more problems", "(1 nodes)", "0 errors, 1 warnings."] {
        assert!(wrong_count(text).is_some(), "{text}");
    }
    for text in
        ["1 route", "11 routes", "1 address", "linux-1 has none", "net.1 routes", "1 is free", "1 of 3 nodes"]
    {
        assert_eq!(wrong_count(text), None, "{text}");
    }
}
