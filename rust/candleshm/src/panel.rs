//! Several series side by side, aligned on open time. Slots are addressed by time, so alignment is the same slot in
//! every ring and costs nothing.

use crate::block::Block;
use crate::error::Error;
use crate::read::SeriesReader;

/// Where a panel lies in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PanelRange {
    /// Bar of the first row.
    pub start: u64,
    /// Rows.
    pub count: usize,
}

/// Returns the newest `count` slots up to the newest candle that every trading one of the series has final (every
/// one, when none trades); with `live` up to the newest candle that any of them has. `None` while there is no
/// such candle.
///
/// # Errors
///
/// `Contended`.
pub fn newest(block: &Block, indices: &[usize], count: usize, live: bool) -> Result<Option<PanelRange>, Error> {
    let any_trades = indices.iter().any(|&index| block.is_trading(index));
    let counts = |index: usize| live || !any_trades || block.is_trading(index);
    let mut end: Option<u64> = None;
    let mut final_start = 0;
    for &index in indices {
        let marks = SeriesReader::new(block, index).marks()?;
        if marks.head == 0 || !counts(index) {
            continue;
        }
        final_start = final_start.max(marks.final_start);
        end = Some(match end {
            None => {
                if live {
                    marks.end()
                } else {
                    marks.final_end
                }
            }
            Some(end) if live => end.max(marks.end()),
            Some(end) => end.min(marks.final_end),
        });
    }
    let Some(mut end) = end else { return Ok(None) };
    // With every series final on both sides of `end - 1` there is nothing to look for.
    if !live && final_start >= end {
        // Below `final_end` a row may still be missing: then the panel ends before it.
        let oldest = end.saturating_sub(block.geometry().ring.length as u64);
        let settled = |candle_index: u64| {
            indices.iter().all(|&index| {
                let reader = SeriesReader::new(block, index);
                !counts(index) || reader.marks().is_ok_and(|marks| marks.head == 0) || reader.is_settled(candle_index)
            })
        };
        while end > oldest && !settled(end - 1) {
            end -= 1;
        }
    }
    let count = count.min(block.geometry().ring.length).min(end as usize);
    Ok(Some(PanelRange { start: end - count as u64, count }))
}

/// Copies the rows of a panel, NaN where a series has none. Field `f` of series `s` at row `i` lands in
/// `out[(f * series + s) * rows + i]`.
///
/// # Errors
///
/// `Contended`.
///
/// # Panics
///
/// When `out` is too short.
pub fn copy(
    block: &Block,
    indices: &[usize],
    columns: &[usize],
    range: PanelRange,
    live: bool,
    out: &mut [f64],
) -> Result<(), Error> {
    let field_stride = indices.len() * range.count;
    for (place, &index) in indices.iter().enumerate() {
        let from = place * range.count;
        SeriesReader::new(block, index).copy_range(
            columns,
            range.start,
            range.count,
            live,
            &mut out[from..],
            field_stride,
        )?;
    }
    Ok(())
}

/// Copies the newest value of one column of every series, NaN while a series is empty.
///
/// # Errors
///
/// `Contended`.
pub fn last(block: &Block, indices: &[usize], column: usize, out: &mut [f64]) -> Result<(), Error> {
    for (value, &index) in out.iter_mut().zip(indices) {
        let reader = SeriesReader::new(block, index);
        *value = if column == crate::columns::CLOSE {
            reader.last_close()
        } else {
            let mut row = [f64::NAN; crate::layout::ROW_WORDS];
            reader.newest(&mut row)?;
            row[column]
        };
    }
    Ok(())
}
