//! How much of an open bid's price is held: in strict mode all of it, in bounded mode what such bids come to.
//!
//! Bids of an exchange are watched as they grow older. Their ages are cut into groups, each twice as long as the one before
//! (a part of a slice of the window, two, four, …), and for each group it is counted how many bids were open at its beginning, how many
//! of them were billed within it, and how many were open at its end: as in an estimate of cumulative incidence with competing
//! risks (Kalbfleisch and Prentice 1980), for a bid that is lost is never billed. What is still to come of a bid of some age is
//! what is billed in its group, and of those that stay open what comes in the next. Each share is taken at the upper end of
//! its confidence. A new exchange is held in full; ages that too few bids have lived through are taken to bill as fast as those
//! before them, so that what is held falls as bids grow old and are seen not to be billed any more.
//!
//! On the sum of an account's open bids lies a margin of three standard deviations besides; and whoever is near a budget's end
//! takes its whole price, until the next look a fifth of a second later (`FULL_HOLD_BIDS` in `desk.rs`). So the part that the
//! open bids may exceed what is held is bounded by how far win rates leave their past; at worst, if all were won, by what the
//! metric `kith_budget_bound` says.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::Ordering::Relaxed;

use super::*;

/// Into how many parts a slice is cut to look at ages: most notices come within seconds.
const PARTS: u32 = 12;
/// Groups of ages. Each must end, or nothing would ever be learnt of the last: 2^11 - 1 parts are more than a window has.
const GROUPS: usize = 11;
/// Most parts in a window: a part is its 720th, rounded down, so less than twice as many.
const PARTS_MAX: u32 = 2 * SLICES * PARTS;
const _: () = assert!(PARTS_MAX + 2 < (1 << GROUPS) - 1);
/// Fewer bids than this say nothing.
const BIDS_MIN: f64 = 100.0;
/// What is remembered of a part of a slice when the next is learnt from: about ten slices in all. Of old bids four times as many, for
/// few of them are billed, and so many are needed to be sure of it.
const MEMORY: f64 = 0.991;
const OLD_MEMORY: f64 = 0.9978;
const OLD_GROUP: usize = 4;

/// Bids of a group: open at its beginning, billed within it; and what they would cost and did.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    bids: f64,
    billed: f64,
    money: f64,
    spent: f64,
    /// Of `money`, what is open at the end of the group.
    open: f64,
}

/// What the past says of one exchange.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    groups: [Seen; GROUPS],
}

/// What is still to come of a bid's price, in millionths, by the group of its age.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToCome {
    /// At the upper end of what the past allows: what is held.
    most: [u32; GROUPS],
    /// On average, at the prices that are paid.
    expected: [u32; GROUPS],
}

impl Default for ToCome {
    fn default() -> Self {
        Self {
            most: [WHOLE_HOLD; GROUPS],
            expected: [WHOLE_HOLD; GROUPS],
        }
    }
}

impl ToCome {
    pub(super) fn expected_of_new(&self) -> u32 {
        self.expected.first().copied().unwrap_or(WHOLE_HOLD)
    }
}

impl Past {
    fn learn(&mut self, flow: &Flow) {
        if let Some(seen) = self.groups.get_mut(flow.group) {
            let memory = match flow.group < OLD_GROUP {
                true => MEMORY,
                false => OLD_MEMORY,
            };
            seen.bids = seen.bids * memory + f64::from(flow.entered);
            seen.billed = seen.billed * memory + f64::from(flow.billed);
            seen.money = seen.money * memory + flow.entered_nano as f64;
            seen.spent = seen.spent * memory + flow.billed_nano as f64;
            seen.open = seen.open * memory + flow.open as f64;
        }
    }

    pub(super) fn to_come(self) -> ToCome {
        let known = |seen: &Seen| seen.bids >= BIDS_MIN;
        if !self.groups.first().is_some_and(known) {
            return ToCome::default();
        }
        // By group: which share is billed within it, at most and on average; and which share is open at its end.
        let mut steps = [(1.0, 1.0, 0.0); GROUPS];
        let mut before = (1.0, 1.0, 0.0);
        for (step, seen) in steps.iter_mut().zip(&self.groups) {
            *step = if known(seen) {
                let share = seen.billed / seen.bids;
                let deviation = (share * (1.0 - share) / seen.bids).max(0.0).sqrt();
                let most = (share + 2.0 * deviation + 2.0 / seen.bids).min(1.0);
                let money = seen.money.max(1.0);
                (
                    most,
                    (seen.spent / money).min(1.0),
                    (seen.open / money).min(1.0),
                )
            } else {
                // As if they went on being billed as fast as in the group before, for twice as long, and none was lost.
                let twice = |share: f64| 1.0 - (1.0 - share) * (1.0 - share);
                (twice(before.0), twice(before.1), 1.0 - twice(before.1))
            };
            before = *step;
        }
        let mut after = (0.0, 0.0);
        let mut to_come = ToCome::default();
        let shares = to_come.most.iter_mut().zip(&mut to_come.expected);
        for ((most, expected), step) in shares.zip(steps).rev() {
            after = (
                f64::min(1.0, step.0 + step.2 * after.0),
                f64::min(1.0, step.1 + step.2 * after.1),
            );
            let millionths = |share: f64| (share * f64::from(WHOLE_HOLD)).round() as u32;
            (*most, *expected) = (millionths(after.0), millionths(after.1));
        }
        to_come
    }
}

/// How long a part of a slice is.
pub(super) fn part_seconds(window: u32) -> u32 {
    (slice_seconds(window) / PARTS).max(1)
}

/// The bids of one exchange and currency in one part of a slice of time.
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
    entered_nano: i64,
    billed_nano: i64,
    group: usize,
}

/// The group of an age in parts of slices.
fn group_of(age: u32) -> usize {
    let group = age.saturating_add(1).ilog2();
    usize::try_from(group).unwrap_or(0).min(GROUPS - 1)
}

/// What is still to come of an exchange's bids, by their slices.
#[derive(Debug)]
struct Shares {
    /// The part of a slice that it is now.
    current: u32,
    part_seconds: u32,
    slice_seconds: u32,
    to_come: ToCome,
    slices: BTreeMap<u32, OfSlice>,
}

/// Open bids of a slice; at most how much is to come of its youngest, and the sum of what is to come of each.
#[derive(Debug, Default)]
struct OfSlice {
    bids: u64,
    most: u32,
    expected: u64,
}

impl Shares {
    fn of(current: u32, window: u32, to_come: ToCome) -> Self {
        Self {
            current,
            part_seconds: part_seconds(window),
            slice_seconds: slice_seconds(window),
            to_come,
            slices: BTreeMap::new(),
        }
    }

    fn of_age(&self, age: u32) -> (u32, u32) {
        let group = group_of(age);
        let of = |shares: &[u32; GROUPS]| shares.get(group).copied().unwrap_or(WHOLE_HOLD);
        (of(&self.to_come.most), of(&self.to_come.expected))
    }

    /// Takes in the bids of a part; gives back at most how much of them is still to come.
    fn add(&mut self, flow: &Flow) -> u32 {
        let (most, expected) = self.of_age(self.current.saturating_sub(flow.number));
        let at = flow.number.saturating_mul(self.part_seconds);
        let slice = at.checked_div(self.slice_seconds).unwrap_or(0);
        let of = self.slices.entry(slice).or_default();
        let live = u64::from(flow.live);
        of.bids = of.bids.saturating_add(live);
        of.most = of.most.max(most);
        let all = live.saturating_mul(expected.into());
        of.expected = of.expected.saturating_add(all);
        most
    }

    /// Of the bids of one account in a slice: at most, as if all were its youngest, and on average.
    fn of_slice(&self, number: u32) -> (u32, u32) {
        let known = self.slices.get(&number).and_then(|of| {
            let mean = of.expected.checked_div(of.bids)?;
            Some((of.most, u32::try_from(mean).ok()?))
        });
        known.unwrap_or_else(|| {
            let end = number.saturating_add(1).saturating_mul(self.slice_seconds);
            let part = end.checked_div(self.part_seconds).unwrap_or(0);
            self.of_age(self.current.saturating_sub(part))
        })
    }
}

impl Keeper {
    /// A bid is open.
    pub(super) fn flow_in(&mut self, opened: &Opened) {
        let number = self.part_number(opened.exchange, opened.at);
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
                flow.entered_nano = flow.entered_nano.saturating_add(opened.nano);
            }
        }
    }

    /// No notice of a flow's bids comes in time any more: how its last group of ages ended is learnt.
    pub(super) fn flow_closed(&mut self, exchange: u32, flow: &Flow) {
        let window = self.window(exchange);
        let last = window.checked_div(part_seconds(window)).unwrap_or(0);
        // Where time has leapt nobody saw how its bids grew old.
        if flow.group >= group_of(last)
            && let Some(past) = self.pasts.get_mut(&exchange)
        {
            past.learn(&Flow { open: 0, ..*flow });
        }
    }

    fn part_number(&self, exchange: u32, at: u32) -> u32 {
        let seconds = part_seconds(self.window(exchange));
        at.checked_div(seconds).unwrap_or(0)
    }

    /// A bid of this run is settled.
    pub(super) fn flow_out(&mut self, token: &crate::ledger::token::Token, billed: Option<i64>) {
        let number = self.part_number(token.exchange, token.at);
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
            if let Some(nano) = billed {
                flow.billed = flow.billed.saturating_add(1);
                flow.billed_nano = flow.billed_nano.saturating_add(nano);
            }
        }
    }

    /// Looks at what bids came to as they grew older, and in bounded mode holds for each what is still to come of it.
    pub(super) fn reprice(&mut self) {
        let is_bounded = self.terms.mode == BudgetMode::Bounded;
        let mut shares: HashMap<u32, Shares> = HashMap::new();
        for desk in &self.exchanges {
            let seconds = part_seconds(desk.window);
            let current = self.now.checked_div(seconds).unwrap_or(0);
            let past = self.pasts.entry(desk.number).or_default();
            let own = self
                .flows
                .iter_mut()
                .filter(|((exchange, _), _)| *exchange == desk.number);
            for flow in own.flat_map(|(_, flows)| flows.iter_mut()) {
                let group = group_of(current.saturating_sub(flow.number));
                while flow.group < group {
                    past.learn(flow);
                    (flow.entered, flow.billed) = (flow.live, 0);
                    (flow.entered_nano, flow.billed_nano) = (flow.open, 0);
                    flow.group = flow.group.saturating_add(1);
                }
            }
            let to_come = past.to_come();
            let youngest = to_come.most.first().copied().unwrap_or(WHOLE_HOLD);
            self.to_come.insert(desk.number, to_come.expected_of_new());
            let held = if is_bounded { youngest } else { WHOLE_HOLD };
            desk.hold.store(held, Relaxed);
            shares.insert(desk.number, Shares::of(current, desk.window, to_come));
        }
        for ((exchange, _), flows) in &mut self.flows {
            let Some(shares) = shares.get_mut(exchange) else {
                continue;
            };
            for flow in flows {
                let most = shares.add(flow);
                if is_bounded {
                    flow.held = held_of(flow.open, most);
                }
            }
        }
        let share = |exchange: u32, number: u32| {
            let of = shares.get(&exchange);
            of.map_or((WHOLE_HOLD, WHOLE_HOLD), |of| of.of_slice(number))
        };
        for (number, account) in &mut self.accounts {
            let mut sum = Sum::default();
            let all = account.slices.iter_mut();
            let all = all.flat_map(|(exchange, slices)| {
                let exchange = *exchange;
                slices.iter_mut().map(move |slice| (exchange, slice))
            });
            for (exchange, slice) in all {
                let (most, expected) = share(exchange, slice.number);
                if is_bounded {
                    slice.held = held_of(slice.open, most);
                }
                sum.open = sum.open.saturating_add(slice.open);
                sum.held = sum.held.saturating_add(slice.held);
                let expected = held_of(slice.open, expected);
                sum.expected = sum.expected.saturating_add(expected);
                let share = f64::from(most) / f64::from(WHOLE_HOLD);
                sum.variance += slice.open as f64 * share * (1.0 - share);
            }
            account.expected = sum.expected;
            if is_bounded {
                let margin = 3.0 * (sum.variance * account.largest as f64).max(0.0).sqrt();
                let held = sum.held.saturating_add(margin as i64).min(sum.open);
                let more = held.saturating_sub(account.held);
                account.held = held;
                account.change(*number, more);
            }
        }
    }
}

/// An account's open bids.
#[derive(Default)]
struct Sum {
    /// What they cost if all are won, what they are expected to come to, and what is held for them.
    open: i64,
    expected: i64,
    held: i64,
    /// Of what they come to, over the largest of them.
    variance: f64,
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
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_past_is_held_in_full_and_a_long_one_by_it() {
        let mut past = Past::default();
        assert_eq!(past.to_come().most, [WHOLE_HOLD; GROUPS]);
        // A tenth is billed in the first group, a hundredth in the second, nothing after, at half the price.
        for _ in 0..50 {
            for (group, billed) in (0..GROUPS).zip([10_000, 1_000, 0, 0, 0, 0, 0, 0, 0, 0, 0]) {
                past.learn(&Flow {
                    entered: 100_000,
                    billed,
                    entered_nano: 200_000,
                    billed_nano: i64::from(billed),
                    open: 150_000,
                    group,
                    ..Flow::default()
                });
            }
        }
        let ToCome { most, expected } = past.to_come();
        assert!((107_000..109_000).contains(&most[0]), "{most:?}");
        assert!((10_000..11_000).contains(&most[1]), "{most:?}");
        assert!(most[2] < 100 && most[6] > 0, "{most:?}");
        assert_eq!(expected[..3], [53_750, 5_000, 0]);
        assert_eq!(
            [0, 1, 2, 3, 6, 7, 62, 63, 1_000].map(group_of),
            [0, 1, 1, 2, 2, 3, 5, 6, 9]
        );
    }

    #[test]
    fn ages_that_nobody_has_seen_bill_as_fast_as_those_before() {
        let mut past = Past::default();
        // A hundredth of those that are open is billed in each part, and nobody has seen the fourth group yet.
        for (group, open, billed) in [
            (0, 1_000_000, 10_000),
            (1, 990_000, 19_701),
            (2, 970_299, 38_233),
        ] {
            past.learn(&Flow {
                entered: open,
                billed,
                entered_nano: open.into(),
                billed_nano: billed.into(),
                open: i64::from(open - billed),
                group,
                ..Flow::default()
            });
        }
        let ToCome { most, expected } = past.to_come();
        for (group, parts) in [(0, 2_047), (3, 2_040), (8, 1_792)] {
            let all = 1_000_000.0 * (1.0 - 0.99f64.powi(parts));
            let (most, expected) = (f64::from(most[group]), f64::from(expected[group]));
            assert!(
                (expected - all).abs() < 50.0 && most >= expected,
                "{group}: {most} {expected} {all}"
            );
        }
    }

    #[test]
    fn every_group_of_ages_ends_within_a_window() {
        for window in (1..20_000).chain([86_400, 604_800, 31 * 86_400]) {
            let parts = window / part_seconds(window);
            assert!(
                parts <= PARTS_MAX && group_of(parts + 2) < GROUPS,
                "{window}: {parts}"
            );
            assert!((parts + 2).ilog2() < GROUPS as u32, "{window}: {parts}");
        }
    }
}
