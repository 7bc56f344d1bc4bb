//! `Record`: one thing that changed a block from outside, or that somebody looking for a fault wants to know.

use candleshm::merge::RequestWindow;
use candleshm::writer::Health;

use crate::cursor::{Cursor, Packed};

/// A derived block, as its recording names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivedBlock {
    /// The block's name.
    pub name: String,
    /// Its interval.
    pub interval: String,
    /// Candles of a full window.
    pub length: u64,
    /// The interval of which older rows are requested; empty where none are.
    pub fetched: String,
}

/// What a collector opened. Each file begins with it, with the symbols that there were by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The block's name.
    pub name: String,
    /// SPOT, UM or CM.
    pub market: String,
    /// What the prices are.
    pub price: String,
    /// The interval.
    pub interval: String,
    /// Candles of a full window.
    pub length: u64,
    /// The symbols, in the block's order.
    pub symbols: Vec<String>,
    /// Places in the block.
    pub capacity: u64,
    /// Whose candles these are.
    pub exchange: String,
    /// The blocks derived from it.
    pub derived: Vec<DerivedBlock>,
    /// Epoch ms minus `CLOCK_BOOTTIME` in ms when the block was opened.
    pub offset_ms: i64,
    /// Whether the block began without rows, and everything since is in this file.
    pub is_whole: bool,
}

/// What the block took of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// It was merged.
    Merged = 0,
    /// The body could not be read.
    Malformed = 1,
    /// Merging was stopped, or the time was restarted meanwhile.
    Dropped = 2,
}

/// See the module. Texts and bodies lie in the bytes that were read.
#[derive(Debug, Clone, PartialEq)]
pub enum Record<'a> {
    /// The beginning of a file.
    Run(Run),
    /// A response about klines, of a series of the block or of the derived block named.
    Response {
        /// The series.
        symbol: &'a str,
        /// The derived block; empty for the block itself.
        derived: &'a str,
        /// What was requested, and when.
        window: RequestWindow,
        /// What became of it.
        fate: Fate,
        /// As it came.
        body: &'a [u8],
    },
    /// The texts of one read of a stream's socket.
    Frames {
        /// Number of the connection.
        connection: u64,
        /// Exchange time that surely was not passed.
        received_ms: i64,
        /// Each behind its length as u32; see [`texts`].
        texts: &'a [u8],
    },
    /// Rows of a cache or of files.
    Rows {
        /// The series.
        symbol: &'a str,
        /// The derived block; empty for the block itself.
        derived: &'a str,
        /// Exchange time at which they were requested.
        sent_ms: i64,
        /// Twelve floats for each, one row after the other.
        rows: &'a [u8],
        /// A state for each.
        states: &'a [u8],
    },
    /// A symbol that got a reserved place.
    Symbol(&'a str),
    /// The block was replaced by a larger one.
    Enlarged {
        /// All symbols.
        symbols: Vec<String>,
        /// Free places.
        spare: u64,
    },
    /// A symbol trades, is silent, or ended: the number of the core's `Presence`.
    Presence {
        /// The symbol.
        symbol: &'a str,
        /// The number.
        presence: u8,
    },
    /// What a calendar says.
    Calendar {
        /// The symbol.
        symbol: &'a str,
        /// The word of its entry.
        calendar: u64,
        /// Until when no newer candle need come.
        quiet_until_ms: i64,
    },
    /// Everything from here on is newer: the exchange's clock was set.
    Restart,
    /// The exchange's clock (epoch ms) minus `CLOCK_BOOTTIME` in ms, as it was measured.
    Clock {
        /// The difference.
        offset_ms: i64,
    },
    /// What the collector says about itself.
    Health(Health),
    /// Whether a derived block has what is to be fetched.
    Filled {
        /// The block.
        derived: &'a str,
        /// Whether it has.
        filled: bool,
    },
    /// All that was known of a series: what came before does not matter any more.
    Checkpoint {
        /// The series.
        symbol: &'a str,
        /// The derived block; empty for the block itself.
        derived: &'a str,
        /// Words of the core, eight bytes each.
        words: &'a [u8],
    },
    /// A message of a leader of a cluster that was applied.
    Message {
        /// Shards that this process led itself meanwhile.
        led: Vec<u32>,
        /// The `CLOCK_BOOTTIME` of this machine minus that of the sender, at most.
        clock_offset_ns: i64,
        /// The message.
        message: &'a [u8],
    },
    /// Records that were dropped here, because the queue was full.
    Missing {
        /// How many.
        records: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// What the collector notes about its requests and connections, as JSON.
    Note(&'a str),
    /// The next file goes on.
    Continued,
    /// The collector ended in order.
    End,
}

impl Record<'_> {
    /// Returns the body of the record; `boot_ms` is `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn pack(&self, boot_ms: u64) -> Vec<u8> {
        let mut to = Packed::default();
        to.byte(self.kind());
        to.word(boot_ms);
        match self {
            Self::Run(run) => pack_run(run, &mut to),
            Self::Response { symbol, derived, window, fate, body } => {
                to.0.reserve(body.len() + 128);
                to.bytes(symbol.as_bytes());
                to.bytes(derived.as_bytes());
                for number in [window.sent_ms, window.received_ms, window.settle_ms, window.limit as i64] {
                    to.number(number);
                }
                to.maybe(window.start_ms);
                to.maybe(window.end_ms);
                to.byte(window.from_end.into());
                to.number(window.patience_ms);
                to.byte(*fate as u8);
                to.bytes(body);
            }
            Self::Frames { connection, received_ms, texts } => {
                to.word(*connection);
                to.number(*received_ms);
                to.bytes(texts);
            }
            Self::Rows { symbol, derived, sent_ms, rows, states } => {
                to.bytes(symbol.as_bytes());
                to.bytes(derived.as_bytes());
                to.number(*sent_ms);
                to.bytes(rows);
                to.bytes(states);
            }
            Self::Symbol(text) | Self::Note(text) => to.bytes(text.as_bytes()),
            Self::Enlarged { symbols, spare } => {
                to.texts(symbols);
                to.word(*spare);
            }
            Self::Presence { symbol, presence } => {
                to.bytes(symbol.as_bytes());
                to.byte(*presence);
            }
            Self::Calendar { symbol, calendar, quiet_until_ms } => {
                to.bytes(symbol.as_bytes());
                to.word(*calendar);
                to.number(*quiet_until_ms);
            }
            Self::Clock { offset_ms } => to.number(*offset_ms),
            Self::Health(health) => {
                to.byte(health.ready.into());
                health.numbers().into_iter().for_each(|number| to.word(number));
            }
            Self::Filled { derived, filled } => {
                to.bytes(derived.as_bytes());
                to.byte((*filled).into());
            }
            Self::Checkpoint { symbol, derived, words } => {
                to.bytes(symbol.as_bytes());
                to.bytes(derived.as_bytes());
                to.bytes(words);
            }
            Self::Message { led, clock_offset_ns, message } => {
                to.word(led.len() as u64);
                for &shard in led {
                    to.word(shard.into());
                }
                to.number(*clock_offset_ns);
                to.bytes(message);
            }
            Self::Missing { records, bytes } => {
                to.word(*records);
                to.word(*bytes);
            }
            Self::Restart | Self::Continued | Self::End => {}
        }
        to.0
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Run(_) => 1,
            Self::Response { .. } => 2,
            Self::Frames { .. } => 3,
            Self::Rows { .. } => 4,
            Self::Symbol(_) => 5,
            Self::Enlarged { .. } => 6,
            Self::Presence { .. } => 7,
            Self::Calendar { .. } => 8,
            Self::Restart => 9,
            Self::Clock { .. } => 10,
            Self::Health(_) => 11,
            Self::Filled { .. } => 12,
            Self::Checkpoint { .. } => 13,
            Self::Missing { .. } => 14,
            Self::Note(_) => 15,
            Self::Continued => 16,
            Self::End => 17,
            Self::Message { .. } => 18,
        }
    }

    /// Returns what the record is, as one word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Response { .. } => "response",
            Self::Frames { .. } => "frames",
            Self::Rows { .. } => "rows",
            Self::Symbol(_) => "symbol",
            Self::Enlarged { .. } => "enlarged",
            Self::Presence { .. } => "presence",
            Self::Calendar { .. } => "calendar",
            Self::Restart => "restart",
            Self::Clock { .. } => "clock",
            Self::Health(_) => "health",
            Self::Filled { .. } => "filled",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Missing { .. } => "missing",
            Self::Note(_) => "note",
            Self::Continued => "continued",
            Self::End => "end",
            Self::Message { .. } => "message",
        }
    }
}

impl<'a> Record<'a> {
    /// Returns the record of a body, and when it was made; `None` for bytes that are no record.
    #[must_use]
    pub fn unpack(body: &'a [u8]) -> Option<(u64, Self)> {
        let mut from = Cursor(body);
        let kind = from.byte()?;
        let boot_ms = from.word()?;
        let record = match kind {
            1 => Self::Run(unpack_run(&mut from)?),
            2 => Self::Response {
                symbol: from.text()?,
                derived: from.text()?,
                window: unpack_window(&mut from)?,
                fate: match from.byte()? {
                    0 => Fate::Merged,
                    1 => Fate::Malformed,
                    2 => Fate::Dropped,
                    _ => return None,
                },
                body: from.bytes()?,
            },
            3 => Self::Frames { connection: from.word()?, received_ms: from.number()?, texts: from.bytes()? },
            4 => Self::Rows {
                symbol: from.text()?,
                derived: from.text()?,
                sent_ms: from.number()?,
                rows: from.bytes()?,
                states: from.bytes()?,
            },
            5 => Self::Symbol(from.text()?),
            6 => Self::Enlarged { symbols: from.texts()?, spare: from.word()? },
            7 => Self::Presence { symbol: from.text()?, presence: from.byte()? },
            8 => Self::Calendar { symbol: from.text()?, calendar: from.word()?, quiet_until_ms: from.number()? },
            9 => Self::Restart,
            10 => Self::Clock { offset_ms: from.number()? },
            11 => {
                let (ready, mut numbers) = (from.flag()?, [0; 7]);
                for number in &mut numbers {
                    *number = from.word()?;
                }
                Self::Health(Health::of(ready, numbers))
            }
            12 => Self::Filled { derived: from.text()?, filled: from.flag()? },
            13 => Self::Checkpoint { symbol: from.text()?, derived: from.text()?, words: from.bytes()? },
            14 => Self::Missing { records: from.word()?, bytes: from.word()? },
            15 => Self::Note(from.text()?),
            16 => Self::Continued,
            17 => Self::End,
            18 => Self::Message { led: from.shards()?, clock_offset_ns: from.number()?, message: from.bytes()? },
            _ => return None,
        };
        from.0.is_empty().then_some((boot_ms, record))
    }
}

fn pack_run(run: &Run, to: &mut Packed) {
    for text in [&run.name, &run.market, &run.price, &run.interval, &run.exchange] {
        to.bytes(text.as_bytes());
    }
    to.word(run.length);
    to.texts(&run.symbols);
    to.word(run.capacity);
    to.word(run.derived.len() as u64);
    for block in &run.derived {
        for text in [&block.name, &block.interval, &block.fetched] {
            to.bytes(text.as_bytes());
        }
        to.word(block.length);
    }
    to.number(run.offset_ms);
    to.byte(run.is_whole.into());
}

fn unpack_run(from: &mut Cursor<'_>) -> Option<Run> {
    let mut text = || from.text().map(str::to_owned);
    let (name, market, price, interval, exchange) = (text()?, text()?, text()?, text()?, text()?);
    let (length, symbols, capacity, count) = (from.word()?, from.texts()?, from.word()?, from.word()?);
    if count > from.0.len() as u64 {
        return None;
    }
    let derived = (0..count)
        .map(|_| {
            let (name, interval, fetched) = (from.text()?.to_owned(), from.text()?.to_owned(), from.text()?.to_owned());
            Some(DerivedBlock { name, interval, fetched, length: from.word()? })
        })
        .collect::<Option<_>>()?;
    let (offset_ms, is_whole) = (from.number()?, from.flag()?);
    Some(Run { name, market, price, interval, length, symbols, capacity, exchange, derived, offset_ms, is_whole })
}

fn unpack_window(from: &mut Cursor<'_>) -> Option<RequestWindow> {
    let known = |(is_there, number): (bool, i64)| is_there.then_some(number);
    Some(RequestWindow {
        sent_ms: from.number()?,
        received_ms: from.number()?,
        settle_ms: from.number()?,
        limit: from.word()? as usize,
        start_ms: known(from.maybe()?),
        end_ms: known(from.maybe()?),
        from_end: from.flag()?,
        patience_ms: from.number()?,
    })
}

/// Appends a text to those of a [`Record::Frames`].
pub fn add_text(text: &[u8], texts: &mut Vec<u8>) {
    texts.extend((text.len() as u32).to_le_bytes());
    texts.extend(text);
}

/// Returns the texts of a [`Record::Frames`]; `None` for bytes that are none.
#[must_use]
pub fn texts(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut from = Cursor(bytes);
    let mut found = Vec::new();
    while !from.0.is_empty() {
        found.push(from.bytes()?);
    }
    Some(found)
}

/// Returns the numbers that bytes hold, eight each; `None` when their count is not a multiple of eight.
#[must_use]
pub fn words(bytes: &[u8]) -> Option<Vec<u64>> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect())
}

/// Returns the bytes of numbers.
#[must_use]
pub fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
