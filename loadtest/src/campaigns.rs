//! A campaigns document as a buyer's book looks: many advertisers, most line items after segments, some after deals, pages,
//! places and hours.
//!
//! It targets what [`requests`](crate::requests) offer and names segments of a made [audience](crate::audience), popular ones
//! more often. Left out on purpose: budgets and caps, so that a long run does not change what it measures.

use serde_json::{Value, json};

use crate::audience::popularity;
use crate::dice::Dice;
use crate::world;

/// Makes a document of `count` line items that name segments of `dataset`, which has `segments` of them.
pub fn document(count: usize, dataset: &str, segments: usize, seed: u64) -> Value {
    let mut maker = Maker {
        dice: Dice::new(seed, 4),
        dataset,
        segments: segments.max(1),
    };
    let advertisers = world::ADVERTISERS.min(count.max(1));
    let line_items: Vec<Value> = (0..count)
        .map(|n| maker.line_item(n, n % advertisers))
        .collect();
    json!({
        "advertisers": (0..advertisers).map(advertiser).collect::<Vec<_>>(),
        "creatives": (0..advertisers).flat_map(creatives).collect::<Vec<_>>(),
        "line_items": line_items,
    })
}

/// Every size there is, once.
fn sizes() -> Vec<(i64, i64)> {
    let mut sizes = [world::WIDE.as_slice(), world::NARROW.as_slice()].concat();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn advertiser(n: usize) -> Value {
    let zones = [
        "America/New_York",
        "America/Los_Angeles",
        "Europe/Paris",
        "Asia/Tokyo",
        "UTC",
    ];
    // Some are in categories that exchanges block.
    let category = ["IAB2", "IAB8-5", "IAB20", "IAB9-9", "IAB18", "IAB3"][n % 6];
    json!({"id": format!("adv-{n:02}"), "domain": world::advertiser_domain(n), "categories": [category],
        "time_zone": zones[n % zones.len()], "currency": "USD"})
}

fn creatives(advertiser: usize) -> impl Iterator<Item = Value> {
    sizes().into_iter().map(move |(w, h)| {
        let domain = world::advertiser_domain(advertiser);
        let adm = format!(
            "<!-- {domain} {w}x{h} --><div style=\"width:{w}px;height:{h}px;overflow:hidden\"><a href=\"${{KITH_CLICK_URL}}\" target=\"_blank\" rel=\"noopener\"><img src=\"https://cdn.{domain}/{w}x{h}/spring.webp?v=3&amp;cb=1\" width=\"{w}\" height=\"{h}\" alt=\"\" loading=\"eager\"></a><script async src=\"https://cdn.{domain}/view.js\" data-size=\"{w}x{h}\"></script></div>"
        );
        json!({"id": creative_id(advertiser, (w, h)), "advertiser": format!("adv-{advertiser:02}"), "type": "banner",
            "w": w, "h": h, "adm": adm, "secure": true})
    })
}

fn creative_id(advertiser: usize, (w, h): (i64, i64)) -> String {
    format!("adv-{advertiser:02}-{w}x{h}")
}

struct Maker<'a> {
    dice: Dice,
    dataset: &'a str,
    segments: usize,
}

impl Maker<'_> {
    fn line_item(&mut self, n: usize, advertiser: usize) -> Value {
        let mut creatives: Vec<_> = sizes();
        // Few buyers have every size.
        creatives.retain(|_| self.dice.chance(0.6));
        if creatives.is_empty() {
            creatives.push((300, 250));
        }
        let creatives: Vec<_> = creatives
            .into_iter()
            .map(|size| creative_id(advertiser, size))
            .collect();
        let mut deals: Vec<String> = Vec::new();
        let (wants, worth) = match self.dice.below(100) {
            0..42 => (self.segments_of("one of", 1, 4), 2.4),
            42..52 => (self.segments_of("all of", 2, 2), 4.0),
            52..68 => (
                format!(
                    "{} and {}",
                    self.segments_of("one of", 1, 5),
                    self.segments_of("none of", 1, 2)
                ),
                2.8,
            ),
            68..78 => (self.page(), 1.2),
            78..86 => {
                deals.extend(
                    (0..1 + self.dice.below(3)).map(|_| world::deal(self.dice.below(world::DEALS))),
                );
                (self.audience_or_page(), 5.0)
            }
            86..93 => (self.request_segments(), 1.6),
            _ => (self.country(), 0.45),
        };
        let mut targeting = vec![wants];
        for _ in 0..self.dice.weighted(&[(0, 25), (1, 40), (2, 25), (3, 10)]) {
            targeting.push(self.condition());
        }
        let spread = rand_distr::LogNormal::new(0.0_f64, 0.5).expect("a finite deviation");
        let cpm = (worth * self.dice.sample(spread)).clamp(0.1, 25.0);
        let mut item = json!({"id": format!("li-{n:05}"), "campaign": format!("camp-{advertiser:02}"), "seat": format!("seat-{}", advertiser % 12),
            "creatives": creatives, "targeting": targeting.join(" and "), "price": {"cpm": format!("{cpm:.2}"), "currency": "USD"}});
        if let Some(fields) = item.as_object_mut() {
            if !deals.is_empty() {
                fields.insert("deals".to_owned(), json!(deals));
            }
            match self.dice.below(100) {
                0..3 => drop(fields.insert("status".to_owned(), json!("paused"))),
                3..6 => {
                    let over =
                        json!({"start": "2024-03-01T00:00:00Z", "end": "2024-05-31T00:00:00Z"});
                    drop(fields.insert("flight".to_owned(), over));
                }
                6..30 => drop(fields.insert(
                    "flight".to_owned(),
                    json!({"start": "2025-01-01T00:00:00Z"}),
                )),
                _ => {}
            }
        }
        item
    }

    /// `segments <how> [...]`, of `from` to `to` segments.
    fn segments_of(&mut self, how: &str, from: usize, to: usize) -> String {
        let popularity = popularity(self.segments);
        let wanted = from + self.dice.below(to - from + 1);
        let mut names: Vec<String> = (0..wanted)
            .map(|_| {
                format!(
                    "'{}/{}'",
                    self.dataset,
                    world::segment(self.dice.sample(popularity) as usize)
                )
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        format!("segments {how} [{}]", names.join(", "))
    }

    fn page(&mut self) -> String {
        let publisher = self.dice.below(world::PUBLISHERS);
        match self.dice.below(3) {
            0 => format!(
                "(site_domain in ['{}', '{}'] or app_bundle = '{}')",
                world::site_domain(publisher),
                world::site_domain((publisher + 1) % world::PUBLISHERS),
                world::app_bundle(publisher)
            ),
            1 => format!(
                "publisher in ['{}', '{}']",
                world::publisher_id(publisher),
                world::publisher_id(publisher / 2)
            ),
            _ => format!("categories one of ['{}', 'IAB24']", world::topic(publisher)),
        }
    }

    fn audience_or_page(&mut self) -> String {
        if self.dice.chance(0.5) {
            self.segments_of("one of", 2, 6)
        } else {
            self.country()
        }
    }

    fn request_segments(&mut self) -> String {
        let ids: Vec<String> = (0..3)
            .map(|_| format!("'4:{}'", 100 + self.dice.below(600)))
            .collect();
        format!("request_segments one of [{}]", ids.join(", "))
    }

    fn country(&mut self) -> String {
        let one = self.dice.weighted(&world::ELSEWHERE).alpha3;
        let other = self.dice.weighted(&world::UNDER_GDPR).alpha3;
        format!("country in ['{one}', '{other}']")
    }

    /// What narrows a line item further.
    fn condition(&mut self) -> String {
        match self.dice.below(12) {
            0..3 => self.country(),
            3 | 4 => self
                .dice
                .pick(&[
                    "device_type in ['phone', 'tablet', 'mobile']",
                    "device_type = 'pc'",
                    "not (device_type in ['tv', 'connected_device'])",
                ])
                .to_owned(),
            5 => {
                let from = self.dice.below(12);
                let hours: Vec<String> = (from..from + 12).map(|hour| hour.to_string()).collect();
                format!("hour in [{}]", hours.join(", "))
            }
            6 => "weekday <= 6".to_owned(),
            7 => self
                .dice
                .pick(&[
                    "os in ['ios', 'macos']",
                    "os = 'android'",
                    "browser in ['chrome', 'edge']",
                ])
                .to_owned(),
            8 => self
                .dice
                .pick(&["(width >= 300 and height >= 250)", "width <= 728"])
                .to_owned(),
            9 => format!(
                "(floor is null or floor < {:.2})",
                1.0 + self.dice.fraction() * 4.0
            ),
            10 => self
                .dice
                .pick(&[
                    "(interstitial is null or not interstitial)",
                    "(position is null or position in [0, 1, 4, 7])",
                ])
                .to_owned(),
            _ => format!(
                "categories none of ['{}']",
                world::topic(self.dice.below(10))
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith::campaigns::{Surroundings, compile};

    #[test]
    fn a_document_compiles_without_a_warning() {
        let text = document(1000, "crm", 2000, 1).to_string();
        assert_eq!(document(1000, "crm", 2000, 1).to_string(), text);
        assert_ne!(document(1000, "crm", 2000, 2).to_string(), text);
        let book = compile(text.as_bytes()).expect("a document without a mistake");
        let mut audience = Vec::new();
        crate::audience::write(&mut audience, 20_000, 2000, 1).expect("written");
        let audience = String::from_utf8(audience).expect("text");
        let live: std::collections::HashSet<&str> = audience
            .lines()
            .skip(1)
            .flat_map(|line| line.rsplit(',').next().unwrap_or("").split('|'))
            .collect();
        let surroundings = Surroundings {
            segments: &|segment| {
                segment
                    .to_string()
                    .strip_prefix("crm/")
                    .is_some_and(|name| live.contains(name))
            },
            errors: &|_| None,
            scores: &|_| true,
            currencies: &|currency| currency == kith::money::Currency::USD,
            exchanges: &["demo"],
        };
        assert_eq!(book.warnings(&surroundings), []);
        let count = |wanted: &str| text.matches(wanted).count();
        for (attribute, least) in [
            ("segments ", 500),
            ("country ", 150),
            ("hour ", 30),
            ("publisher ", 20),
            ("\"deals\"", 40),
            ("device_type", 60),
        ] {
            assert!(
                count(attribute) > least,
                "{attribute}: {}",
                count(attribute)
            );
        }
    }

    #[test]
    fn small_ones_compile_too() {
        for (count, segments) in [(0, 0), (1, 1), (7, 3)] {
            let text = document(count, "crm", segments, 3).to_string();
            compile(text.as_bytes()).expect("a document without a mistake");
        }
    }
}
