//! The outermost members of a JSON object, found in one pass that looks at every byte once.
//!
//! It is for what nearly everybody sends; what it does not take is for [`serde_json`] to read and to refuse. It gives
//! no reasons, and takes no name with an escape and nothing nested deeper than content may be.
//!
//! **Invariant:** what it takes, `serde_json` takes as well, with the same members.

use std::ops::Range;

use crate::domain::content::CONTENT_DEPTH_MAX;

/// Deepest nesting inside of the outermost object: what [`Open`] can remember.
const NESTING_MAX: usize = CONTENT_DEPTH_MAX - 1;

/// The lists and objects that are open, a bit each behind a leading one: the lowest tells whether the innermost is an
/// object.
type Open = u64;
const _: () = assert!(NESTING_MAX < Open::BITS as usize);

/// One member at a time: its name, and where its value stands. `text` has no byte below 0x20, and no blank around it.
/// Nothing, where it is not taken; then what `each` was shown means nothing.
pub(super) fn members<'t>(text: &'t str, mut each: impl FnMut(&'t str, Range<usize>)) -> Option<()> {
    let mut scan = Scan { rest: text.as_bytes() };
    // Where the scan stands in the text.
    let at = |scan: &Scan<'_>| text.len() - scan.rest.len();
    scan.expect(b'{')?;
    scan.blanks();
    if scan.peek() == Some(b'}') {
        scan.next();
    } else {
        loop {
            scan.expect(b'"')?;
            let begin = at(&scan);
            let is_plain = scan.string()?;
            let name = text.get(begin..at(&scan) - 1).filter(|_| is_plain)?;
            scan.colon()?;
            let begin = at(&scan);
            scan.value()?;
            each(name, begin..at(&scan));
            scan.blanks();
            match scan.next()? {
                b',' => scan.blanks(),
                b'}' => break,
                _ => return None,
            }
        }
    }
    scan.rest.is_empty().then_some(())
}

struct Scan<'t> {
    rest: &'t [u8],
}

impl Scan<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    #[inline]
    fn blanks(&mut self) {
        while self.peek() == Some(b' ') {
            self.next();
        }
    }

    /// The colon behind a name, and the blanks around it.
    #[inline]
    fn colon(&mut self) -> Option<()> {
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        Some(())
    }

    /// A value with all that is in it.
    fn value(&mut self) -> Option<()> {
        let mut open: Open = 1;
        loop {
            match self.next()? {
                b'{' => {
                    self.blanks();
                    if self.peek()? == b'}' {
                        self.next();
                    } else {
                        open = opened(open, true)?;
                        self.name()?;
                        continue;
                    }
                }
                b'[' => {
                    self.blanks();
                    if self.peek()? == b']' {
                        self.next();
                    } else {
                        open = opened(open, false)?;
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                first => self.number(first)?,
            }
            // A value has ended, and with it perhaps what it stands in.
            loop {
                if open == 1 {
                    return Some(());
                }
                let in_object = open & 1 == 1;
                self.blanks();
                match (self.next()?, in_object) {
                    (b',', true) => {
                        self.blanks();
                        self.name()?;
                        break;
                    }
                    (b',', false) => {
                        self.blanks();
                        break;
                    }
                    (b'}', true) | (b']', false) => open >>= 1,
                    _ => return None,
                }
            }
        }
    }

    /// A name within a value, and its colon.
    fn name(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.string()?;
        self.colon()
    }

    /// A string whose quote was read; says whether it holds no escape.
    fn string(&mut self) -> Option<bool> {
        let mut is_plain = true;
        loop {
            self.rest = self.rest.get(quote_or_escape(self.rest)?..)?;
            if self.next()? == b'"' {
                return Some(is_plain);
            }
            is_plain = false;
            match self.next()? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    for _ in 0..4 {
                        self.next().filter(u8::is_ascii_hexdigit)?;
                    }
                }
                _ => return None,
            }
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(rest)?;
        Some(())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.next();
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.next();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.next();
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.next();
        }
    }

    fn some_digits(&mut self) -> Option<()> {
        self.next().filter(u8::is_ascii_digit)?;
        self.digits();
        Some(())
    }
}

/// What is open after a list or an object has begun.
fn opened(open: Open, is_object: bool) -> Option<Open> {
    let nesting = open.ilog2() as usize;
    (nesting < NESTING_MAX).then_some(open << 1 | Open::from(is_object))
}

/// Where in a string its end or its next escape is.
fn quote_or_escape(rest: &[u8]) -> Option<usize> {
    // Names are short: whether one ends in the next eight bytes is seen at once.
    let Some(near) = rest.first_chunk() else { return memchr::memchr2(b'"', b'\\', rest) };
    let near = u64::from_le_bytes(*near);
    let has = |byte: u8| zero_bytes(near ^ (EACH * u64::from(byte)));
    let found = has(b'"') | has(b'\\');
    if found != 0 {
        return Some(found.trailing_zeros() as usize / 8);
    }
    Some(memchr::memchr2(b'"', b'\\', rest.get(8..)?)? + 8)
}

const EACH: u64 = 0x0101_0101_0101_0101;

/// The top bit of each byte that is zero, right up to the first such byte: above it the others' may be set as well.
const fn zero_bytes(bytes: u64) -> u64 {
    bytes.wrapping_sub(EACH) & !bytes & (EACH << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::content::for_each_member;

    type Found = Vec<(String, Range<usize>)>;

    fn here(text: &str) -> Option<Found> {
        let mut found = Vec::new();
        members(text, |name, value| found.push((name.to_owned(), value)))?;
        Some(found)
    }

    fn in_serde_json(text: &str) -> Option<Found> {
        let mut found = Vec::new();
        for_each_member(text, |name, value| found.push((name.to_owned(), value))).ok()?;
        Some(found)
    }

    /// Taken, with the members that `serde_json` finds.
    #[test]
    fn what_people_send_is_taken() {
        for text in [
            r#"{}"#,
            r#"{ }"#,
            r#"{"type":"text","text":{"body":"Hi \"you\" \\ é \u00e9 \ud83d"}}"#,
            r#"{ "a" : 1 , "b":[ ] , "c" : [ 1 , 2.5e-3,{}, { "d" : null } ], "e":{ } }"#,
            r#"{"a":0,"b":-0.5E+9,"c":true,"d":false,"e":null,"":"","f":[[],[[{}]]]}"#,
            r#"{"context":{"id":"wamid.1"},"type":"button","button":{"payload":"x","text":"é"}}"#,
        ] {
            assert!(here(text).is_some(), "{text}");
            assert_eq!(here(text), in_serde_json(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_not_taken() {
        for text in [
            "",
            "{",
            "}",
            "[]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":1}}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":+1}"#,
            r#"{"a":1e}"#,
            r#"{"a":-}"#,
            r#"{"a":tru}"#,
            r#"{"a":nul1}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            r#"{"a":"b}"#,
            r#"{"a":[1}"#,
            r#"{"a":{"b":1]}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":{"b"}}"#,
            r#"{"a":1 2}"#,
            r#"{"a":1}x"#,
            r#"{a:1}"#,
            r#"{"a":[}]}"#,
            r#"{"a":{]}}"#,
        ] {
            assert_eq!(here(text), None, "{text}");
            assert_eq!(in_serde_json(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_with_an_escape_and_a_deep_nest_are_left_to_others() {
        assert_eq!(here(r#"{"\u0061":1}"#), None);
        let nested = |depth: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(here(&nested(NESTING_MAX)).is_some());
        assert_eq!(here(&nested(NESTING_MAX + 1)), None);
    }

    proptest! {
        /// Also where bytes stand beside it that differ from it in one bit, or by one.
        #[test]
        fn a_strings_end_is_found_where_a_search_finds_it(
            bytes in prop::collection::vec(prop::sample::select(b"\"\\#!][\x02|a\xa2\xdc\x7f".to_vec()), 0..40),
            many in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            for bytes in [bytes, many] {
                for from in 0..=bytes.len() {
                    let rest = &bytes[from..];
                    prop_assert_eq!(quote_or_escape(rest), memchr::memchr2(b'"', b'\\', rest), "{:?}", rest);
                }
            }
        }

        /// Pieces of JSON in any order: mostly wrong, now and then right.
        #[test]
        fn what_is_taken_serde_json_takes_with_the_same_members(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", " ", "\"", "\\", "\\u00e9", "\\n", "\"a\"", "\"type\":", "1", "-0", ".5",
                "e7", "true", "null", "é", "{}", "[]", "\"\":", "0",
            ]), 0..12),
            wrapped in any::<bool>(),
        ) {
            let inner = pieces.concat();
            let text = if wrapped { format!(r#"{{"a":{inner}}}"#) } else { inner };
            if let Some(found) = here(text.trim()) {
                prop_assert_eq!(Some(found), in_serde_json(text.trim()), "{}", text);
            }
        }
    }
}
