//! `repeated: file-order`: which of two instants a row means that lies in the hour that the clock shows twice. Within a series, rows of a
//! file run forwards (or all backwards), so the second hour begins where the clock goes back.

use std::collections::HashMap;

use repair_core::model::Instants;

/// The rows of a file that lie in doubled hours. They are first collected, in a pass over the file, and then known.
#[derive(Debug, Default)]
pub(super) struct Folds {
    collected: Option<HashMap<String, Series>>,
    later: HashMap<u64, bool>,
}

/// What was seen of a series.
#[derive(Debug, Default)]
struct Series {
    last_us: Option<i64>,
    /// The rows of the doubled hour that is being read: their numbers, and what the clock shows.
    rows: Vec<(u64, i64)>,
    /// What the clock showed before them.
    before_us: Option<i64>,
    done: Vec<Fold>,
}

#[derive(Debug)]
struct Fold {
    rows: Vec<(u64, i64)>,
    before_us: Option<i64>,
    after_us: Option<i64>,
}

impl Series {
    fn end(&mut self, after_us: Option<i64>) {
        if !self.rows.is_empty() {
            self.done.push(Fold { rows: std::mem::take(&mut self.rows), before_us: self.before_us, after_us });
        }
    }
}

/// Two doubled hours are farther apart than this.
const APART_US: i64 = 7 * 86_400 * 1_000_000;

impl Folds {
    pub(super) fn collecting() -> Self {
        Self { collected: Some(HashMap::new()), later: HashMap::new() }
    }

    pub(super) fn is_collecting(&self) -> bool {
        self.collected.is_some()
    }

    /// Adds a row, in the order of the file.
    pub(super) fn collect(&mut self, row: u64, key: String, local_us: i64, instants: Option<Instants>) {
        let Some(collected) = &mut self.collected else { return };
        let series = collected.entry(key).or_default();
        let is_doubled = matches!(instants, Some(Instants::Two(..)));
        let same = series.rows.last().is_some_and(|(_, last_us)| (local_us - last_us).abs() < APART_US);
        if !is_doubled || !same {
            series.end(Some(local_us));
        }
        if is_doubled {
            if series.rows.is_empty() {
                series.before_us = series.last_us;
            }
            series.rows.push((row, local_us));
        }
        series.last_us = Some(local_us);
    }

    /// Decides about all rows that were collected.
    pub(super) fn known(self) -> Self {
        let mut later = HashMap::new();
        for mut series in self.collected.into_iter().flatten().map(|(_, series)| series) {
            series.end(None);
            for fold in series.done {
                let times: Vec<i64> = fold.rows.iter().map(|(_, us)| *us).collect();
                if let Some(first_of_second) = second_hour(&times, fold.before_us, fold.after_us) {
                    let (at, backwards) = first_of_second;
                    later.extend(fold.rows.iter().enumerate().map(|(index, (row, _))| (*row, (index >= at) != backwards)));
                }
            }
        }
        Self { collected: None, later }
    }

    /// Whether a row is at the later of its two instants; `None` if the order does not say.
    pub(super) fn is_later(&self, row: u64) -> Option<bool> {
        self.later.get(&row).copied()
    }
}

/// Where the second of the two hours begins among the rows of a series in doubled hours, and whether rows run backwards. `None` if the
/// order does not say: if there is no step back, or more than one.
fn second_hour(times: &[i64], before_us: Option<i64>, after_us: Option<i64>) -> Option<(usize, bool)> {
    let backwards = match (before_us, after_us, times) {
        (Some(before), _, [first, ..]) => before > *first,
        (None, Some(after), [.., last]) => after < *last,
        _ => times.windows(2).filter(|pair| pair[1] < pair[0]).count() > times.len() / 2,
    };
    let is_step = |pair: &[i64]| if backwards { pair[1] >= pair[0] } else { pair[1] <= pair[0] };
    let mut steps = times.windows(2).enumerate().filter(|(_, pair)| is_step(pair)).map(|(at, _)| at + 1);
    match (steps.next(), steps.next()) {
        (Some(at), None) => Some((at, backwards)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hour_begins_where_the_clock_goes_back() {
        assert_eq!(second_hour(&[60, 60], Some(0), Some(120)), Some((1, false)));
        assert_eq!(second_hour(&[60, 75, 90, 105, 60, 75], Some(45), None), Some((4, false)));
        assert_eq!(second_hour(&[105, 60], Some(120), Some(45)), None);
        assert_eq!(second_hour(&[75, 60, 105, 60], Some(120), Some(45)), Some((2, true)));
    }

    #[test]
    fn an_order_that_does_not_say_is_not_guessed() {
        assert_eq!(second_hour(&[60], Some(0), Some(120)), None);
        assert_eq!(second_hour(&[60, 75], Some(0), None), None);
        assert_eq!(second_hour(&[60, 60, 60], Some(0), None), None);
    }
}
