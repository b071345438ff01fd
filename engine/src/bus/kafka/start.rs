//! Where to begin in a partition: always an offset in numbers, checked against what the broker still has.
//!
//! | stored position     | `start_at` | begins at                                                    |
//! | ------------------- | ---------- | ------------------------------------------------------------ |
//! | none                | Earliest   | low watermark                                                |
//! | none                | Latest     | high watermark                                               |
//! | within low..=high   | any        | the stored position                                          |
//! | below low           | any        | not at all: retention has deleted what was not yet consumed  |
//! | above high          | any        | not at all: the topic is not the one that was consumed       |

use std::time::Duration;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
};

use super::assembly::topic_partition;
use crate::bus::{StartAt, TopicPartition};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermarks {
    pub low: i64,
    pub high: i64,
}

/// The table above.
pub(super) fn begin_at(
    stored: Option<i64>,
    Watermarks { low, high }: Watermarks,
    start_at: StartAt,
) -> Result<i64, String> {
    match (stored, start_at) {
        (None, StartAt::Earliest) => Ok(low),
        (None, StartAt::Latest) => Ok(high),
        (Some(next), _) if next < low => Err(format!(
            "offset {next} is next, but the topic now begins at {low}: {} records were deleted before they were consumed",
            low - next
        )),
        (Some(next), _) if next > high => Err(format!(
            "offset {next} is next, but the topic ends at {high}: it was deleted and created anew, or lost records"
        )),
        (Some(next), _) => Ok(next),
    }
}

/// The watermarks of many partitions with two requests to each leader, in the order asked; `Err` says which partition failed.
pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    of: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<Watermarks>, String> {
    let low = list_offsets(consumer, of, Offset::Beginning, timeout)?;
    let high = list_offsets(consumer, of, Offset::End, timeout)?;
    Ok(low.into_iter().zip(high).map(|(low, high)| Watermarks { low, high }).collect())
}

/// ListOffsets takes the logical offsets -2 (beginning) and -1 (end) in the place of a time.
fn list_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    of: &[TopicPartition],
    which: Offset,
    timeout: Duration,
) -> Result<Vec<i64>, String> {
    let asked = list(of.iter().map(|at| (at, which)))?;
    let answered = consumer.offsets_for_times(asked, timeout).map_err(|e| e.to_string())?;
    of.iter()
        .map(|at| {
            let found = answered.find_partition(&at.topic, at.partition).ok_or(format!("{at}: no answer"))?;
            found.error().map_err(|e| format!("{at}: {e}"))?;
            match found.offset() {
                Offset::Offset(offset) => Ok(offset),
                other => Err(format!("{at}: the broker answered {other:?} instead of an offset")),
            }
        })
        .collect()
}

pub(super) fn list<'a>(
    of: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
) -> Result<TopicPartitionList, String> {
    let mut list = TopicPartitionList::new();
    for (at, offset) in of {
        list.add_partition_offset(&at.topic, at.partition, offset).map_err(|e| format!("{at}: {e}"))?;
    }
    Ok(list)
}

pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|e| topic_partition(e.topic(), e.partition())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Watermarks = Watermarks { low: 10, high: 20 };

    #[test]
    fn a_stored_position_wins_over_start_at_wherever_the_log_has_it() {
        for start_at in [StartAt::Earliest, StartAt::Latest] {
            for next in [10, 15, 20] {
                assert_eq!(begin_at(Some(next), LOG, start_at), Ok(next));
            }
        }
    }

    #[test]
    fn an_unseen_partition_begins_where_start_at_says() {
        assert_eq!(begin_at(None, LOG, StartAt::Earliest), Ok(10));
        assert_eq!(begin_at(None, LOG, StartAt::Latest), Ok(20));
    }

    #[test]
    fn a_position_outside_of_the_log_is_an_error_with_both_offsets() {
        let below = begin_at(Some(7), LOG, StartAt::Earliest).expect_err("deleted");
        assert!(below.contains("offset 7") && below.contains("begins at 10") && below.contains("3 records"), "{below}");
        let above = begin_at(Some(21), LOG, StartAt::Earliest).expect_err("another topic");
        assert!(above.contains("offset 21") && above.contains("ends at 20"), "{above}");
    }
}
