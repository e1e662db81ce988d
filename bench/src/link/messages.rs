//! Messages from tenants of one worker to those of another, through the master.
//!
//! The driver is in the first worker. A bare message is over when its sender is told that it was
//! accepted, and an echo gets it; with templates, a round is over when the receiver's template has
//! answered it and the sender's has handled the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mesophyll::dispatch::worker_like::WorkerLike;
use mesophyll::dispatch::{Answer, Cancelled, Job, Request, RequestId};
use mesophyll::protocol::Outbox;
use mesophyll::runtime::{RuntimeStats, TemplateRuntime, TenantDb};
use mesophyll::wire::data::{
    CreateEvent, DbOp, EventData, KeyValueOp, MESSAGE_RULES_KEY, MESSAGE_RULES_SCOPE,
    MessageOutcome, Scopes, TENANT_MESSAGE, TenantId, TenantMessage,
};
use mesophyll::wire::json::{event_data_from_json, value_from_json};

use super::asked::{Kind, Load, Outcome, answer_lines, say};
use super::ours::{self, Worker};
use super::pair::Role;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pairs of tenants that send and receive in turn: so many that none comes to the end of its rate.
const PAIRS: u64 = 2000;

/// With templates, which send less a second.
const TEMPLATE_PAIRS: u64 = 300;

/// Begins a round, and answers a message.
const TEMPLATE: &str = "return function(ctx)
    local event = ctx:event()
    if event.name == 'START' then
        ctx.Messages:send(event.data, 'ping', 'xxxxxxxxxxxxxxxx')
    elseif event.data.topic == 'ping' then
        ctx.Messages:send(event.data.from, 'pong', event.data.data)
    end
end";

/// A tenant of the first worker and one of the second.
fn pair(number: u64) -> [TenantId; 2] {
    [TenantId::Guild((2 * number) << 22), TenantId::Guild((2 * number + 1) << 22)]
}

/// One of the two workers' processes, until stdin ends.
pub fn worker(role: &Role) -> Result<(), String> {
    let mut talker = Talker::start(role)?;
    say("up")?;
    answer_lines(|line| match line {
        "count" => Ok(talker.handled().to_string()),
        load => talker.run(load.parse()?).map(|outcome| outcome.to_string()),
    })?;
    talker.stop();
    Ok(())
}

/// A worker whose tenants allow those of the other one to send, and its driver.
pub(super) struct Talker {
    worker: Worker,
    outbox: Outbox,
    is_luau: bool,
    handled: Arc<AtomicU64>,
    ended_tx: Sender<Ended>,
    ended_rx: Receiver<Ended>,
    /// Of a bare driver and of one with templates, ever.
    begun: u64,
}

/// Whose round has ended, or why one did not.
type Ended = Result<TenantId, String>;

impl Talker {
    pub(super) fn start(role: &Role) -> Result<Self, String> {
        let (outbox, handled) = (Outbox::default(), Arc::<AtomicU64>::default());
        let db = Arc::new(ours::worker_db(role, &outbox)?);
        let (ended_tx, ended_rx) = unbounded();
        let worker = Worker::with(role, outbox.clone(), db.clone(), |db, subscriptions| {
            if !role.is_luau {
                return Ok(Box::new(ours::Echo::start(handled.clone())));
            }
            let runtime = ours::luau(TEMPLATE, db, subscriptions)?;
            Ok(Box::new(Watched { runtime, ended_tx: ended_tx.clone() }))
        })?;
        for pair in (0..if role.is_luau { TEMPLATE_PAIRS } else { PAIRS }).map(pair) {
            let (own, other) = (pair[role.worker], pair[1 - role.worker]);
            let value = value_from_json(format!("{{\"{other}\":[\"\"]}}").as_bytes());
            let value = value.map_err(|error| error.to_string())?;
            let (scopes, key) = (Scopes::new([MESSAGE_RULES_SCOPE]), MESSAGE_RULES_KEY.to_owned());
            let set = KeyValueOp::Set { scopes, key, value };
            db.ask(DbOp::Kv(own, set)).map_err(|error| error.to_string())?;
        }
        let is_luau = role.is_luau;
        Ok(Self { worker, outbox, is_luau, handled, ended_tx, ended_rx, begun: 0 })
    }

    pub(super) fn stop(self) {
        self.worker.stop();
    }

    /// Events that its echo has handled.
    pub(super) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Does a turn.
    pub(super) fn run(&mut self, load: Load) -> Result<Outcome, String> {
        if self.is_luau { self.rounds(load) } else { self.bare(load) }
    }

    /// A thread for each message in flight: a sender waits for its answer, as those of templates
    /// do.
    fn bare(&mut self, load: Load) -> Result<Outcome, String> {
        let data = event_data_from_json(b"\"xxxxxxxxxxxxxxxx\"");
        let data = data.map_err(|error| error.to_string())?;
        let numbers = AtomicU64::new(self.begun);
        let begun = Instant::now();
        let until = begun + load.lasting;
        let sender = || {
            let (mut now, mut times) = (Instant::now(), Vec::new());
            while now < until {
                let [from, to] = pair(numbers.fetch_add(1, Ordering::Relaxed) % PAIRS);
                let (topic, data) = ("ping".to_owned(), data.clone());
                let outcome = self.outbox.send(TenantMessage { from, to, topic, data, depth: 1 });
                match outcome {
                    MessageOutcome::Accepted => {}
                    // More than a worker may send a second: that bound is the result.
                    MessageOutcome::Busy => {
                        std::thread::sleep(Duration::from_millis(1));
                        now = Instant::now();
                        continue;
                    }
                    _ => return Err(outcome.explanation().to_owned()),
                }
                let then = std::mem::replace(&mut now, Instant::now());
                times.push((now - then).as_nanos() as u64);
            }
            Ok(times)
        };
        let times: Result<Vec<_>, String> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..load.in_flight).map(|_| scope.spawn(sender)).collect();
            let joined = senders.into_iter().map(|sender| sender.join());
            joined.map(|times| times.unwrap_or_else(|_| Err("a panic".to_owned()))).collect()
        });
        let (times, took) = (times?.concat(), begun.elapsed());
        self.begun = numbers.into_inner();
        Ok(Outcome::new(times.len() as u64, took, times))
    }

    fn rounds(&mut self, load: Load) -> Result<Outcome, String> {
        if self.begun == 0 {
            // Every VM is there before anything counts.
            self.rounds_while(16, |begun, _| begun < TEMPLATE_PAIRS)?;
        }
        let begun = Instant::now();
        let until = begun + load.lasting;
        let times = self.rounds_while(load.in_flight, |_, now| now < until)?;
        let (done, took) = (times.len() as u64, begun.elapsed());
        let is_timed = load.kind == Kind::RoundTrip;
        Ok(Outcome::new(done, took, if is_timed { times } else { Vec::new() }))
    }

    /// How long each round took.
    fn rounds_while(
        &mut self,
        in_flight: usize,
        goes_on: impl Fn(u64, Instant) -> bool,
    ) -> Result<Vec<u64>, String> {
        let (mut sent, mut times) = (HashMap::new(), Vec::new());
        let mut now = Instant::now();
        let deadline = now + PATIENCE;
        for _ in 0..in_flight {
            sent.insert(self.begin(deadline)?, now);
        }
        while !sent.is_empty() {
            let ended = self.ended_rx.recv_deadline(deadline).map_err(|error| error.to_string())?;
            now = Instant::now();
            let then = sent.remove(&ended?).ok_or("a round that was not begun")?;
            times.push((now - then).as_nanos() as u64);
            if goes_on(self.begun, now) {
                sent.insert(self.begin(deadline)?, now);
            }
        }
        Ok(times)
    }

    /// Has a tenant begin a round.
    fn begin(&mut self, deadline: Instant) -> Result<TenantId, String> {
        let [from, to] = pair(self.begun % TEMPLATE_PAIRS);
        self.begun += 1;
        let data = event_data_from_json(format!("\"{to}\"").as_bytes());
        let data = EventData::Json(data.map_err(|error| error.to_string())?);
        let event = CreateEvent { name: "START".to_owned(), author: None, data };
        let ended_tx = self.ended_tx.clone();
        let answer = Answer::callback(move |result| {
            // One that went well has its end later.
            if let Err(error) = result {
                let _ = ended_tx.send(Err(error.to_string()));
            }
        });
        let job = Job::Dispatch(event);
        self.worker.local().submit(Request::new(from, job, deadline, answer));
        Ok(from)
    }
}

/// Tells of each message that a template has handled.
struct Watched<R> {
    runtime: R,
    ended_tx: Sender<Ended>,
}

impl<R: TemplateRuntime> TemplateRuntime for Watched<R> {
    fn submit(&self, tenant: TenantId, id: RequestId, job: Job, answer: Answer) {
        if !matches!(&job, Job::Dispatch(event) if event.name == TENANT_MESSAGE) {
            return self.runtime.submit(tenant, id, job, answer);
        }
        let ended_tx = self.ended_tx.clone();
        let answer = Answer::callback(move |result| {
            let ended = result.as_ref().map(|_| tenant).map_err(ToString::to_string);
            answer.send(result);
            let _ = ended_tx.send(ended);
        });
        self.runtime.submit(tenant, id, job, answer);
    }

    fn cancel(&self, tenant: TenantId, id: RequestId) -> Cancelled {
        self.runtime.cancel(tenant, id)
    }

    fn stats(&self) -> RuntimeStats {
        self.runtime.stats()
    }

    fn shutdown(&self) {
        self.runtime.shutdown();
    }
}
