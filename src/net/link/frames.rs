//! Frames as they leave: a header and a payload, masked where the role asks for it (RFC 6455, 5.2
//! and 5.3).
//!
//! Only the writing half is here, and it is short because we never send a message in pieces. What
//! comes in is tungstenite's affair, with all that a peer can do wrong there.

use tungstenite::protocol::Role;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::base::random;
use crate::base::shared_bytes::{OutMessage, SharedBytes};

/// Random bytes that are asked of the operating system at once: keys for so many frames.
const KEYS_AT_ONCE: usize = 512;

/// What a frame of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Binary,
    Text,
    Ping,
    Close,
}

impl FrameKind {
    fn opcode(self) -> OpCode {
        match self {
            FrameKind::Binary => OpCode::Data(Data::Binary),
            FrameKind::Text => OpCode::Data(Data::Text),
            FrameKind::Ping => OpCode::Control(Control::Ping),
            FrameKind::Close => OpCode::Control(Control::Close),
        }
    }
}

/// A key that a client masks one frame with.
pub(super) type Key = [u8; 4];

/// A part of what leaves, in order.
#[derive(Debug)]
pub(super) enum OutPart {
    /// As it leaves: whole frames, or the beginning of one.
    Frames(Vec<u8>),
    /// A part of a payload, which is to be masked with this key while it leaves, if there is one:
    /// in pieces that stay in a processor's cache, and others may share the bytes.
    Payload(SharedBytes, Option<Key>),
}

impl OutPart {
    pub(super) fn len(&self) -> usize {
        match self {
            OutPart::Frames(bytes) => bytes.len(),
            OutPart::Payload(bytes, _) => bytes.len(),
        }
    }

    /// Its bytes as they leave.
    #[cfg(test)]
    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) {
        match self {
            OutPart::Frames(frames) => bytes.extend_from_slice(frames),
            OutPart::Payload(payload, key) => append_masked(bytes, *key, payload),
        }
    }
}

/// Appends the beginning of a large message's frame; returns the rest of it, to leave behind that.
pub(super) fn append_large(
    frames: &mut Vec<u8>,
    kind: FrameKind,
    key: Option<Key>,
    message: OutMessage,
) -> Vec<OutPart> {
    append_header(frames, kind, key, message.len());
    let OutMessage { before, shared } = message;
    let (part, behind) = shared.map_or_else(Default::default, |shared| *shared);
    let (mut parts, mut at) = (Vec::with_capacity(2), 0);
    for bytes in [before.into(), part, behind.into()] {
        let key = key.map(|key| turned(key, at));
        at += bytes.len();
        if parts.is_empty() && !bytes.is_shared() {
            append_masked(frames, key, &bytes);
        } else if !bytes.is_empty() {
            parts.push(OutPart::Payload(bytes, key));
        }
    }
    parts
}

/// Appends a whole frame.
pub(super) fn append(frames: &mut Vec<u8>, kind: FrameKind, key: Option<Key>, payload: &[u8]) {
    append_header(frames, kind, key, payload.len());
    append_masked(frames, key, payload);
}

/// Appends a payload, masked if there is a key.
pub(super) fn append_masked(frames: &mut Vec<u8>, key: Option<Key>, payload: &[u8]) {
    let begin = frames.len();
    frames.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut frames[begin..], key);
    }
}

fn append_header(frames: &mut Vec<u8>, kind: FrameKind, key: Option<Key>, payload_bytes: usize) {
    let header = FrameHeader { opcode: kind.opcode(), mask: key, ..FrameHeader::default() };
    // Writing into memory does not fail.
    let _ = header.format(payload_bytes as u64, frames);
}

/// The key for what stands so far behind the beginning of a payload.
pub(super) fn turned(mut key: Key, by: usize) -> Key {
    key.rotate_left(by % size_of::<Key>());
    key
}

/// Masks a payload.
pub(super) fn mask(payload: &mut [u8], key: Key) {
    let mut blocks = payload.chunks_exact_mut(8);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    for block in &mut blocks {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*block) {
            block.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in blocks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Where the keys of one side come from: a server has none, a client a new one for each frame,
/// which cannot be foreseen.
#[derive(Debug, Default)]
pub(super) struct Keys {
    random: Option<Box<[Key; KEYS_AT_ONCE]>>,
    used: usize,
}

impl Keys {
    pub(super) fn new(role: Role) -> Self {
        let random = (role == Role::Client).then(|| Box::new([[0; 4]; KEYS_AT_ONCE]));
        Self { random, used: KEYS_AT_ONCE }
    }

    pub(super) fn next(&mut self) -> Option<Key> {
        let keys = self.random.as_mut()?;
        if self.used == KEYS_AT_ONCE {
            random::fill(keys.as_flattened_mut());
            self.used = 0;
        }
        self.used += 1;
        Some(keys[self.used - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::protocol::frame::FrameSocket;

    #[test]
    fn frames_of_every_length_read_back_as_they_were() {
        for len in [0, 1, 7, 8, 9, 125, 126, 65_535, 65_536, 70_001] {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            for key in [None, Some([1, 2, 3, 250])] {
                let mut bytes = Vec::new();
                append(&mut bytes, FrameKind::Binary, key, &payload);
                // The same with parts of it apart, at places of every kind.
                for middle in [0, len / 2, len - len / 3] {
                    let (before, rest) = payload.split_at(middle.min(101));
                    let (part, behind) = rest.split_at(rest.len() - rest.len() / 7);
                    let shared = Box::new((part.to_vec().into(), behind.to_vec()));
                    let message = OutMessage { before: before.to_vec(), shared: Some(shared) };
                    let mut whole = Vec::new();
                    let parts = append_large(&mut whole, FrameKind::Binary, key, message);
                    parts.iter().for_each(|part| part.append_to(&mut whole));
                    assert!(bytes == whole, "{len} bytes, parted at {middle}");
                }
                let frame =
                    FrameSocket::new(&bytes[..]).read(None).expect("in order").expect("whole");
                assert_eq!((frame.header().mask, frame.header().is_final), (key, true));
                let mut read = frame.payload().to_vec();
                read.iter_mut()
                    .zip(key.unwrap_or_default().iter().cycle())
                    .for_each(|(byte, key)| *byte ^= key);
                assert_eq!(read, payload);
            }
        }
    }

    #[test]
    fn a_client_has_a_new_key_for_each_frame_and_a_server_none() {
        assert_eq!(Keys::new(Role::Server).next(), None);
        let mut keys = Keys::new(Role::Client);
        let all: std::collections::HashSet<_> =
            (0..3 * KEYS_AT_ONCE).map(|_| keys.next().expect("a key")).collect();
        // Of 1,536 keys of 32 bits hardly two are the same.
        assert!(all.len() > 3 * KEYS_AT_ONCE - 10, "{}", all.len());
    }
}
