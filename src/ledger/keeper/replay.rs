//! The books from a journal, and a journal from the books.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;
use crate::ledger::contacts::Contact;
use crate::ledger::records::MAGIC;

impl Keeper {
    /// Takes in one record, in the journal's order. False where it does not fit those before it.
    #[must_use]
    pub(in crate::ledger) fn replay(&mut self, record: Record) -> bool {
        match record {
            Record::Start { start } => {
                self.start = start;
                self.was_closed = false;
            }
            Record::Closed => self.was_closed = true,
            Record::Key { id, at, secret } => {
                self.now = self.now.max(at);
                self.add_key(id, at, secret);
            }
            Record::Name { number, kind, name } => {
                if place(number) != Some(self.texts.len()) {
                    return false;
                }
                self.add_name(kind, name);
            }
            Record::Account { number, of, day } => {
                if number < self.next_account {
                    return false;
                }
                self.add_account(number, of, day);
            }
            Record::Currency { of, currency } => {
                self.currencies.insert(of, currency);
            }
            Record::Level { account, nano } => match self.account_mut(account) {
                Some(account) => account.level = nano,
                None => return false,
            },
            Record::Spent { account, nano } => match self.account_mut(account) {
                Some(account) => account.spent = nano,
                None => return false,
            },
            Record::Notice(notice) => {
                self.now = self.now.max(notice.at);
                self.settled.note(notice.kind, notice.bid, notice.bid_at);
                self.book(&notice);
            }
            Record::Settled {
                start,
                desk,
                hour,
                kind,
                bids,
            } => {
                return self.settled.take_in(start, desk, hour, kind, &bids);
            }
            Record::Contact {
                key,
                at,
                until,
                scopes,
            } => {
                self.frequency
                    .settle(key, None, Contact::settled(at, until, scopes), at);
            }
            Record::Row { .. }
            | Record::Live { .. }
            | Record::Seen { .. }
            | Record::Reason { .. }
            | Record::Segment { .. }
            | Record::Rolled { .. } => self.replay_report(record),
            Record::Hour { hour, requests } => self.shape.learn(hour, requests),
            Record::Switch { kind, name, off } => {
                let Some(switch) = Switch::numbered(kind, name) else {
                    return false;
                };
                match off {
                    true => self.off.insert(switch),
                    false => self.off.remove(&switch),
                };
            }
        }
        true
    }

    fn account_mut(&mut self, number: u32) -> Option<&mut Account> {
        self.accounts.get_mut(&number)
    }

    /// A journal that leads to where the books are: what a long one is replaced with. What is pending must have been written.
    pub fn journal(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut put = |record: Record| write(&record, &mut out);
        put(Record::Start { start: self.start });
        if self.was_closed {
            put(Record::Closed);
        }
        for (key, at) in self.keys.0.iter().zip(&self.key_made) {
            put(Record::Key {
                id: key.id,
                at: *at,
                secret: key.secret,
            });
        }
        for (number, (kind, name)) in (0..).zip(&self.texts) {
            put(Record::Name {
                number,
                kind: *kind,
                name: name.clone(),
            });
        }
        for (of, currency) in &self.currencies {
            put(Record::Currency {
                of: *of,
                currency: *currency,
            });
        }
        for (number, account) in &self.accounts {
            let number = *number;
            put(Record::Account {
                number,
                of: account.of,
                day: account.day,
            });
            if account.level != 0 {
                put(Record::Level {
                    account: number,
                    nano: account.level,
                });
            }
            if account.spent != 0 {
                put(Record::Spent {
                    account: number,
                    nano: account.spent,
                });
            }
        }
        for (hour, requests) in self.shape.known() {
            put(Record::Hour { hour, requests });
        }
        for switch in &self.off {
            let name = switch.told().1.into();
            put(Record::Switch {
                kind: switch.number(),
                name,
                off: true,
            });
        }
        self.settled.each(|start, desk, hour, kind, bids| {
            put(Record::Settled {
                start,
                desk,
                hour,
                kind,
                bids,
            });
        });
        self.frequency.each(true, &mut |key, contact: &Contact| {
            put(Record::Contact {
                key,
                at: contact.at,
                until: contact.until,
                scopes: contact.scopes,
            });
        });
        self.report_records(&mut put);
        out
    }
}
