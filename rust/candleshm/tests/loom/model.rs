//! A block small enough for loom, and rows that say who wrote them.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candleshm::layout::{RingShape, RowState, RowWords, SYMBOL_BYTES, Tag};
use candleshm::publish::{RingRow, SeriesState, SeriesWriter};
use candleshm::read::{Selection, SeriesReader, Snapshot, ViewMarks};
use candleshm::ring::SeriesWords;
use candleshm::seqlock::Marks;
use candleshm::sync::AtomicU64;

/// How often loom may stop a thread that could go on. The reader goes last then, and each of its loads may return any
/// value that C11 allows, however old: that is every interleaving. One preemption more than none is a second opinion;
/// `LOOM_MAX_PREEMPTIONS` asks for more.
const PREEMPTIONS: usize = 1;

pub(crate) const RING: RingShape = RingShape { length: 2, capacity: 3 };

/// The row of `candle_index` in its `edition`: both columns carry both numbers, so a torn row, a row of another time,
/// one that was never written and an old one can be distinguished.
pub(crate) fn row(candle_index: u64, edition: u64) -> RowWords {
    let write = candle_index * 100 + edition;
    [(2 * write) as f64, (2 * write + 1) as f64]
}

/// Returns the edition of a row of `candle_index`.
#[track_caller]
pub(crate) fn edition(candle_index: u64, [first, second]: RowWords) -> u64 {
    assert!(first + 1.0 == second, "torn row of candle {candle_index}: {first} {second}");
    let write = first as u64 / 2;
    assert!(
        (first as u64).is_multiple_of(2) && write / 100 == candle_index,
        "row of another time in the place of candle {candle_index}: {first}"
    );
    write % 100
}

pub(crate) fn ring_row(candle_index: u64, edition: u64, state: RowState) -> RingRow {
    RingRow { candle_index, row: row(candle_index, edition), state }
}

/// A block that nobody is writing to.
#[derive(Clone)]
pub(crate) struct Rest {
    entry: Vec<u64>,
    data: Vec<u64>,
    ring: RingShape,
    state: SeriesState,
}

impl Rest {
    /// Lets the slot of `candle_index` carry the tag of a missing row of another candle index: what is left of an
    /// advance when the death took its other stores with it.
    pub(crate) fn taken(mut self, candle_index: u64, by: u64) -> Self {
        self.data[candle_index as usize % self.ring.capacity] = Tag::new(by, 0, RowState::Missing).0;
        self
    }
}

/// The words of one series.
pub(crate) struct Memory {
    entry: Vec<AtomicU64>,
    data: Vec<AtomicU64>,
    ring: RingShape,
}

impl Memory {
    fn new(rest: &Rest) -> Self {
        let words = |values: &[u64]| values.iter().copied().map(AtomicU64::new).collect();
        Self { entry: words(&rest.entry), data: words(&rest.data), ring: rest.ring }
    }

    pub(crate) fn words(&self) -> SeriesWords<'_> {
        SeriesWords { entry: &self.entry, data: &self.data, ring: self.ring }
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { words: self.words(), reader: SeriesReader::of(self.words()) }
    }
}

/// The writer of the series, and what it knows.
pub(crate) struct Collector<'a> {
    words: SeriesWords<'a>,
    pub(crate) state: SeriesState,
}

impl<'a> Collector<'a> {
    /// The next owner of a block whose owner died.
    pub(crate) fn recovered(words: SeriesWords<'a>) -> Self {
        let mut collector = Self { words, state: SeriesState::empty() };
        collector.writer().recover();
        collector
    }

    pub(crate) fn writer(&mut self) -> SeriesWriter<'_> {
        SeriesWriter::new(self.words, &mut self.state)
    }

    /// Returns the tag of the slot of `candle_index`.
    pub(crate) fn tag(&self, candle_index: u64) -> Tag {
        self.words.tag(candle_index)
    }

    /// Publishes everything so far; `stamp` tells readers how far that is.
    pub(crate) fn publish(&mut self, stamp: u64) {
        self.state.marks.received_ms = stamp;
        self.writer().publish();
    }

    /// Moves the head to `head`, where the live row's first edition lies.
    pub(crate) fn advance(&mut self, head: u64, rows: &[RingRow]) {
        self.writer().advance(head, rows, Some(&row(head, 1)));
    }
}

/// Returns a block of `ring` after `write`, published with stamp 1.
pub(crate) fn at_rest(ring: RingShape, write: impl Fn(&mut Collector<'_>) + Send + Sync + 'static) -> Rest {
    let empty =
        Rest { entry: vec![0; SYMBOL_BYTES / 8], data: vec![0; ring.data_words()], ring, state: SeriesState::empty() };
    let result = Arc::new(Mutex::new(empty.clone()));
    let end = Arc::clone(&result);
    loom::model(move || {
        let memory = Memory::new(&empty);
        let mut collector = Collector { words: memory.words(), state: empty.state.clone() };
        write(&mut collector);
        collector.publish(1);
        let values = |words: &[AtomicU64]| words.iter().map(|word| word.load(Relaxed)).collect();
        *end.lock().unwrap() =
            Rest { entry: values(&memory.entry), data: values(&memory.data), ring, state: collector.state.clone() };
    });
    result.lock().unwrap().clone()
}

/// Candle indices 8 and 9 closed, 10 live.
pub(crate) fn full() -> Rest {
    at_rest(RING, |collector| {
        collector.advance(10, &[ring_row(8, 1, RowState::Closed), ring_row(9, 1, RowState::Closed)]);
    })
}

/// Row 8 closed, 9 missing, 10 live.
pub(crate) fn gap() -> Rest {
    at_rest(RING, |collector| {
        collector.advance(9, &[ring_row(8, 1, RowState::Closed)]);
        collector.advance(10, &[]);
    })
}

/// Row 8 closed, 9 provisional, 10 live; in a window of three, so that a copy has rows of both kinds.
pub(crate) fn provisional() -> Rest {
    at_rest(RingShape { length: 3, capacity: 4 }, |collector| {
        collector.advance(10, &[ring_row(8, 1, RowState::Closed), ring_row(9, 1, RowState::Live)]);
        collector.writer().set_first_bar(8);
    })
}

/// Explores what a collector writes to a block beside what somebody reads from it.
pub(crate) fn explore(
    rest: &Rest,
    write: impl Fn(&Memory, &mut Collector<'_>) + Send + Sync + 'static,
    read: impl Fn(&Reader<'_>) + Send + Sync + 'static,
) {
    explore_with(PREEMPTIONS, rest, write, read);
}

/// Explores the same with a reader that goes last, for long histories.
pub(crate) fn explore_last(
    rest: &Rest,
    write: impl Fn(&Memory, &mut Collector<'_>) + Send + Sync + 'static,
    read: impl Fn(&Reader<'_>) + Send + Sync + 'static,
) {
    explore_with(0, rest, write, read);
}

fn explore_with(
    preemptions: usize,
    rest: &Rest,
    write: impl Fn(&Memory, &mut Collector<'_>) + Send + Sync + 'static,
    read: impl Fn(&Reader<'_>) + Send + Sync + 'static,
) {
    let rest = rest.clone();
    let state = rest.state.clone();
    explore_beside(
        preemptions,
        move || Memory::new(&rest),
        move |memory| write(memory, &mut Collector { words: memory.words(), state: state.clone() }),
        move |memory| read(&memory.reader()),
    );
}

/// Explores the same on `count` words, all zero before `start`.
pub(crate) fn explore_words(
    count: usize,
    start: impl Fn(&[AtomicU64]) + Send + Sync + 'static,
    write: impl Fn(&[AtomicU64]) + Send + Sync + 'static,
    read: impl Fn(&[AtomicU64]) + Send + Sync + 'static,
) {
    let words = move || {
        let words: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
        start(&words);
        words
    };
    explore_beside(PREEMPTIONS, words, move |words| write(words), move |words| read(words));
}

fn explore_beside<M: Send + Sync + 'static>(
    preemptions: usize,
    memory: impl Fn() -> M + Send + Sync + 'static,
    write: impl Fn(&M) + Send + Sync + 'static,
    read: impl Fn(&M) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(preemptions);
    model.max_branches = 10_000;
    let read = Arc::new(read);
    model.check(move || {
        let memory = Arc::new(memory());
        let reading = loom::thread::spawn({
            let (memory, read) = (Arc::clone(&memory), Arc::clone(&read));
            move || read(&memory)
        });
        write(&memory);
        reading.join().unwrap();
    });
}

/// A row as a reader got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) candle_index: u64,
    pub(crate) state: RowState,
    /// 0 when there is no row.
    pub(crate) edition: u64,
}

/// A reader that looks at every row it gets.
pub(crate) struct Reader<'a> {
    words: SeriesWords<'a>,
    pub(crate) reader: SeriesReader<'a>,
}

/// What is copied: the newest slots with or without the live row; judged by tags alone when states are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Copy {
    Newest,
    NewestStates,
    Closed,
    ClosedStates,
}

impl Reader<'_> {
    pub(crate) fn marks(&self) -> Marks {
        self.reader.marks().expect("fewer publications than attempts allow for")
    }

    /// Returns the stamp of what is published; whatever is read afterwards is at least as new.
    pub(crate) fn stamp(&self) -> u64 {
        self.marks().received_ms
    }

    pub(crate) fn copy(&self, copy: Copy) -> Vec<Seen> {
        let count = self.words.ring.length;
        let selection = Selection {
            count,
            closed_only: matches!(copy, Copy::Closed | Copy::ClosedStates),
            states: matches!(copy, Copy::NewestStates | Copy::ClosedStates),
        };
        let mut columns = vec![0.0; 2 * count];
        let mut snapshot = Snapshot::default();
        self.reader.copy(&selection, &mut columns, &mut snapshot).expect("fewer publications than attempts allow for");
        let seen = |(slot, &state): (usize, &RowState)| {
            let candle_index = snapshot.start + slot as u64;
            let there = matches!(state, RowState::Live | RowState::Closed | RowState::Verified);
            let edition = if there { edition(candle_index, [columns[slot], columns[count + slot]]) } else { 0 };
            Seen { candle_index, state, edition }
        };
        snapshot.states.iter().enumerate().map(seen).collect()
    }

    /// Copies the candle indices from `start` on; a row that is there counts as closed.
    pub(crate) fn range(&self, start: u64, count: usize, provisional: bool) -> Vec<Seen> {
        let mut columns = vec![0.0; 2 * count];
        self.reader
            .copy_range(&[0, 1], start, count, provisional, &mut columns, count)
            .expect("fewer publications than attempts allow for");
        (start..)
            .zip(columns[..count].iter().zip(&columns[count..]))
            .map(|(candle_index, (&first, &second))| {
                if first.is_nan() && second.is_nan() {
                    return Seen { candle_index, state: RowState::Missing, edition: 0 };
                }
                Seen { candle_index, state: RowState::Closed, edition: edition(candle_index, [first, second]) }
            })
            .collect()
    }

    /// Uses a view where it lies and returns its rows, unless it says that it was overwritten.
    pub(crate) fn view(&self) -> Option<Vec<Seen>> {
        let view = self.view_marks();
        let columns = [0, 1].map(|column| -> Vec<f64> {
            self.reader.column(&view, column).iter().map(|word| f64::from_bits(word.load(Relaxed))).collect()
        });
        self.reader.is_valid(&view).then(|| {
            // Whoever computes with the view reads all of its words.
            for at in (0..view.count).filter(|&at| !view.is_present(at)) {
                assert!(columns[0][at].is_nan() && columns[1][at].is_nan(), "words of a row that the view has not");
            }
            (0..view.count)
                .filter(|&at| view.is_present(at))
                .map(|at| {
                    let candle_index = view.start + at as u64;
                    Seen {
                        candle_index,
                        state: RowState::Closed,
                        edition: edition(candle_index, [columns[0][at], columns[1][at]]),
                    }
                })
                .collect()
        })
    }

    pub(crate) fn view_marks(&self) -> ViewMarks {
        self.reader.view(self.words.ring.length).expect("fewer publications than attempts allow for")
    }
}

/// Counts outcomes over all executions, so that a test can demand that each of them was met.
#[derive(Clone, Default)]
pub(crate) struct Met(Arc<[AtomicUsize; 6]>);

impl Met {
    pub(crate) fn met(&self, outcome: usize) {
        self.0[outcome].fetch_add(1, Relaxed);
    }

    #[track_caller]
    pub(crate) fn all(&self, outcomes: usize) {
        let counts: Vec<usize> = self.0[..outcomes].iter().map(|count| count.load(Relaxed)).collect();
        assert!(!counts.contains(&0), "an outcome was never met, so nothing was proved about it: {counts:?}");
    }
}

/// What the slot of a candle index may show, phase by phase: its state, and the edition of its row, 0 without one.
pub(crate) type Life = &'static [(RowState, u64)];

/// Asserts that a row is in one of the given phases of its life, at the earliest in number `earliest`.
#[track_caller]
pub(crate) fn in_life(seen: Seen, life: &[(RowState, u64)], earliest: usize) {
    let phase = life.iter().rposition(|&(state, edition)| (state, edition) == (seen.state, seen.edition));
    assert!(phase.is_some_and(|phase| phase >= earliest), "{seen:?} is not in {:?}", &life[earliest..]);
}
