//! How much of an open bid's price is held: in strict mode all of it, in bounded mode what such bids come to.
//!
//! Bids of an exchange are watched as they grow older. Their ages are cut into groups, each twice as long as the one before
//! (a slice of the window, two, four, …), and for each group it is counted how many bids were open at its beginning and
//! how many of them were billed within it: the hazard, as in the product-limit estimate of Kaplan and Meier (1958), so that lost
//! notices and bids that are too young to tell count for nothing. What is still to come of a bid of some age is one less the
//! product of what survives of all groups from its own on. Each hazard is taken at the upper end of its confidence, and as 1
//! as long as too few bids were seen: a new exchange is held in full.
//!
//! On the sum of an account's open bids lies a margin of four standard deviations besides; and whoever is near a budget's end
//! holds in full (`desk.rs`, [`FULL_HOLD_BIDS`]). So the part that the open bids may exceed what is held is bounded by
//! how far win rates leave their past; at worst, if all were won, by what the metric `kith_budget_bound` says.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;

/// Groups of ages: the last holds all that is older.
const GROUPS: usize = 7;
/// Fewer bids than this say nothing.
const BIDS_MIN: f64 = 100.0;
/// What is remembered of a slice when the next is learnt from.
const MEMORY: f64 = 0.9;

/// What the past says of one exchange.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    /// By group: bids open at its beginning, and of them those billed within it.
    seen: [(f64, f64); GROUPS],
}

impl Past {
    fn learn(&mut self, group: usize, entered: u32, billed: u32) {
        if let Some((bids, wins)) = self.seen.get_mut(group) {
            *bids = *bids * MEMORY + f64::from(entered);
            *wins = *wins * MEMORY + f64::from(billed);
        }
    }

    /// By group, what is still to come of a bid, in millionths.
    pub(super) fn to_come(self) -> [u32; GROUPS] {
        let mut hazards = [1.0; GROUPS];
        if self.seen.first().is_none_or(|(bids, _)| *bids < BIDS_MIN) {
            return [WHOLE_HOLD; GROUPS];
        }
        let mut before = 1.0;
        for (hazard, (bids, wins)) in hazards.iter_mut().zip(self.seen) {
            *hazard = if bids < BIDS_MIN {
                // As if half as many came as in the group before.
                f64::min(1.0, before / 2.0)
            } else {
                let share = wins / bids;
                let deviation = (share * (1.0 - share) / bids).max(0.0).sqrt();
                (share + 3.0 * deviation + 5.0 / bids).min(1.0)
            };
            before = *hazard;
        }
        let mut survives = 1.0;
        let mut to_come = [WHOLE_HOLD; GROUPS];
        for (share, hazard) in to_come.iter_mut().zip(hazards).rev() {
            survives *= 1.0 - hazard;
            *share = ((1.0 - survives) * f64::from(WHOLE_HOLD)).ceil() as u32;
        }
        to_come
    }
}

/// The bids of one exchange and currency in one slice of time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flow {
    pub(super) number: u32,
    /// What they cost if all are won, and how much of it is held.
    pub(super) open: i64,
    pub(super) held: i64,
    /// Bids without a notice that settles them.
    live: u32,
    /// Those when its group of ages began, and of them those billed since.
    entered: u32,
    billed: u32,
    group: usize,
}

/// The group of an age in slices.
fn group_of(age: u32) -> usize {
    let group = age.saturating_add(1).ilog2();
    usize::try_from(group).unwrap_or(0).min(GROUPS - 1)
}

impl Keeper {
    /// A bid is open.
    pub(super) fn flow_in(&mut self, opened: &Opened, number: u32) {
        let flows = self
            .flows
            .entry((opened.exchange, opened.spends))
            .or_default();
        let at = flows.partition_point(|flow| flow.number < number);
        if flows.get(at).is_none_or(|flow| flow.number != number) {
            flows.insert(
                at,
                Flow {
                    number,
                    ..Flow::default()
                },
            );
        }
        if let Some(flow) = flows.get_mut(at) {
            flow.open = flow.open.saturating_add(opened.nano);
            flow.held = flow.held.saturating_add(opened.held);
            flow.live = flow.live.saturating_add(1);
            if flow.group == 0 {
                flow.entered = flow.entered.saturating_add(1);
            }
        }
    }

    /// A bid of this run is settled.
    pub(super) fn flow_out(&mut self, token: &crate::ledger::token::Token, billed: bool) {
        let number = self.slice_number(token.exchange, token.at);
        let Some(flows) = self.flows.get_mut(&(token.exchange, token.spends)) else {
            return;
        };
        let at = flows.binary_search_by_key(&number, |flow| flow.number);
        if let Some(flow) = at.ok().and_then(|at| flows.get_mut(at)) {
            flow.held = flow
                .held
                .saturating_sub(share_of(flow.held, token.nano, flow.open));
            flow.open = flow.open.saturating_sub(token.nano).max(0);
            flow.live = flow.live.saturating_sub(1);
            flow.billed = flow.billed.saturating_add(u32::from(billed));
        }
    }

    /// Looks at what bids came to as they grew older, and in bounded mode holds for each what is still to come of it.
    pub(super) fn reprice(&mut self) {
        let mut shares: HashMap<u32, [u32; GROUPS]> = HashMap::new();
        for desk in &self.exchanges {
            let seconds = slice_seconds(desk.window);
            let current = self.now.checked_div(seconds).unwrap_or(0);
            let past = self.pasts.entry(desk.number).or_default();
            let own = self
                .flows
                .iter_mut()
                .filter(|((exchange, _), _)| *exchange == desk.number);
            for flow in own.flat_map(|(_, flows)| flows.iter_mut()) {
                let group = group_of(current.saturating_sub(flow.number));
                while flow.group < group {
                    past.learn(flow.group, flow.entered, flow.billed);
                    flow.entered = flow.live;
                    flow.billed = 0;
                    flow.group = flow.group.saturating_add(1);
                }
            }
            let to_come = match self.terms.mode {
                BudgetMode::Strict => [WHOLE_HOLD; GROUPS],
                BudgetMode::Bounded => past.to_come(),
            };
            let youngest = to_come.first().copied().unwrap_or(WHOLE_HOLD);
            desk.hold
                .store(youngest, std::sync::atomic::Ordering::Relaxed);
            shares.insert(desk.number, to_come);
        }
        if self.terms.mode == BudgetMode::Strict {
            return;
        }
        let share = |exchange: u32, age: u32| {
            let of = shares.get(&exchange);
            of.and_then(|of| of.get(group_of(age)).copied())
                .unwrap_or(WHOLE_HOLD)
        };
        let currents: HashMap<u32, u32> = self
            .exchanges
            .iter()
            .map(|desk| {
                (
                    desk.number,
                    self.now
                        .checked_div(slice_seconds(desk.window))
                        .unwrap_or(0),
                )
            })
            .collect();
        let age = |exchange: u32, number: u32| {
            let current = currents.get(&exchange).copied().unwrap_or(0);
            current.saturating_sub(number)
        };
        for ((exchange, _), flows) in &mut self.flows {
            for flow in flows {
                flow.held = held_of(flow.open, share(*exchange, age(*exchange, flow.number)));
            }
        }
        let mut sums: BTreeMap<u32, (i64, i64, f64)> = BTreeMap::new();
        for ((account, exchange), slices) in &mut self.slices {
            let (open, held, variance) = sums.entry(*account).or_default();
            for slice in slices {
                let share = share(*exchange, age(*exchange, slice.number));
                slice.held = held_of(slice.open, share);
                *open = open.saturating_add(slice.open);
                *held = held.saturating_add(slice.held);
                let share = f64::from(share) / f64::from(WHOLE_HOLD);
                *variance += slice.open as f64 * share * (1.0 - share);
            }
        }
        for (number, account) in &mut self.accounts {
            let (open, held, variance) = sums.get(number).copied().unwrap_or_default();
            let margin = 4.0 * (variance * account.largest as f64).max(0.0).sqrt();
            let held = held.saturating_add(margin as i64).min(open);
            let more = held.saturating_sub(account.held);
            if more != 0 {
                account.held = held;
                account.change(*number, more);
            }
        }
    }
}

/// A part of what is held: that of so much of what is open.
pub(super) fn share_of(held: i64, nano: i64, open: i64) -> i64 {
    let share = i128::from(held)
        .saturating_mul(nano.into())
        .checked_div(open.into());
    let share = share.and_then(|share| i64::try_from(share).ok());
    share.unwrap_or(0).clamp(0, held.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_past_is_held_in_full_and_a_long_one_by_it() {
        let mut past = Past::default();
        assert_eq!(past.to_come(), [WHOLE_HOLD; GROUPS]);
        // A tenth is billed in the first group, a hundredth in the second, nothing after.
        for _ in 0..50 {
            for (group, billed) in [
                (0, 10_000),
                (1, 1_000),
                (2, 0),
                (3, 0),
                (4, 0),
                (5, 0),
                (6, 0),
            ] {
                past.learn(group, 100_000, billed);
            }
        }
        let to_come = past.to_come();
        assert!((109_000..112_000).contains(&to_come[0]), "{to_come:?}");
        assert!((10_000..11_000).contains(&to_come[1]), "{to_come:?}");
        assert!(to_come[2] < 100 && to_come[6] > 0, "{to_come:?}");
        assert_eq!(
            [0, 1, 2, 3, 6, 7, 62, 63, 1_000].map(group_of),
            [0, 1, 1, 2, 2, 3, 5, 6, 6]
        );
    }
}
