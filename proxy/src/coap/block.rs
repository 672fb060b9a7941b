//! The value of the options Block1 and Block2 (RFC 7959, section 2.2).
//!
//! ```text
//!   NUM (up to 20 bits)                     | M | SZX |
//!   number of the block, counted in its size| 1 |  3  |   size = 16 << SZX
//! ```

/// A block's place in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Which block, counted in blocks of this size. 20 bits.
    pub(super) number: u32,
    /// Whether another block follows.
    pub(super) more: bool,
    /// The size's exponent (SZX), at most [`Self::EXPONENT_MAX`].
    pub(super) exponent: u8,
}

/// The size exponent 7 is reserved: over UDP no block is larger than 1,024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block size exponent 7 is reserved")]
pub(super) struct ReservedExponent;

impl Block {
    /// The exponent of the largest block: 1,024 bytes.
    pub(super) const EXPONENT_MAX: u8 = 6;
    /// The largest number 20 bits hold.
    pub(super) const NUMBER_MAX: u32 = (1 << 20) - 1;

    /// Reads an option value of at most three bytes.
    pub(super) fn decode(value: &[u8]) -> Result<Self, ReservedExponent> {
        let bits = value.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let exponent = (bits & 0b111) as u8;
        if exponent > Self::EXPONENT_MAX {
            return Err(ReservedExponent);
        }
        Ok(Self { number: bits >> 4 & Self::NUMBER_MAX, more: bits & 0b1000 != 0, exponent })
    }

    /// The option value, as an unsigned integer of the fewest bytes.
    pub(super) fn encode(self) -> Vec<u8> {
        let bits = self.number << 4 | u32::from(self.more) << 3 | u32::from(self.exponent);
        shortest(bits)
    }

    /// The block's size in bytes; the last block of a payload may hold less.
    pub(super) fn size(self) -> usize {
        16 << self.exponent
    }

    /// Where the block starts in the payload, in bytes.
    pub(super) fn offset(self) -> usize {
        self.number as usize * self.size()
    }
}

/// An unsigned integer as an option value: big-endian, without leading zero bytes (RFC 7252, section 3.2).
pub(super) fn shortest(value: u32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let zeros = value.leading_zeros() as usize / 8;
    bytes[zeros..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_round_trip() {
        for number in [0, 1, 15, 16, 4095, 4096, 65_536, Block::NUMBER_MAX] {
            for more in [false, true] {
                for exponent in 0..=Block::EXPONENT_MAX {
                    let block = Block { number, more, exponent };
                    let value = block.encode();
                    assert!(value.len() <= 3);
                    assert_eq!(Block::decode(&value), Ok(block));
                }
            }
        }
    }

    #[test]
    fn the_empty_value_is_block_zero_of_sixteen_bytes() {
        let block = Block::decode(&[]).unwrap();
        assert_eq!((block.number, block.more, block.size()), (0, false, 16));
        assert!(block.encode().is_empty());
    }

    #[test]
    fn exponent_seven_is_refused() {
        assert_eq!(Block::decode(&[0x07]), Err(ReservedExponent));
        assert_eq!(Block::decode(&[0xff, 0xff, 0xff]), Err(ReservedExponent));
    }

    #[test]
    fn offsets_do_not_wrap() {
        let last = Block { number: Block::NUMBER_MAX, more: false, exponent: 6 };
        assert_eq!(last.offset(), (1024 << 20) - 1024);
    }
}
