//! What goes over the lifeline of a worker whose host does not see its link: the worker says at
//! intervals how it is, and its host when it is to retire. A byte each; what either does not know
//! it passes over.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{SendFlags, send};

/// What a worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It lives, and has no link, or is not ready on it.
    Alone,
    /// It lives, and its master knows that it is ready.
    Linked,
}

/// What its host says: it is to answer what it has, take no more and end.
pub const RETIRE: u8 = b'r';

impl Sign {
    /// The byte that it is.
    pub fn byte(self) -> u8 {
        match self {
            Sign::Alone => b'a',
            Sign::Linked => b'l',
        }
    }

    /// The last sign among these bytes.
    pub fn last_of(bytes: &[u8]) -> Option<Self> {
        let known =
            |byte: &u8| [Sign::Alone, Sign::Linked].into_iter().find(|sign| sign.byte() == *byte);
        bytes.iter().rev().find_map(known)
    }
}

/// Says one of them; without room or without an other end it is not said. Never blocks.
///
/// # Errors
/// It was not said.
pub fn say(lifeline: impl AsFd, byte: u8) -> io::Result<()> {
    send(lifeline, &[byte], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_said_arrives_and_the_last_sign_counts() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        for byte in [Sign::Linked.byte(), Sign::Alone.byte(), b'?'] {
            say(&ours, byte).expect("said");
        }
        let mut said = [0; 8];
        let len = theirs.read(&mut said).expect("read");
        assert_eq!(Sign::last_of(&said[..len]), Some(Sign::Alone));
        assert_eq!(Sign::last_of(b"?r"), None);
        drop(theirs);
        say(&ours, RETIRE).expect_err("nobody is there");
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        // It ends, or this would block.
        while say(&ours, RETIRE).is_ok() {}
    }
}
