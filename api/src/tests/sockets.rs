//! Clients that do not keep to HTTP: raw bytes on a socket, and what the gateway makes of them.

use super::fixture::{Gateway, chat};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes, and reads until the gateway closes the connection.
async fn talk(gateway: &Gateway, sent: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    // The gateway may close before it has read everything.
    let _ = socket.write_all(sent).await;
    let mut got = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut got)).await.unwrap();
    String::from_utf8_lossy(&got).into_owned()
}

fn head(gateway: &Gateway, more: &str) -> String {
    let key = gateway.key();
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{more}\r\n")
}

#[tokio::test]
async fn header_bombs_are_refused() {
    let gateway = Gateway::start().await;
    let many = head(&gateway, &"a: b\r\n".repeat(500));
    let got = talk(&gateway, many.as_bytes()).await;
    assert!(got.starts_with("HTTP/1.1 431"), "{got}");
    let long = head(&gateway, &format!("a: {}\r\n", "b".repeat(100_000)));
    let got = talk(&gateway, long.as_bytes()).await;
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 431"), "{got}");
}

#[tokio::test]
async fn garbage_is_refused() {
    let gateway = Gateway::start().await;
    let got = talk(&gateway, b"\x16\x03\x01 garbage\r\n\r\n").await;
    assert!(got.starts_with("HTTP/1.1 400"), "{got}");
    let twice = head(&gateway, "content-length: 3\r\ncontent-length: 5\r\n") + "abcde";
    assert!(talk(&gateway, twice.as_bytes()).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let gateway = Gateway::start().await;
    let slow = head(&gateway, "content-length: 1000\r\n") + "{";
    let got = talk(&gateway, slow.as_bytes()).await;
    assert!(got.starts_with("HTTP/1.1 408") && got.contains("request_timeout"), "{got}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_and_while_it_comes() {
    let gateway = Gateway::start().await;
    let stated = head(&gateway, "content-length: 50000000\r\n") + "{";
    assert!(talk(&gateway, stated.as_bytes()).await.starts_with("HTTP/1.1 413"));
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    let chunked = head(&gateway, "transfer-encoding: chunked\r\n") + &chunk.repeat(8);
    let got = talk(&gateway, chunked.as_bytes()).await;
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 413"), "{got}");
}

#[tokio::test]
async fn a_half_closed_client_frees_everything() {
    let gateway = Gateway::start().await;
    let body = chat("hang");
    let request = head(&gateway, &format!("content-length: {}\r\n", body.len())) + &body;
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    while gateway.sent().is_empty() {
        tokio::task::yield_now().await;
    }
    socket.shutdown().await.unwrap();
    gateway.idle().await;
}

#[tokio::test]
async fn the_version_is_told_from_first_bytes_that_come_in_pieces() {
    let gateway = Gateway::start().await;
    let mut answers = Vec::new();
    let http2 = [&b"PRI * HT"[..], b"TP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\x04\0\0\0\0\0"];
    let http1 = [&b"P"[..], b"R", b"OPFIND /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"];
    for pieces in [http2, http1] {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        for piece in pieces {
            socket.write_all(piece).await.unwrap();
            // A whole exchange in between, so that each piece is read on its own.
            gateway.get("/health/live").await;
        }
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        answers.push(answer);
    }
    assert_eq!(answers[0][3], 4, "a frame of SETTINGS");
    assert_eq!(&answers[1], b"HTTP/1.1 404");
}
