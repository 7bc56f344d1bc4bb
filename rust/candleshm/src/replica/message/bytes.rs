//! Numbers and texts in bytes, each read within its bounds.

use super::Refusal;

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, left) = self.0.split_at_checked(count).ok_or(Refusal::Damaged)?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Refusal> {
        let (taken, left) = self.0.split_first_chunk().ok_or(Refusal::Damaged)?;
        self.0 = left;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Refusal> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refusal> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refusal> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a candle index, which has 32 bits.
    pub(super) fn index(&mut self) -> Result<u64, Refusal> {
        Ok(self.u32()?.into())
    }

    pub(super) fn f64(&mut self) -> Result<f64, Refusal> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// Reads a text of at most 255 bytes.
    pub(super) fn text(&mut self) -> Result<&'a str, Refusal> {
        let size = self.u8()?;
        core::str::from_utf8(self.take(size.into())?).map_err(|_| Refusal::Damaged)
    }

    /// Reads a count of things that take at least so many bytes each.
    pub(super) fn count(&mut self, bytes_each: usize) -> Result<usize, Refusal> {
        let count = self.u32()? as usize;
        if count.saturating_mul(bytes_each) > self.0.len() {
            return Err(Refusal::Damaged);
        }
        Ok(count)
    }
}

/// Writing.
pub(super) mod put {
    pub(in super::super) fn u16(bytes: &mut Vec<u8>, value: u16) {
        bytes.extend(value.to_le_bytes());
    }

    pub(in super::super) fn u32(bytes: &mut Vec<u8>, value: u32) {
        bytes.extend(value.to_le_bytes());
    }

    pub(in super::super) fn u64(bytes: &mut Vec<u8>, value: u64) {
        bytes.extend(value.to_le_bytes());
    }

    /// Writes a text, of which what is beyond 255 bytes is left out.
    pub(in super::super) fn text(bytes: &mut Vec<u8>, text: &str) {
        let text = &text[..text.floor_char_boundary(255)];
        bytes.push(text.len() as u8);
        bytes.extend(text.as_bytes());
    }
}
