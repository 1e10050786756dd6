//! Everything that can go wrong with a request, named by what the caller does next. Becomes HTTP in `envelope.rs` only.

use crate::admission::Refusal;
use ledger::model::Dimension;
use std::borrow::Cow;
use std::time::Duration;

/// Characters of a client's own text that a message repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a request gets no answer of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is not understood; the client mends it.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// The field that is wrong.
        param: Option<Cow<'static, str>>,
    },
    /// Prompt and output together are longer than the model's context.
    #[error(
        "this model's maximum context length is {most} tokens, the request needs {needed} ({prompt} in the messages, {output} for the output)"
    )]
    ContextLength {
        /// What the model takes.
        most: u64,
        /// What the request needs in all.
        needed: u64,
        /// Of that, the prompt.
        prompt: u64,
        /// Of that, the output.
        output: u64,
    },
    /// No credential came with the request.
    #[error("no API key was given: send it as `Authorization: Bearer KEY`")]
    NoKey,
    /// The credential is unknown, revoked or expired; one message for all, so that nothing is told to a guesser.
    #[error("incorrect API key provided")]
    BadKey,
    /// The key may not use this model.
    #[error("this API key may not use the model `{}`", short(model))]
    ModelNotAllowed {
        /// The model that was asked for.
        model: String,
    },
    /// The key may not use these routes.
    #[error("this API key has no scope for `{group}`")]
    RouteNotAllowed {
        /// The group of routes.
        group: &'static str,
    },
    /// No pool serves this model.
    #[error("the model `{}` does not exist", short(model))]
    UnknownModel {
        /// The model that was asked for.
        model: String,
    },
    /// No such route.
    #[error("unknown request URL: {} {}", short(method), short(path))]
    UnknownRoute {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// The route exists, for other methods.
    #[error("the method {} is not allowed here", short(method))]
    MethodNotAllowed {
        /// The request's method.
        method: String,
    },
    /// The body is over the limit.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The client did not send its body in time.
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    /// The client's body broke off.
    #[error("the request body broke off")]
    BodyBroken,
    /// Admission said no.
    #[error("{}", refusal(.0))]
    Refused(Refusal),
    /// The key stores cannot be reached and no layer knows the key.
    #[error("the key cannot be checked at the moment")]
    KeysUnavailable,
    /// This node's own books cannot be written; nothing was sent upstream.
    #[error("this node cannot record usage at the moment")]
    JournalUnavailable,
    /// The node is stopping.
    #[error("this node is shutting down")]
    Draining,
    /// No connection to the upstream, or it broke before an answer.
    #[error("the upstream cannot be reached")]
    UpstreamUnreachable,
    /// The upstream did not answer in time; whether it worked on the request is unknown.
    #[error("the upstream did not answer in time")]
    UpstreamTimeout,
    /// The upstream broke the call off.
    #[error("the upstream's answer broke off")]
    UpstreamCut,
    /// The upstream's answer cannot be used.
    #[error("the upstream's answer {0}")]
    UpstreamBroken(&'static str),
    /// A bug of the gateway.
    #[error("the gateway failed; the request id finds the cause in its log")]
    Internal,
}

impl Error {
    /// A request that is not understood because of one field.
    pub(crate) fn invalid(param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: Some(param.into()) }
    }

    /// When a new try may succeed, as far as anyone knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(
                Refusal::QueueFull { retry_after, .. }
                | Refusal::QueueTimeout { retry_after, .. }
                | Refusal::Tenant { retry_after, .. }
                | Refusal::Unavailable { retry_after },
            ) => Some(*retry_after),
            Self::KeysUnavailable | Self::JournalUnavailable | Self::Draining => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a client sent, as far as a message repeats it.
fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn refusal(refusal: &Refusal) -> String {
    let seconds = |after: &Duration| after.as_secs_f64();
    match refusal {
        Refusal::QueueFull { retry_after, .. } => {
            format!("the model is at capacity and its queue is full; try again in {:.3} s", seconds(retry_after))
        }
        Refusal::QueueTimeout { retry_after, .. } => {
            format!("the model stayed at capacity; try again in {:.3} s", seconds(retry_after))
        }
        Refusal::Tenant { dimension, .. } if is_quota(*dimension) => {
            format!("you exceeded your current quota of {}", dimension_name(*dimension))
        }
        Refusal::Tenant { dimension, retry_after, .. } => {
            format!("rate limit reached on {}; try again in {:.3} s", dimension_name(*dimension), seconds(retry_after))
        }
        Refusal::NeverFits { dimension, most } if is_quota(*dimension) => {
            format!("the request needs more than your quota of {most} {}", dimension_name(*dimension))
        }
        Refusal::NeverFits { dimension, most } => {
            format!("the request is too large: the limit on {} is {most} at once", dimension_name(*dimension))
        }
        Refusal::Unavailable { .. } => "capacity cannot be decided at the moment".to_owned(),
    }
}

/// Whether a limit is a quota: once it is used up, no retry helps before its window ends.
pub(crate) fn is_quota(dimension: Dimension) -> bool {
    match dimension {
        Dimension::Requests | Dimension::Tokens | Dimension::Concurrent => false,
        Dimension::TokensPerDay | Dimension::TokensPerMonth | Dimension::CostPerDay | Dimension::CostPerMonth => true,
    }
}

fn dimension_name(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Requests => "requests",
        Dimension::Tokens => "tokens",
        Dimension::Concurrent => "concurrent requests",
        Dimension::TokensPerDay => "tokens per day",
        Dimension::TokensPerMonth => "tokens per month",
        Dimension::CostPerDay => "nano-USD per day",
        Dimension::CostPerMonth => "nano-USD per month",
    }
}
