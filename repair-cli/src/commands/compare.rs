//! `repair compare`: which repair idea is how right, and at what cost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use repair::compare;
use repair::compare::score::ColumnErrors;
use repair::compare::{Comparison, IdeaReport, Limit, Options, Pattern, Setting, Share};
use repair_core::plugin::SystemClock;
use repair_core::workflow::Workflow;

use super::run::{by_name, parameter};
use crate::output::{Failure, count, print, print_json, table};
use crate::session::{LakeArg, Place, registry, told_to_stop};

/// Hide some rows that are there, let each idea repair them, and hold its repairs against the truth. Nothing is written to the lake; sources
/// are really asked.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The workflow.
    file: PathBuf,
    /// The ideas: strategies of repair steps (a step's only one also by the step's name), and repairers that need nothing but what the
    /// workflow gives, such as carry-forward [default: all strategies].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    strategies: Vec<String>,
    /// The detect step that says which rows are expected [default: the only one].
    #[arg(long, value_name = "STEP")]
    of: Option<String>,
    /// How much of what is there is hidden, up to 50%.
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    mask: String,
    /// How hidden slots lie.
    #[arg(long, value_enum, default_value_t = PatternArg::Runs)]
    pattern: PatternArg,
    /// What hidden slots are drawn from: the same seed hides the same.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The columns that decide which idea is best [default: all that hold numbers].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
    /// The best idea may cost no more than so many dollars, for what is hidden.
    #[arg(long, value_name = "USD")]
    max_usd: Option<String>,
    /// The best idea may make no more than so many calls, for what is hidden.
    #[arg(long, value_name = "N")]
    max_calls: Option<u64>,
    /// Where to run, by its name under `profiles` [default: local, or the only one].
    #[arg(long)]
    profile: Option<String>,
    /// A parameter; once for each. A list is separated by commas.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// A price book, in place of the one that the workflow names.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// Tell in the JSON object which slots were hidden.
    #[arg(long, requires = "json")]
    hidden: bool,
    #[command(flatten)]
    lake: LakeArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PatternArg {
    /// Each by itself.
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
            PatternArg::Random => Self::Random,
            PatternArg::Runs => Self::Runs,
            PatternArg::WholeDay => Self::WholeDay,
            PatternArg::OneKey => Self::OneKey,
        }
    }
}

impl Compare {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let lake = self.lake.or(lake_before);
        let share: Share = self.mask.parse()?;
        let registry = registry();
        let workflow = Workflow::load_with_prices(&self.file, &registry, self.prices.as_deref())?;
        let params = workflow.bind(&by_name(self.params)?)?;
        let place = Place::of(&workflow, self.profile.as_deref(), lake.as_deref(), &params)?;
        let options = Options {
            strategies: self.strategies,
            of: self.of,
            pattern: self.pattern.into(),
            seed: self.seed,
            columns: self.columns,
            limit: Limit::parse(self.max_usd.as_deref(), self.max_calls)?,
        };
        let setting = Setting {
            workflow: &workflow,
            params: &params,
            registry: &registry,
            lake: place.root().open(None).await?,
            clock: Arc::new(SystemClock),
            cancel: Default::default(),
        };
        let cancel = setting.cancel.clone();
        tokio::spawn(async move {
            told_to_stop().await;
            cancel.cancel();
        });
        let mut done = Box::pin(compare::compare(setting, share, &options)).await?;
        if self.json {
            if !self.hidden {
                done.hidden_slots.clear();
            }
            print_json(&done)?;
        } else {
            print(&report(&done, &options.limit))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A comparison, for people.
fn report(done: &Comparison, limit: &Limit) -> String {
    let mut text = format!(
        "{} of {} of table {} hidden, in {} (--pattern {}, --seed {})\n\n",
        count(done.hidden, "row"),
        done.there,
        done.table,
        count(done.gaps, "run"),
        pattern(done.pattern),
        done.seed,
    );
    text.push_str(&table(
        &["idea", "repaired", "wrongly absent", "left", "failed units", "calls", "usd", "loss", "ms"],
        &done.ideas.iter().map(coverage).collect::<Vec<_>>(),
    ));
    let mut rows = Vec::new();
    for idea in &done.ideas {
        for (column, errors) in in_order(&idea.columns, &done.decisive) {
            let mut row = vec![idea.name.clone(), column.clone()];
            match errors.count {
                0 => row.extend(std::iter::repeat_n("-".to_owned(), 4)),
                _ => row.extend([
                    number(errors.mean_absolute),
                    percent(errors.mean_relative),
                    number(errors.bias),
                    number(errors.worst_absolute),
                ]),
            }
            row.push(format!("{:.4}", errors.loss));
            rows.push(row);
        }
    }
    text.push_str("\n\n");
    text.push_str(&table(&["idea", "column", "mean error", "relative", "bias", "worst", "loss"], &rows));
    let mut rows = Vec::new();
    for idea in &done.ideas {
        for (table, errors) in &idea.aggregates {
            for (column, of_column) in
                in_order(&errors.columns, &done.decisive).filter(|(_, errors)| errors.mean_absolute > 0.0 || errors.unmatched > 0)
            {
                rows.push(vec![
                    idea.name.clone(),
                    table.clone(),
                    format!("{} of {}", errors.differ, errors.rows),
                    column.clone(),
                    number(of_column.mean_absolute),
                    percent(of_column.mean_relative),
                    number(of_column.worst_absolute),
                    of_column.unmatched.to_string(),
                ]);
            }
            if errors.differ == 0 && errors.unmatched == 0 {
                let mut row = vec![idea.name.clone(), table.clone(), format!("0 of {}", errors.rows)];
                row.extend(std::iter::repeat_n("-".to_owned(), 5));
                rows.push(row);
            }
        }
    }
    if !rows.is_empty() {
        text.push_str("\n\n");
        let header = ["idea", "computed", "rows that differ", "column", "mean error", "relative", "worst", "null on one side"];
        text.push_str(&table(&header, &rows));
    }
    text.push('\n');
    for idea in &done.ideas {
        if let Some(why) = &idea.unpriced {
            text.push_str(&format!("\ncost of {} is not known: {why}", idea.name));
        }
        for problem in &idea.problems {
            text.push_str(&format!("\nproblem of {}: {problem}", idea.name));
        }
    }
    for why in &done.not_compared {
        text.push_str(&format!("\nnot compared: {why}"));
    }
    text.push_str(&verdict(done, limit));
    text
}

/// Columns that decide first, in the order in which they were named or the table has them.
fn in_order<'a>(
    columns: &'a BTreeMap<String, ColumnErrors>,
    decisive: &'a [String],
) -> impl Iterator<Item = (&'a String, &'a ColumnErrors)> {
    let first = decisive.iter().filter_map(|name| columns.get_key_value(name));
    first.chain(columns.iter().filter(|(name, _)| !decisive.contains(name)))
}

fn pattern(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::Random => "random",
        Pattern::Runs => "runs",
        Pattern::WholeDay => "whole-day",
        Pattern::OneKey => "one-key",
    }
}

fn coverage(idea: &IdeaReport) -> Vec<String> {
    vec![
        idea.name.clone(),
        idea.repaired.to_string(),
        idea.absent.to_string(),
        idea.left.to_string(),
        (idea.failed + idea.not_begun).to_string(),
        idea.calls.to_string(),
        idea.usd.map_or_else(|| "?".to_owned(), |usd| usd.to_string()),
        format!("{:.4}", idea.loss),
        idea.ms.to_string(),
    ]
}

/// Which idea is best, and by which rule.
fn verdict(done: &Comparison, limit: &Limit) -> String {
    let mut within = Vec::new();
    within.extend(limit.usd.map(|usd| format!("{usd} USD")));
    within.extend(limit.calls.map(|calls| count(calls, "call")));
    let within = if within.is_empty() { String::new() } else { format!(" within {}", within.join(" and ")) };
    match &done.best {
        Some(best) => format!("\nbest{within}: {best}, by the least mean loss of {}", done.decisive.join(", ")),
        None => format!("\nbest{within}: none; no idea repaired anything for that"),
    }
}

fn number(value: f64) -> String {
    if value == 0.0 || value.abs() >= 0.001 { format!("{value:.4}") } else { format!("{value:.1e}") }
}

fn percent(part: f64) -> String {
    format!("{:.4} %", part * 100.0)
}
