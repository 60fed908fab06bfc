//! Compaction: many small objects of an overlay become one with the same rows. Values only, no I/O.
//!
//! The new object is written first, and its members are removed after it. So a row may be in two objects: for a moment, or after a crash until the
//! next compaction; and a batch that is published once more comes back beside the object that it has become part of. Readers of an overlay
//! therefore take its rows as a set: the same row twice is one row.
//!
//! A row keeps all of its columns, so whose it is, what it did and when it was made stay known; undo and redo refer to rows, not to objects.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::lake::overlay::owner::Kind;
use crate::lake::overlay::staging::StagedRows;
use crate::model::Usage;

/// The members of a compaction have together at most this many bytes, since their rows are in memory at once, where they take some ten times as much.
const MOST_BYTES: u64 = 16 << 20;

/// An object of this size is large enough to stay as it is. Otherwise each compaction would write all rows of a partition again.
const LARGE_BYTES: u64 = MOST_BYTES / 2;

/// The members of a compaction are at most so many, since each is a request or more.
const MOST_MEMBERS: usize = 10_000;

/// How the name of a compacted object begins. No other object has such a name, and it sorts behind all others: who lists a folder in order while it is
/// compacted, and no longer finds a member, still comes to the object that has its rows.
const COMPACTED: &str = "~compacted.";

/// An object of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    /// Its name in the folder of its partition.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Objects of one partition of an overlay that can become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Compactable {
    /// Whether they hold repairs or exceptions.
    pub kind: Kind,
    /// The folder of their partition, such as `date=2024-03-04`; `None` if the table has no partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The objects, in order of name; two at least.
    pub members: Vec<Member>,
}

impl Compactable {
    /// The size of all members.
    pub fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.bytes).sum()
    }
}

/// Which of the objects of an overlay can become one, each listed with the table it is of and its partition. Those that are large already stay.
pub fn compactable(objects: impl IntoIterator<Item = (Kind, Option<String>, Member)>) -> Vec<Compactable> {
    let mut by_place: BTreeMap<(Kind, Option<String>), Vec<Member>> = BTreeMap::new();
    for (kind, partition, member) in objects.into_iter().filter(|(.., member)| member.bytes < LARGE_BYTES) {
        by_place.entry((kind, partition)).or_default().push(member);
    }
    let mut all = Vec::new();
    for ((kind, partition), mut members) in by_place {
        members.sort();
        let (mut group, mut bytes): (Vec<Member>, u64) = (Vec::new(), 0);
        let mut end = |group: &mut Vec<Member>| {
            let members = std::mem::take(group);
            if members.len() > 1 {
                all.push(Compactable { kind, partition: partition.clone(), members });
            }
        };
        for member in members {
            if bytes + member.bytes > MOST_BYTES || group.len() >= MOST_MEMBERS {
                end(&mut group);
                bytes = 0;
            }
            bytes += member.bytes;
            group.push(member);
        }
        end(&mut group);
    }
    all
}

/// The error for a compaction of objects that are no longer as they were listed.
pub fn outdated(name: &str) -> Error {
    let message = format!("the object {name} is not there any more, so others have changed what is to be compacted; list it again");
    Error::new(crate::error::ErrorKind::Conflict, message)
}

/// The error for members whose rows are in no other object.
pub fn not_written(object: &str) -> Error {
    let message = format!("there is no object {object}, so the objects that it was to stand for stay");
    Error::new(crate::error::ErrorKind::Conflict, message)
}

/// What identifies the content of an object.
pub type Digest = [u8; 32];

/// The digest of an object's bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    *blake3::hash(bytes).as_bytes()
}

/// An object that was read to be compacted.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in the folder of its partition.
    pub name: String,
    /// What identifies its content.
    pub digest: Digest,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
}

/// What a compaction writes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Merged {
    /// The name of the object. It follows from the names and the content of the members.
    pub object: String,
    /// The names of the members.
    pub members: Vec<String>,
    /// The columns of the object: those of all members.
    pub schema: SchemaRef,
    /// Its rows: those of the members in their order, each once.
    pub batches: Vec<RecordBatch>,
}

/// What the given objects become. Members that have a column in different types become different objects, since no value may change; one that is alone
/// in this stays as it is.
///
/// # Errors
/// `invalid` if the rows of an object are not those of its columns.
pub fn merged(sources: Vec<Source>) -> Result<Vec<Merged>> {
    let mut alike: Vec<(Vec<Field>, Vec<Source>)> = Vec::new();
    for source in sources {
        let place = alike.iter_mut().find(|(fields, _)| fit(fields, &source.schema));
        let (fields, members) = match place {
            Some(known) => known,
            None => {
                alike.push((Vec::new(), Vec::new()));
                alike.last_mut().ok_or_else(|| Error::internal("a list lost its end"))?
            }
        };
        add(fields, &source.schema, members.is_empty());
        members.push(source);
    }
    alike.retain(|(_, members)| members.len() > 1);
    alike.into_iter().map(|(fields, members)| merged_alike(fields, members)).collect()
}

/// Whether columns agree in their types.
fn fit(fields: &[Field], schema: &Schema) -> bool {
    let agree = |field: &Arc<Field>| fields.iter().all(|known| known.name() != field.name() || known.data_type() == field.data_type());
    schema.fields().iter().all(agree)
}

/// Adds the columns of an object to those of the objects before it. What some objects lack may be null.
fn add(fields: &mut Vec<Field>, schema: &Schema, is_first: bool) {
    for known in fields.iter_mut() {
        let nullable = schema.field_with_name(known.name()).map_or(true, Field::is_nullable);
        *known = known.clone().with_nullable(known.is_nullable() || nullable);
    }
    for field in schema.fields() {
        if fields.iter().all(|known| known.name() != field.name()) {
            let field = field.as_ref().clone();
            let nullable = field.is_nullable() || !is_first;
            fields.push(field.with_nullable(nullable));
        }
    }
}

fn merged_alike(fields: Vec<Field>, members: Vec<Source>) -> Result<Merged> {
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let object = object(&members);
    let (mut rows, mut distinct, mut names) = (StagedRows::default(), Distinct::default(), Vec::with_capacity(members.len()));
    for member in members {
        for batch in member.batches {
            rows.add([distinct.keep(&conformed(&schema, &batch).map_err(|error| error.on("object", &member.name))?)?])?;
        }
        names.push(member.name);
    }
    // Joined batches are of the same columns, but perhaps not of the same description of these.
    let mut batches = rows.finish()?;
    for batch in &mut batches {
        *batch = conformed(&schema, batch)?;
    }
    batches.retain(|batch| batch.num_rows() > 0);
    Ok(Merged { object, members: names, schema, batches })
}

/// A batch with exactly these columns; those that it lacks are null.
fn conformed(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let column =
        |field: &Arc<Field>| batch.column_by_name(field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows));
    let columns: Vec<ArrayRef> = schema.fields().iter().map(column).collect();
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// The name of the object that some become.
fn object(members: &[Source]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut generation = 0u32;
    for member in members {
        hasher.update(&u64::try_from(member.name.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(member.name.as_bytes());
        hasher.update(&member.digest);
        generation = generation.max(generation_of(&member.name));
    }
    let hash = hasher.finalize().to_hex();
    // As the names of all published objects, it has four parts: see `owner::is_object`.
    format!("{COMPACTED}{:06}-{}-1-0.parquet", generation.saturating_add(1), hash.get(..32).unwrap_or_default())
}

/// How often the rows of an object have been compacted, by its name: an object sorts behind those that it stands for, compacted ones included.
fn generation_of(name: &str) -> u32 {
    let number = name.strip_prefix(COMPACTED).and_then(|rest| rest.split_once('-')).map(|(number, _)| number);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl Merged {
    /// Checks what was read back of the object before its members are removed.
    ///
    /// # Errors
    /// `internal` if it does not hold the rows of the members.
    pub fn check(&self, read: &[RecordBatch]) -> Result<()> {
        let all = |batches: &[RecordBatch]| -> Result<Vec<Print>> {
            let mut all = Vec::new();
            for batch in batches {
                all.extend(prints(&conformed(&self.schema, batch)?)?);
            }
            Ok(all)
        };
        if all(&self.batches)? != all(read)? {
            let message = "a compacted object does not hold the rows that were written to it, so the objects that it was to stand for stay";
            return Err(Error::internal(message).on("object", &self.object));
        }
        Ok(())
    }

    /// What was written, with the size of the object and what writing it used.
    pub fn written(self, of: &Compactable, bytes: u64, usage: Usage) -> Compacted {
        let Self { object, members, batches, .. } = self;
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        Compacted { kind: of.kind, partition: of.partition.clone(), object, members, rows, bytes, usage }
    }
}

/// An object that stands for others, which may still be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Compacted {
    /// Whether it holds repairs or exceptions.
    pub kind: Kind,
    /// The folder of its partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Its name in that folder.
    pub object: String,
    /// The names of the objects that it stands for.
    pub members: Vec<String>,
    /// How many rows it has.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// What writing it used.
    pub usage: Usage,
}

/// What identifies a row. Of a set of rows as large as any, two have the same only if they are equal.
pub type Print = [u8; 16];

/// Takes rows as a set: leaves out those that have come before.
#[derive(Debug, Default)]
pub struct Distinct {
    seen: HashSet<Print>,
}

impl Distinct {
    /// The rows of a batch that have not come before, in any column that is not null.
    ///
    /// # Errors
    /// `invalid` if a value can neither be compared nor written as text.
    pub fn keep(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let new: Vec<bool> = prints(batch)?.into_iter().map(|print| self.seen.insert(print)).collect();
        if new.iter().all(|new| *new) {
            return Ok(batch.clone());
        }
        Ok(filter_record_batch(batch, &BooleanArray::from(new))?)
    }
}

/// What identifies each row of a batch: the values of its columns by name, those that are null left out, so that neither the order of columns matters nor
/// columns that the table got later.
pub(crate) fn prints(batch: &RecordBatch) -> Result<Vec<Print>> {
    let mut columns: Vec<(&str, &ArrayRef)> =
        batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, column)| (field.name().as_str(), column)).collect();
    columns.sort_unstable_by_key(|(name, _)| *name);
    let mut hashers = vec![blake3::Hasher::new(); batch.num_rows()];
    let add = |hasher: &mut blake3::Hasher, name: &str, value: &[u8]| {
        for text in [name.as_bytes(), value] {
            hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(text);
        }
    };
    for (name, column) in columns {
        let nulls = column.logical_nulls();
        let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        let field = SortField::new(column.data_type().clone());
        if RowConverter::supports_fields(std::slice::from_ref(&field)) {
            let rows = RowConverter::new(vec![field])?.convert_columns(std::slice::from_ref(column))?;
            for (row, hasher) in hashers.iter_mut().enumerate().filter(|(row, _)| !is_null(*row)) {
                add(hasher, name, rows.row(row).as_ref());
            }
        } else {
            for (row, hasher) in hashers.iter_mut().enumerate().filter(|(row, _)| !is_null(*row)) {
                add(hasher, name, array_value_to_string(column, row)?.as_bytes());
            }
        }
    }
    let print = |hasher: blake3::Hasher| {
        let mut print = Print::default();
        hasher.finalize_xof().fill(&mut print);
        print
    };
    Ok(hashers.into_iter().map(print).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
    }

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn floats(values: &[f64]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn source(name: &str, batch: RecordBatch) -> Source {
        Source { name: name.to_owned(), digest: digest(name.as_bytes()), schema: batch.schema(), batches: vec![batch] }
    }

    fn member(name: &str, bytes: u64) -> Member {
        Member { name: name.to_owned(), bytes }
    }

    #[test]
    fn objects_are_joined_by_partition_up_to_a_size_and_large_ones_stay() {
        let day = |day: &str| Some(format!("date={day}"));
        let found = compactable([
            (Kind::Repairs, day("b"), member("2", 5)),
            (Kind::Repairs, day("b"), member("1", 5)),
            (Kind::Repairs, day("b"), member("3", LARGE_BYTES)),
            (Kind::Exceptions, day("b"), member("1", 5)),
            (Kind::Repairs, day("a"), member("1", 5)),
            (Kind::Repairs, None, member("1", LARGE_BYTES - 1)),
            (Kind::Repairs, None, member("2", LARGE_BYTES - 1)),
            (Kind::Repairs, None, member("3", LARGE_BYTES - 1)),
            (Kind::Repairs, None, member("4", 1)),
        ]);
        let names: Vec<(Option<String>, Vec<&str>)> =
            found.iter().map(|one| (one.partition.clone(), one.members.iter().map(|member| member.name.as_str()).collect())).collect();
        assert_eq!(names, [(None, vec!["1", "2"]), (None, vec!["3", "4"]), (day("b"), vec!["1", "2"])]);
        assert!(found.iter().all(|one| one.kind == Kind::Repairs && one.bytes() <= MOST_BYTES));
    }

    #[test]
    fn rows_are_a_set_and_no_value_changes() {
        let first = batch(vec![("run", texts(&["a", "a"])), ("price", floats(&[0.0, -0.0]))]);
        // The same rows in another order of columns, with a column that came later, and one row that is new.
        let later: ArrayRef = Arc::new(Int64Array::from(vec![None, None, Some(7)]));
        let second = batch(vec![("price", floats(&[-0.0, f64::NAN, 0.0])), ("later", later), ("run", texts(&["a", "a", "a"]))]);
        let all = merged(vec![source("1", first), source("2", second)]).unwrap();
        let [one] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(one.members, ["1", "2"]);
        let rows: usize = one.batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 4, "a zero, another, no number, and a zero with a later column");
        one.check(&one.batches).unwrap();
        let fewer: Vec<RecordBatch> = one.batches.iter().map(|batch| batch.slice(0, batch.num_rows() - 1)).collect();
        assert!(one.check(&fewer).is_err());
    }

    #[test]
    fn columns_of_other_types_are_not_joined() {
        let of = |name: &str, column: ArrayRef| source(name, batch(vec![("price", column)]));
        let whole = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        let all = merged(vec![of("1", whole(1)), of("2", floats(&[1.5])), of("3", whole(9_007_199_254_740_993)), of("4", texts(&["x"]))]);
        let members: Vec<Vec<String>> = all.unwrap().into_iter().map(|one| one.members).collect();
        assert_eq!(members, [["1", "3"]]);
    }

    #[test]
    fn a_name_follows_from_the_members_and_sorts_behind_them() {
        let of = |names: &[&str]| {
            let sources: Vec<Source> = names.iter().map(|name| source(name, batch(vec![("run", texts(&[name]))]))).collect();
            merged(sources).unwrap().remove(0).object
        };
        let first = of(&["run-fill-1-0.parquet", "zz%7E-fill-1-0.parquet"]);
        assert_eq!(first, of(&["run-fill-1-0.parquet", "zz%7E-fill-1-0.parquet"]));
        let second = of(&[&first, "zz-fill-1-0.parquet"]);
        assert!(first.as_str() > "zz%7E-fill-1-0.parquet" && second > first, "{first} {second}");
        assert_eq!((generation_of(&first), generation_of(&second)), (1, 2));
        for name in [first, second] {
            assert!(crate::lake::overlay::owner::is_object(&format!("bars_repairs/date=2024-03-04/{name}")), "{name}");
        }
    }
}
