//! One proxy: accepts what one node dials, and copies both ways. While a direction is cut, its bytes are read no more,
//! as if packets were lost: nothing is closed, nothing is refused, the peers have to find out by themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const PIECE: usize = 64 * 1024;

/// Whether one direction is cut, and what ran into it.
#[derive(Debug, Default)]
pub(super) struct Cut {
    is_cut: watch::Sender<bool>,
    held_back: AtomicU64,
}

impl Cut {
    pub(super) fn set(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }

    pub(super) fn held_back(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Returns at once while the direction is open, else when it is open again.
    async fn passes(&self) {
        let mut is_cut = self.is_cut.subscribe();
        if *is_cut.borrow() {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            // The sender lives as long as this value.
            let _ = is_cut.wait_for(|is_cut| !is_cut).await;
        }
    }
}

/// One node's way to one peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Link {
    /// Accepts at `address` and passes on to `peer`; `there` governs what is sent, `back` what is answered.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(super) async fn open(
        address: SocketAddr,
        peer: SocketAddr,
        there: Arc<Cut>,
        back: Arc<Cut>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        connections.spawn(connect(stream, peer, there.clone(), back.clone()));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(near: TcpStream, peer: SocketAddr, there: Arc<Cut>, back: Arc<Cut>) {
    there.passes().await;
    // A peer that is down closes what dials it.
    let Ok(far) = TcpStream::connect(peer).await else { return };
    // Without it small messages wait; a failure only costs time.
    let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_read, far_write, &there) => {}
        () = copy(far_read, near_write, &back) => {}
    }
}

/// Copies until one side is gone.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, cut: &Cut) {
    let mut piece = vec![0; PIECE];
    while let Ok(length) = from.read(&mut piece).await {
        cut.passes().await;
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_cut_direction_holds_its_bytes_back_while_the_other_one_passes() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (there, back) = (Arc::new(Cut::default()), Arc::new(Cut::default()));
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let link = Link::open(free, server.local_addr().unwrap(), there.clone(), back.clone()).await.unwrap();
        let mut near = TcpStream::connect(link.address).await.unwrap();
        let (mut far, _) = server.accept().await.unwrap();
        let mut byte = [0];
        there.set(true);
        near.write_all(b"1").await.unwrap();
        far.write_all(b"2").await.unwrap();
        near.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"2");
        while there.held_back() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(tokio::time::timeout(Duration::from_millis(50), far.read_exact(&mut byte)).await.is_err());
        there.set(false);
        far.read_exact(&mut byte).await.unwrap();
        assert_eq!((&byte, back.held_back()), (b"1", 0));
    }
}
