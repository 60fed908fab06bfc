//! Whether a unit has arrived, by how many rows it holds. Pure.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

/// How many rows a unit needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum MinRows {
    /// So many.
    Rows(u64),
    /// This share of the median of the other units.
    Share(f64),
}

impl<'de> Deserialize<'de> for MinRows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = MinRows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of rows, or a share of the median of the other units, such as 50%")
            }

            fn visit_u64<E: serde::de::Error>(self, rows: u64) -> Result<MinRows, E> {
                if rows == 0 {
                    return Err(E::custom(
                        "`min_rows: 0` would take a unit without rows for one that arrived; leave it out, or give a number above 0",
                    ));
                }
                Ok(MinRows::Rows(rows))
            }

            fn visit_i64<E: serde::de::Error>(self, rows: i64) -> Result<MinRows, E> {
                self.visit_u64(u64::try_from(rows).map_err(|_| E::custom(format!("{rows} rows are less than none")))?)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MinRows, E> {
                let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
                let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
                percent.map(|percent| MinRows::Share(percent / 100.0)).ok_or_else(|| {
                    E::custom(format!(
                        "`{text}` is not a share of the median of the other units; write one above 0% and up to 100%, such as 50%"
                    ))
                })
            }
        }

        deserializer.deserialize_any(Either).map_err(D::Error::custom)
    }
}

impl JsonSchema for MinRows {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MinRows".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": "^[0-9]+(\\.[0-9]+)?%$",
            "description": "A number of rows, or a share of the median of the other units, such as 50%"
        })
    }
}

/// What a unit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// How many rows; of a series, how many slots that hold one or are confirmed absent.
    pub(super) rows: u64,
    /// The most that it can hold: of a series, its expected slots.
    pub(super) room: u64,
}

/// Whether a unit has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has enough rows.
    Arrived,
    /// It has no row.
    Missing,
    /// It has fewer rows than this.
    Short(u64),
    /// It has rows, and no other unit has any with which they could be compared.
    Alone,
}

impl Verdict {
    /// Whether the unit did not arrive as it should.
    pub(super) fn is_found(self) -> bool {
        matches!(self, Self::Missing | Self::Short(_))
    }
}

/// The verdicts on some units, of which `None` are not expected. A unit without room for the minimum needs all that it has room for.
pub(super) fn verdicts(min: Option<MinRows>, units: &[Option<Held>]) -> Vec<Option<Verdict>> {
    let mut rows: Vec<u64> = units.iter().flatten().map(|held| held.rows).filter(|rows| *rows > 0).collect();
    rows.sort_unstable();
    let verdict = |held: &Held| {
        if held.rows == 0 {
            return Verdict::Missing;
        }
        let least = match min {
            None => 1,
            Some(MinRows::Rows(least)) => least,
            Some(MinRows::Share(share)) => match median_of_others(&rows, held.rows) {
                Some(median) => at_least(share * median),
                None => return Verdict::Alone,
            },
        };
        let least = least.min(held.room);
        if held.rows < least { Verdict::Short(least) } else { Verdict::Arrived }
    };
    units.iter().map(|held| held.as_ref().map(verdict)).collect()
}

/// The median of sorted numbers without one of them; `None` if there are no others.
fn median_of_others(sorted: &[u64], without: u64) -> Option<f64> {
    let at = sorted.partition_point(|rows| *rows < without);
    let count = sorted.len().checked_sub(1).filter(|count| *count > 0)?;
    let other = |index: usize| sorted.get(if index < at { index } else { index + 1 }).copied();
    let (low, high) = (other((count - 1) / 2)?, other(count / 2)?);
    #[expect(clippy::cast_precision_loss, reason = "numbers of rows are far below 2^53")]
    Some((low as f64 + high as f64) / 2.0)
}

/// The smallest whole number that is not below a positive one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the number is positive, and no larger than a number of rows")]
fn at_least(number: f64) -> u64 {
    number.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(min: Option<MinRows>, rows: &[u64]) -> Vec<Verdict> {
        let units: Vec<Option<Held>> = rows.iter().map(|&rows| Some(Held { rows, room: 390 })).chain([None]).collect();
        let mut judged = verdicts(min, &units);
        assert_eq!(judged.pop(), Some(None), "what is not expected is not judged");
        judged.into_iter().flatten().collect()
    }

    #[test]
    fn a_unit_is_judged_by_its_rows_and_by_the_other_units() {
        use Verdict::{Alone, Arrived, Missing, Short};
        assert_eq!(judged(None, &[0, 1, 390]), [Missing, Arrived, Arrived]);
        assert_eq!(judged(Some(MinRows::Rows(300)), &[0, 299, 300]), [Missing, Short(300), Arrived]);
        assert_eq!(judged(Some(MinRows::Rows(1_000)), &[389, 390]), [Short(390), Arrived], "there is no room for more");
        // The unit itself and those without rows have no part in the median, or an outage would lower it.
        let half = Some(MinRows::Share(0.5));
        assert_eq!(judged(half, &[0, 0, 0, 100, 30, 120]), [Missing, Missing, Missing, Arrived, Short(55), Arrived]);
        assert_eq!(judged(half, &[10, 0, 10, 10, 4]), [Arrived, Missing, Arrived, Arrived, Short(5)]);
        assert_eq!(judged(half, &[0, 7]), [Missing, Alone]);
    }

    #[test]
    fn a_minimum_is_a_number_or_a_share() {
        let read = |text: &str| serde_json::from_str::<MinRows>(text).map_err(|error| error.to_string());
        assert_eq!((read("1000"), read("\"12.5 %\"")), (Ok(MinRows::Rows(1_000)), Ok(MinRows::Share(0.125))));
        for text in ["0", "-1", "\"0%\"", "\"150%\"", "\"half\"", "0.5"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
