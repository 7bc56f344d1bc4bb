//! A word that announces a publication, beside somebody a reader that reads it first and what it announces afterwards.

use candleshm::announce;
use candleshm::sync::Ordering::Relaxed;

use crate::model::{Met, explore_words};

const ANNOUNCED: usize = 0;
const PUBLISHED: usize = 1;

/// What `ready`, `universe_bar` and the numbers of a wait have in common.
#[test]
fn who_reads_an_announcement_sees_what_was_published_before_it() {
    let met = Met::default();
    let seen = met.clone();
    explore_words(
        2,
        |_| (),
        |words| {
            for batch in 1..=2 {
                words[PUBLISHED].store(batch, Relaxed);
                announce::count_up(&words[ANNOUNCED]);
            }
        },
        move |words| {
            let announced = announce::load(&words[ANNOUNCED]);
            let published = words[PUBLISHED].load(Relaxed);
            assert!(published >= announced, "batch {announced} is announced, and {published} is all that is there");
            seen.met(announced as usize);
        },
    );
    met.all(3);
}
