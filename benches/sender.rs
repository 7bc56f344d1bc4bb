//! A stream host that is no bottleneck: prepared frames, into which only times and counts are written.
//!
//! `sender` prints where it listens and then obeys its standard input, a line each, and answers each with a line of
//! JSON: `pace 4` sends every subscribed symbol four times a second (0 stops), `burst 90000` sends so many events as
//! fast as the client reads, `sent` changes nothing. The quote volume of an event is the time at which it was sent
//! (`CLOCK_BOOTTIME`, ns), written just before the batch goes to the socket.

#![allow(clippy::print_stdout)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use sha1::{Digest, Sha1};

/// Events that go out together: what a socket read of the exchange's streams brings at 500 symbols.
const BATCH: usize = 11;
const BURST_BATCH: usize = 128;
const DAY_MS: u64 = 86_400_000;
const MS_DIGITS: usize = 13;
const COUNT_DIGITS: usize = 8;
const STAMP_DIGITS: usize = 16;
const FIRST_TRADES: u64 = 10_000_000;

/// A frame of one stream, and where in it the numbers are that change.
struct Frame {
    bytes: Vec<u8>,
    event_ms: usize,
    last_id: usize,
    trades: usize,
    stamp: usize,
    count: u64,
}

impl Frame {
    fn new(stream: &str) -> Self {
        let (symbol, interval) = stream.split_once("@kline_").unwrap_or((stream, "1m"));
        let (symbol, open_ms) = (symbol.to_uppercase(), unix_ms() / DAY_MS * DAY_MS);
        let mut bytes = vec![0x81, 126, 0, 0];
        let mut add = |text: String, digits: usize| {
            bytes.extend_from_slice(text.as_bytes());
            bytes.resize(bytes.len() + digits, b'0');
            bytes.len() - digits
        };
        let event_ms = add(format!(r#"{{"stream":"{stream}","data":{{"e":"kline","E":"#), MS_DIGITS);
        let close_ms = open_ms + DAY_MS - 1;
        let last_id = add(
            format!(
                r#","s":"{symbol}","k":{{"t":{open_ms},"T":{close_ms},"s":"{symbol}","i":"{interval}","f":100,"L":"#
            ),
            COUNT_DIGITS,
        );
        let prices = r#""o":"83896.40","c":"83860.20","h":"83920.00","l":"83860.10","v":"114602000.602""#;
        let trades = add(format!(r#",{prices},"n":"#), COUNT_DIGITS);
        let stamp = add(r#","x":false,"q":""#.to_owned(), STAMP_DIGITS);
        add(r#"","V":"48.488","Q":"4068722.10360","B":"0"}}}"#.to_owned(), 0);
        let length = u16::try_from(bytes.len() - 4).expect("a kline is short");
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        Self { bytes, event_ms, last_id, trades, stamp, count: FIRST_TRADES }
    }

    /// Appends the next event; returns where its stamp goes.
    fn append(&mut self, batch: &mut Vec<u8>, now_ms: u64) -> usize {
        self.count += 1;
        digits(&mut self.bytes[self.event_ms..][..MS_DIGITS], now_ms);
        digits(&mut self.bytes[self.last_id..][..COUNT_DIGITS], self.count + 99);
        digits(&mut self.bytes[self.trades..][..COUNT_DIGITS], self.count);
        let start = batch.len();
        batch.extend_from_slice(&self.bytes);
        start + self.stamp
    }
}

fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What the standard input asked for, and what was done.
#[derive(Default)]
struct Order {
    events_per_second: f64,
    burst: usize,
    sent: usize,
    stamp: u64,
}

#[derive(Default)]
struct Orders {
    order: Mutex<Order>,
    changed: Condvar,
}

impl Orders {
    fn change<T>(&self, change: impl FnOnce(&mut Order) -> T) -> T {
        let result = change(&mut self.order.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        result
    }

    /// Sleeps until `until` or a change; returns the pace and what is left of a burst.
    fn wait(&self, until: Instant) -> (f64, usize) {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = until.saturating_duration_since(Instant::now());
        let (order, _) = self.changed.wait_timeout(order, timeout).unwrap_or_else(PoisonError::into_inner);
        (order.events_per_second, order.burst)
    }
}

struct Client {
    socket: TcpStream,
    frames: Vec<Frame>,
    next: usize,
}

impl Client {
    fn prepare(&mut self, events: usize, batch: &mut Vec<u8>, stamps: &mut Vec<usize>) {
        batch.clear();
        stamps.clear();
        let now_ms = unix_ms();
        for _ in 0..events {
            let place = self.next % self.frames.len();
            self.next = place + 1;
            stamps.push(self.frames[place].append(batch, now_ms));
        }
    }
}

/// Writes the time of sending into a batch as late as can be, and sends it.
fn send(client: &Mutex<Client>, batch: &mut [u8], stamps: &[usize]) -> io::Result<u64> {
    let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
    let now_ns = boot_ns();
    for &stamp in stamps {
        digits(&mut batch[stamp..][..STAMP_DIGITS], now_ns);
    }
    client.socket.write_all(batch)?;
    Ok(now_ns)
}

fn push(client: &Mutex<Client>, orders: &Orders) -> io::Result<()> {
    let (mut batch, mut stamps) = (Vec::new(), Vec::new());
    let mut due = Instant::now();
    let mut is_prepared = false;
    loop {
        let (pace, burst) = orders.wait(due);
        let streams = client.lock().unwrap_or_else(PoisonError::into_inner).frames.len();
        let now = Instant::now();
        if streams == 0 || (burst == 0 && pace == 0.0) {
            due = now + Duration::from_secs(1);
            is_prepared = false;
            continue;
        }
        if burst > 0 {
            let events = burst.min(BURST_BATCH);
            client.lock().unwrap_or_else(PoisonError::into_inner).prepare(events, &mut batch, &mut stamps);
            let stamp = send(client, &mut batch, &stamps)?;
            orders.change(|order| {
                (order.burst, order.sent, order.stamp) = (order.burst - events, order.sent + events, stamp);
            });
            (due, is_prepared) = (now, false);
            continue;
        }
        let interval = Duration::from_secs_f64(BATCH as f64 / (pace * streams as f64));
        if due > now + interval {
            due = now + interval;
        }
        if now >= due && is_prepared {
            let stamp = send(client, &mut batch, &stamps)?;
            let mut order = orders.order.lock().unwrap_or_else(PoisonError::into_inner);
            (order.sent, order.stamp) = (order.sent + stamps.len(), stamp);
            is_prepared = false;
            due = if now > due + 2 * interval { now } else { due } + interval;
        }
        if !is_prepared {
            client.lock().unwrap_or_else(PoisonError::into_inner).prepare(BATCH, &mut batch, &mut stamps);
            is_prepared = true;
        }
    }
}

fn unquote(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        match hex.filter(|_| byte == b'%') {
            Some(decoded) => (bytes.push(decoded), rest = &behind[2..]).1,
            None => (bytes.push(byte), rest = behind).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads the request, answers it, and returns the streams in its path.
fn shake_hands(reader: &mut impl BufRead, socket: &mut TcpStream) -> io::Result<Vec<String>> {
    let (mut path, mut key) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            rest.split(' ').next().unwrap_or_default().clone_into(&mut path);
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("sec-websocket-key")
        {
            value.trim().clone_into(&mut key);
        }
    }
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = data_encoding::BASE64.encode(&digest);
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    socket.write_all(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes())?;
    let names = path.split_once("streams=").map_or("", |(_, names)| names);
    Ok(names.split('/').filter(|name| !name.is_empty()).map(unquote).collect())
}

/// Reads one frame of a client; returns its kind and what it holds.
fn frame_of(reader: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    let mut size = [0; 8];
    let length = match head[1] & 0x7F {
        126 => reader.read_exact(&mut size[6..]).map(|()| u64::from_be_bytes(size))?,
        127 => reader.read_exact(&mut size).map(|()| u64::from_be_bytes(size))?,
        short => u64::from(short),
    };
    let mut mask = [0; 4];
    reader.read_exact(&mut mask)?;
    let mut data = vec![0; length as usize];
    reader.read_exact(&mut data)?;
    for (byte, key) in data.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok((head[0] & 0x0F, data))
}

fn short_frame(kind: u8, data: &[u8]) -> Vec<u8> {
    [&[0x80 | kind, data.len() as u8], data].concat()
}

fn serve(mut socket: TcpStream, orders: &Arc<Orders>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let names = shake_hands(&mut reader, &mut socket)?;
    let frames = names.iter().map(|name| Frame::new(name)).collect();
    let client = Arc::new(Mutex::new(Client { socket, frames, next: 0 }));
    let (pushed, pushing) = (Arc::clone(&client), Arc::clone(orders));
    // It ends with the socket.
    std::thread::spawn(move || push(&pushed, &pushing));
    loop {
        let (kind, data) = frame_of(&mut reader)?;
        let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            1 => {
                let request: serde_json::Value = serde_json::from_slice(&data).map_err(io::Error::other)?;
                let names = request["params"].as_array().into_iter().flatten().filter_map(|name| name.as_str());
                client.frames.extend(names.map(Frame::new));
                let reply = format!(r#"{{"result":null,"id":{}}}"#, request["id"]);
                client.socket.write_all(&short_frame(1, reply.as_bytes()))?;
            }
            8 => return client.socket.write_all(&short_frame(8, &data)),
            9 => client.socket.write_all(&short_frame(10, &data))?,
            _ => {}
        }
    }
}

fn main() -> io::Result<()> {
    let orders = Arc::new(Orders::default());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("ws://{}", listener.local_addr()?);
    let served = Arc::clone(&orders);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let orders = Arc::clone(&served);
            // A client that leaves ends its thread.
            std::thread::spawn(move || serve(socket, &orders));
        }
    });
    for line in io::stdin().lines() {
        let line = line?;
        let (verb, number) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: f64 = number.parse().map_err(io::Error::other)?;
        match verb {
            "pace" => orders.change(|order| order.events_per_second = number),
            "burst" => {
                orders.change(|order| (order.events_per_second, order.burst) = (0.0, number as usize));
                let is_over = |order: &mut Order| order.burst > 0;
                let order = orders.order.lock().unwrap_or_else(PoisonError::into_inner);
                drop(orders.changed.wait_while(order, is_over).unwrap_or_else(PoisonError::into_inner));
            }
            _ => {}
        }
        let (sent, stamp) = orders.change(|order| (order.sent, order.stamp));
        println!(r#"{{"sent": {sent}, "stamp": {stamp}}}"#);
    }
    Ok(())
}
