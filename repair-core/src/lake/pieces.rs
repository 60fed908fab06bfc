//! Presence piece by piece, for lakes that look at the whole at once, or ask for one piece after the other.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Error;
use crate::lake::{PresenceRequest, PresenceStream, ReadLake};
use crate::model::{KeyPresence, Presence, SlotGrid, SlotRange, SlotSet, Table, TablePresence};

/// Asks a lake for one piece after the other. For lakes that find what they need of each piece without reading anything else.
pub fn one_by_one<'a>(
    lake: &'a dyn ReadLake,
    table: &'a Table,
    request: &'a PresenceRequest,
    pieces: &'a [SlotRange],
) -> PresenceStream<'a> {
    let look = move |slots: &'a SlotRange| async move {
        let request = PresenceRequest { slots: *slots, ..request.clone() };
        lake.presence(table, &request).await
    };
    stream::iter(pieces).then(look).boxed()
}

/// Asks a lake for all slots, and cuts its answer into pieces. For lakes that have everything in memory.
pub fn of_whole<'a>(lake: &'a dyn ReadLake, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
    let look = async move {
        let whole = lake.presence(table, request).await?;
        Ok::<_, Error>(stream::iter(cut(whole, pieces).into_iter().map(Ok)))
    };
    stream::once(look).try_flatten().boxed()
}

/// Cuts a presence into pieces. The first has the counts that belong to no word, and the usage.
fn cut(mut whole: TablePresence, pieces: &[SlotRange]) -> Vec<TablePresence> {
    let grid = whole.raw.grid;
    let cut_sets =
        |sets: &BTreeMap<_, SlotSet>, slots| sets.iter().map(|(key, set)| (Clone::clone(key), part_of(grid, set, slots))).collect();
    let mut parts = Vec::with_capacity(pieces.len());
    for &slots in pieces {
        let mut raw = Presence::new(grid, slots, []);
        raw.keys = whole.raw.keys.iter().map(|(key, all)| (key.clone(), part_of_key(grid, all, slots))).collect();
        raw.other_rows = std::mem::take(&mut whole.raw.other_rows);
        raw.other_keys = std::mem::take(&mut whole.raw.other_keys);
        raw.misaligned_rows = std::mem::take(&mut whole.raw.misaligned_rows);
        raw.misplaced_rows = std::mem::take(&mut whole.raw.misplaced_rows);
        raw.stray_rows = std::mem::take(&mut whole.raw.stray_rows);
        raw.quarantine = std::mem::take(&mut whole.raw.quarantine);
        parts.push(TablePresence {
            raw,
            repaired: cut_sets(&whole.repaired, slots),
            overtaken: cut_sets(&whole.overtaken, slots),
            absent: cut_sets(&whole.absent, slots),
            removed: cut_sets(&whole.removed, slots),
            absent_until: whole.absent_until,
            usage: std::mem::take(&mut whole.usage),
        });
    }
    parts
}

fn part_of(grid: SlotGrid, set: &SlotSet, slots: SlotRange) -> SlotSet {
    let mut part = SlotSet::new(grid.cadence(), slots);
    (set.first_word()..).zip(set.words()).for_each(|(number, word)| part.insert_word(number, *word));
    part
}

fn part_of_key(grid: SlotGrid, all: &KeyPresence, slots: SlotRange) -> KeyPresence {
    let present = part_of(grid, &all.present, slots);
    let skipped = usize::try_from(present.first_word() - all.present.first_word()).unwrap_or(0);
    let rows = all.rows.iter().skip(skipped).take(present.words().len()).copied().collect();
    KeyPresence { present, rows }
}
