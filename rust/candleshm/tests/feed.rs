//! The feed beside a real block: what it hands out, what it refuses, when it waits and when it moves on.

mod scratch;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use candleshm::columns::{self, COLUMNS, Row};
use candleshm::feed::{Freshness, clock};
use candleshm::layout::{Presence, header};
use candleshm::merge::RequestWindow;
use candleshm::sync::Ordering::Relaxed;
use candleshm::writer::{Owner, Writer};
use candleshm::{Close, Error, ErrorKind, Feed, Gap, Holes, RowState, Series, View, Window};

use scratch::{Scratch, config};

const MINUTE_MS: i64 = 60_000;
const FIRST_MS: i64 = 1_735_689_600_000;
const LENGTH: usize = 8;

fn row(minute: i64, close: f64) -> Row {
    let open_ms = FIRST_MS + minute * MINUTE_MS;
    [open_ms as f64, 1.0, 9.0, 0.5, close, 10.0, (open_ms + 59_999) as f64, 15.0, 3.0, 5.0, 7.0, 0.0]
}

fn owner() -> Owner {
    Owner { pid: std::process::id().into(), pid_start: 1, boot_id: clock::boot_id(), now_ns: clock::now_ns() }
}

fn open(scratch: &Scratch, symbols: &[&str]) -> Writer {
    Writer::open(scratch.name(), &config(LENGTH, symbols), owner()).expect("nobody serves it")
}

/// A response of the minutes, the last one live: requested ten seconds into it.
fn ingest(writer: &mut Writer, index: usize, minutes: std::ops::RangeInclusive<i64>) {
    let sent_ms = minute_ms(*minutes.end()) + 10_000;
    merge(writer, index, minutes, sent_ms, None);
}

/// A response of the minutes that are over.
fn ingest_final(writer: &mut Writer, index: usize, minutes: std::ops::RangeInclusive<i64>) {
    let end_ms = minute_ms(minutes.end() + 1) - 1;
    merge(writer, index, minutes, end_ms + 10 * MINUTE_MS, Some(end_ms));
}

fn merge(writer: &mut Writer, index: usize, minutes: std::ops::RangeInclusive<i64>, sent_ms: i64, end_ms: Option<i64>) {
    let rows: Vec<Row> = minutes.map(|minute| row(minute, minute as f64 + 1.0)).collect();
    let window = RequestWindow {
        sent_ms,
        received_ms: sent_ms,
        settle_ms: 0,
        limit: rows.len(),
        start_ms: None,
        end_ms,
        from_end: true,
        patience_ms: 0,
    };
    writer.ingest(index, &rows, &window, clock::now_ms());
}

fn attach(scratch: &Scratch) -> Feed {
    Feed::attach(scratch.name(), None).expect("it is ready")
}

fn series(scratch: &Scratch) -> Series {
    attach(scratch).series("BTCUSDT").expect("it is carried")
}

/// BTCUSDT has minutes 0 to 6, the last one live; minute 3 is missing.
fn with_a_gap(scratch: &Scratch) -> Writer {
    let mut writer = open(scratch, &["BTCUSDT", "ETHUSDT"]);
    ingest_final(&mut writer, 0, 0..=2);
    ingest(&mut writer, 0, 4..=6);
    writer
}

fn minute_ms(minute: i64) -> i64 {
    FIRST_MS + minute * MINUTE_MS
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn a_feed_is_for_many_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Feed>();
    shared::<Series>();
    shared::<View>();
}

#[test]
fn a_copy_has_rows_and_states_of_one_moment() {
    let scratch = Scratch::new("feed-copy");
    let _writer = with_a_gap(&scratch);
    let series = series(&scratch);
    let everything = series.candles(&Window::default()).expect("no limit of age");
    let minutes = [0, 1, 2, 4, 5, 6];
    assert_eq!(everything.column(columns::OPEN_TIME_MS), minutes.map(|minute| minute_ms(minute) as f64));
    assert_eq!(everything.row(3), row(4, 5.0));
    assert_eq!(everything.states[..5], [RowState::Closed; 5]);
    assert_eq!(everything.states[5], RowState::Live);
    assert_eq!(series.states(&Window::default()).expect("no gap refused"), everything.states);
    let closed = series.candles(&Window::newest(2).closed_only()).expect("no limit of age");
    assert_eq!(closed.column(columns::CLOSE), [5.0, 6.0]);
    let mut live = [0.0; COLUMNS];
    assert_eq!(series.live(&mut live), Ok(RowState::Live));
    assert_eq!(live, row(6, 7.0));
    assert_eq!((series.last_close(), series.last_open_ms()), (Ok(7.0), Ok(Some(minute_ms(6)))));
    // The window reaches back to a minute before the first that came.
    let gap = |start, end| Gap { start_ms: minute_ms(start), end_ms: minute_ms(end), is_hole: false };
    assert_eq!(series.gaps(), Ok(vec![gap(-1, 0), gap(3, 4)]));
    let empty = attach(&scratch).series("ETHUSDT").expect("it is carried");
    assert!(empty.candles(&Window::default()).expect("nothing to refuse").is_empty());
    assert_eq!((empty.live(&mut live), empty.last_open_ms(), empty.age()), (Ok(RowState::Empty), Ok(None), Ok(None)));
    assert!(live.iter().all(|value| value.is_nan()));
}

#[test]
fn slots_without_a_row_become_what_was_asked_for() {
    let scratch = Scratch::new("feed-holes");
    let _writer = with_a_gap(&scratch);
    let series = series(&scratch);
    let refused = series.candles(&Window::newest(5).holes(Holes::Raise)).expect_err("minute 3 is missing");
    assert_eq!(refused.kind(), ErrorKind::Gap);
    assert_eq!(
        refused.to_string(),
        "BTCUSDT has no candles from 2025-01-01 00:03:00 to 2025-01-01 00:04:00 UTC: missing"
    );
    assert!(series.candles(&Window::newest(3).holes(Holes::Raise)).is_ok());
    let kept = series.candles(&Window::newest(5).holes(Holes::Nan)).expect("nothing is refused");
    assert_eq!(kept.states[1], RowState::Missing);
    assert_eq!(kept.column(columns::OPEN_TIME_MS)[1], minute_ms(3) as f64);
    assert!(kept.row(1)[1..].iter().all(|value| value.is_nan()));
}

#[test]
fn rows_land_where_the_caller_has_room() {
    let scratch = Scratch::new("feed-into");
    let _writer = with_a_gap(&scratch);
    let series = series(&scratch);
    for holes in [Holes::Drop, Holes::Nan] {
        let window = Window::newest(6).holes(holes);
        let whole = series.candles(&window).expect("nothing is refused");
        // Wider apart than there are rows, and without room behind the last column.
        let (stride, mut columns) = (10, vec![-1.0; 11 * 10 + 6]);
        let mut states = vec![RowState::Empty];
        let copied = series.candles_into(&window, &mut columns, stride, Some(&mut states)).expect("nothing is refused");
        assert_eq!((copied.rows, copied.end_ms), (whole.len(), Some(minute_ms(7))));
        assert_eq!(states, whole.states);
        for column in 0..COLUMNS {
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&columns[column * stride..][..copied.rows]), bits(whole.column(column)));
            let mut alone = [-1.0; 6];
            assert_eq!(series.column_into(column, &window, &mut alone), Ok(copied));
            assert_eq!(bits(&alone[..copied.rows]), bits(whole.column(column)));
        }
        // Room for fewer: the newest.
        let mut two = [0.0; 2];
        assert_eq!(series.column_into(columns::CLOSE, &window, &mut two).map(|copied| copied.rows), Ok(2));
        assert_eq!(two, [6.0, 7.0]);
    }
    assert_eq!(series.column_into(0, &Window::default(), &mut [0.0; 0]).map(|copied| copied.rows), Ok(0));
    assert_eq!(
        series.column_into(12, &Window::default(), &mut [0.0]).map_err(|error| error.kind()),
        Err(ErrorKind::Argument)
    );
}

/// The binding lends memory that was never set, and hands these rows out.
#[test]
fn every_value_of_a_row_that_is_handed_out_is_set() {
    let scratch = Scratch::new("feed-unset");
    let _writer = with_a_gap(&scratch);
    let series = series(&scratch);
    let unset = f64::from_bits(0x7FF8_C0DE_C0DE_C0DE);
    for count in 1..=LENGTH + 1 {
        for holes in [Holes::Drop, Holes::Nan] {
            for (closed_only, stride) in [(false, count), (true, count), (false, LENGTH + 2), (true, 1)] {
                let window = Window { count: Some(count), closed_only, holes };
                let mut columns = vec![unset; COLUMNS * stride];
                let rows = series.candles_into(&window, &mut columns, stride, None).expect("nothing is refused").rows;
                assert!(rows > 0);
                for column in columns.chunks(stride) {
                    assert!(column[..rows].iter().all(|value| value.to_bits() != unset.to_bits()), "{window:?}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let scratch = Scratch::new("feed-refusals");
    let unknown = Feed::attach(scratch.name(), None).expect_err("there is no block");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert_eq!(
        unknown.to_string(),
        format!("block `{}`: no block has that name; `candleshm ls` lists the blocks", scratch.name())
    );
    let _writer = with_a_gap(&scratch);
    let feed = attach(&scratch);
    assert_eq!(feed.series("XRPUSDT").map_err(|error| error.kind()).err(), Some(ErrorKind::UnknownSymbol));
    let btc = feed.series("BTCUSDT").expect("it is carried");
    let none = btc.candles(&Window::newest(0)).expect_err("a window of none");
    assert_eq!((none.kind(), none.to_string()), (ErrorKind::Argument, "n must be a positive integer: `0`".into()));
    assert_eq!(btc.view(Some(0)).err(), Some(none));
    let no_age = Feed::attach(scratch.name(), Some(Duration::ZERO)).expect_err("no data is that young");
    assert_eq!(no_age.to_string(), "max_age must be a positive number of seconds, or None: `0`");
    for quorum in [0.0, 1.5, f64::NAN] {
        let close = Close { quorum, ..Close::default() };
        assert_eq!(
            feed.wait_closed(&close, Some(seconds(0.0)), || true).map_err(|error| error.kind()),
            Err(ErrorKind::Argument)
        );
    }
    feed.close();
    assert_eq!(btc.last_close(), Err(Error::FeedClosed { name: scratch.name().into() }));
}

#[test]
fn old_and_delisted_data_is_not_handed_out() {
    let scratch = Scratch::new("feed-stale");
    let mut writer = with_a_gap(&scratch);
    let strict = Feed::attach(scratch.name(), Some(seconds(0.05))).expect("it is ready");
    let btc = strict.series("BTCUSDT").expect("it is carried");
    ingest(&mut writer, 0, 4..=6);
    assert!(btc.last_close().is_ok());
    let is_stale = |outcome: Result<(), Error>| matches!(outcome, Err(Error::Stale { symbol, limit_ms: 50, delisted: false, .. }) if symbol == "BTCUSDT");
    while !is_stale(btc.last_close().map(|_| ())) {
        thread::yield_now();
    }
    assert!(is_stale(btc.candles(&Window::newest(1)).map(|_| ())));
    assert!(is_stale(btc.view(None).map(|_| ())));
    assert!(is_stale(strict.group(None).map(|_| ())) && is_stale(strict.all().map(|_| ())));
    assert!(btc.states(&Window::newest(1)).is_ok() && btc.age().is_ok_and(|age| age > Some(seconds(0.05))));
    let never = strict.series("ETHUSDT").and_then(|series| series.last_close()).expect_err("it was never loaded");
    assert_eq!(never, Error::Stale { symbol: "ETHUSDT".into(), age_ms: None, limit_ms: 50, delisted: false });
    let patient = Feed::attach(scratch.name(), Some(seconds(3600.0))).expect("it is ready");
    writer.set_presence(0, Presence::Ended);
    let ended = patient.series("BTCUSDT").and_then(|series| series.last_close()).expect_err("it is delisted");
    assert!(matches!(ended, Error::Stale { delisted: true, .. }), "{ended}");
    assert_eq!(series(&scratch).last_close(), Ok(7.0));
}

#[test]
fn a_view_shows_final_rows_and_knows_when_they_changed() {
    let scratch = Scratch::new("feed-view");
    let mut writer = with_a_gap(&scratch);
    let view = series(&scratch).view(Some(3)).expect("no limit of age");
    assert_eq!((view.len(), view.is_complete(), view.end_ms()), (3, false, Some(minute_ms(6))));
    let closes: Vec<f64> = view.values(columns::CLOSE).collect();
    assert!(closes[0].is_nan());
    assert_eq!(closes[1..], [5.0, 6.0]);
    assert_eq!(view.words(columns::CLOSE)[2].load(Relaxed), 6.0_f64.to_bits());
    assert_eq!(view.check(), Ok(()));
    ingest(&mut writer, 0, 2..=6);
    assert_eq!(view.check(), Err(Error::Overwritten { symbol: "BTCUSDT".into() }));
    // It outlives the block's name, and the feed.
    writer.close(true).expect("its own name");
    assert_eq!(view.values(columns::CLOSE).next_back(), Some(6.0));
}

#[test]
fn a_wait_ends_when_a_candle_opens_or_closes() {
    let scratch = Scratch::new("feed-wait");
    let mut writer = with_a_gap(&scratch);
    ingest(&mut writer, 1, 4..=6);
    let feed = attach(&scratch);
    let btc = feed.series("BTCUSDT").expect("it is carried");
    assert_eq!(btc.wait_open(Some(minute_ms(5)), None, || panic!("it is there")), Ok(minute_ms(6)));
    let there = feed.wait_closed(&Close { open_ms: Some(minute_ms(5)), ..Close::default() }, None, || true);
    assert_eq!(there.map(|closed| (closed.open_ms, closed.symbols.len())), Ok((minute_ms(5), 2)));
    let sleeps = AtomicUsize::new(0);
    let goes_on = || sleeps.fetch_add(1, Ordering::Relaxed) < usize::MAX;
    thread::scope(|scope| {
        let opened = scope.spawn(|| btc.wait_open(None, None, goes_on));
        let closed = scope.spawn(|| feed.wait_closed(&Close::default(), None, goes_on));
        while sleeps.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        ingest(&mut writer, 0, 5..=7);
        assert_eq!(opened.join().expect("it does not panic"), Ok(minute_ms(7)));
        ingest(&mut writer, 1, 5..=7);
        let closed = closed.join().expect("it does not panic").expect("all symbols have it");
        assert_eq!((closed.open_ms, closed.end_ms), (minute_ms(6), minute_ms(7)));
        assert_eq!((closed.symbols.len(), closed.missing.len()), (2, 0));
    });
}

#[test]
fn a_wait_in_vain_says_what_it_waited_for() {
    let scratch = Scratch::new("feed-vain");
    let mut writer = with_a_gap(&scratch);
    ingest(&mut writer, 1, 4..=7);
    let feed = attach(&scratch);
    let btc = feed.series("BTCUSDT").expect("it is carried");
    let opened = btc.wait_open(None, Some(seconds(0.01)), || true).expect_err("nothing opens");
    assert_eq!(
        (opened.kind(), opened.to_string()),
        (ErrorKind::Timeout, "no newer candle of BTCUSDT within 0.01 s".into())
    );
    let close = Close { open_ms: Some(minute_ms(6)), ..Close::default() };
    let closed = feed.wait_closed(&close, Some(seconds(0.0)), || true).expect_err("BTCUSDT does not have it");
    let text = "no close within 0 s: 1 of 2 symbols have the candle of 2025-01-01T00:06:00Z final";
    assert_eq!((closed.kind(), closed.to_string()), (ErrorKind::Timeout, text.into()));
    assert!(matches!(closed, Error::NothingClosed { missing, .. } if missing == ["BTCUSDT"]));
    assert_eq!(feed.wait_closed(&close, None, || false).err(), Some(Error::Interrupted));
    assert_eq!(btc.wait_open(None, None, || false), Err(Error::Interrupted));
    let half = Close { quorum: 0.5, ..close };
    let enough = feed.wait_closed(&half, None, || true).expect("one of two is enough");
    assert_eq!((enough.symbols, enough.missing), (vec!["ETHUSDT".into()], vec!["BTCUSDT".into()]));
    // A heartbeat that stopped ends every wait of a feed with a limit.
    writer.heartbeat(clock::now_ns() - 10_000_000_000);
    let strict = Feed::attach(scratch.name(), Some(seconds(5.0))).expect("it is ready");
    let silent = strict.wait_closed(&close, None, || true).expect_err("nobody serves it");
    assert!(matches!(silent, Error::Stale { symbol, delisted: false, .. } if symbol == "the collector"));
}

#[test]
fn waits_under_way_can_be_interrupted() {
    let scratch = Scratch::new("feed-interrupt");
    let _writer = with_a_gap(&scratch);
    let feed = attach(&scratch);
    let btc = feed.series("BTCUSDT").expect("it is carried");
    // What comes before a wait does not end it.
    feed.interrupt();
    assert!(matches!(btc.wait_open(None, Some(seconds(0.0)), || true), Err(Error::NothingOpened { .. })));
    let sleeps = AtomicUsize::new(0);
    let goes_on = || sleeps.fetch_add(1, Ordering::Relaxed) < usize::MAX;
    thread::scope(|scope| {
        let opened = scope.spawn(|| btc.wait_open(None, None, goes_on));
        let closed = scope.spawn(|| feed.wait_closed(&Close::default(), None, goes_on));
        while sleeps.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        feed.clone().interrupt();
        assert_eq!(opened.join().expect("it does not panic"), Err(Error::Interrupted));
        assert_eq!(closed.join().expect("it does not panic"), Err(Error::Interrupted));
    });
}

#[test]
fn a_feed_moves_to_the_block_that_took_the_name() {
    let scratch = Scratch::new("feed-follow");
    let mut writer = with_a_gap(&scratch);
    let feed = attach(&scratch);
    let (btc, eth) = (feed.series("BTCUSDT").expect("carried"), feed.series("ETHUSDT").expect("carried"));
    let view = btc.view(None).expect("no limit of age");
    // Of the same owner, with room for more.
    writer.enlarge(&["BTCUSDT", "ETHUSDT", "XRPUSDT"].map(String::from), 0, owner()).expect("there is room");
    ingest(&mut writer, 0, 6..=7);
    while btc.last_close() != Ok(8.0) {
        thread::yield_now();
    }
    assert_eq!(feed.symbols().map(|symbols| symbols.len()), Ok(3));
    assert_eq!(view.check(), Ok(()));
    // Of another collector, with other symbols, after a clean end.
    writer.close(true).expect("its own name");
    assert_eq!((btc.last_close(), feed.health(None).map(|health| health.generation)), (Ok(8.0), Ok(2)));
    let mut writer = open(&scratch, &["BTCUSDT"]);
    ingest(&mut writer, 0, 8..=8);
    while btc.last_close() != Ok(9.0) {
        thread::yield_now();
        // A block that is not loaded yet is moved to once it has what the old one has, or that is too old.
        ingest(&mut writer, 0, 0..=8);
    }
    assert_eq!(feed.health(None).map(|health| health.generation), Ok(1));
    assert_eq!(eth.last_close().map_err(|error| error.kind()), Err(ErrorKind::UnknownSymbol));
}

#[test]
fn many_symbols_come_side_by_side() {
    let scratch = Scratch::new("feed-group");
    let mut writer = with_a_gap(&scratch);
    ingest(&mut writer, 1, 4..=7);
    let feed = attach(&scratch);
    let all = feed.all().expect("no limit of age");
    let mut closes = [0.0; 2];
    all.last_into(columns::CLOSE, &mut closes).expect("nothing moves");
    assert_eq!((all.symbols(), closes), (vec!["BTCUSDT".into(), "ETHUSDT".into()], [7.0, 8.0]));
    let group = feed.group(Some(&["ETHUSDT".into(), "BTCUSDT".into()])).expect("both are carried");
    let panel = group.panel(Some(2), false).expect("one grid");
    assert_eq!(panel.open_ms().collect::<Vec<_>>(), [minute_ms(4), minute_ms(5)]);
    let mut values = [0.0; 4];
    panel.copy_into(&[columns::CLOSE], &mut values).expect("nothing moves");
    assert_eq!(values, [5.0, 6.0, 5.0, 6.0]);
    let mut known = [0.0; 4];
    group.asof_into(columns::CLOSE, &[minute_ms(5), minute_ms(6)], &mut known).expect("nothing moves");
    assert_eq!(known, [5.0, 6.0, 5.0, 6.0]);
    assert_eq!(feed.group(Some(&[])).map(|group| group.len()), Ok(0));
}

#[test]
fn health_judges_heartbeat_and_ages() {
    let scratch = Scratch::new("feed-health");
    let mut writer = with_a_gap(&scratch);
    ingest(&mut writer, 1, 4..=6);
    writer.heartbeat(clock::now_ns());
    let feed = attach(&scratch);
    let health = feed.health(None).expect("it is attached");
    assert_eq!((health.market, health.interval.as_str(), health.symbols, health.length), ("SPOT", "1m", 2, LENGTH));
    assert_eq!((health.loaded, health.ready, health.missing), (false, false, 2 + 5));
    assert!(health.freshness.is_current && health.freshness.stale == 0 && health.heartbeat_age_ms.is_some());
    writer.block().header(header::HEARTBEAT_NS).store(u64::MAX, Relaxed);
    assert_eq!(feed.health(None).map(|health| health.heartbeat_age_ms), Ok(None));
    let ages = |old: usize, young: usize| [vec![Some(61_000); old], vec![Some(500); young]].concat();
    let of = |ages: &[Option<u64>], limit_ms| Freshness::of(ages, limit_ms);
    assert!(of(&ages(2, 20), None).is_current && !of(&ages(3, 20), None).is_current);
    assert!(!of(&ages(1, 0), None).is_current && of(&ages(1, 0), Some(61_000)).is_current);
    assert_eq!(of(&[None, Some(7)], None), Freshness { stale: 1, oldest_age_ms: Some(7), is_current: true });
    assert_eq!(of(&[], None), Freshness { stale: 0, oldest_age_ms: Some(0), is_current: true });
}
