//! The costs of the runs in a lake: reads their events, and prices what they used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Costs, LedgerEntry, NONE, TAGS, Tally};
use crate::open::OpenLake;
use crate::request::awaitable;
use repair_core::engine::for_each_event;
use repair_core::model::day_start;
use repair_core::price::PriceBook;
use repair_core::workflow::{Workflow, parse_duration};
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Result};

/// The tags by which costs are grouped unless others are asked for.
pub const DEFAULT_TAGS: [&str; 3] = ["component", "workflow", "idea"];

/// Computes what runs used and what that cost: await it. [`OpenLake::costs`] makes it.
#[must_use = "nothing is computed before this is awaited"]
pub struct CostsRequest<'a> {
    open: &'a OpenLake,
    runs: Vec<String>,
    since: Option<Timestamp>,
    group_by: Vec<String>,
    prices: Option<PriceBook>,
}

impl CostsRequest<'_> {
    /// Counts only these runs, with the runs that they ran as steps. Without this, all.
    pub fn runs<R: Into<String>>(mut self, runs: impl IntoIterator<Item = R>) -> Self {
        self.runs = runs.into_iter().map(Into::into).collect();
        self
    }

    /// Counts only runs that began at this instant or later.
    pub fn since(mut self, since: impl Into<Option<Timestamp>>) -> Self {
        self.since = since.into();
        self
    }

    /// Groups by these tags instead of [`DEFAULT_TAGS`]: any of [`TAGS`], and a workflow's own.
    pub fn group_by<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.group_by = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Prices everything by this book instead of those that the runs were started with.
    pub fn prices(mut self, prices: impl Into<Option<PriceBook>>) -> Self {
        self.prices = prices.into();
        self
    }

    async fn perform(self) -> Result<Costs> {
        let Self { open, runs, since, group_by, prices } = self;
        let entries = entries(open, &runs, since).await?;
        check_tags(&group_by, &entries)?;
        Ok(Costs::new(&entries, &group_by, prices.as_ref()))
    }
}

awaitable!(CostsRequest => Costs);

impl OpenLake {
    /// Computes what the runs in this lake used, and what that cost.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `invalid` if no run has a tag of that name; those of the journal.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// let costs = lake.costs().group_by(["workflow", "strategy"]).await?;
    /// for group in &costs.groups {
    ///     println!("{:?}: {:?} USD", group.tags, group.usd);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn costs(&self) -> CostsRequest<'_> {
        let group_by = DEFAULT_TAGS.map(str::to_owned).to_vec();
        CostsRequest { open: self, runs: Vec::new(), since: None, group_by, prices: None }
    }
}

/// The instant that a text means: an instant, the start of a date (UTC), or a duration before `now`, such as `7d`.
///
/// # Errors
/// `invalid` if it is none of these.
///
/// ```
/// let now = "2024-03-08T12:00:00Z".parse().unwrap();
/// assert_eq!(repair::ledger::since("7d", now)?.to_string(), "2024-03-01T12:00:00Z");
/// assert_eq!(repair::ledger::since("2024-03-04", now)?.to_string(), "2024-03-04T00:00:00Z");
/// # Ok::<(), repair::Error>(())
/// ```
pub fn since(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    // `Date` would read a date-time without a zone, and drop its time.
    if let Some(date) = text.parse::<Date>().ok().filter(|_| text.len() <= 10) {
        return day_start(date);
    }
    let long = parse_duration(text).ok().and_then(|long| SignedDuration::try_from(long).ok());
    let help = || Error::invalid(format!("`{text}` is not a time; write 2018-04-01, 2018-04-01T12:00:00Z or 7d"));
    long.and_then(|long| now.checked_sub(long).ok()).ok_or_else(help)
}

/// The entries of the runs that are asked for, each with those that it ran.
async fn entries(open: &OpenLake, wanted: &[String], since: Option<Timestamp>) -> Result<Vec<LedgerEntry>> {
    let journal = open.journal().await?;
    let heads = journal.runs().await?;
    if let Some(unknown) = wanted.iter().find(|run| heads.iter().all(|head| head.run != **run)) {
        let known = closest(unknown, heads.iter().map(|head| head.run.as_str())).map(|close| format!("; did you mean `{close}`?"));
        let message = format!("there is no run `{unknown}` in this lake{}", known.unwrap_or_default());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let mut chosen: BTreeSet<String> = wanted.iter().cloned().collect();
    let mut environments: BTreeMap<String, String> = BTreeMap::new();
    let mut read: Option<(Tally, Option<Arc<Workflow>>)> = None;
    let mut entries = Vec::new();
    // A run is older than those that it runs.
    for head in heads {
        let mut tally = Tally::begin(&head.run, &head.first)?;
        let parent = tally.parent().map(str::to_owned);
        let environment = parent.as_ref().and_then(|parent| environments.get(parent).cloned());
        let environment = environment.unwrap_or_else(|| environment_of(&tally.environment));
        environments.insert(head.run.clone(), environment.clone());
        if parent.is_some_and(|parent| chosen.contains(&parent)) {
            chosen.insert(head.run.clone());
        }
        if since.is_some_and(|since| tally.began_at < since) || !(wanted.is_empty() || chosen.contains(&head.run)) {
            continue;
        }
        for_each_event(journal.as_ref(), &head.run, |recorded| {
            tally.apply(&recorded);
            Ok(())
        })
        .await
        .map_err(|error| error.on("run", &head.run))?;
        // Runs of one workflow come in rows; its definition is read once.
        let same =
            |before: &Tally| (&before.definition, &before.file, &before.children) == (&tally.definition, &tally.file, &tally.children);
        let known = read.take().filter(|(before, _)| same(before));
        let workflow = match known {
            Some((_, workflow)) => workflow,
            None => Workflow::parse_with(&tally.file, &tally.definition, &open.around.registry, &tally.children).ok().map(Arc::new),
        };
        entries.extend(tally.entries(workflow.as_deref(), &environment));
        read = Some((tally, workflow));
    }
    Ok(entries)
}

/// Where a run ran: its profile, else its kind of lake.
fn environment_of(environment: &Value) -> String {
    let text = |name: &str| environment.get(name).and_then(Value::as_str);
    text("profile").or(text("lake")).unwrap_or(NONE).to_owned()
}

fn check_tags(by: &[String], entries: &[LedgerEntry]) -> Result<()> {
    let known: BTreeSet<&str> = TAGS.into_iter().chain(entries.iter().flat_map(|entry| entry.tags.keys().map(String::as_str))).collect();
    let Some(unknown) = by.iter().find(|tag| !known.contains(tag.as_str())) else { return Ok(()) };
    let close = closest(unknown, known.iter().copied()).map(|close| format!(" (did you mean `{close}`?)")).unwrap_or_default();
    let known: Vec<&str> = known.into_iter().collect();
    Err(Error::invalid(format!("no run here has a tag `{unknown}`{close}; the tags are {}", known.join(", "))))
}
