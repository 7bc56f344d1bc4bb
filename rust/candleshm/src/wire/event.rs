//! One text frame of a stream as an event.
//!
//! A frame is a JSON object: an event, an event wrapped as `{"stream": name, "data": event}`, or a reply to what the
//! client sent. Of all events only klines are read, of trades, of mark prices and of indices; their twelve values have the bits that
//! [`parse`](crate::wire::parse) gives the same text in a response. Keys may come in any order, and those without a
//! meaning here are checked for being JSON and passed over.
//!
//! The scan goes once from left to right, does not recurse into what it passes over, and allocates nothing unless a
//! name holds an escape.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::str;

use crate::columns::{
    CLOSE, CLOSE_TIME_MS, HIGH, LOW, OPEN, OPEN_TIME_MS, QUOTE_VOLUME, Row, TAKER_BUY_QUOTE_VOLUME, TAKER_BUY_VOLUME,
    TRADES, VOLUME,
};
use crate::price::Price;
use crate::wire::parse::Cursor;

/// Brackets that may be open in what is passed over; more than any exchange nests.
const DEPTH_MAX: u32 = 64;

/// A pushed candle.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// What its prices are.
    pub price: Price,
    /// The symbol, as the exchange spells it; of an index the pair.
    pub symbol: Cow<'a, str>,
    /// The interval's name.
    pub interval: Cow<'a, str>,
    /// When the exchange made the event, epoch ms.
    pub event_ms: i64,
    /// The candle so far: values are cumulative, each event replaces the former.
    pub row: Row,
    /// Whether the candle is final.
    pub closed: bool,
    /// Id of the candle's first trade, -1 while it has none; a time where the prices are not those of trades.
    pub first_id: i64,
    /// Id of its newest trade, as above.
    pub last_id: i64,
    /// Whether it is of a continuous contract: the symbol is made of its pair and its kind, as `BTCUSDT:PERPETUAL`, and
    /// the ids are not those of trades.
    pub is_continuous: bool,
    /// Which futures family the symbol belongs to, where the event states it: 1 is UM, 2 is CM.
    pub family: Option<i64>,
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<'a> {
    /// A kline.
    Kline(Event<'a>),
    /// The server is about to end the connection.
    Shutdown,
    /// The reply to a subscription or another request of ours, or an error.
    Acknowledgement,
    /// An event of another kind.
    Other,
}

/// Where and why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// Byte of the frame at which the fault is; its length if it ends early or a field is missing.
    pub offset: usize,
    /// What is wrong there.
    pub kind: FrameErrorKind,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameErrorKind {
    /// Not a JSON object.
    NotAnObject,
    /// Not UTF-8.
    NotText,
    /// The frame ends before its object does.
    Ended,
    /// Not JSON, or nested deeper than [`DEPTH_MAX`] brackets.
    Syntax,
    /// Something follows the object.
    Trailing,
    /// A field of a kline has a value of the wrong kind.
    Field(&'static str),
    /// A kline has no such field.
    Missing(&'static str),
    /// Symbol or interval differ from those in the name of the stream.
    Contradiction,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at byte {}", self.kind, self.offset)
    }
}

impl fmt::Display for FrameErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("the frame is not a JSON object"),
            Self::NotText => f.write_str("the frame is not UTF-8"),
            Self::Ended => f.write_str("the frame ends before its object does"),
            Self::Syntax => f.write_str("the frame is not JSON"),
            Self::Trailing => f.write_str("something follows the object"),
            Self::Field(name) => write!(f, "`{name}` of a kline has a value of the wrong kind"),
            Self::Missing(name) => write!(f, "a kline has no `{name}`"),
            Self::Contradiction => f.write_str("symbol or interval of a kline differ from the name of its stream"),
        }
    }
}

impl Error for FrameError {}

/// Reads one text frame.
///
/// # Errors
///
/// The first fault of a frame that is no JSON object, or of a kline without a required field.
pub fn parse(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    if let Err(error) = str::from_utf8(frame) {
        return Err(FrameError { offset: error.valid_up_to(), kind: FrameErrorKind::NotText });
    }
    let mut scan = Scan { cursor: Cursor { rest: frame } };
    scan.frame().map_err(|kind| {
        let rest = scan.cursor.rest;
        let whole = matches!(kind, FrameErrorKind::Missing(_) | FrameErrorKind::Contradiction);
        let early = rest.is_empty() && !whole;
        FrameError { offset: frame.len() - rest.len(), kind: if early { FrameErrorKind::Ended } else { kind } }
    })
}

/// What is left of a frame, known to be UTF-8. A function that fails leaves the cursor at the fault.
struct Scan<'a> {
    cursor: Cursor<'a>,
}

/// The keys of an event, or of the wrapper around one.
#[derive(Default)]
struct Payload<'a> {
    kind: Option<Cow<'a, str>>,
    event_ms: Option<i64>,
    symbol: Option<Cow<'a, str>>,
    pair: Option<Cow<'a, str>>,
    contract: Option<Cow<'a, str>>,
    family: Option<i64>,
    /// The frame from the value of `k` on, which was not yet looked into.
    kline: Option<&'a [u8]>,
    /// The name of the stream, in a wrapper.
    stream: Option<Cow<'a, str>>,
    wraps: bool,
    shuts_down: bool,
    acknowledges: bool,
}

impl<'a> Scan<'a> {
    fn frame(&mut self) -> Result<Frame<'a>, FrameErrorKind> {
        let mut outer = Payload::default();
        let mut inner = Payload::default();
        self.payload(&mut outer, Some(&mut inner))?;
        self.cursor.skip_whitespace();
        if !self.cursor.rest.is_empty() {
            return Err(FrameErrorKind::Trailing);
        }
        if outer.shuts_down {
            return Ok(Frame::Shutdown);
        }
        let stream = outer.stream.take().filter(|_| outer.wraps);
        let event = if outer.wraps { inner } else { outer };
        match event.kind.as_deref() {
            Some("serverShutdown") => Ok(Frame::Shutdown),
            None if event.acknowledges => Ok(Frame::Acknowledgement),
            Some(kind) => match STREAMS.iter().find(|(event, ..)| *event == kind) {
                Some(&(kind, price, infix)) => {
                    let event = self.kline(event, price, kind == CONTINUOUS)?;
                    let is_its_own = stream.is_none_or(|name| is_name_of(&name, infix, &event));
                    if is_its_own { Ok(Frame::Kline(event)) } else { Err(FrameErrorKind::Contradiction) }
                }
                None => Ok(Frame::Other),
            },
            None => Ok(Frame::Other),
        }
    }

    /// Reads an object; `data` in it is read into `inner`.
    fn payload(
        &mut self,
        payload: &mut Payload<'a>,
        mut inner: Option<&mut Payload<'a>>,
    ) -> Result<(), FrameErrorKind> {
        if !self.cursor.take(b'{') {
            return Err(FrameErrorKind::NotAnObject);
        }
        if self.cursor.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            self.cursor.skip_whitespace();
            let before = self.cursor.rest;
            match (key, before.first()) {
                (b"e", Some(b'"')) => payload.kind = Some(self.string()?),
                (b"stream", Some(b'"')) => {
                    let name = self.string()?;
                    payload.shuts_down = name == "!serverShutdown";
                    payload.stream = Some(name);
                }
                (b"s", Some(b'"')) => payload.symbol = Some(self.string()?),
                (b"ps", Some(b'"')) => payload.pair = Some(self.string()?),
                (b"ct", Some(b'"')) => payload.contract = Some(self.string()?),
                (b"data", Some(b'{')) => match inner.as_deref_mut() {
                    Some(inner) => {
                        payload.wraps = true;
                        *inner = Payload::default();
                        self.payload(inner, None)?;
                    }
                    None => self.skip()?,
                },
                _ => {
                    self.skip()?;
                    let value = &before[..before.len() - self.cursor.rest.len()];
                    match key {
                        // Of a key that is there twice the last value counts, also one of another kind.
                        b"e" => payload.kind = None,
                        b"s" => payload.symbol = None,
                        b"E" => payload.event_ms = integer(value),
                        b"st" => payload.family = integer(value),
                        b"k" => payload.kline = Some(before),
                        b"result" | b"id" | b"code" | b"error" => payload.acknowledges = true,
                        _ => {}
                    }
                }
            }
            if self.cursor.take(b',') {
                continue;
            }
            return if self.cursor.take(b'}') { Ok(()) } else { Err(FrameErrorKind::Syntax) };
        }
    }

    /// Reads the kline of an event. Its text is known to be JSON.
    fn kline(&mut self, event: Payload<'a>, price: Price, is_continuous: bool) -> Result<Event<'a>, FrameErrorKind> {
        let text = event.kline.ok_or(FrameErrorKind::Missing("k"))?;
        let event_ms = event.event_ms.ok_or(FrameErrorKind::Missing("E"))?;
        let end = std::mem::replace(&mut self.cursor.rest, text);
        let mut row = [f64::NAN; 12];
        row[11] = 0.0;
        let (mut first_id, mut last_id, mut closed) = (None, None, None);
        let (mut symbol, mut interval) = (None, None);
        if !self.cursor.take(b'{') {
            return Err(FrameErrorKind::Field("k"));
        }
        let mut seen = 0_u32;
        while !self.cursor.take(b'}') {
            let key = self.key()?;
            self.cursor.skip_whitespace();
            if let Some((column, name)) = column_of(key) {
                row[column] = self.cursor.value().ok_or(FrameErrorKind::Field(name))?;
                seen |= 1 << column;
            } else {
                let before = self.cursor.rest;
                match (key, before.first()) {
                    (b"s", Some(b'"')) => symbol = Some(self.string()?),
                    (b"i", Some(b'"')) => interval = Some(self.string()?),
                    _ => {
                        self.skip()?;
                        let value = &before[..before.len() - self.cursor.rest.len()];
                        let fault = |name| {
                            self.cursor.rest = before;
                            FrameErrorKind::Field(name)
                        };
                        match key {
                            b"f" => first_id = Some(integer(value).ok_or("f").map_err(fault)?),
                            b"L" => last_id = Some(integer(value).ok_or("L").map_err(fault)?),
                            b"x" => closed = Some(boolean(value).ok_or("x").map_err(fault)?),
                            _ => {}
                        }
                    }
                }
            }
            self.cursor.take(b',');
        }
        self.cursor.rest = end;
        if let Some((_, name)) = KLINE_COLUMNS.iter().find(|(column, _)| seen >> column & 1 == 0) {
            return Err(FrameErrorKind::Missing(name));
        }
        let symbol = if is_continuous {
            let pair = event.pair.ok_or(FrameErrorKind::Missing("ps"))?;
            let contract = event.contract.ok_or(FrameErrorKind::Missing("ct"))?;
            Cow::Owned(format!("{pair}:{contract}"))
        } else if price == Price::Index {
            // Its `s` is a zero.
            event.pair.ok_or(FrameErrorKind::Missing("ps"))?
        } else {
            if event.symbol.is_some() && symbol.is_some() && event.symbol != symbol {
                return Err(FrameErrorKind::Contradiction);
            }
            event.symbol.or(symbol).ok_or(FrameErrorKind::Missing("s"))?
        };
        Ok(Event {
            price,
            symbol,
            interval: interval.ok_or(FrameErrorKind::Missing("i"))?,
            event_ms,
            row,
            closed: closed.ok_or(FrameErrorKind::Missing("x"))?,
            first_id: first_id.ok_or(FrameErrorKind::Missing("f"))?,
            last_id: last_id.ok_or(FrameErrorKind::Missing("L"))?,
            is_continuous,
            family: event.family,
        })
    }

    /// Reads a key and the colon behind it. A key with an escape is none that has a meaning here.
    fn key(&mut self) -> Result<&'a [u8], FrameErrorKind> {
        self.cursor.skip_whitespace();
        let key = self.raw_string()?;
        if self.cursor.take(b':') { Ok(key) } else { Err(FrameErrorKind::Syntax) }
    }

    /// Reads a string and resolves its escapes.
    fn string(&mut self) -> Result<Cow<'a, str>, FrameErrorKind> {
        let before = self.cursor.rest;
        let raw = self.raw_string()?;
        match str::from_utf8(raw) {
            Ok(text) if !raw.contains(&b'\\') => Ok(Cow::Borrowed(text)),
            Ok(text) => unescaped(text).map(Cow::Owned).ok_or_else(|| {
                self.cursor.rest = before;
                FrameErrorKind::Syntax
            }),
            Err(_) => Err(FrameErrorKind::NotText),
        }
    }

    /// Reads a string and returns what stands between its quotes.
    fn raw_string(&mut self) -> Result<&'a [u8], FrameErrorKind> {
        let [b'"', text @ ..] = self.cursor.rest else { return Err(FrameErrorKind::Syntax) };
        let mut at = 0;
        loop {
            match text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => at += self.escape(&text[at..])?,
                Some(0x20..) => at += 1,
                _ => {
                    self.cursor.rest = &text[at.min(text.len())..];
                    return Err(FrameErrorKind::Syntax);
                }
            }
        }
        self.cursor.rest = &text[at + 1..];
        Ok(&text[..at])
    }

    /// Returns the length of the escape that `text` begins with.
    #[cold]
    fn escape(&mut self, text: &'a [u8]) -> Result<usize, FrameErrorKind> {
        let digits = text.get(2..6).unwrap_or_default();
        match text.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u') if digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit) => Ok(6),
            _ => {
                self.cursor.rest = text;
                Err(FrameErrorKind::Syntax)
            }
        }
    }

    /// Passes over one JSON value. The kinds of the open brackets lie in the bits of one word.
    fn skip(&mut self) -> Result<(), FrameErrorKind> {
        let (mut depth, mut objects) = (0_u32, 0_u64);
        loop {
            self.cursor.skip_whitespace();
            match self.cursor.rest {
                [opening @ (b'{' | b'['), rest @ ..] => {
                    if depth == DEPTH_MAX {
                        return Err(FrameErrorKind::Syntax);
                    }
                    let is_object = *opening == b'{';
                    self.cursor.rest = rest;
                    (depth, objects) = (depth + 1, objects << 1 | u64::from(is_object));
                    if self.cursor.take(if is_object { b'}' } else { b']' }) {
                        (depth, objects) = (depth - 1, objects >> 1);
                    } else {
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                [b'"', ..] => {
                    self.raw_string()?;
                }
                [b't', b'r', b'u', b'e', rest @ ..]
                | [b'n', b'u', b'l', b'l', rest @ ..]
                | [b'f', b'a', b'l', b's', b'e', rest @ ..] => self.cursor.rest = rest,
                [b'-' | b'0'..=b'9', ..] => {
                    self.cursor.value().ok_or(FrameErrorKind::Syntax)?;
                }
                rest => {
                    if [&b"true"[..], b"false", b"null"].iter().any(|literal| literal.starts_with(rest)) {
                        self.cursor.rest = &[];
                    }
                    return Err(FrameErrorKind::Syntax);
                }
            }
            // Behind a value: the next one, or the end of one bracket or more.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let in_object = objects & 1 == 1;
                if self.cursor.take(b',') {
                    if in_object {
                        self.key()?;
                    }
                    break;
                }
                if !self.cursor.take(if in_object { b'}' } else { b']' }) {
                    return Err(FrameErrorKind::Syntax);
                }
                (depth, objects) = (depth - 1, objects >> 1);
            }
        }
    }
}

/// The columns that a kline names, with its letters for them.
const KLINE_COLUMNS: [(usize, &str); 11] = [
    (OPEN_TIME_MS, "t"),
    (OPEN, "o"),
    (HIGH, "h"),
    (LOW, "l"),
    (CLOSE, "c"),
    (VOLUME, "v"),
    (CLOSE_TIME_MS, "T"),
    (QUOTE_VOLUME, "q"),
    (TRADES, "n"),
    (TAKER_BUY_VOLUME, "V"),
    (TAKER_BUY_QUOTE_VOLUME, "Q"),
];

#[inline]
fn column_of(key: &[u8]) -> Option<(usize, &'static str)> {
    let &[letter] = key else { return None };
    KLINE_COLUMNS.into_iter().find(|(_, name)| name.as_bytes()[0] == letter)
}

/// The events that are read, what their prices are, and what stands between symbol and interval in a stream's name.
const STREAMS: [(&str, Price, &str); 4] = [
    ("kline", Price::Trade, "@kline_"),
    (CONTINUOUS, Price::Trade, "@continuousKline_"),
    ("markPrice_kline", Price::Mark, "@markPriceKline_"),
    ("indexPrice_kline", Price::Index, "@indexPriceKline_"),
];

const CONTINUOUS: &str = "continuous_kline";

/// Whether a stream of this name, with that between symbol and interval, brings candles of the event's symbol and
/// interval. In the name of a stream of a continuous contract the colon of its symbol is an underscore.
fn is_name_of(name: &str, infix: &str, event: &Event<'_>) -> bool {
    let rest = name.strip_suffix(&*event.interval);
    let symbol = rest.and_then(|rest| rest.strip_suffix(infix));
    let own =
        if event.is_continuous { Cow::Owned(event.symbol.replace(':', "_")) } else { Cow::Borrowed(&*event.symbol) };
    symbol.is_some_and(|symbol| symbol.eq_ignore_ascii_case(&own) || symbol.to_lowercase() == own.to_lowercase())
}

fn integer(text: &[u8]) -> Option<i64> {
    str::from_utf8(text).ok()?.parse().ok()
}

fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Resolves the escapes of a JSON string; `None` for half of a surrogate pair.
#[cold]
fn unescaped(text: &str) -> Option<String> {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        resolved.push_str(plain);
        let unit = |at: usize| u16::from_str_radix(escaped.get(at..at + 4)?, 16).ok();
        let (character, length) = match escaped.as_bytes().first()? {
            b'b' => ('\u{8}', 1),
            b'f' => ('\u{c}', 1),
            b'n' => ('\n', 1),
            b'r' => ('\r', 1),
            b't' => ('\t', 1),
            b'u' => {
                let pair = [unit(1)?, unit(7).filter(|_| escaped.get(5..7) == Some("\\u")).unwrap_or(0)];
                let mut characters = char::decode_utf16(pair);
                let first = characters.next()?.ok()?;
                (first, if first.len_utf16() == 2 { 11 } else { 5 })
            }
            &other => (char::from(other), 1),
        };
        resolved.push(character);
        rest = &escaped[length..];
    }
    resolved.push_str(rest);
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// A captured SPOT frame.
    const SPOT: &str = concat!(
        r#"{"stream":"nknusdt@kline_1m","data":{"e":"kline","E":1633998523963,"s":"NKNUSDT","k":{"t":1633998480000,"#,
        r#""T":1633998539999,"s":"NKNUSDT","i":"1m","f":19862761,"L":19862790,"o":"0.35270000","c":"0.35280000","#,
        r#""h":"0.35280000","l":"0.35220000","v":"25877.00000000","n":30,"x":false,"q":"9116.04600000","#,
        r#""V":"58.00000000","Q":"20.46240000","B":"0"}}}"#,
    );

    /// Returns the values as bits: a NaN must be the same NaN.
    fn bits(row: &Row) -> [u64; 12] {
        row.map(f64::to_bits)
    }

    /// The slow and obvious reader: all of the JSON as a tree, then what is wanted of it.
    #[derive(Debug, PartialEq)]
    enum Obvious {
        Kline(String, String, i64, [u64; 12], bool, i64, i64, Option<i64>),
        Shutdown,
        Acknowledgement,
        Other,
    }

    fn obvious(frame: &[u8]) -> Option<Obvious> {
        let tree: Value = serde_json::from_slice(frame).ok()?;
        let outer = tree.as_object()?;
        if outer.get("stream").and_then(Value::as_str) == Some("!serverShutdown") {
            return Some(Obvious::Shutdown);
        }
        let event = outer.get("data").and_then(Value::as_object).unwrap_or(outer);
        let integer = |value: Option<&Value>| match value {
            Some(Value::Number(number)) => number.to_string().parse().ok(),
            _ => None,
        };
        match event.get("e").and_then(Value::as_str) {
            Some("kline") => {
                let kline = event.get("k")?.as_object()?;
                let number = |name: &str| match kline.get(name)? {
                    Value::Number(number) => number.to_string().parse::<f64>().ok(),
                    Value::String(text) => text.parse().ok(),
                    _ => None,
                };
                let mut row = [0.0; 12];
                for (column, name) in KLINE_COLUMNS {
                    row[column] = number(name)?;
                }
                let named = [event, kline].map(|object| object.get("s").and_then(Value::as_str));
                let symbol = named.into_iter().flatten().next()?;
                if named.iter().flatten().any(|other| *other != symbol) {
                    return None;
                }
                if let (Some(name), Some(_)) = (outer.get("stream").and_then(Value::as_str), outer.get("data")) {
                    let expected = format!("{}@kline_{}", symbol.to_lowercase(), kline.get("i")?.as_str()?);
                    if name.to_lowercase() != expected.to_lowercase() {
                        return None;
                    }
                }
                Some(Obvious::Kline(
                    symbol.to_owned(),
                    kline.get("i")?.as_str()?.to_owned(),
                    integer(event.get("E"))?,
                    bits(&row),
                    kline.get("x")?.as_bool()?,
                    integer(kline.get("f"))?,
                    integer(kline.get("L"))?,
                    integer(event.get("st")),
                ))
            }
            Some("serverShutdown") => Some(Obvious::Shutdown),
            None if ["result", "id", "code", "error"].iter().any(|key| event.contains_key(*key)) => {
                Some(Obvious::Acknowledgement)
            }
            Some(_) | None => Some(Obvious::Other),
        }
    }

    fn seen(frame: Frame<'_>) -> Obvious {
        match frame {
            Frame::Kline(event) => Obvious::Kline(
                event.symbol.into_owned(),
                event.interval.into_owned(),
                event.event_ms,
                bits(&event.row),
                event.closed,
                event.first_id,
                event.last_id,
                event.family,
            ),
            Frame::Shutdown => Obvious::Shutdown,
            Frame::Acknowledgement => Obvious::Acknowledgement,
            Frame::Other => Obvious::Other,
        }
    }

    /// Fails unless `parse` and the obvious reader agree about a frame.
    fn agree(frame: &[u8]) -> Result<(), TestCaseError> {
        let result = parse(frame);
        if let Err(error) = &result {
            prop_assert!(error.offset <= frame.len());
        }
        prop_assert_eq!(result.ok().map(seen), obvious(frame), "{}", String::from_utf8_lossy(frame));
        Ok(())
    }

    #[test]
    fn captured_spot_frame() {
        let Ok(Frame::Kline(event)) = parse(SPOT.as_bytes()) else { panic!("the exchange sent it") };
        assert_eq!((&*event.symbol, &*event.interval, event.event_ms), ("NKNUSDT", "1m", 1_633_998_523_963));
        assert_eq!((event.first_id, event.last_id, event.closed, event.family), (19_862_761, 19_862_790, false, None));
        let row = [
            1_633_998_480_000.0,
            0.3527,
            0.3528,
            0.3522,
            0.3528,
            25_877.0,
            1_633_998_539_999.0,
            9_116.046,
            30.0,
            58.0,
            20.4624,
            0.0,
        ];
        assert_eq!(bits(&event.row), bits(&row));
    }

    #[test]
    fn a_wrapped_event_and_a_bare_one_say_the_same() {
        let bare = SPOT.strip_prefix(r#"{"stream":"nknusdt@kline_1m","data":"#).and_then(|rest| rest.strip_suffix('}'));
        assert_eq!(parse(bare.expect("it is wrapped").as_bytes()), parse(SPOT.as_bytes()));
    }

    /// As the exchange's pages show them.
    const MARK: &str = r#"{"stream":"btcusd_200626@markPriceKline_1m","data":{"e":"markPrice_kline","E":1591267398004,"ps":"BTCUSD","k":{"t":1591267380000,"T":1591267439999,"s":"BTCUSD_200626","i":"1m","f":1591267380000,"L":1591267398000,"o":"9539.67161333","c":"9540.82761333","h":"9540.82761333","l":"9539.66961333","v":"0","n":19,"x":false,"q":"0","V":"0","Q":"0","B":"0"}}}"#;
    const INDEX: &str = r#"{"e":"indexPrice_kline","E":1591267070033,"ps":"BTCUSD","k":{"t":1591267020000,"T":1591267079999,"s":"0","i":"1m","f":1591267020000,"L":1591267070000,"o":"9542.21900000","c":"9542.50440000","h":"9542.71640000","l":"9542.21040000","v":"0","n":59,"x":true,"q":"0","V":"0","Q":"0","B":"0"}}"#;

    #[test]
    fn events_of_mark_price_and_index() {
        let Ok(Frame::Kline(mark)) = parse(MARK.as_bytes()) else { panic!("the exchange sends it") };
        assert_eq!((mark.price, &*mark.symbol, &*mark.interval), (Price::Mark, "BTCUSD_200626", "1m"));
        let row = [1_591_267_380_000.0, 9_539.671_613_33, 9_540.827_613_33, 9_539.669_613_33, 9_540.827_613_33];
        assert_eq!(mark.row[..5], row);
        assert_eq!((mark.row[VOLUME], mark.row[TRADES], mark.closed), (0.0, 19.0, false));
        let Ok(Frame::Kline(index)) = parse(INDEX.as_bytes()) else { panic!("the exchange sends it") };
        assert_eq!((index.price, &*index.symbol, index.closed), (Price::Index, "BTCUSD", true));

        for name in ["btcusd_200626@kline_1m", "btcusd@markPriceKline_1m", "btcusd_200626@indexPriceKline_1m"] {
            let frame = MARK.replace("btcusd_200626@markPriceKline_1m", name);
            assert_eq!(parse(frame.as_bytes()).expect_err("another stream").kind, FrameErrorKind::Contradiction);
        }
        let without_pair = INDEX.replace(r#""ps":"BTCUSD","#, "");
        assert_eq!(parse(without_pair.as_bytes()).expect_err("no pair").kind, FrameErrorKind::Missing("ps"));
    }

    /// As the exchange's pages show it: its ids are far more than its trades.
    const CONTINUOUS_EVENT: &str = r#"{"stream":"btcusdt_perpetual@continuousKline_1m","data":{"e":"continuous_kline","E":1607443058651,"ps":"BTCUSDT","ct":"PERPETUAL","k":{"t":1607443020000,"T":1607443079999,"i":"1m","f":116467658886,"L":116468012423,"o":"18787.00","c":"18804.04","h":"18804.04","l":"18786.54","v":"197.664","n":543,"x":false,"q":"3715253.19494","V":"184.769","Q":"3472925.84746","B":"0"}}}"#;

    #[test]
    fn events_of_continuous_contracts() {
        let Ok(Frame::Kline(event)) = parse(CONTINUOUS_EVENT.as_bytes()) else { panic!("the exchange sends it") };
        assert_eq!((event.price, &*event.symbol, &*event.interval), (Price::Trade, "BTCUSDT:PERPETUAL", "1m"));
        assert!(event.is_continuous && !event.closed);
        assert_eq!((event.row[TRADES], event.row[CLOSE]), (543.0, 18_804.04));

        for name in
            ["btcusdt_perpetual@kline_1m", "btcusdt@continuousKline_1m", "btcusdt_current_quarter@continuousKline_1m"]
        {
            let frame = CONTINUOUS_EVENT.replace("btcusdt_perpetual@continuousKline_1m", name);
            assert_eq!(parse(frame.as_bytes()).expect_err("another stream").kind, FrameErrorKind::Contradiction);
        }
        for (field, name) in [(r#""ps":"BTCUSDT","#, "ps"), (r#""ct":"PERPETUAL","#, "ct")] {
            let frame = CONTINUOUS_EVENT.replace(field, "");
            assert_eq!(parse(frame.as_bytes()).expect_err("no name").kind, FrameErrorKind::Missing(name));
        }
    }

    #[test]
    fn fields_in_any_order_and_fields_without_a_meaning() {
        let frame = concat!(
            r#" {"data" : {"k":{"x":true,"zz":[{"a":[]},{}],"Q":"1","V":"2","q":"3","n":0,"v":"0","l":"1","h":"1","c":"1","#,
            r#""o":"1","L":-1,"f":-1,"i":"1m","T":59999,"t":0,"s":"A"},"ps":"A","st":1,"E":7,"e":"kline"},"stream":"a@kline_1m"} "#,
        );
        let Ok(Frame::Kline(event)) = parse(frame.as_bytes()) else { panic!("well formed") };
        assert_eq!((&*event.symbol, event.family, event.closed, event.first_id), ("A", Some(1), true, -1));
        assert_eq!(event.row, [0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 59_999.0, 3.0, 0.0, 2.0, 1.0, 0.0]);
    }

    #[test]
    fn of_a_key_that_is_there_twice_the_last_value_counts() {
        for (twice, is_kline) in [(r#""E":1,"E":1633998523963"#, true), (r#""E":1633998523963,"e":{}"#, false)] {
            let frame = SPOT.replace(r#""E":1633998523963"#, twice);
            assert_eq!(matches!(parse(frame.as_bytes()), Ok(Frame::Kline(_))), is_kline, "{frame}");
            agree(frame.as_bytes()).expect("both read the last one");
        }
    }

    #[test]
    fn symbols_beyond_ascii_and_escaped_ones() {
        for text in [r"\u5e01\u5b89", "币安", r"\ud83d\ude80", r"a\/b\n"] {
            let frame = SPOT.replace("NKNUSDT", text).replace("nknusdt", text);
            assert!(parse(frame.as_bytes()).is_ok(), "{text}");
            assert_eq!(parse(frame.as_bytes()).ok().map(seen), obvious(frame.as_bytes()), "{text}");
        }
        assert!(parse(SPOT.replace("NKNUSDT", r"\ud83d").as_bytes()).is_err());
    }

    #[test]
    fn an_event_under_the_name_of_another_stream_is_refused() {
        for (from, to) in [
            (r#""stream":"nknusdt@kline_1m""#, r#""stream":"btcusdt@kline_1m""#),
            (r#""stream":"nknusdt@kline_1m""#, r#""stream":"nknusdt@kline_1h""#),
            (r#""stream":"nknusdt@kline_1m""#, r#""stream":"nknusdt@kline_1m@+08:00""#),
            (r#""stream":"nknusdt@kline_1m""#, r#""stream":"""#),
            (r#""E":1633998523963,"s":"NKNUSDT""#, r#""E":1633998523963,"s":"BTCUSDT""#),
            (r#""T":1633998539999,"s":"NKNUSDT""#, r#""T":1633998539999,"s":"BTCUSDT""#),
            (r#""i":"1m""#, r#""i":"1s""#),
        ] {
            let frame = SPOT.replace(from, to);
            assert_ne!(frame, SPOT);
            let error = parse(frame.as_bytes()).expect_err(&frame);
            assert_eq!(error.kind, FrameErrorKind::Contradiction, "{frame}");
        }
    }

    #[test]
    fn other_frames() {
        for (frame, expected) in [
            (r#"{"result":null,"id":1}"#, Frame::Acknowledgement),
            (r#"{"code":2,"msg":"Invalid request: request ID must be an unsigned integer"}"#, Frame::Acknowledgement),
            (r#"{"error":{"code":0,"msg":"Unknown property"},"id":"a"}"#, Frame::Acknowledgement),
            (r#"{"e":"serverShutdown","E":1770123456789}"#, Frame::Shutdown),
            (r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}"#, Frame::Shutdown),
            (r#"{"stream":"a@aggTrade","data":{"e":"aggTrade","k":7,"E":1}}"#, Frame::Other),
            ("{}", Frame::Other),
        ] {
            assert_eq!(parse(frame.as_bytes()), Ok(expected), "{frame}");
        }
    }

    #[test]
    fn faults_and_where_they_are() {
        let without_close = SPOT.replace(r#""x":false,"#, "");
        let end = without_close.len();
        for (frame, message) in [
            ("", "the frame ends before its object does, at byte 0".to_owned()),
            ("[]", "the frame is not a JSON object, at byte 0".to_owned()),
            ("<html>", "the frame is not a JSON object, at byte 0".to_owned()),
            (r#"{"e":"kline"}x"#, "something follows the object, at byte 13".to_owned()),
            (r#"{"e":tru}"#, "the frame is not JSON, at byte 5".to_owned()),
            (r#"{"e":"kline","E":1}"#, "a kline has no `k`, at byte 19".to_owned()),
            (&without_close, format!("a kline has no `x`, at byte {end}")),
            (
                &SPOT.replace(r#""n":30"#, r#""n":null"#),
                "`n` of a kline has a value of the wrong kind, at byte 264".to_owned(),
            ),
            (&SPOT.replace("19862790", "1.5"), "`L` of a kline has a value of the wrong kind, at byte 162".to_owned()),
        ] {
            assert_eq!(parse(frame.as_bytes()).expect_err(frame).to_string(), message, "{frame}");
        }
        assert_eq!(parse(b"{\"e\":\"\xff\"}"), Err(FrameError { offset: 6, kind: FrameErrorKind::NotText }));
        let deep = format!(r#"{{"a":{}}}"#, "[".repeat(100));
        assert_eq!(parse(deep.as_bytes()).map_err(|error| error.kind), Err(FrameErrorKind::Syntax));
    }

    #[test]
    fn every_truncation_is_a_fault() {
        for length in 0..SPOT.len() {
            let error = parse(&SPOT.as_bytes()[..length]).expect_err("the object is not closed");
            assert_eq!(error, FrameError { offset: length, kind: FrameErrorKind::Ended });
        }
    }

    /// Values of any kind, some of them nested.
    fn values() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "-?(0|[1-9][0-9]{0,14})",
            "\"[0-9]{1,9}\\.[0-9]{1,8}\"",
            "\"[a-zA-Z\u{4e00}-\u{4e10} @_]{0,6}\"",
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            Just("-1.5e3".to_owned()),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(" , "))),
                prop::collection::vec(inner, 0..4).prop_map(|values| {
                    let pairs: Vec<String> =
                        values.iter().enumerate().map(|(index, value)| format!("\"{index}\": {value}")).collect();
                    format!("{{{}}}", pairs.join(","))
                }),
            ]
        })
    }

    /// Frames with all fields of a kline in some order, now and then one left out or of another kind.
    fn frames() -> impl Strategy<Value = String> {
        let number = prop_oneof!["\"[0-9]{1,12}\\.[0-9]{1,8}\"", "[1-9][0-9]{0,14}", "\"-?[0-9]{1,3}e[0-9]{1,2}\""];
        let field = |name: &'static str, good: BoxedStrategy<String>| {
            prop_oneof![
                30 => good.prop_map(move |value| Some(format!("\"{name}\":{value}"))),
                1 => values().prop_map(move |value| Some(format!("\"{name}\" : {value}"))),
                1 => Just(None),
            ]
            .boxed()
        };
        let integer = || "-?[1-9][0-9]{0,17}".boxed();
        let mut kline: Vec<BoxedStrategy<Option<String>>> =
            KLINE_COLUMNS.iter().map(|&(_, name)| field(name, number.clone().boxed())).collect();
        kline.extend(["f", "L"].map(|name| field(name, integer())));
        kline.push(field("i", Just("\"1m\"".to_owned()).boxed()));
        kline.push(field("s", "\"[AB]\"".boxed()));
        kline.push(field("x", "true|false".boxed()));
        kline.push(field("zz", values().boxed()));
        let object = |fields: Vec<Option<String>>| {
            let given: Vec<String> = fields.into_iter().flatten().collect();
            format!("{{{}}}", given.join(","))
        };
        let kline = kline.prop_shuffle().prop_map(object);
        let event = vec![
            kline.prop_map(|kline| Some(format!("\"k\":{kline}"))).boxed(),
            field("e", prop_oneof![9 => Just("\"kline\"".to_owned()), 1 => values()].boxed()),
            field("E", integer()),
            field("s", "\"[AB]\"".boxed()),
            field("ps", values().boxed()),
            field("st", "[12]".boxed()),
        ];
        let event = event.prop_shuffle().prop_map(object);
        (event, any::<bool>()).prop_map(|(event, wrapped)| {
            if wrapped { format!("{{\"stream\":\"a@kline_1m\",\"data\":{event}}}") } else { event }
        })
    }

    proptest! {
        #[test]
        fn well_formed_frames(frame in frames()) {
            agree(frame.as_bytes())?;
        }

        #[test]
        fn any_object(value in values()) {
            agree(value.as_bytes())?;
        }

        #[test]
        fn mutated_frames(
            frame in frames(),
            edits in prop::collection::vec(
                (
                    any::<prop::sample::Index>(),
                    0..3_usize,
                    prop::collection::vec(prop::sample::select(&b"[]{},:\"\\.+-eEntrufalsx0123456789 \n\0\xff"[..]), 0..3),
                ),
                1..3,
            ),
        ) {
            let mut frame = frame.into_bytes();
            for (at, removed, inserted) in edits {
                let start = at.index(frame.len() + 1);
                let end = frame.len().min(start + removed);
                frame.splice(start..end, inserted);
            }
            let result = parse(&frame);
            prop_assert!(result.as_ref().err().is_none_or(|error| error.offset <= frame.len()));
            // An edit may make a key that is there twice, or an escaped one: of these nothing is claimed.
            if !frame.contains(&b'\\') {
                prop_assert_eq!(result.is_ok(), obvious(&frame).is_some(), "{}", String::from_utf8_lossy(&frame));
            }
        }

        #[test]
        fn arbitrary_bytes(frame in prop::collection::vec(any::<u8>(), 0..64)) {
            agree(&frame)?;
        }
    }
}
