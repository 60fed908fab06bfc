//! OpenLineage events of a run (<https://openlineage.io/spec/2-0-2/OpenLineage.json>): where it read, where it wrote, and how it ended. Pure.

use std::collections::{BTreeMap, BTreeSet};

use repair_core::engine::news::Follower;
use repair_core::engine::{Event, Outcome, Recorded};
use repair_core::lake::{overlay, stale};
use repair_core::model::Table;
use serde_json::{Map, Value, json};

const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
const PARENT: &str = "https://openlineage.io/spec/facets/1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet";
const ERROR: &str = "https://openlineage.io/spec/facets/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet";
/// Who says it: a URI, as the specification asks for.
const PRODUCER: &str = concat!("urn:repair:", env!("CARGO_PKG_VERSION"));
/// The namespace of workflows as jobs.
const JOBS: &str = "repair";

/// Where a lake is, in the words of OpenLineage: names of datasets follow from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At {
    /// The namespace of its datasets: `file`, or `s3://bucket`.
    pub(crate) namespace: String,
    /// What stands before the location of a table.
    pub(crate) prefix: String,
}

impl At {
    fn dataset(&self, location: &str) -> (String, String) {
        if location.starts_with('/') {
            return (self.namespace.clone(), location.to_owned());
        }
        if let Some((bucket, key)) = location.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
            return (format!("s3://{bucket}"), key.trim_end_matches('/').to_owned());
        }
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        (self.namespace.clone(), format!("{prefix}{}", location.trim_end_matches('/')))
    }
}

/// The events of a run.
#[derive(Debug, Clone)]
pub(super) struct Events {
    run: String,
    at: At,
    /// How often the run was redriven. Each time is a run of its own for OpenLineage, in which a run ends once.
    redriven: u32,
    /// The table that each repair step works on.
    planned: BTreeMap<String, String>,
    /// The tables to whose repairs something was added.
    repaired: BTreeSet<String>,
}

impl Events {
    pub(super) fn new(run: &str, at: At) -> Self {
        Self { run: run.to_owned(), at, redriven: 0, planned: BTreeMap::new(), repaired: BTreeSet::new() }
    }

    pub(super) fn at(&self) -> &At {
        &self.at
    }

    /// What an event of the run says, if it says something, with its id. `follower` has taken it already.
    pub(super) fn of(&mut self, recorded: &Recorded, follower: &Follower) -> Option<(String, Value)> {
        let (kind, error) = match &recorded.event {
            Event::UnitsPlanned { step, table, .. } => {
                self.planned.insert(step.clone(), table.clone());
                return None;
            }
            Event::PublishEnded { step, rows, absent, .. } => {
                self.repaired.extend(self.planned.get(step).filter(|_| rows + absent > 0).cloned());
                return None;
            }
            Event::RunStarted { .. } => ("START", None),
            Event::RunRedriven { .. } => {
                self.redriven += 1;
                ("START", None)
            }
            Event::RunEnded { outcome, reason, .. } => match outcome {
                Outcome::Succeeded | Outcome::SucceededWithExceptions => ("COMPLETE", None),
                Outcome::Cancelled => ("ABORT", None),
                other => ("FAIL", Some(reason.clone().unwrap_or_else(|| other.as_str().to_owned()))),
            },
            _ => return None,
        };
        let (inputs, outputs) = self.datasets(follower);
        let mut facets = Map::new();
        let state = follower.state();
        if let Some(parent) = state.started.environment.get("parent").and_then(Value::as_str) {
            // Which workflow the parent runs is not known here; its id is.
            facets.insert(
                "parent".to_owned(),
                json!({
                    "_producer": PRODUCER, "_schemaURL": PARENT,
                    "run": { "runId": run_id(parent, 0) },
                    "job": { "namespace": JOBS, "name": parent },
                }),
            );
        }
        if let Some(message) = error {
            let facet = json!({ "_producer": PRODUCER, "_schemaURL": ERROR, "message": message, "programmingLanguage": "Rust" });
            facets.insert("errorMessage".to_owned(), facet);
        }
        let body = json!({
            "eventType": kind,
            "eventTime": recorded.at.to_string(),
            "producer": PRODUCER,
            "schemaURL": SCHEMA,
            "run": { "runId": run_id(&self.run, self.redriven), "facets": facets },
            "job": { "namespace": JOBS, "name": state.started.workflow, "facets": {} },
            "inputs": inputs,
            "outputs": outputs,
        });
        Some((format!("{}.{}.{kind}", self.run, recorded.sequence), body))
    }

    /// What the run reads and, as far as it has come, what it has written.
    fn datasets(&self, follower: &Follower) -> (Vec<Value>, Vec<Value>) {
        let (state, workflow) = (follower.state(), follower.workflow());
        let mut inputs: BTreeSet<(String, String)> = BTreeSet::new();
        let mut outputs = BTreeSet::new();
        let add = |set: &mut BTreeSet<(String, String)>, table: &Table| set.insert(self.at.dataset(&table.location));
        for step in &workflow.steps {
            for (_, _, with) in step.kind.plugins() {
                if let Some(table) = with.text_of("table").and_then(|table| workflow.tables.get(table)) {
                    add(&mut inputs, table);
                }
            }
        }
        for findings in state.findings.values() {
            if let Some(table) = workflow.tables.get(&findings.scope.table) {
                add(&mut inputs, table);
            }
        }
        for table in self.repaired.iter().filter_map(|table| workflow.tables.get(table)) {
            let (namespace, name) = self.at.dataset(&table.location);
            outputs.insert((namespace, overlay::repairs(&name)));
        }
        for step in state.steps.values() {
            outputs.extend(stale::written(&step.output).map(|into| self.at.dataset(&into.location)));
        }
        let list = |all: BTreeSet<(String, String)>| {
            all.into_iter().map(|(namespace, name)| json!({ "namespace": namespace, "name": name, "facets": {} })).collect()
        };
        (list(inputs), list(outputs))
    }
}

/// The id of a run as a UUID, which OpenLineage asks for. That of a run whose own id is one stays it.
fn run_id(run: &str, redriven: u32) -> String {
    if redriven == 0
        && let Ok(own) = uuid::Uuid::try_parse(run)
    {
        return own.to_string();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(run.as_bytes()).update(&[0]).update(&redriven.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(hasher.finalize().as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}
