//! What a workflow says about the slots of a table: it is printed as it was written, and mistakes are reported at their places.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;

fn text(cadences: &[&str]) -> String {
    let tables: String = (1..)
        .zip(cadences)
        .map(|(number, cadence)| format!("  t{number}: {{ location: t{number}, format: csv, time: ts, cadence: {cadence} }}\n"))
        .collect();
    format!("workflow: cadences\nkind: state-machine\ntables:\n{tables}start: look\nsteps:\n  look: {{ succeed: true }}\n")
}

#[test]
fn mistakes_in_cadences_are_reported_at_their_places() {
    let wrong = [
        "14d",
        "7d",
        "{ at: \":30\" }",
        "{ evry: 1h, every: 1h }",
        "{ every: 1d, at: \"25:00\" }",
        "{ every: 15m, at: \":20\" }",
        "{ every: 1mo, at: 31 }",
        "{ every: 1w, at: \"04-01\" }",
        "{ every: 1h, tolerance: 30m }",
        "{ every: 1h, tolerance: 500ms }",
        "{ every: 1h, misaligned: half }",
        "{ every: 1h, before: { 2024-13-01: 1d } }",
        "{ every: 1h, before: { 2024-01-01: 1h } }",
    ];
    insta::assert_snapshot!(Workflow::parse("w.yaml", &text(&wrong), &Registry::default()).unwrap_err());
}

#[test]
fn what_is_right_is_kept() {
    let right = [
        "1mo",
        "{ every: 1h, at: \":51\", misaligned: 50% }",
        "{ every: 1d, at: \"17:00\", tolerance: 13s }",
        "{ every: 1w, at: sunday }",
        "{ every: 1mo, at: 15 }",
        "{ every: 15m, before: { 2020-01-01: 1d, 2025-10-01: 1h } }",
    ];
    let workflow = Workflow::parse("w.yaml", &text(&right), &Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let grids: Vec<String> = workflow.tables.values().map(|table| format!("{:?}", table.grid().unwrap().rule())).collect();
    insta::assert_snapshot!(grids.join("\n"));
    // The journal keeps the definition, and the tables come back from it.
    for table in workflow.tables.values() {
        let kept = serde_json::to_string(table).unwrap();
        assert_eq!(&serde_json::from_str::<repair_core::model::Table>(&kept).unwrap(), table);
    }
}
