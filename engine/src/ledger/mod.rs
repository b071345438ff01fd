//! The ledger as its readers see it: tables for SQL, and the audit that proves it. Reads what commit wrote.

pub mod audit;
pub mod tables;
