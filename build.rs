//! Embeds the commit that hostgw is built from, for `hostgw --version`.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env!("CARGO_PKG_VERSION");
    match commit() {
        Some((commit, date)) => {
            println!("cargo::rustc-env=HOSTGW_VERSION={version} ({commit} {date})");
            println!("cargo::rustc-env=HOSTGW_DATE={date}");
        }
        None => {
            println!("cargo::rustc-env=HOSTGW_VERSION={version}");
            println!("cargo::rustc-env=HOSTGW_DATE=");
        }
    }
}

/// Returns the checked-out commit and its date. Returns `None` outside of hostgw's own repository: a crate archive may
/// be unpacked inside another one.
fn commit() -> Option<(String, String)> {
    let folder = env::var("CARGO_MANIFEST_DIR").ok()?;
    if !Path::new(&folder).join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-C", &folder]).args(arguments);
        // A git hook sets these variables for its own repository.
        command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
        let output = command.output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    // The log of HEAD changes with every commit and checkout. Without one, HEAD itself is watched: if a watched file
    // did not exist, cargo would run this script every time.
    let watched = ["logs/HEAD", "HEAD"].into_iter().find_map(|file| {
        let path = Path::new(&folder).join(git(&["rev-parse", "--git-path", file])?);
        path.exists().then_some(path)
    });
    if let Some(path) = watched.as_ref().and_then(|path| path.to_str()) {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let date = git(&["show", "--no-patch", "--format=%cs", "HEAD"])?;
    Some((commit, date))
}
