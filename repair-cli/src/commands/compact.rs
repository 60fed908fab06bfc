//! `repair compact`

use std::path::PathBuf;

use clap::Args;
use repair::compact::{CompactableTable, CompactedTable};
use repair::core::lake::overlay::compaction::Compactable;

use super::TableArg;
use super::prune::{bytes, is_wanted};
use crate::exit::Exit;
use crate::output::{Failure, count, print_json, print_lines};

/// Only so many parts are listed one by one; `--json` has them all.
const MOST_PARTS: usize = 20;

/// Join the many small objects in which the repairs of a table lie: one for each run, batch and partition.
///
/// It first shows which. Rows stay as they are, with all that is known of them, so whatever is asked is answered as before, also while this goes on and after it
/// was broken off, and every run can still be undone. It is refused while a run that has the table has not ended.
#[derive(Debug, Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    table: TableArg,
    /// Join them without asking.
    #[arg(long)]
    yes: bool,
    /// Print a JSON object: what was joined with --yes, otherwise what would be.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Compact {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let (table, workflow, lake) = self.table.open(lake_before)?;
        let found = lake.compactable(table).declared_in(workflow.as_deref()).await?;
        if self.json {
            if self.yes {
                print_json(&lake.compact(&found).await?)?;
            } else {
                print_json(&found)?;
            }
            return Ok(Exit::Success);
        }
        print_lines(&lines(&found))?;
        if found.parts.is_empty() {
            return Ok(Exit::Success);
        }
        if self.yes || is_wanted("join them?") {
            print_lines(&[joined(&lake.compact(&found).await?)])?;
        } else {
            print_lines(&["nothing was changed; --yes joins them".to_owned()])?;
        }
        Ok(Exit::Success)
    }
}

fn objects(number: usize) -> String {
    count(number as u64, "object")
}

fn joined(done: &CompactedTable) -> String {
    let (removed, written) = (objects(done.removed), objects(done.written));
    format!("joined {removed} of {} to {written} of {}, {}", bytes(done.bytes_removed), bytes(done.bytes_written), count(done.rows, "row"))
}

fn lines(found: &CompactableTable) -> Vec<String> {
    if found.parts.is_empty() {
        return vec!["there is nothing to join".to_owned()];
    }
    let line = |part: &Compactable| {
        let partition = part.partition.as_ref().map(|partition| format!("/{partition}")).unwrap_or_default();
        format!("{}{partition}: {}, {}", part.kind.beside(&found.table), objects(part.members.len()), bytes(part.bytes()))
    };
    let mut lines: Vec<String> = found.parts.iter().take(MOST_PARTS).map(line).collect();
    if found.parts.len() > MOST_PARTS {
        lines.push(format!("and {} more", found.parts.len() - MOST_PARTS));
    }
    lines.push(format!("in all: {} of {}, to become {}", objects(found.objects), bytes(found.bytes), found.parts.len()));
    lines
}
