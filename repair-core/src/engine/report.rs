//! The report of a run, for people and programs.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::engine::pure::event::{LateTruth, Outcome, Settled};
use crate::engine::pure::items::ItemResult;
use crate::engine::pure::state::{BranchState, Phase, RunState, StepState};
use crate::error::ErrorKind;
use crate::lake::{overlay, stale};
use crate::model::{DefectKind, Interval, Key, OtherKeys, Scope, Usage, unread};
use crate::plugin::LEFT_OUT;
use crate::text::count;

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
#[non_exhaustive]
pub struct RunReport {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The run's id.
    pub run: String,
    /// Slots that are still missing, or otherwise wrong, as far as the run knows.
    pub missing: u64,
    /// How the run ended, if it has.
    pub outcome: Option<Outcome>,
    /// Why it ended that way; or, if it has not ended, what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its steps, in the order in which the run first entered them.
    #[serde(serialize_with = "by_name")]
    pub steps: Vec<StepReport>,
    /// How accurate repairs were, by the detect step that found late rows, then by strategy.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub late_truth: BTreeMap<String, BTreeMap<String, LateTruth>>,
    /// What the run used.
    pub usage: Usage,
    /// Problems that a person should know about, worst first.
    pub problems: Vec<String>,
    /// The kind of error that ended the run, if one did.
    #[serde(skip)]
    pub error: Option<ErrorKind>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// How often the run entered it.
    pub visits: u32,
    /// How many attempts ended.
    pub attempts: u32,
    /// Its latest output.
    pub output: Value,
    /// Why its latest attempt failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// Why it was skipped, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The first few keys that the table holds and the step does not expect.
    #[serde(skip_serializing_if = "OtherKeys::is_empty")]
    pub other_keys: OtherKeys,
    /// What it used, including its units.
    #[serde(skip)]
    pub usage: Usage,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StepError {
    /// The kind of error.
    pub kind: ErrorKind,
    /// What happened, and what to do.
    pub message: String,
}

impl StepError {
    /// The error of a step's latest attempt. A step that ends the run with an error, such as a `fail` step, has this one.
    fn of(name: &str, step: &StepState, state: &RunState) -> Option<Self> {
        if let Some(error) = &step.error {
            return Some(Self { kind: error.kind, message: error.message.clone() });
        }
        let ended = state.ended.as_ref().filter(|ended| ended.step == name)?;
        // The limit of a run is no error of the step that it is at.
        let kind = ended.error.filter(|kind| !matches!(kind, ErrorKind::Timeout | ErrorKind::Cancelled))?;
        Some(Self { kind, message: ended.reason.clone().unwrap_or_default() })
    }
}

fn by_name<S: Serializer>(steps: &[StepReport], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(steps.len()))?;
    for step in steps {
        map.serialize_entry(&step.name, step)?;
    }
    map.end()
}

/// How many errors of units, and of items, are listed one by one.
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
            error: StepError::of(name, step, state),
            skipped: if let Some(Settled::Skipped { why }) = &step.settled { Some(why.clone()) } else { None },
            other_keys: state.findings.get(name).map(|found| found.other_keys.clone()).unwrap_or_default(),
            usage: step.usage,
        });
        Self {
            format: JsonFormat,
            run: run.to_owned(),
            missing: state.missing_in_all(),
            outcome: state.ended.as_ref().map(|ended| ended.outcome),
            reason: state.ended.as_ref().map_or_else(|| waits_for(state), |ended| ended.reason.clone()),
            steps: steps.collect(),
            late_truth: state.late_truth.iter().map(|(step, (_, strategies))| (step.clone(), strategies.clone())).collect(),
            usage: state.usage(),
            problems: problems(state),
            error: state.ended.as_ref().and_then(|ended| ended.error),
        }
    }

    /// What a step did; none if the run never entered it.
    pub fn step(&self, name: &str) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.name == name)
    }
}

/// What a run that has not ended waits for.
fn waits_for(state: &RunState) -> Option<String> {
    if state.paused {
        return Some("the run is paused".to_owned());
    }
    let waits = state.active.iter().map(|(step, position)| match &position.phase {
        Phase::Waiting { due } => format!("`{step}` waits until {due:.0}"),
        Phase::Backoff { due } => format!("`{step}` will be retried at {due:.0}"),
        Phase::Work | Phase::Failed(_) | Phase::Done => format!("`{step}` is running"),
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
    if let (Some(began), Some(later)) = (&state.started.expressions, &state.other_expressions) {
        problems.push(format!(
            "expressions were evaluated by {began} when the run began, and by {later} since it was resumed; results may differ"
        ));
    }
    for (name, step) in &state.steps {
        // The one with which the run ended is the first already.
        let is_the_end = |message: &String| {
            state.ended.as_ref().is_some_and(|ended| ended.error.is_some() && ended.step == *name && ended.reason.as_ref() == Some(message))
        };
        if let Some(Settled::Failed { error }) = &step.settled
            && !is_the_end(&error.message)
        {
            problems.push(format!("{name}: {}: {}", error.kind, error.message));
        }
        for (branch, ended) in &step.branches {
            if let BranchState::Failed { at, error } = ended {
                problems.push(format!("{name}: branch `{branch}` failed at `{at}`: {}: {}", error.kind, error.message));
            }
        }
        problems.extend(step.exceptions.iter().map(|within| format!("{name}: {within}")));
        problems.extend(strategy_problems(name, step));
        problems.extend(unit_problems(state, name, step));
        problems.extend(item_problems(name, step));
        problems.extend(stale_problem(name, &step.output));
        problems.extend(left_out_problems(name, &step.output));
    }
    for (detect, findings, missing) in state.missing() {
        let slots = match (findings.scope.grid.is_instants(), missing) {
            (true, 1) => "row",
            (true, _) => "rows",
            (false, 1) => "slot",
            (false, _) => "slots",
        };
        let wrong = findings.kind.as_str();
        let examples = if findings.examples.is_empty() { String::new() } else { format!(": {}", findings.examples.join("; ")) };
        let more = if examples.is_empty() || missing <= findings.examples.len() as u64 { "" } else { "; and more" };
        problems.push(format!("{detect}: {missing} {slots} still {wrong} in table `{}`{examples}{more}", findings.scope.table));
    }
    for (detect, findings) in &state.findings {
        let counts = findings.counts;
        let mut add = |count: u64, one: &str, many: &str| {
            if count > 0 {
                let what = if count == 1 { one } else { many };
                problems.push(format!("{detect}: {count} {what} in table `{}`", findings.scope.table));
            }
        };
        add(counts.conflicts, "slot with a row that a source says does not exist", "slots with rows that a source says do not exist");
        if !has_looked_for_duplicates(state, &findings.scope) {
            add(counts.duplicates, "duplicate row", "duplicate rows");
        }
        add(counts.misaligned, "row with a time off the grid", "rows with a time off the grid");
        add(counts.misplaced, "row in the folder of another time", "rows in the folder of another time");
        add(counts.stray, "row too far from its folder, which is not used", "rows too far from their folder, which are not used");
        add(counts.changed, "repaired slot whose raw rows have changed since", "repaired slots whose raw rows have changed since");
        add(counts.unexpected, "slot with rows that the calendar does not expect", "slots with rows that the calendar does not expect");
    }
    for (detect, findings) in &state.findings {
        problems.extend(findings.notices.iter().map(|notice| format!("{detect}: {notice}")));
    }
    for (detect, findings) in state.findings.iter().filter(|(_, findings)| findings.counts.quarantined > 0) {
        let count = findings.counts.quarantined;
        let listed: Vec<String> = findings.bad_rows.iter().map(ToString::to_string).collect();
        let more = if count > listed.len() as u64 { "; and more" } else { "" };
        problems.push(format!("{detect}: {}: {}{more}", unread(count, &format!("table `{}`", findings.scope.table)), listed.join("; ")));
    }
    for (detect, (table, strategies)) in &state.late_truth {
        problems.extend(strategies.iter().map(|(strategy, truth)| format!("{detect}: {}", late(table, strategy, truth))));
    }
    let mut said = BTreeSet::new();
    problems.retain(|problem| said.insert(problem.clone()));
    problems
}

/// Whether a step has looked for duplicates wherever this scope is. It knows which of them are repaired, and lists the others slot by slot.
fn has_looked_for_duplicates(state: &RunState, scope: &Scope) -> bool {
    let covers = |other: &Scope| {
        let keys: BTreeSet<&Key> = other.keys.iter().collect();
        other.table == scope.table
            && other.interval.from() <= scope.interval.from()
            && scope.interval.to() <= other.interval.to()
            && other.calendar == scope.calendar
            && scope.keys.iter().all(|key| keys.contains(key))
    };
    state.findings.values().any(|findings| findings.kind == DefectKind::Duplicate && covers(&findings.scope))
}

fn strategy_problems(name: &str, step: &StepState) -> Vec<String> {
    let failed = step.earlier.iter().filter_map(|earlier| Some((earlier, earlier.error.as_ref()?)));
    let problems = failed.map(|(earlier, error)| {
        let units =
            if earlier.failed() > 0 { format!("{} of {} units failed: ", earlier.failed(), earlier.units()) } else { String::new() };
        format!("{name}: strategy `{}`: {units}{}: {}; the next strategy continued", earlier.strategy, error.kind, error.message)
    });
    problems.collect()
}

/// How accurate a strategy was, according to late rows.
fn late(table: &str, strategy: &str, truth: &LateTruth) -> String {
    let mut columns: Vec<(&String, f64)> = truth.columns.iter().map(|(name, errors)| (name, errors.mean_relative)).collect();
    columns.sort_by(|a, b| b.1.total_cmp(&a.1));
    let percent = |part: f64| format!("{:.2} %", part * 100.0);
    let worst = columns.first().map(|(name, _)| {
        let worst = truth.columns.get(*name).map_or(0.0, |errors| errors.worst_relative);
        format!("; the largest error is in column `{name}`: {} on average, {} at worst", percent(columns[0].1), percent(worst))
    });
    let (slots, worst) = (count(truth.slots, "slot"), worst.unwrap_or_default());
    format!("late rows of table `{table}` now replace repairs by `{strategy}` in {slots} ({} new){worst}", truth.new)
}

/// What an aggregate step left stale outside the interval that it computed.
fn stale_problem(name: &str, output: &Value) -> Option<String> {
    let into = stale::written(output)?;
    let stretches = output.get(stale::BEYOND)?.as_array()?.iter().filter_map(|stretch| Interval::deserialize(stretch).ok());
    let whole = stretches.reduce(|one, other| one.hull(&other))?;
    let (from, to) = (whole.from(), whole.to());
    Some(format!("{name}: table `{}` is stale between {from} and {to}; run the workflow over that interval to recompute it", into.name))
}

/// The rows that an aggregate step did not see, because the repaired views that it read leave them out. Those that cannot be read are exceptions of the step.
fn left_out_problems(name: &str, output: &Value) -> Vec<String> {
    let tables = output.get(LEFT_OUT).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let problem = |table: &Value| {
        let named = table.get("table")?.as_str()?;
        let off = table.get("misaligned")?.as_u64()?;
        let all = table.get("rows")?.as_u64()?;
        let (rows, have, them) = if off == 1 { ("row", "has a time", "it") } else { ("rows", "have times", "them") };
        let view = overlay::repaired_view(named);
        Some(format!(
            "{name}: {off} {rows} of {all} in table `{named}` {have} off the grid, and `{view}`, which the query reads, leaves {them} out"
        ))
    };
    tables.iter().filter_map(problem).collect()
}

/// How many stretches of suspect slots are listed one by one.
const STRETCHES: usize = 5;

/// The suspects of the last strategy that had any, less the slots that another strategy has repaired since.
fn suspect(name: &str, step: &StepState, table: &str) -> Option<String> {
    let suspects = step.suspects().rfind(|suspects| !suspects.is_empty())?;
    let left = step.output.get("suspect").and_then(Value::as_u64).unwrap_or(suspects.slots);
    let stretches: Vec<String> = suspects.stretches.iter().take(STRETCHES).map(ToString::to_string).collect();
    let more = if suspects.stretches.len() > STRETCHES { "; and more" } else { "" };
    let (slots, stretches) = (count(left, "slot"), stretches.join("; "));
    let advice = "a collector may have failed, so they stay missing; use another source, or record an exception if you know better";
    (left > 0).then(|| format!("{name}: {slots} of table `{table}` suspect: {stretches}{more}; {advice}"))
}

fn item_problems(name: &str, step: &StepState) -> Vec<String> {
    let Some(map) = &step.map else { return Vec::new() };
    let line = |item: u32, result: &ItemResult, what: String| {
        format!("{name}: item {item} of 0 to {}, run `{}`: {what}", map.len().saturating_sub(1), result.run)
    };
    let failed = map.failures().map(|(item, result, error)| line(item, result, format!("{}: {}", error.kind, error.message)));
    let mut problems: Vec<String> = failed.take(UNIT_ERRORS).collect();
    let more = map.failures().count().saturating_sub(problems.len());
    if more > 0 {
        problems.push(format!("{name}: {more} more {} failed", if more == 1 { "item" } else { "items" }));
    }
    let with = || map.ended.iter().filter_map(|(item, result)| Some((*item, result, result.exceptions.as_ref()?)));
    problems.extend(with().take(UNIT_ERRORS).map(|(item, result, why)| line(item, result, why.clone())));
    let more = with().count().saturating_sub(UNIT_ERRORS);
    if more > 0 {
        problems.push(format!("{name}: {more} more {} succeeded with exceptions", if more == 1 { "item" } else { "items" }));
    }
    problems
}

fn unit_problems(state: &RunState, name: &str, step: &StepState) -> Vec<String> {
    let Some(units) = &step.units else { return Vec::new() };
    let conflicts = &units.conflicts;
    let differs = (conflicts.slots > 0).then(|| {
        let slots = if conflicts.slots == 1 { "slot" } else { "slots" };
        let more = if conflicts.slots > conflicts.examples.len() as u64 { "; and more" } else { "" };
        let examples = conflicts.examples.join("; ");
        let count = conflicts.slots;
        if state.findings.get(&units.of).is_some_and(|findings| findings.kind.is_of_rows()) {
            return format!("{name}: conflicts in {count} {slots} of table `{}`: {examples}{more}", units.table);
        }
        format!("{name}: the source differs from table `{}` in {count} {slots} next to gaps: {examples}{more}", units.table)
    });
    let errors = units.errors.iter().take(UNIT_ERRORS);
    let mut problems: Vec<String> = errors
        .map(|(unit, error)| format!("{name}: unit {unit} of 0 to {}: {}: {}", units.len().saturating_sub(1), error.kind, error.message))
        .collect();
    let more = units.failed().saturating_sub(problems.len() as u64);
    if more > 0 {
        problems.push(format!("{name}: {more} more {} failed", if more == 1 { "unit" } else { "units" }));
    }
    problems.extend(differs);
    if conflicts.not_compared > 0 {
        let (gaps, table) = (count(conflicts.not_compared, "gap"), &units.table);
        let most = "there are too many to compare in one step; repair a shorter time or fewer keys at once to compare all";
        problems.push(format!("{name}: the source was not compared with table `{table}` next to {gaps}, because {most}"));
    }
    problems.extend(suspect(name, step, &units.table));
    problems
}
