//! What of a run is worth a message. It follows from the run's events alone, so whoever reads them again finds the same messages with the same ids. Pure.
//!
//! Whether a table has changed depends on the run before, too, which the caller knows: see [`Change`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::engine::pure::budget;
use crate::engine::pure::event::{ErrorRecord, Event, Outcome, Recorded, Settled, StopReason};
use crate::engine::pure::state::{Phase, RunState};
use crate::engine::report::{JsonFormat, RunReport};
use crate::error::{Error, ErrorKind, Result};
use crate::plugin::Registry;
use crate::text::count;
use crate::workflow::{Occasion, Workflow};

/// From how much of a run's budget on, in percent, it is running out. What is left may then no longer suffice for what a step does at once.
pub const RUNNING_OUT_PERCENT: u64 = 80;

/// How many problems of a run a message lists. All are in the run's report.
const PROBLEMS: usize = 10;
/// How many characters of a problem or a reason a message has.
const PROBLEM_CHARS: usize = 500;

/// Something of a run that is worth a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct News {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// Its id: of the run, the event, and what it is about.
    pub id: String,
    /// The run.
    pub run: String,
    /// The workflow.
    pub workflow: String,
    /// The run that runs this one as a step, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it is about.
    #[serde(serialize_with = "word")]
    pub what: Occasion,
    /// When it happened.
    pub at: Timestamp,
    /// The number of the event.
    pub sequence: u64,
    /// How the run ended, if it has.
    pub outcome: Option<Outcome>,
    /// How many slots are still missing, or wrong otherwise, as far as the run knows.
    pub missing: u64,
    /// The step, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The table that has changed, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// How many slots are suspect, if it is about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspects: Option<u64>,
    /// Problems that a person should know about, worst first; the first few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// All of it in a sentence.
    pub text: String,
}

fn word<S: Serializer>(what: &Occasion, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(what.as_str())
}

/// How a table is, as far as a run that examined it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Health {
    /// Nothing is missing or wrong.
    Healthy,
    /// Something is missing or wrong, and was not repaired.
    Missing,
    /// What was missing or wrong before is so no longer.
    Repaired,
}

impl Health {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Missing => "missing",
            Self::Repaired => "repaired",
        }
    }
}

/// A table that is not as it was after the run before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The table.
    pub table: String,
    /// How it was; `None` if no run of the workflow examined it before.
    pub from: Option<Health>,
    /// How it is.
    pub to: Health,
    /// How many of its slots are missing or wrong.
    pub missing: u64,
}

/// How many slots are missing or wrong in each table that a run examined.
pub fn tables(state: &RunState) -> BTreeMap<String, u64> {
    let mut tables: BTreeMap<String, u64> = state.findings.values().map(|findings| (findings.scope.table.clone(), 0)).collect();
    for (_, findings, missing) in state.missing() {
        *tables.entry(findings.scope.table.clone()).or_default() += missing;
    }
    tables
}

/// The news that a table has changed, if it has: `before` is how many of its slots were missing or wrong after the run before, which is `None` if there
/// was none; `now` is how many are.
pub fn change(table: &str, before: Option<u64>, now: u64) -> Option<Change> {
    let (from, to) = match (before, now) {
        (None, 0) => return None,
        (None, _) => (None, Health::Missing),
        (Some(0), 1..) => (Some(Health::Healthy), Health::Missing),
        (Some(1..), 0) => (Some(Health::Missing), Health::Repaired),
        (Some(_), _) => return None,
    };
    Some(Change { table: table.to_owned(), from, to, missing: now })
}

/// Reads the events of a run in order, and says what of them is worth a message.
#[derive(Debug, Clone)]
pub struct Follower {
    run: String,
    state: RunState,
    workflow: Workflow,
    used_percent: u64,
}

impl Follower {
    /// Begins with the first event of a run. The plug-ins are needed to read its definition.
    ///
    /// # Errors
    /// `invalid` if the event does not begin a run, or this program cannot read the definition.
    pub fn begin(run: &str, first: &Recorded, registry: &Registry) -> Result<Self> {
        let state = RunState::begin(first)?;
        let workflow = definition(&state, registry)?;
        Ok(Self { run: run.to_owned(), state, workflow, used_percent: 0 })
    }

    /// The run's state after the events so far.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The definition that the run has after the events so far.
    pub fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    /// Takes the next event, and says what of it is worth a message. Changes of tables are not among it: see [`change`] and [`Follower::changed`].
    ///
    /// # Errors
    /// `invalid` if the event is not possible here, or this program cannot read a definition that replaces another.
    pub fn next(&mut self, recorded: &Recorded, registry: &Registry) -> Result<Vec<News>> {
        let was_stopped = self.state.stop;
        let late = self.late(&recorded.event, was_stopped);
        self.state.apply(recorded)?;
        if matches!(recorded.event, Event::DefinitionReplaced { .. }) {
            self.workflow = definition(&self.state, registry)?;
        }
        let mut news = Vec::new();
        if let Some((step, why)) = late {
            let text = format!("run `{}` of workflow `{}`: {why}", self.run, self.workflow.name);
            news.push(News { step, reason: Some(cut(&why)), ..self.about(recorded, Occasion::Deadline, &text) });
        }
        news.extend(self.of_budget(recorded));
        if matches!(recorded.event, Event::RunEnded { .. }) {
            news.extend(self.suspects(recorded));
            news.extend(self.ended(recorded));
        }
        Ok(news)
    }

    /// The news that a table has changed, in a run that ends with this event.
    pub fn changed(&self, recorded: &Recorded, change: Change) -> News {
        let Change { table, from, to, missing } = &change;
        let before = from.map(|from| format!(" (before: {})", from.as_str())).unwrap_or_default();
        let what = match to {
            Health::Missing => format!("{} now missing or wrong", slots(*missing)),
            _ => "nothing is missing or wrong any more".to_owned(),
        };
        let text =
            format!("table `{table}` is {}{before}: {what}, by run `{}` of workflow `{}`", to.as_str(), self.run, self.workflow.name);
        let news = self.about(recorded, Occasion::Changed, &text);
        News { id: format!("{}.{table}", news.id), change: Some(change), ..news }
    }

    fn about(&self, recorded: &Recorded, what: Occasion, text: &str) -> News {
        News {
            format: JsonFormat,
            id: format!("{}.{}.{}", self.run, recorded.sequence, what.as_str()),
            run: self.run.clone(),
            workflow: self.workflow.name.clone(),
            parent: self.state.started.environment.get("parent").and_then(|parent| parent.as_str()).map(str::to_owned),
            what,
            at: recorded.at,
            sequence: recorded.sequence,
            outcome: self.state.ended.as_ref().map(|ended| ended.outcome),
            missing: self.state.missing_in_all(),
            step: None,
            reason: None,
            change: None,
            suspects: None,
            problems: Vec::new(),
            text: cut(text),
        }
    }

    /// Whether an event, which comes next, says that the run or a step took too long, and that this was not tried again.
    fn late(&self, event: &Event, was_stopped: Option<StopReason>) -> Option<(Option<String>, String)> {
        let is_late = |error: &ErrorRecord| error.kind == ErrorKind::Timeout;
        let of_step = |step: &str, error: &ErrorRecord| (Some(step.to_owned()), format!("step `{step}` took too long: {}", error.message));
        match event {
            Event::StopRequested { why: StopReason::Timeout } => {
                Some((None, "it took longer than its `timeout`, and is stopped".to_owned()))
            }
            Event::Moved { from, .. } => match &self.state.active.get(from)?.phase {
                Phase::Failed(error) if is_late(error) => Some(of_step(from, error)),
                _ => None,
            },
            Event::StepSettled { step, result: Settled::Failed { error } } if is_late(error) => Some(of_step(step, error)),
            Event::BranchEnded { at, error: Some(error), .. } if is_late(error) => Some(of_step(at, error)),
            Event::RunEnded { step, reason, error: Some(ErrorKind::Timeout), .. } if was_stopped != Some(StopReason::Timeout) => {
                // In a DAG, and after a branch, it was said when the step ended.
                match self.state.active.get(step).map(|position| &position.phase) {
                    Some(Phase::Failed(error)) if is_late(error) => {
                        let why = reason.clone().unwrap_or_else(|| error.message.clone());
                        Some((Some(step.clone()), format!("step `{step}` took too long: {why}")))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn of_budget(&mut self, recorded: &Recorded) -> Option<News> {
        let name = |run: &str, workflow: &str| format!("run `{run}` of workflow `{workflow}`");
        let refused = match &recorded.event {
            Event::StepFailed { step, error, .. } | Event::StrategyEnded { step, error: Some(error), .. } => Some((step, error)),
            _ => None,
        };
        if let Some((step, error)) = refused.filter(|(_, error)| error.kind == ErrorKind::Budget) {
            let text = format!("{}: step `{step}` was stopped by a budget: {}", name(&self.run, &self.workflow.name), error.message);
            let news = self.about(recorded, Occasion::Budget, &text);
            return Some(News { step: Some(step.clone()), reason: Some(cut(&error.message)), ..news });
        }
        let counts = matches!(
            recorded.event,
            Event::UnitsEnded { .. } | Event::RequestEnded { .. } | Event::StepSucceeded { .. } | Event::StepFailed { .. }
        );
        let used = counts.then(|| budget::used(&self.state, &self.workflow)).flatten()?;
        let before = self.used_percent;
        self.used_percent = used.percent.max(before);
        if before >= RUNNING_OUT_PERCENT || used.percent < RUNNING_OUT_PERCENT {
            return None;
        }
        let why = format!("{} are used ({} %)", used.what, used.percent);
        let text = format!("{}: its budget is running out: {why}", name(&self.run, &self.workflow.name));
        Some(News { reason: Some(why), ..self.about(recorded, Occasion::Budget, &text) })
    }

    fn suspects(&self, recorded: &Recorded) -> Option<News> {
        let left = |step: &crate::engine::StepState| {
            let suspects = step.suspects().rfind(|suspects| !suspects.is_empty())?;
            Some(step.output.get("suspect").and_then(serde_json::Value::as_u64).unwrap_or(suspects.slots))
        };
        let suspects: u64 = self.state.steps.values().filter_map(left).sum();
        if suspects == 0 {
            return None;
        }
        let why = format!("{} suspect: a source had nothing for them, which does not prove that there is nothing", slots(suspects));
        let text = format!("run `{}` of workflow `{}`: {why}", self.run, self.workflow.name);
        Some(News { suspects: Some(suspects), reason: Some(why), ..self.about(recorded, Occasion::Suspects, &text) })
    }

    fn ended(&self, recorded: &Recorded) -> Option<News> {
        let ended = self.state.ended.as_ref()?;
        let (what, how) = match ended.outcome {
            Outcome::Succeeded => (Occasion::Succeeded, "succeeded"),
            Outcome::SucceededWithExceptions => (Occasion::SucceededWithExceptions, "succeeded with exceptions"),
            Outcome::Failed => (Occasion::Failed, "failed"),
            Outcome::Cancelled => (Occasion::Cancelled, "was cancelled"),
            Outcome::Blind => (Occasion::Blind, "is blind: something could not be examined"),
            Outcome::OverBudget => (Occasion::OverBudget, "ended over budget"),
        };
        let problems = RunReport::new(&self.run, &self.state).problems;
        let why = ended.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let missing = self.state.missing_in_all();
        let still = if missing > 0 { format!("; {} still missing or wrong", slots(missing)) } else { String::new() };
        let text = format!("run `{}` of workflow `{}` {how}{why}{still}", self.run, self.workflow.name);
        let problems = problems.iter().take(PROBLEMS).map(|problem| cut(problem)).collect();
        let news = self.about(recorded, what, &text);
        Some(News { step: Some(ended.step.clone()), reason: ended.reason.as_deref().map(cut), problems, ..news })
    }
}

/// Whether an event may be worth a message, so that somebody should look; `budgeted` is whether the run has a budget that may run out.
pub fn may_be_news(event: &Event, budgeted: bool) -> bool {
    match event {
        Event::RunEnded { .. }
        | Event::StopRequested { .. }
        | Event::StepFailed { .. }
        | Event::StrategyEnded { error: Some(_), .. }
        | Event::StepSettled { result: Settled::Failed { .. }, .. }
        | Event::BranchEnded { error: Some(_), .. }
        | Event::Moved { .. }
        | Event::RunStarted { .. } => true,
        // What it used may be what the budget runs out of.
        Event::UnitsEnded { .. } | Event::RequestEnded { .. } | Event::StepSucceeded { .. } => budgeted,
        _ => false,
    }
}

fn definition(state: &RunState, registry: &Registry) -> Result<Workflow> {
    let started = &state.started;
    Workflow::parse_with(&started.file, &started.definition, registry, &started.children)
        .map_err(|diagnostics| Error::invalid("this program cannot read the definition of the run").because(diagnostics))
}

fn slots(number: u64) -> String {
    format!("{} {}", count(number, "slot"), if number == 1 { "is" } else { "are" })
}

/// The beginning of a text, if it is long.
fn cut(text: &str) -> String {
    if text.chars().count() <= PROBLEM_CHARS {
        return text.to_owned();
    }
    format!("{}…", text.chars().take(PROBLEM_CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_changed_if_it_was_whole_and_is_not_or_the_other_way_round() {
        let words = |before, now| change("bars", before, now).map(|change| (change.from.map(Health::as_str), change.to.as_str()));
        assert_eq!(words(None, 0), None);
        assert_eq!(words(None, 3), Some((None, "missing")));
        assert_eq!(words(Some(0), 3), Some((Some("healthy"), "missing")));
        assert_eq!(words(Some(3), 3), None);
        assert_eq!(words(Some(3), 1), None, "it was missing something before, and is now");
        assert_eq!(words(Some(3), 0), Some((Some("missing"), "repaired")));
        assert_eq!(words(Some(0), 0), None);
    }
}
