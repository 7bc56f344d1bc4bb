//! The least that a stream's way into another process can take: receive, store eight bytes, wake.
//!
//! `floor URL FILE STREAMS` reads the batches of `sender` from a blocking socket, takes the time of sending from the
//! last event's fixed place in each, and stores it in a file that `sleeper floor FILE` maps. Nothing is parsed.

#![allow(clippy::print_stdout)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Release;

use candleshm::shared_memory::futex_wake;

#[path = "floor_words.rs"]
mod floor_words;

/// From the end of a batch back to the stamp of its last event.
const BEHIND_STAMP: usize = r#"","V":"48.488","Q":"4068722.10360","B":"0"}}}"#.len();
const STAMP_DIGITS: usize = 16;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, file, streams] = arguments.as_slice() else {
        return Err(io::Error::other("usage: floor URL FILE STREAMS"));
    };
    let words = floor_words::map(file, true)?;
    let mut socket = TcpStream::connect(url.trim_start_matches("ws://"))?;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    socket
        .write_all(format!("GET /stream?streams={streams} HTTP/1.1\r\nSec-WebSocket-Key: {key}\r\n\r\n").as_bytes())?;
    let mut head = BufReader::with_capacity(1, &socket);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    println!("flows");
    let mut data = vec![0; 1 << 17];
    let mut batches = 0;
    loop {
        let size = socket.read(&mut data)?;
        if size == 0 {
            return Ok(());
        }
        let Some(start) = size.checked_sub(BEHIND_STAMP + STAMP_DIGITS) else { continue };
        // A part of a batch ends with something else, and is left to its rest.
        let Some(stamp) = str::from_utf8(&data[start..start + STAMP_DIGITS]).ok().and_then(|text| text.parse().ok())
        else {
            continue;
        };
        batches += 1;
        words[floor_words::place(batches)].store(stamp, Release);
        words[0].store(batches, Release);
        futex_wake(&words[0]);
    }
}
