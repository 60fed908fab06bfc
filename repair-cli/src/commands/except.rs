//! `repair except`: what a person knows about slots that have no row, and what people decide about slots.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use repair::jiff::Timestamp;
use repair::provenance::{AsidesReport, Decided, Verdict};

use super::TableArg;
use super::undo::changed;
use crate::exit::Exit;
use crate::output::{Failure, print_json, print_lines, table};

/// Record that slots have no row and need none, or set slots aside; or remove such records.
///
/// Without `--freeze`, `--give-up` and `--handled-elsewhere`, the slots of one series from `--from` to `--to` are recorded as absent. With one of
/// these, slots are set aside: detectors still find what is wrong with them and count it apart, and no repair writes to them.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("verdict").args(["freeze", "give_up", "handled_elsewhere"]))]
#[command(group = ArgGroup::new("other").args(["lift", "list", "remove"]).conflicts_with("verdict"))]
pub(crate) struct Except {
    #[command(flatten)]
    table: TableArg,
    /// Which series. Separate the values of a key of several columns by commas. Slots are set aside of all series without it.
    #[arg(long)]
    key: Option<String>,
    /// The first slot: an instant, or a date, which is a day of the table's zone. What is set aside has no beginning without it.
    #[arg(long, required_unless_present_any = ["verdict", "lift", "list"], conflicts_with_all = ["lift", "list"])]
    from: Option<String>,
    /// The instant before which it ends, or the last date.
    #[arg(long, required_unless_present_any = ["verdict", "lift", "list"], conflicts_with_all = ["lift", "list"])]
    to: Option<String>,
    /// How you know, or why.
    #[arg(long, required_unless_present = "list")]
    reason: Option<String>,
    /// When to ask sources about absent slots again: an instant [default: never]. With slots that are set aside, the same as `--to`.
    #[arg(long, conflicts_with = "other")]
    until: Option<String>,
    /// Freeze the slots: nobody may touch them.
    #[arg(long)]
    freeze: bool,
    /// Give the slots up: nobody will repair them.
    #[arg(long)]
    give_up: bool,
    /// Leave the slots to somebody else.
    #[arg(long)]
    handled_elsewhere: bool,
    /// Lift this decision, by its id.
    #[arg(long, visible_alias = "undo", value_name = "ID")]
    lift: Option<String>,
    /// List what is set aside.
    #[arg(long)]
    list: bool,
    /// Remove all exceptions of these slots, whether a person or a run recorded them.
    #[arg(long)]
    remove: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Except {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let verdict = match (self.freeze, self.give_up, self.handled_elsewhere) {
            (true, ..) => Some(Verdict::Frozen),
            (_, true, _) => Some(Verdict::GivenUp),
            (_, _, true) => Some(Verdict::HandledElsewhere),
            _ => None,
        };
        let reason = self.reason.unwrap_or_default();
        let (name, workflow, lake) = self.table.open(lake_before)?;
        let (key, workflow) = (self.key.as_deref(), workflow.as_deref());
        if self.list {
            return listed(&lake.asides(name).declared_in(workflow).await?, self.json);
        }
        if let Some(id) = self.lift {
            return decided(&lake.lift(name, id, reason).declared_in(workflow).await?, self.json);
        }
        if let Some(verdict) = verdict {
            let to = match (self.to, self.until) {
                (Some(to), None) | (None, Some(to)) => to,
                (Some(_), Some(_)) => return Err(repair::Error::invalid("`--to` and `--until` are both given; keep one of them").into()),
                (None, None) => return Err(repair::Error::invalid("nothing says where it ends; give `--to` or `--until`").into()),
            };
            let request = lake.set_aside(name, verdict, to, reason).from(self.from.as_deref()).key(key);
            return decided(&request.declared_in(workflow).await?, self.json);
        }
        let (from, to) = (self.from.unwrap_or_default(), self.to.unwrap_or_default());
        let within = (from.as_str(), to.as_str());
        if self.remove {
            let change = lake.unexcept(name, within, reason).key(key).declared_in(workflow).await?;
            return changed(&change, "removed", self.json, &format!("restore it with `repair redo {}`", change.id));
        }
        let until: Option<Timestamp> = match self.until {
            Some(text) => {
                Some(text.parse().map_err(|error| repair::Error::invalid(format!("`--until {text}` is not an instant")).because(error))?)
            }
            None => None,
        };
        let change = lake.except(name, within, reason).key(key).declared_in(workflow).until(until).await?;
        changed(&change, "recorded", self.json, "remove it with `repair except --remove`")
    }
}

fn decided(decided: &Decided, as_json: bool) -> Result<Exit, Failure> {
    if as_json {
        print_json(decided)?;
        return Ok(Exit::Success);
    }
    let (table, decision) = (&decided.table, &decided.decision);
    let series = decision.key.as_ref().map_or_else(|| "all series".to_owned(), |key| format!("series {key}"));
    let what = decision.verdict.words();
    print_lines(&match &decided.lifted_by {
        Some(by) => {
            vec![format!("table {table}, {series}, {}: no longer {what}", decision.when()), format!("{by} has lifted {}", decision.id)]
        }
        None => vec![
            format!("table {table}, {series}, {}: {what}", decision.when()),
            format!("{}; lift it with `repair except {table} --lift {} --reason …`", decision.id, decision.id),
        ],
    })?;
    Ok(Exit::Success)
}

fn listed(report: &AsidesReport, as_json: bool) -> Result<Exit, Failure> {
    if as_json {
        print_json(report)?;
        return Ok(Exit::Success);
    }
    if report.decisions.is_empty() {
        print_lines(&[format!("nothing of table {} is set aside", report.table)])?;
        return Ok(Exit::Success);
    }
    let rows: Vec<Vec<String>> = report
        .decisions
        .iter()
        .map(|one| {
            let key = one.key.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string);
            vec![one.id.clone(), one.verdict.words().to_owned(), key, one.when(), one.by.clone(), one.reason.clone()]
        })
        .collect();
    print_lines(&table(&["id", "decision", "key", "when", "by", "reason"], &rows).lines().map(str::to_owned).collect::<Vec<_>>())?;
    Ok(Exit::Success)
}
