//! The keys of a journal's objects. No I/O.

use repair_core::lake::name;

use crate::objects::Location;

/// The suffix of an object with events.
const EVENTS: &str = ".jsonl";

/// The keys of a journal.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Ends in `/`, unless it is empty.
    prefix: String,
}

impl Keys {
    pub(super) fn of(place: &Location) -> Self {
        Self { prefix: if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) } }
    }

    /// The folder that holds a folder for each run that has begun.
    pub(super) fn runs(&self) -> String {
        format!("{}events/", self.prefix)
    }

    /// The folder of a run's segments.
    pub(super) fn segments(&self, run: &str) -> String {
        format!("{}events/{}/", self.prefix, name::part(run))
    }

    /// The segment that begins with an event's number. Twenty digits fit any number, so keys sort like events.
    pub(super) fn segment(&self, run: &str, first: u64) -> String {
        segment_in(&self.segments(run), first)
    }

    /// The folder of a run's folds.
    pub(super) fn folds(&self, run: &str) -> String {
        format!("{}folded/{}/", self.prefix, name::part(run))
    }

    /// The fold of the events from a number up to, and without, another.
    pub(super) fn fold(&self, run: &str, first: u64, end: u64) -> String {
        format!("{}{first:020}-{end:020}{EVENTS}", self.folds(run))
    }

    pub(super) fn lease(&self, run: &str) -> String {
        format!("{}leases/{}.json", self.prefix, name::part(run))
    }

    pub(super) fn signal(&self, run: &str) -> String {
        format!("{}signals/{}.json", self.prefix, name::part(run))
    }
}

/// The first segment in a folder of segments.
pub(super) fn first_in(folder: &str) -> String {
    segment_in(folder, 0)
}

fn segment_in(folder: &str, first: u64) -> String {
    format!("{folder}{first:020}{EVENTS}")
}

/// The number of a segment's first event; `None` if the key is not that of a segment.
pub(super) fn first_of(key: &str) -> Option<u64> {
    number(name_of(key)?)
}

/// The numbers at which a fold begins and before which it ends; `None` if the key is not that of a fold.
pub(super) fn bounds_of(key: &str) -> Option<(u64, u64)> {
    let (first, end) = name_of(key)?.split_once('-')?;
    let (first, end) = (number(first)?, number(end)?);
    (first < end).then_some((first, end))
}

fn name_of(key: &str) -> Option<&str> {
    key.rsplit('/').next()?.strip_suffix(EVENTS)
}

fn number(digits: &str) -> Option<u64> {
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_which_events_they_hold() {
        let keys = Keys::of(&Location::parse("s3://bucket/some/journal").unwrap());
        let segment = keys.segment("a/b", 17);
        assert_eq!(segment, "some/journal/events/a%2Fb/00000000000000000017.jsonl");
        assert_eq!(first_of(&segment), Some(17));
        assert_eq!(first_of(&keys.segment("r", u64::MAX)), Some(u64::MAX));
        assert_eq!(bounds_of(&keys.fold("r", 3, 40)), Some((3, 40)));
        for odd in ["events/r/17.jsonl", "events/r/0000000000000000001x.jsonl", "events/r/00000000000000000017.json", ""] {
            assert_eq!((first_of(odd), bounds_of(odd)), (None, None), "{odd}");
        }
        assert_eq!(bounds_of(&keys.fold("r", 40, 40)), None);
        assert_eq!(Keys::of(&Location::parse("s3://bucket").unwrap()).lease("r"), "leases/r.json");
    }
}
