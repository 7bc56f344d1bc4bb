//! The page that describes the weight ledger against the code, and a small pool against its expected bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use candleshm::ledger;
use candleshm::pool::{self, Named, Number, Pool, Whole};

const DOCUMENT: &str = include_str!("../../../docs/ledger-format.md");

/// Returns offset, type and name of each row of a table, with `o` and `e` as owner and entry.
fn rows(table: &str, owner: usize, entry: usize) -> BTreeMap<&'static str, (usize, &'static str)> {
    let (_, behind) = DOCUMENT.split_once(&format!("<!-- {table} -->\n")).expect("the page has the table");
    let (rows, _) = behind.split_once(&format!("<!-- /{table} -->")).expect("the table ends");
    let factor = |text: &str| match text {
        "o" => owner,
        "e" => entry,
        number => number.parse().expect("a number"),
    };
    let offset = |text: &str| text.split(" + ").map(|product| product.split('*').map(factor).product::<usize>()).sum();
    let row = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [place, kind, name, _] = cells[..] else { panic!("four cells: {line}") };
        (name, (offset(place), kind))
    };
    rows.lines().skip(2).map(row).collect()
}

#[test]
fn the_header_is_where_the_page_describes_it() {
    let coded = BTreeMap::from([
        ("magic", (8 * ledger::MAGIC_WORD, "u64")),
        ("version", (8 * ledger::VERSION_WORD, "u64")),
        ("size", (8 * ledger::SIZE_WORD, "u64")),
        ("boot_id", (8 * ledger::BOOT_ID_WORD, "u8[16]")),
        ("changes", (8 * ledger::CHANGES_WORD, "u64")),
        ("changed_by", (8 * ledger::CHANGED_BY_WORD, "u64")),
    ]);
    assert_eq!(rows("header-table", 0, 0), coded);
    for text in [
        format!("format version {}", ledger::VERSION),
        format!("The file has {} bytes", ledger::FILE_BYTES),
        format!("The first copy begins at byte {}", ledger::FIRST_BYTES),
        format!("the second at byte {}", ledger::SECOND_BYTES),
        "offset 2^50 + `token`".to_owned(),
        "1 to 2^48".to_owned(),
    ] {
        assert!(DOCUMENT.contains(&text), "the page lacks: {text}");
    }
    assert_eq!((ledger::OWNERS_START, pool::TOKEN_MAX), (1 << 50, 1 << 48));
    assert_eq!(ledger::MAGIC.to_le_bytes(), *b"cshmwght");
}

#[test]
fn the_words_of_a_pool_are_where_the_page_describes_them() {
    let number = |word: Number| (8 * word.place(), "f64");
    let whole = |word: Whole| (8 * word.place(), "u64");
    for (index, entry) in [(0, 0), (5, 7), (pool::OWNERS_MAX - 1, pool::RING_MAX - 1)] {
        let owner = pool::OWNERS + index * pool::OWNER_WORDS;
        let place = pool::RING + entry * pool::ENTRY_WORDS;
        let coded = BTreeMap::from([
            ("limit", number(pool::LIMIT)),
            ("window", number(pool::WINDOW)),
            ("share", number(pool::SHARE)),
            ("held_until", number(pool::HELD_UNTIL)),
            ("blocked_until", number(pool::BLOCKED_UNTIL)),
            ("reported", number(pool::REPORTED)),
            ("reported_at", number(pool::REPORTED_AT)),
            ("in_flight", number(pool::IN_FLIGHT)),
            ("finished", number(pool::FINISHED)),
            ("oldest", whole(pool::OLDEST)),
            ("count", whole(pool::COUNT)),
            ("reaped_at", number(pool::REAPED_AT)),
            ("queue_until", number(pool::QUEUE_UNTIL)),
            ("burst", number(pool::BURST)),
            ("burst_until", number(pool::BURST_UNTIL)),
            ("common.rate", number(pool::COMMON + pool::RATE)),
            ("common.depth", number(pool::COMMON + pool::DEPTH)),
            ("common.saved", number(pool::COMMON + pool::SAVED)),
            ("common.at", number(pool::COMMON + pool::AT)),
            ("closing.rate", number(pool::CLOSING + pool::RATE)),
            ("closing.depth", number(pool::CLOSING + pool::DEPTH)),
            ("closing.saved", number(pool::CLOSING + pool::SAVED)),
            ("closing.at", number(pool::CLOSING + pool::AT)),
            ("owner.token", whole(owner + pool::TOKEN)),
            ("owner.pid", whole(owner + pool::PID)),
            ("owner.share", number(owner + pool::OWN_SHARE)),
            ("owner.window", number(owner + pool::OWN_WINDOW)),
            ("owner.limit", number(owner + pool::OWN_LIMIT)),
            ("owner.wanted", number(owner + pool::WANTED)),
            ("owner.in_flight", number(owner + pool::OWN_IN_FLIGHT)),
            ("owner.waits_since", number(owner + pool::WAITS_SINCE)),
            ("owner.first_until", number(owner + pool::FIRST_UNTIL)),
            ("entry.until", number(place + pool::UNTIL)),
            ("entry.weight", number(place + pool::WEIGHT)),
        ]);
        assert_eq!(rows("pool-table", index, entry), coded);
    }
    assert_eq!(8 * pool::WORDS, rows("pool-table", 0, pool::RING_MAX)["entry.until"].0, "the ring ends the pool");
}

#[test]
fn a_small_pool_has_the_expected_words() {
    let words: Vec<AtomicU64> = (0..pool::WORDS).map(|_| AtomicU64::new(0)).collect();
    let pool = Pool::new(&words);
    let named = Named { share: 0.5, window: 60.0, limit: 1200.0, closing: 30.0 };
    let token = pool::TOKEN_MAX - 1;
    let place = pool.join(token, 4_000_000_000, (6000.0, 60.0), named, 0.0, 1.0).expect("a free place");
    pool.count_sent(place, 40.0, 2.0, false);
    pool.count_finished(place, 40.0, 3.0, Some(41.0));
    pool.count_sent(place, 2.0, 4.0, false);
    let word = |name: &str| words[rows("pool-table", 0, 0)[name].0 / 8].load(Relaxed);
    let number = |name: &str| f64::from_bits(word(name));
    assert_eq!((word("owner.token"), word("owner.pid")), (token, 4_000_000_000));
    assert_eq!((word("oldest"), word("count")), (0, 1));
    assert_eq!((number("limit"), number("window"), number("share")), (1200.0, 60.0, 0.5));
    assert_eq!((number("in_flight"), number("owner.in_flight"), number("finished")), (2.0, 2.0, 40.0));
    assert_eq!((number("entry.until"), number("entry.weight")), (63.0, 40.0));
    assert_eq!((number("reported"), number("reported_at")), (43.0, 3.0));
    assert_eq!(number("blocked_until"), f64::NEG_INFINITY);
}
