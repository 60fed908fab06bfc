//! What small files hold, in memory for a short time. A run reads a small file several times: for the types of its columns, for its keys and times,
//! for rows beside gaps. Opening it takes longer than reading it, so it is opened once.
//!
//! A file is known by its stamp alone, and only if every later write changes that. So whoever uses this has looked at the file a moment ago, as if to
//! open it. This module knows nothing of what is in files.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::files::{self, Compression, DataFile};
use crate::stamp::Stamp;

/// A larger file is read in pieces each time, since opening it is a small part of that.
pub(crate) const MAX_FILE_BYTES: u64 = if cfg!(debug_assertions) { 1 << 12 } else { 64 << 10 };

/// The bytes of all files that are held for a lake: what 100,000 files of a day of hours have, and no more than a large file takes to read.
const MAX_BYTES: usize = 96 << 20;

/// What is not used for this long is forgotten, so that a program that waits takes little memory.
const UNUSED: Duration = Duration::from_secs(30);

/// The bytes of a file.
#[derive(Clone)]
pub(crate) struct Held {
    /// Those of several files.
    all: Arc<Vec<u8>>,
    from: usize,
    to: usize,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.all.get(self.from..self.to).unwrap_or_default()
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.to - self.from)
    }
}

#[derive(Debug)]
struct State {
    of: HashMap<Stamp, Held>,
    bytes: usize,
    used: Instant,
    /// Since when there is no room.
    full: Option<Instant>,
}

impl Default for State {
    fn default() -> Self {
        Self { of: HashMap::new(), bytes: 0, used: Instant::now(), full: None }
    }
}

/// The small files of a lake that were read a short time ago.
#[derive(Debug, Clone)]
pub(crate) struct Small {
    state: Arc<Mutex<State>>,
    settles: Duration,
    max_bytes: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a file is so small that it is read as a whole.
pub(crate) fn is_small(file: &DataFile) -> bool {
    file.compression == Compression::None && file.held.is_none() && (1..=MAX_FILE_BYTES).contains(&file.bytes)
}

impl Small {
    /// None yet, of a lake in which every write shows so long after the last one.
    pub(crate) fn new(settles: Duration) -> Self {
        Self { state: Arc::default(), settles, max_bytes: MAX_BYTES }
    }

    /// The same ones, if every write shows so long after the last one.
    pub(crate) fn settling(&self, settles: Duration) -> Self {
        Self { settles, ..self.clone() }
    }

    /// What each of some files holds, as of when they were listed or later; none of a file that is not small, that has changed since it was listed, or
    /// that cannot be read.
    pub(crate) fn hold(&self, files: &[&DataFile]) -> Vec<Option<Held>> {
        let mut held: Vec<Option<Held>> = {
            let mut state = lock(&self.state);
            state.used = Instant::now();
            let known = |file: &&DataFile| if is_small(file) { state.of.get(&file.stamp).cloned() } else { file.held.clone() };
            files.iter().map(known).collect()
        };
        let missing: Vec<usize> = (0..files.len()).filter(|at| held[*at].is_none() && is_small(files[*at])).collect();
        if missing.is_empty() {
            return held;
        }
        let likely = missing.iter().map(|at| usize::try_from(files[*at].bytes).unwrap_or(0) + 1).sum();
        let mut all = Vec::with_capacity(likely);
        let mut read = Vec::with_capacity(missing.len());
        for at in missing {
            let from = all.len();
            if read_whole(files[at], &mut all) { read.push((at, from, all.len())) } else { all.truncate(from) }
        }
        let all = Arc::new(all);
        for (at, from, to) in &read {
            held[*at] = Some(Held { all: all.clone(), from: *from, to: *to });
        }
        let settled = read.iter().map(|(at, ..)| *at).filter(|at| files[*at].is_settled(self.settles));
        self.keep(settled.filter_map(|at| Some((files[at].stamp, held[at].clone()?))), all.len());
        held
    }

    /// Keeps files, which have so many bytes together, if there is room for them.
    fn keep(&self, new: impl Iterator<Item = (Stamp, Held)>, bytes: usize) {
        let mut new = new.peekable();
        if new.peek().is_none() {
            return;
        }
        let mut state = lock(&self.state);
        // What came first stays: of what comes in turn, and is too much, the last that came would always be the next to go.
        if state.bytes.saturating_add(bytes) > self.max_bytes {
            if state.full.get_or_insert_with(Instant::now).elapsed() < UNUSED || bytes > self.max_bytes {
                return;
            }
            *state = State::default();
        }
        let is_first = state.of.is_empty();
        state.of.extend(new);
        state.bytes += bytes;
        drop(state);
        if is_first {
            forget_later(&self.state);
        }
    }
}

/// Reads a file to the end of some bytes; `false` if it is not the one that was listed, or cannot be read, which whoever reads it by itself will see.
fn read_whole(file: &DataFile, into: &mut Vec<u8>) -> bool {
    let Ok(mut opened) = files::open(&file.path) else { return false };
    // The file that is open, whatever has its name by now.
    if !opened.metadata().is_ok_and(|now| Stamp::of(&now) == file.stamp) {
        return false;
    }
    let Ok(bytes) = usize::try_from(file.bytes) else { return false };
    let from = into.len();
    // One byte more would show that it has grown.
    into.resize(from + bytes + 1, 0);
    let mut end = from;
    while end < from + bytes {
        match opened.read(&mut into[end..]) {
            Ok(0) => return false,
            Ok(read) => end += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    into.truncate(end);
    end == from + bytes
}

/// Those that hold something, and whether somebody looks after them.
static HOLDING: Mutex<(Vec<Weak<Mutex<State>>>, bool)> = Mutex::new((Vec::new(), false));

/// Lets all be forgotten when it was not used for a while.
fn forget_later(state: &Arc<Mutex<State>>) {
    let mut holding = lock(&HOLDING);
    let state = Arc::downgrade(state);
    if !holding.0.iter().any(|known| known.ptr_eq(&state)) {
        holding.0.push(state);
    }
    if !holding.1 {
        let started = std::thread::Builder::new().name("forget".to_owned()).spawn(forget);
        // Without a thread, what is held stays for as long as the lake.
        holding.1 = started.is_ok();
    }
}

fn forget() {
    loop {
        std::thread::sleep(UNUSED);
        let mut holding = lock(&HOLDING);
        holding.0.retain(|state| {
            let Some(state) = state.upgrade() else { return false };
            let mut state = lock(&state);
            let is_used = state.used.elapsed() < UNUSED;
            if !is_used {
                *state = State::default();
            }
            is_used
        });
        if holding.0.is_empty() {
            holding.1 = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use repair_core::model::Format;

    use super::*;
    use crate::disk::{Act, Watch};
    use crate::files::Listed;

    fn list(root: &Path) -> Vec<DataFile> {
        let listed = Listed { format: Format::Csv, ignore: &[], except: &[], only: None, is_left_out: None, are_ours: false };
        files::list(root, &listed).unwrap().unwrap()
    }

    fn held(small: &Small, files: &[DataFile]) -> Vec<Option<Vec<u8>>> {
        let files: Vec<&DataFile> = files.iter().collect();
        small.hold(&files).into_iter().map(|held| held.map(|held| held.as_ref().to_vec())).collect()
    }

    /// Writes a file in place so that its stamp changes: clocks have steps.
    fn rewrite(path: &Path, text: &str) {
        let stamp = || Stamp::of(&fs::metadata(path).unwrap());
        let before = stamp();
        while stamp() == before {
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn what_has_changed_since_it_was_listed_or_may_change_unseen_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let path = root.join("a.csv");
        fs::write(&path, "one").unwrap();
        fs::write(root.join("empty.csv"), "").unwrap();
        fs::write(root.join("large.csv"), vec![b'x'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1]).unwrap();
        let (first, small, watch) = (list(&root), Small::new(Duration::ZERO), Watch::of(&root));
        for _ in 0..2 {
            assert_eq!(held(&small, &first), [Some(b"one".to_vec()), None, None]);
        }
        assert_eq!(watch.take(Act::Open), std::slice::from_ref(&path));
        // Of the same size.
        rewrite(&path, "two");
        assert_eq!(held(&small, &list(&root))[0], Some(b"two".to_vec()));
        // Whoever listed it before gets what it held then, as if it had been opened then; and what was not read by then, is not taken for it.
        assert_eq!(held(&small, &first)[0], Some(b"one".to_vec()));
        assert_eq!(held(&Small::new(Duration::ZERO), &first)[0], None);
        let (unsettled, listed) = (Small::new(Duration::from_secs(3_600)), list(&root));
        watch.take(Act::Open);
        for _ in 0..2 {
            assert_eq!(held(&unsettled, &listed)[0], Some(b"two".to_vec()));
        }
        assert_eq!(watch.take(Act::Open).len(), 2, "another write might leave the same times");
        fs::remove_file(&path).unwrap();
        assert_eq!(held(&Small::new(Duration::ZERO), &listed)[0], None);
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for number in 0..10 {
            fs::write(root.join(format!("{number}.csv")), "x".repeat(100)).unwrap();
        }
        let (files, watch) = (list(&root), Watch::of(&root));
        let small = Small { max_bytes: 350, ..Small::new(Duration::ZERO) };
        for file in files.iter().chain(&files) {
            assert_eq!(held(&small, std::slice::from_ref(file))[0].as_ref().map(Vec::len), Some(100));
        }
        assert_eq!(watch.take(Act::Open).len(), 10 + 7);
        assert_eq!(lock(&small.state).of.len(), 3);
    }
}
