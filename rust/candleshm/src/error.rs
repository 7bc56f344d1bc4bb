//! One error enum for the crate: a variant for each cause, with its facts in fields.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::wire::archive_csv::CsvError;
use crate::wire::parse::ParseError;
use crate::zone::utc_text;

/// Why the time of a replay stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldUp {
    /// How many readers take part.
    pub readers: usize,
    /// How many have to come before time begins to move, 0 once it may.
    pub awaited: usize,
    /// The readers that are at work, as process and thread; 0 for a thread that is not known.
    pub busy: Vec<(u64, u64)>,
}

impl fmt::Display for HoldUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.readers < self.awaited {
            let verb = if self.readers == 1 { "takes" } else { "take" };
            let nouns = if self.awaited == 1 { "reader is" } else { "readers are" };
            return write!(f, "{} {nouns} awaited, {} {verb} part", self.awaited, self.readers);
        }
        f.write_str("a reader is awaited that does not wait: ")?;
        for (place, (pid, thread)) in self.busy.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { ", " })?;
            match thread {
                0 => write!(f, "process {pid}")?,
                _ => write!(f, "thread {thread} of process {pid}")?,
            }
            if *thread != 0 && !Path::new(&format!("/proc/{pid}/task/{thread}")).exists() {
                f.write_str(", which has ended (close its Feed)")?;
            }
        }
        Ok(())
    }
}

/// Why a block's bytes cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corruption {
    /// Its size is not the one in its header, or is too small for a header.
    Truncated {
        /// Size found.
        bytes: usize,
    },
    /// It is no candleshm block.
    Foreign,
    /// It is a link, a directory, a pipe, or a device.
    NotAFile,
    /// A header field has an impossible value.
    Field {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// What a reader can do about an error: one kind for each exception of Python and each code of C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no block of that name, or none that is ready; or the feed was closed.
    NotFound,
    /// The block was written in another format.
    Incompatible,
    /// The block's bytes cannot be used.
    Corrupt,
    /// The system refused: no room, no permission, another user's block.
    Unavailable,
    /// A live collector owns the block. Only writers meet it.
    InUse,
    /// The block does not carry the symbol.
    UnknownSymbol,
    /// The data is older than the feed's limit, or the symbol is delisted, or the collector shows no life.
    Stale,
    /// A wait reached its deadline, or was interrupted.
    Timeout,
    /// Rows are missing where none may be.
    Gap,
    /// Rows of a view were overwritten or revised.
    Overwritten,
    /// An argument cannot be used.
    Argument,
    /// The newest row changed during every attempt to read it; try again.
    Contended,
    /// The replay that a wait is in has no later moment.
    Ended,
    /// A response of the exchange, or a file of its archive, is not what was requested. Only writers meet it.
    BadResponse,
}

/// Everything that can go wrong in the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No block has that name.
    NotFound {
        /// The block's name.
        name: String,
    },
    /// The block is still being initialised.
    NotReady {
        /// The block's name.
        name: String,
    },
    /// The block was written before the machine was last started.
    Leftover {
        /// The block's name.
        name: String,
    },
    /// The block belongs to another user.
    Owner {
        /// The block's name.
        name: String,
        /// The user that owns it.
        uid: u32,
        /// The group of its file.
        gid: u32,
        /// The permissions of its file.
        mode: u32,
    },
    /// A live collector owns the block.
    InUse {
        /// The block's name.
        name: String,
        /// The owner's process, 0 when unknown.
        pid: u64,
    },
    /// The block was written in another format.
    Incompatible {
        /// The block's name.
        name: String,
        /// Its format: ABI numbers, and the first bytes of its layout hash.
        found: String,
        /// The format that this version reads.
        expected: String,
    },
    /// The block's bytes cannot be used.
    Corrupt {
        /// The block's name.
        name: String,
        /// What is wrong.
        what: Corruption,
    },
    /// The name cannot be that of a block.
    Name {
        /// The name.
        name: String,
    },
    /// LENGTH is out of range.
    Length {
        /// The requested length.
        length: usize,
    },
    /// The number of symbols is zero, or more than a block can have.
    SymbolCapacity {
        /// The requested capacity.
        capacity: usize,
    },
    /// The symbol table is full.
    SymbolsFull {
        /// How many symbols it holds.
        capacity: usize,
    },
    /// The name cannot be that of a symbol.
    SymbolName {
        /// The symbol.
        symbol: String,
    },
    /// The feed was closed.
    FeedClosed {
        /// The block's name.
        name: String,
    },
    /// The block does not have the symbol.
    UnknownSymbol {
        /// The symbol.
        symbol: String,
        /// The block's name.
        name: String,
    },
    /// Another block has the name, with other symbols in the places that the caller knows.
    Places {
        /// The block's name.
        name: String,
    },
    /// The data was last confirmed longer ago than the limit, or the symbol is delisted.
    Stale {
        /// The symbol, or what else shows no life.
        symbol: String,
        /// How long ago, ms; `None` when it was never loaded, or not confirmed since this machine started.
        age_ms: Option<u64>,
        /// The feed's limit, ms.
        limit_ms: u64,
        /// Whether the data is young enough, and the symbol delisted.
        delisted: bool,
    },
    /// No newer candle opened in time.
    NothingOpened {
        /// The symbol.
        symbol: String,
        /// How long was waited.
        waited: Duration,
    },
    /// No candle closed in time, for enough of the symbols.
    NothingClosed {
        /// Open time of the awaited candle, epoch ms; `None` while it is not known.
        open_ms: Option<i64>,
        /// How many symbols have it final.
        closed: usize,
        /// The awaited symbols that do not.
        missing: Vec<String>,
        /// How long was waited.
        waited: Duration,
        /// Why time stands still in a replay, if it does.
        held_up: Option<HoldUp>,
    },
    /// Nothing was published in time.
    NothingPublished {
        /// The block's name.
        name: String,
        /// How long was waited.
        waited: Duration,
    },
    /// A replay has no later moment to wait for: it has reached its end, or was stopped.
    ReplayEnded {
        /// The block's name.
        name: String,
        /// When it started, epoch ms.
        start_ms: i64,
        /// When it ends, epoch ms.
        end_ms: i64,
        /// Where it stands, epoch ms.
        now_ms: i64,
    },
    /// All places of a lockstep are taken.
    LockstepFull {
        /// The block's name.
        name: String,
        /// How many there are.
        places: usize,
    },
    /// A wait was ended by its own process.
    Interrupted,
    /// Rows are missing where none may be.
    Gap {
        /// The symbol.
        symbol: String,
        /// Open time of the first row that is absent, epoch ms.
        start_ms: i64,
        /// Open time of the first row behind the gap, epoch ms.
        end_ms: i64,
        /// Whether the exchange confirmed that it has no such rows.
        is_hole: bool,
    },
    /// Rows of a view were overwritten or revised while it was used.
    Overwritten {
        /// The symbol.
        symbol: String,
    },
    /// An argument cannot be used.
    Argument(
        /// Which one, its value, and what is allowed.
        String,
    ),
    /// Candles of one interval cannot be derived from those of the other.
    Derivation {
        /// The interval of the candles to derive from.
        source: String,
        /// The requested interval.
        target: String,
    },
    /// LENGTH is too small to derive the candles.
    Window {
        /// The requested interval.
        target: String,
        /// Candles of the source in the longest of them.
        parts: usize,
        /// LENGTH of the source.
        length: usize,
    },
    /// Rows are out of order.
    Unsorted {
        /// The first one that does not open after the row before it.
        row: usize,
    },
    /// A body is not an array of klines.
    Parse(ParseError),
    /// A file is not CSV of the archive.
    Csv(CsvError),
    /// The writer changed a row during every attempt of a reader to copy it.
    Contended,
    /// `/dev/shm` is too small.
    NoMemory {
        /// The block's name.
        name: String,
        /// Its size.
        bytes: usize,
    },
    /// A call of the operating system failed.
    Os {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        name: String,
        /// The error number.
        errno: i32,
    },
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { bytes } => write!(f, "its size contradicts its header: `{bytes}` bytes"),
            Self::Foreign => write!(f, "it is not a candleshm block"),
            Self::NotAFile => write!(f, "it is not a regular file, so it is no candleshm block"),
            Self::Field { field, value } => write!(f, "its header contradicts itself in {field}: `{value}`"),
        }
    }
}

impl Error {
    /// Returns what a reader can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NotReady { .. } | Self::Leftover { .. } | Self::FeedClosed { .. } => {
                ErrorKind::NotFound
            }
            Self::Incompatible { .. } => ErrorKind::Incompatible,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Owner { .. } | Self::NoMemory { .. } | Self::Os { .. } => ErrorKind::Unavailable,
            Self::InUse { .. } => ErrorKind::InUse,
            Self::UnknownSymbol { .. } | Self::Places { .. } => ErrorKind::UnknownSymbol,
            Self::Stale { .. } => ErrorKind::Stale,
            Self::NothingOpened { .. }
            | Self::NothingClosed { .. }
            | Self::NothingPublished { .. }
            | Self::Interrupted => ErrorKind::Timeout,
            Self::ReplayEnded { .. } => ErrorKind::Ended,
            Self::Gap { .. } => ErrorKind::Gap,
            Self::Overwritten { .. } => ErrorKind::Overwritten,
            Self::Contended => ErrorKind::Contended,
            Self::Parse(_) | Self::Csv(_) => ErrorKind::BadResponse,
            Self::Argument(_)
            | Self::LockstepFull { .. }
            | Self::Name { .. }
            | Self::Length { .. }
            | Self::SymbolCapacity { .. }
            | Self::SymbolsFull { .. }
            | Self::SymbolName { .. }
            | Self::Derivation { .. }
            | Self::Window { .. }
            | Self::Unsorted { .. } => ErrorKind::Argument,
        }
    }

    /// Returns the name of a block that cannot be used, and why not.
    #[must_use]
    pub fn of_block(&self) -> Option<(&str, String)> {
        Some(match self {
            Self::NotFound { name } => (name, "no block has that name; `candleshm ls` lists the blocks".into()),
            Self::NotReady { name } => (name, "it is still being initialised; try again".into()),
            Self::Leftover { name } => {
                (name, "it is left over from before the last boot; start its collector again".into())
            }
            Self::FeedClosed { name } => (name, "this feed was closed; attach again".into()),
            Self::Incompatible { name, found, expected } => (
                name,
                format!(
                    "it was written in format {found}, and this version reads {expected}; use the same candleshm version \
                     on both sides"
                ),
            ),
            Self::Corrupt { name, what: what @ Corruption::NotAFile } => (name, what.to_string()),
            Self::Corrupt { name, what: what @ Corruption::Foreign } => {
                (name, format!("{what}; if no program needs it, remove /dev/shm/{name}"))
            }
            Self::Corrupt { name, what } => {
                (name, format!("{what}; `candleshm rm` removes a block that no collector serves"))
            }
            Self::NoMemory { name, bytes } => (
                name,
                format!(
                    "/dev/shm has no room for its {} MiB; enlarge it, or serve fewer symbols or a smaller length",
                    bytes >> 20
                ),
            ),
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    #[expect(clippy::too_many_lines, reason = "a text for each variant")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, reason)) = self.of_block() {
            return write!(f, "block `{name}`: {reason}");
        }
        match self {
            Self::NotFound { .. }
            | Self::NotReady { .. }
            | Self::Leftover { .. }
            | Self::FeedClosed { .. }
            | Self::Incompatible { .. }
            | Self::Corrupt { .. }
            | Self::NoMemory { .. } => Ok(()),
            Self::Owner { name, uid, mode, .. } => {
                write!(f, "block `{name}`, mode {mode:04o}, belongs to another user: `{uid}`")
            }
            Self::InUse { name, pid } => write!(f, "process {pid} already serves the block: `{name}`"),
            Self::Name { name } => {
                write!(f, "a block name must be 1 to 200 of A-Z a-z 0-9 . _ - and must not begin with a dot: `{name}`")
            }
            Self::Length { length } => write!(f, "LENGTH must be 2 to 100000: `{length}`"),
            Self::SymbolCapacity { capacity } => {
                write!(f, "a block must have room for 1 to 16384 symbols: `{capacity}`")
            }
            Self::SymbolsFull { capacity } => {
                write!(f, "the block is full; serve fewer symbols, its room is: `{capacity}`")
            }
            Self::SymbolName { symbol } => {
                write!(
                    f,
                    "a symbol name must be 1 to 64 bytes without blanks, slashes and control characters: `{symbol}`"
                )
            }
            Self::UnknownSymbol { symbol, name } => {
                write!(f, "unknown symbol in {name}: `{symbol}`; `candleshm top {name} --once` lists its symbols")
            }
            Self::Places { name } => write!(
                f,
                "block `{name}` has other symbols in these places now; ask for their number and their names again"
            ),
            Self::Stale { symbol, age_ms: None, delisted: true, .. } => {
                write!(f, "{symbol} no longer trades, and was not confirmed since this machine started")
            }
            Self::Stale { symbol, age_ms: None, .. } => {
                write!(
                    f,
                    "{symbol} has not been loaded yet, or not been confirmed since this machine started; try again"
                )
            }
            Self::Stale { symbol, age_ms: Some(age_ms), limit_ms, delisted } => {
                let (age, limit) = (*age_ms as f64 / 1e3, *limit_ms as f64 / 1e3);
                if *delisted {
                    return write!(f, "{symbol} no longer trades; it was last confirmed {age:.1} s ago");
                }
                write!(f, "{symbol} is stale: last confirmed {age:.1} s ago, the limit is {limit:?} s")
            }
            Self::NothingOpened { symbol, waited } => {
                write!(f, "no newer candle of {symbol} within {} s", waited.as_secs_f64())
            }
            Self::NothingClosed { open_ms, closed, missing, waited, held_up } => {
                let candle = open_ms.map_or_else(|| "next candle".into(), |ms| format!("candle of {}", utc_text(ms)));
                let (waited, awaited) = (waited.as_secs_f64(), closed + missing.len());
                write!(f, "no close within {waited} s: {closed} of {awaited} symbols have the {candle} final")?;
                held_up.as_ref().map_or(Ok(()), |held_up| write!(f, "; the replay stands still: {held_up}"))
            }
            Self::NothingPublished { name, waited } => {
                write!(f, "block `{name}` published nothing within {} s", waited.as_secs_f64())
            }
            Self::ReplayEnded { name, start_ms, end_ms, now_ms } => {
                let [start, end, now] = [start_ms, end_ms, now_ms].map(|&ms| utc_text(ms));
                let how = if now_ms >= end_ms { "has ended".into() } else { format!("was stopped at {now}") };
                write!(f, "the replay of {start} to {end} in block `{name}` {how}: no later moment comes")
            }
            Self::LockstepFull { name, places } => write!(
                f,
                "the replay `{name}` has {places} readers, as many as can wait in it; close feeds that wait no longer"
            ),
            Self::Interrupted => write!(f, "the wait was interrupted"),
            Self::Gap { symbol, start_ms, end_ms, is_hole } => {
                let [start, end] = [start_ms, end_ms].map(|&ms| utc_text(ms).replace('T', " ").replace('Z', ""));
                let kind = if *is_hole { "hole" } else { "missing" };
                write!(f, "{symbol} has no candles from {start} to {end} UTC: {kind}")
            }
            Self::Overwritten { symbol } => write!(
                f,
                "rows of a view of {symbol} were overwritten or revised while it was used; discard the result and take \
                 a new view"
            ),
            Self::Argument(text) => write!(f, "{text}"),
            Self::Derivation { source, target } => {
                write!(f, "{source} candles cannot be combined to candles of this interval: `{target}`")
            }
            Self::Window { target, parts, length } => {
                write!(
                    f,
                    "a {target} candle is derived from up to {parts} candles, so LENGTH must be at least that: `{length}`"
                )
            }
            Self::Unsorted { row } => write!(
                f,
                "rows must be in ascending order of open time; this row does not open after the one before it: `{row}`"
            ),
            Self::Parse(error) => error.fmt(f),
            Self::Csv(error) => error.fmt(f),
            Self::Contended => write!(f, "the newest row changed during every attempt to read it"),
            Self::Os { action, name, errno } => {
                write!(f, "cannot {action} `{name}`: {}", std::io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

impl From<CsvError> for Error {
    fn from(error: CsvError) -> Self {
        Self::Csv(error)
    }
}
