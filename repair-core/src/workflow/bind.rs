//! Parameters: from what a command line or a Rust caller gives to checked values.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{Fixed, Moment, Table, Zone};
use crate::text::fields;
use crate::workflow::parse_duration;
use crate::workflow::{Param, ParamType, Workflow};
use crate::yaml::closest;

/// How many bytes the value of one parameter may have: the journal keeps it with every run.
pub const MAX_PARAM_BYTES: usize = 64 * 1024;
/// How many items a list parameter may have.
pub const MAX_PARAM_ITEMS: usize = 10_000;

impl ParamType {
    /// All types, in the order in which the documentation lists them.
    pub const ALL: [ParamType; 8] =
        [Self::String, Self::Integer, Self::Number, Self::Boolean, Self::Date, Self::Instant, Self::Duration, Self::List];

    /// The name used in workflows, such as `date`.
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

    /// What a value of this type looks like, in words: `a date such as 2024-03-04`.
    pub fn form(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Date => "a date such as 2024-03-04 or yesterday",
            Self::Instant => "an instant with its zone, such as 2024-03-04T14:30:00Z or now - 7d",
            Self::Duration => "a duration such as 90s, 15m, 2h or 3d",
            Self::List => "a list of texts, which a command line separates by commas",
        }
    }

    /// A value of this type, in words.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Self::Date => "a date such as 2024-03-04",
            Self::Instant => "an instant such as 2024-03-04T14:30:00Z",
            other => other.form(),
        }
    }

    /// Two values of this type, as on a command line.
    fn examples(self) -> [&'static str; 2] {
        match self {
            Self::String | Self::List => ["example", "other"],
            Self::Integer => ["1", "2"],
            Self::Number => ["0.5", "0.25"],
            Self::Boolean => ["true", "false"],
            Self::Date => ["2024-03-04", "2023-05-09"],
            Self::Instant => ["2024-03-04T14:30:00Z", "2023-05-09T15:00:00Z"],
            Self::Duration => ["90s", "2h"],
        }
    }

    /// Reads a value from text, as on a command line.
    fn read(self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::Integer => text.trim().parse::<i64>().ok().map(Value::from),
            Self::Number => text.trim().parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
            Self::Boolean => text.trim().parse::<bool>().ok().map(Value::Bool),
            Self::List => {
                // A text with a comma is in quotes.
                let quoted = if text.contains('"') { fields(text) } else { None };
                let items = quoted.unwrap_or_else(|| text.split(',').map(|item| item.trim().to_owned()).collect());
                Some(Value::Array(items.into_iter().filter(|item| !item.is_empty()).map(Value::from).collect()))
            }
            Self::String => Some(Value::from(text)),
            Self::Date | Self::Instant | Self::Duration => Some(Value::from(text.trim())),
        };
        let shown: String = text.chars().take(60).collect();
        self.check(&value.ok_or_else(|| format!("`{shown}` is not {}", self.form()))?)
    }

    /// The value in its normal form, if it is of this type.
    pub(crate) fn check(self, value: &Value) -> Result<Value, String> {
        let refuse = || format!("{} is not {}", shown(value), self.form());
        let text = || value.as_str().ok_or_else(refuse);
        Ok(match self {
            Self::String => Value::from(text()?),
            Self::Integer => Value::from(value.as_i64().ok_or_else(refuse)?),
            Self::Number => value.as_number().map(|number| Value::Number(number.clone())).ok_or_else(refuse)?,
            Self::Boolean => Value::from(value.as_bool().ok_or_else(refuse)?),
            Self::Date | Self::Instant => match (self, text()?.parse::<Moment>().map_err(|_| refuse())?) {
                (Self::Date, Moment::Fixed(Fixed::Instant(_))) | (Self::Instant, Moment::Fixed(Fixed::Date(_))) => return Err(refuse()),
                (_, moment) => Value::from(moment.to_string()),
            },
            Self::Duration => {
                parse_duration(text()?).map_err(|_| refuse())?;
                Value::from(text()?)
            }
            Self::List => {
                let items = value.as_array().ok_or_else(refuse)?;
                if items.len() > MAX_PARAM_ITEMS {
                    return Err(format!("the list has {} items; at most {MAX_PARAM_ITEMS} are allowed", items.len()));
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
    /// The value in its normal form, if it is of the parameter's type and allowed by `one_of`.
    pub(crate) fn accept(&self, value: &Value) -> Result<Value, String> {
        let value = self.kind.check(value)?;
        // What it is allowed to be is checked once it is known.
        if self.is_relative(&value) { Ok(value) } else { self.allowed(value) }
    }

    /// Whether a value is a date or an instant that depends on a run's now.
    pub(crate) fn is_relative(&self, value: &Value) -> bool {
        matches!(self.kind, ParamType::Date | ParamType::Instant)
            && value.as_str().and_then(|text| text.parse::<Moment>().ok()).is_some_and(|moment| moment.is_relative())
    }

    /// The value, if `one_of` allows it.
    fn allowed(&self, value: Value) -> Result<Value, String> {
        // Each item of a list must be allowed.
        let allowed = |value: &Value| self.one_of.is_empty() || self.one_of.contains(value);
        let refused = match &value {
            Value::Array(items) => items.iter().find(|item| !allowed(item)),
            single => Some(single).filter(|single| !allowed(single)),
        };
        match refused {
            None => Ok(value),
            Some(refused) => {
                let known: Vec<String> = self.one_of.iter().map(shown).collect();
                Err(format!("{} is not one of {}", shown(refused), known.join(", ")))
            }
        }
    }
}

impl Workflow {
    /// Reads the values of parameters from texts, as a command line gives them, and fills in defaults. Dates and instants that are relative to
    /// a run's now, such as `yesterday`, are checked and stay as they are; [`Workflow::fix`] computes them when the run starts.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    ///
    /// use repair_core::plugin::Registry;
    /// use repair_core::workflow::Workflow;
    ///
    /// let text = "workflow: nightly
    /// kind: dag
    /// params:
    ///   day: { type: date }
    ///   limit: { type: integer, default: 10 }
    /// steps:
    ///   rest: { wait: { for: 1s } }
    /// ";
    /// let workflow = Workflow::parse("nightly.yaml", text, &Registry::default())?;
    /// let given = BTreeMap::from([("day".to_owned(), "2024-03-04".to_owned())]);
    /// let values = workflow.bind(&given)?;
    /// assert_eq!((&values["day"], &values["limit"]), (&"2024-03-04".into(), &10.into()));
    ///
    /// let error = workflow.bind(&BTreeMap::new()).unwrap_err();
    /// assert_eq!(error.message(), "parameter `day` is missing; give a date such as 2024-03-04 or yesterday");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `invalid`, listing all mistakes at once: unknown parameters, missing ones, and values of the wrong type.
    pub fn bind(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, Value>> {
        self.bind_with(given, |param, text| {
            if text.len() > MAX_PARAM_BYTES {
                return Err(too_long(text.len()));
            }
            param.accept(&param.kind.read(text)?)
        })
    }

    /// As [`Workflow::bind`], where parameters may lack a value: they get an example of their type. If any does, there are two results, with
    /// different examples, so that what holds for both depends on none of them.
    ///
    /// # Errors
    /// As [`Workflow::bind`], but for parameters that are missing.
    pub fn bind_with_examples(&self, given: &BTreeMap<String, String>) -> Result<Vec<BTreeMap<String, Value>>> {
        let missing = |(name, param): &(&String, &Param)| param.default.is_none() && !given.contains_key(*name);
        let missing: Vec<(&String, &Param)> = self.params.iter().filter(missing).collect();
        let which: &[usize] = if missing.is_empty() { &[0] } else { &[0, 1] };
        let filled = which.iter().map(|&which| {
            let mut all = given.clone();
            for (name, param) in &missing {
                let allowed = if which == 0 { param.one_of.first() } else { param.one_of.last() };
                let example = allowed.map_or_else(
                    || param.kind.examples()[which].to_owned(),
                    |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                );
                all.insert((*name).clone(), example);
            }
            self.bind(&all)
        });
        filled.collect()
    }

    /// Checks the values of parameters that a Rust caller gives, and fills in defaults.
    ///
    /// # Errors
    /// As [`Workflow::bind`].
    pub fn bind_values(&self, given: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
        self.bind_with(given, |param, value| {
            let bytes = value.to_string().len();
            if bytes > MAX_PARAM_BYTES { Err(too_long(bytes)) } else { param.accept(value) }
        })
    }

    /// The values of parameters, with dates and instants that are relative to now computed: in the zone of the parameter, or else in the zone in
    /// which the workflow's tables have their days. Values that are not relative stay the same.
    ///
    /// ```
    /// use repair_core::plugin::Registry;
    /// use repair_core::workflow::Workflow;
    ///
    /// let text = "
    /// workflow: nightly
    /// kind: dag
    /// params: { day: { type: date, default: yesterday, zone: America/New_York } }
    /// steps: { rest: { wait: { for: 1s } } }
    /// ";
    /// let workflow = Workflow::parse("nightly.yaml", text, &Registry::default())?;
    /// let bound = workflow.bind(&Default::default())?;
    /// let fixed = workflow.fix(&bound, "2024-03-05T03:00:00Z".parse()?)?; // still Monday evening in New York
    /// assert_eq!((&bound["day"], &fixed["day"]), (&"yesterday".into(), &"2024-03-03".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `invalid` if the tables have days of several zones, so that a relative value is ambiguous.
    pub fn fix(&self, params: &BTreeMap<String, Value>, now: Timestamp) -> Result<BTreeMap<String, Value>> {
        let fixed = params.iter().map(|(name, value)| {
            let param = self.params.get(name).filter(|param| param.is_relative(value));
            let (Some(param), Some(text)) = (param, value.as_str()) else { return Ok((name.clone(), value.clone())) };
            let in_zone = || {
                let zone = match &param.zone {
                    Some(zone) => zone.clone(),
                    None => self.day_zone()?,
                };
                let fixed = text.parse::<Moment>()?.fixed(&zone, now)?;
                let value = if param.kind == ParamType::Date { fixed.date(&zone).to_string() } else { fixed.start(&zone)?.to_string() };
                param.allowed(Value::from(value)).map_err(Error::invalid)
            };
            let value = in_zone().map_err(|error| error.on("parameter", name))?;
            Ok((name.clone(), value))
        });
        fixed.collect()
    }

    /// The zone in which its tables have their days: those with a cadence, except tables of included files that no step names.
    ///
    /// # Errors
    /// `invalid` if there are several.
    pub(crate) fn day_zone(&self) -> Result<Zone> {
        let named: BTreeSet<&str> = self.steps.iter().flat_map(|step| step.kind.plugins()).flat_map(|(_, _, with)| with.texts()).collect();
        let concerns = |table: &&Table| {
            table.cadence.is_some() && (!self.included.tables.contains(&table.name) || named.contains(table.name.as_str()))
        };
        let tables: Vec<&Table> = self.tables.values().filter(concerns).collect();
        let zone = tables.first().map(|table| table.day_zone()).unwrap_or_default();
        match tables.iter().find(|table| table.day_zone() != zone) {
            None => Ok(zone),
            Some(other) => Err(Error::invalid(format!(
                "the days of table `{}` are those of {zone}, and the days of table `{}` are those of {}, so what is relative to now is \
                 ambiguous; say which days are meant with `zone` of the parameter",
                tables.first().map_or("", |table| &table.name),
                other.name,
                other.day_zone()
            ))),
        }
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
                None => format!("the parameters are {}", self.params.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
            };
            mistakes.push(format!("there is no parameter `{name}`; {hint}"));
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
            many => Err(Error::invalid(format!("the parameters have {} mistakes: {}", many.len(), many.join("; ")))),
        }
    }
}

fn too_long(bytes: usize) -> String {
    format!("the value has {bytes} bytes; at most {MAX_PARAM_BYTES} are allowed: put the values into a table, and give its name")
}
