//! Which strategies are compared: those of a workflow's repair steps, by name, and repairers that need no more than the workflow gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use repair_core::engine::prepare::{Lakes, Terms};
use repair_core::lake::Lake;
use repair_core::model::Table;
use repair_core::plugin::{PluginKind, Registry, Repairer, Source, UserQuery};
use repair_core::price::Budget;
use repair_core::workflow::{Rate, RetryRule, Step, StepKind, Template, Variables, Workflow};
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Hint, Result};

/// How many units run at once if no step says it: as many as in a repair step.
const CONCURRENCY: usize = 4;

/// A strategy that is compared.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its name.
    pub(super) name: String,
    /// The repair step that has it, and its name there; `None` if no step has it.
    pub(super) origin: Option<(String, String)>,
    /// The repairer.
    pub(super) plugin: String,
    /// Its configuration.
    pub(super) with: Value,
    /// How many units run at once.
    pub(super) concurrency: usize,
    /// How many units may begin in how much time.
    pub(super) rate_limit: Option<Rate>,
    /// What is tried again.
    pub(super) retry: Vec<RetryRule>,
    /// What it may spend: the run's budget, its step's, and its own.
    pub(super) budgets: Vec<Budget>,
    /// Tags on what it costs.
    pub(super) tags: BTreeMap<String, String>,
}

impl Candidate {
    /// The source that it asks, if it asks one.
    pub(super) fn source(&self) -> Option<&str> {
        self.with.get("source").and_then(Value::as_str)
    }
}

/// What competes: one strategy, or several of which each gets what those before it have left.
#[derive(Debug, Clone)]
pub(super) struct Entrant {
    /// Its name.
    pub(super) name: String,
    /// Its strategies, in order; at least one.
    pub(super) parts: Vec<Candidate>,
}

/// The repairer that runs a program.
const PROGRAM: &str = "command";

/// Between the names of the strategies of a chain.
pub(super) const THEN: char = '+';

/// The maximum number of strategies of a chain, as of a step.
const MOST_PARTS: usize = 20;

impl Entrant {
    fn single(candidate: Candidate) -> Self {
        Self { name: candidate.name.clone(), parts: vec![candidate] }
    }

    /// One after the other.
    pub(super) fn chain(first: &Self, then: &Self) -> Self {
        let parts = first.parts.iter().chain(&then.parts).cloned().collect();
        Self { name: format!("{}{THEN}{}", first.name, then.name), parts }
    }

    /// Whether it asks a source, or runs a program, which may ask anything.
    pub(super) fn asks(&self) -> bool {
        self.parts.iter().any(|part| part.source().is_some() || part.plugin == PROGRAM)
    }
}

/// The detect step whose table is compared: the one named, else the only one that there is for repair steps, or at all.
pub(super) fn detect_step<'a>(workflow: &'a Workflow, named: Option<&str>) -> Result<&'a Step> {
    let detects = || workflow.steps.iter().filter(|step| matches!(step.kind, StepKind::Detect { .. }));
    if let Some(named) = named {
        return detects().find(|step| step.name == named).ok_or_else(|| {
            let names: Vec<&str> = detects().map(|step| step.name.as_str()).collect();
            Error::new(ErrorKind::NotFound, format!("the workflow has no detect step `{named}`; its detect steps are {}", listed(&names)))
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
            let message =
                format!("the workflow has several detect steps ({}); choose the one whose strategies are compared", listed(&names));
            Err(Error::invalid(message).hint(Hint::DetectStep { known: names.into_iter().map(str::to_owned).collect() }))
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The strategies of these names; if none is named, all that the workflow has for the detect step. The strategies of a step with several also compete
/// as a chain, by the name of the step (with `/all` if a strategy has that name), and names with `+` between them are a chain.
pub(super) fn entrants(
    workflow: &Workflow,
    registry: &Registry,
    of: &str,
    names: &[String],
    variables: &Variables,
) -> Result<Vec<Entrant>> {
    let known = of_workflow(workflow, of, variables)?;
    let chains = chains_of(&known);
    if names.is_empty() {
        if known.is_empty() {
            let message = format!("no step repairs what `{of}` finds; name strategies, e.g. carry-forward");
            return Err(Error::invalid(message).hint(Hint::Strategies));
        }
        return Ok(known.into_iter().map(Entrant::single).chain(chains).collect());
    }
    let one = |name: &str| match find(&known, name)? {
        Some(candidate) => Ok(Candidate { name: name.to_owned(), ..candidate.clone() }),
        None => of_registry(workflow, registry, name, &known),
    };
    let mut entrants: Vec<Entrant> = Vec::with_capacity(names.len());
    for name in names {
        if entrants.iter().any(|entrant| entrant.name == *name) {
            return Err(Error::invalid(format!("`{name}` is named twice; name each strategy once")));
        }
        let is_known = known.iter().any(|candidate| candidate.name == *name);
        entrants.push(match chains.iter().find(|chain| chain.name == *name).filter(|_| !is_known) {
            Some(chain) => chain.clone(),
            None if name.contains(THEN) && !is_known => chain_of_names(name, one)?,
            None => Entrant::single(one(name)?),
        });
    }
    Ok(entrants)
}

/// Refuses strategies whose SQL a lake would run over the hidden rows, before anything is read or asked.
///
/// # Errors
/// `invalid` with the strategies that run SQL, themselves or by their source, and those that do not.
pub(super) fn refuse_sql(
    (workflow, registry): (&Workflow, &Registry),
    (lake, lakes): (&dyn Lake, &Lakes),
    entrants: &[Entrant],
    variables: &Variables,
) -> Result<()> {
    // What cannot be made is reported where it is tried.
    let sees_all = |query: UserQuery<'_>| match query.lake {
        None => !lake.hides_rows(),
        Some(profile) => {
            lakes.get(profile).is_some_and(|other| has_tables_of(other.as_ref(), workflow.elsewhere.get(profile), (lake, workflow)))
        }
    };
    let of_source = |part: &Candidate| {
        let used = workflow.sources.get(part.source()?)?;
        let source = registry.make(PluginKind::Source, &used.plugin, &used.with.resolve(variables).ok()?).ok()?;
        let source: Arc<dyn Source> = source.try_into().ok()?;
        source.query().filter(|query| sees_all(*query)).map(|_| ())
    };
    let own = |part: &Candidate| {
        let repairer: Arc<dyn Repairer> = registry.make(PluginKind::Repairer, &part.plugin, &part.with).ok()?.try_into().ok()?;
        repairer.query().filter(|query| sees_all(*query)).map(|_| ())
    };
    let runs_sql = |entrant: &&Entrant| entrant.parts.iter().any(|part| own(part).or_else(|| of_source(part)).is_some());
    let (with, without): (Vec<&Entrant>, Vec<&Entrant>) = entrants.iter().partition(runs_sql);
    if with.is_empty() {
        return Ok(());
    }
    let names = |entrants: &[&Entrant]| entrants.iter().map(|entrant| format!("`{}`", entrant.name)).collect::<Vec<_>>().join(", ");
    let others = if without.is_empty() { String::new() } else { format!(" compare {} without;", names(&without)) };
    Err(Error::invalid(format!(
        "SQL cannot be compared on this lake, and {} would run some: its engine reads tables by itself, and may know the hidden rows by other names, so \
         nobody can keep them from a query;{others} or compare on a lake in a folder that holds a copy of the tables",
        names(&with)
    )))
}

/// Whether a query in another lake may see rows that are hidden in this one: if both are read by an engine, which knows tables by more names, or if a table
/// of the other lake is one of this.
fn has_tables_of(other: &dyn Lake, tables: Option<&BTreeMap<String, Table>>, (lake, workflow): (&dyn Lake, &Workflow)) -> bool {
    if other.is_queried() && lake.is_queried() {
        return true;
    }
    let own: Vec<String> = workflow.tables.values().map(|table| lake.place(table)).collect();
    let is_within = |one: &str, of: &str| one.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let places = tables.into_iter().flat_map(BTreeMap::values).map(|table| other.place(table));
    places.into_iter().any(|place| own.iter().any(|own| is_within(own, &place) || is_within(&place, own)))
}

/// The strategies of each step that has several.
fn chains_of(known: &[Candidate]) -> Vec<Entrant> {
    let mut steps: Vec<Entrant> = Vec::new();
    for candidate in known {
        let Some((step, _)) = &candidate.origin else { continue };
        match steps.iter_mut().find(|chain| chain.name == *step) {
            Some(chain) => chain.parts.push(candidate.clone()),
            None => steps.push(Entrant { name: step.clone(), parts: vec![candidate.clone()] }),
        }
    }
    steps.retain(|chain| chain.parts.len() > 1);
    for chain in steps.iter_mut().filter(|chain| known.iter().any(|candidate| candidate.name == chain.name)) {
        chain.name.push_str("/all");
    }
    steps
}

fn chain_of_names(name: &str, one: impl Fn(&str) -> Result<Candidate>) -> Result<Entrant> {
    let names: Vec<&str> = name.split(THEN).collect();
    if names.len() > MOST_PARTS {
        return Err(Error::invalid(format!("`{name}` has more than {MOST_PARTS} strategies; name fewer")));
    }
    let mut parts: Vec<Candidate> = Vec::with_capacity(names.len());
    for part in names {
        if parts.iter().any(|known| known.name == part) {
            return Err(Error::invalid(format!("`{name}` has `{part}` twice; in a chain, name each strategy once")));
        }
        parts.push(one(part)?);
    }
    Ok(Entrant { name: name.to_owned(), parts })
}

/// The strategies of the workflow's repair steps for a detect step. A strategy goes by its own name; by the step's name if it is the step's only
/// one and has none; by both if another strategy has the same name.
fn of_workflow(workflow: &Workflow, detect: &str, variables: &Variables) -> Result<Vec<Candidate>> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for step in &workflow.steps {
        let StepKind::Repair { strategies, of, .. } = &step.kind else { continue };
        for (index, strategy) in strategies.iter().enumerate().filter(|_| of == detect) {
            let terms = Terms::of(workflow, step, index)?;
            let with = strategy.with.resolve(variables).map_err(|error| {
                Error::invalid("the `with` of a repair step cannot be computed outside a run, where only `$params` is known")
                    .on("step", &step.name)
                    .because(error)
            })?;
            let is_nameless = strategies.len() == 1 && strategy.name == strategy.plugin;
            candidates.push(Candidate {
                name: if is_nameless { step.name.clone() } else { strategy.name.clone() },
                origin: Some((step.name.clone(), strategy.name.clone())),
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
    let names: Vec<String> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    for candidate in &mut candidates {
        let is_ambiguous = names.iter().filter(|name| **name == candidate.name).count() > 1;
        if let (true, Some((step, strategy))) = (is_ambiguous, &candidate.origin)
            && candidate.name != *step
        {
            candidate.name = format!("{step}/{strategy}");
        }
    }
    Ok(candidates)
}

/// The workflow's strategy of a name, which may be its own, that of its step, both, or its plug-in's.
fn find<'a>(known: &'a [Candidate], name: &str) -> Result<Option<&'a Candidate>> {
    let of_strategy = |candidate: &Candidate, is: &dyn Fn(&str, &str) -> bool| {
        candidate.origin.as_ref().is_some_and(|(step, strategy)| is(step, strategy))
    };
    let ways: [&dyn Fn(&Candidate) -> bool; 4] = [
        &|candidate| candidate.name == name,
        &|candidate| {
            of_strategy(candidate, &|step, strategy| name.strip_prefix(step).and_then(|rest| rest.strip_prefix('/')) == Some(strategy))
        },
        &|candidate| of_strategy(candidate, &|step, strategy| name == step || name == strategy),
        &|candidate| candidate.plugin == name || candidate.plugin == dashed(name),
    ];
    for is_meant in ways {
        let meant: Vec<&Candidate> = known.iter().filter(|candidate| is_meant(candidate)).collect();
        match meant[..] {
            [] => {}
            [one] => return Ok(Some(one)),
            _ => {
                let names: Vec<&str> = meant.iter().map(|candidate| candidate.name.as_str()).collect();
                return Err(Error::invalid(format!("`{name}` may mean several strategies; name one of {}", listed(&names))));
            }
        }
    }
    Ok(None)
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

/// A registered repairer that works with what the workflow gives: nothing, or its only source.
fn of_registry(workflow: &Workflow, registry: &Registry, name: &str, known: &[Candidate]) -> Result<Candidate> {
    let registered = |name: &str| registry.get(PluginKind::Repairer, name);
    let Some(entry) = registered(name).or_else(|| registered(&dashed(name))) else {
        let repairers = registry.entries().filter(|entry| entry.kind == PluginKind::Repairer).map(|entry| entry.name.as_str());
        let names: Vec<&str> = known.iter().map(|candidate| candidate.name.as_str()).chain(repairers).collect();
        let close = closest(name, names.iter().copied()).map(|close| format!(" (did you mean `{close}`?)")).unwrap_or_default();
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no strategy `{name}`{close}; the strategies are {}", listed(&names)),
        ));
    };
    let mut refused = None;
    let only_source = match workflow.sources.keys().collect::<Vec<_>>()[..] {
        [only] => Some(json!({ "source": only })),
        _ => None,
    };
    for with in [Some(json!({})), only_source].into_iter().flatten() {
        match entry.make(&with) {
            Ok(_) => {
                return Ok(Candidate {
                    name: name.to_owned(),
                    origin: None,
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
        "`{name}` needs a `with`, and none is given here: {why}; make it a repair step of the workflow, and name that step"
    )))
}

/// The workflow's aggregate steps that use the findings of the detect step, or none.
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

/// The variables of expressions that are known outside a run.
pub(super) fn variables(
    workflow: &Workflow,
    params: &BTreeMap<String, Value>,
    began: jiff::Timestamp,
    now: jiff::Timestamp,
) -> Result<Variables> {
    Ok(Variables::at_start(&workflow.fix(params, now)?, began, now))
}
