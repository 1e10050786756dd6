//! The cache forgets for good, asks once, and leaks nothing.

use super::*;
use crate::identity::{ModelPatterns, Tier};
use ledger::model::Priority;
use std::sync::atomic::{AtomicUsize, Ordering};

fn caller(expires_at: Option<u64>) -> Arc<Caller> {
    Arc::new(Caller {
        key_id: [1; 16],
        key_name: "app".into(),
        key_prefix: "tok_aaaaaaaa".into(),
        user: None,
        team: None,
        tier: Tier::Standard,
        priority: Priority(5),
        ceiling: Priority(5),
        tenants: Arc::default(),
        models: ModelPatterns::default(),
        scopes: Default::default(),
        role: None,
        expires_at,
        request_tokens_max: None,
        degraded: None,
        versions: [0; 3],
    })
}

const LONG: u64 = 60_000_000;

const KEY: KeyHash = KeyHash([7; 32]);

#[test]
fn a_known_key_is_found_until_it_is_forgotten_or_expires() {
    let cache = Cache::new();
    assert!(cache.get(&KEY).is_none());
    assert!(cache.remember(KEY, cache.since(), &Ok(caller(None)), LONG));
    assert!(cache.get(&KEY).unwrap().is_ok());
    cache.forget(&KEY);
    assert!(cache.get(&KEY).is_none());
    assert!(cache.remember(KEY, cache.since(), &Ok(caller(Some(1))), LONG));
    assert_eq!(cache.get(&KEY).unwrap().unwrap_err(), LookupError::Expired);
}

#[test]
fn a_key_that_is_no_longer_fresh_is_asked_for_again_and_still_known_when_nobody_answers() {
    let cache = Cache::new();
    assert!(cache.remember(KEY, cache.since(), &Ok(caller(None)), 0));
    assert!(cache.get(&KEY).is_none());
    assert!(cache.stale(&KEY, cache.since()).is_some());
    assert!(cache.get(&KEY).unwrap().is_ok());
    let since = cache.since();
    cache.sift(|_, _| Sifted::Stale);
    assert!(cache.get(&KEY).is_none() && cache.stale(&KEY, since).is_none());
    cache.sift(|_, _| Sifted::Gone);
    assert!(cache.stale(&KEY, cache.since()).is_none());
}

#[test]
fn an_answer_from_before_a_revocation_is_not_remembered() {
    let cache = Cache::new();
    let since = cache.since();
    cache.forget(&KEY);
    assert!(!cache.remember(KEY, since, &Ok(caller(None)), LONG));
    assert!(cache.get(&KEY).is_none());
}

#[test]
fn a_refusal_is_remembered_but_not_that_no_store_answered() {
    let cache = Cache::new();
    assert!(cache.remember(KEY, cache.since(), &Err(LookupError::StoresDown), LONG));
    assert!(cache.get(&KEY).is_none());
    assert!(cache.remember(KEY, cache.since(), &Err(LookupError::Unknown), LONG));
    assert_eq!(cache.get(&KEY).unwrap().unwrap_err(), LookupError::Unknown);
    let past = Refused { why: LookupError::Unknown, until_boot_us: raft::clock::boot_us() };
    cache.lock().refused.put(KEY, past);
    assert!(cache.get(&KEY).is_none());
}

#[test]
fn refusals_do_not_push_known_keys_out_and_both_are_bounded() {
    let cache = Cache::new();
    assert!(cache.remember(KEY, cache.since(), &Ok(caller(None)), LONG));
    for n in 0..20_000u32 {
        let mut other = [0u8; 32];
        other[..4].copy_from_slice(&n.to_le_bytes());
        assert!(cache.remember(KeyHash(other), cache.since(), &Err(LookupError::Unknown), LONG));
    }
    assert!(cache.get(&KEY).unwrap().is_ok());
    assert_eq!((cache.len(), cache.lock().refused.len()), (1, KEYS_MAX.get()));
}

#[tokio::test]
async fn many_who_ask_at_once_make_one_question() {
    let cache = Arc::new(Cache::new());
    let asked = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (cache, asked) = (Arc::clone(&cache), Arc::clone(&asked));
            tokio::spawn(async move {
                let ask = async {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok(caller(None))
                };
                cache.join(KEY).answer(ask).await
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(cache.lock().flights.is_empty());
}

#[tokio::test]
async fn who_gives_up_leaves_the_question_to_the_others_and_nothing_behind() {
    let cache = Cache::new();
    let (first, second) = (cache.join(KEY), cache.join(KEY));
    let hanging = first.answer(std::future::pending());
    assert!(tokio::time::timeout(std::time::Duration::ZERO, hanging).await.is_err());
    drop(first);
    assert!(second.answer(async { Ok(caller(None)) }).await.is_ok());
    drop(second);
    assert!(cache.lock().flights.is_empty());
    drop(cache.join(KEY));
    assert!(cache.lock().flights.is_empty());
}

#[tokio::test]
async fn who_comes_after_a_revocation_does_not_join_those_from_before() {
    let cache = Cache::new();
    let before = cache.join(KEY);
    cache.forget(&KEY);
    let after = cache.join(KEY);
    assert!(before.answer(async { Ok(caller(None)) }).await.is_ok());
    assert_eq!(after.answer(async { Err(LookupError::Revoked) }).await.unwrap_err(), LookupError::Revoked);
}
