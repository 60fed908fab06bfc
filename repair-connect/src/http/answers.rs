//! What replies mean, where neither their status nor their rows say it. Pure.

use repair_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What a reply means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Means {
    /// It has rows, whatever its status is.
    Rows,
    /// There are no rows, and that proves nothing: the key may be unknown.
    Empty,
    /// There are no rows, and the API vouches for it.
    Absent,
    /// The pages end before this one: it has no rows, and those before are all.
    End,
    /// The API must be asked more slowly.
    Throttled,
    /// Access was refused.
    Denied,
    /// A passing failure.
    Transient,
    /// What was asked for does not exist.
    NotFound,
    /// The request is wrong.
    Invalid,
}

impl Means {
    /// The kind of error that it is, if it is one.
    pub(super) fn kind(self) -> Option<ErrorKind> {
        match self {
            Self::Rows | Self::Empty | Self::Absent | Self::End => None,
            Self::Throttled => Some(ErrorKind::Throttled),
            Self::Denied => Some(ErrorKind::Denied),
            Self::Transient => Some(ErrorKind::Transient),
            Self::NotFound => Some(ErrorKind::NotFound),
            Self::Invalid => Some(ErrorKind::Invalid),
        }
    }
}

/// A rule about replies. The first that applies counts; without one, the status decides.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRule {
    /// The status that it is about; any if it says none.
    #[serde(default)]
    pub status: Option<u16>,
    /// The place in the body that it is about, as a JSON Pointer such as `/status`.
    #[serde(default)]
    pub at: Option<String>,
    /// What stands there, which may be null; if it says nothing, anything but null.
    #[serde(default, deserialize_with = "anything")]
    pub equals: Option<Value>,
    /// Whether the rule is about bodies in which there is nothing there, not even null.
    #[serde(default)]
    pub missing: bool,
    /// What the reply means.
    pub means: Means,
}

/// A value that may be null, which is something else than none.
fn anything<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl AnswerRule {
    pub(super) fn check(&self) -> Result<()> {
        if let Some(at) = &self.at {
            check_pointer(at)?;
        }
        if self.equals.is_some() && self.at.is_none() {
            return Err(Error::invalid(
                "a rule under `answers` has `equals` and no `at`; write the place in the body, such as `at: /status`",
            ));
        }
        if self.missing && (self.at.is_none() || self.equals.is_some()) {
            return Err(Error::invalid(
                "a rule under `answers` with `missing` needs the place in the body where nothing is, such as `at: /status`, and no `equals`",
            ));
        }
        if self.status.is_none() && self.at.is_none() {
            return Err(Error::invalid("a rule under `answers` has neither `status` nor `at`, and would apply to every answer"));
        }
        Ok(())
    }

    /// Whether it applies to a reply, whose body is none if it is not JSON.
    fn applies(&self, status: u16, body: Option<&Value>) -> bool {
        self.status.is_none_or(|own| own == status)
            && self.at.as_ref().is_none_or(|at| {
                let there = body.and_then(|body| body.pointer(at));
                match &self.equals {
                    _ if self.missing => body.is_some() && there.is_none(),
                    Some(value) => there == Some(value),
                    None => there.is_some_and(|there| !there.is_null()),
                }
            })
    }
}

/// The rule that says what a reply means.
pub(super) fn ruling<'a>(rules: &'a [AnswerRule], status: u16, body: Option<&Value>) -> Option<&'a AnswerRule> {
    rules.iter().find(|rule| rule.applies(status, body))
}

/// Checks a JSON Pointer (RFC 6901).
///
/// # Errors
/// `invalid` if it is none.
pub(super) fn check_pointer(at: &str) -> Result<()> {
    if at.is_empty() || at.starts_with('/') {
        return Ok(());
    }
    Err(Error::invalid(format!("`{at}` is no place in a body of JSON; write a JSON Pointer, such as `/{}`", at.replace('.', "/"))))
}
