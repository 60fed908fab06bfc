//! The commands, one file each: their arguments, and how their results look.

pub(crate) mod accuracy;
pub(crate) mod apply;
pub(crate) mod calendar;
pub(crate) mod compact;
pub(crate) mod compare;
pub(crate) mod costs;
pub(crate) mod doctor;
pub(crate) mod except;
pub(crate) mod export;
pub(crate) mod gaps;
pub(crate) mod help;
pub(crate) mod init;
pub(crate) mod notify;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod query;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod said;
pub(crate) mod schedule;
#[cfg(feature = "serve")]
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod undo;
pub(crate) mod view;
pub(crate) mod why;
pub(crate) mod workflow;

use std::path::PathBuf;

use clap::Args;
use repair::{OpenLake, Result, Within};

use crate::open::LakeArg;

/// Which table, and in which lake.
#[derive(Debug, Args)]
pub(crate) struct TableArg {
    /// The table, by its name in the workflow.
    table: String,
    /// The workflow that declares the table, or a file that workflows include [default: the workflow of the latest run which had it].
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// With --workflow: where the lake is, by its name under `profiles` [default: local, or the only one].
    #[arg(long, requires = "workflow")]
    profile: Option<String>,
    #[command(flatten)]
    lake: LakeArg,
}

impl TableArg {
    /// The table's name, the workflow that declares it, and the lake.
    fn open(self, lake_before: Option<PathBuf>) -> Result<(String, Option<PathBuf>, OpenLake)> {
        let Self { table, workflow, profile, lake } = self;
        let lake = match &workflow {
            Some(file) => lake.open_of(lake_before, file, profile.as_deref())?,
            None => lake.open(lake_before)?,
        };
        Ok((table, workflow, lake))
    }
}

/// A part of time.
#[derive(Debug, Args)]
pub(crate) struct IntervalArg {
    /// Only slots from here on: an instant, or a date, which is a day of the table's zone.
    #[arg(long, requires = "to")]
    from: Option<String>,
    /// Only slots before this instant, or up to the end of this date of the table's zone.
    #[arg(long, requires = "from")]
    to: Option<String>,
}

impl IntervalArg {
    /// What was asked for. Its dates are days of the table.
    fn within(&self) -> Within {
        self.from.as_deref().zip(self.to.as_deref()).into()
    }
}
