//! A seeded stream of realistic OpenRTB bid requests.
//!
//! Each request is planned first (how large, where, on what, about whom, what may be known), then written in parts: what
//! it must have, as many imps as fit, and lists and extensions up to the planned size, as the lists of
//! real exchanges make up most of a large request. The size is drawn, not the outcome of the content, so
//! that a profile's sizes are what they are said to be.
//!
//! Invariants: the same profile, seed and audience give the same bytes; every body is a bid request without a field that
//! Kith cannot read; nothing in it is anybody's. Cost: about 20 µs a request.

mod device;
mod filling;
mod imps;
mod person;
mod place;
mod privacy;
mod text;

use std::sync::Arc;

pub use self::privacy::OPEN_SHARE;

use self::device::Kind;
use self::privacy::Signals;
use self::text::{Habit, Text};
use crate::audience::{self, Audience};
use crate::dice::Dice;
use crate::world::{self, Country};

/// How large requests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// 0.6 to 6 KB, 2.8 KB on average: traffic as it comes.
    #[default]
    Mix,
    /// About 1.5 KB.
    Small,
    /// About 2.8 KB.
    Medium,
    /// 5 to 6 KB, 4 to 10 imps.
    Heavy,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mix, Self::Small, Self::Medium, Self::Heavy];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Heavy => "heavy",
        }
    }

    /// The bytes of its requests, from and to.
    pub fn bytes(self) -> (usize, usize) {
        match self {
            Self::Mix => (600, 6000),
            Self::Small => (1400, 1600),
            Self::Medium => (2700, 2900),
            Self::Heavy => (5000, 6000),
        }
    }

    fn drawn_bytes(self, dice: &mut Dice) -> usize {
        let (from, to) = self.bytes();
        let place = match self {
            // A mean of 2 in 4.9: (2800 - 600) of (6000 - 600).
            Self::Mix => {
                dice.sample(rand_distr::Beta::new(2.0_f64, 2.9).expect("positive parameters"))
            }
            Self::Small | Self::Medium | Self::Heavy => dice.fraction(),
        };
        from + (place * (to - from) as f64) as usize
    }

    fn drawn_imps(self, bytes: usize, dice: &mut Dice) -> usize {
        match (self, bytes) {
            (Self::Heavy, _) => dice.within(4..=10) as usize,
            (_, ..1300) => 1,
            (_, 1300..2500) => dice.weighted(&[(1, 75), (2, 25)]),
            (_, 2500..4000) => dice.weighted(&[(1, 50), (2, 25), (3, 15), (4, 10)]),
            (_, _) => dice.weighted(&[(1, 25), (2, 25), (3, 20), (5, 20), (8, 10)]),
        }
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| format!("there are {}", names()))
    }
}

/// What the parts of one request have to agree on.
#[derive(Debug)]
struct Plan {
    bytes: usize,
    habit: Habit,
    /// Before OpenRTB 2.6: in `ext` what has a home of its own since.
    old: bool,
    app: bool,
    kind: Kind,
    country: &'static Country,
    publisher: usize,
    signals: Signals,
}

impl Plan {
    /// Too small for what exchanges add when they need not save.
    fn short(&self) -> bool {
        self.bytes < 2000
    }

    /// So small that only what is needed is sent.
    fn lean(&self) -> bool {
        self.bytes < 1100
    }
}

/// Bid requests without end. Each is one JSON object on one line.
#[derive(Debug)]
pub struct Stream {
    profile: Profile,
    dice: Dice,
    audience: Option<Arc<Audience>>,
    hit_rate: f64,
}

impl Stream {
    /// A stream about people whom nobody knows.
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            dice: Dice::new(seed, 1),
            audience: None,
            hit_rate: 0.0,
        }
    }

    /// Makes a share of the requests be about people of the audience: at least one of their ids is in it, each other one
    /// half of the time.
    pub fn with_audience(self, audience: Arc<Audience>, hit_rate: f64) -> Self {
        Self {
            audience: Some(audience),
            hit_rate,
            ..self
        }
    }

    fn plan(profile: Profile, person: &person::Person, dice: &mut Dice) -> Plan {
        let signals = Signals::drawn(dice);
        let app = person.has(audience::IFA) || dice.chance(0.3);
        let under_gdpr = signals == Signals::GdprRefused;
        Plan {
            bytes: profile.drawn_bytes(dice),
            habit: dice.weighted(&[
                (Habit::Plain, 55),
                (Habit::Slashes, 20),
                (Habit::Html, 15),
                (Habit::Spaces, 10),
            ]),
            old: dice.chance(0.6),
            app,
            kind: Kind::drawn(app, dice),
            country: if under_gdpr {
                dice.weighted(&world::UNDER_GDPR)
            } else {
                dice.weighted(&world::ELSEWHERE)
            },
            publisher: dice
                .sample(rand_distr::Zipf::new(world::PUBLISHERS as f64, 0.8).expect("publishers"))
                as usize
                - 1,
            signals,
        }
    }

    fn request(&mut self) -> String {
        let dice = &mut self.dice;
        let known = self
            .audience
            .as_deref()
            .filter(|_| dice.chance(self.hit_rate));
        let mut person = person::Person::drawn(known, dice);
        let plan = Self::plan(self.profile, &person, dice);
        person.complete(known, &plan, dice);
        let part = || Text::new(plan.habit);
        let (mut id, mut auction, mut place, mut device) = (part(), part(), part(), part());
        let (mut user, mut regs, mut source, mut imp, mut rest) =
            (part(), part(), part(), part(), part());
        let request_id = audience::uuid(dice.bits());
        id.text("id", &request_id);
        auction.int("at", dice.weighted(&[(1, 85), (2, 15)]));
        auction.int(
            "tmax",
            dice.weighted(&[(100, 15), (120, 35), (150, 20), (200, 20), (300, 10)]),
        );
        if !plan.lean() || dice.chance(0.5) {
            auction.words("cur", &["USD"]);
        }
        place::write(&mut place, &plan, dice);
        device::write(&mut device, &plan, person.ifa(), dice);
        let consent = plan.signals.consent(dice).filter(|_| !plan.lean());
        person.write(&mut user, &plan, consent.as_deref(), dice);
        plan.signals.regs(&mut regs, plan.old, dice);
        place::write_source(&mut source, &plan, &request_id, dice);
        let others = [&id, &auction, &place, &device, &user, &regs, &source];
        let so_far: usize = others.iter().map(|part| part.len() + 1).sum();
        let wanted = self.profile.drawn_imps(plan.bytes, dice);
        imps::write(
            &mut imp,
            &plan,
            wanted,
            plan.bytes.saturating_sub(so_far),
            dice,
        );
        filling::write(
            &mut rest,
            &plan,
            plan.bytes.saturating_sub(so_far + imp.len() + 2),
            dice,
        );
        // Where the lists stand differs from exchange to exchange.
        let parts = if dice.chance(0.7) {
            [
                &id, &imp, &place, &device, &user, &auction, &regs, &source, &rest,
            ]
        } else {
            [
                &id, &auction, &rest, &regs, &source, &user, &device, &place, &imp,
            ]
        };
        Text::joined(plan.habit, &parts)
    }
}

impl Iterator for Stream {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        Some(self.request())
    }
}

#[cfg(test)]
mod tests;
