//! Why a runtime does not start.

use std::fmt;
use std::io::Error as IoError;

/// Why a runtime does not start.
#[derive(Debug)]
pub enum RuntimeError {
    /// The template directory cannot be read.
    Templates(IoError),
    /// The operating system refused a thread.
    Thread(IoError),
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuntimeError::Templates(error) => {
                write!(f, "the template directory cannot be read: {error}")
            }
            RuntimeError::Thread(error) => write!(f, "no thread could be started: {error}"),
        }
    }
}

impl std::error::Error for RuntimeError {}
