//! The product's `net/`, as far as it is checked.

#[path = "../../../../src/net/broker.rs"]
pub mod broker;
pub mod broker_models;
pub mod link;

/// In the place of the product's: what a broker hands out is a socket.
pub mod stream {
    pub type Stream = std::os::unix::net::UnixStream;
}
