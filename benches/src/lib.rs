//! Load for Costhelm. [`swarm`] writes usage events as agents in the wild send them; `generate` puts them into a file or a
//! Kafka topic; `e2e` drives the engine with them and measures it.

pub mod random;
pub mod swarm;
pub mod topic;
