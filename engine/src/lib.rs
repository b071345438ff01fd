//! Costhelm: an embedded streaming cost and FinOps engine for fleets of AI agents.
//!
//! Usage events come in from a bus, are priced from an effective-dated price book at their own time, are added up in windows
//! and budgets, and are committed exactly once to a Parquet ledger; alerts and throttle commands go back to the bus.
//!
//! ```text
//!  bus ─▶ decode ─▶ rate ─▶ fold ─▶ commit ─▶ publish          serve: HTTP, metrics, SQL: all read, none writes
//! ```
//!
//! [`Engine`] runs all of it in your process; `costhelm run` is a thin shell over it. Modules stand in the order of the way
//! of the data; each may use only what stands above it in this list.

pub mod clock;
pub mod config;
pub mod crash;

pub mod bus;
pub mod event;

pub mod budget;
pub mod decode;
pub mod rate;

pub mod fold;

pub mod commit;
pub mod pipeline;

pub mod ledger;
pub mod publish;
pub mod state;

pub mod engine;
pub mod serve;

pub use costhelm_pricing as pricing;
pub use engine::{Engine, StartError};
