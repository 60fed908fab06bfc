//! `repair prune`

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use repair::core::workflow::parse_duration;
use repair::prune::Prunable;

use crate::exit::Exit;
use crate::open::LakeArg;
use crate::output::{Failure, count, print_json, print_lines};

/// Remove what is kept for runs that ended long ago: lists of gaps and units, and units that stayed staged.
///
/// It first shows what would go. The history of all runs stays, and so does everything that repairs, undo, why, accuracy and costs need. A run that was
/// pruned can no longer be redriven, and its report no longer shows its gaps slot by slot. The last run of each workflow is never pruned.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Only of runs that ended longer ago than this, e.g. 30d, 12h [default: 30d].
    #[arg(long, value_name = "TIME", value_parser = time)]
    older_than: Option<Duration>,
    /// Keep everything of so many runs of each workflow, those that ended last [default: 1].
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Remove it without asking.
    #[arg(long)]
    yes: bool,
    /// Print a JSON object: what was removed with --yes, otherwise what would be.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.message().to_owned())
}

impl Prune {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let lake = self.lake.open(lake_before)?;
        let found = lake.prunable().older_than(self.older_than).keep(self.keep).await?;
        if self.json {
            let shown = if self.yes { lake.prune(&found).await? } else { found };
            print_json(&shown)?;
            return Ok(Exit::Success);
        }
        print_lines(&lines(&found))?;
        if found.runs.is_empty() {
            return Ok(Exit::Success);
        }
        if self.yes || is_wanted("remove it?") {
            let removed = lake.prune(&found).await?;
            print_lines(&[format!("removed {} of {}", bytes(removed.bytes), count(removed.runs.len() as u64, "run"))])?;
        } else {
            print_lines(&["nothing was removed; --yes removes it".to_owned()])?;
        }
        Ok(Exit::Success)
    }
}

/// Asks on a terminal; elsewhere nobody can answer.
pub(super) fn is_wanted(question: &str) -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    let mut error = std::io::stderr().lock();
    let mut answer = String::new();
    let asked = write!(error, "{question} [y/N] ").and_then(|()| error.flush());
    asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer)).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

pub(super) fn bytes(bytes: u64) -> String {
    format!("{} bytes", repair::core::text::grouped(bytes))
}

fn lines(found: &Prunable) -> Vec<String> {
    if found.runs.is_empty() {
        return vec!["there is nothing to remove".to_owned()];
    }
    let mut lines = Vec::with_capacity(found.runs.len() + 1);
    for run in &found.runs {
        let mut what = Vec::new();
        what.extend((run.artifacts > 0).then(|| count(run.artifacts as u64, "artifact")));
        what.extend((run.staged > 0).then(|| count(run.staged as u64, "staged unit")));
        what.extend(run.has_state.then(|| "a kept state".to_owned()));
        let (id, workflow, outcome) = (&run.run, &run.workflow, run.outcome.as_str());
        lines.push(format!("{id}  {workflow}, {outcome} {:.0}: {}, {}", run.ended_at, what.join(", "), bytes(run.bytes)));
    }
    lines.push(format!("in all: {} of {}", bytes(found.bytes), count(found.runs.len() as u64, "run")));
    lines
}
