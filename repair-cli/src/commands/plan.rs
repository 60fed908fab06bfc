//! `repair plan`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use repair::core::model::unread;
use repair::core::text::grouped;
use repair::plan::{Amount, Estimate, Look, Plan as Planned, Reach, RepairPlan, StrategyPlan};
use repair::{Error, ErrorKind, Result};

use crate::exit::Exit;
use crate::files::{Rights, write_whole};
use crate::open::WorkflowArgs;
use crate::output::{Failure, count, fit, print, table};

/// Keys and days that are shown. The plan has them all.
const MOST_SHOWN: usize = 20;

/// Show what is broken and what repairing it would take, before anything is spent or written.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    workflow: WorkflowArgs,
    /// Where to write the plan, for `repair apply`.
    #[arg(short, long, value_name = "PLAN")]
    output: Option<PathBuf>,
    /// Exit with 0 if there is nothing to do, and with 10 if there is something to do.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Print the plan itself, as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Plan {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let repair = self.workflow.open(lake_before).await?;
        let plan = repair.plan().await?;
        let text = plan.to_text()?;
        if let Some(output) = &self.output {
            write(output, &text)?;
        }
        if self.json {
            print(&text)?;
        } else {
            let kept = match &self.output {
                Some(output) => format!("do it with `repair apply {}`", output.display()),
                None => "keep the plan with `-o PLAN`, and do it with `repair apply PLAN`".to_owned(),
            };
            print(&fit(&format!("{}\n\n{kept}", shown(&plan, repair.workflow().prices.is_some()))))?;
        }
        Ok(match (plan.is_over_budget(), self.detailed_exitcode && plan.has_work()) {
            (true, _) => Exit::OverBudget,
            (false, true) => Exit::SomethingToDo,
            (false, false) => Exit::Success,
        })
    }
}

/// Writes a plan, whole or not at all.
fn write(path: &Path, text: &str) -> Result<()> {
    let refuse = |error: std::io::Error| {
        let message = format!("the plan cannot be written to {}; name another file with -o", path.display());
        Error::new(ErrorKind::Denied, message).because(error)
    };
    write_whole(path, &format!("{text}\n"), Rights::OfOwner).map_err(refuse)
}

/// A plan, for people.
fn shown(plan: &Planned, priced: bool) -> String {
    let mut text = format!("plan of workflow {}: nothing was written\n", plan.definition.workflow);
    for look in &plan.looks {
        text.push_str(&found(look));
    }
    let mut rows: Vec<Vec<String>> = plan.looks.iter().map(|look| row(&look.step, "detect", None, look.reach, &look.estimate)).collect();
    for repair in &plan.repairs {
        rows.extend(repair.strategies.iter().map(|strategy| strategy_row(repair, strategy)));
    }
    rows.extend(plan.reads.iter().map(|read| row(&read.step, &read.kind, None, read.reach, &read.estimate)));
    rows.push(row("total", "", None, Reach::Surely, &plan.total));
    let mut header = vec!["step", "does", "units", "slots", "calls", "queries", "reads", "USD"];
    if !priced {
        header.pop();
        rows.iter_mut().for_each(|row| drop(row.pop()));
    }
    text.push_str(&format!("\n{}\n", table(&header, &rows)));
    for line in notes(plan) {
        text.push_str(&format!("\n{line}"));
    }
    text
}

fn found(look: &Look) -> String {
    let counts = &look.counts;
    let mut text = format!(
        "\n{}: {} of {} expected slots of table {} are {}, in {}; {} confirmed absent\n",
        look.step,
        grouped(counts.wrong(look.kind)),
        grouped(counts.expected),
        look.table,
        look.kind.as_str(),
        count(counts.gaps, "gap"),
        counts.absent
    );
    let row = |defects: &repair::plan::Defects| vec![defects.key.to_string(), defects.day.to_string(), defects.missing.to_string()];
    let rows: Vec<Vec<String>> = look.defects.iter().take(MOST_SHOWN).map(row).collect();
    if !rows.is_empty() {
        text.push_str(&format!("\n{}\n", indented(&table(&["key", "day", look.kind.as_str()], &rows))));
    }
    let more = look.defects.len().saturating_sub(MOST_SHOWN);
    if more > 0 {
        text.push_str(&format!("  and {more} more keys and days\n"));
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn strategy_row(repair: &RepairPlan, strategy: &StrategyPlan) -> Vec<String> {
    let does = if strategy.rest { format!("{}, for what is left", strategy.name) } else { strategy.name.clone() };
    row(&repair.step, &does, Some((strategy.units, strategy.slots)), repair.reach, &strategy.estimate)
}

fn row(step: &str, does: &str, units: Option<(u64, u64)>, reach: Reach, estimate: &Estimate) -> Vec<String> {
    let Estimate { low, high } = estimate;
    let step = if reach == Reach::Perhaps { format!("{step} (if it gets there)") } else { step.to_owned() };
    let number = |of: fn(&Amount) -> u64| range(&of(low).to_string(), &of(high).to_string());
    let usd = |amount: &Amount| amount.usd.map_or_else(|| "?".to_owned(), |usd| usd.to_string());
    let of_units = |of: fn((u64, u64)) -> u64| units.map(|units| of(units).to_string()).unwrap_or_default();
    vec![
        step,
        does.to_owned(),
        of_units(|units| units.0),
        of_units(|units| units.1),
        number(|amount| amount.calls),
        number(|amount| amount.queries),
        range(&bytes(low.bytes), &bytes(high.bytes)),
        range(&usd(low), &usd(high)),
    ]
}

/// `3`, or `3 to 12`.
fn range(low: &str, high: &str) -> String {
    if low == high { low.to_owned() } else { format!("{low} to {high}") }
}

/// Bytes in the unit that people read.
fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match UNITS.into_iter().find(|(_, size)| bytes >= *size) {
        None => format!("{bytes} B"),
        Some((unit, size)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
    }
}

fn notes(plan: &Planned) -> Vec<String> {
    let mut lines = Vec::new();
    let strategies = || plan.repairs.iter().flat_map(|repair| &repair.strategies).filter(|strategy| strategy.units > 0);
    if strategies().any(|strategy| strategy.estimate.high.calls > 0) {
        let attempts = strategies().map(|strategy| strategy.attempts).max().unwrap_or(1);
        let tried = if attempts == 1 { "once".to_owned() } else { format!("up to {attempts} times") };
        lines.push(format!("calls: at least one per unit; at most all that a unit may make, tried {tried}"));
    }
    if !plan.again.is_empty() {
        lines.push(format!("one pass: what {} take when the run gets there again depends on what is left", plan.again.join(", ")));
    }
    let mut added: BTreeMap<&str, u64> = BTreeMap::new();
    for repair in plan.repairs.iter().filter(|repair| repair.objects > 0) {
        *added.entry(&repair.table).or_default() += repair.objects;
    }
    for look in &plan.looks {
        let counts = &look.counts;
        let mut add = |rows: u64, what: &str| {
            if rows > 0 {
                lines.push(format!("{}: {} of table {} {what}", look.step, self::count(rows, "row"), look.table));
            }
        };
        add(counts.misplaced, "in the folder of another time");
        add(counts.stray, "too far from their folder, and not used");
        add(counts.other_keys, &format!("with keys that it does not expect: {}", look.other_keys.describe(counts.other_keys)));
        if counts.quarantined > 0 {
            let listed: Vec<String> = look.bad_rows.iter().map(ToString::to_string).collect();
            lines.push(format!("{}: {}: {}", look.step, unread(counts.quarantined, &format!("table {}", look.table)), listed.join("; ")));
        }
        lines.extend(look.notices.iter().map(|notice| format!("{}: {notice}", look.step)));
    }
    for repair in &plan.repairs {
        let found = plan.looks.iter().find(|look| look.step == repair.of).map_or(0, |look| look.counts.missing.max(look.counts.defective));
        for idle in repair.strategies.iter().filter(|strategy| strategy.units == 0 && found > 0) {
            lines.push(format!(
                "step {}: strategy {} repairs none of the {} of {}, because its own limits leave all of them out",
                repair.step,
                idle.name,
                self::count(found, "slot"),
                repair.of
            ));
        }
    }
    lines.extend(added.iter().map(|(table, objects)| format!("will be added beside table {table}: at most {}", count(*objects, "object"))));
    lines.extend(plan.creates.iter().map(|what| format!("will be created when it is first needed: {what}")));
    lines.extend(plan.not_planned.iter().map(|step| format!("not planned: step {}: {}", step.step, step.why)));
    for budget in &plan.budgets {
        let whose = match (&budget.step, &budget.strategy) {
            (None, _) => "the run".to_owned(),
            (Some(step), None) => format!("step {step}"),
            (Some(step), Some(strategy)) => format!("strategy {strategy} of step {step}"),
        };
        lines.push(format!("the budget of {whose} {}: it {}", budget.verdict, budget.why));
    }
    lines
}
