//! Exact, effective-dated prices for AI usage.
//!
//! The way of a row: what a sender reports ([`ReportedUsage`]) is normalised to disjoint meters ([`Usage`], RATE-2);
//! provider and model find a [`Plan`] in the [`Book`] (see [`matching`] for the precedence); the plan rates the usage
//! at the event's own time ([`EventTime`], RATE-1) to an exact [`Money`] (MONEY-1), or says why there is no price
//! ([`Unpriced`], RATE-3).
//!
//! ```
//! use costhelm_pricing::{Book, EventTime, ServiceTier, usage_from_json};
//!
//! let book = Book::from_toml(
//!     r#"
//!     provider = "openai"
//!     [[model]]
//!     name = "gpt-4o-mini"
//!     [[model.price]]
//!     from = "2024-07-18"
//!     per_mtok = { input = "0.15", output = "0.60" }
//!     "#,
//!     "prices.toml",
//! )?;
//! let usage = usage_from_json(r#"{"input": 1}"#)?.normalize()?;
//! let plan = book.plan("openai", "gpt-4o-mini")?;
//! let rated = plan.rate(&usage, EventTime::parse("2026-11-22T10:00:00Z")?, ServiceTier::Standard)?;
//! assert_eq!(rated.cost.to_string(), "0.00000015");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a provider returned, verbatim, becomes meters in [`providers`]; what the one who pays has agreed on is in
//! [`contracts`]; price files of other projects come in through [`mod@import`], and [`compare`] holds two books side by
//! side.
//!
//! No I/O, no clock, no async. The books in `catalog/` are compiled in.

#![forbid(unsafe_code)]

mod book;
mod catalog;
pub mod compare;
pub mod contracts;
pub mod format;
pub mod import;
mod json;
pub mod matching;
mod meter;
mod money;
pub mod providers;
pub mod rates;
pub mod rating;
mod time;
mod unpriced;
pub mod usage;
mod window;

pub use book::{Book, PriceEntry};
pub use contracts::{Account, Charge, ChargeError, Charged, Contracts, Terms};
pub use format::BookError;
pub use import::{ImportError, ImportFormat, ImportOptions, ImportReport, Imported, import};
pub use matching::{Explanation, MatchKind};
pub use meter::{Meter, Side};
pub use money::{Money, MoneyError};
pub use providers::{ProviderUsage, ProviderUsageError, normalize_provider_usage};
pub use rates::ServiceTier;
pub use rating::{Plan, Rated, RatesRef, RecomputeError, recompute};
pub use time::{EventTime, TimeError};
pub use unpriced::Unpriced;
pub use usage::{Convention, ReportedUsage, Usage, UsageError, usage_from_json};
