//! Ideas compared in a lake in memory: nothing that is hidden can be seen by any method, nothing that is written lasts, and what ideas
//! bring is counted as what it is.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use repair::compare;
use repair::compare::{CompareOptions, CompareReport, CompareSetting, CostLimit, Pattern};
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::rollup::{Function, Measure, OBSERVED, Rollup};
use repair_core::lake::{
    Artifacts, BatchStream, Caller, Lake, Layer, Overlay, PresenceRequest, ReadLake, ScanRequest, StageRequest, StageScope,
};
use repair_core::model::Usage;
use repair_core::model::{Absence, Cadence, Findings, Fix, Interval, Key, SlotRange, Table, Unit, Wanted};
use repair_core::plugin::{AggregateRequest, Aggregated, Aggregator, PlannedUnits, Plugin, PluginKind, Registry, Repairer, StepContext};
use repair_core::testing::{MemoryLake, VirtualClock, minute_table};
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

/// 2024-03-04, the beginning of the day.
const FIRST: i64 = 1_709_510_400 / 60;
const SLOTS: i64 = 2 * 24 * 60;

fn table(location: &str) -> Table {
    minute_table(location, "sensor")
}

/// A value that is nowhere else, and says where it belongs.
fn value(sensor: &str, slot: i64) -> f64 {
    1_000.0 + (slot - FIRST) as f64 + if sensor == "a" { 0.25 } else { 0.75 }
}

fn rows(slots: impl Iterator<Item = (&'static str, i64)>) -> RecordBatch {
    let slots: Vec<(&str, i64)> = slots.collect();
    let times = TimestampMicrosecondArray::from_iter_values(slots.iter().map(|(_, slot)| slot * 60_000_000)).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("sensor", Arc::new(StringArray::from_iter_values(slots.iter().map(|(sensor, _)| sensor)))),
        ("ts", Arc::new(times)),
        ("value", Arc::new(Float64Array::from_iter_values(slots.iter().map(|(sensor, slot)| value(sensor, *slot))))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn all() -> impl Iterator<Item = (&'static str, i64)> {
    ["a", "b"].into_iter().flat_map(|sensor| (FIRST..FIRST + SLOTS).map(move |slot| (sensor, slot)))
}

/// Two days of two sensors, of which some minutes are missing in truth; earlier runs have repaired all of it before it came, computed hours
/// from it, and kept it.
async fn lake() -> MemoryLake {
    let lake = MemoryLake::default();
    lake.put_table(&table("readings"), &[rows(all().filter(|(_, slot)| slot % 100 != 7))]).unwrap();
    lake.put_table(&table("archive"), &[rows(all())]).unwrap();
    lake.put_table(&Table::implicit("hours", "ts"), &[rows(all())]).unwrap();
    let readings = table("readings");
    let scope = StageScope { run: "earlier", step: "fill", visit: 1, table: &readings };
    let absence = |slot: i64| Absence {
        key: Key::from("b"),
        slots: SlotRange::new(slot, slot + 1),
        source: "s".to_owned(),
        asked_at: Timestamp::UNIX_EPOCH,
        answer: "nothing".to_owned(),
        recheck_after: Timestamp::MAX,
    };
    let absent = (FIRST..FIRST + SLOTS).filter(|slot| slot % 3 == 0).map(absence).collect();
    let fix = Fix {
        rows: vec![rows(all().filter(|(sensor, slot)| *sensor == "a" || slot % 3 != 0))],
        absent,
        source: "s".to_owned(),
        ..Fix::default()
    };
    let request = StageRequest::new("u", "earlier", Timestamp::UNIX_EPOCH, &fix);
    lake.stage(&scope, &request).await.unwrap();
    lake.publish(&scope, 0, &["u".to_owned()]).await.unwrap();
    lake.put_artifact("earlier", "kept", stream::iter([Ok(rows(all()))]).boxed()).await.unwrap();
    lake
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

/// One unit of everything.
fn one_unit(findings: &Findings) -> PlannedUnits {
    let wanted = findings.gaps.by_key().into_iter().map(|(key, slots)| Wanted { key, slots }).collect();
    Box::new(std::iter::once(Ok(Unit { interval: findings.scope.interval, wanted })))
}

/// Looks for hidden rows wherever a lake could show them, and writes all it can.
#[derive(Clone, Default)]
struct Peeks(Arc<Mutex<Vec<String>>>);

impl Peeks {
    fn found(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    /// Rows that are told to be of hidden slots, or whose values are.
    async fn rows(&self, how: &str, scan: Result<BatchStream>, hidden: &BTreeMap<Key, Vec<SlotRange>>) -> Option<u64> {
        let batches: Vec<RecordBatch> = match scan {
            Ok(scan) => scan.try_collect().await.unwrap(),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound), "{how}: {error}");
                return None;
            }
        };
        let is_hidden =
            |sensor: &str, slot: i64| hidden.get(&Key::from(sensor)).is_some_and(|gaps| gaps.iter().any(|gap| gap.contains(slot)));
        for batch in &batches {
            let (sensors, times) = (batch.column_by_name("sensor"), batch.column_by_name("ts"));
            for row in 0..batch.num_rows() {
                if let (Some(sensors), Some(times)) = (sensors, times) {
                    let (sensor, time_us) =
                        (sensors.as_string::<i32>().value(row), times.as_primitive::<TimestampMicrosecondType>().value(row));
                    if is_hidden(sensor, time_us / 60_000_000) {
                        self.found(format!("{how}: a row of {sensor} at {time_us}"));
                    }
                }
                let values = batch.column_by_name("value").map(|values| values.as_primitive::<Float64Type>());
                if let Some(value) = values.filter(|values| values.is_valid(row)).map(|values| values.value(row)) {
                    let (sensor, slot) = (if value.fract() == 0.25 { "a" } else { "b" }, FIRST + value.floor() as i64 - 1_000);
                    if is_hidden(sensor, slot) {
                        self.found(format!("{how}: the value of {sensor} at {slot}"));
                    }
                }
            }
        }
        Some(batches.iter().map(|batch| batch.num_rows() as u64).sum())
    }

    async fn look(&self, lake: &dyn Lake, context: &StepContext, findings: &Findings) {
        let hidden = findings.gaps.by_key();
        let all = |layer| ScanRequest::new(layer);
        let readings = context.table("readings").unwrap();
        let named = |name: &str, location: &str| Table { name: name.to_owned(), location: location.to_owned(), ..readings.clone() };
        for layer in [Layer::Raw, Layer::Repaired] {
            let seen = self.rows("scan", lake.scan(readings, &all(layer)).await, &hidden).await.unwrap();
            assert!(seen > 0, "what is not hidden is seen");
            for interval in findings.gaps.iter().take(5).map(|(_, gap)| findings.scope.grid.interval_of(gap)) {
                let request = all(layer).in_interval(interval).with_columns(vec!["value".to_owned()]);
                self.rows("scan of a gap", lake.scan(readings, &request).await, &hidden).await;
            }
            // The same rows by other names and in other shapes.
            for odd in [
                named("other", "readings"),
                named("other", "readings/"),
                named("other", "readings/date=2024-03-04"),
                named("other", "."),
                named("readings", "elsewhere"),
                named("READINGS_repaired", "readings_repaired"),
                Table { key: Vec::new(), ..readings.clone() },
                Table { time: "value".to_owned(), ..readings.clone() },
                Table { cadence: Some(Cadence::HOUR), ..readings.clone() },
                named("readings_repairs", "readings_repairs"),
                named("readings_exceptions", "readings_exceptions"),
                named("x", "readings_repairs"),
                Table { key: Vec::new(), ..named("readings_repairs", "readings_repairs") },
                Table::implicit("hours", "ts"),
                named("hours", "hours"),
                named("x", "hours/date=2024-03-04"),
            ] {
                self.rows(&format!("scan of {} at {}", odd.name, odd.location), lake.scan(&odd, &all(layer)).await, &hidden).await;
                let presence = PresenceRequest::new(findings.scope.slots(), findings.scope.keys.clone(), context.entered_at);
                let presence = lake.presence(&odd, &presence).await;
                assert!(presence.is_err() || odd.location == "readings", "{odd:?}");
            }
        }
        let slots = findings.scope.slots();
        for keys in [findings.scope.keys.clone(), vec![Key::from("z")]] {
            let asked_for = keys.len();
            let request = PresenceRequest::new(slots, keys, Timestamp::UNIX_EPOCH);
            let presence = lake.presence(readings, &request).await.unwrap();
            for (key, gaps) in &hidden {
                for slot in gaps.iter().flat_map(|gap| gap.first..gap.end) {
                    let raw = presence.raw.keys.get(key).is_some_and(|raw| raw.present.contains(slot));
                    let beside = [&presence.repaired, &presence.overtaken, &presence.absent]
                        .iter()
                        .any(|sets| sets.get(key).is_some_and(|set| set.contains(slot)));
                    if raw || beside {
                        self.found(format!("presence: {key} at {slot}"));
                    }
                }
            }
            // Nor do counts of rows give them away.
            let rows: u64 =
                presence.raw.keys.values().flat_map(|raw| &raw.rows).map(|rows| u64::from(*rows)).sum::<u64>() + presence.raw.other_rows;
            let bits: u64 = presence.raw.keys.values().map(|raw| raw.present.count()).sum();
            let there = (2 * SLOTS - 2 * 29) as u64 - findings.gaps.missing();
            if rows != there || (asked_for == 2 && bits != there) {
                self.found(format!("presence: {rows} rows and {bits} slots, and {there} are not hidden"));
            }
        }
        let measure = |function| Measure { name: "value".to_owned(), column: "value".to_owned(), function };
        for function in [Function::First, Function::Max, Function::Sum] {
            let rollup = Rollup {
                interval: findings.scope.interval,
                within: Vec::new(),
                keys: findings.scope.keys.clone(),
                every: Cadence::MINUTE,
                measures: vec![measure(function)],
                absent_as_of: None,
            };
            let (batches, _) = lake.rollup(readings, &rollup).await.unwrap();
            let renamed = batches.into_iter().map(|batch| {
                let fields = batch
                    .schema()
                    .fields()
                    .iter()
                    .map(|field| if field.name() == "bucket" { Arc::new(field.as_ref().clone().with_name("ts")) } else { field.clone() })
                    .collect::<Vec<_>>();
                Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), batch.columns().to_vec())?)
            });
            self.rows("rollup", Ok(stream::iter(renamed.collect::<Vec<_>>()).boxed()), &hidden).await.unwrap();
        }
        assert_eq!(
            self.rows(
                "query",
                lake.query(&repair_core::lake::Query::new(std::slice::from_ref(readings), "SELECT * FROM readings")).await,
                &hidden
            )
            .await,
            None
        );
        assert_eq!(self.rows("artifact", lake.get_artifact("earlier", "kept").await, &hidden).await, None);
        assert!(lake.describe(&Table::implicit("hours", "ts")).await.is_err());
        lake.describe(readings).await.unwrap();
        assert!(lake.retractions(readings).await.unwrap().is_empty());
        let undo = Retraction {
            id: "undo".to_owned(),
            parts: vec![Part::of_run("earlier")],
            undoes: None,
            at: Timestamp::UNIX_EPOCH,
            by: String::new(),
            reason: String::new(),
        };
        assert!(lake.retract(readings, &undo).await.is_err());
        assert_eq!(lake.replace(readings, &findings.scope.interval, Vec::new()).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
}

#[async_trait]
impl Repairer for Peeks {
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        Box::pin(self.look(context.lake.as_ref(), context, findings)).await;
        Ok(one_unit(findings))
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, _: &Unit) -> Result<Fix> {
        Box::pin(self.look(context.lake.as_ref(), context, findings)).await;
        let caller = Caller::new("earlier", "fill", 1, 1).with_cancel(context.cancel.clone());
        if let Some(lake) = context.lake.on_behalf_of(&caller) {
            Box::pin(self.look(lake.as_ref(), context, findings)).await;
        }
        let lake = context.lake.as_ref();
        lake.put_artifact("earlier", "kept", stream::iter([Ok(rows(std::iter::once(("a", FIRST))))]).boxed()).await.unwrap();
        let mine = Table::implicit("mine", "ts");
        lake.replace(&mine, &findings.scope.interval, vec![rows(std::iter::once(("a", FIRST)))]).await.unwrap();
        let all = ScanRequest::new(Layer::Raw);
        let written: Vec<RecordBatch> = lake.scan(&mine, &all).await.unwrap().try_collect().await.unwrap();
        assert_eq!(written[0].num_rows(), 1, "what is written is read again");
        Ok(Fix { source: "peeks".to_owned(), ..Fix::default() })
    }
}

/// What an idea of a test does.
#[derive(Debug, Clone, Copy, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Does {
    /// Brings the truth, from a table that has it.
    Knows,
    /// Says that nothing was there.
    Denies,
    /// Fails the first time, and then as `Knows`.
    Stumbles,
    /// Fails each time.
    Fails,
    /// Brings what nobody asked for.
    Meddles,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct TestConfig {
    does: Does,
}

struct Test {
    does: Does,
    asked: Mutex<u32>,
}

#[async_trait]
impl Repairer for Test {
    /// A unit for each gap.
    async fn plan(&self, _: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let grid = findings.scope.grid;
        let unit =
            move |(key, slots)| Ok(Unit { interval: grid.interval_of(slots).unwrap(), wanted: vec![Wanted { key, slots: vec![slots] }] });
        let gaps: Vec<(Key, SlotRange)> = findings.gaps.iter().map(|(key, gap)| (key.clone(), gap)).collect();
        Ok(Box::new(gaps.into_iter().map(unit)))
    }

    async fn repair(&self, context: &StepContext, _: &Findings, unit: &Unit) -> Result<Fix> {
        let asked = {
            let mut asked = self.asked.lock().unwrap();
            *asked += 1;
            *asked
        };
        let wanted = &unit.wanted[0];
        let usage = Usage { source_requests: 1, ..Usage::default() };
        let mut fix = Fix { source: "test".to_owned(), usage, ..Fix::default() };
        match self.does {
            Does::Fails => return Err(Error::new(ErrorKind::Transient, "it is down")),
            Does::Stumbles if asked == 1 => return Err(Error::new(ErrorKind::Transient, "it was down")),
            Does::Denies => fix.absent.push(Absence {
                key: wanted.key.clone(),
                slots: wanted.slots[0],
                source: "test".to_owned(),
                asked_at: context.clock.now(),
                answer: "nothing".to_owned(),
                recheck_after: Timestamp::MAX,
            }),
            Does::Meddles => fix.rows.push(rows(std::iter::once(("a", unit.interval.from().as_second() / 60 - 1)))),
            Does::Knows | Does::Stumbles => {
                let request = ScanRequest::new(Layer::Raw).in_interval(unit.interval).of_keys(vec![wanted.key.clone()]);
                fix.rows = context.lake.scan(&table("archive"), &request).await?.try_collect().await?;
            }
        }
        Ok(fix)
    }
}

/// Sums up hours.
struct Hours;

#[async_trait]
impl Aggregator for Hours {
    async fn aggregate(&self, context: &StepContext, request: AggregateRequest<'_>) -> Result<Aggregated> {
        let scope = &request.findings.unwrap().scope;
        let measures = vec![Measure { name: "value".to_owned(), column: "value".to_owned(), function: Function::Sum }];
        let rollup = Rollup {
            interval: scope.interval,
            within: Vec::new(),
            keys: scope.keys.clone(),
            every: Cadence::HOUR,
            measures,
            absent_as_of: None,
        };
        let (rows, usage) = context.lake.rollup(context.table("readings")?, &rollup).await?;
        let hours = Table { key: vec!["sensor".to_owned()], ..Table::implicit("hours", "bucket") };
        context.lake.replace(&hours, &scope.interval, rows).await?;
        Ok(Aggregated::default().with_usage(usage))
    }
}

/// An aggregate by SQL, which is not compared.
struct Sql;

#[async_trait]
impl Aggregator for Sql {
    async fn aggregate(&self, context: &StepContext, _: AggregateRequest<'_>) -> Result<Aggregated> {
        context.lake.query(&repair_core::lake::Query::new(&[], "SELECT 1")).await.map(|_| Aggregated::default())
    }
}

fn registry(peeks: &Peeks) -> Registry {
    let mut registry = Registry::default();
    let peeks = peeks.clone();
    registry.repairer("peeks", "looks for what is hidden", move |_: Nothing| Ok(peeks.clone()));
    registry.repairer("test", "does as it is told", |config: TestConfig| Ok(Test { does: config.does, asked: Mutex::new(0) }));
    registry.aggregator("hours", "sums up hours", |_: Value| Ok(Hours));
    registry.aggregator("sums", "sums up by SQL", |_: Value| Ok(Sql));
    registry
}

const WORKFLOW: &str = "
workflow: w
kind: state-machine
tables:
  readings: { location: readings, format: parquet, key: [sensor], time: ts, cadence: 1m }
start: look
steps:
  look: { detect: gaps, with: { table: readings, keys: [a, b], from: 2024-03-04, to: 2024-03-05 }, next: knows }
  knows: { repair: test, of: look, with: { does: knows }, next: denies }
  denies: { repair: test, of: look, with: { does: denies }, next: stumbles }
  stumbles: { repair: test, of: look, with: { does: stumbles }, retry: [{ on: transient, attempts: 2, interval: 1h }], next: fails }
  fails:
    repair:
      - { strategy: test, name: fails, with: { does: fails }, budget: { calls: 2 } }
      - { strategy: test, name: meddles, with: { does: meddles } }
      - { strategy: test, name: knows, with: { does: knows } }
    of: look
    next: hours
  hours: { aggregate: hours, of: look, with: { into: hours }, next: sums }
  sums: { aggregate: sums, of: look, with: { into: sums }, end: true }
";

async fn compare(lake: &MemoryLake, peeks: &Peeks, share: &str, options: &CompareOptions) -> CompareReport {
    let registry = registry(peeks);
    let workflow = Workflow::parse("w.yaml", WORKFLOW, &registry).unwrap_or_else(|told| panic!("{told}"));
    let setting = CompareSetting {
        workflow: &workflow,
        params: &BTreeMap::new(),
        now: None,
        registry: &registry,
        lake: Arc::new(lake.clone()),
        lakes: Arc::default(),
        clock: Arc::new(VirtualClock::starting_at("2024-04-01T00:00:00Z".parse().unwrap())),
        cancel: Default::default(),
    };
    compare::compare(setting, share.parse().unwrap(), options).await.unwrap_or_else(|error| panic!("{}", error.full()))
}

#[tokio::test(start_paused = true)]
async fn no_idea_sees_what_is_hidden_and_nothing_it_writes_lasts() {
    let lake = lake().await;
    let writes = |lake: &MemoryLake| {
        ["stage", "publish", "replace", "put_artifact", "retract", "discard_staged"].map(|method| lake.requests(method))
    };
    let before = writes(&lake);
    for pattern in [Pattern::Random, Pattern::Runs, Pattern::WholeDay, Pattern::OneKey] {
        let peeks = Peeks::default();
        let options = CompareOptions { strategies: vec!["peeks".to_owned()], pattern, seed: 3, ..CompareOptions::default() };
        let done = compare(&lake, &peeks, "3%", &options).await;
        assert!(done.hidden > 100 && done.there == (2 * SLOTS - 2 * 29) as u64, "{done:?}");
        assert_eq!((done.strategies[0].units, &done.strategies[0].problems), (1, &Vec::new()), "it has looked everywhere");
        assert_eq!(*peeks.0.lock().unwrap(), Vec::<String>::new());
        assert_eq!((done.strategies[0].left, done.best), (done.hidden, None));
    }
    assert_eq!(writes(&lake), before);
}

/// The peeking of these tests finds what is not hidden: without that, it would prove nothing.
#[tokio::test(start_paused = true)]
async fn who_looks_into_the_lake_itself_finds_it_all() {
    let lake = lake().await;
    let context = repair_core::testing::context(
        Arc::new(lake.clone()),
        [table("readings")],
        Arc::new(VirtualClock::starting_at("2024-04-01T00:00:00Z".parse().unwrap())),
    );
    let Plugin::Detector(detector) = registry(&Peeks::default())
        .get(PluginKind::Detector, "gaps")
        .unwrap()
        .make(&json!({ "table": "readings", "keys": ["a", "b"], "from": "2024-03-04", "to": "2024-03-05" }))
        .unwrap()
    else {
        panic!("a detector was asked for")
    };
    let mut found = detector.detect(&context, None).await.unwrap();
    found.gaps = Default::default();
    let gap = SlotRange::new(FIRST + 10, FIRST + 12);
    found.gaps.push(&Key::from("a"), gap);
    let hidden = found.gaps.by_key();
    let peeks = Peeks::default();
    let all = |layer| ScanRequest::new(layer);
    peeks.rows("raw", lake.scan(&table("readings"), &all(Layer::Raw)).await, &hidden).await.unwrap();
    peeks.rows("hours", lake.scan(&table("hours"), &all(Layer::Raw)).await, &hidden).await.unwrap();
    peeks.rows("repairs", lake.scan(&table("readings_repairs"), &all(Layer::Raw)).await, &hidden).await.unwrap();
    peeks.rows("artifact", lake.get_artifact("earlier", "kept").await, &hidden).await.unwrap();
    let found = peeks.0.lock().unwrap().clone();
    assert_eq!(found.len(), 4 * 4, "the row and its value, of two slots, four times: {found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_ideas_bring_is_counted_as_what_it_is() {
    let lake = lake().await;
    let runs = || CompareOptions { seed: 11, pattern: Pattern::Runs, ..CompareOptions::default() };
    let done = compare(&lake, &Peeks::default(), "2%", &runs()).await;
    let idea = |name: &str| done.strategies.iter().find(|idea| idea.name == name).unwrap();
    let counts = |name: &str| {
        let idea = idea(name);
        (idea.repaired, idea.absent, idea.left)
    };
    let (hidden, gaps) = (done.hidden, done.gaps);
    assert!(hidden > 100 && gaps > 3);
    let names: Vec<&str> = done.strategies.iter().map(|idea| idea.name.as_str()).collect();
    let expected = ["knows", "denies", "stumbles", "fails", "meddles", "fails/knows", "fails/all"];
    assert_eq!(names, expected, "a step's only strategy, those of a list, and the list as a chain");
    let chain: Vec<(&str, u64)> = idea("fails/all").chain.iter().map(|link| (link.name.as_str(), link.repaired)).collect();
    assert_eq!(chain, [("fails", 0), ("meddles", 0), ("knows", hidden)], "each gets what is left");
    assert_eq!((counts("fails/all"), idea("fails/all").loss), ((hidden, 0, 0), 0.0));
    let by_key: u64 = idea("knows").by_key.iter().map(|part| part.hidden).sum();
    let by_length: u64 = idea("knows").by_length.iter().map(|part| part.hidden).sum();
    assert_eq!((by_key, by_length), (hidden, hidden));
    assert_eq!((idea("knows").interval, idea("denies").interval), (Some([0.0, 0.0]), Some([1.0, 1.0])));
    let yaml = done.recommended.as_deref().unwrap();
    assert!(yaml.contains("strategy: test") && yaml.contains("with: {\"does\":\"knows\"}") && yaml.contains("of: look"), "{yaml}");
    assert_eq!(counts("knows"), (hidden, 0, 0));
    assert_eq!(counts("denies"), (0, hidden, 0), "wrong of all");
    assert_eq!(counts("stumbles"), (hidden, 0, 0), "tried again");
    assert_eq!(counts("fails"), (0, 0, hidden));
    assert_eq!(counts("meddles"), (0, 0, hidden), "what nobody asked for is not kept");
    assert_eq!((idea("knows").units, idea("knows").failed, idea("knows").calls), (gaps, 0, gaps));
    assert_eq!(idea("stumbles").calls, gaps + 1, "what failed counts as its worst");
    assert_eq!((idea("fails").failed, idea("fails").not_begun, idea("fails").calls), (2, gaps - 2, 2), "its budget is two calls");
    assert!(idea("fails").problems.iter().any(|told| told.contains("transient: it is down")), "{:?}", idea("fails").problems);
    assert!(idea("fails").problems.iter().any(|told| told.contains("budget: the workflow's budget is 2 calls")));
    assert!(idea("meddles").problems[0].contains("was not requested"), "{:?}", idea("meddles").problems);
    let right = idea("knows");
    let errors = right.columns["value"];
    assert_eq!((errors.count, errors.worst_absolute, right.loss), (hidden, Some(0.0), 0.0));
    let denies = idea("denies").columns["value"];
    assert_eq!((idea("denies").loss, denies.count, denies.loss), (1.0, 0, Some(1.0)));
    assert_eq!(
        (denies.mean_absolute, denies.mean_relative, denies.bias, denies.worst_absolute),
        (None, None, None, None),
        "nothing was compared"
    );
    // With the truth, the hours are those of the truth; with nothing, those with a hidden minute differ.
    let hours = &right.aggregates["hours"];
    assert_eq!((hours.rows, hours.differ, hours.unmatched, hours.columns["value"].worst_absolute), (96, 0, 0, Some(0.0)));
    assert!(!hours.columns.contains_key(OBSERVED), "what an hour is made of differs by its nature");
    let touched: std::collections::BTreeSet<(String, i64)> = done
        .hidden_slots
        .iter()
        .flat_map(|run| {
            let hour = |time: Timestamp| time.as_second() / 3_600;
            let last = run.interval.to().as_second() - 1;
            (hour(run.interval.from())..=last / 3_600).map(|hour| (run.key.to_string(), hour)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(idea("denies").aggregates["hours"].differ, touched.len() as u64);
    assert_eq!(done.not_compared.len(), 1);
    assert!(done.not_compared[0].contains("step sums: SQL is not run while strategies are compared"), "{:?}", done.not_compared);
    // As right, and the first; where nothing may cost a call, none of these is left.
    assert_eq!(done.best.as_deref(), Some("knows"));
    assert!(right.usd.is_none() && right.unpriced.as_deref().unwrap().contains("no price book"));
    let named = |name: &str| CompareOptions { strategies: vec![name.to_owned()], ..runs() };
    assert_eq!(compare(&lake, &Peeks::default(), "2%", &named("fails/meddles")).await.strategies[0].problems, idea("meddles").problems);
    let limit = CostLimit { calls: Some(1), ..CostLimit::default() };
    assert_eq!(compare(&lake, &Peeks::default(), "2%", &CompareOptions { limit, ..runs() }).await.best, None);
    let interval = Interval::parse("2024-03-04", "2024-03-05").unwrap();
    assert!(done.interval == interval && done.hidden_slots.iter().all(|run| interval.covers(&run.interval)));
}

#[tokio::test(start_paused = true)]
async fn hidden_runs_are_like_the_gaps_of_the_table_though_they_were_repaired() {
    let lake = lake().await;
    let options = CompareOptions { strategies: vec!["knows".to_owned()], seed: 3, ..CompareOptions::default() };
    let done = compare(&lake, &Peeks::default(), "0.2%", &options).await;
    assert_eq!((done.pattern, done.unlike), (Pattern::LikeGaps, None));
    assert!(done.hidden >= 11, "{}", done.hidden);
    for run in &done.hidden_slots {
        assert_eq!(run.interval.to().duration_since(run.interval.from()).as_secs(), 60, "as long as the real gaps, a minute each");
        let minute = run.interval.from().as_second() / 60 - FIRST;
        let is_real = |other: i64| (0..SLOTS).contains(&other) && (FIRST + other) % 100 == 7;
        assert!(is_real(minute - 1_440) || is_real(minute + 1_440), "{minute} is at the time of day of a real gap");
    }
    assert_eq!((done.best.as_deref(), done.strategies[0].loss), (Some("knows"), 0.0));
}

#[tokio::test(start_paused = true)]
async fn rounds_hide_each_slot_once_and_count_as_one_comparison() {
    let lake = lake().await;
    let slots = |report: &CompareReport| -> Vec<(Key, i64)> {
        let runs = report.hidden_slots.iter();
        runs.flat_map(|run| (run.interval.from().as_second() / 60..run.interval.to().as_second() / 60).map(|slot| (run.key.clone(), slot)))
            .collect()
    };
    // In no round does a strategy see what the round hides.
    let peeks = Peeks::default();
    let of = |strategies: &[&str], rounds: u32| CompareOptions {
        strategies: strategies.iter().map(|name| (*name).to_owned()).collect(),
        pattern: Pattern::Runs,
        seed: 5,
        rounds: Some(rounds),
        ..CompareOptions::default()
    };
    let looked = compare(&lake, &peeks, "1%", &of(&["peeks"], 3)).await;
    assert_eq!((looked.rounds, looked.strategies[0].units, peeks.0.lock().unwrap().clone()), (3, 3, Vec::new()));

    let one = compare(&lake, &Peeks::default(), "1%", &of(&["knows"], 1)).await;
    let done = compare(&lake, &Peeks::default(), "1%", &of(&["knows", "denies", "fails", "fails/all"], 4)).await;
    let all = slots(&done);
    assert!(all.len() as u64 == done.hidden && done.hidden > 3 * one.hidden && done.rounds == 4, "{} {}", done.hidden, one.hidden);
    assert!(all.starts_with(&slots(&one)), "the first round is that of a comparison with one");
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len(), "no slot in two rounds");
    assert_ne!(done.mask, one.mask);
    let of_round = |round: u32| done.hidden_slots.iter().filter(|run| run.round == round).count();
    assert!((1..=4).all(|round| of_round(round) > 0) && done.hidden_slots.is_sorted_by_key(|run| run.round), "{:?}", done.hidden_slots);
    assert_eq!(of_round(1), one.hidden_slots.len());
    let idea = |name: &str| done.strategies.iter().find(|idea| idea.name == name).unwrap();
    for idea in &done.strategies {
        assert_eq!(idea.hidden, idea.repaired + idea.absent + idea.left, "{}", idea.name);
        assert_eq!(idea.by_length.iter().map(|part| part.runs).sum::<u64>(), done.gaps, "{}", idea.name);
    }
    assert_eq!(
        (idea("knows").repaired, idea("knows").loss, idea("denies").absent, idea("denies").loss),
        (done.hidden, 0.0, done.hidden, 1.0)
    );
    let chain: Vec<(&str, u64)> = idea("fails/all").chain.iter().map(|link| (link.name.as_str(), link.repaired)).collect();
    assert_eq!(chain, [("fails", 0), ("meddles", 0), ("knows", done.hidden)]);
    assert_eq!(
        (idea("fails").failed, idea("fails").not_begun, idea("fails").calls),
        (2, done.gaps - 2, 2),
        "a budget is one for all rounds"
    );
    let (right, wrong) = (&idea("knows").aggregates["hours"], &idea("denies").aggregates["hours"]);
    assert_eq!((right.rows, right.differ, right.unmatched), (4 * 96, 0, 0));
    assert!(wrong.differ > 0 && wrong.unmatched == 0);
    assert_eq!(done.not_compared.len(), 1, "once, and not for each round");
}

#[tokio::test(start_paused = true)]
async fn few_runs_are_hidden_in_several_rounds_unless_that_costs() {
    let lake = lake().await;
    let options = |rounds| CompareOptions { strategies: vec!["knows".to_owned()], seed: 3, rounds, ..CompareOptions::default() };
    let done = compare(&lake, &Peeks::default(), "0.01%", &options(None)).await;
    assert!(
        done.pattern == Pattern::LikeGaps && done.rounds > 1 && done.gaps >= compare::ENOUGH_RUNS as u64,
        "{} {}",
        done.rounds,
        done.gaps
    );
    assert!(done.strategies[0].interval.is_some());
    let one = compare(&lake, &Peeks::default(), "0.01%", &options(Some(1))).await;
    assert!(one.rounds == 1 && one.gaps < compare::ENOUGH_RUNS as u64);
    let enough = compare(&lake, &Peeks::default(), "1%", &options(None)).await;
    assert_eq!(enough.rounds, 1);
    let runs = CompareOptions { pattern: Pattern::OneKey, ..options(None) };
    assert_eq!(compare(&lake, &Peeks::default(), "0.01%", &runs).await.rounds, 1, "other patterns have as many as are asked for");
}
