//! The SQLite stores of the peers: their durability settings and their content.

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
    /// Whatever the peer sets, which is `NORMAL` for all of them: only at a checkpoint, so that a power failure loses the last commits.
    AsItComes,
}

/// The SQLite URL of a file.
pub(crate) fn url(database: &Path) -> String {
    format!("sqlite://{}?mode=rwc", database.display())
}

/// Sets `PRAGMA synchronous = FULL` on every connection of the peer's own pool, because the setting belongs to a connection.
pub(crate) async fn set_full(pool: &SqlitePool) -> Result<()> {
    for connection in &mut every_connection(pool).await? {
        sqlx::query("PRAGMA synchronous = FULL").execute(&mut **connection).await?;
    }
    Ok(())
}

/// The settings of every connection of the peer's own pool, read back after the work.
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

/// All connections of a pool. They are held at once, so that none is returned twice.
async fn every_connection(pool: &SqlitePool) -> Result<Vec<sqlx::pool::PoolConnection<sqlx::Sqlite>>> {
    let mut connections = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        connections.push(pool.acquire().await?);
    }
    Ok(connections)
}

/// The result of a counting query, asked through a connection of our own.
pub(crate) async fn count(database: &Path, query: &str) -> Result<usize> {
    let mut connection = SqliteConnectOptions::new().filename(database).read_only(true).connect().await?;
    let counted: i64 = sqlx::query(query).fetch_one(&mut connection).await?.get(0);
    connection.close().await?;
    Ok(usize::try_from(counted)?)
}
