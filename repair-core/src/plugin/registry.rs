//! Finds plug-ins by name, checks their configuration against its schema, and makes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Aggregator, Detector, Repairer, Sensor, Source, Task};
use crate::error::{Error, Result};
use crate::model::{Always, Calendar};
use crate::yaml::closest;

/// Which of the traits a plug-in implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// The word for people.
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

/// A configuration that does not fit: where within `with`, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The way from `with` to the place: keys and indexes.
    pub path: Vec<PathSegment>,
    /// What is wrong.
    pub message: String,
}

/// One step of a way through a configuration.
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

type Make = Box<dyn Fn(&Value) -> Result<Plugin, ConfigError> + Send + Sync>;

/// A registered plug-in: its name, what it does, the schema of its `with`.
pub struct Entry {
    /// What kind of plug-in.
    pub kind: PluginKind,
    /// The name in workflows.
    pub name: String,
    /// What it does, in a sentence.
    pub about: String,
    /// The JSON Schema of its configuration.
    pub schema: Value,
    make: Make,
}

impl Entry {
    /// Makes the plug-in.
    ///
    /// # Errors
    /// If the configuration does not fit.
    pub fn make(&self, config: &Value) -> Result<Plugin, ConfigError> {
        (self.make)(config)
    }
}

/// The plug-ins and calendars that workflows may name.
pub struct Registry {
    entries: BTreeMap<(PluginKind, String), Entry>,
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
        /// Registers a detector. `C` is what its `with` says; use `#[serde(deny_unknown_fields)]` on it.
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

    /// Makes a calendar known under its name.
    pub fn add_calendar(&mut self, calendar: Arc<dyn Calendar>) {
        self.calendars.insert(calendar.name().to_owned(), calendar);
    }

    /// The calendars, by name.
    pub fn calendars(&self) -> &BTreeMap<String, Arc<dyn Calendar>> {
        &self.calendars
    }

    /// A registered plug-in.
    pub fn get(&self, kind: PluginKind, name: &str) -> Option<&Entry> {
        self.entries.get(&(kind, name.to_owned()))
    }

    /// Makes a plug-in from its configuration.
    ///
    /// # Errors
    /// `invalid` if there is none of that name, or if the configuration does not fit.
    pub fn make(&self, kind: PluginKind, name: &str, config: &Value) -> Result<Plugin> {
        let missing = || {
            let known = self.entries.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.as_str());
            let hint = closest(name, known).map(|close| format!("; did you mean `{close}`?")).unwrap_or_default();
            Error::invalid(format!("no {} `{name}`{hint}", kind.as_str()))
        };
        Ok(self.get(kind, name).ok_or_else(missing)?.make(config)?)
    }

    /// All registered plug-ins, by kind and name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    fn add<C>(&mut self, kind: PluginKind, name: &str, about: &str, make: impl Fn(C) -> Result<Plugin> + Send + Sync + 'static)
    where
        C: DeserializeOwned + JsonSchema,
    {
        let schema = schemars::schema_for!(C).to_value();
        let make: Make = Box::new(move |value| {
            let config = serde_path_to_error::deserialize(value)
                .map_err(|error| ConfigError { path: segments(error.path()), message: error.into_inner().to_string() })?;
            make(config).map_err(|error| ConfigError { path: Vec::new(), message: error.full() })
        });
        let entry = Entry { kind, name: name.to_owned(), about: about.to_owned(), schema, make };
        self.entries.insert((kind, name.to_owned()), entry);
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
