//! `repair except`: what a person knows about slots that have no row.

use std::path::PathBuf;

use clap::Args;
use repair::Interval;
use repair::jiff::Timestamp;

use super::TableArg;
use super::undo::changed;
use crate::exit::Exit;
use crate::output::Failure;

/// Record that slots have no row and need none, or remove such records.
#[derive(Debug, Args)]
pub(crate) struct Except {
    #[command(flatten)]
    table: TableArg,
    /// Which series. Separate the values of a key of several columns by commas.
    #[arg(long)]
    key: Option<String>,
    /// The first slot: an instant, or a date.
    #[arg(long)]
    from: String,
    /// The instant before which it ends, or the last date.
    #[arg(long)]
    to: String,
    /// How you know.
    #[arg(long)]
    reason: String,
    /// When to ask sources again: an instant [default: never].
    #[arg(long, conflicts_with = "remove")]
    until: Option<Timestamp>,
    /// Remove all exceptions of these slots, whether a person or a run recorded them.
    #[arg(long)]
    remove: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Except {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let interval = Interval::parse(&self.from, &self.to)?;
        let (table, workflow, lake) = self.table.open(lake_before)?;
        let (key, workflow) = (self.key.as_deref(), workflow.as_deref());
        if self.remove {
            let change = lake.unexcept(table, interval, self.reason).key(key).declared_in(workflow).await?;
            return changed(&change, "removed", self.json, &format!("restore it with `repair redo {}`", change.id));
        }
        let change = lake.except(table, interval, self.reason).key(key).declared_in(workflow).until(self.until).await?;
        changed(&change, "recorded", self.json, "remove it with `repair except --remove`")
    }
}
