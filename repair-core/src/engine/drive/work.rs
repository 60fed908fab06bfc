//! The work of steps: what is done between two events. Each runs beside the driver's loop, tells it what to record, and is told by a token
//! when to stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::engine::drive::artifact;
use crate::engine::drive::engine::{Engine, StartRequest, child_run_id};
use crate::engine::drive::late;
use crate::engine::drive::units;
use crate::engine::drive::units::Turn;
use crate::engine::prepare::preflight;
use crate::engine::pure::budget::Granted;
use crate::engine::pure::event::{Event, FindingsRecord, Outcome};
use crate::engine::pure::state::RunState;
use crate::engine::pure::units::{Earlier, Units, repair_output};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::lake::overlay::fingerprint;
use crate::lake::stale;
use crate::model::Usage;
use crate::model::{Counts, DefectKind, Findings, GapList, SlotRange};
use crate::plugin::{AggregateRequest, Aggregator, Detector, Repairer, Sensor, StepContext, Task};
use crate::workflow::{SensorWait, Step, Variables, Workflow};

/// What a work asks the driver to record.
pub(crate) struct Message {
    /// The step.
    pub(crate) step: String,
    /// Which of the works that the driver began.
    pub(crate) work: u64,
    /// What.
    pub(crate) ask: Ask,
}

/// What a work asks for, and where it is told once that is durable.
pub(crate) enum Ask {
    /// That events are recorded.
    Record(Vec<Event>, oneshot::Sender<Result<()>>),
    /// That what these units take at worst is set aside.
    Reserve(Vec<(u32, Usage)>, oneshot::Sender<Result<Granted>>),
}

/// Where a work has its events recorded.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) step: String,
    pub(crate) work: u64,
    pub(crate) messages: mpsc::Sender<Message>,
}

impl Recorder {
    /// Returns when the events are durable.
    ///
    /// # Errors
    /// `cancelled` if the driver wants nothing more of this work.
    pub(crate) async fn record(&self, events: Vec<Event>) -> Result<()> {
        let (done, told) = oneshot::channel();
        self.ask(Ask::Record(events, done), told).await
    }

    /// Sets aside what units take at worst, as far as budgets allow. Returns when that is durable.
    ///
    /// # Errors
    /// As [`Recorder::record`]; `invalid` if a price is not known.
    pub(crate) async fn reserve(&self, units: Vec<(u32, Usage)>) -> Result<Granted> {
        let (done, told) = oneshot::channel();
        self.ask(Ask::Reserve(units, done), told).await
    }

    async fn ask<T>(&self, ask: Ask, told: oneshot::Receiver<Result<T>>) -> Result<T> {
        let gone = || Error::new(ErrorKind::Cancelled, "the run goes on without this attempt");
        let message = Message { step: self.step.clone(), work: self.work, ask };
        self.messages.send(message).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

/// What one attempt of a step works with, as it was when the attempt began.
pub(crate) struct Work {
    pub(crate) engine: Engine,
    pub(crate) step: Step,
    pub(crate) context: StepContext,
    pub(crate) variables: Variables,
    pub(crate) entered_at: Timestamp,
    pub(crate) rules_used: Vec<u32>,
    /// How far the repairs of this visit are.
    pub(crate) repairs: Repairs,
}

/// How far the repairs of a visit are.
#[derive(Clone, Default)]
pub(crate) struct Repairs {
    /// The strategy at work, from 0.
    pub(crate) strategy: usize,
    /// Those that have done what they can.
    pub(crate) earlier: Vec<Earlier>,
    /// The units of the one at work, if they were planned.
    pub(crate) units: Option<Units>,
}

/// A strategy, ready to work.
pub(crate) struct Idea {
    pub(crate) name: Arc<str>,
    pub(crate) repairer: Arc<dyn Repairer>,
    /// The lake, used on behalf of this strategy.
    pub(crate) lake: Arc<dyn Lake>,
    pub(crate) tags: Arc<BTreeMap<String, String>>,
    /// Whether a budget limits what it may take.
    pub(crate) budgeted: bool,
}

/// What there is to do.
pub(crate) enum Job {
    /// Detect, or look again at what was found.
    Look { detector: Arc<dyn Detector>, of: String, again: Option<FindingsRecord> },
    /// Repair what was found, with one strategy after the other; what one has left, the detector tells.
    Repair { ideas: Vec<Idea>, of: FindingsRecord, detector: Option<Arc<dyn Detector>> },
    /// Compute.
    Aggregate { aggregator: Arc<dyn Aggregator>, of: Option<FindingsRecord> },
    /// Anything else.
    Task(Arc<dyn Task>),
    /// Wait until a condition holds.
    Sense { sensor: Arc<dyn Sensor>, wait: Box<SensorWait> },
    /// Run another workflow.
    Child { workflow: Arc<Workflow>, params: Value },
}

/// What a step's attempt came to.
pub(crate) struct Done {
    pub(crate) output: Value,
    pub(crate) findings: Option<Box<FindingsRecord>>,
    /// What is not well, though it came to its end.
    pub(crate) exceptions: Option<String>,
    pub(crate) usage: Usage,
}

impl Done {
    fn plain(output: Value) -> Self {
        Self { output, findings: None, exceptions: None, usage: Usage::default() }
    }
}

/// Why a step's attempt failed.
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// It did all it could, and units failed.
    pub(crate) units: bool,
    /// It is not the step that failed, but the driving of a run within it: this run can't be driven on either, but can be resumed.
    pub(crate) driving: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, units: false, driving: false }
    }
}

/// What strategies have left, for the journal, and what looking took.
type Left = (Option<Box<FindingsRecord>>, Usage);

impl Work {
    pub(crate) async fn perform(&self, job: Job, recorder: &Recorder) -> Result<Done, Failed> {
        match job {
            Job::Look { detector, of, again } => Ok(self.look(detector.as_ref(), &of, again, recorder).await?),
            Job::Repair { ideas, of, detector } => self.repair(&ideas, &of, detector.as_deref(), recorder).await,
            Job::Aggregate { aggregator, of } => {
                let findings = match &of {
                    Some(of) => Some(self.findings(of).await?),
                    None => None,
                };
                let began = self.context.clock.now();
                let mut done = aggregator.aggregate(&self.context, AggregateRequest { findings: findings.as_ref() }).await?;
                if let (Some(into), Some(findings)) = (stale::written(&done.output), &findings) {
                    let by = format!("{}/{}", self.context.run, self.context.step);
                    let beyond = stale::refresh(self.context.lake.as_ref(), &into, &findings.scope.interval, &by, began).await?;
                    if let (false, Some(output)) = (beyond.is_empty(), done.output.as_object_mut()) {
                        output.insert(stale::BEYOND.to_owned(), json!(beyond));
                    }
                }
                Ok(Done { output: done.output, findings: None, exceptions: None, usage: done.usage })
            }
            Job::Task(task) => {
                let (output, usage) = task.perform(&self.context).await?;
                Ok(Done { output, findings: None, exceptions: None, usage })
            }
            Job::Sense { sensor, wait } => Ok(self.sense(sensor.as_ref(), &wait).await?),
            Job::Child { workflow, params } => self.child(&workflow, params).await,
        }
    }

    async fn repair(
        &self,
        ideas: &[Idea],
        of: &FindingsRecord,
        detector: Option<&dyn Detector>,
        recorder: &Recorder,
    ) -> Result<Done, Failed> {
        let Repairs { mut strategy, mut earlier, mut units } = self.repairs.clone();
        let mut rules_used = self.rules_used.as_slice();
        loop {
            let idea = ideas.get(strategy).ok_or_else(|| Error::internal("a strategy that the step does not have"))?;
            let (findings, left) = self.to_repair(of, detector, &earlier, units.as_ref()).await?;
            let before = (earlier.len(), earlier.iter().map(|earlier| earlier.batches).sum());
            let turn = Turn { idea, strategy, earlier: before, units, findings, left, rules_used };
            let done = units::repair(self, recorder, turn).await.map_err(|(error, units)| Failed { error, units, driving: false })?;
            if strategy + 1 >= ideas.len() || done.unresolved() == 0 {
                return Ok(Done::plain(repair_output(&earlier, Some(&done))));
            }
            let ended = Event::StrategyEnded { step: self.step.name.clone(), strategy: idea.name.to_string(), error: None };
            recorder.record(vec![ended]).await?;
            earlier.push(Earlier::new(&idea.name, Some(&done), None));
            (strategy, units, rules_used) = (strategy + 1, None, &[]);
        }
    }

    /// What a strategy is to repair: all that was found, or what those before it have left.
    async fn to_repair(
        &self,
        of: &FindingsRecord,
        detector: Option<&dyn Detector>,
        earlier: &[Earlier],
        units: Option<&Units>,
    ) -> Result<(Findings, Left)> {
        if let Some(units) = units {
            return Ok((self.findings(units.left.as_deref().unwrap_or(of)).await?, (None, Usage::default())));
        }
        let before = self.findings(of).await?;
        if earlier.is_empty() {
            return Ok((before, (None, Usage::default())));
        }
        let context = &self.context;
        let detector = detector.ok_or_else(|| Error::internal("no detector to look at what is left"))?;
        let found = self.detected(detector, Some(&before)).await?;
        let artifact = format!("{}-{}-{}-left", self.step.name, context.visit, earlier.len());
        let gaps = futures::stream::iter([artifact::gaps_to_batch(&found.gaps, &found.judged)]).boxed();
        let usage = [found.usage, context.lake.put_artifact(&context.run, &artifact, gaps).await?].into_iter().sum();
        let (scope, told) = (found.scope.clone(), found.told.clone());
        let record = FindingsRecord { of: of.of.clone(), kind: found.kind, scope, counts: found.counts, artifact, told };
        Ok((found, (Some(Box::new(record)), usage)))
    }

    async fn look(&self, detector: &dyn Detector, of: &str, again: Option<FindingsRecord>, recorder: &Recorder) -> Result<Done> {
        let context = &self.context;
        let before = match &again {
            Some(record) => Some(self.findings(record).await?),
            None => None,
        };
        let found = self.detected(detector, before.as_ref()).await?;
        if again.is_none()
            && found.kind.is_missing()
            && found.counts.overtaken > 0
            && let Some(event) = late::truth(context, &found.scope).await?
        {
            recorder.record(vec![event]).await?;
        }
        let artifact = format!("{}-{}-gaps", self.step.name, context.visit);
        let mut usage = found.usage;
        let gaps = futures::stream::iter([artifact::gaps_to_batch(&found.gaps, &found.judged)]).boxed();
        usage += context.lake.put_artifact(&context.run, &artifact, gaps).await?;
        let output = serde_json::to_value(found.counts).map_err(|error| Error::internal("counts are not JSON").because(error))?;
        let counts = before.map_or(found.counts, |before| after_repair(found.kind, before.counts, found.counts));
        let record = FindingsRecord { of: of.to_owned(), kind: found.kind, scope: found.scope, counts, artifact, told: found.told };
        Ok(Done { output, findings: Some(Box::new(record)), exceptions: None, usage })
    }

    /// What a detector finds. Where it does not say which wrong rows it saw, these are looked up.
    async fn detected(&self, detector: &dyn Detector, again: Option<&Findings>) -> Result<Findings> {
        let mut found = detector.detect(&self.context, again).await?;
        if !found.kind.is_of_rows() {
            return Ok(found);
        }
        let mut unknown = GapList::default();
        for (key, slots) in found.gaps.iter() {
            let slots = (slots.first..slots.end).filter(|&slot| found.judged.get(key, slot).is_none());
            slots.for_each(|slot| unknown.push(key, SlotRange::new(slot, slot + 1)));
        }
        let table = self.context.table(&found.scope.table)?;
        let looked_up = fingerprint::of_slots(self.context.lake.as_ref(), table, &unknown).await?;
        unknown.iter().for_each(|(key, slots)| found.judged.extend_from(&looked_up, key, slots));
        Ok(found)
    }

    /// Findings, gaps included.
    async fn findings(&self, record: &FindingsRecord) -> Result<Findings> {
        let batches = self.context.lake.get_artifact(&self.context.run, &record.artifact).await?;
        let (gaps, judged) = artifact::gaps_from_batches(batches).await?;
        let (kind, scope) = (record.kind, record.scope.clone());
        Ok(Findings { kind, scope, counts: record.counts, gaps, judged, told: record.told.clone(), usage: Usage::default() })
    }

    async fn sense(&self, sensor: &dyn Sensor, wait: &SensorWait) -> Result<Done> {
        let clock = &self.context.clock;
        let span = |duration: std::time::Duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let last = wait.timeout.map(|timeout| self.entered_at.saturating_add(span(timeout)).unwrap_or(Timestamp::MAX));
        loop {
            self.context.check_cancelled()?;
            let sensed = sensor.sense(&self.context).await?;
            let holds = match &wait.when {
                Some(when) => when.holds(&Variables { output: sensed.clone(), ..self.variables.clone() })?,
                None => sensed.as_bool().ok_or_else(|| {
                    Error::invalid(format!("sensor `{}` senses {sensed}, not true or false; say in `when` what is awaited", wait.plugin))
                })?,
            };
            if holds {
                return Ok(Done::plain(sensed));
            }
            self.context.beat();
            let next = clock.now().saturating_add(span(wait.every)).unwrap_or(Timestamp::MAX);
            if let (Some(last), Some(timeout)) = (last, wait.timeout)
                && next > last
            {
                return Err(Error::new(ErrorKind::Timeout, format!("`{}` was not as awaited within {timeout:?}", wait.plugin)));
            }
            tokio::select! {
                () = clock.sleep_until(next) => {}
                () = self.context.cancel.cancelled() => {}
            }
        }
    }

    async fn child(&self, workflow: &Workflow, params: Value) -> Result<Done, Failed> {
        let run = child_run_id(&self.context.run, &self.step.name, self.context.visit);
        let given: BTreeMap<String, Value> = match params {
            Value::Object(params) => params.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        let params = workflow.bind_values(&given)?;
        let engine = Engine { stop: self.context.cancel.clone(), ..self.engine.clone() };
        let request = StartRequest { run: run.clone(), params, environment: json!({ "parent": self.context.run.as_ref() }) };
        // What can be refused before it begins fails the step; what goes wrong after that is no error of the step.
        preflight(&engine.registry, engine.lake.as_ref(), workflow, &request.params).await?;
        let mut driven = engine.start(workflow, request).await;
        if let Ok(report) = &driven
            && matches!(report.outcome, Some(Outcome::Failed | Outcome::Blind | Outcome::Cancelled | Outcome::OverBudget))
            && self.context.attempt > 1
        {
            // Tried again: what failed of it, and only that.
            driven = engine.redrive(&run, None).await;
        }
        let report = match driven {
            Ok(report) => report,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error.into()),
            Err(error) => return Err(Failed { error, units: false, driving: true }),
        };
        match report.outcome {
            Some(Outcome::Succeeded | Outcome::SucceededWithExceptions) => {
                let steps = report.steps.iter().map(|step| (step.name.clone(), step.output.clone())).collect();
                let output = json!({ "run": run, "outcome": report.outcome, "steps": Value::Object(steps) });
                let exceptions = report.reason.filter(|_| report.outcome == Some(Outcome::SucceededWithExceptions));
                Ok(Done { output, findings: None, exceptions, usage: report.usage })
            }
            Some(outcome) => {
                let kind = report.error.filter(|kind| *kind != ErrorKind::Cancelled).unwrap_or(ErrorKind::Failed);
                let why = report.reason.unwrap_or_default();
                Err(Error::new(kind, format!("run `{run}` of workflow `{}` ended as {}: {why}", workflow.name, outcome.as_str())).into())
            }
            None => Err(Error::new(ErrorKind::Cancelled, format!("run `{run}` of workflow `{}` was told to stop", workflow.name)).into()),
        }
    }
}

/// The counts of the whole scope, when a look at its gaps alone has found `again`.
fn after_repair(kind: DefectKind, before: Counts, again: Counts) -> Counts {
    if kind != DefectKind::Missing {
        // These slots were present before, and counted so.
        return Counts {
            defective: again.defective,
            replaced: before.replaced + again.replaced,
            changed: before.changed + again.changed,
            gaps: again.gaps,
            duplicates: if kind == DefectKind::Duplicate { again.duplicates } else { before.duplicates },
            ..before
        };
    }
    Counts {
        present: before.present + again.present,
        repaired: before.repaired + again.repaired,
        absent: before.absent + again.absent,
        missing: again.missing,
        gaps: again.gaps,
        conflicts: before.conflicts + again.conflicts,
        overtaken: before.overtaken + again.overtaken,
        ..before
    }
}

/// The latest findings of a detect step.
pub(crate) fn latest<'a>(state: &'a RunState, of: &str) -> Result<&'a FindingsRecord> {
    state.findings.get(of).ok_or_else(|| Error::invalid(format!("step `{of}` has found nothing yet; it must come before")))
}
