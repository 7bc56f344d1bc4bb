//! A writer killed, or stopped, in front of every single store: a process of its own, over real shared memory.
//!
//! The writer tells a story: history, live rows, closes, corrections, an outage, late rows, holes, a listing, a
//! delisting, a larger block. At the store that its environment names it kills or stops itself. This process has been reading the
//! block all along: whatever it is handed now must be whole rows of the right candles, every call must return, and what
//! was announced as closed must be closed. Then a successor takes the block over, or the stopped writer goes on, and
//! after the same story the block must be what it is without any death.
//!
//! `STEP_ROUNDS` chooses how many stores, evenly spread; without it all of them. Not under the test harness, whose
//! threads would go on for a moment after a signal.
#![allow(clippy::print_stdout, reason = "it reports as a test harness does")]

#[path = "steps/judge.rs"]
mod judge;
mod scratch;
#[path = "steps/story.rs"]
mod story;

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, process, thread};

use candleshm::block::Block;
use candleshm::error::Error;
use candleshm::layout::{BlockState, header};
use candleshm::sync::{signal_before, stores};
use candleshm::writer::Writer;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use judge::{check_reads, shown};
use scratch::{BOOT_ID, Scratch, owner};
use story::{Story, larger, tell, usual, with_listing};

/// A round takes milliseconds; this only guards against one that hangs.
const ROUND: Duration = Duration::from_mins(1);

/// How the writer is interrupted, and how things go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It dies; a successor takes over.
    Killed,
    /// It is stopped, and later killed while it is; a successor takes over.
    StoppedAndKilled,
    /// It is stopped and goes on.
    Stopped,
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, role, name, story, number, stop] = &arguments[..]
        && role == "writer"
    {
        return write(name, Story::parse(story), number.parse().ok(), stop == "stop");
    }
    let rounds = env::var("STEP_ROUNDS").ok().map(|rounds| rounds.parse().expect("STEP_ROUNDS is a number"));
    let watch = watch();
    for story in [Story::Life, Story::Larger] {
        let total = count_stores(story);
        let rounds = rounds.unwrap_or(total).clamp(1, total);
        for round in 0..rounds {
            let number = round * total / rounds;
            let fate = [Fate::Killed, Fate::StoppedAndKilled, Fate::Stopped][(round % 3) as usize];
            interrupt(story, number, fate);
            watch.fetch_add(1, Ordering::Relaxed);
        }
        println!("test steps: {rounds} of the {total} stores of {story:?} ... ok");
    }
}

/// Ends this process with a word when a round does not end.
fn watch() -> &'static AtomicU64 {
    static ROUNDS: AtomicU64 = AtomicU64::new(0);
    thread::spawn(|| {
        let mut seen = u64::MAX;
        loop {
            let now = ROUNDS.load(Ordering::Relaxed);
            if now == seen {
                println!("test steps: round {now} hangs ... FAILED");
                process::exit(1);
            }
            seen = now;
            thread::sleep(ROUND);
        }
    });
    &ROUNDS
}

/// The writer's process: tells the story, up to store `number` if there is one, and says how many stores it took.
fn write(name: &str, story: Story, number: Option<u64>, stop: bool) {
    if let Some(number) = number {
        signal_before(number, stop);
    }
    let config = if story == Story::Larger { larger() } else { usual() };
    let mut writer = Writer::open(name, &config, owner()).expect("the name is free, or its owner is dead");
    tell(&mut writer, story);
    println!("{}", stores());
}

/// The writer's process, which does not outlive a failure of this one.
struct Teller(Child);

impl Drop for Teller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(scratch: &Scratch, story: Story, number: Option<u64>, fate: Fate) -> Teller {
    let number = number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let child = Command::new(env::current_exe().expect("a test has a file"))
        .args(["writer", scratch.name(), &format!("{story:?}"), &number])
        .arg(if fate == Fate::Killed { "kill" } else { "stop" })
        .stdout(Stdio::piped())
        .spawn()
        .expect("a test can start itself");
    Teller(child)
}

/// Prepares what stands under the name when the story begins.
fn prepare(scratch: &Scratch, story: Story) {
    if story == Story::Larger {
        let mut writer = Writer::open(scratch.name(), &usual(), owner()).expect("the name is free");
        tell(&mut writer, Story::Life);
    }
}

fn count_stores(story: Story) -> u64 {
    let scratch = Scratch::new("steps");
    prepare(&scratch, story);
    let mut teller = start(&scratch, story, None, Fate::Killed);
    assert!(teller.0.wait().expect("it ends").success());
    let mut output = String::new();
    teller.0.stdout.take().expect("it is piped").read_to_string(&mut output).expect("it is text");
    output.trim().parse().expect("it prints how many")
}

fn interrupt(story: Story, number: u64, fate: Fate) {
    let scratch = Scratch::new("steps");
    prepare(&scratch, story);
    let before = Block::open(scratch.name(), BOOT_ID).ok();
    let mut teller = start(&scratch, story, Some(number), fate);
    let pid = Pid::from_child(&teller.0);
    // Waiting for a change of any kind: the end or the stop.
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).expect("it is ours").expect("it was waited for");
    match fate {
        Fate::Killed => assert_eq!(status.terminating_signal(), Some(9), "{story:?} {number}"),
        _ => assert!(status.stopped(), "{story:?} {number} {status:?}"),
    }

    // Nobody writes now. What was attached before goes on, and what stands under the name can be attached to.
    before.iter().for_each(check_reads);
    let found = match Block::open(scratch.name(), BOOT_ID) {
        Ok(block) => {
            check_reads(&block);
            Some(block)
        }
        Err(Error::NotFound { .. }) if story == Story::Life => None,
        Err(error) => panic!("{story:?} {number}: {error}"),
    };
    match fate {
        Fate::Stopped => {
            if found.is_some() && story == Story::Life {
                let second = Writer::open(scratch.name(), &usual(), owner());
                assert!(matches!(second, Err(Error::InUse { .. })), "a stopped owner is still the owner");
            }
            kill_process(pid, Signal::CONT).expect("it is there");
            assert!(teller.0.wait().expect("it ends").success(), "{story:?} {number}");
        }
        Fate::StoppedAndKilled => {
            teller.0.kill().expect("it is there");
            teller.0.wait().expect("it ends");
        }
        // `waitpid` took its status already.
        Fate::Killed => {}
    }
    if fate != Fate::Stopped {
        let config = match (story, &found) {
            (Story::Larger, _) => larger(),
            // A successor wants what was listed in the meantime.
            (Story::Life, Some(found)) if found.symbol_count() > usual().symbols.len() => with_listing(),
            (Story::Life, _) => usual(),
        };
        let mut successor = Writer::open(scratch.name(), &config, owner()).expect("its owner is dead");
        let is_same = found
            .as_ref()
            .is_some_and(|found| found.value(header::GENERATION) == successor.block().value(header::GENERATION));
        assert_eq!(successor.is_taken_over(), is_same, "{story:?} {number}");
        if story == Story::Life {
            assert_eq!(is_same, found.is_some(), "what was there goes on: {number}");
        }
        // Between the takeover and its first response.
        check_reads(successor.block());
        tell(&mut successor, story);
    }
    let after = Block::open(scratch.name(), BOOT_ID).expect("a block stands");
    check_reads(&after);
    assert_eq!(shown(&after), *wanted(story), "{story:?} {number} {fate:?}");
    if story == Story::Life
        && let Some(found) = found
    {
        assert_eq!(shown(&found), shown(&after), "a reader attached all along sees the same");
    }
    if let Some(before) = before {
        assert_eq!(before.state(), Some(BlockState::Superseded), "its readers learn where to look");
    }
    assert_eq!(scratch.files(), [scratch.name()], "{story:?} {number}");
}

/// What the block shows when nobody dies.
fn wanted(story: Story) -> &'static Vec<String> {
    use std::sync::OnceLock;
    static LIFE: OnceLock<Vec<String>> = OnceLock::new();
    static LARGER: OnceLock<Vec<String>> = OnceLock::new();
    let shown_by = move || {
        let scratch = Scratch::new("steps");
        prepare(&scratch, story);
        let config = if story == Story::Larger { larger() } else { usual() };
        let mut writer = Writer::open(scratch.name(), &config, owner()).expect("the name is free");
        tell(&mut writer, story);
        shown(writer.block())
    };
    if story == Story::Life { LIFE.get_or_init(shown_by) } else { LARGER.get_or_init(shown_by) }
}
