//! Small files that follow each other are read as if they were one, since each by itself takes longer to begin and to end than to read. That
//! is done as long as nothing is special about them; any other file is read by itself, and then everything is as it would be anyway.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::arrow::array::RecordBatch;
use ::arrow::datatypes::SchemaRef;
use repair_core::Result;
use repair_core::model::{Format, Repeated, Table, Usage};

use super::bad::{At, Judge, Rows};
use super::folds::Folds;
use super::time::Times;
use super::{Shaper, csv, roots};
use crate::files::DataFile;
use crate::held::{Held, Small};

/// So many files are read together at most.
const MOST_FILES: usize = 256;

/// Some files of a table, in order.
pub(crate) struct Together<'a> {
    table: &'a Table,
    files: Vec<(&'a DataFile, Option<Held>)>,
    at: usize,
    /// How many are tried together: fewer after one that had to be read by itself.
    most: usize,
}

/// What is read next.
pub(crate) enum Next<'a> {
    /// These files together.
    Joined(Vec<&'a DataFile>, Joined),
    /// A file by itself, and whether it was seen that it is the one that was listed.
    Alone(Cow<'a, DataFile>, bool),
}

impl Next<'_> {
    /// The first file. The path of each other one says the same.
    pub(crate) fn first(&self) -> Option<&DataFile> {
        match self {
            Self::Joined(files, _) => files.first().copied(),
            Self::Alone(file, _) => Some(file),
        }
    }
}

impl<'a> Together<'a> {
    pub(crate) fn of(table: &'a Table, files: &[&'a DataFile], small: &Small) -> Self {
        let held = if table.format == Format::Parquet { vec![None; files.len()] } else { small.hold(files) };
        Self { table, files: files.iter().copied().zip(held).collect(), at: 0, most: MOST_FILES }
    }

    /// Reads the next files, if they are read together. All files come, in order.
    pub(crate) fn next(&mut self, shape: &SchemaRef) -> Option<Next<'a>> {
        let rest = self.files.get(self.at..)?;
        let (first, held) = rest.first()?;
        if let Some(joined) = joined(self.table, &rest[..rest.len().min(self.most)], shape) {
            let files: Vec<&DataFile> = rest.iter().take(joined.ends.len()).map(|(file, _)| *file).collect();
            self.at += files.len();
            self.most = (2 * self.most).min(MOST_FILES);
            return Some(Next::Joined(files, joined));
        }
        self.at += 1;
        Some(match held {
            Some(held) => {
                self.most = (self.most / 4).max(1);
                Next::Alone(Cow::Owned(first.with(held)), true)
            }
            None => Next::Alone(Cow::Borrowed(*first), false),
        })
    }
}

/// Rows of small files that follow each other, in one batch.
pub(crate) struct Joined {
    pub(crate) batch: RecordBatch,
    /// For each file, how many of the rows are up to its end.
    pub(crate) ends: Vec<usize>,
    pub(crate) usage: Usage,
}

/// Reads columns of small files as [`super::rows`] does, if nothing is special about them: the first ones of those that are given, with their bytes. `None`
/// if the first is to be read by itself, which also says what is wrong with it.
fn joined(table: &Table, files: &[(&DataFile, Option<Held>)], shape: &SchemaRef) -> Option<Joined> {
    let (first, _) = files.first()?;
    // The order of all rows of a file may matter.
    if table.format != Format::Csv || table.reading.repeated == Repeated::FileOrder {
        return None;
    }
    let alike = files.iter().take_while(|(file, _)| file.is_like(first));
    let mut alike: Vec<(&DataFile, Held)> = alike.map_while(|(file, held)| Some((*file, held.clone()?))).collect();
    let roots = roots(table, shape);
    while !alike.is_empty() {
        let read = catch_unwind(AssertUnwindSafe(|| joined_texts(table, &alike, shape, &roots)));
        match read.ok()?.ok()? {
            Ok((batch, ends)) => {
                alike.truncate(ends.len());
                let bytes_scanned = alike.iter().map(|(file, _)| file.bytes).sum();
                let rows_read = batch.num_rows() as u64;
                return (!ends.is_empty()).then(|| Joined { batch, ends, usage: Usage { bytes_scanned, rows_read, ..Usage::default() } });
            }
            Err(before) => alike.truncate(before),
        }
    }
    None
}

/// As [`joined`]; in place of rows, how many files come before the first that has a bad row.
fn joined_texts(
    table: &Table,
    files: &[(&DataFile, Held)],
    shape: &SchemaRef,
    roots: &[String],
) -> Result<std::result::Result<(RecordBatch, Vec<usize>), usize>> {
    let Some((first, _)) = files.first() else { return Ok(Err(0)) };
    let (texts, ends) = csv::joined(table, files, roots)?;
    let mut judge = Judge::silent(table, first);
    let mut shaper = Shaper { table, file: first, shape, times: Times::new(table, first, Folds::default()), row: 0 };
    let batch = if ends.is_empty() { RecordBatch::new_empty(shape.clone()) } else { shaper.shape(&texts, &Unplaced, &mut judge)? };
    match judge.first_bad() {
        Some(row) => Ok(Err(ends.partition_point(|end| *end as u64 <= row))),
        None => Ok(Ok((batch, ends))),
    }
}

/// Rows of which only their numbers in the batch are asked for.
struct Unplaced;

impl Rows for Unplaced {
    fn at(&self, row: usize) -> At {
        At::Row(row as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::ops::ControlFlow;
    use std::sync::Arc;
    use std::time::Duration;

    use ::arrow::datatypes::{DataType, Field, Schema};
    use ::arrow::util::display::array_value_to_string;
    use proptest::prelude::*;
    use repair_core::lake::partition::TimeBounds;
    use repair_core::lake::shape;
    use repair_core::model::{BadRowLimit, ColumnRule, ColumnType, OnBadRow};

    use super::super::{Tally, columns, columns_of_each, rows};
    use super::*;
    use crate::disk::{Act, Watch};
    use crate::files::{self, Listed};

    /// What reading a file gives: its rows as text, how many were read, those that were left out, and the bytes; or what is wrong.
    type Read = std::result::Result<(Vec<String>, u64, String, u64), String>;

    fn lines(batch: &RecordBatch, into: &mut Vec<String>) {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            into.push(cells.collect::<Vec<_>>().join("|"));
        }
    }

    fn alone(table: &Table, file: &DataFile, shape: &SchemaRef) -> Read {
        let (mut found, mut tally) = (Vec::new(), Tally::default());
        let usage = rows(table, file, shape, &TimeBounds::ALL, &mut tally, &mut |batch| {
            lines(&batch, &mut found);
            Ok(ControlFlow::Continue(()))
        });
        let usage = usage.map_err(|error| error.full())?;
        assert_eq!(usage.rows_read, tally.rows_read);
        Ok((found, tally.rows_read, format!("{:?}", tally.quarantine), usage.bytes_scanned))
    }

    fn all_together(table: &Table, files: &[&DataFile], shape: &SchemaRef, small: &Small) -> (Vec<Read>, usize) {
        let (mut found, mut joined_files) = (Vec::new(), 0);
        let mut rest = Together::of(table, files, small);
        while let Some(next) = rest.next(shape) {
            match next {
                Next::Joined(files, Joined { batch, ends, usage }) => {
                    assert_eq!((files.len(), ends.last().copied()), (ends.len(), Some(batch.num_rows())));
                    assert_eq!(usage.bytes_scanned, files.iter().map(|file| file.bytes).sum::<u64>());
                    joined_files += files.len();
                    let mut from = 0;
                    for (file, end) in files.into_iter().zip(ends) {
                        let mut of_file = Vec::new();
                        lines(&batch.slice(from, end - from), &mut of_file);
                        found.push(Ok((of_file, (end - from) as u64, format!("{:?}", Tally::default().quarantine), file.bytes)));
                        from = end;
                    }
                }
                Next::Alone(file, _) => found.push(alone(table, &file, shape)),
            }
        }
        (found, joined_files)
    }

    fn tables() -> Vec<Table> {
        let plain = || Table::new("t", Format::Csv, "ts").with_key(["symbol"]);
        let with = |change: &dyn Fn(&mut Table)| {
            let mut table = plain();
            change(&mut table);
            table
        };
        vec![
            plain(),
            with(&|table| table.on_bad_row = OnBadRow::Quarantine(BadRowLimit::Rows(1_000))),
            with(&|table| table.nulls = vec!["-".to_owned(), "A".to_owned()]),
            with(&|table| _ = table.columns.insert("close".to_owned(), ColumnRule::of_type(ColumnType::Text))),
            with(&|table| (table.csv.comment, table.csv.trim) = (Some('#'), true)),
            with(&|table| (table.csv.trim, table.csv.delimiter) = (true, ' ')),
            with(&|table| (table.csv.quote, table.csv.final_newline) = (None, true)),
            with(&|table| (table.csv.header, table.csv.names) = (false, ["symbol", "ts", "close"].map(str::to_owned).to_vec())),
            with(&|table| table.reading.repeated = Repeated::FileOrder),
        ]
    }

    fn texts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let header = prop::sample::select(vec![
            "symbol,ts,close\n",
            "symbol,ts,close\n",
            "symbol,ts,close\n",
            "symbol,ts,close\n",
            "ts,symbol,close\r\n",
            "symbol,ts,close,more\n",
            "symbol,ts,close,more,more\n",
            "\"symbol\",ts,close\n",
            "symbol ts  close\n",
            "\u{feff}symbol,ts,close\n",
            "# of today\nsymbol,ts,close\n",
            "symbol,close\n",
            "",
        ]);
        let good = prop::sample::select(vec![
            "A,2024-01-01T10:00:00Z,1\n",
            "B,2024-01-01T11:00:00Z,2.5\n",
            "B,2024-01-01T11:30:00Z,\n",
            "2024-01-01T11:00:00Z,C,7\n",
            "A 2024-01-01T10:00:00Z  1\n",
            "\n",
        ]);
        let odd = prop::sample::select(vec![
            "A,nonsense,1\n",
            "A,2024-01-01T10:00:00Z\n",
            "A,2024-01-01T10:00:00Z,1,2\n",
            "A,2024-01-01T10:00:00Z,word\n",
            "A,2024-01-01T10:00:00Z,-\n",
            ",2024-01-01T10:00:00Z,1\n",
            "\"A\",\"2024-01-01T10:00:00Z\",\"1\"\r\n",
            "\"A\"\"B\",2024-01-01T10:00:00Z,1\n",
            "symbol,ts,close\n",
            "# nothing\n",
            "A,2024-01-01T10:00:00Z,\"1\n",
            "A,2024-01-01T10:00:00Z,1",
            "\u{e9},2024-01-01T10:00:00Z,1\n",
            "A,2024-01-01T10:00:00Z,12345678901234567890\n",
        ]);
        let line = prop_oneof![12 => good, 1 => odd];
        let file = (header, proptest::collection::vec(line, 0..8), prop::sample::select(vec![1, 1, 1, 1, 60]), 0..40u8);
        let bytes = file.prop_map(|(header, lines, times, end)| {
            let mut bytes = format!("{header}{}", lines.concat().repeat(times)).into_bytes();
            match end {
                0 => bytes.extend(b"\xff\xfe,2024-01-01T10:00:00Z,1\n"),
                1 => bytes.splice(0..0, *b"\x1f\x8b").for_each(drop),
                _ => {}
            }
            bytes
        });
        proptest::collection::vec(bytes, 1..12)
    }

    fn list(root: &std::path::Path) -> Vec<DataFile> {
        let listed = Listed { format: Format::Csv, ignore: &[], except: &[], only: None, is_left_out: None, are_ours: false };
        files::list(root, &listed).unwrap().unwrap()
    }

    fn shape_of() -> SchemaRef {
        let fields = [Field::new("close", DataType::Float64, true), Field::new("more", DataType::Utf8, true)];
        let table = Table::new("t", Format::Csv, "ts");
        Arc::new(Schema::new([shape::key_field("symbol"), shape::time_field(&table)].into_iter().chain(fields).collect::<Vec<_>>()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn files_together_are_read_as_each_by_itself(texts in texts(), number in 0..9usize) {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            for (number, text) in texts.iter().enumerate() {
                fs::write(root.join(format!("{number:02}.csv")), text).unwrap();
            }
            let (files, table, shape) = (list(&root), tables().swap_remove(number), shape_of());
            let all: Vec<&DataFile> = files.iter().collect();
            let small = Small::new(Duration::ZERO);
            let expected: Vec<Read> = files.iter().map(|file| alone(&table, file, &shape)).collect();
            // The second time, from memory.
            for _ in 0..2 {
                let (found, _) = all_together(&table, &all, &shape, &small);
                prop_assert_eq!(&found, &expected);
            }
            let expected: Result<Vec<SchemaRef>> = files.iter().map(|file| columns(&table, file)).collect();
            let found = columns_of_each(&table, &all, &small).map(|all| all.into_iter().map(|(columns, _)| columns).collect());
            prop_assert_eq!(found.map_err(|error| error.full()), expected.map_err(|error| error.full()));
        }
    }

    #[test]
    fn files_with_nothing_special_are_read_together_and_opened_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for number in 0..600 {
            let special = if number == 400 { "A,nonsense,1\n" } else { "" };
            let text = format!("symbol,ts,close\nA,2024-01-01T10:00:00Z,{number}\n{special}");
            fs::write(root.join(format!("{number:03}.csv")), text).unwrap();
        }
        let (files, table, shape) = (list(&root), tables().swap_remove(1), shape_of());
        let (all, small) = (files.iter().collect::<Vec<_>>(), Small::new(Duration::ZERO));
        let watch = Watch::of(&root);
        let (found, joined) = all_together(&table, &all, &shape, &small);
        assert_eq!((found.len(), joined), (600, 599));
        assert_eq!(watch.take(Act::Open).len(), 600);
        columns_of_each(&table, &all, &small).unwrap();
        assert_eq!((all_together(&table, &all, &shape, &small), watch.take(Act::Open).len()), ((found, 599), 0));
    }
}
