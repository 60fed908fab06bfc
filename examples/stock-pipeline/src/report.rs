//! The texts that the demo prints. They are made from values; nothing here reads the lake.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use comfy_table::{CellAlignment, Table, presets};
use repair::core::engine::{Event, Observer, Recorded, RunState};
use repair::core::plugin::Progress;
use repair::core::text::{count, grouped};
use repair::jiff::Timestamp;
use repair::jiff::civil::Date;
use repair::jiff::tz::TimeZone;
use repair::ledger::{Costs, INFRASTRUCTURE, NONE};
use rust_decimal::Decimal;
use serde_json::Value;

use crate::hours::StockHour;
use crate::pipeline::Captured;

/// How many hours fit side by side on a terminal of 80 columns.
const HOURS_A_BLOCK: usize = 8;

/// Prints a paragraph. A reader that stops early, such as `head`, is not an error.
///
/// # Errors
/// Fails if the text cannot be written for any other reason, because readers must not mistake a part for the whole.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What the demo assumes about a replay, and why.
pub(crate) fn replay(quiet_spell: &str) -> String {
    format!(
        "Real bars are replayed. A silence of any length is taken to mean that nothing traded (quiet_spell={quiet_spell}), because the\n\
         archive is all there is of this market. From a source that may fail, a long silence proves nothing."
    )
}

/// What the pipeline did, in two sentences.
pub(crate) fn pipeline(captured: &Captured, symbols: usize, dropped_per_minute: usize) -> String {
    let asked = captured.requests + captured.dropped;
    let landed = format!(
        "The pipeline captured {} of {} in {}.",
        count(captured.bars, "bar"),
        count(symbols as u64, "stock"),
        count(captured.files, "Parquet file"),
    );
    let glitch = match dropped_per_minute {
        0 => "Without a glitch, it requested every stock in every minute.".to_owned(),
        dropped => format!(
            "Its glitch: in every minute it dropped {}, drawn at random, so {} of {} were never made.",
            count(dropped as u64, "stock"),
            grouped(captured.dropped),
            count(asked, "request"),
        ),
    };
    format!("{landed}\n{glitch}")
}

/// The hours as the pipeline left them: bars, and minutes in which the market was open.
pub(crate) fn before(hours: &[StockHour]) -> String {
    let grid = grid(hours, |hour| format!("{}/{}", hour.observed, hour.expected));
    format!("BEFORE: bars / minutes of the hour (UTC)\n\n{grid}\n\n{}", completeness(hours))
}

/// The hours as the workflow left them: bars, and minutes confirmed to have none.
pub(crate) fn after(hours: &[StockHour]) -> String {
    let grid = grid(hours, |hour| {
        let bars = hour.observed + hour.repaired;
        let known = if hour.absent == 0 { bars.to_string() } else { format!("{bars}+{}", hour.absent) };
        if hour.complete { known } else { format!("{known}/{}", hour.expected) }
    });
    format!("AFTER: bars (including repaired ones) + minutes confirmed to have none\n\n{grid}\n\n{}", completeness(hours))
}

fn completeness(hours: &[StockHour]) -> String {
    let complete = hours.iter().filter(|hour| hour.complete).count();
    let all = count(hours.len() as u64, "stock-hour");
    let which = match complete {
        0 => "None".to_owned(),
        _ if complete == hours.len() => "All".to_owned(),
        some => grouped(some as u64),
    };
    format!("{which} of {all} {} complete.", if complete <= 1 { "is" } else { "are" })
}

/// One block for every eight hours of a day, with a row per stock and a column per hour.
fn grid(hours: &[StockHour], cell: impl Fn(&StockHour) -> String) -> String {
    let mut days: BTreeMap<Date, BTreeSet<Timestamp>> = BTreeMap::new();
    let mut cells: BTreeMap<&str, BTreeMap<Timestamp, String>> = BTreeMap::new();
    for hour in hours {
        days.entry(hour.hour.to_zoned_datetime(TimeZone::UTC).date()).or_default().insert(hour.hour);
        cells.entry(&hour.symbol).or_default().insert(hour.hour, cell(hour));
    }
    let mut blocks = Vec::new();
    for (date, columns) in &days {
        let columns: Vec<Timestamp> = columns.iter().copied().collect();
        for columns in columns.chunks(HOURS_A_BLOCK) {
            let header = columns.iter().map(|hour| hour.strftime("%H:00").to_string());
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_header(std::iter::once(date.to_string()).chain(header));
            for (symbol, cells) in &cells {
                let row = columns.iter().map(|hour| cells.get(hour).cloned().unwrap_or_default());
                table.add_row(std::iter::once((*symbol).to_owned()).chain(row));
            }
            for (index, column) in table.column_iter_mut().enumerate() {
                column.set_padding((2, 0));
                column.set_cell_alignment(if index == 0 { CellAlignment::Left } else { CellAlignment::Right });
            }
            blocks.push(table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n"));
        }
    }
    blocks.join("\n\n")
}

/// The summary of the demo.
pub(crate) struct Summary<'a> {
    /// The hours that the workflow wrote.
    pub(crate) hours: &'a [StockHour],
    /// Minutes that the workflow found missing.
    pub(crate) missing: u64,
    /// Requests that the workflow made to the source.
    pub(crate) requests: u64,
    /// The folder of the hourly table.
    pub(crate) hourly: &'a Path,
    /// The run's id.
    pub(crate) run: &'a str,
}

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = |of: fn(&StockHour) -> u64| grouped(self.hours.iter().map(of).sum());
        let (repaired, absent) = (total(|hour| hour.repaired), total(|hour| hour.absent));
        writeln!(f, "missing   {}", count(self.missing, "minute"))?;
        writeln!(f, "repaired  {repaired}, from {} to the source", count(self.requests, "request"))?;
        writeln!(f, "absent    {absent}, for which the source confirmed that there is no bar; its answers are kept as evidence")?;
        writeln!(f, "hourly    {}", self.hourly.display())?;
        write!(f, "run       {}", self.run)
    }
}

/// The costs of the pipeline and of its repair.
pub(crate) fn costs(costs: &Costs) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["", "for", "requests", "bars", "USD"]);
    for group in &costs.groups {
        let tag = |name: &str| group.tags.get(name).map_or("", String::as_str);
        let what = if tag("idea") == NONE { tag("workflow") } else { tag("idea") };
        let bars = if tag("component") == INFRASTRUCTURE { group.usage.rows_written } else { group.rows_repaired };
        table.add_row([
            tag("component").to_owned(),
            what.to_owned(),
            grouped(group.usage.source_requests),
            grouped(bars),
            dollars(group.usd),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_cell_alignment(if index < 2 { CellAlignment::Left } else { CellAlignment::Right });
        column.set_padding(if index == 0 { (2, 1) } else { (1, 1) });
    }
    let table = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    let books: Vec<&str> = costs.prices.iter().map(String::as_str).collect();
    format!(
        "COSTS of this day, by the price book {}\n\n{table}\n\n\
         The pipeline is priced as if it ran on queues, functions, a stream and S3. The repair ran on this machine's disk, and the simulated\n\
         exchange is free; docs/costs.md prices the repair on S3 and Athena, and shows when each way is cheaper.",
        books.join(", ")
    )
}

/// Dollars, rounded to four significant digits.
fn dollars(usd: Option<Decimal>) -> String {
    usd.map_or_else(|| NONE.to_owned(), |usd| usd.round_sf(4).unwrap_or(usd).normalize().to_string())
}

/// How to do the same by hand.
pub(crate) fn by_hand(file: &str, lake: &Path, given: &BTreeMap<String, String>, run: &str) -> String {
    let lake = quoted(&lake.display().to_string());
    let params: String = given.iter().map(|(name, value)| format!(" \\\n      --param {}", quoted(&format!("{name}={value}")))).collect();
    format!(
        "To do the same by hand, and to look at the run above (`cargo install --path repair-cli` installs `repair`):\n\n  \
         repair run {file} --lake {lake}{params}\n  repair show {run} --lake {lake}"
    )
}

/// A text as one word of a shell's command line.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Prints the steps of a run as they happen, one line each.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    unwritten: Mutex<Option<io::Error>>,
}

impl Steps {
    /// Checks that all lines could be written.
    ///
    /// # Errors
    /// As [`say`], for the first line that could not.
    pub(crate) fn printed(&self) -> io::Result<()> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

impl Progress for Steps {
    fn advance(&self, _: &str, _: u64, _: u64) {}
}

impl Observer for Steps {
    fn recorded(&self, recorded: &Recorded, _: &RunState) {
        if let Some((step, line)) = line(&recorded.event) {
            // A failed write does not stop the run; it is reported when the run has ended.
            if let Err(error) = say(&format!("  {step:<10} {line}")) {
                self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    }
}

fn line(event: &Event) -> Option<(&str, String)> {
    Some(match event {
        Event::TimerSet { step, .. } => (step, "waits for late rows (this demo's clock jumps ahead instead)".to_owned()),
        Event::UnitsPlanned { step, units, slots, strategy, .. } => {
            (step, format!("{strategy}: {} in {}", count(*slots, "minute"), count(u64::from(*units), "request")))
        }
        Event::StepSucceeded { step, output, .. } => (step, done(output)?),
        Event::StepFailed { step, error, .. } => (step, format!("{}: {}", error.kind, error.message)),
        Event::RetryScheduled { step, .. } => (step, "retries what failed".to_owned()),
        _ => return None,
    })
}

/// The output of a step in words, if it did more than wait.
fn done(output: &Value) -> Option<String> {
    let number = |name: &str| output.get(name).and_then(Value::as_u64);
    if let (Some(missing), Some(gaps), Some(expected)) = (number("missing"), number("gaps"), number("expected")) {
        return Some(match missing {
            0 => "nothing is missing".to_owned(),
            _ => format!("{} of {} missing, in {}", grouped(missing), count(expected, "minute"), count(gaps, "gap")),
        });
    }
    if let Some(rows) = number("rows") {
        return Some(format!("{} written", count(rows, "row")));
    }
    if let (Some(repaired), Some(absent)) = (number("repaired"), number("absent")) {
        return Some(format!("{} repaired, {} confirmed absent", grouped(repaired), grouped(absent)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(symbol: &str, hour: &str, [expected, observed, repaired, absent]: [u64; 4]) -> StockHour {
        let complete = expected == observed + repaired + absent;
        StockHour { symbol: symbol.to_owned(), hour: hour.parse().unwrap(), expected, observed, repaired, absent, complete }
    }

    #[test]
    fn hours_are_laid_out_by_day_and_stock() {
        let hours = [
            hour("IBM", "2026-03-05T14:00:00Z", [30, 27, 2, 1]),
            hour("IBM", "2026-03-05T15:00:00Z", [60, 55, 5, 0]),
            hour("AIG", "2026-03-05T15:00:00Z", [60, 50, 0, 0]),
            hour("AIG", "2026-03-06T15:00:00Z", [60, 60, 0, 0]),
        ];
        let text = after(&hours);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        for expected in [
            vec!["2026-03-05", "14:00", "15:00"],
            vec!["AIG", "50/60"],
            vec!["IBM", "29+1", "60"],
            vec!["2026-03-06", "15:00"],
            vec!["3", "of", "4", "stock-hours", "are", "complete."],
        ] {
            assert!(lines.contains(&expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_verb_agrees_with_what_is_counted() {
        let [done, open] = [[60, 60, 0, 0], [60, 59, 0, 0]].map(|counts| hour("IBM", "2026-03-05T15:00:00Z", counts));
        for (hours, said) in [
            (vec![open.clone(), open.clone()], "None of 2 stock-hours is complete."),
            (vec![open, done.clone()], "1 of 2 stock-hours is complete."),
            (vec![done.clone(), done.clone()], "All of 2 stock-hours are complete."),
            (vec![done], "All of 1 stock-hour is complete."),
        ] {
            assert_eq!(completeness(&hours), said);
        }
    }

    #[test]
    fn a_command_line_survives_its_shell() {
        assert_eq!(quoted("archive=/data/bars"), "archive=/data/bars");
        assert_eq!(quoted("archive=/my data/it's"), r"'archive=/my data/it'\''s'");
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1_833, 1_000_000].map(grouped), ["0", "999", "1,833", "1,000,000"]);
    }
}
