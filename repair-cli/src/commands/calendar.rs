//! `repair calendar`

use std::process::ExitCode;

use clap::Args;
use jiff::civil::Date;
use repair_core::Error;
use repair_core::model::{Interval, Session};

use crate::output::{Failure, print, table};
use crate::session::registry;

/// List the sessions of a trading calendar, in UTC.
#[derive(Debug, Args)]
pub(crate) struct Calendar {
    /// The calendar, e.g. XNYS.
    name: String,
    /// The first date.
    #[arg(long)]
    from: Date,
    /// The last date.
    #[arg(long)]
    to: Date,
    /// Write comma-separated values.
    #[arg(long)]
    csv: bool,
}

const HEADER: [&str; 4] = ["date", "open", "close", "breaks"];

impl Calendar {
    /// Does it.
    pub(crate) fn execute(&self) -> Result<ExitCode, Failure> {
        let registry = registry();
        let calendars = registry.calendars();
        let known = || calendars.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let calendar = calendars
            .get(&self.name)
            .ok_or_else(|| Error::invalid(format!("there is no calendar `{}`; there are {}", self.name, known())))?;
        if self.to < self.from {
            return Err(Error::invalid(format!("--to {} is before --from {}", self.to, self.from)).into());
        }
        let rows: Vec<Vec<String>> = calendar.sessions(self.from, self.to)?.iter().map(row).collect();
        if self.csv {
            let lines = std::iter::once(HEADER.join(",")).chain(rows.iter().map(|row| row.join(",")));
            print(&lines.collect::<Vec<_>>().join("\n"))?;
        } else {
            print(&table(&HEADER, &rows))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(session: &Session) -> Vec<String> {
    // As ISO 8601 writes intervals; several are separated by a space, so that a comma stays a column's end.
    let breaks: Vec<String> = session.breaks.iter().map(|pause: &Interval| format!("{}/{}", pause.from(), pause.to())).collect();
    vec![session.date.to_string(), session.hours.from().to_string(), session.hours.to().to_string(), breaks.join(" ")]
}
