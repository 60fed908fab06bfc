//! `repair calendar`

use clap::Args;
use repair::core::model::Session;
use repair::jiff::civil::Date;
use repair::{Error, Interval};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::{Failure, print, print_json, table};

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
    /// Print comma-separated values.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

const HEADER: [&str; 4] = ["date", "open", "close", "breaks"];

impl Calendar {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let registry = repair::registry();
        let calendars = registry.calendars();
        let known = || calendars.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let calendar = calendars
            .get(&self.name)
            .ok_or_else(|| Error::invalid(format!("there is no calendar `{}`; the calendars are {}", self.name, known())))?;
        if self.to < self.from {
            return Err(Error::invalid(format!("--to {} is before --from {}", self.to, self.from)).into());
        }
        let sessions = calendar.sessions(self.from, self.to)?;
        if self.json {
            let sessions: Vec<Value> = sessions.iter().map(object).collect();
            print_json(&json!({ "format": repair::JsonFormat, "calendar": self.name, "sessions": sessions }))?;
        } else if self.csv {
            let rows = sessions.iter().map(|session| row(session).join(","));
            print(&std::iter::once(HEADER.join(",")).chain(rows).collect::<Vec<_>>().join("\n"))?;
        } else {
            print(&table(&HEADER, &sessions.iter().map(row).collect::<Vec<_>>()))?;
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
