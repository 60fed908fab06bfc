//! What is left of a series near a hole, carried into it from both edges: kriging, the best linear estimate from correlated neighbours.
//!
//! The correlation is a sum of three parts: one that fades within a few slots, one that fades within a few periods, and one that returns with each
//! period. Their shares are those that come closest to the autocorrelation that is observed. An exponential part alone would be the smoother of an
//! autoregressive process (Hartikainen and Särkkä, Kalman filtering and smoothing solutions to temporal Gaussian process regression models, 2010);
//! kriging and its variance are in Cressie, Statistics for Spatial Data, chapter 3.

use std::ops::Range;

use super::cholesky::{Cholesky, Symmetric};

/// How many known values on each side of a hole are used.
const REACH: usize = 96;

/// The correlation that fades slowly does so in so many periods.
const SLOW_PERIODS: usize = 5;

/// The period in slots that stands in where there is none.
const NO_PERIOD: usize = 12;

/// At least this share of the variance is of single values, so that the equations can be solved well.
const LEAST_NOISE: f64 = 0.02;

/// How wide the peaks of the part that returns are: the scale of a periodic kernel (Rasmussen and Williams, Gaussian Processes for Machine Learning,
/// section 4.2).
const PEAK: f64 = 0.7;

/// Further inside a hole than this many slow lengths, the edges say nothing.
const FAR: usize = 3;

/// How values correlate with those some slots away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Correlation {
    fast: f64,
    fast_slots: f64,
    slow: f64,
    slow_slots: f64,
    periodic: f64,
    /// 0 if nothing returns.
    period: usize,
}

#[expect(clippy::cast_precision_loss, reason = "counts of slots are far below 2^52")]
fn number(slots: usize) -> f64 {
    slots as f64
}

impl Correlation {
    fn at(&self, distance: usize) -> f64 {
        let slots = number(distance);
        let slow = (-slots / self.slow_slots).exp();
        let mut sum = self.fast * (-slots / self.fast_slots).exp() + self.slow * slow;
        if self.period > 0 {
            let phase = (std::f64::consts::PI * number(distance % self.period) / number(self.period)).sin() / PEAK;
            sum += self.periodic * slow * (-2.0 * phase * phase).exp();
        }
        sum
    }

    fn noise(&self) -> f64 {
        (1.0 - self.fast - self.slow - self.periodic).max(LEAST_NOISE)
    }

    /// The correlation that comes closest to that of residuals, which have mean 0; not a number where there is none.
    pub(super) fn observed(residuals: &[f64], period: Option<usize>) -> Self {
        let season = period.unwrap_or(NO_PERIOD);
        let mut lags = vec![1, 2, 3, 6, 12, season, 2 * season, 3 * season, 7 * season];
        lags.sort_unstable();
        lags.dedup();
        let variance = mean(residuals.iter().map(|value| value * value)).filter(|variance| *variance > 0.0);
        let observed: Vec<(usize, f64)> = lags
            .into_iter()
            .filter(|lag| 2 * lag <= residuals.len())
            .filter_map(|lag| {
                let products = residuals.iter().zip(residuals.get(lag..)?).map(|(one, other)| one * other);
                Some((lag, mean(products)? / variance?))
            })
            .collect();
        let mut best = Self { fast: 0.0, fast_slots: 1.0, slow: 0.0, slow_slots: number(SLOW_PERIODS * season), periodic: 0.0, period: 0 };
        let mut least = f64::INFINITY;
        for candidate in candidates(season, period.is_some()) {
            let error: f64 = observed.iter().map(|(lag, wanted)| (candidate.at(*lag) - wanted).powi(2)).sum();
            if error < least && !observed.is_empty() {
                (best, least) = (candidate, error);
            }
        }
        best
    }
}

fn candidates(season: usize, is_periodic: bool) -> impl Iterator<Item = Correlation> {
    const SHARES: [f64; 4] = [0.0, 0.15, 0.3, 0.5];
    let slow_slots = number(SLOW_PERIODS * season);
    let periodics = if is_periodic { SHARES.as_slice() } else { &SHARES[..1] };
    let all = [1.0, 2.0, 4.0, 8.0, 16.0].into_iter().flat_map(move |fast_slots| {
        [0.0, 0.1, 0.3, 0.5, 0.7, 0.9].into_iter().flat_map(move |fast| {
            SHARES.into_iter().flat_map(move |slow| {
                periodics.iter().map(move |&periodic| Correlation {
                    fast,
                    fast_slots,
                    slow,
                    slow_slots,
                    periodic,
                    period: if is_periodic { season } else { 0 },
                })
            })
        })
    });
    all.filter(|candidate| candidate.fast + candidate.slow + candidate.periodic < 1.0 - LEAST_NOISE / 2.0)
}

/// The mean of the finite numbers; `None` if there are fewer than eight.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values.filter(|value| value.is_finite()) {
        sum += value;
        count += 1;
    }
    (count >= 8).then(|| sum / number(count))
}

/// A residual in a hole, as a part of the usual size of residuals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Carried {
    pub(super) value: f64,
    /// The variance of its error.
    pub(super) variance: f64,
}

/// The residuals in a hole, from those around it; those that are unknown are not numbers.
pub(super) fn carried(residuals: &[f64], hole: &Range<usize>, correlation: Correlation) -> Vec<Carried> {
    let is_known = |at: &usize| residuals.get(*at).is_some_and(|value| value.is_finite());
    let mut known: Vec<usize> = (0..hole.start).rev().take(2 * REACH).filter(is_known).take(REACH).collect();
    known.reverse();
    known.extend((hole.end..residuals.len()).take(2 * REACH).filter(is_known).take(REACH));
    let total = correlation.at(0) + correlation.noise();
    let nothing = Carried { value: 0.0, variance: total };
    let span = known.first().zip(known.last()).map_or(0, |(first, last)| last - first + 1);
    let table: Vec<f64> = (0..=span.max(hole.len())).map(|distance| correlation.at(distance)).collect();
    let at = |one: usize, other: usize| table.get(one.abs_diff(other)).copied().unwrap_or_default();
    let place = |index: usize| known.get(index).copied().unwrap_or_default();
    let matrix = Symmetric::of(known.len(), |i, j| at(place(i), place(j)) + if i == j { correlation.noise() } else { 0.0 });
    let Some(solver) = Some(matrix).filter(|_| !known.is_empty()).and_then(Symmetric::decompose) else {
        return vec![nothing; hole.len()];
    };
    let values: Vec<f64> = known.iter().filter_map(|at| residuals.get(*at).copied()).collect();
    let weights = solver.solve(&values);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of slots")]
    let far = FAR * correlation.slow_slots as usize;
    hole.clone()
        .map(|slot| {
            if slot - hole.start >= far && hole.end - slot > far {
                return nothing;
            }
            let near: Vec<f64> = known.iter().map(|&place| at(slot, place)).collect();
            let value = near.iter().zip(&weights).map(|(near, weight)| near * weight).sum();
            Carried { value, variance: variance(&solver, &near, total) }
        })
        .collect()
}

fn variance(solver: &Cholesky, near: &[f64], total: f64) -> f64 {
    let explained: f64 = solver.half_solve(near).iter().map(|value| value * value).sum();
    (total - explained).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slow wave, as far from 0 as residuals are.
    fn wave(at: usize) -> f64 {
        (number(at) / 40.0).sin() * 1.4
    }

    #[test]
    fn what_is_left_at_the_edges_fades_inside() {
        let correlation = Correlation { fast: 0.9, fast_slots: 4.0, slow: 0.0, slow_slots: 100.0, periodic: 0.0, period: 0 };
        let mut residuals = vec![1.0; 200];
        residuals[50..150].fill(f64::NAN);
        let carried = carried(&residuals, &(50..150), correlation);
        assert!(carried[0].value > 0.5 && carried[99].value > 0.5, "{:?}", carried[0]);
        assert!(carried[50].value.abs() < 1e-4, "{:?}", carried[50]);
        assert!(carried[0].variance < carried[10].variance && carried[10].variance < 1.0 + 1e-9);
        let mirrored: Vec<f64> = carried.iter().rev().map(|carried| carried.value).collect();
        assert!(carried.iter().zip(mirrored).all(|(one, other)| (one.value - other).abs() < 1e-9), "both edges count the same");
    }

    #[test]
    fn the_correlation_is_that_of_the_residuals() {
        let slow = Correlation::observed(&(0..600).map(wave).collect::<Vec<_>>(), None);
        assert!(slow.at(1) > 0.5, "{slow:?}");
        // A fixed shuffle of 600 numbers: nothing returns.
        let noise: Vec<f64> = (0..600usize).map(|at| number(at * 7_919 % 601) / 173.0 - 1.73).collect();
        let none = Correlation::observed(&noise, None);
        assert!(none.at(1) < 0.35, "{none:?}");
        let daily: Vec<f64> = (0..600).map(|at| if at % 24 == 7 { 4.8 } else { -0.2 }).collect();
        let returning = Correlation::observed(&daily, Some(24));
        assert!(returning.at(24) > 0.35 && returning.at(24) > returning.at(12), "{returning:?}");
    }

    #[test]
    fn nothing_known_carries_nothing() {
        let carried = carried(&[f64::NAN; 5], &(1..4), Correlation::observed(&[f64::NAN; 5], Some(24)));
        assert!(carried.iter().all(|carried| carried.value == 0.0 && carried.variance >= 1.0));
    }
}
