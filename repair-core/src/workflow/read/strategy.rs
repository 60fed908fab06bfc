//! `repair`: one strategy, or a list of strategies, each of which gets what the one before could not fix.

use super::step::{Body, DEFAULT_CONCURRENCY, MAX_CONCURRENCY};
use super::{Fields, PluginPlaces, Reader, Within, quoted};
use crate::workflow::{StepKind, Strategy};
use crate::yaml::tree::{Node, Place, Yaml};

/// How many strategies one step may have. After each, the step checks again what is still missing.
pub(crate) const MAX_STRATEGIES: usize = 20;

/// The most runs that may ask for a slot in vain before it is given up. One that asks more often means to never give up.
pub(crate) const MAX_RUNS_IN_VAIN: u32 = 10_000;

impl<'a> Reader<'a> {
    pub(super) fn repair(&mut self, fields: &Fields<'a>) -> Option<Body<'a>> {
        let of = self.required(fields, "of", "name the detect step whose findings it repairs, e.g. `of: find_gaps`");
        let of = of.and_then(|node| self.text(node, "`of`").map(|of| (of, node.place)));
        let concurrency = self.count(fields, "concurrency", 1..=MAX_CONCURRENCY).unwrap_or(DEFAULT_CONCURRENCY);
        let (rate_limit, tolerate, budget) = (self.rate(fields), self.tolerate(fields), self.budget(fields));
        let give_up_after = self.count(fields, "give_up_after", 1..=MAX_RUNS_IN_VAIN);
        let node = self.required(fields, "repair", "name the plug-in, or list strategies")?;
        let read = match &node.value {
            Yaml::List(items) => self.strategies(fields, node.place, items),
            _ => self.only_strategy(fields).map(|only| vec![only]),
        };
        let (strategies, plugins) = read?.into_iter().unzip();
        let (of, place) = of?;
        let kind = StepKind::Repair { strategies, of, concurrency, rate_limit, tolerate, budget, give_up_after };
        Some(Body { plugins, of: Some(place), ..Body::plain(kind) })
    }

    fn only_strategy(&mut self, fields: &Fields<'a>) -> Option<(Strategy, PluginPlaces<'a>)> {
        let (with, with_node) = self.with(fields, Within::Step);
        let tags = self.tags(fields);
        let (plugin, name) = self.plugin(fields, "repair", "name the plug-in")?;
        let strategy = Strategy { name: plugin.clone(), plugin, with, retry: None, budget: None, tags };
        Some((strategy, PluginPlaces { name, with: with_node, said: Vec::new() }))
    }

    fn strategies(&mut self, step: &Fields<'a>, place: Place, items: &'a [Node]) -> Option<Vec<(Strategy, PluginPlaces<'a>)>> {
        for name in ["with", "tags"] {
            if step.get(name).is_some() {
                let help = format!("move it into the entries of the list: each strategy has its own `{name}`");
                self.error(step.key_place(name), format!("a step with a list of strategies takes no `{name}`"), Some(help));
            }
        }
        if items.is_empty() || items.len() > MAX_STRATEGIES {
            let help = "write entries such as `- { strategy: backfill, with: { source: market } }`";
            self.error(place, format!("`repair` must list 1 to {MAX_STRATEGIES} strategies, not {}", items.len()), Some(help.to_owned()));
            return None;
        }
        let mut read: Vec<(Strategy, PluginPlaces<'a>)> = Vec::with_capacity(items.len());
        for item in items {
            let Some(one) = self.strategy(item) else { continue };
            if read.iter().any(|(before, _)| before.name == one.0.name) {
                let help = "give one of them another `name`; every row that a strategy repairs records its name";
                self.error(item.place, format!("there is another strategy {} in this step", quoted(&one.0.name)), Some(help.to_owned()));
            }
            read.push(one);
        }
        (read.len() == items.len()).then_some(read)
    }

    fn strategy(&mut self, item: &'a Node) -> Option<(Strategy, PluginPlaces<'a>)> {
        if let Some(text) = item.text() {
            let help = format!("write `- {{ strategy: {text} }}`");
            self.error(item.place, "an entry of `repair` must be a mapping, not text", Some(help));
            return None;
        }
        let fields = self.fields(item, item.place, "a strategy", &["strategy", "name", "with", "retry", "budget", "tags"])?;
        let (with, with_node) = self.with(&fields, Within::Step);
        let retry = fields.get("retry").is_some().then(|| self.retry(&fields));
        let (budget, mut tags) = (self.budget(&fields), self.tags(&fields));
        let name = fields.get("name").map(|node| self.text(node, "`name`").filter(|name| self.is_name(name, node.place, "a strategy")));
        let (plugin, place) = self.plugin(&fields, "strategy", "name the plug-in, e.g. `strategy: backfill`")?;
        let name = match name {
            Some(name) => name?,
            None => plugin.clone(),
        };
        // The costs of strategies that compete in one step are kept apart, even if the workflow sets one `idea` for everything.
        tags.entry("idea".to_owned()).or_insert_with(|| name.clone());
        Some((Strategy { name, plugin, with, retry, budget, tags }, PluginPlaces { name: place, with: with_node, said: Vec::new() }))
    }
}
