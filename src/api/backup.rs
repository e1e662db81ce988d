//! `GET /i/store-backup`: everything in the store as it is at this moment, streamed, while
//! everybody goes on writing.
//!
//! One at a time: each holds a snapshot, whose pages the store cannot reuse, for as long as its
//! reader takes.

use std::time::Instant;

use super::error::{ApiError, Code};
use super::{Api, Call};
use crate::base::error::DbError;
use crate::base::limits::BACKUP_TIME_MAX;
use crate::base::sync::CountedPermit;
use crate::net::http::{Body, Response};
use crate::store::backup;

pub(super) fn store_backup(
    api: &Api,
    _call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let permit = api.admit_without_body(body)?;
    let busy = || ApiError::new(Code::Busy, "a backup is under way already");
    let turn = CountedPermit::take(&api.backups, 1).ok_or_else(busy)?;
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
