//! The repairer `stocks.backfill`: the core's [`Backfill`], which believes only bars that can be.
//!
//! `with` is that of the core's `backfill`: the `source`, and if wanted `recheck_after` and `quiet_spell`.

use repair_core::builtin::repair::Backfill;
use repair_core::builtin::repair::BackfillConfig;
use repair_core::plugin::Registry;

use crate::bar;

pub(crate) fn register(registry: &mut Registry) {
    registry.repairer("stocks.backfill", "asks a source for the missing bars", |config: BackfillConfig| {
        Ok(Backfill::new(&config, Some(bar::believable)))
    });
}
