//! What is sent for a request: the rows of a block that its asker has otherwise, or not at all.

use std::ops::Range;

use crate::block::Block;
use crate::error::Error;
use crate::layout::{RowState, symbol};
use crate::publish::RingRow;
use crate::read::SeriesReader;
use crate::replica::digest::{Digest, buckets_of};
use crate::replica::message::{Query, Update, Wanted};
use crate::seqlock::Marks;
use crate::sync::Ordering::Relaxed;

/// Rows beyond the range of a request that are sent along: they came since it was made.
const BEYOND_MAX: u64 = 64;

/// Reads what is true of a series now, without rows of the ring.
///
/// # Errors
///
/// `Contended`.
pub(crate) fn update_of(block: &Block, index: usize, symbol_name: &str) -> Result<(Update, Marks), Error> {
    let entry = block.entry(index);
    let mut row = [f64::NAN; crate::layout::ROW_WORDS];
    let marks = SeriesReader::new(block, index).newest(&mut row)?;
    let is_row = marks.head > 0 && matches!(marks.state, RowState::Live | RowState::Closed | RowState::Verified);
    let update = Update {
        symbol: symbol_name.to_owned(),
        phase_days: entry[symbol::PHASE_DAYS].load(Relaxed) % 3,
        first_bar: entry[symbol::FIRST_BAR].load(Relaxed),
        presence: entry[symbol::TRADING].load(Relaxed).min(2),
        calendar: entry[symbol::CALENDAR].load(Relaxed),
        head: marks.head,
        revision: marks.revision,
        received_ms: marks.received_ms,
        newest: is_row.then_some((marks.state, row)),
        rows: Vec::new(),
        has_more: false,
        differs: false,
    };
    Ok((update, marks))
}

/// Reads what is wanted of a series.
///
/// # Errors
///
/// `Contended`.
pub(crate) fn answer(block: &Block, index: usize, wanted: &Wanted) -> Result<Update, Error> {
    let (mut update, marks) = update_of(block, index, &wanted.symbol)?;
    let window = SeriesReader::new(block, index).window_start(&marks)..marks.head;
    let within = |range: &Range<u64>| range.start.max(window.start)..range.end.min(window.end);
    let mut digest = Digest::default();
    let mut rows: Vec<RingRow> = Vec::new();
    let mut keep = |candle_index, state, row| rows.push(RingRow { candle_index, row, state });
    let range = match wanted.query {
        Query::Newest => return Ok(update),
        Query::Digest(_) => within(&wanted.range),
        Query::All | Query::Buckets(_) => {
            within(&(wanted.range.start..wanted.range.end.max(window.end.min(wanted.range.end + BEYOND_MAX))))
        }
    };
    if range.is_empty() {
        return Ok(update);
    }
    digest.look(block.series(index), range.clone(), range.start, &mut keep);
    match &wanted.query {
        Query::Digest(sum) => {
            update.differs = digest.sum_of(range) != *sum;
            update.newest = None;
        }
        Query::Buckets(sums) => {
            let differing: Vec<Range<u64>> = buckets_of(&wanted.range)
                .zip(sums)
                .filter(|(bucket, sum)| digest.sum_of(within(bucket)) != **sum)
                .map(|(bucket, _)| bucket)
                .collect();
            rows.retain(|row| {
                let at = differing.partition_point(|bucket| bucket.end <= row.candle_index);
                row.candle_index >= wanted.range.end
                    || differing.get(at).is_some_and(|bucket| bucket.start <= row.candle_index)
            });
            update.rows = rows;
        }
        Query::All | Query::Newest => update.rows = rows,
    }
    Ok(update)
}
