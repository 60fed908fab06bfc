//! What a workflow may reach: which programs, and where their environment comes from.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use repair_core::{Error, ErrorKind, Result};

use crate::secret::Environment;

/// Which programs workflows may run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Commands {
    /// Every program, as whoever starts the run could run it themselves.
    #[default]
    All,
    /// None: a workflow that runs one is refused when it is read.
    None,
    /// These, each by its name, which is looked up in the operator's `PATH`, or by its absolute path. One that runs whatever it is given, such as a shell
    /// or `python3`, allows everything.
    Only(BTreeSet<String>),
}

impl Commands {
    /// These programs, by name or absolute path.
    pub fn only<T: Into<String>>(programs: impl IntoIterator<Item = T>) -> Self {
        Self::Only(programs.into_iter().map(Into::into).collect())
    }

    /// Checks that a program may be run, as it is written.
    ///
    /// # Errors
    /// `denied` if it may not.
    pub fn check(&self, program: &str) -> Result<()> {
        let why = match self {
            Self::All => return Ok(()),
            Self::Only(allowed) if allowed.contains(program) => return Ok(()),
            Self::Only(allowed) if !allowed.is_empty() => {
                let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                format!("its operator allows only {}", allowed.join(", "))
            }
            Self::None | Self::Only(_) => "its operator allows no program".to_owned(),
        };
        Err(Error::new(ErrorKind::Denied, format!("`{program}` may not be run here: {why}")))
    }
}

/// What the plug-ins of this crate may reach.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The programs that may be run.
    pub commands: Commands,
    /// Where variables of the environment are looked up.
    pub environment: Environment,
}

impl Default for Options {
    /// Every program, and the environment of this process.
    fn default() -> Self {
        Self { commands: Commands::All, environment: Arc::new(|name| std::env::var(name).ok()) }
    }
}

impl Options {
    /// The same options with these programs.
    #[must_use]
    pub fn with_commands(mut self, commands: Commands) -> Self {
        self.commands = commands;
        self
    }

    /// The same options with variables from elsewhere: a vault, or a test.
    #[must_use]
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("commands", &self.commands).finish_non_exhaustive()
    }
}
