//! The bytes of a klines response as rows.
//!
//! A body is a JSON array of arrays of twelve values, each a number or a string that holds one; the three markets mix
//! the two in their own ways and all are accepted. Every value has the bits of Python's `float(text)`: the nearest
//! double, ties to even.
//!
//! The scan goes once from left to right and never back. It does not recurse, and a fault ends it where it stands, so
//! the position of the cursor is the offset of the error. `tests/parse_model.rs` compares it with a slow and obvious
//! one.

use std::error::Error;
use std::fmt;
use std::str;

use crate::columns::{COLUMNS, IGNORE, NAMES, Row};

/// Where and why a body is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Byte of the body at which the fault is; its length if it ends early.
    pub offset: usize,
    /// What is wrong there.
    pub kind: ParseErrorKind,
}

/// What is wrong with a body. Rows and columns count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// A JSON object: how the exchange states an error.
    Object,
    /// Neither an array nor an object, such as HTML.
    NotAnArray,
    /// The body ends before its array does.
    Ended,
    /// An element of the array is not itself an array.
    NotARow {
        /// Its index.
        row: usize,
    },
    /// A row does not have twelve columns.
    Columns {
        /// Its index.
        row: usize,
        /// How many it has.
        found: usize,
    },
    /// A value is neither a number nor a string that holds one.
    NotANumber {
        /// Index of its row.
        row: usize,
        /// Its column; 12 and above in a row that is too long.
        column: usize,
    },
    /// Neither a comma nor a closing bracket follows a value or a row.
    Separator {
        /// Index of the row.
        row: usize,
    },
    /// Something follows the array.
    Trailing,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at byte {}", self.kind, self.offset)
    }
}

impl fmt::Display for ParseErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Object => f.write_str("the body is an object, not an array of klines"),
            Self::NotAnArray => f.write_str("the body is not an array of klines"),
            Self::Ended => f.write_str("the body ends before its array does"),
            Self::NotARow { row } => write!(f, "row {row} is not an array"),
            Self::Columns { row, found } => {
                write!(f, "row {row} has {found} columns instead of {COLUMNS}")
            }
            Self::NotANumber { row, column } => match NAMES.get(column) {
                Some(name) => write!(f, "{name} of row {row} is not a number"),
                None => write!(f, "column {column} of row {row} is not a number"),
            },
            Self::Separator { row } => {
                write!(f, "a comma or a closing bracket is missing in or after row {row}")
            }
            Self::Trailing => f.write_str("something follows the array of klines"),
        }
    }
}

impl Error for ParseError {}

/// Parses a body and appends its rows, in the order of the body.
///
/// Strings may hold what both `str::parse::<f64>` and Python's `float()` read: plain and scientific decimals, `.5`,
/// `5.`, and `nan`, `inf` and `infinity` in any case, which [`plausible`](crate::columns::plausible) refuses. Not
/// accepted are blanks and underscores inside strings, and escapes. Bare numbers follow the JSON grammar. The `ignore`
/// column must be a number like the others and is stored as 0.
///
/// # Errors
///
/// The first fault of a malformed body; `rows` is then as it was before.
pub fn parse(body: &[u8], rows: &mut Vec<Row>) -> Result<(), ParseError> {
    let rows_before = rows.len();
    let mut cursor = Cursor { rest: body };
    cursor.klines(rows).map_err(|kind| {
        rows.truncate(rows_before);
        // A fault at the end of the body is always the same one: what should stand there is missing.
        let kind = if cursor.rest.is_empty() { ParseErrorKind::Ended } else { kind };
        ParseError { offset: body.len() - cursor.rest.len(), kind }
    })
}

/// What is left of a text. A function that fails leaves the cursor at the fault.
pub(crate) struct Cursor<'a> {
    pub(crate) rest: &'a [u8],
}

impl Cursor<'_> {
    fn klines(&mut self, rows: &mut Vec<Row>) -> Result<(), ParseErrorKind> {
        if !self.take(b'[') {
            return Err(if self.rest.first() == Some(&b'{') {
                ParseErrorKind::Object
            } else {
                ParseErrorKind::NotAnArray
            });
        }
        if !self.take(b']') {
            for row in 0.. {
                rows.push(self.row(row)?);
                if self.take(b',') {
                    continue;
                }
                if self.take(b']') {
                    break;
                }
                return Err(ParseErrorKind::Separator { row });
            }
        }
        self.skip_whitespace();
        if self.rest.is_empty() { Ok(()) } else { Err(ParseErrorKind::Trailing) }
    }

    fn row(&mut self, row: usize) -> Result<Row, ParseErrorKind> {
        if !self.take(b'[') {
            return Err(ParseErrorKind::NotARow { row });
        }
        let mut values = [0.0; COLUMNS];
        for (column, value) in values.iter_mut().enumerate() {
            *value = match self.value() {
                Some(value) => value,
                None => return Err(self.bad_value(row, column)),
            };
            if column + 1 < COLUMNS && !self.take(b',') {
                return Err(self.bad_separator(row, column + 1));
            }
        }
        if !self.take(b']') {
            return Err(self.bad_separator(row, COLUMNS));
        }
        values[IGNORE] = 0.0;
        Ok(values)
    }

    #[cold]
    fn bad_value(&self, row: usize, column: usize) -> ParseErrorKind {
        if column == 0 && self.rest.first() == Some(&b']') {
            return ParseErrorKind::Columns { row, found: 0 };
        }
        ParseErrorKind::NotANumber { row, column }
    }

    /// Returns what is wrong after `found` values: the row is too short, or too long, or not well formed.
    #[cold]
    fn bad_separator(&mut self, row: usize, mut found: usize) -> ParseErrorKind {
        while self.take(b',') {
            if self.value().is_none() {
                return self.bad_value(row, found);
            }
            found += 1;
        }
        match self.rest.first() {
            Some(b']') => ParseErrorKind::Columns { row, found },
            _ => ParseErrorKind::Separator { row },
        }
    }

    /// Reads a number or a string that holds one.
    #[inline]
    pub(crate) fn value(&mut self) -> Option<f64> {
        self.skip_whitespace();
        if let [b'"', text @ ..] = self.rest {
            if let Some((value, [b'"', rest @ ..])) = plain_decimal(text) {
                self.rest = rest;
                return Some(value);
            }
            return self.quoted();
        }
        if let [b'1'..=b'9', ..] = self.rest
            && let (integer, rest @ [b',' | b']' | b'}', ..]) = digits(self.rest, 0)
            && self.rest.len() - rest.len() <= DIGITS_MAX
        {
            self.rest = rest;
            return Some(integer as f64);
        }
        self.bare()
    }

    /// Reads any string that holds a number. Nearly all are read by `plain_decimal` and never come here.
    #[inline(never)]
    fn quoted(&mut self) -> Option<f64> {
        let text = &self.rest[1..];
        let Some(length) = text.iter().position(|&byte| byte == b'"') else {
            self.rest = &[];
            return None;
        };
        let value = number(&text[..length])?;
        self.rest = &text[length + 1..];
        Some(value)
    }

    /// Reads any number of the JSON grammar.
    #[inline(never)]
    fn bare(&mut self) -> Option<f64> {
        let text = self.rest;
        self.skip_one_of(b"-");
        if !self.skip_one_of(b"0") {
            self.skip_digits()?;
        }
        if self.skip_one_of(b".") {
            self.skip_digits()?;
        }
        if self.skip_one_of(b"eE") {
            self.skip_one_of(b"+-");
            self.skip_digits()?;
        }
        number(&text[..text.len() - self.rest.len()])
    }

    fn skip_one_of(&mut self, bytes: &[u8]) -> bool {
        let skip = self.rest.first().is_some_and(|byte| bytes.contains(byte));
        self.rest = &self.rest[usize::from(skip)..];
        skip
    }

    /// Skips one digit or more.
    fn skip_digits(&mut self) -> Option<()> {
        let (_, rest) = digits(self.rest, 0);
        let skipped = rest.len() < self.rest.len();
        self.rest = rest;
        skipped.then_some(())
    }

    /// Skips whitespace and then `byte`, if it is next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        self.skip_whitespace();
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn skip_whitespace(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

/// Reads what `str::parse::<f64>` reads, all of `text`.
pub(crate) fn number(text: &[u8]) -> Option<f64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// The doubles up to here hold every integer.
const EXACT_INTEGER_MAX: u64 = 1 << f64::MANTISSA_DIGITS;
/// Any integer of so many digits fits 64 bits.
pub(crate) const DIGITS_MAX: usize = 19;
/// Powers of ten, all exact in a double.
const POWERS_OF_TEN: [f64; DIGITS_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19];

/// Reads `digits` or `digits.digits` from the front, `None` when the nearest double takes more than one rounding.
///
/// This is W. D. Clinger's fast path ("How to read floating point numbers accurately", 1990): digits that fit a double
/// exactly are divided by an exact power of ten, which rounds once. Digits without decimals are rounded once when they
/// become a double. It reads a row in 60 % of the time that std takes for it.
#[inline]
pub(crate) fn plain_decimal(text: &[u8]) -> Option<(f64, &[u8])> {
    let (mut integer, mut rest) = digits(text, 0);
    let whole_digits = text.len() - rest.len();
    let mut decimals = 0;
    if let [b'.', fraction @ ..] = rest {
        (integer, rest) = digits(fraction, integer);
        decimals = fraction.len() - rest.len();
    }
    let fits = whole_digits > 0 && whole_digits + decimals <= DIGITS_MAX;
    if !fits || (decimals > 0 && integer > EXACT_INTEGER_MAX) {
        return None;
    }
    Some((integer as f64 / POWERS_OF_TEN[decimals], rest))
}

/// Appends the digits at the front to `integer`, modulo 2^64, and returns it with what follows them.
#[inline]
pub(crate) fn digits(mut text: &[u8], mut integer: u64) -> (u64, &[u8]) {
    while let [digit @ b'0'..=b'9', rest @ ..] = text {
        integer = integer.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        text = rest;
    }
    (integer, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::columns::{OPEN, OPEN_TIME_MS, TRADES, bits_equal};

    /// A captured SPOT response: LTCBTC 1h, two rows.
    const SPOT_BODY: &str = concat!(
        r#"[[1616025600000,"0.00349600","0.00350000","0.00346900","0.00349500","10438.37000000",1616029199999,"#,
        r#""36.31825436",2338,"4847.44000000","16.87297134","0"],"#,
        r#"[1616029200000,"0.00349600","0.00349700","0.00347400","0.00347900","5635.90000000",1616032799999,"#,
        r#""19.65151327",1372,"2796.91000000","9.75640680","0"]]"#,
    );

    fn parsed(body: impl AsRef<[u8]>) -> Result<Vec<Row>, ParseError> {
        let mut rows = Vec::new();
        parse(body.as_ref(), &mut rows).map(|()| rows)
    }

    /// Returns a row of JSON that starts with the values given and is filled up with zeros.
    fn row_of(values: &[&str]) -> String {
        let mut columns = ["0"; COLUMNS];
        columns[..values.len()].copy_from_slice(values);
        format!("[{}]", columns.join(","))
    }

    /// Returns what one JSON value is read as.
    fn read(value: &str) -> Result<f64, ParseErrorKind> {
        parsed(format!("[{}]", row_of(&[value]))).map(|rows| rows[0][0]).map_err(|error| error.kind)
    }

    #[test]
    fn captured_spot_body() {
        let rows = parsed(SPOT_BODY).expect("the exchange sent it");
        assert_eq!(rows.len(), 2);
        let first = [
            1_616_025_600_000.0,
            0.003_496,
            0.0035,
            0.003_469,
            0.003_495,
            10_438.37,
            1_616_029_199_999.0,
            36.318_254_36,
            2_338.0,
            4_847.44,
            16.872_971_34,
            0.0,
        ];
        assert!(bits_equal(&rows[0], &first));
        assert_eq!(rows[1][OPEN_TIME_MS], 1_616_029_200_000.0);
        assert_eq!(rows[1][TRADES], 1_372.0);
    }

    #[test]
    fn coin_margined_row_with_volumes_in_contracts() {
        // The values of a captured CM row of BTCUSD_PERP 1m.
        let body = concat!(
            r#"[[1666569600000,"19560.7","19566.7","19555.5","19556.2","19431",1666569659999,"99.33183109",425,"#,
            r#""9916","50.69336469","0"]]"#,
        );
        let rows = parsed(body).expect("well formed");
        assert_eq!(rows[0][OPEN], 19_560.7);
        assert_eq!(rows[0][5..8], [19_431.0, 1_666_569_659_999.0, 99.331_831_09]);
    }

    #[test]
    fn empty_arrays_and_whitespace() {
        assert_eq!(parsed("[]"), Ok(vec![]));
        assert_eq!(parsed("\r\n [\t] \n"), Ok(vec![]));
        let spaced = SPOT_BODY.replace(',', " ,\n").replace('[', " [\t").replace(']', "\r]\n");
        assert_eq!(parsed(&spaced), parsed(SPOT_BODY));
    }

    #[test]
    fn rows_are_appended_and_a_fault_takes_back_only_its_own() {
        let mut rows = parsed(SPOT_BODY).expect("well formed");
        parse(SPOT_BODY.as_bytes(), &mut rows).expect("well formed");
        assert_eq!(rows.len(), 4);
        let before = rows.clone();
        let broken = format!("{SPOT_BODY}x");
        assert!(parse(broken.as_bytes(), &mut rows).is_err());
        assert_eq!(rows, before);
    }

    #[test]
    fn ignore_column_is_checked_and_stored_as_zero() {
        let with_ignore =
            |ignore: &str| parsed(format!("[{}]", row_of(&["0"; 11]).replace(",0]", &format!(",{ignore}]"))));
        for ignore in ["7", r#""17928899.62484339""#, r#""nan""#, "-0"] {
            let rows = with_ignore(ignore).expect("a number");
            assert_eq!(rows[0][IGNORE].to_bits(), 0, "{ignore}");
        }
        assert_eq!(
            with_ignore("null").map_err(|error| error.kind),
            Err(ParseErrorKind::NotANumber { row: 0, column: 11 })
        );
    }

    #[test]
    fn faults_and_where_they_are() {
        let three = [row_of(&[]), row_of(&[]), row_of(&[])].join(",");
        let eleven = three.replacen("0,", "", 1);
        let thirteen = three.replacen("0,", "0,0,", 1);
        let cases = [
            ("<html>403</html>", "the body is not an array of klines, at byte 0"),
            ("  <html>", "the body is not an array of klines, at byte 2"),
            (r#"{"code":-1121,"msg":"Invalid symbol."}"#, "the body is an object, not an array of klines, at byte 0"),
            ("", "the body ends before its array does, at byte 0"),
            ("[", "the body ends before its array does, at byte 1"),
            ("[7]", "row 0 is not an array, at byte 1"),
            (r#"["7"]"#, "row 0 is not an array, at byte 1"),
            (&format!("[{three},]"), "row 3 is not an array, at byte 79"),
            (&format!("[{three}]]"), "something follows the array of klines, at byte 79"),
            (&format!("[{three}[]"), "a comma or a closing bracket is missing in or after row 2, at byte 78"),
            (&format!("[{three},{eleven}]"), "row 3 has 11 columns instead of 12, at byte 101"),
            (&format!("[{thirteen}]"), "row 0 has 13 columns instead of 12, at byte 27"),
            ("[[]]", "row 0 has 0 columns instead of 12, at byte 2"),
            ("[[1,]]", "open of row 0 is not a number, at byte 4"),
            ("[[1,2 3]]", "a comma or a closing bracket is missing in or after row 0, at byte 6"),
            (r#"[[1,"2x"]]"#, "open of row 0 is not a number, at byte 4"),
            (
                &thirteen.replacen("0]", "x]", 1).replacen('[', "[[", 1),
                "column 12 of row 0 is not a number, at byte 26",
            ),
        ];
        for (body, message) in cases {
            assert_eq!(parsed(body).expect_err(body).to_string(), message, "{body}");
        }
    }

    #[test]
    fn every_truncation_ends_early() {
        for length in 0..SPOT_BODY.len() {
            let error = parsed(&SPOT_BODY[..length]).expect_err("the array is not closed");
            assert_eq!(error, ParseError { offset: length, kind: ParseErrorKind::Ended });
        }
    }

    #[test]
    fn strings_hold_what_python_float_reads() {
        for (text, value) in [
            (".5", 0.5_f64),
            ("5.", 5.0),
            ("+007.50", 7.5),
            ("-0", -0.0),
            ("1e3", 1000.0),
            ("2.5E-3", 0.0025),
            ("1e400", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("INFINITY", f64::INFINITY),
            ("99999999999999999999", 1e20),
        ] {
            assert_eq!(read(&format!("\"{text}\"")).map(f64::to_bits), Ok(value.to_bits()), "{text}");
        }
        assert!(read("\"NaN\"").expect("a number").is_nan());
        for text in ["", ".", "+", "-.", "e5", "1e", "1_000", " 1", "1 ", "0x10", "1,5", "\u{ff11}", "\\u0031", "1\n"] {
            assert_eq!(read(&format!("\"{text}\"")), Err(ParseErrorKind::NotANumber { row: 0, column: 0 }), "{text}");
        }
    }

    #[test]
    fn bare_numbers_follow_the_json_grammar() {
        for (text, value) in
            [("0", 0.0_f64), ("-0", -0.0), ("10", 10.0), ("1.50", 1.5), ("-2e+2", -200.0), ("0.1E1", 1.0)]
        {
            assert_eq!(read(text).map(f64::to_bits), Ok(value.to_bits()), "{text}");
        }
        for text in ["01", "+1", ".5", "5.", "5.e1", "-", "1e", "NaN", "Infinity", "null", "true", "[1]", "{}", "0x1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn decimals_at_the_border_of_the_fast_path() {
        for text in [
            "9007199254740992",
            "9007199254740993",
            "9007199254740995",
            "900719925474099.2",
            "900719925474099.3",
            "9999999999999999999",
            "18446744073709551615",
            "18446744073709551617",
            "0.0000000000000000001",
            "0.00000000000000000001",
            "201099655.917293481",
            "2010996559.17293481",
            "1.00000000000000011102230246251565404",
        ] {
            let bits = text.parse().map(f64::to_bits).expect("a number");
            assert_eq!(read(text).map(f64::to_bits), Ok(bits), "{text}");
            assert_eq!(read(&format!("\"{text}\"")).map(f64::to_bits), Ok(bits), "{text}");
        }
    }

    proptest! {
        #[test]
        fn decimals_have_the_bits_of_std(text in "[0-9]{1,18}(\\.[0-9]{0,18})?|[0-9]{0,40}\\.[0-9]{1,40}") {
            let expected: f64 = text.parse().expect("a number");
            prop_assert_eq!(read(&format!("\"{text}\"")).map(f64::to_bits), Ok(expected.to_bits()));
        }

        #[test]
        fn every_double_survives_its_shortest_text(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(read(&format!("{value}")).map(f64::to_bits), Ok(bits));
            prop_assert_eq!(read(&format!("\"{value:e}\"")).map(f64::to_bits), Ok(bits));
        }
    }
}
