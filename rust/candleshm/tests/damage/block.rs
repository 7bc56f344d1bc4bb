//! A real block that is damaged again and again, and every call that it may get. Which damage is decided by
//! numbers from outside: a test's, or a fuzzer's.

use std::fs::File;
use std::os::unix::fs::FileExt;

use candleshm::asof;
use candleshm::block::Block;
use candleshm::columns::{COLUMNS, OPEN_TIME_MS, Row, TRADES};
use candleshm::error::{Corruption, Error};
use candleshm::interval::{Grid, Interval};
use candleshm::layout::{Geometry, PAGE_BYTES, SYMBOL_BYTES, header};
use candleshm::merge::RequestWindow;
use candleshm::page::PageRequest;
use candleshm::panel;
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::sync::Ordering::Relaxed;
use candleshm::watch::{Change, Watch};
use candleshm::wire::text::is_writable;
use candleshm::writer::{Config, Writer};

use crate::scratch::{self, BOOT_ID, Scratch, owner};

/// 2025-01-01.
const START_MS: i64 = 1_735_689_600_000;
const LENGTH: usize = 10;
const SYMBOLS: [&str; 2] = ["BTCUSDT", "ETHUSDT"];
/// Values at which arithmetic goes wrong.
const EXTREMES: [u64; 10] = [
    0,
    1,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
    f64::NAN.to_bits(),
    f64::INFINITY.to_bits(),
];

/// A block whose collector is dead, and its bytes as they were.
pub(crate) struct Damaged {
    scratch: Scratch,
    config: Config,
    geometry: Geometry,
    grid: Grid,
    image: Vec<u8>,
    file: File,
}

impl Damaged {
    /// Makes a block of two symbols: closed rows, a hole, missing rows, a provisional and a live row.
    pub(crate) fn of(interval: Interval) -> Self {
        let scratch = Scratch::new("damage");
        let config = Config { interval, spare_symbols: 1, ..scratch::config(LENGTH, &SYMBOLS) };
        let mut writer = Writer::open(scratch.name(), &config, owner()).expect("a new block");
        let grid = Grid::anchored(interval, START_MS);
        let first = grid.index_of(START_MS);
        for (symbol, rows) in [(0, 0..LENGTH as i64 + 3), (1, 4..LENGTH as i64 + 3)] {
            let rows: Vec<Row> = rows.filter(|at| at % 6 != 0).map(|at| row(grid, first + at, 0)).collect();
            let end_ms = grid.end_ms(first + LENGTH as i64 + 1);
            for sent_ms in [end_ms, end_ms + 1_000, end_ms + 2_000] {
                writer.ingest(symbol, &rows, &window(sent_ms, 100), 1);
            }
        }
        let geometry = *writer.block().geometry();
        drop(writer);
        let image = std::fs::read(scratch.path()).expect("it is there");
        let file = open(&scratch);
        Self { scratch, config, geometry, grid, image, file }
    }

    /// Damages some words of the header: true when the block can still be attached to and was read, false when it was
    /// refused with an error that says why.
    pub(crate) fn header_is_refused_or_harmless(&mut self, numbers: &mut impl FnMut() -> u64) -> bool {
        self.restore();
        for _ in 0..=numbers() % 3 {
            // The words that mean something, mostly.
            let words = if numbers().is_multiple_of(8) { PAGE_BYTES / 8 } else { header::BANNED_UNTIL_MS + 1 };
            self.spoil(numbers() as usize % words, numbers);
        }
        match Block::open(self.scratch.name(), BOOT_ID) {
            Ok(block) => {
                read_everything(&block);
                true
            }
            Err(
                Error::NotReady { .. }
                | Error::Leftover { .. }
                | Error::Incompatible { .. }
                | Error::Corrupt { what: Corruption::Foreign | Corruption::Field { .. }, .. },
            ) => false,
            Err(other) => panic!("{other}"),
        }
    }

    /// Damages some words behind the header, and reads.
    pub(crate) fn body_is_harmless(&mut self, numbers: &mut impl FnMut() -> u64) {
        self.restore();
        self.spoil_body(numbers);
        read_everything(&Block::open(self.scratch.name(), BOOT_ID).expect("the header is whole"));
    }

    /// Damages some words behind the header and lets a successor open the block: whether it goes on with it. One full
    /// response later everything must be right.
    pub(crate) fn successor_serves(&mut self, numbers: &mut impl FnMut() -> u64) -> bool {
        self.restore();
        self.spoil_body(numbers);
        let mut writer = Writer::open(self.scratch.name(), &self.config, owner()).expect("its owner is dead");
        let taken_over = writer.is_taken_over();
        read_everything(writer.block());
        let first = self.grid.index_of(START_MS) + 20;
        let rows: Vec<Row> = (0..LENGTH as i64).map(|at| row(self.grid, first + at, 1)).collect();
        let sent_ms = self.grid.end_ms(first + LENGTH as i64 - 1) + 1_000;
        for symbol in SYMBOLS {
            let index = writer.index_of(symbol).expect("it carries the symbol");
            let report = writer.ingest(index, &rows, &window(sent_ms, LENGTH), 2);
            assert_eq!((report.missing, report.tally.refused, report.tally.older), (0, 0, 0));
            let (mut columns, mut snapshot) = (vec![0.0; COLUMNS * LENGTH], Snapshot::default());
            let selection = Selection { count: LENGTH, closed_only: true, states: false };
            let reader = SeriesReader::new(writer.block(), index);
            reader.copy(&selection, &mut columns, &mut snapshot).expect("nobody writes");
            assert_eq!((snapshot.start, snapshot.states.len()), (first as u64, LENGTH));
            for (slot, row) in rows.iter().enumerate() {
                assert!((0..COLUMNS).all(|column| columns[column * LENGTH + slot] == row[column]), "{slot}");
            }
        }
        assert_eq!(writer.block().value(header::UNIVERSE_BAR), (first + LENGTH as i64 - 1) as u64);
        read_everything(writer.block());
        drop(writer);
        // A new block stands under the name, perhaps: the next damage is to the file that is there.
        self.file = open(&self.scratch);
        taken_over
    }

    fn restore(&mut self) {
        self.file.write_all_at(&self.image, 0).expect("it is as long as ever");
    }

    fn spoil_body(&mut self, numbers: &mut impl FnMut() -> u64) {
        let entry_words = SYMBOL_BYTES / 8;
        for _ in 0..=numbers() % 4 {
            let symbol = numbers() as usize % SYMBOLS.len();
            let data = self.geometry.data_offset_words() + symbol * self.geometry.ring.data_words();
            let word = match numbers() % 4 {
                0 | 1 => self.geometry.symbols_offset_words() + symbol * entry_words + numbers() as usize % entry_words,
                2 => data + numbers() as usize % self.geometry.ring.capacity,
                _ => data + numbers() as usize % self.geometry.ring.data_words(),
            };
            self.spoil(word, numbers);
        }
    }

    /// Puts something else into a word.
    fn spoil(&mut self, word: usize, numbers: &mut impl FnMut() -> u64) {
        let word_at = |word: usize| u64::from_le_bytes(std::array::from_fn(|byte| self.image[8 * word + byte]));
        let (kind, number, was) = (numbers(), numbers(), word_at(word));
        let value = match kind % 7 {
            0 => number,
            1 => was ^ 1 << (number % 64),
            2 => was.wrapping_add(number % 17).wrapping_sub(8),
            3 => was & 0xFFFF_FFFF | number << 32,
            4 => was & !0xFF | number & 0xF,
            5 => EXTREMES[number as usize % EXTREMES.len()],
            _ => word_at(number as usize % (self.image.len() / 8)),
        };
        self.file.write_all_at(&value.to_le_bytes(), 8 * word as u64).expect("it is as long as ever");
    }
}

fn open(scratch: &Scratch) -> File {
    File::options().write(true).open(scratch.path()).expect("it is there")
}

fn row(grid: Grid, candle_index: i64, version: u8) -> Row {
    let mut row = [100.0 + f64::from(version); COLUMNS];
    (row[OPEN_TIME_MS], row[6]) = (grid.open_ms(candle_index) as f64, (grid.end_ms(candle_index) - 1) as f64);
    row[TRADES] = 7.0 + f64::from(version);
    row[11] = 0.0;
    row
}

fn window(sent_ms: i64, limit: usize) -> RequestWindow {
    RequestWindow {
        sent_ms,
        received_ms: sent_ms,
        settle_ms: 1_000,
        limit,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    }
}

/// Reads everything that can be read. Only the shapes of the results can be judged.
pub(crate) fn read_everything(block: &Block) {
    let length = block.geometry().ring.length;
    let all: Vec<usize> = (0..block.symbol_count()).collect();
    for &index in &all {
        let (reader, grid) = (SeriesReader::new(block, index), block.grid(index));
        let mut newest = [0.0; COLUMNS];
        let marks = reader.newest(&mut newest).expect("nobody writes");
        assert!(marks.end() > marks.head || !marks.has_live());
        let times = (reader.last_close(), reader.received_ms(), block.symbol(index), block.is_trading(index));
        drop(times);
        for candle_index in [0, marks.head, marks.final_end, u64::from(u32::MAX), u64::MAX] {
            let _ =
                (reader.is_settled(candle_index), grid.open_ms(candle_index as i64), grid.end_ms(candle_index as i64));
        }
        let newest_settled = reader.newest_settled().map_or(0, |candle_index| grid.end_ms(candle_index as i64));
        let gaps = reader.gaps().expect("nobody writes");
        assert!(gaps.len() <= length && gaps.iter().all(|gap| gap.start < gap.end));
        for count in [1, 3, length, length + 7] {
            read_windows(reader, count, length);
            read_pages(reader, grid, count, length);
        }
        let mut told = 0;
        let tell = |change: Change| {
            assert!(is_writable(&change.row));
            told += 1;
        };
        Watch::new().take(&reader, tell).expect("nobody writes");
        assert!(told <= length + 1);
        let moments = [i64::MIN, 0, START_MS, newest_settled, newest[OPEN_TIME_MS] as i64, i64::MAX];
        asof::copy(reader, grid, &[4], &moments, &mut [0.0; 6]).expect("nobody writes");
    }
    for live in [false, true] {
        if let Some(range) = panel::newest(block, &all, length, live).expect("nobody writes") {
            assert!(range.count <= length);
            let mut values = vec![0.0; 2 * all.len() * range.count];
            panel::copy(block, &all, &[0, 4], range, live, &mut values).expect("nobody writes");
        }
    }
    panel::last(block, &all, 5, &mut vec![0.0; all.len()]).expect("nobody writes");
}

fn read_pages(reader: SeriesReader<'_>, grid: Grid, limit: usize, length: usize) {
    let bounds = [None, Some(i64::MIN), Some(START_MS), Some(START_MS + 61_000), Some(i64::MAX)];
    for (low_ms, high_ms) in bounds.into_iter().flat_map(|low_ms| bounds.map(|high_ms| (low_ms, high_ms))) {
        for newest in [false, true] {
            let request = PageRequest { low_ms, high_ms, limit, newest, knows_first: newest };
            let page = reader.page(grid, &request).expect("nobody writes");
            assert!(page.rows.len() <= limit.min(length + 1));
            assert!(page.rows.iter().all(is_writable));
            assert!(page.incomplete.is_none() || page.rows.is_empty());
        }
    }
}

fn read_windows(reader: SeriesReader<'_>, count: usize, length: usize) {
    for (closed_only, states) in [(false, false), (false, true), (true, false)] {
        let (mut columns, mut snapshot) = (vec![0.0; COLUMNS * count], Snapshot::default());
        let selection = Selection { count, closed_only, states };
        reader.copy(&selection, &mut columns, &mut snapshot).expect("nobody writes");
        assert!(snapshot.states.len() <= count.min(length));
        assert_eq!(reader.available(&selection), Ok(snapshot.states.len()));
    }
    let view = reader.view(count).expect("nobody writes");
    assert!(view.count <= count.min(length));
    for column in 0..COLUMNS {
        let _: u64 = reader.column(&view, column).iter().map(|word| word.load(Relaxed) & 1).sum();
    }
    let _ = reader.is_valid(&view);
}
