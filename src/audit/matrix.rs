//! Which pods can send packets to which.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{forwarding::Direction, model::Family};

/// What happens to packets from the pods of one node to those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PairState {
    /// There is nothing to check: it is the same node, or one of the two has no pods.
    Nothing,
    /// They take the planned path.
    Works,
    /// They take another path that may lead to the same pods.
    Diverted,
    /// It is not known, because a snapshot is missing, a node has no pod interface, or hostgw cannot tell what a node does.
    Unknown,
    /// They are lost.
    Lost,
}

impl PairState {
    /// The letter in the matrix of `hostgw audit --json`.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Nothing => '.',
            Self::Works => 'w',
            Self::Diverted => 'd',
            Self::Unknown => 'u',
            Self::Lost => 'x',
        }
    }
}

/// What one node does with the packets from and to its pods, for each other node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// For each other node, the states of both directions; empty if all packets take the planned path.
    cells: Vec<[PairState; 2]>,
    /// The states of the packets of all nodes, by family and direction.
    rest: Option<[[PairState; 2]; 2]>,
}

/// Whether packets of each family are judged.
pub(super) type FamilySet = [bool; 2];

const fn place(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Returns the set of these families.
pub(super) fn family_set(families: impl Iterator<Item = Family>) -> FamilySet {
    let mut set = [false; 2];
    families.for_each(|family| set[place(family)] = true);
    set
}

impl Row {
    /// A node about which nothing is known.
    pub const UNKNOWN: Self = Self { cells: Vec::new(), rest: Some([[PairState::Unknown; 2]; 2]) };

    /// Returns what the node does with packets in a direction, to or from the pods of `peer`.
    /// Only the `families` that both nodes have count.
    pub fn get(&self, peer: usize, direction: Direction, families: FamilySet) -> PairState {
        let rest = self.rest.iter().flatten().zip(families).filter(|(_, is_judged)| *is_judged);
        let rest = rest.map(|(states, _)| states[at(direction)]).max().unwrap_or(PairState::Works);
        self.cells.get(peer).map_or(rest, |cell| cell[at(direction)].max(rest))
    }

    /// Takes note of a state of the packets of all nodes, unless a worse one is known.
    pub fn worsen_all(&mut self, family: Family, direction: Direction, state: PairState) {
        let rest = self.rest.get_or_insert([[PairState::Works; 2]; 2]);
        let known = &mut rest[place(family)][at(direction)];
        *known = state.max(*known);
    }

    /// Returns the row for all nodes, of which this one has those with these `indexes`.
    pub fn expanded(&self, indexes: &[usize], nodes: usize) -> Self {
        let mut whole = Self { cells: Vec::new(), rest: self.rest };
        for (cell, index) in self.cells.iter().zip(indexes) {
            for (direction, state) in [Direction::Out, Direction::In].into_iter().zip(cell) {
                if *state > PairState::Works {
                    whole.worsen(*index, direction, *state, nodes);
                }
            }
        }
        whole
    }

    /// Takes note of a state, unless a worse one is known. `nodes` is the number of all nodes.
    pub fn worsen(&mut self, peer: usize, direction: Direction, state: PairState, nodes: usize) {
        if self.cells.is_empty() {
            self.cells = vec![[PairState::Works; 2]; nodes];
        }
        if let Some(cell) = self.cells.get_mut(peer) {
            let known = &mut cell[at(direction)];
            *known = state.max(*known);
        }
    }
}

const fn at(direction: Direction) -> usize {
    match direction {
        Direction::Out => 0,
        Direction::In => 1,
    }
}

/// The numbers of ordered pairs of nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairCounts {
    /// Pairs whose packets take the planned path.
    pub working: usize,
    /// Pairs whose packets take another path.
    pub diverted: usize,
    /// Pairs that could not be checked.
    pub unknown: usize,
    /// Pairs whose packets are lost.
    pub lost: usize,
    /// Of the lost pairs, those whose packets pass in the other direction.
    pub one_way: usize,
}

impl PairCounts {
    /// The number of all pairs.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.working + self.diverted + self.unknown + self.lost
    }
}

/// The states of all ordered pairs of nodes, row by row: from the pods of a node to those of all others.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    size: usize,
    cells: Vec<PairState>,
}

impl Matrix {
    /// Computes a matrix of `size` nodes.
    pub fn new(size: usize, state: impl Fn(usize, usize) -> PairState) -> Self {
        let pairs = (0..size).flat_map(|from| (0..size).map(move |to| (from, to)));
        Self { size, cells: pairs.map(|(from, to)| state(from, to)).collect() }
    }

    /// Returns what happens to packets between the pods of two nodes.
    pub fn get(&self, from: usize, to: usize) -> PairState {
        self.cells.get(from * self.size + to).copied().unwrap_or(PairState::Nothing)
    }

    /// Counts the pairs.
    pub fn counts(&self) -> PairCounts {
        let mut counts = PairCounts::default();
        for from in 0..self.size {
            for to in 0..self.size {
                match self.get(from, to) {
                    PairState::Nothing => {}
                    PairState::Works => counts.working += 1,
                    PairState::Diverted => counts.diverted += 1,
                    PairState::Unknown => counts.unknown += 1,
                    PairState::Lost => {
                        counts.lost += 1;
                        let back = self.get(to, from);
                        counts.one_way += usize::from(matches!(back, PairState::Works | PairState::Diverted));
                    }
                }
            }
        }
        counts
    }

    /// Returns the row of a node as the lengths and letters of runs: `3w1.96w`.
    pub fn encoded_row(&self, from: usize) -> String {
        let start = from * self.size;
        let row = self.cells.get(start..start + self.size).unwrap_or_default();
        row.chunk_by(PartialEq::eq).map(|run| format!("{}{}", run.len(), run[0].letter())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_state_of_a_pair_counts() {
        const BOTH: FamilySet = [true; 2];
        let mut row = Row::default();
        assert_eq!(row.get(3, Direction::Out, BOTH), PairState::Works);
        row.worsen(3, Direction::Out, PairState::Lost, 5);
        row.worsen(3, Direction::Out, PairState::Diverted, 5);
        assert_eq!(row.get(3, Direction::Out, BOTH), PairState::Lost);
        assert_eq!(row.get(3, Direction::In, BOTH), PairState::Works);
        assert_eq!(row.get(4, Direction::Out, BOTH), PairState::Works);
        assert_eq!(Row::UNKNOWN.get(0, Direction::In, BOTH), PairState::Unknown);
    }

    #[test]
    fn the_state_of_all_packets_of_a_family_counts_where_both_nodes_have_it() {
        let mut row = Row::default();
        row.worsen_all(Family::V4, Direction::In, PairState::Lost);
        row.worsen_all(Family::V4, Direction::In, PairState::Unknown);
        row.worsen(2, Direction::In, PairState::Diverted, 3);
        assert_eq!(row.get(1, Direction::In, [true, true]), PairState::Lost);
        assert_eq!(row.get(1, Direction::In, [false, true]), PairState::Works);
        assert_eq!(row.get(2, Direction::In, [false, true]), PairState::Diverted);
        assert_eq!(row.get(1, Direction::Out, [true, true]), PairState::Works);
    }

    #[test]
    fn rows_are_encoded_as_runs() {
        let matrix = Matrix::new(3, |from, to| match (from, to) {
            (0, 2) => PairState::Lost,
            _ if from == to => PairState::Nothing,
            _ => PairState::Works,
        });
        let rows: Vec<String> = (0..3).map(|from| matrix.encoded_row(from)).collect();
        assert_eq!(rows, ["1.1w1x", "1w1.1w", "2w1."]);
        let counts = matrix.counts();
        assert_eq!((counts.total(), counts.working, counts.lost, counts.one_way), (6, 5, 1, 1));
    }
}
