//! The work of steps. Each attempt runs as a job beside the driver's loop, sends it the events to record, and stops when its token is
//! cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::engine::aside;
use crate::engine::drive::artifact;
use crate::engine::drive::asking;
use crate::engine::drive::engine::Engine;
use crate::engine::drive::known;
use crate::engine::drive::late;
use crate::engine::drive::seen;
use crate::engine::drive::tried;
use crate::engine::drive::units;
use crate::engine::drive::units::Turn;
use crate::engine::pure::budget::Granted;
use crate::engine::pure::event::{Event, FindingsRecord};
use crate::engine::pure::items::MapState;
use crate::engine::pure::state::RunState;
use crate::engine::pure::units::{EarlierStrategy, UnitStates, repair_output};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::lake::overlay::fingerprint;
use crate::lake::stale;
use crate::model::{
    Cells, ComparedCounts, Counts, DefectKind, Findings, Fingerprints, GapList, MAX_EXAMPLES, Quarantine, Rows, SlotRange, UnitCounts,
};
use crate::model::{Usage, unread};
use crate::plugin::{
    AggregateRequest, Aggregator, Detector, Elsewhere, GapSink, LEFT_OUT, Repairer, Sensor, Source, StepContext, Task, UserQuery,
};
use crate::price::Spend;
use crate::workflow::{MapStep, SensorWait, Step, StepKind, Variables, Workflow};

/// A request from a job to the driver.
pub(crate) struct Message {
    /// The step.
    pub(crate) step: String,
    /// The number of the job.
    pub(crate) job: u64,
    /// The request.
    pub(crate) ask: Ask,
}

/// What a job asks for, and where to send the answer once it is durable.
pub(crate) enum Ask {
    /// To record events.
    Record(Vec<Event>, oneshot::Sender<Result<()>>),
    /// To reserve the worst-case usage of these units.
    Reserve(Vec<(u32, Usage)>, oneshot::Sender<Result<Granted>>),
    /// To let the run of an item spend up to one of these totals.
    Allow(u32, Vec<Spend>, oneshot::Sender<Result<Granted>>),
}

/// Sends a job's requests to the driver.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) step: String,
    pub(crate) job: u64,
    pub(crate) messages: mpsc::Sender<Message>,
}

impl Recorder {
    /// Records events, and returns when they are durable.
    ///
    /// # Errors
    /// `cancelled` if the driver no longer needs this job.
    pub(crate) async fn record(&self, events: Vec<Event>) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.ask(Ask::Record(events, done), answer).await
    }

    /// Reserves the worst-case usage of units, as far as budgets allow. Returns when the reservation is durable.
    ///
    /// # Errors
    /// As [`Recorder::record`]; `invalid` if a price is unknown.
    pub(crate) async fn reserve(&self, units: Vec<(u32, Usage)>) -> Result<Granted> {
        let (done, answer) = oneshot::channel();
        self.ask(Ask::Reserve(units, done), answer).await
    }

    /// Lets the run of an item spend up to the largest of these totals that budgets allow. Durable when it returns.
    ///
    /// # Errors
    /// As [`Recorder::record`].
    pub(crate) async fn allow(&self, item: u32, totals: Vec<Spend>) -> Result<Granted> {
        let (done, answer) = oneshot::channel();
        self.ask(Ask::Allow(item, totals, done), answer).await
    }

    async fn ask<T>(&self, ask: Ask, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let gone = || Error::new(ErrorKind::Cancelled, "the run continued without this attempt");
        let message = Message { step: self.step.clone(), job: self.job, ask };
        self.messages.send(message).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// One attempt of a step, and what the run knew when the attempt began.
pub(crate) struct Work {
    pub(crate) engine: Engine,
    pub(crate) step: Step,
    pub(crate) context: StepContext,
    pub(crate) variables: Variables,
    pub(crate) entered_at: Timestamp,
    pub(crate) rules_used: Vec<u32>,
    /// The progress of this visit, if the step repairs.
    pub(crate) repairs: Repairs,
    /// The items of this visit, if the step is a map and its list is known.
    pub(crate) items: Option<MapState>,
    /// Whether a budget applies to the step.
    pub(crate) budgeted: bool,
    /// Whether a budget in dollars applies to it.
    pub(crate) in_dollars: bool,
}

/// The progress of a repair step within a visit.
#[derive(Clone, Default)]
pub(crate) struct Repairs {
    /// The index of the strategy in use.
    pub(crate) strategy: usize,
    /// The strategies that ended.
    pub(crate) earlier: Vec<EarlierStrategy>,
    /// The units of the strategy in use, if they are planned.
    pub(crate) units: Option<UnitStates>,
}

/// A strategy that is ready to run.
pub(crate) struct ReadyStrategy {
    pub(crate) name: Arc<str>,
    pub(crate) repairer: Arc<dyn Repairer>,
    /// The source that its configuration names.
    pub(crate) source: Option<Arc<dyn Source>>,
    /// The lake, used on behalf of this strategy.
    pub(crate) lake: Arc<dyn Lake>,
    /// The other lakes, in the same way.
    pub(crate) elsewhere: Arc<BTreeMap<String, Elsewhere>>,
    pub(crate) tags: Arc<BTreeMap<String, String>>,
    /// Whether a budget applies to it.
    pub(crate) budgeted: bool,
}

/// What an attempt has to do.
pub(crate) enum Job {
    /// Detect defects, or check earlier findings again.
    Detect { detector: Arc<dyn Detector>, of: String, again: Option<FindingsRecord> },
    /// Repair findings with one strategy after the other; between two strategies, the detector finds what is left. What the others have found wrong in the
    /// same table serves no repair.
    Repair { strategies: Vec<ReadyStrategy>, of: FindingsRecord, others: Vec<FindingsRecord>, detector: Option<Arc<dyn Detector>> },
    /// Compute an aggregate.
    Aggregate { aggregator: Arc<dyn Aggregator>, of: Option<FindingsRecord> },
    /// Perform a general task.
    Task(Arc<dyn Task>),
    /// Wait until a condition holds.
    Sense { sensor: Arc<dyn Sensor>, wait: Box<SensorWait> },
    /// Run another workflow.
    Child { workflow: Arc<Workflow>, params: Value },
    /// Run a workflow for each item of a list.
    Map { map: Box<MapStep>, over: Over },
}

/// The list of a map.
pub(crate) enum Over {
    /// It is on record.
    Known,
    /// The items, computed.
    Items(Value),
    /// The rows that a task gives.
    Rows(Arc<dyn Task>),
}

/// The result of an attempt that succeeded.
pub(crate) struct Done {
    pub(crate) output: Value,
    pub(crate) findings: Option<Box<FindingsRecord>>,
    /// What is still wrong, although the attempt succeeded.
    pub(crate) exceptions: Option<String>,
    pub(crate) usage: Usage,
}

impl Done {
    pub(crate) fn plain(output: Value) -> Self {
        Self { output, findings: None, exceptions: None, usage: Usage::default() }
    }
}

/// Why an attempt failed.
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// Whether all units were attempted, and some failed.
    pub(crate) units: bool,
    /// Whether the step did not fail, but a run within it could not be driven. This run then stops too, and can be resumed.
    pub(crate) driving: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, units: false, driving: false }
    }
}

/// The rows that a query does not see since they cannot be read, unless a detector has counted them.
pub(super) async fn unread_by(
    context: &StepContext,
    query: Option<UserQuery<'_>>,
    except: Option<&str>,
    usage: &mut Usage,
) -> Result<Vec<String>> {
    let Some(query) = query else { return Ok(Vec::new()) };
    let (said, used) = context.unread_by(query, except).await?;
    *usage += used;
    Ok(said)
}

/// Sentences as one, each once.
pub(super) fn in_words(mut said: Vec<String>) -> Option<String> {
    let mut known = BTreeSet::new();
    said.retain(|one| known.insert(one.clone()));
    (!said.is_empty()).then(|| said.join("; "))
}

/// The rows that an aggregate does not see since they cannot be read, from what its output says.
fn unread_in(output: &Value) -> Option<String> {
    let of_table = |table: &Value| {
        let (named, rows) = (table.get("table")?.as_str()?, table.get("unread")?.as_u64()?);
        Some(format!("{}, such as {}", unread(rows, &format!("table `{named}`, which the query reads,")), table.get("first")?.as_str()?))
    };
    in_words(output.get(LEFT_OUT)?.as_array()?.iter().filter_map(of_table).collect())
}

fn counts_of(counts: Counts) -> Result<Value> {
    serde_json::to_value(counts).map_err(|error| Error::internal("counts are not JSON").because(error))
}

/// What earlier strategies left, for the journal, and what finding that out used.
type Left = (Option<Box<FindingsRecord>>, Usage);

impl Work {
    pub(crate) async fn perform(&self, job: Job, recorder: &Recorder) -> Result<Done, Failed> {
        match job {
            Job::Detect { detector, of, again } => Ok(self.detect(detector.as_ref(), &of, again, recorder).await?),
            Job::Repair { strategies, of, others, detector } => {
                self.repair(&strategies, (&of, &others), detector.as_deref(), recorder).await
            }
            Job::Aggregate { aggregator, of } => {
                let findings = match &of {
                    Some(of) if aggregator.needs_gaps() => Some(self.findings(of).await?),
                    Some(of) => Some(recorded(of)),
                    None => None,
                };
                let began = self.context.clock.now();
                let mut done = aggregator.aggregate(&self.context, AggregateRequest::new(findings.as_ref())).await?;
                if let (Some(into), Some(findings)) = (stale::written(&done.output), &findings) {
                    let by = format!("{}/{}", self.context.run, self.context.step);
                    let beyond = stale::refresh(self.context.lake.as_ref(), &into, &findings.scope.interval, &by, began).await?;
                    if let (false, Some(output)) = (beyond.is_empty(), done.output.as_object_mut()) {
                        output.insert(stale::BEYOND.to_owned(), json!(beyond));
                    }
                }
                let exceptions = unread_in(&done.output);
                Ok(Done { output: done.output, findings: None, exceptions, usage: done.usage })
            }
            Job::Task(task) => {
                let (output, mut usage) = task.perform(&asking::counted(&self.context, recorder, self.budgeted)).await?;
                let exceptions = unread_by(&self.context, task.query(), None, &mut usage).await?;
                Ok(Done { output, findings: None, exceptions: in_words(exceptions), usage })
            }
            Job::Sense { sensor, wait } => Ok(self.sense(sensor.as_ref(), &wait, recorder).await?),
            Job::Child { workflow, params } => self.child(&workflow, params, recorder).await,
            Job::Map { map, over } => self.map(&map, over, recorder).await,
        }
    }

    async fn repair(
        &self,
        strategies: &[ReadyStrategy],
        (of, others): (&FindingsRecord, &[FindingsRecord]),
        detector: Option<&dyn Detector>,
        recorder: &Recorder,
    ) -> Result<Done, Failed> {
        self.context.table(&of.scope.table)?.check_repairable()?;
        let mut found_by_others = Vec::with_capacity(others.len());
        for other in others {
            found_by_others.push(Arc::new(self.findings(other).await?));
        }
        let Repairs { mut strategy, mut earlier, mut units } = self.repairs.clone();
        let mut rules_used = self.rules_used.as_slice();
        loop {
            let ready = strategies.get(strategy).ok_or_else(|| Error::internal("the step has no strategy with this index"))?;
            let (mut findings, left) = self.to_repair(of, detector, &earlier, units.as_ref(), recorder).await?;
            findings.others.clone_from(&found_by_others);
            let before = (earlier.len(), earlier.iter().map(|earlier| earlier.batches).sum());
            let turn = Turn { ready, strategy, earlier: before, units, findings, left, rules_used };
            let done = units::repair(self, recorder, turn).await.map_err(|(error, units)| Failed { error, units, driving: false })?;
            if strategy + 1 >= strategies.len() || done.unresolved() == 0 {
                let used = strategies.get(..=strategy).unwrap_or_default();
                let (exceptions, usage) = self.unseen(used, &of.scope.table, done.unresolved() > 0).await?;
                return Ok(Done { exceptions, usage, ..Done::plain(repair_output(&earlier, Some(&done))) });
            }
            let ended = Event::StrategyEnded { step: self.step.name.clone(), strategy: ready.name.to_string(), error: None };
            recorder.record(vec![ended]).await?;
            earlier.push(EarlierStrategy::new(&ready.name, Some(&done), None));
            (strategy, units, rules_used) = (strategy + 1, None, &[]);
        }
    }

    /// What strategies did not see: rows that their queries leave out and, if slots are left as they were, why their sources do not vouch for these.
    async fn unseen(&self, used: &[ReadyStrategy], table: &str, is_left: bool) -> Result<(Option<String>, Usage)> {
        let (mut said, mut usage) = (Vec::new(), Usage::default());
        for strategy in used {
            let (lake, elsewhere) = (strategy.lake.clone(), strategy.elsewhere.clone());
            let context = StepContext { lake, elsewhere, ..self.context.clone() };
            said.extend(unread_by(&context, strategy.repairer.query(), Some(table), &mut usage).await?);
            if let Some(source) = strategy.source.as_ref().filter(|_| is_left) {
                said.extend(source.doubt(&context, context.table(table)?).await?);
            }
        }
        Ok((in_words(said), usage))
    }

    /// What a strategy must repair: all findings, or what earlier strategies left.
    async fn to_repair(
        &self,
        of: &FindingsRecord,
        detector: Option<&dyn Detector>,
        earlier: &[EarlierStrategy],
        units: Option<&UnitStates>,
        recorder: &Recorder,
    ) -> Result<(Findings, Left)> {
        if let Some(units) = units {
            return Ok((self.findings(units.left.as_deref().unwrap_or(of)).await?, (None, Usage::default())));
        }
        let before = self.findings(of).await?;
        if earlier.is_empty() {
            return Ok((self.without_given_up(before).await?, (None, Usage::default())));
        }
        let context = &self.context;
        let detector = detector.ok_or_else(|| Error::internal("there is no detector to find what is left"))?;
        let found = self.detected(detector, Some(&before), recorder).await?;
        let artifact = format!("{}-{}-{}-left", self.step.name, context.visit, earlier.len());
        let gaps = futures::stream::iter([artifact::gaps_to_batch(&found.gaps, &found.judged, &found.cells, &found.deleted)]).boxed();
        let mut usage = found.usage;
        usage += context.lake.put_artifact(&context.run, &artifact, gaps).await?;
        let (seen, kept) = seen::keep(context.lake.as_ref(), (&context.run, &format!("{artifact}-seen")), &found, Some(&before)).await?;
        usage += kept;
        let (scope, examples) = (found.scope.clone(), found.examples.clone());
        let bad_rows = found.quarantine.iter().take(MAX_EXAMPLES).cloned().collect();
        let record = FindingsRecord {
            of: of.of.clone(),
            kind: found.kind,
            scope,
            counts: found.counts,
            artifact,
            examples,
            bad_rows,
            notices: found.notices.clone(),
            other_keys: of.other_keys.clone(),
            taken_from: None,
            seen,
        };
        Ok((found, (Some(Box::new(record)), usage)))
    }

    /// Findings without what has been asked for in vain too often, if the step gives up after so many runs. From now on, that is set aside for everybody.
    async fn without_given_up(&self, findings: Findings) -> Result<Findings> {
        let StepKind::Repair { of, give_up_after: Some(most), .. } = &self.step.kind else { return Ok(findings) };
        let table = self.context.table(&findings.scope.table)?;
        tried::give_up(&self.context, table, of, *most, &findings).await?;
        // Also what an attempt has given up that was cut short.
        aside::set_aside(&self.context, findings).await
    }

    async fn detect(&self, detector: &dyn Detector, of: &str, again: Option<FindingsRecord>, recorder: &Recorder) -> Result<Done> {
        let context = &self.context;
        let before = match &again {
            Some(record) => Some(self.findings(record).await?),
            None => None,
        };
        let artifact = format!("{}-{}-gaps", self.step.name, context.visit);
        // Whoever checks again wants to know what is there now.
        let known = match before {
            Some(_) => None,
            None => detector.rests_on(context).await?.map(|rests_on| known::Place::of(context, &self.step.kind, rests_on)),
        };
        if let Some(known) = &known
            && let Some((mut record, usage)) = known.take_over(&artifact, &format!("{}-{}-seen", self.step.name, context.visit)).await?
        {
            of.clone_into(&mut record.of);
            return Ok(Done { output: counts_of(record.counts)?, findings: Some(Box::new(record)), exceptions: None, usage });
        }
        let (found, written) = self.detected_into(&artifact, detector, before.as_ref(), recorder).await?;
        if again.is_none()
            && ((found.kind.is_missing() && found.counts.overtaken > 0) || found.counts.overtaken_cells > 0)
            // Of several late rows, none is the one that a repair stood for.
            && context.table(&found.scope.table)?.rows == Rows::One
            && let Some(event) = late::truth(context, &found.scope).await?
        {
            recorder.record(vec![event]).await?;
        }
        let mut usage = found.usage;
        usage += written;
        if found.quarantine.rows() > 0 {
            let rows = futures::stream::iter([artifact::quarantine_to_batch(&found.quarantine)]).boxed();
            usage += context.lake.put_artifact(&context.run, &format!("{}-{}-quarantine", self.step.name, context.visit), rows).await?;
        }
        let name = format!("{}-{}-seen", self.step.name, context.visit);
        let (seen, kept) = seen::keep(context.lake.as_ref(), (&context.run, &name), &found, before.as_ref()).await?;
        usage += kept;
        let bad_rows = found.quarantine.iter().take(MAX_EXAMPLES).cloned().collect();
        let output = counts_of(found.counts)?;
        let hold_until = found.hold_until;
        let counts = before.as_ref().map_or(found.counts, |before| after_repair(found.kind, before.counts, found.counts));
        // Checking again looks at gaps alone.
        let other_keys = again.map_or(found.other_keys, |record| record.other_keys);
        let record = FindingsRecord {
            of: of.to_owned(),
            kind: found.kind,
            scope: found.scope,
            counts,
            artifact,
            examples: found.examples,
            bad_rows,
            notices: found.notices,
            other_keys,
            taken_from: None,
            seen,
        };
        if let Some(known) = &known {
            usage += known.keep(hold_until, &record).await;
        }
        Ok(Done { output, findings: Some(Box::new(record)), exceptions: None, usage })
    }

    /// Runs a detector, and writes its gaps to an artifact as it finds them. Returns what writing used, too.
    async fn detected_into(
        &self,
        artifact: &str,
        detector: &dyn Detector,
        again: Option<&Findings>,
        recorder: &Recorder,
    ) -> Result<(Findings, Usage)> {
        let context = &self.context;
        let (sink, mut handed_over) = GapSink::new();
        let (sender, mut batches) = mpsc::channel(1);
        let detecting = async {
            let context = asking::counted(context, recorder, self.budgeted);
            let found = detector.detect_into(&context, again, &sink).await;
            drop(sink);
            match found {
                Ok(found) => Ok(self.judged(found).await?),
                Err(error) => Err(error),
            }
        };
        // The last batch is that of the findings' own gaps. It comes only if detection has ended well, and without it nothing is written.
        let passing_on = async {
            let none = (Fingerprints::default(), Cells::default(), GapList::default());
            let mut is_streamed = false;
            let pass = async {
                while let Some(gaps) = handed_over.recv().await {
                    let batch = artifact::gaps_to_batch(&gaps, &none.0, &none.1, &none.2);
                    is_streamed = true;
                    if sender.send(batch).await.is_err() {
                        // The writer has failed, and says why.
                        break;
                    }
                }
                // So that the detector stops.
                drop(handed_over);
            };
            let (found, ()) = futures::join!(detecting, pass);
            let is_heard = !sender.is_closed();
            match &found {
                Ok(found) if is_streamed && found.gaps.is_empty() => {}
                Ok(found) => {
                    let _ = sender.send(artifact::gaps_to_batch(&found.gaps, &found.judged, &found.cells, &found.deleted)).await;
                }
                Err(_) => {
                    let _ = sender.send(Err(Error::new(ErrorKind::Cancelled, "detection has failed, so its gaps are not kept"))).await;
                }
            }
            drop(sender);
            (found, is_heard)
        };
        let batches = futures::stream::poll_fn(move |context| batches.poll_recv(context)).boxed();
        let ((found, is_heard), written) = futures::join!(passing_on, context.lake.put_artifact(&context.run, artifact, batches));
        match (found, written) {
            (Ok(found), Ok(usage)) => Ok((found, usage)),
            // The detector stopped because the writer had.
            (Err(_), Err(error)) if !is_heard => Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Runs a detector. If it does not say which wrong rows it judged, they are looked up.
    async fn detected(&self, detector: &dyn Detector, again: Option<&Findings>, recorder: &Recorder) -> Result<Findings> {
        let found = detector.detect(&asking::counted(&self.context, recorder, self.budgeted), again).await?;
        self.judged(found).await
    }

    /// Findings that say which wrong rows were judged.
    async fn judged(&self, mut found: Findings) -> Result<Findings> {
        if !found.kind.is_of_rows() {
            return Ok(found);
        }
        let mut unknown = GapList::default();
        for (key, slots) in found.gaps.iter() {
            let is_unknown = |slot: &i64| found.judged.get(key, *slot).is_none() && found.cells.get(key, *slot).is_none();
            let slots = (slots.first..slots.end).filter(is_unknown);
            slots.for_each(|slot| unknown.push(key, SlotRange::new(slot, slot + 1)));
        }
        let table = self.context.table(&found.scope.table)?;
        let looked_up = fingerprint::of_slots(self.context.lake.as_ref(), table, &unknown).await?;
        unknown.iter().for_each(|(key, slots)| found.judged.extend_from(&looked_up, key, slots));
        Ok(found)
    }

    /// Findings with their gaps.
    async fn findings(&self, record: &FindingsRecord) -> Result<Findings> {
        findings_of(self.context.lake.as_ref(), &self.context.run, record).await
    }

    async fn sense(&self, sensor: &dyn Sensor, wait: &SensorWait, recorder: &Recorder) -> Result<Done> {
        let context = asking::counted(&self.context, recorder, self.budgeted);
        let clock = &self.context.clock;
        let span = |duration: std::time::Duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let last = wait.timeout.map(|timeout| self.entered_at.saturating_add(span(timeout)).unwrap_or(Timestamp::MAX));
        loop {
            self.context.check_cancelled()?;
            let sensed = sensor.sense(&context).await?;
            let holds = match &wait.when {
                Some(when) => when.holds(&Variables { output: sensed.clone(), ..self.variables.clone() })?,
                None => sensed.as_bool().ok_or_else(|| {
                    Error::invalid(format!(
                        "sensor `{}` returned {sensed}, which is neither true nor false; add a `when` that says what to wait for",
                        wait.plugin
                    ))
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
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("the condition of sensor `{}` did not hold within {timeout:?}", wait.plugin),
                ));
            }
            tokio::select! {
                () = clock.sleep_until(next) => {}
                () = self.context.cancel.cancelled() => {}
            }
        }
    }
}

/// What a run has found, with its gaps, from the artifacts that its record names.
///
/// # Errors
/// `not-found` if the run has no such artifact; `invalid` if it is damaged; those of the lake.
pub async fn findings_of(lake: &dyn Lake, run: &str, record: &FindingsRecord) -> Result<Findings> {
    let batches = lake.get_artifact(run, &record.artifact).await?;
    let (gaps, judged, cells, deleted) = artifact::gaps_from_batches(batches).await?;
    let seen = seen::seen_of(lake, run, record).await?;
    Ok(Findings { gaps, judged, cells, deleted, aside: seen.aside, ..recorded(record) })
}

/// What the record itself says of what was found, without any gaps.
fn recorded(record: &FindingsRecord) -> Findings {
    Findings {
        kind: record.kind,
        scope: record.scope.clone(),
        counts: record.counts,
        gaps: GapList::default(),
        judged: Fingerprints::default(),
        cells: Cells::default(),
        deleted: GapList::default(),
        aside: GapList::default(),
        seen: None,
        examples: record.examples.clone(),
        quarantine: Quarantine::default(),
        notices: record.notices.clone(),
        other_keys: record.other_keys.clone(),
        hold_until: None,
        others: Vec::new(),
        usage: Usage::default(),
    }
}

/// The counts of the whole scope, when checking only its gaps again gave the counts `again`.
fn after_repair(kind: DefectKind, before: Counts, again: Counts) -> Counts {
    if kind != DefectKind::Missing {
        let before = if kind == DefectKind::Different { without_removed(before, again) } else { before };
        // These slots were already counted as present.
        return Counts {
            defective: again.defective,
            replaced: before.replaced + again.replaced,
            changed: before.changed + again.changed,
            frozen: before.frozen + again.frozen,
            given_up: before.given_up + again.given_up,
            elsewhere: before.elsewhere + again.elsewhere,
            unjudged: before.unjudged + again.unjudged,
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
        frozen: before.frozen + again.frozen,
        given_up: before.given_up + again.given_up,
        elsewhere: before.elsewhere + again.elsewhere,
        gaps: again.gaps,
        conflicts: before.conflicts + again.conflicts,
        overtaken: before.overtaken + again.overtaken,
        units: before.units.map(|units| UnitCounts { expected: units.expected, ..again.units.unwrap_or(units) }),
        ..before
    }
}

/// The counts of the whole scope, if rows of some of the slots that were looked at again have been removed, and some rows that were removed have
/// returned.
fn without_removed(before: Counts, again: Counts) -> Counts {
    let returned = before.compared.map_or(0, |compared| compared.returned);
    let still_returned = again.compared.map_or(0, |compared| compared.returned);
    let looked_at = again.present + again.absent + again.missing;
    Counts {
        present: (before.present + returned + again.present).saturating_sub(looked_at),
        absent: (before.absent + again.absent).saturating_sub(returned),
        removed: (before.removed + again.removed).saturating_sub(returned),
        missing: before.missing + again.missing,
        compared: before.compared.map(|compared| ComparedCounts { returned: still_returned, ..compared }),
        ..before
    }
}

/// The latest findings of all other detect steps in rows of the same table: what was found wrong there, and may not be repaired yet.
pub(crate) fn others<'a>(state: &'a RunState, of: &str) -> Result<Vec<&'a FindingsRecord>> {
    let scope = &latest(state, of)?.scope;
    let is_of_table = |found: &FindingsRecord| found.scope.table == scope.table && found.scope.grid == scope.grid;
    let is_wrong = |found: &FindingsRecord| found.kind.is_of_rows() && found.counts.defective + found.counts.set_aside() > 0;
    let others = state.findings.iter().filter(|(name, found)| *name != of && is_of_table(found) && is_wrong(found));
    Ok(others.map(|(_, found)| found).collect())
}

/// The latest findings of a detect step.
pub(crate) fn latest<'a>(state: &'a RunState, of: &str) -> Result<&'a FindingsRecord> {
    state.findings.get(of).ok_or_else(|| Error::invalid(format!("step `{of}` has no findings yet; it must run before this step")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_once_rows_are_removed_and_once_they_return() {
        let compared = |returned| Some(ComparedCounts { returned, ..ComparedCounts::default() });
        let of = |present, absent, removed, returned| Counts {
            expected: present + absent,
            present,
            absent,
            removed,
            compared: compared(returned),
            ..Counts::default()
        };
        let before = Counts { defective: 2, ..of(144, 0, 0, 0) };
        // One row is removed, the other is changed.
        let once = after_repair(DefectKind::Different, before, of(1, 1, 1, 0));
        assert_eq!(once, Counts { expected: 144, ..of(143, 1, 1, 0) });
        // It is back at the source: before the repair, and after it.
        let back = Counts { defective: 1, ..of(143, 1, 1, 1) };
        assert_eq!(after_repair(DefectKind::Different, back, Counts { defective: 1, ..of(0, 1, 1, 1) }), back);
        assert_eq!(after_repair(DefectKind::Different, back, of(1, 0, 0, 0)), of(144, 0, 0, 0));
        // Meanwhile the table has lost a row.
        let lost = after_repair(DefectKind::Different, before, Counts { missing: 1, expected: 2, ..of(1, 0, 0, 0) });
        assert_eq!((lost.present, lost.absent, lost.missing), (143, 0, 1));
    }
}
