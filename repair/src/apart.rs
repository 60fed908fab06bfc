//! An expression in a process of its own: this program, started again. It gets the expression and its variables on standard input, and answers
//! with the value. A function that is called in a loop can fill any amount of memory within the second that it may take, and no part of this
//! process could be stopped before it has.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use repair_core::workflow::{Expression, Variables, evaluate_apart_with};
use repair_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The argument with which this program is started again.
const ARGUMENT: &str = "repair-expression-worker";

/// Memory that the process may fill. Expressions of people need a few of them.
const MEMORY_BYTES: u64 = 256 << 20;

/// How long the process may take, with its start. The evaluator stops after a second wherever it looks at the time.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What is kept of what the process says on standard error.
const SAID_BYTES: u64 = 64 << 10;

/// In a process that was started to evaluate an expression, does so and ends it. In any other, lets expressions be evaluated in such processes.
pub(crate) fn serve() {
    if std::env::args_os().nth(1).is_some_and(|first| first == ARGUMENT) {
        let answer = work().unwrap_or_else(|error| Answer::Refused(error.kind(), error.full()));
        let sent = serde_json::to_vec(&answer).is_ok_and(|answer| io::stdout().write_all(&answer).is_ok());
        std::process::exit(i32::from(!sent));
    }
    evaluate_apart_with(evaluate);
}

#[derive(Serialize, Deserialize)]
struct Question {
    expression: String,
    variables: Variables,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Value(Value),
    Refused(ErrorKind, String),
}

/// Limits this process. Memory that it cannot have ends it, and nothing else.
#[cfg(unix)]
fn limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let own = |limit: u64, resource: Resource| {
        let Rlimit { current, maximum } = getrlimit(resource);
        // `None` is no limit.
        setrlimit(resource, Rlimit { current: Some(current.map_or(limit, |now| now.min(limit))), maximum })
    };
    own(MEMORY_BYTES, Resource::Data)
        .and_then(|()| own(0, Resource::Core))
        .map_err(|error| Error::internal("the process for an expression could not be limited").because(error))
}

#[cfg(not(unix))]
fn limit() -> Result<()> {
    Ok(())
}

/// Evaluates the expression on standard input.
fn work() -> Result<Answer> {
    limit()?;
    let broken = |error: io::Error| Error::internal("the process for an expression got none").because(error);
    let mut question = Vec::new();
    io::stdin().lock().read_to_end(&mut question).map_err(broken)?;
    let question: Question = serde_json::from_slice(&question).map_err(|error| broken(error.into()))?;
    Ok(Answer::Value(Expression::parse(&question.expression)?.evaluate(&question.variables)?))
}

/// Evaluates an expression in a process of its own.
fn evaluate(expression: &str, variables: &Variables) -> Result<Value> {
    let question = Question { expression: expression.to_owned(), variables: variables.clone() };
    let question = serde_json::to_vec(&question).map_err(|error| Error::internal("an expression is not JSON").because(error))?;
    let failed = |error: io::Error| Error::new(ErrorKind::Transient, "the process for an expression could not be started").because(error);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    // It needs nothing of the environment; least of all keys.
    command.arg(ARGUMENT).env_clear().envs(std::env::var_os("SYSTEMROOT").map(|root| ("SYSTEMROOT", root)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (Some(mut input), Some(mut output), Some(said)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err(Error::internal("the process for an expression has no output"));
    };
    let (done, answered) = mpsc::channel();
    let talk = std::thread::Builder::new().spawn(move || {
        // A process that has ended reads nothing; how it ended says why.
        let _ = input.write_all(&question);
        drop(input);
        let (mut answer, mut text) = (Vec::new(), String::new());
        let _ = output.read_to_end(&mut answer);
        let _ = said.take(SAID_BYTES).read_to_string(&mut text);
        let _ = done.send((answer, text));
    });
    let answer = talk.map_err(failed).map(|_| answered.recv_timeout(TIMEOUT));
    // It has closed its output, or it is not waited for.
    let in_time = matches!(answer, Ok(Ok(_)));
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| Error::internal("the process for an expression is lost").because(error))?;
    let cannot = |why: String| Error::invalid(format!("`{expression}` cannot be computed: {why}"));
    let Ok((answer, text)) = answer? else {
        return Err(cannot(format!("it takes more than {} s", TIMEOUT.as_secs())));
    };
    match serde_json::from_slice(&answer) {
        Ok(Answer::Value(value)) => Ok(value),
        Ok(Answer::Refused(kind, message)) => Err(Error::new(kind, message)),
        Err(_) if text.contains("memory allocation") || text.contains("capacity overflow") => {
            Err(cannot(format!("it needs more than {} MiB of memory; build smaller lists and texts", MEMORY_BYTES >> 20)))
        }
        Err(_) => Err(cannot(format!("its process ended with {status}"))),
    }
}
