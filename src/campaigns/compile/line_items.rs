//! Line items: each value by its rule, and that all of one fit together.

use std::collections::HashMap;

use super::super::document::{Fields, Node};
use super::super::pricing::{FACTORS_MAX, Factor, Pricing, Score, millionths};
use super::super::targeting::{self, Expr};
use super::super::{Budget, Expression, Flight, LineItem, Pacing, Status};
use super::values::check_text;
use super::{
    CREATIVES_PER_LINE_ITEM_MAX, DEALS_PER_LINE_ITEM_MAX, Draft, LINE_ITEMS_MAX, Work, count,
};
use crate::clock::Timestamp;
use crate::ids::Name;
use crate::money::{Currency, Price, Round};
use crate::openrtb::line_item_part;

impl Work {
    pub(super) fn line_items(&mut self, root: &Fields<'_>) {
        let known = [
            "id",
            "campaign",
            "seat",
            "creatives",
            "targeting",
            "price",
            "flight",
            "deals",
            "slotinpod",
            "budget",
            "pacing",
            "caps",
            "uncapped_without_id",
            "status",
        ];
        for (place, id, fields) in self.tables(root, "line_items", LINE_ITEMS_MAX, &known) {
            let draft = self.line_item(place, id, &fields);
            self.line_items.extend(draft);
        }
        self.shared_budgets();
    }

    /// A budget of several line items is in one currency: the advertiser's, else that of all their prices.
    fn shared_budgets(&mut self) {
        let mut first: HashMap<(&str, &str), &LineItem> = HashMap::new();
        for Draft {
            line_item, place, ..
        } in &self.line_items
        {
            let campaign = self.campaign_places.get(&*line_item.campaign);
            let campaign = campaign.and_then(|place| self.campaigns.get(*place as usize));
            let advertiser = self.advertisers.get(line_item.advertiser as usize);
            if advertiser.is_none_or(|of| of.currency.is_some()) {
                continue;
            }
            let shared = [
                campaign.map(|of| ("campaign", &*of.id, of.budget)),
                advertiser.map(|of| ("advertiser", &*of.id, of.budget)),
            ];
            for (what, id, budget) in shared.into_iter().flatten() {
                let other = *first.entry((what, id)).or_insert(line_item);
                if budget != Budget::default() && other.currency != line_item.currency {
                    let message = format!(
                        "is {}, and line item `{}` has {}: the budget of {what} `{id}` is in one currency; give the advertiser a `currency`",
                        line_item.currency, other.id, other.currency
                    );
                    let path = format!("line_items[{place}].price.currency");
                    self.errors.add(path, Some(&line_item.id), message);
                }
            }
        }
    }

    /// A line item; `None` where no expression could be read, which then is among the errors.
    fn line_item(&mut self, place: usize, id: &str, fields: &Fields<'_>) -> Option<Draft> {
        let (creatives, advertiser) = self.creatives_of(fields);
        let campaign = self.campaign_of(id, fields, advertiser);
        let (pricing, factors, currency) = self.pricing(fields, advertiser);
        if let Some(currency) = currency {
            let users = self.notes.currencies.entry(currency).or_default();
            users.add(|| fields.at("price.currency"), id);
        }
        let flight = self.flight(fields);
        let deals = self.deals(fields);
        let budget = self.budget(fields);
        let caps = self.caps(fields);
        let uncapped_without_id = fields.flag("uncapped_without_id", &mut self.errors);
        let pacing = [
            ("even", Pacing::Even),
            ("asap", Pacing::Asap),
            ("ahead", Pacing::Ahead),
        ];
        let pacing = fields.word("pacing", &pacing, &mut self.errors);
        let slotinpod = fields.word("slotinpod", &[("first", 1), ("last", -1)], &mut self.errors);
        let status = [("active", Status::Active), ("paused", Status::Paused)];
        let status = fields.word("status", &status, &mut self.errors);
        let seat = self.short_text(fields, "seat");
        let expr = self.expression(fields, "targeting", "\"country = 'FRA'\"")?;
        Some(Draft {
            line_item: LineItem {
                id: id.into(),
                index: count(&self.line_items),
                bid_json: line_item_part(id, &campaign),
                campaign,
                advertiser: advertiser.unwrap_or(u32::MAX),
                seat,
                creatives,
                pricing,
                currency: currency.unwrap_or(Currency::USD),
                flight,
                deals,
                slotinpod,
                status: status.unwrap_or(Status::Active),
                expression: Expression::none(),
                budget,
                pacing,
                caps,
                uncapped_without_id: uncapped_without_id.unwrap_or(false),
                wants: Box::default(),
                zone: advertiser
                    .and_then(|place| self.advertiser_zones.get(place as usize).copied())
                    .unwrap_or(0),
            },
            place,
            expr,
            factors,
        })
    }

    /// A line item's creatives and the one advertiser that they have.
    fn creatives_of(&mut self, fields: &Fields<'_>) -> (Box<[u32]>, Option<u32>) {
        let example = "[\"acme-300x250\"]";
        fields.required("creatives", example, &mut self.errors);
        let most = CREATIVES_PER_LINE_ITEM_MAX;
        let list = fields.texts("creatives", most, &mut self.errors);
        if matches!(fields.get("creatives"), Some(Node::List(list)) if list.is_empty()) {
            fields.wrong("creatives", "name at least one creative", &mut self.errors);
        }
        let mut places = Vec::with_capacity(list.len());
        let mut first: Option<u32> = None;
        for (key, id) in list {
            let Some(place) = self.creative_places.get(id).copied() else {
                let message = format!("there is no creative `{id}`: add it under `creatives`");
                fields.wrong(&key, message, &mut self.errors);
                continue;
            };
            if places.contains(&place) {
                let message = format!("`{id}` is named twice");
                fields.wrong(&key, message, &mut self.errors);
                continue;
            }
            places.push(place);
            let advertiser = self
                .creatives
                .get(place as usize)
                .map(|creative| creative.advertiser)
                .filter(|advertiser| *advertiser != u32::MAX);
            match (first, advertiser) {
                (Some(first), Some(other)) if first != other => {
                    let name = |place: u32| {
                        self.advertisers
                            .get(place as usize)
                            .map_or("", |advertiser| &*advertiser.id)
                    };
                    let message = format!(
                        "`{id}` is of advertiser `{}`, the creatives before it of `{}`: a line item has one advertiser",
                        name(other),
                        name(first)
                    );
                    fields.wrong(&key, message, &mut self.errors);
                }
                (None, advertiser) => first = advertiser,
                _ => {}
            }
        }
        (places.into(), first)
    }

    fn campaign_of(&mut self, own: &str, fields: &Fields<'_>, advertiser: Option<u32>) -> Box<str> {
        let Some(id) = self.short_text(fields, "campaign") else {
            return own.into();
        };
        let listed = self
            .campaign_places
            .get(&*id)
            .and_then(|place| self.campaigns.get(*place as usize));
        if let (Some(campaign), Some(advertiser)) = (listed, advertiser)
            && campaign.advertiser != advertiser
            && campaign.advertiser != u32::MAX
        {
            let message = format!("campaign `{id}` is of another advertiser than the creatives");
            fields.wrong("campaign", message, &mut self.errors);
        }
        id
    }

    /// What it pays, its factors' expressions yet to be compiled, and in which currency.
    fn pricing(
        &mut self,
        fields: &Fields<'_>,
        advertiser: Option<u32>,
    ) -> (Pricing, Vec<Expr>, Option<Currency>) {
        let none = || Pricing::of(Price::ZERO, None, Box::default(), None, None);
        let example = "{\"cpm\": \"4.20\", \"currency\": \"EUR\"}";
        let Some(node) = fields.required("price", example, &mut self.errors) else {
            return (none(), Vec::new(), None);
        };
        let path = fields.at("price");
        let known = ["cpm", "currency", "score", "multipliers", "min", "max"];
        let Some(price) = Fields::open(node, path, fields.id(), &known, &mut self.errors) else {
            return (none(), Vec::new(), None);
        };
        price.required("cpm", "\"4.20\"", &mut self.errors);
        let base = self.cpm(&price, "cpm");
        let (factors, exprs) = self.factors(&price);
        let (min, max) = (self.cpm(&price, "min"), self.cpm(&price, "max"));
        if let (Some(min), Some(max)) = (min, max)
            && max < min
        {
            let message = format!("is under the min, {min}");
            price.wrong("max", message, &mut self.errors);
        }
        let score = self.score(&price);
        let base = base.unwrap_or(Price::ZERO);
        let pricing = Pricing::of(base, score, factors.into(), min, max);
        if price.get("currency").is_some() {
            let currency = price.parsed("currency", &mut self.errors);
            return (pricing, exprs, currency);
        }
        let currency = advertiser
            .and_then(|place| self.advertisers.get(place as usize))
            .and_then(|advertiser| advertiser.currency);
        // Without a known advertiser its currency is unknown too; that error is enough.
        if currency.is_none() && advertiser.is_some() {
            let message = "is required, like \"EUR\", for the advertiser has none";
            price.wrong("currency", message, &mut self.errors);
        }
        (pricing, exprs, currency)
    }

    fn cpm(&mut self, price: &Fields<'_>, key: &str) -> Option<Price> {
        let text = price.get(key)?.decimal();
        let cpm = text.and_then(|text| Price::parse(&text, Round::Down));
        let cpm = cpm.filter(|cpm| *cpm > Price::ZERO);
        if cpm.is_none() {
            let message = "expected a decimal over 0 and up to 1000000, like \"4.20\"";
            price.wrong(key, message, &mut self.errors);
        }
        cpm
    }

    /// Which scores it is multiplied by. They come from a job, so that the document must say how far they may take it.
    fn score(&mut self, price: &Fields<'_>) -> Option<Score> {
        let dataset: Name = price.parsed("score", &mut self.errors)?;
        if price.get("max").is_none() {
            let message = "is required where there is a `score`: the most that it may pay, whatever the scores are";
            price.wrong("max", message, &mut self.errors);
        }
        let place = self.scores.len() as u32;
        let place = *self.scores.entry(dataset.clone()).or_insert(place);
        Some(Score { dataset, place })
    }

    /// What multiplies the price, and the expressions, in the same order.
    fn factors(&mut self, price: &Fields<'_>) -> (Vec<Factor>, Vec<Expr>) {
        let list = price.list("multipliers", FACTORS_MAX, &mut self.errors);
        let (mut factors, mut exprs) = (Vec::new(), Vec::new());
        for (key, node) in list.collect::<Vec<_>>() {
            let (path, known) = (price.at(&key), ["when", "factor"]);
            let Some(fields) = Fields::open(node, path, price.id(), &known, &mut self.errors)
            else {
                continue;
            };
            let factor = fields.required("factor", "\"1.5\"", &mut self.errors);
            let millionths = factor.and_then(|node| millionths(&node.decimal()?));
            if factor.is_some() && millionths.is_none() {
                let message = "expected a decimal over 0 and up to 100, with at most 6 decimals, like \"1.5\"";
                fields.wrong("factor", message, &mut self.errors);
            }
            let when = self.expression(&fields, "when", "\"segments one of ['crm/vip']\"");
            if let (Some(expr), Some(millionths)) = (when, millionths) {
                factors.push(Factor {
                    text: fields.text("when", &mut self.errors).unwrap_or("").into(),
                    when: Expression::none(),
                    millionths,
                });
                exprs.push(expr);
            }
        }
        (factors, exprs)
    }

    fn flight(&mut self, fields: &Fields<'_>) -> Flight {
        let Some(node) = fields.get("flight") else {
            return Flight::default();
        };
        let path = fields.at("flight");
        let known = ["start", "end"];
        let Some(flight) = Fields::open(node, path, fields.id(), &known, &mut self.errors) else {
            return Flight::default();
        };
        let start: Option<Timestamp> = flight.parsed("start", &mut self.errors);
        let end: Option<Timestamp> = flight.parsed("end", &mut self.errors);
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
        {
            let message = format!("is not after the start, {start}");
            flight.wrong("end", message, &mut self.errors);
        }
        Flight { start, end }
    }

    fn deals(&mut self, fields: &Fields<'_>) -> Box<[Box<str>]> {
        let list = fields.texts("deals", DEALS_PER_LINE_ITEM_MAX, &mut self.errors);
        let mut deals: Vec<Box<str>> = Vec::with_capacity(list.len());
        for (key, id) in list {
            if let Err(message) = check_text(id) {
                fields.wrong(&key, message, &mut self.errors);
            }
            deals.push(id.into());
        }
        deals.sort_unstable();
        deals.dedup();
        deals.into()
    }

    fn short_text(&mut self, fields: &Fields<'_>, key: &str) -> Option<Box<str>> {
        let text = fields.text(key, &mut self.errors)?;
        if let Err(message) = check_text(text) {
            fields.wrong(key, message, &mut self.errors);
        }
        Some(text.into())
    }

    /// An expression, which must be there.
    fn expression(&mut self, fields: &Fields<'_>, key: &str, example: &str) -> Option<Expr> {
        let node = fields.required(key, example, &mut self.errors)?;
        let text = fields.text_of(key, node, &mut self.errors)?;
        match targeting::parse(text) {
            Ok(parsed) => {
                for doubt in parsed.doubts {
                    self.notes.warn(fields.at(key), fields.id(), doubt);
                }
                Some(parsed.expr)
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    fields.wrong(key, mistake.to_string(), &mut self.errors);
                }
                None
            }
        }
    }
}
