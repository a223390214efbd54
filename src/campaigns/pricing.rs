//! What a line item pays: a base price, the score of the person's best segment, factors that apply where their expressions are true,
//! and bounds.
//!
//! `price = cpm × score × each factor that applies`, in the document's order, each step rounded down to a micro, at least one and no more
//! than [`PRICE_MICROS_MAX`]; then kept within `min` and `max`. A factor whose expression is false or null does not apply: what is not
//! known of a person changes nothing. So is a segment without a score.
//!
//! Every step only grows with what goes into it, so that the most a line item can pay ([`Pricing::most`]) is that of the
//! factors from 1 on. By it line items are ranked, and whoever could not even so outbid is not asked.

use super::attributes::Attribute;
use super::evaluator::{ImpFacts, Resolved};
use super::program::Expression;
use super::scores::TiedScores;
use super::{Book, LineItem};
use crate::ids::Name;
use crate::money::{MICROS, PRICE_MICROS_MAX, Price, Round};

/// Most factors of one line item.
pub const FACTORS_MAX: usize = 16;
/// Largest factor, in millionths.
pub(super) const FACTOR_MILLIONTHS_MAX: i64 = 100 * MICROS;

/// What a line item pays for a thousand impressions, in its currency.
#[derive(Debug)]
pub struct Pricing {
    /// Before anything applies; over zero.
    pub base: Price,
    /// What scores it is multiplied by, first of all.
    pub score: Option<Score>,
    /// In the order in which they apply; at most [`FACTORS_MAX`].
    pub factors: Box<[Factor]>,
    /// It pays no less.
    pub min: Option<Price>,
    /// It pays no more.
    pub max: Option<Price>,
    /// The most it can come to.
    most: Price,
}

/// Multiplies a price where an expression is true.
#[derive(Debug)]
pub struct Factor {
    /// The expression as it was written.
    pub text: Box<str>,
    /// The same, compiled.
    pub when: Expression,
    /// What it multiplies by, in millionths: over 0 and up to a hundred.
    pub millionths: i64,
}

/// Multiplies a price by the greatest score of the segments that the line item wants and the person is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Score {
    /// The dataset that has the scores.
    pub dataset: Name,
    /// Its place in [`Book::scores`].
    pub(super) place: u32,
}

/// One step to a price.
#[derive(Debug, Clone, Copy)]
pub enum Step<'b> {
    /// The score, and the segment that has it with how much, in millionths; none where the person is in no segment with one.
    Score(&'b Score, Option<(u32, u32)>),
    /// A factor, and what its expression said.
    Factor(&'b Factor, Option<bool>),
}

/// A decimal over 0 and up to 100 in millionths, which are to a factor what micros are to a price.
pub(super) fn millionths(text: &str) -> Option<i64> {
    let down = Price::parse(text, Round::Down)?;
    let fits = Price::parse(text, Round::Up)? == down;
    let range = 1..=FACTOR_MILLIONTHS_MAX;
    (fits && range.contains(&down.micros())).then_some(down.micros())
}

fn times(price: Price, millionths: i64) -> Price {
    let product = i128::from(price.micros()) * i128::from(millionths);
    let micros = (product / i128::from(MICROS)).clamp(1, i128::from(PRICE_MICROS_MAX));
    i64::try_from(micros)
        .ok()
        .and_then(Price::from_micros)
        .unwrap_or(price)
}

impl Pricing {
    pub(super) fn of(
        base: Price,
        score: Option<Score>,
        factors: Box<[Factor]>,
        min: Option<Price>,
        max: Option<Price>,
    ) -> Self {
        let mut pricing = Self {
            base,
            score,
            factors,
            min,
            max,
            most: base,
        };
        let score = pricing.score.iter().map(|_| FACTOR_MILLIONTHS_MAX);
        let factors = pricing.factors.iter().map(|factor| factor.millionths);
        let raising = score.chain(factors).filter(|factor| *factor > MICROS);
        pricing.most = pricing.bounded(raising.fold(base, times));
        pricing
    }

    /// The most it can come to.
    pub fn most(&self) -> Price {
        self.most
    }

    /// Whether it can differ between two creatives that one imp would show.
    pub fn depends_on_creative(&self) -> bool {
        let of_creative = [
            Attribute::Format,
            Attribute::Width,
            Attribute::Height,
            Attribute::Position,
            Attribute::Floor,
        ];
        let reads = |factor: &Factor| of_creative.iter().any(|of| factor.when.reads(*of));
        self.factors.iter().any(reads)
    }

    /// Whether a factor reads the floor.
    pub(super) fn reads_floor(&self) -> bool {
        self.factors.iter().any(|factor| factor.when.reads_floor())
    }

    fn bounded(&self, price: Price) -> Price {
        let price = self.min.map_or(price, |min| price.max(min));
        self.max.map_or(price, |max| price.min(max))
    }
}

impl Book {
    /// What a line item of this book pays for an imp, in its own currency. `tell` is told each step and the price behind it,
    /// before bounds.
    pub fn price(
        &self,
        line_item: &LineItem,
        request: &Resolved,
        imp: &ImpFacts<'_>,
        scores: &TiedScores,
        mut tell: impl FnMut(Step<'_>, Price),
    ) -> Price {
        let pricing = &line_item.pricing;
        let mut price = pricing.base;
        if let Some(score) = &pricing.score {
            let slots = line_item.wants.iter().copied();
            let scored = slots
                .filter(|slot| request.is_in(*slot))
                .filter_map(|slot| Some((slot, scores.of(score.place, slot)?)));
            // Of equal ones the first, which max_by_key would not take.
            let best = scored.reduce(|best, next| if next.1 > best.1 { next } else { best });
            if let Some((_, millionths)) = best {
                price = times(price, millionths.into());
            }
            tell(Step::Score(score, best), price);
        }
        for factor in &pricing.factors {
            let applies = self.answer(&factor.when, line_item, request, imp);
            if applies == Some(true) {
                price = times(price, factor.millionths);
            }
            tell(Step::Factor(factor, applies), price);
        }
        pricing.bounded(price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaigns::compile;
    use crate::campaigns::evaluator::Facts;
    use crate::clock::Timestamp;
    use proptest::prelude::*;

    fn book(price: &serde_json::Value) -> Result<Book, Vec<String>> {
        let document = serde_json::json!({
            "advertisers": [{"id": "acme", "domain": "acme.example", "currency": "EUR"}],
            "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<p>"}],
            "line_items": [{"id": "it", "creatives": ["box"], "targeting": "not test or test", "price": price}]});
        compile(document.to_string().as_bytes())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    /// What is paid in France, and by a person of 20 of whom no country is known, and the most.
    fn prices(price: &serde_json::Value) -> [String; 3] {
        let book = book(price).expect("a good document");
        let it = book.line_item("it").expect("the line item");
        let mut resolved = Resolved::default();
        let paid = |facts: &Facts<'_>, resolved: &mut Resolved| {
            book.resolve(facts, resolved);
            let scores = TiedScores::default();
            book.price(it, resolved, &ImpFacts::default(), &scores, |_, _| {})
                .to_string()
        };
        let facts = Facts::new("demo", Timestamp::from_unix_seconds(0));
        let french = Facts {
            country: Some("FRA"),
            ..facts
        };
        let young = Facts {
            user_age: Some(20),
            ..facts
        };
        [
            paid(&french, &mut resolved),
            paid(&young, &mut resolved),
            it.pricing.most().to_string(),
        ]
    }

    #[test]
    fn factors_apply_in_their_order_and_bounds_last() {
        let factors = serde_json::json!([
            {"when": "country = 'FRA'", "factor": "1.5"},
            {"when": "user_age < 25", "factor": 0.5},
            {"when": "exchange = 'demo'", "factor": "1.1"}]);
        let price = |bounds: serde_json::Value| {
            let mut price = serde_json::json!({"cpm": "4", "multipliers": factors});
            let all = price.as_object_mut().expect("an object");
            all.extend(bounds.as_object().expect("an object").clone());
            prices(&price)
        };
        assert_eq!(price(serde_json::json!({})), ["6.6", "2.2", "6.6"]);
        assert_eq!(
            price(serde_json::json!({"min": "3", "max": "5.5"})),
            ["5.5", "3", "5.5"]
        );
        assert_eq!(prices(&serde_json::json!({"cpm": "4"})), ["4", "4", "4"]);
        // To the micro, down, but never to nothing.
        let third = serde_json::json!({"cpm": "0.000001", "multipliers": [{"when": "country = 'FRA'", "factor": "0.333333"}]});
        assert_eq!(prices(&third), ["0.000001", "0.000001", "0.000001"]);
    }

    #[test]
    fn what_is_wrong_with_a_price_is_told_by_its_path() {
        let wrong = |price: serde_json::Value| book(&price).expect_err("refused").join("\n");
        let told = wrong(
            serde_json::json!({"cpm": "4", "min": "5", "max": "4.5", "multipliers": [
            {"when": "country = 'FRA'"},
            {"when": "contry = 'FRA'", "factor": "2"},
            {"when": "country = 'FRA'", "factor": 0},
            {"when": "country = 'FRA'", "factor": "100.1"},
            {"when": "country = 'FRA'", "factor": "1.0000001"}]}),
        );
        assert_eq!(
            told,
            "line_items[0].price.multipliers[0].factor (it): is required, like \"1.5\"\n\
             line_items[0].price.multipliers[1].when (it): column 1: there is no attribute `contry`; did you mean `country`?\n\
             line_items[0].price.multipliers[2].factor (it): expected a decimal over 0 and up to 100, with at most 6 decimals, like \"1.5\"\n\
             line_items[0].price.multipliers[3].factor (it): expected a decimal over 0 and up to 100, with at most 6 decimals, like \"1.5\"\n\
             line_items[0].price.multipliers[4].factor (it): expected a decimal over 0 and up to 100, with at most 6 decimals, like \"1.5\"\n\
             line_items[0].price.max (it): is under the min, 5"
        );
        assert_eq!(
            wrong(serde_json::json!({"cpm": "4", "score": "no name"}))
                .split_once(": ")
                .map(|(path, _)| path),
            Some("line_items[0].price.score (it)")
        );
        assert_eq!(
            wrong(serde_json::json!({"cpm": "4", "score": "worth"})),
            "line_items[0].price.max (it): is required where there is a `score`: the most that it may pay, whatever the scores are"
        );
        let many = vec![serde_json::json!({"when": "test", "factor": 1}); FACTORS_MAX + 1];
        let told = wrong(serde_json::json!({"cpm": "4", "multipliers": many}));
        assert!(
            told.contains("has 17 entries, at most 16 are taken"),
            "{told}"
        );
    }

    proptest! {
        #[test]
        fn nobody_pays_more_than_the_most(
            base in 1..=PRICE_MICROS_MAX,
            factors in prop::collection::vec((1..=FACTOR_MILLIONTHS_MAX, any::<bool>()), 0..=FACTORS_MAX),
            bounds in prop::option::of((0..=PRICE_MICROS_MAX, 0..=PRICE_MICROS_MAX)),
        ) {
            let price = |micros| Price::from_micros(micros).expect("a price");
            let factor = |(millionths, _): &(i64, bool)| Factor {
                text: "".into(),
                when: Expression::none(),
                millionths: *millionths,
            };
            let pricing = Pricing::of(
                price(base),
                None,
                factors.iter().map(factor).collect(),
                bounds.map(|(a, b)| price(a.min(b))),
                bounds.map(|(a, b)| price(a.max(b))),
            );
            let applying = pricing.factors.iter().zip(&factors).filter(|(_, (_, applies))| *applies);
            let paid = applying.fold(pricing.base, |price, (factor, _)| times(price, factor.millionths));
            prop_assert!(pricing.bounded(paid) <= pricing.most());
        }
    }
}
