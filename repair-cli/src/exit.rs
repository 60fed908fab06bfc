//! What a process exits with. `docs/exit-codes.md` has the table for people.

use std::process::ExitCode;

use repair::{Error, ErrorKind, Hint, Outcome, RunReport};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what it was asked to; a run succeeded, perhaps with exceptions.
    Success = 0,
    /// The run failed or was cancelled, or the command itself failed.
    Failed = 1,
    /// The input cannot be used: a workflow with mistakes, unknown options, a lake that does not exist.
    BadInput = 2,
    /// Something could not be looked at, so nothing is known about it.
    Blind = 3,
    /// The run was paused, or its driver had to stop, and it can be resumed.
    Stopped = 4,
    /// A budget does not allow the work.
    OverBudget = 5,
    /// The workflow or the data has changed since the plan was made.
    PlanOutOfDate = 6,
    /// Another process drives the run.
    DrivenElsewhere = 7,
    /// The run ended with what `--fail-on` names.
    FailOn = 8,
    /// The plan found something to do, and `--detailed-exitcode` asked for it.
    SomethingToDo = 10,
}

/// What makes a run exit with [`Exit::FailOn`], although it reached its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FailOn {
    /// The run succeeded with exceptions: slots are still missing, tolerated units failed, an error was caught.
    Exceptions,
    /// Also if the report lists any problem, such as duplicates, conflicts, suspect slots or late truth.
    Problems,
}

impl Exit {
    /// How a command ended that failed before or outside a run.
    pub(crate) fn of_error(error: &Error) -> Self {
        match (error.kind(), error.remedy()) {
            (_, Some(Hint::DrivenElsewhere { .. })) => Self::DrivenElsewhere,
            (ErrorKind::Conflict, Some(Hint::PlanAgain)) => Self::PlanOutOfDate,
            // The journal is out of reach, so nothing more can be recorded; the run has not ended.
            (ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Timeout | ErrorKind::Denied, Some(Hint::Resume { .. })) => {
                Self::Stopped
            }
            (ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Conflict, _) => Self::BadInput,
            (ErrorKind::Blind, _) => Self::Blind,
            (ErrorKind::Cancelled, _) => Self::Stopped,
            (ErrorKind::Budget, _) => Self::OverBudget,
            _ => Self::Failed,
        }
    }

    /// How a command ended that drove a run.
    pub(crate) fn of_run(report: &RunReport, fail_on: Option<FailOn>) -> Self {
        match (report.outcome, report.error) {
            (Some(Outcome::SucceededWithExceptions), _) if fail_on.is_some() => Self::FailOn,
            (Some(Outcome::Succeeded), _) if fail_on == Some(FailOn::Problems) && !report.problems.is_empty() => Self::FailOn,
            (Some(Outcome::Succeeded | Outcome::SucceededWithExceptions), _) => Self::Success,
            (Some(Outcome::Blind), _) => Self::Blind,
            (Some(Outcome::OverBudget), _) => Self::OverBudget,
            (None, _) => Self::Stopped,
            // Data that is not what it must be is bad input, even if that is found only during the run.
            (_, Some(ErrorKind::Invalid)) => Self::BadInput,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The discriminants are the codes.
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_must_stop_while_its_run_goes_on_is_stopped_and_not_failed() {
        let busy = || Error::new(ErrorKind::Throttled, "slow down");
        assert_eq!(Exit::of_error(&busy()), Exit::Failed);
        assert_eq!(Exit::of_error(&busy().hint(Hint::Resume { run: "one".to_owned() })), Exit::Stopped);
    }
}
