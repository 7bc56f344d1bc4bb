//! Rows below the head that are filled, corrected and verified while somebody reads them.

use candleshm::layout::RowState::{Closed, Missing, Verified};

use crate::model::{Copy, Met, Seen, View, explore, full, gap, in_life, ring_row};

/// The row of bar 8, which nobody touches.
const UNTOUCHED: Seen = Seen { bar: 8, state: Closed, edition: 1 };

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
