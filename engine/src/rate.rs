//! Events through the price book, at the event's own time (RATE-1). Pure.
//!
//! Matching a model is slow and the same for every event of a set of dimensions, so its result is remembered by the set's
//! number; what remains an event is one multiplication a meter.
//!
//! Limits: one remembered plan a set of dimensions, cleared together with them.

use std::sync::Arc;

use costhelm_pricing::{Book, Plan, Unpriced};

use crate::event::{Dim, Dims, UsageEvent, columns::Rating};

pub struct Rater {
    book: Arc<Book>,
    plans: Vec<Option<Result<Arc<Plan>, Unpriced>>>,
}

impl Rater {
    pub fn new(book: Arc<Book>) -> Rater {
        Rater { book, plans: Vec::new() }
    }

    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Forgets the plans; the numbers of sets start anew.
    pub fn clear(&mut self) {
        self.plans.clear();
    }

    /// Prices one event. `number` stands for `dims` until [`Rater::clear`].
    pub fn rate(&mut self, number: u32, dims: &Dims, event: &UsageEvent<'_>) -> Rating<'_> {
        if let Some(code) = event.unpriceable {
            return Rating::Unpriced(code);
        }
        let number = number as usize;
        if self.plans.len() <= number {
            self.plans.resize(number + 1, None);
        }
        let plan = self.plans[number]
            .get_or_insert_with(|| self.book.plan(dims.get(Dim::ModelProvider), dims.get(Dim::ModelName)));
        match plan {
            Ok(plan) => match plan.rate_in(&event.usage, event.time, event.service_tier, event.region.as_deref()) {
                Ok(rated) => Rating::Priced {
                    cost: rated.cost,
                    model: plan.model(),
                    unit_prices: plan.unit_prices(&rated.rates),
                },
                Err(unpriced) => Rating::Unpriced(unpriced.code()),
            },
            Err(unpriced) => Rating::Unpriced(unpriced.code()),
        }
    }
}
