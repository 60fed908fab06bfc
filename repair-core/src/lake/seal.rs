//! Seals show that a Parquet object of ours is what was written, to the last bit.
//!
//! A seal lies between an object's pages and its footer. Readers of Parquet go from the footer to the pages, and never look between them,
//! so every other program reads a sealed object as before.
//!
//! ```text
//! pages │ "RPSEAL01" │ BLAKE3 of the pages and the footer │ footer │ its length │ "PAR1"
//! ```
//!
//! Objects of earlier versions have no seal, and are read as they are.
//!
//! ```
//! use std::io::Cursor;
//!
//! use repair_core::lake::seal::{self, Verdict};
//!
//! # fn main() -> std::io::Result<()> {
//! // An object of 4 bytes, then a footer of 3 with its length and the magic.
//! let mut object = Cursor::new(b"rowsend\x03\0\0\0PAR1".to_vec());
//! assert_eq!(seal::check(&mut object)?, Verdict::Unsealed);
//! seal::add(&mut object)?;
//! assert_eq!(seal::check(&mut object)?, Verdict::Intact);
//! object.get_mut()[0] ^= 1;
//! assert_eq!(seal::check(&mut object)?, Verdict::Changed);
//! # Ok(())
//! # }
//! ```

use std::io::{self, Read, Seek, SeekFrom, Write};

use blake3::Hasher;

/// How a seal begins.
const MAGIC: [u8; 8] = *b"RPSEAL01";

/// The length of a seal in bytes.
pub const LENGTH: u64 = 40;

/// What follows the footer: its length and the magic.
const TRAILER: usize = 8;

/// The magic at the end of every Parquet object.
const PARQUET: [u8; 4] = *b"PAR1";

/// How much is read at once.
const CHUNK: usize = 1 << 18;

/// What a seal says about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was written.
    Intact,
    /// It has no seal, since an earlier version or another program wrote it.
    Unsealed,
    /// It is not what was written.
    Changed,
}

/// Where the footer of a Parquet object begins, by its length and its last eight bytes; `None` if it is no Parquet object.
fn footer_start(bytes: u64, trailer: [u8; TRAILER]) -> Option<u64> {
    let [a, b, c, d, magic @ ..] = trailer;
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    (magic == PARQUET).then(|| bytes.checked_sub(TRAILER as u64)?.checked_sub(footer)).flatten()
}

/// Checks an object whose bytes come in order.
#[derive(Debug, Clone)]
pub struct Check {
    hasher: Hasher,
    /// Where the seal is.
    at: u64,
    seal: Vec<u8>,
    /// How many bytes have come.
    seen: u64,
}

impl Check {
    /// Begins to check an object of this many bytes that ends with these eight; `None` if no seal fits into it.
    pub fn begin(bytes: u64, trailer: [u8; 8]) -> Option<Self> {
        let at = footer_start(bytes, trailer)?.checked_sub(LENGTH)?;
        Some(Self { hasher: Hasher::new(), at, seal: Vec::with_capacity(MAGIC.len() + 32), seen: 0 })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        for (end, is_seal) in [(self.at, false), (self.at + LENGTH, true), (u64::MAX, false)] {
            let until = usize::try_from(end.saturating_sub(self.seen)).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = rest.split_at(until);
            if is_seal {
                self.seal.extend_from_slice(part);
            } else {
                self.hasher.update(part);
            }
            self.seen += part.len() as u64;
            rest = after;
        }
    }

    /// The verdict, once all bytes have come.
    pub fn end(&self) -> Verdict {
        match self.seal.strip_prefix(&MAGIC) {
            None => Verdict::Unsealed,
            Some(digest) if digest == self.hasher.finalize().as_bytes() => Verdict::Intact,
            Some(_) => Verdict::Changed,
        }
    }
}

/// Seals a Parquet object. What is no Parquet object, or is sealed already, stays as it is.
///
/// # Errors
/// Those of reading and writing it.
pub fn add(object: &mut (impl Read + Write + Seek)) -> io::Result<()> {
    let bytes = object.seek(SeekFrom::End(0))?;
    let Some(footer) = trailer(object, bytes)?.and_then(|trailer| footer_start(bytes, trailer)) else { return Ok(()) };
    if check(object)? != Verdict::Unsealed {
        return Ok(());
    }
    let mut hasher = Hasher::new();
    object.rewind()?;
    each_chunk(object, |chunk| {
        hasher.update(chunk);
    })?;
    object.seek(SeekFrom::Start(footer))?;
    let mut end = Vec::new();
    object.read_to_end(&mut end)?;
    object.seek(SeekFrom::Start(footer))?;
    object.write_all(&MAGIC)?;
    object.write_all(hasher.finalize().as_bytes())?;
    object.write_all(&end)
}

/// The last bytes of an object, which hashes of all bytes before them are sealed with; for an object that is written as it comes.
/// `hasher` has seen every byte of it, those of `end` included, and `end` holds at least its whole footer. What is no Parquet object stays
/// as it is.
pub fn sealed_end(hasher: &Hasher, mut end: Vec<u8>) -> Vec<u8> {
    let trailer = end.last_chunk::<8>().copied();
    let footer = trailer.and_then(|trailer| footer_start(end.len() as u64, trailer)).and_then(|at| usize::try_from(at).ok());
    if let Some(at) = footer {
        let seal = MAGIC.iter().chain(hasher.finalize().as_bytes()).copied().collect::<Vec<u8>>();
        end.splice(at..at, seal);
    }
    end
}

/// Checks an object from its first byte to its last. Its position is at the end afterwards.
///
/// # Errors
/// Those of reading it.
pub fn check(object: &mut (impl Read + Seek)) -> io::Result<Verdict> {
    let bytes = object.seek(SeekFrom::End(0))?;
    let Some(mut check) = trailer(object, bytes)?.and_then(|trailer| Check::begin(bytes, trailer)) else { return Ok(Verdict::Unsealed) };
    // Without a seal, the rest need not be read.
    let mut magic = [0; MAGIC.len()];
    object.seek(SeekFrom::Start(check.at))?;
    object.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Ok(Verdict::Unsealed);
    }
    object.rewind()?;
    each_chunk(object, |chunk| check.update(chunk))?;
    Ok(check.end())
}

fn trailer(object: &mut (impl Read + Seek), bytes: u64) -> io::Result<Option<[u8; 8]>> {
    let Some(at) = bytes.checked_sub(TRAILER as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER];
    object.seek(SeekFrom::Start(at))?;
    object.read_exact(&mut trailer)?;
    Ok(Some(trailer))
}

fn each_chunk(object: &mut impl Read, mut visit: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match object.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => visit(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn object(pages: &[u8], footer: &[u8]) -> Vec<u8> {
        let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
        [pages, footer, &length, &PARQUET].concat()
    }

    fn verdict(object: &[u8]) -> Verdict {
        check(&mut Cursor::new(object)).unwrap()
    }

    #[test]
    fn a_seal_is_found_and_every_flipped_bit_of_what_it_covers() {
        let plain = object(&[7; 300], b"the footer");
        let mut sealed = Cursor::new(plain.clone());
        add(&mut sealed).unwrap();
        add(&mut sealed).unwrap();
        let sealed = sealed.into_inner();
        assert_eq!(sealed.len() as u64, plain.len() as u64 + LENGTH);
        assert_eq!(verdict(&sealed), Verdict::Intact);
        let in_magic = 300..308;
        let after_footer = sealed.len() - 8..sealed.len();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A seal that does not look like one is none; where the footer begins is then unknown, or its pages are intact.
            let wanted = match in_magic.contains(&(bit / 8)) || after_footer.contains(&(bit / 8)) {
                true => Verdict::Unsealed,
                false => Verdict::Changed,
            };
            assert_eq!(verdict(&flipped), wanted, "bit {bit}");
        }
    }

    #[test]
    fn an_object_that_is_written_as_it_comes_gets_the_same_seal() {
        let plain = object(&[7; 300], b"the footer");
        let mut whole = Cursor::new(plain.clone());
        add(&mut whole).unwrap();
        let (first, end) = plain.split_at(120);
        let mut hasher = Hasher::new();
        hasher.update(first).update(end);
        assert_eq!([first, &sealed_end(&hasher, end.to_vec())].concat(), whole.into_inner());
    }

    #[test]
    fn what_is_no_parquet_object_has_no_seal() {
        for bytes in [&b""[..], b"PAR1", b"\xff\xff\xff\xffPAR1", b"text that is long enough to hold a seal, if it were Parquet"] {
            assert_eq!(verdict(bytes), Verdict::Unsealed);
            let mut same = Cursor::new(bytes.to_vec());
            add(&mut same).unwrap();
            assert_eq!(same.into_inner(), bytes);
        }
    }
}
