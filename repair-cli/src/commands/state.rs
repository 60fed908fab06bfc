//! `repair verify-state`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::open::LakeArg;
use crate::output::{Failure, count, print_json, print_lines};

/// Check that the journal, artifacts, staged units and repairs of a lake are what was written.
#[derive(Debug, Args)]
pub(crate) struct VerifyState {
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl VerifyState {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let report = self.lake.open(lake_before)?.verify_state().await?;
        if self.json {
            print_json(&report)?;
        } else {
            let objects = &report.objects;
            let read = objects.intact + objects.unsealed + objects.damaged.len() as u64;
            let mut lines = vec![format!(
                "read {} with {}, and {} of {} bytes",
                count(report.runs, "run"),
                count(report.events, "event"),
                count(read, "object"),
                objects.bytes
            )];
            if objects.unsealed > 0 {
                lines.push(format!("{} of an earlier version cannot be checked", count(objects.unsealed, "object")));
            }
            for damaged in &objects.damaged {
                lines.push(format!("damaged: {}: {}", damaged.place, damaged.what));
            }
            if report.is_intact() {
                lines.push("nothing is damaged".to_owned());
            }
            print_lines(&lines)?;
        }
        Ok(if report.is_intact() { Exit::Success } else { Exit::Failed })
    }
}
