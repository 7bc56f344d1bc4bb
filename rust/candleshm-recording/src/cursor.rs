//! Numbers and texts to bytes and back, little endian, with every bound checked.

/// Bytes that grow.
#[derive(Debug, Default)]
pub(crate) struct Packed(pub(crate) Vec<u8>);

impl Packed {
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn word(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn number(&mut self, value: i64) {
        self.word(value as u64);
    }

    /// One that may be missing.
    pub(crate) fn maybe(&mut self, value: Option<i64>) {
        self.byte(value.is_some().into());
        self.number(value.unwrap_or(0));
    }

    /// Bytes behind their count.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend((bytes.len() as u32).to_le_bytes());
        self.0.extend(bytes);
    }

    pub(crate) fn texts(&mut self, texts: &[String]) {
        self.word(texts.len() as u64);
        for text in texts {
            self.bytes(text.as_bytes());
        }
    }
}

/// Bytes that are read from the front; every method returns `None` when they are not there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn count(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize)
    }

    pub(crate) fn word(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn number(&mut self) -> Option<i64> {
        Some(self.word()? as i64)
    }

    /// One that may be missing: whether it is there, and the number, which is 0 where it is not.
    pub(crate) fn maybe(&mut self) -> Option<(bool, i64)> {
        let (is_there, number) = (self.flag()?, self.number()?);
        (is_there || number == 0).then_some((is_there, number))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.count()?;
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }

    pub(crate) fn shards(&mut self) -> Option<Vec<u32>> {
        let count = self.word()?;
        if count > self.0.len() as u64 / 8 {
            return None;
        }
        (0..count).map(|_| self.word()?.try_into().ok()).collect()
    }

    pub(crate) fn texts(&mut self) -> Option<Vec<String>> {
        let count = self.word()?;
        // Each takes four bytes at least.
        if count > self.0.len() as u64 / 4 {
            return None;
        }
        (0..count).map(|_| self.text().map(str::to_owned)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Packed};

    #[test]
    fn what_is_missing_has_one_form() {
        for number in [None, Some(0), Some(i64::MIN)] {
            let mut packed = Packed::default();
            packed.maybe(number);
            assert_eq!(Cursor(&packed.0).maybe(), Some((number.is_some(), number.unwrap_or(0))));
        }
        let mut changed = Packed::default();
        changed.byte(0);
        changed.number(4);
        assert_eq!(Cursor(&changed.0).maybe(), None);
    }
}
