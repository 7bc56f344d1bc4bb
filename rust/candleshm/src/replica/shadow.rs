//! `Shadow`: what followers of a block were told, and what has changed since.
//!
//! It is a reader of the block as any other, so any block can have followers, and its end disturbs nobody. What was told
//! are hashes of rows and the tags under which they were seen; the rows themselves are in the block.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::block::Block;
use crate::condition::Health;
use crate::error::Error;
use crate::feed::{Attached, Feed, News};
use crate::layout::{RowState, header, symbol};
use crate::publish::RingRow;
use crate::replica::digest::{Digest, hash_of};
use crate::replica::message::{Builder, Head, Kind, Message, Record, Sender, Shape, Standing, State, Update, feed_of};
use crate::replica::request::{answer, update_of};
use crate::replica::shard_of;
use crate::seqlock::Marks;
use crate::sync::Ordering::Relaxed;

/// The newest rows of the ring, in which what changes mostly is. A change further back that moves no mark is told with
/// the next heartbeat.
const NEAR: u64 = 64;

/// What was sent so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// Rows of the ring in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What followers of a block were told, and what has changed since.
#[derive(Debug)]
pub struct Shadow {
    feed: Feed,
    attached: Arc<Attached>,
    shards: u32,
    source: String,
    led: BTreeMap<u32, Led>,
    /// By their places in the block.
    series: Vec<Told>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Led {
    epoch: u64,
    sequence: u64,
}

/// What was told of a series.
#[derive(Debug)]
struct Told {
    symbol: String,
    shard: u32,
    digest: Digest,
    /// The publication that was looked at last; `None`: look in any case.
    version: Option<u64>,
    marks: Marks,
    newest: u64,
    first_bar: u64,
    presence: u64,
    calendar: u64,
    /// How often rows of the ring were rewritten.
    rewrites: u64,
    /// Whether not all rows were looked at, or some were being written.
    is_partial: bool,
}

impl Shadow {
    /// Reads the block of that name, whose symbols are divided into shards. `source` says to followers who the sender
    /// is. Nothing is told before [`Self::lead`].
    ///
    /// # Errors
    ///
    /// As [`Feed::attach`]; `Argument` for 0 shards.
    pub fn open(name: &str, shards: u32, source: &str) -> Result<Self, Error> {
        if shards == 0 {
            return Err(Error::Argument("shards cannot be 0; allowed: 1 and more".into()));
        }
        let feed = Feed::attach(name, None)?;
        let attached = feed.attached()?;
        let mut shadow = Self {
            feed,
            attached,
            shards,
            source: source.to_owned(),
            led: BTreeMap::new(),
            series: Vec::new(),
            counts: Counts::default(),
        };
        shadow.find_symbols();
        Ok(shadow)
    }

    /// Returns the feed that it reads.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Returns what was sent so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Tells of the symbols of a shard from now on, under that epoch, with messages counted from 1. What they hold now
    /// counts as told: followers find by the first heartbeat what they lack.
    ///
    /// # Errors
    ///
    /// `Argument` for a shard that there is not, `FeedClosed`.
    pub fn lead(&mut self, shard: u32, epoch: u64) -> Result<(), Error> {
        if shard >= self.shards {
            return Err(Error::Argument(format!("shard cannot be {shard}; allowed: 0 to {}", self.shards - 1)));
        }
        self.follow()?;
        self.led.insert(shard, Led { epoch, sequence: 0 });
        self.begin(shard);
        Ok(())
    }

    /// Tells nothing more of a shard.
    pub fn leave(&mut self, shard: u32) {
        self.led.remove(&shard);
    }

    /// Returns the shards that are told of.
    #[must_use]
    pub fn led(&self) -> Vec<u32> {
        self.led.keys().copied().collect()
    }

    /// Takes what the block has announced: to be taken before [`Self::collect`], and slept on behind it.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn news(&self) -> Result<News, Error> {
        self.feed.news_of_rows()
    }

    /// Returns messages with what changed since the last time, each with its shard, in order. `now_ns` is
    /// `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn collect(&mut self, now_ns: u64) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        self.follow()?;
        let mut messages = Vec::new();
        if self.led.is_empty() {
            return Ok(messages);
        }
        let attached = self.attached.clone();
        let block = attached.block();
        let heads: BTreeMap<u32, Head> =
            self.led.iter().map(|(&shard, led)| (shard, self.head(Kind::Changes, shard, *led, now_ns))).collect();
        let mut senders: BTreeMap<u32, Sender<'_>> = BTreeMap::new();
        for (index, told) in self.series.iter_mut().enumerate() {
            let Some(head) = heads.get(&told.shard) else { continue };
            if told.is_as_before(block, index) {
                continue;
            }
            // Contended: the next look has it.
            if let Ok(Some(update)) = told.look(block, index) {
                let first = || Sender::new(Head { sequence: head.sequence + 1, ..*head }, block.geometry());
                senders.entry(told.shard).or_insert_with(first).add(update);
            }
        }
        for (shard, sender) in senders {
            if let Some(led) = self.led.get_mut(&shard) {
                led.sequence = sender.sequence();
            }
            self.counts.rows += sender.rows() as u64;
            messages.extend(sender.finish().into_iter().map(|message| (shard, message)));
        }
        self.count(messages.iter().map(|(_, message)| message));
        Ok(messages)
    }

    /// Returns messages with where every series of the shards stands, as told so far: [`Self::collect`] comes first.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn heartbeat(&mut self, now_ns: u64) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let attached = self.attached.clone();
        let block = attached.block();
        let (geometry, shape, state) = (block.geometry(), self.shape(block), self.state(block));
        let mut messages = Vec::new();
        for (&shard, &led) in &self.led {
            let head = self.head(Kind::Heartbeat, shard, led, now_ns);
            let begin = || {
                let mut builder = Builder::new(&head);
                builder.add(&Record::Shape(shape.clone()), geometry);
                builder.add(&Record::State(state.clone()), geometry);
                builder
            };
            let mut builder = begin();
            for (index, told) in self.series.iter().enumerate().filter(|(_, told)| told.shard == shard) {
                let record = Record::Standing(told.standing(block.entry(index)[symbol::PHASE_DAYS].load(Relaxed) % 3));
                if !builder.add(&record, geometry) {
                    messages.push((shard, std::mem::replace(&mut builder, begin()).finish(false)));
                    builder.add(&record, geometry);
                }
            }
            messages.push((shard, builder.finish(true)));
        }
        // What was not looked at wholly is looked at before the next one.
        self.series.iter_mut().filter(|told| told.is_partial).for_each(|told| told.version = None);
        self.count(messages.iter().map(|(_, message)| message));
        Ok(messages)
    }

    /// Returns messages with what a request wants, from the block as it is; none for a request that cannot be read, is
    /// about other candles, or comes from a follower of a newer leader of the shard. Of shards that it does not lead it
    /// sends what the block has as well: whoever follows them completely may.
    ///
    /// # Errors
    ///
    /// `FeedClosed`.
    pub fn answer(&mut self, request: &[u8], now_ns: u64) -> Result<Vec<Vec<u8>>, Error> {
        self.follow()?;
        let attached = self.attached.clone();
        let block = attached.block();
        let geometry = block.geometry();
        let Ok(Message { head: asked, records }) = Message::read(request, geometry) else { return Ok(Vec::new()) };
        let known = self.led.get(&asked.shard).copied();
        let led = known.unwrap_or(Led { epoch: asked.epoch, sequence: asked.sequence });
        let head = self.head(Kind::Answer, asked.shard, led, now_ns);
        if asked.kind != Kind::Request
            || asked.feed != head.feed
            || asked.shards != self.shards
            || asked.epoch > led.epoch
        {
            return Ok(Vec::new());
        }
        let mut sender = Sender::new(head, geometry);
        for record in &records {
            let Record::Wanted(wanted) = record else { continue };
            let Some(index) = attached.place(&wanted.symbol) else { continue };
            // Contended: it is requested again.
            let Ok(update) = answer(block, index, wanted) else { continue };
            sender.add(update);
        }
        self.counts.rows += sender.rows() as u64;
        let messages = sender.finish();
        self.count(messages.iter());
        Ok(messages)
    }

    /// Moves to the block that has the name now, and takes in new symbols.
    fn follow(&mut self) -> Result<(), Error> {
        let attached = self.feed.attached()?;
        if !Arc::ptr_eq(&attached, &self.attached) {
            let is_alike = attached.block().geometry().ring == self.attached.block().geometry().ring;
            self.attached = attached;
            let mut known: HashMap<String, Told> =
                std::mem::take(&mut self.series).into_iter().map(|told| (told.symbol.clone(), told)).collect();
            let symbols = self.attached.symbols();
            self.series = symbols
                .into_iter()
                .map(|symbol| {
                    known.remove(&symbol).filter(|_| is_alike).unwrap_or_else(|| Told::new(symbol, self.shards))
                })
                .collect();
            for told in &mut self.series {
                told.version = None;
                told.digest.look_anew();
            }
            if !is_alike {
                let led: Vec<u32> = self.led.keys().copied().collect();
                for shard in led {
                    self.begin(shard);
                }
            }
        }
        self.find_symbols();
        Ok(())
    }

    fn find_symbols(&mut self) {
        if self.attached.block().symbol_count() > self.series.len() {
            let symbols = self.attached.symbols();
            let new = symbols.into_iter().skip(self.series.len()).map(|symbol| Told::new(symbol, self.shards));
            self.series.extend(new);
        }
    }

    /// Lets what the series of a shard hold now count as told.
    fn begin(&mut self, shard: u32) {
        let block = self.attached.block();
        for (index, told) in self.series.iter_mut().enumerate().filter(|(_, told)| told.shard == shard) {
            *told = Told::new(std::mem::take(&mut told.symbol), self.shards);
            // Contended: then it is told with the first changes.
            let _ = told.look(block, index);
        }
    }

    fn head(&self, kind: Kind, shard: u32, led: Led, now_ns: u64) -> Head {
        let block = self.attached.block();
        Head {
            kind,
            is_last: false,
            feed: feed_of(block.geometry(), &block.exchange()),
            shard,
            shards: self.shards,
            epoch: led.epoch,
            sequence: led.sequence,
            sent_boot_ns: now_ns,
            exchange_offset_ms: block.exchange_offset_ms().unwrap_or(0),
        }
    }

    fn shape(&self, block: &Block) -> Shape {
        let geometry = block.geometry();
        Shape {
            market: geometry.market,
            price: geometry.price,
            grid: geometry.grid(0),
            exchange: block.exchange(),
            length: geometry.ring.length,
            symbol_capacity: geometry.symbol_capacity,
            symbols: self.series.len(),
        }
    }

    fn state(&self, block: &Block) -> State {
        let numbers = Health::WORDS.map(|word| block.value(word));
        State { source: self.source.clone(), health: Health::of(block.announced(header::READY) == 1, numbers) }
    }

    fn count<'a>(&mut self, messages: impl Iterator<Item = &'a Vec<u8>>) {
        for message in messages {
            self.counts.messages += 1;
            self.counts.bytes += message.len() as u64;
        }
    }
}

impl Told {
    fn new(symbol: String, shards: u32) -> Self {
        Self {
            shard: shard_of(&symbol, shards),
            symbol,
            digest: Digest::default(),
            version: None,
            marks: Marks::EMPTY,
            newest: 0,
            first_bar: 0,
            presence: u64::MAX,
            calendar: 0,
            rewrites: 0,
            is_partial: false,
        }
    }

    /// Whether nothing was published since the last look. Cheap: it is asked of all series for each change of one.
    fn is_as_before(&self, block: &Block, index: usize) -> bool {
        let entry = block.entry(index);
        self.version == Some(entry[symbol::VERSION].load(Relaxed))
            && self.presence == entry[symbol::TRADING].load(Relaxed).min(2)
            && self.calendar == entry[symbol::CALENDAR].load(Relaxed)
    }

    /// Looks at the series, and returns what is to be told of it.
    fn look(&mut self, block: &Block, index: usize) -> Result<Option<Update>, Error> {
        let (words, entry) = (block.series(index), block.entry(index));
        let is_whole = self.version.is_none();
        let version = entry[symbol::VERSION].load(Relaxed);
        let (mut update, marks) = update_of(block, index, &self.symbol)?;
        let rewrites = entry[symbol::REV].load(Relaxed);
        let bounds = |marks: &Marks| (marks.head, marks.final_start, marks.final_end);
        let has_moved =
            bounds(&marks) != bounds(&self.marks) || update.first_bar != self.first_bar || rewrites != self.rewrites;
        let length = words.ring.length as u64;
        let start = marks.head.saturating_sub(length).max(update.first_bar).min(marks.head);
        let from = if is_whole || has_moved { start } else { start.max(marks.head.saturating_sub(NEAR)) };
        let rows = &mut update.rows;
        let mut keep = |candle_index, state, row| rows.push(RingRow { candle_index, row, state });
        let is_stable = self.digest.look(words, start..marks.head, from, &mut keep);
        let newest = update.newest.map_or(0, |(state, row)| newest_hash(marks.head, state, &row));
        let is_news = newest != self.newest || marks.head != self.marks.head;
        let has_changed = is_news
            || !update.rows.is_empty()
            || (marks.revision, marks.received_ms) != (self.marks.revision, self.marks.received_ms)
            || (update.first_bar, update.presence, update.calendar) != (self.first_bar, self.presence, self.calendar);
        self.version = Some(version);
        self.marks = marks;
        self.newest = newest;
        (self.first_bar, self.presence, self.calendar) = (update.first_bar, update.presence, update.calendar);
        self.rewrites = rewrites;
        self.is_partial = !is_stable || from > start;
        Ok(has_changed.then_some(update))
    }

    fn standing(&self, phase_days: u64) -> Standing {
        Standing {
            symbol: self.symbol.clone(),
            phase_days,
            first_bar: self.first_bar,
            presence: self.presence.min(2),
            calendar: self.calendar,
            window: self.digest.window().start..self.digest.window().end,
            final_end: self.marks.final_end,
            revision: self.marks.revision,
            received_ms: self.marks.received_ms,
            digest: self.digest.sum(),
            newest: self.newest,
        }
    }
}

/// Returns the hash of the newest row of a series.
pub(crate) fn newest_hash(head: u64, state: RowState, row: &crate::layout::RowWords) -> u64 {
    hash_of(head - u64::from(state != RowState::Live), state, row)
}
