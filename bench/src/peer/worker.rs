//! The peer's worker: one connection to a master, a spawned task for each event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::db::DbClient;
#[cfg(test)]
use super::types::KeyValueOp;
use super::types::{ClientMessage, CreateEvent, EventData, Id, KhronosValue, ServerMessage};
use super::vm::Vms;
use super::{MESSAGE_MAX_BYTES, QUEUE_MESSAGES, to_bytes, write_queued};

/// What becomes of an event.
#[derive(Clone)]
pub enum Handler {
    /// It is its own answer.
    Echo,
    /// It is kept in the database and read again, and what was read is the answer.
    #[cfg(test)]
    Keep(DbClient),
    /// A tenant's template runs on it.
    Luau(Vms),
}

impl Handler {
    async fn handle(self, id: Id, event: CreateEvent) -> Result<KhronosValue, String> {
        match self {
            Handler::Echo => Ok(match event.data {
                EventData::KhronosValue(value) => value,
                // The benchmark sends none.
                EventData::Json(_) | EventData::RawValue(_) => KhronosValue::Null,
            }),
            #[cfg(test)]
            Handler::Keep(db) => {
                let EventData::KhronosValue(value) = event.data else {
                    return Err("the test sends none".to_owned());
                };
                let (scopes, key) = (vec!["kept".to_owned()], event.name);
                let set = KeyValueOp::Set { scopes: scopes.clone(), key: key.clone(), value };
                db.kv(id, &set).await?;
                let record = db.kv_get(id, scopes, key).await?;
                record.map(|record| record.value).ok_or_else(|| "it is not there".to_owned())
            }
            Handler::Luau(vms) => vms.run(id, event).await,
        }
    }
}

/// Where a worker connects, and as whom.
pub struct Config {
    pub master: String,
    pub worker: usize,
    pub token: String,
}

/// Loads the tenant states, connects and serves until the link ends. `handled` counts events.
pub async fn run(config: Config, handler: Handler, handled: Arc<AtomicU64>) -> Result<(), String> {
    let Config { master, worker, token } = config;
    let db = DbClient::new(&master, worker, &token)?;
    let states = db.tenant_states().await?;
    let url = format!("ws://{master}/ws?id={worker}&token={token}");
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_MAX_BYTES));
    // The last argument is TCP_NODELAY.
    let connected = tokio_tungstenite::connect_async_with_config(url, Some(limits), true).await;
    let (socket, _) = connected.map_err(|error| error.to_string())?;
    let (sink, mut stream) = socket.split();
    let (queue_tx, queue_rx) = mpsc::channel(QUEUE_MESSAGES);
    let sink = sink.with(|bytes| async {
        Ok::<_, tokio_tungstenite::tungstenite::Error>(Message::Binary(bytes))
    });
    tokio::spawn(async move { write_queued(std::pin::pin!(sink), queue_rx).await });
    let interval_ms = Arc::new(AtomicU64::new(5000));
    tokio::spawn(heartbeats(queue_tx.clone(), interval_ms.clone()));
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(bytes) = message else { continue };
        match rmp_serde::from_slice(&bytes) {
            Ok(ServerMessage::DispatchEvent { id, event, req_id }) => {
                let (handler, queue_tx, handled) =
                    (handler.clone(), queue_tx.clone(), handled.clone());
                tokio::spawn(async move {
                    let result = handler.handle(id, event).await;
                    handled.fetch_add(1, Ordering::Relaxed);
                    answer(&queue_tx, req_id, result).await;
                });
            }
            Ok(
                ServerMessage::RunScript { req_id, .. } | ServerMessage::DropWorker { req_id, .. },
            ) => {
                answer(&queue_tx, Some(req_id), Err("no part of the benchmark".to_owned())).await;
            }
            Ok(ServerMessage::Hello { heartbeat_interval_ms }) => {
                interval_ms.store(heartbeat_interval_ms, Ordering::Relaxed);
            }
            // A variant of a newer master.
            Err(_) => {}
        }
    }
    drop(states);
    Ok(())
}

async fn answer(
    queue_tx: &mpsc::Sender<axum::body::Bytes>,
    req_id: Option<u64>,
    result: Result<KhronosValue, String>,
) {
    let Some(req_id) = req_id else { return };
    if let Ok(message) = to_bytes(&ClientMessage::DispatchResponse { req_id, result }) {
        let _ = queue_tx.send(message).await;
    }
}

/// The first one at once.
async fn heartbeats(queue_tx: mpsc::Sender<axum::body::Bytes>, interval_ms: Arc<AtomicU64>) {
    let Ok(heartbeat) = to_bytes(&ClientMessage::Heartbeat {}) else { return };
    while queue_tx.send(heartbeat.clone()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(interval_ms.load(Ordering::Relaxed))).await;
    }
}
