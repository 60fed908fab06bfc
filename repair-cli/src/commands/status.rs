//! `repair status`

use std::path::PathBuf;

use clap::Args;
use repair::jiff::civil::Date;
use repair::status::{States, Status, TableStatus};

use crate::exit::Exit;
use crate::open::LakeArg;
use crate::output::{Failure, count, is_never, print_json, print_lines, table};

/// How many keys and days people see of a table: those of which most is open.
const MOST_KEYS: usize = 20;
const MOST_DAYS: usize = 7;

/// Show the status of every slot, by table, key and day, as runs last saw it.
///
/// Every expected slot is complete, repaired, missing, absent, suspect, wrong, or set aside by a person. Nothing is looked at again. A day at which no
/// run has looked is not counted as complete: it is listed as never looked at.
#[derive(Debug, Args)]
pub(crate) struct StatusOf {
    /// Only this table [default: all that runs have examined].
    table: Option<String>,
    /// Only this series. Separate the values of a key of several columns by commas.
    #[arg(long)]
    key: Option<String>,
    /// Only this day and later ones, in the zone of the table.
    #[arg(long, value_name = "DATE")]
    since: Option<Date>,
    /// Only this day and earlier ones, in the zone of the table.
    #[arg(long, value_name = "DATE")]
    until: Option<Date>,
    /// Print a JSON object with all keys and days.
    #[arg(long, conflicts_with = "svg")]
    pub(crate) json: bool,
    /// Print a calendar as an SVG picture: keys by days, coloured by the worst state.
    #[arg(long)]
    svg: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl StatusOf {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let lake = self.lake.open(lake_before)?;
        let request = lake.status().table(self.table.as_deref()).key(self.key.as_deref());
        let status = request.since(self.since).until(self.until).await?;
        if self.json {
            print_json(&status)?;
        } else if self.svg {
            crate::output::print(repair::status::page(&status).trim_end())?;
        } else {
            print_lines(&text(&status))?;
        }
        Ok(Exit::Success)
    }
}

fn text(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    for table in &status.tables {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(of_table(table));
    }
    if status.tables.is_empty() {
        lines.push("no run has examined a table".to_owned());
    }
    lines
}

fn of_table(status: &TableStatus) -> Vec<String> {
    let Some((first, last)) = status.days else {
        let mut lines = vec![format!("table {}: nothing is known of these days", status.table)];
        lines.extend(status.notes.iter().map(|note| format!("note: {note}")));
        return lines;
    };
    let keys = count(status.keys.len() as u64, "key");
    let mut lines = vec![format!("table {}, {keys}, a row every {}, {first} to {last} ({})", status.table, status.cadence, status.zone)];
    let mut worst: Vec<_> = status.keys.iter().collect();
    worst.sort_by_key(|key| (std::cmp::Reverse(key.total.open()), std::cmp::Reverse(key.never_looked)));
    let hidden = worst.len().saturating_sub(MOST_KEYS);
    worst.truncate(MOST_KEYS);
    let rows = worst.iter().map(|key| (key.key.to_string(), key.total, key.never_looked));
    let all = ("all".to_owned(), status.total, status.never_looked);
    lines.extend(aligned("key", rows.chain([all]), status));
    if hidden > 0 {
        lines.push(format!("note: these are the {MOST_KEYS} keys of which most is open; --json has all {}", status.keys.len()));
    }
    let days = status.worst_days(MOST_DAYS);
    if !days.is_empty() {
        lines.push(String::new());
        lines.extend(aligned("worst days", days.into_iter().map(|(date, states)| (date.to_string(), states, 0)), status));
    }
    lines.push(String::new());
    if let Some(look) = status.latest() {
        let what = if look.again { "at gaps" } else { "" };
        let words = ["last looked", what].join(" ");
        lines.push(format!("{} at {:.0}: run {}, step {}, {}", words.trim_end(), look.at, look.run, look.step, look.interval));
    }
    if let Some(until) = status.looks.iter().filter_map(|look| look.absent_until).filter(|until| !is_never(*until)).min() {
        lines.push(format!("the first evidence of an absence expires at {until:.0}"));
    }
    if status.never_looked > 0 {
        lines.push(format!("note: {} of keys were never looked at, which does not make them complete", count(status.never_looked, "day")));
    }
    lines.extend(status.decisions.iter().map(|decision| decision.in_words()));
    lines.extend(status.notes.iter().map(|note| format!("note: {note}")));
    lines
}

/// Rows of states. A state that no slot of the table is in has no column, but for what people always want to know.
fn aligned(of: &str, rows: impl Iterator<Item = (String, States, u64)>, status: &TableStatus) -> Vec<String> {
    const ALWAYS: [&str; 3] = ["missing", "repaired", "complete"];
    let shown: Vec<bool> = status.total.by_name().iter().map(|(name, slots)| *slots > 0 || ALWAYS.contains(name)).collect();
    let names = status.total.by_name().map(|(name, _)| name);
    let shown_of = |all: &[String]| all.iter().zip(&shown).filter(|(_, shown)| **shown).map(|(cell, _)| cell.clone()).collect::<Vec<_>>();
    let mut header = vec![of.to_owned(), "expected".to_owned()];
    header.extend(shown_of(&names.map(str::to_owned)));
    let never = status.never_looked > 0 && of == "key";
    if never {
        header.push("days never looked at".to_owned());
    }
    let rows: Vec<Vec<String>> = rows
        .map(|(name, states, never_looked)| {
            let mut row = vec![name, states.expected.to_string()];
            row.extend(shown_of(&states.by_name().map(|(_, slots)| slots.to_string())));
            row.extend(never.then(|| never_looked.to_string()));
            row
        })
        .collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, &rows).lines().map(str::to_owned).collect()
}
