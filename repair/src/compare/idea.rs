//! Which ideas take part: the strategies of a workflow's repair steps, by name, and repairers that need no more than the workflow gives.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use repair_core::engine::prepare::Terms;
use repair_core::plugin::{PluginKind, Registry};
use repair_core::price::Budget;
use repair_core::workflow::{Rate, RetryRule, Step, StepKind, Template, Variables, Workflow};
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Hint, Result};

/// Units at once of an idea that no step says it of, as of a repair step.
const CONCURRENCY: usize = 4;

/// An idea that takes part.
#[derive(Debug, Clone)]
pub(super) struct Idea {
    /// Its name.
    pub(super) name: String,
    /// The repair step whose strategy it is, and its name there; none if no step has it.
    pub(super) strategy: Option<(String, String)>,
    /// The repairer.
    pub(super) plugin: String,
    /// Its configuration.
    pub(super) with: Value,
    /// How many units at once.
    pub(super) concurrency: usize,
    /// How many units in how much time.
    pub(super) rate_limit: Option<Rate>,
    /// What to try again.
    pub(super) retry: Vec<RetryRule>,
    /// What it may spend: the run's budget, its step's, and its own.
    pub(super) budgets: Vec<Budget>,
    /// Tags on what it costs.
    pub(super) tags: BTreeMap<String, String>,
}

impl Idea {
    /// The source that it asks, if it asks one.
    pub(super) fn source(&self) -> Option<&str> {
        self.with.get("source").and_then(Value::as_str)
    }
}

/// The detect step whose table is compared: the one named, else the only one that there is for repair steps, or at all.
pub(super) fn detect_step<'a>(workflow: &'a Workflow, named: Option<&str>) -> Result<&'a Step> {
    let detects = || workflow.steps.iter().filter(|step| matches!(step.kind, StepKind::Detect { .. }));
    if let Some(named) = named {
        return detects().find(|step| step.name == named).ok_or_else(|| {
            let names: Vec<&str> = detects().map(|step| step.name.as_str()).collect();
            Error::new(ErrorKind::NotFound, format!("the workflow has no detect step `{named}`; it has {}", listed(&names)))
        });
    }
    let repaired = |step: &&Step| workflow.steps.iter().any(|other| matches!(&other.kind, StepKind::Repair { of, .. } if *of == step.name));
    let mut some: Vec<&Step> = detects().filter(repaired).collect();
    if some.is_empty() {
        some = detects().collect();
    }
    match some[..] {
        [one] => Ok(one),
        [] => Err(Error::invalid("the workflow has no detect step, so nothing says which rows are expected")),
        _ => {
            let names: Vec<&str> = some.iter().map(|step| step.name.as_str()).collect();
            let message = format!("the workflow has several detect steps ({}); choose whose strategies are compared", listed(&names));
            Err(Error::invalid(message).hint(Hint::DetectStep { known: names.into_iter().map(str::to_owned).collect() }))
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The ideas of these names; all of the workflow's for the detect step, if none is named.
pub(super) fn ideas(workflow: &Workflow, registry: &Registry, of: &str, names: &[String], variables: &Variables) -> Result<Vec<Idea>> {
    let known = of_workflow(workflow, of, variables)?;
    if names.is_empty() {
        if known.is_empty() {
            let message = format!("no step repairs what `{of}` finds; name strategies, e.g. carry-forward");
            return Err(Error::invalid(message).hint(Hint::Strategies));
        }
        return Ok(known);
    }
    let mut ideas: Vec<Idea> = Vec::with_capacity(names.len());
    for name in names {
        if ideas.iter().any(|idea| idea.name == *name) {
            return Err(Error::invalid(format!("`{name}` is named twice; an idea is compared once")));
        }
        let idea = find(&known, name)?;
        ideas.push(match idea {
            Some(idea) => Idea { name: name.clone(), ..idea.clone() },
            None => of_registry(workflow, registry, name, &known)?,
        });
    }
    Ok(ideas)
}

/// The strategies of the workflow's repair steps for a detect step. One is called by its name, or, if it is a step's only one and has no name
/// of its own, by the step's; a strategy whose name others have too, by both.
fn of_workflow(workflow: &Workflow, detect: &str, variables: &Variables) -> Result<Vec<Idea>> {
    let mut ideas: Vec<Idea> = Vec::new();
    for step in &workflow.steps {
        let StepKind::Repair { strategies, of, .. } = &step.kind else { continue };
        for (index, strategy) in strategies.iter().enumerate().filter(|_| of == detect) {
            let terms = Terms::of(workflow, step, index)?;
            let with = strategy.with.resolve(variables).map_err(|error| {
                Error::invalid("the `with` of a repair step cannot be computed outside of a run; only `$params` is known here")
                    .on("step", &step.name)
                    .because(error)
            })?;
            let is_nameless = strategies.len() == 1 && strategy.name == strategy.plugin;
            ideas.push(Idea {
                name: if is_nameless { step.name.clone() } else { strategy.name.clone() },
                strategy: Some((step.name.clone(), strategy.name.clone())),
                plugin: strategy.plugin.clone(),
                with,
                concurrency: terms.concurrency,
                rate_limit: terms.rate_limit,
                retry: terms.retry.to_vec(),
                budgets: terms.budgets.into_iter().cloned().collect(),
                tags: terms.tags,
            });
        }
    }
    let names: Vec<String> = ideas.iter().map(|idea| idea.name.clone()).collect();
    for idea in &mut ideas {
        let is_ambiguous = names.iter().filter(|name| **name == idea.name).count() > 1;
        if let (true, Some((step, strategy))) = (is_ambiguous, &idea.strategy)
            && idea.name != *step
        {
            idea.name = format!("{step}/{strategy}");
        }
    }
    Ok(ideas)
}

/// The workflow's idea of a name: its own, that of its strategy or step, both, or its plug-in's.
fn find<'a>(known: &'a [Idea], name: &str) -> Result<Option<&'a Idea>> {
    let of_strategy =
        |idea: &Idea, is: &dyn Fn(&str, &str) -> bool| idea.strategy.as_ref().is_some_and(|(step, strategy)| is(step, strategy));
    let ways: [&dyn Fn(&Idea) -> bool; 4] = [
        &|idea| idea.name == name,
        &|idea| of_strategy(idea, &|step, strategy| name.strip_prefix(step).and_then(|rest| rest.strip_prefix('/')) == Some(strategy)),
        &|idea| of_strategy(idea, &|step, strategy| name == step || name == strategy),
        &|idea| idea.plugin == name || idea.plugin == dashed(name),
    ];
    for is_meant in ways {
        let meant: Vec<&Idea> = known.iter().filter(|idea| is_meant(idea)).collect();
        match meant[..] {
            [] => {}
            [one] => return Ok(Some(one)),
            _ => {
                let names: Vec<&str> = meant.iter().map(|idea| idea.name.as_str()).collect();
                return Err(Error::invalid(format!("`{name}` may be several ideas; name the one that is meant: {}", listed(&names))));
            }
        }
    }
    Ok(None)
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

/// A registered repairer that works with what the workflow gives: nothing, or its only source.
fn of_registry(workflow: &Workflow, registry: &Registry, name: &str, known: &[Idea]) -> Result<Idea> {
    let registered = |name: &str| registry.get(PluginKind::Repairer, name);
    let Some(entry) = registered(name).or_else(|| registered(&dashed(name))) else {
        let repairers = registry.entries().filter(|entry| entry.kind == PluginKind::Repairer).map(|entry| entry.name.as_str());
        let names: Vec<&str> = known.iter().map(|idea| idea.name.as_str()).chain(repairers).collect();
        let close = closest(name, names.iter().copied()).map(|close| format!("; did you mean `{close}`?")).unwrap_or_default();
        return Err(Error::new(ErrorKind::NotFound, format!("no idea `{name}`{close} There are {}", listed(&names))));
    };
    let mut refused = None;
    let only_source = match workflow.sources.keys().collect::<Vec<_>>()[..] {
        [only] => Some(json!({ "source": only })),
        _ => None,
    };
    for with in [Some(json!({})), only_source].into_iter().flatten() {
        match entry.make(&with) {
            Ok(_) => {
                return Ok(Idea {
                    name: name.to_owned(),
                    strategy: None,
                    plugin: entry.name.clone(),
                    with,
                    concurrency: CONCURRENCY,
                    rate_limit: None,
                    retry: Vec::new(),
                    budgets: workflow.budget.iter().cloned().collect(),
                    tags: workflow.tags.clone().into_iter().chain([("idea".to_owned(), name.to_owned())]).collect(),
                });
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let why = refused.map(|error| error.message).unwrap_or_default();
    Err(Error::invalid(format!(
        "`{name}` needs a `with` that nobody gives: {why}; write it as a repair step of the workflow, and name that"
    )))
}

/// The tables that the workflow's aggregate steps write, with the steps: those that look at the detect step's findings, or at none.
pub(super) fn aggregates<'a>(workflow: &'a Workflow, detect: &str) -> Vec<&'a Step> {
    let fits = |step: &&Step| match &step.kind {
        StepKind::Aggregate { of, .. } => of.as_ref().is_none_or(|of| of == detect),
        _ => false,
    };
    workflow.steps.iter().filter(fits).collect()
}

/// The plug-in of a step that has one, and its configuration.
pub(super) fn plugin(step: &Step) -> Result<(PluginKind, &str, &Template)> {
    step.kind.plugins().into_iter().next().ok_or_else(|| Error::internal(format!("step `{}` has no plug-in", step.name)))
}

/// What parameters alone let expressions speak of.
pub(super) fn variables(params: &BTreeMap<String, Value>, now: jiff::Timestamp) -> Variables {
    Variables {
        params: Value::Object(params.clone().into_iter().collect()),
        run: json!({ "started_at": now.to_string(), "now": now.to_string() }),
        ..Variables::default()
    }
}
