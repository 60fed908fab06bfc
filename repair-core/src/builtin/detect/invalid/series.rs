//! The values of one key in order of time, and the rules that judge a row among its neighbours. Pure.

use std::cmp::Ordering;

use crate::builtin::detect::invalid::rule::Outlier;
use crate::builtin::detect::invalid::value::{KeyBound, Median, Value};

/// The values of one slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// The slot.
    pub(super) slot: i64,
    /// The value of the table's own row; of the first, if there are several. `None` if there is no row or no value.
    pub(super) own: Option<Value>,
    /// The value in the repaired view.
    pub(super) shown: Option<Value>,
}

/// Makes a spread comparable to the standard deviation of a normal distribution: 1 / Φ⁻¹(3/4).
const NORMAL: f64 = 1.482_602_218_505_602;

/// Marks the points whose own value is an outlier among the shown values around it.
pub(super) fn outliers(points: &[Point], rule: &Outlier, wrong: &mut [bool]) {
    let reach = i64::from(rule.window);
    let least = rule.window as usize;
    let (mut start, mut end) = (0, 0);
    let mut around = Vec::new();
    let origin = origin(points);
    let value = |value: Value| Some(from_origin(value, origin)).filter(|value| value.is_finite());
    for (at, point) in points.iter().enumerate() {
        while points[start].slot < point.slot - reach {
            start += 1;
        }
        while end < points.len() && points[end].slot <= point.slot + reach {
            end += 1;
        }
        let Some(own) = point.own.and_then(value) else { continue };
        around.clear();
        let others = points[start..end].iter().filter(|other| other.slot != point.slot);
        around.extend(others.filter_map(|other| other.shown).filter_map(value));
        if around.len() < least {
            continue;
        }
        around.push(own);
        let Some(median) = median(&mut around) else { continue };
        around.iter_mut().for_each(|value| *value = (*value - median).abs());
        let Some(spread) = self::median(&mut around) else { continue };
        let distance = (own - median).abs();
        let is_far = distance > rule.threshold * NORMAL * spread;
        wrong[at] |= match rule.at_least {
            Some(least) => is_far && distance > least,
            None => is_far && spread > 0.0,
        };
    }
}

/// A whole number to which others can be compared as floats that are as far from each other as they are: if no float holds one of them. What a value
/// is among its neighbours does not depend on where all of them are.
fn origin(points: &[Point]) -> i128 {
    let values = || points.iter().flat_map(|point| [point.own, point.shown]).flatten();
    let whole = |value: Value| match value {
        Value::Whole(whole) => Some(whole),
        _ => None,
    };
    if values().all(|value| whole(value).is_some()) && values().any(Value::is_beyond_floats) {
        // The middle one, since a few may be far away.
        let mut all: Vec<i128> = values().filter_map(whole).collect();
        let half = all.len() / 2;
        return if all.is_empty() { 0 } else { *all.select_nth_unstable(half).1 };
    }
    0
}

fn from_origin(value: Value, origin: i128) -> f64 {
    match value {
        Value::Whole(whole) => whole.checked_sub(origin).map_or_else(|| value.as_float(), |distance| Value::Whole(distance).as_float()),
        _ => value.as_float(),
    }
}

/// The median; for an even count, the mean of the two middle numbers.
fn median(values: &mut [f64]) -> Option<f64> {
    let half = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let is_even = values.len().is_multiple_of(2);
    let (below, middle, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let middle = *middle;
    if !is_even {
        return Some(middle);
    }
    below.iter().copied().max_by(f64::total_cmp).map(|below| below + (middle - below) / 2.0)
}

/// The median of the shown values; `None` for fewer than eight.
pub(super) fn usual(points: &[Point]) -> Option<Median> {
    let shown = || points.iter().filter_map(|point| point.shown).filter(|value| value.is_finite());
    if shown().count() < LEAST {
        return None;
    }
    let whole = |value| match value {
        Value::Whole(whole) => Some(whole),
        _ => None,
    };
    if let Some(mut values) = shown().map(whole).collect::<Option<Vec<i128>>>() {
        let half = values.len() / 2;
        let is_even = values.len().is_multiple_of(2);
        let (below, middle, _) = values.select_nth_unstable(half);
        let other = if is_even { below.iter().copied().max().unwrap_or(*middle) } else { *middle };
        if let Some(halves) = middle.checked_add(other) {
            return Some(Median::Halves(halves));
        }
    }
    median(&mut shown().map(Value::as_float).collect::<Vec<f64>>()).map(Median::Float)
}

/// The fewest values of which a median is taken.
const LEAST: usize = 8;

/// Marks the points of which a value is outside of bounds. What is no finite number is outside of any.
pub(super) fn beyond(
    points: &[Point],
    (low, high): (Option<KeyBound>, Option<KeyBound>),
    value: impl Fn(&Point) -> Option<Value>,
    wrong: &mut [bool],
) {
    if low.is_none() && high.is_none() {
        return;
    }
    let is = |own: Value, bound: Option<KeyBound>, side: Ordering| bound.is_some_and(|bound| bound.compare(own) == Some(side));
    let is_outside = |own: Value| !own.is_finite() || is(own, low, Ordering::Less) || is(own, high, Ordering::Greater);
    for (point, wrong) in points.iter().zip(wrong) {
        *wrong |= value(point).is_some_and(is_outside);
    }
}

/// Marks the fewest points without whose own values the others never fall: all but the longest sequence that does not (Fredman, On computing the
/// length of longest increasing subsequences, Discrete Mathematics 11, 1975).
pub(super) fn falls(points: &[Point], wrong: &mut [bool]) {
    let values: Vec<(usize, Value)> =
        points.iter().enumerate().filter_map(|(at, point)| Some((at, point.own.filter(|own| own.is_finite())?))).collect();
    // For each length, the end of the sequence of that length with the lowest last value, as an index of `values`.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(values.len());
    let is_at_most = |index: usize, own: Value| values.get(index).and_then(|(_, value)| value.compare(own)).is_some_and(Ordering::is_le);
    for (index, (_, own)) in values.iter().enumerate() {
        let length = ends.partition_point(|&end| is_at_most(end, *own));
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut right = vec![false; values.len()];
    let mut next = ends.last().copied();
    while let Some(index) = next {
        right.get_mut(index).into_iter().for_each(|right| *right = true);
        next = before.get(index).copied().flatten();
    }
    for ((at, _), right) in values.iter().zip(right) {
        wrong.get_mut(*at).into_iter().for_each(|wrong| *wrong |= !right);
    }
}

/// Marks the points whose own value is further than `most` from the last right value before it. `level` such values in a row, each near the one
/// before, are a new level: they are right.
pub(super) fn jumps(points: &[Point], most: f64, level: usize, wrong: &mut [bool]) {
    let values: Vec<(usize, Value)> =
        points.iter().enumerate().filter_map(|(at, point)| Some((at, point.own.filter(|own| own.is_finite())?))).collect();
    let mut at = 0;
    let mut last: Option<Value> = None;
    while let Some(&(place, own)) = values.get(at) {
        let is_near = last.is_none_or(|last| !own.is_further_than(most, last));
        if is_near {
            // The first value is right if the next ones are near it, and else it is not known which is.
            last = Some(own);
            at += 1;
            continue;
        }
        let rest = values.get(at..).unwrap_or_default();
        let together = 1 + rest.windows(2).take_while(|pair| matches!(pair, [one, other] if !other.1.is_further_than(most, one.1))).count();
        if together >= level {
            last = Some(own);
        } else {
            wrong.get_mut(place).into_iter().for_each(|wrong| *wrong = true);
        }
        at += 1;
    }
}

/// Marks the points of runs of at least `most` equal values in consecutive slots, except the first of each run.
pub(super) fn frozen(points: &[Point], most: u32, wrong: &mut [bool]) {
    let mut first = 0;
    for end in 1..=points.len() {
        let goes_on = points.get(end).is_some_and(|next| {
            let last = &points[end - 1];
            let is_same = |(next, last): (Value, Value)| next.compare(last) == Some(Ordering::Equal);
            next.slot == last.slot + 1 && next.own.zip(last.own).is_some_and(is_same)
        });
        if !goes_on {
            if points[first].own.is_some() && end - first >= most as usize {
                wrong[first + 1..end].fill(true);
            }
            first = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(values: &[Option<f64>]) -> Vec<Point> {
        (0..).zip(values).map(|(slot, &own)| (slot, own.map(Value::Float))).map(|(slot, own)| Point { slot, own, shown: own }).collect()
    }

    fn wholes(values: &[i64]) -> Vec<Point> {
        let own = |value: &i64| Some(Value::Whole(i128::from(*value)));
        (0..).zip(values).map(|(slot, value)| Point { slot, own: own(value), shown: own(value) }).collect()
    }

    fn found(values: &[f64], rule: Outlier) -> Vec<usize> {
        let points = points(&values.iter().copied().map(Some).collect::<Vec<_>>());
        let mut wrong = vec![false; points.len()];
        outliers(&points, &rule, &mut wrong);
        (0..points.len()).filter(|&at| wrong[at]).collect()
    }

    #[test]
    fn outliers_stand_out_also_where_several_come_together() {
        let values = [10.0, 11.0, 12.0, 900.0, 950.0, 11.0, 12.0, 10.0, 11.0, 12.0, 13.0, -800.0];
        let rule = Outlier { window: 5, threshold: 3.0, at_least: None };
        assert_eq!(found(&values, rule), [3, 4, 11]);
        assert_eq!(found(&values[..4], rule), [] as [usize; 0], "too few around to judge");
        let flat = [5.0, 5.0, 5.0, 5.0, 5.1, 5.0, 5.0, 5.0, 99.0, 5.0, 5.0];
        assert_eq!(found(&flat, rule), [] as [usize; 0], "there is no spread to compare with");
        assert_eq!(found(&flat, Outlier { at_least: Some(1.0), ..rule }), [8]);
    }

    #[test]
    fn what_a_repair_shows_judges_its_neighbours_and_is_not_judged() {
        let mut series = points(&[10.0, 11.0, 12.0, 900.0, 11.0, 12.0, 10.0].map(Some));
        series[3] = Point { shown: Some(Value::Float(11.5)), ..series[3] };
        series[4] = Point { own: None, shown: Some(Value::Float(5_000.0)), ..series[4] };
        let mut wrong = [false; 7];
        outliers(&series, &Outlier { window: 3, threshold: 3.0, at_least: None }, &mut wrong);
        assert_eq!(wrong, [false, false, false, true, false, false, false]);
    }

    #[test]
    fn a_frozen_run_keeps_its_first_value_and_ends_at_a_gap() {
        let mut series = points(&[Some(1.0), Some(1.0), Some(1.0), None, Some(2.0), Some(2.0), Some(3.0), Some(3.0), Some(3.0), Some(3.0)]);
        series[9].slot = 20;
        let mut wrong = [false; 10];
        frozen(&series, 3, &mut wrong);
        assert_eq!(wrong, [false, true, true, false, false, false, false, true, true, false]);
    }

    fn marked(values: &[f64], mark: impl Fn(&[Point], &mut [bool])) -> Vec<usize> {
        let points = points(&values.iter().copied().map(Some).collect::<Vec<_>>());
        let mut wrong = vec![false; points.len()];
        mark(&points, &mut wrong);
        (0..points.len()).filter(|&at| wrong[at]).collect()
    }

    #[test]
    fn a_meter_that_falls_once_has_one_wrong_value() {
        assert_eq!(marked(&[1.0, 2.0, 3.0, 3.0, 2.5, 4.0, 5.0], falls), [4]);
        assert_eq!(marked(&[1.0, 2.0, 9_000.0, 3.0, 4.0, 5.0], falls), [2], "the one that is too high, not all after it");
        assert_eq!(marked(&[5.0, 5.0, f64::NAN, 6.0], falls), [] as [usize; 0]);
    }

    #[test]
    fn a_jump_and_back_is_wrong_and_a_new_level_is_not() {
        let at_most_ten = |points: &[Point], wrong: &mut [bool]| jumps(points, 10.0, 4, wrong);
        assert_eq!(marked(&[1.0, 2.0, 50.0, 52.0, 3.0, 4.0], at_most_ten), [2, 3]);
        assert_eq!(marked(&[1.0, 2.0, 50.0, 52.0, 53.0, 51.0, 50.0], at_most_ten), [] as [usize; 0]);
        assert_eq!(marked(&[1.0, 2.0, 50.0, 900.0, 50.0, 900.0, 3.0], at_most_ten), [2, 3, 4, 5]);
    }

    #[test]
    fn bounds_of_a_key_follow_from_its_median() {
        let values = [1_000.0, 1_100.0, 900.0, 1_050.0, 950.0, 1_000.0, 94_000.0, -50.0, 1_010.0];
        let series = points(&values.map(Some));
        assert_eq!(usual(&series), Some(Median::Float(1_000.0)));
        assert_eq!(usual(&series[..7]), None, "too few");
        assert_eq!(
            marked(&values, |points, wrong| beyond(
                points,
                [250.0, 5_000.0].map(|bound| Some(KeyBound::Value(Value::Float(bound)))).into(),
                |point| point.own,
                wrong
            )),
            [6, 7]
        );
        assert_eq!(marked(&values, |points, wrong| beyond(points, (None, None), |point| point.own, wrong)), [] as [usize; 0]);
    }

    proptest! {
        /// Whole numbers are judged by all their digits: adding the same to all of them changes nothing, however large they become.
        #[test]
        fn large_whole_numbers_are_judged_as_small_ones(
            values in prop::collection::vec(-20i64..20, 1..40), by in prop::sample::select(vec![1i64 << 53, -(1 << 60), i64::MAX - 40]),
        ) {
            let marks = |values: &[i64]| {
                let series = wholes(values);
                let of = |mark: &dyn Fn(&mut [bool])| {
                    let mut wrong = vec![false; series.len()];
                    mark(&mut wrong);
                    wrong
                };
                [
                    of(&|wrong| falls(&series, wrong)),
                    of(&|wrong| jumps(&series, 5.0, 4, wrong)),
                    of(&|wrong| frozen(&series, 2, wrong)),
                    of(&|wrong| outliers(&series, &Outlier { window: 4, threshold: 2.0, at_least: Some(1.5) }, wrong)),
                ]
            };
            let shifted: Vec<i64> = values.iter().map(|value| value + by).collect();
            prop_assert_eq!(marks(&shifted), marks(&values));
            let usual = |values: &[i64]| usual(&wholes(values)).map(|median| match median {
                Median::Halves(halves) => halves,
                Median::Float(_) => panic!("whole numbers have a median with all digits"),
            });
            prop_assert_eq!(usual(&shifted), usual(&values).map(|halves| halves + 2 * i128::from(by)));
        }

        /// As few as possible: no sequence that never falls is longer than what is left.
        #[test]
        fn as_few_as_possible_are_wrong(values in prop::collection::vec(0i32..12, 1..14)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let wrong = marked(&values, falls);
            let left: Vec<f64> = (0..values.len()).filter(|at| !wrong.contains(at)).map(|at| values[at]).collect();
            prop_assert!(left.is_sorted());
            let longest = (0u32..1 << values.len()).filter_map(|some| {
                let chosen: Vec<f64> = (0..values.len()).filter(|at| some >> at & 1 == 1).map(|at| values[at]).collect();
                chosen.is_sorted().then_some(chosen.len())
            }).max();
            prop_assert_eq!(Some(left.len()), longest);
        }

        /// The sliding window must not change the result of judging each value by itself.
        #[test]
        fn outliers_are_what_the_formula_says(
            values in prop::collection::vec((0i64..4, prop::option::weighted(0.9, -9i32..9)), 1..60), window in 1u32..9, threshold in 0.5f64..4.0,
        ) {
            let mut slot = 0;
            let series: Vec<Point> = values.iter().map(|(step, value)| {
                slot += 1 + step / 2;
                let own = value.map(f64::from).map(Value::Float);
                Point { slot, own, shown: own }
            }).collect();
            let rule = Outlier { window, threshold, at_least: None };
            let mut wrong = vec![false; series.len()];
            outliers(&series, &rule, &mut wrong);
            let middle = |mut values: Vec<f64>| {
                values.sort_by(f64::total_cmp);
                (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
            };
            for (point, &wrong) in series.iter().zip(&wrong) {
                let around: Vec<f64> =
                    series.iter().filter(|other| (other.slot - point.slot).abs() <= i64::from(window)).filter_map(|other| other.shown).map(Value::as_float).collect();
                let expected = point.own.map(Value::as_float).is_some_and(|own| {
                    let median = middle(around.clone());
                    let spread = middle(around.iter().map(|value| (value - median).abs()).collect());
                    around.len() > window as usize && spread > 0.0 && (own - median).abs() > threshold * NORMAL * spread
                });
                prop_assert_eq!(wrong, expected);
            }
        }
    }
}
