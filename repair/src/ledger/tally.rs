//! The ledger: what each step of a run used, with the tags by which costs are grouped. Pure: a fold of the run's events. It must not know what
//! anything costs ([`super::costs`] does).
//!
//! How usage is attributed:
//!
//! - What a repair step uses belongs to its strategy, from the moment its units are planned until it has done what it can. The tag `idea` of
//!   that strategy is what its plan recorded ([`Workflow::tags_of`]); if the plan recorded none, the workflow's own tag `idea`, else the
//!   strategy's name.
//! - All other steps serve every strategy alike. Their tag `idea` is `-`.
//! - Queries are counted by their ids, once per run: an attempt that continues another's work finds the same query again.
//! - A run within a run has its own entries; the step that ran it has none.
//! - Units that failed, or whose end was lost in a crash, report no usage. What was reserved for them is [`LedgerEntry::assumed`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use repair_core::engine::child_run_id;
use repair_core::engine::{Event, FORMAT, Recorded};
use repair_core::lake::stale;
use repair_core::model::{Usage, utc_date};
use repair_core::price::{PriceBook, Query};
use repair_core::workflow::{Template, Variables, Workflow, detector_of};
use repair_core::{Error, Result};

/// The tags that every entry has. A workflow can add its own.
pub const TAGS: [&str; 8] = ["component", "workflow", "idea", "strategy", "step", "table", "environment", "run"];
/// The component of a workflow that has no tag `component`.
pub const REPAIR: &str = "repair";
/// The component of what is repaired: the pipeline itself.
pub const INFRASTRUCTURE: &str = "infrastructure";
/// The value of a tag that does not apply.
pub const NONE: &str = "-";

/// What one step of a run used; in a repair step, what one strategy of it used.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// When the run began.
    pub began_at: Timestamp,
    /// All of [`TAGS`], and the workflow's own.
    pub tags: BTreeMap<String, String>,
    /// What it used. Queries, their bytes and engine time are in it, each query once.
    pub usage: Usage,
    /// The queries whose ids are known.
    pub queries: Vec<Query>,
    /// What units may have used at worst whose usage was lost.
    pub assumed: Usage,
    /// Requests to sources, by the first day of the month in which they ended, in UTC, since plans of sources are monthly.
    pub calls: BTreeMap<Date, u64>,
    /// The names by which a price book may know the source: its name in the workflow, then its plug-in's.
    pub source: Vec<String>,
    /// Rows that readers see for it.
    pub rows: u64,
    /// Slots that were confirmed absent.
    pub absent: u64,
    /// The price book that the run had.
    pub prices: Option<Arc<PriceBook>>,
}

/// The part of a usage that queries make up.
#[derive(Debug, Clone, Copy, Default)]
struct Scanned {
    queries: u64,
    bytes: u64,
    engine_ms: u64,
}

impl Scanned {
    fn of(usage: &Usage) -> Self {
        Self { queries: usage.queries, bytes: usage.bytes_scanned, engine_ms: usage.engine_ms }
    }

    fn add(&mut self, other: Self) {
        self.queries += other.queries;
        self.bytes += other.bytes;
        self.engine_ms += other.engine_ms;
    }

    fn without(self, other: Self) -> Self {
        Self {
            queries: self.queries.saturating_sub(other.queries),
            bytes: self.bytes.saturating_sub(other.bytes),
            engine_ms: self.engine_ms.saturating_sub(other.engine_ms),
        }
    }
}

impl From<&Query> for Scanned {
    fn from(query: &Query) -> Self {
        Self { queries: 1, bytes: query.bytes_scanned, engine_ms: query.engine_ms }
    }
}

/// What one step has used for one strategy so far.
#[derive(Debug, Clone, Default)]
struct Piece {
    step: String,
    strategy: Option<String>,
    table: Option<String>,
    /// The tags of its units.
    tags: BTreeMap<String, String>,
    reported: Usage,
    /// The part of `reported` that ran queries, with ids or without.
    of_queries: Scanned,
    /// All queries that had ids, each time they were listed.
    listed: Scanned,
    queries: BTreeMap<String, Query>,
    assumed: Usage,
    calls: BTreeMap<Date, u64>,
    rows: u64,
    absent: u64,
}

impl Piece {
    fn take(&mut self, usage: Usage, at: Timestamp) {
        self.reported += usage;
        if usage.queries > 0 {
            self.of_queries.add(Scanned::of(&usage));
        }
        if usage.source_requests > 0 {
            *self.calls.entry(utc_date(at).first_of_month()).or_default() += usage.source_requests;
        }
    }

    /// What it used. A query whose result could not be read is only listed; one that was found again is reported twice.
    fn usage(&self) -> Usage {
        let mut scanned = self.of_queries.without(self.listed);
        self.queries.values().for_each(|query| scanned.add(query.into()));
        let files = Scanned::of(&self.reported).without(self.of_queries);
        Usage {
            queries: scanned.queries,
            bytes_scanned: files.bytes + scanned.bytes,
            engine_ms: files.engine_ms + scanned.engine_ms,
            ..self.reported
        }
    }

    fn is_empty(&self) -> bool {
        self.usage() == Usage::default() && self.assumed == Usage::default() && self.rows == 0 && self.absent == 0
    }
}

/// Where a step is.
#[derive(Debug, Clone, Default)]
struct At {
    visit: u32,
    /// The piece to which its usage belongs now.
    piece: usize,
    /// What is reserved for its units, by index, with the piece to which it belongs.
    reserved: BTreeMap<u32, (usize, Usage)>,
}

/// The fold of one run's events.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The run's id.
    pub run: String,
    /// When it began.
    pub began_at: Timestamp,
    /// Its workflow's name.
    pub workflow: String,
    /// The text of its definition; once it was continued with a corrected one, the text of that.
    pub definition: String,
    /// Where that text was.
    pub file: String,
    /// The texts that belong to the definition.
    pub children: BTreeMap<String, String>,
    /// What the program that drives it kept with it.
    pub environment: Value,
    params: BTreeMap<String, Value>,
    steps: BTreeMap<String, At>,
    pieces: Vec<Piece>,
    index: HashMap<(String, Option<String>), usize>,
    /// The piece to which each query belongs.
    seen: HashMap<String, usize>,
}

impl Tally {
    /// Begins with a run's first event.
    ///
    /// # Errors
    /// `invalid` if it does not begin a run, or was written by a newer version.
    pub fn begin(run: &str, first: &Recorded) -> Result<Self> {
        let Event::RunStarted { format, workflow, definition, file, children, params, environment, .. } = first.event.clone() else {
            return Err(Error::invalid("a run begins with `run-started`").on("run", run));
        };
        if format > FORMAT {
            let message = format!("it was written in event format {format}, and this program knows {FORMAT}; use a newer version of it");
            return Err(Error::invalid(message).on("run", run));
        }
        Ok(Self {
            run: run.to_owned(),
            began_at: first.at,
            workflow,
            definition,
            file,
            children,
            environment,
            params,
            steps: BTreeMap::new(),
            pieces: Vec::new(),
            index: HashMap::new(),
            seen: HashMap::new(),
        })
    }

    /// The run that ran this one as a step.
    pub fn parent(&self) -> Option<&str> {
        crate::run::parent_of(&self.environment)
    }

    /// Folds one more event.
    pub fn apply(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::DefinitionReplaced { definition, file, children, .. } => {
                (self.definition, self.file) = (definition.clone(), file.clone());
                self.children.clone_from(children);
            }
            Event::StepEntered { step, visit } => {
                self.rest(step);
                self.at(step).visit = *visit;
            }
            Event::StrategyEnded { step, .. } => self.rest(step),
            Event::UnitsPlanned { step, table, strategy, tags, usage, .. } => {
                // What was reserved before was for other units.
                self.lose(step);
                let piece = self.piece(step, Some(strategy));
                self.pieces[piece].table = Some(table.clone());
                self.pieces[piece].tags.clone_from(tags);
                self.pieces[piece].take(*usage, at);
                self.at(step).piece = piece;
            }
            Event::UnitsReserved { step, units, worst } => {
                let piece = self.at(step).piece;
                for &unit in units {
                    // A unit that was reserved before, and did not end, was lost in a crash.
                    self.assume(step, unit);
                    self.at(step).reserved.insert(unit, (piece, *worst));
                }
            }
            Event::UnitsEnded { step, staged, usage, failed, released, .. } => {
                self.bear(step).take(*usage, at);
                let reserved = &mut self.at(step).reserved;
                for unit in staged.iter().chain(released) {
                    reserved.remove(unit);
                }
                failed.iter().for_each(|failed| self.assume(step, failed.unit));
            }
            Event::RequestEnded { step, request, usage, failed } => {
                self.bear(step).take(*usage, at);
                if *failed {
                    self.assume(step, *request);
                } else {
                    self.at(step).reserved.remove(request);
                }
            }
            Event::PublishEnded { step, rows, absent, usage, .. } => {
                let piece = self.bear(step);
                piece.take(*usage, at);
                piece.rows += rows;
                piece.absent += absent;
            }
            Event::StepSucceeded { step, output, findings, usage, .. } => {
                let visit = self.at(step).visit;
                let child = child_run_id(&self.run, step, visit);
                if output.get("run").and_then(Value::as_str) == Some(&child) {
                    return;
                }
                let piece = self.bear(step);
                piece.take(*usage, at);
                let looked_at = findings.as_ref().map(|findings| findings.scope.table.clone());
                piece.table = looked_at.or_else(|| stale::written(output).map(|table| table.name)).or(piece.table.take());
            }
            Event::Metered { step, usage, queries } => {
                self.bear(step).take(*usage, at);
                queries.iter().for_each(|query| self.list(step, query));
            }
            _ => {}
        }
    }

    fn at(&mut self, step: &str) -> &mut At {
        if !self.steps.contains_key(step) {
            let piece = self.piece(step, None);
            self.steps.insert(step.to_owned(), At { piece, ..At::default() });
        }
        self.steps.entry(step.to_owned()).or_default()
    }

    fn piece(&mut self, step: &str, strategy: Option<&String>) -> usize {
        let next = self.pieces.len();
        let index = *self.index.entry((step.to_owned(), strategy.cloned())).or_insert(next);
        if index == next {
            self.pieces.push(Piece { step: step.to_owned(), strategy: strategy.cloned(), ..Piece::default() });
        }
        index
    }

    /// What follows belongs to no strategy until one is planned; what was reserved before was for other units.
    fn rest(&mut self, step: &str) {
        self.lose(step);
        let piece = self.piece(step, None);
        self.at(step).piece = piece;
    }

    fn bear(&mut self, step: &str) -> &mut Piece {
        let piece = self.at(step).piece;
        &mut self.pieces[piece]
    }

    fn list(&mut self, step: &str, query: &Query) {
        let now = self.at(step).piece;
        self.pieces[now].listed.add(query.into());
        let bearer = *self.seen.entry(query.id.clone()).or_insert(now);
        let known = self.pieces[bearer].queries.entry(query.id.clone()).or_insert_with(|| query.clone());
        // A query that was seen while it ran has read more since.
        known.bytes_scanned = known.bytes_scanned.max(query.bytes_scanned);
        known.engine_ms = known.engine_ms.max(query.engine_ms);
    }

    /// What was reserved for a unit counts as used.
    fn assume(&mut self, step: &str, unit: u32) {
        if let Some((piece, worst)) = self.at(step).reserved.remove(&unit) {
            self.pieces[piece].assumed += worst;
        }
    }

    fn lose(&mut self, step: &str) {
        for (piece, worst) in std::mem::take(&mut self.at(step).reserved).into_values() {
            self.pieces[piece].assumed += worst;
        }
    }

    /// What its steps used. `workflow` is its definition, if that can still be read: it has the tags and the sources. `environment` is where
    /// it ran, for people.
    pub fn entries(&self, workflow: Option<&Workflow>, environment: &str) -> Vec<LedgerEntry> {
        let mut done = self.clone();
        self.steps.keys().for_each(|step| done.lose(step));
        let variables = Variables { params: Value::Object(self.params.clone().into_iter().collect()), ..Variables::default() };
        let whole = done.pieces.iter().filter(|piece| !piece.is_empty());
        let entries = whole.map(|piece| LedgerEntry {
            began_at: self.began_at,
            tags: self.tags(piece, workflow, environment),
            usage: piece.usage(),
            queries: piece.queries.values().cloned().collect(),
            assumed: piece.assumed,
            calls: piece.calls.clone(),
            source: workflow.map(|workflow| source(workflow, piece, &variables)).unwrap_or_default(),
            rows: piece.rows,
            absent: piece.absent,
            prices: workflow.and_then(|workflow| workflow.prices.clone()),
        });
        entries.collect()
    }

    fn tags(&self, piece: &Piece, workflow: Option<&Workflow>, environment: &str) -> BTreeMap<String, String> {
        let mut tags = workflow.map(|workflow| workflow.tags.clone()).unwrap_or_default();
        let of_workflow = tags.get("idea").cloned();
        let strategy = piece.strategy.as_deref();
        let of_plan = piece.tags.get("idea").cloned();
        let idea = strategy.map(|strategy| of_plan.or(of_workflow).unwrap_or_else(|| strategy.to_owned()));
        tags.extend(piece.tags.clone());
        tags.entry("component".to_owned()).or_insert_with(|| REPAIR.to_owned());
        for (name, value) in [
            ("workflow", self.workflow.as_str()),
            ("idea", idea.as_deref().unwrap_or(NONE)),
            ("strategy", strategy.unwrap_or(NONE)),
            ("step", &piece.step),
            ("table", piece.table.as_deref().unwrap_or(NONE)),
            ("environment", environment),
            ("run", &self.run),
        ] {
            tags.insert(name.to_owned(), value.to_owned());
        }
        tags
    }
}

/// The source that a step asks: its name in the workflow, and its plug-in's.
fn source(workflow: &Workflow, piece: &Piece, variables: &Variables) -> Vec<String> {
    let step = workflow.step(&piece.step);
    let known = step.and_then(|step| step.kind.strategies().iter().find(|known| Some(&known.name) == piece.strategy.as_ref()));
    // Without a strategy, only a detector asks: the step's own, or that of the step whose findings it checks again.
    let asks = || detector_of(workflow, step?).filter(|with| with.text_of("source").is_some());
    let first = || step.and_then(|step| step.kind.plugins().first().map(|(_, _, with)| *with));
    let with = known.map(|strategy| &strategy.with).or_else(asks).or_else(first);
    let name = match with {
        Some(Template::Value(with)) => with.get("source").cloned(),
        Some(Template::Map(entries)) => {
            // The rest of it may depend on earlier steps, which are not known here.
            entries.iter().find(|(key, _)| key == "source").and_then(|(_, value)| value.resolve(variables).ok())
        }
        _ => None,
    };
    let Some(name) = name.as_ref().and_then(Value::as_str) else { return Vec::new() };
    let plugin = workflow.sources.get(name).map(|used| used.plugin.clone());
    std::iter::once(name.to_owned()).chain(plugin).collect()
}
