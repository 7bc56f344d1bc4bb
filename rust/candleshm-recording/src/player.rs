//! `Player`: runs records through the core's parser, merge and writer, into a block of its own.
//!
//! Time is what the records say: the block is one of a replay, whose clock shows when the newest record was made, and ages
//! are judged by it. A series counts from its first checkpoint on, or from the beginning of a run that began
//! without rows; what comes before is left out. After records that were dropped every series waits for a checkpoint.

use std::collections::{BTreeMap, HashMap, HashSet};

use candleshm::columns::{COLUMNS, Row};
use candleshm::error::Error;
use candleshm::interval::{Grid, Interval};
use candleshm::layout::{Presence, RowState};
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::replica::message::Head;
use candleshm::wire::event::{self, Frame};
use candleshm::wire::parse::parse;
use candleshm::writer::{Config, Missing, Owner, Report, Writer};

use crate::record::{Fate, Record, Run, texts, words};

/// What was played so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Played {
    /// Records of each kind.
    pub records: BTreeMap<&'static str, u64>,
    /// Runs that began.
    pub runs: u64,
    /// Records about series of which no checkpoint was seen yet.
    pub left_out: u64,
    /// Records that did something else here than where they were recorded, or that cannot be.
    pub differing: u64,
    /// The first of them, in words.
    pub difference: Option<String>,
    /// Records that were dropped while it was recorded.
    pub missing: u64,
    /// Times of the first and the newest record, epoch ms.
    pub from_ms: Option<i64>,
    /// See `from_ms`.
    pub until_ms: Option<i64>,
    /// Whether the newest run ended in order.
    pub ended: bool,
}

/// See the module.
pub struct Player {
    name: String,
    owner: fn() -> Owner,
    writer: Option<Writer>,
    run: Option<(u64, Run)>,
    /// Names of the derived blocks: as recorded, and here.
    derived: Vec<(String, String)>,
    /// Series that count: block (0 is the own one) and place.
    known: HashSet<(usize, usize)>,
    /// What the newest response of each series of the block changed, and which rows it left missing.
    merged: HashMap<String, (Report, Missing)>,
    rows: Vec<Row>,
    /// How many shards there are, and which of these are not followed.
    following: Option<(u32, Vec<u32>)>,
    offset_ms: i64,
    losses: u64,
    /// Whether a record came that is not about a run.
    is_under_way: bool,
    played: Played,
}

impl Player {
    /// Plays into a block of that name, which is taken with the first run. Derived blocks have it in front of theirs.
    #[must_use]
    pub fn new(name: &str, owner: fn() -> Owner) -> Self {
        Self {
            name: name.to_owned(),
            owner,
            writer: None,
            run: None,
            derived: Vec::new(),
            known: HashSet::new(),
            merged: HashMap::new(),
            rows: Vec::new(),
            following: None,
            offset_ms: 0,
            losses: 0,
            is_under_way: false,
            played: Played::default(),
        }
    }

    /// Returns what was played so far.
    #[must_use]
    pub fn played(&self) -> &Played {
        &self.played
    }

    /// Returns the writer of the block, once there is one.
    #[must_use]
    pub fn writer(&self) -> Option<&Writer> {
        self.writer.as_ref()
    }

    /// Returns the run that is played, once there is one.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref().map(|(_, run)| run)
    }

    /// Returns what the newest response about a series of the block changed, and which rows it left missing; `None`
    /// where the series does not count yet, or got none since.
    #[must_use]
    pub fn merged(&self, symbol: &str) -> Option<(Report, Missing)> {
        self.merged.get(symbol).copied()
    }

    /// Returns the writer if the series of a symbol counts, and what times of replayed events have beyond the
    /// `CLOCK_BOOTTIME` at which they were recorded, in ms.
    #[must_use]
    pub fn known(&self, symbol: &str) -> Option<(&Writer, i64)> {
        let writer = self.writer.as_ref()?;
        let index = writer.index_of(symbol).ok()?;
        self.known.contains(&(0, index)).then_some((writer, self.offset_ms))
    }

    /// Returns how often what was known of all series was lost: a run began, or records are missing.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// Removes the block.
    ///
    /// # Errors
    ///
    /// `Os`.
    pub fn close(&mut self) -> Result<(), Error> {
        self.writer.take().map_or(Ok(()), |writer| writer.close(true))
    }

    /// Lets every series wait for a checkpoint: records are missing here.
    pub fn lose(&mut self) {
        self.known.clear();
        self.merged.clear();
        self.losses += 1;
    }

    /// Plays a record of a run. `boot_ms` is when it was made.
    ///
    /// # Errors
    ///
    /// The block cannot be taken. What is wrong with a record is counted instead.
    pub fn play(&mut self, boot_ms: u64, record: &Record<'_>, run: u64) -> Result<(), Error> {
        *self.played.records.entry(record.name()).or_default() += 1;
        if let Record::Run(about) = record {
            self.begin(run, about, boot_ms)?;
        }
        let now_ms = (boot_ms as i64).saturating_add(self.offset_ms);
        if !matches!(record, Record::Continued) {
            // Every file begins with its run, as of the run's beginning: what was recorded then may be gone.
            if !self.is_under_way {
                self.played.from_ms = Some(now_ms);
                self.is_under_way = !matches!(record, Record::Run(_));
            }
            self.played.until_ms = self.played.until_ms.max(Some(now_ms));
            self.played.ended = matches!(record, Record::End);
        }
        if self.run.as_ref().is_none_or(|(playing, _)| *playing != run) {
            // The beginning of its file was cut off.
            self.played.left_out += 1;
            return Ok(());
        }
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.set_replayed(replay_ms(now_ms));
        let outcome = self.apply(&mut writer, now_ms, record);
        self.writer = Some(writer);
        match outcome {
            Ok(true) => {}
            Ok(false) => self.played.left_out += 1,
            Err(difference) => {
                self.played.differing += 1;
                self.played.difference.get_or_insert_with(|| format!("a {}: {difference}", record.name()));
            }
        }
        Ok(())
    }

    /// Takes a block for a run, unless it goes on in another file.
    fn begin(&mut self, run: u64, about: &Run, boot_ms: u64) -> Result<(), Error> {
        if self.run.as_ref().is_some_and(|(playing, _)| *playing == run) {
            return Ok(());
        }
        self.close()?;
        self.lose();
        self.following = None;
        self.played.runs += 1;
        self.offset_ms = about.offset_ms;
        let now_ms = (boot_ms as i64).saturating_add(about.offset_ms);
        let field = |name: &str| Error::Name { name: name.to_owned() };
        let config = Config {
            market: Market::parse(&about.market).ok_or_else(|| field(&about.market))?,
            price: Price::parse(&about.price).ok_or_else(|| field(&about.price))?,
            interval: Interval::parse(&about.interval).ok_or_else(|| field(&about.interval))?,
            length: about.length as usize,
            symbols: about.symbols.clone(),
            spare_symbols: (about.capacity as usize).saturating_sub(about.symbols.len()),
            exchange: about.exchange.clone(),
        };
        let mut writer = Writer::open_replayed(&self.name, &config, (self.owner)(), replay_ms(now_ms))?;
        self.derived.clear();
        for block in &about.derived {
            let name = format!("{}-{}", self.name, block.interval.replace(['/', '@'], "-"));
            let target = Grid::parse(&block.interval).ok_or_else(|| field(&block.interval))?;
            let opened = if block.fetched.is_empty() {
                writer.derive(&name, target, block.length as usize, (self.owner)())
            } else {
                let fetched = Grid::parse(&block.fetched).ok_or_else(|| field(&block.fetched))?;
                writer.derive_and_fetch(&name, target, fetched, block.length as usize, (self.owner)())
            };
            if let Err(error) = opened {
                writer.abandon();
                return Err(error);
            }
            self.derived.push((block.name.clone(), name));
        }
        if about.is_whole {
            self.know_all(&writer, 0);
        }
        self.writer = Some(writer);
        self.run = Some((run, about.clone()));
        Ok(())
    }

    /// Lets the series from that place on count as known: they have no rows yet.
    fn know_all(&mut self, writer: &Writer, from: usize) {
        for index in from..writer.block().symbol_count() {
            self.known.extend((0..=self.derived.len()).map(|block| (block, index)));
        }
    }

    /// Returns the number of a block and its name here, by the name that it was recorded with.
    fn block_of(&self, recorded: &str) -> Result<(usize, Option<String>), String> {
        if recorded.is_empty() {
            return Ok((0, None));
        }
        let place = self.derived.iter().position(|(theirs, _)| theirs == recorded);
        let place = place.ok_or_else(|| format!("no derived block {recorded}"))?;
        Ok((place + 1, Some(self.derived[place].1.clone())))
    }

    /// Does what a record says; returns false when it is about a series that does not count yet.
    fn apply(&mut self, writer: &mut Writer, now_ms: i64, record: &Record<'_>) -> Result<bool, String> {
        let text = |error: Error| error.to_string();
        match *record {
            Record::Response { symbol, derived, window, fate, body } => {
                return self.respond(writer, now_ms, (symbol, derived), window, fate, body);
            }
            Record::Frames { received_ms, texts, .. } => return self.push(writer, now_ms, received_ms, texts),
            Record::Rows { symbol, derived, sent_ms, rows, states } => {
                let index = writer.index_of(symbol).map_err(text)?;
                let (block, name) = self.block_of(derived)?;
                if !self.known.contains(&(block, index)) {
                    return Ok(false);
                }
                let rows = rows_of(rows, states).ok_or("its rows cannot be read")?;
                match name {
                    Some(name) => drop(writer.load_derived(&name, symbol, &rows, sent_ms).map_err(text)?),
                    None => _ = writer.load(index, &rows, sent_ms),
                }
            }
            Record::Symbol(symbol) => {
                let count = writer.block().symbol_count();
                writer.add_symbol(symbol).map_err(text)?;
                self.know_all(writer, count);
            }
            Record::Enlarged { ref symbols, spare } => {
                let count = writer.block().symbol_count();
                writer.enlarge(symbols, spare as usize, (self.owner)()).map_err(text)?;
                self.know_all(writer, count);
            }
            Record::Presence { symbol, presence } => {
                let index = writer.index_of(symbol).map_err(text)?;
                let presence = match presence {
                    0 => Presence::Ended,
                    1 => Presence::Trading,
                    _ => Presence::Silent,
                };
                writer.set_presence(index, presence);
            }
            Record::Calendar { symbol, calendar, quiet_until_ms } => {
                let index = writer.index_of(symbol).map_err(text)?;
                writer.set_calendar(index, calendar, quiet_until_ms);
            }
            Record::Restart => writer.forget_times(),
            // The clock of the replay is one, from the beginning of a run to its end: steps of the exchange's are in the
            // windows of requests.
            Record::Clock { offset_ms } => writer.set_exchange_offset(offset_ms - self.offset_ms),
            Record::Health(health) => writer.set_health(&health),
            Record::Filled { derived, filled } => {
                let (_, name) = self.block_of(derived)?;
                writer.set_filled(&name.ok_or("it names no block")?, filled).map_err(text)?;
            }
            Record::Checkpoint { symbol, derived, words: bytes } => {
                let index = writer.index_of(symbol).map_err(text)?;
                let (block, name) = self.block_of(derived)?;
                if !self.known.contains(&(block, index)) {
                    let words = words(bytes).ok_or("its words cannot be read")?;
                    writer.restore(name.as_deref(), index, &words, self.offset_ms).map_err(text)?;
                    self.known.insert((block, index));
                }
            }
            Record::Message { ref led, clock_offset_ns, message } => {
                return self.apply_message(writer, now_ms, led, clock_offset_ns, message);
            }
            Record::Missing { records, .. } => {
                self.played.missing += records;
                self.lose();
            }
            Record::Run(_) | Record::Note(_) | Record::Continued | Record::End => {}
        }
        Ok(true)
    }

    fn respond(
        &mut self,
        writer: &mut Writer,
        now_ms: i64,
        (symbol, derived): (&str, &str),
        window: RequestWindow,
        fate: Fate,
        body: &[u8],
    ) -> Result<bool, String> {
        if fate == Fate::Dropped {
            return Ok(true);
        }
        let (block, name) = self.block_of(derived)?;
        self.rows.clear();
        let parsed = parse(body, &mut self.rows);
        match (fate, parsed) {
            (Fate::Malformed, Err(_)) => return Ok(true),
            (Fate::Malformed, Ok(())) => return Err("its body was refused, and can be read here".into()),
            (_, Err(error)) => return Err(format!("its body was merged, and cannot be read here: {error}")),
            (_, Ok(())) => {}
        }
        let index = writer.index_of(symbol).map_err(|error| error.to_string())?;
        if !self.known.contains(&(block, index)) {
            return Ok(false);
        }
        match name {
            None => {
                let report = writer.ingest(index, &self.rows, &window, replay_ms(now_ms));
                let missing = writer.missing(index).map_err(|error| error.to_string())?;
                self.merged.insert(symbol.to_owned(), (report, missing));
            }
            Some(name) => {
                let merged = writer.ingest_older(&name, index, &self.rows, &window, replay_ms(now_ms));
                merged.map_err(|error| error.to_string())?;
            }
        }
        Ok(true)
    }

    fn apply_message(
        &mut self,
        writer: &mut Writer,
        now_ms: i64,
        led: &[u32],
        clock_offset_ns: i64,
        message: &[u8],
    ) -> Result<bool, String> {
        let head = Head::read(message).map_err(|refusal| format!("its head is {}", refusal.as_str()))?;
        if self.following.as_ref().is_none_or(|(shards, before)| (*shards, before.as_slice()) != (head.shards, led)) {
            writer.follow(head.shards, led.iter().copied());
            self.following = Some((head.shards, led.to_vec()));
        }
        // The clock here is not that of the machine, but the one of which records show the time.
        let clock_offset_ns = clock_offset_ns.saturating_add(self.offset_ms.saturating_mul(1_000_000));
        let applied = writer.apply_message(message, clock_offset_ns, replay_ms(now_ms).saturating_mul(1_000_000));
        match applied.refused {
            None => Ok(self.knows_all(writer)),
            Some(refusal) => Err(format!("it was applied, and is refused here: {}", refusal.as_str())),
        }
    }

    /// Whether every series counts.
    fn knows_all(&self, writer: &Writer) -> bool {
        self.known.len() >= writer.block().symbol_count() * (1 + self.derived.len())
    }

    fn push(&self, writer: &mut Writer, now_ms: i64, received_ms: i64, bytes: &[u8]) -> Result<bool, String> {
        let texts = texts(bytes).ok_or("its texts cannot be read")?;
        let mut frames: Vec<_> = texts.into_iter().map(event::parse).collect();
        let count = frames.len();
        if !self.knows_all(writer) {
            frames.retain(|frame| match frame {
                Ok(Frame::Kline(event)) => {
                    writer.index_of(&event.symbol).map_or(true, |index| self.known.contains(&(0, index)))
                }
                _ => true,
            });
        }
        let is_whole = frames.len() == count;
        writer.ingest_events(frames, received_ms, replay_ms(now_ms));
        Ok(is_whole)
    }
}

/// Returns a time as the core takes that of a replay.
fn replay_ms(now_ms: i64) -> u64 {
    now_ms.max(1) as u64
}

/// Returns rows with their states; `None` for bytes that do not hold them.
fn rows_of(rows: &[u8], states: &[u8]) -> Option<Vec<(Row, RowState)>> {
    let numbers = words(rows)?;
    if numbers.len() != states.len() * COLUMNS {
        return None;
    }
    let row = |words: &[u64]| -> Row { std::array::from_fn(|column| f64::from_bits(words[column])) };
    let state = |state: u8| match state {
        2 => Some(RowState::Closed),
        3 => Some(RowState::Verified),
        _ => None,
    };
    numbers.chunks_exact(COLUMNS).zip(states).map(|(words, &number)| Some((row(words), state(number)?))).collect()
}
