//! Texts with places for values: arguments of programs and parts of requests, such as `{from}` or `{from:%Y-%m-%d}`. Pure.

use std::collections::BTreeMap;

use repair_core::yaml::closest;
use repair_core::{Error, Result};

/// An argument, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(String, Option<String>),
}

/// The values of one call, by name.
pub(crate) type Values = BTreeMap<&'static str, String>;

impl Argument {
    /// Parses an argument: `{name}` stands for a value, `{{` and `}}` for braces.
    ///
    /// # Errors
    /// `invalid` if a brace has no partner, or a name is not one of `names`.
    pub(crate) fn parse(text: &str, names: &[&str]) -> Result<Self> {
        Self::parsed(text, names, &[])
    }

    /// As [`Argument::parse`]; after those names that are also in `formatted`, and a colon, it may say how the value is written.
    pub(crate) fn parsed(text: &str, names: &[&str], formatted: &[&str]) -> Result<Self> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        let wrong = |what: &str| Error::invalid(format!("`{text}` {what}; write `{{{{` and `}}}}` for braces that stand for themselves"));
        while let Some(at) = rest.find(['{', '}']) {
            let (before, here) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = here.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = here.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some(after) = here.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or_else(|| wrong("has a `{` without its `}`"))?;
                let (name, form) = match name.split_once(':') {
                    Some((name, form)) if formatted.contains(&name) => (name, Some(form.to_owned())),
                    _ => (name, None),
                };
                if !names.contains(&name) {
                    let hint =
                        closest(name, names.iter().copied()).map(|close| format!("; did you mean `{{{close}}}`?")).unwrap_or_default();
                    let known: Vec<String> = names.iter().map(|name| format!("{{{name}}}")).collect();
                    return Err(wrong(&format!("names `{{{name}}}`, and there are {}{hint}", known.join(", "))));
                }
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Value(name.to_owned(), form));
                rest = after;
            } else {
                return Err(wrong("has a `}` without its `{`"));
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() || parts.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// The argument with its values.
    ///
    /// # Errors
    /// `invalid` if a value that comes from data could be taken for an option of the program.
    pub(crate) fn with(&self, values: &Values) -> Result<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value(name, _) => {
                    let value = values.get(name.as_str()).ok_or_else(|| Error::internal(format!("no value for `{{{name}}}`")))?;
                    if text.is_empty() && value.starts_with('-') {
                        return Err(Error::invalid(format!(
                            "`{{{name}}}` is {value}, which the program could take for an option; write it after a word, such as `--{name}={{{name}}}`"
                        )));
                    }
                    text.push_str(value);
                }
            }
        }
        if text.contains('\0') {
            return Err(Error::invalid("an argument holds a NUL, which no program can be given"));
        }
        Ok(text)
    }

    /// Whether a value of this name is a part of it.
    #[cfg(feature = "http")]
    pub(crate) fn uses(&self, name: &str) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Value(own, _) if own == name))
    }

    /// The text with values, each written as the text says.
    ///
    /// # Errors
    /// Those of the values.
    #[cfg(feature = "http")]
    pub(crate) fn filled(&self, value: &dyn Fn(&str, Option<&str>) -> Result<String>) -> Result<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value(name, form) => text.push_str(&value(name, form.as_deref())?),
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["from", "keys"];

    fn with(text: &str, values: &[(&'static str, &str)]) -> Result<String> {
        Argument::parse(text, &NAMES)?.with(&values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn values_stand_in_their_places_and_nothing_else_changes() {
        let values = [("from", "2024-03-04"), ("keys", "a b;$(rm)")];
        for (text, expected) in [
            ("", ""),
            ("plain $HOME `x` \\", "plain $HOME `x` \\"),
            ("--from={from}", "--from=2024-03-04"),
            ("{from}{keys}", "2024-03-04a b;$(rm)"),
            ("{{from}} {{{from}}}", "{from} {2024-03-04}"),
        ] {
            assert_eq!(with(text, &values).unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, what) in [("{form}", "did you mean `{from}`?"), ("{", "without its"), ("}", "without its"), ("{from", "without its")] {
            let error = Argument::parse(text, &NAMES).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(with("{keys}", &[("keys", "--help")]).unwrap_err().to_string().contains("an option"));
        assert_eq!(with("--key={keys}", &[("keys", "--help")]).unwrap(), "--key=--help");
        assert!(with("{keys}", &[("keys", "a\0b")]).is_err());
    }
}
