//! Comparing workflows.

use std::sync::Arc;

use serde_json::Value;

use crate::workflow::{Expression, MapOver, Step, StepKind, Steps, Template, Wait, Workflow};

/// What a workflow means, as text to compare: without the text it was read from, its file, and the order of keys in a `with`.
pub fn definition(workflow: &Workflow) -> String {
    let mut steps: Vec<Step> = workflow.steps.to_vec();
    let mut children = Vec::new();
    for step in &mut steps {
        match &mut step.kind {
            StepKind::Detect { with, .. } | StepKind::Aggregate { with, .. } | StepKind::Task { with, .. } => sort(with),
            StepKind::Wait(Wait::Sensor(wait)) => sort(&mut wait.with),
            StepKind::Repair { strategies, .. } => strategies.iter_mut().for_each(|strategy| sort(&mut strategy.with)),
            StepKind::Workflow { workflow, with, .. } => {
                sort(with);
                children.push(definition(workflow));
                *workflow = Arc::new(outline(workflow));
            }
            StepKind::Map(map) => {
                sort(&mut map.with);
                let (MapOver::Items(over) | MapOver::Rows(over)) = &mut map.over;
                sort(over);
                children.push(definition(&map.workflow));
                map.workflow = Arc::new(outline(&map.workflow));
            }
            StepKind::Wait(_) | StepKind::Verify { .. } | StepKind::Parallel { .. } | StepKind::Succeed | StepKind::Fail { .. } => {}
        }
    }
    let mut outline = outline(workflow);
    outline.sources.values_mut().for_each(|source| sort(&mut source.with));
    outline.profiles.values_mut().for_each(|profile| sort(&mut profile.with));
    format!("{outline:#?}\n{steps:#?}\n{}", children.join("\n"))
}

/// A workflow without its steps and texts.
fn outline(workflow: &Workflow) -> Workflow {
    let (text, file) = (String::new(), String::new());
    Workflow { text, file, children: Default::default(), steps: Steps::default(), outer: None, ..workflow.clone() }
}

/// Writes a template as one value, whose keys are sorted.
fn sort(template: &mut Template) {
    *template = Template::Value(sorted(value_of(template)));
}

fn value_of(template: &Template) -> Value {
    let computed = |expression: &Expression| Value::String(format!("{{% {} %}}", expression.text()));
    match template {
        Template::Value(value) => value.clone(),
        Template::Computed(expression) => computed(expression),
        Template::List(items) => Value::Array(items.iter().map(value_of).collect()),
        Template::Map(entries) => Value::Object(entries.iter().map(|(key, value)| (key.clone(), value_of(value))).collect()),
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(entries) => {
            let mut entries: Vec<(String, Value)> = entries.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().collect())
        }
        other => other,
    }
}
