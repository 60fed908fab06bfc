//! Reads files, or row groups of them, and counts their rows: from what is known of them, if it is there.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use repair_core::Result;
use repair_core::lake::partition::TimeBounds;
use repair_core::model::{Format, Key, SlotGrid, SlotRange, Table};

use super::count::{Asked, Counts, Totals, changed, count, count_each};
use super::known::{Known, Layout, Recorded};
use super::section::Recorder;
use super::{has_time, is_direct, open};
use crate::files::DataFile;
use crate::held::Small;
use crate::read::{self, Joined, Next, Tally, Together, parquet};

/// Rows decoded at a time; with two narrow columns, more than in a scan.
const BATCH_ROWS: usize = 32_768;

/// What one thread reads at a time: a file, or some row groups of one.
pub(super) struct Piece<'a> {
    pub(super) file: &'a DataFile,
    pub(super) groups: Groups<'a>,
    /// The number of the file, if what is read of it is to be kept.
    pub(super) record: Option<usize>,
}

pub(super) enum Groups<'a> {
    /// All that may hold rows within the bounds.
    All,
    /// Those of which it is known what time their rows have.
    Known(Vec<(usize, TimeBounds)>),
    /// These, of a file that is open.
    Opened(parquet::Opened, Vec<usize>),
    /// These parts, which are known, and as what they are to be read if that is lost.
    Kept(Known, Vec<usize>, Option<Vec<(usize, TimeBounds)>>),
    /// All of these small files, each with its number if what is read of it is to be kept.
    Together(Vec<(&'a DataFile, Option<usize>)>),
}

impl Groups<'_> {
    /// Those of which it is known what time their rows have, or all.
    pub(super) fn of(known: Option<Vec<(usize, TimeBounds)>>) -> Self {
        known.map_or(Self::All, Self::Known)
    }
}

/// The numbers of row groups of a file that was opened again, if they still hold rows of the same time.
pub(super) fn still_known(table: &Table, opened: &parquet::Opened, known: &[(usize, TimeBounds)]) -> Result<Vec<usize>> {
    let times = opened.times(table)?;
    let is_same = |(group, time): &(usize, TimeBounds)| times.get(*group).is_some_and(|now| now.unwrap_or(TimeBounds::ALL) == *time);
    if known.iter().all(is_same) { Ok(known.iter().map(|(group, _)| *group).collect()) } else { Err(changed()) }
}

/// What all threads count by.
#[derive(Clone, Copy)]
pub(super) struct Counting<'a> {
    pub(super) table: &'a Table,
    pub(super) grid: SlotGrid,
    /// The slots that were asked for. The counts are of some of them.
    pub(super) asked: SlotRange,
    /// The rows of these slots.
    pub(super) bounds: &'a TimeBounds,
    /// The number of each requested key.
    pub(super) targets: &'a HashMap<Key, u32>,
    /// The columns by which rows are judged: key and time, unless the table leaves out bad rows.
    pub(super) judged: &'a SchemaRef,
    /// The small files that were read a short time ago.
    pub(super) small: &'a Small,
}

/// Counts the rows of a range of slots, by key.
pub(super) struct Counter<'a> {
    of: Counting<'a>,
    pub(super) counts: Counts,
    pub(super) totals: Totals,
    /// What was read and is to be kept.
    pub(super) recorded: Vec<Recorded>,
}

impl<'a> Counter<'a> {
    pub(super) fn new(of: Counting<'a>, counts: Counts) -> Self {
        Self { of, counts, totals: Totals::default(), recorded: Vec::new() }
    }

    fn asked<'b>(&'b mut self, file: &'b DataFile) -> Asked<'b> {
        Asked { slots: self.of.asked, targets: self.of.targets, counts: &mut self.counts, totals: &mut self.totals, file }
    }

    /// Reads a piece. Every error names its file.
    pub(super) fn read(&mut self, piece: &Piece<'_>) -> Result<()> {
        match &piece.groups {
            Groups::Together(files) => self.read_together(files),
            _ => read::guarded(piece.file, || self.read_one(piece)),
        }
    }

    fn read_one(&mut self, piece: &Piece<'_>) -> Result<()> {
        let (file, Counting { table, bounds, .. }) = (piece.file, self.of);
        if let Groups::Kept(known, parts, _) = &piece.groups
            && let Some(sections) = known.sections(parts)
        {
            return sections.into_iter().try_for_each(|section| self.asked(file).add(section));
        }
        let direct = match &piece.groups {
            Groups::Opened(opened, groups) => Some((opened.clone(), groups.clone())),
            Groups::Known(known) | Groups::Kept(_, _, Some(known)) => {
                let (opened, _) = open(table, file, bounds)?;
                let groups = still_known(table, &opened, known)?;
                Some((opened, groups))
            }
            Groups::All | Groups::Kept(..) if is_direct(table) => {
                Some(open(table, file, bounds)?).filter(|(opened, _)| has_time(table, &opened.schema()))
            }
            Groups::All | Groups::Kept(..) | Groups::Together(_) => None,
        };
        match direct {
            Some((opened, groups)) => self.read_groups(piece, opened, &groups),
            None => self.read_rows(file, piece.record, false),
        }
    }

    /// Reads small files, those together of which that is possible.
    fn read_together(&mut self, files: &[(&DataFile, Option<usize>)]) -> Result<()> {
        let Counting { table, judged, small, .. } = self.of;
        let all: Vec<&DataFile> = files.iter().map(|(file, _)| *file).collect();
        let mut numbers = files.iter().map(|(_, number)| *number);
        let mut rest = Together::of(table, &all, small);
        while let Some(next) = rest.next(judged) {
            match next {
                Next::Joined(files, joined) => self.read_joined(&files, &mut numbers, joined)?,
                Next::Alone(file, is_listed) => {
                    let number = numbers.next().flatten();
                    read::guarded(&file, || self.read_rows(&file, number, is_listed))?;
                }
            }
        }
        Ok(())
    }

    /// Counts the rows of small files that were read together.
    fn read_joined(
        &mut self,
        files: &[&DataFile],
        numbers: &mut impl Iterator<Item = Option<usize>>,
        Joined { batch, ends, usage }: Joined,
    ) -> Result<()> {
        let (Counting { table, grid, .. }, Some(first)) = (self.of, files.first()) else { return Ok(()) };
        let layout = Arc::new(Layout::of_text());
        count_each(grid, table, first, &batch, |all| {
            let mut from = 0;
            for ((file, end), number) in files.iter().zip(ends).zip(numbers) {
                let rows = from..end;
                let tally = Tally { rows_read: rows.len() as u64, ..Tally::default() };
                from = end;
                read::guarded(file, || {
                    let Some(number) = number else {
                        self.totals.tally.merge(tally);
                        return all.count(&mut self.asked(file), file, rows);
                    };
                    let mut tape = Tape::new(grid, number, layout.clone(), std::iter::empty());
                    tape.is_listed = true;
                    if let Some(recorder) = &mut tape.recorder {
                        all.count(recorder, file, rows)?;
                    }
                    self.end(file, tape, Some(tally))
                })?;
            }
            Ok(())
        })?;
        self.totals.usage += usage;
        Ok(())
    }

    /// Reads row groups of a file whose key and time need no conversion.
    fn read_groups(&mut self, piece: &Piece<'_>, opened: parquet::Opened, groups: &[usize]) -> Result<()> {
        let (file, Counting { table, grid, .. }) = (piece.file, self.of);
        let names: Vec<&str> = table.key.iter().map(String::as_str).chain([table.time.as_str()]).collect();
        let mut tape = match piece.record {
            Some(number) => Layout::of_parquet(&opened, table, false).ok().map(|layout| {
                let parts = groups.iter().map(|group| (*group, opened.rows_of(*group)));
                Tape::new(grid, number, Arc::new(layout), parts)
            }),
            None => None,
        };
        let usage = opened.read(&names, groups, BATCH_ROWS, &mut |batch| match &mut tape {
            Some(tape) => self.record(file, tape, &batch),
            None => self.count(file, &batch),
        })?;
        if let Some(tape) = tape {
            self.end(file, tape, None)?;
        }
        self.totals.usage += usage;
        Ok(())
    }

    /// Reads a file whose rows are brought into shape, and may be bad.
    fn read_rows(&mut self, file: &DataFile, record: Option<usize>, is_listed: bool) -> Result<()> {
        let Counting { table, grid, bounds, judged, .. } = self.of;
        let layout = match record {
            Some(_) if table.format == Format::Parquet => Layout::of_parquet(&parquet::open(file)?, table, true).ok(),
            Some(_) => Some(Layout::of_text()),
            None => None,
        };
        // Which rows are bad is known of the rows that are read.
        let layout = layout.filter(|layout| layout.is_read_as_whole(bounds));
        let mut tape = record.zip(layout).map(|(number, layout)| Tape::new(grid, number, Arc::new(layout), std::iter::once((0, u64::MAX))));
        if let Some(tape) = &mut tape {
            tape.is_listed = is_listed;
        }
        let mut tally = Tally::default();
        let usage = read::rows(table, file, judged, bounds, &mut tally, &mut |batch| match &mut tape {
            Some(tape) => self.record(file, tape, &batch),
            None => self.count(file, &batch),
        })?;
        self.totals.usage += usage;
        match tape {
            Some(tape) => self.end(file, tape, Some(tally)),
            None => {
                self.totals.tally.merge(tally);
                Ok(())
            }
        }
    }

    /// Counts the rows of a batch.
    fn count(&mut self, file: &DataFile, batch: &RecordBatch) -> Result<ControlFlow<()>> {
        let Counting { table, grid, .. } = self.of;
        count(&mut self.asked(file), grid, table, file, batch)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Counts the rows of a batch, whatever is asked for, part by part.
    fn record(&mut self, file: &DataFile, tape: &mut Tape, batch: &RecordBatch) -> Result<ControlFlow<()>> {
        let Counting { table, grid, .. } = self.of;
        let mut from = 0;
        while from < batch.num_rows() {
            self.end_parts(file, tape)?;
            let left = tape.left.front().map_or(u64::MAX, |(_, rows)| *rows);
            let length = usize::try_from(left).map_or(batch.num_rows() - from, |left| left.min(batch.num_rows() - from));
            let rows = batch.slice(from, length);
            match &mut tape.recorder {
                Some(recorder) => {
                    count(recorder, grid, table, file, &rows)?;
                    if recorder.is_full()
                        && let Some(recorder) = tape.recorder.take()
                    {
                        // Too much to be kept: from here on, only what is asked for is counted.
                        self.asked(file).add(recorder.finish())?;
                    }
                }
                None => count(&mut self.asked(file), grid, table, file, &rows)?,
            }
            from += length;
            if let Some((_, rows)) = tape.left.front_mut() {
                *rows = rows.saturating_sub(length as u64);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Ends the parts of which all rows have come.
    fn end_parts(&mut self, file: &DataFile, tape: &mut Tape) -> Result<()> {
        while let Some((part, 0)) = tape.left.front().copied() {
            tape.left.pop_front();
            let recorder = tape.recorder.replace(Recorder::new(self.of.grid));
            self.end_part(file, tape, part, recorder, None)?;
        }
        Ok(())
    }

    /// Counts what a part holds, and keeps it.
    fn end_part(&mut self, file: &DataFile, tape: &Tape, part: usize, recorder: Option<Recorder>, tally: Option<Tally>) -> Result<()> {
        let Some(recorder) = recorder else {
            tally.into_iter().for_each(|tally| self.totals.tally.merge(tally));
            return Ok(());
        };
        let mut section = recorder.finish();
        section.tally = tally.unwrap_or_default();
        if let Some(bytes) = section.encode() {
            let (layout, is_listed) = (tape.layout.clone(), tape.is_listed);
            self.recorded.push(Recorded { file: tape.number, layout, part, bytes, is_listed });
        }
        self.asked(file).add(section)
    }

    /// Ends a file.
    fn end(&mut self, file: &DataFile, mut tape: Tape, tally: Option<Tally>) -> Result<()> {
        if let Some(tally) = tally {
            let recorder = tape.recorder.take();
            return self.end_part(file, &tape, 0, recorder, Some(tally));
        }
        self.end_parts(file, &mut tape)?;
        // Fewer rows came than the file says that it has.
        match tape.recorder.take() {
            Some(recorder) => self.asked(file).add(recorder.finish()),
            None => Ok(()),
        }
    }
}

/// What is being recorded of a file.
struct Tape {
    number: usize,
    layout: Arc<Layout>,
    /// The parts that are read, and how many rows of each are still to come.
    left: VecDeque<(usize, u64)>,
    /// Of the part that is read now; none if it is too much.
    recorder: Option<Recorder>,
    /// Whether it was seen that the file that is read is the one that was listed.
    is_listed: bool,
}

impl Tape {
    fn new(grid: SlotGrid, number: usize, layout: Arc<Layout>, parts: impl Iterator<Item = (usize, u64)>) -> Self {
        Self { number, layout, left: parts.collect(), recorder: Some(Recorder::new(grid)), is_listed: false }
    }
}
