//! `steps`: the word that begins each step, and the fields that the word takes.

use std::time::Duration;

use super::map;
use super::{Computed, Fields, MAX_ENTRIES, MAX_STEPS, PluginPlaces, Reader, StepPlaces, Within, computed, did_you_mean, one_of, quoted};
use crate::workflow::expression::Expression;
use crate::workflow::parse_duration;
use crate::workflow::{AfterIf, Inside, ParallelBranch, RunIf, SensorWait, Step, StepKind, Template, Tolerance, Wait};
use crate::yaml::tree::{Key, Node, Place, Yaml};

/// The words that can begin a step.
pub(crate) const WORDS: [&str; 11] =
    ["detect", "wait", "repair", "verify", "aggregate", "task", "parallel", "map", "workflow", "succeed", "fail"];
/// Words of other languages, and what to use instead.
const OTHER_WORDS: [(&str, &str); 4] = [
    ("choice", "write conditions in the `next` of the step before"),
    ("foreach", "use `map`, which runs steps for each item of a list"),
    ("pass", "compute values where they are used, `\"{% … %}\"`"),
    ("branch", "write conditions in the `next` of the step before"),
];
/// The fields of every step of a state machine that does not end the run.
const COMMON: [&str; 7] = ["next", "end", "retry", "catch", "max_visits", "timeout", "heartbeat"];
/// The fields of every step of a DAG.
const COMMON_DAG: [&str; 5] = ["after", "run_if", "retry", "timeout", "heartbeat"];
/// How often a sensor is read by default.
const DEFAULT_EVERY: Duration = Duration::from_secs(30);

/// How often a step looks for what people say, unless it says.
const DEFAULT_EVERY_SAID: Duration = Duration::from_secs(5);
/// How many branches one parallel step may have.
const MAX_BRANCHES: usize = 100;
/// How many units of a repair step run at once by default.
pub(super) const DEFAULT_CONCURRENCY: u32 = 4;
/// How many units may run at once: each may hold a connection, and an answer in memory.
pub(super) const MAX_CONCURRENCY: u32 = 256;
/// How often a run may come to one step. Nobody would wait for more.
const MAX_VISITS: u32 = 1_000_000;

/// What a step does, and the places that belong to it.
pub(super) struct Body<'a> {
    pub(super) kind: StepKind,
    pub(super) plugins: Vec<PluginPlaces<'a>>,
    pub(super) of: Option<Place>,
    pub(super) branches: Vec<Place>,
}

impl Body<'_> {
    pub(super) fn plain(kind: StepKind) -> Self {
        Self { kind, plugins: Vec::new(), of: None, branches: Vec::new() }
    }
}

/// What a step of a DAG comes after.
#[derive(Default)]
struct After {
    names: Vec<String>,
    places: Vec<Place>,
    /// How each must have ended; empty if that is for `run_if` to say.
    conditions: Vec<AfterIf>,
}

/// The steps read so far, with their places.
type Read<'a> = (Vec<Step>, Vec<StepPlaces<'a>>);

impl<'a> Reader<'a> {
    pub(super) fn steps(&mut self, fields: &Fields<'a>) -> Read<'a> {
        let mut read = (Vec::new(), Vec::new());
        self.section_of_steps(fields, None, &mut read);
        read
    }

    fn section_of_steps(&mut self, fields: &Fields<'a>, inside: Option<&Inside>, read: &mut Read<'a>) {
        let Some(node) = self.required(fields, "steps", "list what to do, e.g. `steps: { find_gaps: { detect: gaps, … } }`") else {
            self.whole = false;
            return;
        };
        let section = self.section(fields, "steps", MAX_STEPS);
        let given = match &node.value {
            Yaml::Map(entries) => entries.len(),
            _ => 0,
        };
        if matches!(&node.value, Yaml::Map(entries) if entries.is_empty()) || matches!(node.value, Yaml::Null) {
            self.error(fields.key_place("steps"), "there are no steps", Some("add one, e.g. `find_gaps: { detect: gaps, … }`".to_owned()));
        }
        self.whole &= section.len() == given && given > 0;
        for (key, node) in section {
            if self.step_names.contains(&key.name.as_str()) {
                let help = "rename one; the names of steps must differ even across branches, because `$steps` holds all of them";
                self.error(key.place, format!("there is another step {}", quoted(&key.name)), Some(help.to_owned()));
                self.whole = false;
                continue;
            }
            self.step_names.push(&key.name);
            self.whole &= self.step(key, node, inside, read).is_some();
        }
    }

    fn step(&mut self, key: &'a Key, node: &'a Node, inside: Option<&Inside>, read: &mut Read<'a>) -> Option<()> {
        let what = format!("step `{}`", key.name);
        let entries = self.mapping(node, &what, WORDS.len() + 32)?;
        let word = self.step_word(key, entries)?;
        if self.dag && matches!(word, "parallel" | "succeed" | "fail") {
            let help = match word {
                "parallel" => "list the steps directly; independent steps of a dag run side by side",
                _ => "remove it; a dag ends when all its steps have ended, and fails if one of them failed",
            };
            let place = entries.iter().find(|(key, _)| key.name == word).map_or(key.place, |(key, _)| key.place);
            self.error(place, format!("a dag cannot have a `{word}` step"), Some(help.to_owned()));
            return None;
        }
        let ends = matches!(word, "succeed" | "fail");
        let mut known = vec![word];
        known.extend(match word {
            "detect" | "task" | "workflow" => &["with"][..],
            "repair" => &["of", "with", "concurrency", "rate_limit", "tolerate", "budget", "give_up_after", "tags"],
            "aggregate" => &["of", "with"],
            "map" => &map::KEYS,
            _ => &[],
        });
        if self.dag {
            known.extend(COMMON_DAG);
        } else if !ends {
            known.extend(COMMON);
        }
        self.misplaced(entries, word, &known);
        let elsewhere: Vec<&str> = entries.iter().map(|(key, _)| key.name.as_str()).filter(|key| self.is_of_language(key)).collect();
        let tolerated: Vec<&str> = known.iter().copied().chain(elsewhere).collect();
        let fields = self.fields(node, key.place, &what, &tolerated)?;
        let leads = self.next(&fields, ends || self.dag);
        let (retry, catch) = (self.retry(&fields), self.catch(&fields));
        let max_visits = self.count(&fields, "max_visits", 1..=MAX_VISITS);
        let (timeout, heartbeat) = (self.duration(&fields, "timeout"), self.duration(&fields, "heartbeat"));
        if let (Some(timeout), Some(heartbeat)) = (timeout, heartbeat)
            && heartbeat >= timeout
        {
            self.error(fields.key_place("heartbeat"), "`heartbeat` must be shorter than `timeout`", None);
        }
        self.ends_by_itself(&fields, word);
        let After { names: after, places: after_places, conditions: after_if } = self.after(&fields);
        let run_if = fields.get("run_if").and_then(|node| self.word(node, "`run_if`", &RunIf::ALL));
        if run_if.is_some() && after.is_empty() {
            self.error(
                fields.key_place("run_if"),
                "`run_if` needs steps that come before, and there are none",
                Some("name them in `after`".to_owned()),
            );
        }
        if run_if.is_some() && !after_if.is_empty() {
            self.error(
                fields.key_place("run_if"),
                "`run_if` cannot be combined with a mapping in `after`",
                Some("remove it; the mapping says how each step must have ended".to_owned()),
            );
        }
        // A parallel step comes before the steps of its branches, as in the text.
        let place = read.0.len();
        let body = match word {
            "parallel" => self.parallel(&fields, &key.name, read),
            "map" => self.map(&fields, key),
            _ => self.body(&fields, word),
        };
        let (leads, body) = (leads?, body?);
        let (catch, catch_places) = catch.into_iter().unzip();
        let (next, next_places) = leads.into_iter().unzip();
        let (name, run_if, inside) = (key.name.clone(), run_if.unwrap_or_default(), inside.cloned());
        read.0.insert(
            place,
            Step { name, kind: body.kind, next, retry, catch, max_visits, timeout, heartbeat, after, run_if, after_if, inside },
        );
        let places = StepPlaces {
            name: key.place,
            plugins: body.plugins,
            of: body.of,
            after: after_places,
            branches: body.branches,
            next: next_places,
            catch: catch_places,
        };
        read.1.insert(place, places);
        Some(())
    }

    /// Reads `after`: a step, a list of steps, or a mapping that says how each must have ended.
    fn after(&mut self, fields: &Fields<'a>) -> After {
        let mut after = After::default();
        let Some(node) = fields.get("after") else { return after };
        let Yaml::Map(entries) = &node.value else {
            (after.names, after.places) = self.texts(node, "`after`").into_iter().unzip();
            return after;
        };
        if entries.is_empty() {
            self.error(node.place, "`after` names no step", Some("write e.g. `after: { look: failed }`, or remove it".to_owned()));
        }
        for (key, node) in self.mapping(node, "`after`", MAX_ENTRIES).unwrap_or_default() {
            // A key that is there twice is already reported.
            if after.names.contains(&key.name) {
                continue;
            }
            match self.word(node, &format!("the condition on {}", quoted(&key.name)), &AfterIf::ALL) {
                Some(condition) => {
                    after.names.push(key.name.clone());
                    after.places.push(key.place);
                    after.conditions.push(condition);
                }
                None => self.whole = false,
            }
        }
        after
    }

    /// Refuses `timeout` and `heartbeat` where they would have no effect.
    fn ends_by_itself(&mut self, fields: &Fields<'a>, word: &str) {
        let sensor = fields.get("wait").and_then(|wait| wait.get("until")).is_some_and(|until| matches!(until.value, Yaml::Map(_)));
        let refused: &[(&str, &str)] = match word {
            "wait" if sensor => &[("timeout", "write it within `until`, beside `every`")],
            "wait" => &[("timeout", "remove it; a wait ends by itself"), ("heartbeat", "remove it; a wait makes no progress to report")],
            "parallel" | "workflow" | "map" => &[("heartbeat", "move it to the steps inside, which report progress")],
            _ => &[],
        };
        for (name, help) in refused {
            if fields.get(name).is_some() {
                self.error(fields.key_place(name), format!("`{word}` takes no `{name}`"), Some((*help).to_owned()));
            }
        }
    }

    /// Reads the branches of a parallel step, and adds their steps to `read`.
    fn parallel(&mut self, fields: &Fields<'a>, step: &str, read: &mut Read<'a>) -> Option<Body<'a>> {
        let node = fields.get("parallel")?;
        let entries = self.mapping(node, "`parallel`", MAX_BRANCHES)?;
        if entries.is_empty() {
            self.error(node.place, "`parallel` has no branches", Some("add one, e.g. `prices: { start: a, steps: { a: … } }`".to_owned()));
        }
        let (mut branches, mut places) = (Vec::new(), Vec::new());
        for (key, node) in entries {
            let what = format!("branch `{}`", key.name);
            if !self.is_name(&key.name, key.place, "a branch") {
                continue;
            }
            let Some(fields) = self.fields(node, key.place, &what, &["start", "steps"]) else {
                self.whole = false;
                continue;
            };
            let start = self.required(&fields, "start", "name the step to begin with");
            let start = start.and_then(|node| self.text(node, "`start`").map(|start| (start, node.place)));
            let inside = Inside { step: step.to_owned(), branch: key.name.clone() };
            self.section_of_steps(&fields, Some(&inside), read);
            match start {
                Some((start, place)) => {
                    branches.push(ParallelBranch { name: key.name.clone(), start });
                    places.push(place);
                }
                None => self.whole = false,
            }
        }
        Some(Body { branches: places, ..Body::plain(StepKind::Parallel { branches }) })
    }

    fn is_of_language(&self, key: &str) -> bool {
        WORDS.contains(&key) || COMMON.contains(&key) || COMMON_DAG.contains(&key) || OTHER_KEYS.contains(&key)
    }

    /// Reports keys that exist in the language but not in this step, with a better message than for unknown keys.
    fn misplaced(&mut self, entries: &'a [(Key, Node)], word: &str, known: &[&str]) {
        for (key, _) in entries {
            let name = key.name.as_str();
            if known.contains(&name) || WORDS.contains(&name) || !self.is_of_language(name) {
                continue;
            }
            let (message, help) = match (word, name) {
                ("succeed" | "fail", "next" | "end") => {
                    (format!("`{word}` ends the run, so it takes no `{name}`"), format!("remove `{name}`"))
                }
                ("verify", "with") => (
                    "`verify` takes no `with`".to_owned(),
                    "remove it; the step uses the configuration of the detect step that it names".to_owned(),
                ),
                (_, "after" | "run_if") if !self.dag => {
                    (format!("only steps of a `kind: dag` take `{name}`"), "name the steps that follow in `next`".to_owned())
                }
                (_, "next" | "end" | "catch" | "max_visits") if self.dag => {
                    let help = "name the steps before in `after`, and how they must have ended, e.g. `after: { look: failed }`";
                    (format!("only steps of a `kind: state-machine` take `{name}`"), help.to_owned())
                }
                _ => (format!("`{word}` takes no `{name}`"), one_of(known.iter().copied())),
            };
            self.error(key.place, message, Some(help));
        }
    }

    fn step_word(&mut self, key: &'a Key, entries: &'a [(Key, Node)]) -> Option<&'static str> {
        let of_map = |word: &str| matches!(word, "map" | "workflow");
        let word_of = |key: &Key| WORDS.into_iter().find(|word| *word == key.name);
        let mut words = entries.iter().filter_map(|(key, _)| word_of(key).map(|word| (word, key.place)));
        if let Some((first, _)) = words.next() {
            // A map may run a workflow that has its own file.
            if entries.iter().any(|(key, _)| key.name == "map") && entries.iter().all(|(key, _)| word_of(key).is_none_or(of_map)) {
                return Some("map");
            }
            if let Some((second, place)) = words.next().filter(|(second, _)| *second != first) {
                let message = format!("step `{}` has both `{first}` and `{second}`", key.name);
                self.error(place, message, Some("make it two steps".to_owned()));
                return None;
            }
            return Some(first);
        }
        let other = |key: &Key| OTHER_WORDS.into_iter().find(|(word, _)| *word == key.name);
        if let Some((key, (word, help))) = entries.iter().find_map(|(key, _)| other(key).map(|word| (key, word))) {
            self.error(key.place, format!("there is no `{word}` step"), Some(help.to_owned()));
            return None;
        }
        // The first key that resembles a word was probably meant as one.
        let meant = entries.iter().filter(|(key, _)| !self.is_of_language(&key.name));
        let meant = meant.filter_map(|(key, _)| did_you_mean(&key.name, WORDS.into_iter()).map(|help| (key, help))).next();
        match meant {
            Some((word, help)) => self.error(word.place, format!("unknown word {} in step `{}`", quoted(&word.name), key.name), Some(help)),
            None => {
                let help = one_of(WORDS.into_iter());
                self.error(key.place, format!("step `{}` does not say what to do", key.name), Some(help));
            }
        }
        None
    }

    fn body(&mut self, fields: &Fields<'a>, word: &'static str) -> Option<Body<'a>> {
        match word {
            "detect" => self.plugged(fields, word, |plugin, with| StepKind::Detect { plugin, with }),
            "task" => self.plugged(fields, word, |plugin, with| StepKind::Task { plugin, with }),
            "aggregate" => {
                let of = fields.get("of").and_then(|node| self.text(node, "`of`").map(|of| (of, node.place)));
                let (of, place) = of.unzip();
                let body = self.plugged(fields, word, |plugin, with| StepKind::Aggregate { plugin, of, with })?;
                Some(Body { of: place, ..body })
            }
            "repair" => self.repair(fields),
            "verify" => {
                let node = fields.get("verify")?;
                let of = self.text(node, "`verify`")?;
                Some(Body { of: Some(node.place), ..Body::plain(StepKind::Verify { of }) })
            }
            "wait" => self.wait(fields),
            "workflow" => {
                let node = fields.get("workflow")?;
                let name = self.text(node, "`workflow`")?;
                let (with, with_node) = self.with(fields, Within::Step);
                match (self.child)(&name) {
                    Ok(workflow) => {
                        if self.budgeted && workflow.budget.is_none() {
                            let help = "give it one, or remove this one; a run inside another run spends by its own budget";
                            self.error(
                                node.place,
                                format!("the workflow {} has no `budget`, but this one does", quoted(&name)),
                                Some(help.to_owned()),
                            );
                        }
                        let plugins = vec![PluginPlaces { name: node.place, with: with_node, said: Vec::new() }];
                        Some(Body { plugins, ..Body::plain(StepKind::Workflow { name, workflow, with }) })
                    }
                    Err(why) => {
                        self.error(node.place, why, Some(format!("validate {} on its own to see all its mistakes", quoted(&name))));
                        None
                    }
                }
            }
            "fail" => {
                let node = fields.get("fail")?;
                let message = self.text(node, "`fail`")?;
                if !matches!(computed(&message), Computed::No) {
                    self.error(node.place, "the message of `fail` cannot be computed", Some("write plain text".to_owned()));
                }
                Some(Body::plain(StepKind::Fail { message }))
            }
            _ => {
                let node = fields.get("succeed")?;
                if !matches!(node.value, Yaml::Null | Yaml::Bool(true)) {
                    self.error(node.place, "`succeed` must be `true`", None);
                }
                Some(Body::plain(StepKind::Succeed))
            }
        }
    }

    fn plugged(&mut self, fields: &Fields<'a>, word: &str, kind: impl FnOnce(String, Template) -> StepKind) -> Option<Body<'a>> {
        let (with, with_node) = self.with(fields, Within::Step);
        let (plugin, name) = self.plugin(fields, word, "name the plug-in")?;
        Some(Body { plugins: vec![PluginPlaces { name, with: with_node, said: Vec::new() }], ..Body::plain(kind(plugin, with)) })
    }

    fn wait(&mut self, fields: &Fields<'a>) -> Option<Body<'a>> {
        let node = fields.get("wait")?;
        if let Some(text) = node.text() {
            let key = if parse_duration(text).is_ok() { "for" } else { "until" };
            self.error(node.place, "`wait` must be a mapping with `for` or `until`", Some(format!("write `wait: {{ {key}: {text} }}`")));
            return None;
        }
        let wait = self.fields(node, fields.key_place("wait"), "`wait`", &["for", "until"])?;
        match (wait.get("for"), wait.get("until")) {
            (Some(node), None) => {
                let duration = |text: &str| parse_duration(text).err().map(|error| error.message().to_owned());
                self.wait_value(node, "`for`", duration).map(|value| Body::plain(StepKind::Wait(Wait::For(value))))
            }
            (None, Some(node)) if matches!(node.value, Yaml::Map(_)) => self.sensor(node, wait.key_place("until")),
            (None, Some(node)) => {
                let instant = |text: &str| {
                    text.parse::<jiff::Timestamp>()
                        .err()
                        .map(|_| format!("`{text}` is not an instant; write one such as 2024-03-04T14:30:00Z"))
                };
                self.wait_value(node, "`until`", instant).map(|value| Body::plain(StepKind::Wait(Wait::Until(value))))
            }
            (Some(_), Some(_)) => {
                self.error(wait.key_place("until"), "a wait cannot have both `for` and `until`", Some("make it two steps".to_owned()));
                None
            }
            (None, None) => {
                self.error(wait.place, "`wait` has neither `for` nor `until`", Some("write e.g. `wait: { for: 90s }`".to_owned()));
                None
            }
        }
    }

    /// Reads a wait for something that people or other systems say: a short form of a sensor.
    fn said(&mut self, node: &'a Node, place: Place, word: &'static str) -> Option<Body<'a>> {
        let fields = self.fields(node, place, "`until`", &[word, "every", "timeout"])?;
        let said = fields.get(word)?;
        self.text(said, &format!("`{word}`"))?;
        let every = self.duration(&fields, "every").unwrap_or(DEFAULT_EVERY_SAID);
        if every.is_zero() {
            self.error(fields.key_place("every"), "`every` must be longer than zero", Some("write e.g. `every: 5s`".to_owned()));
        }
        let timeout = self.duration(&fields, "timeout");
        let key = if word == "event" { "name" } else { "message" };
        let with = match self.template(said, Within::Step) {
            Template::Value(value) => Template::Value(serde_json::json!({ key: value })),
            computed => Template::Map(vec![(key.to_owned(), computed)]),
        };
        let when = Expression::parse("$output.received").ok();
        let wait = SensorWait { plugin: word.to_owned(), with, when, every, timeout };
        let plugins = vec![PluginPlaces { name: said.place, with: None, said: vec![(key, said)] }];
        Some(Body { plugins, ..Body::plain(StepKind::Wait(Wait::Sensor(Box::new(wait)))) })
    }

    /// Reads a wait until a condition on the reading of a sensor holds.
    fn sensor(&mut self, node: &'a Node, place: Place) -> Option<Body<'a>> {
        if let Some(word) = ["event", "approval"].into_iter().find(|word| node.get(word).is_some() && node.get("sensor").is_none()) {
            return self.said(node, place, word);
        }
        let fields = self.fields(node, place, "`until`", &["sensor", "with", "when", "every", "timeout"])?;
        let (with, with_node) = self.with(&fields, Within::Step);
        let when = fields.get("when").map(|node| self.condition(node));
        let every = self.duration(&fields, "every").unwrap_or(DEFAULT_EVERY);
        if every.is_zero() {
            self.error(fields.key_place("every"), "`every` must be longer than zero", Some("write e.g. `every: 30s`".to_owned()));
        }
        let timeout = self.duration(&fields, "timeout");
        let (plugin, name) = self.plugin(&fields, "sensor", "name the sensor, e.g. `sensor: gaps`")?;
        let when = match when {
            Some(condition) => Some(condition?),
            None => None,
        };
        let wait = SensorWait { plugin, with, when, every, timeout };
        let plugins = vec![PluginPlaces { name, with: with_node, said: Vec::new() }];
        Some(Body { plugins, ..Body::plain(StepKind::Wait(Wait::Sensor(Box::new(wait)))) })
    }

    fn wait_value(&mut self, node: &'a Node, what: &str, refuse: impl Fn(&str) -> Option<String>) -> Option<Template> {
        if let Yaml::Number(number) = &node.value {
            self.error(node.place, format!("{what} has no unit"), Some(format!("did you mean `{number}s`?")));
            return None;
        }
        let text = self.text(node, what)?;
        if matches!(computed(&text), Computed::No)
            && let Some(why) = refuse(&text)
        {
            self.error(node.place, why, None);
            return None;
        }
        Some(self.template(node, Within::Step))
    }

    pub(super) fn tolerate(&mut self, fields: &Fields<'a>) -> Tolerance {
        let nothing = Tolerance::Count(0);
        let Some(node) = fields.get("tolerate") else { return nothing };
        let Some(inner) = self.fields(node, fields.key_place("tolerate"), "`tolerate`", &["failed"]) else { return nothing };
        let Some(node) = self.required(&inner, "failed", "write e.g. `tolerate: { failed: 5% }`") else { return nothing };
        let read = match &node.value {
            Yaml::Number(number) => number.as_u64().and_then(|count| u32::try_from(count).ok()).map(Tolerance::Count),
            Yaml::Text(text) => {
                let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
                percent.filter(|percent| (0.0..=100.0).contains(percent)).map(Tolerance::Percent)
            }
            _ => None,
        };
        if read.is_none() {
            self.error(
                node.place,
                "`failed` must be a number of units, or a percentage of them",
                Some("write e.g. `failed: 3` or `failed: 5%`".to_owned()),
            );
        }
        read.unwrap_or(nothing)
    }
}

/// Keys that only some steps take, or only steps of a certain kind of workflow.
const OTHER_KEYS: [&str; 15] = [
    "of",
    "with",
    "concurrency",
    "rate_limit",
    "tolerate",
    "budget",
    "give_up_after",
    "tags",
    "after",
    "run_if",
    "as",
    "kind",
    "max_parallel",
    "start",
    "steps",
];
