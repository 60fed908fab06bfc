//! Finding bytes in text, eight at a time.

/// In each byte, all bits but the highest.
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// In each byte, the highest bit: set in a byte that is not ASCII.
pub(super) const HIGH: u64 = !LOW;

/// A byte in each place of a word.
pub(super) const fn everywhere(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Where a word holds one of some bytes: the highest bit of those places, and nothing else.
#[inline]
pub(super) fn hits<const N: usize>(word: u64, marks: &[u64; N]) -> u64 {
    let mut others = HIGH;
    for mark in marks {
        let differs = word ^ mark;
        // The highest bit of a place is set if any bit of it is: by the carry of the lower ones, or by itself.
        others &= ((differs & LOW) + LOW) | differs;
    }
    !others & HIGH
}

/// The hits of a byte and those of line ends in a word of ASCII, then those of another byte, or of what is not ASCII.
#[inline]
pub(super) fn hits_in_ascii(word: u64, one: u64, other: u64) -> [u64; 3] {
    const FEEDS: u64 = everywhere(b'\n');
    const RETURNS: u64 = everywhere(b'\r');
    // In ASCII, the highest bit of a place is set by the carry of the lower ones alone.
    let differs = |mark: u64| (word ^ mark) + LOW;
    if word & HIGH != 0 {
        return [0, 0, HIGH];
    }
    [!differs(one) & HIGH, !(differs(FEEDS) & differs(RETURNS)) & HIGH, !differs(other) & HIGH]
}

/// How many hits there are.
#[inline]
pub(super) fn count(hits: u64) -> usize {
    // At most 8; the sum of all bytes comes to be in the highest one.
    ((hits >> 7).wrapping_mul(everywhere(1)) >> 56) as usize
}

/// The first place of some hits.
#[inline]
pub(super) fn first(hits: u64) -> usize {
    // At most 7.
    (hits.trailing_zeros() >> 3) as usize
}

/// The last place of some hits.
#[inline]
pub(super) fn last(hits: u64) -> usize {
    // At most 7.
    7 - (hits.leading_zeros() >> 3) as usize
}

/// Where one of some bytes is for the first time.
#[inline]
pub(super) fn find<const N: usize>(text: &[u8], from: usize, marks: [u8; N]) -> Option<usize> {
    let words = marks.map(everywhere);
    let mut at = from;
    while let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let hits = hits(u64::from_le_bytes(*word), &words);
        if hits != 0 {
            return Some(at + first(hits));
        }
        at += 8;
    }
    text.get(at..)?.iter().position(|byte| marks.contains(byte)).map(|place| at + place)
}

/// Where a byte is for the first time, which is probably far.
#[inline]
pub(super) fn find_far(text: &[u8], from: usize, mark: u8) -> Option<usize> {
    let mut at = from;
    // Without a way out in the middle, the compiler compares many at once.
    while let Some(block) = text.get(at..).and_then(<[u8]>::first_chunk::<32>)
        && !block.iter().fold(false, |any, byte| any | (*byte == mark))
    {
        at += block.len();
    }
    find(text, at, [mark])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_found_where_they_are(text in proptest::collection::vec(prop::sample::select(vec![0u8, 1, b'"', b'#', b'\\', 0x80, 0xff, 0xa2]), 0..100), from in 0usize..40) {
            let marks = [b'"', b'\\'];
            let expected = (from..text.len()).find(|&at| marks.contains(&text[at]));
            prop_assert_eq!(find(&text, from, marks), expected);
            let expected = (from..text.len()).find(|&at| text[at] == b'"');
            prop_assert_eq!(find_far(&text, from, b'"'), expected);
        }

        #[test]
        fn hits_are_the_bytes_themselves(bytes in proptest::array::uniform8(prop::sample::select(vec![0u8, b'"', b',', b'.', b'\n', 0x80, 0xac, 0xa2, 0xff]))) {
            let of = |marks: &[u8]| -> Vec<usize> { (0..8).filter(|at| marks.contains(&bytes[*at])).collect() };
            let word = u64::from_le_bytes(bytes);
            let [one, ends, others] = hits_in_ascii(word, everywhere(b','), everywhere(b'"'));
            prop_assert_eq!(others != 0, !bytes.is_ascii() || bytes.contains(&b'"'));
            let in_ascii = if bytes.is_ascii() { vec![(one, of(b",")), (ends, of(b"\n")), (others, of(b"\""))] } else { Vec::new() };
            for (mut hits, expected) in in_ascii.into_iter().chain([(hits(word, &[b',', 0xac].map(everywhere)), of(b",\xac"))]) {
                prop_assert_eq!(count(hits), expected.len());
                prop_assert_eq!((hits != 0).then(|| last(hits)), expected.last().copied());
                for place in expected {
                    prop_assert_eq!(first(hits), place);
                    hits &= hits - 1;
                }
                prop_assert_eq!(hits, 0);
            }
        }
    }
}
