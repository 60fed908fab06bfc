//! What people may do to a run: redrive it from where it failed, or continue it with a corrected definition. Pure: it takes a state and
//! returns an event or a refusal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::pure::event::{Event, Outcome, Settled};
use crate::engine::pure::state::RunState;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::workflow::{Step, StepKind, Template, Workflow};

/// Continues a run that has ended, from where it failed.
///
/// A run that ended at a `fail` step goes back to the step that led there; otherwise it would only fail again.
///
/// # Errors
/// `conflict` if the run has not ended, if it succeeded, or if there is no step to go back to.
pub fn redrive(run: &str, state: &RunState, workflow: &Workflow) -> Result<Event> {
    let refuse = |why: String| Err(Error::new(ErrorKind::Conflict, why));
    let Some(ended) = &state.ended else {
        let error = Error::new(ErrorKind::Conflict, format!("run `{run}` has not ended, so it cannot be redriven"));
        return Err(error.hint(Hint::Resume { run: run.to_owned() }));
    };
    if ended.outcome == Outcome::Succeeded {
        return refuse(format!("run `{run}` succeeded, so there is nothing to redrive"));
    }
    let mut back = BTreeMap::new();
    for (name, position) in &state.active {
        if !matches!(workflow.step(name).map(|step| &step.kind), Some(StepKind::Fail { .. })) {
            continue;
        }
        match &position.from {
            Some(from) if workflow.step(from).is_some() => {
                back.insert(name.clone(), from.clone());
            }
            _ => return refuse(format!("run `{run}` ended at step `{name}`, and has no earlier step to go back to; start a new run")),
        }
    }
    let settled = state.steps.values().any(|step| matches!(step.settled, Some(Settled::Failed { .. })));
    if ended.outcome == Outcome::SucceededWithExceptions && !settled {
        return refuse(format!(
            "run `{run}` completed with exceptions, and no step failed; start a new run, which detects what is still wrong"
        ));
    }
    if state.active.is_empty() && !settled {
        return refuse(format!("run `{run}` has no step that could be repeated; start a new run"));
    }
    Ok(Event::RunRedriven { back })
}

/// Continues a run with a corrected definition, if what the run already did still means the same.
///
/// A step's results (findings, units, output) follow from its kind, plug-in, `of` and `with`, and from the tables these name. So for steps
/// that the run has reached, these must stay as they were. Everything else may change: transitions, retry and catch rules, limits,
/// timeouts, sources, and steps that the run has not reached.
///
/// # Errors
/// `conflict`, listing everything that can no longer change.
pub fn replace(state: &RunState, before: Option<&Workflow>, corrected: &Workflow) -> Result<Event> {
    let mut refused = Vec::new();
    let mut changes = Vec::new();
    if corrected.name != state.started.workflow {
        refused.push(format!("it defines workflow `{}`, and the run belongs to workflow `{}`", corrected.name, state.started.workflow));
    }
    match before {
        Some(before) => compare(state, before, corrected, &mut refused, &mut changes),
        None if state.steps.is_empty() => changes.push("the definition is readable again".to_owned()),
        None => refused.push("the definition that the run used so far can no longer be read".to_owned()),
    }
    for (name, param) in &corrected.params {
        if !state.started.params.contains_key(name) {
            let default = if param.default.is_some() { "; its default is not used" } else { "" };
            refused.push(format!("parameter `{name}` is new, and the parameters of a run are fixed when it starts{default}"));
        }
    }
    if refused.is_empty() {
        return Ok(Event::DefinitionReplaced {
            definition: corrected.text.clone(),
            file: corrected.file.clone(),
            children: corrected.children.clone(),
            changes,
        });
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("the run cannot continue with this definition: {}; start a new run with it", refused.join("; ")),
    ))
}

fn compare(state: &RunState, before: &Workflow, corrected: &Workflow, refused: &mut Vec<String>, changes: &mut Vec<String>) {
    if before.kind.is_dag() != corrected.kind.is_dag() {
        refused.push("its kind has changed".to_owned());
    }
    let (mut tables, mut calendars) = (BTreeSet::new(), BTreeSet::new());
    for (name, done) in &state.steps {
        let Some(old) = before.step(name) else { continue };
        let begun = state.active.contains_key(name) || done.attempts > 0 || done.visits > 0;
        let Some(new) = corrected.step(name) else {
            if begun {
                refused.push(format!("step `{name}` was removed, and the run has reached it"));
            }
            continue;
        };
        if !begun {
            continue;
        }
        tables.extend(table_of(old));
        calendars.extend(calendar_of(old));
        if let Some(what) = different_work(old, new) {
            refused.push(format!("the {what} of step `{name}` has changed, and the run has reached that step"));
        } else if old.inside != new.inside {
            refused.push(format!("step `{name}` moved to another branch, and the run has reached it"));
        }
    }
    // What they name may be computed; then it is known from what was found with it.
    for found in state.findings.values() {
        tables.insert(found.scope.table.clone());
        calendars.insert(found.scope.calendar.clone());
    }
    for name in tables {
        if before.tables.get(&name) != corrected.tables.get(&name) {
            refused.push(format!("table `{name}` has changed, and the run has used it"));
        }
    }
    for name in calendars {
        if !same_calendar(before, corrected, &name) {
            refused.push(format!("calendar `{name}` has changed, and the run has used it"));
        }
    }
    for step in &corrected.steps {
        match before.step(&step.name) {
            None => changes.push(format!("step `{}` was added", step.name)),
            Some(old) if different_work(old, step).is_some() => changes.push(format!("step `{}` does different work", step.name)),
            Some(old) if format!("{old:?}") != format!("{step:?}") => changes.push(format!("step `{}` changed", step.name)),
            Some(_) => {}
        }
    }
    changes.extend(
        before.steps.iter().filter(|old| corrected.step(&old.name).is_none()).map(|old| format!("step `{}` was removed", old.name)),
    );
    if before.budget != corrected.budget {
        changes.push("the budget changed".to_owned());
    }
    if before.prices != corrected.prices {
        changes.push("prices changed".to_owned());
    }
    if format!("{:?}", before.sources) != format!("{:?}", corrected.sources) {
        changes.push("sources changed".to_owned());
    }
    if format!("{:?}", before.calendars) != format!("{:?}", corrected.calendars) {
        changes.push("calendars changed".to_owned());
    }
}

/// What makes two steps do different work, if anything does.
fn different_work(old: &Step, new: &Step) -> Option<&'static str> {
    if old.kind.word() != new.kind.word() {
        return Some("kind");
    }
    let plugins = |step: &Step| step.kind.plugins().iter().map(|(_, plugin, _)| (*plugin).to_owned()).collect::<Vec<_>>();
    if plugins(old) != plugins(new) {
        return Some("plug-in");
    }
    let names = |step: &Step| step.kind.strategies().iter().map(|strategy| strategy.name.clone()).collect::<Vec<_>>();
    if names(old) != names(new) {
        return Some("list of strategies");
    }
    let of = |step: &Step| match &step.kind {
        StepKind::Repair { of, .. } | StepKind::Verify { of } => Some(of.clone()),
        StepKind::Aggregate { of, .. } => of.clone(),
        _ => None,
    };
    if of(old) != of(new) {
        return Some("`of`");
    }
    let same = |a: &Template, b: &Template| format!("{a:?}") == format!("{b:?}");
    if old.kind.plugins().iter().zip(new.kind.plugins()).any(|((_, _, old), (_, _, new))| !same(old, new)) {
        return Some("`with`");
    }
    match (&old.kind, &new.kind) {
        (StepKind::Parallel { branches: old }, StepKind::Parallel { branches: new }) if old != new => Some("list of branches"),
        (StepKind::Workflow { workflow: old, with: old_with, .. }, StepKind::Workflow { workflow: new, with: new_with, .. })
            if different_workflow(old, new, true) || !same(old_with, new_with) =>
        {
            Some("workflow")
        }
        (StepKind::Map(old), StepKind::Map(new))
            if old.name.is_some() != new.name.is_some()
                || different_workflow(&old.workflow, &new.workflow, new.name.is_some())
                || !same(&old.with, &new.with)
                || old.item != new.item
                || format!("{:?}", old.over) != format!("{:?}", new.over) =>
        {
            Some("map")
        }
        _ => None,
    }
}

/// Whether two workflows that run as a step differ: in their own text, in what they include, or in a workflow that they run. Prices may change. Steps
/// within a map have no text of their own, and what stands around them may change.
fn different_workflow(old: &Workflow, new: &Workflow, has_file: bool) -> bool {
    let inner = |step: &Step| step.kind.inner().map(|(workflow, name)| (Arc::clone(workflow), name.is_some()));
    let pairs = || old.steps.iter().zip(&new.steps);
    let own = if has_file {
        old.text != new.text
    } else {
        old.steps.len() != new.steps.len()
            || old.start != new.start
            || old.kind.is_dag() != new.kind.is_dag()
            || pairs().any(|(old, new)| different_step(old, new))
    };
    own || old.tables != new.tables
        || format!("{:?}", old.sources) != format!("{:?}", new.sources)
        || format!("{:?}", old.calendars) != format!("{:?}", new.calendars)
        || pairs().any(|(old, new)| match (inner(old), inner(new)) {
            (Some((old, _)), Some((new, has_file))) => different_workflow(&old, &new, has_file),
            (old, new) => old.is_some() != new.is_some(),
        })
}

/// Whether two steps differ in anything but in what a workflow that they run says.
fn different_step(old: &Step, new: &Step) -> bool {
    let around = |step: &Step| {
        let kind = if step.kind.inner().is_some() { StepKind::Succeed } else { step.kind.clone() };
        format!("{:?}", Step { kind, ..step.clone() })
    };
    around(old) != around(new) || different_work(old, new).is_some()
}

/// The calendar that a step's configuration names, if it is written out rather than computed.
fn calendar_of(step: &Step) -> Option<String> {
    step.kind.plugins().iter().find_map(|(_, _, with)| with.text_of("calendar")).map(str::to_owned)
}

/// Whether a name means the same calendar in both: one of the workflow's own, or one that neither defines.
fn same_calendar(before: &Workflow, corrected: &Workflow, name: &str) -> bool {
    let meaning = |workflow: &Workflow| workflow.calendars.get(name).map(|calendar| format!("{calendar:?}"));
    meaning(before) == meaning(corrected)
}

/// The table that a step's configuration names, if it is written out rather than computed.
fn table_of(step: &Step) -> Option<String> {
    step.kind.plugins().iter().find_map(|(_, _, with)| with.text_of("table")).map(str::to_owned)
}
