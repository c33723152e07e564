//! The records of a stream whose state can not be folded, set aside as they are before retention takes them, so that
//! they keep nobody else's from going and are not lost for who wants to look.
//!
//! `<stream>.quarantine` holds the records that could be read, each as in `record`, one behind the other. Nothing reads
//! it; it goes with the directory, or by the operator's hand.

use std::io;

use super::StreamId;
use super::base::Kept;
use super::disk::Disk;
use super::reader::Reader;
use super::record::Entry;
use super::store::UNFINISHED;
use crate::domain::ids::Offset;

const SUFFIX: &str = ".quarantine";
/// How much is read and written at a time, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// Copies what can be read, unless that was done before.
pub(super) fn set_aside(disk: &dyn Disk, reader: &Reader, stream: StreamId) -> io::Result<()> {
    let name = format!("{stream}{SUFFIX}");
    let unfinished = format!("{name}{UNFINISHED}");
    let names = disk.list()?;
    if names.contains(&name) {
        return Ok(());
    }
    if names.contains(&unfinished) {
        disk.remove(&unfinished)?;
    }
    let file = disk.create(&unfinished)?;
    let (mut from, mut position) = (Offset(1), 0);
    loop {
        let found = reader.read(stream, from, COPY_BYTES).map_err(io::Error::other)?;
        let mut records = Kept::default();
        for entry in &found.entries {
            match entry {
                Entry::Record(record) => records.push(record, &record.payload),
                Entry::Corrupt(damage) => {
                    tracing::warn!(
                        %stream, from = damage.from.0, to = damage.to.0, place = %damage.place,
                        position = damage.position, "damaged records are not set aside"
                    );
                }
            }
        }
        file.write_at(records.bytes(), position)?;
        position += records.bytes().len() as u64;
        if found.next <= from {
            break;
        }
        from = found.next;
    }
    file.sync()?;
    disk.rename(&unfinished, &name)?;
    disk.sync_directory()
}
