//! Three nodes, one limit: exact over the cluster, whatever fails. The upstream counts.

use crate::rig::{GATEWAYD, PATIENCE, begin, replies, report, sized};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use support::clock;
use support::{Cluster, ClusterBuilder, Reply};

const BURST: u64 = 60;

fn three() -> ClusterBuilder {
    // 60 a minute, all of them at once at first.
    let of_60_rpm = |pool: support::Pool| pool.set("max_rpm", 60).set("burst_requests", 60);
    ClusterBuilder::new(GATEWAYD, 3).pool("m", of_60_rpm)
}

/// Sends `count` requests over the nodes that run, one after another on each; says how many were served.
async fn send(cluster: &Cluster, count: usize) -> u64 {
    let running: Vec<_> = cluster.nodes.iter().zip(&cluster.clients).filter(|(node, _)| node.pid().is_some()).collect();
    let senders = running.iter().enumerate().map(|(at, (_, client))| {
        let share = count / running.len() + usize::from(at < count % running.len());
        async move {
            let mut served = 0;
            for item in 0..share {
                let headers = [("x-tokligence-timeout-ms", "500")];
                let reply = client.chat_with(&sized("m", &format!("{item}"), 50), &headers).await;
                served += u64::from(reply.is_ok_and(|reply| reply.status == 200));
            }
            served
        }
    });
    futures_util::future::join_all(senders).await.into_iter().sum()
}

/// The most that a limit of 60 a minute with a burst of 60 lets through in that time.
fn most(began_us: u64) -> u64 {
    BURST + clock::since(began_us).as_secs() + 1
}

async fn nothing_is_out(cluster: &Cluster) {
    for (node, client) in cluster.nodes.iter().zip(&cluster.clients) {
        if node.pid().is_some() {
            let quiet = |metrics: &support::Metrics| metrics.sum("tokligence_requests_in_flight", &[]) == 0.0;
            client.metrics_until(PATIENCE, quiet).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_limit_of_60_rpm_over_three_nodes_lets_60_and_the_refill_through() {
    let cluster = three().start().await.unwrap();
    let began = clock::boot_us();
    let served = send(&cluster, 300).await;
    let (passed, seconds) = (cluster.upstream.stats().requests, clock::since(began).as_secs_f64());
    report(&format!("{passed} of 300 passed in {seconds:.1} s"));
    assert_eq!(passed, served);
    assert!(passed <= most(began), "{passed} in {seconds:.1} s");
    assert!(passed >= BURST, "{passed} in {seconds:.1} s");
    nothing_is_out(&cluster).await;
}

#[tokio::test]
async fn the_limit_holds_when_the_leader_is_killed_and_the_rest_serves_on() {
    let mut cluster = three().start().await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let began = clock::boot_us();
    let before = send(&cluster, 30).await;
    cluster.nodes[leader - 1].kill9().await.unwrap();
    let killed = clock::boot_us();
    let mut after = 0;
    while after == 0 && clock::since(killed) < PATIENCE {
        after += send(&cluster, 6).await;
    }
    report(&format!("served again {} ms after the leader was killed", clock::since(killed).as_millis()));
    after += send(&cluster, 240).await;
    let passed = cluster.upstream.stats().requests;
    assert!(passed <= most(began), "{passed} after {:?}", clock::since(began));
    assert!(before == 30 && after > 0, "{before} before, {after} after");
    // What the dead node held of the rate is burned at its lease's end, and comes back by refill.
    cluster.restart(leader).await.unwrap();
    cluster.leader().await.unwrap();
    send(&cluster, 30).await;
    assert!(cluster.upstream.stats().requests <= most(began));
    nothing_is_out(&cluster).await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_stops_admitting_when_its_lease_ends() {
    let cluster = three().start().await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let cut = leader % 3 + 1;
    let began = clock::boot_us();
    send(&cluster, 15).await;
    cluster.isolate(cut, true);
    let served = send(&cluster, 240).await;
    assert!(cluster.upstream.stats().requests <= most(began), "{served} more");
    tokio::time::timeout(PATIENCE, async {
        // Its lease ended: whatever it admits now would be too much.
        while cluster.clients[cut - 1].chat_with(&sized("m", "late", 50), &[]).await.unwrap().status == 200 {}
    })
    .await
    .unwrap();
    cluster.isolate(cut, false);
    let agreed = cluster.leader().await.unwrap();
    assert!(agreed > 0);
    let served_again = tokio::time::timeout(PATIENCE, async {
        let headers = [("x-tokligence-timeout-ms", "2000")];
        while cluster.clients[cut - 1].chat_with(&sized("m", "back", 50), &headers).await.unwrap().status != 200 {}
    });
    served_again.await.expect("a node that is back serves again");
    assert!(cluster.upstream.stats().requests <= most(began));
}

/// Sends, lets `harm` strike, sends on, heals, and sends again; at no time more than the limit passes, and each of the nodes that
/// are in order serves.
async fn holds_through(
    harm: impl AsyncFnOnce(&mut Cluster, usize),
    heal: impl AsyncFnOnce(&mut Cluster, usize),
    on_leader: bool,
) {
    let mut cluster = three().start().await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let struck = if on_leader { leader } else { leader % 3 + 1 };
    let began = clock::boot_us();
    send(&cluster, 30).await;
    harm(&mut cluster, struck).await;
    let others =
        cluster.clients.iter().enumerate().filter(|(at, _)| at + 1 != struck).map(|(_, client)| client.clone());
    let others: Vec<_> = others.collect();
    let struck_at = clock::boot_us();
    let (mut served, mut longest_us, mut last_us) = (0, 0, struck_at);
    while clock::since(struck_at) < Duration::from_secs(6) {
        for client in &others {
            let headers = [("x-tokligence-timeout-ms", "1500")];
            let reply = client.chat_with(&sized("m", "on", 50), &headers).await.unwrap();
            if reply.status == 200 {
                served += 1;
                longest_us = longest_us.max(clock::boot_us() - last_us);
                last_us = clock::boot_us();
            }
        }
        let passed = cluster.upstream.stats().requests;
        assert!(passed <= most(began), "{passed} after {:?}", clock::since(began));
    }
    report(&format!("{served} served in 6 s after the fault, longest gap {} ms", longest_us / 1_000));
    assert!(served > 0);
    heal(&mut cluster, struck).await;
    cluster.leader().await.unwrap();
    send(&cluster, 30).await;
    let passed = cluster.upstream.stats().requests;
    assert!(passed <= most(began), "{passed} after {:?}", clock::since(began));
    // What was lost with the node is burned once; from then on all of the rate is admitted.
    assert!(passed + BURST / 2 >= most(began), "{passed} after {:?}", clock::since(began));
}

#[tokio::test]
async fn the_limit_holds_when_a_follower_is_killed() {
    let kill = async |cluster: &mut Cluster, node: usize| cluster.nodes[node - 1].kill9().await.unwrap();
    holds_through(kill, async |cluster, node| cluster.restart(node).await.unwrap(), false).await;
}

#[tokio::test]
async fn the_limit_holds_when_a_node_is_stopped_past_its_lease_and_goes_on() {
    let pause = async |cluster: &mut Cluster, node: usize| cluster.nodes[node - 1].pause().unwrap();
    holds_through(pause, async |cluster, node| cluster.nodes[node - 1].resume().unwrap(), false).await;
}

#[tokio::test]
async fn the_limit_holds_when_the_leader_is_stopped_past_its_lease_and_goes_on() {
    let pause = async |cluster: &mut Cluster, node: usize| cluster.nodes[node - 1].pause().unwrap();
    holds_through(pause, async |cluster, node| cluster.nodes[node - 1].resume().unwrap(), true).await;
}

#[tokio::test]
async fn the_limit_holds_when_the_leader_is_cut_off() {
    let cut = async |cluster: &mut Cluster, node: usize| cluster.isolate(node, true);
    holds_through(cut, async |cluster, node| cluster.isolate(node, false), true).await;
}

#[tokio::test]
async fn the_limit_holds_when_the_leader_hears_and_is_not_heard() {
    let mute = async |cluster: &mut Cluster, node: usize| cluster.mute(node, true);
    holds_through(mute, async |cluster, node| cluster.mute(node, false), true).await;
}

#[tokio::test]
async fn the_limit_holds_when_all_nodes_are_killed_and_start_again() {
    let mut cluster = three().start().await.unwrap();
    let began = clock::boot_us();
    send(&cluster, 30).await;
    for node in &mut cluster.nodes {
        node.kill9().await.unwrap();
    }
    // None of them is up before a majority is.
    let starts = cluster.nodes.iter_mut().map(support::GatewayProcess::restart);
    futures_util::future::try_join_all(starts).await.unwrap();
    cluster.point_clients();
    cluster.leader().await.unwrap();
    let served = send(&cluster, 150).await;
    let passed = cluster.upstream.stats().requests;
    assert!(
        passed <= most(began) && served > 0,
        "{passed} after {:?}, {served} since the restart",
        clock::since(began)
    );
    nothing_is_out(&cluster).await;
}

#[tokio::test]
async fn ten_permits_over_three_nodes_are_never_eleven() {
    let cluster = ClusterBuilder::new(GATEWAYD, 3).pool("m", |pool| pool.concurrent(10));
    let cluster = cluster.script(Reply::tokens(1).held()).start().await.unwrap();
    let pending: Vec<_> =
        (0..30).map(|i| begin(&cluster.clients[i % 3], sized("m", &format!("{i}"), 50), &[])).collect();
    cluster.upstream.in_flight(10).await;
    for done in 1..=20 {
        cluster.upstream.release(1);
        cluster.upstream.arrived(10 + done).await;
    }
    cluster.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    assert_eq!(cluster.upstream.stats().peak_in_flight, 10);
}

#[tokio::test]
async fn one_slot_goes_to_priority_0_on_one_node_before_priority_9_on_others() {
    let one = ClusterBuilder::new(GATEWAYD, 3).pool("m", |pool| pool.concurrent(1));
    let cluster = one.set("scheduling.priority_levels", 10).script(Reply::tokens(1).held()).start().await.unwrap();
    let held = begin(&cluster.clients[0], sized("m", "held", 50), &[]);
    cluster.upstream.in_flight(1).await;
    let low =
        |node: usize| begin(&cluster.clients[node], sized("m", "9", 50), &[("x-tokligence-priority", "9".to_owned())]);
    let lows: Vec<_> = [1, 2, 1, 2].map(low).into();
    for node in [1, 2] {
        let two = |metrics: &support::Metrics| metrics.sum("tokligence_scheduling_queue_depth", &[]) == 2.0;
        cluster.clients[node].metrics_until(PATIENCE, two).await.unwrap();
    }
    let urgent = begin(&cluster.clients[0], sized("m", "0", 50), &[("x-tokligence-priority", "0".to_owned())]);
    let one_waits = |metrics: &support::Metrics| metrics.sum("tokligence_scheduling_queue_depth", &[]) == 1.0;
    cluster.clients[0].metrics_until(PATIENCE, one_waits).await.unwrap();
    // Its demand is on its way to the leader for a moment yet.
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.upstream.release(1);
    cluster.upstream.arrived(2).await;
    assert_eq!(crate::rig::served(&cluster.upstream)[1], "0");
    cluster.upstream.open();
    assert!(replies(lows.into_iter().chain([held, urgent]).collect()).await.iter().all(|reply| reply.status == 200));
}

#[tokio::test]
async fn writes_at_any_node_find_the_leader_and_hold_everywhere() {
    let cluster = ClusterBuilder::new(GATEWAYD, 3).pool("m", |pool| pool.rps(100)).start().await.unwrap();
    for (at, client) in cluster.clients.iter().enumerate() {
        client.set_pool("m", &json!({"rps": 10 + at})).await.unwrap();
        for other in &cluster.clients {
            let same = async {
                loop {
                    let (_, pool) = other.admin(Method::GET, "/pools/m", None).await.unwrap();
                    if pool["limits"]["rps"] == json!(10 + at) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, same).await.expect("every node learns the limit");
        }
    }
    let leader = cluster.leader().await.unwrap();
    let next = leader % 3 + 1;
    let (status, body) =
        cluster.clients[leader % 3].admin(Method::POST, "/cluster/leader", Some(&json!({"id": next}))).await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(cluster.leader().await.unwrap(), next);
}

#[tokio::test]
async fn int_001_the_next_slot_goes_to_the_high_request_on_whichever_node_it_waits() {
    let ten = ClusterBuilder::new(GATEWAYD, 3).pool("m", |pool| pool.concurrent(10));
    let cluster = ten.set("scheduling.priority_levels", 10).script(Reply::tokens(1).held()).start().await.unwrap();
    let at = |node: usize, priority: u8, text: &str| {
        begin(&cluster.clients[node], sized("m", text, 50), &[("x-tokligence-priority", priority.to_string())])
    };
    let mut pending: Vec<_> = (0..10).map(|item| at(item % 3, 9, "holds")).collect();
    cluster.upstream.in_flight(10).await;
    let low = |node: usize| at(node, 9, "low");
    pending.extend([0, 1, 2, 0, 1, 2].map(low));
    for node in 0..3 {
        let two = |metrics: &support::Metrics| metrics.sum("tokligence_scheduling_queue_depth", &[]) == 2.0;
        cluster.clients[node].metrics_until(PATIENCE, two).await.unwrap();
    }
    for node in 0..3 {
        pending.push(at(node, 1, &format!("high {node}")));
        let three = |metrics: &support::Metrics| metrics.sum("tokligence_scheduling_queue_depth", &[]) == 3.0;
        cluster.clients[node].metrics_until(PATIENCE, three).await.unwrap();
        // Its demand is on its way to the leader for a moment yet.
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.upstream.release(1);
        cluster.upstream.arrived(11 + node as u64).await;
        assert_eq!(crate::rig::served(&cluster.upstream)[10 + node], format!("high {node}"));
    }
    cluster.upstream.open();
    assert!(replies(pending).await.iter().all(|reply| reply.status == 200));
    assert_eq!(cluster.upstream.stats().peak_in_flight, 10);
}

#[tokio::test]
async fn a_token_rate_over_three_nodes_keeps_its_curve_in_every_interval() {
    let limited = |pool: support::Pool| pool.tokens_per_sec(2_000).burst_tokens(4_000);
    let cluster = ClusterBuilder::new(GATEWAYD, 3).pool("m", limited).start().await.unwrap();
    // Nothing is refunded: the upstream says that it used all of it.
    cluster.upstream.set(
        Reply::tokens(100)
            .usage(support::Usage::Raw(json!({"prompt_tokens": 0, "completion_tokens": 100, "total_tokens": 100}))),
    );
    let began = clock::boot_us();
    let senders = (0..24).map(|at| {
        let client = cluster.clients[at % 3].clone();
        async move {
            while clock::since(began) < Duration::from_secs(8) {
                let headers = [("x-tokligence-timeout-ms", "2000")];
                client.chat_with(&sized("m", "x", 100), &headers).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(senders).await;
    let (passed, seconds) = (cluster.upstream.stats().requests * 100, clock::since(began).as_secs_f64());
    report(&format!("{passed} tokens in {seconds:.1} s at 2,000 a second with a burst of 4,000"));
    assert!(passed as f64 <= 4_000.0 + 2_000.0 * seconds + 100.0);
    assert!(passed as f64 >= 0.85 * 2_000.0 * seconds, "{passed} in {seconds}");
}

#[tokio::test]
async fn while_capacity_is_plenty_nodes_admit_from_memory() {
    let plenty = |pool: support::Pool| pool.tokens_per_sec(1_000_000).rps(5_000).concurrent(500);
    let cluster = ClusterBuilder::new(GATEWAYD, 3).pool("m", plenty).start().await.unwrap();
    let load = async |each: usize| {
        let senders = (0..12).map(|at| {
            let client = cluster.clients[at % 3].clone();
            async move {
                for _ in 0..each {
                    assert_eq!(client.chat(&sized("m", "x", 60)).await.unwrap().status, 200);
                }
            }
        });
        futures_util::future::join_all(senders).await;
    };
    let counted = async || {
        let (mut local, mut all) = (0.0, 0.0);
        for client in &cluster.clients {
            let metrics = client.metrics().await.unwrap();
            local += metrics.sum("tokligence_admissions_total", &[("path", "local")]);
            all += metrics.sum("tokligence_admissions_total", &[]);
        }
        (local, all)
    };
    // The slices grow to what the load needs.
    load(100).await;
    let before = counted().await;
    load(250).await;
    let after = counted().await;
    let (local, all) = (after.0 - before.0, after.1 - before.1);
    report(&format!("{local} of {all} admissions were local"));
    // In builds that are not optimised, at full load: the aim of 95 of 100 is one for a machine with room.
    assert!(local >= 0.85 * all, "{local} of {all}");
}

#[tokio::test]
async fn a_key_revoked_at_one_node_is_refused_at_all() {
    let cluster = ClusterBuilder::new(GATEWAYD, 3).pool("m", |pool| pool).start().await.unwrap();
    let key = cluster.clients[0].create_key(&json!({"name": "short-lived"})).await.unwrap();
    let clients: Vec<_> = cluster.clients.iter().map(|client| client.with_key(&key)).collect();
    for client in &clients {
        assert_eq!(client.chat(&sized("m", "x", 60)).await.unwrap().status, 200);
    }
    let (status, keys) = cluster.clients[1].admin(Method::GET, "/keys", None).await.unwrap();
    assert_eq!(status, 200);
    let rows = keys["keys"].as_array().or_else(|| keys["data"].as_array()).or_else(|| keys.as_array()).unwrap();
    let id = rows.iter().find(|row| row["name"] == "short-lived").unwrap()["id"].as_str().unwrap().to_owned();
    let (status, body) = cluster.clients[2].admin(Method::DELETE, &format!("/keys/{id}"), None).await.unwrap();
    assert!(status < 300, "{body}");
    let revoked = clock::boot_us();
    for client in &clients {
        while client.chat(&sized("m", "x", 60)).await.unwrap().status != 401 {
            assert!(clock::since(revoked) < Duration::from_secs(2));
        }
    }
    report(&format!("refused at all three nodes after {} ms", clock::since(revoked).as_millis()));
}
