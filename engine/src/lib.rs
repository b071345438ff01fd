//! Costhelm: an embedded streaming cost and FinOps engine for fleets of AI agents.

pub mod bus;
