//! Dispatches over a stream of the internal API: the driver in front of it, as a gateway is.
//!
//! One thread with one connection, which sends the next event when an answer has come. It is in the
//! benchmark's own process, whose time is not counted.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use super::asked::{Load, Outcome};
use super::events::ECHO;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every event carries, and every answer.
const TEXT: &str = "xxxxxxxxxxxxxxxx";

/// Keeps so many events in flight.
pub fn drive(address: &str, authorization: &str, load: &Load) -> Result<Outcome, String> {
    let mut socket = open(address, authorization)?;
    let begun = Instant::now();
    let until = begun + load.lasting;
    let (mut asked, mut times) = (vec![begun; load.in_flight], Vec::new());
    let (mut sent, mut open) = (0, 0);
    for id in 0..load.in_flight {
        send(&mut socket, id, sent, load)?;
        (sent, open) = (sent + 1, open + 1);
    }
    while open > 0 {
        let id = answer(&mut socket)?;
        let now = Instant::now();
        let at = asked.get_mut(id).ok_or("an answer to nothing")?;
        times.push((now - *at).as_nanos() as u64);
        if now < until {
            *at = now;
            send(&mut socket, id, sent, load)?;
            sent += 1;
        } else {
            open -= 1;
        }
    }
    Ok(Outcome::new(times.len() as u64, begun.elapsed(), times))
}

fn open(address: &str, authorization: &str) -> Result<WebSocket<TcpStream>, String> {
    let socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    let url = format!("ws://{address}/i/stream");
    let mut request = url.into_client_request().map_err(|error| error.to_string())?;
    let header = authorization.parse().map_err(|_| "a header".to_owned())?;
    request.headers_mut().insert("Authorization", header);
    let opened = tungstenite::client::client(request, socket);
    let (mut socket, _) = opened.map_err(|error| error.to_string())?;
    let hello = text(&mut socket)?;
    if hello.contains("credits") { Ok(socket) } else { Err(hello) }
}

fn send(
    socket: &mut WebSocket<TcpStream>,
    id: usize,
    number: u64,
    load: &Load,
) -> Result<(), String> {
    let tenant = (number % load.tenants) << 22;
    let line = format!(
        "{{\"id\":{id},\"tenant\":\"guild:{tenant}\",\"name\":\"{ECHO}\",\"data\":\"{TEXT}\"}}"
    );
    socket.send(Message::text(line)).map_err(|error| error.to_string())
}

/// The id of the next answer.
fn answer(socket: &mut WebSocket<TcpStream>) -> Result<usize, String> {
    let line = text(socket)?;
    let number = line.strip_prefix("{\"id\":").and_then(|rest| rest.split_once(','));
    match number.map(|(id, rest)| (id.parse(), rest)) {
        Some((Ok(id), rest)) if rest.contains(TEXT) => Ok(id),
        _ => Err(line),
    }
}

fn text(socket: &mut WebSocket<TcpStream>) -> Result<String, String> {
    loop {
        match socket.read().map_err(|error| error.to_string())? {
            Message::Text(text) => return Ok(text.to_string()),
            Message::Close(_) => return Err("the stream was closed".to_owned()),
            _ => {}
        }
    }
}
