//! What was recorded is read back: all of it, up to a cut, or with a mark where records are missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use candleshm::merge::RequestWindow;
use candleshm::writer::Health;
use candleshm_recording::reading::{Reading, Step};
use candleshm_recording::record::{DerivedBlock, Fate, Record, Run, add_text, texts};
use candleshm_recording::recorder::{Place, Recorder};
use proptest::prelude::*;

const PATIENCE: Duration = Duration::from_mins(1);

struct Directory(PathBuf);

impl Directory {
    /// Makes one that no other test of this process has.
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("recfiles-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run() -> Run {
    Run {
        name: "recfiles".into(),
        market: "SPOT".into(),
        price: "trade".into(),
        interval: "1m".into(),
        length: 10,
        symbols: vec!["BTCUSDT".into()],
        capacity: 2,
        exchange: String::new(),
        derived: vec![DerivedBlock { name: "x-5m".into(), interval: "5m".into(), length: 3, fetched: String::new() }],
        offset_ms: -5,
        is_whole: true,
    }
}

fn start(directory: &Path, bytes_max: u64, run_number: u64, queue_bytes: usize) -> Recorder {
    let place = Place { directory: directory.to_owned(), bytes_max, run: run_number };
    Recorder::start_with(place, run(), 1, queue_bytes).unwrap()
}

/// Returns the notes of a recording, the marks of missing records as numbers, and the cuts.
fn read(directory: &Path) -> (Vec<String>, Vec<u64>, Vec<String>) {
    let mut reading = Reading::open(directory).unwrap();
    let (mut notes, mut missing, mut cuts) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match reading.step().unwrap() {
            Step::End => return (notes, missing, cuts),
            Step::Cut(cut) => cuts.push(cut.reason),
            Step::Record => match reading.record().unwrap().1 {
                Record::Note(text) => notes.push(text.to_owned()),
                Record::Missing { records, .. } => missing.push(records),
                _ => {}
            },
        }
    }
}

/// Waits until something is so; the caller asserts nothing about how long that takes.
fn until(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it never came to be so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A text that hardly compresses.
fn noise(number: u64, bytes: usize) -> String {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let digit = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + (state % 90) as u8)
    };
    (0..bytes).map(digit).collect()
}

#[test]
fn all_that_was_recorded_is_read_in_its_order() {
    let directory = Directory::new();
    let recorder = start(&directory.0, 1 << 30, 7, 1 << 20);
    for number in 0..1000 {
        recorder.push(&Record::Note(&number.to_string()), number);
    }
    assert!(recorder.end(1000, PATIENCE));
    assert_eq!(read(&directory.0), ((0..1000).map(|number| number.to_string()).collect(), vec![], vec![]));
}

#[test]
fn a_file_that_was_cut_at_any_byte_is_read_up_to_there() {
    let directory = Directory::new();
    let recorder = start(&directory.0, 1 << 30, 7, 1 << 20);
    for number in 0..40 {
        recorder.push(&Record::Note(&noise(number, 20)), number);
        if number % 10 == 9 {
            let written = recorder.status().written_bytes;
            until(|| recorder.status().written_bytes > written);
        }
    }
    assert!(recorder.end(1000, PATIENCE));
    let (whole, _, _) = read(&directory.0);
    assert_eq!(whole.len(), 40);
    let path = directory.files().remove(0);
    let bytes = fs::read(&path).unwrap();
    let mut read_before = 0;
    for end in 0..bytes.len() {
        fs::write(&path, &bytes[..end]).unwrap();
        let (notes, _, cuts) = read(&directory.0);
        assert_eq!(cuts.len(), 1, "cut at {end}");
        assert_eq!(notes, whole[..notes.len()], "cut at {end}");
        assert!(notes.len() >= read_before, "cut at {end}");
        read_before = notes.len();
    }
    assert!(read_before >= 30);
}

#[test]
fn a_byte_that_was_changed_ends_the_file_there() {
    let directory = Directory::new();
    let recorder = start(&directory.0, 1 << 30, 7, 1 << 20);
    for number in 0..20 {
        recorder.push(&Record::Note(&noise(number, 20)), number);
    }
    assert!(recorder.end(1000, PATIENCE));
    let (whole, _, _) = read(&directory.0);
    let path = directory.files().remove(0);
    let bytes = fs::read(&path).unwrap();
    for place in 8..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        fs::write(&path, &changed).unwrap();
        let (notes, _, _) = read(&directory.0);
        assert_eq!(notes, whole[..notes.len()], "changed at {place}");
    }
}

#[test]
fn the_oldest_files_go_when_all_together_are_too_large() {
    let directory = Directory::new();
    let bytes_max = 400_000;
    let recorder = start(&directory.0, bytes_max, 7, 1 << 20);
    for number in 0..400 {
        recorder.push(&Record::Note(&noise(number, 4000)), number);
        if number % 5 == 4 {
            let written = recorder.status().written_bytes;
            until(|| recorder.status().written_bytes > written);
            let total: u64 = directory.files().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
            assert!(total <= bytes_max, "{total}");
        }
    }
    assert!(recorder.end(1000, PATIENCE));
    assert!(recorder.status().removed_files > 0);
    let (notes, missing, cuts) = read(&directory.0);
    assert_eq!((missing.len(), cuts.len()), (0, 0));
    assert!(notes.len() > 50 && notes.len() < 400);
    assert_eq!(notes, (400 - notes.len() as u64..400).map(|number| noise(number, 4000)).collect::<Vec<_>>());
}

#[test]
fn a_file_that_is_missing_is_told_of_where_it_was() {
    const GONE: &str = "the file after it is missing";
    let directory = Directory::new();
    for run_number in 1..3 {
        let recorder = start(&directory.0, 1 << 20, run_number, 1 << 20);
        for number in 0..12 {
            recorder.push(&Record::Note(&noise(number, 40_000)), number);
            let written = recorder.status().written_bytes;
            until(|| recorder.status().written_bytes > written);
        }
        assert!(recorder.end(1000, PATIENCE));
    }
    let files = directory.files();
    assert!(files.len() > 5);
    assert_eq!(read(&directory.0).2, Vec::<String>::new());
    for (index, path) in files.iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        // Without the oldest one it is a recording of which the oldest files went.
        let gaps = usize::from(index != 0);
        let (_, _, cuts) = read(&directory.0);
        assert_eq!(cuts, vec![GONE; gaps], "{}", path.display());
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn checkpoints_are_due_again_after_a_part_of_the_bound() {
    let directory = Directory::new();
    let recorder = start(&directory.0, 400_000, 7, 1 << 20);
    assert_eq!(recorder.next_checkpoint(10), None);
    for number in 0..50 {
        recorder.push(&Record::Note(&noise(number, 4000)), number);
    }
    until(|| recorder.next_checkpoint(10) == Some(0));
    recorder.checkpointed(0, 2);
    assert_eq!(recorder.next_checkpoint(10), Some(1));
    recorder.checkpointed(1, 2);
    assert_eq!(recorder.next_checkpoint(10), None);
    assert!(recorder.end(1000, PATIENCE));
}

#[test]
fn a_directory_that_is_gone_drops_records_and_the_recording_says_so() {
    let directory = Directory::new();
    let recorder = start(&directory.0, 1 << 30, 7, 20_000);
    recorder.push(&Record::Note("before"), 1);
    until(|| recorder.status().written_bytes > 0);
    fs::remove_dir_all(&directory.0).unwrap();
    recorder.push(&Record::Note("during"), 2);
    until(|| recorder.status().error.is_some());
    for number in 0..100 {
        recorder.push(&Record::Note(&noise(number, 1000)), number);
    }
    let dropped = recorder.status().missing_records;
    assert!(dropped > 50 && dropped < 100);
    fs::create_dir(&directory.0).unwrap();
    until(|| recorder.status().error.is_none() && directory.files().len() == 1);
    until(|| {
        recorder.push(&Record::Note("after"), 3);
        recorder.next_checkpoint(10).is_some()
    });
    assert!(recorder.end(1000, PATIENCE));
    let dropped = recorder.status().missing_records;
    let (notes, missing, cuts) = read(&directory.0);
    assert_eq!(notes[0], "during");
    assert_eq!(notes.last().unwrap(), "after");
    assert_eq!((missing, cuts.len()), (vec![dropped], 0));
}

#[test]
fn a_directory_without_a_recording_is_no_recording() {
    let directory = Directory::new();
    assert!(Reading::open(&directory.0).is_err());
    fs::write(directory.0.join("1.cshmrec"), b"something else entirely, and long enough").unwrap();
    let (_, _, cuts) = read(&directory.0);
    assert_eq!(cuts, ["it does not begin with CSHMREC1"]);
}

fn window() -> impl Strategy<Value = RequestWindow> {
    let numbers = (any::<i64>(), any::<i64>(), any::<i64>(), any::<usize>(), any::<i64>());
    (numbers, any::<Option<i64>>(), any::<Option<i64>>(), any::<bool>()).prop_map(
        |((sent_ms, received_ms, settle_ms, limit, patience_ms), start_ms, end_ms, from_end)| RequestWindow {
            sent_ms,
            received_ms,
            settle_ms,
            limit,
            start_ms,
            end_ms,
            from_end,
            patience_ms,
        },
    )
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(
        boot_ms: u64,
        symbol in "[A-Z]{1,12}",
        derived in "[a-z0-9-]{0,12}",
        window in window(),
        body in prop::collection::vec(any::<u8>(), 0..200),
        numbers in prop::collection::vec(any::<u64>(), 7),
        symbols in prop::collection::vec("[A-Z]{1,12}", 0..5),
        flag: bool,
    ) {
        let (symbol, derived) = (symbol.as_str(), derived.as_str());
        let records = [
            Record::Run(Run { symbols: symbols.clone(), is_whole: flag, ..run() }),
            Record::Response { symbol, derived, window, fate: Fate::Malformed, body: &body },
            Record::Frames { connection: numbers[0], received_ms: numbers[1] as i64, texts: &body },
            Record::Rows { symbol, derived, sent_ms: numbers[0] as i64, rows: &body, states: &body },
            Record::Symbol(symbol),
            Record::Enlarged { symbols, spare: numbers[0] },
            Record::Presence { symbol, presence: 2 },
            Record::Calendar { symbol, calendar: numbers[0], quiet_until_ms: numbers[1] as i64 },
            Record::Restart,
            Record::Clock { offset_ms: numbers[0] as i64 },
            Record::Filled { derived, filled: flag },
            Record::Checkpoint { symbol, derived, words: &body },
            Record::Missing { records: numbers[0], bytes: numbers[1] },
            Record::Note(symbol),
            Record::Health(Health::of(flag, numbers[..7].try_into().expect("seven"))),
            Record::Message {
                led: vec![numbers[2] as u32; (numbers[3] % 3) as usize],
                clock_offset_ns: numbers[0] as i64,
                message: &body,
            },
            Record::Continued,
            Record::End,
        ];
        for record in records {
            let packed = record.pack(boot_ms);
            prop_assert_eq!(Record::unpack(&packed), Some((boot_ms, record)));
            for end in 0..packed.len() {
                prop_assert_eq!(Record::unpack(&packed[..end]), None);
            }
        }
    }

    #[test]
    fn texts_are_read_as_they_were_added(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
        let mut packed = Vec::new();
        for part in &parts {
            add_text(part, &mut packed);
        }
        prop_assert_eq!(texts(&packed), Some(parts.iter().map(Vec::as_slice).collect()));
    }

    #[test]
    fn bytes_that_are_no_record_are_no_record(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::unpack(&bytes);
        let _ = texts(&bytes);
    }
}
