//! The control routes, for an upstream that runs as a process of its own.
//!
//! | route | does |
//! |---|---|
//! | `PUT /_control/script` | takes a [`Script`] as JSON |
//! | `GET /_control/record` | every [`super::Call`] so far |
//! | `DELETE /_control/record` | forgets them |
//! | `POST /_control/take` | every call that is over, which it then forgets: for records longer than memory |
//! | `GET /_control/stats` | the [`super::Stats`] |
//! | `POST /_control/release/{gate}/{n}` | lets `n` held requests go |
//! | `POST /_control/open/{gate}` | lets all held requests go, and all that come |

use super::script::Script;
use super::wire::{self, Framing, Request};
use super::{Shared, chat};

/// Answers a control request: the whole reply, head and body.
pub(crate) fn answer(shared: &Shared, request: &Request) -> Vec<u8> {
    let path = request.path.trim_start_matches("/_control/");
    let parts: Vec<&str> = path.split('/').collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("PUT", ["script"]) => match serde_json::from_slice::<Script>(&request.body) {
            Ok(script) => {
                shared.set(script);
                reply(204, Vec::new())
            }
            Err(error) => reply(400, chat::error_body(400, &error.to_string())),
        },
        ("GET", ["record"]) => json(&shared.recorder.calls()),
        ("DELETE", ["record"]) => {
            shared.recorder.clear();
            reply(204, Vec::new())
        }
        ("POST", ["take"]) => json(&shared.recorder.take_ended()),
        ("GET", ["stats"]) => json(&shared.recorder.stats()),
        ("POST", ["release", gate, count]) => match count.parse() {
            Ok(count) => {
                shared.gates.release(gate, count);
                reply(204, Vec::new())
            }
            Err(_) => reply(400, chat::error_body(400, "the count is not a number")),
        },
        ("POST", ["open", gate]) => {
            shared.gates.open(gate);
            reply(204, Vec::new())
        }
        _ => reply(404, chat::error_body(404, "no such control route")),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    reply(200, serde_json::to_vec(value).expect("records are JSON"))
}

/// A reply with a JSON body.
pub(crate) fn reply(status: u16, body: Vec<u8>) -> Vec<u8> {
    let mut out = wire::head(status, "application/json", &[], &Framing::Length(body.len()));
    out.extend_from_slice(&body);
    out
}
