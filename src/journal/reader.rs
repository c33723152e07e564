//! Reading records back: locate, read, check, slice. Nothing whose checksum does not match leaves this file.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::block::{BLOCK_HEADER_BYTES, BlockHeader};
use super::files::Files;
use super::index::{BlockRef, Index};
use super::observed::Stats;
use super::record::{Damage, Entry, RECORD_HEADER_BYTES, RawRecord, RecordHeader};
use super::{ReadBatch, ReadError, StreamId};
use crate::domain::ids::Offset;

/// Blocks of a stream that lie so close to each other are read at once, in bytes: a read costs about as much as these.
const GAP_BYTES_MAX: u32 = 16 << 10;

/// Reads the blocks that the index names.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) index: Arc<Index>,
    pub(super) files: Arc<Files>,
    /// Off only for the test of the tests.
    pub(super) check_payloads: bool,
    pub(super) stats: Arc<Stats>,
}

impl Reader {
    pub(super) fn read(
        &self,
        stream: StreamId,
        from: Offset,
        max_bytes: usize,
    ) -> Result<ReadBatch, ReadError> {
        let located = self.index.locate(stream, from, max_bytes);
        let from = from.max(located.first);
        let mut batch = ReadBatch { entries: Vec::new(), next: from, first: located.first };
        let mut bytes = 0;
        for run in runs(&located.blocks) {
            let (start, buffer) = self.read_run(run)?;
            for block in run {
                let at = (block.position - start) as usize;
                let raw = buffer.slice(at.min(buffer.len())..(at + block.bytes as usize).min(buffer.len()));
                for entry in self.entries(stream, *block, &raw, from..=block.last()) {
                    bytes += match &entry {
                        Entry::Record(record) => RECORD_HEADER_BYTES + record.payload.len(),
                        Entry::Corrupt(_) => RECORD_HEADER_BYTES,
                    };
                    if bytes > max_bytes && !batch.entries.is_empty() {
                        return Ok(batch);
                    }
                    batch.next = entry.last().next();
                    batch.entries.push(entry);
                }
            }
        }
        Ok(batch)
    }

    pub(super) fn read_one(&self, stream: StreamId, offset: Offset) -> Result<Entry, ReadError> {
        let located = self.index.locate(stream, offset, 1);
        let block = located.blocks.first().filter(|block| block.first <= offset && offset >= located.first);
        let block = *block.ok_or(ReadError::NotFound { stream, offset })?;
        let (_, buffer) = self.read_run(&[block])?;
        let entries = self.entries(stream, block, &buffer, offset..=offset);
        let found = entries.into_iter().find(|entry| entry.offset() <= offset && offset <= entry.last());
        found.ok_or(ReadError::NotFound { stream, offset })
    }

    /// Reads blocks that lie together; returns where the buffer begins in the segment. A file that ends too early gives
    /// an empty buffer: its blocks are then corrupt.
    fn read_run(&self, run: &[BlockRef]) -> Result<(u32, Bytes), ReadError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok((0, Bytes::new())) };
        let segment = u64::from(first.segment);
        let mut buffer = vec![0; (last.position + last.bytes - first.position) as usize];
        let read =
            self.files.get(segment).and_then(|file| file.read_at(&mut buffer, u64::from(first.position)));
        match read {
            Ok(()) => Ok((first.position, Bytes::from(buffer))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok((first.position, Bytes::new())),
            Err(error) => Err(ReadError::Io {
                place: self.files.place(segment),
                position: u64::from(first.position),
                error: Arc::new(error),
            }),
        }
    }

    /// Takes a block apart, and gives what stands at the wanted offsets. What does not check out becomes damage, in its
    /// place; of records before the wanted ones only the headers are looked at, which say where the next begins.
    fn entries(
        &self,
        stream: StreamId,
        block: BlockRef,
        raw: &Bytes,
        wanted: RangeInclusive<Offset>,
    ) -> Vec<Entry> {
        let damage = |from: Offset, to: Offset, at: usize, chain| {
            self.stats.corrupt_reads.fetch_add(1, Ordering::Relaxed);
            Entry::Corrupt(Damage {
                from,
                to,
                place: self.files.place(u64::from(block.segment)),
                position: u64::from(block.position) + at as u64,
                chain,
            })
        };
        let fits = |header: BlockHeader| {
            (header.stream, header.first, header.records) == (stream, block.first, block.records)
                && header.bytes() == raw.len()
        };
        if !BlockHeader::read(raw).is_some_and(fits) {
            return vec![damage(block.first, block.last(), 0, None)];
        }
        let last = block.last().min(*wanted.end());
        let count = (last.0 + 1).saturating_sub(wanted.start().0);
        let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        let mut at = BLOCK_HEADER_BYTES;
        for offset in (block.first.0..=last.0).map(Offset) {
            let header = raw.get(at..).and_then(RecordHeader::read).filter(|header| header.offset == offset);
            let payload_at = at + RECORD_HEADER_BYTES;
            let place = header.and_then(|header| {
                let end = payload_at + header.payload_bytes as usize;
                (end <= raw.len()).then_some((header, end))
            });
            let Some((header, end)) = place else {
                // Where the next record begins, nobody can say.
                entries.push(damage(offset, block.last(), at, None));
                break;
            };
            if wanted.contains(&offset) {
                let payload = raw.slice(payload_at..end);
                if self.check_payloads && crc32c::crc32c(&payload) != header.payload_crc {
                    let chain = header.conversation.map(|conversation| (conversation, header.previous));
                    entries.push(damage(offset, offset, at, chain));
                } else {
                    entries.push(Entry::Record(RawRecord::new(header, payload)));
                }
            }
            at = end;
        }
        entries
    }
}

/// Blocks that are read at once: in one segment, in order, with little between them.
fn runs(blocks: &[BlockRef]) -> impl Iterator<Item = &[BlockRef]> {
    blocks.chunk_by(|one, next| {
        let end = one.position + one.bytes;
        one.segment == next.segment && next.position >= end && next.position - end <= GAP_BYTES_MAX
    })
}
