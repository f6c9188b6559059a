//! Lays a graph out in layers, from left to right: what is needed stands left of what needs it.
//!
//! Each vertex goes as far to the right as what needs it allows. Edges that others imply are left out. Edges over several
//! layers run through a chain of points, which all edges of one producer share. (Sugiyama, Tagawa and Toda 1981, in its
//! simplest form.)

use std::collections::BTreeMap;

/// Distances in the drawing.
pub(super) const BOX_WIDTH: f64 = 212.0;
pub(super) const BOX_HEIGHT: f64 = 30.0;
const LAYER_WIDTH: f64 = 290.0;
const GAP: f64 = 12.0;
const POINT_GAP: f64 = 9.0;
const MARGIN: f64 = 24.0;
const SWEEPS: usize = 12;

/// Where everything is.
#[derive(Debug, PartialEq)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    /// The upper left corner of each vertex.
    pub(super) corners: Vec<(f64, f64)>,
    pub(super) lines: Vec<Line>,
}

/// A piece of an edge, from left to right.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Whether it comes straight through the column where it starts, past the boxes there.
    pub(super) passes: bool,
    pub(super) from: (f64, f64),
    pub(super) to: (f64, f64),
    /// Who is needed.
    pub(super) producer: usize,
    /// By whom: all that this piece leads to.
    pub(super) consumers: Vec<usize>,
}

/// Lays out a graph: for each vertex, which ones it needs.
pub(super) fn layout(needs: &[Vec<usize>]) -> Layout {
    let graph = Graph::new(needs);
    let mut columns = Columns::new(&graph);
    columns.reduce_crossings();
    columns.straighten();
    columns.draw(&graph)
}

/// The graph without cycles and without edges that others imply.
struct Graph {
    needs: Vec<Vec<usize>>,
    layers: Vec<usize>,
}

impl Graph {
    fn new(needs: &[Vec<usize>]) -> Self {
        let order = order(needs);
        let mut position = vec![0; needs.len()];
        for (at, vertex) in order.iter().enumerate() {
            position[*vertex] = at;
        }
        let words = needs.len().div_ceil(64);
        let mut reach: Vec<Vec<u64>> = vec![Vec::new(); needs.len()];
        let mut reduced = vec![Vec::new(); needs.len()];
        for vertex in order.iter().rev() {
            let mut inputs: Vec<usize> =
                needs[*vertex].iter().copied().filter(|input| position[*input] > position[*vertex]).collect();
            inputs.sort_by_key(|input| position[*input]);
            inputs.dedup();
            let mut seen = vec![0u64; words];
            for input in inputs {
                if seen[input / 64] >> (input % 64) & 1 == 0 {
                    reduced[*vertex].push(input);
                    seen[input / 64] |= 1 << (input % 64);
                    seen.iter_mut().zip(&reach[input]).for_each(|(all, more)| *all |= more);
                }
            }
            reach[*vertex] = seen;
        }
        let mut layers = vec![0; needs.len()];
        for vertex in &order {
            for input in &reduced[*vertex] {
                layers[*input] = layers[*input].max(layers[*vertex] + 1);
            }
        }
        Self { needs: reduced, layers }
    }
}

/// The vertices so that those which need others come before them; cycles are cut where they begin.
fn order(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut needed_by = vec![0; needs.len()];
    for input in needs.iter().flatten() {
        needed_by[*input] += 1;
    }
    let mut ready: Vec<usize> = (0..needs.len()).rev().filter(|vertex| needed_by[*vertex] == 0).collect();
    let mut done = vec![false; needs.len()];
    let mut order = Vec::with_capacity(needs.len());
    let mut next = 0;
    while order.len() < needs.len() {
        let vertex = match ready.pop() {
            Some(vertex) => vertex,
            None => {
                while done[next] {
                    next += 1;
                }
                next
            }
        };
        if std::mem::replace(&mut done[vertex], true) {
            continue;
        }
        order.push(vertex);
        for input in needs[vertex].iter().rev() {
            needed_by[*input] -= 1;
            if needed_by[*input] == 0 && !done[*input] {
                ready.push(*input);
            }
        }
    }
    order
}

/// A vertex, or a point of an edge's chain.
struct Item {
    /// The vertex, or whose chain it is.
    vertex: usize,
    is_point: bool,
    /// Items of the next column to the left that lead here, and of the one to the right where this leads.
    left: Vec<usize>,
    right: Vec<usize>,
    y: f64,
}

struct Columns {
    items: Vec<Item>,
    /// Items of each layer, from top to bottom. The first layer stands at the right.
    columns: Vec<Vec<usize>>,
}

impl Columns {
    fn new(graph: &Graph) -> Self {
        let count = graph.needs.len();
        let depth = graph.layers.iter().max().map_or(0, |deepest| deepest + 1);
        let item = |vertex, is_point| Item { vertex, is_point, left: Vec::new(), right: Vec::new(), y: 0.0 };
        let mut items: Vec<Item> = (0..count).map(|vertex| item(vertex, false)).collect();
        let mut columns = vec![Vec::new(); depth];
        let mut chains: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (consumer, inputs) in graph.needs.iter().enumerate() {
            for producer in inputs {
                // From the consumer leftwards, until a point of the chain is there already.
                let mut from = consumer;
                for layer in graph.layers[consumer] + 1..=graph.layers[*producer] {
                    let is_end = layer == graph.layers[*producer];
                    let known = if is_end { Some(*producer) } else { chains.get(&(*producer, layer)).copied() };
                    let to = known.unwrap_or(items.len());
                    if known.is_none() {
                        items.push(item(*producer, true));
                        chains.insert((*producer, layer), to);
                    }
                    if !items[from].left.contains(&to) {
                        items[from].left.push(to);
                        items[to].right.push(from);
                    }
                    from = to;
                    if known.is_some() {
                        break;
                    }
                }
            }
        }
        for (vertex, layer) in graph.layers.iter().enumerate() {
            columns[*layer].push(vertex);
        }
        for ((_, layer), point) in &chains {
            columns[*layer].push(*point);
        }
        Self { items, columns }
    }

    /// Sorts each column by where its neighbours are, from the right to the left and back.
    fn reduce_crossings(&mut self) {
        self.number();
        for sweep in 0..SWEEPS {
            let leftwards = sweep % 2 == 0;
            for step in 1..self.columns.len() {
                let column = if leftwards { step } else { self.columns.len() - 1 - step };
                let mut sorted = std::mem::take(&mut self.columns[column]);
                let keys: BTreeMap<usize, f64> = sorted
                    .iter()
                    .map(|item| (*item, self.middle(*item, leftwards).unwrap_or(self.items[*item].y)))
                    .collect();
                sorted.sort_by(|a, b| keys[a].total_cmp(&keys[b]));
                self.columns[column] = sorted;
                self.number_column(column);
            }
        }
    }

    fn number(&mut self) {
        (0..self.columns.len()).for_each(|column| self.number_column(column));
    }

    /// Evenly between zero and one, so that short and long columns can be compared.
    fn number_column(&mut self, column: usize) {
        let count = self.columns[column].len() as f64;
        for (at, item) in self.columns[column].iter().enumerate() {
            self.items[*item].y = (at as f64 + 0.5) / count;
        }
    }

    /// The mean place of the neighbours on one side.
    fn middle(&self, item: usize, on_the_right: bool) -> Option<f64> {
        let neighbours = if on_the_right { &self.items[item].right } else { &self.items[item].left };
        let sum: f64 = neighbours.iter().map(|neighbour| self.items[*neighbour].y).sum();
        (!neighbours.is_empty()).then(|| sum / neighbours.len() as f64)
    }

    fn half(&self, item: usize) -> f64 {
        if self.items[item].is_point { POINT_GAP / 2.0 } else { (BOX_HEIGHT + GAP) / 2.0 }
    }

    /// Moves everything as close to its neighbours as order and distances allow.
    fn straighten(&mut self) {
        let heights: Vec<f64> =
            self.columns.iter().map(|column| column.iter().map(|item| 2.0 * self.half(*item)).sum()).collect();
        let tallest = heights.iter().copied().fold(0.0, f64::max);
        for (column, height) in heights.iter().enumerate() {
            let mut y = (tallest - height) / 2.0;
            for at in 0..self.columns[column].len() {
                let item = self.columns[column][at];
                let half = self.half(item);
                self.items[item].y = y + half;
                y += 2.0 * half;
            }
        }
        for sweep in 0..SWEEPS {
            for step in 0..self.columns.len() {
                let column = if sweep % 2 == 0 { step } else { self.columns.len() - 1 - step };
                self.settle(column);
            }
        }
    }

    /// The best places for one column: least squares under fixed order and distances, by pooling neighbours that collide.
    fn settle(&mut self, column: usize) {
        let items = &self.columns[column];
        let mut offsets = Vec::with_capacity(items.len());
        let mut offset = 0.0;
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                offset += self.half(items[at - 1]) + self.half(*item);
            }
            offsets.push(offset);
        }
        // Each block: how many items, and where they want to start.
        let mut blocks: Vec<(usize, f64)> = Vec::new();
        for (item, offset) in items.iter().zip(&offsets) {
            let sides = [self.middle(*item, true), self.middle(*item, false)];
            let wishes: Vec<f64> = sides.into_iter().flatten().collect();
            let wish = match wishes.len() {
                0 => self.items[*item].y,
                count => wishes.iter().sum::<f64>() / count as f64,
            };
            let mut block = (1, wish - offset);
            while let Some(last) = blocks.last().filter(|last| last.1 >= block.1) {
                let count = last.0 + block.0;
                block = (count, (last.1 * last.0 as f64 + block.1 * block.0 as f64) / count as f64);
                blocks.pop();
            }
            blocks.push(block);
        }
        let starts = blocks.iter().flat_map(|(count, start)| std::iter::repeat_n(*start, *count));
        let places: Vec<(usize, f64)> =
            items.iter().zip(&offsets).zip(starts).map(|((item, offset), start)| (*item, start + offset)).collect();
        for (item, y) in places {
            self.items[item].y = y;
        }
    }

    fn draw(&self, graph: &Graph) -> Layout {
        let top = self.items.iter().map(|item| item.y).fold(f64::MAX, f64::min);
        let bottom = self.items.iter().map(|item| item.y).fold(0.0, f64::max);
        let top = if self.items.is_empty() { 0.0 } else { top };
        let shift = MARGIN + BOX_HEIGHT / 2.0 - top;
        let depth = self.columns.len();
        let left_of = |layer: usize| MARGIN + (depth - 1 - layer) as f64 * LAYER_WIDTH;
        let mut layer_of = vec![0; self.items.len()];
        for (layer, column) in self.columns.iter().enumerate() {
            column.iter().for_each(|item| layer_of[*item] = layer);
        }
        let count = graph.needs.len();
        let y = |item: usize| (self.items[item].y + shift).round();
        let corners = (0..count).map(|vertex| (left_of(layer_of[vertex]), y(vertex) - BOX_HEIGHT / 2.0)).collect();
        let mut lines = Vec::new();
        for (to, item) in self.items.iter().enumerate() {
            for from in &item.left {
                let end = left_of(layer_of[to]);
                lines.push(Line {
                    passes: self.items[*from].is_point,
                    from: (left_of(layer_of[*from]) + BOX_WIDTH, y(*from)),
                    to: (end, y(to)),
                    producer: self.items[*from].vertex,
                    consumers: self.consumers(to),
                });
            }
        }
        let width = if depth == 0 { 0.0 } else { left_of(0) + BOX_WIDTH + MARGIN };
        Layout { width, height: (bottom - top + BOX_HEIGHT + 2.0 * MARGIN).round(), corners, lines }
    }

    /// The vertices that a point leads to, or the vertex itself.
    fn consumers(&self, item: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut pending = vec![item];
        while let Some(item) = pending.pop() {
            if self.items[item].is_point {
                pending.extend(&self.items[item].right);
            } else {
                found.push(self.items[item].vertex);
            }
        }
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes_do_not_overlap(layout: &Layout) {
        for (at, a) in layout.corners.iter().enumerate() {
            assert!(a.0 >= 0.0 && a.1 >= 0.0 && a.0 + BOX_WIDTH <= layout.width && a.1 + BOX_HEIGHT <= layout.height);
            for b in &layout.corners[at + 1..] {
                assert!((a.0 - b.0).abs() >= BOX_WIDTH || (a.1 - b.1).abs() >= BOX_HEIGHT, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn what_is_needed_stands_left_and_implied_edges_are_left_out() {
        // 0 needs 1 and 2, 1 needs 2.
        let layout = layout(&[vec![1, 2], vec![2], vec![]]);
        boxes_do_not_overlap(&layout);
        assert!(layout.corners[2].0 < layout.corners[1].0 && layout.corners[1].0 < layout.corners[0].0);
        let edges: Vec<_> = layout.lines.iter().map(|line| (line.producer, line.consumers.clone())).collect();
        assert_eq!(edges, [(1, vec![0]), (2, vec![1])]);
    }

    #[test]
    fn long_edges_of_one_producer_share_their_way() {
        // 0 needs 1, 1 needs 2, 2 needs 3; 4 and 5 need 3 directly, and so do not go through the others.
        let layout = layout(&[vec![1], vec![2], vec![3], vec![], vec![3], vec![3]]);
        boxes_do_not_overlap(&layout);
        let long: Vec<_> = layout.lines.iter().filter(|line| line.consumers == [4, 5]).collect();
        assert_eq!(long.len(), 2, "{layout:?}");
        assert!(long.iter().all(|line| line.producer == 3));
    }

    #[test]
    fn no_graph_is_too_odd() {
        assert_eq!(layout(&[]).corners, []);
        for needs in [vec![vec![0]], vec![vec![1], vec![0]], vec![vec![1], vec![2], vec![1]], vec![vec![], vec![0, 0]]]
        {
            let layout = layout(&needs);
            boxes_do_not_overlap(&layout);
            assert_eq!(layout.corners.len(), needs.len());
        }
    }

    #[test]
    fn large_graphs_are_laid_out_the_same_each_time() {
        let needs: Vec<Vec<usize>> = (0..400usize)
            .map(|vertex| (1..=vertex % 4).map(|step| vertex + step * step * 7).filter(|to| *to < 400).collect())
            .collect();
        let first = layout(&needs);
        boxes_do_not_overlap(&first);
        assert_eq!(first, layout(&needs));
    }
}
