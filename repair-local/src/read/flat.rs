//! Decodes lines of JSON that hold one flat object each, as Arrow's decoder does, and leaves every other line to it: with nested values,
//! escapes, numbers in an unusual form, a key twice, or a value of another type than the column.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use repair_core::Result;

use super::texts::Texts;
use super::{marks, text};

/// Objects with more different keys than this hold data in their keys, and are left to Arrow.
const MOST_KEYS: usize = 1_000;

/// What a column is decoded to.
enum Column {
    /// Text as it is written: of numbers and truth values, too.
    Text(Texts),
    Float(Float64Builder),
    Boolean(BooleanBuilder),
}

impl Column {
    /// `None` if columns of this type are not decoded here.
    fn of(kind: &DataType, rows: usize) -> Option<Self> {
        Some(match kind {
            DataType::Utf8 => Self::Text(Texts::with_capacity(rows)),
            DataType::Float64 => Self::Float(Float64Builder::with_capacity(rows)),
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            _ => return None,
        })
    }

    /// Appends a value; `None` if it is of another type.
    #[inline]
    fn push(&mut self, line: &[u8], value: &Value) -> Option<()> {
        match (self, value) {
            (Self::Text(texts), Value::Null) => texts.push_null(),
            (Self::Text(texts), Value::Text(range) | Value::Number(range)) => texts.push(line.get(range.clone())?),
            (Self::Text(texts), Value::Boolean(value)) => texts.push(if *value { b"true" } else { b"false" }),
            (Self::Float(floats), Value::Null) => floats.append_null(),
            (Self::Float(floats), Value::Number(range)) => {
                let number = std::str::from_utf8(line.get(range.clone())?).ok()?;
                // One that would lose digits is for whoever says so.
                floats.append_value(text::exact_float(number).filter(|float| float.is_finite())?);
            }
            (Self::Boolean(values), Value::Null) => values.append_null(),
            (Self::Boolean(values), Value::Boolean(value)) => values.append_value(*value),
            _ => return None,
        }
        Some(())
    }

    fn finish(self) -> Result<ArrayRef> {
        Ok(match self {
            Self::Text(texts) => Arc::new(texts.finish()?),
            Self::Float(mut floats) => Arc::new(floats.finish()),
            Self::Boolean(mut values) => Arc::new(values.finish()),
        })
    }
}

/// A value of a line; of text and numbers, where they are.
#[derive(Clone)]
enum Value {
    Null,
    Boolean(bool),
    Number(Range<usize>),
    Text(Range<usize>),
}

/// Decodes flat objects.
pub(super) struct Flat {
    schema: SchemaRef,
    /// Keys of lines, in the order in which they came first, with their closing quote, and the column that each is of.
    keys: Vec<(Vec<u8>, Option<usize>)>,
    /// The values of a line, by column.
    values: Vec<Option<Value>>,
}

impl Flat {
    /// `None` if a column has a type that is not decoded here.
    pub(super) fn of(schema: &SchemaRef) -> Option<Self> {
        let known = schema.fields().iter().all(|field| field.is_nullable() && Column::of(field.data_type(), 0).is_some());
        known.then(|| Self { schema: schema.clone(), keys: Vec::new(), values: Vec::new() })
    }

    /// Decodes lines, given where each ends; `None` if one of them is not a flat object.
    pub(super) fn decode(&mut self, bytes: &[u8], ends: impl ExactSizeIterator<Item = usize>) -> Option<RecordBatch> {
        std::str::from_utf8(bytes).ok()?;
        let rows = ends.len();
        let schema = self.schema.clone();
        let mut columns: Vec<Column> = schema.fields().iter().map(|field| Column::of(field.data_type(), rows)).collect::<Option<_>>()?;
        let mut start = 0;
        for end in ends {
            let line = bytes.get(start..end)?;
            self.line(line)?;
            for (column, value) in columns.iter_mut().zip(&self.values) {
                column.push(line, value.as_ref().unwrap_or(&Value::Null))?;
            }
            start = end;
        }
        let columns: Vec<ArrayRef> = columns.into_iter().map(Column::finish).collect::<Result<_>>().ok()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).ok()
    }

    /// Finds the values of a line.
    #[inline]
    fn line(&mut self, line: &[u8]) -> Option<()> {
        self.values.clear();
        self.values.resize(self.schema.fields().len(), None);
        let mut at = expect(line, blank(line, 0), b'{')?;
        at = blank(line, at);
        if line.get(at) == Some(&b'}') {
            return only_blank(line, at + 1);
        }
        let mut next = 0;
        loop {
            at = expect(line, at, b'"')?;
            let (number, column) = self.key(line, at, next)?;
            (next, at) = (number + 1, at + self.keys[number].0.len());
            at = blank(line, expect(line, blank(line, at), b':')?);
            let value;
            (value, at) = parse(line, at)?;
            if let Some(column) = column
                && self.values.get_mut(column)?.replace(value).is_some()
            {
                return None;
            }
            at = blank(line, at);
            match line.get(at)? {
                b',' => at = blank(line, at + 1),
                b'}' => return only_blank(line, at + 1),
                _ => return None,
            }
        }
    }

    /// The number of a key, and its column. Mostly lines have the same keys in the same order.
    #[inline]
    fn key(&mut self, line: &[u8], at: usize, guess: usize) -> Option<(usize, Option<usize>)> {
        let rest = line.get(at..)?;
        if let Some((key, column)) = self.keys.get(guess)
            && rest.starts_with(key)
        {
            return Some((guess, *column));
        }
        if let Some(number) = self.keys.iter().position(|(key, _)| rest.starts_with(key)) {
            return Some((number, self.keys[number].1));
        }
        if self.keys.len() >= MOST_KEYS {
            return None;
        }
        let end = string(line, at)?;
        let name = std::str::from_utf8(line.get(at..end)?).ok()?;
        let column = self.schema.index_of(name).ok();
        self.keys.push((line.get(at..=end)?.to_vec(), column));
        Some((self.keys.len() - 1, column))
    }
}

#[inline]
fn expect(line: &[u8], at: usize, byte: u8) -> Option<usize> {
    (line.get(at) == Some(&byte)).then_some(at + 1)
}

/// The place after blanks.
#[inline]
fn blank(line: &[u8], mut at: usize) -> usize {
    while matches!(line.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

fn only_blank(line: &[u8], at: usize) -> Option<()> {
    (blank(line, at) == line.len()).then_some(())
}

/// Where the quote is that closes a string without escapes.
#[inline]
fn string(line: &[u8], from: usize) -> Option<usize> {
    marks::find(line, from, [b'"', b'\\']).filter(|&end| line[end] == b'"')
}

/// A value that is not nested, and where it ends.
#[inline]
fn parse(line: &[u8], at: usize) -> Option<(Value, usize)> {
    let rest = line.get(at..)?;
    Some(match rest.first()? {
        b'"' => {
            let end = string(line, at + 1)?;
            (Value::Text(at + 1..end), end + 1)
        }
        b'-' | b'0'..=b'9' => {
            let end = at + number(rest)?;
            (Value::Number(at..end), end)
        }
        b't' if rest.starts_with(b"true") => (Value::Boolean(true), at + 4),
        b'f' if rest.starts_with(b"false") => (Value::Boolean(false), at + 5),
        b'n' if rest.starts_with(b"null") => (Value::Null, at + 4),
        _ => return None,
    })
}

/// The length of a number, as RFC 8259 has them.
#[inline]
fn number(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| -> usize { text.get(from..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count() };
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use arrow::datatypes::{Field, Schema};
    use arrow::json::ReaderBuilder;
    use proptest::prelude::*;

    use super::*;

    fn schema() -> SchemaRef {
        let field = |name: &str, kind| Field::new(name, kind, true);
        Arc::new(Schema::new(vec![field("a", DataType::Utf8), field("b", DataType::Float64), field("c é", DataType::Boolean)]))
    }

    fn theirs(text: &str) -> Option<RecordBatch> {
        let mut decoder = ReaderBuilder::new(schema()).with_coerce_primitive(true).with_batch_size(1_000).build_decoder().unwrap();
        decoder.decode(text.as_bytes()).ok()?;
        decoder.flush().ok()?
    }

    fn ours(lines: &[String]) -> Option<RecordBatch> {
        let mut end = 0;
        let ends: Vec<usize> = lines
            .iter()
            .map(|line| {
                end += line.len();
                end
            })
            .collect();
        Flat::of(&schema()).unwrap().decode(lines.concat().as_bytes(), ends.into_iter())
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "\"[a-z é\u{1}]{0,12}\"",
            4 => "-?(0|[1-9][0-9]{0,18})([.][0-9]{1,9})?([eE][+-]?[0-9]{1,3})?",
            4 => prop::sample::select(vec!["true", "false", "null", "\"1.5\""]).prop_map(str::to_owned),
            1 => prop::sample::select(vec!["{}", "[1]", "{\"a\": 1}", "01", "1.", "\"\\n\"", "-", "nul", "truex", "NaN"]).prop_map(str::to_owned),
        ]
    }

    fn line() -> impl Strategy<Value = String> {
        let key =
            prop_oneof![6 => Just("a"), 6 => Just("b"), 6 => Just("c é"), 3 => Just("other"), 1 => Just("\\u0061")].prop_map(str::to_owned);
        let space = || prop::sample::select(vec!["", "", " ", "\t"]);
        let pair = (key, value(), space(), space(), space())
            .prop_map(|(key, value, one, two, three)| format!("{one}\"{key}\"{two}:{three}{value}{one}"));
        let end = prop::sample::select(vec!["\n", "\r\n", " \n", ",\n", "{}\n"]);
        (proptest::collection::vec(pair, 0..4), prop_oneof![9 => Just("\n"), 1 => end])
            .prop_map(|(pairs, end)| format!("{{{}}}{end}", pairs.join(",")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn what_is_decoded_is_what_arrow_decodes(lines in proptest::collection::vec(line(), 1..4)) {
            if let Some(batch) = ours(&lines) {
                prop_assert_eq!(Some(batch), theirs(&lines.concat()));
            }
        }
    }

    #[test]
    fn flat_lines_are_decoded_here() {
        let lines = ["{\"a\": \"x\", \"b\": -1.5e3, \"other\": 1}\n", "{ \"c é\" : true , \"a\" : 7.50 }\r\n", "{}\n"].map(str::to_owned);
        let batch = ours(&lines).unwrap();
        assert_eq!(Some(&batch), theirs(&lines.concat()).as_ref());
        assert_eq!((batch.num_rows(), batch.column(0).null_count()), (3, 1));
        for other in
            ["{\"a\": {}}\n", "{\"a\": 1, \"a\": 2}\n", "{\"b\": \"1\"}\n", "{\"a\": \"\\n\"}\n", "{} {}\n", "[1]\n", "{\"a\": 1\n"]
        {
            assert_eq!(ours(&[other.to_owned()]), None, "{other}");
        }
    }
}
