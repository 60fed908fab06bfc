//! Objects in a bucket, which others may have written: the first byte chooses what they are read as.

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use repair_core::ErrorKind;
use repair_core::lake::overlay::owner::Owner;
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::model::Table;

use crate::journal::segment::{self, Segment};
use crate::results::{Layout, Reader};

pub fn run(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 5 {
        0 => segment(&Bytes::copy_from_slice(data)),
        // Whose hash is right, so that its events are read.
        1 => {
            let lines = data.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
            if let Ok(object) = segment::object("one", 0, lines, data, Some("nonce")) {
                segment(&object);
            }
        }
        2 => result(data),
        3 => {
            if let Ok(owner) = Owner::of_record(data, "s3://bucket/owner") {
                let again = Owner::of_record(&owner.to_record().expect("a record"), "s3://bucket/owner").expect("a record is read again");
                assert!(owner.is_same(&again));
            }
        }
        _ => retraction(Bytes::copy_from_slice(data)),
    }
}

fn segment(object: &Bytes) {
    if let Ok(read) = Segment::read(object) {
        assert!(!read.events.is_empty());
        assert_eq!(read.events.first().map(|event| event.sequence), Some(read.first));
        assert_eq!(read.end() - read.first, read.events.len() as u64);
    }
}

/// A result of a query, which is the same wherever its bytes are cut.
fn result(data: &[u8]) {
    let rows = |cut: usize| -> repair_core::Result<Vec<_>> {
        let (mut reader, mut rows) = (Reader::default(), Vec::new());
        for part in data.chunks(cut) {
            reader.feed(part, &mut rows)?;
        }
        reader.finish(&mut rows)?;
        Ok(rows)
    };
    let (whole, cut) = (rows(usize::MAX), rows(3));
    assert_eq!(whole.is_ok(), cut.is_ok(), "cut");
    let (Ok(whole), Ok(cut)) = (whole, cut) else { return };
    assert_eq!(whole, cut);
    let Some(width) = whole.first().map(Vec::len) else { return };
    let kinds = ["bigint", "double", "timestamp", "boolean", "varchar", "decimal", "date", "tinyint", "real"];
    let layout = Layout::of_types((0..width).map(|at| ("c", kinds[at % kinds.len()], 38, 3)));
    let count = whole.len();
    match layout.batch(whole) {
        Ok(batch) => assert_eq!(batch.num_rows(), count),
        Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{}", error.full()),
    }
}

fn retraction(object: Bytes) {
    // As the lake does: what the Parquet reader panics at, is damaged.
    let read = || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(object).ok()?.build().ok()?;
        reader.collect::<Result<Vec<RecordBatch>, _>>().ok()
    };
    let batches = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    let mut table = Table::implicit("bars", "ts");
    table.key = vec!["k".to_owned()];
    for batch in batches.ok().flatten().unwrap_or_default() {
        if let Ok(read) = Retraction::from_batch(&table, &batch) {
            let again = Retraction::from_batch(&table, &read.to_batch(&table).expect("a retraction is written")).expect("and read again");
            assert_eq!((again.id, again.parts.len()), (read.id, read.parts.len()));
        }
    }
}
