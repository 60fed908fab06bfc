//! Tables whose key alone identifies a row: what readers see of rows with several versions, and how these are known.

use std::time::Duration;

use jiff::SignedDuration;

use super::LakeSetup;
use super::patches::{Changes, change, expected, publish, shown, shown_of};
use super::tables::*;
use crate::lake::overlay::base::{BaseRow, BaseRows};
use crate::lake::overlay::fingerprint::of_slots;
use crate::lake::overlay::live::LiveRepairs;
use crate::lake::overlay::retraction::{Part, Retraction};
use crate::lake::overlay::versions;
use crate::lake::{Lake, Layer};
use crate::model::{Fingerprints, GapList, Interval, Key, Rows, SlotRange, Table};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A new table of rows whose versions are at most five days apart, partitioned by day.
pub(super) fn versions_within_five_days() -> Table {
    Table { cadence: None, rows: Rows::Unique, lookback: Some(Duration::from_secs(5 * 86_400)), ..new_table() }
}

/// The fingerprint of the versions of a row that the table now has around the time of this one.
async fn judged(lake: &dyn Lake, table: &Table, row: &Row) -> Fingerprints {
    let mut places = GapList::default();
    places.push(&row.key, SlotRange::new(row.time_us, row.time_us + 1));
    of_slots(lake, table, &places).await.unwrap()
}

/// Lets a row stand for all versions of it, and returns the run that did so.
async fn keep(lake: &dyn Lake, table: &Table, at_time: &str, row: &Row) -> String {
    let judged = judged(lake, table, row).await;
    publish(lake, table, "keep", at(at_time), (&[], &fix(table, std::slice::from_ref(row), Vec::new()), Some(&judged))).await
}

fn retraction(id: &str, run: &str) -> Retraction {
    Retraction {
        id: id.to_owned(),
        parts: vec![Part::of_run(run)],
        undoes: None,
        at: at("2024-06-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "it was right".to_owned(),
    }
}

/// The view of each day shows what the whole view has of it.
async fn any_interval_shows_its_part(lake: &dyn Lake, table: &Table, all: &[Seen]) {
    let first = at("2024-02-28T00:00:00Z");
    for days in 0..24 {
        let from = first + DAY * days;
        let within = Interval::new(from, from + DAY).unwrap();
        let found = seen(table, &collect(lake.scan(table, &everything(Layer::Repaired).in_interval(within)).await.unwrap()).await);
        let is_within = |row: &&Seen| within.from().as_microsecond() <= row.1 && row.1 < within.to().as_microsecond();
        assert_eq!(found, all.iter().filter(is_within).cloned().collect::<Vec<_>>(), "{within}");
    }
}

/// A repair stands for all versions of its row within the lookback, both ways and to the last millisecond, in whichever partitions they lie
/// and whatever interval is asked for. Other rows stay as they are.
pub async fn a_version_stands_for_all_within_the_lookback(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = versions_within_five_days();
    let kept = row("A", "2024-03-08T09:00:00Z", 8.0, 8);
    let hidden = [
        row("A", "2024-03-03T09:00:00Z", 1.0, 1),
        row("A", "2024-03-04T00:00:00Z", 2.0, 2),
        kept.clone(),
        // Two versions of one instant, and one that is there twice.
        row("A", "2024-03-08T09:00:00Z", 3.0, 3),
        row("A", "2024-03-08T09:00:00Z", 3.0, 3),
        row("A", "2024-03-13T09:00:00Z", 4.0, 4),
    ];
    let others = [
        row("A", "2024-03-03T08:59:59.999Z", 5.0, 5),
        row("A", "2024-03-13T09:00:00.001Z", 6.0, 6),
        row("B", "2024-03-08T09:00:00Z", 7.0, 7),
        // Nobody has chosen one of these yet.
        row("C", "2024-03-08T09:00:00Z", 7.0, 7),
        row("C", "2024-03-09T09:00:00Z", 9.0, 9),
    ];
    let raw = [&hidden[..], &others].concat();
    put(setup, &table, &raw).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, own(&raw), "nothing is chosen unasked");
    keep(lake, &table, "2024-06-01T00:00:00Z", &kept).await;
    let all = both(&others, "keep", std::slice::from_ref(&kept));
    assert_eq!(read(lake, &table, Layer::Repaired).await, all);
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&raw), "raw data is never touched");
    any_interval_shows_its_part(lake, &table, &all).await;
    let of_a = everything(Layer::Repaired).of_keys(keys(&["A"])).with_columns(vec!["price".to_owned()]);
    let found = seen(&table, &collect(lake.scan(&table, &of_a).await.unwrap()).await);
    assert_eq!(found.iter().map(|row| row.2).collect::<Vec<_>>(), [Some(5.0), Some(8.0), Some(6.0)]);
    let ours = lake.repairs_of(&table).await.unwrap();
    let overlay = seen(&ours, &collect(lake.scan(&ours, &everything(Layer::Raw)).await.unwrap()).await);
    assert_eq!(overlay.iter().map(|row| (row.1, row.2)).collect::<Vec<_>>(), [(kept.time_us, Some(8.0))]);
}

/// A newer repair of a row outdates an older one at another time, also where it lies beyond what is asked for. A new version of a repaired row
/// is hidden until it is kept.
pub async fn of_two_versions_that_were_kept_the_newer_counts(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = versions_within_five_days();
    let of_day = |day: i32, price: f64| row("A", &format!("2024-03-{day:02}T09:00:00Z"), price, 1);
    let own_rows = [of_day(1, 1.0), of_day(5, 5.0), of_day(9, 9.0)];
    put(setup, &table, &own_rows).await;
    keep(lake, &table, "2024-06-01T00:00:00Z", &of_day(1, 10.0)).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, both(&[of_day(9, 9.0)], "keep", &[of_day(1, 10.0)]));
    keep(lake, &table, "2024-06-01T00:00:01Z", &of_day(5, 50.0)).await;
    let all = repaired(&[of_day(5, 50.0)], Some("keep"));
    assert_eq!(read(lake, &table, Layer::Repaired).await, all);
    any_interval_shows_its_part(lake, &table, &all).await;
    put(setup, &table, &[of_day(7, 7.0)]).await;
    assert_eq!(read(lake, &table, Layer::Repaired).await, all, "until somebody looks, what is seen stays");
    // What outdates an older repair may be outdated itself.
    keep(lake, &table, "2024-06-01T00:00:02Z", &of_day(9, 90.0)).await;
    let all = both(&[of_day(1, 1.0)], "keep", &[of_day(9, 90.0)]);
    assert_eq!(read(lake, &table, Layer::Repaired).await, all);
    any_interval_shows_its_part(lake, &table, &all).await;
    // Of two from one instant, the one whose run sorts last; runs of this suite sort by their age.
    keep(lake, &table, "2024-06-01T00:00:02Z", &of_day(8, 80.0)).await;
    let all = both(&[of_day(1, 1.0)], "keep", &[of_day(8, 80.0)]);
    assert_eq!(read(lake, &table, Layer::Repaired).await, all);
    let week = Interval::parse("2024-03-01", "2024-03-12").unwrap();
    let live = LiveRepairs::read(lake, &table, week, &keys(&["A"]), &["price".to_owned()]).await.unwrap();
    assert_eq!(live.iter().map(|(_, slot, _)| slot).collect::<Vec<_>>(), [of_day(8, 0.0).time_us], "as the view has it");
}

/// The versions of a row are found around an interval, and which of them a repair replaced is known later. Fingerprints are constants.
pub async fn versions_of_a_row_are_known_in_every_lake(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = versions_within_five_days();
    let versions = [row("A", "2024-03-01T09:00:00Z", 1.0, 1), row("A", "2024-03-06T09:00:00Z", 2.0, 2)];
    let later = row("A", "2024-03-20T09:00:00.250Z", 3.0, 3);
    put(setup, &table, &[&versions[..], std::slice::from_ref(&later)].concat()).await;
    let day = Interval::parse("2024-03-06", "2024-03-06").unwrap();
    let (found, rows) = versions::read(lake, &table, &day, keys(&["A", "B"])).await.unwrap();
    let times: Vec<&[i64]> = found[&Key::from("A")].iter().map(|versions| versions.times_us()).collect();
    assert_eq!((times, rows), (vec![&versions.each_ref().map(|row| row.time_us)[..]], 2));
    let of = async |row: &Row| judged(lake, &table, row).await.get(&row.key, row.time_us).unwrap().to_string();
    assert_eq!([of(&versions[0]).await, of(&versions[1]).await, of(&later).await], FINGERPRINTS);
    keep(lake, &table, "2024-06-01T00:00:00Z", &versions[1]).await;
    let base = BaseRows::read(lake, &table, (day, &keys(&["A"])), (&["price".to_owned()], false), |_, _| true).await.unwrap();
    let of_time = |row: &Row| base.get(&row.key, row.time_us);
    assert!(matches!((of_time(&versions[0]), of_time(&versions[1])), (None, Some(BaseRow::One(0, 0)))), "{base:?}");
    put(setup, &table, &[row("A", "2024-03-03T09:00:00Z", 4.0, 4)]).await;
    let live = LiveRepairs::read(lake, &table, day, &keys(&["A"]), &[]).await.unwrap();
    let replaced = live.get(&Key::from("A"), versions[1].time_us).unwrap().replaced.unwrap().to_string();
    assert_eq!(replaced, FINGERPRINTS[1]);
    assert_ne!(of(&versions[1]).await, replaced, "a new version is noticed");
}

/// The fingerprints of the rows above: of the first two, which are versions of one row, and of the third.
const FINGERPRINTS: [&str; 3] =
    ["3fb09a853407db72898cb35cf0283817", "3fb09a853407db72898cb35cf0283817", "40e887d10f66c623f5d2672f48ce5e9a"];

/// Undone, all versions are back; and an older repair, where the newer one alone is undone. A repaired cell is that of one version, and
/// stays with it. For a lake that can retract.
pub async fn undo_brings_versions_back(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = versions_within_five_days();
    let versions = [row("A", "2024-03-04T09:00:00Z", 1.0, 1), row("A", "2024-03-06T09:00:00Z", -2.0, 2)];
    put(setup, &table, &versions).await;
    let cell = change(lake, &table, "guess", "2024-06-01T00:00:00Z", &[Changes::of("A", "2024-03-06T09:00:00Z").price(-2.0, 2.0)]).await;
    let cells = Some(r#"{"price":"guess"}"#);
    let right = row("A", "2024-03-06T09:00:00Z", 2.0, 2);
    let first = expected(&[(versions[0].clone(), None, None), (right.clone(), None, cells)]);
    assert_eq!(shown(lake, &table, None).await, first);
    let older = keep(lake, &table, "2024-06-01T00:00:01Z", &versions[0]).await;
    let second = expected(&[(versions[0].clone(), Some("keep"), None)]);
    assert_eq!(shown(lake, &table, None).await, second);
    let newer = keep(lake, &table, "2024-06-01T00:00:02Z", &versions[1]).await;
    assert_eq!(shown(lake, &table, None).await, expected(&[(right.clone(), Some("keep"), cells)]));
    let day = everything(Layer::Repaired).in_interval(Interval::parse("2024-03-04", "2024-03-04").unwrap());
    assert_eq!(shown_of(lake, &table, &day).await, []);
    lake.retract(&table, &retraction("first", &newer)).await.unwrap();
    assert_eq!(shown(lake, &table, None).await, second);
    lake.retract(&table, &retraction("second", &older)).await.unwrap();
    assert_eq!(shown(lake, &table, None).await, first);
    lake.retract(&table, &retraction("third", &cell)).await.unwrap();
    assert_eq!(shown(lake, &table, None).await, expected(&versions.clone().map(|row| (row, None, None))));
    lake.retract(&table, &Retraction { parts: Vec::new(), undoes: Some("first".to_owned()), ..retraction("fourth", "") }).await.unwrap();
    assert_eq!(shown(lake, &table, None).await, expected(&[(versions[1].clone(), Some("keep"), None)]));
}
