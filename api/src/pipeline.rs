//! The main path of an inference request, in one place:
//! identify > read > firewall > admit > route > call > relay, and settle when the reply ends.
//!
//! Each step takes what the one before it made, so that none can run too early. What goes wrong is a value of
//! [`Error`], which `envelope.rs` turns into HTTP. Dropping the future at any point (the client is gone) leaves the
//! queue, closes the upstream and settles.

use crate::admission::{Admitted, Ask, Path, Refusal};
use crate::app::App;
use crate::chat::Changes;
use crate::dialect::asked::Asked;
use crate::dialect::{self, Meta, Route, Wire, embed};
use crate::error::Error;
use crate::identity::Caller;
use crate::prices::{Price, price_of};
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
use ledger::model::{Dimension, Priority, Scope, ScopeKind, Spend};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A request that comes to the wire too late so many times in a row is on a machine that stands still.
const ATTEMPTS_MAX: u8 = 8;

/// A request whose caller is known.
struct Identified {
    route: Route,
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
    asked: Arc<Asked>,
    /// Whether a stream is to be a JSON array.
    is_array: bool,
    found: Found,
    priority: Priority,
    /// When it stops waiting for capacity.
    wait_until: Instant,
    prompt_tokens: u64,
    /// The most that each choice may write.
    output_max: u64,
    /// What its tokens cost.
    price: Price,
    /// The worst case in all.
    spend: Spend,
}

/// A request that may use capacity.
struct Ready {
    read: Box<Read>,
    admitted: Admitted,
}

/// A request that the upstream has begun to answer.
struct Called {
    call: Call,
    answer: Answer,
    terms: Terms,
}

/// Serves one request for a completion or for embeddings, of whatever dialect. What comes before and after the wait for
/// capacity has boxes of its own, so that a request that waits is small: thousands may.
pub(crate) async fn infer(
    app: &App,
    route: Route,
    request: Box<Request<Body>>,
    facts: &mut Facts,
) -> Result<Response<Body>, Error> {
    let identified = Box::pin(identify(app, route, request, facts)).await?;
    let read = Box::pin(read(app, identified, facts)).await?;
    // The firewall stands here, before capacity is touched.
    let ready = admit(app, read, facts).await?;
    let called = Box::pin(call(app, ready, facts)).await?;
    // The reply settles the call before its last byte.
    Box::pin(relay::relay(&app.client, called.call, called.answer, called.terms)).await
}

/// Finds out who is calling.
async fn identify(
    app: &App,
    route: Route,
    request: Box<Request<Body>>,
    facts: &mut Facts,
) -> Result<Box<Identified>, Error> {
    let (head, body) = request.into_parts();
    let (client, group) = (facts.arrival.client, route.wire.group());
    let caller = credential::caller(&app.identity, &head.headers, &head.uri, group, client).await?;
    facts.caller = Some(caller.clone());
    Ok(Box::new(Identified { route, caller, headers: head.headers, body }))
}

/// Reads the body, finds the pool, and works out how much the request may cost at worst.
async fn read(app: &App, identified: Box<Identified>, facts: &mut Facts) -> Result<Box<Read>, Error> {
    let Identified { route, caller, headers, body } = *identified;
    let body = body::collect(app, &headers, body, facts).await?;
    let is_array = route.is_array;
    let asked = Arc::new(off_reactor(&body, move |body| Wire::head(&route, body)).await??);
    let head = &asked.head;
    let priority = priority::choose(&caller, &headers, head.service, app.priority_levels)?;
    let wait_until = Instant::now() + priority::max_wait(&headers, app.queue_wait, app.queue_wait_max)?;
    let mut found = find(app, &caller, &head.model)?;
    facts.pool = Some(found.pool.label.clone());
    let meter = Meter::new(found.pool.tokenizer);
    let counted = asked.clone();
    let prompt_tokens = off_reactor(&body, move |body| counted.count_prompt(body, meter)).await?;
    let output_max = loop {
        match found.pool.output_max(prompt_tokens, if asked.wire.is_embedding() { Some(0) } else { head.output_max }) {
            Ok(output_max) if head.output_max.is_none() => break output_max.saturating_add(head.thinking),
            Ok(output_max) => break output_max,
            Err(error) => found = app.pools.larger(&found).ok_or(error)?,
        }
    };
    facts.pool = Some(found.pool.label.clone());
    let output_max = match asked.wire.is_embedding() {
        true => 0,
        false => within_allowance(&caller, prompt_tokens, output_max, head.choices)?,
    };
    let price = price_of(&*app.prices, &head.model, &found.pool.label);
    let spend = price.spend(prompt_tokens, output_max.saturating_mul(head.choices));
    let headers = upstream::passed_on(&headers);
    Ok(Box::new(Read {
        caller,
        headers,
        body,
        asked,
        is_array,
        found,
        priority,
        wait_until,
        prompt_tokens,
        output_max,
        price,
        spend,
    }))
}

/// Finds the pool of a model that the caller may use.
pub(crate) fn find(app: &App, caller: &Caller, model: &str) -> Result<Found, Error> {
    let found = app.pools.find(model).ok_or_else(|| Error::UnknownModel { model: model.to_owned() })?;
    if !caller.models.allows(model) && !caller.models.allows(&found.model) {
        return Err(Error::ModelNotAllowed { model: model.to_owned() });
    }
    Ok(found)
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
async fn admit(app: &App, read: Box<Read>, facts: &mut Facts) -> Result<Ready, Error> {
    let began_us = raft::clock::boot_us();
    let ask = Ask {
        pool: read.found.pool.label.clone(),
        tenant: Some(Scope { kind: ScopeKind::Key, id: read.caller.key_id }),
        tenants: read.caller.tenants.clone(),
        priority: read.priority,
        spend: read.spend,
        weight: read.spend.tokens.saturating_add(read.spend.tokens.saturating_sub(read.prompt_tokens)),
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
    facts.budget_remaining = admitted.budget_remaining;
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
        let outgoing = outgoing(&read, target).await?;
        let intent = intent(&read, &admitted, target, facts, attempt);
        let open = app.journal.intent(intent).map_err(|cause| {
            tracing::error!(request_id = %facts.arrival.id, %cause, "the journal cannot be written");
            Error::JournalUnavailable
        })?;
        let call = Call::new(admitted, open, app, read.prompt_tokens, read.price, read.asked.head.stream);
        let terms = terms(&read, outgoing.wire, facts);
        let began_us = raft::clock::boot_us();
        let Outgoing { path, headers, body, .. } = outgoing;
        let headers = headers.as_ref().unwrap_or(&read.headers);
        let outcome = app.client.send(target, &path, headers, body, call.gate(), terms.deadline).await;
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

fn terms(read: &Read, upstream: Wire, facts: &Facts) -> Terms {
    let (head, id) = (&read.asked.head, facts.arrival.id);
    let meta = Meta {
        id: id.to_string().trim_start_matches("req_").to_owned(),
        created_s: raft::clock::wall_us() / 1_000_000,
        model: head.model.clone(),
        wants_usage: head.wants_usage,
        is_array: read.is_array,
    };
    Terms {
        id,
        client: read.asked.wire,
        upstream,
        usage_injected: read.asked.wire == Wire::Chat && head.stream && !head.wants_usage,
        is_base64: read.asked.wire == Wire::Embeddings && embed::wants_base64(&read.body),
        meta,
        meter: Meter::new(read.found.pool.tokenizer),
        deadline: Instant::now() + read.found.pool.request_max,
    }
}

/// A request as the upstream takes it.
struct Outgoing {
    wire: Wire,
    path: String,
    /// Its headers, where they are not the client's.
    headers: Option<HeaderMap>,
    body: Bytes,
}

/// Writes the request for a target: the client's own bytes where both speak the same, else a translation.
async fn outgoing(read: &Read, target: &Target) -> Result<Outgoing, Error> {
    let wire = target.wire(read.asked.wire).ok_or_else(|| {
        Error::invalid("model", format!("the provider of the model `{}` has no embeddings", read.asked.head.model))
    })?;
    let model = target.model.clone().unwrap_or_else(|| read.found.model.clone());
    let path = wire.path(&model, read.asked.head.stream);
    let (asked, body) = (read.asked.clone(), read.body.clone());
    let (output_max, output_field) = (read.output_max, target.output_field);
    let body = off_reactor(&read.body, move |_| {
        dialect::outgoing(&asked, &body, wire, Changes { model: &model, output_max, output_field })
    });
    let headers = (wire != read.asked.wire).then(upstream::translated_on);
    Ok(Outgoing { wire, path, headers, body: body.await?? })
}

fn intent(read: &Read, admitted: &Admitted, target: &Target, facts: &Facts, call: u8) -> Intent {
    Intent {
        call: CallId { request: facts.arrival.id, call },
        incarnation: admitted.incarnation,
        reservation: admitted.reservation,
        pool: read.found.pool.label.clone(),
        model: read.asked.head.model.as_str().into(),
        target: target.name.clone(),
        key_id: read.caller.key_id,
        user: read.caller.user,
        team: read.caller.team,
        priority: read.priority,
        tokens_reserved: admitted.spend.tokens,
        started_wall_us: raft::clock::wall_us(),
    }
}

/// Runs `work` here on a small body, on another thread on a large one.
pub(crate) async fn off_reactor<T: Send + 'static>(
    body: &Bytes,
    work: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<T, Error> {
    if body.len() <= INLINE_BYTES_MAX {
        return Ok(work(body));
    }
    let body = body.clone();
    tokio::task::spawn_blocking(move || work(&body)).await.map_err(|_| Error::Internal)
}
