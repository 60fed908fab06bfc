//! What commands about a table need: its definition, and who computes from it. Both are found in the journal, in the runs that had it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use repair_core::engine::{Journal, RunHead, RunState, load};
use repair_core::lake::Lake;
use repair_core::lake::overlay;
use repair_core::lake::overlay::retraction::{Part, Retracted, Retraction};
use repair_core::lake::overlay::story::{Published, published};
use repair_core::lake::stale;
use repair_core::model::{Interval, Key, Suspect, Table};
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::session::{self, LakeArg, Root};

/// So many of the latest runs are looked through: each is read as a whole.
const MOST_RUNS: usize = 500;

/// Which table, and of which lake.
#[derive(Debug, Args)]
pub(crate) struct TableArg {
    /// The table, by its name in the workflow.
    pub(crate) table: String,
    /// The workflow that declares the table [default: that of the latest run which had it].
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    #[command(flatten)]
    lake: LakeArg,
}

/// A lake with its journal.
pub(crate) struct Opened {
    pub(crate) root: Root,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) registry: Registry,
}

impl Opened {
    pub(crate) async fn new(lake: Option<&Path>) -> Result<Self> {
        let (root, journal) = session::journal(lake).await?;
        Ok(Self { root, journal, registry: session::registry() })
    }

    /// The lake, as a run had it.
    pub(crate) async fn lake(&self, run: Option<&str>) -> Result<Arc<dyn Lake>> {
        self.root.open(run.map(|run| (self.journal.as_ref(), run))).await
    }

    /// The workflow of a run.
    pub(crate) fn workflow(&self, state: &RunState) -> Result<Workflow> {
        let started = &state.started;
        Workflow::parse_with(&started.file, &started.definition, &self.registry, &started.children)
            .map_err(|diagnostics| Error::invalid(diagnostics.render(false)))
    }

    /// The latest runs, newest first.
    async fn latest(&self) -> Result<Vec<RunHead>> {
        let mut heads = self.journal.runs().await?;
        heads.sort_by_key(|head| std::cmp::Reverse(head.first.at));
        heads.truncate(MOST_RUNS);
        Ok(heads)
    }

    /// A table, and the latest run that had it.
    pub(crate) async fn table(&self, name: &str) -> Result<(Table, String)> {
        for head in self.latest().await? {
            let state = load(self.journal.as_ref(), &head.run).await?;
            // A definition that this program does not know any more says nothing about tables; another may.
            if let Some(table) = self.workflow(&state).ok().and_then(|workflow| workflow.tables.get(name).cloned()) {
                return Ok((table, head.run));
            }
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("no run here has had a table `{name}`; name the workflow that declares it with --workflow FILE"),
        ))
    }

    /// All tables that runs have had, each with a run that had it.
    pub(crate) async fn tables(&self) -> Result<Vec<(Table, String)>> {
        let mut all: Vec<(Table, String)> = Vec::new();
        for head in self.latest().await? {
            let state = load(self.journal.as_ref(), &head.run).await?;
            let tables = self.workflow(&state).map(|workflow| workflow.tables).unwrap_or_default();
            for table in tables.into_values().filter(|table| all.iter().all(|(known, _)| known != table)).collect::<Vec<_>>() {
                all.push((table, head.run.clone()));
            }
        }
        Ok(all)
    }

    /// The stretch of suspect silence in which a slot lies, as the latest run that repaired the table saw it, and that run.
    pub(crate) async fn suspect(&self, table: &str, slot: &Interval) -> Result<Option<(String, Suspect)>> {
        for head in self.latest().await? {
            let state = load(self.journal.as_ref(), &head.run).await?;
            let of_table = state.steps.values().filter(|step| step.units.as_ref().is_some_and(|units| units.table == table));
            let mut stretches = of_table.flat_map(|step| step.suspects()).flat_map(|suspects| &suspects.stretches);
            if let Some(found) = stretches.find(|stretch| stretch.interval.covers(slot)) {
                return Ok(Some((head.run, found.clone())));
            }
        }
        Ok(None)
    }

    /// The tables that were computed from a table.
    pub(crate) async fn computed_from(&self, table: &str) -> Result<Vec<Table>> {
        let mut all: Vec<Table> = Vec::new();
        for head in self.latest().await? {
            let state = load(self.journal.as_ref(), &head.run).await?;
            // What has findings about another table only was not computed from this one.
            if !state.findings.values().any(|findings| findings.scope.table == table) {
                continue;
            }
            for into in state.steps.values().filter_map(|step| stale::written(&step.output)) {
                if !all.contains(&into) {
                    all.push(into);
                }
            }
        }
        Ok(all)
    }
}

/// A table, opened.
pub(crate) struct Subject {
    pub(crate) opened: Opened,
    pub(crate) table: Table,
    pub(crate) lake: Arc<dyn Lake>,
}

impl TableArg {
    /// Finds it.
    pub(crate) async fn open(self, lake_before: Option<PathBuf>) -> Result<Subject> {
        let opened = Opened::new(self.lake.or(lake_before).as_deref()).await?;
        let (table, run) = match &self.workflow {
            Some(file) => {
                let workflow = Workflow::load(file, &opened.registry).map_err(|diagnostics| Error::invalid(diagnostics.render(false)))?;
                let table = workflow.tables.get(&self.table).cloned();
                let missing = || Error::new(ErrorKind::NotFound, format!("{} declares no table `{}`", file.display(), self.table));
                (table.ok_or_else(missing)?, None)
            }
            None => {
                let (table, run) = opened.table(&self.table).await?;
                (table, Some(run))
            }
        };
        let lake = opened.lake(run.as_deref()).await?;
        Ok(Subject { opened, table, lake })
    }
}

/// A key as people write it: its values, separated by commas where there are several.
pub(crate) fn key(table: &Table, text: Option<&str>) -> Result<Key> {
    let columns = table.key.join(",");
    match (table.key.len(), text) {
        (0, None) => Ok(Key::default()),
        (0, Some(_)) => Err(Error::invalid(format!("table `{}` is one series without a key; leave out --key", table.name))),
        (_, None) => Err(Error::invalid(format!("say which series with --key; table `{}` has the key {columns}", table.name))),
        (1, Some(text)) => Ok(Key::from(text)),
        (count, Some(text)) => {
            let values: Vec<&str> = text.split(',').collect();
            if values.len() == count {
                Ok(Key::new(values))
            } else {
                Err(Error::invalid(format!("`{text}` is no key of table `{}`; write it as {columns}", table.name)))
            }
        }
    }
}

/// Who is at the keyboard.
pub(crate) fn user() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What a retraction changed.
#[derive(Debug, Serialize)]
pub(crate) struct Changed {
    /// The table.
    pub(crate) table: String,
    /// Repaired rows.
    pub(crate) rows: u64,
    /// Exceptions.
    pub(crate) absent: u64,
    /// From the first slot to the last.
    pub(crate) interval: Interval,
    /// The tables that were computed from it, and are stale there.
    pub(crate) stale: Vec<String>,
}

/// The name of a table beside another.
type Beside = fn(&str) -> String;

/// Whether a row of one kind is hidden: by its run, step, key and time.
type Hides = fn(&Retracted, &str, &str, &Key, i64) -> bool;

/// What lies beside a table that parts of a retraction mean, whether it is hidden or not.
pub(crate) async fn meant(lake: &dyn Lake, table: &Table, parts: &[Part]) -> Result<Option<Changed>> {
    let trial = Retraction {
        id: "trial".to_owned(),
        parts: parts.to_vec(),
        undoes: None,
        at: jiff::Timestamp::UNIX_EPOCH,
        by: String::new(),
        reason: String::new(),
    };
    let meant = Retracted::of(table, &[trial]);
    let is_meant = |row: &Published, hides: Hides| {
        hides(&meant, &row.text(overlay::columns::RUN), &row.text(overlay::columns::STEP), &row.key, row.time_us)
    };
    let interval = parts.iter().map(|part| part.interval).reduce(|one, other| Some(one?.hull(&other?))).flatten();
    let mut counts = [0, 0];
    let (mut first_us, mut last_us) = (i64::MAX, i64::MIN);
    let kinds: [(Beside, Hides); 2] = [(overlay::repairs, Retracted::hides_repair), (overlay::exceptions, Retracted::hides_exception)];
    for (count, (beside, hides)) in counts.iter_mut().zip(kinds) {
        for row in published(lake, table, beside, interval, None).await?.iter().filter(|row| is_meant(row, hides)) {
            *count += 1;
            (first_us, last_us) = (first_us.min(row.time_us), last_us.max(row.time_us));
        }
    }
    if first_us > last_us {
        return Ok(None);
    }
    let slot = |us: i64| -> Result<Interval> {
        let time = jiff::Timestamp::from_microsecond(us).map_err(|error| Error::invalid("a time is out of range").because(error))?;
        // The time of a row may be the end of its slot.
        let time = match table.grid() {
            Ok(grid) => grid.start_of(grid.slot_of(time)),
            Err(_) => time,
        };
        repair_core::lake::overlay::story::slot(table, time)
    };
    let interval = slot(first_us)?.hull(&slot(last_us)?);
    Ok(Some(Changed { table: table.name.clone(), rows: counts[0], absent: counts[1], interval, stale: Vec::new() }))
}

/// Marks what was computed from a stretch of a table, and says which tables these are.
pub(crate) async fn mark_stale(opened: &Opened, lake: &dyn Lake, change: &Retraction, run: &str, changed: &mut Changed) -> Result<()> {
    for into in opened.computed_from(&changed.table).await? {
        let part = Part { interval: Some(changed.interval), ..Part::of_run(run) };
        let mark = Retraction { id: format!("stale-{}", change.id), parts: vec![part], undoes: None, ..change.clone() };
        lake.retract(&into, &mark).await?;
        changed.stale.push(into.name);
    }
    Ok(())
}
