//! Where a test writes a saved state, and reads it back: the parts as they are, without bytes.

use std::collections::VecDeque;

use sharedline::domain::saved::{Put, Take, Unreadable};

enum Part {
    Number(u64),
    Wide(u128),
    Bytes(Vec<u8>),
}

/// The parts of a state, in order.
#[derive(Default)]
pub(crate) struct Tape {
    parts: VecDeque<Part>,
    read: String,
}

impl Tape {
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Put for Tape {
    fn number(&mut self, number: u64) {
        self.parts.push_back(Part::Number(number));
    }

    fn wide(&mut self, number: u128) {
        self.parts.push_back(Part::Wide(number));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.parts.push_back(Part::Bytes(bytes.to_vec()));
    }
}

impl Take for Tape {
    fn number(&mut self) -> Result<u64, Unreadable> {
        match self.parts.pop_front() {
            Some(Part::Number(number)) => Ok(number),
            _ => Err(Unreadable("a number")),
        }
    }

    fn wide(&mut self) -> Result<u128, Unreadable> {
        match self.parts.pop_front() {
            Some(Part::Wide(number)) => Ok(number),
            _ => Err(Unreadable("a wide number")),
        }
    }

    fn count(&mut self) -> Result<usize, Unreadable> {
        Take::number(self).map(|count| count as usize)
    }

    fn text(&mut self) -> Result<&str, Unreadable> {
        match self.parts.pop_front() {
            Some(Part::Bytes(bytes)) => self.read = String::from_utf8(bytes).unwrap(),
            _ => return Err(Unreadable("a text")),
        }
        Ok(&self.read)
    }
}
