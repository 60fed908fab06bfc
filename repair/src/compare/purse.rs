//! What a strategy costs, and what it may spend while it is compared. It asks real sources for the hidden rows, so the same budgets apply as
//! in a run.

use std::sync::{Mutex, PoisonError};

use rust_decimal::Decimal;

use crate::compare::strategy::{Candidate, Entrant};
use repair_core::model::Usage;
use repair_core::price::{Budget, Metered, Spend, counts};
use repair_core::workflow::Prices;
use repair_core::{Error, ErrorKind, Result};

/// What was used costs in dollars, or why that is not known.
pub(super) fn cost(prices: &Prices<'_>, usage: &Usage, metered: &Metered) -> Result<Decimal, String> {
    let Some(book) = prices.book else { return Err("no price book is given".to_owned()) };
    let calls = match (usage.source_requests, prices.call) {
        (0, _) => Decimal::ZERO,
        (calls, Some(price)) => price.of(calls),
        (_, None) => {
            let source = prices.source.map_or_else(|| "what it asks".to_owned(), |source| format!("source `{source}`"));
            return Err(format!("the price book {} has no price for {source}", book.file));
        }
    };
    let queries = metered.queries.iter().map(|query| book.query(query)).sum::<Decimal>();
    let counted = counts(usage).into_iter().map(|(item, count)| book.price(item, count)).sum::<Decimal>();
    Ok((calls + queries + counted).normalize())
}

/// What is spent, and what may be.
pub(super) struct Purse<'a> {
    prices: &'a Prices<'a>,
    limits: Vec<&'a Budget>,
    spent: &'a Mutex<Spend>,
}

/// What each part of an entrant has spent, before it is tried.
pub(super) fn nothing(entrant: &Entrant) -> Vec<Mutex<Spend>> {
    entrant.parts.iter().map(|_| Mutex::default()).collect()
}

impl<'a> Purse<'a> {
    /// The budgets of the workflow, of a strategy's step, and of the strategy itself, and what it has spent in earlier rounds.
    pub(super) fn new(candidate: &'a Candidate, prices: &'a Prices<'a>, spent: &'a Mutex<Spend>) -> Self {
        Self { prices, limits: candidate.budgets.iter().collect(), spent }
    }

    /// Reserves what a unit takes at worst.
    ///
    /// # Errors
    /// `budget` if there is no room; `invalid` if a limit is in dollars and a price is not known.
    pub(super) fn reserve(&self, worst: &Usage) -> Result<()> {
        if self.prices.lack(worst) && self.limits.iter().any(|limit| limit.usd.is_some()) {
            return Err(Error::invalid("a budget in dollars needs the price of a call to its source; add it to the price book"));
        }
        let more = self.prices.worst(worst);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        for limit in &self.limits {
            limit.fits(*spent, more).map_err(|exceeded| Error::new(ErrorKind::Budget, format!("the workflow's budget is {exceeded}")))?;
        }
        *spent = *spent + more;
        Ok(())
    }

    /// Replaces what was reserved by what was used.
    pub(super) fn settle(&self, worst: &Usage, used: &Usage) {
        let (before, now) = (self.prices.worst(worst), self.prices.worst(used));
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        *spent = Spend {
            usd: spent.usd - before.usd + now.usd,
            calls: spent.calls.saturating_sub(before.calls).saturating_add(now.calls),
            bytes: spent.bytes.saturating_sub(before.bytes).saturating_add(now.bytes),
        };
    }
}
