//! `params` and `tags`.

use std::collections::BTreeMap;

use super::{Fields, MAX_ENTRIES, Reader};
use crate::workflow::{Param, ParamType};
use crate::yaml::tree::{Node, Yaml};

/// How many tags one workflow or strategy may have, as AWS allows on a resource.
const MAX_TAGS: usize = 50;
/// How many characters the value of a tag may have, as AWS allows.
const MAX_TAG_VALUE: usize = 256;

impl<'a> Reader<'a> {
    pub(super) fn params(&mut self, fields: &Fields<'a>) -> BTreeMap<String, Param> {
        let mut params = BTreeMap::new();
        for (key, node) in self.section(fields, "params", MAX_ENTRIES) {
            let what = format!("parameter `{}`", key.name);
            let Some(fields) = self.fields(node, key.place, &what, &["type", "default", "about", "one_of", "zone"]) else { continue };
            let types = ParamType::ALL.map(|kind| (kind.as_str(), kind));
            let Some(kind) = self.required(&fields, "type", "e.g. `type: string`") else { continue };
            let Some(kind) = self.word(kind, "`type`", &types) else { continue };
            let about = fields.get("about").and_then(|node| self.text(node, "`about`"));
            let zone = fields.get("zone").and_then(|node| self.parsed(node, "`zone`"));
            if zone.is_some() && !matches!(kind, ParamType::Date | ParamType::Instant) {
                let help = "remove it; it is the zone of dates and instants that are relative to now, such as `yesterday`".to_owned();
                self.error(fields.key_place("zone"), format!("a {} has no `zone`", kind.as_str()), Some(help));
            }
            let mut param = Param { kind, default: None, about, one_of: Vec::new(), zone };
            param.one_of = self.allowed(&fields, kind);
            if let Some(node) = fields.get("default") {
                match param.accept(&node.to_json()) {
                    Ok(value) => param.default = Some(value),
                    Err(why) => self.error(node.place, format!("`default` of {what}: {why}"), quote_hint(node, kind)),
                }
            }
            params.insert(key.name.clone(), param);
        }
        params
    }

    fn allowed(&mut self, fields: &Fields<'a>, kind: ParamType) -> Vec<serde_json::Value> {
        let Some(node) = fields.get("one_of") else { return Vec::new() };
        let items = self.list(node, "`one_of`").unwrap_or_default();
        if items.is_empty() {
            self.error(node.place, "`one_of` is empty", Some("list the values allowed, or remove it".to_owned()));
        }
        // For a list, `one_of` limits its items.
        let kind = if kind == ParamType::List { ParamType::String } else { kind };
        let mut allowed = Vec::with_capacity(items.len());
        for item in items {
            let relative = |value: &serde_json::Value| Param::new(kind).is_relative(value);
            match kind.check(&item.to_json()) {
                Ok(value) if relative(&value) => {
                    self.error(item.place, "`one_of` takes no values that are relative to now", Some(format!("write {}", kind.example())));
                }
                Ok(value) => allowed.push(value),
                Err(why) => self.error(item.place, format!("`one_of`: {why}"), quote_hint(item, kind)),
            }
        }
        allowed
    }

    pub(super) fn tags(&mut self, fields: &Fields<'a>) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::new();
        for (key, node) in self.section(fields, "tags", MAX_TAGS) {
            let value = match &node.value {
                Yaml::Text(text) => text.clone(),
                Yaml::Number(number) => number.to_string(),
                Yaml::Bool(value) => value.to_string(),
                _ => {
                    self.error(node.place, format!("a tag must be text, not {}", node.describe()), None);
                    continue;
                }
            };
            if value.chars().count() > MAX_TAG_VALUE {
                self.error(node.place, format!("a tag may have at most {MAX_TAG_VALUE} characters"), None);
            }
            tags.insert(key.name.clone(), value);
        }
        tags
    }
}

fn quote_hint(node: &Node, kind: ParamType) -> Option<String> {
    let unquoted = matches!(node.value, Yaml::Bool(_) | Yaml::Number(_));
    (kind == ParamType::String && unquoted).then(|| "put it in quotes".to_owned())
}
