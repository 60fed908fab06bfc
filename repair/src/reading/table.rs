//! Finds a table that is to be read: one that a workflow declares, or one that an aggregate step wrote.

use crate::provenance::subject::{History, Subject, TableName};
use repair_core::engine::{RunState, load};
use repair_core::lake::stale;
use repair_core::model::{Format, Table};
use repair_core::plugin::{Drawing, PluginKind, Registry};
use repair_core::workflow::{StepKind, Workflow};
use repair_core::{Error, ErrorKind, Hint, Result};

/// A table to read.
pub(super) struct Found<'a> {
    pub(super) subject: Subject<'a>,
    /// Whether no workflow declares it, since an aggregate step made it. Nothing repairs such a table.
    pub(super) is_computed: bool,
}

/// Finds a table.
///
/// # Errors
/// `not-found` if no workflow declares it and no run computed it.
pub(super) async fn find<'a>(name: &TableName, open: &'a crate::OpenLake) -> Result<Found<'a>> {
    let missing = match name.open(open).await {
        Ok(subject) => return Ok(Found { subject, is_computed: false }),
        Err(error) if error.kind() == ErrorKind::NotFound => error,
        Err(error) => return Err(error),
    };
    // Without a journal, this is the error.
    let Ok(history) = History::of(open).await else { return Err(missing) };
    let Some((table, run)) = computed(&history, &name.name).await? else { return Err(missing) };
    let lake = history.lake(Some(&run)).await?;
    Ok(Found { subject: Subject { history, table, lake, run: Some(run) }, is_computed: true })
}

/// A table that no workflow declares and that the latest run wrote which wrote one of that name, with the run.
async fn computed(history: &History<'_>, name: &str) -> Result<Option<(Table, String)>> {
    for head in history.latest().await? {
        let state = load(history.journal.as_ref(), &head.run).await?;
        for (step, of) in &state.steps {
            let Some(into) = stale::written(&of.output).filter(|into| into.name == name) else { continue };
            // The step has found its time column, or its plug-in says what it is called.
            let time = of.output.get("time").and_then(|time| time.as_str()).map(str::to_owned);
            let workflow = history.open.workflow_of(&state).ok();
            let drawn = workflow.as_ref().and_then(|workflow| drawn(&history.open.around.registry, workflow, &state, step));
            let (time, key) = match (time, drawn) {
                (Some(time), drawn) => (time, drawn.map(|(_, key)| key).unwrap_or_default()),
                (None, Some(drawn)) => drawn,
                (None, None) => {
                    let message = format!(
                        "step {step} of run {} has written table `{name}`, and nothing says which of its columns is the time; \
                         declare it under `tables`",
                        head.run
                    );
                    return Err(Error::invalid(message).hint(Hint::DeclaringWorkflow));
                }
            };
            let table = Table::new(into.name, Format::Parquet, time).with_location(into.location).with_key(key);
            return Ok(Some((table, head.run)));
        }
    }
    Ok(None)
}

/// The time and key columns of what a step writes, if its plug-in says how that is drawn.
fn drawn(registry: &Registry, workflow: &Workflow, state: &RunState, step: &str) -> Option<(String, Vec<String>)> {
    let StepKind::Aggregate { plugin, of, .. } = &workflow.step(step)?.kind else { return None };
    let Drawing::Candles { time, .. } = registry.get(PluginKind::Aggregator, plugin)?.drawing.clone()? else { return None };
    let examined = of.as_ref().and_then(|of| state.findings.get(of)).and_then(|found| workflow.tables.get(&found.scope.table));
    Some((time, examined.map(|table| table.key.clone()).unwrap_or_default()))
}
