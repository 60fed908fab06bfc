//! The repairer `stocks.backfill`: the core's [`Backfill`], which here also rejects impossible bars.
//!
//! Its `with` is that of the core's `backfill`: `source`, and optionally `recheck_after` and `quiet_spell`.

use repair_core::builtin::repair::Backfill;
use repair_core::builtin::repair::BackfillConfig;
use repair_core::plugin::Registry;

use crate::bar;

pub(crate) fn register(registry: &mut Registry) {
    registry.repairer("stocks.backfill", "requests the missing bars from a source", |config: BackfillConfig| {
        Ok(Backfill::new(&config, Some(bar::believable)))
    });
}
