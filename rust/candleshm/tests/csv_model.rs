//! The reader of archive files against a slow and obvious one: well-formed files, truncated ones, mutated ones, and any
//! bytes at all. `rust/fuzz` asks the same with a fuzzer's files.

#[path = "csv_model/obvious.rs"]
mod obvious;

use candleshm::columns::COLUMNS;
use candleshm::wire::archive_csv::{HEADER, parse_csv};
use proptest::prelude::*;

use obvious::agree;

/// Fields: numbers of every form.
fn fields() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[0-9]{1,12}\\.[0-9]{1,8}",
        4 => "[0-9]{1,19}",
        1 => "[+-]?([0-9]{1,22}\\.?[0-9]{0,12}|\\.[0-9]{1,25})([eE][+-]?[0-9]{1,3})?",
        1 => "[+-]?(nan|inf)",
    ]
}

/// Well-formed files of up to four lines, with and without a header, a last line feed, and carriage returns.
fn files() -> impl Strategy<Value = String> {
    let line = ("1[0-9]{12,15}", prop::collection::vec(fields(), COLUMNS - 1))
        .prop_map(|(time, values)| format!("{time},{}", values.join(",")));
    (any::<bool>(), prop::sample::select(&["\n", "\r\n"][..]), any::<bool>(), prop::collection::vec(line, 0..5))
        .prop_map(|(has_header, end, ends, lines)| {
            let mut file = if has_header { format!("{HEADER}{end}") } else { String::new() };
            file += &lines.join(end);
            file + if ends && !lines.is_empty() { end } else { "" }
        })
}

proptest! {
    #[test]
    fn well_formed_files_are_read(file in files()) {
        prop_assert!(parse_csv(file.as_bytes(), &mut Vec::new()).is_ok());
        agree(file.as_bytes());
    }

    #[test]
    fn truncated_files(file in files(), at in any::<prop::sample::Index>()) {
        agree(&file.as_bytes()[..at.index(file.len() + 1)]);
    }

    #[test]
    fn mutated_files(
        file in files(),
        edits in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                0..3_usize,
                prop::collection::vec(prop::sample::select(&b",\"\\.+-eEnai0123456789 \r\n\0\xff"[..]), 0..3),
            ),
            1..3,
        ),
    ) {
        let mut file = file.into_bytes();
        for (at, removed, inserted) in edits {
            let start = at.index(file.len() + 1);
            let end = file.len().min(start + removed);
            file.splice(start..end, inserted);
        }
        agree(&file);
    }

    #[test]
    fn arbitrary_bytes(file in prop::collection::vec(any::<u8>(), 0..64)) {
        agree(&file);
    }
}
