//! Turns what a program or an API answers into rows in the lake's shape: lines of JSON, CSV, or a stream of Arrow. Pure.
//!
//! It must not know what was asked: whether rows are believable is judged elsewhere. Nothing is guessed here. A row has the columns of the first one, a
//! value has the type of the table's column, and a value that would change is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use jiff::Timestamp;
use repair_core::lake::shape;
use repair_core::model::{Interval, Key, Table};
use repair_core::plugin::Covered;
use repair_core::text::{name_twice, visible};
use repair_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How a program writes its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RowFormat {
    /// An object a line.
    #[default]
    Jsonl,
    /// Lines with a header.
    Csv,
    /// The streaming format of Arrow, without compression.
    Arrow,
}

/// How many columns a row may have.
const MOST_COLUMNS: usize = 10_000;
/// How many characters of a value are shown.
const SHOWN_CHARS: usize = 60;
/// How many rows are turned into columns at once.
const ROWS_AT_ONCE: usize = 8 << 10;
/// The digits of a decimal number that a float surely keeps.
const EXACT_DIGITS: usize = 15;
/// The largest whole number up to which a float has every one.
const EXACT_WHOLE: f64 = 9_007_199_254_740_992.0;

/// What a program answered.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// The rows, in the lake's shape.
    pub(crate) batches: Vec<RecordBatch>,
    /// The stretches for which the program vouches.
    pub(crate) covered: Vec<Covered>,
    /// The intervals of estimates: the number of a row over all batches, and by column where its true value lies in 95 % of cases.
    pub(crate) estimated: Vec<(usize, Intervals)>,
}

/// The ends of intervals, by column.
pub(crate) type Intervals = BTreeMap<String, [f64; 2]>;

/// The field of a row with the intervals of its estimates.
const ESTIMATED: &str = "$estimated";

impl Rows {
    /// How many rows there are.
    pub(crate) fn count(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    /// The same rows, of which none may have the interval of an estimate.
    ///
    /// # Errors
    /// `invalid` if one has.
    pub(crate) fn without_estimates(self) -> Result<Self> {
        match self.estimated.first() {
            None => Ok(self),
            Some((row, _)) => Err(Error::invalid(format!("`{ESTIMATED}` in row {}, which is for repairs alone", row + 1))),
        }
    }
}

/// The intervals in a value.
fn intervals(value: Value) -> Result<Intervals> {
    let shown = shown(&value.to_string());
    serde_json::from_value(value).map_err(|_| {
        Error::invalid(format!("`{ESTIMATED}`: {shown}, where intervals by column belong, such as {{\"value\": [17.5, 19.5]}},"))
    })
}

/// The intervals in a text.
fn intervals_of_text(text: &str) -> Result<Intervals> {
    intervals(serde_json::from_str(text).unwrap_or_else(|_| text.into()))
}

/// Decodes an answer of any size, away from the threads that wait. One that makes a decoder panic is an error like any other.
///
/// # Errors
/// `invalid`, with the place.
pub(crate) async fn decoded(format: RowFormat, bytes: Vec<u8>, table: Arc<Table>, columns: Option<SchemaRef>) -> Result<Rows> {
    let decoding = tokio::task::spawn_blocking(move || decode(format, bytes, &table, columns.as_deref()));
    decoding.await.map_err(|_| Error::invalid("something that cannot be decoded"))?
}

fn decode(format: RowFormat, bytes: Vec<u8>, table: &Table, columns: Option<&Schema>) -> Result<Rows> {
    if bytes.is_empty() {
        let how = match format {
            RowFormat::Jsonl => "one that has no rows writes the line `{\"$rows\": 0}`",
            RowFormat::Csv => "one that has no rows writes the header",
            RowFormat::Arrow => "one that has no rows writes the schema",
        };
        return Err(Error::invalid(format!("nothing; {how}")));
    }
    match format {
        RowFormat::Jsonl => of_json(&bytes, table, columns),
        RowFormat::Csv => of_csv(&bytes, table, columns),
        RowFormat::Arrow => of_arrow(bytes, table, columns),
    }
}

/// What a column of an answer is in the table.
enum Target {
    Key(String),
    Time(String),
    Value(Arc<Field>),
}

impl Target {
    /// The column that a name means.
    fn of(name: &str, table: &Table, columns: Option<&Schema>, advice: &str) -> Result<Self> {
        // Names are found regardless of case, unless the table has another column that is written so.
        let is_exact = columns.is_some_and(|columns| columns.field_with_name(name).is_ok());
        let is = |own: &str| own == name || (!is_exact && own.eq_ignore_ascii_case(name));
        if let Some(key) = table.key.iter().find(|key| *key == name).or_else(|| table.key.iter().find(|key| is(key))) {
            return Ok(Self::Key(key.clone()));
        }
        if is(&table.time) {
            return Ok(Self::Time(table.time.clone()));
        }
        let Some(columns) = columns else {
            return Err(Error::invalid(format!(
                "a column `{}`, and table `{}` has no file that says which type it has; write the first file, or answer with `arrow`",
                shown(name),
                table.name
            )));
        };
        match shape::find(columns, name)? {
            Some(field) => Ok(Self::Value(field.clone())),
            None => Err(Error::invalid(format!(
                "a column `{}`, and table `{}` has no such column; {}{advice}",
                shown(name),
                table.name,
                shape::names(columns)
            ))),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Key(name) | Self::Time(name) => name,
            Self::Value(field) => field.name(),
        }
    }

    fn field(&self, table: &Table) -> Field {
        match self {
            Self::Key(name) => shape::key_field(name),
            Self::Time(_) => shape::time_field(table),
            // What may not be null is judged by whoever knows the table.
            Self::Value(field) => Field::new(field.name(), field.data_type().clone(), true),
        }
    }
}

/// The columns of an answer, in its order.
fn targets<'a>(names: impl IntoIterator<Item = &'a str>, table: &Table, columns: Option<&Schema>, advice: &str) -> Result<Vec<Target>> {
    let targets = names.into_iter().map(|name| Target::of(name, table, columns, advice)).collect::<Result<Vec<_>>>()?;
    if targets.len() > MOST_COLUMNS {
        return Err(Error::invalid(format!("{} columns; at most {MOST_COLUMNS} are read", targets.len())));
    }
    let fields: Vec<Field> = targets.iter().map(|target| target.field(table)).collect();
    for (at, field) in fields.iter().enumerate() {
        if fields.iter().skip(at + 1).any(|other| other.name() == field.name()) {
            return Err(Error::invalid(format!("the column `{}` twice", shown(field.name()))));
        }
    }
    for wanted in table.key.iter().chain([&table.time]) {
        if !fields.iter().any(|field| field.name() == wanted) {
            return Err(Error::invalid(format!(
                "rows without the column `{wanted}`, which says which row of table `{}` is meant",
                table.name
            )));
        }
    }
    Ok(targets)
}

/// Rows as texts, column by column, until there are enough for a batch.
struct Columns<'a> {
    table: &'a Table,
    targets: Vec<Target>,
    /// The words of each column that mean that there is no value.
    nulls: Vec<Vec<&'a str>>,
    texts: Vec<Vec<Option<String>>>,
    /// The number of each row's line, or of the row.
    lines: Vec<u64>,
    /// What these numbers count: lines or rows.
    unit: &'static str,
    done: Vec<RecordBatch>,
}

impl<'a> Columns<'a> {
    fn new(table: &'a Table, targets: Vec<Target>, unit: &'static str) -> Self {
        let texts = targets.iter().map(|_| Vec::new()).collect();
        let nulls = targets.iter().map(|target| table.nulls_of(target.name()).collect()).collect();
        Self { table, targets, nulls, texts, lines: Vec::new(), unit, done: Vec::new() }
    }

    /// Adds a row: a text, or null, for each column.
    fn add(&mut self, line: u64, values: impl IntoIterator<Item = Result<Option<String>>>) -> Result<()> {
        for ((texts, nulls), value) in self.texts.iter_mut().zip(&self.nulls).zip(values) {
            let value = value.map_err(|error| Error::invalid(format!("{} in {} {line}", error.message(), self.unit)))?;
            texts.push(value.filter(|text| !nulls.contains(&text.as_str())));
        }
        self.lines.push(line);
        if self.lines.len() >= ROWS_AT_ONCE { self.flush() } else { Ok(()) }
    }

    /// Where a row is, for messages.
    fn line(&self, row: usize) -> String {
        format!("{} {}", self.unit, self.lines.get(row).copied().unwrap_or_default())
    }

    fn flush(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        let texts: Vec<Vec<Option<String>>> = self.texts.iter_mut().map(std::mem::take).collect();
        for (target, texts) in self.targets.iter().zip(texts) {
            let texts = StringArray::from(texts);
            fields.push(target.field(self.table));
            arrays.push(self.typed(target, texts)?);
        }
        self.lines.clear();
        self.done.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<RecordBatch>> {
        self.flush()?;
        Ok(self.done)
    }

    /// Texts as the values of a column.
    fn typed(&self, target: &Target, texts: StringArray) -> Result<ArrayRef> {
        let null = || (0..texts.len()).find(|row| texts.is_null(*row));
        match target {
            Target::Key(name) => match null() {
                Some(row) => Err(Error::invalid(format!("no `{name}` in {}", self.line(row)))),
                None => Ok(Arc::new(texts)),
            },
            Target::Time(name) => match null() {
                Some(row) => Err(Error::invalid(format!("no `{name}` in {}", self.line(row)))),
                None => Ok(Arc::new(self.instants(name, &texts)?)),
            },
            Target::Value(field) => {
                let kind = field.data_type();
                if matches!(kind, DataType::Timestamp(_, Some(_))) {
                    return shape::cast_exact(&(Arc::new(self.instants(field.name(), &texts)?) as ArrayRef), kind);
                }
                let all: ArrayRef = Arc::new(texts.clone());
                let done = shape::cast_strict(&all, kind).map_err(|error| self.odd_one(field, &texts).unwrap_or(error))?;
                finite(field.name(), &done)?;
                match texts.iter().position(|text| text.is_some_and(|text| !keeps_all_of(kind, text))) {
                    None => Ok(done),
                    Some(row) => Err(Error::invalid(format!(
                        "`{}`: {} in {}, of which {} would keep a part",
                        shown(field.name()),
                        shown(texts.value(row)),
                        self.line(row),
                        a_type(kind)
                    ))),
                }
            }
        }
    }

    /// The error about the first text that has not the type of a column.
    fn odd_one(&self, field: &Field, texts: &StringArray) -> Option<Error> {
        (0..texts.len()).find_map(|row| {
            let one: ArrayRef = Arc::new(texts.slice(row, 1));
            shape::cast_strict(&one, field.data_type()).err()?;
            let (name, line, text) = (shown(field.name()), self.line(row), shown(texts.value(row)));
            let is_word = !text.bytes().any(|byte| byte.is_ascii_digit());
            let hint = if is_word {
                format!(
                    "; if it means that there is no value, add `columns: {{ {name}: {{ nulls: [\"{text}\"] }} }}` to the table; if it is one, declare the \
                     column: `columns: {{ {name}: text }}`"
                )
            } else {
                String::new()
            };
            Some(Error::invalid(format!("`{name}`: {text} in {line}, which is no {}{hint}", field.data_type())))
        })
    }

    fn instants(&self, name: &str, texts: &StringArray) -> Result<TimestampMicrosecondArray> {
        let mut all = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let Some(text) = text else {
                all.push(None);
                continue;
            };
            let odd = || {
                Error::invalid(format!(
                    "`{name}`: {} in {}, which is no instant with its zone, such as 2024-03-04T05:00:00Z",
                    shown(text),
                    self.line(row)
                ))
            };
            let instant: Timestamp = text.parse().map_err(|_| odd())?;
            if instant.as_nanosecond() % 1_000 != 0 {
                return Err(Error::invalid(format!("`{name}`: {} in {}, which is finer than microseconds", shown(text), self.line(row))));
            }
            all.push(Some(instant.as_microsecond()));
        }
        Ok(TimestampMicrosecondArray::from(all).with_timezone("UTC"))
    }
}

/// Whether a type holds all of a text that it takes: a decimal all digits, a float each digit of a whole number, a date the time of day.
fn keeps_all_of(kind: &DataType, text: &str) -> bool {
    let text = text.trim();
    match kind {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
            let fraction = digits.split_once('.').map_or("", |(_, fraction)| fraction).trim_end_matches('0');
            let Ok(exponent) = exponent.parse::<i64>() else { return false };
            // A number that ends in zeros may still be whole for a negative scale; such columns take what is a multiple.
            i64::try_from(fraction.len()).is_ok_and(|length| length - exponent <= i64::from((*scale).max(0)))
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            type Half = <Float16Type as ArrowPrimitiveType>::Native;
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            // With nothing but zeros behind its point, a number is whole, too.
            let digits =
                digits.split_once('.').filter(|(_, rest)| rest.bytes().all(|byte| byte == b'0')).map_or(digits, |(whole, _)| whole);
            let Ok(whole) = digits.parse::<u128>() else { return true };
            let held = match kind {
                DataType::Float16 => digits.parse::<f64>().map(|float| Half::from_f64(float).to_f64()),
                DataType::Float32 => digits.parse::<f32>().map(f64::from),
                _ => digits.parse::<f64>(),
            };
            // A float that is printed in full is a whole number itself.
            whole < (1 << 11) || held.is_ok_and(|held| format!("{held:.0}") == whole.to_string())
        }
        DataType::Date32 | DataType::Date64 => {
            let rest = text.get(10..).unwrap_or_default();
            rest.bytes().all(|byte| matches!(byte, b'T' | b't' | b' ' | b':' | b'.' | b'0' | b'Z' | b'z' | b'+'))
        }
        _ => true,
    }
}

/// A type, in a message.
fn a_type(kind: &DataType) -> String {
    match kind {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            format!("a decimal with {scale} digits after its mark")
        }
        DataType::Float16 | DataType::Float32 => "a narrow float".to_owned(),
        DataType::Float64 => "a float".to_owned(),
        _ => "a date".to_owned(),
    }
}

/// A value in a form that may be shown.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{more}", visible(&cut))
}

/// Checks that no number of a column is infinite or none at all: such a one is the result of a failed computation.
fn finite(name: &str, values: &ArrayRef) -> Result<()> {
    let all = match values.data_type() {
        DataType::Float64 => values.as_primitive::<Float64Type>().iter().flatten().all(f64::is_finite),
        DataType::Float32 => values.as_primitive::<Float32Type>().iter().flatten().all(f32::is_finite),
        DataType::Float16 => values.as_primitive::<Float16Type>().iter().flatten().all(|value| value.to_f32().is_finite()),
        _ => true,
    };
    if all {
        Ok(())
    } else {
        Err(Error::invalid(format!("a value of `{}` that is infinite or not a number; write null for none", shown(name))))
    }
}

fn of_json(bytes: &[u8], table: &Table, columns: Option<&Schema>) -> Result<Rows> {
    let mut all: Option<(Vec<String>, Columns<'_>)> = None;
    let (mut rows, mut declared, mut covered, mut estimated) = (0u64, None, Vec::new(), Vec::new());
    for (number, line) in (1u64..).zip(bytes.split(|byte| *byte == b'\n')) {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if let Some(name) = name_twice(line, |_| true) {
            return Err(Error::invalid(format!("the field `{}` twice in an object of line {number}", shown(&name))));
        }
        let mut row: Map<String, Value> = serde_json::from_slice(line).map_err(|error| {
            Error::invalid(format!(
                "something that is not an object of JSON in line {number} ({error}): {}",
                shown(&String::from_utf8_lossy(line))
            ))
        })?;
        if let Some(name) = row.keys().find(|name| name.starts_with('$') && *name != ESTIMATED) {
            match (name.as_str(), row.get(name), row.len()) {
                ("$rows", Some(Value::Number(count)), 1) if count.is_u64() && declared.is_none() => declared = count.as_u64(),
                ("$covered", Some(Value::Object(stretch)), 1) => covered.push(stretch_of(stretch, number)?),
                _ => {
                    let line = shown(&String::from_utf8_lossy(line));
                    return Err(Error::invalid(format!(
                        "line {number}, which is neither a row nor one of `{{\"$rows\": COUNT}}` and `{{\"$covered\": {{…}}}}`: {line}"
                    )));
                }
            }
            continue;
        }
        if let Some(value) = row.remove(ESTIMATED).filter(|value| !value.is_null()) {
            let of_row = intervals(value).map_err(|error| Error::invalid(format!("{} in line {number}", error.message())))?;
            estimated.push((usize::try_from(rows).unwrap_or(usize::MAX), of_row));
        }
        rows += 1;
        let (names, all) = match &mut all {
            Some(all) => all,
            none => {
                let names: Vec<String> = row.keys().cloned().collect();
                let targets = targets(names.iter().map(String::as_str), table, columns, "")?;
                none.insert((names, Columns::new(table, targets, "line")))
            }
        };
        if row.len() != names.len() || !names.iter().all(|name| row.contains_key(name)) {
            let odd = row.keys().find(|name| !names.contains(name)).or_else(|| names.iter().find(|name| !row.contains_key(*name)));
            return Err(Error::invalid(format!(
                "rows of different columns: line {number} and the first differ in `{}`; write null where there is no value",
                shown(odd.map(String::as_str).unwrap_or_default())
            )));
        }
        let values: Vec<Result<Option<String>>> =
            names.iter().zip(&all.targets).map(|(name, target)| text_of(name, row.get(name), target)).collect();
        all.add(number, values)?;
    }
    if let Some(declared) = declared
        && declared != rows
    {
        return Err(Error::invalid(format!("{rows} rows, and says that there are {declared}")));
    }
    if rows == 0 && declared.is_none() && covered.is_empty() {
        return Err(Error::invalid("no row; one that has none writes the line `{\"$rows\": 0}`"));
    }
    let batches = match all {
        Some((_, all)) => all.finish()?,
        None => Vec::new(),
    };
    Ok(Rows { batches, covered, estimated })
}

/// The stretch for which a line vouches.
fn stretch_of(stretch: &Map<String, Value>, line: u64) -> Result<Covered> {
    let wrong = || {
        Error::invalid(format!(
            "a `$covered` in line {line} that is not of the form {{\"key\": \"…\", \"from\": \"2024-03-04T00:00:00Z\", \"to\": \"2024-03-05T00:00:00Z\"}}"
        ))
    };
    let key = match stretch.get("key") {
        Some(key) => serde_json::from_value::<Key>(key.clone()).map_err(|_| wrong())?,
        None => Key::default(),
    };
    let instant = |name: &str| stretch.get(name).and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok()).ok_or_else(wrong);
    let interval = Interval::new(instant("from")?, instant("to")?).map_err(|_| wrong())?;
    if stretch.len() != 2 + usize::from(stretch.contains_key("key")) {
        return Err(wrong());
    }
    Ok(Covered { key, interval })
}

/// A value of JSON as a text of the type of its column.
fn text_of(name: &str, value: Option<&Value>, target: &Target) -> Result<Option<String>> {
    let odd =
        |value: &Value, what: &str| Err(Error::invalid(format!("`{}`: {}, where {what} belongs", shown(name), shown(&value.to_string()))));
    let value = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let kind = match target {
        Target::Key(_) => {
            return match value {
                Value::String(text) => Ok(Some(text.clone())),
                Value::Number(number) if number.is_i64() || number.is_u64() => Ok(Some(number.to_string())),
                other => odd(other, "a text"),
            };
        }
        Target::Time(_) => {
            return match value {
                Value::String(text) => Ok(Some(text.clone())),
                other => odd(other, "the text of an instant, such as \"2024-03-04T05:00:00Z\","),
            };
        }
        Target::Value(field) => field.data_type(),
    };
    match (kind, value) {
        (kind, _) if kind.is_nested() => odd(value, "a nested value, which only `arrow` can bring,"),
        (kind, Value::String(text)) if !matches!(kind, DataType::Boolean) => Ok(Some(text.clone())),
        (DataType::Boolean, Value::Bool(value)) => Ok(Some(value.to_string())),
        (kind, Value::Number(number)) if kind.is_numeric() => Ok(Some(match number.as_f64() {
            _ if number.is_i64() || number.is_u64() => number.to_string(),
            Some(float) if kind.is_integer() && float.fract() == 0.0 && float.abs() < EXACT_WHOLE => format!("{float:.0}"),
            Some(_) if kind.is_decimal() && number.to_string().bytes().filter(u8::is_ascii_digit).count() > EXACT_DIGITS => {
                return odd(value, "a decimal number with so many digits that it must be a text");
            }
            _ => number.to_string(),
        })),
        (DataType::Boolean, _) => odd(value, "true or false"),
        (kind, _) if kind.is_numeric() => odd(value, "a number"),
        _ => odd(value, "a text"),
    }
}

/// Refuses CSV in which a quote is never closed, which would make one value of all lines below it; or is closed by the quote of another line, which would make
/// one value of those between.
///
/// # Errors
/// `invalid`, with the line of the quote.
pub(crate) fn refuse_open_quote(bytes: &[u8]) -> Result<()> {
    // A quote counts where a field begins; within quotes, two are one.
    let (mut line, mut is_start, mut opened, mut may_close) = (1u64, true, None::<u64>, false);
    for byte in bytes {
        if *byte == b'\n' {
            line += 1;
        }
        match (opened, byte) {
            (Some(_), b'"') => may_close = !may_close,
            (Some(_), b',' | b'\n' | b'\r') if may_close => (opened, may_close, is_start) = (None, false, true),
            (Some(first), _) if may_close && first < line => {
                return Err(Error::invalid(format!(
                    "a quote in line {first} that line {line} closes before a field ends, so that it is none of a value"
                )));
            }
            (Some(_), _) if may_close => (opened, may_close, is_start) = (None, false, false),
            (Some(_), _) => {}
            (None, b'"') if is_start => (opened, is_start) = (Some(line), false),
            (None, byte) => is_start = matches!(byte, b',' | b'\n' | b'\r'),
        }
    }
    match opened.filter(|_| !may_close) {
        None => Ok(()),
        Some(line) => {
            Err(Error::invalid(format!("a quote in line {line} that is never closed, so that all lines below it would be one value")))
        }
    }
}

fn of_csv(bytes: &[u8], table: &Table, columns: Option<&Schema>) -> Result<Rows> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    refuse_open_quote(bytes)?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(false).from_reader(bytes);
    let mut record = csv::StringRecord::new();
    let broken = |error: csv::Error| Error::invalid(format!("something that is not CSV ({error})"));
    if !reader.read_record(&mut record).map_err(broken)? {
        return Err(Error::invalid("no header; one that has no rows writes the header"));
    }
    let names: Vec<String> = record.iter().map(|name| name.trim().to_owned()).collect();
    let interval_at = names.iter().position(|name| name == ESTIMATED);
    let targets = targets(names.iter().map(String::as_str).filter(|name| *name != ESTIMATED), table, columns, "")?;
    if let Some(nested) = targets.iter().find_map(|target| match target {
        Target::Value(field) if field.data_type().is_nested() => Some(field),
        _ => None,
    }) {
        return Err(Error::invalid(format!("a column `{}`, which is nested, so that only `arrow` can bring it", shown(nested.name()))));
    }
    let mut all = Columns::new(table, targets, "line");
    let mut estimated = Vec::new();
    let mut rows = 0;
    while reader.read_record(&mut record).map_err(broken)? {
        let line = record.position().map_or(0, csv::Position::line);
        if let Some(text) = interval_at.and_then(|at| record.get(at)).filter(|text| !text.is_empty()) {
            let of_row = intervals_of_text(text).map_err(|error| Error::invalid(format!("{} in line {line}", error.message())))?;
            estimated.push((rows, of_row));
        }
        let values = record.iter().enumerate().filter(|(at, _)| Some(*at) != interval_at);
        all.add(line, values.map(|(_, value)| Ok((!value.is_empty()).then(|| value.to_owned()))))?;
        rows += 1;
    }
    Ok(Rows { batches: all.finish()?, covered: Vec::new(), estimated })
}

fn of_arrow(bytes: Vec<u8>, table: &Table, columns: Option<&Schema>) -> Result<Rows> {
    let broken = |error: arrow::error::ArrowError| Error::invalid(format!("something that is not a stream of Arrow ({error})"));
    let mut buffer = Buffer::from_vec(bytes);
    refuse_compression(&buffer)?;
    // It takes slices of what is there, whatever lengths the stream claims.
    let mut decoder = StreamDecoder::new();
    let (mut batches, mut estimated, mut before) = (Vec::new(), Vec::new(), 0);
    while !buffer.is_empty() {
        if let Some(mut batch) = decoder.decode(&mut buffer).map_err(broken)? {
            if let Some((at, _)) = batch.schema_ref().column_with_name(ESTIMATED) {
                estimated.extend(intervals_of_column(&batch.remove_column(at), before)?);
            }
            before += batch.num_rows();
            batches.push(in_shape(&batch, table, columns)?);
        }
    }
    let schema = decoder.schema();
    decoder.finish().map_err(broken)?;
    let schema = schema.ok_or_else(|| Error::invalid("a stream of Arrow without a schema"))?;
    if batches.is_empty() {
        let names = schema.fields().iter().map(|field| field.name().as_str()).filter(|name| *name != ESTIMATED);
        targets(names, table, columns.or(Some(&schema)), "")?;
    }
    Ok(Rows { batches, covered: Vec::new(), estimated })
}

/// The intervals in a column of texts, of rows before which there are so many.
fn intervals_of_column(column: &ArrayRef, before: usize) -> Result<Vec<(usize, Intervals)>> {
    if !shape::is_text(column.data_type()) {
        return Err(Error::invalid(format!("`{ESTIMATED}` as {}, which is no text", column.data_type())));
    }
    let texts = shape::cast_strict(column, &DataType::Utf8)?;
    let of_row = |(row, text): (usize, &str)| {
        let of_row = intervals_of_text(text).map_err(|error| Error::invalid(format!("{} in row {}", error.message(), before + row + 1)))?;
        Ok((before + row, of_row))
    };
    texts.as_string::<i32>().iter().enumerate().filter_map(|(row, text)| Some((row, text?))).map(of_row).collect()
}

/// Refuses messages whose bodies are compressed: what they claim to unpack to would be taken from memory.
fn refuse_compression(stream: &[u8]) -> Result<()> {
    const CONTINUED: [u8; 4] = [0xff; 4];
    let cut = || Error::invalid("a stream of Arrow that is cut off or damaged");
    let mut rest = stream;
    while !rest.is_empty() {
        rest = rest.strip_prefix(&CONTINUED).unwrap_or(rest);
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| cut())?;
        if length == 0 {
            return Ok(());
        }
        let (metadata, after) = after.split_at_checked(length).ok_or_else(cut)?;
        let message = arrow::ipc::root_as_message(metadata).map_err(|_| cut())?;
        let batch = message.header_as_record_batch().or_else(|| message.header_as_dictionary_batch().and_then(|batch| batch.data()));
        if batch.is_some_and(|batch| batch.compression().is_some()) {
            return Err(Error::invalid("a stream of Arrow that is compressed; write it without compression"));
        }
        let body = usize::try_from(message.bodyLength()).map_err(|_| cut())?;
        rest = after.get(body..).ok_or_else(cut)?;
    }
    Ok(())
}

/// A batch of any columns, in the lake's shape.
fn in_shape(batch: &RecordBatch, table: &Table, columns: Option<&Schema>) -> Result<RecordBatch> {
    let own = batch.schema();
    let targets = targets(own.fields().iter().map(|field| field.name().as_str()), table, columns.or(Some(&own)), "")?;
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (target, array) in targets.iter().zip(batch.columns()) {
        let done: ArrayRef = match target {
            Target::Key(name) => {
                shape::check_key_type(table, name, array.data_type())?;
                Arc::new(shape::key_text(table, name, array)?)
            }
            Target::Time(name) => {
                if !matches!(array.data_type(), DataType::Timestamp(_, Some(_))) {
                    return Err(Error::invalid(format!("`{name}` as {}, which is no timestamp with a zone", array.data_type())));
                }
                shape::cast_exact(array, shape::time_field(table).data_type())?
            }
            Target::Value(field) => {
                let done = shape::cast_exact(array, field.data_type())
                    .map_err(|error| Error::invalid(format!("`{}` as {}: {}", shown(field.name()), array.data_type(), error.message())))?;
                finite(field.name(), &done)?;
                done
            }
        };
        if !matches!(target, Target::Value(_)) && done.logical_null_count() > 0 {
            return Err(Error::invalid("a row without key or time"));
        }
        fields.push(target.field(table));
        arrays.push(done);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}

/// Rows that were found in an answer of another form, as objects of JSON with the table's columns, in the lake's shape.
///
/// # Errors
/// `invalid`, with the number of the row, and for a column that the table does not have, with this advice.
#[cfg(feature = "http")]
pub(crate) fn of_objects(rows: &[Map<String, Value>], table: &Table, columns: Option<&Schema>, advice: &str) -> Result<Vec<RecordBatch>> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let targets = targets(names.iter().copied(), table, columns, advice)?;
    let mut all = Columns::new(table, targets, "row");
    for (number, row) in (1u64..).zip(rows) {
        let more = row.keys().map(String::as_str).find(|name| !first.contains_key(*name));
        if let Some(odd) = more.or_else(|| names.iter().copied().find(|name| !row.contains_key(*name))) {
            return Err(Error::invalid(format!("rows of different columns: row {number} and the first differ in `{}`", shown(odd))));
        }
        let values: Vec<_> = names.iter().zip(&all.targets).map(|(name, target)| text_of(name, row.get(*name), target)).collect();
        all.add(number, values)?;
    }
    all.finish()
}

/// The rows of batches as objects of JSON, in which instants are texts with their zone.
///
/// # Errors
/// `invalid` if a value cannot be written as JSON.
pub(crate) fn as_json(batches: &[RecordBatch]) -> Result<Vec<Value>> {
    let mut writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, arrow::json::writer::JsonArray>(Vec::new());
    let wrong = |error: arrow::error::ArrowError| Error::invalid("a row cannot be written as JSON for a program").because(error);
    for batch in batches {
        writer.write(batch).map_err(wrong)?;
    }
    writer.finish().map_err(wrong)?;
    let text = writer.into_inner();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&text).map_err(|error| Error::new(ErrorKind::Internal, "rows as JSON cannot be read again").because(error))
}

/// The rows of a batch for which this holds.
///
/// # Errors
/// If they cannot be taken.
pub(crate) fn only(batch: &RecordBatch, keep: Vec<bool>) -> Result<RecordBatch> {
    Ok(arrow::compute::filter_record_batch(batch, &BooleanArray::from(keep))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_is_never_closed_is_found() {
        for whole in ["a,b\n1,2\n", "a,\"b\"\n\"1\n,2\",3\n", "\"a\"\"b\"", "a\"b,c\n", "\"\"\"\"", "\"a\"b\"c\n", ""] {
            refuse_open_quote(whole.as_bytes()).unwrap_or_else(|error| panic!("{whole:?}: {error}"));
        }
        for (open, line) in [("a,b\n1,\"2\n3,4\n", 2), ("\"a\"\"\n", 1), ("\"a\"\n\"", 2), ("a\r\n\r\nb,\"\"\",c", 3)] {
            let error = refuse_open_quote(open.as_bytes()).unwrap_err();
            assert!(error.message().contains(&format!("in line {line} ")), "{open:?}: {error}");
        }
        let error = refuse_open_quote(b"a,b\n1,\"2\n3,\"4\n").unwrap_err();
        assert!(error.message().contains("a quote in line 2 that line 3 closes before a field ends"), "{error}");
    }

    #[test]
    fn words_of_the_table_for_no_value_are_null_in_answers_of_programs() {
        let columns = Schema::new(vec![Field::new("v", DataType::Float64, true), Field::new("note", DataType::Utf8, true)]);
        let mut table = Table::new("t", repair_core::model::Format::Csv, "ts").with_key(["k"]).with_nulls(["N/A"]);
        table.columns.insert("v".to_owned(), repair_core::model::ColumnRule::default().with_nulls(["-"]));
        let csv = "k,ts,v,note\na,2024-03-04T00:00:00Z,-,-\na,2024-03-04T01:00:00Z,N/A,N/A\na,2024-03-04T02:00:00Z,7,x\n";
        let json = "{\"k\":\"a\",\"ts\":\"2024-03-04T00:00:00Z\",\"v\":\"-\",\"note\":\"-\"}\n\
                    {\"k\":\"a\",\"ts\":\"2024-03-04T01:00:00Z\",\"v\":\"N/A\",\"note\":\"N/A\"}\n\
                    {\"k\":\"a\",\"ts\":\"2024-03-04T02:00:00Z\",\"v\":7,\"note\":\"x\"}\n";
        for (format, text) in [(RowFormat::Csv, csv), (RowFormat::Jsonl, json)] {
            let rows = decode(format, text.as_bytes().to_vec(), &table, Some(&columns)).unwrap();
            let values = |name: &str| rows.batches[0].column_by_name(name).unwrap().clone();
            assert_eq!(values("v").as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [None, None, Some(7.0)]);
            assert_eq!(values("note").as_string::<i32>().iter().collect::<Vec<_>>(), [Some("-"), None, Some("x")]);
            table.columns.clear();
            let error = decode(format, text.as_bytes().to_vec(), &table, Some(&columns)).unwrap_err();
            assert!(error.message().contains("add `columns: { v: { nulls: [\"-\"] } }` to the table"), "{error}");
            table.columns.insert("v".to_owned(), repair_core::model::ColumnRule::default().with_nulls(["-"]));
        }
        let none = decode(RowFormat::Csv, csv.replace("a,2024-03-04T02", "N/A,2024-03-04T02").into_bytes(), &table, Some(&columns));
        assert!(none.unwrap_err().message().contains("no `k` in line 4"));
        for (format, text) in [(RowFormat::Csv, csv.replace(",7,", ",1e400,")), (RowFormat::Jsonl, json.replace(":7,", ":\"1e400\","))] {
            let error = decode(format, text.into_bytes(), &table, Some(&columns)).unwrap_err();
            assert!(error.message().contains("a value of `v` that is infinite"), "{error}");
        }
    }

    #[test]
    fn keys_are_found_regardless_of_case_and_no_field_counts_that_is_there_twice() {
        let columns = Schema::new(vec![Field::new("v", DataType::Float64, true)]);
        let table = Table::new("t", repair_core::model::Format::Csv, "ts").with_key(["sensor"]);
        let rows = decode(RowFormat::Csv, b"Sensor,TS,v\na,2024-03-04T00:00:00Z,7\n".to_vec(), &table, Some(&columns)).unwrap();
        let names: Vec<&str> = rows.batches[0].schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["sensor", "ts", "v"]);
        let twice = b"{\"sensor\":\"a\",\"ts\":\"2024-03-04T00:00:00Z\",\"v\":1,\"v\":2}\n".to_vec();
        let error = decode(RowFormat::Jsonl, twice, &table, Some(&columns)).unwrap_err();
        assert_eq!(error.message(), "the field `v` twice in an object of line 1");
        let both = decode(RowFormat::Csv, b"sensor,SENSOR,ts,v\na,b,2024-03-04T00:00:00Z,7\n".to_vec(), &table, Some(&columns));
        assert_eq!(both.unwrap_err().message(), "the column `sensor` twice");
    }

    #[test]
    fn what_a_type_would_keep_a_part_of_is_known() {
        let (decimal, date) = (DataType::Decimal128(10, 2), DataType::Date32);
        for (kind, whole) in [
            (&decimal, &["1.25", "-1.250", "7", "1.5e0", "125e-2", "12.3e1", "+5.0"][..]),
            (&DataType::Float64, &["9007199254740992", "9007199254740994", "0.1", "1e22", "-007", "123456789012"]),
            (&DataType::Float32, &["16777216", "0.1", "3.402823e38", "33554432", "16777216.0"]),
            (&DataType::Float16, &["2048", "2050", "0.1", "-65504", "4096.00"]),
            (&date, &["2024-02-29", "2024-02-29T00:00:00Z", "2024-02-29 00:00:00.000+00:00"]),
            (&DataType::Utf8, &["anything"]),
        ] {
            whole.iter().for_each(|text| assert!(keeps_all_of(kind, text), "{kind} {text}"));
        }
        for (kind, parts) in [
            (&decimal, &["1.239", "-0.005", "1e-3", "1.25e-1"][..]),
            (&DataType::Float64, &["9007199254740993", "-12345678901234567890"]),
            (&DataType::Float32, &["16777217", "16777217.0"]),
            (&DataType::Float16, &["2049", "-2051", "4098", "65503", "2049.0"]),
            (&date, &["2024-02-29T13:00:00Z", "2024-02-29T00:00:00.001Z"]),
        ] {
            parts.iter().for_each(|text| assert!(!keeps_all_of(kind, text), "{kind} {text}"));
        }
    }
}
