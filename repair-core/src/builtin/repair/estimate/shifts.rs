//! Values from some time before or after, and their level matched to the edges of a hole. Pure.

use std::ops::Range;

use super::{Estimate, median, number};
use crate::builtin::repair::shifted::Take;

/// So many slots next to a hole are looked at for its level.
const EDGE: usize = 3;

/// Estimates a hole by the values that are some slots away. A slot for which none of them is known stays open.
pub(crate) fn estimate(target: &[f64], hole: &Range<usize>, shifts: &[isize], take: Take, to_edges: bool) -> Vec<Option<Estimate>> {
    let taken = |at: usize| {
        let values =
            shifts.iter().filter_map(|shift| target.get(at.checked_add_signed(*shift)?)).copied().filter(|value| value.is_finite());
        match take {
            Take::First => values.into_iter().next(),
            Take::Mean => {
                let values: Vec<f64> = values.collect();
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / number(values.len()))
            }
            Take::Median => middle(&mut values.collect::<Vec<_>>()),
        }
    };
    let off = |at: usize| Some((*target.get(at).filter(|value| value.is_finite())?, taken(at)?));
    let before = (hole.start.saturating_sub(EDGE)..hole.start).rev().find_map(off).filter(|_| to_edges);
    let after = (hole.end..hole.end.saturating_add(EDGE)).find_map(off).filter(|_| to_edges);
    let edges = || before.iter().chain(&after);
    let is_ratio = edges().all(|(own, shifted)| *own > 0.0 && *shifted > 0.0);
    let level = |(own, shifted): (f64, f64)| if is_ratio { own / shifted } else { own - shifted };
    let (before, after) = (before.map(level), after.map(level));
    let of_slot = |at: usize| {
        let value = taken(at)?;
        let part = number(at + 1 - hole.start) / number(hole.len() + 1);
        let level = match (before, after) {
            (Some(before), Some(after)) => before * (1.0 - part) + after * part,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Some(value),
        };
        Some(if is_ratio { value * level } else { value + level })
    };
    let estimate = |value: f64| Estimate { value, deviation: None };
    hole.clone().map(|at| of_slot(at).filter(|value| value.is_finite()).map(estimate)).collect()
}

/// The median; for an even count, the mean of the two in the middle.
fn middle(values: &mut [f64]) -> Option<f64> {
    if values.len().is_multiple_of(2) && !values.is_empty() {
        values.sort_unstable_by(f64::total_cmp);
        let half = values.len() / 2;
        return Some((values.get(half - 1)? + values.get(half)?) / 2.0);
    }
    median(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: f64 = f64::NAN;

    fn values(target: &[f64], hole: Range<usize>, shifts: &[isize], take: Take, to_edges: bool) -> Vec<Option<f64>> {
        estimate(target, &hole, shifts, take, to_edges).into_iter().map(|estimate| Some(estimate?.value)).collect()
    }

    #[test]
    fn several_shifts_are_taken_as_asked() {
        let target = [1.0, 2.0, OPEN, OPEN, 5.0, OPEN, 9.0];
        assert_eq!(values(&target, 2..4, &[-2, 2], Take::First, false), [Some(1.0), Some(2.0)]);
        assert_eq!(values(&target, 2..4, &[-2, 2], Take::Mean, false), [Some(3.0), Some(2.0)]);
        assert_eq!(values(&target, 2..4, &[-2, 2, 4], Take::Median, false), [Some(5.0), Some(2.0)]);
        assert_eq!(values(&target, 2..4, &[-9, 9], Take::Mean, false), [None, None]);
    }

    #[test]
    fn values_meet_the_edges() {
        let target = [10.0, 20.0, 30.0, 40.0, 20.0, OPEN, OPEN, 120.0];
        let scaled = values(&target, 5..7, &[-4], Take::First, true);
        // Twice as much before the hole, three times as much after it.
        let expected = [20.0 * (2.0 + 1.0 / 3.0), 30.0 * (2.0 + 2.0 / 3.0)];
        assert!(scaled.iter().zip(expected).all(|(one, other)| (one.unwrap() - other).abs() < 1e-9), "{scaled:?}");
        let moved = values(&[-1.0, 2.0, 3.0, 4.0, OPEN, OPEN], 4..6, &[-3], Take::First, true);
        assert_eq!(moved, [Some(2.0 + 5.0), Some(3.0 + 5.0)], "one edge, and not above 0");
    }
}
