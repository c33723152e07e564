//! What makes a directory a store: the `FORMAT` file with the store's id, and the `keys` file. Both are written once,
//! when the store is made; `FORMAT` comes last of all, behind the first segment, so a store that has one is whole.
//!
//! ```text
//!  FORMAT, text                      keys, binary
//!  sharedline journal                byte 0       8            24        56      72     104        108
//!  format 1                               ┌───────┬────────────┬─────────┬───────┬──────┬──────────┐
//!  store 32 hexadecimal digits            │ magic │fingerprint │ confirm │digest │ more │ CRC32C   │
//!  needs 16 hexadecimal digits            │       │ 16         │ 32      │ 16    │ 32   │ of 0–103 │
//!  check CRC32C of the above, hex         └───────┴────────────┴─────────┴───────┴──────┴──────────┘
//! ```

use std::fmt;
use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::record::u32_at;
use super::segment::{FORMAT, KNOWN_FEATURES};

pub(super) const FORMAT_FILE: &str = "FORMAT";
const KEYS_FILE: &str = "keys";
/// What files are called until they are whole; removed at every start.
pub(super) const UNFINISHED: &str = ".tmp";
/// Larger than any `FORMAT` file, in bytes, one of a newer version included.
const FORMAT_FILE_BYTES_MAX: u64 = 4096;

const KEYS_MAGIC: [u8; 8] = *b"\xffSLKEY\xff\x01";
const KEYS_CHECKED: usize = 104;
const KEYS_BYTES: usize = 108;

/// Why a store was not opened. Nothing in it was changed that the log needs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{place} is in use by another process")]
    Locked {
        /// The directory.
        place: String,
    },
    /// A newer version wrote it.
    #[error("{place} has format {found}; this version reads up to {FORMAT}")]
    Newer {
        /// The file that says so.
        place: String,
        /// The format that it names.
        found: u64,
    },
    /// Something in it is damaged, and nobody can say whose it is.
    #[error("{place} is damaged at byte {position}: {what}")]
    Damaged {
        /// The file.
        place: String,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The disk refused.
    #[error("{operation} of {place} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        place: String,
        /// Why it failed.
        #[source]
        error: Arc<io::Error>,
    },
}

/// Keys of this store: random, made with it, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// For fingerprints of customers' names and of message ids.
    pub fingerprint: [u8; 16],
    /// For the MAC of a `confirm`.
    pub confirm: [u8; 32],
    /// For the digests of replies.
    pub digest: [u8; 16],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<keys>")
    }
}

impl Keys {
    /// New keys from the operating system, for a broker whose journal has no directory.
    ///
    /// # Errors
    /// When there is no source of randomness.
    pub fn random() -> io::Result<Self> {
        let mut raw = [0; KEYS_BYTES];
        getrandom::fill(&mut raw).map_err(io::Error::other)?;
        Ok(Self::from_raw(&raw))
    }

    fn from_raw(raw: &[u8; KEYS_BYTES]) -> Self {
        let mut keys = Self { fingerprint: [0; 16], confirm: [0; 32], digest: [0; 16] };
        keys.fingerprint.copy_from_slice(&raw[8..24]);
        keys.confirm.copy_from_slice(&raw[24..56]);
        keys.digest.copy_from_slice(&raw[56..72]);
        keys
    }
}

/// What a store is known by.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) id: u128,
    pub(super) keys: Keys,
    /// Whether it is being made: it is none until [`finish`].
    pub(super) new: bool,
}

/// Reads the store's own two files, or begins to make a store. `names` is what the directory has.
pub(super) fn open(disk: &dyn Disk, names: &[String]) -> Result<Store, OpenError> {
    if names.iter().any(|name| name == FORMAT_FILE) {
        let id = read_format(disk)?;
        return Ok(Store { id, keys: read_keys(disk)?, new: false });
    }
    let mut raw = [0; KEYS_BYTES];
    let mut id = [0; 16];
    disk.entropy(&mut raw)
        .and_then(|()| disk.entropy(&mut id))
        .map_err(|error| failed(disk, "entropy", "", error))?;
    raw[..8].copy_from_slice(&KEYS_MAGIC);
    let crc = crc32c::crc32c(&raw[..KEYS_CHECKED]);
    raw[KEYS_CHECKED..].copy_from_slice(&crc.to_le_bytes());
    put_file(disk, KEYS_FILE, &raw)?;
    Ok(Store { id: u128::from_le_bytes(id), keys: Keys::from_raw(&raw), new: true })
}

/// Ends the making of a store, once it has its first segment.
pub(super) fn finish(disk: &dyn Disk, store: &Store) -> Result<(), OpenError> {
    put_file(disk, FORMAT_FILE, format_text(store.id).as_bytes())
}

/// A store without `FORMAT` file, but with segments, lost it.
pub(super) fn format_is_missing(disk: &dyn Disk) -> OpenError {
    damaged(disk, FORMAT_FILE, 0, "it is missing, and there are records")
}

/// The id of the store that is there.
pub(super) fn read(disk: &dyn Disk) -> Result<u128, OpenError> {
    read_format(disk)
}

fn format_text(id: u128) -> String {
    let lines = format!("sharedline journal\nformat {FORMAT}\nstore {id:032x}\nneeds {:016x}\n", 0);
    let crc = crc32c::crc32c(lines.as_bytes());
    format!("{lines}check {crc:08x}\n")
}

fn read_format(disk: &dyn Disk) -> Result<u128, OpenError> {
    let text = read_file(disk, FORMAT_FILE, FORMAT_FILE_BYTES_MAX)?;
    let text = std::str::from_utf8(&text).map_err(|_| damaged(disk, FORMAT_FILE, 0, "it is no text"))?;
    let mut fields = text.lines();
    if fields.next() != Some("sharedline journal") {
        return Err(damaged(disk, FORMAT_FILE, 0, "it is no journal's"));
    }
    let number = |line: Option<&str>, name: &str, radix| {
        let digits = line.and_then(|line| line.strip_prefix(name));
        digits.and_then(|digits| u128::from_str_radix(digits, radix).ok())
    };
    let found = number(fields.next(), "format ", 10).and_then(|found| u64::try_from(found).ok());
    let found = found.ok_or_else(|| damaged(disk, FORMAT_FILE, 0, "it names no format"))?;
    if found > u64::from(FORMAT) {
        return Err(OpenError::Newer { place: disk.place(FORMAT_FILE), found });
    }
    let store = number(fields.next(), "store ", 16);
    let needs = number(fields.next(), "needs ", 16);
    let checked = text.find("check ").and_then(|at| text.get(..at)).unwrap_or_default();
    if text != format!("{checked}check {:08x}\n", crc32c::crc32c(checked.as_bytes())) {
        return Err(damaged(disk, FORMAT_FILE, 0, "its checksum does not match"));
    }
    match (store, needs) {
        (Some(id), Some(needs)) if needs & !u128::from(KNOWN_FEATURES) == 0 => Ok(id),
        (Some(_), Some(_)) => Err(OpenError::Newer { place: disk.place(FORMAT_FILE), found }),
        _ => Err(damaged(disk, FORMAT_FILE, 0, "it names no store")),
    }
}

/// Reads the keys.
pub(super) fn read_keys(disk: &dyn Disk) -> Result<Keys, OpenError> {
    let bytes = read_file(disk, KEYS_FILE, KEYS_BYTES as u64)?;
    let raw: &[u8; KEYS_BYTES] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| damaged(disk, KEYS_FILE, 0, "it has not the length of keys"))?;
    if raw[..8] != KEYS_MAGIC || crc32c::crc32c(&raw[..KEYS_CHECKED]) != u32_at(raw, KEYS_CHECKED) {
        return Err(damaged(disk, KEYS_FILE, 0, "its checksum does not match"));
    }
    Ok(Keys::from_raw(raw))
}

/// Reads a whole file of at most `bytes_max` bytes.
fn read_file(disk: &dyn Disk, name: &str, bytes_max: u64) -> Result<Vec<u8>, OpenError> {
    let file = disk.open(name).map_err(|error| failed(disk, "open", name, error))?;
    let length = file.length().map_err(|error| failed(disk, "open", name, error))?;
    if length > bytes_max {
        return Err(damaged(disk, name, bytes_max, "it is longer than it can be"));
    }
    read_start(disk, &*file, name, length)
}

/// Reads the first `length` bytes of a file.
pub(super) fn read_start(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    name: &str,
    length: u64,
) -> Result<Vec<u8>, OpenError> {
    let length =
        usize::try_from(length).map_err(|_| damaged(disk, name, length, "it is longer than it can be"))?;
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0).map_err(|error| failed(disk, "read", name, error))?;
    Ok(bytes)
}

/// Writes a whole file so that it is there entirely or not at all.
fn put_file(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
    let unfinished = format!("{name}{UNFINISHED}");
    let write = || {
        let file = disk.create(&unfinished)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        disk.rename(&unfinished, name)?;
        disk.sync_directory()
    };
    write().map_err(|error| failed(disk, "write", name, error))
}

pub(super) fn damaged(disk: &dyn Disk, name: &str, position: u64, what: &'static str) -> OpenError {
    OpenError::Damaged { place: disk.place(name), position, what }
}

pub(super) fn failed(disk: &dyn Disk, operation: &'static str, name: &str, error: io::Error) -> OpenError {
    OpenError::Io { operation, place: disk.place(name), error: Arc::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sim_disk::SimDisk;

    fn make(disk: &SimDisk) -> Store {
        let store = open(disk, &[]).unwrap();
        finish(disk, &store).unwrap();
        store
    }

    fn names(disk: &SimDisk) -> Vec<String> {
        disk.list().unwrap()
    }

    #[test]
    fn a_store_keeps_its_id_and_its_keys() {
        let disk = SimDisk::new(1);
        let made = make(&disk);
        let again = open(&disk, &names(&disk)).unwrap();
        assert!(made.new && !again.new);
        assert_eq!((made.id, made.keys), (again.id, again.keys));
    }

    #[test]
    fn every_flipped_bit_of_its_files_is_named() {
        for name in [FORMAT_FILE, KEYS_FILE] {
            let disk = SimDisk::new(1);
            make(&disk);
            let file = disk.open(name).unwrap();
            for byte in 0..file.length().unwrap() {
                for bit in 0..8 {
                    disk.flip(name, byte, bit);
                    let refused = open(&disk, &names(&disk));
                    let named = match &refused {
                        Err(OpenError::Damaged { place, .. } | OpenError::Newer { place, .. }) => {
                            place.contains(name)
                        }
                        _ => false,
                    };
                    assert!(named, "{name}, byte {byte}, bit {bit}: {refused:?}");
                    disk.flip(name, byte, bit);
                }
            }
        }
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_it_says() {
        let disk = SimDisk::new(1);
        make(&disk);
        let file = disk.open(FORMAT_FILE).unwrap();
        file.set_length(0).unwrap();
        file.write_at(b"sharedline journal\nformat 2\nwhatever\n", 0).unwrap();
        assert!(matches!(open(&disk, &names(&disk)), Err(OpenError::Newer { found: 2, .. })));
    }
}
