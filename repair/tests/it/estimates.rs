//! Estimated values keep the interval in which the true one probably lies, whole rows and single cells alike.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::fmt::Write;

use repair::Repair;

const HOURS: u32 = 20 * 24;

/// A day with its warm noon, and some weather that can be guessed only so well.
fn truth(hour: u32) -> f64 {
    let noise = f64::from(hour.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 - 0.5;
    20.0 + 5.0 * (f64::from(hour % 24) * std::f64::consts::TAU / 24.0).sin() + noise
}

fn at(hour: u32) -> String {
    format!("2024-03-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24)
}

fn is_missing(hour: u32) -> bool {
    (200..212).contains(&hour)
}

/// Absurd temperatures, in rows whose humidity is right.
fn is_wrong(hour: u32) -> bool {
    (300..306).contains(&hour)
}

const WORKFLOW: &str = r#"
workflow: w
kind: dag
tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h, columns: { temperature: { type: number }, humidity: { type: integer } } }
steps:
  gaps: { detect: gaps, with: { table: readings, from: 2024-03-01, to: 2024-03-20, keys: [a] } }
  fill: { after: [gaps], repair: seasonal, of: gaps, with: { columns: [temperature] } }
  bad: { after: [fill], detect: invalid, with: { table: readings, from: 2024-03-01, to: 2024-03-20, keys: [a], rules: [{ column: temperature, max: 60 }] } }
  cells: { after: [bad], repair: seasonal, of: bad, with: { columns: [temperature] } }
  last: { after: [cells], detect: gaps, with: { table: readings, from: 2024-03-21, to: 2024-03-21, keys: [a] } }
  carry: { after: [last], repair: carry-forward, of: last, with: { max_age: 2h } }
"#;

#[tokio::test]
async fn why_says_between_what_an_estimate_lies() {
    let world = tempfile::tempdir().unwrap();
    let mut rows = "sensor,ts,temperature,humidity\n".to_owned();
    for hour in (0..HOURS).filter(|hour| !is_missing(*hour)) {
        let temperature = if is_wrong(hour) { 999.0 } else { truth(hour) };
        writeln!(rows, "a,{},{temperature},50", at(hour)).unwrap();
    }
    std::fs::create_dir_all(world.path().join("lake/readings")).unwrap();
    std::fs::write(world.path().join("lake/readings/0.csv"), rows).unwrap();
    std::fs::write(world.path().join("w.yaml"), WORKFLOW).unwrap();
    let opened = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await;
    let repair = opened.unwrap_or_else(|error| panic!("{}", error.full()));
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    let repaired = |step: &str| report.step(step).unwrap().output["repaired"].clone();
    assert_eq!((repaired("fill"), repaired("cells"), repaired("carry")), (12.into(), 6.into(), 2.into()), "{:?}", report.problems);
    let mut within = 0;
    let hours: Vec<u32> = (0..HOURS).filter(|hour| is_missing(*hour) || is_wrong(*hour)).collect();
    for &hour in &hours {
        let story = repair.why("readings", at(hour).parse().unwrap()).key("a").await.unwrap();
        let recorded = &story.repairs[0].repair;
        assert_eq!(recorded.cells.contains_key("temperature"), is_wrong(hour));
        assert_eq!(recorded.estimated.keys().collect::<Vec<_>>(), ["temperature"], "{recorded:?}");
        let [low, high] = recorded.estimated["temperature"];
        let guess = recorded.row["temperature"].as_f64().unwrap();
        assert!(low < guess && guess < high && high - low < 10.0, "{low} {guess} {high}");
        within += usize::from((low..=high).contains(&truth(hour)));
    }
    // Of 18, some may lie outside of an interval of 95 %; most of them do not.
    assert!(within >= 15, "{within} of {}", hours.len());
    let carried = repair.why("readings", at(HOURS).parse().unwrap()).key("a").await.unwrap();
    assert!(carried.repairs[0].repair.estimated.is_empty(), "a method without an interval has none");
    // The report says of each stretch how far the true values may be, and draws it.
    for of in [report.run.as_str(), "readings"] {
        let shown = repair.report_on(of).await.unwrap_or_else(|error| panic!("{}", error.full()));
        let of_step = |step: &str| shown.fixes.rows.iter().filter(|fix| fix.step == step).collect::<Vec<_>>();
        let within =
            |step: &str| of_step(step).iter().map(|fix| fix.within.get("temperature").map_or(0, |within| within.slots)).sum::<u64>();
        assert_eq!((within("fill"), within("cells"), within("carry")), (12, 6, 0), "{:?}", shown.fixes);
        assert!(
            of_step("fill").iter().all(|fix| fix.within["temperature"].least > 0.0 && fix.within["temperature"].most < 5.0),
            "{:?}",
            shown.fixes
        );
        let series = shown.tables.iter().find_map(|table| table.series.as_ref()).unwrap();
        let estimated = series.points.iter().filter(|point| point.estimated.is_some()).count();
        assert_eq!((series.column.as_str(), estimated), ("temperature", 12), "{series:?}");
        let drawn = series
            .points
            .iter()
            .filter(|point| point.estimated.is_some_and(|[low, high]| point.value.is_some_and(|v| low < v && v < high)));
        assert_eq!(drawn.count(), 12);
        let page = shown.html();
        assert!(page.contains("true value, in 95 % of cases") && page.contains("<td>temperature ±"), "{page}");
        assert!(page.contains("class=\"within s") && page.contains("A thin upright line reaches as far as the true value lies"), "{page}");
    }
    let report = serde_json::to_value(repair.why("readings", at(205).parse().unwrap()).key("a").await.unwrap()).unwrap();
    assert!(report["repairs"][0]["estimated"]["temperature"][0].is_number(), "{report}");
}
