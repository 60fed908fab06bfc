//! What the disk allows: records written to a file, one after another.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// About what a step of the engine leaves in its journal.
const RECORD_BYTES: usize = 256;
const RECORDS: u32 = 500;

/// Records a second.
#[derive(Clone, Copy)]
pub(crate) struct Floor {
    /// At the end of a file, so that its length has to be made durable too.
    pub(crate) appended: f64,
    /// Over a file that is already as long, as SQLite's log is once it has been checkpointed.
    pub(crate) overwritten: f64,
    /// At the end of a file, into the memory of the operating system only.
    pub(crate) unflushed: f64,
}

impl Floor {
    pub(crate) fn measure(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join("floor");
        let appended = write(&mut File::create(&path)?, true)?;
        let overwritten = write(&mut File::options().write(true).open(&path)?, true)?;
        let unflushed = write(&mut File::create(&path)?, false)?;
        Ok(Self { appended, overwritten, unflushed })
    }
}

fn write(file: &mut File, flush: bool) -> std::io::Result<f64> {
    let record = [b'x'; RECORD_BYTES];
    let begun = Instant::now();
    for _ in 0..RECORDS {
        file.write_all(&record)?;
        if flush {
            file.sync_data()?;
        }
    }
    Ok(f64::from(RECORDS) / begun.elapsed().as_secs_f64())
}
