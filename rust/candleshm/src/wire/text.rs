//! Rows as the exchange's own text.
//!
//! A row holds, for each decimal that the exchange sent, the nearest double. Going back is rounding: the double times a
//! power of ten, to the nearest whole number, ties to even. It is done with integers, without any error: a double is a
//! whole number below 2^53 times a power of two, and that number times 10^18 has less than 113 bits.
//!
//! Rounded to the digits with which it was sent, a double gives the very text again, as long as the text has 15
//! significant digits or fewer: the double is at most half its last place away from the decimal, which is less than half
//! a unit of the decimal's last digit below 2^52 such units, and 10^15 is below 2^50. Of longer texts it gives the
//! decimal of that many digits that is nearest to what is kept.
//!
//! The number of digits follows from today's rules of the symbol, and an old candle may have been sent with more. A
//! value that lies further from every decimal of the expected digits than sums of candles do (see
//! [`derive`](mod@crate::derive): two units in the last place of the double) was sent with more digits, and is printed with
//! them: with all that are padded to, else with the fewest that give the same double.

use std::io::Write as _;

use crate::columns::{
    CLOSE, CLOSE_TIME_MS, HIGH, LOW, OPEN, OPEN_TIME_MS, QUOTE_VOLUME, Row, TAKER_BUY_QUOTE_VOLUME, TAKER_BUY_VOLUME,
    TRADES, VOLUME,
};

/// Most digits behind the point.
pub const DECIMALS_MAX: u8 = 18;

/// Units in the last place of a double by which a value may differ from the decimal that it stands for.
const APART_ULPS_MAX: u128 = 4;

/// Bytes of a row's text that are set aside; most are shorter.
const ROW_BYTES: usize = 200;

/// Digits of the largest whole number.
const INTEGER_BYTES: usize = 20;

/// Powers of ten up to 10^18.
const POWERS: [u64; DECIMALS_MAX as usize + 1] = {
    let mut powers = [1; DECIMALS_MAX as usize + 1];
    let mut power = 1;
    while power < powers.len() {
        powers[power] = powers[power - 1] * 10;
        power += 1;
    }
    powers
};

/// The two digits of every number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// How many digits stand behind the point of a symbol's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimals {
    price: u8,
    lot: u8,
    turnover: u8,
    padded_to: u8,
}

impl Decimals {
    /// Returns the digits of prices, of volumes (in units of `VOLUME`) and of turnovers (`QUOTE_VOLUME`), and to how many
    /// all of them are padded with zeroes. `None` when one is above [`DECIMALS_MAX`].
    #[must_use]
    pub fn new(price: u8, lot: u8, turnover: u8, padded_to: u8) -> Option<Self> {
        let fits = [price, lot, turnover, padded_to].iter().all(|&digits| digits <= DECIMALS_MAX);
        fits.then_some(Self { price, lot, turnover, padded_to })
    }

    /// Returns the digits of a column of decimals, and to how many they are padded.
    fn of(self, column: usize) -> (usize, usize) {
        let digits = match column {
            VOLUME | TAKER_BUY_VOLUME => self.lot,
            QUOTE_VOLUME | TAKER_BUY_QUOTE_VOLUME => self.turnover,
            _ => self.price,
        };
        (digits.into(), self.padded_to.into())
    }
}

/// Returns whether a row can be written as text: all values are finite.
#[must_use]
pub fn is_writable(row: &Row) -> bool {
    row.iter().fold(true, |all, value| all & value.is_finite())
}

/// Appends rows as the JSON array of a klines response. Values have to be finite, see [`is_writable`].
pub fn write_klines(text: &mut Vec<u8>, rows: &[Row], decimals: Option<Decimals>) {
    text.reserve(2 + ROW_BYTES * rows.len());
    text.push(b'[');
    for (place, row) in rows.iter().enumerate() {
        if place > 0 {
            text.push(b',');
        }
        write_kline(text, row, decimals);
    }
    text.push(b']');
}

/// Appends one row of a klines response.
fn write_kline(text: &mut Vec<u8>, row: &Row, decimals: Option<Decimals>) {
    debug_assert!(is_writable(row));
    text.push(b'[');
    write_whole(text, row[OPEN_TIME_MS]);
    for column in [OPEN, HIGH, LOW, CLOSE, VOLUME] {
        text.push(b',');
        write_quoted(text, row, column, decimals);
    }
    text.push(b',');
    write_whole(text, row[CLOSE_TIME_MS]);
    text.push(b',');
    write_quoted(text, row, QUOTE_VOLUME, decimals);
    text.push(b',');
    write_whole(text, row[TRADES]);
    for column in [TAKER_BUY_VOLUME, TAKER_BUY_QUOTE_VOLUME] {
        text.push(b',');
        write_quoted(text, row, column, decimals);
    }
    text.extend_from_slice(b",\"0\"]");
}

/// Appends a value of a row as a JSON string that holds a decimal.
pub(crate) fn write_quoted(text: &mut Vec<u8>, row: &Row, column: usize, decimals: Option<Decimals>) {
    text.push(b'"');
    match decimals {
        Some(decimals) => {
            let (digits, padded_to) = decimals.of(column);
            write_decimal(text, row[column], digits, padded_to);
        }
        None => write_shortest(text, row[column]),
    }
    text.push(b'"');
}

/// Appends a time or a number of trades: what is a whole number in every row.
pub(crate) fn write_whole(text: &mut Vec<u8>, value: f64) {
    if value < 0.0 {
        text.push(b'-');
    }
    // A cast saturates; a damaged row may hold anything.
    write_integer(text, value.abs() as u64);
}

/// Appends a value with so many digits, padded with zeroes, or with more where it has more.
fn write_decimal(text: &mut Vec<u8>, value: f64, digits: usize, padded_to: usize) {
    let size = value.abs();
    match scaled(size, digits) {
        Some(Scaled { units, is_near: true }) => {
            if value < 0.0 {
                text.push(b'-');
            }
            write_fixed(text, units, digits, padded_to.saturating_sub(digits));
        }
        other => write_unusual(text, value, digits, padded_to, other.is_some()),
    }
}

/// As [`write_decimal`], for a value that has more digits than that (`has_more`), or is very large.
#[cold]
fn write_unusual(text: &mut Vec<u8>, value: f64, digits: usize, padded_to: usize, has_more: bool) {
    let digits = if padded_to > digits && has_more { padded_to } else { digits };
    if has_more && padded_to == 0 {
        write_shortest(text, value);
    } else {
        // Writing to a vector cannot fail.
        let _ = write!(text, "{value:.digits$}");
        if digits == 0 && padded_to > 0 {
            text.push(b'.');
        }
        text.resize(text.len() + padded_to.saturating_sub(digits), b'0');
    }
}

/// Appends the shortest decimal that is read as the same double, without an exponent.
fn write_shortest(text: &mut Vec<u8>, value: f64) {
    // Adding zero takes the sign from a negative zero. Writing to a vector cannot fail.
    let _ = write!(text, "{}", value + 0.0);
}

/// A value in units of its last digit.
struct Scaled {
    units: u64,
    /// Whether the value is as good as this decimal.
    is_near: bool,
}

/// Returns `size * 10^digits` rounded to the nearest whole number, ties to even; `None` from 2^64 on. `size` is finite and
/// not negative.
#[inline]
fn scaled(size: f64, digits: usize) -> Option<Scaled> {
    let bits = size.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52) as i32);
    // The value is mantissa * 2^exponent.
    let (mantissa, exponent) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    let power = u128::from(POWERS[digits]);
    let product = u128::from(mantissa) * power;
    if exponent >= 0 {
        let units = product.checked_mul(1_u128.checked_shl(exponent.unsigned_abs())?)?;
        return Some(Scaled { units: units.try_into().ok()?, is_near: true });
    }
    let shift = exponent.unsigned_abs();
    if shift >= 127 {
        // Below 2^113 / 2^127: it rounds to zero.
        return Some(Scaled { units: 0, is_near: u128::from(mantissa) <= APART_ULPS_MAX });
    }
    let (whole, rest) = (product >> shift, product & ((1 << shift) - 1));
    let half = 1 << (shift - 1);
    let up = rest > half || rest == half && whole & 1 == 1;
    let apart = if up { (1 << shift) - rest } else { rest };
    Some(Scaled { units: (whole + u128::from(up)).try_into().ok()?, is_near: apart <= APART_ULPS_MAX * power })
}

/// Appends `units / 10^digits`, and so many zeroes more.
#[inline]
fn write_fixed(text: &mut Vec<u8>, units: u64, digits: usize, zeroes: usize) {
    if digits + zeroes == 0 {
        write_integer(text, units);
        return;
    }
    // Whole and part one behind the other, with a zero in front of a part that has no whole; then zeroes.
    let mut buffer = [b'0'; INTEGER_BYTES + DECIMALS_MAX as usize];
    let first = put_digits(&mut buffer[..INTEGER_BYTES], units).min(INTEGER_BYTES - 1 - digits);
    let point = INTEGER_BYTES - digits;
    text.extend_from_slice(&buffer[first..point]);
    text.push(b'.');
    text.extend_from_slice(&buffer[point..INTEGER_BYTES + zeroes]);
}

/// Appends a whole number.
#[inline]
pub(crate) fn write_integer(text: &mut Vec<u8>, number: u64) {
    let mut buffer = [b'0'; INTEGER_BYTES];
    let first = put_digits(&mut buffer, number).min(INTEGER_BYTES - 1);
    text.extend_from_slice(&buffer[first..]);
}

/// Puts the digits of a number at the end of a buffer of zeroes that is long enough; returns where the first one stands.
#[inline]
fn put_digits(buffer: &mut [u8], mut number: u64) -> usize {
    let mut end = buffer.len();
    while number >= 10 {
        buffer[end - 2..end].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
        end -= 2;
    }
    if number > 0 {
        buffer[end - 1] = b'0' + number as u8;
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::parse::parse;

    fn decimal(value: f64, digits: usize, padded_to: usize) -> String {
        let mut text = Vec::new();
        write_decimal(&mut text, value, digits, padded_to);
        String::from_utf8(text).expect("ASCII")
    }

    fn shortest(value: f64) -> String {
        let mut text = Vec::new();
        write_shortest(&mut text, value);
        String::from_utf8(text).expect("ASCII")
    }

    fn klines(rows: &[Row], decimals: Option<Decimals>) -> String {
        let mut text = Vec::new();
        write_klines(&mut text, rows, decimals);
        String::from_utf8(text).expect("ASCII")
    }

    /// Captured: a SPOT row (BTCUSDT 8h), a UM row and a CM row in the shape of the exchange.
    const CAPTURED: [(&str, [u8; 4]); 3] = [
        (
            "[[1735689600000,\"93576.00000000\",\"94509.42000000\",\"93489.03000000\",\"93684.10000000\",\
             \"2799.15966000\",1735718399999,\"262732620.81814130\",388940,\"1476.27559000\",\
             \"138586354.31890300\",\"0\"]]",
            [2, 5, 7, 8],
        ),
        (
            "[[1626992700000,\"7.6110\",\"7.6120\",\"7.5990\",\"7.6000\",\"1893\",1626992759999,\"14408.1230\",41,\
             \"1368\",\"10411.8480\",\"0\"]]",
            [4, 0, 4, 0],
        ),
        (
            "[[1626916380000,\"1992.70\",\"1993.71\",\"1992.17\",\"1992.17\",\"1893\",1626916439999,\"9.49653573\",41,\
             \"1368\",\"6.86228695\",\"0\"]]",
            [2, 0, 8, 0],
        ),
    ];

    #[test]
    fn rows_of_all_markets_come_back_as_they_were_sent() {
        for (text, [price, lot, turnover, padded_to]) in CAPTURED {
            let mut rows = Vec::new();
            parse(text.as_bytes(), &mut rows).expect("a response");
            assert_eq!(klines(&rows, Decimals::new(price, lot, turnover, padded_to)), text);
        }
        assert_eq!(klines(&[], None), "[]");
    }

    #[test]
    fn without_rules_numbers_are_as_short_as_they_can_be() {
        let mut rows = Vec::new();
        parse(CAPTURED[0].0.as_bytes(), &mut rows).expect("a response");
        assert_eq!(
            klines(&rows, None),
            "[[1735689600000,\"93576\",\"94509.42\",\"93489.03\",\"93684.1\",\"2799.15966\",1735718399999,\
             \"262732620.8181413\",388940,\"1476.27559\",\"138586354.318903\",\"0\"]]"
        );
    }

    #[test]
    fn a_value_with_more_digits_than_the_rules_have_now_keeps_them() {
        assert_eq!(decimal(0.002_345_6, 5, 8), "0.00234560");
        assert_eq!(decimal(0.002_345_6, 5, 0), "0.0023456");
        assert_eq!(decimal(0.002_35, 5, 8), "0.00235000");
        assert_eq!(decimal(1_893.5, 0, 0), "1893.5");
        assert_eq!(decimal(1_893.5, 0, 8), "1893.50000000");
        assert_eq!(decimal(1e-300, 2, 8), "0.00000000");
        assert_eq!(decimal(0.1 + 0.2, 1, 0), "0.3", "a sum that is off by a unit in the last place");
    }

    #[test]
    fn zeroes_and_large_numbers() {
        assert_eq!(decimal(0.0, 0, 0), "0");
        assert_eq!(decimal(-0.0, 2, 8), "0.00000000");
        assert_eq!(shortest(-0.0), "0");
        assert_eq!(decimal(5e-324, 8, 8), "0.00000000");
        assert_eq!(decimal(-1.5, 1, 2), "-1.50");
        assert_eq!(decimal(1e22, 2, 8), "10000000000000000000000.00000000");
        assert_eq!(decimal(1e22, 0, 8), "10000000000000000000000.00000000");
        assert_eq!(decimal(1e22, 0, 0), "10000000000000000000000");
        assert_eq!(decimal(18_446_744_073_709_549_568.0, 0, 0), "18446744073709549568");
        assert_eq!(decimal(18_446_744_073_709_551_616.0, 0, 0), "18446744073709551616");
        assert_eq!(shortest(1e22), "10000000000000000000000");
        assert_eq!(shortest(1.5e-7), "0.00000015");
        assert_eq!(Decimals::new(19, 0, 0, 0), None);
    }

    #[test]
    fn rows_that_cannot_be_written() {
        let mut row = [1.0; 12];
        assert!(is_writable(&row));
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            row[VOLUME] = value;
            assert!(!is_writable(&row));
        }
    }

    /// Decimals as the exchange sends them: up to 15 significant digits.
    fn decimals() -> impl Strategy<Value = (String, usize)> {
        (0..10_u64.pow(15), 0..=15_usize).prop_map(|(units, digits)| {
            let all = format!("{units:0width$}", width = digits + 1);
            let (whole, part) = all.split_at(all.len() - digits);
            (if digits == 0 { whole.to_owned() } else { format!("{whole}.{part}") }, digits)
        })
    }

    proptest! {
        #[test]
        fn a_decimal_is_printed_as_it_was_read((text, digits) in decimals(), more in 0..=3_usize) {
            let value: f64 = text.parse().expect("a number");
            prop_assert_eq!(decimal(value, digits, 0), text.clone());
            let padded = format!("{text}{}{}", if digits == 0 && more > 0 { "." } else { "" }, "0".repeat(more));
            prop_assert_eq!(decimal(value, digits, digits + more), padded);
        }

        /// Whatever the rules of today say: the exchange pads what it sent once.
        #[test]
        fn fewer_digits_than_were_sent_lose_nothing(units in 0..10_u64.pow(15), digits in 0..=8_usize) {
            let text = format!("{}.{:08}", units / 100_000_000, units % 100_000_000);
            let value: f64 = text.parse().expect("a number");
            prop_assert_eq!(decimal(value, digits, 8), text);
            prop_assert_eq!(decimal(value, digits, 0).parse::<f64>().expect("a number"), value);
        }

        #[test]
        fn any_finite_value_is_read_as_itself(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = shortest(value);
            prop_assert_eq!(text.parse::<f64>().expect("a number"), value);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte)), "{}", text);
        }

        #[test]
        fn rounding_is_that_of_the_standard_library(bits in any::<u64>(), digits in 0..=18_usize, tame in 0..=4_u32) {
            // All doubles, and those of everyday size, exact halves among them.
            let value = match tame {
                0 => f64::from_bits(bits),
                1 => (bits >> 11) as f64 / 1024.0,
                _ => (bits % 10_u64.pow(4 * tame)) as f64 / 10_f64.powi(digits as i32 + 1),
            };
            prop_assume!(value.is_finite());
            let wanted = format!("{:.digits$}", value.abs());
            match scaled(value.abs(), digits) {
                Some(Scaled { units, .. }) => {
                    let mut text = Vec::new();
                    write_fixed(&mut text, units, digits, 0);
                    prop_assert_eq!(String::from_utf8(text).expect("ASCII"), wanted);
                }
                None => prop_assert!(value.abs() * 10_f64.powi(digits as i32) > 1.8e19),
            }
        }

        #[test]
        fn a_body_is_read_as_the_same_rows(
            values in prop::collection::vec(prop::array::uniform12(0.0..1e12_f64), 0..4),
            digits in prop::array::uniform4(0..=9_u8),
            ruled in any::<bool>(),
        ) {
            let rows: Vec<Row> = values
                .into_iter()
                .map(|mut row| {
                    for whole in [OPEN_TIME_MS, CLOSE_TIME_MS, TRADES] {
                        row[whole] = row[whole].floor();
                    }
                    row[11] = 0.0;
                    row
                })
                .collect();
            let decimals = if ruled { Decimals::new(digits[0], digits[1], digits[2], 0) } else { None };
            let mut read = Vec::new();
            parse(klines(&rows, decimals).as_bytes(), &mut read).expect("a body");
            for (read, row) in read.iter().zip(&rows) {
                for (read, value) in read.iter().zip(row) {
                    let apart_ulps = read.to_bits().abs_diff(value.to_bits());
                    prop_assert!(apart_ulps <= if ruled { 5 } else { 0 }, "{} {}", read, value);
                }
            }
            prop_assert_eq!(read.len(), rows.len());
        }
    }
}
