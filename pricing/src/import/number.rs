//! A price as a source wrote it, and the price that is taken for it.
//!
//! The rule for float noise: a number written with more than 15 significant digits went through a binary float, which
//! holds 15 decimal digits and then invents. It is rounded, half to even, to 12 significant digits and reported. So
//! `4.0000000000000003e-07` is 0.0000004. Numbers of up to 15 digits are taken as they stand. What is then still finer
//! than money (18 decimals of a unit price) is rounded there, and reported too.

use crate::money::Money;
use crate::rates::UNIT_PRICE_MAX;

/// Digits a binary double holds for certain.
const FLOAT_DIGITS: usize = 15;
/// Digits that are kept of a number with noise.
const KEPT_DIGITS: usize = 12;

/// A unit price that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Price {
    pub unit: Money,
    /// Whether digits were dropped on the way.
    pub rounded: bool,
}

/// The price of one unit, from the text of a number that is the price of 10^`power` units.
///
/// # Errors
/// Why the number is not a price.
pub(super) fn unit_price(text: &str, power: i32) -> Result<Price, &'static str> {
    let (mut digits, mut exponent) = scan(text).ok_or("not a decimal number")?;
    if text.starts_with('-') && !digits.is_empty() {
        return Err("a negative price");
    }
    let noisy = digits.len() > FLOAT_DIGITS;
    if noisy {
        exponent += i64::try_from(digits.len() - KEPT_DIGITS).unwrap_or(i64::MAX / 4);
        digits = rounded(&digits);
    }
    let digits: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
    let shifted = format!("0{digits}e{}", exponent - i64::from(power));
    match Money::parse_rounded(&shifted) {
        Ok((unit, _)) if unit > UNIT_PRICE_MAX => Err("more than 10^6 USD per unit"),
        Ok((unit, finer)) => Ok(Price { unit, rounded: noisy || finer }),
        Err(_) => Err("more than 10^6 USD per unit"),
    }
}

/// The significant digits of a JSON number and the power of ten of the last one.
fn scan(text: &str) -> Option<(Vec<u8>, i64)> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || mantissa.len() > 400 {
        return None;
    }
    let mut exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
    let digits = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0');
    let mut digits: Vec<u8> = digits.skip_while(|digit| *digit == 0).collect();
    while digits.last() == Some(&0) {
        digits.pop();
        exponent += 1;
    }
    Some((digits, exponent))
}

/// The first digits, rounded half to even.
fn rounded(digits: &[u8]) -> Vec<u8> {
    let (kept, dropped) = digits.split_at(KEPT_DIGITS);
    let mut kept = kept.to_vec();
    let half = dropped[0] == 5 && dropped[1..].iter().all(|digit| *digit == 0);
    let up = if half { kept[KEPT_DIGITS - 1] % 2 == 1 } else { dropped[0] >= 5 };
    if up {
        for position in (0..KEPT_DIGITS).rev() {
            if kept[position] < 9 {
                kept[position] += 1;
                return kept;
            }
            kept[position] = 0;
        }
        // 99…9 became 100…0: one digit more, and the same power of ten.
        kept.insert(0, 1);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, power: i32) -> (String, bool) {
        let price = unit_price(text, power).unwrap();
        (price.unit.to_string(), price.rounded)
    }

    #[test]
    fn float_noise_is_rounded_to_twelve_digits_and_said_so() {
        for (text, power, expected, rounded) in [
            ("4.0000000000000003e-07", 0, "0.0000004", true),
            ("1.4999999999999999e-07", 0, "0.00000015", true),
            ("9.9999999999999995e-08", 0, "0.0000001", true),
            ("2.0000000000000001E-4", 0, "0.0002", true),
            ("3.0833333333333333e-05", 0, "0.0000308333333333", true),
            ("4e-07", 0, "0.0000004", false),
            ("0.15", 6, "0.00000015", false),
            ("15", 6, "0.000015", false),
            ("10", 3, "0.01", false),
            ("0.100000000000001", 0, "0.100000000000001", false),
            ("0", 6, "0", false),
            ("0.0", 0, "0", false),
            ("-0.0", 0, "0", false),
            ("100", 0, "100", false),
            // 19 decimals of a unit price: rounded half to even.
            ("0.0000000000015", 6, "0.000000000000000002", true),
        ] {
            assert_eq!(read(text, power), (expected.to_owned(), rounded), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_price_is_refused() {
        for text in ["-1", "1e9", "", "x", ".5", "1e99999999999", "1e400", "NaN", "1.2.3"] {
            assert!(unit_price(text, 0).is_err(), "{text}");
        }
    }
}
