//! Publishing: staged units become one object for each partition of the table's repairs, and of its exceptions.

use repair_core::Result;
use repair_core::lake::overlay::staging::{self, StagedRows};
use repair_core::lake::{Published, partition};

use crate::lake::Inner;
use crate::place::Place;
use crate::stage::{self, Scope};
use crate::write;

/// Publishes units under the name of a batch.
pub(crate) fn publish(lake: &Inner, scope: &Scope, object: &str, units: &[String]) -> Result<Published> {
    let table = &scope.table;
    let place = Place::to_write(&lake.root, table)?;
    let mut published = Published::default();
    let mut staged = StagedRows::default();
    for unit in units {
        let (summary, batches) = stage::load(scope, unit)?;
        published.rows += summary.rows;
        published.absent += summary.absent;
        staged.add(batches)?;
    }
    let publication = staging::publication(table, staged)?;
    let by = partition::time_partition(table)?;
    for (folder, schema, parts) in [
        (&place.repairs, &publication.repairs_schema, publication.repairs),
        (&place.exceptions, &publication.exceptions_schema, publication.exceptions),
    ] {
        for (name, batches) in parts {
            let folder = match (by, name) {
                (Some(by), Some(name)) => folder.join(format!("{}={name}", by.column)),
                _ => folder.clone(),
            };
            published.usage += write::parquet(&folder.join(object), schema, &batches, Vec::new())?;
        }
    }
    Ok(published)
}
