use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::desk::Told;
use super::keeper::Keeper;
use super::records;
use super::*;
use crate::campaigns::{Book, compile};
use crate::clock::Timestamp;
use crate::config::{Billing, BudgetMode};
use crate::ids::UserKey;
use crate::money::{Currency, Price, Rates};

mod budgets;
mod caps;
mod clocks;
mod notices;
mod simulator;

/// A ledger without threads, files and a clock: what it does is what the journal and the clock say.
struct World {
    keeper: Keeper,
    desk: Desk,
    told: Receiver<Told>,
    book: Arc<Book>,
    plan: Plan,
    allowances: Allowances,
    /// What is durable.
    journal: Vec<u8>,
    now_ms: i64,
    terms: Terms,
    number: u16,
}

/// Noon of a day in Paris.
const NOON_MS: i64 = 1_795_172_400_000;
const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;

fn terms(mode: BudgetMode) -> Terms {
    Terms {
        mode,
        exchanges: vec![ExchangeTerms {
            name: "demo".into(),
            window: 3_600,
            billing: Billing::Burl,
        }],
        frequency_keys: 20_000,
        journal_bytes: 1 << 20,
        report_rows: 100_000,
        rates: Arc::new(Rates::none(Currency::USD)),
    }
}

/// A book of line items of one advertiser in Paris; what each is beside its name, and what the campaign `all` of all of them and the
/// advertiser are.
fn book(line_items: &[&str], campaign: &str, advertiser: &str) -> Arc<Book> {
    book_in("USD", line_items, campaign, advertiser)
}

/// The same, in another currency.
fn book_in(currency: &str, line_items: &[&str], campaign: &str, advertiser: &str) -> Arc<Book> {
    let items: Vec<String> = line_items
        .iter()
        .enumerate()
        .map(|(n, rest)| {
            format!(
                r#"{{"id": "l{n}", "campaign": "all", "creatives": ["box"], "targeting": "country is null or country is not null",
                "price": {{"cpm": "5"}}{rest}}}"#
            )
        })
        .collect();
    let document = format!(
        r#"{{"advertisers": [{{"id": "acme", "domain": "acme.example", "currency": "{currency}", "time_zone": "Europe/Paris"{advertiser}}}],
        "campaigns": [{{"id": "all", "advertiser": "acme"{campaign}}}],
        "creatives": [{{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<p>"}}],
        "line_items": [{}]}}"#,
        items.join(",")
    );
    Arc::new(compile(document.as_bytes()).expect("a document"))
}

/// What one impression at the price of all line items costs: CPM 5 is five million nano units.
const COST: i64 = 5_000_000;

impl World {
    fn new(mode: BudgetMode, book: &Arc<Book>) -> Self {
        Self::from(terms(mode), book, records::MAGIC.to_vec(), NOON_MS)
    }

    /// From a journal, as a start reads it.
    fn from(terms: Terms, book: &Arc<Book>, journal: Vec<u8>, now_ms: i64) -> Self {
        Self::that_drew(7, terms, book, journal, now_ms)
    }

    /// The same, whose random bytes are all of one value.
    fn that_drew(drawn: u8, terms: Terms, book: &Arc<Book>, journal: Vec<u8>, now_ms: i64) -> Self {
        let mut keeper = Keeper::new(terms.clone()).expect("memory");
        let whole = records::read(&journal, |record| assert!(keeper.replay(record)));
        let mut journal = journal;
        journal.truncate(whole.expect("a journal"));
        let now = Timestamp::from_unix_ms(now_ms);
        keeper.begin(now, [drawn; 32], u32::from_be_bytes([drawn; 4]));
        let plan = keeper.plan(book, now);
        let (tells, told) = sync_channel(100_000);
        let desk = Desk::new(keeper.start(), 0, tells, keeper.shared_keys().clone());
        let mut world = Self {
            keeper,
            desk,
            told,
            book: Arc::clone(book),
            plan,
            allowances: Allowances::seeded(1),
            journal,
            now_ms,
            terms,
            number: 0,
        };
        world.write();
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.now_ms)
    }

    /// The journal takes what is pending.
    fn write(&mut self) {
        self.journal.extend(self.keeper.take_out());
        self.keeper.written();
    }

    fn turn(&mut self) {
        for told in self.told.try_iter() {
            self.keeper.told(told);
        }
        self.write();
    }

    /// Time passes, a second at a time or in larger steps.
    fn pass(&mut self, ms: i64) {
        let step = (ms / 100).max(SECOND);
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms = (self.now_ms + step).min(until);
            self.turn();
            self.keeper.tick(self.now());
            self.write();
        }
    }

    /// Another book is live.
    fn set(&mut self, book: &Arc<Book>) {
        self.turn();
        self.book = Arc::clone(book);
        self.plan = self.keeper.plan(book, self.now());
        self.write();
    }

    /// The process dies and is started again; everything that is not in the journal is gone.
    fn crash(&mut self) {
        let journal = std::mem::take(&mut self.journal);
        let number = self.number;
        *self = Self::from(self.terms.clone(), &self.book.clone(), journal, self.now_ms);
        self.number = number;
    }

    fn allow(&mut self, line_item: u32, keys: &[u128], beside: &[u32]) -> Result<(), Refused> {
        self.allowances.begin(&self.plan, self.now());
        let keys: Vec<UserKey> = keys.iter().map(|key| UserKey(*key)).collect();
        self.allowances.counts_under(&self.plan, keys.into_iter());
        let beside = beside.iter().copied();
        self.allowances
            .allow(&self.plan, &self.book, line_item, 0, COST, beside)
    }

    fn commit(&mut self, line_item: u32, test: bool) -> Result<Token, Refused> {
        let text = self.committed(line_item, test)?.of(Kind::Bill);
        Ok(self.desk.open(Kind::Bill, &text).expect("ours"))
    }

    fn committed(&mut self, line_item: u32, test: bool) -> Result<TokenText, Refused> {
        let proposed = Proposed {
            line_item,
            creative: 0,
            exchange: 0,
            price: Price::from_micros(COST).expect("a price"),
            currency: Currency::USD,
            nano: COST,
            test,
            segments: Default::default(),
        };
        let mut text = TokenText::default();
        self.desk.tick();
        let id = self.desk.commit(
            &self.plan,
            &self.book,
            &mut self.allowances,
            &proposed,
            &mut text,
        )?;
        assert_ne!(id.0, 0);
        Ok(text)
    }

    /// Bids for a person with these keys, if it may.
    fn bid(&mut self, line_item: u32, keys: &[u128]) -> Result<Token, Refused> {
        let allowed = self.allow(line_item, keys, &[]);
        self.desk.ask_for_more(&mut self.allowances);
        allowed?;
        self.commit(line_item, false)
    }

    /// How many bids it may make one after the other without a notice, up to so many.
    fn bids(&mut self, line_item: u32, most: usize) -> Vec<Token> {
        let mut tokens = Vec::new();
        while tokens.len() < most {
            match self.bid(line_item, &[]) {
                Ok(token) => tokens.push(token),
                // Leases are renewed meanwhile.
                Err(Refused::Budget) if tokens.len() % 64 != 63 => {
                    self.turn();
                    self.keeper.tick(self.now());
                    self.write();
                    match self.bid(line_item, &[]) {
                        Ok(token) => tokens.push(token),
                        Err(_) => break,
                    }
                }
                Err(_) => break,
            }
        }
        self.turn();
        tokens
    }

    fn notice(&mut self, kind: Kind, token: &Token) -> Booked {
        self.notice_at(kind, token, "5")
    }

    fn notice_at(&mut self, kind: Kind, token: &Token, price: &str) -> Booked {
        for told in self.told.try_iter() {
            self.keeper.told(told);
        }
        let said = Said {
            price: read_price(Some(price), &[]),
            currency: Ok(None),
        };
        let booked = self.keeper.notice(kind, token, said, self.now());
        self.write();
        booked
    }
}

#[test]
fn every_bid_has_an_id_of_its_own() {
    let book = book(&[""], "", "");
    let mut world = World::new(BudgetMode::Strict, &book);
    let tokens = world.bids(0, 1_000);
    let numbers: std::collections::HashSet<_> = tokens.iter().map(|token| token.bid).collect();
    let short: std::collections::HashSet<_> =
        tokens.iter().map(|token| token.bid.short()).collect();
    assert_eq!((numbers.len(), short.len()), (1_000, 1_000));
    world.crash();
    let after = world.bid(0, &[]).expect("a bid");
    assert!(!numbers.contains(&after.bid) && !short.contains(&after.bid.short()));
}

/// A backup that is brought back, or a copy of the data directory: two runs go on from one journal, and neither takes the other's bids
/// for its own.
#[test]
fn runs_of_one_journal_share_no_token_and_no_number() {
    let book = book(&[""], "", "");
    let mut before = World::new(BudgetMode::Strict, &book);
    let old = before.bids(0, 2);
    assert_eq!(before.notice(Kind::Bill, &old[0]).outcome, Outcome::Booked);
    let journal = before.journal.clone();
    let from = |drawn: u8| {
        let journal = journal.clone();
        World::that_drew(drawn, terms(BudgetMode::Strict), &book, journal, NOON_MS)
    };
    let texts = |world: &mut World| -> Vec<String> {
        let sealed = (0..3).map(|_| {
            world.allow(0, &[], &[]).expect("allowed");
            world.committed(0, false).expect("taken").of(Kind::Bill)
        });
        sealed.collect()
    };
    let (mut one, mut other) = (from(1), from(2));
    let (of_one, of_other) = (texts(&mut one), texts(&mut other));
    for (a, b) in of_one.iter().zip(&of_other) {
        let a = one.desk.open(Kind::Bill, a).expect("its own");
        assert!(other.desk.open(Kind::Bill, b).is_ok());
        assert!(one.desk.open(Kind::Bill, b).is_err(), "the other's");
        let b = other.desk.open(Kind::Bill, b).expect("its own");
        assert_ne!(a.bid, b.bid);
        // Even if a notice of the one were believed by the other, its own bid would be booked.
        assert_eq!(one.notice(Kind::Bill, &b).outcome, Outcome::Booked);
        assert_eq!(one.notice(Kind::Bill, &a).outcome, Outcome::Booked);
    }
    // Bids of before are known to both.
    for world in [&mut one, &mut other] {
        let outcomes = [0, 1].map(|place| world.notice(Kind::Bill, &old[place]).outcome);
        assert_eq!(outcomes, [Outcome::Repeated, Outcome::Booked]);
    }
}

/// A key is made at each start: of more of them than there are ids each still opens what it sealed.
#[test]
fn many_starts_lose_no_token() {
    let book = book(&[""], "", "");
    let mut world = World::new(BudgetMode::Strict, &book);
    let mut sealed = Vec::new();
    for drawn in (0..=255).chain(0..20) {
        let journal = std::mem::take(&mut world.journal);
        world = World::that_drew(drawn, terms(BudgetMode::Strict), &book, journal, NOON_MS);
        world.allow(0, &[], &[]).expect("allowed");
        sealed.push(world.committed(0, false).expect("taken").of(Kind::Bill));
    }
    for text in sealed {
        assert!(world.desk.open(Kind::Bill, &text).is_ok());
    }
}

#[test]
fn a_test_spends_nothing() {
    let book = book(
        &[r#", "budget": {"total": "0.01"}, "caps": [{"count": 1, "per": "1h"}]"#],
        "",
        "",
    );
    let mut world = World::new(BudgetMode::Strict, &book);
    for _ in 0..5 {
        world.allow(0, &[9], &[]).expect("allowed");
        let token = world.commit(0, true).expect("taken");
        assert_eq!(world.notice(Kind::Bill, &token).outcome, Outcome::Test);
    }
    assert!(world.bid(0, &[9]).is_ok());
    assert_eq!(world.bid(0, &[9]), Err(Refused::Capped));
}

/// What became of imps is known after a crash and after a stop, and a journal that was ever read is read again.
#[test]
fn imps_outlive_runs_whose_plans_have_the_same_numbers() {
    let one = book(&[""], "", "");
    let two = book(&["", ""], "", "");
    let imps = |world: &World| -> Vec<u64> {
        let query = Query {
            by: vec![Dimension::LineItem],
            ..Query::default()
        };
        let rows = world.keeper.rows(&query);
        rows.iter()
            .map(|row| row.imps.as_ref().map_or(0, |imps| imps.all))
            .collect()
    };
    let tally = |world: &mut World, reason| {
        let plan = Arc::new(world.keeper.plan(&world.book.clone(), world.now()));
        let hour = u32::try_from(world.now_ms / HOUR).expect("an hour");
        world
            .desk
            .tally(&plan, 0, hour, 10, vec![(0, Some(reason), 4)]);
        world.turn();
        world.pass(11 * SECOND);
    };
    let mut world = World::new(BudgetMode::Bounded, &one);
    tally(&mut world, "floor");
    assert_eq!(imps(&world), [10]);
    // Names that come up after the crash have other numbers than those of the reading.
    for reason in ["floor", "outbid", "capped"] {
        world.crash();
        tally(&mut world, reason);
    }
    assert_eq!(imps(&world), [40]);
    world.crash();
    assert_eq!(imps(&world), [40]);
    world.book = two;
    tally(&mut world, "floor");
    assert_eq!(imps(&world), [50, 10]);
    world.keeper.close();
    world.write();
    world.crash();
    tally(&mut world, "floor");
    assert_eq!(imps(&world), [60, 20]);
    world.crash();
    world.journal = world.keeper.journal();
    world.crash();
    assert_eq!(imps(&world), [60, 20]);
}
