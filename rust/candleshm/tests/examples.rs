//! The examples beside a real block, each as a process of its own.

mod scratch;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use candleshm::columns::Row;
use candleshm::feed::clock;
use candleshm::merge::RequestWindow;
use candleshm::writer::{Owner, Writer};

use scratch::{Scratch, config};

const MINUTE_MS: i64 = 60_000;
const FIRST_MS: i64 = 1_735_689_600_000;

/// A block of BTCUSDT and ETHUSDT: minutes 0 to 6, the last one live, closes 1 to 7.
fn served(scratch: &Scratch) -> Writer {
    let owner =
        Owner { pid: std::process::id().into(), pid_start: 1, boot_id: clock::boot_id(), now_ns: clock::now_ns() };
    let mut writer = Writer::open(scratch.name(), &config(8, &["BTCUSDT", "ETHUSDT"]), owner).expect("a new name");
    go_on(&mut writer, 0..=6);
    writer
}

fn go_on(writer: &mut Writer, minutes: std::ops::RangeInclusive<i64>) {
    let sent_ms = FIRST_MS + minutes.end() * MINUTE_MS + 10_000;
    let row = |minute| {
        let open_ms = FIRST_MS + minute * MINUTE_MS;
        [open_ms as f64, 1.0, 9.0, 0.5, minute as f64 + 1.0, 10.0, (open_ms + 59_999) as f64, 15.0, 3.0, 5.0, 7.0, 0.0]
    };
    let rows: Vec<Row> = minutes.map(row).collect();
    let window = RequestWindow {
        sent_ms,
        received_ms: sent_ms,
        settle_ms: 0,
        limit: rows.len(),
        start_ms: None,
        end_ms: None,
        from_end: true,
        patience_ms: 0,
    };
    for index in 0..2 {
        writer.ingest(index, &rows, &window, clock::now_ms());
    }
    writer.heartbeat(clock::now_ns());
}

/// An example, built as this test was: `cargo test --test` alone does not do it.
fn example(name: &str, arguments: &[&str]) -> Command {
    let test = std::env::current_exe().expect("a test has a file");
    let folder = test.ancestors().nth(2).expect("it lies in deps");
    let profile = folder.file_name().and_then(|name| name.to_str()).expect("it is the profile's");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "candleshm", "--example", name])
        .args(["--profile", if profile == "debug" { "dev" } else { profile }])
        .arg("--target-dir")
        .arg(folder.parent().expect("it lies in the target directory"))
        .status();
    assert!(built.expect("cargo runs").success(), "{name} does not compile");
    let mut command = Command::new(folder.join("examples").join(name));
    command.args(arguments);
    command
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn newest_prints_the_last_rows() {
    let scratch = Scratch::new("example-newest");
    let _writer = served(&scratch);
    let printed = lines(&example("newest", &[scratch.name(), "BTCUSDT"]).output().expect("it starts"));
    assert_eq!(printed[0], "BTCUSDT 7");
    assert_eq!(printed.len(), 6);
    assert_eq!(printed[1], format!("{} 3", FIRST_MS + 2 * MINUTE_MS));
    assert_eq!(printed[5], format!("{} 7 and may still change", FIRST_MS + 6 * MINUTE_MS));
    let unknown = example("newest", &[scratch.name(), "XRPUSDT"]).output().expect("it starts");
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("UnknownSymbol"));
}

#[test]
fn mean_leaves_out_the_row_that_may_change() {
    let scratch = Scratch::new("example-mean");
    let _writer = served(&scratch);
    let printed = lines(&example("mean", &[scratch.name(), "ETHUSDT"]).output().expect("it starts"));
    assert_eq!(printed, ["ETHUSDT 3.5 of 6 candles"]);
}

#[test]
fn closes_leaves_out_none() {
    let scratch = Scratch::new("example-closes");
    let mut writer = served(&scratch);
    let mut child = example("closes", &[scratch.name(), "3"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let began = Instant::now();
    let mut minute = 6;
    while child.try_wait().expect("it is ours").is_none() {
        assert!(began.elapsed() < Duration::from_mins(1), "three candles closed, and it waits");
        minute += 1;
        // It begins whenever it likes, and then prints the closes one after the other.
        go_on(&mut writer, minute - 6..=minute);
        std::thread::sleep(Duration::from_millis(100));
    }
    let printed = lines(&child.wait_with_output().expect("it ended"));
    assert!(printed[0].starts_with(&format!("{} SPOT 1m: 2 symbols", scratch.name())), "{}", printed[0]);
    let opens: Vec<i64> =
        printed[1..].iter().map(|line| line.split(':').next().expect("a time").parse().expect("a time")).collect();
    assert_eq!(opens.iter().map(|open_ms| open_ms - opens[0]).collect::<Vec<_>>(), [0, MINUTE_MS, 2 * MINUTE_MS]);
    assert!(printed[1..].iter().all(|line| line.ends_with("without []")), "{printed:?}");
}
