//! Whose an overlay is. A record in the folder of repairs says which table it belongs to, so that no table ever reads the repairs of another
//! or adds to them. It is written before the first object of the overlay, and nothing changes it afterwards.
//!
//! An overlay lies beside its table. The overlay of a table that lies elsewhere, or whose location stands for some files of a folder, lies
//! at the lake's root under the table's name, where several tables may look for theirs.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::overlay::retraction::names;
use crate::lake::overlay::{self, columns};
use crate::model::Table;

/// The name of the record in the folder of repairs. Readers of tables leave out names that begin with `_`.
pub const RECORD: &str = "_owner.json";

/// A longer record is not ours.
pub const MAX_BYTES: usize = 64 << 10;

/// The format of records that this version writes, and the newest one that it reads.
const FORMAT: u32 = 1;

/// The table to which an overlay belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    format: u32,
    /// The table's name when the overlay was begun.
    pub table: String,
    /// Where the table lies: its folder's name if the overlay lies beside it; else where it is, from the folder of the overlay if it was
    /// declared like that.
    pub location: String,
    /// Whether the overlay lies beside the table, and is named for it. Then it stays the table's own, however both are moved.
    pub beside: bool,
}

impl Owner {
    /// A table beside its overlay, in a folder of this name.
    pub fn beside(table: &Table, folder: impl Into<String>) -> Self {
        Self { format: FORMAT, table: table.name.clone(), location: folder.into(), beside: true }
    }

    /// A table elsewhere, or one whose location stands for some files of a folder.
    pub fn elsewhere(table: &Table, location: impl Into<String>) -> Self {
        Self { format: FORMAT, table: table.name.clone(), location: location.into(), beside: false }
    }

    /// The content of the record.
    ///
    /// # Errors
    /// Never, unless there is a bug.
    pub fn to_record(&self) -> Result<Vec<u8>> {
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|error| Error::internal("the owner of an overlay is not JSON").because(error))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a record, which lies at a place.
    ///
    /// # Errors
    /// `invalid` if it is none, or one of a newer version.
    pub fn of_record(record: &[u8], place: &str) -> Result<Self> {
        let owner: Self = serde_json::from_slice(record).map_err(|error| {
            let message = "the record of whose repairs these are cannot be read; if you know that they belong to the table, remove it, and it is \
                           written anew with the next repair";
            Error::invalid(message).because(error).on("file", place)
        })?;
        if owner.format > FORMAT {
            let message =
                format!("the record of whose repairs these are has format {}, which is newer than this program; update it", owner.format);
            return Err(Error::invalid(message).on("file", place));
        }
        Ok(owner)
    }

    /// Whether both records mean the same table. A lake that knows several names of one place compares places as well.
    pub fn is_same(&self, other: &Self) -> bool {
        self.beside == other.beside && (self.beside || self.location == other.location)
    }

    /// The error for a table whose overlay would be that of another table, this one. Both lie at places that a person knows.
    pub fn conflict(&self, place: &str, other: (&Self, &str), record: &str) -> Error {
        let (asking, at) = other;
        let remedy = match (asking.beside, self.beside) {
            (false, _) => format!(
                "the overlay of a table outside the lake, or of a glob, lies at the lake's root under the table's name, so give `{}` another name",
                asking.table
            ),
            (true, false) => format!(
                "give the other table another name, and its folders {0}, {1} and {2} with it; or move this one",
                overlay::repairs("…"),
                overlay::exceptions("…"),
                overlay::retractions("…")
            ),
            // Only a folder beside which there is no other table has such a record.
            (true, true) => "move one of them".to_owned(),
        };
        Error::new(
            ErrorKind::Conflict,
            format!(
                "the repairs kept for table `{}` at {at} are those of table `{}` at {place}; {remedy}; if {place} was moved to {at}, remove {record}",
                asking.table, self.table
            ),
        )
    }
}

/// The tables of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `…_repairs`.
    Repairs,
    /// `…_exceptions`.
    Exceptions,
    /// `…_retractions`.
    Retractions,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Repairs, Self::Exceptions, Self::Retractions];

    /// The name of this table of the overlay of a table.
    pub fn beside(self, table: &str) -> String {
        match self {
            Self::Repairs => overlay::repairs(table),
            Self::Exceptions => overlay::exceptions(table),
            Self::Retractions => overlay::retractions(table),
        }
    }

    /// A column that only our tables of this kind have.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Repairs => columns::OP,
            Self::Exceptions => columns::RECHECK_AFTER,
            Self::Retractions => names::ID,
        }
    }
}

/// Which table of an overlay a folder of this name would be, and the name of the folder beside which it would lie. That it is one, is not
/// certain: a user's own folder may have such a name.
pub fn named(folder: &str) -> Option<(Kind, &str)> {
    Kind::ALL.into_iter().find_map(|kind| {
        let beside = folder.strip_suffix(&kind.beside("")).filter(|beside| !beside.is_empty())?;
        Some((kind, beside))
    })
}

/// The first words of the ids of retractions that this program makes.
pub const RETRACTION_IDS: [&str; 8] = ["undo", "redo", "except", "stale", "frozen", "given-up", "handled-elsewhere", "lift"];

/// Whether an object, by its path below a table's location, is one of an overlay there: its folder is named like one, and it like what we
/// write. For lakes that see no more than paths.
pub fn is_object(path: &str) -> bool {
    let names: Vec<&str> = path.split('/').collect();
    let Some((file, folders)) = names.split_last() else { return false };
    let Some(stem) = file.strip_suffix(".parquet") else { return false };
    let is_published = || {
        let number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let parts: Vec<&str> = stem.rsplitn(4, '-').collect();
        matches!(parts.as_slice(), [batch, visit, step, run] if number(batch) && number(visit) && !step.is_empty() && !run.is_empty())
    };
    let is_retraction = || RETRACTION_IDS.iter().any(|word| stem.strip_prefix(word).is_some_and(|rest| rest.starts_with('-')));
    let kind = |folder: Option<&&str>| folder.and_then(|folder| named(folder)).map(|(kind, _)| kind);
    match folders.split_last() {
        Some((folder, _)) if kind(Some(folder)) == Some(Kind::Retractions) => is_retraction(),
        Some((folder, _)) if kind(Some(folder)).is_some() => is_published(),
        // The folder of a partition.
        Some((folder, above)) if folder.contains('=') => kind(above.last()).is_some_and(|kind| kind != Kind::Retractions) && is_published(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Format;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let table = Table::new("bars", Format::Parquet, "ts");
        for owner in [Owner::beside(&table, "bars"), Owner::elsewhere(&table, "s3://other/bars")] {
            assert_eq!(Owner::of_record(&owner.to_record().unwrap(), "here").unwrap(), owner);
        }
        let newer = br#"{"format": 2, "table": "bars", "location": "bars", "beside": true}"#;
        assert!(Owner::of_record(newer, "here").unwrap_err().message().contains("newer"));
        assert!(Owner::of_record(b"", "here").unwrap_err().full().contains("here"));
    }

    #[test]
    fn objects_of_an_overlay_are_known_by_their_paths() {
        for path in [
            "one_repairs/run-7-fill%2Dit-2-3.parquet",
            "deep/one_exceptions/date=2024-03-04/0190-fill-1-0.parquet",
            "one_retractions/undo-0190.parquet",
            "one_retractions/given-up-0190.parquet",
            "one_retractions/lift-0190.parquet",
        ] {
            assert!(is_object(path), "{path}");
        }
        for path in [
            "one/run-fill-2-3.parquet",
            "run-fill-2-3.parquet",
            "car_repairs/engine-2024-01-02.parquet",
            "car_repairs/0.parquet",
            "car_repairs/run-fill-2-3.csv",
            "car_repairs/x/run-fill-2-3.parquet",
            "_repairs/run-fill-2-3.parquet",
            "paper_retractions/0.parquet",
            "paper_retractions/undone.parquet",
        ] {
            assert!(!is_object(path), "{path}");
        }
    }
}
