//! Single values: texts, names, numbers, durations, rates.

use std::time::Duration;

use super::{Fields, MAX_NAME, MAX_TEXT, Reader, did_you_mean, one_of, quoted};
use crate::workflow::Rate;
use crate::workflow::{parse_duration, parse_rate};
use crate::yaml::tree::{Node, Place, Yaml};

impl<'a> Reader<'a> {
    /// Reads a text that is not empty.
    pub(super) fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Yaml::Text(text) if text.trim().is_empty() => self.error(node.place, format!("{what} is empty"), None),
            Yaml::Text(text) if text.len() > MAX_TEXT => {
                self.error(node.place, format!("{what} has {} bytes; at most {MAX_TEXT} are allowed", text.len()), None);
            }
            Yaml::Text(text) => return Some(text.clone()),
            Yaml::Bool(_) | Yaml::Number(_) => {
                self.error(node.place, format!("{what} must be text, not {}", node.describe()), Some("put it in quotes".to_owned()));
            }
            _ => self.error(node.place, format!("{what} must be text, not {}", node.describe()), None),
        }
        None
    }

    /// Reads a name that the user chose.
    pub(super) fn name(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        self.is_name(&text, node.place, what).then_some(text)
    }

    pub(super) fn is_name(&mut self, name: &str, place: Place, what: &str) -> bool {
        let mut characters = name.chars();
        let fits = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !fits {
            let help = "begin with a letter or `_`, and use only letters, digits, `_` and `-`";
            self.error(place, format!("{} cannot be {what}", quoted(name)), Some(help.to_owned()));
        } else if name.len() > MAX_NAME {
            self.error(place, format!("{} is too long for {what}; at most {MAX_NAME} characters are allowed", quoted(name)), None);
        }
        fits && name.len() <= MAX_NAME
    }

    /// Reads one of some known words.
    pub(super) fn word<T>(&mut self, node: &Node, what: &str, known: &[(&str, T)]) -> Option<T>
    where
        T: Clone,
    {
        let text = self.text(node, what)?;
        let found = known.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
        if found.is_none() {
            let words = || known.iter().map(|(word, _)| *word);
            let help = did_you_mean(&text, words()).unwrap_or_else(|| one_of(words()));
            self.error(node.place, format!("{what} cannot be {}", quoted(&text)), Some(help));
        }
        found
    }

    /// Reads a whole number within bounds; `None` if it is not given or is wrong.
    pub(super) fn count(&mut self, fields: &Fields<'a>, name: &str, bounds: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let node = fields.get(name)?;
        let value = match &node.value {
            Yaml::Number(number) => number.as_u64().and_then(|value| u32::try_from(value).ok()).filter(|value| bounds.contains(value)),
            _ => None,
        };
        if value.is_none() {
            self.error(node.place, format!("`{name}` must be a whole number from {} to {}", bounds.start(), bounds.end()), None);
        }
        value
    }

    /// Reads a duration; `None` if it is not given or is wrong.
    pub(super) fn duration(&mut self, fields: &Fields<'a>, name: &str) -> Option<Duration> {
        let node = fields.get(name)?;
        if let Yaml::Number(number) = &node.value {
            self.error(node.place, format!("`{name}` has no unit"), Some(format!("did you mean `{number}s`?")));
            return None;
        }
        let text = self.text(node, &format!("`{name}`"))?;
        parse_duration(&text).map_err(|error| self.error(node.place, error.message(), None)).ok()
    }

    pub(super) fn rate(&mut self, fields: &Fields<'a>) -> Option<Rate> {
        let node = fields.get("rate_limit")?;
        if matches!(node.value, Yaml::Number(_)) {
            self.error(node.place, "`rate_limit` has no unit of time", Some("write e.g. `200/min`".to_owned()));
            return None;
        }
        let text = self.text(node, "`rate_limit`")?;
        parse_rate(&text).map_err(|error| self.error(node.place, error.message(), None)).ok()
    }

    /// Reads a list of texts; a single text is a list of one.
    pub(super) fn texts(&mut self, node: &'a Node, what: &str) -> Vec<(String, Place)> {
        if matches!(node.value, Yaml::Text(_)) {
            return self.text(node, what).map(|text| (text, node.place)).into_iter().collect();
        }
        let items = self.list(node, what).unwrap_or_default();
        items.iter().filter_map(|item| self.text(item, &format!("an entry of {what}")).map(|text| (text, item.place))).collect()
    }
}
