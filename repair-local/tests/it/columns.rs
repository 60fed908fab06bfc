//! Files of one table whose columns have different types: what is read is exactly what was written, or it is refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use std::sync::Arc;

use crate::common::*;
use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use repair_core::lake::{Layer, ReadLake, ScanRequest, shape};
use repair_core::model::Cadence;

/// Writes a file of a table of hours, from a given hour on, with a column `v`.
fn write(world: &World, file: &str, first_hour: i64, v: &ArrayRef) {
    let hours = first_hour..first_hour + v.len() as i64;
    let columns: [(&str, ArrayRef); 3] = [
        ("symbol", Arc::new(StringArray::from(vec!["A"; v.len()]))),
        (
            "ts",
            cast(
                &(Arc::new(Int64Array::from_iter_values(hours.map(|hour| hour * 3_600_000_000))) as ArrayRef),
                &time(TimeUnit::Microsecond, None),
            )
            .unwrap(),
        ),
        ("v", v.clone()),
    ];
    write_parquet(&world.root().join("bars").join(file), &RecordBatch::try_from_iter(columns).unwrap(), 100);
}

fn time(unit: TimeUnit, zone: Option<&str>) -> DataType {
    DataType::Timestamp(unit, zone.map(Into::into))
}

/// A number, a time or a text, whatever its type.
#[derive(Debug, PartialEq)]
enum Meaning {
    Nothing,
    /// The digits, without zeros at the end of a fraction.
    Number(String),
    Float(f64),
    Nanoseconds(i128, bool),
    Text(String),
}

fn meaning(values: &ArrayRef, row: usize) -> Meaning {
    if values.is_null(row) {
        return Meaning::Nothing;
    }
    let zoned = |zone: &Option<Arc<str>>| zone.is_some();
    match values.data_type() {
        kind if kind.is_integer() || kind.is_decimal() => {
            let text = array_value_to_string(values, row).unwrap();
            let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
            Meaning::Number(if text == "-0" { "0".to_owned() } else { text })
        }
        kind if kind.is_floating() => Meaning::Float(cast(values, &DataType::Float64).unwrap().as_primitive::<Float64Type>().value(row)),
        DataType::Date32 => Meaning::Nanoseconds(i128::from(values.as_primitive::<Date32Type>().value(row)) * 86_400_000_000_000, false),
        DataType::Timestamp(unit, zone) => {
            let value = i128::from(cast(values, &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(row));
            let factor = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            Meaning::Nanoseconds(value * factor, zoned(zone))
        }
        _ => Meaning::Text(array_value_to_string(values, row).unwrap()),
    }
}

/// Whether a value that was read is the one that was written. A number as a float is the float that is nearest to it, and prints as it.
fn is_kept(written: &Meaning, read: &Meaning) -> bool {
    match (written, read) {
        (Meaning::Number(number), Meaning::Float(float)) => {
            let decimals = number.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            number.parse() == Ok(*float) && format!("{:.decimals$}", float.abs()) == number.trim_start_matches('-')
        }
        (one, other) => one == other,
    }
}

fn kinds() -> impl Strategy<Value = DataType> {
    let unit = prop_oneof![Just(TimeUnit::Second), Just(TimeUnit::Millisecond), Just(TimeUnit::Microsecond), Just(TimeUnit::Nanosecond)];
    let zone = prop_oneof![Just(None), Just(Some("UTC")), Just(Some("+00:00")), Just(Some("Europe/Berlin"))];
    prop_oneof![
        4 => prop_oneof![
            Just(DataType::Int8), Just(DataType::Int16), Just(DataType::Int32), Just(DataType::Int64), Just(DataType::UInt8),
            Just(DataType::UInt32), Just(DataType::UInt64), Just(DataType::Float32), Just(DataType::Float64),
        ],
        4 => (1u8..=38).prop_flat_map(|precision| (0..=precision.cast_signed()).prop_map(move |scale| DataType::Decimal128(precision, scale))),
        3 => (unit, zone).prop_map(|(unit, zone)| time(unit, zone)),
        1 => prop_oneof![Just(DataType::Date32), Just(DataType::Utf8), Just(DataType::Boolean)],
    ]
}

/// Values of a type, from small ones to the largest, some of them null.
fn values(kind: &DataType, seeds: &[Option<i64>]) -> ArrayRef {
    let raw: ArrayRef = match kind {
        DataType::Decimal128(precision, _) => {
            let limit = 10i128.pow(u32::from(*precision));
            let wide = seeds.iter().map(|seed| seed.map(|seed| i128::from(seed) * 1_000_003 * 1_000_000_007 % limit));
            return Arc::new(Decimal128Array::from_iter(wide).with_data_type(kind.clone()));
        }
        DataType::Float32 | DataType::Float64 => {
            Arc::new(Float64Array::from_iter(seeds.iter().map(|seed| seed.map(|seed| seed as f64 / 8.0))))
        }
        DataType::Date32 => return Arc::new(Date32Array::from_iter(seeds.iter().map(|seed| seed.map(|seed| (seed % 100_000) as i32)))),
        DataType::Boolean => Arc::new(Int64Array::from_iter(seeds.iter().map(|seed| seed.map(|seed| seed & 1)))),
        kind if kind.is_integer() => {
            let bits = 8 * kind.primitive_width().unwrap();
            let fit = |seed: i64| match (bits, kind.is_signed_integer()) {
                (64, true) => seed,
                (bits, true) => seed % (1 << (bits - 1)),
                (64, false) => seed & i64::MAX,
                (bits, false) => seed.rem_euclid(1 << bits),
            };
            Arc::new(Int64Array::from_iter(seeds.iter().map(|seed| seed.map(fit))))
        }
        _ => Arc::new(Int64Array::from_iter(seeds.iter().copied())),
    };
    cast(&raw, kind).unwrap()
}

fn seeds() -> impl Strategy<Value = Vec<Option<i64>>> {
    prop::collection::vec(prop::option::weighted(0.9, prop_oneof![-1_000i64..1_000, any::<i64>(), Just(1 << 53)]), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_was_written_or_it_is_refused(kinds in (kinds(), kinds()), seeds in (seeds(), seeds())) {
        let (world, table) = (World::new(), repair_core::model::Table { cadence: Some(Cadence::HOUR), ..bars() });
        let written = [values(&kinds.0, &seeds.0), values(&kinds.1, &seeds.1)];
        write(&world, "a.parquet", 0, &written[0]);
        write(&world, "b.parquet", 100, &written[1]);
        runtime().block_on(async {
            let scan = async |columns: Option<Vec<String>>| {
                let request = ScanRequest::new(Layer::Repaired).with_columns(columns);
                match world.lake.scan(&table, &request).await {
                    Ok(batches) => collect(batches).await,
                    Err(error) => Err(error),
                }
            };
            let rows = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
            // A difference elsewhere does not stop a reader who does not ask for the column.
            assert_eq!(rows(&scan(Some(Vec::new())).await.unwrap()), written[0].len() + written[1].len());
            let schema = world.lake.describe(&table).await.unwrap();
            if let [left_out] = shape::left_out(&schema).as_slice() {
                assert!(schema.field_with_name("v").is_err());
                assert_eq!(rows(&scan(None).await.unwrap()), written[0].len() + written[1].len());
                let refused = scan(Some(vec!["v".to_owned()])).await.unwrap_err().full();
                assert!(left_out.types.iter().chain(&left_out.files).all(|part| refused.contains(part)), "{refused}");
                assert!(refused.contains("a.parquet") && refused.contains("b.parquet") && refused.contains("column `v`"), "{refused}");
                return;
            }
            let read = match scan(Some(vec!["v".to_owned()])).await {
                Ok(read) => read,
                Err(refused) => {
                    let refused = refused.full();
                    assert!(refused.contains("column `v`") && refused.contains(".parquet"), "{refused}");
                    assert_ne!(kinds.0, kinds.1);
                    return;
                }
            };
            let mut found = 0;
            for batch in &read {
                let hours = cast(batch.column_by_name("ts").unwrap(), &time(TimeUnit::Nanosecond, None)).unwrap();
                for row in 0..batch.num_rows() {
                    let hour = hours.as_primitive::<TimestampNanosecondType>().value(row) / 3_600_000_000_000;
                    let (was, at) = if hour < 100 { (&written[0], hour) } else { (&written[1], hour - 100) };
                    let (written, read) = (meaning(was, at as usize), meaning(batch.column_by_name("v").unwrap(), row));
                    assert!(is_kept(&written, &read), "{written:?} of {} became {read:?}", was.data_type());
                    found += 1;
                }
            }
            assert_eq!(found, written[0].len() + written[1].len());
        });
    }
}

#[tokio::test]
async fn types_that_a_wider_one_holds_are_read_as_that() {
    let decimals = |precision: u8, scale: i8, values: &[i128]| {
        Arc::new(Decimal128Array::from(values.to_vec()).with_data_type(DataType::Decimal128(precision, scale))) as ArrayRef
    };
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![7, 9_007_199_254_740_993]));
    let small: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5]));
    let table = repair_core::model::Table { cadence: Some(Cadence::HOUR), ..bars() };
    for (one, other, kind, total) in [
        (decimals(8, 0, &[12]), decimals(10, 2, &[125]), DataType::Decimal128(10, 2), "13.25"),
        (ints.clone(), decimals(10, 2, &[125]), DataType::Decimal128(21, 2), "9007199254741001.25"),
        (small, floats.clone(), DataType::Float64, "7.5"),
    ] {
        let world = World::new();
        write(&world, "a.parquet", 0, &one);
        write(&world, "b.parquet", 100, &other);
        let batches = collect(world.lake.scan(&table, &ScanRequest::new(Layer::Raw)).await.unwrap()).await.unwrap();
        assert!(batches.iter().all(|batch| *batch.schema().field_with_name("v").unwrap().data_type() == kind));
        let sum = batches.iter().map(|batch| match batch.column_by_name("v").unwrap() {
            values if kind == DataType::Float64 => values.as_primitive::<Float64Type>().values().iter().sum::<f64>(),
            values => values.as_primitive::<Decimal128Type>().values().iter().sum::<i128>() as f64 / 100.0,
        });
        assert_eq!(sum.sum::<f64>(), total.parse::<f64>().unwrap());
    }
    let world = World::new();
    write(&world, "a.parquet", 0, &ints);
    write(&world, "b.parquet", 100, &floats);
    let refused = collect(world.lake.scan(&table, &ScanRequest::new(Layer::Raw)).await.unwrap()).await.unwrap_err().full();
    assert!(refused.contains("column `v` is Int64 in this file and Float64") && refused.contains("a.parquet"), "{refused}");
}
