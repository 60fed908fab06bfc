//! From text to a checked workflow. The text becomes a tree that knows the position of everything in it (`yaml`), the tree becomes a draft
//! (`read`), and the draft is checked against the plug-ins and as a graph (`check`). All mistakes of a file are reported at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::builder::print_node;
use super::definition::{GIVEN_ITEMS, Outer, given_items};
use super::include::{INCLUDE, included};
use super::{Workflow, check, include, read};
use crate::plugin::Registry;
use crate::price::PriceBook;
use crate::yaml::Diagnostics;
use crate::yaml::tree::{self, Node, Place};
use crate::yaml::{read_text, too_big};

/// How deep workflows may nest other workflows.
const MAX_DEPTH: usize = 8;

/// The name under which [`Workflow::children`] keeps the text of a price book that was given separately.
const GIVEN_PRICES: &str = "--prices";

/// Looks up the text of a file that a workflow names, by its resolved name.
pub(super) type Texts<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl Workflow {
    /// Reads and checks a workflow that names no other files. `file` names the text in messages.
    ///
    /// ```
    /// use repair_core::plugin::Registry;
    /// use repair_core::workflow::Workflow;
    ///
    /// let text = "workflow: nightly\nkind: dag\nsteps:\n  rest: { wait: { for: 1s } }\n";
    /// let workflow = Workflow::parse("nightly.yaml", text, &Registry::default())?;
    /// assert_eq!(workflow.steps.len(), 1);
    /// # Ok::<(), repair_core::yaml::Diagnostics>(())
    /// ```
    ///
    /// # Errors
    /// All mistakes at once, each with its place.
    pub fn parse(file: &str, text: &str, registry: &Registry) -> Result<Workflow, Diagnostics> {
        Self::parse_with(file, text, registry, &BTreeMap::new())
    }

    /// Reads and checks a workflow, given the texts of the files that it names, as [`Workflow::children`] keeps them.
    ///
    /// # Errors
    /// As [`Workflow::parse`].
    pub fn parse_with(file: &str, text: &str, registry: &Registry, children: &BTreeMap<String, String>) -> Result<Workflow, Diagnostics> {
        let texts = |name: &str| children.get(name).cloned().ok_or_else(|| format!("there is no file `{name}`"));
        let given = Given { prices: children.get(GIVEN_PRICES).map(String::as_str), items: given_items(children) };
        parse_given(file, text, registry, &texts, &given, &[])
    }

    /// Reads and checks a workflow in a file, and the files that it names, relative to its own folder.
    ///
    /// ```no_run
    /// use std::path::Path;
    ///
    /// use repair_core::plugin::Registry;
    /// use repair_core::workflow::Workflow;
    ///
    /// let workflow = Workflow::load(Path::new("workflows/sensors.yaml"), &Registry::default())?;
    /// # Ok::<(), repair_core::yaml::Diagnostics>(())
    /// ```
    ///
    /// # Errors
    /// As [`Workflow::parse`]; a file that is missing, is a folder, is too big or is not text is reported in the same way.
    pub fn load(path: &Path, registry: &Registry) -> Result<Workflow, Diagnostics> {
        Self::load_with_prices(path, registry, None)
    }

    /// As [`Workflow::load`], with a price book that replaces those that the workflows name.
    ///
    /// # Errors
    /// As [`Workflow::load`]; mistakes in the price book are reported for its own file.
    pub fn load_with_prices(path: &Path, registry: &Registry, prices: Option<&Path>) -> Result<Workflow, Diagnostics> {
        load(path, prices, |file, text, texts, given| parse(file, text, registry, texts, given, &[]))
    }

    /// The same workflow, with the price book of a file in place of those that it names.
    ///
    /// # Errors
    /// Those of the price book; and as [`Workflow::parse`], if the registry does not have what the workflow was read with.
    pub fn with_prices(&self, prices: &Path, registry: &Registry) -> Result<Workflow, Diagnostics> {
        let (_, text) = PriceBook::load_with_text(prices)?;
        let mut children = self.children.clone();
        children.insert(GIVEN_PRICES.to_owned(), text);
        Self::parse_with(&self.file, &self.text, registry, &children)
    }
}

/// Reads a file and the price book that is given in its place, and hands on their texts. What the file names is read once, so that a file
/// that is named twice has one text even if it changes meanwhile.
pub(super) fn load<T>(
    path: &Path,
    prices: Option<&Path>,
    read: impl FnOnce(&str, &str, Texts<'_>, Option<&str>) -> Result<T, Diagnostics>,
) -> Result<T, Diagnostics> {
    let given = prices.map(PriceBook::load_with_text).transpose()?.map(|(_, text)| text);
    let file = path.display().to_string();
    let text = read_text(path).map_err(|(message, help)| Diagnostics::of_file(&file, message, help))?;
    let known: RefCell<BTreeMap<String, Result<String, String>>> = RefCell::default();
    let texts = |name: &str| {
        let mut known = known.borrow_mut();
        known.entry(name.to_owned()).or_insert_with(|| read_text(Path::new(name)).map_err(|(message, _)| message)).clone()
    };
    read(&file, &text, &texts, given.as_deref())
}

/// Whether a text holds definitions that workflows share, and is no workflow.
pub(super) fn is_shared(text: &str) -> bool {
    text.len() <= tree::MAX_FILE_BYTES && tree::parse(text, 0).is_ok_and(|root| include::is_shared(&root))
}

/// Reads and checks a file that holds only definitions, as a workflow without steps.
pub(super) fn definitions(file: &str, text: &str, registry: &Registry, texts: Texts<'_>) -> Result<Workflow, Diagnostics> {
    let (root, mut diagnostics) = tree_of(file, text)?;
    let included = included(file, &root, texts, &mut diagnostics);
    let no_child = |_: &str| Err("a file without steps runs no workflow".to_owned());
    let no_items = |_: &str, _: &Node, _: &BTreeMap<String, Value>, diagnostics: Diagnostics| (None, diagnostics);
    let others = read::Others { child: &no_child, within: &no_items, prices: &|_| Ok(None), files: texts };
    let no_given = BTreeMap::new();
    let mut reader = read::Reader::new(text, diagnostics.of_definitions(), others, &included, &no_given);
    let draft = reader.definitions(file, &root);
    finish(draft, registry, reader.into_diagnostics())
}

/// The tree of a text, and where its mistakes go.
fn tree_of(file: &str, text: &str) -> Result<(Node, Diagnostics), Diagnostics> {
    if text.len() > tree::MAX_FILE_BYTES {
        let (message, help) = too_big(text.len() as u64);
        return Err(Diagnostics::of_file(file, message, help));
    }
    let mut diagnostics = Diagnostics::new(file, text);
    match tree::parse(text, 0) {
        Ok(root) => Ok((root, diagnostics)),
        Err(error) => {
            diagnostics.push(error.place, error.message, None);
            Err(diagnostics)
        }
    }
}

/// Checks what was read.
fn finish(draft: Option<read::Draft<'_>>, registry: &Registry, mut diagnostics: Diagnostics) -> Result<Workflow, Diagnostics> {
    match draft.map(|draft| check::check(draft, registry, &mut diagnostics)) {
        Some(workflow) if diagnostics.is_empty() => Ok(workflow),
        _ => {
            diagnostics.sort();
            Err(diagnostics)
        }
    }
}

/// What a workflow is given beside its text and the files that it names.
#[derive(Default)]
struct Given<'a> {
    /// The text of a price book in place of those that it names.
    prices: Option<&'a str>,
    /// The variables of the item that it is for, by name.
    items: BTreeMap<String, Value>,
}

pub(super) fn parse(
    file: &str,
    text: &str,
    registry: &Registry,
    texts: Texts<'_>,
    given_prices: Option<&str>,
    above: &[String],
) -> Result<Workflow, Diagnostics> {
    parse_given(file, text, registry, texts, &Given { prices: given_prices, items: BTreeMap::new() }, above)
}

fn parse_given(
    file: &str,
    text: &str,
    registry: &Registry,
    texts: Texts<'_>,
    given: &Given<'_>,
    above: &[String],
) -> Result<Workflow, Diagnostics> {
    let (root, mut diagnostics) = tree_of(file, text)?;
    if include::is_shared(&root) {
        let name = Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy());
        let help = format!("add `workflow`, `kind` and `steps`; or run a workflow that has `{INCLUDE}: [{name}]`");
        diagnostics.push(Place::default(), "the file holds definitions to share, and no workflow".to_owned(), Some(help));
        return Err(diagnostics);
    }
    let included = included(file, &root, texts, &mut diagnostics);
    let around = Around { file, registry, texts, given_prices: given.prices, included: &included };
    let (workflow, mut diagnostics) = around.read(&root, text, None, &given.items, diagnostics, above);
    match workflow {
        Some(workflow) if diagnostics.is_empty() => Ok(workflow),
        _ => {
            diagnostics.sort();
            Err(diagnostics)
        }
    }
}

/// What all workflows in one file share.
struct Around<'a> {
    file: &'a str,
    registry: &'a Registry,
    texts: Texts<'a>,
    given_prices: Option<&'a str>,
    included: &'a include::Included,
}

impl Around<'_> {
    /// Reads and checks the tree of a workflow: that of a file, or of the steps within a map. `items` are the variables of maps around it. Mistakes
    /// are added to those that there are; the workflow is sound only if there are no more of them.
    fn read(
        &self,
        root: &Node,
        text: &str,
        within: Option<Outer>,
        items: &BTreeMap<String, Value>,
        diagnostics: Diagnostics,
        above: &[String],
    ) -> (Option<Workflow>, Diagnostics) {
        let Self { file, registry, texts, given_prices, included } = *self;
        let is_within = within.is_some();
        let outer = within.unwrap_or_else(|| Outer { text: text.into(), steps: Vec::new() });
        let children: RefCell<BTreeMap<String, String>> = RefCell::default();
        let below = || {
            if above.len() >= MAX_DEPTH {
                return Err(format!("workflows are nested more than {MAX_DEPTH} deep"));
            }
            let mut below = above.to_vec();
            below.push(resolve("", file));
            Ok(below)
        };
        let child = |name: &str| {
            let resolved = resolve(file, name);
            if above.contains(&resolved) || resolved == resolve("", file) {
                return Err(format!("the workflow `{name}` would run itself"));
            }
            let below = below()?;
            let text = texts(&resolved)?;
            let workflow = parse(&resolved, &text, registry, texts, given_prices, &below).map_err(|diagnostics| {
                let first =
                    diagnostics.iter().next().map(|first| format!(": {}:{}:{}: {}", first.file, first.line, first.column, first.message));
                format!("the workflow `{name}` cannot run{}", first.unwrap_or_default())
            })?;
            let mut children = children.borrow_mut();
            children.extend(workflow.children.clone());
            children.insert(resolved, text);
            Ok(Arc::new(workflow))
        };
        let within = |step: &str, root: &Node, items: &BTreeMap<String, Value>, mut diagnostics: Diagnostics| {
            let below = match below() {
                Ok(below) => below,
                Err(why) => {
                    diagnostics.push(root.place, why, None);
                    return (None, diagnostics);
                }
            };
            let text = print_node(root);
            if text.len() > tree::MAX_FILE_BYTES {
                let (message, help) = too_big(text.len() as u64);
                diagnostics.push(root.place, format!("written by itself, {message}"), help);
                return (None, diagnostics);
            }
            let before = diagnostics.len();
            let mut around = outer.clone();
            around.steps.push(step.to_owned());
            let (workflow, mut diagnostics) = self.read(root, &text, Some(around), items, diagnostics, &below);
            diagnostics.drop_repeated(before);
            let workflow = workflow.filter(|_| diagnostics.len() == before);
            if let Some(workflow) = &workflow {
                let of_files = workflow.children.iter().filter(|(name, _)| *name != GIVEN_ITEMS);
                children.borrow_mut().extend(of_files.map(|(name, text)| (name.clone(), text.clone())));
            }
            (workflow.map(Arc::new), diagnostics)
        };
        let prices = |name: Option<&str>| {
            let (name, text) = match (given_prices, name) {
                (Some(text), _) => (GIVEN_PRICES.to_owned(), text.to_owned()),
                (None, Some(name)) => {
                    let resolved = resolve(file, name);
                    let text = texts(&resolved)?;
                    (resolved, text)
                }
                (None, None) => return Ok(None),
            };
            let book = PriceBook::parse(&name, &text).map_err(|diagnostics| {
                let first =
                    diagnostics.iter().next().map(|first| format!("{}:{}:{}: {}", first.file, first.line, first.column, first.message));
                format!("the price book cannot be used: {}", first.unwrap_or_default())
            })?;
            children.borrow_mut().insert(name, text);
            Ok(Some(Arc::new(book)))
        };
        let days = |name: &str| {
            let text = texts(name)?;
            children.borrow_mut().insert(name.to_owned(), text.clone());
            Ok(text)
        };
        let others = read::Others { child: &child, within: &within, prices: &prices, files: &days };
        let mut reader = read::Reader::new(text, diagnostics, others, included, items);
        let draft = reader.workflow(file, root);
        let mut diagnostics = reader.into_diagnostics();
        let mut workflow = draft.map(|draft| check::check(draft, registry, &mut diagnostics));
        if let Some(workflow) = &mut workflow {
            workflow.outer = is_within.then_some(outer);
            workflow.children.extend(children.into_inner());
            if !items.is_empty() {
                *workflow = workflow.for_item(BTreeMap::new());
            }
        }
        (workflow, diagnostics)
    }
}

/// The path of a file that a workflow names relative to its own, normalized so that different spellings give the same path.
pub(super) fn resolve(file: &str, name: &str) -> String {
    let joined = Path::new(file).parent().unwrap_or(Path::new("")).join(name);
    let mut resolved = PathBuf::new();
    for component in joined.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(resolved.components().next_back(), Some(Component::Normal(_))) => {
                resolved.pop();
            }
            other => resolved.push(other),
        }
    }
    resolved.display().to_string()
}
