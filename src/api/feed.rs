//! `GET /i/feed`: what tenants publish, as Server-Sent Events, many tenants on one connection; and
//! `GET /i/logs`: what their scripts log, likewise.
//!
//! Runs on the connection's thread, which waits for news in its [`FeedReader`]; the end of the API
//! ends that wait. Readers have places of their own beside those of other requests.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Instant;

use super::cluster::{HOP, Upstreams};
use super::error::{ApiError, Code};
use super::{Api, Call, GATHER_BYTES, flag};
use crate::base::limits::{
    FEED_KEEP, FEED_LOOK_EVERY, FEED_PEERS_MAX, FEED_TENANTS_MAX, FEEDS_MAX,
};
use crate::base::sync::CountedPermit;
use crate::feeds::{self, FeedFilter, FeedNews, FeedReader, FeedStart, Positions};
use crate::net::http::{Body, RequestHead, Response};
use crate::wire::data::TenantId;

pub(super) fn feed(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    stream(api, call, body, true, |wanted, after| api.ready.feeds().read(wanted, after))
}

pub(super) fn logs(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let (follows, only_new) = (flag(call.head, FOLLOW)?, flag(call.head, ONLY_NEW)?);
    let start = if only_new { FeedStart::Now } else { FeedStart::Kept };
    stream(api, call, body, follows, |wanted, after| {
        api.ready.feeds().read_log(wanted, after.map_or(start, FeedStart::After))
    })
}

/// A stream of logs goes on with what comes.
pub(super) const FOLLOW: &str = "follow";

/// A stream of logs begins with what comes.
pub(super) const ONLY_NEW: &str = "only_new";

/// Answers with news, which `read` begins to read. One that does not follow ends with what is kept.
fn stream(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
    follows: bool,
    read: impl FnOnce(FeedFilter, Option<&Positions>) -> FeedReader,
) -> Result<Response, ApiError> {
    drop(api.admit_without_body(body)?);
    let cluster = api.ready.cluster();
    let hop = call.head.header(HOP).filter(|_| cluster.is_some());
    if let Some(hop) = hop {
        api.check_hop(hop, call, &[])?;
    }
    let wanted = wanted(call.head)?;
    let after = match call.head.header("last-event-id").filter(|id| !id.is_empty()) {
        Some(id) => Some(Positions::parse(id).ok_or_else(|| {
            ApiError::bad_request("Last-Event-ID is not the id of an event of a feed")
        })?),
        None => None,
    };
    let (taken, most) = match hop {
        Some(_) => (&api.feed_peers, FEED_PEERS_MAX),
        None => (&api.feed_readers, FEEDS_MAX),
    };
    let place = CountedPermit::take(taken, most).ok_or_else(|| {
        ApiError::new(Code::Busy, format!("{most} readers of feeds are there already"))
    })?;
    // Before it is asked where the tenants are: from here on it hears of those that leave.
    let reader = read(wanted.clone(), after.as_ref());
    let upstreams = match cluster {
        Some(cluster) => Upstreams::open(api, cluster, call, &wanted, &reader.inlet())?,
        None => Upstreams::default(),
    };
    let positions = Positions::default();
    let keep_at = Instant::now();
    let stream = FeedStream { reader, positions, upstreams, follows, has_begun: false, keep_at };
    Ok(Response::chunked(200, "text/event-stream", stream)
        .live()
        .with_header("X-Accel-Buffering", "no")
        .holding(place))
}

/// What the query asks for.
fn wanted(head: &RequestHead) -> Result<FeedFilter, ApiError> {
    let tenants = match (head.query("tenants"), flag(head, "all")?) {
        (Some(list), false) => Some(list),
        (None, true) => None,
        _ => {
            let text = "a feed is of ?tenants=guild:1,user:2, or of ?all=true";
            return Err(ApiError::bad_request(text));
        }
    };
    let tenant = |text: &str| {
        text.parse::<TenantId>().map_err(|error| {
            ApiError::bad_request(format!("tenants: {error}, with commas between"))
        })
    };
    let topic = |text: &str| {
        feeds::check_topic(text)
            .map_err(|error| ApiError::bad_request(format!("topics: {error}")))
            .map(|()| text.to_owned())
    };
    Ok(FeedFilter {
        tenants: tenants.map(|list| listed("tenants", list, tenant)).transpose()?,
        topics: head.query("topics").map(|list| listed("topics", list, topic)).transpose()?,
    })
}

fn listed<T: Eq + std::hash::Hash>(
    name: &str,
    list: &str,
    one: impl Fn(&str) -> Result<T, ApiError>,
) -> Result<HashSet<T>, ApiError> {
    if list.split(',').count() > FEED_TENANTS_MAX {
        let text = format!("at most {FEED_TENANTS_MAX} {name} can be read on one connection");
        return Err(ApiError::bad_request(text));
    }
    list.split(',').map(one).collect()
}

/// The body of the answer, in pieces that are whole events. An empty one lets the server see
/// whether the reader is still there.
struct FeedStream {
    reader: FeedReader,
    /// What the reader has had.
    positions: Positions,
    upstreams: Upstreams,
    follows: bool,
    has_begun: bool,
    /// When it is told that nothing is to say, if nothing is.
    keep_at: Instant,
}

impl Iterator for FeedStream {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut text = String::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            // A reader that goes before its first event knows where to go on.
            self.positions.advance(self.reader.start());
            self.keep_at = Instant::now() + FEED_KEEP;
            return Some(format!("id: {}\n\n", self.positions).into_bytes());
        }
        self.upstreams.check();
        let now = Instant::now();
        let waits = self.follows || !self.upstreams.are_over();
        let mut deadline = if waits { now + FEED_LOOK_EVERY } else { now };
        while text.len() < GATHER_BYTES {
            match self.reader.next(deadline) {
                FeedNews::Event(item) => {
                    if let Some(at) = &item.at {
                        self.positions.advance(at);
                        let _ = writeln!(text, "id: {}", self.positions);
                    }
                    // A position alone needs its empty line, too.
                    text.push_str(if item.lines.is_empty() { "\n" } else { &item.lines });
                }
                FeedNews::Gap(tenant, lost) => write_gap(&mut text, tenant, lost),
                FeedNews::Moved(tenant) => {
                    self.upstreams.forget(tenant);
                    if !self.follows {
                        continue;
                    }
                    let _ = write!(text, "event: moved\ndata: {{\"tenant\":\"{tenant}\"}}\n\n");
                }
                FeedNews::Quiet | FeedNews::Over if !text.is_empty() => break,
                FeedNews::Quiet if !self.follows && self.upstreams.are_over() => return None,
                FeedNews::Quiet if now < self.keep_at => return Some(Vec::new()),
                FeedNews::Quiet => {
                    text.push_str(": keep\n\n");
                    break;
                }
                FeedNews::Over => return None,
            }
            deadline = now;
        }
        self.keep_at = Instant::now() + FEED_KEEP;
        Some(text.into_bytes())
    }
}

fn write_gap(text: &mut String, tenant: Option<TenantId>, lost: Option<u64>) {
    let tenant = tenant.map_or("null".to_owned(), |tenant| format!("\"{tenant}\""));
    let lost = lost.map_or("null".to_owned(), |lost| lost.to_string());
    // Writing into a String cannot fail.
    let _ = write!(text, "event: gap\ndata: {{\"tenant\":{tenant},\"lost\":{lost}}}\n\n");
}
