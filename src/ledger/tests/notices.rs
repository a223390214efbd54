//! A million notices of which a tenth are not what they should be, held against a plain count of what each must do.
//!
//! The count knows what was sent and how it was made bad; it reads no token, no price and no journal.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::simulator::{Random, number};
use super::*;

/// Exchanges: billed by burl, and by nurl.
const WINDOWS: [u32; 2] = [3_600, 600];
const BILLINGS: [Billing; 2] = [Billing::Burl, Billing::Nurl];
const LINE_ITEMS: usize = 5;
const TOKEN_SECONDS: i64 = 24 * 3_600;

/// A bid, as whoever made it remembers it.
struct Bid {
    /// A token for each kind.
    texts: [String; 4],
    at_ms: i64,
    exchange: usize,
    line_item: usize,
    micros: i64,
}

/// What a price says, and what an impression of a bid at so many millionths costs by it, in nano units: a CPM's millionth is as much
/// of one impression.
fn price(random: &mut Random, bid: i64) -> (String, Option<&'static str>, i64) {
    let text = |micros: i64| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let paid = 1 + random.below(bid as u64) as i64;
    match random.below(20) {
        0 => {
            let absurd = [
                "",
                "${AUCTION_PRICE}",
                "AUDIT",
                "-1",
                "NaN",
                "inf",
                "1e400",
                "0x10",
                "1,5",
                "9".repeat(400).as_str(),
                "٣",
                "--",
                "\u{0}",
                "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msaw",
                "%%%",
            ]
            .map(str::to_owned);
            let one = absurd[random.below(absurd.len() as u64) as usize].clone();
            (one, None, bid)
        }
        1 => (text(bid + 1 + random.below(1 << 40) as i64), None, bid),
        // Half a euro is a dollar.
        2 => (text(paid / 2), Some("EUR"), paid / 2 * 2),
        // One without a rate, and one that is none.
        3 => (
            text(paid),
            Some(["ZZZ", "EURO"][random.below(2) as usize]),
            bid,
        ),
        4 => ("0".to_owned(), None, 0),
        _ => (text(paid), None, paid),
    }
}

/// A token that is not the one it was.
fn forged(random: &mut Random, text: &str, other: &str) -> String {
    let place = random.below(text.len() as u64) as usize;
    match random.below(6) {
        0 => text[..place].to_owned(),
        1 => format!(
            "{text}{}",
            &other[..1 + random.below(other.len() as u64 - 1) as usize]
        ),
        2 => {
            let half = (text.len() / 2).min(other.len());
            format!("{}{}", &text[..half], &other[half..])
        }
        3 => (0..random.below(300))
            .map(|_| b"AZaz09-_"[random.below(8) as usize] as char)
            .collect(),
        _ => {
            let mut bytes = text.as_bytes().to_vec();
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            bytes[place] = alphabet[random.below(64) as usize];
            String::from_utf8(bytes).expect("ASCII")
        }
    }
}

#[derive(Default, PartialEq, Eq, Debug, Clone, Copy)]
struct Sum {
    bids: u64,
    wins: u64,
    impressions: u64,
    clicks: u64,
    spend: i64,
}

#[derive(Default)]
struct Reference {
    taken: HashSet<(usize, u8)>,
    rows: BTreeMap<(usize, usize), Sum>,
    outcomes: HashMap<&'static str, u64>,
}

impl Reference {
    fn count(&mut self, outcome: &'static str) -> &'static str {
        *self.outcomes.entry(outcome).or_default() += 1;
        outcome
    }

    fn take(&mut self, place: usize, bid: &Bid, kind: Kind, at_ms: i64, cost: i64) -> &'static str {
        let (at, bid_at) = (at_ms / 1_000, bid.at_ms / 1_000);
        let window = i64::from(WINDOWS[bid.exchange]);
        if bid_at + window + TOKEN_SECONDS < at {
            return self.count("expired");
        }
        if !self.taken.insert((place, kind as u8)) {
            return self.count("repeated");
        }
        let row = self.rows.entry((bid.line_item, bid.exchange)).or_default();
        let says_won =
            [Kind::Win, Kind::Bill].map(|kind| self.taken.contains(&(place, kind as u8)));
        let is_first = says_won.into_iter().filter(|says| *says).count() == 1;
        row.wins += u64::from(is_first && matches!(kind, Kind::Win | Kind::Bill));
        let books = match kind {
            Kind::Win => BILLINGS[bid.exchange] == Billing::Nurl,
            Kind::Bill => BILLINGS[bid.exchange] == Billing::Burl,
            Kind::Click => {
                row.clicks += 1;
                false
            }
            Kind::Loss => false,
        };
        row.impressions += u64::from(books);
        if !books {
            return self.count("counted");
        }
        row.spend += cost;
        self.count(if bid_at + window < at {
            "late"
        } else {
            "booked"
        })
    }

    fn check(&self, world: &World) {
        let query = Query {
            by: vec![Dimension::LineItem, Dimension::Exchange],
            ..Query::default()
        };
        let rows: BTreeMap<(usize, usize), Sum> = world
            .keeper
            .rows(&query)
            .iter()
            .map(|row| {
                let line_item = row.of[0][1..].parse().expect("a number");
                let exchange = usize::from(row.of[1] == "nurl");
                let Counts {
                    bids,
                    wins,
                    impressions,
                    clicks,
                    spend,
                } = row.counts;
                (
                    (line_item, exchange),
                    Sum {
                        bids,
                        wins,
                        impressions,
                        clicks,
                        spend,
                    },
                )
            })
            .collect();
        assert_eq!(rows, self.rows);
        let mut all = 0;
        let mut of_line = [0; LINE_ITEMS];
        for ((line_item, _), sum) in &self.rows {
            all += sum.spend;
            of_line[*line_item] += sum.spend;
        }
        let mut found = 0;
        for standing in world.keeper.standings() {
            let expected = match standing.of.0 {
                "line_item" => of_line[standing.of.1[1..].parse::<usize>().expect("a number")],
                _ => all,
            };
            assert_eq!(standing.spent, expected, "{:?}", standing.of);
            found += 1;
        }
        assert_eq!(found, LINE_ITEMS + 2);
        assert_eq!(world.keeper.figures().sums[&Currency::USD].spent, all);
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "what came is to be looked at")]
fn the_books_are_those_of_a_plain_count() {
    let notices = number("KITH_NOTICES", 20_000);
    let seed = number("KITH_SIM_FROM", 0);
    let mut random = Random(seed);
    let own = r#", "pacing": "asap", "budget": {"total": "900000"}, "caps": [{"count": 1000, "per": "1d"}]"#;
    let all = r#", "budget": {"total": "5000000"}"#;
    let book = book(&[own; LINE_ITEMS], all, all);
    let mut terms = terms(BudgetMode::Bounded);
    terms.exchanges = [("demo", 0), ("nurl", 1)]
        .map(|(name, place)| ExchangeTerms {
            name: name.into(),
            window: WINDOWS[place],
            billing: BILLINGS[place],
        })
        .into();
    // Everybody is somebody else, and is remembered for a day.
    terms.frequency_keys = 1_000_000;
    let euro = ("EUR".parse().expect("a code"), 0.5);
    terms.rates = Arc::new(Rates::new(Currency::USD, [euro]).expect("rates"));
    let mut world = World::from(terms, &book, records::MAGIC.to_vec(), NOON_MS);
    let mut reference = Reference::default();
    let mut bids: Vec<Bid> = Vec::new();
    let (mut bad, mut since) = (0u64, 0);
    for n in 0..notices {
        // Three days in all.
        world.now_ms = NOON_MS + (n * 3 * 24 * 3_600_000 / notices) as i64;
        if world.now_ms - since >= 60 * SECOND {
            since = world.now_ms;
            world.turn();
            world.keeper.tick(world.now());
            world.write();
        }
        if n % (notices / 4) == notices / 8 {
            // What a crash loses is how many bids there were of late, and no money.
            world.turn();
            world.keeper.save_report();
            world.write();
            world.crash();
            // Of bids of an earlier run there is nothing left to release, so that they were lost need not be remembered.
            reference
                .taken
                .retain(|(_, kind)| *kind != Kind::Loss as u8);
        }
        if bids.is_empty() || random.is(0.5) {
            let (exchange, line_item) = (
                random.below(2) as usize,
                random.below(LINE_ITEMS as u64) as usize,
            );
            let micros = 1 + random.below(20_000_000) as i64;
            let person = u128::from(random.next()) << 64 | 7;
            let allowed = world.allow(line_item as u32, &[person], &[]);
            assert_eq!(allowed, Ok(()), "notice {n}");
            let proposed = Proposed {
                line_item: line_item as u32,
                creative: 0,
                exchange,
                price: Price::from_micros(micros).expect("a price"),
                currency: Currency::USD,
                nano: micros,
                test: false,
                segments: Default::default(),
            };
            let mut text = TokenText::default();
            let desk = &mut world.desk;
            desk.tick();
            desk.commit(
                &world.plan,
                &world.book,
                &mut world.allowances,
                &proposed,
                &mut text,
            )
            .expect("taken");
            reference
                .rows
                .entry((line_item, exchange))
                .or_default()
                .bids += 1;
            bids.push(Bid {
                texts: Kind::ALL.map(|kind| text.of(kind)),
                at_ms: world.now_ms,
                exchange,
                line_item,
                micros,
            });
        }
        // Mostly of late bids; now and then of any, which may be of the day before the day before.
        let place = match random.below(20) {
            0 => random.below(bids.len() as u64) as usize,
            _ => bids.len() - 1 - random.below(bids.len().min(50) as u64) as usize,
        };
        let bid = &bids[place];
        let kind =
            [Kind::Win, Kind::Bill, Kind::Bill, Kind::Loss, Kind::Click][random.below(5) as usize];
        let (price, currency, cost) = price(&mut random, bid.micros);
        let is_bad = random.is(0.1);
        bad += u64::from(is_bad);
        let other = random.below(bids.len() as u64) as usize;
        let of = |bid: &Bid| bid.texts[kind as usize].clone();
        let mut texts = vec![of(bid)];
        if is_bad {
            match random.below(4) {
                0 | 1 => texts.push(of(bid)),
                // Of any kind: mostly of another.
                2 => texts = vec![bid.texts[random.below(4) as usize].clone()],
                _ => texts = vec![forged(&mut random, &of(bid), &of(&bids[other]))],
            }
        }
        for text in texts {
            let opened = world.desk.open(kind, &text);
            // One that was changed into itself, or into another's, is whose it then is.
            let owner = if text == of(bid) {
                Some(place)
            } else {
                bids.iter().rposition(|bid| of(bid) == text)
            };
            let Some(owner) = owner else {
                assert!(opened.is_err(), "notice {n}: {text}");
                world.keeper.count(Outcome::Forged);
                reference.count("forged");
                continue;
            };
            // The key of one that is too old may be gone.
            let valid = (i64::from(WINDOWS[bids[owner].exchange]) + TOKEN_SECONDS) * SECOND;
            let Ok(opened) = opened else {
                assert!(bids[owner].at_ms + valid < world.now_ms, "notice {n}");
                world.keeper.count(Outcome::Forged);
                reference.count("forged");
                continue;
            };
            let said = Said {
                price: read_price(Some(&price), &[]),
                currency: read_currency(currency.unwrap_or_default()),
            };
            let booked = world.keeper.notice(kind, &opened, said, world.now());
            world.write();
            let expected = reference.take(owner, &bids[owner], kind, world.now_ms, cost);
            assert_eq!(booked.outcome.as_str(), expected, "notice {n}");
            if matches!(expected, "booked" | "late") {
                assert_eq!(
                    booked.nano, cost,
                    "notice {n}: {price:?} {currency:?} of {}",
                    bid.micros
                );
            }
        }
        if n % (notices / 10) == 0 {
            world.turn();
            reference.check(&world);
        }
    }
    world.turn();
    reference.check(&world);
    world.keeper.save_report();
    world.write();
    world.crash();
    reference.check(&world);
    world.journal = world.keeper.journal();
    world.crash();
    reference.check(&world);
    assert!(
        bad > notices / 12
            && reference.outcomes["late"] > 0
            && reference.outcomes["forged"] > notices / 50
    );
    println!(
        "{notices} notices of {} bids, {bad} of them bad: {:?}",
        bids.len(),
        reference.outcomes
    );
}
