//! The outermost members of a JSON object, found in one pass that looks at every byte once.
//!
//! It is for what nearly everybody sends; what it does not take is for [`serde_json`] to read and to refuse. It gives
//! no reasons, and takes no name with an escape and nothing nested deeper than [`NESTING_MAX`].
//!
//! **Invariant:** what it takes, `serde_json` takes as well, with the same members.

use std::ops::Range;

/// Deepest nesting inside of the outermost object: the bits of what remembers it, but for one.
const NESTING_MAX: u32 = u128::BITS - 1;

/// One member at a time: its name, and where its value stands. `text` has no byte below 0x20, and no blank around it.
/// Nothing, where it is not taken; then what `each` was shown means nothing.
pub(super) fn members<'t>(text: &'t str, mut each: impl FnMut(&'t str, Range<usize>)) -> Option<()> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.expect(b'{')?;
    scan.blanks();
    if scan.peek() == Some(b'}') {
        scan.at += 1;
    } else {
        loop {
            let begin = scan.at + 1;
            scan.expect(b'"')?;
            let is_plain = scan.string()?;
            let name = text.get(begin..scan.at - 1).filter(|_| is_plain)?;
            scan.colon()?;
            let begin = scan.at;
            scan.value()?;
            each(name, begin..scan.at);
            scan.blanks();
            match scan.next()? {
                b',' => scan.blanks(),
                b'}' => break,
                _ => return None,
            }
        }
    }
    (scan.at == text.len()).then_some(())
}

struct Scan<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn blanks(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// The colon behind a name, and the blanks around it.
    fn colon(&mut self) -> Option<()> {
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        Some(())
    }

    /// A value with all that is in it.
    fn value(&mut self) -> Option<()> {
        // The lists and objects that are open: the lowest bit tells whether the innermost is an object.
        let mut open = 1_u128;
        loop {
            match self.next()? {
                b'{' => {
                    self.blanks();
                    if self.peek()? == b'}' {
                        self.at += 1;
                    } else {
                        open = opened(open, true)?;
                        self.name()?;
                        continue;
                    }
                }
                b'[' => {
                    self.blanks();
                    if self.peek()? == b']' {
                        self.at += 1;
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
            let rest = self.bytes.get(self.at..)?;
            self.at += memchr::memchr2(b'"', b'\\', rest)? + 1;
            if self.bytes.get(self.at - 1) == Some(&b'"') {
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
        let found = self.bytes.get(self.at..)?.starts_with(rest);
        self.at += rest.len();
        found.then_some(())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Option<()> {
        self.next().filter(u8::is_ascii_digit)?;
        self.digits();
        Some(())
    }
}

/// What is open after a list or an object has begun.
fn opened(open: u128, is_object: bool) -> Option<u128> {
    (open.leading_zeros() > u128::BITS - 1 - NESTING_MAX).then_some(open << 1 | u128::from(is_object))
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
        assert!(here(&nested(NESTING_MAX as usize)).is_some());
        assert_eq!(here(&nested(NESTING_MAX as usize + 1)), None);
    }

    proptest! {
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
