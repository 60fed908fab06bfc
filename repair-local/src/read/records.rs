//! Splits text into records and their fields, as the `csv` crate does: a record ends at a line end outside quotes, lines without a
//! character are none, a quote has a meaning only where a field begins, and two within quotes stand for one. Fields stay where they were
//! read, unless they hold a doubled quote.

use std::io::{self, BufRead};
use std::ops::Range;

use super::marks;

/// The bytes after the text that was read: so many are loaded at once, wherever a field begins.
pub(super) const PADDING: usize = 32;

/// What separates records and fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
    /// A record that begins with it is a comment, up to the end of its line.
    pub(super) comment: Option<u8>,
}

/// Why there is no further record.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    /// The record takes more bytes than are allowed.
    TooLong,
}

/// A text as records.
pub(super) struct Splitter {
    text: Box<dyn BufRead>,
    dialect: Dialect,
    /// What ends a field or begins a quoted one.
    marks: [u64; 4],
    most: usize,
    /// A piece of the text; what lies between `at` and `end` is still to be split.
    window: Vec<u8>,
    at: usize,
    end: usize,
    /// The bytes before the window.
    before: u64,
    is_done: bool,
    in_comment: bool,
    /// Where the record begins in the window.
    start: usize,
    /// The fields of the record, as ranges of the window from `start`, or of `plain`: the first ones, of which it matters where they are.
    fields: Vec<Range<usize>>,
    /// How many these are at most.
    placed: usize,
    /// How many more fields the record has.
    more: usize,
    is_rewritten: bool,
    /// The fields of a record that has doubled quotes, without them.
    plain: Vec<u8>,
    is_ascii: bool,
    is_open: bool,
}

enum Found {
    /// A record, and where the next one begins.
    Record(usize),
    /// The text that was read ends before the record.
    More,
    /// The record has quotes that do not just enclose its fields.
    Doubled,
}

/// How far a record was split.
struct Begun {
    at: usize,
    /// Where the field begins.
    field: usize,
    /// How many fields were counted.
    more: usize,
    /// All bits of what comes before `at`.
    seen: u64,
}

impl Splitter {
    /// The records of a text, of at most so many bytes each.
    pub(super) fn new(mut text: Box<dyn BufRead>, dialect: Dialect, most: usize) -> io::Result<Self> {
        let mut before = 0;
        // A mark may have been written twice.
        if text.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            text.consume(3);
            before = 3;
        }
        let quote = dialect.quote.unwrap_or(dialect.delimiter);
        Ok(Self {
            text,
            dialect,
            marks: [dialect.delimiter, quote, b'\n', b'\r'].map(marks::everywhere),
            most,
            window: vec![0; PADDING],
            at: 0,
            end: 0,
            before,
            is_done: false,
            in_comment: false,
            start: 0,
            fields: Vec::new(),
            placed: usize::MAX,
            more: 0,
            is_rewritten: false,
            plain: Vec::new(),
            is_ascii: true,
            is_open: false,
        })
    }

    /// From the next record on, only so many fields are found, and the others counted, which is faster. The first field is always found.
    pub(super) fn place_only(&mut self, fields: usize) {
        self.placed = fields.max(1);
    }

    /// Finds all fields of the record, of which some may only have been counted.
    pub(super) fn place_all(&mut self) {
        if self.more > 0 {
            let (placed, next) = (std::mem::replace(&mut self.placed, usize::MAX), std::mem::replace(&mut self.at, self.start));
            self.split();
            (self.placed, self.at) = (placed, next);
        }
    }

    /// Goes to the beginning of another text, all of which is here.
    pub(super) fn restart(&mut self, text: &[u8]) {
        let end = text.len();
        if self.window.len() < end + PADDING {
            self.window.resize((end + PADDING).next_power_of_two(), 0);
        }
        self.window[..end].copy_from_slice(text);
        self.window[end..end + PADDING].fill(0);
        (self.at, self.end, self.start, self.before) = (0, end, 0, 0);
        (self.is_done, self.in_comment, self.is_rewritten, self.is_ascii, self.is_open) = (true, false, false, true, false);
        self.fields.clear();
        (self.placed, self.more) = (usize::MAX, 0);
    }

    /// Reads the next record; `false` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<bool, Broken> {
        loop {
            self.skip();
            if self.at == self.end {
                if self.is_done {
                    return Ok(false);
                }
                self.fill()?;
                continue;
            }
            let found = match self.split() {
                Found::Doubled => self.rewrite(),
                found => found,
            };
            if let Found::Record(next) = found {
                (self.start, self.at) = (self.at, next);
                return Ok(true);
            }
            let there = self.end - self.at;
            if there > self.most {
                return Err(Broken::TooLong);
            }
            // Twice as much each time, since the record is split from its beginning again.
            let wanted = (2 * there).min(self.most + 1);
            while !self.is_done && self.end - self.at < wanted {
                self.fill()?;
            }
        }
    }

    /// The fields of the record, but for those that are only counted.
    #[inline]
    pub(super) fn fields(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let record = self.record();
        self.fields.iter().map(move |field| record.get(field.clone()).unwrap_or_default())
    }

    /// A field of the record; empty if it has none of that number, or if it is only counted.
    #[inline]
    pub(super) fn field(&self, number: usize) -> &[u8] {
        self.fields.get(number).and_then(|field| self.record().get(field.clone())).unwrap_or_default()
    }

    /// The bytes from the beginning of a field of at most so many, and how many of them are the field's; `None` of another field, and of one that had to be
    /// rewritten.
    #[inline]
    pub(super) fn short_field<const N: usize>(&self, number: usize) -> Option<(&[u8; N], usize)> {
        const { assert!(N <= PADDING) };
        let field = self.fields.get(number)?;
        let length = field.end - field.start;
        if length > N || self.is_rewritten {
            return None;
        }
        Some((self.window.get(self.start + field.start..)?.first_chunk::<N>()?, length))
    }

    /// How many fields the record has.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.fields.len() + self.more
    }

    /// The bytes of the text before the record, or before the place at which reading it failed.
    pub(super) fn offset(&self) -> u64 {
        self.before + self.start as u64
    }

    /// Whether the text ends with the record, without a line end.
    pub(super) fn is_unended(&self) -> bool {
        let last = self.window.get(..self.end).and_then(<[u8]>::last);
        self.is_done && self.at == self.end && !matches!(last, Some(b'\n' | b'\r'))
    }

    /// Whether the text ends within quotes of the record.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the record goes over several lines.
    pub(super) fn has_lines(&self) -> bool {
        self.window.get(self.start..self.at).is_some_and(|bytes| bytes.trim_ascii_end().iter().any(|byte| matches!(byte, b'\n' | b'\r')))
    }

    /// Whether all of the record is known to be ASCII.
    pub(super) fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    #[inline]
    fn record(&self) -> &[u8] {
        if self.is_rewritten { &self.plain } else { self.window.get(self.start..).unwrap_or_default() }
    }

    /// Goes to the first byte of a record.
    #[inline]
    fn skip(&mut self) {
        while let Some(&byte) = self.window.get(self.at..self.end).and_then(<[u8]>::first) {
            if self.in_comment {
                match marks::find(&self.window[..self.end], self.at, [b'\n']) {
                    Some(end) => (self.at, self.in_comment) = (end + 1, false),
                    None => self.at = self.end,
                }
            } else if matches!(byte, b'\n' | b'\r') {
                self.at += 1;
            } else if Some(byte) == self.dialect.comment {
                (self.at, self.in_comment) = (self.at + 1, true);
            } else {
                break;
            }
        }
        self.start = self.at;
    }

    /// Finds the fields of a record.
    #[inline]
    fn split(&mut self) -> Found {
        self.fields.clear();
        (self.is_rewritten, self.is_open, self.more) = (false, false, 0);
        match self.split_plain() {
            (Some(next), Begun { seen, more, .. }) => {
                (self.more, self.is_ascii) = (more, seen & marks::HIGH == 0);
                Found::Record(next)
            }
            (None, begun) => self.split_any(begun),
        }
    }

    /// Finds the fields of a record as long as it is plain; returns where the next record begins, or how far this one came, at a word with a quote or
    /// with a character that is not ASCII, or where the text that is there ends.
    #[inline]
    fn split_plain(&mut self) -> (Option<usize>, Begun) {
        let (window, fields, placed) = (&self.window, &mut self.fields, self.placed);
        let delimiters = self.marks[0];
        // Where there are no quotes, at least this character is rare.
        let quotes = if self.dialect.quote.is_some() { self.marks[1] } else { marks::everywhere(0) };
        let start = self.at;
        let mut begun = Begun { at: start, field: start, more: 0, seen: 0 };
        let (words, _) = window.get(start..self.end).unwrap_or_default().as_chunks::<8>();
        let mut words = words.iter();
        // Fields are found before others are counted, so that each takes few registers.
        let (mut at, mut field) = (0, 0);
        'words: while fields.len() < placed {
            let Some(word) = words.next() else { return (None, begun) };
            let word = u64::from_le_bytes(*word);
            let [mut between, ends, others] = marks::hits_in_ascii(word, delimiters, quotes);
            if others != 0 {
                return (None, begun);
            }
            let last = at + marks::first(ends);
            between &= ends.wrapping_sub(1) & !ends;
            while between != 0 {
                let place = at + marks::first(between);
                between &= between - 1;
                fields.push(field..place);
                field = place + 1;
                if fields.len() == placed {
                    if ends != 0 {
                        begun.more = marks::count(between) + 1;
                        return (Some(start + last + 1), begun);
                    }
                    begun.more = marks::count(between);
                    field = if between == 0 { field } else { at + marks::last(between) + 1 };
                    at += 8;
                    (begun.at, begun.field) = (start + at, start + field);
                    break 'words;
                }
            }
            if ends != 0 {
                fields.push(field..last);
                return (Some(start + last + 1), begun);
            }
            at += 8;
            (begun.at, begun.field) = (start + at, start + field);
        }
        let mut more = begun.more;
        for word in words {
            let word = u64::from_le_bytes(*word);
            let [between, ends, others] = marks::hits_in_ascii(word, delimiters, quotes);
            if others != 0 {
                break;
            }
            if ends != 0 {
                begun.more = more + marks::count(between & (ends - 1) & !ends) + 1;
                return (Some(start + at + marks::first(ends) + 1), begun);
            }
            more += marks::count(between);
            at += 8;
        }
        if start + at > begun.at {
            // Outside quotes, a field begins after each delimiter, and only whether it begins here matters.
            let begins = window.get(start + at - 1).is_some_and(|byte| *byte == self.dialect.delimiter);
            begun = Begun { at: start + at, field: if begins { start + at } else { start }, more, seen: 0 };
        }
        (None, begun)
    }

    /// Finds the fields of a record from where one begins or goes on, outside quotes.
    #[inline(never)]
    fn split_any(&mut self, Begun { mut at, mut field, more, mut seen }: Begun) -> Found {
        self.more = more;
        let Dialect { delimiter, quote, .. } = self.dialect;
        let (start, end) = (self.at, self.end);
        // Where the field ends, if it was in quotes.
        let mut closed = None;
        let mut in_quotes = false;
        while at < end {
            let Some(word) = self.window.get(at..).and_then(<[u8]>::first_chunk::<8>) else { break };
            let word = u64::from_le_bytes(*word);
            seen |= word;
            let mut hits = marks::hits(word, &self.marks);
            while hits != 0 {
                let place = at + marks::first(hits);
                hits &= hits - 1;
                if place >= end {
                    break;
                }
                let byte = self.window[place];
                if in_quotes {
                    if Some(byte) != quote {
                        continue;
                    }
                    let is_end = match self.window.get(place + 1..end).and_then(<[u8]>::first) {
                        None if self.is_done => true,
                        None => return Found::More,
                        Some(&next) => next == delimiter || matches!(next, b'\n' | b'\r'),
                    };
                    if !is_end {
                        return Found::Doubled;
                    }
                    (in_quotes, closed) = (false, Some(place));
                } else if byte == delimiter {
                    self.push(closed.take().map_or(field - start..place - start, |close| field + 1 - start..close - start));
                    field = place + 1;
                } else if Some(byte) == quote {
                    // Elsewhere than where a field begins, it is a character like others.
                    in_quotes = place == field;
                } else {
                    self.push(closed.take().map_or(field - start..place - start, |close| field + 1 - start..close - start));
                    self.is_ascii = seen & marks::HIGH == 0;
                    return Found::Record(place + 1);
                }
            }
            at += 8;
        }
        if !self.is_done {
            return Found::More;
        }
        if in_quotes {
            return Found::Doubled;
        }
        self.push(closed.take().map_or(field - start..end - start, |close| field + 1 - start..close - start));
        self.is_ascii = seen & marks::HIGH == 0;
        Found::Record(end)
    }

    /// Adds a field to those that are found, or to those that are counted.
    #[inline]
    fn push(&mut self, field: Range<usize>) {
        if self.fields.len() < self.placed { self.fields.push(field) } else { self.more += 1 }
    }

    /// Finds the fields of a record byte by byte, and copies them without their quotes.
    fn rewrite(&mut self) -> Found {
        enum In {
            Start,
            Field,
            Quotes,
            /// After a quote within quotes: the closing one, or the first of two that stand for one.
            Quote,
        }
        self.fields.clear();
        self.plain.clear();
        self.more = 0;
        (self.is_rewritten, self.is_ascii, self.is_open) = (true, false, false);
        let Dialect { delimiter, quote, .. } = self.dialect;
        let (mut state, mut field) = (In::Start, 0);
        for (place, &byte) in self.window.iter().enumerate().take(self.end).skip(self.at) {
            let is_quote = Some(byte) == quote;
            state = match state {
                In::Quotes if is_quote => In::Quote,
                In::Start if is_quote => In::Quotes,
                In::Quote if is_quote => {
                    self.plain.push(byte);
                    In::Quotes
                }
                In::Quotes => {
                    self.plain.push(byte);
                    In::Quotes
                }
                _ if byte == delimiter => {
                    self.fields.push(field..self.plain.len());
                    field = self.plain.len();
                    In::Start
                }
                _ if matches!(byte, b'\n' | b'\r') => {
                    self.fields.push(field..self.plain.len());
                    return Found::Record(place + 1);
                }
                _ => {
                    self.plain.push(byte);
                    In::Field
                }
            };
        }
        if !self.is_done {
            return Found::More;
        }
        self.is_open = matches!(state, In::Quotes);
        self.fields.push(field..self.plain.len());
        Found::Record(self.end)
    }

    /// Reads more of the text, and forgets what has been split.
    fn fill(&mut self) -> Result<(), Broken> {
        self.window.copy_within(self.at..self.end, 0);
        self.before += self.at as u64;
        (self.start, self.end, self.at) = (0, self.end - self.at, 0);
        let bytes = loop {
            match self.text.fill_buf() {
                Ok(bytes) => break bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Io(error)),
            }
        };
        let read = bytes.len();
        if read == 0 {
            self.is_done = true;
            return Ok(());
        }
        if self.window.len() < self.end + read + PADDING {
            self.window.resize((self.end + read + PADDING).next_power_of_two(), 0);
        }
        self.window[self.end..self.end + read].copy_from_slice(bytes);
        self.end += read;
        self.text.consume(read);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use csv::ReaderBuilder;
    use proptest::prelude::*;

    use super::*;

    type Records = Vec<Vec<Vec<u8>>>;

    fn ours(text: &[u8], dialect: Dialect, buffer: usize, placed: Option<usize>) -> (Records, Vec<u64>) {
        let text = BufReader::with_capacity(buffer, Cursor::new(text.to_vec()));
        let mut splitter = Splitter::new(Box::new(text), dialect, 1 << 20).unwrap();
        placed.into_iter().for_each(|placed| splitter.place_only(placed));
        let (mut records, mut offsets) = (Vec::new(), Vec::new());
        while splitter.next().unwrap() {
            let first: Vec<Vec<u8>> = splitter.fields().map(<[u8]>::to_vec).collect();
            let (count, is_ascii) = (splitter.len(), splitter.is_ascii());
            if let Some(field) = splitter.short_field::<PADDING>(0) {
                assert_eq!(field.0[..field.1], first[0]);
            }
            splitter.place_all();
            assert_eq!((count, is_ascii), (splitter.len(), splitter.is_ascii()));
            assert!(first.len() >= placed.unwrap_or(usize::MAX).clamp(1, count) && splitter.fields().len() == count);
            assert!(first.iter().eq(splitter.fields().take(first.len())));
            let fields: Vec<Vec<u8>> = splitter.fields().map(<[u8]>::to_vec).collect();
            if is_blank(&fields) {
                continue;
            }
            assert!(!splitter.is_ascii() || fields.iter().all(|field| field.is_ascii()));
            records.push(fields);
            offsets.push(splitter.offset());
        }
        (records, offsets)
    }

    fn theirs(text: &[u8], dialect: Dialect) -> Records {
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(dialect.delimiter)
            .quote(dialect.quote.unwrap_or(b'"'))
            .quoting(dialect.quote.is_some())
            .comment(dialect.comment)
            .from_reader(text);
        let records = reader.byte_records().map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
        records.filter(|fields| !is_blank(fields)).collect()
    }

    /// The `csv` crate makes a record of a comment at the end of the text. The reader skips records without a character.
    fn is_blank(fields: &[Vec<u8>]) -> bool {
        matches!(fields, [only] if only.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn records_are_those_of_the_csv_crate(
            parts in proptest::collection::vec(
                prop::sample::select(vec![",", ";", "\"", "\"\"", "\n", "\r\n", "\r", "#", "a", "\"b\"", "\"c,d\"", "long field", "a,b,c,d,e,f,g,h,i", "1234567,1234567,12", " ", "é", "\u{ff}"]),
                0..60,
            ),
            // Two buffers that end within records, and one that holds everything.
            buffer in prop::sample::select(vec![1usize, 7, 4_096]),
            quote in prop::sample::select(vec![None, Some(b'"'), Some(b'a')]),
            comment in prop::sample::select(vec![None, Some(b'#')]),
            delimiter in prop::sample::select(vec![b',', b';', b' ']),
            placed in prop::sample::select(vec![None, Some(0), Some(1), Some(2), Some(3), Some(9)]),
        ) {
            let text = parts.concat().into_bytes();
            let dialect = Dialect { delimiter, quote, comment };
            let (records, offsets) = ours(&text, dialect, buffer, placed);
            prop_assert_eq!(&records, &theirs(&text, dialect));
            for (record, offset) in records.iter().zip(offsets) {
                // A record begins where its first field, or its quote, is.
                let from = usize::try_from(offset).unwrap();
                prop_assert!(from == 0 || matches!(text[from - 1], b'\n' | b'\r'));
                let first = record[0].first().copied();
                prop_assert!(first.is_none() || first == Some(text[from]) || quote == Some(text[from]));
            }
        }
    }

    #[test]
    fn a_record_is_not_longer_than_allowed() {
        let dialect = Dialect { delimiter: b',', quote: Some(b'"'), comment: None };
        let text = format!("a,b\nc,\"{}", "d\n".repeat(1_000));
        let mut splitter = Splitter::new(Box::new(BufReader::with_capacity(64, Cursor::new(text))), dialect, 1_000).unwrap();
        assert!(splitter.next().unwrap());
        assert!(matches!(splitter.next(), Err(Broken::TooLong)));
        assert_eq!(splitter.offset(), 4);
    }
}
