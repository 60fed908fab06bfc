//! JSONata expressions: conditions and computed values. No other module knows the evaluator.
//!
//! An expression is a pure function of its [`Variables`], so that a run replayed from its journal takes the same path again: `$now()` and
//! `$millis()` return the run's own time, and functions that draw at random or evaluate text are refused.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use jsonata_core::ast::AstNode;
use jsonata_core::evaluator::{Context, Evaluator, EvaluatorError, EvaluatorOptions};
use jsonata_core::parser;
use jsonata_core::value::JValue;
use serde_json::{Map, Value};

use super::bounded::is_bounded;
use super::references::{References, references};
use crate::error::{Error, Result};
use crate::workflow::Variables;

/// The evaluator of expressions with its exact version, which every run records, because even a patch release may change results.
pub const EVALUATOR: &str = "jsonata-core 2.2.13";
/// How many bytes one expression may have. A longer condition belongs in a task.
pub const MAX_EXPRESSION_BYTES: usize = 10_000;
/// How long one evaluation may take. Normal ones take microseconds; this ends endless recursion.
const TIMEOUT_MS: u64 = 1_000;
/// How deep evaluation may nest.
const MAX_STACK_DEPTH: usize = 1_000;
/// How long a list may become. The timeout is not enough, because ranges (`[1..9999999]`) do not check it.
const MAX_SEQUENCE: usize = 100_000;
/// How wide `$pad` may make a text: padding is filled in one go, which the timeout does not interrupt.
const MAX_PAD: usize = 10_000;
/// How deep a result may nest.
const MAX_RESULT_DEPTH: usize = 64;
/// How many values one result may hold: it is written to the journal.
const MAX_RESULT_VALUES: usize = 100_000;
/// The largest integer that is exact in the evaluator's numbers, which are doubles.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A parsed JSONata expression. It is cheap to clone.
///
/// ```
/// use repair_core::workflow::{Expression, Variables};
/// use serde_json::json;
///
/// let enough = Expression::parse("$output.missing < $params.limit")?;
/// let variables = Variables { params: json!({ "limit": 5 }), output: json!({ "missing": 3 }), ..Variables::default() };
/// assert!(enough.holds(&variables)?);
/// assert_eq!(Expression::parse("$output.missing * 2")?.evaluate(&variables)?, json!(6));
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    tree: Arc<AstNode>,
    references: Arc<References>,
    /// Whether the memory that it needs is bounded by its length and its variables.
    is_bounded: bool,
}

/// Computes the value of an expression, given its text.
pub type Evaluate = fn(&str, &Variables) -> Result<Value>;

/// How expressions are evaluated whose memory is not bounded.
static APART: OnceLock<Evaluate> = OnceLock::new();

/// Lets expressions whose memory is not bounded, because they call functions in a loop, be evaluated in another way, such as in a process that
/// may fill little memory. The first call of this function counts. It must compute what [`Expression::evaluate`] computes.
pub fn evaluate_apart_with(evaluate: Evaluate) {
    let _ = APART.set(evaluate);
}

/// Shows only the text, because definitions are compared by their debug output.
impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// `invalid` with the parser's message, or if the text is empty or longer than [`MAX_EXPRESSION_BYTES`].
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(Error::invalid("the expression is empty"));
        }
        if text.len() > MAX_EXPRESSION_BYTES {
            return Err(Error::invalid(format!("the expression has {} bytes; at most {MAX_EXPRESSION_BYTES} are allowed", text.len())));
        }
        let tree = guarded(|| parser::parse(text))
            .ok_or_else(|| Error::invalid("this is not a JSONata expression that can be read: the parser fails on it"))?
            .map_err(|error| Error::invalid(format!("this is not a JSONata expression: {}", without_code(&error.to_string()))))?;
        let is_bounded = is_bounded(&tree);
        Ok(Self { text: text.into(), references: Arc::new(references(&tree)), tree: Arc::new(tree), is_bounded })
    }

    /// The text of the expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The variables that the expression refers to, each with the field names that follow it.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.references.variables.iter().map(|(name, fields)| (name.as_str(), fields.as_slice()))
    }

    /// The names that the expression refers to.
    pub(crate) fn references(&self) -> &References {
        &self.references
    }

    /// Computes the value. A missing value is null, and whole numbers are integers.
    ///
    /// # Errors
    /// `invalid` if the evaluation fails, or takes more time, depth or size than allowed.
    pub fn evaluate(&self, variables: &Variables) -> Result<Value> {
        if let (false, Some(apart)) = (self.is_bounded, APART.get()) {
            return apart(&self.text, variables);
        }
        let options = EvaluatorOptions {
            timeout_ms: Some(TIMEOUT_MS),
            max_stack_depth: Some(MAX_STACK_DEPTH),
            max_sequence_length: Some(MAX_SEQUENCE),
            ..EvaluatorOptions::default()
        };
        let mut evaluator = Evaluator::with_options(bound(variables), options);
        let fail =
            |error: &EvaluatorError| Error::invalid(format!("`{}` cannot be computed: {}", self.text, without_code(error.message())));
        make_pure(&mut evaluator, variables).map_err(|error| fail(&error))?;
        let result = guarded(|| evaluator.evaluate(&self.tree, &JValue::Null))
            .ok_or_else(|| {
                Error::invalid(format!("`{}` cannot be computed: the evaluator fails on it; write it in another way", self.text))
            })?
            .map_err(|error| fail(&error))?;
        let mut left = MAX_RESULT_VALUES;
        match json(&result, MAX_RESULT_DEPTH, &mut left) {
            Ok(value) => Ok(value.unwrap_or(Value::Null)),
            Err(why) => Err(Error::invalid(format!("`{}` cannot be computed: {why}", self.text))),
        }
    }

    /// Computes a condition.
    ///
    /// In JSONata, a missing value is unequal to everything, so a misspelt `$output.missng = 0` would silently never hold. Here, using a field
    /// that the step's output lacks is an error, unless the condition tests for it (`$exists`, `?:`, `??`, `? :`).
    ///
    /// # Errors
    /// As [`Expression::evaluate`]; `invalid` also if the value is not true or false.
    pub fn holds(&self, variables: &Variables) -> Result<bool> {
        for field in &self.references.needed_output {
            let known = match &variables.output {
                Value::Object(output) if !output.contains_key(field) => output.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
                Value::Null => String::from("nothing"),
                _ => continue,
            };
            return Err(Error::invalid(format!(
                "the condition `{}` uses `$output.{field}`, but the output of the step holds {known}; \
                 correct the name, or test `$exists($output.{field})` first",
                self.text
            )));
        }
        match self.evaluate(variables)? {
            Value::Bool(holds) => Ok(holds),
            Value::Null => Err(Error::invalid(format!(
                "the condition `{}` has no value, because something that it uses does not exist; it must be true or false",
                self.text
            ))),
            other => {
                Err(Error::invalid(format!("the condition `{}` is {}; it must be true or false", self.text, shortened(&other.to_string()))))
            }
        }
    }
}

/// What the evaluator says; `None` if it panics, as on a picture of a time that it does not expect. No expression may end the program.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 100;
    if text.chars().count() > SHOWN { format!("{}…", text.chars().take(SHOWN).collect::<String>()) } else { text.to_owned() }
}

/// The evaluator's message without its error code, `S0201: `.
fn without_code(message: &str) -> &str {
    match message.split_once(": ") {
        Some((code, rest)) if code.len() == 5 && code[1..].bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => message,
    }
}

fn bound(variables: &Variables) -> Context {
    let mut context = Context::new();
    for (name, value) in [
        ("params", &variables.params),
        ("output", &variables.output),
        ("steps", &variables.steps),
        ("error", &variables.error),
        ("run", &variables.run),
    ] {
        context.bind(name.to_owned(), JValue::from(value.clone()));
    }
    for (name, value) in &variables.items {
        context.bind(name.clone(), JValue::from(value.clone()));
    }
    context.bind("visits".to_owned(), JValue::from(u64::from(variables.visits)));
    context
}

/// Replaces the functions that read a clock, draw at random, evaluate text or fill memory in one go.
fn make_pure(evaluator: &mut Evaluator, variables: &Variables) -> Result<(), EvaluatorError> {
    let run = &variables.run;
    let now = run.get("reached").or_else(|| run.get("now")).and_then(Value::as_str).and_then(|now| now.parse::<jiff::Timestamp>().ok());
    let time = move |function: &str, arguments: &[JValue]| {
        if !arguments.is_empty() {
            return Err(refuse(format!("`${function}` takes no arguments here; use `$fromMillis($millis(), picture)` instead")));
        }
        now.ok_or_else(|| refuse(format!("`${function}` has no value before a run has started")))
    };
    evaluator.register_fn_override("now", move |arguments: &[JValue]| {
        // JSONata always writes milliseconds.
        Ok(JValue::from(time("now", arguments)?.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()))
    })?;
    evaluator.register_fn_override("millis", move |arguments: &[JValue]| Ok(JValue::from(time("millis", arguments)?.as_millisecond())))?;
    for (name, why) in REFUSED {
        evaluator.register_fn_override(*name, move |_: &[JValue]| Err(refuse(format!("`${name}` is not available: {why}"))))?;
    }
    evaluator.register_fn_override("pad", pad)
}

/// The functions of JSONata that are not available, and why.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("random", "a resumed run must take the same path again"),
    ("shuffle", "a resumed run must take the same path again"),
    ("eval", "the text of a workflow must show what it does"),
];

fn refuse(message: String) -> EvaluatorError {
    EvaluatorError::EvaluationError(message)
}

/// `$pad(text, width, fill)`: pads on the right, or on the left if the width is negative.
fn pad(arguments: &[JValue]) -> Result<JValue, EvaluatorError> {
    let (Some(text), Some(JValue::Number(width))) = (arguments.first().and_then(JValue::as_str), arguments.get(1)) else {
        return Err(refuse("`$pad` takes a text, a width and optionally a text to fill with".to_owned()));
    };
    if width.abs() > MAX_PAD as f64 {
        return Err(refuse(format!("the width of `$pad` must be at most {MAX_PAD}")));
    }
    let fill = arguments.get(2).and_then(JValue::as_str).filter(|fill| !fill.is_empty()).unwrap_or(" ");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most MAX_PAD, and not negative")]
    let missing = (width.abs() as usize).saturating_sub(text.chars().count());
    let padding: String = fill.chars().cycle().take(missing).collect();
    Ok(JValue::from(if *width < 0.0 { format!("{padding}{text}") } else { format!("{text}{padding}") }))
}

/// The value as JSON; `None` if it is undefined, which lists and mappings leave out.
fn json(value: &JValue, depth: usize, left: &mut usize) -> Result<Option<Value>, String> {
    *left = left.checked_sub(1).ok_or_else(|| format!("the result holds more than {MAX_RESULT_VALUES} values"))?;
    let deeper = || depth.checked_sub(1).ok_or_else(|| format!("the result nests deeper than {MAX_RESULT_DEPTH} levels"));
    Ok(Some(match value {
        JValue::Undefined => return Ok(None),
        JValue::Null => Value::Null,
        JValue::Bool(value) => Value::Bool(*value),
        JValue::Number(number) => number_json(*number)?,
        JValue::String(text) => Value::String(text.to_string()),
        JValue::Array(items) => {
            let depth = deeper()?;
            let mut list = Vec::with_capacity(items.len().min(*left));
            for item in items {
                list.extend(json(item, depth, left)?);
            }
            Value::Array(list)
        }
        JValue::Object(entries) => {
            let depth = deeper()?;
            let mut map = Map::new();
            for (key, item) in entries.iter() {
                if let Some(item) = json(item, depth, left)? {
                    map.insert(key.clone(), item);
                }
            }
            Value::Object(map)
        }
        _ => return Err("the result is a function, not a value".to_owned()),
    }))
}

fn number_json(number: f64) -> Result<Value, String> {
    if number.fract() == 0.0 && number.abs() <= MAX_EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53")]
        return Ok(Value::from(number as i64));
    }
    serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(|| "the result is not a finite number".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn evaluate(text: &str) -> Result<Value> {
        let variables = Variables {
            params: json!({ "from": "2024-03-04", "limit": 2.5 }),
            output: json!({ "missing": 3, "keys": ["A", "B"] }),
            steps: json!({ "find-gaps": { "visits": 1 } }),
            visits: 2,
            error: Value::Null,
            run: json!({ "id": "r1", "now": "2024-03-04T14:30:00Z" }),
            items: BTreeMap::from([("desk".to_owned(), json!({ "name": "rates" })), ("index".to_owned(), json!(3))]),
        };
        let expression = Expression::parse(text)?;
        fn assert_shared<T: Send + Sync + Clone>(_: &T) {}
        assert_shared(&expression);
        expression.evaluate(&variables)
    }

    #[test]
    fn whole_numbers_are_integers() {
        assert_eq!(evaluate("$output.missing * 2").unwrap().to_string(), "6");
        assert_eq!(evaluate("3.0").unwrap().to_string(), "3");
        assert_eq!(evaluate("$params.limit").unwrap().to_string(), "2.5");
        assert_eq!(evaluate("$visits + 1").unwrap(), json!(3));
        assert_eq!(evaluate("$desk.name & ' ' & $index").unwrap(), json!("rates 3"));
        assert_eq!(evaluate("$steps.`find-gaps`.visits").unwrap(), json!(1));
        assert_eq!(evaluate("$output.keys").unwrap(), json!(["A", "B"]));
        assert_eq!(evaluate("{ \"n\": $nothing, \"from\": $params.from }").unwrap(), json!({ "from": "2024-03-04" }));
        assert_eq!(evaluate("$output.nothing").unwrap(), Value::Null);
    }

    #[test]
    fn the_same_run_computes_the_same() {
        assert_eq!(evaluate("$now()").unwrap(), json!("2024-03-04T14:30:00.000Z"));
        assert_eq!(evaluate("$millis()").unwrap(), json!(1_709_562_600_000_i64));
        for text in ["$random()", "$shuffle([1,2])", "$eval(\"1\")"] {
            assert!(evaluate(text).unwrap_err().message().contains("not available"), "{text}");
        }
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let nested = format!("{}1{}", "(".repeat(4_000), ")".repeat(4_000));
        let chained = vec!["1"; 4_000].join("+");
        let long = "1".repeat(MAX_EXPRESSION_BYTES + 1);
        for text in [
            "[1..9999999]",
            "$count([1..10000000])",
            "($f := function($n) { $f($n + 1) + 1 }; $f(1))",
            "($f := function($n) { $f($n + 1) }; $f(1))",
            "$map([1..99000], function($i) { $map([1..99000], function($j) { $i * $j }) })",
            "$pad('a', 300000000)",
            "function($x) { $x }",
            "1 / 0",
            &nested,
            &chained,
            &long,
            "",
        ] {
            let started = Instant::now();
            let error = evaluate(text).expect_err(&text[..text.len().min(60)]);
            assert!(started.elapsed() < Duration::from_secs(120), "{text}: {:?}", started.elapsed());
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_condition_is_true_or_false_and_never_nothing() {
        let variables = Variables { output: json!({ "missing": 0 }), ..Variables::default() };
        let holds = |text: &str| Expression::parse(text).unwrap().holds(&variables);
        assert!(holds("$output.missing = 0").unwrap());
        assert!(!holds("$exists($output.kept) and $output.kept > 0").unwrap());
        assert!(!holds("$error.kind = 'timeout'").unwrap());
        for (text, expected) in
            [("$output.missng = 0", "`$output.missng`"), ("$output.missing", "is 0; it must"), ("$run.absent < 3", "has no value")]
        {
            let error = holds(text).unwrap_err();
            assert!(error.message().contains(expected) && error.message().contains(text), "{error}");
        }
    }
}
