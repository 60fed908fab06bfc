//! What an expression speaks of: so that a name that means nothing is found when the workflow is read, not when the run comes there.

use std::collections::BTreeSet;

use jsonata_core::ast::{AstNode, BinaryOp, PathStep, Stage};

/// What an expression speaks of.
#[derive(Debug, Clone, Default)]
pub(crate) struct References {
    /// Variables not bound by the expression itself, each with the plain field names that follow it: `$steps.check.visits`.
    pub(crate) variables: Vec<(String, Vec<String>)>,
    /// Functions called, `$count(…)`, not bound by the expression itself.
    pub(crate) functions: BTreeSet<String>,
    /// Field names that follow nothing: a condition has no context that they could be fields of.
    pub(crate) fields: BTreeSet<String>,
    /// Fields of `$output` without which a condition means nothing: all, unless the expression itself asks whether something is there.
    pub(crate) needed_output: BTreeSet<String>,
}

impl References {
    /// Whether it counts visits of a step: what bounds a loop.
    pub(crate) fn counts_visits(&self) -> bool {
        self.variables
            .iter()
            .any(|(name, fields)| name == "visits" || (name == "steps" && fields.get(1).is_some_and(|field| field == "visits")))
    }
}

/// What is still to be looked at, and whether names there would be fields of the expression's own (empty) context.
type Pending<'a> = Vec<(&'a AstNode, bool)>;

/// Looks through an expression. Iterative: the parser allows a thousand levels, a thread's stack may be small.
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
                // A function's context is that of its caller.
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
    // `$` and `$$` are the (empty) context; a name bound anywhere within is taken to be bound everywhere within.
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
