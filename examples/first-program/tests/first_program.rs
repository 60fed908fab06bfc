//! The program does what it says, and is the sample of the README.

use std::fs;
use std::path::Path;
use std::process::Command;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// A folder that is removed at the end, with a copy of the example: its lake is written to.
struct Copied(std::path::PathBuf);

impl Copied {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("first-program-{}", std::process::id()));
        copy(Path::new(HERE), &folder, &["air-quality.yaml", "prices.yaml", "lake"]);
        Self(folder)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path, names: &[&str]) {
    fs::create_dir_all(to).unwrap();
    for name in names {
        let (from, to) = (from.join(name), to.join(name));
        if fs::metadata(&from).unwrap().is_dir() {
            let inside: Vec<String> = fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            copy(&from, &to, &inside.iter().map(String::as_str).collect::<Vec<_>>());
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

#[test]
fn it_plans_runs_prices_and_undoes() {
    let folder = Copied::new();
    let output = Command::new(env!("CARGO_BIN_EXE_first-program")).current_dir(&folder.0).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert_eq!(lines[0], "3 slots are missing; calls to repair them: 1 at most");
    assert!(lines[1].starts_with("0 of them are still missing after run plan-"), "{out}");
    assert_eq!(lines[2], "it cost 0.01 USD");
    assert!(lines[3].starts_with("3 rows are hidden again; `redo` with undo-"), "{out}");
}

#[test]
fn it_is_the_sample_of_the_readme() {
    let readme = fs::read_to_string(Path::new(HERE).join("../../README.md")).unwrap();
    let program = fs::read_to_string(Path::new(HERE).join("src/main.rs")).unwrap();
    // Its first line says what it is, which the README does in its own words.
    let (_, program) = program.split_once("\n\n").unwrap();
    let samples: Vec<&str> =
        readme.split("```rust").skip(1).filter_map(|rest| rest.split_once('\n')?.1.split_once("```")).map(|(sample, _)| sample).collect();
    assert_eq!(samples, [program]);
}

#[test]
fn its_only_dependency_is_repair() {
    let manifest = fs::read_to_string(Path::new(HERE).join("Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
    assert_eq!(dependencies.trim(), "repair.workspace = true");
    assert!(!manifest.contains("[dev-dependencies]"));
}
