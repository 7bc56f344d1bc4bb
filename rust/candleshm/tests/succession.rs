//! One block after another: what its rows become when a block of another shape takes its place, when its name was
//! removed from outside, and what readers learn.

mod scratch;

use std::os::unix::fs::symlink;

use candleshm::block::Block;
use candleshm::columns::Row;
use candleshm::error::{Corruption, Error};
use candleshm::interval::{Grid, Interval};
use candleshm::layout::RowState::{self, Closed, Hole, Live, Missing, MissingFinal, Verified};
use candleshm::layout::{BlockState, Presence, header, symbol};
use candleshm::market::Market;
use candleshm::merge::RequestWindow;
use candleshm::price::Price;
use candleshm::read::SeriesReader;
use candleshm::removal;
use candleshm::shared_memory;
use candleshm::succession::has_all_of;
use candleshm::writer::{Config, Health, Owner, Writer};

use scratch::{BOOT_ID, Scratch, config, owner};

const MINUTE_MS: i64 = 60_000;
const FIRST_MS: i64 = 1_735_689_600_000;
const LENGTH: usize = 8;

fn row(minute: i64, close: f64) -> Row {
    let open_ms = FIRST_MS + minute * MINUTE_MS;
    [open_ms as f64, 1.0, 9.0, 0.5, close, 10.0, (open_ms + 59_999) as f64, 15.0, 3.0, 5.0, 7.0, 0.0]
}

fn window(sent_ms: i64, limit: usize) -> RequestWindow {
    RequestWindow {
        sent_ms,
        received_ms: sent_ms,
        settle_ms: 0,
        limit,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    }
}

fn open(scratch: &Scratch, config: &Config) -> Writer {
    Writer::open(scratch.name(), config, owner()).expect("nobody serves it")
}

fn read(scratch: &Scratch) -> Block {
    Block::open(scratch.name(), BOOT_ID).expect("it is ready")
}

fn is_put_back(writer: &mut Writer) -> bool {
    let outcomes = writer.keep_names(owner());
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "{outcomes:?}");
    !outcomes.is_empty()
}

/// State and close of each minute from `start` on, as the tags and rows of a block have them.
fn rows_of(block: &Block, index: usize, minutes: std::ops::Range<i64>) -> Vec<(RowState, f64)> {
    let (words, grid) = (block.series(index), block.grid(index));
    minutes
        .map(|minute| {
            let candle_index = grid.index_of(FIRST_MS + minute * MINUTE_MS) as u64;
            let tag = words.tag(candle_index);
            let state = if tag.candle_index() == candle_index { tag.state() } else { RowState::Empty };
            (state, if tag.is_readable_of(candle_index) { words.row(candle_index)[4] } else { 0.0 })
        })
        .collect()
}

fn states_of(block: &Block, index: usize, minutes: std::ops::Range<i64>) -> Vec<RowState> {
    rows_of(block, index, minutes).into_iter().map(|(state, _)| state).collect()
}

/// BTCUSDT: minutes 0 to 9, of which 3 is verified, 4 a hole, 5 missing, 7 provisional, 9 live; received at 17. Minute
/// 2 was corrected. ETHUSDT is empty.
fn filled(scratch: &Scratch) -> Writer {
    let mut writer = open(scratch, &config(LENGTH, &["BTCUSDT", "ETHUSDT"]));
    fill(&mut writer);
    writer
}

fn fill(writer: &mut Writer) {
    let mut kept: Vec<(Row, RowState)> = (0..7).map(|minute| (row(minute, 2.0), Closed)).collect();
    kept[3].1 = Verified;
    kept.drain(4..6);
    writer.load(0, &kept, FIRST_MS + 7 * MINUTE_MS);
    let (start_ms, end_ms) = (Some(FIRST_MS + 4 * MINUTE_MS), Some(FIRST_MS + 5 * MINUTE_MS - 1));
    for sent_ms in [1, 2].map(|seconds| FIRST_MS + 7 * MINUTE_MS + seconds * 1000) {
        writer.ingest(0, &[], &RequestWindow { start_ms, end_ms, ..window(sent_ms, 2) }, 10);
    }
    // Requested in the middle of minute 7, which no later response holds.
    writer.ingest(0, &[row(7, 2.5)], &window(FIRST_MS + 7 * MINUTE_MS + 30_000, 1), 11);
    writer.ingest(
        0,
        &[row(2, 3.0)],
        &RequestWindow { end_ms: Some(FIRST_MS + 2 * MINUTE_MS), ..window(FIRST_MS + 8 * MINUTE_MS, 1) },
        12,
    );
    writer.ingest(0, &[row(8, 2.0), row(9, 4.0)], &window(FIRST_MS + 9 * MINUTE_MS + 10_000, 2), 17);
}

const FILLED: [RowState; 9] = [Closed, Closed, Closed, Verified, Hole, Missing, Closed, Live, Closed];

#[test]
fn rows_come_along_into_blocks_of_another_length_as_they_were() {
    for (length, oldest) in [(LENGTH + 3, 1), (LENGTH - 3, 4)] {
        let scratch = Scratch::new("carry-length");
        drop(filled(&scratch));
        let old = read(&scratch);
        assert_eq!(states_of(&old, 0, 0..9), FILLED);
        let writer = open(&scratch, &config(length, &["BTCUSDT", "ETHUSDT"]));
        assert!(!writer.is_taken_over());
        let new = writer.block();
        let oldest_at = oldest as usize;
        assert_eq!(rows_of(new, 0, oldest..9), rows_of(&old, 0, oldest..9), "{length}");
        let (before, after) = (SeriesReader::new(&old, 0), SeriesReader::new(new, 0));
        assert_eq!(
            after.marks().map(|marks| (marks.head, marks.final_end, marks.state, marks.revision)),
            before.marks().map(|marks| (marks.head, marks.final_end, marks.state, marks.revision))
        );
        assert_eq!(before.marks().map(|marks| marks.revision), Ok(1));
        assert_eq!(after.received_ms(), 17, "an old response stays old");
        assert_eq!(after.last_close().to_bits(), 4.0_f64.to_bits());
        let missing = FILLED[oldest_at..].iter().filter(|&&state| state == Missing).count();
        // Of a longer window the rows below the old one were never requested.
        let below = (length as i64 - LENGTH as i64).max(0) as usize;
        assert_eq!(writer.report(0).missing, missing + below - usize::from(below > 0), "{length}");
        // Of the shorter one it is the oldest row, which nobody is shown beside the live row.
        assert_eq!(new.value(header::HOLES), u64::from(length > LENGTH));
        assert_eq!(writer.report(1).newest_open_ms, None);
        assert!(has_all_of(new, &old), "{length}");
        assert_eq!(old.state(), Some(BlockState::Superseded));
    }
}

#[test]
fn a_carried_provisional_row_is_closed_by_a_response_and_by_nothing_else() {
    let scratch = Scratch::new("carry-provisional");
    drop(filled(&scratch));
    let mut writer = open(&scratch, &config(LENGTH + 1, &["BTCUSDT"]));
    assert_eq!(states_of(writer.block(), 0, 7..8), [Live]);
    assert_eq!(writer.report(0).unsettled_open_ms, Some(FIRST_MS + 7 * MINUTE_MS));
    let sent_ms = FIRST_MS + 10 * MINUTE_MS;
    writer.ingest(0, &[row(7, 5.0), row(8, 2.0), row(9, 6.0)], &window(sent_ms, 3), 20);
    assert_eq!(rows_of(writer.block(), 0, 7..10), [(Closed, 5.0), (Closed, 2.0), (Closed, 6.0)]);
}

#[test]
fn rows_follow_their_symbols_into_a_block_of_others() {
    let scratch = Scratch::new("carry-symbols");
    drop(filled(&scratch));
    let old = read(&scratch);
    let writer = open(&scratch, &config(LENGTH, &["SOLUSDT", "ETHUSDT", "BTCUSDT"]));
    assert_eq!(writer.carried_rows(), 7, "six rows of the ring and the live one");
    assert_eq!(states_of(writer.block(), 2, 1..9), FILLED[1..]);
    assert_eq!(writer.report(0).newest_open_ms, None);
    assert!(has_all_of(writer.block(), &old));
    drop(writer);
    // A block that does not carry the symbol any more says nothing about it.
    let without = open(&scratch, &config(LENGTH, &["SOLUSDT"]));
    assert!(has_all_of(without.block(), &old));
    assert_eq!(without.carried_rows(), 0);
}

#[test]
fn a_final_row_whose_rewrite_was_cut_stays_known_as_one() {
    let scratch = Scratch::new("carry-cut");
    drop(filled(&scratch));
    let old = read(&scratch);
    let candle_index = old.grid(0).index_of(FIRST_MS + 8 * MINUTE_MS) as u64;
    let place = old.geometry().data_offset_words() + candle_index as usize % old.geometry().ring.capacity;
    let tag = old.series(0).tag(candle_index).with_state(MissingFinal);
    let file = std::fs::File::options().write(true).open(scratch.path()).expect("the file is there");
    std::os::unix::fs::FileExt::write_all_at(&file, &tag.0.to_le_bytes(), 8 * place as u64).expect("it is long enough");
    let writer = open(&scratch, &config(LENGTH + 1, &["BTCUSDT"]));
    assert_eq!(states_of(writer.block(), 0, 7..9), [Live, MissingFinal]);
}

#[test]
fn what_are_not_the_same_candles_does_not_come_along() {
    let hours = Config { interval: Interval::Hour1, ..config(LENGTH, &["BTCUSDT"]) };
    let futures = Config { market: Market::Um, ..config(LENGTH, &["BTCUSDT"]) };
    let marks = Config { price: Price::Mark, ..futures.clone() };
    let indices = Config { price: Price::Index, ..futures.clone() };
    let spot = config(LENGTH, &["BTCUSDT"]);
    for (own, other) in [(&spot, &hours), (&spot, &futures), (&futures, &marks), (&marks, &futures), (&marks, &indices)]
    {
        let scratch = Scratch::new("carry-other");
        fill(&mut open(&scratch, own));
        let old = read(&scratch);
        let writer = open(&scratch, other);
        assert!(!writer.is_taken_over());
        assert_eq!((writer.carried_rows(), writer.report(0).newest_open_ms), (0, None));
        assert!(!has_all_of(writer.block(), &old));
    }
    // Nor does what nobody can vouch for: a damaged body, or times of another boot.
    let scratch = Scratch::new("carry-damaged");
    drop(filled(&scratch));
    let overwrite_mark = candleshm::layout::PAGE_BYTES / 8 + symbol::WMARK;
    let file = std::fs::File::options().write(true).open(scratch.path()).expect("the file is there");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 8], 8 * overwrite_mark as u64).expect("it is long enough");
    assert_eq!(open(&scratch, &config(LENGTH + 1, &["BTCUSDT"])).carried_rows(), 0);
    let scratch = Scratch::new("carry-boot");
    drop(filled(&scratch));
    let later = Owner { boot_id: [3, 4], ..owner() };
    let writer = Writer::open(scratch.name(), &config(LENGTH + 1, &["BTCUSDT"]), later).expect("nobody serves it");
    assert_eq!(writer.carried_rows(), 0);
}

#[test]
fn derived_rows_come_along_too() {
    let target = Grid::new(Interval::Minute3);
    let scratch = Scratch::new("carry-derived");
    let name = format!("{}-3m", scratch.name());
    let mut writer = open(&scratch, &config(LENGTH, &["BTCUSDT", "ETHUSDT"]));
    writer.derive(&name, target, LENGTH, owner()).expect("nobody serves it");
    fill(&mut writer);
    drop(writer);
    let old = Block::open(&name, BOOT_ID).expect("it is ready");
    // Minutes 0 to 2 have left the source's window, so nobody can derive this candle again.
    let first = old.grid(0).index_of(FIRST_MS) as u64;
    assert!(old.series(0).tag(first).is_final_of(first));
    let mut writer = open(&scratch, &config(5, &["BTCUSDT", "ETHUSDT"]));
    writer.derive(&name, target, 5, owner()).expect("nobody serves it");
    let new = Block::open(&name, BOOT_ID).expect("it is ready");
    assert_eq!(new.geometry().ring.length, 5);
    assert_eq!(new.series(0).row(first).map(f64::to_bits), old.series(0).row(first).map(f64::to_bits));
    assert!(new.series(0).tag(first).is_final_of(first));
    assert!(has_all_of(&new, &old));
}

#[test]
fn an_enlarged_block_has_every_row_and_knows_what_was_published() {
    let scratch = Scratch::new("enlarge-rows");
    let name = format!("{}-3m", scratch.name());
    let mut writer = filled(&scratch);
    writer.derive(&name, Grid::new(Interval::Minute3), LENGTH, owner()).expect("nobody serves it");
    writer.set_presence(1, Presence::Ended);
    let old = (read(&scratch), Block::open(&name, BOOT_ID).expect("it is ready"));
    let symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"].map(str::to_owned);
    writer.enlarge(&symbols, 2, owner()).expect("there is room");
    let new = (read(&scratch), Block::open(&name, BOOT_ID).expect("it is ready"));
    assert_eq!((new.0.geometry().symbol_capacity, new.1.geometry().symbol_capacity), (5, 5));
    assert_eq!((new.0.symbol_count(), new.1.symbol_count()), (3, 3));
    assert_eq!(rows_of(&new.0, 0, 1..9), rows_of(&old.0, 0, 1..9));
    assert!(has_all_of(&new.0, &old.0) && has_all_of(&new.1, &old.1));
    assert!(new.0.is_trading(0) && !new.0.is_trading(1) && !new.1.is_trading(1) && new.0.is_trading(2));
    assert_eq!(scratch.files().len(), 2);
    // A response older than the one that corrected minute 2 changes nothing, as before.
    let late = RequestWindow { end_ms: Some(FIRST_MS + 2 * MINUTE_MS), ..window(FIRST_MS + 7 * MINUTE_MS, 1) };
    assert_eq!(writer.ingest(0, &[row(2, 1.0)], &late, 18).tally.corrected, 0);
    writer.ingest(0, &[row(9, 4.5)], &window(FIRST_MS + 9 * MINUTE_MS + 20_000, 1), 19);
    assert_eq!(SeriesReader::new(&new.0, 0).last_close().to_bits(), 4.5_f64.to_bits());
    assert_eq!(SeriesReader::new(&new.1, 0).last_close().to_bits(), 4.5_f64.to_bits());
}

#[test]
fn a_removed_name_comes_back_with_every_row() {
    let scratch = Scratch::new("removed");
    let name = format!("{}-3m", scratch.name());
    let mut writer = filled(&scratch);
    writer.derive(&name, Grid::new(Interval::Minute3), LENGTH, owner()).expect("nobody serves it");
    writer.set_health(&Health { ready: true, weight_used: 7, ..Health::default() });
    assert!(!is_put_back(&mut writer), "everything stands where it belongs");
    let (old, old_derived) = (read(&scratch), Block::open(&name, BOOT_ID).expect("it is ready"));
    let before = old.value(header::CLOSE_SEQ);

    std::fs::remove_file(scratch.path()).expect("somebody cleans up");
    assert!(is_put_back(&mut writer));
    let new = read(&scratch);
    assert_eq!(rows_of(&new, 0, 1..9), rows_of(&old, 0, 1..9));
    assert_eq!((new.value(header::READY), new.value(header::WEIGHT_USED)), (1, 7));
    assert_eq!(new.value(header::GENERATION), old.value(header::GENERATION) + 1);
    assert_eq!(old.state(), Some(BlockState::Superseded));
    assert!(old.value(header::CLOSE_SEQ) > before, "who waits is woken to follow");
    assert_eq!(old_derived.state(), Some(BlockState::Ready), "it stands under its name");

    std::fs::remove_file(format!("/dev/shm/{name}")).expect("somebody cleans up");
    std::fs::remove_file(scratch.path()).expect("somebody cleans up");
    assert!(is_put_back(&mut writer) && !is_put_back(&mut writer));
    assert_eq!(scratch.files().len(), 2);
    assert_eq!(old_derived.state(), Some(BlockState::Superseded));
    writer.ingest(0, &[row(9, 4.5)], &window(FIRST_MS + 9 * MINUTE_MS + 20_000, 1), 19);
    let derived = Block::open(&name, BOOT_ID).expect("it is ready");
    assert_eq!(SeriesReader::new(&derived, 0).last_close().to_bits(), 4.5_f64.to_bits());
    assert!(matches!(removal::unlink(scratch.name()), Err(Error::InUse { .. })), "the new block is owned");
    writer.close(true).expect("the names can be removed");
    assert!(scratch.files().is_empty());
}

#[test]
fn a_block_left_by_a_collector_that_took_the_name_and_died_gives_way() {
    let scratch = Scratch::new("rival-dead");
    let mut writer = filled(&scratch);
    std::fs::remove_file(scratch.path()).expect("somebody cleans up");
    drop(open(&scratch, &config(LENGTH, &["BTCUSDT"])));
    let rival = read(&scratch);
    assert!(is_put_back(&mut writer));
    assert_eq!(rival.state(), Some(BlockState::Superseded), "its readers follow");
    assert_eq!(states_of(&read(&scratch), 0, 1..9), FILLED[1..]);
    assert_eq!(scratch.files(), [scratch.name()]);
}

#[test]
fn a_name_that_another_live_collector_has_taken_is_left_to_it() {
    let scratch = Scratch::new("rival");
    let mut writer = filled(&scratch);
    let old = read(&scratch);
    std::fs::remove_file(scratch.path()).expect("somebody cleans up");
    let rival = open(&scratch, &config(LENGTH, &["BTCUSDT"]));
    let named = shared_memory::standing(scratch.name());
    let in_use = Error::InUse { name: scratch.name().into(), pid: std::process::id().into() };
    assert_eq!(writer.keep_names(owner()), [(scratch.name().to_owned(), Err(in_use.clone()))]);
    // Nor is it overrun when the block is to grow.
    let symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"].map(str::to_owned);
    assert_eq!(writer.enlarge(&symbols, 0, owner()), Err(in_use));
    assert_eq!(shared_memory::standing(scratch.name()), named);
    assert_eq!(old.state(), Some(BlockState::Ready));
    writer.close(true).expect("there is nothing to remove");
    assert_eq!(shared_memory::standing(scratch.name()), named);
    rival.close(true).expect("the name can be removed");
}

#[test]
fn what_is_not_ours_is_left_where_it_stands_until_it_goes() {
    let scratch = Scratch::new("foreign-name");
    let mut writer = filled(&scratch);
    let corrupt = |what| vec![(scratch.name().to_owned(), Err(Error::Corrupt { name: scratch.name().into(), what }))];
    let old = read(&scratch);
    let target = format!("{}-target", scratch.path().display());
    std::fs::write(&target, b"").expect("/dev/shm can be written");
    for kind in ["file", "link", "link to ours", "directory"] {
        let path = scratch.path();
        let aside = format!("{}-aside", path.display());
        std::fs::rename(&path, &aside).expect("somebody moves it away");
        match kind {
            "file" => std::fs::write(&path, b"not a block").expect("/dev/shm can be written"),
            "link" => symlink(&target, &path).expect("/dev/shm can be written"),
            "link to ours" => symlink(&aside, &path).expect("/dev/shm can be written"),
            _ => std::fs::create_dir(&path).expect("/dev/shm can be written"),
        }
        let what = if kind == "file" { Corruption::Foreign } else { Corruption::NotAFile };
        for _ in 0..2 {
            assert_eq!(writer.keep_names(owner()), corrupt(what.clone()), "{kind}");
        }
        assert_eq!(states_of(writer.block(), 0, 1..9), FILLED[1..]);
        if kind == "directory" { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }.expect("it goes");
        assert!(is_put_back(&mut writer), "{kind}");
        assert_eq!(states_of(&read(&scratch), 0, 1..9), FILLED[1..], "{kind}");
        std::fs::remove_file(aside).expect("it was moved there");
    }
    assert_eq!(old.state(), Some(BlockState::Superseded));
}

#[test]
fn whatever_stands_where_a_new_block_waits_is_in_nobodys_way() {
    let scratch = Scratch::new("next-taken");
    let waiting = |ending: &str| format!("/dev/shm/.{}.{ending}", scratch.name());
    let mut writer = filled(&scratch);
    std::fs::create_dir(waiting("next")).expect("/dev/shm can be written");
    symlink("/dev/null", waiting("next-1")).expect("/dev/shm can be written");
    let symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"].map(str::to_owned);
    writer.enlarge(&symbols, 0, owner()).expect("it waits elsewhere");
    drop(writer);
    drop(open(&scratch, &config(LENGTH + 1, &["BTCUSDT"])));
    removal::unlink(scratch.name()).expect("nobody serves it");
    std::fs::remove_dir(waiting("next")).expect("it was left alone");
    assert!(!std::fs::exists(waiting("next-1")).expect("/dev/shm can be looked at"));
    assert!(scratch.files().is_empty());
}

#[test]
fn readers_of_a_removed_block_are_informed_and_woken_before_its_name_goes() {
    let scratch = Scratch::new("removed-informed");
    drop(filled(&scratch));
    let block = read(&scratch);
    let before = [header::COMMIT_SEQ, header::CLOSE_SEQ].map(|word| block.value(word));
    let woken = std::thread::scope(|scope| {
        let wait = |word: usize| {
            let seen = block.announced(word) as u32;
            let block = &block;
            scope.spawn(move || {
                while block.announced(word) as u32 == seen {
                    shared_memory::futex_wait(block.header(word), seen, std::time::Duration::from_mins(1));
                }
                block.state()
            })
        };
        let waiting = [wait(header::COMMIT_SEQ), wait(header::CLOSE_SEQ)];
        removal::unlink(scratch.name()).expect("its owner is dead");
        waiting.map(|thread| thread.join().expect("it was woken"))
    });
    assert_eq!(woken, [Some(BlockState::Closed); 2]);
    assert_eq!([header::COMMIT_SEQ, header::CLOSE_SEQ].map(|word| block.value(word)), before.map(|count| count + 1));
    assert_eq!(states_of(&block, 0, 1..9), FILLED[1..], "what was mapped stays readable");
}

#[test]
fn a_block_that_lacks_a_row_or_is_behind_does_not_have_all() {
    let scratch = Scratch::new("lacks");
    drop(filled(&scratch));
    let old = read(&scratch);
    std::fs::remove_file(scratch.path()).expect("somebody cleans up");
    let mut writer = open(&scratch, &config(LENGTH, &["BTCUSDT"]));
    assert!(!has_all_of(writer.block(), &old), "it is empty");
    let rows: Vec<Row> = (1..10).map(|minute| row(minute, 2.0)).collect();
    writer.ingest(0, &rows[..8], &window(FIRST_MS + 8 * MINUTE_MS + 1, 8), 1);
    assert!(!has_all_of(writer.block(), &old), "it is behind");
    writer.ingest(0, &rows[8..], &window(FIRST_MS + 9 * MINUTE_MS + 1, 1), 1);
    assert!(has_all_of(writer.block(), &old));
    let rows: Vec<Row> = [1, 2, 6, 8, 9].map(|minute| row(minute, 2.0)).to_vec();
    std::fs::remove_file(scratch.path()).expect("somebody cleans up");
    let mut writer = open(&scratch, &config(LENGTH, &["BTCUSDT"]));
    writer.ingest(0, &rows, &window(FIRST_MS + 9 * MINUTE_MS + 1, 5), 1);
    assert!(!has_all_of(writer.block(), &old), "it lacks minutes 3 and 7");
}
