//! What a block has otherwise than the leader of a shard, and the requests for exactly that.

use std::ops::Range;

use super::{Leader, newest_hash_of};
use crate::layout::symbol;
use crate::replica::message::{BYTES_MAX, Builder, Head, Kind, Message, Query, Record, Standing, Wanted, feed_of};
use crate::sync::Ordering::Relaxed;
use crate::writer::Writer;

/// How long an answer may take, ns: afterwards the series is requested again.
const PATIENCE_NS: u64 = 3_000_000_000;
/// How long rows are not requested again that stayed different, ns: they are rows that only one side has.
const PAUSE_NS: u64 = 10_000_000_000;
/// Most bytes that the answer to one request is to have, by an estimate.
const ANSWER_BYTES: usize = 700_000;
/// Bytes of a row, and of a series without rows.
const ROW_BYTES: usize = 80;
const SERIES_BYTES: usize = 200;

/// What of a series is requested, and how much will come.
struct Want {
    range: Range<u64>,
    query: Query,
    bytes: usize,
}

impl Writer {
    /// Returns requests for what this block has otherwise than the sender of a heartbeat, at most `limit`; none where
    /// all agrees, and where the heartbeat is not of the newest epoch, or of a message that is not here yet. Series that
    /// were requested are left out until their answer was applied, or three seconds passed. `now_ns` is our
    /// `CLOCK_BOOTTIME`.
    pub fn differences(&mut self, heartbeat: &[u8], limit: usize, now_ns: u64) -> Vec<Vec<u8>> {
        let geometry = *self.block.geometry();
        let Ok(Message { head, records }) = Message::read(heartbeat, &geometry) else { return Vec::new() };
        let is_here = self.mirrored.leaders.get(&head.shard).is_some_and(|leader| {
            leader.epoch == head.epoch && leader.sequence.is_some_and(|sequence| sequence >= head.sequence)
        });
        if head.kind != Kind::Heartbeat || self.check(&head).is_err() || !is_here {
            return Vec::new();
        }
        self.mirrored.series.resize_with(self.series.len(), super::Followed::default);
        let request = Head {
            kind: Kind::Request,
            feed: feed_of(&geometry, &self.block.exchange()),
            sent_boot_ns: now_ns,
            exchange_offset_ms: 0,
            ..head
        };
        let (mut requests, mut builder, mut bytes) = (Vec::new(), Builder::new(&request), 0);
        let mut agrees = true;
        for record in records {
            let Record::Standing(standing) = record else { continue };
            let Some(&index) = self.index.get(&standing.symbol) else {
                agrees = false;
                continue;
            };
            let want = match self.want(index, &standing, &head) {
                Wish::Nothing => continue,
                Wish::Waiting => {
                    agrees = false;
                    continue;
                }
                Wish::Look(want) => want,
                Wish::Want(want) => {
                    agrees = false;
                    want
                }
            };
            if bytes > 0 && bytes + want.bytes > ANSWER_BYTES || builder.room() < BYTES_MAX / 4 {
                requests.push(std::mem::replace(&mut builder, Builder::new(&request)).finish(true));
                bytes = 0;
            }
            if requests.len() >= limit {
                break;
            }
            bytes += want.bytes;
            let record = Record::Wanted(Wanted { symbol: standing.symbol, range: want.range, query: want.query });
            if builder.add(&record, &geometry) {
                let followed = &mut self.mirrored.series[index];
                followed.requested_ns = Some(head.sent_boot_ns);
                followed.waiting_since_ns.get_or_insert(now_ns);
            }
        }
        if !builder.is_empty() && requests.len() < limit {
            requests.push(builder.finish(true));
        }
        let leader: &mut Leader = self.leader(head.shard);
        if agrees && !leader.has_agreed && leader.state.as_ref().is_some_and(|state| state.health.ready) {
            leader.has_agreed = true;
            self.show_state();
        }
        requests
    }

    /// Decides what of a series to request.
    fn want(&mut self, index: usize, standing: &Standing, head: &Head) -> Wish {
        let words = self.block.series(index);
        let state = &self.series[index].state;
        let followed = &mut self.mirrored.series[index];
        if followed.requested_ns.is_some_and(|since_ns| head.sent_boot_ns < since_ns.saturating_add(PATIENCE_NS)) {
            return Wish::Waiting;
        }
        let marks = &state.marks;
        let is_other_grid = marks.head > 0 && self.block.grid(index) != self.block.geometry().grid(standing.phase_days);
        if standing.window.end == 0 && standing.newest == 0 || is_other_grid {
            return Wish::Nothing;
        }
        let window = state.window_start(words.ring.length)..marks.head;
        let version = words.entry[symbol::VERSION].load(Relaxed);
        if followed.version != Some(version) {
            followed.digest.look(words, window.clone(), window.start, &mut |_, _, _| {});
            followed.version = Some(version);
        }
        let newest = newest_hash_of(state);
        let lacks_newest = followed.told <= head.sequence
            && (marks.head < standing.window.end || marks.head == standing.window.end && newest != standing.newest);
        if followed.rows_told <= head.sequence {
            let bottom = window.start.max(standing.window.end.saturating_sub(words.ring.length as u64));
            let range = standing.window.start.max(bottom)..standing.window.end;
            let rows = (range.end.saturating_sub(range.start)) as usize;
            let ours = followed.digest.sum_of(range.start..range.end.max(range.start));
            let buckets = |range: &Range<u64>| Query::Buckets(followed.digest.buckets(range));
            let few = SERIES_BYTES + (rows / 8).max(32) * ROW_BYTES;
            let is_smaller = range.start > standing.window.start;
            let has_any = followed.digest.has_settled(range.clone());
            let differs =
                if is_smaller { followed.differs || !has_any && standing.digest != 0 } else { ours != standing.digest };
            let compared = (ours, standing.digest);
            let is_in_vain = (followed.compared.0, followed.compared.1) == compared
                && head.sent_boot_ns < followed.compared.2.saturating_add(PAUSE_NS);
            if rows > 0 && differs && !is_in_vain {
                let (query, bytes) = if has_any {
                    (buckets(&range), few.min(SERIES_BYTES + rows * ROW_BYTES))
                } else {
                    (Query::All, SERIES_BYTES + rows * ROW_BYTES)
                };
                followed.compared = (ours, standing.digest, head.sent_boot_ns);
                followed.differs = false;
                return Wish::Want(Want { range, query, bytes });
            }
            if rows > 0 && is_smaller && !lacks_newest {
                let is_new = followed.compared.2 != head.sent_boot_ns;
                followed.compared.2 = head.sent_boot_ns;
                let look = Want { range, query: Query::Digest(ours), bytes: SERIES_BYTES };
                return if is_new { Wish::Look(look) } else { Wish::Nothing };
            }
        }
        if lacks_newest {
            let range = standing.window.end..standing.window.end;
            return Wish::Want(Want { range, query: Query::Newest, bytes: SERIES_BYTES });
        }
        Wish::Nothing
    }
}

/// What comparing a series comes to.
enum Wish {
    /// It agrees, or cannot be compared now.
    Nothing,
    /// It was requested.
    Waiting,
    /// Its window is smaller than the leader's: only the leader can compare.
    Look(Want),
    /// It differs.
    Want(Want),
}
