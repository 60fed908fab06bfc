//! Gathers what a report says: from the journal, the presence of tables, their overlays, artifacts and the ledger. It knows no HTML.

pub(crate) mod completeness;
mod held;
mod history;
mod listings;
mod rows;
mod unexamined;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use self::completeness::{Examined, Found, last_expected};
use self::history::History;
use self::listings::{Collector, Part, add_defects, defects, exceptions, fixes};
use super::ReportRequest;
use super::model::{CandleChart, Defect, Exception, Fix, Numbers, Report, Subject, TableReport};
use super::picture::markup::{count, grouped, visible};
use crate::family::family;
use crate::ledger::Costs;
use crate::open::OpenLake;
use crate::status::TableStatus;
use repair_core::engine::{JsonFormat, Outcome, RunReport, child_run_id, gaps_of, load};
use repair_core::lake::overlay::live::LiveRepairs;
use repair_core::lake::overlay::versions::LOOKBACKS;
use repair_core::lake::{Lake, stale};
use repair_core::model::{Calendar, DefectKind, Format, Interval, Key, Scope, Table};
use repair_core::plugin::{Drawing, PluginKind};
use repair_core::workflow::{StepKind, Workflow};
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Result};

/// Only this many of the latest runs are searched for one that examined a table: each is read as a whole.
const MOST_RUNS: usize = 500;
/// How many tables have pictures.
const MOST_TABLES: usize = 12;
/// How long before a run others count for what the pipeline itself costs.
const PIPELINE_DAYS: i64 = 31;
/// How many runs of the items of a map a report names.
const ITEM_RUNS: usize = 5;

impl ReportRequest<'_> {
    pub(super) async fn perform(self) -> Result<Report> {
        let journal = self.open.journal().await?;
        let heads = journal.runs().await?;
        if heads.iter().any(|head| head.run == self.subject) {
            let history = History::of(self.open, &self.subject).await?;
            return Gathering::of(&self, self.subject.clone(), history).await?.on_run().await;
        }
        let mut latest = heads;
        latest.sort_by_key(|head| std::cmp::Reverse(head.first.at));
        let mut known: BTreeSet<String> = latest.iter().map(|head| head.run.clone()).collect();
        for head in latest.iter().take(MOST_RUNS) {
            let state = load(journal.as_ref(), &head.run).await?;
            if state.findings.values().any(|findings| findings.scope.table == self.subject) {
                let history = History::of(self.open, &head.run).await?;
                return Gathering::of(&self, head.run.clone(), history).await?.on_table(&self.subject).await;
            }
            known.extend(state.findings.into_values().map(|findings| findings.scope.table));
        }
        let close = closest(&self.subject, known.iter().map(String::as_str)).map(|close| format!("; did you mean `{close}`?"));
        let message =
            format!("`{}` is neither a run in this lake nor a table that a run has examined{}", self.subject, close.unwrap_or_default());
        Err(Error::new(ErrorKind::NotFound, message))
    }
}

/// Everything that the parts of a report need.
struct Gathering<'a> {
    open: &'a OpenLake,
    request: &'a ReportRequest<'a>,
    run: String,
    history: History,
    workflow: Option<Workflow>,
    lake: Arc<dyn Lake>,
    calendars: BTreeMap<String, Arc<dyn Calendar>>,
    made_at: Timestamp,
    notes: Vec<String>,
}

/// Detect steps that examined the same.
struct Group {
    run: String,
    scope: Scope,
    found: Vec<Found>,
}

impl<'a> Gathering<'a> {
    async fn of(request: &'a ReportRequest<'a>, run: String, history: History) -> Result<Self> {
        let open = request.open;
        let journal = open.journal().await?;
        let lake = open.lake_of(Some((journal.as_ref(), &run))).await?;
        let mut notes = Vec::new();
        let workflow = match open.workflow_of(&history.state) {
            Ok(workflow) => Some(workflow),
            Err(error) => {
                notes.push(format!("The workflow of the run is not shown, nor the tables that it declares: {}", error.full()));
                None
            }
        };
        let mut calendars = open.around.registry.calendars().clone();
        let own = workflow.iter().flat_map(|workflow| &workflow.calendars);
        calendars.extend(own.map(|(name, calendar)| (name.clone(), Arc::clone(calendar))));
        Ok(Self { open, request, run, history, workflow, lake, calendars, made_at: open.around.clock.now(), notes })
    }

    /// The report on the run.
    async fn on_run(mut self) -> Result<Report> {
        let state = &self.history.state;
        let ended_at = state.ended.as_ref().map(|ended| ended.at);
        let (as_of, done) = (ended_at.unwrap_or(state.updated_at), RunReport::new(&self.run, state));
        let subject = Subject::Run {
            run: self.run.clone(),
            workflow: state.started.workflow.clone(),
            started_at: state.started.at,
            ended_at,
            outcome: done.outcome,
        };
        let mut groups = self.groups(None).await;
        let mut tables = self.tables(&mut groups, as_of).await;
        let candles = self.candles(&tables).await;
        let mut lists = self.lists();
        let within = self.within().await?;
        let runs: BTreeSet<String> = within.iter().cloned().chain([self.run.clone()]).collect();
        self.list(&mut groups, Some(&runs), &mut lists).await?;
        for run in within {
            let history = History::of(self.open, &run).await?;
            let mut inner = Gathering::of(self.request, run, history).await?;
            let mut of_run = inner.groups(None).await;
            tables.extend(inner.tables(&mut of_run, as_of).await);
            inner.list(&mut of_run, Some(&runs), &mut lists).await?;
            groups.append(&mut of_run);
            self.notes.extend(inner.notes.into_iter().filter(|note| !self.notes.contains(note)).collect::<Vec<_>>());
        }
        if tables.len() > MOST_TABLES {
            self.notes.push(format!("Only {MOST_TABLES} of the {} searches of the run and those within it have pictures.", tables.len()));
            tables.truncate(MOST_TABLES);
        }
        self.note_runs_of_steps();
        self.note_items();
        let (costs, lake_costs) = self.costs().await?;
        let numbers = self.numbers(&groups, &costs, done.missing);
        let sentence = sentence_of_run(&groups, &numbers, &done);
        let mut report = self.finish(lists)?;
        report.left = left(&done);
        report.graph = self.workflow.as_ref().map(|workflow| self.history.graph(workflow));
        report.timeline = Some(self.history.timeline());
        Ok(Report {
            subject,
            sentence,
            numbers,
            tables,
            candles,
            costs: Some(costs),
            lake_costs,
            notes: self.notes,
            made_at: self.made_at,
            ..report
        })
    }

    /// The report on a table, as the run last examined it.
    async fn on_table(mut self, table: &str) -> Result<Report> {
        let state = &self.history.state;
        let subject = Subject::Table { table: table.to_owned(), run: Some(self.run.clone()), workflow: state.started.workflow.clone() };
        let mut groups = self.groups(Some(table)).await;
        let tables = self.tables(&mut groups, self.made_at).await;
        let candles = Vec::new();
        let numbers = numbers_now(&tables);
        let sentence = sentence_of_table(table, &tables, &numbers);
        let status = self.status(table).await;
        let mut lists = self.lists();
        self.list(&mut groups, None, &mut lists).await?;
        let report = self.finish(lists)?;
        Ok(Report { subject, sentence, numbers, tables, status, candles, notes: self.notes, made_at: self.made_at, ..report })
    }

    /// The status of a table's slots, as all runs last saw them.
    async fn status(&mut self, table: &str) -> Option<TableStatus> {
        match self.open.status().table(table).await {
            Ok(status) => status.tables.into_iter().find(|of| of.days.is_some()),
            Err(error) => {
                self.notes.push(format!("The status of table {table} by day cannot be shown: {}", error.full()));
                None
            }
        }
    }

    /// What detect steps found, by what they examined.
    async fn groups(&mut self, only: Option<&str>) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let first: Vec<_> = self.history.first.iter().map(|(step, findings)| (step.clone(), findings.clone())).collect();
        for (step, findings) in first {
            if only.is_some_and(|table| findings.scope.table != table) {
                continue;
            }
            let gaps = match gaps_of(self.lake.as_ref(), &self.run, &findings.artifact).await {
                Ok(gaps) => gaps,
                Err(error) => {
                    self.notes.push(format!("The defects that step {step} found cannot be listed: {}", error.full()));
                    Default::default()
                }
            };
            let scope = findings.scope.clone();
            let found = Found::new(step, findings, gaps);
            match groups.iter_mut().find(|group| group.scope == scope) {
                Some(group) => group.found.push(found),
                None => groups.push(Group { run: self.run.clone(), scope, found: vec![found] }),
            }
        }
        groups
    }

    /// Pictures of the tables that were examined. What cannot be looked at is noted.
    async fn tables(&mut self, groups: &mut [Group], as_of: Timestamp) -> Vec<TableReport> {
        let mut tables = Vec::new();
        if groups.len() > MOST_TABLES {
            self.notes.push(format!("Only {MOST_TABLES} of the {} searches of the run have pictures.", groups.len()));
        }
        for group in groups.iter_mut().take(MOST_TABLES) {
            let name = group.scope.table.clone();
            if group.scope.grid.is_instants() {
                self.notes.push(format!("Table {name} has no slots, so nothing says how complete it is; its defects are listed."));
                if let Err(error) = self.repaired_rows(group).await {
                    self.notes.push(format!("What was repaired of the defects of table {name} is not counted: {}", error.full()));
                }
                continue;
            }
            match self.table(group, as_of).await {
                Ok(table) => tables.push(table),
                Err(error) => self.notes.push(format!("How complete table {name} is cannot be shown: {}", error.full())),
            }
        }
        tables
    }

    /// Counts which defects of a table without slots are repaired.
    async fn repaired_rows(&self, group: &mut Group) -> Result<()> {
        let Some(table) = self.workflow.as_ref().and_then(|workflow| workflow.tables.get(&group.scope.table)) else { return Ok(()) };
        let identity = table.identity();
        let around = identity.widened(&group.scope.interval, LOOKBACKS);
        let live = LiveRepairs::of_all(self.lake.as_ref(), table, around, None, &[]).await?;
        group.found.iter_mut().for_each(|found| found.repaired_rows(identity, &live));
        Ok(())
    }

    async fn table(&self, group: &mut Group, as_of: Timestamp) -> Result<TableReport> {
        let name = &group.scope.table;
        let declared = self.workflow.as_ref().and_then(|workflow| workflow.tables.get(name));
        let table = declared.ok_or_else(|| Error::invalid(format!("the workflow of the run declares no table `{name}`")))?;
        let step = group.found.first().map(|found| found.step.clone()).unwrap_or_default();
        let examined = Examined {
            lake: self.lake.as_ref(),
            table,
            step: &step,
            scope: &group.scope,
            last: last_expected(table, self.history.state.started.now),
            as_of,
            calendars: &self.calendars,
        };
        let mut found: Vec<&mut Found> = group.found.iter_mut().collect();
        let mut report = examined.look(&mut found).await?;
        report.series = rows::series(&examined, &report, self.drawing(&step).as_ref()).await?;
        Ok(report)
    }

    /// How the table of a step is drawn, according to its plug-in.
    fn drawing(&self, step: &str) -> Option<Drawing> {
        let kind = &self.workflow.as_ref()?.step(step)?.kind;
        let (kind, plugin) = match kind {
            StepKind::Detect { plugin, .. } => (PluginKind::Detector, plugin),
            StepKind::Aggregate { plugin, .. } => (PluginKind::Aggregator, plugin),
            _ => return None,
        };
        self.open.around.registry.get(kind, plugin)?.drawing.clone()
    }

    /// What aggregate steps wrote that is drawn as candles.
    async fn candles(&mut self, tables: &[TableReport]) -> Vec<CandleChart> {
        let mut charts = Vec::new();
        let Some(of) = tables.first() else { return charts };
        let written: Vec<_> =
            self.history.state.steps.iter().filter_map(|(name, step)| Some((name, stale::written(&step.output)?))).collect();
        let mut notes = Vec::new();
        for (step, into) in written {
            let Some(drawing) = self.drawing(step) else { continue };
            let tables = self.workflow.as_ref().map(|workflow| &workflow.tables);
            let declared = |name: &str| tables.and_then(|tables| tables.get(name));
            let into = match (declared(&into.name), &drawing) {
                (Some(declared), _) => declared.clone(),
                // The step has made the table, with the key columns of the one that was examined.
                (None, Drawing::Candles { time, .. }) => {
                    let key = declared(&of.table).map(|table| table.key.clone()).unwrap_or_default();
                    Table::new(into.name, Format::Parquet, time).with_location(into.location).with_key(key)
                }
                (None, _) => continue,
            };
            match rows::candles(self.lake.as_ref(), &into, step, &drawing, of).await {
                Ok(chart) => charts.extend(chart),
                Err(error) => notes.push(format!("The candles of table {} cannot be drawn: {}", into.name, error.full())),
            }
        }
        self.notes.append(&mut notes);
        charts
    }

    /// What workflows did that the run ran as steps is in the reports on their runs.
    fn note_runs_of_steps(&mut self) {
        let Some(workflow) = &self.workflow else { return };
        for step in workflow.steps.iter().filter(|step| matches!(step.kind, StepKind::Workflow { .. })) {
            let visits = self.history.state.steps.get(&step.name).map_or(0, |state| state.visits);
            if visits > 0 {
                let child = child_run_id(&self.run, &step.name, visits);
                self.notes
                    .push(format!("Step {} ran a workflow, as run {child}. A report on that run has its steps and times.", step.name));
            }
        }
    }

    /// What the steps within a map did is in the reports on their runs.
    fn note_items(&mut self) {
        for (name, step) in &self.history.state.steps {
            let Some(map) = step.map.as_ref().filter(|map| !map.is_empty()) else { continue };
            let failed = map.failures().count();
            let (items, failed) = (map.len(), if failed > 0 { format!(", of which {failed} failed") } else { String::new() });
            let shown: Vec<&str> = map.ended.values().take(ITEM_RUNS).map(|result| result.run.as_str()).collect();
            let more = map.ended.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            self.notes.push(format!(
                "Step {name} ran for {items} items{failed}. Reports on their runs have the steps and times of each: {}{more}.",
                shown.join(", ")
            ));
        }
    }

    /// The costs of the run, and of all runs of the month before it.
    async fn costs(&self) -> Result<(Costs, Option<Costs>)> {
        let prices = self.request.prices.clone();
        let own = self.open.costs().runs([&self.run]).group_by(["strategy"]).prices(prices.clone()).await?;
        let since = self.history.state.started.at.checked_sub(SignedDuration::from_hours(24 * PIPELINE_DAYS)).ok();
        let all = self.open.costs().since(since).group_by(["component", "workflow"]).prices(prices).await?;
        let has_pipeline = all.infrastructure().is_some();
        Ok((own, has_pipeline.then_some(all)))
    }

    fn numbers(&self, groups: &[Group], costs: &Costs, left: u64) -> Numbers {
        let mut expected: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        let mut found = 0;
        for (run, of) in groups.iter().flat_map(|group| group.found.iter().map(|found| (&group.run, found))) {
            let counts = &of.findings.counts;
            let table = expected.entry(&of.findings.scope.table).or_default().entry(run).or_default();
            *table = counts.expected.max(*table);
            if of.findings.kind != DefectKind::Stale {
                found += of.findings.wrong();
            }
        }
        // The runs within it have a part each, and what they share with the run itself is expected once.
        let of_table = |mut runs: BTreeMap<&str, u64>| {
            let own = runs.remove(self.run.as_str()).unwrap_or_default();
            own.max(runs.into_values().sum())
        };
        let expected = expected.into_values().map(of_table).sum();
        Numbers { expected, found, repaired: costs.total.rows_repaired, absent: costs.total.slots_absent, left }
    }

    /// The runs within the run, of the latest visits of its steps.
    async fn within(&self) -> Result<Vec<String>> {
        let members = family(self.open.journal().await?.as_ref(), &self.run, self.made_at).await?;
        Ok(members.into_iter().skip(1).filter(|member| member.is_latest).map(|member| member.run).collect())
    }

    fn lists(&self) -> Lists {
        let page: Option<&Path> = self.request.beside.as_deref();
        Lists { defects: defects(page), fixes: fixes(page), exceptions: exceptions(page) }
    }

    /// A report with the listings, and nothing else.
    fn finish(&self, lists: Lists) -> Result<Report> {
        let Lists { defects, fixes, exceptions } = lists;
        Ok(Report { defects: defects.finish()?, fixes: fixes.finish()?, exceptions: exceptions.finish()?, ..empty(self.made_at)? })
    }

    /// Lists what was found and done: by all runs, or by this one, if the report is about these runs.
    async fn list(&mut self, groups: &mut [Group], runs: Option<&BTreeSet<String>>, lists: &mut Lists) -> Result<()> {
        let none = BTreeSet::new();
        let mut hulls: BTreeMap<String, Interval> = BTreeMap::new();
        for group in groups.iter() {
            let hull = hulls.entry(group.scope.table.clone()).or_insert(group.scope.interval);
            *hull = hull.hull(&group.scope.interval);
        }
        for (name, interval) in hulls {
            let Some(table) = self.workflow.as_ref().and_then(|workflow| workflow.tables.get(&name)) else { continue };
            let mut of_table: Vec<&mut Found> =
                groups.iter_mut().filter(|group| group.scope.table == name).flat_map(|group| &mut group.found).collect();
            let mut patched = |key: &Key, slot: i64| of_table.iter_mut().for_each(|found| found.patched(key, slot));
            let part =
                Part { lake: self.lake.as_ref(), table, interval, run: runs.map(|_| self.run.as_str()), beside: runs.unwrap_or(&none) };
            let others = match part.fixes(&mut lists.fixes, &mut patched).await {
                Ok(rows) => part.exceptions(&mut lists.exceptions).await.map(|absent| (rows, absent)),
                Err(error) => Err(error),
            };
            match others {
                Ok((0, 0)) => {}
                Ok((rows, absent)) => self.notes.push(format!(
                    "Other runs added {rows} repaired rows and {absent} confirmed absences to table {name} here. They are in its pictures, and \
                     not in the lists."
                )),
                Err(error) => self.notes.push(format!("What was repaired in table {name} cannot be listed: {}", error.full())),
            }
        }
        groups.iter().flat_map(|group| &group.found).try_for_each(|found| add_defects(&mut lists.defects, found))
    }
}

/// The listings of a report, while they are collected.
struct Lists {
    defects: Collector<Defect>,
    fixes: Collector<Fix>,
    exceptions: Collector<Exception>,
}

/// A report that says nothing.
fn empty(made_at: Timestamp) -> Result<Report> {
    Ok(Report {
        format: JsonFormat,
        subject: Subject::Table { table: String::new(), run: None, workflow: String::new() },
        made_at,
        sentence: String::new(),
        numbers: Numbers::default(),
        tables: Vec::new(),
        held: Vec::new(),
        status: None,
        candles: Vec::new(),
        graph: None,
        timeline: None,
        defects: defects(None).finish()?,
        fixes: fixes(None).finish()?,
        exceptions: exceptions(None).finish()?,
        costs: None,
        lake_costs: None,
        left: Vec::new(),
        notes: Vec::new(),
    })
}

/// The numbers of tables as they are now.
fn numbers_now(tables: &[TableReport]) -> Numbers {
    let mut numbers = Numbers::default();
    for table in tables {
        let total = &table.total;
        numbers.expected += total.expected;
        numbers.found += total.expected - total.own;
        numbers.repaired += total.repaired;
        numbers.absent += total.absent;
        numbers.left += total.missing;
    }
    numbers
}

/// What is left after a run, and why.
fn left(done: &RunReport) -> Vec<String> {
    // The reason sums up the problems, if there are any.
    let mut left = done.problems.clone();
    if left.is_empty() {
        left.extend(done.reason.clone());
    }
    left
}

fn sentence_of_run(groups: &[Group], numbers: &Numbers, done: &RunReport) -> String {
    let tables: BTreeSet<&str> = groups.iter().map(|group| group.scope.table.as_str()).collect();
    let tables = match tables.len() {
        0 => String::new(),
        1 => format!(" of table {}", tables.iter().copied().collect::<String>()),
        many => format!(" of {many} tables"),
    };
    // A detector of other defects counts missing rows, but does not look for them.
    let mut unsought: BTreeMap<&str, u64> = BTreeMap::new();
    for of in groups.iter().flat_map(|group| &group.found) {
        let missing = unsought.entry(&of.findings.scope.table).or_default();
        *missing = of.findings.counts.missing.max(*missing);
    }
    let seeks =
        |table: &str| groups.iter().any(|group| group.scope.table == table && group.found.iter().any(|of| of.findings.kind.is_missing()));
    unsought.retain(|table, missing| *missing > 0 && !seeks(table));
    let unsought: u64 = unsought.values().sum();
    let wrong =
        if groups.iter().flat_map(|group| &group.found).any(|of| of.findings.kind.is_missing()) { "missing or wrong" } else { "wrong" };
    let reason = done.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let are = |number: u64| if number == 1 { "is" } else { "are" };
    let were = |number: u64| if number == 1 { "was" } else { "were" };
    let looked = if groups.is_empty() {
        "no table was examined".to_owned()
    } else {
        let mut text = format!(
            "of {}{tables}, {} {} {wrong}; {} {} repaired, {} {} confirmed absent",
            count(numbers.expected, "expected slot"),
            grouped(numbers.found),
            were(numbers.found),
            grouped(numbers.repaired),
            were(numbers.repaired),
            grouped(numbers.absent),
            were(numbers.absent),
        );
        if numbers.found == 0 && numbers.left == 0 {
            text = format!("of {}{tables}, nothing was {wrong}", count(numbers.expected, "expected slot"));
        } else if numbers.left == 0 {
            text.push_str(", and nothing is left");
        } else {
            text.push_str(&format!(", and {} {} still {wrong}", grouped(numbers.left), are(numbers.left)));
        }
        if unsought > 0 {
            text.push_str(&format!("; {} without a row, for which no step looked", count(unsought, "slot")));
        }
        text
    };
    // It is printed on terminals too.
    let reason = visible(&reason);
    let looked = visible(&looked);
    match done.outcome {
        Some(Outcome::Blind) => format!("The run was blind{reason}. What it could not look at may be incomplete; {looked}."),
        Some(Outcome::Failed) => format!("The run failed{reason}. Until then, {looked}."),
        Some(Outcome::Cancelled) => format!("The run was cancelled. Until then, {looked}."),
        Some(Outcome::OverBudget) => format!("The run stopped at its budget{reason}. Until then, {looked}."),
        None => format!("The run has not ended{reason}. So far, {looked}."),
        Some(_) => format!("{}.", capitalized(&looked)),
    }
}

fn sentence_of_table(name: &str, tables: &[TableReport], numbers: &Numbers) -> String {
    if tables.is_empty() {
        let name = visible(name);
        return format!("Table {name} could not be looked at, so nothing is known about it.");
    }
    let (own, name) = (numbers.expected - numbers.found, visible(name));
    let rest = if numbers.left == 0 { "nothing is missing".to_owned() } else { format!("{} missing", grouped(numbers.left)) };
    format!(
        "Of {} of table {name}, {} have a row of the table's own, {} a repaired one, {} are confirmed absent, and {rest}.",
        count(numbers.expected, "expected slot"),
        grouped(own),
        grouped(numbers.repaired),
        grouped(numbers.absent),
    )
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
