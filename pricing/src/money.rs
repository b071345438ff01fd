//! Money as an integer (MONEY-1): one `i128` count of 10⁻¹⁸ USD, read from decimal text and written back as decimal
//! text.
//!
//! Nothing here passes through a float. A number that does not fit the 18 decimals is an error that names the digits
//! (`FromStr`), or a rounding the caller is told about and counts (`parse_rounded`); it is never silent (MONEY-2).
//!
//! Limits: |amount| < 10³⁸ units (10²⁰ USD), which is what Arrow's `Decimal128(38, 18)` holds; text up to 400 bytes.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Longest decimal text that is looked at; a float printed in full needs fewer than 400 characters.
const TEXT_MAX_BYTES: usize = 400;

/// An amount of US dollars, exact to the 18th decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

impl Money {
    pub const ZERO: Money = Money(0);
    /// Decimals kept: one unit is 10⁻¹⁸ USD.
    pub const SCALE: u32 = 18;
    /// Units in one dollar.
    pub const ATTO_PER_USD: i128 = 10_i128.pow(Self::SCALE);
    /// Every amount lies strictly between `-LIMIT` and `LIMIT` units.
    pub const LIMIT: i128 = 10_i128.pow(38);

    /// The amount of `atto` × 10⁻¹⁸ USD.
    ///
    /// # Panics
    /// If `|atto| >= 10^38`: such a number cannot be written to the ledger's decimal column. Use
    /// [`Money::try_from_atto`] for numbers of unknown origin.
    #[must_use]
    pub const fn from_atto(atto: i128) -> Self {
        assert!(atto > -Self::LIMIT && atto < Self::LIMIT, "MONEY-1: amount outside Decimal128(38, 18)");
        Money(atto)
    }

    /// The amount of `atto` × 10⁻¹⁸ USD, or `None` outside the 38 digits.
    #[must_use]
    pub const fn try_from_atto(atto: i128) -> Option<Self> {
        if atto > -Self::LIMIT && atto < Self::LIMIT { Some(Money(atto)) } else { None }
    }

    /// The count of 10⁻¹⁸ USD.
    #[must_use]
    pub const fn atto(self) -> i128 {
        self.0
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    // The sums below cannot overflow i128 (2 × 10³⁸ > i128::MAX is excluded by the checked operations themselves).

    #[must_use]
    pub fn checked_add(self, other: Money) -> Option<Money> {
        self.0.checked_add(other.0).and_then(Money::try_from_atto)
    }

    #[must_use]
    pub fn checked_sub(self, other: Money) -> Option<Money> {
        self.0.checked_sub(other.0).and_then(Money::try_from_atto)
    }

    #[must_use]
    pub fn checked_neg(self) -> Option<Money> {
        Some(Money(-self.0))
    }

    #[must_use]
    pub fn checked_mul(self, count: u64) -> Option<Money> {
        self.0.checked_mul(i128::from(count)).and_then(Money::try_from_atto)
    }

    /// Whether `self >= whole × thousandths / 1000`, decided on integers of 256 bits: no rounding, no overflow.
    ///
    /// 75 % is 750 thousandths. A budget of zero is reached by any spend that is not negative.
    #[must_use]
    pub fn at_least_fraction_of(self, whole: Money, thousandths: u32) -> bool {
        wide_product(self.0, 1000) >= wide_product(whole.0, thousandths)
    }

    /// `self / whole` in parts per million, rounded down (towards −∞).
    ///
    /// `None` where `whole` is zero, or where the ratio itself is beyond an `i128`.
    #[must_use]
    pub fn parts_per_million_of(self, whole: Money) -> Option<i128> {
        const PPM: u32 = 1_000_000;
        if whole.0 == 0 {
            return None;
        }
        if let Some(scaled) = self.0.checked_mul(i128::from(PPM)) {
            let (quotient, remainder) = (scaled / whole.0, scaled % whole.0);
            let inexact_and_negative = remainder != 0 && (scaled < 0) != (whole.0 < 0);
            return Some(quotient - i128::from(inexact_and_negative));
        }
        let negative = (self.0 < 0) != (whole.0 < 0);
        let (high, low) = mul_wide(self.0.unsigned_abs(), PPM);
        let (quotient, exact) = div_wide(high, low, whole.0.unsigned_abs())?;
        let magnitude = i128::try_from(quotient).ok()?;
        Some(if negative { -magnitude - i128::from(!exact) } else { magnitude })
    }

    /// `self × factor`, where the factor is a decimal held as [`Money`] is; rounded half to even at the 18th decimal,
    /// and whether it had to be.
    ///
    /// `None` where the product leaves the range.
    #[must_use]
    pub fn times_decimal(self, factor: Money) -> Option<(Money, bool)> {
        let (high, low) = mul_wide_128(self.0.unsigned_abs(), factor.0.unsigned_abs());
        let negative = (self.0 < 0) != (factor.0 < 0);
        rounded_quotient(high, low, Self::ATTO_PER_USD.unsigned_abs(), negative)
    }

    /// `self ÷ divisor`, likewise.
    ///
    /// `None` where the divisor is zero or the quotient leaves the range.
    #[must_use]
    pub fn divided_by_decimal(self, divisor: Money) -> Option<(Money, bool)> {
        if divisor.0 == 0 {
            return None;
        }
        let (high, low) = mul_wide_128(self.0.unsigned_abs(), Self::ATTO_PER_USD.unsigned_abs());
        let negative = (self.0 < 0) != (divisor.0 < 0);
        rounded_quotient(high, low, divisor.0.unsigned_abs(), negative)
    }

    /// `self × numerator ÷ denominator`, likewise.
    ///
    /// `None` where the denominator is zero or the result leaves the range.
    #[must_use]
    pub fn scaled(self, numerator: u64, denominator: u64) -> Option<(Money, bool)> {
        if denominator == 0 {
            return None;
        }
        let (high, low) = mul_wide_128(self.0.unsigned_abs(), u128::from(numerator));
        rounded_quotient(high, low, u128::from(denominator), self.0 < 0)
    }

    /// Reads decimal text like [`FromStr`], but rounds half to even at the 18th decimal and says whether it had to.
    ///
    /// For costs that third parties report: those carry float noise. The caller counts the `true`s (MONEY-2).
    ///
    /// # Errors
    /// Text that is not a decimal number, or an amount of 10²⁰ USD and more.
    pub fn parse_rounded(text: &str) -> Result<(Money, bool), MoneyError> {
        let (money, exact) = Decimal::scan(text)?.to_money(text)?;
        Ok((money, !exact))
    }
}

/// Why a text is not an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("`{text}` is not a decimal number; expected digits such as 3, 0.15 or 1e-7")]
    NotDecimal { text: String },
    #[error("`{text}` has digits beyond the 18th decimal (…{excess}), and money is kept to 18 decimals exactly")]
    TooFine { text: String, excess: String },
    #[error("`{text}` is too large: an amount must stay below 10^20 USD")]
    TooLarge { text: String },
}

/// A scanned decimal: `digits` = integer part then fraction, times 10^exponent.
struct Decimal<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn scan(text: &'a str) -> Result<Self, MoneyError> {
        let not_decimal = || MoneyError::NotDecimal { text: shown(text) };
        let bytes = text.as_bytes();
        if bytes.len() > TEXT_MAX_BYTES {
            return Err(not_decimal());
        }
        let (negative, rest) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (integer, rest) = split_digits(rest);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => split_digits(rest),
            rest => (&[][..], rest),
        };
        if integer.is_empty() && fraction.is_empty() {
            return Err(not_decimal());
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => {
                let (minus, rest) = match rest {
                    [b'-', rest @ ..] => (true, rest),
                    [b'+', rest @ ..] => (false, rest),
                    rest => (false, rest),
                };
                let (digits, rest) = split_digits(rest);
                if digits.is_empty() || !rest.is_empty() {
                    return Err(not_decimal());
                }
                // Saturates: beyond a million every non-zero number is too large or too fine anyway.
                let size = digits.iter().fold(0_i64, |n, d| (n * 10 + i64::from(d - b'0')).min(1_000_000));
                if minus { -size } else { size }
            }
            _ => return Err(not_decimal()),
        };
        Ok(Decimal { negative, integer, fraction, exponent })
    }

    /// The amount rounded half to even, and whether it is exact.
    fn to_money(&self, text: &str) -> Result<(Money, bool), MoneyError> {
        let too_large = || MoneyError::TooLarge { text: shown(text) };
        // `shift` is the power of ten that turns the run of digits into units of 10⁻¹⁸.
        let shift = i64::from(Money::SCALE) + self.exponent - as_i64(self.fraction.len());
        let kept = if shift < 0 { as_i64(self.integer.len() + self.fraction.len()) + shift } else { i64::MAX };
        let limit = Money::LIMIT.unsigned_abs();
        let (mut units, mut first_dropped, mut later_dropped) = (0_u128, 0_u8, false);
        for (position, digit) in self.digits().enumerate() {
            let position = as_i64(position);
            if position < kept {
                if units >= limit / 10 {
                    return Err(too_large());
                }
                units = units * 10 + u128::from(digit);
            } else if position == kept {
                first_dropped = digit;
            } else {
                later_dropped |= digit != 0;
            }
        }
        if units != 0 {
            for _ in 0..shift {
                if units >= limit / 10 {
                    return Err(too_large());
                }
                units *= 10;
            }
        }
        let odd = units % 2 == 1;
        if first_dropped > 5 || (first_dropped == 5 && (later_dropped || odd)) {
            units += 1;
        }
        if units >= limit {
            return Err(too_large());
        }
        let amount = i128::try_from(units).map_err(|_| too_large())?;
        Ok((Money(if self.negative { -amount } else { amount }), first_dropped == 0 && !later_dropped))
    }

    fn digits(&self) -> impl Iterator<Item = u8> + '_ {
        self.integer.iter().chain(self.fraction).map(|digit| digit - b'0')
    }

    /// The digits that 18 decimals cannot hold, for the error.
    fn excess(&self) -> String {
        let shift = i64::from(Money::SCALE) + self.exponent - as_i64(self.fraction.len());
        let kept = (as_i64(self.integer.len() + self.fraction.len()) + shift).max(0);
        let digits: String =
            self.digits().skip(usize::try_from(kept).unwrap_or(usize::MAX)).map(|d| char::from(d + b'0')).collect();
        shown(digits.trim_end_matches('0'))
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let decimal = Decimal::scan(text)?;
        match decimal.to_money(text)? {
            (money, true) => Ok(money),
            (_, false) => Err(MoneyError::TooFine { text: shown(text), excess: decimal.excess() }),
        }
    }
}

impl fmt::Display for Money {
    /// The shortest exact decimal: `0.00000015`, `1.5`, `0`, `-2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let unit = Self::ATTO_PER_USD.unsigned_abs();
        let (whole, mut fraction) = (magnitude / unit, magnitude % unit);
        if fraction == 0 {
            return f.pad_integral(self.0 >= 0, "", &whole.to_string());
        }
        let mut decimals = Self::SCALE as usize;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            decimals -= 1;
        }
        f.pad_integral(self.0 >= 0, "", &format!("{whole}.{fraction:0decimals$}"))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DecimalText;
        impl Visitor<'_> for DecimalText {
            type Value = Money;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an amount of USD as a string such as \"0.15\" (a bare number may already have lost digits)",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(DecimalText)
    }
}

fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

fn as_i64(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// At most 60 characters of a text, for an error message.
fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A signed 256-bit number: compares as (high, low) because the low half is unsigned in two's complement.
fn wide_product(factor: i128, by: u32) -> (i128, u128) {
    let (high, low) = mul_wide(factor.unsigned_abs(), by);
    // `high` is below 2³², so it always fits.
    let high = i128::try_from(high).unwrap_or(i128::MAX);
    if factor >= 0 { (high, low) } else { (!high + i128::from(low == 0), low.wrapping_neg()) }
}

/// `factor × by` as (high, low) halves of 256 bits.
fn mul_wide(factor: u128, by: u32) -> (u128, u128) {
    let by = u128::from(by);
    let low = (factor & u128::from(u64::MAX)) * by;
    let high = (factor >> 64) * by + (low >> 64);
    (high >> 64, (high << 64) | (low & u128::from(u64::MAX)))
}

/// The product of two 128-bit numbers as (high, low) halves of 256 bits.
fn mul_wide_128(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a_high, a_low, b_high, b_low) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let low = a_low * b_low;
    // None of the sums below can overflow: each is at most (2⁶⁴ − 1)² + 2 (2⁶⁴ − 1).
    let middle = a_high * b_low + (low >> 64);
    let cross = a_low * b_high + (middle & LOW);
    (a_high * b_high + (middle >> 64) + (cross >> 64), (cross << 64) | (low & LOW))
}

/// `(high, low) / divisor`, rounded half to even, and whether it had to be; `None` outside the range of [`Money`].
fn rounded_quotient(high: u128, low: u128, divisor: u128, negative: bool) -> Option<(Money, bool)> {
    let (mut quotient, remainder) = div_rem_wide(high, low, divisor)?;
    let rest = divisor - remainder;
    if remainder > rest || (remainder == rest && quotient % 2 == 1) {
        quotient = quotient.checked_add(1)?;
    }
    let amount = i128::try_from(quotient).ok()?;
    Some((Money::try_from_atto(if negative { -amount } else { amount })?, remainder != 0))
}

/// `(high, low) / divisor` by shift and subtract, with whether it divides exactly; `None` if the quotient needs more
/// than 128 bits.
fn div_wide(high: u128, low: u128, divisor: u128) -> Option<(u128, bool)> {
    div_rem_wide(high, low, divisor).map(|(quotient, remainder)| (quotient, remainder == 0))
}

/// Quotient and remainder of 256 by 128 bits; `None` if the quotient needs more than 128 bits.
fn div_rem_wide(high: u128, low: u128, divisor: u128) -> Option<(u128, u128)> {
    if high == 0 {
        // Nearly every amount: a few hundred dollars times a factor near one.
        return low.checked_div(divisor).map(|quotient| (quotient, low % divisor));
    }
    if high >= divisor {
        return None;
    }
    let (mut remainder, mut quotient) = (high, 0_u128);
    for bit in (0..128).rev() {
        let carry = remainder >> 127 == 1;
        remainder = (remainder << 1) | ((low >> bit) & 1);
        quotient <<= 1;
        if carry || remainder >= divisor {
            remainder = remainder.wrapping_sub(divisor);
            quotient |= 1;
        }
    }
    Some((quotient, remainder))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn one_token_of_a_fifteen_cent_model_costs_exactly_fifteen_hundred_millionths_and_ten_million_cost_one_and_a_half()
    {
        let per_token = Money::from_atto(money("0.15").atto() / 1_000_000);
        assert_eq!(per_token.to_string(), "0.00000015");
        assert_eq!(per_token.checked_mul(10_000_000).unwrap().to_string(), "1.5");
    }

    #[test]
    fn decimal_text_is_read_with_sign_and_exponent() {
        for (text, atto) in [
            ("3", 3_000_000_000_000_000_000),
            ("+0.15", 150_000_000_000_000_000),
            ("-2", -2_000_000_000_000_000_000),
            ("1e-7", 100_000_000_000),
            ("4.2E+1", 42_000_000_000_000_000_000),
            ("0.000000000000000001", 1),
            ("0.00000000000000000100000000000000000000", 1),
            ("10000000000000000000000e-39", 10),
            ("0e999999999999999999", 0),
            ("-0", 0),
            ("5.", 5_000_000_000_000_000_000),
            (".5", 500_000_000_000_000_000),
            ("000000000000000000000000000000000000000000000000001.5", 1_500_000_000_000_000_000),
        ] {
            assert_eq!(money(text).atto(), atto, "{text}");
        }
    }

    #[test]
    fn text_that_is_not_a_decimal_is_refused() {
        for text in
            ["", "-", "+", ".", "e5", "1e", "1e+", "1.2.3", "0x10", "1_000", " 1", "1 ", "NaN", "inf", "1,5", "٣"]
        {
            assert!(matches!(text.parse::<Money>(), Err(MoneyError::NotDecimal { .. })), "{text:?}");
        }
    }

    #[test]
    fn digits_beyond_the_eighteenth_decimal_are_named() {
        let error = "0.1234567890123456789".parse::<Money>().unwrap_err();
        assert_eq!(error, MoneyError::TooFine { text: "0.1234567890123456789".into(), excess: "9".into() });
        let error = "1.5e-18".parse::<Money>().unwrap_err();
        assert_eq!(error, MoneyError::TooFine { text: "1.5e-18".into(), excess: "5".into() });
        assert!(matches!("1e-19".parse::<Money>(), Err(MoneyError::TooFine { .. })));
        assert!(matches!("1e-400000000000".parse::<Money>(), Err(MoneyError::TooFine { .. })));
    }

    #[test]
    fn amounts_that_thirty_eight_digits_cannot_hold_are_refused() {
        assert_eq!(money("99999999999999999999.999999999999999999").atto(), Money::LIMIT - 1);
        for text in ["100000000000000000000", "-1e20", "1e400", "99999999999999999999.9999999999999999999"] {
            assert!(Money::parse_rounded(text).is_err(), "{text}");
        }
        assert!(Money::from_atto(Money::LIMIT - 1).checked_add(Money::from_atto(1)).is_none());
        assert!(Money::from_atto(1 - Money::LIMIT).checked_sub(Money::from_atto(1)).is_none());
        assert!(money("1e19").checked_mul(u64::MAX).is_none());
    }

    #[test]
    fn reported_costs_round_half_to_even_and_say_so() {
        for (text, atto, inexact) in [
            ("0.0000000000000000005", 0, true),
            ("0.0000000000000000015", 2, true),
            ("0.00000000000000000050000001", 1, true),
            ("-0.0000000000000000025", -2, true),
            ("-0.0000000000000000025001", -3, true),
            ("0.00000000000000000249", 2, true),
            ("4.0000000000000003e-07", 400_000_000_000, true),
            ("1e-30", 0, true),
            ("0.1", 100_000_000_000_000_000, false),
        ] {
            assert_eq!(Money::parse_rounded(text), Ok((Money::from_atto(atto), inexact)), "{text}");
        }
    }

    #[test]
    fn a_threshold_is_reached_at_the_exact_unit_and_not_one_unit_before() {
        let budget = money("100");
        let line = money("75");
        assert!(line.at_least_fraction_of(budget, 750));
        assert!(!Money::from_atto(line.atto() - 1).at_least_fraction_of(budget, 750));
        assert!(Money::ZERO.at_least_fraction_of(Money::ZERO, 950));
        assert!(!money("-1").at_least_fraction_of(Money::ZERO, 950));
        let most = Money::from_atto(Money::LIMIT - 1);
        assert!(most.at_least_fraction_of(most, 1000));
        assert!(!most.at_least_fraction_of(most, 1001));
        assert!(money("-3").at_least_fraction_of(money("-4"), 750));
        assert!(!money("-4").at_least_fraction_of(money("-3"), 1000));
    }

    #[test]
    fn serde_writes_a_string_and_refuses_a_bare_number() {
        assert_eq!(serde_json::to_string(&money("0.00000015")).unwrap(), "\"0.00000015\"");
        assert_eq!(serde_json::from_str::<Money>("\"1e-7\"").unwrap(), money("0.0000001"));
        assert!(serde_json::from_str::<Money>("0.1").unwrap_err().to_string().contains("as a string"));
    }

    fn any_money() -> impl Strategy<Value = Money> {
        prop_oneof![
            (1 - Money::LIMIT..Money::LIMIT).prop_map(Money),
            (-1_000_000_000_i128..1_000_000_000).prop_map(Money),
            (0_u32..38, 1_i128..10).prop_map(|(power, digit)| Money(digit * 10_i128.pow(power))),
        ]
    }

    #[test]
    fn decimal_factors_are_exact_or_rounded_half_to_even() {
        let times =
            |a: &str, b: &str| money(a).times_decimal(money(b)).map(|(money, rounded)| (money.to_string(), rounded));
        let over = |a: &str, b: &str| {
            money(a).divided_by_decimal(money(b)).map(|(money, rounded)| (money.to_string(), rounded))
        };
        let some = |text: &str, rounded| Some((text.to_owned(), rounded));
        assert_eq!(times("1.50", "0.875"), some("1.3125", false));
        assert_eq!(times("-2", "1.1"), some("-2.2", false));
        assert_eq!(times("0.000000000000000001", "0.5"), some("0", true));
        assert_eq!(times("0.000000000000000003", "0.5"), some("0.000000000000000002", true));
        assert_eq!(times("0.000000000000000001", "0.51"), some("0.000000000000000001", true));
        assert_eq!(times("99999999999999999999", "1"), some("99999999999999999999", false));
        assert_eq!(times("99999999999999999999", "1.1"), None);
        assert_eq!(over("1", "3"), some("0.333333333333333333", true));
        assert_eq!(over("2", "3"), some("0.666666666666666667", true));
        assert_eq!(over("1.085", "1.085"), some("1", false));
        assert_eq!(over("1", "0"), None);
        assert_eq!(over("99999999999999999999", "0.1"), None);
        let hour = money("2.5").scaled(1, 3_600_000).unwrap();
        assert_eq!((hour.0.to_string(), hour.1), ("0.000000694444444444".to_owned(), true));
        assert_eq!(money("2.5").scaled(3_600_000, 3_600_000), Some((money("2.5"), false)));
    }

    proptest! {
        #[test]
        fn times_and_over_agree_with_plain_arithmetic_where_it_fits(a in -1_000_000_000_i128..1_000_000_000, b in 1_i128..1_000_000_000) {
            let unit = Money::ATTO_PER_USD;
            let nano = unit / 1_000_000_000;
            let (product, rounded) = Money::from_atto(a * nano).times_decimal(Money::from_atto(b * nano)).unwrap();
            prop_assert_eq!((product.atto(), rounded), (a * b, false));
            let (quotient, rounded) = Money::from_atto(a * b).divided_by_decimal(Money::from_atto(b * nano)).unwrap();
            prop_assert_eq!((quotient.atto(), rounded), (a * nano, false));
        }

        #[test]
        fn display_then_parse_is_the_identity(amount in any_money()) {
            let text = amount.to_string();
            prop_assert_eq!(text.parse::<Money>(), Ok(amount));
            prop_assert!(!text.contains('.') || !text.ends_with('0'));
        }

        #[test]
        fn an_exponent_says_the_same_as_moved_digits(digits in 0_u64.., exponent in -18_i32..1) {
            let scaled = i128::from(digits) * 10_i128.pow(u32::try_from(18 + exponent).unwrap());
            prop_assert_eq!(format!("{digits}e{exponent}").parse::<Money>(), Ok(Money(scaled)));
        }

        #[test]
        fn exact_and_rounded_reading_agree_and_differ_only_on_inexact_text(text in "[+-]?[0-9]{1,12}(\\.[0-9]{0,24})?(e-?[0-9]{1,2})?") {
            match (text.parse::<Money>(), Money::parse_rounded(&text)) {
                (Ok(exact), rounded) => prop_assert_eq!(rounded, Ok((exact, false))),
                (Err(MoneyError::TooFine { .. }), rounded) => prop_assert!(matches!(rounded, Ok((_, true))), "{:?}", rounded),
                (Err(error), rounded) => prop_assert_eq!(rounded, Err(error)),
            }
        }

        #[test]
        fn sums_are_undone_by_differences(a in any_money(), b in any_money()) {
            if let Some(sum) = a.checked_add(b) {
                prop_assert_eq!(sum.checked_sub(b), Some(a));
            }
        }

        #[test]
        fn fractions_compare_as_the_plain_products_do_where_those_fit(
            a in -10_i128.pow(30)..10_i128.pow(30), b in -10_i128.pow(30)..10_i128.pow(30), t in 0_u32..2_000,
        ) {
            prop_assert_eq!(Money(a).at_least_fraction_of(Money(b), t), a * 1000 >= b * i128::from(t));
        }

        #[test]
        fn ratios_are_the_floor_of_the_true_quotient(a in any_money(), b in any_money()) {
            match a.parts_per_million_of(b) {
                None => prop_assert!(b.is_zero() || a.0.unsigned_abs() / b.0.unsigned_abs() > 10_u128.pow(31)),
                // floor: q × b <= a × 10^6 < (q + 1) × b, with the signs of b, checked in chunks that cannot overflow.
                Some(q) => {
                    let scale = 1_000_000_i128;
                    let (whole, rest) = (a.0 / scale, a.0 % scale);
                    if let (Some(product), Some(left)) = (q.checked_mul(b.0), whole.checked_mul(scale * scale)) {
                        let difference = left - product + rest * scale;
                        let floor = if b.0 > 0 { (0..b.0).contains(&difference) } else { (b.0 + 1..=0).contains(&difference) };
                        prop_assert!(floor, "{q} is not the floor");
                    }
                    prop_assert_eq!(q < 0, (a.0 < 0) != (b.0 < 0) && a.0 != 0);
                }
            }
        }
    }
}
