//! Several processes want one block. Apart from the other tests: while a process starts another one, that one holds its
//! locks too, for a moment.

mod scratch;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use candleshm::block::Block;
use candleshm::error::Error;
use candleshm::layout::header;
use candleshm::writer::Writer;

use scratch::{BOOT_ID, Scratch, config, owner};

/// Not a test of its own: the process that the next test starts several times.
#[test]
fn collector_process() {
    let Ok(name) = std::env::var("CANDLESHM_TEST_BLOCK") else { return };
    let mut lines = std::io::stdin().lines();
    let mut out = std::io::stdout();
    // The harness has begun the line.
    writeln!(out, "\nstarted").expect("the parent reads");
    lines.next();
    let writer = Writer::open(&name, &config(4, &["A"]), owner());
    let reply = match &writer {
        Ok(_) => "opened".to_owned(),
        Err(Error::InUse { pid, .. }) => format!("in use by {pid}"),
        Err(error) => error.to_string(),
    };
    writeln!(out, "{reply}").expect("the parent reads");
    lines.next();
}

struct Collector {
    child: Child,
    replies: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Collector {
    fn start(scratch: &Scratch) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a test has a file"))
            .args(["--exact", "collector_process", "--nocapture"])
            .env("CANDLESHM_TEST_BLOCK", scratch.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a test can start itself");
        let stdout = child.stdout.take().expect("it is piped");
        let mut collector = Self { child, replies: BufReader::new(stdout).lines() };
        while collector.reply() != "started" {}
        collector
    }

    fn go(&mut self) {
        writeln!(self.child.stdin.as_mut().expect("it is piped"), "go").expect("the child reads");
    }

    fn reply(&mut self) -> String {
        self.replies.next().expect("the child has not ended").expect("it is text")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_of_many_processes_gets_the_block_and_its_death_frees_it() {
    let scratch = Scratch::new("processes");
    let mut collectors: Vec<Collector> = (0..5).map(|_| Collector::start(&scratch)).collect();
    collectors.iter_mut().for_each(Collector::go);
    let replies: Vec<String> = collectors.iter_mut().map(Collector::reply).collect();
    let winner = replies.iter().position(|reply| reply == "opened").expect("one gets it");
    let pid = collectors[winner].child.id();
    for (index, reply) in replies.iter().enumerate().filter(|&(index, _)| index != winner) {
        assert_eq!(*reply, format!("in use by {pid}"), "collector {index}");
    }

    let block = Block::open(scratch.name(), BOOT_ID).expect("the winner's block is ready");
    assert_eq!(block.value(header::PID), u64::from(pid));
    collectors[winner].child.kill().expect("it lives");
    collectors[winner].child.wait().expect("it is ours");
    let writer = Writer::open(scratch.name(), &config(4, &["A"]), owner()).expect("the kernel gave the lock back");
    assert!(writer.is_taken_over());
    assert_eq!(block.value(header::PID), u64::from(std::process::id()));
    writer.close(true).expect("the name can be removed");
    assert!(scratch.files().is_empty());
}
