//! Checks that every name refers to something: steps, detect steps, parameters, and the variables and functions of expressions.

use std::collections::HashSet;

use super::super::read::{ExpressionUse, Within, article, did_you_mean, one_of, quoted};
use super::Checker;
use crate::model::{Counts, UnitCounts};
use crate::workflow::expression::REFUSED;
use crate::workflow::{Inside, MAP_INDEX, ParallelBranch, REPAIR_OUTPUT, StepKind};
use crate::yaml::tree::Place;

/// The variables of expressions, as [`Variables`](super::super::definition::Variables) binds them.
const VARIABLES: [&str; 6] = ["params", "output", "steps", "visits", "error", "run"];

/// The functions of JSONata (<https://docs.jsonata.org/overview>) that are available here.
const FUNCTIONS: [&str; 61] = [
    "string",
    "length",
    "substring",
    "substringBefore",
    "substringAfter",
    "uppercase",
    "lowercase",
    "trim",
    "pad",
    "contains",
    "split",
    "join",
    "match",
    "replace",
    "base64encode",
    "base64decode",
    "encodeUrlComponent",
    "encodeUrl",
    "decodeUrlComponent",
    "decodeUrl",
    "number",
    "abs",
    "floor",
    "ceil",
    "round",
    "power",
    "sqrt",
    "formatNumber",
    "formatBase",
    "formatInteger",
    "parseInteger",
    "sum",
    "max",
    "min",
    "average",
    "boolean",
    "not",
    "exists",
    "count",
    "append",
    "sort",
    "reverse",
    "distinct",
    "zip",
    "keys",
    "lookup",
    "spread",
    "merge",
    "sift",
    "each",
    "error",
    "assert",
    "type",
    "map",
    "filter",
    "single",
    "reduce",
    "now",
    "millis",
    "fromMillis",
    "toMillis",
];

/// Whether a name means something in every expression, as a variable or a function.
pub(crate) fn is_taken(name: &str) -> bool {
    VARIABLES.contains(&name) || FUNCTIONS.contains(&name) || REFUSED.iter().any(|(refused, _)| *refused == name)
}

impl<'a> Checker<'a> {
    /// Checks all names, and returns whether those that the shape depends on are correct: steps and detect steps.
    pub(super) fn names(&mut self) -> bool {
        let draft: &'a _ = self.draft;
        let known: HashSet<&str> = draft.step_names.iter().copied().collect();
        let mut named = true;
        if let Some(place) = draft.start
            && !known.contains(draft.workflow.start.as_str())
        {
            named = false;
            self.no_step("`start` names step", &draft.workflow.start, place);
        }
        for (step, places) in draft.workflow.steps.iter().zip(&draft.steps) {
            if let StepKind::Parallel { branches } = &step.kind {
                for (branch, &place) in branches.iter().zip(&places.branches) {
                    named &= self.begins_within(&step.name, branch, place, &known);
                }
            }
            for (before, &place) in step.after.iter().zip(&places.after) {
                if !known.contains(before.as_str()) {
                    named = false;
                    self.no_step(&format!("step `{}` comes after step", step.name), before, place);
                }
            }
            let next = step.next.iter().map(|branch| &branch.goto).zip(places.next.iter().map(|branch| branch.goto));
            let catch = step.catch.iter().map(|rule| &rule.goto).zip(places.catch.iter().copied());
            for (goto, place) in next.chain(catch) {
                if !known.contains(goto.as_str()) {
                    named = false;
                    self.no_step(&format!("step `{}` goes to step", step.name), goto, place);
                } else if draft.workflow.step(goto).is_some_and(|to| to.inside != step.inside) {
                    named = false;
                    let help = "end the branch with `end: true`; the parallel step goes on when all its branches have ended".to_owned();
                    self.error(place, format!("step `{}` cannot go to step `{goto}`, which is in another branch", step.name), help);
                }
            }
            let of = match &step.kind {
                StepKind::Repair { of, .. } | StepKind::Verify { of } | StepKind::Aggregate { of: Some(of), .. } => Some(of),
                _ => None,
            };
            if let (Some(of), Some(place)) = (of, places.of) {
                named &= self.is_detect(&step.name, of, place, &known);
            }
            for (branch, places) in step.next.iter().zip(&places.next) {
                if let (Some(when), Some(place)) = (&branch.when, places.when) {
                    self.output_fields(&step.kind, when.references().needed_output.iter(), place);
                }
            }
        }
        for used in &draft.expressions {
            self.expression(used);
        }
        named
    }

    fn begins_within(&mut self, step: &str, branch: &ParallelBranch, place: Place, known: &HashSet<&str>) -> bool {
        let draft: &'a _ = self.draft;
        let of_branch = |inside: &Inside| inside.step == step && inside.branch == branch.name;
        let within =
            || draft.workflow.steps.iter().filter(|step| step.inside.as_ref().is_some_and(of_branch)).map(|step| step.name.as_str());
        if within().any(|name| name == branch.start) {
            return true;
        }
        // A step that exists but could not be read is not a second mistake.
        if draft.workflow.step(&branch.start).is_some() || !known.contains(branch.start.as_str()) {
            let help = did_you_mean(&branch.start, within()).unwrap_or_else(|| one_of(within()));
            self.error(place, format!("branch `{}` has no step {}", branch.name, quoted(&branch.start)), help);
        }
        false
    }

    fn no_step(&mut self, what: &str, name: &str, place: Place) {
        let names = || self.draft.step_names.iter().copied();
        let help = did_you_mean(name, names()).unwrap_or_else(|| one_of(names()));
        self.error(place, format!("{what} {}, which does not exist", quoted(name)), help);
    }

    fn is_detect(&mut self, step: &str, of: &str, place: Place, known: &HashSet<&str>) -> bool {
        let draft: &'a _ = self.draft;
        let detects =
            || draft.workflow.steps.iter().filter(|step| matches!(step.kind, StepKind::Detect { .. })).map(|step| step.name.as_str());
        match draft.workflow.step(of) {
            Some(found) if matches!(found.kind, StepKind::Detect { .. }) => true,
            Some(found) => {
                let word = found.kind.word();
                let message = format!("step `{step}` needs the findings of a detect step, but `{of}` is {} {word} step", article(word));
                self.error(place, message, one_of(detects()));
                false
            }
            // It exists, but could not be read.
            None if known.contains(of) => false,
            None => {
                let help = did_you_mean(of, detects()).unwrap_or_else(|| one_of(detects()));
                self.error(place, format!("step `{step}` needs the findings of step {}, which does not exist", quoted(of)), help);
                false
            }
        }
    }

    /// Checks the fields of `$output` that conditions use, where the output of the step is known.
    fn output_fields<'b>(&mut self, kind: &StepKind, fields: impl Iterator<Item = &'b String>, place: Place) {
        let counted = Counts { units: Some(UnitCounts::default()), ..Counts::default() };
        let counted = serde_json::to_value(counted).unwrap_or_default();
        let known: Vec<&str> = match kind {
            StepKind::Detect { .. } | StepKind::Verify { .. } => {
                counted.as_object().into_iter().flat_map(|counts| counts.keys().map(String::as_str)).collect()
            }
            StepKind::Repair { .. } => REPAIR_OUTPUT.to_vec(),
            _ => return,
        };
        for field in fields.filter(|field| !known.contains(&field.as_str())) {
            let help = did_you_mean(field, known.iter().copied()).unwrap_or_else(|| one_of(known.iter().copied()));
            let place = self.diagnostics.within(place, field);
            self.error(place, format!("the output of a {} step has no field {}", kind.word(), quoted(field)), help);
        }
    }

    fn expression(&mut self, used: &ExpressionUse) {
        let draft: &'a _ = self.draft;
        let references = used.expression.references();
        for (name, fields) in &references.variables {
            let place = self.diagnostics.within(used.place, &format!("${name}"));
            let given = || draft.workflow.items.keys().map(String::as_str);
            // What is computed for each item of a map has variables of its own.
            let of_item = || used.item.iter().flat_map(|item| [item.as_str(), MAP_INDEX]);
            if given().chain(of_item()).any(|given| given == name) && used.within == Within::Step {
                continue;
            }
            if !VARIABLES.contains(&name.as_str()) {
                let known = VARIABLES.into_iter().chain(given()).chain(of_item()).map(|name| format!("${name}"));
                let (name, known): (String, Vec<String>) = (format!("${name}"), known.collect());
                let known = || known.iter().map(String::as_str);
                let help = did_you_mean(&name, known()).unwrap_or_else(|| one_of(known()));
                self.error(place, format!("there is no variable {}", quoted(&name)), help);
                continue;
            }
            let help = match used.within {
                Within::Source if name != "params" && name != "run" => Some("sources are made when a run starts; use `$params` or `$run`"),
                Within::Profile if name != "params" => Some("profiles are opened before a run starts; use `$params`"),
                _ => None,
            };
            if let Some(help) = help.map(str::to_owned) {
                self.error(place, format!("`${name}` cannot be used here"), help);
                continue;
            }
            let known = match (name.as_str(), &draft.param_names) {
                ("params", Some(names)) => names,
                ("steps", _) => &draft.step_names,
                _ => continue,
            };
            if let Some(field) = fields.first().filter(|field| !known.contains(&field.as_str())) {
                let what = if name == "params" { "parameter" } else { "step" };
                let help = did_you_mean(field, known.iter().copied()).unwrap_or_else(|| one_of(known.iter().copied()));
                let place = self.diagnostics.within(used.place, field);
                self.error(place, format!("there is no {what} {}", quoted(field)), help);
            }
        }
        for name in &references.functions {
            let place = self.diagnostics.within(used.place, &format!("${name}"));
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| refused == name) {
                self.error(place, format!("`${name}` is not available: {why}"), None);
            } else if !FUNCTIONS.contains(&name.as_str()) {
                let help = did_you_mean(name, FUNCTIONS.into_iter());
                self.error(place, format!("JSONata has no function {}", quoted(&format!("${name}"))), help);
            }
        }
        for name in &references.fields {
            let help = format!("name its variable, as in `$output.{name}` or `$params.{name}`, or write text in quotes, `'{name}'`");
            let place = self.diagnostics.within(used.place, name);
            self.error(place, format!("{} is a field without a variable", quoted(name)), help);
        }
    }
}
