//! A look at a table in S3: a few objects are copied to a temporary folder, and looked at as files are.

use std::path::Path;

use repair_aws::Connection;
use repair_aws::sample::{self as objects, Bounds, Named};
use repair_core::text::visible;
use repair_core::{Error, Result};
use repair_local::sample::{self, MOST_FILES};

use super::{FirstSteps, Guess, InS3, Look, ObjectsRead, Sure};

/// The database that every account has.
const DATABASE: &str = "default";
/// What a look may take.
const BOUNDS: Bounds = Bounds { listed: 20_000, read: MOST_FILES, bytes: 64 << 20 };
/// The workgroup that every account has.
const WORKGROUP: &str = "primary";

/// Whether this is a place in S3.
pub(super) fn is_place(folder: &Path) -> bool {
    folder.to_str().is_some_and(|text| text.starts_with("s3://"))
}

/// Looks at a table in S3.
pub(super) async fn look(asked: Look) -> Result<FirstSteps> {
    let place = asked.folder.to_string_lossy().trim_end_matches('/').to_owned();
    if asked.source.is_some() {
        return Err(Error::invalid(format!(
            "{} is in S3, and so are the sources of its table; leave out the source, and write it as docs/aws.md says",
            visible(&place)
        )));
    }
    let temporary = tempfile::tempdir().map_err(|error| Error::invalid("no temporary folder can be made here").because(error))?;
    let named = |name: &str| match sample::has_lines(name) {
        None => Named::Other,
        Some(true) => Named::Lines,
        Some(false) => Named::Whole,
    };
    let connection = Connection::open(None).await?;
    let copied = objects::copy(&connection, &place, temporary.path(), BOUNDS, named).await?;
    let read =
        ObjectsRead { listed: copied.listed, are_more: copied.are_more, read: copied.read, bytes: copied.bytes, is_whole: copied.is_whole };
    let is_named = (asked.database.is_some(), asked.workgroup.is_some());
    let in_s3 = InS3 {
        lake: copied.lake,
        objects: read,
        database: asked.database.clone().unwrap_or_else(|| DATABASE.to_owned()),
        workgroup: asked.workgroup.clone().unwrap_or_else(|| WORKGROUP.to_owned()),
    };
    let guesses = [
        ("database", in_s3.database.clone(), is_named.0, "every account has it; name the one that has the table"),
        ("workgroup", in_s3.workgroup.clone(), is_named.1, "every account has it; name the one in which your queries run"),
    ];
    // What is said about the copy is about the table.
    let here = copied.folder.display().to_string();
    let mut found =
        Look { folder: copied.folder, source: None, ..asked }.of(Some(in_s3)).map_err(|error| elsewhere(&error, &here, &place))?;
    for (what, value, is_named, why) in guesses {
        let (why, sure) = if is_named { ("it was named", Sure::Sure) } else { (why, Sure::Guess) };
        found.guesses.push(Guess::new(what, value, why, sure));
    }
    Ok(found)
}

/// An error about a copy, as one about what was copied.
fn elsewhere(error: &Error, here: &str, place: &str) -> Error {
    Error::new(error.kind(), error.full().replace(here, place))
}
