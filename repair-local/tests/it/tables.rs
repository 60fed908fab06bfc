//! Random tables: what was written in any dialect, compression and folders is what the lake of files reads.
#![allow(clippy::unwrap_used, reason = "a test that fails, panics")]

use std::io::Write as _;

use crate::common::World;
use repair_core::testing::random_tables::{self, Content, RandomTable, Reading};
use testdata::PrintedOnPanic;

#[test]
fn what_was_written_is_what_is_read() {
    for seed in testdata::seeds(40, 700) {
        let _printed = PrintedOnPanic::seed(seed);
        let Some(written) = RandomTable::of_seed(seed, Reading::ByName) else { continue };
        let world = World::new();
        for file in &written.files {
            let path = format!("t/{}/{}", file.folder, file.name);
            match &file.content {
                Content::Rows(rows) => world.write(&path, parquet(rows)),
                Content::Text(text) if written.compression.is_empty() => world.write(&path, text),
                Content::Text(text) => world.write(&format!("{path}.{}", written.compression), compressed(text, written.compression)),
            };
        }
        crate::common::runtime().block_on(random_tables::what_was_written_is_what_is_read(&world.lake, &written));
    }
}

fn parquet(rows: &arrow::array::RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    bytes
}

fn compressed(bytes: &[u8], how: &str) -> Vec<u8> {
    match how {
        "gz" => testdata::gzip(bytes),
        "zst" => zstd::encode_all(bytes, 1).unwrap(),
        _ => {
            let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
    }
}
