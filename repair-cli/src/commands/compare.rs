//! `repair compare`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use repair::compare::{ColumnErrors, CompareReport, CostLimit, MOST_ROUNDS, PartLoss, Pattern, StrategyReport};

use crate::exit::Exit;
use crate::open::WorkflowArgs;
use crate::output::{Failure, count, print, print_json, table};

/// Hide some rows that are there, let each strategy repair them, and compare its repairs with the truth. Nothing is written to the lake; sources are
/// really asked.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    workflow: WorkflowArgs,
    /// The strategies: those of repair steps (a step's only one also by the step's name), and repairers that need nothing but what the
    /// workflow gives, such as carry-forward [default: all strategies of the workflow].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    strategies: Vec<String>,
    /// The detect step that defines which rows are expected [default: the only one].
    #[arg(long, value_name = "STEP")]
    of: Option<String>,
    /// How much of what is there is hidden, up to 50%.
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    mask: String,
    /// How the hidden slots are distributed.
    #[arg(long, value_enum, default_value_t = PatternArg::LikeGaps)]
    pattern: PatternArg,
    /// The seed from which hidden slots are drawn. The same seed hides the same slots.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// In how many rounds slots are hidden, up to 10; no slot in two of them [default: 1; of `like-gaps` as many as it takes to hide ten runs, if no strategy
    /// asks a source or runs a program].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_ROUNDS)))]
    rounds: Option<u32>,
    /// The columns that decide which strategy is best [default: all that hold numbers].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
    /// The best strategy may cost at most this many dollars for what is hidden.
    #[arg(long, value_name = "USD")]
    max_usd: Option<String>,
    /// The best strategy may make at most this many calls for what is hidden.
    #[arg(long, value_name = "N")]
    max_calls: Option<u64>,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// List the hidden slots in the JSON object.
    #[arg(long, requires = "json")]
    hidden: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PatternArg {
    /// In runs like the real gaps: of the same keys, as long, and at the same times of day. If there are none, as `runs`.
    LikeGaps,
    /// Each slot by itself.
    Random,
    /// In runs of 5 to 60 neighbouring slots of one key.
    Runs,
    /// Whole UTC days of one key each.
    WholeDay,
    /// One stretch of one key.
    OneKey,
}

impl From<PatternArg> for Pattern {
    fn from(pattern: PatternArg) -> Self {
        match pattern {
            PatternArg::LikeGaps => Self::LikeGaps,
            PatternArg::Random => Self::Random,
            PatternArg::Runs => Self::Runs,
            PatternArg::WholeDay => Self::WholeDay,
            PatternArg::OneKey => Self::OneKey,
        }
    }
}

impl Compare {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let share = self.mask.parse()?;
        let limit = CostLimit::parse(self.max_usd.as_deref(), self.max_calls)?;
        let repair = self.workflow.open(lake_before).await?;
        let request = repair.compare().strategies(self.strategies).of(self.of.as_deref()).share(share).pattern(self.pattern.into());
        let mut done = request.seed(self.seed).rounds(self.rounds).columns(self.columns).limit(limit.clone()).await?;
        if self.json {
            if !self.hidden {
                done.hidden_slots.clear();
            }
            print_json(&done)?;
        } else {
            print(&report(&done, &limit))?;
        }
        Ok(Exit::Success)
    }
}

/// A comparison, for people.
fn report(done: &CompareReport, limit: &CostLimit) -> String {
    let mut text = format!(
        "{} of {} of table {} hidden, in {}{} (--pattern {}, --seed {})\n",
        count(done.hidden, "row"),
        done.there,
        done.table,
        count(done.gaps, "run"),
        if done.rounds > 1 { format!(" and {} rounds", done.rounds) } else { String::new() },
        pattern(done.pattern),
        done.seed,
    );
    if let Some(unlike) = &done.unlike {
        let gaps = count(unlike.gaps, "real gap");
        text.push_str(&format!(
            "{gaps} of up to {} are like no stretch that is there, so none like them is hidden\n",
            count(unlike.longest, "slot")
        ));
    }
    text.push('\n');
    text.push_str(&table(
        &["strategy", "repaired", "wrongly absent", "left", "failed units", "calls", "USD", "loss", "95 % interval", "ms"],
        &done.strategies.iter().map(coverage).collect::<Vec<_>>(),
    ));
    let mut rows = Vec::new();
    for strategy in &done.strategies {
        for (column, errors) in in_order(&strategy.columns, &done.decisive) {
            let mut row = vec![strategy.name.clone(), column.clone()];
            row.extend([
                shown(errors.mean_absolute, number),
                shown(errors.mean_relative, percent),
                shown(errors.bias, number),
                shown(errors.worst_absolute, number),
                shown(errors.loss, |loss| format!("{loss:.4}")),
            ]);
            rows.push(row);
        }
    }
    text.push_str("\n\n");
    text.push_str(&table(&["strategy", "column", "mean error", "relative", "bias", "worst", "loss"], &rows));
    text.push_str(&by_part(done, "loss by length", |strategy| &strategy.by_length));
    text.push_str(&by_part(done, "loss by key", |strategy| &strategy.by_key));
    let mut rows = Vec::new();
    for strategy in &done.strategies {
        for (table, errors) in &strategy.aggregates {
            for (column, of_column) in in_order(&errors.columns, &done.decisive)
                .filter(|(_, errors)| errors.mean_absolute.is_some_and(|mean| mean > 0.0) || errors.unmatched > 0)
            {
                rows.push(vec![
                    strategy.name.clone(),
                    table.clone(),
                    format!("{} of {}", errors.differ, errors.rows),
                    column.clone(),
                    shown(of_column.mean_absolute, number),
                    shown(of_column.mean_relative, percent),
                    shown(of_column.worst_absolute, number),
                    of_column.unmatched.to_string(),
                ]);
            }
            if errors.differ == 0 && errors.unmatched == 0 {
                let mut row = vec![strategy.name.clone(), table.clone(), format!("0 of {}", errors.rows)];
                row.extend(std::iter::repeat_n("-".to_owned(), 5));
                rows.push(row);
            }
        }
    }
    if !rows.is_empty() {
        text.push_str("\n\n");
        let header = ["strategy", "computed", "rows that differ", "column", "mean error", "relative", "worst", "null on one side"];
        text.push_str(&table(&header, &rows));
    }
    text.push('\n');
    for strategy in &done.strategies {
        if let Some(why) = &strategy.unpriced {
            text.push_str(&format!("\nthe cost of {} is not known: {why}", strategy.name));
        }
        for problem in &strategy.problems {
            text.push_str(&format!("\nproblem of {}: {problem}", strategy.name));
        }
    }
    for why in &done.not_compared {
        text.push_str(&format!("\nnot compared: {why}"));
    }
    text.push_str(&verdict(done, limit));
    text
}

/// Of how many keys the losses are printed; those of others are in the JSON.
const MOST_PARTS: usize = 12;

/// The losses by length or by key, a line for each, with a column for each strategy; nothing if there is only one part.
fn by_part(done: &CompareReport, title: &str, parts: fn(&StrategyReport) -> &[PartLoss]) -> String {
    let Some(all) = done.strategies.first().map(parts).filter(|all| all.len() > 1) else { return String::new() };
    // Those of which most is hidden, in their order.
    let mut most: Vec<&PartLoss> = all.iter().collect();
    most.sort_by_key(|part| std::cmp::Reverse(part.hidden));
    most.truncate(MOST_PARTS);
    let mut header = vec![title, "runs", "hidden"];
    header.extend(done.strategies.iter().map(|strategy| strategy.name.as_str()));
    let rows: Vec<Vec<String>> = all
        .iter()
        .filter(|part| most.iter().any(|of_most| of_most.part == part.part))
        .map(|part| {
            let mut row = vec![part.part.clone(), part.runs.to_string(), part.hidden.to_string()];
            for strategy in &done.strategies {
                let of_strategy = parts(strategy).iter().find(|other| other.part == part.part);
                row.push(of_strategy.map_or_else(String::new, |part| match part.interval {
                    Some([low, high]) => format!("{:.4} ({low:.4}–{high:.4})", part.loss),
                    None => format!("{:.4}", part.loss),
                }));
            }
            row
        })
        .collect();
    format!("\n\n{}", table(&header, &rows))
}

/// The errors by column: first the columns that decide, in the order given, then the others by name.
fn in_order<'a>(
    columns: &'a BTreeMap<String, ColumnErrors>,
    decisive: &'a [String],
) -> impl Iterator<Item = (&'a String, &'a ColumnErrors)> {
    let first = decisive.iter().filter_map(|name| columns.get_key_value(name));
    first.chain(columns.iter().filter(|(name, _)| !decisive.contains(name)))
}

fn pattern(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::LikeGaps => "like-gaps",
        Pattern::Random => "random",
        Pattern::Runs => "runs",
        Pattern::WholeDay => "whole-day",
        Pattern::OneKey => "one-key",
    }
}

fn coverage(strategy: &StrategyReport) -> Vec<String> {
    vec![
        strategy.name.clone(),
        strategy.repaired.to_string(),
        strategy.absent.to_string(),
        strategy.left.to_string(),
        (strategy.failed + strategy.not_begun).to_string(),
        strategy.calls.to_string(),
        strategy.usd.map_or_else(|| "?".to_owned(), |usd| usd.to_string()),
        format!("{:.4}", strategy.loss),
        strategy.interval.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.4}–{high:.4}")),
        strategy.ms.to_string(),
    ]
}

/// Which strategy is best, and by which rule.
fn verdict(done: &CompareReport, limit: &CostLimit) -> String {
    let mut within = Vec::new();
    within.extend(limit.usd.map(|usd| format!("{usd} USD")));
    within.extend(limit.calls.map(|calls| count(calls, "call")));
    let within = if within.is_empty() { String::new() } else { format!(" within {}", within.join(" and ")) };
    match &done.best {
        Some(best) => {
            let mut text = format!("\nbest{within}: {best}, with the least mean loss of {}", done.decisive.join(", "));
            if let Some(recommended) = &done.recommended {
                text.push_str(&format!(
                    "\n\nas a step of the workflow, with the step's own `next`, `retry` and `budget`:\n\n{}",
                    recommended.trim_end()
                ));
            }
            text
        }
        None => format!("\nbest{within}: none; no strategy repaired anything within the limits"),
    }
}

/// A mean of what was compared; a dash if nothing was.
fn shown(value: Option<f64>, show: fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn number(value: f64) -> String {
    if value == 0.0 || value.abs() >= 0.001 { format!("{value:.4}") } else { format!("{value:.1e}") }
}

fn percent(part: f64) -> String {
    format!("{:.4} %", part * 100.0)
}
