//! Events and responses of one exchange, in any order, lost, twice and late, into the real writer: what it publishes is
//! always something that the exchange had, never older than what was there, and final only when it is.

mod scratch;

use std::collections::HashMap;

use candleshm::columns::{COLUMNS, Row, TRADES, bits_equal};
use candleshm::interval::{Grid, Interval};
use candleshm::layout::{RowState, header};
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::wire::event;
use candleshm::writer::{Config, Pushed, RepairReason, Writer};
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;

use scratch::Scratch;

const MINUTE_MS: i64 = 60_000;
const SETTLE_MS: i64 = 1_000;
const LENGTH: usize = 8;
/// The first candle in which anything happens: 2025-01-01, a multiple of a minute.
const FIRST: i64 = 1_735_689_600_000 / MINUTE_MS;
const CANDLES: i64 = 12;

/// The exchange: how many trades each candle ends with. Trade number `n` of a candle happens `n` seconds
/// into it.
struct Exchange {
    trades: Vec<i64>,
}

impl Exchange {
    fn first_id(&self, candle_index: i64) -> i64 {
        1_000 + self.trades[..(candle_index - FIRST) as usize].iter().sum::<i64>()
    }

    fn close_of(&self, candle_index: i64, trades: i64) -> f64 {
        100.0 + (self.first_id(candle_index) + trades) as f64 / 8.0
    }

    /// The candle of `candle_index` after so many of its trades.
    fn row(&self, candle_index: i64, trades: i64) -> Row {
        // A candle without trades lies flat at the close before.
        let before = if candle_index > FIRST {
            self.close_of(candle_index - 1, self.trades[(candle_index - 1 - FIRST) as usize])
        } else {
            100.0
        };
        let (open, close) = if trades == 0 {
            (before, before)
        } else {
            (self.close_of(candle_index, 1), self.close_of(candle_index, trades))
        };
        let amount = trades as f64;
        let open_ms = (candle_index * MINUTE_MS) as f64;
        let end_ms = ((candle_index + 1) * MINUTE_MS - 1) as f64;
        [open_ms, open, close.max(open), open.min(close), close, amount, end_ms, amount * 2.0, amount, 0.0, 0.0, 0.0]
    }

    fn trades_at(&self, candle_index: i64, now_ms: i64) -> i64 {
        ((now_ms - candle_index * MINUTE_MS) / 1_000).clamp(0, self.trades[(candle_index - FIRST) as usize])
    }

    fn last(&self, candle_index: i64) -> Row {
        self.row(candle_index, self.trades[(candle_index - FIRST) as usize])
    }

    /// The event that was made at `event_ms`; `closed` ones are made after the candle's end.
    fn frame(&self, candle_index: i64, event_ms: i64, closed: bool, lie: f64) -> String {
        let trades = self.trades_at(candle_index, event_ms);
        let row = self.row(candle_index, trades);
        let first = self.first_id(candle_index);
        let (first_id, last_id) = if trades == 0 { (-1, -1) } else { (first, first + trades - 1) };
        format!(
            r#"{{"stream":"btcusdt@kline_1m","data":{{"e":"kline","E":{event_ms},"s":"BTCUSDT","k":{{"t":{},"T":{},"s":"BTCUSDT","i":"1m","f":{first_id},"L":{last_id},"o":"{}","c":"{}","h":"{}","l":"{}","v":"{}","n":{trades},"x":{closed},"q":"{}","V":"0","Q":"0","B":"0"}}}}}}"#,
            row[0],
            row[6],
            row[1],
            row[4],
            row[2] + lie,
            row[3],
            row[5],
            row[7],
        )
    }

    /// The newest `limit` rows that open at `end_ms` or before, as of `now_ms`.
    fn rows(&self, limit: i64, now_ms: i64) -> Vec<Row> {
        let newest = (now_ms / MINUTE_MS).min(FIRST + CANDLES - 1);
        (newest - limit + 1..=newest)
            .filter(|&candle_index| candle_index >= FIRST)
            .map(|candle_index| self.row(candle_index, self.trades_at(candle_index, now_ms)))
            .collect()
    }
}

/// What comes to the writer, ordered by when the exchange made it.
#[derive(Debug, Clone, Copy)]
enum Word {
    /// An event of the candle that is open, so many seconds into it; later ones come after its end and close it.
    Event { candle_index: i64, second: i64 },
    /// An event that closes a candle before its end.
    Early { candle_index: i64, second: i64 },
    /// A response to a request that was sent so long before the exchange looked.
    Response { at_ms: i64, under_way_ms: i64, limit: i64 },
}

impl Word {
    fn made_ms(self) -> i64 {
        match self {
            Self::Event { candle_index, second } | Self::Early { candle_index, second } => {
                candle_index * MINUTE_MS + second * 1_000
            }
            Self::Response { at_ms, .. } => at_ms,
        }
    }
}

struct World {
    exchange: Exchange,
    scratch: Scratch,
    writer: Writer,
    /// When the exchange looked for the newest response: a series has at most one request in flight.
    responded_ms: i64,
    /// Most trades that the block has shown of a candle.
    most: HashMap<i64, i64>,
}

impl World {
    fn new(trades: &[i64]) -> Self {
        let scratch = Scratch::new("stream");
        let writer = Writer::open(scratch.name(), &scratch::config(LENGTH, &["BTCUSDT"]), scratch::owner())
            .expect("a new block");
        Self { exchange: Exchange { trades: trades.to_vec() }, scratch, writer, responded_ms: 0, most: HashMap::new() }
    }

    fn receive(&mut self, frame: &str, received_ms: i64) -> Pushed {
        self.writer.ingest_events([event::parse(frame.as_bytes())], received_ms, 1)
    }

    fn respond(&mut self, at_ms: i64, under_way_ms: i64, limit: i64) {
        if at_ms < self.responded_ms {
            return;
        }
        let sent_ms = self.responded_ms.max(at_ms - under_way_ms);
        self.responded_ms = at_ms;
        let window = RequestWindow {
            sent_ms,
            received_ms: at_ms + 1_000,
            settle_ms: SETTLE_MS,
            limit: limit as usize,
            start_ms: None,
            end_ms: None,
            from_end: true,
            patience_ms: 0,
        };
        let rows = self.exchange.rows(limit, at_ms);
        self.writer.ingest(0, &rows, &window, 1);
    }

    fn rows(&self) -> Vec<(i64, RowState, Row)> {
        let mut columns = vec![0.0; COLUMNS * LENGTH];
        let mut snapshot = Snapshot::default();
        let selection = Selection { count: LENGTH, closed_only: false, states: true };
        SeriesReader::new(self.writer.block(), 0).copy(&selection, &mut columns, &mut snapshot).expect("nobody writes");
        // What lies below the exchange's first candle is nobody's business here.
        let first = (FIRST as u64).saturating_sub(snapshot.start) as usize;
        let shown = snapshot.states.iter().enumerate().skip(first).filter(|(_, state)| **state != RowState::Missing);
        shown
            .map(|(slot, state)| {
                let row = std::array::from_fn(|column| columns[column * LENGTH + slot]);
                (snapshot.start as i64 + slot as i64, *state, row)
            })
            .collect()
    }

    fn check(&mut self) {
        for (candle_index, state, row) in self.rows() {
            let trades = row[TRADES] as i64;
            let expected = self.exchange.row(candle_index, trades);
            assert!(bits_equal(&row, &expected), "{candle_index} {state:?}: {row:?} is not {expected:?}");
            let most = self.most.entry(candle_index).or_insert(trades);
            assert!(trades >= *most, "nothing older overwrites anything newer: {trades} trades after {most}");
            *most = trades;
            if state != RowState::Live {
                assert!(bits_equal(&row, &self.exchange.last(candle_index)), "{state:?} at {candle_index}: {row:?}");
            }
        }
    }
}

fn words() -> impl Strategy<Value = Vec<Word>> {
    let word = prop_oneof![
        8 => (FIRST..FIRST + CANDLES, 0..63_i64).prop_map(|(candle_index, second)| Word::Event { candle_index, second }),
        1 => (FIRST..FIRST + CANDLES, 0..59_i64).prop_map(|(candle_index, second)| Word::Early { candle_index, second }),
        3 => (0..CANDLES * MINUTE_MS, 0..3_000_i64, 1..10_i64).prop_map(|(at_ms, under_way_ms, limit)| Word::Response {
            at_ms: FIRST * MINUTE_MS + at_ms,
            under_way_ms,
            limit,
        }),
    ];
    prop::collection::vec((word, 0..90_000_i64), 1..120).prop_map(|mut words| {
        // Some come in order, some late.
        words.sort_by_key(|(word, late_ms)| word.made_ms() + if late_ms % 3 == 0 { *late_ms } else { 0 });
        words.into_iter().map(|(word, _)| word).collect()
    })
}

#[test]
fn whatever_is_lost_twice_late_or_out_of_order() {
    let cases = Cases { failure_persistence: None, ..Cases::default() };
    proptest!(cases, |(trades in prop::collection::vec(0..5_i64, CANDLES as usize), words in words(), twice in any::<u64>())| {
        let mut world = World::new(&trades);
        world.respond(FIRST * MINUTE_MS, 0, 1);
        let mut now_ms = FIRST * MINUTE_MS;
        for (index, word) in words.iter().enumerate() {
            now_ms = now_ms.max(word.made_ms());
            for _ in 0..=(twice >> (index % 64) & 1) {
                match *word {
                    Word::Event { candle_index, second } => {
                        let frame = world.exchange.frame(candle_index, word.made_ms(), second > 60, 0.0);
                        let pushed = world.receive(&frame, now_ms);
                        prop_assert_eq!((pushed.events, pushed.faults.len(), pushed.tally.conflicts), (1, 0, 0));
                    }
                    Word::Early { candle_index, .. } => {
                        let pushed = world.receive(&world.exchange.frame(candle_index, word.made_ms(), true, 0.0), now_ms);
                        prop_assert_eq!((pushed.events, pushed.tally.refused, pushed.tally.closed), (1, 1, 0));
                    }
                    Word::Response { at_ms, under_way_ms, limit } => world.respond(at_ms, under_way_ms, limit),
                }
                world.check();
            }
        }
        // One response after the end makes up for everything that was lost.
        world.respond((FIRST + CANDLES) * MINUTE_MS + SETTLE_MS, 0, CANDLES);
        world.check();
        prop_assert!(world.rows().iter().all(|(_, state, _)| matches!(state, RowState::Closed | RowState::Verified)));
        prop_assert_eq!(world.rows().len(), LENGTH);
        prop_assert_eq!(world.writer.report(0).missing, 0);
        let World { writer, scratch, .. } = world;
        writer.close(true).expect("the name can be removed");
        assert!(scratch.files().is_empty());
    });
}

/// A world that has the first candle, live.
fn begun(trades: &[i64]) -> World {
    let mut world = World::new(trades);
    world.respond(FIRST * MINUTE_MS + 100, 0, 1);
    world
}

impl World {
    /// Pushes an event made `second` seconds into a candle; from 61 on it closes the candle.
    fn event(&mut self, candle_index: i64, second: i64) -> Pushed {
        let made_ms = candle_index * MINUTE_MS + second * 1_000;
        let frame = self.exchange.frame(candle_index, made_ms, second > 60, 0.0);
        self.receive(&frame, made_ms + 5)
    }

    fn state(&self, candle_index: i64) -> RowState {
        self.rows().iter().find(|row| row.0 == candle_index).map_or(RowState::Missing, |row| row.1)
    }
}

fn needs(pushed: &Pushed) -> Vec<(RepairReason, i64)> {
    pushed
        .repair_requests
        .iter()
        .map(|repair_request| (repair_request.need, repair_request.open_ms / MINUTE_MS))
        .collect()
}

#[test]
fn trade_ids_prove_a_row_once_the_next_trade_is_known() {
    let mut world = begun(&[3, 2, 0, 0, 1, 4]);
    for candle_index in FIRST..FIRST + 2 {
        assert_eq!(world.event(candle_index, 61).tally.closed, 1);
        assert_eq!(world.state(candle_index), RowState::Closed);
    }
    // Two candles without trades: nothing proves that there were none until the next trade comes.
    world.event(FIRST + 2, 61);
    world.event(FIRST + 3, 61);
    assert_eq!(world.event(FIRST + 4, 0).tally.verified, 0);
    assert_eq!(world.event(FIRST + 4, 1).tally.verified, 3);
    assert_eq!(world.state(FIRST), RowState::Closed, "nothing is known of what came before it");
    assert!((1..4).all(|candle_index| world.state(FIRST + candle_index) == RowState::Verified));
    assert!(needs(&world.event(FIRST + 4, 61)).is_empty());
}

#[test]
fn a_response_that_agrees_proves_a_row_and_another_one_proves_nothing_more() {
    let mut world = begun(&[3, 2, 1, 1]);
    world.event(FIRST, 61);
    world.event(FIRST + 1, 0);
    world.respond((FIRST + 1) * MINUTE_MS + SETTLE_MS, 0, 2);
    assert_eq!(world.state(FIRST), RowState::Verified);
    // The other way round: the response was first, and the late event agrees.
    world.respond((FIRST + 2) * MINUTE_MS + SETTLE_MS, 0, 2);
    assert_eq!(world.state(FIRST + 1), RowState::Closed);
    assert_eq!(world.event(FIRST + 1, 62).tally.verified, 1);
    assert_eq!(world.state(FIRST + 1), RowState::Verified);
    // Two responses are not independent.
    world.respond((FIRST + 3) * MINUTE_MS + SETTLE_MS, 0, 2);
    world.respond((FIRST + 3) * MINUTE_MS + 2 * SETTLE_MS, 0, 2);
    assert_eq!(world.state(FIRST + 2), RowState::Closed);
}

#[test]
fn a_close_that_does_not_come_is_requested() {
    let mut world = begun(&[3, 2, 1]);
    world.event(FIRST, 30);
    let pushed = world.event(FIRST + 1, 1);
    assert_eq!(needs(&pushed), [(RepairReason::Close, FIRST)]);
    assert_eq!((world.state(FIRST), world.state(FIRST + 1)), (RowState::Live, RowState::Live));
    assert!(needs(&world.event(FIRST + 1, 2)).is_empty(), "once is enough");
    // It comes after all, or a response holds it.
    assert_eq!(world.event(FIRST, 63).tally.closed, 1);
    assert_eq!(world.state(FIRST), RowState::Closed);
}

#[test]
fn a_gap_is_requested() {
    let mut world = begun(&[3, 2, 1, 1]);
    world.event(FIRST, 61);
    let pushed = world.event(FIRST + 2, 1);
    assert_eq!(needs(&pushed), [(RepairReason::Close, FIRST + 2)]);
    assert_eq!(world.state(FIRST + 1), RowState::Missing);
    // What closes late fills its place.
    assert_eq!(world.event(FIRST + 1, 61).tally.closed, 1);
    assert_eq!(world.state(FIRST + 1), RowState::Closed);
}

#[test]
fn a_wrong_close_is_corrected_by_a_response_and_wakes_waiters() {
    let mut world = begun(&[3, 2, 1, 1]);
    let made_ms = (FIRST + 1) * MINUTE_MS + 5;
    let frame = world.exchange.frame(FIRST, made_ms, true, 7.0);
    world.receive(&frame, made_ms);
    assert!(!bits_equal(&world.rows()[0].2, &world.exchange.last(FIRST)));
    let close_seq = world.writer.block().value(header::CLOSE_SEQ);
    let window = RequestWindow {
        sent_ms: (FIRST + 1) * MINUTE_MS + SETTLE_MS,
        received_ms: (FIRST + 1) * MINUTE_MS + SETTLE_MS,
        settle_ms: SETTLE_MS,
        limit: 2,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    };
    let rows = world.exchange.rows(2, window.sent_ms);
    let tally = world.writer.ingest(0, &rows, &window, 1).tally;
    assert_eq!((tally.corrected, tally.conflicts), (1, 1));
    assert!(world.writer.block().value(header::CLOSE_SEQ) > close_seq);
    assert_eq!(SeriesReader::new(world.writer.block(), 0).marks().expect("nobody writes").revision, 1);
    // The event once more: a response is never overwritten, and the conflict is reported.
    let pushed = world.receive(&frame, made_ms + 5_000);
    assert_eq!(
        (pushed.tally.changed, pushed.tally.conflicts, needs(&pushed)),
        (0, 1, vec![(RepairReason::Suspect, FIRST)])
    );
    world.check();
}

#[test]
fn a_response_that_was_under_way_does_not_take_trades_back() {
    let mut world = begun(&[5, 2]);
    world.event(FIRST, 5);
    // Requested before the event was made, with a response from an older state.
    world.respond(FIRST * MINUTE_MS + 2_000, 1_500, 1);
    assert_eq!(world.rows()[0].2[TRADES], 5.0);
    // Asked later, but the exchange's REST side lags behind its streams.
    let rows = world.exchange.rows(1, FIRST * MINUTE_MS + 2_000);
    let sent_ms = FIRST * MINUTE_MS + 6_000;
    let window = RequestWindow {
        sent_ms,
        received_ms: sent_ms,
        settle_ms: SETTLE_MS,
        limit: 1,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    };
    world.writer.ingest(0, &rows, &window, 1);
    assert_eq!(world.rows()[0].2[TRADES], 5.0);
}

#[test]
fn a_close_with_fewer_trades_than_known_is_suspect() {
    let mut world = begun(&[5, 2]);
    world.respond(FIRST * MINUTE_MS + 5_500, 0, 1);
    let (made_ms, end_ms) = (FIRST * MINUTE_MS + 3_000, (FIRST + 1) * MINUTE_MS);
    let frame = world.exchange.frame(FIRST, made_ms, true, 0.0).replace(&made_ms.to_string(), &end_ms.to_string());
    let pushed = world.receive(&frame, end_ms);
    assert_eq!((pushed.tally.closed, pushed.tally.conflicts), (0, 1));
    assert_eq!(needs(&pushed), [(RepairReason::Suspect, FIRST)]);
    assert_eq!((world.state(FIRST), world.rows()[0].2[TRADES]), (RowState::Live, 5.0));
}

#[test]
fn an_event_of_another_price_is_foreign_and_its_ids_prove_nothing() {
    let scratch = Scratch::new("stream-mark");
    let config = Config { market: Market::Cm, price: Price::Mark, ..scratch::config(LENGTH, &["BTCUSDT"]) };
    let mut writer = Writer::open(scratch.name(), &config, scratch::owner()).expect("a new block");
    let exchange = Exchange { trades: vec![5; 6] };
    let at_ms = FIRST * MINUTE_MS + 5_500;
    let window = RequestWindow {
        sent_ms: at_ms,
        received_ms: at_ms,
        settle_ms: SETTLE_MS,
        limit: 1,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    };
    writer.ingest(0, &exchange.rows(1, at_ms), &window, 1);
    let mut receive = |frame: &str, received_ms| writer.ingest_events([event::parse(frame.as_bytes())], received_ms, 1);
    for candle_index in FIRST..FIRST + 4 {
        let end_ms = (candle_index + 1) * MINUTE_MS;
        let trade = exchange.frame(candle_index, end_ms, true, 0.0);
        let mark = trade.replace("@kline_", "@markPriceKline_").replace(r#""e":"kline""#, r#""e":"markPrice_kline""#);
        let index = trade
            .replace("@kline_", "@indexPriceKline_")
            .replace(r#""e":"kline""#, r#""e":"indexPrice_kline","ps":"BTCUSDT""#);
        assert_eq!(receive(&trade, end_ms).foreign, 1);
        assert_eq!(receive(&index, end_ms).foreign, 1);
        let pushed = receive(&mark, end_ms);
        assert_eq!((pushed.events, pushed.foreign, pushed.tally.closed), (1, 0, 1));
        assert_eq!(pushed.tally.verified, 0);
    }
}

#[test]
fn what_is_old_says_nothing_of_now() {
    let mut world = begun(&[3, 2, 1]);
    let receive = |world: &mut World, candle_index: i64, made_ms: i64, received_ms: i64| {
        let frame = world.exchange.frame(candle_index, made_ms, false, 0.0);
        world.writer.ingest_events([event::parse(frame.as_bytes())], received_ms, received_ms as u64);
        let received_ms = SeriesReader::new(world.writer.block(), 0).marks().expect("nobody writes").received_ms as i64;
        (received_ms, world.writer.last_event_ms()[0] as i64)
    };
    let made_ms = FIRST * MINUTE_MS + 2_000;
    let (current_ms, last_event_ms) = receive(&mut world, FIRST, made_ms, made_ms + 100);
    assert_eq!((current_ms, last_event_ms), (made_ms + 100, made_ms + 100));
    // Newer than the newest event, but made 40 seconds ago: a recording that is played again, or a jam.
    let (current_ms, last_event_ms) = receive(&mut world, FIRST, made_ms + 1_000, made_ms + 41_000);
    assert!((made_ms + 1_000..made_ms + 5_000).contains(&current_ms), "{}", current_ms - made_ms);
    assert_eq!(last_event_ms, current_ms);
    // Made now, about a candle that ended a minute ago.
    let (current_ms, _) = receive(&mut world, FIRST, made_ms + 2 * MINUTE_MS, made_ms + 2 * MINUTE_MS);
    assert!(current_ms < (FIRST + 1) * MINUTE_MS + 5_000);
}

#[test]
fn only_a_later_row_or_patience_makes_the_newest_row_of_a_response_final() {
    let mut world = begun(&[3, 2, 1]);
    let (end_ms, patience_ms) = ((FIRST + 1) * MINUTE_MS, 600_000);
    let mut ask = |sent_ms: i64, pictured_ms: i64| {
        let window = RequestWindow {
            sent_ms,
            received_ms: sent_ms,
            settle_ms: SETTLE_MS,
            limit: 3,
            start_ms: None,
            end_ms: None,
            from_end: true,
            patience_ms,
        };
        let rows = world.exchange.rows(3, pictured_ms);
        world.writer.ingest(0, &rows, &window, sent_ms as u64);
        let reader = SeriesReader::new(world.writer.block(), 0);
        (world.state(FIRST), reader.marks().expect("nobody writes").received_ms as i64)
    };
    // The same picture again and again: nothing becomes final, and the series grows old from the candle's end on.
    for late_ms in [1_000, 10_000, 599_000] {
        let (state, received_ms) = ask(end_ms + late_ms, end_ms - 58_500);
        assert_eq!(state, RowState::Live, "{late_ms}");
        assert!(received_ms <= end_ms + 2_000);
    }
    // A later row was made after the end, however long ago.
    let (state, received_ms) = ask(end_ms + 599_500, end_ms + 10);
    assert_eq!(state, RowState::Closed);
    assert!(received_ms <= end_ms + MINUTE_MS + 2_000);
    // Without one only time tells.
    let mut world = begun(&[3, 2, 1]);
    let window = RequestWindow {
        sent_ms: end_ms + patience_ms,
        received_ms: end_ms + patience_ms,
        settle_ms: SETTLE_MS,
        limit: 3,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms,
    };
    world.writer.ingest(0, &world.exchange.rows(3, end_ms - 1), &window, 1);
    assert_eq!(world.state(FIRST), RowState::Closed);
}

#[test]
fn missing_ids_are_suspect() {
    let mut world = begun(&[3, 2, 4, 1]);
    world.event(FIRST, 61);
    let made_ms = (FIRST + 2) * MINUTE_MS + 5;
    let frame = world.exchange.frame(FIRST + 1, made_ms, true, 0.0);
    let short = frame.replace(r#""n":2"#, r#""n":1"#);
    assert_eq!(needs(&world.receive(&short, made_ms)), [(RepairReason::Suspect, FIRST + 1)]);
}

#[test]
fn events_that_are_not_ours_or_cannot_be() {
    let mut world = begun(&[3, 2, 4, 1]);
    let good = world.exchange.frame(FIRST, FIRST * MINUTE_MS + 1_500, false, 0.0);
    let received_ms = FIRST * MINUTE_MS + 2_000;
    let before = world.rows();
    for (frame, counts) in [
        (good.replace("\"i\":\"1m\"", "\"i\":\"5m\"").replace("kline_1m", "kline_5m"), (0, 1, 0, 0)),
        (good.replace("\"s\":\"BTCUSDT\"", "\"s\":\"ETHUSDT\"").replace("btcusdt@", "ethusdt@"), (0, 0, 1, 0)),
        // The wrapper names another stream than its data is of.
        (good.replace("\"i\":\"1m\"", "\"i\":\"5m\""), (0, 0, 0, 1)),
        (good.replace("\"s\":\"BTCUSDT\"", "\"s\":\"ETHUSDT\""), (0, 0, 0, 1)),
        (good.replace("btcusdt@", "ethusdt@"), (0, 0, 0, 1)),
        (good.replace("\"h\":\"", "\"h\":\"-"), (1, 0, 0, 1)),
        (world.exchange.frame(FIRST + 3, (FIRST + 3) * MINUTE_MS, false, 0.0), (1, 0, 0, 1)),
        (r#"{"e":"aggTrade"}"#.to_owned(), (0, 1, 0, 0)),
    ] {
        let pushed = world.receive(&frame, received_ms);
        let counted = (pushed.events, pushed.foreign, pushed.unknown, pushed.tally.refused);
        assert_eq!(counted, counts, "{frame}");
        assert!(world.rows().iter().zip(&before).all(|(now, then)| bits_equal(&now.2, &then.2)), "{frame}");
    }
    let batch = [good.as_bytes(), b"{\"result\":null,\"id\":1}", b"not JSON", b"{\"e\":\"serverShutdown\",\"E\":1}"];
    let commits = world.writer.block().value(header::COMMIT_SEQ);
    let pushed = world.writer.ingest_events(batch.into_iter().map(event::parse), received_ms, 1);
    assert_eq!((pushed.events, pushed.acknowledgements, pushed.shuts_down), (1, vec![1], true));
    assert_eq!((pushed.faults.len(), pushed.faults[0].0), (1, 2));
    assert_eq!(world.writer.block().value(header::COMMIT_SEQ), commits + 1, "one batch, one wake");
    // Another futures family on a futures block, and the same field on a spot block.
    let spot = good.replacen("\"e\":", "\"st\":2,\"e\":", 1);
    assert_eq!(world.receive(&spot, received_ms).events, 1);
}

#[test]
fn an_empty_series_waits_for_its_first_response() {
    let mut world = World::new(&[3, 2]);
    assert_eq!(needs(&world.event(FIRST, 3)), [(RepairReason::Rows, FIRST)]);
    assert!(needs(&world.event(FIRST, 4)).is_empty(), "once is enough");
    assert!(world.rows().is_empty());
    assert_eq!(needs(&world.event(FIRST + 1, 1)), [(RepairReason::Rows, FIRST + 1)]);
}

#[test]
fn the_grid_is_the_minute() {
    assert_eq!(Grid::new(Interval::Minute1).index_of(FIRST * MINUTE_MS), FIRST);
}
