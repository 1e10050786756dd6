//! Every admin route in one table: the router and the OpenAPI document are made of it.

use super::error::json;
use super::who::require;
use super::{Admin, cluster, keys, people, pools, usage};
use crate::identity::{Limits, Role};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use http::StatusCode;
use serde_json::{Map, Value, json as value};

/// Where the admin routes are.
pub(super) const ROOT: &str = "/api/v1/admin";

/// What a field or a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Whole,
    Flag,
    Texts,
}

type Fields = Vec<(&'static str, Kind)>;

/// A route.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) role: Role,
    pub(super) query: Fields,
    pub(super) body: Fields,
    handler: MethodRouter<Admin>,
}

fn route(method: &'static str, path: &'static str, summary: &'static str, handler: MethodRouter<Admin>) -> Route {
    Route { method, path, summary, role: Role::GatewayAdmin, query: Vec::new(), body: Vec::new(), handler }
}

impl Route {
    fn root(self) -> Self {
        Self { role: Role::RootAdmin, ..self }
    }

    fn query(self, query: &[(&'static str, Kind)]) -> Self {
        Self { query: query.to_vec(), ..self }
    }

    fn body(self, body: &[(&'static str, Kind)]) -> Self {
        Self { body: body.to_vec(), ..self }
    }

    fn limits(mut self) -> Self {
        self.body.extend(Limits::FIELDS.map(|field| (field, Kind::Whole)));
        self
    }
}

/// The table.
pub(super) fn routes() -> Vec<Route> {
    use Kind::{Flag, Text, Texts, Whole};
    const KEY: [(&str, Kind); 9] = [
        ("name", Text),
        ("tier", Text),
        ("priority", Whole),
        ("priority_ceiling", Whole),
        ("user", Text),
        ("team", Text),
        ("scopes", Texts),
        ("models", Texts),
        ("expires_in_s", Whole),
    ];
    const POOL: [(&str, Kind); 8] = [
        ("tokens_per_sec", Whole),
        ("tokens_per_min", Whole),
        ("rps", Whole),
        ("rpm", Whole),
        ("concurrent", Whole),
        ("context", Whole),
        ("burst_tokens", Whole),
        ("burst_requests", Whole),
    ];
    const USER: [(&str, Kind); 4] = [("name", Text), ("email", Text), ("role", Text), ("team", Text)];
    let version = ("version", Whole);
    vec![
        route("get", "/keys", "list keys", get(keys::list)).query(&[("revoked", Flag), ("after", Text)]),
        route("post", "/keys", "make a key; it is shown once", post(keys::create)).body(&KEY).limits(),
        route("get", "/keys/{key}", "show a key", get(keys::show)),
        route("patch", "/keys/{key}", "change a key", patch(keys::update))
            .body(&[&KEY[..], &[version]].concat())
            .limits(),
        route("delete", "/keys/{key}", "revoke a key, for ever", delete(keys::revoke)),
        route(
            "post",
            "/keys/{key}/rotate",
            "give a key a new secret; the old one is good for a while",
            post(keys::rotate),
        )
        .body(&[("overlap_s", Whole)]),
        route("get", "/users", "list users", get(people::users)).query(&[("after", Text)]),
        route("post", "/users", "make a user", post(people::create_user)).body(&USER).limits(),
        route("get", "/users/{user}", "show a user", get(people::user)),
        route("patch", "/users/{user}", "change a user", patch(people::update_user))
            .body(&[&USER[..], &[version]].concat())
            .limits(),
        route("delete", "/users/{user}", "remove a user with all keys, for ever", delete(people::remove_user)),
        route("get", "/teams", "list teams", get(people::teams)).query(&[("after", Text)]),
        route("post", "/teams", "make a team", post(people::create_team)).body(&[("name", Text)]).limits(),
        route("get", "/teams/{team}", "show a team", get(people::team)),
        route("patch", "/teams/{team}", "change a team", patch(people::update_team))
            .body(&[("name", Text), version])
            .limits(),
        route("delete", "/teams/{team}", "remove a team with all keys, for ever", delete(people::remove_team)).root(),
        route("get", "/audit", "who changed what, the latest first", get(people::audit)).query(&[("before", Whole)]),
        route("get", "/usage", "usage rows, in pages or all of them", get(usage::rows)).query(&[
            ("from", Text),
            ("to", Text),
            ("after", Text),
            ("limit", Whole),
            ("format", Text),
        ]),
        route("get", "/usage/summary", "usage by key, user, team, model or day", get(usage::summary)).query(&[
            ("by", Text),
            ("from", Text),
            ("to", Text),
            ("format", Text),
        ]),
        route("get", "/pools", "list pools", get(pools::list)),
        route("get", "/pools/{*model}", "show a pool", get(pools::show)),
        route("put", "/pools/{*model}", "set limits of a pool", put(pools::set)).body(&POOL),
        route("delete", "/pools/{*model}", "remove the limits of a pool", delete(pools::remove)),
        route("get", "/cluster", "the group of nodes", get(cluster::status)),
        route("post", "/cluster/members", "take a node in, without a vote yet", post(cluster::add))
            .body(&[("id", Whole), ("addr", Text)])
            .root(),
        route("delete", "/cluster/members/{id}", "take a member out", delete(cluster::remove)).root(),
        route("post", "/cluster/members/{id}/promote", "give a learner a vote", post(cluster::promote)).root(),
        route("post", "/cluster/leader", "have another voter lead", post(cluster::transfer))
            .body(&[("id", Whole)])
            .root(),
    ]
}

/// The routes as a router.
pub(super) fn router() -> Router<Admin> {
    let table = Router::new().route("/api/v1/openapi.json", get(document_route));
    routes().into_iter().fold(table, |table, route| {
        let handler = route.handler.route_layer(from_fn_with_state(route.role, require));
        table.route(&format!("{ROOT}{}", route.path), handler)
    })
}

async fn document_route() -> Response {
    json(StatusCode::OK, &document())
}

/// The table as an OpenAPI document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in routes() {
        let path = format!("{ROOT}{}", route.path.replace("{*", "{"));
        let item = paths.entry(path).or_insert_with(|| value!({}));
        item[route.method] = operation(&route);
    }
    value!({
        "openapi": "3.1.0",
        "info": { "title": "Tokligence Gateway admin", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "security": [{ "admin_key": [] }],
        "components": {
            "securitySchemes": { "admin_key": { "type": "http", "scheme": "bearer" } },
            "schemas": { "Error": {
                "type": "object",
                "properties": { "error": { "type": "object", "required": ["code", "message"], "properties": {
                    "code": { "type": "string" }, "message": { "type": "string" }, "field": { "type": "string" },
                } } },
            } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let of_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = of_path
        .map(|name| value!({ "name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": schema(Kind::Text) }))
        .collect();
    parameters.extend(
        route.query.iter().map(|(name, kind)| value!({ "name": name, "in": "query", "schema": schema(*kind) })),
    );
    if route.method == "post" {
        parameters.push(value!({ "name": "Idempotency-Key", "in": "header", "schema": schema(Kind::Text) }));
    }
    if route.method == "patch" {
        parameters.push(value!({ "name": "If-Match", "in": "header", "schema": schema(Kind::Text) }));
    }
    let mut operation = value!({
        "summary": route.summary,
        "parameters": parameters,
        "x-role": route.role.as_str(),
        "responses": {
            "2XX": { "description": "done", "content": { "application/json": {} } },
            "default": { "description": "refused", "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/Error" },
            } } },
        },
    });
    if !route.body.is_empty() {
        let fields: Map<String, Value> =
            route.body.iter().map(|(name, kind)| ((*name).to_owned(), schema(*kind))).collect();
        let body = value!({ "type": "object", "properties": fields, "additionalProperties": false });
        operation["requestBody"] = value!({ "content": { "application/json": { "schema": body } } });
    }
    operation
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Text => value!({ "type": "string" }),
        Kind::Whole => value!({ "type": "integer", "minimum": 0 }),
        Kind::Flag => value!({ "type": "boolean" }),
        Kind::Texts => value!({ "type": "array", "items": { "type": "string" } }),
    }
}
