//! Candle indices requested by number, as panels do: the same proof as for the newest slots, on the other path.

use candleshm::layout::RowState::{Closed, Live, Missing};

use crate::model::{Collector, Life, Rest, explore, full, gap, in_life, provisional, ring_row};

/// What is written, which candle indices are read meanwhile, and what may be seen of them.
struct Race {
    rest: Rest,
    write: fn(&mut Collector<'_>),
    start: u64,
    provisional: bool,
    /// All phases of a candle index, and the first one that may be seen behind stamp 2.
    life: fn(u64) -> (Life, usize),
}

fn check(race: Race) {
    let Race { rest, write, start, provisional, life } = race;
    explore(
        &rest,
        move |_, collector| {
            write(collector);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            for row in reader.range(start, 2, provisional) {
                let (phases, published) = life(row.candle_index);
                // The state of a row is not known: any phase of its edition will do.
                let state = phases.iter().rfind(|phase| phase.1 == row.edition).map_or(row.state, |phase| phase.0);
                in_life(crate::model::Seen { state, ..row }, phases, if stamp == 2 { published } else { 0 });
            }
        },
    );
}

#[test]
fn a_filled_row() {
    check(Race {
        rest: gap(),
        write: |collector| collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0),
        start: 8,
        provisional: false,
        life: |candle_index| if candle_index == 8 { (&[(Closed, 1)], 0) } else { (&[(Missing, 0), (Closed, 2)], 1) },
    });
}

#[test]
fn a_corrected_row() {
    check(Race {
        rest: full(),
        write: |collector| collector.writer().rewrite(&[ring_row(9, 2, Closed)], 1),
        start: 8,
        provisional: false,
        life: |candle_index| {
            if candle_index == 8 { (&[(Closed, 1)], 0) } else { (&[(Closed, 1), (Missing, 0), (Closed, 2)], 2) }
        },
    });
}

#[test]
fn slots_that_are_used_again() {
    check(Race {
        rest: full(),
        write: |collector| collector.advance(13, &[ring_row(11, 2, Closed)]),
        start: 8,
        provisional: false,
        life: |_| (&[(Closed, 1), (Missing, 0)], 1),
    });
}

#[test]
fn a_provisional_row_and_the_live_one() {
    check(Race {
        rest: provisional(),
        write: |collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Live)], 0);
            collector.writer().close(9);
        },
        start: 9,
        provisional: true,
        life: |candle_index| {
            if candle_index == 9 { (&[(Live, 1), (Missing, 0), (Live, 2)], 2) } else { (&[(Live, 1)], 0) }
        },
    });
}

#[test]
fn final_rows_alone() {
    check(Race {
        rest: provisional(),
        write: |collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Live)], 0);
            collector.writer().rewrite(&[ring_row(9, 3, Closed)], 0);
        },
        start: 8,
        provisional: false,
        life: |candle_index| if candle_index == 8 { (&[(Closed, 1)], 0) } else { (&[(Missing, 0), (Closed, 3)], 1) },
    });
}
