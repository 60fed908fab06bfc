//! Whether two definitions mean the same. Pure. Comments, spacing and the order of keys mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use serde_json::Value;

use repair_core::workflow::{MapOver, MapStep, Profile, SourceUse, Step, StepKind, Template, Wait, Workflow};

/// What a workflow defines differently than before, in words. Empty if it means the same.
pub fn differences(before: &Workflow, now: &Workflow) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, same: bool| {
        if !same {
            found.push(format!("{what} has changed"));
        }
    };
    differ("its name", before.name == now.name);
    differ("its kind", before.kind == now.kind);
    differ("its `timeout`", before.timeout == now.timeout);
    differ("its `budget`", before.budget == now.budget);
    differ("its price book", before.prices == now.prices);
    differ("its `tags`", before.tags == now.tags);
    differ("its `start`", before.start == now.start);
    named(&mut found, "param", &before.params, &now.params, text);
    named(&mut found, "table", &before.tables, &now.tables, text);
    let source = |source: &SourceUse| {
        let mut source = source.clone();
        source.with = plain(&source.with);
        text(&source)
    };
    named(&mut found, "source", &before.sources, &now.sources, source);
    named(&mut found, "calendar", &before.calendars, &now.calendars, text);
    let profile = |profile: &Profile| {
        let mut profile = profile.clone();
        profile.with = plain(&profile.with);
        text(&profile)
    };
    named(&mut found, "profile", &before.profiles, &now.profiles, profile);
    let (old, new) = (by_name(before), by_name(now));
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => found.extend(of_step(old, new)),
            (Some(_), None) => found.push(format!("step `{name}` was removed")),
            (None, _) => found.push(format!("step `{name}` is new")),
        }
    }
    found
}

fn by_name(workflow: &Workflow) -> BTreeMap<&str, &Step> {
    workflow.steps.iter().map(|step| (step.name.as_str(), step)).collect()
}

fn named<T>(found: &mut Vec<String>, what: &str, before: &BTreeMap<String, T>, now: &BTreeMap<String, T>, meaning: impl Fn(&T) -> String) {
    for name in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        match (before.get(name), now.get(name)) {
            (Some(old), Some(new)) if meaning(old) == meaning(new) => {}
            (Some(_), Some(_)) => found.push(format!("{what} `{name}` has changed")),
            (Some(_), None) => found.push(format!("{what} `{name}` was removed")),
            (None, _) => found.push(format!("{what} `{name}` is new")),
        }
    }
}

/// Definitions hold expressions and decimals, so they are compared by what they print.
fn text<T: Debug>(one: &T) -> String {
    format!("{one:?}")
}

fn same<T: Debug>(one: &T, other: &T) -> bool {
    text(one) == text(other)
}

/// A configuration with its keys in order, in which a computed value is its expression.
fn plain(with: &Template) -> Template {
    fn sorted(entries: BTreeMap<String, Value>) -> Value {
        Value::Object(entries.into_iter().collect())
    }
    fn of_value(value: &Value) -> Value {
        match value {
            Value::Object(entries) => sorted(entries.iter().map(|(key, value)| (key.clone(), of_value(value))).collect()),
            Value::Array(items) => Value::Array(items.iter().map(of_value).collect()),
            other => other.clone(),
        }
    }
    fn value(with: &Template) -> Value {
        match with {
            Template::Value(value) => of_value(value),
            Template::Computed(expression) => Value::from(format!("{{% {} %}}", expression.text().trim())),
            Template::List(items) => Value::Array(items.iter().map(value).collect()),
            Template::Map(entries) => sorted(entries.iter().map(|(key, item)| (key.clone(), value(item))).collect()),
        }
    }
    Template::Value(value(with))
}

/// What a step does, without its configuration.
fn without_with(kind: &StepKind) -> StepKind {
    let mut kind = kind.clone();
    match &mut kind {
        StepKind::Detect { with, .. }
        | StepKind::Aggregate { with, .. }
        | StepKind::Task { with, .. }
        | StepKind::Workflow { with, .. } => *with = Template::Value(Value::Null),
        StepKind::Repair { strategies, .. } => {
            strategies.iter_mut().for_each(|strategy| strategy.with = Template::Value(Value::Null));
        }
        StepKind::Wait(Wait::Sensor(wait)) => wait.with = Template::Value(Value::Null),
        StepKind::Map(map) => map.with = Template::Value(Value::Null),
        _ => {}
    }
    kind
}

fn of_step(old: &Step, new: &Step) -> Vec<String> {
    let name = &old.name;
    if old.kind.word() != new.kind.word() {
        return vec![format!("step `{name}` is `{}`, but was `{}`", new.kind.word(), old.kind.word())];
    }
    let mut found: Vec<&str> = Vec::new();
    let mut differ = |what, same: bool| {
        if !same {
            found.push(what);
        }
    };
    let plugins = |step: &Step| step.kind.plugins().iter().map(|(_, plugin, _)| (*plugin).to_owned()).collect::<Vec<_>>();
    differ("plug-in", plugins(old) == plugins(new));
    let with = |step: &Step| step.kind.plugins().iter().map(|(_, _, with)| text(&plain(with))).collect::<Vec<_>>();
    differ("`with`", with(old) == with(new));
    differ("`next`", same(&old.next, &new.next));
    differ("`retry`", same(&old.retry, &new.retry));
    differ("`catch`", same(&old.catch, &new.catch));
    differ("`max_visits`", old.max_visits == new.max_visits);
    differ("`timeout`", old.timeout == new.timeout);
    differ("`heartbeat`", old.heartbeat == new.heartbeat);
    differ("`after`", old.after == new.after && old.after_if == new.after_if);
    differ("`run_if`", old.run_if == new.run_if);
    differ("branch", old.inside == new.inside);
    let mut different: Vec<String> = found.iter().map(|what| format!("{what} of step `{name}` has changed")).collect();
    match (&old.kind, &new.kind) {
        (StepKind::Workflow { workflow: old, with: old_with, .. }, StepKind::Workflow { workflow: new, with: new_with, .. }) => {
            if !same(&plain(old_with), &plain(new_with)) {
                different.push(format!("`with` of step `{name}` has changed"));
            }
            different.extend(differences(old, new).into_iter().map(|what| format!("in the workflow of step `{name}`, {what}")));
        }
        (StepKind::Map(old), StepKind::Map(new)) => {
            let over = |map: &MapStep| match &map.over {
                MapOver::Items(over) => (false, text(&plain(over))),
                MapOver::Rows(with) => (true, text(&plain(with))),
            };
            let mut differ = |what: &str, same: bool| {
                if !same {
                    different.push(format!("{what} of step `{name}` has changed"));
                }
            };
            differ("the list", over(old) == over(new));
            differ("`as`", old.item == new.item);
            differ("`with`", same(&plain(&old.with), &plain(&new.with)));
            differ("`concurrency`", old.concurrency == new.concurrency);
            differ("`tolerate`", old.tolerate == new.tolerate);
            different
                .extend(differences(&old.workflow, &new.workflow).into_iter().map(|what| format!("in the map of step `{name}`, {what}")));
        }
        (old, new) if !found.contains(&"plug-in") && !same(&without_with(old), &without_with(new)) => {
            different.push(format!("what step `{name}` does has changed"));
        }
        _ => {}
    }
    different
}

#[cfg(test)]
mod tests {
    use super::*;
    use repair_core::plugin::Registry;

    const TEXT: &str = "workflow: w\nkind: state-machine\ntables:\n  t: { location: t, format: csv, time: ts, cadence: 1h }\nstart: find\nsteps:\n  \
                        find:\n    detect: gaps\n    with: { table: t, from: 2024-03-04, to: 2024-03-04 }\n    next: fill\n  fill: { repair: \
                        carry-forward, of: find, concurrency: 2, next: done }\n  done: { succeed: }\n";

    #[test]
    fn what_means_the_same_is_the_same_and_what_does_not_is_named() {
        let of = |text: &str| Workflow::parse("w.yaml", text, &Registry::default()).unwrap();
        let changed = |from: &str, to: &str| {
            assert!(TEXT.contains(from), "{from}");
            differences(&of(TEXT), &of(&TEXT.replace(from, to)))
        };
        assert_eq!(changed("start: find", "# the first\nstart:   \"find\""), [""; 0]);
        assert_eq!(changed("table: t, from: 2024-03-04", "from: 2024-03-04, table: t"), [""; 0]);
        assert_eq!(changed("from: 2024-03-04", "from: 2024-03-03"), ["`with` of step `find` has changed"]);
        assert_eq!(changed("concurrency: 2", "concurrency: 3"), ["what step `fill` does has changed"]);
        assert_eq!(changed("cadence: 1h", "cadence: 1d"), ["table `t` has changed"]);
        assert_eq!(
            changed("concurrency: 2", "concurrency: 2, retry: [{ on: [timeout], attempts: 1 }]"),
            ["`retry` of step `fill` has changed"]
        );
        assert_eq!(changed("start: find", "budget: { calls: 5 }\nstart: find"), ["its `budget` has changed"]);
        assert_eq!(changed("next: done }\n  done: { succeed: }", "next: end }\n  end: { succeed: }").len(), 3);
    }
}
