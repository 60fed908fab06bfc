//! Writing to S3: staged units, published batches, tables of ours, and artifacts. An object's name follows from its content, and each
//! object is written whole or not at all.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use repair_core::lake::overlay::staging;
use repair_core::lake::overlay::staging::{Parts, SUMMARY, StagedRows};
use repair_core::lake::replacement::{Replacement, replacement};
use repair_core::lake::seal::{self, Verdict};
use repair_core::lake::{BatchStream, Published, StageRequest, StageScope, Staged, name, overlay, partition, shape};
use repair_core::model::Usage;
use repair_core::model::{Format, Interval, Table};
use repair_core::{Error, ErrorKind, Result};

use crate::catalog::{Relation, declare};
use crate::lake::AwsLake;
use crate::objects::Condition;
use crate::place::{self, PART, Place};
use crate::tables::name_of;

/// Objects that are read or written at once.
const AT_ONCE: usize = 16;

/// How much of a staged object is read first: its footer at the end, which names its unit.
const FOOTER_BYTES: u64 = 32 << 10;

/// Memory for rows that wait for the end of their row group.
const MAX_WAITING_BYTES: usize = 32 << 20;

/// Artifacts up to this size are read in one request.
const WHOLE_BYTES: u64 = 64 << 20;

/// Rows in a batch when an object is read.
const BATCH_ROWS: usize = 65_536;

fn properties(footer: Vec<KeyValue>) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(1).map_err(refused)?;
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_key_value_metadata((!footer.is_empty()).then_some(footer))
        .build())
}

fn refused(error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Error::invalid("rows could not be written or read as Parquet").because(source),
        },
        other => Error::invalid("rows could not be written or read as Parquet").because(other),
    }
}

/// Columns with the names that Athena has for them: all in lower case.
pub(crate) fn in_lower_case(schema: &SchemaRef) -> SchemaRef {
    let lower = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_name(field.name().to_lowercase()));
    Arc::new(Schema::new(schema.fields().iter().map(lower).collect::<Vec<_>>()))
}

/// The types in which a table of ours is written, where they are not those of the rows: see [`Relation::keeps_date`] and
/// [`crate::sql::cells::declared_was`].
fn with_kept_dates(relation: &Relation, schema: &SchemaRef) -> SchemaRef {
    let written = |field: &Arc<Field>| match field.data_type() {
        DataType::Date32 if field.name().starts_with(overlay::columns::WAS) || relation.keeps_date(field.name()) => {
            Arc::new(field.as_ref().clone().with_data_type(overlay::instant_type()))
        }
        _ => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(written).collect::<Vec<_>>()))
}

/// Rows as a Parquet object, sealed.
pub(crate) fn encode(schema: &SchemaRef, batches: &[RecordBatch], footer: Vec<KeyValue>) -> Result<Bytes> {
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties(footer)?)).map_err(refused)?;
    for batch in batches {
        writer.write(batch).map_err(refused)?;
    }
    let mut object = Cursor::new(writer.into_inner().map_err(refused)?);
    seal::add(&mut object).map_err(|error| Error::internal("an object in memory could not be sealed").because(error))?;
    Ok(object.into_inner().into())
}

/// Whether an object of ours in memory is what was written, as far as a seal says.
pub(crate) fn is_intact(object: &Bytes) -> bool {
    seal::check(&mut Cursor::new(object)).is_ok_and(|verdict| verdict != Verdict::Changed)
}

pub(crate) fn written(batches: &[RecordBatch], bytes: usize) -> Usage {
    let rows_written = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    Usage { rows_written, bytes_written: bytes as u64, objects_written: 1, storage_writes: 1, ..Usage::default() }
}

impl AwsLake {
    /// The columns of a table that is repaired; those of the rows, if nobody has declared it yet.
    async fn columns(&self, table: &Table, request: &StageRequest<'_>) -> Result<SchemaRef> {
        let schema = match self.tables().table(table).await {
            Ok(raw) => raw.shape(table)?,
            Err(error) if error.kind() == ErrorKind::NotFound => staging::schema_of_fix(table, request.fix)?,
            Err(error) => return Err(error),
        };
        shape::refuse_reserved(table, &schema)?;
        Ok(schema)
    }

    pub(crate) async fn keep(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        // What could not be published would be paid for in vain.
        self.check_owner_by_name(scope.table).await?;
        let (schema, batches) = match staging::rows(scope, request, &self.columns(scope.table, request).await?) {
            Ok(rows) => rows,
            Err(_) => {
                // The table may have gained a column a moment ago.
                self.tables().forget(&name_of(scope.table)?);
                staging::rows(scope, request, &self.columns(scope.table, request).await?)?
            }
        };
        self.check_view_with(scope.table, &schema).await?;
        // The usage of staging follows from the object, and is added when its summary is read.
        let summary = staging::summary(request);
        let json = serde_json::to_string(&summary).map_err(|error| Error::internal("a summary is not JSON").because(error))?;
        let body = encode(&schema, &batches, vec![KeyValue::new(SUMMARY.to_owned(), json)])?;
        let key = place::unit(&self.shared.location, scope, request.unit);
        let mut usage = summary.usage;
        usage += written(&batches, body.len());
        // Staging a unit again has the same result, so the first object stays.
        match self.shared.objects.put(&key, body.clone(), Condition::IfNoneMatch).await {
            Ok(()) => Ok(Staged { usage, ..summary }),
            Err(error) if error.kind() == ErrorKind::Conflict => match self.summary(&key).await {
                // What cannot be read is nothing that was staged.
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    self.shared.objects.put(&key, body, Condition::Always).await?;
                    Ok(Staged { usage, ..summary })
                }
                staged => staged,
            },
            Err(error) => Err(error.on("unit", request.unit)),
        }
    }

    /// Checks that the view can be made that the publication of such rows needs.
    async fn check_view_with(&self, table: &Table, written: &Schema) -> Result<()> {
        let raw = match self.tables().table(table).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            raw => raw?,
        };
        let repairs = self.tables().repairs(&raw).await?;
        let repairs = self.tables().repairs_with(table, &raw, repairs.as_ref(), raw.shape(table)?.as_ref(), written)?;
        self.tables().check_view(table, &raw, &repairs)
    }

    pub(crate) async fn kept(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>> {
        let objects = self.shared.objects.list(&place::staged(&self.shared.location, scope)).await?;
        let all = objects.into_iter().map(|object| async move {
            match self.summary(&object.key).await {
                Ok(staged) => Ok(Some(staged)),
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    tracing::warn!(object = object.key, error = error.full(), "a staged unit is damaged, so it is repaired again");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        });
        let found: Vec<Option<Staged>> = futures::stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The summary in a staged object.
    async fn summary(&self, key: &str) -> Result<Staged> {
        let (tail, size) = self.shared.objects.get_suffix(key, FOOTER_BYTES).await?;
        let mut reader = ParquetMetaDataReader::new();
        let footer = match reader.try_parse_sized(&tail, size) {
            Ok(()) => reader.finish(),
            Err(ParquetError::NeedMoreData(_)) => {
                let whole = self.shared.objects.get(key).await?;
                ParquetMetaDataReader::new().parse_and_finish(&whole)
            }
            Err(error) => Err(error),
        };
        let footer = footer.map_err(|error| damaged(key).because(error))?;
        summary_of(&footer, key, size)
    }

    /// A staged unit: its summary and its rows.
    async fn unit(&self, scope: &StageScope<'_>, unit: &str) -> Result<(Staged, Vec<RecordBatch>)> {
        let key = place::unit(&self.shared.location, scope, unit);
        let Some((body, _)) = self.shared.objects.find(&key).await? else {
            let message = format!("unit {unit} is not staged: there is no {}; it has to be repaired again", self.shared.objects.uri(&key));
            return Err(Error::new(ErrorKind::NotFound, message).on("unit", unit));
        };
        let lost = |error: Error| {
            let message = format!("the staged unit {unit} is damaged, in {}; it has to be repaired again", self.shared.objects.uri(&key));
            Error::new(ErrorKind::NotFound, message).on("unit", unit).because(error)
        };
        if !is_intact(&body) {
            return Err(lost(Error::invalid("the object is not what was written")));
        }
        let damaged = |error| lost(damaged(&key).because(error));
        let size = body.len() as u64;
        let builder = ParquetRecordBatchReaderBuilder::try_new(body).map_err(damaged)?;
        let staged = summary_of(builder.metadata(), &key, size).map_err(lost)?;
        if staged.unit != unit {
            return Err(lost(Error::invalid(format!("the object holds unit {}", staged.unit))));
        }
        let rows = builder.with_batch_size(BATCH_ROWS).build().map_err(damaged)?;
        let rows = rows.collect::<Result<_, _>>().map_err(|error| lost(Error::invalid("its rows cannot be read").because(error)))?;
        Ok((staged, rows))
    }

    pub(crate) async fn show(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published> {
        let table = scope.table;
        let loaded: Vec<_> = units.iter().map(|unit| self.unit(scope, unit)).collect();
        // In the order of the units, so that the same batch has the same bytes.
        let mut loaded = futures::stream::iter(loaded).buffered(AT_ONCE);
        let mut published = Published::default();
        published.usage.storage_reads += units.len() as u64;
        let mut staged = StagedRows::default();
        while let Some((summary, rows)) = loaded.try_next().await? {
            published.rows += summary.rows;
            published.absent += summary.absent;
            staged.add(rows)?;
        }
        drop(loaded);
        let publication = staging::publication(table, staged)?;
        let object = name::object(scope, batch);
        let place = Place::of(&self.shared.location, table)?;
        let raw = self.tables().table(table).await?;
        let own = raw.shape(table)?;
        self.claim(table, &raw).await?;
        if !publication.repairs.is_empty() {
            let repairs = self.tables().ensure_repairs(table, &raw, &own, &publication.repairs_schema).await?;
            let retracted = self.retracted(table, &raw).await?;
            let source = crate::sql::Source { table, raw: &raw, repairs: Some(&repairs), exceptions: None, retracted: retracted.as_ref() };
            // The view comes first, so that none that knows of no patches ever shows one as a row.
            self.tables().ensure_view(&source, &repairs).await?;
            published.usage +=
                self.put_parts(table, &repairs, &place.repairs, &object, &publication.repairs_schema, publication.repairs).await?;
        }
        if !publication.exceptions.is_empty() {
            let exceptions = self.tables().ensure_exceptions(table, &raw).await?;
            let (schema, parts) = (&publication.exceptions_schema, publication.exceptions);
            published.usage += self.put_parts(table, &exceptions, &place.exceptions, &object, schema, parts).await?;
        }
        Ok(published)
    }

    /// Writes one object for each partition. The partitions are declared first, so that a single write makes the rows visible at once.
    async fn put_parts(
        &self,
        table: &Table,
        relation: &Relation,
        folder: &str,
        object: &str,
        schema: &SchemaRef,
        parts: Parts,
    ) -> Result<Usage> {
        let by = partition::time_partition(table)?.map(|by| by.column.as_str());
        if let Some(by) = by {
            let values: Vec<String> = parts.keys().flatten().cloned().collect();
            self.tables().ensure_partitions(&relation.name, by, folder, &values).await?;
        }
        let puts = parts.into_iter().map(|(value, batches)| {
            let key = format!("{}/{object}", place::partition(folder, by.zip(value.as_deref())));
            async move {
                let schema = in_lower_case(&with_kept_dates(relation, schema));
                let batches = batches.iter().map(|batch| in_types(batch, &schema)).collect::<Result<Vec<_>>>()?;
                let body = encode(&schema, &batches, Vec::new())?;
                let usage = written(&batches, body.len());
                match self.shared.objects.put(&key, body, Condition::IfNoneMatch).await {
                    // It was published before.
                    Err(error) if error.kind() == ErrorKind::Conflict => Ok(usage),
                    put => put.map(|()| usage),
                }
            }
        });
        let all: Vec<Usage> = futures::stream::iter(puts).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(all.into_iter().sum())
    }

    pub(crate) async fn discard(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()> {
        let keys: Vec<String> = units.iter().map(|unit| place::unit(&self.shared.location, scope, unit)).collect();
        self.shared.objects.delete(&keys).await
    }

    pub(crate) async fn put_interval(&self, table: &Table, interval: &Interval, rows: &[RecordBatch]) -> Result<Usage> {
        let place = Place::of(&self.shared.location, table)?;
        let Some(folder) = place.inside else {
            return Err(Error::invalid(format!(
                "table `{}` lies at {}, which is not below the lake's {}, and we write nowhere else; correct its `location`",
                table.name, place.data, self.shared.location
            )));
        };
        if table.format != Format::Parquet {
            return Err(Error::invalid(format!("tables are written as Parquet only; set `format: parquet` for table `{}`", table.name)));
        }
        if table.layout.is_some() || !table.reading.is_plain() {
            return Err(Error::invalid(format!(
                "table `{}` is written by us with timestamps in UTC, in folders of the short form of `partition_by`; remove its patterns of folders \
                 and times, or write to another table",
                table.name
            )));
        }
        let Replacement { schema, parts } = replacement(table, interval, rows)?;
        let by = partition::time_partition(table)?.map(|by| by.column.as_str());
        self.refuse_strangers(&folder, by, &parts).await?;
        let relation = name_of(table)?;
        let mut written_as = None;
        if let Some(schema) = &schema {
            let declared = schema.fields().iter().map(|field| Ok((field.name().clone(), declare(field)?))).collect::<Result<Vec<_>>>()?;
            let columns: Vec<(String, String)> = declared.iter().map(|(name, (declared, _))| (name.clone(), declared.clone())).collect();
            let partitions: Vec<(String, String)> = by.map(|by| (by.to_owned(), "string".to_owned())).into_iter().collect();
            self.tables().make(&relation, None, &columns, &partitions, &folder).await?;
            let fields = schema.fields().iter().zip(declared);
            let fields = fields.map(|(field, (name, (_, kind)))| Field::new(name, kind, field.is_nullable()));
            written_as = Some(in_lower_case(&Arc::new(Schema::new(fields.collect::<Vec<_>>()))));
        }
        if let Some(by) = by {
            let values: Vec<String> = parts.iter().filter(|(_, rows)| !rows.is_empty()).filter_map(|(value, _)| value.clone()).collect();
            self.tables().ensure_partitions(&relation, by, &folder, &values).await?;
        }
        let writes = parts.into_iter().map(|(value, batches)| {
            let key = format!("{}/{PART}", place::partition(&folder, by.zip(value.as_deref())));
            let written_as = written_as.clone();
            async move {
                match written_as {
                    // If the table is one object, that object keeps its columns even without rows.
                    Some(schema) if !batches.is_empty() || value.is_none() => {
                        let batches = batches.iter().map(|batch| in_types(batch, &schema)).collect::<Result<Vec<_>>>()?;
                        let body = encode(&schema, &batches, Vec::new())?;
                        let usage = written(&batches, body.len());
                        self.shared.objects.put(&key, body, Condition::Always).await?;
                        Ok(usage)
                    }
                    _ => {
                        self.shared.objects.delete(&[key]).await?;
                        Ok::<_, Error>(Usage::default())
                    }
                }
            }
        });
        let all: Vec<Usage> = futures::stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(all.into_iter().sum())
    }

    /// Rejects a folder that holds anything we did not write: replacing it would lose data, and leaving it would duplicate rows.
    async fn refuse_strangers(&self, folder: &str, by: Option<&str>, parts: &Parts) -> Result<()> {
        for object in self.shared.objects.list(&format!("{folder}/")).await? {
            let rest = object.key.strip_prefix(folder).unwrap_or(&object.key).trim_start_matches('/');
            let mut path = rest.split('/');
            let is_ours = match (by, path.next(), path.next(), path.next()) {
                (None, Some(PART), None, _) => true,
                (Some(by), Some(part), Some(file), None) => match part.split_once('=') {
                    // Partitions that are not replaced do not matter here.
                    Some((column, value)) => column == by && (file == PART || !parts.contains_key(&Some(value.to_owned()))),
                    None => false,
                },
                _ => false,
            };
            let is_marker = rest.is_empty()
                || rest.ends_with('/')
                || rest.split('/').any(|part| part.starts_with(['.', '_']) || part.ends_with("_$folder$"));
            if !is_ours && !is_marker {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "{} was not written by us, so its table is not ours to replace; move it away, or write to another table",
                        self.shared.objects.uri(&object.key)
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(crate) async fn write_artifact(&self, run: &str, name: &str, mut batches: BatchStream) -> Result<Usage> {
        let key = place::artifact(&self.shared.location, run, name);
        let first = batches.next().await.transpose()?;
        let schema = first.as_ref().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties(Vec::new())?)).map_err(refused)?;
        // Parts are sent as they fill up; there is no object until the last is sent and the upload is completed.
        let mut upload = self.shared.objects.upload(&key);
        let (mut rows_written, mut next, mut hasher) = (0, first, blake3::Hasher::new());
        while let Some(batch) = next {
            rows_written += batch.num_rows() as u64;
            writer.write(&batch).map_err(refused)?;
            if writer.in_progress_size() > MAX_WAITING_BYTES {
                writer.flush().map_err(refused)?;
                let part = std::mem::take(writer.inner_mut());
                hasher.update(&part);
                upload.write(part.into()).await?;
            }
            next = batches.next().await.transpose()?;
        }
        let end = writer.into_inner().map_err(refused)?;
        hasher.update(&end);
        upload.write(seal::sealed_end(&hasher, end).into()).await?;
        let (bytes_written, storage_writes) = upload.complete().await?;
        Ok(Usage { rows_written, bytes_written, objects_written: 1, storage_writes, ..Usage::default() })
    }

    pub(crate) async fn read_artifact(&self, run: &str, name: &str) -> Result<BatchStream> {
        let key = place::artifact(&self.shared.location, run, name);
        let object = self.shared.objects.head(&key).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::NotFound,
                format!("run `{run}` has no artifact `{name}`: there is no {}", self.shared.objects.uri(&key)),
            ),
            _ => error,
        })?;
        let changed = || {
            let message = format!("the artifact {} is not what we wrote: something has changed it since", self.shared.objects.uri(&key));
            Error::invalid(message).on("artifact", name).on("run", run)
        };
        if object.bytes <= WHOLE_BYTES {
            let whole = self.shared.objects.get(&key).await?;
            if !is_intact(&whole) {
                return Err(changed());
            }
            let builder = ParquetRecordBatchReaderBuilder::try_new(whole).map_err(refused)?;
            let rows = builder.with_batch_size(BATCH_ROWS).build().map_err(refused)?;
            return Ok(futures::stream::iter(rows.map(|batch| Ok(batch?))).boxed());
        }
        if self.verdict(&key, object.bytes).await? == Verdict::Changed {
            return Err(changed());
        }
        let reader = self.shared.objects.reader(&key, object.bytes);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(refused)?;
        let stream = builder.with_batch_size(BATCH_ROWS).build().map_err(refused)?;
        Ok(stream.map_err(refused).boxed())
    }

    /// What the seal of an object says, which is read as it comes.
    pub(crate) async fn verdict(&self, key: &str, bytes: u64) -> Result<Verdict> {
        let (trailer, _) = self.shared.objects.get_suffix(key, 8).await?;
        let check = trailer.as_ref().try_into().ok().and_then(|trailer| seal::Check::begin(bytes, trailer));
        let Some(mut check) = check else { return Ok(Verdict::Unsealed) };
        let mut content = std::pin::pin!(self.shared.objects.stream_uri(&self.shared.objects.uri(key)).await?);
        while let Some(part) = content.try_next().await? {
            check.update(&part);
        }
        Ok(check.end())
    }
}

fn damaged(key: &str) -> Error {
    Error::invalid(format!("the staged object {key} is not a unit that we staged; remove it"))
}

fn summary_of(footer: &ParquetMetaData, key: &str, bytes: u64) -> Result<Staged> {
    let file = footer.file_metadata();
    let json =
        file.key_value_metadata().and_then(|pairs| pairs.iter().find(|pair| pair.key == SUMMARY)?.value.as_deref()).unwrap_or_default();
    let mut staged: Staged = serde_json::from_str(json).map_err(|error| damaged(key).because(error))?;
    staged.usage += Usage {
        rows_written: u64::try_from(file.num_rows()).unwrap_or(0),
        bytes_written: bytes,
        objects_written: 1,
        storage_writes: 1,
        ..Usage::default()
    };
    Ok(staged)
}

/// A batch with the types in which a table of ours is written.
fn in_types(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, column)| {
        shape::cast_exact(column, field.data_type()).map_err(|error| {
            Error::invalid(format!("column `{}` does not fit the type that Athena has for it, {}", field.name(), field.data_type()))
                .because(error)
        })
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?)?)
}
