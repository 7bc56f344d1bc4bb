//! What was known when: series of any interval aligned to given moments, without looking ahead.

use crate::columns::{COLUMNS, OPEN_TIME_MS};
use crate::error::Error;
use crate::interval::Grid;
use crate::read::SeriesReader;

/// Copies, for every moment, the newest final row that had ended by then: the row of the newest candle whose end
/// is not after the moment. Where the exchange has a hole it is the row before. NaN where nothing older is in the
/// window. Column `k` of the list for moment `i` lands in `out[k * moments + i]`.
///
/// # Errors
///
/// `Contended`.
///
/// # Panics
///
/// When `out` is too short.
pub fn copy(
    reader: SeriesReader<'_>,
    grid: Grid,
    columns: &[usize],
    moments_ms: &[i64],
    out: &mut [f64],
) -> Result<(), Error> {
    let marks = reader.marks()?;
    let start = reader.window_start(&marks);
    let rows = (marks.final_end - start.min(marks.final_end)) as usize;
    // The open times tell which rows are there.
    let mut wanted = [OPEN_TIME_MS; COLUMNS + 1];
    wanted[1..=columns.len()].copy_from_slice(columns);
    let mut values = vec![f64::NAN; (columns.len() + 1) * rows];
    if rows > 0 {
        reader.copy_range(&wanted[..=columns.len()], start, rows, false, &mut values, rows)?;
    }
    // The newest row at or before each candle.
    let known: Vec<Option<usize>> = values[..rows]
        .iter()
        .enumerate()
        .scan(None, |newest, (row, open_ms)| {
            if !open_ms.is_nan() {
                *newest = Some(row);
            }
            Some(*newest)
        })
        .collect();
    for (place, &moment_ms) in moments_ms.iter().enumerate() {
        let ended = grid.index_of(moment_ms) - start as i64;
        let row =
            if ended > 0 { known.get((ended as usize - 1).min(rows.wrapping_sub(1))).copied().flatten() } else { None };
        for column in 0..columns.len() {
            out[column * moments_ms.len() + place] = row.map_or(f64::NAN, |row| values[(column + 1) * rows + row]);
        }
    }
    Ok(())
}
