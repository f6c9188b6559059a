//! Objects and derivations with what they refer to, in memory: what is live, and in which order the dead can go.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use crate::path::StorePath;

/// An object, a derivation, or a derivation that is also an object.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: StorePath,
    pub(super) object: Option<ObjectNode>,
    pub(super) is_derivation: bool,
    /// What it cannot be without.
    pub(super) references: Vec<u32>,
    /// What else is to stay as long as it does: its derivers, or its outputs.
    pub(super) companions: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObjectNode {
    pub(super) nar_size: u64,
    pub(super) registered_at: i64,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    by_path: HashMap<StorePath, u32>,
}

impl Graph {
    /// The node with this path, made if there is none.
    pub(super) fn node(&mut self, path: StorePath) -> &mut Node {
        let next = u32::try_from(self.nodes.len()).expect("a store holds fewer than 2^32 objects");
        let position = *self.by_path.entry(path.clone()).or_insert(next);
        if position == next {
            let (references, companions) = (Vec::new(), Vec::new());
            self.nodes.push(Node { path, object: None, is_derivation: false, references, companions });
        }
        &mut self.nodes[position as usize]
    }

    pub(super) fn position(&self, path: &StorePath) -> Option<u32> {
        self.by_path.get(path).copied()
    }

    pub(super) fn at(&self, position: u32) -> &Node {
        &self.nodes[position as usize]
    }
}

/// Which nodes of a graph stay.
#[derive(Debug)]
pub(super) struct Liveness(Vec<bool>);

impl Liveness {
    pub(super) fn none(graph: &Graph) -> Self {
        Self(vec![false; graph.nodes.len()])
    }

    pub(super) fn is_live(&self, position: u32) -> bool {
        self.0[position as usize]
    }

    /// Notes that a node stays, with everything that has to stay then.
    pub(super) fn mark(&mut self, graph: &Graph, root: u32) {
        let mut pending = vec![root];
        while let Some(position) = pending.pop() {
            if !std::mem::replace(&mut self.0[position as usize], true) {
                let node = graph.at(position);
                let next = node.references.iter().chain(&node.companions);
                pending.extend(next.filter(|next| !self.is_live(**next)));
            }
        }
    }

    /// The nodes that do not stay, each after those that refer to it, and among those that are free to go the oldest first;
    /// derivations are the last. The nodes of one group have to go together, since they may refer to one another.
    pub(super) fn dead_in_order(&self, graph: &Graph) -> Vec<Vec<u32>> {
        let dead = || (0..).zip(&self.0).filter(|(_, live)| !**live).map(|(position, _)| position);
        let others = |position: u32| {
            let references = graph.at(position).references.iter().copied();
            references.filter(move |reference| *reference != position && !self.is_live(*reference))
        };
        let mut referrers = vec![0_u32; self.0.len()];
        for reference in dead().flat_map(others) {
            referrers[reference as usize] += 1;
        }
        let age = |position| graph.at(position).object.map_or(i64::MAX, |object| object.registered_at);
        let mut free: BinaryHeap<Reverse<(i64, u32)>> = dead()
            .filter(|position| referrers[*position as usize] == 0)
            .map(|position| Reverse((age(position), position)))
            .collect();
        let mut circular: BTreeSet<u32> = dead().collect();
        let mut order = Vec::with_capacity(circular.len());
        while let Some(Reverse((_, position))) = free.pop() {
            circular.remove(&position);
            order.push(vec![position]);
            for reference in others(position) {
                referrers[reference as usize] -= 1;
                if referrers[reference as usize] == 0 {
                    free.push(Reverse((age(reference), reference)));
                }
            }
        }
        // Circles, and what only they refer to. No tool makes circles, so that it is not worth telling them apart.
        if !circular.is_empty() {
            order.push(circular.into_iter().collect());
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::path;
    use super::*;

    fn graph(edges: &[(u8, u8)]) -> Graph {
        let mut graph = Graph::default();
        for digit in 0..10 {
            let object = ObjectNode { nar_size: 1, registered_at: i64::from(digit) };
            graph.node(path(digit, "p")).object = Some(object);
        }
        for (from, to) in edges {
            let to = graph.position(&path(*to, "p")).unwrap();
            graph.node(path(*from, "p")).references.push(to);
        }
        graph
    }

    #[test]
    fn what_roots_reach_is_live() {
        let mut graph = graph(&[(0, 1), (1, 2), (2, 0), (3, 4), (5, 5), (6, 1)]);
        graph.node(path(2, "p")).companions.push(7);
        let mut live = Liveness::none(&graph);
        live.mark(&graph, 0);
        assert_eq!((0..10).filter(|position| live.is_live(*position)).collect::<Vec<_>>(), [0, 1, 2, 7]);
    }

    #[test]
    fn the_dead_go_after_their_referrers_and_the_oldest_first() {
        let graph = graph(&[(9, 1), (1, 0), (5, 5), (3, 2), (6, 7), (7, 6), (7, 8)]);
        let mut live = Liveness::none(&graph);
        live.mark(&graph, 2);
        let order = live.dead_in_order(&graph);
        assert_eq!(order, [vec![3], vec![4], vec![5], vec![9], vec![1], vec![0], vec![6, 7, 8]]);
    }
}
