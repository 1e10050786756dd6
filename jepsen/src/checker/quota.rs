//! Quotas: what a key's rows charge is what its day has lost, token for token, and never more than the day allows.

use super::{Checker, Finding, Verdict};
use crate::history::Folded;

pub(super) const CHECKER: Checker =
    Checker { name: "quota", claim: "limit - left = what the key's rows charge, and never above the limit", check };

fn check(history: &Folded) -> Vec<Finding> {
    let of_key = |(key, limit, left): &(String, u64, u64)| {
        let charged: u64 = history.rows.iter().filter(|row| row.key_id == *key).map(|row| row.charged_tokens).sum();
        let used = limit.saturating_sub(*left);
        let verdict = if charged == used && charged <= *limit { Verdict::Valid } else { Verdict::Invalid };
        let said = format!("the ledger has {used} of {limit} used, the rows charge {charged}");
        Finding::new(format!("quota {key}"), verdict, said)
    };
    history.quotas.iter().map(of_key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Row;

    #[test]
    fn a_token_lost_or_doubled_is_invalid() {
        let verdict = |charged_tokens, left| {
            let rows = vec![Row { key_id: "k".into(), charged_tokens, ..Row::default() }];
            check(&Folded { rows, quotas: vec![("k".into(), 100, left)], ..Folded::default() })[0].verdict
        };
        assert_eq!(verdict(40, 60), Verdict::Valid);
        assert_eq!(verdict(39, 60), Verdict::Invalid);
        assert_eq!(verdict(41, 60), Verdict::Invalid);
        assert_eq!(verdict(101, 0), Verdict::Invalid);
    }
}
