//! Compaction: objects become fewer, and nothing that is read changes, wherever it is broken off.

use futures::TryStreamExt;

use super::LakeSetup;
use super::presence::by_key;
use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::overlay::accuracy::judged;
use crate::lake::overlay::compaction::Compacted;
use crate::lake::overlay::retraction::{Part, Retraction};
use crate::lake::overlay::{self, story};
use crate::lake::{Lake, Layer, PresenceRequest, ScanRequest, StageRequest, StageScope};
use crate::model::{Fix, Interval, Key, SlotRange, Table};

/// How often the overlay of a table is compacted meanwhile, and where that is broken off.
pub(super) enum Broken {
    /// Not at all.
    Not,
    /// After so many of the members were removed.
    After(usize),
}

/// The times of rows of which the stories are compared.
type Places<'a> = &'a [(&'a str, &'a str)];

/// Whatever is read of an overlay, as text.
pub(super) async fn answers(lake: &dyn Lake, table: &Table, places: Places<'_>) -> Vec<String> {
    let as_of = at("2024-06-30T00:00:00Z");
    let batches: Vec<_> = lake.scan(table, &ScanRequest::new(Layer::Repaired)).await.unwrap().try_collect().await.unwrap();
    let mut all: Vec<String> = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
            all.push(values.collect::<Vec<_>>().join("|"));
        }
    }
    all.sort();
    if table.grid().is_ok() {
        let request = PresenceRequest::new(slots(table, "2024-03-04", "2024-03-05"), keys(&["A", "B", "Z"]), as_of);
        let found = lake.presence(table, &request).await.unwrap();
        for sets in [&found.repaired, &found.absent, &found.overtaken, &found.removed] {
            all.push(format!("{:?}", by_key(sets)));
        }
    }
    let strategies = judged(lake, table, None).await.unwrap();
    all.extend(strategies.iter().map(|(strategy, judged)| format!("{strategy}: {judged:?}")));
    for (key, time) in places {
        let story = story::of_slot(lake, table, &Key::from(*key), at(time), as_of).await.unwrap();
        all.push(serde_json::to_string(&story).unwrap());
    }
    for beside in [overlay::repairs, overlay::exceptions] {
        all.push(story::published(lake, table, beside, None, None).await.unwrap().len().to_string());
    }
    all
}

/// Compacts an overlay, and returns what was written. It may be broken off in one partition; then what was left is done by nobody.
pub(super) async fn compact(lake: &dyn Lake, table: &Table, broken: &Broken) -> Vec<Compacted> {
    let mut all = Vec::new();
    for objects in lake.compactable(table).await.unwrap() {
        for one in lake.compact(table, &objects).await.unwrap() {
            let removed = match broken {
                Broken::Not => one.members.len(),
                Broken::After(most) => one.members.len().min(*most),
            };
            let part = Compacted { members: one.members[..removed].to_vec(), ..one.clone() };
            lake.discard_compacted(table, &part).await.unwrap();
            all.push(one);
        }
    }
    all
}

pub(super) async fn publish(lake: &dyn Lake, table: &Table, run: &str, batch: u32, repaired_at: &str, fix: &Fix) {
    let scope = StageScope { run, step: "fill", visit: 1, table };
    let unit = format!("unit {batch}");
    lake.stage(&scope, &StageRequest { repaired_at: at(repaired_at), ..request(&unit, fix) }).await.unwrap();
    lake.publish(&scope, batch, &[unit]).await.unwrap();
}

/// A table with repairs and absences of two runs in two partitions, some of which the table has received since.
async fn repaired_by_two(lake: &dyn Lake, setup: &dyn LakeSetup) -> (Table, [String; 2]) {
    let table = table_with(setup, &[row("Z", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let runs = [new_run(), new_run()];
    for (number, run) in runs.iter().enumerate() {
        for batch in 0..3u32 {
            let minute = |day: u32| format!("2024-03-0{day}T09:0{batch}:00Z");
            let price = f64::from(batch) + 0.1 + f64::from(u32::try_from(number).unwrap());
            let fixed = [row("A", &minute(4), price, 1), row("B", &minute(5), price + 0.7, 2)];
            let gap = slots(&table, "2024-03-04T10:00:00Z", "2024-03-04T10:05:00Z");
            let gap = SlotRange::new(gap.first + i64::from(batch), gap.end);
            let absent = vec![absence("B", gap, "2025-01-01T00:00:00Z")];
            publish(lake, &table, run, batch, &format!("2024-04-01T00:00:0{number}Z"), &fix(&table, &fixed, absent)).await;
        }
    }
    put(setup, &table, &[row("A", "2024-03-04T09:01:00Z", 5.0, 5), row("B", "2024-03-05T09:02:00Z", 6.0, 6)]).await;
    (table, runs)
}

const PLACES: Places<'static> = &[("A", "2024-03-04T09:01:00Z"), ("B", "2024-03-05T09:02:00Z"), ("B", "2024-03-04T10:03:00Z")];

/// Objects become one for each partition, in whichever state a crash leaves them: with all of their members beside it, some or none. Everything that is read
/// stays the same, and the next compaction finishes it. A batch that is published once more afterwards changes nothing either.
pub async fn compaction_changes_nothing_that_is_read(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let (table, runs) = repaired_by_two(lake, setup).await;
    let before = answers(lake, &table, PLACES).await;
    let listed = lake.compactable(&table).await.unwrap();
    let members: usize = listed.iter().map(|objects| objects.members.len()).sum();
    assert!(listed.len() >= 2 && members >= 12, "repairs and exceptions of two runs: {listed:?}");
    // Every write is the last.
    for most in 0..=3 {
        let done = compact(lake, &table, &Broken::After(most)).await;
        assert_eq!(answers(lake, &table, PLACES).await, before, "with {most} members removed");
        assert!(done.iter().all(|one| one.members.len() > 1 && !one.members.contains(&one.object)), "{done:?}");
    }
    let written = compact(lake, &table, &Broken::Not).await;
    assert_eq!(answers(lake, &table, PLACES).await, before);
    assert_eq!(lake.compactable(&table).await.unwrap(), [], "each partition has one object");
    // To repeat what was done changes nothing.
    for one in &written {
        lake.discard_compacted(&table, one).await.unwrap();
    }
    assert_eq!(answers(lake, &table, PLACES).await, before);
    // The driver of a run was killed before it knew that a batch was published.
    let scope = StageScope { run: &runs[0], step: "fill", visit: 1, table: &table };
    lake.publish(&scope, 1, &["unit 1".to_owned()]).await.unwrap();
    assert_eq!(answers(lake, &table, PLACES).await, before, "rows that are there twice are there once");
    assert!(!lake.compactable(&table).await.unwrap().is_empty());
    compact(lake, &table, &Broken::Not).await;
    assert_eq!(answers(lake, &table, PLACES).await, before);
    assert_eq!(lake.compactable(&table).await.unwrap(), []);
}

/// An undo hides what its run added, and nothing else, though the rows of several runs are in one object; a redo shows it again. An undo of before holds.
pub async fn what_was_compacted_can_be_undone(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let retraction = |id: &str, parts, undoes: Option<&str>| Retraction {
        id: id.to_owned(),
        parts,
        undoes: undoes.map(str::to_owned),
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "it's wrong".to_owned(),
    };
    let steps = |runs: &[String; 2]| {
        let morning = Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T09:02:00Z").unwrap();
        let part = Part { interval: Some(morning), key: Some(Key::from("A")), ..Part::of_run(&runs[1]) };
        [
            retraction("first", vec![Part::of_run(&runs[1])], None),
            retraction("second", Vec::new(), Some("first")),
            retraction("third", vec![part], None),
            retraction("fourth", vec![Part::of_run(&runs[0])], None),
        ]
    };
    // What it comes to without a compaction, in a table of the same rows.
    let (plain, of_plain) = repaired_by_two(lake, setup).await;
    let (table, runs) = repaired_by_two(lake, setup).await;
    let without_names = |all: Vec<String>, runs: &[String; 2]| -> Vec<String> {
        all.into_iter().map(|text| text.replace(&runs[0], "one").replace(&runs[1], "two")).collect()
    };
    for (number, (of_plain_step, step)) in steps(&of_plain).into_iter().zip(steps(&runs)).enumerate() {
        if number != 1 {
            compact(lake, &table, &if number == 2 { Broken::After(1) } else { Broken::Not }).await;
        }
        lake.retract(&plain, &of_plain_step).await.unwrap();
        lake.retract(&table, &step).await.unwrap();
        let (wanted, found) = (answers(lake, &plain, PLACES).await, answers(lake, &table, PLACES).await);
        assert_eq!(without_names(found, &runs), without_names(wanted, &of_plain), "after {}", step.id);
    }
}

/// What is not as it was listed is not compacted, and nothing is removed without the object that stands for it.
pub async fn what_has_changed_is_not_compacted(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let (table, _) = repaired_by_two(lake, setup).await;
    let before = answers(lake, &table, PLACES).await;
    let listed = lake.compactable(&table).await.unwrap();
    let objects = &listed[0];
    let one = lake.compact(&table, objects).await.unwrap().remove(0);
    let odd = Compacted { object: "~compacted.000009-0-1-0.parquet".to_owned(), ..one.clone() };
    assert_eq!(lake.discard_compacted(&table, &odd).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(answers(lake, &table, PLACES).await, before);
    lake.discard_compacted(&table, &one).await.unwrap();
    assert_eq!(lake.compact(&table, objects).await.unwrap_err().kind(), ErrorKind::Conflict, "its members are gone");
    assert_eq!(answers(lake, &table, PLACES).await, before);
    // A table that nobody has repaired has nothing to compact.
    let other = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    assert_eq!(lake.compactable(&other).await.unwrap(), []);
}
