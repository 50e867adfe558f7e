//! Rules that every source file of hostgw keeps, because breaking them once was a fault.

use std::{fs, path::Path};

/// Every Rust file below `folder`, with its text.
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

/// The placeholders of format strings in `text` whose width or precision is an argument: `{:width$}`, `{name:>1$}`,
/// `{:.*}`.
fn dynamic_placeholders(text: &str) -> Vec<&str> {
    let is_argument = |c: char| c.is_alphanumeric() || c == '_';
    let is_dynamic = |placeholder: &&str| {
        let Some((argument, format)) = placeholder.split_once(':') else { return false };
        let of_argument = |(at, _): (usize, &str)| format[..at].ends_with(is_argument);
        let is_format = !format.contains(['"', ' ', '\n']);
        argument.chars().all(is_argument)
            && is_format
            && (format.match_indices('$').any(of_argument) || format.contains(".*"))
    };
    let openings = text.match_indices('{').map(|(at, _)| &text[at + 1..]);
    openings.filter_map(|rest| rest.split(['{', '}']).next()).filter(is_dynamic).collect()
}

#[test]
fn no_width_of_a_format_string_comes_from_data() {
    // Rust panics on one above 65,535. `text::padded` does not.
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 50, "{}", files.len());
    for (path, text) in files {
        let found = dynamic_placeholders(&text);
        assert!(found.is_empty(), "{path} formats with a width that is not in the source: {found:?}");
    }
}

#[test]
fn dynamic_placeholders_are_told_from_others() {
    let dynamic = ["{:width$}", "{number:>width$} |", "{cell}{:1$}", "{0:.1$}", "{:.*}", "{x:#0w$b}"];
    for text in dynamic {
        assert_eq!(dynamic_placeholders(text).len(), 1, "{text}");
    }
    for text in ["{:>24}", "{name:?}", "$($name:ident)*", "{ $x: 1 }", "\"pattern\": \"^a$\" }", "{a}:$b"] {
        assert!(dynamic_placeholders(text).is_empty(), "{text}");
    }
}

/// The modules that the text of one declares, with its own tests left out.
fn modules(text: &str) -> Vec<&str> {
    let declared = text.lines().filter_map(|line| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    declared.filter(|name| *name != "tests").collect()
}

/// The parts between the commas of `text` that are in no braces.
fn parts(text: &str) -> Vec<&str> {
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

/// The first name of every path below `module` (such as `crate` or `super`) that a source file mentions, imports and
/// others.
fn mentioned<'a>(source: &'a str, module: &str) -> Vec<&'a str> {
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
        names.extend(parts(&group[..end.expect("braces that close")]).into_iter().map(first));
    }
    names
}

/// A source file without its comments and its unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn rooms_use_only_floors_below_their_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(root.join("lib.rs")).unwrap();
    // "//! 3. `state`, …"
    let floor = |line: &str| -> Option<Vec<String>> {
        let (number, names) = line.strip_prefix("//! ")?.split_once(". ")?;
        number.parse::<usize>().ok()?;
        Some(names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect())
    };
    let floors: Vec<Vec<String>> = map.lines().filter_map(floor).collect();
    let floor_of = |room: &str| floors.iter().position(|rooms| rooms.iter().any(|name| name == room));
    for room in modules(&map) {
        assert!(floor_of(room).is_some(), "{room} is on no floor of the list in src/lib.rs");
        let is_shown =
            map.contains(&format!("//! | [`{room}`] |")) || map.contains(&format!("//! | `{room}` |"));
        assert!(is_shown || room == "hex", "{room} is not in the table of rooms in src/lib.rs");
        let mut files = Vec::new();
        sources(&root.join(room), &mut files);
        let file = root.join(format!("{room}.rs"));
        files.extend(fs::read_to_string(&file).ok().map(|text| (file.display().to_string(), text)));
        for (path, text) in files {
            for other in mentioned(&code(&text), "crate").into_iter().filter(|other| *other != room) {
                let Some(below) = floor_of(other) else { continue };
                assert!(
                    Some(below) < floor_of(room),
                    "{path} uses {other}, which is not on a floor below {room}"
                );
            }
        }
    }
}

/// The name of the child of the module at `folder` that a path leads to: by its own name, or by one that the module
/// hands on from it.
fn child<'a>(name: &str, children: &[&'a str], reexports: &[(&'a str, &'a str)]) -> Option<&'a str> {
    let own = children.iter().copied().find(|child| *child == name);
    own.or_else(|| reexports.iter().find(|(_, reexported)| *reexported == name).map(|(child, _)| *child))
}

/// Circles among the files of the module at `folder`, each as the files on it.
fn circles(folder: &Path) -> Vec<Vec<String>> {
    let beside = folder.with_extension("rs");
    let Ok(module) = fs::read_to_string(folder.join("mod.rs")).or_else(|_| fs::read_to_string(beside)) else {
        return Vec::new();
    };
    let module = code(&module);
    let children = modules(&module);
    let reexports: Vec<(&str, &str)> = module
        .split("use ")
        .filter_map(|rest| {
            let (path, names) = rest.split(';').next()?.split_once("::")?;
            let child = children.iter().copied().find(|child| *child == path)?;
            Some(parts(names.trim_matches(['{', '}', '\n', ' '])).into_iter().map(move |name| (child, name)))
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
            for name in mentioned(&code(&text), &above) {
                used.extend(child(name, &children, &reexports).filter(|other| *other != one));
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
    let on_circle: Vec<String> =
        children.iter().filter(|child| reaches(child, child)).map(|child| (*child).to_owned()).collect();
    if on_circle.is_empty() { Vec::new() } else { vec![on_circle] }
}

/// Every Rust file below a module's folder, with its text and how many modules it is below the parent of that module.
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
fn no_files_of_a_room_use_each_other_in_a_circle() {
    fn check(folder: &Path, seen: &mut usize) {
        let found = circles(folder);
        assert!(found.is_empty(), "{} has a circle among {found:?}", folder.display());
        *seen += 1;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                check(&path, seen);
            }
        }
    }
    let mut seen = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check(&path, &mut seen);
        }
    }
    assert!(seen > 15, "{seen} modules");
}
