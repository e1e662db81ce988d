//! Reads that another thread can end: of a stdin on which nothing comes, whose other end is another
//! process's.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// A file whose reads end when the other end of `woken` is closed.
pub(in crate::cli) struct Interruptible<'w> {
    pub(in crate::cli) file: File,
    pub(in crate::cli) woken: &'w UnixStream,
}

impl Interruptible<'_> {
    /// Whether there is something to read, its end included; false once no thread wants it.
    ///
    /// # Blocks
    /// Until one of them.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub(in crate::cli) fn wait(&self) -> io::Result<bool> {
        let mut waited =
            [PollFd::new(&self.file, PollFlags::IN), PollFd::new(self.woken, PollFlags::IN)];
        while let Err(error) = poll(&mut waited, None) {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        // The other end is never written to: any event on it is its end, and the input is at its
        // end then.
        Ok(waited[1].revents().is_empty())
    }
}

impl Read for Interruptible<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.wait()? { self.file.read(buffer) } else { Ok(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::thread;

    #[test]
    fn a_read_that_blocks_ends_when_nobody_wants_its_line() {
        let (file, _writer) = UnixStream::pair().expect("a pair");
        let (wake, woken) = UnixStream::pair().expect("a pair");
        let reader = thread::spawn("reader", move || {
            let file = File::from(std::os::fd::OwnedFd::from(file));
            Interruptible { file, woken: &woken }.read(&mut [0; 8]).expect("an end")
        });
        drop(wake);
        assert_eq!(reader.expect("spawn").join(), Some(0));
    }
}
