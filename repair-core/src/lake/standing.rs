//! What stands between runs, such as how far a schedule has come: JSON in artifacts that belong to no run. Unlike what [`super::known`] keeps, it does
//! not follow from anything else. Whoever writes it holds a lease.

use serde::{Deserialize, Serialize};

use super::{Artifacts, known};
use crate::error::{Error, ErrorKind, Result};

/// The name of no run, under which such artifacts are kept.
pub const RUN: &str = ".standing";

/// What stands under a name; `None` if nothing does.
///
/// # Errors
/// `invalid` if it is damaged; those of the lake.
pub async fn read<T: for<'de> Deserialize<'de>>(lake: &(impl Artifacts + ?Sized), name: &str) -> Result<Option<T>> {
    match known::text_of(lake, RUN, name).await {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| Error::invalid(format!("`{name}` is damaged")).because(error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes what stands under a name, in place of what stood there.
///
/// # Errors
/// If it cannot be written.
pub async fn write<T: Serialize + Sync>(lake: &(impl Artifacts + ?Sized), name: &str, standing: &T) -> Result<()> {
    let text = serde_json::to_string(standing).map_err(|error| Error::internal(format!("`{name}` is not JSON")).because(error))?;
    known::put_text(lake, RUN, name, text).await.map(drop)
}
