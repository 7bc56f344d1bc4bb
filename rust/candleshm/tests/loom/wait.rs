//! A reader that waits for a candle, beside it the collector that publishes it: no sleep on a number that stands for
//! what is looked for.

use std::ops::ControlFlow;

use candleshm::announce;
use candleshm::layout::{RowState, SYMBOL_BYTES};
use candleshm::seqlock::{self, Marks};
use candleshm::waiting::{Seen, until};

use crate::model::{Met, explore_words, row};

const ANNOUNCED: usize = 0;
const ENTRY: usize = 1;
/// The candle that is waited for, and so many batches until it is there.
const AWAITED: u64 = 2;

/// A wait that sleeps on a number older than the newest: the kernel does not let it sleep, or wakes it.
struct Asleep;

#[test]
fn a_waiter_never_sleeps_on_the_number_of_what_it_waits_for() {
    let met = Met::default();
    let seen = met.clone();
    explore_words(
        ENTRY + SYMBOL_BYTES / 8,
        |_| (),
        |words| {
            let mut version = 0;
            for head in 1..=AWAITED {
                let marks = Marks { head, final_start: head, final_end: head, state: RowState::Live, ..Marks::EMPTY };
                version = seqlock::publish(&words[ENTRY..], version, &marks, &row(head, 0));
                announce::count_up(&words[ANNOUNCED]);
            }
        },
        move |words| {
            let found = until(
                || Ok(Seen::of(&words[ANNOUNCED])),
                |_| {
                    let head = seqlock::read_marks(&words[ENTRY..]).map_or(0, |marks| marks.head);
                    Ok(if head == AWAITED { ControlFlow::Break(head) } else { ControlFlow::Continue(head) })
                },
                |news, head, _| {
                    let number = u64::from(news.number());
                    assert!(number < AWAITED, "asleep with batch {number} seen and candle {head} found, for ever");
                    assert!(head >= number, "batch {number} is seen, and only candle {head} of it");
                    Err(Asleep)
                },
            );
            seen.met(match found {
                Err(Asleep) => 0,
                Ok(_) => 1,
            });
        },
    );
    met.all(2);
}
