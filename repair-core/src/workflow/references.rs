//! The names that an expression refers to, so that an unknown one is found when the workflow is read, and not during a run.

use std::collections::BTreeSet;

use jsonata_core::ast::{AstNode, BinaryOp, PathStep, Stage};

/// The names that an expression refers to.
#[derive(Debug, Clone, Default)]
pub(crate) struct References {
    /// The variables that the expression does not bind itself, each with the field names that follow it, as in `$steps.check.visits`.
    pub(crate) variables: Vec<(String, Vec<String>)>,
    /// The functions that the expression calls, as in `$count(…)`, and does not bind itself.
    pub(crate) functions: BTreeSet<String>,
    /// Field names that follow no variable. An expression has no context that they could belong to.
    pub(crate) fields: BTreeSet<String>,
    /// The fields of `$output` that a condition requires: all that it uses, unless it tests whether something exists.
    pub(crate) needed_output: BTreeSet<String>,
}

impl References {
    /// Whether the expression counts visits of a step, which bounds a loop.
    pub(crate) fn counts_visits(&self) -> bool {
        self.variables
            .iter()
            .any(|(name, fields)| name == "visits" || (name == "steps" && fields.get(1).is_some_and(|field| field == "visits")))
    }
}

/// The nodes still to visit, and whether a plain name there would be a field of the expression's own (empty) context.
type Pending<'a> = Vec<(&'a AstNode, bool)>;

/// Collects the names of an expression. It is iterative, because the parser allows a thousand levels and a thread's stack may be small.
pub(crate) fn references(tree: &AstNode) -> References {
    let mut found = References::default();
    let mut bound: BTreeSet<&str> = BTreeSet::new();
    let mut asks = false;
    let mut pending: Pending<'_> = vec![(tree, true)];
    while let Some((node, top)) = pending.pop() {
        match node {
            AstNode::Variable(name) => found.variables.push((name.clone(), Vec::new())),
            AstNode::Name(name) if top => {
                found.fields.insert(name.clone());
            }
            AstNode::Path { steps } => path(steps, top, &mut found, &mut bound, &mut pending),
            AstNode::Function { name, args, is_builtin } => {
                asks |= name == "exists";
                if *is_builtin {
                    found.functions.insert(name.clone());
                } else if top {
                    found.fields.insert(name.clone());
                }
                pending.extend(args.iter().map(|argument| (argument, top)));
            }
            AstNode::Binary { op, lhs, rhs } => {
                asks |= matches!(op, BinaryOp::Coalesce | BinaryOp::Default);
                match (op, &**lhs) {
                    (BinaryOp::ColonEqual, AstNode::Variable(name)) => {
                        bound.insert(name);
                    }
                    _ => pending.push((lhs, top)),
                }
                pending.push((rhs, top));
            }
            AstNode::Lambda { params, body, .. } => {
                bound.extend(params.iter().map(String::as_str));
                // The context of a function is that of its caller.
                pending.push((body, false));
            }
            AstNode::Conditional { condition, then_branch, else_branch } => {
                asks = true;
                pending.extend([(&**condition, top), (&**then_branch, top)]);
                pending.extend(else_branch.iter().map(|branch| (&**branch, top)));
            }
            AstNode::Unary { operand, .. } => pending.push((operand, top)),
            AstNode::Call { procedure, args } => {
                pending.push((procedure, top));
                pending.extend(args.iter().map(|argument| (argument, top)));
            }
            AstNode::Array(items) | AstNode::Block(items) | AstNode::ArrayGroup(items) => {
                pending.extend(items.iter().map(|item| (item, top)));
            }
            AstNode::Object(pairs) => pending.extend(pairs.iter().flat_map(|(key, value)| [(key, top), (value, top)])),
            AstNode::ObjectTransform { input, pattern } => {
                pending.push((input, top));
                pending.extend(pattern.iter().flat_map(|(key, value)| [(key, false), (value, false)]));
            }
            AstNode::FunctionApplication(inner) => pending.push((inner, false)),
            AstNode::Sort { input, terms } => {
                pending.push((input, top));
                pending.extend(terms.iter().map(|(term, _)| (term, false)));
            }
            AstNode::Transform { location, update, delete } => {
                pending.extend([(&**location, false), (&**update, false)]);
                pending.extend(delete.iter().map(|delete| (&**delete, false)));
            }
            _ => {}
        }
    }
    // `$` and `$$` are the (empty) context. A name that is bound anywhere in the expression counts as bound everywhere in it.
    found.variables.retain(|(name, _)| !name.is_empty() && name != "$" && !bound.contains(name.as_str()));
    found.functions.retain(|name| !bound.contains(name.as_str()));
    if !asks {
        let of_output = found.variables.iter().filter(|(name, _)| name == "output");
        found.needed_output = of_output.filter_map(|(_, fields)| fields.first().cloned()).collect();
    }
    found
}

fn path<'a>(steps: &'a [PathStep], top: bool, found: &mut References, bound: &mut BTreeSet<&'a str>, pending: &mut Pending<'a>) {
    for step in steps {
        bound.extend(step.focus.as_deref());
        bound.extend(step.index_var.as_deref());
        for stage in &step.stages {
            match stage {
                Stage::Filter(predicate) => pending.push((predicate, false)),
                Stage::Index(name) => {
                    bound.insert(name);
                }
                Stage::KeepArray => {}
            }
        }
    }
    let Some((first, rest)) = steps.split_first() else { return };
    match &first.node {
        AstNode::Variable(name) => {
            let fields = rest.iter().map_while(|step| match &step.node {
                AstNode::Name(name) => Some(name.clone()),
                _ => None,
            });
            found.variables.push((name.clone(), fields.collect()));
        }
        other => pending.push((other, top)),
    }
    pending.extend(rest.iter().map(|step| (&step.node, false)));
}
