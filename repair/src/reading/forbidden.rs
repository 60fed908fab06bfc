//! Places that belong to the lake, so that no file is written there: it would be taken for rows, or for a repair.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::output::folder_of;
use crate::open::OpenLake;
use crate::provenance::subject::History;
use repair_core::engine::load;
use repair_core::lake::overlay::owner::named;
use repair_core::lake::{Lake, overlay, stale};
use repair_core::model::Table;
use repair_core::workflow::{Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};

/// Folders that hold what the lake keeps about runs.
const OURS: [&str; 2] = [".repair", "_repair"];

/// Refuses a path that belongs to the lake: in the folder of a table or a source that the given tables, the given workflow or a run
/// names, in an overlay, or in the lake's own folder.
///
/// # Errors
/// `invalid` if it does, or if it is not a path of this machine; `not-found` if its folder is not there.
pub(super) async fn check(open: &OpenLake, lake: &dyn Lake, path: &Path, known: &[Table], workflow: Option<&Workflow>) -> Result<()> {
    if path.to_str().is_some_and(|path| path.starts_with("s3://")) {
        let message = format!("{} is in S3, and rows are written to a file of this machine; write one, and copy it there", path.display());
        return Err(Error::invalid(message));
    }
    let folder = folder_of(path);
    let folder = folder.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("there is no folder {}; create it", folder.display())),
        _ => Error::new(ErrorKind::Denied, format!("the folder {} cannot be looked at", folder.display())).because(error),
    })?;
    let Some(name) = path.file_name() else {
        return Err(Error::invalid(format!("{} names no file", path.display())));
    };
    let place = folder.join(name);
    let refuse = |what: String| Error::invalid(format!("{} is {what}; choose a place outside of it", path.display()));
    let root = open.folder().map(|root| {
        root.canonicalize().map_err(|error| {
            Error::new(ErrorKind::Transient, format!("the lake's folder {} cannot be looked at", root.display())).because(error)
        })
    });
    if let Some(root) = root.transpose()?
        && let Ok(below) = place.strip_prefix(&root)
    {
        let folders = below.parent().into_iter().flat_map(Path::components);
        for folder in folders.filter_map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        }) {
            if OURS.contains(&folder) {
                return Err(refuse(format!("in {folder}, where the lake keeps what it knows about runs")));
            }
            if named(folder).is_some() {
                return Err(refuse(format!("in {folder}, which is named like the repairs of a table")));
            }
        }
    }
    let mut tables: BTreeSet<(String, String)> = BTreeSet::new();
    let mut places: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut add = |table: &Table| {
        if tables.insert((table.name.clone(), table.location.clone())) {
            places.insert(PathBuf::from(lake.place(table)), format!("table `{}`", table.name));
        }
    };
    known.iter().for_each(&mut add);
    if let Some(workflow) = workflow {
        of_workflow(workflow).iter().for_each(&mut add);
    }
    match History::of(open).await {
        Ok(history) => {
            for head in history.latest().await? {
                let state = load(history.journal.as_ref(), &head.run).await?;
                state.steps.values().filter_map(|step| stale::written(&step.output)).for_each(|into| add(&into));
                if let Ok(workflow) = open.workflow_of(&state) {
                    of_workflow(&workflow).iter().for_each(&mut add);
                }
            }
        }
        // Nothing was run here, so there is nothing more to know.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Places in S3 are no paths.
    for (own, what) in places.iter().filter(|(own, _)| own.is_absolute()) {
        if place.starts_with(own) {
            return Err(refuse(format!("where {what} lies")));
        }
        let beside = own.file_name().and_then(|name| name.to_str()).map(|name| {
            [overlay::repairs(name), overlay::exceptions(name), overlay::retractions(name)].map(|name| own.with_file_name(name))
        });
        if beside.iter().flatten().any(|beside| place.starts_with(beside)) {
            return Err(refuse(format!("where the repairs of {what} lie")));
        }
    }
    Ok(())
}

/// The tables of a workflow, and what its sources read.
fn of_workflow(workflow: &Workflow) -> Vec<Table> {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let mut all: Vec<Table> = workflow.tables.values().cloned().collect();
    for (name, source) in &workflow.sources {
        // Where a source lies that depends on params is not known here.
        let with = source.with.resolve(&Variables::at_start(&BTreeMap::new(), now, now)).unwrap_or_default();
        if let Some(location) = with.get("location").and_then(|location| location.as_str()) {
            all.push(Table::implicit(name, "time").with_location(location));
        }
    }
    all
}
