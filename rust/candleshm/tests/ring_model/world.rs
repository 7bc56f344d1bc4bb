//! The block, its writer and its readers beside the reference: what a life does to them, and what must hold.

use candleshm::block::Block;
use candleshm::columns::{CLOSE, COLUMNS, OPEN_TIME_MS, Row};
use candleshm::interval::Grid;
use candleshm::layout::{Presence, RowState, header};
use candleshm::merge::{RequestWindow, Tally};
use candleshm::read::{Selection, SeriesReader, Snapshot, ViewMarks};
use candleshm::sync::Ordering::Relaxed;
use candleshm::writer::{Config, Writer};

use crate::life::{Life, Reply, Requested, SYMBOLS, Step, spoil};
use crate::reference::{Kline, Reference};
use crate::scratch::{self, Scratch};

/// 2025-01-01, a Wednesday: where the lives begin.
const START_MS: i64 = 1_735_689_600_000;

/// A view taken earlier, with what it showed.
struct OldView {
    symbol: usize,
    marks: ViewMarks,
    /// Its rows, and the slots that had none.
    slots: Vec<(u64, Option<Row>)>,
    /// Whether a row of it was revised, or a blank slot filled.
    written: bool,
}

/// The block, its writer, a reader that stays through takeovers, and the reference.
struct World {
    scratch: Scratch,
    config: Config,
    grid: Grid,
    writer: Option<Writer>,
    block: Block,
    series: Vec<Reference>,
    trading: Vec<bool>,
    views: Vec<OldView>,
    /// Milliseconds by the exchange's clock, which is also the machine's.
    now_ms: i64,
    settle_ms: i64,
    patience_ms: i64,
    responses: Vec<(usize, RequestWindow, Vec<Kline>)>,
    universe_bar: u64,
}

impl World {
    fn new(life: &Life) -> Self {
        let scratch = Scratch::new("model");
        let config = Config { interval: life.interval, ..scratch::config(life.length, &SYMBOLS[..life.symbols]) };
        let writer = Writer::open(scratch.name(), &config, scratch::owner()).expect("a new block");
        let block = Block::open(scratch.name(), scratch::BOOT_ID).expect("the block is ready");
        let grid = Grid::anchored(life.interval, START_MS + life.phase_days * 86_400_000);
        Self {
            grid,
            writer: Some(writer),
            block,
            series: (0..life.symbols).map(|_| Reference::new(grid, life.length)).collect(),
            trading: vec![true; life.symbols],
            views: Vec::new(),
            now_ms: START_MS,
            settle_ms: life.interval.nominal_ms() * life.settle / 10,
            patience_ms: life.interval.nominal_ms() * life.patience / 10,
            responses: Vec::new(),
            universe_bar: 0,
            scratch,
            config,
        }
    }

    fn step(&mut self, step: &Step) {
        let tenth_ms = self.grid.interval().nominal_ms() / 10;
        match step {
            Step::Pass(tenths) => self.now_ms += tenths * tenth_ms,
            Step::Merge(reply) => {
                let symbol = reply.symbol % self.series.len();
                let (window, klines) = self.send(reply, tenth_ms);
                self.merge(symbol, &window, &klines);
                self.responses.push((symbol, window, klines));
            }
            Step::Again(which) => {
                if !self.responses.is_empty() {
                    let (symbol, window, klines) = self.responses[which % self.responses.len()].clone();
                    self.merge(symbol, &window, &klines);
                }
            }
            Step::TakeOver => {
                drop(self.writer.take());
                let writer = Writer::open(self.scratch.name(), &self.config, scratch::owner()).expect("a takeover");
                assert!(writer.is_taken_over());
                self.writer = Some(writer);
                self.series.iter_mut().for_each(Reference::forget);
                self.trading.fill(true);
            }
            Step::Trading(symbol, trading) => {
                let symbol = symbol % self.series.len();
                let presence = if *trading { Presence::Trading } else { Presence::Ended };
                self.writer_mut().set_presence(symbol, presence);
                self.trading[symbol] = *trading;
            }
            Step::View(symbol, count) => {
                let symbol = symbol % self.series.len();
                let marks = self.reader(symbol).view(*count).expect("nobody writes");
                let slots = (marks.start..marks.start + marks.count as u64)
                    .map(|candle_index| (candle_index, self.series[symbol].row(candle_index).copied()))
                    .collect();
                self.views.push(OldView { symbol, marks, slots, written: false });
            }
        }
        self.check();
    }

    fn writer_mut(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("only a takeover takes it out, and puts one back")
    }

    fn reader(&self, symbol: usize) -> SeriesReader<'_> {
        SeriesReader::new(&self.block, symbol)
    }

    /// Builds the response that a reply describes.
    fn send(&self, reply: &Reply, tenth_ms: i64) -> (RequestWindow, Vec<Kline>) {
        let sent_ms = self.now_ms - reply.delay * tenth_ms;
        let received_ms = self.now_ms;
        let now_index = self.grid.index_of(self.now_ms) as u64 + reply.ahead;
        let oldest = now_index - reply.back;
        let newest = (oldest + reply.span - 1).min(now_index);
        let mut klines: Vec<Kline> = (oldest..=newest)
            .filter(|candle_index| reply.skipped >> (candle_index - oldest) & 1 == 0)
            .enumerate()
            .map(|(index, candle_index)| self.kline(candle_index, reply.values[index % reply.values.len()], 0))
            .collect();
        if let (Some((index, quarter)), false) = (reply.off_grid, klines.is_empty()) {
            let index = index % klines.len();
            klines[index] = self.kline(klines[index].candle_index, reply.values[0], quarter);
        }
        if let (Some((index, flaw)), false) = (reply.flaw, klines.is_empty()) {
            let index = index % klines.len();
            spoil(&mut klines[index], flaw);
        }
        if let (Some((index, value)), false) = (reply.doubled, klines.is_empty()) {
            klines.push(self.kline(klines[index % klines.len()].candle_index, value, 0));
        }
        if !klines.is_empty() {
            let by = reply.rotated % klines.len();
            klines.rotate_left(by);
        }
        let open_ms = |candle_index: u64| self.grid.open_ms(candle_index as i64);
        let last_ms = self.grid.end_ms(newest as i64) - 1;
        let (start_ms, end_ms, from_end) = match reply.requested {
            Requested::Newest => (None, None, true),
            Requested::Until => (None, Some(last_ms), true),
            Requested::From { below, to_end } => (Some(open_ms(oldest - below)), to_end.then_some(last_ms), false),
        };
        let limit = klines.len().max(1) + usize::from(!reply.full);
        let (settle_ms, patience_ms) = (self.settle_ms, self.patience_ms);
        (RequestWindow { sent_ms, received_ms, settle_ms, limit, start_ms, end_ms, from_end, patience_ms }, klines)
    }

    fn kline(&self, candle_index: u64, value: u8, quarter: i64) -> Kline {
        let open_ms = self.grid.open_ms(candle_index as i64);
        let end_ms = self.grid.end_ms(candle_index as i64);
        // A day and more off would move the phase of a 3d grid: no exchange does that.
        let off_ms = quarter * (end_ms - open_ms).min(86_400_000) / 4;
        let price = 100.0 + (candle_index % 97) as f64 + f64::from(value) / 8.0;
        // Pairs of values share trades and volume: nothing tells which of the two is later.
        let amount = f64::from(value / 2);
        let row = [
            (open_ms + off_ms) as f64,
            price,
            price + 1.0,
            price - 1.0,
            price + 0.5,
            amount * 1.5,
            (end_ms - 1) as f64,
            amount * 150.0,
            amount,
            amount,
            amount * 100.0,
            0.0,
        ];
        Kline { candle_index, plausible: true, row }
    }

    /// Merges a response into both, twice: the second time nothing may change.
    fn merge(&mut self, symbol: usize, window: &RequestWindow, klines: &[Kline]) {
        let rows: Vec<Row> = klines.iter().map(|kline| kline.row).collect();
        let now_boot_ms = (self.now_ms - START_MS) as u64 + 1;
        let before = self.shown(symbol);
        let seqs = [header::COMMIT_SEQ, header::CLOSE_SEQ].map(|offset| self.block.value(offset));

        let (tally, revised) = self.series[symbol].merge(window, klines, now_boot_ms);
        let report = self.writer_mut().ingest(symbol, &rows, window, now_boot_ms);
        assert_eq!(report.tally, tally, "{window:?} {klines:?}");
        for view in self.views.iter_mut().filter(|view| view.symbol == symbol) {
            let series = &self.series[symbol];
            view.written |= view.slots.iter().any(|(candle_index, row)| match row {
                Some(_) => revised.contains(candle_index),
                None => series.row(*candle_index).is_some(),
            });
        }

        // Waiters are woken by every change, and waiters for a close only by a close.
        let after = self.shown(symbol);
        let published = [header::COMMIT_SEQ, header::CLOSE_SEQ].map(|offset| self.block.value(offset));
        assert_eq!(published[0] > seqs[0], before != after);
        assert_eq!(published[1] > seqs[1], tally.closed + tally.corrected + tally.holes > 0);

        let report = self.writer_mut().ingest(symbol, &rows, window, now_boot_ms);
        let counts = Tally {
            rows: tally.rows,
            refused: tally.refused,
            beyond: tally.beyond,
            older: tally.older,
            ..Tally::default()
        };
        let again = self.series[symbol].merge(window, klines, now_boot_ms).0;
        assert_eq!(report.tally, again, "the second time");
        assert_eq!(Tally { agreed: 0, ..again }, counts, "the second time");
        assert_eq!(self.shown(symbol), after);
        let commit_seq = self.block.value(header::COMMIT_SEQ);
        assert_eq!(commit_seq, published[0], "nobody is woken for nothing");
    }

    /// Everything that readers of a series can tell apart, marks aside.
    fn shown(&self, symbol: usize) -> Vec<(u64, RowState, Vec<u64>)> {
        let series = &self.series[symbol];
        (series.head.saturating_sub(self.config.length as u64)..=series.head)
            .map(|candle_index| {
                let bits = series.row(candle_index).map_or_else(Vec::new, |row| row.map(f64::to_bits).to_vec());
                (candle_index, series.state(candle_index), bits)
            })
            .filter(|(_, state, _)| *state != RowState::Missing)
            .collect()
    }

    fn check(&mut self) {
        for symbol in 0..self.series.len() {
            self.check_marks(symbol);
            for count in [1, 2, self.config.length / 2, self.config.length, self.config.length + 3] {
                self.check_copy(symbol, count.max(1));
                self.check_view(symbol, count.max(1));
            }
        }
        self.views.iter().for_each(|view| self.check_old_view(view));
        self.check_header();
    }

    fn check_marks(&self, symbol: usize) {
        let (series, reader) = (&self.series[symbol], self.reader(symbol));
        let marks = reader.marks().expect("nobody writes");
        let empty = series.newest().is_none();
        let state = match () {
            () if empty => RowState::Empty,
            () if series.has_live() => RowState::Live,
            () => RowState::Closed,
        };
        assert_eq!(
            (marks.head, marks.final_end, marks.state, marks.revision, marks.received_ms),
            (series.head, series.final_end, state, series.revision, series.received_ms),
        );
        // What `final_start` and `final` promise is true to the letter, and they promise as much as they can.
        let start = series.window_start();
        let is_final = |candle_index: u64| series.state(candle_index) == RowState::Closed;
        assert!(
            marks.final_start >= start && (marks.final_start.max(start)..marks.final_end).all(is_final),
            "{marks:?}"
        );
        assert!(marks.final_start == start || !is_final(marks.final_start - 1), "{marks:?} {start}");

        let mut row = [0.0; COLUMNS];
        assert_eq!(reader.newest(&mut row).expect("nobody writes"), marks);
        let newest = series.newest().copied().unwrap_or([f64::NAN; COLUMNS]);
        assert_eq!(row.map(f64::to_bits), newest.map(f64::to_bits));
        assert_eq!(reader.last_close().to_bits(), newest[CLOSE].to_bits());
        assert_eq!(reader.received_ms(), series.received_ms);

        assert_eq!(reader.gaps().expect("nobody writes"), series.gaps());
        let newest_settled = (start..series.head).rev().find(|&candle_index| series.is_settled(candle_index));
        assert_eq!(reader.newest_settled(), newest_settled);
        for candle_index in start..=series.head + 1 {
            assert_eq!(reader.is_settled(candle_index), candle_index < series.head && series.is_settled(candle_index));
        }

        let report = self.writer.as_ref().map(|writer| writer.report(symbol)).expect("there is a writer");
        assert_eq!(report.missing, series.count(RowState::Missing));
        assert_eq!(report.newest_open_ms, series.newest().map(|row| row[OPEN_TIME_MS] as i64));
        let unsettled_open_ms = (!empty).then(|| self.grid.open_ms(series.final_end as i64));
        assert_eq!(report.unsettled_open_ms, unsettled_open_ms);

        let missing = self.writer.as_ref().map(|writer| writer.missing(symbol)).expect("there is a writer");
        assert_eq!(missing.expect("nobody writes"), series.missing(self.settle_ms));
    }

    fn check_copy(&self, symbol: usize, count: usize) {
        let series = &self.series[symbol];
        for (closed_only, states) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut columns = vec![0.0; COLUMNS * count];
            let mut snapshot = Snapshot::default();
            let selection = Selection { count, closed_only, states };
            self.reader(symbol).copy(&selection, &mut columns, &mut snapshot).expect("nobody writes");

            let end = if closed_only { series.final_end } else { series.head + u64::from(series.has_live()) };
            let slots = count.min(self.config.length) as u64;
            let start = end.saturating_sub(slots).max(series.window_start()).min(end);
            let wanted: Vec<RowState> = (start..end).map(|candle_index| series.state(candle_index)).collect();
            if !closed_only && slots == self.config.length as u64 {
                // Copies, gaps and counts speak of the same slots.
                let counted = [RowState::Missing, RowState::Hole].map(|state| series.count(state));
                let shown =
                    [RowState::Missing, RowState::Hole].map(|state| wanted.iter().filter(|&&s| s == state).count());
                assert_eq!(shown, counted);
            }
            assert_eq!((snapshot.start, &snapshot.states), (start, &wanted), "{selection:?}");
            for (slot, candle_index) in (start..end).enumerate() {
                if let Some(row) = series.row(candle_index) {
                    let copied: [u64; COLUMNS] = std::array::from_fn(|column| columns[column * count + slot].to_bits());
                    assert_eq!(copied, row.map(f64::to_bits), "{selection:?}, candle {candle_index}");
                }
            }
        }
    }

    fn check_view(&self, symbol: usize, count: usize) {
        let (series, reader) = (&self.series[symbol], self.reader(symbol));
        let view = reader.view(count).expect("nobody writes");
        let slots = count.min(self.config.length) as u64;
        let start = series.final_end.saturating_sub(slots).max(series.window_start()).min(series.final_end);
        assert_eq!((view.start, view.count as u64), (start, series.final_end - start));
        let candle_indices = start..series.final_end;
        assert_eq!(
            view.is_complete(),
            candle_indices.clone().all(|candle_index| series.state(candle_index) == RowState::Closed)
        );
        for (slot, candle_index) in candle_indices.enumerate() {
            if let Some(row) = series.row(candle_index) {
                assert_eq!(self.lent(symbol, &view, slot), row.map(f64::to_bits));
            }
        }
        assert!(reader.is_valid(&view));
    }

    /// A view stays valid exactly as long as its rows stay and its blank slots stay blank, and then shows what it
    /// showed at first.
    fn check_old_view(&self, view: &OldView) {
        let capacity = self.block.geometry().ring.capacity as u64;
        let head = self.series[view.symbol].head;
        let kept = !view.written && view.slots.iter().all(|(candle_index, _)| candle_index + capacity >= head);
        assert_eq!(self.reader(view.symbol).is_valid(&view.marks), kept, "{:?}", view.marks);
        for (slot, (_, row)) in view.slots.iter().enumerate().filter(|_| kept) {
            let lent = self.lent(view.symbol, &view.marks, slot);
            match row {
                Some(row) => assert_eq!(lent, row.map(f64::to_bits)),
                None => assert!(lent.iter().all(|&bits| f64::from_bits(bits).is_nan())),
            }
        }
    }

    fn lent(&self, symbol: usize, view: &ViewMarks, slot: usize) -> [u64; COLUMNS] {
        std::array::from_fn(|column| self.reader(symbol).column(view, column)[slot].load(Relaxed))
    }

    fn check_header(&mut self) {
        for (offset, state) in [(header::MISSING, RowState::Missing), (header::HOLES, RowState::Hole)] {
            let total: usize = self.series.iter().map(|series| series.count(state)).sum();
            assert_eq!(self.block.value(offset), total as u64, "{state:?}");
        }
        // The universe index never goes down; it moves only to a candle that every awaited series has settled or is
        // beyond, and there is no candle above it that all of them have settled.
        let known = std::mem::replace(&mut self.universe_bar, self.block.value(header::UNIVERSE_BAR));
        assert!(self.universe_bar >= known);
        let awaited: Vec<&Reference> = self
            .series
            .iter()
            .zip(&self.trading)
            .filter_map(|(series, &trading)| (trading && series.head > 0).then_some(series))
            .collect();
        let all = |candle_index: u64| {
            awaited.iter().all(|series| candle_index >= series.window_start() && series.is_settled(candle_index))
        };
        if self.universe_bar > known {
            let passed =
                |series: &Reference| self.universe_bar < series.window_start() || series.is_settled(self.universe_bar);
            assert!(awaited.iter().all(|series| passed(series)), "{}", self.universe_bar);
        }
        let oldest = awaited.iter().map(|series| series.window_start()).max().unwrap_or(0);
        let newest = awaited.iter().map(|series| series.head).min().unwrap_or(0);
        assert!(!(oldest.max(self.universe_bar + 1)..newest).any(all));
    }
}

/// Lives a life and checks after every step; panics where writer, readers and reference part.
pub(crate) fn live(life: &Life) {
    let mut world = World::new(life);
    world.check();
    for step in &life.steps {
        world.step(step);
    }
    let World { writer, scratch, .. } = world;
    writer.expect("there is a writer").close(true).expect("the name can be removed");
    assert!(scratch.files().is_empty());
}
