//! HTTP/2 against real sockets, with frames that are written by hand.

mod attacks;
mod bounds;
mod peer;
mod requests;
mod stop;
