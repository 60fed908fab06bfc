//! From text to a checked workflow. The text becomes a tree that knows the position of everything in it (`yaml`), the tree becomes a draft
//! (`read`), and the draft is checked against the plug-ins and as a graph (`check`). All mistakes of a file are reported at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::{Workflow, check, read};
use crate::plugin::Registry;
use crate::price::PriceBook;
use crate::yaml::{Diagnostics, tree};
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
        parse(file, text, registry, &texts, children.get(GIVEN_PRICES).map(String::as_str), &[])
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
        let given = prices.map(PriceBook::load_with_text).transpose()?.map(|(_, text)| text);
        let file = path.display().to_string();
        let text = read_text(path).map_err(|(message, help)| Diagnostics::of_file(&file, message, help))?;
        let texts = |name: &str| read_text(Path::new(name)).map_err(|(message, _)| message);
        parse(&file, &text, registry, &texts, given.as_deref(), &[])
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

pub(super) fn parse(
    file: &str,
    text: &str,
    registry: &Registry,
    texts: Texts<'_>,
    given_prices: Option<&str>,
    above: &[String],
) -> Result<Workflow, Diagnostics> {
    if text.len() > tree::MAX_FILE_BYTES {
        let (message, help) = too_big(text.len() as u64);
        return Err(Diagnostics::of_file(file, message, help));
    }
    let mut diagnostics = Diagnostics::new(file, text);
    let root = match tree::parse(text) {
        Ok(root) => root,
        Err(error) => {
            diagnostics.push(error.place, error.message, None);
            return Err(diagnostics);
        }
    };
    let children: RefCell<BTreeMap<String, String>> = RefCell::default();
    let child = |name: &str| {
        let resolved = resolve(file, name);
        if above.contains(&resolved) || resolved == resolve("", file) {
            return Err(format!("the workflow `{name}` would run itself"));
        }
        if above.len() >= MAX_DEPTH {
            return Err(format!("workflows are nested more than {MAX_DEPTH} deep"));
        }
        let text = texts(&resolved)?;
        let mut below = above.to_vec();
        below.push(resolve("", file));
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
            let first = diagnostics.iter().next().map(|first| format!("{}:{}:{}: {}", first.file, first.line, first.column, first.message));
            format!("the price book cannot be used: {}", first.unwrap_or_default())
        })?;
        children.borrow_mut().insert(name, text);
        Ok(Some(Arc::new(book)))
    };
    let mut reader = read::Reader::new(text, diagnostics, &child, &prices);
    let draft = reader.workflow(file, &root);
    let mut diagnostics = reader.into_diagnostics();
    let checked = draft.map(|draft| check::check(draft, text, registry, &mut diagnostics));
    match checked {
        Some(workflow) if diagnostics.is_empty() => Ok(Workflow { children: children.into_inner(), ..workflow }),
        _ => {
            diagnostics.sort();
            Err(diagnostics)
        }
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
