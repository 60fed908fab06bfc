//! The folder in which the demo makes its lake: made anew each time, and never at the cost of somebody's data.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use repair::core::lake::overlay;

use crate::scenario::Choices;

/// Marks a folder as this demo's own.
const MARKER: &str = ".stock-pipeline";

/// What the marker says to whoever opens it.
const MARKER_TEXT: &str =
    "The demo `stock-pipeline` made this lake, and makes its tables anew each time it runs. Without this file it touches nothing.\n";

/// Where the engine keeps what is not a table: the journal, artifacts, staged units.
pub(crate) const ENGINE_FOLDER: &str = ".repair";

/// A folder that holds this demo's lake, and nothing it did not make.
#[derive(Debug)]
pub(crate) struct LakeFolder {
    root: PathBuf,
}

impl LakeFolder {
    /// Takes a folder for the demo: one that is not there yet, one that is empty, or one that it marked before.
    ///
    /// # Errors
    /// If the folder holds anything else: it may be somebody's data.
    pub(crate) fn claim(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("the folder {} can't be made", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("the folder {} can't be opened", root.display()))?;
        let folder = Self { root };
        let root = &folder.root;
        if !root.join(MARKER).exists() {
            let mut entries = fs::read_dir(root).with_context(|| format!("the folder {} can't be read", root.display()))?;
            if entries.next().is_some() {
                bail!(
                    "{} is not empty and this demo did not make it, so it touches nothing there; name another folder with --lake DIR",
                    root.display()
                );
            }
            folder.mark(MARKER_TEXT)?;
        }
        Ok(folder)
    }

    /// The folder of an earlier demo, and what was chosen for it.
    ///
    /// # Errors
    /// If there is none, or it did not come to its end.
    pub(crate) fn kept(root: &Path) -> Result<(Self, Choices)> {
        let anew = "run the demo once without --keep";
        let marker = root.join(MARKER);
        let text = match fs::read_to_string(&marker) {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no lake of an earlier demo in {}; {anew}", root.display()),
            text => text.with_context(|| format!("{} can't be read", marker.display()))?,
        };
        let choices = text.strip_prefix(MARKER_TEXT).map(str::trim).unwrap_or_default();
        if choices.is_empty() {
            bail!("the lake in {} was not made to its end; {anew}", root.display());
        }
        let choices = serde_json::from_str(choices)
            .with_context(|| format!("{} does not say with which flags the lake was made; {anew}", marker.display()))?;
        let root = root.canonicalize().with_context(|| format!("the folder {} can't be opened", root.display()))?;
        Ok((Self { root }, choices))
    }

    /// Remembers what was chosen, once the tables are there.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn remember(&self, choices: &Choices) -> Result<()> {
        let choices = serde_json::to_string(choices).context("the flags can't be written as JSON")?;
        self.mark(&format!("{MARKER_TEXT}{choices}\n"))
    }

    fn mark(&self, text: &str) -> Result<()> {
        let marker = self.root.join(MARKER);
        fs::write(&marker, text).with_context(|| format!("{} can't be written", marker.display()))
    }

    /// Removes what earlier demos made, and only that.
    ///
    /// # Errors
    /// If something can't be removed.
    pub(crate) fn clear(&self, tables: &[&str]) -> Result<()> {
        // From here on there is nothing whole that could be kept.
        self.mark(MARKER_TEXT)?;
        for table in tables {
            self.remove(table)?;
            self.remove(&overlay::repairs(table))?;
            self.remove(&overlay::exceptions(table))?;
        }
        self.remove(ENGINE_FOLDER)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("{} can't be removed", path.display())),
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
    fn only_what_the_demo_made_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let lake = LakeFolder::claim(&folder.path().join("lake")).unwrap();
        for name in ["bars", "bars_repairs", "bars_exceptions", ENGINE_FOLDER, "notes"] {
            fs::create_dir(lake.root().join(name)).unwrap();
        }
        LakeFolder::claim(lake.root()).unwrap().clear(&["bars", "hourly"]).unwrap();
        let mut left: Vec<_> = fs::read_dir(lake.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [MARKER, "notes"]);
    }
}
