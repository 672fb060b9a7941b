//! The options Block1 and Block2 as a client reads and writes them (RFC 7959, section 2.2).

use coap_lite::{CoapOption, Packet};

use super::ClientError;

/// A block's place in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Which block, counted in blocks of this size. 20 bits.
    pub(super) number: u32,
    /// Whether another block follows.
    pub(super) more: bool,
    /// A block has 2^(4 + exponent) bytes.
    pub(super) exponent: u8,
}

impl Block {
    /// The exponent of the largest block over UDP: 1,024 bytes.
    pub(super) const EXPONENT_MAX: u8 = 6;
    const NUMBER_MAX: u32 = (1 << 20) - 1;

    /// The size of blocks of this exponent.
    pub(super) fn bytes_of(exponent: u8) -> usize {
        16 << exponent
    }

    /// The block that begins at this byte of the payload; `None` if there is none, or no number for it.
    pub(super) fn at(offset: usize, more: bool, exponent: u8) -> Option<Self> {
        let bytes = Self::bytes_of(exponent);
        let number = u32::try_from(offset / bytes).ok().filter(|number| *number <= Self::NUMBER_MAX)?;
        offset.is_multiple_of(bytes).then_some(Self { number, more, exponent })
    }

    /// The block that a response says it is or answers.
    pub(super) fn of(response: &Packet, option: CoapOption) -> Result<Option<Self>, ClientError> {
        let Some(value) = response.get_first_option(option) else { return Ok(None) };
        let bits = number_of(value).filter(|_| value.len() <= 3).ok_or(ClientError::Blocks)?;
        let exponent = (bits & 7) as u8;
        if exponent > Self::EXPONENT_MAX {
            return Err(ClientError::Blocks);
        }
        Ok(Some(Self { number: bits >> 4, more: bits & 8 != 0, exponent }))
    }

    /// The option's value.
    pub(super) fn encode(self) -> Vec<u8> {
        shortest(self.number << 4 | u32::from(self.more) << 3 | u32::from(self.exponent))
    }

    /// Where it begins in the payload, in bytes.
    pub(super) fn offset(self) -> usize {
        self.number as usize * Self::bytes_of(self.exponent)
    }

    /// Where it ends, if it is not the last one.
    pub(super) fn end(self) -> usize {
        self.offset() + Self::bytes_of(self.exponent)
    }
}

/// A number as options have it: big-endian, without leading zeros.
pub(super) fn shortest(number: u32) -> Vec<u8> {
    number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// Undoes [`shortest`]; `None` if the number is longer than any option's.
pub(super) fn number_of(value: &[u8]) -> Option<u32> {
    (value.len() <= 4).then(|| value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_options_have_no_leading_zeros() {
        assert_eq!(shortest(0), Vec::<u8>::new());
        assert_eq!(shortest(0x0102), [1, 2]);
        assert_eq!(number_of(&shortest(70_000)), Some(70_000));
        assert_eq!(number_of(&[0; 5]), None);
    }

    #[test]
    fn a_block_says_number_more_and_size() {
        assert_eq!(Block::at(0, true, 6).unwrap().encode(), [0x0E]);
        assert_eq!(Block::at(16 << 10, false, 6).unwrap().encode(), [0x01, 0x06]);
        assert_eq!(Block::at(16 << 10, false, 5).unwrap().encode(), [0x02, 0x05]);
    }

    #[test]
    fn only_what_begins_a_block_and_can_be_counted_is_one() {
        assert_eq!(Block::at(1000, false, 6), None);
        assert!(Block::at((1 << 30) - 1024, false, 6).is_some());
        assert_eq!(Block::at(1 << 30, false, 6), None);
        assert_eq!(Block::at(16 << 20, false, 0), None);
    }
}
