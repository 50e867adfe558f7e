//! The version contains the commit in hostgw's own repository, and no commit elsewhere.

use std::{env, fs, path::Path, process::Command};

#[test]
fn the_version_names_the_commit() {
    let [output, same] = ["--version", "version"]
        .map(|argument| Command::new(env!("CARGO_BIN_EXE_hostgw")).arg(argument).output().unwrap());
    assert_eq!(output.stdout, same.stdout);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("hostgw {}\n", env!("HOSTGW_VERSION")));
}

/// Returns the instructions that the build script prints for cargo in `folder`.
fn instructions(script: &Path, folder: &Path) -> String {
    let output = Command::new(script).env("CARGO_MANIFEST_DIR", folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=hostgw", "-c", "user.email=hostgw@example.net", "-C"])
        .arg(folder)
        .args(arguments);
    command.env_remove("GIT_DIR").env_remove("GIT_INDEX_FILE").env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_build_script_finds_the_commit_of_its_own_repository() {
    // A temporary file system could be mounted without the right to run programs.
    let root = &Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("version-{}", std::process::id()));
    fs::create_dir_all(root).unwrap();
    let script = root.join("build-script");
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs");
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", source, "-o"]).arg(&script).env("CARGO_PKG_VERSION", "1.2.3");
    assert!(command.status().unwrap().success());

    let repository = root.join("repository");
    let crate_inside = repository.join("vendor/hostgw");
    fs::create_dir_all(&crate_inside).unwrap();
    let bare = "cargo::rustc-env=HOSTGW_VERSION=1.2.3\n";
    // In a crate archive.
    assert!(instructions(&script, root).contains(bare));

    git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    // In a repository without a commit.
    assert!(instructions(&script, &repository).contains(bare));

    git(&repository, &["commit", "--quiet", "--allow-empty", "--message", "one"]);
    let commit = git(&repository, &["rev-parse", "--short=12", "HEAD"]);
    let date = git(&repository, &["show", "--no-patch", "--format=%cs"]);
    let expected = format!("cargo::rustc-env=HOSTGW_VERSION=1.2.3 ({commit} {date})\n");
    let in_repository = instructions(&script, &repository);
    assert!(in_repository.contains(&expected), "{in_repository}");
    // In a crate archive that was unpacked inside another repository.
    assert!(instructions(&script, &crate_inside).contains(bare));

    // In a worktree with a detached HEAD.
    let tree = root.join("tree");
    git(&repository, &["worktree", "add", "--quiet", "--detach", tree.to_str().unwrap()]);
    assert!(instructions(&script, &tree).contains(&expected));

    // Cargo runs the script again only after a commit: the file that it watches exists.
    for output in [in_repository, instructions(&script, &tree)] {
        let watched: Vec<&str> =
            output.lines().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).collect();
        let [_, log] = watched[..] else { panic!("{watched:?}") };
        assert!(log.ends_with("logs/HEAD") && Path::new(log).exists(), "{log}");
    }
    fs::remove_dir_all(root).unwrap();
}
