//! Messages between hosts: read as they were written, refused when they are not what was sent.

#[path = "replica/parts.rs"]
mod parts;
mod scratch;

use std::cell::RefCell;

use candleshm::block::Block;
use candleshm::columns::{COLUMNS, OPEN_TIME_MS};
use candleshm::interval::Interval;
use candleshm::layout::{Geometry, RowState};
use candleshm::market::Market;
use candleshm::publish::RingRow;
use candleshm::read::SeriesReader;
use candleshm::replica::message::{
    BYTES_MAX, Builder, HEAD_BYTES, Head, Kind, Message, Query, Record, Refusal, Sender, Shape, Standing, State,
    Update, Wanted,
};
use candleshm::soundness::is_sound;
use candleshm::writer::{Health, Writer};
use parts::{MINUTE_MS, SYMBOLS, any_row, any_update, body_is_harmless, head_of, sealed, text_of, update};
use proptest::prelude::*;
use scratch::{Scratch, config, owner};

const LENGTH: usize = 40;

thread_local! {
    // The writer is dropped before its name goes.
    static TARGET: RefCell<Option<(Scratch, Writer)>> = const { RefCell::new(None) };
}

/// How often each series was published.
fn versions(block: &Block) -> Vec<u64> {
    (0..block.symbol_count()).map(|index| SeriesReader::new(block, index).version()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_is_read_as_it_was_written(
        updates in proptest::collection::vec(any_update(), 0..4),
        numbers in any::<[u64; 8]>(),
        sums in proptest::collection::vec(any::<u64>(), 3),
    ) {
        let geometry = Geometry::new(Market::Spot, Interval::Minute1, LENGTH, 4).expect("a shape");
        let head = Head {
            sequence: numbers[0],
            epoch: numbers[1],
            sent_boot_ns: numbers[2],
            exchange_offset_ms: numbers[3] as i64,
            ..head_of(&geometry, "example", Kind::Answer)
        };
        let mut records: Vec<Record> = updates.into_iter().map(Record::Update).collect();
        records.push(Record::Standing(Standing {
            symbol: "AUSDT".into(),
            phase_days: 2,
            first_bar: 7,
            presence: 2,
            calendar: numbers[4],
            window: 5..45,
            final_end: 44,
            revision: 9,
            received_ms: numbers[5],
            digest: numbers[6],
            newest: numbers[7],
        }));
        for query in [Query::Newest, Query::All, Query::Digest(numbers[0]), Query::Buckets(sums)] {
            records.push(Record::Wanted(Wanted { symbol: "BUSDT".into(), range: 10..40, query }));
        }
        records.push(Record::Shape(Shape {
            market: Market::Spot,
            price: geometry.price,
            grid: geometry.grid(0),
            exchange: "example".into(),
            length: 40,
            symbol_capacity: 4,
            symbols: 2,
        }));
        records.push(Record::State(State {
            source: "a/1".into(),
            health: Health { ready: true, failing: numbers[3], ..Health::default() },
        }));
        let mut builder = Builder::new(&head);
        for record in &records {
            prop_assert!(builder.add(record, &geometry));
        }
        let bytes = builder.finish(true);
        prop_assert_eq!(Head::read(&bytes), Ok(head));
        let read = Message::read(&bytes, &geometry).expect("it is a message");
        prop_assert_eq!(text_of(&read), text_of(&Message { head, records }));
    }

    #[test]
    fn a_message_with_other_bytes_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let geometry = Geometry::new(Market::Spot, Interval::Minute1, LENGTH, 4).expect("a shape");
        let mut builder = Builder::new(&head_of(&geometry, "example", Kind::Changes));
        builder.add(&Record::Update(update(0)), &geometry);
        let mut bytes = builder.finish(true);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Message::read(&bytes, &geometry).is_err());
        bytes.truncate(at);
        prop_assert!(Message::read(&bytes, &geometry).is_err());
    }

    #[test]
    fn bytes_of_any_kind_are_harmless(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        body_is_harmless(&body);
    }

    /// As from a host whose memory is bad: the checksum fits whatever stands there.
    #[test]
    fn bytes_that_cannot_be_true_do_no_harm(
        update in any_update(),
        patches in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        TARGET.with_borrow_mut(|target| {
            let (_, writer) = target.get_or_insert_with(|| {
                let name = Scratch::new("messages");
                let mut writer = Writer::open(name.name(), &config(LENGTH, &SYMBOLS), owner()).expect("it is new");
                writer.follow(1, []);
                (name, writer)
            });
            let geometry = *writer.block().geometry();
            let head = head_of(&geometry, &writer.block().exchange(), Kind::Changes);
            let mut builder = Builder::new(&head);
            builder.add(&Record::Update(update), &geometry);
            let mut bytes = builder.finish(true);
            for (at, value) in patches {
                let at = HEAD_BYTES + at.index(bytes.len() - HEAD_BYTES);
                bytes[at] = value;
            }
            let before = versions(writer.block());
            let applied = writer.apply_message(&sealed(bytes), 0, 9_000_000_000);
            if applied.refused.is_some() {
                assert_eq!(versions(writer.block()), before);
            }
            assert!(is_sound(writer.block()));
            for index in 0..SYMBOLS.len() {
                let words = writer.block().series(index);
                let head = SeriesReader::new(writer.block(), index).marks().expect("nobody writes").head;
                for candle_index in head.saturating_sub(LENGTH as u64)..head {
                    if words.tag(candle_index).is_readable_of(candle_index) {
                        let open_ms = words.row(candle_index)[OPEN_TIME_MS] as i64;
                        assert_eq!(open_ms.div_euclid(MINUTE_MS), candle_index as i64);
                    }
                }
            }
        });
    }
}

#[test]
fn more_rows_than_a_message_holds_come_in_several() {
    let geometry = Geometry::new(Market::Spot, Interval::Minute1, 100_000, 4).expect("a shape");
    let rows: Vec<RingRow> = (1..30_000)
        .map(|candle_index| RingRow {
            candle_index,
            row: any_row(candle_index, [1.5; COLUMNS], true),
            state: RowState::Closed,
        })
        .collect();
    let mut sender = Sender::new(head_of(&geometry, "example", Kind::Changes), &geometry);
    for symbol in 0..2 {
        sender.add(Update { head: 30_000, rows: rows.clone(), ..update(symbol) });
    }
    assert_eq!(sender.rows(), 2 * rows.len());
    let messages = sender.finish();
    assert!(messages.len() > 6);
    let (mut found, mut sequence) = (vec![Vec::new(), Vec::new()], 0);
    for (at, message) in messages.iter().enumerate() {
        assert!(message.len() <= BYTES_MAX);
        let message = Message::read(message, &geometry).expect("it is a message");
        sequence += 1;
        assert_eq!((message.head.sequence, message.head.is_last), (sequence, at + 1 == messages.len()));
        for record in message.records {
            let Record::Update(part) = record else { panic!("another record") };
            let symbol = SYMBOLS.iter().position(|symbol| *symbol == part.symbol).expect("a symbol");
            found[symbol].extend(part.rows);
            assert_eq!(part.has_more, found[symbol].len() < rows.len());
        }
    }
    assert_eq!(found, [rows.clone(), rows]);
}

#[test]
fn a_later_minor_is_read_and_another_major_is_not() {
    let geometry = Geometry::new(Market::Spot, Interval::Minute1, LENGTH, 4).expect("a shape");
    let mut builder = Builder::new(&head_of(&geometry, "example", Kind::Changes));
    builder.add(&Record::Update(update(0)), &geometry);
    let bytes = builder.finish(true);
    let known = Message::read(&bytes, &geometry).expect("it is a message");
    let mut later = bytes.clone();
    later[9] = 7;
    // A field at the end of the record, and a record of a kind that is not known.
    let size = u32::from_le_bytes(later[HEAD_BYTES..HEAD_BYTES + 4].try_into().expect("four bytes")) + 3;
    later[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(&size.to_le_bytes());
    later.extend([1, 2, 3]);
    later.extend([2, 0, 0, 0, 99, 0, 0, 0, 5, 6]);
    assert_eq!(Message::read(&sealed(later), &geometry).map(|message| message.records), Ok(known.records));
    let mut other = bytes;
    other[8] = 2;
    assert_eq!(Message::read(&sealed(other), &geometry), Err(Refusal::Version));
}
