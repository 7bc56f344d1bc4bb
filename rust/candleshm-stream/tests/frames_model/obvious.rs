//! Frames of a server as RFC 6455 defines them, read from the whole input: slow, obvious, and without a line of ours.

use candleshm_stream::frames::{Frames, Message, PARTS_MAX, TEXT_BYTES_MAX, Violation};

/// A message with its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Whole, or joined from parts.
    Text(Vec<u8>),
    Other,
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>, String),
}

/// The kind of a violation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Header,
    Control,
    Order,
    Length,
    Parts,
}

/// Returns the messages of an input, and what it must not hold.
pub(crate) fn obvious(input: &[u8]) -> (Vec<Seen>, Option<Fault>) {
    let mut seen = Vec::new();
    let mut rest = input;
    // A message that has begun: whether it is a text, what came of it, in how many parts.
    let mut begun: Option<(bool, Vec<u8>, u32)> = None;
    while rest.len() >= 2 {
        let (first, second) = (rest[0], rest[1]);
        let (is_last, opcode, is_masked) = (first >= 128, first % 16, second >= 128);
        let length_bytes = match second % 128 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let header_bytes = 2 + length_bytes + if is_masked { 4 } else { 0 };
        if rest.len() < header_bytes {
            break;
        }
        let mut length = u64::from(second % 128);
        if length_bytes > 0 {
            length = rest[2..2 + length_bytes].iter().fold(0, |number, &byte| number * 256 + u64::from(byte));
        }
        if ![0, 1, 2, 8, 9, 10].contains(&opcode) || first / 16 % 8 != 0 || is_masked {
            return (seen, Some(Fault::Header));
        }
        if opcode >= 8 {
            if !is_last || length > 125 {
                return (seen, Some(Fault::Control));
            }
        } else {
            if (opcode == 0) != begun.is_some() {
                return (seen, Some(Fault::Order));
            }
            let held = begun.as_ref().map_or(0, |(_, text, _)| text.len() as u64);
            if u128::from(held) + u128::from(length) > TEXT_BYTES_MAX as u128 {
                return (seen, Some(Fault::Length));
            }
            if begun.as_ref().is_some_and(|(_, _, parts)| *parts == PARTS_MAX) {
                return (seen, Some(Fault::Parts));
            }
        }
        let end = header_bytes + length as usize;
        if rest.len() < end {
            break;
        }
        let payload = &rest[header_bytes..end];
        rest = &rest[end..];
        match opcode {
            9 => seen.push(Seen::Ping(payload.to_vec())),
            10 => seen.push(Seen::Pong),
            8 => {
                let code = (payload.len() >= 2).then(|| u16::from(payload[0]) * 256 + u16::from(payload[1]));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or(&[])).into_owned();
                seen.push(Seen::Close(code, reason));
                return (seen, None);
            }
            _ => {
                let (is_text, mut text, parts) = begun.take().unwrap_or((opcode == 1, Vec::new(), 0));
                if is_text {
                    text.extend(payload);
                }
                if is_last && is_text {
                    seen.push(Seen::Text(text));
                } else {
                    seen.push(Seen::Other);
                    if !is_last {
                        begun = Some((is_text, text, parts + 1));
                    }
                }
            }
        }
    }
    (seen, None)
}

/// Memory that [`Frames`] may lend and hold for what was not cut out: one frame of the greatest length, and a read.
const HELD_BYTES_MAX: usize = TEXT_BYTES_MAX + (1 << 17);
const HELD_BYTES: usize = 1 << 17;

/// Cuts an input that arrives in chunks of these sizes, taken in turn.
pub(crate) fn cut(input: &[u8], chunks: &[usize]) -> (Vec<Seen>, Option<Fault>) {
    let mut frames = Frames::default();
    let mut seen = Vec::new();
    let (mut at, mut turn) = (0, 0);
    while at < input.len() {
        let held = frames.rest().len();
        let room = frames.room();
        assert!(!room.is_empty(), "no room beside {held} bytes");
        let size = room.len() + held;
        assert!(size <= HELD_BYTES_MAX, "{size} bytes of memory");
        assert!(held >= HELD_BYTES / 2 || size == HELD_BYTES, "{size} bytes of memory for {held}");
        let count = chunks.get(turn % chunks.len().max(1)).map_or(1, |&count| count.max(1));
        let count = count.min(room.len()).min(input.len() - at);
        room[..count].copy_from_slice(&input[at..at + count]);
        // What lies behind must not be read: it would be a ping.
        let behind = (count + 16).min(room.len());
        room[count..behind].fill(0x89);
        (at, turn) = (at + count, turn + 1);
        frames.filled(count);
        let mut messages = Vec::new();
        let outcome = frames.cut(&mut messages);
        for message in &messages {
            seen.push(match message {
                Message::Text(_) | Message::Joined(_) => Seen::Text(frames.text(message).to_vec()),
                Message::Other => Seen::Other,
                Message::Ping(payload) => Seen::Ping(payload.clone()),
                Message::Pong => Seen::Pong,
                Message::Close(code, reason) => Seen::Close(*code, reason.clone()),
            });
        }
        if let Err(violation) = outcome {
            assert!(!violation.to_string().is_empty());
            let fault = match violation {
                Violation::Header(_) => Fault::Header,
                Violation::Control => Fault::Control,
                Violation::Order => Fault::Order,
                Violation::Length(_) => Fault::Length,
                Violation::Parts => Fault::Parts,
            };
            return (seen, Some(fault));
        }
        if matches!(seen.last(), Some(Seen::Close(..))) {
            break;
        }
    }
    (seen, None)
}

/// Both read the same.
pub(crate) fn agree(input: &[u8], chunks: &[usize]) {
    let (expected, found) = (obvious(input), cut(input, chunks));
    assert!(expected == found, "{:?} {:?}", expected.1, found.1);
}
