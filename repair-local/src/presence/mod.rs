//! Presence: which slots hold a row. Decodes only the key and time columns, and counts rows without creating an object for each.

mod count;
mod counter;
mod known;
mod section;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use repair_core::lake::PresenceRequest;
use repair_core::model::{Format, Key, Presence, SlotGrid, SlotRange, SlotSet, Table, TablePresence};
use repair_core::{Error, Result};

use self::count::{Counts, Totals};
pub(crate) use self::count::{Ids, KeyColumn, ids};
use self::counter::{Counter, Counting, Groups, Piece, still_known};
use self::known::{Keeping, Known};
use crate::files::DataFile;
use crate::held;
use crate::lake::Inner;
use crate::overlay::{self, LiveSlots};
use crate::place::{self, Place};
use crate::read::{self, parquet};
use crate::scan;
use crate::threads;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::shape;

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
/// pieces is kept until they come. What is known of a file from an earlier look is not read again.
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
    let mut keeping = Keeping::of(lake, table, judged.as_deref());
    let reaches: Vec<TimeBounds> = pieces.iter().map(|piece| TimeBounds::of_slots(&grid, *piece)).collect();
    let to_read = to_read(table, &files, &bounds, &reaches, keeping.as_ref())?;
    if let Some(keeping) = &mut keeping {
        keeping.await_all(to_read.iter().filter_map(|next| Some((next.file, files.get(next.file)?))));
    }
    let mut to_read = to_read.as_slice();
    let judged = judged.unwrap_or_else(|| {
        let fields = table.key.iter().map(|key| shape::key_field(key)).chain([shape::time_field(table)]);
        Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
    });
    let small = lake.small();
    let counting = Counting { table, grid, asked: request.slots, bounds: &bounds, targets: &targets, judged: &judged, small: &small };
    let mut totals = Totals::default();
    // What is known of pieces to come.
    let mut ahead = Counts::new(grid, SlotRange::new(request.slots.first, request.slots.first), keys.len())?;
    for (at, &slots) in pieces.iter().enumerate() {
        let now;
        (now, to_read) = to_read.split_at(to_read.partition_point(|next| next.first <= at));
        let end = now.iter().filter_map(|next| pieces.get(next.last)).map(|last| last.end).max();
        let known = SlotRange::new(slots.first, slots.end.max(ahead.slots.end).max(end.unwrap_or(slots.end)));
        let size = Counts::new(grid, known, keys.len())?;
        let new = || Counter::new(counting, size.like());
        let work = work(table, &files, now, &bounds, keeping.as_ref())?;
        let counters = threads::fold_parallel(&work, new, |counter, piece| counter.read(piece))?;
        drop(work);
        let mut counts = size;
        for (number, counter) in counters.into_iter().enumerate() {
            totals.merge(counter.totals);
            if number == 0 {
                counts = counter.counts;
            } else {
                counts.merge(&counter.counts);
            }
            for recorded in counter.recorded {
                if let (Some(keeping), Some(file)) = (&mut keeping, files.get(recorded.file)) {
                    keeping.take(file, recorded);
                }
            }
        }
        if let Some(keeping) = &mut keeping {
            keeping.done(now.iter().map(|next| next.file));
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
    if let Some(keeping) = keeping {
        keeping.end();
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
    /// Its number.
    file: usize,
    /// The row groups, and the time of the rows of each; `None` for all.
    groups: Option<Vec<(usize, TimeBounds)>>,
    /// What is known of it, if that was looked up.
    known: Option<Known>,
    bytes: u64,
    first: usize,
    last: usize,
}

/// What to read for pieces, in order of the first piece. If the path of a file does not say what time its rows have, the statistics of its row
/// groups may. Of what is known by neither, all pieces wait.
fn to_read(
    table: &Table,
    files: &[DataFile],
    bounds: &TimeBounds,
    pieces: &[TimeBounds],
    keeping: Option<&Keeping>,
) -> Result<Vec<ToRead>> {
    let concerns = |reach: &TimeBounds| {
        let first = pieces.partition_point(|piece| piece.to_us <= reach.from_us).min(pieces.len().saturating_sub(1));
        let last = pieces.partition_point(|piece| piece.from_us < reach.to_us).saturating_sub(1);
        (first, last.max(first))
    };
    let whole = |(number, file): (usize, &DataFile)| {
        let (first, last) = concerns(file.reach.as_ref().unwrap_or(&TimeBounds::ALL));
        ToRead { file: number, groups: None, known: None, bytes: file.bytes, first, last }
    };
    let (unknown, known): (Vec<_>, Vec<_>) =
        files.iter().enumerate().partition(|(_, file)| file.reach.is_none() && pieces.len() > 1 && is_direct(table));
    let kept = match keeping {
        Some(keeping) => keeping.find(&unknown.iter().map(|(_, file)| *file).collect::<Vec<_>>()),
        None => vec![None; unknown.len()],
    };
    let unknown: Vec<((usize, &DataFile), Option<Known>)> = unknown.into_iter().zip(kept).collect();
    let parts = threads::map_parallel(&unknown, |((_, file), kept)| match kept {
        Some(known) => Ok(known.layout.groups_within(bounds)),
        None => read::guarded(file, || parts(table, file, bounds)),
    })?;
    let mut all: Vec<ToRead> = known.into_iter().map(whole).collect();
    for (((number, file), kept), parts) in unknown.into_iter().zip(parts) {
        let Some(parts) = parts else {
            all.push(ToRead { known: kept, ..whole((number, file)) });
            continue;
        };
        for (group, time, size) in parts {
            let (first, last) = concerns(&time);
            match all.last_mut() {
                Some(ToRead { groups: Some(groups), bytes, first: before, last: until, file: of, .. })
                    if (*before, *until) == (first, last) && *of == number =>
                {
                    groups.push((group, time));
                    *bytes += size;
                }
                _ => {
                    let groups = Some(vec![(group, time)]);
                    all.push(ToRead { file: number, groups, known: kept.clone(), bytes: size, first, last });
                }
            }
        }
    }
    all.sort_by_key(|next| next.first);
    Ok(all)
}

/// The row groups of a file that are to be read, with the time of their rows and their size; `None` if it is to be read as a whole.
fn parts(table: &Table, file: &DataFile, bounds: &TimeBounds) -> Result<Option<Vec<(usize, TimeBounds, u64)>>> {
    let (opened, groups) = open(table, file, bounds)?;
    if !has_time(table, &opened.schema()) {
        return Ok(None);
    }
    let times = opened.times(table)?;
    let part = |group: usize| {
        let time = times.get(group).copied().flatten().unwrap_or(TimeBounds::ALL);
        (group, time, u64::try_from(opened.footer().row_group(group).compressed_size()).unwrap_or(0))
    };
    Ok(Some(groups.into_iter().map(part).collect()))
}

/// Whether the time of a file is in a column that needs no parsing.
pub(crate) fn has_time(table: &Table, columns: &Schema) -> bool {
    columns.field_with_name(&table.time).is_ok_and(|field| matches!(field.data_type(), DataType::Timestamp(_, _) | DataType::Date32))
}

/// What to count now, for several threads: what is known of files, files, or row groups of files so large that one thread would be left working
/// alone.
fn work<'a>(
    table: &Table,
    files: &'a [DataFile],
    to_read: &'a [ToRead],
    bounds: &TimeBounds,
    keeping: Option<&Keeping>,
) -> Result<Vec<Piece<'a>>> {
    let mut pieces = Vec::with_capacity(to_read.len());
    let mut to_open: Vec<(&ToRead, &'a DataFile)> = Vec::new();
    let record = |next: &ToRead, file: &DataFile| keeping.filter(|keeping| keeping.is_settled(file)).map(|_| next.file);
    for (next, file, known) in known_of(files, to_read, keeping) {
        let parts = known.as_ref().and_then(|known| match &next.groups {
            Some(groups) => Some(groups.iter().map(|(group, _)| *group).collect()),
            None => known.layout.parts_within(bounds),
        });
        match known.zip(parts).filter(|(known, parts)| known.has_all(parts)) {
            Some((known, parts)) => {
                let groups = Groups::Kept(known, parts, next.groups.clone());
                pieces.push(Piece { file, groups, record: record(next, file) });
            }
            None => to_open.push((next, file)),
        }
    }
    let total: u64 = to_open.iter().map(|(next, _)| next.bytes).sum();
    // The number of footers in memory is then at most twice that of the threads, however many files there are.
    let large = total / (2 * threads::workers() as u64);
    let mut small = Vec::new();
    for (next, file) in to_open {
        if table.format != Format::Parquet && next.groups.is_none() && held::is_small(file) {
            small.push((file, record(next, file)));
            continue;
        }
        together(&mut small, &mut pieces);
        let piece = |groups: Groups<'a>| Piece { file, groups, record: record(next, file) };
        if !is_direct(table) || threads::workers() == 1 || next.bytes <= large {
            pieces.push(piece(Groups::of(next.groups.clone())));
            continue;
        }
        let (opened, groups) = read::guarded(file, || open(table, file, bounds))?;
        if !has_time(table, &opened.schema()) {
            pieces.push(piece(Groups::All));
            continue;
        }
        let groups = match &next.groups {
            None => groups,
            Some(known) => read::guarded(file, || still_known(table, &opened, known))?,
        };
        let mut rows = 0;
        let mut some = Vec::new();
        for group in groups {
            rows += opened.rows_of(group);
            some.push(group);
            if rows >= PIECE_ROWS {
                pieces.push(piece(Groups::Opened(opened.clone(), std::mem::take(&mut some))));
                rows = 0;
            }
        }
        if !some.is_empty() {
            pieces.push(piece(Groups::Opened(opened, some)));
        }
    }
    together(&mut small, &mut pieces);
    Ok(pieces)
}

/// Makes pieces of small files that follow each other, and keeps their order.
fn together<'a>(small: &mut Vec<(&'a DataFile, Option<usize>)>, pieces: &mut Vec<Piece<'a>>) {
    let files: Vec<&'a DataFile> = small.iter().map(|(file, _)| *file).collect();
    let mut small = small.drain(..);
    for part in scan::parts(&files) {
        if let Some(file) = part.first() {
            pieces.push(Piece { file, groups: Groups::Together(small.by_ref().take(part.len()).collect()), record: None });
        }
    }
}

/// What is known of each file that is to be counted now.
fn known_of<'a>(
    files: &'a [DataFile],
    to_read: &'a [ToRead],
    keeping: Option<&Keeping>,
) -> impl Iterator<Item = (&'a ToRead, &'a DataFile, Option<Known>)> {
    let with_file: Vec<(&ToRead, &DataFile)> = to_read.iter().filter_map(|next| files.get(next.file).map(|file| (next, file))).collect();
    // Of those with row groups, it was looked up before.
    let open: Vec<&DataFile> = with_file.iter().filter(|(next, _)| next.is_open()).map(|(_, file)| *file).collect();
    let mut found = keeping.map(|keeping| keeping.find(&open)).unwrap_or_default().into_iter();
    with_file.into_iter().map(move |(next, file)| {
        let known = if next.is_open() { found.next().flatten() } else { next.known.clone() };
        (next, file, known)
    })
}

impl ToRead {
    /// Whether it was not looked up what is known of it.
    fn is_open(&self) -> bool {
        self.known.is_none() && self.groups.is_none()
    }
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

/// Empty sets for the keys of a request.
pub(crate) fn empty_sets(grid: SlotGrid, request: &PresenceRequest) -> BTreeMap<Key, SlotSet> {
    request.keys.iter().map(|key| (key.clone(), SlotSet::new(grid.cadence(), request.slots))).collect()
}
