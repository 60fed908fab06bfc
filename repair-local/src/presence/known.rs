//! What is known of files from earlier looks, and what this look adds to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::Schema;
use jiff::Timestamp;
use repair_core::lake::partition::TimeBounds;
use repair_core::model::{Table, Zone};

use super::section::Section;
use crate::files::DataFile;
use crate::kept::{Bytes, Entry, Kept, New, PackId, put_number, put_signed};
use crate::lake::Inner;
use crate::read::parquet;
use crate::threads;

/// The parts in which a file is counted, and what says which of them are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether it is counted as one part.
    is_whole: bool,
    /// The row groups: the time of their rows, if that is known, and their size in bytes. None of a file that has no row groups.
    groups: Vec<(Option<TimeBounds>, u64)>,
}

impl Layout {
    /// A file without row groups.
    pub(super) fn of_text() -> Self {
        Self { is_whole: true, groups: Vec::new() }
    }

    pub(super) fn of_parquet(opened: &parquet::Opened, table: &Table, is_whole: bool) -> repair_core::Result<Self> {
        let bytes = |group: usize| u64::try_from(opened.footer().row_group(group).compressed_size()).unwrap_or(0);
        let groups = opened.times(table)?.into_iter().enumerate().map(|(group, time)| (time, bytes(group))).collect();
        Ok(Self { is_whole, groups })
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> usize {
        if self.is_whole { 1 } else { self.groups.len() }
    }

    /// The row groups that may hold rows within bounds, as [`parquet::Opened::groups`] finds them.
    fn needed(&self, bounds: &TimeBounds) -> Vec<usize> {
        let may_overlap = |time: &TimeBounds| time.from_us < bounds.to_us && time.to_us > bounds.from_us;
        let is_needed =
            |(_, (time, _)): &(usize, &(Option<TimeBounds>, u64))| *bounds == TimeBounds::ALL || time.as_ref().is_none_or(may_overlap);
        self.groups.iter().enumerate().filter(is_needed).map(|(group, _)| group).collect()
    }

    /// Whether all of the file is read for these bounds. What is one part can only be kept or used then.
    pub(super) fn is_read_as_whole(&self, bounds: &TimeBounds) -> bool {
        self.needed(bounds).len() == self.groups.len()
    }

    /// The parts that are read for these bounds; `None` if these are not whole parts.
    pub(super) fn parts_within(&self, bounds: &TimeBounds) -> Option<Vec<usize>> {
        if self.is_whole { self.is_read_as_whole(bounds).then(|| vec![0]) } else { Some(self.needed(bounds)) }
    }

    /// The row groups that may hold rows within bounds, with the time of their rows, and their size; `None` of a file that is one part.
    pub(super) fn groups_within(&self, bounds: &TimeBounds) -> Option<Vec<(usize, TimeBounds, u64)>> {
        let of_group = |group: usize| self.groups.get(group).map(|(time, bytes)| (group, time.unwrap_or(TimeBounds::ALL), *bytes));
        if self.is_whole { None } else { Some(self.needed(bounds).into_iter().filter_map(of_group).collect()) }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_whole)];
        put_number(&mut bytes, self.groups.len() as u64);
        for (time, size) in &self.groups {
            bytes.push(u8::from(time.is_some()));
            if let Some(time) = time {
                put_signed(&mut bytes, time.from_us);
                put_signed(&mut bytes, time.to_us);
            }
            put_number(&mut bytes, *size);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(bytes);
        let is_whole = bytes.take(1)? == [1];
        let groups = (0..bytes.count()?).map(|_| {
            let time = match bytes.take(1)? {
                [0] => None,
                _ => Some(TimeBounds { from_us: bytes.signed()?, to_us: bytes.signed()? }),
            };
            Some((time, bytes.number()?))
        });
        let groups = groups.collect::<Option<_>>()?;
        bytes.0.is_empty().then_some(Self { is_whole, groups })
    }
}

/// What is known of a file.
#[derive(Debug, Clone)]
pub(super) struct Known {
    entry: Entry,
    pub(super) layout: Arc<Layout>,
}

impl Known {
    fn of(entry: Entry) -> Option<Self> {
        let layout = Layout::decode(&entry.head).filter(|layout| layout.parts() == entry.parts())?;
        Some(Self { entry, layout: Arc::new(layout) })
    }

    /// Whether parts are known.
    pub(super) fn has_all(&self, parts: &[usize]) -> bool {
        parts.iter().all(|part| self.entry.has(*part))
    }

    /// What parts hold; `None` if it is not there any more, or damaged.
    pub(super) fn sections(&self, parts: &[usize]) -> Option<Vec<Section>> {
        self.entry.read(parts)?.iter().map(|bytes| Section::decode(bytes)).collect()
    }
}

/// A part of a file, as it was read.
pub(super) struct Recorded {
    /// The number of the file.
    pub(super) file: usize,
    pub(super) layout: Arc<Layout>,
    pub(super) part: usize,
    pub(super) bytes: Vec<u8>,
    /// Whether it was seen that the file that was read is the one that was listed.
    pub(super) is_listed: bool,
}

/// The parts of a file that were read.
struct Parts {
    file: DataFile,
    layout: Arc<Layout>,
    parts: Vec<Option<Vec<u8>>>,
    is_listed: bool,
}

/// What a look finds known, and adds to it.
pub(super) struct Keeping {
    kept: Kept,
    settles: Duration,
    /// The pack of each file that is to be read, by the number of the file.
    packs: HashMap<usize, PackId>,
    /// How many things are still to be read for each pack. When it is none, the pack is written, so that what waits to be kept stays small.
    waiting: HashMap<PackId, usize>,
    /// What was read for each pack, by file.
    recorded: BTreeMap<PackId, BTreeMap<usize, Parts>>,
    has_written: bool,
}

impl Keeping {
    /// `None` if nothing is kept.
    pub(super) fn of(lake: &Inner, table: &Table, judged: Option<&Schema>) -> Option<Self> {
        let kept = Kept::of(lake, "presence", &reading(table, judged))?;
        Some(Self {
            kept,
            settles: lake.settles,
            packs: HashMap::new(),
            waiting: HashMap::new(),
            recorded: BTreeMap::new(),
            has_written: false,
        })
    }

    /// What is known of some files.
    pub(super) fn find(&self, files: &[&DataFile]) -> Vec<Option<Known>> {
        self.kept.find(files).into_iter().map(|entry| entry.and_then(Known::of)).collect()
    }

    /// Whether what is read of a file can be kept.
    pub(super) fn is_settled(&self, file: &DataFile) -> bool {
        file.is_settled(self.settles)
    }

    /// Awaits that these are read, each with its number; some may come several times.
    pub(super) fn await_all<'a>(&mut self, files: impl Iterator<Item = (usize, &'a DataFile)>) {
        let mut last = None;
        let mut places = self.kept.places();
        for (number, file) in files {
            // The parts of a file follow each other, mostly.
            let pack = match last {
                Some((known, pack)) if known == number => Some(pack),
                _ => places.pack_of(file),
            };
            let Some(pack) = pack else { continue };
            last = Some((number, pack));
            self.packs.insert(number, pack);
            *self.waiting.entry(pack).or_default() += 1;
        }
    }

    /// Takes what was read of a file.
    pub(super) fn take(&mut self, file: &DataFile, recorded: Recorded) {
        let Some(pack) = self.packs.get(&recorded.file).copied() else { return };
        let Recorded { file: number, layout, part, bytes, is_listed } = recorded;
        let new = || Parts { file: file.clone(), layout: layout.clone(), parts: vec![None; layout.parts()], is_listed: true };
        let known = self.recorded.entry(pack).or_default().entry(number).or_insert_with(new);
        known.is_listed &= is_listed;
        // If they differ, the file has changed, and nothing of it is kept below.
        if known.layout == layout
            && let Some(place) = known.parts.get_mut(part)
        {
            *place = Some(bytes);
        }
    }

    /// Notes that these were read, by the numbers of their files, and keeps what belongs to packs for which nothing more is to be read.
    pub(super) fn done(&mut self, files: impl Iterator<Item = usize>) {
        let mut whole = Vec::new();
        for pack in files.filter_map(|number| self.packs.get(&number).copied()) {
            let left = self.waiting.entry(pack).or_insert(1);
            *left = left.saturating_sub(1);
            if *left == 0 {
                whole.extend(self.recorded.remove(&pack).map(|recorded| (pack, Mutex::new(recorded))));
            }
        }
        let written = threads::map_parallel(&whole, |(pack, recorded)| {
            let recorded = std::mem::take(&mut *recorded.lock().unwrap_or_else(PoisonError::into_inner));
            let mut places = self.kept.places();
            let entry = |Parts { file, layout, parts, is_listed }: Parts| {
                Kept::new_entry(&mut places, &file, is_listed, self.settles, layout.encode().into(), parts)
            };
            let new: Vec<New> = recorded.into_values().filter_map(entry).map(|(_, new)| new).collect();
            let has_any = !new.is_empty();
            self.kept.add(*pack, new);
            Ok(has_any)
        });
        self.has_written |= written.is_ok_and(|written| written.contains(&true));
    }

    /// Ends the look.
    pub(super) fn end(self) {
        if self.has_written {
            self.kept.evict();
        }
    }
}

/// Everything that decides what is counted of a file, beside the file and its path: the table, the columns by which rows are judged, and how the
/// clocks of its zones are set, which the system may learn anew.
fn reading(table: &Table, judged: Option<&Schema>) -> Vec<u8> {
    let table = Table { keys: None, misaligned: None, settles_after: None, ..table.clone() };
    let own = [table.zone.clone(), table.reading.zone.clone(), table.layout.as_ref().map(|layout| layout.zone.clone())];
    let zones = own.into_iter().flatten().chain([table.day_zone(), table.date_zone()]).filter(|zone| !zone.is_utc());
    let clocks: BTreeMap<String, Vec<(i64, i32)>> = zones.map(|zone| (zone.name().to_owned(), clock(&zone))).collect();
    format!("{table:?} {judged:?} {clocks:?}").into_bytes()
}

/// The changes of a clock between the years 1600 and 2400.
fn clock(zone: &Zone) -> Vec<(i64, i32)> {
    let year_s = 31_556_952;
    let at = |year: i64, or: Timestamp| Timestamp::from_second((year - 1970) * year_s).unwrap_or(or);
    zone.changes(at(1600, Timestamp::MIN), at(2400, Timestamp::MAX))
}
