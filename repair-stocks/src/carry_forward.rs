//! The repairer `stocks.carry-forward`: repeats the last price before a gap, for a while, as bars with volume 0.
//!
//! This is the cheapest estimate, because it asks no source. The core's [`CarryForward`] does the search and keeps the limits; this module
//! defines what the bar of a minute without trades looks like. Its `with` is that of the core's `carry-forward`: `max_age`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use repair_core::builtin::repair::CarryForwardConfig;
use repair_core::builtin::repair::{CarryForward, CarryRule};
use repair_core::lake::rollup;
use repair_core::plugin::{PluginKind, Registry};
use repair_core::{Error, Result};

use crate::bar::{CLOSE, HIGH, LOW, OPEN, VOLUME, column_of};
use crate::numbers::{cast_exact, is_number};

const NAME: &str = "stocks.carry-forward";

pub(crate) fn register(registry: &mut Registry) {
    registry.repairer(NAME, "repeats the last price before a gap, with volume 0", |config: CarryForwardConfig| {
        Ok(CarryForward::new(&config, NAME, Box::new(LastPrice)))
    });
    registry.needs_one_row(PluginKind::Repairer, NAME);
}

/// The bar of a minute without trades: all prices are the last close, and the volume is 0.
///
/// Other numbers of a bar (a trade count, an average price) were measured in another minute, so they become null. Everything else, such as
/// the currency, is repeated.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastPrice;

impl CarryRule for LastPrice {
    fn usable(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let close = price(rows)?;
        let close = cast(close, &DataType::Float64)?.as_primitive::<Float64Type>().clone();
        Ok(close.iter().map(|close| Some(close.is_some_and(|close| close.is_finite() && close > 0.0))).collect())
    }

    fn copies(&self, column: &Field) -> bool {
        column.name().eq_ignore_ascii_case(CLOSE) || !is_number(column.data_type())
    }

    fn repeated(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let close = price(&rows)?;
        for name in [OPEN, HIGH, LOW, VOLUME] {
            rollup::column(&rows, name)?;
        }
        let mut fields: Vec<Arc<Field>> = Vec::with_capacity(rows.num_columns());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let kind = field.data_type();
            let (field, column) = match column_of(rows.schema_ref(), field.name())? {
                Some(OPEN | HIGH | LOW) => {
                    let price = cast_exact(close, kind).map_err(|error| {
                        Error::invalid(format!("the last close does not fit into column `{}`, which is {kind}", field.name()))
                            .because(error)
                    })?;
                    (field.clone(), price)
                }
                Some(VOLUME) => (field.clone(), cast(&Int64Array::from(vec![0; rows.num_rows()]), kind)?),
                Some(_) => (field.clone(), column.clone()),
                _ if is_number(kind) => (Arc::new(field.as_ref().clone().with_nullable(true)), new_null_array(kind, rows.num_rows())),
                _ => (field.clone(), column.clone()),
            };
            fields.push(field);
            columns.push(column);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// The column of the last price, if it is numeric.
fn price(rows: &RecordBatch) -> Result<&ArrayRef> {
    let close = rollup::column(rows, CLOSE)?;
    if is_number(close.data_type()) {
        Ok(close)
    } else {
        Err(Error::invalid(format!("column `{CLOSE}` of bars must hold numbers, but is {}", close.data_type())))
    }
}
