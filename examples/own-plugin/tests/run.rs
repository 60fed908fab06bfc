//! The example runs, and prints what its README shows.

use std::process::Command;

#[test]
fn it_prints_what_its_readme_shows() {
    let done = Command::new(env!("CARGO_BIN_EXE_own-plugin")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let readme = include_str!("../README.md");
    let printed = String::from_utf8(done.stdout).unwrap();
    let shown: String = printed.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect();
    assert!(readme.contains(&shown), "the README does not show this:\n{shown}");
}
