//! The commands, one file each where it is more than a few lines.

pub(crate) mod accuracy;
pub(crate) mod apply;
pub(crate) mod calendar;
pub(crate) mod compare;
pub(crate) mod costs;
pub(crate) mod except;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod show;
mod subject;
pub(crate) mod undo;
pub(crate) mod why;

use std::path::Path;
use std::process::ExitCode;

use repair_core::workflow::{Workflow, schema as schema_of, to_dot, to_mermaid};

use crate::output::{Failure, count, print, print_json};
use crate::{GraphFormat, session};

/// `repair validate`
pub(crate) fn validate(file: &Path, prices: Option<&Path>) -> Result<ExitCode, Failure> {
    let workflow = Workflow::load_with_prices(file, &session::registry(), prices)?;
    let steps = count(workflow.steps.len() as u64, "step");
    print(&format!("{}: workflow `{}` with {steps} is sound", file.display(), workflow.name))?;
    Ok(ExitCode::SUCCESS)
}

/// `repair graph`
pub(crate) fn graph(file: &Path, format: GraphFormat) -> Result<ExitCode, Failure> {
    let workflow = Workflow::load(file, &session::registry())?;
    print(&match format {
        GraphFormat::Mermaid => to_mermaid(&workflow),
        GraphFormat::Dot => to_dot(&workflow),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `repair schema`
pub(crate) fn schema() -> Result<ExitCode, Failure> {
    print_json(&schema_of(&session::registry()))?;
    Ok(ExitCode::SUCCESS)
}
