//! What a request says about privacy, gathered from every home and every duplicate, nothing overwritten.
//!
//! The specification moved these fields over the years (`regs.ext.gdpr` became `regs.gdpr`), exchanges send both, and
//! a body may repeat a key. So each signal is a fold that only gets stricter; `privacy` decides what it means.

/// A yes/no signal. Ordered: folding takes the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Flag {
    /// Nobody said.
    #[default]
    Absent,
    /// Said: 0.
    No,
    /// Said: 1, or said in a way that cannot be read.
    Yes,
}

impl Flag {
    /// Takes in what another place says.
    pub fn fold(&mut self, other: Self) {
        *self = (*self).max(other);
    }
}

/// A string signal with two homes. A third different value cannot be kept, and counts as unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Homes<'a> {
    values: [Option<&'a str>; 2],
    /// Something was sent that is no string, or more different strings than there are homes.
    pub unreadable: bool,
}

impl<'a> Homes<'a> {
    /// Takes in what one home says.
    pub fn fold(&mut self, value: &'a str) {
        for slot in &mut self.values {
            match slot {
                Some(known) if *known == value => return,
                Some(_) => {}
                None => {
                    *slot = Some(value);
                    return;
                }
            }
        }
        self.unreadable = true;
    }

    /// The different values sent.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.values.iter().flatten().copied()
    }

    /// Whether anything at all was sent.
    pub fn is_present(&self) -> bool {
        self.unreadable || self.values.iter().any(Option::is_some)
    }
}

/// The GPP section ids that a request says apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SectionIds {
    listed: u64,
    /// −1 was listed: none applies, where no other is listed.
    none: bool,
    /// An id that cannot be read, or one outside 0 to 63 (−1 apart).
    pub unreadable: bool,
}

impl SectionIds {
    /// Takes in one id of the list.
    pub fn fold(&mut self, id: i64) {
        match u32::try_from(id) {
            Ok(id @ 1..=63) => self.listed |= 1u64.rotate_left(id),
            _ if id == -1 => self.none = true,
            // What a consent platform says before it knows.
            _ if id == 0 => {}
            _ => self.unreadable = true,
        }
    }

    /// Whether any section is said to apply.
    pub fn is_present(&self) -> bool {
        self.unreadable || self.listed != 0
    }

    /// Whether it is said which apply, be it none.
    pub fn are_known(&self) -> bool {
        self.none || self.is_present()
    }

    /// The sections said to apply, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        let listed = self.listed;
        (1..=63u8).filter(move |id| listed & 1u64.rotate_left(u32::from(*id)) != 0)
    }
}

/// Every privacy signal of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals<'a> {
    /// `regs.coppa`
    pub coppa: Flag,
    /// `device.lmt`
    pub lmt: Flag,
    /// `device.dnt`
    pub dnt: Flag,
    /// `regs.ext.gpc`, `regs.gpc`
    pub gpc: Flag,
    /// `regs.gdpr`, `regs.ext.gdpr`
    pub gdpr: Flag,
    /// `user.consent`, `user.ext.consent`
    pub consent: Homes<'a>,
    /// `regs.us_privacy`, `regs.ext.us_privacy`
    pub us_privacy: Homes<'a>,
    /// `regs.gpp`, `regs.ext.gpp`
    pub gpp: Homes<'a>,
    /// `regs.gpp_sid`, `regs.ext.gpp_sid`
    pub gpp_sid: SectionIds,
    /// `device.geo.country`, `user.geo.country`
    pub country: Homes<'a>,
    /// `regs`, `regs.ext`, `user`, `user.ext` or `device` is neither an object nor empty: what it says is unknown.
    pub broken: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_only_gets_stricter() {
        let mut flag = Flag::default();
        for (said, want) in [
            (Flag::No, Flag::No),
            (Flag::Yes, Flag::Yes),
            (Flag::No, Flag::Yes),
            (Flag::Absent, Flag::Yes),
        ] {
            flag.fold(said);
            assert_eq!(flag, want);
        }
    }

    #[test]
    fn a_third_opinion_is_unreadable() {
        let mut homes = Homes::default();
        for value in ["a", "b", "a", "b"] {
            homes.fold(value);
        }
        assert!(!homes.unreadable);
        assert_eq!(homes.iter().collect::<Vec<_>>(), ["a", "b"]);
        homes.fold("c");
        assert!(homes.unreadable);
    }

    #[test]
    fn minus_one_names_no_section() {
        let mut ids = SectionIds::default();
        ids.fold(-1);
        assert!(!ids.is_present() && ids.are_known());
        ids.fold(7);
        assert!(ids.iter().eq([7]) && !ids.unreadable);
        ids.fold(64);
        assert!(ids.unreadable);
    }
}
