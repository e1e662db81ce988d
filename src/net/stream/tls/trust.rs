//! How a client checks the certificate of its peer: in full, in part or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::files::{self, CertificateFiles, TlsError};
use super::{provider, words};

/// Which certificates a client takes for its peer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerTrust {
    /// Any: what travels is encrypted, and may be so for an impostor.
    Any,
    /// Those of the authorities in this file, for any name.
    Authority(PathBuf),
    /// Those of the authorities in this file that name the host.
    Named(PathBuf),
}

/// The settings of TLS for a client; `files` is the certificate that it shows.
///
/// # Errors
/// A file cannot be read or used, or others can read the key.
pub fn client_config(
    trust: &PeerTrust,
    files: Option<&CertificateFiles>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let algorithms = provider().signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError(error.to_string()))?;
    let roots = match trust {
        PeerTrust::Named(ca) => {
            return with_files(builder.with_root_certificates(files::roots(ca)?), files);
        }
        PeerTrust::Authority(ca) => Some(files::roots(ca)?),
        PeerTrust::Any => None,
    };
    let verifier = Arc::new(Unnamed { roots, algorithms });
    with_files(builder.dangerous().with_custom_certificate_verifier(verifier), files)
}

fn with_files(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    files: Option<&CertificateFiles>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = match files {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let identity = files.read()?;
            builder
                .with_client_auth_cert(identity.chain, identity.key)
                .map_err(|error| TlsError(format!("{files}: {}", words::of(&error))))?
        }
    };
    // As decision 0042 has it, also if the peer offers one.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes certificates for any name.
#[derive(Debug)]
struct Unnamed {
    /// `None`: of any authority, or of none.
    roots: Option<Arc<RootCertStore>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Unnamed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let all = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, between, now, all)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
