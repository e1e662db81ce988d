//! `GET /i/store-backup`: everything in the store as it is at this moment, streamed, while
//! everybody goes on writing.
//!
//! One at a time: each holds a snapshot, whose pages the store cannot reuse, for as long as its
//! reader takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::error::{ApiError, Code};
use super::{Api, Call};
use crate::base::error::DbError;
use crate::base::limits::BACKUP_TIME_MAX;
use crate::net::http::{Body, Response};
use crate::store::backup;

/// Whether a backup is under way; the turn ends when this is dropped.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(taken: &Arc<AtomicBool>) -> Option<Self> {
        (!taken.swap(true, Ordering::SeqCst)).then(|| Self(Arc::clone(taken)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

pub(super) fn store_backup(
    api: &Api,
    _call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let permit = api.admit_without_body(body)?;
    let busy = || ApiError::new(Code::Busy, "a backup is under way already");
    let turn = Turn::take(&api.is_backing_up).ok_or_else(busy)?;
    let deadline = Instant::now() + BACKUP_TIME_MAX;
    let in_time = api.db.export()?.map(move |one| {
        let too_late = || DbError::Unavailable("its reader took too long".to_owned());
        if Instant::now() < deadline { one } else { Err(too_late()) }
    });
    let pieces = backup::pieces(Box::new(in_time));
    Ok(Response::chunked(200, "application/octet-stream", pieces)
        .unhurried()
        .holding((permit, turn)))
}
