//! The async peer: the same protocol, the same messages, two processes, as one would write it with
//! tokio.
//!
//! Deliberately what its own authors would choose: a multi-thread runtime with its default
//! settings, axum for what listens, tokio-tungstenite and reqwest for what connects, a DashMap of
//! oneshots for what is pending, a writer task that flushes once for all that is queued, a spawned
//! task for each event, serde's derive for the bytes, sqlx for PostgreSQL. TCP_NODELAY is set on
//! both sides of everything. It has what the figures need and no supervision, quotas, bans or
//! limits, all of which cost us and not it.

pub mod db;
pub mod master;
#[cfg(test)]
mod tests;
pub mod types;
pub mod vm;
pub mod worker;

use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Sink, SinkExt};
use serde::Serialize;
use tokio::sync::mpsc;

/// The largest message, either way, in bytes: the protocol's.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Messages that may wait for the writer task; who sends more waits.
pub const QUEUE_MESSAGES: usize = 1024;

/// What a dispatch may take, as ours may.
pub const DEADLINE: Duration = Duration::from_secs(35);

/// A tokio runtime with its default settings: as many threads as there are processors.
pub fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

/// A message's bytes.
pub fn to_bytes<T: Serialize>(message: &T) -> Result<Bytes, String> {
    rmp_serde::to_vec(message).map(Bytes::from).map_err(|error| error.to_string())
}

/// The writer task: feeds what is queued and flushes once.
pub async fn write_queued<S>(mut sink: S, mut queue_rx: mpsc::Receiver<Bytes>)
where
    S: Sink<Bytes> + Unpin,
{
    while let Some(first) = queue_rx.recv().await {
        if sink.feed(first).await.is_err() {
            return;
        }
        while let Ok(next) = queue_rx.try_recv() {
            if sink.feed(next).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}
