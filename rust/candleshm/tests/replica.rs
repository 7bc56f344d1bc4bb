//! Blocks that follow one another by messages: whatever is lost, comes twice or in another order, they hold the same in
//! the end, and what is no message of theirs changes nothing.

#[path = "replica/parts.rs"]
mod parts;
mod scratch;

use std::sync::atomic::{AtomicBool, Ordering};

use candleshm::block::Block;
use candleshm::columns::{CLOSE_TIME_MS, COLUMNS, OPEN_TIME_MS, Row, TRADES};
use candleshm::feed::clock;
use candleshm::layout::{RowState, header};
use candleshm::merge::RequestWindow;
use candleshm::publish::RingRow;
use candleshm::read::SeriesReader;
use candleshm::replica::message::{Builder, Head, Kind, Record, Refusal, Update};
use candleshm::replica::shadow::Shadow;
use candleshm::writer::{Owner, Writer};
use parts::{MINUTE_MS, SYMBOLS, head_of, update};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use scratch::{Scratch, config};

/// The first candle of the exchange of these tests.
const FIRST: i64 = 28_400_000;
const LENGTH: usize = 40;

fn owner() -> Owner {
    Owner { pid: std::process::id().into(), pid_start: 1, boot_id: clock::boot_id(), now_ns: clock::now_ns() }
}

/// What the exchange has of a symbol: how many trades each candle has, `None` for a candle that there is not.
#[derive(Debug, Clone, Default)]
struct Exchange {
    trades: Vec<Option<u32>>,
}

impl Exchange {
    fn row(&self, number: usize) -> Option<Row> {
        let trades = f64::from(self.trades[number]?);
        let mut row = [trades; COLUMNS];
        row[OPEN_TIME_MS] = ((FIRST + number as i64) * MINUTE_MS) as f64;
        // Some candles end early, as in an outage.
        let cut_ms = if number % 9 == 4 { 777.0 } else { 1.0 };
        row[CLOSE_TIME_MS] = row[OPEN_TIME_MS] + MINUTE_MS as f64 - cut_ms;
        row[TRADES] = trades;
        row[COLUMNS - 1] = if number % 7 == 3 { 1.0 } else { 0.0 };
        Some(row)
    }
}

/// One step of a life.
#[derive(Debug, Clone)]
enum Step {
    /// So many candles open.
    Pass { symbol: usize, candles: usize, is_hole: bool },
    /// The live candle grows.
    Grow { symbol: usize },
    /// The exchange corrects a candle.
    Correct { symbol: usize, back: usize },
    /// The leader gets the newest rows, in a page of that size, with the end of the page so far back.
    Page { symbol: usize, rows: usize, back: usize },
    /// What changed is told; of the messages under way each is delivered, kept or lost.
    Tell { fates: Vec<u8> },
    /// A heartbeat comes and what it shows is requested; the fates are those of the answers.
    Beat { fates: Vec<u8> },
    /// The follower becomes the leader, and the leader a follower.
    Swap,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let symbol = 0..SYMBOLS.len();
    let fates = || proptest::collection::vec(0..5_u8, 1..6);
    let step = prop_oneof![
        4 => (symbol.clone(), 1..4_usize, proptest::bool::weighted(0.15))
            .prop_map(|(symbol, candles, is_hole)| Step::Pass { symbol, candles, is_hole }),
        1 => (symbol.clone(), 20..70_usize)
            .prop_map(|(symbol, candles)| Step::Pass { symbol, candles, is_hole: false }),
        4 => symbol.clone().prop_map(|symbol| Step::Grow { symbol }),
        1 => (symbol.clone(), 1..LENGTH).prop_map(|(symbol, back)| Step::Correct { symbol, back }),
        8 => (symbol, 1..30_usize, prop_oneof![4 => Just(0_usize), 1 => 1..30_usize])
            .prop_map(|(symbol, rows, back)| Step::Page { symbol, rows, back }),
        6 => fates().prop_map(|fates| Step::Tell { fates }),
        3 => fates().prop_map(|fates| Step::Beat { fates }),
        1 => Just(Step::Swap),
    ];
    proptest::collection::vec(step, 1..60)
}

struct Host {
    writer: Writer,
    shadow: Shadow,
}

struct World {
    // Dropped before the names go.
    hosts: [Host; 2],
    _names: [Scratch; 2],
    leader: usize,
    epoch: u64,
    exchange: [Exchange; 2],
    under_way: Vec<Vec<u8>>,
    now_ms: i64,
    /// By how much the leader's clock is ahead: waiting costs no time.
    ahead_ns: u64,
}

impl World {
    fn new(lengths: [usize; 2]) -> Self {
        let names = [Scratch::new("replica"), Scratch::new("replica")];
        let host = |at: usize| {
            let name = names[at].name();
            let mut writer = Writer::open(name, &config(lengths[at], &SYMBOLS), owner()).expect("the block is new");
            writer.follow(1, []);
            Host { writer, shadow: Shadow::open(name, 1, &format!("host/{at}")).expect("it can be read") }
        };
        let hosts = [host(0), host(1)];
        let mut world = Self {
            hosts,
            _names: names,
            leader: 1,
            epoch: 0,
            exchange: Default::default(),
            under_way: Vec::new(),
            now_ms: 0,
            ahead_ns: 0,
        };
        for exchange in &mut world.exchange {
            exchange.trades.push(Some(1));
        }
        world.swap();
        world
    }

    fn swap(&mut self) {
        self.leader = 1 - self.leader;
        self.epoch += 1;
        let [first, second] = &mut self.hosts;
        let (leader, follower) = if self.leader == 0 { (first, second) } else { (second, first) };
        leader.writer.follow(1, [0]);
        leader.shadow.lead(0, self.epoch).expect("there is such a shard");
        follower.writer.follow(1, []);
        follower.shadow.leave(0);
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Pass { symbol, candles, is_hole } => {
                let trades = &mut self.exchange[*symbol].trades;
                trades.extend((0..*candles).map(|_| (!is_hole).then_some(1)));
                trades.push(Some(1));
            }
            Step::Grow { symbol } => {
                if let Some(Some(trades)) = self.exchange[*symbol].trades.last_mut() {
                    *trades += 1;
                }
            }
            Step::Correct { symbol, back } => {
                let trades = &mut self.exchange[*symbol].trades;
                if let Some(Some(trades)) = trades.len().checked_sub(1 + back).and_then(|at| trades.get_mut(at)) {
                    *trades += 100;
                }
            }
            Step::Page { symbol, rows, back } => self.page(*symbol, *rows, *back),
            Step::Tell { fates } => {
                self.collect();
                self.deliver(fates)?;
            }
            Step::Beat { fates } => {
                let mut answers = self.compare()?;
                self.under_way.append(&mut answers);
                self.deliver(fates)?;
            }
            Step::Swap => {
                self.collect();
                self.swap();
            }
        }
        Ok(())
    }

    /// The leader gets a page of the exchange.
    fn page(&mut self, symbol: usize, rows: usize, back: usize) {
        let exchange = &self.exchange[symbol];
        let end = exchange.trades.len().saturating_sub(back);
        let page: Vec<Row> = (0..end).filter_map(|number| exchange.row(number)).collect();
        let page = &page[page.len().saturating_sub(rows)..];
        let newest_ms = (FIRST + exchange.trades.len() as i64 - 1) * MINUTE_MS;
        self.now_ms = self.now_ms.max(newest_ms + 30_000) + 1_000;
        let window = RequestWindow {
            sent_ms: (newest_ms + 30_000).min(self.now_ms),
            received_ms: self.now_ms,
            settle_ms: 0,
            limit: rows,
            start_ms: None,
            end_ms: (back > 0).then_some((FIRST + end as i64) * MINUTE_MS - 1),
            from_end: true,
            patience_ms: 0,
        };
        let window = RequestWindow { sent_ms: self.now_ms, ..window };
        self.hosts[self.leader].writer.ingest(symbol, page, &window, clock::now_ms());
    }

    fn collect(&mut self) {
        let messages = self.hosts[self.leader].shadow.collect(clock::now_ns()).expect("the feed is open");
        self.under_way.extend(messages.into_iter().map(|(_, message)| message));
    }

    /// Messages under way come, in an order and as often as the fates say, or get lost.
    fn deliver(&mut self, fates: &[u8]) -> Result<(), TestCaseError> {
        let mut kept = Vec::new();
        let fates = fates.iter().cycle();
        for (message, fate) in std::mem::take(&mut self.under_way).into_iter().zip(fates) {
            match fate {
                0 => kept.push(message),
                1 => {}
                2 => {
                    self.apply(&message)?;
                    kept.insert(0, message);
                }
                _ => self.apply(&message)?,
            }
        }
        self.under_way = kept;
        Ok(())
    }

    fn apply(&mut self, message: &[u8]) -> Result<(), TestCaseError> {
        let follower = &mut self.hosts[1 - self.leader];
        let applied = follower.writer.apply_message(message, 0, clock::now_ns());
        prop_assert!(matches!(applied.refused, None | Some(Refusal::Epoch)), "{applied:?}");
        prop_assert!(applied.refused.is_none() || applied.epoch < self.epoch, "{applied:?}");
        Ok(())
    }

    /// Tells what changed without a loss, and a heartbeat; returns the answers to what is requested after it.
    fn compare(&mut self) -> Result<Vec<Vec<u8>>, TestCaseError> {
        let mut answers = Vec::new();
        let mut messages = self.hosts[self.leader].shadow.collect(clock::now_ns()).expect("the feed is open");
        let now_ns = clock::now_ns() + self.ahead_ns;
        let beats = self.hosts[self.leader].shadow.heartbeat(now_ns).expect("the feed is open");
        messages.extend(beats.iter().cloned());
        for (_, message) in messages {
            self.apply(&message)?;
        }
        for (_, beat) in beats {
            for request in self.hosts[1 - self.leader].writer.differences(&beat, 8, clock::now_ns()) {
                answers.extend(self.hosts[self.leader].shadow.answer(&request, clock::now_ns()).expect("it is open"));
            }
        }
        Ok(answers)
    }

    /// Nothing is lost any more: the leader requests everything, and the follower gets what it lacks.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for symbol in 0..SYMBOLS.len() {
            self.page(symbol, 1000, 0);
            self.page(symbol, 1000, 0);
        }
        self.under_way.clear();
        // An answer that got lost is waited for, and rows that only one side had are not requested for a while.
        for _ in 0..4 {
            self.ahead_ns += 20_000_000_000;
            for answer in self.compare()? {
                self.apply(&answer)?;
            }
        }
        prop_assert_eq!(self.compare()?.len(), 0, "nothing is requested any more");
        Ok(())
    }
}

/// What a reader can see of a series.
#[derive(Debug, PartialEq)]
struct Seen {
    head: u64,
    state: RowState,
    revision: u32,
    first: Option<u64>,
    newest: [u64; COLUMNS],
    rows: Vec<(u64, RowState, [u64; COLUMNS])>,
}

fn seen(block: &Block, index: usize, length: usize) -> Seen {
    let reader = SeriesReader::new(block, index);
    let mut newest = [0.0; COLUMNS];
    let marks = reader.newest(&mut newest).expect("nobody writes");
    let words = block.series(index);
    let start = marks.head.saturating_sub(length as u64);
    let row = |candle_index| {
        let tag = words.tag(candle_index);
        let is_there = tag.candle_index() == candle_index;
        let state = match tag.state() {
            state @ (RowState::Live | RowState::Closed | RowState::Verified | RowState::Hole) if is_there => state,
            _ => RowState::Missing,
        };
        let values = if tag.is_readable_of(candle_index) { words.row(candle_index) } else { [0.0; COLUMNS] };
        (candle_index, state, values.map(f64::to_bits))
    };
    Seen {
        head: marks.head,
        state: marks.state,
        revision: marks.revision,
        first: reader.first_candle(),
        newest: newest.map(f64::to_bits),
        rows: (start.max(reader.window_start(&marks).min(start + length as u64))..marks.head).map(row).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_blocks_hold_the_same_in_the_end(steps in steps()) {
        let mut world = World::new([LENGTH, LENGTH]);
        for step in &steps {
            world.step(step)?;
        }
        world.settle()?;
        for index in 0..SYMBOLS.len() {
            let [first, second] = &world.hosts;
            let (first, second) = (first.writer.block(), second.writer.block());
            prop_assert_eq!(seen(first, index, LENGTH), seen(second, index, LENGTH));
        }
    }

    #[test]
    fn blocks_of_other_lengths_hold_what_both_have_room_for(steps in steps(), is_smaller in any::<bool>()) {
        let other = if is_smaller { LENGTH / 2 } else { 3 * LENGTH };
        let mut world = World::new([LENGTH, other]);
        for step in steps.iter().filter(|step| !matches!(step, Step::Swap)) {
            world.step(step)?;
        }
        for symbol in 0..SYMBOLS.len() {
            world.page(symbol, 1000, 0);
            world.page(symbol, 1000, 0);
        }
        for _ in 0..6 {
            world.ahead_ns += 20_000_000_000;
            for answer in world.compare()? {
                world.apply(&answer)?;
            }
        }
        let both = LENGTH.min(other);
        for index in 0..SYMBOLS.len() {
            let [first, second] = &world.hosts;
            let (first, second) = (seen(first.writer.block(), index, both), seen(second.writer.block(), index, both));
            prop_assert_eq!(first.rows, second.rows);
            prop_assert_eq!((first.head, first.state, first.newest), (second.head, second.state, second.newest));
        }
    }
}

#[test]
fn waiters_of_a_follower_wake_up_once_for_each_commit() {
    let mut world = World::new([LENGTH, LENGTH]);
    for symbol in 0..SYMBOLS.len() {
        world.page(symbol, 10, 0);
    }
    world.collect();
    let counts = |world: &World| {
        let block = world.hosts[1].writer.block();
        (block.announced(header::COMMIT_SEQ), block.announced(header::CLOSE_SEQ))
    };
    for is_close in [false, true, true, false] {
        for symbol in 0..SYMBOLS.len() {
            let candles = usize::from(is_close);
            let step =
                if candles == 0 { Step::Grow { symbol } } else { Step::Pass { symbol, candles, is_hole: false } };
            world.step(&step).expect("it is a step");
            world.page(symbol, 3, 0);
        }
        world.under_way.clear();
        world.collect();
        let before = counts(&world);
        world.deliver(&[4]).expect("it is applied");
        assert_eq!(counts(&world), (before.0 + 1, before.1 + u64::from(is_close)));
    }
}

#[test]
fn an_older_message_overwrites_nothing() {
    let mut world = World::new([LENGTH, LENGTH]);
    for _ in 0..20 {
        world.step(&Step::Pass { symbol: 0, candles: 1, is_hole: false }).expect("it is a step");
    }
    world.page(0, 100, 0);
    world.settle().expect("all is told");
    // Three times a final row is corrected and the live one grows. The answers are as of before the last time.
    let mut answers = Vec::new();
    for number in 0..3 {
        world.step(&Step::Correct { symbol: 0, back: 7 }).expect("it is a step");
        world.step(&Step::Grow { symbol: 0 }).expect("it is a step");
        world.page(0, 30, 0);
        if number == 1 {
            let messages = world.hosts[0].shadow.collect(clock::now_ns()).expect("the feed is open");
            let beats = world.hosts[0].shadow.heartbeat(clock::now_ns()).expect("the feed is open");
            for (_, beat) in beats {
                world.apply(&beat).expect("it is applied");
                for request in world.hosts[1].writer.differences(&beat, 8, clock::now_ns()) {
                    answers.extend(world.hosts[0].shadow.answer(&request, clock::now_ns()).expect("it is open"));
                }
            }
            world.under_way.extend(messages.into_iter().map(|(_, message)| message));
        } else {
            world.collect();
        }
    }
    assert!(!answers.is_empty());
    let mut messages = std::mem::take(&mut world.under_way);
    assert_eq!(messages.len(), 3);
    messages.reverse();
    messages.extend(answers);
    for message in messages {
        world.apply(&message).expect("it is applied");
        let [first, second] = [0, 1].map(|at: usize| seen(world.hosts[at].writer.block(), 0, LENGTH));
        assert_eq!((first.rows, first.newest), (second.rows, second.newest));
    }
}

#[test]
fn what_is_final_stays_final() {
    let mut world = World::new([LENGTH, LENGTH]);
    for _ in 0..20 {
        world.step(&Step::Pass { symbol: 0, candles: 1, is_hole: false }).expect("it is a step");
    }
    world.page(0, 100, 0);
    world.settle().expect("all is told");
    let before = seen(world.hosts[1].writer.block(), 0, LENGTH);
    // The next leader knows the newest candle only, and calls another one a hole.
    let geometry = *world.hosts[0].writer.block().geometry();
    let exchange = world.hosts[0].writer.block().exchange();
    let head = Head { epoch: 9, ..head_of(&geometry, &exchange, Kind::Changes) };
    let (state, newest) = (before.state, before.newest.map(f64::from_bits));
    let hole = RingRow { candle_index: before.head - 5, row: [f64::NAN; COLUMNS], state: RowState::Hole };
    let live = RingRow {
        candle_index: before.head - 3,
        row: before.rows[before.rows.len() - 3].2.map(f64::from_bits),
        state: RowState::Live,
    };
    let mut builder = Builder::new(&head);
    let update = Update { head: before.head, newest: Some((state, newest)), rows: vec![hole, live], ..update(0) };
    assert!(builder.add(&Record::Update(update), &geometry));
    let applied = world.hosts[1].writer.apply_message(&builder.finish(true), 0, clock::now_ns());
    assert_eq!((applied.refused, applied.closed), (None, 0));
    assert_eq!(seen(world.hosts[1].writer.block(), 0, LENGTH).rows, before.rows);
}

#[test]
fn a_reader_beside_apply_sees_no_half_answer() {
    let mut world = World::new([LENGTH, LENGTH]);
    let name = world.hosts[1].writer.block().name().to_owned();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let block = Block::open(&name, clock::boot_id()).expect("it is there");
            let reader = SeriesReader::new(&block, 0);
            let mut read = 0_usize;
            let mut columns = vec![0.0; COLUMNS * LENGTH];
            while !ends.load(Ordering::Relaxed) {
                let mut snapshot = candleshm::read::Snapshot::default();
                let selection = candleshm::read::Selection { count: LENGTH, closed_only: false, states: true };
                reader.copy(&selection, &mut columns, &mut snapshot).expect("not contended");
                for (place, state) in snapshot.states.iter().enumerate() {
                    if matches!(state, RowState::Closed | RowState::Verified | RowState::Live) {
                        let value = |column: usize| columns[column * LENGTH + place];
                        let expected = value(TRADES);
                        assert!((1..=5).chain(7..=10).all(|column| value(column) == expected), "half a row");
                        read += 1;
                    }
                }
            }
            read
        });
        for round in 0..400 {
            world.step(&Step::Pass { symbol: 0, candles: 1, is_hole: false }).expect("it is a step");
            world.step(&Step::Correct { symbol: 0, back: round % 30 + 1 }).expect("it is a step");
            world.page(0, 35, 0);
            if round % 2 == 0 {
                world.hosts[0].shadow.collect(clock::now_ns()).expect("it is lost");
                for answer in world.compare().expect("it is applied") {
                    world.apply(&answer).expect("it is applied");
                }
            } else {
                world.collect();
                world.deliver(&[4]).expect("it is applied");
            }
        }
        ends.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("it read whole rows") > 0);
    });
}
