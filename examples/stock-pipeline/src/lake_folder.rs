//! The folder in which the demo creates its lake. It is recreated each time, and never at the cost of anyone's data.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use repair::core::lake::overlay;
use repair::report::Report;

use crate::scenario::Choices;

/// The file that marks a folder as this demo's own.
const MARKER: &str = ".stock-pipeline";

/// The text of the marker, for people who open it.
const MARKER_TEXT: &str =
    "The demo `stock-pipeline` created this lake, and recreates its tables each time it runs. Without this file it touches nothing here.\n";

/// The folder in which the engine keeps everything but tables: the journal, artifacts, staged units.
pub(crate) const ENGINE_FOLDER: &str = ".repair";

/// The folder for the report.
const REPORT: &str = "report";

/// A folder that holds this demo's lake.
#[derive(Debug)]
pub(crate) struct LakeFolder {
    root: PathBuf,
}

impl LakeFolder {
    /// Takes a folder for the demo: one that does not exist yet, is empty, or was marked by an earlier demo.
    ///
    /// # Errors
    /// Fails if the folder holds anything else, which may be someone's data.
    pub(crate) fn claim(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("the folder {} cannot be created", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("the folder {} cannot be opened", root.display()))?;
        let folder = Self { root };
        let root = &folder.root;
        let marker = root.join(MARKER);
        if !marker.try_exists().with_context(|| format!("the file {} cannot be looked at", marker.display()))? {
            let mut entries = fs::read_dir(root).with_context(|| format!("the folder {} cannot be read", root.display()))?;
            if entries.next().is_some() {
                bail!(
                    "the folder {} is not empty, and this demo did not create it, so it touches nothing there; name another one with --lake DIR",
                    root.display()
                );
            }
            folder.mark(MARKER_TEXT)?;
        }
        Ok(folder)
    }

    /// The folder of an earlier demo, and the choices that it was created with.
    ///
    /// # Errors
    /// Fails if there is none, or the earlier demo did not finish.
    pub(crate) fn kept(root: &Path) -> Result<(Self, Choices)> {
        let help = "run the demo once without --keep";
        let marker = root.join(MARKER);
        let text = match fs::read_to_string(&marker) {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no lake of an earlier demo in {}; {help}", root.display()),
            text => text.with_context(|| format!("{} cannot be read", marker.display()))?,
        };
        let choices = text.strip_prefix(MARKER_TEXT).map(str::trim).unwrap_or_default();
        if choices.is_empty() {
            bail!("the lake in {} is incomplete; {help}", root.display());
        }
        let choices = serde_json::from_str(choices)
            .with_context(|| format!("{} does not contain the flags that created the lake; {help}", marker.display()))?;
        let root = root.canonicalize().with_context(|| format!("the folder {} cannot be opened", root.display()))?;
        Ok((Self { root }, choices))
    }

    /// Records the choices, once the tables exist.
    ///
    /// # Errors
    /// Fails if the marker cannot be written.
    pub(crate) fn remember(&self, choices: &Choices) -> Result<()> {
        let choices = serde_json::to_string(choices).context("the flags cannot be written as JSON")?;
        self.mark(&format!("{MARKER_TEXT}{choices}\n"))
    }

    fn mark(&self, text: &str) -> Result<()> {
        let marker = self.root.join(MARKER);
        fs::write(&marker, text).with_context(|| format!("{} cannot be written", marker.display()))
    }

    /// Removes what earlier demos created, and nothing else.
    ///
    /// # Errors
    /// Fails if something cannot be removed.
    pub(crate) fn clear(&self, tables: &[&str]) -> Result<()> {
        // From here on, there is no complete lake that could be kept.
        self.mark(MARKER_TEXT)?;
        for table in tables {
            self.remove(table)?;
            self.remove(&overlay::repairs(table))?;
            self.remove(&overlay::exceptions(table))?;
            self.remove(&overlay::retractions(table))?;
        }
        self.remove(REPORT)?;
        self.remove(ENGINE_FOLDER)
    }

    /// Writes the report, and its first pictures by themselves, and returns the path of the page.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub(crate) fn page(&self, report: &Report) -> Result<PathBuf> {
        let folder = self.root.join(REPORT);
        let cannot = || format!("the report in {} cannot be written", folder.display());
        fs::create_dir_all(&folder).with_context(cannot)?;
        let page = folder.join("report.html");
        fs::write(&page, report.html()).with_context(cannot)?;
        if let Some(svg) = report.svg() {
            fs::write(folder.join("completeness.svg"), svg).with_context(cannot)?;
        }
        Ok(page)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The folder, as an absolute path.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_anything_in_it_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious.csv"), "1,2,3").unwrap();
        let refusal = LakeFolder::claim(folder.path()).unwrap_err().to_string();
        assert!(refusal.contains("--lake"), "{refusal}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_the_demo_created_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let lake = LakeFolder::claim(&folder.path().join("lake")).unwrap();
        for name in ["bars", "bars_repairs", "bars_exceptions", "bars_retractions", ENGINE_FOLDER, "notes"] {
            fs::create_dir(lake.root().join(name)).unwrap();
        }
        LakeFolder::claim(lake.root()).unwrap().clear(&["bars", "hourly"]).unwrap();
        let mut left: Vec<_> = fs::read_dir(lake.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [MARKER, "notes"]);
    }
}
