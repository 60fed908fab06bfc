//! What has changed in a table since its looks: what was repaired, confirmed absent, hidden or shown again where no step has looked again. Pure.

use jiff::Timestamp;

use super::fold::Class;
use super::kept::{Index, KeptLook, Looks, Published};
use repair_core::lake::overlay::aside;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::model::Interval;

/// What has changed since the looks, in sentences.
pub(super) fn notes(index: &Index, looks: &Looks, records: &[Retraction]) -> Vec<String> {
    let mut notes: Vec<String> = looks.published.iter().flat_map(|published| of_one(&looks.looks, published)).collect();
    let is_decision = |id: &str| records.iter().any(|record| record.id == id && aside::is_decision(record));
    // A mark says that what was computed into this table is stale, not that its rows have changed.
    let is_other = |id: &str| is_decision(id) || id.starts_with("stale-");
    for record in records {
        if is_other(&record.id) || record.undoes.as_deref().is_some_and(is_other) {
            continue;
        }
        let undone = record.undoes.as_deref().and_then(|id| records.iter().find(|other| other.id == id));
        if has_looked_at(index, &looks.looks, &undone.unwrap_or(record).parts, record.at) {
            continue;
        }
        let what = if record.undoes.is_some() { "shown again" } else { "hidden" };
        notes.push(format!("repairs or exceptions were {what} since the latest look ({}); no step has looked again", record.id));
    }
    notes
}

/// What is to be said about what one run has published.
fn of_one(looks: &[KeptLook], published: &Published) -> Vec<String> {
    let count = |slots: u64| if slots == 1 { "1 slot".to_owned() } else { format!("{slots} slots") };
    let mut notes: Vec<String> = Vec::new();
    for before in of_published(looks, published) {
        let note = if looks.get(published.look).is_some_and(|own| class(own) == class(before)) {
            format!(
                "run {} has repaired or confirmed absent {} since the latest look; no step has looked again",
                published.run,
                count(published.slots)
            )
        } else {
            let (step, wrong) = (&before.look.of, count(before.found));
            format!(
                "run {} has repaired {} since step `{step}` looked and found {wrong} wrong; these count as wrong until it looks again",
                published.run,
                count(published.slots)
            )
        };
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

/// The looks that found something before it was published, where it may have been repaired, and where none of their kind has looked again: of each kind, the
/// latest. Empty if everything was looked at again.
pub(super) fn of_published<'a>(looks: &'a [KeptLook], published: &Published) -> Vec<&'a KeptLook> {
    let Some(own) = looks.get(published.look) else { return Vec::new() };
    let is_after = |kept: &KeptLook| match kept.look.run == published.run {
        true => kept.event > published.event,
        false => kept.look.at > published.at,
    };
    // What fills a gap changes no row in which something is wrong, and what corrects a row fills no gap.
    let is_like = |class: &Class| *class == self::class(own) || (*class != Class::Missing && self::class(own) != Class::Missing);
    let mut classes: Vec<Class> = Vec::new();
    for class in looks.iter().map(class).filter(is_like) {
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    let of_class = |class: Class| {
        let mut covered = Covered::default();
        for kept in newest_first(looks, &class, own.of_keys) {
            let Some(shared) = kept.look.interval.intersection(&own.look.interval) else { continue };
            if !is_after(kept) && kept.found > 0 && !covered.holds(&shared) {
                return Some(kept);
            }
            covered.add(shared);
            if covered.holds(&own.look.interval) {
                break;
            }
        }
        None
    };
    classes.into_iter().filter_map(of_class).collect()
}

/// Whether steps have looked, since these parts of what runs have added were hidden or shown again, wherever the runs had found something.
fn has_looked_at(index: &Index, looks: &[KeptLook], parts: &[Part], at: Timestamp) -> bool {
    let is_looked_at = |part: &Part| {
        // Only what the run repaired has changed.
        let planned = index.runs.get(&part.run).map(|mark| &mark.planned);
        let is_repaired = |kept: &KeptLook| planned.is_none_or(|planned| planned.values().any(|planned| planned.of == kept.look.of));
        let of_run: Vec<&KeptLook> = looks.iter().filter(|kept| kept.look.run == part.run && kept.found > 0 && is_repaired(kept)).collect();
        if of_run.is_empty() {
            return looks.iter().any(|kept| kept.look.at > at);
        }
        of_run.iter().all(|own| {
            let interval = match &part.interval {
                Some(part) => own.look.interval.intersection(part),
                None => Some(own.look.interval),
            };
            let Some(interval) = interval else { return true };
            let mut covered = Covered::default();
            // Only a look at everything sees what is no longer repaired.
            let later = newest_first(looks, &class(own), own.of_keys).into_iter().filter(|kept| kept.look.at > at && !kept.look.again);
            later.filter_map(|kept| kept.look.interval.intersection(&interval)).for_each(|shared| covered.add(shared));
            covered.holds(&interval)
        })
    };
    parts.iter().all(is_looked_at)
}

fn class(kept: &KeptLook) -> Class {
    Class::of(kept.look.kind, &kept.look.workflow, &kept.look.of)
}

/// The looks of a class at no fewer keys than these, the newest first. A look at fewer keys has not looked at all of them.
fn newest_first<'a>(looks: &'a [KeptLook], class: &Class, of_keys: u64) -> Vec<&'a KeptLook> {
    let mut all: Vec<(usize, &KeptLook)> =
        looks.iter().enumerate().filter(|(_, kept)| kept.of_keys >= of_keys && self::class(kept) == *class).collect();
    all.sort_by_key(|(at, kept)| std::cmp::Reverse((kept.look.at, *at)));
    all.into_iter().map(|(_, kept)| kept).collect()
}

/// Stretches of time, in order and apart from each other.
#[derive(Default)]
struct Covered(Vec<Interval>);

impl Covered {
    fn add(&mut self, interval: Interval) {
        let (touching, mut apart): (Vec<Interval>, Vec<Interval>) =
            self.0.drain(..).partition(|known| known.from() <= interval.to() && interval.from() <= known.to());
        apart.push(touching.iter().fold(interval, |hull, known| hull.hull(known)));
        apart.sort_by_key(Interval::from);
        self.0 = apart;
    }

    fn holds(&self, interval: &Interval) -> bool {
        self.0.iter().any(|known| known.from() <= interval.from() && interval.to() <= known.to())
    }
}
