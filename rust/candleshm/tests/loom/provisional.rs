//! Rows that have ended and wait for their final values: rewritten, then closed, under copies and views.

use candleshm::layout::RowState::{self, Closed, Live, Missing};

use crate::model::{Copy, Met, RING, Rest, Seen, at_rest, explore, in_life, provisional, ring_row};

/// Candle indices 8 and 9 provisional, 10 live.
fn two_provisional() -> Rest {
    at_rest(RING, |collector| {
        collector.advance(10, &[ring_row(8, 1, Live), ring_row(9, 1, Live)]);
    })
}

const UNTOUCHED: Seen = Seen { candle_index: 8, state: Closed, edition: 1 };
const LIVE: Seen = Seen { candle_index: 10, state: Live, edition: 1 };

/// All phases of row 9 when it is rewritten and then closed with other values.
const REWRITTEN: [(RowState, u64); 5] = [(Live, 1), (Missing, 0), (Live, 2), (Missing, 0), (Closed, 3)];

#[test]
fn a_provisional_row_is_never_taken_for_a_final_one() {
    for copy in [Copy::Newest, Copy::NewestStates] {
        let met = Met::default();
        let seen = met.clone();
        explore(
            &provisional(),
            |_, collector| {
                collector.writer().rewrite(&[ring_row(9, 2, Live)], 0);
                collector.publish(2);
                collector.writer().rewrite(&[ring_row(9, 3, Closed)], 0);
                collector.publish(3);
            },
            move |reader| {
                let stamp = reader.stamp();
                let rows = reader.copy(copy);
                assert_eq!((rows.len(), rows[0], rows[2]), (3, UNTOUCHED, LIVE));
                in_life(rows[1], &REWRITTEN, [0, 0, 2, 4][stamp as usize]);
                seen.met(rows[1].edition as usize);
            },
        );
        met.all(4);
    }
}

#[test]
fn a_provisional_row_closed_by_its_tag_alone_is_never_missing() {
    for copy in [Copy::Newest, Copy::NewestStates] {
        let met = Met::default();
        let seen = met.clone();
        explore(
            &provisional(),
            |_, collector| {
                collector.writer().close(9);
                collector.publish(2);
            },
            move |reader| {
                let stamp = reader.stamp();
                let rows = reader.copy(copy);
                assert_eq!((rows.len(), rows[0], rows[2]), (3, UNTOUCHED, LIVE));
                in_life(rows[1], &[(Live, 1), (Closed, 1)], usize::from(stamp == 2));
                seen.met(usize::from(rows[1].state == Closed));
            },
        );
        met.all(2);
    }
}

#[test]
fn a_rewritten_row_is_closed_by_its_tag_alone() {
    explore(
        &provisional(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Live)], 0);
            collector.writer().close(9);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            let rows = reader.copy(Copy::Newest);
            assert_eq!((rows.len(), rows[0], rows[2]), (3, UNTOUCHED, LIVE));
            in_life(rows[1], &[(Live, 1), (Missing, 0), (Live, 2), (Closed, 2)], if stamp == 2 { 3 } else { 0 });
        },
    );
}

#[test]
fn a_view_has_no_provisional_row() {
    let met = Met::default();
    let seen = met.clone();
    explore(
        &provisional(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Live)], 0);
            collector.writer().rewrite(&[ring_row(9, 3, Closed)], 0);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            // A view that began before the row was closed, and claimed it, gives it up.
            let Some(rows) = reader.view() else { return assert!(stamp < 2) };
            assert_eq!(rows[0], UNTOUCHED);
            assert!(rows.len() == 2 || stamp < 2);
            if let Some(&closed) = rows.get(1) {
                in_life(closed, &[(Closed, 3)], 0);
            }
            seen.met(rows.len() - 1);
        },
    );
    met.all(2);
}

#[test]
fn a_view_has_a_row_closed_by_its_tag_alone() {
    explore(
        &provisional(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Live)], 0);
            collector.writer().close(9);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            // A view that began before the row was closed, and claimed it, gives it up.
            let Some(rows) = reader.view() else { return assert!(stamp < 2) };
            assert_eq!(rows[0], UNTOUCHED);
            assert!(rows.len() == 2 || stamp < 2);
            if let Some(&closed) = rows.get(1) {
                in_life(closed, &[(Closed, 2)], 0);
            }
        },
    );
}

/// A row closed above a provisional one is final, yet no view has it before the one below is final too.
#[test]
fn rows_are_closed_in_any_order() {
    explore(
        &two_provisional(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0);
            collector.publish(2);
            collector.writer().rewrite(&[ring_row(8, 2, Live)], 0);
            collector.writer().rewrite(&[ring_row(8, 3, Closed)], 0);
            collector.publish(3);
        },
        move |reader| {
            let stamp = reader.stamp();
            // A view that began before the row was closed, and claimed it, gives it up.
            let Some(rows) = reader.view() else { return assert!(stamp < 3) };
            assert!(rows.is_empty() || rows.len() == 2);
            assert!(rows.len() == 2 || stamp < 3);
            for row in rows {
                in_life(row, &[(Closed, 11 - row.candle_index)], 0);
            }
        },
    );
}

#[test]
fn a_row_closed_above_a_provisional_one_is_copied() {
    explore(
        &two_provisional(),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 0);
            collector.publish(2);
            collector.writer().rewrite(&[ring_row(8, 3, Closed)], 0);
            collector.publish(3);
        },
        move |reader| {
            let stamp = reader.stamp();
            let rows = reader.copy(Copy::Newest);
            assert_eq!((rows.len(), rows[1]), (2, LIVE));
            in_life(rows[0], &[(Live, 1), (Missing, 0), (Closed, 2)], if stamp == 1 { 0 } else { 2 });
        },
    );
}
