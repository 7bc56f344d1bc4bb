//! The head moves on, by one candle or over an outage, while somebody reads the slots that are used again.

use candleshm::layout::RowState::{Closed, Live, Missing};

use crate::model::{Collector, Copy, Met, Reader, Seen, explore, full, in_life, ring_row, row};

/// Copies rows behind a look at the stamp, from which follows where the head must be at least.
fn check_rows(reader: &Reader<'_>, copy: Copy, head_of: impl Fn(u64) -> u64) -> (u64, Vec<Seen>) {
    let stamp = reader.stamp();
    let rows = reader.copy(copy);
    let end = rows.last().map_or(0, |seen| seen.candle_index + u64::from(seen.state != Live));
    assert!(end >= head_of(stamp), "the head went back from {} to {end}", head_of(stamp));
    (stamp, rows)
}

fn append(collector: &mut Collector<'_>) {
    collector.advance(11, &[ring_row(10, 2, Closed)]);
    collector.publish(2);
}

/// Over an outage: of candle indices 10 to 12 only 11 is there.
fn jump(collector: &mut Collector<'_>) {
    collector.advance(13, &[ring_row(11, 2, Closed)]);
    collector.publish(2);
}

#[test]
fn an_appended_row_is_whole_as_soon_as_the_head_has_passed_it() {
    for copy in [Copy::Closed, Copy::ClosedStates, Copy::Newest, Copy::NewestStates] {
        let met = Met::default();
        let seen = met.clone();
        explore(
            &full(),
            |_, collector| append(collector),
            move |reader| {
                let (_, rows) = check_rows(reader, copy, |stamp| 9 + stamp);
                for &seen in &rows {
                    let life = match (seen.candle_index, seen.state) {
                        (10 | 11, Live) => (Live, 1),
                        (10, _) => (Closed, 2),
                        _ => (Closed, 1),
                    };
                    in_life(seen, &[life], 0);
                }
                seen.met(usize::from(rows[1].candle_index % 2 == 0));
            },
        );
        met.all(2);
    }
}

#[test]
fn two_appends_reuse_a_slot_of_the_window() {
    for copy in [Copy::Closed, Copy::ClosedStates] {
        explore(
            &full(),
            |_, collector| {
                append(collector);
                collector.advance(12, &[ring_row(11, 3, Closed)]);
                collector.publish(3);
            },
            move |reader| {
                let (stamp, rows) = check_rows(reader, copy, |stamp| 9 + stamp);
                for seen in rows {
                    let edition = if seen.candle_index < 10 { 1 } else { seen.candle_index - 8 };
                    // Its slot was taken by row 11 while it was copied.
                    let lost = seen.candle_index == 8 && seen.state == Missing && stamp < 3;
                    assert!(lost || (seen.state, seen.edition) == (Closed, edition), "{seen:?}");
                }
            },
        );
    }
}

#[test]
fn a_jump_takes_slots_away_under_a_reader() {
    for copy in [Copy::Closed, Copy::ClosedStates, Copy::Newest] {
        let met = Met::default();
        let seen = met.clone();
        explore(
            &full(),
            |_, collector| jump(collector),
            move |reader| {
                let (stamp, rows) = check_rows(reader, copy, |stamp| if stamp < 2 { 10 } else { 13 });
                for &row in &rows {
                    let life: &[_] = match row.candle_index {
                        8 | 9 => &[(Closed, 1), (Missing, 0)],
                        11 => &[(Closed, 2)],
                        12 => &[(Missing, 0)],
                        _ => &[(Live, 1)],
                    };
                    in_life(row, life, 0);
                    assert!(row.candle_index > 10 || stamp < 2);
                }
                seen.met(usize::from(rows[1].candle_index > 10));
            },
        );
        met.all(2);
    }
}

#[test]
fn a_view_says_when_its_slots_were_used_again() {
    let met = Met::default();
    let seen = met.clone();
    explore(
        &full(),
        |_, collector| {
            let rows = [ring_row(10, 2, Closed), ring_row(11, 2, Closed), ring_row(12, 2, Closed)];
            collector.advance(13, &rows);
            collector.publish(2);
        },
        move |reader| {
            let stamp = reader.stamp();
            let Some(rows) = reader.view() else {
                assert!(stamp < 2);
                return seen.met(0);
            };
            assert_eq!(rows.len(), 2);
            for row in &rows {
                in_life(*row, &[(Closed, if row.candle_index < 10 { 1 } else { 2 })], 0);
            }
            assert!(rows[0].candle_index == 11 || stamp < 2);
            seen.met(if rows[0].candle_index == 8 { 1 } else { 2 });
        },
    );
    met.all(3);
}

/// A candle that closes before the next one is seen: the head passes it, and the seqlock repeats it until there is
/// more.
#[test]
fn a_candle_is_final_the_moment_it_closes() {
    let met = Met::default();
    let seen = met.clone();
    explore(
        &full(),
        |_, collector| {
            collector.writer().advance(11, &[ring_row(10, 2, Closed)], None);
            collector.publish(2);
            collector.writer().set_live(&row(11, 1));
            collector.publish(3);
        },
        move |reader| {
            let mut newest = [0.0; 2];
            let marks = reader.reader.newest(&mut newest).expect("fewer publications than attempts allow for");
            match marks.received_ms {
                1 => assert!((marks.end(), marks.state, newest) == (11, Live, row(10, 1))),
                2 => assert!((marks.end(), marks.state, newest) == (11, Closed, row(10, 2))),
                _ => assert!((marks.end(), marks.state, newest) == (12, Live, row(11, 1))),
            }
            let rows = reader.copy(Copy::Newest);
            assert_eq!(rows.len(), 2);
            assert_eq!(rows[0].candle_index + 1, rows[1].candle_index);
            let end = rows[1].candle_index + 1;
            assert!(end >= marks.end());
            for row in rows {
                let (state, edition) = match (row.candle_index, row.state) {
                    (8 | 9, _) => (Closed, 1),
                    (10, Closed) => (Closed, 2),
                    _ => (Live, 1),
                };
                in_life(row, &[(state, edition)], 0);
                assert!(row.candle_index != 10 || row.state == Closed || marks.received_ms < 2);
            }
            seen.met(marks.received_ms as usize - 1);
        },
    );
    met.all(3);
}

/// The newest row is corrected while the seqlock repeats it.
#[test]
fn a_repeated_row_is_corrected_whole() {
    explore(
        &crate::model::at_rest(crate::model::RING, |collector| {
            collector.writer().advance(10, &[ring_row(8, 1, Closed), ring_row(9, 1, Closed)], None);
        }),
        |_, collector| {
            collector.writer().rewrite(&[ring_row(9, 2, Closed)], 1);
            collector.publish(2);
        },
        move |reader| {
            let mut newest = [0.0; 2];
            let marks = reader.reader.newest(&mut newest).expect("fewer publications than attempts allow for");
            assert!(marks.state == Closed && newest == row(9, marks.received_ms));
            let rows = reader.copy(Copy::Newest);
            assert_eq!(rows[0], Seen { candle_index: 8, state: Closed, edition: 1 });
            let earliest = if marks.received_ms == 2 { 2 } else { 0 };
            in_life(rows[1], &[(Closed, 1), (Missing, 0), (Closed, 2)], earliest);
        },
    );
}
