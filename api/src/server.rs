//! The listener: accepts within bounds, speaks HTTP/1 and HTTP/2 on one port, and drains when the node stops.

mod socket;

use crate::app::App;
use crate::config::Http;
use crate::routes;
use axum::Router;
use axum::body::Body;
use futures_util::FutureExt;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket::{Patience, Socket, Version};
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How the last requests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All of them in time.
    Whole,
    /// Some were broken off at the time limit.
    Cut,
}

/// Binds a listener that a restarted process can take over at once.
///
/// # Errors
/// When the address is taken or not this machine's.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    TcpListener::from_std(socket.into())
}

/// What connections of a listener share.
struct Listening {
    app: Arc<App>,
    router: Router,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    patience: Patience,
    stopping: CancellationToken,
}

/// Serves until `shutdown` is done, then stops accepting and lets running requests finish, for `drain_timeout_ms` at
/// most.
pub async fn serve(
    app: Arc<App>,
    router: Router,
    config: &Http,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let (graceful, tasks) = (GracefulShutdown::new(), tokio_util::task::TaskTracker::new());
    let stopping = CancellationToken::new();
    let listening = Arc::new(Listening {
        app: app.clone(),
        router,
        http1: http1(config),
        http2: http2(config),
        patience: Patience {
            first_bytes: Duration::from_millis(config.header_read_timeout_ms),
            write: Duration::from_millis(config.write_timeout_ms),
        },
        stopping: stopping.clone(),
    });
    tokio::pin!(shutdown);
    loop {
        let (stream, client, slot) = tokio::select! {
            () = &mut shutdown => break,
            next = accept(&listener, &slots) => next,
        };
        let (listening, watcher) = (listening.clone(), graceful.watcher());
        tasks.spawn(async move {
            if let Err(cause) = connection(listening, stream, client, watcher).await {
                tracing::debug!(cause, "connection ended");
            }
            drop(slot);
        });
    }
    stopping.cancel();
    app.drain();
    drop(listener);
    tasks.close();
    let drained = async { tokio::join!(graceful.shutdown(), tasks.wait()) };
    match tokio::time::timeout(Duration::from_millis(config.drain_timeout_ms), drained).await {
        Ok(_) => Drained::Whole,
        Err(_) => Drained::Cut,
    }
}

/// The next connection, once there is room for it. Errors of single connections and of exhausted descriptors pass.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, IpAddr, OwnedSemaphorePermit) {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore of connections is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                if let Err(cause) = stream.set_nodelay(true) {
                    tracing::debug!(%cause, "no TCP_NODELAY");
                }
                return (stream, client.ip().to_canonical(), slot);
            }
            Err(cause) => {
                tracing::warn!(%cause, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Serves one connection to its end. Each version has a box of its own: a task with room for either would be three times as
/// large while a request waits.
async fn connection(
    listening: Arc<Listening>,
    stream: TcpStream,
    client: IpAddr,
    watcher: Watcher,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut socket = Socket::new(stream, listening.patience);
    let version = tokio::select! {
        version = socket.version() => version?,
        () = listening.stopping.cancelled() => return Ok(()),
    };
    let socket = TokioIo::new(socket);
    let shared = listening.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = routes::enter(shared.app.clone(), shared.router.clone(), client, request.map(Body::new));
        answer.map(Ok::<_, Infallible>)
    });
    match version {
        Version::One => Box::pin(watcher.watch(listening.http1.serve_connection(socket, service))).await?,
        Version::Two => Box::pin(watcher.watch(listening.http2.serve_connection(socket, service))).await?,
    }
    Ok(())
}

fn http1(config: &Http) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.header_read_timeout_ms))
        .max_buf_size(config.max_header_bytes.max(8_192));
    if config.max_headers != 100 {
        builder.max_headers(config.max_headers);
    }
    builder
}

fn http2(config: &Http) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
