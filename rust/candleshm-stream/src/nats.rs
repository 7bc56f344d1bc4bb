//! The protocol of NATS, as far as messages between hosts pass without a client of it.

use std::ops::Range;

const END: &[u8] = b"\r\n";
/// A line of a server is shorter.
const LINE_BYTES_MAX: usize = 4096;

/// Appends the command by which a server publishes a message.
pub fn publish_command(subject: &str, message: &[u8], commands: &mut Vec<u8>) {
    commands.extend_from_slice(format!("PUB {subject} {}\r\n", message.len()).as_bytes());
    commands.extend_from_slice(message);
    commands.extend_from_slice(END);
}

/// Returns where the message lies that a server's bytes begin with, and how many bytes are its own with what is around
/// it; `None` unless it is whole, for that subscription, without headers and without a subject for answers.
#[must_use]
pub fn first_message(bytes: &[u8], subscription: u64) -> Option<(Range<usize>, usize)> {
    let start = bytes.windows(END.len()).take(LINE_BYTES_MAX).position(|pair| pair == END)? + END.len();
    let line = std::str::from_utf8(&bytes[..start - END.len()]).ok()?;
    let mut words = line.split(' ');
    let (kind, _subject, number, size) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if kind != "MSG" || words.next().is_some() || number.parse() != Ok(subscription) {
        return None;
    }
    let end = start.checked_add(size.parse().ok()?)?;
    (bytes.get(end..end.checked_add(END.len())?)? == END).then_some((start..end, end + END.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_as_the_protocol_has_them() {
        let mut commands = Vec::new();
        publish_command("a.b", b"12345", &mut commands);
        publish_command("c", b"", &mut commands);
        assert_eq!(commands, b"PUB a.b 5\r\n12345\r\nPUB c 0\r\n\r\n");
    }

    #[test]
    fn a_message_is_found_where_it_is_whole() {
        let bytes = b"MSG a.b 7 5\r\n12345\r\nMSG a.b 7 0\r\n\r\n";
        assert_eq!(first_message(bytes, 7), Some((13..18, 20)));
        assert_eq!(first_message(&bytes[20..], 7), Some((13..13, 15)));
        for end in 0..20 {
            assert_eq!(first_message(&bytes[..end], 7), None, "{end}");
        }
    }

    #[test]
    fn what_is_no_plain_message_of_the_subscription_is_none() {
        for bytes in [
            &b"MSG a.b 8 5\r\n12345\r\n"[..],
            b"MSG a.b 7 answers 5\r\n12345\r\n",
            b"HMSG a.b 7 2 5\r\n12345\r\n",
            b"MSG a.b 7 4\r\n12345\r\n",
            b"MSG a.b 7 -5\r\n12345\r\n",
            b"MSG a.b 7 18446744073709551615\r\n12345\r\n",
            b"MSG a.b 7\r\n12345\r\n",
            b"MSG \xFF 7 5\r\n12345\r\n",
            b"PING\r\n",
            b"",
        ] {
            assert_eq!(first_message(bytes, 7), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
