//! Media that the simulated Graph API keeps: what was uploaded, and what customers sent; each with an id, and an address
//! that only the access token opens.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::gateway::text::hex;

/// Where media lie, below the server's address.
pub(super) const FOLDER: &str = "media";

/// One of the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Its type.
    pub mime_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether the business uploaded it, else a customer sent it.
    pub is_uploaded: bool,
}

/// All that there are, by id.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    media: BTreeMap<String, Media>,
    count: u64,
}

impl Shelf {
    /// Keeps media and gives the id that they get.
    pub(super) fn put(&mut self, media: Media) -> String {
        self.count += 1;
        let id = format!("{:016}", self.count);
        self.media.insert(id.clone(), media);
        id
    }

    pub(super) fn get(&self, id: &str) -> Option<&Media> {
        self.media.get(id)
    }

    pub(super) fn remove(&mut self, id: &str) -> bool {
        self.media.remove(id).is_some()
    }
}

/// What Meta says of media: where they are, and what.
pub(super) fn said(id: &str, media: &Media, base: &str) -> Value {
    json!({
        "messaging_product": "whatsapp",
        "url": format!("{base}/{FOLDER}/{id}"),
        "mime_type": media.mime_type,
        "sha256": sha256(&media.bytes),
        "file_size": media.bytes.len(),
        "id": id,
    })
}

/// The digest of bytes, in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The media of an upload's form; nothing where it is not as Meta wants it: `messaging_product`, and a `file` with a type.
pub(super) fn of_form(content_type: &str, body: &[u8]) -> Option<Media> {
    let boundary = content_type.strip_prefix("multipart/form-data;")?.trim().strip_prefix("boundary=")?;
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let (mut product, mut kind, mut file) = (None, None, None);
    for part in split(body, delimiter.as_bytes()) {
        let Some((head, content)) = once(part, b"\r\n\r\n") else { continue };
        let content = content.strip_suffix(b"\r\n").unwrap_or(content);
        let head = String::from_utf8_lossy(head);
        let own_type = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
        });
        if head.contains("name=\"messaging_product\"") {
            product = Some(content == b"whatsapp");
        } else if head.contains("name=\"type\"") {
            kind = String::from_utf8(content.to_vec()).ok();
        } else if head.contains("name=\"file\"") {
            file = Some((content.to_vec(), own_type));
        }
    }
    let (bytes, own_type) = file.filter(|(bytes, _)| product == Some(true) && !bytes.is_empty())?;
    Some(Media { mime_type: kind.or(own_type)?, bytes, is_uploaded: true })
}

/// What stands between the delimiters.
fn split<'b>(body: &'b [u8], delimiter: &[u8]) -> Vec<&'b [u8]> {
    let (mut parts, mut rest) = (Vec::new(), body);
    while let Some((part, behind)) = once(rest, delimiter) {
        parts.push(part);
        rest = behind;
    }
    parts
}

/// What stands before and behind the first `mark`.
fn once<'b>(bytes: &'b [u8], mark: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = memchr::memmem::find(bytes, mark)?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=xyz";

    fn form(parts: &[&str]) -> Vec<u8> {
        let parts: String =
            parts.iter().map(|part| format!("--xyz\r\ncontent-disposition: form-data; {part}\r\n")).collect();
        format!("{parts}--xyz--\r\n").into_bytes()
    }

    #[test]
    fn an_upload_is_read_as_programs_write_it() {
        let product = "name=\"messaging_product\"\r\n\r\nwhatsapp";
        let file = "name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\nbytes\r\n\r\nmore";
        let kind = "name=\"type\"\r\n\r\nimage/webp";
        let read = |parts: &[&str]| of_form(KIND, &form(parts));
        let media = read(&[product, file, kind]).unwrap();
        assert_eq!(
            (media.mime_type.as_str(), media.bytes.as_slice()),
            ("image/webp", &b"bytes\r\n\r\nmore"[..])
        );
        assert_eq!(read(&[file, product]).unwrap().mime_type, "image/png");
        for wrong in [&[product][..], &[file], &["name=\"messaging_product\"\r\n\r\nx", file]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(of_form("application/json", b"{}"), None);
    }

    #[test]
    fn what_is_said_of_media_has_their_digest() {
        let media = Media { mime_type: "text/plain".into(), bytes: b"abc".to_vec(), is_uploaded: false };
        let said = said("7", &media, "http://host");
        assert_eq!(said["url"], "http://host/media/7");
        assert_eq!(said["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
