//! Small values of a document, read from text: texts, windows, amounts.

use super::super::Amount;

/// Longest id of anything, seat or deal, in bytes.
const TEXT_BYTES_MAX: usize = 128;
/// Longest window of a cap, in seconds: 366 days.
const CAP_SECONDS_MAX: u32 = 366 * 86_400;
/// Largest budget in whole units: what nano units in an `i64` hold, rounded down.
pub(super) const AMOUNT_MAX: i64 = 9_000_000_000;
const NANOS: i64 = 1_000_000_000;

/// Whether a text can be an id, seat, deal or category.
pub(super) fn check_text(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        Err("is empty")
    } else if text.len() > TEXT_BYTES_MAX {
        Err("has over 128 bytes")
    } else if text.trim() != text || text.chars().any(char::is_control) {
        Err("has control characters, or spaces at an end")
    } else {
        Ok(())
    }
}

/// `30m`, `24h` or `7d` in seconds.
pub(super) fn window(text: &str) -> Option<u32> {
    let unit = match text.as_bytes().last()? {
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let digits = text.get(..text.len() - 1)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse::<u32>().ok()?.checked_mul(unit)?;
    (1..=CAP_SECONDS_MAX).contains(&seconds).then_some(seconds)
}

/// A decimal over 0 as nano units, exactly.
pub(super) fn amount(text: &str) -> Option<Amount> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<i64>().ok().filter(|n| *n <= AMOUNT_MAX)?;
    let fraction = format!("{fraction:0<9}").parse::<i64>().ok()?;
    let nanos = whole.checked_mul(NANOS)?.checked_add(fraction)?;
    (nanos > 0).then_some(Amount { nanos })
}
