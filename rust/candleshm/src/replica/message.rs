//! The messages between hosts, as bytes: what changed, where series stand, what is requested, what is sent for it.
//!
//! Everything is little endian. A head of 72 bytes: magic, major and minor version, kind, flags, CRC32C of all but
//! itself, size; then feed, shard, epoch, sequence and the sender's clocks. Records follow, each with its size and kind.
//! Readers skip kinds of records, and bytes at the end of a record, that they do not know: those are of a later minor.
//!
//! Whoever reads a message gets all of it or an error: every size, count and index is compared with its bounds, and
//! every row with what a row of its candle can be.

mod bytes;
mod records;

use crate::interval::Interval;
use crate::layout::{Geometry, LENGTH_RANGE};
use crate::market::Market;
use crate::replica::checksum::crc32c;
use crate::replica::fnv;
use bytes::{Reader, put};
pub use records::{Query, Record, Shape, Standing, State, Update, Wanted};

/// The first eight bytes of every message.
pub const MAGIC: [u8; 8] = *b"CNDLREPL";
/// Changes when a reader of the old version would misread the new one.
pub const MAJOR: u8 = 1;
/// Changes when records get fields at their end, or new kinds appear.
pub const MINOR: u8 = 0;
/// Largest message, bytes.
pub const BYTES_MAX: usize = 900_000;
/// Bytes of the head.
pub const HEAD_BYTES: usize = 72;

const CHECKSUM: core::ops::Range<usize> = 12..16;
const LAST: u8 = 1;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// What changed since the last one.
    Changes = 1,
    /// Where every series stands.
    Heartbeat = 2,
    /// What a follower lacks.
    Request = 3,
    /// Rows for a request.
    Answer = 4,
}

/// What every message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What it is for.
    pub kind: Kind,
    /// Whether a commit of the sender ends with it.
    pub is_last: bool,
    /// [`feed_of`] the sender's block.
    pub feed: u64,
    /// The shard that it is about.
    pub shard: u32,
    /// How many shards there are.
    pub shards: u32,
    /// Counts the leaders of the shard.
    pub epoch: u64,
    /// Counts the messages of changes of the epoch, from 1; of others, the newest message of changes before it.
    pub sequence: u64,
    /// The sender's `CLOCK_BOOTTIME`, ns.
    pub sent_boot_ns: u64,
    /// The exchange's clock (epoch ms) minus the sender's `CLOCK_BOOTTIME` in ms; 0 while it was not measured.
    pub exchange_offset_ms: i64,
}

/// Why a message is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A newer leader was seen.
    Epoch,
    /// It is about other candles.
    Feed,
    /// Its bytes are not what was sent, or cannot be true.
    Damaged,
    /// Its sender speaks another major version.
    Version,
    /// The receiver itself leads the shard.
    Led,
    /// The sender divides the symbols into another number of shards.
    Shards,
}

impl Refusal {
    /// Returns the reason as a lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Feed => "feed",
            Self::Damaged => "damaged",
            Self::Version => "version",
            Self::Led => "led",
            Self::Shards => "shards",
        }
    }
}

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it begins with.
    pub head: Head,
    /// What it says.
    pub records: Vec<Record>,
}

/// Returns the number of a feed: blocks with the same candles of the same exchange have the same.
#[must_use]
pub fn feed_of(geometry: &Geometry, exchange: &str) -> u64 {
    let (market, price) = (geometry.market.as_str(), geometry.price.as_str());
    fnv(format!("{market} {price} {} {exchange}", geometry.grid(0).name()).as_bytes())
}

impl Message {
    /// Reads a message about a block of that geometry.
    ///
    /// # Errors
    ///
    /// `Damaged`, `Version`.
    pub fn read(bytes: &[u8], geometry: &Geometry) -> Result<Self, Refusal> {
        Self::read_behind(Head::read(bytes)?, bytes, geometry)
    }

    /// Reads what stands behind a head that was read from the same bytes.
    ///
    /// # Errors
    ///
    /// `Damaged`, `Version`.
    pub(crate) fn read_behind(head: Head, bytes: &[u8], geometry: &Geometry) -> Result<Self, Refusal> {
        let mut reader = Reader::new(&bytes[HEAD_BYTES..]);
        let mut records = Vec::new();
        while !reader.is_empty() {
            let size = reader.u32()? as usize;
            let kind = reader.u16()?;
            reader.u16()?;
            records.extend(Record::read(kind, Reader::new(reader.take(size)?), geometry)?);
        }
        Ok(Self { head, records })
    }
}

impl Head {
    /// Reads the head of a message, and compares its checksum.
    ///
    /// # Errors
    ///
    /// `Damaged`, `Version`.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes);
        if reader.take(8)? != MAGIC {
            return Err(Refusal::Damaged);
        }
        if reader.u8()? != MAJOR {
            return Err(Refusal::Version);
        }
        reader.u8()?;
        let (kind, flags) = (reader.u8()?, reader.u8()?);
        let checksum = reader.u32()?;
        let size = reader.u32()? as usize;
        let head_bytes = reader.u32()? as usize;
        let is_whole = bytes.len() == size && head_bytes == HEAD_BYTES && (HEAD_BYTES..=BYTES_MAX).contains(&size);
        if !is_whole || crc32c(&[&bytes[..CHECKSUM.start], &bytes[CHECKSUM.end..]]) != checksum {
            return Err(Refusal::Damaged);
        }
        let kind = match kind {
            1 => Kind::Changes,
            2 => Kind::Heartbeat,
            3 => Kind::Request,
            4 => Kind::Answer,
            _ => return Err(Refusal::Version),
        };
        let head = Self {
            kind,
            is_last: flags & LAST != 0,
            feed: reader.u64()?,
            shard: reader.u32()?,
            shards: reader.u32()?,
            epoch: reader.u64()?,
            sequence: reader.u64()?,
            sent_boot_ns: reader.u64()?,
            exchange_offset_ms: reader.u64()? as i64,
        };
        if head.shard >= head.shards {
            return Err(Refusal::Damaged);
        }
        Ok(head)
    }
}

/// A message that is being written.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// Begins a message.
    #[must_use]
    pub fn new(head: &Head) -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.extend(MAGIC);
        bytes.extend([MAJOR, MINOR, head.kind as u8, 0]);
        put::u32(&mut bytes, 0);
        put::u32(&mut bytes, 0);
        put::u32(&mut bytes, HEAD_BYTES as u32);
        put::u64(&mut bytes, head.feed);
        put::u32(&mut bytes, head.shard);
        put::u32(&mut bytes, head.shards);
        put::u64(&mut bytes, head.epoch);
        put::u64(&mut bytes, head.sequence);
        put::u64(&mut bytes, head.sent_boot_ns);
        put::u64(&mut bytes, head.exchange_offset_ms as u64);
        Self { bytes }
    }

    /// Returns how many bytes fit in.
    #[must_use]
    pub fn room(&self) -> usize {
        BYTES_MAX - self.bytes.len()
    }

    /// Returns whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD_BYTES
    }

    /// Adds a record; returns false, and adds nothing, when it does not fit in.
    pub fn add(&mut self, record: &Record, geometry: &Geometry) -> bool {
        let from = self.bytes.len();
        put::u32(&mut self.bytes, 0);
        put::u16(&mut self.bytes, record.kind());
        put::u16(&mut self.bytes, 0);
        record.write(&mut self.bytes, geometry);
        if self.bytes.len() > BYTES_MAX {
            self.bytes.truncate(from);
            return false;
        }
        let size = (self.bytes.len() - from - 8) as u32;
        self.bytes[from..from + 4].copy_from_slice(&size.to_le_bytes());
        true
    }

    /// Ends the message; `is_last`: and with it a commit.
    #[must_use]
    pub fn finish(mut self, is_last: bool) -> Vec<u8> {
        self.bytes[11] = if is_last { LAST } else { 0 };
        let size = self.bytes.len() as u32;
        self.bytes[16..20].copy_from_slice(&size.to_le_bytes());
        let checksum = crc32c(&[&self.bytes[..CHECKSUM.start], &self.bytes[CHECKSUM.end..]]);
        self.bytes[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// Returns what the block of a heartbeat's sender is, and which symbols the heartbeat tells of.
///
/// # Errors
///
/// `Damaged`, `Version`; `Damaged` also for messages of other kinds.
pub fn shape_of(heartbeat: &[u8]) -> Result<(Head, Shape, Vec<String>), Refusal> {
    // No record of a heartbeat depends on the shape of a block.
    let any = Geometry::new(Market::Spot, Interval::Minute1, *LENGTH_RANGE.start(), 1).map_err(|_| Refusal::Damaged)?;
    let Message { head, records } = Message::read(heartbeat, &any)?;
    let (mut found, mut symbols) = (None, Vec::new());
    for record in records {
        match record {
            Record::Shape(shape) => found = Some(shape),
            Record::Standing(standing) => symbols.push(standing.symbol),
            _ => {}
        }
    }
    found.filter(|_| head.kind == Kind::Heartbeat).map(|shape| (head, shape, symbols)).ok_or(Refusal::Damaged)
}

/// Puts records into as many messages as it takes.
pub struct Sender<'a> {
    geometry: &'a Geometry,
    /// Of the message that is being written.
    head: Head,
    builder: Builder,
    done: Vec<Vec<u8>>,
    /// Rows that were added.
    rows: usize,
}

/// Most bytes of a row in a message.
const ROW_BYTES_MAX: usize = 104;
/// Most bytes of a record of a series apart from its rows.
const UPDATE_BYTES_MAX: usize = 400;

impl<'a> Sender<'a> {
    /// Begins with the head of the first message. Those of changes that follow count on.
    #[must_use]
    pub fn new(head: Head, geometry: &'a Geometry) -> Self {
        Self { geometry, head, builder: Builder::new(&head), done: Vec::new(), rows: 0 }
    }

    /// Returns whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.builder.is_empty()
    }

    /// Returns the sequence of the newest message.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.head.sequence
    }

    /// Returns how many rows were added.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a series, in as many records as it takes.
    pub fn add(&mut self, mut update: Update) {
        loop {
            let room = self.builder.room().saturating_sub(UPDATE_BYTES_MAX) / ROW_BYTES_MAX;
            if room < update.rows.len().min(1) || self.builder.room() < UPDATE_BYTES_MAX {
                self.turn();
                continue;
            }
            self.rows += room.min(update.rows.len());
            if room >= update.rows.len() {
                self.builder.add(&Record::Update(update), self.geometry);
                return;
            }
            let later = update.rows.split_off(room);
            let first = Update { has_more: true, ..update.clone() };
            self.builder.add(&Record::Update(first), self.geometry);
            update.rows = later;
        }
    }

    fn turn(&mut self) {
        if self.head.kind == Kind::Changes {
            self.head.sequence += 1;
        }
        let full = std::mem::replace(&mut self.builder, Builder::new(&self.head));
        self.done.push(full.finish(false));
    }

    /// Returns the messages: none when nothing was added.
    #[must_use]
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        if !self.builder.is_empty() {
            self.done.push(self.builder.finish(true));
        }
        self.done
    }
}
