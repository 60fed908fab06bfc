//! From what was said to the tree that is printed: names for the user's own plug-ins, and the fields of each step in one order.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::SourceBuilder;
use super::plug_in::{How, Register};
use super::print::Tree;
use super::step::{BranchBuilder, Child, Fields, MapDraft, StepDraft, StrategyBuilder, Word};
use crate::plugin::OWN_PREFIX;
use crate::workflow::parse::resolve;

/// What belongs to a workflow besides its text.
pub(super) struct Assembly {
    pub(super) file: String,
    workflow: String,
    /// The user's own plug-ins, by the names that they are given.
    pub(super) own: Vec<(String, Register)>,
    /// The texts of the files that it names, by resolved name.
    pub(super) texts: BTreeMap<String, String>,
    /// What could not be written.
    pub(super) mistakes: Vec<String>,
    /// The maps around the steps that are being printed, each with a dot.
    around: String,
}

/// What a step takes after its word, in the order in which it is printed.
const BEFORE_ERRORS: [&str; 9] = ["of", "as", "with", "concurrency", "rate_limit", "tolerate", "budget", "give_up_after", "tags"];
const AFTER_ERRORS: [&str; 5] = ["max_visits", "timeout", "heartbeat", "after", "run_if"];

impl Assembly {
    pub(super) fn new(workflow: &str, file: String) -> Self {
        Self { file, workflow: workflow.to_owned(), own: Vec::new(), texts: BTreeMap::new(), mistakes: Vec::new(), around: String::new() }
    }

    /// Keeps the text of a file that the workflow names.
    pub(super) fn add_text(&mut self, name: &str, text: &str) {
        self.texts.insert(resolve(&self.file, name), text.to_owned());
    }

    pub(super) fn steps(&mut self, steps: &[(String, StepDraft)]) -> Tree {
        Tree::Map(steps.iter().map(|(name, step)| (name.clone(), self.step(name, step))).collect())
    }

    fn step(&mut self, name: &str, step: &StepDraft) -> Tree {
        self.mistaken(&format!("step `{name}`"), &step.mistakes);
        let mut fields = step.fields.clone();
        let mut entries = vec![self.word(name, &step.word, &mut fields)];
        if let Word::Map(map) = &step.word {
            entries.extend(self.map(name, map, &mut fields));
        }
        entries.extend(BEFORE_ERRORS.into_iter().filter_map(|field| fields.take(field)));
        let list = |name: &str, items: &[Tree]| (!items.is_empty()).then(|| (name.to_owned(), Tree::List(items.to_vec())));
        entries.extend(list("retry", &step.retry));
        entries.extend(list("catch", &step.catch));
        entries.extend(AFTER_ERRORS.into_iter().filter_map(|field| fields.take(field)));
        entries.extend(match step.next.as_slice() {
            [Tree::Map(only)] if only.len() == 1 => only.first().map(|(_, goto)| ("next".to_owned(), goto.clone())),
            branches => list("next", branches),
        });
        entries.extend(fields.take("end"));
        Tree::Map(entries)
    }

    fn word(&mut self, name: &str, word: &Word, fields: &mut Fields) -> (String, Tree) {
        match word {
            Word::PlugIn(word, how) => ((*word).to_owned(), self.plug_in(how, name)),
            Word::Value(word, value) => ((*word).to_owned(), value.clone()),
            Word::Strategies(strategies) => {
                let strategies = strategies.iter().zip(1..).map(|(strategy, number)| self.strategy(name, number, strategy)).collect();
                ("repair".to_owned(), Tree::List(strategies))
            }
            Word::Sensor(how) => {
                let mut until = vec![("sensor".to_owned(), self.plug_in(how, name))];
                until.extend(["with", "when", "every", "timeout"].into_iter().filter_map(|field| fields.take(field)));
                ("wait".to_owned(), Tree::Map(vec![("until".to_owned(), Tree::Map(until))]))
            }
            Word::Parallel(branches) => {
                let branches = branches.iter().map(|(name, branch)| (name.clone(), self.branch(branch))).collect();
                ("parallel".to_owned(), Tree::Map(branches))
            }
            Word::Workflow(child) => ("workflow".to_owned(), self.child(child)),
            Word::Map(map) => ("map".to_owned(), Tree::Map(vec![("over".to_owned(), map.over.clone())])),
        }
    }

    /// What a map runs for each item.
    fn map(&mut self, name: &str, map: &MapDraft, fields: &mut Fields) -> Vec<(String, Tree)> {
        let mut entries = Vec::new();
        entries.extend(map.workflow.as_ref().map(|child| ("workflow".to_owned(), self.child(child))));
        entries.extend(map.dag.then(|| ("kind".to_owned(), Tree::text("dag"))));
        entries.extend(fields.take("max_parallel"));
        let first = map.steps.first().map(|(name, _)| name).filter(|_| !map.dag);
        entries.extend(map.start.as_ref().or(first).map(|start| ("start".to_owned(), Tree::text(start))));
        if !map.steps.is_empty() {
            let around = self.around.clone();
            self.around = format!("{around}{name}.");
            entries.push(("steps".to_owned(), self.steps(&map.steps)));
            self.around = around;
        }
        entries
    }

    fn strategy(&mut self, step: &str, number: usize, strategy: &StrategyBuilder) -> Tree {
        let name = strategy.name.clone().unwrap_or_else(|| number.to_string());
        self.mistaken(&format!("strategy `{name}` of step `{step}`"), &strategy.mistakes);
        let mut fields = strategy.fields.clone();
        let mut entries = vec![("strategy".to_owned(), self.plug_in(&strategy.how, &format!("{step}.{name}")))];
        entries.extend(strategy.name.as_ref().map(|name| ("name".to_owned(), Tree::text(name))));
        entries.extend(fields.take("with"));
        if !strategy.retry.is_empty() {
            entries.push(("retry".to_owned(), Tree::List(strategy.retry.clone())));
        }
        entries.extend(["budget", "tags"].into_iter().filter_map(|field| fields.take(field)));
        Tree::Map(entries)
    }

    fn branch(&mut self, branch: &BranchBuilder) -> Tree {
        let start = branch.start.as_ref().or_else(|| branch.steps.first().map(|(name, _)| name));
        let mut entries: Vec<(String, Tree)> = start.map(|start| ("start".to_owned(), Tree::text(start))).into_iter().collect();
        entries.push(("steps".to_owned(), self.steps(&branch.steps)));
        Tree::Map(entries)
    }

    pub(super) fn source(&mut self, name: &str, source: &SourceBuilder) -> Tree {
        self.mistaken(&format!("source `{name}`"), &source.mistakes);
        let mut fields = source.fields.clone();
        let mut entries = vec![("source".to_owned(), self.plug_in(&source.how, name))];
        entries.extend(["with", "rate_limit"].into_iter().filter_map(|field| fields.take(field)));
        Tree::Map(entries)
    }

    fn child(&mut self, child: &Child) -> Tree {
        let name = relative(&self.file, &child.file);
        self.texts.extend(child.children.clone());
        self.add_text(&name, &child.text);
        Tree::Text(name)
    }

    /// The name of a plug-in. One of the user's own has a name that follows from where it stands, so that a later process finds it again.
    fn plug_in(&mut self, how: &How, place: &str) -> Tree {
        match how {
            How::Named(name) => Tree::text(name),
            How::Own(register) => {
                let name = format!("{OWN_PREFIX}{}.{}{place}", self.workflow, self.around);
                self.own.push((name.clone(), register.clone()));
                Tree::Text(name)
            }
        }
    }

    fn mistaken(&mut self, what: &str, mistakes: &[String]) {
        self.mistakes.extend(mistakes.iter().map(|why| format!("the `with` of {what} can't be written: {why}")));
    }
}

/// How a workflow in `file` names another file: relative to its own folder, where that is possible.
fn relative(file: &str, other: &str) -> String {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    if folder.as_os_str().is_empty() || folder.is_absolute() != Path::new(other).is_absolute() {
        return other.to_owned();
    }
    let (folder, other): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (folder.components().collect(), Path::new(other).components().collect());
    let common = folder.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(Component::ParentDir, folder.len() - common);
    up.chain(other.into_iter().skip(common)).collect::<PathBuf>().display().to_string()
}
