//! `bcat`, `badv`, `bapp` and `ext`: the lists and extensions that make up the rest of a request's planned size.

use super::Plan;
use super::text::Text;
use crate::dice::Dice;
use crate::world;

const BLOCKED: [&str; 24] = [
    "IAB25", "IAB26", "IAB7-39", "IAB8-5", "IAB8-18", "IAB9-9", "IAB14-1", "IAB24", "IAB25-1",
    "IAB25-2", "IAB25-3", "IAB25-4", "IAB25-5", "IAB26-1", "IAB26-2", "IAB26-3", "IAB26-4",
    "IAB3-7", "IAB11-4", "IAB11-5", "IAB23", "IAB7-3", "IAB7-28", "IAB7-44",
];

/// Fills `room` bytes, a few less at most.
pub(super) fn write(t: &mut Text, plan: &Plan, room: usize, dice: &mut Dice) {
    let until = |share: f64| (room as f64 * share) as usize;
    if room > 120 {
        t.list("bcat", |t| {
            let start = dice.below(BLOCKED.len());
            for step in 0..BLOCKED.len() {
                if t.len() + 20 > until(0.2).max(40) {
                    break;
                }
                t.word(BLOCKED[(start + step) % BLOCKED.len()]);
            }
        });
    }
    if room > 250 {
        t.list("badv", |t| {
            // An advertiser's rivals; some of them are ours.
            while t.len() + 40 < until(0.6) {
                if dice.chance(0.03) {
                    t.word(&world::advertiser_domain(dice.below(world::ADVERTISERS)));
                } else {
                    let word = dice.pick(&["shop", "casino", "pills", "loans", "rival"]);
                    t.word(&format!("{word}{}.test", dice.below(100_000)));
                }
            }
        });
    }
    if plan.app && room > 400 {
        t.list("bapp", |t| {
            while t.len() + 40 < until(0.72) {
                t.word(&format!("com.test.app{}", dice.below(1_000_000)));
            }
        });
    }
    // `,"ext":{"p":""}` with a space or two.
    if t.len() + 18 < room {
        t.object("ext", |t| extension(t, room - 1, dice));
    }
}

/// What exchanges tell each other, unknown to us: objects, nulls, floats, numbers too long for a float.
fn extension(t: &mut Text, room: usize, dice: &mut Dice) {
    if t.len() + 200 < room {
        t.object("prebid", |t| {
            t.text("auctiontimestamp", "1767225600000");
            t.object("channel", |t| {
                t.text("name", "pbjs");
                t.text("version", "v9.41.0");
            });
            t.raw("targeting", "{\"includewinners\":true,\"includebidderkeys\":false,\"pricegranularity\":{\"precision\":2,\"ranges\":[{\"max\":20.00,\"increment\":0.10}]}}");
        });
    }
    let mut n = 0;
    while t.len() + 60 < room {
        n += 1;
        let key = format!("x{n}");
        match dice.below(6) {
            0 => t.decimal(&key, dice.fraction() * 100.0, 12),
            1 => t.raw(&key, "{\"a\":null,\"b\":[],\"c\":{}}"),
            2 => t.text(
                &key,
                &format!("https://sync.test/p?id={:x}&r=/a/b", dice.bits() as u64),
            ),
            3 => t.raw(&key, &format!("{}", dice.bits())),
            4 => t.text(&key, "caf\u{e9} \u{2713} \u{1f680} \"quoted\" \\ \n"),
            _ => t.text(&key, &format!("{:016x}", dice.bits() as u64)),
        }
    }
    // An opaque value of what is left.
    let left = room.saturating_sub(t.len() + 8);
    let opaque: String = (0..left.div_ceil(32))
        .map(|_| format!("{:032x}", dice.bits()))
        .collect();
    t.text("p", opaque.get(..left).unwrap_or_default());
}
