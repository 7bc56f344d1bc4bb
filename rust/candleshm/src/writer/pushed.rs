//! What a stream pushed: the events of one socket read, merged as responses are.

use super::{Writer, store};
use crate::chain::TradeIds;
use crate::columns::{OPEN_TIME_MS, TRADES, plausible};
use crate::layout::{Geometry, RowState};
use crate::market::Market;
use crate::merge::{self, Tally};
use crate::price::Price;
use crate::publish::SeriesWriter;
use crate::wire::event::{Event, Frame, FrameError, FrameErrorKind};

/// How far the clocks of the exchange's servers may lie apart: an event that is ahead of the measured time by more is
/// not believed.
const SERVERS_APART_MS: i64 = 1000;

/// How old an event may be when it comes and still count as current. An older one was made up before, or was held up on
/// its way.
const CURRENT_MS: i64 = 2000;

/// Events after which a pause counts a third.
const PAUSE_FADES: u64 = 64;

/// Why a series has to be looked after although its stream flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairReason {
    /// It has no row yet, so events cannot be placed.
    Rows,
    /// A newer candle came, and one before it is not final or missing.
    Close,
    /// By its trade ids a row is not whole, or the stream and a response differ on it.
    Suspect,
}

/// A series that has to be looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairRequest {
    /// Its place.
    pub index: usize,
    /// Why.
    pub need: RepairReason,
    /// Open time of the oldest row that it is about; 0 without one.
    pub open_ms: i64,
}

/// What a batch of frames did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pushed {
    /// Klines of the block's market, price and interval.
    pub events: usize,
    /// Events of other kinds, prices, intervals and markets.
    pub foreign: usize,
    /// Klines of symbols that the block does not carry.
    pub unknown: usize,
    /// Klines older than what was known.
    pub stale: usize,
    /// Counts of the rows, as for a response.
    pub tally: Tally,
    /// Positions in the batch of replies to what the client sent.
    pub acknowledgements: Vec<usize>,
    /// Whether the server announced that it shuts down.
    pub shuts_down: bool,
    /// Frames that could not be read, and why.
    pub faults: Vec<(usize, FrameError)>,
    /// Series that have to be looked after.
    pub repair_requests: Vec<RepairRequest>,
}

impl Writer {
    /// Merges the events of one socket read, publishes what they change and wakes waiters once. `frames` are what
    /// [`event::parse`](crate::wire::event::parse) returned for each; the caller parses, as that needs no writer.
    /// `received_ms` is the exchange time that surely was not passed when they came, `now_boot_ms` is `CLOCK_BOOTTIME`.
    pub fn ingest_events<'a>(
        &mut self,
        frames: impl IntoIterator<Item = Result<Frame<'a>, FrameError>>,
        received_ms: i64,
        now_boot_ms: u64,
    ) -> Pushed {
        let mut pushed = Pushed::default();
        for (place, frame) in frames.into_iter().enumerate() {
            match frame {
                Ok(Frame::Kline(event)) => self.push(&event, received_ms, now_boot_ms, &mut pushed),
                Ok(Frame::Shutdown) => pushed.shuts_down = true,
                Ok(Frame::Acknowledgement) => pushed.acknowledgements.push(place),
                Ok(Frame::Other) => pushed.foreign += 1,
                Err(error) => {
                    // Such a one can be read, and cannot be true.
                    pushed.tally.refused += usize::from(error.kind == FrameErrorKind::Contradiction);
                    pushed.faults.push((place, error));
                }
            }
        }
        self.commit();
        pushed
    }

    fn push(&mut self, event: &Event<'_>, received_ms: i64, now_boot_ms: u64, pushed: &mut Pushed) {
        let Geometry { market, price, .. } = *self.block.geometry();
        let is_ours = self.is_of_this_block(event);
        let Some(&index) = self.index.get(&*event.symbol).filter(|_| is_ours) else {
            *(if is_ours { &mut pushed.unknown } else { &mut pushed.foreign }) += 1;
            return;
        };
        pushed.events += 1;
        pushed.tally.rows += 1;
        let grid = self.block.grid(index);
        let candle_index = grid.index_of(event.row[OPEN_TIME_MS] as i64);
        let beyond = grid.open_ms(candle_index) > received_ms + SERVERS_APART_MS;
        let event_ms = event.event_ms.min(received_ms + SERVERS_APART_MS);
        let (open_ms, end_ms) = (grid.open_ms(candle_index), grid.end_ms(candle_index));
        // Nobody can know a whole candle before it ends.
        let is_early = event.closed && event_ms + SERVERS_APART_MS.min((end_ms - open_ms) / 4) < end_ms;
        if beyond
            || is_early
            || plausible(&event.row, price).is_err()
            || candle_index < 1
            || candle_index >= i64::from(u32::MAX)
        {
            pushed.tally.refused += 1;
            pushed.tally.beyond += usize::from(beyond);
            return;
        }
        let candle_index = candle_index as u64;
        let (before, head) = self.standing(index);
        let words = self.block.series(index);
        let series = &mut self.series[index];
        let repair_request =
            |need, candle_index: u64| RepairRequest { index, need, open_ms: grid.open_ms(candle_index as i64) };
        if series.state.marks.end() == 0 {
            // Without a first response the start of the series is unknown.
            if candle_index > series.newest_event.0 {
                series.newest_event = (candle_index, 0);
                pushed.repair_requests.push(repair_request(RepairReason::Rows, candle_index));
            }
            return;
        }
        let is_newest = (candle_index, event_ms) > series.newest_event;
        if is_newest {
            series.newest_event = (candle_index, event_ms);
            // An event that was made long ago, or is about a candle that ended long ago, proves nothing about now.
            let current_until_ms = event_ms.min(end_ms) + CURRENT_MS;
            let outdated_ms = (received_ms - current_until_ms).max(0) as u64;
            let current_ms = now_boot_ms.saturating_sub(outdated_ms);
            if current_ms > series.last_event_ms {
                if series.last_event_ms > 0 {
                    let pause_ms = current_ms - series.last_event_ms;
                    series.pause_ms = pause_ms.max(series.pause_ms - series.pause_ms / PAUSE_FADES);
                }
                series.last_event_ms = current_ms;
            }
            series.state.marks.received_ms = series.state.marks.received_ms.max(current_ms);
        }
        let row = (candle_index, &event.row);
        let plan = merge::plan_pushed(words, &series.state, &mut series.seen, row, event_ms, event.closed);
        let mut tally = plan.tally;
        pushed.stale += usize::from(!is_newest && tally.changed + tally.closed + tally.verified == 0);
        store(words, series, &plan);
        let ids = TradeIds { first: event.first_id, last: event.last_id, count: event.row[TRADES] as i64 };
        let mut suspect = plan.suspect;
        // Only what the block has as it was pushed can be proven by what was pushed.
        let stands = price == Price::Trade
            && !event.is_continuous
            && event.closed
            && words.tag(candle_index).is_final_of(candle_index)
            && series.seen.is_pushed(candle_index);
        // Without ids of trades there is no chain: that of other prices and of continuous contracts never begins.
        let proofs = [
            Some(series.chain.saw(candle_index, ids)),
            stands.then(|| series.chain.closed(candle_index, ids, market == Market::Spot)),
        ];
        let mut verified = Vec::new();
        for proof in proofs.into_iter().flatten() {
            for candle_index in proof.proven {
                let tag = words.tag(candle_index);
                if tag.candle_index() == candle_index
                    && tag.state() == RowState::Closed
                    && series.seen.is_pushed(candle_index)
                {
                    SeriesWriter::new(words, &mut series.state).verify(candle_index);
                    verified.push(candle_index);
                }
            }
            if !proof.broken.is_empty() {
                suspect = Some(suspect.map_or(proof.broken.start, |oldest| oldest.min(proof.broken.start)));
            }
        }
        tally.verified += verified.len();
        if tally.verified > 0 {
            SeriesWriter::new(words, &mut series.state).refresh_newest();
        }
        if let Some(advance) = &plan.advance {
            let final_end = series.state.marks.final_end;
            let has_gap = advance.head - head > advance.rows.len() as u64;
            if final_end < advance.head || has_gap {
                pushed.repair_requests.push(repair_request(RepairReason::Close, final_end));
            }
        }
        if let Some(candle_index) = suspect {
            pushed.repair_requests.push(repair_request(RepairReason::Suspect, candle_index));
        }
        self.finish(index, before, tally, || plan.touched(head).into_iter().chain(verified).collect());
        pushed.tally.add(&tally);
    }

    /// Whether an event is about candles of the block's market, price and interval.
    fn is_of_this_block(&self, event: &Event<'_>) -> bool {
        let Geometry { market, price, interval, .. } = *self.block.geometry();
        event.price == price
            && event.interval == interval.as_str()
            && event.family.is_none_or(|family| market.family().is_none_or(|ours| ours == family))
    }

    /// Returns, for each series, when its stream last sent an event: `CLOCK_BOOTTIME` in ms, 0 for never.
    #[must_use]
    pub fn last_event_ms(&self) -> Vec<u64> {
        self.series.iter().map(|series| series.last_event_ms).collect()
    }

    /// Returns when the stream of a series last sent an event (`CLOCK_BOOTTIME`, 0 for never), and the longest time
    /// that lately passed between two events, both in ms.
    #[must_use]
    pub fn stream_times_ms(&self, index: usize) -> (u64, u64) {
        let series = &self.series[index];
        (series.last_event_ms, series.pause_ms)
    }
}
