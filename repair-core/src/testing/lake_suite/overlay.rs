//! Staging, publishing, and what readers see of it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;

use super::LakeSetup;
use super::presence::{assert_same_in_pieces, by_key};
use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::overlay::{self as names, Op, columns};
use crate::lake::{Lake, Layer, PresenceRequest, StageRequest, StageScope, Staged};
use crate::model::Usage;
use crate::model::{AnswerPrint, Conflicts, Fix, Key, SlotRange, SlotRule, Suspect, Suspects, Table};

fn units(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The repaired and the absent slots of one key on the suite's day, as of a time.
async fn overlay_of(lake: &dyn Lake, table: &Table, key: &str, as_of: &str) -> (Vec<i64>, Vec<i64>) {
    let request = PresenceRequest::new(slots(table, "2024-03-04", "2024-03-05"), keys(&[key]), at(as_of));
    let found = lake.presence(table, &request).await.unwrap();
    assert_same_in_pieces(lake, table, &request, &found, key).await;
    let of = |sets| {
        by_key(sets).into_iter().flat_map(|(of, slots)| if of == Key::from(key) { slots } else { panic!("slots of {of}") }).collect()
    };
    (of(&found.repaired), of(&found.absent))
}

const AS_OF: &str = "2024-04-02T00:00:00Z";

/// No reader sees a staged unit: not in the table, its repaired view, or its presence.
pub async fn a_staged_unit_is_seen_by_no_reader(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let raw = [row("A", "2024-03-04T09:00:00Z", 1.0, 1)];
    let table = table_with(setup, &raw).await;
    let minute = slots(&table, "2024-03-04T09:05:00Z", "2024-03-04T09:06:00Z");
    let fix = fix(&table, &[row("A", "2024-03-04T09:01:00Z", 2.0, 2)], vec![absence("A", minute, "2025-01-01T00:00:00Z")]);
    let run = new_run();
    lake.stage(&scope(&table, &run), &request("unit", &fix)).await.unwrap();
    for layer in [Layer::Raw, Layer::Repaired] {
        assert_eq!(read(lake, &table, layer).await, own(&raw));
    }
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await, (vec![], vec![]));
    lake.publish(&scope(&table, &run), 0, &units(&["unit"])).await.unwrap();
    let found = overlay_of(lake, &table, "A", AS_OF).await;
    assert_eq!(found, (vec![minute.first - 4], vec![minute.first]), "it is seen once it is published");
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&raw), "raw data is never touched");
}

/// Staging a unit or publishing a batch again changes nothing, and returns the same.
pub async fn to_stage_or_publish_twice_is_to_do_it_once(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let raw = [row("A", "2024-03-04T09:00:00Z", 1.0, 1)];
    let table = table_with(setup, &raw).await;
    let fixed = [row("A", "2024-03-04T09:01:00Z", 2.0, 2), row("A", "2024-03-05T09:01:00Z", 3.0, 3)];
    let gap = slots(&table, "2024-03-04T10:00:00Z", "2024-03-04T10:20:00Z");
    let fix = fix(&table, &fixed, vec![absence("A", gap, "2025-01-01T00:00:00Z")]);
    let run = new_run();
    let scope = scope(&table, &run);
    let first = lake.stage(&scope, &request("unit", &fix)).await.unwrap();
    assert_eq!(lake.stage(&scope, &request("unit", &fix)).await.unwrap(), first);
    assert_eq!(lake.staged(&scope).await.unwrap(), [first]);
    let first = lake.publish(&scope, 0, &units(&["unit"])).await.unwrap();
    let seen = read(lake, &table, Layer::Repaired).await;
    assert_eq!(seen, both(&raw, "backfill", &fixed));
    assert_eq!((first.rows, first.absent), (2, 20));
    // The table may have changed in between.
    put(setup, &table, &[row("B", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    assert_eq!(lake.publish(&scope, 0, &units(&["unit"])).await.unwrap(), first);
    assert_eq!(read(lake, &table, Layer::Repaired).await.len(), seen.len() + 1);
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await.1.len(), 20);
}

/// Staged units are listed with their counts and usage until they are discarded; other units stay.
pub async fn staged_units_are_listed_until_they_are_discarded(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    let scope = scope(&table, &run);
    let gap = slots(&table, "2024-03-04T10:00:00Z", "2024-03-04T10:20:00Z");
    let usage = Usage { source_requests: 3, source_rows: 70, ..Usage::default() };
    let names = ["a", "b/ é %2F", "c"];
    let mut staged: Vec<Staged> = Vec::new();
    for (number, name) in (1..).zip(names) {
        let rows: Vec<Row> = (0..number).map(|minute| row("A", &format!("2024-03-04T11:0{minute}:00Z"), 1.0, 1)).collect();
        let mut conflicts = Conflicts::default();
        conflicts.add("A at 2024-03-04T10:59:00Z: value is 1 in the table, 2 by the source".to_owned());
        let mut suspects = Suspects::default();
        let interval = table.grid().unwrap().interval_of(SlotRange::new(gap.end, gap.end + 40)).unwrap();
        suspects.add(40, Suspect { interval, source: "market".to_owned(), keys: 2 });
        let absent = vec![absence("A", gap, "2025-01-01T00:00:00Z")];
        let answers = vec![AnswerPrint { print: "5f".repeat(16), key: Key::from("A"), first: gap.first }];
        let (conflicts, kept) = (conflicts.clone(), answers.clone());
        let fix = Fix { usage, conflicts: conflicts.clone(), suspects: suspects.clone(), answers, ..fix(&table, &rows, absent) };
        let one = lake.stage(&scope, &request(name, &fix)).await.unwrap();
        assert_eq!((one.unit.as_str(), one.rows, one.absent), (name, number, 20));
        assert_eq!((one.usage.source_requests, one.usage.source_rows), (3, 70), "what the unit took is kept with it");
        assert_eq!(one.conflicts, conflicts, "and where the source says otherwise than the table");
        assert_eq!(one.answers, kept, "and what to remember of the answers");
        assert_eq!(one.suspects, suspects, "and where it is silent in a way that proves nothing");
        staged.push(one);
    }
    let listed = async || {
        let mut listed = lake.staged(&scope).await.unwrap();
        listed.sort_by(|a, b| a.unit.cmp(&b.unit));
        listed
    };
    assert_eq!(listed().await, staged);
    // A unit without any result is staged, too: it is done.
    let nothing = lake.stage(&scope, &request("d", &Fix::default())).await.unwrap();
    assert_eq!((nothing.rows, nothing.absent), (0, 0));
    lake.publish(&scope, 0, &units(&["d"])).await.unwrap();
    lake.discard_staged(&scope, &units(&["b/ é %2F", "no such", "d"])).await.unwrap();
    assert_eq!(listed().await, [staged[0].clone(), staged[2].clone()]);
    let error = lake.publish(&scope, 1, &units(&["a", "b/ é %2F"])).await.unwrap_err();
    assert_eq!((error.kind(), error.context()), (ErrorKind::NotFound, &[("unit", "b/ é %2F".to_owned())][..]));
    assert!(read(lake, &table, Layer::Repaired).await.iter().all(|row| row.4.is_none()), "nothing of the batch is seen");
    lake.discard_staged(&scope, &units(&names)).await.unwrap();
    lake.discard_staged(&scope, &units(&names)).await.unwrap();
    assert!(listed().await.is_empty());
}

/// Runs, steps and visits with similar names have separate areas and objects.
pub async fn scopes_of_similar_names_are_different_scopes(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    let (dashed, slashed) = (format!("{run}-1"), format!("{run}/1"));
    let parts: [(&str, &str, u32); 6] = [
        (&run, "1-fill", 2),
        (&dashed, "fill", 2),
        (&slashed, "fill", 2),
        (&run, "1/fill", 2),
        (&run, "1-fill-2", 2),
        (&run, "1-fill", 22),
    ];
    for (minute, (run, step, visit)) in (1..).zip(parts) {
        let scope = StageScope { run, step, visit, table: &table };
        let fix = fix(&table, &[row("A", &format!("2024-03-04T09:0{minute}:00Z"), 1.0, 1)], Vec::new());
        lake.stage(&scope, &request("unit", &fix)).await.unwrap();
    }
    for (run, step, visit) in parts {
        let scope = StageScope { run, step, visit, table: &table };
        assert_eq!(lake.staged(&scope).await.unwrap().len(), 1);
        lake.publish(&scope, 2, &units(&["unit"])).await.unwrap();
    }
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await.0.len(), parts.len());
    let (run, step, visit) = parts[0];
    lake.discard_staged(&StageScope { run, step, visit, table: &table }, &units(&["unit"])).await.unwrap();
    for (run, step, visit) in &parts[1..] {
        assert_eq!(lake.staged(&StageScope { run, step, visit: *visit, table: &table }).await.unwrap().len(), 1);
    }
}

/// Rows whose columns or values do not fit the table are `invalid`, and nothing is staged.
pub async fn what_does_not_fit_the_table_is_not_staged(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    let scope = scope(&table, &run);
    let good = batch(&table, &[row("A", "2024-03-04T09:01:00Z", 2.0, 2)]);
    let text = || Arc::new(StringArray::from(vec!["two"])) as ArrayRef;
    let with = |name: &str, column: ArrayRef| {
        let schema = good.schema();
        let columns = schema.fields().iter().zip(good.columns()).map(|(field, column)| (field.name().as_str(), column.clone()));
        RecordBatch::try_from_iter(columns.filter(|(known, _)| *known != name).chain([(name, column)])).unwrap()
    };
    let half = Arc::new(arrow::array::Float64Array::from(vec![2.5])) as ArrayRef;
    let without_time = good.project(&[0, 2, 3]).unwrap();
    for odd in [with("price", text()), with("volume", half), with("unknown", text()), without_time] {
        let columns = odd.schema();
        let fix = Fix { rows: vec![odd], source: "market".to_owned(), ..Fix::default() };
        let error = lake.stage(&scope, &request("unit", &fix)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{columns}");
    }
    assert!(lake.staged(&scope).await.unwrap().is_empty());
    // Columns that a repair lacks are null.
    let fix = Fix { rows: vec![good.project(&[0, 1, 3]).unwrap()], source: "market".to_owned(), ..Fix::default() };
    lake.stage(&scope, &request("unit", &fix)).await.unwrap();
    lake.publish(&scope, 0, &units(&["unit"])).await.unwrap();
    let repaired = read(lake, &table, Layer::Repaired).await.into_iter().find(|row| row.4.is_some()).unwrap();
    assert_eq!((repaired.2, repaired.3), (None, Some(2)));
}

/// All rows of a batch of several units are seen; batches of one visit add up.
pub async fn a_batch_is_seen_with_all_its_units(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    let scope = scope(&table, &run);
    let names: Vec<String> = (0..30).map(|number| format!("unit {number}")).collect();
    for (minute, name) in names.iter().enumerate() {
        let fix = fix(&table, &[row("A", &format!("2024-03-04T10:{minute:02}:00Z"), 1.0, 1)], Vec::new());
        lake.stage(&scope, &request(name, &fix)).await.unwrap();
    }
    let published = lake.publish(&scope, 0, &names[..20]).await.unwrap();
    assert_eq!((published.rows, published.usage.objects_written), (20, 1), "one object for a partition and batch");
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await.0.len(), 20);
    lake.publish(&scope, 1, &names[20..]).await.unwrap();
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await.0.len(), 30);
    // Discarding what was staged leaves what was published.
    lake.discard_staged(&scope, &names).await.unwrap();
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await.0.len(), 30);
}

/// The view shows raw rows, even those that arrive late, in place of repairs of their slots.
pub async fn raw_wins_in_the_repaired_view(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let raw = [row("A", "2024-03-04T09:00:00Z", 1.0, 1), row("A", "2024-03-04T09:00:00Z", 1.5, 1)];
    let table = new_table().with_slots(SlotRule { tolerance_s: 20, ..SlotRule::default() });
    put(setup, &table, &raw).await;
    let fixed =
        [row("A", "2024-03-04T09:00:00Z", 8.0, 8), row("A", "2024-03-04T09:01:00Z", 8.0, 8), row("B", "2024-03-04T09:00:00Z", 8.0, 8)];
    repair(lake, &table, "backfill", "2024-04-01T00:00:00Z", &fix(&table, &fixed, Vec::new())).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&raw, "backfill", &fixed[1..]));
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await.0.len(), 1, "a repair that raw does not need is not counted");
    // A row within the tolerance belongs to its slot, and one beyond it to none.
    put(setup, &table, &[row("A", "2024-03-04T09:01:21Z", 3.0, 3)]).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&raw, "backfill", &fixed[1..]));
    let late = row("A", "2024-03-04T09:01:17Z", 2.0, 2);
    put(setup, &table, std::slice::from_ref(&late)).await;
    let raw = [&raw[..], &[late]].concat();
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&raw, "backfill", &fixed[2..]));
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await.0, [] as [i64; 0]);
    assert_eq!(overlay_of(lake, &table, "B", AS_OF).await.0.len(), 1);
    // Presence also says which repairs can be compared with raw rows.
    let day = slots(&table, "2024-03-04", "2024-03-04");
    let found = lake.presence(&table, &PresenceRequest::new(day, keys(&["A", "B"]), at(AS_OF))).await.unwrap();
    let grid = table.grid().unwrap();
    let overtaken = ["2024-03-04T09:00:00Z", "2024-03-04T09:01:00Z"].map(|time| grid.slot_of(at(time))).to_vec();
    assert_eq!(super::presence::by_key(&found.overtaken), [(Key::from("A"), overtaken)]);
    // The same holds for part of the view.
    let part =
        everything(Layer::Repaired).in_interval(crate::model::Interval::parse("2024-03-04T09:01:00Z", "2024-03-04T09:02:00Z").unwrap());
    assert_eq!(seen(&table, &collect(lake.scan(&table, &part).await.unwrap()).await), own(&raw[2..]));
}

/// Of two repairs of one slot, the view shows the one made later, whichever was published first.
pub async fn of_two_repairs_of_a_slot_the_newer_counts(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("B", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let of = |price| fix(&table, &[row("A", "2024-03-04T09:00:00Z", price, 1)], Vec::new());
    repair(lake, &table, "second", "2024-04-01T00:00:02Z", &of(2.0)).await;
    repair(lake, &table, "first", "2024-04-01T00:00:01Z", &of(1.0)).await;
    let shown = async || {
        let rows = read(lake, &table, Layer::Repaired).await;
        let rows: Vec<_> = rows.into_iter().filter(|row| row.0 == Key::from("A")).collect();
        assert_eq!(rows.len(), 1, "a slot is shown once");
        (rows[0].2, rows[0].4.clone())
    };
    assert_eq!(shown().await, (Some(2.0), Some("second".to_owned())));
    repair(lake, &table, "third", "2024-04-01T00:00:03Z", &of(3.0)).await;
    assert_eq!(shown().await, (Some(3.0), Some("third".to_owned())));
    assert_eq!(overlay_of(lake, &table, "A", AS_OF).await.0.len(), 1);
}

/// Repairs of several partitions are one object in each, and a request for one partition finds its own.
pub async fn repairs_go_to_the_partitions_of_their_times(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let fixed: Vec<Row> = ["2024-03-03T23:59:00Z", "2024-03-04T00:00:00Z", "2024-03-04T23:59:00Z", "2024-03-05T00:00:00Z"]
        .map(|time| row("A", time, 2.0, 2))
        .into();
    let run = new_run();
    let scope = scope(&table, &run);
    let fix = fix(&table, &fixed, Vec::new());
    lake.stage(&scope, &StageRequest { strategy: "idea", ..request("unit", &fix) }).await.unwrap();
    let published = lake.publish(&scope, 0, &units(&["unit"])).await.unwrap();
    assert_eq!((published.rows, published.usage.objects_written), (4, 3));
    for (day, count) in [("2024-03-03", 1), ("2024-03-04", 2), ("2024-03-05", 1), ("2024-03-06", 0)] {
        let request = PresenceRequest::new(slots(&table, day, day), keys(&["A"]), at(AS_OF));
        let found = lake.presence(&table, &request).await.unwrap();
        assert_eq!(found.repaired.get(&Key::from("A")).map_or(0, crate::model::SlotSet::count), count, "{day}");
    }
}

/// The overlay is two tables beside the table, whose columns say who added each row, from where and when. However often a batch is
/// published, each row is there once.
pub async fn the_overlay_is_tables_that_say_where_rows_come_from(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let run = new_run();
    let scope = scope(&table, &run);
    let minutes = slots(&table, "2024-03-04T09:05:00Z", "2024-03-04T09:07:00Z");
    let fix = fix(&table, &[row("A", "2024-03-04T09:01:00Z", 2.0, 2)], vec![absence("A", minutes, "2025-01-01T00:00:00Z")]);
    lake.stage(&scope, &request("unit", &fix)).await.unwrap();
    for _ in 0..2 {
        lake.publish(&scope, 0, &units(&["unit"])).await.unwrap();
    }
    for (location, times, more) in [
        (names::repairs(&table.location), vec!["09:01"], vec![(columns::OP, Op::Insert.as_str())]),
        (names::exceptions(&table.location), vec!["09:05", "09:06"], vec![(columns::ANSWER, "nothing traded")]),
    ] {
        let ours = Table { name: location.clone(), location, ..table.clone() };
        let batches = collect(lake.scan(&ours, &everything(Layer::Raw)).await.unwrap()).await;
        let expected: Vec<i64> = times.into_iter().map(|time| at(&format!("2024-03-04T{time}:00Z")).as_microsecond()).collect();
        assert_eq!(seen(&ours, &batches).into_iter().map(|row| row.1).collect::<Vec<_>>(), expected, "{}", ours.name);
        let known = [(columns::RUN, run.as_str()), (columns::STEP, "fill"), (columns::UNIT, "unit"), (columns::STRATEGY, "backfill")];
        for batch in &batches {
            for (column, value) in known.into_iter().chain([(columns::SOURCE, "market")]).chain(more.clone()) {
                let texts = batch.column_by_name(column).unwrap().as_string::<i32>();
                assert!(texts.iter().all(|text| text == Some(value)), "{column} of {}: {texts:?}", ours.name);
            }
            let times = batch.column_by_name(columns::AT).unwrap().as_primitive::<TimestampMicrosecondType>();
            assert!(times.iter().all(|time| time == Some(at("2024-04-01T00:00:00Z").as_microsecond())), "{times:?}");
        }
    }
}

/// A slot that was confirmed absent counts as absent until the instant at which its evidence expires.
pub async fn exceptions_count_until_they_expire(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let all = slots(&table, "2024-03-04T23:50:00Z", "2024-03-05T00:10:00Z");
    let first = SlotRange::new(all.first, all.first + 12);
    let second = SlotRange::new(all.first + 10, all.end);
    let absent = vec![absence("A", first, "2024-05-01T00:00:00Z"), absence("A", second, "2024-06-01T00:00:00Z")];
    repair(lake, &table, "backfill", "2024-04-01T00:00:00Z", &fix(&table, &[], absent)).await;
    for (as_of, counted) in [
        ("2024-04-01T00:00:00Z", all.first..all.end),
        ("2024-04-30T23:59:59Z", all.first..all.end),
        ("2024-05-01T00:00:00Z", second.first..second.end),
        ("2024-06-01T00:00:00Z", 0..0),
    ] {
        let (repaired, absent) = overlay_of(lake, &table, "A", as_of).await;
        assert_eq!((repaired, absent), (vec![], counted.collect::<Vec<_>>()), "as of {as_of}");
    }
    assert_eq!(overlay_of(lake, &table, "B", "2024-04-01T00:00:00Z").await.1, [] as [i64; 0], "and only of its key");
    // A lake that says how long this holds is right.
    for (as_of, until) in [("2024-04-30T23:59:59Z", at("2024-05-01T00:00:00Z")), ("2024-05-01T00:00:00Z", at("2024-06-01T00:00:00Z"))] {
        let request = PresenceRequest::new(slots(&table, "2024-03-04", "2024-03-05"), keys(&["A"]), at(as_of));
        let holds = lake.presence(&table, &request).await.unwrap().absent_until;
        assert!(holds.is_none_or(|holds| holds == until), "as of {as_of}: {holds:?}");
    }
    assert_eq!(read(lake, &table, Layer::Repaired).await.len(), 1, "what is absent is no row");
}
