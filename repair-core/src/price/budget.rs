//! Budgets: how much a run, a step or a strategy may spend. They must not know how runs work.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// How much may be spent. A field that is `None` is not limited.
///
/// ```
/// use repair_core::price::{Budget, Spend};
///
/// let budget = Budget { calls: Some(10), ..Budget::default() };
/// let spent = Spend { calls: 9, ..Spend::default() };
/// assert!(budget.fits(spent, Spend { calls: 1, ..Spend::default() }).is_ok());
///
/// let exceeded = budget.fits(spent, Spend { calls: 2, ..Spend::default() }).unwrap_err();
/// assert_eq!(exceeded.to_string(), "10 calls, with 9 spent or set aside");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Dollars, by the price book.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<Decimal>,
    /// Calls to sources; each page of an answer counts as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Bytes read by queries and from the lake's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What was spent or is set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// Dollars.
    pub usd: Decimal,
    /// Calls to sources.
    pub calls: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Spend {
    /// By how much each amount is larger than in another.
    #[must_use]
    pub(crate) fn beyond(self, other: Self) -> Self {
        Self {
            usd: (self.usd - other.usd).max(Decimal::ZERO),
            calls: self.calls.saturating_sub(other.calls),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// The larger of both, for each amount.
    #[must_use]
    pub(crate) fn at_least(self, other: Self) -> Self {
        Self { usd: self.usd.max(other.usd), calls: self.calls.max(other.calls), bytes: self.bytes.max(other.bytes) }
    }
}

impl std::ops::Add for Spend {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { usd: self.usd + other.usd, calls: self.calls.saturating_add(other.calls), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl std::iter::Sum for Spend {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |total, spend| total + spend)
    }
}

/// The limit that a spending would exceed, and how much of it is already used, in words: `10 calls, with 9 spent or set aside`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Exceeded(String);

impl Budget {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// What may be spent if both apply: of each limit the lower one.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        fn lower<T: Ord + Copy>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        Self { usd: lower(self.usd, other.usd), calls: lower(self.calls, other.calls), bytes: lower(self.bytes, other.bytes) }
    }

    /// What is left of it once so much is spent; nothing is less than nothing.
    #[must_use]
    pub fn less(&self, spent: Spend) -> Self {
        Self {
            usd: self.usd.map(|usd| (usd - spent.usd).max(Decimal::ZERO)),
            calls: self.calls.map(|calls| calls.saturating_sub(spent.calls)),
            bytes: self.bytes.map(|bytes| bytes.saturating_sub(spent.bytes)),
        }
    }

    /// Whether `more` can be spent when `spent` is already used.
    ///
    /// # Errors
    /// The first limit that would be exceeded.
    pub fn fits(&self, spent: Spend, more: Spend) -> Result<(), Exceeded> {
        let all = spent + more;
        if let Some(calls) = self.calls.filter(|calls| all.calls > *calls) {
            return Err(Exceeded(format!("{calls} calls, with {} spent or set aside", spent.calls)));
        }
        if let Some(usd) = self.usd.filter(|usd| all.usd > *usd) {
            return Err(Exceeded(format!("{usd} USD, with {} spent or set aside", spent.usd.normalize())));
        }
        if let Some(bytes) = self.bytes.filter(|bytes| all.bytes > *bytes) {
            return Err(Exceeded(format!("{bytes} bytes, with {} spent", spent.bytes)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_to_the_last_cent_fits() {
        let usd = |cents: i64| Decimal::new(cents, 2);
        let budget = Budget { usd: Some(usd(50)), calls: Some(10), bytes: None };
        let spent = Spend { usd: usd(49), calls: 9, bytes: u64::MAX };
        assert_eq!(budget.fits(spent, Spend { usd: usd(1), calls: 1, bytes: 1 }), Ok(()));
        let exceeded = budget.fits(spent, Spend { usd: usd(2), calls: 0, bytes: 0 }).unwrap_err();
        assert_eq!(exceeded.to_string(), "0.50 USD, with 0.49 spent or set aside");
        let exceeded = budget.fits(spent, Spend { usd: usd(0), calls: 2, bytes: 0 }).unwrap_err();
        assert_eq!(exceeded.to_string(), "10 calls, with 9 spent or set aside");
        assert_eq!(Budget::default().fits(spent, spent), Ok(()));
    }
}
