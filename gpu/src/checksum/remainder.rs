//! Arithmetic of CRC32C: polynomials over GF(2) modulo its own, reflected, so that bit 31 is the coefficient of 1.

/// CRC32C's, without its x^32.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// The polynomial 1.
pub(super) const ONE: u32 = 1 << 31;
/// `x^(2^n)`, of each n.
const SQUARES: [u32; 31] = squares(ONE >> 1);
/// `x^-(2^n)`, of each n.
const ROOTS: [u32; 31] = squares(inverse());

const fn squares(mut square: u32) -> [u32; 31] {
    let mut squares = [square; 31];
    let mut n = 1;
    while n < squares.len() {
        square = multiplied(square, square);
        squares[n] = square;
        n += 1;
    }
    squares
}

/// `1/x`: what becomes 1 when it is multiplied by x, which shifts it and adds the polynomial.
const fn inverse() -> u32 {
    ((ONE ^ POLYNOMIAL) << 1) | 1
}

/// `a * b`.
pub(super) const fn multiplied(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    while a != 0 {
        if a & ONE != 0 {
            product ^= b;
        }
        a <<= 1;
        b = (b >> 1) ^ if b & 1 == 0 { 0 } else { POLYNOMIAL };
    }
    product
}

/// `x^exponent`, which may be negative. x has the order `2^31 - 1` (the polynomial is x + 1 times a primitive one of
/// degree 31), so that no exponent has more bits.
pub(super) fn power(exponent: i64) -> u32 {
    let factors = if exponent < 0 { &ROOTS } else { &SQUARES };
    let exponent = exponent.unsigned_abs() % ((1 << 31) - 1);
    let factors = factors.iter().enumerate().filter(|(n, _)| exponent >> n & 1 != 0);
    factors.fold(ONE, |power, (_, factor)| multiplied(power, *factor))
}

/// The CRC32C of `bytes` bytes whose remainder is this when it begins with zero, and is not inverted at its end.
pub(super) fn finished(remainder: u32, bytes: u64) -> u32 {
    !(remainder ^ multiplied(power(8 * bytes as i64), u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_go_both_ways_and_round() {
        const ORDER: i64 = (1 << 31) - 1;
        for exponent in [1, 7, 4096, 8 * 12_345, ORDER - 1] {
            assert_eq!(multiplied(power(exponent), power(-exponent)), ONE, "x^{exponent}");
        }
        assert_eq!(power(31), 1, "the last that is no remainder of a larger one");
        assert_eq!(power(32), POLYNOMIAL);
        assert_eq!(multiplied(power(ORDER - 1), power(1)), ONE);
        assert_eq!((power(ORDER), power(8 << 40)), (ONE, power((8 << 40) - 5 * ORDER)));
    }

    #[test]
    fn a_remainder_is_finished_as_the_processor_does_it() {
        let bytes: Vec<u8> = (0..1000_u32).map(|at| (at * at / 7) as u8).collect();
        for length in [0, 1, 4, 999, 1000] {
            let bytes = &bytes[..length];
            // Begun with zero, and inverted back.
            let remainder = !crc32c::crc32c_append(u32::MAX, bytes);
            assert_eq!(finished(remainder, length as u64), crc32c::crc32c(bytes), "of {length} bytes");
        }
    }
}
