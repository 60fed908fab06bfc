//! Files of tables: the first byte chooses the table, the rest is the file. Whatever it holds, the lake reads it or refuses it, and the same
//! every time.

use std::cell::RefCell;
use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use jiff::Timestamp;
use repair_core::lake::{Layer, PresenceRequest, ReadLake, ScanRequest};
use repair_core::model::{Interval, Key, Table};
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;
use repair_core::{ErrorKind, Result};
use repair_local::LocalLake;

const TABLES: &str = r#"
workflow: fuzz
kind: dag
tables:
  csv0: { location: csv0, format: csv, key: [k], time: ts, cadence: 1m }
  csv1:
    location: csv1
    format: csv
    csv: { delimiter: ";", decimal: ",", thousands: ".", encoding: latin1, skip_lines: 1 }
    nulls: ["N/A", "-"]
    columns: { v: { type: number, nulls: [Ice] } }
    on_bad_row: { quarantine: 50% }
    time: { columns: [d, t], format: "%d.%m.%Y %H:%M", zone: Europe/Berlin, repeated: earlier, skipped: shift, marks: end }
    cadence: { every: 15m, at: ":00", tolerance: 30s, misaligned: 50% }
    key: [k]
  csv2: { location: csv2, format: csv, key: [k], time: { column: ts, epoch: [s, ms, us] }, cadence: 1h, on_bad_row: { quarantine: 50% } }
  csv3: { location: csv3, format: csv, rows: unique, key: [k], time: ts, version: v }
  jsonl0: { location: jsonl0, format: jsonl, key: [k], time: ts, cadence: 1m }
  jsonl1:
    location: jsonl1
    format: jsonl
    columns: { v: { path: a.b, type: number }, w: text }
    on_bad_row: { quarantine: 50% }
    time: { column: ts, epoch: [ms, us] }
    cadence: 1h
    key: [k]
  parquet0: { location: parquet0, format: parquet, key: [k], time: ts, cadence: 1m }
  parquet1: { location: parquet1, format: parquet, key: [k], time: ts, cadence: 1h, nulls: ["-"], columns: { v: { type: number } } }
steps:
  rest: { wait: { for: 1s } }
"#;

/// A lake in memory if the system has a folder for that, since every input is written to a file.
struct World {
    folder: tempfile::TempDir,
    lake: LocalLake,
    tables: BTreeMap<String, Table>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a temporary folder");
        let lake = LocalLake::open(folder.path()).expect("a lake");
        let tables = Workflow::parse("fuzz.yaml", TABLES, &Registry::default()).unwrap_or_else(|told| panic!("{told}")).tables;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { folder, lake, tables: tables.into_iter().collect(), runtime }
    }

    fn scan(&self, table: &Table) -> Result<Vec<RecordBatch>> {
        self.runtime.block_on(async { self.lake.scan(table, &ScanRequest::new(Layer::Raw)).await?.try_collect().await })
    }

    fn read(&self, format: &str, tables: u8, data: &[u8]) {
        let Some((choice, file)) = data.split_first() else { return };
        let name = format!("{format}{}", choice % tables);
        let table = &self.tables[&name];
        let at = self.folder.path().join(&name);
        std::fs::create_dir_all(&at).expect("a folder");
        std::fs::write(at.join(format!("a.{format}")), file).expect("a file");
        let first = self.scan(table);
        if let Err(error) = &first {
            assert_ne!(error.kind(), ErrorKind::Internal, "{}", error.full());
        }
        let again = self.scan(table);
        match (&first, &again) {
            (Ok(first), Ok(again)) => {
                let rows = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
                assert_eq!(rows(first), rows(again), "read twice");
            }
            (Err(first), Err(again)) => assert_eq!(first.full(), again.full(), "read twice"),
            _ => panic!("read once, and refused once: {first:?} {again:?}"),
        }
        if table.cadence.is_some()
            && let Ok(grid) = table.grid()
        {
            let slots = grid.slots_in(&Interval::parse("2024-03-04", "2024-03-05").expect("an interval"));
            let request = PresenceRequest::new(slots, vec![Key::from("a"), Key::from("b")], Timestamp::MAX);
            if let Err(error) = self.runtime.block_on(self.lake.presence(table, &request)) {
                assert_ne!(error.kind(), ErrorKind::Internal, "{}", error.full());
            }
        }
    }
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

fn read(format: &str, tables: u8, data: &[u8]) {
    WORLD.with_borrow_mut(|world| world.get_or_insert_with(World::new).read(format, tables, data));
}

pub fn csv(data: &[u8]) {
    read("csv", 4, data);
}

pub fn jsonl(data: &[u8]) {
    read("jsonl", 2, data);
}

pub fn parquet(data: &[u8]) {
    read("parquet", 2, data);
}
