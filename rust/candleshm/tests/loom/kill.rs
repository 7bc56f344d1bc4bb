//! A collector that is stopped for good between any two stores, and the next owner, who recovers and does it again.
//!
//! The kernel hands the lock of a dead process over, so one thread may play one owner after the other. Every owner
//! writes an edition of its own: 2 the first, 3 the second. The cut is in program order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use candleshm::layout::RingShape;
use candleshm::layout::RowState::{Closed, Live, Missing, MissingFinal};
use candleshm::layout::symbol;
use candleshm::sync::stopped_after;

use crate::model::{
    Collector, Copy, Life, Memory, Met, RING, Reader, Rest, Seen, at_rest, explore, explore_last, full, gap, in_life,
    provisional, ring_row,
};

/// What a collector does, and what may be seen of it.
#[derive(Clone, Copy)]
struct Work {
    /// Does it as the owner who writes this edition, and publishes with the edition as stamp.
    run: fn(&mut Collector<'_>, u64),
    /// All phases of a candle index, given what was published before the row was read.
    life: fn(u64) -> Life,
    /// The first phase that may be seen after stamp 1, 2, 3.
    earliest: fn(u64) -> [usize; 3],
}

impl Work {
    fn check(&self, row: Seen, stamp: u64) {
        in_life(row, (self.life)(row.candle_index), (self.earliest)(row.candle_index)[stamp as usize - 1]);
    }

    fn check_copies(&self, reader: &Reader<'_>, copies: &[Copy]) {
        for &copy in copies {
            let stamp = reader.stamp();
            for row in reader.copy(copy) {
                self.check(row, stamp);
            }
        }
    }

    fn check_view(&self, reader: &Reader<'_>) {
        let stamp = reader.stamp();
        for row in reader.view().into_iter().flatten() {
            self.check(row, stamp);
            assert!((self.life)(row.candle_index).contains(&(Closed, row.edition)), "the view claims {row:?}");
        }
    }
}

/// More than any work here takes.
const STORES_MAX: usize = 40;
const ALL_COPIES: [Copy; 4] = [Copy::Newest, Copy::NewestStates, Copy::Closed, Copy::ClosedStates];

/// Asserts what the bounds in the seqlock promise, at a moment when nobody writes.
fn check_bounds(memory: &Memory) {
    let (words, marks) = (memory.words(), memory.reader().marks());
    let start = marks.head.saturating_sub(words.ring.length as u64);
    // Windows from below this candle index are rejected by the watermark.
    let kept = words.entry[symbol::WMARK].load(Relaxed).saturating_sub(words.ring.capacity as u64);
    for candle_index in start.max(kept)..marks.final_end {
        let tag = words.tag(candle_index);
        assert!(
            tag.candle_index() != candle_index || tag.state() != Live,
            "{candle_index} is provisional, below {marks:?}"
        );
        assert!(
            candle_index < marks.final_start || tag.is_final_of(candle_index),
            "{tag:?} is not final, inside {marks:?}"
        );
    }
}

/// Stops the first owner in front of its first store, its second, and so on up to the last.
fn stop_everywhere(rest: &Rest, work: Work) {
    let mut stores = 0;
    while is_stopped_and_done_again(rest, work, stores) {
        for by_view in [false, true] {
            explore_last(
                rest,
                move |memory, collector| {
                    stopped_after(stores, || (work.run)(collector, 2));
                    (work.run)(&mut Collector::recovered(memory.words()), 3);
                },
                move |reader| {
                    if by_view { work.check_view(reader) } else { work.check_copies(reader, &[Copy::NewestStates]) }
                },
            );
        }
        stores += 1;
    }
    assert!((9..STORES_MAX).contains(&stores), "{stores} stores are not what the work takes");
}

/// Does it once with a look at everything in between, and nobody beside; returns whether the first owner was stopped.
fn is_stopped_and_done_again(rest: &Rest, work: Work, stores: usize) -> bool {
    let stopped = Arc::new(AtomicBool::new(false));
    let result = Arc::clone(&stopped);
    explore(
        rest,
        move |memory, collector| {
            let look = || {
                check_bounds(memory);
                work.check_copies(&memory.reader(), &ALL_COPIES);
                work.check_view(&memory.reader());
            };
            result.store(stopped_after(stores, || (work.run)(collector, 2)), Relaxed);
            look();
            let mut next = Collector::recovered(memory.words());
            look();
            (work.run)(&mut next, 3);
            look();
            assert_eq!(memory.reader().stamp(), 3);
            assert!(memory.reader().view().is_some());
        },
        |_| (),
    );
    stopped.load(Relaxed)
}

/// Phases of a row that stays as it is.
const UNTOUCHED: Life = &[(Closed, 1)];
const LIVE: Life = &[(Live, 1)];

#[test]
fn a_fill_is_done_again() {
    stop_everywhere(
        &gap(),
        Work {
            run: |collector, owner| {
                collector.writer().rewrite(&[ring_row(9, owner, Closed)], 0);
                collector.publish(owner);
            },
            life: |candle_index| match candle_index {
                8 => UNTOUCHED,
                9 => &[(Missing, 0), (Closed, 2), (Missing, 0), (Closed, 3)],
                _ => LIVE,
            },
            earliest: |candle_index| if candle_index == 9 { [0, 1, 3] } else { [0; 3] },
        },
    );
}

const CORRECTION: Work = Work {
    run: |collector, owner| {
        collector.writer().rewrite(&[ring_row(9, owner, Closed)], 1);
        collector.publish(owner);
    },
    life: |candle_index| match candle_index {
        8 => UNTOUCHED,
        9 => &[(Closed, 1), (Missing, 0), (Closed, 2), (Missing, 0), (Closed, 3)],
        _ => LIVE,
    },
    earliest: |candle_index| if candle_index == 9 { [0, 2, 4] } else { [0; 3] },
};

#[test]
fn a_correction_is_done_again() {
    stop_everywhere(&full(), CORRECTION);
}

#[test]
fn an_append_is_done_again() {
    stop_everywhere(
        &full(),
        Work {
            run: |collector, owner| {
                if collector.state.marks.head < 11 {
                    collector.advance(11, &[ring_row(10, owner, Closed)]);
                }
                collector.publish(owner);
            },
            life: |candle_index| match candle_index {
                8 | 9 => UNTOUCHED,
                10 => &[(Live, 1), (Closed, 2), (Closed, 3)],
                _ => LIVE,
            },
            earliest: |candle_index| if candle_index == 10 { [0, 1, 1] } else { [0; 3] },
        },
    );
}

#[test]
fn a_jump_is_done_again() {
    stop_everywhere(
        &full(),
        Work {
            run: |collector, owner| {
                if collector.state.marks.head < 13 {
                    collector.advance(13, &[ring_row(11, owner, Closed)]);
                }
                collector.publish(owner);
            },
            life: |candle_index| match candle_index {
                8 | 9 => &[(Closed, 1), (Missing, 0)],
                11 => &[(Closed, 2), (Closed, 3)],
                12 => &[(Missing, 0)],
                _ => LIVE,
            },
            earliest: |_| [0; 3],
        },
    );
}

/// The next owner's first response may know less than what the dead one had begun to write.
#[test]
fn a_jump_is_followed_by_an_append() {
    stop_everywhere(
        &full(),
        Work {
            run: |collector, owner| {
                if owner == 2 {
                    collector.advance(13, &[ring_row(11, owner, Closed)]);
                } else if collector.state.marks.head < 11 {
                    collector.advance(11, &[ring_row(10, owner, Closed)]);
                }
                collector.publish(owner);
            },
            life: |candle_index| match candle_index {
                8 | 9 => &[(Closed, 1), (Missing, 0)],
                10 => &[(Live, 1), (Closed, 3)],
                11 => &[(Live, 1), (Closed, 2)],
                12 => &[(Missing, 0)],
                _ => LIVE,
            },
            earliest: |_| [0; 3],
        },
    );
}

#[test]
fn a_provisional_update_is_done_again() {
    stop_everywhere(
        &provisional(),
        Work {
            run: |collector, owner| {
                // Once it counts as final that nothing is there, only a final row may come.
                if collector.state.marks.final_end <= 9 {
                    collector.writer().rewrite(&[ring_row(9, owner, Live)], 0);
                }
                collector.publish(owner);
            },
            life: |candle_index| match candle_index {
                8 => UNTOUCHED,
                9 => &[(Live, 1), (Missing, 0), (Live, 2), (Missing, 0), (Live, 3), (Missing, 0)],
                _ => LIVE,
            },
            earliest: |candle_index| if candle_index == 9 { [0, 2, 4] } else { [0; 3] },
        },
    );
}

#[test]
fn a_close_with_other_values_is_done_again() {
    stop_everywhere(
        &provisional(),
        Work {
            run: |collector, owner| {
                collector.writer().rewrite(&[ring_row(9, owner, Closed)], 0);
                collector.publish(owner);
            },
            life: |candle_index| match candle_index {
                8 => UNTOUCHED,
                9 => &[(Live, 1), (Missing, 0), (Closed, 2), (Missing, 0), (Closed, 3)],
                _ => LIVE,
            },
            earliest: |candle_index| if candle_index == 9 { [0, 2, 4] } else { [0; 3] },
        },
    );
}

/// Beside a missing row, so that the bound of the fast window has to be found anew with the bound of the final rows.
#[test]
fn a_close_by_tag_alone_is_done_again() {
    let rest = at_rest(RING, |collector| {
        collector.advance(9, &[ring_row(8, 1, Live)]);
        collector.advance(10, &[]);
    });
    stop_everywhere(
        &rest,
        Work {
            run: |collector, owner| {
                if collector.tag(8).state() == Live {
                    collector.writer().close(8);
                }
                collector.publish(owner);
            },
            life: |candle_index| match candle_index {
                8 => &[(Live, 1), (Closed, 1)],
                9 => &[(Missing, 0)],
                _ => LIVE,
            },
            earliest: |candle_index| if candle_index == 8 { [0, 1, 1] } else { [0; 3] },
        },
    );
}

/// A death may take stores with it that came before others which are there. Of an advance over an outage only a tag is
/// left here, without the watermark: a reader that reads by an older seqlock must not take the row that is blanked for
/// a candle.
#[test]
fn a_watermark_lost_by_a_kill_is_raised_before_rows_are_blanked() {
    for by_view in [false, true] {
        let met = Met::default();
        let seen = met.clone();
        explore(
            &full().taken(8, 11),
            |memory, _| {
                let mut next = Collector::recovered(memory.words());
                next.publish(3);
            },
            move |reader| {
                let rows = if by_view { reader.view().unwrap_or_default() } else { reader.copy(Copy::Closed) };
                for row in rows {
                    // Until the next owner has begun, the old window and its watermark stand.
                    in_life(row, &[(Closed, 1), (Missing, 0)], 0);
                    seen.met(usize::from(row.state == Closed));
                }
            },
        );
        met.all(if by_view { 0 } else { 2 });
    }
}

/// The watermark of a cut advance stands for slots below the window, too: a reader with an older seqlock copies them.
#[test]
fn the_watermark_of_a_cut_jump_outlives_a_smaller_advance() {
    let met = Met::default();
    let rest = at_rest(RingShape { length: 2, capacity: 4 }, |collector| {
        collector.advance(9, &[ring_row(7, 1, Closed), ring_row(8, 1, Closed)]);
    });
    for stores in 0..STORES_MAX {
        let seen = met.clone();
        explore_last(
            &rest,
            move |memory, collector| {
                collector.advance(10, &[ring_row(9, 1, Closed)]);
                collector.publish(2);
                stopped_after(stores, || collector.advance(12, &[ring_row(10, 2, Closed), ring_row(11, 2, Closed)]));
                let mut next = Collector::recovered(memory.words());
                next.advance(11, &[ring_row(10, 3, Closed)]);
                next.publish(3);
            },
            move |reader| {
                for row in reader.copy(Copy::Closed) {
                    let edition = if row.candle_index == 10 { 3 } else { 1 };
                    in_life(row, &[(Closed, edition), (Missing, 0)], 0);
                    seen.met(usize::from(row.state == Closed));
                }
            },
        );
    }
    met.all(2);
}

/// A row that was final stays marked as such, whoever dies over it, so that nobody puts a provisional one in its place.
#[test]
fn a_correction_killed_twice_stays_known_as_final() {
    let met = Met::default();
    for first in 0..STORES_MAX {
        for second in 0..STORES_MAX {
            let seen = met.clone();
            explore(
                &full(),
                move |memory, collector| {
                    let known = || {
                        let tag = memory.words().tag(9);
                        let marked = tag.candle_index() == 9 && tag.state() == MissingFinal;
                        assert!(marked || tag.is_final_of(9), "{tag:?}");
                        seen.met(usize::from(marked));
                    };
                    stopped_after(first, || (CORRECTION.run)(collector, 2));
                    known();
                    let mut next = Collector::recovered(memory.words());
                    stopped_after(second, || (CORRECTION.run)(&mut next, 3));
                    known();
                    let mut last = Collector::recovered(memory.words());
                    (CORRECTION.run)(&mut last, 3);
                    assert!(memory.reader().copy(Copy::Closed).contains(&Seen {
                        candle_index: 9,
                        state: Closed,
                        edition: 3
                    }));
                },
                |_| (),
            );
        }
    }
    met.all(2);
}
