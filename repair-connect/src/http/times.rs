//! Times as APIs write them: in requests, and in rows. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use repair_core::model::{Repeated, SlotGrid, TimeMark};
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// How times are written in rows, and what they mean.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeConfig {
    /// How times are written: `iso` (RFC 3339 or, with a `zone`, without one; the default), a number since 1970 in `s`, `ms`, `us` or `ns`, or a pattern
    /// such as `%d.%m.%Y %H:%M`.
    pub form: Option<String>,
    /// The zone of times that are written without one, and of patterns in the request; UTC by default for these.
    pub zone: Option<String>,
    /// Which of the two a local time means that a clock shows twice: `earlier` or `later`; otherwise it is an error.
    pub repeated: Option<Repeated>,
    /// What a time marks: the `start` or the `end` of its slot; by default what it marks in the table.
    pub marks: Option<Mark>,
}

/// How many characters of a value that is no time are shown.
const SHOWN_CHARS: usize = 60;

/// A value that is no time, in a message.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("\"{text}\""),
        other => other.to_string(),
    };
    let cut: String = text.chars().take(SHOWN_CHARS).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

/// What a time marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// The start of its slot.
    Start,
    /// The end of its slot.
    End,
}

/// A number since 1970: its unit, in microseconds or parts of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    S,
    Ms,
    Us,
    Ns,
}

#[derive(Debug, Clone)]
enum Form {
    Iso,
    Epoch(Unit),
    Pattern(String),
}

/// How times are written and read.
#[derive(Debug, Clone)]
pub(super) struct Times {
    form: Form,
    zone: Option<TimeZone>,
    repeated: Repeated,
    marks: Option<Mark>,
}

fn unit(text: &str) -> Option<Unit> {
    match text {
        "s" => Some(Unit::S),
        "ms" => Some(Unit::Ms),
        "us" => Some(Unit::Us),
        "ns" => Some(Unit::Ns),
        _ => None,
    }
}

fn no_form(text: &str) -> Error {
    Error::invalid(format!("`{text}` is no form of times; write `iso`, `s`, `ms`, `us`, `ns`, or a pattern such as `%Y-%m-%d %H:%M`"))
}

impl Times {
    /// # Errors
    /// `invalid` if there is no such form or zone.
    pub(super) fn new(config: &TimeConfig) -> Result<Self> {
        let form = match config.form.as_deref() {
            None | Some("iso") => Form::Iso,
            Some(text) => match unit(text) {
                Some(unit) => Form::Epoch(unit),
                None if text.contains('%') => Form::Pattern(text.to_owned()),
                None => {
                    return Err(no_form(text));
                }
            },
        };
        let zone = config.zone.as_deref().map(|name| {
            TimeZone::get(name)
                .map_err(|error| Error::invalid(format!("`{name}` is no time zone, such as America/New_York")).because(error))
        });
        let repeated = config.repeated.unwrap_or_default();
        if repeated == Repeated::FileOrder {
            return Err(Error::invalid("`repeated: file-order` is for files; write `earlier` or `later`"));
        }
        Ok(Self { form, zone: zone.transpose()?, repeated, marks: config.marks })
    }

    /// An instant in a form that a template names; without one, RFC 3339.
    pub(super) fn written(&self, instant: Timestamp, form: Option<&str>) -> Result<String> {
        let Some(form) = form.filter(|form| *form != "iso") else { return Ok(instant.to_string()) };
        Ok(match unit(form) {
            Some(Unit::S) => instant.as_second().to_string(),
            Some(Unit::Ms) => instant.as_millisecond().to_string(),
            Some(Unit::Us) => instant.as_microsecond().to_string(),
            Some(Unit::Ns) => instant.as_nanosecond().to_string(),
            // Anything else would be sent as it stands.
            None if !form.contains('%') => return Err(no_form(form)),
            None => {
                let local = self.zone.clone().unwrap_or(TimeZone::UTC).to_datetime(instant);
                jiff::fmt::strtime::format(form, local)
                    .map_err(|error| Error::invalid(format!("`{form}` is no form of times")).because(error))?
            }
        })
    }

    /// The instant that a value of a row is.
    ///
    /// # Errors
    /// `invalid` if it is none.
    pub(super) fn read(&self, value: &Value) -> Result<Timestamp> {
        let odd = || Error::invalid(format!("a time {}, which is not written as `time` says", shown(value)));
        match &self.form {
            Form::Epoch(unit) => {
                let number = match value {
                    Value::Number(number) => number.as_i64().ok_or_else(odd)?,
                    Value::String(text) => text.parse().map_err(|_| odd())?,
                    _ => return Err(odd()),
                };
                let instant = match unit {
                    Unit::S => Timestamp::from_second(number),
                    Unit::Ms => Timestamp::from_millisecond(number),
                    Unit::Us => Timestamp::from_microsecond(number),
                    Unit::Ns => Timestamp::from_nanosecond(i128::from(number)),
                };
                instant.map_err(|_| odd())
            }
            Form::Iso => {
                let text = value.as_str().ok_or_else(odd)?;
                match text.parse::<Timestamp>() {
                    Ok(instant) => Ok(instant),
                    Err(_) => self.local(text.parse().map_err(|_| odd())?, value),
                }
            }
            Form::Pattern(pattern) => {
                let text = value.as_str().ok_or_else(odd)?;
                let parsed = jiff::fmt::strtime::parse(pattern, text).map_err(|_| odd())?;
                if parsed.offset().is_some() {
                    return parsed.to_timestamp().map_err(|_| odd());
                }
                let local = parsed.to_datetime().or_else(|_| parsed.to_date().map(|date| date.to_datetime(jiff::civil::Time::midnight())));
                self.local(local.map_err(|_| odd())?, value)
            }
        }
    }

    fn local(&self, local: DateTime, value: &Value) -> Result<Timestamp> {
        let zone = self
            .zone
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("a time {} without a zone; write its `zone` under `time`", shown(value))))?;
        let ambiguous = zone.to_ambiguous_timestamp(local);
        // A local time that no clock shows is never guessed.
        let found = match (self.repeated, ambiguous.offset()) {
            (_, jiff::tz::AmbiguousOffset::Gap { .. }) | (Repeated::Refuse | Repeated::FileOrder, _) => ambiguous.unambiguous(),
            (Repeated::Earlier, _) => ambiguous.earlier(),
            (Repeated::Later, _) => ambiguous.later(),
            _ => ambiguous.unambiguous(),
        };
        found.map_err(|_| {
            Error::invalid(format!("a time {}, which the clock shows twice or never; write `repeated` under `time`", shown(value)))
        })
    }

    /// The time of a row, as the table has it.
    pub(super) fn of_row(&self, instant: Timestamp, grid: Option<SlotGrid>) -> Timestamp {
        let Some(grid) = grid else { return instant };
        match self.marks {
            Some(Mark::Start) if grid.marks() != TimeMark::Start => {
                let slot = grid.slot_at(instant);
                // What does not begin a slot stays as it is, and is judged.
                if grid.start_of(slot) == instant { grid.time_of(slot) } else { instant }
            }
            Some(Mark::End) if grid.marks() == TimeMark::Start => {
                let slot = grid.slot_at(instant);
                if grid.start_of(slot) == instant { grid.time_of(slot - 1) } else { instant }
            }
            _ => instant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_form_of_times_is_not_sent_as_it_stands() {
        let times = Times::new(&TimeConfig::default()).unwrap();
        let at: Timestamp = "2024-03-04T05:06:07Z".parse().unwrap();
        for (form, written) in [
            (None, "2024-03-04T05:06:07Z"),
            (Some("iso"), "2024-03-04T05:06:07Z"),
            (Some("s"), "1709528767"),
            (Some("%Y-%m-%d %H:%M"), "2024-03-04 05:06"),
        ] {
            assert_eq!(times.written(at, form).unwrap(), written, "{form:?}");
        }
        for odd in ["", "rfc3339", "date", "S"] {
            assert!(times.written(at, Some(odd)).unwrap_err().message().contains("is no form of times"), "{odd}");
        }
    }
}
