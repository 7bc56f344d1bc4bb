//! The parser against a slow and obvious one: well-formed bodies, truncated ones, mutated ones, and any bytes at all.
//! `rust/fuzz` asks the same with a fuzzer's bodies.

#[path = "parse_model/obvious.rs"]
mod obvious;

use candleshm::columns::COLUMNS;
use candleshm::wire::parse::parse;
use proptest::prelude::*;

use obvious::agree;

/// JSON values: numbers of every form, bare and in strings.
fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        "[1-9][0-9]{0,20}",
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?",
        "\"[0-9]{1,12}\\.[0-9]{8}\"",
        "\"[+-]?([0-9]{1,22}\\.?[0-9]{0,12}|\\.[0-9]{1,25})([eE][+-]?[0-9]{1,3})?\"",
        "\"[+-]?(nan|inf|Infinity)\"",
    ]
}

/// Well-formed bodies of up to four rows, with and without whitespace.
fn bodies() -> impl Strategy<Value = String> {
    let blank = prop_oneof![4 => Just(String::new()), 1 => "[ \n\r\t]{1,2}"];
    let row = prop::collection::vec((values(), blank.clone()), COLUMNS).prop_map(|values| {
        let values: Vec<String> = values.into_iter().map(|(value, blank)| format!("{blank}{value}{blank}")).collect();
        format!("[{}]", values.join(","))
    });
    (prop::collection::vec(row, 0..4), blank).prop_map(|(rows, blank)| {
        let between = format!("{blank},{blank}");
        format!("{blank}[{blank}{}{blank}]{blank}", rows.join(&between))
    })
}

proptest! {
    #[test]
    fn well_formed_bodies_are_read(body in bodies()) {
        prop_assert!(parse(body.as_bytes(), &mut Vec::new()).is_ok());
        agree(body.as_bytes());
    }

    #[test]
    fn truncated_bodies(body in bodies(), at in any::<prop::sample::Index>()) {
        agree(&body.as_bytes()[..at.index(body.len())]);
    }

    #[test]
    fn mutated_bodies(
        body in bodies(),
        edits in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                0..3_usize,
                prop::collection::vec(prop::sample::select(&b"[]{},\"\\.+-eEnaif0123456789 \n\0\xff"[..]), 0..3),
            ),
            1..3,
        ),
    ) {
        let mut body = body.into_bytes();
        for (at, removed, inserted) in edits {
            let start = at.index(body.len() + 1);
            let end = body.len().min(start + removed);
            body.splice(start..end, inserted);
        }
        agree(&body);
    }

    #[test]
    fn arbitrary_bytes(body in prop::collection::vec(any::<u8>(), 0..64)) {
        agree(&body);
    }
}
