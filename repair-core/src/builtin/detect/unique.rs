//! What the detectors share for tables whose key identifies a row, and `duplicates` of such tables: rows of which there are several versions that
//! no repair replaces.
//!
//! Keys and times are read first, and full rows only of keys with several versions or a repair. It holds about 40 bytes for each key of the
//! interval, the repairs around it, and about 50 bytes for each version of [`KEYS_AT_ONCE`] keys.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use futures::TryStreamExt;
use serde_json::Value;

use crate::builtin::detect::expected::{GapsConfig, always, blind_if_missing};
use crate::error::{Error, Result};
use crate::lake::overlay::live::{Live, LiveRepairs};
use crate::lake::overlay::versions::{self, LOOKBACKS, Versions};
use crate::lake::row_count::RowCountRequest;
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, ScanRequest};
use crate::model::{
    Counts, DefectKind, Findings, Fingerprints, GapList, Identity, Interval, Key, Lifetimes, MAX_EXAMPLES, Rows, Scope, SlotRange, Table,
};
use crate::plugin::StepContext;

/// How many keys are looked at in full at once. Each costs its versions; each time, all files around the interval are read.
pub(super) const KEYS_AT_ONCE: usize = 200_000;

/// The most keys with rows in one interval, which costs some 600 megabytes.
const MOST_KEYS: usize = 1 << 24;

const DAY_S: u32 = 86_400;

/// Checks that a step does not speak of series that are expected, where the table has none.
///
/// # Errors
/// `invalid` with what does not fit.
pub(super) fn fits(with: &Value, table: &Table) -> Result<()> {
    let given = |name: &&&str| with.get(**name).is_some_and(|value| **name != "calendar" || *value != always());
    match (table.rows, ["keys", "keys_from", "calendar"].iter().find(given)) {
        (Rows::Unique, Some(name)) => Err(Error::invalid(format!(
            "`{name}` says which slots of a series are expected, and table `{}` has `rows: unique`: its key identifies a row; remove `{name}`",
            table.name
        ))),
        _ => Ok(()),
    }
}

/// The scope of a step on a table whose key identifies a row.
///
/// # Errors
/// `invalid` if the step speaks of series.
pub(super) fn scope(context: &StepContext, config: &GapsConfig) -> Result<Scope> {
    let table = context.table(&config.table)?;
    let GapsConfig { keys, keys_from, calendar, .. } = config;
    let given = [("keys", keys.is_some()), ("keys_from", keys_from.is_some())];
    let with: serde_json::Map<String, Value> =
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| (name.to_owned(), Value::Null)).collect();
    fits(&Value::Object(with), table)?;
    fits(&serde_json::json!({ "calendar": calendar }), table)?;
    Ok(Scope {
        table: table.name.clone(),
        grid: table.identity().grid(),
        keys: Vec::new(),
        interval: Interval::parse_at(&config.from, &config.to, &table.day_zone(), context.now)?,
        calendar: calendar.clone(),
        lifetimes: Lifetimes::default(),
    })
}

/// Findings in which nothing is found yet, with the rows that could not be read. `again` are the findings of an earlier look.
pub(super) async fn nothing(context: &StepContext, scope: Scope, again: Option<&Findings>) -> Result<Findings> {
    let table = context.table(&scope.table)?;
    let interval = scope.interval;
    let mut found = Findings::of_gaps(scope, Counts::default(), GapList::default(), Default::default());
    if again.is_none() {
        let counted = context.lake.row_counts(table, &RowCountRequest::new(interval, DAY_S)).await.map_err(blind_if_missing)?;
        found.counts.quarantined = counted.quarantine.rows();
        (found.quarantine, found.usage) = (counted.quarantine, counted.usage);
    }
    Ok(found)
}

/// A live repair that replaces versions.
pub(super) fn replacing<'a>(live: &'a LiveRepairs, key: &Key, of: &Versions, identity: Identity) -> Option<&'a Live> {
    let mut of_key = live.of_key(key).filter(|(_, live)| live.replaces);
    of_key.find(|(slot, _)| of.times_us().iter().any(|time_us| identity.are_same_slots(*slot, *time_us))).map(|(_, live)| live)
}

/// Finds the rows with several versions.
pub(super) async fn duplicates(context: &StepContext, config: &GapsConfig, again: Option<&Findings>) -> Result<Findings> {
    let scope = match again {
        Some(before) => before.scope.clone(),
        None => self::scope(context, config)?,
    };
    let interval = scope.interval;
    let mut found = nothing(context, scope, again).await?;
    let table = context.table(&found.scope.table)?;
    let identity = table.identity();
    let asked: Option<Vec<Key>> = again.map(|before| before.gaps.by_key().into_keys().collect());
    // Keys are held as hashes of 128 bits, of which no two keys have the same.
    let hashers = [RandomState::new(), RandomState::new()];
    let hash = |key: &Key| hashers.each_ref().map(|hasher| hasher.hash_one(key));
    let mut seen: HashMap<[u64; 2], u8> = HashMap::new();
    let keys_and_times =
        |interval: Interval| ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(asked.clone()).with_columns(Vec::new());
    let mut batches = context.lake.scan(table, &keys_and_times(interval)).await.map_err(blind_if_missing)?;
    while let Some(batch) = batches.try_next().await? {
        context.check_cancelled()?;
        found.usage.rows_read += batch.num_rows() as u64;
        let places = KeyTime::of(table, &batch)?;
        for run in places.runs() {
            seen.entry(hash(&places.key(run.start))).or_insert(0);
        }
        if seen.len() > MOST_KEYS {
            return Err(Error::invalid(format!(
                "table `{}` has rows of more than {MOST_KEYS} keys in {interval}, too many to look at in one step; use a shorter interval",
                table.name
            )));
        }
    }
    let mut wanted: BTreeSet<Key> = BTreeSet::new();
    let mut batches = context.lake.scan(table, &keys_and_times(identity.widened(&interval, 1))).await?;
    while let Some(batch) = batches.try_next().await? {
        context.check_cancelled()?;
        found.usage.rows_read += batch.num_rows() as u64;
        let places = KeyTime::of(table, &batch)?;
        for run in places.runs() {
            let key = places.key(run.start);
            let Some(rows) = seen.get_mut(&hash(&key)) else { continue };
            let before = std::mem::replace(rows, rows.saturating_add(u8::try_from(run.len()).unwrap_or(u8::MAX)));
            if before <= 1 && *rows > 1 {
                wanted.insert(key);
            }
        }
    }
    let live = LiveRepairs::of_all(context.lake.as_ref(), table, identity.widened(&interval, LOOKBACKS), asked.as_deref(), &[]).await?;
    for (key, _, live) in live.iter() {
        if live.replaces && seen.contains_key(&hash(key)) {
            wanted.insert(key.clone());
        }
    }
    let keys = seen.len() as u64;
    drop(seen);
    let counts = &mut found.counts;
    (counts.expected, counts.present, counts.audited_keys) = (keys, keys, keys);
    let is_within = |time_us: &&i64| found.scope.slots().contains(**time_us);
    let mut judged = Fingerprints::default();
    let wanted: Vec<Key> = wanted.into_iter().collect();
    let total = wanted.chunks(KEYS_AT_ONCE).len() as u64;
    for (done, keys) in (1u64..).zip(wanted.chunks(KEYS_AT_ONCE)) {
        context.check_cancelled()?;
        let (rows, read) = versions::read(context.lake.as_ref(), table, &interval, keys.to_vec()).await?;
        found.usage.rows_read += read;
        for (key, versions) in rows.iter().flat_map(|(key, of_key)| of_key.iter().map(move |versions| (key, versions))) {
            let Some(&slot) = versions.times_us().iter().find(is_within) else { continue };
            let (rows, fingerprint) = (versions.len() as u64, versions.fingerprint());
            let replacing = replacing(&live, key, versions, identity);
            let counted = u64::from(replacing.is_some_and(|live| !live.removes));
            match replacing.map(|live| live.replaced) {
                Some(known) if known == Some(fingerprint) => counts.replaced += counted,
                _ if rows > 1 => {
                    counts.defective += 1;
                    counts.duplicates += rows - 1;
                    found.gaps.push(key, SlotRange::new(slot, slot + 1));
                    judged.insert(key, slot, fingerprint);
                    if found.examples.len() < MAX_EXAMPLES {
                        let far = if versions.are_near(identity) { "" } else { ", further apart than the lookback" };
                        found.examples.push(format!("{key} at {}: {rows} versions{far}", found.scope.grid.time_of(slot)));
                    }
                }
                Some(_) => {
                    counts.replaced += counted;
                    counts.changed += 1;
                }
                None => {}
            }
        }
        context.progress.advance(&context.step, done, total);
    }
    counts.gaps = found.gaps.len() as u64;
    Ok(Findings { kind: DefectKind::Duplicate, judged, ..found })
}
