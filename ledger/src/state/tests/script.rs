//! The language of the golden scripts: one command is one operation, in an entry of its own unless joined by ` ; `.
//!
//! ```text
//! at 1500ms ...                         sets the stamp first (us, ms, s); may run back, the ledger's time does not
//! term 2 | late ...                     the term of what follows | an entry proposed in the term before
//! pool gpt tokens 1000/s burst 1000 requests 5/s burst 5 concurrent 2 max 60s | remove gpt
//! up 1 boot a life 1                    node 1's process begins
//! contact 1 [epoch 2] [up 3] gpt spent 10 returned 5 over 1 calls 2 calls-back 1 base 1 freed 1
//!         refund SLOT:TOKENS[:CALLS] oldest SLOT | absorbed 1,2 | end 3:100,4:void,5:100:COST | low 5
//! expire 1 | free-lost | grant 1 gpt tokens 100 calls 1 permits 1
//! tenant key:a requests 1/s burst 1 tokens 10/s burst 20 concurrent 2 day 500 month 900 day-cost 5 month-cost 9 soft day
//!         (a name for what follows)
//! stale key:a concurrent 9                  as tenant, with a version before any other
//! reserve 1 #7 gpt 600 [cost 9] [for key:a,team:t] | correct 1 up 3 #7 100 [cost 9] | day 2 | month 2 | checkpoint
//! adjust key:a day -100
//! revoke HEX|key:a until 400 | set-tenant key:a                     (as named)
//! show [pools|nodes|tenants|revoked]            prints rows
//! ```

use crate::entry::{Amounts, Effect, End, Entry, LogPos, Op, Outcome, PoolReport, Refund, Report, Retry, Who};
use crate::model::{
    BucketLimit, Credential, Epoch, Incarnation, NodeId, PoolId, PoolLimits, QuotaKind, QuotaLimit, Quotas, Rate,
    Scope, ScopeKind, Spend, TenantLimits, Tenants,
};
use crate::rules::Rules;
use crate::state::{Bucket, State};
use crate::time::Stamp;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::SplitWhitespace;

/// A script at work.
pub(super) struct Script {
    state: State,
    log: Vec<(LogPos, Entry)>,
    term: u64,
    stamp: Stamp,
    tenants: BTreeMap<String, TenantLimits>,
    versions: u64,
}

type Words<'a> = std::iter::Peekable<SplitWhitespace<'a>>;

impl Script {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(Rules::ALL),
            log: Vec::new(),
            term: 1,
            stamp: Stamp(0),
            tenants: BTreeMap::new(),
            versions: 0,
        }
    }

    /// Runs the commands of a block and gives what they print.
    pub(super) fn run(&mut self, commands: &str) -> String {
        let mut output = String::new();
        for line in commands.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            self.line(line, &mut output);
            if let Some(why) = self.state.breach() {
                writeln!(output, "BREACH {why}").unwrap();
            }
        }
        output
    }

    /// L9: whoever replays the same log has the same ledger.
    pub(super) fn assert_replays(&self) {
        let mut again = State::new(Rules::ALL);
        self.log.iter().for_each(|(at, entry)| _ = again.apply(*at, entry));
        assert_eq!(again, self.state);
        assert_eq!(again.digest(), self.state.digest());
    }

    fn line(&mut self, line: &str, output: &mut String) {
        let mut words = line.split_whitespace().peekable();
        if words.next_if_eq(&"at").is_some() {
            self.stamp = Stamp(us(words.next().unwrap()));
        }
        let late = words.next_if_eq(&"late").is_some();
        match words.peek().copied() {
            None => return,
            Some("term") => {
                self.term = words.nth(1).unwrap().parse().unwrap();
                return;
            }
            Some("show") => {
                words.next();
                self.show(words.next(), output);
                return;
            }
            Some(kind @ ("tenant" | "stale")) => {
                words.next();
                self.name_tenant(&mut words, kind == "stale");
                return;
            }
            Some(_) => {}
        }
        let rest: Vec<&str> = words.collect();
        let commands = rest.join(" ");
        let ops: Vec<Op> = commands.split(" ; ").map(|command| self.op(command)).collect();
        let at = LogPos { term: self.term, index: self.log.len() as u64 + 1 };
        let proposer_term = if late { self.term - 1 } else { self.term };
        let entry = Entry { proposer_term, stamp: self.stamp, ops };
        let applied = self.state.apply(at, &entry);
        self.log.push((at, entry));
        if applied.void {
            writeln!(output, "{commands}: void").unwrap();
        }
        for (command, outcome) in commands.split(" ; ").zip(applied.outcomes) {
            let short: Vec<&str> = command.split_whitespace().take(3).collect();
            writeln!(output, "{}: {}", short.join(" "), show_outcome(&outcome)).unwrap();
        }
        for Effect::QuotaReached { scope, kind, window, percent, used, most } in applied.effects {
            let (scope, name) = (show_scope(scope), quota_name(kind));
            writeln!(output, "  {scope} has reached {percent} % of {name} {window}: {used} of {most}").unwrap();
        }
    }

    fn op(&self, command: &str) -> Op {
        let mut words = command.split_whitespace().peekable();
        match words.next().unwrap() {
            "pool" => {
                let name = words.next().unwrap().into();
                let (tenant, request_us_max) = limits(&mut words);
                let limits =
                    PoolLimits { tokens: tenant.tokens, requests: tenant.requests, concurrent: tenant.concurrent };
                Op::SetPool { name, limits, request_us_max }
            }
            "remove" => Op::RemovePool { name: words.next().unwrap().into() },
            "up" => {
                let node = NodeId(number(&mut words));
                let boot_id = after(&mut words, "boot").unwrap_or_default().into();
                Op::NodeUp { node, boot_id, life: after(&mut words, "life").map_or(1, |life| life.parse().unwrap()) }
            }
            "contact" => self.contact(&mut words),
            "expire" => Op::Expire { who: self.who(&mut words) },
            "free-lost" => Op::FreeLost,
            "grant" => {
                let who = self.who(&mut words);
                let pool = self.pool(words.next().unwrap());
                let mut amounts = Amounts::default();
                while let Some(unit) = words.next() {
                    match unit {
                        "tokens" => amounts.tokens = number(&mut words),
                        "calls" => amounts.requests = number(&mut words),
                        "permits" => amounts.permits = number(&mut words),
                        other => panic!("no unit {other}"),
                    }
                }
                Op::Grant { who, pool, amounts }
            }
            "reserve" => {
                let who = self.who(&mut words);
                let seq = seq(&mut words);
                let pool = self.pool(words.next().unwrap());
                let spend = spend(&mut words);
                let names = after(&mut words, "for").map(str::to_owned).unwrap_or_default();
                let names = names.split(',').filter(|name| !name.is_empty());
                let tenants: Tenants = names.map(|name| self.tenants[name]).collect();
                Op::Reserve { who, seq, pool, spend, tenants }
            }
            "correct" => {
                let who = self.who(&mut words);
                let seq = seq(&mut words);
                Op::Correct { node: who.node, incarnation: who.incarnation, seq, used: spend(&mut words) }
            }
            "month" => Op::RollMonth { month: number(&mut words) },
            "adjust" => {
                let limits = self.tenants[words.next().unwrap()];
                let kind = quota_kind(words.next().unwrap()).unwrap();
                Op::AdjustQuota { limits, kind, delta: words.next().unwrap().parse().unwrap(), by: "admin".into() }
            }
            "day" => Op::RollDay { day: number(&mut words) },
            "checkpoint" => Op::Checkpoint,
            "revoke" => {
                let credential = credential(words.next().unwrap());
                Op::Revoke { credential, until_day: after(&mut words, "until").unwrap().parse().unwrap() }
            }
            "set-tenant" => Op::SetTenant { limits: self.tenants[words.next().unwrap()] },
            other => panic!("no command {other}"),
        }
    }

    fn contact(&self, words: &mut Words<'_>) -> Op {
        let who = self.who(words);
        let mut report = Report::default();
        while let Some(word) = words.next() {
            let list = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
            match word {
                "absorbed" => {
                    report.absorbed = list(words.next().unwrap()).iter().map(|seq| seq.parse().unwrap()).collect()
                }
                "end" => report.ends = list(words.next().unwrap()).iter().map(|end| show_end(end)).collect(),
                "low" => report.low = number(words),
                pool => report.pools.push(pool_report(self.pool(pool), words)),
            }
        }
        Op::Contact { who, report }
    }

    /// A node with its present incarnation and epoch, unless others are named.
    fn who(&self, words: &mut Words<'_>) -> Who {
        let node = NodeId(number(words));
        let mut who = self.state.who(node).unwrap_or(Who { node, ..Who::default() });
        if let Some(epoch) = after(words, "epoch") {
            who.epoch = Epoch(epoch.parse().unwrap());
        }
        if let Some(up) = after(words, "up") {
            who.incarnation = Incarnation(up.parse().unwrap());
        }
        who
    }

    fn pool(&self, name: &str) -> PoolId {
        self.state.names.get(name).copied().unwrap_or(PoolId(u32::MAX))
    }

    fn name_tenant(&mut self, words: &mut Words<'_>, stale: bool) {
        let name = words.next().unwrap().to_owned();
        self.versions += 1;
        let version = if stale { 0 } else { self.versions };
        let (limits, _) = limits(words);
        self.tenants.insert(name.clone(), TenantLimits { scope: scope(&name), version, ..limits });
    }

    /// Prints rows as they are at the present stamp; in the ledger they are brought there when next touched.
    fn show(&self, what: Option<&str>, output: &mut String) {
        let all = what.is_none();
        let mut state = self.state.clone();
        state.pools.values_mut().for_each(|pool| pool.advance(state.stamp, Rules::ALL));
        let (windows, now, mark) = (state.windows, state.stamp, state.reserved);
        state.tenants.values_mut().for_each(|tenant| tenant.touch(None, windows, now, mark, Rules::ALL));
        if all || what == Some("pools") {
            for pool in state.pools.values() {
                let mut line = format!("pool {}:", pool.name);
                show_bucket(&mut line, "tokens", pool.tokens.as_ref(), pool.limits.tokens.is_some());
                show_bucket(&mut line, "requests", pool.requests.as_ref(), pool.limits.requests.is_some());
                if pool.limits.concurrent.is_some() || pool.permits_out() > 0 {
                    let most = pool.limits.concurrent.map_or("any".to_owned(), |most| most.to_string());
                    write!(line, " permits {} of {most}", pool.permits_out()).unwrap();
                }
                writeln!(output, "{line}").unwrap();
            }
        }
        if all || what == Some("nodes") {
            for (id, row) in state.nodes() {
                let open: Vec<_> = row
                    .open
                    .iter()
                    .map(|(seq, open)| format!("#{seq}{}", if open.attached { "" } else { "*" }))
                    .collect();
                let (up, epoch, renewed) = (row.incarnation.0, row.epoch.0, ms(row.renewed));
                writeln!(output, "node {}: up {up} epoch {epoch} renewed {renewed} open [{}]", id.0, open.join(" "))
                    .unwrap();
            }
        }
        if what == Some("revoked") {
            let shown = state.revoked.rows.iter().map(|(credential, until)| {
                let credential = match credential {
                    Credential::Hash(hash) => format!("{:02x}", hash[0]),
                    Credential::Scope(scope) => show_scope(*scope),
                };
                format!(" {credential} until {until}")
            });
            writeln!(output, "revoked, version {}:{}", state.revoked_version(), shown.collect::<String>()).unwrap();
        }
        if all || what == Some("tenants") {
            for (scope, tenant) in &state.tenants {
                let mut line = format!("tenant {}:", show_scope(*scope));
                show_bucket(&mut line, "requests", tenant.requests.as_ref(), true);
                show_bucket(&mut line, "tokens", tenant.tokens.as_ref(), true);
                if let Some(most) = tenant.limits.concurrent {
                    let lost: u64 = tenant.lost.iter().map(|&(_, permits)| permits).sum();
                    write!(line, " permits {}+{lost} of {most}", tenant.permits).unwrap();
                }
                for (quota, limit) in tenant.quotas_in_force() {
                    let (name, window, most) = (quota_name(quota.kind), quota.now, limit.most);
                    write!(line, " {name} {} used {} pending {} of", window.index, window.used, window.pending)
                        .unwrap();
                    write!(line, " {}{most}", if limit.soft { "soft " } else { "" }).unwrap();
                    if quota.last.used + quota.last.pending > 0 {
                        write!(line, " (before: used {} pending {})", quota.last.used, quota.last.pending).unwrap();
                    }
                }
                writeln!(output, "{line}").unwrap();
            }
        }
    }
}

fn pool_report(pool: PoolId, words: &mut Words<'_>) -> PoolReport {
    let mut report = PoolReport { pool, ..PoolReport::default() };
    while let Some(word) = words.next_if(|word| !["absorbed", "end", "low"].contains(word)) {
        match word {
            "spent" => report.tokens_spent = number(words),
            "returned" => report.tokens_returned = number(words),
            "over" => report.tokens_overrun = number(words),
            "calls" => report.requests_spent = number(words),
            "calls-back" => report.requests_returned = number(words),
            "base" => report.permits_base = number(words),
            "freed" => report.permits_returned = number(words),
            "oldest" => report.oldest_slot = number(words),
            "refund" => {
                let parts: Vec<u64> = words.next().unwrap().split(':').map(|part| part.parse().unwrap()).collect();
                let requests = parts.get(2).copied().unwrap_or(0);
                report.refunds.push(Refund { slot: parts[0], tokens: parts[1], requests });
            }
            other => panic!("no counter {other}"),
        }
    }
    report
}

fn limits(words: &mut Words<'_>) -> (TenantLimits, u64) {
    let mut limits = TenantLimits {
        scope: scope("key:"),
        version: 0,
        requests: None,
        tokens: None,
        concurrent: None,
        quotas: Quotas::default(),
    };
    let mut request_us_max = 60_000_000;
    while let Some(word) = words.next() {
        match word {
            "tokens" => limits.tokens = Some(bucket_limit(words)),
            "requests" => limits.requests = Some(bucket_limit(words)),
            "concurrent" => limits.concurrent = Some(number(words)),
            "soft" => {
                let kind = quota_kind(words.next().unwrap()).unwrap();
                let soft = limits.quotas.get(kind).map(|limit| QuotaLimit { soft: true, ..limit });
                limits.quotas = limits.quotas.with(kind, soft);
            }
            "max" => request_us_max = us(words.next().unwrap()),
            other => {
                let kind = quota_kind(other).unwrap_or_else(|| panic!("no limit {other}"));
                limits.quotas = limits.quotas.with(kind, Some(QuotaLimit::hard(number(words))));
            }
        }
    }
    (limits, request_us_max)
}

fn bucket_limit(words: &mut Words<'_>) -> BucketLimit {
    let (units, per) = words.next().unwrap().split_once('/').unwrap();
    let units = units.parse().unwrap();
    let rate = if per == "min" { Rate::per_min(units) } else { Rate::per_sec(units) };
    BucketLimit { rate, burst: after(words, "burst").unwrap().parse().unwrap() }
}

fn show_end(end: &str) -> End {
    let (seq, used) = end.split_once(':').unwrap();
    let (tokens, cost) = used.split_once(':').unwrap_or((used, "0"));
    let used = || Spend { tokens: tokens.parse().unwrap(), cost_nano_usd: cost.parse().unwrap() };
    End { seq: seq.parse().unwrap(), used: (tokens != "void").then(used) }
}

fn show_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pool(id) => format!("pool {}", id.0),
        Outcome::Up(incarnation) => format!("up {}", incarnation.0),
        Outcome::Stale(epoch) => {
            epoch.map_or("stale, not of this life".to_owned(), |epoch| format!("stale, now epoch {}", epoch.0))
        }
        Outcome::Reserved(hold) => {
            let Amounts { tokens, requests, permits } = hold.amounts;
            let left = hold.quota_left.map_or(String::new(), |left| format!(", {left} tokens left"));
            let money = hold.budget_left.map_or(String::new(), |left| format!(", {left} nano-USD left"));
            format!("reserved {tokens} tokens {requests} calls {permits} permits{left}{money}")
        }
        Outcome::Refused { scope, dimension, retry } => {
            let retry = match retry {
                Retry::At(stamp) => format!("at {}", ms(*stamp)),
                other => format!("{other:?}"),
            };
            format!("refused by {} {dimension:?}, retry {retry}", show_scope(*scope))
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

fn show_bucket(line: &mut String, name: &str, bucket: Option<&Bucket>, limited: bool) {
    let Some(bucket) = bucket else { return };
    let of = if limited { bucket.limit.burst.to_string() } else { "none".to_owned() };
    write!(line, " {name} {} of {of}", bucket.level).unwrap();
    for (what, units) in [("out", bucket.outstanding), ("debt", bucket.debt)] {
        if units > 0 {
            write!(line, " {what} {units}").unwrap();
        }
    }
    for (what, units) in
        [("spent", bucket.books.spent), ("burned", bucket.books.burned), ("trimmed", bucket.books.trimmed)]
    {
        if units > 0 {
            write!(line, " {what} {units}").unwrap();
        }
    }
    line.push(';');
}

/// A scope, or a hash that begins with a byte in hex and is zero else.
fn credential(name: &str) -> Credential {
    if name.contains(':') {
        return Credential::Scope(scope(name));
    }
    let mut hash = [0; 32];
    hash[0] = u8::from_str_radix(name, 16).unwrap();
    Credential::Hash(hash)
}

fn scope(name: &str) -> Scope {
    let (kind, name) = name.split_once(':').unwrap();
    let kind = match kind {
        "key" => ScopeKind::Key,
        "user" => ScopeKind::User,
        "team" => ScopeKind::Team,
        other => panic!("no kind {other}"),
    };
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    Scope { kind, id }
}

fn show_scope(scope: Scope) -> String {
    let name = String::from_utf8_lossy(&scope.id).trim_end_matches('\0').to_owned();
    format!("{}:{name}", format!("{:?}", scope.kind).to_lowercase())
}

/// Tokens, and what they cost.
fn spend(words: &mut Words<'_>) -> Spend {
    let tokens = number(words);
    Spend { tokens, cost_nano_usd: after(words, "cost").map_or(0, |cost| cost.parse().unwrap()) }
}

fn quota_name(kind: QuotaKind) -> &'static str {
    match kind {
        QuotaKind::DayTokens => "day",
        QuotaKind::MonthTokens => "month",
        QuotaKind::DayCost => "day-cost",
        QuotaKind::MonthCost => "month-cost",
    }
}

fn quota_kind(name: &str) -> Option<QuotaKind> {
    QuotaKind::ALL.into_iter().find(|&kind| quota_name(kind) == name)
}

fn after<'a>(words: &mut Words<'a>, name: &str) -> Option<&'a str> {
    words.next_if(|word| *word == name)?;
    words.next()
}

fn number(words: &mut Words<'_>) -> u64 {
    words.next().unwrap().parse().unwrap()
}

fn seq(words: &mut Words<'_>) -> u64 {
    words.next().unwrap().strip_prefix('#').unwrap().parse().unwrap()
}

fn us(time: &str) -> u64 {
    let unit = time.find(|c: char| !c.is_ascii_digit()).unwrap();
    let number: u64 = time[..unit].parse().unwrap();
    number
        * match &time[unit..] {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            other => panic!("no unit of time {other}"),
        }
}

fn ms(stamp: Stamp) -> String {
    if stamp.0.is_multiple_of(1_000) { format!("{}ms", stamp.0 / 1_000) } else { format!("{}us", stamp.0) }
}
