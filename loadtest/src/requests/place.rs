//! `site`, `app` and `source`: where the ad would be shown and through whose hands the request came.

use super::Plan;
use super::text::Text;
use crate::audience::uuid;
use crate::dice::Dice;
use crate::world;

pub(super) fn write(t: &mut Text, plan: &Plan, dice: &mut Dice) {
    let publisher = plan.publisher;
    let domain = world::site_domain(publisher);
    t.object(if plan.app { "app" } else { "site" }, |t| {
        t.text("id", &format!("{}", 20_000 + publisher * 7));
        if plan.app {
            t.text("bundle", &world::app_bundle(publisher));
            if !plan.lean() {
                t.text("name", &world::app_name(publisher));
                t.text(
                    "storeurl",
                    &format!(
                        "https://store.example/apps/details?id={}&hl=en",
                        world::app_bundle(publisher)
                    ),
                );
                t.text("ver", dice.pick(&["4.2.1", "10.0", "2025.6"]));
                t.text("domain", &domain);
            }
        } else {
            t.text("domain", &domain);
            if !plan.lean() {
                let page = format!(
                    "https://www.{domain}/{}/{}?utm_source=feed&utm_medium=web",
                    dice.pick(&["2026/05", "live", "guides"]),
                    dice.below(1_000_000)
                );
                t.text("page", &page);
                if dice.chance(0.5) {
                    t.text("ref", "https://search.example/?q=");
                }
                t.int("mobile", i64::from(plan.kind.narrow()));
            }
        }
        t.words("cat", &[world::topic(publisher)]);
        t.object("publisher", |t| {
            t.text("id", &world::publisher_id(publisher));
            if !plan.short() {
                t.text("name", &format!("{domain} Media, Inc."));
                t.text("domain", &domain);
            }
        });
        if !plan.short() && dice.chance(0.5) {
            t.text(
                "keywords",
                dice.pick(&[
                    "news,local,weather",
                    "recipes, dinner, quick",
                    "football,scores,live,fixtures,tables",
                ]),
            );
        }
        if plan.bytes > 2000 && dice.chance(0.5) {
            t.object("content", |t| {
                t.text("id", &format!("{:x}", dice.bits() as u32));
                t.text("language", plan.country.language);
                t.words("cat", &[world::topic(publisher), "IAB24"]);
                t.int("livestream", 0);
                // Exchanges send ratings as strings.
                t.text("userrating", "4.2");
            });
        }
        if !plan.short() && dice.chance(0.5) {
            t.raw(
                "ext",
                dice.pick(&[
                    "{\"amp\":0}",
                    "{\"inventorypartnerdomain\":\"\",\"page_visibility\":1}",
                    "{\"data\":{\"section\":null,\"depth\":3.0}}",
                ]),
            );
        }
    });
}

pub(super) fn write_source(t: &mut Text, plan: &Plan, request_id: &str, dice: &mut Dice) {
    if plan.lean() {
        return;
    }
    t.object("source", |t| {
        t.int("fd", dice.below(2) as i64);
        t.text(
            "tid",
            &if dice.chance(0.5) {
                request_id.to_owned()
            } else {
                uuid(dice.bits())
            },
        );
        if plan.short() && dice.chance(0.6) {
            return;
        }
        let nodes = if plan.short() { 1 } else { 1 + dice.below(3) };
        let mut chain = |t: &mut Text| {
            t.object("schain", |t| {
                t.text("ver", "1.0");
                t.int("complete", 1);
                t.list("nodes", |t| {
                    for node in 0..nodes {
                        t.element(|t| {
                            t.text(
                                "asi",
                                ["ssp.example", "reseller.example", "network.example"][node % 3],
                            );
                            t.text("sid", &format!("{}", 100_000 + dice.below(900_000)));
                            t.text("rid", request_id);
                            t.int("hp", 1);
                        });
                    }
                });
            });
        };
        if plan.old {
            t.object("ext", chain);
        } else {
            chain(t);
        }
    });
}
