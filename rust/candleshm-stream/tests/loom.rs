//! The board between the thread of the streams and the thread that decides, explored by loom (`make loom`).
//!
//! loom has no time: a wait ends only because somebody woke it. A wake-up that is lost in any interleaving is a deadlock,
//! which loom reports.

#![cfg(loom)]

use std::time::Duration;

use candleshm_stream::board::{Board, Counts, News, Notice};
use candleshm_stream::session::End;
use loom::sync::Arc;
use loom::thread;

/// Nobody gives up.
const LONG: Duration = Duration::from_hours(1);

/// Runs `say` beside a thread that takes news until `is_enough`, in every interleaving.
fn explore(say: fn(&Board), is_enough: fn(&News) -> bool) {
    loom::model(move || {
        let board = Arc::new(Board::new());
        let speaker = {
            let board = Arc::clone(&board);
            thread::spawn(move || say(&board))
        };
        let mut all = News::default();
        while !is_enough(&all) {
            let News { notices, repairs, refused, fault, failure } = board.wait(LONG);
            all.notices.extend(notices);
            all.repairs.extend(repairs);
            all.refused += refused;
            all.fault = fault.or(all.fault);
            all.failure = failure.or(all.failure);
        }
        speaker.join().expect("no panic");
    });
}

#[test]
fn every_notice_is_taken_in_its_order() {
    explore(
        |board| {
            board.note(1, Notice::Opened);
            board.note(1, Notice::Reply(b"reply".to_vec()));
            board.note(1, Notice::Ended(End::of("over")));
        },
        |news| {
            let kinds: Vec<_> = news.notices.iter().map(|(_, notice)| std::mem::discriminant(notice)).collect();
            kinds.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
            matches!(news.notices.last(), Some((1, Notice::Ended(_)))) && news.notices.len() == 3
        },
    );
}

#[test]
fn a_notice_that_is_not_urgent_wakes_too() {
    explore(|board| board.note(1, Notice::Reply(Vec::new())), |news| news.notices.len() == 1);
}

#[test]
fn what_is_counted_wakes_when_it_is_news() {
    explore(
        |board| {
            let refused = Counts { batches: 1, refused: 1, ..Counts::default() };
            board.count(1, &Counts { batches: 1, ..Counts::default() }, Vec::new(), None);
            board.count(1, &refused, vec![("A".into(), (), 1)], None);
            board.count(1, &refused, Vec::new(), Some("fault".into()));
            assert_eq!(board.counts().batches, 3);
        },
        |news| (news.refused, news.repairs.len(), news.fault.is_some()) == (2, 1, true),
    );
}

#[test]
fn the_end_wakes_who_waits_for_news_and_who_waits_for_the_end() {
    loom::model(|| {
        let board = Arc::new(Board::new());
        let (ending, stopping) = (Arc::clone(&board), Arc::clone(&board));
        let threads = [
            thread::spawn(move || ending.end(Some("gone".into()))),
            thread::spawn(move || assert!(stopping.wait_for_end(LONG))),
        ];
        assert_eq!(board.wait(LONG).failure.as_deref(), Some("gone"));
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert!(board.has_ended());
    });
}

#[test]
fn a_wait_that_is_roused_before_or_while_it_sleeps_returns() {
    loom::model(|| {
        let board = Arc::new(Board::new());
        let rousing = Arc::clone(&board);
        let thread = thread::spawn(move || rousing.rouse());
        assert_eq!(board.wait(LONG), News::default());
        thread.join().expect("no panic");
    });
}
