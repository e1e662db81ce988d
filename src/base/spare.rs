//! A small buffer of each thread's, used again: messages that are encoded, copied into what leaves
//! and dropped, one after the other, need no allocation each.

use std::cell::Cell;

/// Limit: a buffer with more room than this is not kept.
const SPARE_MAX_BYTES: usize = 16 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer with room for so many bytes.
pub fn buffer(capacity: usize) -> Vec<u8> {
    // A thread that ends has none any more.
    let mut buffer = SPARE.try_with(Cell::take).unwrap_or_default();
    buffer.reserve(capacity);
    buffer
}

/// Gives a buffer back whose content is not needed any more.
pub fn give_back(mut buffer: Vec<u8>) {
    if (1..=SPARE_MAX_BYTES).contains(&buffer.capacity()) {
        buffer.clear();
        let _ = SPARE.try_with(|spare| spare.set(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_is_used_again_and_a_large_one_is_not() {
        let mut small = buffer(100);
        small.extend_from_slice(b"secret");
        let at = small.as_ptr();
        give_back(small);
        let again = buffer(50);
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        let other = buffer(50);
        assert!(other.as_ptr() != at, "that one is in use");
        give_back(again);
        give_back(Vec::with_capacity(SPARE_MAX_BYTES + 1));
        let kept = buffer(0);
        assert_eq!(kept.as_ptr(), at);
    }
}
