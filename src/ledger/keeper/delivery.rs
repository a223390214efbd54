//! What the report has beside bids and notices: what became of the imps that line items might have bid on.
//!
//! Bid threads count what they did to each candidate; an imp is seen by all line items of the plan alike. So that nobody counts an imp
//! a hundred thousand times, how many there were is kept by plan, exchange and hour, and becomes part of each line item's row
//! when the hour or the plan is over.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;
use crate::ledger::desk::Tallied;
use crate::ledger::records::Live;
use crate::ledger::report::{BID, IMPS, NO_CREATIVE, Query, Row};

/// Imps seen under plans that the rows do not have yet.
#[derive(Debug, Default)]
pub(super) struct SeenImps {
    /// By plan: its active line items.
    plans: BTreeMap<u64, Arc<[Live]>>,
    /// By plan, exchange and hour.
    imps: BTreeMap<(u64, u32, u32), u64>,
    unsaved: std::collections::BTreeSet<(u64, u32, u32)>,
}

impl SeenImps {
    /// As rows: of each line item of the plan.
    fn rows(&self) -> impl Iterator<Item = (Key, u64)> {
        self.imps.iter().flat_map(|((plan, exchange, hour), imps)| {
            let of = self.plans.get(plan).map_or(&[][..], |of| of);
            of.iter()
                .map(|live| (key_of(live, *exchange, *hour), *imps))
        })
    }
}

fn key_of(live: &Live, exchange: u32, hour: u32) -> Key {
    Key {
        hour,
        scopes: live.scopes,
        creative: NO_CREATIVE,
        exchange,
        currency: live.currency,
    }
}

impl Keeper {
    /// A bid thread counted.
    pub(super) fn tallied(&mut self, tallied: &Tallied) {
        let Tallied {
            ref plan,
            exchange,
            hour,
            imps,
            ref rows,
        } = *tallied;
        let number = plan.number;
        if !self.seen.plans.contains_key(&number) {
            let of = plan.lines.iter().filter(|line| line.is_active);
            let of: Arc<[Live]> = of
                .map(|line| Live {
                    scopes: line.scopes,
                    currency: line.currency,
                })
                .collect();
            self.write(&Record::Live {
                plan: number,
                of: of.to_vec(),
            });
            self.seen.plans.insert(number, of);
        }
        let seen = (number, exchange, hour);
        let sum = self.seen.imps.entry(seen).or_default();
        *sum = sum.saturating_add(imps);
        self.seen.unsaved.insert(seen);
        for (line_item, reason, count) in rows {
            let Some(line) = plan.line(*line_item) else {
                continue;
            };
            let live = Live {
                scopes: line.scopes,
                currency: line.currency,
            };
            let reason = self.name(NameKind::Reason, reason.unwrap_or(BID));
            self.report
                .tally(key_of(&live, exchange, hour), reason, (*count).into());
        }
    }

    /// The rows get what was seen in hours, or under plans, that are over.
    pub(super) fn settle_seen(&mut self, is_over: impl Fn(u64, u32) -> bool) {
        let over: Vec<(u64, u32, u32)> = self
            .seen
            .imps
            .keys()
            .filter(|(plan, _, hour)| is_over(*plan, *hour))
            .copied()
            .collect();
        if over.is_empty() {
            return self.forget_plans();
        }
        let all = self.name(NameKind::Reason, IMPS);
        for seen in over {
            let (plan, exchange, hour) = seen;
            let imps = self.seen.imps.remove(&seen).unwrap_or(0);
            self.seen.unsaved.remove(&seen);
            let of = self.seen.plans.get(&plan).map(Arc::clone);
            for live in of.iter().flat_map(|of| of.iter()) {
                self.report.tally(key_of(live, exchange, hour), all, imps);
            }
            self.write(&Record::Seen {
                plan,
                exchange,
                hour,
                imps: 0,
            });
        }
        self.forget_plans();
    }

    /// Plans that are over, and of which no imps are left to become rows.
    fn forget_plans(&mut self) {
        let imps = &self.seen.imps;
        let newest = self.plans;
        self.seen
            .plans
            .retain(|plan, _| *plan == newest || imps.keys().any(|(of, ..)| of == plan));
    }

    /// The journal is told of what was counted.
    pub(in crate::ledger) fn save_report(&mut self) {
        for (row, counts) in self.report.take_unsaved() {
            self.write(&Record::Row { row, counts });
        }
        for (row, segment, counts) in self.report.take_unsaved_segments() {
            self.write(&Record::Segment {
                row,
                segment,
                counts,
            });
        }
        for (row, reason, imps) in self.report.take_unsaved_reasons() {
            self.write(&Record::Reason { row, reason, imps });
        }
        for (plan, exchange, hour) in std::mem::take(&mut self.seen.unsaved) {
            let imps = self
                .seen
                .imps
                .get(&(plan, exchange, hour))
                .copied()
                .unwrap_or(0);
            self.write(&Record::Seen {
                plan,
                exchange,
                hour,
                imps,
            });
        }
    }

    /// Now and then: what is over is added up, what is old is by the day or forgotten, and the journal is told.
    pub(super) fn tend_report(&mut self) {
        let (hour, newest) = (self.now / 3600, self.plans);
        self.settle_seen(|plan, of| plan != newest || of < hour);
        self.save_report();
        let (rolled, before) = self.report.to_roll(hour);
        if before > rolled {
            self.report.roll(before);
            self.write(&Record::Rolled { before });
        }
        self.report.forget_before(hour);
    }

    /// A record of the report's, as a journal has it.
    pub(super) fn replay_report(&mut self, record: Record) {
        match record {
            Record::Row { row, counts } => {
                let before = self.report.row(row).spend;
                let spent = self.spent.entry(row.currency).or_default();
                *spent = spent.saturating_add(counts.spend.saturating_sub(before));
                self.report.set(row, counts);
            }
            Record::Segment {
                row,
                segment,
                counts,
            } => self.report.set_segment(row, segment, counts),
            Record::Live { plan, of } => {
                self.seen.plans.insert(plan, of.into());
            }
            Record::Seen {
                plan,
                exchange,
                hour,
                imps: 0,
            } => {
                self.seen.imps.remove(&(plan, exchange, hour));
            }
            Record::Seen {
                plan,
                exchange,
                hour,
                imps,
            } => {
                self.seen.imps.insert((plan, exchange, hour), imps);
            }
            Record::Reason { row, reason, imps } => self.report.set_reason(row, reason, imps),
            Record::Rolled { before } => self.report.roll(before),
            _ => {}
        }
    }

    /// What leads a journal to the report.
    pub(super) fn report_records(&self, put: &mut impl FnMut(Record)) {
        put(Record::Rolled {
            before: self.report.to_roll(0).0,
        });
        for (plan, of) in &self.seen.plans {
            put(Record::Live {
                plan: *plan,
                of: of.to_vec(),
            });
        }
        for ((plan, exchange, hour), imps) in &self.seen.imps {
            put(Record::Seen {
                plan: *plan,
                exchange: *exchange,
                hour: *hour,
                imps: *imps,
            });
        }
        for (row, counts) in self.report.rows() {
            put(Record::Row {
                row: *row,
                counts: *counts,
            });
        }
        for (row, segment, counts) in self.report.segments() {
            put(Record::Segment {
                row,
                segment,
                counts,
            });
        }
        for (row, reason, imps) in self.report.reasons() {
            put(Record::Reason { row, reason, imps });
        }
    }

    /// Rows of the report.
    pub fn rows(&self, query: &Query) -> Vec<Row> {
        self.report
            .ask(query, self.seen.rows(), |number| self.text(number))
    }
}
