//! `repair costs`: what runs took, what that cost, and for what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use repair::ledger::{Costs, Entry, Group, Tally};
use repair::ledger::{NONE, TAGS};
use repair_core::engine::for_each_event;
use repair_core::model::day_start;
use repair_core::price::PriceBook;
use repair_core::workflow::{Workflow, parse_duration};
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Result};
use rust_decimal::Decimal;
use serde_json::Value;

use super::subject::Opened;
use crate::output::{Failure, count, csv, print, print_json, table};
use crate::session::LakeArg;

/// By what costs are told apart, unless asked for otherwise.
const DEFAULT_TAGS: &str = "component,workflow,idea";
/// Significant digits of dollars, for people.
const DIGITS: u32 = 4;

/// Tell what runs took and what that cost, by workflow and repair idea, beside what the pipeline itself costs.
#[derive(Debug, Args)]
pub(crate) struct CostsOf {
    /// Only these runs, with the runs that they ran as steps [default: all].
    runs: Vec<String>,
    /// By which tags: component, workflow, idea, strategy, step, table, environment, run, or a workflow's own.
    #[arg(long, value_name = "TAG[,TAG…]", value_delimiter = ',', default_value = DEFAULT_TAGS)]
    group_by: Vec<String>,
    /// Only runs that began since: a date (UTC), an instant, or so long ago (`7d`).
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// A price book, in place of those that runs were started with.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print the groups as CSV.
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl CostsOf {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let book = self.prices.as_deref().map(PriceBook::load).transpose()?;
        let since = self.since.as_deref().map(|text| instant(text, Timestamp::now())).transpose()?;
        let opened = Opened::new(self.lake.or(lake_before).as_deref()).await?;
        let entries = entries(&opened, &self.runs, since).await?;
        let by: Vec<String> = self.group_by.iter().map(|tag| tag.trim().to_owned()).collect();
        check_tags(&by, &entries)?;
        let costs = Costs::new(&entries, &by, book.as_ref());
        if self.json {
            print_json(&costs)?;
        } else if self.csv {
            print(&as_csv(&costs, &by))?;
        } else {
            print(&as_text(&costs, &by))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// When `--since` means.
fn instant(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    // `Date` would read a date-time without a zone, and drop its time.
    if let Some(date) = text.parse::<Date>().ok().filter(|_| text.len() <= 10) {
        return day_start(date);
    }
    let long = parse_duration(text).ok().and_then(|long| SignedDuration::try_from(long).ok());
    let help = || Error::invalid(format!("`{text}` is no time for --since; write 2018-04-01, 2018-04-01T12:00:00Z or 7d"));
    long.and_then(|long| now.checked_sub(long).ok()).ok_or_else(help)
}

/// The entries of the runs that are asked for, each with those that it ran.
async fn entries(opened: &Opened, wanted: &[String], since: Option<Timestamp>) -> Result<Vec<Entry>> {
    let heads = opened.journal.runs().await?;
    if let Some(unknown) = wanted.iter().find(|run| heads.iter().all(|head| head.run != **run)) {
        let known = closest(unknown, heads.iter().map(|head| head.run.as_str())).map(|close| format!("; did you mean `{close}`?"));
        let message = format!("there is no run `{unknown}` here{}", known.unwrap_or_default());
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
        for_each_event(opened.journal.as_ref(), &head.run, |recorded| {
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
            None => Workflow::parse_with(&tally.file, &tally.definition, &opened.registry, &tally.children).ok().map(Arc::new),
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

fn check_tags(by: &[String], entries: &[Entry]) -> Result<()> {
    let known: BTreeSet<&str> = TAGS.into_iter().chain(entries.iter().flat_map(|entry| entry.tags.keys().map(String::as_str))).collect();
    let Some(unknown) = by.iter().find(|tag| !known.contains(tag.as_str())) else { return Ok(()) };
    let close = closest(unknown, known.iter().copied()).map(|close| format!(" (did you mean `{close}`?)")).unwrap_or_default();
    let known: Vec<&str> = known.into_iter().collect();
    Err(Error::invalid(format!("no run here has a tag `{unknown}`{close}; there are {}", known.join(", "))))
}

/// A column: its name, and what it holds of a group.
type Column = (&'static str, fn(&Group) -> u64);

/// What is counted, in the order of columns; columns of nothing are left out.
const COLUMNS: [Column; 10] = [
    ("calls", |group| group.usage.source_requests),
    ("queries", |group| group.usage.queries),
    ("bytes read", |group| group.usage.bytes_scanned),
    ("reads", |group| group.usage.storage_reads),
    ("writes", |group| group.usage.storage_writes),
    ("messages", |group| group.usage.queue_messages),
    ("records", |group| group.usage.stream_records),
    ("ms worked", |group| group.usage.compute_ms),
    ("repaired", |group| group.rows_repaired),
    ("absent", |group| group.slots_absent),
];

/// For people.
fn as_text(costs: &Costs, by: &[String]) -> String {
    if costs.total.runs == 0 {
        return "no run here has taken anything".to_owned();
    }
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(_, of)| of(&costs.total) > 0).collect();
    let uncertain = costs.total.usd != costs.total.usd_at_most;
    let mut header: Vec<&str> = by.iter().map(String::as_str).chain(columns.iter().map(|(name, _)| *name)).collect();
    if costs.total.usd.is_some() {
        header.push("USD");
        header.extend(uncertain.then_some("up to"));
        header.push("USD a row");
    }
    let row = |group: &Group, tags: Vec<String>| {
        let mut row = tags;
        row.extend(columns.iter().map(|(_, of)| of(group).to_string()));
        if costs.total.usd.is_some() {
            row.push(dollars(group.usd));
            row.extend(uncertain.then(|| dollars(group.usd_at_most)));
            row.push(dollars(group.usd_per_row));
        }
        row
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for group in &costs.groups {
        rows.push(row(group, by.iter().map(|tag| group.tags.get(tag).cloned().unwrap_or_default()).collect()));
    }
    let mut total = vec![String::new(); by.len()];
    if let Some(first) = total.first_mut() {
        *first = "total".to_owned();
    }
    // A row of repairs costs what all of repair costs, not what the pipeline does.
    let of_repair = costs.repair().and_then(|repair| repair.usd_per_row);
    rows.push(row(&Group { usd_per_row: of_repair, ..costs.total.clone() }, total));
    let text = table(&header, &rows);
    format!("{text}\n\n{}", remarks(costs).join("\n"))
}

fn remarks(costs: &Costs) -> Vec<String> {
    let mut lines = Vec::new();
    if costs.total.usd.is_none() {
        lines.push(
            "No run here has a price book, so this is usage only. Name one with --prices FILE, such as prices/aws-us-east-1.yaml, or in the workflow with `prices:`."
                .to_owned(),
        );
        return lines;
    }
    let books: Vec<&str> = costs.prices.iter().map(String::as_str).collect();
    lines.push(format!("{}; prices: {}", count(costs.total.runs as u64, "run"), books.join(", ")));
    if let (Some(repair), Some(infrastructure)) = (costs.repair(), costs.infrastructure())
        && let (Some(of_repair), Some(of_pipeline)) = (repair.usd, infrastructure.usd)
    {
        let share = (Decimal::ONE_HUNDRED * of_repair).checked_div(of_pipeline).map(|share| format!(": {} %", short(share)));
        lines.push(format!(
            "repair {} USD, beside {} of the pipeline itself{}",
            short(of_repair),
            short(of_pipeline),
            share.unwrap_or_default()
        ));
    }
    for plan in &costs.plans {
        lines.push(format!(
            "{} is paid by the month: {} USD in {}, {} of {} calls used. Their share of that, {} USD, is in the prices above; on top of the plan they cost {}.",
            plan.source,
            plan.monthly_usd.normalize(),
            plan.month.strftime("%Y-%m"),
            plan.calls,
            plan.calls_included,
            short(plan.share_usd),
            short(plan.marginal_usd),
        ));
    }
    if costs.total.usd != costs.total.usd_at_most {
        lines.push("`up to` also counts what units that failed or were lost may have taken, and the minimum of queries that are not known one by one".to_owned());
    }
    if costs.runs_without_prices > 0 {
        lines.push(format!(
            "{} without a price book: in the usage, not in the prices; --prices FILE gives one to all",
            count(costs.runs_without_prices as u64, "run")
        ));
    }
    for (source, calls) in &costs.calls_without_price {
        lines.push(format!("{} to {source}: no price in the book, so in no price; add it under `sources`", count(*calls, "call")));
    }
    if !costs.free.is_empty() {
        let free: Vec<&str> = costs.free.iter().copied().collect();
        lines.push(format!("not in the price book, so reckoned as free: {}", free.join(", ")));
    }
    lines
}

fn dollars(usd: Option<Decimal>) -> String {
    usd.map_or_else(|| NONE.to_owned(), short)
}

/// To four significant digits.
fn short(usd: Decimal) -> String {
    usd.round_sf(DIGITS).unwrap_or(usd).normalize().to_string()
}

/// For programs: every count, so that the columns are always the same, and prices to the last digit.
fn as_csv(costs: &Costs, by: &[String]) -> String {
    let money = |usd: Option<Decimal>| usd.map(|usd| usd.normalize().to_string()).unwrap_or_default();
    let mut header = by.to_vec();
    header.push("runs".to_owned());
    header.extend(costs.total.usage.counts().map(|(name, _)| name.to_owned()));
    header.extend(["rows_repaired", "slots_absent", "usd", "usd_at_most", "usd_per_row"].map(str::to_owned));
    let mut lines = vec![header];
    for group in &costs.groups {
        let mut line: Vec<String> = by.iter().map(|tag| group.tags.get(tag).cloned().unwrap_or_default()).collect();
        line.push(group.runs.to_string());
        line.extend(group.usage.counts().map(|(_, count)| count.to_string()));
        line.extend([group.rows_repaired.to_string(), group.slots_absent.to_string()]);
        line.extend([money(group.usd), money(group.usd_at_most), money(group.usd_per_row)]);
        lines.push(line);
    }
    csv(&lines)
}
