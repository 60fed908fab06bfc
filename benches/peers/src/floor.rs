//! The floor, which is what the disk allows: records written to a file, one after another.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// About the size of what a step of the engine writes to its journal.
const RECORD_BYTES: usize = 256;
const RECORDS: u32 = 500;

/// Records per second.
#[derive(Clone, Copy)]
pub(crate) struct Floor {
    /// Records appended to a file, so that its length must be made durable too.
    pub(crate) appended: f64,
    /// Records written over a file that is already long enough, as SQLite's log is after a checkpoint.
    pub(crate) overwritten: f64,
    /// Records appended to a file, but only into the memory of the operating system.
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
