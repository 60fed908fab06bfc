//! The same durable work, done by other embedded engines for durable execution. Run it with `cargo run --release` in this folder.
//!
//! There are two kinds of work: steps one after another in one workflow, and activities of one workflow, 64 at a time. Each does nothing, and
//! counts once its completion is in the store; afterwards, another connection counts the completions in the database. Between any two
//! measurements, the floor is measured: records appended to a file, with `fdatasync` for each. The ratio of a figure to the floor is that of
//! the maxima, because a shared disk can only be slower than it is.
//!
//! `STEPS=1000 UNITS=1000 ROUNDS=3` set the amount of work; `PEER=durare` runs only the peers with that in their name.

mod floor;
mod peer;
mod store;
mod table;

use std::path::Path;
use std::sync::Arc;

use floor::Floor;
use peer::{Peer, Work};
use table::Table;

/// The number of units that the engine's own benchmark repairs at a time.
const CONCURRENCY: usize = 64;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Does the work in a store of its own, and checks that all completions are in it.
async fn measure(peer: &dyn Peer, work: Work, folder: &Path) -> peer::Result<f64> {
    let database = folder.join("store.db");
    let measured = peer.run(work, &database).await?;
    let persisted = store::count(&database, peer.count_of_completions()).await?;
    if persisted != work.count() {
        return Err(format!("{persisted} completions in the store instead of {}", work.count()).into());
    }
    if measured.performed < work.count() {
        return Err(format!("only {} of {} were performed", measured.performed, work.count()).into());
    }
    println!(
        "  {:<52} {:<8} {} in {:.2?}; {persisted} completions in the store, {} performed, {}",
        peer.name(),
        work.name(),
        work.count(),
        measured.took,
        measured.performed,
        measured.durability
    );
    Ok(work.count() as f64 / measured.took.as_secs_f64())
}

fn add_floor(table: &mut Table, floor: Floor) {
    println!("  floor: {:.0} appended and flushed a second, {:.0} overwritten and flushed", floor.appended, floor.overwritten);
    table.add_floor("floor: 256 bytes appended, fdatasync", floor.appended);
    table.add("the same, over a file already that long", "sequence", floor.overwritten);
    table.add("appended without fdatasync", "sequence", floor.unflushed);
}

#[tokio::main]
async fn main() -> peer::Result<()> {
    // Peers that log their retries would be measured writing to a terminal.
    tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default())?;
    let (steps, units) = (number("STEPS", 1_000), number("UNITS", 1_000));
    let chosen = std::env::var("PEER").unwrap_or_default();
    let peers: Vec<Arc<dyn Peer>> = peer::all().into_iter().filter(|peer| peer.name().contains(&chosen)).collect();
    let mut table = Table::default();
    for round in 1..=number("ROUNDS", 3) {
        println!("round {round}");
        add_floor(&mut table, Floor::measure(tempfile::tempdir_in(".")?.path())?);
        for peer in &peers {
            let share = peer.share();
            for work in [Work::Sequence { steps: steps / share }, Work::FanOut { units: units / share, concurrency: CONCURRENCY }] {
                // The store is in this folder, because the temporary folder of many machines is in memory, where flushing is free.
                let folder = tempfile::tempdir_in(".")?;
                let measured = measure(peer.as_ref(), work, folder.path()).await;
                add_floor(&mut table, Floor::measure(folder.path())?);
                match measured {
                    Ok(rate) => table.add(peer.name(), work.name(), rate),
                    Err(error) => {
                        println!("  {:<52} {:<8} NOT DONE: {error}", peer.name(), work.name());
                        table.refuse(peer.name(), work.name());
                    }
                }
            }
        }
    }
    println!("\n{steps} steps, {units} units; minimum–maximum of all rounds; the ratio is that of the maxima\n\n{table}");
    Ok(())
}
