//! Budget counters from the ledger itself: for budgets that are new or count something else now, and for the audit.

use std::{collections::HashMap, path::Path};

use costhelm_pricing::{EventTime, Money};

use super::{
    reading::{MoneyColumn, OriginRows, ReadError, SumsRows, read},
    store::{BudgetCounter, ManifestFile},
};
use crate::{
    budget::{Budget, Period, period_of},
    bus::TopicPartition,
    event::{Dim, dims::DimTable},
};

/// What a budget's counters count. When it changes, they must be counted anew; the amount is no part of it.
pub fn definition(budget: &Budget) -> String {
    format!("{:?} {} {}", budget.period, budget.zone, budget.scope.key())
}

/// Adds up ledger rows by budget, period and partition.
pub struct Tally<'b> {
    budgets: &'b [Budget],
    dims: DimTable,
    covering: Vec<Vec<usize>>,
    period: Vec<Option<Period>>,
    spent: HashMap<(usize, EventTime, TopicPartition), (String, Money)>,
}

impl<'b> Tally<'b> {
    pub fn new(budgets: &'b [Budget]) -> Tally<'b> {
        Tally {
            budgets,
            dims: DimTable::default(),
            covering: Vec::new(),
            period: vec![None; budgets.len()],
            spent: HashMap::new(),
        }
    }

    pub fn add(
        &mut self,
        time: EventTime,
        dims: &[&str; Dim::COUNT],
        at: &TopicPartition,
        cost: Money,
    ) -> Result<(), String> {
        if cost == Money::ZERO {
            return Ok(());
        }
        let number = self.dims.intern(dims) as usize;
        if number == self.covering.len() {
            let scope = self.dims.get(number as u32);
            let covers = |budget: &usize| self.budgets[*budget].scope.matches(&scope.into());
            self.covering.push((0..self.budgets.len()).filter(covers).collect());
        }
        for budget in &self.covering[number] {
            let rule = &self.budgets[*budget];
            let period = match &mut self.period[*budget] {
                Some(period) if period.contains(time) => period,
                slot => slot.insert(period_of(rule.period, rule.zone, time)),
            };
            let (_, spent) = self
                .spent
                .entry((*budget, period.start, at.clone()))
                .or_insert_with(|| (period.label.clone(), Money::ZERO));
            *spent = spent.checked_add(cost).ok_or("MONEY-2: a budget's spend overflows")?;
        }
        Ok(())
    }

    pub fn finish(self) -> Vec<BudgetCounter> {
        let counter =
            |((budget, period_start, at), (period, spent)): ((usize, EventTime, TopicPartition), (String, Money))| {
                BudgetCounter { budget: self.budgets[budget].id.0.clone(), period_start, period, at, spent }
            };
        self.spent.into_iter().map(counter).collect()
    }
}

/// Counts what the ledger holds for these budgets.
pub fn count(data_dir: &Path, files: &[ManifestFile], budgets: &[Budget]) -> Result<Vec<BudgetCounter>, ReadError> {
    let mut tally = Tally::new(budgets);
    let columns = SumsRows::ledger_columns();
    let columns: Vec<&str> = columns.iter().map(String::as_str).chain(OriginRows::COLUMNS).collect();
    for file in files {
        read(data_dir, &file.path, &columns, |batch| {
            let (rows, origins, cost) =
                (SumsRows::of_ledger(batch)?, OriginRows::of(batch)?, MoneyColumn::of(batch, "cost_usd")?);
            for row in 0..rows.len() {
                let at = TopicPartition { topic: origins.topic(row).into(), partition: origins.partition(row) };
                tally.add(rows.time(row), &rows.dims(row), &at, cost.get(row).unwrap_or(Money::ZERO))?;
            }
            Ok(())
        })?;
    }
    Ok(tally.finish())
}
