//! Whether the memory that an expression needs is bounded by its length and its variables. Most conditions are; one that calls functions in a
//! loop, or uses its own results again, may double them with every few characters.

use jsonata_core::ast::{AstNode, BinaryOp, Stage};

/// Functions whose results are no longer than their arguments by more than a few characters.
const LINEAR: [&str; 31] = [
    "abs",
    "average",
    "boolean",
    "ceil",
    "contains",
    "count",
    "exists",
    "floor",
    "fromMillis",
    "keys",
    "length",
    "lowercase",
    "max",
    "millis",
    "min",
    "not",
    "now",
    "number",
    "power",
    "round",
    "sqrt",
    "string",
    "substring",
    "substringAfter",
    "substringBefore",
    "sum",
    "toMillis",
    "trim",
    "type",
    "uppercase",
    "lookup",
];

/// Whether each part of the expression is evaluated once, by something that makes little of it. It is iterative, because the parser allows a
/// thousand levels.
pub(super) fn is_bounded(tree: &AstNode) -> bool {
    let mut pending = vec![tree];
    while let Some(node) = pending.pop() {
        match node {
            AstNode::String(_)
            | AstNode::Name(_)
            | AstNode::Number(_)
            | AstNode::Boolean(_)
            | AstNode::Null
            | AstNode::Undefined
            | AstNode::Variable(_) => {}
            AstNode::Path { steps } => {
                for (at, step) in steps.iter().enumerate() {
                    // What follows the first step is evaluated for each value of it; a name picks a part of the value.
                    if (at > 0 && !matches!(step.node, AstNode::Name(_)))
                        || step.focus.is_some()
                        || step.index_var.is_some()
                        || step.is_tuple
                    {
                        return false;
                    }
                    pending.push(&step.node);
                    for stage in &step.stages {
                        match stage {
                            Stage::Filter(predicate) => pending.push(predicate),
                            Stage::KeepArray => {}
                            Stage::Index(_) => return false,
                        }
                    }
                }
            }
            AstNode::Binary { op, lhs, rhs } => {
                if matches!(op, BinaryOp::Range | BinaryOp::ColonEqual | BinaryOp::FocusBind | BinaryOp::IndexBind | BinaryOp::ChainPipe) {
                    return false;
                }
                pending.extend([&**lhs, &**rhs]);
            }
            AstNode::Unary { operand, .. } => pending.push(operand),
            AstNode::Conditional { condition, then_branch, else_branch } => {
                pending.extend([&**condition, &**then_branch]);
                pending.extend(else_branch.as_deref());
            }
            // A picture of a time may ask for any number of digits.
            AstNode::Function { name, args, is_builtin: true }
                if LINEAR.contains(&name.as_str()) && (name != "fromMillis" || args.len() < 2) =>
            {
                pending.extend(args);
            }
            AstNode::Array(items) | AstNode::Block(items) => pending.extend(items),
            AstNode::Object(pairs) => pending.extend(pairs.iter().flat_map(|(key, value)| [key, value])),
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_people_are_bounded_and_loops_are_not() {
        let of = |text: &str| is_bounded(&jsonata_core::parser::parse(text).unwrap());
        for text in [
            "$output.missing = 0",
            "$exists($output.kept) and $output.kept > 0",
            "$visits < 3 ? true : false",
            "$count($output.keys[$ != 'A']) > 0",
            "'from ' & $params.from & ' to ' & $params.to",
            "{ \"n\": $steps.`find-gaps`.output.missing, \"all\": [1, $params.limit ?: 5] }",
            "$params.symbols[0]",
            "$millis() - $toMillis($run.started_at) > 3600 * 1000",
        ] {
            assert!(of(text), "{text}");
        }
        for text in [
            "[1..5]",
            "($a := $params.x & $params.x; $a & $a)",
            "$map($params.symbols, function($s) { $s & $s })",
            "$params.a.($params.b)",
            "$params.a.$params.b",
            "$params.a ~> $uppercase",
            "$join($params.a, $params.b)",
            "$replace($params.a, 'a', $params.b)",
            "$reduce([$params.x, $params.x], function($a, $b) { $a & $a & $b & $b })",
            "$params.**",
            "$fromMillis(0, '[Y,1000000000]')",
            "$params.a@$x.b",
        ] {
            assert!(!of(text), "{text}");
        }
    }
}
