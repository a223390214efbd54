//! `user` and `device.ifa`: who the request is about, as ids, and what the exchange says of them.

use super::Plan;
use super::device::{IFA_WITHHELD, Kind};
use super::privacy::Signals;
use super::text::Text;
use crate::audience::{Audience, BUYERUID, EIDS, IFA, id_text};
use crate::dice::Dice;

/// A person's ids, by source.
#[derive(Debug, Default)]
pub(super) struct Person {
    ids: Vec<(String, String)>,
}

impl Person {
    /// Somebody of the audience by one id, or nobody yet.
    pub(super) fn drawn(known: Option<&Audience>, dice: &mut Dice) -> Self {
        Self {
            ids: known
                .and_then(|audience| audience.draw(dice))
                .into_iter()
                .collect(),
        }
    }

    pub(super) fn has(&self, source: &str) -> bool {
        self.ids.iter().any(|(own, _)| own == source)
    }

    /// The other ids that such a request carries: an app has the device's, a site the exchange's cookies, and the more bytes there are
    /// the more extended ids.
    pub(super) fn complete(&mut self, known: Option<&Audience>, plan: &Plan, dice: &mut Dice) {
        let mut add = |source: &str, dice: &mut Dice| {
            if !self.has(source) {
                let of_audience = known.filter(|_| dice.chance(0.5));
                let id = of_audience.and_then(|audience| audience.draw_of(source, dice));
                let id = id.unwrap_or_else(|| id_text(source, dice.bits()));
                self.ids.push((source.to_owned(), id));
            }
        };
        if plan.app && dice.chance(0.85) {
            add(IFA, dice);
        }
        if dice.chance(if plan.app { 0.3 } else { 0.7 }) {
            add(BUYERUID, dice);
        }
        let eids = match plan.bytes {
            ..1100 => usize::from(dice.chance(0.2)),
            1100..2000 => dice.below(3),
            2000..4000 => dice.below(6),
            _ => 2 + dice.below(6),
        };
        let first = dice.below(EIDS.len());
        for step in 0..eids {
            add(EIDS[(first + step * 3) % EIDS.len()], dice);
        }
        let withheld = plan.signals == Signals::Lmt && known.is_none();
        for (source, id) in &mut self.ids {
            if source == IFA && withheld {
                *id = IFA_WITHHELD.to_owned();
            } else if source == IFA && plan.kind == Kind::Iphone {
                // As iOS writes it; normal form is lower case.
                *id = id.to_ascii_uppercase();
            }
        }
    }

    pub(super) fn ifa(&self) -> Option<&str> {
        self.ids
            .iter()
            .find(|(source, _)| source == IFA)
            .map(|(_, id)| id.as_str())
    }

    /// Writes `user`.
    pub(super) fn write(&self, t: &mut Text, plan: &Plan, consent: Option<&str>, dice: &mut Dice) {
        let own = |source: &str| {
            self.ids
                .iter()
                .find(|(own, _)| own == source)
                .map(|(_, id)| id)
        };
        let of_exchange = self
            .ids
            .iter()
            .find(|(source, _)| source.starts_with("exchange:"));
        let eids: Vec<_> = self
            .ids
            .iter()
            .filter(|(source, _)| {
                source != IFA && source != BUYERUID && !source.starts_with("exchange:")
            })
            .collect();
        t.object("user", |t| {
            match of_exchange {
                Some((_, id)) => t.text("id", id),
                None if dice.chance(if plan.lean() { 0.4 } else { 0.8 }) => {
                    t.text("id", &format!("{:032x}", dice.bits()));
                }
                None => {}
            }
            if let Some(id) = own(BUYERUID) {
                t.text("buyeruid", id);
            }
            if !plan.lean() && dice.chance(0.15) {
                t.int("yob", dice.within(1950..=2005));
                t.text("gender", dice.pick(&["M", "F", "O"]));
            }
            if !plan.short() && dice.chance(0.3) {
                t.text("keywords", "outdoor,cooking,live music,used cars");
            }
            if plan.bytes > 1450 && dice.chance(if plan.short() { 0.1 } else { 0.4 }) {
                data(t, plan, dice);
            }
            if !plan.old {
                if let Some(consent) = consent {
                    t.text("consent", consent);
                }
                write_eids(t, &eids);
            } else if consent.is_some() || !eids.is_empty() {
                t.object("ext", |t| {
                    if let Some(consent) = consent {
                        t.text("consent", consent);
                    }
                    write_eids(t, &eids);
                });
            }
        });
    }
}

fn write_eids(t: &mut Text, eids: &[&(String, String)]) {
    if eids.is_empty() {
        return;
    }
    t.list("eids", |t| {
        for (source, id) in eids {
            t.element(|t| {
                t.text("source", source);
                t.list("uids", |t| {
                    t.element(|t| {
                        t.text("id", id);
                        t.int("atype", if source == "uidapi.com" { 3 } else { 1 });
                        if source == "idgraph.example" {
                            t.object("ext", |t| t.int("linkType", 2));
                        }
                    });
                });
            });
        }
    });
}

/// `user.data`: the exchange's own segments.
fn data(t: &mut Text, plan: &Plan, dice: &mut Dice) {
    let providers = if plan.bytes > 3000 { 2 } else { 1 };
    t.list("data", |t| {
        for provider in 0..providers {
            t.element(|t| {
                t.text("id", &format!("{}", 40 + provider));
                t.text(
                    "name",
                    dice.pick(&["taxonomy.example", "lifestyles.example"]),
                );
                t.list("segment", |t| {
                    for _ in 0..if plan.short() { 2 } else { 2 + dice.below(6) } {
                        t.element(|t| t.text("id", &format!("{}", 100 + dice.below(600))));
                    }
                });
                if dice.chance(0.7) {
                    t.object("ext", |t| t.int("segtax", 4));
                }
            });
        }
    });
}
