//! Repairs that replace rows of the table: what readers see, and how it is known later which rows they replaced.

use arrow::array::{Array, AsArray};

use super::LakeSetup;
use super::presence::by_key;
use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::overlay::fingerprint::of_slots;
use crate::lake::overlay::live::LiveRepairs;
use crate::lake::overlay::retraction::{Part, Retraction};
use crate::lake::overlay::{self as names, Op, columns};
use crate::lake::{Lake, Layer, PresenceRequest, StageRequest, StageScope};
use crate::model::{Fingerprints, Fix, GapList, Interval, Key, SlotRange, SlotRule, Table, TablePresence};

/// The fingerprints of the rows that the table now has in the slot of each row.
async fn judged(lake: &dyn Lake, table: &Table, rows: &[Row]) -> Fingerprints {
    let grid = table.grid().unwrap();
    let mut places: Vec<(Key, i64)> =
        rows.iter().map(|row| (row.key.clone(), grid.slot_of_seconds(row.time_us.div_euclid(1_000_000)))).collect();
    places.sort();
    let mut slots = GapList::default();
    places.iter().for_each(|(key, slot)| slots.push(key, SlotRange::new(*slot, slot + 1)));
    of_slots(lake, table, &slots).await.unwrap()
}

/// Replaces the table's rows in the slots of these rows, and returns the run that did so.
async fn replace(lake: &dyn Lake, table: &Table, at_time: &str, rows: &[Row]) -> String {
    let (run, fix, judged) = (new_run(), fix(table, rows, Vec::new()), judged(lake, table, rows).await);
    publish(lake, table, &run, at_time, &fix, Some(&judged)).await;
    run
}

async fn publish(lake: &dyn Lake, table: &Table, run: &str, at_time: &str, fix: &Fix, replaces: Option<&Fingerprints>) {
    let scope = StageScope { run, step: "fill", visit: 1, table };
    lake.stage(&scope, &StageRequest { repaired_at: at(at_time), replaces, ..request("unit", fix) }).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
}

async fn repaired_slots(lake: &dyn Lake, table: &Table, key: &str) -> Vec<i64> {
    let found = presence(lake, table, key).await;
    by_key(&found.repaired).into_iter().flat_map(|(_, slots)| slots).collect()
}

async fn presence(lake: &dyn Lake, table: &Table, key: &str) -> TablePresence {
    let request = PresenceRequest::new(slots(table, "2024-03-04", "2024-03-05"), keys(&[key]), at("2024-04-02T00:00:00Z"));
    let found = lake.presence(table, &request).await.unwrap();
    super::assert_same_in_pieces(lake, table, &request, &found, key).await;
    found
}

/// A replacement is seen in place of all rows of its slot, and of no other key or slot. Raw data is untouched, and the overlay says which
/// rows were replaced.
pub async fn a_replacement_stands_for_all_rows_of_its_slot(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let wrong =
        [row("A", "2024-03-04T09:01:00Z", 1.0, 1), row("A", "2024-03-04T09:01:30Z", -5.0, 1), row("A", "2024-03-05T09:01:00Z", -5.0, 1)];
    let right = [row("A", "2024-03-04T09:00:00Z", 2.0, 2), row("B", "2024-03-04T09:01:00Z", 3.0, 3)];
    let table = table_with(setup, &[&wrong[..], &right].concat()).await;
    let fixed = [row("A", "2024-03-04T09:01:00Z", 8.0, 8), row("A", "2024-03-05T09:01:00Z", 9.0, 9)];
    let known = judged(lake, &table, &fixed).await;
    replace(lake, &table, "2024-04-01T00:00:00Z", &fixed).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&right, "backfill", &fixed));
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&[&wrong[..], &right].concat()), "raw data is never touched");
    let day = Interval::parse("2024-03-04", "2024-03-04").unwrap();
    let part = everything(Layer::Repaired).in_interval(day).of_keys(keys(&["A"])).with_columns(vec!["price".to_owned()]);
    let shown = seen(&table, &collect(lake.scan(&table, &part).await.unwrap()).await);
    assert_eq!(shown.iter().map(|row| (row.2, row.4.is_some())).collect::<Vec<_>>(), [(Some(2.0), false), (Some(8.0), true)]);
    let grid = table.grid().unwrap();
    let slot = |row: &Row| grid.slot_of_seconds(row.time_us / 1_000_000);
    assert_eq!(repaired_slots(lake, &table, "A").await, fixed.each_ref().map(slot));
    let ours = Table { name: names::repairs(&table.name), location: names::repairs(&table.location), ..table.clone() };
    let mut found = Vec::new();
    for batch in collect(lake.scan(&ours, &everything(Layer::Raw)).await.unwrap()).await {
        let text = |name| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (op, replaced) = (text(columns::OP), text(columns::REPLACED));
        assert!(op.iter().all(|op| op == Some(Op::Replace.as_str())));
        found.extend((0..replaced.len()).map(|row| replaced.value(row).to_owned()));
    }
    let mut expected = fixed.each_ref().map(|row| known.get(&row.key, slot(row)).unwrap().to_string());
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// The rows of a slot have the same fingerprint in every lake: these are constants.
pub async fn fingerprints_are_the_same_in_every_lake(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let mut rows = vec![
        row("A", "2024-03-04T09:00:00Z", 0.1, 1),
        row("A", "2024-03-04T09:00:20.250Z", 5.0, -2),
        row("A", "2024-03-04T09:01:00Z", 1e300, i64::MAX),
        row("A", "2024-03-04T09:02:00Z", 1.0, 1),
    ];
    rows[3].price = None;
    let table = new_table().with_slots(SlotRule { tolerance_s: 25, ..SlotRule::default() });
    put(setup, &table, &rows).await;
    let none = row("A", "2024-03-04T09:03:00Z", 0.0, 0);
    let found = judged(lake, &table, &[rows[0].clone(), rows[2].clone(), rows[3].clone(), none]).await;
    let first = slots(&table, "2024-03-04T09:00:00Z", "2024-03-04T09:01:00Z").first;
    let found_texts: Vec<String> = (first..first + 4).map(|slot| found.get(&Key::from("A"), slot).unwrap().to_string()).collect();
    assert_eq!(found_texts, FINGERPRINTS);
}

/// The fingerprints of the slots above.
const FINGERPRINTS: [&str; 4] = [
    "fa5d4defddf2f19f7ce76a00cfd72998",
    "ad6093770a1d1bc464577944de12029c",
    "44b09e43e57e276ab81d595889cdb829",
    "af1349b9f5f9a1a6a0404dea36dcc949",
];

/// Live repairs and the rows they replace are read back. A change of the table's rows is noticed, and does not change what is seen.
pub async fn that_replaced_rows_have_changed_is_noticed(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let wrong = [row("A", "2024-03-04T09:01:00Z", -1.0, 1), row("A", "2024-03-04T09:02:00Z", -1.0, 1)];
    let table = table_with(setup, &wrong).await;
    let fixed = [row("A", "2024-03-04T09:01:00Z", 8.0, 8), row("A", "2024-03-04T09:02:00Z", 9.0, 9)];
    let filled = [row("A", "2024-03-04T09:03:00Z", 7.0, 7)];
    let nothing = LiveRepairs::read(lake, &table, Interval::parse("2024-03-04", "2024-03-04").unwrap(), &keys(&["A"]), &[]).await.unwrap();
    assert!(nothing.is_empty());
    replace(lake, &table, "2024-04-01T00:00:00Z", &fixed).await;
    publish(lake, &table, &new_run(), "2024-04-01T00:00:00Z", &fix(&table, &filled, Vec::new()), None).await;
    let all = [&fixed[..], &filled].concat();
    let before = judged(lake, &table, &all).await;
    let late = row("A", "2024-03-04T09:02:00Z", 4.0, 4);
    put(setup, &table, std::slice::from_ref(&late)).await;
    let now = judged(lake, &table, &all).await;
    let day = Interval::parse("2024-03-04", "2024-03-04").unwrap();
    let live = LiveRepairs::read(lake, &table, day, &keys(&["A", "B"]), &["price".to_owned()]).await.unwrap();
    let first = slots(&table, "2024-03-04T09:01:00Z", "2024-03-04T09:02:00Z").first;
    for (slot, replaces, same) in [(first, true, true), (first + 1, true, false), (first + 2, false, true)] {
        let key = Key::from("A");
        let repair = live.get(&key, slot).unwrap();
        assert_eq!((repair.replaces, repair.replaced), (replaces, before.get(&key, slot).filter(|_| replaces)), "{slot}");
        assert_eq!(before.get(&key, slot) == now.get(&key, slot), same, "{slot}");
        assert!(live.batches()[repair.batch].column_by_name("price").is_some());
    }
    assert_eq!(live.of_key(&Key::from("A")).count(), 3);
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&[], "backfill", &all), "until somebody looks, what is seen stays");
}

/// In a slot that was both filled and replaced, the newest repair decides: a replacement hides rows that came late, and a later filling
/// shows them again. Hidden rows do not count as the truth when a filling is judged.
pub async fn of_filling_and_replacing_the_newer_counts(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("B", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let others = [row("B", "2024-03-04T09:00:00Z", 1.0, 1)];
    let filled = [row("A", "2024-03-04T09:00:00Z", 2.0, 2)];
    let fill = fix(&table, &filled, Vec::new());
    publish(lake, &table, &new_run(), "2024-04-01T00:00:00Z", &fill, None).await;
    let late = [row("A", "2024-03-04T09:00:00Z", -9.0, 9)];
    put(setup, &table, &late).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&[&others[..], &late].concat()));
    let overtaken = async || by_key(&presence(lake, &table, "A").await.overtaken).into_iter().flat_map(|(_, slots)| slots).count();
    assert_eq!(overtaken().await, 1);
    let fixed = [row("A", "2024-03-04T09:00:00Z", 3.0, 3)];
    replace(lake, &table, "2024-04-01T00:00:01Z", &fixed).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&others, "backfill", &fixed));
    assert_eq!(repaired_slots(lake, &table, "A").await.len(), 1);
    assert_eq!(overtaken().await, 0);
    publish(lake, &table, &new_run(), "2024-04-01T00:00:02Z", &fill, None).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&[&others[..], &late].concat()));
    assert_eq!(repaired_slots(lake, &table, "A").await, [] as [i64; 0]);
    assert_eq!(overtaken().await, 1);
}

/// A replacement is not staged if the rows it replaces are unknown.
pub async fn a_replacement_of_the_unknown_is_not_staged(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    let known = judged(lake, &table, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let fix = fix(&table, &[row("A", "2024-03-04T09:01:00Z", 2.0, 2)], Vec::new());
    let scope = scope(&table, &run);
    let error = lake.stage(&scope, &StageRequest { replaces: Some(&known), ..request("unit", &fix) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(lake.staged(&scope).await.unwrap().is_empty());
}

/// Undoing a run that replaced rows brings them back, and undoing that replaces them again. For a lake that can retract.
pub async fn undo_of_a_replacement_brings_the_rows_back(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let wrong =
        [row("A", "2024-03-04T09:01:00Z", -1.0, 1), row("A", "2024-03-04T09:01:00Z", -2.0, 1), row("A", "2024-03-04T09:02:00Z", 1.0, 1)];
    let table = table_with(setup, &wrong).await;
    let fixed = [row("A", "2024-03-04T09:01:00Z", 8.0, 8)];
    let run = replace(lake, &table, "2024-04-01T00:00:00Z", &fixed).await;
    let replaced = both(&wrong[2..], "backfill", &fixed);
    assert_eq!(read(lake, &table, Layer::Repaired).await, replaced);
    let retraction = |id: &str, parts, undoes: Option<&str>| Retraction {
        id: id.to_owned(),
        parts,
        undoes: undoes.map(str::to_owned),
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "it was right".to_owned(),
    };
    lake.retract(&table, &retraction("first", vec![Part::of_run(&run)], None)).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&wrong));
    assert_eq!(repaired_slots(lake, &table, "A").await, [] as [i64; 0]);
    let day = Interval::parse("2024-03-04", "2024-03-04").unwrap();
    assert!(LiveRepairs::read(lake, &table, day, &keys(&["A"]), &[]).await.unwrap().is_empty());
    lake.retract(&table, &retraction("second", Vec::new(), Some("first"))).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, replaced);
}
