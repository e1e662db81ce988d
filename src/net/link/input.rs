//! What has come in on a link and was not looked at yet, and the common case of what it can be: a
//! whole binary message.
//!
//! Such a message is handed over where it lies, and one that does not fit the buffer in memory of
//! its own, of its size, into which it is read. Everything else (pieces of messages, control
//! frames, text, what breaks the protocol) is left to tungstenite, one frame at a time, so that it
//! never holds what comes after.

use std::io::{self, Cursor, Read};
use std::ops::Range;

use tungstenite::protocol::Role;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::frames;

/// What one read takes at most: many small messages in one system call.
const BUFFER_BYTES: usize = 64 * 1024;

/// What one read of a large message takes at most: so much is cleared right before, and unmasked
/// right after it, while it is in a processor's cache.
const LARGE_READ_BYTES: usize = 256 * 1024;

/// How an answer begins behind which frames follow at once.
const SWITCHING: &[u8] = b"HTTP/1.1 101";

/// A buffer between the socket and the reader of frames.
#[derive(Debug)]
pub(super) struct Input {
    buffer: Vec<u8>,
    /// Where what is unread begins and ends.
    unread: Range<usize>,
    /// From the end of the handshake on.
    frames: Option<Frames>,
    /// A message that does not fit the buffer, as far as it has come.
    large: Option<LargeMessage>,
}

/// A message on its way into its own memory.
#[derive(Debug)]
struct LargeMessage {
    bytes: Vec<u8>,
    /// How long it will be. Memory that it does not fill yet is not touched: a peer that only
    /// announces it costs none.
    len: usize,
    key: Option<frames::Key>,
}

impl LargeMessage {
    fn new(len: usize, key: Option<frames::Key>) -> Self {
        Self { bytes: Vec::with_capacity(len), len, key }
    }

    fn is_whole(&self) -> bool {
        self.bytes.len() == self.len
    }

    fn append(&mut self, payload: &[u8]) {
        let key = self.key.map(|key| frames::turned(key, self.bytes.len()));
        frames::append_masked(&mut self.bytes, key, payload);
    }

    /// Reads once; says how much.
    fn fill_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let begin = self.bytes.len();
        self.bytes.resize(self.len.min(begin + LARGE_READ_BYTES), 0);
        let read = stream.read(&mut self.bytes[begin..]);
        self.bytes.truncate(begin + *read.as_ref().unwrap_or(&0));
        if let Some(key) = self.key {
            frames::mask(&mut self.bytes[begin..], frames::turned(key, begin));
        }
        read
    }
}

/// What is known of the stream of frames, at the beginning of what is unread.
#[derive(Debug)]
struct Frames {
    is_masked: bool,
    max_bytes: usize,
    /// So much of the frame that tungstenite reads is still to come.
    rest: u64,
    /// tungstenite has a part of a message.
    in_pieces: bool,
}

/// What comes next.
enum NextFrame {
    /// A whole message, which begins and ends here; masked with this key.
    Whole(Range<usize>, Option<frames::Key>),
    /// A whole message that does not fit the buffer: its payload begins here, is so long, and is
    /// masked with this key.
    Large(usize, usize, Option<frames::Key>),
    /// Not all of what it takes to tell, or of a message that will be whole.
    Partial,
    /// A frame for tungstenite, so many bytes long with its header.
    Other(u64),
}

impl Input {
    /// One that begins with these bytes.
    pub(super) fn new(already_read: &[u8]) -> Self {
        let mut buffer = vec![0; BUFFER_BYTES.max(already_read.len())];
        buffer[..already_read.len()].copy_from_slice(already_read);
        Self { buffer, unread: 0..already_read.len(), frames: None, large: None }
    }

    /// The handshake is done: what is unread begins with a frame.
    pub(super) fn expect_frames(&mut self, role: Role, max_bytes: usize) {
        self.frames =
            Some(Frames { is_masked: role == Role::Server, max_bytes, rest: 0, in_pieces: false });
    }

    /// Reads once, behind what is unread; says how much. Nothing if there is no room.
    pub(super) fn fill_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        if let Some(large) = &mut self.large {
            return large.fill_from(stream);
        }
        if self.unread.start > 0 {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let len = stream.read(&mut self.buffer[self.unread.end..])?;
        self.unread.end += len;
        Ok(len)
    }

    /// The next message, if it is there and whole.
    pub(super) fn whole_message(&mut self) -> Option<&[u8]> {
        let Some(NextFrame::Whole(payload, key)) =
            self.frames.as_ref().map(|frames| frames.next(self.bytes()))
        else {
            return None;
        };
        let payload = self.unread.start + payload.start..self.unread.start + payload.end;
        self.unread.start = payload.end;
        let payload = &mut self.buffer[payload];
        if let Some(key) = key {
            frames::mask(payload, key);
        }
        Some(payload)
    }

    /// The next message, if it is a large one that has come whole; else begins to read one, if it
    /// is next.
    pub(super) fn large_message(&mut self) -> Option<Vec<u8>> {
        if self.large.is_none()
            && let Some(NextFrame::Large(at, len, key)) =
                self.frames.as_ref().map(|frames| frames.next(self.bytes()))
        {
            let mut large = LargeMessage::new(len, key);
            // The rest of the buffer is of this message, as it does not fit.
            large.append(&self.bytes()[at..]);
            self.unread = 0..0;
            self.large = Some(large);
        }
        self.large.take_if(|large| large.is_whole()).map(|large| large.bytes)
    }

    /// Whether more must come in before something can be made of it.
    pub(super) fn needs_more(&self) -> bool {
        match &self.frames {
            _ if self.large.is_some() => true,
            Some(frames) if frames.rest > 0 => self.unread.is_empty(),
            Some(frames) => matches!(frames.next(self.bytes()), NextFrame::Partial),
            // A whole head, as frames may follow it that are not the handshake's.
            None => head_end(self.bytes()).is_none() && self.unread.len() < BUFFER_BYTES,
        }
    }

    /// Gives out what comes next, at most to the end of a frame, or of the handshake.
    pub(super) fn give(&mut self, buffer: &mut [u8]) -> usize {
        let bytes = &self.buffer[self.unread.clone()];
        let end = match &mut self.frames {
            Some(frames) => frames.give(bytes),
            None if bytes.starts_with(SWITCHING) => head_end(bytes).unwrap_or(bytes.len()),
            None => bytes.len(),
        };
        let len = end.min(buffer.len());
        if let Some(frames) = &mut self.frames {
            frames.rest = frames.rest.saturating_sub(len as u64);
        }
        buffer[..len].copy_from_slice(&self.buffer[self.unread.start..][..len]);
        self.unread.start += len;
        len
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.unread.clone()]
    }
}

/// Where the head of an HTTP answer ends.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

impl Frames {
    fn next(&self, bytes: &[u8]) -> NextFrame {
        // Mostly, as the reader looks again after each batch.
        if bytes.is_empty() {
            return NextFrame::Partial;
        }
        let mut cursor = Cursor::new(bytes);
        let (header, len) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return NextFrame::Partial,
            // It will say what is wrong, and read no further.
            Err(_) => return NextFrame::Other(u64::MAX),
        };
        let header_bytes = cursor.position();
        let whole = header_bytes.saturating_add(len);
        let rest = bytes.len() as u64 - header_bytes;
        let is_plain = header.is_final && !(header.rsv1 || header.rsv2 || header.rsv3);
        if !is_plain
            || header.opcode != OpCode::Data(Data::Binary)
            || header.mask.is_some() != self.is_masked
            || self.in_pieces
            || len > self.max_bytes as u64
        {
            return NextFrame::Other(whole);
        }
        if whole > BUFFER_BYTES as u64 && rest < len {
            // At most as long as a message may be.
            return NextFrame::Large(header_bytes as usize, len as usize, header.mask);
        }
        if whole > bytes.len() as u64 {
            return NextFrame::Partial;
        }
        NextFrame::Whole(header_bytes as usize..whole as usize, header.mask)
    }

    /// How many of these bytes tungstenite may have.
    fn give(&mut self, bytes: &[u8]) -> usize {
        if self.rest == 0 {
            self.rest = match self.next(bytes) {
                NextFrame::Other(whole) => whole,
                NextFrame::Whole(payload, _) => payload.end as u64,
                NextFrame::Large(at, len, _) => (at + len) as u64,
                // The connection has ended: let it see that.
                NextFrame::Partial => bytes.len() as u64,
            };
            if let Ok(Some((header, _))) = FrameHeader::parse(&mut Cursor::new(bytes))
                && matches!(header.opcode, OpCode::Data(_))
            {
                self.in_pieces = !header.is_final;
            }
        }
        usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{FrameKind, append};
    use super::*;

    const KEY: Option<frames::Key> = Some([1, 2, 3, 4]);

    fn input(role: Role) -> Input {
        let mut input = Input::new(&[]);
        input.expect_frames(role, 1 << 20);
        input
    }

    fn fill(input: &mut Input, mut bytes: &[u8]) {
        let len = bytes.len();
        assert_eq!(input.fill_from(&mut bytes).expect("memory"), len);
    }

    fn frame(kind: FrameKind, key: Option<frames::Key>, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        append(&mut frame, kind, key, payload);
        frame
    }

    /// What tungstenite would get, as much as there is.
    fn given(input: &mut Input) -> Vec<u8> {
        let mut buffer = [0; 16];
        let mut all = Vec::new();
        while !input.needs_more() {
            let len = input.give(&mut buffer);
            all.extend_from_slice(&buffer[..len]);
            if input.frames.as_ref().is_some_and(|frames| frames.rest == 0) {
                break;
            }
        }
        all
    }

    #[test]
    fn whole_messages_are_handed_over_unmasked_however_they_come_in() {
        for (role, key) in [(Role::Client, None), (Role::Server, KEY)] {
            let messages: Vec<Vec<u8>> = (0..200).map(|len| vec![len as u8; len * 7]).collect();
            let bytes: Vec<u8> = messages
                .iter()
                .flat_map(|message| frame(FrameKind::Binary, key, message))
                .collect();
            for piece in [1, 13, 5000, BUFFER_BYTES] {
                let (mut input, mut read) = (input(role), Vec::new());
                for mut piece in bytes.chunks(piece) {
                    while !piece.is_empty() {
                        assert!(input.fill_from(&mut piece).expect("memory") > 0);
                        while let Some(message) = input.whole_message() {
                            read.push(message.to_vec());
                        }
                        assert!(input.needs_more());
                    }
                }
                assert!(read == messages, "{role:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_message_larger_than_the_buffer_gets_its_own_memory() {
        for (role, key) in [(Role::Client, None), (Role::Server, KEY)] {
            let large: Vec<u8> = (0..5 * BUFFER_BYTES + 3).map(|at| (at / 3) as u8).collect();
            let messages = [&b"before"[..], &large, &large, b"after"];
            let frames = messages.map(|message| frame(FrameKind::Binary, key, message));
            let bytes = frames.concat();
            for piece in [1001, BUFFER_BYTES, bytes.len()] {
                let (mut input, mut read) = (input(role), Vec::new());
                for mut piece in bytes.chunks(piece) {
                    while !piece.is_empty() {
                        assert!(input.fill_from(&mut piece).expect("memory") > 0);
                        loop {
                            let whole = input.whole_message().map(|message| message.to_vec());
                            let Some(message) = whole.or_else(|| input.large_message()) else {
                                break;
                            };
                            read.push(message);
                        }
                        assert!(input.needs_more());
                    }
                }
                assert!(read == messages, "{role:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn partial_messages_are_left_to_tungstenite_to_their_end() {
        let message = frame(FrameKind::Binary, KEY, b"after");
        for other in [
            frame(FrameKind::Ping, KEY, b"12345678"),
            frame(FrameKind::Text, KEY, b"a text that is longer than the buffer"),
            frame(FrameKind::Close, KEY, b""),
            // A frame that is not masked, and one with a reserved bit.
            frame(FrameKind::Binary, None, b"plain"),
            b"\xc2\x81\0\0\0\0x".to_vec(),
        ] {
            let mut input = input(Role::Server);
            let mut all = Vec::new();
            for piece in [&other[..], &message].concat().chunks(1000) {
                assert!(all.len() == other.len() || input.whole_message().is_none());
                fill(&mut input, piece);
                if all.len() < other.len() && input.whole_message().is_none() {
                    all.extend(given(&mut input));
                }
            }
            assert!(all == other, "{} bytes instead of {}", all.len(), other.len());
            assert_eq!(input.whole_message(), Some(&b"after"[..]));
        }
    }

    #[test]
    fn within_a_message_in_pieces_nothing_is_handed_over() {
        let mut input = input(Role::Server);
        let mut first = frame(FrameKind::Binary, KEY, b"one");
        first[0] &= 0x7f;
        let mut last = frame(FrameKind::Binary, KEY, b"two");
        last[0] = 0x80;
        let (ping, message) =
            (frame(FrameKind::Ping, KEY, b"?"), frame(FrameKind::Binary, KEY, b"after"));
        fill(&mut input, &[&first[..], &ping, &last, &message].concat());
        for frame in [&first, &ping, &last] {
            assert_eq!(input.whole_message(), None);
            assert_eq!(given(&mut input), *frame);
        }
        assert_eq!(input.whole_message(), Some(&b"after"[..]));
        // A whole message between the pieces breaks the protocol, which is for tungstenite to say.
        fill(&mut input, &[&first[..], &message].concat());
        assert_eq!(given(&mut input), first);
        assert_eq!(input.whole_message(), None);
        assert_eq!(given(&mut input), message);
    }

    #[test]
    fn a_handshake_gives_out_no_frame_and_a_refusal_all() {
        let switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        let mut input = Input::new(&[]);
        fill(&mut input, &switching[..20]);
        assert!(input.needs_more());
        fill(&mut input, &[&switching[20..], b"\x82\x05hello"].concat());
        assert!(!input.needs_more());
        let mut buffer = [0; 200];
        let len = input.give(&mut buffer);
        assert_eq!(buffer[..len], switching[..]);
        input.expect_frames(Role::Client, 100);
        assert_eq!(input.whole_message(), Some(&b"hello"[..]));
        let refusal = b"HTTP/1.1 401 Unauthorized\r\n\r\nwrong token";
        let mut input = Input::new(refusal);
        assert_eq!(input.give(&mut buffer), refusal.len());
    }
}
