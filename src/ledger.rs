//! The ledger: who may bid, what is promised, what is spent, who was shown what. `decide` only reads of it; whatever is promised
//! is promised by a [`Desk`], and whatever is booked is booked by the [`Keeper`].
//!
//! ```text
//!   bid threads                                            the ledger's thread
//!   decide ── asks ──► Allowances ──► Plan ──► purses ◄──── leases, releases ──┐
//!   commit ── takes ─► Desk ──────────────────► purses                          │
//!                       └── opened ──────────────────────► Keeper ──► journal ──┘ (then, and only then)
//!   notice ── token ──► Desk::open ──────────────────────► Keeper ──► journal ──► 204
//! ```
//!
//! A bid is a promise of the money that it would cost, one impression at a CPM of so many micros being as many nano units of the
//! currency. It is taken from *purses* (`account.rs`) that hold no more than the journal lent; sealed into the *token* that
//! its notices carry (`token.rs`); counted under *caps* (`contacts.rs`, `frequency.rs`); and settled by a notice, or released when no notice can
//! come any more (`keeper.rs`). What happens is in `docs/money.md`.

mod account;
mod allowances;
mod contacts;
mod desk;
mod frequency;
mod keeper;
mod office;
mod plan;
mod price;
mod records;
mod report;
mod seen;
mod settled;
mod switches;
mod token;

#[cfg(test)]
mod tests;

pub use account::Day;
pub use allowances::{Allowances, BudgetState, Refused, State};
pub use contacts::{CONTACTS_MAX, Scope, ScopedCap, Scopes};
pub use desk::{Desk, Proposed, TallyRow};
pub use frequency::FrequencyKey;
pub use keeper::{
    Booked, CAP_HOLD_SECONDS, Counters, ExchangeTerms, Figures, Keeper, Outcome, Said, Standing,
    Sums, TOKEN_SECONDS, Terms,
};
pub use office::Exposure;
pub use office::{Answered, Hearer, Ledger, LedgerError};
pub use plan::Plan;
pub use price::{PriceKey, Unreadable, read as read_price, read_currency};
pub use report::{Counts, Dimension, Imps, Key, Place, Query, Row, changing_hours};
pub use settled::Kind;
pub use switches::Switch;
pub use token::{BadToken, BidNumber, SEGMENTS_MAX, TOKEN_CHARS_MAX, Token, TokenText};
