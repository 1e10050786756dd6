//! Links between peers that can be cut: one proxy for each direction in which a node calls another.

use std::net::SocketAddr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy of one directed link. A cut link drops what stands and swallows what comes: a call over it hangs, as over a
/// network that loses everything.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Link {
    /// Opens a way to an address.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn to(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, cut) = (listener.local_addr()?, watch::Sender::new(false));
        let watching = cut.clone();
        let task = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(carry(caller, target, watching.subscribe()));
            }
        });
        Ok(Self { address, cut, task })
    }

    /// Where the caller calls.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the link, or mends it.
    pub fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut caller: TcpStream, target: SocketAddr, mut cut: watch::Receiver<bool>) {
    if *cut.borrow() {
        // Nobody answers for as long as the link is cut; then the caller must call again.
        let _ = cut.wait_for(|cut| !*cut).await;
        return;
    }
    let Ok(mut callee) = TcpStream::connect(target).await else { return };
    let _ = (caller.set_nodelay(true), callee.set_nodelay(true));
    tokio::select! {
        _ = copy_bidirectional(&mut caller, &mut callee) => return,
        _ = cut.wait_for(|cut| *cut) => {}
    }
    // What stands is neither carried nor closed while the link is cut.
    let _ = cut.wait_for(|cut| !*cut).await;
}
