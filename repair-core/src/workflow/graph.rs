//! A workflow as a graph, for the checks of its shape and for drawings.

use std::collections::HashMap;
use std::fmt::Write;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::workflow::{AfterIf, ErrorMatch, RunIf, Step, StepKind, Wait, Workflow};

/// Why a run goes from one step to another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// By a branch of `next`, given by its index.
    Next(usize),
    /// By a rule of `catch`, given by its index.
    Catch(usize),
    /// Into a branch of a parallel step, given by its index.
    Branch(usize),
    /// In a DAG, to a step that comes after.
    After,
}

/// The steps, in the order of the text, and the ways between them. Ways to steps that do not exist are left out.
pub fn graph(workflow: &Workflow) -> DiGraph<&Step, Way> {
    let mut graph = DiGraph::with_capacity(workflow.steps.len(), workflow.steps.len());
    let index: HashMap<&str, NodeIndex> = workflow.steps.iter().map(|step| (step.name.as_str(), graph.add_node(step))).collect();
    for step in &workflow.steps {
        let Some(&from) = index.get(step.name.as_str()) else { continue };
        let next = step.next.iter().enumerate().map(|(at, branch)| (&branch.goto, Way::Next(at)));
        let catch = step.catch.iter().enumerate().map(|(at, rule)| (&rule.goto, Way::Catch(at)));
        for (goto, way) in next.chain(catch) {
            if let Some(&to) = index.get(goto.as_str()) {
                graph.add_edge(from, to, way);
            }
        }
        if let StepKind::Parallel { branches } = &step.kind {
            for (at, branch) in branches.iter().enumerate() {
                if let Some(&to) = index.get(branch.start.as_str()) {
                    graph.add_edge(from, to, Way::Branch(at));
                }
            }
        }
        for before in &step.after {
            if let Some(&before) = index.get(before.as_str()) {
                graph.add_edge(before, from, Way::After);
            }
        }
    }
    graph
}

/// A way from one step to another, for drawings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrow {
    /// Where it begins: an index of [`Workflow::steps`].
    pub from: usize,
    /// Where it leads.
    pub to: usize,
    /// When it is taken, in words; empty if always.
    pub label: String,
    /// Whether it is taken when an error is caught.
    pub catches: bool,
}

/// The ways between the steps of a workflow.
pub fn arrows(workflow: &Workflow) -> Vec<Arrow> {
    let graph = graph(workflow);
    let arrow = |edge: petgraph::graph::EdgeReference<'_, Way>| Arrow {
        from: edge.source().index(),
        to: edge.target().index(),
        label: label(graph[edge.source()], edge.weight(), graph[edge.target()]),
        catches: matches!(edge.weight(), Way::Catch(_)),
    };
    graph.edge_references().map(arrow).collect()
}

/// What a step names in addition to its kind: its plug-in, the detect step that it checks again, or why it fails.
pub fn subject(step: &Step) -> String {
    match &step.kind {
        StepKind::Detect { plugin, .. } | StepKind::Aggregate { plugin, .. } | StepKind::Task { plugin, .. } => plugin.clone(),
        StepKind::Repair { strategies, .. } => strategies.iter().map(|strategy| strategy.name.as_str()).collect::<Vec<_>>().join(", then "),
        StepKind::Verify { of } => of.clone(),
        StepKind::Fail { message } => message.clone(),
        StepKind::Workflow { name, .. } => name.clone(),
        StepKind::Map(map) => map.name.clone().unwrap_or_else(|| {
            let names: Vec<&str> = map.workflow.steps.iter().map(|step| step.name.as_str()).collect();
            names.join(", ")
        }),
        StepKind::Wait(Wait::Sensor(wait)) => wait.plugin.clone(),
        StepKind::Wait(_) | StepKind::Parallel { .. } | StepKind::Succeed => String::new(),
    }
}

fn label(step: &Step, way: &Way, to: &Step) -> String {
    match way {
        Way::Branch(at) => match &step.kind {
            StepKind::Parallel { branches } => branches.get(*at).map(|branch| branch.name.clone()).unwrap_or_default(),
            _ => String::new(),
        },
        Way::After if !to.after_if.is_empty() => {
            let condition = to.after.iter().zip(&to.after_if).find(|(before, _)| **before == step.name).map(|(_, condition)| *condition);
            // Without a label, a step comes after one that succeeded.
            condition.filter(|condition| *condition != AfterIf::Succeeded).map_or_else(String::new, |condition| condition.word().to_owned())
        }
        Way::After => match to.run_if {
            RunIf::AllSucceeded => String::new(),
            other => RunIf::ALL.into_iter().find(|(_, run_if)| *run_if == other).map_or(String::new(), |(word, _)| word.replace('_', " ")),
        },
        Way::Next(at) => match step.next.get(*at).and_then(|branch| branch.when.as_ref()) {
            Some(when) => when.text().to_owned(),
            // A single branch needs no label; after conditions, it is the rest.
            None if step.next.len() > 1 => "otherwise".to_owned(),
            None => String::new(),
        },
        Way::Catch(at) => match step.catch.get(*at).map(|rule| &rule.on) {
            Some(ErrorMatch::Kinds(kinds)) => kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "),
            _ => "any error".to_owned(),
        },
    }
}

/// Whether the run ends after a step. The end of a branch is not the end of the run.
fn ends(step: &Step) -> bool {
    step.next.is_empty() && step.inside.is_none()
}

/// The workflow as a Mermaid flowchart, which Markdown viewers draw: a box for each step and an arrow for each way, dotted where an error
/// is caught.
pub fn to_mermaid(workflow: &Workflow) -> String {
    let graph = graph(workflow);
    let mut text = String::from("flowchart TD\n");
    let quoted = |text: &str| {
        text.replace('#', "#35;").replace('&', "#38;").replace('"', "#34;").replace('<', "#60;").replace('>', "#62;").replace('\n', " ")
    };
    for node in graph.node_indices() {
        let step = graph[node];
        let (open, close) = match step.kind {
            StepKind::Wait(_) => ("([", "])"),
            StepKind::Succeed | StepKind::Fail { .. } => ("((", "))"),
            _ => ("[", "]"),
        };
        let words = format!("{} {}", step.kind.word(), subject(step));
        let _ = writeln!(text, "    s{}{open}\"{}<br/><small>{}</small>\"{close}", node.index(), quoted(&step.name), quoted(words.trim()));
    }
    if let Some(start) = graph.node_indices().find(|&node| graph[node].name == workflow.start) {
        let _ = writeln!(text, "    begin(( )) --> s{}", start.index());
    }
    for edge in graph.edge_references() {
        let (from, to, words) =
            (edge.source().index(), edge.target().index(), label(graph[edge.source()], edge.weight(), graph[edge.target()]));
        let arrow = if matches!(edge.weight(), Way::Catch(_)) { "-.->" } else { "-->" };
        let words = if words.is_empty() { String::new() } else { format!("|\"{}\"|", quoted(&words)) };
        let _ = writeln!(text, "    s{from} {arrow}{words} s{to}");
    }
    let ends = |node: &NodeIndex| ends(graph[*node]) && graph.edges(*node).all(|edge| *edge.weight() != Way::After);
    if graph.node_indices().any(|node| ends(&node)) {
        text.push_str("    finish((( )))\n");
    }
    for node in graph.node_indices().filter(ends) {
        let _ = writeln!(text, "    s{} --> finish", node.index());
    }
    text
}

/// The workflow in Graphviz's DOT language, with dashed arrows where an error is caught.
pub fn to_dot(workflow: &Workflow) -> String {
    let graph = graph(workflow);
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " "));
    let mut text = format!("digraph {} {{\n    node [shape=box, style=rounded, fontname=\"sans-serif\"];\n", quoted(&workflow.name));
    text.push_str("    edge [fontname=\"sans-serif\", fontsize=10];\n    begin [shape=circle, label=\"\", width=0.2, style=filled];\n");
    for node in graph.node_indices() {
        let step = graph[node];
        let border = if ends(step) { ", peripheries=2" } else { "" };
        let words = format!("{} {}", step.kind.word(), subject(step));
        // `\n` within a label is a line break to Graphviz.
        let label = format!("{}\\n{}", quoted(&step.name), quoted(words.trim())).replace("\"\\n\"", "\\n");
        let _ = writeln!(text, "    s{} [label={label}{border}];", node.index());
    }
    if let Some(start) = graph.node_indices().find(|&node| graph[node].name == workflow.start) {
        let _ = writeln!(text, "    begin -> s{};", start.index());
    }
    for edge in graph.edge_references() {
        let words = quoted(&label(graph[edge.source()], edge.weight(), graph[edge.target()]));
        let style = if matches!(edge.weight(), Way::Catch(_)) { ", style=dashed" } else { "" };
        let _ = writeln!(text, "    s{} -> s{} [label={words}{style}];", edge.source().index(), edge.target().index());
    }
    text.push_str("}\n");
    text
}

/// For each step, whether it can be reached from one of `from`, following the ways in a direction.
pub(crate) fn reached(graph: &DiGraph<&Step, Way>, from: impl IntoIterator<Item = NodeIndex>, direction: Direction) -> Vec<bool> {
    let mut reached = vec![false; graph.node_count()];
    let mut pending: Vec<NodeIndex> = from.into_iter().collect();
    while let Some(node) = pending.pop() {
        if !std::mem::replace(&mut reached[node.index()], true) {
            pending.extend(graph.neighbors_directed(node, direction));
        }
    }
    reached
}
