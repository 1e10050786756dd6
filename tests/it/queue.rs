//! The queue: how many may wait, for how long, and that whoever leaves frees the place.

use crate::rig::{Pending, app, assert_told_to_wait, begin, begin_at, idle, replies, sized, waiting};
use std::time::Duration;
use support::{Reply, TestApp, TestAppBuilder};

/// One slot, taken.
async fn taken(app: TestAppBuilder) -> (TestApp, Pending) {
    let app = app.pool("m", |pool| pool.concurrent(1)).script(Reply::tokens(1).held()).start().await.unwrap();
    let held = begin(&app.client, sized("m", "held", 100), &[]);
    app.upstream.in_flight(1).await;
    (app, held)
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_each_priority_has_its_own() {
    let (app, held) = taken(app().set("scheduling.queue_depth", 2)).await;
    let mut pending = vec![held];
    for i in 0..2 {
        pending.push(begin_at(&app.client, 5, sized("m", &format!("{i}"), 100)));
    }
    waiting(&app.client, 2).await;
    let refused = begin_at(&app.client, 5, sized("m", "third", 100)).await.unwrap();
    assert_told_to_wait(&refused);
    assert!(refused.took() < Duration::from_secs(1), "{:?}", refused.took());
    assert_eq!(refused.queue_wait_ms(), 0.0);
    pending.push(begin_at(&app.client, 6, sized("m", "another priority", 100)));
    waiting(&app.client, 3).await;
    app.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    assert_eq!(app.upstream.stats().requests, 4);
}

#[tokio::test]
async fn who_waits_too_long_is_told_when_to_come_back() {
    let (app, held) = taken(app().set("scheduling.queue_timeout_ms", 300)).await;
    let refused = app.client.chat(&sized("m", "queued", 100)).await.unwrap();
    assert_told_to_wait(&refused);
    assert!((300.0..3_000.0).contains(&refused.queue_wait_ms()), "{} ms", refused.queue_wait_ms());
    assert!(refused.took() >= Duration::from_millis(300));
    waiting(&app.client, 0).await;
    app.upstream.open();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(app.upstream.stats().requests, 1);
    idle(&app.client).await;
}

#[tokio::test]
async fn a_request_bounds_its_own_wait() {
    let (app, held) = taken(app().set("scheduling.queue_timeout_ms_max", 30_000)).await;
    for (millis, least, most) in [(150_u64, 150, 5_000), (0, 0, 2_000)] {
        let headers = [("x-tokligence-timeout-ms", millis.to_string())];
        let refused = begin(&app.client, sized("m", "queued", 100), &headers).await.unwrap();
        assert_told_to_wait(&refused);
        let took = refused.took();
        assert!((Duration::from_millis(least)..Duration::from_millis(most)).contains(&took), "{millis}: {took:?}");
    }
    // No request waits longer than the configuration allows, whatever it says.
    let patient = begin(&app.client, sized("m", "patient", 100), &[("x-tokligence-timeout-ms", u64::MAX.to_string())]);
    waiting(&app.client, 1).await;
    app.upstream.open();
    assert!(replies(vec![held, patient]).await.iter().all(|reply| reply.status == 200));
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_frees_its_place_and_never_reaches_the_upstream() {
    let (app, held) = taken(app().set("scheduling.queue_depth", 1)).await;
    for i in 0..5 {
        let leaver = begin(&app.client, sized("m", &format!("leaver {i}"), 100), &[]);
        waiting(&app.client, 1).await;
        leaver.abort();
        waiting(&app.client, 0).await;
    }
    let stayer = begin(&app.client, sized("m", "stayer", 100), &[]);
    waiting(&app.client, 1).await;
    app.upstream.open();
    assert!(replies(vec![held, stayer]).await.iter().all(|reply| reply.status == 200));
    assert_eq!(crate::rig::served(&app.upstream), ["held", "stayer"]);
    idle(&app.client).await;
}

#[tokio::test]
async fn a_request_larger_than_the_burst_is_refused_at_once() {
    let app = app().pool("m", |pool| pool.tokens_per_sec(100).burst_tokens(500)).start().await.unwrap();
    let refused = app.client.chat(&sized("m", "large", 501)).await.unwrap();
    assert_eq!((refused.status, refused.error_code().as_str()), (400, "request_exceeds_limit"), "{}", refused.json());
    assert_eq!(refused.header("retry-after"), "");
    let fits = app.client.chat(&sized("m", "fits", 500)).await.unwrap();
    assert_eq!((fits.status, fits.queue_wait_ms()), (200, 0.0));
    assert_eq!(app.upstream.stats().requests, 1);
}

#[tokio::test]
async fn the_time_to_come_back_is_the_time_that_refill_takes() {
    let pool = app().pool("m", |pool| pool.tokens_per_sec(100).burst_tokens(1_000)).script(Reply::default());
    let app = pool.start().await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(app.client.chat(&sized("m", "all of it", 1_000)).await.unwrap().status, 200);
    // Whether or not the leader has heard of it before its time is up, it counts once.
    for patience in ["0", "300"] {
        let headers = [("x-tokligence-timeout-ms", patience)];
        let refused = app.client.chat_with(&sized("m", "more", 500), &headers).await.unwrap();
        assert_told_to_wait(&refused);
        assert_eq!(refused.json()["error"]["type"], "tokens", "{}", refused.json());
        // 500 tokens at 100 each second, less what came back meanwhile and what the first did not use of its prompt.
        let millis: u128 = refused.header("retry-after-ms").parse().unwrap();
        let least = 4_000_u128.saturating_sub(began.elapsed().as_millis()).max(1);
        assert!((least..=5_000).contains(&millis), "after {patience} ms: {millis} ms, at least {least}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_just_as_its_turn_comes_takes_no_permit_with_it() {
    let (app, mut held) = taken(app().set("upstream.cancel_grace_ms", 20)).await;
    for i in 0..60 {
        let (client, body) = (app.client.clone(), sized("m", &format!("leaver {i}"), 100));
        let leaver = tokio::spawn(async move { client.chat(&body).await });
        waiting(&app.client, 1).await;
        let ended = app.upstream.stats().ended;
        app.upstream.release(1);
        app.upstream.ended(ended + 1).await;
        // It goes a little before the word comes to it, with it, or a little after.
        for _ in 0..20 * i {
            tokio::task::yield_now().await;
        }
        leaver.abort();
        assert_eq!(held.await.unwrap().status, 200);
        idle(&app.client).await;
        held = begin(&app.client, sized("m", "held", 100), &[]);
        app.upstream.in_flight(1).await;
    }
    app.upstream.open();
    assert_eq!(held.await.unwrap().status, 200);
    idle(&app.client).await;
}
