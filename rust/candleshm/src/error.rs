//! One error enum for the crate: a variant per cause, its facts in fields.

use std::fmt;

use crate::wire::archive_csv::CsvError;
use crate::wire::parse::ParseError;

/// Why a block's bytes cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corruption {
    /// Shorter (or longer) than its header says, or than a header is.
    Truncated {
        /// Size found.
        bytes: usize,
    },
    /// No candleshm block at all.
    Foreign,
    /// A link, a directory, a pipe, a device.
    NotAFile,
    /// A header field that cannot be.
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
    /// No block of that name.
    NotFound {
        /// The block's name.
        name: String,
    },
    /// A block of that name is still being initialised.
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
        /// Whose it is.
        uid: u32,
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
    /// A name that cannot name a block.
    Name {
        /// The name.
        name: String,
    },
    /// LENGTH out of range.
    Length {
        /// The length asked for.
        length: usize,
    },
    /// More symbols than a block can carry, or none.
    SymbolCapacity {
        /// The capacity asked for.
        capacity: usize,
    },
    /// Every place of the symbol table is taken.
    SymbolsFull {
        /// How many there are.
        capacity: usize,
    },
    /// A symbol name that does not fit a block.
    SymbolName {
        /// The symbol.
        symbol: String,
    },
    /// The block does not carry the symbol.
    UnknownSymbol {
        /// The symbol.
        symbol: String,
    },
    /// Candles that cannot be made of others.
    Derivation {
        /// Those that there are.
        source: String,
        /// Those that were wanted.
        target: String,
    },
    /// A window too short to derive from.
    Window {
        /// The candles that were wanted.
        target: String,
        /// Candles of the source in the longest of them.
        parts: usize,
        /// LENGTH of the source.
        length: usize,
    },
    /// Rows out of order.
    Unsorted {
        /// The first one that does not open after the row before it.
        row: usize,
    },
    /// A body that is not an array of klines.
    Parse(ParseError),
    /// A file that is not an archive's CSV.
    Csv(CsvError),
    /// The writer published faster than a reader could copy one row, many times in a row.
    Contended,
    /// `/dev/shm` is too small.
    NoMemory {
        /// The block's name.
        name: String,
        /// Its size.
        bytes: usize,
    },
    /// The operating system refused.
    Os {
        /// What was tried.
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
            Self::Truncated { bytes } => write!(f, "its size does not fit its header: `{bytes}` bytes"),
            Self::Foreign => write!(f, "it is not a candleshm block"),
            Self::NotAFile => write!(f, "it is not a candleshm block, not even a file"),
            Self::Field { field, value } => write!(f, "its header contradicts itself in {field}: `{value}`"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name } => write!(f, "no block of that name: `{name}`"),
            Self::NotReady { name } => write!(f, "the block is still being initialised: `{name}`"),
            Self::Leftover { name } => write!(f, "the block was left over from before the last boot: `{name}`"),
            Self::Owner { name, uid } => write!(f, "block `{name}` belongs to another user: `{uid}`"),
            Self::InUse { name, pid } => write!(f, "process {pid} serves the block already: `{name}`"),
            Self::Incompatible { name, major, minor, .. } => {
                write!(f, "block `{name}` is of another format: `{major}.{minor}`")
            }
            Self::Corrupt { name, what } => write!(f, "block `{name}` cannot be used: {what}"),
            Self::Name { name } => {
                write!(f, "a block's name is 1 to 200 of A-Z a-z 0-9 . _ - and does not begin with a dot: `{name}`")
            }
            Self::Length { length } => write!(f, "LENGTH is not within 2..100000: `{length}`"),
            Self::SymbolCapacity { capacity } => write!(f, "a block carries 1 to 16384 symbols: `{capacity}`"),
            Self::SymbolsFull { capacity } => write!(f, "all places for symbols are taken: `{capacity}`"),
            Self::SymbolName { symbol } => {
                write!(f, "a symbol's name is 1 to 64 bytes without blanks, slashes and control characters: `{symbol}`")
            }
            Self::UnknownSymbol { symbol } => write!(f, "unknown symbol: `{symbol}`"),
            Self::Derivation { source, target } => {
                write!(f, "candles of {source} do not tile candles of another interval: `{target}`")
            }
            Self::Window { target, parts, length } => {
                write!(f, "a candle of {target} is made of up to {parts}, more than LENGTH: `{length}`")
            }
            Self::Unsorted { row } => write!(f, "a row does not open after the row before it: `{row}`"),
            Self::Parse(error) => error.fmt(f),
            Self::Csv(error) => error.fmt(f),
            Self::Contended => write!(f, "the newest row kept changing while it was read"),
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
