//! Repairs that change cells: what readers see of a row that is right in all other cells.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, UInt64Type};
use jiff::Timestamp;

use super::LakeSetup;
use super::compaction::Broken;
use super::presence::by_key;
use super::removals::remove;
use super::tables::*;
use crate::lake::overlay::base::{BaseRow, BaseRows};
use crate::lake::overlay::fingerprint::of_slots;
use crate::lake::overlay::live::LiveRepairs;
use crate::lake::overlay::retraction::{Part, Retraction};
use crate::lake::overlay::{self as names, columns, patch};
use crate::lake::rollup::{self, Function, Measure, Rollup};
use crate::lake::{Lake, Layer, PresenceRequest, ScanRequest, StageRequest, StageScope};
use crate::model::{Cadence, Fingerprints, Fix, GapList, Identity, Interval, Key, SlotRange, Table};

/// The old and the new value of a cell.
type Change<T> = (Option<T>, Option<T>);

/// Changes of the cells of one row.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    key: Key,
    time_us: i64,
    price: Option<Change<f64>>,
    volume: Option<Change<i64>>,
}

impl Changes {
    pub(super) fn of(key: &str, time: &str) -> Self {
        Self { key: Key::from(key), time_us: at(time).as_microsecond(), ..Self::default() }
    }

    pub(super) fn price(self, old: impl Into<Option<f64>>, new: f64) -> Self {
        Self { price: Some((old.into(), Some(new))), ..self }
    }

    fn volume(self, old: impl Into<Option<i64>>, new: i64) -> Self {
        Self { volume: Some((old.into(), Some(new))), ..self }
    }

    /// As [`StageRequest::patches`] wants it.
    fn batch(&self, table: &Table) -> RecordBatch {
        let mut fields = vec![Field::new(&table.key[0], DataType::Utf8, false), Field::new(&table.time, names::instant_type(), false)];
        let mut values: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(self.key.values())),
            Arc::new(TimestampMicrosecondArray::from(vec![self.time_us]).with_timezone("UTC")),
        ];
        let mut changed = Vec::new();
        let mut add = |name: &str, old: ArrayRef, new: ArrayRef| {
            fields.push(Field::new(name, new.data_type().clone(), true));
            fields.push(Field::new(patch::was(name), old.data_type().clone(), true));
            values.extend([new, old]);
            changed.push(name.to_owned());
        };
        if let Some((old, new)) = self.price {
            add("price", Arc::new(Float64Array::from(vec![old])), Arc::new(Float64Array::from(vec![new])));
        }
        if let Some((old, new)) = self.volume {
            add("volume", Arc::new(Int64Array::from(vec![old])), Arc::new(Int64Array::from(vec![new])));
        }
        fields.push(Field::new(columns::CELLS, DataType::Utf8, true));
        values.push(Arc::new(StringArray::from(vec![patch::to_text(&changed).unwrap()])));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), values).unwrap()
    }
}

/// Publishes changes of cells, and rows beside them, and returns the run.
pub(super) async fn publish(
    lake: &dyn Lake,
    table: &Table,
    strategy: &str,
    repaired_at: Timestamp,
    (changes, fix, replaces): (&[Changes], &Fix, Option<&Fingerprints>),
) -> String {
    let run = new_run();
    let patches: Vec<RecordBatch> = changes.iter().map(|changes| changes.batch(table)).collect();
    let scope = StageScope { run: &run, step: "fill", visit: 1, table };
    let request = StageRequest::new("unit", strategy, repaired_at, fix).replacing(replaces).patching(&patches);
    let staged = lake.stage(&scope, &request).await.unwrap();
    let rows = fix.rows.iter().map(|batch| batch.num_rows() as u64).sum::<u64>() + changes.len() as u64;
    assert_eq!(staged.rows, rows);
    let published = lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    assert_eq!(published.rows, rows);
    lake.discard_staged(&scope, &["unit".to_owned()]).await.unwrap();
    run
}

pub(super) async fn change(lake: &dyn Lake, table: &Table, strategy: &str, repaired_at: &str, changes: &[Changes]) -> String {
    let nothing = Fix { source: "market".to_owned(), ..Fix::default() };
    publish(lake, table, strategy, at(repaired_at), (changes, &nothing, None)).await
}

/// A row of the view, and its repaired cells.
pub(super) type Shown = (Seen, Option<String>);

pub(super) async fn shown(lake: &dyn Lake, table: &Table, columns: Option<Vec<String>>) -> Vec<Shown> {
    shown_of(lake, table, &everything(Layer::Repaired).with_columns(columns)).await
}

pub(super) async fn shown_of(lake: &dyn Lake, table: &Table, request: &ScanRequest) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for batch in collect(lake.scan(table, request).await.unwrap()).await {
        let cells = batch.column_by_name(names::REPAIRED_CELLS).unwrap().as_string::<i32>().clone();
        for row in 0..batch.num_rows() {
            let text = cells.is_valid(row).then(|| cells.value(row).to_owned());
            all.extend(seen(table, &[batch.slice(row, 1)]).into_iter().map(|seen| (seen, text.clone())));
        }
    }
    all.sort_by(|one, other| one.partial_cmp(other).unwrap());
    all
}

pub(super) fn expected(rows: &[(Row, Option<&str>, Option<&str>)]) -> Vec<Shown> {
    let of = |(row, by, cells): &(Row, Option<&str>, Option<&str>)| {
        ((row.key.clone(), row.time_us, row.price, row.volume, by.map(str::to_owned)), cells.map(str::to_owned))
    };
    let mut all: Vec<Shown> = rows.iter().map(of).collect();
    all.sort_by(|one, other| one.partial_cmp(other).unwrap());
    all
}

/// A patch changes its cells, and nothing else: not the other cells of the row, not the table, not presence. The view names the cells,
/// whatever columns are asked for.
pub async fn a_patch_changes_its_cells_and_nothing_else(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let time = "2024-03-04T09:01:00Z";
    let mut rows = vec![
        row("A", time, -999.0, 7),
        row("A", "2024-03-04T09:02:00Z", 2.0, 2),
        row("B", time, 0.0, 3),
        row("B", "2024-03-05T09:01:00Z", 5.0, 5),
    ];
    rows[1].volume = None;
    // Nothing of this row is repaired.
    rows.push(row("B", "2024-03-05T09:02:00Z", 4.0, 4));
    let table = table_with(setup, &rows).await;
    let changes = [
        Changes::of("A", time).price(-999.0, 1.5),
        Changes::of("A", "2024-03-04T09:02:00Z").volume(None, 22),
        Changes::of("B", time).price(-0.0, 9.0),
        Changes::of("B", "2024-03-05T09:01:00Z").price(5.0, 6.0).volume(5, 6),
    ];
    let run = change(lake, &table, "interpolate", "2024-04-01T00:00:00Z", &changes).await;
    let volume = row("A", "2024-03-04T09:02:00Z", 2.0, 22);
    let fixed = [
        (row("A", time, 1.5, 7), None, Some(r#"{"price":"interpolate"}"#)),
        (volume, None, Some(r#"{"volume":"interpolate"}"#)),
        (row("B", time, 9.0, 3), None, Some(r#"{"price":"interpolate"}"#)),
        (row("B", "2024-03-05T09:01:00Z", 6.0, 6), None, Some(r#"{"price":"interpolate","volume":"interpolate"}"#)),
        (row("B", "2024-03-05T09:02:00Z", 4.0, 4), None, None),
    ];
    assert_eq!(shown(lake, &table, None).await, expected(&fixed));
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&rows), "raw data is never touched");
    let part = shown(lake, &table, Some(vec!["volume".to_owned()])).await;
    let without_price = expected(&fixed).into_iter().map(|((key, time, _, volume, by), cells)| ((key, time, None, volume, by), cells));
    assert_eq!(part, without_price.collect::<Vec<_>>(), "what is asked for does not change what is said");
    let day = Interval::parse("2024-03-05", "2024-03-05").unwrap();
    let of_day = everything(Layer::Repaired).in_interval(day).of_keys(keys(&["B"])).with_columns(vec!["price".to_owned()]);
    let of_day = seen(&table, &collect(lake.scan(&table, &of_day).await.unwrap()).await);
    assert_eq!(of_day.iter().map(|row| row.2).collect::<Vec<_>>(), [Some(6.0), Some(4.0)]);
    sums_say_what_rests_on_repaired_cells(lake, &table).await;
    let request = PresenceRequest::new(slots(&table, "2024-03-04", "2024-03-05"), keys(&["A", "B"]), at("2024-04-02T00:00:00Z"));
    let found = lake.presence(&table, &request).await.unwrap();
    let count = |sets| by_key(sets).into_iter().map(|(_, slots)| slots.len()).sum::<usize>();
    assert_eq!((count(&found.repaired), count(&found.overtaken), found.raw.keys[&Key::from("A")].rows.iter().sum::<u32>()), (0, 0, 2));

    let wanted = ["price".to_owned(), "volume".to_owned()];
    let week = Interval::parse("2024-03-04", "2024-03-05").unwrap();
    let live = LiveRepairs::read(lake, &table, week, &keys(&["A", "B"]), &wanted).await.unwrap();
    assert!(live.iter().next().is_none(), "a patch is no row");
    assert_eq!(live.patches().columns().collect::<Vec<_>>(), ["price", "volume"]);
    let slot = table.grid().unwrap().slot_of(at(time));
    assert!(live.patches().has(&Key::from("A"), slot) && !live.patches().has(&Key::from("A"), slot + 2));
    let base = BaseRows::read(lake, &table, (week, &keys(&["A", "B"])), (&wanted, false), |_, _| true).await.unwrap();
    let Some(BaseRow::One(batch, of_batch)) = base.get(&Key::from("A"), slot) else { panic!("{base:?}") };
    assert_eq!(seen(&table, &[base.batches()[batch].slice(of_batch, 1)])[0].2, Some(-999.0), "a base row has no repaired cells");

    // Undone, the old values are back; the undo undone, the new ones.
    let retraction = |id: &str, parts, undoes: Option<&str>| Retraction {
        id: id.to_owned(),
        parts,
        undoes: undoes.map(str::to_owned),
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "it was right".to_owned(),
    };
    lake.retract(&table, &retraction("first", vec![Part::of_run(&run)], None)).await.unwrap();
    assert_eq!(shown(lake, &table, None).await, expected(&rows.iter().map(|row| (row.clone(), None, None)).collect::<Vec<_>>()));
    assert!(LiveRepairs::read(lake, &table, week, &keys(&["A", "B"]), &wanted).await.unwrap().is_empty());
    lake.retract(&table, &retraction("second", Vec::new(), Some("first"))).await.unwrap();
    assert_eq!(shown(lake, &table, None).await, expected(&fixed));
}

/// Sums are over the new values, and a slot counts as repaired if cells of its row are.
async fn sums_say_what_rests_on_repaired_cells(lake: &dyn Lake, table: &Table) {
    let measure = Measure { name: "sum".to_owned(), column: "price".to_owned(), function: Function::Sum };
    let interval = Interval::parse("2024-03-04", "2024-03-05").unwrap();
    let request =
        Rollup { interval, within: Vec::new(), keys: keys(&["A", "B"]), every: Cadence::DAY, measures: vec![measure], absent_as_of: None };
    let mut found = Vec::new();
    for batch in lake.rollup(table, &request).await.unwrap().0 {
        let count = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<UInt64Type>().clone();
        let (observed, repaired) = (count(rollup::OBSERVED), count(rollup::REPAIRED));
        let (symbols, sums) = (batch.column_by_name("symbol").unwrap().as_string::<i32>(), batch.column_by_name("sum").unwrap());
        let sums = sums.as_primitive::<Float64Type>();
        found.extend(
            (0..batch.num_rows()).map(|row| (symbols.value(row).to_owned(), sums.value(row), observed.value(row), repaired.value(row))),
        );
    }
    found.sort_by(|one, other| one.partial_cmp(other).unwrap());
    assert_eq!(found, [("A".to_owned(), 3.5, 0, 2), ("B".to_owned(), 9.0, 0, 1), ("B".to_owned(), 10.0, 1, 1)]);
}

/// A patch holds while the row has the value for which it was made. A value that arrives where there was none is shown, and so is a
/// correction. Of several patches of a cell, the newest that holds counts; those of other cells stay.
pub async fn a_patch_holds_while_the_old_value_stands(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let time = "2024-03-04T09:01:00Z";
    let mut null = row("A", time, 0.0, 7);
    null.price = None;
    let table = table_with(setup, std::slice::from_ref(&null)).await;
    change(lake, &table, "guess", "2024-04-01T00:00:00Z", &[Changes::of("A", time).price(None, 1.0)]).await;
    change(lake, &table, "better", "2024-04-01T00:00:01Z", &[Changes::of("A", time).price(None, 2.0)]).await;
    change(lake, &table, "other", "2024-04-01T00:00:02Z", &[Changes::of("A", time).price(3.0, 4.0)]).await;
    change(lake, &table, "count", "2024-04-01T00:00:03Z", &[Changes::of("A", time).volume(7, 8)]).await;
    let cells = r#"{"price":"better","volume":"count"}"#;
    assert_eq!(shown(lake, &table, None).await, expected(&[(row("A", time, 2.0, 8), None, Some(cells))]));
    // A second row of the slot is compared by itself.
    put(setup, &table, &[row("A", time, 3.0, 9)]).await;
    let both = [(row("A", time, 2.0, 8), None, Some(cells)), (row("A", time, 4.0, 9), None, Some(r#"{"price":"other"}"#))];
    assert_eq!(shown(lake, &table, None).await, expected(&both));
}

/// A patch changes the cells of a repair, too, and those of the table's own row once that takes the place of the repair, if it has the old
/// value.
pub async fn a_patch_changes_cells_of_repairs(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let time = "2024-03-04T09:01:00Z";
    let first = row("B", time, 1.0, 1);
    let table = table_with(setup, std::slice::from_ref(&first)).await;
    repair(lake, &table, "backfill", "2024-04-01T00:00:00Z", &fix(&table, &[row("A", time, -1.0, 5)], Vec::new())).await;
    change(lake, &table, "adjust", "2024-04-01T00:00:01Z", &[Changes::of("A", time).price(-1.0, 2.0)]).await;
    let cells = Some(r#"{"price":"adjust"}"#);
    let of_b = (first, None, None);
    assert_eq!(shown(lake, &table, None).await, expected(&[(row("A", time, 2.0, 5), Some("backfill"), cells), of_b.clone()]));
    put(setup, &table, &[row("A", time, 7.0, 6)]).await;
    assert_eq!(shown(lake, &table, None).await, expected(&[(row("A", time, 7.0, 6), None, None), of_b]));
}

/// What a person would keep about a table of few rows to know what is seen.
#[derive(Debug)]
struct Model {
    identity: Identity,
    raw: Vec<Row>,
    rows: Vec<Repair>,
    changes: Vec<(Timestamp, String, Changes)>,
    /// The retracted run of each retraction, and whether it is in force.
    retractions: Vec<(String, String, bool)>,
}

/// A row that fills, replaces or removes.
#[derive(Debug)]
struct Repair {
    at: Timestamp,
    run: String,
    /// Whether rows of the table are not shown.
    replaces: bool,
    removes: bool,
    row: Row,
}

impl Model {
    fn new(identity: Identity, raw: Vec<Row>) -> Self {
        Self { identity, raw, rows: Vec::new(), changes: Vec::new(), retractions: Vec::new() }
    }

    fn is_hidden(&self, run: &str) -> bool {
        self.retractions.iter().any(|(_, of, in_force)| *in_force && of == run)
    }

    fn are_same(&self, one: &Row, key: &Key, time_us: i64) -> bool {
        one.key == *key && self.identity.are_same(one.time_us, time_us)
    }

    /// The repairs of rows that no newer one of the same row outdates.
    fn live(&self) -> Vec<&Repair> {
        let all = || self.rows.iter().filter(|repair| !self.is_hidden(&repair.run));
        let is_outdated = |repair: &&Repair| {
            let mut same = all().filter(|other| self.are_same(&other.row, &repair.row.key, repair.row.time_us));
            same.any(|other| (other.at, &other.run) > (repair.at, &repair.run))
        };
        all().filter(|repair| !is_outdated(repair)).collect()
    }

    /// The rows of a key and time without repaired cells, and who repaired them.
    fn base(&self, key: &Key, time_us: i64) -> Vec<(Row, Option<&'static str>)> {
        let here = |row: &Row| row.key == *key && row.time_us == time_us;
        let live = self.live();
        let is_replaced = live.iter().any(|repair| repair.replaces && self.are_same(&repair.row, key, time_us));
        let own: Vec<Row> = self.raw.iter().filter(|row| here(row) && !is_replaced).cloned().collect();
        match live.iter().find(|repair| here(&repair.row) && !repair.removes) {
            Some(repair) if repair.replaces || own.is_empty() => vec![(repair.row.clone(), Some("rows"))],
            _ => own.into_iter().map(|row| (row, None)).collect(),
        }
    }

    fn shown(&self, within: impl Fn(i64) -> bool) -> Vec<Shown> {
        let places = self.raw.iter().chain(self.rows.iter().map(|repair| &repair.row)).map(|row| (row.key.clone(), row.time_us));
        let mut all = Vec::new();
        for (key, time_us) in places.filter(|(_, time_us)| within(*time_us)).collect::<BTreeSet<_>>() {
            for (mut row, by) in self.base(&key, time_us) {
                let mut live: Vec<_> = self.changes.iter().filter(|(_, run, _)| !self.is_hidden(run)).collect();
                live.retain(|(.., changes)| changes.key == key && changes.time_us == time_us);
                live.sort_by(|one, other| (other.0, &other.1).cmp(&(one.0, &one.1)));
                let (base, mut cells) = (row.clone(), Vec::new());
                if let Some((_, new)) = live.iter().filter_map(|(.., changes)| changes.price).find(|(old, _)| *old == base.price) {
                    row.price = new;
                    cells.push(r#""price":"cells""#);
                }
                if let Some((_, new)) = live.iter().filter_map(|(.., changes)| changes.volume).find(|(old, _)| *old == base.volume) {
                    row.volume = new;
                    cells.push(r#""volume":"cells""#);
                }
                let cells = (!cells.is_empty()).then(|| format!("{{{}}}", cells.join(",")));
                all.push(((row.key, row.time_us, row.price, row.volume, by.map(str::to_owned)), cells));
            }
        }
        all.sort_by(|one, other| one.partial_cmp(other).unwrap());
        all
    }
}

fn pick(numbers: &mut Numbers, of: usize) -> usize {
    usize::try_from(numbers.below(of as u64)).unwrap()
}

/// After any sequence of rows, fillings, replacements, removals, patches, retractions and retractions of retractions, the view shows what a
/// simple model shows, and presence says of which slots.
pub async fn any_sequence_of_changes_is_seen_as_a_model_sees_it(lake: &dyn Lake, setup: &dyn LakeSetup, seed: u64, length: u64) {
    let times = ["2024-03-04T09:01:00Z", "2024-03-04T09:02:00Z", "2024-03-05T09:01:00Z"];
    sequence(lake, setup, new_table(), &times, (seed, length)).await;
}

/// The same where the key alone identifies a row, in the whole view and in any interval. Of such a table no row is filled: which ones are
/// missing, nobody knows.
pub async fn any_sequence_of_versions_is_seen_as_a_model_sees_it(lake: &dyn Lake, setup: &dyn LakeSetup, seed: u64, length: u64) {
    let times = [
        "2024-03-04T09:01:00Z",
        "2024-03-06T23:59:59.999Z",
        "2024-03-09T09:01:00Z",
        "2024-03-09T09:01:00.001Z",
        "2024-03-14T09:01:00Z",
        "2024-04-20T00:00:00Z",
    ];
    sequence(lake, setup, super::unique::versions_within_five_days(), &times, (seed, length)).await;
}

/// Presence says of which slots readers see a row, and of which rows are removed; and so do the rows to which patches are applied.
async fn presence_is_that_of(model: &Model, lake: &dyn Lake, table: &Table, words: &str) {
    let wanted = keys(&["A", "B", "Z"]);
    let request = PresenceRequest::new(slots(table, "2024-03-04", "2024-03-05"), wanted.clone(), at("2030-01-01T00:00:00Z"));
    let found = lake.presence(table, &request).await.unwrap();
    let week = Interval::parse("2024-03-04", "2024-03-05").unwrap();
    let base = BaseRows::read(lake, table, (week, &wanted), (&["price".to_owned()], false), |_, _| true).await.unwrap();
    let rows = model.raw.iter().chain(model.rows.iter().map(|repair| &repair.row));
    for (key, time_us) in rows.map(|row| (row.key.clone(), row.time_us)).collect::<BTreeSet<_>>() {
        let slot = model.identity.slot(time_us);
        let shown = model.base(&key, time_us);
        let is_removed = model.live().iter().any(|repair| repair.removes && repair.row.key == key && repair.row.time_us == time_us);
        let is_repaired = shown.iter().any(|(_, by)| by.is_some());
        let seen = |sets: &std::collections::BTreeMap<Key, crate::model::SlotSet>| sets[&key].contains(slot);
        let said = (found.held(&key).unwrap().contains(slot), seen(&found.removed), seen(&found.repaired));
        assert_eq!(said, (!shown.is_empty(), is_removed, is_repaired), "{key} in {slot}, {words}");
        let rows = match base.get(&key, slot) {
            None => 0,
            Some(BaseRow::One(..)) => 1,
            Some(BaseRow::Several) => 2,
        };
        assert_eq!(rows, shown.len().min(2), "{key} in {slot}, {words}");
    }
}

async fn sequence(lake: &dyn Lake, setup: &dyn LakeSetup, table: Table, times: &[&str], (seed, length): (u64, u64)) {
    let (mut numbers, mut compactions) = (Numbers(seed), Numbers(seed ^ 0x5eed));
    let start = at("2024-06-01T00:00:00Z");
    let identity = table.identity();
    let mut model = Model::new(identity, vec![row("Z", times[0], 1.0, 1)]);
    put(setup, &table, &model.raw).await;
    let value = |numbers: &mut Numbers| [Some(1.0), Some(2.0), Some(-9.0), None][pick(numbers, 4)];
    let count = |numbers: &mut Numbers| [Some(1), Some(2), None][pick(numbers, 3)];
    let mut did = Vec::new();
    for step in 0..length {
        // Two steps in a row have the same instant, so that names decide.
        let when = start + jiff::SignedDuration::from_secs(i64::try_from(step / 2).unwrap());
        let key = ["A", "B"][pick(&mut numbers, 2)];
        let time = times[pick(&mut numbers, times.len())];
        let mut any = row(key, time, 0.0, 0);
        (any.price, any.volume) = (value(&mut numbers), count(&mut numbers));
        let what = numbers.below(11);
        let nothing = Fix { source: "market".to_owned(), ..Fix::default() };
        match what {
            0 | 1 => {
                put(setup, &table, std::slice::from_ref(&any)).await;
                model.raw.push(any.clone());
            }
            2 | 3 => {
                let is_replacing = what == 3 || identity.lookback_us().is_some();
                let replaces = if is_replacing {
                    let slot = identity.slot(any.time_us);
                    let mut gaps = GapList::default();
                    gaps.push(&any.key, SlotRange::new(slot, slot + 1));
                    Some(of_slots(lake, &table, &gaps).await.unwrap())
                } else {
                    None
                };
                let rows = fix(&table, std::slice::from_ref(&any), Vec::new());
                let run = publish(lake, &table, "rows", when, (&[], &rows, replaces.as_ref())).await;
                model.rows.push(Repair { at: when, run, replaces: is_replacing, removes: false, row: any.clone() });
            }
            10 => {
                let slot = identity.slot(any.time_us);
                let run = remove(lake, &table, when, &any.key, SlotRange::new(slot, slot + 1)).await;
                model.rows.push(Repair { at: when, run, replaces: true, removes: true, row: any.clone() });
            }
            4..=7 => {
                let base = model.base(&any.key, any.time_us);
                let is_stale = numbers.below(4) == 0;
                let old = |numbers: &mut Numbers| match base.first() {
                    Some((base, _)) if !is_stale => (base.price, base.volume),
                    _ => (value(numbers), count(numbers)),
                };
                let (price, volume) = old(&mut numbers);
                let mut changes = Changes { key: any.key.clone(), time_us: any.time_us, ..Changes::default() };
                let new = 100.0 + f64::from(u32::try_from(step).unwrap());
                if what != 5 {
                    changes.price = Some((price, Some(new)));
                }
                if what != 4 {
                    changes.volume = Some((volume, Some(100 + i64::try_from(step).unwrap())));
                }
                let run = publish(lake, &table, "cells", when, (std::slice::from_ref(&changes), &nothing, None)).await;
                model.changes.push((when, run, changes));
            }
            _ => {
                let of_rows = model.rows.iter().map(|repair| &repair.run);
                let runs: Vec<String> = of_rows.chain(model.changes.iter().map(|change| &change.1)).cloned().collect();
                let in_force: Vec<usize> = (0..model.retractions.len()).filter(|&at| model.retractions[at].2).collect();
                let id = format!("retraction-{seed}-{step}");
                let undoes = (what == 9 && !in_force.is_empty()).then(|| in_force[pick(&mut numbers, in_force.len())]);
                if undoes.is_none() && runs.is_empty() {
                    continue;
                }
                let parts = match undoes {
                    Some(undone) => {
                        model.retractions[undone].2 = false;
                        Vec::new()
                    }
                    None => {
                        let run = runs[pick(&mut numbers, runs.len())].clone();
                        model.retractions.push((id.clone(), run.clone(), true));
                        vec![Part::of_run(&run)]
                    }
                };
                let undoes = undoes.map(|undone| model.retractions[undone].0.clone());
                let (by, reason) = ("somebody".to_owned(), "because".to_owned());
                lake.retract(&table, &Retraction { id, parts, undoes, at: when, by, reason }).await.unwrap();
            }
        }
        did.push((what, any));
        // Whatever the order, a compaction changes nothing, and neither does one that is broken off.
        if compactions.below(4) == 0 {
            let places: Vec<(&str, &str)> = ["A", "B"].into_iter().map(|key| (key, times[pick(&mut compactions, times.len())])).collect();
            let before = super::compaction::answers(lake, &table, &places).await;
            let broken = match compactions.below(3) {
                0 => Broken::After(pick(&mut compactions, 3)),
                _ => Broken::Not,
            };
            super::compaction::compact(lake, &table, &broken).await;
            let words = format!("step {step} of seed {seed}: {did:?}\n{model:?}");
            assert_eq!(super::compaction::answers(lake, &table, &places).await, before, "{words}");
        }
    }
    assert_eq!(shown(lake, &table, None).await, model.shown(|_| true), "seed {seed}: {did:?}\n{model:?}");
    if identity.lookback_us().is_none() {
        let words = format!("seed {seed}: {did:?}\n{model:?}");
        presence_is_that_of(&model, lake, &table, &words).await;
        let all = [Function::First, Function::Last, Function::Min, Function::Max, Function::Sum];
        let measure = |column: &str, function| Measure { name: format!("{column}-{function:?}"), column: column.to_owned(), function };
        let rollup = Rollup {
            interval: Interval::parse("2024-03-04", "2024-03-05").unwrap(),
            within: Vec::new(),
            keys: keys(&["A", "B", "Z"]),
            every: Cadence::HOUR,
            measures: all.iter().flat_map(|function| [measure("price", *function), measure("volume", *function)]).collect(),
            absent_as_of: Some(at("2024-07-01T00:00:00Z")),
        };
        super::assert_rollup_is_that_of_a_scan(lake, &table, &rollup, &words).await;
        return;
    }
    for _ in 0..4 {
        let mut ends = [0, 1].map(|_| at(times[pick(&mut numbers, times.len())]));
        ends.sort();
        let within = Interval::new(ends[0], ends[1].max(ends[0] + jiff::SignedDuration::from_millis(1))).unwrap();
        let found = shown_of(lake, &table, &everything(Layer::Repaired).in_interval(within)).await;
        let is_within = |time_us: i64| within.from().as_microsecond() <= time_us && time_us < within.to().as_microsecond();
        assert_eq!(found, model.shown(is_within), "{within}, seed {seed}: {did:?}\n{model:?}");
    }
}
