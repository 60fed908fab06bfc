//! Checks that the steps lead somewhere: every step can be reached, an end can be reached from it, and every loop is bounded.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use petgraph::Direction;
use petgraph::algo::dominators::simple_fast;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Checker;
use crate::workflow::graph::{Way, graph, reached};
use crate::workflow::{Step, StepKind, Workflow};

/// How many steps of a loop a message names.
const SHOWN: usize = 8;

impl<'a> Checker<'a> {
    pub(super) fn shape(&mut self) {
        let draft: &'a _ = self.draft;
        let workflow = &draft.workflow;
        let graph = graph(workflow);
        if workflow.kind.is_dag() {
            return self.dag(&graph);
        }
        let Some(start) = graph.node_indices().find(|&node| graph[node].name == workflow.start) else { return };
        let reached_from_start = reached(&graph, [start], Direction::Outgoing);
        for node in graph.node_indices().filter(|node| !reached_from_start[node.index()]) {
            let message = format!("no run can reach step `{}`", graph[node].name);
            self.error(draft.steps[node.index()].name, message, "go to it from a `next` or `catch`, or remove it".to_owned());
        }
        let endless = self.endless(&graph);
        self.unbounded(&graph, &endless);
        let reached: Vec<NodeIndex> = graph.node_indices().filter(|node| reached_from_start[node.index()]).collect();
        self.findings_come_before(&graph, start, &reached);
    }

    /// Checks that a DAG has no cycles, and that steps that work on findings come after the detect step.
    fn dag(&mut self, graph: &DiGraph<&Step, Way>) {
        let draft: &'a _ = self.draft;
        for component in tarjan_scc(graph) {
            let turns_to_itself = component.first().is_some_and(|&node| graph.contains_edge(node, node));
            if (component.len() > 1 || turns_to_itself)
                && let Some(first) = component.iter().min()
            {
                let message = format!("these steps of the dag form a cycle: {}", way(graph, &component));
                self.error(draft.steps[first.index()].name, message, "remove one of them from the `after` of another".to_owned());
            }
        }
        for node in graph.node_indices() {
            let Some(of) = works_on(graph[node]) else { continue };
            let before = reached(graph, [node], Direction::Incoming);
            let looked = graph.node_indices().any(|other| other != node && before[other.index()] && graph[other].name == *of);
            if !looked && let Some(place) = draft.steps[node.index()].of {
                let message = format!("step `{}` does not come after step `{of}`, whose findings it needs", graph[node].name);
                self.error(place, message, format!("add `{of}` to its `after`"));
            }
        }
    }

    /// Checks that an end can be reached from every step. Each loop that a run could never leave is reported once.
    fn endless(&mut self, graph: &DiGraph<&Step, Way>) -> Vec<bool> {
        let draft: &'a _ = self.draft;
        let ends = graph.node_indices().filter(|&node| graph[node].next.is_empty());
        let ends = reached(graph, ends, Direction::Incoming);
        for component in tarjan_scc(graph) {
            let within: HashSet<NodeIndex> = component.iter().copied().collect();
            let caught = component.iter().all(|&node| !ends[node.index()] && graph.neighbors(node).all(|next| within.contains(&next)));
            if caught && let Some(first) = component.iter().min() {
                let message = format!("a run that comes here never ends: {}", way(graph, &component));
                let help = "give one of these steps a way out: another branch of `next`, or `end: true`".to_owned();
                self.error(draft.steps[first.index()].name, message, help);
            }
        }
        ends.iter().map(|ends| !ends).collect()
    }

    /// Checks that every loop is bounded: by `max_visits` of one of its steps, or by a condition that counts visits.
    fn unbounded(&mut self, graph: &DiGraph<&Step, Way>, endless: &[bool]) {
        let draft: &'a _ = self.draft;
        let counts = |step: &Step| step.next.iter().filter_map(|branch| branch.when.as_ref()).any(|when| when.references().counts_visits());
        let unbounded = graph.filter_map(
            |node, &step| (step.max_visits.is_none() && !endless[node.index()]).then_some((node, step)),
            |edge, way| {
                let from = graph.edge_endpoints(edge).map(|(from, _)| graph[from]);
                // A caught error leaves a step without checking its conditions.
                (matches!(way, Way::Catch(_)) || !from.is_some_and(counts)).then(|| way.clone())
            },
        );
        for component in tarjan_scc(&unbounded) {
            let turns_to_itself = |node| unbounded.contains_edge(node, node);
            if component.len() == 1 && !component.iter().copied().any(turns_to_itself) {
                continue;
            }
            let nodes: Vec<NodeIndex> = component.iter().map(|&node| unbounded[node].0).collect();
            if let Some(first) = nodes.iter().min() {
                let message = format!("nothing bounds this loop: {}", way(graph, &nodes));
                let help =
                    "count visits in a condition of one of these steps, e.g. `when: $visits < 3`, or give one a `max_visits`".to_owned();
                self.error(draft.steps[first.index()].name, message, help);
            }
        }
    }

    /// Checks that steps that repair, verify or aggregate findings come after the detect step, whichever way a run takes.
    fn findings_come_before(&mut self, graph: &DiGraph<&Step, Way>, start: NodeIndex, reached: &[NodeIndex]) {
        let draft: &'a _ = self.draft;
        let dominators = simple_fast(graph, start);
        let index: HashMap<&str, NodeIndex> = graph.node_indices().map(|node| (graph[node].name.as_str(), node)).collect();
        for &node in reached {
            let Some(of) = works_on(graph[node]) else { continue };
            let Some(&detect) = index.get(of.as_str()) else { continue };
            // All branches have ended before the step after them begins.
            let looked = |before: NodeIndex| before == detect || encloses(graph, before, detect);
            let comes_after = dominators.strict_dominators(node).is_some_and(|mut before| before.any(looked));
            if !comes_after && let Some(place) = draft.steps[node.index()].of {
                let message = format!("a run can reach step `{}` before step `{of}`, whose findings it needs", graph[node].name);
                self.error(place, message, format!("lead every way from `{}` through `{of}` first", draft.workflow.start));
            }
        }
    }
}

/// The detect step whose findings a step works on.
fn works_on(step: &Step) -> Option<&String> {
    match &step.kind {
        StepKind::Repair { of, .. } | StepKind::Verify { of } | StepKind::Aggregate { of: Some(of), .. } => Some(of),
        _ => None,
    }
}

/// Whether a step is in a branch of a parallel step, at any depth.
fn encloses(graph: &DiGraph<&Step, Way>, parallel: NodeIndex, step: NodeIndex) -> bool {
    let mut inside = graph[step].inside.as_ref();
    while let Some(within) = inside {
        if within.step == graph[parallel].name {
            return true;
        }
        inside = graph.node_indices().find(|&node| graph[node].name == within.step).and_then(|node| graph[node].inside.as_ref());
    }
    false
}

/// The names of the steps that a run can reach only after a given step.
pub(super) fn after(workflow: &Workflow, step: &str) -> HashSet<String> {
    let graph = graph(workflow);
    let node = |name: &str| graph.node_indices().find(|&node| graph[node].name == name);
    let Some(step) = node(step) else { return HashSet::new() };
    if workflow.kind.is_dag() {
        let after = reached(&graph, [step], Direction::Outgoing);
        return graph.node_indices().filter(|&node| node != step && after[node.index()]).map(|node| graph[node].name.clone()).collect();
    }
    let Some(start) = node(&workflow.start) else { return HashSet::new() };
    let dominators = simple_fast(&graph, start);
    let comes_after = |&node: &NodeIndex| dominators.strict_dominators(node).is_some_and(|mut before| before.any(|before| before == step));
    graph.node_indices().filter(comes_after).map(|node| graph[node].name.clone()).collect()
}

/// A loop through steps that can all reach each other, in the form `a → b → a`.
fn way(graph: &DiGraph<&Step, Way>, component: &[NodeIndex]) -> String {
    let within: HashSet<NodeIndex> = component.iter().copied().collect();
    let Some(&first) = component.iter().min() else { return String::new() };
    // Breadth-first search finds the shortest way back.
    let mut came_from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut queue = VecDeque::from([first]);
    'search: while let Some(node) = queue.pop_front() {
        for next in graph.neighbors(node).filter(|next| within.contains(next)) {
            if next == first {
                came_from.insert(first, node);
                break 'search;
            }
            if let Entry::Vacant(unseen) = came_from.entry(next) {
                unseen.insert(node);
                queue.push_back(next);
            }
        }
    }
    let mut steps = vec![first];
    while let Some(&before) = came_from.get(steps.last().unwrap_or(&first)) {
        steps.push(before);
        if before == first {
            break;
        }
    }
    steps.reverse();
    let names: Vec<&str> = steps.iter().map(|&node| graph[node].name.as_str()).collect();
    if names.len() > SHOWN {
        format!("{} → … → {}", names[..SHOWN - 1].join(" → "), names[names.len() - 1])
    } else {
        names.join(" → ")
    }
}
