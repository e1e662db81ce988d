//! The options about TLS.

use std::path::PathBuf;

use super::values::{host_and_port, text, wrong};
use super::{ConfigError, Options};
use crate::net::stream::names_a_listener;
use crate::net::stream::tls::{CertificateFiles, TlsClient, TlsError};

/// What a master's ports speak. Without files a port is plain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortsTls {
    /// Of the worker-facing port.
    pub listen: Option<CertificateFiles>,
    /// Of the internal API.
    pub api: Option<CertificateFiles>,
    /// The authority of workers' certificates, and of other masters' ports.
    pub ca: Option<PathBuf>,
    /// A worker must show a certificate that names it.
    pub worker_certs: bool,
}

pub(super) fn of_ports(options: &impl Options) -> Result<PortsTls, ConfigError> {
    let tls = PortsTls {
        listen: certificate(options, "listen-tls")?,
        api: certificate(options, "api-tls")?,
        ca: ca(options),
        worker_certs: match text(options, "worker-certs", "none") {
            "require" => true,
            "none" => false,
            _ => return Err(wrong(options, "worker-certs", "is require or none")),
        },
    };
    if tls.worker_certs && (tls.listen.is_none() || tls.ca.is_none()) {
        return Err(wrong(options, "worker-certs", "needs --listen-tls and --tls-ca"));
    }
    Ok(tls)
}

/// The authority that is trusted.
pub fn ca(options: &impl Options) -> Option<PathBuf> {
    options.option("tls-ca").map(|(path, _)| PathBuf::from(path))
}

fn needed_ca(options: &impl Options) -> Result<PathBuf, ConfigError> {
    let message = "--tls-ca is missing: tls: needs the file of the authority to trust".to_owned();
    ca(options).ok_or(ConfigError { message, is_usage: true })
}

/// A certificate and its key.
///
/// # Errors
/// The option does not name two files.
pub fn certificate(
    options: &impl Options,
    name: &str,
) -> Result<Option<CertificateFiles>, ConfigError> {
    let Some((given, _)) = options.option(name) else { return Ok(None) };
    given.parse().map(Some).map_err(|error| wrong(options, name, &format!("{error}")))
}

/// What those that connect over TLS trust and show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The authority of the port's certificate.
    pub ca: PathBuf,
    /// What is shown, if the port asks for it.
    pub certificate: Option<CertificateFiles>,
}

/// Of an address that begins with `tls:`.
///
/// # Errors
/// The authority is missing, or an option does not name files.
pub fn of_client(options: &impl Options) -> Result<ClientTls, ConfigError> {
    let ca = needed_ca(options)?;
    Ok(ClientTls { ca, certificate: certificate(options, "tls-cert")? })
}

/// The address of a master's API, as HOST:PORT, and how it is reached over TLS, if it is.
///
/// # Errors
/// It is no address, or the authority is missing.
pub fn api_of_client<'o>(
    options: &'o impl Options,
    default: &'o str,
) -> Result<(&'o str, Option<ClientTls>), ConfigError> {
    let given = text(options, "api", default);
    let of_tls = given.strip_prefix("tls:").or_else(|| given.strip_prefix("https://"));
    let Some(address) = of_tls.map(|address| address.trim_end_matches('/')) else {
        return Ok((host_and_port(options, "api", default)?, None));
    };
    if !names_a_listener(address) || address.contains(['/', '@']) {
        return Err(wrong(options, "api", "is an address such as tls:master.example:7451"));
    }
    let ca = needed_ca(options)?;
    Ok((address, Some(ClientTls { ca, certificate: None })))
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be used; names it.
    pub fn read(&self) -> Result<TlsClient, TlsError> {
        TlsClient::new(&self.ca, self.certificate.as_ref())
    }
}
