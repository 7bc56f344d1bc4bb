//! The HTTP upgrade that makes a connection a websocket (RFC 6455, section 4). Pure: bytes in, bytes out.

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// Headers of a response; exchanges send about ten.
const HEADERS_MAX: usize = 100;
const HEAD_BYTES_MAX: usize = 1 << 16;

/// What the server said so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not enough.
    Partial,
    /// Yes; so many bytes of what was received are the response.
    Upgraded(usize),
    /// An HTTP status that is no upgrade. Whatever follows the status changes nothing.
    Refused(u16),
    /// Something that is no such response.
    Invalid(String),
}

/// One attempt.
pub struct Handshake {
    accept: String,
}

impl Handshake {
    /// Returns an attempt, and the request to send.
    ///
    /// `host` is the host and port of the URL, `target` its path and query.
    #[must_use]
    pub fn new(host: &str, target: &str) -> (Self, Vec<u8>) {
        let key = generate_key();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: candleshm\r\n\r\n"
        );
        (Self { accept: derive_accept_key(key.as_bytes()) }, request.into_bytes())
    }

    /// Judges what was received so far.
    #[must_use]
    pub fn judge(&self, received: &[u8]) -> Answer {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(received);
        // The status line alone decides, also when nothing follows it, or nothing that can be read.
        match response.code {
            Some(101) => {}
            Some(status) => return Answer::Refused(status),
            None if parsed.is_err() => {
                let reason = "the response is not HTTP; is this the port of another service, or of wss://?";
                return Answer::Invalid(reason.into());
            }
            None => {}
        }
        match parsed {
            Err(error) => Answer::Invalid(format!("the response is not HTTP: {error}")),
            Ok(httparse::Status::Partial) if received.len() > HEAD_BYTES_MAX => {
                Answer::Invalid(format!("the response has a head of more than {HEAD_BYTES_MAX} bytes"))
            }
            Ok(httparse::Status::Partial) => Answer::Partial,
            Ok(httparse::Status::Complete(size)) => match self.fault(response.headers) {
                Some(fault) => Answer::Invalid(fault),
                None => Answer::Upgraded(size),
            },
        }
    }

    fn fault(&self, headers: &[httparse::Header<'_>]) -> Option<String> {
        let value = |name: &str| {
            let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            found.next().map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        };
        let lists = |name: &str, token: &str| {
            value(name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
        };
        if !lists("Upgrade", "websocket") || !lists("Connection", "Upgrade") {
            return Some("the response upgrades to no websocket".into());
        }
        if value("Sec-WebSocket-Accept").as_deref() != Some(&self.accept) {
            return Some("the response has no Sec-WebSocket-Accept, or a wrong one".into());
        }
        // Nothing was offered.
        let unasked = ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"];
        unasked
            .iter()
            .find(|name| value(name).is_some_and(|text| !text.is_empty()))
            .map(|name| format!("the response has a {name} that was not offered"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Handshake};

    fn accepted(handshake: &Handshake) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            handshake.accept
        )
    }

    #[test]
    fn the_request_is_a_websocket_upgrade() {
        let (_, request) = Handshake::new("h:1", "/stream?streams=a@kline_1m");
        let request = String::from_utf8(request).expect("ASCII");
        assert!(request.starts_with("GET /stream?streams=a@kline_1m HTTP/1.1\r\nHost: h:1\r\n"));
        assert!(request.ends_with("\r\n\r\n"));
    }

    #[test]
    fn an_upgrade_is_known_once_its_head_is_whole() {
        let (handshake, _) = Handshake::new("h", "/");
        let head = accepted(&handshake);
        let whole = format!("{head}frames");
        for end in 1..head.len() {
            assert_eq!(handshake.judge(&whole.as_bytes()[..end]), Answer::Partial, "{end}");
        }
        assert_eq!(handshake.judge(whole.as_bytes()), Answer::Upgraded(head.len()));
    }

    #[test]
    fn a_refusal_is_known_by_its_status_line() {
        let (handshake, _) = Handshake::new("h", "/");
        for status in [200, 301, 403, 429, 451, 503] {
            let line = format!("HTTP/1.1 {status} No\r\n");
            assert_eq!(handshake.judge(line.as_bytes()), Answer::Refused(status));
            assert_eq!(handshake.judge(format!("{line}\0: broken").as_bytes()), Answer::Refused(status));
        }
    }

    #[test]
    fn a_response_that_proves_nothing_is_none() {
        let (handshake, _) = Handshake::new("h", "/");
        let head = accepted(&handshake);
        let wrong = [
            head.replace(&handshake.accept, "bm8gc3VjaCBrZXk="),
            head.replace("WebSocket\r\n", "h2c\r\n"),
            head.replace(", Upgrade", ""),
            head.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
            "SSH-2.0-OpenSSH\r\n".to_owned(),
            format!("HTTP/1.1 101 Yes\r\nX: {}", "y".repeat(1 << 17)),
        ];
        for text in wrong {
            assert!(matches!(handshake.judge(text.as_bytes()), Answer::Invalid(_)), "{text:.60}");
        }
    }
}
