//! Estimates of the values in a hole of a series: from what repeats in it, from other series at the same time, and from the values at both edges.
//! Pure: nothing here knows a table or a lake.
//!
//! 1. Values far outside what is usual are left out ([`usual`]), so that an absurd value is carried nowhere.
//! 2. [`ridge`] finds how the series follows its [`profile`] and other series, in a window around the hole. Slots that do not fit at all are
//!    left out, and it is repeated.
//! 3. [`kriging`] carries what is left at the edges into the hole, so that an estimate meets the values around it.

mod cholesky;
mod kriging;
mod profile;
mod ridge;
pub(super) mod shifts;

use std::ops::Range;

use kriging::Correlation;
pub(super) use profile::Profile;
use ridge::Columns;

/// The maximum number of other series that an estimate uses: those that correlate most.
const MOST_OTHERS: usize = 24;

/// A hole is estimated from at least this many known values.
const LEAST_KNOWN: usize = 8;

/// Another series must have this share of the slots of a hole. The others are filled in.
const SHARE_OF_HOLE: f64 = 0.9;

/// Residuals further out than this many usual deviations do not count.
const MOST_DEVIATIONS: f64 = 6.0;

/// The quantiles between which most values lie, and the shares that tails may have.
const USUAL: f64 = 0.01;

/// How an estimate is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    /// What is added to the squares of each column, which are about as many as known slots.
    pub(super) ridge: f64,
    /// The share of the known slots that another series must have.
    pub(super) overlap: f64,
    /// The length of a slot, in seconds.
    pub(super) step_s: i64,
}

/// An estimate of one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) value: f64,
    /// The standard deviation of its error, if the model is right; `None` if the model has none. It leaves out what is uncertain about the weights of
    /// the regression.
    pub(super) deviation: Option<f64>,
}

/// Replaces values that are not usual by ones that are not numbers: those further outside of nearly all values than these are apart. This leaves
/// out readings that are wrong by an order, and keeps peaks.
pub(super) fn leave_out_absurd(series: &mut [f64]) {
    let Some((low, high)) = usual(series) else { return };
    series.iter_mut().filter(|value| !(low..=high).contains(&**value)).for_each(|value| *value = f64::NAN);
}

/// The lowest and the highest value that is usual; `None` if the values do not differ.
fn usual(series: &[f64]) -> Option<(f64, f64)> {
    let mut known: Vec<f64> = series.iter().copied().filter(|value| value.is_finite()).collect();
    let low = quantile(&mut known, USUAL)?;
    let high = quantile(&mut known, 1.0 - USUAL)?;
    let width = high - low;
    (width > 0.0 && width.is_finite()).then_some((low - width, high + width))
}

/// Estimates the values in a hole of a window. Values that are unknown are not numbers; all series have a value for each slot of the window.
/// `None` if too little is known, or if the values are too large to compute with.
pub(super) fn estimate(
    target: &[f64],
    hole: &Range<usize>,
    others: &[&[f64]],
    profile: &Profile,
    settings: Settings,
) -> Option<Vec<Estimate>> {
    let mut known: Vec<usize> = (0..target.len()).filter(|&at| target.get(at).is_some_and(|value| value.is_finite())).collect();
    if known.len() < LEAST_KNOWN {
        return None;
    }
    let (mean, spread) = mean_and_spread(known.iter().filter_map(|&at| target.get(at).copied()))?;
    if spread == 0.0 {
        return Some(vec![Estimate { value: mean, deviation: Some(0.0) }; hole.len()]);
    }
    let scaled: Vec<f64> = target.iter().map(|value| (value - mean) / spread).collect();
    let columns = Columns::new(chosen(&scaled, hole, others, &known, profile, settings), profile, &known);
    let mut weights = columns.fit(&scaled, &known, settings.ridge)?;
    let mut row = Vec::new();
    let mut residuals: Vec<f64> = Vec::new();
    let mut fitted: Vec<f64> = Vec::new();
    for again in [true, false] {
        fitted = (0..target.len()).map(|at| columns.value(&weights, at, &mut row)).collect();
        residuals = scaled.iter().zip(&fitted).map(|(value, fitted)| value - fitted).collect();
        let mut sizes: Vec<f64> = known.iter().filter_map(|&at| residuals.get(at)).map(|residual| residual.abs()).collect();
        // The median size of normal residuals is 0.6745 of their deviation.
        let most = median(&mut sizes)? / 0.6745 * MOST_DEVIATIONS;
        let fits = |at: &usize| residuals.get(*at).is_some_and(|residual| residual.abs() <= most);
        let fitting: Vec<usize> = known.iter().copied().filter(fits).collect();
        if most > 0.0 && fitting.len() >= LEAST_KNOWN && fitting.len() < known.len() {
            known = fitting;
            if again {
                weights = columns.fit(&scaled, &known, settings.ridge)?;
            }
        }
    }
    let squares: f64 = known.iter().filter_map(|&at| residuals.get(at)).map(|residual| residual * residual).sum();
    let size = (squares / number(known.len().saturating_sub(columns.width()).max(known.len() / 4).max(1))).sqrt();
    let mut of_known = vec![f64::NAN; target.len()];
    if size > 0.0 {
        for &at in &known {
            if let (Some(place), Some(residual)) = (of_known.get_mut(at), residuals.get(at)) {
                *place = residual / size;
            }
        }
    }
    let correlation = Correlation::observed(&of_known, profile.period_slots(settings.step_s));
    let (low, high) = limits(target, &known)?;
    let carried = kriging::carried(&of_known, hole, correlation);
    let estimates = hole.clone().zip(carried).map(|(at, carried)| {
        let value = (fitted.get(at)? + carried.value * size) * spread + mean;
        let deviation = Some(carried.variance.sqrt() * size * spread);
        value.is_finite().then_some(Estimate { value: value.clamp(low, high), deviation })
    });
    estimates.collect()
}

/// Estimates the values in a hole of a window by the medians of the places of the shortest period, with the level of the values next to the hole.
/// `None` if too little is known.
pub(super) fn medians(target: &[f64], hole: &Range<usize>, profile: &Profile) -> Option<Vec<Estimate>> {
    if target.iter().filter(|value| value.is_finite()).count() < LEAST_KNOWN {
        return None;
    }
    let filled = profile.filled(target);
    let estimates = filled.get(hole.clone())?.iter().map(|value| value.is_finite().then_some(Estimate { value: *value, deviation: None }));
    estimates.collect()
}

/// The other series from which the target is estimated, without holes: those that have enough of the hole and of the known slots, and of these
/// the ones that correlate most.
fn chosen(scaled: &[f64], hole: &Range<usize>, others: &[&[f64]], known: &[usize], profile: &Profile, settings: Settings) -> Vec<Vec<f64>> {
    let share = |series: &[f64], slots: &mut dyn Iterator<Item = usize>| {
        let (mut all, mut there) = (0usize, 0usize);
        for at in slots {
            all += 1;
            there += usize::from(series.get(at).is_some_and(|value| value.is_finite()));
        }
        number(there) / number(all.max(1))
    };
    let mut ranked: Vec<(f64, usize)> = Vec::new();
    for (index, series) in others.iter().enumerate() {
        let is_there = share(series, &mut hole.clone()) >= SHARE_OF_HOLE;
        if is_there && share(series, &mut known.iter().copied()) >= settings.overlap {
            ranked.push((correlation(scaled, series, known), index));
        }
    }
    // Of those that correlate as much, the first.
    ranked.sort_by(|(one, first), (other, second)| other.total_cmp(one).then(first.cmp(second)));
    ranked.truncate(MOST_OTHERS);
    ranked.sort_by_key(|(_, index)| *index);
    ranked.iter().filter_map(|(_, index)| others.get(*index)).map(|series| profile.filled(series)).collect()
}

/// How much two series correlate where both are known, without sign.
fn correlation(one: &[f64], other: &[f64], known: &[usize]) -> f64 {
    let pairs: Vec<(f64, f64)> =
        known.iter().filter_map(|&at| Some((*one.get(at)?, *other.get(at)?))).filter(|(a, b)| a.is_finite() && b.is_finite()).collect();
    let means = mean_and_spread(pairs.iter().map(|pair| pair.0)).zip(mean_and_spread(pairs.iter().map(|pair| pair.1)));
    let Some(((mean_a, spread_a), (mean_b, spread_b))) = means.filter(|(a, b)| a.1 > 0.0 && b.1 > 0.0) else { return 0.0 };
    let product: f64 = pairs.iter().map(|(a, b)| (a - mean_a) / spread_a * ((b - mean_b) / spread_b)).sum();
    (product / number(pairs.len())).abs()
}

/// The range that estimates are kept in: that of the known values, and half as much again on both sides. Where no value is below zero, no
/// estimate is.
fn limits(target: &[f64], known: &[usize]) -> Option<(f64, f64)> {
    let values = || known.iter().filter_map(|&at| target.get(at).copied());
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    let room = (high - low) / 2.0;
    let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
    Some(((low - room).max(floor), high + room))
}

#[expect(clippy::cast_precision_loss, reason = "counts of slots are far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}

/// The mean, and the root of the mean square of what differs from it; `None` if there are no values, or if they are too large.
fn mean_and_spread(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let (mut count, mut sum) = (0usize, 0.0);
    for value in values.clone() {
        count += 1;
        sum += value;
    }
    let mean = sum / number(count);
    let spread = (values.map(|value| (value - mean).powi(2)).sum::<f64>() / number(count)).sqrt();
    (count > 0 && mean.is_finite() && spread.is_finite()).then_some((mean, spread))
}

fn median(values: &mut [f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which a share of the values lies: one of them.
fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
    let at = (number(last) * share).round() as usize;
    Some(*values.select_nth_unstable_by(at.min(last), f64::total_cmp).1)
}

#[cfg(test)]
mod tests;
