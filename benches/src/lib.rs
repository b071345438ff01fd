//! Load for Costhelm. [`swarm`] writes usage events as agents in the wild send them; `generate` puts them into a file or a
//! Kafka topic.

pub mod random;
pub mod swarm;
