//! Embeds the commit that hostgw is built from, for `hostgw --version`, and links the unwinder of GCC statically.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    link_unwinder();
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

/// Links the unwinder of GCC into the program, if the C compiler that links it has one: loading libgcc_s.so is a twentieth
/// of the time that a plan of a small cluster takes.
fn link_unwinder() {
    println!("cargo::rerun-if-env-changed=CC");
    let target = |key: &str| env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    let is_native = env::var("HOST").is_ok_and(|host| env::var("TARGET") == Ok(host));
    if !is_native || target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let Ok(output) = Command::new(compiler).arg("-print-file-name=libgcc_eh.a").output() else { return };
    let path = String::from_utf8_lossy(&output.stdout);
    // A name without a folder was not found.
    if let Some((folder, _)) = path.trim().rsplit_once('/') {
        println!("cargo::rustc-link-search=native={folder}");
        println!("cargo::rustc-link-lib=static=gcc_eh");
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
