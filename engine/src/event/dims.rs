//! Numbers for sets of dimensions: a stream shows few of them again and again, so each is stored once.
//!
//! Limits: none of its own; the owner asks [`DimTable::len`] and starts anew or refuses.

use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use xxhash_rust::xxh3::xxh3_64;

use super::{Dim, Dims};

#[derive(Default)]
pub struct DimTable {
    sets: Vec<(u64, Dims)>,
    table: HashTable<u32>,
    /// Every distinct value once, shared by the sets that have it.
    values: HashMap<Arc<str>, ()>,
}

impl DimTable {
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    pub fn get(&self, number: u32) -> &Dims {
        &self.sets[number as usize].1
    }

    pub fn iter(&self) -> impl Iterator<Item = &Dims> {
        self.sets.iter().map(|(_, dims)| dims)
    }

    /// The number of this set, a new one where it was not seen before. Numbers count up from 0.
    pub fn intern<S: AsRef<str>>(&mut self, set: &[S; Dim::COUNT]) -> u32 {
        let hash = hash(set);
        let same = |number: &u32| {
            let (_, known) = &self.sets[*number as usize];
            known.0.iter().zip(set).all(|(known, value)| **known == *value.as_ref())
        };
        if let Some(number) = self.table.find(hash, same) {
            return *number;
        }
        let number = u32::try_from(self.sets.len()).expect("the owner keeps the table far below 2³² sets");
        let dims = Dims(std::array::from_fn(|dim| self.share(set[dim].as_ref())));
        self.sets.push((hash, dims));
        self.table.insert_unique(hash, number, |number| self.sets[*number as usize].0);
        number
    }

    fn share(&mut self, value: &str) -> Arc<str> {
        if let Some((known, ())) = self.values.get_key_value(value) {
            return known.clone();
        }
        let value: Arc<str> = value.into();
        self.values.insert(value.clone(), ());
        value
    }
}

fn hash<S: AsRef<str>>(set: &[S; Dim::COUNT]) -> u64 {
    set.iter().fold(0, |hash, value| {
        (hash ^ xxh3_64(value.as_ref().as_bytes())).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_share_a_number_and_moved_values_do_not() {
        let mut table = DimTable::default();
        let a = table.intern(&["prod", "org", "", "", "p", "worker", "openai", "gpt-4o"]);
        let b = table.intern(&["prod", "org", "", "p", "", "worker", "openai", "gpt-4o"]);
        assert_eq!((a, b), (0, 1));
        assert_eq!(table.intern(&["prod", "org", "", "", "p", "worker", "openai", "gpt-4o"]), a);
        assert_eq!(table.get(b).get(Dim::TeamId), "p");
        assert_eq!(table.len(), 2);
    }
}
