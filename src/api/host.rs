//! `GET /i/host`: a program of the owner's serves names that templates call (`ctx.Host`), over one
//! WebSocket with a JSON text for each call and each answer.
//!
//! The program shows a token that is made for the names it may serve and is good for nothing else.
//! What becomes of a call is `pool/hosts`' business; here is how the connection speaks. Two threads
//! of its link for each, owned by `served_links`, with places of their own.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::error::ApiError;
use super::event_line::STOPS;
use super::host_line::{answer_of, wanted};
use super::served_links::ServedLink;
use super::{Api, Call, token};
use crate::base::limits::{HOST_CREDITS_MAX, HOST_QUEUE_BYTES};
use crate::base::sync::Lock;
use crate::net::http::{Body, Response};
use crate::net::link::{CloseCause, LinkLimits, LinkSender, WeakLinkSender, close_code};
use crate::pool::{HostLink, HostRefusal, Hosts};
use crate::wire::data::TenantId;

/// The program may not serve what it wants to (interface of `/i/host`).
const NOT_SERVED: u16 = 4003;

/// By then a program has said what it serves.
const SERVE_WITHIN: Duration = Duration::from_secs(10);

/// How often deadlines of calls are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Lines that cannot be read, or come too early, before the connection ends.
const GARBAGE_MAX: u32 = 16;

pub(super) fn host(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let (user_id, may_serve) = api.authenticate_by(call.head, token::verify_serving)?;
    let hosts = api.ready.messages().hosts().clone();
    let limits = LinkLimits {
        queue_messages: 2 * HOST_CREDITS_MAX,
        queue_bytes: HOST_QUEUE_BYTES,
        ..LinkLimits::default()
    };
    api.host_links.open(api, call, body, limits, move |link| {
        let (link, opened) = (link.downgrade(), Instant::now());
        let (number, garbage) = (OnceLock::new(), Lock::default());
        Arc::new(HostSession { link, opened, hosts, user_id, may_serve, number, garbage })
    })
}

/// One connection, as its threads and the calls see it.
struct HostSession {
    link: WeakLinkSender,
    opened: Instant,
    hosts: Arc<Hosts>,
    user_id: u64,
    may_serve: Vec<String>,
    /// Among the hosts, once it has said what it serves.
    number: OnceLock<u64>,
    garbage: Lock<u32>,
}

impl HostSession {
    /// Does what the first line says.
    fn serve(self: &Arc<Self>, text: &str) -> Result<(), (u16, String)> {
        let (names, credits) = wanted(text).map_err(|why| (close_code::POLICY, why))?;
        if let Some(name) = names.iter().find(|name| !self.may_serve.contains(name)) {
            return Err((NOT_SERVED, format!("the token is not for {name:?}")));
        }
        let link: Arc<dyn HostLink> = self.clone();
        let registered = self.hosts.register(self.user_id, names, credits, link);
        let number = registered.map_err(|refusal| match refusal {
            HostRefusal::Taken(name) => (NOT_SERVED, format!("another user serves {name:?}")),
            HostRefusal::Full => (close_code::POLICY, "too many host processes".to_owned()),
        })?;
        // Only the reader thread sets it, once.
        let _ = self.number.set(number);
        Ok(())
    }

    fn count_garbage(&self, why: &str) {
        let count = {
            let mut garbage = self.garbage.lock();
            *garbage += 1;
            *garbage
        };
        if count > GARBAGE_MAX {
            self.close(close_code::UNDECODABLE, "too many lines that cannot be read");
        } else {
            self.say(problem(why));
        }
    }

    fn say(&self, text: String) {
        if let Some(link) = self.link.upgrade()
            && link.send_text(text).is_err()
        {
            link.abort(CloseCause::SlowPeer);
        }
    }

    fn close(&self, code: u16, why: &str) {
        self.say(problem(why));
        self.link.upgrade().iter().for_each(|link| link.close(code));
    }

    fn leave(&self) {
        if let Some(&number) = self.number.get() {
            self.hosts.gone(number);
        }
    }
}

impl HostLink for HostSession {
    fn welcome(&self) {
        self.say("{\"ok\":true}".to_owned());
    }

    fn send(&self, tenant: TenantId, text: String) -> bool {
        self.link.upgrade().is_some_and(|link| link.send_text_for(tenant, text).is_ok())
    }

    fn wake(&self) {
        self.link.upgrade().iter().for_each(LinkSender::beat_now);
    }
}

impl ServedLink for HostSession {
    fn take_line(self: Arc<Self>, text: &str) {
        match self.number.get() {
            Some(&number) => match answer_of(text) {
                Ok((call, result)) => {
                    *self.garbage.lock() = 0;
                    if !self.hosts.answered(number, call, result) {
                        self.close(close_code::POLICY, "no call waits for these answers");
                    }
                }
                Err(why) => self.count_garbage(&why),
            },
            None => match self.serve(text) {
                Ok(()) => {}
                Err((code, why)) => self.close(code, &why),
            },
        }
    }

    /// Ends calls that are overdue, and a connection that serves nothing.
    fn look(self: Arc<Self>, now: Instant, at: Instant) -> Instant {
        let serves_by = self.opened + SERVE_WITHIN;
        match self.number.get() {
            Some(&number) if self.hosts.expire(number, now) => at.min(now + LOOK_EVERY),
            Some(_) => at,
            None if now >= serves_by => {
                self.link.upgrade().iter().for_each(|link| link.close(close_code::POLICY));
                at
            }
            None => at.min(serves_by),
        }
    }

    fn gone(&self, cause: &CloseCause) {
        log::info!("a host process of user {} has gone: {cause}", self.user_id);
        self.leave();
    }

    /// Not yet: what is in flight may still call.
    fn say_goodbye(&self, _: &str) {}

    fn end(&self) {
        self.say(format!("{{\"goodbye\":{{\"reason\":\"{STOPS}\"}}}}"));
        self.leave();
        self.link.upgrade().iter().for_each(|link| link.close(close_code::GOING_AWAY));
    }
}

fn problem(why: &str) -> String {
    format!("{{\"error\":{{\"message\":{}}}}}", serde_json::Value::from(why))
}
