//! The detector `duplicates`: finds expected slots with several raw rows that no repair replaces.
//!
//! Presence shows how many rows the slots of a word hold together. Rows are read, in one scan, only where there are too many, and where
//! repairs replace rows. Of a table whose key identifies a row, it finds rows with several versions.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::TryStreamExt;

use crate::builtin::detect::expected::{Examined, GapsConfig, blind_if_missing, interval_of};
use crate::builtin::detect::gaps::{Searched, search};
use crate::builtin::detect::unique;
use crate::error::Result;
use crate::lake::overlay::fingerprint::Hashing;
use crate::lake::overlay::live::LiveRepairs;
use crate::lake::{Layer, ScanRequest};
use crate::model::MAX_EXAMPLES;
use crate::model::{DefectKind, Findings, Fingerprints, GapList, Key, Rows, Seen, SlotRange};
use crate::plugin::{Detector, PluginKind, Registry, StepContext};

pub(super) fn register(registry: &mut Registry) {
    registry.detector(
        "duplicates",
        "finds the expected slots of a series that hold several rows, or rows with several versions",
        |config: GapsConfig| {
            config.check()?;
            Ok(Duplicates { config })
        },
    );
    registry.finds("duplicates", DefectKind::Duplicate);
    registry.needs_one_row(PluginKind::Detector, "duplicates");
    registry.takes_unique_rows(PluginKind::Detector, "duplicates");
    registry.fits(PluginKind::Detector, "duplicates", unique::fits);
}

/// The detector `duplicates`.
struct Duplicates {
    config: GapsConfig,
}

#[async_trait]
impl Detector for Duplicates {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        if context.table(&self.config.table)?.rows == Rows::Unique {
            return unique::duplicates(context, &self.config, again).await;
        }
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.config.scope(context).await?,
        };
        context.table(&scope.table)?.check_one_row("`duplicates`")?;
        let searched = search(context, &scope, again, self.config.allow_empty, None, &mut |_, _, _| {}).await?;
        let Searched { findings: mut found, crowded, .. } = searched;
        let examined = Examined::of(context, &scope, again)?;
        let Some(hull) = examined.hull() else { return Ok(Findings { kind: DefectKind::Duplicate, ..found }) };
        let interval = interval_of(&scope, hull)?;
        let table = context.table(&scope.table)?;
        let keys = examined.keys();
        let live = LiveRepairs::read(context.lake.as_ref(), table, interval, &keys, &[]).await?;
        // In order of key, then slot.
        let mut wanted: BTreeSet<(Key, i64)> = BTreeSet::new();
        for (key, slots) in crowded.iter() {
            wanted.extend((slots.first..slots.end).map(|slot| (key.clone(), slot)));
        }
        for key in &keys {
            let replaced = live.of_key(key).filter(|(slot, live)| live.replaces && examined.contains(key, *slot));
            wanted.extend(replaced.map(|(slot, _)| (key.clone(), slot)));
        }
        let mut hashing = Hashing::default();
        if let (Some(first), Some(last)) = (wanted.iter().map(|place| place.1).min(), wanted.iter().map(|place| place.1).max()) {
            let interval = interval_of(&scope, SlotRange::new(first, last + 1))?;
            let mut keys: Vec<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
            keys.dedup();
            let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys);
            let mut rows = context.lake.scan(table, &request).await.map_err(blind_if_missing)?;
            while let Some(batch) = rows.try_next().await? {
                context.check_cancelled()?;
                found.usage.rows_read += batch.num_rows() as u64;
                hashing.add(table, scope.grid, &batch, |key, slot| wanted.contains(&(key.clone(), slot)))?;
            }
        }
        let counts = &mut found.counts;
        let (mut gaps, mut judged, mut examples) = (GapList::default(), Fingerprints::default(), Vec::new());
        let mut replaced: Vec<(Key, i64)> = Vec::new();
        counts.duplicates = 0;
        for (key, slot) in &wanted {
            let rows = hashing.rows(key, *slot);
            let fingerprint = hashing.fingerprint(key, *slot);
            let replacing = live.get(key, *slot).filter(|live| live.replaces);
            // A slot whose rows are removed has none, and is counted as absent.
            let counted = u64::from(replacing.is_some_and(|live| !live.removes));
            match replacing.map(|live| live.replaced) {
                Some(known) if known == Some(fingerprint) => {
                    counts.replaced += counted;
                    replaced.extend((counted > 0).then(|| (key.clone(), *slot)));
                }
                _ if rows > 1 => {
                    counts.defective += 1;
                    counts.duplicates += rows - 1;
                    gaps.push(key, SlotRange::new(*slot, slot + 1));
                    judged.insert(key, *slot, fingerprint);
                    if examples.len() < MAX_EXAMPLES {
                        examples.push(format!("{key} at {}: {rows} rows", scope.grid.time_of(*slot)));
                    }
                }
                Some(_) => {
                    counts.replaced += counted;
                    replaced.extend((counted > 0).then(|| (key.clone(), *slot)));
                    counts.changed += 1;
                }
                None => {}
            }
        }
        counts.gaps = gaps.len() as u64;
        found.seen = Some(Seen { replaced: GapList::of_slots(replaced), ..Seen::default() });
        Ok(Findings { kind: DefectKind::Duplicate, gaps, judged, examples, ..found })
    }
}
