//! `/i/broadcast`: an event for every tenant that is subscribed to it: begun, shown and stopped.
//!
//! In a cluster the master that is asked has all of them do their parts, for the shards that each
//! holds at that moment. As these are told to each, no tenant is of two parts, wherever its shard
//! goes meanwhile. Another master asks of this one its own part only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::cluster::{ForwardOutcome, HOP, PeerAnswer, PeerRequest};
use super::dispatch::event_of;
use super::error::{ApiError, Code};
use super::request::{Fields, Whole};
use super::{Api, Call, admission::Permit, text};
use crate::base::limits::{API_BODY_MAX_BYTES, BROADCAST_PEER_TIMEOUT, BROADCAST_RATE_MAX};
use crate::base::random;
use crate::cluster::{OtherMaster, ShardHolder};
use crate::net::http::{Body, Method, Response};
use crate::pool::{BroadcastError, BroadcastOrder, BroadcastReport};
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{CreateEvent, EventData};
use crate::wire::json;

/// How a broadcast stands at all masters.
#[derive(Serialize, Deserialize)]
pub(crate) struct BroadcastAnswer {
    #[serde(flatten)]
    pub(crate) all: BroadcastReport,
    pub(crate) masters: Vec<BroadcastPart>,
}

/// A master's part in a broadcast.
#[derive(Serialize, Deserialize)]
pub(crate) struct BroadcastPart {
    /// `None` of a master that has no name, and of tenants that no master has.
    pub(crate) master: Option<String>,
    pub(crate) part: Option<BroadcastReport>,
    /// Why the part is not known, or was not begun.
    pub(crate) error: Option<String>,
}

/// What masters tell each other to begin.
#[derive(Serialize)]
struct ForwardedBroadcast<'b> {
    id: &'b str,
    name: &'b str,
    data: &'b RawValue,
    only_live: bool,
    per_second: u32,
    shards: Vec<u16>,
}

impl From<BroadcastError> for ApiError {
    fn from(error: BroadcastError) -> Self {
        let code = match error {
            BroadcastError::UnderWay => Code::Conflict,
            BroadcastError::Stopping | BroadcastError::Io(_) => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

pub(super) fn start(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let (permit, bytes) = api.read_body(None, body, API_BODY_MAX_BYTES)?;
    let is_peer = api.is_asked_by_peer(call, &bytes)?;
    let mut fields = Fields::of(&bytes, r#"{"name": …, "data": …}"#)?;
    let event = event_of(fields.name()?, None, fields.json("data")?, 0)?;
    let only_live = fields.optional("only_live", "true or false")?.unwrap_or(false);
    let rate = rate(&mut fields)?;
    let told = if is_peer { Some((fields.text("id")?, shards(&mut fields)?)) } else { None };
    fields.finish()?;
    drop(bytes);
    if let Some((id, shards)) = told {
        let order = BroadcastOrder { id, event, only_live, rate, shards };
        return text::answer(202, &api.ready.broadcasts().start(order)?);
    }
    let id = format!("{:016x}", random::u64());
    let order = BroadcastOrder { id, event, only_live, rate, shards: ShardSet::full() };
    api.start_everywhere(call, order, permit)
}

/// How many tenants a second each worker gets.
fn rate(fields: &mut Fields<'_>) -> Result<u32, ApiError> {
    let rate = fields.optional("per_second", "a number")?;
    let rate = rate.map_or(Some(BROADCAST_RATE_MAX), |Whole(rate)| u32::try_from(rate).ok());
    rate.filter(|rate| (1..=BROADCAST_RATE_MAX).contains(rate)).ok_or_else(|| {
        let text = format!("\"per_second\" is a number from 1 to {BROADCAST_RATE_MAX}");
        ApiError::bad_request(text)
    })
}

/// The shards that another master names.
fn shards(fields: &mut Fields<'_>) -> Result<ShardSet, ApiError> {
    let numbers: Vec<u16> = fields.typed("shards", "a list of shards")?;
    let shards: Option<ShardSet> = numbers.into_iter().map(Shard::new).collect();
    shards.ok_or_else(|| ApiError::bad_request("the field \"shards\" is not a list of shards"))
}

pub(super) fn show(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let permit = api.admit_without_body(body)?;
    let is_peer = api.is_asked_by_peer(call, &[])?;
    api.report_everywhere(call, is_peer, 200, permit)
}

pub(super) fn cancel(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let permit = api.admit_without_body(body)?;
    let is_peer = api.is_asked_by_peer(call, &[])?;
    api.ready.broadcasts().cancel();
    api.report_everywhere(call, is_peer, 202, permit)
}

impl Api {
    /// Whether another master asks, which has to prove it.
    fn is_asked_by_peer(&self, call: &Call<'_>, body: &[u8]) -> Result<bool, ApiError> {
        let hop = call.head.header(HOP).filter(|_| self.ready.cluster().is_some());
        hop.map(|hop| self.check_hop(hop, call, body)).transpose().map(|hop| hop.is_some())
    }

    /// Begins this master's part, and has each other one begin its own, once.
    ///
    /// # Blocks
    /// Until each has answered; for `BROADCAST_PEER_TIMEOUT` each at most.
    fn start_everywhere(
        &self,
        call: &Call<'_>,
        order: BroadcastOrder,
        mut permit: Permit,
    ) -> Result<Response, ApiError> {
        let holders = self.holders();
        let own = holders.iter().find(|holder| holder.is_this);
        let shards = match self.ready.cluster() {
            Some(_) => own.map_or_else(ShardSet::default, |own| own.shards),
            None => ShardSet::full(),
        };
        let begun = self.ready.broadcasts().start(BroadcastOrder { shards, ..order.clone() })?;
        let mut parts = vec![self.own_part(begun)];
        let mut nobodys = ShardSet::full().without(&shards);
        for holder in holders.iter().filter(|holder| !holder.is_this) {
            nobodys = nobodys.without(&holder.shards);
            let body = forwarded(&order, &holder.shards)?;
            parts.push(self.ask_part(holder, Method::Post, call, &body, &mut permit));
        }
        if !nobodys.is_empty() {
            let error = format!("{} of 509 shards have no master at the moment", nobodys.len());
            parts.push(BroadcastPart { master: None, part: None, error: Some(error) });
        }
        answer(202, parts)
    }

    /// Answers with this master's part to another one, and else with the sum of all.
    ///
    /// # Blocks
    /// As [`Api::start_everywhere`].
    fn report_everywhere(
        &self,
        call: &Call<'_>,
        is_peer: bool,
        status: u16,
        mut permit: Permit,
    ) -> Result<Response, ApiError> {
        let own = self.ready.broadcasts().report();
        if is_peer {
            return text::answer(status, &own.ok_or_else(none)?);
        }
        let mut parts: Vec<_> = own.into_iter().map(|own| self.own_part(own)).collect();
        let method = call.head.method();
        for holder in self.holders().iter().filter(|holder| !holder.is_this) {
            parts.push(self.ask_part(holder, method, call, &[], &mut permit));
        }
        answer(status, parts)
    }

    fn holders(&self) -> Vec<ShardHolder> {
        self.ready.cluster().map(|cluster| cluster.table.holders()).unwrap_or_default()
    }

    fn own_part(&self, report: BroadcastReport) -> BroadcastPart {
        let master = self.ready.cluster().map(|cluster| cluster.name.clone());
        BroadcastPart { master, part: Some(report), error: None }
    }

    /// Asks another master about its part.
    fn ask_part(
        &self,
        holder: &ShardHolder,
        method: Method,
        call: &Call<'_>,
        body: &[u8],
        permit: &mut Permit,
    ) -> BroadcastPart {
        // It is not asked for a shard that it has to hold.
        let other = OtherMaster { name: holder.name.clone(), api: holder.api.clone(), epoch: 0 };
        let asked = PeerRequest { method, target: call.head.path(), body };
        let answer = self.ask_master(&other, &asked, call, permit, BROADCAST_PEER_TIMEOUT);
        let answer = answer.map_err(|outcome| why(outcome).to_owned());
        let (part, error) = match answer.and_then(|answer| read(method, answer)) {
            Ok(part) => (part, None),
            Err(error) => (None, Some(error)),
        };
        BroadcastPart { master: Some(other.name), part, error }
    }
}

fn forwarded(order: &BroadcastOrder, shards: &ShardSet) -> Result<Vec<u8>, ApiError> {
    let unwritable = || ApiError::new(Code::InternalError, "the event cannot be written as JSON");
    let CreateEvent { name, data: EventData::Json(data), .. } = &order.event else {
        return Err(unwritable());
    };
    let data = json::json_from_encoded(data).map_err(|_| unwritable())?;
    let data = RawValue::from_string(data).map_err(|_| unwritable())?;
    let BroadcastOrder { id, only_live, rate, .. } = order;
    let (only_live, per_second) = (*only_live, *rate);
    let shards = shards.iter().map(Shard::number).collect();
    let body = ForwardedBroadcast { id, name, data: &data, only_live, per_second, shards };
    serde_json::to_vec(&body).map_err(|_| unwritable())
}

/// What another master says of its part; `None`: it has none.
fn read(method: Method, answer: PeerAnswer) -> Result<Option<BroadcastReport>, String> {
    let PeerAnswer { status, body, .. } = answer;
    match status {
        200..=299 => {
            serde_json::from_slice(&body).map_err(|_| "it cannot be understood".to_owned())
        }
        404 if method != Method::Post => Ok(None),
        409 => Err("another broadcast is under way there".to_owned()),
        status => Err(format!("it answers {status}")),
    }
}

fn why(outcome: ForwardOutcome) -> &'static str {
    match outcome {
        ForwardOutcome::NotSent => "it cannot be reached",
        ForwardOutcome::Refused => "it does not take this master for one of its cluster",
        ForwardOutcome::NoRoom => "there is no room for its answer",
        ForwardOutcome::Answered | ForwardOutcome::NotOwner | ForwardOutcome::Unknown => {
            "it does not answer, and may have done it"
        }
    }
}

fn none() -> ApiError {
    ApiError::new(Code::NotFound, "there was no broadcast since the master started")
}

/// Adds up the parts of the broadcast that began last; parts of others are left out.
fn answer(status: u16, mut parts: Vec<BroadcastPart>) -> Result<Response, ApiError> {
    let known = parts.iter().filter_map(|part| part.part.as_ref());
    let newest = known.min_by_key(|part| part.since_ms).ok_or_else(none)?;
    let outcomes = BTreeMap::new();
    let empty = BroadcastReport { total: 0, done: 0, outcomes, ..newest.clone() };
    parts.retain(|one| {
        one.error.is_some() || one.part.as_ref().is_some_and(|part| part.id == empty.id)
    });
    let all = parts.iter().filter_map(|one| one.part.as_ref()).fold(empty, |mut all, part| {
        all.add(part);
        all
    });
    text::answer(status, &BroadcastAnswer { all, masters: parts })
}
