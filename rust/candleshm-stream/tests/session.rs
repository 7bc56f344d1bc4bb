//! A connection as a protocol, under a clock that the test moves: what it sends, when, and why it ends.

use candleshm_stream::frames::Message;
use candleshm_stream::session::{CLOSE_MS, DEAD_MS, End, HANDSHAKE_MS, PING_MS, Session};
use proptest::prelude::*;
use tungstenite::handshake::derive_accept_key;

const START_MS: u64 = 1_000_000;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    if payload.len() < 126 {
        bytes.push(payload.len() as u8);
    } else {
        bytes.push(126);
        bytes.extend((payload.len() as u16).to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// A frame of the client: its first byte and its payload, unmasked.
type Sent = (u8, Vec<u8>);

/// A session, and the server and the clock beside it.
struct Stage {
    session: Session,
    now_ms: u64,
    texts: Vec<Vec<u8>>,
}

impl Stage {
    fn new() -> Self {
        let mut session = Session::new("h:1", "/stream?streams=a@kline_1s", 1, START_MS);
        let request = String::from_utf8(session.output().to_vec()).expect("ASCII");
        let count = session.output().len();
        session.sent(count);
        let mut stage = Self { session, now_ms: START_MS, texts: Vec::new() };
        stage.texts.push(accepted(&request));
        stage
    }

    /// A connection whose upgrade is done.
    fn open() -> Self {
        let mut stage = Self::new();
        let response = stage.texts.remove(0);
        assert_eq!(stage.receive(&response), Ok(()));
        assert!(stage.session.is_open());
        stage
    }

    /// Takes bytes in, in one read if there is room.
    fn receive(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let mut messages: Vec<Message> = Vec::new();
            let room = self.session.room();
            let count = bytes.len().min(room.len());
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            let outcome = self.session.received(count, self.now_ms, &mut messages);
            for message in &messages {
                assert!(matches!(message, Message::Text(_) | Message::Joined(_)));
                self.texts.push(self.session.frames().text(message).to_vec());
            }
            outcome?;
        }
        Ok(())
    }

    /// Lets time pass, and looks.
    fn pass(&mut self, milliseconds: u64) -> Result<(), End> {
        self.now_ms += milliseconds;
        self.session.look(self.now_ms)
    }

    /// Takes everything that the session sends.
    fn sent(&mut self) -> Vec<Sent> {
        let output = self.session.output().to_vec();
        self.session.sent(output.len());
        let (mut rest, mut frames) = (&output[..], Vec::new());
        while !rest.is_empty() {
            assert!(rest[1] >= 128, "a client masks");
            let (length, header) = match rest[1] % 128 {
                126 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
                length => (usize::from(length), 2),
            };
            let (mask, end) = (&rest[header..header + 4], header + 4 + length);
            let payload = rest[header + 4..end].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
            frames.push((rest[0], payload.collect()));
            rest = &rest[end..];
        }
        frames
    }
}

fn accepted(request: &str) -> Vec<u8> {
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

fn reason(outcome: Result<(), End>) -> String {
    outcome.expect_err("an end").reason
}

#[test]
fn an_upgrade_may_come_in_any_chunks_with_the_first_frames_behind_it() {
    for size in [1, 2, 7, 1000] {
        let mut stage = Stage::new();
        let response = stage.texts.remove(0);
        let bytes = [&response[..], &frame(TEXT, b"first"), &frame(TEXT, b"second")].concat();
        for chunk in bytes.chunks(size) {
            assert_eq!(stage.receive(chunk), Ok(()));
        }
        assert!(stage.session.is_open());
        assert_eq!(stage.texts, [b"first".to_vec(), b"second".to_vec()]);
    }
}

#[test]
fn a_refusal_is_an_end_with_its_status_whatever_follows() {
    for behind in ["", "Retry-After: 60\r\n\r\n", "\0\0", "X: \u{1b}"] {
        let mut stage = Stage::new();
        let end = stage.receive(format!("HTTP/1.1 429 Too Many\r\n{behind}").as_bytes()).expect_err("refused");
        assert_eq!(end, End { reason: "HTTP 429".into(), status: Some(429), misbehaved: false });
    }
    let mut stage = Stage::new();
    let end = stage.receive(b"SSH-2.0-OpenSSH\r\n").expect_err("no HTTP");
    assert!(end.misbehaved && end.status.is_none());
}

#[test]
fn an_upgrade_that_does_not_come_is_given_up() {
    let mut stage = Stage::new();
    assert_eq!(stage.session.look_at_ms(), START_MS + HANDSHAKE_MS);
    assert_eq!(stage.receive(b"HTTP/1.1 101 "), Ok(()));
    assert_eq!(stage.pass(HANDSHAKE_MS - 1), Ok(()));
    assert_eq!(reason(stage.pass(1)), "no handshake in 5 s");
}

#[test]
fn of_many_pings_the_newest_has_a_pong_once_a_second() {
    let mut stage = Stage::open();
    let pings: Vec<u8> = (0..50_u8).flat_map(|number| frame(PING, &[number])).collect();
    assert_eq!(stage.receive(&pings), Ok(()));
    assert_eq!(stage.sent(), [(PONG, vec![49])]);
    for number in 50..60_u8 {
        assert_eq!(stage.receive(&frame(PING, &[number])), Ok(()));
        assert_eq!(stage.pass(99), Ok(()));
    }
    assert_eq!(stage.sent(), []);
    assert_eq!(stage.session.look_at_ms(), START_MS + 1000);
    assert_eq!(stage.pass(10), Ok(()));
    assert_eq!(stage.sent(), [(PONG, vec![59])]);
    assert_eq!(stage.pass(1000), Ok(()));
    assert_eq!(stage.sent(), [], "each ping has one pong");
}

#[test]
fn a_server_that_takes_nothing_makes_no_pongs_pile_up() {
    let mut stage = Stage::open();
    for _ in 0..100 {
        assert_eq!(stage.receive(&frame(PING, &[7; 125])), Ok(()));
        assert_eq!(stage.pass(1000), Ok(()));
        assert!(stage.session.look_at_ms() > stage.now_ms);
    }
    assert_eq!(stage.sent().len(), 1);
    assert_eq!(stage.pass(1), Ok(()));
    assert_eq!(stage.sent().len(), 1, "the newest ping still gets its pong");
}

#[test]
fn silence_is_pinged_once_and_ends_the_connection() {
    let mut stage = Stage::open();
    assert_eq!(stage.session.look_at_ms(), START_MS + PING_MS);
    assert_eq!(stage.pass(PING_MS - 1), Ok(()));
    assert_eq!(stage.sent(), []);
    assert_eq!(stage.pass(1), Ok(()));
    assert_eq!(stage.pass(1), Ok(()));
    assert_eq!(stage.sent(), [(PING, vec![])]);
    assert_eq!(stage.session.look_at_ms(), START_MS + DEAD_MS);
    assert_eq!(stage.pass(DEAD_MS - PING_MS - 2), Ok(()));
    assert_eq!(reason(stage.pass(1)), "nothing arrived for 7 s, not even a pong");
}

#[test]
fn a_pong_is_a_sign_of_life_and_part_of_a_frame_is_one() {
    let mut stage = Stage::open();
    for sign in [frame(PONG, b""), frame(TEXT, &[b'x'; 300])[..9].to_vec(), vec![b'x'; 5]] {
        assert_eq!(stage.pass(DEAD_MS - 1), Ok(()));
        assert_eq!(stage.receive(&sign), Ok(()));
        assert_eq!(stage.session.look_at_ms(), stage.now_ms + PING_MS);
        assert_eq!(stage.sent().len(), 1);
    }
}

#[test]
fn the_close_of_a_server_is_answered_and_its_reason_kept() {
    let mut stage = Stage::open();
    let bytes = [frame(TEXT, b"last"), frame(CLOSE, b"\x03\xf0too many"), frame(TEXT, b"late"), vec![0xff; 9]].concat();
    assert_eq!(stage.receive(&bytes), Ok(()));
    assert_eq!(stage.texts, [b"last".to_vec()], "what is behind a close does not count");
    assert!(!stage.session.is_open());
    // Whatever the socket says while the reply is under way.
    assert_eq!(stage.session.end_of(End::of("reset")).reason, "closed by the server: 1008 too many");
    assert_eq!(stage.pass(1), Ok(()), "the reply is not sent yet");
    assert_eq!(stage.sent(), [(CLOSE, b"\x03\xf0".to_vec())]);
    assert_eq!(reason(stage.pass(1)), "closed by the server: 1008 too many");

    let mut silent = Stage::open();
    assert_eq!(silent.receive(&frame(CLOSE, b"")), Ok(()));
    assert_eq!(silent.pass(CLOSE_MS - 1), Ok(()));
    let end = silent.pass(1).expect_err("the reply cannot be sent");
    assert_eq!(silent.session.end_of(end).reason, "closed by the server: without a code");
}

#[test]
fn a_close_of_ours_ends_with_the_socket_or_with_the_patience() {
    let mut stage = Stage::open();
    stage.session.close(1000, stage.now_ms);
    stage.session.close(1000, stage.now_ms);
    stage.session.send_text(b"late", 1);
    assert_eq!(stage.sent(), [(CLOSE, vec![0x03, 0xe8])]);
    assert_eq!(stage.receive(&[frame(TEXT, b"late"), frame(CLOSE, b"\x03\xe8")].concat()), Ok(()));
    assert_eq!(stage.texts, Vec::<Vec<u8>>::new());
    assert_eq!(stage.session.end_of(End::of("ended")).reason, "ended");
    assert_eq!(stage.session.look_at_ms(), START_MS + CLOSE_MS);
    assert_eq!(stage.pass(CLOSE_MS - 1), Ok(()));
    assert_eq!(reason(stage.pass(1)), "the server did not close in time");
}

#[test]
fn a_connection_that_is_not_open_sends_nothing() {
    let mut stage = Stage::new();
    stage.session.send_text(b"early", 1);
    stage.session.close(1000, START_MS);
    assert!(stage.session.output().is_empty());
}

#[test]
fn output_is_sent_in_parts_in_its_order() {
    let mut stage = Stage::open();
    stage.session.send_text(&[b'a'; 300], 1);
    stage.session.send_text(b"b", 2);
    let mut taken = Vec::new();
    while !stage.session.output().is_empty() {
        let count = stage.session.output().len().min(7);
        taken.extend_from_slice(&stage.session.output()[..count]);
        stage.session.sent(count);
    }
    // A second session, which holds everything at once, reads it back.
    let mut whole = Stage::open();
    whole.session.send_text(&[b'a'; 300], 1);
    whole.session.send_text(b"b", 2);
    assert_eq!(whole.session.output().len(), taken.len());
    assert_eq!(whole.sent(), [(TEXT, vec![b'a'; 300]), (TEXT, b"b".to_vec())]);
}

#[test]
fn floods_of_texts_end_a_connection_and_more_streams_may_send_more() {
    let text = frame(TEXT, &[b'x'; 130]);
    let flood = |streams: u64, count: usize, pause_ms: u64| {
        let mut stage = Stage::open();
        stage.session.send_text(b"", streams);
        for _ in 0..count / 100 {
            stage.receive(&text.repeat(100))?;
            stage.now_ms += pause_ms;
        }
        Ok(())
    };
    assert_eq!(flood(1, 20_200, 0), Ok(()));
    let end: End = flood(1, 20_300, 0).expect_err("a flood");
    assert!(end.misbehaved);
    assert_eq!(end.reason, "20300 frames in 10 s for 1 streams");
    assert_eq!(flood(2, 20_300, 0), Ok(()));
    assert_eq!(flood(1, 40_000, 60), Ok(()), "spread over time it is none");
}

#[test]
fn floods_of_what_holds_no_candle_end_a_connection() {
    for other in [frame(PING, b""), frame(PONG, b""), frame(TEXT, b"short"), frame(0x82, &[1; 200])] {
        let mut stage = Stage::open();
        assert_eq!(stage.receive(&other.repeat(2000)), Ok(()));
        let end = stage.receive(&other).expect_err("a flood");
        assert!(end.misbehaved);
        assert_eq!(end.reason, "2001 frames without a candle in 10 s");
    }
}

#[test]
fn a_violation_ends_a_connection_after_the_texts_before_it() {
    let mut stage = Stage::open();
    let end = stage.receive(&[frame(TEXT, b"good"), frame(0xc1, b"bad")].concat()).expect_err("a violation");
    assert!(end.misbehaved);
    assert_eq!(end.reason, "not a websocket frame: reserved bits are set");
    assert_eq!(stage.texts, [b"good".to_vec()]);
}

/// What may happen to a connection.
#[derive(Clone, Debug)]
enum Act {
    Receive(Vec<u8>),
    Pass(u64),
    Take(usize),
    Send,
    Close,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let sound = (prop::sample::select(&[TEXT, PING, PONG, CLOSE, 0x01, 0x00, 0x80, 0x82][..]), 0..120_usize)
        .prop_map(|(first, length)| frame(first, &vec![b'1'; length]));
    let bytes = prop_oneof![6 => sound, 1 => prop::collection::vec(any::<u8>(), 1..200)];
    let act = prop_oneof![
        6 => bytes.prop_map(Act::Receive),
        3 => (0..2_500_u64).prop_map(Act::Pass),
        3 => (0..200_usize).prop_map(Act::Take),
        1 => Just(Act::Send),
        1 => Just(Act::Close),
    ];
    prop::collection::vec(act, 0..60)
}

proptest! {
    /// `look_at_ms` lies ahead after every look: the thread sleeps until then, and would spin otherwise.
    #[test]
    fn whatever_arrives_is_no_panic_and_no_busy_loop(is_open in any::<bool>(), acts in acts()) {
        let mut stage = if is_open { Stage::open() } else { Stage::new() };
        for act in acts {
            let outcome = match act {
                Act::Receive(bytes) => stage.receive(&bytes),
                Act::Pass(milliseconds) => {
                    stage.now_ms += milliseconds;
                    Ok(())
                }
                Act::Take(count) => {
                    let count = count.min(stage.session.output().len());
                    stage.session.sent(count);
                    Ok(())
                }
                Act::Send => {
                    stage.session.send_text(b"{}", 2);
                    Ok(())
                }
                Act::Close => {
                    stage.session.close(1000, stage.now_ms);
                    Ok(())
                }
            };
            if outcome.and_then(|()| stage.session.look(stage.now_ms)).is_err() {
                return Ok(());
            }
            prop_assert!(stage.session.look_at_ms() > stage.now_ms);
            prop_assert!(stage.session.look_at_ms() <= stage.now_ms + HANDSHAKE_MS.max(DEAD_MS));
        }
    }
}
