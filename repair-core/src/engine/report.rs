//! What people and programs are told of a run.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::engine::pure::event::{LateTruth, Outcome, Settled};
use crate::engine::pure::state::{BranchState, Phase, RunState, StepState};
use crate::error::ErrorKind;
use crate::lake::stale;
use crate::model::Interval;
use crate::model::Usage;

/// The format of results in JSON: a field `format` that is always 1. A consumer checks it, and ignores fields that it does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonFormat;

impl JsonFormat {
    /// The number.
    pub const NUMBER: u32 = 1;
}

impl Serialize for JsonFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(Self::NUMBER)
    }
}

/// What a run did. In JSON, `outcome` is null while the run has not ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The run's id.
    pub run: String,
    /// Slots that are still missing, or otherwise wrong, as far as the run knows.
    pub missing: u64,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// Why it ended so, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its steps, in the order in which the run first came to them.
    #[serde(serialize_with = "by_name")]
    pub steps: Vec<StepReport>,
    /// How right repairs were, by the detect step that found rows which came late, then by repair idea.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub late_truth: BTreeMap<String, BTreeMap<String, LateTruth>>,
    /// What it took.
    pub usage: Usage,
    /// What a person should know, worst first.
    pub problems: Vec<String>,
    /// The kind of error it ended with.
    #[serde(skip)]
    pub error: Option<ErrorKind>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// How often the run came there.
    pub visits: u32,
    /// How many attempts ended.
    pub attempts: u32,
    /// What it put out last.
    pub output: Value,
    /// Why it was not begun, if it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What it takes for its work, of its units and in all.
    #[serde(skip)]
    pub usage: Usage,
}

fn by_name<S: Serializer>(steps: &[StepReport], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(steps.len()))?;
    for step in steps {
        map.serialize_entry(&step.name, step)?;
    }
    map.end()
}

/// At most so many errors of units are told one by one.
const UNIT_ERRORS: usize = 5;

impl RunReport {
    /// The report of a run.
    pub fn new(run: &str, state: &RunState) -> Self {
        let mut steps: Vec<(&String, &StepState)> = state.steps.iter().collect();
        steps.sort_by_key(|(_, step)| step.order);
        let steps = steps.into_iter().map(|(name, step)| StepReport {
            name: name.clone(),
            visits: step.visits,
            attempts: step.attempts,
            output: step.output.clone(),
            skipped: if let Some(Settled::Skipped { why }) = &step.settled { Some(why.clone()) } else { None },
            usage: step.usage,
        });
        Self {
            format: JsonFormat,
            run: run.to_owned(),
            missing: state.missing().map(|(_, _, missing)| missing).sum(),
            outcome: state.ended.as_ref().map(|ended| ended.outcome),
            reason: state.ended.as_ref().map_or_else(|| waits_for(state), |ended| ended.reason.clone()),
            steps: steps.collect(),
            late_truth: state.late_truth.iter().map(|(step, (_, ideas))| (step.clone(), ideas.clone())).collect(),
            usage: state.usage(),
            problems: problems(state),
            error: state.ended.as_ref().and_then(|ended| ended.error),
        }
    }

    /// What a step did; none if the run never came to it.
    pub fn step(&self, name: &str) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.name == name)
    }
}

/// What a run that has not ended waits for.
fn waits_for(state: &RunState) -> Option<String> {
    if state.paused {
        return Some("it is paused".to_owned());
    }
    let waits = state.active.iter().map(|(step, position)| match &position.phase {
        Phase::Waiting { due } => format!("`{step}` waits until {due:.0}"),
        Phase::Backoff { due } => format!("`{step}` is tried again at {due:.0}"),
        Phase::Work | Phase::Failed(_) | Phase::Done => format!("`{step}` is under way"),
    });
    let waits: Vec<String> = waits.collect();
    (!waits.is_empty()).then(|| waits.join(", "))
}

fn problems(state: &RunState) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(ended) = &state.ended
        && !matches!(ended.outcome, Outcome::Succeeded | Outcome::SucceededWithExceptions)
        && let Some(reason) = &ended.reason
    {
        let kind = ended.error.filter(|kind| !matches!(kind, ErrorKind::Failed | ErrorKind::Cancelled));
        let kind = kind.map(|kind| format!("{kind}: ")).unwrap_or_default();
        problems.push(format!("{}: {kind}{reason}", ended.step));
    }
    if let Some((step, error)) = &state.caught {
        problems.push(format!("{step}: caught {}: {}", error.kind, error.message));
    }
    for (name, step) in &state.steps {
        if let Some(Settled::Failed { error }) = &step.settled {
            problems.push(format!("{name}: {}: {}", error.kind, error.message));
        }
        for (branch, ended) in &step.branches {
            if let BranchState::Failed { at, error } = ended {
                problems.push(format!("{name}: branch `{branch}` failed at `{at}`: {}: {}", error.kind, error.message));
            }
        }
        problems.extend(step.exceptions.iter().map(|within| format!("{name}: {within}")));
        problems.extend(strategy_problems(name, step));
        problems.extend(unit_problems(name, step));
        problems.extend(stale_problem(name, &step.output));
    }
    for (detect, findings, missing) in state.missing() {
        let slots = if missing == 1 { "slot" } else { "slots" };
        let wrong = findings.kind.as_str();
        let told = if findings.told.is_empty() { String::new() } else { format!(": {}", findings.told.join("; ")) };
        let more = if told.is_empty() || missing <= findings.told.len() as u64 { "" } else { "; and more" };
        problems.push(format!("{detect}: {missing} {slots} still {wrong} in table `{}`{told}{more}", findings.scope.table));
    }
    for (detect, findings) in &state.findings {
        let counts = findings.counts;
        let mut tell = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{detect}: {count} {what} in table `{}`", findings.scope.table));
            }
        };
        tell(counts.conflicts, "slots with a row of which a source says that there is none");
        tell(counts.duplicates, "duplicate rows");
        tell(counts.misaligned, "rows whose time is not on the grid");
        tell(counts.changed, "replaced slots whose raw rows have changed since they were repaired");
        tell(counts.unexpected, "slots with rows that the calendar does not expect");
    }
    for (detect, (table, ideas)) in &state.late_truth {
        problems.extend(ideas.iter().map(|(idea, truth)| format!("{detect}: {}", late(table, idea, truth))));
    }
    problems
}

fn strategy_problems(name: &str, step: &StepState) -> Vec<String> {
    let failed = step.earlier.iter().filter_map(|earlier| Some((earlier, earlier.error.as_ref()?)));
    let told = failed.map(|(earlier, error)| {
        let units =
            if earlier.failed() > 0 { format!("{} of {} units failed: ", earlier.failed(), earlier.units()) } else { String::new() };
        format!("{name}: strategy `{}`: {units}{}: {}; the next one went on", earlier.strategy, error.kind, error.message)
    });
    told.collect()
}

/// How right a repair idea was.
fn late(table: &str, idea: &str, truth: &LateTruth) -> String {
    let mut columns: Vec<(&String, f64)> = truth.columns.iter().map(|(name, errors)| (name, errors.mean_relative)).collect();
    columns.sort_by(|a, b| b.1.total_cmp(&a.1));
    let percent = |part: f64| format!("{:.2} %", part * 100.0);
    let told = columns.first().map(|(name, _)| {
        let worst = truth.columns.get(*name).map_or(0.0, |errors| errors.worst_relative);
        format!("; column `{name}` was off the most, by {} in the mean and {} at worst", percent(columns[0].1), percent(worst))
    });
    let (slots, told) = (count(truth.slots, "slot"), told.unwrap_or_default());
    format!("late rows of table `{table}` count now in {slots} that `{idea}` had repaired ({} new){told}", truth.new)
}

/// What an aggregate step left stale, beyond what it computed.
fn stale_problem(name: &str, output: &Value) -> Option<String> {
    let into = stale::written(output)?;
    let stretches = output.get(stale::BEYOND)?.as_array()?.iter().filter_map(|stretch| Interval::deserialize(stretch).ok());
    let whole = stretches.reduce(|one, other| one.hull(&other))?;
    let (from, to) = (whole.from(), whole.to());
    Some(format!("{name}: table `{}` is stale within {from} to {to}: run the workflow over that stretch to compute it again", into.name))
}

/// Stretches of suspect silence that are told one by one.
const STRETCHES: usize = 5;

/// What is suspect to the last strategy that found something to be, as far as no other has repaired it since.
fn suspect(name: &str, step: &StepState, table: &str) -> Option<String> {
    let suspects = step.suspects().rfind(|suspects| !suspects.is_empty())?;
    let left = step.output.get("suspect").and_then(Value::as_u64).unwrap_or(suspects.slots);
    let told: Vec<String> = suspects.stretches.iter().take(STRETCHES).map(ToString::to_string).collect();
    let more = if suspects.stretches.len() > STRETCHES { "; and more" } else { "" };
    let (slots, told) = (count(left, "slot"), told.join("; "));
    let mend = "a collector may have failed, so they stay missing: ask another source, or record an exception if you know better";
    (left > 0).then(|| format!("{name}: {slots} of table `{table}` suspect: {told}{more}; {mend}"))
}

/// A number and what it counts.
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn unit_problems(name: &str, step: &StepState) -> Vec<String> {
    let Some(units) = &step.units else { return Vec::new() };
    let conflicts = &units.conflicts;
    let differs = (!conflicts.is_empty()).then(|| {
        let slots = if conflicts.slots == 1 { "slot" } else { "slots" };
        let more = if conflicts.slots > conflicts.told.len() as u64 { "; and more" } else { "" };
        let told = conflicts.told.join("; ");
        format!("{name}: {} {slots} beside gaps in which the source differs from table `{}`: {told}{more}", conflicts.slots, units.table)
    });
    let told = units.errors.iter().take(UNIT_ERRORS);
    let mut problems: Vec<String> =
        told.map(|(unit, error)| format!("{name}: unit {unit} of {}: {}: {}", units.len(), error.kind, error.message)).collect();
    let more = units.failed().saturating_sub(problems.len() as u64);
    if more > 0 {
        problems.push(format!("{name}: and {more} more units failed"));
    }
    problems.extend(differs);
    problems.extend(suspect(name, step, &units.table));
    problems
}
