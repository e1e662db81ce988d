//! The reading half of a link: one thread that reads, decodes frames and hands messages to the
//! handler.
//!
//! It runs no user code and blocks on nothing but its socket, whose wake-up is `shutdown(Both)`.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::{Message, WebSocket};

use super::handshake::Upgraded;
use super::input::Input;
use super::{CloseCause, LinkHandler, LinkSender, LinkStats, close_code};
use crate::base::shared_bytes::Received;
use crate::base::thread::{self, OwnedThread};
use crate::net::stream::Stream;

/// The stream under the reader's WebSocket object: it reads from the socket; what is written goes
/// to the writer's queue once there is one (before, during the handshake, it goes to the socket).
#[derive(Debug)]
pub(super) struct ReadHalf {
    socket: Stream,
    link: Option<LinkSender>,
    stats: Arc<LinkStats>,
    input: Input,
    /// What a read came upon that the next read is to report.
    failed: Option<io::Error>,
    /// What tungstenite has written since its last flush.
    frames: Vec<u8>,
    /// Of the handshake; afterwards the link's pulse decides what is too slow.
    deadline: Option<Instant>,
}

impl ReadHalf {
    /// Over this socket, from which `already_read` came.
    pub(super) fn new(socket: Stream, already_read: &[u8]) -> Self {
        let (stats, input, frames) = (Arc::default(), Input::new(already_read), Vec::new());
        Self { socket, link: None, stats, input, failed: None, frames, deadline: None }
    }

    /// For a handshake: reads fail once `deadline` has passed.
    pub(super) fn with_deadline(socket: Stream, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::new(socket, &[]) }
    }

    /// The handshake is done: reads wait for ever again.
    pub(super) fn clear_deadline(&mut self) -> io::Result<()> {
        self.deadline = None;
        self.socket.set_read_timeout(None)
    }

    pub(super) fn clone_socket(&self) -> io::Result<Stream> {
        self.socket.try_clone()
    }

    /// Reads what there is; nothing: the connection has ended.
    ///
    /// Blocks: until something comes.
    fn fill(&mut self) -> io::Result<usize> {
        let len = loop {
            if let Some(deadline) = self.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                self.socket.set_read_timeout(Some(left))?;
            }
            match self.input.fill_from(&mut self.socket) {
                // What has come is no whole record yet.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => break got?,
            }
        };
        if let Some(link) = &self.link {
            link.record_received(len);
            self.stats.received_bytes.add(len as u64);
        }
        Ok(len)
    }

    /// Reads and forgets until the connection ends, so that a close frame of ours is not lost to a
    /// reset, which the kernel sends when a socket is closed with unread bytes in it. The writer
    /// bounds how long this takes.
    fn drain(&mut self) {
        let mut waste = [0; 4096];
        loop {
            match self.socket.read(&mut waste) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while self.input.needs_more() && self.fill()? > 0 {}
        Ok(self.input.give(buffer))
    }
}

impl Write for ReadHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.link {
            Some(_) => {
                self.frames.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            None => self.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.link {
            Some(link) if !self.frames.is_empty() => {
                link.shared.queue.push_replies(&self.frames);
                self.frames.clear();
                Ok(())
            }
            Some(_) => Ok(()),
            None => self.socket.flush(),
        }
    }
}

/// Starts the reader thread.
pub(super) fn spawn(
    name: &str,
    link: LinkSender,
    upgraded: Upgraded,
    handler: Box<dyn LinkHandler>,
    stats: Arc<LinkStats>,
) -> io::Result<OwnedThread> {
    let Upgraded { mut websocket, role } = upgraded;
    let half = websocket.get_mut();
    half.input.expect_frames(role, link.shared.limits.message_max_bytes);
    (half.link, half.stats) = (Some(link.clone()), stats);
    thread::spawn(format!("{name}-rd"), move || run(&link, websocket, handler))
}

/// Tells the writer that the reader has ended, however it did: also by a panic in the handler's
/// last call.
struct ReaderDone<'l>(&'l LinkSender);

impl Drop for ReaderDone<'_> {
    fn drop(&mut self) {
        self.0.shared.queue.reader_done();
    }
}

fn run(link: &LinkSender, mut websocket: WebSocket<ReadHalf>, mut handler: Box<dyn LinkHandler>) {
    let _done = ReaderDone(link);
    let reading = AssertUnwindSafe(|| read_until_end(link, &mut websocket, handler.as_mut()));
    let ended = match catch_unwind(reading) {
        Ok(ended) => ended,
        Err(panic) => {
            // A bug ends this link only, and every waiter for an answer over it is told as at any
            // other end.
            let cause = link.abort(CloseCause::Broken("a bug in the link's handler".to_owned()));
            handler.on_closed(&cause);
            resume_unwind(panic);
        }
    };
    let cause = link.record_cause(ended.clone());
    match ended {
        CloseCause::ClosedByUs(code) => {
            link.shared.queue.close(code);
            handler.on_closed(&cause);
            websocket.get_mut().drain();
        }
        CloseCause::Broken(_) => {
            // Or the writer would try for long to write to a peer that has gone and took nothing.
            link.abort(cause.clone());
            handler.on_closed(&cause);
        }
        _ => handler.on_closed(&cause),
    }
}

/// Reads until the link ends; returns how. `ClosedByUs`: this side ends it, and the peer is still
/// to be told.
fn read_until_end(
    link: &LinkSender,
    websocket: &mut WebSocket<ReadHalf>,
    handler: &mut dyn LinkHandler,
) -> CloseCause {
    loop {
        if let Err(code) = read_whole_messages(link, websocket.get_mut(), handler) {
            return CloseCause::ClosedByUs(code);
        }
        let verdict = match websocket.read() {
            Ok(Message::Binary(message)) => {
                websocket.get_ref().stats.received_messages.inc();
                handler.on_message(link, Received::Lent(&message))
            }
            Ok(Message::Text(text)) => {
                websocket.get_ref().stats.received_messages.inc();
                handler.on_text(link, &text)
            }
            Ok(Message::Ping(_)) => {
                hand_over_reply(websocket);
                Ok(())
            }
            Ok(Message::Pong(payload)) => {
                if let Some(took) = link.on_pong(&payload) {
                    websocket.get_ref().stats.round_trips.observe(took);
                }
                Ok(())
            }
            Ok(Message::Frame(_)) => Ok(()),
            Ok(Message::Close(frame)) => {
                hand_over_reply(websocket);
                return CloseCause::ClosedByPeer(
                    frame.map_or(close_code::NONE_GIVEN, |frame| frame.code.into()),
                );
            }
            Err(error) => return cause_of(error),
        };
        if let Err(code) = verdict {
            return CloseCause::ClosedByUs(code);
        }
    }
}

/// Hands over messages as long as they come in whole; what comes then is for tungstenite.
///
/// Blocks: until something else comes.
fn read_whole_messages(
    link: &LinkSender,
    half: &mut ReadHalf,
    handler: &mut dyn LinkHandler,
) -> Result<(), u16> {
    loop {
        while let Some(message) = half.input.whole_message() {
            half.stats.received_messages.inc();
            handler.on_message(link, Received::Lent(message))?;
        }
        if let Some(message) = half.input.large_message() {
            half.stats.received_messages.inc();
            handler.on_message(link, Received::Shared(&Arc::new(message)))?;
            continue;
        }
        if !half.input.needs_more() {
            return Ok(());
        }
        match half.fill() {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                half.failed = Some(error);
                return Ok(());
            }
        }
    }
}

/// Lets tungstenite's own reply (a pong, a close) leave now; it would wait for the next read, which
/// may block long.
fn hand_over_reply(websocket: &mut WebSocket<ReadHalf>) {
    // For a close this reports the end of the connection, which is what it is.
    let _ = websocket.flush();
    // A server's flush of a close ends before it flushes the stream.
    let _ = websocket.get_mut().flush();
}

fn cause_of(error: Error) -> CloseCause {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => {
            CloseCause::ClosedByPeer(close_code::NORMAL)
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            CloseCause::Broken("the connection ended".to_owned())
        }
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            CloseCause::ClosedByUs(close_code::TOO_LARGE)
        }
        Error::Protocol(_) => CloseCause::ClosedByUs(close_code::PROTOCOL),
        Error::Utf8(_) => CloseCause::ClosedByUs(close_code::UNDECODABLE),
        other => CloseCause::Broken(other.to_string()),
    }
}

#[cfg(feature = "tls")]
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::stream::is_again;
    use crate::net::stream::tls::tests::with_record;

    #[test]
    fn a_record_in_pieces_is_awaited_until_the_deadline() {
        let (stream, mut peer, record) = with_record(b"hi\r\n\r\n");
        peer.write_all(&record[..5]).expect("written");
        let mut half = ReadHalf::with_deadline(stream, Instant::now() + Duration::from_millis(50));
        let error = half.read(&mut [0; 9]).expect_err("it is not whole");
        let is_over = is_again(&error) && error.kind() != io::ErrorKind::Interrupted;
        assert!(is_over, "{error}");
        half.clear_deadline().expect("a socket");
        peer.write_all(&record[5..]).expect("written");
        let mut text = [0; 6];
        half.read_exact(&mut text).expect("it is whole");
        assert_eq!(&text, b"hi\r\n\r\n");
    }
}
