//! What a row costs the one who pays: list price, negotiated price, true cost, and what is charged on.
//!
//! | amount | is | FOCUS |
//! | --- | --- | --- |
//! | `list` | usage at the book's price; none where the book has no price | ListCost |
//! | `contracted` | `list` less the contract's discount, or at its fixed rates | ContractedCost |
//! | `effective` | `contracted`, but the amortised cost where the model runs on own machines | EffectiveCost |
//! | `billed` | `effective` plus the internal mark-up of the one it is charged to | BilledCost |
//!
//! The way of a row: its account (organization, unit, provider, model) has [`Terms`], found once; the plan rates the
//! row at list price, and of the contracts, amortised costs and mark-ups in force at its time the *closest* of each
//! kind is applied, and only that one:
//!
//! | closer than | because |
//! | --- | --- |
//! | a business unit's than an organization's, an organization's than everyone's | it was made for fewer |
//! | one for a model (the longer pattern) than one for a provider, than one for all | it says more |
//! | a later start than an earlier one | it replaces it |
//!
//! Two of one kind that would be equally close at one time are an error when the file is read.
//!
//! A fixed rate replaces the list price of its meter, at every length, tier and hour; meters without one keep the list
//! price less the discount. A fixed `output` holds for `reasoning` too unless that has its own.
//!
//! Currency: a contract in another currency has its fixed rates in it, and its amounts are returned in it as well, at
//! the dated exchange rate in force at the event's time. A factor or exchange rate may leave more than 18 decimals:
//! those are rounded half to even, and [`Charged::rounded`] says so for the caller to count (MONEY-2).
//!
//! Limits: 10,000 entries of a kind; percentages from 0 to 100 (a mark-up: to 1,000).

mod format;
mod scope;

use std::sync::Arc;

use serde::Serialize;

use self::scope::{Names, Scope};
use crate::meter::Meter;
use crate::money::Money;
use crate::rates::{Listed, ServiceTier};
use crate::rating::{Plan, Rated};
use crate::time::EventTime;
use crate::unpriced::Unpriced;
use crate::usage::Usage;

const MS_PER_HOUR: u64 = 3_600_000;

/// Contracts, amortised costs, mark-ups and exchange rates, as one file gives them.
#[derive(Clone, Debug, Default)]
pub struct Contracts {
    /// Each the closest first.
    contracts: Vec<Arc<Contract>>,
    locals: Vec<Arc<Local>>,
    markups: Vec<Arc<Markup>>,
    /// By currency and start.
    exchange: Arc<[Exchange]>,
}

/// What of the contracts can ever apply to one organization, unit, provider and model. Callers keep it beside the plan.
#[derive(Clone, Debug)]
pub struct Terms {
    contracts: Box<[Arc<Contract>]>,
    locals: Box<[Arc<Local>]>,
    markups: Box<[Arc<Markup>]>,
    exchange: Arc<[Exchange]>,
}

/// Whose rows, of which model, terms are for.
#[derive(Clone, Copy, Debug)]
pub struct Account<'c> {
    pub org_id: &'c str,
    pub business_unit_id: Option<&'c str>,
    /// As the event names them; contracts may name either these or what the book calls them.
    pub provider: &'c str,
    pub model: &'c str,
}

#[derive(Clone, Debug)]
struct Contract {
    scope: Scope,
    /// What remains after the discount: 0.875 of 12.5 %.
    remaining: Money,
    /// In the contract's currency, per single unit.
    fixed: Listed,
    currency: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Local {
    scope: Scope,
    cost: LocalCost,
    currency: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
enum LocalCost {
    PerUnit(Listed),
    /// The price of one hour of all GPUs together.
    GpuHour(Money),
}

#[derive(Clone, Debug)]
struct Markup {
    scope: Scope,
    /// 1.08 of 8 %.
    factor: Money,
}

#[derive(Clone, Debug)]
struct Exchange {
    currency: Arc<str>,
    from: EventTime,
    /// USD for one unit.
    usd: Money,
}

/// A row to be charged.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'c> {
    pub usage: &'c Usage,
    pub at: EventTime,
    pub tier: ServiceTier,
    pub region: Option<&'c str>,
    /// How long the model ran; what GPU hours are counted by.
    pub duration_ms: Option<u64>,
}

/// What a row costs, in USD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The book's price; `None` where it has none and a contract or an amortised cost stands in.
    pub list: Option<Rated>,
    pub contracted: Money,
    pub effective: Money,
    pub billed: Money,
    /// The ids of what was applied.
    pub contract: Option<Arc<str>>,
    pub local: Option<Arc<str>>,
    pub markup: Option<Arc<str>>,
    pub foreign: Option<Foreign>,
    /// Whether any amount had more than 18 decimals.
    pub rounded: bool,
}

/// The same amounts in the currency of the contract or amortised cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Foreign {
    pub currency: Arc<str>,
    pub contracted: Money,
    pub effective: Money,
    /// USD for one unit of the currency, and since when.
    pub usd_per_unit: Money,
    pub rate_from: EventTime,
}

/// Why a row cannot be charged. It is then unpriced for that reason (RATE-3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChargeError {
    #[error(transparent)]
    Unpriced(#[from] Unpriced),
    #[error("`{id}` is in {currency}, of which no exchange rate is in force at {at}; add one with an earlier `from`")]
    NoExchangeRate { id: Arc<str>, currency: Arc<str>, at: EventTime },
    #[error("`{id}` charges by GPU hour and the event has no duration; send `duration_ms`, or price it per token")]
    NoDuration { id: Arc<str> },
    #[error("`{id}` has no rate for the meter `{meter}`, of which there is usage")]
    NoLocalRate { id: Arc<str>, meter: Meter },
    #[error("the cost under `{id}` is beyond 10^20, which no amount can hold")]
    Overflow { id: Arc<str> },
}

impl ChargeError {
    /// A stable word for metrics, SQL and JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            ChargeError::Unpriced(unpriced) => unpriced.code(),
            ChargeError::NoExchangeRate { .. } => "no_exchange_rate",
            ChargeError::NoDuration { .. } => "no_duration",
            ChargeError::NoLocalRate { .. } => "no_rate_for_meter",
            ChargeError::Overflow { .. } => "cost_overflow",
        }
    }
}

/// An amount under construction: what was rounded is remembered.
struct Sum<'i> {
    id: &'i Arc<str>,
    rounded: bool,
}

impl Sum<'_> {
    fn take(&mut self, result: Option<(Money, bool)>) -> Result<Money, ChargeError> {
        let (money, rounded) = result.ok_or_else(|| self.overflow())?;
        self.rounded |= rounded;
        Ok(money)
    }

    fn add(&self, a: Money, b: Money) -> Result<Money, ChargeError> {
        a.checked_add(b).ok_or_else(|| self.overflow())
    }

    fn overflow(&self) -> ChargeError {
        ChargeError::Overflow { id: Arc::clone(self.id) }
    }
}

impl Contracts {
    /// Reads the text of a contracts file; the form is in the reference of the configuration.
    ///
    /// ```
    /// use costhelm_pricing::Contracts;
    ///
    /// let contracts = Contracts::from_toml(
    ///     r#"
    ///     [[contract]]
    ///     id = "anthropic-2026"
    ///     org_id = "acme"                  # left out: every organization
    ///     business_unit_id = "research"    # left out: all of it
    ///     provider = "anthropic"           # left out: every provider
    ///     models = ["claude-*"]            # left out: every model
    ///     from = "2026-01-01"
    ///     to = "2027-01-01"                # up to, not with; left out: until another replaces it
    ///     discount_percent = "12.5"
    ///     per_mtok = { input = "2.40" }    # fixed rates, in `currency` (USD)
    ///     currency = "EUR"
    ///     [[exchange]]
    ///     currency = "EUR"
    ///     from = "2026-01-01"
    ///     usd = "1.085"                    # USD for one EUR
    ///     [[local]]
    ///     id = "own-gpus"
    ///     provider = "ollama"
    ///     from = "2026-01-01"
    ///     gpu_hour = "2.50"                # or per_mtok and per_unit
    ///     gpus = 2
    ///     [[markup]]
    ///     id = "platform-fee"
    ///     from = "2026-01-01"
    ///     percent = "8"
    ///     "#,
    ///     "contracts.toml",
    /// )?;
    /// assert_eq!(contracts.len(), 3);
    /// # Ok::<(), costhelm_pricing::BookError>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong, with line, key, value and what was expected.
    pub fn from_toml(text: &str, origin: &str) -> Result<Contracts, crate::BookError> {
        format::parse(text, origin)
    }

    /// How many contracts, amortised costs and mark-ups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.contracts.len() + self.locals.len() + self.markups.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The terms of an account; `plan` is what the book says of the model.
    #[must_use]
    pub fn terms(&self, account: &Account<'_>, plan: Option<&Plan>) -> Terms {
        let names = Names::of(account, plan);
        Terms {
            contracts: fitting(&self.contracts, |contract| contract.scope.fits(account, &names)),
            locals: fitting(&self.locals, |local| local.scope.fits(account, &names)),
            markups: fitting(&self.markups, |markup| markup.scope.fits(account, &names)),
            exchange: Arc::clone(&self.exchange),
        }
    }
}

fn fitting<T>(entries: &[Arc<T>], fits: impl Fn(&T) -> bool) -> Box<[Arc<T>]> {
    entries.iter().filter(|entry| fits(entry)).map(Arc::clone).collect()
}

impl Terms {
    /// Whether every row of the account costs its list price.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contracts.is_empty() && self.locals.is_empty() && self.markups.is_empty()
    }

    /// What a row costs; `plan` is what the book says of its model.
    ///
    /// # Errors
    /// Where neither the book nor a contract nor an amortised cost has a price, or an exchange rate or a duration is
    /// missing.
    pub fn charge(&self, row: &Charge<'_>, plan: Result<&Plan, &Unpriced>) -> Result<Charged, ChargeError> {
        let list = match plan {
            Ok(plan) => plan.rate_in(row.usage, row.at, row.tier, row.region),
            Err(unpriced) => Err(unpriced.clone()),
        };
        let contract = self.contracts.iter().find(|contract| contract.scope.holds(row.at));
        let local = self.locals.iter().find(|local| local.scope.holds(row.at));
        let markup = self.markups.iter().find(|markup| markup.scope.holds(row.at));
        let mut charged = Charged {
            list: list.as_ref().ok().copied(),
            contracted: Money::ZERO,
            effective: Money::ZERO,
            billed: Money::ZERO,
            contract: contract.map(|contract| Arc::clone(&contract.scope.id)),
            local: local.map(|local| Arc::clone(&local.scope.id)),
            markup: markup.map(|markup| Arc::clone(&markup.scope.id)),
            foreign: None,
            rounded: false,
        };
        let contracted = match contract {
            Some(contract) => self.contracted(contract, row, plan, &list, &mut charged),
            None => list.map(|rated| rated.cost).map_err(ChargeError::from),
        };
        match local {
            Some(local) => {
                self.amortised(local, row, &mut charged)?;
                // Nobody invoices what runs at home: without a list price the amortised cost is all there is.
                charged.contracted = contracted.unwrap_or(charged.effective);
            }
            None => {
                charged.contracted = contracted?;
                charged.effective = charged.contracted;
            }
        }
        charged.billed = match markup {
            Some(markup) => {
                let mut sum = Sum { id: &markup.scope.id, rounded: charged.rounded };
                let billed = sum.take(charged.effective.times_decimal(markup.factor))?;
                charged.rounded = sum.rounded;
                billed
            }
            None => charged.effective,
        };
        Ok(charged)
    }

    fn contracted(
        &self,
        contract: &Contract,
        row: &Charge<'_>,
        plan: Result<&Plan, &Unpriced>,
        list: &Result<Rated, Unpriced>,
        charged: &mut Charged,
    ) -> Result<Money, ChargeError> {
        let mut sum = Sum { id: &contract.scope.id, rounded: charged.rounded };
        let mut rest = *row.usage;
        let mut fixed = Money::ZERO;
        for (meter, count) in row.usage.iter() {
            if let Some(price) = fixed_rate(&contract.fixed, meter) {
                rest.set(meter, 0);
                fixed = sum.add(fixed, price.checked_mul(count).ok_or_else(|| sum.overflow())?)?;
            }
        }
        // One request is in every row; it needs no price where the contract has fixed all there is beside it.
        let is_covered = !contract.fixed.is_empty() && rest.iter().all(|(meter, _)| meter == Meter::Requests);
        let at_list = match (list, plan) {
            (Ok(rated), _) if contract.fixed.is_empty() => rated.cost,
            (Ok(rated), Ok(plan)) => plan.cost_at(&rated.rates, &rest)?,
            _ if is_covered => Money::ZERO,
            (Err(unpriced), _) | (_, Err(unpriced)) => return Err(unpriced.clone().into()),
        };
        let discounted = sum.take(at_list.times_decimal(contract.remaining))?;
        let contracted = match &contract.currency {
            None => sum.add(fixed, discounted)?,
            Some(currency) => {
                let exchange = self.exchange(&contract.scope.id, currency, row.at)?;
                let fixed_usd = sum.take(fixed.times_decimal(exchange.usd))?;
                let discounted_foreign = sum.take(discounted.divided_by_decimal(exchange.usd))?;
                let foreign = sum.add(fixed, discounted_foreign)?;
                charged.foreign = Some(Foreign {
                    currency: Arc::clone(currency),
                    contracted: foreign,
                    effective: foreign,
                    usd_per_unit: exchange.usd,
                    rate_from: exchange.from,
                });
                sum.add(fixed_usd, discounted)?
            }
        };
        charged.rounded = sum.rounded;
        Ok(contracted)
    }

    fn amortised(&self, local: &Local, row: &Charge<'_>, charged: &mut Charged) -> Result<(), ChargeError> {
        let id = &local.scope.id;
        let mut sum = Sum { id, rounded: charged.rounded };
        let amount = match &local.cost {
            LocalCost::GpuHour(hour) => {
                let duration = row.duration_ms.ok_or_else(|| ChargeError::NoDuration { id: Arc::clone(id) })?;
                sum.take(hour.scaled(duration, MS_PER_HOUR))?
            }
            LocalCost::PerUnit(rates) => {
                let mut amount = Money::ZERO;
                for (meter, count) in row.usage.iter() {
                    let price = match fixed_rate(rates, meter) {
                        Some(price) => price,
                        None if matches!(meter, Meter::Requests | Meter::ToolCalls) => continue,
                        None => {
                            return Err(ChargeError::NoLocalRate { id: Arc::clone(id), meter });
                        }
                    };
                    amount = sum.add(amount, price.checked_mul(count).ok_or_else(|| sum.overflow())?)?;
                }
                amount
            }
        };
        charged.effective = match &local.currency {
            None => amount,
            Some(currency) => {
                let exchange = self.exchange(id, currency, row.at)?;
                let effective = sum.take(amount.times_decimal(exchange.usd))?;
                // Two currencies in one row would be three: the contract's is kept, and the effective cost in it.
                let foreign = charged.foreign.get_or_insert_with(|| Foreign {
                    currency: Arc::clone(currency),
                    contracted: amount,
                    effective: amount,
                    usd_per_unit: exchange.usd,
                    rate_from: exchange.from,
                });
                if foreign.currency == *currency {
                    foreign.effective = amount;
                } else {
                    foreign.effective = sum.take(effective.divided_by_decimal(foreign.usd_per_unit))?;
                }
                charged.rounded = sum.rounded;
                charged.effective = effective;
                return Ok(());
            }
        };
        if let Some(foreign) = &mut charged.foreign {
            foreign.effective = sum.take(charged.effective.divided_by_decimal(foreign.usd_per_unit))?;
        }
        charged.rounded = sum.rounded;
        Ok(())
    }

    fn exchange(&self, id: &Arc<str>, currency: &Arc<str>, at: EventTime) -> Result<&Exchange, ChargeError> {
        let of_currency = self.exchange.iter().rev().filter(|exchange| exchange.currency == *currency);
        let mut in_force = of_currency.filter(|exchange| exchange.from <= at);
        in_force.next().ok_or_else(|| ChargeError::NoExchangeRate {
            id: Arc::clone(id),
            currency: Arc::clone(currency),
            at,
        })
    }
}

/// A listed rate; thinking costs what output does, and whole caches or kinds of tokens what they are listed for.
fn fixed_rate(rates: &Listed, meter: Meter) -> Option<Money> {
    let rate = |meter| rates.get(&meter).copied();
    rate(meter).or_else(|| if meter == Meter::Reasoning { rate(Meter::Output) } else { None })
}
