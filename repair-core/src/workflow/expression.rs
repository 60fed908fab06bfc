//! JSONata: conditions and computed values.

use serde_json::Value;

use super::definition::Variables;
use crate::error::{Error, Result};

/// A JSONata expression that parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
}

impl Expression {
    /// Parses.
    ///
    /// # Errors
    /// `invalid` with what the parser says.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self { text: text.to_owned() })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Computes a value.
    ///
    /// # Errors
    /// `invalid` if it fails, or takes more time, depth or size than allowed.
    pub fn evaluate(&self, _variables: &Variables) -> Result<Value> {
        Err(Error::internal("no evaluator"))
    }

    /// Computes a condition.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and if the value is not true or false.
    pub fn holds(&self, variables: &Variables) -> Result<bool> {
        match self.evaluate(variables)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(Error::invalid(format!("the condition `{}` is {other}, not true or false", self.text))),
        }
    }
}
