//! What is too big for the journal.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use futures::StreamExt;

use super::tables::{collect, new_run};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{BatchStream, KeptObject, Lake, name};

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let texts = StringArray::from_iter_values(range.clone().map(|number| format!("text of {number}")));
    RecordBatch::try_from_iter([("number", Arc::new(Int64Array::from_iter_values(range)) as _), ("text", Arc::new(texts) as _)]).unwrap()
}

fn stream(batches: Vec<Result<RecordBatch>>) -> BatchStream {
    // Each batch arrives later, as if it came over a network.
    futures::stream::iter(batches)
        .then(|batch| async {
            tokio::task::yield_now().await;
            batch
        })
        .boxed()
}

async fn read(lake: &dyn Lake, run: &str, name: &str) -> Vec<i64> {
    let mut all = Vec::new();
    for batch in collect(lake.get_artifact(run, name).await.unwrap()).await {
        let found = batch.column_by_name("number").unwrap().as_primitive::<Int64Type>();
        let texts = batch.column_by_name("text").unwrap().as_string::<i32>();
        for row in 0..batch.num_rows() {
            assert_eq!(texts.value(row), format!("text of {}", found.value(row)));
            all.push(found.value(row));
        }
    }
    all
}

/// An artifact comes back whole and in order, however it was cut into batches; so does one without rows, or without batches.
pub async fn artifacts_come_back_in_order(lake: &dyn Lake) {
    let run = new_run();
    let cuts = [0, 1, 1, 500, 70_000, 70_001];
    let batches = cuts.windows(2).map(|cut| Ok(numbers(cut[0]..cut[1]))).collect();
    let usage = lake.put_artifact(&run, "gaps", stream(batches)).await.unwrap();
    assert_eq!(usage.rows_written, 70_001);
    assert_eq!(read(lake, &run, "gaps").await, (0..70_001).collect::<Vec<_>>());
    // A reader that stops early does not disturb another.
    let mut part = lake.get_artifact(&run, "gaps").await.unwrap();
    assert!(part.next().await.unwrap().is_ok());
    drop(part);
    lake.put_artifact(&run, "empty", stream(vec![Ok(numbers(0..0))])).await.unwrap();
    assert_eq!(read(lake, &run, "empty").await, [] as [i64; 0]);
    lake.put_artifact(&run, "nothing", stream(Vec::new())).await.unwrap();
    assert_eq!(read(lake, &run, "nothing").await, [] as [i64; 0]);
}

/// A new artifact replaces the one of the same name, even if it is shorter. A reader of the old one reads it to its end, or gets an error.
pub async fn an_artifact_takes_the_place_of_what_had_its_name(lake: &dyn Lake) {
    let run = new_run();
    lake.put_artifact(&run, "gaps", stream(vec![Ok(numbers(0..100_000))])).await.unwrap();
    let mut former = lake.get_artifact(&run, "gaps").await.unwrap();
    let mut expected = former.next().await.unwrap().unwrap().num_rows();
    lake.put_artifact(&run, "gaps", stream(vec![Ok(numbers(5..7))])).await.unwrap();
    assert_eq!(read(lake, &run, "gaps").await, [5, 6]);
    while let Some(Ok(batch)) = former.next().await {
        let found = batch.column_by_name("number").unwrap().as_primitive::<Int64Type>().value(0);
        assert_eq!(usize::try_from(found).unwrap(), expected, "never rows of another");
        expected += batch.num_rows();
    }
}

/// An error of the stream becomes the error of the call, and the old artifact stays; if there was none, there is none.
pub async fn an_error_of_the_stream_leaves_the_artifact_that_was_there(lake: &dyn Lake) {
    let run = new_run();
    let broken = || stream(vec![Ok(numbers(7..9)), Err(Error::blind("the other side is gone")), Ok(numbers(9..11))]);
    let error = lake.put_artifact(&run, "gaps", broken()).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Blind, "the other side is gone"));
    assert_eq!(lake.get_artifact(&run, "gaps").await.err().unwrap().kind(), ErrorKind::NotFound);
    lake.put_artifact(&run, "gaps", stream(vec![Ok(numbers(0..3))])).await.unwrap();
    assert_eq!(lake.put_artifact(&run, "gaps", broken()).await.unwrap_err().kind(), ErrorKind::Blind);
    let at_once = stream(vec![Err(Error::blind("the other side is gone"))]);
    assert_eq!(lake.put_artifact(&run, "gaps", at_once).await.unwrap_err().kind(), ErrorKind::Blind);
    assert_eq!(read(lake, &run, "gaps").await, [0, 1, 2]);
}

/// Artifacts with similar names, or of runs with similar ids, are different artifacts.
pub async fn artifacts_of_similar_names_are_different_artifacts(lake: &dyn Lake) {
    let run = new_run();
    let long = "x".repeat(300);
    let longer = format!("{long}y");
    let other = format!("{run}/fill");
    let names = [
        (&run, "fill/gaps"),
        (&other, "gaps"),
        (&run, "fill%2Fgaps"),
        (&run, "fill gaps"),
        (&run, ".fill"),
        (&run, ".."),
        (&run, &long),
        (&run, &longer),
    ];
    for (number, (run, name)) in (0..).zip(&names) {
        lake.put_artifact(run, name, stream(vec![Ok(numbers(number..number + 1))])).await.unwrap();
    }
    for (number, (run, name)) in (0..).zip(&names) {
        assert_eq!(read(lake, run, name).await, [number], "{name}");
    }
}

/// What is kept for a run is listed by its area, and what is removed is gone, and nothing else is.
pub async fn what_is_kept_for_a_run_can_be_listed_and_removed(lake: &dyn Lake) {
    let (run, other) = (new_run(), format!("{}/é", new_run()));
    for (run, name) in [(&run, "gaps"), (&run, "fill/gaps"), (&other, "gaps")] {
        lake.put_artifact(run, name, stream(vec![Ok(numbers(0..3))])).await.unwrap();
    }
    let of = |run: &str| {
        let area = name::part(run);
        async move {
            let mut kept: Vec<KeptObject> = lake.kept().await.unwrap();
            assert!(kept.is_sorted());
            kept.retain(|kept| kept.area == area);
            kept
        }
    };
    let names = |kept: &[KeptObject]| kept.iter().map(|kept| kept.name.clone()).collect::<Vec<_>>();
    let kept = of(&run).await;
    assert_eq!(names(&kept), ["fill%2Fgaps", "gaps"]);
    assert!(kept.iter().all(|kept| kept.bytes > 0 && !kept.is_staged()));
    let goes: Vec<KeptObject> = kept.into_iter().filter(|kept| kept.name == "gaps").collect();
    lake.remove_kept(&goes).await.unwrap();
    // As often as one likes.
    lake.remove_kept(&goes).await.unwrap();
    assert_eq!(names(&of(&run).await), ["fill%2Fgaps"]);
    assert_eq!(lake.get_artifact(&run, "gaps").await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(read(lake, &run, "fill/gaps").await, [0, 1, 2]);
    assert_eq!(read(lake, &other, "gaps").await, [0, 1, 2]);
    // A name that leads elsewhere is none of them.
    for (area, name) in [("..", "gaps"), ("", "gaps"), ("a", "../gaps"), ("a", "staged//gaps"), ("a/../b", ".gaps")] {
        let error = lake.remove_kept(&[KeptObject::new(area, name, 0)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{area} {name}");
    }
}
