//! Separated values. Columns are found by name, so files may have them in different orders.

use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use repair_core::lake::shape::{self, LeftOut};
use repair_core::model::{ColumnType, Csv, Encoding, OnBadRow, Table, Usage};
use repair_core::{Error, Result};

use super::bad::{At, Judge, Rows};
use super::records::{Broken, Dialect, PADDING, Splitter};
use super::text::{self, INFER_ROWS, Inferred, Last, Value, has_marks};
use super::texts::Texts;
use super::{BATCH_ROWS, RowsOf, open};
use crate::files::DataFile;
use crate::held::Held;
use crate::sample::SampledRows;

/// The most bytes of one record: a quote that is never closed would make one field of the rest of the file. Debug builds use so few that a
/// test can reach it.
const MAX_RECORD_BYTES: usize = if cfg!(debug_assertions) { 1 << 20 } else { 64 << 20 };

/// A batch gets no more records when it has this many bytes, however few they are: compressed files may hold any number of long ones.
const MAX_BATCH_BYTES: u64 = 32 << 20;

/// Delimiters that a file may have instead of the one that the table says.
const DELIMITERS: [char; 5] = [',', ';', '\t', '|', ' '];

/// Where the records of a batch begin.
#[derive(Default)]
struct Offsets(Vec<u64>);

impl Offsets {
    /// How far the beginning of the last record is from that of the first one.
    #[inline]
    fn bytes(&self) -> u64 {
        match self.0.as_slice() {
            [first, .., last] => last - first,
            _ => 0,
        }
    }
}

impl Rows for Offsets {
    fn at(&self, row: usize) -> At {
        At::Offset(self.0.get(row).copied().unwrap_or(0))
    }
}

/// The records of a file.
struct Records {
    splitter: Splitter,
    /// The names of the columns, in the file's order.
    names: Vec<String>,
    /// The header as it is in the file, if there is one.
    header: Option<Vec<Vec<u8>>>,
    csv: Csv,
    /// Where several delimiters are one: the numbers of the fields of the record that are not empty.
    kept: Option<Vec<usize>>,
}

/// Opens a file after the lines that are skipped.
fn start(csv: &Csv, file: &DataFile) -> Result<Box<dyn BufRead>> {
    let mut text = open::text(file, csv.encoding)?;
    for _ in 0..csv.skip_lines {
        let limit = MAX_RECORD_BYTES as u64;
        let mut line = Vec::new();
        Read::take(&mut text, limit).read_until(b'\n', &mut line).map_err(|error| open::broken(file, error))?;
    }
    Ok(text)
}

fn byte(character: char) -> u8 {
    u8::try_from(character).unwrap_or(b'?')
}

impl Records {
    fn open(table: &Table, file: &DataFile) -> Result<Self> {
        let csv = table.csv.clone();
        let text = start(&csv, file)?;
        Self::of(csv, text, file)
    }

    /// The records of a text.
    fn of(csv: Csv, mut text: Box<dyn BufRead>, file: &DataFile) -> Result<Self> {
        if text.fill_buf().map_err(|error| open::broken(file, error))?.is_empty() && csv.header {
            return Err(Error::invalid(
                "the file is empty, without even a header line, so its writer failed; remove it, or write it again",
            ));
        }
        let mut records = Self::unread(csv, text, file)?;
        records.begin(file)?;
        Ok(records)
    }

    /// The same before its header is read.
    fn unread(csv: Csv, text: Box<dyn BufRead>, file: &DataFile) -> Result<Self> {
        let dialect = Dialect { delimiter: byte(csv.delimiter), quote: csv.quote.map(byte), comment: csv.comment.map(byte) };
        let splitter = Splitter::new(text, dialect, MAX_RECORD_BYTES).map_err(|error| open::broken(file, error))?;
        // Several spaces between two fields are one delimiter.
        let kept = (csv.trim && csv.delimiter == ' ').then(Vec::new);
        Ok(Self { splitter, names: Vec::new(), header: None, csv, kept })
    }

    /// Reads the header, if there is one; returns whether it is another one than before.
    fn begin(&mut self, file: &DataFile) -> Result<bool> {
        if self.csv.header {
            if !self.next(file)? {
                return Err(Error::invalid("the file has no header line; write one, or say `header: false` and give the `names`"));
            }
            if self.repeats_header() {
                return Ok(false);
            }
            self.names.clear();
            for field in self.fields().map(<[u8]>::to_vec).collect::<Vec<_>>() {
                self.names.push(String::from_utf8(field).map_err(|_| not_utf8("the header"))?);
            }
            self.header = Some(self.splitter.fields().map(<[u8]>::to_vec).collect());
        } else if !self.names.is_empty() {
            return Ok(false);
        }
        if !self.csv.names.is_empty() {
            if self.header.is_some() && self.csv.names.len() != self.names.len() {
                return Err(Error::invalid(format!(
                    "the header has {} fields, and `names` {}; give one name for each",
                    self.names.len(),
                    self.csv.names.len()
                )));
            }
            self.names.clone_from(&self.csv.names);
        }
        Ok(true)
    }

    /// Reads the next record; `false` at the end. A line of spaces is no record.
    #[inline]
    fn next(&mut self, file: &DataFile) -> Result<bool> {
        loop {
            if !self.splitter.next().map_err(|broken| self.broken(broken, file))? {
                return Ok(false);
            }
            // The lines that it has swallowed are in no count.
            if self.splitter.is_open() && self.splitter.has_lines() {
                return Err(self.unclosed(file));
            }
            let blank = self.splitter.len() <= 1 && self.splitter.fields().all(|field| field.iter().all(u8::is_ascii_whitespace));
            if blank {
                continue;
            }
            if let Some(kept) = &mut self.kept {
                kept.clear();
                kept.extend(self.splitter.fields().enumerate().filter(|(_, field)| !field.is_empty()).map(|(number, _)| number));
            }
            return Ok(true);
        }
    }

    /// The line on which the record begins.
    fn line(&self, file: &DataFile) -> u64 {
        lines_of(&self.csv, file, &[self.splitter.offset()]).first().copied().unwrap_or(0)
    }

    #[cold]
    fn unclosed(&self, file: &DataFile) -> Error {
        let line = self.line(file);
        let quote = self.csv.quote.unwrap_or('"');
        Error::invalid(format!(
            "a quote in the record that begins on line {line} is never closed, so all lines below would be a part of it; close it, or restore the file, or \
             say `csv: {{ quote: none }}` if `{quote}` is a character like others"
        ))
    }

    #[cold]
    fn broken(&self, broken: Broken, file: &DataFile) -> Error {
        match broken {
            Broken::TooLong => {
                let line = self.line(file);
                Error::invalid(format!(
                    "the record that begins near line {line} takes more than {MAX_RECORD_BYTES} bytes; is a quote missing its end?"
                ))
            }
            Broken::Io(error) => open::broken(file, error),
        }
    }

    /// How many fields the record has.
    #[inline]
    fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.splitter.len(), Vec::len)
    }

    /// A field of the record, trimmed if the table says so.
    #[inline(always)]
    fn field(&self, number: usize) -> &[u8] {
        if self.csv.trim { self.trimmed_field(number) } else { self.splitter.field(number) }
    }

    /// What the field holds, if it is as the file has it, and is short; see [`Splitter::short_field`].
    #[inline(always)]
    fn short_field<const N: usize>(&self, number: usize) -> Option<(&[u8; N], usize)> {
        if self.csv.trim { None } else { self.splitter.short_field(number) }
    }

    #[inline(never)]
    fn trimmed_field(&self, number: usize) -> &[u8] {
        let number = match &self.kept {
            None => Some(number),
            Some(kept) => kept.get(number).copied(),
        };
        self.trimmed(number.map_or(&[][..], |number| self.splitter.field(number)))
    }

    /// A field without the spaces around it, and without the quotes within these: a quote has a meaning only where a field begins.
    fn trimmed<'a>(&self, field: &'a [u8]) -> &'a [u8] {
        let trimmed = field.trim_ascii();
        if !field.first().is_some_and(u8::is_ascii_whitespace) {
            return trimmed;
        }
        let quote = self.csv.quote.map(byte);
        match trimmed {
            [first, inner @ .., last] if Some(*first) == quote && first == last && !inner.contains(first) => inner,
            _ => trimmed,
        }
    }

    /// The fields of the record, trimmed if the table says so.
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|number| self.field(number))
    }

    fn offset(&self) -> u64 {
        self.splitter.offset()
    }

    /// Whether the record is the header once more.
    #[inline]
    fn repeats_header(&mut self) -> bool {
        let first = self.header.as_ref().and_then(|header| header.first());
        first.is_some_and(|first| first == self.splitter.field(0)) && self.is_header()
    }

    #[cold]
    fn is_header(&mut self) -> bool {
        self.splitter.place_all();
        self.header.as_ref().is_some_and(|header| header.iter().eq(self.splitter.fields()))
    }

    /// From here on, of the fields of a record only some are wanted.
    fn want(&mut self, projection: &[usize]) {
        // Which fields are delimiters' is known of all fields or of none.
        if self.kept.is_none() {
            self.splitter.place_only(projection.iter().max().map_or(0, |last| last + 1));
        }
    }

    /// The first of some fields that is not UTF-8; the others do not matter.
    #[inline]
    fn not_utf8(&self, projection: &[usize]) -> Option<usize> {
        if self.splitter.is_ascii() {
            return None;
        }
        projection.iter().copied().find(|&at| std::str::from_utf8(self.field(at)).is_err())
    }

    /// Why the record is not one of the table; `None` if it is.
    #[inline(always)]
    fn odd(&mut self) -> Option<String> {
        if self.is_usual() { None } else { self.why_odd() }
    }

    /// Whether the record is surely one of the table.
    #[inline(always)]
    fn is_usual(&self) -> bool {
        let may_be_header = || self.header.as_ref().and_then(|header| header.first()).is_some_and(|first| first == self.splitter.field(0));
        self.len() == self.names.len() && !self.splitter.is_open() && !self.csv.final_newline && !may_be_header()
    }

    #[inline(never)]
    fn why_odd(&mut self) -> Option<String> {
        if self.csv.final_newline && self.splitter.is_unended() {
            let help = "restore the file, or leave out `final_newline: required` if its writer ends files so";
            return Some(format!("the file ends without a line break, so its last line may be cut off; {help}"));
        }
        let fields = self.len();
        if fields == self.names.len() {
            if self.splitter.is_open() {
                return Some("the file ends within quotes, so its last line is cut off; restore the file".to_owned());
            }
            if self.repeats_header() {
                return Some("the line repeats the header; remove it, or say `on_bad_row: quarantine`".to_owned());
            }
            return None;
        }
        let of = if self.header.is_some() { "the header" } else { "`names`" };
        let more = if fields < self.names.len() { ", so it may be cut off" } else { "" };
        Some(format!("the line has {fields} fields, and {of} {}{more}; correct the line, or restore the file", self.names.len()))
    }
}

fn not_utf8(what: &str) -> Error {
    Error::invalid(format!("{what} is not UTF-8; if the file is in another encoding, say so, e.g. `csv: {{ encoding: latin1 }}`"))
}

/// The lines on which records begin, given how many bytes come before each, in order; 0 where that is not known. It reads the file again,
/// which is done only for rows that cannot be read.
pub(super) fn lines(table: &Table, file: &DataFile, offsets: &[u64]) -> Vec<u64> {
    lines_of(&table.csv, file, offsets)
}

fn lines_of(csv: &Csv, file: &DataFile, offsets: &[u64]) -> Vec<u64> {
    let mut found = Vec::with_capacity(offsets.len());
    let mut wanted = offsets.iter().copied().peekable();
    if offsets.is_empty() {
        return found;
    }
    let Ok(mut text) = start(csv, file) else { return found };
    // Records begin after blank lines and comments, and lines end as `sed` counts them: with a line feed, also within quotes.
    let (mut line, mut at) = (u64::from(csv.skip_lines) + 1, 0u64);
    while let Some(&next) = wanted.peek() {
        if next <= at {
            found.push(line);
            wanted.next();
            continue;
        }
        let Ok(bytes) = text.fill_buf() else { break };
        if bytes.is_empty() {
            break;
        }
        let read = usize::try_from(next - at).unwrap_or(usize::MAX).min(bytes.len());
        line += bytes.iter().take(read).filter(|byte| **byte == b'\n').count() as u64;
        at += read as u64;
        text.consume(read);
    }
    found.resize(offsets.len(), 0);
    found
}

/// The columns that a name identifies: those that are named, and named once.
fn usable(names: &[String]) -> Vec<usize> {
    (0..names.len()).filter(|&at| !names[at].is_empty() && names.iter().filter(|name| **name == names[at]).count() == 1).collect()
}

/// The columns that the header names more than once, other than keys and time, with the places of the first two.
fn twice(table: &Table, names: &[String]) -> Vec<LeftOut> {
    let mut found: Vec<LeftOut> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let is_place = *name == table.time || table.key.contains(name) || table.reading.columns.contains(name);
        if name.is_empty() || is_place || found.iter().any(|known| known.column == *name) {
            continue;
        }
        if let Some(again) = names.iter().skip(at + 1).position(|other| other == name) {
            let places = [at, at + 1 + again].map(|place| format!("field {}", place + 1));
            found.push(LeftOut { column: name.clone(), types: places.clone(), files: places, also: Some(name.clone()) });
        }
    }
    found
}

/// Where the columns of the time are; none if the file does not have them all.
fn time_places(table: &Table, names: &[String]) -> Vec<usize> {
    let places = table.time_columns().into_iter().map(|column| names.iter().position(|name| name == column));
    places.collect::<Option<_>>().unwrap_or_default()
}

/// Small files, one after the other, as their texts are. They share what their headers say, and so whatever follows from that.
struct Series<'a> {
    table: &'a Table,
    records: Option<Records>,
}

impl<'a> Series<'a> {
    fn new(table: &'a Table) -> Self {
        Self { table, records: None }
    }

    /// The records of a text, and whether its header is another one than the last. `None` if the file is to be read by itself, which also says what
    /// is wrong with it.
    fn go_to(&mut self, file: &DataFile, text: &[u8]) -> Option<(&mut Records, bool)> {
        let csv = &self.table.csv;
        if csv.encoding != Encoding::Utf8 || csv.skip_lines > 0 || text.is_empty() || !open::is_plain(text) {
            return None;
        }
        let mut records = match self.records.take() {
            Some(records) => records,
            None => Records::unread(csv.clone(), Box::new(io::empty()), file).ok()?,
        };
        records.splitter.restart(text);
        let is_other = records.begin(file).ok()?;
        Some((self.records.insert(records), is_other))
    }
}

/// The columns of small files, given their texts; none of a file that is to be read by itself.
pub(super) fn columns_of_texts(table: &Table, files: &[(&DataFile, Option<Held>)]) -> Vec<Option<SchemaRef>> {
    let mut series = Series::new(table);
    let mut typer = Typer::default();
    let columns = |(file, text): &(&DataFile, Option<Held>)| {
        let (records, is_other) = series.go_to(file, text.as_ref()?.as_ref())?;
        if is_other {
            typer = Typer::of(table, records);
        }
        // What is wrong with a file is said when it is read by itself.
        typer.columns(table, file, records).ok()
    };
    files.iter().map(columns).collect()
}

/// The columns, with the types of their first rows; of type null if those hold nothing, and text if they are keys or the time.
pub(super) fn columns(table: &Table, file: &DataFile) -> Result<SchemaRef> {
    let mut records = Records::open(table, file)?;
    Typer::of(table, &records).columns(table, file, &mut records)
}

/// Finds the types of columns.
#[derive(Default)]
struct Typer<'a> {
    usable: Vec<usize>,
    /// Those of them whose types matter. Keys and times are read as text, whatever they look like.
    of_values: Vec<OfValues<'a>>,
    /// The columns of the last file without anything special, by their types.
    last: Option<(Vec<DataType>, SchemaRef)>,
}

/// What a value is, with its text if it is no number; `None` if there is none.
type Known = Option<(Value, Box<str>)>;

/// What shows, before the types of the other columns are known, that a row cannot be read.
struct LeftOutRows<'a> {
    /// Where its time is.
    timed: Vec<usize>,
    /// Where its key is, as far as it is in the file.
    keys: Vec<usize>,
    /// The columns whose types are declared.
    declared: Vec<(usize, ColumnType, Vec<&'a str>)>,
}

impl<'a> LeftOutRows<'a> {
    fn of(table: &'a Table, names: &[String]) -> Self {
        let place = |name: &str| names.iter().position(|known| known == name);
        let of_type = |(at, name): (usize, &String)| {
            let kind = table.type_of(name).filter(|_| !is_place(table, name))?;
            Some((at, kind, table.nulls_of(name).collect()))
        };
        Self {
            timed: time_places(table, names),
            keys: table.key.iter().filter_map(|key| place(key)).collect(),
            declared: names.iter().enumerate().filter_map(of_type).collect(),
        }
    }

    fn has(&self, table: &Table, records: &Records) -> bool {
        let is_other = |(at, kind, nulls): &(usize, ColumnType, Vec<&str>)| {
            let value = std::str::from_utf8(records.field(*at)).unwrap_or_default();
            !value.is_empty() && !nulls.contains(&value) && !text::fits(value, *kind, &table.csv)
        };
        (!self.timed.is_empty() && !self.timed.iter().any(|at| super::may_be_a_time(records.field(*at))))
            || self.keys.iter().any(|at| records.field(*at).is_empty())
            || self.declared.iter().any(is_other)
    }
}

/// A column whose type is found by its values.
struct OfValues<'a> {
    /// Its number among those that are usable, and in the file.
    number: usize,
    at: usize,
    /// What stands for no value.
    nulls: Vec<&'a str>,
    last: Last,
}

/// Whether a column of a file is a key or the time of the table, and nothing else.
fn is_place(table: &Table, name: &str) -> bool {
    let is_of_other = || table.columns.values().any(|rule| rule.path.as_deref() == Some(name));
    (name == table.time || table.key.iter().any(|key| key == name)) && !is_of_other()
}

impl<'a> Typer<'a> {
    fn of(table: &'a Table, records: &Records) -> Self {
        let usable = usable(&records.names);
        let numbered = usable.iter().copied().enumerate().filter(|(_, at)| !is_place(table, &records.names[*at]));
        let of_values = |(number, at): (usize, usize)| {
            let nulls = table.nulls_of(&records.names[at]).collect();
            OfValues { number, at, nulls, last: Last::default() }
        };
        Self { of_values: numbered.map(of_values).collect(), usable, last: None }
    }

    fn columns(&mut self, table: &Table, file: &DataFile, records: &mut Records) -> Result<SchemaRef> {
        let (inferred, rows) = self.infer(table, file, records)?;
        let is_usual = rows < INFER_ROWS && inferred.iter().all(|kind| kind.mixed().is_none());
        let mut kinds = vec![DataType::Utf8; self.usable.len()];
        self.of_values.iter().zip(&inferred).for_each(|(column, inferred)| kinds[column.number] = inferred.data_type());
        if let Some((_, columns)) = self.last.as_ref().filter(|(known, _)| is_usual && *known == kinds) {
            return Ok(columns.clone());
        }
        let columns = self.described(table, file, records, (&inferred, &kinds), rows)?;
        if is_usual {
            self.last = Some((kinds, columns.clone()));
        }
        Ok(columns)
    }

    /// What the first rows hold, and how many they are.
    fn infer(&mut self, table: &Table, file: &DataFile, records: &mut Records) -> Result<(Vec<Inferred>, usize)> {
        if matches!(table.on_bad_row, OnBadRow::Quarantine(_)) {
            return self.infer_kept(table, file, records);
        }
        let (of_values, is_plain) = (&mut self.of_values, !has_marks(&table.csv));
        let mut inferred: Vec<Inferred> = of_values.iter().map(|_| Inferred::default()).collect();
        let mut rows = 0;
        while rows < INFER_ROWS && records.next(file)? {
            if records.odd().is_some() {
                continue;
            }
            let offset = records.offset();
            for (number, OfValues { at, nulls, last, .. }) in of_values.iter_mut().enumerate() {
                let Some(kind) = inferred.get_mut(number) else { break };
                let short = if is_plain && nulls.is_empty() { records.short_field(*at) } else { None };
                if let Some(number) = short.and_then(|(bytes, length)| Value::of_short(*bytes, length)) {
                    kind.add_number(number, offset);
                    continue;
                }
                // Text in another encoding is reported when it is used.
                let value = std::str::from_utf8(records.field(*at)).unwrap_or("\u{fffd}");
                if !value.is_empty() && !nulls.contains(&value) {
                    kind.add_known(value, last.value(value, &table.csv), offset);
                }
            }
            rows += 1;
        }
        Ok((inferred, rows))
    }

    /// The same of a table that leaves rows out: they say nothing about the others. A row is left out also for a word in a column of numbers, which shows only when the types of
    /// all columns are known; without it, other columns may have other types.
    fn infer_kept(&mut self, table: &Table, file: &DataFile, records: &mut Records) -> Result<(Vec<Inferred>, usize)> {
        let left_out = LeftOutRows::of(table, &records.names);
        let of_values = &mut self.of_values;
        // What each row has in each column, with the text of what is no number.
        let mut kept: Vec<(u64, Vec<Known>)> = Vec::new();
        let mut rows = 0;
        while rows < INFER_ROWS && records.next(file)? {
            if records.odd().is_some() || left_out.has(table, records) {
                continue;
            }
            let mut values = Vec::with_capacity(of_values.len());
            for OfValues { at, nulls, last, .. } in &mut *of_values {
                let value = std::str::from_utf8(records.field(*at)).unwrap_or("\u{fffd}");
                values.push((!value.is_empty() && !nulls.contains(&value)).then(|| {
                    let known = last.value(value, &table.csv);
                    (known, if known.is_number() { Box::default() } else { value.into() })
                }));
            }
            kept.push((records.offset(), values));
            rows += 1;
        }
        loop {
            let mut inferred: Vec<Inferred> = of_values.iter().map(|_| Inferred::default()).collect();
            for (offset, values) in &kept {
                for (kind, value) in inferred.iter_mut().zip(values) {
                    value.iter().for_each(|(value, text)| kind.add_known(text, *value, *offset));
                }
            }
            let are_numbers: Vec<bool> = inferred.iter().map(|kind| kind.data_type().is_numeric()).collect();
            let before = kept.len();
            kept.retain(|(_, values)| {
                let is_wrong =
                    |(value, is_of_numbers): (&Known, &bool)| *is_of_numbers && value.as_ref().is_some_and(|(value, _)| !value.is_number());
                !values.iter().zip(&are_numbers).any(is_wrong)
            });
            if kept.len() == before {
                return Ok((inferred, rows));
            }
        }
    }

    fn described(
        &self,
        table: &Table,
        file: &DataFile,
        records: &Records,
        (inferred, kinds): (&[Inferred], &[DataType]),
        rows: usize,
    ) -> Result<SchemaRef> {
        let mut mixed = Vec::new();
        for (&OfValues { at, .. }, kind) in self.of_values.iter().zip(inferred) {
            let Some([number, word]) = kind.mixed() else { continue };
            // In order, since they are looked up in one pass.
            let found = lines(table, file, &[number.min(word), number.max(word)]);
            let mut of: Vec<String> = found.iter().map(|line| format!("line {line}")).collect();
            if number > word {
                of.reverse();
            }
            let Ok(files) = of.try_into() else { continue };
            let types = [DataType::Float64.to_string(), DataType::Utf8.to_string()];
            mixed.push(LeftOut { column: records.names[at].clone(), types, files, also: None });
        }
        let fields: Vec<Field> =
            self.usable.iter().zip(kinds).map(|(&at, kind)| Field::new(&records.names[at], kind.clone(), true)).collect();
        let columns = shape::of_file(fields, &twice(table, &records.names), &mixed)?;
        Ok(Arc::new(if rows < INFER_ROWS { columns } else { shape::of_first_rows(columns) }))
    }
}

/// The first records and, if that is not all of the file, some of the last.
pub(super) fn sample(table: &Table, file: &DataFile, most: usize) -> Result<SampledRows> {
    let mut records = Records::open(table, file)?;
    let mut rows = SampledRows { names: records.names.clone(), is_whole: true, ..SampledRows::default() };
    rows.kinds = vec![None; rows.names.len()];
    rows.nested = vec![false; rows.names.len()];
    rows.columns = vec![Vec::new(); rows.names.len()];
    let mut take = |records: &mut Records, most: usize| -> Result<bool> {
        let mut read = 0;
        while read < most {
            if !records.next(file)? {
                return Ok(true);
            }
            read += 1;
            if records.odd().is_some() {
                rows.odd += 1;
                continue;
            }
            for (values, field) in rows.columns.iter_mut().zip(records.fields()) {
                values.push(if field.is_empty() { None } else { Some(String::from_utf8_lossy(field).into_owned()) });
            }
        }
        Ok(false)
    };
    if take(&mut records, most / 2)? {
        return Ok(rows);
    }
    // Where the last rows cannot be reached, more of the first ones are read.
    let is_whole = match super::sample::tail(file, table.csv.encoding)? {
        None => take(&mut records, most / 2)?,
        Some(text) => {
            let mut csv = table.csv.clone();
            (csv.header, csv.skip_lines) = (false, 0);
            csv.names.clone_from(&records.names);
            let mut last = Records::of(csv, text, file)?;
            take(&mut last, most / 2)?;
            false
        }
    };
    rows.is_whole = is_whole;
    Ok(rows)
}

/// What a message adds if a column is missing: that the file seems to have another delimiter, or that the name is in it twice.
pub(super) fn hint(table: &Table, file: &DataFile, column: &str) -> Option<String> {
    let records = Records::open(table, file).ok()?;
    if records.names.iter().any(|name| name.contains('\0')) {
        return Some("every other byte is zero, so it looks like UTF-16; add `csv: { encoding: utf16le }` (or `utf16be`)".to_owned());
    }
    if records.names.iter().filter(|name| *name == column).count() > 1 {
        return Some(format!("the header names `{column}` twice; rename one"));
    }
    if !records.csv.trim && records.names.iter().any(|name| name.trim() == column) {
        return Some("the names in the header have spaces around them; add `csv: { trim: true }`".to_owned());
    }
    let header = records
        .header
        .as_ref()?
        .iter()
        .map(|name| String::from_utf8_lossy(name))
        .collect::<Vec<_>>()
        .join(&records.csv.delimiter.to_string());
    let other = DELIMITERS
        .into_iter()
        .filter(|other| *other != records.csv.delimiter)
        .find(|other| header.split(*other).any(|name| name.trim().trim_matches('"') == column))?;
    let word = match other {
        '\t' => "tab".to_owned(),
        ' ' => "space".to_owned(),
        other => format!("\"{other}\""),
    };
    Some(format!(
        "the fields look separated by `{}`; add `csv: {{ delimiter: {word} }}`",
        if other == '\t' { "tab".to_owned() } else { other.to_string() }
    ))
}

/// A column that is read as text.
struct Column<'a> {
    /// Its number in the file.
    at: usize,
    name: String,
    /// What stands for no value.
    nulls: Vec<&'a [u8]>,
    texts: Texts,
}

impl<'a> Column<'a> {
    /// Those of the columns of a file that are wanted.
    fn of(table: &'a Table, records: &Records, wanted: &[String], likely: usize) -> Vec<Self> {
        let is_wanted = |at: &usize| wanted.contains(&records.names[*at]);
        let of = |at: usize| {
            let name = records.names[at].clone();
            let nulls = table.nulls_of(&name).map(str::as_bytes).collect();
            Self { at, name, nulls, texts: Texts::with_capacity(likely) }
        };
        usable(&records.names).into_iter().filter(is_wanted).map(of).collect()
    }

    fn schema(columns: &[Self]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|column| Field::new(&column.name, DataType::Utf8, true)).collect::<Vec<_>>()))
    }

    fn places(columns: &[Self]) -> Vec<usize> {
        columns.iter().map(|column| column.at).collect()
    }

    /// Adds what a record has.
    #[inline]
    fn push(&mut self, records: &Records) {
        if self.nulls.is_empty()
            && let Some((bytes, length @ 1..)) = records.short_field::<PADDING>(self.at)
        {
            self.texts.push_short(bytes, length);
            return;
        }
        let text = records.field(self.at);
        if text.is_empty() || self.nulls.contains(&text) { self.texts.push_null() } else { self.texts.push(text) }
    }
}

/// Columns of small files as text, one file after the other, given their texts; and how many rows there are up to the end of each. It ends before
/// the first file that has other columns, or that is to be read by itself.
pub(super) fn joined(table: &Table, files: &[(&DataFile, Held)], wanted: &[String]) -> Result<(RecordBatch, Vec<usize>)> {
    let mut series = Series::new(table);
    let mut projection = Vec::new();
    let mut columns: Vec<Column<'_>> = Vec::new();
    let mut schema = Arc::new(Schema::empty());
    let (mut ends, mut rows) = (Vec::with_capacity(files.len()), 0);
    let likely = files.iter().map(|(file, _)| file.likely_rows(BATCH_ROWS)).sum();
    'files: for (file, text) in files {
        let Some((records, is_other)) = series.go_to(file, text.as_ref()) else { break };
        if is_other {
            if !ends.is_empty() {
                break;
            }
            columns = Column::of(table, records, wanted, likely);
            (projection, schema) = (Column::places(&columns), Column::schema(&columns));
        }
        records.want(&projection);
        let mut of_file = 0;
        loop {
            match records.next(file) {
                Ok(true) if records.odd().is_none() && records.not_utf8(&projection).is_none() => {}
                Ok(false) => break,
                _ => break 'files,
            }
            columns.iter_mut().for_each(|column| column.push(records));
            of_file += 1;
        }
        rows += of_file;
        ends.push(rows);
    }
    let finish = |mut column: Column<'_>| {
        // What comes of a file that is to be read by itself does not count.
        column.texts.truncate(rows);
        Ok(Arc::new(column.texts.finish()?) as ArrayRef)
    };
    let columns = columns.into_iter().map(finish).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok((RecordBatch::try_new_with_options(schema, columns, &options)?, ends))
}

/// Reads columns as text. A column that the file lacks is left out.
pub(super) fn rows(table: &Table, file: &DataFile, wanted: &[String], judge: &mut Judge<'_>, sink: &mut RowsOf<'_>) -> Result<Usage> {
    let mut records = Records::open(table, file)?;
    let likely = file.likely_rows(BATCH_ROWS);
    let mut columns = Column::of(table, &records, wanted, likely);
    let (projection, schema) = (Column::places(&columns), Column::schema(&columns));
    records.want(&projection);
    let (mut is_more, mut is_known) = (true, false);
    while is_more {
        let mut offsets = Offsets(Vec::with_capacity(likely));
        while offsets.0.len() < BATCH_ROWS && offsets.bytes() < MAX_BATCH_BYTES {
            is_more = records.next(file)?;
            if !is_more {
                break;
            }
            judge.rows_read += 1;
            if let Some(why) = records.odd() {
                judge.reject(At::Offset(records.offset()), None, || why)?;
                continue;
            }
            if let Some(at) = records.not_utf8(&projection) {
                let name = records.names[at].clone();
                let why = || not_utf8(&format!("the value of column `{name}`")).message().to_owned();
                judge.reject(At::Offset(records.offset()), Some(&name), why)?;
                continue;
            }
            columns.iter_mut().for_each(|column| column.push(&records));
            offsets.0.push(records.offset());
        }
        // A file without rows is looked at, too: its header may lack a column.
        if offsets.0.is_empty() && is_known {
            continue;
        }
        is_known = true;
        let texts = columns.iter_mut().map(|column| std::mem::replace(&mut column.texts, Texts::with_capacity(likely)));
        let arrays: Vec<ArrayRef> = texts.map(|texts| Ok(Arc::new(texts.finish()?) as ArrayRef)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(offsets.0.len()));
        let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?;
        if sink(batch, &offsets, judge)? == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(Usage { bytes_scanned: file.bytes, ..Usage::default() })
}
