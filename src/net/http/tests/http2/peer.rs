//! A client that speaks HTTP/2 frame by frame, and breaks any rule that a test wants broken. Fields
//! are literals without an index, and it tells the server to keep no table.

use std::collections::VecDeque;
use std::io::{Read, Write};

use crate::net::http::tests::support::{Fixture, PATIENCE};
use crate::net::stream::Stream;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// Settings by which a peer takes nothing, or as much as there is.
pub(super) const NO_WINDOW: (u16, u32) = (4, 0);
pub(super) const WIDE_WINDOW: (u16, u32) = (4, 0x7fff_ffff);

const NO_TABLE: (u16, u32) = (1, 0);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// Why a stream or the connection ended.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("a code"))
    }

    fn ends(&self) -> bool {
        self.kind == RESET || (self.kind <= HEADERS && self.flags & END_STREAM != 0)
    }
}

/// How a stream ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    /// 0 if there was none.
    pub(super) status: u16,
    pub(super) length: Option<usize>,
    pub(super) body: Vec<u8>,
    pub(super) reset: Option<u32>,
}

pub(super) struct Http2Peer {
    pub(super) stream: Stream,
    bytes: Vec<u8>,
    /// Frames that came while others were waited for.
    kept: VecDeque<Frame>,
    next_stream: u32,
    /// Makes room for what it reads, and acknowledges what wants to be.
    pub(super) is_polite: bool,
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub(super) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let pair = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    settings.iter().flat_map(pair).collect()
}

/// A field block.
pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn length(length: usize, block: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(u8::try_from(length).expect("less than 127"));
    };
    block.push(127);
    while rest >= 128 {
        block.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

pub(super) fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")];
    fields(&[&usual[..], more].concat())
}

impl Fixture {
    pub(super) fn connect_http2(&self, set: &[(u16, u32)]) -> Http2Peer {
        let mut peer = Http2Peer {
            stream: self.connect().stream,
            bytes: Vec::new(),
            kept: VecDeque::new(),
            next_stream: 1,
            is_polite: true,
        };
        peer.stream.set_nodelay().expect("a socket");
        let settings = settings(&[&[NO_TABLE], set].concat());
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        peer.send(&frame(SETTINGS, 0, 0, &settings));
        peer
    }
}

impl Http2Peer {
    /// Sends; false if the server has closed or takes nothing.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Begins a request; its stream.
    pub(super) fn begin(&mut self, method: &str, path: &str, more: &[(&str, &str)]) -> u32 {
        self.send_head(&head(method, path, more), END_HEADERS)
    }

    /// Sends a request without a body; its stream.
    pub(super) fn get(&mut self, path: &str) -> u32 {
        self.send_head(&head("GET", path, &[]), END_HEADERS | END_STREAM)
    }

    pub(super) fn send_head(&mut self, block: &[u8], flags: u8) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.send(&frame(HEADERS, flags, stream, block));
        stream
    }

    /// Sends a piece of a body; false if the connection has ended.
    pub(super) fn data(&mut self, stream: u32, data: &[u8], flags: u8) -> bool {
        self.send(&frame(DATA, flags, stream, data))
    }

    pub(super) fn reset(&mut self, stream: u32) {
        self.send(&frame(RESET, 0, stream, &8_u32.to_be_bytes()));
    }

    pub(super) fn widen(&mut self, stream: u32, bytes: u32) {
        self.send(&frame(WINDOW, 0, stream, &bytes.to_be_bytes()));
    }

    /// The next frame; `None` at the connection's end.
    pub(super) fn next(&mut self) -> Option<Frame> {
        match self.kept.pop_front() {
            Some(frame) => Some(frame),
            None => self.read(),
        }
    }

    fn read(&mut self) -> Option<Frame> {
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut buffer = [0; 65_536];
        loop {
            if let Some(length) = self
                .bytes
                .get(..9)
                .map(|head| 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)
                && self.bytes.len() >= length
            {
                let whole: Vec<u8> = self.bytes.drain(..length).collect();
                let stream = whole[5..9].try_into().expect("four bytes");
                let frame = Frame {
                    kind: whole[3],
                    flags: whole[4],
                    stream: u32::from_be_bytes(stream),
                    payload: whole[9..].to_vec(),
                };
                self.react(&frame);
                return Some(frame);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(got) => self.bytes.extend_from_slice(&buffer[..got]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the server says nothing")
                }
                Err(_) => return None,
            }
        }
    }

    fn react(&mut self, frame: &Frame) {
        if !self.is_polite {
            return;
        }
        match frame.kind {
            DATA if !frame.payload.is_empty() => {
                let bytes = u32::try_from(frame.payload.len()).expect("a frame");
                self.widen(0, bytes);
                if !frame.ends() {
                    self.widen(frame.stream, bytes);
                }
            }
            SETTINGS | PING if frame.flags & ACK == 0 => {
                let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
                self.send(&super::peer::frame(frame.kind, ACK, 0, payload));
            }
            _ => {}
        }
    }

    /// Waits for a frame of this kind; frames of other kinds are kept for later.
    pub(super) fn until(&mut self, kind: u8) -> Frame {
        let is_it = |frame: &Frame| frame.kind == kind;
        if let Some(at) = self.kept.iter().position(is_it) {
            return self.kept.remove(at).expect("it is there");
        }
        loop {
            let frame = self.read().unwrap_or_else(|| panic!("it ends before a frame {kind}"));
            if is_it(&frame) {
                return frame;
            }
            self.kept.push_back(frame);
        }
    }

    /// Waits for the end of a stream; frames of others are kept.
    pub(super) fn ending(&mut self, stream: u32) -> Ending {
        let mut ending = Ending::default();
        let mut others = VecDeque::<Frame>::new();
        loop {
            let Some(frame) = self.next() else {
                let said = others.iter().rev().find(|frame| frame.kind == GOAWAY);
                panic!("it ends with {said:?} before stream {stream}");
            };
            if frame.stream != stream || frame.kind == WINDOW {
                others.push_back(frame);
                continue;
            }
            match frame.kind {
                HEADERS => (ending.status, ending.length) = status_and_length(&frame.payload),
                DATA => ending.body.extend_from_slice(&frame.payload),
                RESET => ending.reset = Some(frame.code()),
                _ => {}
            }
            if frame.ends() {
                others.append(&mut self.kept);
                self.kept = others;
                return ending;
            }
        }
    }

    /// All frames up to the connection's end, which must come.
    pub(super) fn until_end(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The code of the last GOAWAY before the connection's end.
    pub(super) fn farewell(&mut self) -> Option<u32> {
        let frames = self.until_end();
        frames.iter().rev().find(|frame| frame.kind == GOAWAY).map(Frame::code)
    }

    /// Whether the connection still serves.
    pub(super) fn is_served(&mut self) -> bool {
        let stream = self.get("/hello");
        self.ending(stream).status == 200
    }
}

/// Two fields of a block without references to a table of its own.
fn status_and_length(block: &[u8]) -> (u16, Option<usize>) {
    let mut rest = block;
    let (mut status, mut length) = (0, None);
    while let Some(&first) = rest.first() {
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let name = integer(&mut rest, bits);
        if bits == 7 {
            let known = [200, 204, 206, 304, 400, 404, 500];
            status = known.get(name.wrapping_sub(8)).copied().unwrap_or(status);
        } else if bits != 5 {
            if name == 0 {
                text(&mut rest);
            }
            let value = text(&mut rest);
            match name {
                8..=14 => status = value.parse().expect("a status"),
                28 => length = Some(value.parse().expect("a length")),
                _ => {}
            }
        }
    }
    (status, length)
}

fn integer(rest: &mut &[u8], bits: u32) -> usize {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(rest[0]) & mask;
    *rest = &rest[1..];
    let mut shift = 0;
    while value >= mask {
        let byte = usize::from(rest[0]);
        *rest = &rest[1..];
        value += (byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            break;
        }
    }
    value
}

/// A text; of one in Huffman's code the digits at its beginning.
fn text(rest: &mut &[u8]) -> String {
    let is_huffman = rest[0] >= 0x80;
    let length = integer(rest, 7);
    let (raw, after) = rest.split_at(length);
    *rest = after;
    if !is_huffman {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let bits: Vec<usize> = raw
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| usize::from(byte >> at & 1)))
        .collect();
    let number = |bits: &[usize]| bits.iter().fold(0, |number, bit| number * 2 + bit);
    let (mut at, mut digits) = (0, String::new());
    while let Some(five) = bits.get(at..at + 5).map(number) {
        let (digit, used) = match (five, bits.get(at..at + 6).map(number)) {
            (0..=2, _) => (five, 5),
            (_, Some(six @ 0x19..=0x1f)) => (six - 0x19 + 3, 6),
            _ => break,
        };
        digits.push_str(&digit.to_string());
        at += used;
    }
    digits
}
