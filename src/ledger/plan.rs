//! A book's line items as the ledger sees them: which accounts each spends from, under which caps it is, when its day begins.
//!
//! Made off the bid path when campaigns become live, and frozen with the generation that it belongs to; what changes
//! from moment to moment are the purses behind it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use arrayvec::ArrayVec;

use super::account::Purses;
use super::contacts::{Scope, ScopedCap, Scopes};
use super::frequency::Frequency;
use super::settled::Kind;
use super::token::ACCOUNTS_MAX;
use crate::money::Currency;

/// All of a probability: what is drawn is always below.
pub(super) const ALWAYS: u32 = u32::MAX;
/// A millionth of what is held, times so many, is all of it.
pub(super) const WHOLE_HOLD: u32 = 1_000_000;

/// The ledger's side of one generation.
#[derive(Debug)]
pub struct Plan {
    /// No two plans of a process share one.
    pub(super) number: u64,
    /// By the line item's place in its book. Empty: nothing is kept, and everything is allowed.
    pub(super) lines: Box<[Line]>,
    /// By the creative's place in its book: the number of its name.
    pub(super) creatives: Box<[u32]>,
    /// By the segment's slot in its book: the number of its name.
    pub(super) segments: Box<[u32]>,
    /// By the exchange's index.
    pub(super) exchanges: Box<[Arc<ExchangeDesk>]>,
    pub(super) frequency: Arc<Frequency>,
    /// Whether any line item is capped: otherwise nobody's history is looked at.
    pub(super) has_caps: bool,
    /// Whether the ledger cannot write.
    pub(super) stopped: Arc<AtomicBool>,
    /// Whether an operator has switched everything off.
    pub(super) halted: Arc<AtomicBool>,
    /// How long a bid holds its place under caps, in seconds, where that is not the window.
    pub(super) hold_seconds: Option<u32>,
    /// Until when it is not known what bids before a crash hold under caps.
    pub(super) caps_unknown_until: u32,
}

impl Plan {
    /// Of a service that keeps no books: every line item may bid.
    pub fn none() -> Arc<Self> {
        Arc::new(Self {
            number: 0,
            lines: Box::default(),
            creatives: Box::default(),
            segments: Box::default(),
            exchanges: Box::default(),
            frequency: Arc::new(Frequency::none()),
            has_caps: false,
            stopped: Arc::default(),
            halted: Arc::default(),
            hold_seconds: None,
            caps_unknown_until: 0,
        })
    }

    /// Under which nobody may bid: there is no ledger to promise anything to.
    pub(super) fn stopped() -> Self {
        Self {
            number: u64::MAX,
            lines: Box::default(),
            creatives: Box::default(),
            segments: Box::default(),
            exchanges: Box::default(),
            frequency: Arc::new(Frequency::none()),
            has_caps: false,
            stopped: Arc::new(AtomicBool::new(true)),
            halted: Arc::default(),
            hold_seconds: None,
            caps_unknown_until: 0,
        }
    }

    /// Its number, which no other plan of this process has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether books are kept.
    pub(super) fn is_kept(&self) -> bool {
        self.number != 0
    }

    /// Whether some line item's cap needs the person's keys.
    pub fn has_caps(&self) -> bool {
        self.has_caps
    }

    /// The index of the exchange whose name has that number.
    pub fn exchange(&self, number: u32) -> Option<usize> {
        self.exchanges
            .iter()
            .position(|known| known.number == number)
    }

    /// The place in its book of the creative whose name has that number.
    pub fn creative(&self, number: u32) -> Option<usize> {
        self.creatives.iter().position(|known| *known == number)
    }

    /// The currency of a line item's budgets; nothing where no books are kept.
    pub fn spends(&self, line_item: u32) -> Option<Currency> {
        self.line(line_item).map(|line| line.currency)
    }

    /// What contacts with a line item count for, and how long they are remembered, in seconds.
    pub fn counts_for(&self, line_item: u32) -> Option<(Scopes, u32)> {
        let line = self.line(line_item)?;
        Some((line.scopes, line.remembered))
    }

    pub(super) fn line(&self, index: u32) -> Option<&Line> {
        self.lines.get(usize::try_from(index).ok()?)
    }
}

/// What of an exchange bid threads go by.
#[derive(Debug)]
pub(super) struct ExchangeDesk {
    /// The number of its name.
    pub(super) number: u32,
    /// How long a notice may come, in seconds.
    pub(super) window: u32,
    /// Which notice books a bid that is made now.
    pub(super) bills: Kind,
    /// How much of a bid's price is held, in millionths.
    pub(super) hold: AtomicU32,
    /// Whether bidding on it is switched off.
    pub(super) stopped: AtomicBool,
}

/// One budget that a line item spends from.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    /// Whose budget it is.
    pub(super) of: Scope,
    /// Nano units.
    pub(super) nano: i64,
    pub(super) purses: Purses,
}

/// A line item as the ledger sees it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) scopes: Scopes,
    /// The time zone of its days, by its place in the book.
    pub(super) zone: u32,
    /// The currency of its budgets.
    pub(super) currency: Currency,
    pub(super) limits: ArrayVec<Limit, ACCOUNTS_MAX>,
    pub(super) caps: Box<[ScopedCap]>,
    /// For how long an impression of it counts for some cap, in seconds.
    pub(super) remembered: u32,
    /// Whether it bids on nobody in particular though it is capped.
    pub(super) uncapped_without_id: bool,
    /// Whether it bids at all; what is paused misses nothing.
    pub(super) is_active: bool,
    pub(super) state: Arc<LineState>,
}

/// What changes of a line item while its plan is in force, and outlives it.
#[derive(Debug)]
pub(super) struct LineState {
    /// With which probability it takes part, of [`ALWAYS`].
    pub(super) share: AtomicU32,
    /// Whether it, its campaign or its advertiser is switched off.
    pub(super) stopped: AtomicBool,
}

impl Default for LineState {
    fn default() -> Self {
        Self {
            share: AtomicU32::new(ALWAYS),
            stopped: AtomicBool::new(false),
        }
    }
}

impl LineState {
    /// Whether it takes part, a number having been drawn.
    pub(super) fn takes_part(&self, drawn: u32) -> bool {
        let share = self.share.load(Relaxed);
        share == ALWAYS || drawn < share
    }
}
