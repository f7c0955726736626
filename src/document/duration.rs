//! Durations as people write them: `500ms`, `30s`, `1h30m`.

use crate::model::Millis;

/// The longest duration: 100 years of 365 days.
pub const MAX: Millis = Millis(100 * 365 * 86_400_000);

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    #[error(
        "`{0}` is not a duration; write numbers with units (ms, s, m, h, d), such as `500ms`, `30s` or `1h30m`"
    )]
    Malformed(String),
    #[error("`{0}` is longer than 100 years")]
    TooLong(String),
}

/// Reads a duration: whole numbers with the units `d`, `h`, `m`, `s`, `ms`, each at most once and
/// from the largest down.
pub fn parse(text: &str) -> Result<Millis, InvalidDuration> {
    let malformed = || InvalidDuration::Malformed(text.chars().take(60).collect());
    let too_long = || InvalidDuration::TooLong(text.chars().take(60).collect());
    let (mut rest, mut total, mut larger) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..]
            .bytes()
            .take_while(u8::is_ascii_alphabetic)
            .count();
        let unit = &rest[digits..digits + letters];
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(malformed)?;
        if digits == 0 || *factor >= larger {
            return Err(malformed());
        }
        let count: u64 = rest[..digits].parse().map_err(|_| too_long())?;
        total = count
            .checked_mul(*factor)
            .and_then(|span| total.checked_add(span))
            .ok_or_else(too_long)?;
        larger = *factor;
        rest = &rest[digits + letters..];
    }
    if text.is_empty() {
        return Err(malformed());
    }
    if total > MAX.0 {
        Err(too_long())
    } else {
        Ok(Millis(total))
    }
}

/// Writes a duration in the fewest units; [`parse`] reads it back to the same.
pub fn write(span: Millis) -> String {
    let mut text = String::new();
    let mut rest = span.0;
    for (unit, factor) in UNITS.iter().rev() {
        if rest >= *factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
            ("90s", 90_000),
        ] {
            assert_eq!(parse(text), Ok(Millis(millis)), "{text}");
            assert_eq!(parse(&write(Millis(millis))), Ok(Millis(millis)), "{text}");
        }
        assert_eq!(write(Millis(5_400_000)), "1h30m");
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "", "30", "s", "30 s", "1m1h", "1s1s", "-5s", "1.5s", "5x", "30S", "1h 30m", "٣s",
        ] {
            assert!(
                matches!(parse(text), Err(InvalidDuration::Malformed(_))),
                "{text}"
            );
        }
        for text in ["36501d", "99999999999999999999ms", "18446744073709551615h"] {
            assert!(
                matches!(parse(text), Err(InvalidDuration::TooLong(_))),
                "{text}"
            );
        }
    }
}
