//! The best strategy as YAML, to paste into a workflow.

use serde_json::Value;

use crate::compare::report::StrategyReport;
use crate::compare::strategy::Entrant;

/// A repair step with the strategies of an entrant, in the order in which they were tried. JSON is YAML too, so configurations are written as JSON.
pub(super) fn yaml(report: &StrategyReport, entrant: &Entrant, detect: &str) -> String {
    let interval = report.interval.map(|[low, high]| format!(", {low:.4} to {high:.4}")).unwrap_or_default();
    let mut text = format!("  # {}: loss {:.4}{interval}\n  fill:\n    repair:\n", report.name, report.loss);
    for part in &entrant.parts {
        let name = part.origin.as_ref().map_or(part.plugin.as_str(), |(_, strategy)| strategy);
        text.push_str(&format!("      - strategy: {}\n", scalar(&part.plugin)));
        if name != part.plugin {
            text.push_str(&format!("        name: {}\n", scalar(name)));
        }
        if part.with.as_object().is_some_and(|with| !with.is_empty()) {
            text.push_str(&format!("        with: {}\n", part.with));
        }
    }
    text.push_str(&format!("    of: {}\n", scalar(detect)));
    text
}

/// A name as YAML: as it is where it is plain, else in quotes.
fn scalar(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic()) && !["true", "false", "null", "yes", "no"].contains(&name);
    if is_plain && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter)) {
        name.to_owned()
    } else {
        Value::from(name).to_string()
    }
}
