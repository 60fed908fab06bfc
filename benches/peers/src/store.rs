//! The SQLite stores of the peers: how durable they are, and what is in them.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{ConnectOptions, Connection, Row};

use crate::peer::Result;

/// When SQLite flushes its write-ahead log.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Synchronous {
    /// At each commit.
    Full,
    /// Whatever the peer sets; they all say `NORMAL` or end there: at a checkpoint only, so that a power failure takes back the last commits.
    AsItComes,
}

/// The name by which SQLite URLs call this file.
pub(crate) fn url(database: &Path) -> String {
    format!("sqlite://{}?mode=rwc", database.display())
}

/// `PRAGMA synchronous` belongs to a connection, so every connection of the peer's own pool gets it.
pub(crate) async fn set_full(pool: &SqlitePool) -> Result<()> {
    for connection in &mut every_connection(pool).await? {
        sqlx::query("PRAGMA synchronous = FULL").execute(&mut **connection).await?;
    }
    Ok(())
}

/// Read back from every connection of the peer's own pool, after its work.
pub(crate) async fn durability(pool: &SqlitePool) -> Result<String> {
    let mut settings = BTreeSet::new();
    for connection in &mut every_connection(pool).await? {
        let journal: String = sqlx::query("PRAGMA journal_mode").fetch_one(&mut **connection).await?.get(0);
        let synchronous: i64 = sqlx::query("PRAGMA synchronous").fetch_one(&mut **connection).await?.get(0);
        let synchronous = ["OFF", "NORMAL", "FULL", "EXTRA"].get(usize::try_from(synchronous)?).copied().unwrap_or("unknown");
        settings.insert(format!("{journal} synchronous={synchronous}"));
    }
    Ok(settings.into_iter().collect::<Vec<_>>().join(" and "))
}

/// Holding all at once is what makes them different ones.
async fn every_connection(pool: &SqlitePool) -> Result<Vec<sqlx::pool::PoolConnection<sqlx::Sqlite>>> {
    let mut connections = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        connections.push(pool.acquire().await?);
    }
    Ok(connections)
}

/// What the query counts in the file, asked by a connection that the peer knows nothing of.
pub(crate) async fn count(database: &Path, query: &str) -> Result<usize> {
    let mut connection = SqliteConnectOptions::new().filename(database).read_only(true).connect().await?;
    let counted: i64 = sqlx::query(query).fetch_one(&mut connection).await?.get(0);
    connection.close().await?;
    Ok(usize::try_from(counted)?)
}
