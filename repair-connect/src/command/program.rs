//! A program as a workflow names it: what is run, with which arguments and environment, and what its exit codes mean. All plug-ins of this module call
//! it; none starts a process by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use repair_core::builtin::Period;
use repair_core::plugin::StepContext;
use repair_core::text::visible;
use repair_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::allowed::Options;
use crate::command::process::{self, Bounds, Ended, Failure};
use crate::secret::{Environment, Secret, without};
use crate::template::{Argument, Values};

/// The form of the requests, which programs may check.
pub(super) const FORMAT: &str = "repair-command/1";

/// How long a program may take by default.
const TIMEOUT: Period = Period::minutes(10);
/// The most bytes that a program may be allowed to answer. They are held in memory.
const MOST_BYTES: u64 = 1 << 30;
/// How many characters of the end of the error output are shown.
const SHOWN_CHARS: usize = 1_000;
/// How many arguments a program may have.
const MOST_ARGUMENTS: usize = 1_000;

/// Which kind of error an exit code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Meaning {
    /// A passing failure.
    Transient,
    /// The program, or whom it asks, must be asked more slowly.
    Throttled,
    /// No answer came in time.
    Timeout,
    /// What was asked for does not exist.
    NotFound,
    /// Access was refused.
    Denied,
    /// The request or the data break a rule.
    Invalid,
    /// Something else changed the same thing.
    Conflict,
    /// Something could not be looked at.
    Blind,
}

impl From<Meaning> for ErrorKind {
    fn from(meaning: Meaning) -> Self {
        match meaning {
            Meaning::Transient => Self::Transient,
            Meaning::Throttled => Self::Throttled,
            Meaning::Timeout => Self::Timeout,
            Meaning::NotFound => Self::NotFound,
            Meaning::Denied => Self::Denied,
            Meaning::Invalid => Self::Invalid,
            Meaning::Conflict => Self::Conflict,
            Meaning::Blind => Self::Blind,
        }
    }
}

/// Meanings by exit code, as a schema has them: the keys of a mapping are texts.
pub(super) type ExitCodes = BTreeMap<String, Meaning>;

/// Declares the configuration of a plug-in that runs a program: its own fields, and those that all have.
macro_rules! config {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$field_about:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_about])* pub $field: $kind,)*
            /// The program and its arguments, each as it is, without a shell. In arguments, `{from}` and others stand for values of the call.
            #[serde(default)]
            pub run: Option<Vec<String>>,
            /// A line for a shell (`sh -c`), in place of `run`. It has no places for values; they are in variables, such as `$REPAIR_FROM`.
            #[serde(default)]
            pub shell: Option<String>,
            /// The folder in which it runs, by default that of the process that drives the run.
            #[serde(default)]
            pub folder: Option<String>,
            /// The names of the variables that it gets from the environment, beside `PATH`. Their values are never shown.
            #[serde(default)]
            pub env: Vec<String>,
            /// Values for it, which the request has as `params`.
            #[serde(default)]
            pub params: serde_json::Map<String, serde_json::Value>,
            /// How long it may take; 10m by default. Then it is ended with everything that it started.
            #[serde(default)]
            pub timeout: Option<repair_core::builtin::Period>,
            /// Which kinds of errors its exit codes are, e.g. `{ 75: throttled }`. By default 69 and 75 are `transient`, 77 is `denied`, and all others
            /// but 0 are `invalid`.
            #[serde(default)]
            #[schemars(with = "crate::command::program::ExitCodes")]
            pub exit_codes: std::collections::BTreeMap<u8, $crate::command::program::Meaning>,
            /// How many bytes it may answer.
            #[serde(default)]
            pub max_bytes: Option<u64>,
            /// The name under which the price book has the price of a call. Without it, calls are counted and have no price.
            #[serde(default)]
            pub source: Option<String>,
        }

        impl $name {
            /// The part that all have.
            pub(super) fn program(&self) -> $crate::command::program::ProgramConfig {
                $crate::command::program::ProgramConfig {
                    run: self.run.clone(),
                    shell: self.shell.clone(),
                    folder: self.folder.clone(),
                    env: self.env.clone(),
                    params: self.params.clone(),
                    timeout: self.timeout,
                    exit_codes: self.exit_codes.clone(),
                    max_bytes: self.max_bytes,
                }
            }
        }
    };
}
pub(super) use config;

/// The part of a configuration that says what is run.
pub(crate) struct ProgramConfig {
    pub(crate) run: Option<Vec<String>>,
    pub(crate) shell: Option<String>,
    pub(crate) folder: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) params: Map<String, Value>,
    pub(crate) timeout: Option<Period>,
    pub(crate) exit_codes: BTreeMap<u8, Meaning>,
    pub(crate) max_bytes: Option<u64>,
}

/// The values that every call has, for arguments and variables.
const EVERY: [&str; 6] = ["run", "step", "visit", "attempt", "now", "id"];

enum Started {
    Run { program: String, arguments: Vec<Argument> },
    Shell(String),
}

/// A program that may be run.
pub(crate) struct Program {
    started: Started,
    folder: Option<PathBuf>,
    env: Vec<String>,
    params: Map<String, Value>,
    bounds: Bounds,
    exit_codes: BTreeMap<u8, Meaning>,
    environment: Environment,
}

/// What a program answered, when it ended well or with a code that was expected.
pub(crate) struct Answered {
    /// Its exit code.
    pub(super) code: u8,
    /// What it wrote.
    pub(super) answer: Vec<u8>,
    /// The end of what it wrote to its error output, as it may be shown.
    pub(super) errors: String,
    /// What nobody may see.
    secrets: Vec<Secret>,
    program: String,
}

impl Answered {
    /// An error about the answer: it names the program, and shows no value of the environment.
    pub(super) fn refused(&self, error: &Error) -> Error {
        let errors = if self.errors.is_empty() { String::new() } else { format!("; it wrote: {}", self.errors) };
        let what = without(&error.full(), &self.secrets);
        Error::new(error.kind(), format!("`{}` answered with {what}; the answer was discarded{errors}", self.program))
    }
}

impl Program {
    /// A program, with the names of the values that its arguments may have.
    ///
    /// # Errors
    /// `denied` if it may not be run here; `invalid` if the configuration makes no sense.
    pub(crate) fn new(config: ProgramConfig, names: &[&'static str], usual_bytes: u64, options: &Options) -> Result<Self> {
        let names: Vec<&str> = names.iter().chain(&EVERY).copied().collect();
        let started = match (config.run, config.shell) {
            (Some(run), None) => {
                let (program, arguments) =
                    run.split_first().filter(|(program, _)| !program.trim().is_empty() && !program.contains('\0')).ok_or_else(|| {
                        Error::invalid("`run` is empty; write the program and its arguments, such as `[python3, fetch.py]`")
                    })?;
                if arguments.len() > MOST_ARGUMENTS {
                    return Err(Error::invalid(format!("`run` has {} arguments; at most {MOST_ARGUMENTS} are allowed", arguments.len())));
                }
                options.commands.check(program)?;
                let arguments = arguments.iter().map(|text| Argument::parse(text, &names)).collect::<Result<_>>()?;
                Started::Run { program: program.clone(), arguments }
            }
            (None, Some(line)) if !line.trim().is_empty() && !line.contains('\0') => {
                options.commands.check(SHELL)?;
                Started::Shell(line)
            }
            (None, Some(_)) => return Err(Error::invalid("`shell` is empty; write a line for `sh`")),
            (Some(_), Some(_)) => return Err(Error::invalid("`run` and `shell` are both given; keep one of them")),
            (None, None) => return Err(Error::invalid("neither `run` nor `shell` is given; write `run: [PROGRAM, ARGUMENT, …]`")),
        };
        let is_name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
        if let Some(odd) = config.env.iter().find(is_name) {
            return Err(Error::invalid(format!(
                "`{}` under `env` cannot be the name of a variable; write names alone, since values come from the environment",
                visible(odd.split('=').next().unwrap_or_default())
            )));
        }
        let bytes = config.max_bytes.unwrap_or(usual_bytes);
        if bytes == 0 || bytes > MOST_BYTES {
            return Err(Error::invalid(format!("`max_bytes` must be from 1 to {MOST_BYTES}, not {bytes}")));
        }
        if config.exit_codes.contains_key(&0) {
            return Err(Error::invalid(
                "exit code 0 means that the program ended well, and cannot be an error; remove it from `exit_codes`",
            ));
        }
        Ok(Self {
            started,
            folder: config.folder.map(PathBuf::from),
            env: config.env,
            params: config.params,
            bounds: Bounds { timeout: config.timeout.unwrap_or(TIMEOUT).duration(), bytes },
            exit_codes: config.exit_codes,
            environment: options.environment.clone(),
        })
    }

    /// The program, as people know it.
    pub(super) fn name(&self) -> &str {
        match &self.started {
            Started::Run { program, .. } => program,
            Started::Shell(_) => SHELL,
        }
    }

    /// Checks that the program and its folder are there.
    ///
    /// # Errors
    /// `not-found` if they are not.
    pub(super) fn ready(&self) -> Result<()> {
        if let Some(folder) = &self.folder
            && !std::fs::metadata(folder).is_ok_and(|there| there.is_dir())
        {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no folder `{}` to run `{}` in", folder.display(), self.name())));
        }
        self.path().map(drop)
    }

    /// Where the program lies: it is looked up in our own `PATH`, so that nothing in a workflow decides what a name means.
    fn path(&self) -> Result<PathBuf> {
        let name = self.name();
        let is_there = |path: &Path| std::fs::metadata(path).is_ok_and(|there| there.is_file());
        let found = if name.contains('/') {
            let base = match &self.folder {
                Some(folder) => std::path::absolute(folder),
                None => std::env::current_dir(),
            };
            base.ok().map(|base| base.join(name)).filter(|path| is_there(path))
        } else {
            let folders = (self.environment)("PATH").unwrap_or_default();
            std::env::split_paths(&folders)
                .filter(|folder| folder.is_absolute())
                .map(|folder| folder.join(name))
                .find(|path| is_there(path))
        };
        let place = if name.contains('/') { "at this path" } else { "in `PATH`" };
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no program `{name}` {place}; install it, or correct `run`")))
    }

    /// The beginning of a request, which says what is asked, by whom and when.
    pub(super) fn request(&self, kind: &str, context: &StepContext, id: &str) -> Map<String, Value> {
        let mut request = Map::new();
        let mut add = |name: &str, value: Value| drop(request.insert(name.to_owned(), value));
        add("format", FORMAT.into());
        add("kind", kind.into());
        add("id", id.into());
        add("run", context.run.as_ref().into());
        add("step", context.step.as_ref().into());
        add("visit", context.visit.into());
        add("attempt", context.attempt.into());
        add("now", context.now.to_string().into());
        add("params", self.params.clone().into());
        request
    }

    /// Runs the program with a request, and `values` for its arguments and variables. `expected` are codes that are answers too.
    ///
    /// # Errors
    /// `not-found` or `denied` if it cannot be started; `timeout`; `cancelled`; the kind that its exit code means; `invalid` if it answers with too much,
    /// or with a value of the environment; `transient` if a signal ended it.
    pub(super) async fn call(
        &self,
        context: &StepContext,
        request: Map<String, Value>,
        mut values: Values,
        expected: &[u8],
    ) -> Result<Answered> {
        context.check_cancelled()?;
        let text = |name: &str| request.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        values.extend(EVERY.iter().filter_map(|name| Some((*name, text(name)?))));
        let input = serde_json::to_vec(&Value::Object(request)).map_err(|error| Error::internal("a request is not JSON").because(error))?;
        self.perform(input, &values, expected, &context.cancel, || context.beat()).await
    }

    /// As [`Program::call`], with the input as it is, outside of a step.
    ///
    /// # Errors
    /// As [`Program::call`].
    pub(crate) async fn perform(
        &self,
        input: Vec<u8>,
        values: &Values,
        expected: &[u8],
        cancel: &CancellationToken,
        beat: impl Fn() + Send + Sync,
    ) -> Result<Answered> {
        let mut command = Command::new(self.path()?);
        match &self.started {
            Started::Run { arguments, .. } => {
                for argument in arguments {
                    command.arg(argument.with(values)?);
                }
            }
            Started::Shell(line) => {
                command.arg("-c").arg(line);
            }
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.env_clear();
        if let Some(path) = (self.environment)("PATH") {
            command.env("PATH", path);
        }
        let mut secrets = Vec::new();
        for name in &self.env {
            if let Some(value) = (self.environment)(name) {
                command.env(name, &value);
                secrets.push((name.clone(), Secret::new(value)));
            }
        }
        for (name, value) in values {
            // One variable of a megabyte is more than systems allow; the request has the value, too.
            if value.len() <= MOST_OF_A_VARIABLE && !value.contains('\0') {
                command.env(format!("REPAIR_{}", name.to_uppercase()), OsString::from(value));
            }
        }
        let began = Timestamp::now();
        let (done, errors) = process::run(command, input, self.bounds, cancel, beat).await;
        let (names, secrets): (Vec<String>, Vec<Secret>) = secrets.into_iter().unzip();
        let errors = shown_end(&errors, &secrets);
        let took_ms = Timestamp::now().duration_since(began).as_millis();
        tracing::debug!(program = self.name(), took_ms, ok = done.is_ok(), "a program ended");
        let Ended { status, answer } = done.map_err(|failure| self.failed(&failure, &errors))?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        match code {
            Some(code) if code == 0 || expected.contains(&code) => {
                if let Some((name, _)) = names.iter().zip(&secrets).find(|(_, secret)| secret.is_in(&answer)) {
                    return Err(Error::invalid(format!(
                        "`{}` answered with the value of the variable `{name}`, which nobody may see; the answer was discarded",
                        self.name()
                    )));
                }
                if !errors.is_empty() {
                    tracing::info!(program = self.name(), errors, "a program ended well, and wrote to its error output");
                }
                Ok(Answered { code, answer, errors, secrets, program: self.name().to_owned() })
            }
            Some(code) => Err(Error::new(self.meaning(code), format!("`{}` ended with exit code {code}{}", self.name(), wrote(&errors)))),
            None => {
                Err(Error::new(ErrorKind::Transient, format!("`{}` was ended by {}{}", self.name(), signal_of(status), wrote(&errors))))
            }
        }
    }

    fn meaning(&self, code: u8) -> ErrorKind {
        const UNAVAILABLE: u8 = 69;
        const TRY_AGAIN: u8 = 75;
        const NOT_PERMITTED: u8 = 77;
        match self.exit_codes.get(&code) {
            Some(meaning) => (*meaning).into(),
            // As in sysexits.h, which many programs follow.
            None if code == UNAVAILABLE || code == TRY_AGAIN => ErrorKind::Transient,
            None if code == NOT_PERMITTED => ErrorKind::Denied,
            None => ErrorKind::Invalid,
        }
    }

    fn failed(&self, failure: &Failure, errors: &str) -> Error {
        let name = self.name();
        let (kind, what) = match failure {
            Failure::Start(error) => {
                let kind = match error.kind() {
                    std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                    std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                    std::io::ErrorKind::ArgumentListTooLong | std::io::ErrorKind::InvalidInput => ErrorKind::Invalid,
                    _ => ErrorKind::Transient,
                };
                (kind, format!("cannot be started ({error}); check that it may be executed, and that its first line names what runs it"))
            }
            Failure::Read(error) => (ErrorKind::Transient, format!("broke off its answer ({error})")),
            Failure::Timeout => (ErrorKind::Timeout, format!("did not end within {}, and was ended", of_seconds(self.bounds.timeout))),
            Failure::TooMuch => {
                let bytes = self.bounds.bytes;
                (ErrorKind::Invalid, format!("answered with more than {bytes} bytes, the limit that `max_bytes` sets, and was ended"))
            }
            Failure::TooManyErrors => (ErrorKind::Invalid, "wrote without end to its error output, and was ended".to_owned()),
            Failure::HeldOpen => (
                ErrorKind::Invalid,
                "ended, and something that it started went on and held its output; its answer may not be whole, so it was discarded"
                    .to_owned(),
            ),
            Failure::Cancelled => (ErrorKind::Cancelled, "was ended, because the run was asked to stop".to_owned()),
        };
        Error::new(kind, format!("`{name}` {what}{}", wrote(errors)))
    }
}

/// What runs a line.
const SHELL: &str = "sh";
/// How long a value may be that is also a variable; Linux allows 128 KiB.
const MOST_OF_A_VARIABLE: usize = 100_000;

fn wrote(errors: &str) -> String {
    if errors.is_empty() { String::new() } else { format!("; it wrote: {errors}") }
}

fn of_seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

#[cfg(unix)]
fn signal_of(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    status.signal().map_or_else(|| "the system".to_owned(), |signal| format!("signal {signal}"))
}

#[cfg(not(unix))]
fn signal_of(_: std::process::ExitStatus) -> String {
    "the system".to_owned()
}

/// The end of a text in a form that may be shown: on one line and without secrets.
fn shown_end(text: &[u8], secrets: &[Secret]) -> String {
    let text = without(&String::from_utf8_lossy(text), secrets);
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let line = visible(&line);
    let cut = line.chars().count().saturating_sub(SHOWN_CHARS);
    if cut == 0 { line.into_owned() } else { format!("… {}", line.chars().skip(cut).collect::<String>()) }
}

/// The columns of a table and what identifies its rows, for a request.
pub(super) fn described(table: &repair_core::model::Table, columns: Option<&arrow::datatypes::Schema>) -> Value {
    let columns = columns.into_iter().flat_map(|columns| columns.fields());
    let columns: Map<String, Value> = columns.map(|field| (field.name().clone(), field.data_type().to_string().into())).collect();
    let cadence = table.cadence.map(|cadence| cadence.to_string());
    json!({
        "name": table.name,
        "key": table.key,
        "time": table.time,
        "cadence": cadence,
        "time_marks": table.time_marks,
        "zone": table.day_zone().to_string(),
        "columns": columns,
    })
}
