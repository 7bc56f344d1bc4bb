//! Rows as events of a kline stream, and texts as frames of a websocket.

use crate::columns::{
    CLOSE, CLOSE_TIME_MS, HIGH, LOW, OPEN, OPEN_TIME_MS, QUOTE_VOLUME, Row, TAKER_BUY_QUOTE_VOLUME, TAKER_BUY_VOLUME,
    TRADES, VOLUME,
};
use crate::wire::text::{Decimals, write_quoted, write_whole};

/// A text that is not continued, in one frame (RFC 6455, section 5.2).
const FINAL_TEXT: u8 = 0x81;
/// Bytes of an event, or of a frame's header and wrapper, that are set aside.
const EVENT_BYTES: usize = 400;

/// What all events of a series have in common.
#[derive(Clone, Debug)]
pub struct EventText {
    /// From the symbol on up to the candle, and from the symbol of the candle on up to its values.
    outer: Vec<u8>,
    inner: Vec<u8>,
    decimals: Option<Decimals>,
}

impl EventText {
    /// Prepares the events of a symbol whose candles have that interval.
    #[must_use]
    pub fn new(symbol: &str, interval: &str, decimals: Option<Decimals>) -> Self {
        let mut outer = b",\"s\":".to_vec();
        write_string(&mut outer, symbol);
        outer.extend_from_slice(b",\"k\":{\"t\":");
        let mut inner = b",\"s\":".to_vec();
        write_string(&mut inner, symbol);
        inner.extend_from_slice(b",\"i\":");
        write_string(&mut inner, interval);
        // A block has no trade ids: the exchange sends -1 where there is none.
        inner.extend_from_slice(b",\"f\":-1,\"L\":-1");
        Self { outer, inner, decimals }
    }

    /// Appends the event of a row, made at `event_ms`. Values have to be finite.
    pub fn write(&self, text: &mut Vec<u8>, event_ms: i64, row: &Row, is_final: bool) {
        text.reserve(EVENT_BYTES);
        text.extend_from_slice(b"{\"e\":\"kline\",\"E\":");
        write_whole(text, event_ms as f64);
        text.extend_from_slice(&self.outer);
        write_whole(text, row[OPEN_TIME_MS]);
        text.extend_from_slice(b",\"T\":");
        write_whole(text, row[CLOSE_TIME_MS]);
        text.extend_from_slice(&self.inner);
        self.write_values(text, row, &[("o", OPEN), ("c", CLOSE), ("h", HIGH), ("l", LOW), ("v", VOLUME)]);
        text.extend_from_slice(b",\"n\":");
        write_whole(text, row[TRADES]);
        text.extend_from_slice(if is_final { b",\"x\":true" } else { b",\"x\":false" });
        self.write_values(text, row, &[("q", QUOTE_VOLUME), ("V", TAKER_BUY_VOLUME), ("Q", TAKER_BUY_QUOTE_VOLUME)]);
        text.extend_from_slice(b",\"B\":\"0\"}}");
    }

    fn write_values(&self, text: &mut Vec<u8>, row: &Row, columns: &[(&str, usize)]) {
        for &(key, column) in columns {
            text.extend_from_slice(b",\"");
            text.extend_from_slice(key.as_bytes());
            text.extend_from_slice(b"\":");
            write_quoted(text, row, column, self.decimals);
        }
    }
}

/// Returns an event as a whole text frame of a server: as it is, or wrapped with the name of its stream.
#[must_use]
pub fn frame(event: &[u8], stream: Option<&str>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(event.len() + EVENT_BYTES);
    if let Some(stream) = stream {
        payload.extend_from_slice(b"{\"stream\":");
        write_string(&mut payload, stream);
        payload.extend_from_slice(b",\"data\":");
    }
    payload.extend_from_slice(event);
    if stream.is_some() {
        payload.push(b'}');
    }
    let length = payload.len() as u64;
    let mut frame = Vec::with_capacity(10 + payload.len());
    frame.push(FINAL_TEXT);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=125), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&payload);
    frame
}

/// Appends a JSON string.
fn write_string(text: &mut Vec<u8>, string: &str) {
    text.push(b'"');
    for &byte in string.as_bytes() {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                text.extend_from_slice(b"\\u00");
                text.push(b'0' + (byte >> 4));
                text.push(b"0123456789abcdef"[usize::from(byte & 15)]);
            }
            _ => text.push(byte),
        }
    }
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::event::{Event, Frame, parse};

    /// Captured, but for the ids of trades.
    const CAPTURED: [(&str, &str, [u8; 4]); 2] = [
        (
            r#"{"e":"kline","E":1626916405054,"s":"ETHUSD_210924","k":{"t":1626916380000,"T":1626916439999,"s":"ETHUSD_210924","i":"1m","f":-1,"L":-1,"o":"1992.70","c":"1992.17","h":"1993.71","l":"1992.17","v":"1893","n":41,"x":false,"q":"9.49653573","V":"1368","Q":"6.86228695","B":"0"}}"#,
            "ETHUSD_210924",
            [2, 0, 8, 0],
        ),
        (
            r#"{"e":"kline","E":1681154040004,"s":"LTCBRL","k":{"t":1681153980000,"T":1681154039999,"s":"LTCBRL","i":"1m","f":-1,"L":-1,"o":"473.30000000","c":"473.10000000","h":"473.30000000","l":"473.10000000","v":"0.53400000","n":2,"x":true,"q":"252.73120000","V":"0.00000000","Q":"0.00000000","B":"0"}}"#,
            "LTCBRL",
            [1, 3, 4, 8],
        ),
    ];

    #[test]
    fn captured_events_come_back() {
        for (sent, symbol, [price, lot, turnover, padded_to]) in CAPTURED {
            let Ok(Frame::Kline(Event { event_ms, row, closed, .. })) = parse(sent.as_bytes()) else {
                panic!("a kline: {sent}")
            };
            let mut text = Vec::new();
            let decimals = Decimals::new(price, lot, turnover, padded_to);
            EventText::new(symbol, "1m", decimals).write(&mut text, event_ms, &row, closed);
            assert_eq!(String::from_utf8(text).expect("UTF-8"), sent);
        }
    }

    #[test]
    fn frames_have_headers_of_three_lengths() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xFF, 0xFF]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let event = vec![b'x'; length];
            assert_eq!(frame(&event, None), [header, event].concat());
        }
        assert_eq!(frame(b"{}", Some("a@kline_1m")), b"\x81\x21{\"stream\":\"a@kline_1m\",\"data\":{}}");
    }

    proptest! {
        #[test]
        fn any_name_is_a_json_string(name in any::<String>()) {
            let mut text = Vec::new();
            write_string(&mut text, &name);
            prop_assert_eq!(serde_json::from_slice::<String>(&text).expect("JSON"), name);
        }

        #[test]
        fn an_event_is_read_as_what_it_was_written_from(
            values in prop::array::uniform12(0.0..1e12_f64),
            symbol in "[A-Z0-9_]{1,12}|币安人生USDT",
            event_ms in 0..4_000_000_000_000_i64,
            is_final in any::<bool>(),
            wrapped in any::<bool>(),
        ) {
            let mut row = values;
            for whole in [OPEN_TIME_MS, CLOSE_TIME_MS, TRADES] {
                row[whole] = row[whole].floor();
            }
            row[11] = 0.0;
            let mut text = Vec::new();
            EventText::new(&symbol, "1h", None).write(&mut text, event_ms, &row, is_final);
            let stream = format!("{}@kline_1h", symbol.to_lowercase());
            let framed = frame(&text, wrapped.then_some(stream.as_str()));
            let header = if framed[1] == 126 { 4 } else { 2 };
            let Ok(Frame::Kline(event)) = parse(&framed[header..]) else { panic!("a kline") };
            prop_assert_eq!(event.row, row);
            prop_assert_eq!((&*event.symbol, &*event.interval), (&*symbol, "1h"));
            prop_assert_eq!((event.event_ms, event.closed), (event_ms, is_final));
            prop_assert_eq!((event.first_id, event.last_id), (-1, -1));
        }
    }
}
