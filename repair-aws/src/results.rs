//! Query results as batches: from a page of the API, or from the CSV object that Athena writes.
//!
//! In that object every value is quoted, and a null is empty without quotes. No CSV library that we know distinguishes the two, so it is
//! parsed here.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use repair_core::lake::overlay;
use repair_core::{Error, Result};

use crate::sql::MILLI_US;

/// Rows in a batch.
pub(crate) const BATCH_ROWS: usize = 16_384;

/// No record of a result can be longer, since Athena's rows are at most 32 MB.
const MAX_RECORD_BYTES: usize = 64 << 20;

/// A row of texts; `None` is null.
pub(crate) type Texts = Vec<Option<String>>;

/// How the text of a column is parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As Arrow parses text of that type.
    Cast(DataType),
    /// A whole number of milliseconds since 1970.
    Milliseconds,
}

/// The columns that a result is converted to.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) schema: SchemaRef,
    pub(crate) readings: Vec<Reading>,
}

impl Layout {
    /// Columns that were printed by [`crate::sql`], in the order of a schema; instants come as milliseconds.
    pub(crate) fn of(schema: SchemaRef) -> Self {
        let reading = |field: &Arc<Field>| match field.data_type() {
            DataType::Timestamp(_, _) => Reading::Milliseconds,
            other => Reading::Cast(other.clone()),
        };
        let readings = schema.fields().iter().map(reading).collect();
        Self { schema, readings }
    }

    /// Columns of a user's query, by the types that Athena reports: `(name, type, precision, scale)`.
    pub(crate) fn of_types<'a>(columns: impl IntoIterator<Item = (&'a str, &'a str, i32, i32)>) -> Self {
        let mut fields = Vec::new();
        for (name, kind, precision, scale) in columns {
            let kind = match kind {
                "tinyint" => DataType::Int8,
                "smallint" => DataType::Int16,
                "integer" | "int" => DataType::Int32,
                "bigint" => DataType::Int64,
                "float" | "real" => DataType::Float32,
                "double" => DataType::Float64,
                "boolean" => DataType::Boolean,
                "date" => DataType::Date32,
                "timestamp" => overlay::instant_type(),
                "decimal" => match (u8::try_from(precision), i8::try_from(scale)) {
                    (Ok(precision), Ok(scale)) => DataType::Decimal128(precision, scale),
                    _ => DataType::Utf8,
                },
                _ => DataType::Utf8,
            };
            fields.push(Field::new(name, kind, true));
        }
        let readings = fields.iter().map(|field| Reading::Cast(field.data_type().clone())).collect();
        Self { schema: Arc::new(Schema::new(fields)), readings }
    }

    /// A batch of rows.
    ///
    /// # Errors
    /// `invalid` if a value does not have its type.
    pub(crate) fn batch(&self, rows: Vec<Texts>) -> Result<RecordBatch> {
        let count = rows.len();
        let width = self.readings.len();
        let mut columns: Vec<Vec<Option<String>>> = (0..width).map(|_| Vec::with_capacity(count)).collect();
        for row in rows {
            if row.len() != width {
                return Err(Error::invalid(format!("a row of a result has {} values, and {width} were selected", row.len())));
            }
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
        }
        let mut arrays = Vec::with_capacity(width);
        for ((texts, reading), field) in columns.into_iter().zip(&self.readings).zip(self.schema.fields()) {
            let array = read(texts, reading).map_err(|error| {
                Error::invalid(format!("column `{}` of a result is not of the type {}", field.name(), field.data_type())).because(error)
            })?;
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

fn read(texts: Vec<Option<String>>, reading: &Reading) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let texts: ArrayRef = Arc::new(StringArray::from(texts));
    Ok(match reading {
        Reading::Cast(DataType::Utf8) => texts,
        Reading::Cast(DataType::Timestamp(TimeUnit::Microsecond, Some(zone))) => {
            let plain = cast_with_options(&texts, &DataType::Timestamp(TimeUnit::Microsecond, None), &strict)?;
            let plain = plain.as_any().downcast_ref::<TimestampMicrosecondArray>().ok_or_else(|| Error::internal("not times"))?;
            Arc::new(plain.clone().with_timezone(zone.clone()))
        }
        Reading::Cast(kind) => cast_with_options(&texts, kind, &strict)?,
        Reading::Milliseconds => {
            let milliseconds = cast_with_options(&texts, &DataType::Int64, &strict)?;
            let milliseconds = milliseconds.as_any().downcast_ref::<Int64Array>().ok_or_else(|| Error::internal("not whole numbers"))?;
            let times: TimestampMicrosecondArray = milliseconds.unary(|ms| ms.saturating_mul(MILLI_US));
            Arc::new(times.with_timezone("UTC"))
        }
    })
}

/// Parses Athena's CSV as its bytes come.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    value: Vec<u8>,
    quoted: bool,
    inside: bool,
    /// A quote inside quotes: either the end of the value, or the first half of an escaped quote.
    pending: bool,
    row: Texts,
    begun: bool,
    bytes: usize,
}

impl Reader {
    /// Takes more bytes, and returns the rows that are complete.
    ///
    /// # Errors
    /// `invalid` if the text is not UTF-8, or a row does not end.
    pub(crate) fn feed(&mut self, bytes: &[u8], rows: &mut Vec<Texts>) -> Result<()> {
        for &byte in bytes {
            self.bytes += 1;
            if self.bytes > MAX_RECORD_BYTES {
                return Err(Error::invalid("a row of a result has no end"));
            }
            self.begun = true;
            if self.inside {
                match (self.pending, byte) {
                    (false, b'"') => self.pending = true,
                    (true, b'"') => {
                        self.value.push(b'"');
                        self.pending = false;
                    }
                    (false, _) => self.value.push(byte),
                    (true, _) => {
                        (self.pending, self.inside) = (false, false);
                        self.outside(byte, rows)?;
                    }
                }
            } else {
                self.outside(byte, rows)?;
            }
        }
        Ok(())
    }

    fn outside(&mut self, byte: u8, rows: &mut Vec<Texts>) -> Result<()> {
        match byte {
            b'"' if self.value.is_empty() && !self.quoted => (self.inside, self.quoted) = (true, true),
            b',' => self.end_value()?,
            b'\n' => self.end_row(rows)?,
            b'\r' => {}
            _ => self.value.push(byte),
        }
        Ok(())
    }

    fn end_value(&mut self) -> Result<()> {
        let value =
            String::from_utf8(std::mem::take(&mut self.value)).map_err(|error| Error::invalid("a result is not UTF-8").because(error))?;
        self.row.push((self.quoted || !value.is_empty()).then_some(value));
        self.quoted = false;
        Ok(())
    }

    fn end_row(&mut self, rows: &mut Vec<Texts>) -> Result<()> {
        self.end_value()?;
        rows.push(std::mem::take(&mut self.row));
        (self.begun, self.bytes) = (false, 0);
        Ok(())
    }

    /// The last row, if the object does not end with a line end.
    ///
    /// # Errors
    /// `invalid` if it ends within a value.
    pub(crate) fn finish(mut self, rows: &mut Vec<Texts>) -> Result<()> {
        if self.inside && !self.pending {
            return Err(Error::invalid("a result breaks off within a value"));
        }
        if self.begun { self.end_row(rows) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, cut: usize) -> Vec<Texts> {
        let (mut reader, mut rows) = (Reader::default(), Vec::new());
        for part in text.as_bytes().chunks(cut) {
            reader.feed(part, &mut rows).unwrap();
        }
        reader.finish(&mut rows).unwrap();
        rows
    }

    #[test]
    fn a_null_is_not_an_empty_text_wherever_the_bytes_are_cut() {
        let text = "\"a\",\"b\"\n\"\",\n,\"say \"\"no\"\", twice\"\n\"two\nlines\",\"é\"\n\"last\",\"\"";
        let some = |text: &str| Some(text.to_owned());
        let expected = vec![
            vec![some("a"), some("b")],
            vec![some(""), None],
            vec![None, some("say \"no\", twice")],
            vec![some("two\nlines"), some("é")],
            vec![some("last"), some("")],
        ];
        for cut in 1..12 {
            assert_eq!(rows(text, cut), expected, "cut every {cut} bytes");
        }
        assert!(rows("", 1).is_empty());
        let mut reader = Reader::default();
        reader.feed(b"\"broken", &mut Vec::new()).unwrap();
        assert!(reader.finish(&mut Vec::new()).is_err());
    }

    #[test]
    fn texts_become_values_of_their_types() {
        let layout = Layout::of_types([
            ("n", "bigint", 19, 0),
            ("x", "double", 17, 0),
            ("d", "decimal", 10, 2),
            ("t", "timestamp", 3, 0),
            ("b", "boolean", 0, 0),
            ("s", "varchar", 0, 0),
        ]);
        let row = ["7", "1.0E7", "12.50", "2024-03-04 09:00:00.125", "true", "x"].map(|text| Some(text.to_owned()));
        let batch = layout
            .batch(vec![
                row.to_vec(),
                vec![None; 6],
                [Some("1"), Some("Infinity"), None, None, None, Some("")].map(|v| v.map(str::to_owned)).to_vec(),
            ])
            .unwrap();
        let shown = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
        for part in ["10000000.0", "12.50", "2024-03-04T09:00:00.125Z", "true", "inf"] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        let odd = layout.batch(vec![[Some("seven"), None, None, None, None, None].map(|v| v.map(str::to_owned)).to_vec()]).unwrap_err();
        assert!(odd.message().contains("column `n`"), "{odd}");
    }
}
