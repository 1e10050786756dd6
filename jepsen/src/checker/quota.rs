//! Quotas: what a key's rows charge is what its day has lost, token for token, and never more than the day allows.

use super::{Checker, Finding, Verdict};
use crate::client::ONE_REQUEST;
use crate::history::Folded;

pub(super) const CHECKER: Checker =
    Checker { name: "quota", claim: "limit - left = what the key's rows charge, and never above the limit", check };

fn check(history: &Folded) -> Vec<Finding> {
    let of_key = |(key, limit, left): &(String, u64, Option<u64>)| {
        let charged: u64 = history.rows.iter().filter(|row| row.key_id == *key).map(|row| row.charged_tokens).sum();
        let (is_so, rest) = match left {
            Some(left) => (charged + left == *limit, format!("{left} are left")),
            None => (charged <= *limit && limit - charged < ONE_REQUEST, format!("less than {ONE_REQUEST} are left")),
        };
        let verdict = if is_so { Verdict::Valid } else { Verdict::Invalid };
        Finding::new(format!("quota {key}"), verdict, format!("the rows charge {charged} of {limit}, {rest}"))
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
        assert_eq!(verdict(80, None), Verdict::Valid);
        assert_eq!(verdict(75, None), Verdict::Invalid);
        assert_eq!(verdict(101, None), Verdict::Invalid);
        assert_eq!(verdict(40, Some(60)), Verdict::Valid);
        assert_eq!(verdict(39, Some(60)), Verdict::Invalid);
        assert_eq!(verdict(41, Some(60)), Verdict::Invalid);
        assert_eq!(verdict(101, Some(0)), Verdict::Invalid);
    }
}
