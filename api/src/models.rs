//! The models that a key may use, with their providers and capacity.

use crate::app::App;
use crate::credential;
use crate::dialect::Family;
use crate::error::Error;
use crate::health::json_response;
use crate::identity::{Caller, RouteGroup};
use crate::reply::Facts;
use crate::routing::Pool;
use axum::body::Body;
use http::{HeaderMap, Response, StatusCode, Uri};
use ledger::model::{BucketLimit, PoolLimits};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// `GET /v1/models`.
pub(crate) async fn list(
    app: &App,
    headers: &HeaderMap,
    uri: &Uri,
    facts: &mut Facts,
) -> Result<Response<Body>, Error> {
    let caller = credential::caller(&app.identity, headers, uri, RouteGroup::Models, facts.arrival.client).await?;
    facts.caller = Some(caller.clone());
    let models = shown(app, &caller).into_values().map(|model| said(facts.family, model));
    let models: Vec<Value> = models.collect();
    let id_of = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
    let (first, last) = (id_of(models.first()), id_of(models.last()));
    let list = match facts.family {
        Family::Openai => json!({"object": "list", "data": models}),
        Family::Anthropic => json!({"data": models, "has_more": false, "first_id": first, "last_id": last}),
        Family::Gemini => json!({"models": models}),
    };
    Ok(json_response(StatusCode::OK, &list))
}

/// `GET /v1/models/{id}`.
pub(crate) async fn one(
    app: &App,
    headers: &HeaderMap,
    uri: &Uri,
    id: &str,
    facts: &mut Facts,
) -> Result<Response<Body>, Error> {
    let caller = credential::caller(&app.identity, headers, uri, RouteGroup::Models, facts.arrival.client).await?;
    facts.caller = Some(caller.clone());
    let unknown = || Error::UnknownModel { model: id.to_owned() };
    if let Some(model) = shown(app, &caller).remove(id) {
        return Ok(json_response(StatusCode::OK, &said(facts.family, model)));
    }
    // A name that a wildcard pool serves is a model too, though no list can hold it.
    let found = app.pools.find(id).filter(|_| caller.models.allows(id)).ok_or_else(unknown)?;
    Ok(json_response(StatusCode::OK, &said(facts.family, model(id, &found.pool, found.pool.limits))))
}

/// A model in the words of a dialect; OpenAI's are the ones it is made in.
fn said(family: Family, model: Value) -> Value {
    let id = model["id"].as_str().unwrap_or_default();
    match family {
        Family::Openai => model,
        Family::Anthropic => json!({
            "type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z",
        }),
        Family::Gemini => json!({
            "name": format!("models/{id}"), "displayName": id, "version": "1",
            "inputTokenLimit": model["tokligence"]["capacity"]["max_context_length"],
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }),
    }
}

/// The pools and aliases that a key may use, by name.
fn shown(app: &App, caller: &Caller) -> BTreeMap<String, Value> {
    let now: HashMap<String, PoolLimits> = app.board.pools().into_iter().map(|pool| (pool.pool, pool.limits)).collect();
    let limits = |pool: &Pool| now.get(&*pool.label).copied().unwrap_or(pool.limits);
    let pools = app.pools.iter().filter(|pool| caller.models.allows(&pool.label));
    let mut models: BTreeMap<String, Value> =
        pools.map(|pool| (pool.label.to_string(), model(&pool.label, pool, limits(pool)))).collect();
    for (alias, stands_for) in app.pools.aliases() {
        let may = caller.models.allows(alias) || caller.models.allows(stands_for);
        if let Some(found) = app.pools.find(alias).filter(|_| may) {
            models.insert(alias.to_string(), model(alias, &found.pool, limits(&found.pool)));
        }
    }
    models
}

fn model(id: &str, pool: &Pool, limits: PoolLimits) -> Value {
    let provider = &pool.target().name;
    json!({
        "id": id,
        "object": "model",
        "created": 0,
        "owned_by": provider,
        "tokligence": {
            "provider": provider,
            "capacity": {
                "max_tokens_per_sec": limits.tokens.map(per_sec),
                "burst_tokens": limits.tokens.map(|limit| limit.burst),
                "max_rps": limits.requests.map(per_sec),
                "burst_requests": limits.requests.map(|limit| limit.burst),
                "max_concurrent": limits.concurrent,
                "max_context_length": pool.context_max,
            },
        },
    })
}

fn per_sec(limit: BucketLimit) -> Value {
    let micros = u128::from(limit.rate.units) * 1_000_000;
    let per = u128::from(limit.rate.per_us.max(1));
    match micros % per {
        0 => json!(u64::try_from(micros / per).unwrap_or(u64::MAX)),
        _ => json!(micros as f64 / per as f64),
    }
}
