//! The values of one key in order of time, and the rules that judge a row among its neighbours. Pure.

use crate::builtin::detect::invalid::rule::Outlier;

/// The values of one slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// The slot.
    pub(super) slot: i64,
    /// The value of the table's own row; of the first, if there are several. `None` if there is no row or no value.
    pub(super) own: Option<f64>,
    /// The value in the repaired view.
    pub(super) shown: Option<f64>,
}

/// Makes a spread comparable to the standard deviation of a normal distribution: 1 / Φ⁻¹(3/4).
const NORMAL: f64 = 1.482_602_218_505_602;

/// Marks the points whose own value is an outlier among the shown values around it.
pub(super) fn outliers(points: &[Point], rule: &Outlier, wrong: &mut [bool]) {
    let reach = i64::from(rule.window);
    let least = rule.window as usize;
    let (mut start, mut end) = (0, 0);
    let mut around = Vec::new();
    for (at, point) in points.iter().enumerate() {
        while points[start].slot < point.slot - reach {
            start += 1;
        }
        while end < points.len() && points[end].slot <= point.slot + reach {
            end += 1;
        }
        let Some(own) = point.own.filter(|own| own.is_finite()) else { continue };
        around.clear();
        let others = points[start..end].iter().filter(|other| other.slot != point.slot);
        around.extend(others.filter_map(|other| other.shown).filter(|value| value.is_finite()));
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

/// Marks the points of runs of at least `most` equal values in consecutive slots, except the first of each run.
pub(super) fn frozen(points: &[Point], most: u32, wrong: &mut [bool]) {
    let mut first = 0;
    for end in 1..=points.len() {
        let goes_on = points.get(end).is_some_and(|next| {
            let last = &points[end - 1];
            next.slot == last.slot + 1 && next.own.is_some() && next.own == last.own
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
        (0..).zip(values).map(|(slot, &own)| Point { slot, own, shown: own }).collect()
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
        series[3] = Point { shown: Some(11.5), ..series[3] };
        series[4] = Point { own: None, shown: Some(5_000.0), ..series[4] };
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

    proptest! {
        /// The sliding window must not change the result of judging each value by itself.
        #[test]
        fn outliers_are_what_the_formula_says(
            values in prop::collection::vec((0i64..4, prop::option::weighted(0.9, -9i32..9)), 1..60), window in 1u32..9, threshold in 0.5f64..4.0,
        ) {
            let mut slot = 0;
            let series: Vec<Point> = values.iter().map(|(step, value)| {
                slot += 1 + step / 2;
                let own = value.map(f64::from);
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
                    series.iter().filter(|other| (other.slot - point.slot).abs() <= i64::from(window)).filter_map(|other| other.shown).collect();
                let expected = point.own.is_some_and(|own| {
                    let median = middle(around.clone());
                    let spread = middle(around.iter().map(|value| (value - median).abs()).collect());
                    around.len() > window as usize && spread > 0.0 && (own - median).abs() > threshold * NORMAL * spread
                });
                prop_assert_eq!(wrong, expected);
            }
        }
    }
}
