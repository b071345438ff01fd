//! Integration tests: the real binary, a real Apache Kafka, Python as the second opinion.
//!
//! `tests/run` installs and starts what they need. A test never skips: what is missing fails it, and says what to run.

mod audit;
mod cli;
mod crash;
mod http;
mod kafka;
mod support;
