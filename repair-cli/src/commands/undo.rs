//! `repair undo` and `repair redo`

use std::path::PathBuf;

use clap::Args;
use repair::provenance::Change;

use super::IntervalArg;
use crate::exit::Exit;
use crate::open::{LakeArg, run_meant};
use crate::output::{Failure, count, print_json, print_lines};

/// Hide what a run added to its tables, all of it or a part. It stays in the lake, and `repair redo` shows it again.
#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// The run's id or the beginning of it (see `repair runs`), or `last`.
    run: String,
    /// Only what this step added.
    #[arg(long)]
    step: Option<String>,
    /// Only this series; may be repeated. Separate the values of a key of several columns by commas.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    interval: IntervalArg,
    /// Why, for those who ask later.
    #[arg(long, default_value = "no reason was given")]
    reason: String,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Undo {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let within = self.interval.within();
        let lake = self.lake.open(lake_before)?;
        let run = run_meant(&lake, self.run).await?;
        let request = lake.undo(run).step(self.step.as_deref()).interval(within).reason(self.reason);
        let change = self.keys.into_iter().fold(request, |request, key| request.key(key)).await?;
        changed(&change, "hidden", self.json, &format!("show it again with `repair redo {}`", change.id))
    }
}

/// Prints what was changed.
pub(super) fn changed(change: &Change, what: &str, as_json: bool, then: &str) -> Result<Exit, Failure> {
    if as_json {
        print_json(change)?;
        return Ok(Exit::Success);
    }
    let mut lines = Vec::new();
    for changed in &change.tables {
        let (rows, absent) = (count(changed.rows, "repaired row"), count(changed.absent, "exception"));
        lines.push(format!("table {}: {rows} and {absent} {what}, in {}", changed.table, changed.interval));
        lines.extend(changed.stale.iter().map(|into| format!("table {into}: stale there, until a run computes it again")));
    }
    lines.push(format!("{}; {then}", change.id));
    print_lines(&lines)?;
    Ok(Exit::Success)
}

/// Show again what an undo has hidden.
#[derive(Debug, Args)]
pub(crate) struct Redo {
    /// The id that `repair undo` printed; `repair why` shows it too.
    undo: String,
    /// Why, for those who ask later.
    #[arg(long, default_value = "no reason was given")]
    reason: String,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Redo {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let change = self.lake.open(lake_before)?.redo(self.undo).reason(self.reason).await?;
        changed(&change, "shown again", self.json, "hide it once more with `repair undo`")
    }
}
