//! Late truth: rows of the table's own for slots that were repaired before. They tell how right the repairs were.
//!
//! What is told is the whole of the interval that was looked at, computed anew; which slots were told before is kept beside the runs, so
//! that over all runs each slot is new once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::{StreamExt, TryStreamExt};

use crate::engine::drive::artifact::{from_json, not_ours, text, to_json};
use crate::engine::pure::event::{Event, LateTruth};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::lake::overlay::story::{KeySlots, judged};
use crate::lake::rollup::column;
use crate::model::{Key, Scope, Table};
use crate::plugin::StepContext;

/// Where the slots that were told are kept, as if it were a run: no run can have this id.
const AREA: &str = "late.truth";

const STRATEGY: &str = "strategy";
const KEY: &str = "key";
const FIRST: &str = "first_slot";
const END: &str = "end_slot";
const TOLD_BY: &str = "told_by";

/// Slots that were told, by repair idea, each with the step of a run that told it first.
#[derive(Debug, Default)]
struct Told(BTreeMap<String, BTreeMap<(Key, i64), Arc<str>>>);

impl Told {
    /// Takes up the slots of an idea; says how many of them nobody else has told before. To take them up again is to do it once.
    fn add(&mut self, strategy: &str, slots: KeySlots, by: &Arc<str>) -> u64 {
        let known = self.0.entry(strategy.to_owned()).or_default();
        slots.into_iter().map(|slot| u64::from(*known.entry(slot).or_insert_with(|| by.clone()) == *by)).sum()
    }

    fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    async fn read(lake: &dyn Lake, table: &Table) -> Result<Self> {
        let mut told = Self::default();
        let mut batches = match lake.get_artifact(AREA, &table.location).await {
            Ok(batches) => batches,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(told),
            Err(error) => return Err(error),
        };
        while let Some(batch) = batches.try_next().await? {
            let number = |name| column(&batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| not_ours(name));
            let (strategies, keys, by) = (text(&batch, STRATEGY)?, text(&batch, KEY)?, text(&batch, TOLD_BY)?);
            let (first, end) = (number(FIRST)?, number(END)?);
            for row in 0..batch.num_rows() {
                let key = Key::new(from_json::<Vec<String>>(keys.value(row))?);
                let by: Arc<str> = by.value(row).into();
                let known = told.0.entry(strategies.value(row).to_owned()).or_default();
                known.extend((first.value(row)..end.value(row)).map(|slot| ((key.clone(), slot), by.clone())));
            }
        }
        Ok(told)
    }

    /// Runs of slots that one step told.
    fn to_batch(&self) -> Result<RecordBatch> {
        let mut rows: Vec<(&str, &Key, i64, i64, &str)> = Vec::new();
        for (strategy, slots) in &self.0 {
            for ((key, slot), by) in slots {
                match rows.last_mut() {
                    Some(last) if (last.0, last.1, last.3, last.4) == (strategy.as_str(), key, *slot, by) => last.3 += 1,
                    _ => rows.push((strategy, key, *slot, slot + 1, by)),
                }
            }
        }
        let keys = rows.iter().map(|row| to_json(&row.1.values().collect::<Vec<_>>())).collect::<Result<Vec<_>>>()?;
        let number = |of: fn(&(&str, &Key, i64, i64, &str)) -> i64| Arc::new(rows.iter().map(of).collect::<Int64Array>());
        let words = |of: for<'a> fn(&(&'a str, &'a Key, i64, i64, &'a str)) -> &'a str| {
            Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
        };
        let field = |name: &str, kind| Field::new(name, kind, false);
        let schema = Schema::new(vec![
            field(STRATEGY, DataType::Utf8),
            field(KEY, DataType::Utf8),
            field(FIRST, DataType::Int64),
            field(END, DataType::Int64),
            field(TOLD_BY, DataType::Utf8),
        ]);
        let keys = Arc::new(StringArray::from(keys));
        Ok(RecordBatch::try_new(
            Arc::new(schema),
            vec![words(|row| row.0), keys, number(|row| row.2), number(|row| row.3), words(|row| row.4)],
        )?)
    }
}

/// How right the repairs within a scope were, as far as rows came late; none if no row did.
///
/// It reads the repairs of the interval, and the table's rows from the first of them to the last, so it is asked only where presence shows
/// such rows. Two runs that tell of the same slots at the same instant may both call them new.
pub(crate) async fn truth(context: &StepContext, scope: &Scope) -> Result<Option<Event>> {
    let (lake, table) = (context.lake.as_ref(), context.table(&scope.table)?);
    let ideas = judged(lake, table, Some(scope.interval)).await?;
    if ideas.values().all(|(_, slots)| slots.is_empty()) {
        return Ok(None);
    }
    let by: Arc<str> = to_json(&(&*context.run, &*context.step))?.into();
    let mut told = Told::read(lake, table).await?;
    let before = told.len();
    let mut strategies = BTreeMap::new();
    for (strategy, (accuracy, slots)) in ideas.into_iter().filter(|(_, (_, slots))| !slots.is_empty()) {
        let count = slots.len() as u64;
        let new = told.add(&strategy, slots, &by);
        strategies.insert(strategy, LateTruth { slots: count, new, columns: accuracy.columns });
    }
    if told.len() > before {
        let batches = futures::stream::iter([told.to_batch()]).boxed();
        lake.put_artifact(AREA, &table.location, batches).await.map_err(|error: Error| error.on("table", &table.name))?;
    }
    Ok(Some(Event::LateTruth { step: context.step.to_string(), table: table.name.clone(), strategies }))
}
