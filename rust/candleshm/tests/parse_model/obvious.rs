//! A slow parser that is obviously right, and the demand that the real one agrees with it.

use candleshm::columns::{COLUMNS, IGNORE, Row};
use candleshm::wire::parse::{ParseErrorKind, parse};

/// Panics unless both parsers accept the same bodies and read the same bits.
pub(crate) fn agree(body: &[u8]) {
    let mut rows = vec![[1.0; COLUMNS]];
    let result = parse(body, &mut rows);
    assert_eq!(rows[0], [1.0; COLUMNS], "rows that were there are left alone");
    let wanted = obvious(body);
    assert_eq!(result.is_ok(), wanted.is_some(), "{result:?}");
    assert_eq!(bits(&rows[1..]), bits(&wanted.unwrap_or_default()));
    if let Err(error) = result {
        assert!(error.offset <= body.len());
        assert_eq!(error.offset == body.len(), error.kind == ParseErrorKind::Ended);
    }
}

/// Returns the rows as bits: a NaN must be the same NaN.
fn bits(rows: &[Row]) -> Vec<[u64; COLUMNS]> {
    rows.iter().map(|row| row.map(f64::to_bits)).collect()
}

/// The slow and obvious parser: cuts the body into tokens and compares their shape with the only one there is.
fn obvious(body: &[u8]) -> Option<Vec<Row>> {
    let mut rest = std::str::from_utf8(body).ok()?;
    let mut shape = String::new();
    let mut values = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            ' ' | '\n' | '\r' | '\t' => 1,
            '[' | ']' | ',' => {
                shape.push(first);
                1
            }
            '"' => {
                let (text, _) = rest[1..].split_once('"')?;
                shape.push('v');
                values.push(text.parse::<f64>().ok()?);
                text.len() + 2
            }
            _ => {
                let text = rest.split(&[' ', '\n', '\r', '\t', '[', ']', ',', '"']).next()?;
                shape.push('v');
                values.push(is_json_number(text).then(|| text.parse().ok())??);
                text.len()
            }
        };
        rest = &rest[length..];
    }
    let row_shape = format!("[{}]", ["v"; COLUMNS].join(","));
    let rows_shape = vec![row_shape; values.len() / COLUMNS].join(",");
    (shape == format!("[{rows_shape}]")).then(|| {
        let (rows, _) = values.as_chunks::<COLUMNS>();
        let mut rows = rows.to_vec();
        for row in &mut rows {
            row[IGNORE] = 0.0;
        }
        rows
    })
}

fn is_json_number(text: &str) -> bool {
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    all_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && all_digits(fraction)
        && all_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
}
