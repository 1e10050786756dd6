//! Reads a client's body: bounded in size and time; a large one that came in one piece is not copied.

use crate::app::App;
use crate::error::Error;
use crate::reply::Facts;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;

/// Room made at once for a body of a stated length; more only as bytes really come.
const FIRST_ROOM: usize = 1 << 20;

/// A body up to this size is copied out of its connection's read buffer, which a request that waits would keep.
const COPIED_MAX: usize = 16 << 10;

/// Reads the body to its end.
///
/// # Errors
/// [`Error::BodyTooLarge`] as soon as that is known, [`Error::BodyTimeout`], [`Error::BodyBroken`].
pub(crate) async fn collect(app: &App, headers: &HeaderMap, body: Body, facts: &mut Facts) -> Result<Bytes, Error> {
    let began_us = raft::clock::boot_us();
    let limit = app.body_bytes_max;
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if stated.is_some_and(|length| length > limit) {
        return Err(Error::BodyTooLarge { limit });
    }
    let bytes = tokio::time::timeout(app.body_time_max, read(body, stated.unwrap_or(0), limit)).await;
    facts.outside_us += raft::clock::boot_us().saturating_sub(began_us);
    bytes.unwrap_or(Err(Error::BodyTimeout))
}

async fn read(mut body: Body, stated: usize, limit: usize) -> Result<Bytes, Error> {
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::BodyBroken)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(Error::BodyTooLarge { limit });
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(stated.clamp(first.len() + data.len(), FIRST_ROOM.max(first.len() + data.len())));
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    if all.is_empty() && first.len() <= COPIED_MAX {
        return Ok(Bytes::copy_from_slice(&first));
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
