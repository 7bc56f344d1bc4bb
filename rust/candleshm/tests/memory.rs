//! A writer and a reader of one series in the memory of one process: what Miri can run, which knows no shared memory.
//! `MIRIFLAGS=-Zmiri-many-seeds=0..16 cargo +nightly miri test -p candleshm --test memory`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use candleshm::columns::{CLOSE, COLUMNS};
use candleshm::layout::{RingShape, RowState, SYMBOL_BYTES};
use candleshm::publish::{RingRow, SeriesState, SeriesWriter};
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::ring::SeriesWords;

const RING: RingShape = RingShape { length: 4, capacity: 8 };
const FIRST: u64 = 100;
const ROUNDS: u64 = if cfg!(miri) { 12 } else { 500_000 };

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// A row with one value in all columns: its candle, and behind the point the version of the write.
fn row(candle_index: u64, version: u64) -> [f64; COLUMNS] {
    [candle_index as f64 + version as f64 / 16.0; COLUMNS]
}

fn ring_row(candle_index: u64, version: u64, state: RowState) -> RingRow {
    RingRow { candle_index, row: row(candle_index, version), state }
}

/// Live rows, closes, provisional rows that are closed both ways, corrections, skipped rows that are filled.
fn write(words: SeriesWords<'_>) {
    let mut state = SeriesState::empty();
    for head in FIRST..FIRST + ROUNDS {
        let mut writer = SeriesWriter::new(words, &mut state);
        let closed = [ring_row(head - 1, 0, if head % 3 == 0 { RowState::Live } else { RowState::Closed })];
        writer.advance(head, if head % 5 == 0 { &[] } else { &closed }, Some(&row(head, 1)));
        writer.publish();
        for version in 2..4 {
            writer.set_live(&row(head, version));
            writer.publish();
        }
        if head % 5 == 0 {
            writer.rewrite(&[ring_row(head - 1, 5, RowState::Closed)], 0);
        } else if head % 6 == 0 {
            writer.rewrite(&[ring_row(head - 1, 6, RowState::Closed)], 0);
        } else if head % 3 == 0 {
            writer.close(head - 1);
        }
        writer.publish();
        if head > FIRST + 2 && head % 2 == 0 {
            writer.rewrite(&[ring_row(head - 2, 7, RowState::Closed)], 1);
            writer.publish();
        }
        writer.verify(head - 1);
    }
}

fn judge(row: [f64; COLUMNS], candle_index: u64) {
    assert!(row.iter().all(|value| value.to_bits() == row[0].to_bits()), "torn: {row:?}");
    assert_eq!(row[CLOSE].floor() as u64, candle_index, "of another candle");
}

fn read(reader: SeriesReader<'_>) {
    let mut columns = [0.0; COLUMNS * RING.length];
    let mut snapshot = Snapshot::default();
    for states in [false, true] {
        let selection = Selection { count: RING.length, closed_only: false, states };
        reader.copy(&selection, &mut columns, &mut snapshot).expect("the writer is not that fast");
        for (slot, state) in snapshot.states.iter().enumerate() {
            if matches!(state, RowState::Live | RowState::Closed | RowState::Verified) {
                let row = std::array::from_fn(|column| columns[column * RING.length + slot]);
                judge(row, snapshot.start + slot as u64);
            }
        }
    }
    let view = reader.view(RING.length).expect("the writer is not that fast");
    let rows: Vec<[f64; COLUMNS]> = (0..view.count)
        .map(|at| {
            std::array::from_fn(|column| f64::from_bits(reader.column(&view, column)[at].load(Ordering::Relaxed)))
        })
        .collect();
    if reader.is_valid(&view) {
        for (at, row) in rows.into_iter().enumerate().filter(|&(at, _)| view.is_present(at)) {
            judge(row, view.start + at as u64);
        }
    }
    let mut newest = [0.0; COLUMNS];
    let marks = reader.newest(&mut newest).expect("the writer is not that fast");
    if marks.head > 0 {
        judge(newest, marks.end() - 1);
    }
}

#[test]
fn rows_read_beside_a_writer_are_whole() {
    let (entry, data) = (words(SYMBOL_BYTES / 8), words(RING.data_words()));
    let words = SeriesWords { entry: &entry, data: &data, ring: RING };
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            write(words);
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            read(SeriesReader::of(words));
        }
    });
    read(SeriesReader::of(words));
}
