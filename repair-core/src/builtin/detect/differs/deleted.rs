//! What is done about rows of the table of which the source vouches that they do not exist: they are only counted, or they are to be removed.
//! Pure.
//!
//! A broken source answers like one whose rows were deleted, so removal must be asked for, an answer without any row of a key removes nothing
//! by default, and a source that lacks more than a small share of the rows is not believed.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::model::ComparedCounts;

/// By default, the largest share of the table's rows that the source may lack, in percent. A vendor deletes a row now and then.
const AT_MOST_PERCENT: f64 = 1.0;

/// A share of rows, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share(f64);

impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
        percent.map(Self).ok_or_else(|| Error::invalid(format!("`{text}` is not a share; write one above 0% and up to 100%, e.g. 1%")))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A share, e.g. 1%", "pattern": "^[0-9]+([.][0-9]+)?%$" })
    }
}

/// What is done about rows that the source does not have.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`keep`, `remove`, or the limits of removal, e.g. `{ at_most: 5%, empty_answers: true }`")]
pub(super) enum Deleted {
    /// One word.
    Word(Word),
    /// They are removed within limits.
    Remove(Removal),
}

/// What is done, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    /// They stay, and are counted.
    Keep,
    /// A repair removes them, within the limits that hold by default.
    Remove,
}

/// The limits of removal.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    /// The largest share of the compared rows that the source may lack, those included that were removed before; 1% by default. Above it, the
    /// step is blind.
    #[serde(default)]
    at_most: Option<Share>,
    /// Whether rows are removed too where an answer of the source has no row at all of their key; false by default.
    #[serde(default)]
    empty_answers: bool,
}

impl Deleted {
    /// The limits of removal; `None` if nothing is removed.
    pub(super) fn removal(self) -> Option<Removal> {
        match self {
            Self::Word(Word::Keep) => None,
            Self::Word(Word::Remove) => Some(Removal::default()),
            Self::Remove(limits) => Some(limits),
        }
    }
}

impl Removal {
    /// Whether rows of a key may be removed because of an answer with this many rows of it.
    pub(super) fn believes(self, rows: u64) -> bool {
        self.empty_answers || rows > 0
    }

    /// Checks the share of rows that the source lacks.
    ///
    /// # Errors
    /// `blind` if it is larger than allowed.
    #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
    pub(super) fn check(self, counts: &ComparedCounts, table: &str, source: &str) -> Result<()> {
        let lacking = counts.only_table + counts.removed;
        let all = counts.slots + lacking;
        let at_most = self.at_most.unwrap_or(Share(AT_MOST_PERCENT));
        if lacking == 0 || lacking as f64 * 100.0 <= all as f64 * at_most.0 {
            return Ok(());
        }
        let before = match counts.removed {
            0 => String::new(),
            removed => format!(", {removed} of which were removed before"),
        };
        Err(Error::blind(format!(
            "source `{source}` says that there is no row in {lacking} of {all} slots of table `{table}` with a row{before}, and `deleted` allows {at_most}, \
             so the source may have failed and nothing is removed; check the source and, if the rows are really gone there, raise `at_most`, e.g. \
             `deleted: {{ at_most: {}% }}`, or keep them with `deleted: keep`",
            (lacking as f64 * 100.0 / all as f64).ceil()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_before_counts_towards_the_share() {
        let removal = |text: &str| serde_json::from_str::<Deleted>(text).unwrap().removal();
        assert!(removal("\"keep\"").is_none());
        let counts = |slots, only_table, removed| ComparedCounts { slots, only_table, removed, ..ComparedCounts::default() };
        let plain = removal("\"remove\"").unwrap();
        for (counts, fits) in [(counts(99, 1, 0), true), (counts(98, 1, 0), false), (counts(198, 1, 1), true), (counts(197, 1, 1), false)] {
            assert_eq!(plain.check(&counts, "t", "s").is_ok(), fits, "{counts:?}");
        }
        assert!(plain.check(&counts(0, 0, 0), "t", "s").is_ok());
        let more = removal(r#"{ "at_most": "2.5%" }"#).unwrap();
        assert!(more.check(&counts(39, 1, 0), "t", "s").is_ok() && more.check(&counts(38, 1, 0), "t", "s").is_err());
        assert!(!more.believes(0) && more.believes(1) && removal(r#"{ "empty_answers": true }"#).unwrap().believes(0));
        for wrong in ["\"delete\"", r#"{ "at_most": "0%" }"#, r#"{ "at_most": 5 }"#, r#"{ "remove": true }"#] {
            assert!(serde_json::from_str::<Deleted>(wrong).is_err(), "{wrong}");
        }
    }
}
