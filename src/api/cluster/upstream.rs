//! The feeds of tenants that other masters have, for a reader here: one connection to each of those
//! masters, which ends with the reader's.
//!
//! Each has a thread, `feed-up`, that blocks in reading; it is woken by the end of its agent, and
//! joined by the reader's thread. When another master, or the way to it, is gone, its tenants count
//! as moved: a reader comes back and is told where they are.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::{Agent, Body};

use super::forward::{ForwardHeaders, peer_agent, peer_request};
use super::hop::{ForwardedRequest, HOP, PEER, PeerHop, REFUSED};
use super::routing::{refused_by, unsettled};
use super::{ApiCluster, MASTER};
use crate::api::error::{ApiError, Code};
use crate::api::feed::{FOLLOW, ONLY_NEW};
use crate::api::{Api, Call};
use crate::base::limits::{FEED_KEEP, FORWARD_CONNECT_TIMEOUT, FORWARD_DEADLINE};
use crate::base::thread::{self, OwnedThread};
use crate::cluster::{OtherMaster, ShardPlace, ShardTable};
use crate::feeds::sse::{SseEvent, read_event};
use crate::feeds::{FeedFilter, FeedInlet, FeedItem, Positions};
use crate::wire::data::TenantId;

/// Limit: for another master to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long another master looks for tenants that it is said to have.
const PEER_WAIT: Duration = Duration::from_secs(2);

/// All upstreams of a reader.
#[derive(Default)]
pub(in crate::api) struct Upstreams {
    table: Option<Arc<ShardTable>>,
    all: Vec<Upstream>,
    checked: Option<Instant>,
}

/// The way to one other master. Dropping it ends it.
struct Upstream {
    master: OtherMaster,
    /// Those that have not moved.
    tenants: Vec<TenantId>,
    inlet: FeedInlet,
    agent: Agent,
    _thread: OwnedThread,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.agent.clone().shutdown();
    }
}

impl Upstreams {
    /// Opens what a reader needs, and tells it of tenants that are not here if it is another
    /// master, which is not sent on.
    ///
    /// # Blocks
    /// Until each tenant is somewhere, and the others have answered; seconds at most for each.
    ///
    /// # Errors
    /// A tenant is nowhere, or a master does not give its feed.
    pub(in crate::api) fn open(
        api: &Api,
        cluster: &ApiCluster,
        call: &Call<'_>,
        wanted: &FeedFilter,
        inlet: &FeedInlet,
    ) -> Result<Self, ApiError> {
        let (table, is_peer) = (&cluster.table, call.head.header(HOP).is_some());
        let deadline = Instant::now() + if is_peer { PEER_WAIT } else { FORWARD_DEADLINE };
        let mut elsewhere: BTreeMap<String, (OtherMaster, Vec<TenantId>)> = BTreeMap::new();
        for tenant in wanted.tenants.iter().flatten().copied() {
            let mut place = table.wait(tenant, deadline);
            if is_peer && !matches!(place, ShardPlace::Here(_)) {
                // It may have been handed over to this one just now.
                place = table.wait_for_another(tenant, &place, deadline);
            }
            match place {
                ShardPlace::Here(_) => {}
                _ if is_peer => inlet.push_moved(tenant),
                ShardPlace::There(other) => {
                    let entry = elsewhere.entry(other.api.clone());
                    entry.or_insert_with(|| (other, Vec::new())).1.push(tenant);
                }
                ShardPlace::Unsettled => return Err(unsettled()),
            }
        }
        let open =
            |(master, tenants)| Upstream::open(api, cluster, call, wanted, inlet, master, tenants);
        let all = elsewhere.into_values().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { table: Some(table.clone()), all, checked: None })
    }

    /// No other master has news.
    pub(in crate::api) fn are_over(&self) -> bool {
        self.all.is_empty()
    }

    /// A tenant has moved.
    pub(in crate::api) fn forget(&mut self, tenant: TenantId) {
        for upstream in &mut self.all {
            upstream.tenants.retain(|one| *one != tenant);
        }
        self.all.retain(|upstream| !upstream.tenants.is_empty());
    }

    /// Looks now and then whether tenants are where they were: a master whose machine is gone says
    /// nothing.
    pub(in crate::api) fn check(&mut self) {
        let Some(table) = &self.table else { return };
        let now = Instant::now();
        if self.all.is_empty() || self.checked.is_some_and(|at| now < at + FEED_KEEP) {
            return;
        }
        self.checked = Some(now);
        for Upstream { master, tenants, inlet, .. } in &self.all {
            let has_moved = |place| match place {
                ShardPlace::There(other) => other.api != master.api,
                ShardPlace::Here(_) => true,
                ShardPlace::Unsettled => false,
            };
            let moved = tenants.iter().filter(|tenant| has_moved(table.place(**tenant)));
            moved.for_each(|tenant| inlet.push_moved(*tenant));
        }
    }
}

impl Upstream {
    fn open(
        api: &Api,
        cluster: &ApiCluster,
        call: &Call<'_>,
        wanted: &FeedFilter,
        inlet: &FeedInlet,
        master: OtherMaster,
        tenants: Vec<TenantId>,
    ) -> Result<Self, ApiError> {
        let agent = peer_agent(api.config.peer_tls.as_ref());
        let body = ask(api, cluster, call, wanted, &agent, &master, &tenants)?;
        let (passed, gone, names) = (inlet.clone(), inlet.clone(), tenants.clone());
        let thread = thread::spawn("feed-up", move || {
            let mut from = BufReader::new(body.into_reader());
            while let Ok(Some(event)) = read_event(&mut from) {
                pass_on(&passed, event, &names);
            }
            names.iter().for_each(|tenant| gone.push_moved(*tenant));
        });
        let thread = thread.map_err(|error| {
            log::warn!("no thread for the feed of another master: {error}");
            ApiError::new(Code::Busy, "there is no thread for the feed of another master")
        })?;
        Ok(Self { master, tenants, inlet: inlet.clone(), agent, _thread: thread })
    }
}

/// Has another master begin its feed.
fn ask(
    api: &Api,
    cluster: &ApiCluster,
    call: &Call<'_>,
    wanted: &FeedFilter,
    agent: &Agent,
    master: &OtherMaster,
    tenants: &[TenantId],
) -> Result<Body, ApiError> {
    let list: Vec<String> = tenants.iter().map(TenantId::to_string).collect();
    let mut target = format!("{}?tenants={}", call.head.path(), list.join(","));
    if let Some(topics) = &wanted.topics {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        target.push_str(&format!("&topics={}", topics.join(",")));
    }
    for name in [FOLLOW, ONLY_NEW] {
        if let Some(value) = call.head.query(name) {
            target.push_str(&format!("&{name}={value}"));
        }
    }
    let hop = PeerHop { epoch: master.epoch, from: &cluster.name };
    let signed = ForwardedRequest { method: "GET", target: &target, hop, body: &[] };
    let headers = ForwardHeaders::of(call);
    let last_id = call.head.header("last-event-id").unwrap_or_default();
    let request = peer_request(&master.api, &signed, &headers, &api.config.secret);
    let request = request.header("Last-Event-ID", last_id).body(());
    let name = &master.name;
    let answer = request.map_err(ureq::Error::from).and_then(|request| {
        let request = agent.configure_request(request);
        let request = request
            .timeout_resolve(Some(FORWARD_CONNECT_TIMEOUT))
            .timeout_connect(Some(FORWARD_CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .build();
        agent.run(request)
    });
    let answer = answer.map_err(|error| {
        log::debug!("no feed from the master {name}: {error}");
        let text = format!("master {name}, which has some of the tenants, cannot be reached");
        ApiError::new(Code::Unavailable, text)
    })?;
    let is_refused = answer.headers().get(PEER).is_some_and(|value| value == REFUSED);
    match answer.status().as_u16() {
        200 => Ok(answer.into_body()),
        _ if is_refused => Err(refused_by(api, name)),
        503 => Err(ApiError::new(
            Code::Busy,
            format!("master {name}, which has some of the tenants, has no place for a reader"),
        )
        .with_header(MASTER, name.as_str())),
        status => Err(ApiError::new(
            Code::Unavailable,
            format!("master {name}, which has some of the tenants, answers {status} to a reader"),
        )),
    }
}

/// What is read of the data of an event.
#[derive(Deserialize)]
struct OfTenant {
    tenant: Option<String>,
}

/// Leaves what another master said with the reader.
fn pass_on(inlet: &FeedInlet, event: SseEvent, tenants: &[TenantId]) {
    let named = serde_json::from_str::<OfTenant>(&event.data).ok().and_then(|data| data.tenant);
    let tenant = named.and_then(|name| name.parse().ok()).filter(|one| tenants.contains(one));
    if event.event == "moved" {
        return tenant.into_iter().for_each(|tenant| inlet.push_moved(tenant));
    }
    let at = Positions::parse(&event.id).and_then(|all| all.iter().next().cloned());
    let lines = match event.data.is_empty() {
        true => String::new(),
        false => format!("event: {}\ndata: {}\n\n", event.event, event.data),
    };
    inlet.push(FeedItem::passed_on(tenant, at, lines));
}
