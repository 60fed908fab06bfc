//! Whose an overlay is, in a bucket: see [`repair_core::lake::overlay::owner`].

use std::time::{Duration, Instant};

use repair_core::lake::overlay;
use repair_core::lake::overlay::owner::{MAX_BYTES, Owner, RECORD};
use repair_core::model::Table;
use repair_core::{Error, ErrorKind, Result};

use crate::catalog::Relation;
use crate::lake::AwsLake;
use crate::objects::{Condition, Location};
use crate::place::Place;
use crate::tables::name_of;

/// For this long an overlay without a record counts as nobody's. Otherwise each of thousands of reads would ask again.
const FRESH: Duration = Duration::from_secs(5);

impl AwsLake {
    /// Checks that the overlay at a table's place is its own, or nobody's yet.
    ///
    /// # Errors
    /// `conflict` if it is that of another table; `invalid` if its record cannot be read.
    pub(crate) async fn check_owner(&self, table: &Table, raw: Option<&Relation>) -> Result<()> {
        let place = Place::of(&self.shared.location, table)?;
        let asking = owner_of(table, &place, raw, &self.shared.location);
        let key = record(&place);
        let known = self.shared.owners().get(&key).cloned();
        match known {
            // A record is never changed, so one that fits, fits.
            Some((_, Some(owner))) if owner.is_same(&asking) => return Ok(()),
            Some((at, None)) if at.elapsed() < FRESH => return Ok(()),
            _ => {}
        }
        let found = self.recorded(&key).await?;
        self.shared.owners().insert(key.clone(), (Instant::now(), found.clone()));
        match found {
            Some(owner) if !owner.is_same(&asking) => Err(self.conflict(&place, &owner, &asking, &key)),
            _ => Ok(()),
        }
    }

    /// As [`AwsLake::check_owner`], before something is added to the overlay: from now on, it is that table's.
    pub(crate) async fn claim(&self, table: &Table, raw: &Relation) -> Result<()> {
        self.check_owner(table, Some(raw)).await?;
        let place = Place::of(&self.shared.location, table)?;
        let key = record(&place);
        if self.shared.owners().get(&key).is_some_and(|(_, owner)| owner.is_some()) {
            return Ok(());
        }
        let owner = owner_of(table, &place, Some(raw), &self.shared.location);
        match self.shared.objects.put(&key, owner.to_record()?.into(), Condition::IfNoneMatch).await {
            // Of several who write the first record, one succeeds, and all others see it.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            put => put?,
        }
        self.shared.owners().remove(&key);
        self.check_owner(table, Some(raw)).await
    }

    /// As [`AwsLake::check_owner`], for a table that the catalog may not have.
    pub(crate) async fn check_owner_by_name(&self, table: &Table) -> Result<()> {
        let raw = self.tables().relation(&name_of(table)?).await?;
        self.check_owner(table, raw.as_ref()).await
    }

    async fn recorded(&self, key: &str) -> Result<Option<Owner>> {
        let Some((record, _)) = self.shared.objects.find(key).await? else { return Ok(None) };
        // A longer one is cut, and then no record.
        Owner::of_record(record.get(..MAX_BYTES).unwrap_or(&record), &self.shared.objects.uri(key)).map(Some)
    }

    fn conflict(&self, place: &Place, owner: &Owner, asking: &Owner, key: &str) -> Error {
        let beside = place.repairs.strip_suffix(&overlay::repairs("")).unwrap_or(&place.repairs);
        let at = |owner: &Owner| if owner.beside { self.shared.objects.uri(beside) } else { owner.location.clone() };
        owner.conflict(&at(owner), (asking, &at(asking)), &self.shared.objects.uri(key))
    }
}

/// The key of the record of a table's overlay.
fn record(place: &Place) -> String {
    format!("{}/{RECORD}", place.repairs)
}

/// The table as the record names it. Its rows are where Athena's catalog says, whatever the workflow says.
fn owner_of(table: &Table, place: &Place, raw: Option<&Relation>, lake: &Location) -> Owner {
    let data = match raw {
        Some(raw) if raw.is_view => return Owner::elsewhere(table, format!("view {}.{}", raw.database, raw.name)),
        Some(raw) => raw.location.as_deref().and_then(|at| Location::parse(at).ok()).unwrap_or_else(|| place.data.clone()),
        None => place.data.clone(),
    };
    match &place.inside {
        Some(key) if data.bucket == lake.bucket && data.prefix == *key => {
            Owner::beside(table, key.rsplit('/').next().unwrap_or(key).to_owned())
        }
        _ => Owner::elsewhere(table, data.to_string()),
    }
}
