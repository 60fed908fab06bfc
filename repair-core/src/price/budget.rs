//! Budgets: how much a run, or a step of it, may spend. It must not know how runs go.

use std::fmt;

use rust_decimal::Decimal;

/// How much may be spent; what is not limited is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget {
    /// Dollars, by the price book.
    pub usd: Option<Decimal>,
    /// Calls to sources, each page of an answer one.
    pub calls: Option<u64>,
    /// Bytes read by queries and from the lake's files.
    pub bytes: Option<u64>,
}

/// What was spent, or is set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spend {
    /// Dollars.
    pub usd: Decimal,
    /// Calls to sources.
    pub calls: u64,
    /// Bytes.
    pub bytes: u64,
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

/// What a budget does not allow, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded(String);

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Budget {
    /// Whether `more` fits beside what is spent.
    ///
    /// # Errors
    /// What does not fit.
    pub fn fits(&self, spent: Spend, more: Spend) -> Result<(), Exceeded> {
        let all = spent + more;
        if let Some(calls) = self.calls.filter(|calls| all.calls > *calls) {
            return Err(Exceeded(format!("{calls} calls, of which {} are spent or set aside", spent.calls)));
        }
        if let Some(usd) = self.usd.filter(|usd| all.usd > *usd) {
            return Err(Exceeded(format!("{usd} USD, of which {} are spent or set aside", spent.usd.normalize())));
        }
        if let Some(bytes) = self.bytes.filter(|bytes| all.bytes > *bytes) {
            return Err(Exceeded(format!("{bytes} bytes, of which {} are spent", spent.bytes)));
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
        let told = budget.fits(spent, Spend { usd: usd(2), calls: 0, bytes: 0 }).unwrap_err();
        assert_eq!(told.to_string(), "0.50 USD, of which 0.49 are spent or set aside");
        let told = budget.fits(spent, Spend { usd: usd(0), calls: 2, bytes: 0 }).unwrap_err();
        assert_eq!(told.to_string(), "10 calls, of which 9 are spent or set aside");
        assert_eq!(Budget::default().fits(spent, spent), Ok(()));
    }
}
