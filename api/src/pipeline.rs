//! The main path of a chat request, in one place:
//! identify > read > firewall > admit > route > call > relay, and settle when the reply ends.
//!
//! Each step takes what the one before it made, so that none can run too early. What goes wrong is a value of
//! [`Error`], which `envelope.rs` turns into HTTP. Dropping the future at any point (the client is gone) leaves the
//! queue, closes the upstream and settles.

use crate::admission::{Admitted, Ask, Path, Refusal};
use crate::app::App;
use crate::chat::Changes;
use crate::dialect::openai;
use crate::error::Error;
use crate::identity::{Caller, RouteGroup};
use crate::relay::{self, Terms};
use crate::reply::Facts;
use crate::routing::{Found, Pool, Target};
use crate::settlement::{By, Call, Ending, Passed};
use crate::tokens::{INLINE_BYTES_MAX, Meter};
use crate::upstream::Answer;
use crate::usage::{CallId, Intent};
use crate::{body, credential, priority, upstream};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use ledger::model::{Dimension, Priority, Scope, ScopeKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A request that comes to the wire too late so many times in a row is on a machine that stands still.
const ATTEMPTS_MAX: u8 = 8;

/// A request whose caller is known.
struct Identified {
    caller: Arc<Caller>,
    headers: HeaderMap,
    body: Body,
}

/// A request that is understood: for whom, of which pool, how urgent, how large.
struct Read {
    caller: Arc<Caller>,
    /// Those that the upstream gets.
    headers: HeaderMap,
    body: Bytes,
    chat: Arc<openai::Read>,
    found: Found,
    priority: Priority,
    /// When it stops waiting for capacity.
    wait_until: Instant,
    prompt_tokens: u64,
    /// The most that each choice may write.
    output_max: u64,
    /// The worst case in all.
    tokens: u64,
}

/// A request that may use capacity.
struct Ready {
    read: Read,
    admitted: Admitted,
}

/// A request that the upstream has begun to answer.
struct Called {
    call: Call,
    answer: Answer,
    terms: Terms,
}

/// Serves one chat completion.
pub(crate) async fn chat(app: &App, request: Request<Body>, facts: &mut Facts) -> Result<Response<Body>, Error> {
    let identified = identify(app, request, facts).await?;
    let read = read(app, identified, facts).await?;
    // The firewall stands here, before capacity is touched.
    let ready = admit(app, read, facts).await?;
    let called = call(app, ready, facts).await?;
    // The reply settles the call before its last byte.
    relay::relay(&app.client, called.call, called.answer, called.terms).await
}

/// Finds out who is calling.
async fn identify(app: &App, request: Request<Body>, facts: &mut Facts) -> Result<Identified, Error> {
    let (head, body) = request.into_parts();
    let client = facts.arrival.client;
    let caller = credential::caller(&app.identity, &head.headers, RouteGroup::Chat, client).await?;
    facts.caller = Some(caller.clone());
    Ok(Identified { caller, headers: head.headers, body })
}

/// Reads the body, finds the pool, and works out how much the request may cost at worst.
async fn read(app: &App, Identified { caller, headers, body }: Identified, facts: &mut Facts) -> Result<Read, Error> {
    let body = body::collect(app, &headers, body, facts).await?;
    let chat = Arc::new(off_reactor(&body, openai::read).await??);
    let priority = priority::choose(&caller, &headers, chat.request.service, app.priority_levels)?;
    let wait_until = Instant::now() + priority::max_wait(&headers, app.queue_wait, app.queue_wait_max)?;
    let asked = &chat.request.model;
    let mut found = app.pools.find(asked).ok_or_else(|| Error::UnknownModel { model: asked.clone() })?;
    if !caller.models.allows(asked) && !caller.models.allows(&found.model) {
        return Err(Error::ModelNotAllowed { model: asked.clone() });
    }
    facts.pool = Some(found.pool.label.clone());
    let meter = Meter::new(found.pool.tokenizer);
    let counted = chat.clone();
    let prompt_tokens = off_reactor(&body, move |body| counted.count_prompt(body, meter)).await?;
    let output_max = loop {
        match found.pool.output_max(prompt_tokens, chat.request.output_max) {
            Ok(output_max) => break output_max,
            Err(error) => found = app.pools.larger(&found).ok_or(error)?,
        }
    };
    facts.pool = Some(found.pool.label.clone());
    let output_max = within_allowance(&caller, prompt_tokens, output_max, chat.request.choices)?;
    let tokens = prompt_tokens.saturating_add(output_max.saturating_mul(chat.request.choices));
    let headers = upstream::passed_on(&headers);
    Ok(Read { caller, headers, body, chat, found, priority, wait_until, prompt_tokens, output_max, tokens })
}

/// The output that a caller within a strict allowance may have.
fn within_allowance(caller: &Caller, prompt: u64, output_max: u64, choices: u64) -> Result<u64, Error> {
    let Some(most) = caller.request_tokens_max else { return Ok(output_max) };
    match most.saturating_sub(prompt) / choices.max(1) {
        0 => Err(Refusal::NeverFits { dimension: Dimension::Tokens, most }.into()),
        left => Ok(output_max.min(left)),
    }
}

/// Waits for capacity.
async fn admit(app: &App, read: Read, facts: &mut Facts) -> Result<Ready, Error> {
    let began_us = raft::clock::boot_us();
    let ask = Ask {
        pool: read.found.pool.label.clone(),
        tenant: Some(Scope { kind: ScopeKind::Key, id: read.caller.key_id }),
        tenants: read.caller.tenants.clone(),
        priority: read.priority,
        tokens: read.tokens,
        weight: read.tokens.saturating_add(read.tokens.saturating_sub(read.prompt_tokens)),
        max_wait: read.wait_until.saturating_duration_since(Instant::now()),
    };
    let admitted = app.admission.admit(ask).await.inspect_err(|refusal| {
        facts.wait += Duration::from_micros(raft::clock::boot_us().saturating_sub(began_us));
        facts.was_queued |= matches!(refusal, Refusal::QueueTimeout { .. });
    })?;
    facts.wait += admitted.wait;
    facts.was_queued |= admitted.path == Path::Queued;
    facts.scheduled_wall_us = Some(raft::clock::wall_us());
    facts.queue_position = facts.queue_position.or(admitted.queue_position);
    facts.quota_remaining = admitted.quota_remaining;
    app.metrics.admitted(admitted.path, read.priority.0, admitted.wait);
    Ok(Ready { read, admitted })
}

/// Routes, writes down the intent, then sends the request upstream. A request that comes to the wire too late for its admission
/// is admitted again.
async fn call(app: &App, mut ready: Ready, facts: &mut Facts) -> Result<Called, Error> {
    for attempt in 0..ATTEMPTS_MAX {
        let Ready { read, admitted } = ready;
        let pool = read.found.pool.clone();
        let target = route(&pool, facts);
        let intent = intent(&read, &admitted, target, facts, attempt);
        let open = app.journal.intent(intent).map_err(|cause| {
            tracing::error!(request_id = %facts.arrival.id, %cause, "the journal cannot be written");
            Error::JournalUnavailable
        })?;
        let call = Call::new(admitted, open, app, read.prompt_tokens, read.chat.request.stream);
        let terms = terms(&read, facts);
        let began_us = raft::clock::boot_us();
        let body = splice(&read, target);
        let outcome = app.client.send(target, &read.headers, body, call.gate(), terms.deadline).await;
        facts.outside_us += raft::clock::boot_us().saturating_sub(began_us);
        facts.was_sent = call.passed() == Passed::Yes;
        match outcome {
            Ok(answer) => return Ok(Called { call, answer, terms }),
            // The call is void, since it never passed its gate.
            Err(_) if call.passed() == Passed::TooLate => drop(call),
            Err(error) => {
                call.end(Ending::Unknown { by: By::of(&error) });
                return Err(error);
            }
        }
        ready = admit(app, read, facts).await?;
    }
    Err(Refusal::Unavailable { retry_after: Duration::from_secs(1) }.into())
}

/// Chooses the target. Weights, circuits and fallback stand here, once a pool has more than one.
fn route<'a>(pool: &'a Pool, facts: &mut Facts) -> &'a Target {
    let target = pool.target();
    facts.provider = Some(target.name.clone());
    target
}

fn terms(read: &Read, facts: &Facts) -> Terms {
    Terms {
        id: facts.arrival.id,
        usage_injected: read.chat.request.stream && !read.chat.request.wants_usage,
        meter: Meter::new(read.found.pool.tokenizer),
        deadline: Instant::now() + read.found.pool.request_max,
    }
}

fn splice(read: &Read, target: &Target) -> Bytes {
    let model = target.model.as_deref().unwrap_or(&read.found.model);
    let changes = Changes { model, output_max: read.output_max, output_field: target.output_field };
    openai::splice::splice(&read.chat, &read.body, changes)
}

fn intent(read: &Read, admitted: &Admitted, target: &Target, facts: &Facts, call: u8) -> Intent {
    Intent {
        call: CallId { request: facts.arrival.id, call },
        incarnation: admitted.incarnation,
        reservation: admitted.reservation,
        pool: read.found.pool.label.clone(),
        model: read.chat.request.model.as_str().into(),
        target: target.name.clone(),
        key_id: read.caller.key_id,
        user: read.caller.user,
        team: read.caller.team,
        priority: read.priority,
        tokens_reserved: admitted.tokens,
        started_wall_us: raft::clock::wall_us(),
    }
}

/// Runs `work` here on a small body, on another thread on a large one.
async fn off_reactor<T: Send + 'static>(
    body: &Bytes,
    work: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<T, Error> {
    if body.len() <= INLINE_BYTES_MAX {
        return Ok(work(body));
    }
    let body = body.clone();
    tokio::task::spawn_blocking(move || work(&body)).await.map_err(|_| Error::Internal)
}
