//! `map`: the same steps, or another workflow, for each item of a list.

use super::step::{Body, DEFAULT_CONCURRENCY, MAX_CONCURRENCY};
use super::{Computed, Fields, MAX_NAME, PluginPlaces, Reader, Within, computed, one_of, quoted};
use crate::workflow::check::is_taken;
use crate::workflow::{MAP_INDEX, MapOver, MapStep, StepKind, Template};
use crate::yaml::tree::{Key, Node, Place, Yaml};

/// What a map step takes.
pub(super) const KEYS: [&str; 9] = ["as", "concurrency", "tolerate", "kind", "max_parallel", "start", "steps", "workflow", "with"];
/// What only steps within a map take.
const OF_STEPS: [&str; 4] = ["kind", "max_parallel", "start", "steps"];
/// The variable that holds the item, unless the step says.
const DEFAULT_ITEM: &str = "item";
/// The parts of a workflow that the steps within a map have, too.
const INHERITED: [&str; 8] = ["include", "params", "tags", "budget", "prices", "tables", "sources", "calendars"];

impl<'a> Reader<'a> {
    pub(super) fn map(&mut self, fields: &Fields<'a>, step: &Key) -> Option<Body<'a>> {
        let node = fields.get("map")?;
        let inner = self.fields(node, fields.key_place("map"), "`map`", &["over"])?;
        let over = self.required(&inner, "over", "write a list, e.g. `map: { over: \"{% $params.desks %}\" }`");
        let over = over.and_then(|node| self.over(node));
        let item = self.item_name(fields);
        let concurrency = self.count(fields, "concurrency", 1..=MAX_CONCURRENCY).unwrap_or(DEFAULT_CONCURRENCY);
        let tolerate = self.tolerate(fields);
        let (workflow, name, with, places) = match (fields.get("steps"), fields.get("workflow")) {
            (Some(_), None) => (self.steps_within(fields, step, item.as_deref())?, None, Template::Value(serde_json::json!({})), None),
            (None, Some(node)) => {
                let (workflow, name, with, places) = self.workflow_of_items(fields, node, item.as_deref())?;
                (workflow, Some(name), with, Some(places))
            }
            (Some(_), Some(_)) => {
                let help = "keep `steps`, or run another file with `workflow`";
                self.error(fields.key_place("workflow"), "a map cannot have both `steps` and `workflow`", Some(help.to_owned()));
                return None;
            }
            (None, None) => {
                let help = "add `start` and `steps`, as in a workflow, or `workflow: other.yaml`";
                self.error(fields.key_place("map"), "`map` does not say what runs for each item", Some(help.to_owned()));
                return None;
            }
        };
        let (over, mut plugins) = over?;
        plugins.extend(places);
        let map = MapStep { over, item: item?, workflow, name, with, concurrency, tolerate };
        Some(Body { plugins, ..Body::plain(StepKind::Map(Box::new(map))) })
    }

    /// Reads the list: written out, computed, or the rows of a query.
    fn over(&mut self, node: &'a Node) -> Option<(MapOver, Vec<PluginPlaces<'a>>)> {
        match &node.value {
            Yaml::List(items) => {
                if items.len() > MapStep::MAX_ITEMS {
                    let most = MapStep::MAX_ITEMS;
                    self.error(node.place, format!("`over` has {} items; at most {most} are allowed", items.len()), None);
                }
                Some((MapOver::Items(self.template(node, Within::Step)), Vec::new()))
            }
            Yaml::Text(text) if !matches!(computed(text), Computed::No) => {
                Some((MapOver::Items(self.template(node, Within::Step)), Vec::new()))
            }
            Yaml::Map(_) => {
                let fields = self.fields(node, node.place, "`over`", &["rows", "values"])?;
                let rows = self.required(&fields, "rows", "write a query, e.g. `over: { rows: \"SELECT DISTINCT symbol FROM bars\" }`")?;
                let mut said = vec![("query", rows)];
                said.extend(fields.get("values").map(|values| ("values", values)));
                let mut entries: Vec<(String, Template)> =
                    said.iter().map(|(key, node)| ((*key).to_owned(), self.template_of(node, Within::Step, super::MAX_QUERY))).collect();
                entries.push(("list".to_owned(), Template::Value(MapStep::MAX_ITEMS.into())));
                let with = if entries.iter().all(|(_, value)| super::is_value(value)) {
                    let plain = entries.into_iter().filter_map(|(key, value)| match value {
                        Template::Value(value) => Some((key, value)),
                        _ => None,
                    });
                    Template::Value(serde_json::Value::Object(plain.collect()))
                } else {
                    Template::Map(entries)
                };
                Some((MapOver::Rows(with), vec![PluginPlaces { name: rows.place, with: None, said }]))
            }
            _ => {
                let help = "write the items, compute them, e.g. `\"{% $params.desks %}\"`, or ask for them: `{ rows: \"SELECT …\" }`";
                self.error(node.place, format!("`over` must be a list, not {}", node.describe()), Some(help.to_owned()));
                None
            }
        }
    }

    /// The variable of the item. It must be one in expressions, and mean nothing else there.
    fn item_name(&mut self, fields: &Fields<'a>) -> Option<String> {
        let given = fields.get("as");
        let (name, place) = match given {
            Some(node) => (self.text(node, "`as`")?, node.place),
            None => (DEFAULT_ITEM.to_owned(), fields.key_place("map")),
        };
        let mut characters = name.chars();
        let fits = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.len() <= MAX_NAME;
        if !fits {
            let help = "begin with a letter or `_`, and use only letters, digits and `_`: expressions name it as a variable";
            self.error(place, format!("{} cannot be the name of an item", quoted(&name)), Some(help.to_owned()));
            return None;
        }
        if name == MAP_INDEX || is_taken(&name) {
            self.error(place, format!("`${name}` means something else in expressions"), Some("give the item another name".to_owned()));
            return None;
        }
        if self.items.contains_key(&name) {
            let help = "give the item of one of them another name, e.g. `as: desk`";
            self.error(place, format!("the item of a map around this one is called {}, too", quoted(&name)), Some(help.to_owned()));
            return None;
        }
        Some(name)
    }

    /// Reads the steps within a map as a workflow of their own, with what this one defines.
    fn steps_within(&mut self, fields: &Fields<'a>, step: &Key, item: Option<&str>) -> Option<std::sync::Arc<crate::workflow::Workflow>> {
        if fields.get("with").is_some() {
            let help = "remove it; the steps have the parameters of this workflow, and the item";
            self.error(fields.key_place("with"), "the steps within a map take no `with`", Some(help.to_owned()));
        }
        let root = self.root?;
        let at = |name: &str, value: Yaml, place: Place| (Key { name: name.to_owned(), place }, Node { value, place });
        let name: String = match root.get("workflow").and_then(Node::text) {
            Some(workflow) => format!("{workflow}-{}", step.name).chars().take(MAX_NAME).collect(),
            None => step.name.clone(),
        };
        let mut entries = vec![at("workflow", Yaml::Text(name), step.place)];
        if fields.get("kind").is_none() {
            entries.push(at("kind", Yaml::Text("state-machine".to_owned()), fields.key_place("map")));
        }
        entries.extend(INHERITED.into_iter().filter_map(|name| root.entry(name).cloned()));
        entries.extend(OF_STEPS.into_iter().filter_map(|name| fields.node.entry(name).cloned()));
        let place = fields.key_place("map");
        let mut items = self.items.clone();
        // Without a name of its own, which is reported, the item still is no second mistake.
        items.extend([item.unwrap_or(DEFAULT_ITEM), MAP_INDEX].map(|name| (name.to_owned(), serde_json::Value::Null)));
        let diagnostics = std::mem::replace(&mut self.diagnostics, crate::yaml::Diagnostics::new("", ""));
        let (workflow, diagnostics) = (self.within)(&step.name, &Node { value: Yaml::Map(entries), place }, &items, diagnostics);
        self.diagnostics = diagnostics;
        workflow
    }

    /// Reads another workflow that runs for each item, and the values of its parameters.
    fn workflow_of_items(
        &mut self,
        fields: &Fields<'a>,
        node: &'a Node,
        item: Option<&str>,
    ) -> Option<(std::sync::Arc<crate::workflow::Workflow>, String, Template, PluginPlaces<'a>)> {
        for name in OF_STEPS.into_iter().filter(|name| fields.get(name).is_some()) {
            self.error(fields.key_place(name), format!("a map with a `workflow` takes no `{name}`"), Some(one_of(["with"].into_iter())));
        }
        let name = self.text(node, "`workflow`")?;
        self.item = Some(item.unwrap_or(DEFAULT_ITEM).to_owned());
        let (with, with_node) = self.with(fields, Within::Step);
        self.item = None;
        match (self.child)(&name) {
            Ok(workflow) => {
                let places = PluginPlaces { name: node.place, with: with_node, said: Vec::new() };
                Some((workflow, name, with, places))
            }
            Err(why) => {
                self.error(node.place, why, Some(format!("validate {} on its own to see all its mistakes", quoted(&name))));
                None
            }
        }
    }
}
