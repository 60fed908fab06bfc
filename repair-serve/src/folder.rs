//! The workflows of a folder, and how changes are noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use repair::core::workflow::Document;
use repair::{Registry, Workflow};

/// What a folder holds.
#[derive(Default)]
pub(crate) struct Folder {
    /// The workflows that can be read.
    pub(crate) workflows: Vec<Arc<Loaded>>,
    /// The files that cannot be used, and why.
    pub(crate) broken: Vec<(PathBuf, String)>,
    stamps: BTreeMap<PathBuf, Stamp>,
}

/// A workflow of the folder.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) file: PathBuf,
    pub(crate) workflow: Workflow,
}

impl Loaded {
    pub(crate) fn name(&self) -> &str {
        &self.workflow.name
    }

    /// Whether both mean the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.file == other.file && self.workflow.text == other.workflow.text && self.workflow.children == other.workflow.children
    }
}

/// Size and time of a file; `None` if it cannot be looked at.
type Stamp = Option<(u64, SystemTime)>;

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

impl Folder {
    /// Reads a folder. The names of workflows must differ: of two that are the same, the first file in order of names counts.
    pub(crate) fn read(folder: &Path, registry: &Registry) -> Self {
        let mut read = Self::default();
        let files = match files(folder) {
            Ok(files) => files,
            Err(error) => {
                read.broken.push((folder.to_owned(), format!("the folder cannot be read: {error}")));
                return read;
            }
        };
        for file in files {
            read.stamps.insert(file.clone(), stamp(&file));
            match Document::load(&file, registry, None) {
                Ok(Document::Shared(_)) => {}
                Ok(Document::Workflow(workflow)) => {
                    for named in workflow.children.keys() {
                        let path = file.parent().unwrap_or(folder).join(named);
                        read.stamps.insert(path.clone(), stamp(&path));
                    }
                    match read.workflows.iter().find(|loaded| loaded.name() == workflow.name) {
                        Some(first) => {
                            let why =
                                format!("{} is a workflow `{}` too; give one of them another name", first.file.display(), workflow.name);
                            read.broken.push((file, why));
                        }
                        None => read.workflows.push(Arc::new(Loaded { file, workflow })),
                    }
                }
                Err(mistakes) => read.broken.push((file, mistakes.to_string())),
            }
        }
        read
    }

    /// Whether a file of it, or one that these name, has come, gone or changed.
    pub(crate) fn has_changed(&self, folder: &Path) -> bool {
        let now = files(folder).unwrap_or_default();
        now.iter().any(|file| !self.stamps.contains_key(file)) || self.stamps.iter().any(|(file, before)| stamp(file) != *before)
    }
}

/// The files of a folder that may be workflows, in order of their names.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_yaml = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        // What cannot be looked at is a file that cannot be read, and is shown so.
        let is_folder = std::fs::metadata(&path).is_ok_and(|meta| meta.is_dir());
        if is_yaml && !is_hidden && !is_folder {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
