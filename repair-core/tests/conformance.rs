//! The journal and the lake in memory keep the promises of their traits.

use repair_core::testing::{MemoryJournal, journal_suite};

#[tokio::test]
async fn the_journal_in_memory_keeps_its_promises() {
    journal_suite::all(&MemoryJournal::default()).await;
}
