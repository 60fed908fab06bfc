//! Ridge regression: the linear combination of columns that is closest to known values, with small weights where columns do not differ much.
//!
//! Hoerl and Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems, Technometrics 12 (1970).

use super::cholesky::Symmetric;
use super::profile::Profile;

/// The columns of all slots of a window: other series at the same time, in units of their own spread, and the profile.
pub(super) struct Columns<'a> {
    /// With the mean and the spread of each where the target is known.
    others: Vec<(Vec<f64>, f64, f64)>,
    profile: &'a Profile,
}

impl<'a> Columns<'a> {
    /// Columns from other series without holes, and the slots whose mean and spread count. Series without a spread are left out.
    pub(super) fn new(others: Vec<Vec<f64>>, profile: &'a Profile, known: &[usize]) -> Self {
        let others = others.into_iter().filter_map(|series| {
            let (mean, spread) = super::mean_and_spread(known.iter().filter_map(|&at| series.get(at).copied()))?;
            (spread > 0.0).then_some((series, mean, spread))
        });
        Self { others: others.collect(), profile }
    }

    /// How many there are.
    pub(super) fn width(&self) -> usize {
        self.others.len() + self.profile.width()
    }

    fn row(&self, at: usize, row: &mut Vec<f64>) {
        row.clear();
        // The profile comes first: most of its values are zero, and those are skipped.
        self.profile.extend(at, row);
        row.extend(self.others.iter().map(|(series, mean, spread)| series.get(at).map_or(0.0, |value| (value - mean) / spread)));
    }

    /// The weights of the columns that come closest to the target in known slots.
    pub(super) fn fit(&self, target: &[f64], known: &[usize], ridge: f64) -> Option<Vec<f64>> {
        let width = self.width();
        let mut matrix = Symmetric::zeros(width);
        let mut right = vec![0.0; width];
        let mut row = Vec::with_capacity(width);
        for &at in known {
            self.row(at, &mut row);
            let value = *target.get(at)?;
            matrix.add_square(&row);
            right.iter_mut().zip(&row).for_each(|(sum, column)| *sum += column * value);
        }
        matrix.add_to_diagonal(ridge);
        Some(matrix.decompose()?.solve(&right))
    }

    /// What the columns give for a slot.
    pub(super) fn value(&self, weights: &[f64], at: usize, row: &mut Vec<f64>) -> f64 {
        self.row(at, row);
        row.iter().zip(weights).map(|(column, weight)| column * weight).sum()
    }
}
