//! Websocket frames, cut out of what reads of a socket brought (RFC 6455, section 5).
//!
//! Nearly all of the traffic consists of whole texts. They are lent where they were received; only a text that came in
//! several parts is copied.

use std::fmt;
use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// A kline has about 400 bytes. What is longer than this is none, and not worth the memory.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Texts arrive whole; a server that sends one in so many parts does not intend to end it.
pub const PARTS_MAX: u32 = 256;
/// Payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;
/// The longest header of a frame: of a server, which does not mask.
const HEADER_BYTES_MAX: usize = 10;
/// What one read of a socket may bring.
const READ_BYTES: usize = 1 << 17;

/// One message, or one control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text that arrived whole; its place in the memory of [`Frames`].
    Text(Range<usize>),
    /// A text that arrived in parts.
    Joined(Vec<u8>),
    /// A message or part that holds no text: binary, or the beginning of a text.
    Other,
    /// A ping, which a pong with the same bytes answers.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The server closes: its code, if it gave one, and the reason in its words.
    Close(Option<u16>, String),
}

/// What a server must not send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A frame with reserved bits or an unknown opcode, or one that is masked.
    Header(String),
    /// A control frame in parts, or with more than 125 bytes.
    Control,
    /// A part of no message, or a new message within another.
    Order,
    /// A message of more than [`TEXT_BYTES_MAX`].
    Length(u64),
    /// A message in more than [`PARTS_MAX`] parts.
    Parts,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(reason) => write!(f, "not a websocket frame: {reason}"),
            Self::Control => f.write_str("a control frame in fragments, or with more than 125 bytes"),
            Self::Order => f.write_str("a fragment outside a message, or a message within another"),
            Self::Length(length) => {
                write!(f, "a message of {length} bytes; more than {TEXT_BYTES_MAX} are not read")
            }
            Self::Parts => write!(f, "a text in more than {PARTS_MAX} parts"),
        }
    }
}

/// Received bytes, and the frames in them.
///
/// `room` lends memory to read into, `filled` says how much of it was used, and `cut` takes the whole messages out.
/// Their texts can be read until `room` is called again.
pub struct Frames {
    bytes: Vec<u8>,
    /// What was received and not cut out yet.
    rest: Range<usize>,
    /// The parts of a message that has not ended, and whether it is a text.
    parts: Vec<u8>,
    part_count: u32,
    is_text: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { bytes: vec![0; READ_BYTES], rest: 0..0, parts: Vec::new(), part_count: 0, is_text: false }
    }
}

impl Frames {
    /// Lends memory for a read. Texts that were cut out are gone.
    pub fn room(&mut self) -> &mut [u8] {
        if self.rest.start > 0 {
            self.bytes.copy_within(self.rest.clone(), 0);
            self.rest = 0..self.rest.len();
        }
        // A read may begin a frame of the greatest length, and then needs room for the whole of it.
        let size = if self.rest.len() < READ_BYTES / 2 { READ_BYTES } else { TEXT_BYTES_MAX + READ_BYTES };
        if self.bytes.len() != size {
            self.bytes.resize(size, 0);
            self.bytes.shrink_to_fit();
        }
        &mut self.bytes[self.rest.end..]
    }

    /// Notes that a read put `count` bytes into the memory that was lent.
    pub fn filled(&mut self, count: usize) {
        self.rest.end += count;
        debug_assert!(self.rest.end <= self.bytes.len());
    }

    /// Returns what was received and not cut out yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.rest.clone()]
    }

    /// Passes over the first `count` bytes of the rest: they were no frames.
    pub fn skip(&mut self, count: usize) {
        self.rest.start = self.rest.end.min(self.rest.start.saturating_add(count));
    }

    /// Returns the text of a message; empty for one that holds none.
    #[must_use]
    pub fn text<'a>(&'a self, message: &'a Message) -> &'a [u8] {
        match message {
            Message::Text(place) => &self.bytes[place.clone()],
            Message::Joined(text) => text,
            _ => &[],
        }
    }

    /// Appends all messages that are complete. A close, or the first violation, ends the connection: nothing behind it
    /// is read.
    ///
    /// # Errors
    ///
    /// What the server must not send; the messages before it are appended all the same.
    pub fn cut(&mut self, messages: &mut Vec<Message>) -> Result<(), Violation> {
        loop {
            let mut cursor = Cursor::new(&self.bytes[self.rest.clone()]);
            let header = FrameHeader::parse(&mut cursor).map_err(|error| Violation::Header(error.to_string()))?;
            let Some((header, length)) = header else { return Ok(()) };
            let header_bytes = cursor.position() as usize;
            debug_assert!(header_bytes <= HEADER_BYTES_MAX + 4);
            self.judge(&header, length)?;
            let begin = self.rest.start + header_bytes;
            let place = begin..begin + length as usize;
            if place.end > self.rest.end {
                return Ok(());
            }
            self.rest.start = place.end;
            let message = self.message(&header, place);
            let is_last = matches!(message, Message::Close(..));
            messages.push(message);
            if is_last {
                self.skip(usize::MAX);
                return Ok(());
            }
        }
    }

    /// Refuses what no server may send, before its payload is waited for.
    fn judge(&self, header: &FrameHeader, length: u64) -> Result<(), Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::Header("reserved bits are set".into()));
        }
        if header.mask.is_some() {
            return Err(Violation::Header("a server must not mask".into()));
        }
        let in_parts = self.part_count > 0;
        match header.opcode {
            OpCode::Control(_) if !header.is_final || length > CONTROL_BYTES_MAX => Err(Violation::Control),
            OpCode::Data(data) if (data == Data::Continue) != in_parts => Err(Violation::Order),
            OpCode::Data(_) if length.saturating_add(self.parts.len() as u64) > TEXT_BYTES_MAX as u64 => {
                Err(Violation::Length(length.saturating_add(self.parts.len() as u64)))
            }
            OpCode::Data(_) if self.part_count >= PARTS_MAX => Err(Violation::Parts),
            OpCode::Control(_) | OpCode::Data(_) => Ok(()),
        }
    }

    fn message(&mut self, header: &FrameHeader, place: Range<usize>) -> Message {
        let payload = &self.bytes[place.clone()];
        match header.opcode {
            OpCode::Control(Control::Ping) => Message::Ping(payload.to_vec()),
            OpCode::Control(Control::Close) => {
                let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                let reason = payload.get(2..).unwrap_or_default();
                Message::Close(code, String::from_utf8_lossy(reason).into_owned())
            }
            OpCode::Control(_) => Message::Pong,
            OpCode::Data(Data::Text) if header.is_final => Message::Text(place),
            OpCode::Data(_) if header.is_final && self.part_count == 0 => Message::Other,
            OpCode::Data(data) => {
                if self.part_count == 0 {
                    self.is_text = data == Data::Text;
                }
                self.part_count += 1;
                if self.is_text {
                    self.parts.extend_from_slice(payload);
                }
                if !header.is_final {
                    return Message::Other;
                }
                self.part_count = 0;
                let parts = std::mem::take(&mut self.parts);
                if self.is_text { Message::Joined(parts) } else { Message::Other }
            }
        }
    }
}

/// Returns a frame of a client, which is masked.
#[must_use]
pub fn client_frame(opcode: OpCode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
    let mut frame = Vec::with_capacity(header.len(payload.len() as u64) + payload.len());
    // Writing to memory cannot fail.
    let _ = header.format(payload.len() as u64, &mut frame);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
