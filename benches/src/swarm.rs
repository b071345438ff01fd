//! Usage events as a swarm of agents sends them, line by line.
//!
//! A stream has numbered *slots*. What stands in a slot follows from the seed and the number alone: an event of its own, the
//! repetition of an earlier one (a retry, byte for byte), an event that arrives late, one of a model that no price list
//! knows, or something that is no usage event. Any slot can be written without the ones before it, so a slice of the stream
//! can be made again, in another process or another language's test, and memory does not grow with its length.
//!
//! The shape is that of Python emitters: `CostEvent.model_dump()` in its field order, timestamps of `datetime.utcnow()`
//! without offset, costs as strings or as numbers that were floats, optional fields as nulls or left out. Three ways of
//! writing them differ in such details (see `event::Emitter`).
//!
//! Limits: 1 to 10⁹ slots, 2 to 10,000 agents, a repetition reaches back at most 100,000 slots, a late event is at most six hours late,
//! lines stay below 1,100 bytes (about 590 on average).

use chrono::{DateTime, Utc};
use thiserror::Error;

use self::event::Fault;
use crate::random::Random;

mod cast;
mod event;
mod python;

pub const EVENTS_MAX: u64 = 1_000_000_000;
pub const AGENTS_MAX: u64 = 10_000;
pub const REPEAT_DISTANCE_MAX: u64 = 100_000;
pub const LATENESS_S_MAX: u64 = 6 * 3600;

/// What a stream is made of.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    pub seed: u64,
    /// Slots in the stream: own events, repetitions and malformed lines together.
    pub events: u64,
    pub start: DateTime<Utc>,
    /// Event time between the first and the last slot, in seconds.
    pub span_s: u64,
    pub duplicates_per_million: u32,
    pub late_per_million: u32,
    pub malformed_per_million: u32,
    /// Events of a model that no price list knows.
    pub unpriced_per_million: u32,
    /// One orchestrator and workers.
    pub agents: u64,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum SwarmError {
    #[error("`{field}` is {value}, expected {expected}")]
    OutOfRange { field: &'static str, value: u64, expected: &'static str },
    #[error("duplicates, late, malformed and unpriced events are {0} of a million together, expected at most 1000000")]
    MoreThanAll(u64),
    #[error("the stream ends after the year 2262, which timestamps in nanoseconds cannot hold")]
    TooFarAhead,
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Event,
    Late,
    Unpriced,
    /// The same bytes as in an earlier slot.
    Duplicate {
        of: u64,
    },
    Malformed,
}

// One number for each independent stream of random numbers under a seed.
const PURPOSE_SLOT: u64 = 1;
const PURPOSE_EVENT: u64 = 2;
const PURPOSE_MALFORMED: u64 = 3;
const PURPOSE_REPEAT: u64 = 4;

/// Slots looked at for an event to repeat, from the one that was drawn backwards.
const REPEAT_SEARCH_MAX: u64 = 1_000;

/// A stream of events; see the module.
#[derive(Clone, Debug)]
pub struct Swarm {
    config: SwarmConfig,
    start_us: i64,
}

impl Swarm {
    pub fn new(config: SwarmConfig) -> Result<Swarm, SwarmError> {
        let within = |field, value, low, high, expected| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(SwarmError::OutOfRange { field, value, expected }) }
        };
        within("events", config.events, 1, EVENTS_MAX, "1 to 1000000000")?;
        within("agents", config.agents, 2, AGENTS_MAX, "2 to 10000 (one orchestrator and its workers)")?;
        let special = [
            config.duplicates_per_million,
            config.late_per_million,
            config.malformed_per_million,
            config.unpriced_per_million,
        ];
        let special = special.iter().map(|n| u64::from(*n)).sum();
        if special > 1_000_000 {
            return Err(SwarmError::MoreThanAll(special));
        }
        let span = i64::try_from(config.span_s).ok().and_then(chrono::TimeDelta::try_seconds);
        let end = span.and_then(|span| config.start.checked_add_signed(span)).ok_or(SwarmError::TooFarAhead)?;
        end.timestamp_nanos_opt().ok_or(SwarmError::TooFarAhead)?;
        let start_us = config.start.timestamp_micros();
        Ok(Swarm { config, start_us })
    }

    pub fn config(&self) -> &SwarmConfig {
        &self.config
    }

    /// What stands in slot `slot`.
    pub fn slot(&self, slot: u64) -> Slot {
        match self.kind(slot) {
            Kind::Malformed => Slot::Malformed,
            Kind::Late => Slot::Late,
            Kind::Unpriced => Slot::Unpriced,
            Kind::Event => Slot::Event,
            // With nothing before it to repeat, a repetition is an event of its own.
            Kind::Duplicate => self.repeated_by(slot).map_or(Slot::Event, |of| Slot::Duplicate { of }),
        }
    }

    /// Writes the line of slot `slot` (no newline) and the record key that goes with it. Repetitions have the key of what
    /// they repeat, so that both lie in one partition.
    pub fn write(&self, slot: u64, line: &mut Vec<u8>, key: &mut Vec<u8>) -> Slot {
        line.clear();
        key.clear();
        let what = self.slot(slot);
        match what {
            Slot::Event | Slot::Late | Slot::Unpriced => event::write_event(self, slot, Fault::None, line, key),
            Slot::Duplicate { of } => event::write_event(self, of, Fault::None, line, key),
            Slot::Malformed => self.write_malformed(slot, line, key),
        }
        what
    }

    fn kind(&self, slot: u64) -> Kind {
        let config = &self.config;
        let mut dice = Random::new(config.seed, PURPOSE_SLOT, slot).below(1_000_000);
        for (share, kind) in [
            (config.malformed_per_million, Kind::Malformed),
            (config.late_per_million, Kind::Late),
            (config.unpriced_per_million, Kind::Unpriced),
            (config.duplicates_per_million, Kind::Duplicate),
        ] {
            match dice.checked_sub(u64::from(share)) {
                None => return kind,
                Some(rest) => dice = rest,
            }
        }
        Kind::Event
    }

    /// Most retries follow within a thousand slots, a few much later.
    fn repeated_by(&self, slot: u64) -> Option<u64> {
        let mut random = Random::new(self.config.seed, PURPOSE_REPEAT, slot);
        let reach = if random.percent(90) { 1_000 } else { REPEAT_DISTANCE_MAX - REPEAT_SEARCH_MAX };
        let newest = slot.checked_sub(random.skewed(1, reach))?;
        let oldest = newest.saturating_sub(REPEAT_SEARCH_MAX);
        (oldest..=newest).rev().find(|of| matches!(self.kind(*of), Kind::Event | Kind::Late | Kind::Unpriced))
    }

    fn write_malformed(&self, slot: u64, line: &mut Vec<u8>, key: &mut Vec<u8>) {
        let mut random = Random::new(self.config.seed, PURPOSE_MALFORMED, slot);
        let fault = *random.pick(&[
            Fault::NoProject,
            Fault::NoModel,
            Fault::NoTimestamp,
            Fault::TimestampInWords,
            Fault::NegativeTokens,
            Fault::TokensInWords,
            Fault::CutOff,
            Fault::NotUtf8,
            Fault::LogLine,
            Fault::Scalar,
        ]);
        event::write_event(self, slot, fault, line, key);
        match fault {
            // The closing brace is cut off in any case.
            Fault::CutOff => line.truncate(random.between(20, line.len() as u64 - 20) as usize),
            // Inside the event id, where every byte would have been allowed had it been text.
            Fault::NotUtf8 => line[20] = 0xFF,
            Fault::LogLine => {
                line.clear();
                line.extend_from_slice(b"ERROR:squad.bus:could not serialise CostEvent, falling back to repr()");
            }
            Fault::Scalar => {
                line.clear();
                line.extend_from_slice(b"42");
            }
            _ => {}
        }
    }

    /// Event time runs evenly over the span; neighbours are out of order by up to two seconds.
    fn timestamp_us(&self, slot: u64, kind: Kind, random: &mut Random) -> i64 {
        let config = &self.config;
        let along = u128::from(config.span_s) * 1_000_000 * u128::from(slot) / u128::from(config.events);
        let mut back = random.below(2_000_000);
        if kind == Kind::Late {
            back += random.skewed(60, LATENESS_S_MAX) * 1_000_000;
        }
        // Both fit: `new` has checked that the end of the span is before 2262.
        self.start_us + along as i64 - back as i64
    }
}

/// What a slot was drawn as, before it is known what a repetition repeats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    Late,
    Unpriced,
    Duplicate,
    Malformed,
}

#[cfg(test)]
mod tests;
