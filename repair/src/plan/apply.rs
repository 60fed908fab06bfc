//! Applies a plan: does what it says, or refuses if it is out of date.

use std::path::Path;

use serde_json::Value;

use super::{MAX_PLAN_BYTES, Plan, PlanRequest, Planner, changes, differences};
use crate::open::{Notice, Origin, Repair};
use crate::request::awaitable;
use crate::run::check_new_id;
use repair_core::engine::{RunReport, StartRequest};
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Hint, Result};

impl Plan {
    /// Reads a plan from a file.
    ///
    /// # Errors
    /// `not-found` or `denied` if the file cannot be read; as [`Plan::from_text`].
    pub fn read(path: &Path) -> Result<Self> {
        let unreadable = |error: std::io::Error| {
            let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Denied };
            Error::new(kind, format!("the plan {} cannot be read", path.display())).because(error).hint(Hint::PlanAgain)
        };
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > MAX_PLAN_BYTES {
            return Err(Error::invalid(format!("{} has {bytes} bytes, which is too many for a plan", path.display())));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::from_text(&text).map_err(|error| error.on("plan", path.display()))
    }

    /// The workflow as it was planned.
    ///
    /// # Errors
    /// `invalid` if the registry does not have what the workflow was planned with.
    pub(crate) fn workflow(&self, registry: &Registry) -> Result<Workflow> {
        let definition = &self.definition;
        Workflow::parse_with(&definition.file, &definition.text, registry, &definition.children).map_err(|diagnostics| {
            Error::invalid("this program cannot run the workflow that was planned").because(diagnostics).hint(Hint::PlanAgain)
        })
    }
}

/// Applies a plan: await it to run what was planned to its end. [`Repair::apply`] makes it.
#[must_use = "a plan is applied when this is awaited"]
pub struct ApplyRequest<'a> {
    repair: &'a Repair,
    plan: &'a Plan,
    id: Option<String>,
    anyway: bool,
}

impl ApplyRequest<'_> {
    /// Gives the run an id. Without this it gets one that follows from the plan, so that a plan that is applied twice is one run.
    pub fn id<'b>(mut self, id: impl Into<Option<&'b str>>) -> Self {
        self.id = id.into().map(str::to_owned);
        self
    }

    /// Begins although a budget cannot be met: the run does what the budget allows, and ends as over budget.
    pub fn anyway(mut self, anyway: bool) -> Self {
        self.anyway = anyway;
        self
    }

    async fn perform(self) -> Result<RunReport> {
        let Self { repair, plan, id, anyway } = self;
        check_new_id(id.as_deref())?;
        let registry = &repair.around().registry;
        let planned = plan.workflow(registry)?;
        if repair.environment != plan.environment {
            let message = format!("the plan is for {}, but this is {}", plan.environment, repair.environment);
            return Err(out_of_date(message));
        }
        let run = id.unwrap_or_else(|| plan.run_id());
        if let Some(begun) = repair.lake().environment_of(&run).await? {
            if begun.get("plan").and_then(Value::as_str) != Some(plan.digest.as_str()) {
                let message = format!("run `{run}` exists, and does not belong to this plan");
                return Err(Error::new(ErrorKind::Conflict, message).hint(Hint::OtherRunId));
            }
            repair.around().notice(Notice::AppliedBefore { run: run.clone() });
        } else {
            unchanged(plan, &planned, repair)?;
            if plan.is_over_budget() && !anyway {
                let why: Vec<&str> = plan.budgets.iter().map(|budget| budget.why.as_str()).collect();
                let message = format!("the plan cannot meet a budget ({}); nothing was begun", why.join("; "));
                return Err(Error::new(ErrorKind::Budget, message).hint(Hint::Anyway));
            }
            same_findings(plan, &planned, repair).await?;
        }
        let mut environment = plan.environment.clone();
        if let Some(environment) = environment.as_object_mut() {
            environment.insert("plan".to_owned(), Value::from(plan.digest.clone()));
        }
        let engine = repair.engine().await?;
        engine
            .start(&planned, StartRequest::new(run).with_params(plan.params.clone()).with_now(plan.now).with_environment(environment))
            .await
    }
}

awaitable!(ApplyRequest => RunReport);

impl Repair {
    /// What makes plans here.
    fn planner(&self) -> Planner {
        let around = self.around();
        Planner {
            registry: around.registry.clone(),
            lake: self.opened.clone(),
            lakes: self.lakes.clone(),
            clock: around.clock.clone(),
            progress: around.observer(),
            stop: around.stop.clone(),
        }
    }

    /// Reports what is broken, and what repairing it would take. Nothing is written, and no source is asked.
    ///
    /// # Errors
    /// As [`Planner::plan`].
    ///
    /// ```no_run
    /// # async fn example(repair: repair::Repair) -> repair::Result<()> {
    /// let plan = repair.plan().await?;
    /// println!("{} slots are missing; at most {} calls", plan.missing(), plan.total.high.calls);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn plan(&self) -> Result<Plan> {
        let request = PlanRequest {
            params: self.params.clone(),
            now: self.now,
            environment: self.environment.clone(),
            lake: self.named_lake.clone(),
            prices: self.prices.clone(),
        };
        self.planner().plan(&self.workflow, request).await
    }

    /// Does what a plan says, or refuses if it is out of date. Nothing is written by a refusal.
    ///
    /// # Errors
    /// `conflict` with [`Hint::PlanAgain`] if the workflow has changed since, or other slots are missing than when it was planned;
    /// `budget` with [`Hint::Anyway`] if the plan cannot meet a budget; `conflict` with [`Hint::OtherRunId`] if the id is taken; otherwise as
    /// [`Repair::run`].
    pub fn apply<'a>(&'a self, plan: &'a Plan) -> ApplyRequest<'a> {
        ApplyRequest { repair: self, plan, id: None, anyway: false }
    }
}

fn out_of_date(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message).hint(Hint::PlanAgain)
}

/// Refuses if the workflow means something else now.
fn unchanged(plan: &Plan, planned: &Workflow, repair: &Repair) -> Result<()> {
    let definition = &plan.definition;
    let now = match repair.origin {
        Origin::Value => repair.workflow.clone(),
        Origin::File => {
            let prices = definition.prices.as_deref().map(Path::new);
            Workflow::load_with_prices(Path::new(&definition.file), &repair.around().registry, prices).map_err(|diagnostics| {
                let message = format!("it cannot be checked whether {} still means what was planned", definition.file);
                Error::invalid(message).because(diagnostics)
            })?
        }
    };
    let different = differences(planned, &now);
    if different.is_empty() {
        return Ok(());
    }
    Err(out_of_date(format!(
        "{} means something else than when it was planned: {}; nothing was begun",
        definition.file,
        different.join("; ")
    )))
}

/// Refuses if detection would find something else than when the plan was made. Rows are read only if a listing shows a change, or if time may
/// have changed something.
async fn same_findings(plan: &Plan, planned: &Workflow, repair: &Repair) -> Result<()> {
    let mut touched: Vec<String> = Vec::new();
    for of in plan.looks.iter().flat_map(|look| &look.extents) {
        let missing = || Error::invalid(format!("the plan's workflow has no table `{}`", of.table));
        let table = planned.tables.get(&of.table).ok_or_else(missing)?;
        let now = repair.opened.extent(table, of.interval.as_ref()).await?;
        if now.digest != of.extent.digest && !touched.contains(&of.table) {
            touched.push(of.table.clone());
        }
    }
    if touched.is_empty() && !plan.must_look_again() {
        return Ok(());
    }
    let request =
        PlanRequest { params: plan.params.clone(), now: plan.now, environment: plan.environment.clone(), ..PlanRequest::default() };
    let now = repair.planner().plan(planned, request).await?;
    let different = plan.changes(&now);
    if different.is_empty() {
        if !touched.is_empty() {
            repair.around().notice(Notice::TablesChanged(touched));
        }
        return Ok(());
    }
    Err(out_of_date(format!("the lake has changed since the plan was made ({}); nothing was begun", different.join("; "))))
}

impl Plan {
    /// What this plan and a later one of the same workflow find differently, in words.
    fn changes(&self, now: &Self) -> Vec<String> {
        let mut different: Vec<String> = Vec::new();
        for (before, now) in self.looks.iter().zip(&now.looks) {
            different.extend(changes(before, now).into_iter().map(|what| format!("step {}: {what}", before.step)));
        }
        if !different.is_empty() {
            return different;
        }
        let strategies = |plan: &Self| {
            let of = |repair: &super::RepairPlan| {
                let strategies = repair.strategies.iter();
                strategies.map(|strategy| (repair.step.clone(), strategy.clone())).collect::<Vec<_>>()
            };
            plan.repairs.iter().flat_map(of).collect::<Vec<_>>()
        };
        for ((step, before), (_, now)) in strategies(self).into_iter().zip(strategies(now)) {
            if (before.units, before.slots) != (now.units, now.slots) {
                different.push(format!(
                    "step {step}, {}: {} units of {} slots, but {} units of {} slots were planned",
                    before.name, now.units, now.slots, before.units, before.slots
                ));
            }
        }
        different
    }
}
