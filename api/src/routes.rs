//! Every route in one table, and the layers around it in order:
//! arrival (id, clock) > panics become 500 > route > the handler's facts become headers.

use crate::admin::{self, Admin};
use crate::app::App;
use crate::dialect::{Family, Route, Wire};
use crate::envelope;
use crate::error::Error;
use crate::metrics::Ended;
use crate::reply::{self, Arrival, Facts};
use crate::{counting, health, models, pipeline};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::routing::{MethodRouter, get, post, post_service};
use futures_util::FutureExt;
use http::{Method, Response};
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tower::Service;

type Shared = State<Arc<App>>;

/// The table. `admin` is absent where a listener does not serve it.
pub fn router(app: Arc<App>, admin: Option<Admin>) -> Router {
    let infers = |wire| inference(app.clone(), wire);
    let table = Router::new()
        .route("/v1/chat/completions", infers(Wire::Chat))
        .route("/v1beta/openai/chat/completions", infers(Wire::Chat))
        .route("/v1/embeddings", infers(Wire::Embeddings))
        .route("/v1beta/openai/embeddings", infers(Wire::Embeddings))
        .route("/v1/messages", infers(Wire::Anthropic))
        .route("/anthropic/v1/messages", infers(Wire::Anthropic))
        .route("/v1/messages/count_tokens", post(count_messages))
        .route("/anthropic/v1/messages/count_tokens", post(count_messages))
        .route("/v1/models", get(list_models))
        .route("/anthropic/v1/models", get(list_models))
        .route("/v1beta/models", get(list_models))
        .route("/v1/models/{*id}", get(one_model).post(gemini))
        .route("/v1beta/models/{*id}", get(one_model).post(gemini))
        .route("/anthropic/v1/models/{*id}", get(one_model))
        .route("/v1beta/openai/models", get(list_models))
        .route("/v1beta/openai/models/{*id}", get(one_model))
        .route("/health", get(|State(app): Shared| async move { health::health(&app) }))
        .route("/health/live", get(|| async { health::live() }))
        .route("/health/ready", get(|State(app): Shared| async move { health::ready(&app) }))
        .route("/metrics", get(|State(app): Shared| async move { health::metrics(&app) }))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app);
    match admin {
        Some(admin) => table.merge(admin::router(admin)),
        None => table,
    }
}

/// Takes one request through the layers. It is mapped, not awaited: an `async` block keeps the room of what it awaits
/// twice, and thousands of requests may wait.
pub(crate) fn enter(
    app: Arc<App>,
    mut router: Router,
    client: IpAddr,
    mut request: Request,
) -> impl Future<Output = Response<Body>> + Send + use<> {
    let arrival = Arrival { id: app.ids.next(), at_us: raft::clock::boot_us(), client: Some(client) };
    let family = Family::of(request.headers(), request.uri());
    request.extensions_mut().insert(arrival);
    AssertUnwindSafe(router.call(request)).catch_unwind().map(move |outcome| {
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                tracing::error!(request_id = %arrival.id, "a handler panicked");
                envelope::respond(&Error::Internal, family, arrival.id)
            }
        };
        if !response.headers().contains_key("x-request-id") {
            reply::stamp(response.headers_mut(), &app, arrival.id);
        }
        response
    })
}

/// A route of inference: a service, since the future of an axum handler would keep the room of the request several times.
fn inference(app: Arc<App>, wire: Wire) -> MethodRouter<Arc<App>> {
    let serve = move |request| infer(app.clone(), Route::of(wire), Box::new(request)).map(Ok::<_, Infallible>);
    post_service(tower::service_fn(serve))
}

async fn count_messages(State(app): Shared, request: Request) -> Response<Body> {
    count(&app, Route::of(Wire::Anthropic), request).await
}

/// `models/MODEL:VERB`.
async fn gemini(State(app): Shared, id: Result<Path<String>, PathRejection>, request: Request) -> Response<Body> {
    let named =
        id.ok().and_then(|Path(id)| Some((id.rsplit_once(':')?.0.to_owned(), id.rsplit_once(':')?.1.to_owned())));
    let Some((model, verb)) = named else { return unknown(State(app), request).await };
    let is_sse = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"));
    let route = |wire| Route { model: Some(model.clone()), ..Route::of(wire) };
    match verb.as_str() {
        "generateContent" => infer(app, route(Wire::Gemini), Box::new(request)).await,
        "streamGenerateContent" => {
            let route = Route { stream: true, is_array: !is_sse, ..route(Wire::Gemini) };
            infer(app, route, Box::new(request)).await
        }
        "embedContent" => infer(app, route(Wire::GeminiEmbed), Box::new(request)).await,
        "batchEmbedContents" => infer(app, route(Wire::GeminiEmbedBatch), Box::new(request)).await,
        "countTokens" => count(&app, route(Wire::Gemini), request).await,
        _ => unknown(State(app), request).await,
    }
}

async fn infer(app: Arc<App>, route: Route, request: Box<Request>) -> Response<Body> {
    let mut facts = facts(&app, &request, route.wire.family());
    let outcome = pipeline::infer(&app, route, request, &mut facts).await;
    if outcome.is_err() && !facts.was_sent {
        app.metrics.ended(Ended::Refused);
    }
    reply::finish(&app, &facts, outcome)
}

async fn count(app: &App, route: Route, request: Request) -> Response<Body> {
    let mut facts = facts(app, &request, route.wire.family());
    let outcome = counting::count(app, route, request, &mut facts).await;
    reply::finish(app, &facts, outcome)
}

async fn list_models(State(app): Shared, request: Request) -> Response<Body> {
    let mut facts = facts(&app, &request, Family::of(request.headers(), request.uri()));
    let outcome = models::list(&app, request.headers(), request.uri(), &mut facts).await;
    reply::finish(&app, &facts, outcome)
}

async fn one_model(State(app): Shared, id: Result<Path<String>, PathRejection>, request: Request) -> Response<Body> {
    let mut facts = facts(&app, &request, Family::of(request.headers(), request.uri()));
    // A name that is no UTF-8 is nobody's; shown as far as it can be read.
    let id = id.map_or_else(|_| request.uri().path().to_owned(), |Path(id)| id);
    let outcome = models::one(&app, request.headers(), request.uri(), &id, &mut facts).await;
    reply::finish(&app, &facts, outcome)
}

async fn unknown(State(app): Shared, request: Request) -> Response<Body> {
    let facts = facts(&app, &request, Family::of(request.headers(), request.uri()));
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    reply::finish(&app, &facts, Err(Error::UnknownRoute { method, path }))
}

async fn wrong_method(State(app): Shared, method: Method, request: Request) -> Response<Body> {
    let facts = facts(&app, &request, Family::of(request.headers(), request.uri()));
    reply::finish(&app, &facts, Err(Error::MethodNotAllowed { method: method.to_string() }))
}

fn facts(app: &App, request: &Request, family: Family) -> Facts {
    let arrival = request.extensions().get::<Arrival>().copied();
    let arrival =
        arrival.unwrap_or_else(|| Arrival { id: app.ids.next(), at_us: raft::clock::boot_us(), client: None });
    Facts::new(arrival, family)
}
