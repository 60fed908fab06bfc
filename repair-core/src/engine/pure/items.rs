//! The items of a map: what became of each, and the output of the step. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::pure::event::{ErrorRecord, Outcome};
use crate::error::ErrorKind;
use crate::model::Usage;
use crate::price::Spend;

/// How many bytes the output of one item may have, as JSON. A larger one is in the report of its run, and only its size in the step's output.
pub(crate) const MAX_OUTPUT_BYTES: usize = 16 * 1024;
/// How many bytes of results the step's output lists. Conditions and later steps read it, and the journal keeps it.
const MAX_RESULTS_BYTES: usize = 256 * 1024;

/// How the run for one item ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemResult {
    /// The run. It does not exist if what it needs was refused before it began.
    pub run: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// How many events the run had then. If it has more, it has gone on since.
    pub events: u64,
    /// The outputs of its steps, by name; null if they are too large to repeat here.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// How many bytes the outputs have, if they are too large to repeat here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorRecord>,
    /// What is still wrong, if it succeeded with exceptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<String>,
    /// How many slots are still missing, or otherwise wrong, as far as the run knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: u64,
    /// What the run has used, over all its attempts.
    #[serde(default)]
    pub usage: Usage,
    /// What the run has spent as budgets count it, if a budget applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<Spend>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The items of a map in one visit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MapState {
    /// The items.
    pub items: Vec<Value>,
    /// Which rows the query that gave them did not see, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// How the runs of items ended, by index. What is to be repeated is not here.
    pub ended: BTreeMap<u32, ItemResult>,
    /// The items to repeat, by index: how many events their runs had when they failed.
    pub again: BTreeMap<u32, u64>,
    /// What the run of each item has used.
    used: BTreeMap<u32, Usage>,
}

impl MapState {
    pub(crate) fn planned(items: Vec<Value>, unread: Option<String>) -> Self {
        Self { items, unread, ..Self::default() }
    }

    /// Takes note of how an item ended, and returns what its run has used since the last time.
    pub(crate) fn end(&mut self, item: u32, result: ItemResult) -> Usage {
        let before = self.used.insert(item, result.usage).unwrap_or_default();
        let since = result.usage.since(before);
        self.again.remove(&item);
        self.ended.insert(item, result);
        since
    }

    /// Lets failed items run again: those that failed with one of these kinds of errors, or all.
    pub(crate) fn retry(&mut self, kinds: Option<&[ErrorKind]>) {
        let again = |result: &ItemResult| {
            result.error.as_ref().is_some_and(|error| kinds.is_none_or(|kinds| kinds.contains(&error.kind))).then_some(result.events)
        };
        self.again.extend(self.ended.iter().filter_map(|(item, result)| Some((*item, again(result)?))));
        self.ended.retain(|_, result| again(result).is_none());
    }

    /// How many items there are.
    pub fn len(&self) -> u64 {
        self.items.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items that are to run, or run now, in order.
    pub fn pending(&self) -> impl Iterator<Item = u32> {
        (0u32..).take(self.items.len()).filter(|item| !self.ended.contains_key(item))
    }

    /// The items that failed, or were cancelled, in order.
    pub fn failures(&self) -> impl Iterator<Item = (u32, &ItemResult, &ErrorRecord)> {
        self.ended.iter().filter_map(|(item, result)| Some((*item, result, result.error.as_ref()?)))
    }

    /// How many failed, or were cancelled, by kind of error.
    pub fn failed_by_kind(&self) -> BTreeMap<ErrorKind, u64> {
        let mut kinds = BTreeMap::new();
        self.failures().for_each(|(_, _, error)| *kinds.entry(error.kind).or_default() += 1);
        kinds
    }

    /// The error of the step, if items failed: that of an item whose data could not be examined, or else of the first.
    pub(crate) fn error(&self) -> Option<ErrorRecord> {
        let failed = self.failures().count();
        let blind = self.failures().find(|(_, _, error)| error.kind == ErrorKind::Blind);
        let (item, result, error) = blind.or_else(|| self.failures().next())?;
        let items = self.len();
        let message = format!("{failed} of {items} items failed; item {item}, run `{}`: {}", result.run, error.message);
        Some(ErrorRecord { message, ..error.clone() })
    }

    /// The output of the step.
    pub(crate) fn output(&self) -> Value {
        let cancelled = self.ended.values().filter(|result| result.outcome == Outcome::Cancelled).count();
        let failed = self.failures().count() - cancelled;
        let succeeded = self.ended.len() - failed - cancelled;
        let (mut results, mut bytes) = (Vec::new(), 0);
        for (item, result) in &self.ended {
            let mut one = json!({
                "index": item,
                "item": self.items.get(*item as usize),
                "run": result.run,
                "outcome": result.outcome,
            });
            match (&result.error, result.output_bytes) {
                (Some(error), _) => one["error"] = json!({ "kind": error.kind, "message": error.message }),
                (None, Some(bytes)) => one["output_bytes"] = json!(bytes),
                (None, None) => one["output"] = result.output.clone(),
            }
            bytes += one.to_string().len();
            if bytes > MAX_RESULTS_BYTES {
                break;
            }
            results.push(one);
        }
        let left_out = self.ended.len() - results.len();
        json!({
            "items": self.items.len(),
            "succeeded": succeeded,
            "failed": failed,
            "cancelled": cancelled,
            "pending": self.pending().count(),
            "results": results,
            "left_out": left_out,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(error: Option<ErrorKind>, requests: u64) -> ItemResult {
        ItemResult {
            run: "r".to_owned(),
            outcome: if error.is_some() { Outcome::Failed } else { Outcome::Succeeded },
            events: 7,
            output: json!({ "look": { "missing": 0 } }),
            output_bytes: None,
            error: error.map(|kind| ErrorRecord { kind, message: "it is so".to_owned(), retry_after_ms: None }),
            exceptions: None,
            missing: 0,
            usage: Usage { source_requests: requests, ..Usage::default() },
            spend: None,
        }
    }

    #[test]
    fn only_items_that_failed_in_such_a_way_run_again() {
        let mut map = MapState::planned(vec![json!("a"), json!("a"), json!("b"), json!("c")], None);
        assert_eq!(map.end(0, result(None, 3)).source_requests, 3);
        map.end(1, result(Some(ErrorKind::Transient), 2));
        map.end(2, result(Some(ErrorKind::Denied), 1));
        assert_eq!(map.pending().collect::<Vec<_>>(), [3]);
        assert_eq!(map.error().unwrap().message, "2 of 4 items failed; item 1, run `r`: it is so");
        map.retry(Some(&[ErrorKind::Transient]));
        assert_eq!((map.pending().collect::<Vec<_>>(), map.again.clone()), (vec![1, 3], BTreeMap::from([(1, 7)])));
        // Its run says what it has used in all.
        assert_eq!(map.end(1, result(None, 5)).source_requests, 3);
        map.retry(None);
        assert_eq!(map.pending().collect::<Vec<_>>(), [2, 3]);
        assert!(map.error().is_none());
    }

    #[test]
    fn what_could_not_be_examined_is_the_error_of_the_step() {
        let mut map = MapState::planned(vec![json!(1), json!(2)], None);
        map.end(0, result(Some(ErrorKind::Denied), 0));
        map.end(1, result(Some(ErrorKind::Blind), 0));
        assert_eq!(map.error().unwrap().kind, ErrorKind::Blind);
    }

    #[test]
    fn an_output_lists_results_as_far_as_there_is_room_and_counts_the_rest() {
        let mut map = MapState::planned((0..40).map(|at| json!({ "at": at, "text": "x".repeat(10_000) })).collect(), None);
        for at in 0..40 {
            map.end(at, result(None, 0));
        }
        let output = map.output();
        let listed = output["results"].as_array().unwrap().len();
        assert!((1..40).contains(&listed), "{listed}");
        assert_eq!((output["succeeded"].as_u64(), output["left_out"].as_u64()), (Some(40), Some(40 - listed as u64)));
        assert_eq!(
            MapState::default().output(),
            json!({ "items": 0, "succeeded": 0, "failed": 0, "cancelled": 0, "pending": 0, "results": [], "left_out": 0 })
        );
    }
}
