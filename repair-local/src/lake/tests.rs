//! Of a table with many files, a unit lists and opens only what it needs, and what arrives meanwhile is noticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use jiff::Timestamp;
use proptest::prelude::*;
use repair_core::ErrorKind;
use repair_core::lake::{Layer, Overlay, PresenceRequest, ReadLake, ScanRequest, StageRequest, StageScope};
use repair_core::model::{Cadence, Fix, Format, Interval, Key, PartitionUnit, SlotRange, Table};
use tempfile::TempDir;

use super::{Inner, LocalLake};
use crate::disk::{Act, Watch};

const DAYS: usize = 20;
const FILES: usize = 5;

struct World {
    _folder: TempDir,
    root: PathBuf,
    lake: LocalLake,
    table: Table,
}

/// A lake whose files count as settled as soon as they are written, and whose listings stay fresh, so that no test need wait.
fn open(root: &Path) -> LocalLake {
    let inner = Inner { settles: Duration::ZERO, fresh: Duration::from_secs(3_600), ..Inner::new(root.to_owned()) };
    LocalLake { inner: Arc::new(inner), engine: None, meter: None }
}

fn day(number: usize) -> String {
    format!("2018-04-{:02}", number + 1)
}

/// Days of small files: in each, a minute of a key.
fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let table =
        Table::new("bars", Format::Csv, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE).with_partition("date", PartitionUnit::Day);
    for number in 0..DAYS {
        for file in 0..FILES {
            let text = format!("symbol,ts,close\nA,{}T10:{file:02}:00Z,{file}\n", day(number));
            write(&root.join(format!("bars/date={}/{file}.csv", day(number))), &text);
        }
    }
    World { lake: open(&root), root, table, _folder: folder }
}

/// Writes a file. That it came changes the stamp of its folder, whose clock has steps.
fn write(path: &Path, text: &str) {
    let folder = path.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    let stamp = || crate::stamp::Stamp::of(&fs::metadata(folder).unwrap());
    let before = stamp();
    loop {
        let new = path.with_file_name(".new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, path).unwrap();
        if stamp() != before {
            return;
        }
    }
}

impl World {
    async fn rows(&self, lake: &LocalLake, number: usize) -> repair_core::Result<Vec<RecordBatch>> {
        let interval = Interval::parse(&day(number), &day(number)).unwrap();
        lake.scan(&self.table, &ScanRequest::new(Layer::Repaired).in_interval(interval)).await?.try_collect().await
    }

    fn fix(&self, number: usize) -> Fix {
        let time = format!("{}T12:00:00Z", day(number)).parse::<Timestamp>().unwrap().as_microsecond();
        let symbols = StringArray::from(vec!["A"]);
        let times = TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC");
        let closes = arrow::array::Int64Array::from(vec![7]);
        let rows = RecordBatch::try_from_iter([
            ("symbol", Arc::new(symbols) as arrow::array::ArrayRef),
            ("ts", Arc::new(times)),
            ("close", Arc::new(closes)),
        ]);
        Fix { rows: vec![rows.unwrap()], source: "market".into(), ..Fix::default() }
    }
}

/// How many files were opened.
fn opened(watch: &Watch) -> usize {
    let mut opened = watch.take(Act::Open);
    opened.sort();
    opened.dedup();
    opened.len()
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn a_unit_lists_and_opens_only_the_folders_that_it_needs() {
    let world = world();
    let watch = Watch::of(&world.root.join("bars"));
    world.lake.describe(&world.table).await.unwrap();
    assert_eq!((watch.take(Act::List).len(), opened(&watch)), (1 + DAYS, DAYS * FILES));
    let scope = StageScope { run: "run", step: "fill", visit: 1, table: &world.table };
    let mut units = Vec::new();
    for number in 0..DAYS {
        assert_eq!(count(&world.rows(&world.lake, number).await.unwrap()), FILES);
        // The table's folder, that of the day, and those before and after, in which rows of the day may lie.
        assert!(watch.take(Act::List).len() <= 4);
        assert_eq!(opened(&watch), 0, "what was read for its columns is not opened again");
        let (unit, fix) = (format!("unit-{number}"), world.fix(number));
        world.lake.stage(&scope, &StageRequest::new(&unit, "backfill", Timestamp::UNIX_EPOCH, &fix)).await.unwrap();
        units.push(unit);
        assert_eq!((watch.take(Act::List), opened(&watch)), (vec![], 0), "what a unit stages needs no look at the table");
    }
    world.lake.publish(&scope, 0, &units).await.unwrap();
    world.lake.discard_staged(&scope, &units).await.unwrap();
    assert_eq!((watch.take(Act::List), opened(&watch)), (vec![], 0), "nor does what is published");
    assert_eq!(count(&world.rows(&world.lake, 3).await.unwrap()), FILES + 1);
}

#[tokio::test]
async fn presence_in_pieces_lists_each_folder_of_the_overlay_about_once() {
    let world = world();
    let scope = StageScope { run: "run", step: "fill", visit: 1, table: &world.table };
    let mut units = Vec::new();
    for number in 0..DAYS {
        let (unit, fix) = (format!("unit-{number}"), world.fix(number));
        world.lake.stage(&scope, &StageRequest::new(&unit, "backfill", Timestamp::UNIX_EPOCH, &fix)).await.unwrap();
        units.push(unit);
    }
    world.lake.publish(&scope, 0, &units).await.unwrap();
    let first = world.table.grid().unwrap().slots_in(&Interval::parse(&day(0), &day(0)).unwrap()).first;
    let length = i64::try_from(DAYS).unwrap() * 1_440;
    let request = PresenceRequest::new(SlotRange::new(first, first + length), vec![Key::from("A")], Timestamp::MAX);
    let pieces: Vec<SlotRange> =
        (0..length / 1_440).map(|day| first + day * 1_440).map(|from| SlotRange::new(from, from + 1_440)).collect();
    let (raw, overlay) = (Watch::of(&world.root.join("bars")), Watch::of(&world.root.join("bars_repairs")));
    let presences: Vec<_> = world.lake.presence_in_pieces(&world.table, &request, &pieces).try_collect().await.unwrap();
    let repaired: u64 = presences.iter().flat_map(|one| one.repaired.values().map(|slots| slots.count())).sum();
    assert_eq!((presences.len(), repaired), (DAYS, DAYS as u64));
    // What was read for its columns, when the first unit was staged, is not opened again.
    assert_eq!((raw.take(Act::List).len(), opened(&raw)), (1 + DAYS, 0));
    // Each piece lists the names of all folders once, and one of these.
    assert_eq!(overlay.take(Act::List).len(), 2 * DAYS);
}

#[tokio::test]
async fn what_arrives_meanwhile_is_noticed_wherever_it_is() {
    let world = world();
    let schema = async |number: usize| world.rows(&world.lake, number).await.unwrap()[0].schema();
    world.lake.describe(&world.table).await.unwrap();
    assert_eq!(schema(10).await.field_with_name("close").unwrap().data_type(), &DataType::Int64);
    // A file of another day decides the type of a column.
    write(&world.root.join("bars/date=2018-04-03/new.csv"), "symbol,ts,close\nA,2018-04-03T11:00:00Z,1.5\n");
    assert_eq!(schema(10).await.field_with_name("close").unwrap().data_type(), &DataType::Float64);
    // So does one in a folder below that of a day, and one of a new day.
    write(&world.root.join("bars/date=2018-04-03/more/new.csv"), "symbol,ts,close\nA,2018-04-03T11:01:00Z,2\n");
    assert!(schema(10).await.field_with_name("size").is_err());
    write(&world.root.join("bars/date=2018-04-03/more/other.csv"), "symbol,ts,close,size\nA,2018-04-03T11:02:00Z,2,3\n");
    assert!(schema(10).await.field_with_name("size").is_ok());
    write(&world.root.join("bars/date=2018-05-09/0.csv"), "symbol,ts,close,lot\nA,2018-05-09T11:02:00Z,2,3\n");
    assert!(schema(10).await.field_with_name("lot").is_ok());
    // A row of the day, in its folder, in that of the next, and in one that was rewritten in place.
    write(&world.root.join("bars/date=2018-04-11/new.csv"), "symbol,ts,close\nA,2018-04-11T11:00:00Z,1\n");
    write(&world.root.join("bars/date=2018-04-12/new.csv"), "symbol,ts,close\nA,2018-04-11T11:01:00Z,1\n");
    assert_eq!(count(&world.rows(&world.lake, 10).await.unwrap()), FILES + 2);
    fs::write(
        world.root.join("bars/date=2018-04-11/0.csv"),
        "symbol,ts,close,note\nA,2018-04-11T12:01:00Z,1,x\nB,2018-04-11T12:01:00Z,1,y\n",
    )
    .unwrap();
    assert!(schema(10).await.field_with_name("note").is_ok());
    assert_eq!(count(&world.rows(&world.lake, 10).await.unwrap()), FILES + 3);
    // A file of which nobody said what it is makes the table blind, also in another day.
    write(&world.root.join("bars/date=2018-04-05/readme.md"), "?");
    assert_eq!(world.rows(&world.lake, 10).await.unwrap_err().kind(), ErrorKind::Blind);
    fs::remove_file(world.root.join("bars/date=2018-04-05/readme.md")).unwrap();
    fs::remove_dir_all(world.root.join("bars/date=2018-04-11")).unwrap();
    assert_eq!(count(&world.rows(&world.lake, 10).await.unwrap()), 1);
}

#[derive(Debug, Clone)]
struct Change {
    day: usize,
    file: usize,
    of: usize,
    minute: usize,
    with_more: bool,
    below: bool,
    is_gone: bool,
}

fn changes() -> impl Strategy<Value = Vec<(Change, usize)>> {
    let one = (0..6usize, 0..4usize, 0..6usize, 0..60usize, any::<bool>(), proptest::bool::weighted(0.2), proptest::bool::weighted(0.2));
    let one =
        one.prop_map(|(day, file, of, minute, with_more, below, is_gone)| Change { day, file, of, minute, with_more, below, is_gone });
    proptest::collection::vec((one, 0..6usize), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rows_are_those_of_a_lake_that_lists_all(changes in changes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = world();
        runtime.block_on(world.lake.describe(&world.table)).unwrap();
        for (Change { day: folder, file, of, minute, with_more, below, is_gone }, look) in changes {
            let below = if below { "more/" } else { "" };
            let path = world.root.join(format!("bars/date={}/{below}{file}.csv", day(folder)));
            if is_gone {
                let _ = fs::remove_file(path);
            } else {
                let (more, value) = if with_more { (format!(",more{file}"), ",1.5") } else { (String::new(), "") };
                write(&path, &format!("symbol,ts,close{more}\nA,{}T10:{minute:02}:00Z,{file}{value}\n", day(of)));
            }
            let seen = |lake: &LocalLake| {
                let batches = runtime.block_on(world.rows(lake, look)).unwrap();
                let mut rows: Vec<Vec<(String, String)>> = Vec::new();
                for batch in batches {
                    for row in 0..batch.num_rows() {
                        let text = |column| arrow::util::display::array_value_to_string(column, row).unwrap();
                        let schema = batch.schema();
                        let cells = schema.fields().iter().zip(batch.columns()).map(|(field, column)| (field.name().clone(), text(column)));
                        // Of a column that no file has any more, nothing is left but its name, for a short time.
                        rows.push(cells.filter(|(_, cell)| !cell.is_empty()).collect());
                    }
                }
                rows.sort();
                rows
            };
            prop_assert_eq!(seen(&world.lake), seen(&open(&world.root)));
        }
    }
}
