//! The buffers of a connection of the database client, under ureq: as large as what its requests
//! and answers have needed.
//!
//! ureq's own have 128 KiB each from the first request on, which a worker that keeps nine
//! connections has to pay for though a request and its answer have a few hundred bytes. Used by the
//! I/O thread that has the connection.

use ureq::unversioned::transport::Buffers;

use crate::base::limits::{DB_INPUT_BYTES, DB_INPUT_MAX_BYTES, DB_OUTPUT_BYTES};

/// A connection's buffers. Nothing is allocated before the first request.
#[derive(Debug, Default)]
pub(super) struct DbBuffers {
    output: Vec<u8>,
    input: Vec<u8>,
    /// Of `input`, what has arrived and what of that has been used.
    filled: usize,
    used: usize,
    /// The last read found no more room than it took: more may be on its way.
    wants_more: bool,
    /// What is there was of use: if not, more is needed first.
    is_useful: bool,
}

impl DbBuffers {
    fn make_room(&mut self) {
        self.input.copy_within(self.used..self.filled, 0);
        (self.filled, self.used) = (self.filled - self.used, 0);
        if self.input.is_empty() {
            self.input.resize(DB_INPUT_BYTES, 0);
        } else if self.wants_more || self.filled == self.input.len() {
            self.input.resize((2 * self.input.len()).min(DB_INPUT_MAX_BYTES), 0);
        }
        self.wants_more = false;
    }
}

impl Buffers for DbBuffers {
    fn output(&mut self) -> &mut [u8] {
        self.output.resize(DB_OUTPUT_BYTES, 0);
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.used..self.filled]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled += amount;
        self.wants_more = self.filled == self.input.len();
    }

    fn input_consume(&mut self, amount: usize) {
        self.used += amount;
        self.is_useful = amount > 0;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        // The first is for bodies of unknown length, which we do not send.
        self.make_room();
        self.output.resize(DB_OUTPUT_BYTES, 0);
        (&mut self.input[self.filled..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.used < self.filled && self.is_useful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes in so many bytes as reads of a socket that has them would, and uses them at once.
    fn read(buffers: &mut DbBuffers, mut bytes: usize) -> usize {
        let mut reads = 0;
        while bytes > 0 {
            let got = buffers.input_append_buf().len().min(bytes);
            buffers.input_appended(got);
            buffers.input_consume(got);
            bytes -= got;
            reads += 1;
        }
        reads
    }

    #[test]
    fn the_buffer_grows_with_the_answers_that_come() {
        let mut buffers = DbBuffers::default();
        assert!(buffers.input().is_empty());
        for _ in 0..100 {
            assert_eq!(read(&mut buffers, DB_INPUT_BYTES - 1), 1);
        }
        assert_eq!(buffers.input.len(), DB_INPUT_BYTES);
        read(&mut buffers, 10 * DB_INPUT_MAX_BYTES);
        assert_eq!(buffers.input.len(), DB_INPUT_MAX_BYTES);
        assert_eq!(read(&mut buffers, 10 * DB_INPUT_MAX_BYTES), 10);
    }

    #[test]
    fn what_is_not_used_stays_and_what_is_behind_it_comes_after_it() {
        let mut buffers = DbBuffers::default();
        let mut expected = Vec::new();
        for round in 0..50_u8 {
            let room = buffers.input_append_buf();
            assert!(!room.is_empty());
            let got = room.len().min(3000);
            room[..got].fill(round);
            buffers.input_appended(got);
            expected.extend(std::iter::repeat_n(round, got));
            assert_eq!(buffers.input(), expected);
            let used = got.min(1000);
            buffers.input_consume(used);
            expected.drain(..used);
            assert!(buffers.can_use_input());
            buffers.input_consume(0);
            assert!(!buffers.can_use_input(), "what is there was of no use");
        }
    }

    #[test]
    fn a_buffer_that_is_full_of_what_is_of_no_use_says_so() {
        let mut buffers = DbBuffers::default();
        while !buffers.input_append_buf().is_empty() {
            let room = buffers.input_append_buf().len();
            buffers.input_appended(room);
        }
        assert_eq!(buffers.input().len(), DB_INPUT_MAX_BYTES);
    }
}
