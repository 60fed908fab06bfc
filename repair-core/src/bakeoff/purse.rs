//! What an idea costs, and what it may spend while it is tried: it asks real sources for the hidden rows, and so is under the same budgets
//! as in a run.

use std::sync::{Mutex, PoisonError};

use rust_decimal::Decimal;

use super::idea::Idea;
use crate::cost::price::counts;
use crate::cost::{Budget, CallPrice, Metered, PriceBook, Spend, Usage};
use crate::error::{Error, Result};
use crate::workflow::Workflow;

/// The prices that an idea pays.
pub(super) struct Prices<'a> {
    book: Option<&'a PriceBook>,
    source: Option<&'a str>,
    call: Option<&'a CallPrice>,
}

impl<'a> Prices<'a> {
    pub(super) fn of(workflow: &'a Workflow, idea: &'a Idea) -> Self {
        let (book, source) = (workflow.prices.as_deref(), idea.source());
        let plugin = source.and_then(|source| workflow.sources.get(source)).map(|used| used.plugin.as_str());
        let call = book.and_then(|book| book.calls(source.into_iter().chain(plugin)));
        Self { book, source, call }
    }

    /// What was used costs so much; or why nobody knows.
    pub(super) fn cost(&self, usage: &Usage, metered: &Metered) -> Result<Decimal, String> {
        let Some(book) = self.book else { return Err("no price book is given; name one with --prices".to_owned()) };
        let calls = match (usage.source_requests, self.call) {
            (0, _) => Decimal::ZERO,
            (calls, Some(price)) => price.of(calls),
            (_, None) => {
                let source = self.source.map_or_else(|| "what it asks".to_owned(), |source| format!("source `{source}`"));
                return Err(format!("the price book {} has no price for {source}", book.file));
            }
        };
        let queries = metered.queries.iter().map(|query| book.query(query)).sum::<Decimal>();
        let counted = counts(usage).into_iter().map(|(item, count)| book.price(item, count)).sum::<Decimal>();
        Ok((calls + queries + counted).normalize())
    }

    /// What usage comes to at worst.
    fn worst(&self, usage: &Usage) -> Spend {
        let calls = self.call.map(|price| price.worst() * Decimal::from(usage.source_requests));
        let usd = self.book.map(|book| book.worst(usage)).unwrap_or_default() + calls.unwrap_or_default();
        Spend { usd, calls: usage.source_requests, bytes: usage.bytes_scanned }
    }
}

/// What is left to spend.
pub(super) struct Purse<'a> {
    prices: &'a Prices<'a>,
    limits: Vec<&'a Budget>,
    spent: Mutex<Spend>,
}

impl<'a> Purse<'a> {
    /// The budgets of the workflow, of an idea's step and of its own, of which nothing is spent.
    pub(super) fn new(workflow: &'a Workflow, idea: &'a Idea, prices: &'a Prices<'a>) -> Self {
        let limits = workflow.budget.iter().chain(&idea.budgets).collect();
        Self { prices, limits, spent: Mutex::default() }
    }

    /// Sets aside what a unit takes at worst.
    ///
    /// # Errors
    /// `budget` if there is no room; `invalid` if a limit is in dollars and a price is not known.
    pub(super) fn set_aside(&self, worst: &Usage) -> Result<()> {
        if worst.source_requests > 0 && self.prices.call.is_none() && self.limits.iter().any(|limit| limit.usd.is_some()) {
            return Err(Error::invalid("a budget in dollars needs the price of a call to its source; add it to the price book"));
        }
        let more = self.prices.worst(worst);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        for limit in &self.limits {
            limit
                .fits(*spent, more)
                .map_err(|exceeded| Error::new(crate::error::ErrorKind::Budget, format!("the workflow's budget is {exceeded}")))?;
        }
        *spent = *spent + more;
        Ok(())
    }

    /// Puts what was really used in the place of what was set aside.
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
