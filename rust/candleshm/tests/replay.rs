//! A replay by the core: any rows in any pieces are published as they are, each when it closes, and nothing before.

mod scratch;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use candleshm::columns::{COLUMNS, OPEN_TIME_MS, Row};
use candleshm::error::Error;
use candleshm::feed::clock;
use candleshm::interval::Grid;
use candleshm::layout::RowState;
use candleshm::lockstep::{Course, Lockstep};
use candleshm::replay::{Inside, Plan, Replay};
use candleshm::{Feed, Holes, Window};
use proptest::prelude::*;

use scratch::{Scratch, config};

const MINUTE_MS: i64 = 60_000;
const START: i64 = 28_333_440;
const LENGTH: usize = 64;

fn row(minute: i64) -> Row {
    let mut row = [1.0; COLUMNS];
    row[OPEN_TIME_MS] = (minute * MINUTE_MS) as f64;
    row[1..5].copy_from_slice(&[10.0, 12.0, 9.0, 10.0 + (minute % 3) as f64 - 1.0]);
    row[6] = (minute * MINUTE_MS + MINUTE_MS - 1) as f64;
    row
}

fn owner() -> candleshm::writer::Owner {
    let boot_id = candleshm::feed::clock::boot_id();
    candleshm::writer::Owner { boot_id, ..scratch::owner() }
}

/// Begins a replay of what is known of minutes from the start on, given in pieces of that many minutes.
fn begun(scratch: &Scratch, known: BTreeMap<i64, RowState>, piece: i64, inside: Option<Inside>) -> Arc<Replay> {
    let end = START + 40;
    let plan = Plan {
        config: config(LENGTH, &["BTCUSDT"]),
        derived: vec![(format!("{}-5m", scratch.name()), Grid::parse("5m").expect("an interval"), 20)],
        start_ms: START * MINUTE_MS,
        end_ms: end * MINUTE_MS,
        inside,
        speed: None,
        consumers: 0,
    };
    let cell: Arc<OnceLock<std::sync::Weak<Replay>>> = Arc::default();
    let to = cell.clone();
    let more = move |from_ms: i64| {
        let from = from_ms / MINUTE_MS;
        let rows = known.range(from..from + piece).map(|(&minute, &state)| (row(minute), state)).collect();
        to.get()?.upgrade()?.give("BTCUSDT", rows);
        Some((from + piece) * MINUTE_MS)
    };
    let replay = Arc::new(Replay::new(scratch.name(), plan, Box::new(more)).expect("a plan"));
    cell.set(Arc::downgrade(&replay)).expect("set once");
    replay.begin(10, owner()).expect("a new block");
    replay
}

fn state() -> impl Strategy<Value = Option<RowState>> {
    prop_oneof![
        8 => Just(Some(RowState::Closed)),
        4 => Just(Some(RowState::Verified)),
        3 => Just(Some(RowState::Hole)),
        2 => Just(None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_has_closed_is_there_and_nothing_else(
        states in proptest::collection::vec(state(), 60),
        piece in 1_i64..30,
        inside in prop_oneof![Just(None), Just(Some(Inside::Steps))],
    ) {
        let scratch = Scratch::new("replay-all");
        let first = START - 15;
        let known: BTreeMap<i64, RowState> =
            (first..).zip(states).filter_map(|(minute, state)| Some((minute, state?))).collect();
        let is_row = |minute: i64| matches!(known.get(&minute), Some(RowState::Closed | RowState::Verified));
        let replay = begun(&scratch, known.clone(), piece, inside);
        let feed = Feed::attach(scratch.name(), None).expect("begun");
        let series = feed.series("BTCUSDT").expect("a symbol");
        // The moment at which it starts is one like all others.
        let mut has_started = false;
        loop {
            let now = replay.now_ms();
            let window = Window { holes: Holes::Nan, closed_only: true, ..Window::default() };
            let candles = series.candles(&window).expect("a copy");
            // From the first row of the last ten minutes before the start up to the newest that has closed, or that is
            // followed by a live one.
            let closed: Vec<i64> = (START - 10..now / MINUTE_MS).collect();
            let oldest = closed.iter().copied().find(|&minute| is_row(minute));
            let live_is_later = |minute: i64| {
                let later = (minute + 1..START + 40).find(|&next| is_row(next));
                has_started && inside.is_some() && later.is_some_and(|next| next * MINUTE_MS <= now)
            };
            let newest = closed.iter().copied().rev().find(|&minute| is_row(minute) || live_is_later(minute));
            let expected: Vec<i64> = match (oldest, newest) {
                (Some(oldest), Some(newest)) => (oldest..=newest).collect(),
                _ => Vec::new(),
            };
            prop_assert_eq!(candles.len(), expected.len(), "at {}", now);
            for (place, &minute) in expected.iter().enumerate() {
                let state = known.get(&minute).copied().unwrap_or(RowState::Missing);
                prop_assert_eq!(candles.states[place], state, "minute {} at {}", minute - START, now);
                if is_row(minute) {
                    prop_assert_eq!(candles.row(place), row(minute));
                }
            }
            if !replay.step().expect("rows") {
                break;
            }
            has_started = true;
        }
        prop_assert_eq!(replay.now_ms(), (START + 40) * MINUTE_MS);
        replay.close().expect("removable");
    }
}

/// Whether a thread of this process is asleep.
fn is_asleep(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).expect("a thread");
    stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('S'))
}

#[test]
fn whoever_only_watches_is_woken() {
    let scratch = Scratch::new("replay-watch");
    let replay = begun(&scratch, (START - 15..START + 40).map(|minute| (minute, RowState::Closed)).collect(), 10, None);
    let feed = Feed::attach(scratch.name(), None).expect("begun");
    let news = feed.news(None).expect("a replay");
    let (tell, told) = mpsc::channel();
    let watcher = thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("awaited");
        while !news.is_over() {
            news.sleep_for(Duration::from_hours(1));
        }
    });
    let number = told.recv().expect("it began");
    while !is_asleep(number) {
        thread::yield_now();
    }
    assert!(replay.step().expect("a moment"));
    watcher.join().expect("it was woken");
}

/// Else a reader that is quick would take what is announced at the end for one moment more.
#[test]
fn whoever_is_let_go_for_the_last_moment_finds_that_it_is_the_last() {
    for _ in 0..300 {
        let scratch = Scratch::new("replay-end");
        let known = (START..START + 40).map(|minute| (minute, RowState::Closed)).collect();
        let replay = begun(&scratch, known, 40, None);
        let owner = owner();
        let lockstep =
            Lockstep::open(scratch.name(), owner.pid, owner.pid_start).expect("a file").expect("it is there");
        let place = lockstep.take_place((std::process::id().into(), clock::process_start())).expect("a free one");
        let seen = lockstep.grants(place);
        lockstep.ask(place, (START + 40) * MINUTE_MS);
        let reader = thread::spawn(move || {
            while lockstep.grants(place) == seen {
                std::hint::spin_loop();
            }
            lockstep.course()
        });
        replay.run(|| true).expect("rows");
        assert_eq!(reader.join().expect("a course"), Course::Ended);
        replay.close().expect("it has ended");
    }
}

#[test]
fn a_replay_without_rows_says_so_and_leaves_nothing() {
    let scratch = Scratch::new("replay-none");
    let plan = Plan {
        config: config(LENGTH, &["BTCUSDT"]),
        derived: Vec::new(),
        start_ms: START * MINUTE_MS,
        end_ms: (START + 5) * MINUTE_MS,
        inside: None,
        speed: None,
        consumers: 1,
    };
    let replay = Arc::new(Replay::new(scratch.name(), plan, Box::new(|_| None)).expect("a plan"));
    assert!(matches!(replay.begin(10, owner()), Err(Error::Argument(text)) if text.contains("cannot go on")));
    assert!(matches!(replay.step(), Err(Error::Argument(text)) if text.contains("has not begun")));
    replay.close().expect("nothing to remove");
    assert_eq!(scratch.files(), Vec::<String>::new());
}
