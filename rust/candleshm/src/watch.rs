//! What changed in a series since the last look, as a stream of klines tells it: the newest row whenever it changes, and
//! each candle once more as final.
//!
//! Candles are told as final in order and once each, whatever happens in between. While one is not final yet, later ones
//! wait for it, and the newest row is told all the same. A hole is passed over; what has left the window is not told any
//! more; a correction of what was told as final is not either.

use crate::columns::{COLUMNS, Row, bits_equal};
use crate::error::Error;
use crate::read::SeriesReader;
use crate::seqlock::Marks;
use crate::wire::text::is_writable;

const ALL_COLUMNS: [usize; COLUMNS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// A row that is news.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Its candle.
    pub candle_index: u64,
    /// Its values.
    pub row: Row,
    /// Whether it is told as final.
    pub is_final: bool,
}

/// What was told of one series.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The publication at the last look; `None`: look in any case.
    version: Option<u64>,
    /// The oldest candle that was not told as final, and is no hole.
    next: Option<u64>,
    /// The newest row that was told, and its candle.
    told: Option<(u64, Row)>,
}

impl Watch {
    /// Begins with the newest row as it is at the first look. Of older candles only the last one is told, if it is not
    /// final by then.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the series in any case the next time: it lies in another block now.
    pub fn look_anew(&mut self) {
        self.version = None;
    }

    /// Hands out what changed, oldest first. Cheap while nothing was published.
    ///
    /// # Errors
    ///
    /// `Contended`: nothing was handed out, and the next look has it.
    #[inline]
    pub fn take(&mut self, reader: &SeriesReader<'_>, tell: impl FnMut(Change)) -> Result<(), Error> {
        let version = reader.version();
        if self.version == Some(version) {
            return Ok(());
        }
        self.look(reader, tell)?;
        self.version = Some(version);
        Ok(())
    }

    fn look(&mut self, reader: &SeriesReader<'_>, mut tell: impl FnMut(Change)) -> Result<(), Error> {
        let mut newest = [f64::NAN; COLUMNS];
        let marks = reader.newest(&mut newest)?;
        if marks.end() == 0 {
            return Ok(());
        }
        let begin = || marks.head - u64::from(marks.head > 0 && !reader.is_settled(marks.head - 1));
        let next = self.next.unwrap_or_else(begin).max(reader.window_start(&marks));
        let next = tell_final(reader, &marks, next, &mut tell)?;
        self.next = Some(next);
        let is_news = self.told.is_none_or(|(candle_index, row)| {
            marks.head > candle_index || marks.head == candle_index && !bits_equal(&row, &newest)
        });
        if marks.has_live() && marks.head >= next && is_news && is_writable(&newest) {
            self.told = Some((marks.head, newest));
            tell(Change { candle_index: marks.head, row: newest, is_final: false });
        }
        Ok(())
    }
}

/// Tells the candles from `next` on that are final, up to the first that is not yet, whose index is returned.
fn tell_final(
    reader: &SeriesReader<'_>,
    marks: &Marks,
    next: u64,
    tell: &mut impl FnMut(Change),
) -> Result<u64, Error> {
    if next >= marks.head {
        return Ok(next);
    }
    let count = (marks.head - next) as usize;
    let mut values = vec![f64::NAN; COLUMNS * count];
    reader.copy_range(&ALL_COLUMNS, next, count, false, &mut values, count)?;
    for place in 0..count {
        let candle_index = next + place as u64;
        let row: Row = std::array::from_fn(|column| values[column * count + place]);
        if is_writable(&row) {
            tell(Change { candle_index, row, is_final: true });
        } else if !reader.is_hole(candle_index) {
            return Ok(candle_index);
        }
    }
    Ok(marks.head)
}
