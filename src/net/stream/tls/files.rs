//! The files of certificates and keys: PEM, as `openssl` and every certificate authority write
//! them.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Limit: bytes of such a file; a bundle of every public authority has a quarter of that.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// A certificate's file and its key's, as an option names them: `CERT,KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and its authority's.
    pub certificate: PathBuf,
    /// Its private key, which others may not read.
    pub key: PathBuf,
}

impl FromStr for CertificateFiles {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        match text.split_once(',') {
            Some((certificate, key)) if !certificate.is_empty() && !key.is_empty() => {
                Ok(Self { certificate: certificate.into(), key: key.into() })
            }
            _ => Err(TlsError("is two files of PEM with a comma between: CERT,KEY".to_owned())),
        }
    }
}

impl fmt::Display for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.certificate.display(), self.key.display())
    }
}

/// Why TLS cannot be used as it is configured; names the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError(pub(super) String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// A certificate with its chain, and its key.
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl CertificateFiles {
    /// Reads both.
    ///
    /// # Errors
    /// One cannot be read or used, or others can read the key.
    pub(super) fn read(&self) -> Result<Identity, TlsError> {
        let chain = certificates(&self.certificate)?;
        let (path, text) = (&self.key, read(&self.key)?);
        let mode = fs::metadata(path).map_err(|error| unreadable(path, &error))?.permissions();
        if mode.mode() & 0o077 != 0 {
            let text = "others can read this key: make it a file of its owner's only (chmod 600)";
            return Err(TlsError(format!("{}: {text}", path.display())));
        }
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| TlsError(format!("{}: it holds no private key in PEM", path.display())))?;
        Ok(Identity { chain, key })
    }
}

/// What tells that one of a certificate's files or that of an authority has been written anew.
pub(super) fn stamp(files: Option<&CertificateFiles>, ca: Option<&Path>) -> FileStamps {
    let of = |path: Option<&Path>| path.and_then(FileStamp::of);
    let (certificate, key) = files.map(|files| (&*files.certificate, &*files.key)).unzip();
    [of(certificate), of(key), of(ca)]
}

/// Of a certificate, its key and an authority; `None`: there is no such file.
pub(super) type FileStamps = [Option<FileStamp>; 3];

/// The authorities of a file.
pub(super) fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError(format!("{}: {error}", path.display())))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError(format!("{}: it holds no certificate in PEM", path.display()))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let data = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    // Reading a pipe would wait for what writes to it.
    if !data.is_file() {
        return Err(TlsError(format!("{}: it is no plain file", path.display())));
    }
    if data.len() > FILE_MAX_BYTES {
        return Err(TlsError(format!("{}: it is too large to be one of PEM", path.display())));
    }
    fs::read(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> TlsError {
    TlsError(format!("{}: {error}", path.display()))
}

/// What of a file changes when it is written anew, or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStamp([i64; 5]);

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let data: Metadata = fs::metadata(path).ok()?;
        let inode = data.ino() as i64;
        Some(Self([inode, data.size() as i64, data.mtime(), data.mtime_nsec(), data.ctime_nsec()]))
    }
}
