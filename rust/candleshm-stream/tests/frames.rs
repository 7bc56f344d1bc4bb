//! Frames in any chunks against a slow and obvious reader of the whole: sound streams, streams with violations, any
//! bytes. `rust/fuzz` asks the same with a fuzzer's bytes.

#[path = "frames_model/obvious.rs"]
mod obvious;

use candleshm_stream::frames::{Frames, Message, PARTS_MAX, TEXT_BYTES_MAX, Violation, client_frame};
use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use obvious::{Fault, Seen, agree, cut, obvious};

/// A frame of a server. Its length is written with at least so many bytes: 0, 2 or 8.
fn frame(first: u8, payload: &[u8], length_bytes: usize) -> Vec<u8> {
    let length = payload.len();
    let mut bytes = vec![first];
    match (length, length_bytes) {
        (0..126, 0) => bytes.push(length as u8),
        (0..=0xffff, 0..=2) => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place * 31 + length) as u8).collect()
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..600_usize,
        2 => prop::sample::select(&[125, 126, 127, 65_535, 65_536][..]),
        1 => 0..70_000_usize,
    ]
}

/// A control frame as a server may send it; closes are in the streams below.
fn control() -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(&[0x89_u8, 0x8a][..]), 0..126_usize)
        .prop_map(|(first, length)| frame(first, &payload(length), 0))
}

/// A message in one to four parts, with control frames between them.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let part = (lengths(), prop::option::of(control()), prop::sample::select(&[0_usize, 0, 0, 2, 8][..]));
    (prop::sample::select(&[1_u8, 1, 1, 2][..]), prop::collection::vec(part, 1..5)).prop_map(|(opcode, parts)| {
        let mut bytes = Vec::new();
        let last = parts.len() - 1;
        for (place, (length, between, length_bytes)) in parts.into_iter().enumerate() {
            let first = if place == 0 { opcode } else { 0 } | if place == last { 0x80 } else { 0 };
            bytes.extend(frame(first, &payload(length), length_bytes));
            bytes.extend(between.unwrap_or_default());
        }
        bytes
    })
}

/// What no server may send, or what ends a stream.
fn wrong() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        // Any first byte: reserved bits and opcodes, parts without a beginning, messages within another.
        (any::<u8>(), lengths()).prop_map(|(first, length)| frame(first, &payload(length), 0)),
        // Masked.
        Just(client_frame(OpCode::Data(Data::Text), b"text", [1, 2, 3, 4])),
        // Too long, and never sent.
        (any::<u8>(), any::<u64>()).prop_map(|(first, length)| {
            let mut bytes = vec![first, 127];
            bytes.extend(length.to_be_bytes());
            bytes
        }),
        (0..130_usize).prop_map(|length| frame(0x88, &payload(length), 0)),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn chunks() -> impl Strategy<Value = Vec<usize>> {
    let sizes = prop_oneof![1..10_usize, 1..2_000_usize, 1..200_000_usize];
    prop::collection::vec(sizes, 1..8)
}

fn joined(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

proptest! {
    #[test]
    fn sound_streams(messages in prop::collection::vec(message(), 0..8).prop_map(|frames| joined(&frames)), chunks in chunks()) {
        let (_, fault) = obvious(&messages);
        prop_assert_eq!(fault, None);
        agree(&messages, &chunks);
    }

    #[test]
    fn streams_with_violations(
        before in prop::collection::vec(message(), 0..4).prop_map(|frames| joined(&frames)),
        wrong in prop::collection::vec(wrong(), 1..4).prop_map(|frames| joined(&frames)),
        after in prop::collection::vec(message(), 0..3).prop_map(|frames| joined(&frames)),
        cut_off in prop::option::of(any::<prop::sample::Index>()),
        chunks in chunks(),
    ) {
        let mut stream = [before, wrong, after].concat();
        if let Some(at) = cut_off {
            stream.truncate(at.index(stream.len() + 1));
        }
        agree(&stream, &chunks);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2_000), chunks in chunks()) {
        agree(&bytes, &chunks);
    }
}

#[test]
fn a_text_of_the_greatest_length_is_read_whole_and_in_parts() {
    let whole = frame(0x81, &payload(TEXT_BYTES_MAX), 0);
    let half = payload(TEXT_BYTES_MAX / 2);
    let parts = [frame(0x01, &half, 0), frame(0x89, b"ping", 0), frame(0x80, &half, 0)].concat();
    for stream in [&whole, &parts] {
        let twice = [stream.clone(), frame(0x81, b"and on", 0), stream.clone()].concat();
        for chunks in [&[1_400][..], &[65_536, 1, 1 << 17], &[1 << 21]] {
            agree(&twice, chunks);
            assert_eq!(cut(&twice, chunks).1, None);
        }
    }
}

#[test]
fn a_text_that_is_one_byte_too_long_is_refused_by_its_header() {
    let whole = frame(0x81, &payload(TEXT_BYTES_MAX + 1), 0);
    assert_eq!(cut(&whole[..9], &[100]), (vec![], None));
    assert_eq!(cut(&whole[..10], &[100]), (vec![], Some(Fault::Length)));

    let begun = frame(0x01, &payload(TEXT_BYTES_MAX - 9), 0);
    let ended = frame(0x80, &payload(10), 0);
    let stream = [&begun[..], &ended[..2]].concat();
    assert_eq!(cut(&stream, &[1 << 16]), (vec![Seen::Other], Some(Fault::Length)));
}

#[test]
fn a_text_in_too_many_parts_is_refused() {
    let parts = |count: usize| {
        let mut stream = frame(0x01, b"a", 0);
        stream.extend(frame(0x00, b"b", 0).repeat(count - 2));
        stream.extend(frame(0x80, b"c", 0));
        stream
    };
    let most = PARTS_MAX as usize + 1;
    let (seen, fault) = cut(&parts(PARTS_MAX as usize), &[100]);
    assert_eq!((seen.len(), fault), (PARTS_MAX as usize, None));
    assert_eq!(cut(&parts(most), &[100]).1, Some(Fault::Parts));
    agree(&parts(most), &[7]);
}

#[test]
fn nothing_behind_a_close_is_read() {
    let close = frame(0x88, b"\x03\xe8bye", 0);
    let stream = [frame(0x81, b"before", 0), close.clone(), frame(0x81, b"after", 0), close].concat();
    let close = Seen::Close(Some(1000), "bye".into());
    assert_eq!(cut(&stream, &[1000]), (vec![Seen::Text(b"before".to_vec()), close], None));
}

#[test]
fn memory_for_a_long_text_is_given_back() {
    let mut frames = Frames::default();
    let usual = frames.room().len();
    let stream = frame(0x81, &payload(TEXT_BYTES_MAX), 0);
    let mut messages = Vec::new();
    for part in stream.chunks(1 << 16) {
        let room = frames.room();
        room[..part.len()].copy_from_slice(part);
        frames.filled(part.len());
        frames.cut(&mut messages).expect("sound");
    }
    assert_eq!(messages.len(), 1);
    assert_eq!(frames.text(&messages[0]).len(), TEXT_BYTES_MAX);
    assert_eq!(frames.room().len(), usual);
}

#[test]
fn what_a_client_sends_is_masked_and_reads_back() {
    for length in [0, 1, 125, 126, 70_000] {
        let (text, mask) = (payload(length), [7, 0, 255, 1]);
        let sent = client_frame(OpCode::Data(Data::Text), &text, mask);
        let place = sent.len() - length - 4;
        assert_eq!(sent[place..place + 4], mask);
        let read: Vec<u8> = sent[place + 4..].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(read, text);
        let mut frames = Frames::default();
        let count = sent.len().min(14);
        frames.room()[..count].copy_from_slice(&sent[..count]);
        frames.filled(count);
        assert!(matches!(frames.cut(&mut Vec::<Message>::new()), Err(Violation::Header(_))), "a server must not mask");
    }
}
