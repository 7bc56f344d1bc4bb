//! A slow reader of archive files that is obviously right, and the demand that the real one agrees with it.

use candleshm::columns::{CLOSE_TIME_MS, COLUMNS, IGNORE, OPEN_TIME_MS, Row};
use candleshm::wire::archive_csv::{HEADER, parse_csv};

/// Panics unless both accept the same files and read the same bits.
pub(crate) fn agree(file: &[u8]) {
    let mut rows = vec![[1.0; COLUMNS]];
    let result = parse_csv(file, &mut rows);
    assert_eq!(rows[0], [1.0; COLUMNS], "rows that were there are left alone");
    let wanted = obvious(file);
    assert_eq!(result.is_ok(), wanted.is_some(), "{result:?}");
    assert_eq!(bits(&rows[1..]), bits(&wanted.unwrap_or_default()));
    if let Err(error) = result {
        assert!(error.offset <= file.len());
        assert_eq!(error.line, file[..error.offset].split(|&byte| byte == b'\n').count());
    }
}

/// Returns the rows as bits: a NaN must be the same NaN.
fn bits(rows: &[Row]) -> Vec<[u64; COLUMNS]> {
    rows.iter().map(|row| row.map(f64::to_bits)).collect()
}

/// The slow and obvious reader: splits the text into lines and the lines into fields.
fn obvious(file: &[u8]) -> Option<Vec<Row>> {
    let mut text = std::str::from_utf8(file).ok()?;
    if text.starts_with(|first: char| !first.is_ascii_digit()) {
        let rest = text.strip_prefix(HEADER)?;
        text = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).or(rest.is_empty().then_some(""))?;
    }
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    let count = lines.len();
    let mut rows = Vec::new();
    for (index, line) in lines.into_iter().enumerate() {
        // Only where a line feed was, a carriage return before it belongs to the end of the line.
        let has_feed = index + 1 < count || text.ends_with('\n');
        let line = if has_feed { line.strip_suffix('\r').unwrap_or(line) } else { line };
        let fields: Vec<&str> = line.split(',').collect();
        let values: Vec<f64> = fields.iter().map(|value| value.parse().ok()).collect::<Option<_>>()?;
        let mut row: Row = values.try_into().ok()?;
        for column in [OPEN_TIME_MS, CLOSE_TIME_MS] {
            row[column] = milliseconds(fields[column], row[column]);
        }
        row[IGNORE] = 0.0;
        rows.push(row);
    }
    Some(rows)
}

/// Whole numbers are cut before they become a double, others after.
fn milliseconds(text: &str, time: f64) -> f64 {
    if time <= 1e14 || time.is_nan() {
        return time;
    }
    let is_whole = text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(whole) if is_whole => (whole / 1000) as f64,
        _ => (time / 1000.0).floor(),
    }
}
