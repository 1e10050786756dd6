//! Groups of several, over real sockets.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use super::Tape;
use crate::group::{ChangeError, Group, Peer, Role, Settings};

const SOON: Duration = Duration::from_secs(20);

fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

fn settings(dir: &Path, id: u64, addresses: &[SocketAddr], members: &[u64]) -> Settings {
    let listen = addresses[id as usize - 1];
    let members = members.iter().map(|&id| (id, addresses[id as usize - 1].to_string())).collect();
    Settings {
        peer: Some(Peer { listen, tls: None, detours: Default::default() }),
        members,
        snapshot_every: 50,
        keep_entries: 10,
        ..Settings::new(dir.join(id.to_string()), id)
    }
}

async fn start(settings: Settings) -> Group<Tape> {
    super::start(settings).await.unwrap()
}

async fn leader(groups: &[Group<Tape>]) -> &Group<Tape> {
    tokio::time::timeout(SOON, async {
        loop {
            for group in groups {
                let now = *group.leadership().borrow();
                if now.is_leader && group.propose(b"x".to_vec()).await.is_ok() {
                    return group;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a group of three finds a leader")
}

fn held(group: &Group<Tape>) -> Vec<Vec<u8>> {
    group.with_machine(|tape| tape.entries.iter().map(|(_, payload)| payload.clone()).collect())
}

async fn same(groups: &[&Group<Tape>]) {
    let all_alike = async {
        loop {
            let first = held(groups[0]);
            if groups.iter().all(|group| held(group) == first) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, all_alike).await.expect("every member applies the same entries");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_and_go_on_when_the_leader_ends() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses::<3>());
    let mut groups = Vec::new();
    for id in [3, 2, 1] {
        groups.push(start(settings(dir.path(), id, &addresses, &[1, 2, 3])).await);
    }
    let first = leader(&groups).await.clone();
    for item in 0..100u8 {
        first.propose(vec![item]).await.unwrap();
    }
    same(&groups.iter().collect::<Vec<_>>()).await;
    let gone = first.identity().node_id;
    first.shutdown().await;
    groups.retain(|group| group.identity().node_id != gone);
    let second = leader(&groups).await;
    for item in 0..100u8 {
        second.propose(vec![100, item]).await.unwrap();
    }
    // Entries it lacks are purged by now, so it gets a snapshot.
    let back = start(settings(dir.path(), gone, &addresses, &[1, 2, 3])).await;
    same(&[&back, &groups[0], &groups[1]]).await;
    for group in groups.iter().chain([&back]) {
        group.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_joins_is_promoted_leads_and_leaves() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses::<2>());
    let one = start(settings(dir.path(), 1, &addresses, &[1])).await;
    one.propose(b"before".to_vec()).await.unwrap();
    let two = start(settings(dir.path(), 2, &addresses, &[])).await;
    one.add(2, addresses[1].to_string()).await.unwrap();
    same(&[&one, &two]).await;
    one.promote(2).await.unwrap();
    // A change is carried to whoever leads.
    tokio::time::timeout(SOON, two.leadership().wait_for(|now| now.leader == Some(1))).await.unwrap().unwrap();
    two.transfer_leader(2).await.unwrap();
    let roles: Vec<_> = two.members().into_iter().map(|member| (member.id, member.role)).collect();
    assert_eq!(roles, [(1, Role::Voter), (2, Role::Voter)]);
    two.remove(1).await.unwrap();
    assert_eq!(two.members().len(), 1);
    two.propose(b"after".to_vec()).await.unwrap();
    assert!(matches!(two.remove(7).await, Err(ChangeError::Refused(_))));
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_disk_under_a_known_id_is_refused() {
    // The first of the first members would make a new group; the others wait to be called.
    for lost in [1, 2] {
        let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses::<3>());
        let mut groups = Vec::new();
        for id in 1..=3 {
            groups.push(start(settings(dir.path(), id, &addresses, &[1, 2, 3])).await);
        }
        leader(&groups).await;
        let gone = groups.remove(lost as usize - 1);
        gone.shutdown().await;
        std::fs::remove_dir_all(dir.path().join(lost.to_string())).unwrap();
        let empty = start(settings(dir.path(), lost, &addresses, &[1, 2, 3])).await;
        let mut fatal = empty.fatal();
        let why = tokio::time::timeout(SOON, fatal.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
        assert!(why.contains("lost its data: remove it, add a new id"), "{why}");
        leader(&groups).await;
        for group in groups.iter().chain([&empty]) {
            group.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_noise_at_the_listener_change_nothing() {
    use tokio::io::AsyncWriteExt;
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses::<2>());
    let one = start(settings(dir.path(), 1, &addresses, &[1])).await;
    let before = one.metrics();
    for noise in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff"]
    {
        let mut socket = tokio::net::TcpStream::connect(addresses[0]).await.unwrap();
        let _ = socket.write_all(noise).await;
    }
    // Another cluster's node believes that it is a member here.
    let stranger = start(settings(dir.path(), 2, &addresses, &[2])).await;
    let channel = stranger.dial().now(1, &addresses[0].to_string()).await.unwrap();
    let mut client = proto::peer::members_client::MembersClient::new(channel);
    let request = tonic::Request::new(proto::peer::StatusRequest {});
    let refused = client.status(stranger.dial().pass.sign(request, 1, None)).await.unwrap_err();
    assert!(refused.message().contains("the caller to cluster"), "{refused}");
    let unsigned = client.status(proto::peer::StatusRequest {}).await.unwrap_err();
    assert!(unsigned.message().contains("does not show"), "{unsigned}");
    let after = one.metrics();
    assert_eq!((before.term, before.last_log), (after.term, after.last_log));
    one.propose(b"still here".to_vec()).await.unwrap();
    one.shutdown().await;
    stranger.shutdown().await;
}
