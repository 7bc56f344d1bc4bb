//! The thread of the streams over real sockets, beside a server that each test writes by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use candleshm::wire::event::{Frame, FrameError};
use candleshm_stream::board::{Counts, News, Notice};
use candleshm_stream::frames::TEXT_BYTES_MAX;
use candleshm_stream::session::{DEAD_MS, End, PING_MS};
use candleshm_stream::streams::{Merged, Opening, Sink, Streams};
use tungstenite::handshake::derive_accept_key;

/// Only guards against waiting for ever.
const DEADLINE: Duration = Duration::from_mins(1);

/// A sink that counts what it gets; some texts make it do more.
#[derive(Default)]
struct Witness {
    /// The kinds of texts that came, in the order of the merges.
    merges: Arc<Mutex<Vec<&'static str>>>,
    /// A kline that cannot be read holds the thread until something arrives here.
    gate: Option<Receiver<()>>,
    /// Told when the thread is held.
    held: Option<Sender<()>>,
    /// Thread that merges, as `/proc` names it.
    thread: Arc<OnceLock<String>>,
    panics: bool,
}

impl Sink for Witness {
    fn merge(&mut self, frames: Vec<Result<Frame<'_>, FrameError>>) -> Option<Merged> {
        assert!(!self.panics, "as the test wants it");
        self.thread
            .get_or_init(|| std::fs::read_link("/proc/thread-self").expect("Linux").to_string_lossy().into_owned());
        let kind = match &frames[0] {
            Ok(Frame::Acknowledgement) => "reply",
            Ok(_) => "other",
            Err(_) => "fault",
        };
        self.merges.lock().expect("no panic").push(kind);
        if kind == "fault"
            && let (Some(gate), Some(held)) = (&self.gate, &self.held)
        {
            let _ = held.send(());
            let _ = gate.recv();
        }
        let replies = (0..frames.len()).filter(|&place| matches!(frames[place], Ok(Frame::Acknowledgement))).collect();
        Some(Merged {
            counts: Counts { batches: 1, events: frames.len() as u64, ..Counts::default() },
            replies,
            shuts_down: frames.iter().any(|frame| matches!(frame, Ok(Frame::Shutdown))),
            ..Merged::default()
        })
    }
}

/// A clock that stands still: nothing happens because time has passed.
fn still_ms() -> u64 {
    1_000_000
}

fn start(sink: Witness) -> Streams {
    Streams::start(sink, still_ms, Duration::ZERO).expect("a thread")
}

/// What a board said, kept until a test asks for it.
#[derive(Default)]
struct Told {
    notices: Vec<(u64, Notice)>,
    failure: Option<String>,
}

impl Told {
    /// Takes news until there is an answer.
    fn until<T>(&mut self, streams: &Streams, answer: impl Fn(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = answer(self) {
                return found;
            }
            assert!(began.elapsed() < DEADLINE, "did not come true; {:?} {:?}", self.notices.len(), self.failure);
            let News { notices, failure, .. } = streams.board().wait(Duration::from_millis(100));
            self.notices.extend(notices);
            self.failure = failure.or(self.failure.take());
        }
    }

    fn end(&mut self, streams: &Streams, connection: u64) -> End {
        self.until(streams, |told| {
            told.notices.iter().find_map(|(number, notice)| match notice {
                Notice::Ended(end) if *number == connection => Some(end.clone()),
                _ => None,
            })
        })
    }

    /// The ids of the replies that a connection brought.
    fn replies(&self, connection: u64) -> Vec<u64> {
        let mut ids = Vec::new();
        for (number, notice) in &self.notices {
            if let (Notice::Reply(text), true) = (notice, *number == connection) {
                let text = String::from_utf8_lossy(text);
                let id = text.split("\"id\":").nth(1).expect("an id");
                ids.push(id.trim_end_matches('}').parse().expect("a number"));
            }
        }
        ids
    }

    fn has_opened(&self, connection: u64) -> bool {
        self.notices.contains(&(connection, Notice::Opened))
    }
}

/// Returns both ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
    let (server, _) = listener.accept().expect("connected");
    server.set_read_timeout(Some(DEADLINE)).expect("a socket");
    (client, server)
}

fn opening(tcp: TcpStream) -> Opening {
    Opening { tcp, host: "h".into(), target: "/stream?streams=a".into(), secure: None, streams: 1 }
}

/// Reads the request of an upgrade; returns the response that accepts it.
fn accepted(server: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        server.read_exact(&mut byte).expect("a request");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ASCII");
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// Opens a connection, and returns the server's end of it.
fn opened(streams: &Streams, connection: u64) -> TcpStream {
    let (client, mut server) = pair();
    streams.open(connection, opening(client));
    let response = accepted(&mut server);
    server.write_all(&response).expect("open");
    server
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(length as u8),
        length @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// A text that the sink takes for a reply, and as long as asked for.
fn reply(id: u64, length: usize) -> Vec<u8> {
    let bare = format!("{{\"result\":null,\"pad\":\"\",\"id\":{id}}}").len();
    let pad = "x".repeat(length.saturating_sub(bare));
    frame(0x81, format!("{{\"result\":null,\"pad\":\"{pad}\",\"id\":{id}}}").as_bytes())
}

/// A text that holds the thread.
fn gate() -> Vec<u8> {
    frame(0x81, b"no JSON")
}

/// A thread that a text of its first connection, number 0, holds; and how to hold it and let it go.
struct Held {
    streams: Streams,
    told: Told,
    merges: Arc<Mutex<Vec<&'static str>>>,
    server: TcpStream,
    stopped: Receiver<()>,
    release: Sender<()>,
}

impl Held {
    fn new() -> Self {
        let (release, gate) = channel();
        let (send_held, held) = channel();
        let sink = Witness { gate: Some(gate), held: Some(send_held), ..Witness::default() };
        let merges = Arc::clone(&sink.merges);
        let streams = start(sink);
        let server = opened(&streams, 0);
        Self { streams, told: Told::default(), merges, server, stopped: held, release }
    }

    fn hold(&mut self) {
        self.server.write_all(&gate()).expect("open");
        self.stopped.recv_timeout(DEADLINE).expect("the thread is held");
    }

    fn release(&self) {
        self.release.send(()).expect("the thread waits");
    }
}

/// Returns whether the other side is gone: read until the end.
fn is_ended(server: &mut TcpStream) -> bool {
    let mut rest = vec![0; 1 << 16];
    loop {
        match server.read(&mut rest) {
            Ok(0) => return true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
            Err(_) => return false,
            Ok(_) => {}
        }
    }
}

/// Reads one frame of the client.
fn sent(server: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    server.read_exact(&mut head).expect("a frame");
    assert!(head[1] >= 128, "a client masks");
    let length_bytes = match head[1] % 128 {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mut rest = vec![0; length_bytes + 4];
    server.read_exact(&mut rest).expect("a frame");
    let (length, mask) = rest.split_at(length_bytes);
    let length = match length_bytes {
        0 => usize::from(head[1] % 128),
        _ => length.iter().fold(0, |number, &byte| number * 256 + usize::from(byte)),
    };
    let mut payload = vec![0; length];
    server.read_exact(&mut payload).expect("a frame");
    (head[0], payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect())
}

#[test]
fn texts_in_any_parts_are_merged_in_their_order() {
    for spin in [Duration::ZERO, Duration::from_millis(1)] {
        let streams = Streams::start(Witness::default(), still_ms, spin).expect("a thread");
        let (client, mut server) = pair();
        server.set_nodelay(true).expect("a socket");
        streams.open(7, opening(client));
        let mut bytes = accepted(&mut server);
        for id in 0..300 {
            bytes.extend(reply(id, 40 + 7 * id as usize));
        }
        let mut rest = &bytes[..];
        for size in (1..).map(|turn| turn * turn % 977 + 1) {
            let (part, after) = rest.split_at(rest.len().min(size));
            server.write_all(part).expect("open");
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let mut told = Told::default();
        told.until(&streams, |told| (told.replies(7).len() == 300).then_some(()));
        assert_eq!(told.replies(7), (0..300).collect::<Vec<_>>());
        assert_eq!(told.notices[0], (7, Notice::Opened), "before its first text");
        assert_eq!((streams.board().events(7), streams.board().counts().events), (300, 300));
        assert!(streams.stop(DEADLINE));
    }
}

#[test]
fn a_text_of_the_greatest_length_arrives_and_a_longer_one_ends_the_connection() {
    let streams = start(Witness::default());
    let mut told = Told::default();
    let mut server = opened(&streams, 1);
    server.write_all(&reply(5, TEXT_BYTES_MAX)).expect("open");
    told.until(&streams, |told| (told.replies(1) == [5]).then_some(()));
    server.write_all(&reply(6, TEXT_BYTES_MAX + 1)[..10]).expect("open");
    let end = told.end(&streams, 1);
    assert!(end.misbehaved && end.reason.contains("a message of 1048577 bytes"), "{end:?}");
    assert!(is_ended(&mut server));
}

#[test]
fn a_server_that_does_not_read_delays_nobody_and_gets_everything_later() {
    let streams = start(Witness::default());
    let mut told = Told::default();
    let (mut deaf, mut other) = (opened(&streams, 1), opened(&streams, 2));
    told.until(&streams, |told| told.has_opened(1).then_some(()));
    let text = |number: u32| format!("{number} {}", "x".repeat(200_000)).into_bytes();
    // More than all buffers of a connection on loopback take.
    for number in 0..100 {
        streams.send(1, text(number), 1);
    }
    other.write_all(&reply(1, 0)).expect("open");
    deaf.write_all(&reply(2, 0)).expect("open");
    told.until(&streams, |told| (told.replies(2) == [1] && told.replies(1) == [2]).then_some(()));
    for number in 0..100 {
        assert!(sent(&mut deaf) == (0x81, text(number)), "{number}");
    }
}

#[test]
fn a_reset_is_an_end() {
    let streams = start(Witness::default());
    let mut told = Told::default();
    let server = opened(&streams, 1);
    told.until(&streams, |told| told.has_opened(1).then_some(()));
    streams.send(1, b"unread".to_vec(), 1);
    let mut byte = [0];
    while server.peek(&mut byte).expect("open") == 0 {}
    // What is dropped unread makes the system reset the connection.
    drop(server);
    let end = told.end(&streams, 1);
    assert!(end.reason.contains("reset"), "{end:?}");
    assert!(!end.misbehaved);
}

#[test]
fn an_end_that_arrives_together_with_texts_is_seen_at_once() {
    let mut held = Held::new();
    let mut server = opened(&held.streams, 1);
    held.told.until(&held.streams, |told| told.has_opened(1).then_some(()));
    held.hold();
    server.write_all(&reply(1, 0)).expect("open");
    drop(server);
    held.release();
    let end = held.told.end(&held.streams, 1);
    assert_eq!(end, End::of("the server ended the connection without closing it"));
    assert_eq!(held.told.replies(1), [1], "what came before counts");
}

#[test]
fn a_refusal_keeps_its_status_although_the_connection_is_reset_behind_it() {
    let mut held = Held::new();
    held.hold();
    let (client, mut server) = pair();
    held.streams.open(1, opening(client));
    held.release();
    let mut byte = [0];
    while server.peek(&mut byte).expect("open") == 0 {}
    held.hold();
    // Nobody reads the request, so that the end of this side is a reset.
    server.write_all(b"HTTP/1.1 429 Too Many Requests\r\n\r\n").expect("open");
    drop(server);
    held.release();
    assert_eq!(
        held.told.end(&held.streams, 1),
        End { reason: "HTTP 429".into(), status: Some(429), misbehaved: false }
    );
}

#[test]
fn the_last_words_of_a_server_count_although_the_connection_is_reset_behind_them() {
    let mut held = Held::new();
    let mut server = opened(&held.streams, 1);
    held.told.until(&held.streams, |told| told.has_opened(1).then_some(()));
    held.streams.send(1, b"unread".to_vec(), 1);
    let mut byte = [0];
    while server.peek(&mut byte).expect("open") == 0 {}
    held.hold();
    server.write_all(&[reply(1, 0), frame(0x88, b"\x03\xf0policy")].concat()).expect("open");
    drop(server);
    // A command that writes to the socket comes before it is read.
    held.streams.send(1, b"more".to_vec(), 1);
    held.release();
    assert_eq!(held.told.end(&held.streams, 1).reason, "closed by the server: 1008 policy");
    assert_eq!(held.told.replies(1), [1]);
}

#[test]
fn a_peer_that_is_gone_without_a_word_is_pinged_and_given_up() {
    static NOW_MS: AtomicU64 = AtomicU64::new(1_000_000);
    let streams =
        Streams::start(Witness::default(), || NOW_MS.load(Ordering::SeqCst), Duration::ZERO).expect("a thread");
    let pass = |milliseconds| {
        NOW_MS.fetch_add(milliseconds, Ordering::SeqCst);
        // Any command lets the thread look at the clock.
        streams.send(u64::from(u32::MAX), Vec::new(), 0);
    };
    let mut told = Told::default();
    let mut server = opened(&streams, 1);
    told.until(&streams, |told| told.has_opened(1).then_some(()));
    pass(PING_MS);
    assert_eq!(sent(&mut server), (0x89, vec![]));
    pass(DEAD_MS - PING_MS);
    assert_eq!(told.end(&streams, 1), End::of("nothing arrived for 7 s, not even a pong"));
    assert!(is_ended(&mut server));
}

#[test]
fn a_flood_on_one_connection_lets_the_others_have_their_turn() {
    let mut held = Held::new();
    let (mut flooding, mut calm) = (opened(&held.streams, 1), opened(&held.streams, 2));
    held.told.until(&held.streams, |told| (told.has_opened(1) && told.has_opened(2)).then_some(()));
    let pad = "x".repeat(60_000);
    let text = frame(0x81, format!("{{\"e\":\"x\",\"pad\":\"{pad}\"}}").as_bytes());
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    thread::spawn(move || {
        while flooding.write_all(&text).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    // The system gives a connection larger buffers once it has seen much traffic.
    while written.load(Ordering::SeqCst) < 2_000 {
        thread::yield_now();
    }
    held.hold();
    let before = held.merges.lock().expect("no panic").len();
    let mut full = 0;
    while written.load(Ordering::SeqCst) != full {
        full = written.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(100));
    }
    calm.write_all(&reply(1, 0)).expect("open");
    held.release();
    held.told.until(&held.streams, |told| (told.replies(2) == [1]).then_some(()));
    let merges = held.merges.lock().expect("no panic")[before..].to_vec();
    let turns = merges.iter().position(|kind| *kind == "reply").expect("a reply");
    assert!(turns <= 16, "{turns} reads of the other connection came first");
    assert!(held.streams.stop(DEADLINE));
}

#[test]
fn fifty_connections_bring_their_texts_side_by_side() {
    let streams = start(Witness::default());
    let mut told = Told::default();
    // More than the system reports at a time.
    let mut servers: Vec<TcpStream> = (0..70).map(|number| opened(&streams, number)).collect();
    for round in 0..20 {
        for server in &mut servers {
            server.write_all(&reply(round, 500)).expect("open");
        }
    }
    told.until(&streams, |told| (0..70).all(|number| told.replies(number).len() == 20).then_some(()));
    for number in 0..70 {
        assert_eq!(told.replies(number), (0..20).collect::<Vec<_>>());
    }
    assert!(streams.stop(DEADLINE));
    assert!(servers.iter_mut().all(is_ended));
}

#[test]
fn a_server_that_announces_its_end_and_closes() {
    let streams = start(Witness::default());
    let mut told = Told::default();
    let mut server = opened(&streams, 1);
    server.write_all(&frame(0x81, br#"{"e":"serverShutdown","E":1}"#)).expect("open");
    told.until(&streams, |told| told.notices.contains(&(1, Notice::ShutsDown)).then_some(()));
    server.write_all(&frame(0x88, b"\x03\xe9away")).expect("open");
    assert_eq!(sent(&mut server), (0x88, b"\x03\xe9".to_vec()));
    assert_eq!(told.end(&streams, 1), End::of("closed by the server: 1001 away"));
    assert_eq!(streams.board().events(1), 0, "it is not open any more");
}

#[test]
fn connections_are_closed_and_ended_when_that_is_asked_for() {
    let streams = start(Witness::default());
    let mut told = Told::default();
    let (mut closed, mut aborted) = (opened(&streams, 1), opened(&streams, 2));
    told.until(&streams, |told| (told.has_opened(1) && told.has_opened(2)).then_some(()));
    streams.close(1);
    assert_eq!(sent(&mut closed), (0x88, vec![0x03, 0xe8]));
    closed.shutdown(Shutdown::Both).expect("open");
    told.end(&streams, 1);
    streams.abort(2, "it delivered no data".into());
    assert_eq!(told.end(&streams, 2), End::of("it delivered no data"));
    assert!(is_ended(&mut aborted));
    // What is gone can be named all the same.
    streams.close(1);
    streams.send(2, b"late".to_vec(), 1);
    streams.abort(3, "never there".into());
    assert!(streams.stop(DEADLINE));
}

/// The sockets that this process has open, by the system's names.
fn sockets() -> Vec<String> {
    let links = std::fs::read_dir("/proc/self/fd").expect("Linux").flatten();
    links.filter_map(|link| Some(std::fs::read_link(link.path()).ok()?.to_string_lossy().into_owned())).collect()
}

fn name_of(tcp: &TcpStream) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", tcp.as_raw_fd())).expect("Linux");
    link.to_string_lossy().into_owned()
}

#[test]
fn a_stop_closes_all_sockets_and_what_is_asked_for_later_is_dropped() {
    let streams = start(Witness::default());
    let mut told = Told::default();
    let mut names = Vec::new();
    let mut servers = Vec::new();
    let mut add = |streams: &Streams, number| {
        let (client, server) = pair();
        names.push(name_of(&client));
        streams.open(number, opening(client));
        servers.push(server);
    };
    // One is open, one in its handshake, one comes in the same breath as the stop, one later.
    let mut open = opened(&streams, 1);
    told.until(&streams, |told| told.has_opened(1).then_some(()));
    add(&streams, 2);
    add(&streams, 3);
    assert!(streams.stop(DEADLINE));
    assert_eq!(sent(&mut open), (0x88, vec![0x03, 0xe8]));
    assert_eq!(told.end(&streams, 1), End::of("the collector stops"));
    // The thread is certainly gone, and closes nothing any more.
    thread::sleep(Duration::from_millis(100));
    add(&streams, 4);
    streams.send(1, b"late".to_vec(), 1);
    streams.close(1);
    assert!(streams.stop(DEADLINE), "twice is no fault");
    assert!(streams.board().has_ended());
    assert!(servers.iter_mut().all(is_ended));
    let left = sockets();
    assert!(!names.iter().any(|name| left.contains(name)));
    assert_eq!(told.failure, None);
}

#[test]
fn sockets_that_come_while_the_thread_ends_are_closed_too() {
    for _ in 0..200 {
        let streams = Arc::new(start(Witness::default()));
        let stopping = Arc::clone(&streams);
        let stop = thread::spawn(move || assert!(stopping.stop(DEADLINE)));
        let (client, _server) = pair();
        let name = name_of(&client);
        streams.open(1, opening(client));
        stop.join().expect("no panic");
        assert!(streams.board().wait_for_end(DEADLINE));
        // The thread lets go of the commands after it has said that it ends.
        let began = Instant::now();
        while sockets().contains(&name) {
            assert!(began.elapsed() < DEADLINE, "the socket stays open");
            thread::yield_now();
        }
    }
}

#[test]
fn a_sink_that_panics_ends_the_thread_with_a_failure_and_closed_sockets() {
    let streams = start(Witness { panics: true, ..Witness::default() });
    let mut told = Told::default();
    let (mut first, mut second) = (opened(&streams, 1), opened(&streams, 2));
    first.write_all(&reply(1, 0)).expect("open");
    let failure = told.until(&streams, |told| told.failure.clone());
    assert!(failure.contains("panicked"), "{failure}");
    assert!(is_ended(&mut first) && is_ended(&mut second));
    assert!(streams.stop(DEADLINE));
}

/// How often a thread has gone to sleep.
fn sleeps(thread: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).expect("it runs");
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("Linux");
    count.trim().parse().expect("a number")
}

#[test]
fn a_connection_without_traffic_does_not_keep_the_thread_busy() {
    static START: OnceLock<Instant> = OnceLock::new();
    let sink = Witness::default();
    let name = Arc::clone(&sink.thread);
    let now_ms = || 1_000_000 + START.get_or_init(Instant::now).elapsed().as_millis() as u64;
    let streams = Streams::start(sink, now_ms, Duration::ZERO).expect("a thread");
    let mut told = Told::default();
    let mut server = opened(&streams, 1);
    server.write_all(&[reply(1, 0), frame(0x89, b"a"), frame(0x89, b"b")].concat()).expect("open");
    told.until(&streams, |told| (told.replies(1) == [1]).then_some(()));
    let name = name.get().expect("it has merged");
    let before = sleeps(name);
    for _ in 0..4 {
        server.write_all(&frame(0x89, b"c")).expect("open");
        thread::sleep(Duration::from_millis(500));
    }
    let count = sleeps(name) - before;
    assert!((1..40).contains(&count), "woken {count} times in 2 s");
}
