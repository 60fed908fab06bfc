//! `repair apply`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use repair::plan::{MAX_PLAN_BYTES, Plan, PlanRequest, Planner, changes, differences};
use repair_core::engine::StartRequest;
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::run::{finish, run_id};
use crate::output::{Failure, tell};
use crate::session::{Drive, LakeArg, Place, engine, environment_of, planner, registry};

/// Do what a plan says, or refuse if it does not hold any more.
///
/// Refused, with exit code 6 and before anything is written, if the workflow means something else by now, or if other slots are missing than
/// when it was planned. To apply a plan again is to be told of the same run.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The plan, as `repair plan -o` wrote it.
    plan: PathBuf,
    /// The run's id [default: one that follows from the plan].
    #[arg(long, visible_alias = "run", value_name = "ID", value_parser = run_id)]
    run_id: Option<String>,
    /// Begin although a budget cannot be met: the run does what it allows, and ends as over budget.
    #[arg(long)]
    anyway: bool,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Apply {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let plan = read(&self.plan)?;
        let registry = Arc::new(registry());
        let workflow = planned(&plan, &registry)?;
        let lake = self.lake.or(lake_before).or_else(|| plan.lake.as_ref().map(PathBuf::from));
        let profile = plan.environment.get("profile").and_then(Value::as_str);
        let place = Place::of(&workflow, profile, lake.as_deref(), &plan.params)?;
        if place.environment() != plan.environment {
            let message = format!("the plan is for {}, and this is {}; plan again", plan.environment, place.environment());
            return Err(Failure::Outdated(message));
        }
        let run = self.run_id.unwrap_or_else(|| plan.run_id());
        if let Some(begun) = environment_of(place.root(), &run).await? {
            if begun.get("plan").and_then(Value::as_str) != Some(plan.digest.as_str()) {
                let message = format!("run `{run}` exists, and is not of this plan; use another --run-id");
                return Err(Error::new(ErrorKind::Conflict, message).into());
            }
            tell(&format!("the plan was applied before, as run {run}"));
        } else {
            unchanged(&plan, &registry)?;
            if plan.is_over_budget() && !self.anyway {
                let why: Vec<&str> = plan.budgets.iter().map(|budget| budget.why.as_str()).collect();
                let message = format!(
                    "a budget cannot be met, as the plan says ({}); nothing was begun. Raise it and plan again, or do what it allows with --anyway",
                    why.join("; ")
                );
                return Err(Failure::OverBudget(message));
            }
            holds(&plan, &workflow, &planner(place.root(), registry.clone()).await?).await?;
        }
        let mut environment = plan.environment.clone();
        if let Some(environment) = environment.as_object_mut() {
            environment.insert("plan".to_owned(), Value::from(plan.digest.clone()));
        }
        let engine = engine(Drive::New(&workflow, &plan.params), place.root(), registry).await?;
        let done = engine.start(&workflow, StartRequest { run, params: plan.params, environment }).await?;
        finish(&done, self.json)
    }
}

fn read(path: &Path) -> Result<Plan> {
    let unreadable = |error: std::io::Error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Denied };
        Error::new(kind, format!("the plan {} can't be read; make one with `repair plan FILE -o {}`", path.display(), path.display()))
            .because(error)
    };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_PLAN_BYTES {
        return Err(Error::invalid(format!("{} has {bytes} bytes, too many for a plan", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Plan::from_text(&text).map_err(|error| error.on("plan", path.display()))
}

/// The workflow as it was planned: the run goes by it to the letter.
fn planned(plan: &Plan, registry: &Registry) -> Result<Workflow, Failure> {
    let definition = &plan.definition;
    let workflow = Workflow::parse_with(&definition.file, &definition.text, registry, &definition.children);
    Ok(workflow
        .map_err(|diagnostics| Error::invalid("this program can't run what was planned; plan again with it").because(diagnostics))?)
}

/// Refuses if the workflow's file means something else by now.
fn unchanged(plan: &Plan, registry: &Registry) -> Result<(), Failure> {
    let definition = &plan.definition;
    let now = Workflow::load_with_prices(Path::new(&definition.file), registry, definition.prices.as_deref().map(Path::new));
    let now = now.map_err(|diagnostics| {
        let message = format!("whether {} means what it meant when it was planned can't be told", definition.file);
        Failure::from(Error::invalid(message).because(diagnostics))
    })?;
    let different = differences(&planned(plan, registry)?, &now);
    if different.is_empty() {
        return Ok(());
    }
    Err(Failure::Outdated(format!(
        "{} means something else than when it was planned: {}; nothing was begun. Plan again",
        definition.file,
        different.join("; ")
    )))
}

/// Refuses if what was found when the plan was made is not what would be found now. Rows are read only if a listing tells of a change, or if time
/// may have changed something.
async fn holds(plan: &Plan, workflow: &Workflow, planner: &Planner) -> Result<(), Failure> {
    let mut touched: Vec<&str> = Vec::new();
    for of in plan.looks.iter().flat_map(|look| &look.extents) {
        let table =
            workflow.tables.get(&of.table).ok_or_else(|| Error::invalid(format!("the plan's workflow has no table `{}`", of.table)))?;
        let now = planner.lake.extent(table, of.interval.as_ref()).await?;
        if now.digest != of.extent.digest && !touched.contains(&of.table.as_str()) {
            touched.push(&of.table);
        }
    }
    if touched.is_empty() && !plan.must_look_again() {
        return Ok(());
    }
    let request = PlanRequest { params: plan.params.clone(), environment: plan.environment.clone(), ..PlanRequest::default() };
    let now = planner.plan(workflow, request).await?;
    let mut different: Vec<String> = Vec::new();
    for (before, now) in plan.looks.iter().zip(&now.looks) {
        different.extend(changes(before, now).into_iter().map(|what| format!("step {}: {what}", before.step)));
    }
    let work = |plan: &Plan| -> Vec<(String, String, u64, u64)> {
        let of = |repair: &repair::plan::RepairPlan| {
            let step = repair.step.clone();
            let strategies = repair.strategies.iter();
            strategies.map(|of| (step.clone(), of.name.clone(), of.units, of.slots)).collect::<Vec<_>>()
        };
        plan.repairs.iter().flat_map(of).collect()
    };
    if different.is_empty() {
        for ((step, name, units, slots), now) in work(plan).into_iter().zip(work(&now)) {
            if (units, slots) != (now.2, now.3) {
                different.push(format!("step {step}, {name}: {} units of {} slots, and {units} of {slots} were planned", now.2, now.3));
            }
        }
    }
    if different.is_empty() {
        if !touched.is_empty() {
            tell(&format!("table {} has changed since the plan was made, but the same slots are missing", touched.join(", ")));
        }
        return Ok(());
    }
    Err(Failure::Outdated(format!(
        "the lake is not as it was when the plan was made:\n  {}\nnothing was begun. Plan again",
        different.join("\n  ")
    )))
}
