//! Presence: which slots hold a row. Decodes only the key and time columns, and counts rows without creating an object for each.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use repair_core::lake::PresenceRequest;
use repair_core::model::Usage;
use repair_core::model::{Format, Key, KeyPresence, OtherKeys, Presence, SlotGrid, SlotRange, SlotSet, Table, TablePresence};
use repair_core::{Error, ErrorKind, Result};

use crate::files::{self, DataFile};
use crate::lake::Inner;
use crate::overlay::{self, LiveSlots};
use crate::place::{self, Place};
use crate::read::{self, Tally, parquet};
use crate::scan;
use repair_core::lake::partition::{SECOND_US, TimeBounds};
use repair_core::lake::shape;

/// Rows decoded at a time; with two narrow columns, more than in a scan.
const BATCH_ROWS: usize = 32_768;

/// Up to this many combinations of values, the number of a combination is computed; beyond, combinations are numbered as they occur. Debug
/// builds use so few that tests do both.
const MAX_DIRECT: usize = if cfg!(debug_assertions) { 8 } else { 1 << 17 };

/// The next slot with a row is sought so many steps ahead.
const MOST_STEPS: u8 = 8;

/// Not looked up yet.
const UNKNOWN: u32 = u32::MAX;
/// A key that was not requested.
const OTHER: u32 = u32::MAX - 1;

/// The most words of one request: 12 GB of bits and counts.
const MAX_WORDS: usize = 1 << 30;

/// Row groups are read as one piece until they have this many rows: enough to make the cost of a piece small. Debug builds use so few that
/// tests read several pieces.
const PIECE_ROWS: u64 = if cfg!(debug_assertions) { 50 } else { 250_000 };

/// The presence of all slots of a request.
pub(crate) fn presence(lake: &Inner, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
    let mut whole = None;
    in_pieces(lake, table, request, &[request.slots], &mut |piece| {
        whole = Some(piece);
        Ok(ControlFlow::Continue(()))
    })?;
    whole.ok_or_else(|| Error::internal("there is no presence"))
}

/// What to do with the presence of a piece.
pub(crate) type PieceSink<'a> = dyn FnMut(TablePresence) -> Result<ControlFlow<()>> + 'a;

/// The presence of each piece, one after the other. A file is read when the first piece comes that it may concern, and what it says of later
/// pieces is kept until they come.
pub(crate) fn in_pieces(
    lake: &Inner,
    table: &Table,
    request: &PresenceRequest,
    pieces: &[SlotRange],
    sink: &mut PieceSink<'_>,
) -> Result<()> {
    let grid = table.grid()?;
    shape::check_keys(table, &request.keys)?;
    check_pieces(grid, request.slots, pieces)?;
    let place = Place::to_read(&lake.root, table)?;
    let bounds = TimeBounds::of_slots(&grid, request.slots);
    let all = place.files(table)?;
    let judged = if read::quarantines(table) { scan::schema_of(lake, table, &all)? } else { None };
    let files = place::prune(all, &bounds);
    let mut keys = request.keys.clone();
    keys.sort_unstable();
    keys.dedup();
    let targets: HashMap<Key, u32> = keys.iter().cloned().zip(0..).collect();
    let to_read = to_read(table, files, &bounds, &pieces.iter().map(|piece| TimeBounds::of_slots(&grid, *piece)).collect::<Vec<_>>())?;
    let mut to_read = to_read.as_slice();
    let mut totals = Totals::default();
    // What is known of pieces to come.
    let mut ahead = Counts::new(grid, SlotRange::new(request.slots.first, request.slots.first), keys.len())?;
    for (at, &slots) in pieces.iter().enumerate() {
        let now;
        (now, to_read) = to_read.split_at(to_read.partition_point(|next| next.first <= at));
        let end = now.iter().filter_map(|next| pieces.get(next.last)).map(|last| last.end).max();
        let known = SlotRange::new(slots.first, slots.end.max(ahead.slots.end).max(end.unwrap_or(slots.end)));
        let size = Counts::new(grid, known, keys.len())?;
        let new = || Counter::new(grid, request.slots, &targets, size.like(), judged.as_ref());
        let work = work(table, now, &bounds)?;
        let counters =
            files::fold_parallel(&work, new, |counter, piece| read::guarded(&piece.file, || counter.read(table, piece, &bounds)))?;
        drop(work);
        let mut counts = size;
        for (number, counter) in counters.into_iter().enumerate() {
            totals.merge(counter.totals);
            if number == 0 {
                counts = counter.counts;
            } else {
                counts.merge(&counter.counts);
            }
        }
        counts.merge(&ahead);
        let is_last = at + 1 == pieces.len();
        if is_last {
            totals.tally.check(table)?;
        }
        let mut usage = std::mem::take(&mut totals.usage);
        let mut raw = Presence::new(grid, slots, []);
        raw.keys = keys.iter().zip(0..).map(|(key, target)| (key.clone(), counts.of_key(target, slots))).collect();
        ahead = if is_last { counts.after(slots.end, slots.end) } else { counts.after(slots.end, known.end) };
        raw.other_rows = std::mem::take(&mut totals.other_rows);
        raw.other_keys = std::mem::take(&mut totals.other_keys);
        raw.misaligned_rows = std::mem::take(&mut totals.misaligned_rows);
        raw.misplaced_rows = std::mem::take(&mut totals.misplaced_rows);
        if is_last {
            // Files that are read in parts are in several pieces.
            raw.stray_rows = std::mem::take(&mut totals.stray_rows);
            raw.quarantine = std::mem::take(&mut totals.tally.quarantine);
        }
        let request = PresenceRequest::new(slots, request.keys.clone(), request.as_of);
        let is_lean = pieces.len() > 1;
        let LiveSlots { shown: repaired, overtaken, removed } = overlay::live_slots(table, &place, &request, &raw, is_lean, &mut usage)?;
        let (absent, until) = overlay::absent_slots(table, &place, &request, is_lean, &mut usage)?;
        if sink(TablePresence { raw, repaired, overtaken, absent, removed, absent_until: Some(until), usage })?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Checks that pieces follow each other, are all of the slots, and begin where words do.
fn check_pieces(grid: SlotGrid, slots: SlotRange, pieces: &[SlotRange]) -> Result<()> {
    let per_word = i64::from(grid.cadence().slots_per_word());
    let follow = pieces.windows(2).all(|pair| pair[0].end == pair[1].first && pair[1].first.rem_euclid(per_word) == 0);
    match (pieces.first(), pieces.last()) {
        (Some(first), Some(last)) if follow && first.first == slots.first && last.end == slots.end => Ok(()),
        _ => Err(Error::internal("the pieces of a presence are not its slots")),
    }
}

/// A file, or row groups of one, and which pieces they may concern.
struct ToRead {
    file: DataFile,
    /// The row groups, and the time of the rows of each; `None` for all.
    groups: Option<Vec<(usize, TimeBounds)>>,
    bytes: u64,
    first: usize,
    last: usize,
}

/// What to read for pieces, in order of the first piece. If the path of a file does not say what time its rows have, the statistics of its row
/// groups may. Of what is known by neither, all pieces wait.
fn to_read(table: &Table, files: Vec<DataFile>, bounds: &TimeBounds, pieces: &[TimeBounds]) -> Result<Vec<ToRead>> {
    let concerns = |reach: &TimeBounds| {
        let first = pieces.partition_point(|piece| piece.to_us <= reach.from_us).min(pieces.len().saturating_sub(1));
        let last = pieces.partition_point(|piece| piece.from_us < reach.to_us).saturating_sub(1);
        (first, last.max(first))
    };
    let whole = |file: DataFile| {
        let (first, last) = concerns(file.reach.as_ref().unwrap_or(&TimeBounds::ALL));
        ToRead { bytes: file.bytes, file, groups: None, first, last }
    };
    let (unknown, known): (Vec<DataFile>, Vec<DataFile>) =
        files.into_iter().partition(|file| file.reach.is_none() && pieces.len() > 1 && is_direct(table));
    let parts = files::map_parallel(&unknown, |file| read::guarded(file, || parts(table, file, bounds)))?;
    let mut all: Vec<ToRead> = known.into_iter().map(whole).collect();
    for (file, parts) in unknown.into_iter().zip(parts) {
        let Some(parts) = parts else {
            all.push(whole(file));
            continue;
        };
        for part in parts {
            let (first, last) = concerns(&part.time);
            match all.last_mut() {
                Some(ToRead { groups: Some(groups), bytes, first: before, last: until, file: of })
                    if (*before, *until) == (first, last) && of.path == file.path =>
                {
                    groups.push((part.group, part.time));
                    *bytes += part.bytes;
                }
                _ => {
                    let groups = Some(vec![(part.group, part.time)]);
                    all.push(ToRead { file: file.clone(), groups, bytes: part.bytes, first, last });
                }
            }
        }
    }
    all.sort_by_key(|next| next.first);
    Ok(all)
}

/// A row group of a file.
struct Part {
    group: usize,
    time: TimeBounds,
    bytes: u64,
}

/// The row groups of a file that are to be read, by the time of their rows; `None` if it is to be read as a whole.
fn parts(table: &Table, file: &DataFile, bounds: &TimeBounds) -> Result<Option<Vec<Part>>> {
    let (opened, groups) = open(table, file, bounds)?;
    if !has_time(table, &opened.schema()) {
        return Ok(None);
    }
    let times = opened.times(table)?;
    let part = |group: usize| Part {
        group,
        time: times.get(group).copied().flatten().unwrap_or(TimeBounds::ALL),
        bytes: u64::try_from(opened.footer().row_group(group).compressed_size()).unwrap_or(0),
    };
    Ok(Some(groups.into_iter().map(part).collect()))
}

/// Whether the time of a file is in a column that needs no parsing.
pub(crate) fn has_time(table: &Table, columns: &Schema) -> bool {
    columns.field_with_name(&table.time).is_ok_and(|field| matches!(field.data_type(), DataType::Timestamp(_, _) | DataType::Date32))
}

/// What one thread reads at a time: a file, or some row groups of one.
struct Piece {
    file: DataFile,
    groups: Groups,
}

enum Groups {
    /// All that may hold rows within the bounds.
    All,
    /// Those of which it is known what time their rows have.
    Known(Vec<(usize, TimeBounds)>),
    /// These, of a file that is open.
    Opened(parquet::Opened, Vec<usize>),
}

/// What to read now, for several threads: files, or row groups of files so large that one thread would be left working alone.
fn work(table: &Table, to_read: &[ToRead], bounds: &TimeBounds) -> Result<Vec<Piece>> {
    let total: u64 = to_read.iter().map(|next| next.bytes).sum();
    // The number of footers in memory is then at most twice that of the threads, however many files there are.
    let large = total / (2 * files::workers() as u64);
    let mut pieces = Vec::with_capacity(to_read.len());
    for next in to_read {
        let file = &next.file;
        if !is_direct(table) || files::workers() == 1 || next.bytes <= large {
            let groups = next.groups.clone().map_or(Groups::All, Groups::Known);
            pieces.push(Piece { file: file.clone(), groups });
            continue;
        }
        let (opened, groups) = read::guarded(file, || open(table, file, bounds))?;
        if !has_time(table, &opened.schema()) {
            pieces.push(Piece { file: file.clone(), groups: Groups::All });
            continue;
        }
        let groups = match &next.groups {
            None => groups,
            Some(known) => read::guarded(file, || still_known(table, &opened, known))?,
        };
        let mut rows = 0;
        let mut piece = Vec::new();
        for group in groups {
            rows += opened.rows_of(group);
            piece.push(group);
            if rows >= PIECE_ROWS {
                pieces.push(Piece { file: file.clone(), groups: Groups::Opened(opened.clone(), std::mem::take(&mut piece)) });
                rows = 0;
            }
        }
        if !piece.is_empty() {
            pieces.push(Piece { file: file.clone(), groups: Groups::Opened(opened, piece) });
        }
    }
    Ok(pieces)
}

/// The numbers of row groups of a file that was opened again, if they still hold rows of the same time.
fn still_known(table: &Table, opened: &parquet::Opened, known: &[(usize, TimeBounds)]) -> Result<Vec<usize>> {
    let times = opened.times(table)?;
    let is_same = |(group, time): &(usize, TimeBounds)| times.get(*group).is_some_and(|now| now.unwrap_or(TimeBounds::ALL) == *time);
    if known.iter().all(is_same) { Ok(known.iter().map(|(group, _)| *group).collect()) } else { Err(changed()) }
}

/// The error for a file that is not what it was a moment ago.
fn changed() -> Error {
    Error::new(
        ErrorKind::Transient,
        "the file has changed while it was read, or its statistics do not fit its rows; try again, or write it again",
    )
}

/// Whether the key and time columns of a table's files may be counted as they are: they are Parquet, and nothing more is said about them.
/// Whether they are of types that allow it is seen in each file.
pub(crate) fn is_direct(table: &Table) -> bool {
    let own = |column: &String| table.columns.get(column).is_none_or(|rule| rule.path.is_none() && rule.nulls.is_empty());
    table.format == Format::Parquet
        && !read::quarantines(table)
        && table.reading.is_plain()
        && table.date_zone().is_utc()
        && table.nulls.is_empty()
        && table.key.iter().chain([&table.time]).all(own)
}

/// Opens a Parquet file, and finds the needed row groups.
pub(crate) fn open(table: &Table, file: &DataFile, bounds: &TimeBounds) -> Result<(parquet::Opened, Vec<usize>)> {
    let opened = parquet::open(file)?;
    read::check(table, file, &opened.schema())?;
    let groups = opened.groups(table, bounds)?;
    Ok((opened.with_dictionaries(&table.key), groups))
}

/// Bits and numbers of rows, by word, then by key. By word first, because a file mostly covers a stretch of time, and memory that a thread
/// never writes to is never allocated: threads that read different stretches do not each hold the whole.
struct Counts {
    grid: SlotGrid,
    slots: SlotRange,
    keys: usize,
    first_word: i64,
    bits: Vec<u64>,
    rows: Vec<u32>,
}

impl Counts {
    fn new(grid: SlotGrid, slots: SlotRange, keys: usize) -> Result<Self> {
        let per_word = i64::from(grid.cadence().slots_per_word());
        let first_word = slots.first.div_euclid(per_word);
        let words = if slots.is_empty() { 0 } else { (slots.end - 1).div_euclid(per_word) - first_word + 1 };
        let length = usize::try_from(words).ok().and_then(|words| words.checked_mul(keys)).filter(|length| *length <= MAX_WORDS);
        let length = length.ok_or_else(|| {
            Error::invalid(format!("{keys} keys of {} slots each are too many for one request; use a shorter interval", slots.len()))
        })?;
        Ok(Self { grid, slots, keys, first_word, bits: vec![0; length], rows: vec![0; length] })
    }

    /// The same size, empty.
    fn like(&self) -> Self {
        Self { bits: vec![0; self.bits.len()], rows: vec![0; self.rows.len()], ..*self }
    }

    /// Where the counts of a word begin, if the word is in the range.
    fn of_word(&self, word: i64) -> Option<usize> {
        // If no key was requested there are no counts, but rows of other keys are still counted.
        usize::try_from(word - self.first_word).ok()?.checked_mul(self.keys).filter(|at| *at < self.bits.len() || self.keys == 0)
    }

    fn note(&mut self, noted: Noted) {
        if noted.rows > 0 {
            self.bits[noted.place] |= noted.bits;
            self.rows[noted.place] = self.rows[noted.place].saturating_add(noted.rows);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (at, (bits, rows)) in other.bits.iter().zip(&other.rows).enumerate() {
            if *bits != 0 {
                self.bits[at] |= bits;
                self.rows[at] = self.rows[at].saturating_add(*rows);
            }
        }
    }

    /// The presence of one key, in the first of the slots.
    fn of_key(&self, target: usize, slots: SlotRange) -> KeyPresence {
        let mut presence = KeyPresence::new(self.grid.cadence(), slots);
        let mine = (target..self.bits.len()).step_by(self.keys.max(1));
        for ((word, at), rows) in (self.first_word..).zip(mine).zip(&mut presence.rows) {
            if self.rows[at] > 0 {
                presence.present.insert_word(word, self.bits[at]);
                *rows = self.rows[at];
            }
        }
        presence
    }

    /// What is known of the slots from `first` up to `end`, where a word begins.
    fn after(mut self, first: i64, end: i64) -> Self {
        let slots = SlotRange::new(first, end);
        let first_word = first.div_euclid(i64::from(self.grid.cadence().slots_per_word()));
        let gone = usize::try_from(first_word - self.first_word).unwrap_or(0).saturating_mul(self.keys);
        let keep = |length: usize| if slots.is_empty() { length } else { gone.min(length) };
        self.bits.drain(..keep(self.bits.len()));
        self.rows.drain(..keep(self.rows.len()));
        // What is left is small, mostly.
        self.bits.shrink_to_fit();
        self.rows.shrink_to_fit();
        Self { slots, first_word, ..self }
    }
}

/// What is counted beside the slots of keys.
#[derive(Default)]
struct Totals {
    other_rows: u64,
    other_keys: OtherKeys,
    misaligned_rows: u64,
    misplaced_rows: u64,
    stray_rows: BTreeMap<String, u64>,
    tally: Tally,
    usage: Usage,
}

impl Totals {
    fn merge(&mut self, other: Self) {
        self.other_rows += other.other_rows;
        self.other_keys.merge(&other.other_keys);
        self.misaligned_rows += other.misaligned_rows;
        self.misplaced_rows += other.misplaced_rows;
        for (file, rows) in other.stray_rows {
            *self.stray_rows.entry(file).or_default() += rows;
        }
        self.tally.merge(other.tally);
        self.usage += other.usage;
    }
}

/// Counts the rows of a range of slots, by key.
struct Counter<'a> {
    grid: SlotGrid,
    /// The slots that were asked for. The counts are of some of them.
    asked: SlotRange,
    /// The number of each requested key.
    targets: &'a HashMap<Key, u32>,
    counts: Counts,
    /// The columns by which rows are judged, if the table leaves out bad rows.
    judged: Option<&'a SchemaRef>,
    totals: Totals,
}

impl<'a> Counter<'a> {
    fn new(grid: SlotGrid, asked: SlotRange, targets: &'a HashMap<Key, u32>, counts: Counts, judged: Option<&'a SchemaRef>) -> Self {
        Self { grid, asked, targets, counts, judged, totals: Totals::default() }
    }

    fn read(&mut self, table: &Table, piece: &Piece, bounds: &TimeBounds) -> Result<()> {
        let file = &piece.file;
        let direct = match &piece.groups {
            Groups::Opened(opened, groups) => Some((opened.clone(), groups.clone())),
            Groups::Known(known) => {
                let (opened, _) = open(table, file, bounds)?;
                let groups = still_known(table, &opened, known)?;
                Some((opened, groups))
            }
            Groups::All if is_direct(table) => Some(open(table, file, bounds)?).filter(|(opened, _)| has_time(table, &opened.schema())),
            Groups::All => None,
        };
        let Some((opened, groups)) = direct else {
            let fields = table.key.iter().map(|key| shape::key_field(key)).chain([shape::time_field(table)]);
            let shape = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
            let judged = self.judged.unwrap_or(&shape).clone();
            let mut tally = Tally::default();
            let mut count = |batch: RecordBatch| self.count(table, file, &batch);
            let usage = read::rows(table, file, &judged, bounds, &mut tally, &mut count)?;
            self.totals.tally.merge(tally);
            self.totals.usage += usage;
            return Ok(());
        };
        let names: Vec<&str> = table.key.iter().map(String::as_str).chain([table.time.as_str()]).collect();
        let mut count = |batch: RecordBatch| self.count(table, file, &batch);
        let usage = opened.read(&names, &groups, BATCH_ROWS, &mut count)?;
        self.totals.usage += usage;
        Ok(())
    }

    fn count(&mut self, table: &Table, file: &DataFile, batch: &RecordBatch) -> Result<ControlFlow<()>> {
        let times = batch.column_by_name(&table.time).ok_or_else(|| Error::internal("the time column did not come"))?;
        let times = shape::instants(table, times)?;
        let keys: Vec<KeyColumn> = table.key.iter().map(|name| KeyColumn::of(table, file, name, batch)).collect::<Result<_>>()?;
        let (ids, distinct) = ids(&keys, batch.num_rows());
        let rows = BatchRows { file, keys: &keys, distinct, times: times.values() };
        match &ids {
            Ids::One => self.count_rows(&rows, |_| 0),
            Ids::Codes(codes) => self.count_rows(&rows, |row| usize::try_from(codes[row]).unwrap_or(0)),
            Ids::Dense(ids) => self.count_rows(&rows, |row| ids[row] as usize),
        }?;
        Ok(ControlFlow::Continue(()))
    }

    fn count_rows(&mut self, rows: &BatchRows<'_>, id_of: impl Fn(usize) -> usize) -> Result<()> {
        let BatchRows { file, keys, distinct, times } = *rows;
        let mut targets = vec![UNKNOWN; distinct];
        // For each id of a key that was not asked for: how many rows it has, and one of them.
        let mut others: Vec<(u64, usize)> = Vec::new();
        let mut at = Cursor::new(self.grid);
        let mut place = None;
        let (mut is_misplaced, mut is_stray, mut strays) = (false, false, 0);
        // Of all slots that were asked for, those are counted that the file may concern.
        let mut is_beyond = false;
        // Rows of one key and word follow each other, mostly, and are noted together.
        let mut noted = Noted { place: 0, bits: 0, rows: 0 };
        let mut next = 0;
        while let Some(&time_us) = times.get(next) {
            let row = next;
            next += 1;
            // Rows of one instant, or of one key, follow each other, so the slot is the same or one of the next.
            if at.time_us != time_us || row == 0 {
                at.go_to(time_us);
                place = if self.counts.slots.contains(at.slot) { self.counts.of_word(at.word) } else { None };
                is_beyond = place.is_none() && self.asked.contains(at.slot);
                if let Some(span) = &file.span {
                    is_misplaced = !span.contains(time_us);
                    is_stray = is_misplaced && !file.reach.is_none_or(|reach| reach.contains(time_us));
                }
            }
            if is_stray {
                strays += 1;
                continue;
            }
            let Some(place) = place else {
                if is_beyond {
                    return Err(changed());
                }
                continue;
            };
            let id = id_of(row);
            let mut target = targets[id];
            if target == UNKNOWN {
                let key = Key::new(keys.iter().map(|column| column.value(row)));
                target = self.targets.get(&key).copied().unwrap_or(OTHER);
                targets[id] = target;
            }
            if target == OTHER {
                if others.is_empty() {
                    others.resize(distinct, (0, 0));
                }
                others[id] = (others[id].0 + 1, row);
                continue;
            }
            self.totals.misplaced_rows += u64::from(is_misplaced);
            if !at.is_aligned {
                self.totals.misaligned_rows += 1;
                continue;
            }
            let place = place + target as usize;
            if place != noted.place {
                self.counts.note(std::mem::replace(&mut noted, Noted { place, bits: 0, rows: 0 }));
            }
            noted.bits |= 1 << at.bit;
            noted.rows += 1;
            if !is_misplaced {
                let until_us = file.span.map_or(i64::MAX, |span| span.to_us);
                next += at.follow(&times[next..], |more| id_of(next + more) == id, until_us, self.counts.slots.end, &mut noted);
            }
        }
        self.counts.note(noted);
        for (rows, row) in others.into_iter().filter(|(rows, _)| *rows > 0) {
            self.totals.other_rows += rows;
            self.totals.other_keys.add(&Key::new(keys.iter().map(|column| column.value(row))), rows);
        }
        if strays > 0 {
            *self.totals.stray_rows.entry(file.path.display().to_string()).or_default() += strays;
        }
        Ok(())
    }
}

/// The rows of a batch.
struct BatchRows<'a> {
    file: &'a DataFile,
    keys: &'a [KeyColumn],
    /// The most different ids of keys that there may be.
    distinct: usize,
    times: &'a [i64],
}

/// Rows of one key and word.
#[derive(Clone, Copy)]
struct Noted {
    place: usize,
    bits: u64,
    rows: u32,
}

/// A time and its slot; moving to the next slot takes no division.
struct Cursor {
    grid: SlotGrid,
    per_word: u8,
    /// How far the next slot is, if all slots are equally long.
    step_us: Option<i64>,
    time_us: i64,
    slot: i64,
    word: i64,
    bit: u8,
    /// Whether the time is near enough to that of the slot.
    is_aligned: bool,
}

impl Cursor {
    fn new(grid: SlotGrid) -> Self {
        Self {
            grid,
            per_word: grid.cadence().slots_per_word(),
            step_us: grid.step_s().map(|step_s| step_s * SECOND_US),
            time_us: i64::MIN,
            slot: i64::MIN,
            word: 0,
            bit: 0,
            is_aligned: false,
        }
    }

    /// Notes the rows that come next, as long as they are of the same key, each in the same slot or in a later one of the same word, before an
    /// instant and a slot, and as far from the time of their slot; returns how many.
    #[inline]
    fn follow(&mut self, times: &[i64], is_same_key: impl Fn(usize) -> bool, until_us: i64, end: i64, noted: &mut Noted) -> usize {
        let Some(step_us) = self.step_us else { return 0 };
        let slots_left = u64::try_from(end - 1 - self.slot).unwrap_or(0);
        let bits_left = u64::from(self.per_word.saturating_sub(self.bit + 1)).min(slots_left);
        let last = self.bit + u8::try_from(bits_left).unwrap_or(0);
        let (mut bit, mut at_us, mut taken) = (self.bit, self.time_us, 0);
        for &time_us in times {
            let (mut left_us, mut to) = (time_us.wrapping_sub(at_us), bit);
            while left_us >= step_us && to < last {
                left_us -= step_us;
                to += 1;
            }
            if left_us != 0 || time_us >= until_us || !is_same_key(taken) {
                break;
            }
            (bit, at_us) = (to, time_us);
            noted.bits |= 1 << bit;
            taken += 1;
        }
        noted.rows += u32::try_from(taken).unwrap_or(0);
        self.slot += i64::from(bit - self.bit);
        (self.bit, self.time_us) = (bit, at_us);
        taken
    }

    #[inline]
    fn go_to(&mut self, time_us: i64) {
        let mut ahead = 0;
        if let (Some(step_us), true) = (self.step_us, self.slot != i64::MIN) {
            // Taking a few steps is faster than a division.
            let mut left_us = time_us.checked_sub(self.time_us).unwrap_or(0);
            while left_us >= step_us && ahead < MOST_STEPS {
                left_us -= step_us;
                ahead += 1;
            }
            if left_us != 0 {
                ahead = 0;
            }
        }
        self.time_us = time_us;
        if ahead > 0 {
            // As far from the time of its slot as before.
            self.slot += i64::from(ahead);
            self.bit += ahead;
            while self.bit >= self.per_word {
                self.bit -= self.per_word;
                self.word += 1;
            }
            return;
        }
        self.slot = self.grid.slot_of_seconds(time_us.div_euclid(SECOND_US));
        let per_word = i64::from(self.per_word);
        self.word = self.slot.div_euclid(per_word);
        self.bit = u8::try_from(self.slot.rem_euclid(per_word)).unwrap_or(0);
        self.is_aligned = self.grid.slot_of_row(time_us).is_some();
    }
}

/// A key column of a batch: codes, or one value for all rows.
pub(crate) enum KeyColumn {
    Codes(Int32Array, StringArray),
    Constant(String),
}

impl KeyColumn {
    pub(crate) fn of(table: &Table, file: &DataFile, name: &str, batch: &RecordBatch) -> Result<Self> {
        let Some(column) = batch.column_by_name(name) else {
            return Ok(Self::Constant(file.path_value(name).unwrap_or_default().to_owned()));
        };
        let coded: ArrayRef = match column.data_type() {
            DataType::Dictionary(code, value)
                if **code == DataType::Int32 && **value == DataType::Utf8 && column.logical_null_count() == 0 =>
            {
                column.clone()
            }
            // Each number is converted to text once, not in each of its rows.
            number if number.is_integer() && column.null_count() == 0 => {
                let coded = cast(column, &DataType::Dictionary(Box::new(DataType::Int32), Box::new(number.clone())))?;
                cast(&coded, &dictionary_of_text())?
            }
            _ => return Ok(Self::of_text(&shape::key_text(table, name, column)?)),
        };
        let coded = coded.as_dictionary::<Int32Type>();
        let values = coded.values().as_string_opt::<i32>().ok_or_else(|| Error::internal("a dictionary of text has no text"))?;
        Ok(Self::Codes(coded.keys().clone(), values.clone()))
    }

    /// The codes of a column of text. Rows of one key follow each other, or rows of all keys in one order, so the key of most rows is the
    /// one that followed the last one before, and need not be looked up.
    fn of_text(text: &StringArray) -> Self {
        let mut codes: Vec<i32> = Vec::with_capacity(text.len());
        let mut values: Vec<&str> = Vec::new();
        // For each value, the number of the one that followed it last.
        let mut follows: Vec<usize> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut last = 0;
        for row in 0..text.len() {
            let value = text.value(row);
            let mut number = follows.get(last).copied().unwrap_or(0);
            if values.get(number) != Some(&value) {
                number = *known.entry(value).or_insert(values.len());
                if number == values.len() {
                    values.push(value);
                    follows.push(number);
                }
                follows[last] = number;
            }
            codes.push(i32::try_from(number).unwrap_or(0));
            last = number;
        }
        Self::Codes(Int32Array::from(codes), StringArray::from(values))
    }

    pub(crate) fn value(&self, row: usize) -> &str {
        match self {
            Self::Codes(codes, values) => values.value(code(codes, row)),
            Self::Constant(value) => value,
        }
    }
}

fn dictionary_of_text() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn code(codes: &Int32Array, row: usize) -> usize {
    usize::try_from(codes.value(row)).unwrap_or(0)
}

/// A number for each row that identifies its key, within one batch.
pub(crate) enum Ids<'a> {
    /// All rows have the same key.
    One,
    /// The codes of the only column that varies.
    Codes(&'a [i32]),
    Dense(Vec<u32>),
}

impl Ids<'_> {
    #[inline]
    fn get(&self, row: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Codes(codes) => usize::try_from(codes[row]).unwrap_or(0),
            Self::Dense(ids) => ids[row] as usize,
        }
    }
}

/// The ids of the rows, and the most different ids that there may be.
pub(crate) fn ids(keys: &[KeyColumn], rows: usize) -> (Ids<'_>, usize) {
    let mut varying = keys.iter().filter_map(|column| match column {
        KeyColumn::Codes(codes, values) => Some((codes, values)),
        KeyColumn::Constant(_) => None,
    });
    let Some((first, values)) = varying.next() else { return (Ids::One, 1) };
    let mut ids = Ids::Codes(first.values());
    let mut distinct = values.len();
    for (codes, values) in varying {
        if let Some(product) = distinct.checked_mul(values.len()).filter(|product| *product <= MAX_DIRECT) {
            let number = |row| u32::try_from(ids.get(row) * values.len() + code(codes, row)).unwrap_or(0);
            ids = Ids::Dense((0..rows).map(number).collect());
            distinct = product;
            continue;
        }
        let mut numbers: HashMap<(usize, usize), u32> = HashMap::new();
        let mut dense = Vec::with_capacity(rows);
        let mut last = None;
        for row in 0..rows {
            let pair = (ids.get(row), code(codes, row));
            let id = match last {
                Some((same, id)) if same == pair => id,
                _ => {
                    let next = u32::try_from(numbers.len()).unwrap_or(0);
                    *numbers.entry(pair).or_insert(next)
                }
            };
            last = Some((pair, id));
            dense.push(id);
        }
        distinct = numbers.len();
        ids = Ids::Dense(dense);
    }
    (ids, distinct)
}

/// Empty sets for the keys of a request.
pub(crate) fn empty_sets(grid: SlotGrid, request: &PresenceRequest) -> BTreeMap<Key, SlotSet> {
    request.keys.iter().map(|key| (key.clone(), SlotSet::new(grid.cadence(), request.slots))).collect()
}
