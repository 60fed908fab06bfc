//! The detector `arrivals`: finds the units in which a table arrives (the folder of a day, or a stretch of time of a given length) that hold
//! no row, or too few.
//!
//! In a table with a cadence, it finds the expected slots of such units that hold no row, so that any repairer can fill them. A table without
//! a cadence has no slots; the units themselves are found then, as slots of a grid of their own.

mod unit;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::unit::{Every, Unit, grain_s};
use self::verdict::{Held, MinRows, Verdict, verdicts};
use crate::builtin::detect::expected::{GapsConfig, blind_if_missing, expected_keys};
use crate::builtin::detect::gaps::observed;
use crate::engine::aside;
use crate::error::{Error, Result};
use crate::lake::{RowCountRequest, partition};
use crate::model::{
    Cadence, Counts, ExpectedKeys, Findings, GapList, Interval, Key, KeysFrom, Lifetimes, Quarantine, Scope, SlotGrid, SlotRange, SlotSet,
    Table, UnitCounts, Usage, Zone,
};
use crate::plugin::{Detector, PluginKind, Registry, Sensor, StepContext};
use crate::workflow::parse_duration;

/// How many units of each kind a notice names.
const MOST_NAMED: usize = 10;

/// How many verdicts one detection may need: units times keys.
const MOST_VERDICTS: usize = 16 << 20;

/// How many counts are requested at once: stretches of time times keys.
const COUNTS_AT_ONCE: u64 = 4 << 20;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ArrivalsConfig {
    /// The table to examine.
    #[schemars(extend("x-names" = "table"))]
    table: String,
    /// The first unit is the first that begins at or after this: a date (in the zone of the table's folders; if they name no time, in the
    /// table's zone), an instant, or relative to the run's now, such as `yesterday` or `now - 7d`.
    from: String,
    /// The last unit is the last that begins before the end of this: a date (included), an instant (not included), or relative to the run's
    /// now: `today` and other days are included.
    to: String,
    /// The length of a unit: 1h, 1d, 1w, 1mo, 1y, or another part of a day, such as 15m. By default, that of the table's folders.
    #[serde(default)]
    every: Option<Every>,
    /// The calendar that defines which units are expected.
    #[serde(default = "super::expected::always")]
    #[schemars(extend("x-names" = "calendar"))]
    calendar: String,
    /// How many rows a unit needs: a number, or a share of the median of the other units, such as 50%. By default, one row is enough.
    #[serde(default)]
    min_rows: Option<MinRows>,
    /// The keys whose rows count, by default those under `keys` of the table: a list of values (or of lists, if the table has several key
    /// columns), a file, or another table that lists them. A table with a key and a cadence needs them; in others, all rows count otherwise.
    #[serde(default)]
    keys: Option<ExpectedKeys>,
    /// Another table that lists the keys: a short form of `keys`.
    #[serde(default)]
    keys_from: Option<KeysFrom>,
    /// Whether each key must arrive in each unit. By default, the rows of all keys count together.
    #[serde(default)]
    per_key: bool,
    /// How long after its end a unit may still be incomplete, e.g. 2h, counted from the run's now. Younger units are not expected yet. By
    /// default, and at least, the table's `settles_after`.
    #[serde(default)]
    settles_after: Option<String>,
    /// Whether it is fine that no unit at all is expected, as on a day on which a market is closed. Otherwise the step is blind then.
    #[serde(default)]
    allow_empty: bool,
}

pub(super) fn register(registry: &mut Registry) {
    registry.detector("arrivals", "finds partitions, or other units of time, that did not arrive or hold too few rows", Arrivals::new);
    registry.takes_unique_rows(PluginKind::Detector, "arrivals");
    registry.sensor("arrivals", "counts partitions, or other units of time, that did not arrive or hold too few rows", Arrivals::new);
}

/// The detector `arrivals`.
struct Arrivals {
    config: ArrivalsConfig,
    settles_after: Option<SignedDuration>,
}

impl Arrivals {
    fn new(config: ArrivalsConfig) -> Result<Self> {
        Interval::check(&config.from, &config.to)?;
        if config.keys.is_some() && config.keys_from.is_some() {
            return Err(Error::invalid("`keys` and `keys_from` are both given; keep one of them"));
        }
        let settles_after = config.settles_after.as_deref().map(parse_duration).transpose()?.map(signed);
        Ok(Self { config, settles_after })
    }
}

fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[async_trait]
impl Sensor for Arrivals {
    async fn sense(&self, context: &StepContext) -> Result<Value> {
        // Whoever waits for slots does not wait for those that people have set aside.
        let counts = aside::detect(self, context, None, None, None).await?.counts;
        serde_json::to_value(counts).map_err(|error| Error::internal("counts are not JSON").because(error))
    }
}

#[async_trait]
impl Detector for Arrivals {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let table = context.table(&self.config.table)?;
        let (every, zone) = self.clock(table)?;
        let units = match again {
            Some(before) => units(table, every, &zone, &before.scope.interval)?,
            None => self.settled(context, table, every, &zone)?,
        };
        let Some(interval) = hull(&units) else { return self.nothing(context, table, every, &zone).await };
        let found = match (table.cadence, again) {
            (Some(_), None) => self.slots(context, every, units, interval).await?,
            (Some(_), Some(before)) => self.slots_again(context, every, &units, before).await?,
            (None, _) => self.rows(context, table, (every, &zone), units, again).await?,
        };
        let nobody = found.counts.units.is_none_or(|units| units.expected == 0);
        if again.is_none() && nobody && !self.config.allow_empty {
            return Err(self.nothing_expected(table, every, &interval));
        }
        Ok(found)
    }
}

/// The units of a table that begin within an interval. The folder of an hour that the clock shows twice holds both.
fn units(table: &Table, every: Every, zone: &Zone, interval: &Interval) -> Result<Vec<Unit>> {
    let units = every.units(zone, interval)?;
    let are_folders = partition::folders(table).is_some_and(|(unit, _)| Every::from(unit) == every);
    if are_folders { Ok(units) } else { every.apart(zone, units) }
}

/// The interval that units cover together.
fn hull(units: &[Unit]) -> Option<Interval> {
    Some(units.first()?.interval.hull(&units.last()?.interval))
}

impl Arrivals {
    /// The length of a unit, and the zone of its clock.
    fn clock(&self, table: &Table) -> Result<(Every, Zone)> {
        match (self.config.every, partition::folders(table)) {
            (every, Some((unit, zone))) => Ok((every.unwrap_or(unit.into()), zone)),
            (Some(every), None) => Ok((every, table.day_zone())),
            (None, None) => Err(Error::invalid(format!(
                "the folders of table `{}` name no time, so the units in which it arrives are unknown; give their length, e.g. `every: 1d`",
                table.name
            ))),
        }
    }

    fn asked(&self, context: &StepContext, zone: &Zone) -> Result<Interval> {
        Interval::parse_at(&self.config.from, &self.config.to, zone, context.now)
    }

    /// The units that begin in the interval and have settled at the run's now.
    fn settled(&self, context: &StepContext, table: &Table, every: Every, zone: &Zone) -> Result<Vec<Unit>> {
        let mut units = units(table, every, zone, &self.asked(context, zone)?)?;
        if let Some(after) = self.settles_after.max(table.settles_after.map(signed)) {
            let last = context.now.checked_sub(after).unwrap_or(Timestamp::MIN);
            units.retain(|unit| unit.interval.to() <= last);
        }
        Ok(units)
    }

    /// What is found where there is no unit.
    async fn nothing(&self, context: &StepContext, table: &Table, every: Every, zone: &Zone) -> Result<Findings> {
        let interval = self.asked(context, zone)?;
        if !self.config.allow_empty {
            return Err(self.nothing_expected(table, every, &interval));
        }
        let scope = if table.cadence.is_some() {
            Scope { interval, ..self.series().scope(context).await? }
        } else {
            let (keys, lifetimes) = self.keys(context, table, &interval).await?;
            let keys = self.groups(keys.as_deref());
            let calendar = self.config.calendar.clone();
            Scope { table: table.name.clone(), grid: grid(every, zone, &[])?, keys, interval, calendar, lifetimes }
        };
        let counts = Counts { audited_keys: scope.keys.len() as u64, units: Some(UnitCounts::default()), ..Counts::default() };
        Ok(Findings::of_gaps(scope, counts, GapList::default(), Usage::default()))
    }

    fn nothing_expected(&self, table: &Table, every: Every, interval: &Interval) -> Error {
        let settles = self.settles_after.max(table.settles_after.map(signed));
        let young = settles.map(|after| format!(", and {every} that ended less than {after:#} ago are not expected yet"));
        Error::blind(format!(
            "none of the {every} that begin from {interval} is expected of table `{}`: calendar `{}` has none there{}; nothing was examined. Correct \
             `from`, `to` or `calendar`, or write `allow_empty: true` under `with` if there may be nothing to expect",
            table.name,
            self.config.calendar,
            young.unwrap_or_default()
        ))
    }

    /// The configuration of a search for missing slots.
    fn series(&self) -> GapsConfig {
        let ArrivalsConfig { table, from, to, calendar, keys, keys_from, .. } = self.config.clone();
        GapsConfig { table, from, to, calendar, keys, keys_from, allow_empty: true }
    }

    /// The keys whose rows count, `None` for all rows; and the lifetimes of those that are judged one by one.
    async fn keys(&self, context: &StepContext, table: &Table, interval: &Interval) -> Result<(Option<Vec<Key>>, Lifetimes)> {
        let own = self.config.keys.clone().or_else(|| self.config.keys_from.clone().map(ExpectedKeys::Table));
        let Some((keys, lifetimes)) = expected_keys(context, table, own.as_ref(), interval, self.config.allow_empty).await? else {
            return if self.config.per_key {
                Err(Error::invalid("`per_key` expects each key in each unit, and no keys are given; give `keys` to the step or the table"))
            } else {
                Ok((None, Lifetimes::default()))
            };
        };
        if lifetimes.iter().any(|lifetime| lifetime.calendar.is_some() || lifetime.every.is_some()) {
            return Err(Error::invalid(format!(
                "keys of table `{}` have calendars or cadences of their own, which needs a table with a cadence; add one, or leave out `calendar` and `cadence` under `keys`",
                table.name
            )));
        }
        Ok((Some(keys), if self.config.per_key { lifetimes } else { Lifetimes::default() }))
    }

    /// The keys that are judged one by one; the empty key stands for all rows together.
    fn groups(&self, keys: Option<&[Key]>) -> Vec<Key> {
        let mut groups = match keys {
            Some(keys) if self.config.per_key => keys.to_vec(),
            _ => vec![Key::default()],
        };
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Finds the slots without a row in units of a series that did not arrive.
    async fn slots(&self, context: &StepContext, every: Every, units: Vec<Unit>, interval: Interval) -> Result<Findings> {
        let scope = Scope { interval, ..self.series().scope(context).await? };
        self.few_enough(units.len(), if self.config.per_key { scope.keys.len() } else { 1 })?;
        let ranges: Vec<SlotRange> = units.iter().map(|unit| scope.grid.slots_in(&unit.interval)).collect();
        let mut tally = Tally::new(&ranges, self.config.per_key);
        let mut found = observed(context, &scope, None, true, &mut |key, expected, missing| tally.add(key, expected, missing)).await?;
        let mut report = Report::new(every, &units, self.config.per_key, "slots");
        let mut flags: BTreeMap<Key, Vec<bool>> = BTreeMap::new();
        for (key, counts) in &tally.counts {
            let held = |(expected, missing): &(u64, u64)| (*expected > 0).then(|| Held { rows: expected - missing, room: *expected });
            let held: Vec<Option<Held>> = counts.iter().map(held).collect();
            flags.insert(key.clone(), report.add(key, &held, self.config.min_rows, |_| true));
        }
        let mut gaps = GapList::default();
        for (key, slots) in found.gaps.iter() {
            let Some(flags) = flags.get(tally.group(key)) else { continue };
            for at in tally.within(slots).filter(|at| flags.get(*at).copied().unwrap_or(false)) {
                gaps.push(key, ranges[at].intersection(&slots));
            }
        }
        let (missing, gaps_of) = (gaps.missing(), gaps.len() as u64);
        let expected = found.counts.present + found.counts.absent + missing;
        found.counts = Counts { expected, missing, gaps: gaps_of, units: Some(report.counts), ..found.counts };
        found.notices.extend(report.notices(&self.config.table)?);
        found.gaps = gaps;
        Ok(found)
    }

    /// Looks again at slots that were found.
    async fn slots_again(&self, context: &StepContext, every: Every, units: &[Unit], before: &Findings) -> Result<Findings> {
        let ranges: Vec<SlotRange> = units.iter().map(|unit| before.scope.grid.slots_in(&unit.interval)).collect();
        let mut tally = Tally::new(&ranges, self.config.per_key);
        let mut observer = |key: &Key, expected: &SlotSet, missing: &SlotSet| tally.add(key, expected, missing);
        let mut found = observed(context, &before.scope, Some(before), true, &mut observer).await?;
        let (mut counts, mut left) = (UnitCounts::default(), Named::default());
        for (key, of_key) in &tally.counts {
            for (unit, (expected, missing)) in units.iter().zip(of_key).filter(|(_, (expected, _))| *expected > 0) {
                counts.expected += 1;
                counts.missing += u64::from(missing == expected);
                counts.short += u64::from(*missing > 0 && missing < expected);
                if *missing > 0 {
                    let slots = if *missing == 1 { "slot" } else { "slots" };
                    left.add(|| format!("{} ({missing} {slots})", named(every, unit, key)));
                }
            }
        }
        found.counts.units = Some(counts);
        if left.count > 0 {
            let table = &self.config.table;
            found.notices.push(format!(
                "of {} {every} of table `{table}` that were found, {} not complete yet: {left}",
                counts.expected,
                left.is()
            ));
        }
        Ok(found)
    }

    /// Finds the units with too few rows of a table without slots.
    async fn rows(
        &self,
        context: &StepContext,
        table: &Table,
        (every, zone): (Every, &Zone),
        units: Vec<Unit>,
        again: Option<&Findings>,
    ) -> Result<Findings> {
        let whole = hull(&units).ok_or_else(|| Error::internal("there is no unit to examine"))?;
        let (keys, lifetimes) = self.keys(context, table, &whole).await?;
        let groups = self.groups(keys.as_deref());
        self.few_enough(units.len(), groups.len())?;
        let expected = every.expected(context.calendar(&self.config.calendar)?.as_ref(), &units)?;
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => {
                let (grid, calendar) = (grid(every, zone, &units)?, self.config.calendar.clone());
                Scope { table: table.name.clone(), grid, keys: groups.clone(), interval: whole, calendar, lifetimes }
            }
        };
        let slots: Vec<SlotRange> = units.iter().map(|unit| scope.grid.slots_in(&unit.interval)).collect();
        let alive = |key: &Key, at: usize| scope.lifetimes.of(key).is_none_or(|lifetime| lifetime.is_alive(units[at].interval.from()));
        let wanted = |key: &Key, at: usize| alive(key, at) && again.is_none_or(|before| before.gaps.contains(key, slots[at].first));
        // Of units that are looked at again, the others matter only to a comparison.
        let all = matches!(self.config.min_rows, Some(MinRows::Share(_)));
        let read: Vec<bool> = (0..units.len()).map(|at| expected[at] && (all || groups.iter().any(|key| wanted(key, at)))).collect();
        let counted = self.counted(context, table, &units, &read, keys.as_deref()).await?;
        let mut report = Report::new(every, &units, self.config.per_key, "rows");
        let mut gaps = GapList::default();
        let mut looked_at = 0;
        for key in &groups {
            let rows = counted.rows.get(key).map(Vec::as_slice).unwrap_or_default();
            let held = |at: usize| (read[at] && alive(key, at)).then(|| Held { rows: rows.get(at).copied().unwrap_or(0), room: u64::MAX });
            let held: Vec<Option<Held>> = (0..units.len()).map(held).collect();
            let flags = report.add(key, &held, self.config.min_rows, |at| wanted(key, at));
            for at in (0..units.len()).filter(|&at| expected[at] && wanted(key, at)) {
                looked_at += slots[at].len();
                if flags[at] {
                    gaps.push(key, slots[at]);
                }
            }
        }
        let missing = gaps.missing();
        let counts = Counts {
            expected: looked_at,
            present: looked_at - missing,
            missing,
            gaps: gaps.len() as u64,
            quarantined: counted.quarantine.rows(),
            audited_keys: groups.len() as u64,
            units: Some(report.counts),
            ..Counts::default()
        };
        let notices = report.notices(&self.config.table)?.into_iter().collect();
        Ok(Findings { quarantine: counted.quarantine, notices, ..Findings::of_gaps(scope, counts, gaps, counted.usage) })
    }

    /// The rows of each unit, for those that are to be read.
    async fn counted(&self, context: &StepContext, table: &Table, units: &[Unit], read: &[bool], keys: Option<&[Key]>) -> Result<Counted> {
        let every_s = grain_s(units);
        let mut counted = Counted::default();
        let at_once = (COUNTS_AT_ONCE / u64::try_from(keys.map_or(1, <[Key]>::len)).unwrap_or(u64::MAX).max(1)).max(1);
        let length = |unit: &Unit| unit.interval.to().as_second().abs_diff(unit.interval.from().as_second()) / u64::from(every_s);
        let mut next = 0;
        while let Some(first) = (next..units.len()).find(|&at| read[at]) {
            context.check_cancelled()?;
            let (mut last, mut end, mut stretches) = (first, first, 0);
            while end < units.len() && (end == first || stretches + length(&units[end]) <= at_once) {
                stretches += length(&units[end]);
                if read[end] {
                    last = end;
                }
                end += 1;
            }
            let request =
                RowCountRequest::new(units[first].interval.hull(&units[last].interval), every_s).of_keys(keys.map(<[Key]>::to_vec));
            let found = context.lake.row_counts(table, &request).await.map_err(blind_if_missing)?;
            for (key, stretches) in found.rows {
                let key = if self.config.per_key { key } else { Key::default() };
                let rows = counted.rows.entry(key).or_insert_with(|| vec![0; units.len()]);
                for (stretch, count) in stretches {
                    let begins_s = stretch.saturating_mul(i64::from(every_s));
                    let at = units.partition_point(|unit| unit.interval.to().as_second() <= begins_s);
                    if let Some(rows) = rows.get_mut(at) {
                        *rows += count;
                    }
                }
            }
            counted.quarantine.merge(found.quarantine);
            counted.usage += found.usage;
            next = last + 1;
            context.progress.advance(&context.step, next as u64, units.len() as u64);
        }
        Ok(counted)
    }

    fn few_enough(&self, units: usize, keys: usize) -> Result<()> {
        if units.saturating_mul(keys) > MOST_VERDICTS {
            return Err(Error::invalid(format!(
                "{units} units of {keys} keys each are too many for one step; use a shorter interval, fewer keys, or no `per_key`"
            )));
        }
        Ok(())
    }
}

/// What the lake counted, by key and unit.
#[derive(Default)]
struct Counted {
    rows: BTreeMap<Key, Vec<u64>>,
    quarantine: Quarantine,
    usage: Usage,
}

/// A grid in which each unit is a slot. Where the clock is set, parts of a day are not as long as slots, and each unit is a run of slots of
/// the longest length with which that is so.
fn grid(every: Every, zone: &Zone, units: &[Unit]) -> Result<SlotGrid> {
    let of = |cadence: Cadence, zone: Zone| Table::implicit("units", "time").with_cadence(cadence).with_zone(zone).grid();
    let whole = of(every.cadence()?, zone.clone())?;
    let is_slot = |unit: &Unit| {
        let slots = whole.slots_in(&unit.interval);
        slots.len() == 1 && whole.interval_of(slots) == Some(unit.interval)
    };
    if units.iter().all(is_slot) { Ok(whole) } else { of(Cadence::from_seconds(grain_s(units))?, Zone::utc()) }
}

/// Counts the expected slots of each unit, and those of them that are missing.
struct Tally<'a> {
    units: &'a [SlotRange],
    per_key: bool,
    /// By key, or under the empty key for all.
    counts: BTreeMap<Key, Vec<(u64, u64)>>,
    all: Key,
}

impl<'a> Tally<'a> {
    fn new(units: &'a [SlotRange], per_key: bool) -> Self {
        Self { units, per_key, counts: BTreeMap::new(), all: Key::default() }
    }

    /// The key under which the slots of a key are counted.
    fn group<'k>(&'k self, key: &'k Key) -> &'k Key {
        if self.per_key { key } else { &self.all }
    }

    /// The units that overlap a range of slots.
    fn within(&self, slots: SlotRange) -> std::ops::Range<usize> {
        let first = self.units.partition_point(|unit| unit.end <= slots.first);
        first..self.units.partition_point(|unit| unit.first < slots.end).max(first)
    }

    fn add(&mut self, key: &Key, expected: &SlotSet, missing: &SlotSet) {
        let within = self.within(expected.range());
        let group = self.group(key).clone();
        let counts = self.counts.entry(group).or_insert_with(|| vec![(0, 0); self.units.len()]);
        for at in within {
            counts[at].0 += expected.count_in(self.units[at]);
            counts[at].1 += missing.count_in(self.units[at]);
        }
    }
}

/// The name of a unit, with the key that it is judged for.
fn named(every: Every, unit: &Unit, key: &Key) -> String {
    let name = every.name(unit);
    if key.values().len() == 0 { name } else { format!("{key} {name}") }
}

/// Units of one kind, of which the first few are named.
#[derive(Default)]
struct Named {
    count: u64,
    first: Vec<String>,
}

impl Named {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < MOST_NAMED {
            self.first.push(name());
        }
    }
}

impl Named {
    /// As many, with the verb.
    fn is(&self) -> String {
        format!("{} {}", self.count, if self.count == 1 { "is" } else { "are" })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        let more = self.count - self.first.len() as u64;
        if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
    }
}

/// What is reported of units.
struct Report<'a> {
    every: Every,
    units: &'a [Unit],
    per_key: bool,
    /// What is counted in a unit.
    what: &'static str,
    counts: UnitCounts,
    missing: Named,
    short: Named,
    alone: Named,
}

impl<'a> Report<'a> {
    fn new(every: Every, units: &'a [Unit], per_key: bool, what: &'static str) -> Self {
        Self {
            every,
            units,
            per_key,
            what,
            counts: UnitCounts::default(),
            missing: Named::default(),
            short: Named::default(),
            alone: Named::default(),
        }
    }

    /// Judges the units of a key, counts those that are wanted, and returns which of them were found not to have arrived.
    fn add(&mut self, key: &Key, held: &[Option<Held>], min: Option<MinRows>, wanted: impl Fn(usize) -> bool) -> Vec<bool> {
        let mut flags = vec![false; held.len()];
        for (at, (verdict, held)) in verdicts(min, held).into_iter().zip(held).enumerate() {
            let (Some(verdict), Some(held), true) = (verdict, held, wanted(at)) else { continue };
            self.counts.expected += 1;
            flags[at] = verdict.is_found();
            let name = || named(self.every, &self.units[at], key);
            match verdict {
                Verdict::Arrived => {}
                Verdict::Missing => self.missing.add(name),
                Verdict::Short(least) => self.short.add(|| format!("{} ({} of at least {least} {})", name(), held.rows, self.what)),
                Verdict::Alone => self.alone.add(name),
            }
        }
        self.counts = UnitCounts { missing: self.missing.count, short: self.short.count, ..self.counts };
        flags
    }

    /// The report in words.
    ///
    /// # Errors
    /// `blind` if nothing was found, but not everything could be judged.
    fn notices(&self, table: &str) -> Result<Option<String>> {
        let of = format!("{} {}{}", self.counts.expected, self.every, if self.per_key { ", counted for each key" } else { "" });
        let mut said = Vec::new();
        if self.missing.count > 0 {
            said.push(format!("{} did not arrive: {}", self.missing.count, self.missing));
        }
        if self.short.count > 0 {
            let hold = if self.short.count == 1 { "holds" } else { "hold" };
            said.push(format!("{} {hold} too few {}: {}", self.short.count, self.what, self.short));
        }
        if self.alone.count > 0 {
            let alone = format!("{} cannot be judged, because no other holds {}: {}", self.alone.count, self.what, self.alone);
            if said.is_empty() {
                return Err(Error::blind(format!(
                    "of {of} of table `{table}`, {alone}; examine a longer interval, or give `min_rows` as a number"
                )));
            }
            said.push(alone);
        }
        Ok((!said.is_empty()).then(|| format!("of {of} of table `{table}`, {}", said.join("; "))))
    }
}
