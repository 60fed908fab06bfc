//! Looks at everything that runs need — the program, the clock, the lake, its journal, the disk, calendars, and a workflow's plug-ins, sources
//! and tables — and says of each whether it is in order, and if not, what to do. It leaves nothing behind, and asks no source for rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::Serialize;

use crate::open::{OpenLake, Opening, Repair};
use crate::run::RunStatus;
use repair_core::engine::JsonFormat;
use repair_core::engine::prepare::can_begin;
use repair_core::model::{Calendar, ExpectedKeys};
use repair_core::workflow::{Template, Workflow};
use repair_core::{Error, ErrorKind};

/// A calendar whose hours end sooner than so many days from now is reported.
const CALENDAR_DAYS: i64 = 90;

/// How far the journal may be ahead of the clock: the clocks of two machines differ a little.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(60);

/// How a thing that runs need is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Health {
    /// It is in order.
    Good,
    /// Runs can go on for now.
    Warning,
    /// Runs fail, or cannot begin.
    Bad,
}

/// A thing that runs need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at, such as `lake` or ``table `bars` ``.
    pub what: String,
    /// How it is.
    pub health: Health,
    /// What was seen.
    pub seen: String,
    /// What to do about it, unless what was seen says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Examination {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// What was looked at, in this order. Never empty.
    pub checks: Vec<Check>,
}

impl Examination {
    fn new() -> Self {
        let features: Vec<&str> = [
            ("local", cfg!(feature = "local")),
            ("stocks", cfg!(feature = "stocks")),
            ("sql", cfg!(feature = "sql")),
            ("http", cfg!(feature = "http")),
            ("aws", cfg!(feature = "aws")),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
        .collect();
        let with = if features.is_empty() { "without features".to_owned() } else { format!("with {}", features.join(", ")) };
        let mut examination = Self { format: JsonFormat, checks: Vec::new() };
        examination.add(
            "program",
            Health::Good,
            format!("version {}, {with}, on {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS),
            None,
        );
        examination
    }

    /// The worst of all.
    pub fn health(&self) -> Health {
        self.checks.iter().map(|check| check.health).max().unwrap_or(Health::Bad)
    }

    fn add(&mut self, what: impl Into<String>, health: Health, seen: impl Into<String>, remedy: Option<&str>) {
        self.checks.push(Check { what: what.into(), health, seen: seen.into(), remedy: remedy.map(str::to_owned) });
    }

    fn failed(&mut self, what: impl Into<String>, error: &Error) {
        self.add(what, Health::Bad, error.full(), None);
    }

    /// The clock, by the newest thing that the journal holds.
    fn clock(&mut self, now: Timestamp, newest: Option<Timestamp>) {
        match newest.filter(|newest| newest.duration_since(now) > CLOCKS_DIFFER) {
            Some(newest) => self.add(
                "clock",
                Health::Bad,
                format!("it is {now:.0} here, but the journal has an event of {newest:.0}"),
                Some("set this machine's clock by a time server, before waits, leases and relative dates go wrong"),
            ),
            None => self.add("clock", Health::Good, format!("{now:.0}"), None),
        }
    }

    /// The disk of a lake in a folder.
    #[cfg(feature = "local")]
    fn disk(&mut self, folder: &Path) {
        /// Less free space than this, in bytes, is too little for a repair of any size.
        const LITTLE_SPACE: u64 = 1 << 30;
        /// With less free space than this, in bytes, even the journal soon cannot be written.
        const NO_SPACE: u64 = 64 << 20;
        let free = match repair_local::free_space(folder) {
            Ok(Some(free)) => free,
            Ok(None) => return,
            Err(error) => return self.failed("disk", &error),
        };
        let health = match free {
            ..NO_SPACE => Health::Bad,
            NO_SPACE..LITTLE_SPACE => Health::Warning,
            _ => Health::Good,
        };
        #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
        let shown = format!("{:.1} GB free", free as f64 / 1e9);
        let remedy = (health != Health::Good).then_some("free some space: a run stages what it repairs before it publishes it");
        self.add("disk", health, shown, remedy);
    }

    #[cfg(not(feature = "local"))]
    fn disk(&mut self, _: &Path) {}

    /// The calendars whose hours have ended, or end soon. One fails runs only if they use it, so without a workflow it is a warning.
    fn calendars(&mut self, calendars: &BTreeMap<String, Arc<dyn Calendar>>, used: Option<&Used>, today: Date) {
        let soon = today.checked_add(CALENDAR_DAYS.days()).unwrap_or(today);
        let mut ending: BTreeMap<Date, Vec<&str>> = BTreeMap::new();
        for (name, calendar) in calendars {
            if let Some((_, last)) = calendar.hours_coverage().or_else(|| calendar.coverage()) {
                ending.entry(last).or_default().push(name);
            }
        }
        let later = ending.split_off(&soon);
        let number: usize = later.values().map(Vec::len).sum();
        self.add("calendars", Health::Good, format!("the hours of {number} are known for at least {CALENDAR_DAYS} days"), None);
        for (last, names) in ending {
            let until = |names: &[&str]| format!("the hours of {} are known until {last}", names.join(", "));
            let (named, others): (Vec<&str>, Vec<&str>) =
                names.into_iter().partition(|name| used.is_some_and(|used| used.names.contains(*name)));
            if !named.is_empty() {
                let health = if last < today { Health::Bad } else { Health::Warning };
                let remedy = "use a newer version of this program, or a calendar of your own, before a run asks for a later day";
                self.add("calendars", health, until(&named), Some(remedy));
            }
            if others.is_empty() {
                continue;
            }
            match used {
                Some(used) if !used.perhaps_others => {
                    self.add("calendars", Health::Good, format!("{}, and the workflow uses none of them", until(&others)), None);
                }
                _ => {
                    let remedy =
                        "a newer version of this program knows later days; until then, a run that asks one of them for a later day fails";
                    self.add("calendars", Health::Warning, until(&others), Some(remedy));
                }
            }
        }
    }

    /// The lake's journal, and the runs in it; and the clock by it.
    async fn journal(&mut self, lake: &OpenLake) {
        let now = lake.around.clock.now();
        match lake.runs().await {
            Ok(runs) => {
                self.clock(now, runs.runs.iter().map(|run| run.last_at).max());
                let number = |status| runs.runs.iter().filter(|run| run.status == status).count();
                let (stopped, under_way) = (number(RunStatus::Stopped), number(RunStatus::Running) + number(RunStatus::Waiting));
                let seen = format!("runs: {}, of which {under_way} under way, {stopped} stopped", runs.runs.len());
                let remedy = (stopped > 0).then_some("resume or cancel the runs that were stopped: what they staged stays until then");
                self.add("journal", if stopped > 0 { Health::Warning } else { Health::Good }, seen, remedy);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.clock(now, None);
                self.add("journal", Health::Good, "nothing was run here yet", None);
            }
            Err(error) => {
                self.clock(now, None);
                self.failed("journal", &error);
            }
        }
    }

    /// What a workflow needs.
    async fn workflow(&mut self, repair: &Repair) {
        let around = repair.around();
        let name = format!("workflow `{}`", repair.workflow.name);
        let ready = match repair.variables() {
            Ok(variables) => can_begin(&around.registry, repair.opened.as_ref(), &repair.lakes, &repair.workflow, &variables).await,
            Err(error) => Err(error),
        };
        match ready {
            Ok(()) => self.add(name, Health::Good, "its plug-ins, sources and tables are ready", None),
            Err(error) => self.failed(name, &error),
        }
        for (name, table) in &repair.workflow.tables {
            let what = format!("table `{name}`");
            match repair.opened.describe(table).await {
                Ok(schema) => {
                    self.add(what, Health::Good, format!("{} columns at {}", schema.fields().len(), repair.opened.place(table)), None);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let remedy = "it is created by the step that writes it; if it should be there already, correct its `location`";
                    self.add(what, Health::Warning, error.full(), Some(remedy));
                }
                Err(error) => self.failed(what, &error),
            }
        }
    }
}

/// The calendars that a workflow uses.
#[derive(Default)]
struct Used {
    /// The names that its text has.
    names: BTreeSet<String>,
    /// Whether it may use others too, because a name is computed, or stands in a column of a table.
    perhaps_others: bool,
}

impl Used {
    /// Those of a workflow and of the workflows that it runs as steps. The calendars that these define are added to `calendars`.
    fn add(&mut self, workflow: &Workflow, calendars: &mut BTreeMap<String, Arc<dyn Calendar>>) {
        for (name, calendar) in &workflow.calendars {
            calendars.entry(name.clone()).or_insert_with(|| Arc::clone(calendar));
        }
        let by_key = |keys: &Option<ExpectedKeys>| matches!(keys, Some(ExpectedKeys::Table(keys)) if keys.calendar.is_some());
        self.perhaps_others |= workflow.tables.values().any(|table| by_key(&table.keys));
        for source in workflow.sources.values() {
            self.add_named(&source.with);
        }
        for step in &workflow.steps {
            for (_, _, with) in step.kind.plugins() {
                self.add_named(with);
            }
            if let Some((inner, _)) = step.kind.inner() {
                self.add(inner, calendars);
            }
        }
    }

    fn add_named(&mut self, with: &Template) {
        /// The names under which a step is given keys.
        const KEYS: [&str; 2] = ["keys", "keys_from"];
        self.names.extend(with.text_of("calendar").map(str::to_owned));
        // Keys that a table lists may each have a calendar.
        let by_key = |keys: &serde_json::Value| keys.get("calendar").is_some();
        self.perhaps_others |= match with {
            Template::Value(value) => KEYS.iter().any(|name| value.get(name).is_some_and(by_key)),
            Template::Map(entries) => entries.iter().any(|(name, value)| match (name.as_str(), value) {
                ("calendar", value) => matches!(value, Template::Computed(_)),
                (name, value) if KEYS.contains(&name) => match value {
                    Template::Value(keys) => by_key(keys),
                    Template::Map(entries) => entries.iter().any(|(name, _)| name == "calendar"),
                    Template::Computed(_) => true,
                    Template::List(_) => false,
                },
                _ => false,
            }),
            Template::Computed(_) => true,
            Template::List(_) => false,
        };
    }
}

impl OpenLake {
    /// Looks at what any run in this lake needs.
    ///
    /// ```
    /// use repair::OpenLake;
    /// use repair::doctor::Health;
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path();
    /// let examination = repair::block_on(async { Ok::<_, repair::Error>(OpenLake::at(path)?.examine().await) })?;
    /// let lake = examination.checks.iter().find(|check| check.what == "lake").unwrap();
    /// assert_eq!(lake.health, Health::Good);
    /// # Ok::<(), repair::Error>(())
    /// ```
    pub async fn examine(&self) -> Examination {
        let mut examination = Examination::new();
        self.examine_into(&mut examination).await;
        let today = jiff::tz::TimeZone::UTC.to_datetime(self.around.clock.now()).date();
        examination.calendars(self.around.registry.calendars(), None, today);
        examination
    }

    async fn examine_into(&self, examination: &mut Examination) {
        // A lake in S3 whose place alone is named is opened as its newest run had it.
        let newest = match self.journal().await {
            Ok(journal) => journal.runs().await.ok().and_then(|mut runs| runs.pop()).map(|head| (journal, head.run)),
            Err(_) => None,
        };
        let opened = self.lake_of(newest.as_ref().map(|(journal, run)| (journal.as_ref(), run.as_str()))).await;
        match opened {
            Ok(lake) => match lake.check_writable().await {
                Ok(()) => examination.add("lake", Health::Good, "it can be read and written", None),
                // Even a run that only looks writes its journal.
                Err(error) => {
                    examination.add(
                        "lake",
                        Health::Bad,
                        error.full(),
                        Some("until then, past runs can be looked at, and no run can begin"),
                    );
                }
            },
            Err(error) => examination.failed("lake", &error),
        }
        if let Some(folder) = self.folder().filter(|folder| std::fs::metadata(folder).is_ok_and(|there| there.is_dir())) {
            examination.disk(folder);
        }
        examination.journal(self).await;
    }
}

impl Opening {
    /// Opens the workflow and looks at what its runs need, and says what is not in order. That it cannot be opened is among what it says.
    pub async fn examine(self) -> Examination {
        let mut examination = Examination::new();
        match self.connect().await {
            Ok(repair) => {
                repair.lake().examine_into(&mut examination).await;
                let today = jiff::tz::TimeZone::UTC.to_datetime(repair.around().clock.now()).date();
                let (mut used, mut calendars) = (Used::default(), repair.around().registry.calendars().clone());
                used.add(&repair.workflow, &mut calendars);
                examination.calendars(&calendars, Some(&used), today);
                examination.workflow(&repair).await;
            }
            Err(error) => examination.failed("workflow", &error),
        }
        examination
    }
}

#[cfg(all(test, feature = "stocks"))]
mod tests {
    use super::*;

    #[test]
    fn a_clock_behind_the_journal_and_a_calendar_that_ends_are_noticed() {
        let now: Timestamp = "2026-03-05T12:00:00Z".parse().unwrap();
        let mut examination = Examination::new();
        examination.clock(now, Some(now + SignedDuration::from_secs(30)));
        examination.clock(now, Some(now + SignedDuration::from_secs(90)));
        assert_eq!(examination.checks[1..].iter().map(|check| check.health).collect::<Vec<_>>(), [Health::Good, Health::Bad]);
        let registry = crate::registry();
        let calendars: BTreeMap<_, _> = registry.calendars().iter().filter(|(_, calendar)| calendar.coverage().is_some()).collect();
        let (_, calendar) = calendars.first_key_value().unwrap();
        let (_, last) = calendar.hours_coverage().or_else(|| calendar.coverage()).unwrap();
        let one = BTreeMap::from([("X".to_owned(), (*calendar).clone())]);
        let names = |name: &str| Used { names: BTreeSet::from([name.to_owned()]), perhaps_others: false };
        let (user, other, computes) = (names("X"), names("Y"), Used { perhaps_others: true, ..names("Y") });
        for (today, of_user, of_unknown) in [
            (last.checked_sub(200.days()).unwrap(), Health::Good, Health::Good),
            (last, Health::Warning, Health::Warning),
            (last.tomorrow().unwrap(), Health::Bad, Health::Warning),
        ] {
            let health = |used: Option<&Used>| {
                let mut examination = Examination::new();
                examination.calendars(&one, used, today);
                // What has ended is listed, whoever uses it.
                let is_listed = examination.checks.iter().any(|check| check.seen.contains(&format!("until {last}")));
                assert_eq!(is_listed, of_unknown != Health::Good, "{today}");
                examination.health()
            };
            assert_eq!(health(Some(&user)), of_user, "{today}");
            assert_eq!([health(None), health(Some(&computes))], [of_unknown; 2], "{today}");
            assert_eq!(health(Some(&other)), Health::Good, "{today}");
        }
    }

    #[test]
    fn a_workflow_uses_the_calendars_that_it_names_and_perhaps_those_of_its_keys() {
        let used = |with: &str| {
            let text = format!(
                "workflow: w\nkind: dag\ncalendars: {{ own: {{ extends: XSHG, closed: [2024-03-06] }} }}\ntables:\n  readings: {{ location: r, format: csv, key: [key], time: ts, cadence: 1h }}\n  sites: {{ location: s.csv, format: csv, csv: {{ names: [key, opened, market] }}, time: opened }}\nsteps:\n  look: {{ detect: gaps, with: {{ table: readings, from: 2024-03-04, to: 2024-03-05, {with} }} }}\n"
            );
            let workflow = Workflow::parse("w.yaml", &text, &crate::registry()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
            let (mut used, mut calendars) = (Used::default(), BTreeMap::new());
            used.add(&workflow, &mut calendars);
            assert!(calendars.contains_key("own"));
            (used.names.into_iter().collect::<Vec<_>>().join(" "), used.perhaps_others)
        };
        assert_eq!(used("keys: [a], calendar: XNYS"), ("XNYS".to_owned(), false));
        assert_eq!(used("keys: [a], calendar: own"), ("own".to_owned(), false));
        assert_eq!(used("keys: [a], calendar: \"{% 'XN' & 'YS' %}\""), (String::new(), true));
        for keys in ["keys", "keys_from"] {
            assert_eq!(used(&format!("{keys}: {{ table: sites, calendar: market }}, calendar: XNYS")), ("XNYS".to_owned(), true));
        }
    }
}
