//! Runs within a run: another workflow as a step, and the items of a map. Each is a run of its own, whose id follows from this run, the step and the
//! visit, so that it is found again after a crash. What has ended is not run again.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::engine::drive::asking;
use crate::engine::drive::engine::{Engine, StartRequest, child_run_id, item_run_id, try_load};
use crate::engine::drive::purse::{ItemPurse, Purse};
use crate::engine::drive::work::{Done, Failed, Over, Recorder, Work, in_words, unread_by};
use crate::engine::prepare::preflight;
use crate::engine::pure::budget;
use crate::engine::pure::control;
use crate::engine::pure::event::{ErrorRecord, Event, Outcome};
use crate::engine::pure::items::{ItemResult, MAX_OUTPUT_BYTES, MapState};
use crate::engine::pure::retry;
use crate::engine::report::RunReport;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Usage;
use crate::workflow::{MapStep, Variables, Workflow};

/// When a run that has ended, and did not succeed, goes on from where it failed.
enum Again {
    /// Always.
    Always,
    /// If it has no more events than this: with more, it went on already.
    After(u64),
    /// Never: how it ended is the result.
    Never,
}

/// What is known of a run that was driven.
struct Driven {
    report: RunReport,
    /// How many events it has.
    events: u64,
    /// What it has spent, if a budget applies.
    spend: Option<crate::price::Spend>,
}

/// Why a run was not driven.
enum Undriven {
    /// It was refused before it began.
    Refused(Error),
    /// It was stopped, or could not be driven.
    Stopped(Failed),
}

impl Work {
    /// Runs another workflow as a step.
    pub(crate) async fn child(&self, workflow: &Workflow, params: Value, recorder: &Recorder) -> Result<Done, Failed> {
        let run = child_run_id(&self.context.run, &self.step.name, self.context.visit);
        let again = if self.context.attempt > 1 { Again::Always } else { Again::Never };
        let driven = self.drive(&run, 0, workflow, params, again, &self.context.cancel, recorder).await;
        let Driven { report, spend, .. } = match driven {
            Ok(driven) => driven,
            Err(Undriven::Refused(error)) => return Err(error.into()),
            Err(Undriven::Stopped(failed)) => return Err(failed),
        };
        if let Some(spend) = spend {
            recorder.record(vec![Event::InnerSpend { step: self.step.name.clone(), item: 0, spend }]).await?;
        }
        // An attempt before may have left something.
        if report.missing > 0 || self.context.attempt > 1 {
            recorder.record(vec![Event::InnerMissing { step: self.step.name.clone(), missing: report.missing }]).await?;
        }
        match report.outcome {
            Some(Outcome::Succeeded | Outcome::SucceededWithExceptions) => {
                let output = json!({ "run": run, "outcome": report.outcome, "steps": outputs(&report) });
                let exceptions = report.reason.filter(|_| report.outcome == Some(Outcome::SucceededWithExceptions));
                Ok(Done { output, findings: None, exceptions, usage: report.usage })
            }
            Some(outcome) => {
                let kind = kind_of(&report);
                let why = report.reason.unwrap_or_default();
                Err(Error::new(kind, format!("run `{run}` of workflow `{}` ended as {}: {why}", workflow.name, outcome.as_str())).into())
            }
            None => Err(Error::new(ErrorKind::Cancelled, format!("run `{run}` of workflow `{}` was stopped", workflow.name)).into()),
        }
    }

    /// Runs a workflow for each item of a list that has not ended yet, some of them side by side.
    pub(crate) async fn map(&self, map: &MapStep, over: Over, recorder: &Recorder) -> Result<Done, Failed> {
        let mut state = match &self.items {
            Some(state) => state.clone(),
            None => {
                let (items, unread) = self.list(over, recorder).await?;
                let planned = Event::ItemsPlanned { step: self.step.name.clone(), items: items.clone(), unread: unread.clone() };
                recorder.record(vec![planned]).await?;
                MapState::planned(items, unread)
            }
        };
        let progress = &self.context.progress;
        // So that one that cannot be driven stops the others.
        let stop = self.context.cancel.child_token();
        let mut waiting: Vec<u32> = state.pending().collect();
        waiting.reverse();
        let mut running = FuturesUnordered::new();
        let mut broken: Option<Failed> = None;
        loop {
            while running.len() < map.concurrency as usize
                && !stop.is_cancelled()
                && !self.is_hopeless(&state)
                && let Some(item) = waiting.pop()
            {
                let given = map.given(item, state.items.get(item as usize).unwrap_or(&Value::Null));
                let again = state.again.get(&item).map_or(Again::Never, |events| Again::After(*events));
                running.push(Box::pin(self.item(map, item, given, again, &stop, recorder)));
            }
            let Some((item, ended)) = running.next().await else { break };
            match ended {
                Ok(result) => {
                    let ended = Event::ItemEnded { step: self.step.name.clone(), item, result: Box::new(result.clone()) };
                    if let Err(error) = recorder.record(vec![ended]).await {
                        // The run continued without this attempt. The others stop in their own time.
                        stop.cancel();
                        broken.get_or_insert(error.into());
                        continue;
                    }
                    state.end(item, result);
                    progress.advance(&self.step.name, state.ended.len() as u64, state.len());
                }
                Err(failed) => {
                    stop.cancel();
                    // What could not be driven says more than what was stopped for it.
                    if broken.as_ref().is_none_or(|known| failed.driving && !known.driving) {
                        broken = Some(failed);
                    }
                }
            }
        }
        if let Some(failed) = broken {
            return Err(failed);
        }
        self.context.check_cancelled()?;
        match state.error() {
            None => Ok(Done { exceptions: state.unread.take(), ..Done::plain(state.output()) }),
            Some(error) => Err(Failed { error: error.into(), units: true, driving: false }),
        }
    }

    /// The items of the list, and which rows the query that gives them does not see.
    async fn list(&self, over: Over, recorder: &Recorder) -> Result<(Vec<Value>, Option<String>)> {
        let mut unread = Vec::new();
        let value = match over {
            Over::Known => return Err(Error::internal("the list of the map is not on record")),
            Over::Items(value) => value,
            Over::Rows(task) => {
                let (output, mut usage) = task.perform(&asking::counted(&self.context, recorder, self.budgeted)).await?;
                unread = unread_by(&self.context, task.query(), None, &mut usage).await?;
                let rows = output.get("rows").and_then(Value::as_u64).unwrap_or_default();
                if rows > MapStep::MAX_ITEMS as u64 {
                    return Err(Error::invalid(format!(
                        "the query of the map gives {rows} rows; at most {} are allowed: let each run take several, or split the list into \
                         several runs",
                        MapStep::MAX_ITEMS
                    )));
                }
                if usage != Usage::default() {
                    recorder.record(vec![Event::Metered { step: self.step.name.clone(), usage, queries: Vec::new() }]).await?;
                }
                output.get("list").cloned().unwrap_or_default()
            }
        };
        Ok((MapStep::items(value)?, in_words(unread)))
    }

    /// Whether so many items failed for good that the others would only cost.
    fn is_hopeless(&self, state: &MapState) -> bool {
        let lost = state.failed_by_kind().into_iter().filter(|(kind, _)| {
            let rules = self.step.retry_of(0);
            retry::applicable(rules, &self.rules_used, *kind).is_none()
        });
        self.step.is_hopeless(0, lost, state.len())
    }

    /// Runs one item.
    async fn item(
        &self,
        map: &MapStep,
        item: u32,
        given: BTreeMap<String, Value>,
        again: Again,
        stop: &CancellationToken,
        recorder: &Recorder,
    ) -> (u32, Result<ItemResult, Failed>) {
        let run = item_run_id(&self.context.run, &self.step.name, self.context.visit, item);
        let driven = async {
            // Those of maps around this one are known further in, too.
            let mut variables = self.variables.clone();
            variables.items.extend(given);
            let (workflow, params) = if map.name.is_some() {
                (map.workflow.clone(), map.with.resolve(&variables).map_err(Undriven::Refused)?)
            } else {
                (Arc::new(map.workflow.for_item(variables.items)), variables.params)
            };
            self.drive(&run, item, &workflow, params, again, stop, recorder).await
        };
        let result = match driven.await {
            Ok(driven) => result_of(run, driven),
            Err(Undriven::Stopped(failed)) => return (item, Err(failed)),
            Err(Undriven::Refused(error)) if error.kind() == ErrorKind::Cancelled => return (item, Err(error.into())),
            Err(Undriven::Refused(error)) => ItemResult {
                run,
                outcome: Outcome::Failed,
                events: 0,
                output: Value::Null,
                output_bytes: None,
                error: Some(ErrorRecord::from(&error)),
                exceptions: None,
                missing: 0,
                usage: Usage::default(),
                spend: None,
            },
        };
        (item, Ok(result))
    }

    /// Starts a run within this one, or continues it, until it ends.
    #[expect(clippy::too_many_arguments, reason = "what a run within a run needs, for both kinds of steps")]
    async fn drive(
        &self,
        run: &str,
        item: u32,
        workflow: &Workflow,
        params: Value,
        again: Again,
        stop: &CancellationToken,
        recorder: &Recorder,
    ) -> Result<Driven, Undriven> {
        let given: BTreeMap<String, Value> = match params {
            Value::Object(params) => params.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        let params = workflow.bind_values(&given).map_err(Undriven::Refused)?;
        let purse: Option<Arc<dyn Purse>> = self.budgeted.then(|| {
            let purse: Arc<dyn Purse> = Arc::new(ItemPurse { recorder: recorder.clone(), item, in_dollars: self.in_dollars });
            purse
        });
        let engine = Engine { stop: stop.clone(), purse, ..self.engine.clone() };
        let broken = |error: Error| Undriven::Stopped(Failed { error, units: false, driving: true });
        let known = try_load(engine.journal.as_ref(), run).await.map_err(broken)?.map(|(state, _)| state);
        // The journal of a run that was started by an earlier version does not have its parent's now.
        let now = known.as_ref().map_or(self.context.now, |state| state.started.now);
        let environment = json!({ "parent": self.context.run.as_ref() });
        let request = StartRequest::new(run).with_params(params).with_environment(environment).with_now(now).with_turn(self.context.turn);
        let ended = known.as_ref().and_then(|state| Some((state.ended.as_ref()?.outcome, state.next_sequence)));
        if ended.is_none() {
            // What is refused before the run starts fails the step. What goes wrong in driving it later is not an error of the step.
            let variables = workflow.fix(&request.params, now).map_err(Undriven::Refused)?;
            let variables = Variables::at_start(&variables, engine.clock.now(), now).with_items(workflow.items.clone());
            preflight(&engine.registry, engine.lake.as_ref(), &engine.lakes, workflow, &variables).await.map_err(Undriven::Refused)?;
        }
        let goes_on = ended.is_some_and(|(outcome, events)| match (outcome, &again) {
            (Outcome::Succeeded | Outcome::SucceededWithExceptions, _) => false,
            // It was cancelled with this run, which goes on now.
            (Outcome::Cancelled, Again::Never) | (_, Again::Always) => true,
            (_, Again::After(known)) => events <= *known,
            (_, Again::Never) => false,
        });
        // What cannot go on, as it has no step to go back to, stays as it ended.
        let goes_on = goes_on && known.as_ref().is_some_and(|state| control::redrive(run, state, workflow).is_ok());
        // What stands around the steps within a map may have been corrected, such as the budget.
        let corrected = known.as_ref().is_some_and(|state| state.started.definition != workflow.text).then_some(workflow);
        let driven = if goes_on { engine.redrive(run, corrected).await } else { engine.start(workflow, request).await };
        let report = match driven {
            Ok(report) => report,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(Undriven::Stopped(error.into())),
            Err(error) => return Err(broken(error)),
        };
        let state = try_load(engine.journal.as_ref(), run).await.map_err(broken)?.map(|(state, _)| state);
        let spend = state.as_ref().filter(|_| self.budgeted).map(|state| budget::spent_in_run(state, workflow));
        Ok(Driven { report, events: state.map_or(0, |state| state.next_sequence), spend })
    }
}

/// How the run of an item ended, for the journal of the outer one.
fn result_of(run: String, driven: Driven) -> ItemResult {
    let Driven { report, events, spend } = driven;
    let outcome = report.outcome.unwrap_or(Outcome::Failed);
    let (well, kind) = (matches!(outcome, Outcome::Succeeded | Outcome::SucceededWithExceptions), kind_of(&report));
    let output = outputs(&report);
    let bytes = output.to_string().len();
    let error = (!well).then(|| {
        let message = match (report.outcome, &report.reason) {
            (Some(_), Some(why)) => why.clone(),
            (Some(outcome), None) => format!("it ended as {}", outcome.as_str()),
            (None, _) => "it was paused".to_owned(),
        };
        ErrorRecord { kind, message, retry_after_ms: None }
    });
    ItemResult {
        run,
        outcome,
        events,
        output: if well && bytes <= MAX_OUTPUT_BYTES { output } else { Value::Null },
        output_bytes: (well && bytes > MAX_OUTPUT_BYTES).then_some(bytes as u64),
        error,
        exceptions: report.reason.filter(|_| outcome == Outcome::SucceededWithExceptions),
        missing: report.missing,
        usage: report.usage,
        spend,
    }
}

/// The outputs of a run's steps, by name.
fn outputs(report: &RunReport) -> Value {
    Value::Object(report.steps.iter().map(|step| (step.name.clone(), step.output.clone())).collect())
}

/// The kind of error that a run that did not succeed is for the outer one.
fn kind_of(report: &RunReport) -> ErrorKind {
    report.error.filter(|kind| *kind != ErrorKind::Cancelled).unwrap_or(ErrorKind::Failed)
}
