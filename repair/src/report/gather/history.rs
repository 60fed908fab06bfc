//! What the journal says about a run: its state, what its detect steps found first, the ways it took, and when its steps worked.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::open::OpenLake;
use crate::report::model::{Doing, Edge, Graph, Node, Span, Timeline, TimelineRow};
use repair_core::engine::{Event, FindingsRecord, Phase, Recorded, RunState, Settled};
use repair_core::workflow::{Arrow, Step, StepKind, Workflow, arrows, subject};
use repair_core::{Error, ErrorKind, Result};

/// How many spans of a step are kept; the others are counted.
const MOST_SPANS: usize = 400;

/// A run as its events show it.
pub(super) struct History {
    pub(super) state: RunState,
    /// What each detect step found when it first looked, by its name.
    pub(super) first: BTreeMap<String, FindingsRecord>,
    /// How often the run took each way.
    moves: BTreeMap<(String, String), u32>,
    times: Times,
}

impl History {
    /// Reads a run.
    pub(super) async fn of(open: &OpenLake, run: &str) -> Result<Self> {
        let mut seen: Option<Self> = None;
        open.events(run, |recorded| {
            match &mut seen {
                None => {
                    let state = RunState::begin(&recorded)?;
                    seen = Some(Self { state, first: BTreeMap::new(), moves: BTreeMap::new(), times: Times::default() });
                }
                Some(history) => history.apply(&recorded)?,
            }
            Ok(())
        })
        .await?;
        seen.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no run `{run}` in this lake")))
    }

    fn apply(&mut self, recorded: &Recorded) -> Result<()> {
        self.state.apply(recorded)?;
        match &recorded.event {
            Event::StepSucceeded { step, findings: Some(findings), .. } if findings.of == *step => {
                self.first.entry(step.clone()).or_insert_with(|| findings.as_ref().clone());
            }
            Event::Moved { from, to, .. } => *self.moves.entry((from.clone(), to.clone())).or_default() += 1,
            _ => {}
        }
        self.times.apply(recorded);
        Ok(())
    }

    /// The workflow, with the path that the run took.
    pub(super) fn graph(&self, workflow: &Workflow) -> Graph {
        let state = |name: &str| self.state.steps.get(name);
        let failed = |name: &str| {
            let settled = state(name).and_then(|step| step.settled.as_ref());
            let phase = self.state.active.get(name).map(|position| &position.phase);
            matches!(settled, Some(Settled::Failed { .. })) || matches!(phase, Some(Phase::Failed(_)))
        };
        let nodes = workflow.steps.iter().map(|step| Node {
            name: step.name.clone(),
            what: format!("{} {}", step.kind.word(), subject(step)).trim().to_owned(),
            visits: state(&step.name).map_or(0, |step| step.visits),
            failed: failed(&step.name),
        });
        let nodes: Vec<Node> = nodes.collect();
        let steps: &[Step] = &workflow.steps;
        let edge = |arrow: Arrow| {
            let name = |index: usize| nodes.get(index).map(|node| node.name.clone()).unwrap_or_default();
            let moved = self.moves.get(&(name(arrow.from), name(arrow.to))).copied();
            let entered = |index: usize| nodes.get(index).map_or(0, |node| node.visits);
            // In a DAG and in a parallel step, nothing moves: a step begins when those before it are done.
            let begun = steps.get(arrow.to).is_some_and(|step| !step.after.is_empty()) || is_branch(steps, &arrow);
            let taken = moved.unwrap_or(if begun { entered(arrow.from).min(entered(arrow.to)) } else { 0 });
            Edge { from: arrow.from, to: arrow.to, label: arrow.label, catches: arrow.catches, taken }
        };
        let edges: Vec<Edge> = arrows(workflow).into_iter().map(edge).collect();
        Graph { nodes, edges }
    }

    /// When its steps worked and waited.
    pub(super) fn timeline(&self) -> Timeline {
        let (from, to) = (self.state.started.at, self.state.ended.as_ref().map_or(self.state.updated_at, |ended| ended.at));
        let mut steps: Vec<_> = self.state.steps.iter().collect();
        steps.sort_by_key(|(_, step)| step.order);
        let rows = steps.into_iter().map(|(name, _)| self.times.row(name, to)).filter(|row| !row.spans.is_empty());
        Timeline { from, to, rows: rows.collect() }
    }
}

/// Whether a way leads into a branch of a parallel step.
fn is_branch(steps: &[Step], arrow: &Arrow) -> bool {
    let from = steps.get(arrow.from);
    from.is_some_and(|step| matches!(step.kind, StepKind::Parallel { .. })) && !arrow.catches
}

#[derive(Default)]
struct Times {
    rows: BTreeMap<String, TimelineRow>,
    /// What each step does now, and since when.
    now: BTreeMap<String, (Timestamp, Doing)>,
}

impl Times {
    fn apply(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::StepEntered { step, .. } => self.begin(step, at, Doing::Working),
            Event::TimerSet { step, .. } => self.begin(step, at, Doing::Waited),
            Event::StepSucceeded { step, .. } => self.end(step, at, Doing::Succeeded),
            Event::StepFailed { step, .. } => self.end(step, at, Doing::Failed),
            Event::RetryScheduled { step, due, .. } => {
                self.span(step, Span { from: at, to: *due, doing: Doing::Backoff });
                self.begin(step, *due, Doing::Working);
            }
            Event::StrategyEnded { step, .. } if !self.now.contains_key(step) => self.begin(step, at, Doing::Working),
            Event::StepSettled { step, result } => {
                self.end(step, at, if matches!(result, Settled::Failed { .. }) { Doing::Failed } else { Doing::Succeeded });
            }
            Event::RunEnded { .. } => {
                for step in self.now.keys().cloned().collect::<Vec<_>>() {
                    self.end(&step, at, Doing::Succeeded);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, step: &str, at: Timestamp, doing: Doing) {
        self.now.insert(step.to_owned(), (at, doing));
    }

    fn end(&mut self, step: &str, at: Timestamp, how: Doing) {
        if let Some((from, doing)) = self.now.remove(step) {
            self.span(step, Span { from, to: at.max(from), doing: if doing == Doing::Waited { Doing::Waited } else { how } });
        }
    }

    fn span(&mut self, step: &str, span: Span) {
        let row = self.rows.entry(step.to_owned()).or_insert_with(|| TimelineRow { step: step.to_owned(), spans: Vec::new(), more: 0 });
        if row.spans.len() < MOST_SPANS {
            row.spans.push(span);
        } else {
            row.more += 1;
        }
    }

    /// The spans of a step; what it does now goes on until `to`.
    fn row(&self, step: &str, to: Timestamp) -> TimelineRow {
        let mut row = self.rows.get(step).cloned().unwrap_or_else(|| TimelineRow { step: step.to_owned(), spans: Vec::new(), more: 0 });
        if let Some((from, doing)) = self.now.get(step) {
            row.spans.push(Span { from: *from, to: to.max(*from), doing: *doing });
        }
        row
    }
}
