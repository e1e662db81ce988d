//! One operation of a caller on a connection that it borrowed: tried again if that is known to be right, never past its deadline.
//!
//! Runs on the caller's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::pool::{Connection, Loan};
use super::session::{Fault, unavailable, unknown};
use crate::error::DbError;
use crate::limits::{POSTGRES_ATTEMPTS_MAX, POSTGRES_QUEUE_TIMEOUT};

/// Carries an operation out, again if the last attempt is known to have changed nothing.
///
/// # Blocks
/// As the work does, which must not go on after `deadline`; and for another connection, if the one it has was lost.
pub(super) fn carry_out<C: Connection, T>(
    mut loan: Loan<'_, C>,
    deadline: Instant,
    mut work: impl FnMut(&mut C) -> Result<T, Fault>,
) -> Result<T, DbError> {
    for _ in 0..POSTGRES_ATTEMPTS_MAX {
        let until = deadline.min(Instant::now() + POSTGRES_QUEUE_TIMEOUT);
        let Some(connection) = loan.connection(until) else { return Err(unavailable()) };
        match catch_unwind(AssertUnwindSafe(|| work(connection))) {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(Fault::Answer(error))) => return Err(error),
            Ok(Err(Fault::Conflict)) => {}
            Ok(Err(Fault::Lost)) => loan.discard(),
            // A panic may have come anywhere.
            Ok(Err(Fault::Unknown)) | Err(_) => {
                loan.discard();
                return Err(unknown());
            }
        }
    }
    let why = "the database is busy with other changes of the same kind: try again later";
    Err(DbError::Busy(why.to_owned()))
}
