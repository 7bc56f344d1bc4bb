//! The seqlock over four publications, so that the slot being read is used again.

use candleshm::layout::{RowState, symbol};
use candleshm::seqlock::{self, Marks};
use candleshm::sync::AtomicU64;

use crate::model::{Met, edition, explore_words, row};

/// Marks of which every part tells the publication.
fn marks(publication: u64) -> Marks {
    Marks {
        head: 1000 + publication,
        final_start: 100 + publication,
        final_end: 200 + publication,
        state: if publication.is_multiple_of(2) { RowState::Live } else { RowState::Closed },
        revision: publication as u32,
        received_ms: publication,
    }
}

fn publish(entry: &[AtomicU64], publications: std::ops::RangeInclusive<u64>) {
    for publication in publications {
        assert_eq!(seqlock::publish(entry, publication - 1, &marks(publication), &row(7, publication)), publication);
    }
}

#[test]
fn a_seqlock_is_read_whole() {
    let met = Met::default();
    let seen = met.clone();
    explore_words(
        symbol::NAME,
        |entry| publish(entry, 1..=1),
        |entry| publish(entry, 2..=5),
        move |entry| {
            let mut newest = [0.0; 2];
            let read = seqlock::read(entry, &mut newest).expect("the second attempt is accepted");
            let publication = read.received_ms;
            assert_eq!(read, marks(publication));
            assert_eq!(edition(7, newest), publication);
            seen.met(publication as usize - 1);
        },
    );
    met.all(5);
}

/// The two single words: never older than what the reader knows already.
#[test]
fn single_words_do_not_go_back() {
    let met = Met::default();
    let seen = met.clone();
    explore_words(
        symbol::NAME,
        |entry| publish(entry, 1..=1),
        |entry| publish(entry, 2..=5),
        move |entry| {
            let publication = seqlock::read_marks(entry).expect("the second attempt is accepted").received_ms;
            let received_ms = seqlock::received_ms(entry);
            assert!(received_ms >= publication, "{received_ms} after {publication}");
            let close = seqlock::last_close(entry);
            assert!((row(7, publication)[1]..=row(7, 5)[1]).contains(&close), "{close} after {publication}");
            seen.met(publication as usize - 1);
        },
    );
    met.all(5);
}
