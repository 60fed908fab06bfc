//! Checks whether a draft makes sense: every name refers to something, every plug-in accepts its `with`, and the steps lead somewhere. The
//! checks must not know how the text is written; places come from the draft.

mod calendars;
mod names;
mod schedule;
mod shape;
mod tables;
mod with;

pub(super) use names::is_taken;

use super::limits;
use super::read::Draft;
use crate::plugin::Registry;
use crate::workflow::{StepKind, Workflow};
use crate::yaml::Diagnostics;
use crate::yaml::tree::Place;

/// The state that all checks share.
struct Checker<'a> {
    draft: &'a Draft<'a>,
    registry: &'a Registry,
    diagnostics: &'a mut Diagnostics,
}

impl Checker<'_> {
    fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.diagnostics.push(place, message.into(), help.into());
    }
}

impl Checker<'_> {
    /// Checks that every source that a repair step asks has a price if a budget in dollars applies.
    fn prices(&mut self) {
        let workflow = &self.draft.workflow;
        let Some(book) = &workflow.prices else { return };
        let mut missing = Vec::new();
        for (step, places) in workflow.steps.iter().zip(&self.draft.steps) {
            for (strategy, places) in step.kind.strategies().iter().zip(&places.plugins) {
                let in_dollars = limits::limits(workflow, step, Some(strategy)).any(|limit| limit.budget.usd.is_some());
                if !in_dollars || limits::Prices::of(workflow, limits::source_of(&strategy.with)).call.is_some() {
                    continue;
                }
                let source = limits::source_of(&strategy.with).filter(|source| workflow.sources.contains_key(*source));
                let Some(source) = source else { continue };
                let place = places.with.and_then(|with| with.get("source")).map_or(places.name, |node| node.place);
                missing.push((place, format!("the price book {} has no price for source `{source}`", book.file), source.to_owned()));
            }
        }
        for (place, message, source) in missing {
            let help = format!("add `sources: {{ {source}: {{ usd_per_call: 0, source: … }} }}` to it, under this name or the plug-in's");
            self.error(place, message, help);
        }
    }
}

impl Checker<'_> {
    /// Checks that it is clear which days are meant by parameters that are relative to now by default.
    fn relative_params(&mut self) {
        let workflow = &self.draft.workflow;
        let Err(error) = workflow.day_zone() else { return };
        for (name, param) in &workflow.params {
            let is_relative = param.default.as_ref().is_some_and(|value| param.is_relative(value));
            if let (true, None, Some(&place)) = (is_relative, &param.zone, self.draft.param_places.get(name.as_str())) {
                self.error(place, format!("parameter `{name}`: {}", error.message()), None);
            }
        }
    }
}

/// Checks a draft, collects all mistakes, and returns the workflow.
pub(super) fn check(draft: Draft<'_>, registry: &Registry, diagnostics: &mut Diagnostics) -> Workflow {
    let mut checker = Checker { draft: &draft, registry, diagnostics };
    let named = checker.names();
    let calendars = checker.calendars();
    checker.plugins();
    checker.lakes();
    checker.locations();
    checker.overlays();
    checker.repairable();
    checker.rows();
    checker.expected_keys();
    checker.prices();
    checker.relative_params();
    checker.schedule();
    // With steps missing or leading nowhere, checks of the shape would only repeat known mistakes.
    if draft.whole && named {
        checker.shape();
    }
    let mut workflow = draft.workflow;
    workflow.calendars = calendars;
    default_findings(&mut workflow);
    workflow
}

/// Lets an aggregate step without `of` use the findings of the only detect step, unless a run can reach it before that step.
fn default_findings(workflow: &mut Workflow) {
    let mut detects = workflow.steps.iter().filter(|step| matches!(step.kind, StepKind::Detect { .. }));
    let (Some(only), None) = (detects.next(), detects.next()) else { return };
    let only = only.name.clone();
    let before = shape::after(workflow, &only);
    workflow.steps.update(|step| {
        if let StepKind::Aggregate { of: of @ None, .. } = &mut step.kind
            && before.contains(&step.name)
        {
            *of = Some(only.clone());
        }
    });
}
