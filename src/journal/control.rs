//! The engine's own records: what was trimmed, deleted and given up with its segment. They stand in a stream of their own, in the order in
//! which they were asked for, and are obeyed once they are done, and again at every start.

use bytes::Bytes;

use super::block::{BlockBuilder, BlockError, RecordMeta};
use super::codec::{Reader, put_id128, put_number};
use super::index::Index;
use super::payload::kind;
use super::record::{RECORD_HEADER_BYTES, RecordHeader};
use super::segments::Segments;
use super::{Block, StreamId};
use crate::domain::ids::{Offset, Timestamp};

/// What the engine was asked to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The records of a stream before an offset.
    Trim(StreamId, Offset),
    /// A whole stream.
    Delete(StreamId),
    /// All that lies in the segments up to this number.
    Drop(u64),
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
        Order::Drop(_) => kind::DROPPED,
    };
    // Nothing depends on when it was.
    let meta = RecordMeta { conversation: None, previous: Offset::ZERO, at: Timestamp(0), kind };
    builder.push(offset, meta, |out| match order {
        Order::Trim(stream, before) => {
            put_id128(out, stream.0);
            put_number(out, before.0);
        }
        Order::Delete(stream) => put_id128(out, stream.0),
        Order::Drop(through) => put_number(out, through),
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
        let stream = |reader: &mut Reader<'_>| reader.id128("stream").ok().map(StreamId);
        orders.push(match header.kind {
            kind::TRIMMED => Order::Trim(stream(&mut reader)?, Offset(reader.number("offset").ok()?)),
            kind::DELETED => Order::Delete(stream(&mut reader)?),
            kind::DROPPED => Order::Drop(reader.number("segment").ok()?),
            _ => return None,
        });
        reader.end().ok()?;
        records = records.get(end..)?;
    }
    Some(orders)
}

/// Up to which segment all were given up, as far as these records say.
pub(super) fn dropped_through(records: Option<&[u8]>) -> Option<u64> {
    let dropped = |order| match order {
        Order::Drop(through) => Some(through),
        _ => None,
    };
    read(records?)?.into_iter().filter_map(dropped).max()
}

/// Carries orders out.
pub(super) fn obey(index: &Index, segments: &Segments, orders: &[Order]) {
    if orders.is_empty() {
        return;
    }
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
            Order::Drop(through) => {
                streams.values_mut().for_each(|stream| stream.drop_segments(through));
                segments.drop_through(through);
            }
        }
    }
}
