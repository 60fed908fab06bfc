//! Retractions take back what runs have added to a table: small records beside it, each written whole or not at all. Values only, no I/O.
//!
//! Retracted rows stay where they are, but are hidden: the repaired view and presence read as if they had never been published. Another
//! retraction can undo a retraction, so nothing is ever lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lake::overlay;
use crate::lake::overlay::aside;
use crate::lake::overlay::columns;
use crate::lake::partition::TimeBounds;
use crate::lake::{rollup, shape};
use crate::model::{Interval, Key, Table};

/// The most parts of one retraction. Each is checked for each row of its run, and all are in one object.
pub const MAX_PARTS: usize = 100_000;

/// Which rows of the overlay a retraction hides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Repaired rows and exceptions.
    #[default]
    All,
    /// Repaired rows only.
    Repairs,
    /// Exceptions only.
    Exceptions,
}

impl Kind {
    /// Its value in the column [`names::KIND`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Repairs => "repairs",
            Self::Exceptions => "exceptions",
        }
    }

    fn parse(word: &str) -> Result<Self> {
        [Self::All, Self::Repairs, Self::Exceptions]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| Error::invalid(format!("`{word}` in column `{}` is not a kind of retracted rows", names::KIND)))
    }

    /// Whether `self` includes rows of `other`, which is not `All`.
    fn holds(self, other: Self) -> bool {
        self == Self::All || self == other
    }
}

/// Part of what a run added: all of it, unless narrowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// The run.
    pub run: String,
    /// Only of this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Only of this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Only of slots that begin within this interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Repaired rows, exceptions, or both.
    #[serde(default)]
    pub kind: Kind,
}

impl Part {
    /// Everything that a run added.
    pub fn of_run(run: impl Into<String>) -> Self {
        Self { run: run.into(), step: None, key: None, interval: None, kind: Kind::All }
    }
}

/// A retraction hides what runs have added, or undoes another retraction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retraction {
    /// Its name; writing it twice has the effect of writing it once.
    pub id: String,
    /// What it hides.
    pub parts: Vec<Part>,
    /// The retraction that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
    /// When it was made.
    pub at: Timestamp,
    /// Who made it.
    pub by: String,
    /// Why it was made.
    pub reason: String,
}

/// The columns of `…_retractions` that the overlay's other tables do not have.
pub mod names {
    /// The retraction's id.
    pub const ID: &str = "retraction";
    /// Which rows are hidden: `all`, `repairs` or `exceptions`.
    pub const KIND: &str = "retracted";
    /// The start of the hidden interval.
    pub const FROM: &str = "retracted_from";
    /// The end of the hidden interval, which is not in it.
    pub const TO: &str = "retracted_to";
    /// When it was written.
    pub const AT: &str = "retracted_at";
    /// Who made it.
    pub const BY: &str = "retracted_by";
    /// Why it was made.
    pub const REASON: &str = "retraction_reason";
    /// The retraction that this one undoes.
    pub const UNDOES: &str = "retraction_undoes";
}

/// The columns of `…_retractions`: one row for each part, or one row for a retraction that undoes another. A null matches anything.
pub fn schema(table: &Table) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let instant = |name: &str| Field::new(name, overlay::instant_type(), true);
    let mut fields = vec![text(names::ID), text(names::KIND), text(columns::RUN), text(columns::STEP)];
    fields.extend(table.key.iter().map(|key| text(key)));
    fields.extend([
        instant(names::FROM),
        instant(names::TO),
        instant(names::AT),
        text(names::BY),
        text(names::REASON),
        text(names::UNDOES),
    ]);
    Arc::new(Schema::new(fields))
}

/// The name of a retraction's object.
pub fn object(id: &str) -> String {
    format!("{}.parquet", crate::lake::name::part(id))
}

impl Retraction {
    /// Checks that it can be written beside a table.
    ///
    /// # Errors
    /// `invalid` if it hides nothing and undoes nothing, does both, has too many parts, or has a key that does not fit the table.
    pub fn check(&self, table: &Table) -> Result<()> {
        if self.parts.is_empty() == self.undoes.is_none() {
            return Err(Error::invalid("a retraction must hide something or undo another, and not both"));
        }
        if self.parts.len() > MAX_PARTS {
            return Err(Error::invalid(format!(
                "a retraction of {} parts is too large; retract the whole run, or fewer than {MAX_PARTS} at a time",
                self.parts.len()
            )));
        }
        self.parts.iter().filter_map(|part| part.key.as_ref()).try_for_each(|key| shape::check_keys(table, std::slice::from_ref(key)))
    }

    /// As rows of `…_retractions`.
    ///
    /// # Errors
    /// As [`Retraction::check`].
    pub fn to_batch(&self, table: &Table) -> Result<RecordBatch> {
        self.check(table)?;
        let nothing = [Part::of_run("")];
        let (parts, is_undo) = if self.parts.is_empty() { (&nothing[..], true) } else { (&self.parts[..], false) };
        let count = parts.len();
        let texts = |of: &dyn Fn(&Part) -> Option<String>| -> ArrayRef { Arc::new(parts.iter().map(of).collect::<StringArray>()) };
        let same = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; count])) };
        let instants = |of: &dyn Fn(&Part) -> Option<Timestamp>| -> ArrayRef {
            let times: TimestampMicrosecondArray = parts.iter().map(|part| of(part).map(Timestamp::as_microsecond)).collect();
            Arc::new(times.with_timezone("UTC"))
        };
        let mut all = vec![
            same(&self.id),
            texts(&|part| (!is_undo).then(|| part.kind.as_str().to_owned())),
            texts(&|part| (!is_undo).then(|| part.run.clone())),
            texts(&|part| part.step.clone()),
        ];
        for at in 0..table.key.len() {
            all.push(texts(&|part| part.key.as_ref().and_then(|key| key.values().nth(at).map(str::to_owned))));
        }
        all.extend([
            instants(&|part| part.interval.map(|interval| interval.from())),
            instants(&|part| part.interval.map(|interval| interval.to())),
            instants(&|_| Some(self.at)),
            same(&self.by),
            same(&self.reason),
            texts(&|_| self.undoes.clone()),
        ]);
        Ok(RecordBatch::try_new(schema(table), all)?)
    }

    /// From the rows of an object, as [`Retraction::to_batch`] wrote them.
    ///
    /// # Errors
    /// `invalid` if they are not such rows.
    pub fn from_batch(table: &Table, batch: &RecordBatch) -> Result<Self> {
        let text = |name: &str| -> Result<&StringArray> {
            rollup::column(batch, name)?
                .as_string_opt::<i32>()
                .ok_or_else(|| Error::invalid(format!("column `{name}` of a retraction is not text")))
        };
        let instant = |name: &str| -> Result<&TimestampMicrosecondArray> {
            rollup::column(batch, name)?
                .as_primitive_opt::<TimestampMicrosecondType>()
                .ok_or_else(|| Error::invalid(format!("column `{name}` of a retraction is not a time")))
        };
        fn value(array: &StringArray, row: usize) -> Option<String> {
            array.is_valid(row).then(|| array.value(row).to_owned())
        }
        let needed = |name: &str| -> Result<String> {
            let first = if batch.num_rows() > 0 { value(text(name)?, 0) } else { None };
            first.ok_or_else(|| Error::invalid(format!("a retraction has no `{name}`")))
        };
        let time =
            |us: i64| Timestamp::from_microsecond(us).map_err(|error| Error::invalid("a retraction's time is out of range").because(error));
        let (id, by, reason) = (needed(names::ID)?, needed(names::BY)?, needed(names::REASON)?);
        let (kinds, runs, steps) = (text(names::KIND)?, text(columns::RUN)?, text(columns::STEP)?);
        let (from, to, at) = (instant(names::FROM)?, instant(names::TO)?, instant(names::AT)?);
        // Marks of stale aggregates have no key, and are written by code that does not know the table's key.
        let keyless = batch.num_columns() + table.key.len() == schema(table).fields().len();
        let keys = if keyless { Vec::new() } else { table.key.iter().map(|key| text(key)).collect::<Result<_>>()? };
        let mut parts = Vec::new();
        for row in 0..batch.num_rows() {
            let Some(run) = value(runs, row) else { continue };
            let interval = match (from.is_valid(row), to.is_valid(row)) {
                (true, true) => Some(Interval::new(time(from.value(row))?, time(to.value(row))?)?),
                (false, false) => None,
                _ => return Err(Error::invalid(format!("retraction `{id}` has only one end of an interval"))),
            };
            let values: Option<Vec<String>> = keys.iter().map(|column| value(column, row)).collect();
            let key = values.filter(|values| !values.is_empty()).map(Key::new);
            let kind = Kind::parse(&value(kinds, row).unwrap_or_default())?;
            parts.push(Part { run, step: value(steps, row), key, interval, kind });
        }
        Ok(Self { id, parts, undoes: value(text(names::UNDOES)?, 0), at: time(at.value(0))?, by, reason })
    }
}

/// The ids of undone retractions.
pub fn undone(all: &[Retraction]) -> BTreeSet<&str> {
    all.iter().filter_map(|retraction| retraction.undoes.as_deref()).collect()
}

/// The retractions in force: those that hide something and are not undone.
pub fn in_force(all: &[Retraction]) -> impl Iterator<Item = &Retraction> {
    let undone = undone(all);
    let hides = |retraction: &Retraction| retraction.undoes.is_none() && !aside::is_decision(retraction);
    all.iter().filter(move |retraction| hides(retraction) && !undone.contains(retraction.id.as_str()))
}

/// Parts of one run, by key; those of all keys are under `None`.
type OfRun = HashMap<Option<Key>, Vec<Rule>>;

#[derive(Debug, Clone)]
struct Rule {
    step: Option<String>,
    bounds: TimeBounds,
    kind: Kind,
    id: Arc<str>,
}

/// What is hidden in a table's overlay.
#[derive(Debug, Clone, Default)]
pub struct Retracted {
    runs: BTreeMap<String, OfRun>,
}

impl Retracted {
    /// What the retractions of a table hide.
    pub fn of(table: &Table, all: &[Retraction]) -> Self {
        let mut runs: BTreeMap<String, OfRun> = BTreeMap::new();
        for retraction in in_force(all) {
            let id: Arc<str> = retraction.id.as_str().into();
            for part in &retraction.parts {
                let bounds = TimeBounds::of_interval(table, part.interval.as_ref());
                let rule = Rule { step: part.step.clone(), bounds, kind: part.kind, id: id.clone() };
                // A table without key columns is one series, so a part for its only key is a part for all keys.
                let key = part.key.clone().filter(|_| !table.key.is_empty());
                runs.entry(part.run.clone()).or_default().entry(key).or_default().push(rule);
            }
        }
        Self { runs }
    }

    /// Whether nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether a repaired row is hidden.
    pub fn hides_repair(&self, run: &str, step: &str, key: &Key, time_us: i64) -> bool {
        self.hiding(Kind::Repairs, run, step, key, time_us).is_some()
    }

    /// Whether an exception is hidden.
    pub fn hides_exception(&self, run: &str, step: &str, key: &Key, time_us: i64) -> bool {
        self.hiding(Kind::Exceptions, run, step, key, time_us).is_some()
    }

    /// The id of a retraction that hides a row of this kind.
    pub fn hiding(&self, kind: Kind, run: &str, step: &str, key: &Key, time_us: i64) -> Option<&str> {
        let of_run = self.runs.get(run)?;
        let holds = |rule: &&Rule| {
            rule.kind.holds(kind) && rule.bounds.contains(time_us) && rule.step.as_deref().is_none_or(|of_step| of_step == step)
        };
        let any = of_run.get(&None).into_iter().flatten();
        let of_key = of_run.get(&Some(key.clone())).into_iter().flatten();
        any.chain(of_key).find(holds).map(|rule| rule.id.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cadence, Format, TimeMark};

    fn table() -> Table {
        Table {
            name: "bars".into(),
            location: "bars".into(),
            format: Format::Parquet,
            partition_by: vec![],
            key: vec!["symbol".into()],
            time: "ts".into(),
            time_marks: TimeMark::Start,
            cadence: Some(Cadence::MINUTE),
            ..Table::implicit("bars", "ts")
        }
    }

    fn retraction(id: &str, parts: Vec<Part>, undoes: Option<&str>) -> Retraction {
        let at = "2024-04-01T00:00:00Z".parse().unwrap();
        Retraction { id: id.into(), parts, undoes: undoes.map(str::to_owned), at, by: "me".into(), reason: "wrong".into() }
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let table = table();
        let hour = Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T10:00:00Z").unwrap();
        let part = Part {
            step: Some("fill".into()),
            key: Some(Key::from("IBM")),
            interval: Some(hour),
            kind: Kind::Exceptions,
            ..Part::of_run("r")
        };
        for one in [retraction("a", vec![part, Part::of_run("s")], None), retraction("b", vec![], Some("a"))] {
            let rows = one.to_batch(&table).unwrap();
            assert_eq!(Retraction::from_batch(&table, &rows).unwrap(), one);
        }
        for odd in [retraction("a", vec![], None), retraction("a", vec![Part::of_run("r")], Some("b"))] {
            assert!(odd.to_batch(&table).is_err());
        }
        let two_values = Part { key: Some(Key::new(["a", "b"])), ..Part::of_run("r") };
        assert!(retraction("a", vec![two_values], None).to_batch(&table).is_err());
    }

    #[test]
    fn what_is_hidden_is_what_a_part_says_and_nothing_else() {
        let table = table();
        let hour = Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T10:00:00Z").unwrap();
        let inside = hour.from().as_microsecond();
        let part = Part { step: Some("fill".into()), key: Some(Key::from("A")), interval: Some(hour), ..Part::of_run("r") };
        let hidden = Retracted::of(&table, &[retraction("a", vec![part], None)]);
        let a = Key::from("A");
        assert!(hidden.hides_repair("r", "fill", &a, inside) && hidden.hides_exception("r", "fill", &a, inside));
        for (run, step, key, time_us) in [
            ("s", "fill", "A", inside),
            ("r", "other", "A", inside),
            ("r", "fill", "B", inside),
            ("r", "fill", "A", hour.to().as_microsecond()),
        ] {
            assert!(!hidden.hides_repair(run, step, &Key::from(key), time_us), "{run} {step} {key} {time_us}");
        }
        let undone = [retraction("a", vec![Part::of_run("r")], None), retraction("b", vec![], Some("a"))];
        assert!(Retracted::of(&table, &undone).is_empty());
    }
}
