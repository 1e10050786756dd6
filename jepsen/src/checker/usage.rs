//! Usage: every reply that a client saw whole has exactly one row of status ok with the upstream's own tokens; no row
//! comes twice; and all rows together charge no less than what the upstream wrote.

use super::{Checker, Finding, Verdict};
use crate::db::PROMPT_TOKENS;
use crate::history::{Arrival, Folded, Row};
use std::collections::BTreeMap;

pub(super) const CHECKER: Checker = Checker {
    name: "usage",
    claim: "one ok row with the upstream's tokens per acknowledged reply, none twice, nothing under-counted",
    check,
};

fn check(history: &Folded) -> Vec<Finding> {
    if history.arrivals.is_empty() {
        return vec![Finding::new("usage", Verdict::Skipped, "nothing arrived")];
    }
    let mut rows: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &history.rows {
        // The calls of one request share its id up to the dot.
        rows.entry(row.request_id.split('.').next().unwrap_or_default()).or_default().push(row);
    }
    let mut arrivals: BTreeMap<u64, Vec<&Arrival>> = BTreeMap::new();
    for (_, arrival) in &history.arrivals {
        arrivals.entry(arrival.op.unwrap_or(0)).or_default().push(arrival);
    }
    let mut problems = twice(history);
    let mut acknowledged = 0;
    for op in &history.ops {
        let Some(answer) = op.answer() else { continue };
        acknowledged += 1;
        let of_op = rows.get(answer.request_id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let ok: Vec<_> = of_op.iter().filter(|row| row.status == "ok").collect();
        let wrote = arrivals.get(&op.id).and_then(|all| all.iter().find(|arrival| arrival.status == 200));
        match (ok.as_slice(), wrote) {
            ([row], Some(wrote)) => {
                let tokens = wrote.tokens(PROMPT_TOKENS);
                if row.charged_tokens != tokens {
                    let id = &answer.request_id;
                    problems.push(format!("{id} is charged {} tokens, the upstream used {tokens}", row.charged_tokens));
                }
            }
            (rows, Some(_)) => {
                problems.push(format!(
                    "operation {} ({}) has {} rows of status ok",
                    op.id,
                    answer.request_id,
                    rows.len()
                ));
            }
            (_, None) => problems.push(format!("operation {} was answered but never arrived upstream", op.id)),
        }
    }
    let charged: u64 = history.rows.iter().map(|row| row.charged_tokens).sum();
    let used: u64 = history.arrivals.iter().map(|(_, arrival)| known_tokens(arrival)).sum();
    if charged < used {
        problems.push(format!("{charged} tokens are charged, the upstream used {used}"));
    }
    if history.rows.len() < history.arrivals.len() {
        problems.push(format!("{} calls arrived, there are {} rows", history.arrivals.len(), history.rows.len()));
    }
    let count = |status: &str| history.rows.iter().filter(|row| row.status == status).count();
    let said = format!(
        "{acknowledged} acknowledged, {} calls, {} rows ({} ok, {} cut, {} lost); {charged} tokens charged, {used} used",
        history.arrivals.len(),
        history.rows.len(),
        count("ok"),
        count("cut"),
        count("lost"),
    );
    vec![Finding::unless("usage", &problems, said)]
}

/// What the upstream certainly used: of a call that broke off only what it told, since what it wrote may not have come.
fn known_tokens(arrival: &Arrival) -> u64 {
    if arrival.closed_early || arrival.status >= 400 { 0 } else { arrival.tokens(0) }
}

fn twice(history: &Folded) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let repeated = history.rows.iter().filter(|row| !seen.insert(&row.request_id));
    repeated.map(|row| format!("row {} is there twice", row.request_id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Call, Chat, Op, Outcome, Value};

    fn history(rows: Vec<Row>) -> Folded {
        let chat =
            Chat { model: "m".into(), key: "k".into(), priority: 1, max_tokens: 9, output_tokens: 6, stream: false };
        let answer = Answer { request_id: "r1".into(), ..Answer::default() };
        let op = Op {
            id: 1,
            node: 1,
            call: Call::Chat(chat),
            invoked_us: 1,
            ended_us: Some(9),
            outcome: Outcome::Ok(Value::Chat(answer)),
        };
        let arrival = Arrival {
            op: Some(1),
            status: 200,
            prompt_tokens: Some(24),
            completion_tokens: Some(6),
            ..Arrival::default()
        };
        Folded { ops: vec![op], arrivals: vec![(2, arrival)], rows, ..Folded::default() }
    }

    fn row(id: &str, status: &str, charged_tokens: u64) -> Row {
        Row { request_id: id.into(), status: status.into(), charged_tokens, ..Row::default() }
    }

    fn verdict(rows: Vec<Row>) -> Verdict {
        check(&history(rows))[0].verdict
    }

    #[test]
    fn exactly_one_ok_row_with_the_upstreams_tokens_is_valid() {
        assert_eq!(verdict(vec![row("r1", "ok", 30)]), Verdict::Valid);
        assert_eq!(verdict(vec![row("r1", "cut", 5), row("r1.1", "ok", 30)]), Verdict::Valid);
    }

    #[test]
    fn a_missing_a_double_a_wrong_and_a_repeated_row_are_invalid() {
        assert_eq!(verdict(vec![]), Verdict::Invalid);
        assert_eq!(verdict(vec![row("r1", "lost", 30)]), Verdict::Invalid);
        assert_eq!(verdict(vec![row("r1", "ok", 30), row("r1.1", "ok", 30)]), Verdict::Invalid);
        assert_eq!(verdict(vec![row("r1", "ok", 29)]), Verdict::Invalid);
        assert_eq!(verdict(vec![row("r1", "ok", 30), row("r2", "lost", 9), row("r2", "lost", 9)]), Verdict::Invalid);
    }
}
