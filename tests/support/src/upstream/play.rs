//! Plays one [`Reply`] on a connection.

use super::Gates;
use super::chat::{self, Answer, Ask};
use super::forms::Form;
use super::record::Open;
use super::script::{Act, Reply};
use super::wire::{self, Conn, Framing, Gone, LAST_CHUNK, Request};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    KeepOpen,
    Close,
}

/// Answers one chat completion as told.
pub(crate) async fn play(
    conn: &mut Conn,
    request: &Request,
    ask: &Ask<'_>,
    reply: &Reply,
    gates: &Gates,
    open: &mut Open,
) -> Result<After, Gone> {
    if let Some(gate) = &reply.hold {
        let gate = gates.get(gate);
        // A closed gate semaphore is an open gate: everyone passes.
        if let Ok(permit) = conn.during(gate.acquire()).await? {
            permit.forget();
        }
    }
    pause(conn, Instant::now() + Duration::from_millis(reply.head_delay_ms)).await?;
    match &reply.act {
        Act::Status { status, body } => {
            return play_status(conn, request, reply, *status, body.as_deref(), open).await;
        }
        Act::Hang => return hang(conn).await,
        Act::Close => {
            open.finish();
            return Ok(After::Close);
        }
        Act::Raw { bytes } => {
            open.finish();
            conn.write(bytes).await?;
            return Ok(After::Close);
        }
        Act::Answer | Act::HangAfter { .. } | Act::CutAfter { .. } | Act::ErrorAfter { .. } => {}
    }
    let answer = Answer::new(open.seq, request, ask, reply);
    let stream = ask.stream.unwrap_or(false);
    if answer.tells_usage(stream) && reply.act == Act::Answer {
        (open.said.prompt_tokens, open.said.completion_tokens) = answer.reported();
    }
    if stream {
        play_stream(conn, &request.path, reply, &answer, open).await
    } else {
        play_plain(conn, reply, &answer, open).await
    }
}

async fn play_status(
    conn: &mut Conn,
    request: &Request,
    reply: &Reply,
    status: u16,
    body: Option<&str>,
    open: &mut Open,
) -> Result<After, Gone> {
    let body =
        body.map_or_else(|| chat::error_of(&request.path, status, "scripted error"), |text| text.as_bytes().to_vec());
    let mut out = wire::head(status, "application/json", &reply.headers, &Framing::Length(body.len()));
    out.extend_from_slice(&body);
    open.said.status = status;
    open.finish();
    conn.write(&out).await?;
    Ok(After::KeepOpen)
}

async fn play_plain(conn: &mut Conn, reply: &Reply, answer: &Answer, open: &mut Open) -> Result<After, Gone> {
    pause(conn, Instant::now() + Duration::from_millis(reply.spread_ms)).await?;
    let body = answer.body();
    let mut out = wire::head(200, "application/json", &reply.headers, &Framing::Length(body.len()));
    let head_len = out.len();
    out.extend_from_slice(&body);
    open.said.status = 200;
    if reply.act == Act::Answer {
        open.said.emitted_tokens = answer.tokens();
        open.finish();
        conn.write(&out).await?;
        return Ok(After::KeepOpen);
    }
    conn.write(&out[..head_len + body.len() / 2]).await?;
    break_off(conn, &reply.act, open).await
}

async fn play_stream(
    conn: &mut Conn,
    path: &str,
    reply: &Reply,
    answer: &Answer,
    open: &mut Open,
) -> Result<After, Gone> {
    let mut writer = EventWriter::new(reply);
    writer.out = wire::head(200, "text/event-stream", &reply.headers, &Framing::Chunked);
    open.said.status = 200;
    writer.events(&answer.opening());
    writer.flush(conn).await?;
    let chunks = answer.chunks();
    let stop_at = match reply.act {
        Act::HangAfter { chunks } | Act::CutAfter { chunks, .. } | Act::ErrorAfter { chunks } => chunks,
        _ => u64::MAX,
    };
    let started = Instant::now();
    for index in 0..chunks.min(stop_at) {
        let spread = Duration::from_millis(reply.spread_ms.saturating_mul(index + 1) / chunks.max(1));
        pause(conn, started + spread + Duration::from_millis(reply.chunk_delay_ms.saturating_mul(index + 1))).await?;
        writer.events(&answer.content(index));
        open.said.emitted_tokens += answer.tokens_in(index);
        writer.flush(conn).await?;
    }
    match reply.act {
        Act::Answer => {}
        Act::ErrorAfter { .. } => {
            let error = chat::error_of(path, 500, "scripted error in the stream");
            let error = String::from_utf8_lossy(&error).into_owned();
            let is_named = Form::of(path) == Form::Anthropic;
            writer.events(&[if is_named { format!("event: error\ndata: {error}") } else { error }]);
            return finish_stream(conn, writer, open).await;
        }
        _ => {
            writer.flush_all(conn).await?;
            return break_off(conn, &reply.act, open).await;
        }
    }
    writer.events(&answer.closing());
    writer.flush(conn).await?;
    if !reply.no_done && answer.has_done() {
        writer.events(&["[DONE]".to_owned()]);
    }
    finish_stream(conn, writer, open).await
}

async fn finish_stream(conn: &mut Conn, mut writer: EventWriter, open: &mut Open) -> Result<After, Gone> {
    open.finish();
    writer.flush_all(conn).await?;
    conn.write(LAST_CHUNK).await?;
    Ok(After::KeepOpen)
}

async fn break_off(conn: &mut Conn, act: &Act, open: &mut Open) -> Result<After, Gone> {
    match act {
        Act::HangAfter { .. } => hang(conn).await,
        Act::CutAfter { reset, .. } => {
            open.finish();
            if *reset {
                conn.reset();
            }
            Ok(After::Close)
        }
        _ => {
            open.finish();
            Ok(After::Close)
        }
    }
}

async fn hang(conn: &mut Conn) -> Result<After, Gone> {
    conn.during(std::future::pending::<After>()).await
}

async fn pause(conn: &mut Conn, until: Instant) -> Result<(), Gone> {
    if until > Instant::now() { conn.during(sleep_until(until)).await } else { Ok(()) }
}

/// Collects events and writes them as the script wants them cut.
///
/// Without pauses and cuts a stream is written in few large pieces, as a fast server's socket would see it.
struct EventWriter {
    out: Vec<u8>,
    events: Vec<u8>,
    line_end: &'static str,
    split: Option<usize>,
    eager: bool,
}

const COALESCED: usize = 16 * 1024;

impl EventWriter {
    fn new(reply: &Reply) -> Self {
        Self {
            out: Vec::new(),
            events: Vec::new(),
            line_end: if reply.crlf { "\r\n" } else { "\n" },
            split: reply.split_bytes,
            eager: reply.chunk_delay_ms > 0 || reply.spread_ms > 0,
        }
    }

    fn events(&mut self, events: &[String]) {
        for event in events {
            if !event.starts_with("event: ") {
                self.events.extend_from_slice(b"data: ");
            }
            self.events.extend_from_slice(event.as_bytes());
            self.events.extend_from_slice(self.line_end.as_bytes());
            self.events.extend_from_slice(self.line_end.as_bytes());
        }
    }

    async fn flush(&mut self, conn: &mut Conn) -> Result<(), Gone> {
        if self.eager || self.split.is_some() || self.events.len() >= COALESCED {
            return self.flush_all(conn).await;
        }
        Ok(())
    }

    async fn flush_all(&mut self, conn: &mut Conn) -> Result<(), Gone> {
        let events = std::mem::take(&mut self.events);
        if let Some(size) = self.split {
            for piece in events.chunks(size.max(1)) {
                wire::chunk(&mut self.out, piece);
                conn.write(&std::mem::take(&mut self.out)).await?;
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
        if !events.is_empty() {
            wire::chunk(&mut self.out, &events);
        }
        conn.write(&std::mem::take(&mut self.out)).await
    }
}
