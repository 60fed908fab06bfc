//! `repair costs`

use std::path::PathBuf;

use clap::Args;
use repair::PriceBook;
use repair::jiff::Timestamp;
use repair::ledger::{CostGroup, Costs, NONE, since};
use rust_decimal::Decimal;

use crate::exit::Exit;
use crate::open::{LakeArg, run_meant};
use crate::output::{Failure, count, csv, fit, print, print_json, table};

/// Significant digits of dollars, for people.
const DIGITS: u32 = 4;

/// Show what runs used and what that cost, by workflow and strategy, beside what the pipeline itself costs.
#[derive(Debug, Args)]
pub(crate) struct CostsOf {
    /// Only these runs, by id, the beginning of it, or `last`; with the runs that they ran as steps [default: all].
    runs: Vec<String>,
    /// By which tags: component, workflow, idea, strategy, step, table, environment, run, or a workflow's own.
    #[arg(long, value_name = "TAG[,TAG…]", value_delimiter = ',', default_values = repair::ledger::DEFAULT_TAGS)]
    group_by: Vec<String>,
    /// Only runs that began since then: a date (UTC), an instant, or a duration before now (`7d`).
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// A price book, instead of those that runs were started with.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Print the groups as CSV.
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl CostsOf {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let book = self.prices.as_deref().map(PriceBook::load).transpose()?;
        let since = self.since.as_deref().map(|text| since(text, Timestamp::now())).transpose()?;
        let by: Vec<String> = self.group_by.iter().map(|tag| tag.trim().to_owned()).collect();
        let lake = self.lake.open(lake_before)?;
        let mut runs = Vec::new();
        for run in self.runs {
            runs.push(run_meant(&lake, run).await?);
        }
        let costs = lake.costs().runs(runs).since(since).group_by(by.clone()).prices(book).await?;
        if self.json {
            print_json(&costs)?;
        } else if self.csv {
            print(&as_csv(&costs, &by))?;
        } else {
            print(&fit(&as_text(&costs, &by)))?;
        }
        Ok(Exit::Success)
    }
}

/// A column: its name, and what it holds of a group.
type Column = (&'static str, fn(&CostGroup) -> u64);

/// What is counted, in the order of columns. Columns that are all zero are left out.
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
        return "no run here has used anything".to_owned();
    }
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(_, of)| of(&costs.total) > 0).collect();
    let uncertain = costs.total.usd != costs.total.usd_at_most;
    let mut header: Vec<&str> = by.iter().map(String::as_str).chain(columns.iter().map(|(name, _)| *name)).collect();
    if costs.total.usd.is_some() {
        header.push("USD");
        header.extend(uncertain.then_some("up to"));
        header.push("USD a row");
    }
    let row = |group: &CostGroup, tags: Vec<String>| {
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
    // A repaired row costs what repair costs, without what the pipeline costs.
    let of_repair = costs.repair().and_then(|repair| repair.usd_per_row);
    let mut of_all = costs.total.clone();
    of_all.usd_per_row = of_repair;
    rows.push(row(&of_all, total));
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
        let share =
            (Decimal::ONE_HUNDRED * of_repair).checked_div(of_pipeline).map(|share| format!("; repair is {} % of that", short(share)));
        lines.push(format!("repair {} USD, the pipeline itself {} USD{}", short(of_repair), short(of_pipeline), share.unwrap_or_default()));
    }
    for plan in &costs.plans {
        lines.push(format!(
            "{} is paid by the month: {} USD in {}, {} of {} calls used. Their share of that, {} USD, is in the prices above; on top of the plan they cost {} USD.",
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
        lines.push("`up to` also counts what units that failed or were lost may have used, and the minimum price of queries that are known only as a sum".to_owned());
    }
    if costs.runs_without_prices > 0 {
        lines.push(format!(
            "{} without a price book: counted in the usage, but not in the prices; --prices FILE prices all",
            count(costs.runs_without_prices as u64, "run")
        ));
    }
    for (source, calls) in &costs.calls_without_price {
        lines.push(format!("{} to {source}: not in the price book, so not in the prices; add it under `sources`", count(*calls, "call")));
    }
    if !costs.free.is_empty() {
        let free: Vec<&str> = costs.free.iter().copied().collect();
        lines.push(format!("not in the price book, so counted as free: {}", free.join(", ")));
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

/// For programs: every count, so that the columns are always the same, and exact prices.
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
