//! Durable workflows that find what is broken in a lake of data, wait, repair it, verify, and only then aggregate.

pub mod compare;
pub mod ledger;
pub mod plan;
