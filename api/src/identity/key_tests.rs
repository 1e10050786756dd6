//! What a key may say, and what its limits become.

use super::*;

fn field(key: &NewKey) -> Option<&'static str> {
    match key.check(1_000) {
        Ok(()) => None,
        Err(StoreError::Invalid { field, .. }) => Some(field),
        Err(other) => panic!("{other}"),
    }
}

fn with(change: impl FnOnce(&mut NewKey)) -> NewKey {
    let mut key = NewKey::named("app");
    change(&mut key);
    key
}

#[test]
fn a_wrong_field_is_named() {
    assert_eq!(field(&NewKey::named("team a: batch-1_x.y@z")), None);
    for name in ["", " a", "a/b", "a\nb", "tok_abc", "..", &"x".repeat(65), &"ab".repeat(16)] {
        assert_eq!(field(&NewKey::named(name)), Some("name"), "{name:?}");
    }
    assert_eq!(field(&with(|key| key.priority = Some(Priority(10)))), Some("priority"));
    assert_eq!(field(&with(|key| key.ceiling = Some(Priority(6)))), Some("priority_ceiling"));
    assert_eq!(field(&with(|key| key.ceiling = Some(Priority(0)))), None);
    assert_eq!(field(&with(|key| key.expires_at = Some(1_000))), Some("expires"));
    assert_eq!(field(&with(|key| key.expires_at = Some(u64::MAX))), Some("expires"));
    assert_eq!(field(&with(|key| key.models = vec!["a*b*".into()])), Some("models"));
    assert_eq!(field(&with(|key| key.models = vec![String::new()])), Some("models"));
    assert_eq!(field(&with(|key| key.models = vec!["m".into(); 101])), Some("models"));
    assert_eq!(field(&with(|key| key.limits.rps = crate::identity::LIMIT_MAX + 1)), Some("rps"));
    assert_eq!(field(&with(|key| (key.limits.rps, key.limits.rpm) = (1, 1))), Some("rpm"));
    assert_eq!(field(&with(|key| key.limits.burst_requests = 1)), Some("burst_requests"));
    assert_eq!(field(&with(|key| key.limits.burst_tokens = 1)), Some("burst_tokens"));
}

#[test]
fn priority_comes_from_the_tier_unless_the_key_has_its_own() {
    assert_eq!(with(|key| key.tier = Tier::Partner).priority(), Priority(3));
    let own = with(|key| key.priority = Some(Priority(8)));
    assert_eq!((own.priority(), own.ceiling()), (Priority(8), Priority(8)));
}

#[test]
fn a_key_is_named_by_id_prefix_or_name_but_never_by_itself() {
    assert_eq!(KeyRef::parse(&"ab".repeat(16)).unwrap(), KeyRef::Id([0xab; 16]));
    assert_eq!(KeyRef::parse("tok_12345678").unwrap(), KeyRef::Prefix("tok_12345678".into()));
    assert_eq!(KeyRef::parse("batch").unwrap(), KeyRef::Name("batch".into()));
    let whole = crate::identity::Secret::generate().unwrap();
    let error = KeyRef::parse(whole.expose()).unwrap_err();
    assert!(!error.to_string().contains(whole.expose()));
}
