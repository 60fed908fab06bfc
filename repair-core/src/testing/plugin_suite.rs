//! The promises that a [`Detector`], a [`Repairer`] and a [`Source`] make to the engine, whatever they find, repair or answer.
//!
//! The caller brings the plug-in and a context in which it has work to do ([`super::context`]).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a suite that fails, panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::row::{RowConverter, SortField};
use tokio_util::sync::CancellationToken;

use super::world::{FailingLake, MemoryLake};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::rollup::{column, key_columns};
use crate::model::{Findings, Fix, GapList, Key, SlotGrid, SlotRange, Table, Unit};
use crate::plugin::{Answer, Detector, GapSink, Repairer, Request, Source, StepContext};

/// How long a plug-in may take to notice that the run is to stop, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(120);

/// The kinds of error that a workflow retries, and that a plug-in must therefore pass on unchanged.
const RETRIED: [ErrorKind; 3] = [ErrorKind::Transient, ErrorKind::Throttled, ErrorKind::Timeout];

/// Calls every function for detectors, in a context in which this one finds something.
pub async fn detector(detector: &dyn Detector, context: &StepContext) {
    to_detect_twice_finds_the_same(detector, context).await;
    findings_add_up(detector, context).await;
    what_is_handed_over_is_what_is_found(detector, context).await;
    a_second_look_is_at_the_gaps_alone(detector, context).await;
    what_cannot_be_looked_at_is_never_clean(detector, context).await;
    a_detector_that_is_asked_to_stop_stops(detector, context).await;
}

/// Calls every function for repairers, in a context and with findings for which this one has work.
pub async fn repairer(repairer: &dyn Repairer, context: &StepContext, findings: &Findings) {
    units_are_distinct_and_of_what_was_found(repairer, context, findings).await;
    to_plan_or_repair_twice_is_the_same(repairer, context, findings).await;
    only_wanted_slots_are_repaired_each_once(repairer, context, findings).await;
    a_repairer_passes_on_errors_of_the_lake(repairer, context, findings).await;
    a_repairer_that_is_asked_to_stop_stops(repairer, context, findings).await;
}

/// Calls every function for sources, with a request that this one has rows for, and a key that it does not know, if there can be one.
pub async fn source(source: &dyn Source, context: &StepContext, request: &Request, unknown: Option<&Key>) {
    limits_allow_something(source);
    to_ask_twice_is_answered_the_same(source, context, request).await;
    an_answer_keeps_to_what_was_asked(source, context, request).await;
    a_source_that_is_asked_to_stop_stops(source, context, request).await;
    if let Some(unknown) = unknown {
        an_unknown_key_is_neither_answered_nor_covered(source, context, request, unknown).await;
    }
}

/// Two detections of the same data find the same.
pub async fn to_detect_twice_finds_the_same(detector: &dyn Detector, context: &StepContext) {
    let (first, second) = (detector.detect(context, None).await.unwrap(), detector.detect(context, None).await.unwrap());
    assert_eq!(first.scope, second.scope);
    assert_eq!(first.counts, second.counts);
    assert_eq!(first.gaps, second.gaps);
}

/// Gaps that a detector hands over as it finds them are those that it finds otherwise, and so are the counts, also in a second look.
pub async fn what_is_handed_over_is_what_is_found(detector: &dyn Detector, context: &StepContext) {
    let first = detector.detect(context, None).await.unwrap();
    for again in [None, Some(&first)] {
        let kept = detector.detect(context, again).await.unwrap();
        let (sink, mut taken) = GapSink::new();
        let detecting = async move { detector.detect_into(context, again, &sink).await };
        let taking = async move {
            let (mut all, mut lists) = (GapList::default(), 0);
            while let Some(gaps) = taken.recv().await {
                assert!(!gaps.is_empty(), "nothing is handed over");
                lists += 1;
                all.append(gaps);
            }
            (all, lists)
        };
        let (found, (all, lists)) = futures::join!(detecting, taking);
        let found = found.unwrap();
        assert_eq!((found.counts, &found.scope, found.kind), (kept.counts, &kept.scope, kept.kind));
        if lists > 0 {
            assert!(found.gaps.is_empty(), "gaps are handed over, and returned as well");
            assert_eq!(all, kept.gaps);
        } else {
            assert_eq!(found.gaps, kept.gaps);
        }
    }
}

/// How many slots have the defect that was looked for.
fn wrong(found: &Findings) -> u64 {
    found.counts.wrong(found.kind)
}

/// Every expected slot is present, absent or missing. The gaps are the missing or otherwise defective slots among those that were looked
/// at.
pub async fn findings_add_up(detector: &dyn Detector, context: &StepContext) {
    let found = detector.detect(context, None).await.unwrap();
    let counts = found.counts;
    assert_eq!(counts.expected, counts.present + counts.absent + counts.missing, "{counts:?}");
    assert!(counts.defective + counts.replaced <= counts.present && counts.changed <= counts.replaced, "{counts:?}");
    assert_eq!((found.gaps.missing(), found.gaps.len() as u64), (wrong(&found), counts.gaps));
    assert_eq!(counts.audited_keys, found.scope.keys.len() as u64, "audited keys are counted");
    assert!(counts.audited_keys > 0 && counts.expected > 0, "a detector that looked at nothing has found nothing: {counts:?}");
    let table = context.table(&found.scope.table).unwrap();
    if let Ok(grid) = table.grid() {
        assert_eq!(found.scope.grid, grid);
    }
    let (all, keys): (SlotRange, BTreeSet<&Key>) = (found.scope.slots(), found.scope.keys.iter().collect());
    let mut last: Option<(&Key, SlotRange)> = None;
    for (key, slots) in found.gaps.iter() {
        assert!(keys.contains(key) && !slots.is_empty() && slots.intersection(&all) == slots, "{key}: {slots:?}");
        let follows = last.is_none_or(|(last_key, last)| last_key < key || (last_key == key && last.end < slots.first));
        assert!(follows, "gaps come in order, apart from each other: {key}: {slots:?}");
        last = Some((key, slots));
    }
}

/// A second look at earlier findings counts those slots alone, and keeps their scope.
pub async fn a_second_look_is_at_the_gaps_alone(detector: &dyn Detector, context: &StepContext) {
    let found = detector.detect(context, None).await.unwrap();
    let again = detector.detect(context, Some(&found)).await.unwrap();
    assert_eq!(again.scope, found.scope);
    assert_eq!(again.counts.expected, wrong(&found), "only the slots that were found are looked at");
    assert_eq!(wrong(&again), wrong(&found), "nothing has changed");
    assert_eq!((again.kind, &again.judged), (found.kind, &found.judged));
    assert_eq!(again.gaps, found.gaps);
}

/// A missing table or a failing lake is an error, never "nothing missing"; a temporary error keeps its kind.
pub async fn what_cannot_be_looked_at_is_never_clean(detector: &dyn Detector, context: &StepContext) {
    let empty = StepContext { lake: Arc::new(MemoryLake::default()), ..context.clone() };
    let error = detector.detect(&empty, None).await.map(|found| found.counts).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Blind | ErrorKind::NotFound | ErrorKind::Invalid), "{error}");
    for kind in RETRIED {
        let failing = StepContext { lake: Arc::new(FailingLake::new(kind)), ..context.clone() };
        let error = detector.detect(&failing, None).await.map(|found| found.counts).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

/// Calls something in a run that was stopped before, and in one that is stopped meanwhile.
async fn stopped<T, F: Future<Output = Result<T>>>(context: &StepContext, call: impl Fn(StepContext) -> F) {
    let check = |result: Result<Result<T>, tokio::time::error::Elapsed>, when: &str| match result {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Cancelled, "stopped {when}: {error}"),
        Err(_) => panic!("stopped {when}, it went on for {SOON:?}"),
    };
    let cancelled = StepContext { cancel: CancellationToken::new(), ..context.clone() };
    cancelled.cancel.cancel();
    check(tokio::time::timeout(SOON, call(cancelled)).await, "before");
    let meanwhile = StepContext { cancel: CancellationToken::new(), ..context.clone() };
    let cancel = meanwhile.cancel.clone();
    let stop = async {
        tokio::task::yield_now().await;
        cancel.cancel();
    };
    let (result, ()) = futures::future::join(tokio::time::timeout(SOON, call(meanwhile)), stop).await;
    check(result, "meanwhile");
}

/// A detector that is asked to stop returns soon, with what it found or with `cancelled`.
pub async fn a_detector_that_is_asked_to_stop_stops(detector: &dyn Detector, context: &StepContext) {
    stopped(context, |context| async move { detector.detect(&context, None).await }).await;
}

/// A repairer that is asked to stop returns soon, with its plan or fix or with `cancelled`.
pub async fn a_repairer_that_is_asked_to_stop_stops(repairer: &dyn Repairer, context: &StepContext, findings: &Findings) {
    stopped(context, |context| async move { repairer.plan(&context, findings).await }).await;
    let units = planned(repairer, context, findings).await;
    stopped(context, |context| {
        let unit = &units[0];
        async move { repairer.repair(&context, findings, unit).await }
    })
    .await;
}

/// A source that is asked to stop returns soon, with its answer or with `cancelled`.
pub async fn a_source_that_is_asked_to_stop_stops(source: &dyn Source, context: &StepContext, request: &Request) {
    stopped(context, |context| async move { source.fetch(&context, request).await }).await;
}

async fn planned(repairer: &dyn Repairer, context: &StepContext, findings: &Findings) -> Vec<Unit> {
    let units: Vec<Unit> = repairer.plan(context, findings).await.unwrap().collect::<Result<_>>().unwrap();
    assert!(!units.is_empty(), "the suite needs findings for which there is work");
    units
}

/// Units do not overlap, none is empty, and all their slots were found missing and lie within their interval.
pub async fn units_are_distinct_and_of_what_was_found(repairer: &dyn Repairer, context: &StepContext, findings: &Findings) {
    let gaps = findings.gaps.by_key();
    let grid = findings.scope.grid;
    let mut ids = BTreeSet::new();
    let mut wanted_by: BTreeMap<(Key, i64), Unit> = BTreeMap::new();
    for unit in planned(repairer, context, findings).await {
        assert!(ids.insert(unit.id(&findings.scope.table, "strategy")), "planned twice: {unit:?}");
        assert!(unit.slots() > 0, "nothing is wanted: {unit:?}");
        let inside = grid.slots_in(&unit.interval);
        for wanted in &unit.wanted {
            let ordered = wanted.slots.windows(2).all(|pair| pair[0].end <= pair[1].first);
            assert!(ordered && !wanted.is_empty(), "slots are in order, disjoint: {wanted:?}");
            for slot in wanted.slots.iter().flat_map(|slots| slots.first..slots.end) {
                let found = gaps.get(&wanted.key).is_some_and(|gaps| gaps.iter().any(|gap| gap.contains(slot)));
                assert!(found, "slot {slot} of {} was not found missing", wanted.key);
                assert!(inside.contains(slot), "slot {slot} of {} is not within {}", wanted.key, unit.interval);
                let other = wanted_by.insert((wanted.key.clone(), slot), unit.clone());
                assert!(other.is_none(), "slot {slot} of {} is wanted by two units: {other:?}", wanted.key);
            }
        }
    }
}

/// Planning twice gives the same plan; repairing a unit twice gives the same rows and absences.
pub async fn to_plan_or_repair_twice_is_the_same(repairer: &dyn Repairer, context: &StepContext, findings: &Findings) {
    let units = planned(repairer, context, findings).await;
    assert_eq!(planned(repairer, context, findings).await, units);
    let table = context.table(&findings.scope.table).unwrap();
    for unit in &units {
        let first = repairer.repair(context, findings, unit).await.unwrap();
        let second = repairer.repair(context, findings, unit).await.unwrap();
        assert_eq!(repaired(table, &first), repaired(table, &second));
        assert_eq!((first.absent, first.source), (second.absent, second.source));
    }
}

/// Rows and absences are of wanted slots, each once, in the lake's shape, and say where they come from.
pub async fn only_wanted_slots_are_repaired_each_once(repairer: &dyn Repairer, context: &StepContext, findings: &Findings) {
    let table = context.table(&findings.scope.table).unwrap();
    for unit in &planned(repairer, context, findings).await {
        let fix = repairer.repair(context, findings, unit).await.unwrap();
        assert!(!fix.source.is_empty(), "a fix names the source of its rows");
        let mut known = BTreeSet::new();
        let rows = repaired(table, &fix).into_iter().map(|(key, slot, _)| (key, slot));
        let absences =
            fix.absent.iter().flat_map(|absence| (absence.slots.first..absence.slots.end).map(|slot| (absence.key.clone(), slot)));
        for (key, slot) in rows.chain(absences) {
            let wanted = unit.wanted.iter().any(|wanted| wanted.key == key && wanted.slots.iter().any(|slots| slots.contains(slot)));
            assert!(wanted, "slot {slot} of {key} was not asked for");
            assert!(known.insert((key.clone(), slot)), "slot {slot} of {key} comes twice");
        }
        for absence in &fix.absent {
            let evidence = !absence.source.is_empty() && !absence.answer.is_empty() && absence.recheck_after > absence.asked_at;
            assert!(evidence, "an absence holds evidence, and when to ask again: {absence:?}");
        }
    }
}

/// A temporary error of the lake keeps its kind; a repairer that does not use the lake does its work.
pub async fn a_repairer_passes_on_errors_of_the_lake(repairer: &dyn Repairer, context: &StepContext, findings: &Findings) {
    let units = planned(repairer, context, findings).await;
    for kind in RETRIED {
        let failing = StepContext { lake: Arc::new(FailingLake::new(kind)), ..context.clone() };
        let planned = repairer.plan(&failing, findings).await.and_then(Iterator::collect::<Result<Vec<Unit>>>);
        of_kind(planned, kind);
        of_kind(repairer.repair(&failing, findings, &units[0]).await, kind);
    }
}

fn of_kind<T: Debug>(result: Result<T>, kind: ErrorKind) {
    if let Err(error) = result {
        assert_eq!(error.kind(), kind, "{}", Error::full(&error));
    }
}

/// A row: its key, its slot, and its values in a form that can be compared.
type Described = (Key, i64, Vec<u8>);

/// The rows of a fix, in order.
fn repaired(table: &Table, fix: &Fix) -> Vec<Described> {
    described(table, table.grid().unwrap(), &fix.rows)
}

fn described(table: &Table, grid: SlotGrid, batches: &[RecordBatch]) -> Vec<Described> {
    let mut rows = Vec::new();
    for batch in batches {
        let keys = key_columns(table, batch).expect_shape();
        let times = column(batch, &table.time).expect_shape().as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.unwrap_or_else(|| panic!("the time column `{}` is not in microseconds", table.time));
        assert!(times.null_count() == 0 && keys.iter().all(|key| key.null_count() == 0), "a row without key or time");
        let mut columns: Vec<_> = batch.schema_ref().fields().iter().zip(batch.columns()).collect();
        columns.sort_by_key(|(field, _)| field.name().as_str());
        let types = columns.iter().map(|(field, _)| SortField::new(field.data_type().clone())).collect();
        let columns: Vec<_> = columns.into_iter().map(|(_, column)| column.clone()).collect();
        let values = RowConverter::new(types).expect_shape().convert_columns(&columns).expect_shape();
        for row in 0..batch.num_rows() {
            let key = Key::new(keys.iter().map(|column| column.value(row)));
            let slot = grid.slot_of_seconds(times.value(row).div_euclid(1_000_000));
            rows.push((key, slot, values.row(row).as_ref().to_vec()));
        }
    }
    rows.sort();
    rows
}

trait ExpectShape<T> {
    fn expect_shape(self) -> T;
}

impl<T, E: std::fmt::Display> ExpectShape<T> for std::result::Result<T, E> {
    fn expect_shape(self) -> T {
        self.unwrap_or_else(|error| panic!("rows come in the lake's shape: {error}"))
    }
}

/// A request may ask for at least one row and one key.
pub fn limits_allow_something(source: &dyn Source) {
    let limits = source.limits();
    assert!(limits.rows_per_request > 0 && limits.keys_per_request > 0, "{limits:?}");
}

async fn asked(source: &dyn Source, context: &StepContext, request: &Request) -> (Answer, Vec<Described>) {
    let answer = source.fetch(context, request).await.unwrap();
    let rows = described(&request.table, request.table.grid().unwrap(), &answer.rows);
    (answer, rows)
}

/// Asking again is safe, and gives the same answer.
pub async fn to_ask_twice_is_answered_the_same(source: &dyn Source, context: &StepContext, request: &Request) {
    let (first, rows) = asked(source, context, request).await;
    assert!(!rows.is_empty(), "the suite needs a request that the source has rows for");
    let (second, again) = asked(source, context, request).await;
    assert_eq!(rows, again);
    assert_eq!((first.covered, first.said), (second.covered, second.said));
}

/// Rows are of the requested keys and slots, on the grid, each slot once; and a source vouches for no more than it was asked for.
pub async fn an_answer_keeps_to_what_was_asked(source: &dyn Source, context: &StepContext, request: &Request) {
    let (answer, rows) = asked(source, context, request).await;
    let slots = request.table.grid().unwrap().slots_in(&request.interval);
    let mut known = BTreeSet::new();
    for (key, slot, _) in rows {
        assert!(request.keys.contains(&key) && slots.contains(slot), "slot {slot} of {key} was not asked for");
        assert!(known.insert((key.clone(), slot)), "slot {slot} of {key} comes twice");
    }
    for covered in &answer.covered {
        assert!(request.keys.contains(&covered.key) && request.interval.covers(&covered.interval), "not asked for: {covered:?}");
    }
    assert!(answer.requests > 0, "each request is counted");
    let over = answer.covered.iter().all(|covered| covered.interval.to() <= context.clock.now());
    assert!(over, "a source cannot vouch for the future: {:?}", answer.covered);
}

/// A key that the source does not know is no error and proves nothing; the other keys are answered.
pub async fn an_unknown_key_is_neither_answered_nor_covered(source: &dyn Source, context: &StepContext, request: &Request, unknown: &Key) {
    let alone = Request { keys: vec![unknown.clone()], ..request.clone() };
    let (answer, rows) = asked(source, context, &alone).await;
    assert_eq!(rows, [] as [Described; 0]);
    assert!(answer.covered.is_empty(), "silence about an unknown key proves nothing: {:?}", answer.covered);
    if source.limits().keys_per_request > request.keys.len() {
        let among = Request { keys: request.keys.iter().chain([unknown]).cloned().collect(), ..request.clone() };
        let (answer, rows) = asked(source, context, &among).await;
        assert_eq!(rows, asked(source, context, request).await.1);
        assert!(answer.covered.iter().all(|covered| covered.key != *unknown));
    }
}
