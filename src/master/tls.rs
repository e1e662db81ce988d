//! The certificates of a master's ports: read at the start, and anew when their files change.

use std::path::Path;
use std::sync::Arc;

use super::MasterError;
use super::certificate_ends::CertificateEnds;
use super::config::PoolConfig;
use crate::base::sync::Lock;
use crate::net::stream::tls::{CertificateFiles, TlsClient, TlsServer};

/// What the ports of a master show, by their names in metrics.
#[derive(Debug, Default)]
pub(super) struct PortCertificates {
    /// Of the worker-facing port.
    pub(super) listen: Option<Arc<TlsServer>>,
    /// Of the internal API.
    pub(super) api: Option<Arc<TlsServer>>,
    /// Of other masters, whose APIs are as this one's is.
    pub(super) peers: Option<TlsClient>,
    ends: CertificateEnds,
    /// What was wrong at the last look.
    failed: Lock<Vec<String>>,
}

impl PortCertificates {
    /// Reads what a configuration names.
    ///
    /// # Errors
    /// A file cannot be used; names the option.
    pub(super) fn read(config: &PoolConfig) -> Result<Self, MasterError> {
        let tls = &config.tls;
        let ca = tls.ca.as_deref();
        let listen = server("--listen-tls", &tls.listen, ca.filter(|_| tls.worker_certs))?;
        let api = server("--api-tls", &tls.api, None)?;
        let peers = match (&api, &tls.ca) {
            (Some(_), Some(ca)) => Some(
                TlsClient::new(ca, None)
                    .map_err(|error| MasterError::Config(format!("--tls-ca: {error}")))?,
            ),
            _ => None,
        };
        if api.is_some() && peers.is_none() && config.cluster.cluster.is_some() {
            let text = "--api-tls: with --cluster it needs --tls-ca, the authority of the others";
            return Err(MasterError::Config(text.to_owned()));
        }
        Ok(Self { listen, api, peers, ends: CertificateEnds::default(), failed: Lock::default() })
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, &Arc<TlsServer>)> {
        let listen = self.listen.iter().map(|server| ("listen", server));
        listen.chain(self.api.iter().map(|server| ("api", server)))
    }

    /// When the certificate of each port ends, in seconds since 1970.
    pub(super) fn not_after(&self) -> Vec<(&'static str, i64)> {
        self.each().map(|(port, server)| (port, server.not_after())).collect()
    }

    /// Uses what the files hold now for new connections. What cannot be used is said, and what was
    /// used is used on; the same is said again only if an operator has asked for the look.
    ///
    /// # Blocks
    /// On the files.
    pub(super) fn look(&self, is_asked: bool) {
        let mut failed = Vec::new();
        for (port, server) in self.each() {
            match server.reload() {
                Ok(false) => {}
                Ok(true) => log::info!("{port}: the certificate was read anew: {}", server.files()),
                Err(error) => {
                    failed.push(format!("{port}: the certificate before is used on: {error}"));
                }
            }
        }
        let before = std::mem::replace(&mut *self.failed.lock(), failed.clone());
        for line in failed.iter().filter(|line| is_asked || !before.contains(line)) {
            log::warn!("{line}");
        }
        self.ends.warn(&self.not_after());
    }
}

fn server(
    option: &str,
    files: &Option<CertificateFiles>,
    client_ca: Option<&Path>,
) -> Result<Option<Arc<TlsServer>>, MasterError> {
    let Some(files) = files else { return Ok(None) };
    let server = TlsServer::new(files.clone(), client_ca);
    let server = server.map_err(|error| MasterError::Config(format!("{option}: {error}")))?;
    Ok(Some(Arc::new(server)))
}
