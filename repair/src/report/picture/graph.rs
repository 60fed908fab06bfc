//! The workflow as a graph in layers, with the path that a run took. A step is one layer below the lowest of those that lead to it; ways
//! back are drawn at the side.

use super::markup::{At, Markup, shortened};
use super::{Picture, float};
use crate::report::model::{Edge, Graph, Node};

const BOX: (f64, f64) = (150.0, 40.0);
const SPACE: (f64, f64) = (44.0, 56.0);
/// How wide a way is where it passes a layer.
const PASS: f64 = 26.0;
/// How often the order within layers is improved. More sweeps change little.
const SWEEPS: usize = 6;
/// More steps than this are not drawn: nobody could read it.
pub(in crate::report) const MOST_STEPS: usize = 120;

/// What stands in a layer: a step, or a way that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Step(usize),
    /// The way with this index, at this layer.
    Pass(usize),
}

/// Where everything is.
#[derive(Debug)]
struct Layout {
    /// The layer of each step.
    layers: Vec<usize>,
    /// What is in each layer, from left to right.
    order: Vec<Vec<Place>>,
    /// For each way, whether it leads back.
    back: Vec<bool>,
}

/// Which ways lead back to a step that is being looked at, from the first step on.
fn ways_back(graph: &Graph) -> Vec<bool> {
    let count = graph.nodes.len();
    let mut back = vec![false; graph.edges.len()];
    // 0 is new, 1 is on the path, 2 is done.
    let mut state = vec![0u8; count];
    for root in 0..count {
        if state[root] != 0 {
            continue;
        }
        state[root] = 1;
        let mut path = vec![(root, 0)];
        while let Some((step, next)) = path.last_mut() {
            let step = *step;
            let from = graph.edges.iter().enumerate().filter(|(_, edge)| edge.from == step && edge.to < count).nth(*next);
            *next += 1;
            match from {
                None => {
                    state[step] = 2;
                    path.pop();
                }
                Some((index, edge)) if state[edge.to] == 1 => back[index] = true,
                Some((_, edge)) if state[edge.to] == 0 => {
                    state[edge.to] = 1;
                    path.push((edge.to, 0));
                }
                Some(_) => {}
            }
        }
    }
    back
}

/// The layer of each step: the length of the longest way to it.
fn layers(graph: &Graph, back: &[bool]) -> Vec<usize> {
    let mut layers = vec![0; graph.nodes.len()];
    // Without the ways back there is no cycle, so no way is longer than there are steps.
    for _ in 0..graph.nodes.len() {
        let mut changed = false;
        for (edge, _) in graph.edges.iter().zip(back).filter(|(_, back)| !**back) {
            let (Some(&from), Some(&to)) = (layers.get(edge.from), layers.get(edge.to)) else { continue };
            if to <= from {
                layers[edge.to] = from + 1;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    layers
}

/// The graph with one way from each step to each other: the labels of several are joined.
fn joined(graph: &Graph) -> Graph {
    let mut edges: Vec<Edge> = Vec::new();
    for edge in &graph.edges {
        match edges.iter_mut().find(|other| (other.from, other.to, other.catches) == (edge.from, edge.to, edge.catches)) {
            // A run's journal counts all of them together.
            Some(other) if !edge.label.is_empty() => other.label = format!("{}; {}", other.label, edge.label),
            Some(_) => {}
            None => edges.push(edge.clone()),
        }
    }
    Graph { nodes: graph.nodes.clone(), edges }
}

fn layout(graph: &Graph) -> Layout {
    let back = ways_back(graph);
    let layers = layers(graph, &back);
    let mut order: Vec<Vec<Place>> = vec![Vec::new(); layers.iter().max().map_or(0, |last| last + 1)];
    for (step, layer) in layers.iter().enumerate() {
        order[*layer].push(Place::Step(step));
    }
    for (index, (edge, back)) in graph.edges.iter().zip(&back).enumerate() {
        if !back && edge.from < layers.len() && edge.to < layers.len() {
            order[layers[edge.from] + 1..layers[edge.to]].iter_mut().for_each(|layer| layer.push(Place::Pass(index)));
        }
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let all = if down { (1..order.len()).collect::<Vec<_>>() } else { (0..order.len().saturating_sub(1)).rev().collect() };
        for layer in all {
            let beside = order[if down { layer - 1 } else { layer + 1 }].clone();
            let position = |place: Place| beside.iter().position(|other| *other == place).map(float);
            let mut sorted: Vec<(f64, usize, Place)> = order[layer]
                .iter()
                .enumerate()
                .map(|(at, place)| (middle(graph, &back, *place, down, &position).unwrap_or(float(at)), at, *place))
                .collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            order[layer] = sorted.into_iter().map(|(_, _, place)| place).collect();
        }
    }
    Layout { layers, order, back }
}

/// The mean position of what a place is joined to in the layer beside it.
fn middle(graph: &Graph, back: &[bool], place: Place, down: bool, position: &impl Fn(Place) -> Option<f64>) -> Option<f64> {
    let ends = |index: usize, edge: &Edge| {
        let other = if down { edge.from } else { edge.to };
        position(Place::Pass(index)).or_else(|| position(Place::Step(other)))
    };
    let found: Vec<f64> = match place {
        Place::Pass(index) => graph.edges.get(index).and_then(|edge| ends(index, edge)).into_iter().collect(),
        Place::Step(step) => {
            let own = |edge: &Edge| if down { edge.to == step } else { edge.from == step };
            let edges = graph.edges.iter().enumerate().filter(|(index, edge)| !back[*index] && own(edge));
            edges.filter_map(|(index, edge)| ends(index, edge)).collect()
        }
    };
    (!found.is_empty()).then(|| found.iter().sum::<f64>() / float(found.len()))
}

/// The picture of a graph.
pub(in crate::report) fn chart(graph: &Graph) -> Picture {
    let graph = &joined(graph);
    let layout = layout(graph);
    let wide = |place: &Place| if matches!(place, Place::Step(_)) { BOX.0 } else { PASS };
    let width_of = |layer: &[Place]| layer.iter().map(wide).sum::<f64>() + SPACE.0 * float(layer.len().saturating_sub(1));
    let width = layout.order.iter().map(|layer| width_of(layer)).fold(0.0, f64::max);
    let lanes = layout.back.iter().filter(|back| **back).count();
    // What leads back to the first layer comes in from above.
    let above = if lanes > 0 && graph.edges.iter().zip(&layout.back).any(|(edge, back)| *back && layout.layers.get(edge.to) == Some(&0)) {
        24.0 + 5.0 * float(lanes)
    } else {
        4.0
    };
    let top = |layer: usize| above + float(layer) * (BOX.1 + SPACE.1);
    let left = |place: Place, layer: usize| -> f64 {
        let Some(all) = layout.order.get(layer) else { return 0.0 };
        let mut x = (width - width_of(all)) / 2.0 + 4.0;
        for other in all {
            if *other == place {
                break;
            }
            x += wide(other) + SPACE.0;
        }
        x
    };
    let mut body = Markup::default();
    let mut labels = Markup::default();
    // How far labels reach to the left and to the right.
    let (mut least, mut most) = (0.0f64, 0.0f64);
    let mut lane = 0;
    for (index, edge) in graph.edges.iter().enumerate() {
        let (Some(&from), Some(&to)) = (layout.layers.get(edge.from), layout.layers.get(edge.to)) else { continue };
        let class = if edge.taken > 0 { "way taken" } else { "way" };
        let (from_left, to_left) = (left(Place::Step(edge.from), from), left(Place::Step(edge.to), to));
        let (path, place, tip) = if layout.back[index] {
            // Out of the bottom, between the layers to a lane at the side, up, and into the top.
            let side = width + 18.0 + 16.0 * float(lane);
            let (y1, y2) = (top(from) + BOX.1 + 22.0 + 5.0 * float(lane), top(to) - 18.0 - 5.0 * float(lane));
            lane += 1;
            let (x1, x2) = (from_left + BOX.0 * 0.92, to_left + BOX.0 * 0.88);
            let path = format!(
                "M{} {}V{}Q{} {} {} {}H{}Q{} {} {} {}V{}Q{} {} {} {}H{}Q{} {} {} {}V{}",
                At(x1),
                At(top(from) + BOX.1),
                At(y1 - 8.0),
                At(x1),
                At(y1),
                At(x1 + 8.0),
                At(y1),
                At(side - 8.0),
                At(side),
                At(y1),
                At(side),
                At(y1 - 8.0),
                At(y2 + 8.0),
                At(side),
                At(y2),
                At(side - 8.0),
                At(y2),
                At(x2 + 8.0),
                At(x2),
                At(y2),
                At(x2),
                At(y2 + 8.0),
                At(top(to) - 5.0)
            );
            (path, (side - 12.0, y1 - 5.0, "small soft end halo"), format!("M{} {}l-4 -7h8z", At(x2), At(top(to) - 1.0)))
        } else {
            let outgoing: Vec<usize> =
                (0..graph.edges.len()).filter(|other| graph.edges[*other].from == edge.from && !layout.back[*other]).collect();
            let mut stops: Vec<(f64, f64, f64)> = Vec::new();
            for layer in from + 1..to {
                let x = left(Place::Pass(index), layer) + PASS / 2.0;
                stops.push((x, top(layer), top(layer) + BOX.1));
            }
            let mut ranked = outgoing.clone();
            let target = |other: usize| {
                let other_to = layout.layers[graph.edges[other].to];
                if other_to > from + 1 { left(Place::Pass(other), from + 1) } else { left(Place::Step(graph.edges[other].to), other_to) }
            };
            ranked.sort_by(|a, b| target(*a).total_cmp(&target(*b)));
            let rank = ranked.iter().position(|other| *other == index).unwrap_or(0);
            let x1 = from_left + BOX.0 * (float(rank) + 1.0) / (float(ranked.len()) + 1.0);
            let (mut x, mut y) = (x1, top(from) + BOX.1);
            let mut path = format!("M{} {}", At(x), At(y));
            let mut curve = |x2: f64, y2: f64, x: &mut f64, y: &mut f64| {
                let half = f64::midpoint(*y, y2);
                path.push_str(&format!("C{} {} {} {} {} {}", At(*x), At(half), At(x2), At(half), At(x2), At(y2)));
                (*x, *y) = (x2, y2);
            };
            for (stop, from_y, to_y) in stops {
                curve(stop, from_y, &mut x, &mut y);
                curve(stop, to_y, &mut x, &mut y);
            }
            let end = to_left + BOX.0 / 2.0;
            curve(end, top(to) - 5.0, &mut x, &mut y);
            // The label is where the way begins: outside, if there are several.
            let y = top(from) + BOX.1 + 14.0;
            let place = match rank {
                _ if ranked.len() == 1 => (x1 + 6.0, y, "small soft halo"),
                0 => (x1 - 6.0, y, "small soft end halo"),
                last if last + 1 == ranked.len() => (x1 + 6.0, y, "small soft halo"),
                middle => (x1, y + 11.0 * float(middle), "small soft mid halo"),
            };
            (path, place, format!("M{} {}l-4 -7h8z", At(end), At(top(to) - 1.0)))
        };
        body.empty("path", &[("class", &class), ("d", &path)]);
        body.empty("path", &[("class", &if edge.taken > 0 { "tip taken" } else { "tip" }), ("d", &tip)]);
        let times = if edge.taken > 1 { format!(" (×{})", edge.taken) } else { String::new() };
        let words = format!("{}{times}", shortened(&edge.label, 34));
        if !words.is_empty() {
            let long = float(words.chars().count()) * 6.0;
            let from = if place.2.contains(" end ") { place.0 - long } else { place.0 };
            (least, most) = (least.min(from), most.max(from + long));
            labels.leaf("text", &[("class", &place.2), ("x", &At(place.0)), ("y", &At(place.1))], words.trim());
        }
    }
    for (step, node) in graph.nodes.iter().enumerate() {
        let layer = layout.layers.get(step).copied().unwrap_or(0);
        draw(&mut body, node, left(Place::Step(step), layer), top(layer));
    }
    body.add(&labels);
    let entered = graph.nodes.iter().filter(|node| node.visits > 0).count();
    let last = layout.order.len().saturating_sub(1);
    let below = if layout.back.iter().zip(&graph.edges).any(|(back, edge)| *back && layout.layers.get(edge.from) == Some(&last)) {
        46.0
    } else {
        6.0
    };
    let height = top(last) + BOX.1 + below;
    let side = if lanes > 0 { 26.0 + 16.0 * float(lanes) } else { 8.0 };
    let title = format!("The workflow as a graph: the run entered {entered} of {} steps", graph.nodes.len());
    let mut shifted = Markup::default();
    shifted.open("g", &[("transform", &format!("translate({} 0)", At(-least)))]).add(&body).close("g");
    Picture { title, width: (width + side + 4.0).max(most) - least, height, body: shifted, cells: None }
}

fn draw(body: &mut Markup, node: &Node, x: f64, y: f64) {
    let class = match (node.visits, node.failed) {
        (0, _) => "box",
        (_, false) => "box taken",
        (_, true) => "box taken failed",
    };
    body.open("g", &[]);
    let visits = match node.visits {
        0 => "not entered".to_owned(),
        1 => "entered once".to_owned(),
        more => format!("entered {more} times"),
    };
    body.leaf("title", &[], format!("{}: {}; {visits}", node.name, node.what));
    body.empty("rect", &[("class", &class), ("x", &At(x)), ("y", &At(y)), ("width", &At(BOX.0)), ("height", &At(BOX.1)), ("rx", &"7")]);
    let middle = At(x + BOX.0 / 2.0);
    let times = if node.visits > 1 { format!(" ×{}", node.visits) } else { String::new() };
    body.leaf("text", &[("class", &"mid"), ("x", &middle), ("y", &At(y + 17.0))], format!("{}{times}", shortened(&node.name, 18)));
    body.leaf("text", &[("class", &"soft small mid"), ("x", &middle), ("y", &At(y + 31.0))], shortened(&node.what, 25));
    body.close("g");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(usize, usize)], count: usize) -> Graph {
        let node = |index: usize| Node { name: format!("s{index}"), what: "task".to_owned(), visits: 1, failed: false };
        let edge = |(from, to): &(usize, usize)| Edge { from: *from, to: *to, label: String::new(), catches: false, taken: 0 };
        Graph { nodes: (0..count).map(node).collect(), edges: edges.iter().map(edge).collect() }
    }

    #[test]
    fn each_way_leads_down_or_is_a_way_back() {
        let graph = graph(&[(0, 1), (1, 2), (2, 1), (0, 3), (2, 3), (3, 3)], 4);
        let layout = layout(&graph);
        assert_eq!(layout.layers, [0, 1, 2, 3]);
        assert_eq!(layout.back, [false, false, true, false, false, true]);
        assert_eq!(layout.order[1].len(), 2, "the way from 0 to 3 passes beside 1");
    }

    #[test]
    fn ways_that_need_not_cross_do_not() {
        // 0 → 1, 2; 1 → 4; 2 → 3: in the order of the text, the last two ways would cross.
        let layout = layout(&graph(&[(0, 1), (0, 2), (1, 4), (2, 3)], 5));
        assert_eq!(layout.order[2], [Place::Step(4), Place::Step(3)]);
    }
}
