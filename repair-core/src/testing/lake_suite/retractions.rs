//! Taking back what was published, and taking that back.

use super::LakeSetup;
use super::presence::by_key;
use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::overlay::retraction::{Kind, Part, Retraction};
use crate::lake::{Lake, Layer, PresenceRequest, StageRequest, StageScope};
use crate::model::{Cadence, Fix, Interval, Key, PartitionUnit, Table, TimeMark};

const AS_OF: &str = "2024-04-02T00:00:00Z";

fn retraction(id: &str, parts: Vec<Part>) -> Retraction {
    Retraction { id: id.to_owned(), parts, undoes: None, at: at(AS_OF), by: "somebody".to_owned(), reason: "it's wrong".to_owned() }
}

fn undoing(id: &str, other: &str) -> Retraction {
    Retraction { undoes: Some(other.to_owned()), ..retraction(id, Vec::new()) }
}

async fn publish(lake: &dyn Lake, table: &Table, run: &str, step: &str, repaired_at: &str, fix: &Fix) {
    let scope = StageScope { run, step, visit: 1, table };
    lake.stage(&scope, &StageRequest { repaired_at: at(repaired_at), ..request("unit", fix) }).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
}

/// How many slots of the keys are repaired, and how many are absent.
async fn counted(lake: &dyn Lake, table: &Table) -> (usize, usize) {
    let request = PresenceRequest::new(slots(table, "2024-03-04", "2024-03-05"), keys(&["A", "B"]), at(AS_OF));
    let found = lake.presence(table, &request).await.unwrap();
    let count = |sets| by_key(sets).into_iter().map(|(_, slots)| slots.len()).sum();
    (count(&found.repaired), count(&found.absent))
}

/// Where a table lies within the location of another, its repairs, exceptions and retractions are no rows of the other.
pub async fn an_overlay_within_another_table_is_none_of_its_rows(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let outer = Table { partition_by: Vec::new(), ..new_table() };
    let name = format!("{}_one", outer.name);
    let inner = Table { location: format!("{}/one", outer.location), name, ..new_table() };
    put(setup, &outer, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    put(setup, &inner, &[row("B", "2024-03-04T09:00:00Z", 2.0, 2)]).await;
    let looked = async || {
        let request = PresenceRequest::new(slots(&outer, "2024-03-04", "2024-03-05"), keys(&["A", "B"]), at(AS_OF));
        let found = lake.presence(&outer, &request).await.unwrap();
        let extent = lake.extent(&outer, None).await.unwrap().objects;
        (
            read(lake, &outer, Layer::Raw).await,
            read(lake, &outer, Layer::Repaired).await,
            found.raw.keys,
            found.repaired,
            found.absent,
            extent,
        )
    };
    let before = looked().await;
    let run = new_run();
    let fixed = [row("B", "2024-03-04T09:01:00Z", 3.0, 3)];
    let absent = vec![absence("B", slots(&inner, "2024-03-04T09:02:00Z", "2024-03-04T09:05:00Z"), "2030-01-01T00:00:00Z")];
    publish(lake, &inner, &run, "fill", "2024-04-01T00:00:00Z", &fix(&inner, &fixed, absent)).await;
    lake.retract(&inner, &retraction("undo-nothing", vec![Part::of_run("no-such-run")])).await.unwrap();
    assert_eq!(looked().await, before);
    assert_eq!(counted(lake, &inner).await, (1, 3));
}

/// A retracted run's rows disappear from the view and from presence, and reappear once the retraction is undone. Raw rows, and those of
/// other runs, stay as they are.
pub async fn undo_hides_and_undo_of_undo_shows_again(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let raw = [row("A", "2024-03-04T09:00:00Z", 1.0, 1)];
    let table = table_with(setup, &raw).await;
    let (run, other) = (new_run(), new_run());
    let fixed = [row("A", "2024-03-04T09:01:00Z", 2.0, 2), row("B", "2024-03-05T09:01:00Z", 3.0, 3)];
    let kept = [row("B", "2024-03-04T09:05:00Z", 4.0, 4)];
    publish(lake, &table, &run, "fill", "2024-04-01T00:00:00Z", &fix(&table, &fixed, Vec::new())).await;
    publish(lake, &table, &other, "fill", "2024-04-01T00:00:00Z", &fix(&table, &kept, Vec::new())).await;
    let whole = read(lake, &table, Layer::Repaired).await;
    let rest = both(&raw, "backfill", &kept);
    assert_eq!(counted(lake, &table).await, (3, 0));
    assert_eq!(lake.retractions(&table).await.unwrap(), []);
    let first = retraction("first", vec![Part::of_run(&run)]);
    lake.retract(&table, &first).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, rest);
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&raw), "raw data is never touched");
    assert_eq!(counted(lake, &table).await, (1, 0));
    let second = undoing("second", "first");
    lake.retract(&table, &second).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, whole);
    assert_eq!(counted(lake, &table).await, (3, 0));
    assert_eq!(lake.retractions(&table).await.unwrap(), [first, second], "undone retractions stay listed");
    lake.retract(&table, &retraction("third", vec![Part::of_run(&run)])).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, rest);
}

/// A part by step, key, or time hides that part and nothing else; a retraction may have several parts.
pub async fn undo_in_part_hides_that_part(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let raw = [row("A", "2024-03-04T09:00:00Z", 1.0, 1)];
    let table = table_with(setup, &raw).await;
    let run = new_run();
    let one =
        [row("A", "2024-03-04T09:01:00Z", 2.0, 2), row("A", "2024-03-04T10:01:00Z", 3.0, 3), row("B", "2024-03-04T09:01:00Z", 4.0, 4)];
    let two = [row("B", "2024-03-04T09:02:00Z", 5.0, 5)];
    publish(lake, &table, &run, "fill", "2024-04-01T00:00:00Z", &fix(&table, &one, Vec::new())).await;
    publish(lake, &table, &run, "carry", "2024-04-01T00:00:00Z", &fix(&table, &two, Vec::new())).await;
    let hour = Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T10:00:00Z").unwrap();
    let of_key = |name: &str| Part { key: Some(Key::from(name)), ..Part::of_run(&run) };
    let all = [&one[..], &two].concat();
    let parts: [(Vec<Part>, &[usize]); 6] = [
        (vec![Part { step: Some("carry".to_owned()), ..Part::of_run(&run) }], &[3]),
        (vec![of_key("A")], &[0, 1]),
        (vec![Part { interval: Some(hour), ..of_key("A") }], &[0]),
        (vec![Part { interval: Some(hour), ..Part::of_run(&run) }, Part { step: Some("fill".to_owned()), ..of_key("A") }], &[0, 1, 2, 3]),
        (vec![Part { kind: Kind::Exceptions, ..Part::of_run(&run) }], &[]),
        (vec![Part { kind: Kind::Repairs, step: Some("fill".to_owned()), ..of_key("B") }], &[2]),
    ];
    for (number, (parts, hidden)) in parts.into_iter().enumerate() {
        let (id, back) = (format!("part {number}"), format!("back {number}"));
        lake.retract(&table, &retraction(&id, parts.clone())).await.unwrap();
        let left: Vec<Row> = all.iter().enumerate().filter(|(at, _)| !hidden.contains(at)).map(|(_, row)| row.clone()).collect();
        assert_eq!(read(lake, &table, Layer::Repaired).await, both(&raw, "backfill", &left), "{parts:?}");
        assert_eq!(counted(lake, &table).await.0, left.len(), "{parts:?}");
        lake.retract(&table, &undoing(&back, &id)).await.unwrap();
    }
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&raw, "backfill", &all));
}

/// Which slots an interval of an undo holds does not depend on what the time of a row marks, on the zone of a day, or on whether the table
/// has slots at all.
pub async fn undo_of_an_interval_hides_the_slots_that_begin_in_it(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let ends = Table { time_marks: TimeMark::End, cadence: Some(Cadence::from_seconds(900).unwrap()), ..new_table() };
    let days = Table { cadence: Some(Cadence::DAY), partition_by: by(PartitionUnit::Month), ..new_table() };
    let days = days.with_zone("America/New_York".parse().unwrap());
    let instants = Table { cadence: None, ..new_table() };
    for (table, fixed, (from, to), left) in [
        // The row of 09:15 is that of the slot from 09:00 on.
        (
            ends,
            ["2024-03-04T09:00:00Z", "2024-03-04T09:15:00Z", "2024-03-04T09:30:00Z", "2024-03-04T09:45:00Z"],
            ("2024-03-04T09:00:00Z", "2024-03-04T09:30:00Z"),
            [0, 3],
        ),
        // The clocks change on the 10th.
        (
            days,
            ["2024-03-09T05:00:00Z", "2024-03-10T05:00:00Z", "2024-03-11T04:00:00Z", "2024-03-12T04:00:00Z"],
            ("2024-03-10T05:00:00Z", "2024-03-12T04:00:00Z"),
            [0, 3],
        ),
        (
            instants,
            ["2024-03-04T09:00:00.999Z", "2024-03-04T09:00:01Z", "2024-03-04T09:00:01.001Z", "2024-03-04T09:00:01.002Z"],
            ("2024-03-04T09:00:01Z", "2024-03-04T09:00:01.002Z"),
            [0, 3],
        ),
    ] {
        put(setup, &table, &[row("A", "2024-03-01T05:00:00Z", 1.0, 1)]).await;
        let fixed: Vec<Row> = fixed.iter().map(|time| row("A", time, 2.0, 2)).collect();
        let run = new_run();
        publish(lake, &table, &run, "fill", "2024-04-01T00:00:00Z", &fix(&table, &fixed, Vec::new())).await;
        let interval = Interval::new(at(from), at(to)).unwrap();
        let part = Part { key: Some(Key::from("A")), interval: Some(interval), ..Part::of_run(&run) };
        lake.retract(&table, &retraction("some", vec![part])).await.unwrap();
        let left: Vec<Row> = left.iter().map(|number: &usize| fixed[*number].clone()).collect();
        let shown: Vec<_> = read(lake, &table, Layer::Repaired).await.into_iter().filter(|row| row.4.is_some()).collect();
        assert_eq!(shown, repaired(&left, Some("backfill")), "{table:?}");
    }
}

/// When the newer of two repairs of a slot is undone, the older one counts.
pub async fn an_older_repair_counts_when_the_newer_is_undone(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let raw = [row("B", "2024-03-04T09:00:00Z", 1.0, 1)];
    let table = table_with(setup, &raw).await;
    let (first, second) = (new_run(), new_run());
    let (old, new) = ([row("A", "2024-03-04T09:00:00Z", 1.0, 1)], [row("A", "2024-03-04T09:00:00Z", 2.0, 2)]);
    publish(lake, &table, &first, "fill", "2024-04-01T00:00:00Z", &fix(&table, &old, Vec::new())).await;
    publish(lake, &table, &second, "fill", "2024-04-01T00:00:01Z", &fix(&table, &new, Vec::new())).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&raw, "backfill", &new));
    lake.retract(&table, &retraction("newer", vec![Part::of_run(&second)])).await.unwrap();
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&raw, "backfill", &old));
    assert_eq!(counted(lake, &table).await.0, 1);
}

/// Writing a retraction again changes nothing, and it is listed once.
pub async fn to_retract_twice_is_to_do_it_once(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    publish(lake, &table, &run, "fill", AS_OF, &fix(&table, &[row("A", "2024-03-04T09:01:00Z", 2.0, 2)], Vec::new())).await;
    for id in ["a", "a-b", "a/b", "a"] {
        lake.retract(&table, &retraction(id, vec![Part::of_run(&run)])).await.unwrap();
    }
    let all = lake.retractions(&table).await.unwrap();
    assert_eq!(all.iter().map(|retraction| retraction.id.as_str()).collect::<Vec<_>>(), ["a", "a-b", "a/b"]);
    for id in ["a", "a-b"] {
        lake.retract(&table, &undoing(&format!("back {id}"), id)).await.unwrap();
    }
    assert_eq!(counted(lake, &table).await.0, 0, "another still hides it");
    lake.retract(&table, &undoing("back", "a/b")).await.unwrap();
    assert_eq!(counted(lake, &table).await.0, 1);
}

/// Slots whose exceptions are retracted are no longer absent.
pub async fn exceptions_are_retracted_too(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    let minutes = slots(&table, "2024-03-04T09:05:00Z", "2024-03-04T09:15:00Z");
    let absent = vec![absence("A", minutes, "2025-01-01T00:00:00Z"), absence("B", minutes, "2025-01-01T00:00:00Z")];
    let fixed = [row("A", "2024-03-04T09:06:00Z", 2.0, 2)];
    publish(lake, &table, &run, "fill", AS_OF, &fix(&table, &fixed, absent)).await;
    assert_eq!(counted(lake, &table).await, (1, 20));
    let five = Interval::parse("2024-03-04T09:05:00Z", "2024-03-04T09:10:00Z").unwrap();
    let part = Part { key: Some(Key::from("A")), interval: Some(five), kind: Kind::Exceptions, ..Part::of_run(&run) };
    lake.retract(&table, &retraction("five", vec![part])).await.unwrap();
    assert_eq!(counted(lake, &table).await, (1, 15));
    lake.retract(&table, &retraction("all", vec![Part::of_run(&run)])).await.unwrap();
    assert_eq!(counted(lake, &table).await, (0, 0));
    lake.retract(&table, &undoing("back", "all")).await.unwrap();
    assert_eq!(counted(lake, &table).await, (1, 15));
}

/// A retraction that hides nothing, or has a key that does not fit the table, is `invalid` and changes nothing.
pub async fn what_does_not_fit_is_not_retracted(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let odd_key = Part { key: Some(Key::new(["A", "B"])), ..Part::of_run("run") };
    let both = Retraction { undoes: Some("x".to_owned()), ..retraction("both", vec![Part::of_run("run")]) };
    for odd in [retraction("nothing", Vec::new()), retraction("key", vec![odd_key]), both] {
        assert_eq!(lake.retract(&table, &odd).await.unwrap_err().kind(), ErrorKind::Invalid, "{odd:?}");
    }
    assert_eq!(lake.retractions(&table).await.unwrap(), []);
}
