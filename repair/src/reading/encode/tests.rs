use std::io;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, ListArray, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int32Type;

use super::*;
use repair_core::Hint;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn written(format: Format, columns: Vec<(&str, ArrayRef)>) -> Result<Vec<u8>> {
    let kept = Kept::default();
    let mut encoder = Encoder::new(format, Box::new(kept.clone()), "rows".to_owned())?;
    encoder.write(&RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?)?;
    encoder.finish()?;
    let bytes = kept.0.lock().unwrap().clone();
    Ok(bytes)
}

fn columns() -> Vec<(&'static str, ArrayRef)> {
    vec![
        ("te,xt", Arc::new(StringArray::from(vec![Some("a,b"), Some("say \"hi\"\n"), Some(""), None, Some("=1+1")]))),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![0, 1_500, -1, 1_711_846_800_000, 5]).with_timezone("Europe/Berlin"))),
        ("value", Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), Some(1e300), Some(-0.0), None, Some(5e-324)]))),
        ("count", Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN, 0, 1, -1]))),
        ("good", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None, Some(true)]))),
        ("day", Arc::new(Date32Array::from(vec![0, 19_786, 1, 2, 3]))),
    ]
}

#[test]
fn csv_is_quoted_and_every_value_can_be_read_back() {
    let text = String::from_utf8(written(Format::Csv, columns()).unwrap()).unwrap();
    let expected = "\
\"te,xt\",ts,value,count,good,day
\"a,b\",1970-01-01T00:00:00Z,0.30000000000000004,9223372036854775807,true,1970-01-01
\"say \"\"hi\"\"\n\",1970-01-01T00:00:01.500Z,1e300,-9223372036854775808,false,2024-03-04
\"\",1969-12-31T23:59:59.999Z,-0.0,0,,1970-01-02
,2024-03-31T01:00:00Z,,1,,1970-01-03
=1+1,1970-01-01T00:00:00.005Z,5e-324,-1,true,1970-01-04
";
    assert_eq!(text, expected);
    let one = written(Format::Csv, vec![("x", Arc::new(StringArray::from(vec![None, Some("a")])))]).unwrap();
    assert_eq!(String::from_utf8(one).unwrap(), "x\n\"\"\na\n");
}

#[test]
fn json_lines_hold_the_same_and_no_number_becomes_null() {
    let text = String::from_utf8(written(Format::Jsonl, columns()).unwrap()).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 5);
    assert_eq!((&rows[0]["value"], &rows[4]["value"]), (&(0.1 + 0.2).into(), &5e-324.into()));
    assert_eq!((&rows[1]["te,xt"], &rows[1]["ts"]), (&"say \"hi\"\n".into(), &"1970-01-01T00:00:01.500Z".into()));
    assert_eq!((rows[3].get("value"), &rows[1]["count"]), (Some(&serde_json::Value::Null), &i64::MIN.into()));
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let text = written(Format::Jsonl, vec![("list", Arc::new(lists))]).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "{\"list\":[1,null]}\n{\"list\":null}\n");
    for wrong in [f64::NAN, f64::INFINITY] {
        let error = written(Format::Jsonl, vec![("value", Arc::new(Float64Array::from(vec![1.0, wrong])))]).unwrap_err();
        assert!(error.message().contains("column `value` holds one"), "{error}");
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused_with_one_that_can() {
    let lists = || Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)])])) as ArrayRef;
    let error = written(Format::Csv, vec![("sizes", lists())]).unwrap_err();
    assert_eq!(
        (error.message(), error.remedy()),
        ("CSV has no lists or records, and column `sizes` holds them", Some(&Hint::FileFormat { name: "parquet" }))
    );
    let bytes = written(Format::Parquet, vec![("sizes", lists())]).unwrap();
    assert_eq!(&bytes[..4], b"PAR1");
    let twice = || vec![("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef), ("x", Arc::new(Int64Array::from(vec![2])) as ArrayRef)];
    for format in [Format::Csv, Format::Jsonl, Format::Parquet] {
        assert!(written(format, twice()).unwrap_err().message().contains("two columns are named `x`"));
    }
}
