//! Expressions: a first line of JSON as `$output`, then the expression.

use repair_core::ErrorKind;
use repair_core::workflow::{Expression, Variables};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (output, text) = text.split_once('\n').unwrap_or(("null", text));
    let Ok(output) = serde_json::from_str::<serde_json::Value>(output) else { return };
    let Ok(expression) = Expression::parse(text) else { return };
    let variables = Variables { params: output.clone(), output, visits: 1, ..Variables::default() };
    let value = expression.evaluate(&variables);
    let holds = expression.holds(&variables);
    for error in [value.as_ref().err(), holds.as_ref().err()].into_iter().flatten() {
        assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
    }
}
