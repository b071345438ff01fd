//! Records into batches: one open batch a partition, chained by offset (EO-1). Pure.
//!
//! | offset of a record that arrives  | what happens                                                             |
//! | -------------------------------- | ------------------------------------------------------------------------ |
//! | the expected one, or above it    | appended; offsets between are holes (compaction, transaction markers)    |
//! | below the expected one           | dropped and counted: it belongs to an assignment that is over            |
//! | of a partition that is not ours  | dropped and counted, likewise                                            |

use std::{mem, sync::Arc, time::Instant};

use crate::bus::{Batch, RecordRef, TopicPartition};

#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimits {
    pub records_max: usize,
    pub bytes_max: usize,
}

/// A record as it comes from the broker's client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a, H> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: H,
}

/// The assigned partitions and their open batches.
#[derive(Debug)]
pub(super) struct Assembly {
    limits: BatchLimits,
    partitions: Vec<Open>,
    /// Where the last record went: records come in runs.
    last: usize,
    /// Records that belonged to no assignment of ours.
    pub stale: u64,
}

#[derive(Debug)]
struct Open {
    at: TopicPartition,
    /// Offset after the last batch that was taken out.
    from: i64,
    /// Offset after the last record that came in.
    next: i64,
    records: Vec<RecordRef>,
    arena: Vec<u8>,
    since: Option<Instant>,
}

impl Open {
    fn take(&mut self) -> Option<Batch> {
        if self.records.is_empty() {
            return None;
        }
        self.since = None;
        // The next batch will likely be about as large as this one: no growing step by step.
        let records = Vec::with_capacity(self.records.len());
        let arena = Vec::with_capacity(self.arena.len());
        let from = mem::replace(&mut self.from, self.next);
        Some(Batch {
            at: self.at.clone(),
            from,
            to: self.next,
            records: mem::replace(&mut self.records, records),
            arena: mem::replace(&mut self.arena, arena),
        })
    }
}

impl Assembly {
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, partitions: Vec::new(), last: 0, stale: 0 }
    }

    /// Begins a partition, anew if it was here.
    pub fn begin(&mut self, at: &TopicPartition, next: i64) {
        self.end(at);
        self.partitions.push(Open {
            at: at.clone(),
            from: next,
            next,
            records: Vec::new(),
            arena: Vec::new(),
            since: None,
        });
    }

    /// Forgets a partition and its open batch.
    pub fn end(&mut self, at: &TopicPartition) {
        self.partitions.retain(|open| open.at != *at);
        self.last = 0;
    }

    /// The assigned partitions with the offset each will go on at.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.partitions.iter().map(|open| (&open.at, open.next))
    }

    fn find(&mut self, topic: &str, partition: i32) -> Option<&mut Open> {
        let is = |open: &Open| open.at.partition == partition && *open.at.topic == *topic;
        if !self.partitions.get(self.last).is_some_and(is) {
            self.last = self.partitions.iter().position(is)?;
        }
        self.partitions.get_mut(self.last)
    }

    /// Adds a record; answers the batch that it filled.
    pub fn push<'h, H, N, V>(&mut self, record: Incoming<'_, H>, now: Instant) -> Option<Batch>
    where
        H: IntoIterator<Item = (N, V)>,
        N: AsRef<[u8]> + 'h,
        V: AsRef<[u8]> + 'h,
    {
        let limits = self.limits;
        let Some(open) = self.find(record.topic, record.partition) else {
            self.stale += 1;
            return None;
        };
        if record.offset < open.next {
            self.stale += 1;
            return None;
        }
        if open.records.is_empty() {
            open.since = Some(now);
        }
        let arena = &mut open.arena;
        let mut put = |bytes: &[u8]| {
            // The limits keep an arena far below 4 GiB.
            let start = arena.len() as u32;
            arena.extend_from_slice(bytes);
            start..arena.len() as u32
        };
        let key = record.key.map(&mut put);
        let value = put(record.value);
        let headers =
            record.headers.into_iter().map(|(name, value)| (put(name.as_ref()), put(value.as_ref()))).collect();
        open.records.push(RecordRef { offset: record.offset, timestamp_ms: record.timestamp_ms, key, value, headers });
        open.next = record.offset + 1;
        debug_assert!(open.from < open.next, "EO-1: {} {} {}", open.at, open.from, open.next);
        if open.records.len() >= limits.records_max || open.arena.len() >= limits.bytes_max {
            return open.take();
        }
        None
    }

    /// Takes out every open batch that was begun at `begun_by` or before.
    pub fn take_begun_by(&mut self, begun_by: Instant) -> Vec<Batch> {
        self.partitions
            .iter_mut()
            .filter(|open| open.since.is_some_and(|since| since <= begun_by))
            .filter_map(Open::take)
            .collect()
    }
}

/// The partition that a name and a number mean.
pub(super) fn topic_partition(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from(topic), partition }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: BatchLimits = BatchLimits { records_max: 3, bytes_max: 1_000 };

    fn incoming(partition: i32, offset: i64, value: &[u8]) -> Incoming<'_, [(&'static str, &'static [u8]); 1]> {
        Incoming {
            topic: "t",
            partition,
            offset,
            timestamp_ms: 5,
            key: Some(b"key"),
            value,
            headers: [("name", b"header")],
        }
    }

    fn assembly(partitions: &[(i32, i64)]) -> Assembly {
        let mut assembly = Assembly::new(LIMITS);
        for (partition, next) in partitions {
            assembly.begin(&topic_partition("t", *partition), *next);
        }
        assembly
    }

    #[test]
    fn a_batch_goes_when_it_is_full_and_its_bytes_are_those_that_came() {
        let mut assembly = assembly(&[(0, 10)]);
        let now = Instant::now();
        assert!(assembly.push(incoming(0, 10, b"a"), now).is_none());
        assert!(assembly.push(incoming(0, 11, b""), now).is_none());
        let batch = assembly.push(incoming(0, 12, b"ccc"), now).expect("three records are a batch");
        assert_eq!((batch.from, batch.to), (10, 13));
        let record = &batch.records[2];
        assert_eq!(batch.bytes(&record.value), b"ccc");
        assert_eq!(record.key.as_ref().map(|key| batch.bytes(key)), Some(&b"key"[..]));
        assert_eq!(batch.bytes(&record.headers[0].0), b"name");
        assert_eq!(batch.bytes(&record.headers[0].1), b"header");
        assert_eq!((record.offset, record.timestamp_ms), (12, 5));
        let large = vec![0; LIMITS.bytes_max];
        assert_eq!(assembly.push(incoming(0, 13, &large), now).expect("bytes fill it too").records.len(), 1);
    }

    #[test]
    fn records_of_an_assignment_that_is_over_are_dropped_and_counted() {
        let mut assembly = assembly(&[(0, 10), (1, 0)]);
        let now = Instant::now();
        assembly.push(incoming(0, 10, b"a"), now);
        assembly.push(incoming(0, 10, b"again"), now);
        assembly.push(incoming(7, 0, b"not ours"), now);
        assert_eq!(assembly.stale, 2);
        // Revoked and assigned again further on: the open batch goes, and so does what still trickles in.
        assembly.begin(&topic_partition("t", 0), 20);
        assembly.push(incoming(0, 11, b"late"), now);
        assert_eq!(assembly.stale, 3);
        assembly.push(incoming(0, 20, b"new"), now);
        let batches = assembly.take_begun_by(now);
        assert_eq!(batches.len(), 1);
        assert_eq!((batches[0].from, batches[0].to, batches[0].records.len()), (20, 21, 1));
    }

    #[test]
    fn a_batch_that_has_waited_long_enough_goes_alone() {
        let mut assembly = assembly(&[(0, 0), (1, 0)]);
        let early = Instant::now();
        let late = early + Duration::from_secs(1);
        assembly.push(incoming(0, 0, b"early"), early);
        assembly.push(incoming(1, 0, b"late"), late);
        let taken = assembly.take_begun_by(early);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].at.partition, 0);
        assert_eq!(assembly.take_begun_by(late).len(), 1);
        assert!(assembly.take_begun_by(late).is_empty());
    }

    proptest! {
        /// EO-1, over any holes, interleaving and flushes.
        #[test]
        fn ranges_of_a_partition_chain_without_gap_or_overlap(
            steps in prop::collection::vec((0i32..3, 0i64..4, any::<bool>()), 1..200),
        ) {
            let mut assembly = assembly(&[(0, 5), (1, 5), (2, 5)]);
            let now = Instant::now();
            let (mut sent, mut ends) = ([5i64; 3], [5i64; 3]);
            let mut pushed = 0;
            let mut batches = Vec::new();
            for (partition, hole, flush) in steps {
                let offset = sent[partition as usize] + hole;
                sent[partition as usize] = offset + 1;
                batches.extend(assembly.push(incoming(partition, offset, b"v"), now));
                pushed += 1;
                if flush {
                    batches.extend(assembly.take_begun_by(now));
                }
            }
            batches.extend(assembly.take_begun_by(now));
            for batch in &batches {
                let end = &mut ends[batch.at.partition as usize];
                prop_assert_eq!(batch.from, *end);
                prop_assert!(batch.records.iter().all(|r| (batch.from..batch.to).contains(&r.offset)));
                prop_assert!(batch.records.windows(2).all(|pair| pair[0].offset < pair[1].offset));
                *end = batch.to;
            }
            prop_assert_eq!(ends, sent);
            prop_assert_eq!(batches.iter().map(|batch| batch.records.len()).sum::<usize>(), pushed);
            prop_assert_eq!(assembly.stale, 0);
        }
    }
}
