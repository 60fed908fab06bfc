//! What people do to runs: take one up where it failed, go on with a mended definition. Pure: a state in, an event or a refusal out.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::pure::event::{Event, Outcome, Settled};
use crate::engine::pure::state::RunState;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::workflow::{Step, StepKind, Template, Workflow};

/// Takes up a run that has ended where it failed.
///
/// A run that ended at a `fail` step goes back to the step that led there, because to fail again is no use.
///
/// # Errors
/// `conflict` if it has not ended, or succeeded; or if what it failed at can't be told.
pub fn redrive(run: &str, state: &RunState, workflow: &Workflow) -> Result<Event> {
    let refuse = |why: String| Err(Error::new(ErrorKind::Conflict, why));
    let Some(ended) = &state.ended else {
        let error = Error::new(ErrorKind::Conflict, format!("run `{run}` has not ended, so it cannot be redriven"));
        return Err(error.hint(Hint::Resume { run: run.to_owned() }));
    };
    if ended.outcome == Outcome::Succeeded {
        return refuse(format!("run `{run}` succeeded; there is nothing to take up"));
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
            _ => return refuse(format!("run `{run}` ended at step `{name}`, to which no step led; start a new run")),
        }
    }
    let settled = state.steps.values().any(|step| matches!(step.settled, Some(Settled::Failed { .. })));
    if ended.outcome == Outcome::SucceededWithExceptions && !settled {
        return refuse(format!("run `{run}` came to its end with exceptions; start a new run, which finds what is still wrong"));
    }
    if state.active.is_empty() && !settled {
        return refuse(format!("run `{run}` keeps nothing that could be taken up; start a new run"));
    }
    Ok(Event::RunRedriven { back })
}

/// Goes on with a run by a mended definition, if what it already did still means the same.
///
/// What was done by a step (found, planned, put out) was done by its kind, plug-in, `of` and `with`, and by the tables these name; so those
/// of steps that the run came to must be as they were. Everything else may change: where steps lead, what is tried again or caught, limits,
/// timeouts, sources, and all of steps that the run has not come to.
///
/// # Errors
/// `conflict`, naming all that can't be changed any more.
pub fn replace(state: &RunState, before: Option<&Workflow>, mended: &Workflow) -> Result<Event> {
    let mut refused = Vec::new();
    let mut changes = Vec::new();
    if mended.name != state.started.workflow {
        refused.push(format!("it is the workflow `{}`, and the run is of `{}`", mended.name, state.started.workflow));
    }
    match before {
        Some(before) => compare(state, before, mended, &mut refused, &mut changes),
        None if state.steps.is_empty() => changes.push("the definition can be read again".to_owned()),
        None => refused.push("the definition by which it did its work can no longer be read".to_owned()),
    }
    for (name, param) in &mended.params {
        if !state.started.params.contains_key(name) {
            let needed = if param.default.is_some() { "; its default is not taken up" } else { "" };
            refused.push(format!("parameter `{name}` is new, and what a run works on is fixed when it starts{needed}"));
        }
    }
    if refused.is_empty() {
        return Ok(Event::DefinitionReplaced {
            definition: mended.text.clone(),
            file: mended.file.clone(),
            children: mended.children.clone(),
            changes,
        });
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("the run can't go on with this definition: {}; start a new run with it", refused.join("; ")),
    ))
}

fn compare(state: &RunState, before: &Workflow, mended: &Workflow, refused: &mut Vec<String>, changes: &mut Vec<String>) {
    if before.kind.is_dag() != mended.kind.is_dag() {
        refused.push("its kind is another".to_owned());
    }
    let mut tables = BTreeSet::new();
    for (name, done) in &state.steps {
        let Some(old) = before.step(name) else { continue };
        let begun = state.active.contains_key(name) || done.attempts > 0 || done.visits > 0;
        let Some(new) = mended.step(name) else {
            if begun {
                refused.push(format!("step `{name}` is gone, and the run came to it"));
            }
            continue;
        };
        if !begun {
            continue;
        }
        tables.extend(table_of(old));
        if let Some(what) = different_work(old, new) {
            refused.push(format!("the {what} of step `{name}` is another, and the run came to it"));
        } else if old.inside != new.inside {
            refused.push(format!("step `{name}` is in another branch, and the run came to it"));
        }
    }
    for name in tables {
        if before.tables.get(&name) != mended.tables.get(&name) {
            refused.push(format!("table `{name}` is another, and the run worked on it"));
        }
    }
    for step in &mended.steps {
        match before.step(&step.name) {
            None => changes.push(format!("step `{}` is new", step.name)),
            Some(old) if different_work(old, step).is_some() => changes.push(format!("step `{}` does something else", step.name)),
            Some(old) if format!("{old:?}") != format!("{step:?}") => changes.push(format!("step `{}` goes on otherwise", step.name)),
            Some(_) => {}
        }
    }
    changes.extend(before.steps.iter().filter(|old| mended.step(&old.name).is_none()).map(|old| format!("step `{}` is gone", old.name)));
    if before.budget != mended.budget {
        changes.push("the budget".to_owned());
    }
    if before.prices != mended.prices {
        changes.push("prices".to_owned());
    }
    if format!("{:?}", before.sources) != format!("{:?}", mended.sources) {
        changes.push("sources".to_owned());
    }
}

/// What makes the work of two steps different, if anything does.
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
            if old.text != new.text || !same(old_with, new_with) =>
        {
            Some("workflow")
        }
        _ => None,
    }
}

/// The table that a step's configuration names, if it does so in plain words.
fn table_of(step: &Step) -> Option<String> {
    step.kind.plugins().iter().find_map(|(_, _, with)| with.text_of("table")).map(str::to_owned)
}
