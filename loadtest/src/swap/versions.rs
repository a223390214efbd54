//! Versions whose answers give them away.
//!
//! Version *n* puts every person in the one segment *n* modulo ten, and each segment has a line item with a price of its own,
//! so that a price names a version (those ten apart are told apart by when they were live). Each person has two ids,
//! looked up apart: a decision that read one in an older version than the other would find two segments, and then the
//! dearest line item of all, which wants any two, wins. Each request has two imps, whose prices must agree. A person is in
//! every version, so an answer without a bid is wrong too.
//!
//! All versions of a scenario are the same bytes but for one digit a row.

use serde_json::{Value, json};

/// Segments that versions take in turns.
pub const SEGMENTS: u64 = 10;
/// The CPM of the line item that wants people who are in two versions at once.
pub const MIXED_CPM: f64 = 99.0;
/// Imps of each request.
pub const IMPS: usize = 2;
/// Different request bodies, each about another person.
const BODIES_MAX: usize = 2_000;

const HEADER: &str = "source,id,segments\n";
const SOURCES: [&str; 2] = ["buyeruid", "uidapi.com"];

/// The segment that version `version` puts everybody in.
#[must_use]
pub fn segment_of(version: u64) -> u64 {
    version % SEGMENTS
}

/// The CPM of a segment's line item.
fn cpm(segment: u64) -> u64 {
    segment + 1
}

/// Which segment a price is of.
#[must_use]
pub fn segment_of_price(price: f64) -> Option<u64> {
    (0..SEGMENTS).find(|segment| (cpm(*segment) as f64 - price).abs() < 1e-9)
}

/// The rows of a version as CSV.
#[derive(Debug)]
pub struct Rows {
    csv: Vec<u8>,
    people: usize,
}

impl Rows {
    /// At least two rows.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        let people = (rows / SOURCES.len()).max(1);
        let mut csv = HEADER.to_owned();
        for source in SOURCES {
            for person in 0..people {
                csv.push_str(&row(source, person));
            }
        }
        Self {
            csv: csv.into_bytes(),
            people,
        }
    }

    /// Those of version `version`.
    pub fn of(&mut self, version: u64) -> &[u8] {
        // `segment_of` is below ten.
        let digit = b'0' + segment_of(version) as u8;
        let mut rest = self.csv.get_mut(HEADER.len()..).unwrap_or_default();
        for source in SOURCES {
            let length = row(source, 0).len();
            let (rows, others) = rest
                .split_at_mut_checked(length * self.people)
                .unwrap_or_default();
            // The last byte is the line's end, the one before it the digit.
            rows.chunks_exact_mut(length)
                .filter_map(|row| row.get_mut(length - 2))
                .for_each(|byte| *byte = digit);
            rest = others;
        }
        &self.csv
    }

    /// What changes from the version before this one, of those whom requests are about.
    pub fn delta(&self, version: u64) -> String {
        let (add, remove) = (segment_of(version), segment_of(version.saturating_sub(1)));
        let mut csv = "source,id,add,remove\n".to_owned();
        for person in asked(self.people) {
            for source in SOURCES {
                csv += &format!("{source},{},v{add},v{remove}\n", id(source, person));
            }
        }
        csv
    }
}

/// Those of so many people whom requests are about.
fn asked(people: usize) -> impl Iterator<Item = usize> {
    let count = people.min(BODIES_MAX);
    (0..count).map(move |n| n * people / count)
}

/// All rows of a source are as long.
fn row(source: &str, person: usize) -> String {
    format!("{source},{},v0\n", id(source, person))
}

fn id(source: &str, person: usize) -> String {
    format!("{}{person:09}", &source[..1])
}

/// A line item for each segment, and one for people in two of them.
#[must_use]
pub fn campaigns() -> String {
    let item = |id: String, targeting: String, cpm: String| json!({"id": id, "creatives": ["cr"], "targeting": targeting, "price": {"cpm": cpm, "currency": "USD"}});
    let pairs: Vec<String> = (0..SEGMENTS)
        .flat_map(|a| (0..a).map(move |b| format!("segments all of ['crm/v{a}', 'crm/v{b}']")))
        .collect();
    let mut items: Vec<Value> = (0..SEGMENTS)
        .map(|s| {
            item(
                format!("only-v{s}"),
                format!("segments one of ['crm/v{s}']"),
                cpm(s).to_string(),
            )
        })
        .collect();
    items.push(item(
        "mixed".to_owned(),
        pairs.join(" or "),
        MIXED_CPM.to_string(),
    ));
    json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "cr", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "secure": true,
            "adm": "<a href=\"${KITH_CLICK_URL}\"><img src=\"https://cdn.acme.example/a.png\"></a>"}],
        "line_items": items})
    .to_string()
}

/// Requests about people spread over all rows.
#[must_use]
pub fn requests(rows: usize) -> Vec<Vec<u8>> {
    let people = (rows / SOURCES.len()).max(1);
    let requests = asked(people).enumerate();
    requests
        .map(|(n, person)| request(n, person).into_bytes())
        .collect()
}

fn request(n: usize, person: usize) -> String {
    let imps: Vec<Value> = (1..=IMPS)
        .map(|imp| json!({"id": imp.to_string(), "banner": {"format": [{"w": 300, "h": 250}], "pos": 1}, "bidfloor": 0.01, "secure": 1}))
        .collect();
    json!({
        "id": format!("r-{n}"), "at": 1, "tmax": 5000, "cur": ["USD"], "imp": imps,
        "site": {"id": "s-1", "domain": "news.example", "page": "https://news.example/today", "publisher": {"id": "p-1"}},
        "device": {"ua": "Mozilla/5.0 (invented)", "ip": "192.0.2.1", "geo": {"country": "USA"}},
        "regs": {"coppa": 0, "gdpr": 0},
        "user": {"buyeruid": id(SOURCES[0], person), "eids": [{"source": SOURCES[1], "uids": [{"id": id(SOURCES[1], person)}]}]}})
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_differ_in_their_segment_alone() {
        let mut rows = Rows::new(6);
        let third = String::from_utf8(rows.of(13).to_vec()).expect("text");
        assert_eq!(
            third,
            "source,id,segments\nbuyeruid,b000000000,v3\nbuyeruid,b000000001,v3\nbuyeruid,b000000002,v3\n\
             uidapi.com,u000000000,v3\nuidapi.com,u000000001,v3\nuidapi.com,u000000002,v3\n"
        );
        assert_eq!(
            String::from_utf8(rows.of(14).to_vec()).expect("text"),
            third.replace("v3", "v4")
        );
    }

    #[test]
    fn every_request_is_about_somebody_of_the_rows() {
        let csv = String::from_utf8(Rows::new(100).of(1).to_vec()).expect("text");
        let requests = requests(100);
        assert_eq!(requests.len(), 50);
        for request in requests {
            let request: Value = serde_json::from_slice(&request).expect("JSON");
            let user = &request["user"];
            for id in [&user["buyeruid"], &user["eids"][0]["uids"][0]["id"]] {
                assert!(
                    csv.contains(&format!(",{},", id.as_str().expect("an id"))),
                    "{id}"
                );
            }
        }
        let book =
            kith::campaigns::compile(campaigns().as_bytes()).expect("a document without a mistake");
        assert_eq!(book.line_items.len(), 11);
    }

    #[test]
    fn prices_name_segments() {
        assert_eq!(segment_of_price(1.0), Some(0));
        assert_eq!(segment_of_price(10.0), Some(9));
        assert_eq!(segment_of_price(MIXED_CPM), None);
        assert_eq!(segment_of_price(1.5), None);
    }
}
