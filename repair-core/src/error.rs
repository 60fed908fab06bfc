//! The one error type: a kind that workflows act on, a sentence that people act on, where it happened, and its cause.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What went wrong, as workflows name it in `retry.on` and `catch.on`.
///
/// The plug-in chooses the kind; the workflow decides what to do about it.
///
/// ```
/// use repair_core::ErrorKind;
///
/// assert_eq!("not-found".parse(), Ok(ErrorKind::NotFound));
/// assert_eq!(ErrorKind::NotFound.as_str(), "not-found");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A passing failure: the same call may succeed later.
    Transient,
    /// The other side asked us to slow down.
    Throttled,
    /// No answer came within the time allowed.
    Timeout,
    /// The thing asked for does not exist.
    NotFound,
    /// Access was refused.
    Denied,
    /// The input, the data or an answer breaks a rule.
    Invalid,
    /// Someone else changed the same thing.
    Conflict,
    /// The budget does not allow the work.
    Budget,
    /// Something could not be checked, so nothing is known about it. Never read this as "nothing is wrong".
    Blind,
    /// The run was asked to stop.
    Cancelled,
    /// A `fail` step ended the run, in this workflow or in one that it runs.
    Failed,
    /// A bug: the software broke one of its own rules.
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order in which the documentation lists them.
    pub const ALL: [ErrorKind; 12] = [
        Self::Transient,
        Self::Throttled,
        Self::Timeout,
        Self::NotFound,
        Self::Denied,
        Self::Invalid,
        Self::Conflict,
        Self::Budget,
        Self::Blind,
        Self::Cancelled,
        Self::Failed,
        Self::Internal,
    ];

    /// The name used in workflows, reports and journals, such as `not-found`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Budget => "budget",
            Self::Blind => "blind",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no [`ErrorKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of error")]
pub struct UnknownErrorKind;

impl FromStr for ErrorKind {
    type Err = UnknownErrorKind;

    fn from_str(text: &str) -> Result<Self, UnknownErrorKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownErrorKind)
    }
}

/// What a person can do about an error. Each surface words it in its own way: the command names a flag, a web page a button, Rust a method.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Resume the run.
    Resume {
        /// The run's id.
        run: String,
    },
    /// Redrive the run, which has ended, from where it failed.
    Redrive {
        /// The run's id.
        run: String,
    },
    /// Cancel the run first.
    Cancel {
        /// The run's id.
        run: String,
    },
    /// Another process drives the run: wait for it to end, or ask it to stop.
    DrivenElsewhere {
        /// The run's id.
        run: String,
    },
    /// Start under another run id, or resume the run that has this one.
    OtherRunId,
    /// Supply a price book.
    PriceBook,
    /// Correct the mistakes of this workflow, price book or included file; the error's source lists them, each with its file and line.
    CorrectFile {
        /// The file.
        file: String,
    },
    /// Open another lake: this one holds no runs, or cannot be used.
    OtherLake,
    /// The lake is not there: create it, correct the profile that names it, or name another.
    MissingLake {
        /// The profile that names it, if a profile does.
        profile: Option<String>,
    },
    /// Choose one of these detect steps.
    DetectStep {
        /// The names of the workflow's detect steps.
        known: Vec<String>,
    },
    /// Name the strategies.
    Strategies,
    /// Choose one of these profiles.
    Profile {
        /// The names of the workflow's profiles.
        known: Vec<String>,
    },
    /// Make the plan again.
    PlanAgain,
    /// The plan cannot meet a budget: raise it and plan again, or apply the plan as far as the budget allows.
    Anyway,
    /// Choose a series of the table by the values of these columns.
    Key {
        /// The columns of the key; none if the table is one series, which is chosen by giving no key.
        columns: Vec<String>,
    },
    /// Name the workflow that declares the table.
    DeclaringWorkflow,
    /// Look up the ids of what can be shown again.
    Retractions,
    /// Lift a decision of a person about slots first.
    Lift {
        /// The table.
        table: String,
        /// The decision's id.
        id: String,
    },
    /// Allow what is there to be replaced, or name another place.
    Replace,
    /// Choose this format of files.
    FileFormat {
        /// Its name.
        name: &'static str,
    },
    /// Compile the program with this feature.
    Feature {
        /// The feature's name.
        name: &'static str,
    },
}

/// An error: its kind, a sentence that says what happened and what to do, where it happened, and its cause.
///
/// ```
/// use repair_core::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::NotFound, "no folder `bars` in the lake; create it or correct `location`").on("table", "bars");
/// assert_eq!(error.to_string(), "no folder `bars` in the lake; create it or correct `location` (table: bars)");
/// ```
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    retry_after: Option<Duration>,
    hint: Option<Hint>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind, with a sentence that a person can act on.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), context: Vec::new(), retry_after: None, hint: None, source: None }))
    }

    /// Shorthand for [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Shorthand for [`ErrorKind::Blind`].
    pub fn blind(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Blind, message)
    }

    /// Shorthand for [`ErrorKind::Internal`]: a bug in the software itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds where the error happened, e.g. `.on("file", path)`. The first value for a name is kept.
    #[must_use]
    pub fn on(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        if !self.0.context.iter().any(|(known, _)| *known == name) {
            self.0.context.push((name, value.to_string()));
        }
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds how long the other side asked us to wait before the next attempt.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds what a person can do about it.
    #[must_use]
    pub fn hint(mut self, hint: Hint) -> Self {
        self.0.hint = Some(hint);
        self
    }

    /// The same error with another kind.
    #[must_use]
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The kind of error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence alone, without context and cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What a person can do about it, if the wording depends on the surface.
    pub fn remedy(&self) -> Option<&Hint> {
        self.0.hint.as_ref()
    }

    /// Where the error happened: names with their values, in the order in which they were added.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// How long to wait before the next attempt, if the other side said so.
    pub fn wait_hint(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The sentence with its context and all its causes, on one line.
    pub fn full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let message = error.to_string();
            if !text.contains(&message) {
                text.push_str(": ");
                text.push_str(&message);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (index, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name}: {value}", if index == 0 { " (" } else { ", " })?;
        }
        if self.0.context.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::invalid("the columns could not be processed").because(error)
    }
}
