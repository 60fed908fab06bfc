//! Processes on a disk that fails: `shim.c`, built, loaded into a process, and what it logged.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Errors as Linux numbers them.
pub(super) const EIO: i32 = 5;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EROFS: i32 = 30;

/// The library. Rust links with `cc`, so whoever built this test has it.
fn library() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faults.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faults/shim.c");
        let built =
            Command::new("cc").args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&path).arg(source).output();
        let built = built.expect("`cc` builds the shim, as it links every Rust program here");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        (folder, path)
    });
    path
}

/// Which operations are numbered and may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Creating, writing, flushing, renaming, removing.
    Changes,
    /// Opening, reading, looking, listing.
    Reads,
}

/// What happens at an operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// It fails.
    Error(i32),
    /// It does half, and says so.
    Short,
    /// It does half, and fails.
    Torn(i32),
    /// The process is killed before it.
    Kill,
    /// It does half, and the process is killed.
    TornKill,
}

/// A fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) class: Class,
    pub(super) at: usize,
    /// Whether all later operations have it too.
    pub(super) always: bool,
    pub(super) effect: Effect,
}

/// Loads the shim into a command: it logs the operations of a class below a folder, and one of them may fail.
pub(super) fn load(command: &mut assert_cmd::Command, root: &Path, log: &Path, class: Class, fault: Option<Fault>) {
    let class = if class == Class::Changes { "changes" } else { "reads" };
    command.env("LD_PRELOAD", library()).env("FAULTS_ROOT", root).env("FAULTS_LOG", log).env("FAULTS_CLASS", class);
    if let Some(Fault { at, always, effect, .. }) = fault {
        let (effect, error) = match effect {
            Effect::Error(error) => ("error", error),
            Effect::Short => ("short", EIO),
            Effect::Torn(error) => ("torn", error),
            Effect::Kill => ("kill", EIO),
            Effect::TornKill => ("torn-kill", EIO),
        };
        command.env("FAULTS_AT", at.to_string()).env("FAULTS_HOW", if always { "always" } else { "once" });
        command.env("FAULTS_EFFECT", effect).env("FAULTS_ERROR", error.to_string());
    }
}

/// An operation, as it was logged.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) number: usize,
    /// `c`reate, `w`rite, `t`runcate, `f`lush, re`n`ame, lin`k`, `u`nlink, make `d`irectory, remove it (`x`); `o`pen, `r`ead, `l`ist, `s`tat.
    pub(super) kind: char,
    /// What it returned; an error is negative.
    pub(super) result: i64,
    pub(super) inode: i64,
    /// Where it wrote; the new length; the flags it was opened with.
    pub(super) offset: i64,
    pub(super) path: PathBuf,
    /// The new name.
    pub(super) other: PathBuf,
    pub(super) data: Vec<u8>,
}

impl Operation {
    /// What is done at what kind of place: names that differ only in digits, or in what is random, are one.
    pub(super) fn sort(&self, root: &Path) -> String {
        let path = self.path.strip_prefix(root).unwrap_or(&self.path).to_string_lossy();
        let is_drawn = |part: &str| part.len() >= 6 && part.chars().any(|c| c.is_ascii_digit());
        let parts = path.split(|c: char| !c.is_alphanumeric());
        let place: Vec<String> =
            parts.map(|part| if is_drawn(part) { "*".to_owned() } else { part.replace(|c: char| c.is_ascii_digit(), "#") }).collect();
        format!("{} {}", self.kind, place.join("/"))
    }

    /// In a few words.
    pub(super) fn said(&self, root: &Path) -> String {
        let path = self.path.strip_prefix(root).unwrap_or(&self.path).display().to_string();
        format!("{} {} {path} -> {}", self.number, self.kind, self.result)
    }
}

/// Reads a log.
pub(super) fn read_log(log: &Path) -> Vec<Operation> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut operations = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_at(64);
        let field = |at: usize| i64::from_le_bytes(head[at * 8..at * 8 + 8].try_into().unwrap());
        let size = |at: usize| usize::try_from(field(at)).unwrap();
        let (first, after) = after.split_at(size(5));
        let (second, after) = after.split_at(size(6));
        let (data, after) = after.split_at(size(4));
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        operations.push(Operation {
            number: size(0),
            kind: char::from(u8::try_from(field(7)).unwrap()),
            result: field(1),
            inode: field(2),
            offset: field(3),
            path: path(first),
            other: path(second),
            data: data.to_vec(),
        });
        rest = after;
    }
    operations
}
