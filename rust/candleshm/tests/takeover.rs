//! Who owns a block: races for a name, what a dead collector leaves, and what may be removed.

mod scratch;

use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::thread;

use candleshm::block::Block;
use candleshm::columns::Row;
use candleshm::error::{Corruption, Error};
use candleshm::layout::{ABI, BlockState, MAGIC, PAGE_BYTES, RowState, SYMBOL_BYTES, Tag, header, slot, symbol};
use candleshm::merge::RequestWindow;
use candleshm::read::SeriesReader;
use candleshm::removal;
use candleshm::shared_memory;
use candleshm::writer::{Config, Owner, Writer};

use scratch::{BOOT_ID, Scratch, config, owner};

const OPEN_MS: i64 = 1_735_689_600_000;

fn open(scratch: &Scratch, config: &Config) -> Result<Writer, Error> {
    Writer::open(scratch.name(), config, owner())
}

fn read(scratch: &Scratch) -> Result<Block, Error> {
    Block::open(scratch.name(), BOOT_ID)
}

/// Merges one closed candle, so that there is something to lose.
fn fill(writer: &mut Writer) {
    let row: Row = [OPEN_MS as f64, 1.0, 2.0, 0.5, 1.5, 10.0, (OPEN_MS + 59_999) as f64, 15.0, 3.0, 5.0, 7.0, 0.0];
    let window = RequestWindow {
        sent_ms: OPEN_MS + 61_000,
        received_ms: OPEN_MS + 61_000,
        settle_ms: 1_000,
        limit: 2,
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    };
    writer.ingest(0, &[row], &window, 1);
}

fn last_close(block: &Block) -> f64 {
    SeriesReader::new(block, 0).last_close()
}

/// Stores a word behind everybody's back.
fn poke(scratch: &Scratch, word: usize, value: u64) {
    let file = std::fs::File::options().write(true).open(scratch.path()).expect("the file is there");
    file.write_all_at(&value.to_le_bytes(), 8 * word as u64).expect("the file is long enough");
}

/// What stands under a name before several collectors open it at once.
#[derive(Debug, Clone, Copy)]
enum Before {
    Nothing,
    SameShape,
    OtherShape,
    Closed,
}

impl Before {
    fn prepare(self, scratch: &Scratch) {
        match self {
            Self::Nothing => {}
            Self::SameShape => drop(open(scratch, &config(4, &["A"])).expect("a new block")),
            Self::OtherShape => drop(open(scratch, &config(5, &["A"])).expect("a new block")),
            Self::Closed => {
                let writer = open(scratch, &config(4, &["A"])).expect("a new block");
                writer.close(false).expect("closing without unlinking cannot fail");
            }
        }
    }
}

#[test]
fn one_of_many_threads_gets_the_block() {
    for round in 0..40 {
        let before = [Before::Nothing, Before::SameShape, Before::OtherShape, Before::Closed][round % 4];
        let scratch = Scratch::new("race");
        before.prepare(&scratch);
        let barrier = Barrier::new(8);
        let results: Vec<Result<Writer, Error>> = thread::scope(|scope| {
            let race = || {
                barrier.wait();
                open(&scratch, &config(4, &["A"]))
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
            threads.into_iter().map(|thread| thread.join().expect("opening never panics")).collect()
        });
        let (winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(winners.len(), 1, "{before:?}");
        for loser in losers {
            assert!(matches!(loser, Err(Error::InUse { .. })), "{before:?} {:?}", loser.err());
        }
        assert_eq!(scratch.files(), [scratch.name()], "{before:?}");
        assert_eq!(read(&scratch).expect("the winner's block is ready").state(), Some(BlockState::Ready));
        for winner in winners {
            winner.expect("a winner").close(true).expect("the name can be removed");
        }
        assert!(scratch.files().is_empty(), "{before:?}");
    }
}

#[test]
fn takeover_keeps_the_rows() {
    let scratch = Scratch::new("takeover");
    let mut writer = open(&scratch, &config(4, &["A", "B"])).expect("a new block");
    assert!(!writer.is_taken_over());
    fill(&mut writer);
    let block = read(&scratch).expect("it is ready");
    let generation = block.value(header::GENERATION);
    drop(writer);
    // The order of the symbols is the block's.
    let writer = open(&scratch, &config(4, &["B", "A"])).expect("a takeover");
    assert!(writer.is_taken_over());
    assert_eq!(writer.index_of("A"), Ok(0));
    assert_eq!(last_close(&block), 1.5);
    assert_eq!(block.value(header::GENERATION), generation);
    assert_eq!(block.state(), Some(BlockState::Ready));
}

#[test]
fn symbols_grow_within_the_places_reserved_for_them() {
    let scratch = Scratch::new("symbols");
    let spare = Config { spare_symbols: 1, ..config(4, &["A"]) };
    let mut writer = open(&scratch, &spare).expect("a new block");
    fill(&mut writer);
    drop(writer);
    let writer = open(&scratch, &config(4, &["A", "B"])).expect("a takeover");
    assert!(writer.is_taken_over());
    assert_eq!((writer.block().symbol_count(), writer.index_of("B")), (2, Ok(1)));
    drop(writer);

    for (symbols, why) in [(&["A"][..], "one less"), (&["A", "B", "C"], "one too many"), (&["A", "C"], "another")] {
        let old = open(&scratch, &config(4, &["A", "B"])).expect("whatever it was before");
        drop(old);
        let before = read(&scratch).expect("it is ready");
        let writer = open(&scratch, &config(4, symbols)).expect("a new block");
        assert!(!writer.is_taken_over(), "{why}");
        assert_eq!(before.state(), Some(BlockState::Superseded), "{why}");
        drop(writer);
    }
}

#[test]
fn rows_of_another_exchange_do_not_come_along() {
    let scratch = Scratch::new("exchange");
    let of = |exchange: &str| Config { exchange: exchange.into(), ..config(4, &["A"]) };
    fill(&mut open(&scratch, &of("127.0.0.1:8400")).expect("a new block"));
    let simulated = read(&scratch).expect("it is ready");
    // A collector of the same one goes on with it, and one that does not say whose candles it has.
    for exchange in ["127.0.0.1:8400", ""] {
        assert!(open(&scratch, &of(exchange)).expect("a takeover").is_taken_over());
        assert_eq!(simulated.exchange(), "127.0.0.1:8400");
    }
    // Neither as it is nor in another shape.
    for length in [4, 8] {
        let writer = open(&scratch, &Config { length, ..of("binance") }).expect("a new block");
        assert_eq!((writer.is_taken_over(), writer.carried_rows()), (false, 0));
        assert_eq!(writer.block().exchange(), "binance");
        drop(writer);
        fill(&mut open(&scratch, &Config { length, ..of("127.0.0.1:8400") }).expect("a new block"));
    }
}

#[test]
fn of_a_long_name_the_beginning_counts() {
    let scratch = Scratch::new("long-exchange");
    let long = format!("{}ü.example:8400", "h".repeat(63));
    let of = |exchange: &str| Config { exchange: exchange.into(), ..config(4, &["A"]) };
    drop(open(&scratch, &of(&long)).expect("a new block"));
    let writer = open(&scratch, &of(&long)).expect("a takeover");
    assert!(writer.is_taken_over());
    assert_eq!(writer.block().exchange(), "h".repeat(63));
}

#[test]
fn a_name_cut_short_by_a_death_is_written_again() {
    let scratch = Scratch::new("halfname");
    drop(open(&scratch, &Config { spare_symbols: 1, ..config(4, &["A"]) }).expect("a new block"));
    // A collector died after the words of the second name and before the count.
    let name = (PAGE_BYTES + SYMBOL_BYTES) / 8 + symbol::NAME;
    for (index, text) in [b"1000SHIB", b"USDT_260", b"925\0\0\0\0\0"].into_iter().enumerate() {
        poke(&scratch, name + index, u64::from_le_bytes(*text));
    }
    let writer = open(&scratch, &config(4, &["A", "DOGEUSDT"])).expect("a takeover");
    assert!(writer.is_taken_over());
    assert_eq!(writer.block().symbol(1), "DOGEUSDT");
}

#[test]
fn a_block_of_another_size_than_its_header_says() {
    let scratch = Scratch::new("size");
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    let file = std::fs::File::options().write(true).open(scratch.path()).expect("the file is there");
    let whole = file.metadata().expect("it is open").len();
    for bytes in [whole - 8, whole + 8, PAGE_BYTES as u64, 2 * whole] {
        file.set_len(bytes).expect("it is ours");
        let what = Corruption::Truncated { bytes: bytes as usize };
        let wanted = Some(Error::Corrupt { name: scratch.name().into(), what });
        assert_eq!(read(&scratch).err(), wanted);
        assert_eq!(open(&scratch, &config(4, &["A"])).err(), wanted);
    }
    file.set_len(whole).expect("it is ours");
    assert!(read(&scratch).is_ok());
}

/// Word of the tag of `candle_index` of the first symbol, in a block of one or two symbols.
fn tag_word(block: &Block, candle_index: u64) -> usize {
    block.geometry().data_offset_words() + candle_index as usize % block.geometry().ring.capacity
}

#[test]
fn slots_taken_by_an_advance_that_was_cut_short_go_back_to_their_bars() {
    let scratch = Scratch::new("cutadvance");
    let mut writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    fill(&mut writer);
    let head = writer.block().value(PAGE_BYTES / 8 + symbol::SLOTS + symbol::SLOT_WORDS);
    let capacity = writer.block().geometry().ring.capacity as u64;
    drop(writer);
    // A collector died in an outage's advance beyond the ring: behind the tags, and before it was published.
    let block = read(&scratch).expect("it is ready");
    assert_eq!(block.series(0).tag(head - 1).candle_index(), head - 1);
    poke(&scratch, PAGE_BYTES / 8 + symbol::WMARK, head + capacity);
    poke(&scratch, tag_word(&block, head - 1), Tag::new(head - 1 + capacity, 0, RowState::Missing).0);

    let mut writer = open(&scratch, &config(4, &["A"])).expect("a takeover");
    assert!(writer.is_taken_over());
    // The exchange says twice that it never had that row.
    let window = |sent_ms| RequestWindow {
        sent_ms,
        received_ms: sent_ms,
        settle_ms: 1_000,
        limit: 2,
        start_ms: Some(OPEN_MS),
        end_ms: Some(OPEN_MS + 59_999),
        from_end: false,
        patience_ms: 0,
    };
    for later_ms in [0, 2_000] {
        writer.ingest(0, &[], &window(OPEN_MS + 90_000 + later_ms), 1);
    }
    let gaps = writer.gaps(0).expect("nobody else writes");
    assert_eq!(gaps.last().map(|gap| (gap.end, gap.hole)), Some((head, true)));
    assert_eq!(block.value(header::HOLES), 1);
    assert_eq!(block.series(0).tag(head - 1).candle_index(), head - 1);
}

#[test]
fn of_a_series_that_was_never_published_no_first_bar_is_believed() {
    let scratch = Scratch::new("firstbar");
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    poke(&scratch, PAGE_BYTES / 8 + symbol::FIRST_BAR, u64::from(u32::MAX) - 1);
    let mut writer = open(&scratch, &config(4, &["A"])).expect("a takeover");
    assert!(writer.is_taken_over());
    fill(&mut writer);
    let view = SeriesReader::new(writer.block(), 0).view(4).expect("nobody else writes");
    assert_eq!(view.count, 4, "what came is shown");
}

#[test]
fn a_damaged_body_is_not_taken_over() {
    let entry = PAGE_BYTES / 8;
    let seqlock = entry + symbol::SLOTS + symbol::SLOT_WORDS;
    let (far, twice) = (u64::from(u32::MAX) - 1, u64::from_le_bytes(*b"A\0\0\0\0\0\0\0"));
    for (word, value, what) in [
        (seqlock + slot::HEAD, far, "a head that no row stands for"),
        (seqlock + slot::STATE_REVISION, 9, "a newest row in no state"),
        (seqlock + slot::ROW, 0, "a newest row of another time"),
        (entry + symbol::WMARK, 3, "a watermark below the head"),
        (entry + symbol::WMARK, u64::MAX, "a watermark beyond all candle_indices"),
        (entry + symbol::FIRST_BAR, far, "a first candle_index behind the head"),
        (entry + SYMBOL_BYTES / 8 + symbol::NAME, twice, "a name that is there twice"),
        (header::UNIVERSE_BAR, far, "a candle_index settled by all that none has"),
        (header::ABI, ABI + (1 << 32), "a later minor, whose words we would not keep true"),
    ] {
        let scratch = Scratch::new("damaged");
        let mut writer = open(&scratch, &config(4, &["A", "B"])).expect("a new block");
        fill(&mut writer);
        drop(writer);
        let block = read(&scratch).expect("it is ready");
        poke(&scratch, word, value);
        let mut writer = open(&scratch, &config(4, &["A", "B"])).expect("a new block");
        assert!(!writer.is_taken_over(), "{what}");
        assert_eq!(block.state(), Some(BlockState::Superseded), "{what}");
        fill(&mut writer);
        assert_eq!(last_close(&read(&scratch).expect("it is ready")), 1.5, "{what}");
    }
}

#[test]
fn readers_accept_a_later_minor() {
    let scratch = Scratch::new("minor");
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    poke(&scratch, header::ABI, ABI | 7 << 32);
    assert_eq!(read(&scratch).expect("what is new may be ignored").symbol(0), "A");
}

#[test]
fn the_number_of_a_process_says_nothing_about_who_owns_a_block() {
    let scratch = Scratch::new("pid");
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    // The dead owner's number went to another process, which lives.
    for pid in [1, std::process::id().into(), u64::MAX] {
        poke(&scratch, header::PID, pid);
        let writer = open(&scratch, &config(4, &["A"])).expect("a takeover");
        assert!(writer.is_taken_over());
        assert_eq!(writer.block().value(header::PID), u64::from(std::process::id()));
    }
    poke(&scratch, header::PID, 1);
    removal::unlink(scratch.name()).expect("nobody serves it");
}

#[test]
fn a_block_under_construction_is_not_attached_to_and_not_taken_over() {
    let scratch = Scratch::new("half");
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    for state in [0, BlockState::Init as u64, 5, u64::MAX] {
        poke(&scratch, header::STATE, state);
        assert_eq!(read(&scratch).err(), Some(Error::NotReady { name: scratch.name().into() }), "{state}");
    }
    let writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    assert!(!writer.is_taken_over());
    assert!(read(&scratch).is_ok());
}

#[test]
fn a_new_block_that_never_got_its_name_goes_with_the_next_owner_or_with_the_block() {
    // What a collector leaves that dies between link and rename: a whole block that nobody can attach to.
    let leave = |scratch: &Scratch| {
        let next = format!("/dev/shm/.{}.next", scratch.name());
        std::fs::copy(scratch.path(), next).expect("/dev/shm can be written");
        poke(scratch, header::STATE, BlockState::Superseded as u64);
    };
    let scratch = Scratch::new("next");
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    leave(&scratch);
    removal::unlink(scratch.name()).expect("nobody serves it");
    assert!(scratch.files().is_empty());

    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    leave(&scratch);
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    assert_eq!(scratch.files(), [scratch.name()]);

    leave(&scratch);
    std::fs::remove_file(scratch.path()).expect("somebody cleans up by hand");
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    assert_eq!(scratch.files(), [scratch.name()]);
}

#[test]
fn another_shape_supersedes_and_readers_follow() {
    let scratch = Scratch::new("supersede");
    let mut writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    fill(&mut writer);
    drop(writer);
    let old = read(&scratch).expect("it is ready");
    let close_seq = old.value(header::CLOSE_SEQ);
    let writer = open(&scratch, &config(5, &["A"])).expect("a new block");
    assert!(!writer.is_taken_over());
    assert_eq!(old.state(), Some(BlockState::Superseded));
    assert_eq!(last_close(&old), 1.5, "what was mapped stays readable");
    assert!(old.value(header::CLOSE_SEQ) > close_seq, "those who wait are woken to follow");
    let new = read(&scratch).expect("the name leads to the new block");
    assert_eq!(new.value(header::GENERATION), old.value(header::GENERATION) + 1);
    assert_eq!(new.geometry().ring.length, 5);
    assert_eq!(last_close(&new), 1.5, "the rows came along");
    assert_eq!(scratch.files(), [scratch.name()]);
}

#[test]
fn a_superseding_that_was_cut_short_is_done_again() {
    let scratch = Scratch::new("cutshort");
    drop(open(&scratch, &config(4, &["A"])).expect("a new block"));
    poke(&scratch, header::STATE, BlockState::Superseded as u64);
    std::fs::write(format!("/dev/shm/.{}.next", scratch.name()), b"half").expect("/dev/shm can be written");
    assert_eq!(read(&scratch).expect("readers go on with it").state(), Some(BlockState::Superseded));
    let writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    assert!(!writer.is_taken_over());
    assert_eq!(writer.block().value(header::GENERATION), 2);
    assert_eq!(scratch.files(), [scratch.name()]);
}

#[test]
fn a_closed_block_is_not_taken_over() {
    let scratch = Scratch::new("closed");
    let writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    let block = read(&scratch).expect("it is ready");
    writer.close(false).expect("closing without unlinking cannot fail");
    assert_eq!(block.state(), Some(BlockState::Closed));
    let writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    assert!(!writer.is_taken_over());
    assert_eq!(block.state(), Some(BlockState::Superseded), "its readers learn where to look");
    assert_eq!(read(&scratch).expect("it is ready").value(header::GENERATION), 2);
}

#[test]
fn a_block_from_before_the_last_boot_is_replaced() {
    let scratch = Scratch::new("boot");
    let before = Owner { boot_id: [1, 2], ..owner() };
    drop(Writer::open(scratch.name(), &config(4, &["A"]), before).expect("a new block"));
    assert_eq!(read(&scratch).err(), Some(Error::Leftover { name: scratch.name().into() }));
    let writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    assert!(!writer.is_taken_over());
    assert!(read(&scratch).is_ok());
}

#[test]
fn a_full_memory_is_a_clean_error() {
    let limit = rustix::fs::statvfs("/dev/shm").expect("it is there");
    let huge = Config { length: 100_000, spare_symbols: 16_383, ..config(4, &["A"]) };
    if limit.f_blocks == 0 || limit.f_blocks * limit.f_frsize > 300 << 30 {
        // Without a limit the kernel would really try: nothing to see here.
        return;
    }
    let scratch = Scratch::new("full");
    let no_memory = |result: Result<Writer, Error>| matches!(result, Err(Error::NoMemory { .. }));
    assert!(no_memory(open(&scratch, &huge)));
    assert!(scratch.files().is_empty());

    // An old block is given up only once the new one stands.
    let mut writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    fill(&mut writer);
    drop(writer);
    assert!(no_memory(open(&scratch, &huge)));
    let writer = open(&scratch, &config(4, &["A"])).expect("a takeover");
    assert!(writer.is_taken_over());
    assert_eq!(last_close(writer.block()), 1.5);
}

#[test]
fn names_that_cannot_be() {
    for name in ["", ".hidden", "a/b", "..", "a b", "ä", &"x".repeat(201)] {
        assert_eq!(shared_memory::check_name(name), Err(Error::Name { name: name.into() }));
        assert!(matches!(Writer::open(name, &config(4, &["A"]), owner()), Err(Error::Name { .. })));
        assert!(matches!(removal::unlink(name), Err(Error::Name { .. })));
    }
    assert_eq!(shared_memory::check_name(&"x".repeat(200)), Ok(()));
}

#[test]
fn only_blocks_nobody_serves_are_removed() {
    let scratch = Scratch::new("unlink");
    assert_eq!(removal::unlink(scratch.name()), Err(Error::NotFound { name: scratch.name().into() }));
    let writer = open(&scratch, &config(4, &["A"])).expect("a new block");
    let in_use = Error::InUse { name: scratch.name().into(), pid: std::process::id().into() };
    assert_eq!(removal::unlink(scratch.name()), Err(in_use));
    let block = read(&scratch).expect("it is still there");
    drop(writer);
    removal::unlink(scratch.name()).expect("its owner is dead");
    assert!(scratch.files().is_empty());
    assert_eq!(block.symbol(0), "A", "what was mapped stays readable");
}

#[test]
fn foreign_and_truncated_files() {
    let scratch = Scratch::new("foreign");
    let corrupt = |what| Error::Corrupt { name: scratch.name().into(), what };
    let whole_page = vec![0x5a_u8; PAGE_BYTES];
    for bytes in [&b""[..], b"CAND", &whole_page] {
        std::fs::write(scratch.path(), bytes).expect("/dev/shm can be written");
        assert_eq!(removal::unlink(scratch.name()), Err(corrupt(Corruption::Foreign)));
        assert_eq!(read(&scratch).err(), Some(corrupt(Corruption::Foreign)));
        assert_eq!(open(&scratch, &config(4, &["A"])).err(), Some(corrupt(Corruption::Foreign)));
        assert_eq!(std::fs::read(scratch.path()).expect("it was left alone"), bytes);
    }
    let truncated = [MAGIC.to_le_bytes(), [0; 8]].concat();
    std::fs::write(scratch.path(), &truncated).expect("/dev/shm can be written");
    assert_eq!(open(&scratch, &config(4, &["A"])).err(), Some(corrupt(Corruption::Truncated { bytes: 16 })));
    removal::unlink(scratch.name()).expect("it is a block, if only the beginning of one");
    assert!(scratch.files().is_empty());

    std::os::unix::fs::symlink("/dev/null", scratch.path()).expect("/dev/shm can be written");
    assert_eq!(open(&scratch, &config(4, &["A"])).err(), Some(corrupt(Corruption::NotAFile)), "links are not followed");
}

#[test]
fn an_owner_whose_name_went_to_another_block_leaves_that_alone() {
    let scratch = Scratch::new("renamed");
    let first = open(&scratch, &config(4, &["A"])).expect("a new block");
    std::fs::remove_file(scratch.path()).expect("somebody cleans up by hand");
    let second = open(&scratch, &config(4, &["A"])).expect("a new block");
    first.close(true).expect("there is nothing to remove");
    assert_eq!(scratch.files(), [scratch.name()]);
    second.close(true).expect("the name can be removed");
    assert!(scratch.files().is_empty());
}
