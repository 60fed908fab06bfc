//! Users' SQL. With the feature `sql`, DataFusion runs it over the lake's own scans, so it sees the same as every reader: tables in the
//! shape of batches, and repaired views. It only reads.

use std::sync::Arc;

use repair_core::lake::BatchStream;
use repair_core::model::Table;
use repair_core::{Error, Result};

use crate::lake::Inner;

#[cfg(not(feature = "sql"))]
pub(crate) async fn query(_: &Arc<Inner>, _: &[Table], _: &str) -> Result<BatchStream> {
    Err(Error::invalid("this program was built without SQL; build it with the feature `sql` of `repair-local`"))
}

#[cfg(feature = "sql")]
pub(crate) async fn query(lake: &Arc<Inner>, tables: &[Table], sql: &str) -> Result<BatchStream> {
    datafusion::query(lake, tables, sql).await
}

#[cfg(feature = "sql")]
mod datafusion {
    use std::fmt;

    use ::datafusion::arrow::datatypes::SchemaRef;
    use ::datafusion::catalog::{Session, TableProvider};
    use ::datafusion::common::{ScalarValue, TableReference};
    use ::datafusion::error::{DataFusionError, Result as SqlResult};
    use ::datafusion::execution::context::{SQLOptions, SessionContext};
    use ::datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use ::datafusion::execution::{SendableRecordBatchStream, TaskContext};
    use ::datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
    use ::datafusion::physical_plan::ExecutionPlan;
    use ::datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use ::datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
    use ::datafusion::prelude::SessionConfig;
    use async_trait::async_trait;
    use futures::StreamExt;
    use repair_core::lake::{Layer, overlay};

    use super::{Arc, BatchStream, Error, Inner, Result, Table};
    use crate::files::{self, blocking};
    use crate::scan::{self, Scan};
    use repair_core::lake::partition::TimeBounds;

    /// Memory for sorts and joins; beyond this they use the disk.
    const MEMORY_BYTES: usize = 1 << 30;

    pub(super) async fn query(lake: &Arc<Inner>, tables: &[Table], sql: &str) -> Result<BatchStream> {
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES, 1.0).build_arc().map_err(error)?;
        let context = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(files::workers()), runtime);
        for table in tables {
            for (layer, name) in [(Layer::Raw, table.name.clone()), (Layer::Repaired, overlay::repaired_view(&table.name))] {
                let provider = match LakeTable::new(lake.clone(), table.clone(), layer).await {
                    Ok(provider) => provider,
                    // Its columns and ours would collide, so it cannot be repaired and has no such view.
                    Err(_) if layer == Layer::Repaired && reserved(lake, table).await? => continue,
                    Err(error) => return Err(error),
                };
                let twice = context.register_table(TableReference::bare(name.as_str()), Arc::new(provider)).map_err(error)?.is_some();
                if twice {
                    return Err(Error::invalid(format!("two tables of the query are named `{name}`; rename one")));
                }
            }
        }
        let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let rows = context.sql_with_options(sql, only_reads).await.map_err(error)?.execute_stream().await.map_err(error)?;
        Ok(Box::pin(rows.map(|batch| batch.map_err(error))))
    }

    /// Whether a table has columns with names that we add.
    async fn reserved(lake: &Arc<Inner>, table: &Table) -> Result<bool> {
        let raw = LakeTable::new(lake.clone(), table.clone(), Layer::Raw).await?;
        Ok(repair_core::lake::shape::refuse_reserved(table, &raw.schema).is_err())
    }

    /// Maps an error of the engine; one of ours that passed through it stays as it was.
    #[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
    fn error(error: DataFusionError) -> Error {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(next) = cause {
            if let Some(ours) = next.downcast_ref::<Error>() {
                return Error::new(ours.kind(), ours.full());
            }
            cause = next.source();
        }
        Error::invalid(format!("the SQL could not be run: {error}"))
    }

    fn external(error: Error) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }

    /// A table, or its repaired view, as the engine sees it.
    struct LakeTable {
        lake: Arc<Inner>,
        table: Table,
        layer: Layer,
        schema: SchemaRef,
    }

    impl LakeTable {
        async fn new(lake: Arc<Inner>, table: Table, layer: Layer) -> Result<Self> {
            let (inner, named) = (lake.clone(), table.clone());
            let scan = blocking(move || Scan::within(&inner, &named, layer, TimeBounds::ALL, None, None)).await?;
            Ok(Self { lake, table, layer, schema: scan.schema() })
        }

        /// The bounds that filters set on the time; other filters do not change it.
        fn bounds(&self, filters: &[Expr]) -> TimeBounds {
            let mut bounds = TimeBounds::ALL;
            for (operator, time_us) in filters.iter().filter_map(|filter| self.comparison(filter)) {
                let after = time_us.saturating_add(1);
                match operator {
                    Operator::Eq => {
                        bounds.from_us = bounds.from_us.max(time_us);
                        bounds.to_us = bounds.to_us.min(after);
                    }
                    Operator::Gt => bounds.from_us = bounds.from_us.max(after),
                    Operator::GtEq => bounds.from_us = bounds.from_us.max(time_us),
                    Operator::Lt => bounds.to_us = bounds.to_us.min(time_us),
                    Operator::LtEq => bounds.to_us = bounds.to_us.min(after),
                    _ => {}
                }
            }
            // A slot of the view is decided as a whole; otherwise a raw row outside the bounds would not hide its repair.
            if self.layer == Layer::Repaired { scan::whole_slots(&self.table, &bounds) } else { bounds }
        }

        /// The bounds set by a filter that compares the time column with an instant.
        fn comparison(&self, filter: &Expr) -> Option<(Operator, i64)> {
            let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
            let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(literal, _)) => (column, *op, literal),
                (Expr::Literal(literal, _), Expr::Column(column)) => (column, op.swap()?, literal),
                _ => return None,
            };
            match literal {
                ScalarValue::TimestampMicrosecond(Some(time_us), Some(_)) if column.name == self.table.time => Some((op, *time_us)),
                _ => None,
            }
        }
    }

    impl fmt::Debug for LakeTable {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("LakeTable").field("table", &self.table.name).field("layer", &self.layer).finish_non_exhaustive()
        }
    }

    #[async_trait]
    impl TableProvider for LakeTable {
        fn schema(&self) -> SchemaRef {
            self.schema.clone()
        }

        fn table_type(&self) -> TableType {
            TableType::Base
        }

        fn supports_filters_pushdown(&self, filters: &[&Expr]) -> SqlResult<Vec<TableProviderFilterPushDown>> {
            // Rows outside may come too, since the engine filters again.
            Ok(filters
                .iter()
                .map(|filter| match self.comparison(filter) {
                    Some(_) => TableProviderFilterPushDown::Inexact,
                    None => TableProviderFilterPushDown::Unsupported,
                })
                .collect())
        }

        async fn scan(
            &self,
            _: &dyn Session,
            projection: Option<&Vec<usize>>,
            filters: &[Expr],
            limit: Option<usize>,
        ) -> SqlResult<Arc<dyn ExecutionPlan>> {
            let all: Vec<usize> = (0..self.schema.fields().len()).collect();
            let wanted: Vec<String> = projection.unwrap_or(&all).iter().map(|&at| self.schema.field(at).name().clone()).collect();
            let columns: Vec<String> =
                wanted.iter().filter(|name| *name != overlay::REPAIRED_BY || self.layer == Layer::Raw).cloned().collect();
            let (lake, table, layer, bounds) = (self.lake.clone(), self.table.clone(), self.layer, self.bounds(filters));
            let scan = blocking(move || Scan::within(&lake, &table, layer, bounds, None, Some(&columns))).await.map_err(external)?;
            let schema = scan.schema();
            // The key and time columns always come, wanted or not.
            let projection = wanted.iter().map(|name| Ok(schema.index_of(name)?)).collect::<SqlResult<Vec<usize>>>()?;
            let rows: Arc<dyn PartitionStream> = Arc::new(LakeRows { scan: Arc::new(scan), schema: schema.clone() });
            Ok(Arc::new(StreamingTableExec::try_new(schema, vec![rows], Some(&projection), None, false, limit)?))
        }
    }

    struct LakeRows {
        scan: Arc<Scan>,
        schema: SchemaRef,
    }

    impl fmt::Debug for LakeRows {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("LakeRows").field("table", &self.scan.table.name).finish_non_exhaustive()
        }
    }

    impl PartitionStream for LakeRows {
        fn schema(&self) -> &SchemaRef {
            &self.schema
        }

        fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
            let rows = scan::stream(self.scan.clone()).map(|batch| batch.map_err(external));
            Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
        }
    }
}
