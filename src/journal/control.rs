//! The engine's own records: what was trimmed and what was deleted. They stand in a stream of their own, in the order in
//! which they were asked for, and are obeyed once they are done, and again at every start.

use bytes::Bytes;

use super::block::{BlockBuilder, BlockError, RecordMeta};
use super::codec::{Reader, put_id128, put_number};
use super::index::Index;
use super::payload::kind;
use super::record::{RECORD_HEADER_BYTES, RecordHeader};
use super::{Block, StreamId};
use crate::domain::ids::{Offset, Timestamp};

/// What the engine was asked to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The records of a stream before an offset.
    Trim(StreamId, Offset),
    /// A whole stream.
    Delete(StreamId),
}

/// Lays an order out as the record at `offset` of the engine's own stream.
pub(super) fn lay_out(
    builder: &mut BlockBuilder,
    offset: Offset,
    order: Order,
) -> Result<Option<Block>, BlockError> {
    let kind = match order {
        Order::Trim(..) => kind::TRIMMED,
        Order::Delete(_) => kind::DELETED,
    };
    // Nothing depends on when it was.
    let meta = RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(0), kind };
    builder.push(offset, meta, |out| match order {
        Order::Trim(stream, before) => {
            put_id128(out, stream.0);
            put_number(out, before.0);
        }
        Order::Delete(stream) => put_id128(out, stream.0),
    })?;
    Ok(builder.take())
}

/// Reads the orders in a block's records; none if anything in them does not check out.
pub(super) fn read(mut records: &[u8]) -> Option<Vec<Order>> {
    let mut orders = Vec::new();
    while !records.is_empty() {
        let header = RecordHeader::read(records)?;
        let end = RECORD_HEADER_BYTES + header.payload_bytes as usize;
        let payload = records.get(RECORD_HEADER_BYTES..end)?;
        if crc32c::crc32c(payload) != header.payload_crc {
            return None;
        }
        let payload = Bytes::copy_from_slice(payload);
        let mut reader = Reader::new(&payload);
        let stream = StreamId(reader.id128("stream").ok()?);
        orders.push(match header.kind {
            kind::TRIMMED => Order::Trim(stream, Offset(reader.number("offset").ok()?)),
            kind::DELETED => Order::Delete(stream),
            _ => return None,
        });
        reader.end().ok()?;
        records = records.get(end..)?;
    }
    Some(orders)
}

/// Carries orders out.
pub(super) fn obey(index: &Index, orders: &[Order]) {
    let mut streams = index.write();
    for order in orders {
        match *order {
            Order::Trim(stream, before) => {
                if let Some(stream) = streams.get_mut(&stream) {
                    stream.trim(before);
                }
            }
            Order::Delete(stream) => {
                if let Some(stream) = streams.get_mut(&stream) {
                    stream.delete();
                }
            }
        }
    }
}
