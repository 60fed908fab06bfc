//! What the footers of a table's Parquet objects say about its times. Athena's types do not show whether a timestamp is an instant or what a
//! clock showed, so a zone could silently shift instants.

use arrow::datatypes::DataType;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use repair_core::lake::overlay::owner;
use repair_core::model::{Format, Table, TimeForm, Zone};
use repair_core::{Error, Result};

use crate::catalog::{Kind, Relation};
use crate::lake::AwsLake;
use crate::objects::Location;

/// How much of an object is read first.
const FOOTER_BYTES: u64 = 64 << 10;

impl AwsLake {
    /// Checks, if a table's timestamps are said to be those of a clock, that its first objects do not say that they are instants. Objects
    /// that cannot be read are left to the query, whose message names them.
    ///
    /// # Errors
    /// `invalid` if they do.
    pub(crate) async fn check_clock(&self, table: &Table, relation: &Relation) -> Result<()> {
        let Some(zone) = table.reading.zone.as_ref().filter(|zone: &&Zone| !zone.is_utc()) else { return Ok(()) };
        let column = table.time_columns().first().copied().unwrap_or(&table.time).to_owned();
        let is_clock = table.format == Format::Parquet && matches!(table.reading.form, TimeForm::Iso) && !relation.is_view;
        let Some(location) = relation.location.as_deref().filter(|_| is_clock && relation.kind(&column) == Some(Kind::Instant)) else {
            return Ok(());
        };
        let place = Location::parse(location)?;
        let objects = self.shared.objects.of_bucket(&place.bucket);
        let listed = objects.first(&format!("{}/", place.prefix)).await?;
        let folder = format!("{}/", place.prefix);
        let is_data = |key: &str| {
            let is_hidden = key.split('/').any(|part| part.starts_with(['.', '_']));
            !key.ends_with('/') && !is_hidden && !owner::is_object(key.strip_prefix(&folder).unwrap_or(key))
        };
        let data: Vec<_> = listed.into_iter().filter(|object| object.bytes > 0 && is_data(&object.key)).collect();
        for object in data.first().into_iter().chain(data.last().filter(|_| data.len() > 1)) {
            let (tail, size) = objects.get_suffix(&object.key, FOOTER_BYTES).await?;
            let mut reader = ParquetMetaDataReader::new();
            let footer = match reader.try_parse_sized(&tail, size) {
                Ok(()) => reader.finish(),
                Err(ParquetError::NeedMoreData(_)) => ParquetMetaDataReader::new().parse_and_finish(&objects.get(&object.key).await?),
                Err(error) => Err(error),
            };
            let Ok(footer) = footer else { continue };
            let file = footer.file_metadata();
            let Ok(schema) = parquet_to_arrow_schema(file.schema_descr(), None) else { continue };
            let found = schema.fields().iter().find(|field| field.name().eq_ignore_ascii_case(&column));
            if let Some(DataType::Timestamp(_, Some(_))) = found.map(|field| field.data_type()) {
                return Err(Error::invalid(format!(
                    "{} says that the times in `{column}` are instants, and table `{}` says that they are those of a clock in {zone}; remove `zone` under \
                     `time` (a `zone` of the table still says what a day is)",
                    objects.uri(&object.key),
                    table.name
                )));
            }
        }
        Ok(())
    }
}
