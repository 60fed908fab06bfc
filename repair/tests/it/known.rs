//! What a run need not look at again: a lake of files in which nothing has changed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use repair::{Repair, RunReport};

const WORKFLOW: &str = "\
workflow: w
kind: dag
tables:
  bars: { location: bars, format: csv, key: [key], time: ts, cadence: 1h }
steps:
  look: { detect: gaps, with: { table: bars, keys: [A, B], from: 2024-03-04, to: 2024-03-05 } }
";

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(world.lake().join("bars")).unwrap();
        fs::write(world.0.path().join("w.yaml"), WORKFLOW).unwrap();
        for day in [4, 5] {
            world.write(day, |hour| hour % 5 != 0);
        }
        world
    }

    fn lake(&self) -> PathBuf {
        self.0.path().join("lake")
    }

    fn file(&self, day: u8) -> PathBuf {
        self.lake().join(format!("bars/{day}.csv"))
    }

    fn write(&self, day: u8, has: impl Fn(u8) -> bool) {
        let rows = (0..24).filter(|hour| has(*hour)).map(|hour| format!("A,2024-03-{day:02}T{hour:02}:00:00Z,1\n"));
        fs::write(self.file(day), format!("key,ts,value\n{}", rows.collect::<String>())).unwrap();
    }

    async fn open(&self) -> Repair {
        Repair::open(self.0.path().join("w.yaml")).lake(self.lake()).connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
    }

    /// Waits until the times that the file system keeps would show another write, then looks.
    async fn look(&self) -> RunReport {
        tokio::time::sleep(Duration::from_millis(3_200)).await;
        self.open().await.run().await.unwrap()
    }
}

/// How many rows of the table a run read, and how many slots it found missing.
fn seen(report: &RunReport) -> (u64, u64) {
    let look = report.step("look").unwrap();
    (look.usage.rows_read, look.output["missing"].as_u64().unwrap())
}

#[tokio::test]
async fn a_second_run_reads_no_row_of_a_lake_that_has_not_changed() {
    let world = World::new();
    let (first, second) = (world.look().await, world.look().await);
    assert_eq!((seen(&first), seen(&second)), ((38, 96 - 38), (0, 96 - 38)));
    // Its findings are its own: those of the first may go.
    let runs = world.lake().join(".repair/runs");
    fs::remove_dir_all(runs.join(&first.run)).unwrap();
    let repair = world.open().await;
    // Five of the days of A each, and B throughout.
    assert_eq!(repair.gaps(&second.run).await.unwrap_or_else(|error| panic!("{}", error.full())).len(), 11);
    // What is lost or damaged is found anew, from what is known of the files; where that is lost, too, from the files.
    assert_eq!(seen(&world.look().await), (0, 96 - 38));
    fs::remove_dir_all(runs.join("%2Eknown")).unwrap();
    fs::remove_dir_all(world.lake().join(".repair/presence")).unwrap();
    assert_eq!(seen(&world.look().await), (38, 96 - 38));
    for entry in fs::read_dir(runs.join("%2Eknown")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    fs::remove_dir_all(world.lake().join(".repair/presence")).unwrap();
    assert_eq!(seen(&world.look().await), (38, 96 - 38));
    assert_eq!(seen(&world.look().await), (0, 96 - 38));
}

#[tokio::test]
async fn a_file_that_was_rewritten_is_read_again_even_with_its_old_size_and_time() {
    let world = World::new();
    assert_eq!(seen(&world.look().await), (38, 96 - 38));
    // In place, and as another file under the name: hour 1 is missing for hour 0, and the size and the time are as before.
    for (number, is_new) in [(1, false), (2, true)] {
        let (path, before) = (world.file(4), fs::metadata(world.file(4)).unwrap());
        if is_new {
            fs::remove_file(&path).unwrap();
        }
        world.write(4, |hour| hour % 5 != number);
        File::options().append(true).open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
        let (rows, _) = seen(&world.look().await);
        // Of the other file it is known what it holds.
        assert_eq!(rows, 19, "{number}");
    }
}

#[tokio::test]
async fn what_was_written_just_now_is_read_again() {
    let world = World::new();
    // Times that are ahead of the clock stay new, however slowly this runs.
    let ahead = SystemTime::now() + Duration::from_secs(3_600);
    for day in [4, 5] {
        File::options().append(true).open(world.file(day)).unwrap().set_modified(ahead).unwrap();
    }
    let run = async || seen(&world.open().await.run().await.unwrap());
    assert_eq!((run().await, run().await), ((38, 96 - 38), (38, 96 - 38)));
}

const HOURS: &str = "\
workflow: hours
kind: dag
tables:
  bars: { location: bars, format: csv, partition_by: [{ date: day }], key: [symbol], time: ts, cadence: 1m }
steps:
  look: { detect: stocks.minute-gaps, with: { table: bars, calendar: XNYS, symbols: [A], from: 2024-03-04, to: 2024-03-08 } }
  hours: { after: [look], aggregate: stocks.hourly-bars, of: look, with: { table: bars, into: hourly } }
";

#[tokio::test]
async fn only_the_hours_of_days_that_have_changed_are_written_again() {
    let world = World(tempfile::tempdir().unwrap());
    fs::write(world.0.path().join("w.yaml"), HOURS).unwrap();
    let write = |day: u8, minutes: u8| {
        let folder = world.lake().join(format!("bars/date=2024-03-{day:02}"));
        fs::create_dir_all(&folder).unwrap();
        let rows = (0..minutes).map(|minute| format!("A,2024-03-{day:02}T15:{minute:02}:00Z,1,2,0.5,1.5,10\n"));
        fs::write(folder.join("0.csv"), format!("symbol,ts,open,high,low,close,volume\n{}", rows.collect::<String>())).unwrap();
    };
    [4, 5, 6, 7, 8].into_iter().for_each(|day| write(day, 30));
    let stamps = || {
        [4, 5, 6, 7, 8].map(|day| {
            let folder = world.lake().join(format!("hourly/date=2024-03-{day:02}"));
            let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().modified().unwrap());
            files.max().unwrap()
        })
    };
    let observed = |report: &RunReport| report.step("hours").unwrap().output["observed"].as_u64().unwrap();
    let (first, before) = (world.look().await, stamps());
    let (second, after) = (world.look().await, stamps());
    assert_eq!((observed(&first), observed(&second), before), (150, 150, after));
    assert_eq!(second.step("hours").unwrap().usage.rows_read, 0);
    write(4, 31);
    let third = world.look().await;
    let changed = stamps().iter().zip(&before).map(|(now, then)| now != then).collect::<Vec<_>>();
    // Rows of a day may lie in the folder beside it.
    assert_eq!((observed(&third), changed), (151, vec![true, true, false, false, false]));
    // What somebody else makes of the hours does not stay.
    fs::remove_dir_all(world.lake().join("hourly/date=2024-03-06")).unwrap();
    assert_eq!(observed(&world.look().await), 151);
    assert!(world.lake().join("hourly/date=2024-03-06").exists());
}
