//! The file in which a replay awaits its readers: what is damaged or of another run is refused, places run out and come
//! back, and only those are let go whose wait may be over.

mod scratch;

use candleshm::error::Error;
use candleshm::lockstep::{Course, Lockstep, PLACES};

use scratch::Scratch;

const REPLAY: (u64, u64) = (4_000_000_000, 7);
const RANGE: (i64, i64) = (1_000_000, 2_000_000);

/// A lockstep beside no block, whose file goes with it.
struct Made(Lockstep, Scratch);

impl Drop for Made {
    fn drop(&mut self) {
        self.0.unlink(self.1.name());
    }
}

impl Made {
    fn new(purpose: &str) -> Self {
        let scratch = Scratch::new(purpose);
        let lockstep = Lockstep::create(scratch.name(), REPLAY, RANGE, false).expect("/dev/shm has room");
        Self(lockstep, scratch)
    }

    fn path(&self) -> std::path::PathBuf {
        std::path::PathBuf::from(format!("/dev/shm/.{}.lockstep", self.1.name()))
    }

    fn open(&self) -> Result<Option<Lockstep>, Error> {
        Lockstep::open(self.1.name(), REPLAY.0, REPLAY.1)
    }
}

fn me() -> (u64, u64) {
    (std::process::id().into(), 0)
}

#[test]
fn only_the_file_of_this_replay_is_opened() {
    let made = Made::new("lockstep-open");
    let opened = made.open().expect("sound").expect("there");
    assert_eq!((opened.now_ms(), opened.course(), opened.is_clock()), (RANGE.0, Course::Going, false));
    assert!(Lockstep::open(made.1.name(), REPLAY.0 + 1, REPLAY.1).expect("sound").is_none());
    assert!(Lockstep::open(made.1.name(), REPLAY.0, REPLAY.1 + 1).expect("sound").is_none());
    assert!(Lockstep::open("candleshm-test-no-such-replay", 1, 1).expect("nothing there").is_none());

    let bytes = std::fs::read(made.path()).expect("the file");
    for at in [0, 8] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(made.path(), &damaged).expect("writable");
        assert!(matches!(made.open(), Err(Error::Corrupt { .. })), "byte {at}");
    }
    std::fs::write(made.path(), &bytes).expect("writable");
    assert!(made.open().expect("sound").is_some());
    for size in [0, 8, 4096, bytes.len() - 8, bytes.len() + 4096] {
        let mut resized = bytes.clone();
        resized.resize(size, 0);
        // Another file: a mapped one is never cut.
        std::fs::remove_file(made.path()).expect("removable");
        std::fs::write(made.path(), &resized).expect("writable");
        assert!(matches!(made.open(), Err(Error::Corrupt { .. })), "{size} bytes");
    }
    std::fs::remove_file(made.path()).expect("removable");
    std::os::unix::fs::symlink("/dev/null", made.path()).expect("/dev/shm takes links");
    assert!(matches!(made.open(), Err(Error::Corrupt { .. })));
    std::fs::remove_file(made.path()).expect("removable");
}

#[test]
fn the_file_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let made = Made::new("lockstep-mode");
    let mode = std::fs::metadata(made.path()).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn places_run_out_and_come_back() {
    let made = Made::new("lockstep-places");
    let places: Vec<usize> = (0..PLACES).map(|_| made.0.take_place(me()).expect("a place")).collect();
    assert_eq!(made.0.take_place(me()), None);
    assert_eq!(made.0.readers(), (PLACES, PLACES));
    // Nobody else's place is given back.
    made.0.leave_place(places[3], me().0 + 1);
    assert_eq!(made.0.readers().0, PLACES);
    made.0.leave_place(places[3], me().0);
    assert_eq!(made.0.take_place(me()), Some(places[3]));
}

#[test]
fn those_go_whose_wait_may_be_over() {
    let made = Made::new("lockstep-grant");
    let [soon, later, elsewhere, busy] = [0, 1, 2, 3].map(|_| made.0.take_place(me()).expect("a place"));
    assert!(!made.0.is_asked());
    made.0.ask(soon, 0);
    made.0.ask(later, 1_500_000);
    made.0.lend(elsewhere);
    assert_eq!(made.0.readers(), (4, 1));
    let before = made.0.grants(later);
    made.0.grant(1_499_999);
    assert!(!made.0.asks(soon) && made.0.asks(later) && made.0.asks(elsewhere) && !made.0.asks(busy));
    assert_eq!(made.0.grants(later), before);
    made.0.grant(1_500_000);
    assert!(!made.0.asks(later) && made.0.asks(elsewhere));
    assert_eq!((made.0.grants(later), made.0.now_ms()), (before + 1, 1_500_000));
    // Nobody waits here any more: the one that waits elsewhere does not count.
    assert!(!made.0.is_asked());
    made.0.end(Course::Stopped);
    made.0.end(Course::Ended);
    assert_eq!((made.0.course(), made.0.asks(elsewhere)), (Course::Stopped, false));
    let ended = Error::ReplayEnded { name: "x".into(), start_ms: RANGE.0, end_ms: RANGE.1, now_ms: 1_500_000 };
    assert_eq!(made.0.ended("x"), ended);
}

#[test]
fn who_holds_time_up_is_named() {
    let made = Made::new("lockstep-held");
    assert_eq!(made.0.held_up(None), None);
    made.0.set_awaited(2);
    let first = made.0.take_place(me()).expect("a place");
    made.0.ask(first, 0);
    let early = made.0.held_up(None).expect("one more has to come");
    assert_eq!(early.to_string(), "2 readers are awaited, 1 takes part");
    made.0.set_awaited(0);
    assert_eq!(made.0.held_up(None), None);
    let busy = made.0.take_place(me()).expect("a place");
    let mine = std::process::id();
    let unknown = made.0.held_up(None).expect("one is at work").to_string();
    assert_eq!(unknown, format!("a reader is awaited that does not wait: process {mine}"));
    // The main thread has the number of its process.
    made.0.set_thread(busy, me().0);
    let known = made.0.held_up(None).expect("one is at work").to_string();
    assert_eq!(known, format!("a reader is awaited that does not wait: thread {mine} of process {mine}"));
    assert_eq!(made.0.held_up(Some((me().0, me().0))), None);
    made.0.leave_place(busy, me().0);
    // Whoever has the place next is not taken for that thread.
    assert_eq!(made.0.take_place(me()), Some(busy));
    assert_eq!(made.0.held_up(None).expect("one is at work").busy, [(me().0, 0)]);
    made.0.lend(busy);
    assert_eq!(made.0.held_up(None), None);
    made.0.take_back(busy);
    assert!(made.0.held_up(None).is_some());
    // One that asks is not taken back.
    made.0.ask(busy, 0);
    made.0.take_back(busy);
    assert!(made.0.asks(busy));
    made.0.end(Course::Ended);
    assert_eq!(made.0.held_up(None), None);
}

#[test]
fn places_of_the_dead_are_freed() {
    let made = Made::new("lockstep-dead");
    let mut child = std::process::Command::new("sleep").arg("3600").spawn().expect("a process");
    let dead = made.0.take_place((child.id().into(), 0)).expect("a place");
    // A process that started at another time has the number by now.
    made.0.take_place((std::process::id().into(), 1)).expect("a place");
    let mine = made.0.take_place(me()).expect("a place");
    made.0.free_dead();
    assert_eq!(made.0.readers().0, 2);
    child.kill().expect("killed");
    // Nobody has waited for it yet.
    while made.0.readers().0 == 2 {
        made.0.free_dead();
        std::thread::yield_now();
    }
    child.wait().expect("waited for");
    assert_ne!(dead, mine);
    assert_eq!(made.0.take_place(me()), Some(dead));
}
