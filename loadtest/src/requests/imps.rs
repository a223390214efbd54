//! `imp`: the slots on offer: banner, video, native; floors, deals, and what exchanges hang on them.

use super::Plan;
use super::device::Kind;
use super::text::Text;
use crate::audience::uuid;
use crate::dice::Dice;
use crate::world;

/// A further imp begins only with this much room, so that the lists after it have some too; less in a short request.
const ROOM: usize = 520;
const ROOM_SHORT: usize = 220;

/// Writes one imp at least and `wanted` at most, as long as there is room.
pub(super) fn write(t: &mut Text, plan: &Plan, wanted: usize, room: usize, dice: &mut Dice) {
    // What all of them share: an exchange identifies its slots one way.
    let long_ids = !plan.lean() && dice.chance(0.3);
    let least = if plan.short() { ROOM_SHORT } else { ROOM };
    t.list("imp", |t| {
        for n in 0..wanted {
            if n > 0 && t.len() + least > room {
                break;
            }
            // Room for those that are to come.
            let left = room.saturating_sub(t.len() + (wanted - n - 1) * least.min(200));
            t.element(|t| imp(t, plan, n, long_ids, left, dice));
        }
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Offer {
    Banner,
    Video,
    Native,
    BannerOrVideo,
}

fn imp(t: &mut Text, plan: &Plan, n: usize, long_ids: bool, left: usize, dice: &mut Dice) {
    let begins = t.len();
    let room = |t: &Text| left.saturating_sub(t.len() - begins);
    if long_ids {
        t.text("id", &uuid(dice.bits()));
    } else {
        t.text("id", &format!("{}", n + 1));
    }
    let mut offer = dice.weighted(&[
        (Offer::Banner, 76),
        (Offer::Video, 10),
        (Offer::Native, 8),
        (Offer::BannerOrVideo, 8),
    ]);
    if plan.kind == Kind::Tv {
        offer = Offer::Video;
    }
    // A set-top box shows nothing but video, be it over the planned size.
    if plan.kind != Kind::Tv {
        match offer {
            Offer::BannerOrVideo if left < 900 => offer = Offer::Banner,
            Offer::Video | Offer::Native if left < 480 => offer = Offer::Banner,
            _ => {}
        }
    }
    let interstitial = plan.app && dice.chance(0.12);
    if matches!(offer, Offer::Banner | Offer::BannerOrVideo) {
        banner(t, plan, left, dice);
    }
    if matches!(offer, Offer::Video | Offer::BannerOrVideo) {
        video(t, plan, dice);
    }
    if offer == Offer::Native {
        native(t);
    }
    if interstitial {
        t.int("instl", 1);
        if dice.chance(0.4) {
            t.int("rwdd", 1);
        }
    }
    t.text(
        "tagid",
        &format!(
            "/21{}/{}",
            800_000 + plan.publisher,
            dice.pick(&["top", "mid", "side", "footer", "in-article"])
        ),
    );
    floor(t, dice);
    match dice.below(20) {
        0 => {}
        1 => t.text("secure", "1"),
        _ => t.int("secure", 1),
    }
    if room(t) > 130 && dice.chance(0.18) {
        deals(t, if room(t) > 400 { 3 } else { 1 }, dice);
    }
    if room(t) > 90 && dice.chance(0.3) {
        t.list("metric", |t| {
            t.element(|t| {
                t.text("type", "viewability");
                t.decimal("value", dice.fraction(), 2);
                t.text("vendor", "EXCHANGE");
            });
        });
    }
    if room(t) > 80 && dice.chance(0.4) {
        t.text(
            "displaymanager",
            dice.pick(&["example-sdk", "prebid", "gma"]),
        );
        t.text("displaymanagerver", dice.pick(&["9.41.0", "3.1.2", "22.4"]));
    }
    if room(t) > 330 && dice.chance(0.7) {
        extension(t, plan, dice);
    }
}

/// CPM; mostly cents to a few dollars. Some write none, some a string.
fn floor(t: &mut Text, dice: &mut Dice) {
    let cpm = dice.sample(rand_distr::LogNormal::new(-1.0_f64, 0.8).expect("a finite deviation"));
    let cpm = cpm.clamp(0.01, 12.0);
    match dice.below(20) {
        0 => {}
        1 => t.text("bidfloor", &format!("{cpm:.2}")),
        2 => t.decimal("bidfloor", cpm, 6),
        _ => t.decimal("bidfloor", cpm, 2),
    }
    if dice.chance(0.7) {
        t.text("bidfloorcur", "USD");
    }
}

fn banner(t: &mut Text, plan: &Plan, left: usize, dice: &mut Dice) {
    let size = |dice: &mut Dice| {
        if plan.kind.narrow() {
            dice.weighted(&[
                (world::NARROW[0], 40),
                (world::NARROW[1], 40),
                (world::NARROW[2], 12),
                (world::NARROW[3], 8),
            ])
        } else {
            dice.weighted(&[
                (world::WIDE[0], 40),
                (world::WIDE[1], 25),
                (world::WIDE[2], 12),
                (world::WIDE[3], 8),
                (world::WIDE[4], 10),
                (world::WIDE[5], 5),
            ])
        }
    };
    let first = size(dice);
    t.object("banner", |t| {
        let formats = if left < 450 {
            0
        } else {
            dice.weighted(&[(0, 20), (1, 35), (2, 25), (3, 15), (5, 5)])
        };
        if formats > 0 {
            t.list("format", |t| {
                for n in 0..formats {
                    let (w, h) = if n == 0 { first } else { size(dice) };
                    t.element(|t| {
                        t.int("w", w);
                        t.int("h", h);
                    });
                }
            });
        }
        if formats == 0 || dice.chance(0.6) {
            t.int("w", first.0);
            t.int("h", first.1);
        }
        if dice.chance(0.6) {
            t.int("pos", dice.pick(&[0, 1, 3, 4, 7]));
        }
        if left > 450 {
            if dice.chance(0.4) {
                t.numbers(
                    "battr",
                    dice.pick::<&[i64], 3>(&[&[1, 2, 8, 9, 17], &[13, 14], &[3, 8, 10]]),
                );
            }
            if dice.chance(0.2) {
                t.numbers("btype", &[4]);
            }
            if dice.chance(0.3) {
                t.numbers("api", &[3, 5, 6, 7]);
            }
            if dice.chance(0.3) {
                t.words(
                    "mimes",
                    &["text/html", "text/javascript", "image/jpeg", "image/png"],
                );
            }
            if dice.chance(0.3) {
                t.int("topframe", 1);
            }
        }
    });
}

fn video(t: &mut Text, plan: &Plan, dice: &mut Dice) {
    t.object("video", |t| {
        t.words("mimes", &["video/mp4", "application/javascript"]);
        t.int("minduration", dice.pick(&[0, 5]));
        t.int("maxduration", dice.pick(&[15, 30, 60]));
        t.numbers("protocols", &[2, 3, 5, 6, 7, 8]);
        let (w, h) = if plan.kind == Kind::Tv {
            (1920, 1080)
        } else {
            (640, 360)
        };
        t.int("w", w);
        t.int("h", h);
        t.int("startdelay", 0);
        t.int("plcmt", dice.within(1..=4));
        t.int("linearity", 1);
        t.int("skip", dice.below(2) as i64);
        t.numbers("playbackmethod", &[dice.within(1..=6)]);
        t.numbers("api", &[7]);
        if dice.chance(0.3) {
            t.int("podid", 1);
            t.int("poddur", 90);
        }
    });
}

fn native(t: &mut Text) {
    t.object("native", |t| {
        let request = r#"{"ver":"1.2","plcmttype":1,"assets":[{"id":1,"required":1,"title":{"len":90}},{"id":2,"required":1,"img":{"type":3,"wmin":600,"hmin":315}},{"id":3,"data":{"type":1,"len":25}}]}"#;
        t.text("request", request);
        t.text("ver", "1.2");
    });
}

fn deals(t: &mut Text, most: usize, dice: &mut Dice) {
    t.object("pmp", |t| {
        t.int("private_auction", i64::from(dice.chance(0.1)));
        t.list("deals", |t| {
            for _ in 0..1 + dice.below(most) {
                t.element(|t| {
                    t.text("id", &world::deal(dice.below(world::DEALS)));
                    t.decimal("bidfloor", 0.5 + dice.fraction() * 4.0, 2);
                    t.text("bidfloorcur", "USD");
                    t.int("at", dice.within(1..=3));
                });
            }
        });
    });
}

fn extension(t: &mut Text, plan: &Plan, dice: &mut Dice) {
    let slot = dice.below(90);
    t.object("ext", |t| {
        t.text(
            "gpid",
            &format!(
                "/21{}/{}#slot-{slot}",
                800_000 + plan.publisher,
                world::site_domain(plan.publisher)
            ),
        );
        if dice.chance(0.5) {
            t.raw(
                "skadn",
                "{\"versions\":[\"2.0\",\"3.0\",\"4.0\"],\"sourceapp\":\"0\",\"productpage\":1}",
            );
        } else {
            t.raw(
                "bidder",
                "{\"siteId\":1,\"zone\":null,\"weight\":1.0e0,\"flags\":[true,false]}",
            );
        }
        if dice.chance(0.4) {
            t.object("data", |t| {
                t.object("adserver", |t| {
                    t.text("name", "adserver");
                    t.text(
                        "adslot",
                        &format!("/21{}/home/{slot}", 800_000 + plan.publisher),
                    );
                });
                t.text("pbadslot", &format!("home/{slot}"));
            });
        }
    });
}
