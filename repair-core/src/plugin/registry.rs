//! Finds plug-ins by name, checks their configuration against its schema, and makes them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Aggregator, Detector, Repairer, Sensor, Source, Task};
use crate::error::{Error, Result};
use crate::model::{Always, Calendar, DefectKind, Table};
use crate::yaml::closest;

/// Which of the traits a plug-in implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PluginKind {
    /// [`Detector`]
    Detector,
    /// [`Repairer`]
    Repairer,
    /// [`Aggregator`]
    Aggregator,
    /// [`Sensor`]
    Sensor,
    /// [`Task`]
    Task,
    /// [`Source`]
    Source,
}

impl PluginKind {
    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detector => "detector",
            Self::Repairer => "repairer",
            Self::Aggregator => "aggregator",
            Self::Sensor => "sensor",
            Self::Task => "task",
            Self::Source => "source",
        }
    }
}

/// A plug-in, made from its configuration.
#[derive(Clone)]
#[non_exhaustive]
pub enum Plugin {
    /// A detector.
    Detector(Arc<dyn Detector>),
    /// A repairer.
    Repairer(Arc<dyn Repairer>),
    /// An aggregator.
    Aggregator(Arc<dyn Aggregator>),
    /// A sensor.
    Sensor(Arc<dyn Sensor>),
    /// A task.
    Task(Arc<dyn Task>),
    /// A source.
    Source(Arc<dyn Source>),
}

impl Plugin {
    /// Which of the traits it implements.
    pub fn kind(&self) -> PluginKind {
        match self {
            Self::Detector(_) => PluginKind::Detector,
            Self::Repairer(_) => PluginKind::Repairer,
            Self::Aggregator(_) => PluginKind::Aggregator,
            Self::Sensor(_) => PluginKind::Sensor,
            Self::Task(_) => PluginKind::Task,
            Self::Source(_) => PluginKind::Source,
        }
    }
}

macro_rules! plugin_as {
    ($($kind:ident),*) => {
        $(impl TryFrom<Plugin> for Arc<dyn $kind> {
            type Error = Error;

            fn try_from(plugin: Plugin) -> Result<Self> {
                match plugin {
                    Plugin::$kind(made) => Ok(made),
                    other => {
                        let (other, wanted) = (other.kind().as_str(), PluginKind::$kind.as_str());
                        Err(Error::internal(format!("a {other} stands where a {wanted} must be")))
                    }
                }
            }
        })*
    };
}

plugin_as!(Detector, Repairer, Aggregator, Sensor, Task, Source);

/// Why a configuration does not fit, and where within `with`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The path from `with` to the place: keys and indexes.
    pub path: Vec<PathSegment>,
    /// What is wrong.
    pub message: String,
}

/// One part of a path through a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSegment {
    /// A key of a mapping.
    Key(String),
    /// An index of a list.
    Index(usize),
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let mut place = String::from("with");
        for segment in &error.path {
            match segment {
                PathSegment::Key(key) => {
                    place.push('.');
                    place.push_str(key);
                }
                PathSegment::Index(index) => place.push_str(&format!("[{index}]")),
            }
        }
        Error::invalid(error.message).on("at", place)
    }
}

type Make = Arc<dyn Fn(&Value) -> Result<Plugin, ConfigError> + Send + Sync>;

/// How the names begin under which a workflow written in Rust registers the plug-ins that are given to it as values.
pub(crate) const OWN_PREFIX: &str = "own.";

/// What to do about a missing plug-in of a workflow that was written in Rust.
pub(crate) const OWN_HELP: &str = "a program gave it to a workflow that is written in Rust; run or resume it with a program that builds the \
                                   same workflow, with the registry that building it returns";

/// How a report draws the table that a plug-in works on or writes. It names columns only: the report draws, and knows no kind of data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drawing {
    /// A line: this column over time. For a detector, the column of the table that it examines which people look at first.
    Line {
        /// The column.
        value: String,
    },
    /// Candles: for an aggregator, the rows of the table that it writes.
    Candles {
        /// The time column of the table, if the workflow does not declare the table. Its key columns are then those of the table that was examined.
        time: String,
        /// The column with the first value.
        open: String,
        /// The column with the highest value.
        high: String,
        /// The column with the lowest value.
        low: String,
        /// The column with the last value.
        close: String,
        /// The column that says whether all that the row was computed from was there.
        complete: String,
        /// The column that counts the repaired rows that it was computed from.
        repaired: String,
    },
}

/// A registered plug-in: its name, what it does, the schema of its `with`.
#[derive(Clone)]
#[non_exhaustive]
pub struct PluginEntry {
    /// Its kind.
    pub kind: PluginKind,
    /// Its name in workflows.
    pub name: String,
    /// What it does, in a sentence.
    pub about: String,
    /// Whether it works only on tables with one row in each slot, see [`Registry::needs_one_row`].
    pub needs_one_row: bool,
    /// Whether it works on tables whose key identifies a row, see [`Registry::takes_unique_rows`].
    pub takes_unique_rows: bool,
    /// What alone it repairs in such tables, see [`Registry::repairs_unique_rows`]; empty if it does not say.
    pub repairs_unique: &'static [DefectKind],
    /// Whether it finds wrong rows, see [`Registry::finds_wrong_rows`].
    pub finds_wrong_rows: bool,
    /// How a report draws its table, see [`Registry::drawn_as`].
    pub drawing: Option<Drawing>,
    /// What it finds, see [`Registry::finds`].
    pub finds: Option<DefectKind>,
    /// What alone it repairs, see [`Registry::repairs_only`]; empty if it does not say.
    pub repairs_only: &'static [DefectKind],
    fits: Option<Fits>,
    schema: Schema,
    make: Make,
}

/// The JSON Schema of a configuration, which is generated when it is first needed: a run of one workflow needs few of them.
type Schema = Arc<LazyLock<Value, Box<dyn FnOnce() -> Value + Send>>>;

/// Checks the `with` of a plug-in against the table that it works on.
type Fits = fn(&Value, &Table) -> Result<()>;

impl PluginEntry {
    fn new(kind: PluginKind, name: &str, about: &str, schema: impl FnOnce() -> Value + Send + 'static, make: Make) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            about: about.to_owned(),
            schema: Arc::new(LazyLock::new(Box::new(schema))),
            needs_one_row: false,
            takes_unique_rows: false,
            repairs_unique: &[],
            finds_wrong_rows: false,
            drawing: None,
            finds: None,
            repairs_only: &[],
            fits: None,
            make,
        }
    }

    /// The JSON Schema of its configuration.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// Checks its `with` against the table that it works on, as far as both are known. What is computed is null.
    ///
    /// # Errors
    /// `invalid` if they do not fit.
    pub fn check_fits(&self, with: &Value, table: &Table) -> Result<()> {
        self.fits.map_or(Ok(()), |fits| fits(with, table))
    }

    /// Whether it is a repairer that repairs a kind of defect, as far as it says.
    fn repairs_kind(&self, kind: DefectKind) -> bool {
        self.kind == PluginKind::Repairer && (self.repairs_only.is_empty() || self.repairs_only.contains(&kind))
    }

    /// Makes the plug-in.
    ///
    /// # Errors
    /// If the configuration does not fit.
    pub fn make(&self, config: &Value) -> Result<Plugin, ConfigError> {
        (self.make)(config)
    }
}

/// The plug-ins and calendars that workflows may name.
///
/// ```
/// use async_trait::async_trait;
/// use repair_core::Result;
/// use repair_core::model::Usage;
/// use repair_core::plugin::{PluginKind, Registry, StepContext, Task};
/// use repair_core::workflow::Workflow;
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use serde_json::{Value, json};
///
/// struct Say(String);
///
/// /// What `with` says. People read these comments in their editor.
/// #[derive(Deserialize, JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct SayConfig {
///     /// What to say.
///     words: String,
/// }
///
/// #[async_trait]
/// impl Task for Say {
///     async fn perform(&self, _: &StepContext) -> Result<(Value, Usage)> {
///         Ok((json!(self.0), Usage::default()))
///     }
/// }
///
/// // The built-in plug-ins, and one of our own.
/// let mut registry = Registry::default();
/// registry.task("example.say", "says something", |config: SayConfig| Ok(Say(config.words)));
/// assert_eq!(registry.get(PluginKind::Task, "example.say").map(|entry| entry.about.as_str()), Some("says something"));
///
/// let text = "
/// workflow: greet
/// kind: state-machine
/// start: greet
/// steps:
///   greet: { task: example.say, with: { word: hello }, end: true }
/// ";
/// let mistakes = Workflow::parse("greet.yaml", text, &registry).unwrap_err();
/// assert!(mistakes.to_string().contains("did you mean `words`?"));
/// ```
#[derive(Clone)]
pub struct Registry {
    entries: BTreeMap<(PluginKind, String), PluginEntry>,
    calendars: BTreeMap<String, Arc<dyn Calendar>>,
}

macro_rules! register {
    ($(#[$doc:meta])* $method:ident, $kind:ident, $plugin:ident) => {
        $(#[$doc])*
        pub fn $method<C, P>(&mut self, name: &str, about: &str, make: impl Fn(C) -> Result<P> + Send + Sync + 'static)
        where
            C: DeserializeOwned + JsonSchema,
            P: $kind + 'static,
        {
            self.add(PluginKind::$kind, name, about, move |config: C| Ok(Plugin::$plugin(Arc::new(make(config)?))));
        }
    };
}

impl Registry {
    /// A registry with the calendar `always` and no plug-ins. [`Registry::default`] has the built-in ones.
    pub fn empty() -> Self {
        let mut registry = Self { entries: BTreeMap::new(), calendars: BTreeMap::new() };
        registry.add_calendar(Arc::new(Always));
        registry
    }

    register!(
        /// Registers a detector. `C` is the type of its `with`; use `#[serde(deny_unknown_fields)]` on it.
        detector, Detector, Detector
    );
    register!(
        /// Registers a repairer.
        repairer, Repairer, Repairer
    );
    register!(
        /// Registers an aggregator.
        aggregator, Aggregator, Aggregator
    );
    register!(
        /// Registers a sensor.
        sensor, Sensor, Sensor
    );
    register!(
        /// Registers a task.
        task, Task, Task
    );
    register!(
        /// Registers a source.
        source, Source, Source
    );

    /// Registers a plug-in that is already made, in place of one that is made from its `with`. A `with` may still name the `table` and the
    /// `source` that it works on, so that these are checked, and calls to the source are priced.
    pub fn instance(&mut self, name: &str, about: &str, plugin: Plugin) {
        let schema = || {
            let named = |what: &str| json!({ "type": "string", "x-names": what });
            json!({
                "type": "object",
                "properties": { "table": named("table"), "source": named("source") },
                "additionalProperties": false,
            })
        };
        let kind = plugin.kind();
        let make: Make = Arc::new(move |_| Ok(plugin.clone()));
        self.insert(PluginEntry::new(kind, name, about, schema, make));
    }

    /// Says that a plug-in works only on tables with one row in each slot. A workflow that uses it on a table with `rows: many` is then refused
    /// when it is read. Which table a plug-in works on is said by its `table`, or by the step whose findings it works on.
    pub fn needs_one_row(&mut self, kind: PluginKind, name: &str) {
        if let Some(entry) = self.entries.get_mut(&(kind, name.to_owned())) {
            entry.needs_one_row = true;
        }
    }

    /// Says that a plug-in also works on tables with `rows: unique`, whose rows have no slots. A workflow that uses another detector, repairer or
    /// aggregator on such a table is refused when it is read.
    pub fn takes_unique_rows(&mut self, kind: PluginKind, name: &str) {
        if let Some(entry) = self.entries.get_mut(&(kind, name.to_owned())) {
            entry.takes_unique_rows = true;
        }
    }

    /// Says that a repairer also works on tables with `rows: unique`, but repairs only some kinds of defects there. A workflow that uses it for what
    /// another detector finds in such a table is refused when it is read.
    pub fn repairs_unique_rows(&mut self, name: &str, kinds: &'static [DefectKind]) {
        self.takes_unique_rows(PluginKind::Repairer, name);
        if let Some(entry) = self.entries.get_mut(&(PluginKind::Repairer, name.to_owned())) {
            entry.repairs_unique = kinds;
        }
    }

    /// Checks that a repairer repairs what a detector finds in a table with `rows: unique`, as far as both say so; `of` is the step of the detector.
    ///
    /// # Errors
    /// `invalid` if it does not.
    pub fn check_repairs_unique(&self, repairer: &str, detector: &str, of: &str, table: &str) -> Result<()> {
        let only = self.get(PluginKind::Repairer, repairer).map(|entry| entry.repairs_unique).unwrap_or_default();
        let finds =
            |detector: &PluginEntry| detector.kind == PluginKind::Detector && detector.finds.is_some_and(|kind| only.contains(&kind));
        if only.is_empty() || self.get(PluginKind::Detector, detector).is_none_or(finds) {
            return Ok(());
        }
        let others: Vec<String> = self.entries.values().filter(|entry| finds(entry)).map(|entry| format!("`{}`", entry.name)).collect();
        let others = others.join(", ");
        Err(Error::invalid(format!(
            "`{repairer}` cannot repair what `{of}` finds in table `{table}`: the table has `rows: unique`, so nothing but a source says which rows it \
             should have; compare it with the source by `detect: {}`, which finds what is missing or different there, and repair that",
            others.trim_matches('`')
        )))
    }

    /// Says how the `with` of a plug-in is checked against the table that it works on, when a workflow is read. What is computed is null in it.
    pub fn fits(&mut self, kind: PluginKind, name: &str, fits: fn(&Value, &Table) -> Result<()>) {
        if let Some(entry) = self.entries.get_mut(&(kind, name.to_owned())) {
            entry.fits = Some(fits);
        }
    }

    /// Says that a detector finds slots with wrong rows, which a repair then replaces by one. A workflow that repairs what it finds in a table
    /// with `rows: many` is refused when it is read.
    pub fn finds_wrong_rows(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(&(PluginKind::Detector, name.to_owned())) {
            entry.finds_wrong_rows = true;
        }
    }

    /// Says how a report draws the table that a detector examines, or an aggregator writes.
    ///
    /// ```
    /// use repair_core::plugin::{Drawing, PluginKind, Registry};
    ///
    /// let mut registry = Registry::default();
    /// registry.drawn_as(PluginKind::Detector, "gaps", Drawing::Line { value: "kwh".into() });
    /// assert!(registry.get(PluginKind::Detector, "gaps").is_some_and(|entry| entry.drawing.is_some()));
    /// ```
    pub fn drawn_as(&mut self, kind: PluginKind, name: &str, drawing: Drawing) {
        if let Some(entry) = self.entries.get_mut(&(kind, name.to_owned())) {
            entry.drawing = Some(drawing);
        }
    }

    /// Says which kind of defect a detector finds, so that a repairer that does not repair it is refused when a workflow is read. Rows of all
    /// kinds but missing ones are wrong rows, see [`Registry::finds_wrong_rows`].
    pub fn finds(&mut self, name: &str, kind: DefectKind) {
        if let Some(entry) = self.entries.get_mut(&(PluginKind::Detector, name.to_owned())) {
            entry.finds = Some(kind);
            entry.finds_wrong_rows |= kind.is_of_rows();
        }
    }

    /// Says that a repairer repairs only some kinds of defects. A workflow that uses it for what another detector finds is refused when it is read.
    pub fn repairs_only(&mut self, name: &str, kinds: &'static [DefectKind]) {
        if let Some(entry) = self.entries.get_mut(&(PluginKind::Repairer, name.to_owned())) {
            entry.repairs_only = kinds;
        }
    }

    /// Checks that a repairer repairs what a detector finds, as far as both say so; `of` is the step of the detector.
    ///
    /// # Errors
    /// `invalid` if it does not.
    pub fn check_repairs(&self, repairer: &str, detector: &str, of: &str) -> Result<()> {
        let finds = self.get(PluginKind::Detector, detector).and_then(|entry| entry.finds);
        let only = self.get(PluginKind::Repairer, repairer).map(|entry| entry.repairs_only).unwrap_or_default();
        let Some(kind) = finds.filter(|kind| !only.is_empty() && !only.contains(kind)) else { return Ok(()) };
        let others: Vec<String> =
            self.entries.values().filter(|entry| entry.repairs_kind(kind)).map(|entry| format!("`{}`", entry.name)).collect();
        let only: Vec<&str> = only.iter().map(|kind| kind.as_str()).collect();
        Err(Error::invalid(format!(
            "`{repairer}` repairs {} slots, and step `{of}` finds {} ones; use another repairer, such as {}",
            only.join(" or "),
            kind.as_str(),
            others.join(", ")
        )))
    }

    /// Adds a calendar, under its name.
    pub fn add_calendar(&mut self, calendar: Arc<dyn Calendar>) {
        self.calendars.insert(calendar.name().to_owned(), calendar);
    }

    /// The calendars, by name.
    pub fn calendars(&self) -> &BTreeMap<String, Arc<dyn Calendar>> {
        &self.calendars
    }

    /// A registered plug-in.
    pub fn get(&self, kind: PluginKind, name: &str) -> Option<&PluginEntry> {
        self.entries.get(&(kind, name.to_owned()))
    }

    /// Makes a plug-in from its configuration.
    ///
    /// # Errors
    /// `invalid` if there is none of that name, or if the configuration does not fit.
    pub fn make(&self, kind: PluginKind, name: &str, config: &Value) -> Result<Plugin> {
        let missing = || {
            let known = self.entries.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.as_str());
            if name.starts_with(OWN_PREFIX) {
                return Error::invalid(format!("no {} `{name}`; {OWN_HELP}", kind.as_str()));
            }
            let hint = closest(name, known).map(|close| format!("; did you mean `{close}`?")).unwrap_or_default();
            Error::invalid(format!("no {} `{name}`{hint}", kind.as_str()))
        };
        Ok(self.get(kind, name).ok_or_else(missing)?.make(config)?)
    }

    /// All registered plug-ins, by kind and name.
    pub fn entries(&self) -> impl Iterator<Item = &PluginEntry> {
        self.entries.values()
    }

    fn add<C>(&mut self, kind: PluginKind, name: &str, about: &str, make: impl Fn(C) -> Result<Plugin> + Send + Sync + 'static)
    where
        C: DeserializeOwned + JsonSchema,
    {
        let schema = || schemars::schema_for!(C).to_value();
        let make: Make = Arc::new(move |value| {
            let config = serde_path_to_error::deserialize(value)
                .map_err(|error| ConfigError { path: segments(error.path()), message: error.into_inner().to_string() })?;
            make(config).map_err(|error| ConfigError { path: Vec::new(), message: error.full() })
        });
        self.insert(PluginEntry::new(kind, name, about, schema, make));
    }

    fn insert(&mut self, entry: PluginEntry) {
        self.entries.insert((entry.kind, entry.name.clone()), entry);
    }
}

fn segments(path: &serde_path_to_error::Path) -> Vec<PathSegment> {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(PathSegment::Index(*index)),
            Segment::Map { key } => Some(PathSegment::Key(key.clone())),
            Segment::Enum { variant } => Some(PathSegment::Key(variant.clone())),
            Segment::Unknown => None,
        })
        .collect()
}
