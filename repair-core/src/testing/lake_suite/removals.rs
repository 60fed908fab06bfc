//! Repairs that remove rows of the table: nobody sees them, and it is known later which rows they were and who said so.

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt64Type;
use jiff::Timestamp;

use super::LakeSetup;
use super::presence::by_key;
use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::overlay::accuracy::accuracy;
use crate::lake::overlay::base::BaseRows;
use crate::lake::overlay::fingerprint::of_slots;
use crate::lake::overlay::live::LiveRepairs;
use crate::lake::overlay::retraction::{Part, Retraction};
use crate::lake::overlay::story::{Standing, of_slot};
use crate::lake::overlay::{Op, columns};
use crate::lake::rollup::{self, Function, Measure, Rollup};
use crate::lake::{Lake, Layer, PresenceRequest, StageRequest, StageScope};
use crate::model::{Absence, Cadence, Fingerprints, Fix, GapList, Interval, Key, SlotRange, Table, TablePresence};

/// The fingerprints of the rows that the table now has in slots of a key.
pub(super) async fn judged(lake: &dyn Lake, table: &Table, key: &Key, slots: SlotRange) -> Fingerprints {
    let mut gaps = GapList::default();
    gaps.push(key, slots);
    of_slots(lake, table, &gaps).await.unwrap()
}

/// Removes the table's rows of some slots, and returns the run that did so.
pub(super) async fn remove(lake: &dyn Lake, table: &Table, asked_at: Timestamp, key: &Key, slots: SlotRange) -> String {
    let run = new_run();
    let known = judged(lake, table, key, slots).await;
    let removed = [Absence { asked_at, ..absence(&key.to_string(), slots, "2024-04-01T00:00:01Z") }];
    let nothing = Fix { source: "market".to_owned(), ..Fix::default() };
    let scope = StageScope { run: &run, step: "fill", visit: 1, table };
    let request = StageRequest::new("unit", "backfill", asked_at, &nothing).replacing(&known).removing(&removed);
    assert_eq!(lake.stage(&scope, &request).await.unwrap().rows, slots.len());
    assert_eq!(lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap().rows, slots.len());
    lake.discard_staged(&scope, &["unit".to_owned()]).await.unwrap();
    run
}

async fn presence(lake: &dyn Lake, table: &Table) -> TablePresence {
    // Long after the source said so: a removal does not expire.
    let request = PresenceRequest::new(slots(table, "2024-03-04", "2024-03-05"), keys(&["A", "B"]), at("2030-01-01T00:00:00Z"));
    let found = lake.presence(table, &request).await.unwrap();
    super::assert_same_in_pieces(lake, table, &request, &found, "a removal").await;
    found
}

fn count(sets: &std::collections::BTreeMap<Key, crate::model::SlotSet>) -> usize {
    by_key(sets).into_iter().map(|(_, slots)| slots.len()).sum()
}

fn slot_of(table: &Table, row: &Row) -> SlotRange {
    let slot = table.grid().unwrap().slot_of_seconds(row.time_us / 1_000_000);
    SlotRange::new(slot, slot + 1)
}

/// A removal hides all rows of its slot, and of no other key or slot: from the view, from sums, from presence. Raw data is untouched, and the
/// overlay says which rows were removed, and who said so.
pub async fn a_removal_hides_all_rows_of_its_slot(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let gone = [row("A", "2024-03-04T09:01:00Z", 1.0, 1), row("A", "2024-03-04T09:01:00Z", 2.0, 1)];
    let stays =
        [row("A", "2024-03-04T09:00:00Z", 2.0, 2), row("B", "2024-03-04T09:01:00Z", 3.0, 3), row("A", "2024-03-05T09:01:00Z", 5.0, 5)];
    let table = table_with(setup, &[&gone[..], &stays].concat()).await;
    let (key, slot) = (Key::from("A"), slot_of(&table, &gone[0]));
    let known = judged(lake, &table, &key, slot).await;
    let run = remove(lake, &table, at("2024-04-01T00:00:00Z"), &key, slot).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&stays));
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&[&gone[..], &stays].concat()), "raw data is never touched");
    let day = Interval::parse("2024-03-04", "2024-03-04").unwrap();
    let part = everything(Layer::Repaired).in_interval(day).of_keys(keys(&["A"])).with_columns(vec!["price".to_owned()]);
    let shown = seen(&table, &collect(lake.scan(&table, &part).await.unwrap()).await);
    assert_eq!(shown.iter().map(|row| row.2).collect::<Vec<_>>(), [Some(2.0)]);

    let found = presence(lake, &table).await;
    assert_eq!((count(&found.repaired), count(&found.overtaken), count(&found.absent)), (0, 0, 0));
    assert_eq!(by_key(&found.removed), [(key.clone(), vec![slot.first])]);
    assert!(found.raw.keys[&key].present.contains(slot.first) && !found.held(&key).unwrap().contains(slot.first));

    let measure = Measure { name: "sum".to_owned(), column: "price".to_owned(), function: Function::Sum };
    let request =
        Rollup { interval: day, within: Vec::new(), keys: keys(&["A"]), every: Cadence::DAY, measures: vec![measure], absent_as_of: None };
    let (sums, _) = lake.rollup(&table, &request).await.unwrap();
    let sums: Vec<_> = sums.iter().filter(|batch| batch.num_rows() > 0).collect();
    let number = |name: &str| sums[0].column_by_name(name).unwrap().as_primitive::<UInt64Type>().value(0);
    assert_eq!((sums.len(), sums[0].num_rows(), number(rollup::OBSERVED), number(rollup::REPAIRED)), (1, 1, 1, 0));

    let ours = lake.repairs_of(&table).await.unwrap();
    let rows = collect(lake.scan(&ours, &everything(Layer::Raw)).await.unwrap()).await;
    let rows: Vec<_> = rows.iter().filter(|batch| batch.num_rows() > 0).collect();
    let text = |name| rows[0].column_by_name(name).unwrap().as_string::<i32>().value(0).to_owned();
    assert_eq!((rows.len(), rows[0].num_rows(), text(columns::OP).as_str()), (1, 1, Op::Remove.as_str()));
    assert_eq!((text(columns::RUN), text(columns::SOURCE), text(columns::ANSWER)), (run.clone(), "market".into(), "nothing traded".into()));
    assert_eq!(text(columns::REPLACED), known.get(&key, slot.first).unwrap().to_string());
    assert!(rows[0].column_by_name("price").unwrap().is_null(0), "a row that is gone has no values");

    let live = LiveRepairs::read(lake, &table, day, &keys(&["A", "B"]), &["price".to_owned()]).await.unwrap();
    let removal = live.get(&key, slot.first).unwrap();
    assert!(removal.replaces && removal.removes && removal.replaced == known.get(&key, slot.first));
    let base = BaseRows::read(lake, &table, (day, &keys(&["A", "B"])), (&["price".to_owned()], false), |_, _| true).await.unwrap();
    assert!(base.get(&key, slot.first).is_none() && base.get(&key, slot.first - 1).is_some());
    assert!(base.get(&Key::from("B"), slot.first).is_some());

    let retraction = |id: &str, parts, undoes: Option<&str>| Retraction {
        id: id.to_owned(),
        parts,
        undoes: undoes.map(str::to_owned),
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "it was right".to_owned(),
    };
    lake.retract(&table, &retraction("first", vec![Part::of_run(&run)], None)).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&[&gone[..], &stays].concat()));
    assert_eq!(count(&presence(lake, &table).await.removed), 0);
    lake.retract(&table, &retraction("second", Vec::new(), Some("first"))).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&stays));
}

/// As for a replacement, rows that come or change later stay hidden, and it is known that they changed. They are no truth to compare a guess with.
/// A newer replacement is shown, and a newer filling leaves the slot to the table's own rows.
pub async fn a_removal_holds_until_a_newer_repair(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let others = [row("B", "2024-03-04T09:00:00Z", 1.0, 1)];
    let table = table_with(setup, &others).await;
    let (first, late) = (row("A", "2024-03-04T09:00:00Z", 2.0, 2), row("A", "2024-03-04T09:00:00Z", 9.0, 9));
    let (key, slot, when) = (first.key.clone(), slot_of(&table, &first), at("2024-03-04T09:00:00Z"));
    let second = |second: i64| at("2024-04-01T00:00:00Z") + jiff::SignedDuration::from_secs(second);
    let story = async || of_slot(lake, &table, &key, when, at("2030-01-01T00:00:00Z")).await.unwrap();
    // A filling is removed, though the table never had a row.
    repair(lake, &table, "guess", "2024-04-01T00:00:00Z", &fix(&table, std::slice::from_ref(&first), Vec::new())).await;
    remove(lake, &table, second(1), &key, slot).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&others));
    let before = story().await;
    let of = |story: &crate::lake::overlay::story::Story| {
        story.repairs.iter().map(|repair| (repair.op.clone(), repair.counts, repair.changed)).collect::<Vec<_>>()
    };
    assert_eq!((before.standing, of(&before)), (Standing::Removed, vec![("remove".into(), true, false), ("insert".into(), false, false)]));
    assert_eq!((before.repairs[0].answer.as_deref(), before.conflict), (Some("nothing traded"), None));
    put(setup, &table, std::slice::from_ref(&late)).await;
    let found = presence(lake, &table).await;
    assert_eq!((count(&found.repaired), count(&found.overtaken), count(&found.removed)), (0, 0, 1));
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&others), "until somebody looks, what is seen stays");
    let after = story().await;
    assert_eq!((after.standing, of(&after)[0].clone(), after.raw.len()), (Standing::Removed, ("remove".into(), true, true), 1));
    assert_eq!(accuracy(lake, &table, None).await.unwrap()["guess"].judged, 0, "a removed row is no truth");
    // A newer replacement is seen, a newer removal hides that, and a newer filling is overtaken.
    let known = judged(lake, &table, &key, slot).await;
    let run = new_run();
    let scope = StageScope { run: &run, step: "fill", visit: 1, table: &table };
    let fixed = fix(&table, std::slice::from_ref(&first), Vec::new());
    lake.stage(&scope, &StageRequest::new("unit", "backfill", second(2), &fixed).replacing(&known)).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&others, "backfill", std::slice::from_ref(&first)));
    let found = presence(lake, &table).await;
    assert_eq!((count(&found.repaired), count(&found.overtaken), count(&found.removed)), (1, 0, 0));
    remove(lake, &table, second(3), &key, slot).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&others));
    repair(lake, &table, "guess", "2024-04-01T00:00:04Z", &fixed).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&[&others[..], std::slice::from_ref(&late)].concat()));
    let found = presence(lake, &table).await;
    assert_eq!((count(&found.repaired), count(&found.overtaken), count(&found.removed)), (0, 1, 0));
}

/// A removal is not staged if the rows it removes are unknown.
pub async fn a_removal_of_the_unknown_is_not_staged(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let slot = slot_of(&table, &row("A", "2024-03-04T09:00:00Z", 1.0, 1));
    let known = judged(lake, &table, &Key::from("A"), slot).await;
    let run = new_run();
    let removed = [absence("A", SlotRange::new(slot.first, slot.end + 1), "2024-05-01T00:00:00Z")];
    let nothing = Fix { source: "market".to_owned(), ..Fix::default() };
    let request = request("unit", &nothing).replacing(&known).removing(&removed);
    assert_eq!(lake.stage(&scope(&table, &run), &request).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(lake.staged(&scope(&table, &run)).await.unwrap().is_empty());
}
