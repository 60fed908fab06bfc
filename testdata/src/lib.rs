//! What the project's tests share: small real data with real holes, seeds, and how long the tests may take.
//!
//! `README.md` beside this crate says where the data comes from. The crate knows nothing of repairs, so every other crate can use it in its
//! tests.
//!
//! # Settings
//!
//! | variable | meaning |
//! | --- | --- |
//! | `REPAIR_TEST=long` | more seeds, more cases and all of the real data, as in `.ci/run`; without it the tests finish in minutes |
//! | `REPAIR_SEEDS=17..18` | exactly these seeds, in every test that takes seeds: one that failed, or a night's worth |
#![allow(clippy::panic, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write as _};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folders of real data.
const FOLDERS: [&str; 4] = ["air-quality-hourly", "crypto-minute", "household-power-minute", "us-power-hourly"];
const PACKED: &str = ".csv.gz";

fn of_folder(name: &str) -> PathBuf {
    assert!(FOLDERS.contains(&name), "there is no real data `{name}`; there is {}", FOLDERS.join(", "));
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(packed: &Path) -> String {
    let bytes = fs::read(packed).unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    let mut text = String::new();
    let unpacked = flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text);
    unpacked.unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    text
}

/// One file of real data as text, such as `crypto-minute/2018-04-04`.
#[must_use]
pub fn text(file: &str) -> String {
    let Some((folder, name)) = file.split_once('/') else { panic!("`{file}` is not a folder and a file") };
    read(&of_folder(folder).join(format!("{name}{PACKED}")))
}

/// Bytes as a gzip file.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).and_then(|()| writer.finish()).unwrap_or_else(|error| panic!("{error}"))
}

/// Writes the files of a folder of real data into another folder, which is made if needed.
pub fn unpack_into(folder: &str, into: &Path) {
    let failed = |error: std::io::Error| -> ! { panic!("{}: {error}", into.display()) };
    fs::create_dir_all(into).unwrap_or_else(|error| failed(error));
    let mut files = 0;
    for entry in fs::read_dir(of_folder(folder)).unwrap_or_else(|error| panic!("{folder}: {error}")).flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(PACKED) {
            fs::write(into.join(format!("{name}.csv")), read(&entry.path())).unwrap_or_else(|error| failed(error));
            files += 1;
        }
    }
    assert!(files > 0, "the folder `{folder}` holds no data");
}

/// A folder of real data, unpacked into a temporary folder that goes when this is dropped.
#[derive(Debug)]
pub struct Unpacked {
    _parent: tempfile::TempDir,
    folder: PathBuf,
}

impl Deref for Unpacked {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.folder
    }
}

/// Unpacks a folder of real data. The folder keeps its name, and nothing else is beside it.
#[must_use]
pub fn unpack(folder: &str) -> Unpacked {
    let parent = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
    let folder_there = parent.path().canonicalize().unwrap_or_else(|error| panic!("{}: {error}", parent.path().display())).join(folder);
    unpack_into(folder, &folder_there);
    Unpacked { _parent: parent, folder: folder_there }
}

/// Gives each input of a target of the fuzzer to the target, which panics if it finds something wrong. It prints the name of each first.
pub fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = of_fuzzing(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds nothing", folder.display());
    for file in files {
        eprintln!("{}", file.display());
        run(&fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    }
}

fn of_fuzzing(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(target)
}

/// Whether the tests may take long, by `REPAIR_TEST=long`.
#[must_use]
pub fn long() -> bool {
    match std::env::var("REPAIR_TEST").as_deref() {
        Ok("long") => true,
        Ok("") | Err(_) => false,
        Ok(other) => panic!("REPAIR_TEST is `{other}`; the only setting is `long`"),
    }
}

/// The first number in the ordinary test command, the second where tests may take long.
#[must_use]
pub fn by_length<T>(short: T, long: T) -> T {
    if self::long() { long } else { short }
}

fn given_seeds() -> Option<Range<u64>> {
    let given = std::env::var("REPAIR_SEEDS").ok().filter(|given| !given.is_empty())?;
    let seeds = given.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    Some(seeds.filter(|seeds| !seeds.is_empty()).unwrap_or_else(|| panic!("REPAIR_SEEDS is `{given}`, and not like `17..18`")))
}

/// The seeds to try: so many, more where tests may take long, or those of `REPAIR_SEEDS`.
#[must_use]
pub fn seeds(short: u64, long: u64) -> Range<u64> {
    given_seeds().unwrap_or(0..by_length(short, long))
}

/// Whether somebody chose the seeds, so that a test must not expect that all kinds of cases occur among them.
#[must_use]
pub fn seeds_are_given() -> bool {
    given_seeds().is_some()
}

/// How to repeat a seed that failed.
#[must_use]
pub fn repeat(seed: u64) -> String {
    format!("to repeat seed {seed}: REPAIR_SEEDS={seed}..{} cargo test", seed + 1)
}

/// Prints the seed if a test panics while this exists.
#[derive(Debug)]
pub struct PrintedOnPanic(u64);

impl PrintedOnPanic {
    /// The seed that is being tried.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Self(seed)
    }
}

impl Drop for PrintedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", repeat(self.0));
        }
    }
}

/// The files below a folder, hidden ones too, in order. What goes away meanwhile, as a journal that is being closed does, is left out.
#[must_use]
pub fn paths(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(next) = folders.pop() {
        for path in
            there(fs::read_dir(&next), &next).into_iter().flatten().map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path())
        {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// The files below a folder with their bytes, as `paths` finds them.
#[must_use]
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    paths(folder).into_iter().filter_map(|path| there(fs::read(&path), &path).map(|bytes| (path, bytes))).collect()
}

fn there<T>(read: io::Result<T>, path: &Path) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// Waits until something holds, which another thread or process does; panics after two minutes, which is more than a busy
/// machine needs.
///
/// # Panics
///
/// If it does not hold in time.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what}: did not happen within two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_unpacked_as_it_was_packed() {
        let rows = |file: &str| text(file).lines().count() - 1;
        assert_eq!((rows("crypto-minute/2018-04-04"), rows("crypto-minute/2018-04-05")), (3_973, 5_714));
        assert_eq!((rows("us-power-hourly/demand"), rows("air-quality-hourly/air-quality")), (91_876, 42_362));
        assert_eq!(rows("household-power-minute/2007-04"), 39_477);
        let unpacked = unpack("crypto-minute");
        assert_eq!(fs::read_to_string(unpacked.join("2018-04-05.csv")).ok(), Some(text("crypto-minute/2018-04-05")));
        let (parent, beside) =
            (unpacked.parent().map(Path::to_owned), unpacked.parent().map(|parent| fs::read_dir(parent).map(Iterator::count)));
        assert_eq!(beside.and_then(Result::ok), Some(1));
        drop(unpacked);
        assert_eq!(parent.map(|parent| parent.exists()), Some(false));
    }

    #[test]
    fn a_failed_seed_says_how_to_repeat_it() {
        assert_eq!(repeat(17), "to repeat seed 17: REPAIR_SEEDS=17..18 cargo test");
    }
}
