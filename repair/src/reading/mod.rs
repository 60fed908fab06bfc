//! Reading what was repaired: a table as a file for other tools, what is still missing, and SQL over tables and their repaired views.
//!
//! Everything here only reads the lake. Rows are written as they come, so a table of any size needs little memory, and a file is there
//! whole or not at all. It must not know how a lake keeps its rows, and nothing about terminals.

mod encode;
mod export;
mod forbidden;
mod gaps;
mod output;
mod query;
mod table;
mod view;

pub use export::{ExportRequest, Exported};
pub use gaps::{DefectRange, GapsReport, GapsRequest, Search};
pub use output::Destination;
pub use query::{Queried, QueryRequest, Rows};
pub use view::{ReadingView, Tool, ViewRequest};

use std::path::Path;

use repair_core::model::Format;

/// The format of a file, as the ending of its name says; `None` if it does not.
///
/// ```
/// use repair::core::model::Format;
/// use repair::reading::format_of;
///
/// assert_eq!(format_of("bars.parquet".as_ref()), Some(Format::Parquet));
/// assert_eq!(format_of("bars.xlsx".as_ref()), None);
/// ```
pub fn format_of(path: &Path) -> Option<Format> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    match ending.as_str() {
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}
