//! A unary call by tonic: the other thing that one takes. The same bytes in a field of bytes.
//!
//! The service is written by hand: one method needs no protoc. One channel, so one HTTP/2
//! connection, as our link is one.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request, Response};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Status, client, server};
use tonic_prost::ProstCodec;

use super::asked::{Load, Size, answer_lines, say};
use super::events::message;
use super::tasks::{self, Callee};
use crate::peer;

const PATH: PathAndQuery = PathAndQuery::from_static("/mesophyll.Bench/Dispatch");

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(bytes = "bytes", tag = "1")]
    data: prost::bytes::Bytes,
}

/// Gives every event back.
#[derive(Clone)]
struct Echo;

impl UnaryService<Event> for Echo {
    type Response = Event;
    type Future = std::future::Ready<Result<tonic::Response<Event>, Status>>;

    fn call(&mut self, request: tonic::Request<Event>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(
            async move { Ok(server::Grpc::new(ProstCodec::default()).unary(Echo, request).await) },
        )
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "mesophyll.Bench";
}

struct Unary {
    channel: Channel,
    event: Event,
}

impl Callee for Unary {
    async fn call(&self, _: u64) -> Result<(), String> {
        let mut client = client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| error.to_string())?;
        let request = tonic::Request::new(self.event.clone());
        let reply = client.unary(request, PATH, ProstCodec::<Event, Event>::default()).await;
        let reply = reply.map_err(|error| error.to_string())?.into_inner();
        if reply.data.len() == self.event.data.len() {
            Ok(())
        } else {
            Err("the answer is no echo".to_owned())
        }
    }
}

/// The process that asks the one at `address`.
pub fn master(address: &str) -> Result<(), String> {
    let runtime = peer::runtime()?;
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = runtime
        .block_on(endpoint.tcp_nodelay(true).connect())
        .map_err(|error| error.to_string())?;
    say("-")?;
    answer_lines(|line| {
        if line == "ready" {
            return Ok("ready".to_owned());
        }
        let load: Load = line.parse()?;
        let data = message(if load.size == Size::Tiny { Size::Tiny } else { Size::TwoK }).into();
        let unary = Arc::new(Unary { channel: channel.clone(), event: Event { data } });
        runtime.block_on(tasks::drive(unary, load)).map(|outcome| outcome.to_string())
    })
}

/// The process that answers; says where it listens.
pub fn worker() -> Result<(), String> {
    let runtime = peer::runtime()?;
    // A free port, to listen on once more: tonic's own listener sets TCP_NODELAY.
    let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = free.local_addr().map_err(|error| error.to_string())?;
    drop(free);
    let _guard = runtime.enter();
    let incoming =
        tonic::transport::server::TcpIncoming::bind(address).map_err(|error| error.to_string())?;
    let incoming = incoming.with_nodelay(Some(true));
    runtime.spawn(Server::builder().add_service(Echo).serve_with_incoming(incoming));
    say(&address.to_string())?;
    answer_lines(|_| Ok("0".to_owned()))
}
