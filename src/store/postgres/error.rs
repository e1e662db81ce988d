//! Why a server did not do what it was asked, as its connection tells it.

use std::fmt;
use std::io;

use postgres::fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::ErrorFields;

/// See the module.
#[derive(Debug)]
pub(super) enum Error {
    /// The server said no. Only its message and its code: details quote tenants' data.
    Refused { code: String, message: String },
    /// The connection was not made, or broke.
    Io(io::Error),
    /// No answer came by the deadline, and the connection is of no use any more.
    TimedOut,
    /// The server speaks otherwise than it should.
    Strange(String),
    /// A value is not what was asked for, or cannot be said; the connection is as good as before.
    Value(String),
}

impl Error {
    /// An error of the server.
    pub(super) fn refused(mut fields: ErrorFields<'_>) -> Self {
        let (mut code, mut message) = (String::new(), String::new());
        while let Ok(Some(field)) = fields.next() {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => code = text,
                b'M' => message = text,
                _ => {}
            }
        }
        Error::Refused { code, message }
    }

    /// Whether the connection can be used after it.
    pub(super) fn leaves_connection(&self) -> bool {
        matches!(self, Error::Refused { .. } | Error::Value(_))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // That is how the parser of messages says it.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Error::Strange(error.to_string()),
            _ => Error::Io(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused { code, message } => write!(f, "{message} ({code})"),
            Error::Io(error) => write!(f, "{error}"),
            Error::TimedOut => f.write_str("no answer in time"),
            Error::Strange(why) | Error::Value(why) => f.write_str(why),
        }
    }
}
