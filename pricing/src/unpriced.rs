//! Why a row has no price. Such a row is never charged 0 for it: it is kept, visible and rated again later (RATE-3).

use std::sync::Arc;

use crate::meter::Meter;
use crate::rates::ServiceTier;
use crate::time::EventTime;

/// The reason why usage could not be priced. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpriced {
    #[error(
        "no price list for provider `{provider}` (model `{model}`); add one, or name the provider as the price book does"
    )]
    UnknownProvider { provider: Arc<str>, model: Arc<str> },
    #[error("no price for model `{model}` in the list of provider `{provider}`; add the model, an alias or a pattern")]
    UnknownModel { provider: Arc<str>, model: Arc<str> },
    #[error("model `{model}` without a provider fits several price lists ({candidates}); send the provider")]
    AmbiguousProvider { model: Arc<str>, candidates: Arc<str> },
    #[error(
        "model `{model}` fits several patterns of provider `{provider}` equally well ({candidates}); list it by name"
    )]
    AmbiguousPattern { provider: Arc<str>, model: Arc<str>, candidates: Arc<str> },
    #[error("model `{model}` has no price yet at {at}; its first known price is from {first_price}")]
    NotYetPriced { model: Arc<str>, at: EventTime, first_price: EventTime },
    #[error("model `{model}` has no rate for the meter `{meter}`, of which there is usage")]
    NoRate { model: Arc<str>, meter: Meter },
    #[error(
        "model `{model}` lists its own rates for service tier `{tier}` but not for requests above {above} input tokens, \
         where its standard rates change; list them under `{tier}.above`"
    )]
    NoRateForLength { model: Arc<str>, tier: ServiceTier, above: u64 },
    #[error("the cost on model `{model}` is beyond 10^20 USD, which no amount can hold")]
    Overflow { model: Arc<str> },
}

impl Unpriced {
    /// A stable word for metrics, SQL and JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Unpriced::UnknownProvider { .. } => "unknown_provider",
            Unpriced::UnknownModel { .. } => "unknown_model",
            Unpriced::AmbiguousProvider { .. } => "ambiguous_provider",
            Unpriced::AmbiguousPattern { .. } => "ambiguous_pattern",
            Unpriced::NotYetPriced { .. } => "no_price_at_time",
            Unpriced::NoRate { .. } => "no_rate_for_meter",
            Unpriced::NoRateForLength { .. } => "no_rate_for_length",
            Unpriced::Overflow { .. } => "cost_overflow",
        }
    }
}
