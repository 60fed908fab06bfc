//! Absurd values of real data, found by a workflow in YAML, replaced beside the data, story of, and brought back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::Path;

use crate::common::{World, files, seen};
use serde_json::Value;

fn counted(report: &Value, step: &str) -> [u64; 4] {
    let output = &report["steps"][step]["output"];
    let replaced = |name: &str| if name == "replaced" { output["patched"].as_u64().unwrap_or(0) } else { 0 };
    ["expected", "missing", "defective", "replaced"]
        .map(|name| replaced(name) + output[name].as_u64().unwrap_or_else(|| panic!("{report}")))
}

/// Eleven authorities demand a quarter to five times their median each; 65 hours of 2018 were published otherwise.
#[test]
fn an_hour_of_1_676_497_megawatts_is_replaced_and_can_be_brought_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let world = World::new();
    let folder = world.lake().join("us-power-hourly");
    testdata::unpack_into("us-power-hourly", &folder);
    let before = files(&folder);
    let workflow = root.join("examples/workflows/us-power-corrected.yaml");
    let (report, code) = world.run_json(&workflow, &["--run-id", "one"]);
    assert_eq!((code, &report["outcome"]), (0, &"succeeded".into()), "{report}");
    assert_eq!(counted(&report, "find_absurd"), [96_360, 4_484, 65, 0]);
    assert_eq!(counted(&report, "check"), [65, 0, 0, 65], "{report}");
    assert_eq!(files(&folder), before, "the data is never touched");

    // 06:00 is the end of the hour that begins at 05:00.
    let why = |at: &str| world.json(&["why", "demand", "--key", "AZPS", "--at", at]);
    let absurd = "2018-03-26T06:00:00Z";
    let story = why(absurd);
    assert_eq!((&story["standing"], &story["raw"][0]["demand_mw"]), (&"patched".into(), &1_676_497.into()), "{story}");
    let repair = &story["repairs"][0];
    // Between 2,964 MW before it and 2,541 MW after it.
    assert_eq!((&repair["op"], &repair["row"]["demand_mw"]), (&"patch".into(), &2_753.into()), "{story}");
    assert_eq!(repair["cells"]["demand_mw"], serde_json::json!({ "was": 1_676_497, "counts": true }), "{story}");

    // The agency publishes the hour anew: its value is seen at once, and judged.
    let text = std::fs::read_to_string(folder.join("demand.csv")).unwrap();
    let mended = text.replace("AZPS,2018-03-26T06:00:00Z,1676497", "AZPS,2018-03-26T06:00:00Z,2790");
    assert_ne!(mended, text);
    std::fs::write(folder.join("demand.csv"), mended).unwrap();
    let story = why(absurd);
    assert_eq!((&story["standing"], &story["repairs"][0]["counts"]), (&"raw".into(), &false.into()), "{story}");
    let (again, _) = world.run_json(&workflow, &["--run-id", "two"]);
    assert_eq!((counted(&again, "find_absurd"), &again["steps"]["find_absurd"]["output"]["changed"]), ([96_360, 4_484, 0, 64], &1.into()));
    let undo = ["undo", "one", "--key", "AZPS", "--from", "2018-03-26T05:00:00Z", "--to", "2018-03-26T06:00:00Z"];
    let output = world.repair().args(undo).args(["--reason", "published anew"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let story = why(absurd);
    assert_eq!((&story["standing"], &story["raw"][0]["demand_mw"]), (&"raw".into(), &2_790.into()), "{story}");
}

/// Where undo left hours stale, they are found, and these alone are computed again.
#[tokio::test]
async fn stale_hours_are_found_and_computed_again() {
    let world = World::new();
    world.run_json(&world.workflow(&[]), &["--run-id", "first"]);
    let whole = seen(&world).await;
    world.json(&["undo", "first", "--key", "AIG", "--from", "2024-03-04T14:30:00Z", "--to", "2024-03-04T15:30:00Z"]);
    let steps = "start: look
steps:
  look:
    detect: stale
    with: { table: bars, into: hourly, calendar: XNYS, keys: [AIG, BAC, SPY], from: 2024-03-04, to: 2024-03-04 }
    next: [{ when: $output.defective = 0, goto: done }, { goto: again }]
  again: { aggregate: stocks.hourly-bars, of: look, with: { table: bars, into: hourly }, next: check }
  check: { verify: look, next: done }
  done: { succeed: true }
";
    let (head, rest) = crate::common::WORKFLOW.split_once("start: find_gaps").unwrap();
    let profiles = &rest[rest.find("profiles:").unwrap()..];
    let workflow = world.write("again.yaml", &format!("{head}{steps}{profiles}"));
    let (report, code) = world.run_json(&workflow, &["--run-id", "again"]);
    assert_eq!((code, &report["outcome"]), (0, &"succeeded".into()), "{report}");
    let defective = |step: &str| report["steps"][step]["output"]["defective"].as_u64().unwrap();
    assert!(defective("look") > 0 && defective("look") <= 3 * 90, "{report}");
    assert_eq!((defective("check"), &report["steps"]["again"]["output"]["hours"]), (0, &6.into()), "two hours of three stocks: {report}");
    let after = seen(&world).await;
    let differ = after["hourly"].iter().filter(|row| !whole["hourly"].contains(row)).count();
    assert_eq!((after["hourly"].len(), differ), (whole["hourly"].len(), 2), "AIG's");
    assert_eq!(world.run_json(&workflow, &["--run-id", "nothing"]).0["steps"]["look"]["output"]["defective"], 0);
}
