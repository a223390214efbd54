//! What the report has beside notices: what became of the imps that line items might have bid on, and what the journal holds of it.
//!
//! Bid threads count what they did to each candidate; an imp is seen by all line items that are live, and is counted once
//! ([`seen`](crate::ledger::seen)).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;
use crate::ledger::desk::Tallied;
use crate::ledger::report::{BID, Keeping, NO_CREATIVE, Place, Query, Row};
use crate::ledger::seen::{Epoch, Live};

/// Plans of which bid threads may still tell what they counted.
const PLANS_KEPT: usize = 64;
/// So many changed counts of imps are told to the journal for each second since it last was, so that with very many line items the
/// disk is not kept busy with them; and they are told after so many seconds in any case.
const UNSAVED_A_SECOND: usize = 1_000;
const UNSAVED_SECONDS: u32 = 300;

/// Which set of line items each plan of this run has, when the journal was told of imps, and which hours have files.
#[derive(Debug, Default)]
pub(super) struct Imps {
    epochs: VecDeque<(u64, Epoch)>,
    saved_at: u32,
    /// Hours before this one are in their files; nothing where nobody writes any.
    filed: Option<u32>,
}

impl Keeper {
    /// A plan is made: from its first imp on these line items count imps.
    pub(super) fn see_from(&mut self, plan: u64, lines: &[Line]) {
        let active = lines.iter().filter(|line| line.is_active);
        let set = active
            .map(|line| Live {
                scopes: line.scopes,
                currency: line.currency,
            })
            .collect();
        let (came, went) = self.report.seen.differs(&set);
        if !(came.is_empty() && went.is_empty()) {
            let epoch = self.report.seen.epoch().saturating_add(1);
            self.report.seen.change(epoch, &came, &went);
            self.write(&Record::Live { epoch, came, went });
        }
        let epochs = &mut self.imps.epochs;
        epochs.push_back((plan, self.report.seen.epoch()));
        if epochs.len() > PLANS_KEPT {
            epochs.pop_front();
        }
    }

    /// A bid thread counted.
    pub(super) fn tallied(&mut self, tallied: &Tallied) {
        let Tallied {
            ref plan,
            exchange,
            hour,
            imps,
            ref rows,
        } = *tallied;
        let mut epochs = self.imps.epochs.iter().rev();
        let epoch = epochs.find(|(of, _)| *of == plan.number);
        let epoch = epoch.map_or(self.report.seen.epoch(), |(_, epoch)| *epoch);
        self.report.see(hour, exchange, epoch, imps);
        for (line_item, reason, count) in rows {
            let Some(line) = plan.line(*line_item) else {
                continue;
            };
            let key = Key {
                hour,
                scopes: line.scopes,
                creative: NO_CREATIVE,
                exchange,
                currency: line.currency,
            };
            let reason = self.name(NameKind::Reason, reason.unwrap_or(BID));
            self.report.tally(key, reason, (*count).into());
        }
    }

    /// The journal is told of all that was counted.
    pub(in crate::ledger) fn save_report(&mut self) {
        self.save_delivery();
        self.save_imps();
    }

    fn save_delivery(&mut self) {
        let delivered = self.report.delivered.take_unsaved();
        for (row, (), counts) in delivered {
            write(&Record::Row { row, counts }, &mut self.out);
        }
        for (row, segment, counts) in self.report.segments.take_unsaved() {
            let record = Record::Segment {
                row,
                segment,
                counts,
            };
            write(&record, &mut self.out);
        }
    }

    /// Imps first: should a crash cut this short, what is missing of the reasons is in what remains, "not targeted".
    fn save_imps(&mut self) {
        self.imps.saved_at = self.now;
        for (of, imps) in self.report.seen.take_unsaved() {
            write(&Record::Seen { of, imps }, &mut self.out);
        }
        for (row, reason, imps) in self.report.reasons.take_unsaved() {
            write(&Record::Reason { row, reason, imps }, &mut self.out);
        }
    }

    /// Now and then: the journal is told, and what is old is by the day or forgotten.
    pub(super) fn tend_report(&mut self) {
        let hour = self.now / 3600;
        let since = self.now.saturating_sub(self.imps.saved_at);
        let may = place(since).unwrap_or(0).saturating_mul(UNSAVED_A_SECOND);
        self.save_delivery();
        if since >= UNSAVED_SECONDS || self.report.reasons.unsaved() <= may {
            self.save_imps();
        }
        let rolled = self.report.rolled_before();
        let filed = self.imps.filed.unwrap_or(u32::MAX);
        let keeping = Keeping::of(self.terms.report_rows, self.terms.longest_window(), filed);
        if self.report.is_due(hour, keeping) {
            self.save_imps();
            self.report.tend(hour, keeping);
        }
        let before = self.report.rolled_before();
        if before > rolled {
            self.write(&Record::Rolled { before });
        }
    }

    /// Hours before this one are in their files. Somebody writes them: none becomes part of a day before.
    pub fn files_are_before(&mut self, hour: u32) {
        self.imps.filed = Some(hour);
    }

    /// The hour before which rows are by the day.
    pub fn rolled_before(&self) -> u32 {
        self.report.rolled_before()
    }

    /// A record of the report's, as a journal has it.
    pub(super) fn replay_report(&mut self, record: Record) {
        let report = &mut self.report;
        match record {
            Record::Row { row, counts } => {
                let before = report.delivered.set(row, (), counts);
                let spent = self.spent.entry(row.currency).or_default();
                *spent = spent.saturating_add(counts.spend.saturating_sub(before.spend));
            }
            Record::Segment {
                row,
                segment,
                counts,
            } => {
                report.segments.set(row, segment, counts);
            }
            Record::Live { epoch, came, went } => report.seen.change(epoch, &came, &went),
            Record::Seen { of, imps } => report.seen.set(of, imps),
            Record::Reason { row, reason, imps } => {
                report.reasons.set(row, reason, imps);
            }
            Record::Rolled { before } => report.roll(before),
            _ => {}
        }
    }

    /// What leads a journal to the report.
    pub(super) fn report_records(&self, put: &mut impl FnMut(Record)) {
        let report = &self.report;
        put(Record::Rolled {
            before: report.rolled_before(),
        });
        for (epoch, (came, went)) in report.seen.changes() {
            put(Record::Live { epoch, came, went });
        }
        for (of, imps) in report.seen.all() {
            put(Record::Seen { of, imps });
        }
        for (row, (), counts) in report.delivered.all() {
            put(Record::Row { row, counts });
        }
        for (row, segment, counts) in report.segments.all() {
            put(Record::Segment {
                row,
                segment,
                counts,
            });
        }
        for (row, reason, imps) in report.reasons.all() {
            put(Record::Reason { row, reason, imps });
        }
    }

    /// Hours, since 1970, that have rows among those that a query asks for, and the hour before which rows are by the day: while that
    /// stays, rows stay in their hours.
    pub fn hours(&self, query: &Query) -> (Vec<u32>, u32) {
        (self.report.hours(query), self.report.rolled_before())
    }

    /// Some rows of the report, of at most so many that are kept, and where the rest begins: bids wait for the ledger's thread, which is
    /// not long at a part.
    pub fn rows_from(&self, query: &Query, from: Place, most: usize) -> (Vec<Row>, Option<Place>) {
        let name = |number| self.text(number);
        self.report.part(query, from, most, name)
    }

    /// Rows of the report.
    pub fn rows(&self, query: &Query) -> Vec<Row> {
        self.report.ask(query, |number| self.text(number))
    }
}
