//! Which slots hold a row.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;

use super::LakeSetup;
use super::tables::*;
use crate::lake::{Lake, Layer, PresenceRequest, ReadLake};
use crate::model::{Cadence, Key, PartitionUnit, Presence, SlotGrid, SlotRange, SlotRule, SlotSet, Table, TablePresence, TimeMark};

/// By this time the suite's exceptions have expired, unless a test says otherwise.
const AS_OF: &str = "2024-04-02T00:00:00Z";

/// Asserts that a presence equals what was counted, bit by bit and word by word.
fn assert_counted(presence: &Presence, counted: &Counted, keys: &[Key], slots: SlotRange, what: &str) {
    let distinct: BTreeSet<&Key> = keys.iter().collect();
    assert_eq!(presence.keys.keys().collect::<BTreeSet<_>>(), distinct, "the keys asked for, and no others: {what}");
    assert_eq!(presence.slots, slots);
    let per_word = i64::from(presence.grid.cadence().slots_per_word());
    for (key, found) in &presence.keys {
        let of_key = |slot: i64| counted.get(&(key.clone(), slot)).copied().unwrap_or(0);
        for slot in slots.first - 70..slots.end + 70 {
            let expected = slots.contains(slot) && of_key(slot) > 0;
            assert_eq!(found.present.contains(slot), expected, "slot {slot} of {key}: {what}");
        }
        assert_eq!(found.rows.len(), found.present.words().len(), "{what}");
        for (word, &rows) in (found.present.first_word()..).zip(&found.rows) {
            let in_word = SlotRange::new(word * per_word, (word + 1) * per_word).intersection(&slots);
            let expected: u32 = (in_word.first..in_word.end).map(of_key).sum();
            assert_eq!(rows, expected, "rows of word {word} of {key}: {what}");
        }
    }
}

/// Asserts that a lake says the same in pieces as of the whole. There are about three of them.
pub async fn assert_same_in_pieces(lake: &dyn ReadLake, table: &Table, request: &PresenceRequest, whole: &TablePresence, what: &str) {
    let grid = whole.raw.grid;
    let per_word = i64::from(grid.cadence().slots_per_word());
    let words = (request.slots.end - 1).div_euclid(per_word) - request.slots.first.div_euclid(per_word) + 1;
    let step = (words / 3).max(1);
    let mut pieces = Vec::new();
    let mut first = request.slots.first;
    while first < request.slots.end {
        let end = ((first.div_euclid(per_word) + step) * per_word).min(request.slots.end);
        pieces.push(SlotRange::new(first, end));
        first = end;
    }
    let mut presences = lake.presence_in_pieces(table, request, &pieces);
    let mut sum = Presence::new(grid, request.slots, request.keys.iter());
    let mut sets: [BTreeMap<Key, SlotSet>; 4] = Default::default();
    for piece in &pieces {
        let found = presences.try_next().await.unwrap_or_else(|error| panic!("{what}: {}", error.full())).unwrap();
        assert_eq!(found.raw.slots, *piece, "{what}");
        assert_eq!(found.raw.keys.keys().collect::<Vec<_>>(), whole.raw.keys.keys().collect::<Vec<_>>(), "{what}");
        for (key, part) in &found.raw.keys {
            let all = sum.keys.get_mut(key).unwrap();
            assert_eq!((part.present.range(), part.rows.len()), (*piece, part.present.words().len()), "{what}");
            for (number, (word, rows)) in (part.present.first_word()..).zip(part.present.words().iter().zip(&part.rows)) {
                all.present.insert_word(number, *word);
                all.rows[usize::try_from(number - all.present.first_word()).unwrap()] += rows;
            }
        }
        for (sum, part) in sets.iter_mut().zip([&found.repaired, &found.overtaken, &found.absent, &found.removed]) {
            for (key, part) in part {
                assert_eq!(part.range(), *piece, "{what}");
                sum.entry(key.clone()).or_insert_with(|| SlotSet::new(grid.cadence(), request.slots)).union(part);
            }
        }
        // Each slot of a piece is seen; all else adds up.
        sum.merge(Presence { keys: BTreeMap::new(), ..found.raw });
    }
    assert!(presences.try_next().await.unwrap().is_none(), "{what}");
    assert_eq!(sum, whole.raw, "{what}");
    for (sum, all) in sets.iter().zip([&whole.repaired, &whole.overtaken, &whole.absent, &whole.removed]) {
        for (key, all) in all {
            let some = sum.get(key).map(|sum| sum.iter().collect::<Vec<_>>()).unwrap_or_default();
            assert_eq!(some, all.iter().collect::<Vec<_>>(), "{key}: {what}");
        }
    }
}

/// Grids of every kind: cadence, where slots begin, tolerance in seconds, zone, and an earlier cadence with the date on which it ended.
const GRIDS: [(&str, &str, u32, &str, &str); 15] = [
    ("1m", "", 0, "UTC", ""),
    ("5m", "", 0, "UTC", ""),
    ("1h", "", 0, "UTC", ""),
    ("1d", "", 0, "UTC", ""),
    ("1m", "", 2, "UTC", ""),
    ("1h", ":51", 15, "UTC", ""),
    ("1d", "", 0, "Europe/Berlin", ""),
    ("1d", "17:00", 2, "America/New_York", ""),
    // The clock is set forward at midnight.
    ("1d", "", 0, "Africa/Cairo", ""),
    ("1w", "sun 17:00", 0, "America/New_York", ""),
    ("1w", "", 0, "+05:30", ""),
    ("1mo", "", 0, "UTC", ""),
    ("1mo", "15 06:00", 60, "Australia/Sydney", ""),
    ("1y", "04-01", 0, "+01:00", ""),
    ("15m", "", 0, "Europe/Berlin", "1h"),
];

/// How many of [`GRIDS`], at the start, are multiples of a number of seconds.
const PLAIN_GRIDS: usize = 4;

/// The tables of [`GRIDS`], with the other settings of a case.
fn grids() -> impl Iterator<Item = Table> {
    GRIDS.into_iter().map(|(cadence, at, tolerance_s, zone, earlier)| {
        let before = (!earlier.is_empty()).then(|| ("2024-01-01".parse().unwrap(), earlier.parse().unwrap()));
        let rule = SlotRule { at: (!at.is_empty()).then(|| at.parse().unwrap()), tolerance_s, before: before.into_iter().collect() };
        new_table().with_cadence(cadence.parse().unwrap()).with_slots(rule).with_zone(zone.parse().unwrap())
    })
}

/// Presence is exact for every grid, time mark and partition: each slot's bit, the number of rows for each word (more than bits means
/// duplicates), rows off the grid, and nothing from outside the range.
pub async fn presence_is_exact_bits_and_counts(lake: &dyn Lake, setup: &dyn LakeSetup) {
    use PartitionUnit::{Day, Hour, Month, Year};
    let mut numbers = Numbers(42);
    let partitions = [None, Some(Day), Some(Hour), Some(Month), Some(Year)];
    // Plain slots are checked with both marks, and all others with one.
    let both = grids().take(PLAIN_GRIDS).map(|table| (table, TimeMark::End));
    let all = grids().zip([TimeMark::Start, TimeMark::Start, TimeMark::End].into_iter().cycle()).chain(both);
    for (case, (table, marks)) in all.enumerate() {
        let cadence = table.cadence.unwrap();
        let partition = partitions[case % partitions.len()].filter(|unit| *unit != Hour || cadence <= Cadence::HOUR);
        let name = format!("{}_{case}", table.name);
        let table = Table { time_marks: marks, partition_by: partition.map(by).unwrap_or_default(), location: name.clone(), name, ..table };
        let grid = table.grid().unwrap();
        let tolerance_us = i64::from(grid.tolerance_s()) * 1_000_000;
        // Across the end of a day, a month and a year.
        let middle = grid.slot_of(at("2024-01-01T00:00:00Z"));
        let slots = SlotRange::new(middle - 75, middle + 80);
        let (mut rows, mut counted, mut misaligned) = (Vec::new(), Counted::new(), 0);
        for _ in 0..160 {
            let key = Key::from(["A", "B", "lower case", "é/%"][usize::try_from(numbers.below(4)).unwrap()]);
            let slot = middle - 85 + i64::try_from(numbers.below(175)).unwrap();
            let is_off = numbers.below(5) == 0;
            // Within the slot, by part of a second or by seconds; before its end, or after its beginning.
            let finest = setup.time_resolution_us();
            let off_us = [finest, 1_000_000 - finest, 1_500_000, 30_000_000, tolerance_us, tolerance_us + finest];
            let off_us = off_us[usize::try_from(numbers.below(6)).unwrap()];
            let off_us = match (is_off, marks, numbers.below(2)) {
                (false, ..) => 0,
                (true, TimeMark::Start, 0) => off_us,
                (true, TimeMark::Start, _) => -off_us,
                (true, TimeMark::End, _) => -off_us,
            };
            let time_us = grid.time_of_seconds(slot) * 1_000_000 + off_us;
            rows.push(Row { key: key.clone(), time_us, price: Some(1.0), volume: None });
            // For an end that is missed by less than a second, the whole second decides.
            let near = grid.slot_of_seconds(time_us.div_euclid(1_000_000));
            match grid.slot_of_row(time_us) {
                Some(slot) if slots.contains(slot) => *counted.entry((key, slot)).or_default() += 1,
                None if slots.contains(near) => misaligned += 1,
                _ => {}
            }
        }
        put(setup, &table, &rows[..100]).await;
        put(setup, &table, &rows[100..]).await;
        let keys = keys(&["lower case", "A", "é/%", "B"]);
        let what = format!("{grid:?}, partitions {partition:?}");
        let request = PresenceRequest::new(slots, keys.clone(), at(AS_OF));
        let found = lake.presence(&table, &request).await.unwrap();
        assert_counted(&found.raw, &counted, &keys, slots, &what);
        assert_eq!((found.raw.other_rows, found.raw.misaligned_rows), (0, misaligned), "{what}");
        assert_same_in_pieces(lake, &table, &request, &found, &what).await;
        // That there is nothing elsewhere does not depend on the grid.
        if !grid.is_plain() {
            continue;
        }
        let nothing = SlotRange::new(slots.end + 300, slots.end + 400);
        let found = lake.presence(&table, &PresenceRequest { slots: nothing, ..request.clone() }).await.unwrap();
        assert_counted(&found.raw, &Counted::new(), &keys, nothing, &what);
        let none = SlotRange::new(slots.first, slots.first);
        let found = lake.presence(&table, &PresenceRequest { slots: none, ..request }).await.unwrap();
        assert_counted(&found.raw, &Counted::new(), &keys, none, &what);
    }
}

/// Each requested key is there once, even if it holds nothing; rows of other keys are counted, not shown.
pub async fn presence_shows_requested_keys_and_counts_others(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let rows = [
        row("A", "2024-03-04T09:00:00Z", 1.0, 1),
        row("B", "2024-03-04T09:00:00Z", 1.0, 1),
        row("B", "2024-03-04T09:00:30Z", 1.0, 1),
        row("a", "2024-03-04T09:01:00Z", 1.0, 1),
        row("A ", "2024-03-04T09:01:00Z", 1.0, 1),
        row("B", "2024-03-05T00:00:00Z", 1.0, 1),
        row("c", "2024-03-04T10:00:00Z", 1.0, 1),
        row("d", "2024-03-04T11:00:00Z", 1.0, 1),
        row("d", "2024-03-04T12:00:00Z", 1.0, 1),
        row("e", "2024-03-04T10:00:00Z", 1.0, 1),
    ];
    let table = table_with(setup, &rows).await;
    let slots = slots(&table, "2024-03-04", "2024-03-04");
    for (asked, others) in [(&["A", "none", "A"][..], 8), (&["B"], 7), (&["A", "B", "a", "A "], 4), (&[], 9)] {
        let request = PresenceRequest::new(slots, keys(asked), at(AS_OF));
        let found = lake.presence(&table, &request).await.unwrap();
        let mut counted = Counted::new();
        for row in rows.iter().filter(|row| request.keys.contains(&row.key) && row.time_us % 60_000_000 == 0) {
            *counted.entry((row.key.clone(), row.time_us.div_euclid(60_000_000))).or_default() += 1;
        }
        assert_counted(&found.raw, &counted, &request.keys, slots, &format!("{asked:?}"));
        assert_same_in_pieces(lake, &table, &request, &found, &format!("{asked:?}")).await;
        assert_eq!(found.raw.other_rows, others, "{asked:?}");
        // The first five are named, with all of their rows.
        let mut named: BTreeMap<&Key, u64> = BTreeMap::new();
        for row in rows.iter().filter(|row| slots.contains(row.time_us.div_euclid(60_000_000)) && !request.keys.contains(&row.key)) {
            *named.entry(&row.key).or_default() += 1;
        }
        assert!(found.raw.other_keys.iter().eq(named.into_iter().take(5)), "{asked:?}: {:?}", found.raw.other_keys);
    }
}

/// A key may have several columns, in the table's order, or none at all.
pub async fn presence_of_keys_of_several_columns_and_of_none(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let two = Table { key: vec!["venue".to_owned(), "symbol".to_owned()], ..new_table() };
    let time_us = at("2024-03-04T09:00:00Z").as_microsecond();
    let of = |key: Key, minute: i64| Row { key, time_us: time_us + minute * 60_000_000, price: Some(1.0), volume: Some(1) };
    let wanted = [Key::new(["X", "Y"]), Key::new(["Y", "X"]), Key::new(["X/Y", ""]), Key::new(["X", "/Y"])];
    let rows: Vec<Row> = (0..).zip(&wanted).map(|(minute, key)| of(key.clone(), minute)).collect();
    put(setup, &two, &rows).await;
    let none = Table { key: Vec::new(), ..new_table() };
    put(setup, &none, &[of(Key::default(), 0), of(Key::default(), 0), of(Key::default(), 3)]).await;
    for (table, wanted, expected) in [
        (&two, wanted.to_vec(), (0..).zip(&wanted).map(|(minute, key)| ((key.clone(), minute), 1)).collect::<Vec<_>>()),
        (&none, vec![Key::default()], vec![((Key::default(), 0), 2), ((Key::default(), 3), 1)]),
    ] {
        let slots = slots(table, "2024-03-04", "2024-03-04");
        let first = time_us.div_euclid(60_000_000);
        let counted: Counted = expected.into_iter().map(|((key, minute), rows)| ((key, first + minute), rows)).collect();
        let request = PresenceRequest::new(slots, wanted.clone(), at(AS_OF));
        let found = lake.presence(table, &request).await.unwrap();
        let what = format!("keys of {} columns", table.key.len());
        assert_counted(&found.raw, &counted, &wanted, slots, &what);
        assert_same_in_pieces(lake, table, &request, &found, &what).await;
    }
}

/// The next call sees rows that have arrived.
pub async fn late_rows_are_seen_at_once(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let first = row("A", "2024-03-04T09:00:00Z", 1.0, 1);
    let late = row("A", "2024-03-04T09:01:00Z", 2.0, 2);
    let table = table_with(setup, std::slice::from_ref(&first)).await;
    let request = PresenceRequest::new(slots(&table, "2024-03-04", "2024-03-04"), keys(&["A"]), at(AS_OF));
    let count = |presence: TablePresence| presence.raw.keys[&Key::from("A")].present.count();
    assert_eq!(count(lake.presence(&table, &request).await.unwrap()), 1);
    put(setup, &table, std::slice::from_ref(&late)).await;
    assert_eq!(count(lake.presence(&table, &request).await.unwrap()), 2);
    assert_eq!(read(lake, &table, Layer::Raw).await, own(&[first, late]));
}

/// The slots of each set, by key, without empty sets.
pub(super) fn by_key(sets: &BTreeMap<Key, SlotSet>) -> Vec<(Key, Vec<i64>)> {
    sets.iter().filter(|(_, set)| !set.is_empty()).map(|(key, set)| (key.clone(), set.iter().collect())).collect()
}

/// Two lakes that hold the same rows and the same repairs return the same, to the bit.
pub async fn two_lakes_say_the_same(one: (&dyn Lake, &dyn LakeSetup), other: (&dyn Lake, &dyn LakeSetup)) {
    let mut numbers = Numbers(7);
    // One plain grid, and every second of the others.
    for (case, table) in grids().enumerate().skip(PLAIN_GRIDS - 1).step_by(2) {
        let marks = if case % 4 == 1 { TimeMark::Start } else { TimeMark::End };
        let table = Table { time_marks: marks, ..table };
        let grid = table.grid().unwrap();
        let first = grid.slot_of(at("2024-03-04T22:30:00Z")) - 80;
        let slots = SlotRange::new(first, first + 150);
        let tolerance_us = i64::from(grid.tolerance_s()) * 1_000_000;
        let names = ["A", "B", "C"];
        let mut some = |count: usize| -> Vec<Row> {
            (0..count)
                .map(|_| {
                    let key = Key::from(names[usize::try_from(numbers.below(3)).unwrap()]);
                    let slot = first - 5 + i64::try_from(numbers.below(160)).unwrap();
                    let price = f64::from(u32::try_from(numbers.below(1_000)).unwrap()) / 7.0;
                    let off_us = [0, 0, tolerance_us, -tolerance_us, -1_000_000 - tolerance_us][usize::try_from(numbers.below(5)).unwrap()];
                    Row { key, time_us: grid.time_of_seconds(slot) * 1_000_000 + off_us, price: Some(price), volume: Some(1) }
                })
                .collect()
        };
        let (raw, early, late) = (some(150), some(60), some(60));
        let absent = vec![absence("A", SlotRange::new(first + 3, first + 30), "2024-05-01T00:00:00Z")];
        let expired = vec![absence("B", SlotRange::new(first + 3, first + 30), AS_OF)];
        let request = PresenceRequest::new(slots, keys(&["A", "B"]), at(AS_OF));
        let mut said = Vec::new();
        for (lake, setup) in [one, other] {
            put(setup, &table, &raw).await;
            repair(lake, &table, "early", "2024-04-01T00:00:00Z", &fix(&table, &once(grid, &early), absent.clone())).await;
            repair(lake, &table, "late", "2024-04-01T00:00:01Z", &fix(&table, &once(grid, &late), expired.clone())).await;
            let presence = lake.presence(&table, &request).await.unwrap();
            said.push((
                presence.raw,
                by_key(&presence.repaired),
                by_key(&presence.overtaken),
                by_key(&presence.absent),
                read(lake, &table, Layer::Raw).await,
                read(lake, &table, Layer::Repaired).await,
            ));
        }
        assert_eq!(said[0], said[1], "{grid:?}");
    }
}

/// One row for each slot, since a unit repairs a slot once, at the time that the slot has.
fn once(grid: SlotGrid, rows: &[Row]) -> Vec<Row> {
    let mut known = BTreeMap::new();
    for row in rows {
        let time_us = grid.time_of_seconds(grid.slot_of_seconds(row.time_us.div_euclid(1_000_000))) * 1_000_000;
        known.entry((row.key.clone(), time_us)).or_insert(Row { time_us, ..row.clone() });
    }
    known.into_values().collect()
}
