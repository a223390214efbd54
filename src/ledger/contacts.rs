//! Contacts, what they count for, and the caps that they are counted under.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Most contacts kept of one key. Whoever has more is refused by every cap until some are over.
pub const CONTACTS_MAX: usize = 1024;

/// Names of what a contact counts for, as the ledger numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Scopes {
    /// The line item.
    pub line_item: u32,
    /// Its campaign.
    pub campaign: u32,
    /// Its advertiser.
    pub advertiser: u32,
}

impl Scopes {
    /// What two have in common: a bit for each [`Scope`].
    #[inline]
    fn in_common(&self, other: &Self) -> u8 {
        let bit = |is: bool, scope: Scope| if is { scope as u8 } else { 0 };
        bit(self.line_item == other.line_item, Scope::LineItem)
            | bit(self.campaign == other.campaign, Scope::Campaign)
            | bit(self.advertiser == other.advertiser, Scope::Advertiser)
    }
}

/// For whom a cap counts: a bit of its own each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// The line item.
    LineItem = 1,
    /// Its campaign.
    Campaign = 2,
    /// Its advertiser.
    Advertiser = 4,
}

/// At most so many contacts in a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopedCap {
    /// Contacts; at least 1.
    pub count: u32,
    /// The window in seconds.
    pub seconds: u32,
    /// Of what.
    pub scope: Scope,
}

impl ScopedCap {
    /// Whether a contact of the one counts for the other.
    fn is_of(&self, one: &Scopes, other: &Scopes) -> bool {
        one.in_common(other) & self.scope as u8 != 0
    }
}

/// A provisional contact is of this bid, and is over at this second; a settled one has no bid.
pub(super) const SETTLED: u64 = 0;

/// One contact. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contact {
    pub(super) at: u32,
    /// When it need not be remembered any more; a hold's: when it is over.
    pub(super) until: u32,
    pub(super) scopes: Scopes,
    /// The bid that holds it; [`SETTLED`] where it was billed or reported.
    pub(super) bid: u64,
}

impl Contact {
    pub(super) fn settled(at: u32, until: u32, scopes: Scopes) -> Self {
        Self {
            at,
            until,
            scopes,
            bid: SETTLED,
        }
    }

    /// Held by a bid, whose number is not 0.
    pub(super) fn held(at: u32, until: u32, scopes: Scopes, bid: u64) -> Self {
        Self {
            at,
            until,
            scopes,
            bid: bid.max(1),
        }
    }

    /// Of one that is not over.
    fn counts_for(&self, cap: &ScopedCap, scopes: &Scopes, now: u32) -> bool {
        cap.is_of(&self.scopes, scopes) && now.saturating_sub(self.at) < cap.seconds
    }

    pub(super) fn is_over(&self, now: u32) -> bool {
        self.until <= now
    }
}

/// Most caps that one line item is under: its own, its campaign's and its advertiser's.
const CAPS_MAX: usize = 3 * crate::campaigns::CAPS_MAX;

/// Counts a key's contacts under the caps of a line item.
#[derive(Debug)]
pub(super) struct Count<'c> {
    caps: &'c [ScopedCap],
    scopes: Scopes,
    now: u32,
    contacts: usize,
    /// What each cap has left, in their order.
    left: [u32; CAPS_MAX],
}

impl<'c> Count<'c> {
    pub(super) fn under(caps: &'c [ScopedCap], scopes: Scopes, now: u32) -> Self {
        let mut left = [u32::MAX; CAPS_MAX];
        for (left, cap) in left.iter_mut().zip(caps) {
            *left = cap.count;
        }
        Self {
            caps,
            scopes,
            now,
            contacts: 0,
            left,
        }
    }

    /// One that is not over.
    #[inline]
    pub(super) fn add(&mut self, contact: &Contact) {
        self.contacts = self.contacts.saturating_add(1);
        let common = contact.scopes.in_common(&self.scopes);
        if common == 0 {
            return;
        }
        let age = self.now.saturating_sub(contact.at);
        for (cap, left) in self.caps.iter().zip(&mut self.left) {
            if common & cap.scope as u8 != 0 && age < cap.seconds {
                *left = left.saturating_sub(1);
            }
        }
    }

    /// A bid of the same request for another imp, which has no contact yet.
    pub(super) fn add_beside(&mut self, scopes: &Scopes) {
        for (cap, left) in self.caps.iter().zip(&mut self.left) {
            if cap.is_of(scopes, &self.scopes) {
                *left = left.saturating_sub(1);
            }
        }
    }

    /// Whether some cap has nothing left, or there are as many contacts as are kept.
    pub(super) fn is_reached(&self) -> bool {
        let mut left = self.left.iter().take(self.caps.len());
        self.contacts >= CONTACTS_MAX || left.any(|left| *left == 0)
    }
}

/// How many contacts, of which none is over, count under a cap.
pub(super) fn counted(cap: &ScopedCap, scopes: &Scopes, contacts: &[Contact], now: u32) -> usize {
    let counting = contacts
        .iter()
        .filter(|contact| contact.counts_for(cap, scopes, now));
    counting.count()
}
