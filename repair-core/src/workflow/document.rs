//! Files that hold a workflow, and files that hold only what workflows share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{SourceUse, Workflow, parse};
use crate::model::{Calendar, Table};
use crate::plugin::Registry;
use crate::yaml::Diagnostics;

/// Definitions that workflows share: a file that they name under `include`, with `tables`, `sources`, `calendars` and further
/// files to include.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Shared {
    /// The file, for messages.
    pub file: String,
    /// The tables, by name, with those of included files.
    pub tables: BTreeMap<String, Table>,
    /// The sources, by name, with those of included files.
    pub sources: BTreeMap<String, SourceUse>,
    /// The calendars, by name, with those of included files.
    pub calendars: BTreeMap<String, Arc<dyn Calendar>>,
}

impl Shared {
    /// Reads and checks definitions from a text, such as those that a program carries. They include no files.
    ///
    /// ```
    /// use repair_core::plugin::Registry;
    /// use repair_core::workflow::Shared;
    ///
    /// let text = "tables:\n  readings: { location: readings, format: csv, time: ts, cadence: 1h }\n";
    /// let shared = Shared::parse("lake.yaml", text, &Registry::default())?;
    /// assert!(shared.tables.contains_key("readings"));
    /// # Ok::<(), repair_core::yaml::Diagnostics>(())
    /// ```
    ///
    /// # Errors
    /// The mistakes in the text, with their places.
    pub fn parse(file: &str, text: &str, registry: &Registry) -> Result<Self, Diagnostics> {
        let none = |name: &str| Err(format!("definitions that are read from a text have no file `{name}`"));
        parse::definitions(file, text, registry, &none).map(Self::from)
    }
}

/// What a file holds. Where only tables are needed, either kind will do.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one value per command")]
pub enum Document {
    /// A workflow.
    Workflow(Workflow),
    /// Definitions that workflows share.
    Shared(Shared),
}

impl Document {
    /// Reads and checks a file, and the files that it names.
    ///
    /// ```
    /// use repair_core::plugin::Registry;
    /// use repair_core::workflow::Document;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let file = folder.path().join("lake.yaml");
    /// std::fs::write(&file, "tables:\n  readings: { location: readings, format: csv, time: ts, cadence: 1h }\n")?;
    /// let document = Document::load(&file, &Registry::default(), None)?;
    /// assert!(document.tables().contains_key("readings"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Workflow::load_with_prices`]. A file of definitions uses no prices.
    pub fn load(path: &Path, registry: &Registry, prices: Option<&Path>) -> Result<Self, Diagnostics> {
        parse::load(path, prices, |file, text, texts, given| {
            if parse::is_shared(text) {
                parse::definitions(file, text, registry, texts).map(|found| Self::Shared(found.into()))
            } else {
                parse::parse(file, text, registry, texts, given, &[]).map(Self::Workflow)
            }
        })
    }

    /// The tables, by name.
    pub fn tables(&self) -> &BTreeMap<String, Table> {
        match self {
            Self::Workflow(workflow) => &workflow.tables,
            Self::Shared(shared) => &shared.tables,
        }
    }

    /// The calendars that it defines, by name.
    pub fn calendars(&self) -> &BTreeMap<String, Arc<dyn Calendar>> {
        match self {
            Self::Workflow(workflow) => &workflow.calendars,
            Self::Shared(shared) => &shared.calendars,
        }
    }
}

impl From<Workflow> for Shared {
    fn from(workflow: Workflow) -> Self {
        Self { file: workflow.file, tables: workflow.tables, sources: workflow.sources, calendars: workflow.calendars }
    }
}
