//! What is wrong with a peer, in words that a reader of the log need not look up.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// The text of what rustls found.
pub(super) fn of(error: &Error) -> String {
    let text = match error {
        Error::InvalidCertificate(what) => of_certificate(what),
        Error::NoCertificatesPresented => "the peer shows no certificate",
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::PeerIncompatible(_) => "the peer speaks no TLS that this side does: it is TLS 1.3",
        Error::DecryptError => "what came was changed on its way, or is no TLS of this connection",
        Error::InconsistentKeys(_) => "the key is not the certificate's",
        Error::InvalidMessage(_) => "the peer speaks no TLS",
        other => {
            log::debug!("TLS: {other}");
            "the peer breaks the rules of TLS"
        }
    };
    text.to_owned()
}

/// The same in an error of a connection.
pub(super) fn in_place(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => io::Error::new(error.kind(), of(inner)),
        None => error,
    }
}

fn of_certificate(what: &CertificateError) -> &'static str {
    match what {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the peer's certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the peer's certificate is not valid yet: is a clock wrong?"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the peer's certificate is not valid for the name by which it was asked"
        }
        CertificateError::UnknownIssuer => "the peer's certificate is of no trusted authority",
        _ => "the peer's certificate cannot be used",
    }
}

fn of_alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => {
            "the peer refuses this side's certificate: it has expired"
        }
        AlertDescription::UnknownCA => {
            "the peer refuses this side's certificate: it is of no authority that the peer trusts"
        }
        AlertDescription::CertificateRequired => "the peer wants a certificate: none was shown",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "the peer refuses this side's certificate",
        AlertDescription::ProtocolVersion => "the peer speaks another version of TLS",
        _ => "the peer ended the connection with an error of TLS",
    }
}
