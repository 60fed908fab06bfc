//! Compaction: many small objects of an overlay become one with the same rows, which is written before they are removed.
//!
//! The objects are read from S3 as they are, and not by Athena, so that no value passes through another type. Meanwhile Athena may read both; the view and
//! all that we ask take the rows as a set.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use repair_core::lake::overlay::compaction::{self, Compactable, Compacted, Member, Source};
use repair_core::lake::overlay::owner::{self, Kind};
use repair_core::model::{Table, Usage};
use repair_core::{Error, ErrorKind, Result};

use crate::lake::AwsLake;
use crate::objects::Condition;
use crate::place::{Place, partition};
use crate::write::{encode, is_intact, written};

/// Objects that are read at once.
const AT_ONCE: usize = 16;

/// Rows in a batch when an object is read.
const BATCH_ROWS: usize = 65_536;

/// The folder of a table of the overlay.
fn folder(place: &Place, kind: Kind) -> Result<&str> {
    match kind {
        Kind::Repairs => Ok(&place.repairs),
        Kind::Exceptions => Ok(&place.exceptions),
        Kind::Retractions => Err(Error::invalid("retractions are not compacted")),
    }
}

/// The folder of a partition, and its name and value.
fn of_partition(folder: &str, name: Option<&str>) -> String {
    partition(folder, name.and_then(|name| name.split_once('=')))
}

impl AwsLake {
    /// The objects of a folder that we published: the folder of the partition of each, its name and its size.
    async fn published_in(&self, folder: &str) -> Result<Vec<(Option<String>, Member)>> {
        let of_overlay = folder.rsplit('/').next().unwrap_or(folder);
        let mut all = Vec::new();
        for object in self.shared.objects.list(&format!("{folder}/")).await? {
            let Some(below) = object.key.strip_prefix(folder).and_then(|below| below.strip_prefix('/')) else { continue };
            if !owner::is_object(&format!("{of_overlay}/{below}")) {
                continue;
            }
            let (partition, name) = match below.rsplit_once('/') {
                Some((partition, name)) => (Some(partition.to_owned()), name),
                None => (None, below),
            };
            all.push((partition, Member { name: name.to_owned(), bytes: object.bytes }));
        }
        Ok(all)
    }

    pub(crate) async fn list_compactable(&self, table: &Table) -> Result<Vec<Compactable>> {
        self.check_owner_by_name(table).await?;
        let place = Place::of(&self.shared.location, table)?;
        let mut all = Vec::new();
        for kind in [Kind::Repairs, Kind::Exceptions] {
            let found = self.published_in(folder(&place, kind)?).await?;
            all.extend(found.into_iter().map(|(partition, member)| (kind, partition, member)));
        }
        Ok(compaction::compactable(all))
    }

    pub(crate) async fn write_compacted(&self, table: &Table, of: &Compactable) -> Result<Vec<Compacted>> {
        self.check_owner_by_name(table).await?;
        let place = Place::of(&self.shared.location, table)?;
        let folder = of_partition(folder(&place, of.kind)?, of.partition.as_deref());
        let sources: Vec<_> =
            of.members.iter().map(|member| self.source(format!("{folder}/{}", member.name), member.name.clone())).collect();
        let sources: Vec<Source> = futures::stream::iter(sources).buffered(AT_ONCE).try_collect().await?;
        let reads = sources.len() as u64;
        let mut all = Vec::new();
        for merged in compaction::merged(sources)? {
            let key = format!("{folder}/{}", merged.object);
            let body = encode(&merged.schema, &merged.batches, Vec::new())?;
            merged.check(&decoded(&key, body.clone())?.1)?;
            let (bytes, mut usage) = (body.len() as u64, written(&merged.batches, body.len()));
            if all.is_empty() {
                usage += Usage { storage_reads: reads, ..Usage::default() };
            }
            match self.shared.objects.put(&key, body, Condition::IfNoneMatch).await {
                // It was compacted before, perhaps by a version that wrote other bytes.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    merged.check(&self.source(key, merged.object.clone()).await?.batches)?;
                }
                put => put?,
            }
            all.push(merged.written(of, bytes, usage));
        }
        Ok(all)
    }

    pub(crate) async fn remove_members(&self, table: &Table, compacted: &Compacted) -> Result<()> {
        self.check_owner_by_name(table).await?;
        let place = Place::of(&self.shared.location, table)?;
        let whole = folder(&place, compacted.kind)?;
        let found = self.published_in(whole).await?;
        let mut here = found.iter().filter(|(partition, _)| *partition == compacted.partition).map(|(_, member)| &member.name);
        let is_there = here.clone().any(|name| *name == compacted.object);
        let folder = of_partition(whole, compacted.partition.as_deref());
        if is_there {
            let members: Vec<String> =
                here.filter(|name| compacted.members.contains(name)).map(|name| format!("{folder}/{name}")).collect();
            return self.shared.objects.delete(&members).await;
        }
        match here.any(|name| compacted.members.contains(name)) {
            true => Err(compaction::not_written(&self.shared.objects.uri(&format!("{folder}/{}", compacted.object)))),
            false => Ok(()),
        }
    }

    /// An object of the overlay, read whole.
    async fn source(&self, key: String, name: String) -> Result<Source> {
        let uri = self.shared.objects.uri(&key);
        let (body, _) = self.shared.objects.find(&key).await?.ok_or_else(|| compaction::outdated(&uri))?;
        if !is_intact(&body) {
            let message = "the object is not what we wrote: something has changed it since; restore it from a backup";
            return Err(Error::invalid(message).on("object", uri));
        }
        let digest = compaction::digest(&body);
        let (schema, batches) = decoded(&uri, body)?;
        Ok(Source { name, digest, schema, batches })
    }
}

/// The columns and rows of an object.
fn decoded(uri: &str, body: Bytes) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let unreadable = |error: parquet::errors::ParquetError| Error::invalid("its rows cannot be read").because(error).on("object", uri);
    let builder = ParquetRecordBatchReaderBuilder::try_new(body).map_err(unreadable)?;
    let schema = builder.schema().clone();
    let batches = builder.with_batch_size(BATCH_ROWS).build().map_err(unreadable)?;
    Ok((schema, batches.collect::<std::result::Result<Vec<_>, _>>()?))
}
