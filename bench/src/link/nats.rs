//! Request and reply over a NATS server: what one takes if one does not want a link of one's own.
//! The same bytes, by async-nats.

use std::sync::Arc;

use async_nats::Client;
use axum::body::Bytes;
use futures_util::StreamExt;

use super::asked::{Load, Size, answer_lines, say};
use super::events::message;
use super::pair::Role;
use super::tasks::{self, Callee};
use crate::peer;

/// Where the server is, if nobody says.
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// The server's URL.
pub fn url() -> String {
    std::env::var("MESOPHYLL_BENCH_NATS_URL").unwrap_or(DEFAULT_URL.to_owned())
}

/// Why there is no server to be measured, if there is none.
pub fn why_not() -> Option<String> {
    let connected = peer::runtime().and_then(|runtime| runtime.block_on(connect()).map(drop));
    connected.err().map(|why| format!("NATS at {}: {why}; set MESOPHYLL_BENCH_NATS_URL", url()))
}

async fn connect() -> Result<Client, String> {
    async_nats::connect(url()).await.map_err(|error| error.to_string())
}

struct Requester {
    client: Client,
    subject: String,
    payload: Bytes,
}

impl Callee for Requester {
    async fn call(&self, _: u64) -> Result<(), String> {
        let reply = self.client.request(self.subject.clone(), self.payload.clone()).await;
        let reply = reply.map_err(|error| error.to_string())?;
        if reply.payload.len() == self.payload.len() {
            Ok(())
        } else {
            Err("the answer is no echo".to_owned())
        }
    }
}

/// The process that asks.
pub fn master() -> Result<(), String> {
    let runtime = peer::runtime()?;
    let subject = format!("mesophyll-bench.{}", std::process::id());
    let client = runtime.block_on(connect())?;
    say(&format!("- {subject}"))?;
    answer_lines(|line| {
        if line == "ready" {
            return Ok("ready".to_owned());
        }
        let load: Load = line.parse()?;
        let payload =
            Bytes::from(message(if load.size == Size::Tiny { Size::Tiny } else { Size::TwoK }));
        let requester =
            Arc::new(Requester { client: client.clone(), subject: subject.clone(), payload });
        runtime.block_on(tasks::drive(requester, load)).map(|outcome| outcome.to_string())
    })
}

/// The process that answers.
pub fn worker(role: &Role) -> Result<(), String> {
    let runtime = peer::runtime()?;
    let client = runtime.block_on(connect())?;
    let subject = role.token.clone();
    let mut requests =
        runtime.block_on(client.subscribe(subject)).map_err(|error| error.to_string())?;
    // The server has taken it in.
    runtime.block_on(client.flush()).map_err(|error| error.to_string())?;
    runtime.spawn(async move {
        while let Some(request) = requests.next().await {
            let client = client.clone();
            tokio::spawn(async move {
                if let Some(reply) = request.reply {
                    let _ = client.publish(reply, request.payload).await;
                }
            });
        }
    });
    say("up")?;
    answer_lines(|_| Ok("0".to_owned()))
}
