//! Runs on a disk that fails: every operation on a file fails, or is cut short, or is the last that the process does, or the last before
//! power is lost. Afterwards, on a disk that works, the rows are those of an undisturbed run.
//!
//! The cases are laid out in one list for each test, and tried in an order that spreads them: a few by default, more where tests may take
//! long, and all with `REPAIR_SEEDS=0..1000000`. `shim.c` says how a process sees a failing disk, `disk.rs` what a loss of power may leave.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod disk;
mod shim;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{World, seen};
use disk::{Disk, Loss, Tree};
use shim::{Class, EIO, ENOSPC, EROFS, Effect, Fault, Operation};

/// A process that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(100);

/// One unit at a time, so that operations come in nearly the same order each time.
const CHANGES: [(&str, &str); 3] =
    [("rows_per_request: 30", "rows_per_request: 200"), ("concurrency: 2", "concurrency: 1"), ("for: 10ms", "for: 1ms")];

type Rows = BTreeMap<&'static str, Vec<String>>;

/// A world whose processes have a disk that may fail.
struct Faulty {
    world: World,
    root: PathBuf,
    workflow: PathBuf,
    log: PathBuf,
}

/// How a process ended, and what it said.
struct Ended {
    /// `None` if it was killed.
    code: Option<i32>,
    said: String,
}

impl Faulty {
    fn new() -> Self {
        let world = World::new();
        let root = world.lake().canonicalize().unwrap();
        let workflow = world.workflow(&CHANGES);
        let log = workflow.with_file_name("operations.log");
        Self { world, root, workflow, log }
    }

    /// With another lake.
    fn of(tree: &Tree) -> Self {
        let faulty = Self::new();
        std::fs::remove_dir_all(&faulty.root).unwrap();
        std::fs::create_dir(&faulty.root).unwrap();
        disk::lay_out(tree, &faulty.root);
        faulty
    }

    fn process(&self, args: &[&str], fault: Option<(Class, Option<Fault>)>) -> Ended {
        let mut command = self.world.repair();
        command.args(args).env("RUST_BACKTRACE", "0").timeout(PATIENCE);
        if let Some((class, fault)) = fault {
            shim::load(&mut command, &self.root, &self.log, class, fault);
        }
        let output = command.output().unwrap();
        let said = [output.stderr.as_slice(), &output.stdout].map(String::from_utf8_lossy).join("\n");
        // The shim ends a process that it cannot follow, and says why.
        assert_ne!(output.status.code(), Some(97), "{said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
        assert_ne!(output.status.code(), Some(101), "{args:?}: {said}");
        Ended { code: output.status.code(), said: format!("{said}{}", if output.status.signal().is_some() { "killed" } else { "" }) }
    }

    fn run(&self, id: &str, fault: Option<(Class, Option<Fault>)>) -> Ended {
        self.process(&["run", self.workflow.to_str().unwrap(), "--run-id", id, "--json"], fault)
    }

    /// The operations that were logged since the last time.
    fn operations(&self) -> Vec<Operation> {
        let operations = shim::read_log(&self.log);
        let _ = std::fs::remove_file(&self.log);
        operations
    }

    fn rows(&self) -> Rows {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(seen(&self.world))
    }

    /// What a person does when a process has ended before its run: resumes it, or, if there is none to resume, runs it again.
    fn recover(&self, expected: &Rows, at: &str) {
        let resumed = self.process(&["resume", "one", "--json"], None);
        if resumed.code != Some(0) {
            let again = self.run("two", None);
            assert_eq!(again.code, Some(0), "{at}: resumed: {}\nrun again: {}", resumed.said, again.said);
        }
        self.check(expected, at);
    }

    fn check(&self, expected: &Rows, at: &str) {
        let rows = self.rows();
        for (name, rows) in rows {
            let differ = |a: &[String], b: &[String]| a.iter().filter(|row| !b.contains(row)).take(3).cloned().collect::<Vec<_>>();
            assert!(
                rows == expected[name],
                "{at}: {name} has {} rows and not {}: too many {:?}, too few {:?}",
                rows.len(),
                expected[name].len(),
                differ(&rows, &expected[name]),
                differ(&expected[name], &rows)
            );
        }
    }
}

/// An undisturbed run: its rows, what its process did, and the disk before.
struct Calm {
    rows: Rows,
    operations: Vec<Operation>,
    before: Disk,
    faulty: Faulty,
}

fn calm(class: Class) -> Calm {
    let faulty = Faulty::new();
    let before = Disk::of(&faulty.root);
    let ended = faulty.run("one", Some((class, None)));
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    Calm { rows: faulty.rows(), operations: faulty.operations(), before, faulty }
}

/// The same cases in an order that spreads any number of them over all.
fn spread<T: Clone>(cases: &[T]) -> Vec<T> {
    // Prime, and larger than any list, so that all cases come once.
    (0..cases.len()).map(|at| cases[at * 1_000_000_007 % cases.len()].clone()).collect()
}

/// Some of many cases in this order.
fn chosen<T: Clone>(cases: &[T], short: u64, long: u64) -> Vec<T> {
    let seeds = testdata::seeds(short, long);
    let [from, to] = [seeds.start, seeds.end].map(|seed| usize::try_from(seed).unwrap().min(cases.len()));
    cases[from..to].to_vec()
}

/// A file that SQLite shares between processes while they live, and makes anew when the first one opens the journal.
fn is_shared_memory(path: &Path) -> bool {
    path.to_str().unwrap().ends_with("-shm")
}

#[test]
fn the_shim_sees_all_that_a_process_does_to_its_files() {
    let Calm { operations, before: mut disk, faulty, .. } = calm(Class::Changes);
    for operation in &operations {
        disk.apply(operation);
    }
    let known = |tree: Tree| -> Tree { tree.into_iter().filter(|(path, _)| !is_shared_memory(path)).collect() };
    let (said, there) = (known(disk.seen()), known(disk::tree_of(&faulty.root)));
    assert_eq!(said.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
    for (path, content) in &there {
        assert!(said[path] == *content, "{} is not what the log says", path.display());
    }
    let of = |kind: char, name: &str| {
        operations.iter().filter(|operation| operation.kind == kind && operation.path.to_str().unwrap().contains(name)).count()
    };
    // SQLite, which is C; the files of tables, which Rust's library writes; and names, for which `tempfile` asks the kernel itself.
    assert!(of('w', "journal.db-wal") > 20 && of('f', "journal.db-wal") > 10, "SQLite");
    assert!(of('w', ".repair/") > 10 && of('n', ".writing-") > 5 && of('d', "bars_repairs") == 1 && of('u', ".parquet") > 2);
}

#[test]
fn every_operation_on_a_file_fails_once_or_from_then_on_and_no_row_is_wrong() {
    let mut cases = Vec::new();
    let (changes, reads) = (calm(Class::Changes), calm(Class::Reads));
    let kind = |fault: &Fault| {
        let calm = if fault.class == Class::Changes { &changes } else { &reads };
        format!("{:?} {} {} {:?}", fault.class, calm.operations[fault.at].sort(&calm.faulty.root), fault.always, fault.effect)
    };
    for at in 0..changes.operations.len() {
        let fault = |always, effect| Fault { class: Class::Changes, at, always, effect };
        cases.extend([EIO, ENOSPC].map(|error| fault(false, Effect::Error(error))));
        cases.extend([EIO, ENOSPC, EROFS].map(|error| fault(true, Effect::Error(error))));
        if changes.operations[at].kind == 'w' {
            cases.extend([fault(false, Effect::Torn(EIO)), fault(true, Effect::Torn(ENOSPC)), fault(false, Effect::Short)]);
        }
    }
    for at in 0..reads.operations.len() {
        let fault = |always, effect| Fault { class: Class::Reads, at, always, effect };
        cases.extend([fault(false, Effect::Error(EIO)), fault(true, Effect::Error(EIO))]);
        if reads.operations[at].kind == 'r' {
            cases.push(fault(false, Effect::Short));
        }
    }
    // One of each kind comes before all others.
    let mut known = BTreeSet::new();
    let (kinds, others): (Vec<Fault>, Vec<Fault>) = cases.into_iter().partition(|fault| known.insert(kind(fault)));
    let cases = [spread(&kinds), spread(&others)].concat();
    let chosen = chosen(&cases, 6, 160);
    println!(
        "{} changes, {} reads; {} cases of {}, which are of {} kinds",
        changes.operations.len(),
        reads.operations.len(),
        chosen.len(),
        cases.len(),
        kinds.len()
    );
    let mut codes: BTreeMap<Option<i32>, usize> = BTreeMap::new();
    for fault in chosen {
        let faulty = Faulty::new();
        let ended = faulty.run("one", Some((fault.class, Some(fault))));
        let hit = faulty.operations().into_iter().find(|operation| operation.number == fault.at);
        let at = format!("{fault:?}: {}", hit.map_or_else(|| "not reached".to_owned(), |operation| operation.said(&faulty.root)));
        *codes.entry(ended.code).or_default() += 1;
        match ended.code {
            // It did not matter, or was tried again.
            Some(0) => faulty.check(&changes.rows, &at),
            Some(code) => {
                assert!(!ended.said.trim().is_empty(), "{at}: it says nothing");
                // Nobody gave bad input, and nothing is forbidden or damaged, unless the disk says so.
                let is_cautious = matches!(fault.effect, Effect::Error(EROFS)) || ended.said.contains("check the disk and try again");
                assert!(code != 2 || is_cautious, "{at}: {}", ended.said);
                faulty.recover(&changes.rows, &at);
            }
            None => panic!("{at}: {}", ended.said),
        }
    }
    println!("exit codes: {codes:?}");
}

#[test]
fn killed_before_and_within_every_change_and_resumed_no_row_is_wrong() {
    let calm = calm(Class::Changes);
    let mut cases = Vec::new();
    for operation in &calm.operations {
        let fault = |effect| Fault { class: Class::Changes, at: operation.number, always: false, effect };
        cases.push(fault(Effect::Kill));
        if operation.kind == 'w' {
            cases.push(fault(Effect::TornKill));
        }
    }
    let chosen = chosen(&spread(&cases), 4, 40);
    println!("{} cases of {}", chosen.len(), cases.len());
    // What is kept of files is written only where these have been there for some seconds.
    let kept = calm.operations.iter().filter(|operation| operation.path.to_string_lossy().contains(".repair/presence")).count();
    for fault in chosen {
        let faulty = Faulty::new();
        let ended = faulty.run("one", Some((Class::Changes, Some(fault))));
        let at = format!("{fault:?}: {}", calm.operations[fault.at].said(&calm.faulty.root));
        // How many operations there are differs a little, so the last may not be reached.
        assert!(ended.code.is_none() || fault.at + 20 + kept > calm.operations.len(), "{at}: {}", ended.said);
        faulty.recover(&calm.rows, &at);
    }
}

/// The states that a loss of power may leave, each once.
fn states(disk: &mut Disk, operations: &[Operation], known: &mut BTreeSet<Tree>) -> Vec<(String, Tree)> {
    let root = disk.root.clone();
    let mut states = Vec::new();
    for operation in operations {
        disk.apply(operation);
        let seeds = [1, 2].map(|seed| Loss::Some(operation.number as u64 * 2 + seed));
        for loss in [Loss::Everything, Loss::Data, Loss::Contents, Loss::Names].into_iter().chain(seeds) {
            let mut tree = disk.after(loss);
            tree.retain(|path, _| !is_shared_memory(path));
            if known.insert(tree.clone()) {
                states.push((format!("{loss:?} of what was not flushed is lost after {}", operation.said(&root)), tree));
            }
        }
    }
    states
}

#[test]
fn power_is_lost_after_every_change_and_no_row_is_wrong() {
    let Calm { rows, operations, before: mut disk, .. } = calm(Class::Changes);
    let states = states(&mut disk, &operations, &mut BTreeSet::new());
    let chosen = chosen(&spread(&states), 6, 100);
    println!("{} states of {}", chosen.len(), states.len());
    for (at, tree) in chosen {
        Faulty::of(&tree).recover(&rows, &at);
    }
    check_kept(&disk, &rows, "the run has ended");
}

/// What has ended has ended: all that it wrote and said is on the disk, and nobody has to do anything.
fn check_kept(disk: &Disk, expected: &Rows, at: &str) {
    for loss in [Loss::Everything, Loss::Data, Loss::Names] {
        let faulty = Faulty::of(&disk.after(loss));
        faulty.check(expected, &format!("{at}, then {loss:?} of what was not flushed is lost"));
        let shown = faulty.process(&["show", "one"], None);
        assert!(shown.code == Some(0) && shown.said.contains("run one succeeded"), "{at}: {}", shown.said);
    }
}

#[test]
fn power_is_lost_after_a_kill_or_a_failed_flush_and_no_row_is_wrong() {
    let calm = calm(Class::Changes);
    let flushes: Vec<usize> = calm.operations.iter().filter(|operation| operation.kind == 'f').map(|operation| operation.number).collect();
    let count = calm.operations.len();
    let mut cases = Vec::new();
    for at in 0..count {
        cases.push(Fault { class: Class::Changes, at, always: false, effect: Effect::Kill });
    }
    for at in flushes {
        cases.push(Fault { class: Class::Changes, at, always: false, effect: Effect::Error(EIO) });
    }
    let chosen = chosen(&spread(&cases), 2, 20);
    println!("{} cases of {}", chosen.len(), cases.len());
    for fault in chosen {
        let faulty = Faulty::new();
        let mut disk = Disk::of(&faulty.root);
        let mut ended = faulty.run("one", Some((Class::Changes, Some(fault))));
        for operation in faulty.operations() {
            disk.apply(&operation);
        }
        let at = format!("{fault:?}: {}", calm.operations[fault.at].said(&calm.faulty.root));
        if ended.code != Some(0) {
            // The process that goes on finds what the first one did, flushed or not. If there is no run to resume, it begins one.
            ended = faulty.process(&["resume", "one", "--json"], Some((Class::Changes, None)));
            if ended.code != Some(0) {
                ended = faulty.run("one", Some((Class::Changes, None)));
            }
            let states = states(&mut disk, &faulty.operations(), &mut BTreeSet::new());
            if let Some((state, tree)) = states.get((fault.at * 7_919) % states.len().max(1)) {
                Faulty::of(tree).recover(&calm.rows, &format!("{at}, then {state}"));
            }
        }
        // A run that failed keeps its id.
        if ended.code == Some(0) {
            check_kept(&disk, &calm.rows, &at);
        }
    }
}
