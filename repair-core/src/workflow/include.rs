//! Finds the files that a file includes, and those that they include. It must not look at what they define; `read` does that.

use std::collections::BTreeMap;

use super::parse::{Texts, resolve};
use super::read::quoted;
use crate::yaml::tree::{self, Node, Place, Yaml};
use crate::yaml::{Diagnostics, too_big};

/// How deep included files may include others. Two levels are common; this also ends a chain of folders that are links to themselves.
const MAX_DEPTH: usize = 8;
/// How many files one workflow may include in all. A run keeps the texts of all of them.
const MAX_FILES: usize = 100;

/// The key that names other files.
pub(super) const INCLUDE: &str = "include";
/// What a file that is included may hold.
pub(super) const SHARED: [&str; 4] = [INCLUDE, "tables", "sources", "calendars"];

/// The files that a file includes, directly or through others, each once.
pub(super) struct Included {
    /// Their contents; what a file includes comes before the file itself.
    pub(super) roots: Vec<Node>,
    /// Their texts, by resolved name.
    pub(super) texts: BTreeMap<String, String>,
    /// Whether all of them could be read. If not, a name that is missing may be defined in one of the others.
    pub(super) complete: bool,
}

/// Whether a file holds definitions to include, and is no workflow.
pub(super) fn is_shared(root: &Node) -> bool {
    let has = |name: &&str| root.get(name).is_some();
    SHARED.iter().any(has) && !["workflow", "kind", "start", "steps"].iter().any(has)
}

/// Reads the files that a file includes, and reports those that cannot be.
pub(super) fn included(file: &str, root: &Node, texts: Texts<'_>, diagnostics: &mut Diagnostics) -> Included {
    let found = Included { roots: Vec::new(), texts: BTreeMap::new(), complete: true };
    let mut search = Search { texts, diagnostics, found };
    search.includes(file, root, &mut vec![resolve("", file)]);
    search.found
}

struct Search<'a> {
    texts: Texts<'a>,
    diagnostics: &'a mut Diagnostics,
    found: Included,
}

impl Search<'_> {
    /// Reads what one file includes. `above` are the files that lead to it, itself as the last one.
    fn includes(&mut self, file: &str, root: &Node, above: &mut Vec<String>) {
        let Some((key, node)) = root.entry(INCLUDE) else { return };
        const FORM: &str = "list files, e.g. `include: [lake.yaml]`";
        let names = match &node.value {
            Yaml::Text(_) => std::slice::from_ref(node),
            Yaml::List(items) => items,
            _ => {
                return self.refuse(
                    node.place,
                    format!("`{INCLUDE}` must be a list of files, not {}", node.describe()),
                    Some(FORM.to_owned()),
                );
            }
        };
        if names.len() > MAX_FILES {
            let message = format!("`{INCLUDE}` has {} entries; at most {MAX_FILES} are allowed", names.len());
            return self.refuse(key.place, message, None);
        }
        let mut named: Vec<String> = Vec::new();
        for node in names {
            let Some(name) = node.text().filter(|name| !name.trim().is_empty()) else {
                self.refuse(
                    node.place,
                    format!("an entry of `{INCLUDE}` must be the name of a file, not {}", what(node)),
                    Some(FORM.to_owned()),
                );
                continue;
            };
            let resolved = resolve(file, name);
            if named.contains(&resolved) {
                self.refuse(node.place, format!("{} is included twice", quoted(name)), Some("remove one".to_owned()));
            } else {
                self.include(file, name, &resolved, node.place, above);
            }
            named.push(resolved);
        }
    }

    fn include(&mut self, file: &str, name: &str, resolved: &str, place: Place, above: &mut Vec<String>) {
        if let Some(first) = above.iter().position(|above| above == resolved) {
            let around: Vec<&str> = above.iter().skip(first).map(String::as_str).chain([resolved]).collect();
            let message = format!("{} would include itself: {}", quoted(name), around.join(" includes "));
            return self.refuse(place, message, Some("remove this entry, or move what both files need to a third".to_owned()));
        }
        if self.found.texts.contains_key(resolved) {
            return;
        }
        if above.len() > MAX_DEPTH {
            let message = format!("included files are nested more than {MAX_DEPTH} deep");
            return self.refuse(place, message, Some("include this file from the workflow instead".to_owned()));
        }
        if self.found.texts.len() >= MAX_FILES {
            return self.refuse(place, format!("more than {MAX_FILES} files are included"), Some("join some of them".to_owned()));
        }
        let text = match (self.texts)(resolved) {
            Ok(text) if text.len() <= tree::MAX_FILE_BYTES => text,
            Ok(text) => return self.refuse(place, format!("{} cannot be included: {}", quoted(name), too_big(text.len() as u64).0), None),
            Err(why) => {
                let help = format!("names of files are relative to the folder of {}", quoted(file));
                return self.refuse(place, format!("{} cannot be included: {why}", quoted(name)), Some(help));
            }
        };
        let number = self.diagnostics.add_file(resolved, &text);
        let parsed = tree::parse(&text, number);
        self.found.texts.insert(resolved.to_owned(), text);
        match parsed {
            Ok(root) => {
                above.push(resolved.to_owned());
                self.includes(resolved, &root, above);
                above.pop();
                self.found.roots.push(root);
            }
            Err(error) => self.refuse(error.place, error.message, None),
        }
    }

    fn refuse(&mut self, place: Place, message: String, help: Option<String>) {
        self.found.complete = false;
        self.diagnostics.push(place, message, help);
    }
}

/// A value that should be a text, in words.
fn what(node: &Node) -> &'static str {
    if node.text().is_some() { "nothing" } else { node.describe() }
}
