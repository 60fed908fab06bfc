//! Bars: the prices and the volume of a stock in one minute, the columns that hold them, and which bars are possible.

use arrow::array::{Array, AsArray, Float64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use jiff::Timestamp;
use repair_core::lake::{rollup, shape};
use repair_core::model::{Key, Table};
use repair_core::{Error, Result};

use crate::numbers::is_number;

/// The column of the first price.
pub const OPEN: &str = "open";
/// The column of the highest price.
pub const HIGH: &str = "high";
/// The column of the lowest price.
pub const LOW: &str = "low";
/// The column of the last price.
pub const CLOSE: &str = "close";
/// The column of the traded volume.
pub const VOLUME: &str = "volume";
/// Which of [`COLUMNS`] a column of rows is: they are found in any case, as [`shape::find`] finds them.
///
/// # Errors
/// `invalid` if several columns differ from one of the names in nothing but case.
pub(crate) fn column_of(rows: &Schema, name: &str) -> Result<Option<&'static str>> {
    for column in COLUMNS.into_iter().filter(|column| column.eq_ignore_ascii_case(name)) {
        if shape::find(rows, column)?.is_some_and(|found| found.name() == name) {
            return Ok(Some(column));
        }
    }
    Ok(None)
}

/// The columns of a bar without key and time, in their usual order.
pub const COLUMNS: [&str; 5] = [OPEN, HIGH, LOW, CLOSE, VOLUME];

/// The prices and the volume of a stock in a stretch of time. Prices are in the currency that it trades in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// The first price.
    pub open: f64,
    /// The highest price.
    pub high: f64,
    /// The lowest price.
    pub low: f64,
    /// The last price.
    pub close: f64,
    /// The number of shares (or coins) traded, which may be fractional.
    pub volume: f64,
}

impl Bar {
    /// Why no market can have produced this bar; `None` if one can.
    ///
    /// ```
    /// use repair_stocks::bar::Bar;
    /// let bar = Bar { open: 10.0, high: 10.5, low: 9.5, close: 10.0, volume: 300.0 };
    /// assert_eq!(bar.flaw(), None);
    /// assert_eq!(Bar { low: 10.2, ..bar }.flaw().as_deref(), Some("low 10.2 is above open 10"));
    /// ```
    pub fn flaw(&self) -> Option<String> {
        let Self { open, high, low, close, volume } = *self;
        let prices = [(OPEN, open), (HIGH, high), (LOW, low), (CLOSE, close)];
        if let Some((name, value)) = prices.into_iter().chain([(VOLUME, volume)]).find(|(_, value)| !value.is_finite()) {
            return Some(format!("{name} is {value}"));
        }
        if let Some((name, value)) = prices.into_iter().find(|(_, price)| *price <= 0.0) {
            return Some(format!("{name} {value} is not above 0"));
        }
        let ordered = [
            (LOW, low, HIGH, high),
            (LOW, low, OPEN, open),
            (LOW, low, CLOSE, close),
            (OPEN, open, HIGH, high),
            (CLOSE, close, HIGH, high),
        ];
        if let Some((name, value, other, limit)) = ordered.into_iter().find(|(_, lower, _, upper)| lower > upper) {
            return Some(format!("{name} {value} is above {other} {limit}"));
        }
        (volume < 0.0).then(|| format!("{VOLUME} {volume} is below 0"))
    }

    /// Whether it has no [`Bar::flaw`], in as few comparisons as that takes: what lies between finite prices is finite, and nothing compares with what is no
    /// number.
    fn is_sound(&self) -> bool {
        let Self { open, high, low, close, volume } = *self;
        let (prices, volumes) = (low..=high, 0.0..f64::INFINITY);
        (low > 0.0) & (high < f64::INFINITY) & prices.contains(&open) & prices.contains(&close) & volumes.contains(&volume)
    }
}

/// The numbers of a batch of bars.
struct Numbers([Float64Array; 5]);

impl Numbers {
    /// Reads the columns, whatever their number type. The cast keeps the order of numbers, so the rules on it hold as before.
    fn of(batch: &RecordBatch) -> Result<Self> {
        let mut numbers = Vec::with_capacity(COLUMNS.len());
        for name in COLUMNS {
            let column = shape::find_column(batch, name)?.ok_or_else(|| {
                let schema = batch.schema();
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                Error::invalid(format!("bars need a column `{name}`, and there is none; the columns are {}", names.join(", ")))
            })?;
            if !is_number(column.data_type()) {
                return Err(Error::invalid(format!("column `{name}` of bars must hold numbers, but is {}", column.data_type())));
            }
            numbers.push(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone());
        }
        let numbers = <[Float64Array; 5]>::try_from(numbers).map_err(|_| Error::internal("a bar has five numbers"))?;
        Ok(Self(numbers))
    }

    /// Whether no bar has a flaw, and none lacks a number.
    fn are_sound(&self) -> bool {
        let [open, high, low, close, volume] = self.0.each_ref().map(|column| column.values().iter());
        let bars = open.zip(high).zip(low.zip(close)).zip(volume);
        self.0.iter().all(|column| column.null_count() == 0)
            && bars.fold(true, |all, (((&open, &high), (&low, &close)), &volume)| all & Bar { open, high, low, close, volume }.is_sound())
    }

    /// The bar of a row, or the name of a column that is null there.
    fn bar(&self, row: usize) -> Result<Bar, &'static str> {
        if let Some((name, _)) = COLUMNS.iter().zip(&self.0).find(|(_, column)| column.is_null(row)) {
            return Err(name);
        }
        let [open, high, low, close, volume] = self.0.each_ref().map(|column| column.value(row));
        Ok(Bar { open, high, low, close, volume })
    }
}

/// The rule for bars, as a [`RowRule`](repair_core::builtin::repair::RowRule): prices are above 0, low ≤ open and close ≤ high, the volume is not
/// below 0, and all are finite numbers. Columns may hold floats, integers or decimals.
///
/// # Errors
/// `invalid`, naming the symbol and the minute of the first impossible bar, or the column that is missing or not numeric.
pub fn believable(table: &Table, batch: &RecordBatch) -> Result<()> {
    let numbers = Numbers::of(batch)?;
    if numbers.are_sound() {
        return Ok(());
    }
    let keys = rollup::key_columns(table, batch)?;
    let times = rollup::column(batch, &table.time)?
        .as_any()
        .downcast_ref::<TimestampMicrosecondArray>()
        .ok_or_else(|| Error::invalid(format!("the time column `{}` is not microseconds", table.time)))?;
    for row in 0..batch.num_rows() {
        let flaw = match numbers.bar(row) {
            Ok(bar) => bar.flaw(),
            Err(column) => Some(format!("it has no {column}")),
        };
        if let Some(flaw) = flaw {
            let key = Key::new(keys.iter().map(|column| column.value(row)));
            let minute =
                Timestamp::from_microsecond(times.value(row)).map_or_else(|_| "an unknown time".to_owned(), |minute| minute.to_string());
            return Err(Error::invalid(format!("the bar of {key} at {minute} is impossible: {flaw}; the whole answer is rejected")));
        }
    }
    Ok(())
}
