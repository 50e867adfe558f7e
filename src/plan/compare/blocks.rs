//! Changes, gathered by the nodes where they happen.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use super::{Block, Delta, Item, Member, Standing};

/// Blocks as they come, those of the same nodes made one.
#[derive(Default)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    places: HashMap<(Standing, Vec<Member>), usize>,
}

impl Blocks {
    pub fn add(&mut self, standing: Standing, members: &[Member], mut deltas: Vec<Delta>) {
        let Some(first) = deltas.first().filter(|_| !members.is_empty()) else { return };
        // Nodes that all of the changes leave out are not part of it.
        let spared = first.except.clone();
        let same = !spared.is_empty() && deltas.iter().all(|delta| delta.except == spared);
        if same {
            let members: Vec<Member> =
                members.iter().copied().filter(|member| !spared.contains(member)).collect();
            deltas.iter_mut().for_each(|delta| delta.except.clear());
            return self.add(standing, &members, deltas);
        }
        let next = self.blocks.len();
        let place = *self.places.entry((standing, members.to_vec())).or_insert(next);
        if place == next {
            self.blocks.push(Block { standing, members: members.to_vec(), deltas: Vec::new() });
        }
        self.blocks[place].deltas.extend(deltas);
    }

    /// Adds changes that stand on one of these nodes each: a block of its own, which no other changes join,
    /// unless it is the same node for all.
    pub fn add_of_owners(&mut self, members: &[Member], mut deltas: Vec<Delta>) {
        let owners: HashSet<Member> = deltas.iter().filter_map(|delta| delta.only).collect();
        let part: Vec<Member> = members.iter().copied().filter(|member| owners.contains(member)).collect();
        if part.len() == 1 {
            deltas.iter_mut().for_each(|delta| delta.only = None);
            self.add(Standing::Stays, &part, deltas);
        } else if !deltas.is_empty() {
            self.blocks.push(Block { standing: Standing::Stays, members: part, deltas });
        }
    }

    /// In the order of standing, the larger before the smaller, then in the order of the nodes.
    pub fn finish(mut self) -> Vec<Block> {
        for block in &mut self.blocks {
            block.deltas.sort_by_key(|delta| match delta.item {
                Item::Route { .. } | Item::WindowsRoute { .. } => 0,
                Item::Nat { .. } => 1,
                Item::Sysctl { .. } | Item::Forwarding { .. } => 2,
            });
        }
        let place = |member: &Member| (member.new.is_none(), member.new, member.old);
        self.blocks.sort_by_key(|block| {
            let size = Reverse(block.members.len());
            (block.standing as u8, size, block.members.first().map(place))
        });
        self.blocks
    }
}
