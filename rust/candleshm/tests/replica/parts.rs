//! Messages to read and to write, and the property that a fuzzer drives.
#![allow(dead_code, reason = "no test needs all of it")]

use candleshm::columns::{CLOSE_TIME_MS, COLUMNS, OPEN_TIME_MS, Row};
use candleshm::interval::Interval;
use candleshm::layout::{Geometry, RowState};
use candleshm::market::Market;
use candleshm::publish::RingRow;
use candleshm::replica::checksum::crc32c;
use candleshm::replica::message::{Builder, HEAD_BYTES, Head, Kind, Message, Update, feed_of};
use proptest::prelude::*;

pub(crate) const SYMBOLS: [&str; 2] = ["AUSDT", "BUSDT"];
pub(crate) const MINUTE_MS: i64 = 60_000;

pub(crate) fn head_of(geometry: &Geometry, exchange: &str, kind: Kind) -> Head {
    Head {
        kind,
        is_last: true,
        feed: feed_of(geometry, exchange),
        shard: 0,
        shards: 1,
        epoch: 1,
        sequence: 1,
        sent_boot_ns: 5,
        exchange_offset_ms: 6,
    }
}

pub(crate) fn update(symbol: usize) -> Update {
    Update {
        symbol: SYMBOLS[symbol].to_owned(),
        phase_days: 0,
        first_bar: 0,
        presence: 1,
        calendar: 0,
        head: 0,
        revision: 0,
        received_ms: 3,
        newest: None,
        rows: Vec::new(),
        has_more: false,
        differs: false,
    }
}

/// A row of a 1m candle, on its grid or not.
pub(crate) fn any_row(candle_index: u64, values: [f64; COLUMNS], is_odd: bool) -> Row {
    let mut row = values.map(f64::abs);
    row[2] = row[1].max(row[3]) + 1.0;
    row[OPEN_TIME_MS] = (candle_index as i64 * MINUTE_MS) as f64 + if is_odd { 7.0 } else { 0.0 };
    row[CLOSE_TIME_MS] = row[OPEN_TIME_MS] + if is_odd { 5.0 } else { 59_999.0 };
    row[COLUMNS - 1] = if is_odd { values[0].abs() } else { 0.0 };
    row
}

pub(crate) fn any_update() -> impl Strategy<Value = Update> {
    let value = -1e12..1e12;
    let row = (1..1_000_u64, proptest::array::uniform12(value), any::<bool>(), 1..5_u8);
    (
        proptest::collection::btree_map(1..1_000_u64, row.prop_map(|row| row), 0..20),
        0..2_usize,
        any::<u32>(),
        any::<[bool; 4]>(),
    )
        .prop_map(|(rows, symbol, revision, [has_newest, is_live, has_more, differs])| {
            let rows: Vec<RingRow> = rows
                .into_iter()
                .map(|(candle_index, (_, values, is_odd, state))| RingRow {
                    candle_index,
                    row: if state == 4 { [f64::NAN; COLUMNS] } else { any_row(candle_index, values, is_odd) },
                    state: [RowState::Live, RowState::Closed, RowState::Verified, RowState::Hole]
                        [usize::from(state) - 1],
                })
                .collect();
            let head = rows.last().map_or(3, |row| row.candle_index + 1);
            let state = if is_live { RowState::Live } else { RowState::Verified };
            let newest_index = head - u64::from(!is_live);
            let newest = has_newest.then(|| (state, any_row(newest_index, [2.5; COLUMNS], is_live)));
            Update {
                head,
                revision,
                newest,
                rows,
                has_more,
                differs,
                calendar: 1 << 40,
                first_bar: 2,
                ..update(symbol)
            }
        })
}

/// NaN is not equal to itself.
pub(crate) fn text_of(message: &Message) -> String {
    format!("{message:?}")
}

/// Returns a message whose head fits the bytes behind it, whatever these are.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let size = bytes.len() as u32;
    bytes[16..20].copy_from_slice(&size.to_le_bytes());
    let checksum = crc32c(&[&bytes[..12], &bytes[16..]]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Whatever records are made of these bytes: they are refused, or are read the same once they were written again.
pub(crate) fn body_is_harmless(body: &[u8]) {
    let intervals = [Interval::Minute1, Interval::Month1, Interval::Day3, Interval::Second1];
    let interval = intervals[usize::from(body.first().copied().unwrap_or(0)) % intervals.len()];
    let geometry = Geometry::new(Market::Spot, interval, 40, 4).expect("a shape");
    let head = head_of(&geometry, "example", Kind::Answer);
    let mut bytes = Builder::new(&head).finish(true);
    assert_eq!(bytes.len(), HEAD_BYTES);
    bytes.extend(body.iter().skip(1));
    let Ok(message) = Message::read(&sealed(bytes), &geometry) else { return };
    let mut builder = Builder::new(&head);
    for record in &message.records {
        // Records of unknown kinds are gone, so there is room.
        assert!(builder.add(record, &geometry));
    }
    let again = Message::read(&builder.finish(true), &geometry).expect("it was read before");
    assert_eq!(text_of(&again), text_of(&message));
}
