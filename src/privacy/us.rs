//! United States: the `us_privacy` string and the US sections of GPP. Whether somebody has opted out.
//!
//! All US sections have one shape: a version of six bits, then fields of two bits, then perhaps a segment with the Global
//! Privacy Control. They differ in which field stands where, and that is the table here (IAB Tech Lab, "GPP Sections").
//! Opted out is who has opted out of sale, of sharing or of targeted advertising, whose browser sends Global Privacy
//! Control, and a known child without consent. A value that none of these fields may have counts as opted out.

use super::bits::Bits;

/// IAB US Privacy String 1: version, notice, opt-out, LSPA, each `Y`, `N` or `-`. What cannot be read is opted out.
pub(super) fn has_opted_out(text: &str) -> bool {
    let [b'1', rest @ ..] = text.as_bytes() else {
        return true;
    };
    let [notice, opt_out, lspa] = rest else {
        return true;
    };
    let known = [notice, opt_out, lspa]
        .into_iter()
        .all(|b| matches!(b, b'Y' | b'N' | b'-' | b'y' | b'n'));
    !known || matches!(opt_out, b'Y' | b'y')
}

/// A version of a section: which of its fields of two bits say what.
struct Layout {
    section: u8,
    version: u32,
    /// Where 1 is "opted out": sale, sharing, targeted advertising.
    opt_outs: &'static [u8],
    /// Where 1 is "no consent" for a known child: the first, and how many.
    children: (u8, u8),
    fields: u8,
}

const fn layout(
    section: u8,
    version: u32,
    opt_outs: &'static [u8],
    children: (u8, u8),
    fields: u8,
) -> Layout {
    Layout {
        section,
        version,
        opt_outs,
        children,
        fields,
    }
}

/// Sale and targeted advertising behind three notices, as most states have them.
const USUAL: &[u8] = &[3, 4];

/// By section: national, then the states. Sections 24 and up are not read, and count as opted out.
const LAYOUTS: [Layout; 18] = [
    layout(7, 1, &[6, 7, 8], (21, 2), 27),
    layout(7, 2, &[6, 7, 8], (25, 3), 32),
    // California: sale and sharing.
    layout(8, 1, &[3, 4], (14, 2), 20),
    layout(9, 1, USUAL, (13, 1), 17),
    layout(10, 1, USUAL, (12, 1), 16),
    // Utah, and Iowa further down, have a fourth notice.
    layout(11, 1, &[4, 5], (14, 1), 18),
    layout(12, 1, USUAL, (13, 3), 19),
    layout(13, 1, USUAL, (13, 3), 20),
    layout(14, 1, USUAL, (13, 3), 20),
    layout(15, 1, USUAL, (16, 3), 23),
    layout(16, 1, USUAL, (13, 1), 18),
    layout(17, 1, USUAL, (14, 5), 23),
    layout(18, 1, &[4, 5], (14, 1), 18),
    layout(19, 1, USUAL, (13, 1), 18),
    layout(20, 1, USUAL, (13, 3), 20),
    layout(21, 1, USUAL, (15, 5), 24),
    layout(22, 1, USUAL, (13, 1), 18),
    layout(23, 1, USUAL, (13, 1), 18),
];

/// Whether a US section says that somebody has opted out. What cannot be read does.
pub(super) fn section_opts_out(section: u8, text: &str) -> bool {
    reads_as_opted_out(section, text).unwrap_or(true)
}

fn reads_as_opted_out(section: u8, text: &str) -> Option<bool> {
    let mut segments = text.split('.');
    let mut core = Bits::of(segments.next()?)?;
    let version = core.take(6)?;
    let layout = LAYOUTS
        .iter()
        .find(|layout| layout.section == section && layout.version == version)?;
    let (first_child, children) = layout.children;
    let mut opted_out = false;
    for place in 0..layout.fields {
        let value = core.take(2)?;
        let is_opt_out = layout.opt_outs.contains(&place);
        let is_child = place
            .checked_sub(first_child)
            .is_some_and(|nth| nth < children);
        if is_opt_out || is_child {
            opted_out |= matches!(value, 1 | 3);
        }
    }
    for segment in segments {
        let mut bits = Bits::of(segment)?;
        // Segment 1 is Global Privacy Control; others are not defined.
        opted_out |= bits.take(2)? == 1 && bits.flag()?;
    }
    Some(opted_out)
}
