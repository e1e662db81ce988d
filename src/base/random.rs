//! Randomness from the operating system, and mixing of numbers that need none.
//!
//! The only file that knows `getrandom`. Tokens, records' ids, frames' masks and jitter are drawn
//! from the system: a call each is cheap enough. A request id is a mixed count from a random start,
//! because each dispatch needs one. Called from any thread; owned by nobody.

/// Length of a worker's token (protocol.md).
const TOKEN_CHARS: usize = 64;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The largest multiple of 62 that fits a byte: a byte from here on is drawn again, or the first
/// letters of the alphabet would come up more often.
const FAIR_BELOW: u8 = 248;

/// Fills a buffer with random bytes.
///
/// # Panics
/// The operating system has no source of randomness: there is no safe way to go on without tokens.
pub fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has a source of randomness");
}

/// A random number.
///
/// # Panics
/// As [`fill`].
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// Spreads the bits of a number over all bits of another, and no two numbers give the same: the
/// finalizer of splitmix64. Nothing about it is secret.
pub fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A secret of 64 alphanumeric characters, each equally likely: 381 bits.
///
/// # Panics
/// As [`fill`].
pub fn token() -> String {
    let mut token = String::with_capacity(TOKEN_CHARS);
    let mut bytes = [0; 2 * TOKEN_CHARS];
    while token.len() < TOKEN_CHARS {
        fill(&mut bytes);
        let missing = TOKEN_CHARS - token.len();
        token.extend(bytes.iter().filter_map(|byte| letter(*byte)).take(missing));
    }
    token
}

fn letter(byte: u8) -> Option<char> {
    (byte < FAIR_BELOW).then(|| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_64_alphanumerics_and_differ() {
        let (one, other) = (token(), token());
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(one, other);
    }

    #[test]
    fn every_letter_has_the_same_number_of_bytes() {
        let mut counts = std::collections::HashMap::new();
        for letter in (0..=255).filter_map(letter) {
            *counts.entry(letter).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 62);
        assert!(counts.values().all(|count| *count == 4));
    }

    #[test]
    fn numbers_differ() {
        assert_ne!(u64(), u64());
    }
}
