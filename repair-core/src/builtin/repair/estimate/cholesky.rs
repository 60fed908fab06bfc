//! The Cholesky decomposition of a symmetric positive definite matrix, by which both steps of an estimate solve their linear equations.
//!
//! See Golub and Van Loan, Matrix Computations, section 4.2.

/// A symmetric matrix, of which the lower triangle is kept, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Symmetric {
    size: usize,
    /// Row `i` has `i + 1` values, and begins at `i (i + 1) / 2`.
    values: Vec<f64>,
}

fn start(row: usize) -> usize {
    row * (row + 1) / 2
}

fn row(values: &[f64], row: usize) -> &[f64] {
    values.get(start(row)..start(row) + row + 1).unwrap_or_default()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

impl Symmetric {
    /// A matrix of zeros.
    pub(super) fn zeros(size: usize) -> Self {
        Self { size, values: vec![0.0; start(size)] }
    }

    /// A matrix of what a function gives for each row and each column up to it.
    pub(super) fn of(size: usize, mut value: impl FnMut(usize, usize) -> f64) -> Self {
        let mut values = Vec::with_capacity(start(size));
        for i in 0..size {
            values.extend((0..=i).map(|j| value(i, j)));
        }
        Self { size, values }
    }

    /// Adds the product of a vector with itself.
    pub(super) fn add_square(&mut self, vector: &[f64]) {
        for (i, a) in vector.iter().enumerate().filter(|(_, a)| **a != 0.0) {
            let of_row = self.values.get_mut(start(i)..start(i) + i + 1).unwrap_or_default();
            of_row.iter_mut().zip(vector).for_each(|(sum, b)| *sum += a * b);
        }
    }

    /// Adds a number to each value of the diagonal.
    pub(super) fn add_to_diagonal(&mut self, more: f64) {
        for i in 0..self.size {
            if let Some(value) = self.values.get_mut(start(i) + i) {
                *value += more;
            }
        }
    }

    /// Decomposes the matrix; `None` if it is not positive definite.
    pub(super) fn decompose(mut self) -> Option<Cholesky> {
        for i in 0..self.size {
            let (above, below) = self.values.split_at_mut(start(i));
            let of_row = below.get_mut(..=i)?;
            for j in 0..i {
                let other = row(above, j);
                let (diagonal, left) = other.split_last()?;
                let value = (of_row.get(j)? - dot(of_row.get(..j)?, left)) / diagonal;
                *of_row.get_mut(j)? = value;
            }
            let (diagonal, left) = of_row.split_last_mut()?;
            let square = *diagonal - dot(left, left);
            if !(square.is_finite() && square > 0.0) {
                return None;
            }
            *diagonal = square.sqrt();
        }
        Some(Cholesky { lower: self })
    }
}

/// A lower triangle, whose product with its transpose is the matrix.
#[derive(Debug, Clone)]
pub(super) struct Cholesky {
    lower: Symmetric,
}

impl Cholesky {
    /// The vector that the lower triangle makes into another. Its square is that of the other by the inverse of the matrix.
    pub(super) fn half_solve(&self, right: &[f64]) -> Vec<f64> {
        let mut solved: Vec<f64> = Vec::with_capacity(right.len());
        for (i, value) in right.iter().enumerate().take(self.lower.size) {
            let of_row = row(&self.lower.values, i);
            let left = value - dot(of_row, &solved);
            solved.push(of_row.last().map_or(0.0, |diagonal| left / diagonal));
        }
        solved
    }

    /// The vector that the matrix makes into another.
    pub(super) fn solve(&self, right: &[f64]) -> Vec<f64> {
        let mut solved = self.half_solve(right);
        for i in (0..solved.len()).rev() {
            let Some((diagonal, of_row)) = row(&self.lower.values, i).split_last() else { continue };
            let (before, rest) = solved.split_at_mut(i);
            let Some(value) = rest.first_mut() else { continue };
            *value /= diagonal;
            before.iter_mut().zip(of_row).for_each(|(left, factor)| *left -= factor * *value);
        }
        solved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_solved_is_a_solution(
            rows in prop::collection::vec(prop::array::uniform4(-10.0f64..10.0), 1..12),
            right in prop::array::uniform4(-100.0f64..100.0),
        ) {
            let mut matrix = Symmetric::zeros(4);
            rows.iter().for_each(|row| matrix.add_square(row));
            matrix.add_to_diagonal(0.5);
            let solved = matrix.clone().decompose().unwrap().solve(&right);
            for (i, wanted) in right.iter().enumerate() {
                let product: f64 = (0..4).map(|j| matrix.values[start(i.max(j)) + i.min(j)] * solved[j]).sum();
                prop_assert!((product - wanted).abs() < 1e-6 * (1.0 + wanted.abs()), "{product} {wanted}");
            }
            let half = matrix.decompose().unwrap().half_solve(&right);
            prop_assert!((dot(&half, &half) - dot(&solved, &right)).abs() < 1e-6 * (1.0 + dot(&half, &half)));
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_has_no_decomposition() {
        assert!(Symmetric::of(2, |_, _| 1.0).decompose().is_none(), "singular");
        assert!(Symmetric::of(1, |_, _| -1.0).decompose().is_none());
        assert!(Symmetric::of(1, |_, _| f64::NAN).decompose().is_none());
        assert_eq!(Symmetric::of(2, |i, j| if i == j { 4.0 } else { 0.0 }).decompose().unwrap().solve(&[8.0, 4.0]), [2.0, 1.0]);
    }
}
