//! The trait that every peer implements; each peer has its own file.

mod durare;
mod duroxide;
mod journio;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Synchronous;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Result<Measured>> + 'a>>;

/// The work of one workflow.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Sequence { steps: usize },
    FanOut { units: usize, concurrency: usize },
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sequence { .. } => "sequence",
            Self::FanOut { .. } => "fan-out",
        }
    }

    pub(crate) fn count(self) -> usize {
        match self {
            Self::Sequence { steps } => steps,
            Self::FanOut { units, .. } => units,
        }
    }
}

pub(crate) struct Measured {
    /// The time from starting the workflow to knowing that it is done.
    pub(crate) took: Duration,
    /// How often the body of a step ran.
    pub(crate) performed: usize,
    /// The settings read back from the peer's own connections.
    pub(crate) durability: String,
}

/// An engine in one configuration.
pub(crate) trait Peer {
    fn name(&self) -> &str;

    /// Creates the store, does the work, and closes the store; only the work is timed.
    fn run<'a>(&'a self, work: Work, database: &'a Path) -> Running<'a>;

    /// The divisor of the work: a slow peer does only one part in this many.
    fn share(&self) -> usize {
        1
    }

    /// The query that counts completed steps in the peer's store.
    fn count_of_completions(&self) -> &'static str;
}

pub(crate) fn all() -> Vec<Arc<dyn Peer>> {
    let duroxide = duroxide::Duroxide { name: "", synchronous: Synchronous::Full, poll: Duration::from_millis(1), workers: None, share: 1 };
    vec![
        // A step waits for the next poll, so a tenth of the work shows as much.
        Arc::new(duroxide::Duroxide {
            name: "duroxide, FULL, its default polling (100 ms)",
            poll: Duration::from_millis(100),
            share: 10,
            ..duroxide
        }),
        Arc::new(duroxide::Duroxide { name: "duroxide, FULL, polling every 1 ms", ..duroxide }),
        Arc::new(duroxide::Duroxide { name: "duroxide, FULL, polling every 1 ms, only 4 at a time", workers: Some(4), ..duroxide }),
        Arc::new(duroxide::Duroxide { name: "duroxide, NORMAL, polling every 1 ms", synchronous: Synchronous::AsItComes, ..duroxide }),
        Arc::new(durare::Durare { name: "durare, FULL", synchronous: Synchronous::Full }),
        Arc::new(durare::Durare { name: "durare, NORMAL (its default)", synchronous: Synchronous::AsItComes }),
        Arc::new(journio::Journio { name: "journio, FULL", synchronous: Synchronous::Full }),
        Arc::new(journio::Journio { name: "journio, NORMAL (its default)", synchronous: Synchronous::AsItComes }),
    ]
}
