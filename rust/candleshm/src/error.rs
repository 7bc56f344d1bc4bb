//! One error enum for the crate: a variant for each cause, with its facts in fields.

use std::fmt;

use crate::wire::archive_csv::CsvError;
use crate::wire::parse::ParseError;

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
        /// Its ABI major.
        major: u32,
        /// Its ABI minor.
        minor: u32,
        /// First bytes of its layout hash.
        hash: [u8; 4],
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
    /// The block does not have the symbol.
    UnknownSymbol {
        /// The symbol.
        symbol: String,
    },
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name } => write!(f, "no block has that name: `{name}`"),
            Self::NotReady { name } => write!(f, "the block is still being initialised: `{name}`"),
            Self::Leftover { name } => write!(f, "the block was left over from before the last boot: `{name}`"),
            Self::Owner { name, uid, mode, .. } => {
                write!(f, "block `{name}`, mode {mode:04o}, belongs to another user: `{uid}`")
            }
            Self::InUse { name, pid } => write!(f, "process {pid} already serves the block: `{name}`"),
            Self::Incompatible { name, major, minor, .. } => {
                write!(f, "block `{name}` has another format: `{major}.{minor}`")
            }
            Self::Corrupt { name, what } => write!(f, "block `{name}` cannot be used: {what}"),
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
            Self::UnknownSymbol { symbol } => write!(f, "unknown symbol: `{symbol}`"),
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
            Self::NoMemory { name, bytes } => write!(f, "/dev/shm has no room for {bytes} bytes of block `{name}`"),
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
