//! The peer's way to PostgreSQL: reqwest over one HTTP/2 connection to axum, sqlx behind it, the
//! tables that `migrate` makes.
//!
//! The statements are those by which the async reference reads and writes a record: by owner, key
//! and scopes. No quotas, no locks, no rules. What the benchmark does not ask for is answered 404.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::types::Json;

use super::master::{Ident, Shared};
use super::types::{Id, KeyValueOp, KhronosValue, KvRecord, Snowflake, TenantState};

const GET: &str = "SELECT id, key, value, scopes, created_at, last_updated_at FROM tenant_kv
     WHERE owner_id = $1 AND owner_type = $2 AND key = $3 AND scopes = $4";

const SET: &str = "INSERT INTO tenant_kv (id, owner_id, owner_type, key, value, scopes, created_at, last_updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, now(), now()) ON CONFLICT (owner_id, owner_type, key, scopes)
     DO UPDATE SET value = EXCLUDED.value, last_updated_at = EXCLUDED.last_updated_at";

type Row =
    (String, String, Json<KhronosValue>, Vec<String>, Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// The data layer of a master.
pub struct Store {
    pool: PgPool,
    ids: AtomicU64,
}

impl Store {
    /// With as many connections as our master has, and otherwise sqlx's defaults.
    pub async fn open(url: &str) -> Result<Self, String> {
        let options = PgPoolOptions::new()
            .max_connections(mesophyll::base::limits::POSTGRES_CONNECTIONS as u32);
        let pool = options.connect(url).await.map_err(|error| error.to_string())?;
        Ok(Self { pool, ids: AtomicU64::new(mesophyll::base::random::u64()) })
    }

    async fn get(
        &self,
        owner: &KvQuery,
        scopes: &[String],
        key: &str,
    ) -> Result<Option<KvRecord>, sqlx::Error> {
        let get = sqlx::query_as(GET)
            .bind(&owner.tenant_id)
            .bind(&owner.tenant_type)
            .bind(key)
            .bind(scopes);
        let row: Option<Row> = get.fetch_optional(&self.pool).await?;
        Ok(row.map(|(id, key, Json(value), scopes, created_at, last_updated_at)| KvRecord {
            id,
            key,
            value,
            scopes,
            created_at,
            last_updated_at,
        }))
    }

    async fn set(
        &self,
        owner: &KvQuery,
        scopes: &[String],
        key: &str,
        value: KhronosValue,
    ) -> Result<(), sqlx::Error> {
        let id = format!("{:024x}", self.ids.fetch_add(1, Ordering::Relaxed));
        let set =
            sqlx::query(SET).bind(id).bind(&owner.tenant_id).bind(&owner.tenant_type).bind(key);
        set.bind(Json(value)).bind(scopes).execute(&self.pool).await.map(drop)
    }

    async fn states(&self) -> Result<HashMap<Id, TenantState>, sqlx::Error> {
        let query = "SELECT owner_id, owner_type, events, data FROM tenant_state";
        let rows: Vec<(String, String, Vec<String>, Json<serde_json::Value>)> =
            sqlx::query_as(query).fetch_all(&self.pool).await?;
        let states = rows.into_iter().filter_map(|(id, kind, events, Json(data))| {
            let snowflake = Snowflake(id.parse().ok()?);
            let id = if kind == "user" { Id::User(snowflake) } else { Id::Guild(snowflake) };
            Some((id, TenantState { events, data }))
        });
        Ok(states.collect())
    }
}

#[derive(Deserialize)]
pub struct KvQuery {
    id: usize,
    token: String,
    tenant_type: String,
    tenant_id: String,
}

/// `POST /db/kv`.
pub async fn kv(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<KvQuery>,
    body: Bytes,
) -> Response {
    if let Err(status) = shared.check(query.id, &query.token) {
        return status.into_response();
    }
    let Some(store) = &shared.store else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let Ok(op) = rmp_serde::from_slice(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let answer = match op {
        KeyValueOp::Get { scopes, key } => {
            store.get(&query, &scopes, &key).await.map(|record| encoded(&record))
        }
        KeyValueOp::Set { scopes, key, value } => {
            store.set(&query, &scopes, &key, value).await.map(|()| StatusCode::OK.into_response())
        }
        KeyValueOp::ListScopes {} | KeyValueOp::Delete { .. } | KeyValueOp::Find { .. } => {
            return StatusCode::NOT_FOUND.into_response();
        }
    };
    answer.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// `GET /db/tenant-states`; a master without a store has none.
pub async fn tenant_states(State(shared): State<Arc<Shared>>, Query(_): Query<Ident>) -> Response {
    match &shared.store {
        None => encoded(&HashMap::<Id, TenantState>::new()),
        Some(store) => match store.states().await {
            Ok(states) => encoded(&states),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> Response {
    match rmp_serde::to_vec(value) {
        Ok(bytes) => bytes.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A worker's client: clones share one connection, as HTTP/2 lets them.
#[derive(Clone)]
pub struct DbClient {
    client: reqwest::Client,
    base: String,
    ident: String,
}

impl DbClient {
    pub fn new(master: &str, worker: usize, token: &str) -> Result<Self, String> {
        let client =
            reqwest::Client::builder().http2_prior_knowledge().tcp_nodelay(true).no_proxy().build();
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            base: format!("http://{master}"),
            ident: format!("id={worker}&token={token}"),
        })
    }

    /// One operation on a tenant's records; the answer's bytes.
    pub async fn kv(&self, id: Id, op: &KeyValueOp) -> Result<Bytes, String> {
        let (kind, snowflake) = (id.kind(), id.snowflake());
        let url =
            format!("{}/db/kv?{}&tenant_type={kind}&tenant_id={snowflake}", self.base, self.ident);
        let body = rmp_serde::to_vec(op).map_err(|error| error.to_string())?;
        self.ask(self.client.post(url).body(body)).await
    }

    pub async fn kv_get(
        &self,
        id: Id,
        scopes: Vec<String>,
        key: String,
    ) -> Result<Option<KvRecord>, String> {
        let answer = self.kv(id, &KeyValueOp::Get { scopes, key }).await?;
        rmp_serde::from_slice(&answer).map_err(|error| error.to_string())
    }

    pub async fn tenant_states(&self) -> Result<HashMap<Id, TenantState>, String> {
        let answer = self
            .ask(self.client.get(format!("{}/db/tenant-states?{}", self.base, self.ident)))
            .await?;
        rmp_serde::from_slice(&answer).map_err(|error| error.to_string())
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Bytes, String> {
        let response = request.send().await.and_then(reqwest::Response::error_for_status);
        response
            .map_err(|error| error.to_string())?
            .bytes()
            .await
            .map_err(|error| error.to_string())
    }
}
