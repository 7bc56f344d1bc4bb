//! The protocol of NATS, as far as messages between hosts pass without a client of it.

const END: &[u8] = b"\r\n";

/// Appends the command by which a server publishes a message.
pub fn publish_command(subject: &str, message: &[u8], commands: &mut Vec<u8>) {
    commands.extend_from_slice(format!("PUB {subject} {}\r\n", message.len()).as_bytes());
    commands.extend_from_slice(message);
    commands.extend_from_slice(END);
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
}
