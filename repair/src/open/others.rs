//! The other lakes that a workflow reads: its tables say of which profile they are, and each such lake is opened to be read, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::bucket::Bucket;
use super::folder;
use super::place::Root;
use repair_core::engine::prepare::Lakes;
use repair_core::lake::Lake;
use repair_core::workflow::Workflow;
use repair_core::{Error, Result};

/// The key of a run's environment under which it keeps where they are.
const LAKES: &str = "lakes";

/// Other lakes by profile, and what a run keeps of where they are.
#[derive(Default)]
pub(super) struct Others {
    pub(super) lakes: Lakes,
    places: serde_json::Map<String, Value>,
}

impl Others {
    /// Opens the lakes of which a workflow, or one that it runs as a step, reads tables. Those that are given are not opened.
    ///
    /// # Errors
    /// `invalid` if a profile is not there; `not-found` if a lake is not.
    pub(super) async fn of(workflow: &Workflow, params: &BTreeMap<String, Value>, given: BTreeMap<String, Arc<dyn Lake>>) -> Result<Self> {
        let (mut lakes, mut places) = (given, serde_json::Map::new());
        for profile in profiles(workflow) {
            if lakes.contains_key(&profile) {
                continue;
            }
            let root = Root::of_profile(workflow, &profile, None, params).map_err(|error| error.on("lake", &profile))?;
            places.insert(profile.clone(), place(&root));
            let lake = root.open_to_read(&profile).await.map_err(|error| error.on("lake", &profile))?;
            lakes.insert(profile, lake);
        }
        Ok(Self { lakes: Arc::new(lakes), places })
    }

    /// What a run keeps of where it runs, with where these lakes are.
    pub(super) fn add_to(self, mut environment: Value) -> Value {
        if let (Some(fields), false) = (environment.as_object_mut(), self.places.is_empty()) {
            fields.insert(LAKES.to_owned(), Value::Object(self.places));
        }
        environment
    }
}

/// Opens the lakes that a run reads, as it kept where they are.
///
/// # Errors
/// `not-found` if one is not there any more.
pub(super) async fn of_environment(environment: &Value) -> Result<Lakes> {
    let mut lakes: BTreeMap<String, Arc<dyn Lake>> = BTreeMap::new();
    for (profile, place) in environment.get(LAKES).and_then(Value::as_object).into_iter().flatten() {
        let with = place.get("with").cloned().unwrap_or_default();
        let root = match place.get("lake").and_then(Value::as_str) {
            Some("local") => Root::Folder { path: folder::root_of(profile, with)?, profile: Some(profile.clone()) },
            Some("athena") => Root::Bucket(Bucket::of_profile(profile, with)?),
            _ => return Err(Error::invalid(format!("the run does not say where the lake of profile `{profile}` is"))),
        };
        lakes.insert(profile.clone(), root.open_to_read(profile).await.map_err(|error| error.on("lake", profile))?);
    }
    Ok(Arc::new(lakes))
}

/// The profiles of the other lakes of a workflow and those that it runs as steps.
fn profiles(workflow: &Workflow) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = workflow.elsewhere.keys().cloned().collect();
    all.extend(workflow.steps.iter().filter_map(|step| step.kind.inner()).flat_map(|(inner, _)| profiles(inner)));
    all
}

/// Where a lake is, for a process that works elsewhere.
fn place(root: &Root) -> Value {
    match root {
        Root::Folder { path, .. } => {
            let path: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            json!({ "lake": "local", "with": { "root": path } })
        }
        Root::Bucket(bucket) => json!({ "lake": "athena", "with": bucket.with() }),
        Root::Given { .. } => json!({ "lake": "given" }),
    }
}
