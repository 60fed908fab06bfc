//! The promises of [`Lake`], one function each. They use tables and runs of their own, so they can run against a lake that is in use, and
//! more than once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a suite that fails, panics")]

mod accuracy;
mod artifacts;
mod compaction;
mod estimates;
mod expected;
mod extent;
mod overlay;
mod patches;
mod presence;
mod removals;
mod replace;
mod replacements;
mod retractions;
mod row_counts;
mod scans;
mod tables;
mod unique;

use std::ops::Range;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::error::Result;
use crate::lake::Lake;
use crate::model::Table;

pub use accuracy::{each_slot_is_judged_once, the_order_of_rows_does_not_matter_to_accuracy};
pub use artifacts::*;
pub use compaction::{compaction_changes_nothing_that_is_read, what_has_changed_is_not_compacted, what_was_compacted_can_be_undone};
pub use estimates::*;
pub use expected::*;
pub use extent::*;
pub use overlay::*;
pub use patches::*;
pub use presence::*;
pub use removals::*;
pub use replace::*;
pub use replacements::*;
pub use retractions::*;
pub use row_counts::*;
pub use scans::*;
pub use unique::*;

/// How the test of an adapter puts a table's own rows into its lake, as the table's owner would.
#[async_trait]
pub trait LakeSetup: Send + Sync {
    /// Adds rows in the shape of batches to a table, partitioned as it declares. Creates the table if there is none.
    ///
    /// # Errors
    /// Any; the suite panics with it.
    async fn add_rows(&self, table: &Table, batches: &[RecordBatch]) -> Result<()>;

    /// The smallest difference between two times that the lake's engine can see, in microseconds, at most a millisecond. The suite's times
    /// are multiples of it.
    fn time_resolution_us(&self) -> i64 {
        1
    }
}

#[async_trait]
impl LakeSetup for super::MemoryLake {
    async fn add_rows(&self, table: &Table, batches: &[RecordBatch]) -> Result<()> {
        super::MemoryLake::add_rows(self, table, batches)
    }
}

/// Calls every function of this module that takes one lake, except those of [`all_of_retractions`].
pub async fn all(lake: &dyn Lake, setup: &dyn LakeSetup) {
    a_table_describes_its_columns_in_shape(lake, setup).await;
    what_is_not_there_is_not_found(lake).await;
    to_ask_whether_it_may_be_written_is_no_error(lake).await;
    scans_bring_what_was_asked_for(lake, setup).await;
    a_scan_of_what_the_table_lacks_is_invalid(lake, setup).await;
    a_column_is_found_in_any_case(lake, setup).await;
    a_rollup_is_what_a_person_would_compute(lake, setup).await;
    a_rollup_counts_what_is_absent(lake, setup).await;
    rows_are_counted_by_stretch_and_key(lake, setup).await;
    presence_is_exact_bits_and_counts(lake, setup).await;
    presence_shows_requested_keys_and_counts_others(lake, setup).await;
    presence_of_keys_of_several_columns_and_of_none(lake, setup).await;
    late_rows_are_seen_at_once(lake, setup).await;
    an_extent_changes_with_rows_within(lake, setup).await;
    an_extent_changes_with_repairs_and_absences(lake, setup).await;
    a_staged_unit_is_seen_by_no_reader(lake, setup).await;
    to_stage_or_publish_twice_is_to_do_it_once(lake, setup).await;
    staged_units_are_listed_until_they_are_discarded(lake, setup).await;
    scopes_of_similar_names_are_different_scopes(lake, setup).await;
    what_does_not_fit_the_table_is_not_staged(lake, setup).await;
    a_batch_is_seen_with_all_its_units(lake, setup).await;
    raw_wins_in_the_repaired_view(lake, setup).await;
    of_two_repairs_of_a_slot_the_newer_counts(lake, setup).await;
    repairs_go_to_the_partitions_of_their_times(lake, setup).await;
    the_overlay_is_tables_that_say_where_rows_come_from(lake, setup).await;
    an_estimate_keeps_its_interval(lake, setup).await;
    exceptions_count_until_they_expire(lake, setup).await;
    a_replacement_stands_for_all_rows_of_its_slot(lake, setup).await;
    fingerprints_are_the_same_in_every_lake(lake, setup).await;
    that_replaced_rows_have_changed_is_noticed(lake, setup).await;
    of_filling_and_replacing_the_newer_counts(lake, setup).await;
    a_replacement_of_the_unknown_is_not_staged(lake, setup).await;
    a_removal_holds_until_a_newer_repair(lake, setup).await;
    a_removal_of_the_unknown_is_not_staged(lake, setup).await;
    a_version_stands_for_all_within_the_lookback(lake, setup).await;
    of_two_versions_that_were_kept_the_newer_counts(lake, setup).await;
    versions_of_a_row_are_known_in_every_lake(lake, setup).await;
    a_replaced_interval_holds_the_rows_and_nothing_else(lake).await;
    only_touched_partitions_are_replaced(lake).await;
    a_table_without_partitions_is_replaced_as_a_whole(lake).await;
    a_row_outside_of_what_is_replaced_is_invalid_and_changes_nothing(lake).await;
    artifacts_come_back_in_order(lake).await;
    an_artifact_takes_the_place_of_what_had_its_name(lake).await;
    an_error_of_the_stream_leaves_the_artifact_that_was_there(lake).await;
    artifacts_of_similar_names_are_different_artifacts(lake).await;
    what_is_kept_for_a_run_can_be_listed_and_removed(lake).await;
}

/// Calls every function about retractions, for a lake that can retract; those of any sequence of so many changes once for each seed.
pub async fn all_of_retractions(lake: &dyn Lake, setup: &dyn LakeSetup, seeds: Range<u64>, length: u64) {
    undo_hides_and_undo_of_undo_shows_again(lake, setup).await;
    undo_in_part_hides_that_part(lake, setup).await;
    undo_of_an_interval_hides_the_slots_that_begin_in_it(lake, setup).await;
    an_older_repair_counts_when_the_newer_is_undone(lake, setup).await;
    to_retract_twice_is_to_do_it_once(lake, setup).await;
    exceptions_are_retracted_too(lake, setup).await;
    undo_of_a_replacement_brings_the_rows_back(lake, setup).await;
    a_removal_hides_all_rows_of_its_slot(lake, setup).await;
    a_patch_changes_its_cells_and_nothing_else(lake, setup).await;
    a_patch_holds_while_the_old_value_stands(lake, setup).await;
    a_patch_changes_cells_of_repairs(lake, setup).await;
    for seed in seeds.clone() {
        any_sequence_of_changes_is_seen_as_a_model_sees_it(lake, setup, seed, length).await;
    }
    undo_brings_versions_back(lake, setup).await;
    for seed in seeds {
        any_sequence_of_versions_is_seen_as_a_model_sees_it(lake, setup, seed, length).await;
    }
    the_order_of_rows_does_not_matter_to_accuracy(lake, setup).await;
    each_slot_is_judged_once(lake, setup).await;
    compaction_changes_nothing_that_is_read(lake, setup).await;
    what_was_compacted_can_be_undone(lake, setup).await;
    what_has_changed_is_not_compacted(lake, setup).await;
    an_extent_changes_with_retractions(lake, setup).await;
    an_overlay_within_another_table_is_none_of_its_rows(lake, setup).await;
    what_does_not_fit_is_not_retracted(lake, setup).await;
}
