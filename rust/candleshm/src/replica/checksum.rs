//! CRC32C, eight bytes at a time, of four places at once where there are many: it finds what was cut, mixed up or changed on the way.

const POLYNOMIAL: u32 = 0x82F6_3B78;

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// Bytes of one of the places that are read at once, and how many places there are.
const LANE_BYTES: usize = 1024;
const LANES: usize = 4;

/// What a checksum becomes by `LANE_BYTES` zeros, for each of its bytes.
static BEHIND_LANE: [[u32; 256]; 4] = behind_lane();

const fn behind_lane() -> [[u32; 256]; 4] {
    let mut of_bit = [0; 32];
    let mut bit = 0;
    while bit < 32 {
        let (mut value, mut zeros): (u32, usize) = (1 << bit, 0);
        while zeros < LANE_BYTES {
            value = value >> 8 ^ TABLES[0][(value & 0xFF) as usize];
            zeros += 1;
        }
        of_bit[bit] = value;
        bit += 1;
    }
    let mut tables = [[0; 256]; 4];
    let mut at = 0;
    while at < 4 * 256 {
        let (place, byte) = (at / 256, at % 256);
        let mut bit = 0;
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                tables[place][byte] ^= of_bit[place * 8 + bit];
            }
            bit += 1;
        }
        at += 1;
    }
    tables
}

/// Returns the CRC32C of the parts, one after the other.
#[must_use]
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(!0, |crc, part| update(crc, part))
}

fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let (blocks, bytes) = bytes.as_chunks::<{ LANE_BYTES * LANES }>();
    for block in blocks {
        // Four chains of look-ups, none of which waits for another.
        let (words, _) = block.as_chunks::<8>();
        let (lanes, _) = words.as_chunks::<{ LANE_BYTES / 8 }>();
        let mut sums = [crc, 0, 0, 0];
        for (((one, two), three), four) in lanes[0].iter().zip(&lanes[1]).zip(&lanes[2]).zip(&lanes[3]) {
            sums = [step(sums[0], *one), step(sums[1], *two), step(sums[2], *three), step(sums[3], *four)];
        }
        let [first, others @ ..] = sums;
        crc = others.iter().fold(first, |crc, sum| {
            (0..4).fold(*sum, |all, place| all ^ BEHIND_LANE[place][(crc >> (8 * place)) as usize & 0xFF])
        });
    }
    let (words, rest) = bytes.as_chunks::<8>();
    let crc = words.iter().fold(crc, |crc, word| step(crc, *word));
    rest.iter().fold(crc, |crc, &byte| crc >> 8 ^ TABLES[0][((crc ^ u32::from(byte)) & 0xFF) as usize])
}

fn step(crc: u32, word: [u8; 8]) -> u32 {
    let value = u64::from_le_bytes(word) ^ u64::from(crc);
    (0..8).fold(0, |sum, at| sum ^ TABLES[7 - at][(value >> (8 * at)) as usize & 0xFF])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bytes_are_as_one_by_one() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for range in [0..40_000, 1..4_097, 3..8_195, 5..39_999, 7..4_102] {
            let part = &bytes[range.clone()];
            let slowly = !part.iter().fold(!0, |crc, byte| update(crc, &[*byte]));
            assert_eq!(crc32c(&[part]), slowly, "{range:?}");
        }
    }

    #[test]
    fn the_values_of_the_standard() {
        assert_eq!(crc32c(&[b"123456789"]), 0xE306_9283);
        assert_eq!(crc32c(&[&[0; 32]]), 0x8A91_36AA);
        assert_eq!(crc32c(&[&[0xFF; 32]]), 0x62A8_AB43);
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xE306_9283);
    }
}
