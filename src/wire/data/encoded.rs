//! Values that travel as bytes: checked once where they enter, decoded only by the side that looks
//! inside.
//!
//! A 2-KiB value costs more to turn into a tree and back than the whole round trip around it, so a
//! master never decodes an event's data or a result. The functions that look inside are in `wire/`.

use std::fmt;

use crate::base::shared_bytes::SharedBytes;

/// The MessagePack encoding of one `KhronosValue`.
///
/// Invariant: the bytes are exactly one value in its canonical form (protocol.md: "Encoding"), of
/// which equal values have equal bytes; only `wire/` makes them, or code that writes
/// `wire::walk::Token`s, or reads back what they made.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedValue(SharedBytes);

/// The MessagePack encoding of one plain JSON value (no bin, no ext, string keys only).
///
/// Invariant: the bytes are exactly one plain value. Key order and header widths are the sender's.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedJson(SharedBytes);

macro_rules! encoded {
    ($name:ident, $null:expr) => {
        impl $name {
            /// Takes bytes that the caller checked, or got from the place that did.
            pub(crate) fn from_checked(bytes: impl Into<SharedBytes>) -> Self {
                Self(bytes.into())
            }

            /// The encoding of null.
            pub fn null() -> Self {
                Self($null.to_vec().into())
            }

            /// The MessagePack bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The MessagePack bytes.
            pub fn into_bytes(self) -> Vec<u8> {
                self.0.into_vec()
            }

            /// The MessagePack bytes, as they are shared.
            pub(crate) fn shared(&self) -> &SharedBytes {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            // The length only: values are tenants' data and do not belong into logs.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}

encoded!(EncodedValue, b"\xa4Null");
encoded!(EncodedJson, b"\xc0");
