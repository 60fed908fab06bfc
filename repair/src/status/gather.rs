//! Gathers what runs saw of tables: reads from journals what is new, and folds it into what is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};

use super::fold::{Cell, Class, Seen, days_of};
use super::kept::{Days, Index, KeptLook, Looks, Mark, Planned, Published};
use super::model::Look;
use super::since;
use crate::open::OpenLake;
use crate::provenance::subject::History;
use crate::report::last_expected;
use repair_core::engine::{Event, FindingsRecord, PAGE, Recorded, SeenSlots, gaps_of, load, seen_of};
use repair_core::lake::overlay::aside::Asides;
use repair_core::lake::{Lake, known};
use repair_core::model::{Calendar, ExpectedSlots, GapList, Key, Scope, SlotGrid, SlotRange, SlotSet, Table, Zone};
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};

/// How many days are folded at once.
const DAYS_AT_ONCE: usize = 31;
/// More days than this are more than anybody looks at.
const MOST_DAYS: usize = 200_000;

/// Brings the list of looks up to date with the journal.
pub(super) async fn index(history: &History<'_>, lake: &dyn Lake) -> Result<Index> {
    let mut index = Index::read(lake).await?;
    let listed = history.journal.listed(history.open.around.clock.now()).await?;
    // A journal that has lost a run, or has another in its place, is another journal.
    let by_run: HashMap<&str, Timestamp> = listed.iter().map(|listed| (listed.run.as_str(), listed.latest.at)).collect();
    let is_same_journal = index.runs.iter().all(|(run, mark)| by_run.get(run.as_str()).is_some_and(|at| *at >= mark.at));
    if !is_same_journal {
        index.clear();
    }
    let mut changed = !is_same_journal;
    for listed in listed {
        let mark = index.runs.get(&listed.run);
        let known = mark.is_some_and(|mark| mark.rests && listed.latest.is_at_rest() && mark.at == listed.latest.at);
        if known {
            continue;
        }
        let from = mark.map_or(0, |mark| mark.events);
        let planned = mark.map(|mark| mark.planned.clone()).unwrap_or_default();
        let mut mark = Mark { events: from, at: listed.latest.at, rests: false, planned };
        loop {
            let page = history.journal.read(&listed.run, mark.events, PAGE).await?;
            let whole = page.len() == PAGE;
            mark.events += page.len() as u64;
            for recorded in &page {
                mark.at = recorded.at;
                mark.rests = matches!(recorded.event, Event::RunEnded { .. } | Event::RunPaused);
                add(&mut index, &listed.run, &listed.begun.workflow, recorded, &mut mark.planned)?;
            }
            if !whole {
                break;
            }
        }
        changed |= mark.events != from || index.runs.get(&listed.run) != Some(&mark);
        if mark.events > 0 {
            index.runs.insert(listed.run, mark);
        }
    }
    if changed {
        for table in index.tables.values_mut() {
            let looks = &table.looks;
            table.published.retain(|published| !since::of_published(looks, published).is_empty());
        }
        // What cannot be kept is made anew next time.
        if let Err(error) = index.keep(lake).await {
            tracing::debug!(error = error.full(), "the list of looks could not be kept");
        }
    }
    Ok(index)
}

/// Adds what an event says about tables. `planned` is what the run's steps repair.
fn add(index: &mut Index, run: &str, workflow: &str, recorded: &Recorded, planned: &mut BTreeMap<String, Planned>) -> Result<()> {
    let mut look = |step: &str, record: &FindingsRecord| -> Result<()> {
        let keys = serde_json::to_vec(&record.scope.keys).map_err(|error| Error::internal("keys are not JSON").because(error))?;
        let seen = record.seen.as_ref();
        let look = Look {
            run: run.to_owned(),
            workflow: workflow.to_owned(),
            step: step.to_owned(),
            of: record.of.clone(),
            kind: record.kind,
            at: recorded.at,
            interval: record.scope.interval,
            again: seen.is_some_and(|seen| seen.again),
            absent_until: seen.and_then(|seen| seen.absent_until).filter(|_| record.counts.absent > 0),
        };
        let table = index.tables.entry(record.scope.table.clone()).or_default();
        let keys = blake3::hash(&keys).to_hex().as_str()[..16].to_owned();
        let (of_keys, found) = (record.scope.keys.len() as u64, record.wrong());
        table.looks.push(KeptLook { look, event: recorded.sequence, keys, of_keys, found });
        Ok(())
    };
    match &recorded.event {
        Event::StepSucceeded { step, findings: Some(record), .. } if record.kind != repair_core::model::DefectKind::Stale => {
            look(step, record)?;
        }
        Event::UnitsPlanned { step, table, of, left, .. } => {
            planned.insert(step.clone(), Planned { table: table.clone(), of: of.clone() });
            if let Some(record) = left {
                look(step, record)?;
            }
        }
        Event::PublishEnded { step, rows, absent, .. } if rows + absent > 0 => {
            let Some(Planned { table, of }) = planned.get(step) else { return Ok(()) };
            let Looks { looks, published } = index.tables.entry(table.clone()).or_default();
            // What it repairs is what the run itself found.
            let Some(look) = looks.iter().rposition(|kept| kept.look.run == run && kept.look.of == *of) else { return Ok(()) };
            let (event, at, slots) = (recorded.sequence, recorded.at, rows + absent);
            match published.iter_mut().find(|published| published.run == run && published.of == *of) {
                Some(known) => (known.look, known.event, known.at, known.slots) = (look, event, at, known.slots + slots),
                None => published.push(Published { run: run.to_owned(), of: of.clone(), look, event, at, slots }),
            }
        }
        _ => {}
    }
    Ok(())
}

/// The calendars that a workflow may name.
type Calendars = Arc<BTreeMap<String, Arc<dyn Calendar>>>;

/// A look with all that it saw.
struct Loaded {
    look: usize,
    class: Class,
    scope: Scope,
    last: Timestamp,
    again: bool,
    calendars: Calendars,
    keys: BTreeSet<Key>,
    gaps: GapList,
    others: SeenSlots,
}

impl Loaded {
    fn expected(&self, slots: SlotRange) -> Result<ExpectedSlots<'_>> {
        ExpectedSlots::of(&self.scope, slots, self.last, |name| {
            let unknown = || Error::invalid(format!("this program has no calendar `{name}`, by which the run expected rows"));
            self.calendars.get(name).ok_or_else(unknown)
        })
    }

    /// Whether what is known of it adds up to what it counted.
    fn fits(&self, record: &FindingsRecord) -> Result<bool> {
        if self.again {
            return Ok(true);
        }
        let slots = self.scope.slots();
        let expected = self.expected(slots)?;
        let expected: u64 = self.scope.keys.iter().map(|key| expected.of_key(key).count()).sum();
        let (counts, others) = (&record.counts, &self.others);
        let is_same = expected == counts.expected && self.gaps.missing() == record.wrong() && others.aside.missing() == counts.set_aside();
        Ok(is_same
            && match self.class {
                Class::Missing => others.repaired.missing() == counts.repaired && others.absent.missing() == counts.absent,
                Class::Rows { .. } => others.replaced.missing() == counts.replaced + counts.patched,
            })
    }
}

/// What is read for the fold of one table.
struct Reader<'a> {
    history: &'a History<'a>,
    grid: SlotGrid,
    looks: &'a [KeptLook],
    loaded: HashMap<usize, Option<Arc<Loaded>>>,
    workflows: HashMap<String, Arc<Workflow>>,
    calendars: HashMap<String, Calendars>,
    lakes: HashMap<String, Arc<dyn Lake>>,
    /// Why looks are left out, and how many.
    left_out: BTreeMap<&'static str, u64>,
}

impl Reader<'_> {
    async fn load(&mut self, at: usize) -> Result<Option<Arc<Loaded>>> {
        if let Some(loaded) = self.loaded.get(&at) {
            return Ok(loaded.clone());
        }
        let loaded = match self.read(at).await {
            Ok(Ok(loaded)) => Some(Arc::new(loaded)),
            Ok(Err(why)) => {
                *self.left_out.entry(why).or_default() += 1;
                None
            }
            Err(error) => {
                known::without(error)?;
                *self.left_out.entry("what they found is gone or damaged").or_default() += 1;
                None
            }
        };
        self.loaded.insert(at, loaded.clone());
        Ok(loaded)
    }

    /// A look, or why it is of no use.
    async fn read(&mut self, at: usize) -> Result<Result<Loaded, &'static str>> {
        let KeptLook { look, event, .. } = self.looks.get(at).ok_or_else(|| Error::internal("there is no such look"))?;
        let recorded = self.history.journal.read(&look.run, *event, 1).await?;
        let record = match recorded.into_iter().next().map(|recorded| recorded.event) {
            Some(Event::StepSucceeded { findings: Some(record), .. } | Event::UnitsPlanned { left: Some(record), .. }) => record,
            _ => return Err(Error::invalid(format!("event {event} of run {} is no look", look.run))),
        };
        if !record.seen.as_ref().is_some_and(|seen| seen.complete) {
            return Ok(Err("an earlier version made them, or their detectors do not say what they saw slot by slot"));
        }
        if record.scope.grid != self.grid {
            return Ok(Err("the table had other slots then"));
        }
        let lake = match self.lakes.get(&look.run) {
            Some(lake) => lake.clone(),
            None => {
                let lake = self.history.lake(Some(&look.run)).await?;
                self.lakes.insert(look.run.clone(), lake.clone());
                lake
            }
        };
        let gaps = gaps_of(lake.as_ref(), &look.run, &record.artifact).await?;
        let others = seen_of(lake.as_ref(), &look.run, &record).await?;
        let state = load(self.history.journal.as_ref(), &look.run).await?;
        let definition = blake3::hash(state.started.definition.as_bytes()).to_hex().to_string();
        let workflow = match self.workflows.get(&definition) {
            Some(workflow) => workflow.clone(),
            None => match self.history.open.workflow_of(&state) {
                Ok(workflow) => {
                    let workflow = Arc::new(workflow);
                    self.workflows.insert(definition.clone(), workflow.clone());
                    workflow
                }
                Err(_) => return Ok(Err("this program cannot read the definition of their runs")),
            },
        };
        let registry = &self.history.open.around.registry;
        let calendars = self.calendars.entry(definition).or_insert_with(|| {
            let mut all = registry.calendars().clone();
            all.extend(workflow.calendars.iter().map(|(name, calendar)| (name.clone(), calendar.clone() as Arc<dyn Calendar>)));
            Arc::new(all)
        });
        let Some(table) = workflow.tables.get(&record.scope.table) else {
            return Ok(Err("the definition of their runs no longer has the table"));
        };
        let loaded = Loaded {
            look: at,
            class: Class::of(look.kind, &look.workflow, &look.of),
            last: last_expected(table, state.started.now),
            again: look.again,
            calendars: calendars.clone(),
            keys: record.scope.keys.iter().cloned().collect(),
            scope: record.scope.clone(),
            gaps,
            others,
        };
        Ok(if loaded.fits(&record)? { Ok(loaded) } else { Err("their detectors do not count all slots that are expected") })
    }
}

/// The days of a table, up to date with these looks and decisions. `None` if no look at it is of use.
pub(super) async fn days(
    history: &History<'_>,
    lake: &dyn Lake,
    (table, declared, looks): (&str, Option<&Table>, &Looks),
    decisions: &Asides,
) -> Result<Option<Days>> {
    let looks = &looks.looks;
    let Some(newest) = looks.iter().max_by_key(|kept| kept.look.at) else { return Ok(None) };
    let (zone, grid) = shape(history, newest, declared).await?;
    if grid.is_instants() {
        return Ok(None);
    }
    let of_decisions = decisions.digest()?;
    let kept = Days::read(lake, table).await?.filter(|kept| {
        let head = &kept.head;
        head.looks <= looks.len()
            && head.decisions == of_decisions
            && head.zone == zone.name()
            && head.grid == grid
            && digest(&looks[..head.looks]).is_ok_and(|of_looks| of_looks == head.of_looks)
    });
    let mut days = match kept {
        Some(kept) if kept.head.looks == looks.len() => return Ok(Some(kept)),
        Some(kept) => kept,
        None => Days::new(zone.name().to_owned(), grid),
    };
    let touched = dates(&zone, &looks[days.head.looks..])?;
    let mut reader = Reader {
        history,
        grid,
        looks,
        loaded: HashMap::new(),
        workflows: HashMap::new(),
        calendars: HashMap::new(),
        lakes: HashMap::new(),
        left_out: BTreeMap::new(),
    };
    for dates in touched {
        fold(&mut reader, &mut days, &zone, &dates, decisions).await?;
    }
    for (why, count) in &reader.left_out {
        let looks = if *count == 1 { "look counts" } else { "looks count" };
        let note = format!("{count} {looks} for nothing: {why}");
        if !days.head.notes.contains(&note) {
            days.head.notes.push(note);
        }
    }
    (days.head.looks, days.head.of_looks, days.head.decisions) = (looks.len(), digest(looks)?, of_decisions);
    if let Err(error) = days.keep(lake, table).await {
        tracing::debug!(error = error.full(), table, "the status could not be kept");
    }
    Ok(Some(days))
}

fn digest(looks: &[KeptLook]) -> Result<String> {
    let text = serde_json::to_vec(looks).map_err(|error| Error::internal("looks are not JSON").because(error))?;
    Ok(blake3::hash(&text).to_hex().to_string())
}

/// The zone of a table's days, and its slots, as its latest look had them.
async fn shape(history: &History<'_>, newest: &KeptLook, declared: Option<&Table>) -> Result<(Zone, SlotGrid)> {
    let recorded = history.journal.read(&newest.look.run, newest.event, 1).await?;
    let grid = match recorded.into_iter().next().map(|recorded| recorded.event) {
        Some(Event::StepSucceeded { findings: Some(record), .. } | Event::UnitsPlanned { left: Some(record), .. }) => record.scope.grid,
        _ => return Err(Error::invalid(format!("event {} of run {} is no look", newest.event, newest.look.run))),
    };
    Ok((declared.map_or_else(|| grid.zone(), Table::day_zone), grid))
}

/// A table, as the workflow of its latest look declares it.
pub(super) async fn declared(history: &History<'_>, looks: &Looks, table: &str) -> Result<Option<Table>> {
    let Some(newest) = looks.looks.iter().max_by_key(|kept| kept.look.at) else { return Ok(None) };
    let state = load(history.journal.as_ref(), &newest.look.run).await?;
    Ok(history.open.workflow_of(&state).ok().and_then(|workflow| workflow.tables.get(table).cloned()))
}

/// The days that looks touch, in groups that follow each other.
fn dates(zone: &Zone, looks: &[KeptLook]) -> Result<Vec<Vec<Date>>> {
    let mut all: BTreeSet<Date> = BTreeSet::new();
    for kept in looks {
        let (from, to) = (kept.look.interval.from(), kept.look.interval.to());
        let mut date = zone.local(from).date();
        let last = zone.local(to.saturating_sub(1.microsecond()).unwrap_or(to)).date();
        while date <= last {
            all.insert(date);
            if all.len() > MOST_DAYS {
                return Err(Error::invalid(format!("runs have looked at more than {MOST_DAYS} days of the table")));
            }
            date = date.tomorrow().map_err(|error| Error::invalid("a date is out of range").because(error))?;
        }
    }
    let mut groups: Vec<Vec<Date>> = Vec::new();
    for date in all {
        let follows = |group: &Vec<Date>| group.len() < DAYS_AT_ONCE && group.last().and_then(|last| last.tomorrow().ok()) == Some(date);
        match groups.last_mut().filter(|group| follows(group)) {
            Some(group) => group.push(date),
            None => groups.push(vec![date]),
        }
    }
    Ok(groups)
}

/// Folds all looks at some days that follow each other.
async fn fold(reader: &mut Reader<'_>, days: &mut Days, zone: &Zone, dates: &[Date], decisions: &Asides) -> Result<()> {
    let grid = reader.grid;
    let ranges = dates.iter().map(|date| Ok((*date, grid.slots_in(&zone.day(*date)?)))).collect::<Result<Vec<_>>>()?;
    let Some((first, last)) = ranges.first().zip(ranges.last()) else { return Ok(()) };
    let (range, cadence) = (SlotRange::new(first.1.first, last.1.end), grid.cadence());
    let mut order: Vec<usize> = (0..reader.looks.len()).collect();
    order.sort_by_key(|at| (reader.looks[*at].look.at, *at));
    // The newest first, until newer ones hide all others of their class and keys.
    let mut loaded: Vec<Arc<Loaded>> = Vec::new();
    let mut hides: Vec<(Class, &str, SlotRange)> = Vec::new();
    let looks = reader.looks;
    for at in order.into_iter().rev() {
        let KeptLook { look, keys, .. } = &looks[at];
        let within = grid.slots_in(&look.interval).intersection(&range);
        if within.is_empty() {
            continue;
        }
        let class = Class::of(look.kind, &look.workflow, &look.of);
        if hides
            .iter()
            .any(|(of, by, slots)| (of, *by) == (&class, keys.as_str()) && slots.first <= within.first && within.end <= slots.end)
        {
            continue;
        }
        let Some(seen) = reader.load(at).await? else { continue };
        if !seen.again {
            hides.push((class, keys, within));
        }
        loaded.push(seen);
    }
    loaded.reverse();
    // A look is needed again only for the days after these.
    let later = grid.start_of(range.end);
    let is_later = |at: &usize| looks.get(*at).is_some_and(|kept| kept.look.interval.to() > later);
    reader.loaded.retain(|at, loaded| loaded.is_none() || is_later(at));
    let expecting = loaded.iter().map(|seen| seen.expected(seen.scope.slots().intersection(&range))).collect::<Result<Vec<_>>>()?;
    let of_looks: Vec<_> = loaded
        .iter()
        .zip(&expecting)
        .map(|(seen, expecting)| {
            move |key: &Key, _: SlotRange| -> Option<SlotSet> { seen.keys.contains(key).then(|| expecting.of_key(key)) }
        })
        .collect();
    let seen: Vec<Seen<'_>> = loaded
        .iter()
        .zip(&of_looks)
        .enumerate()
        .map(|(rank, (seen, expected))| Seen {
            look: rank,
            class: &seen.class,
            slots: seen.scope.slots(),
            again: seen.again,
            expected,
            gaps: &seen.gaps,
            others: &seen.others,
        })
        .collect();
    let asides = decisions.on(grid);
    let keys: BTreeSet<&Key> = loaded.iter().flat_map(|seen| &seen.keys).collect();
    let (from, to) = (first.0, last.0);
    days.of_key.values_mut().for_each(|cells| cells.retain(|cell| cell.date < from || cell.date > to));
    for key in keys {
        let mut cells: Vec<Cell> = days_of(key, cadence, &ranges, &seen, &asides);
        cells.iter_mut().for_each(|cell| cell.look = loaded.get(cell.look).map_or(0, |seen| seen.look));
        let of_key = days.of_key.entry(key.clone()).or_default();
        let at = of_key.partition_point(|cell| cell.date < from);
        of_key.splice(at..at, cells);
    }
    Ok(())
}

/// The lake in which the status is kept: as the latest run had it.
pub(super) async fn lake(open: &OpenLake) -> Result<(History<'_>, Arc<dyn Lake>)> {
    let history = History::of(open).await?;
    let latest = history.journal.listed(open.around.clock.now()).await?.into_iter().max_by_key(|listed| listed.begun.at);
    let Some(latest) = latest else {
        return Err(Error::new(ErrorKind::NotFound, "nothing was ever run in this lake, so nothing is known about its tables"));
    };
    let lake = history.lake(Some(&latest.run)).await?;
    Ok((history, lake))
}
