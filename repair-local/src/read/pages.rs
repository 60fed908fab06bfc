//! Looks at each page of a Parquet file before it is decompressed. A page of some bytes may claim to hold gigabytes, and its decoder believes it.
//!
//! What real data compress to is not limited: memory then follows the size of the file. What a page claims beyond that is.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use parquet::arrow::ProjectionMask;
use parquet::basic::{Compression, Encoding, Type as Physical};
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use super::parquet::{Shared, Tail};

/// What pages may hold in memory at once beyond what real data compress to; and what the pages of one batch may hold before batches get
/// smaller.
const BUDGET: u64 = 256 << 20;

/// Real data rarely take more memory than this many times their compressed size.
const RATIO: u64 = 64;

/// What the values of one batch may take that come from dictionaries, where a value of any length costs a few bits for each row.
const EXPANDED: u64 = 64 << 20;

/// Gzip makes at most this many bytes of one.
const GZIP_RATIO: u64 = 1_032;

/// What a value of a nested column costs apart from its bytes: its levels, and its place in a list.
const NESTED_VALUE: u64 = 16;

/// The largest header of a page. It may hold a least and a greatest value.
const MAX_HEADER: usize = 16 << 20;

/// Why the reader stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The batch takes too much memory; with fewer rows, it may not.
    SmallerBatch,
    /// The file cannot be read in bounded memory.
    Refused(String),
}

/// A column of a row group.
#[derive(Clone)]
struct Chunk {
    group: usize,
    leaf: usize,
    from: u64,
    to: u64,
    name: String,
    is_gzip: bool,
    is_nested: bool,
    /// Whether pages may hold lengths as differences: [`Pages::check_lengths`] has looked at these.
    has_lengths: bool,
    /// The fewest bits that a value of its dictionary takes in the file.
    least_bits: u64,
    /// The longest value of its dictionary.
    longest: u64,
}

/// What a page takes in memory, and how much of it is more than real data take.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    bytes: u64,
    excess: u64,
}

/// A page whose header was read.
#[derive(Debug, Clone, Copy)]
struct Announced {
    data: u64,
    head: Head,
    cost: Cost,
}

#[derive(Default)]
struct State {
    announced: HashMap<usize, Announced>,
    /// The dictionary and the current page of each column, whichever row group it is in.
    held: HashMap<usize, [Cost; 2]>,
    /// The pages that ended within the current batch.
    ended: Cost,
    stopped: Option<Stopped>,
}

/// A file whose pages are looked at. A clone is the same reader.
#[derive(Clone)]
pub(super) struct Pages {
    file: Shared,
    chunks: Arc<Vec<Chunk>>,
    state: Arc<Mutex<State>>,
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Pages {
    type T = BufReader<Tail>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let (at, chunk) = self.chunk(start)?;
        // A header that was read ahead is not read again.
        let is_data = self.state().announced.get(&at).is_some_and(|announced| announced.data == start);
        if !is_data {
            self.announce(at, chunk, start)?;
        }
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.file.get_bytes(start, length)?;
        let (at, chunk) = self.chunk(start)?;
        let announced = self.state().announced.get(&at).copied().filter(|announced| announced.data == start);
        if let Some(announced) = announced {
            self.admit(chunk, announced, &bytes)?;
        }
        Ok(bytes)
    }
}

/// An error of the decoder, and why it was stopped, if it was.
pub(super) type Failure = (ParquetError, Option<Stopped>);

impl Pages {
    /// Prepares to read columns of row groups, and finds how many rows a batch may have, at most `most`.
    pub(super) fn new(
        file: &Shared,
        metadata: &ParquetMetaData,
        mask: &ProjectionMask,
        groups: &[usize],
        most: usize,
    ) -> Result<(Self, usize), Failure> {
        let mut chunks = Vec::new();
        for &group in groups {
            for (leaf, column) in metadata.row_group(group).columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf)) {
                // Offsets that are negative are refused by the decoder.
                let first = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
                let (Ok(from), Ok(bytes)) = (u64::try_from(first), u64::try_from(column.compressed_size())) else { continue };
                let described = column.column_descr();
                chunks.push(Chunk {
                    group,
                    leaf,
                    from,
                    to: from.saturating_add(bytes),
                    name: described.path().string(),
                    is_gzip: matches!(column.compression(), Compression::GZIP(_)),
                    is_nested: described.max_rep_level() > 0,
                    has_lengths: column.encodings().any(has_lengths),
                    least_bits: least_bits(described.physical_type(), described.type_length()),
                    longest: 0,
                });
            }
        }
        chunks.sort_by_key(|chunk| chunk.from);
        let mut pages = Self { file: file.clone(), chunks: Arc::new(chunks), state: Arc::default() };
        let mut widest: HashMap<usize, u64> = HashMap::new();
        let mut chunks = pages.chunks.as_ref().clone();
        for chunk in &mut chunks {
            chunk.longest = pages.longest(metadata, chunk).map_err(|error| (error, pages.stopped()))?;
            if chunk.has_lengths {
                pages = pages.again();
                let group = metadata.row_group(chunk.group);
                pages.check_lengths(group.column(chunk.leaf), group.num_rows()).map_err(|error| (error, pages.stopped()))?;
            }
            *widest.entry(chunk.group).or_default() += chunk.longest;
            pages = pages.again();
        }
        pages.chunks = Arc::new(chunks);
        let widest = widest.into_values().max().unwrap_or(0).max(1);
        let rows = usize::try_from(EXPANDED / widest).unwrap_or(most).clamp(1, most);
        Ok((pages, rows))
    }

    /// The same file, of which no page has been read.
    pub(super) fn again(&self) -> Self {
        Self { state: Arc::default(), ..self.clone() }
    }

    /// A batch is complete, and its rows go their way.
    pub(super) fn batch_ended(&self) {
        self.state().ended = Cost::default();
    }

    /// Why the reader stopped, if a page was the reason.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.state().stopped.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The column that has a page at a position.
    fn chunk(&self, at: u64) -> parquet::errors::Result<(usize, &Chunk)> {
        let index = self.chunks.partition_point(|chunk| chunk.from <= at).checked_sub(1);
        let chunk = index.and_then(|index| Some((index, self.chunks.get(index)?))).filter(|(_, chunk)| at < chunk.to);
        chunk.ok_or_else(|| ParquetError::General(format!("there is no page of its columns at {at}")))
    }

    /// The longest value in the dictionary of a column; 0 if it has none, or if its values all have few bytes.
    fn longest(&self, metadata: &ParquetMetaData, chunk: &Chunk) -> parquet::errors::Result<u64> {
        let column = metadata.row_group(chunk.group).column(chunk.leaf);
        match column.column_descr().physical_type() {
            Physical::FIXED_LEN_BYTE_ARRAY => return Ok(u64::try_from(column.column_descr().type_length()).unwrap_or(0)),
            Physical::BYTE_ARRAY => {}
            _ => return Ok(0),
        }
        // What cannot be understood is refused when it is read.
        if !self.head(chunk.from).is_ok_and(|(head, _)| head.kind == DICTIONARY_PAGE) {
            return Ok(0);
        }
        let mut reader = SerializedPageReader::new(Arc::new(self.clone()), column, 0, None)?;
        let Some(Page::DictionaryPage { buf, .. }) = reader.get_next_page()? else { return Ok(0) };
        let (mut rest, mut longest) = (buf.as_ref(), 0);
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length);
            longest = longest.max(u64::from(length));
            rest = usize::try_from(length).ok().and_then(|length| after.get(length..)).unwrap_or_default();
        }
        Ok(longest)
    }

    /// Checks how many lengths the pages of a column say that they have. Their decoder makes room for so many before it reads one, and a program without
    /// memory is ended.
    fn check_lengths(&self, column: &ColumnChunkMetaData, rows: i64) -> parquet::errors::Result<()> {
        let mut reader = SerializedPageReader::new(Arc::new(self.clone()), column, usize::try_from(rows).unwrap_or(0), None)?;
        while let Some(page) = reader.get_next_page()? {
            // Each page is looked at alone, and not kept.
            self.batch_ended();
            let (encoding, values) = (page.encoding(), u64::from(page.num_values()));
            let levels = match &page {
                _ if !has_lengths(encoding) => continue,
                Page::DictionaryPage { .. } => continue,
                Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                    Some(u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len))
                }
                Page::DataPage { buf, .. } => {
                    let described = column.column_descr();
                    let levels = [described.max_rep_level(), described.max_def_level()];
                    levels.into_iter().filter(|most| *most > 0).try_fold(0u64, |at, _| {
                        let length = buf.get(usize::try_from(at).ok()?..)?.first_chunk::<4>()?;
                        Some(at + 4 + u64::from(u32::from_le_bytes(*length)))
                    })
                }
            };
            let rest = levels.and_then(|levels| page.buffer().get(usize::try_from(levels).ok()?..)).unwrap_or_default();
            // Nothing at all says no number. Whether it is right, the decoder knows.
            if rest.is_empty() {
                continue;
            }
            let mut thrift = Thrift { rest };
            // Of values with a common beginning, there are the lengths of that, and of the rest.
            for _ in 0..if encoding == Encoding::DELTA_BYTE_ARRAY { 2 } else { 1 } {
                if thrift.differences(values).is_none() {
                    return Err(ParquetError::General(format!(
                        "a page of column `{}` does not have the lengths of its {values} values",
                        column.column_descr().path().string()
                    )));
                }
            }
        }
        Ok(())
    }

    /// The header of the page that begins at a position, and its length.
    fn head(&self, start: u64) -> parquet::errors::Result<(Head, usize)> {
        let mut most = 512;
        loop {
            let mut bytes = Vec::new();
            self.file.get_read(start)?.take(most as u64).read_to_end(&mut bytes)?;
            match Head::parse(&bytes) {
                Some(parsed) => return Ok(parsed),
                None if bytes.len() < most || most >= MAX_HEADER => {
                    return Err(ParquetError::General(format!("the header of the page at {start} is not one")));
                }
                None => most *= 16,
            }
        }
    }

    /// Notes what the page that begins at a position will take.
    fn announce(&self, at: usize, chunk: &Chunk, start: u64) -> parquet::errors::Result<()> {
        let (head, length) = self.head(start)?;
        if head.has_lengths() && !chunk.has_lengths {
            return Err(ParquetError::General(format!("the page at {start} is encoded in a way that its column is not")));
        }
        let mut bytes = head.uncompressed;
        // Its decoder makes room for so many values before it reads one, and a program without memory is ended.
        if head.kind == DICTIONARY_PAGE && head.values.saturating_mul(chunk.least_bits) > head.uncompressed.saturating_mul(8) {
            return Err(ParquetError::General(format!(
                "the dictionary of column `{}` does not have the {} values that it says it has",
                chunk.name, head.values
            )));
        }
        if head.kind != DICTIONARY_PAGE {
            // Lengths that are stored as differences are computed for all values of a page at once.
            let a_value = if chunk.is_nested { NESTED_VALUE + chunk.longest } else { 8 * u64::from(head.is_delta()) };
            bytes = bytes.saturating_add(head.values.saturating_mul(a_value));
        }
        let cost = Cost { bytes, excess: bytes.saturating_sub(head.compressed.saturating_mul(RATIO)) };
        self.state().announced.insert(at, Announced { data: start + length as u64, head, cost });
        Ok(())
    }

    /// Lets a page be decompressed, if there is room for it.
    fn admit(&self, chunk: &Chunk, page: Announced, bytes: &[u8]) -> parquet::errors::Result<()> {
        let mut state = self.state();
        let before = state.held.get(&chunk.leaf).copied().unwrap_or_default();
        let is_dictionary = page.head.kind == DICTIONARY_PAGE;
        let ended = if is_dictionary { &before[..] } else { &before[1..] };
        for cost in ended {
            state.ended.bytes = state.ended.bytes.saturating_add(cost.bytes);
            state.ended.excess = state.ended.excess.saturating_add(cost.excess);
        }
        state.held.insert(chunk.leaf, if is_dictionary { [page.cost, Cost::default()] } else { [before[0], page.cost] });
        let held = state.held.values().flatten().fold(0, |sum: u64, cost| sum.saturating_add(cost.excess));
        let smaller = state.ended.bytes > BUDGET || held.saturating_add(state.ended.excess) > BUDGET;
        let more = chunk.is_gzip
            && head_of_gzip(&page, bytes).is_some_and(|packed| {
                // Its decoder would not stop where the header says that the page ends.
                packed.len() as u64 > BUDGET / GZIP_RATIO && makes_more_than(packed, page.head.uncompressed)
            });
        if held > BUDGET || more {
            let (name, claimed, packed) = (&chunk.name, page.cost.bytes >> 20, page.head.compressed >> 10);
            let what = if more { "makes more than its header says".to_owned() } else { format!("would take {claimed} MiB of memory") };
            state.stopped = Some(Stopped::Refused(format!(
                "a page of column `{name}` has {packed} KiB in the file and {what}, which is more than data take; if the file is right, write it \
                 again with smaller pages (`data_page_size`)"
            )));
        } else if smaller {
            state.stopped = Some(Stopped::SmallerBatch);
        } else {
            return Ok(());
        }
        Err(ParquetError::General("the pages take too much memory".to_owned()))
    }
}

/// The fewest bits of a value in a dictionary, where all are written one after the other.
/// (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>)
fn least_bits(kind: Physical, length: i32) -> u64 {
    8 * match kind {
        Physical::BOOLEAN => return 1,
        // A text has its length before it.
        Physical::INT32 | Physical::FLOAT | Physical::BYTE_ARRAY => 4,
        Physical::INT64 | Physical::DOUBLE => 8,
        Physical::INT96 => 12,
        Physical::FIXED_LEN_BYTE_ARRAY => u64::try_from(length).unwrap_or(0),
    }
}

/// The compressed part of a page.
fn head_of_gzip<'a>(page: &Announced, bytes: &'a [u8]) -> Option<&'a [u8]> {
    if page.head.is_plain { None } else { bytes.get(usize::try_from(page.head.levels).ok()?..) }
}

/// Whether a page unpacks to more bytes than that.
fn makes_more_than(packed: &[u8], most: u64) -> bool {
    let made = std::io::copy(&mut MultiGzDecoder::new(packed).take(most + 1), &mut std::io::sink());
    made.is_ok_and(|made| made > most)
}

const DICTIONARY_PAGE: u64 = 2;

/// What the header of a page says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Head {
    kind: u64,
    uncompressed: u64,
    compressed: u64,
    values: u64,
    encoding: u64,
    /// The bytes of levels before what is compressed.
    levels: u64,
    /// Whether the page is not compressed, although its column is.
    is_plain: bool,
}

impl Head {
    /// The encodings `DELTA_BINARY_PACKED`, `DELTA_LENGTH_BYTE_ARRAY` and `DELTA_BYTE_ARRAY`.
    fn is_delta(&self) -> bool {
        (5..=7).contains(&self.encoding)
    }

    /// As [`has_lengths`].
    fn has_lengths(&self) -> bool {
        self.kind != DICTIONARY_PAGE && (6..=7).contains(&self.encoding)
    }

    /// Reads a header in Thrift's compact protocol, and how many bytes it has; `None` if it is not whole.
    /// (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>)
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut head = Self::default();
        let mut thrift = Thrift { rest: bytes };
        thrift.fields(0, &mut |outer, inner, value| match (outer, inner) {
            (1, 0) => head.kind = value,
            (2, 0) => head.uncompressed = value,
            (3, 0) => head.compressed = value,
            (5 | 7 | 8, 1) => head.values = value,
            (5, 2) | (8, 4) => head.encoding = value,
            (8, 5 | 6) => head.levels = head.levels.saturating_add(value),
            (8, 7) => head.is_plain = value == 0,
            _ => {}
        })?;
        Some((head, bytes.len() - thrift.rest.len()))
    }
}

/// Whether values are stored with their lengths before them, as differences.
fn has_lengths(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY)
}

/// How deep the values of a header may nest. Its statistics are two levels deep.
const MAX_DEPTH: u32 = 8;

/// Reads values in Thrift's compact protocol.
struct Thrift<'a> {
    rest: &'a [u8],
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Goes over numbers that are stored as differences (`DELTA_BINARY_PACKED`); `None` if there are more than `most`, or not as many as they say.
    /// (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>)
    fn differences(&mut self, most: u64) -> Option<()> {
        let (block, parts, count, _) = (self.varint()?, self.varint()?, self.varint()?, self.varint()?);
        if count > most || parts == 0 || block == 0 || !block.is_multiple_of(parts) {
            return None;
        }
        let in_part = block / parts;
        // The first number is in the header.
        let mut left = count.saturating_sub(1);
        while left > 0 {
            self.varint()?;
            let widths = self.rest.get(..usize::try_from(parts).ok()?)?;
            self.skip(parts)?;
            for width in widths {
                if left == 0 {
                    break;
                }
                // The last part may be cut where its numbers end.
                let bytes = u64::from(*width).checked_mul(in_part)?.div_ceil(8);
                let there = self.rest.len() as u64;
                let needed = u64::from(*width).checked_mul(left.min(in_part))?.div_ceil(8);
                self.skip(if there < bytes && there >= needed { there } else { bytes })?;
                left -= left.min(in_part);
            }
        }
        Some(())
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    /// Reads the fields of a struct. Whole numbers and truth values that are its own, or those of a struct within it, are reported with the ids
    /// of the fields.
    fn fields(&mut self, outer: i16, found: &mut dyn FnMut(i16, i16, u64)) -> Option<()> {
        self.fields_at(0, outer, found)
    }

    fn fields_at(&mut self, depth: u32, outer: i16, found: &mut dyn FnMut(i16, i16, u64)) -> Option<()> {
        let mut id = 0i16;
        loop {
            let field = self.byte()?;
            if field == 0 {
                return Some(());
            }
            id = match field >> 4 {
                0 => i16::try_from(unzigzag(self.varint()?)).ok()?,
                delta => id.checked_add(i16::from(delta))?,
            };
            let ids = if depth == 0 { (id, 0) } else { (outer, id) };
            self.value(field & 0x0f, depth, ids, found)?;
        }
    }

    fn value(&mut self, kind: u8, depth: u32, ids: (i16, i16), found: &mut dyn FnMut(i16, i16, u64)) -> Option<()> {
        let report = depth < 2;
        match kind {
            1 | 2 => {
                if report {
                    found(ids.0, ids.1, u64::from(kind == 1));
                }
            }
            3 => self.skip(1)?,
            4..=6 => {
                let value = self.varint()?;
                // The decoder would cut what is longer than its type, and see another number.
                if kind < 6 && value > u64::from(if kind == 4 { u32::from(u16::MAX) } else { u32::MAX }) {
                    return None;
                }
                let value = unzigzag(value);
                if report {
                    // A number below zero is refused by the decoder.
                    found(ids.0, ids.1, u64::try_from(value).unwrap_or(0));
                }
            }
            7 => self.skip(8)?,
            8 => {
                let length = self.varint()?;
                self.skip(length)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.items(head & 0x0f, count, depth)?;
            }
            12 if depth < MAX_DEPTH => self.fields_at(depth + 1, ids.0, found)?,
            _ => return None,
        }
        Some(())
    }

    fn items(&mut self, kind: u8, count: u64, depth: u32) -> Option<()> {
        for _ in 0..count {
            match kind {
                // In a list, a truth value is a byte.
                1 | 2 => self.skip(1)?,
                _ => self.value(kind, depth.max(2), (0, 0), &mut |_, _, _| {})?,
            }
        }
        Some(())
    }
}

fn unzigzag(value: u64) -> i64 {
    let half = i64::try_from(value >> 1).unwrap_or(i64::MAX);
    if value & 1 == 0 { half } else { -half - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_to_their_end() {
        // type 0, 100 bytes of 10, a data page of 5 values in encoding 3, with statistics.
        let header = [
            0x15, 0x00, 0x15, 0xc8, 0x01, 0x15, 0x14, 0x2c, 0x15, 0x0a, 0x15, 0x06, 0x15, 0x06, 0x15, 0x06, 0x1c, 0x18, 0x02, b'a', b'b',
            0x00, 0x00, 0x00,
        ];
        let expected = Head { uncompressed: 100, compressed: 10, values: 5, encoding: 3, ..Head::default() };
        assert_eq!(Head::parse(&header), Some((expected, header.len())));
        let more = [&header[..], b"data"].concat();
        assert_eq!(Head::parse(&more), Some((expected, header.len())));
        for end in 0..header.len() {
            assert_eq!(Head::parse(&header[..end]), None, "{end}");
        }
        // Numbers without end or longer than their type, texts longer than memory, structs within structs.
        for bad in [
            &[0x15, 0x00, 0x15, 0xc8, 0x01, 0x15, 0xeb, 0xea, 0xea, 0xea, 0xea, 0x04, 0x00][..],
            &[0x14, 0x80, 0x80, 0x04, 0x00],
            &[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x1c; 100],
        ] {
            assert_eq!(Head::parse(bad), None);
        }
    }
}
