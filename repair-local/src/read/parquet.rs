//! Parquet files: only the columns and the row groups that are needed.

use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use repair_core::cost::Usage;
use repair_core::model::Table;
use repair_core::{Error, Result};

use super::Sink;
use crate::files::{self, DataFile};
use crate::partition::TimeBounds;
use crate::shape;

/// An opened file: its footer is read, its rows are not.
pub(crate) struct Opened {
    file: File,
    metadata: ArrowReaderMetadata,
}

/// What an error of the decoder means to people.
pub(crate) fn unreadable(error: ParquetError) -> Error {
    Error::invalid(
        "not a readable Parquet file: it is damaged, cut off, or still being written; restore it, remove it, or begin its name with `_`",
    )
    .because(error)
}

/// Opens a file and reads its footer.
pub(crate) fn open(file: &DataFile) -> Result<Opened> {
    let opened = files::open(&file.path)?;
    if file.bytes == 0 {
        return Err(Error::invalid("the file is empty, which no Parquet file is: its writer failed; remove it, or write it again"));
    }
    let metadata = ArrowReaderMetadata::load(&opened, ArrowReaderOptions::new()).map_err(unreadable)?;
    Ok(Opened { file: opened, metadata })
}

impl Opened {
    /// The columns, as the file has them.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }

    /// The footer.
    pub(crate) fn footer(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// The row groups that may hold rows within bounds, by their statistics of the time column.
    pub(crate) fn groups(&self, table: &Table, bounds: &TimeBounds) -> Result<Vec<usize>> {
        let footer = self.metadata.metadata();
        let all = 0..footer.num_row_groups();
        let schema = self.metadata.schema();
        let Ok(field) = schema.field_with_name(&table.time) else { return Ok(all.collect()) };
        shape::check_time_type(table, field.data_type())?;
        if *bounds == TimeBounds::ALL {
            return Ok(all.collect());
        }
        let converter = StatisticsConverter::try_new(&table.time, schema, footer.file_metadata().schema_descr()).map_err(unreadable)?;
        let least = converter.row_group_mins(footer.row_groups()).map_err(unreadable)?;
        let greatest = converter.row_group_maxes(footer.row_groups()).map_err(unreadable)?;
        Ok(all.filter(|&group| may_overlap(table, &least, &greatest, group, bounds)).collect())
    }

    /// The same file, its text columns of these names as dictionaries, if it can be read so: a row costs four bytes then, however
    /// long its key.
    pub(crate) fn with_dictionaries(self, columns: &[String]) -> Self {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let mut changed = false;
        let fields: Vec<Field> = self
            .metadata
            .schema()
            .fields()
            .iter()
            .map(|field| {
                if columns.contains(field.name()) && shape::is_text(field.data_type()) && *field.data_type() != dictionary {
                    changed = true;
                    field.as_ref().clone().with_data_type(dictionary.clone())
                } else {
                    field.as_ref().clone()
                }
            })
            .collect();
        if !changed {
            return self;
        }
        let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
        match ArrowReaderMetadata::try_new(self.metadata.metadata().clone(), options) {
            Ok(metadata) => Self { file: self.file, metadata },
            Err(_) => self,
        }
    }

    /// Reads columns of row groups; columns that the file lacks do not come.
    pub(crate) fn read(self, columns: &[&str], groups: Vec<usize>, batch_rows: usize, sink: &mut Sink<'_>) -> Result<Usage> {
        let roots: Vec<usize> = self
            .metadata
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| columns.contains(&field.name().as_str()))
            .map(|(at, _)| at)
            .collect();
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let mut usage = Usage::default();
        for &group in &groups {
            let row_group = self.metadata.metadata().row_group(group);
            usage.rows_read += u64::try_from(row_group.num_rows()).unwrap_or(0);
            for (leaf, column) in row_group.columns().iter().enumerate() {
                if mask.leaf_included(leaf) {
                    usage.bytes_scanned += u64::try_from(column.compressed_size()).unwrap_or(0);
                }
            }
        }
        if groups.is_empty() {
            return Ok(usage);
        }
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file, self.metadata)
            .with_projection(mask)
            .with_row_groups(groups)
            .with_batch_size(batch_rows)
            .build()
            .map_err(unreadable)?;
        for batch in reader {
            let batch = batch.map_err(|error| unreadable(ParquetError::General(error.to_string())))?;
            if sink(batch)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(usage)
    }
}

/// Whether a row group may hold rows within bounds. One whose statistics are missing or odd may.
fn may_overlap(table: &Table, least: &ArrayRef, greatest: &ArrayRef, group: usize, bounds: &TimeBounds) -> bool {
    let value = |array: &ArrayRef| {
        let one = array.slice(group, 1);
        if one.is_null(0) { None } else { shape::instants(table, &one).ok().map(|times| times.value(0)) }
    };
    match (value(least), value(greatest)) {
        (Some(least), Some(greatest)) => least < bounds.to_us && greatest >= bounds.from_us,
        _ => true,
    }
}
