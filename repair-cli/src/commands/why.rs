//! `repair why`

use std::path::PathBuf;

use clap::Args;
use repair::core::lake::overlay::story::{Provenance, Standing};
use repair::jiff::Timestamp;
use repair::provenance::SlotStory;

use super::TableArg;
use crate::exit::Exit;
use crate::output::{Failure, count, is_never, print_json, print_lines, short};

/// Explain why a slot is as it is: raw, repaired (by what, from where, when), absent (on what evidence, until when), or missing.
#[derive(Debug, Args)]
pub(crate) struct Why {
    #[command(flatten)]
    table: TableArg,
    /// Which series. Separate the values of a key of several columns by commas.
    #[arg(long)]
    key: Option<String>,
    /// The time of a row, or an instant within the slot, such as `2024-03-04T14:31:00Z`. Where times mark the ends of slots, the border of two is the time of the first one's
    /// row.
    #[arg(long)]
    at: Timestamp,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Why {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let (table, workflow, lake) = self.table.open(lake_before)?;
        let story = lake.why(table, self.at).key(self.key.as_deref()).declared_in(workflow.as_deref()).await?;
        if self.json {
            print_json(&story)?;
        } else {
            print_lines(&text(&story))?;
        }
        Ok(Exit::Success)
    }
}

fn text(story: &SlotStory) -> Vec<String> {
    let what = match story.standing {
        Standing::Raw if story.raw.len() > 1 => format!("raw: the table has {} rows of its own", story.raw.len()),
        Standing::Raw => "raw: the table has a row of its own".to_owned(),
        Standing::Patched => "patched: the table has a row of its own, and repairs change some of its cells".to_owned(),
        Standing::Repaired => "repaired".to_owned(),
        Standing::Removed if story.raw.is_empty() => "removed: a source no longer has its row".to_owned(),
        Standing::Removed => "removed: the table has rows of its own that a source no longer has, and a repair removes them".to_owned(),
        Standing::Absent => "absent: confirmed to have no row".to_owned(),
        Standing::Missing => missing(story),
    };
    let time = story.time.map(|time| format!("; the time of its row is {time}")).unwrap_or_default();
    let mut lines = vec![format!("table {}, {}, {}{time}", story.table, story.key, story.slot), what];
    lines.extend(story.other.as_ref().map(|other| {
        let is = serde_json::to_value(other.standing).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
        format!("  that instant also lies in another slot, {}, which is {is}: ask about it with --at {}", other.slot, other.at)
    }));
    lines.extend(story.raw.iter().map(|row| format!("  raw: {}", short(row))));
    let is_repaired = story.repairs.iter().any(|of| of.repair.counts && of.repair.cells.is_empty());
    for of in &story.repairs {
        let (repair, attempts) = (&of.repair, of.attempts);
        let after = attempts.map(|attempts| format!("; the step took {} in all", count(attempts.into(), "attempt"))).unwrap_or_default();
        let counts = match (&repair.provenance.retracted_by, repair.counts, story.raw.is_empty() || is_repaired) {
            (Some(_), ..) => "undone",
            (None, true, _) if !repair.cells.is_empty() => "it counts, and changes these cells",
            (None, false, _) if !repair.cells.is_empty() => "a newer one counts, or the table has another value now",
            (None, true, _) if repair.changed && repair.answer.is_some() => {
                "it counts, but the table's rows have changed since it removed them"
            }
            (None, true, _) if repair.answer.is_some() => "it counts, and removes the table's rows",
            (None, true, _) if repair.changed => "it counts, but the table's rows have changed since it replaced them",
            (None, true, _) if repair.replaced.is_some() => "it counts, and replaces the table's rows",
            (None, true, _) => "it counts",
            (None, false, false) => "raw wins",
            (None, false, true) => "a newer one counts",
        };
        match &repair.answer {
            Some(answer) => lines.push(format!("  removal ({counts}): {answer}")),
            None => lines.push(format!("  repair ({counts}): {}", short(&repair.row))),
        }
        for (column, cell) in &repair.cells {
            let shown = if cell.counts { "" } else { ", and is not shown" };
            lines.push(format!("    cell {column} was {}{shown}", cell.was));
        }
        for (column, [low, high]) in &repair.estimated {
            lines.push(format!("    {column} is estimated: with a chance of 95 %, it is between {low} and {high}"));
        }
        lines.push(format!("    {}{after}", by(&repair.provenance)));
    }
    for exception in &story.exceptions {
        let counts = match (&exception.provenance.retracted_by, exception.counts) {
            (Some(_), _) => "undone",
            (None, true) => "it counts",
            (None, false) => "expired",
        };
        let again = match exception.recheck_after {
            at if is_never(at) => "sources are not asked again".to_owned(),
            at => format!("sources are asked again after {at:.0}"),
        };
        lines.push(format!("  absent ({counts}): {}; {again}", exception.answer));
        lines.push(format!("    {}", by(&exception.provenance)));
    }
    for retraction in &story.retractions {
        lines.push(format!("  undone by {} at {:.0}: {} ({})", retraction.by, retraction.at, retraction.reason, retraction.id));
    }
    lines.extend(story.decisions.iter().map(|decision| format!("  {}", decision.in_words())));
    lines.extend(story.conflict.iter().map(|conflict| format!("  conflict: {conflict}")));
    lines.extend(story.stale.iter().map(|into| format!("  table {into} is stale here, until a run computes it again")));
    let suspect = story.suspect.as_ref();
    lines.extend(suspect.map(|of| format!("  suspect: {} (run {}): a collector may have failed", of.silence, of.run)));
    lines
}

/// What is known of a slot without a row: what counts most comes first.
fn missing(story: &SlotStory) -> String {
    let why = if let Some(decision) = story.decisions.first() {
        format!("it is {}, so nothing repairs it", decision.verdict.words())
    } else if story.suspect.is_some() {
        "the silence of its source proves nothing".to_owned()
    } else if story.repairs.iter().any(|of| of.repair.provenance.retracted_by.is_some()) {
        "what repaired it has been undone".to_owned()
    } else if story.exceptions.iter().any(|exception| exception.provenance.retracted_by.is_none()) {
        "what confirmed that has expired".to_owned()
    } else if !story.exceptions.is_empty() {
        "what confirmed that has been undone".to_owned()
    } else {
        "nothing says why".to_owned()
    };
    format!("missing: there is no row, and {why}")
}

fn by(of: &Provenance) -> String {
    let Provenance { run, step, unit, strategy, source, at, .. } = of;
    format!("by run {run}, step {step}, unit {unit}, strategy {strategy}, from {source}, at {at:.0}")
}
