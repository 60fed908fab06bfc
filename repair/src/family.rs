//! The runs within a run: workflows that it ran as steps, the items of its maps, and the runs within these.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use repair_core::Result;
use repair_core::engine::{Journal, RunState, child_run_id, item_run_id, load};
use repair_core::workflow::MapStep;

/// A run, or one within it.
pub(crate) struct Member {
    /// Its id.
    pub(crate) run: String,
    pub(crate) state: RunState,
    /// The step of the outermost run that it belongs to; `None` for that run itself.
    pub(crate) step: Option<String>,
    /// Whether it belongs to the latest visit of its step, and so does each run around it. What an earlier visit found may be different now.
    pub(crate) is_latest: bool,
}

/// A run with all runs within it, each before those within it.
///
/// # Errors
/// `not-found` if there is no such run; those of the journal.
pub(crate) async fn family(journal: &dyn Journal, run: &str, now: Timestamp) -> Result<Vec<Member>> {
    let state = load(journal, run).await?;
    let mut members = vec![Member { run: run.to_owned(), state, step: None, is_latest: true }];
    let mut of: HashMap<String, Vec<String>> = HashMap::new();
    for listed in journal.listed(now).await? {
        if let Some(parent) = listed.begun.parent {
            of.entry(parent).or_default().push(listed.run);
        }
    }
    let mut at = 0;
    while let Some(parent) = members.get(at) {
        at += 1;
        let Some(inner) = of.remove(&parent.run) else { continue };
        let steps = steps_of(&parent.run, &parent.state);
        let (outer, is_latest) = (parent.step.clone(), parent.is_latest);
        for run in inner {
            let (step, latest) = steps.get(&run).cloned().unzip();
            let state = load(journal, &run).await?;
            members.push(Member { run, state, step: outer.clone().or(step), is_latest: is_latest && latest.unwrap_or(false) });
        }
    }
    Ok(members)
}

/// The outermost run around a run; itself if there is none.
///
/// # Errors
/// Those of the journal.
pub(crate) async fn outermost(journal: &dyn Journal, run: String, now: Timestamp) -> Result<String> {
    let mut parents: BTreeMap<String, String> =
        journal.listed(now).await?.into_iter().filter_map(|listed| Some((listed.run, listed.begun.parent?))).collect();
    let mut at = run;
    while let Some(parent) = parents.remove(&at) {
        at = parent;
    }
    Ok(at)
}

/// The ids that runs within a run have, with the step of each, and whether it is of the step's latest visit.
fn steps_of(run: &str, state: &RunState) -> HashMap<String, (String, bool)> {
    let mut ids = HashMap::new();
    for (name, step) in &state.steps {
        for visit in 1..=step.visits {
            let is_latest = visit == step.visits;
            ids.insert(child_run_id(run, name, visit), (name.clone(), is_latest));
            // How long the list was in an earlier visit is not kept.
            let items = match &step.map {
                None => 0,
                Some(map) if is_latest => u32::try_from(map.items.len()).unwrap_or(u32::MAX),
                Some(_) => u32::try_from(MapStep::MAX_ITEMS).unwrap_or(u32::MAX),
            };
            ids.extend((0..items).map(|item| (item_run_id(run, name, visit, item), (name.clone(), is_latest))));
        }
    }
    ids
}
