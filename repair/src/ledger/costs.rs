//! What the entries of the ledger cost, grouped by tags. Pure. It must not know runs or events.
//!
//! An entry is priced as a whole, and rounded once, so that groups add up to the total to the last digit, however they are cut.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use crate::ledger::{INFRASTRUCTURE, LedgerEntry, NONE};
use repair_core::engine::JsonFormat;
use repair_core::model::Usage;
use repair_core::price::Query;
use repair_core::price::{CallPrice, Item, PriceBook, counts};

/// Digits after the point of an entry's price. Sums of all entries stay exact.
const DECIMALS: u32 = 15;
/// The name of a source that has none.
const UNNAMED: &str = "a source without a name";

/// Dollars: what is known, and what it is at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    /// What the usage that is on record costs.
    usd: Decimal,
    /// The same, with what units may have taken whose usage was lost, and with the minimum of every query that is known only as part of a sum.
    at_most: Decimal,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.usd += other.usd;
        self.at_most += other.at_most;
    }
}

/// Entries that have some tags in common.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CostGroup {
    /// Those tags.
    pub tags: BTreeMap<String, String>,
    /// How many runs.
    pub runs: usize,
    /// What they used.
    pub usage: Usage,
    /// Rows that readers see for it.
    pub rows_repaired: u64,
    /// Slots that were confirmed absent.
    pub slots_absent: u64,
    /// What it cost; `None` if there are no prices.
    #[serde(serialize_with = "plain")]
    pub usd: Option<Decimal>,
    /// What it cost at most: also what units may have taken whose usage was lost.
    #[serde(serialize_with = "plain")]
    pub usd_at_most: Option<Decimal>,
    /// What a repaired row cost; `None` if none was repaired.
    #[serde(serialize_with = "plain")]
    pub usd_per_row: Option<Decimal>,
}

fn plain<S: Serializer>(usd: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
    usd.map(|usd| usd.normalize().to_string()).serialize(serializer)
}

/// Calls to a source that is paid by the month.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlanUse {
    /// The source, as the price book names it.
    pub source: String,
    /// The month, by its first day.
    pub month: Date,
    /// Calls of the runs that were counted.
    pub calls: u64,
    /// Calls that the plan includes.
    pub calls_included: u64,
    /// What the plan costs, whether it is used or not.
    #[serde(serialize_with = "exact")]
    pub monthly_usd: Decimal,
    /// The part of it that is in the prices of groups: for each included call its part of the plan, for each further call its own price.
    #[serde(serialize_with = "exact")]
    pub share_usd: Decimal,
    /// What the calls cost on top of the plan: those that it does not include.
    #[serde(serialize_with = "exact")]
    pub marginal_usd: Decimal,
}

fn exact<S: Serializer>(usd: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&usd.normalize())
}

/// What entries cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Costs {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// By the tags that were asked for, in their order.
    pub groups: Vec<CostGroup>,
    /// The same by component.
    pub components: Vec<CostGroup>,
    /// All together.
    pub total: CostGroup,
    /// Sources that are paid by the month.
    pub plans: Vec<PlanUse>,
    /// The price books, each with its day.
    pub prices: BTreeSet<String>,
    /// Runs without a price book. They are left out of all prices.
    pub runs_without_prices: usize,
    /// Calls to sources without a price. They are left out of all prices.
    pub calls_without_price: BTreeMap<String, u64>,
    /// What was used and is not in the price book, so that it counts as free.
    pub free: BTreeSet<&'static str>,
}

impl Costs {
    /// Prices entries, each by the book that is given or else the one that its run had, and groups them by some of their tags. An entry without
    /// a tag has `-`.
    pub fn new(entries: &[LedgerEntry], by: &[String], given: Option<&PriceBook>) -> Self {
        let mut entries: Vec<&LedgerEntry> = entries.iter().collect();
        // A plan's calls are counted in order of time.
        entries.sort_by_key(|entry| entry.began_at);
        let mut pricing = Pricing::default();
        let priced: Vec<(&LedgerEntry, Option<Cost>)> = entries.iter().map(|entry| (*entry, pricing.price(entry, given))).collect();
        let component = ["component".to_owned()];
        Self {
            format: JsonFormat,
            groups: grouped(&priced, by),
            components: grouped(&priced, &component),
            total: grouped(&priced, &[]).pop().unwrap_or_default(),
            plans: pricing.plans.into_values().collect(),
            prices: pricing.books,
            runs_without_prices: pricing.without_prices.len(),
            calls_without_price: pricing.calls_without_price,
            free: pricing.free,
        }
    }

    /// What the pipeline itself cost.
    pub fn infrastructure(&self) -> Option<&CostGroup> {
        self.components.iter().find(|group| group.tags.get("component").is_some_and(|component| component == INFRASTRUCTURE))
    }

    /// What everything else cost.
    pub fn repair(&self) -> Option<CostGroup> {
        let rest = self.components.iter().filter(|group| Some(*group) != self.infrastructure());
        rest.cloned().reduce(|mut all, group| {
            let usd = all.usd.zip(group.usd).map(|(one, other)| one + other).or(all.usd).or(group.usd);
            all.usd_at_most =
                all.usd_at_most.zip(group.usd_at_most).map(|(one, other)| one + other).or(all.usd_at_most).or(group.usd_at_most);
            all.usage += group.usage;
            all.runs += group.runs;
            all.rows_repaired += group.rows_repaired;
            all.slots_absent += group.slots_absent;
            all.usd = usd;
            all.usd_per_row = per_row(usd, all.rows_repaired);
            all
        })
    }
}

fn per_row(usd: Option<Decimal>, rows: u64) -> Option<Decimal> {
    usd.filter(|_| rows > 0).map(|usd| (usd / Decimal::from(rows)).round_dp(DECIMALS))
}

/// A group while it is summed up.
#[derive(Default)]
struct Sum<'a> {
    group: CostGroup,
    amount: Option<Cost>,
    runs: BTreeSet<&'a str>,
}

fn grouped(entries: &[(&LedgerEntry, Option<Cost>)], by: &[String]) -> Vec<CostGroup> {
    let mut groups: BTreeMap<Vec<&str>, Sum<'_>> = BTreeMap::new();
    for (entry, amount) in entries {
        let key = by.iter().map(|tag| entry.tags.get(tag).map_or(NONE, String::as_str)).collect();
        let sum = groups.entry(key).or_default();
        sum.group.usage += entry.usage;
        sum.group.rows_repaired += entry.rows;
        sum.group.slots_absent += entry.absent;
        sum.runs.extend(entry.tags.get("run").map(String::as_str));
        if let Some(amount) = amount {
            *sum.amount.get_or_insert_default() += *amount;
        }
    }
    let done = groups.into_iter().map(|(key, Sum { group, amount, runs })| CostGroup {
        tags: by.iter().cloned().zip(key.into_iter().map(str::to_owned)).collect(),
        runs: runs.len(),
        usd: amount.map(|amount| amount.usd),
        usd_at_most: amount.map(|amount| amount.at_most),
        usd_per_row: per_row(amount.map(|amount| amount.usd), group.rows_repaired),
        ..group
    });
    done.collect()
}

/// What is found while entries are priced, in order of time.
#[derive(Default)]
struct Pricing {
    plans: BTreeMap<(String, String, Date), PlanUse>,
    books: BTreeSet<String>,
    without_prices: BTreeSet<String>,
    calls_without_price: BTreeMap<String, u64>,
    free: BTreeSet<&'static str>,
}

impl Pricing {
    fn price(&mut self, entry: &LedgerEntry, given: Option<&PriceBook>) -> Option<Cost> {
        let Some(book) = given.or(entry.prices.as_deref()) else {
            self.without_prices.extend(entry.tags.get("run").cloned());
            return None;
        };
        self.books.insert(format!("{} of {}", book.name, book.as_of));
        let usage = &entry.usage;
        let named: u64 = entry.queries.iter().map(|query| query.bytes_scanned).sum();
        let unnamed = usage.queries.saturating_sub(entry.queries.len() as u64);
        // Without queries that are not known, what else was read is files, and free.
        let unnamed_bytes = if unnamed == 0 { 0 } else { usage.bytes_scanned.saturating_sub(named) };
        let queries: Decimal = entry.queries.iter().map(|query: &Query| book.query(query)).sum();
        let known = book.counted(usage) + queries + self.calls(book, entry);
        let assumed_calls = book.calls(entry.source.iter().map(String::as_str)).map(CallPrice::worst).unwrap_or_default();
        let assumed = book.worst(&entry.assumed) + assumed_calls * Decimal::from(entry.assumed.source_requests);
        self.note_free(book, usage);
        let usd = known + book.scanned_at_least(unnamed, unnamed_bytes);
        let at_most = known + book.scanned_at_most(unnamed, unnamed_bytes) + assumed;
        Some(Cost { usd: usd.round_dp(DECIMALS), at_most: at_most.round_dp(DECIMALS) })
    }

    /// What an entry's calls cost. Of a plan, what they add to what those before them cost of it.
    fn calls(&mut self, book: &PriceBook, entry: &LedgerEntry) -> Decimal {
        if entry.calls.is_empty() {
            return Decimal::ZERO;
        }
        let Some((source, price)) = book.source(entry.source.iter().map(String::as_str)) else {
            let name = entry.source.first().map_or(UNNAMED, String::as_str);
            *self.calls_without_price.entry(name.to_owned()).or_default() += entry.usage.source_requests;
            return Decimal::ZERO;
        };
        let of = |calls: u64| price.of(calls).round_dp(DECIMALS);
        let mut usd = Decimal::ZERO;
        for (&month, &calls) in &entry.calls {
            let CallPrice::Plan { monthly_usd, calls_included, usd_beyond, .. } = price else {
                usd += of(calls);
                continue;
            };
            let plan = self.plans.entry((book.name.clone(), source.to_owned(), month)).or_insert_with(|| PlanUse {
                source: source.to_owned(),
                month,
                calls: 0,
                calls_included: *calls_included,
                monthly_usd: *monthly_usd,
                share_usd: Decimal::ZERO,
                marginal_usd: Decimal::ZERO,
            });
            let before = of(plan.calls);
            plan.calls += calls;
            plan.share_usd = of(plan.calls);
            plan.marginal_usd = *usd_beyond * Decimal::from(plan.calls.saturating_sub(*calls_included));
            usd += plan.share_usd - before;
        }
        usd
    }

    fn note_free(&mut self, book: &PriceBook, usage: &Usage) {
        let scanned = if usage.queries > 0 { usage.bytes_scanned } else { 0 };
        let used = counts(usage).into_iter().chain([(Item::QueryBytes, scanned)]);
        self.free.extend(used.filter(|(item, count)| *count > 0 && !book.has(*item)).map(|(item, _)| item.as_str()));
    }
}
