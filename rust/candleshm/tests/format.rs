//! The format document against the code, a small block against its expected bytes, and damaged headers.

mod scratch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use candleshm::block::Block;
use candleshm::columns::{COLUMNS, NAMES, Row};
use candleshm::error::{Corruption, Error};
use candleshm::interval::{Grid, Interval};
use candleshm::layout::{self, BlockState, EXCHANGE_BYTES, Geometry, RowState, Tag, header, slot, symbol};
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::writer::Writer;
use candleshm::zone::{ZONE_NAME_BYTES, Zone};
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use sha2::{Digest as _, Sha256};

use scratch::{BOOT_ID, Scratch, config, owner};

const DOCUMENT: &str = include_str!("../../../docs/segment-format.md");

/// Returns the bytes between the markers of a table.
fn marked(table: &str) -> &'static str {
    let (_, behind) = DOCUMENT.split_once(&format!("<!-- {table} -->\n")).expect("the document has the table");
    behind.split_once(&format!("<!-- /{table} -->")).expect("the table ends").0
}

/// Returns the cells of a table, headings left out.
fn cells(table: &str) -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    marked(table).lines().skip(2).map(cells).collect()
}

/// Evaluates a sum of products of numbers, `C` and `k`.
fn evaluate(text: &str, capacity: usize, column: usize) -> usize {
    let factor = |text: &str| match text {
        "C" => capacity,
        "k" => column,
        number => number.parse().expect("a number"),
    };
    text.split(" + ").map(|product| product.split('*').map(factor).product::<usize>()).sum()
}

/// Bytes of a type of the table.
fn size_of(kind: &str, capacity: usize) -> usize {
    let (kind, count) = match kind.split_once('[') {
        Some((kind, count)) => (kind, evaluate(count.trim_end_matches(']'), capacity, 0)),
        None => (kind, 1),
    };
    let one = match kind {
        "char" | "u8" => 1,
        "u24" => 3,
        "u32" => 4,
        "u64" | "i64" | "f64" | "tag" => 8,
        "latch" => 8 * symbol::SLOT_WORDS,
        other => panic!("a type without a size: {other}"),
    };
    one * count
}

#[test]
fn the_layout_hash_is_that_of_the_table() {
    let hash: [u8; 32] = Sha256::digest(marked("layout-table")).into();
    assert_eq!(hash, layout::LAYOUT_HASH, "a changed table is another format: set LAYOUT_HASH to {hash:#04x?}");
    let digits = data_encoding::HEXLOWER.encode(&hash);
    assert!(DOCUMENT.contains(&format!("`{digits}`")), "the document has to give the hash: {digits}");
}

#[test]
fn fields_lie_where_the_document_says() {
    let capacity = 72;
    let mut documented = BTreeMap::new();
    for row in cells("layout-table").into_iter().chain(cells("minor-table")) {
        let [structure, offset, bytes, kind, name, _] = row[..] else { panic!("six cells: {row:?}") };
        let bytes = evaluate(bytes, capacity, 0);
        assert_eq!(size_of(kind, capacity), bytes, "{structure} {name}");
        assert!(documented.insert((structure, name), (evaluate(offset, capacity, 0), bytes)).is_none());
    }
    let word = |structure, name, offset: usize| ((structure, name), (8 * offset, 8));
    let half = |structure, name, offset: usize, half: usize| ((structure, name), (8 * offset + 4 * half, 4));
    let coded = BTreeMap::from([
        word("header", "magic", header::MAGIC),
        half("header", "abi_major", header::ABI, 0),
        half("header", "abi_minor", header::ABI, 1),
        (("header", "layout_hash"), (8 * header::LAYOUT_HASH, layout::LAYOUT_HASH.len())),
        word("header", "generation", header::GENERATION),
        word("header", "state", header::STATE),
        word("header", "block_bytes", header::BLOCK_BYTES),
        word("header", "market", header::MARKET),
        word("header", "interval", header::INTERVAL),
        word("header", "length", header::LENGTH),
        word("header", "capacity", header::CAPACITY),
        word("header", "symbol_capacity", header::SYMBOL_CAPACITY),
        word("header", "symbols_offset", header::SYMBOLS_OFFSET),
        word("header", "data_offset", header::DATA_OFFSET),
        word("header", "symbol_stride", header::SYMBOL_STRIDE),
        word("header", "data_stride", header::DATA_STRIDE),
        word("header", "column_stride", header::COLUMN_STRIDE),
        (("header", "boot_id"), (8 * header::BOOT_ID, 16)),
        word("header", "pid", header::PID),
        word("header", "pid_start", header::PID_START),
        word("header", "heartbeat_ns", header::HEARTBEAT_NS),
        word("header", "symbol_count", header::SYMBOL_COUNT),
        word("header", "commit_seq", header::COMMIT_SEQ),
        word("header", "close_seq", header::CLOSE_SEQ),
        word("header", "universe_bar", header::UNIVERSE_BAR),
        word("header", "ready", header::READY),
        word("header", "missing", header::MISSING),
        word("header", "holes", header::HOLES),
        word("header", "weight_used", header::WEIGHT_USED),
        word("header", "weight_limit", header::WEIGHT_LIMIT),
        word("header", "banned_until_ms", header::BANNED_UNTIL_MS),
        (("header", "zone"), (8 * header::ZONE, ZONE_NAME_BYTES)),
        word("header", "exchange_offset_ms", header::EXCHANGE_OFFSET_MS),
        (("header", "exchange"), (8 * header::EXCHANGE, EXCHANGE_BYTES)),
        word("header", "failing", header::FAILING),
        word("header", "polled", header::POLLED),
        word("header", "last_error", header::LAST_ERROR),
        word("header", "last_error_ms", header::LAST_ERROR_MS),
        word("header", "price", header::PRICE),
        word("header", "replay_ms", header::REPLAY_MS),
        word("symbol", "version", symbol::VERSION),
        word("symbol", "last_close", symbol::LAST_CLOSE),
        word("symbol", "rev", symbol::REV),
        word("symbol", "wmark", symbol::WMARK),
        word("symbol", "first_bar", symbol::FIRST_BAR),
        word("symbol", "phase_days", symbol::PHASE_DAYS),
        word("symbol", "trading", symbol::TRADING),
        word("symbol", "calendar", symbol::CALENDAR),
        (("symbol", "latches"), (8 * symbol::SLOTS, 4 * 8 * symbol::SLOT_WORDS)),
        (("symbol", "name"), (8 * symbol::NAME, layout::SYMBOL_NAME_BYTES)),
        word("latch", "head", slot::HEAD),
        half("latch", "solid", slot::SOLID_FINAL, 0),
        half("latch", "final", slot::SOLID_FINAL, 1),
        half("latch", "state", slot::STATE_REVISION, 0),
        half("latch", "revision", slot::STATE_REVISION, 1),
        word("latch", "received_ms", slot::RECEIVED_MS),
        (("latch", "row"), (8 * slot::ROW, 8 * layout::ROW_WORDS)),
        (("tag", "state"), (0, 1)),
        (("tag", "version"), (1, 3)),
        (("tag", "bar"), (4, 4)),
        (("data", "tags"), (0, 8 * capacity)),
        (("data", "column"), (8 * capacity, 8 * 2 * capacity)),
    ]);
    assert_eq!(documented, coded);
    assert!(
        cells("layout-table")
            .iter()
            .all(|row| row[0] != "header" || row[1].parse::<usize>().is_ok_and(|at| at < layout::PAGE_BYTES))
    );

    let tag = Tag::new(0x1234_5678, 0xABC_DEF0, RowState::Closed);
    assert_eq!(tag.0.to_le_bytes(), [2, 0xF0, 0xDE, 0xBC, 0x78, 0x56, 0x34, 0x12]);
}

#[test]
fn columns_lie_where_the_document_says() {
    for length in [2, 9, 2_880, 100_000] {
        let ring = Geometry::new(Market::Spot, Interval::Minute1, length, 1).expect("within the limits").ring;
        let capacity = ring.capacity;
        assert!(capacity >= length + 64 && capacity < length + 72 && capacity.is_multiple_of(8));
        let table = cells("layout-table");
        let column = table.iter().find(|row| row[4] == "column").expect("the table has it");
        for index in 0..COLUMNS {
            let offset = evaluate(column[1], capacity, index);
            assert_eq!(offset, 8 * (capacity + index * ring.column_stride_words()));
        }
        assert_eq!(evaluate(column[1], capacity, COLUMNS), 8 * ring.data_words());
    }
    let names = NAMES.join(", ");
    assert!(DOCUMENT.replace('\n', " ").contains(&format!("Column `k` is one of {names}, in this order.")));
}

#[test]
fn codes_mean_what_the_document_says() {
    let documented: Vec<(&str, u64, &str)> =
        cells("code-table").iter().map(|row| (row[0], row[1].parse().expect("a number"), row[2])).collect();
    let mut coded: Vec<(&str, u64, &str)> = Vec::new();
    for code in 0..=u64::from(u8::MAX) {
        coded.extend(BlockState::from_word(code).map(|state| ("state", code, state.as_str())));
    }
    for code in 0..=u64::from(u8::MAX) {
        coded.extend(layout::market_of_code(code).map(|market| ("market", code, market.as_str())));
    }
    for code in 0..=u64::from(u8::MAX) {
        coded.extend(Price::from_code(code).map(|price| ("price", code, price.as_str())));
    }
    for code in 0..=u32::from(u8::MAX) {
        coded.extend(Interval::from_code(code).map(|interval| ("interval", code.into(), interval.as_str())));
    }
    coded.push(("interval", layout::ZONE_DAY_CODE.into(), "1d@zone"));
    coded.extend([
        ("row", RowState::Empty as u64, "empty"),
        ("row", RowState::Live as u64, "live"),
        ("row", RowState::Closed as u64, "closed"),
        ("row", RowState::Verified as u64, "verified"),
        ("row", RowState::Hole as u64, "hole"),
        ("row", RowState::Missing as u64, "missing"),
        ("row", RowState::MissingFinal as u64, "missing_final"),
    ]);
    assert_eq!(documented, coded);
    for state in (0..=u64::from(u8::MAX)).map(|code| (code, Tag(code).state())) {
        let known = coded.iter().any(|&(kind, code, _)| kind == "row" && code == state.0);
        assert_eq!(state.1 as u64, if known { state.0 } else { RowState::Missing as u64 });
    }
}

#[test]
fn days_of_a_time_zone_name_it() {
    let zone = Zone::find("Asia/Shanghai");
    let geometry = Geometry::new(Market::Spot, Interval::Day1, 9, 1).expect("within the limits").with_zone(zone);
    let words: Vec<AtomicU64> = (0..geometry.block_bytes() / 8).map(|_| AtomicU64::new(0)).collect();
    geometry.store(&words);
    assert_eq!(words[header::INTERVAL].load(Relaxed), u64::from(layout::ZONE_DAY_CODE));
    let name: Vec<u8> = (0..2).flat_map(|word| words[header::ZONE + word].load(Relaxed).to_le_bytes()).collect();
    assert_eq!(name, *b"Asia/Shanghai\0\0\0");
    assert_eq!(Geometry::load("x", &words), Ok(geometry));
    assert_eq!(geometry.grid(0), Grid::parse("1d@Asia/Shanghai").expect("a grid"));
    // A reader that knows no time zones, and one that does not know this one, refuse it.
    assert_eq!(Interval::from_code(layout::ZONE_DAY_CODE), None);
    words[header::ZONE].store(u64::from_le_bytes(*b"Asia/Xha"), Relaxed);
    let what = Corruption::Field { field: "time zone", value: u64::from_le_bytes(*b"Asia/Xha") };
    assert_eq!(Geometry::load("x", &words), Err(Error::Corrupt { name: "x".into(), what }));
}

#[test]
fn a_block_of_another_price_is_none_to_older_readers() {
    for market in [Market::Um, Market::Cm] {
        let trade = Geometry::new(market, Interval::Minute1, 9, 1).expect("within the limits");
        for price in Price::ALL {
            let geometry = trade.with_price(price);
            let words: Vec<AtomicU64> = (0..geometry.block_bytes() / 8).map(|_| AtomicU64::new(0)).collect();
            geometry.store(&words);
            assert_eq!(words[93].load(Relaxed), u64::from(price.code()));
            assert_eq!(Geometry::load("x", &words), Ok(geometry));
            // An older reader has no other code than these.
            let known = Market::from_code(words[header::MARKET].load(Relaxed));
            assert_eq!(known, (price == Price::Trade).then_some(market));
            // One of the two words alone makes no sense, and neither does an unknown price.
            for damaged in [u64::from(price == Price::Trade), 4] {
                words[header::PRICE].store(damaged, Relaxed);
                assert!(Geometry::load("x", &words).is_err_and(|error| is_about_the_header(&error)));
            }
        }
    }
    let spot = Geometry::new(Market::Spot, Interval::Minute1, 9, 1).expect("within the limits").with_price(Price::Mark);
    let words: Vec<AtomicU64> = (0..spot.block_bytes() / 8).map(|_| AtomicU64::new(0)).collect();
    spot.store(&words);
    assert!(Geometry::load("x", &words).is_err(), "spot has no other price");
}

/// A block of one symbol with two closed candles, a missing one between them, and a live one.
fn small_block(scratch: &Scratch) -> Vec<u8> {
    let open_ms = 1_735_689_600_000_i64;
    let row = |index: i64, close: f64| -> Row {
        let open_ms = open_ms + 60_000 * index;
        [open_ms as f64, 1.0, 2.0, 0.5, close, 10.0, (open_ms + 59_999) as f64, 15.0, 3.0, 5.0, 7.5, 0.0]
    };
    let window = RequestWindow {
        sent_ms: open_ms + 190_000,
        received_ms: open_ms + 190_000,
        settle_ms: 1_000,
        limit: 3,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    };
    let mut writer = Writer::open(scratch.name(), &config(3, &["BTCUSDT"]), owner()).expect("a new block");
    writer.ingest(0, &[row(0, 1.25), row(2, 1.5), row(3, 1.75)], &window, 77);
    writer.set_exchange_offset(open_ms - 1_000);
    std::fs::read(scratch.path()).expect("the block can be read")
}

#[test]
fn a_small_block_has_these_bytes() {
    let scratch = Scratch::new("golden");
    let bytes = small_block(&scratch);
    let golden = include_str!("format/small_block.txt");
    let mut covered = 0;
    for line in golden.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (offset, rest) = line.split_once(": ").expect("offset: bytes");
        let offset = usize::from_str_radix(offset, 16).expect("a hexadecimal offset");
        let hex = rest.split_once("  ").map_or(rest, |(hex, _)| hex);
        let wanted: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("bytes")).collect();
        assert_eq!(bytes[offset..offset + wanted.len()], wanted, "{line}");
        covered += wanted.len();
    }
    assert!(covered >= 8 * 60, "{covered} bytes compared");
}

/// Header words that the geometry is read from, and the two that identify the format.
const GEOMETRY: [usize; 19] = [
    header::MAGIC,
    header::ABI,
    header::LAYOUT_HASH,
    header::LAYOUT_HASH + 1,
    header::LAYOUT_HASH + 2,
    header::LAYOUT_HASH + 3,
    header::BLOCK_BYTES,
    header::MARKET,
    header::PRICE,
    header::INTERVAL,
    header::LENGTH,
    header::CAPACITY,
    header::SYMBOL_CAPACITY,
    header::SYMBOLS_OFFSET,
    header::DATA_OFFSET,
    header::SYMBOL_STRIDE,
    header::DATA_STRIDE,
    header::COLUMN_STRIDE,
    header::SYMBOL_COUNT,
];

fn random() -> TestRng {
    TestRng::deterministic_rng(RngAlgorithm::ChaCha)
}

/// A number as damage makes them: anything, or near something that means something.
fn damaged(random: &mut TestRng, was: u64) -> u64 {
    match random.next_u64() % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => random.next_u64(),
        3 => random.next_u64() % 200,
        4 => was ^ 1 << (random.next_u64() % 64),
        5 => was.wrapping_add(1),
        6 => was.wrapping_sub(1),
        _ => was.wrapping_mul(2),
    }
}

fn is_about_the_header(error: &Error) -> bool {
    matches!(error, Error::Incompatible { .. } | Error::Corrupt { .. })
}

#[test]
fn damaged_headers_are_refused_or_fit() {
    let scratch = Scratch::new("headers");
    let whole: Vec<u64> = layout::words_of(&small_block(&scratch)).collect();
    let words: Vec<AtomicU64> = whole.iter().copied().map(AtomicU64::new).collect();
    let mut random = random();
    let (mut refused, mut fitting) = (0, 0);
    for _ in 0..100_000 {
        let fields: Vec<usize> =
            (0..=random.next_u64() % 4).map(|_| GEOMETRY[random.next_u64() as usize % GEOMETRY.len()]).collect();
        for &field in &fields {
            words[field].store(damaged(&mut random, whole[field]), Relaxed);
        }
        match Geometry::load("x", &words) {
            Ok(geometry) => {
                assert_eq!(geometry.block_bytes(), 8 * words.len());
                assert!(words[header::SYMBOL_COUNT].load(Relaxed) <= geometry.symbol_capacity as u64);
                fitting += 1;
            }
            Err(error) => {
                assert!(is_about_the_header(&error), "{error:?}");
                refused += 1;
            }
        }
        for &field in &fields {
            words[field].store(whole[field], Relaxed);
        }
    }
    assert!(refused > 50_000 && fitting > 100, "{refused} refused, {fitting} fitting");
}

#[test]
fn files_with_one_wrong_field_are_refused() {
    let scratch = Scratch::new("fields");
    let whole = small_block(&scratch);
    let mut random = random();
    for field in GEOMETRY {
        let was = u64::from_le_bytes(whole[8 * field..8 * field + 8].try_into().expect("eight bytes"));
        for value in [0, u64::MAX, random.next_u64()].into_iter().filter(|&value| value != was) {
            let mut bytes = whole.clone();
            bytes[8 * field..8 * field + 8].copy_from_slice(&value.to_le_bytes());
            std::fs::write(scratch.path(), &bytes).expect("/dev/shm can be written");
            match Block::open(scratch.name(), BOOT_ID) {
                // No symbols yet: the one number of these that may be smaller.
                Ok(block) => assert_eq!((field, value, block.symbol_count()), (header::SYMBOL_COUNT, 0, 0)),
                Err(error) => assert!(is_about_the_header(&error), "word {field}, {was} -> {value}: {error:?}"),
            }
        }
    }
    for state in [0, BlockState::Init as u64, 5, u64::MAX] {
        let mut bytes = whole.clone();
        bytes[8 * header::STATE..8 * header::STATE + 8].copy_from_slice(&state.to_le_bytes());
        std::fs::write(scratch.path(), &bytes).expect("/dev/shm can be written");
        let error = Block::open(scratch.name(), BOOT_ID).err();
        assert_eq!(error, Some(Error::NotReady { name: scratch.name().into() }), "state {state}");
    }
    for bytes in [0, 8, layout::PAGE_BYTES - 8, layout::PAGE_BYTES, whole.len() - layout::PAGE_BYTES, whole.len() - 3] {
        std::fs::write(scratch.path(), &whole[..bytes]).expect("/dev/shm can be written");
        // An empty file has no magic: nothing shows that it was ever a block.
        let what = if bytes == 0 { Corruption::Foreign } else { Corruption::Truncated { bytes } };
        let error = Block::open(scratch.name(), BOOT_ID).err();
        assert_eq!(error, Some(Error::Corrupt { name: scratch.name().into(), what }));
    }
    std::fs::write(scratch.path(), [&whole[..], &[0; 4096]].concat()).expect("/dev/shm can be written");
    assert!(matches!(Block::open(scratch.name(), BOOT_ID), Err(Error::Corrupt { .. })), "longer than it says");
}

/// Whatever lies behind a sound header, readers stay inside the block.
#[test]
fn readers_survive_any_contents() {
    let scratch = Scratch::new("contents");
    let whole = small_block(&scratch);
    let mut random = random();
    for round in 0..300 {
        let mut bytes = whole.clone();
        for word in bytes[layout::PAGE_BYTES..].as_chunks_mut::<8>().0 {
            if round % 3 == 0 || random.next_u64().is_multiple_of(8) {
                *word = damaged(&mut random, u64::from_le_bytes(*word)).to_le_bytes();
            }
        }
        std::fs::write(scratch.path(), &bytes).expect("/dev/shm can be written");
        let block = Block::open(scratch.name(), BOOT_ID).expect("the header is sound");
        let _ = (block.symbol(0), block.grid(0), block.is_trading(0));
        let reader = SeriesReader::new(&block, 0);
        let mut row = [0.0; COLUMNS];
        let _ = (reader.newest(&mut row), reader.gaps(), reader.newest_settled(), reader.is_settled(u64::MAX));
        for (closed_only, states) in [(false, false), (true, false), (false, true)] {
            let mut columns = [0.0; 2 * COLUMNS];
            let _ = reader.copy(&Selection { count: 2, closed_only, states }, &mut columns, &mut Snapshot::default());
        }
        if let Ok(view) = reader.view(2) {
            let _ = (reader.column(&view, COLUMNS - 1).len(), reader.is_valid(&view));
        }
    }
}
