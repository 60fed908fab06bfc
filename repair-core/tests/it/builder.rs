//! Workflows written in Rust: they mean what the same workflow in YAML means, and mistakes in them have the same messages.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod plug_ins;
mod random;

use std::path::Path;
use std::time::Duration;

use repair_core::ErrorKind;
use repair_core::model::{Cadence, Format, Table, TimeMark};
use repair_core::plugin::Registry;
use repair_core::price::Budget;
use repair_core::testing::definition;
use repair_core::workflow::builder::{StepBuilder, WorkflowBuilder, computed};
use repair_core::workflow::{
    AfterIf, ErrorMatch, ParallelBranch, Param, ParamType, Rate, RetryRule, RunIf, Step, StepKind, Strategy, Tolerance, Workflow,
};
use repair_core::yaml::Diagnostics;
use serde_json::json;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/workflows");

fn example(name: &str) -> Workflow {
    Workflow::load(&Path::new(EXAMPLES).join(name), &Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn built(builder: &WorkflowBuilder) -> Workflow {
    builder.build(Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}\n{}", builder.to_yaml())).workflow
}

fn assert_same(builder: &WorkflowBuilder, yaml: &Workflow) {
    let built = built(builder);
    assert_eq!(definition(&built), definition(yaml), "{}", built.text);
    // What the journal keeps is enough to read it again.
    let again = Workflow::parse_with(&built.file, &built.text, &Registry::default(), &built.children).unwrap();
    assert_eq!(definition(&again), definition(yaml));
}

/// The messages and helps, without places, of a workflow that is refused.
fn mistakes(builder: &WorkflowBuilder) -> Vec<(String, Option<String>)> {
    let diagnostics = builder.build(Registry::default()).err().unwrap_or_else(|| panic!("accepted:\n{}", builder.to_yaml()));
    said(&diagnostics)
}

/// In an order that does not depend on where in the text they are: the printed one has its keys in another order.
fn said(diagnostics: &Diagnostics) -> Vec<(String, Option<String>)> {
    let mut said: Vec<_> = diagnostics.iter().map(|mistake| (mistake.message.clone(), mistake.help.clone())).collect();
    said.sort();
    said
}

fn readings() -> Table {
    Table::new("readings", Format::Csv, "ts").with_location("air-quality-hourly").with_key(["sensor"]).with_cadence(Cadence::HOUR)
}

#[test]
fn a_dag_means_the_same_in_rust_and_in_yaml() {
    let daily = |view: &str| format!("SELECT sensor, date_trunc('day', ts) AS day, avg(value) AS mean FROM {view} GROUP BY 1, 2");
    let look = json!({
        "table": "readings", "keys": ["benzene", "co", "humidity", "no2", "temperature"], "from": "{% $params.from %}", "to": "{% $params.to %}"
    });
    let day = |default: &str, about: &str| Param::new(ParamType::Date).with_default(json!(default)).with_about(about);
    let raw = Step::aggregate("sql").with(json!({ "into": "air_quality_daily_raw", "query": daily("readings") }));
    let builder = Workflow::dag("air-quality-nightly")
        .timeout(Duration::from_secs(3_600))
        .param("from", day("2004-03-11", "The first day"))
        .param("to", day("2005-04-03", "The last day"))
        .table(readings())
        .step("look", Step::detect("gaps").with(look))
        .step(
            "fill",
            Step::repair("carry-forward")
                .of("look")
                .with(json!({ "max_age": "2h" }))
                .after(["look"])
                .retry(RetryRule::on(ErrorKind::Transient)),
        )
        .step("check", Step::verify("look").after(["fill"]))
        .step(
            "daily",
            Step::aggregate("sql").after(["check"]).with(json!({ "into": "air_quality_daily", "query": daily("readings_repaired") })),
        )
        .step("raw_daily", raw.after(["fill", "check"]).run_if(RunIf::AnyFailed));
    assert_same(&builder, &example("air-quality-nightly.yaml"));
}

fn us_power_repaired() -> WorkflowBuilder {
    #[derive(serde::Serialize)]
    struct Look {
        table: &'static str,
        keys: repair_core::workflow::builder::Computed,
        from: repair_core::workflow::builder::Computed,
        to: repair_core::workflow::builder::Computed,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        rules: Vec<serde_json::Value>,
    }
    let look =
        |rules| Look { table: "demand", keys: computed("$params.keys"), from: computed("$params.from"), to: computed("$params.to"), rules };
    let correct = Step::strategies([
        Strategy::builder("interpolate").name("line").with(json!({ "max_gap": "6h" })),
        Strategy::builder("shifted").name("week").with(json!({ "shift": ["-7d", "7d"] })),
    ]);
    let fill = Step::strategies([
        Strategy::builder("regress").name("joint").with(json!({ "columns": ["demand_mw"] })),
        Strategy::builder("seasonal").with(json!({ "columns": ["demand_mw"] })),
    ]);
    let before = "\
SELECT ba, date_trunc('day', ts - INTERVAL '1 hour') AS day, sum(demand_mw) AS demand_mwh, count(demand_mw) AS hours
FROM demand GROUP BY 1, 2 ORDER BY 1, 2
";
    let after = "\
SELECT ba, date_trunc('day', ts - INTERVAL '1 hour') AS day, sum(demand_mw) AS demand_mwh, count(demand_mw) AS hours,
       count(repaired_by) AS repaired
FROM demand_repaired GROUP BY 1, 2 ORDER BY 1, 2
";
    let authorities = ["AZPS", "CISO", "DUK", "FPC", "NEVP", "NYIS", "PSCO", "PSEI", "TEPC", "WACM", "WALC"];
    let param = |kind, default: serde_json::Value, about: &str| Param::new(kind).with_default(default).with_about(about);
    let demand = Table::new("demand", Format::Csv, "ts").with_location("us-power-hourly").with_key(["ba"]);
    Workflow::state_machine("us-power-repaired")
        .param("keys", param(ParamType::List, json!(authorities), "The authorities that must be there"))
        .param("from", param(ParamType::Instant, json!("2017-12-31T23:00:00Z"), "The beginning of the first hour"))
        .param("to", param(ParamType::Instant, json!("2018-12-31T23:00:00Z"), "The end of the last hour"))
        .tag("project", "power")
        .table(demand.with_time_marks(TimeMark::End).with_cadence(Cadence::HOUR))
        .start("totals_before")
        .step("totals_before", Step::aggregate("sql").with(json!({ "into": "daily_before", "query": before })).next("find_absurd"))
        .step(
            "find_absurd",
            Step::detect("invalid")
                .with(look(vec![
                    json!({ "column": "demand_mw", "min": { "times_median": 0.25 }, "max": { "times_median": 5 }, "not_null": true }),
                ]))
                .next_when("$output.defective = 0", "find_gaps")
                .next("correct"),
        )
        .step("correct", correct.of("find_absurd").next("check_absurd"))
        .step("check_absurd", Step::verify("find_absurd").next("find_gaps"))
        .step("find_gaps", Step::detect("gaps").with(look(Vec::new())).next_when("$output.missing = 0", "totals_after").next("fill"))
        .step("fill", fill.of("find_gaps").next("check"))
        .step("check", Step::verify("find_gaps").next("totals_after"))
        .step("totals_after", Step::aggregate("sql").with(json!({ "into": "daily_after", "query": after })).end())
}

#[test]
fn a_state_machine_means_the_same_in_rust_and_in_yaml() {
    assert_same(&us_power_repaired(), &example("us-power-repaired.yaml"));
}

#[test]
fn workflows_that_run_workflows_mean_the_same_in_rust_and_in_yaml() {
    let (air, power) = (example("air-quality-daily.yaml"), example("us-power.yaml"));
    let april = json!({ "from": "2004-04-01", "to": "2004-04-30" });
    let both = Step::parallel()
        .branch("air", ParallelBranch::builder().step("air", Step::workflow(&air).with(april).end()))
        .branch("power", ParallelBranch::builder().step("power", Step::workflow(&power).end()))
        .retry(RetryRule::on([ErrorKind::Transient, ErrorKind::Timeout]).with_attempts(2))
        .end();
    // Files are named relative to the workflow's own.
    let builder = Workflow::state_machine("side-by-side").file(format!("{EXAMPLES}/side-by-side.yaml")).step("both", both);
    assert_same(&builder, &example("side-by-side.yaml"));
}

#[test]
fn a_workflow_built_in_rust_runs_another_one_built_in_rust() {
    let inner = us_power_repaired();
    let middle = |file: Option<&str>| {
        let step = Step::workflow(&built(&inner)).end();
        let middle = Workflow::state_machine("middle").step("inner", step);
        file.map_or(middle.clone(), |file| middle.file(file))
    };
    for (own, others) in [(None, None), (Some("a/b/outer.yaml"), Some("a/c/middle.yaml")), (Some("a/outer.yaml"), None)] {
        let outer = Workflow::state_machine("outer").step("middle", Step::workflow(&built(&middle(others))).end());
        let outer = built(&own.map_or(outer.clone(), |file| outer.file(file)));
        assert_eq!(outer.children.len(), 2, "{:?}", outer.children.keys());
        let StepKind::Workflow { workflow, .. } = &outer.step("middle").unwrap().kind else { panic!("a workflow") };
        let StepKind::Workflow { workflow, .. } = &workflow.step("inner").unwrap().kind else { panic!("a workflow") };
        assert_eq!(definition(workflow), definition(&built(&inner)));
    }
}

#[test]
fn maps_mean_the_same_in_rust_and_in_yaml() {
    let yaml = "workflow: maps
kind: dag
params: { desks: { type: list, default: [a, b] } }
tables: { readings: { location: readings, format: csv, key: [sensor], time: ts, time_marks: end, cadence: 1h } }
steps:
  count: { task: sql, with: { query: SELECT 1, list: 500 } }
  each:
    map: { over: \"{% $params.desks %}\" }
    as: desk
    concurrency: 2
    tolerate: { failed: 12.5% }
    retry: [{ on: transient }]
    timeout: 1h
    start: look
    steps:
      look: { detect: gaps, with: { table: readings, keys: [\"{% $desk %}\"], from: 2024-03-04, to: 2024-03-04 }, next: count }
      count: { task: sql, with: { query: \"SELECT 2\" }, end: true }
    after: { count: succeeded }
  rows:
    map: { over: { rows: SELECT sensor FROM readings } }
    kind: dag
    max_parallel: 3
    steps:
      look: { detect: gaps, with: { table: readings, keys: [\"{% $item.sensor %}\"], from: 2024-03-04, to: 2024-03-04 } }
      fill: { repair: carry-forward, of: look, with: { max_age: 2h }, after: look }
    after: { each: failed, count: done }
";
    let yaml = Workflow::parse("maps.yaml", yaml, &Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let look = |key: &str| {
        Step::detect("gaps").with(json!({ "table": "readings", "keys": [computed(key)], "from": "2024-03-04", "to": "2024-03-04" }))
    };
    let each = Step::map(computed("$params.desks"))
        .item("desk")
        .concurrency(2)
        .tolerate(Tolerance::Percent(12.5))
        .retry(RetryRule::on(ErrorKind::Transient))
        .timeout(Duration::from_secs(3_600))
        .step("look", look("$desk").next("count"))
        .step("count", Step::task("sql").with(json!({ "query": "SELECT 2" })).end())
        .after_if([("count", AfterIf::Succeeded)]);
    let rows = Step::map_rows("SELECT sensor FROM readings")
        .dag()
        .max_parallel(3)
        .step("look", look("$item.sensor"))
        .step("fill", Step::repair("carry-forward").of("look").with(json!({ "max_age": "2h" })).after(["look"]))
        .after_if([("each", AfterIf::Failed), ("count", AfterIf::Done)]);
    let builder = Workflow::dag("maps")
        .param("desks", Param::new(ParamType::List).with_default(json!(["a", "b"])))
        .table(Table::new("readings", Format::Csv, "ts").with_key(["sensor"]).with_time_marks(TimeMark::End).with_cadence(Cadence::HOUR))
        .step("count", Step::task("sql").with(json!({ "query": "SELECT 1", "list": 500 })))
        .step("each", each)
        .step("rows", rows);
    assert_same(&builder, &yaml);

    // Another workflow for each item, from its own file.
    let inner = built(&Workflow::state_machine("inner").param("n", Param::new(ParamType::Integer)).step("done", Step::succeed()));
    let outer =
        Workflow::state_machine("outer").step("each", Step::map([1, 2]).workflow(&inner).with(json!({ "n": computed("$item") })).end());
    let outer = built(&outer);
    let StepKind::Map(map) = &outer.step("each").unwrap().kind else { panic!("a map") };
    assert_eq!((definition(&map.workflow), map.name.as_deref()), (definition(&inner), Some("built:inner.yaml")));
    let again = Workflow::parse_with(&outer.file, &outer.text, &Registry::default(), &outer.children).unwrap();
    assert_eq!(definition(&again), definition(&outer));
}

#[test]
fn prices_and_budgets_mean_the_same_in_rust_and_in_yaml() {
    let book = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../prices/aws-us-east-1.yaml")).unwrap();
    let budget = Budget { usd: Some("0.50".parse().unwrap()), calls: Some(100), bytes: Some(10_000_000_000) };
    let look = json!({ "table": "readings", "keys": ["a"], "from": "2024-03-04", "to": "2024-03-04" });
    let builder = Workflow::state_machine("priced")
        .about("Priced: by a book")
        .prices("prices/aws.yaml", &book)
        .budget(budget)
        .table(readings())
        .profile("here", "local", json!({ "root": computed("'./' & 'lake'") }))
        .step("look", Step::detect("gaps").with(&look).next("settle"))
        .step("settle", Step::wait_for(Duration::from_millis(1_500)).next("until"))
        .step("until", Step::wait_until("2024-03-05T00:00:00Z".parse::<jiff::Timestamp>().unwrap()).next("fill"))
        .step(
            "fill",
            Step::strategies([Strategy::builder("carry-forward")
                .name("carry")
                .with(json!({ "max_age": "5h" }))
                .retry(RetryRule::on(ErrorMatch::Any).with_interval(Duration::from_secs(90)))
                .budget(Budget { calls: Some(3), ..Budget::default() })
                .tag("idea", "carried")])
            .of("look")
            .concurrency(2)
            .rate_limit(Rate::per_minute(200))
            .tolerate(Tolerance::Percent(2.5))
            .budget(Budget { bytes: Some(7), ..Budget::default() })
            .catch([ErrorKind::Denied, ErrorKind::NotFound], "refused")
            .catch(ErrorMatch::Any, "refused")
            .max_visits(3)
            .timeout(Duration::from_secs(3_600))
            .heartbeat(Duration::from_secs(61))
            .end(),
        )
        .step("refused", Step::fail("the source: refused us"));
    let yaml = r#"
workflow: priced
kind: state-machine
about: "Priced: by a book"
prices: prices/aws.yaml
budget: { usd: 0.50, calls: 100, bytes: 10GB }
tables:
  readings: { location: air-quality-hourly, format: csv, key: [sensor], time: ts, cadence: 1h }
start: look
steps:
  look: { detect: gaps, with: { table: readings, keys: [a], from: 2024-03-04, to: 2024-03-04 }, next: settle }
  settle: { wait: { for: 1500ms }, next: until }
  until: { wait: { until: 2024-03-05T00:00:00Z }, next: fill }
  fill:
    repair:
      - strategy: carry-forward
        name: carry
        with: { max_age: 5h }
        retry: [{ on: any, interval: 90s }]
        budget: { calls: 3 }
        tags: { idea: carried }
    of: look
    concurrency: 2
    rate_limit: 200/min
    tolerate: { failed: 2.5% }
    budget: { bytes: 7B }
    catch: [{ on: [denied, not-found], goto: refused }, { on: any, goto: refused }]
    max_visits: 3
    timeout: 1h
    heartbeat: 61s
    end: true
  refused: { fail: "the source: refused us" }
profiles:
  here: { lake: local, with: { root: "{% './' & 'lake' %}" } }
"#;
    let children = [("prices/aws.yaml".to_owned(), book)].into();
    let yaml = Workflow::parse_with("w.yaml", yaml, &Registry::default(), &children).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_same(&builder, &yaml);
}

#[test]
fn included_files_mean_the_same_in_rust_and_in_yaml() {
    let lake = "include: [more.yaml]\ntables: { readings: { location: l, format: csv, key: [sensor], time: ts, cadence: 1h } }\n";
    let more = "tables: { daily: { location: daily, format: parquet, time: day } }\n";
    let look = json!({ "table": "readings", "keys": ["a"], "from": "2024-03-04", "to": "2024-03-04" });
    let builder = Workflow::state_machine("w")
        .file("flows/w.yaml")
        .include("shared/lake.yaml", lake)
        .included("shared/more.yaml", more)
        .step("look", Step::detect("gaps").with(look).end());
    let yaml = "
workflow: w
kind: state-machine
include: [shared/lake.yaml]
start: look
steps:
  look: { detect: gaps, with: { table: readings, keys: [a], from: 2024-03-04, to: 2024-03-04 }, end: true }
";
    let children =
        [("flows/shared/lake.yaml", lake), ("flows/shared/more.yaml", more)].map(|(name, text)| (name.to_owned(), text.to_owned()));
    let yaml = Workflow::parse_with("flows/w.yaml", yaml, &Registry::default(), &children.into()).unwrap_or_else(|told| panic!("{told}"));
    assert_eq!(yaml.tables.len(), 2);
    assert_same(&builder, &yaml);
}

#[test]
fn mistakes_have_the_messages_of_yaml() {
    let gaps = |table: &str| Step::detect("gaps").with(json!({ "table": table, "from": "2024-03-04", "to": "2024-03-04" }));
    let one = |step: StepBuilder<_>| Workflow::state_machine("w").table(readings()).step("look", step);
    let base =
        "workflow: w\nkind: state-machine\ntables: { readings: { location: l, format: csv, key: [sensor], time: ts, cadence: 1h } }\n";
    let in_yaml = |steps: &str| {
        let text = format!("{base}start: look\nsteps:\n{steps}");
        said(&Workflow::parse("w.yaml", &text, &Registry::default()).unwrap_err())
    };
    let with = |table: &str| format!("with: {{ table: {table}, from: 2024-03-04, to: 2024-03-04 }}");
    let cases: Vec<(WorkflowBuilder, String)> = vec![
        (one(gaps("reading").end()), format!("  look: {{ detect: gaps, {}, end: true }}", with("reading"))),
        (one(gaps("readings")), format!("  look: {{ detect: gaps, {} }}", with("readings"))),
        (one(gaps("readings").next("lok")), format!("  look: {{ detect: gaps, {}, next: lok }}", with("readings"))),
        (one(Step::detect("gasp").end()), "  look: { detect: gasp, end: true }".to_owned()),
        (one(Step::detect("gaps").with(["list"]).end()), "  look: { detect: gaps, with: [list], end: true }".to_owned()),
        (
            one(gaps("readings").next("a").next("look")),
            format!("  look: {{ detect: gaps, {}, next: [{{ goto: a }}, {{ goto: look }}] }}", with("readings")),
        ),
        (
            one(gaps("readings").next_when("$outptu.missing = 0", "look").next("look")),
            format!(
                "  look: {{ detect: gaps, {}, next: [{{ when: $outptu.missing = 0, goto: look }}, {{ goto: look }}] }}",
                with("readings")
            ),
        ),
        (
            one(gaps("readings").after(["look"]).max_visits(0).end()),
            format!("  look: {{ detect: gaps, {}, after: [look], max_visits: 0, end: true }}", with("readings")),
        ),
        (
            one(gaps("readings").timeout(Duration::from_nanos(1_500)).end()),
            format!("  look: {{ detect: gaps, {}, timeout: 1500ns, end: true }}", with("readings")),
        ),
        (
            one(gaps("readings").retry(RetryRule::on([]).with_backoff(f64::NAN)).catch(ErrorKind::Cancelled, "look").end()),
            format!(
                "  look: {{ detect: gaps, {}, retry: [{{ on: [], backoff: x }}], catch: [{{ on: cancelled, goto: look }}], end: true }}",
                with("readings")
            ),
        ),
    ];
    for (builder, steps) in cases {
        assert_eq!(mistakes(&builder), in_yaml(&steps), "{}", builder.to_yaml());
    }
    // The same for whole workflows.
    let twice = one(gaps("readings").next("look")).step("look", Step::succeed());
    assert!(mistakes(&twice).iter().any(|(message, _)| message == "the key `look` appears twice"), "{:?}", mistakes(&twice));
    assert_eq!(
        mistakes(&Workflow::dag("w")),
        [("there are no steps".to_owned(), Some("add one, e.g. `find_gaps: { detect: gaps, … }`".to_owned()))]
    );
    let named = Workflow::state_machine("two words").step("done", Step::succeed());
    assert_eq!(mistakes(&named)[0].0, "`two words` cannot be the workflow");
}

#[test]
fn a_mistake_shows_its_line_of_the_printed_text() {
    let look = Step::detect("gaps").with(json!({ "table": "reading", "from": "2024-03-04", "to": "2024-03-04" })).end();
    let mistakes = Workflow::state_machine("w").table(readings()).step("look", look).build(Registry::default()).err().unwrap();
    let shown = mistakes.to_string();
    assert!(shown.contains("built:w.yaml:7:"), "{shown}");
    assert!(shown.contains("look: { detect: gaps, with: {"), "{shown}");
    assert!(shown.contains("did you mean `readings`?"), "{shown}");
}

#[test]
fn what_cannot_be_written_is_a_mistake() {
    let unwritable = std::collections::BTreeMap::from([(vec![1], 2)]);
    let look = Step::detect("gaps").with(unwritable).end();
    let mistakes = mistakes(&Workflow::state_machine("w").table(readings()).step("look", look));
    assert_eq!(mistakes[0].0, "the `with` of step `look` can't be written: key must be a string");
}
