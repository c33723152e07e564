//! How Meta writes bytes, times and long texts, wherever the gateway reads or writes them.

use std::sync::Arc;

use crate::domain::ids::Timestamp;

/// In hexadecimal digits, lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of just so many hexadecimal digits, lower case; nothing where it is something else.
pub(super) fn bytes_of<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    if hex.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

/// Seconds since the Unix epoch.
pub(super) fn seconds(at: Timestamp) -> String {
    (at.0 / 1_000).to_string()
}

/// As much of `text` as `bytes_max` allows, whole characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> Arc<str> {
    Arc::from(text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text))
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_reads_back_and_nothing_but_its_own_form_is_read() {
        let bytes = [0x00, 0x0f, 0x9a, 0xff];
        assert_eq!(hex(&bytes), "000f9aff");
        assert_eq!(bytes_of(b"000f9aff"), Some(bytes));
        for wrong in ["", "000f9af", "000f9aff0", "000f9aff00", "000F9AFF", "+00f9aff", "0x0f9aff", "000f9aé"]
        {
            assert_eq!(bytes_of::<4>(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!((&*cut("aé", 3), &*cut("aé", 2), &*cut("aé", 0)), ("aé", "a", ""));
    }
}
