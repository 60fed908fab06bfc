//! How long `repair status` takes: `cargo bench -p repair --bench status`.
//!
//! A table of 500 keys and a year of hours, of which two in a hundred are missing, is examined once. Measured is the first question, which folds what the
//! run found; the same question again, which reads what is kept: 182,500 days of keys; and the first one after all that was kept is gone.
//! `KEYS=500 DAYS=365` set how much.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a measurement that fails, panics")]

use std::sync::Arc;
use std::time::Instant;

use repair::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use repair::{OpenLake, Repair};

fn number(name: &str, default: i64) -> i64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let (keys, days) = (number("KEYS", 500), number("DAYS", 365));
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().to_owned();
    std::fs::create_dir(lake.join("t")).unwrap();
    let begin = 1_672_531_200_i64;
    let (mut names, mut times, mut state) = (Vec::new(), Vec::new(), 1u64);
    for key in 0..keys {
        for hour in 0..days * 24 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (state >> 33) % 50 != 0 {
                names.push(format!("K{key:04}"));
                times.push((begin + hour * 3_600) * 1_000_000);
            }
        }
    }
    let values = Float64Array::from(vec![1.0; times.len()]);
    let columns: [(&str, ArrayRef); 3] = [
        ("k", Arc::new(StringArray::from(names))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
        ("value", Arc::new(values)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(lake.join("t/rows.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let of_keys: Vec<String> = (0..keys).map(|key| format!("K{key:04}")).collect();
    let to = repair::jiff::Timestamp::from_second(begin + days * 86_400).unwrap();
    let workflow = format!(
        "workflow: w\nkind: dag\ntables:\n  t: {{ location: t, format: parquet, key: [k], time: ts, cadence: 1h }}\nsteps:\n  look: {{ detect: gaps, with: {{ \
         table: t, keys: [{}], from: 2023-01-01T00:00:00Z, to: \"{to}\" }} }}\n",
        of_keys.join(", ")
    );
    repair::block_on(async {
        let began = Instant::now();
        let repair = Repair::text("w.yaml", workflow).lake(&lake).connect().await.unwrap();
        repair.run().await.unwrap();
        println!("detect: {:.0?}", began.elapsed());
        let ask = async |what: &str| {
            let began = Instant::now();
            let status = OpenLake::at(&lake).unwrap().status().table("t").await.unwrap();
            let took = began.elapsed();
            let table = status.tables.first().unwrap();
            let cells: usize = table.keys.iter().map(|key| key.days.len()).sum();
            println!("{what}: {took:.0?}, {cells} days of keys, {} of {} slots missing", table.total.missing, table.total.expected);
        };
        ask("first").await;
        for _ in 0..3 {
            ask("again").await;
        }
        std::fs::remove_dir_all(lake.join(".repair/runs/%2Eknown")).unwrap();
        ask("after all that was kept is gone").await;
        ask("again").await;
    });
}
