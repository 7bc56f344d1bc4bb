//! Reading a block in every way, and judging what comes out.

use candleshm::block::Block;
use candleshm::columns::{CLOSE, COLUMNS};
use candleshm::layout::{RowState, header};
use candleshm::panel;
use candleshm::read::{Selection, SeriesReader, Snapshot};
use candleshm::sync::Ordering::Relaxed;

use crate::story::{DELISTED, START_INDEX, row};

/// Fails unless the values are one write of a row of `candle_index`.
fn check_row(candle_index: u64, values: &[f64; COLUMNS]) {
    let minute = candle_index - START_INDEX;
    let version = (values[CLOSE] - minute as f64 - 1.0) * 1024.0;
    assert!((0.0..8.0).contains(&version), "candle {candle_index} holds {values:?}");
    assert_eq!(*values, row(minute, version as u32), "candle {candle_index}");
}

/// Reads everything in every way. Nobody writes meanwhile, so it must also stay as it is.
pub(crate) fn check_reads(block: &Block) {
    for index in 0..block.symbol_count() {
        check_copies(block, index);
        check_view(block, index);
        let mut newest = [0.0; COLUMNS];
        let reader = SeriesReader::new(block, index);
        let marks = reader.newest(&mut newest).expect("nobody writes");
        if marks.head > 0 {
            check_row(if marks.has_live() { marks.head } else { marks.head - 1 }, &newest);
        }
        reader.gaps().expect("nobody writes");
    }
    check_closes(block);
    assert_eq!(shown(block), shown(block));
}

fn check_copies(block: &Block, index: usize) {
    let count = block.geometry().ring.length;
    for (closed_only, states) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut columns, mut snapshot) = (vec![0.0; COLUMNS * count], Snapshot::default());
        let selection = Selection { count, closed_only, states };
        SeriesReader::new(block, index).copy(&selection, &mut columns, &mut snapshot).expect("nobody writes");
        for (slot, state) in snapshot.states.iter().enumerate() {
            assert!(!closed_only || *state != RowState::Live);
            if matches!(state, RowState::Live | RowState::Closed | RowState::Verified) {
                check_row(snapshot.start + slot as u64, &std::array::from_fn(|column| columns[column * count + slot]));
            }
        }
    }
}

fn check_view(block: &Block, index: usize) {
    let reader = SeriesReader::new(block, index);
    let view = reader.view(block.geometry().ring.length).expect("nobody writes");
    for slot in 0..view.count {
        let lent: [f64; COLUMNS] =
            std::array::from_fn(|column| f64::from_bits(reader.column(&view, column)[slot].load(Relaxed)));
        if view.is_present(slot) {
            check_row(view.start + slot as u64, &lent);
        } else {
            assert!(lent.iter().all(|value| value.is_nan()));
        }
    }
    assert!(reader.is_valid(&view));
}

/// What was announced for all symbols holds for each of them.
fn check_closes(block: &Block) {
    let awaited: Vec<usize> = (0..block.symbol_count())
        .filter(|&index| {
            let has_rows = SeriesReader::new(block, index).marks().is_ok_and(|marks| marks.head > 0);
            has_rows && block.is_trading(index)
        })
        .collect();
    let universe_bar = block.value(header::UNIVERSE_BAR);
    for &index in awaited.iter().filter(|_| universe_bar > 0) {
        let reader = SeriesReader::new(block, index);
        // Unless a correction of the row was cut short; or the symbol trades again since then and is not that far.
        let is_corrected = block.series(index).tag(universe_bar).state() == RowState::MissingFinal;
        let is_back = index == DELISTED && reader.marks().is_ok_and(|marks| marks.head <= universe_bar);
        assert!(reader.is_settled(universe_bar) || is_corrected || is_back, "symbol {index}, candle {universe_bar}");
    }
    if let Some(range) = panel::newest(block, &awaited, 4, false).expect("nobody writes") {
        let mut values = vec![0.0; awaited.len() * range.count];
        panel::copy(block, &awaited, &[CLOSE], range, false, &mut values).expect("nobody writes");
        for (place, &index) in awaited.iter().enumerate() {
            let reader = SeriesReader::new(block, index);
            for row in 0..range.count {
                let (candle_index, value) = (range.start + row as u64, values[place * range.count + row]);
                assert!(
                    value.is_nan() || value.floor() as u64 == candle_index - START_INDEX + 1,
                    "candle {candle_index} holds {value}"
                );
            }
            let last = range.start + range.count as u64 - 1;
            assert!(range.count == 0 || reader.is_settled(last), "the panel ends before it is closed");
        }
    }
}

/// Everything that a reader can tell apart, as lines.
pub(crate) fn shown(block: &Block) -> Vec<String> {
    let header = [header::UNIVERSE_BAR, header::READY, header::MISSING, header::HOLES, header::WEIGHT_USED];
    let mut lines = vec![format!("{:?}", header.map(|offset| block.value(offset)))];
    let count = block.geometry().ring.length;
    for index in 0..block.symbol_count() {
        let reader = SeriesReader::new(block, index);
        let (mut columns, mut snapshot) = (vec![0.0; COLUMNS * count], Snapshot::default());
        let selection = Selection { count, closed_only: false, states: true };
        reader.copy(&selection, &mut columns, &mut snapshot).expect("nobody writes");
        let marks = reader.marks().expect("nobody writes");
        let closes: Vec<f64> = (0..snapshot.states.len())
            .map(|slot| if snapshot.states[slot] == RowState::Hole { 0.0 } else { columns[CLOSE * count + slot] })
            .collect();
        lines.push(format!(
            "{} {} head {} final {} final_start {} received {} first {} {:?} {closes:?} {:?} {}",
            block.symbol(index),
            block.is_trading(index),
            marks.head,
            marks.final_end,
            marks.final_start,
            marks.received_ms,
            snapshot.start,
            snapshot.states,
            reader.gaps().expect("nobody writes"),
            reader.last_close(),
        ));
    }
    lines
}
