//! Which events have been counted already.
//!
//! An identity is (source, event_id), kept as a 128-bit keyed hash. Two different identities share a hash with a
//! probability of n²/2¹²⁹: for a billion ids in the horizon 1.5 × 10⁻²¹, so a false positive does not happen in practice;
//! the key is drawn anew by each process, so nobody can craft one.
//!
//! The horizon is measured on the stream's own clock (the greatest event time accepted so far), so an outage of the
//! engine does not shorten it: what a producer repeats after a weekend is still recognised.
//!
//! Limits: `ids_max` ids. An id takes 21 to 42 bytes, so that a million ids take at most 42 MB. At the limit the ids of the
//! oldest hours go first, and that is counted (BOUND-1, LOSS-1).

use costhelm_pricing::EventTime;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::sums::HOUR_US;

/// Hash of an identity, in two halves to keep the entries small.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Id([u32; 4]);

#[derive(Clone, Copy)]
struct Entry {
    id: Id,
    /// The hour of the stream's clock at which the id was first seen.
    hour: i32,
}

pub struct Dedup {
    seed: u64,
    horizon_hours: i32,
    ids_max: usize,
    entries: HashTable<Entry>,
    /// Ids that were given up before their horizon because the table was full.
    evicted: u64,
    swept_hour: i32,
}

impl Dedup {
    pub fn new(seed: u64, horizon_us: i64, ids_max: usize) -> Dedup {
        let horizon_hours = i32::try_from((horizon_us + HOUR_US - 1) / HOUR_US).unwrap_or(i32::MAX / 2);
        Dedup { seed, horizon_hours, ids_max, entries: HashTable::new(), evicted: 0, swept_hour: i32::MIN }
    }

    /// True when the identity is new, which it then no longer is.
    pub fn insert(&mut self, source: &str, event_id: &str, clock: EventTime) -> bool {
        let hour = hour_of(clock);
        if hour > self.swept_hour {
            self.sweep(hour);
        }
        let id = self.id(source, event_id);
        let vacant = match self.entries.entry(slot(&id), |entry| entry.id == id, |entry| slot(&entry.id)) {
            hashbrown::hash_table::Entry::Occupied(_) => return false,
            hashbrown::hash_table::Entry::Vacant(vacant) => vacant,
        };
        vacant.insert(Entry { id, hour });
        if self.entries.len() > self.ids_max {
            self.evict_oldest();
        }
        true
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    pub fn memory_bytes(&self) -> usize {
        self.entries.allocation_size()
    }

    fn id(&self, source: &str, event_id: &str) -> Id {
        let mut hash = xxh3_128_with_seed(event_id.as_bytes(), self.seed);
        if !source.is_empty() {
            // Hashed one after the other, not joined, so that ("a", "bc") and ("ab", "c") differ.
            hash ^= xxh3_128_with_seed(source.as_bytes(), self.seed ^ SOURCE_SEED).rotate_left(64);
        }
        Id([hash as u32, (hash >> 32) as u32, (hash >> 64) as u32, (hash >> 96) as u32])
    }

    /// Drops what is older than the horizon.
    fn sweep(&mut self, hour: i32) {
        let oldest = hour - self.horizon_hours;
        if self.swept_hour != i32::MIN {
            self.entries.retain(|entry| entry.hour >= oldest);
        }
        self.swept_hour = hour;
    }

    /// Gives up whole hours, the oldest first, until an eighth of the table is free.
    fn evict_oldest(&mut self) {
        let keep_max = self.ids_max - self.ids_max / 8;
        let mut by_hour = std::collections::BTreeMap::<i32, usize>::new();
        for entry in &self.entries {
            *by_hour.entry(entry.hour).or_default() += 1;
        }
        let mut left = self.entries.len();
        let mut oldest_kept = i32::MIN;
        for (hour, ids) in by_hour {
            if left <= keep_max {
                break;
            }
            left -= ids;
            oldest_kept = hour + 1;
        }
        self.evicted += (self.entries.len() - left) as u64;
        self.entries.retain(|entry| entry.hour >= oldest_kept);
    }
}

const SOURCE_SEED: u64 = 0x5eed_50f5_00ce_0001;

fn slot(id: &Id) -> u64 {
    u64::from(id.0[0]) | u64::from(id.0[1]) << 32
}

fn hour_of(clock: EventTime) -> i32 {
    i32::try_from(clock.0.div_euclid(HOUR_US)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = HOUR_US;

    fn at(hours: i64) -> EventTime {
        EventTime(hours * HOUR)
    }

    #[test]
    fn an_event_is_new_once_and_the_source_is_part_of_its_identity() {
        let mut dedup = Dedup::new(7, 24 * HOUR, 1000);
        assert!(dedup.insert("", "a", at(0)));
        assert!(!dedup.insert("", "a", at(1)));
        assert!(dedup.insert("agents/x", "a", at(1)));
        assert!(!dedup.insert("agents/x", "a", at(1)));
        assert!(dedup.insert("agents/xa", "", at(1)));
    }

    #[test]
    fn an_id_is_remembered_for_the_horizon_on_the_streams_clock_and_then_forgotten() {
        let mut dedup = Dedup::new(7, 24 * HOUR, 1000);
        assert!(dedup.insert("", "a", at(0)));
        assert!(!dedup.insert("", "a", at(24)));
        assert!(dedup.insert("", "b", at(26)));
        assert!(dedup.insert("", "a", at(26)), "two hours past the horizon it is new again");
    }

    #[test]
    fn a_full_table_gives_up_its_oldest_hours_and_counts_them() {
        let mut dedup = Dedup::new(7, 1000 * HOUR, 64);
        for n in 0..200 {
            assert!(dedup.insert("", &format!("id-{n}"), at(n)));
        }
        assert!(dedup.len() <= 64);
        assert_eq!(dedup.evicted() + dedup.len() as u64, 200);
        assert!(!dedup.insert("", "id-199", at(200)), "the newest stay");
    }
}
