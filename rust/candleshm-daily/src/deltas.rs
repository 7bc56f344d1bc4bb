//! Numbers as differences from one to the next, packed into as many bits as they need (`DELTA_BINARY_PACKED`).

use crate::compact::Compact;

/// Numbers of a block, at most; the usual one has 128.
const BLOCK_MAX: usize = 1 << 16;
/// The least number of numbers in a part of a block, of which it has a multiple.
const PART: usize = 32;

/// Appends exactly `count` numbers; `None` when they are not there.
pub(crate) fn append(bytes: &[u8], count: usize, numbers: &mut Vec<i64>) -> Option<()> {
    let mut from = Compact::new(bytes);
    let head = |from: &mut Compact<'_>| usize::try_from(from.varint()?).ok();
    let (block, parts, total) = (head(&mut from)?, head(&mut from)?, head(&mut from)?);
    let mut number = from.number()?;
    if total != count || block > BLOCK_MAX || parts == 0 || parts > block || !block.is_multiple_of(parts * PART) {
        return None;
    }
    let each = block / parts;
    let end = numbers.len() + count;
    if count > 0 {
        numbers.push(number);
    }
    while numbers.len() < end {
        let least = from.number()?;
        let (widths, mut packed) = from.rest().split_at_checked(parts)?;
        for &width in widths {
            let left = end - numbers.len();
            if left == 0 {
                break;
            }
            let width = usize::from(width);
            if width > 64 {
                return None;
            }
            let (bits, rest) = packed.split_at_checked(each / 8 * width)?;
            packed = rest;
            for place in 0..each.min(left) {
                number = number.wrapping_add(least).wrapping_add(bits_at(bits, place * width, width) as i64);
                numbers.push(number);
            }
        }
        from = Compact::new(packed);
    }
    Some(())
}

/// Returns `width` bits, the lowest first, from one of them on.
fn bits_at(bytes: &[u8], first: usize, width: usize) -> u64 {
    let mut value = 0;
    for (place, bit) in (first..first + width).enumerate() {
        value |= u64::from(bytes[bit / 8] >> (bit % 8) & 1) << place;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::append;

    fn numbers(bytes: &[u8], count: usize) -> Option<Vec<i64>> {
        let mut numbers = Vec::new();
        append(bytes, count, &mut numbers).map(|()| numbers)
    }

    #[test]
    fn equal_differences_take_no_bits() {
        // Blocks of 128 in 4 parts, three numbers, the first 7, differences of at least 5 in 0 bits.
        assert_eq!(numbers(&[0x80, 0x01, 4, 3, 14, 10, 0, 0, 0, 0], 3), Some(vec![7, 12, 17]));
    }

    #[test]
    fn bits_come_lowest_first() {
        // The example of the format: 7, 5, 3, 1, 2, 3, 4, 5 have differences of -2 + 0, 0, 0, 3, 3, 3, 3.
        let bytes = [0x80, 0x01, 4, 8, 14, 3, 2, 0, 0, 0, 0xC0, 0x3F, 0, 0, 0, 0, 0, 0];
        assert_eq!(numbers(&bytes, 8), Some(vec![7, 5, 3, 1, 2, 3, 4, 5]));
        assert_eq!(numbers(&bytes[..17], 8), None);
    }

    #[test]
    fn blocks_follow_one_another() {
        let mut bytes = vec![0x20, 1, 65, 2]; // blocks of 32 in one part, 65 numbers, the first 1
        for _ in 0..2 {
            bytes.extend([2, 0]); // differences of 1 in no bits
        }
        assert_eq!(numbers(&bytes, 65), Some((1..=65).collect()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bytes in [
            &[][..],
            &[0x80, 0x01, 0, 3, 14],                                              // no parts
            &[0, 4, 3, 14],                                                       // no block
            &[0x20, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 3, 14], // more parts than can be counted
            &[0x80, 0x01, 3, 3, 14, 10, 0, 0, 0],                                 // parts that do not make up a block
            &[0x80, 0x01, 4, 2, 14, 10, 0, 0, 0, 0],                              // another count
            &[0x80, 0x01, 4, 3, 14, 10, 65, 0, 0, 0],                             // more bits than a number has
            &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1, 3, 14, 0],                         // a block that no memory has
        ] {
            assert_eq!(numbers(bytes, 3), None, "{bytes:?}");
        }
    }
}
