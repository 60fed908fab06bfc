//! To which steps a run comes whatever the repairs bring, and what can be computed from what the detect steps found. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Reach;
use repair_core::workflow::{Branch, Expression, StepEnd, StepKind, Template, Variables, Workflow};

/// What is known before a run begins.
#[derive(Debug, Clone)]
pub(super) struct Known {
    params: Value,
    run: Value,
    /// The variables of the item, within a map. They have no values yet.
    items: BTreeMap<String, Value>,
    /// Outputs of detect steps, by name.
    outputs: BTreeMap<String, Value>,
}

impl Known {
    /// The variables that are known when a run starts.
    pub(super) fn new(at_start: Variables) -> Self {
        Self { params: at_start.params, run: at_start.run, items: at_start.items, outputs: BTreeMap::new() }
    }

    /// Adds what a detect step puts out.
    pub(super) fn add(&mut self, step: &str, output: Value) {
        self.outputs.insert(step.to_owned(), output);
    }

    pub(super) fn variables(&self, step: Option<&str>) -> Variables {
        let steps = self.outputs.iter().map(|(name, output)| (name.clone(), json!({ "visits": 1, "output": output })));
        Variables {
            params: self.params.clone(),
            output: step.and_then(|step| self.outputs.get(step)).cloned().unwrap_or_default(),
            steps: Value::Object(steps.collect()),
            visits: 1,
            error: Value::Null,
            run: self.run.clone(),
            items: self.items.clone(),
        }
    }

    /// The value of a step's `with`; none if it speaks of what is known only when the run comes there.
    pub(super) fn resolve(&self, with: &Template) -> Option<repair_core::Result<Value>> {
        self.all_known(with).then(|| with.resolve(&self.variables(None)))
    }

    fn all_known(&self, with: &Template) -> bool {
        match with {
            Template::Value(_) => true,
            Template::Computed(expression) => self.is_known(expression, false),
            Template::List(items) => items.iter().all(|item| self.all_known(item)),
            Template::Map(entries) => entries.iter().all(|(_, item)| self.all_known(item)),
        }
    }

    fn is_known(&self, expression: &Expression, output: bool) -> bool {
        expression.variables().all(|(name, fields)| match name {
            "params" | "run" | "visits" => true,
            "output" => output,
            "steps" => fields.first().is_some_and(|step| self.outputs.contains_key(step)),
            _ => false,
        })
    }

    /// Where a run may go from a step: one way if that is known.
    fn ways<'a>(&self, step: &str, branches: &'a [Branch]) -> Vec<&'a str> {
        let mut ways: Vec<&str> = Vec::new();
        for branch in branches {
            let holds = match &branch.when {
                None => Some(true),
                Some(when) if !self.is_known(when, self.outputs.contains_key(step)) => None,
                Some(when) => when.holds(&self.variables(Some(step))).ok(),
            };
            if holds != Some(false) {
                ways.push(&branch.goto);
            }
            if holds == Some(true) {
                break;
            }
        }
        ways
    }

    /// Where a run goes from a step, if that is known. The inner value is none where it ends.
    fn next<'a>(&self, step: &str, branches: &'a [Branch]) -> Option<&'a str> {
        for branch in branches {
            let Some(when) = &branch.when else { return Some(&branch.goto) };
            if !self.is_known(when, self.outputs.contains_key(step)) {
                return None;
            }
            match when.holds(&self.variables(Some(step))) {
                Ok(true) => return Some(&branch.goto),
                Ok(false) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// The steps to which a run comes unless something fails.
pub(super) fn surely(workflow: &Workflow, known: &Known) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut begin: Vec<&str> = Vec::new();
    if workflow.kind.is_dag() {
        begin.extend(run_if_nothing_fails(workflow));
    } else {
        begin.push(&workflow.start);
    }
    while let Some(start) = begin.pop() {
        let mut at = Some(start);
        while let Some(step) = at.and_then(|name| workflow.step(name)) {
            // To come to a step again is not to come to another.
            if !found.insert(step.name.clone()) {
                break;
            }
            if let StepKind::Parallel { branches } = &step.kind {
                begin.extend(branches.iter().map(|branch| branch.start.as_str()));
            }
            at = known.next(&step.name, &step.next);
        }
    }
    found
}

/// The steps to which a run may come, if none fails: all but those that what was found rules out.
pub(super) fn possibly(workflow: &Workflow, known: &Known) -> BTreeSet<String> {
    if workflow.kind.is_dag() {
        return workflow.steps.iter().map(|step| step.name.clone()).collect();
    }
    let mut found = BTreeSet::new();
    let mut begin: Vec<&str> = vec![&workflow.start];
    while let Some(step) = begin.pop().and_then(|name| workflow.step(name)) {
        if !found.insert(step.name.clone()) {
            continue;
        }
        if let StepKind::Parallel { branches } = &step.kind {
            begin.extend(branches.iter().map(|branch| branch.start.as_str()));
        }
        begin.extend(known.ways(&step.name, &step.next));
    }
    found
}

/// The steps of a DAG that run if none fails. What is there for failures is skipped then, and so is what needs it.
fn run_if_nothing_fails(workflow: &Workflow) -> Vec<&str> {
    let mut ends: BTreeMap<&str, StepEnd> = BTreeMap::new();
    loop {
        let known = ends.len();
        for step in &workflow.steps {
            if ends.contains_key(step.name.as_str()) {
                continue;
            }
            let before: Option<Vec<StepEnd>> = step.after.iter().map(|name| ends.get(name.as_str()).copied()).collect();
            if let Some(before) = before {
                let end = if step.why_skipped(&before).is_some() { StepEnd::Skipped } else { StepEnd::Succeeded };
                ends.insert(&step.name, end);
            }
        }
        if ends.len() == known {
            return ends.into_iter().filter(|(_, end)| *end == StepEnd::Succeeded).map(|(name, _)| name).collect();
        }
    }
}

/// The steps to which a run may come more than once, in order of name.
pub(super) fn again(workflow: &Workflow) -> BTreeSet<String> {
    let after = |name: &str| -> Vec<String> {
        let Some(step) = workflow.step(name) else { return Vec::new() };
        let next = step.next.iter().map(|branch| branch.goto.clone());
        next.chain(step.catch.iter().map(|rule| rule.goto.clone())).collect()
    };
    let comes_back = |name: &str| {
        let (mut seen, mut pending) = (BTreeSet::new(), after(name));
        while let Some(next) = pending.pop() {
            if next == name {
                return true;
            }
            if seen.insert(next.clone()) {
                pending.extend(after(&next));
            }
        }
        false
    };
    let loops = |step: &&repair_core::workflow::Step| {
        // What is in a branch runs again with its parallel step.
        comes_back(&step.name) || step.inside.as_ref().is_some_and(|inside| comes_back(&inside.step))
    };
    workflow.steps.iter().filter(loops).map(|step| step.name.clone()).collect()
}

/// As a plan shows it.
pub(super) fn of(step: &str, surely: &BTreeSet<String>) -> Reach {
    if surely.contains(step) { Reach::Surely } else { Reach::Perhaps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repair_core::plugin::Registry;

    #[test]
    fn conditions_on_what_was_found_are_decided_and_others_are_not() {
        let text = "workflow: w\nkind: state-machine\ntables: { t: { location: t, format: csv, time: ts, cadence: 1h } }\nstart: find\nsteps:\n  \
                    find:\n    detect: gaps\n    with: { table: t, from: 2024-03-04, to: 2024-03-04 }\n    next: [{ when: $output.missing = 0, \
                    goto: done }, { goto: fill }]\n  fill: { repair: carry-forward, of: find, next: [{ when: $output.failed = 0, goto: check }, \
                    { goto: done }] }\n  check: { verify: find, next: done }\n  done: { succeed: }\n";
        let workflow = Workflow::parse("w.yaml", text, &Registry::default()).unwrap();
        let reached = |missing: u64| {
            let mut known = Known::new(Variables::at_start(&BTreeMap::new(), jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH));
            known.add("find", json!({ "missing": missing }));
            surely(&workflow, &known).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(reached(0), ["done", "find"]);
        assert_eq!(reached(3), ["fill", "find"]);
        assert_eq!(
            surely(&workflow, &Known::new(Variables::at_start(&BTreeMap::new(), jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH)))
                .len(),
            1
        );
        assert!(again(&workflow).is_empty());
        let text = text
            .replace("next: done }\n  done", "max_visits: 2, next: [{ when: $output.missing > 0, goto: fill }, { goto: done }] }\n  done");
        let workflow = Workflow::parse("w.yaml", &text, &Registry::default()).unwrap();
        assert_eq!(again(&workflow).into_iter().collect::<Vec<_>>(), ["check", "fill"]);
    }
}
