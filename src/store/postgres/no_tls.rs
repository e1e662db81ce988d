//! TLS to PostgreSQL in a build without it: none can be made. The same names as in `tls.rs`.

use postgres::{Client, Config};

use super::connector::SslParameters;
use super::session::NoSession;

/// There is none.
#[derive(Clone)]
pub(super) enum PgTls {}

impl PgTls {
    pub(super) fn new(ssl: &SslParameters) -> Result<Self, String> {
        let SslParameters { mode, .. } = ssl;
        let mode = mode.as_deref().unwrap_or_default();
        Err(format!("sslmode={mode}: this build needs the feature `postgres-tls` for it"))
    }

    pub(super) fn connect(&self, _: &Config) -> Result<Client, NoSession> {
        match *self {}
    }
}
