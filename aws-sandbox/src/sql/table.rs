//! A table of the catalog for DataFusion: it reads only the objects that a query needs.
//!
//! Predicates on partition keys are decided here, on the partitions' values, before any object is listed. [`super::read`] decides what is
//! read of the needed objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt as _;
use jiff::Timestamp;

use crate::catalog::{Catalog, Column, StorageDescriptor, Table};
use crate::store::{Store, StoreError};

use super::error::QueryError;
use super::partitions::{Projected, bucket_and_prefix, hive_location, projected, projected_location};
use super::read::{self, Form, Source};
use super::scanned::Scanned;
use super::types::arrow_of_hive;

/// The hidden column of the place of a row's object.
pub(crate) const PATH: &str = "$path";
/// The page size of S3's listings.
const LIST_PAGE: usize = 1_000;
/// Up to this many combinations of projected values are tried one by one.
const MAX_PARTITIONS: usize = 2_000_000;

/// A table over objects.
#[derive(Debug)]
pub(crate) struct LakeTable {
    table: Table,
    schema: SchemaRef,
    /// How many columns of the schema are in the objects; partition keys follow.
    in_objects: usize,
    catalog: Catalog,
    store: Store,
    scanned: Scanned,
}

/// A partition that a query needs.
#[derive(Debug, Clone)]
struct Needed {
    values: Vec<ScalarValue>,
    location: String,
    descriptor: Option<StorageDescriptor>,
}

impl LakeTable {
    /// The table, with the hidden column of objects' places if a statement names it.
    pub(crate) fn try_new(table: Table, catalog: Catalog, store: Store, scanned: Scanned, with_path: bool) -> Result<Self, QueryError> {
        let field = |column: &Column| {
            let kind = arrow_of_hive(column.hive_type()).map_err(|why| QueryError::user("HIVE_INVALID_METADATA", why))?;
            Ok::<_, QueryError>(Field::new(&column.name, kind, true))
        };
        let mut fields: Vec<Field> = table.columns().iter().chain(&table.partition_keys).map(field).collect::<Result<_, _>>()?;
        if with_path {
            fields.push(Field::new(PATH, DataType::Utf8, true));
        }
        let in_objects = table.columns().len();
        Ok(Self { schema: Arc::new(Schema::new(fields)), table, in_objects, catalog, store, scanned })
    }

    fn keys(&self) -> &[Arc<Field>] {
        &self.schema.fields()[self.in_objects..self.in_objects + self.table.partition_keys.len()]
    }

    /// Whether the values of partition keys decide a predicate.
    fn is_of_keys(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        !columns.is_empty()
            && !filter.is_volatile()
            && columns.iter().all(|column| self.keys().iter().any(|key| key.name() == &column.name))
    }

    /// Which rows of partition values satisfy the predicates. Predicates on keys other than the given ones are ignored.
    fn kept(&self, state: &dyn Session, filters: &[&Expr], keys: &[usize], rows: &[Vec<String>]) -> Result<Vec<bool>> {
        let fields: Vec<Arc<Field>> = keys.iter().map(|&key| Arc::clone(&self.keys()[key])).collect();
        let names: BTreeSet<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        let mut kept = vec![true; rows.len()];
        let filters: Vec<_> =
            filters.iter().filter(|filter| filter.column_refs().iter().all(|column| names.contains(column.name.as_str()))).collect();
        if filters.is_empty() || rows.is_empty() {
            return Ok(kept);
        }
        let schema = Arc::new(Schema::new(fields.iter().map(|field| field.as_ref().clone()).collect::<Vec<_>>()));
        let columns = (0..keys.len())
            .map(|index| {
                let texts = StringArray::from_iter(rows.iter().map(|row| key_text(&row[index])));
                arrow::compute::cast_with_options(&texts, schema.field(index).data_type(), &CastOptions::default())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let schema = DFSchema::try_from(schema)?;
        for filter in filters {
            let bare = unqualified((**filter).clone())?;
            let decided = state.create_physical_expr(bare, &schema)?.evaluate(&batch)?.into_array(rows.len())?;
            // A predicate that is null lets nothing through.
            let decided = decided.as_any().downcast_ref::<BooleanArray>();
            for (row, kept) in kept.iter_mut().enumerate() {
                *kept &= decided.is_some_and(|decided| decided.is_valid(row) && decided.value(row));
            }
        }
        Ok(kept)
    }

    /// The partitions that satisfy the predicates on partition keys.
    fn needed(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Needed>> {
        if self.keys().is_empty() {
            let location = self.table.location().unwrap_or_default().to_owned();
            return Ok(vec![Needed { values: Vec::new(), location, descriptor: None }]);
        }
        let filters: Vec<&Expr> = filters.iter().filter(|filter| self.is_of_keys(filter)).collect();
        let all: Vec<usize> = (0..self.keys().len()).collect();
        let (rows, registered) = if self.table.is_projected() {
            (self.projected_rows(state, &filters)?, None)
        } else {
            let database = self.table.database_name.as_deref().unwrap_or_default();
            let partitions = self
                .catalog
                .partitions(database, &self.table.name)
                .map_err(|error| QueryError::system("HIVE_METASTORE_ERROR", error.to_string()))?;
            (partitions.iter().map(|partition| partition.values.clone()).collect::<Vec<_>>(), Some(partitions))
        };
        let kept = self.kept(state, &filters, &all, &rows)?;
        let mut needed = Vec::new();
        for (index, row) in rows.iter().enumerate().filter(|(index, _)| kept[*index]) {
            let values = row
                .iter()
                .zip(self.keys())
                .map(|(text, key)| match key_text(text) {
                    Some(text) => ScalarValue::try_from_string(text.to_owned(), key.data_type()),
                    None => ScalarValue::try_from(key.data_type()),
                })
                .collect::<Result<Vec<_>>>()
                .map_err(|error| QueryError::user("HIVE_INVALID_PARTITION_VALUE", format!("Invalid partition value: {error}")))?;
            let partition = registered.as_ref().and_then(|partitions| partitions.get(index));
            let descriptor = partition.and_then(|partition| partition.storage_descriptor.clone());
            let location = match descriptor.as_ref().and_then(|descriptor| descriptor.location.clone()) {
                Some(location) => location,
                None if registered.is_some() => hive_location(&self.table, row),
                None => projected_location(&self.table, row),
            };
            needed.push(Needed { values, location, descriptor });
        }
        Ok(needed)
    }

    /// All combinations of projected values, after the predicates on each single key have reduced that key's values.
    fn projected_rows(&self, state: &dyn Session, filters: &[&Expr]) -> Result<Vec<Vec<String>>> {
        let now = Timestamp::now();
        let mut rows: Vec<Vec<String>> = vec![Vec::new()];
        for (index, key) in self.table.partition_keys.iter().enumerate() {
            let values = match projected(&self.table, key, now)? {
                Projected::Values(values) => values,
                Projected::Injected => injected(&key.name, filters)?,
            };
            let each: Vec<Vec<String>> = values.into_iter().map(|value| vec![value]).collect();
            let kept = self.kept(state, filters, &[index], &each)?;
            let values: Vec<String> = each.into_iter().zip(kept).filter(|(_, kept)| *kept).flat_map(|(value, _)| value).collect();
            if rows.len().saturating_mul(values.len()) > MAX_PARTITIONS {
                return Err(QueryError::user(
                    "HIVE_EXCEEDED_PARTITION_LIMIT",
                    format!("Query over table '{}' can potentially read more than {MAX_PARTITIONS} partitions", self.table.name),
                )
                .into());
            }
            rows = rows
                .iter()
                .flat_map(|row| {
                    values.iter().map(|value| {
                        let mut row = row.clone();
                        row.push(value.clone());
                        row
                    })
                })
                .collect();
        }
        Ok(rows)
    }

    /// The objects of a partition. Names that begin with `_` or `.` are hidden, as in Hive.
    fn objects(&self, location: &str) -> Result<Vec<(String, String, u64)>> {
        let Some((bucket, prefix)) = bucket_and_prefix(location) else {
            return Err(QueryError::user("HIVE_INVALID_METADATA", format!("{location:?} is no location in S3")).into());
        };
        let mut objects = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(bucket, &prefix, after.as_deref(), LIST_PAGE).map_err(|error| listing_error(&error, bucket))?;
            let full = page.len() == LIST_PAGE;
            after = page.last().map(|head| head.key.clone());
            objects.extend(
                page.into_iter()
                    .filter(|head| head.size > 0 && !head.key[prefix.len()..].split('/').any(|part| part.starts_with(['_', '.'])))
                    .map(|head| (bucket.to_owned(), head.key, head.size)),
            );
            if !full {
                return Ok(objects);
            }
        }
    }
}

/// Hive's name for the partition of rows whose key is null.
fn key_text(value: &str) -> Option<&str> {
    (value != "__HIVE_DEFAULT_PARTITION__").then_some(value)
}

fn listing_error(error: &StoreError, bucket: &str) -> QueryError {
    match error {
        StoreError::NoSuchBucket(_) => QueryError::user(
            "PERMISSION_DENIED",
            format!(
                "The specified bucket does not exist (Service: Amazon S3; Status Code: 404; Error Code: NoSuchBucket; bucket {bucket})"
            ),
        ),
        other => QueryError::system("HIVE_FILESYSTEM_ERROR", other.to_string()),
    }
}

/// The values that a query requires of an injected key.
fn injected(key: &str, filters: &[&Expr]) -> Result<Vec<String>, QueryError> {
    fn text(expr: &Expr) -> Option<String> {
        match expr {
            Expr::Literal(value, _) if !value.is_null() => Some(value.to_string()),
            Expr::Cast(cast) => text(&cast.expr),
            _ => None,
        }
    }
    let is_key = |expr: &Expr| expr.try_as_col().is_some_and(|column| column.name == key);
    for filter in filters {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                let value = if is_key(left) { text(right) } else { None }.or_else(|| if is_key(right) { text(left) } else { None });
                if let Some(value) = value {
                    return Ok(vec![value]);
                }
            }
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
                // The optimizer writes a short IN list as a chain of ORs.
                let mut values = BTreeSet::new();
                let mut open = vec![*filter];
                let mut only_equalities = true;
                while let Some(expr) = open.pop() {
                    match expr {
                        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => open.extend([left.as_ref(), right.as_ref()]),
                        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if is_key(left) && text(right).is_some() => {
                            values.extend(text(right));
                        }
                        _ => only_equalities = false,
                    }
                }
                if only_equalities {
                    return Ok(values.into_iter().collect());
                }
            }
            Expr::InList(list) if is_key(&list.expr) && !list.negated => {
                if let Some(values) = list.list.iter().map(text).collect() {
                    return Ok(values);
                }
            }
            _ => {}
        }
    }
    Err(QueryError::user(
        "CONSTRAINT_VIOLATION",
        format!(
            "For the injected projected partition column {key}, the WHERE clause must contain only static equality conditions, and at \
             least one such condition must be present."
        ),
    ))
}

fn unqualified(expr: Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode as _};
    expr.transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(datafusion::common::Column::from_name(column.name))),
            other => Transformed::no(other),
        })
    })
    .map(|transformed| transformed.data)
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushdown = |filter: &&Expr| {
            if self.is_of_keys(filter) { TableProviderFilterPushDown::Exact } else { TableProviderFilterPushDown::Unsupported }
        };
        Ok(filters.iter().map(pushdown).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let schema = Arc::new(self.schema.project(&columns)?);
        let mut sources = Vec::new();
        for needed in self.needed(state, filters)? {
            let own = self.table.storage_descriptor.clone().unwrap_or_default();
            let form =
                Form::of(needed.descriptor.as_ref().filter(|descriptor| descriptor.serde_info.is_some()).unwrap_or(&own), &self.table)?;
            for (bucket, key, size) in self.objects(&needed.location)? {
                let mut values = needed.values.clone();
                values.push(ScalarValue::Utf8(Some(format!("s3://{bucket}/{key}"))));
                sources.push(Source { bucket, key, size, form: form.clone(), values });
            }
        }
        let stream = Arc::new(Objects {
            schema: Arc::clone(&schema),
            table: Arc::clone(&self.schema),
            in_objects: self.in_objects,
            columns,
            sources,
            store: self.store.clone(),
            scanned: self.scanned.clone(),
        });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![stream], None, None, false, limit)?))
    }
}

/// The rows of the needed objects, one object after another.
#[derive(Debug)]
struct Objects {
    schema: SchemaRef,
    table: SchemaRef,
    in_objects: usize,
    columns: Vec<usize>,
    sources: Vec<Source>,
    store: Store,
    scanned: Scanned,
}

impl PartitionStream for Objects {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reader = Arc::new(read::Reader {
            schema: Arc::clone(&self.schema),
            table: Arc::clone(&self.table),
            in_objects: self.in_objects,
            columns: self.columns.clone(),
            store: self.store.clone(),
            scanned: self.scanned.clone(),
        });
        let batches = futures::stream::iter(self.sources.clone())
            .then(move |source| {
                let reader = Arc::clone(&reader);
                async move { reader.read(source).await }
            })
            .flat_map(|read| match read {
                Ok(batches) => futures::stream::iter(batches.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => futures::stream::iter(vec![Err(error)]),
            });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// Repeats values of a partition key as a column of this many rows.
pub(crate) fn constant(value: &ScalarValue, kind: &DataType, rows: usize) -> Result<Arc<dyn Array>> {
    if value.is_null() {
        return Ok(arrow::array::new_null_array(kind, rows));
    }
    value.to_array_of_size(rows)
}
