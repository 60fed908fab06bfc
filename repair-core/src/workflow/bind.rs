//! Parameters: from what is given on a command line, or by a Rust caller, to checked values.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::workflow::parse_duration;
use crate::workflow::{Param, ParamType, Workflow};
use crate::yaml::closest;

/// Bytes of one parameter's value: it is kept in the journal with every run.
pub const MAX_PARAM_BYTES: usize = 64 * 1024;
/// Items of a list parameter.
pub const MAX_PARAM_ITEMS: usize = 10_000;

impl ParamType {
    /// All types, in the order of the documentation.
    pub const ALL: [ParamType; 8] =
        [Self::String, Self::Integer, Self::Number, Self::Boolean, Self::Date, Self::Instant, Self::Duration, Self::List];

    /// The name used in workflows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Instant => "instant",
            Self::Duration => "duration",
            Self::List => "list",
        }
    }

    /// What its values look like.
    pub fn form(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Date => "a date such as 2024-03-04",
            Self::Instant => "an instant with its zone, such as 2024-03-04T14:30:00Z",
            Self::Duration => "a duration such as 90s, 15m, 2h or 3d",
            Self::List => "a list of texts; on the command line, separated by commas",
        }
    }

    /// The value that a text on the command line means.
    fn read(self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::Integer => text.trim().parse::<i64>().ok().map(Value::from),
            Self::Number => text.trim().parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
            Self::Boolean => text.trim().parse::<bool>().ok().map(Value::Bool),
            Self::List => {
                let items: Vec<Value> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect();
                Some(Value::Array(items))
            }
            Self::String => Some(Value::from(text)),
            Self::Date | Self::Instant | Self::Duration => Some(Value::from(text.trim())),
        };
        let shown: String = text.chars().take(60).collect();
        self.check(&value.ok_or_else(|| format!("`{shown}` is not {}", self.form()))?)
    }

    /// The value, if it is of this type, in the one form in which it is kept.
    pub(crate) fn check(self, value: &Value) -> Result<Value, String> {
        let refuse = || format!("{} is not {}", shown(value), self.form());
        let text = || value.as_str().ok_or_else(refuse);
        Ok(match self {
            Self::String => Value::from(text()?),
            Self::Integer => Value::from(value.as_i64().ok_or_else(refuse)?),
            Self::Number => value.as_number().map(|number| Value::Number(number.clone())).ok_or_else(refuse)?,
            Self::Boolean => Value::from(value.as_bool().ok_or_else(refuse)?),
            Self::Date => {
                // `Date` would read a date-time and drop its time.
                let date = Some(text()?).filter(|text| text.len() == 10).and_then(|text| text.parse::<Date>().ok());
                Value::from(date.ok_or_else(refuse)?.to_string())
            }
            Self::Instant => Value::from(text()?.parse::<Timestamp>().map_err(|_| refuse())?.to_string()),
            Self::Duration => {
                parse_duration(text()?).map_err(|_| refuse())?;
                Value::from(text()?)
            }
            Self::List => {
                let items = value.as_array().ok_or_else(refuse)?;
                if items.len() > MAX_PARAM_ITEMS {
                    return Err(format!("{} items are more than the {MAX_PARAM_ITEMS} allowed", items.len()));
                }
                if !items.iter().all(Value::is_string) {
                    return Err(refuse());
                }
                Value::Array(items.clone())
            }
        })
    }
}

fn shown(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cut = if text.chars().count() > SHOWN { "…" } else { "" };
    format!("`{}{cut}`", text.chars().take(SHOWN).collect::<String>())
}

impl Param {
    /// The value, if it is of the parameter's type and among those allowed.
    pub(crate) fn accept(&self, value: &Value) -> Result<Value, String> {
        let value = self.kind.check(value)?;
        // Of a list, each item must be allowed.
        let allowed = |value: &Value| self.one_of.is_empty() || self.one_of.contains(value);
        let stranger = match &value {
            Value::Array(items) => items.iter().find(|item| !allowed(item)),
            single => Some(single).filter(|single| !allowed(single)),
        };
        match stranger {
            None => Ok(value),
            Some(stranger) => {
                let known: Vec<String> = self.one_of.iter().map(shown).collect();
                Err(format!("{} is not one of {}", shown(stranger), known.join(", ")))
            }
        }
    }
}

impl Workflow {
    /// Makes values of the texts of a command line, and fills in defaults.
    ///
    /// # Errors
    /// `invalid`, naming all at once: parameters that there are not, that are missing, and values that are not of their type.
    pub fn bind(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, Value>> {
        self.bind_with(given, |param, text| {
            if text.len() > MAX_PARAM_BYTES {
                return Err(too_long(text.len()));
            }
            param.accept(&param.kind.read(text)?)
        })
    }

    /// Checks values that a Rust caller gives, and fills in defaults.
    ///
    /// # Errors
    /// As [`Workflow::bind`].
    pub fn bind_values(&self, given: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
        self.bind_with(given, |param, value| {
            let bytes = value.to_string().len();
            if bytes > MAX_PARAM_BYTES { Err(too_long(bytes)) } else { param.accept(value) }
        })
    }

    fn bind_with<T>(
        &self,
        given: &BTreeMap<String, T>,
        read: impl Fn(&Param, &T) -> Result<Value, String>,
    ) -> Result<BTreeMap<String, Value>> {
        let mut mistakes = Vec::new();
        for name in given.keys().filter(|name| !self.params.contains_key(*name)) {
            let hint = match closest(name, self.params.keys().map(String::as_str)) {
                Some(close) => format!("did you mean `{close}`?"),
                None if self.params.is_empty() => "the workflow has none".to_owned(),
                None => format!("there are {}", self.params.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
            };
            mistakes.push(format!("no parameter `{name}`; {hint}"));
        }
        let mut values = BTreeMap::new();
        for (name, param) in &self.params {
            match (given.get(name), &param.default) {
                (Some(given), _) => match read(param, given) {
                    Ok(value) => {
                        values.insert(name.clone(), value);
                    }
                    Err(why) => mistakes.push(format!("parameter `{name}`: {why}")),
                },
                (None, Some(default)) => {
                    values.insert(name.clone(), default.clone());
                }
                (None, None) => {
                    let about = param.about.as_ref().map(|about| format!(" ({about})")).unwrap_or_default();
                    mistakes.push(format!("parameter `{name}`{about} is missing; give {}", param.kind.form()));
                }
            }
        }
        match mistakes.as_slice() {
            [] => Ok(values),
            [one] => Err(Error::invalid(one.clone())),
            many => Err(Error::invalid(format!("{} mistakes in the parameters:\n  {}", many.len(), many.join("\n  ")))),
        }
    }
}

fn too_long(bytes: usize) -> String {
    format!("{bytes} bytes are more than the {MAX_PARAM_BYTES} allowed; put the values into a table and name that")
}
