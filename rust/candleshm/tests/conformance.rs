//! The recorded blocks of `tests/conformance` as this crate reads them, against the JSON that all readers share.

mod scratch;

use std::path::PathBuf;

use candleshm::block::Block;
use candleshm::columns::{COLUMNS, OPEN_TIME_MS, Row};
use candleshm::error::Error;
use candleshm::layout::{BlockState, PAGE_BYTES, RowState, SYMBOL_BYTES, header, symbol};
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::seqlock;
use candleshm::soundness::is_sound;
use candleshm::sync::Ordering::Relaxed;
use candleshm::writer::Writer;
use serde_json::{Value, json};

use scratch::{BOOT_ID, Scratch, config, owner};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance").join(name)
}

fn size_of(value: &Value) -> usize {
    value.as_u64().expect("a size") as usize
}

/// The block of a case: a recorded one with other bytes in it.
fn image_of(case: &Value) -> Vec<u8> {
    let block = case["block"].as_str().expect("the name of a block");
    let mut image = std::fs::read(folder("blocks").join(block)).expect("the block was recorded");
    image.resize(size_of(&case["size"]), 0);
    for patch in case["patches"].as_array().expect("patches") {
        let bytes = data_encoding::HEXLOWER.decode(patch[1].as_str().expect("digits").as_bytes()).expect("digits");
        let at = size_of(&patch[0]);
        image[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    image
}

/// NaN is null, which is what JSON has for it.
fn row_of(row: &[f64]) -> Value {
    json!(row.iter().map(|&value| number_of(value)).collect::<Vec<_>>())
}

fn number_of(value: f64) -> Value {
    if value.is_nan() { Value::Null } else { json!(value) }
}

fn is_row(state: RowState) -> bool {
    matches!(state, RowState::Live | RowState::Closed | RowState::Verified)
}

fn outcome_of(error: &Error) -> &'static str {
    match error {
        Error::NotFound { .. } | Error::NotReady { .. } | Error::Leftover { .. } => "not_found",
        Error::Incompatible { .. } => "incompatible",
        Error::Corrupt { .. } => "corrupt",
        other => panic!("not an error of opening: {other:?}"),
    }
}

/// A copy of all slots: with the tags of every row where states are wanted, else the fast way where that is allowed.
fn slots_of(reader: SeriesReader<'_>, block: &Block, index: usize, closed_only: bool, states: bool) -> Value {
    let length = block.geometry().ring.length;
    let mut columns = vec![f64::NAN; COLUMNS * length];
    let mut snapshot = Snapshot::default();
    reader.copy(&Selection { count: length, closed_only, states }, &mut columns, &mut snapshot).expect("no writer");
    let grid = block.grid(index);
    let row = |slot: usize| (0..COLUMNS).map(|column| columns[column * length + slot]).collect::<Vec<_>>();
    let rows = snapshot.states.iter().enumerate().map(
        |(slot, &state)| {
            if is_row(state) { row_of(&row(slot)) } else { Value::Null }
        },
    );
    let states_of = |state: RowState| if !states && is_row(state) { 0 } else { state as u8 };
    json!({
        "start": snapshot.start,
        "open_times_ms": snapshot.states.iter().enumerate().map(|(slot, &state)| {
            if is_row(state) { row(slot)[OPEN_TIME_MS] as i64 } else { grid.open_ms((snapshot.start + slot as u64) as i64) }
        }).collect::<Vec<_>>(),
        "states": snapshot.states.iter().map(|&state| states_of(state)).collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn view_of(reader: SeriesReader<'_>, length: usize) -> Value {
    let view = reader.view(length).expect("no writer");
    let row = |row: usize| -> Row {
        std::array::from_fn(|column| f64::from_bits(reader.column(&view, column)[row].load(Relaxed)))
    };
    let rows: Vec<Value> =
        (0..view.count).map(|at| if view.is_present(at) { row_of(&row(at)) } else { Value::Null }).collect();
    let valid = reader.is_valid(&view);
    json!({
        "start": view.start,
        "count": view.count,
        "complete": view.is_complete(),
        "valid": valid,
        "rows": if valid { json!(rows) } else { Value::Null },
    })
}

fn series_of(block: &Block, index: usize) -> Value {
    let reader = SeriesReader::new(block, index);
    let entry = block.entry(index);
    let grid = block.grid(index);
    let mut newest = [0.0; COLUMNS];
    let marks = reader.newest(&mut newest).expect("no writer");
    let there_is_one = marks.head > 0 && is_row(marks.state);
    let gaps = reader.gaps().expect("no writer");
    let candles = slots_of(reader, block, index, false, true);
    // The fast way gives the same rows, and does not tell closed from verified.
    let fast = slots_of(reader, block, index, false, false);
    assert_eq!((&fast["rows"], &fast["start"]), (&candles["rows"], &candles["start"]), "{}", block.symbol(index));
    json!({
        "symbol": block.symbol(index),
        "first_bar": entry[symbol::FIRST_BAR].load(Relaxed),
        "phase_days": entry[symbol::PHASE_DAYS].load(Relaxed),
        "trading": entry[symbol::TRADING].load(Relaxed),
        "last_close": number_of(seqlock::last_close(entry)),
        "head": marks.head,
        "final": marks.final_end,
        "revision": marks.revision,
        "newest": {
            "state": if there_is_one { marks.state as u8 } else { 0 },
            "row": if there_is_one { row_of(&newest) } else { Value::Null },
        },
        "candles": candles,
        "closed_only": slots_of(reader, block, index, true, true),
        "view": view_of(reader, block.geometry().ring.length),
        "gaps": gaps.iter().map(|gap| json!([gap.start, gap.end, u8::from(gap.hole)])).collect::<Vec<_>>(),
        "gap_times_ms": gaps
            .iter()
            .map(|gap| json!([grid.open_ms(gap.start as i64), grid.open_ms(gap.end as i64), u8::from(gap.hole)]))
            .collect::<Vec<_>>(),
        "newest_settled": reader.newest_settled().unwrap_or(0),
    })
}

fn reading_of(name: &str) -> Value {
    let block = match Block::open(name, BOOT_ID) {
        Ok(block) => block,
        Err(error) => return json!({ "open": outcome_of(&error) }),
    };
    json!({
        "open": "ok",
        "minor": block.value(header::ABI) >> 32,
        "state": block.state().map(BlockState::as_str),
        "market": block.geometry().market.as_str(),
        "price": block.geometry().price.as_str(),
        "interval": block.geometry().grid(0).name(),
        "exchange": block.exchange(),
        "generation": block.value(header::GENERATION),
        "length": block.geometry().ring.length,
        "ready": block.announced(header::READY),
        "missing": block.value(header::MISSING),
        "holes": block.value(header::HOLES),
        "universe_bar": block.announced(header::UNIVERSE_BAR),
        "weight_used": block.value(header::WEIGHT_USED),
        "weight_limit": block.value(header::WEIGHT_LIMIT),
        "banned_until_ms": block.value(header::BANNED_UNTIL_MS),
        "series": (0..block.symbol_count()).map(|index| series_of(&block, index)).collect::<Vec<_>>(),
    })
}

/// Compares what was read with what is expected; what the crate does not judge, as ages, is left out of a reading.
fn compare(path: &str, expected: &Value, got: &Value) {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            for (key, value) in got {
                let wanted = expected.get(key).unwrap_or_else(|| panic!("{path}: `{key}` is not expected"));
                compare(&format!("{path}.{key}"), wanted, value);
            }
        }
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
            for (index, (expected, got)) in expected.iter().zip(got).enumerate() {
                compare(&format!("{path}[{index}]"), expected, got);
            }
        }
        (Value::Number(expected), Value::Number(got)) if expected.is_f64() || got.is_f64() => {
            assert_eq!(expected.as_f64().map(f64::to_bits), got.as_f64().map(f64::to_bits), "{path}");
        }
        _ => assert_eq!(expected, got, "{path}"),
    }
}

#[test]
fn recorded_blocks_are_read_as_expected() {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder("cases"))
        .expect("the cases are there")
        .map(|entry| entry.expect("the cases can be listed").path())
        .collect();
    names.sort();
    assert!(names.len() > 50, "{} cases", names.len());
    for path in names {
        let case: Value = serde_json::from_slice(&std::fs::read(&path).expect("a case")).expect("JSON");
        let scratch = Scratch::new("conformance");
        std::fs::write(scratch.path(), image_of(&case)).expect("/dev/shm can be written");
        let got = reading_of(scratch.name());
        assert_eq!(case["reading"]["open"], got["open"], "{}", path.display());
        compare(&path.file_stem().expect("a name").to_string_lossy(), &case["reading"], &got);
    }
}

/// What a writer may have left, a writer may go on with: the recorded blocks are no inventions.
#[test]
fn recorded_blocks_are_sound() {
    for block in
        ["rows", "gaps", "provisional", "cut", "minor-0", "minor-1", "minor-2", "minor-3", "minor-4", "days-3d"]
    {
        let scratch = Scratch::new("conformance-sound");
        std::fs::copy(folder("blocks").join(format!("{block}.block")), scratch.path()).expect("the block was recorded");
        assert!(is_sound(&Block::open(scratch.name(), BOOT_ID).expect("a sound header")), "{block}");
    }
}

/// A writer that takes a recorded block over counts the same gaps, finds the same marks, and so changes nothing behind
/// the header.
#[test]
fn recorded_blocks_are_as_a_writer_leaves_them() {
    for name in ["rows", "gaps", "provisional"] {
        let scratch = Scratch::new("conformance-taken");
        let before = std::fs::read(folder("blocks").join(format!("{name}.block"))).expect("the block was recorded");
        std::fs::write(scratch.path(), &before).expect("/dev/shm can be written");
        let symbols: Vec<String> = {
            let block = Block::open(scratch.name(), BOOT_ID).expect("a sound block");
            (0..block.symbol_count()).map(|index| block.symbol(index)).collect()
        };
        let wanted = config(8, &symbols.iter().map(String::as_str).collect::<Vec<_>>());
        let writer = Writer::open(scratch.name(), &wanted, owner()).expect("nobody owns it");
        assert!(writer.is_taken_over(), "{name}");
        let mut after = std::fs::read(scratch.path()).expect("the block can be read");
        for word in [header::MISSING, header::HOLES] {
            assert_eq!(after[8 * word..8 * word + 8], before[8 * word..8 * word + 8], "{name}, word {word}");
        }
        // Whether a symbol trades is for the new owner to find out.
        for index in 0..symbols.len() {
            let at = PAGE_BYTES + index * SYMBOL_BYTES + 8 * symbol::TRADING;
            after[at..at + 8].copy_from_slice(&before[at..at + 8]);
        }
        let changed = (PAGE_BYTES..before.len()).find(|&at| after[at] != before[at]);
        assert_eq!(changed, None, "{name}: the first byte that the writer changed");
    }
}
