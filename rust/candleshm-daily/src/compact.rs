//! Thrift's compact protocol: the structs of a Parquet file, read from the front with every bound checked.

/// Structs, lists and maps within each other, at most.
const DEPTH_MAX: usize = 16;
/// The longest number of variable length: 64 bits, seven in a byte.
const SHIFT_MAX: u32 = 63;

/// Kinds of values. A number of 16 bits is written as one of 64 is, but is another kind.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
pub(crate) const I16: u8 = 4;
pub(crate) const I32: u8 = 5;
pub(crate) const I64: u8 = 6;
pub(crate) const BYTES: u8 = 8;
pub(crate) const LIST: u8 = 9;
pub(crate) const STRUCT: u8 = 12;

/// Bytes that are read from the front; every method returns `None` when they are not there, or not of that kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compact<'a> {
    bytes: &'a [u8],
    depth: usize,
}

impl<'a> Compact<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, depth: 0 }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// A number without a sign, seven bits in a byte, the lowest first.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
            if shift > SHIFT_MAX {
                return None;
            }
        }
    }

    /// A number with a sign: small ones are short, whatever their sign.
    pub(crate) fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number that counts something.
    pub(crate) fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    pub(crate) fn binary(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.varint()?).ok()?;
        self.take(count)
    }

    /// Reads a struct: `field` is called with the number and the kind of each, and reads or skips its value.
    pub(crate) fn fields(&mut self, mut field: impl FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        self.nested(|this| {
            let mut number = 0;
            loop {
                let head = this.byte()?;
                if head == 0 {
                    return Some(());
                }
                let (step, kind) = (i64::from(head >> 4), head & 0xF);
                number = if step == 0 { this.number()? } else { number.checked_add(step)? };
                field(this, number, kind)?;
            }
        })
    }

    /// Reads a list of values of a kind: `element` is called for each, and reads it.
    pub(crate) fn list(&mut self, of: u8, mut element: impl FnMut(&mut Self, usize) -> Option<()>) -> Option<()> {
        self.nested(|this| {
            let (count, kind) = this.list_head()?;
            if kind != of {
                return None;
            }
            (0..count).try_for_each(|place| element(this, place))
        })
    }

    /// Passes over a value of a kind; `None` for kinds that no file of ours has.
    pub(crate) fn skip(&mut self, kind: u8) -> Option<()> {
        match kind {
            TRUE | FALSE => Some(()),
            I16 | I32 | I64 => self.varint().map(drop),
            BYTES => self.binary().map(drop),
            LIST => self.nested(|this| {
                let (count, kind) = this.list_head()?;
                (0..count).try_for_each(|_| this.skip(kind))
            }),
            STRUCT => self.fields(|this, _, kind| this.skip(kind)),
            _ => None,
        }
    }

    fn list_head(&mut self) -> Option<(usize, u8)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { usize::try_from(self.varint()?).ok()? } else { usize::from(head >> 4) };
        // Each element takes a byte at least.
        (count <= self.bytes.len()).then_some((count, head & 0xF))
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let done = read(self);
        self.depth -= 1;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::Compact;

    #[test]
    fn numbers_are_read_to_their_last_bit() {
        for (bytes, number) in [(&[0x00][..], 0), (&[0x01], -1), (&[0x02], 1), (&[0xFF, 0x01], -128)] {
            assert_eq!(Compact::new(bytes).number(), Some(number));
        }
        let longest = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        assert_eq!(Compact::new(&longest).number(), Some(i64::MIN));
        assert_eq!(Compact::new(&[0xFF; 11]).number(), None);
        assert_eq!(Compact::new(&longest[..9]).number(), None);
    }

    #[test]
    fn structs_within_structs_are_bounded() {
        // A field 1 of the kind struct, over and over.
        assert_eq!(Compact::new(&[0x1C; 1000]).skip(12), None);
        assert_eq!(Compact::new(&[0x1C, 0x1C, 0, 0, 0]).skip(12), Some(()));
    }

    #[test]
    fn fields_are_counted_up_to_the_last_number() {
        let last = [0x05, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x02];
        let with_one_more = [&last[..], &[0x15, 0x02, 0x00]].concat();
        assert_eq!(Compact::new(&with_one_more).skip(12), None);
        assert_eq!(Compact::new(&[&last[..], &[0x00]].concat()).skip(12), Some(()));
    }

    #[test]
    fn a_list_cannot_be_longer_than_its_bytes() {
        assert_eq!(Compact::new(&[0xF5, 0xFF, 0xFF, 0xFF, 0x0F, 0x00]).skip(super::LIST), None);
        assert_eq!(Compact::new(&[0x25, 0x02, 0x04]).skip(super::LIST), Some(()));
    }
}
