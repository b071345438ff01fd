//! How the records of a chunk lie in its blob, and how they get from there into the arena of a [`Batch`](crate::bus::Batch):
//! the bytes are copied once, as they are, and the records point between the lengths.
//!
//! ```text
//! record = key length + 1 (u32, 0: no key) · value length + 1 (u32, 0: no value) · headers (u16) · key · value · header*
//! header = name length (u16) · value length (u32) · name · value                                    all little-endian
//! ```
//!
//! Limits: a chunk closes at [`CHUNK_RECORDS_MAX`] records or [`CHUNK_BYTES_MAX`] bytes (one record more, where a record is
//! larger than that); a record has at most 65,535 headers.

use std::ops::Range;

use crate::bus::{NewRecord, RecordRef};

pub(super) const CHUNK_RECORDS_MAX: usize = 1_024;
pub(super) const CHUNK_BYTES_MAX: usize = 256 * 1024;

const RECORD_HEAD: usize = 10;
const HEADER_HEAD: usize = 6;

#[derive(Debug, Default)]
pub(super) struct ChunkBuilder {
    pub body: Vec<u8>,
    pub records: usize,
}

impl ChunkBuilder {
    /// Adds a record whose size has been checked with [`packed_len`].
    pub fn push(&mut self, record: &NewRecord) {
        let optional_len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, |b| b.len() as u32 + 1);
        self.body.extend_from_slice(&optional_len(&record.key).to_le_bytes());
        self.body.extend_from_slice(&optional_len(&record.value).to_le_bytes());
        self.body.extend_from_slice(&(record.headers.len() as u16).to_le_bytes());
        self.body.extend_from_slice(record.key.as_deref().unwrap_or_default());
        self.body.extend_from_slice(record.value.as_deref().unwrap_or_default());
        for (name, value) in &record.headers {
            self.body.extend_from_slice(&(name.len() as u16).to_le_bytes());
            self.body.extend_from_slice(&(value.len() as u32).to_le_bytes());
            self.body.extend_from_slice(name.as_bytes());
            self.body.extend_from_slice(value);
        }
        self.records += 1;
    }

    /// True when the next record of this size belongs in a new chunk.
    pub fn is_full_for(&self, packed_len: usize) -> bool {
        self.records >= CHUNK_RECORDS_MAX || (self.records > 0 && self.body.len() + packed_len > CHUNK_BYTES_MAX)
    }
}

/// The bytes a record takes in a chunk; `None` where the format cannot hold it.
pub(super) fn packed_len(record: &NewRecord) -> Option<usize> {
    let fits = |len: usize| u32::try_from(len).is_ok_and(|len| len < u32::MAX).then_some(len);
    u16::try_from(record.headers.len()).ok()?;
    let mut len =
        RECORD_HEAD + fits(record.key.as_ref().map_or(0, Vec::len))? + fits(record.value.as_ref().map_or(0, Vec::len))?;
    for (name, value) in &record.headers {
        u16::try_from(name.len()).ok()?;
        len += HEADER_HEAD + name.len() + fits(value.len())?;
    }
    Some(len)
}

/// What may still go into a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub records: usize,
    pub bytes: usize,
}

/// Where a chunk stands in its partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkPlace {
    pub from: i64,
    pub to: i64,
    pub timestamp_ms: i64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("chunk {from}..{to}: record {offset} is damaged: {what}")]
pub(super) struct DamagedChunk {
    from: i64,
    to: i64,
    offset: i64,
    what: &'static str,
}

/// Moves the records at `start` and after it into `arena` and `records`, as many as there is room for, and at least one.
/// Answers the offset after the last one moved.
pub(super) fn unpack(
    body: &[u8],
    place: ChunkPlace,
    start: i64,
    room: Room,
    arena: &mut Vec<u8>,
    records: &mut Vec<RecordRef>,
) -> Result<i64, DamagedChunk> {
    let mut cursor = Cursor { body, at: 0 };
    let mut offset = place.from;
    let damaged = |offset, what| DamagedChunk { from: place.from, to: place.to, offset, what };
    let ends_early = |offset| damaged(offset, "the chunk ends within it");
    while offset < start.min(place.to) {
        cursor.record(offset, place.timestamp_ms).ok_or_else(|| ends_early(offset))?;
        offset += 1;
    }
    let first = cursor.at;
    let arena_before = arena.len();
    let records_before = records.len();
    while offset < place.to {
        let taken = records.len() - records_before;
        if taken > 0 && (taken >= room.records || cursor.at - first >= room.bytes) {
            break;
        }
        let mut record = cursor.record(offset, place.timestamp_ms).ok_or_else(|| ends_early(offset))?;
        record.shift(first, arena_before).ok_or_else(|| damaged(offset, "the batch is larger than 4 GiB"))?;
        records.push(record);
        offset += 1;
    }
    if offset == place.to && cursor.at != body.len() {
        return Err(damaged(offset, "bytes are left over after the last record"));
    }
    arena.extend_from_slice(&body[first..cursor.at]);
    Ok(offset)
}

struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn record(&mut self, offset: i64, timestamp_ms: i64) -> Option<RecordRef> {
        let head: [u8; RECORD_HEAD] = self.array()?;
        let key_len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let value_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let header_count = u16::from_le_bytes([head[8], head[9]]);
        let key = match key_len {
            0 => None,
            len => Some(self.take(len - 1)?),
        };
        let value = self.take(value_len.saturating_sub(1))?;
        // Grows as headers are found, so that a damaged count cannot reserve memory.
        let mut headers = Vec::new();
        for _ in 0..header_count {
            let head: [u8; HEADER_HEAD] = self.array()?;
            let name_len = u16::from_le_bytes([head[0], head[1]]);
            let value_len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
            headers.push((self.take(u32::from(name_len))?, self.take(value_len)?));
        }
        Some(RecordRef { offset, timestamp_ms, key, value, headers })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = self.body.get(self.at..self.at.checked_add(N)?)?.try_into().ok()?;
        self.at += N;
        Some(array)
    }

    fn take(&mut self, len: u32) -> Option<Range<u32>> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        if end > self.body.len() {
            return None;
        }
        let range = u32::try_from(self.at).ok()?..u32::try_from(end).ok()?;
        self.at = end;
        Some(range)
    }
}

impl RecordRef {
    /// Makes ranges that count from `first` in the chunk count from `base` in the arena.
    fn shift(&mut self, first: usize, base: usize) -> Option<()> {
        let moved = |range: &Range<u32>| {
            let shifted = |at: u32| u32::try_from(at as usize - first + base).ok();
            Some(shifted(range.start)?..shifted(range.end)?)
        };
        if let Some(key) = &mut self.key {
            *key = moved(key)?;
        }
        self.value = moved(&self.value)?;
        for (name, value) in &mut self.headers {
            *name = moved(name)?;
            *value = moved(value)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOMY: Room = Room { records: usize::MAX, bytes: usize::MAX };

    fn record() -> impl Strategy<Value = NewRecord> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        (prop::option::of(bytes()), prop::option::of(bytes()), prop::collection::vec(("[a-z]{0,8}", bytes()), 0..3))
            .prop_map(|(key, value, headers)| NewRecord { topic: "t".to_owned(), key, value, headers })
    }

    fn pack(records: &[NewRecord]) -> Vec<u8> {
        let mut chunk = ChunkBuilder::default();
        let mut len = 0;
        for record in records {
            chunk.push(record);
            len += packed_len(record).expect("a small record fits");
        }
        assert_eq!(chunk.body.len(), len, "packed_len says what push writes");
        chunk.body
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in_from_any_offset_and_in_any_portions(
            records in prop::collection::vec(record(), 1..30),
            skip in 0usize..30,
            portion in 1usize..8,
        ) {
            let body = pack(&records);
            let place = ChunkPlace { from: 100, to: 100 + records.len() as i64, timestamp_ms: 7 };
            let skip = skip % records.len();
            // What an earlier chunk left in the arena must not matter.
            let (mut arena, mut refs) = (b"earlier".to_vec(), Vec::new());
            let mut next = 100 + skip as i64;
            while next < place.to {
                let room = Room { records: portion, bytes: usize::MAX };
                next = unpack(&body, place, next, room, &mut arena, &mut refs).expect("an undamaged chunk");
            }
            let of = |range: &Range<u32>| &arena[range.start as usize..range.end as usize];
            prop_assert_eq!(refs.len(), records.len() - skip);
            for (i, (got, put)) in refs.iter().zip(&records[skip..]).enumerate() {
                prop_assert_eq!(got.offset, 100 + (skip + i) as i64);
                prop_assert_eq!(got.key.as_ref().map(of), put.key.as_deref());
                prop_assert_eq!(of(&got.value), put.value.as_deref().unwrap_or_default());
                prop_assert_eq!(got.headers.len(), put.headers.len());
                for ((name, value), (put_name, put_value)) in got.headers.iter().zip(&put.headers) {
                    prop_assert_eq!(of(name), put_name.as_bytes());
                    prop_assert_eq!(of(value), put_value.as_slice());
                }
            }
        }

        #[test]
        fn a_damaged_chunk_is_an_error_and_never_a_panic(
            records in prop::collection::vec(record(), 1..10),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let body = pack(&records);
            let place = ChunkPlace { from: 0, to: records.len() as i64, timestamp_ms: 0 };
            let mut changed = body.clone();
            changed[at.index(body.len())] = byte;
            let _ = unpack(&changed, place, 0, ROOMY, &mut Vec::new(), &mut Vec::new());
            let short = &body[..cut.index(body.len())];
            prop_assert!(unpack(short, place, 0, ROOMY, &mut Vec::new(), &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn a_record_larger_than_the_room_comes_alone() {
        let record = NewRecord { value: Some(vec![1; 1_000]), ..NewRecord::default() };
        let body = pack(&[record.clone(), record]);
        let (mut arena, mut refs) = (Vec::new(), Vec::new());
        let place = ChunkPlace { from: 0, to: 2, timestamp_ms: 0 };
        let room = Room { records: 10, bytes: 10 };
        assert_eq!(unpack(&body, place, 0, room, &mut arena, &mut refs), Ok(1));
        assert_eq!(refs.len(), 1);
    }
}
