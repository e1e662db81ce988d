//! The peer over TLS: tokio-rustls with ring, TLS 1.3, each side sure of the other, with the
//! product's own certificates for tests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tls");

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A certificate and its key.
fn chain(name: &str) -> Result<Chain, String> {
    let certificate = CertificateDer::from_pem_file(format!("{CERTIFICATES}/{name}.pem"));
    let key = PrivateKeyDer::from_pem_file(format!("{CERTIFICATES}/{name}.key"));
    Ok((vec![certificate.map_err(text)?], key.map_err(text)?))
}

/// Whom both sides trust.
fn authority() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let file = format!("{CERTIFICATES}/authority.pem");
    roots.add(CertificateDer::from_pem_file(file).map_err(text)?).map_err(text)?;
    Ok(roots)
}

/// Accepts connections and does their handshakes, for axum.
pub struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    /// Listens on a free port of this machine.
    pub async fn bind() -> Result<Self, String> {
        let (certificates, key) = chain("master")?;
        let provider = Arc::new(default_provider());
        let roots = Arc::new(authority()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(text)?
            .with_client_cert_verifier(verifier.build().map_err(text)?)
            .with_single_cert(certificates, key)
            .map_err(text)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(text)?;
        Ok(Self { listener, acceptor: Arc::new(config).into() })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((socket, address)) = self.listener.accept().await else { continue };
            let _ = socket.set_nodelay(true);
            if let Ok(stream) = self.acceptor.accept(socket).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A worker's connection to a master.
pub async fn connect(address: &str) -> Result<client::TlsStream<TcpStream>, String> {
    let (certificates, key) = chain("worker")?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(text)?
        .with_root_certificates(authority()?)
        .with_client_auth_cert(certificates, key)
        .map_err(text)?;
    let address: SocketAddr = address.parse().map_err(text)?;
    let socket = TcpStream::connect(address).await.map_err(text)?;
    socket.set_nodelay(true).map_err(text)?;
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(text)
}
