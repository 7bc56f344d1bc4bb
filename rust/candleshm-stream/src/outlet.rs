//! Where two threads write to one socket: the thread whose loop owns it, and one that does not wait for that loop.
//!
//! What each writes comes out whole and in its order. The loop claims the socket for each of its own writes, and keeps
//! it for as long as something of them is left. Meanwhile the other one is told that nothing was sent.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;

use crate::sync::{Mutex, lock};

/// What became of bytes that were to be sent past the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The system took all of them.
    Wholly,
    /// The system took the first ones; the loop is to write the rest, before anything else.
    Partly,
    /// None were sent: the loop has to.
    Not,
}

/// A socket that does not block, beside the loop that writes to it too.
#[derive(Debug)]
pub struct Outlet {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: Option<TcpStream>,
    /// What the system did not take.
    rest: Vec<u8>,
    is_claimed: bool,
}

impl Outlet {
    /// Shares a socket, which must not block.
    #[must_use]
    pub fn new(socket: TcpStream) -> Self {
        Self { state: Mutex::new(State { socket: Some(socket), rest: Vec::new(), is_claimed: false }) }
    }

    /// Sends past the loop, without waiting.
    pub fn send(&self, data: &[u8]) -> Sent {
        let mut state = lock(&self.state);
        if state.is_claimed || !state.rest.is_empty() {
            return Sent::Not;
        }
        let Some(socket) = state.socket.as_mut() else { return Sent::Not };
        let written = loop {
            match socket.write(data) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                written => break written,
            }
        };
        match written {
            Ok(count) if count == data.len() => Sent::Wholly,
            Ok(count) => {
                state.rest = data[count..].to_vec();
                Sent::Partly
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Not,
            Err(_) => {
                // The loop learns of it by itself, and says that the connection is lost.
                state.socket = None;
                Sent::Not
            }
        }
    }

    /// Returns whether the loop has to write the rest of something.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        !lock(&self.state).rest.is_empty()
    }

    /// Claims the socket for the loop, and returns what it has to write first.
    pub fn claim(&self) -> Vec<u8> {
        let mut state = lock(&self.state);
        state.is_claimed = true;
        std::mem::take(&mut state.rest)
    }

    /// Gives the socket free: the system took all that the loop had to write.
    pub fn release(&self) {
        lock(&self.state).is_claimed = false;
    }

    /// Sends nothing more past the loop.
    pub fn close(&self) {
        lock(&self.state).socket = None;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Outlet, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        ours.set_nonblocking(true).expect("a socket that does not block");
        (Outlet::new(ours), listener.accept().expect("a peer").0)
    }

    #[test]
    fn nothing_passes_what_the_loop_has_left() {
        let (outlet, mut peer) = pair();
        assert_eq!(outlet.send(b"one"), Sent::Wholly);
        assert!(outlet.claim().is_empty());
        assert_eq!(outlet.send(b"two"), Sent::Not);
        outlet.release();
        assert_eq!(outlet.send(b"three"), Sent::Wholly);
        outlet.close();
        assert_eq!(outlet.send(b"four"), Sent::Not);
        let mut received = String::new();
        peer.read_to_string(&mut received).expect("text");
        assert_eq!(received, "onethree");
    }

    #[test]
    fn what_the_system_does_not_take_is_for_the_loop() {
        let (outlet, mut peer) = pair();
        let data: Vec<u8> = (0..32 << 20).map(|at| (at % 251) as u8).collect();
        assert_eq!(outlet.send(&data), Sent::Partly);
        assert!(outlet.has_rest());
        assert_eq!(outlet.send(b"more"), Sent::Not);
        let rest = outlet.claim();
        assert!(!outlet.has_rest());
        outlet.close();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).expect("bytes");
        received.extend(rest);
        assert!(received == data);
    }

    #[test]
    fn a_peer_that_is_gone_leaves_it_to_the_loop() {
        let (outlet, peer) = pair();
        drop(peer);
        while outlet.send(b"anybody?") == Sent::Wholly {}
        assert_eq!(outlet.send(b"anybody?"), Sent::Not);
    }
}
