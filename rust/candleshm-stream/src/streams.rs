//! `Streams`: the thread that serves all connections of a feed, and what others ask of it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpStream as StdStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use candleshm::wire::event::{Frame, FrameError, parse};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::board::{Board, Counts, Notice, Repair};
use crate::frames::Message;
use crate::session::{End, Session};
use crate::sync::{Mutex, lock};
use crate::tls::{Transport, Trust};

/// Reads of one connection before the others have their turn.
const READS_MAX: u32 = 8;
/// Sockets that poll reports at a time.
const EVENTS_MAX: usize = 64;
const WAKE: Token = Token(usize::MAX);

/// What the texts of one read did.
#[derive(Default)]
pub struct Merged {
    /// Counts of this read.
    pub counts: Counts,
    /// Places of replies to what was sent.
    pub replies: Vec<usize>,
    /// Whether the server gave notice of its end.
    pub shuts_down: bool,
    /// Why a text could not be read.
    pub fault: Option<String>,
    /// Rows that REST has to settle.
    pub repairs: Vec<Repair>,
}

/// Where events go.
pub trait Sink: Send + 'static {
    /// Looks at the texts of one read, as they came over that connection, before they are merged.
    fn received(&mut self, _connection: u64, _texts: &mut dyn Iterator<Item = &[u8]>) {}

    /// Merges the parsed texts of one read, publishes what they change and wakes readers. None once nothing is merged
    /// any more.
    fn merge(&mut self, frames: Vec<Result<Frame<'_>, FrameError>>) -> Option<Merged>;
}

/// A connected socket, and what to do with it.
pub struct Opening {
    /// Connected.
    pub tcp: StdStream,
    /// Host and port, as the URL has them.
    pub host: String,
    /// Path and query of the URL.
    pub target: String,
    /// Name that the server's certificate has to have, and who is trusted; None without TLS.
    pub secure: Option<(String, Trust)>,
    /// Streams that the URL names.
    pub streams: u64,
}

enum Command {
    Open(u64, Opening),
    Send(u64, Vec<u8>, u64),
    Close(u64),
    Abort(u64, String),
    Stop,
}

/// See the module. All methods may be called from any thread, and none waits for the network.
pub struct Streams {
    commands: Arc<Mutex<Vec<Command>>>,
    waker: Arc<Waker>,
    board: Arc<Board>,
}

impl Streams {
    /// Starts the thread. `now_ms` is a clock that never steps; `spin` is how long it polls before it sleeps.
    ///
    /// # Errors
    ///
    /// The system gives no poll, or no thread.
    pub fn start(sink: impl Sink, now_ms: fn() -> u64, spin: Duration) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (commands, board) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Board::new()));
        let mut service = Service {
            poll,
            sink,
            now_ms,
            spin,
            commands: Arc::clone(&commands),
            board: Arc::clone(&board),
            connections: BTreeMap::new(),
            unread: Vec::new(),
            messages: Vec::new(),
        };
        let ended = Arc::clone(&board);
        thread::Builder::new().name("candleshm-stream".into()).spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| service.run()));
            // The sockets are closed before anybody hears of the end, and those that came too late after it.
            let commands = Arc::clone(&service.commands);
            drop(service);
            ended.end(match outcome {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the thread of the streams panicked".into()),
            });
            lock(&commands).clear();
        })?;
        Ok(Self { commands, waker, board })
    }

    /// Serves a connected socket under a number that none had before: TLS, upgrade, frames.
    pub fn open(&self, connection: u64, opening: Opening) {
        self.command(Command::Open(connection, opening));
    }

    /// Sends a text; the connection then carries so many streams.
    pub fn send(&self, connection: u64, text: Vec<u8>, streams: u64) {
        self.command(Command::Send(connection, text, streams));
    }

    /// Begins the closing handshake.
    pub fn close(&self, connection: u64) {
        self.command(Command::Close(connection));
    }

    /// Ends a connection at once, for a reason.
    pub fn abort(&self, connection: u64, reason: String) {
        self.command(Command::Abort(connection, reason));
    }

    /// Closes all connections and ends the thread; returns whether that was done in time.
    #[must_use]
    pub fn stop(&self, most: Duration) -> bool {
        self.command(Command::Stop);
        self.board.wait_for_end(most)
    }

    /// What happened.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    fn command(&self, command: Command) {
        lock(&self.commands).push(command);
        // It fails only when the thread has ended; what is left is dropped then, with its sockets.
        let _ = self.waker.wake();
        if self.board.has_ended() {
            lock(&self.commands).clear();
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.command(Command::Stop);
    }
}

struct Connection {
    transport: Transport,
    session: Session,
    /// Nothing more comes behind what can be read now. The system says so once.
    is_ending: bool,
    /// Why nothing can be sent any more. What the server said before that is still to be read, and counts more.
    broken: Option<End>,
}

/// What the thread owns.
struct Service<S> {
    poll: Poll,
    sink: S,
    now_ms: fn() -> u64,
    spin: Duration,
    commands: Arc<Mutex<Vec<Command>>>,
    board: Arc<Board>,
    connections: BTreeMap<u64, Connection>,
    /// Connections that may have more to read than their turn allowed.
    unread: Vec<u64>,
    messages: Vec<Message>,
}

impl<S: Sink> Service<S> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            if self.unread.is_empty() {
                self.sleep(&mut events)?;
            } else {
                self.poll_for(&mut events, Some(Duration::ZERO))?;
            }
            for event in &events {
                let number = event.token().0 as u64;
                let Some(connection) = self.connections.get_mut(&number) else { continue };
                connection.is_ending |= event.is_read_closed() || event.is_error();
                self.read_again(number);
            }
            for connection in std::mem::take(&mut self.unread) {
                if self.serve(connection) {
                    self.read_again(connection);
                }
            }
            let commands = std::mem::take(&mut *lock(&self.commands));
            for command in commands {
                match command {
                    Command::Open(connection, opening) => self.open(connection, opening),
                    Command::Send(connection, text, streams) => {
                        self.with(connection, |session, _| session.send_text(&text, streams));
                    }
                    Command::Close(connection) => self.with(connection, |session, now_ms| session.close(1000, now_ms)),
                    Command::Abort(connection, reason) => self.end(connection, End::of(reason)),
                    Command::Stop => {
                        let numbers: Vec<u64> = self.connections.keys().copied().collect();
                        for connection in numbers {
                            self.with(connection, |session, now_ms| session.close(1000, now_ms));
                            self.end(connection, End::of("the collector stops"));
                        }
                        return Ok(());
                    }
                }
            }
            self.look();
        }
    }

    /// Polls until a socket is ready, a command comes, or a connection has to be looked at.
    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        if !self.spin.is_zero() {
            let began = Instant::now();
            while began.elapsed() < self.spin {
                self.poll_for(events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        let look_at_ms = self.connections.values().map(|connection| connection.session.look_at_ms()).min();
        match look_at_ms {
            None => self.poll_for(events, None),
            Some(look_at_ms) => {
                let left_ms = look_at_ms.saturating_sub((self.now_ms)());
                // Not before the moment, or it would be looked at in vain.
                self.poll_for(events, Some(Duration::from_millis(left_ms + 1)))
            }
        }
    }

    fn poll_for(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn open(&mut self, connection: u64, opening: Opening) {
        let now_ms = (self.now_ms)();
        let attempt = || -> io::Result<Connection> {
            opening.tcp.set_nonblocking(true)?;
            opening.tcp.set_nodelay(true)?;
            let mut tcp = TcpStream::from_std(opening.tcp);
            let token = Token(usize::try_from(connection).map_err(io::Error::other)?);
            self.poll.registry().register(&mut tcp, token, Interest::READABLE | Interest::WRITABLE)?;
            let secure = opening.secure.as_ref().map(|(name, config)| (name.as_str(), config.clone()));
            let session = Session::new(&opening.host, &opening.target, opening.streams, now_ms);
            Ok(Connection { transport: Transport::new(tcp, secure)?, session, is_ending: false, broken: None })
        };
        match attempt() {
            Ok(opened) => {
                self.connections.insert(connection, opened);
                self.flush(connection);
            }
            Err(error) => self.board.note(connection, Notice::Ended(End::of(error.to_string()))),
        }
    }

    /// Lets something be done with a connection, and sends what it then has to send.
    fn with(&mut self, connection: u64, work: impl FnOnce(&mut Session, u64)) {
        let now_ms = (self.now_ms)();
        if let Some(found) = self.connections.get_mut(&connection) {
            work(&mut found.session, now_ms);
        }
        self.flush(connection);
    }

    /// Gives a connection its turn to be read.
    fn read_again(&mut self, connection: u64) {
        if !self.unread.contains(&connection) {
            self.unread.push(connection);
        }
    }

    /// Reads what a connection has; returns whether there may be more.
    fn serve(&mut self, connection: u64) -> bool {
        for _ in 0..READS_MAX {
            let Some(Connection { transport, session, is_ending, broken }) = self.connections.get_mut(&connection)
            else {
                return false;
            };
            let was_open = session.is_open();
            let room = session.room();
            let size = room.len();
            let count = match transport.read(room) {
                Ok(0) => {
                    let end = broken.take();
                    let end = end.unwrap_or_else(|| End::of("the server ended the connection without closing it"));
                    self.end(connection, end);
                    return false;
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match broken.take() {
                        Some(end) => self.end(connection, end),
                        None => self.flush(connection),
                    }
                    return false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.end(connection, End::of(error.to_string()));
                    return false;
                }
            };
            // A socket that filled less than it was lent has no more; what TLS holds back is known only by asking.
            let is_drained = count < size && !transport.is_secure() && !*is_ending;
            self.messages.clear();
            let outcome = session.received(count, (self.now_ms)(), &mut self.messages);
            if !was_open && (session.is_open() || !self.messages.is_empty()) {
                self.board.note(connection, Notice::Opened);
            }
            self.merge(connection);
            if let Err(end) = outcome {
                self.flush(connection);
                self.end(connection, end);
                return false;
            }
            if is_drained {
                self.flush(connection);
                return false;
            }
        }
        self.flush(connection);
        true
    }

    /// Merges the texts that were just received.
    fn merge(&mut self, connection: u64) {
        let Some(Connection { session, .. }) = self.connections.get(&connection) else { return };
        if self.messages.is_empty() {
            return;
        }
        let text = |message| session.frames().text(message);
        self.sink.received(connection, &mut self.messages.iter().map(text));
        let frames = self.messages.iter().map(|message| parse(text(message))).collect();
        let Some(merged) = self.sink.merge(frames) else { return };
        self.board.count(connection, &merged.counts, merged.repairs, merged.fault);
        for place in merged.replies {
            self.board.note(connection, Notice::Reply(text(&self.messages[place]).to_vec()));
        }
        if merged.shuts_down {
            self.board.note(connection, Notice::ShutsDown);
        }
    }

    /// Sends what a connection has to send, as far as its socket takes it; the rest when it can take more.
    fn flush(&mut self, connection: u64) {
        let Some(found) = self.connections.get_mut(&connection) else { return };
        while found.broken.is_none() {
            match found.transport.write(found.session.output()) {
                Ok(0) => break,
                Ok(count) => found.session.sent(count),
                Err(error) => {
                    found.broken = Some(End::of(error.to_string()));
                    found.is_ending = true;
                    self.read_again(connection);
                    break;
                }
            }
        }
    }

    /// Pings, closes and gives up what is due.
    fn look(&mut self) {
        let now_ms = (self.now_ms)();
        let mut ended = Vec::new();
        let mut pending = Vec::new();
        for (&number, connection) in &mut self.connections {
            match connection.session.look(now_ms) {
                Err(end) => ended.push((number, end)),
                Ok(()) if !connection.session.output().is_empty() => pending.push(number),
                Ok(()) => {}
            }
        }
        for number in pending {
            self.flush(number);
        }
        for (number, end) in ended {
            self.end(number, end);
        }
    }

    fn end(&mut self, connection: u64, end: End) {
        if let Some(mut gone) = self.connections.remove(&connection) {
            let end = gone.session.end_of(end);
            let tcp = gone.transport.tcp();
            let _ = self.poll.registry().deregister(tcp);
            // A process that was forked may hold a copy of the socket, which dropping ours would leave open.
            let _ = tcp.shutdown(Shutdown::Both);
            self.board.note(connection, Notice::Ended(end));
        }
    }
}
