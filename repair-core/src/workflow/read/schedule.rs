//! `schedule`: when a workflow starts by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Time;

use super::{Fields, MAX_ENTRIES, Reader};
use crate::workflow::schedule::{Missed, PerDay, Schedule, Starts};
use crate::yaml::tree::{Node, Place, Yaml};

/// The shortest time between two ticks.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest delay by jitter.
const MOST_JITTER: Duration = Duration::from_secs(86_400);
const KEYS: [&str; 10] = ["cron", "every", "after", "zone", "jitter", "missed", "complete_by", "params", "profile", "per_day"];
const STARTS: &str = "write one of `cron: \"30 17 * * mon-fri\"`, `every: 15m`, `after: { workflow: NAME }` and `after: { table: NAME }`";

/// The places of the parts of a schedule that names are checked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchedulePlaces {
    /// Its key.
    pub(crate) schedule: Place,
    /// The value of `params`, if it is given.
    pub(crate) params: Option<Place>,
    /// The value of `profile`, if it is given.
    pub(crate) profile: Option<Place>,
    /// What `after` names, if it is given.
    pub(crate) after: Option<Place>,
}

impl<'a> Reader<'a> {
    pub(super) fn schedule(&mut self, root: &Fields<'a>) -> Option<(Schedule, SchedulePlaces)> {
        let node = root.get("schedule")?;
        let place = root.key_place("schedule");
        let fields = self.fields(node, place, "`schedule`", &KEYS)?;
        let given: Vec<&str> = ["cron", "every", "after"].into_iter().filter(|name| fields.get(name).is_some()).collect();
        match given.as_slice() {
            [] => self.error(place, "`schedule` does not say when", Some(STARTS.to_owned())),
            [_] => {}
            [first, second, ..] => {
                self.error(
                    fields.key_place(second),
                    format!("`schedule` has both `{first}` and `{second}`"),
                    Some("keep one of them".to_owned()),
                );
            }
        }
        let (mut starts, mut after_place) = (None, None);
        if let Some(node) = fields.get("cron") {
            starts = self.parsed(node, "`cron`").map(Starts::Cron);
        } else if fields.get("every").is_some() {
            let every = self.duration(&fields, "every");
            if every.is_some_and(|every| every < SHORTEST || every.subsec_nanos() > 0) {
                self.error(fields.key_place("every"), "`every` must be a whole number of seconds, at least one", None);
            } else {
                starts = every.map(Starts::Every);
            }
        } else if let Some(node) = fields.get("after") {
            (starts, after_place) = self.after_runs(node, &fields).unzip();
        }
        let zone = fields.get("zone").and_then(|node| self.parsed(node, "`zone`"));
        let jitter = self.duration(&fields, "jitter").unwrap_or_default();
        if jitter > MOST_JITTER {
            self.error(fields.key_place("jitter"), "`jitter` may be at most 1d", None);
        }
        let missed = fields.get("missed").and_then(|node| self.word(node, "`missed`", &Missed::ALL)).unwrap_or_default();
        let complete_by = fields.get("complete_by").and_then(|node| self.time_of_day(node));
        let timed = ["jitter", "complete_by"].into_iter().find(|name| fields.get(name).is_some());
        if let (Some(name), Some("after")) = (timed, given.first().copied()) {
            self.error(
                fields.key_place(name),
                format!("`{name}` needs `cron` or `every`; `after` has no times"),
                Some("remove it".to_owned()),
            );
        }
        let params = self.schedule_params(&fields);
        let profile = fields.get("profile").and_then(|node| self.name(node, "`profile`"));
        let per_day = self.per_day(&fields);
        let places = SchedulePlaces {
            schedule: place,
            params: fields.get("params").map(|node| node.place),
            profile: fields.get("profile").map(|node| node.place),
            after: after_place.flatten(),
        };
        let schedule =
            Schedule { zone: zone.unwrap_or_default(), jitter, missed, complete_by, params, profile, per_day, ..Schedule::new(starts?) };
        // With a longer delay, a tick might be due after the next one, and would be taken for missed.
        if !jitter.is_zero()
            && let Some(shortest) = schedule.shortest().filter(|shortest| jitter >= *shortest)
        {
            let help = format!("two ticks may be only {}s apart", shortest.as_secs());
            self.error(fields.key_place("jitter"), "`jitter` must be less than the time between two ticks", Some(help));
        }
        Some((schedule, places))
    }

    fn after_runs(&mut self, node: &'a Node, root: &Fields<'a>) -> Option<(Starts, Option<Place>)> {
        let fields = self.fields(node, root.key_place("after"), "`after`", &["workflow", "table"])?;
        let named = [("workflow", Starts::AfterWorkflow as fn(String) -> Starts), ("table", Starts::AfterTable)];
        let mut given = named.into_iter().filter_map(|(name, starts)| Some((name, starts, fields.get(name)?)));
        let (Some((name, starts, node)), None) = (given.next(), given.next()) else {
            self.error(
                root.key_place("after"),
                "`after` must name a workflow or a table",
                Some("e.g. `after: { workflow: ticker-hourly }`".to_owned()),
            );
            return None;
        };
        self.name(node, &format!("`{name}`")).map(|text| (starts(text), Some(node.place)))
    }

    fn time_of_day(&mut self, node: &Node) -> Option<Time> {
        let text = self.text(node, "`complete_by`")?;
        let time = Some(text.as_str()).filter(|text| matches!(text.len(), 5 | 8)).and_then(|text| text.parse().ok());
        if time.is_none() {
            let help = "write hours and minutes in quotes, e.g. `complete_by: \"09:00\"`".to_owned();
            self.error(node.place, "`complete_by` must be a time of day", Some(help));
        }
        time
    }

    fn schedule_params(&mut self, fields: &Fields<'a>) -> BTreeMap<String, serde_json::Value> {
        let Some(node) = fields.get("params") else { return BTreeMap::new() };
        let entries = self.mapping(node, "`params`", MAX_ENTRIES).unwrap_or_default();
        entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect()
    }

    fn per_day(&mut self, fields: &Fields<'a>) -> PerDay {
        let Some(node) = fields.get("per_day") else { return PerDay::default() };
        let place = fields.key_place("per_day");
        let Some(inner) = self.fields(node, place, "`per_day`", &["runs", "usd", "calls", "bytes"]) else { return PerDay::default() };
        if matches!(&node.value, Yaml::Map(entries) if entries.is_empty()) {
            self.error(node.place, "`per_day` is empty", Some("e.g. `per_day: { runs: 24, calls: 1000, usd: 5.00 }`".to_owned()));
        }
        let runs = self.count(&inner, "runs", 1..=1_000_000);
        PerDay { runs, budget: self.amounts(&inner) }
    }
}
