//! A column of texts that grows.

use arrow::array::{NullBufferBuilder, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use repair_core::{Error, Result};

/// A column of texts that grows. What is pushed is checked at the end, all at once.
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Texts {
    pub(super) fn with_capacity(rows: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self { bytes: Vec::with_capacity(rows * 8), ends, nulls: NullBufferBuilder::new(rows) }
    }

    #[inline]
    pub(super) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.end();
        self.nulls.append_non_null();
    }

    /// The same of a text of so many of these bytes.
    #[inline]
    pub(super) fn push_short<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        let end = self.bytes.len() + length;
        // To copy always as many is faster than to call for it.
        self.bytes.extend_from_slice(bytes);
        self.bytes.truncate(end);
        self.end();
        self.nulls.append_non_null();
    }

    #[inline]
    pub(super) fn push_null(&mut self) {
        self.end();
        self.nulls.append_null();
    }

    #[inline]
    fn end(&mut self) {
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    /// Takes back all texts after so many.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.bytes.truncate(self.ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0));
        self.nulls.truncate(rows);
    }

    /// The column.
    ///
    /// # Errors
    /// `invalid` if it is not UTF-8.
    pub(super) fn finish(mut self) -> Result<StringArray> {
        if self.bytes.len() > i32::MAX.unsigned_abs() as usize {
            return Err(Error::invalid("rows that follow each other hold more than 2 GiB of text in one column"));
        }
        let ends = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        Ok(StringArray::try_new(ends, Buffer::from_vec(self.bytes), self.nulls.finish())?)
    }
}
