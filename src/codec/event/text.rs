//! Pieces of JSON text.

use std::fmt::Write;

/// Appends a string with its quotes.
pub(super) fn string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

pub(super) fn integer(out: &mut String, value: i64) {
    out.push_str(itoa::Buffer::new().format(value));
}

/// Appends a number; null where JSON has none for it.
pub(super) fn float64(out: &mut String, value: f64) {
    match value.is_finite() {
        true => {
            let _ = write!(out, "{value:?}");
        }
        false => out.push_str("null"),
    }
}

/// As [`float64`], with the digits that tell a float from its neighbours.
pub(super) fn float32(out: &mut String, value: f32) {
    match value.is_finite() {
        true => {
            let _ = write!(out, "{value:?}");
        }
        false => out.push_str("null"),
    }
}

/// Appends a number given as big-endian two's complement and the digits behind its point; whether
/// it fits (16 bytes, 38 digits).
pub(super) fn decimal(out: &mut String, bytes: &[u8], scale: u32) -> bool {
    const MAX_SCALE: u32 = 38;
    if bytes.len() > 16 || scale > MAX_SCALE {
        return false;
    }
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if is_negative { 0xff } else { 0 }; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    let value = i128::from_be_bytes(wide);
    let digits = value.unsigned_abs().to_string();
    let scale = scale as usize;
    if value < 0 {
        out.push('-');
    }
    if digits.len() <= scale {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', scale - digits.len()));
        out.push_str(&digits);
        return true;
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.push_str(whole);
    if scale > 0 {
        out.push('.');
        out.push_str(fraction);
    }
    true
}

/// Appends bytes as a string in base64 (RFC 4648, with padding).
pub(super) fn base64(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push('"');
    for chunk in bytes.chunks(3) {
        let mut word = [0; 3];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place) & 0x3f) as usize;
            let letter = if place <= chunk.len() {
                ALPHABET[digit]
            } else {
                b'='
            };
            out.push(char::from(letter));
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn strings_are_what_serde_reads() {
        for text in ["", "plain é", "\"\\\n\r\t\u{1}\u{1f}\u{7f}é\"", "a\"b"] {
            let json = written(|out| string(out, text));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn numbers_are_json() {
        for (value, expected) in [
            (1.0, "1.0"),
            (-0.5, "-0.5"),
            (1e300, "1e300"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ] {
            let json = written(|out| float64(out, value));
            assert_eq!(json, expected);
            assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        }
        assert_eq!(written(|out| float32(out, 0.1)), "0.1");
    }

    #[test]
    fn decimals_keep_their_digits() {
        for (bytes, scale, expected) in [
            (&[0x04, 0xd2][..], 2, "12.34"),
            (&[0xff], 2, "-0.01"),
            (&[0x05], 0, "5"),
            (&[], 3, "0.000"),
            (&[0x00, 0x80], 0, "128"),
            (&[0x80], 1, "-12.8"),
        ] {
            assert_eq!(written(|out| assert!(decimal(out, bytes, scale))), expected);
        }
        assert!(!decimal(&mut String::new(), &[1; 17], 0));
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, expected) in [
            (&b""[..], "\"\""),
            (b"f", "\"Zg==\""),
            (b"fo", "\"Zm8=\""),
            (b"foo", "\"Zm9v\""),
            (b"foob", "\"Zm9vYg==\""),
            (&[0xff, 0xfe, 0xfd], "\"//79\""),
        ] {
            assert_eq!(written(|out| base64(out, bytes)), expected);
        }
    }
}
