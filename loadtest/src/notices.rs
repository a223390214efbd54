//! Playing the exchange: win, billing and loss notices for the bids that come back.
//!
//! Each bid wins or loses by chance; a winner gets its `nurl`, then its `burl`; a loser its `lurl`. Notices come late,
//! twice or never, as they do in the field. All chance comes from a seed and the request's number, so two runs against
//! the same server play the same auction, whatever the threads do.
//!
//! Notices are only sent to the hosts that are loaded anyway: a URL that leads elsewhere is counted and not followed.
//! They have a thread and connections of their own and are counted apart; what they do to the server is seen in the
//! bids' latencies. Bodies are read with serde_json, on the thread that sends bids: asking for notices costs the
//! generator some microseconds a bid, and its lag tells whether that was too much.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Lane};
use crate::feed::{Feed, Next};
use crate::report::Figures;
use crate::run::{Outcomes, Plan, RunError, run};
use crate::schedule::{Due, Nanos, nanos};
use crate::tally::{ErrorKind, Outcome, Tally};
use crate::watch::{Ended, Limits, Live, Watch};

/// How often the thread looks for new notices, and so how much later than due one can be.
const LOOK: Nanos = 5_000_000;
/// A notice that finds no free connection within this is not sent.
const WAIT: Duration = Duration::from_secs(10);

/// How the exchange behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Notices {
    /// Part of the bids that win; of several bids for an imp, one at most.
    pub win: f64,
    /// Part of the wins that are billed.
    pub bill: f64,
    /// Part of the notices that come later, by…
    pub late: f64,
    /// …this.
    pub late_by: Duration,
    /// Part of the notices that come twice.
    pub twice: f64,
    /// Part of the notices that never come.
    pub never: f64,
    /// A notice comes this long after its bid; a billing notice as long again after the win's.
    pub after: Duration,
    /// Connections for notices to each host.
    pub connections: usize,
    /// What all chance comes from.
    pub seed: u64,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            win: 0.2,
            bill: 0.9,
            late: 0.05,
            late_by: Duration::from_secs(2),
            twice: 0.02,
            never: 0.01,
            after: Duration::from_millis(50),
            connections: 4,
            seed: 1,
        }
    }
}

impl FromStr for Notices {
    type Err = String;

    /// `win=0.2,bill=0.9,late=0.05,late_ms=2000,twice=0.02,never=0.01,after_ms=50,connections=4,seed=1`; what is left
    /// out is as here.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut notices = Self::default();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("{setting}: not name=value"))?;
            let share = || match value.parse::<f64>() {
                Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
                _ => Err(format!("{name}: not a share from 0 to 1")),
            };
            let whole = |most: u64| match value.parse::<u64>() {
                Ok(number) if number <= most => Ok(number),
                _ => Err(format!("{name}: not a number from 0 to {most}")),
            };
            match name {
                "win" => notices.win = share()?,
                "bill" => notices.bill = share()?,
                "late" => notices.late = share()?,
                "twice" => notices.twice = share()?,
                "never" => notices.never = share()?,
                "late_ms" => notices.late_by = Duration::from_millis(whole(3_600_000)?),
                "after_ms" => notices.after = Duration::from_millis(whole(60_000)?),
                "connections" => {
                    notices.connections = usize::try_from(whole(10_000)?.max(1)).unwrap_or(1)
                }
                "seed" => notices.seed = whole(u64::MAX)?,
                _ => {
                    return Err(format!(
                        "{name}: there are win, bill, late, late_ms, twice, never, after_ms, connections, seed"
                    ));
                }
            }
        }
        Ok(notices)
    }
}

/// The kinds of notices; their place is the stage that they are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Win,
    Bill,
    Loss,
}

const KINDS: [(Kind, &str); 3] = [
    (Kind::Win, "win"),
    (Kind::Bill, "bill"),
    (Kind::Loss, "loss"),
];

/// A notice to be sent.
#[derive(Debug)]
struct Notice {
    at: Instant,
    kind: Kind,
    bytes: Vec<u8>,
}

impl Notice {
    fn order(&self) -> (Instant, usize) {
        (self.at, self.kind as usize)
    }
}

impl PartialEq for Notice {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Notice {}

impl PartialOrd for Notice {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Notice {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// What was decided on the bids' side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Played {
    /// Bids that won.
    pub won: u64,
    /// Bids that lost.
    pub lost: u64,
    /// Notices sent a second time.
    pub twice: u64,
    /// Notices sent late.
    pub late: u64,
    /// Notices held back.
    pub never: u64,
    /// Notices that a bid names no URL for.
    pub without_url: u64,
    /// Notices whose URL leads to a host that is not loaded: not followed.
    pub elsewhere: u64,
    /// Bodies that are no bid response.
    pub unreadable: u64,
}

/// Decides about each bid, on the threads that send bids.
#[derive(Debug)]
pub struct Exchange {
    notices: Notices,
    /// Hosts that are loaded, and where their notices go.
    hosts: Vec<(String, Sender<Notice>)>,
    played: Played,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    bidid: Text<'a>,
    #[serde(borrow, default)]
    cur: Text<'a>,
    #[serde(borrow, default)]
    seatbid: Vec<SeatBid<'a>>,
}

#[derive(Deserialize)]
struct SeatBid<'a> {
    #[serde(borrow, default)]
    seat: Text<'a>,
    #[serde(borrow, default)]
    bid: Vec<Bid<'a>>,
}

#[derive(Deserialize)]
struct Bid<'a> {
    #[serde(borrow, default)]
    impid: Text<'a>,
    #[serde(borrow, default)]
    adid: Text<'a>,
    #[serde(default)]
    price: f64,
    #[serde(borrow, default)]
    nurl: Text<'a>,
    #[serde(borrow, default)]
    burl: Text<'a>,
    #[serde(borrow, default)]
    lurl: Text<'a>,
}

/// A string that borrows where it can; serde borrows a `Cow` only so.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Watch for Exchange {
    fn ended(&mut self, ended: &Ended<'_>) {
        if ended.outcome != Outcome::Bid {
            return;
        }
        let Ok(response) = serde_json::from_slice::<Response<'_>>(ended.body) else {
            self.played.unreadable += 1;
            return;
        };
        // Of the request, not of the thread: the order in which answers come changes nothing.
        let place = (ended.target as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ended.number;
        let mut chance =
            fastrand::Rng::with_seed(self.notices.seed ^ place.wrapping_mul(0xd134_2543_de82_ef95));
        let mut taken: Vec<&str> = Vec::new();
        for (seat, bid) in response
            .seatbid
            .iter()
            .flat_map(|seat| seat.bid.iter().map(move |bid| (seat, bid)))
        {
            let imp = bid.impid.0.as_ref();
            let wins = chance.f64() < self.notices.win && !taken.contains(&imp);
            let macros = Macros {
                response: &response,
                seat: &seat.seat.0,
                bid,
                wins,
            };
            let after = ended.ended + self.notices.after;
            if wins {
                taken.push(imp);
                self.played.won += 1;
                self.notify(Kind::Win, &bid.nurl.0, &macros, after, &mut chance);
                if chance.f64() < self.notices.bill {
                    self.notify(
                        Kind::Bill,
                        &bid.burl.0,
                        &macros,
                        after + self.notices.after,
                        &mut chance,
                    );
                }
            } else {
                self.played.lost += 1;
                self.notify(Kind::Loss, &bid.lurl.0, &macros, after, &mut chance);
            }
        }
    }
}

impl Exchange {
    fn notify(
        &mut self,
        kind: Kind,
        url: &str,
        macros: &Macros<'_>,
        at: Instant,
        chance: &mut fastrand::Rng,
    ) {
        let [never, late, twice] = [chance.f64(), chance.f64(), chance.f64()];
        if url.is_empty() {
            self.played.without_url += 1;
            return;
        }
        let url = macros.filled(url);
        let Ok(uri) = url.parse::<Uri>() else {
            self.played.elsewhere += 1;
            return;
        };
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let there = self
            .hosts
            .iter()
            .find(|(host, _)| host.eq_ignore_ascii_case(&authority));
        let (Some((host, lane)), Some("http")) = (there, uri.scheme_str()) else {
            self.played.elsewhere += 1;
            return;
        };
        if never < self.notices.never {
            self.played.never += 1;
            return;
        }
        let mut at = at;
        if late < self.notices.late {
            self.played.late += 1;
            at += self.notices.late_by;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes();
        let doubled = twice < self.notices.twice;
        self.played.twice += u64::from(doubled);
        if doubled {
            let bytes = bytes.clone();
            let _ = lane.send(Notice {
                at: at + self.notices.after,
                kind,
                bytes,
            });
        }
        // The other side outlives this one.
        let _ = lane.send(Notice { at, kind, bytes });
    }
}

/// The substitution macros of OpenRTB 2.6, 4.4.
struct Macros<'a> {
    response: &'a Response<'a>,
    seat: &'a str,
    bid: &'a Bid<'a>,
    wins: bool,
}

impl Macros<'_> {
    /// The URL with its macros filled; those that are not known, and whose value is not, become empty.
    fn filled(&self, url: &str) -> String {
        let mut filled = String::with_capacity(url.len() + 32);
        let mut rest = url;
        while let Some((before, after)) = rest.split_once("${") {
            filled.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                filled.push_str("${");
                rest = after;
                continue;
            };
            escape(&mut filled, &self.value(name));
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    fn value(&self, name: &str) -> Cow<'_, str> {
        let bid = self.bid;
        match name {
            "AUCTION_ID" => Cow::Borrowed(&self.response.id.0),
            "AUCTION_BID_ID" => Cow::Borrowed(&self.response.bidid.0),
            "AUCTION_IMP_ID" => Cow::Borrowed(&bid.impid.0),
            "AUCTION_SEAT_ID" => Cow::Borrowed(self.seat),
            "AUCTION_AD_ID" => Cow::Borrowed(&bid.adid.0),
            "AUCTION_CURRENCY" if self.response.cur.0.is_empty() => Cow::Borrowed("USD"),
            "AUCTION_CURRENCY" => Cow::Borrowed(&self.response.cur.0),
            // First price; a loser learns what would have won.
            "AUCTION_PRICE" if self.wins => Cow::Owned(bid.price.to_string()),
            "AUCTION_MIN_TO_WIN" if !self.wins => Cow::Owned((bid.price * 1.25).to_string()),
            // Won; lost to a higher bid (OpenRTB's list of loss reason codes).
            "AUCTION_LOSS" => Cow::Borrowed(if self.wins { "0" } else { "102" }),
            _ => Cow::Borrowed(""),
        }
    }
}

fn escape(to: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            to.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Notices as they come due.
#[derive(Debug)]
struct Queue {
    base: Instant,
    new: Receiver<Notice>,
    waiting: BinaryHeap<Reverse<Notice>>,
    number: u64,
    closed: bool,
}

impl Feed for Queue {
    fn peek(&mut self, now: Nanos) -> Next {
        while !self.closed {
            match self.new.try_recv() {
                Ok(notice) => self.waiting.push(Reverse(notice)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.closed = true,
            }
        }
        let Some(Reverse(first)) = self.waiting.peek() else {
            return if self.closed {
                Next::Over
            } else {
                Next::Ask(now + LOOK)
            };
        };
        let at = nanos(first.at.saturating_duration_since(self.base));
        if at > now {
            return Next::Ask(at.min(now + LOOK));
        }
        Next::Due(Due {
            at,
            stage: first.kind as usize,
            number: self.number,
        })
    }

    fn bytes(&self, _: &Due) -> &[u8] {
        self.waiting
            .peek()
            .map(|first| first.0.bytes.as_slice())
            .unwrap_or_default()
    }

    fn advance(&mut self) {
        self.waiting.pop();
        self.number += 1;
    }

    fn stop(&mut self, _: Nanos) {
        self.closed = true;
        self.waiting.clear();
    }

    /// Whatever a notice is answered with, a pixel even, it was taken.
    fn judge(&self, status: u16, _: &[u8]) -> Outcome {
        match status {
            200..=299 => Outcome::NoBid,
            400..=499 => Outcome::Failed(ErrorKind::Status4xx),
            500..=599 => Outcome::Failed(ErrorKind::Status5xx),
            _ => Outcome::Failed(ErrorKind::StatusOther),
        }
    }
}

/// What became of the notices.
#[derive(Clone, Debug, Serialize)]
pub struct NoticesReport {
    /// What was decided.
    #[serde(flatten)]
    pub played: Played,
    /// By kind: `sent`, answered as `no_bids`, errors, latency.
    pub kinds: BTreeMap<&'static str, Figures>,
}

impl NoticesReport {
    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let p = &self.played;
        let mut text = format!(
            "notices     {} bids won, {} lost; {} late, {} twice, {} never, {} without a URL, {} to other hosts\n",
            p.won, p.lost, p.late, p.twice, p.never, p.without_url, p.elsewhere
        );
        for (kind, figures) in &self.kinds {
            text.push_str(&format!(
                "  {kind:<9} {} sent, {} taken, {} errors; p50 {:.0} µs, p99 {:.0} µs\n",
                figures.sent,
                figures.no_bids,
                figures.errors,
                figures.latency_us.p50,
                figures.latency_us.p99
            ));
        }
        text
    }
}

/// Runs `plan` and plays the exchange for what comes back. Ends when the last notice is answered.
///
/// # Errors
///
/// As [`run`].
pub fn play<W: Watch + Send>(
    plan: &Plan,
    notices: &Notices,
    live: &Live,
    mut watch: impl FnMut(usize) -> W + Send,
) -> Result<(Outcomes<W>, NoticesReport), RunError> {
    let base = Instant::now();
    let mut hosts: Vec<(String, Sender<Notice>)> = Vec::new();
    let mut lanes = Vec::new();
    for (at, traffic) in plan.traffic.iter().enumerate() {
        let target = &traffic.target;
        if hosts.iter().any(|(host, _)| *host == target.host) {
            continue;
        }
        let (sender, new) = channel();
        hosts.push((target.host.clone(), sender));
        let queue = Queue {
            base,
            new,
            waiting: BinaryHeap::new(),
            number: 0,
            closed: false,
        };
        lanes.push(Lane::new(
            at,
            target.address,
            queue,
            notices.connections,
            KINDS.len(),
        ));
    }
    let limits = Limits {
        wait: WAIT,
        ..plan.limits
    };
    // Who does not wait for bids does not wait for notices that come late.
    let notice_live = Live::until(&live.stop);
    let mut engine = Engine::new(lanes, limits, (), &notice_live).map_err(std::io::Error::from)?;
    let (outcomes, tallies) = std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            // Those that cannot be made are tried again; notices wait meanwhile.
            let _ = engine.connect();
            engine.run(base);
            engine
                .lanes
                .into_iter()
                .map(|lane| lane.tallies)
                .collect::<Vec<_>>()
        });
        let outcomes = run(plan, live, |thread| {
            let exchange = Exchange {
                notices: notices.clone(),
                hosts: hosts.clone(),
                played: Played::default(),
            };
            (exchange, watch(thread))
        });
        // With the last sender the queue ends.
        hosts.clear();
        let outcomes = outcomes.map(|outcomes| {
            let mut played = Played::default();
            let outcomes = outcomes.map_watches(|(exchange, watch)| {
                played.add(&exchange.played);
                watch
            });
            (outcomes, played)
        });
        (outcomes, sending.join().map_err(|_| RunError::Panicked))
    });
    let ((outcomes, played), tallies) = (outcomes?, tallies?);
    let lasted = base.elapsed();
    let kinds = KINDS.iter().enumerate().map(|(stage, (_, name))| {
        let mut sum = Tally::default();
        for tally in tallies.iter().filter_map(|lane| lane.get(stage)) {
            sum.add(tally);
        }
        let asked = crate::report::count(sum.due()) / lasted.as_secs_f64().max(1e-9);
        (*name, Figures::new(&sum, asked, 0, lasted))
    });
    let kinds = kinds.collect();
    Ok((outcomes, NoticesReport { played, kinds }))
}

impl Played {
    fn add(&mut self, other: &Self) {
        self.won += other.won;
        self.lost += other.lost;
        self.twice += other.twice;
        self.late += other.late;
        self.never += other.never;
        self.without_url += other.without_url;
        self.elsewhere += other.elsewhere;
        self.unreadable += other.unreadable;
    }
}
