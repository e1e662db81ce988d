//! The certificate that a worker shows to its master: it is renewed while the worker runs.

use crate::master::{CertificateEnds, seconds_now};
use crate::net::stream::tls::TlsClient;

/// So long before its certificate's end a worker that cannot read a new one ends.
const RENEW_BEFORE_SECONDS: i64 = 3600;

/// Watches the certificate, if the worker shows one.
pub(super) struct OwnCertificate {
    shown: Option<TlsClient>,
    ends: CertificateEnds,
}

impl OwnCertificate {
    pub(super) fn new(shown: Option<&TlsClient>) -> Self {
        Self { shown: shown.cloned(), ends: CertificateEnds::default() }
    }

    /// Warns of its end. True: another one is there that can only be read by a new process, as this
    /// one is in its sandbox, and it is time for it.
    ///
    /// # Blocks
    /// On the files.
    pub(super) fn look(&self) -> bool {
        let Some(shown) = &self.shown else { return false };
        let is_outdated = shown.is_outdated();
        let Some(at) = shown.not_after() else { return false };
        self.ends.warn(&[("this worker", at)]);
        is_outdated && at.saturating_sub(seconds_now()) < RENEW_BEFORE_SECONDS
    }
}
