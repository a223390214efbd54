//! The made-up world that requests, people and campaigns share: who publishes, where people are, what is for sale.
//!
//! Campaigns can only target what requests offer if both speak of the same publishers and deals. Names are numbered
//! words under `.example`, so that none is anybody's.

/// How many publishers there are; each has a site and an app. Popularity is Zipf's.
pub(crate) const PUBLISHERS: usize = 200;
/// How many deals there are.
pub(crate) const DEALS: usize = 150;
/// How many advertisers the campaigns have.
pub(crate) const ADVERTISERS: usize = 80;

const FIRST: [&str; 10] = [
    "harbor", "cedar", "summit", "lantern", "river", "copper", "meadow", "north", "granite",
    "violet",
];
const SECOND: [&str; 10] = [
    "news", "kitchen", "scores", "garden", "motors", "weather", "games", "journal", "travel",
    "music",
];
const TOPICS: [&str; 10] = [
    "IAB12", "IAB8", "IAB17", "IAB10", "IAB2", "IAB15", "IAB9", "IAB1", "IAB20", "IAB1-6",
];

fn words(n: usize) -> (&'static str, &'static str) {
    (FIRST[n / 10 % 10], SECOND[n % 10])
}

/// A publisher's site.
pub(crate) fn site_domain(publisher: usize) -> String {
    let (first, second) = words(publisher);
    match publisher / 100 {
        0 => format!("{first}-{second}.example"),
        more => format!("{first}-{second}{more}.example"),
    }
}

/// A publisher's app.
pub(crate) fn app_bundle(publisher: usize) -> String {
    let (first, second) = words(publisher);
    format!("com.example.{first}.{second}{}", publisher / 100)
}

pub(crate) fn app_name(publisher: usize) -> String {
    let (first, second) = words(publisher);
    format!("{first} {second} {}", publisher / 100)
}

pub(crate) fn publisher_id(publisher: usize) -> String {
    format!("pub-{:04}", 1000 + publisher)
}

/// What a publisher writes about, in IAB's first taxonomy.
pub(crate) fn topic(publisher: usize) -> &'static str {
    TOPICS[publisher % 10]
}

pub(crate) fn deal(n: usize) -> String {
    format!("deal-{:03}", n % DEALS)
}

pub(crate) fn advertiser_domain(n: usize) -> String {
    let (first, second) = words(n.wrapping_mul(37));
    format!("{first}-{second}-brand{n}.example")
}

/// A segment's name within its dataset, the most popular first.
pub(crate) fn segment(rank: usize) -> String {
    format!("s{rank:05}")
}

/// A country where GDPR does not apply, with a share of the traffic.
#[derive(Debug)]
pub(crate) struct Country {
    pub(crate) alpha3: &'static str,
    pub(crate) language: &'static str,
    pub(crate) region: &'static str,
    pub(crate) city: &'static str,
    pub(crate) offset_minutes: i64,
}

const fn country(
    alpha3: &'static str,
    language: &'static str,
    region: &'static str,
    city: &'static str,
    offset_minutes: i64,
) -> Country {
    Country {
        alpha3,
        language,
        region,
        city,
        offset_minutes,
    }
}

/// Outside the reach of GDPR, by share of traffic.
pub(crate) const ELSEWHERE: [(&Country, u32); 10] = [
    (&country("USA", "en", "NY", "New York", -240), 30),
    (&country("USA", "en", "CA", "Los Angeles", -420), 22),
    (&country("CAN", "en", "ON", "Toronto", -240), 8),
    (&country("BRA", "pt", "SP", "S\u{e3}o Paulo", -180), 9),
    (
        &country("MEX", "es", "CMX", "Ciudad de M\u{e9}xico", -360),
        6,
    ),
    (&country("JPN", "ja", "13", "\u{6771}\u{4eac}", 540), 7),
    (&country("AUS", "en", "NSW", "Sydney", 600), 5),
    (&country("IND", "en", "MH", "Mumbai", 330), 6),
    (&country("KOR", "ko", "11", "Seoul", 540), 4),
    (&country("ARG", "es", "C", "Buenos Aires", -180), 3),
];

/// Where GDPR applies.
pub(crate) const UNDER_GDPR: [(&Country, u32); 5] = [
    (&country("FRA", "fr", "IDF", "Paris", 120), 5),
    (&country("DEU", "de", "BE", "Berlin", 120), 5),
    (&country("GBR", "en", "ENG", "London", 60), 4),
    (&country("ESP", "es", "MD", "Madrid", 120), 3),
    (&country("ITA", "it", "RM", "Roma", 120), 3),
];

/// Banner sizes for wide screens and for phones.
pub(crate) const WIDE: [(i64, i64); 6] = [
    (300, 250),
    (728, 90),
    (160, 600),
    (970, 250),
    (300, 600),
    (336, 280),
];
pub(crate) const NARROW: [(i64, i64); 4] = [(320, 50), (300, 250), (320, 100), (320, 480)];
