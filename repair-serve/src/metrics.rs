//! Numbers for Prometheus, in its text format, version 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;

use crate::server::Shared;

/// All numbers.
pub(crate) fn text(shared: &Shared) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(Vec<(&str, String)>, f64)>| {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let mut runs: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    let mut ended: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut succeeded: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut last_s: BTreeMap<String, f64> = BTreeMap::new();
    let lakes = shared.lakes();
    for watched in &lakes {
        for run in watched.seen().runs.iter().rev() {
            *runs.entry((run.workflow.clone(), run.word())).or_default() += 1;
            if let Some(outcome) = run.outcome {
                ended.insert(run.workflow.clone(), run.last_at);
                last_s.insert(run.workflow.clone(), run.last_at.duration_since(run.started_at).as_secs_f64());
                if matches!(outcome, repair::Outcome::Succeeded | repair::Outcome::SucceededWithExceptions) {
                    succeeded.insert(run.workflow.clone(), run.last_at);
                }
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "numbers of Prometheus are floats")]
    let whole = |number: u64| number as f64;
    let seconds = |at: &Timestamp| at.as_duration().as_secs_f64();
    let of = |workflow: &String| vec![("workflow", workflow.clone())];
    family("repair_up", "gauge", "Whether the server runs.", vec![(Vec::new(), 1.0)]);
    family(
        "repair_runs",
        "gauge",
        "Runs in the journals, by workflow and by what they do or how they ended.",
        runs.iter()
            .map(|((workflow, status), count)| (vec![("workflow", workflow.clone()), ("status", (*status).to_owned())], whole(*count)))
            .collect(),
    );
    family(
        "repair_run_last_end_timestamp_seconds",
        "gauge",
        "When a run last ended.",
        ended.iter().map(|(name, at)| (of(name), seconds(at))).collect(),
    );
    family(
        "repair_run_last_success_timestamp_seconds",
        "gauge",
        "When a run last succeeded, with exceptions or without.",
        succeeded.iter().map(|(name, at)| (of(name), seconds(at))).collect(),
    );
    family(
        "repair_run_last_duration_seconds",
        "gauge",
        "How long the run took that ended last.",
        last_s.iter().map(|(name, s)| (of(name), *s)).collect(),
    );
    let schedules: BTreeMap<_, _> = shared.schedules().into_iter().collect();
    let next = schedules.iter().filter_map(|(name, status)| Some((of(name), seconds(status.next.as_ref()?))));
    family(
        "repair_schedule_next_timestamp_seconds",
        "gauge",
        "The next tick of a schedule, or the first one that is not settled.",
        next.collect(),
    );
    let flags = |flag: fn(&repair::schedule::ScheduleStatus) -> bool| {
        schedules.iter().map(|(name, status)| (of(name), if flag(status) { 1.0 } else { 0.0 })).collect::<Vec<_>>()
    };
    family(
        "repair_schedule_held_back",
        "gauge",
        "Whether a run is due, and waits for the next day.",
        flags(|status| status.held.is_some()),
    );
    family("repair_schedule_failing", "gauge", "Whether the last attempt to start a run failed.", flags(|status| status.error.is_some()));
    let mut alerts: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    for (_, alert) in shared.alerts() {
        use repair::schedule::Alert;
        let (workflow, what) = match alert {
            Alert::DeadlineMissed { workflow, .. } => (workflow, "deadline-missed"),
            Alert::HeldBack { workflow, .. } => (workflow, "held-back"),
            Alert::NotStarted { workflow, .. } => (workflow, "not-started"),
            _ => continue,
        };
        *alerts.entry((workflow, what)).or_default() += 1;
    }
    family(
        "repair_alerts",
        "gauge",
        "Alerts that the page shows.",
        alerts
            .into_iter()
            .map(|((workflow, what), count)| (vec![("workflow", workflow), ("what", what.to_owned())], whole(count)))
            .collect(),
    );
    let broken = shared.folder().broken.len();
    family("repair_workflows_broken", "gauge", "Files of the folder that cannot be used.", vec![(Vec::new(), whole(broken as u64))]);
    let unread =
        lakes.iter().map(|watched| (vec![("lake", watched.place.clone())], if watched.seen().error.is_some() { 0.0 } else { 1.0 }));
    family("repair_lake_up", "gauge", "Whether a lake can be looked at.", unread.collect());
    text
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
