//! `device`: what the ad would be shown on, and where it is.

use super::Plan;
use super::privacy::Signals;
use super::text::Text;
use crate::dice::Dice;

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Iphone,
    Android,
    Tablet,
    Desktop,
    Tv,
}

impl Kind {
    pub(super) fn drawn(app: bool, dice: &mut Dice) -> Self {
        if app {
            dice.weighted(&[
                (Self::Iphone, 35),
                (Self::Android, 48),
                (Self::Tablet, 9),
                (Self::Tv, 8),
            ])
        } else {
            dice.weighted(&[
                (Self::Desktop, 45),
                (Self::Iphone, 24),
                (Self::Android, 25),
                (Self::Tablet, 6),
            ])
        }
    }

    pub(super) fn narrow(self) -> bool {
        matches!(self, Self::Iphone | Self::Android)
    }
}

/// An IFA that tells nothing, as devices that limit tracking send it.
pub(super) const IFA_WITHHELD: &str = "00000000-0000-0000-0000-000000000000";

pub(super) fn write(t: &mut Text, plan: &Plan, ifa: Option<&str>, dice: &mut Dice) {
    t.object("device", |t| {
        let version = dice.below(3) as i64;
        t.text("ua", &user_agent(plan, version));
        if dice.chance(0.7) {
            let net = dice.pick(&["192.0.2", "198.51.100", "203.0.113"]);
            t.text("ip", &format!("{net}.{}", dice.below(254) + 1));
        } else {
            // 2001:db8::/32 is for examples.
            let bits = dice.bits() as u64;
            t.text(
                "ipv6",
                &format!(
                    "2001:db8:{:x}:{:x}:{:x}:{:x}::1",
                    bits & 0xffff,
                    bits >> 16 & 0xffff,
                    bits >> 32 & 0xffff,
                    bits >> 48
                ),
            );
        }
        let devicetype = match plan.kind {
            Kind::Iphone | Kind::Android => 4,
            Kind::Tablet => 5,
            Kind::Desktop => 2,
            Kind::Tv => dice.pick(&[3, 7]),
        };
        t.int("devicetype", devicetype);
        let (make, model, os, osv) = match plan.kind {
            Kind::Iphone => (
                "Apple",
                "iPhone",
                "iOS",
                dice.pick(&["18.5", "18.3.1", "17.7"]),
            ),
            Kind::Android => (
                "Example",
                dice.pick(&["Phone 9", "Phone A5", "Fold 2"]),
                "Android",
                dice.pick(&["15", "14", "13"]),
            ),
            Kind::Tablet => ("Example", "Tab 11", "Android", "14"),
            Kind::Desktop => (
                "",
                "",
                dice.pick(&["Windows", "macOS", "Linux"]),
                dice.pick(&["10", "14.5", "11"]),
            ),
            Kind::Tv => ("Example", "TV 4K", "Tizen", "8.0"),
        };
        if !plan.lean() && !make.is_empty() {
            t.text("make", make);
            t.text("model", model);
        }
        t.text("os", os);
        t.text("osv", osv);
        if dice.chance(0.9) {
            t.text("language", plan.country.language);
        }
        if let Some(ifa) = ifa {
            t.text("ifa", ifa);
        }
        let lmt = plan.signals == Signals::Lmt;
        if lmt || dice.chance(0.6) {
            // Some write flags as strings.
            if dice.chance(0.05) {
                t.text("lmt", if lmt { "1" } else { "0" });
            } else {
                t.int("lmt", i64::from(lmt));
            }
        }
        if plan.signals == Signals::Dnt || dice.chance(0.5) {
            t.int("dnt", i64::from(plan.signals == Signals::Dnt));
        }
        if !plan.short() {
            t.int("js", 1);
            let (w, h) = if plan.kind.narrow() {
                (412, 915)
            } else {
                (1920, 1080)
            };
            t.int("w", w);
            t.int("h", h);
            t.decimal("pxratio", dice.pick(&[1.0, 2.0, 2.625, 3.0]), 3);
            let connection = if plan.kind.narrow() {
                dice.pick(&[2, 6, 7])
            } else {
                dice.pick(&[1, 2])
            };
            t.int("connectiontype", connection);
            if plan.kind.narrow() && dice.chance(0.4) {
                t.text(
                    "carrier",
                    dice.pick(&["Example Mobile", "Testcell", "310-999"]),
                );
            }
        }
        geo(t, plan, dice);
        if plan.bytes > 2200 && dice.chance(0.5) {
            client_hints(t, plan, os, osv);
        }
    });
}

fn geo(t: &mut Text, plan: &Plan, dice: &mut Dice) {
    let country = plan.country;
    t.object("geo", |t| {
        t.text("country", country.alpha3);
        if plan.lean() {
            return;
        }
        t.text("region", country.region);
        if dice.chance(0.7) {
            t.text("city", country.city);
        }
        if !plan.short() && dice.chance(0.6) {
            t.decimal("lat", dice.fraction() * 120.0 - 60.0, 4);
            t.decimal("lon", dice.fraction() * 360.0 - 180.0, 4);
            t.int("accuracy", dice.within(100..=20_000));
        }
        if dice.chance(0.6) {
            t.text("zip", &format!("{:05}", dice.below(99_999)));
        }
        if country.alpha3 == "USA" && dice.chance(0.7) {
            t.text("metro", &format!("{}", 500 + dice.below(380)));
        }
        t.int("type", 2);
        t.int("utcoffset", country.offset_minutes);
    });
}

/// `device.sua`: what the browser says of itself in parts.
fn client_hints(t: &mut Text, plan: &Plan, os: &str, osv: &str) {
    t.object("sua", |t| {
        t.list("browsers", |t| {
            for (brand, version) in [
                ("Chromium", "137"),
                ("Example Browser", "137"),
                ("Not.A/Brand", "8"),
            ] {
                t.element(|t| {
                    t.text("brand", brand);
                    t.words("version", &[version, "0", "0", "0"]);
                });
            }
        });
        t.object("platform", |t| {
            t.text("brand", os);
            t.words("version", &[osv]);
        });
        t.int("mobile", i64::from(plan.kind.narrow()));
        t.int("source", 2);
    });
}

fn user_agent(plan: &Plan, version: i64) -> String {
    let chrome = 135 + version;
    match (plan.kind, plan.app && plan.lean()) {
        (Kind::Iphone, true) => format!("ExampleApp/4.{version} CFNetwork/1568 Darwin/24.{version}.0"),
        (_, true) => format!("Dalvik/2.1.0 (Linux; U; Android 14; Phone 9 Build/UP1A.{version})"),
        (Kind::Iphone, false) => format!(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_{version} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.{version} Mobile/15E148 Safari/604.1"
        ),
        (Kind::Android, false) => format!(
            "Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome}.0.0.0 Mobile Safari/537.36"
        ),
        (Kind::Tablet, false) => format!(
            "Mozilla/5.0 (Linux; Android 14; Tab 11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome}.0.0.0 Safari/537.36"
        ),
        (Kind::Desktop, false) => format!(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome}.0.0.0 Safari/537.36 Edg/{chrome}.0.0.0"
        ),
        (Kind::Tv, false) => {
            "Mozilla/5.0 (SMART-TV; LINUX; Tizen 8.0) AppleWebKit/537.36 (KHTML, like Gecko) 108.0.5359.1/8.0 TV Safari/537.36".to_owned()
        }
    }
}
