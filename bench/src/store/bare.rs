//! The floor of an exchange over HTTP: the same bytes there and back on a kept-alive connection, by
//! a client and a server of a few lines each, with a thread for each connection and blocking calls,
//! and nothing that looks at what they say.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use mesophyll::wire::pack::shape::Encode;

use super::contents::{Op, Picker};
use crate::load::Caller;
use crate::serve::{Buffer, Server, TOKEN};

/// A server that gives one answer, and the request that it is asked with.
pub struct BareExchange {
    server: Server,
    request: Vec<u8>,
}

impl BareExchange {
    /// One whose messages have the bytes of those that a worker and the master at `address`
    /// exchange.
    pub fn like(address: SocketAddr, op: Op) -> Result<Self, String> {
        let (tenant, op) = Picker::new(0).operation(op);
        let body = op.to_bytes();
        let head = format!(
            "POST /db/kv?id=0&token={TOKEN}&tenant_type={}&tenant_id={} HTTP/1.1\r\naccept: */*\r\nhost: {address}\r\n\
             content-length: {}\r\n\r\n",
            tenant.kind().as_str(),
            tenant.snowflake(),
            body.len()
        );
        let request = [head.as_bytes(), &body].concat();
        let answer = ask(address, &request).map_err(|error| error.to_string())?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(format!("the master answered {}", String::from_utf8_lossy(&answer)));
        }
        Ok(Self { server: Server::bare(&answer)?, request })
    }

    pub fn callers(&self, number: usize) -> Result<Vec<Caller<'_>>, String> {
        (0..number).map(|_| self.caller().map_err(|error| error.to_string())).collect()
    }

    fn caller(&self) -> std::io::Result<Caller<'_>> {
        let mut socket = TcpStream::connect(self.server.address)?;
        socket.set_nodelay(true)?;
        let mut buffer = Buffer::new();
        Ok(Box::new(move || {
            let asked =
                socket.write_all(&self.request).and_then(|()| buffer.message(&mut socket, |_| ()));
            asked.map_err(|error| error.to_string())
        }))
    }
}

/// One exchange; gives the answer's bytes.
fn ask(address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(request)?;
    Buffer::new().message(&mut socket, <[u8]>::to_vec)
}
