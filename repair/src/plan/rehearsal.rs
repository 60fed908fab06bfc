//! What a plan would refuse before it looks at data. It makes and asks the same plug-ins as a plan, in the same way, on a lake that answers
//! nothing, so that both refuse the same, in the same words.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::columns;
use super::reach::Known;
use super::unread::{Asked, UnreadLake, UnreadSource};
use repair_core::engine::prepare::{self, Preparer, Setting};
use repair_core::lake::Lake;
use repair_core::model::{Counts, Findings, GapList, Interval, Lifetimes, Scope, Table, Usage};
use repair_core::plugin::{Detector, PluginKind, Registry, Repairer, Source, SystemClock};
use repair_core::workflow::{Step, StepKind, Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};

/// The calendar of findings that a rehearsal makes up. Every registry has it.
const CALENDAR: &str = "24x7";

/// What a plan of a workflow would refuse as invalid before it looks at data, with parameters as on a command line. All of it is reported,
/// each once, in the order of the steps. Those of the workflows that it runs as steps are in it.
///
/// Where a parameter has no value, what is refused is what would be refused for several of its values, in the same words.
///
/// # Errors
/// `invalid` if a given parameter does not fit.
pub async fn refusals(
    registry: &Arc<Registry>,
    workflow: &Workflow,
    given: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<Vec<Error>> {
    let mut both = Vec::new();
    for params in workflow.bind_with_examples(given)? {
        let params = match workflow.fix(&params, now) {
            Ok(params) => params,
            Err(error) => {
                both.push(vec![error]);
                continue;
            }
        };
        both.push(
            Box::pin(rehearse(registry, workflow, &Variables::at_start(&params, now, now).with_items(workflow.items.clone()), now)).await,
        );
    }
    let others: Vec<Vec<String>> = both.iter().skip(1).map(|errors| errors.iter().map(Error::full).collect()).collect();
    let mut found: Vec<Error> = Vec::new();
    for error in both.into_iter().next().unwrap_or_default() {
        let words = error.full();
        if others.iter().all(|other| other.contains(&words)) && !found.iter().any(|known| known.full() == words) {
            found.push(error);
        }
    }
    for step in &workflow.steps {
        if let Some((child, name)) = step.kind.inner() {
            // The steps within a map have the parameters of this workflow.
            let none = BTreeMap::new();
            let of_child = Box::pin(refusals(registry, child, if name.is_some() { &none } else { given }, now)).await?;
            found.extend(of_child.into_iter().map(|error| match name {
                Some(name) => error.on("workflow", name),
                None => error.on("step", &step.name),
            }));
        }
    }
    Ok(found)
}

/// What is refused with these values.
async fn rehearse(registry: &Arc<Registry>, workflow: &Workflow, variables: &Variables, now: Timestamp) -> Vec<Error> {
    let mut refused: Vec<Error> = prepare::unfit(registry, workflow, variables);
    let rehearsal = Rehearsal { registry, workflow, known: Known::new(variables.clone()), variables, now, described_by: None };
    for step in &workflow.steps {
        // What could not be made was reported.
        if refused.iter().any(|error| is_of(error, &step.name)) {
            continue;
        }
        let done = match &step.kind {
            StepKind::Detect { .. } => rehearsal.detect(step).await,
            StepKind::Repair { of, .. } => rehearsal.repair(step, of).await,
            _ => Ok(()),
        };
        refused.extend(done.err().map(|error| error.on("step", &step.name)));
    }
    match columns::unknown(registry, workflow, variables, None).await {
        Ok(unknown) => refused.extend(unknown),
        Err(error) => refused.push(error),
    }
    refused.retain(|error| error.kind() == ErrorKind::Invalid);
    refused
}

/// What the repairers of a step refuse as invalid before they know what they are to repair: as in a rehearsal, but the lake says which columns tables have.
pub(super) async fn of_repair(
    registry: &Arc<Registry>,
    workflow: &Workflow,
    variables: &Variables,
    (step, of): (&Step, &str),
    (now, lake): (Timestamp, Arc<dyn Lake>),
) -> Result<()> {
    let rehearsal = Rehearsal { registry, workflow, known: Known::new(variables.clone()), variables, now, described_by: Some(lake) };
    match rehearsal.repair(step, of).await {
        Err(error) if error.kind() == ErrorKind::Invalid => Err(error),
        _ => Ok(()),
    }
}

fn unread_lake(asked: &Asked) -> Arc<dyn Lake> {
    Arc::new(UnreadLake { asked: asked.clone(), described_by: None })
}

/// Whether an error says that it is of a step.
fn is_of(error: &Error, step: &str) -> bool {
    error.context().iter().any(|(what, name)| *what == "step" && name == step)
}

/// The rehearsal of one workflow with one set of values.
struct Rehearsal<'a> {
    registry: &'a Arc<Registry>,
    workflow: &'a Workflow,
    known: Known,
    variables: &'a Variables,
    now: Timestamp,
    /// The lake that says which columns tables have, if there is one.
    described_by: Option<Arc<dyn Lake>>,
}

impl Rehearsal<'_> {
    /// Gives plug-ins what they are given in a plan, but for a lake and sources that answer nothing.
    fn shared(&self) -> Result<(repair_core::plugin::StepContext, Asked)> {
        let asked = Asked::default();
        let setting = Setting {
            run: "rehearsal".into(),
            now: self.now,
            turn: 0,
            lake: Arc::new(UnreadLake { asked: asked.clone(), described_by: self.described_by.clone() }),
            lakes: Arc::new(self.workflow.elsewhere.keys().map(|profile| (profile.clone(), unread_lake(&asked))).collect()),
            clock: Arc::new(SystemClock),
            cancel: CancellationToken::new(),
            progress: Arc::new(()),
        };
        let context = prepare::shared_context(self.registry, self.workflow, self.variables, setting)?;
        let unread = |(name, inner): (&String, &Arc<dyn Source>)| {
            let source: Arc<dyn Source> = Arc::new(UnreadSource { asked: asked.clone(), inner: inner.clone() });
            (name.clone(), source)
        };
        let sources: Vec<(String, Arc<dyn Source>)> = context.sources.iter().map(unread).collect();
        Ok((context.with_sources(sources), asked))
    }

    async fn detect(&self, step: &Step) -> Result<()> {
        let plugins = step.kind.plugins();
        let Some(config) = plugins.first().and_then(|(_, _, with)| self.known.resolve(with)) else { return Ok(()) };
        let (shared, asked) = self.shared()?;
        let preparer = Preparer { registry: self.registry, workflow: self.workflow, shared: &shared };
        let detector = Arc::<dyn Detector>::try_from(preparer.plugin_with(step, 0, &config?)?)?;
        let context = preparer.once(&step.name).context;
        let done = match detector.asks(&context).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => detector.detect(&context, None).await.map(drop),
            Err(error) => Err(error),
        };
        if asked.was() { Ok(()) } else { done }
    }

    /// Lets the repairers of a step plan the repair of nothing.
    async fn repair(&self, step: &Step, of: &str) -> Result<()> {
        let Some(findings) = self.nothing_found(of) else { return Ok(()) };
        for (index, strategy) in step.kind.strategies().iter().enumerate() {
            let Some(config) = self.known.resolve(&strategy.with) else { continue };
            let (shared, asked) = self.shared()?;
            let preparer = Preparer { registry: self.registry, workflow: self.workflow, shared: &shared };
            let repairer = Arc::<dyn Repairer>::try_from(preparer.plugin_with(step, index, &config?)?)?;
            let planned = repairer.plan(&preparer.once(&step.name).context, &findings).await;
            if !asked.was() {
                planned.map(drop)?;
            }
        }
        Ok(())
    }

    /// Findings of a detect step that found nothing, if it is known which table it examines and what it finds.
    fn nothing_found(&self, of: &str) -> Option<Findings> {
        let StepKind::Detect { plugin, with } = &self.workflow.step(of)?.kind else { return None };
        let config = self.known.resolve(with)?.ok()?;
        let table: &Table = self.workflow.tables.get(config.get("table").and_then(Value::as_str)?)?;
        let scope = Scope {
            table: table.name.clone(),
            grid: table.grid().ok()?,
            keys: Vec::new(),
            interval: Interval::new(self.now, self.now.checked_add(jiff::SignedDuration::from_hours(1)).ok()?).ok()?,
            calendar: CALENDAR.to_owned(),
            lifetimes: Lifetimes::default(),
        };
        let kind = self.registry.get(PluginKind::Detector, plugin)?.finds?;
        let mut findings = Findings::of_gaps(scope, Counts::default(), GapList::default(), Usage::default());
        findings.kind = kind;
        Some(findings)
    }
}
