//! The bytes of an archive's CSV file to rows.
//!
//! The exchange keeps its history as CSV, a line for each kline, in the column order of a klines response. Files differ
//! in three ways: some begin with a header, lines end in LF or CRLF, and SPOT counts times in microseconds from 2025
//! on. Rows come out as REST would send them: every value has the bits of Python's `float(text)`, times are
//! milliseconds.
//!
//! A header has to be the known one, in the known order: its names are not used (COIN-M's has `quote_volume` above the
//! base volume), but another one would mean that the columns moved.

use std::error::Error;
use std::fmt;

use crate::columns::{CLOSE_TIME_MS, COLUMNS, IGNORE, NAMES, OPEN_TIME_MS, Row};
use crate::wire::parse::{DIGITS_MAX, digits, number, plain_decimal};

/// The first line of the files that have one.
pub const HEADER: &str =
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore";

/// Times above it are microseconds: as milliseconds they would lie beyond the year 5138. A candle that ends at
/// ...999999 us ends at ...999 ms, as the exchange itself cuts it.
pub const MILLISECONDS_MAX: u64 = 100_000_000_000_000;

/// Where and why a file is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsvError {
    /// Byte of the file at which it goes wrong.
    pub offset: usize,
    /// Its line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub kind: CsvErrorKind,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsvErrorKind {
    /// The file begins neither with a digit nor with the known header.
    Header,
    /// A line does not have twelve columns.
    Columns {
        /// How many it has, counted up to 13.
        found: usize,
    },
    /// A value is not a number.
    NotANumber {
        /// Its column, from 0.
        column: usize,
    },
}

impl fmt::Display for CsvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            CsvErrorKind::Header => {
                f.write_str("the file begins neither with a number nor with the header of a kline file")?;
            }
            CsvErrorKind::Columns { found } if found > COLUMNS => {
                write!(f, "the line has more than {COLUMNS} columns")?;
            }
            CsvErrorKind::Columns { found } => write!(f, "the line has {found} columns instead of {COLUMNS}")?,
            CsvErrorKind::NotANumber { column } => write!(f, "{} is not a number", NAMES[column])?,
        }
        write!(f, ", in line {} at byte {}", self.line, self.offset)
    }
}

impl Error for CsvError {}

/// Parses a file and appends its rows, in the order of the file.
///
/// Numbers are what the strings of a klines response may hold, see [`parse`](crate::wire::parse::parse). The last line
/// may end without a line feed. The `ignore` column must be a number and is stored as 0.
///
/// # Errors
///
/// The first fault of a malformed file; `rows` is then as it was before.
pub fn parse_csv(file: &[u8], rows: &mut Vec<Row>) -> Result<(), CsvError> {
    let rows_before = rows.len();
    let mut lines = Lines { rest: file, line: 1 };
    lines.read(rows).map_err(|kind| {
        rows.truncate(rows_before);
        CsvError { offset: file.len() - lines.rest.len(), line: lines.line, kind }
    })
}

/// What is left of the file. A function that fails leaves it at the fault.
struct Lines<'a> {
    rest: &'a [u8],
    line: usize,
}

impl Lines<'_> {
    fn read(&mut self, rows: &mut Vec<Row>) -> Result<(), CsvErrorKind> {
        if self.rest.first().is_some_and(|first| !first.is_ascii_digit()) {
            let Some(rest) = self.rest.strip_prefix(HEADER.as_bytes()) else {
                return Err(CsvErrorKind::Header);
            };
            let Some(rest) = after_line(rest) else {
                return Err(CsvErrorKind::Header);
            };
            self.rest = rest;
            self.line += 1;
        }
        // Real lines have 90 to 150 bytes.
        rows.reserve(self.rest.len() / 90);
        while !self.rest.is_empty() {
            rows.push(self.row()?);
            self.line += 1;
        }
        Ok(())
    }

    #[inline]
    fn row(&mut self) -> Result<Row, CsvErrorKind> {
        let mut values = [0.0; COLUMNS];
        for (column, value) in values.iter_mut().enumerate() {
            *value =
                if matches!(column, OPEN_TIME_MS | CLOSE_TIME_MS) { self.time(column)? } else { self.value(column)? };
            if column + 1 < COLUMNS {
                match self.rest {
                    [b',', rest @ ..] => self.rest = rest,
                    _ => return Err(CsvErrorKind::Columns { found: column + 1 }),
                }
            }
        }
        match after_line(self.rest) {
            Some(rest) => self.rest = rest,
            None => return Err(CsvErrorKind::Columns { found: COLUMNS + 1 }),
        }
        values[IGNORE] = 0.0;
        Ok(values)
    }

    /// Reads a time. Whole numbers are cut to milliseconds as such: not all of them fit a double before.
    #[inline]
    fn time(&mut self, column: usize) -> Result<f64, CsvErrorKind> {
        let (time, rest) = digits(self.rest, 0);
        if (1..=DIGITS_MAX).contains(&(self.rest.len() - rest.len())) && ends_field(rest) {
            self.rest = rest;
            return Ok((if time > MILLISECONDS_MAX { time / 1000 } else { time }) as f64);
        }
        let time = self.odd_value(column)?;
        Ok(if time > MILLISECONDS_MAX as f64 { (time / 1000.0).floor() } else { time })
    }

    /// Reads the number of a field, up to the comma or the end of the line.
    #[inline]
    fn value(&mut self, column: usize) -> Result<f64, CsvErrorKind> {
        if let Some((value, rest)) = plain_decimal(self.rest)
            && ends_field(rest)
        {
            self.rest = rest;
            return Ok(value);
        }
        self.odd_value(column)
    }

    /// Reads any number. Nearly all are read by `plain_decimal` and never come here.
    #[inline(never)]
    fn odd_value(&mut self, column: usize) -> Result<f64, CsvErrorKind> {
        let length = self.rest.iter().position(|byte| matches!(byte, b',' | b'\n' | b'\r')).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(length);
        if column == 0 && text.is_empty() && rest.first() != Some(&b',') {
            return Err(CsvErrorKind::Columns { found: 0 });
        }
        let value = number(text).ok_or(CsvErrorKind::NotANumber { column })?;
        self.rest = rest;
        Ok(value)
    }
}

/// Returns what follows the end of a line, `None` when there is none; the end of the file is one too.
#[inline]
fn after_line(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [] => Some(rest),
        [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Returns whether a field ends here.
#[inline]
fn ends_field(rest: &[u8]) -> bool {
    matches!(rest, [] | [b',' | b'\n' | b'\r', ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{TRADES, VOLUME, bits_equal};

    /// Captured lines: SPOT ETHUSDT 1m, UM BTCUSDT 1m, CM `BTCUSD_PERP` 1m.
    const SPOT: &str = "1660435200000,1983.55000000,1983.90000000,1982.14000000,1982.29000000,205.13100000,1660435259999,406814.92308000,288,105.29930000,208854.93067400,0";
    const UM: &str = "1662336000000,19992.70,20000.00,19988.10,19996.80,482.638,1662336059999,9650791.43440,4263,302.950,6057727.57980,0";
    const CM: &str =
        "1666569600000,19560.7,19566.7,19555.5,19556.2,19431,1666569659999,99.33183109,425,9916,50.69336469,0";

    fn parsed(file: impl AsRef<[u8]>) -> Result<Vec<Row>, CsvError> {
        let mut rows = Vec::new();
        parse_csv(file.as_ref(), &mut rows).map(|()| rows)
    }

    #[test]
    fn captured_lines_of_three_markets() {
        let rows = parsed(format!("{SPOT}\n")).expect("well formed");
        let first = [
            1_660_435_200_000.0,
            1983.55,
            1983.9,
            1982.14,
            1982.29,
            205.131,
            1_660_435_259_999.0,
            406_814.923_08,
            288.0,
            105.2993,
            208_854.930_674,
            0.0,
        ];
        assert!(bits_equal(&rows[0], &first));
        assert_eq!(parsed(format!("{HEADER}\n{UM}\n{UM}\n")).expect("well formed").len(), 2);
        let rows = parsed(format!("{HEADER}\r\n{CM}")).expect("well formed");
        assert_eq!((rows[0][VOLUME], rows[0][7], rows[0][TRADES]), (19_431.0, 99.331_831_09, 425.0));
    }

    #[test]
    fn headers_by_the_first_byte() {
        for (file, count) in [(String::new(), 0), (HEADER.into(), 0), (format!("{HEADER}\n"), 0), (UM.into(), 1)] {
            assert_eq!(parsed(&file).map(|rows| rows.len()), Ok(count), "{file}");
        }
        for file in [
            "\n",
            "timestamp,open\n",
            "<?xml version=\"1.0\"?>",
            &HEADER.replace("open,high", "high,open"),
            &format!("{HEADER},more\n"),
            "\u{feff}1",
        ] {
            assert_eq!(
                parsed(file).map_err(|error| (error.kind, error.line)),
                Err((CsvErrorKind::Header, 1)),
                "{file}"
            );
        }
    }

    #[test]
    fn microseconds_row_by_row() {
        let micro = SPOT.replace("1660435200000", "1735689600000000").replace("1660435259999", "1735689659999999");
        let rows = parsed(format!("{SPOT}\n{micro}\n{SPOT}\n")).expect("well formed");
        let times: Vec<_> = rows.iter().map(|row| (row[OPEN_TIME_MS], row[CLOSE_TIME_MS])).collect();
        let plain = (1_660_435_200_000.0, 1_660_435_259_999.0);
        assert_eq!(times, [plain, (1_735_689_600_000.0, 1_735_689_659_999.0), plain]);
    }

    #[test]
    fn faults_and_where_they_are() {
        let cases = [
            (
                format!("{UM}\n{}\n", &UM[..UM.len() - 2]),
                "the line has 11 columns instead of 12, in line 2 at byte 227",
            ),
            (format!("{UM},0\n"), "the line has more than 12 columns, in line 1 at byte 114"),
            (format!("{UM}\n\n{UM}"), "the line has 0 columns instead of 12, in line 2 at byte 115"),
            (format!("{HEADER}\n{UM}\n{}", UM.replace("19992.70", "")), "open is not a number, in line 3 at byte 243"),
            (format!("{UM}\r{UM}"), "the line has more than 12 columns, in line 1 at byte 114"),
            (UM.replace("482.638", "\"482.638\""), "volume is not a number, in line 1 at byte 50"),
        ];
        for (file, message) in cases {
            assert_eq!(parsed(&file).expect_err(&file).to_string(), message, "{file}");
        }
    }

    #[test]
    fn a_fault_takes_back_only_its_own_rows() {
        let mut rows = parsed(SPOT).expect("well formed");
        let before = rows.clone();
        assert!(parse_csv(format!("{UM}\n{UM}\nx").as_bytes(), &mut rows).is_err());
        assert_eq!(rows, before);
    }
}
