//! What follows a step: `next`, `end`, `retry`, `catch`.

use std::time::Duration;

use super::{BranchPlaces, Fields, Reader, Within, did_you_mean, one_of, quoted};
use crate::error::ErrorKind;
use crate::workflow::{Branch, CatchRule, ErrorMatch, Jitter, RetryRule};
use crate::yaml::tree::{Node, Place, Yaml};

/// How many retries one rule may allow. Nobody would wait for more.
const MAX_ATTEMPTS: u32 = 1_000;
/// The default number of retries, as in the Amazon States Language.
pub(crate) const DEFAULT_ATTEMPTS: u32 = 3;
/// The default wait before the first retry, as in the Amazon States Language.
pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// The default factor by which each wait is longer than the one before, as in the Amazon States Language.
pub(crate) const DEFAULT_BACKOFF: f64 = 2.0;
/// The largest backoff, with which the second wait is a hundred times the first.
const MAX_BACKOFF: f64 = 100.0;
/// How many retry or catch rules one step may have; there are only twelve kinds of errors.
const MAX_RULES: usize = 50;

impl<'a> Reader<'a> {
    /// The branches, each with its places; an empty list if the step ends the run, and `None` if the text does not make this clear.
    pub(super) fn next(&mut self, fields: &Fields<'a>, ends: bool) -> Option<Vec<(Branch, BranchPlaces)>> {
        if ends {
            return Some(Vec::new());
        }
        match (fields.get("next"), fields.get("end")) {
            (Some(_), Some(_)) => {
                self.error(fields.key_place("end"), "a step cannot have both `next` and `end`", Some("keep one of them".to_owned()));
                None
            }
            (None, Some(node)) => {
                if !matches!(node.value, Yaml::Bool(true)) {
                    self.error(node.place, "`end` must be `true`", Some("or name the next step in `next`".to_owned()));
                }
                Some(Vec::new())
            }
            (Some(node), None) => self.branches(node),
            (None, None) => {
                let help = "add `next: <step>` to go on, or `end: true` if the run ends here";
                self.error(fields.place, format!("{} has neither `next` nor `end`", fields.what), Some(help.to_owned()));
                None
            }
        }
    }

    fn branches(&mut self, node: &'a Node) -> Option<Vec<(Branch, BranchPlaces)>> {
        if matches!(node.value, Yaml::Text(_)) {
            return self
                .text(node, "`next`")
                .map(|goto| vec![(Branch { when: None, goto }, BranchPlaces { when: None, goto: node.place })]);
        }
        if matches!(node.value, Yaml::Map(_)) {
            self.error(node.place, "`next` must be a step or a list of branches", Some("begin the branch with `-`".to_owned()));
            return None;
        }
        let items = self.list(node, "`next`")?;
        if items.is_empty() {
            self.error(node.place, "`next` is empty", Some("name a step, or write `end: true`".to_owned()));
            return None;
        }
        let mut branches = Vec::with_capacity(items.len());
        let mut complete = true;
        let mut always: Option<&str> = None;
        for item in items {
            let Some(fields) = self.fields(item, item.place, "a branch", &["when", "goto"]) else {
                complete = false;
                continue;
            };
            if let Some(before) = always {
                self.error(
                    item.place,
                    "this branch is never taken",
                    Some(format!("give an earlier branch a `when`; without one, the run always goes to {}", quoted(before))),
                );
            }
            let when = fields.get("when");
            let condition = when.map(|node| self.condition(node));
            let goto = self
                .required(&fields, "goto", "name the step to go to")
                .and_then(|node| self.text(node, "`goto`").map(|goto| (goto, node)));
            let Some((goto, node)) = goto else {
                complete = false;
                continue;
            };
            if when.is_none() {
                always = node.text();
            }
            // A condition that could not be read is already reported; its branch still counts as a way.
            branches
                .push((Branch { when: condition.flatten(), goto }, BranchPlaces { when: when.map(|node| node.place), goto: node.place }));
        }
        let last = items.last().filter(|last| last.get("when").is_some());
        if let Some(last) = last {
            let help = "add a last branch without `when`, e.g. `- { goto: … }`";
            self.error(last.place, "the run has nowhere to go if no condition holds", Some(help.to_owned()));
        }
        complete.then_some(branches)
    }

    pub(super) fn condition(&mut self, node: &'a Node) -> Option<super::Expression> {
        if matches!(node.value, Yaml::Bool(true)) {
            self.error(
                node.place,
                "`when` must be a condition, not `true`",
                Some("remove it; a branch without `when` is always taken".to_owned()),
            );
            return None;
        }
        let text = self.text(node, "`when`")?;
        // Step Functions writes conditions as `{% … %}`; here the marks are optional.
        let text = match super::computed(&text) {
            super::Computed::Whole(inner) => inner,
            _ => &text,
        };
        self.expression(text, node.place, Within::Step)
    }

    pub(super) fn retry(&mut self, fields: &Fields<'a>) -> Vec<RetryRule> {
        const KEYS: [&str; 6] = ["on", "attempts", "interval", "backoff", "max_interval", "jitter"];
        let mut rules = Vec::new();
        for rule in self.rules(fields, "retry", &KEYS) {
            let on = self.errors(&rule);
            let attempts = self.count(&rule, "attempts", 0..=MAX_ATTEMPTS).unwrap_or(DEFAULT_ATTEMPTS);
            let interval = self.duration(&rule, "interval").unwrap_or(DEFAULT_INTERVAL);
            let max_interval = self.duration(&rule, "max_interval");
            if max_interval.is_some_and(|longest| longest < interval) {
                self.error(rule.key_place("max_interval"), "`max_interval` is shorter than `interval`", None);
            }
            let jitter = rule.get("jitter").and_then(|node| self.word(node, "`jitter`", &[("full", Jitter::Full), ("none", Jitter::None)]));
            let backoff = self.backoff(&rule);
            if let Some(on) = on {
                rules.push(RetryRule { on, attempts, interval, backoff, max_interval, jitter: jitter.unwrap_or_default() });
            }
        }
        rules
    }

    fn backoff(&mut self, rule: &Fields<'a>) -> f64 {
        let Some(node) = rule.get("backoff") else { return DEFAULT_BACKOFF };
        let value = match &node.value {
            Yaml::Number(number) => number.as_f64().filter(|value| (1.0..=MAX_BACKOFF).contains(value)),
            _ => None,
        };
        if value.is_none() {
            self.error(node.place, format!("`backoff` must be a number from 1 to {MAX_BACKOFF}"), None);
        }
        value.unwrap_or(DEFAULT_BACKOFF)
    }

    pub(super) fn catch(&mut self, fields: &Fields<'a>) -> Vec<(CatchRule, Place)> {
        let mut rules: Vec<(CatchRule, Place)> = Vec::new();
        for rule in self.rules(fields, "catch", &["on", "goto"]) {
            let on = self.errors(&rule);
            let goto = self
                .required(&rule, "goto", "name the step to go to")
                .and_then(|node| self.text(node, "`goto`").map(|goto| (goto, node.place)));
            let (Some(on), Some((goto, place))) = (on, goto) else {
                self.whole = false;
                continue;
            };
            let caught = |kind: ErrorKind| rules.iter().any(|(before, _)| before.on.matches(kind));
            if ErrorKind::ALL.into_iter().filter(|kind| on.matches(*kind)).all(caught) {
                self.error(
                    rule.key_place("on"),
                    "this rule never applies, because earlier rules catch all errors that it names",
                    Some("remove it, or move it up".to_owned()),
                );
            }
            rules.push((CatchRule { on, goto }, place));
        }
        rules
    }

    fn rules(&mut self, fields: &Fields<'a>, name: &str, known: &[&str]) -> Vec<Fields<'a>> {
        let Some(node) = fields.get(name) else { return Vec::new() };
        let Some(items) = self.list(node, &format!("`{name}`")) else { return Vec::new() };
        if items.len() > MAX_RULES {
            self.error(node.place, format!("`{name}` has {} rules; at most {MAX_RULES} are allowed", items.len()), None);
        }
        items.iter().take(MAX_RULES).filter_map(|item| self.fields(item, item.place, &format!("a rule of `{name}`"), known)).collect()
    }

    fn errors(&mut self, rule: &Fields<'a>) -> Option<ErrorMatch> {
        let node = self.required(rule, "on", "list kinds of errors, or write `on: any`")?;
        let named = self.texts(node, "`on`");
        if let [(only, _)] = named.as_slice()
            && only == "any"
        {
            return Some(ErrorMatch::Any);
        }
        let mut kinds = Vec::with_capacity(named.len());
        for (name, place) in &named {
            match name.parse::<ErrorKind>() {
                Ok(ErrorKind::Cancelled) => {
                    self.error(*place, "a rule cannot name `cancelled`: a run that is asked to stop stops", Some("remove it".to_owned()));
                }
                Ok(kind) => kinds.push(kind),
                Err(_) if name == "any" => {
                    self.error(*place, "`any` cannot be combined with other kinds", Some("write `on: any`".to_owned()));
                }
                Err(_) => {
                    let known =
                        || ErrorKind::ALL.into_iter().filter(|kind| *kind != ErrorKind::Cancelled).map(ErrorKind::as_str).chain(["any"]);
                    let help = did_you_mean(name, known()).unwrap_or_else(|| one_of(known()));
                    self.error(*place, format!("unknown kind of error {}", quoted(name)), Some(help));
                }
            }
        }
        if named.is_empty() && matches!(&node.value, Yaml::List(items) if items.is_empty()) {
            self.error(node.place, "`on` is empty", Some("name kinds of errors, or write `on: any`".to_owned()));
        }
        (!kinds.is_empty()).then_some(ErrorMatch::Kinds(kinds))
    }
}
