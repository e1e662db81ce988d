//! TLS to PostgreSQL, over the traits that the `postgres` crate asks of one.
//!
//! Trust and files are the business of `net/stream/tls/`. Nothing of ours waits
//! here: what is polled is polled by that crate, on the thread that owns the connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use postgres::{Client, Config, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{Connect, TlsConnector, client};

use super::connector::SslParameters;
use super::session::NoSession;
use crate::net::stream::tls::{CertificateFiles, PeerTrust, client_config};

/// Which servers to trust, and the certificate to show.
#[derive(Clone)]
pub(super) struct PgTls {
    trust: PeerTrust,
    files: Option<CertificateFiles>,
}

impl PgTls {
    /// # Errors
    /// A file cannot be used; the text names it.
    pub(super) fn new(ssl: &SslParameters) -> Result<Self, String> {
        let trust = match (&ssl.root_cert, ssl.mode.as_deref()) {
            (None, _) => PeerTrust::Any,
            (Some(ca), Some("verify-full")) => PeerTrust::Named(ca.into()),
            (Some(ca), _) => PeerTrust::Authority(ca.into()),
        };
        let files = ssl.cert.as_ref().zip(ssl.key.as_ref());
        let files = files.map(|(certificate, key)| CertificateFiles {
            certificate: certificate.into(),
            key: key.into(),
        });
        client_config(&trust, files.as_ref()).map_err(|error| error.to_string())?;
        Ok(Self { trust, files })
    }

    /// Connects with what the files hold now, so that certificates can be renewed.
    pub(super) fn connect(&self, config: &Config) -> Result<Client, NoSession> {
        let tls = client_config(&self.trust, self.files.as_ref());
        let tls = tls.map_err(|error| NoSession::Io(io::Error::other(error)))?;
        Ok(config.connect(PgTlsMaker(TlsConnector::from(tls)))?)
    }
}

struct PgTlsMaker(TlsConnector);

/// TLS for one connection, before it is made.
struct PgTlsConnect {
    connector: TlsConnector,
    host: ServerName<'static>,
}

impl MakeTlsConnect<Socket> for PgTlsMaker {
    type Stream = PgTlsStream;
    type TlsConnect = PgTlsConnect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<PgTlsConnect> {
        let host = ServerName::try_from(host.to_owned());
        let host = host.map_err(|_| io::Error::other("the host has no valid name"))?;
        Ok(PgTlsConnect { connector: self.0.clone(), host })
    }
}

impl TlsConnect<Socket> for PgTlsConnect {
    type Stream = PgTlsStream;
    type Error = io::Error;
    type Future = PgHandshake;

    fn connect(self, socket: Socket) -> PgHandshake {
        PgHandshake(self.connector.connect(self.host, socket))
    }
}

struct PgHandshake(Connect<Socket>);

impl Future for PgHandshake {
    type Output = io::Result<PgTlsStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(PgTlsStream)
    }
}

/// A connection over TLS.
struct PgTlsStream(client::TlsStream<Socket>);

impl TlsStream for PgTlsStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for PgTlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PgTlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
