//! The quick way over what needs no second look: leaves of values and of JSON as nearly every
//! encoder writes them, which is what most of a message consists of.
//!
//! Each function passes over what is beyond doubt and stops at the rest, at which the walks then
//! look, and of which they complain. So nothing is accepted here that a walk would not accept, and
//! nothing refused.

use super::reader::Reader;
use super::shape::{Decode, utf8};

/// The highest bits of the first so many bytes of 32.
const HIGH_BITS: [[u64; 4]; 32] = high_bits();

const fn high_bits() -> [[u64; 4]; 32] {
    let mut masks = [[0; 4]; 32];
    let mut len = 0;
    while len < 32 {
        let mut at = 0;
        while at < len {
            masks[len][at / 8] |= 0x80 << (8 * (at % 8));
            at += 1;
        }
        len += 1;
    }
    masks
}

/// Whether the first `len` of 32 bytes are ASCII, without a loop over a few bytes.
#[inline(always)]
fn is_ascii(window: &[u8; 32], len: u8) -> bool {
    let (words, _) = window.as_chunks::<8>();
    let masks = HIGH_BITS[usize::from(len & 0x1f)].iter();
    words.iter().zip(masks).fold(0, |high, (word, mask)| high | u64::from_le_bytes(*word) & mask)
        == 0
}

/// Passes over a str of at most 31 bytes of ASCII, behind which there is as much as there mostly
/// is: so one look at bounds will do.
#[inline(always)]
fn short_ascii(at: &[u8]) -> Option<&[u8]> {
    let [head @ 0xa0..=0xbf, rest @ ..] = at else { return None };
    let (len, window) = (head & 0x1f, rest.first_chunk()?);
    is_ascii(window, len).then(|| &rest[usize::from(len)..])
}

/// Passes over a str of at most 31 bytes that is UTF-8.
fn short_text(at: &[u8]) -> Option<&[u8]> {
    let [head @ 0xa0..=0xbf, rest @ ..] = at else { return None };
    let (text, behind) = rest.split_at_checked(usize::from(head & 0x1f))?;
    // Over so few bytes std's check takes longer to begin than to look.
    let (words, bytes) = text.as_chunks::<8>();
    let high = words.iter().fold(0, |high, word| high | u64::from_le_bytes(*word));
    let is_ascii = high & HIGH_BITS[8][0] == 0 && bytes.iter().all(u8::is_ascii);
    (is_ascii || utf8(text).is_ok()).then_some(behind)
}

/// What a `Text` of at most 31 bytes begins with, but for the five bits of its length, and which
/// bits those are.
const TEXT: u64 = u64::from_le_bytes(*b"\x81\xa4Text\xa0\0");
const TEXT_BITS: u64 = u64::from_le_bytes(*b"\xff\xff\xff\xff\xff\xff\xe0\0");

/// Passes over a leaf of a value in its canonical form.
#[inline(always)]
pub(super) fn leaf(at: &[u8]) -> Option<&[u8]> {
    // As `short_ascii`, with what stands before it.
    if let Some((head, text)) = at.split_first_chunk::<7>()
        && let Some(window) = text.first_chunk()
        && let Some(head_and_more) = at.first_chunk()
        && u64::from_le_bytes(*head_and_more) & TEXT_BITS == TEXT
        && is_ascii(window, head[6])
    {
        return Some(&text[usize::from(head[6] & 0x1f)..]);
    }
    other_leaf(at)
}

#[inline(never)]
fn other_leaf(at: &[u8]) -> Option<&[u8]> {
    if let Some(text) = at.strip_prefix(b"\x81\xa4Text") {
        short_text(text)
    } else if let Some(behind) = at.strip_prefix(b"\xa4Null") {
        Some(behind)
    } else if let Some(number) = at.strip_prefix(b"\x81\xa7Integer") {
        canonical::<i64>(number)
    } else if let Some(number) = at.strip_prefix(b"\x81\xa5Float") {
        number.strip_prefix(b"\xcb")?.get(8..)
    } else if let Some(value) = at.strip_prefix(b"\x81\xa7Boolean") {
        canonical::<bool>(value)
    } else {
        canonical::<u64>(at.strip_prefix(b"\x81\xafUnsignedInteger")?)
    }
}

fn canonical<T: Decode>(at: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(at);
    T::decode(&mut reader).ok()?;
    reader.is_canonical().then_some(reader.rest())
}

/// Passes over leaves of a `List`, as many as come and at most `left`, which says how many are left
/// then.
// Apart, or what the walk around it needs takes the registers of the loop.
#[inline(never)]
pub(super) fn leaves<'a>(mut at: &'a [u8], left: &mut usize) -> &'a [u8] {
    while *left > 0
        && let Some(behind) = leaf(at)
    {
        (at, *left) = (behind, *left - 1);
    }
    at
}

/// Passes over pairs of leaves of a `Map`, and over the key before a value that is none. `left`
/// counts keys and values; a key comes next.
// As above.
#[inline(never)]
pub(super) fn pairs<'a>(mut at: &'a [u8], left: &mut usize) -> &'a [u8] {
    while *left > 0
        && let Some(key) = at.strip_prefix(b"\x92")
        && let Some(value) = leaf(key)
    {
        let Some(behind) = leaf(value) else {
            *left -= 1;
            return value;
        };
        (at, *left) = (behind, *left - 2);
    }
    at
}

/// Passes over plain JSON that has nothing inside.
#[inline(always)]
fn plain_leaf(at: &[u8]) -> Option<&[u8]> {
    short_ascii(at).or_else(|| other_plain_leaf(at))
}

#[inline(never)]
fn other_plain_leaf(at: &[u8]) -> Option<&[u8]> {
    match at.first()? {
        0xa0..=0xbf => short_text(at),
        // Small numbers, nil, false and true.
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => at.get(1..),
        0xcc | 0xd0 => at.get(2..),
        0xcd | 0xd1 => at.get(3..),
        0xca | 0xce | 0xd2 => at.get(5..),
        0xcb | 0xcf | 0xd3 => at.get(9..),
        _ => None,
    }
}

/// Passes over what has nothing inside in an array of plain JSON, as [`leaves`].
pub(super) fn plain_leaves<'a>(mut at: &'a [u8], left: &mut usize) -> &'a [u8] {
    while *left > 0
        && let Some(behind) = plain_leaf(at)
    {
        (at, *left) = (behind, *left - 1);
    }
    at
}

/// Passes over keys and values without anything inside in an object of plain JSON, as [`pairs`].
pub(super) fn plain_pairs<'a>(mut at: &'a [u8], left: &mut usize) -> &'a [u8] {
    while *left > 0
        && let Some(value) = short_ascii(at)
    {
        let Some(behind) = plain_leaf(value) else {
            *left -= 1;
            return value;
        };
        (at, *left) = (behind, *left - 2);
    }
    at
}

#[cfg(test)]
pub(in crate::wire) mod tests {
    use super::super::plain::PlainWalk;
    use super::super::walk::Walk;
    use super::*;
    use crate::wire::WireError;

    /// What is behind a value, and whether it was canonical.
    type Found = Result<(usize, bool), WireError>;

    fn found(reader: &Reader<'_>) -> Found {
        Ok((reader.rest().len(), reader.is_canonical()))
    }

    /// Every step looked at, none passed over.
    fn step_by_step(bytes: &[u8]) -> Found {
        let mut walk = Walk::over(Reader::new(bytes));
        while walk.next()?.is_some() {}
        found(&walk.into_reader())
    }

    fn plain_step_by_step(bytes: &[u8]) -> Result<usize, WireError> {
        let mut walk = PlainWalk::over(Reader::new(bytes));
        while walk.next()?.is_some() {}
        Ok(walk.into_reader().rest().len())
    }

    /// The same judgement, or the same complaint, with and without this file.
    pub(in crate::wire) fn same_judgement(bytes: &[u8]) {
        let mut walk = Walk::over(Reader::new(bytes));
        let skimmed = walk.finish().and_then(|()| found(&walk.into_reader()));
        assert_eq!(skimmed, step_by_step(bytes), "{bytes:x?}");
        let mut walk = PlainWalk::over(Reader::new(bytes));
        let skimmed = walk.finish().map(|()| walk.into_reader().rest().len());
        assert_eq!(skimmed, plain_step_by_step(bytes), "{bytes:x?}");
    }

    #[test]
    fn texts_of_every_length_are_judged_alike() {
        for len in 0..=33 {
            for at in 0..len {
                for bad in [
                    "\u{7f}".as_bytes(),
                    b"\x80",
                    b"\xff",
                    "é".as_bytes(),
                    "😀".as_bytes(),
                    b"\xed\xa0\x80",
                ] {
                    let mut text = vec![b'x'; len];
                    let end = len.min(at + bad.len());
                    text[at..end].copy_from_slice(&bad[..end - at]);
                    judge_text(&text);
                }
            }
            judge_text(&vec![b'x'; len]);
        }
    }

    fn judge_text(text: &[u8]) {
        let head = if text.len() < 32 {
            vec![0xa0 | text.len() as u8]
        } else {
            vec![0xd9, text.len() as u8]
        };
        let plain = [&head[..], text].concat();
        let leaf = [b"\x81\xa4Text", &plain[..]].concat();
        for behind in [0, 1, 24, 31, 32, 40] {
            let behind = vec![0xa4; behind];
            same_judgement(&[&leaf[..], &behind].concat());
            same_judgement(&[b"\x81\xa4List\x92", &leaf[..], b"\xa4Null", &behind].concat());
            same_judgement(&[b"\x81\xa3Map\x91\x92", &leaf[..], &leaf, &behind].concat());
            same_judgement(
                &[b"\x81\xa3Map\x91\x92", &leaf[..], b"\x81\xa4List\x90", &behind].concat(),
            );
            same_judgement(&[b"\x92", &plain[..], &plain, &behind].concat());
            same_judgement(&[b"\x81", &plain[..], &plain, &behind].concat());
            same_judgement(&[b"\x81", &plain[..], b"\x91\xc0", &behind].concat());
        }
    }

    #[test]
    fn numbers_of_every_width_are_judged_alike() {
        for name in ["Integer", "UnsignedInteger", "Float", "Boolean", "Text", "Null", "Nil"] {
            let variant = [&[0x81, 0xa0 | name.len() as u8], name.as_bytes()].concat();
            for head in 0..=0xff {
                for len in [0, 1, 2, 4, 8, 9] {
                    for filling in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                        let number = [&[head][..], &vec![filling; len]].concat();
                        same_judgement(&[b"\x91", &number[..]].concat());
                        same_judgement(&[b"\x81\xa1x", &number[..]].concat());
                        same_judgement(&[b"\x81\xa4List\x91", &variant[..], &number].concat());
                        same_judgement(
                            &[b"\x81\xa3Map\x91\x92", &variant[..], &number, b"\xa4Null"].concat(),
                        );
                    }
                }
            }
        }
    }
}
