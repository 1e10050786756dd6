//! What tokens cost: turns the tokens of a request into money, for budgets. Prices themselves are kept elsewhere.

use ledger::model::Spend;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one token of a model costs; 0 is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Price {
    /// A token that the model reads, in nano-USD.
    pub input_nano_usd: u64,
    /// A token that it writes, in nano-USD.
    pub output_nano_usd: u64,
    /// A token that it reads from the provider's cache, in nano-USD.
    pub cached_input_nano_usd: u64,
}

impl Price {
    /// What a request with so many tokens read and written takes of quotas.
    pub fn spend(&self, prompt: u64, completion: u64) -> Spend {
        let read = prompt.saturating_mul(self.input_nano_usd);
        let written = completion.saturating_mul(self.output_nano_usd);
        Spend { tokens: prompt.saturating_add(completion), cost_nano_usd: read.saturating_add(written) }
    }
}

/// Where prices come from.
pub trait Prices: Send + Sync {
    /// The price of a model's tokens, if it is known. Answers from memory, at once.
    fn of(&self, model: &str) -> Option<Price>;
}

impl Prices for BTreeMap<String, Price> {
    fn of(&self, model: &str) -> Option<Price> {
        self.get(model).copied()
    }
}

/// The price of a request: that of the model it names, else that of its pool, else nothing.
pub fn price_of(prices: &dyn Prices, model: &str, pool: &str) -> Price {
    prices.of(model).or_else(|| prices.of(pool)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_costs_what_it_reads_and_writes() {
        let price = Price { input_nano_usd: 3, output_nano_usd: 10, cached_input_nano_usd: 1 };
        assert_eq!(price.spend(7, 5), Spend { tokens: 12, cost_nano_usd: 71 });
        assert_eq!(price.spend(u64::MAX, 5), Spend { tokens: u64::MAX, cost_nano_usd: u64::MAX });
    }

    #[test]
    fn a_model_without_a_price_has_that_of_its_pool_or_none() {
        let price = Price { input_nano_usd: 3, ..Price::default() };
        let prices = BTreeMap::from([("gpt-*".to_owned(), price)]);
        assert_eq!(price_of(&prices, "gpt-4", "gpt-*"), price);
        assert_eq!(price_of(&prices, "other", "other"), Price::default());
    }
}
