//! Copies a few objects of a table to this machine, for those who must guess how to describe it. It must not know what a guess is, nor how a
//! format is read.

use std::fs;
use std::path::{Path, PathBuf};

use repair_core::text::grouped;
use repair_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::connect::Connection;
use crate::objects::{Location, Object, Objects};

/// What a look may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How many objects are listed. A request lists a thousand.
    pub listed: usize,
    /// How many objects are read.
    pub read: usize,
    /// How many bytes are read, of all objects together.
    pub bytes: u64,
}

/// What the name of an object says about reading a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// It holds no rows.
    Other,
    /// It can be read only as a whole.
    Whole,
    /// It holds lines: some at its beginning and at its end are enough.
    Lines,
}

/// What was copied. Objects that were not read have an empty file of their name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Copied {
    /// The place around that of the table, such as `s3://bucket/lake`.
    pub lake: String,
    /// The name of the table's place in it.
    pub name: String,
    /// Where the files are.
    #[serde(skip)]
    pub folder: PathBuf,
    /// How many objects were listed.
    pub listed: u64,
    /// Whether there are more, which were not listed.
    pub are_more: bool,
    /// How many objects were read.
    pub read: u64,
    /// How many bytes of them were read.
    pub bytes: u64,
    /// Whether all objects with rows were read, as a whole.
    pub is_whole: bool,
}

/// A part of an object's key, as a name on this machine.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && part.len() <= 255 && !part.contains(['\0', '\\'])
}

/// Copies the objects at a place into a folder: the first, the last, and some between of those that `named` says hold rows.
///
/// # Errors
/// `invalid` if the text is no place in S3 within another one, or no object with rows is small enough; `not-found` if there is no object; those of
/// reading S3 and of writing files.
pub async fn copy(connection: &Connection, place: &str, into: &Path, bounds: Bounds, named: impl Fn(&str) -> Named) -> Result<Copied> {
    let location = Location::parse(place)?;
    let (around, name) = location.prefix.rsplit_once('/').unwrap_or(("", &location.prefix));
    if !is_plain(name) {
        return Err(Error::invalid(format!("{place} is a whole bucket; name the prefix of one table in it, as in s3://bucket/lake/bars")));
    }
    let lake = Location { bucket: location.bucket.clone(), prefix: around.to_owned() };
    let objects = Objects::new(connection.s3(), &location.bucket, connection.patience());
    let prefix = format!("{}/", location.prefix);
    let (found, are_more) = objects.some(&prefix, bounds.listed).await?;
    // A key that ends in `/` stands for a folder.
    let found: Vec<(&str, &Object)> = found
        .iter()
        .filter_map(|object| Some((object.key.strip_prefix(&prefix)?, object)))
        .filter(|(rest, _)| !rest.is_empty() && !rest.ends_with('/'))
        .collect();
    if found.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no object below {place}/; correct the prefix, or its bucket")));
    }
    if let Some((_, object)) = found.iter().find(|(rest, _)| !rest.split('/').all(is_plain)) {
        return Err(Error::invalid(format!(
            "{} has a key that no file of this machine can have; describe the table by hand",
            objects.uri(&object.key)
        )));
    }
    let folder = into.join(name);
    let mut copied = Copied {
        lake: lake.to_string(),
        name: name.to_owned(),
        folder: folder.clone(),
        listed: found.len() as u64,
        are_more,
        read: 0,
        bytes: 0,
        is_whole: !are_more,
    };
    let is_hidden = |rest: &str| rest.split('/').any(|part| part.starts_with(['.', '_']));
    let of_rows: Vec<(&str, &Object, Named)> = found
        .iter()
        .map(|(rest, object)| (*rest, *object, if is_hidden(rest) || object.bytes == 0 { Named::Other } else { named(rest) }))
        .filter(|(_, _, named)| *named != Named::Other)
        .collect();
    for (rest, _) in &found {
        write(&folder, rest, &[])?;
    }
    let chosen = of_rows.len().min(bounds.read.max(1));
    copied.is_whole &= chosen == of_rows.len();
    let share = bounds.bytes / (chosen as u64).max(1);
    // The ends come first: what they need, others do without.
    let order = [0, chosen.saturating_sub(1)].into_iter().chain(1..chosen.saturating_sub(1)).take(chosen);
    for nth in order {
        let at = if chosen < 2 { 0 } else { nth * (of_rows.len() - 1) / (chosen - 1) };
        let Some((rest, object, named)) = of_rows.get(at) else { continue };
        let left = bounds.bytes.saturating_sub(copied.bytes);
        // What can be read only as a whole may take what others leave.
        let most = if *named == Named::Whole { left } else { share.min(left) };
        let (text, bytes) = if object.bytes <= most {
            let whole = objects.get(&object.key).await?;
            (whole.to_vec(), whole.len() as u64)
        } else if *named == Named::Lines && most > 1 {
            copied.is_whole = false;
            ends(&objects, object, most / 2).await?
        } else {
            copied.is_whole = false;
            continue;
        };
        copied.read += 1;
        copied.bytes += bytes;
        write(&folder, rest, &text)?;
    }
    if copied.read == 0 && !of_rows.is_empty() {
        return Err(Error::invalid(format!(
            "each object below {place}/ has more than {} bytes, and can be read only as a whole; copy one that holds fewer rows of the same columns into a \
             folder, and look at that",
            grouped(bounds.bytes)
        )));
    }
    Ok(copied)
}

/// The lines at the beginning and at the end of an object, without those that are cut, and how many bytes were read.
async fn ends(objects: &Objects, object: &Object, bytes: u64) -> Result<(Vec<u8>, u64)> {
    let head = objects.get_prefix(&object.key, bytes).await?;
    let (tail, _) = objects.get_suffix(&object.key, bytes).await?;
    let newline = |byte: &u8| *byte == b'\n';
    let cut = head.iter().rposition(newline).map_or(0, |at| at + 1);
    let begun = tail.iter().position(newline).map_or(tail.len(), |at| at + 1);
    let lines = [head.get(..cut).unwrap_or_default(), tail.get(begun..).unwrap_or_default()].concat();
    Ok((lines, (head.len() + tail.len()) as u64))
}

fn write(folder: &Path, rest: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(rest);
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Transient, "a sample of the objects cannot be written on this machine").because(error)
    };
    fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed)?;
    fs::write(path, bytes).map_err(failed)
}
