//! The peer's master: `/ws` for its workers, the dispatches that wait for them, and `/db/*`. Its
//! callers are tasks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use dashmap::DashMap;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::db::{self, Store};
use super::types::{
    ClientMessage, CreateEvent, Dispatch, EventData, Id, KhronosValue, ServerMessage, Snowflake,
};
use super::{DEADLINE, MESSAGE_MAX_BYTES, QUEUE_MESSAGES, to_bytes, write_queued};

const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a worker answers.
pub type Answer = Result<KhronosValue, String>;

/// A running master; a cheap handle.
#[derive(Clone)]
pub struct Master {
    shared: Arc<Shared>,
}

pub struct Shared {
    pub token: String,
    pub store: Option<Store>,
    conns: Vec<RwLock<Option<Arc<Conn>>>>,
    next_id: AtomicU64,
}

/// A worker's connection.
struct Conn {
    pending: DashMap<u64, oneshot::Sender<Answer>>,
    queue_tx: mpsc::Sender<axum::body::Bytes>,
    opened: Instant,
    heartbeat_at_ms: AtomicU64,
}

/// Forgets a dispatch whose caller goes away.
struct PendingGuard<'c>(&'c Conn, u64);

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        self.0.pending.remove(&self.1);
    }
}

#[derive(Deserialize)]
pub struct Ident {
    id: usize,
    token: String,
}

impl Master {
    /// Listens, and serves from now on.
    pub async fn start(
        workers: usize,
        token: &str,
        store: Option<Store>,
    ) -> Result<(Self, SocketAddr), String> {
        let shared = Arc::new(Shared {
            token: token.to_owned(),
            store,
            conns: (0..workers).map(|_| RwLock::default()).collect(),
            next_id: AtomicU64::new(1),
        });
        let app = Router::new()
            .route("/ws", get(ws))
            .route("/db/kv", post(db::kv))
            .route("/db/tenant-states", get(db::tenant_states))
            .route("/i/dispatch-event/{guild_id}", post(dispatch_event))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let listener = listener.tap_io(|socket| {
            let _ = socket.set_nodelay(true);
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok((Self { shared }, address))
    }

    /// Whether every worker has sent a heartbeat.
    pub fn is_ready(&self) -> bool {
        (0..self.shared.conns.len()).all(|worker| {
            self.shared
                .conn(worker)
                .is_some_and(|conn| conn.heartbeat_at_ms.load(Ordering::Relaxed) > 0)
        })
    }

    fn conn_of(&self, id: Id) -> Result<Arc<Conn>, String> {
        let worker = (id.snowflake() >> 22) % self.shared.conns.len() as u64;
        self.shared.conn(worker as usize).ok_or_else(|| "no worker".to_owned())
    }

    /// Runs a tenant's template on an event and waits for its result.
    pub async fn dispatch_event(&self, id: Id, event: &CreateEvent) -> Answer {
        let conn = self.conn_of(id)?;
        let req_id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer_tx, answer_rx) = oneshot::channel();
        conn.pending.insert(req_id, answer_tx);
        let _guard = PendingGuard(&conn, req_id);
        let message = to_bytes(&Dispatch::DispatchEvent { id, event, req_id: Some(req_id) })?;
        conn.queue_tx.send(message).await.map_err(|_| "the link has ended")?;
        match tokio::time::timeout(DEADLINE, answer_rx).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the link has ended".to_owned()),
            Err(_) => Err("deadline".to_owned()),
        }
    }

    /// Hands an event over without waiting for its result.
    pub async fn dispatch_event_nowait(&self, id: Id, event: &CreateEvent) -> Result<(), String> {
        let conn = self.conn_of(id)?;
        let message = to_bytes(&Dispatch::DispatchEvent { id, event, req_id: None })?;
        conn.queue_tx.send(message).await.map_err(|_| "the link has ended".to_owned())
    }
}

impl Shared {
    fn conn(&self, worker: usize) -> Option<Arc<Conn>> {
        self.conns[worker].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_conn(&self, worker: usize, conn: Option<Arc<Conn>>) {
        *self.conns[worker].write().unwrap_or_else(PoisonError::into_inner) = conn;
    }

    /// A worker is known and its token right.
    pub fn check(&self, worker: usize, token: &str) -> Result<(), StatusCode> {
        if worker >= self.conns.len() {
            return Err(StatusCode::NOT_FOUND);
        }
        if token == self.token { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
    }
}

/// What a dispatch through HTTP carries.
#[derive(Deserialize)]
struct Asked {
    name: String,
    data: serde_json::Value,
}

/// A dispatch of a service, as ours has it: JSON in, and the typed value's JSON out. The token is
/// only compared.
async fn dispatch_event(
    State(shared): State<Arc<Shared>>,
    Path(guild_id): Path<u64>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, (StatusCode, String)> {
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if authorization != Some(shared.token.as_bytes()) {
        return Err((StatusCode::UNAUTHORIZED, "who are you?".to_owned()));
    }
    let refused = |error: serde_json::Error| (StatusCode::BAD_REQUEST, error.to_string());
    let Asked { name, data } = serde_json::from_slice(&body).map_err(refused)?;
    let data = EventData::KhronosValue(data.into());
    let event = CreateEvent { name, author: None, data };
    let answer = Master { shared }.dispatch_event(Id::Guild(Snowflake(guild_id)), &event).await;
    let failed = |error: String| (StatusCode::BAD_GATEWAY, error);
    let text = serde_json::to_vec(&answer.map_err(failed)?).map_err(refused)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

async fn ws(
    State(shared): State<Arc<Shared>>,
    Query(ident): Query<Ident>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if let Err(status) = shared.check(ident.id, &ident.token) {
        return status.into_response();
    }
    let upgrade = upgrade.max_message_size(MESSAGE_MAX_BYTES).max_frame_size(MESSAGE_MAX_BYTES);
    upgrade.on_upgrade(move |socket| serve(shared, ident.id, socket))
}

async fn serve(shared: Arc<Shared>, worker: usize, socket: WebSocket) {
    let (sink, mut stream) = socket.split();
    let (queue_tx, queue_rx) = mpsc::channel(QUEUE_MESSAGES);
    let conn = Arc::new(Conn {
        pending: DashMap::new(),
        queue_tx,
        opened: Instant::now(),
        heartbeat_at_ms: AtomicU64::new(0),
    });
    let sink = sink.with(|bytes| async { Ok::<_, axum::Error>(Message::Binary(bytes)) });
    tokio::spawn(async move { write_queued(std::pin::pin!(sink), queue_rx).await });
    let hello = ServerMessage::Hello { heartbeat_interval_ms: HEARTBEAT.as_millis() as u64 };
    if let Ok(hello) = to_bytes(&hello) {
        let _ = conn.queue_tx.send(hello).await;
    }
    shared.set_conn(worker, Some(conn.clone()));
    let reading = async {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Binary(bytes) = message {
                conn.on_message(&bytes);
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = conn.silent() => {}
    }
    shared.set_conn(worker, None);
    // What waits is told by the drop of its sender.
    conn.pending.clear();
}

impl Conn {
    fn on_message(&self, bytes: &[u8]) {
        match rmp_serde::from_slice(bytes) {
            Ok(ClientMessage::DispatchResponse { req_id, result }) => {
                if let Some((_, answer_tx)) = self.pending.remove(&req_id) {
                    let _ = answer_tx.send(result);
                }
            }
            Ok(ClientMessage::Heartbeat {}) => {
                self.heartbeat_at_ms
                    .store((self.opened.elapsed().as_millis() as u64).max(1), Ordering::Relaxed);
            }
            // A variant of a newer worker, such as ours.
            Err(_) => {}
        }
    }

    /// Ends when three heartbeats were missed.
    async fn silent(&self) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let at = Duration::from_millis(self.heartbeat_at_ms.load(Ordering::Relaxed));
            if self.opened.elapsed().saturating_sub(at) > 3 * HEARTBEAT {
                return;
            }
        }
    }
}
