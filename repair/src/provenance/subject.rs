//! What all requests about a table need: its definition, its lake, and the tables that are computed from it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;

use super::TableChange;
use crate::open::{NoRuns, OpenLake};
use repair_core::engine::{Journal, RunHead, load};
use repair_core::lake::overlay::aside::{Asides, Verdict};
use repair_core::lake::overlay::retraction::{Part, Retracted, Retraction};
use repair_core::lake::overlay::story::{PublishedRow, published, slot};
use repair_core::lake::{Lake, Layer, ScanRequest, overlay, rollup, stale};
use repair_core::model::{Interval, Key, Suspect, Table};
use repair_core::workflow::Document;
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Hint, Result};

/// Only this many of the latest runs are searched: each is read as a whole.
const MOST_RUNS: usize = 500;
/// How many keys are remembered to find the one that was meant.
const MOST_KNOWN: usize = 100_000;
/// How many keys are named where none is close.
const MOST_NAMED: usize = 10;

/// A lake with its journal.
#[derive(Clone)]
pub(crate) struct History<'a> {
    pub(crate) open: &'a OpenLake,
    pub(crate) journal: Arc<dyn Journal>,
}

impl<'a> History<'a> {
    pub(crate) async fn of(open: &'a OpenLake) -> Result<Self> {
        Ok(Self { open, journal: open.journal().await? })
    }

    /// The lake, as a run had it.
    pub(crate) async fn lake(&self, run: Option<&str>) -> Result<Arc<dyn Lake>> {
        self.open.lake_of(run.map(|run| (self.journal.as_ref(), run))).await
    }

    /// The latest runs, newest first.
    pub(crate) async fn latest(&self) -> Result<Vec<RunHead>> {
        let mut heads = self.journal.runs().await?;
        heads.sort_by_key(|head| std::cmp::Reverse(head.first.at));
        heads.truncate(MOST_RUNS);
        Ok(heads)
    }

    /// A table, and the latest run that had it.
    async fn table(&self, name: &str) -> Result<(Table, String)> {
        for head in self.latest().await? {
            let state = load(self.journal.as_ref(), &head.run).await?;
            // A definition that this program cannot read says nothing about tables; another may.
            if let Some(table) = self.open.workflow_of(&state).ok().and_then(|workflow| workflow.tables.get(name).cloned()) {
                return Ok((table, head.run));
            }
        }
        Err(Error::new(ErrorKind::NotFound, format!("no run here has had a table `{name}`")).hint(Hint::DeclaringWorkflow))
    }

    /// All tables that runs have had, each with a run that had it.
    pub(crate) async fn tables(&self) -> Result<Vec<(Table, String)>> {
        let mut all: Vec<(Table, String)> = Vec::new();
        for head in self.latest().await? {
            let state = load(self.journal.as_ref(), &head.run).await?;
            let tables = self.open.workflow_of(&state).map(|workflow| workflow.tables).unwrap_or_default();
            for table in tables.into_values().filter(|table| all.iter().all(|(known, _)| known != table)).collect::<Vec<_>>() {
                all.push((table, head.run.clone()));
            }
        }
        Ok(all)
    }

    /// The stretch of suspect silence in which a slot lies, as the latest run that repaired the table saw it, and that run.
    pub(super) async fn suspect(&self, table: &str, slot: &Interval) -> Result<Option<(String, Suspect)>> {
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
    pub(super) async fn computed_from(&self, table: &str) -> Result<Vec<Table>> {
        let mut all: Vec<Table> = Vec::new();
        for head in self.latest().await? {
            let state = load(self.journal.as_ref(), &head.run).await?;
            // A run with findings about other tables only computed nothing from this one.
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

    /// Writes a retraction, after marking what was computed: a mark too many costs a computation, one too few leaves a wrong number.
    pub(super) async fn retract(
        &self,
        lake: &dyn Lake,
        table: &Table,
        retraction: &Retraction,
        run: &str,
        mut changed: TableChange,
    ) -> Result<TableChange> {
        self.mark_stale(lake, retraction, run, &mut changed).await?;
        lake.retract(table, retraction).await?;
        Ok(changed)
    }

    /// Marks what was computed from a stretch of a table, and notes which tables these are.
    pub(super) async fn mark_stale(&self, lake: &dyn Lake, change: &Retraction, run: &str, changed: &mut TableChange) -> Result<()> {
        for into in self.computed_from(&changed.table).await? {
            let part = Part { interval: Some(changed.interval), ..Part::of_run(run) };
            let mark = Retraction { id: format!("stale-{}", change.id), parts: vec![part], undoes: None, ..change.clone() };
            lake.retract(&into, &mark).await?;
            changed.stale.push(into.name);
        }
        Ok(())
    }
}

/// Which table a request is about.
pub(crate) struct TableName {
    pub(crate) name: String,
    pub(crate) workflow: Option<PathBuf>,
}

impl TableName {
    pub(crate) fn new(name: String) -> Self {
        Self { name, workflow: None }
    }

    pub(crate) fn declared_in(&mut self, workflow: Option<&Path>) {
        self.workflow = workflow.map(Path::to_owned);
    }

    /// Finds the table.
    pub(crate) async fn open<'a>(&self, open: &'a OpenLake) -> Result<Subject<'a>> {
        let history = match (History::of(open).await, &self.workflow) {
            // A workflow declares the table, so no run needs to have had it.
            (Err(error), Some(_)) if error.kind() == ErrorKind::NotFound => History { open, journal: Arc::new(NoRuns) },
            (history, _) => history?,
        };
        let (table, run) = match &self.workflow {
            Some(file) => {
                let document = Document::load(file, &open.around.registry, None)?;
                let tables = document.tables();
                let table = tables.get(&self.name).cloned();
                let missing = || {
                    let declared: Vec<String> = tables.keys().map(|name| format!("`{name}`")).collect();
                    let declared =
                        if declared.is_empty() { "it declares none".to_owned() } else { format!("its tables are {}", declared.join(", ")) };
                    Error::new(ErrorKind::NotFound, format!("{} declares no table `{}`; {declared}", file.display(), self.name))
                };
                (table.ok_or_else(missing)?, None)
            }
            None => {
                let (table, run) = history.table(&self.name).await?;
                (table, Some(run))
            }
        };
        let lake = history.lake(run.as_deref()).await?;
        Ok(Subject { history, table, lake, run })
    }
}

/// A table, opened.
pub(crate) struct Subject<'a> {
    pub(crate) history: History<'a>,
    pub(crate) table: Table,
    pub(crate) lake: Arc<dyn Lake>,
    /// The run that had the table; `None` if a workflow declares it.
    pub(crate) run: Option<String>,
}

/// A key as people write it: its values, separated by commas where there are several, in quotes those that hold one.
pub(crate) fn key(table: &Table, text: Option<&str>) -> Result<Key> {
    let hint = || Hint::Key { columns: table.key.clone() };
    match (table.key.len(), text) {
        (0, None) => Ok(Key::default()),
        (0, Some(_)) => Err(Error::invalid(format!("table `{}` is one series without a key", table.name)).hint(hint())),
        (_, None) => Err(Error::invalid(format!("table `{}` has several series", table.name)).hint(hint())),
        (count, Some(text)) => Key::typed(text, count).ok_or_else(|| {
            let quoted = if text.split(',').count() > count { ", unless a value with a comma is put in quotes" } else { "" };
            Error::invalid(format!("`{text}` is not a key of table `{}`{quoted}", table.name)).hint(hint())
        }),
    }
}

impl Subject<'_> {
    /// Refuses a key that the table has never had: no run expected it, nothing was repaired or confirmed absent for it, and no row has it.
    /// Otherwise a typing mistake would look like a series of which everything is missing.
    pub(crate) async fn check_key(&self, key: &Key) -> Result<()> {
        unknown_key(&self.history, self.lake.as_ref(), &self.table, key).await?.map_or(Ok(()), Err)
    }
}

/// The error of a key that the table has never had; `None` if it has had it. The rows of the table are read last, since they may be many.
pub(super) async fn unknown_key(history: &History<'_>, lake: &dyn Lake, table: &Table, key: &Key) -> Result<Option<Error>> {
    if table.key.is_empty() {
        return Ok(None);
    }
    let mut known: BTreeSet<Key> = BTreeSet::new();
    for head in history.latest().await? {
        let state = load(history.journal.as_ref(), &head.run).await?;
        known.extend(state.findings.into_values().filter(|found| found.scope.table == table.name).flat_map(|found| found.scope.keys));
        if known.contains(key) {
            return Ok(None);
        }
    }
    for beside in [overlay::repairs as Beside, overlay::exceptions] {
        if !published(lake, table, beside, None, Some(std::slice::from_ref(key))).await?.is_empty() {
            return Ok(None);
        }
    }
    let columns = table.key.iter().chain([&table.time]).cloned().collect::<Vec<_>>();
    let mut rows = lake.scan(table, &ScanRequest::new(Layer::Raw).with_columns(columns)).await?;
    while let Some(batch) = rows.try_next().await? {
        let columns = rollup::key_columns(table, &batch)?;
        for row in 0..batch.num_rows() {
            let of_row = Key::new(columns.iter().map(|column| column.value(row)));
            if of_row == *key {
                return Ok(None);
            }
            if known.len() < MOST_KNOWN {
                known.insert(of_row);
            }
        }
    }
    let names: Vec<String> = known.iter().map(Key::to_string).collect();
    let hint = match closest(&key.to_string(), names.iter().map(String::as_str)) {
        Some(close) => format!("did you mean `{close}`?"),
        None if names.is_empty() => "it has had none".to_owned(),
        None => {
            let more = if names.len() > MOST_NAMED { format!(" and {} more", names.len() - MOST_NAMED) } else { String::new() };
            let named: Vec<String> = names.iter().take(MOST_NAMED).map(|name| format!("`{name}`")).collect();
            format!("its keys are {}{more}", named.join(", "))
        }
    };
    let message =
        format!("table `{}` has never had the key `{key}`: it has no row, repair or exception, and no run expected it; {hint}", table.name);
    Ok(Some(Error::new(ErrorKind::NotFound, message)))
}

/// The name of a table beside another.
type Beside = fn(&str) -> String;

/// Whether a row of one kind is hidden: by its run, step, key and time.
type Hides = fn(&Retracted, &str, &str, &Key, i64) -> bool;

/// The rows of a table's overlay that parts of a retraction refer to; `None` if there are none. Counted are those that no retraction hides, other than
/// `undone`.
pub(super) async fn meant(lake: &dyn Lake, table: &Table, parts: &[Part], undone: Option<&str>) -> Result<Option<TableChange>> {
    let mut others = lake.retractions(table).await?;
    others.retain(|retraction| undone.is_none_or(|undone| retraction.id != undone));
    let others = Retracted::of(table, &others);
    let trial = Retraction {
        id: "trial".to_owned(),
        parts: parts.to_vec(),
        undoes: None,
        at: jiff::Timestamp::UNIX_EPOCH,
        by: String::new(),
        reason: String::new(),
    };
    let meant = Retracted::of(table, &[trial]);
    let is_hidden = |by: &Retracted, row: &PublishedRow, hides: Hides| {
        hides(by, &row.text(overlay::columns::RUN), &row.text(overlay::columns::STEP), &row.key, row.time_us)
    };
    let interval = parts.iter().map(|part| part.interval).reduce(|one, other| Some(one?.hull(&other?))).flatten();
    let (identity, asides) = (table.identity(), Asides::read(lake, table).await?);
    let asides = asides.on(identity.grid());
    let mut counts = [0_u64, 0];
    let (mut first_us, mut last_us) = (i64::MAX, i64::MIN);
    let kinds: [(Beside, Hides); 2] = [(overlay::repairs, Retracted::hides_repair), (overlay::exceptions, Retracted::hides_exception)];
    for (count, (beside, hides)) in counts.iter_mut().zip(kinds) {
        for row in published(lake, table, beside, interval, None).await?.iter().filter(|row| is_hidden(&meant, row, hides)) {
            *count += u64::from(!is_hidden(&others, row, hides));
            if let Some(frozen) = asides.get(&row.key, identity.slot(row.time_us)).filter(|aside| aside.verdict == Verdict::Frozen) {
                let message =
                    format!("nothing was changed: it would change slots of table `{}` that are {}", table.name, frozen.in_words());
                return Err(Error::new(ErrorKind::Conflict, message).hint(Hint::Lift { table: table.name.clone(), id: frozen.id.clone() }));
            }
            (first_us, last_us) = (first_us.min(row.time_us), last_us.max(row.time_us));
        }
    }
    if first_us > last_us {
        return Ok(None);
    }
    let slot_at = |us: i64| -> Result<Interval> {
        let time = jiff::Timestamp::from_microsecond(us).map_err(|error| Error::invalid("a time is out of range").because(error))?;
        slot(table, time)
    };
    let interval = slot_at(first_us)?.hull(&slot_at(last_us)?);
    Ok(Some(TableChange { table: table.name.clone(), rows: counts[0], absent: counts[1], interval, stale: Vec::new() }))
}
