//! Which partition a record goes to: by the hash of its key, as Kafka's clients for the JVM do it, so that a later move from the
//! embedded log to Kafka keeps every key where it was; without a key, in turn.

/// Places the records of one topic.
#[derive(Debug, Default)]
pub(super) struct Placement {
    turn: u32,
}

impl Placement {
    /// The partition of a record, `0..partitions`. `partitions` is at least 1.
    pub fn partition(&mut self, key: Option<&[u8]>, partitions: u32) -> u32 {
        match key {
            Some(key) => (murmur2(key) & 0x7fff_ffff) % partitions,
            None => {
                let turn = self.turn % partitions;
                self.turn = self.turn.wrapping_add(1);
                turn
            }
        }
    }
}

/// MurmurHash2, 32 bits, with the seed that Kafka uses.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // The length is taken modulo 2³², as Java's int is; keys are far shorter.
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors are those that Apache Kafka tests its own `Utils.murmur2` with (UtilsTest.java).
    #[test]
    fn the_hash_of_a_key_is_the_one_kafka_computes() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_key_stays_in_its_partition_and_keyless_records_take_turns() {
        let mut placement = Placement::default();
        let of_key = placement.partition(Some(b"agent-7"), 5);
        assert!(of_key < 5);
        let turns: Vec<u32> = (0..6).map(|_| placement.partition(None, 3)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
        assert_eq!(placement.partition(Some(b"agent-7"), 5), of_key);
    }
}
