//! One connection as a protocol: bytes in, texts and bytes out. Pure: time is an argument, and no socket is touched.
//!
//! It answers pings, finds out whether the server is alive, and ends when the server does what it must not. Which streams
//! it carries, and what to do when it ends, others decide.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::frames::{Frames, Message, client_frame};
use crate::handshake::{Answer, Handshake};

/// How long the server may take for the upgrade.
pub const HANDSHAKE_MS: u64 = 5_000;
/// Nothing at all arrived, not even a pong: it is pinged first, and given up later, whatever TCP says.
pub const PING_MS: u64 = 3_000;
/// See [`PING_MS`].
pub const DEAD_MS: u64 = 7_000;
/// How long a server may take to close.
pub const CLOSE_MS: u64 = 2_000;
/// Pongs count against what a client may send, so that of many pings only the newest is answered.
const PONG_MS: u64 = 1_000;

/// A stream pushes at most four candles a second, and some more after a pause. A server that sends many times as much, or
/// pings, parts, replies and other things without a candle in them, would cost a core and fill the log.
const FLOOD_MS: u64 = 10_000;
const TEXTS_MAX: u64 = 20_000;
const TEXTS_PER_STREAM: u64 = 200;
const OTHERS_MAX: u64 = 2_000;
/// A shorter text holds no candle.
const CANDLE_BYTES_MIN: usize = 126;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// In words.
    pub reason: String,
    /// HTTP status of the response that refused the upgrade.
    pub status: Option<u16>,
    /// Whether the server did what it must not.
    pub misbehaved: bool,
}

impl End {
    /// Returns an end for a reason that is nobody's fault.
    pub fn of(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), status: None, misbehaved: false }
    }

    fn misbehaved(reason: impl Into<String>) -> Self {
        Self { misbehaved: true, ..Self::of(reason) }
    }
}

/// What is going on.
enum Phase {
    Handshake(Handshake),
    Open,
    /// A close was sent. With a reason the server asked for it, and the connection ends once the reply is sent.
    Closing {
        since_ms: u64,
        reason: Option<String>,
    },
}

/// What arrived in a window of time.
#[derive(Default)]
struct Flood {
    since_ms: u64,
    texts: u64,
    others: u64,
}

/// A connection.
pub struct Session {
    phase: Phase,
    frames: Frames,
    output: Vec<u8>,
    began_ms: u64,
    received_ms: u64,
    pinged: bool,
    /// A ping that has no pong yet, and when the last pong was sent.
    ping: Option<Vec<u8>>,
    pong_ms: u64,
    flood: Flood,
    streams: u64,
}

impl Session {
    /// Returns a connection that asks for its upgrade. `streams` is how many it will carry.
    #[must_use]
    pub fn new(host: &str, target: &str, streams: u64, now_ms: u64) -> Self {
        let (handshake, output) = Handshake::new(host, target);
        Self {
            phase: Phase::Handshake(handshake),
            frames: Frames::default(),
            output,
            began_ms: now_ms,
            received_ms: now_ms,
            pinged: false,
            ping: None,
            pong_ms: 0,
            flood: Flood::default(),
            streams,
        }
    }

    /// Whether the upgrade is done and no close was sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Lends memory for a read; what `received` returned before is gone.
    pub fn room(&mut self) -> &mut [u8] {
        self.frames.room()
    }

    /// The memory that messages lie in.
    #[must_use]
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Takes `count` bytes in that a read put into the room. Texts are appended to `messages`, in their order.
    ///
    /// # Errors
    ///
    /// The reason for which the connection has to end; the texts before it count.
    pub fn received(&mut self, count: usize, now_ms: u64, messages: &mut Vec<Message>) -> Result<(), End> {
        self.frames.filled(count);
        self.received_ms = now_ms;
        self.pinged = false;
        if let Phase::Handshake(handshake) = &self.phase {
            match handshake.judge(self.frames.rest()) {
                Answer::Partial => return Ok(()),
                Answer::Upgraded(size) => self.frames.skip(size),
                Answer::Refused(status) => {
                    return Err(End { status: Some(status), ..End::of(format!("HTTP {status}")) });
                }
                Answer::Invalid(reason) => return Err(End::misbehaved(reason)),
            }
            self.phase = Phase::Open;
        }
        if !self.is_open() {
            // Nothing that comes after a close counts.
            self.frames.skip(usize::MAX);
            return Ok(());
        }
        let first = messages.len();
        let cut = self.frames.cut(messages);
        let (mut others, mut closed) = (0, None);
        for message in &messages[first..] {
            match message {
                Message::Ping(payload) => self.ping = Some(payload.clone()),
                Message::Close(code, reason) => closed = Some((*code, reason.clone())),
                _ => {}
            }
            others += u64::from(self.frames.text(message).len() < CANDLE_BYTES_MIN);
        }
        let count = (messages.len() - first) as u64;
        messages.retain(|message| matches!(message, Message::Text(_) | Message::Joined(_)));
        self.pong(now_ms);
        if let Err(violation) = cut {
            return Err(End::misbehaved(violation.to_string()));
        }
        if let Some(reason) = self.flooded(count - others, others, now_ms) {
            return Err(End::misbehaved(reason));
        }
        if let Some((code, words)) = closed {
            let code_text = code.map_or_else(|| "without a code".to_owned(), |code| code.to_string());
            self.close(code.unwrap_or(1000), now_ms);
            let reason = format!("closed by the server: {code_text} {words}");
            self.phase = Phase::Closing { since_ms: now_ms, reason: Some(reason.trim_end().to_owned()) };
        }
        Ok(())
    }

    /// Returns why the connection has to end now, if it has to, and sends what is due.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn look(&mut self, now_ms: u64) -> Result<(), End> {
        let silent_ms = now_ms.saturating_sub(self.received_ms);
        match &self.phase {
            Phase::Handshake(_) if now_ms >= self.began_ms + HANDSHAKE_MS => {
                Err(End::of(format!("no handshake in {} s", HANDSHAKE_MS / 1000)))
            }
            Phase::Closing { reason: Some(reason), .. } if self.output.is_empty() => Err(End::of(reason.clone())),
            Phase::Closing { since_ms, .. } if now_ms >= since_ms + CLOSE_MS => {
                Err(End::of("the server did not close in time"))
            }
            Phase::Handshake(_) | Phase::Closing { .. } => Ok(()),
            Phase::Open if silent_ms >= DEAD_MS => {
                Err(End::of(format!("nothing arrived for {} s, not even a pong", DEAD_MS / 1000)))
            }
            Phase::Open => {
                if silent_ms >= PING_MS && !self.pinged {
                    self.pinged = true;
                    self.send(OpCode::Control(Control::Ping), &[]);
                }
                self.pong(now_ms);
                Ok(())
            }
        }
    }

    /// Returns when `look` has to be called at the latest.
    #[must_use]
    pub fn look_at_ms(&self) -> u64 {
        match &self.phase {
            Phase::Handshake(_) => self.began_ms + HANDSHAKE_MS,
            Phase::Closing { since_ms, .. } => since_ms + CLOSE_MS,
            Phase::Open => {
                let silence_ms = self.received_ms + if self.pinged { DEAD_MS } else { PING_MS };
                let owes_pong = self.ping.is_some() && self.output.is_empty();
                if owes_pong { silence_ms.min(self.pong_ms + PONG_MS) } else { silence_ms }
            }
        }
    }

    /// Sends a text, if the connection is open. `streams` is how many it then carries.
    pub fn send_text(&mut self, text: &[u8], streams: u64) {
        if self.is_open() {
            self.streams = streams;
            self.send(OpCode::Data(Data::Text), text);
        }
    }

    /// Begins the closing handshake, if the connection is open.
    pub fn close(&mut self, code: u16, now_ms: u64) {
        if self.is_open() {
            self.send(OpCode::Control(Control::Close), &code.to_be_bytes());
            self.phase = Phase::Closing { since_ms: now_ms, reason: None };
        }
    }

    /// Returns why the connection ended: what the server said before counts more than what the socket says.
    #[must_use]
    pub fn end_of(&self, end: End) -> End {
        match &self.phase {
            Phase::Closing { reason: Some(reason), .. } => End::of(reason.clone()),
            _ => end,
        }
    }

    /// Bytes that have to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Notes that the first `count` bytes of the output were sent.
    pub fn sent(&mut self, count: usize) {
        self.output.drain(..count);
    }

    fn pong(&mut self, now_ms: u64) {
        // Behind what a server does not take, pongs would only pile up.
        if now_ms >= self.pong_ms + PONG_MS
            && self.output.is_empty()
            && self.is_open()
            && let Some(payload) = self.ping.take()
        {
            self.pong_ms = now_ms;
            self.send(OpCode::Control(Control::Pong), &payload);
        }
    }

    fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        let mut mask = [0; 4];
        // A mask protects proxies from scripts that choose what is sent; nobody chooses here, so that any will do.
        let _ = getrandom::fill(&mut mask);
        self.output.extend(client_frame(opcode, payload, mask));
    }

    fn flooded(&mut self, texts: u64, others: u64, now_ms: u64) -> Option<String> {
        if now_ms >= self.flood.since_ms + FLOOD_MS {
            self.flood = Flood { since_ms: now_ms, ..Flood::default() };
        }
        self.flood.texts += texts;
        self.flood.others += others;
        let Flood { texts, others, .. } = self.flood;
        if others > OTHERS_MAX {
            return Some(format!("{others} frames without a candle in {} s", FLOOD_MS / 1000));
        }
        (texts > TEXTS_MAX + TEXTS_PER_STREAM * self.streams)
            .then(|| format!("{texts} frames in {} s for {} streams", FLOOD_MS / 1000, self.streams))
    }
}
