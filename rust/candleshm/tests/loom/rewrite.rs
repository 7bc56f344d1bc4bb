//! Rows below the head that are filled, corrected and verified while somebody reads them.

use candleshm::layout::RowState::{Closed, Hole, Missing, Verified};

use crate::model::{Copy, Met, RING, Rest, Seen, at_rest, explore, full, gap, in_life, ring_row};

/// Row 8, which nobody touches.
const UNTOUCHED: Seen = Seen { candle_index: 8, state: Closed, edition: 1 };

/// The phase that a reader must have reached who saw this stamp.
fn earliest(stamp: u64, published: usize) -> usize {
    if stamp >= 2 { published } else { 0 }
}

#[test]
fn a_filled_row_is_missing_or_whole() {
    for copy in [Copy::Closed, Copy::ClosedStates] {
        let met = Met::default();
        let seen = met.clone();
        explore(
            &gap(),
            |_, collector| {
                collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0);
                collector.publish(2);
            },
            move |reader| {
                let stamp = reader.stamp();
                let rows = reader.copy(copy);
                assert_eq!(rows[0], UNTOUCHED);
                in_life(rows[1], &[(Missing, 0), (Closed, 2)], earliest(stamp, 1));
                seen.met(usize::from(rows[1].state == Closed));
            },
        );
        met.all(2);
    }
}

#[test]
fn a_view_has_a_filled_row_whole_or_not_at_all() {
    let met = Met::default();
    let seen = met.clone();
    explore(
        &gap(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            let Some(rows) = reader.view() else {
                // It claimed the row, but had begun before the row was counted as rewritten; or its blank words filled.
                assert!(stamp < 2);
                return seen.met(3);
            };
            assert!(rows.len() == 2 || stamp < 2);
            // None at all: the row was half written, and the view began behind it.
            if let Some(&untouched) = rows.first() {
                assert_eq!(untouched, UNTOUCHED);
            }
            if let Some(&filled) = rows.get(1) {
                in_life(filled, &[(Closed, 2)], 0);
            }
            seen.met(rows.len());
        },
    );
    met.all(4);
}

#[test]
fn a_corrected_row_is_the_old_one_or_the_new_one() {
    for copy in [Copy::Closed, Copy::ClosedStates] {
        let met = Met::default();
        let seen = met.clone();
        explore(
            &full(),
            |_, collector| {
                collector.writer().rewrite(&[ring_row(9, 2, Closed)], 1);
                collector.publish(2);
            },
            move |reader| {
                let marks = reader.marks();
                assert_eq!(u64::from(marks.revision), marks.received_ms - 1);
                let rows = reader.copy(copy);
                assert_eq!(rows[0], UNTOUCHED);
                in_life(rows[1], &[(Closed, 1), (Missing, 0), (Closed, 2)], earliest(marks.received_ms, 2));
                seen.met(rows[1].edition as usize);
            },
        );
        met.all(3);
    }
}

#[test]
fn a_view_over_a_corrected_row_says_so() {
    let met = Met::default();
    let seen = met.clone();
    explore(
        &full(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 1);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            let Some(rows) = reader.view() else { return seen.met(0) };
            assert!(rows.len() == 2 || stamp < 2);
            if let Some(&untouched) = rows.first() {
                assert_eq!(untouched, UNTOUCHED);
            }
            if let Some(&corrected) = rows.get(1) {
                in_life(corrected, &[(Closed, 1), (Closed, 2)], earliest(stamp, 1));
                seen.met(corrected.edition as usize);
            }
        },
    );
    met.all(3);
}

#[test]
fn a_merged_page_fills_and_corrects() {
    explore(
        &gap(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(8, 2, Closed), ring_row(9, 2, Closed)], 1);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            let rows = reader.copy(Copy::Closed);
            in_life(rows[0], &[(Closed, 1), (Missing, 0), (Closed, 2)], earliest(stamp, 2));
            in_life(rows[1], &[(Missing, 0), (Closed, 2)], earliest(stamp, 1));
        },
    );
}

#[test]
fn a_hole_is_confirmed_and_filled_after_all() {
    let met = Met::default();
    let seen = met.clone();
    explore(
        &gap(),
        |_, collector| {
            collector.writer().hole(9);
            collector.publish(2);
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0);
            collector.publish(3);
        },
        move |reader| {
            let stamp = reader.stamp();
            let rows = reader.copy(Copy::Closed);
            assert_eq!(rows[0], UNTOUCHED);
            let life = [(Missing, 0), (Hole, 0), (Missing, 0), (Closed, 2)];
            in_life(rows[1], &life, [0, 0, 1, 3][stamp as usize]);
            seen.met(match rows[1].state {
                Hole => 0,
                Closed => 1,
                _ => 2,
            });
        },
    );
    met.all(3);
}

/// Older history turns up: the window grows down to a row that is filled at the same time.
#[test]
fn the_first_bar_moves_down() {
    let begins_late = at_rest(RING, |collector| {
        collector.advance(10, &[ring_row(9, 1, Closed)]);
        collector.writer().set_first_bar(9);
    });
    let met = Met::default();
    let seen = met.clone();
    explore(
        &begins_late,
        |_, collector| {
            collector.writer().set_first_bar(8);
            collector.writer().rewrite(&[ring_row(8, 2, Closed)], 0);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            let rows = reader.copy(Copy::Closed);
            assert_eq!(rows.last(), Some(&Seen { candle_index: 9, state: Closed, edition: 1 }));
            assert!(rows.len() == 2 || stamp < 2);
            if rows.len() == 2 {
                in_life(rows[0], &[(Missing, 0), (Closed, 2)], earliest(stamp, 1));
            }
            seen.met(rows.len() - 1);
        },
    );
    met.all(2);
}

#[test]
fn a_settled_row_is_there() {
    let met = Met::default();
    let seen = met.clone();
    explore(
        &gap(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0);
            collector.publish(2);
        },
        move |reader| {
            let settled = reader.reader.is_settled(9);
            if settled {
                in_life(reader.copy(Copy::Closed)[1], &[(Closed, 2)], 0);
            }
            seen.met(usize::from(settled));
        },
    );
    met.all(2);
}

/// Both outcomes of the check whether a view is still valid, one after the other without a race.
#[test]
fn a_view_knows_which_rewrites_concern_it() {
    explore(
        &gap(),
        |memory, collector| {
            let reader = memory.reader();
            let view = reader.view_marks();
            assert!(!view.is_complete() && view.is_present(0) && !view.is_present(1));
            assert!(reader.reader.is_valid(&view));
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0);
            collector.publish(2);
            assert!(!reader.reader.is_valid(&view), "the words of a blank row were written");
            let both = reader.view_marks();
            let newest = reader.reader.view(1).expect("nobody publishes meanwhile");
            collector.writer().rewrite(&[ring_row(8, 2, Closed)], 1);
            assert!(!reader.reader.is_valid(&both), "a row of the view was corrected");
            assert!(reader.reader.is_valid(&newest), "the view's only row was left alone");
            collector.publish(3);
            assert!(!reader.reader.is_valid(&both));
            assert!(reader.reader.is_valid(&newest));
        },
        |_| (),
    );
}

#[test]
fn a_verified_row_is_seen_whole_through_an_old_seqlock() {
    let met = Met::default();
    let seen = met.clone();
    explore(
        &gap(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0);
            collector.writer().verify(9);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            let rows = reader.copy(Copy::ClosedStates);
            assert_eq!(rows[0], UNTOUCHED);
            in_life(rows[1], &[(Missing, 0), (Closed, 2), (Verified, 2)], earliest(stamp, 2));
            seen.met(match rows[1].state {
                Verified => 0,
                Closed => 1,
                _ => 2,
            });
        },
    );
    met.all(3);
}

/// Rows 8 and 9 closed, and no live row: a push has closed row 9, and the seqlock repeats it.
fn pushed() -> Rest {
    at_rest(RING, |collector| {
        let rows = [ring_row(8, 1, Closed), ring_row(9, 1, Closed)];
        collector.writer().advance(10, &rows, None);
    })
}

/// The life of a row that a push closed: trade ids prove it, and a response that differs corrects it all the same.
#[test]
fn a_pushed_row_is_proven_and_then_corrected_in_ring_and_seqlock() {
    for copy in [Copy::ClosedStates, Copy::NewestStates] {
        let met = Met::default();
        let seen = met.clone();
        explore(
            &pushed(),
            |_, collector| {
                collector.writer().verify(9);
                collector.writer().refresh_newest();
                collector.publish(2);
                collector.writer().rewrite(&[ring_row(9, 2, Closed)], 1);
                collector.publish(3);
            },
            move |reader| {
                let stamp = reader.stamp();
                let rows = reader.copy(copy);
                assert_eq!((rows.len(), rows[0]), (2, UNTOUCHED));
                let life = [(Closed, 1), (Verified, 1), (Missing, 0), (Closed, 2)];
                in_life(rows[1], &life, [0, 0, 1, 3][stamp as usize]);
                seen.met(match rows[1].state {
                    Verified => 0,
                    Closed => rows[1].edition as usize,
                    _ => 3,
                });
            },
        );
        met.all(3);
    }
}
