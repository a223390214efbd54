//! Kith beside a bare hyper server: the same bodies, one server core each, in turns.
//!
//! A round asks each row's server for a block of requests, and reads the CPU time that the server's thread spent on it, user
//! and kernel. A row's ratio is taken within a round, against the bare row of the same body a fraction of a second
//! away, so that a machine that slows down slows both; what is reported is the median of the rounds' ratios, and as spread
//! the distance between their quartiles.
//!
//! | row | asks |
//! |---|---|
//! | `bare-hyper-*` | hyper, which collects the body and answers 204 |
//! | `nobid-1.5k` | the whole way for people who are known, over all line items; nothing matches |
//! | `bid-1.5k` | the whole way for people who are wanted, to a bid |
//! | `read-2.8k` | reading and the privacy gate: the same server without line items, so that it stops there |
//! | `notices-1.5k` | as `bid-1.5k`, with the URLs of notices, their tokens sealed, in each bid; the ledger's own thread is on the account |
//! | `money-1.5k` | as `notices-1.5k`, with budgets, pacing and caps on every line item |
//! | `people-1.5k` | as `bid-1.5k`, beside a million real-time updates and an identity dataset; a quarter of the people have an update, half of them another id |
//! | `mix-2.8k` | the whole way, about 83 % bids |

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use kith::config::Config;
use kith::generation::Generation;
use serde::Serialize;

use crate::bodies::{Weight, Who, bodies};
use crate::load::{Answers, Load, wire};
use crate::scene::{self, Size};
use crate::servers::{self, Measured};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Of what.
    pub size: Size,
    /// Rounds; the first one warms up and is left out.
    pub rounds: usize,
    /// Requests of each row in a round.
    pub requests: usize,
    /// Different bodies of each kind.
    pub bodies: usize,
    /// Connections that each have a request under way.
    pub connections: usize,
}

impl Effort {
    /// What figures are published from.
    pub const FULL: Self = Self {
        size: Size::FULL,
        rounds: 12,
        requests: 20_000,
        bodies: 20_000,
        connections: 32,
    };
    /// What tests run.
    pub const TINY: Self = Self {
        size: Size::TINY,
        rounds: 2,
        requests: 200,
        bodies: 100,
        connections: 32,
    };
}

/// The rows, in the order in which they are measured; each bare one before those of its bodies.
pub const ROWS: [&str; 9] = [
    "bare-hyper-1.5k",
    "nobid-1.5k",
    "bid-1.5k",
    "bare-hyper-2.8k",
    "read-2.8k",
    "mix-2.8k",
    "notices-1.5k",
    "money-1.5k",
    "people-1.5k",
];

/// What was measured, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// In the order in which they are measured.
    pub rows: Vec<Row>,
    /// Heap allocations of one decision, body to response, on a warm thread.
    pub allocations_per_decision: f64,
}

/// One row.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// CPU time of the server's thread, user and kernel; median over the rounds.
    pub cpu_us_per_request: f64,
    /// As many as this load got out of it; median over the rounds.
    pub requests_per_second: f64,
    /// Its CPU time over that of the bare row of the same body, in the same round; median over the rounds.
    pub ratio_cpu: f64,
    /// From the lower to the upper quartile of that ratio.
    pub spread: f64,
    /// Mean length of a request's body.
    pub body_bytes: f64,
    /// Share of requests that were answered with a bid.
    pub bid_share: f64,
}

/// A row's plan.
struct Plan {
    name: &'static str,
    server: Rc<Measured>,
    /// What part of its requests gets a bid.
    bids: RangeInclusive<f64>,
    bare: usize,
    requests: Vec<Vec<u8>>,
    body_bytes: f64,
    load: Load,
    blocks: Vec<Block>,
}

impl Plan {
    fn is_wanted(&self, only: Option<&str>) -> bool {
        self.name.starts_with("bare") || only.is_none_or(|only| only == self.name)
    }
}

/// A row's share of a round.
#[derive(Clone, Copy)]
struct Block {
    cpu_us: f64,
    seconds: f64,
    answers: Answers,
}

/// Runs all rows, or the bare ones and `only` this one.
///
/// # Errors
/// Where a server or the load fails, an answer is neither 200 nor 204, a request was shed, or a row has not the bids that
/// its name says: then it is not what its name says that was measured.
pub fn run(effort: Effort, only: Option<&str>) -> io::Result<Report> {
    let config = scene::config().map_err(io::Error::other)?;
    progress("building the scene");
    let full = Arc::new(scene::generation(effort.size, &config).map_err(io::Error::other)?);
    let allocations = crate::allocations::per_decision(&config, &full, effort)?;
    let mut plans = plans(&config, full, effort)?;
    servers::on_load_core();
    for round in 0..effort.rounds.max(2) {
        progress(&format!("round {} of {}", round + 1, effort.rounds.max(2)));
        for plan in plans.iter_mut().filter(|plan| plan.is_wanted(only)) {
            let first = round * effort.requests;
            let before = plan.server.cpu_ns()?;
            let began = Instant::now();
            let answers = plan.load.run(&plan.requests, first, effort.requests)?;
            let seconds = began.elapsed().as_secs_f64();
            let cpu_ns = plan.server.cpu_ns()? - before;
            check(plan.name, &plan.bids, answers, plan.server.shed()?)?;
            let cpu_us = cpu_ns as f64 / 1e3 / effort.requests as f64;
            plan.blocks.push(Block {
                cpu_us,
                seconds,
                answers,
            });
        }
    }
    progress("");
    Ok(Report {
        rows: plans
            .iter()
            .filter(|plan| plan.is_wanted(only))
            .map(|plan| row(plan, &plans, effort))
            .collect(),
        allocations_per_decision: allocations,
    })
}

/// Whether a block measured what its row is named after.
fn check(name: &str, bids: &RangeInclusive<f64>, answers: Answers, shed: u64) -> io::Result<()> {
    let share = answers.bids as f64 / (answers.bids + answers.no_bids) as f64;
    let wrong = if answers.others > 0 {
        format!("{} answers were neither 200 nor 204", answers.others)
    } else if shed > 0 {
        format!("{shed} requests were shed, so answered without the work that is measured")
    } else if !bids.contains(&share) {
        let (least, most) = (bids.start(), bids.end());
        format!("a share of {share} got a bid, and {least} to {most} should have")
    } else {
        return Ok(());
    };
    Err(io::Error::other(format!("{name}: {wrong}")))
}

fn plans(config: &Config, full: Arc<Generation>, effort: Effort) -> io::Result<Vec<Plan>> {
    let empty = Size {
        people: 1,
        line_items: 0,
    };
    let empty = scene::generation(empty, config).map_err(io::Error::other)?;
    // Threads take the affinity of the one that starts them.
    servers::on_server_core();
    let money = scene::with_money(&full, effort.size, config).map_err(io::Error::other)?;
    let noticed = scene::again(&full, effort.size, config).map_err(io::Error::other)?;
    let noticed = Rc::new(servers::kith_with_books(config, noticed)?);
    let money = Rc::new(servers::kith_with_books(config, money)?);
    let people = scene::with_people(&full, effort.size, config).map_err(io::Error::other)?;
    let people = Rc::new(servers::kith(config, Arc::new(people))?);
    let full = Rc::new(servers::kith(config, full)?);
    let empty = Rc::new(servers::kith(config, Arc::new(empty))?);
    let bare = Rc::new(servers::bare()?);
    let (none, all) = (0.0..=0.0, 1.0..=1.0);
    let light = Weight::Light;
    let heavy = Weight::Heavy;
    let rows = [
        (&bare, 0, light, Who::Wanted, &none),
        (&full, 0, light, Who::Unwanted, &none),
        (&full, 0, light, Who::Wanted, &all),
        (&bare, 3, heavy, Who::Wanted, &none),
        (&empty, 3, heavy, Who::Wanted, &none),
        // A hundred draws of the tests are far from the mean.
        (&full, 3, heavy, Who::Mixed(83), &(0.70..=0.95)),
        (&noticed, 0, light, Who::Wanted, &all),
        (&money, 0, light, Who::Wanted, &all),
        (&people, 0, light, Who::Wanted, &all),
    ];
    let plan = |(name, (server, bare, weight, who, bids)): (_, (&Rc<Measured>, _, _, _, &_))| {
        let bodies = bodies(weight, who, effort.size.people, effort.bodies);
        let bytes: usize = bodies.iter().map(String::len).sum();
        Ok(Plan {
            name,
            server: Rc::clone(server),
            bids: RangeInclusive::clone(bids),
            bare,
            requests: wire(server.path, &bodies),
            body_bytes: bytes as f64 / bodies.len() as f64,
            load: Load::connect(server.address, effort.connections)?,
            blocks: Vec::new(),
        })
    };
    ROWS.into_iter().zip(rows).map(plan).collect()
}

fn row(plan: &Plan, plans: &[Plan], effort: Effort) -> Row {
    let of = |plan: &Plan, what: fn(&Block) -> f64| -> Vec<f64> {
        plan.blocks.iter().skip(1).map(what).collect()
    };
    let cpu_us = of(plan, |block| block.cpu_us);
    let bare_us = plans
        .get(plan.bare)
        .map_or_else(Vec::new, |bare| of(bare, |block| block.cpu_us));
    let mut ratios: Vec<f64> = cpu_us
        .iter()
        .zip(bare_us)
        .map(|(own, bare)| own / bare)
        .collect();
    let bids: usize = plan.blocks.iter().map(|block| block.answers.bids).sum();
    let seconds = quantile(&mut of(plan, |block| block.seconds), 0.5);
    Row {
        name: plan.name,
        cpu_us_per_request: quantile(&mut cpu_us.clone(), 0.5),
        requests_per_second: effort.requests as f64 / seconds,
        ratio_cpu: quantile(&mut ratios, 0.5),
        spread: quantile(&mut ratios, 0.75) - quantile(&mut ratios, 0.25),
        body_bytes: plan.body_bytes,
        bid_share: bids as f64 / (plan.blocks.len() * effort.requests) as f64,
    }
}

/// The value below which that share of the values lies, between its two neighbours; NaN of none.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let place = share * values.len().saturating_sub(1) as f64;
    let (low, part) = (place.floor(), place.fract());
    let at = |place: usize| values.get(place).copied();
    match (at(low as usize), at(low as usize + 1)) {
        (Some(low), Some(high)) => low + (high - low) * part,
        (Some(low), None) => low,
        _ => f64::NAN,
    }
}

impl Report {
    /// As a table for people.
    pub fn table(&self) -> String {
        let mut out = format!(
            "{:<16} {:>10} {:>10} {:>12} {:>8} {:>8} {:>6}\n",
            "row", "body bytes", "CPU us", "requests/s", "ratio", "spread", "bids"
        );
        for row in &self.rows {
            let _ = writeln!(
                out,
                "{:<16} {:>10.0} {:>10.2} {:>12.0} {:>8.2} {:>8.2} {:>5.0}%",
                row.name,
                row.body_bytes,
                row.cpu_us_per_request,
                row.requests_per_second,
                row.ratio_cpu,
                row.spread,
                row.bid_share * 100.0
            );
        }
        let _ = write!(
            out,
            "allocations per decision: {}",
            self.allocations_per_decision
        );
        out
    }
}

fn progress(what: &str) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{what}");
        let _ = err.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&mut [4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        assert_eq!(quantile(&mut [1.0, 2.0, 3.0, 4.0, 5.0], 0.75), 4.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn what_is_not_what_the_row_says_is_no_figure() {
        let answers = |bids, no_bids, others| Answers {
            bids,
            no_bids,
            others,
        };
        let told = |bids, answers, shed| {
            let checked = check("row", &bids, answers, shed);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(told(1.0..=1.0, answers(100, 0, 0), 0), Ok(()));
        assert_eq!(told(0.0..=0.0, answers(0, 100, 0), 0), Ok(()));
        for (bids, answers, shed, why) in [
            (1.0..=1.0, answers(99, 1, 0), 0, "a share of 0.99 got a bid"),
            (0.0..=0.0, answers(1, 99, 0), 0, "a share of 0.01 got a bid"),
            (0.0..=0.0, answers(0, 100, 0), 3, "3 requests were shed"),
            (1.0..=1.0, answers(99, 0, 1), 0, "1 answers were neither"),
            (1.0..=1.0, answers(0, 0, 0), 0, "a share of NaN"),
        ] {
            let wrong = told(bids, answers, shed).expect_err(why);
            assert!(wrong.starts_with(&format!("row: {why}")), "{wrong}");
        }
    }

    #[test]
    fn every_row_asks_what_its_name_says() {
        let report = run(Effort::TINY, None).expect("a comparison");
        assert_eq!(report.rows.len(), ROWS.len());
        for row in &report.rows {
            let named = if row.name.ends_with("1.5k") {
                1_500.0
            } else {
                2_800.0
            };
            assert!(
                (row.body_bytes / named - 1.0).abs() < 0.1,
                "{}: {} bytes",
                row.name,
                row.body_bytes
            );
            assert!(row.cpu_us_per_request > 0.0 && row.requests_per_second > 0.0);
        }
        assert_eq!(report.allocations_per_decision, 0.0);
    }
}
