//! Finds what is wrong with a configuration, everything at once.

use super::{Config, DegradedMode, Dialect, Http, Identity, Pool, PoolMode, Problem, Scheduling, Secret, Target};
use crate::calendar::Calendar;
use std::net::SocketAddr;

pub(super) fn config(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    http(&config.http, &mut found);
    identity(&config.identity, &mut found);
    scheduling(&config.scheduling, &mut found);
    for (name, value) in [
        ("connect_timeout_ms", config.upstream.connect_timeout_ms),
        ("first_byte_timeout_ms", config.upstream.first_byte_timeout_ms),
        ("idle_timeout_ms", config.upstream.idle_timeout_ms),
        ("max_response_bytes", config.upstream.max_response_bytes as u64),
        ("max_event_bytes", config.upstream.max_event_bytes as u64),
    ] {
        above_zero("upstream", name, value, &mut found);
    }
    above_zero("usage", "sync_interval_ms", config.usage.sync_interval_ms, &mut found);
    for (label, pool) in &config.provider.local.pools {
        self::pool(config, label, pool, &mut found);
    }
    if let Err(problem) = Calendar::of(&config.quotas.time_zone) {
        found.push(Problem::new("quotas.time_zone", problem));
    }
    for (alias, model) in &config.aliases {
        if config.provider.local.pools.contains_key(alias) {
            found.push(Problem::new(format!("aliases.{}", quoted(alias)), "is the name of a pool too"));
        }
        if model.is_empty() || config.aliases.contains_key(model) {
            found.push(Problem::new(format!("aliases.{}", quoted(alias)), "must name a model, not another alias"));
        }
    }
    found
}

fn http(http: &Http, found: &mut Vec<Problem>) {
    if let Err(cause) = http.listen.parse::<SocketAddr>() {
        let listen = &http.listen;
        found.push(Problem::new("http.listen", format!("`{listen}` is not an address with a port: {cause}")));
    }
    for (name, value) in [
        ("max_connections", http.max_connections as u64),
        ("max_body_bytes", http.max_body_bytes as u64),
        ("max_headers", http.max_headers as u64),
        ("header_read_timeout_ms", http.header_read_timeout_ms),
        ("body_read_timeout_ms", http.body_read_timeout_ms),
        ("write_timeout_ms", http.write_timeout_ms),
    ] {
        above_zero("http", name, value, found);
    }
    if http.max_header_bytes < 8_192 {
        found.push(Problem::new("http.max_header_bytes", "must be at least 8192"));
    }
}

fn identity(identity: &Identity, found: &mut Vec<Problem>) {
    let mut url = |key: &str, url: &Secret, schemes: &[&str], problem: &str| match url.reveal() {
        Ok(url) if url.is_empty() || schemes.iter().any(|scheme| url.starts_with(scheme)) => {}
        Ok(_) => found.push(Problem::new(format!("identity.{key}"), problem)),
        Err(error) => found.push(Problem::new(format!("identity.{key}"), error.to_string())),
    };
    let databases = ["sqlite:", "postgres://", "postgresql://"];
    url("database_url", &identity.database_url, &databases, "must be sqlite:PATH or postgres://HOST/NAME");
    url("redis_url", &identity.redis_url, &["redis://"], "must be redis://HOST:PORT, or empty");
    above_zero("identity", "cache_ttl_ms", identity.cache_ttl_ms, found);
    above_zero("identity", "snapshot_refresh_ms", identity.snapshot_refresh_ms, found);
    if identity.admin_key.is_empty() {
        found.push(Problem::new("identity.admin_key", "must be set, best as env:NAME or file:PATH"));
    } else if let Err(error) = identity.admin_key.reveal() {
        found.push(Problem::new("identity.admin_key", error.to_string()));
    }
}

fn scheduling(scheduling: &Scheduling, found: &mut Vec<Problem>) {
    let mut problem = |key: &str, message: &str| found.push(Problem::new(format!("scheduling.{key}"), message));
    if !(2..=32).contains(&scheduling.priority_levels) {
        problem("priority_levels", "must be 2 to 32");
    }
    if scheduling.queue_timeout_ms_max < scheduling.queue_timeout_ms {
        problem("queue_timeout_ms_max", "must be at least queue_timeout_ms");
    }
    if scheduling.degraded_mode != DegradedMode::FailClosed {
        problem("degraded_mode", "this version has fail_closed only");
    }
}

fn pool(config: &Config, label: &str, pool: &Pool, found: &mut Vec<Problem>) {
    let table = format!("provider.local.{}", quoted(label));
    if label.is_empty() || label.matches('*').count() > 1 {
        found.push(Problem::new(table.clone(), "must be a model's name or a pattern with one `*`"));
    }
    let mut problem = |key: &str, message: String| found.push(Problem::new(format!("{table}.{key}"), message));
    if pool.max_tokens_per_sec > 0 && pool.max_tokens_per_min > 0 {
        problem("max_tokens_per_min", "set one of max_tokens_per_sec and max_tokens_per_min".to_owned());
    }
    if pool.max_rps > 0 && pool.max_rpm > 0 {
        problem("max_rpm", "set one of max_rps and max_rpm".to_owned());
    }
    if pool.burst_tokens > 0 && pool.max_tokens_per_sec == 0 && pool.max_tokens_per_min == 0 {
        problem("burst_tokens", "needs max_tokens_per_sec or max_tokens_per_min".to_owned());
    }
    if pool.burst_requests > 0 && pool.max_rps == 0 && pool.max_rpm == 0 {
        problem("burst_requests", "needs max_rps or max_rpm".to_owned());
    }
    if pool.default_max_tokens == 0 {
        problem("default_max_tokens", "must be above 0: every request is reserved with a cap".to_owned());
    }
    if pool.max_request_ms == 0 {
        problem("max_request_ms", "must be above 0: permits of a lost node come back after it".to_owned());
    }
    if !matches!(pool.degraded_mode, PoolMode::Inherit | PoolMode::FailClosed) {
        problem("degraded_mode", "this version has fail_closed only".to_owned());
    }
    let larger = &pool.larger_model;
    if larger == label {
        problem("larger_model", "names the model itself".to_owned());
    } else if !larger.is_empty() && !serves(config, larger) {
        problem("larger_model", format!("`{larger}` is not a model of this configuration"));
    }
    if !pool.fallback.is_empty() {
        problem("fallback", "this version does not fall back: leave it empty".to_owned());
    }
    if pool.targets.len() > 1 {
        problem("targets", "this version calls one target per pool".to_owned());
    }
    for target in pool.targets(label) {
        self::target(&target, &mut problem);
    }
}

fn target(target: &Target, problem: &mut impl FnMut(&str, String)) {
    match target.dialect {
        Dialect::Loopback => {}
        Dialect::Openai | Dialect::Anthropic | Dialect::Gemini => {
            let rest = target.base_url.strip_prefix("http://").or_else(|| target.base_url.strip_prefix("https://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace)) {
                problem("base_url", format!("`{}` is not an http:// or https:// address", target.base_url));
            }
        }
    }
    if let Err(error) = target.api_key.reveal() {
        problem("api_key", error.to_string());
    }
    if target.weight == 0 {
        problem("weight", "must be above 0".to_owned());
    }
}

fn serves(config: &Config, model: &str) -> bool {
    let model = config.aliases.get(model).map_or(model, String::as_str);
    config.provider.local.pools.keys().any(|label| match label.split_once('*') {
        Some((head, tail)) => {
            model.len() >= head.len() + tail.len() && model.starts_with(head) && model.ends_with(tail)
        }
        None => label == model,
    })
}

fn above_zero(section: &str, name: &str, value: u64, found: &mut Vec<Problem>) {
    if value == 0 {
        found.push(Problem::new(format!("{section}.{name}"), "must be above 0"));
    }
}

fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { name.to_owned() } else { format!("\"{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Config {
        let mut config = Config::default();
        config.identity.admin_key = Secret::new("a-literal-key");
        config.provider.local.pools.insert("loopback".into(), Pool { dialect: Dialect::Loopback, ..Pool::default() });
        config
    }

    #[test]
    fn the_defaults_lack_only_an_admin_key() {
        let keys: Vec<_> = Config::default().validate().into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["identity.admin_key"]);
        assert_eq!(valid().validate(), []);
    }

    #[test]
    fn every_problem_is_found_at_once() {
        let mut config = valid();
        config.http.listen = "here".into();
        config.scheduling.priority_levels = 1;
        let pool = Pool { max_rps: 1, max_rpm: 1, base_url: "ftp://x".into(), ..Pool::default() };
        config.provider.local.pools.insert("gpt-4.1".into(), pool);
        let keys: Vec<_> = config.validate().into_iter().map(|problem| problem.key).collect();
        let pool = "provider.local.\"gpt-4.1\"";
        let expected =
            ["http.listen", "scheduling.priority_levels", &format!("{pool}.max_rpm"), &format!("{pool}.base_url")];
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_larger_model_may_be_an_alias_or_match_a_wildcard() {
        let mut config = valid();
        config.aliases.insert("other".into(), "loopback".into());
        config.provider.local.pools.insert("wild-*".into(), Pool { dialect: Dialect::Loopback, ..Pool::default() });
        for (label, larger) in [("a", "other"), ("b", "wild-1"), ("c", "absent"), ("d", "d")] {
            let pool = Pool { dialect: Dialect::Loopback, larger_model: larger.into(), ..Pool::default() };
            config.provider.local.pools.insert(label.into(), pool);
        }
        let found: Vec<_> = config.validate().iter().map(Problem::to_string).collect();
        let expected = [
            "provider.local.c.larger_model: `absent` is not a model of this configuration",
            "provider.local.d.larger_model: names the model itself",
        ];
        assert_eq!(found, expected);
    }
}
