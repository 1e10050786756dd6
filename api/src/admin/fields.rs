//! Reads what an admin request says, field by field, so that every complaint names its field.

use super::error::AdminError;
use crate::identity::{LIMIT_MAX, LimitsChange};
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use bytes::Bytes;
use http::header::IF_MATCH;
use http::request::Parts;
use http::{HeaderMap, Uri};
use serde_json::{Map, Value};

const BODY_MAX: usize = 64 * 1024;

/// What the address names: a key or a pool.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| AdminError::invalid("path", "cannot be read"))
    }
}

/// The version that a change is meant for: the field, or the header `If-Match`.
pub(super) fn version(fields: &mut Fields, headers: &HeaderMap) -> Result<Option<u64>, AdminError> {
    let given = fields.whole("version", LIMIT_MAX)?;
    let Some(header) = headers.get(IF_MATCH) else { return Ok(given) };
    let text = header.to_str().map(|text| text.trim().trim_matches('"')).unwrap_or_default();
    text.parse().map(Some).map_err(|_| AdminError::invalid("If-Match", "must be the version, a whole number"))
}

/// The fields of a request that nobody has read yet.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a JSON object.
    pub(super) async fn of_body(body: Body) -> Result<Self, AdminError> {
        Self::with_bytes(body).await.map(|(fields, _)| fields)
    }

    fn read(bytes: &[u8]) -> Result<Self, AdminError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(AdminError::invalid("body", "must be a JSON object")),
            Err(error) => Err(AdminError::invalid("body", format!("is not JSON: {error}"))),
        }
    }

    /// Reads a JSON object, and keeps its bytes.
    pub(super) async fn with_bytes(body: Body) -> Result<(Self, Bytes), AdminError> {
        let bytes = axum::body::to_bytes(body, BODY_MAX).await.map_err(|_| AdminError::TooLarge)?;
        Ok((Self::read(&bytes)?, bytes))
    }

    /// Reads the parameters of an address.
    pub(super) fn of_query(uri: &Uri) -> Result<Self, AdminError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| AdminError::invalid("query", "cannot be read"))?;
        let mut map = Map::new();
        for (name, value) in pairs {
            if map.insert(name.clone(), Value::String(value)).is_some() {
                return Err(AdminError::invalid(&name, "is given twice"));
            }
        }
        Ok(Self(map))
    }

    /// Text, if it is given.
    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, AdminError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(AdminError::invalid(field, "must be text")),
        }
    }

    /// Text, or `Some(None)` where it is to be none: null or empty.
    #[expect(clippy::option_option, reason = "absent, none and some are three things")]
    pub(super) fn nullable_text(&mut self, field: &str) -> Result<Option<Option<String>>, AdminError> {
        match self.0.get(field) {
            None => Ok(None),
            Some(Value::Null) => {
                self.0.remove(field);
                Ok(Some(None))
            }
            Some(_) => Ok(self.text(field)?.map(|text| Some(text).filter(|text| !text.is_empty()))),
        }
    }

    /// Whether a field is there, be it null.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Limits, as far as they are given; 0 is none.
    pub(super) fn limits(&mut self) -> Result<LimitsChange, AdminError> {
        Ok(LimitsChange {
            rps: self.limit("rps")?,
            rpm: self.limit("rpm")?,
            burst_requests: self.limit("burst_requests")?,
            tpm: self.limit("tpm")?,
            burst_tokens: self.limit("burst_tokens")?,
            concurrency: self.limit("concurrency")?,
            tokens_per_day: self.limit("tokens_per_day")?,
            budget_nano_usd: self.limit("budget_nano_usd")?,
        })
    }

    /// A whole number up to `most`, if it is given.
    pub(super) fn whole(&mut self, field: &str, most: u64) -> Result<Option<u64>, AdminError> {
        let number = match self.take(field) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Some(_) => None,
        };
        let number = number.filter(|number| *number <= most);
        number.map(Some).ok_or_else(|| AdminError::invalid(field, format!("must be a whole number from 0 to {most}")))
    }

    /// A limit, if it is given; 0 is none.
    pub(super) fn limit(&mut self, field: &str) -> Result<Option<u64>, AdminError> {
        self.whole(field, LIMIT_MAX)
    }

    /// Yes or no; no when it is not given.
    pub(super) fn flag(&mut self, field: &str) -> Result<bool, AdminError> {
        match self.take(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
            Some(_) => Err(AdminError::invalid(field, "must be true or false")),
        }
    }

    /// A list of texts; empty when it is not given.
    pub(super) fn texts(&mut self, field: &str) -> Result<Vec<String>, AdminError> {
        let wrong = || AdminError::invalid(field, "must be a list of texts");
        match self.take(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                items.into_iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// To be called when everything known was read: what is left is unknown.
    pub(super) fn done(self) -> Result<(), AdminError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(field) => {
                let shown: String = field.chars().filter(|c| !c.is_control()).take(64).collect();
                Err(AdminError::invalid(&shown, "is not a known field"))
            }
        }
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }
}
