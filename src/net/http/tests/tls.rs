//! What only a peer over TLS can do: it sends a record byte by byte.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::lifecycle::dribble;
use super::support::{Client, Fixture, patient, serve_over, soon};
use crate::net::http::HttpLimits;
use crate::net::stream::Stream;
use crate::net::stream::tls::tests::{Files, ca};
use crate::net::stream::tls::{TlsClient, TlsServer};

const SHORT: Duration = Duration::from_millis(500);

fn serve(limits: HttpLimits) -> Fixture {
    let files = Files::new("http");
    let tls = TlsServer::new(files.of("master"), None).expect("a server");
    serve_over(Some(Arc::new(tls)), limits)
}

/// A client, and the socket under it.
fn connect(fixture: &Fixture) -> (Client, Stream) {
    let socket = TcpStream::connect(fixture.server.local_addr()).expect("it listens");
    let under = socket.try_clone().expect("a descriptor").into();
    let client = TlsClient::new(&ca("authority"), None);
    let stream = client.expect("a client").connect(Arc::new(socket.into()), "localhost", soon());
    (Client::over(stream.expect("a handshake")), under)
}

/// The head of a record of 16 KiB, which never becomes whole.
const RECORD_HEAD: [u8; 5] = [0x17, 3, 3, 0x40, 0];

#[test]
fn a_record_that_dribbles_has_no_more_time_than_its_request() {
    let limits = HttpLimits { linger_timeout: SHORT, ..patient() };
    let fixture = serve(HttpLimits { head_timeout: SHORT, idle_timeout: SHORT, ..limits.clone() });
    let (client, under) = connect(&fixture);
    Client::over(under.try_clone().expect("a descriptor")).send(&RECORD_HEAD);
    dribble(&under, b'a');
    drop(client);
    let fixture = serve(HttpLimits { body_timeout: SHORT, ..limits });
    let (mut client, under) = connect(&fixture);
    client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
    Client::over(under.try_clone().expect("a descriptor")).send(&RECORD_HEAD);
    dribble(&under, b'a');
}
