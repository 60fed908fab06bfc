//! What is known from earlier runs, as texts in artifacts that belong to no run. It is derived, and safe to delete: what is gone or damaged is found
//! anew.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray, RecordBatch, StringArray};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Artifacts, rollup};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Usage;

/// The name of no run, under which such artifacts are kept.
pub const RUN: &str = ".known";
const COLUMN: &str = "known";

/// The text of a name; `None` if there is none, if it is damaged, or if it was [forgotten](forget).
///
/// # Errors
/// Those that may pass, such as `transient`.
pub async fn read(lake: &(impl Artifacts + ?Sized), name: &str) -> Result<Option<String>> {
    match text(lake, name).await {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(error) => without(error).map(|()| None),
    }
}

async fn text(lake: &(impl Artifacts + ?Sized), name: &str) -> Result<String> {
    text_of(lake, RUN, name).await
}

/// The text that is an artifact of a run.
///
/// # Errors
/// `not-found` if there is none of that name; `invalid` if it is damaged.
pub(super) async fn text_of(lake: &(impl Artifacts + ?Sized), run: &str, name: &str) -> Result<String> {
    let batches: Vec<RecordBatch> = lake.get_artifact(run, name).await?.try_collect().await?;
    let odd = || Error::invalid("what was found before is not in its shape");
    let batch = batches.first().ok_or_else(odd)?;
    let text = rollup::column(batch, COLUMN)?.as_string_opt::<i32>().filter(|text| text.len() == 1).ok_or_else(odd)?;
    Ok(text.value(0).to_owned())
}

/// Goes on without what is known, unless the error may pass.
///
/// # Errors
/// The error, if it may pass.
pub fn without(error: Error) -> Result<()> {
    if matches!(error.kind(), ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Cancelled) {
        return Err(error);
    }
    if error.kind() != ErrorKind::NotFound {
        tracing::warn!(error = error.full(), "what was found before cannot be read, so it is found anew");
    }
    Ok(())
}

/// Keeps a text under a name, in place of what had the name.
///
/// # Errors
/// If it cannot be written.
pub async fn keep(lake: &(impl Artifacts + ?Sized), name: &str, text: String) -> Result<Usage> {
    put_text(lake, RUN, name, text).await
}

/// Makes a text an artifact of a run.
///
/// # Errors
/// If it cannot be written.
pub async fn put_text(lake: &(impl Artifacts + ?Sized), run: &str, name: &str, text: String) -> Result<Usage> {
    let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let batch = RecordBatch::try_from_iter([(COLUMN, column)])?;
    lake.put_artifact(run, name, stream::iter([Ok(batch)]).boxed()).await
}

/// Forgets the text of a name.
///
/// # Errors
/// If it cannot be written.
pub async fn forget(lake: &(impl Artifacts + ?Sized), name: &str) -> Result<Usage> {
    keep(lake, name, String::new()).await
}
