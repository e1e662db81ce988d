//! A request's body, read when the handler asks for it and never before.
//!
//! The handler sees [`Body`]; where its bytes come from is a [`BodySource`], one per framing. Used
//! on the connection's thread while its handler runs.

use std::borrow::Cow;
use std::fmt;

/// Why a body could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than the handler allows. Nothing of it was read. Status 413.
    TooLarge,
    /// A method with a body came without a Content-Length. Status 411.
    LengthRequired,
    /// It did not arrive within the deadline for bodies. Status 408.
    Timeout,
    /// Its chunks are none. Status 400.
    Malformed,
    /// The handler has no room for so much of it. Status 503.
    NoRoom,
    /// The peer went away in the middle. No answer will reach it.
    Disconnected,
}

impl BodyError {
    /// The status that says so.
    pub fn status(self) -> u16 {
        match self {
            BodyError::TooLarge => 413,
            BodyError::LengthRequired => 411,
            BodyError::Timeout => 408,
            BodyError::Disconnected | BodyError::Malformed => 400,
            BodyError::NoRoom => 503,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::TooLarge => "the body is too large",
            BodyError::LengthRequired => "the request needs a Content-Length",
            BodyError::Timeout => "the body took too long",
            BodyError::Disconnected => "the body is cut short",
            BodyError::Malformed => "the body's chunks are malformed",
            BodyError::NoRoom => "too many requests are under way",
        })
    }
}

impl std::error::Error for BodyError {}

/// Where a body's bytes come from.
pub(super) trait BodySource {
    /// How many bytes the peer announced, none if the body comes in chunks; `None` if it should
    /// have and did not.
    fn announced(&self) -> Option<u64>;

    /// Reads all announced bytes, which the caller has found to be few enough, or all chunks, if
    /// they are: `room` is asked before they take so many bytes of memory.
    fn read(
        &mut self,
        max_bytes: usize,
        room: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Vec<u8>, BodyError>;
}

/// The body of the request that is being handled.
pub struct Body<'a> {
    source: BodyOrigin<'a>,
}

enum BodyOrigin<'a> {
    Peer(&'a mut dyn BodySource),
    Bytes(&'a [u8]),
}

impl<'a> Body<'a> {
    pub(super) fn new(source: &'a mut dyn BodySource) -> Self {
        Self { source: BodyOrigin::Peer(source) }
    }

    /// A body that is there already: one that was read before a handler was asked.
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        Self { source: BodyOrigin::Bytes(bytes) }
    }

    /// How many bytes are to come, before anything is read; 0 of a body in chunks, as its head does
    /// not tell it.
    ///
    /// # Errors
    /// The method has a body and no length was given.
    pub fn announced_bytes(&self) -> Result<u64, BodyError> {
        match &self.source {
            BodyOrigin::Peer(source) => source.announced().ok_or(BodyError::LengthRequired),
            BodyOrigin::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Reads the whole body, at most `max_bytes`; a second call finds it empty. Invites a peer that
    /// waits for `100 Continue` to send it.
    ///
    /// # Blocks
    /// Until it is there, or the server's deadline for bodies.
    ///
    /// # Errors
    /// See [`BodyError`]; the connection is closed after the handler's answer.
    pub fn read_to_end(&mut self, max_bytes: usize) -> Result<Vec<u8>, BodyError> {
        self.read_within(max_bytes, &mut |_| true).map(Cow::into_owned)
    }

    /// As [`Body::read_to_end`]; `room` is asked before a body in chunks takes so many bytes of
    /// memory, and may say no.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub fn read_within(
        &mut self,
        max_bytes: usize,
        room: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Cow<'a, [u8]>, BodyError> {
        if self.announced_bytes()? > max_bytes as u64 {
            return Err(BodyError::TooLarge);
        }
        match &mut self.source {
            BodyOrigin::Peer(source) => source.read(max_bytes, room).map(Cow::Owned),
            BodyOrigin::Bytes(bytes) => Ok(Cow::Borrowed(std::mem::take(bytes))),
        }
    }
}
