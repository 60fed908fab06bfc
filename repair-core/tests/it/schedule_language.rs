//! What a workflow may say of its schedule, and what is refused, each with its place.

use std::time::Duration;

use repair_core::plugin::Registry;
use repair_core::price::Budget;
use repair_core::workflow::schedule::{Missed, Schedule, Starts};
use repair_core::workflow::{Step, Workflow};
use serde_json::json;

fn parse(schedule: &str) -> Result<Workflow, Vec<(usize, String)>> {
    let text = format!(
        "workflow: nightly\nkind: dag\nparams: {{ day: {{ type: date, default: yesterday, zone: UTC }} }}\nschedule: {schedule}\nsteps: {{ rest: {{ wait: {{ for: 1s }} }} }}\n"
    );
    Workflow::parse("nightly.yaml", &text, &Registry::default())
        .map_err(|mistakes| mistakes.iter().map(|mistake| (mistake.line, mistake.message.clone())).collect())
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (schedule, why) in [
        ("{}", "`schedule` does not say when"),
        ("{ cron: '0 0 * * *', every: 1h }", "`schedule` has both `cron` and `every`"),
        ("{ cron: '0 0 30 2 *' }", "the cron pattern `0 0 30 2 *` never comes true"),
        ("{ cron: '0 0 * *' }", "`0 0 * *` has 4 fields"),
        ("{ every: 500ms }", "`every` must be a whole number of seconds, at least one"),
        ("{ every: 10s, jitter: 1m }", "`jitter` must be less than the time between two ticks"),
        ("{ cron: '0,5 9 * * *', jitter: 5m }", "`jitter` must be less than the time between two ticks"),
        ("{ after: { workflow: nightly } }", "the workflow would start itself again and again"),
        ("{ after: { workflow: a, table: b } }", "`after` must name a workflow or a table"),
        ("{ after: { workflow: other }, jitter: 1m }", "`jitter` needs `cron` or `every`; `after` has no times"),
        ("{ every: 1h, complete_by: '9' }", "`complete_by` must be a time of day"),
        ("{ every: 1h, params: { dya: today } }", "the schedule: there is no parameter `dya`"),
        ("{ every: 1h, profile: aws }", "there is no profile `aws`"),
        ("{ every: 1h, per_day: { runs: 0 } }", "`runs` must be a whole number from 1 to 1000000"),
        ("{ every: 1h, per_day: { usd: 1 } }", "a budget in dollars needs a price book"),
    ] {
        let mistakes = parse(schedule).err().unwrap_or_else(|| panic!("{schedule} is accepted"));
        assert!(mistakes.iter().any(|(line, message)| *line == 4 && message.starts_with(why)), "{schedule}: {mistakes:?}");
    }
    for fine in [
        "{ cron: '0,5 9 * * *', jitter: 4m }",
        "{ every: 1h, jitter: 59m, params: { day: today } }",
        "{ after: { table: bars }, missed: all }",
    ] {
        assert!(parse(fine).is_ok(), "{fine}: {:?}", parse(fine).err());
    }
}

#[test]
fn what_is_built_in_rust_is_read_back() {
    let mut schedule = Schedule::new(Starts::Cron("30 2 * * mon-fri".parse().unwrap()));
    schedule.zone = "Europe/Berlin".parse().unwrap();
    schedule.jitter = Duration::from_secs(120);
    schedule.missed = Missed::All;
    schedule.complete_by = Some("06:00".parse().unwrap());
    schedule.params.insert("day".to_owned(), json!("2024-03-04"));
    schedule.per_day.runs = Some(3);
    schedule.per_day.budget = Budget { calls: Some(10), ..Budget::default() };
    let param = repair_core::workflow::Param::new(repair_core::workflow::ParamType::Date);
    let all = [schedule, Schedule::new(Starts::Every(Duration::from_secs(900))), Schedule::new(Starts::AfterTable("bars".to_owned()))];
    for schedule in all {
        let workflow =
            Workflow::state_machine("nightly").param("day", param.clone().with_default(json!("2024-03-01"))).schedule(schedule.clone());
        let built = workflow.step("done", Step::succeed()).build(Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(built.workflow.schedule, Some(schedule), "{}", built.workflow.text);
    }
}
