//! TLS 1.3 for the connections of both ports and of those that connect to them: certificates of an
//! authority that the operator names, nothing older, and no resumption.
//!
//! A [`Stream`] over TLS is used as any other (`session`); here is how one is made.

mod expiry;
mod files;
mod session;
mod trust;
mod words;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use self::files::FileStamps;
pub use self::files::{CertificateFiles, TlsError};
pub use self::session::TlsStream;
pub use self::trust::{PeerTrust, client_config};
use crate::base::sync::Lock;
use crate::net::stream::Stream;

/// The only place that says what computes: ring.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A port's side of TLS.
pub struct TlsServer {
    files: CertificateFiles,
    /// Authorities of those that connect, which must show a certificate of theirs.
    client_ca: Option<PathBuf>,
    used: Lock<UsedCertificate>,
    /// Of the certificate that is used, in seconds since 1970.
    not_after: AtomicI64,
}

struct UsedCertificate {
    config: Arc<ServerConfig>,
    stamp: FileStamps,
}

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsServer({})", self.files)
    }
}

impl TlsServer {
    /// With the certificate of these files; with `client_ca` a peer must show one of that
    /// authority's.
    ///
    /// # Errors
    /// A file cannot be read or used, or others can read the key.
    pub fn new(files: CertificateFiles, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let stamp = files::stamp(Some(&files), client_ca);
        let (config, not_after) = server_config(&files, client_ca)?;
        let used = Lock::new(UsedCertificate { config, stamp });
        let (client_ca, not_after) = (client_ca.map(Path::to_owned), AtomicI64::new(not_after));
        Ok(Self { files, client_ca, used, not_after })
    }

    /// Makes TLS of a connection that was accepted.
    ///
    /// # Blocks
    /// Until the handshake is done, or `deadline`; `shutdown` of the socket is the wake-up.
    ///
    /// # Errors
    /// The peer speaks no TLS 1.3, shows no certificate that it should, or is too slow.
    pub fn accept(&self, socket: Arc<Stream>, deadline: Instant) -> io::Result<Stream> {
        let config = self.used.lock().config.clone();
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        let stream = TlsStream::handshake(socket, session.into(), deadline)?;
        Ok(Stream::Tls(Arc::new(stream)))
    }

    /// Uses what the files hold now, for connections to come; says whether that is something else.
    ///
    /// # Errors
    /// They cannot be used, for example as only one of them has been written yet, or as they have
    /// ended and what was used has not: that is used on.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let client_ca = self.client_ca.as_deref();
        let stamp = files::stamp(Some(&self.files), client_ca);
        if stamp == self.used.lock().stamp {
            return Ok(false);
        }
        let (config, not_after) = server_config(&self.files, client_ca)?;
        if has_ended(not_after) && !has_ended(self.not_after()) {
            let path = self.files.certificate.display();
            return Err(TlsError(format!("{path}: this certificate has ended already")));
        }
        *self.used.lock() = UsedCertificate { config, stamp };
        self.not_after.store(not_after, Ordering::Relaxed);
        Ok(true)
    }

    /// When the certificate that is used ends, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after.load(Ordering::Relaxed)
    }

    /// Its files, for the log.
    pub fn files(&self) -> &CertificateFiles {
        &self.files
    }
}

fn has_ended(not_after: i64) -> bool {
    not_after < UnixTime::now().as_secs() as i64
}

fn server_config(
    files: &CertificateFiles,
    client_ca: Option<&Path>,
) -> Result<(Arc<ServerConfig>, i64), TlsError> {
    let identity = files.read()?;
    let path = files.certificate.display();
    let not_after = identity.chain.first().and_then(|first| expiry::not_after(first));
    let not_after = not_after.ok_or_else(|| TlsError(format!("{path}: it is no certificate")))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError(error.to_string()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = files::roots(ca)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let verifier = verifier.map_err(|error| TlsError(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(identity.chain, identity.key);
    let mut config = config.map_err(|error| TlsError(format!("{files}: {}", words::of(&error))))?;
    // What comes unasked makes a connection that is not used look as if it could not be.
    config.send_tls13_tickets = 0;
    #[cfg(feature = "http2")]
    config.alpn_protocols.push(b"h2".to_vec());
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok((Arc::new(config), not_after))
}

/// The side of TLS of those that connect: with what its files hold when it does.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientFiles>);

struct ClientFiles {
    trust: PeerTrust,
    ca: PathBuf,
    certificate: Option<CertificateFiles>,
    used: Lock<UsedByClient>,
}

struct UsedByClient {
    config: Arc<ClientConfig>,
    not_after: Option<i64>,
    stamp: FileStamps,
    /// Of files that could not be used, which is said once.
    failed: Option<FileStamps>,
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsClient")
    }
}

impl ClientFiles {
    fn stamp(&self) -> FileStamps {
        files::stamp(self.certificate.as_ref(), Some(&self.ca))
    }
}

impl UsedByClient {
    fn read(
        trust: &PeerTrust,
        certificate: Option<&CertificateFiles>,
        stamp: FileStamps,
    ) -> Result<Self, TlsError> {
        let config = client_config(trust, certificate)?;
        let chain = certificate.map(|files| files.read()).transpose()?;
        let not_after = chain.and_then(|read| expiry::not_after(read.chain.first()?));
        Ok(Self { config, not_after, stamp, failed: None })
    }
}

impl TlsClient {
    /// Trusts the authorities of this file, and shows the certificate of those.
    ///
    /// # Errors
    /// A file cannot be read or used, or others can read the key.
    pub fn new(ca: &Path, certificate: Option<&CertificateFiles>) -> Result<Self, TlsError> {
        let trust = PeerTrust::Named(ca.to_owned());
        let stamp = files::stamp(certificate, Some(ca));
        let used = Lock::new(UsedByClient::read(&trust, certificate, stamp)?);
        let (ca, certificate) = (ca.to_owned(), certificate.cloned());
        Ok(Self(Arc::new(ClientFiles { trust, ca, certificate, used })))
    }

    /// Reads the files anew if they have changed; if they cannot be used, or have ended and what
    /// was read before has not, that is used on, which is said once.
    ///
    /// # Blocks
    /// On the files.
    fn config(&self) -> Arc<ClientConfig> {
        let stamp = self.0.stamp();
        let mut used = self.0.used.lock();
        if stamp != used.stamp && used.failed != Some(stamp) {
            let ended = |not_after: Option<i64>| not_after.is_some_and(has_ended);
            match UsedByClient::read(&self.0.trust, self.0.certificate.as_ref(), stamp) {
                Ok(new) if !ended(new.not_after) || ended(used.not_after) => *used = new,
                read => {
                    let why = read.err().map_or("it has ended already".to_owned(), |error| error.0);
                    log::warn!("the certificate and authority before are used on: {why}");
                    used.failed = Some(stamp);
                }
            }
        }
        used.config.clone()
    }

    /// When the certificate that it shows ends, in seconds since 1970.
    pub fn not_after(&self) -> Option<i64> {
        self.0.used.lock().not_after
    }

    /// Whether its files have changed, and what they hold cannot be used, as nothing can be read in
    /// a sandbox.
    ///
    /// # Blocks
    /// On the files.
    pub fn is_outdated(&self) -> bool {
        drop(self.config());
        self.0.used.lock().stamp != self.0.stamp()
    }

    /// Makes TLS of a connection to this host, which the peer's certificate must name.
    ///
    /// # Blocks
    /// Until the handshake is done, or `deadline`; `shutdown` of the socket is the wake-up.
    ///
    /// # Errors
    /// `InvalidData` with what is wrong with the peer; or it is too slow, or gone.
    pub fn connect(
        &self,
        socket: Arc<Stream>,
        host: &str,
        deadline: Instant,
    ) -> io::Result<Stream> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "the host has no valid name"))?;
        let session = ClientConnection::new(self.config(), name).map_err(io::Error::other)?;
        let stream = TlsStream::handshake(socket, session.into(), deadline)?;
        Ok(Stream::Tls(Arc::new(stream)))
    }
}

/// Whether a certificate is for this name.
pub fn names(certificate: &[u8], name: &str) -> bool {
    let certificate = CertificateDer::from(certificate);
    let parsed = ParsedCertificate::try_from(&certificate);
    match (parsed, ServerName::try_from(name)) {
        (Ok(parsed), Ok(name)) => verify_server_name(&parsed, &name).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
