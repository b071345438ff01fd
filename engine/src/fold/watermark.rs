//! How far each partition has come in event time, and what counts as late.
//!
//! A partition's watermark is the greatest event time it has shown, less the allowed lateness. Lateness is a mark, not a
//! judgement: a late row is counted and changes the window it belongs to (TIME-1).
//!
//! Limits: one entry a partition.

use std::collections::HashMap;

use costhelm_pricing::EventTime;

use crate::bus::TopicPartition;

#[derive(Default)]
pub struct Watermarks {
    greatest: HashMap<TopicPartition, EventTime>,
    late_after_us: i64,
}

impl Watermarks {
    pub fn new(late_after_us: i64) -> Watermarks {
        Watermarks { greatest: HashMap::new(), late_after_us }
    }

    /// The partition's greatest event time so far.
    pub fn greatest(&self, at: &TopicPartition) -> Option<EventTime> {
        self.greatest.get(at).copied()
    }

    /// True when an event at `time` comes after the watermark `greatest` stands for has passed it.
    pub fn is_late(&self, greatest: Option<EventTime>, time: EventTime) -> bool {
        greatest.is_some_and(|greatest| time.0 < greatest.0.saturating_sub(self.late_after_us))
    }

    pub fn advance(&mut self, at: &TopicPartition, greatest: EventTime) {
        match self.greatest.get_mut(at) {
            Some(known) => *known = (*known).max(greatest),
            None => {
                self.greatest.insert(at.clone(), greatest);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, EventTime)> {
        self.greatest.iter().map(|(at, time)| (at, EventTime(time.0.saturating_sub(self.late_after_us))))
    }
}
