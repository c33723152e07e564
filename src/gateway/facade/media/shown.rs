//! Which media a service may fetch: those that a view of its own showed, and those that it uploaded.
//!
//! An index of digests, not of ids. What was shown is known again after a restart from the history that is left, what was
//! uploaded from a file of digests that holds 30 days, as long as WhatsApp keeps media. **Invariant:** what stands here of
//! a service was put in by a view of that very service, or by its own upload.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::domain::ids::Number;
use crate::domain::view::View;
use crate::gateway::facade::auth::Who;
use crate::gateway::facade::known::FacadeNumber;
use crate::gateway::text::{bytes_of, hex};

/// Most media that are known of all services together, in some 100 bytes each; beyond it the oldest are forgotten.
const KNOWN_MAX: usize = 1 << 18;
/// How long an upload is known, in milliseconds: as long as WhatsApp keeps media.
const UPLOADED_MS: u64 = 30 * 86_400_000;
/// The file of uploads, beside the journal.
const FILE: &str = "media-uploads";
/// Under which names media stand in a message.
pub(in crate::gateway::facade) const KINDS: [&str; 5] = ["image", "audio", "video", "document", "sticker"];

type Key = [u8; 32];

#[derive(Debug, Default)]
struct Known {
    /// Whether the service uploaded it.
    media: HashMap<Key, bool>,
    order: VecDeque<Key>,
}

impl Known {
    fn put(&mut self, key: Key, uploaded: bool) {
        if let Some(known) = self.media.get_mut(&key) {
            *known |= uploaded;
            return;
        }
        self.media.insert(key, uploaded);
        self.order.push_back(key);
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.media.remove(&oldest);
        }
    }
}

/// Which media each service may fetch.
#[derive(Debug)]
pub(in crate::gateway::facade) struct Shown {
    known: Mutex<Known>,
    file: PathBuf,
}

impl Shown {
    /// Reads the uploads of before, and drops those that WhatsApp does not have any more.
    pub(in crate::gateway::facade) fn open(directory: &Path, now_ms: u64) -> io::Result<Self> {
        let file = directory.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut known = Known::default();
        let mut kept = String::new();
        for line in text.lines() {
            let Some((key, at)) = read_line(line) else { continue };
            if now_ms.saturating_sub(at) < UPLOADED_MS {
                known.put(key, true);
                kept.push_str(&written(&key, at));
            }
        }
        if kept != text {
            let fresh = directory.join(format!("{FILE}.new"));
            fs::write(&fresh, kept)?;
            fs::rename(fresh, &file)?;
        }
        Ok(Self { known: Mutex::new(known), file })
    }

    /// A view of the service's own showed it.
    pub(in crate::gateway::facade) fn show(&self, who: &Who, number: &Number, media_id: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(key_of(who, number, media_id), false);
    }

    /// The service uploaded it. Durable when this returns.
    pub(super) fn upload(&self, who: &Who, number: &Number, media_id: &str, now_ms: u64) -> io::Result<()> {
        let key = key_of(who, number, media_id);
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file)?;
        file.write_all(written(&key, now_ms).as_bytes())?;
        file.sync_data()?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(key, true);
        Ok(())
    }

    /// Of which number the media are, and whether the service uploaded them; nothing where it may not fetch them.
    pub(super) fn find(
        &self,
        who: &Who,
        numbers: &[Arc<FacadeNumber>],
        media_id: &str,
    ) -> Option<(Arc<FacadeNumber>, bool)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.iter().filter(|number| number.portal == who.portal).find_map(|number| {
            let uploaded = known.media.get(&key_of(who, &number.number, media_id))?;
            Some((Arc::clone(number), *uploaded))
        })
    }
}

fn key_of(who: &Who, number: &Number, media_id: &str) -> Key {
    let mut digest = Sha256::new();
    for part in [who.portal.as_str(), who.service.as_str(), number.as_str(), media_id] {
        digest.update(part.as_bytes());
        // No id holds it, so that no two parts can run together.
        digest.update([0]);
    }
    digest.finalize().into()
}

fn written(key: &Key, at: u64) -> String {
    format!("{} {at}\n", hex(key))
}

fn read_line(line: &str) -> Option<(Key, u64)> {
    let (key, at) = line.split_once(' ')?;
    Some((bytes_of(key.as_bytes())?, at.parse().ok()?))
}

/// The media that a view lets its service fetch: those that a customer sent, and those that were sent from the phone. What
/// a service wrote itself proves nothing, for it may write what it likes.
pub(in crate::gateway::facade) fn media_of(seen: &View<'_>) -> Vec<String> {
    match seen {
        View::Message { message, content, .. } => media_ids(message.content.kind(), content),
        View::Reply(reply) if reply.echo_of.is_some() => {
            media_ids(reply.content.kind(), reply.content.expose())
        }
        _ => Vec::new(),
    }
}

/// The media ids in a message object, wherever they stand.
fn media_ids(kind: &str, content: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    if kind != "text"
        && let Ok(value) = serde_json::from_slice::<Value>(content)
    {
        collect(&value, &mut found);
    }
    found
}

/// Goes as deep as content may be nested.
fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                if KINDS.contains(&name.as_str())
                    && let Some(id) = inner.get("id").and_then(Value::as_str)
                {
                    found.push(id.to_owned());
                }
                collect(inner, found);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_found_wherever_they_stand_and_nothing_else() {
        let ids = |kind: &str, content: &str| media_ids(kind, content.as_bytes());
        assert_eq!(ids("image", r#"{"type":"image","image":{"id":"1","caption":"c"}}"#), ["1"]);
        assert_eq!(ids("edit", r#"{"type":"edit","edit":{"message":{"video":{"id":"2"}}}}"#), ["2"]);
        assert!(ids("interactive", r#"{"interactive":{"button_reply":{"id":"3"}}}"#).is_empty());
        assert!(ids("text", r#"{"image":{"id":"4"}}"#).is_empty());
        assert!(ids("image", "{").is_empty());
    }

    #[test]
    fn what_one_service_was_shown_is_no_others_and_uploads_are_known_for_30_days() {
        let directory = tempfile::tempdir().unwrap();
        let who = |service: &str| Who { portal: "acme".parse().unwrap(), service: service.parse().unwrap() };
        let number: Number = "+15550783881".parse().unwrap();
        let facade = FacadeNumber {
            portal: "acme".parse().unwrap(),
            number: number.clone(),
            phone_number_id: None,
            waba_id: None,
            access_token: None,
        };
        let numbers = [Arc::new(facade)];
        let shown = Shown::open(directory.path(), 0).unwrap();
        shown.show(&who("crm"), &number, "1");
        shown.upload(&who("crm"), &number, "2", 1_000).unwrap();
        let of = |shown: &Shown, service: &str, id: &str| {
            shown.find(&who(service), &numbers, id).map(|(_, uploaded)| uploaded)
        };
        assert_eq!((of(&shown, "crm", "1"), of(&shown, "crm", "2")), (Some(false), Some(true)));
        assert_eq!(
            (of(&shown, "desk", "1"), of(&shown, "desk", "2"), of(&shown, "crm", "3")),
            (None, None, None)
        );
        let later = Shown::open(directory.path(), UPLOADED_MS).unwrap();
        assert_eq!((of(&later, "crm", "1"), of(&later, "crm", "2")), (None, Some(true)));
        let over = Shown::open(directory.path(), UPLOADED_MS + 1_000).unwrap();
        assert_eq!(of(&over, "crm", "2"), None);
        assert_eq!(fs::read_to_string(directory.path().join(FILE)).unwrap(), "");
    }
}
