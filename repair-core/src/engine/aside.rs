//! What people have set aside is kept from repairs: in findings, where it is counted apart, and in units.

use crate::error::{Error, Result};
use crate::lake::overlay::aside::{Aside, AsideSlots, Asides, Verdict};
use crate::lake::shape::KeyTime;
use crate::model::{DefectKind, Findings, Fix, GapList, Table, Unit, Wanted};
use crate::plugin::{Detector, GapSink, StepContext};

/// Detects, and sets aside what people have decided about. `named` is the table that the detector's configuration names: if nothing of it is set
/// aside, its gaps are handed over as they are found; otherwise they are kept until all are found.
///
/// # Errors
/// Those of the detector and of the lake.
pub(crate) async fn detect(
    detector: &dyn Detector,
    context: &StepContext,
    again: Option<&Findings>,
    sink: Option<&GapSink>,
    named: Option<&str>,
) -> Result<Findings> {
    let Some(sink) = sink else {
        let found = detector.detect(context, again).await?;
        return set_aside(context, found).await;
    };
    let named = again.map(|before| before.scope.table.as_str()).or(named).and_then(|name| context.tables.get(name));
    if let Some(table) = named
        && Asides::read(context.lake.as_ref(), table).await?.is_empty()
    {
        let found = detector.detect_into(context, again, sink).await?;
        if found.scope.table == table.name {
            return Ok(found);
        }
        let other = context.table(&found.scope.table)?;
        if Asides::read(context.lake.as_ref(), other).await?.is_empty() {
            return Ok(found);
        }
        let message = format!("the detector names table `{}` and has looked at table `{}`", table.name, other.name);
        return Err(Error::internal(message));
    }
    let (own, mut handed_over) = GapSink::new();
    let detecting = async {
        let found = detector.detect_into(context, again, &own).await;
        drop(own);
        found
    };
    let collecting = async {
        let mut all = GapList::default();
        while let Some(gaps) = handed_over.recv().await {
            all.append(gaps);
        }
        all
    };
    let (found, collected) = futures::join!(detecting, collecting);
    let mut found = found?;
    if !collected.is_empty() {
        found.gaps = collected;
    }
    set_aside(context, found).await
}

/// Findings without what people have set aside, which is counted apart.
///
/// # Errors
/// Those of the lake.
pub(crate) async fn set_aside(context: &StepContext, found: Findings) -> Result<Findings> {
    // What is computed again from a table is not repaired in it.
    if found.kind == DefectKind::Stale || found.gaps.is_empty() {
        return Ok(found);
    }
    let asides = Asides::read(context.lake.as_ref(), context.table(&found.scope.table)?).await?;
    Ok(if asides.is_empty() { found } else { without(found, &asides) })
}

fn without(mut found: Findings, asides: &Asides) -> Findings {
    let slots = asides.on(found.scope.grid);
    let counts = &mut found.counts;
    let (mut kept, mut aside) = (GapList::default(), GapList::default());
    for (key, range) in found.gaps.iter() {
        for (part, decided) in slots.cut(key, range) {
            let Some(decided) = decided else {
                kept.push(key, part);
                continue;
            };
            aside.push(key, part);
            let count = match decided.verdict {
                Verdict::Frozen => &mut counts.frozen,
                Verdict::HandledElsewhere => &mut counts.elsewhere,
                Verdict::GivenUp => &mut counts.given_up,
            };
            *count += part.len();
            let cells = (part.first..part.end).filter_map(|slot| found.cells.get(key, slot)).map(|cells| cells.columns.len() as u64);
            counts.cells = counts.cells.saturating_sub(cells.sum());
        }
    }
    if aside.is_empty() {
        return found;
    }
    let wrong = if found.kind.is_missing() { &mut counts.missing } else { &mut counts.defective };
    *wrong = wrong.saturating_sub(aside.missing());
    counts.gaps = kept.len() as u64;
    let mut deleted = GapList::default();
    for (key, range) in found.deleted.iter() {
        slots.cut(key, range).into_iter().filter(|(_, decided)| decided.is_none()).for_each(|(part, _)| deleted.push(key, part));
    }
    log(asides, &found, &aside);
    (found.gaps, found.deleted) = (kept, deleted);
    found.aside = aside;
    found
}

/// Says how many slots are set aside, and by whom. That is no problem of the run: people have decided it.
fn log(asides: &Asides, found: &Findings, aside: &GapList) {
    let slots = asides.on(found.scope.grid);
    let first = aside.iter().next().and_then(|(key, range)| slots.get(key, range.first));
    let (first, kind) = (first.map(Aside::in_words).unwrap_or_default(), found.kind.as_str());
    tracing::info!(table = found.scope.table, kind, slots = aside.missing(), first, "people have set slots aside, so nothing repairs them");
}

/// The slots of a unit that nobody has set aside, and the first decision about the others.
pub(crate) fn narrowed<'a>(unit: &Unit, slots: &AsideSlots<'a>) -> (Unit, Option<&'a Aside>) {
    let (mut wanted, mut first) = (Vec::with_capacity(unit.wanted.len()), None);
    for Wanted { key, slots: ranges } in &unit.wanted {
        let mut kept = Vec::with_capacity(ranges.len());
        for range in ranges {
            for (part, decided) in slots.cut(key, *range) {
                match decided {
                    Some(decided) => first = first.or(Some(decided)),
                    None => kept.push(part),
                }
            }
        }
        if !kept.is_empty() {
            wanted.push(Wanted { key: key.clone(), slots: kept });
        }
    }
    (Unit { interval: unit.interval, wanted }, first)
}

/// Refuses a fix with rows of slots that are set aside. Where a key identifies a row, the row that stands for all versions may have another time than
/// the one that was found.
///
/// # Errors
/// `invalid` if it has one.
pub(crate) fn check(table: &Table, fix: &Fix, asides: &Asides) -> Result<()> {
    if asides.is_empty() {
        return Ok(());
    }
    let identity = table.identity();
    let slots = asides.on(identity.grid());
    for batch in &fix.rows {
        let rows = KeyTime::of(table, batch)?;
        for row in 0..batch.num_rows() {
            let (key, slot) = (rows.key(row), identity.slot(rows.times.value(row)));
            if let Some(decided) = slots.get(&key, slot) {
                let (time, why) = (identity.grid().time_of(slot), decided.in_words());
                return Err(Error::invalid(format!(
                    "the repairer returned a row for {key} at {time}, but these slots are {why}; the unit was discarded"
                )));
            }
        }
    }
    Ok(())
}
