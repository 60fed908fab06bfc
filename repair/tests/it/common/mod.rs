//! A folder with a lake, and workflows over its table `t`.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, missing_docs, unreachable_pub, reason = "helpers of tests, each used by some")]

use std::path::Path;

use repair::arrow::array::{ArrayRef, AsArray, RecordBatch};
use repair::arrow::datatypes::Float64Type;
use repair::{ErrorKind, Repair, RunReport};
use serde_json::Value;

/// A folder with a lake.
pub struct World(pub tempfile::TempDir);

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lake")).unwrap();
        Self(folder)
    }

    /// A copy of a case's files as the table `t`.
    pub fn of(case: &str) -> Self {
        let world = Self::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/field").join(case);
        copy(&from, &world.0.path().join("lake/t"));
        world
    }

    pub fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join("lake").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn parquet(&self, file: &str, columns: &[(&str, ArrayRef)]) {
        let batch = RecordBatch::try_from_iter(columns.iter().cloned()).unwrap();
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        self.write(file, bytes);
    }

    /// The workflow whose table `t` is described by `table`, with these steps.
    pub fn workflow(&self, table: &str, steps: &str) -> Repair {
        self.workflow_at("t", table, steps)
    }

    pub fn workflow_at(&self, location: &str, table: &str, steps: &str) -> Repair {
        self.workflow_with("", location, table, steps)
    }

    /// The workflow with more at its top, such as calendars.
    pub fn workflow_with(&self, more: &str, location: &str, table: &str, steps: &str) -> Repair {
        let path = self.written(more, location, table, steps);
        repair::block_on(async { Repair::open(&path).connect().await }).unwrap_or_else(|error| panic!("{}", error.full()))
    }

    /// The file of that workflow.
    pub fn written(&self, more: &str, location: &str, table: &str, steps: &str) -> std::path::PathBuf {
        let root = self.0.path().join("lake");
        let first = steps.trim_start().split(':').next().unwrap_or_default();
        let text = format!(
            "workflow: field\nkind: state-machine\n{more}tables:\n  t: {{ location: \"{location}\", {table} }}\nstart: {first}\nsteps:\n{steps}\nprofiles:\n  \
             local: {{ lake: local, with: {{ root: \"{}\" }} }}\n",
            root.display()
        );
        let path = self.0.path().join("workflow.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The missing slots of a table at a location.
    pub fn missing_at(&self, location: &str, table: &str, scope: &str) -> u64 {
        self.missing_and_read_at(location, table, scope).0
    }

    /// The missing slots of a table at a location, and the rows that were read to find them.
    pub fn missing_and_read_at(&self, location: &str, table: &str, scope: &str) -> (u64, u64) {
        let steps = format!("  look: {{ detect: gaps, with: {{ table: t, {scope} }}, end: true }}");
        let repair = self.workflow_at(location, table, &steps);
        let report = repair::block_on(async { repair.run().await }).unwrap_or_else(|error| panic!("{}", error.full()));
        let missing = output(&report, "look")["missing"].as_u64().unwrap_or_else(|| panic!("{location}: {:?}", report.reason));
        (missing, report.usage.rows_read)
    }

    pub fn run(&self, table: &str, steps: &str) -> RunReport {
        let repair = self.workflow(table, steps);
        repair::block_on(async { repair.run().await }).unwrap_or_else(|error| panic!("{}", error.full()))
    }

    /// The counts of `gaps` with this scope.
    pub fn gaps(&self, table: &str, scope: &str) -> Value {
        let report = self.run(table, &format!("  look: {{ detect: gaps, with: {{ table: t, {scope} }}, end: true }}"));
        assert!(report.error.is_none() && report.outcome.is_some(), "{:?} {:?}", report.reason, report.problems);
        output(&report, "look")
    }

    pub fn missing(&self, table: &str, scope: &str) -> u64 {
        self.gaps(table, scope)["missing"].as_u64().unwrap()
    }

    /// The error of `gaps` with this scope.
    pub fn refused(&self, table: &str, scope: &str) -> (ErrorKind, String) {
        let repair = self.workflow(table, &format!("  look: {{ detect: gaps, with: {{ table: t, {scope} }}, end: true }}"));
        match repair::block_on(async { repair.run().await }) {
            Err(error) => (error.kind(), error.full()),
            Ok(report) => (report.error.unwrap_or_else(|| panic!("{report:?}")), format!("{:?} {:?}", report.reason, report.problems)),
        }
    }

    /// The times of all rows of a table's Parquet files, in order.
    pub fn times(&self, table: &str) -> Vec<String> {
        let mut folders = vec![self.0.path().join("lake").join(table)];
        let mut times = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                if path.extension().is_none_or(|ending| ending != "parquet") {
                    continue;
                }
                let file = std::fs::File::open(path).unwrap();
                for batch in parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                    let batch = batch.unwrap();
                    let column =
                        batch.column_by_name("ts").unwrap().as_primitive::<repair::arrow::datatypes::TimestampMicrosecondType>().clone();
                    times.extend(column.values().iter().map(|us| repair::jiff::Timestamp::from_microsecond(*us).unwrap().to_string()));
                }
            }
        }
        times.sort();
        times
    }

    /// The rows of a table's Parquet files, as `column=value` in order of the columns.
    pub fn rows(&self, table: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for entry in std::fs::read_dir(self.0.path().join("lake").join(table)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "parquet") {
                continue;
            }
            let file = std::fs::File::open(path).unwrap();
            for batch in parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                for row in 0..batch.num_rows() {
                    let cells = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, column)| {
                        let value = repair::arrow::util::display::array_value_to_string(column, row).unwrap();
                        format!("{}={value}", field.name())
                    });
                    rows.push(cells.collect::<Vec<_>>().join(" "));
                }
            }
        }
        rows.sort();
        rows
    }

    /// The only column of the only row of the table `sums`.
    pub fn sum(&self) -> f64 {
        let mut files: Vec<_> = std::fs::read_dir(self.0.path().join("lake/sums")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "parquet"));
        let file = std::fs::File::open(files.pop().unwrap()).unwrap();
        let mut rows = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let batch = rows.next().unwrap().unwrap();
        let value = repair::arrow::compute::cast(batch.column_by_name("s").unwrap(), &repair::arrow::datatypes::DataType::Float64).unwrap();
        assert_eq!(batch.num_rows(), 1);
        value.as_primitive::<Float64Type>().value(0)
    }
}

/// Copies a folder. What goes away meanwhile, as the leases beside a journal do, is left out.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let entries = match std::fs::read_dir(from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        entries => entries.unwrap(),
    };
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
            continue;
        }
        match std::fs::copy(entry.path(), target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => {
                copied.unwrap();
            }
        }
    }
}

pub fn output(report: &RunReport, step: &str) -> Value {
    report.steps.iter().find(|one| one.name == step).unwrap().output.clone()
}
