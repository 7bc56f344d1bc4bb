//! What messages consist of.

use core::ops::Range;

use super::Refusal;
use super::bytes::{Reader, put};
use crate::columns::{CLOSE_TIME_MS, COLUMNS, IGNORE, OPEN_TIME_MS, OPEN_TIME_MS_MAX, Row, plausible};
use crate::condition::Health;
use crate::interval::{Grid, Interval};
use crate::layout::{Geometry, LENGTH_RANGE, Presence, RowState, SYMBOL_CAPACITY_MAX};
use crate::market::Market;
use crate::price::Price;
use crate::publish::RingRow;
use crate::replica::digest::buckets_of;
use crate::symbols;

/// Row of values that a hole has.
const BLANK: Row = [f64::NAN; COLUMNS];
/// Open and close time follow from the candle index, and are left out.
const ON_GRID: u8 = 1;
/// The column without a meaning is 0, and is left out.
const PLAIN: u8 = 2;

/// One thing that a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Rows of a series.
    Update(Update),
    /// Where a series stands.
    Standing(Standing),
    /// What a follower wants of a series.
    Wanted(Wanted),
    /// What the sender's block is.
    Shape(Shape),
    /// How the sender does.
    State(State),
}

/// What is true of a series apart from its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Whose rows they are.
    pub symbol: String,
    /// Phase of its 3d grid.
    pub phase_days: u64,
    /// The candle index of its first candle, 0 while unknown.
    pub first_bar: u64,
    /// A [`Presence`] as stored.
    pub presence: u64,
    /// Its calendar as stored.
    pub calendar: u64,
    /// First candle index that is not in the ring.
    pub head: u64,
    /// Corrections of closed rows so far.
    pub revision: u32,
    /// The sender's `CLOCK_BOOTTIME` of the newest response, ms.
    pub received_ms: u64,
    /// The newest row: live and of `head`, or final and of the candle before; `None` where there is none, or it is not told.
    pub newest: Option<(RowState, Row)>,
    /// Rows below `head`, ascending: live (provisional), closed, verified or holes.
    pub rows: Vec<RingRow>,
    /// Whether more records of this series follow.
    pub has_more: bool,
    /// Whether the rows of the range that was asked about differ, and are not here.
    pub differs: bool,
}

/// Where a series stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Its symbol.
    pub symbol: String,
    /// Phase of its 3d grid.
    pub phase_days: u64,
    /// The candle index of its first candle, 0 while unknown.
    pub first_bar: u64,
    /// A [`Presence`] as stored.
    pub presence: u64,
    /// Its calendar as stored.
    pub calendar: u64,
    /// The candles of its window that lie in the ring; it ends at the head.
    pub window: Range<u64>,
    /// Index of the oldest candle that is not final.
    pub final_end: u64,
    /// Corrections of closed rows so far.
    pub revision: u32,
    /// The sender's `CLOCK_BOOTTIME` of the newest response, ms.
    pub received_ms: u64,
    /// The sum of the settled rows of the window.
    pub digest: u64,
    /// The hash of the newest row.
    pub newest: u64,
}

/// What a follower wants of a series: its newest row in any case.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its symbol.
    pub symbol: String,
    /// The candles that it is about.
    pub range: Range<u64>,
    /// What of them.
    pub query: Query,
}

/// What is wanted of a range of candles.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// Nothing.
    Newest,
    /// All rows.
    All,
    /// The rows of the buckets whose sums are others.
    Buckets(Vec<u64>),
    /// Whether the sum is another one.
    Digest(u64),
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `SPOT`, `UM` or `CM`.
    pub market: Market,
    /// What the prices are.
    pub price: Price,
    /// The grid of its candles.
    pub grid: Grid,
    /// Whose candles they are.
    pub exchange: String,
    /// Candles of a full window.
    pub length: usize,
    /// Places in the symbol table.
    pub symbol_capacity: usize,
    /// Symbols of all shards.
    pub symbols: usize,
}

/// What a collector says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Who it is: host and process.
    pub source: String,
    /// What it knows about itself.
    pub health: Health,
}

impl Record {
    pub(super) fn kind(&self) -> u16 {
        match self {
            Self::Update(_) => 1,
            Self::Standing(_) => 2,
            Self::Wanted(_) => 3,
            Self::Shape(_) => 4,
            Self::State(_) => 5,
        }
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>, geometry: &Geometry) {
        match self {
            Self::Update(update) => update.write(bytes, geometry),
            Self::Standing(standing) => standing.write(bytes),
            Self::Wanted(wanted) => wanted.write(bytes),
            Self::Shape(shape) => shape.write(bytes),
            Self::State(state) => state.write(bytes),
        }
    }

    /// Reads a record; `None` for a kind of a later minor.
    pub(super) fn read(kind: u16, reader: Reader<'_>, geometry: &Geometry) -> Result<Option<Self>, Refusal> {
        Ok(Some(match kind {
            1 => Self::Update(Update::read(reader, geometry)?),
            2 => Self::Standing(Standing::read(reader)?),
            3 => Self::Wanted(Wanted::read(reader)?),
            4 => Self::Shape(Shape::read(reader)?),
            5 => Self::State(State::read(reader)?),
            _ => return Ok(None),
        }))
    }
}

const HAS_NEWEST: u8 = 1;
const HAS_MORE: u8 = 2;
const DIFFERS: u8 = 4;

impl Update {
    fn write(&self, bytes: &mut Vec<u8>, geometry: &Geometry) {
        let grid = geometry.grid(self.phase_days);
        put::text(bytes, &self.symbol);
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        bytes.extend([
            self.phase_days as u8,
            self.presence as u8,
            flag(self.newest.is_some(), HAS_NEWEST) | flag(self.has_more, HAS_MORE) | flag(self.differs, DIFFERS),
        ]);
        put::u32(bytes, self.first_bar as u32);
        put::u64(bytes, self.calendar);
        put::u32(bytes, self.head as u32);
        put::u32(bytes, self.revision);
        put::u64(bytes, self.received_ms);
        if let Some((state, row)) = self.newest {
            let candle_index = self.head - u64::from(state != RowState::Live);
            write_row(bytes, grid, &RingRow { candle_index, row, state });
        }
        put::u32(bytes, self.rows.len() as u32);
        self.rows.iter().for_each(|row| write_row(bytes, grid, row));
    }

    fn read(mut reader: Reader<'_>, geometry: &Geometry) -> Result<Self, Refusal> {
        let symbol = read_symbol(&mut reader)?;
        let (phase_days, presence, flags) = (read_phase(&mut reader)?, read_presence(&mut reader)?, reader.u8()?);
        let grid = geometry.grid(phase_days);
        let rules = Rules { grid, price: geometry.price, newest: newest_index(grid) };
        let first_bar = reader.index()?;
        let calendar = reader.u64()?;
        let head = reader.index()?;
        let revision = reader.u32()?;
        let received_ms = reader.u64()?;
        if head.max(first_bar) > rules.newest + 1 {
            return Err(Refusal::Damaged);
        }
        let newest = if flags & HAS_NEWEST == 0 { None } else { Some(read_row(&mut reader, &rules)?) };
        let fits = newest.as_ref().is_none_or(|row| match row.state {
            RowState::Live => row.candle_index == head,
            RowState::Closed | RowState::Verified => row.candle_index + 1 == head,
            _ => false,
        });
        let count = reader.count(8)?;
        let rows = (0..count).map(|_| read_row(&mut reader, &rules)).collect::<Result<Vec<_>, _>>()?;
        let are_ordered = rows.is_sorted_by(|a, b| a.candle_index < b.candle_index)
            && rows.last().is_none_or(|row| row.candle_index < head);
        if !fits || !are_ordered {
            return Err(Refusal::Damaged);
        }
        Ok(Self {
            symbol,
            phase_days,
            first_bar,
            presence,
            calendar,
            head,
            revision,
            received_ms,
            newest: newest.map(|row| (row.state, row.row)),
            rows,
            has_more: flags & HAS_MORE != 0,
            differs: flags & DIFFERS != 0,
        })
    }
}

/// What a row of a series must satisfy.
struct Rules {
    grid: Grid,
    price: Price,
    /// The newest candle there can be.
    newest: u64,
}

fn newest_index(grid: Grid) -> u64 {
    (grid.index_of(OPEN_TIME_MS_MAX).max(0) as u64).min(u64::from(u32::MAX) - 2)
}

/// Returns the times of a candle whose row is as most are.
fn times_of(grid: Grid, candle_index: u64) -> (f64, f64) {
    (grid.open_ms(candle_index as i64) as f64, (grid.end_ms(candle_index as i64) - 1) as f64)
}

/// Writes 8 bytes and those values of a row that do not follow from its place.
fn write_row(bytes: &mut Vec<u8>, grid: Grid, row: &RingRow) {
    let RingRow { candle_index, row, state } = row;
    put::u32(bytes, *candle_index as u32);
    if *state == RowState::Hole {
        bytes.extend([*state as u8, 0, 0, 0]);
        return;
    }
    let (open_ms, close_ms) = times_of(grid, *candle_index);
    let is_on_grid = row[OPEN_TIME_MS] == open_ms && row[CLOSE_TIME_MS] == close_ms;
    let is_plain = row[IGNORE].to_bits() == 0;
    bytes.extend([*state as u8, if is_on_grid { ON_GRID } else { 0 } | if is_plain { PLAIN } else { 0 }, 0, 0]);
    for (column, value) in row.iter().enumerate() {
        let follows = match column {
            OPEN_TIME_MS | CLOSE_TIME_MS => is_on_grid,
            IGNORE => is_plain,
            _ => false,
        };
        if !follows {
            put::u64(bytes, value.to_bits());
        }
    }
}

fn read_row(reader: &mut Reader<'_>, rules: &Rules) -> Result<RingRow, Refusal> {
    let candle_index = reader.index()?;
    let (state, flags) = (reader.u8()?, reader.u8()?);
    reader.u16()?;
    if candle_index < 1 || candle_index > rules.newest {
        return Err(Refusal::Damaged);
    }
    let state = match state {
        1 => RowState::Live,
        2 => RowState::Closed,
        3 => RowState::Verified,
        4 => return Ok(RingRow { candle_index, row: BLANK, state: RowState::Hole }),
        _ => return Err(Refusal::Damaged),
    };
    let (is_on_grid, is_plain) = (flags & ON_GRID != 0, flags & PLAIN != 0);
    let (open_ms, close_ms) = times_of(rules.grid, candle_index);
    let mut row = [0.0; COLUMNS];
    for (column, value) in row.iter_mut().enumerate() {
        *value = match column {
            OPEN_TIME_MS if is_on_grid => open_ms,
            CLOSE_TIME_MS if is_on_grid => close_ms,
            IGNORE if is_plain => 0.0,
            _ => reader.f64()?,
        };
    }
    let is_of_candle = rules.grid.index_of(row[OPEN_TIME_MS] as i64) == candle_index as i64;
    if plausible(&row, rules.price).is_err() || !is_of_candle {
        return Err(Refusal::Damaged);
    }
    Ok(RingRow { candle_index, row, state })
}

impl Standing {
    fn write(&self, bytes: &mut Vec<u8>) {
        put::text(bytes, &self.symbol);
        bytes.extend([self.phase_days as u8, self.presence as u8]);
        put::u64(bytes, self.calendar);
        for index in [self.first_bar, self.window.start, self.window.end, self.final_end] {
            put::u32(bytes, index as u32);
        }
        put::u32(bytes, self.revision);
        put::u64(bytes, self.received_ms);
        put::u64(bytes, self.digest);
        put::u64(bytes, self.newest);
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, Refusal> {
        let symbol = read_symbol(&mut reader)?;
        let (phase_days, presence, calendar) = (read_phase(&mut reader)?, read_presence(&mut reader)?, reader.u64()?);
        let (first_bar, start, end, final_end) = (reader.index()?, reader.index()?, reader.index()?, reader.index()?);
        if start > end || end - start > *LENGTH_RANGE.end() as u64 {
            return Err(Refusal::Damaged);
        }
        Ok(Self {
            symbol,
            phase_days,
            first_bar,
            presence,
            calendar,
            window: start..end,
            final_end,
            revision: reader.u32()?,
            received_ms: reader.u64()?,
            digest: reader.u64()?,
            newest: reader.u64()?,
        })
    }
}

impl Wanted {
    fn write(&self, bytes: &mut Vec<u8>) {
        put::text(bytes, &self.symbol);
        put::u32(bytes, self.range.start as u32);
        put::u32(bytes, self.range.end as u32);
        match &self.query {
            Query::Newest => bytes.push(0),
            Query::All => bytes.push(1),
            Query::Buckets(sums) => {
                bytes.push(2);
                put::u32(bytes, sums.len() as u32);
                for &sum in sums {
                    put::u64(bytes, sum);
                }
            }
            Query::Digest(sum) => {
                bytes.push(3);
                put::u64(bytes, *sum);
            }
        }
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, Refusal> {
        let symbol = read_symbol(&mut reader)?;
        let range = reader.index()?..reader.index()?;
        if range.start > range.end || range.end - range.start > *LENGTH_RANGE.end() as u64 {
            return Err(Refusal::Damaged);
        }
        let query = match reader.u8()? {
            0 => Query::Newest,
            1 => Query::All,
            2 => {
                let count = reader.count(8)?;
                if count != buckets_of(&range).count() {
                    return Err(Refusal::Damaged);
                }
                Query::Buckets((0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?)
            }
            3 => Query::Digest(reader.u64()?),
            _ => return Err(Refusal::Version),
        };
        Ok(Self { symbol, range, query })
    }
}

impl Shape {
    fn write(&self, bytes: &mut Vec<u8>) {
        put::text(bytes, self.market.as_str());
        put::text(bytes, self.price.as_str());
        put::text(bytes, &self.grid.name());
        put::text(bytes, &self.exchange);
        for count in [self.length, self.symbol_capacity, self.symbols] {
            put::u32(bytes, count as u32);
        }
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, Refusal> {
        let shape = Self {
            market: Market::parse(reader.text()?).ok_or(Refusal::Damaged)?,
            price: Price::parse(reader.text()?).ok_or(Refusal::Damaged)?,
            grid: grid_named(reader.text()?)?,
            exchange: reader.text()?.to_owned(),
            length: reader.u32()? as usize,
            symbol_capacity: reader.u32()? as usize,
            symbols: reader.u32()? as usize,
        };
        let is_possible = LENGTH_RANGE.contains(&shape.length)
            && (1..=SYMBOL_CAPACITY_MAX).contains(&shape.symbol_capacity)
            && shape.symbols <= shape.symbol_capacity;
        if is_possible { Ok(shape) } else { Err(Refusal::Damaged) }
    }
}

fn grid_named(name: &str) -> Result<Grid, Refusal> {
    Interval::parse(name).map(Grid::new).or_else(|| Grid::parse(name)).ok_or(Refusal::Damaged)
}

impl State {
    fn write(&self, bytes: &mut Vec<u8>) {
        put::text(bytes, &self.source);
        bytes.push(self.health.ready.into());
        for number in self.health.numbers() {
            put::u64(bytes, number);
        }
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, Refusal> {
        let (source, ready) = (reader.text()?.to_owned(), reader.u8()? != 0);
        let mut numbers = [0; 7];
        for number in &mut numbers {
            *number = reader.u64()?;
        }
        Ok(Self { source, health: Health::of(ready, numbers) })
    }
}

fn read_symbol(reader: &mut Reader<'_>) -> Result<String, Refusal> {
    let symbol = reader.text()?;
    if symbols::is_name(symbol) { Ok(symbol.to_owned()) } else { Err(Refusal::Damaged) }
}

fn read_phase(reader: &mut Reader<'_>) -> Result<u64, Refusal> {
    Some(u64::from(reader.u8()?)).filter(|&days| days < 3).ok_or(Refusal::Damaged)
}

fn read_presence(reader: &mut Reader<'_>) -> Result<u64, Refusal> {
    Some(u64::from(reader.u8()?)).filter(|&presence| presence <= Presence::Silent as u64).ok_or(Refusal::Damaged)
}
