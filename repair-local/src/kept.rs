//! What reading files gave, kept beside the lake, so that a later look need not read them again: see [`Kept`].
//!
//! It knows files by their stamps, and nothing of what is kept of them. It is safe to delete at any time. What is damaged, cut off, of another
//! program, or of a file that has changed since, is not there; that nothing can be kept is no error.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::datatypes::Schema;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::disk;
use crate::files::{self, DataFile};
use crate::lake::Inner;
use crate::place;
use crate::stamp::Stamp;
use crate::threads;

/// The folder below that of our own state.
const FOLDER: &str = "presence";

/// The ending of a pack.
const ENDING: &str = "pack";

/// How a pack begins: what it is, and the version of its form.
const MAGIC: &[u8; 8] = b"repkept1";

/// The beginning of a pack: the magic, its identity, the length of its index, and the check of all that and the index.
const HEAD_BYTES: usize = 8 + 32 + 8 + 32;

/// Files of a folder share packs, so that many small files need few of them: to make one takes as long as to read some ten small files. With
/// several packs, a new file makes only one be written again.
const PACKS_OF_FOLDER: u8 = 4;

/// A file of this size has a pack of its own, since what is kept of it may be as large as that of thousands of small ones.
const LARGE_BYTES: u64 = 1 << 20;

/// A longer index is not read, so that a damaged length takes no memory.
const MAX_INDEX_BYTES: u64 = 256 << 20;

/// A larger part is neither kept nor read.
const MAX_PART_BYTES: usize = 256 << 20;

/// A pack of this size at most is read as a whole.
const SMALL_PACK_BYTES: u64 = 256 << 10;

/// All packs of a lake together. Beyond, those go first that were not used for the longest time.
pub(crate) const MAX_BYTES: u64 = 1 << 30;

/// A pack that was not used for this long goes, such as those of a table that was defined otherwise.
const UNUSED: Duration = Duration::from_secs(100 * 86_400);

/// That a pack was used is noted at most this often.
const NOTED: Duration = Duration::from_secs(86_400);

/// Nothing is kept on a disk with less space, which is needed for what cannot be read again.
const MIN_FREE_BYTES: u64 = 256 << 20;

/// What is kept of files as they are read in one way.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    root: PathBuf,
    /// Everything that decides what is read of a file, beside the file.
    reading: blake3::Hash,
    large_alone: bool,
    max_bytes: u64,
}

/// The pack that a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PackId([u8; 32]);

/// What is kept of a file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// What was read first.
    pub(crate) head: Arc<[u8]>,
    file: Arc<Named>,
    pack: Arc<PackAt>,
    parts: Vec<Option<Part>>,
}

#[derive(Debug)]
struct PackAt {
    id: PackId,
    path: PathBuf,
    /// All of it, if it is small: it is what many small files share, and each would open it again.
    bytes: Option<Vec<u8>>,
}

/// A file by its name in a pack, its stamp, and what its path says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Named {
    name: String,
    stamp: [u8; Stamp::BYTES],
    facts: [u8; 16],
}

/// Where a part lies in a pack.
#[derive(Debug, Clone, Copy)]
struct Part {
    at: u64,
    bytes: usize,
    check: [u8; 16],
}

/// What is to be kept of a file.
#[derive(Debug)]
pub(crate) struct New {
    folder: PathBuf,
    file: Named,
    head: Arc<[u8]>,
    parts: Vec<Option<Vec<u8>>>,
}

/// An entry of a pack that is written: each part with its check.
struct ToWrite {
    file: Named,
    head: Arc<[u8]>,
    parts: Vec<Option<(Vec<u8>, [u8; 16])>>,
}

impl Kept {
    /// What is kept in a lake of files that are read in this way; `None` if nothing is.
    ///
    /// Nothing is kept before something else of ours is in the lake, so that a mere look at a folder leaves it as it is.
    pub(crate) fn of(lake: &Inner, what: &str, reading: &[u8]) -> Option<Self> {
        if !lake.keeps || !matches!(files::is_folder(&place::own_folder(&lake.root)), Ok(true)) {
            return None;
        }
        let program = lake.program?;
        let mut hasher = blake3::Hasher::new();
        // A lake that was moved begins anew, because some of what is kept may name files.
        for part in
            [env!("CARGO_PKG_VERSION").as_bytes(), program.as_bytes(), what.as_bytes(), lake.root.as_os_str().as_encoded_bytes(), reading]
        {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Some(Self {
            folder: place::own_folder(&lake.root).join(FOLDER),
            root: lake.root.clone(),
            reading: hasher.finalize(),
            large_alone: true,
            max_bytes: lake.max_kept_bytes,
        })
    }

    /// The same for what is small, however large the file is.
    pub(crate) fn small(self) -> Self {
        Self { large_alone: false, ..self }
    }

    /// Finds the places of files.
    pub(crate) fn places(&self) -> Places<'_> {
        Places { kept: self, last: None }
    }

    fn path(&self, pack: PackId) -> PathBuf {
        self.folder.join(format!("{}.{ENDING}", blake3::Hash::from_bytes(pack.0).to_hex()))
    }

    /// What is kept of each of some files.
    pub(crate) fn find(&self, files: &[&DataFile]) -> Vec<Option<Entry>> {
        let mut places = self.places();
        let places: Vec<_> = files.iter().map(|file| places.of(file)).collect();
        let mut wanted: BTreeMap<PackId, HashSet<&Named>> = BTreeMap::new();
        for (pack, named) in places.iter().flatten() {
            wanted.entry(*pack).or_default().insert(named);
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let found = threads::map_parallel(&wanted, |(pack, names)| {
            let index = self.index(*pack).unwrap_or_default();
            Ok(index.into_iter().filter(|entry| names.contains(&*entry.file)).collect::<Vec<_>>())
        });
        let found: HashMap<Arc<Named>, Entry> =
            found.unwrap_or_default().into_iter().flatten().map(|entry| (entry.file.clone(), entry)).collect();
        places
            .into_iter()
            .map(|place| place.and_then(|(pack, named)| found.get(&named).filter(|entry| entry.pack.id == pack).cloned()))
            .collect()
    }

    /// The entries of a pack; `None` if it is not there, or not what was written.
    fn index(&self, pack: PackId) -> Option<Vec<Entry>> {
        let path = self.path(pack);
        let mut file = File::open(&path).ok()?;
        let metadata = file.metadata().ok()?;
        let mut head = [0; HEAD_BYTES];
        let mut whole = None;
        if metadata.len() <= SMALL_PACK_BYTES {
            let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).ok()? + 1);
            Read::by_ref(&mut file).take(SMALL_PACK_BYTES).read_to_end(&mut bytes).ok()?;
            head = *bytes.first_chunk()?;
            whole = Some(bytes);
        } else {
            file.read_exact(&mut head).ok()?;
        }
        let (begin, check) = head.split_at(HEAD_BYTES - 32);
        let length = u64::from_le_bytes(begin[40..].try_into().ok()?);
        if &begin[..8] != MAGIC || begin[8..40] != pack.0 || length > MAX_INDEX_BYTES.min(metadata.len()) {
            return None;
        }
        let length_in_memory = usize::try_from(length).ok()?;
        let read;
        let index = match &whole {
            Some(bytes) => bytes.get(HEAD_BYTES..)?.get(..length_in_memory)?,
            None => {
                let mut index = vec![0; length_in_memory];
                file.read_exact(&mut index).ok()?;
                read = index;
                &read
            }
        };
        if blake3::Hasher::new().update(begin).update(index).finalize().as_bytes() != check {
            return None;
        }
        let now = SystemTime::now();
        if metadata.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > NOTED)) {
            let _ = file.set_modified(now);
        }
        let first = HEAD_BYTES as u64 + length;
        // What it is parsed from is kept with it, so the entries are made after that.
        let parsed = parse(index, first)?;
        let pack = Arc::new(PackAt { id: pack, path, bytes: whole });
        Some(parsed.into_iter().map(|(head, file, parts)| Entry { head, file: Arc::new(file), pack: pack.clone(), parts }).collect())
    }

    /// What is to be kept of a file that was read after it was listed, and in which pack; `None` if it cannot be, or has changed meanwhile. Whoever
    /// has seen that the file that was read is the one that was listed, says so.
    pub(crate) fn new_entry(
        places: &mut Places<'_>,
        file: &DataFile,
        is_listed: bool,
        settles: Duration,
        head: Arc<[u8]>,
        parts: Vec<Option<Vec<u8>>>,
    ) -> Option<(PackId, New)> {
        if !file.is_settled(settles) || parts.iter().flatten().any(|part| part.len() > MAX_PART_BYTES) {
            return None;
        }
        let is_same = is_listed || Stamp::of(&fs::metadata(&file.path).ok()?) == file.stamp;
        let (pack, named) = places.of(file).filter(|_| is_same)?;
        Some((pack, New { folder: file.path.parent()?.to_owned(), file: named, head, parts }))
    }

    /// Adds to a pack. What it holds of files that have changed, or are gone, does not stay.
    pub(crate) fn add(&self, pack: PackId, new: Vec<New>) {
        if new.is_empty() {
            return;
        }
        if let Err(error) = self.write(pack, new) {
            tracing::debug!(folder = %self.folder.display(), %error, "what was read is not kept");
        }
    }

    fn write(&self, pack: PackId, new: Vec<New>) -> io::Result<()> {
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if disk::free_space(&self.folder).ok().flatten().is_some_and(|free| free < MIN_FREE_BYTES) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let old = self.index(pack).unwrap_or_default();
        let mut of_old: HashMap<String, Entry> = old.into_iter().map(|entry| (entry.file.name.clone(), entry)).collect();
        let before = if of_old.is_empty() { None } else { File::open(self.path(pack)).ok() };
        let folder = new.first().map(|new| new.folder.clone()).unwrap_or_default();
        let mut entries: BTreeMap<String, ToWrite> = BTreeMap::new();
        for New { file, head, parts, .. } in new {
            let known = of_old.remove(&file.name).filter(|known| *known.file == file && *known.head == *head);
            let checked = |(number, part): (usize, Option<Vec<u8>>)| {
                let check = |bytes: Vec<u8>| {
                    let check = check(pack, &file, number, &bytes);
                    (bytes, check)
                };
                part.map(check).or_else(|| {
                    // Other parts of the same file.
                    let part = known.as_ref()?.parts.get(number).copied().flatten()?;
                    Some((bytes_of(before.as_ref()?, &part)?, part.check))
                })
            };
            let parts = parts.into_iter().enumerate().map(checked).collect();
            entries.insert(file.name.clone(), ToWrite { file, head, parts });
        }
        for (name, entry) in of_old {
            let now = fs::metadata(folder.join(&name)).ok().and_then(|metadata| Stamp::of(&metadata).to_bytes());
            if now != Some(entry.file.stamp) {
                continue;
            }
            let part = |part: &Option<Part>| part.and_then(|part| Some((bytes_of(before.as_ref()?, &part)?, part.check)));
            let parts = entry.parts.iter().map(part).collect();
            entries.insert(name, ToWrite { file: (*entry.file).clone(), head: entry.head.clone(), parts });
        }
        drop(before);
        let mut heads: Vec<&[u8]> = entries.values().map(|entry| &*entry.head).collect();
        // Most are the same, also by where they are.
        heads.dedup_by(|next, last| std::ptr::eq(*next, *last));
        heads.sort_unstable();
        heads.dedup();
        let mut index = Vec::new();
        put_number(&mut index, heads.len() as u64);
        heads.iter().for_each(|head| put_text(&mut index, head));
        put_number(&mut index, entries.len() as u64);
        let mut at = 0;
        for ToWrite { file, head, parts } in entries.values() {
            put_text(&mut index, file.name.as_bytes());
            index.extend_from_slice(&file.stamp);
            index.extend_from_slice(&file.facts);
            put_number(&mut index, heads.binary_search(&&**head).unwrap_or(0) as u64);
            put_number(&mut index, parts.len() as u64);
            for part in parts {
                let Some((bytes, check)) = part else {
                    put_number(&mut index, 0);
                    continue;
                };
                put_number(&mut index, bytes.len() as u64 + 1);
                put_number(&mut index, at);
                index.extend_from_slice(check);
                at += bytes.len() as u64;
            }
        }
        let mut begin = Vec::with_capacity(HEAD_BYTES);
        begin.extend_from_slice(MAGIC);
        begin.extend_from_slice(&pack.0);
        begin.extend_from_slice(&(index.len() as u64).to_le_bytes());
        let check = blake3::Hasher::new().update(&begin).update(&index).finalize();
        begin.extend_from_slice(check.as_bytes());
        let temporary = files::temporary_in(&self.folder).map_err(io::Error::other)?;
        // Nothing is flushed: what a loss of power leaves of it does not fit its check.
        let mut writer = io::BufWriter::with_capacity(1 << 18, temporary.as_file());
        writer.write_all(&begin)?;
        writer.write_all(&index)?;
        for (bytes, _) in entries.values().flat_map(|entry| entry.parts.iter().flatten()) {
            writer.write_all(bytes)?;
        }
        writer.flush()?;
        drop(writer);
        temporary.persist(self.path(pack)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes packs that were not used for long, and the oldest ones if all together are too large.
    pub(crate) fn evict(&self) {
        let now = SystemTime::now();
        let mut packs: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            packs.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), path));
        }
        let mut bytes: u64 = packs.iter().map(|(_, bytes, _)| bytes).sum();
        // So many go that this is not done again and again.
        let most = if bytes > self.max_bytes { self.max_bytes / 4 * 3 } else { u64::MAX };
        packs.sort_unstable();
        for (at, size, path) in packs {
            let is_unused = now.duration_since(at).is_ok_and(|age| age > UNUSED);
            if !is_unused && bytes <= most {
                break;
            }
            // Who reads it holds it, and what is gone is read again.
            if fs::remove_file(path).is_ok() {
                bytes -= size;
            }
        }
    }
}

/// Finds the packs of files. Those of a folder mostly follow each other, and share some.
pub(crate) struct Places<'a> {
    kept: &'a Kept,
    last: Option<OfFolder>,
}

/// The packs of a folder.
struct OfFolder {
    folder: PathBuf,
    /// What the identities of its packs begin with.
    begin: blake3::Hasher,
    /// Those that its small files share, as far as they were asked for.
    shared: [Option<PackId>; PACKS_OF_FOLDER as usize],
}

impl Places<'_> {
    /// The pack of a file, and its name there; `None` if nothing can be kept of it.
    fn of(&mut self, file: &DataFile) -> Option<(PackId, Named)> {
        let stamp = file.stamp.to_bytes()?;
        let (pack, name) = self.pack_and_name(file)?;
        Some((pack, Named { name: name.to_owned(), stamp, facts: facts_of(file) }))
    }

    /// The pack of a file; `None` if nothing can be kept of it.
    pub(crate) fn pack_of(&mut self, file: &DataFile) -> Option<PackId> {
        file.stamp.to_bytes()?;
        self.pack_and_name(file).map(|(pack, _)| pack)
    }

    fn pack_and_name<'b>(&mut self, file: &'b DataFile) -> Option<(PackId, &'b str)> {
        let name = file.path.file_name()?.to_str()?;
        let folder = file.path.parent()?;
        let last = self.last.take().filter(|last| last.folder.as_os_str() == folder.as_os_str());
        let OfFolder { begin, shared, .. } = self.last.insert(match last {
            Some(last) => last,
            None => {
                let below = folder.strip_prefix(&self.kept.root).unwrap_or(folder).as_os_str();
                let mut begin = blake3::Hasher::new();
                begin.update(self.kept.reading.as_bytes()).update(&(below.len() as u64).to_le_bytes());
                begin.update(below.as_encoded_bytes());
                OfFolder { folder: folder.to_owned(), begin, shared: Default::default() }
            }
        });
        let id = |more: &[&[u8]]| {
            let mut hasher = begin.clone();
            more.iter().for_each(|more| _ = hasher.update(more));
            PackId(*hasher.finalize().as_bytes())
        };
        if self.kept.large_alone && file.bytes >= LARGE_BYTES {
            return Some((id(&[&[1], name.as_bytes()]), name));
        }
        let number = blake3::hash(name.as_bytes()).as_bytes()[0] % PACKS_OF_FOLDER;
        let shared = shared.get_mut(usize::from(number))?;
        Some((*shared.get_or_insert_with(|| id(&[&[0, number]])), name))
    }
}

/// What an index says of a file.
type Parsed = (Arc<[u8]>, Named, Vec<Option<Part>>);

/// The entries of an index, before parts of which the first begins at `first`; `None` if it is none.
fn parse(index: &[u8], first: u64) -> Option<Vec<Parsed>> {
    let mut index = Bytes(index);
    let heads: Vec<Arc<[u8]>> = (0..index.count()?).map(|_| index.text().map(Arc::from)).collect::<Option<_>>()?;
    let entries = (0..index.count()?).map(|_| {
        let name = String::from_utf8(index.text()?.to_vec()).ok()?;
        let file = Named { name, stamp: index.take(Stamp::BYTES)?.try_into().ok()?, facts: index.take(16)?.try_into().ok()? };
        let head = heads.get(usize::try_from(index.number()?).ok()?)?.clone();
        let part = |index: &mut Bytes<'_>| -> Option<Option<Part>> {
            let Some(bytes) = index.number()?.checked_sub(1) else { return Some(None) };
            let at = first.checked_add(index.number()?)?;
            Some(Some(Part { at, bytes: usize::try_from(bytes).ok()?, check: index.take(16)?.try_into().ok()? }))
        };
        let parts = (0..index.count()?).map(|_| part(&mut index)).collect::<Option<_>>()?;
        Some((head, file, parts))
    });
    entries.collect()
}

impl Entry {
    /// How many parts the file has.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Whether a part is kept.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.parts.get(number).is_some_and(Option::is_some)
    }

    /// Parts of what was read; `None` if one of them is not there any more, or not what was written.
    pub(crate) fn read(&self, numbers: &[usize]) -> Option<Vec<Vec<u8>>> {
        let pack = if self.pack.bytes.is_some() { None } else { Some(File::open(&self.pack.path).ok()?) };
        let read = |number: &usize| {
            let part = self.parts.get(*number).copied().flatten()?;
            let bytes = match (&pack, &self.pack.bytes) {
                (Some(pack), _) => bytes_of(pack, &part)?,
                (None, whole) => whole.as_ref()?.get(usize::try_from(part.at).ok()?..)?.get(..part.bytes)?.to_vec(),
            };
            (check(self.pack.id, &self.file, *number, &bytes) == part.check).then_some(bytes)
        };
        numbers.iter().map(read).collect()
    }
}

/// The bytes of a part, as they are.
fn bytes_of(pack: &File, part: &Part) -> Option<Vec<u8>> {
    if part.bytes > MAX_PART_BYTES || pack.metadata().ok()?.len() < part.at.checked_add(part.bytes as u64)? {
        return None;
    }
    let mut bytes = vec![0; part.bytes];
    #[cfg(unix)]
    std::os::unix::fs::FileExt::read_exact_at(pack, &mut bytes, part.at).ok()?;
    #[cfg(not(unix))]
    {
        use std::io::{Seek, SeekFrom};
        let mut pack = pack;
        pack.seek(SeekFrom::Start(part.at)).ok()?;
        pack.read_exact(&mut bytes).ok()?;
    }
    Some(bytes)
}

/// The check of a part: of its bytes, and of whose they are.
fn check(pack: PackId, file: &Named, number: usize, bytes: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&pack.0).update(&file.stamp).update(&file.facts).update(&(number as u64).to_le_bytes());
    hasher.update(&(file.name.len() as u64).to_le_bytes()).update(file.name.as_bytes()).update(bytes);
    let mut check = [0; 16];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// A digest of what the path of a file says of its rows.
fn facts_of(file: &DataFile) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for bounds in [file.span, file.reach] {
        let (from_us, to_us) = bounds.map_or((1, 0), |bounds| (bounds.from_us, bounds.to_us));
        hasher.update(&from_us.to_le_bytes()).update(&to_us.to_le_bytes());
    }
    let flags = [u8::from(file.time_us.is_some()), u8::from(file.is_ours), u8::from(file.has_ending)];
    hasher.update(&flags).update(&file.time_us.unwrap_or(0).to_le_bytes()).update(file.compression.ending().as_bytes());
    for (column, value) in file.values.iter() {
        for text in [column, value] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
    }
    let mut facts = [0; 16];
    hasher.finalize_xof().fill(&mut facts);
    facts
}

/// Adds a number, in as few bytes as it needs.
pub(crate) fn put_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    to.push(u8::try_from(number).unwrap_or(0));
}

/// Adds a number that may be negative.
pub(crate) fn put_signed(to: &mut Vec<u8>, number: i64) {
    put_number(to, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Adds bytes, after their length.
pub(crate) fn put_text(to: &mut Vec<u8>, bytes: &[u8]) {
    put_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// How many items follow. Each takes a byte at least, so that a damaged number takes no memory.
    pub(crate) fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len())
    }

    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }
}

/// Columns as a head; `None` if they have no such form.
pub(crate) fn head_of(columns: &Schema) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    StreamWriter::try_new(&mut head, columns).ok()?.finish().ok()?;
    schema_of(&head).filter(|same| same == columns).map(|_| head)
}

/// The columns of a head; `None` if it is none.
pub(crate) fn schema_of(head: &[u8]) -> Option<Schema> {
    Some(StreamReader::try_new(head, None).ok()?.schema().as_ref().clone())
}
