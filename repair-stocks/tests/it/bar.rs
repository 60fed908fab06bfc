//! Which bars are accepted, and what a repeated bar looks like.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray};
use repair_core::builtin::repair::CarryRule;
use repair_stocks::bar::{Bar, believable};
use repair_stocks::carry_forward::LastPrice;

use crate::common::{bars, batch, number};

const MINUTE: &str = "2026-03-05T14:31:00Z";

#[test]
fn a_bar_is_believed_only_if_a_market_can_have_made_it() {
    let good = ("IBM", "2026-03-05T14:30:00Z", [10.0, 10.5, 9.5, 10.2, 300.0]);
    let nan = f64::NAN;
    for (bar, flaw) in [
        ([10.0, 10.5, 9.5, 10.2, 300.0], None),
        ([10.0, 10.0, 10.0, 10.0, 0.0], None),
        ([10.0, 10.5, 10.1, 10.2, 1.0], Some("low 10.1 is above open 10")),
        ([10.0, 10.5, 10.0, 9.9, 1.0], Some("low 10 is above close 9.9")),
        ([10.0, 10.5, 9.5, 10.6, 1.0], Some("close 10.6 is above high 10.5")),
        ([10.6, 10.5, 9.5, 10.0, 1.0], Some("open 10.6 is above high 10.5")),
        ([10.0, 9.0, 11.0, 10.0, 1.0], Some("low 11 is above high 9")),
        ([10.0, 10.5, 9.5, 10.2, -1.0], Some("volume -1 is below 0")),
        ([0.0, 0.0, 0.0, 0.0, 0.0], Some("open 0 is not above 0")),
        ([10.0, 10.5, -9.5, 10.2, 1.0], Some("low -9.5 is not above 0")),
        ([10.0, f64::INFINITY, 9.5, 10.2, 1.0], Some("high is inf")),
        ([10.0, 10.5, 9.5, 10.2, nan], Some("volume is NaN")),
    ] {
        let believed = believable(&bars(), &batch(&bars(), &[good, ("MSFT", MINUTE, bar)]));
        match flaw {
            None => assert!(believed.is_ok(), "{bar:?}"),
            Some(flaw) => {
                let said = believed.unwrap_err().full();
                assert!(said.contains(flaw) && said.contains("MSFT") && said.contains(MINUTE), "{bar:?}: {said}");
            }
        }
    }
}

#[test]
fn a_batch_is_believed_exactly_if_no_bar_has_a_flaw() {
    let values = [f64::NAN, f64::INFINITY, -1.0, -0.0, 1.0, 2.0];
    let number = |at: usize| values[at % values.len()];
    for at in 0..values.len().pow(5) {
        let bar = [0, 1, 2, 3, 4].map(|column| number(at / values.len().pow(column)));
        let [open, high, low, close, volume] = bar;
        let flaw = Bar { open, high, low, close, volume }.flaw();
        let believed = believable(&bars(), &batch(&bars(), &[("IBM", MINUTE, bar)]));
        assert_eq!(believed.is_ok(), flaw.is_none(), "{bar:?}: {flaw:?}");
    }
}

/// A good bar with one column replaced.
fn with_column(name: &str, column: impl Array + 'static) -> RecordBatch {
    let column: ArrayRef = Arc::new(column);
    let rows = batch(&bars(), &[("IBM", MINUTE, [10.0, 10.5, 9.5, 10.2, 300.0])]);
    let schema = rows.schema();
    let columns = schema
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, old)| (field.name().clone(), if field.name() == name { column.clone() } else { old.clone() }));
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn any_kind_of_number_will_do_and_nothing_else() {
    let decimal = |value| Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(10, 2).unwrap()) as ArrayRef;
    believable(&bars(), &with_column("open", decimal(1_001))).unwrap();
    believable(&bars(), &with_column("volume", Int64Array::from(vec![7]))).unwrap();
    for (rows, said) in [
        (with_column("open", decimal(2_000)), "open 20 is above high 10.5"),
        (with_column("close", Float64Array::from(vec![None])), "it has no close"),
        (with_column("close", StringArray::from(vec!["10.2"])), "must hold numbers, but is Utf8"),
        (with_column("open", decimal(1_001)).project(&[0, 1, 2, 3, 4, 5]).unwrap(), "need a column `volume`"),
    ] {
        let error = believable(&bars(), &rows).unwrap_err().full();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_repeated_bar_is_its_close_with_nothing_traded() {
    let rows = batch(&bars(), &[("IBM", MINUTE, [10.0, 10.5, 9.5, 10.2, 300.0]), ("IBM", MINUTE, [10.0, 10.5, 9.5, f64::NAN, 1.0])]);
    assert_eq!(LastPrice.usable(&rows).unwrap().iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
    let mut columns: Vec<(&str, ArrayRef)> =
        ["symbol", "ts", "open", "high", "low", "close", "volume"].into_iter().zip(rows.slice(0, 1).columns().to_vec()).collect();
    columns[6].1 = Arc::new(Int64Array::from(vec![300]));
    columns.push(("trades", Arc::new(Int64Array::from(vec![12]))));
    columns.push(("currency", Arc::new(StringArray::from(vec!["USD"]))));
    let before = RecordBatch::try_from_iter(columns).unwrap();
    let repeated = LastPrice.repeated(before.clone()).unwrap();
    for name in ["open", "high", "low", "close"] {
        assert_eq!(number(&repeated, name, 0), Some(10.2), "{name}");
    }
    assert_eq!((number(&repeated, "volume", 0), number(&repeated, "trades", 0)), (Some(0.0), None), "12 trades were of another minute");
    assert_eq!(repeated.column_by_name("currency"), before.column_by_name("currency"));
    for (field, old) in repeated.schema().fields().iter().zip(before.schema().fields()) {
        assert_eq!((field.name(), field.data_type()), (old.name(), old.data_type()));
    }
    let whole = with_column("open", Int64Array::from(vec![10]));
    assert!(LastPrice.repeated(whole).unwrap_err().message().contains("`open`"), "10.2 is no whole number");
}
