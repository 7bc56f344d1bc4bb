//! Random lives of a block: what is requested and what the exchange responds, with times relative to the clock.

use candleshm::columns::{CLOSE, CLOSE_TIME_MS, HIGH, LOW, OPEN, OPEN_TIME_MS, TRADES, VOLUME};
use candleshm::interval::Interval;
use proptest::prelude::*;

use crate::reference::Kline;

/// The symbols of a block, or the first of them.
pub(crate) const SYMBOLS: [&str; 3] = ["BTCUSDT", "ETHUSDT", "DOGEUSDT"];

/// How a row cannot be true.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flaw {
    NotANumber,
    HighBelowLow,
    NegativeVolume,
    FractionOfAMillisecond,
    ClosesBeforeItOpens,
    AgesAgo,
}

/// Which rows a request is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Requested {
    Newest,
    Until,
    From { below: u64, to_end: bool },
}

/// A response, with times relative to the clock.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) symbol: usize,
    pub(crate) requested: Requested,
    /// Candle indices from the oldest row to the clock's.
    pub(crate) back: u64,
    /// Candle indices from the oldest row to the newest, both included.
    pub(crate) span: u64,
    /// Candle indices left out, one bit each.
    pub(crate) skipped: u32,
    /// Which values, one digit per row.
    pub(crate) values: Vec<u8>,
    /// Where in its candle a row opens, in quarters.
    pub(crate) off_grid: Option<(usize, i64)>,
    pub(crate) flaw: Option<(usize, Flaw)>,
    /// A second row of a candle, with other values.
    pub(crate) doubled: Option<(usize, u8)>,
    pub(crate) rotated: usize,
    pub(crate) full: bool,
    /// How long ago the request left, in tenths of a candle.
    pub(crate) delay: i64,
    /// Hours that the exchange's clock lies behind: rows open after the response was received.
    pub(crate) ahead: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Time passes: tenths of a candle.
    Pass(i64),
    Merge(Reply),
    /// An earlier response comes once more.
    Again(usize),
    /// The collector dies and another one takes over.
    TakeOver,
    Trading(usize, bool),
    View(usize, usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) interval: Interval,
    pub(crate) phase_days: i64,
    pub(crate) length: usize,
    pub(crate) symbols: usize,
    /// Tenths of a candle.
    pub(crate) settle: i64,
    /// How long rows without a later one wait, tenths of a candle.
    pub(crate) patience: i64,
    pub(crate) steps: Vec<Step>,
}

fn replies() -> impl Strategy<Value = Reply> {
    let requested = prop_oneof![
        4 => Just(Requested::Newest),
        1 => Just(Requested::Until),
        3 => (0..3_u64, any::<bool>()).prop_map(|(below, to_end)| Requested::From { below, to_end }),
    ];
    let flaw = prop::sample::select(vec![
        Flaw::NotANumber,
        Flaw::HighBelowLow,
        Flaw::NegativeVolume,
        Flaw::FractionOfAMillisecond,
        Flaw::ClosesBeforeItOpens,
        Flaw::AgesAgo,
    ]);
    let rarely = |strategy| prop::option::weighted(0.1, strategy);
    let skipped = prop_oneof![3 => Just(0), 1 => any::<u32>(), 1 => any::<u32>().prop_map(|bits| bits & bits >> 16)];
    let values = prop_oneof![2 => Just(vec![0]), 1 => prop::collection::vec(0..6_u8, 1..8)];
    (
        (0..SYMBOLS.len(), requested, 0..16_u64, 1..18_u64, skipped, values),
        (
            prop::option::weighted(0.1, (0..16_usize, 1..4_i64)),
            rarely((0..16_usize, flaw)),
            prop::option::weighted(0.2, (0..16_usize, 0..6_u8)),
            prop_oneof![2 => Just(0), 1 => 0..16_usize],
            prop::bool::weighted(0.3),
            prop_oneof![3 => Just(0), 2 => 0..25_i64],
            prop_oneof![9 => Just(0), 1 => 1..3_u64],
        ),
    )
        .prop_map(
            |(
                (symbol, requested, back, span, skipped, values),
                (off_grid, flaw, doubled, rotated, full, delay, ahead),
            )| {
                Reply {
                    symbol,
                    requested,
                    back,
                    span,
                    skipped,
                    values,
                    off_grid,
                    flaw,
                    doubled,
                    rotated,
                    full,
                    delay,
                    ahead,
                }
            },
        )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![5 => 0..25_i64, 1 => 25..2_500_i64].prop_map(Step::Pass),
        12 => replies().prop_map(Step::Merge),
        2 => any::<usize>().prop_map(Step::Again),
        1 => Just(Step::TakeOver),
        1 => (0..SYMBOLS.len(), any::<bool>()).prop_map(|(symbol, trading)| Step::Trading(symbol, trading)),
        3 => (0..SYMBOLS.len(), 1..13_usize).prop_map(|(symbol, count)| Step::View(symbol, count)),
    ]
}

pub(crate) fn lives(interval: Interval) -> impl Strategy<Value = Life> {
    let settle = prop::sample::select(vec![0, 1, 5, 15, 25]);
    let patience = prop::sample::select(vec![0, 15, 60, 200]);
    (0..3_i64, 2..13_usize, 1..=SYMBOLS.len(), (settle, patience), prop::collection::vec(steps(), 1..50)).prop_map(
        move |(phase_days, length, symbols, (settle, patience), steps)| Life {
            interval,
            phase_days,
            length,
            symbols,
            settle,
            patience,
            steps,
        },
    )
}

/// Makes a row one that cannot be true.
pub(crate) fn spoil(kline: &mut Kline, flaw: Flaw) {
    let row = &mut kline.row;
    match flaw {
        Flaw::NotANumber => row[CLOSE] = f64::NAN,
        Flaw::HighBelowLow => (row[HIGH], row[LOW]) = (row[OPEN] - 1.0, row[OPEN] + 1.0),
        Flaw::NegativeVolume => row[VOLUME] = -1.0,
        Flaw::FractionOfAMillisecond => row[OPEN_TIME_MS] += 0.5,
        Flaw::ClosesBeforeItOpens => row[CLOSE_TIME_MS] = row[OPEN_TIME_MS] - 1.0,
        Flaw::AgesAgo => (row[OPEN_TIME_MS], row[TRADES]) = (0.0, 1e9),
    }
    kline.plausible = false;
}
