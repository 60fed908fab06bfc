//! Opens text files: decompressed, and in UTF-8, whatever they are written in.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};
use repair_core::model::Encoding;
use repair_core::{Error, Result};

use crate::files::{self, Compression, DataFile};

const BUFFER_BYTES: usize = 1 << 18;

/// The least buffer of a small file.
const LEAST_BUFFER_BYTES: usize = 1 << 9;

/// How a compressed file begins.
const MAGIC: [(Compression, &[u8]); 3] =
    [(Compression::Gzip, b"\x1f\x8b"), (Compression::Zstd, b"\x28\xb5\x2f\xfd"), (Compression::Bzip2, b"BZh")];

/// Whether a text is what it seems to be: in UTF-8 without a byte-order mark, and not compressed.
pub(super) fn is_plain(text: &[u8]) -> bool {
    const MARKS: [&[u8]; 3] = [b"\xEF\xBB\xBF", b"\xFF\xFE", b"\xFE\xFF"];
    !MARKS.iter().chain(MAGIC.iter().map(|(_, magic)| magic)).any(|start| text.starts_with(start))
}

/// Opens a file for reading as text, after its byte-order mark.
pub(super) fn text(file: &DataFile, encoding: Encoding) -> Result<Box<dyn BufRead>> {
    // One read then takes all of a small file.
    let buffer = usize::try_from(file.bytes).map_or(BUFFER_BYTES, |bytes| bytes.saturating_add(1).clamp(LEAST_BUFFER_BYTES, BUFFER_BYTES));
    let mut raw: Box<dyn BufRead> = match &file.held {
        Some(held) => Box::new(Cursor::new(held.clone())),
        None => Box::new(BufReader::with_capacity(buffer, files::open(&file.path)?)),
    };
    let mut bytes: Box<dyn BufRead> = match compression(file, &mut raw)? {
        Compression::None => raw,
        Compression::Gzip => buffered(flate2::bufread::MultiGzDecoder::new(raw)),
        Compression::Bzip2 => buffered(bzip2::bufread::MultiBzDecoder::new(raw)),
        Compression::Zstd => {
            buffered(zstd::stream::read::Decoder::with_buffer(raw).map_err(|error| files::io_error(error, "read", &file.path))?)
        }
    };
    let start = bytes.fill_buf().map_err(|error| broken(file, error))?;
    let (marked, mark) = match start {
        [0xEF, 0xBB, 0xBF, ..] => (Some(Encoding::Utf8), 3),
        [0xFF, 0xFE, ..] => (Some(Encoding::Utf16le), 2),
        [0xFE, 0xFF, ..] => (Some(Encoding::Utf16be), 2),
        _ => (None, 0),
    };
    // In text with one byte for each character, these are characters, too; but no file begins with them.
    bytes.consume(mark);
    let decoder = match marked.unwrap_or(encoding) {
        Encoding::Utf8 => return Ok(bytes),
        Encoding::Utf16le => UTF_16LE,
        Encoding::Utf16be => UTF_16BE,
        Encoding::Latin1 => WINDOWS_1252,
        _ => {
            return Err(Error::invalid(
                "the file has no byte-order mark, so it is not clear which UTF-16 it is; write `encoding: utf16le` or `utf16be`",
            ));
        }
    };
    let decoded = Decoded { inner: bytes, decoder: decoder.new_decoder_without_bom_handling(), text: Vec::new(), at: 0, is_done: false };
    Ok(Box::new(decoded))
}

fn buffered(read: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, read))
}

/// The compression of a file: what its name says. A name without an ending leaves it to the content; a name that contradicts the content
/// is an error, since another reader would believe the name.
fn compression(file: &DataFile, raw: &mut dyn BufRead) -> Result<Compression> {
    let start = raw.fill_buf().map_err(|error| files::io_error(error, "read", &file.path))?;
    let found = MAGIC.iter().find(|(_, magic)| start.starts_with(magic)).map_or(Compression::None, |(compression, _)| *compression);
    if file.compression == found || start.is_empty() || (file.compression == Compression::None && !file.has_ending) {
        return Ok(found);
    }
    Err(Error::invalid(match (file.compression, found) {
        (Compression::None, found) => {
            format!("the file is compressed with {found}, and its name does not say so; add `.{}` to its name", found.ending())
        }
        (named, _) => format!("the name of the file says that it is compressed with {named}, and it is not; correct its name"),
    }))
}

/// What is said of text that is in another encoding.
const OTHER_ENCODING: &str = "the text is not in the encoding that the table says";

/// The error of a file that cannot be decompressed, decoded, or read.
pub(super) fn broken(file: &DataFile, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::InvalidData && error.get_ref().is_some_and(|said| said.to_string() == OTHER_ENCODING) {
        return Error::invalid(format!("{OTHER_ENCODING}; correct `encoding` of the table, or restore the file"));
    }
    match file.compression {
        Compression::None => files::io_error(error, "read", &file.path),
        // The disk's own errors pass through the decoder.
        _ if error.raw_os_error().is_some() => files::io_error(error, "read", &file.path),
        compression => {
            let message =
                format!("the file cannot be decompressed ({compression}): it is damaged or cut off; restore it, or write it again");
            Error::invalid(message).because(error)
        }
    }
}

/// Text in UTF-8 from bytes in another encoding.
struct Decoded {
    inner: Box<dyn BufRead>,
    decoder: Decoder,
    text: Vec<u8>,
    at: usize,
    is_done: bool,
}

impl BufRead for Decoded {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.text.len() && !self.is_done {
            let bytes = self.inner.fill_buf()?;
            let is_last = bytes.is_empty();
            self.text.resize(BUFFER_BYTES, 0);
            let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(bytes, &mut self.text, is_last);
            self.inner.consume(read);
            self.text.truncate(written);
            self.at = 0;
            match result {
                DecoderResult::Malformed(..) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, OTHER_ENCODING));
                }
                DecoderResult::InputEmpty => self.is_done = is_last,
                DecoderResult::OutputFull => {}
            }
        }
        Ok(&self.text[self.at..])
    }

    fn consume(&mut self, read: usize) {
        self.at = (self.at + read).min(self.text.len());
    }
}

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
