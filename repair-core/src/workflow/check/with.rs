//! Checks that plug-ins exist and accept their `with`. Values that are computed during a run are checked with example parameters where
//! possible, and not at all otherwise.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::read::{Computed, PluginPlaces, article, computed, did_you_mean, one_of, quoted};
use super::Checker;
use crate::plugin::{ConfigError, PluginKind, Registry};
use crate::plugin::{OWN_HELP, OWN_PREFIX, PathSegment, PluginEntry};
use crate::workflow::{Param, ParamType, StepKind, Template, Variables};
use crate::yaml::tree::{Key, Node, Place, Yaml};

/// The now of examples.
const EXAMPLE_NOW: Timestamp = Timestamp::constant(1_709_562_600, 0);
/// How deep schemas may refer to other schemas. Those of plug-ins nest a few levels.
const MAX_SCHEMA_DEPTH: usize = 16;

impl<'a> Checker<'a> {
    pub(super) fn plugins(&mut self) {
        let draft: &'a _ = self.draft;
        let examples = examples(draft.workflow.params.iter());
        for (step, places) in draft.workflow.steps.iter().zip(&draft.steps) {
            if let (StepKind::Workflow { workflow, with, .. }, [places]) = (&step.kind, places.plugins.as_slice()) {
                self.params(&workflow.params, with, places);
            }
            if let (StepKind::Map(map), Some(places)) = (&step.kind, places.plugins.last())
                && map.name.is_some()
            {
                self.params(&map.workflow.params, &map.with, places);
            }
            for ((kind, plugin, with), places) in step.kind.plugins().into_iter().zip(&places.plugins) {
                self.plugin(kind, plugin, with, places, &examples);
            }
        }
        for (name, places) in &draft.sources {
            if let Some(source) = draft.workflow.sources.get(name) {
                self.plugin(PluginKind::Source, &source.plugin, &source.with, places, &examples);
            }
        }
    }

    fn plugin(&mut self, kind: PluginKind, name: &str, with: &Template, places: &PluginPlaces<'_>, examples: &Variables) {
        let registry: &'a Registry = self.registry;
        let Some(entry) = registry.get(kind, name) else { return self.no_plugin(kind, name, places.name) };
        let said = places.said.iter().map(|(key, node)| (Key { name: (*key).to_owned(), place: node.place }, (*node).clone()));
        let short = Node { value: Yaml::Map(said.collect()), place: places.name };
        let node = places.with.unwrap_or(&short);
        let before = self.diagnostics.len();
        self.fits(node, entry.schema(), entry.schema(), places.name, &format!("the `with` of `{name}`"), MAX_SCHEMA_DEPTH);
        // If the schema found mistakes, making the plug-in would only find them again.
        let known = self.draft.param_names.is_some() || matches!(with, Template::Value(_));
        if self.diagnostics.len() == before
            && known
            && let Ok(config) = with.resolve(examples)
            && let Err(error) = entry.make(&config)
        {
            self.refused(entry, &error, node);
        }
    }

    /// Checks that a workflow that runs as a step gets the parameters that it takes.
    fn params(&mut self, params: &BTreeMap<String, Param>, with: &Template, places: &PluginPlaces<'_>) {
        let given = match places.with.map(|node| &node.value) {
            Some(Yaml::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        let known = || params.keys().map(String::as_str);
        for (key, node) in given {
            match params.get(&key.name) {
                None => {
                    let help = did_you_mean(&key.name, known()).unwrap_or_else(|| one_of(known()));
                    self.error(key.place, format!("the workflow has no parameter {}", quoted(&key.name)), help);
                }
                Some(param) if !is_computed(node) => {
                    if let Err(why) = param.accept(&node.to_json()) {
                        self.error(node.place, format!("parameter `{}`: {why}", key.name), None);
                    }
                }
                Some(_) => {}
            }
        }
        let whole = !matches!(with, Template::Computed(_));
        for (name, param) in
            params.iter().filter(|(name, param)| whole && param.default.is_none() && !given.iter().any(|(key, _)| key.name == **name))
        {
            self.error(
                places.name,
                format!("the workflow needs parameter `{name}`"),
                Some(format!("add it to `with`: {}", param.kind.form())),
            );
        }
    }

    fn no_plugin(&mut self, kind: PluginKind, name: &str, place: Place) {
        let names = || self.registry.entries().filter(|entry| entry.kind == kind).map(|entry| entry.name.as_str());
        let elsewhere = self.registry.entries().find(|entry| entry.name == name);
        let (message, help) = match elsewhere {
            Some(entry) => {
                let (is, wanted) = (entry.kind.as_str(), kind.as_str());
                (format!("`{name}` is {} {is}, not {} {wanted}", article(is), article(wanted)), one_of(names()))
            }
            None if name.starts_with(OWN_PREFIX) => {
                (format!("there is no {} {} in this program", kind.as_str(), quoted(name)), OWN_HELP.to_owned())
            }
            None => {
                let help = did_you_mean(name, names()).unwrap_or_else(|| one_of(names()));
                (format!("there is no {} {}", kind.as_str(), quoted(name)), help)
            }
        };
        self.error(place, message, help);
    }

    /// Reports an error of the plug-in itself, unless it concerns a value that is only known during a run.
    fn refused(&mut self, entry: &PluginEntry, error: &ConfigError, with: &Node) {
        let mut node = with;
        for segment in &error.path {
            let inner = match (segment, &node.value) {
                (PathSegment::Key(key), _) => node.get(key),
                (PathSegment::Index(index), Yaml::List(items)) => items.get(*index),
                _ => None,
            };
            match inner {
                Some(inner) => node = inner,
                None => break,
            }
        }
        if !is_computed(node) {
            self.error(node.place, format!("`{}` refuses this configuration: {}", entry.name, error.message), None);
        }
    }

    /// Checks the keys, types and words of a value against a JSON Schema, as `schemars` writes it for plain structures.
    fn fits(&mut self, node: &Node, schema: &Value, root: &Value, place: Place, what: &str, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        let schema = alternative(resolved(schema, root), root, node);
        if node.text().is_some_and(|text| !matches!(computed(text), Computed::No)) {
            return;
        }
        if let Some(names) = schema.get("x-names").and_then(Value::as_str)
            && let Some(name) = node.text()
        {
            self.names_something(names, name, node.place);
        }
        let words = words(schema);
        if let (Some(text), false) = (node.text(), words.is_empty()) {
            if !words.contains(&text) {
                let help = did_you_mean(text, words.iter().copied()).unwrap_or_else(|| one_of(words.iter().copied()));
                self.error(node.place, format!("{what} cannot be {}", quoted(text)), help);
            }
            return;
        }
        if !of_type(node, schema) {
            let message = format!("{what} must be {}, not {}", wanted(schema), node.describe());
            self.error(node.place, message, None);
            return;
        }
        match &node.value {
            Yaml::List(items) => {
                if let Some(inner) = schema.get("items") {
                    for item in items {
                        self.fits(item, inner, root, item.place, &format!("an entry of {what}"), depth);
                    }
                }
            }
            Yaml::Map(entries) => {
                let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                    if schema.get("additionalProperties") == Some(&json!(false)) {
                        for (key, _) in entries {
                            self.error(key.place, format!("unknown key {} in {what}, which takes none", quoted(&key.name)), None);
                        }
                    }
                    return;
                };
                let known = || properties.keys().map(String::as_str);
                let mut taken = Vec::new();
                for (key, value) in entries {
                    match properties.get(&key.name) {
                        Some(inner) => self.fits(value, inner, root, key.place, &quoted(&key.name), depth),
                        None if schema.get("additionalProperties") == Some(&json!(false)) => {
                            let meant = did_you_mean(&key.name, known());
                            taken.extend(known().filter(|known| meant.as_ref().is_some_and(|meant| meant.contains(&format!("`{known}`")))));
                            self.error(
                                key.place,
                                format!("unknown key {} in {what}", quoted(&key.name)),
                                meant.unwrap_or_else(|| one_of(known())),
                            );
                        }
                        None => {}
                    }
                }
                let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
                for name in required.filter(|name| node.get(name).is_none() && !taken.contains(name)) {
                    let about = properties.get(name).and_then(|inner| inner.get("description")).and_then(Value::as_str).map(str::to_owned);
                    self.error(place, format!("{what} has no `{name}`"), about);
                }
            }
            _ => {}
        }
    }

    /// Checks a value that names something of the workflow, as its schema says (`x-names: table | source | calendar | lake`).
    pub(super) fn names_something(&mut self, what: &str, name: &str, place: Place) {
        let known: Vec<&str> = match what {
            // What is missing may be in an included file that could not be read.
            "table" | "source" | "calendar" | "lake" if !self.draft.complete => return,
            "table" => {
                if let Some((profile, _)) = self.draft.lake_places.get(name) {
                    let message =
                        format!("table {} is in the lake of profile {}, and only queries of sources see it", quoted(name), quoted(profile));
                    let help = format!(
                        "ask it by `source: sql, with: {{ lake: {profile}, query: … }}`; to work on it, run a workflow on that profile"
                    );
                    return self.error(place, message, help);
                }
                self.draft.table_names.clone()
            }
            "lake" => {
                let elsewhere = &self.draft.workflow.elsewhere;
                if !elsewhere.contains_key(name) {
                    let help = if elsewhere.is_empty() {
                        format!("say of each table that the query reads that it is there: `lake: {name}`, under `tables`")
                    } else {
                        let known = || elsewhere.keys().map(String::as_str);
                        did_you_mean(name, known()).unwrap_or_else(|| one_of(known()))
                    };
                    self.error(place, format!("no table is in a lake {}", quoted(name)), help);
                }
                return;
            }
            "source" => self.draft.source_names.clone(),
            "calendar" => {
                let built_in = self.registry.calendars().keys().map(String::as_str);
                self.draft.calendar_names.iter().copied().chain(built_in).collect()
            }
            _ => return,
        };
        if !known.contains(&name) {
            let help = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| one_of(known.iter().copied()));
            self.error(place, format!("there is no {what} {}", quoted(name)), help);
        }
    }
}

fn is_computed(node: &Node) -> bool {
    match &node.value {
        Yaml::Text(text) => !matches!(computed(text), Computed::No),
        Yaml::List(items) => items.iter().any(is_computed),
        Yaml::Map(entries) => entries.iter().any(|(_, value)| is_computed(value)),
        _ => false,
    }
}

/// The schema with references followed. For an optional value (`anyOf` with `null`), the other alternative.
fn resolved<'s>(mut schema: &'s Value, root: &'s Value) -> &'s Value {
    for _ in 0..MAX_SCHEMA_DEPTH {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            match reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
                Some(inner) => schema = inner,
                None => return &Value::Null,
            }
            continue;
        }
        let alternatives = schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice);
        match alternatives {
            Some([inner, null]) if null.get("type") == Some(&json!("null")) => schema = inner,
            _ => return schema,
        }
    }
    &Value::Null
}

/// Of several alternatives, the one that a mapping is meant to be: one whose required keys it has, or else the last. Of other values nothing is
/// known then, and what takes them says what is wrong.
fn alternative<'s>(schema: &'s Value, root: &'s Value, node: &Node) -> &'s Value {
    let alternatives = schema.get("anyOf").and_then(Value::as_array).filter(|_| matches!(node.value, Yaml::Map(_)));
    let Some(all) = alternatives else { return schema };
    let mappings: Vec<&Value> = all.iter().map(|one| resolved(one, root)).filter(|one| types(one) == ["object"]).collect();
    let has_required = |one: &&&Value| {
        let mut required = one.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        required.all(|name| node.get(name).is_some())
    };
    mappings.iter().find(has_required).or(mappings.last()).copied().unwrap_or(schema)
}

/// The texts that the schema allows, if it lists them.
fn words(schema: &Value) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let alternatives =
        schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().map(|one| one.get("const").and_then(Value::as_str));
    // An alternative that is not a constant accepts more than fixed words.
    let alternatives: Option<Vec<&str>> = alternatives.collect();
    listed.chain(alternatives.unwrap_or_default()).collect()
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn of_type(node: &Node, schema: &Value) -> bool {
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|&name| match &node.value {
            Yaml::Null => name == "null",
            Yaml::Bool(_) => name == "boolean",
            Yaml::Number(number) => name == "number" || name == "integer" && (number.is_i64() || number.is_u64()),
            Yaml::Text(_) => name == "string",
            Yaml::List(_) => name == "array",
            Yaml::Map(_) => name == "object",
        })
}

fn wanted(schema: &Value) -> String {
    let words = types(schema).into_iter().filter(|&name| name != "null").map(|name| match name {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "array" => "a list",
        "object" => "a mapping",
        _ => "text (put it in quotes)",
    });
    words.collect::<Vec<_>>().join(" or ")
}

/// Example values of all parameters: their defaults, or else an example of their type.
fn examples<'p>(params: impl Iterator<Item = (&'p String, &'p Param)>) -> Variables {
    let example = |param: &Param| {
        let one = param.one_of.first().cloned();
        match param.kind {
            ParamType::String => one.unwrap_or_else(|| json!("example")),
            ParamType::Integer => one.unwrap_or_else(|| json!(1)),
            ParamType::Number => one.unwrap_or_else(|| json!(0.5)),
            ParamType::Boolean => json!(true),
            ParamType::Date => one.unwrap_or_else(|| json!("2024-03-04")),
            ParamType::Instant => one.unwrap_or_else(|| json!("2024-03-04T14:30:00Z")),
            ParamType::Duration => one.unwrap_or_else(|| json!("90s")),
            ParamType::List => json!([one.unwrap_or_else(|| json!("example"))]),
        }
    };
    // What a relative default will be is not known yet.
    let default = |param: &Param| param.default.clone().filter(|value| !param.is_relative(value));
    let params: BTreeMap<String, Value> =
        params.map(|(name, param)| (name.clone(), default(param).unwrap_or_else(|| example(param)))).collect();
    Variables::at_start(&params, EXAMPLE_NOW, EXAMPLE_NOW)
}
