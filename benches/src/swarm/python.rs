//! JSON as Python programs print it: separators, ids, times without offset, costs that were floats.

use std::io::Write as _;

use chrono::{DateTime, Datelike, Timelike};

use super::event::Emitter;
use crate::random::Random;

/// Writing into memory cannot fail.
pub(super) fn put(out: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(what);
}

/// A whole number; most of an event's text is numbers and ids, and the formatter would take half of the time.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The lowest `count` hexadecimal digits of a number.
pub(super) fn put_hex(out: &mut Vec<u8>, number: u64, count: u32) {
    out.extend((0..count).rev().map(|place| b"0123456789abcdef"[(number >> (4 * place)) as usize & 0xF]));
}

/// The lowest `count` decimal digits of a number, with zeros in front.
fn put_digits(out: &mut Vec<u8>, number: u64, count: u32) {
    out.extend((0..count).rev().map(|place| b'0' + (number / 10_u64.pow(place) % 10) as u8));
}

/// A JSON object in an emitter's habits. Names and texts are ours and need no escapes.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    emitter: Emitter,
    empty: bool,
}

impl<'a> Object<'a> {
    pub fn open(emitter: Emitter, out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, emitter, empty: true }
    }

    pub fn member(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        // `json.dumps` puts spaces behind its separators; pydantic and orjson do not.
        let spaced = self.emitter == Emitter::DefaultStr;
        if !std::mem::replace(&mut self.empty, false) {
            self.out.extend_from_slice(if spaced { b", " } else { b"," });
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if spaced { b"\": " } else { b"\":" });
        value(self.out);
    }

    pub fn raw(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        self.member(name, |out| put(out, value));
    }

    pub fn number(&mut self, name: &str, value: u64) {
        self.member(name, |out| put_number(out, value));
    }

    pub fn bytes(&mut self, name: &str, value: &[u8]) {
        self.member(name, |out| {
            out.push(b'"');
            out.extend_from_slice(value);
            out.push(b'"');
        });
    }

    pub fn text(&mut self, name: &str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    /// An optional field that is not set: a null, or left out.
    pub fn unset(&mut self, name: &str) {
        if self.emitter == Emitter::DefaultStr {
            self.member(name, |out| out.extend_from_slice(b"null"));
        }
    }

    /// An empty value is not set.
    pub fn optional_text(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.unset(name);
        } else {
            self.text(name, value);
        }
    }

    pub fn close(self) {
        self.out.push(b'}');
    }
}

/// A random (version 4) UUID, as `str(uuid4())` writes it.
pub(super) fn write_uuid(random: &mut Random, out: &mut Vec<u8>) {
    let (high, low) = (random.next_u64(), random.next_u64());
    out.push(b'"');
    put_hex(out, high >> 32, 8);
    out.push(b'-');
    put_hex(out, high >> 16, 4);
    out.extend_from_slice(b"-4");
    put_hex(out, high, 3);
    out.push(b'-');
    put_hex(out, 0x8000 | ((low >> 48) & 0x3FFF), 4);
    out.push(b'-');
    put_hex(out, low, 12);
    out.push(b'"');
}

/// An OpenTelemetry id of `words` times 64 bits.
pub(super) fn write_hex_id(random: &mut Random, words: u32, out: &mut Vec<u8>) {
    out.push(b'"');
    for _ in 0..words {
        put_hex(out, random.next_u64(), 16);
    }
    out.push(b'"');
}

/// As Python's `isoformat` writes a naive time: no offset, and no fraction when it is zero.
pub(super) fn write_timestamp(at_us: i64, separator: char, out: &mut Vec<u8>) {
    let at = DateTime::from_timestamp_micros(at_us).unwrap_or(DateTime::UNIX_EPOCH);
    let fields = [
        (b'"', at.year().unsigned_abs(), 4),
        (b'-', at.month(), 2),
        (b'-', at.day(), 2),
        (separator as u8, at.hour(), 2),
        (b':', at.minute(), 2),
        (b':', at.second(), 2),
    ];
    for (before, field, digits) in fields {
        out.push(before);
        put_digits(out, field.into(), digits);
    }
    let micros = at_us.rem_euclid(1_000_000) as u64;
    if micros > 0 {
        out.push(b'.');
        put_digits(out, micros, 6);
    }
    out.push(b'"');
}

/// The emitter's own estimate: a Decimal as a string, or a float as Python prints it, below 10⁻⁴ with an exponent.
pub(super) fn write_cost(nano: u64, emitter: Emitter, noise: bool, out: &mut Vec<u8>) {
    let (mut digits, mut exponent) = (nano, -9);
    while digits != 0 && digits.is_multiple_of(10) {
        digits /= 10;
        exponent += 1;
    }
    let decimal = |out: &mut Vec<u8>| match (digits, exponent) {
        (0, _) => put(out, format_args!("0.0")),
        (_, 0..) => put(out, format_args!("{}.0", nano / 1_000_000_000)),
        _ => put(
            out,
            format_args!(
                "{}.{:0width$}",
                nano / 1_000_000_000,
                digits % 10_u64.pow(-exponent as u32),
                width = -exponent as usize
            ),
        ),
    };
    if emitter != Emitter::HandMade {
        out.push(b'"');
        decimal(out);
        out.push(b'"');
    } else if nano == 0 || nano >= 100_000 {
        decimal(out);
        // What adding floats leaves behind: 0.0123450000000002.
        if noise && exponent < 0 {
            out.extend_from_slice(b"0000000002");
        }
    } else {
        let places = digits.ilog10();
        let (lead, rest) = (digits / 10_u64.pow(places), digits % 10_u64.pow(places));
        match places {
            0 => put(out, format_args!("{lead}e-{:02}", -exponent)),
            _ => put(
                out,
                format_args!("{lead}.{rest:0width$}e-{:02}", -exponent - places as i32, width = places as usize),
            ),
        }
    }
}
