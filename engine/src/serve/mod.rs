//! What others see of a running engine, over HTTP. Reads state and store; never writes the ledger.

pub mod http;
pub mod ingest;
pub mod metrics;
mod problem;
