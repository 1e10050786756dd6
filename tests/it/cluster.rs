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
