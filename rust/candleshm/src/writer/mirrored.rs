//! Rows that come from leaders of a cluster, instead of the exchange: applied with the same publication as any, so that
//! readers cannot tell, and compared with what the leaders say they have.
//!
//! Every row is told whole and with its state, so it does not matter which messages were lost, came twice or in another
//! order: a row that is final never stops being final, of two values that of the newer message counts, and what is still
//! missing or different shows in the next heartbeat, and is requested.

mod difference;
mod series;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Health, News, Series, Writer};
use crate::layout::{Presence, RowState, symbol};
use crate::merge::Tally;
use crate::publish::{SeriesState, SeriesWriter};
use crate::replica::digest::Digest;
use crate::replica::message::{Head, Kind, Message, Record, Refusal, Standing, State, feed_of};
use crate::replica::shadow::newest_hash;
use crate::replica::shard_of;
use crate::sync::Ordering::Relaxed;

/// What is known of the leaders, and of what they told.
#[derive(Debug, Default)]
pub(super) struct Mirrored {
    /// How many shards there are; 0: nothing is applied.
    shards: u32,
    /// Shards that this process leads itself.
    led: BTreeSet<u32>,
    leaders: HashMap<u32, Leader>,
    /// By their places in the block.
    series: Vec<Followed>,
    /// Whether leaders had every symbol of the block once: one that joins later does not take back that it is ready.
    had_all: bool,
}

/// The leader of a shard.
#[derive(Debug, Default)]
struct Leader {
    epoch: u64,
    /// Its newest message of changes that was applied, or that a heartbeat named; `None` before the first of the epoch.
    sequence: Option<u64>,
    /// What it said about itself last.
    state: Option<State>,
    /// Whether the block agreed once with a leader that had loaded everything.
    has_agreed: bool,
}

/// What is known of a series that comes from a leader.
#[derive(Debug, Default)]
struct Followed {
    /// Whether a leader told of it at all.
    is_known: bool,
    /// Sequence of the newest message that told of it, and of the newest that told of rows of the ring.
    told: u64,
    rows_told: u64,
    digest: Digest,
    /// The publication with which the digest was brought in line.
    version: Option<u64>,
    /// The heartbeat after which it was requested, by the leader's clock (ns), while no answer is there.
    requested_ns: Option<u64>,
    /// When it was first requested since the last answer, by our clock, ns.
    waiting_since_ns: Option<u64>,
    /// Our digest and the leader's when its rows were requested last, and when.
    compared: (u64, u64, u64),
    /// Whether the leader said that the rows of our smaller window differ.
    differs: bool,
}

/// What a message did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The shard that it was about.
    pub shard: u32,
    /// How many shards its sender knows.
    pub shards: u32,
    /// The leader's epoch.
    pub epoch: u64,
    /// The message's number in the epoch.
    pub sequence: u64,
    /// What it was for; `None` if it could not be read.
    pub kind: Option<Kind>,
    /// Why nothing of it was applied.
    pub refused: Option<Refusal>,
    /// How many messages before it did not come.
    pub gap: u64,
    /// Rows that were new or had other values.
    pub rows: usize,
    /// Of these, rows that became final.
    pub closed: usize,
    /// Symbols that the block does not carry.
    pub symbols_missing: Vec<String>,
    /// When it was sent: the sender's `CLOCK_BOOTTIME`, ns.
    pub sent_boot_ns: u64,
}

impl Applied {
    /// Begins with what the head of a message says.
    fn of(head: &Head) -> Self {
        Self {
            shard: head.shard,
            shards: head.shards,
            epoch: head.epoch,
            sequence: head.sequence,
            kind: Some(head.kind),
            sent_boot_ns: head.sent_boot_ns,
            ..Self::default()
        }
    }
}

/// Returns the hash of the newest row of a series, 0 for none.
fn newest_hash_of(state: &SeriesState) -> u64 {
    let SeriesState { marks, newest, .. } = state;
    let is_row = matches!(marks.state, RowState::Live | RowState::Closed | RowState::Verified);
    if is_row && marks.head > 0 { newest_hash(marks.head, marks.state, newest) } else { 0 }
}

/// How the sender's clock goes.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Our `CLOCK_BOOTTIME` minus the sender's, ns.
    offset_ns: i64,
    now_ns: u64,
}

impl Clock {
    /// Returns our time of a moment of the sender's, ms: never later than now. 0 stays 0, which stands for never.
    fn here_ms(self, there_ms: u64) -> u64 {
        let here_ms = there_ms as i64 + self.offset_ns.div_euclid(1_000_000);
        if there_ms == 0 { 0 } else { (here_ms.max(1) as u64).min(self.now_ns / 1_000_000) }
    }
}

impl Mirrored {
    /// The rows lie in another block now.
    pub(super) fn look_anew(&mut self) {
        for followed in &mut self.series {
            followed.version = None;
            followed.digest.look_anew();
        }
    }
}

impl Writer {
    /// Says how the symbols are divided, and which shards this process leads itself: those refuse messages, all others
    /// come by [`Self::apply_message`]. Before the first call nothing is applied.
    pub fn follow(&mut self, shards: u32, led: impl IntoIterator<Item = u32>) {
        let led: BTreeSet<u32> = led.into_iter().collect();
        if self.mirrored.shards != shards {
            self.mirrored.leaders.clear();
            self.mirrored.series.clear();
        }
        for index in 0..if shards == 0 { 0 } else { self.series.len() } {
            let shard = shard_of(&self.block.symbol(index), shards);
            if self.mirrored.led.contains(&shard) && !led.contains(&shard) {
                // What its own stream told proves nothing about rows that others send.
                let series = &mut self.series[index];
                (series.chain, series.newest_event) = (crate::chain::Chain::default(), (0, 0));
            }
        }
        (self.mirrored.shards, self.mirrored.led) = (shards, led);
    }

    /// Applies a message of changes, an answer or a heartbeat, publishes it, and wakes waiters where a commit of the
    /// leader ends. `clock_offset_ns` is our `CLOCK_BOOTTIME` minus the leader's, at most; `now_ns` is ours now.
    /// Answers need none, and may come from anybody: they were made after their request.
    pub fn apply_message(&mut self, message: &[u8], clock_offset_ns: i64, now_ns: u64) -> Applied {
        self.apply_with(message, |_| clock_offset_ns, now_ns)
    }

    /// Applies an answer to a request that left at `requested_ns` of our clock: whoever answered looked at its own clock
    /// later, so no time becomes newer than it is.
    pub fn apply_answer(&mut self, answer: &[u8], requested_ns: u64, now_ns: u64) -> Applied {
        self.apply_with(answer, |head| requested_ns as i64 - head.sent_boot_ns as i64, now_ns)
    }

    fn apply_with(&mut self, message: &[u8], clock_offset_ns: impl Fn(&Head) -> i64, now_ns: u64) -> Applied {
        let mut applied = Applied::default();
        let read = Head::read(message).and_then(|head| {
            applied = Applied::of(&head);
            self.check(&head)?;
            self.read(head, message)
        });
        match read {
            Ok(message) => {
                let clock = Clock { offset_ns: clock_offset_ns(&message.head), now_ns };
                self.take_in(&message, clock, &mut applied);
            }
            Err(refusal) => applied.refused = Some(refusal),
        }
        applied
    }

    /// Reads what stands behind the head of a message to this block.
    fn read(&self, head: Head, message: &[u8]) -> Result<Message, Refusal> {
        let message = Message::read_behind(head, message, self.block.geometry())?;
        let is_of_shard = |symbol: &str| shard_of(symbol, head.shards) == head.shard;
        let are_of_shard = message.records.iter().all(|record| match record {
            Record::Update(update) => is_of_shard(&update.symbol),
            Record::Standing(standing) => is_of_shard(&standing.symbol),
            Record::Wanted(_) => false,
            Record::Shape(_) | Record::State(_) => true,
        });
        if are_of_shard && head.kind != Kind::Request { Ok(message) } else { Err(Refusal::Damaged) }
    }

    /// Refuses what is not for this block.
    fn check(&self, head: &Head) -> Result<(), Refusal> {
        let known = self.mirrored.leaders.get(&head.shard).map_or(0, |leader| leader.epoch);
        if head.feed != feed_of(self.block.geometry(), &self.block.exchange()) {
            Err(Refusal::Feed)
        } else if head.shards != self.mirrored.shards {
            Err(Refusal::Shards)
        } else if self.mirrored.led.contains(&head.shard) {
            Err(Refusal::Led)
        } else if head.epoch < known {
            Err(Refusal::Epoch)
        } else {
            Ok(())
        }
    }

    fn take_in(&mut self, message: &Message, clock: Clock, applied: &mut Applied) {
        let head = &message.head;
        self.mirrored.series.resize_with(self.series.len(), Followed::default);
        applied.gap = self.advance(head);
        for record in &message.records {
            match record {
                Record::Update(update) => match self.index.get(&update.symbol) {
                    Some(&index) => self.apply_update(index, update, head, clock, applied),
                    None => applied.symbols_missing.push(update.symbol.clone()),
                },
                Record::Standing(standing) => match self.index.get(&standing.symbol) {
                    Some(&index) => self.apply_standing(index, standing, head, clock),
                    None => applied.symbols_missing.push(standing.symbol.clone()),
                },
                Record::State(state) => self.leader(head.shard).state = Some(state.clone()),
                Record::Wanted(_) | Record::Shape(_) => {}
            }
        }
        if head.kind != Kind::Answer {
            // Answers may come from others than the leader.
            self.show_source(head, clock);
        }
        if head.kind == Kind::Heartbeat {
            self.show_state();
        }
        if head.is_last {
            self.commit();
        }
    }

    /// Takes the message's number in, and returns how many before it did not come.
    fn advance(&mut self, head: &Head) -> u64 {
        let known = self.mirrored.leaders.get(&head.shard).map_or(0, |leader| leader.epoch);
        if head.epoch > known {
            self.leader(head.shard).epoch = head.epoch;
            self.leader(head.shard).sequence = None;
            for index in 0..self.series.len() {
                if shard_of(&self.block.symbol(index), head.shards) == head.shard {
                    let followed = &mut self.mirrored.series[index];
                    (followed.told, followed.rows_told) = (0, 0);
                    (followed.requested_ns, followed.waiting_since_ns) = (None, None);
                }
            }
        }
        let leader = self.leader(head.shard);
        // Where nothing came before there is no gap, only a beginning.
        let expected = leader.sequence.or((known > 0).then_some(0)).unwrap_or(head.sequence);
        let gap = match head.kind {
            Kind::Changes => head.sequence.saturating_sub(expected + 1),
            Kind::Heartbeat => head.sequence.saturating_sub(expected),
            Kind::Request | Kind::Answer => return 0,
        };
        leader.sequence = Some(leader.sequence.unwrap_or(0).max(head.sequence));
        gap
    }

    fn leader(&mut self, shard: u32) -> &mut Leader {
        self.mirrored.leaders.entry(shard).or_default()
    }

    /// Takes in what a heartbeat says of a series, apart from its rows.
    fn apply_standing(&mut self, index: usize, standing: &Standing, head: &Head, clock: Clock) {
        self.apply_entry(index, standing.presence, standing.calendar);
        let is_newest = self.mirrored.series[index].told <= head.sequence;
        let (before, old_head) = self.standing(index);
        let words = self.block.series(index);
        let series = &mut self.series[index];
        let (received_ms, first_bar) = (clock.here_ms(standing.received_ms), series.state.first_bar);
        let newest = newest_hash_of(&series.state);
        let marks = &mut series.state.marks;
        let takes_revision = is_newest && marks.revision != standing.revision && marks.head == standing.window.end;
        let takes_first = is_newest && old_head > 0 && first_bar != standing.first_bar;
        // A series is as fresh as its newest row: that another one was confirmed says nothing.
        let is_same = old_head == standing.window.end && newest == standing.newest;
        let received_ms = if is_same { received_ms.max(marks.received_ms) } else { marks.received_ms };
        if old_head == 0 || !takes_revision && !takes_first && received_ms == marks.received_ms {
            return;
        }
        marks.received_ms = received_ms;
        if takes_revision {
            marks.revision = standing.revision;
        }
        if takes_first {
            SeriesWriter::new(words, &mut series.state).set_first_bar(standing.first_bar);
            self.news = self.news.max(News::Changed);
        }
        self.finish(
            index,
            before,
            Tally::default(),
            || if takes_first { vec![standing.first_bar] } else { Vec::new() },
        );
    }

    /// Takes in what stands in the entry of a symbol.
    fn apply_entry(&mut self, index: usize, presence: u64, calendar: u64) {
        self.mirrored.series[index].is_known = true;
        let presence = match presence {
            0 => Presence::Ended,
            1 => Presence::Trading,
            _ => Presence::Silent,
        };
        if self.series[index].presence != presence {
            self.set_presence_quietly(index, presence);
        }
        if self.block.entry(index)[symbol::CALENDAR].load(Relaxed) != calendar {
            self.set_calendar(index, calendar, self.series[index].quiet_until_ms);
        }
    }

    /// Publishes whose message was applied last.
    fn show_source(&self, head: &Head, clock: Clock) {
        let sent_here_ns = head.sent_boot_ns as i64 + clock.offset_ns;
        let lag_us = (clock.now_ns as i64 - sent_here_ns).max(0) as u64 / 1_000;
        let sent_ms = match head.exchange_offset_ms {
            0 => 0,
            offset_ms => ((head.sent_boot_ns / 1_000_000) as i64 + offset_ms).max(0) as u64,
        };
        let leader = self.mirrored.leaders.get(&head.shard);
        let source = leader.and_then(|leader| leader.state.as_ref()).map_or("", |state| state.source.as_str());
        self.set_source(head.epoch, source, sent_ms, lag_us);
        if head.exchange_offset_ms != 0 && self.mirrored.led.is_empty() {
            self.set_exchange_offset(head.exchange_offset_ms - clock.offset_ns.div_euclid(1_000_000));
        }
    }

    /// Whether leaders, who have everything here, have not told of all symbols yet.
    pub(super) fn awaits_symbols(&self) -> bool {
        let Mirrored { shards, led, had_all, .. } = &self.mirrored;
        *shards > 0 && led.is_empty() && !had_all
    }

    /// Publishes what the leaders say about themselves, where nothing is led here. Ready is a block of which every shard
    /// agreed once with a leader that was, and whose symbols leaders had, all but those without trading.
    fn show_state(&mut self) {
        if !self.mirrored.led.is_empty() {
            return;
        }
        let is_served = |(followed, own): (&Followed, &Series)| {
            followed.is_known || own.state.marks.head > 0 || own.presence != Presence::Trading
        };
        self.mirrored.had_all |= self.mirrored.series.iter().zip(&self.series).all(is_served);
        let Mirrored { shards, leaders, had_all, .. } = &self.mirrored;
        let has_agreed = |shard| leaders.get(&shard).is_some_and(|leader| leader.has_agreed);
        let states = || leaders.values().filter_map(|leader| leader.state.as_ref());
        let mut health = Health {
            ready: *had_all && (0..*shards).all(has_agreed),
            banned_until_ms: states().map(|state| state.health.banned_until_ms).max().unwrap_or(0),
            ..Health::default()
        };
        let (mut sources, mut exits) = (BTreeSet::new(), BTreeMap::new());
        // A collector that leads several shards counts once.
        for state in states().filter(|state| sources.insert(state.source.as_str())) {
            // The exchange counts by address, and collectors of one host have the same, as far as can be known here.
            let host = state.source.rsplit_once('/').map_or(state.source.as_str(), |(host, _)| host);
            let theirs = &state.health;
            let (used, limit) = exits.entry(host).or_insert((0, 0));
            (*used, *limit) = (theirs.weight_used.max(*used), theirs.weight_limit.max(*limit));
            health.failing += theirs.failing;
            health.polled += theirs.polled;
            if theirs.last_error_ms > health.last_error_ms {
                (health.last_error, health.last_error_ms) = (theirs.last_error, theirs.last_error_ms);
            }
        }
        (health.weight_used, health.weight_limit) =
            exits.values().fold((0, 0), |(used, limit), exit| (used + exit.0, limit + exit.1));
        self.set_health(&health);
    }
}
