//! The peer's two processes, with its load driver: as many tasks as there are to be in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::asked::{Load, answer_lines, say};
use super::events::Theirs;
use super::pair::{READY_TIMEOUT, Role};
use super::tasks::{self, Callee};
use crate::peer::db::Store;
use crate::peer::master::Master;
use crate::peer::vm::Vms;
use crate::peer::worker::{self as peer_worker, Config, Handler};
use crate::peer::{self};
use crate::serve::TOKEN;

struct Pool {
    master: Master,
    events: Theirs,
}

impl Callee for Pool {
    async fn call(&self, number: u64) -> Result<(), String> {
        let answer = self
            .master
            .dispatch_event(self.events.tenant(number), self.events.event(number))
            .await?;
        if self.events.is_echo(number, &answer) {
            Ok(())
        } else {
            Err("the answer is no echo".to_owned())
        }
    }

    async fn send(&self, number: u64) -> Result<(), String> {
        self.master
            .dispatch_event_nowait(self.events.tenant(number), self.events.event(number))
            .await
    }

    async fn call_looping(&self) {
        let (tenant, event) = Theirs::looping();
        let _ = self.master.dispatch_event(tenant, &event).await;
    }
}

/// A master's process.
pub fn master(workers: usize, store: Option<&str>) -> Result<(), String> {
    let runtime = peer::runtime()?;
    let (master, address) = runtime.block_on(async {
        let store = match store {
            Some(url) => Some(Store::open(url).await?),
            None => None,
        };
        Master::start(workers, TOKEN, store).await
    })?;
    say(&format!("{address} {}", vec![TOKEN; workers].join(" ")))?;
    answer_lines(|line| match line {
        "ready" => wait(|| master.is_ready()).map(|()| "ready".to_owned()),
        "api" => Ok(format!("{address} {TOKEN}")),
        "lost" => wait(|| !master.is_ready()).map(|()| "lost".to_owned()),
        load => {
            let load: Load = load.parse()?;
            let pool = Arc::new(Pool { master: master.clone(), events: Theirs::new(&load) });
            runtime.block_on(tasks::drive(pool, load)).map(|outcome| outcome.to_string())
        }
    })
}

fn wait(is_so: impl Fn() -> bool) -> Result<(), String> {
    let until = Instant::now() + READY_TIMEOUT;
    while !is_so() {
        if Instant::now() > until {
            return Err("the workers are not what they should be".to_owned());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// A worker's process.
pub fn worker(role: &Role) -> Result<(), String> {
    let runtime = peer::runtime()?;
    let handled = Arc::new(AtomicU64::new(0));
    let handler = if role.is_luau { Handler::Luau(Vms::start()?) } else { Handler::Echo };
    let config =
        Config { master: role.address.clone(), worker: role.worker, token: role.token.clone() };
    runtime.spawn(peer_worker::run(config, handler, handled.clone()));
    say("up")?;
    answer_lines(|_| Ok(handled.load(Ordering::Relaxed).to_string()))
}
