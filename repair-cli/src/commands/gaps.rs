//! `repair gaps`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use repair::reading::{DefectRange, GapsReport};

use crate::exit::Exit;
use crate::open::{LakeArg, subject_meant};
use crate::output::{Failure, RowsAs, count, csv, print_lines, remark, rows_out, table};

/// How many stretches people see.
const MOST_SHOWN: usize = 1_000;

const COLUMNS: [&str; 7] = ["step", "table", "kind", "key", "from", "to", "slots"];

/// List what is missing or wrong: each key, from when to when.
///
/// It is what the detect steps of a run found, or what the steps that verify them saw later. Of a table, it is what the latest run found
/// that has examined it. Nothing is looked at again.
#[derive(Debug, Args)]
pub(crate) struct Gaps {
    /// The name of a table that a run has examined; or a run's id, the beginning of it (see `repair runs`), or `last`.
    #[arg(value_name = "RUN|TABLE")]
    subject: String,
    /// Print all of them as CSV.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print a JSON object with all of them.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Gaps {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let lake = self.lake.open(lake_before)?;
        let gaps = match lake.gaps(&self.subject).await {
            Err(error) => lake.gaps(&subject_meant(&lake, &self.subject, error).await?).await?,
            Ok(gaps) => gaps,
        };
        if self.json {
            let mut out = rows_out(RowsAs::Json);
            serde_json::to_writer_pretty(&mut out, &gaps).map_err(|error| match error.io_error_kind() {
                Some(kind) => anyhow::Error::from(std::io::Error::from(kind)),
                None => anyhow::Error::from(error).context("the result can't be written as JSON"),
            })?;
            out.write_all(b"\n").and_then(|()| out.flush()).context("standard output takes no more")?;
        } else if self.csv {
            write_csv(&gaps)?;
            remark(&remarks(&gaps).join("\n"));
        } else {
            let rows: Vec<Vec<String>> =
                gaps.ranges().take(MOST_SHOWN).map(|range| cells(&range, range.key.to_string()).to_vec()).collect();
            let mut lines = Vec::new();
            if !rows.is_empty() {
                lines.extend(table(&COLUMNS, &rows).lines().map(str::to_owned));
                lines.push(String::new());
            }
            if gaps.len() > MOST_SHOWN as u64 {
                lines.push(format!("note: these are the first {MOST_SHOWN} of {} stretches; --csv lists all", gaps.len()));
            }
            lines.extend(remarks(&gaps));
            print_lines(&lines)?;
        }
        Ok(Exit::Success)
    }
}

/// A stretch. People see the key with control characters written out; programs get it as `--key` takes it.
fn cells(range: &DefectRange, key: String) -> [String; 7] {
    let DefectRange { step, table, kind, from, to, slots, .. } = range;
    [step.clone(), table.clone(), kind.as_str().to_owned(), key, from.to_string(), to.to_string(), slots.to_string()]
}

fn write_csv(gaps: &GapsReport) -> anyhow::Result<()> {
    let mut out = rows_out(RowsAs::Lines);
    writeln!(out, "{}", COLUMNS.join(","))?;
    for range in gaps.ranges() {
        writeln!(out, "{}", csv(&[cells(&range, range.key.as_typed()).to_vec()]))?;
    }
    out.flush()?;
    Ok(())
}

/// What the stretches add up to, and how old they are.
fn remarks(gaps: &GapsReport) -> Vec<String> {
    let run = &gaps.run;
    let mut lines = Vec::new();
    for search in &gaps.searches {
        let kind = search.kind.as_str();
        let slots = if search.slots == 0 { format!("no slot is {kind}") } else { format!("{} {kind}", count(search.slots, "slot")) };
        let of = search.run.as_ref().map(|run| format!(" of run {run}")).unwrap_or_default();
        lines.push(format!("step {}{of}, table {}: {slots}", search.step, search.table));
        if search.repaired_since > 0 {
            lines.push(format!(
                "note: {} of step {} repaired or confirmed absent since; no step has looked again, so they are still listed",
                count(search.repaired_since, "slot"),
                search.step
            ));
        }
    }
    lines.extend(gaps.notes.iter().map(|note| format!("note: {note}")));
    let state = if gaps.has_ended { "which has ended" } else { "which has not ended" };
    lines.push(format!("as run {run} last saw it, {state}, at {:.0}", gaps.as_of));
    lines
}
