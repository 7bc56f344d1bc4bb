//! What the writer does: every kind of store that there is, in an order that ends the same whoever begins it again.

use candleshm::columns::Row;
use candleshm::layout::Presence;
use candleshm::merge::RequestWindow;
use candleshm::writer::{Config, Health, Writer};

use crate::scratch;

/// A full minute, and the candle index that opens then.
const START_MS: i64 = 1_735_689_600_000;
const STEP_MS: i64 = 60_000;
pub(crate) const START_INDEX: u64 = (START_MS / STEP_MS) as u64;
const SETTLE_MS: i64 = 1_000;
pub(crate) const LENGTH: usize = 6;
/// The one that is listed later comes last.
const SYMBOLS: [&str; 3] = ["BTCUSDT", "ETHUSDT", "1000SHIBUSDT"];
/// The place of the one that does not trade for a while.
pub(crate) const DELISTED: usize = 1;

/// Rows as (minute, version).
type Rows = &'static [(u64, u32)];

/// The responses for both symbols in turn: the minute it is, how far into it, and the rows as (minute, version).
const ANSWERS: &[(u64, i64, Rows)] = &[
    // History, then the live row twice, the second time with more trades.
    (8, 2_000, &[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)]),
    (8, 3_000, &[(8, 1)]),
    (8, 4_000, &[(8, 2)]),
    // The next candle opens: 8 is provisional, changes, and is confirmed as it is.
    (9, 100, &[(8, 3), (9, 1)]),
    (9, 200, &[(8, 4), (9, 2)]),
    (9, 2_000, &[(8, 4), (9, 3)]),
    // Closed rows are corrected, in the middle and at the end.
    (9, 30_000, &[(5, 7), (6, 7), (7, 0), (8, 5), (9, 4)]),
    // An outage of three candles of which one is filled late, and two turn out not to exist.
    (13, 2_000, &[(13, 1)]),
    (13, 3_000, &[(9, 5), (11, 0), (13, 2)]),
    (13, 9_000, &[(9, 5), (11, 0), (13, 3)]),
    // Closed without a live row behind it.
    (14, 2_000, &[(13, 4)]),
    // A jump beyond the ring, some of it there at once and the rest later.
    (90, 2_000, &[(86, 0), (89, 0), (90, 1)]),
    (90, 5_000, &[(84, 0), (85, 0), (86, 0), (87, 0), (88, 0), (89, 0), (90, 2)]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    /// A block's life, from its creation.
    Life,
    /// A larger block takes the place of one that is there.
    Larger,
}

impl Story {
    pub(crate) fn parse(name: &str) -> Self {
        if name == "Life" { Self::Life } else { Self::Larger }
    }
}

pub(crate) fn usual() -> Config {
    Config { spare_symbols: 1, ..scratch::config(LENGTH, &SYMBOLS[..2]) }
}

pub(crate) fn with_listing() -> Config {
    scratch::config(LENGTH, &SYMBOLS)
}

pub(crate) fn larger() -> Config {
    Config { spare_symbols: 1, ..scratch::config(LENGTH + 3, &SYMBOLS[..2]) }
}

/// A row of minute `minute` whose every value is the minute and a version of it.
pub(crate) fn row(minute: u64, version: u32) -> Row {
    let open_ms = START_MS + minute as i64 * STEP_MS;
    let value = minute as f64 + 1.0 + f64::from(version) / 1024.0;
    let mut row = [value; 12];
    row[0] = open_ms as f64;
    row[6] = (open_ms + STEP_MS - 1) as f64;
    row[11] = 0.0;
    row
}

/// Merges rows, given as (minute, version), as the response to a request sent `after_ms` behind the beginning of `now`.
fn respond(writer: &mut Writer, symbol: usize, now: u64, after_ms: i64, rows: &[(u64, u32)]) {
    let rows: Vec<Row> = rows.iter().map(|&(minute, version)| row(minute, version)).collect();
    let sent_ms = START_MS + now as i64 * STEP_MS + after_ms;
    let window = RequestWindow {
        sent_ms,
        received_ms: sent_ms + 10,
        settle_ms: SETTLE_MS,
        limit: rows.len() + 1,
        start_ms: rows.first().map(|row| row[0] as i64),
        end_ms: None,
        from_end: false,
        patience_ms: 0,
    };
    writer.ingest(symbol, &rows, &window, 1_000 + now * 100 + after_ms as u64 / 1_000);
}

/// Tells the story. Told again, or by a successor from wherever the first one was interrupted, it ends the same.
pub(crate) fn tell(writer: &mut Writer, story: Story) {
    writer.set_health(&Health {
        ready: false,
        weight_used: 1,
        weight_limit: 6_000,
        banned_until_ms: 0,
        ..Health::default()
    });
    for (now, after_ms, rows) in ANSWERS {
        for symbol in 0..2 {
            respond(writer, symbol, *now, *after_ms, rows);
        }
    }
    if story == Story::Life {
        writer.add_symbol(SYMBOLS[2]).expect("a place is kept for it");
        respond(writer, 2, 90, 6_000, &[(88, 0), (89, 0), (90, 1)]);
        writer.set_presence(DELISTED, Presence::Ended);
        respond(writer, 0, 91, 2_000, &[(90, 0), (91, 1)]);
        respond(writer, 2, 91, 2_000, &[(90, 0), (91, 1)]);
        respond(writer, DELISTED, 91, 2_000, &[(90, 0), (91, 1)]);
        writer.set_presence(DELISTED, Presence::Trading);
    }
    writer.set_health(&Health {
        ready: true,
        weight_used: 2,
        weight_limit: 6_000,
        banned_until_ms: 9,
        ..Health::default()
    });
    writer.heartbeat(2_000_000_000);
}
