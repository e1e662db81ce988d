//! TLS in a build without it: none can be made, so that what uses it needs to know nothing of
//! features. The same names as in `tls/`.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::SendFlags;

use crate::net::stream::Stream;

/// What an option about TLS is answered.
const WITHOUT: &str = "this build is without TLS: it needs the feature `tls`";

/// There is none.
#[derive(Debug)]
pub enum TlsStream {}

/// There is none.
#[derive(Debug)]
pub enum TlsServer {}

/// There is none.
#[derive(Debug, Clone)]
pub enum TlsClient {}

/// No text names any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles(());

/// That there is no TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError(());

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WITHOUT)
    }
}

impl std::error::Error for TlsError {}

impl fmt::Display for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WITHOUT)
    }
}

impl FromStr for CertificateFiles {
    type Err = TlsError;

    fn from_str(_: &str) -> Result<Self, TlsError> {
        Err(TlsError(()))
    }
}

#[allow(missing_docs)]
impl TlsStream {
    pub fn socket(&self) -> &Stream {
        match *self {}
    }

    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        match *self {}
    }

    pub fn read(&self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub fn is_cut(&self) -> bool {
        match *self {}
    }

    pub fn write(&self, _: &[IoSlice<'_>], _: SendFlags) -> io::Result<usize> {
        match *self {}
    }

    pub fn flush(&self, _: SendFlags) -> io::Result<()> {
        match *self {}
    }

    pub fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        match *self {}
    }
}

#[allow(missing_docs)]
impl TlsServer {
    pub fn new(_: CertificateFiles, _: Option<&Path>) -> Result<Self, TlsError> {
        Err(TlsError(()))
    }

    pub fn accept(&self, _: Arc<Stream>, _: Instant) -> io::Result<Stream> {
        match *self {}
    }

    pub fn reload(&self) -> Result<bool, TlsError> {
        match *self {}
    }

    pub fn not_after(&self) -> i64 {
        match *self {}
    }

    pub fn files(&self) -> &CertificateFiles {
        match *self {}
    }
}

#[allow(missing_docs)]
impl TlsClient {
    pub fn new(_: &Path, _: Option<&CertificateFiles>) -> Result<Self, TlsError> {
        Err(TlsError(()))
    }

    pub fn not_after(&self) -> Option<i64> {
        match *self {}
    }

    pub fn is_outdated(&self) -> bool {
        match *self {}
    }

    pub fn connect(&self, _: Arc<Stream>, _: &str, _: Instant) -> io::Result<Stream> {
        match *self {}
    }
}

/// None is.
pub fn names(_: &[u8], _: &str) -> bool {
    false
}
