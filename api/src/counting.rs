//! Counts the tokens of a request that is not sent: Anthropic's `count_tokens`, Gemini's `countTokens`. The count is the one
//! that a request's reservation is made of, and costs no capacity.

use crate::app::App;
use crate::dialect::{Family, Route, anthropic, embed, gemini};
use crate::error::Error;
use crate::reply::Facts;
use crate::tokens::Meter;
use crate::{body, credential, pipeline};
use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};

/// Counts.
///
/// # Errors
/// As a request that is sent, up to its admission.
pub(crate) async fn count(
    app: &App,
    route: Route,
    request: Request<Body>,
    facts: &mut Facts,
) -> Result<Response<Body>, Error> {
    let (head, body) = request.into_parts();
    let caller =
        credential::caller(&app.identity, &head.headers, &head.uri, route.wire.group(), facts.arrival.client).await?;
    facts.caller = Some(caller.clone());
    let body = body::collect(app, &head.headers, body, facts).await?;
    let is_anthropic = facts.family == Family::Anthropic;
    let read = if is_anthropic { anthropic::head_to_count } else { gemini::head_to_count };
    let asked = pipeline::off_reactor(&body, read).await??;
    let model = route.model.as_deref().unwrap_or(&asked.head.model);
    let found = pipeline::find(app, &caller, model)?;
    facts.pool = Some(found.pool.label.clone());
    let meter = Meter::new(found.pool.tokenizer);
    let tokens = pipeline::off_reactor(&body, move |body| asked.count_prompt(body, meter)).await?;
    let text = if is_anthropic { format!(r#"{{"input_tokens":{tokens}}}"#) } else { embed::counted(tokens) };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
