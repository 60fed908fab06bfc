//! `repair calendar`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use repair::core::model::{Calendar as Rules, Session};
use repair::core::workflow::Document;
use repair::jiff::civil::Date;
use repair::{Error, Interval};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::{Failure, csv, print, print_json, table};

/// List the sessions of a calendar, in UTC; or without --from and --to, what calendars cover.
#[derive(Debug, Args)]
pub(crate) struct Calendar {
    /// The calendar, e.g. XNYS [default: all].
    name: Option<String>,
    /// The first date.
    #[arg(long, requires_all = ["name", "to"])]
    from: Option<Date>,
    /// The last date.
    #[arg(long, requires_all = ["name", "from"])]
    to: Option<Date>,
    /// A workflow, or a file that workflows include, with calendars of your own.
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// Print comma-separated values.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

const SESSIONS: [&str; 4] = ["date", "open", "close", "breaks"];
const COVERAGE: [&str; 6] = ["calendar", "zone", "first_day", "last_day", "first_hours", "last_hours"];

impl Calendar {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let registry = repair::registry();
        let mut calendars = registry.calendars().clone();
        if let Some(file) = &self.workflow {
            // A name of a built-in calendar cannot be used again.
            calendars.extend(Document::load(file, &registry, None)?.calendars().clone());
        }
        if let Some(name) = &self.name {
            let Some(calendar) = calendars.get(name) else { return Err(self.unknown(name, &calendars).into()) };
            if let (Some(from), Some(to)) = (self.from, self.to) {
                return self.sessions(calendar.as_ref(), from, to);
            }
            calendars.retain(|other, _| other == name);
        }
        self.coverage(calendars.values())
    }

    fn unknown(&self, name: &str, calendars: &BTreeMap<String, Arc<dyn Rules>>) -> Error {
        let known: Vec<&str> = calendars.keys().map(String::as_str).collect();
        let own = if self.workflow.is_some() { "" } else { "; for one of your own, name its file with --workflow" };
        Error::invalid(format!("there is no calendar `{name}`; the calendars are {}{own}", known.join(", ")))
    }

    fn sessions(&self, calendar: &dyn Rules, from: Date, to: Date) -> Result<Exit, Failure> {
        if to < from {
            return Err(Error::invalid(format!("--to {to} is before --from {from}")).into());
        }
        let sessions = calendar.sessions(from, to)?;
        if self.json {
            let sessions: Vec<Value> = sessions.iter().map(object).collect();
            print_json(&json!({ "format": repair::JsonFormat, "calendar": calendar.name(), "sessions": sessions }))?;
            return Ok(Exit::Success);
        }
        self.rows(&SESSIONS, sessions.iter().map(row).collect())
    }

    /// Shows which days calendars cover, and of which of them they know the hours.
    fn coverage<'a>(&self, calendars: impl Iterator<Item = &'a Arc<dyn Rules>>) -> Result<Exit, Failure> {
        if self.json {
            let covered = |dates: Option<(Date, Date)>| dates.map(|(from, to)| json!({ "from": from, "to": to }));
            let object = |calendar: &Arc<dyn Rules>| {
                let (days, hours) = (covered(calendar.coverage()), covered(calendar.hours_coverage()));
                json!({ "calendar": calendar.name(), "zone": calendar.zone(), "days": days, "hours": hours })
            };
            print_json(&json!({ "format": repair::JsonFormat, "calendars": calendars.map(object).collect::<Vec<_>>() }))?;
            return Ok(Exit::Success);
        }
        // For programs, a bound that does not exist is empty.
        let none = if self.csv { "" } else { "any" };
        let covered = |dates: Option<(Date, Date)>| {
            dates.map_or([none.to_owned(), none.to_owned()], |(first, last)| [first.to_string(), last.to_string()])
        };
        let row = |calendar: &Arc<dyn Rules>| {
            let mut row = vec![calendar.name().to_owned(), calendar.zone().to_string()];
            row.extend(covered(calendar.coverage()));
            row.extend(covered(calendar.hours_coverage()));
            row
        };
        self.rows(&COVERAGE, calendars.map(row).collect())
    }

    fn rows(&self, header: &[&str], rows: Vec<Vec<String>>) -> Result<Exit, Failure> {
        if self.csv {
            let header = header.iter().map(|&name| name.to_owned()).collect();
            print(&csv(&std::iter::once(header).chain(rows).collect::<Vec<_>>()))?;
        } else {
            print(&table(header, &rows))?;
        }
        Ok(Exit::Success)
    }
}

fn object(session: &Session) -> Value {
    json!({ "date": session.date, "open": session.hours.from(), "close": session.hours.to(), "breaks": session.breaks })
}

fn row(session: &Session) -> Vec<String> {
    // As ISO 8601 writes intervals. Several are separated by a space, since a comma ends the column.
    let breaks: Vec<String> = session.breaks.iter().map(|pause: &Interval| format!("{}/{}", pause.from(), pause.to())).collect();
    vec![session.date.to_string(), session.hours.from().to_string(), session.hours.to().to_string(), breaks.join(" ")]
}
