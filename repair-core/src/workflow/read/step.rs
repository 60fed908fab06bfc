//! `steps`: which word each begins with, and what that word takes.

use super::super::definition::{Step, StepKind, Template, Tolerance, Wait};
use super::super::duration::parse_duration;
use super::super::tree::{Key, Node, Place, Yaml};
use super::{Computed, Fields, MAX_STEPS, PluginPlaces, Reader, StepPlaces, Within, computed, did_you_mean, one_of, quoted};

/// The words a step can begin with.
pub(crate) const WORDS: [&str; 8] = ["detect", "wait", "repair", "verify", "aggregate", "task", "succeed", "fail"];
/// Words that are thought of, but that this version does not run.
const LATER_WORDS: [&str; 4] = ["parallel", "workflow", "map", "choice"];
/// What every step that goes on takes.
const COMMON: [&str; 5] = ["next", "end", "retry", "catch", "max_visits"];
/// Units that run at once, if a repair step does not say.
const DEFAULT_CONCURRENCY: u32 = 4;
/// Units that may run at once: each may hold a connection and an answer in memory.
const MAX_CONCURRENCY: u32 = 256;
/// How often a run may come to one step. More is a loop that nobody waits for.
const MAX_VISITS: u32 = 1_000_000;

/// What a step does, and where its plug-in and its detect step are named.
struct Body<'a> {
    kind: StepKind,
    plugin: Option<PluginPlaces<'a>>,
    of: Option<Place>,
}

impl Body<'_> {
    fn plain(kind: StepKind) -> Self {
        Self { kind, plugin: None, of: None }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn steps(&mut self, fields: &Fields<'a>) -> (Vec<Step>, Vec<StepPlaces<'a>>) {
        let (mut steps, mut places) = (Vec::new(), Vec::new());
        let Some(node) = self.required(fields, "steps", "what there is to do") else {
            self.whole = false;
            return (steps, places);
        };
        let section = self.section(fields, "steps", MAX_STEPS);
        let given = match &node.value {
            Yaml::Map(entries) => entries.len(),
            _ => 0,
        };
        if matches!(&node.value, Yaml::Map(entries) if entries.is_empty()) || matches!(node.value, Yaml::Null) {
            self.error(fields.key_place("steps"), "there are no steps", Some("e.g. `find_gaps: { detect: gaps, … }`".to_owned()));
        }
        self.whole &= section.len() == given && given > 0;
        for (key, node) in section {
            match self.step(key, node) {
                Some((step, step_places)) => {
                    steps.push(step);
                    places.push(step_places);
                }
                None => self.whole = false,
            }
        }
        (steps, places)
    }

    fn step(&mut self, key: &'a Key, node: &'a Node) -> Option<(Step, StepPlaces<'a>)> {
        let what = format!("step `{}`", key.name);
        let entries = self.mapping(node, &what, WORDS.len() + 32)?;
        let word = self.step_word(key, entries)?;
        let ends = matches!(word, "succeed" | "fail");
        let mut known = vec![word];
        known.extend(match word {
            "detect" | "task" => &["with"][..],
            "repair" => &["of", "with", "concurrency", "rate_limit", "tolerate"],
            "aggregate" => &["of", "with"],
            _ => &[],
        });
        if !ends {
            known.extend(COMMON);
        }
        self.misplaced(entries, word, &known);
        let elsewhere: Vec<&str> = entries.iter().map(|(key, _)| key.name.as_str()).filter(|key| self.is_of_language(key)).collect();
        let tolerated: Vec<&str> = known.iter().copied().chain(elsewhere).collect();
        let fields = self.fields(node, key.place, &what, &tolerated)?;
        let leads = self.next(&fields, ends);
        let (retry, catch) = (self.retry(&fields), self.catch(&fields));
        let max_visits = self.count(&fields, "max_visits", 1..=MAX_VISITS);
        let body = self.body(&fields, word);
        let (leads, body) = (leads?, body?);
        let (catch, catch_places) = catch.into_iter().unzip();
        let (next, next_places) = leads.into_iter().unzip();
        Some((
            Step { name: key.name.clone(), kind: body.kind, next, retry, catch, max_visits },
            StepPlaces { name: key.place, plugin: body.plugin, of: body.of, next: next_places, catch: catch_places },
        ))
    }

    fn is_of_language(&self, key: &str) -> bool {
        WORDS.contains(&key) || LATER_WORDS.contains(&key) || COMMON.contains(&key) || OTHER_KEYS.contains(&key)
    }

    /// Keys that the language has, but not here: told in a better way than as unknown.
    fn misplaced(&mut self, entries: &'a [(Key, Node)], word: &str, known: &[&str]) {
        for (key, _) in entries {
            let name = key.name.as_str();
            if known.contains(&name) || WORDS.contains(&name) || LATER_WORDS.contains(&name) || !self.is_of_language(name) {
                continue;
            }
            let (message, help) = match (word, name) {
                ("succeed" | "fail", "next" | "end") => {
                    (format!("`{word}` ends the run, so it takes no `{name}`"), format!("remove `{name}`"))
                }
                ("verify", "with") => (
                    "`verify` takes no `with`".to_owned(),
                    "it looks again with the configuration of the detect step that it names".to_owned(),
                ),
                (_, "after" | "run_if") => (format!("`{name}` belongs to `kind: dag`"), "say in `next` where each step leads".to_owned()),
                _ => (format!("`{word}` takes no `{name}`"), one_of(known.iter().copied())),
            };
            self.error(key.place, message, Some(help));
        }
    }

    fn step_word(&mut self, key: &'a Key, entries: &'a [(Key, Node)]) -> Option<&'static str> {
        let word_of = |key: &Key| WORDS.into_iter().find(|word| *word == key.name);
        let mut words = entries.iter().filter_map(|(key, _)| word_of(key).map(|word| (word, key.place)));
        if let Some((first, _)) = words.next() {
            if let Some((second, place)) = words.next().filter(|(second, _)| *second != first) {
                let message = format!("step `{}` says both `{first}` and `{second}`", key.name);
                self.error(place, message, Some("make it two steps".to_owned()));
                return None;
            }
            return Some(first);
        }
        if let Some((later, _)) = entries.iter().find(|(key, _)| LATER_WORDS.contains(&key.name.as_str())) {
            self.error(later.place, format!("`{}` is not run by this version", later.name), Some(one_of(WORDS.into_iter())));
            return None;
        }
        // The first key that looks like a word was probably meant as one.
        let meant = entries.iter().filter(|(key, _)| !self.is_of_language(&key.name));
        let meant = meant.filter_map(|(key, _)| did_you_mean(&key.name, WORDS.into_iter()).map(|help| (key, help))).next();
        match meant {
            Some((word, help)) => self.error(word.place, format!("unknown word {} in step `{}`", quoted(&word.name), key.name), Some(help)),
            None => {
                let help = format!("begin it with a word; {}", one_of(WORDS.into_iter()));
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
            "repair" => {
                let of = self.required(fields, "of", "the detect step whose findings it repairs, e.g. `of: find_gaps`");
                let of = of.and_then(|node| self.text(node, "`of`").map(|of| (of, node.place)));
                let concurrency = self.count(fields, "concurrency", 1..=MAX_CONCURRENCY).unwrap_or(DEFAULT_CONCURRENCY);
                let (rate_limit, tolerate) = (self.rate(fields), self.tolerate(fields));
                let (of, place) = of.unzip();
                let kind =
                    |plugin, with| StepKind::Repair { plugin, of: of.clone().unwrap_or_default(), with, concurrency, rate_limit, tolerate };
                let body = self.plugged(fields, word, kind)?;
                Some(Body { of: Some(place?), ..body })
            }
            "verify" => {
                let node = fields.get("verify")?;
                let of = self.text(node, "`verify`, which names a detect step,")?;
                Some(Body { kind: StepKind::Verify { of }, plugin: None, of: Some(node.place) })
            }
            "wait" => self.wait(fields).map(|wait| Body::plain(StepKind::Wait(wait))),
            "fail" => {
                let node = fields.get("fail")?;
                let message = self.text(node, "`fail`, which says why,")?;
                if !matches!(computed(&message), Computed::No) {
                    self.error(node.place, "the message of `fail` cannot be computed", Some("write it as plain text".to_owned()));
                }
                Some(Body::plain(StepKind::Fail { message }))
            }
            _ => {
                let node = fields.get("succeed")?;
                if !matches!(node.value, Yaml::Null | Yaml::Bool(true)) {
                    self.error(node.place, "`succeed` takes nothing but `true`", None);
                }
                Some(Body::plain(StepKind::Succeed))
            }
        }
    }

    fn plugged(&mut self, fields: &Fields<'a>, word: &str, kind: impl FnOnce(String, Template) -> StepKind) -> Option<Body<'a>> {
        let (with, with_node) = self.with(fields, Within::Step);
        let (plugin, name) = self.plugin(fields, word, "the plug-in")?;
        Some(Body { kind: kind(plugin, with), plugin: Some(PluginPlaces { name, with: with_node }), of: None })
    }

    fn wait(&mut self, fields: &Fields<'a>) -> Option<Wait> {
        let node = fields.get("wait")?;
        if let Some(text) = node.text() {
            let key = if parse_duration(text).is_ok() { "for" } else { "until" };
            self.error(
                node.place,
                "`wait` must say whether for how long or until when",
                Some(format!("write `wait: {{ {key}: {text} }}`")),
            );
            return None;
        }
        let wait = self.fields(node, fields.key_place("wait"), "`wait`", &["for", "until"])?;
        match (wait.get("for"), wait.get("until")) {
            (Some(node), None) => {
                let duration = |text: &str| parse_duration(text).err().map(|error| error.message().to_owned());
                self.wait_value(node, "`for`", duration).map(Wait::For)
            }
            (None, Some(node)) => {
                let instant = |text: &str| {
                    text.parse::<jiff::Timestamp>().err().map(|_| format!("`{text}` is not an instant such as 2024-03-04T14:30:00Z"))
                };
                self.wait_value(node, "`until`", instant).map(Wait::Until)
            }
            (Some(_), Some(_)) => {
                self.error(wait.key_place("until"), "a step waits either `for` or `until`", Some("make it two steps".to_owned()));
                None
            }
            (None, None) => {
                self.error(wait.place, "`wait` says neither `for` how long nor `until` when", Some("e.g. `wait: { for: 90s }`".to_owned()));
                None
            }
        }
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

    fn tolerate(&mut self, fields: &Fields<'a>) -> Tolerance {
        let nothing = Tolerance::Count(0);
        let Some(node) = fields.get("tolerate") else { return nothing };
        let Some(inner) = self.fields(node, fields.key_place("tolerate"), "`tolerate`", &["failed"]) else { return nothing };
        let Some(node) = self.required(&inner, "failed", "e.g. `tolerate: { failed: 5% }`") else { return nothing };
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
                "`failed` is a number of units, or a share of them",
                Some("e.g. `failed: 3` or `failed: 5%`".to_owned()),
            );
        }
        read.unwrap_or(nothing)
    }
}

/// Keys that some step takes, or that a step of another kind of workflow does.
const OTHER_KEYS: [&str; 7] = ["of", "with", "concurrency", "rate_limit", "tolerate", "after", "run_if"];
