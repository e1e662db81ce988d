//! Writes MessagePack in its shortest forms into a `Vec`: the primitive under every encoder of
//! ours.

use rmp::encode;

use crate::base::shared_bytes::{OutMessage, SharedBytes};
use crate::base::spare;

/// Writing into a `Vec` cannot fail; `rmp` merely has a `Result` because other writers can.
fn infallible<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok(), "writing into a Vec cannot fail");
}

/// Appends MessagePack to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Of a message: may take a large part as it is, and where it stands between the others.
    is_message: bool,
    part: Option<(usize, SharedBytes)>,
}

impl Writer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), ..Self::default() }
    }

    /// The same for a message, whose large part is not copied; [`Writer::into_message`] ends it.
    /// Nothing that stands before that part may be changed after it, such as the head of a
    /// container that is still open.
    pub(crate) fn of_message(capacity: usize) -> Self {
        Self { is_message: true, ..Self::reusing(capacity) }
    }

    /// The message that was written.
    pub(crate) fn into_message(self) -> OutMessage {
        let mut before = self.bytes;
        let shared = self.part.map(|(at, part)| {
            let behind = before.split_off(at);
            Box::new((part, behind))
        });
        OutMessage { before, shared }
    }

    /// As [`Writer::with_capacity`], for what is sent soon and then given back; see [`spare`].
    pub fn reusing(capacity: usize) -> Self {
        Self { bytes: spare::buffer(capacity), ..Self::default() }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// nil
    pub fn nil(&mut self) {
        infallible(encode::write_nil(&mut self.bytes));
    }

    /// true or false
    pub fn boolean(&mut self, value: bool) {
        infallible(encode::write_bool(&mut self.bytes, value));
    }

    /// A whole number.
    pub fn unsigned(&mut self, value: u64) {
        infallible(encode::write_uint(&mut self.bytes, value));
    }

    /// A whole number.
    pub fn integer(&mut self, value: i64) {
        infallible(encode::write_sint(&mut self.bytes, value));
    }

    /// A 4-byte float.
    pub fn f32(&mut self, value: f32) {
        infallible(encode::write_f32(&mut self.bytes, value));
    }

    /// An 8-byte float.
    pub fn f64(&mut self, value: f64) {
        infallible(encode::write_f64(&mut self.bytes, value));
    }

    /// Text.
    pub fn text(&mut self, value: &str) {
        infallible(encode::write_str(&mut self.bytes, value));
    }

    /// The head of an array; its items follow.
    ///
    /// # Panics
    /// Never in practice: more than 2³² items do not fit into any message.
    pub fn array(&mut self, len: usize) {
        let len = u32::try_from(len).expect("no message has room for 2^32 items");
        infallible(encode::write_array_len(&mut self.bytes, len));
    }

    /// The head of a map; its keys and values follow in turn.
    ///
    /// # Panics
    /// Never in practice: more than 2³² items do not fit into any message.
    pub fn map(&mut self, len: usize) {
        let len = u32::try_from(len).expect("no message has room for 2^32 items");
        infallible(encode::write_map_len(&mut self.bytes, len));
    }

    /// The head of an enum variant with a value: a map of one pair whose key is written here.
    pub fn variant(&mut self, name: &str) {
        self.map(1);
        self.text(name);
    }

    /// A value that is MessagePack already.
    pub fn encoded(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The same, which is not copied if it is large and this is a message.
    pub(crate) fn shared(&mut self, bytes: &SharedBytes) {
        if self.is_message && self.part.is_none() && bytes.is_shared() {
            self.part = Some((self.bytes.len(), bytes.clone()));
        } else {
            self.encoded(bytes);
        }
    }

    /// Takes back what was written from a place on.
    pub(crate) fn split_off(&mut self, at: usize) -> Vec<u8> {
        self.bytes.split_off(at)
    }

    /// Starts a container whose length is not known yet; [`Writer::close_array`] or
    /// [`Writer::close_map`] puts its head.
    pub fn open(&mut self) -> Open {
        let at = self.bytes.len();
        // Room for the shortest head, which is what most containers need.
        self.bytes.push(0);
        Open { at }
    }

    /// Puts the head of an array that [`Writer::open`] started.
    ///
    /// # Panics
    /// Never in practice: more than 2³² items do not fit into any message.
    pub fn close_array(&mut self, open: Open, len: usize) {
        let len = u32::try_from(len).expect("no message has room for 2^32 items");
        self.put_head(open, |mut head| {
            infallible(encode::write_array_len(&mut head, len));
            head.len()
        });
    }

    /// Puts the head of a map that [`Writer::open`] started.
    ///
    /// # Panics
    /// Never in practice: more than 2³² items do not fit into any message.
    pub fn close_map(&mut self, open: Open, len: usize) {
        let len = u32::try_from(len).expect("no message has room for 2^32 items");
        self.put_head(open, |mut head| {
            infallible(encode::write_map_len(&mut head, len));
            head.len()
        });
    }

    /// `write` fills a head in and returns how much room it left.
    ///
    /// A head of more than a byte moves what stands behind it: once for each container of more than
    /// 15 items.
    fn put_head(&mut self, open: Open, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut head = [0; 5];
        let unused = write(&mut head);
        self.bytes.splice(open.at..=open.at, head[..head.len() - unused].iter().copied());
    }
}

/// The place of a head that is still to be filled in.
#[derive(Debug)]
#[must_use = "an open container must be closed"]
pub struct Open {
    at: usize,
}
