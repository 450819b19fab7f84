//! Programs that must not compile, and the errors that the compiler must report.
//!
//! Each file under `ui` is a program of its own. A comment `//~ COLUMN MESSAGE` promises an error
//! on its line, at that column (in characters), with a message that contains the text. Errors and
//! promises must match one to one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// File name and line.
type Place = (String, usize);
/// Column and (a part of) the message.
type Complaint = (usize, String);

/// The errors that the comments in the files promise.
fn promised(files: &[PathBuf]) -> BTreeMap<Place, Complaint> {
    let mut promised = BTreeMap::new();
    for path in files {
        let text = fs::read_to_string(path).unwrap();
        for (line, number) in text.lines().zip(1..) {
            let Some((_, promise)) = line.split_once("//~ ") else { continue };
            let (column, message) = promise.split_once(' ').expect("//~ COLUMN MESSAGE");
            promised.insert((name(path), number), (column.parse().unwrap(), message.to_owned()));
        }
    }
    assert!(promised.len() > 90, "files are missing");
    promised
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// A package outside the workspace with a binary for each file.
fn package(files: &[PathBuf]) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reject");
    fs::create_dir_all(&root).unwrap();
    let mut manifest = format!(
        "[package]\nname = \"reject\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\nbpfasm = {{ path = {here:?} }}\n"
    );
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        manifest += &format!("\n[[bin]]\nname = {name:?}\npath = {path:?}\n");
    }
    fs::write(root.join("Cargo.toml"), manifest).unwrap();
    // The versions that this test was built with, so that nothing has to be downloaded.
    fs::copy(here.join("../Cargo.lock"), root.join("Cargo.lock")).unwrap();
    root
}

/// The outermost directory around this test's files that cargo marks as its own.
fn target_directory() -> &'static Path {
    let directories = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors();
    directories.filter(|path| path.join("CACHEDIR.TAG").exists()).last().expect("a target directory")
}

#[test]
fn errors_point_at_the_wrong_token_and_list_the_forms() {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut files: Vec<PathBuf> = fs::read_dir(ui).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut promised = promised(&files);

    let root = package(&files);
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // `build` and not `check`: in the target directory of this test, `bpfasm` and what it
        // depends on are already built. Programs with errors never reach code generation.
        .args(["build", "--offline", "--bins", "--keep-going", "--message-format=short", "--color=never"])
        .arg("--target-dir")
        .arg(target_directory())
        // Flags for this test (`-D warnings`) are not meant for those programs.
        .env_remove("RUSTFLAGS")
        .current_dir(&root)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);

    let mut wrong = Vec::new();
    for line in stderr.lines() {
        // `path:line:column: error[E0277]: message`
        let Some((place, message)) = line.split_once(": error") else { continue };
        let mut place = place.rsplitn(3, ':');
        let (Some(Ok(column)), Some(Ok(number)), Some(path)) =
            (place.next().map(str::parse::<usize>), place.next().map(str::parse::<usize>), place.next())
        else {
            continue;
        };
        match promised.remove(&(name(Path::new(path)), number)) {
            Some((expected, part)) if expected == column && message.contains(&part) => {}
            Some((expected, part)) => wrong.push(format!("{line}\n  expected at column {expected}: {part}")),
            None => wrong.push(format!("{line}\n  was not expected")),
        }
    }
    wrong.extend(
        promised.iter().map(|(place, complaint)| format!("{place:?}: no error, expected {complaint:?}")),
    );
    assert!(wrong.is_empty(), "{}\n\ncargo build ({}) said:\n{stderr}", wrong.join("\n"), output.status);
    assert!(!output.status.success());
}
