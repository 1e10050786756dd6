//! What the three layers promise.

use super::*;

const BASE: &str = "[identity]\nadmin_key = \"k\"\n";

fn sources(file: &str, variables: &[(&str, &str)]) -> Sources {
    Sources {
        file: Some((PathBuf::from("live/gateway.toml"), format!("{BASE}{file}"))),
        environment: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        flags: Vec::new(),
    }
}

fn loaded(file: &str, variables: &[(&str, &str)]) -> Loaded {
    load(&sources(file, variables)).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn faults(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let faults = load(&sources(file, variables)).map(|loaded| loaded.config).expect_err("it must be refused");
    faults.iter().map(Fault::to_string).collect()
}

const POOL: &str = "[provider.local.\"gpt-4.1\"]\nbase_url = \"http://localhost/v1\"\n";

#[test]
fn each_layer_beats_the_one_below() {
    let both =
        loaded("[http]\nmax_headers = 7\n[scheduling]\nqueue_depth = 3\n", &[("TOKLIGENCE_HTTP__MAX_HEADERS", "9")]);
    assert_eq!(both.config.api.http.max_headers, 9);
    assert_eq!(both.config.api.scheduling.queue_depth, 3);
    assert_eq!(both.config.api.http.max_body_bytes, 32 << 20);
    assert_eq!(both.origin["http.max_headers"], Layer::Variable("TOKLIGENCE_HTTP__MAX_HEADERS".into()));
    assert_eq!(both.origin["scheduling.queue_depth"], Layer::File("live/gateway.toml".into()));
    assert!(!both.origin.contains_key("http.max_body_bytes"));
}

#[test]
fn a_flag_beats_them_all() {
    let mut sources = sources("[http]\nlisten = \"127.0.0.1:1\"\n", &[("TOKLIGENCE_HTTP__LISTEN", "127.0.0.1:2")]);
    sources.flags.push(("--listen", "http.listen", "127.0.0.1:3".into()));
    assert_eq!(load(&sources).unwrap().config.api.http.listen, "127.0.0.1:3");
}

#[test]
fn the_seeds_one_underscore_forms_work() {
    let variables = [
        ("TOKLIGENCE_SCHEDULING_ENABLED", "false"),
        ("TOKLIGENCE_SCHEDULER_PRIORITY_LEVELS", "4"),
        ("TOKLIGENCE_MARKETPLACE_ENABLED", "false"),
        ("TOKLIGENCE_PROVIDER_LOCAL_ENABLED", "1"),
    ];
    let config = loaded("", &variables).config;
    assert!(!config.api.scheduling.enabled);
    assert_eq!(config.api.scheduling.priority_levels, 4);
}

#[test]
fn a_pool_default_of_the_environment_fills_only_what_a_pool_leaves_open() {
    let file = format!("{POOL}max_rpm = 60\n[provider.local.other]\nbase_url = \"http://localhost/v1\"\n");
    let variables = [("TOKLIGENCE_PROVIDER_LOCAL_MAX_RPS", "5"), ("TOKLIGENCE_PROVIDER_LOCAL_MAX_TOKENS_PER_SEC", "9")];
    let pools = loaded(&file, &variables).config.api.provider.local.pools;
    assert_eq!((pools["gpt-4.1"].max_rps, pools["gpt-4.1"].max_rpm, pools["gpt-4.1"].max_tokens_per_sec), (0, 60, 9));
    assert_eq!(pools["other"].max_rps, 5);
}

#[test]
fn the_environment_names_a_pool_with_underscores() {
    for name in ["TOKLIGENCE_PROVIDER__LOCAL__GPT_4_1__MAX_RPS", "TOKLIGENCE_PROVIDER_LOCAL_GPT_4_1_MAX_RPS"] {
        assert_eq!(loaded(POOL, &[(name, "5")]).config.api.provider.local.pools["gpt-4.1"].max_rps, 5, "{name}");
    }
}

#[test]
fn an_ambiguous_pool_name_is_an_error() {
    let file = format!("{POOL}[provider.local.gpt-4-1]\nbase_url = \"http://localhost/v1\"\n");
    let found = faults(&file, &[("TOKLIGENCE_PROVIDER__LOCAL__GPT_4_1__MAX_RPS", "5")]);
    let may_mean = "it may mean provider.local.gpt-4-1.max_rps or provider.local.\"gpt-4.1\".max_rps";
    assert!(found.len() == 1 && found[0].contains(may_mean), "{found:?}");
}

#[test]
fn reserved_names_and_referred_secrets_are_no_configuration() {
    let variables = [
        ("TOKLIGENCE_ADMIN_KEY", "x"),
        ("TOKLIGENCE_ENDPOINT", "x"),
        ("TOKLIGENCE_ENV", "x"),
        ("TOKLIGENCE_UPSTREAM", "x"),
        ("OTHER", "x"),
    ];
    let file = format!("{POOL}api_key = \"env:TOKLIGENCE_UPSTREAM\"\n");
    // The process does not have the variable, so reading the secret fails; nothing else does.
    let found = faults(&file, &variables);
    assert!(found.len() == 1 && found[0].contains("`TOKLIGENCE_UPSTREAM` is not set"), "{found:?}");
}

#[test]
fn every_problem_of_every_layer_is_told_at_once() {
    let file = "[scheduling]\npolcy = \"strict\"\npolicy = \"fair\"\nqueue_depth = \"many\"\npriority_levels = 40\n\
                [htpp]\nlisten = \"x\"\n[provider.local]\nenabeld = true\n[provider.local.a]\nbase_url = \"nowhere\"\n";
    let found = faults(file, &[("TOKLIGENCE_HTTP__LISTN", "x"), ("TOKLIGENCE_HTTP__MAX_HEADERS", "many")]);
    let expected = [
        "live/gateway.toml: htpp: unknown key; the nearest known one is `http`",
        "live/gateway.toml: provider.local.enabeld: unknown key; the nearest known one is `enabled`",
        "live/gateway.toml: scheduling.polcy: unknown key; the nearest known one is `policy`",
        "live/gateway.toml: scheduling.queue_depth: must be an integer, is a string",
        "environment variable TOKLIGENCE_HTTP__LISTN: unknown variable; the nearest known one \
         is `TOKLIGENCE_HTTP__LISTEN`",
        "environment variable TOKLIGENCE_HTTP__MAX_HEADERS: http.max_headers: must be an integer, is `many`",
        "live/gateway.toml: scheduling.policy: unknown variant `fair`, expected one of `strict`, `weighted_fair`, `hybrid`",
        "live/gateway.toml: scheduling.priority_levels: must be 2 to 32",
        "live/gateway.toml: provider.local.a.base_url: `nowhere` is not an http:// or https:// address",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_problem_of_a_default_says_so() {
    let found = load(&Sources::default()).unwrap_err();
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().starts_with("default: identity.admin_key: must be set"), "{}", found[0]);
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    let found = faults("[http\n", &[]);
    assert!(found[0].starts_with("live/gateway.toml: line 3: is not TOML"), "{found:?}");
}

#[test]
fn an_unknown_key_of_a_target_is_found() {
    let found = faults(&format!("{POOL}[[provider.local.\"gpt-4.1\".targets]]\nbase_ulr = \"x\"\n"), &[]);
    assert_eq!(
        found,
        [
            "live/gateway.toml: provider.local.\"gpt-4.1\".targets.base_ulr: unknown key; the nearest known one is `base_url`"
        ]
    );
}

#[test]
fn no_secret_shows_in_debug() {
    let config = loaded("[provider.local.a]\nbase_url = \"http://x/v1\"\napi_key = \"sk-hunter2\"\n", &[]).config;
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// The golden test of `gatewayd config default`: the documented file says what the structs say, no more and no less.
#[test]
fn the_documented_file_holds_every_key_with_its_default() {
    let table: Table = DEFAULT_FILE.parse().unwrap();
    assert_eq!(table.clone().try_into::<Config>().unwrap(), Config::default());
    let with_pool: String = DEFAULT_FILE
        .lines()
        .map(|line| line.strip_prefix('#').filter(is_toml).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let names = |path: &[String]| if path.len() == 2 { vec!["gpt-4".to_owned()] } else { Vec::new() };
    let documented: Table = with_pool.parse().unwrap();
    for path in Schema::of_config().leaves(&names) {
        let mut at = &Value::Table(documented.clone());
        for key in &path {
            at = at.get(key).unwrap_or_else(|| panic!("{} is not documented", key_of(&path)));
        }
    }
    let mut unknown = Vec::new();
    layer::file(Path::new("default.toml"), &with_pool, &Schema::of_config(), &mut unknown);
    assert_eq!(unknown, []);
    let mut pool = documented.try_into::<Config>().unwrap().api.provider.local.pools.remove("gpt-4").unwrap();
    assert_eq!((pool.base_url.len(), pool.api_key.to_string().len(), pool.targets.len()), (24, 16, 1));
    (pool.base_url, pool.api_key, pool.targets) = Default::default();
    assert_eq!(pool, api::config::Pool::default());
}

fn is_toml(rest: &&str) -> bool {
    rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase())
}

#[test]
fn the_shipped_files_are_in_order() {
    let text = std::fs::read_to_string("../config/dev/gateway.toml").unwrap();
    assert_eq!(text, DEV_FILE);
    let with_key = |config: &mut Config| {
        config.api.identity.admin_key = api::config::Secret::new("k");
        for pool in config.api.provider.local.pools.values_mut() {
            pool.api_key = api::config::Secret::default();
        }
        Ok(())
    };
    for env in ["dev", "test", "live"] {
        let file = find_file(Some(Path::new("../config")), env).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        load_with(&sources, with_key).unwrap_or_else(|faults| panic!("{env}: {faults:#?}"));
    }
}
