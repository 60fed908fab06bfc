//! The arithmetic of [`super`]. It is pure: prices in, prices out.

/// The fewest pairs of returns that show how one series depends on another.
pub(super) const FEWEST_PAIRS: usize = 30;

/// The slope of the series' log returns on those of the other series: least squares through the origin, `Σ xy / Σ y²`, over pairs of log
/// returns of the same steps. The mean return of a minute cannot be distinguished from zero, so there is no constant.
///
/// `None` if there are fewer than [`FEWEST_PAIRS`] pairs, or the other series does not move.
pub(super) fn slope(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < FEWEST_PAIRS {
        return None;
    }
    let (products, squares) = pairs.iter().fold((0.0, 0.0), |(products, squares), (x, y)| (products + x * y, squares + y * y));
    Some(products / squares).filter(|slope| slope.is_finite())
}

/// The expected prices at the steps of a gap, its ends included: `from` at the first, `to` at the last, and between them the log returns of
/// the other series since the first step, times the slope, with the remaining difference spread evenly.
///
/// This is the conditional mean of a random walk with drift `slope × other` between two known points, whose residual is a Brownian bridge.
/// It is Fernández's interpolation by a related series (*A methodological note on the estimation of time series*, Review of Economics and
/// Statistics 63, 1981), which is Chow and Lin's method (*ibid.* 53, 1971) for residuals that are a random walk.
pub(super) fn path(from: f64, to: f64, slope: f64, other: &[f64]) -> Vec<f64> {
    let (Some(&first), Some(&last)) = (other.first(), other.last()) else { return Vec::new() };
    let steps = other.len().saturating_sub(1);
    let moved = |price: f64| slope * (price / first).ln();
    let left = (to / from).ln() - moved(last);
    #[expect(clippy::cast_precision_loss, reason = "slots of a gap are far below 2^52")]
    let at = |(step, &price): (usize, &f64)| match step {
        0 => from,
        // Exact to the last digit, despite rounding.
        step if step == steps => to,
        step => from * (moved(price) + left * step as f64 / steps as f64).exp(),
    };
    other.iter().enumerate().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_that_follows_another_is_found_again() {
        let other: Vec<f64> = (0..200u32).map(|step| 100.0 + f64::from(step * 7 % 13) - f64::from(step % 5)).collect();
        let true_slope = 1.7;
        let own: Vec<f64> = other.iter().map(|price| 20.0 * (price / 100.0f64).powf(true_slope)).collect();
        let returns = |prices: &[f64]| prices.windows(2).map(|pair| (pair[1] / pair[0]).ln()).collect::<Vec<_>>();
        let pairs: Vec<(f64, f64)> = returns(&own[..60]).into_iter().zip(returns(&other[..60])).collect();
        let slope = slope(&pairs).unwrap();
        assert!((slope - true_slope).abs() < 1e-9);
        let path = path(own[100], own[120], slope, &other[100..=120]);
        assert!(path.iter().zip(&own[100..=120]).all(|(guess, truth)| (guess / truth - 1.0).abs() < 1e-9));
    }

    #[test]
    fn with_no_slope_it_is_a_straight_line_of_logarithms_and_ends_are_exact() {
        let other = [3.0, 9.0, 1.0, 4.0, 3.0];
        let path = path(10.1, 160.3, 0.0, &other);
        assert_eq!((path[0], path[4]), (10.1, 160.3));
        assert!((path[2] - (10.1f64 * 160.3).sqrt()).abs() < 1e-9);
        assert_eq!(slope(&[(0.1, 0.1); FEWEST_PAIRS - 1]), None);
        assert_eq!(slope(&[(0.1, 0.0); FEWEST_PAIRS]), None);
    }
}
