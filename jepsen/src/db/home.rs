//! A run's own addresses: a block of 127.0.0.0/8 that no other run holds, so that ports can be fixed and runs side by
//! side never meet. Everything in it stays on loopback.

use anyhow::bail;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use tokio::net::TcpListener;

/// The port that marks a block as taken, on its last address.
const GUARD_PORT: u16 = 7080;
const HTTP_PORT: u16 = 8081;
const PEER_PORT: u16 = 7081;
const UPSTREAM_PORT: u16 = 9999;

/// A claimed block `127.a.b.0/24`.
#[derive(Debug)]
pub(crate) struct Home {
    block: [u8; 2],
    guard: Mutex<Option<TcpListener>>,
}

impl Home {
    /// Takes the first free block, beginning at one that the process id suggests.
    ///
    /// # Errors
    /// When no block is free, or this system gives only 127.0.0.1.
    pub(crate) async fn claim() -> anyhow::Result<Self> {
        let first = std::process::id();
        for step in 0..1000_u32 {
            let [_, _, a, b] = first.wrapping_mul(7).wrapping_add(step).to_be_bytes();
            // 127.0.x.y is what other programs use.
            let block = [a.max(1), b];
            let guard = SocketAddr::from((Ipv4Addr::new(127, block[0], block[1], 254), GUARD_PORT));
            match TcpListener::bind(guard).await {
                Ok(listener) => return Ok(Self { block, guard: Mutex::new(Some(listener)) }),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => bail!("no addresses of 127.0.0.0/8 besides 127.0.0.1: {error}"),
            }
        }
        bail!("no free block of loopback addresses")
    }

    /// Where clients reach a node.
    pub(crate) fn http(&self, node: u64) -> SocketAddr {
        self.at(node, HTTP_PORT)
    }

    /// Where a node listens for its peers.
    pub(crate) fn peer(&self, node: u64) -> SocketAddr {
        self.at(node, PEER_PORT)
    }

    /// Where one node dials another: the proxy of that link.
    pub(crate) fn link(&self, from: u64, to: u64) -> SocketAddr {
        self.at(100 + 10 * from + to, PEER_PORT)
    }

    /// Where the upstream listens.
    pub(crate) fn upstream(&self) -> SocketAddr {
        self.at(200, UPSTREAM_PORT)
    }

    /// Gives the block back.
    pub(crate) fn leave(&self) {
        drop(self.guard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    }

    fn at(&self, host: u64, port: u16) -> SocketAddr {
        let host = u8::try_from(host).unwrap_or(u8::MAX);
        SocketAddr::from((Ipv4Addr::new(127, self.block[0], self.block[1], host), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_runs_never_hold_the_same_block() {
        let (one, two) = (Home::claim().await.unwrap(), Home::claim().await.unwrap());
        assert_ne!(one.block, two.block);
        assert_ne!(one.http(1), two.http(1));
        let block = one.block;
        one.leave();
        assert!(TcpListener::bind((Ipv4Addr::new(127, block[0], block[1], 254), GUARD_PORT)).await.is_ok());
    }
}
