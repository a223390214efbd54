//! Writes a bid response (§4.2), straight into the connection's buffer.
//!
//! Only what the specification's types say, no nulls; prices print as the shortest decimal that reads back as the
//! same micros. What all bids of a line item or a creative have in common is written once, when the book is compiled:
//! a bid copies it. Nothing here goes through [`std::fmt`], which took most of the time.

use crate::money::{Currency, Price};

/// A bid's id, unique to this deployment's bids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BidId(pub u64);

/// §4.2.3: one bid, ready to be written.
#[derive(Debug, Clone, Copy)]
pub struct BidOut<'a> {
    /// Its id.
    pub id: BidId,
    /// The seat it is made for.
    pub seat: &'a str,
    /// The imp it answers.
    pub impid: &'a str,
    /// CPM in the response's currency.
    pub price: Price,
    /// What all bids of its line item say, from [`line_item_part`].
    pub line_item_json: &'a str,
    /// Markup, escaped for JSON, without the quotes; with macros where URLs stand that carry the bid's token.
    pub adm_json: &'a str,
    /// What stands for [`CLICK_MACRO`] where clicks do not come to us: where the ad leads.
    pub landing: &'a str,
    /// What all bids with its creative say, from [`CreativeOut::part`].
    pub creative_json: &'a str,
    /// The deal it answers, if any.
    pub dealid: Option<&'a str>,
    /// Who pays for it, from [`transparency_part`]; nothing where the request does not ask.
    pub dsa_json: &'a str,
    /// Where in a dynamic pod it wants to be: 1 first, -1 last.
    pub slotinpod: Option<i64>,
    /// Seconds that it may wait for its impression.
    pub exp: Option<u32>,
    /// The proportions, where it answers those and not a size.
    pub flex: Option<(i64, i64)>,
    /// What its notices are sent to, and the tokens that they carry; nothing where none are taken.
    pub notices: Option<(&'a NoticeUrls, NoticeTokens<'a>)>,
}

/// What the URLs of one bid carry: each a token of its own, of which the end is the same for all.
#[derive(Debug, Clone, Copy)]
pub struct NoticeTokens<'a> {
    /// How the token in `nurl` begins.
    pub win: &'a str,
    /// In `burl`, or in the pixel.
    pub bill: &'a str,
    /// In `lurl`.
    pub loss: &'a str,
    /// Where a click leads.
    pub click: &'a str,
    /// How all of them go on.
    pub rest: &'a str,
}

/// The URLs of an exchange's notices (§4.2.3 `nurl`, `burl`, `lurl`), but for the tokens.
#[derive(Debug, Clone)]
pub struct NoticeUrls {
    /// Each member of a bid, up to the token and from there on.
    parts: [(Box<str>, Box<str>); 3],
    /// A click's, as the inside of a JSON string.
    click: Box<str>,
    /// Where an impression is billed by a pixel: its URL, up to the token and from there on.
    pixel: Option<(Box<str>, Box<str>)>,
}

/// Stands in markup where a click leads.
pub const CLICK_MACRO: &str = "${KITH_CLICK_URL}";
/// Stands where an element of HTML may: the impression's pixel, or nothing.
pub const PIXEL_HTML_MACRO: &str = "${KITH_PIXEL_HTML}";
/// The same for VAST.
pub const PIXEL_VAST_MACRO: &str = "${KITH_PIXEL_VAST}";
/// The pixel's URL alone.
pub(super) const PIXEL_URL_MACRO: &str = "${KITH_PIXEL_URL}";
/// What all of them begin with.
const OWN_MACRO: &str = "${KITH_";

impl NoticeUrls {
    /// The same for an exchange whose impressions are billed by a pixel in the markup: it has no `burl`.
    pub fn billed_by_pixel(mut self) -> Self {
        let [_, burl, _] = &mut self.parts;
        let (head, tail) = std::mem::take(burl);
        let head = head.split_once(":\"").map_or("", |(_, url)| url);
        let tail = tail.strip_suffix('"').unwrap_or(&tail);
        self.pixel = Some((head.into(), tail.into()));
        self
    }

    /// Writes what stands for a macro of ours that markup begins with; how long the macro is.
    fn write_own(
        &self,
        markup: &str,
        tokens: &NoticeTokens<'_>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        if markup.starts_with(CLICK_MACRO) {
            out.extend_from_slice(self.click.as_bytes());
            out.extend_from_slice(tokens.click.as_bytes());
            out.extend_from_slice(tokens.rest.as_bytes());
            return Some(CLICK_MACRO.len());
        }
        let (name, before, behind) = PIXELS
            .into_iter()
            .find(|(name, ..)| markup.starts_with(name))?;
        if let Some((head, tail)) = &self.pixel {
            for part in [before, head, tokens.bill, tokens.rest, tail, behind] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        Some(name.len())
    }

    /// URLs that begin with `base`, for an exchange that puts the price where `price` stands.
    pub fn new(base: &str, price: &str) -> Self {
        let part = |member: &str, word: &str, query: &str| {
            let mut head = Vec::new();
            string(&mut head, &format!("{base}/n/{word}/"));
            head.pop();
            let mut tail = Vec::new();
            string(&mut tail, query);
            let begins = [b",\"", member.as_bytes(), b"\":", &head].concat();
            (into_text(begins), into_text(tail.split_off(1)))
        };
        let paid = format!("?p={price}&c=${{AUCTION_CURRENCY}}");
        let lost = format!("?p={price}&l=${{AUCTION_LOSS}}");
        let mut click = Vec::new();
        string(&mut click, &format!("{base}/c/"));
        click.pop();
        Self {
            click: into_text(click.split_off(1)),
            pixel: None,
            parts: [
                part("nurl", "win", &paid),
                part("burl", "bill", &paid),
                part("lurl", "loss", &lost),
            ],
        }
    }
}

impl BidOut<'_> {
    /// About how many bytes it takes in a response, escapes apart.
    pub fn bytes(&self) -> usize {
        let texts = [
            self.seat,
            self.impid,
            self.line_item_json,
            self.adm_json,
            self.creative_json,
            self.dealid.unwrap_or(""),
            self.dsa_json,
        ];
        // The names of members, the punctuation, the numbers.
        texts
            .iter()
            .fold(128, |sum, text| sum.saturating_add(text.len()))
    }
}

/// §4.2.3 `mtype`: what a markup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtype {
    /// HTML.
    Banner = 1,
    /// VAST.
    Video = 2,
    /// VAST, or DAAST.
    Audio = 3,
    /// A native document.
    Native = 4,
}

/// What a bid says of its creative besides the markup.
#[derive(Debug, Clone, Copy)]
pub struct CreativeOut<'a> {
    /// What its markup is.
    pub mtype: Mtype,
    /// Advertiser domain.
    pub adomain: &'a str,
    /// Creative.
    pub crid: &'a str,
    /// Creative categories.
    pub cat: &'a [Box<str>],
    /// Taxonomy of `cat`.
    pub cattax: u32,
    /// Creative attributes.
    pub attr: &'a [u32],
    /// API frameworks that it uses.
    pub apis: &'a [u32],
    /// Width and height, where it has them.
    pub size: Option<(u32, u32)>,
    /// The app that it advertises.
    pub bundle: Option<&'a str>,
    /// A picture of it.
    pub iurl: Option<&'a str>,
    /// ISO 639-1; never beside `langb`.
    pub language: Option<&'a str>,
    /// BCP 47.
    pub langb: Option<&'a str>,
    /// Seconds.
    pub dur: Option<u32>,
    /// The protocol of its markup, where there is one.
    pub protocol: Option<u32>,
}

/// `cattax` when not said.
const CATTAX_DEFAULT: u32 = 1;

/// The members of a bid that say who bids: `adid` is the line item, `cid` its campaign. Each begins with a comma.
pub fn line_item_part(adid: &str, cid: &str) -> Box<str> {
    let mut out = Vec::new();
    out.extend_from_slice(b",\"adid\":");
    string(&mut out, adid);
    out.extend_from_slice(b",\"cid\":");
    string(&mut out, cid);
    into_text(out)
}

/// The member of a bid that says who pays (`ext.dsa`). Begins with a comma. `used`: domains that used data of the person,
/// and which.
pub fn transparency_part(
    behalf: &str,
    paid: &str,
    adrender: bool,
    used: &[(Box<str>, Box<[u32]>)],
) -> Box<str> {
    let mut out = Vec::new();
    out.extend_from_slice(b",\"ext\":{\"dsa\":{\"behalf\":");
    string(&mut out, behalf);
    out.extend_from_slice(b",\"paid\":");
    string(&mut out, paid);
    member(&mut out, "adrender", adrender.into());
    if !used.is_empty() {
        out.extend_from_slice(b",\"transparency\":");
        array(&mut out, used, |out, (domain, dsaparams)| {
            out.extend_from_slice(b"{\"domain\":");
            string(out, domain);
            out.extend_from_slice(b",\"dsaparams\":");
            array(out, dsaparams, |out, code| integer(out, *code));
            out.push(b'}');
        });
    }
    out.extend_from_slice(b"}}");
    into_text(out)
}

impl CreativeOut<'_> {
    /// The members of a bid that say what is shown. Each begins with a comma.
    pub fn part(&self) -> Box<str> {
        let mut out = Vec::new();
        out.extend_from_slice(b",\"adomain\":[");
        string(&mut out, self.adomain);
        out.extend_from_slice(b"],\"crid\":");
        string(&mut out, self.crid);
        if !self.cat.is_empty() {
            out.extend_from_slice(b",\"cat\":");
            array(&mut out, self.cat, |out, category| string(out, category));
            if self.cattax != CATTAX_DEFAULT {
                member(&mut out, "cattax", self.cattax);
            }
        }
        for (name, codes) in [("attr", self.attr), ("apis", self.apis)] {
            if !codes.is_empty() {
                name_of_member(&mut out, name);
                array(&mut out, codes, |out, code| integer(out, *code));
            }
        }
        let texts = [
            ("bundle", self.bundle),
            ("iurl", self.iurl),
            ("language", self.language),
            ("langb", self.langb),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                name_of_member(&mut out, name);
                string(&mut out, text);
            }
        }
        let numbers = [
            ("w", self.size.map(|(w, _)| w)),
            ("h", self.size.map(|(_, h)| h)),
            ("dur", self.dur),
            ("protocol", self.protocol),
            ("mtype", Some(self.mtype as u32)),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                member(&mut out, name, number);
            }
        }
        into_text(out)
    }
}

/// Writes a response with at least one bid: bids of one seat together, seats in order of their first bid.
pub fn write_bids(out: &mut Vec<u8>, request_id: &str, currency: Currency, bids: &[BidOut<'_>]) {
    out.extend_from_slice(b"{\"id\":");
    string(out, request_id);
    out.extend_from_slice(b",\"seatbid\":[");
    for (at, first) in bids.iter().enumerate() {
        if bids
            .iter()
            .take(at)
            .any(|earlier| earlier.seat == first.seat)
        {
            continue;
        }
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"bid\":[");
        for (nth, bid) in bids
            .iter()
            .skip(at)
            .filter(|bid| bid.seat == first.seat)
            .enumerate()
        {
            if nth > 0 {
                out.push(b',');
            }
            write_bid(out, bid);
        }
        out.extend_from_slice(b"],\"seat\":");
        string(out, first.seat);
        out.push(b'}');
    }
    out.push(b']');
    if currency != Currency::USD {
        out.extend_from_slice(b",\"cur\":");
        string(out, currency.as_str());
    }
    out.push(b'}');
}

fn write_bid(out: &mut Vec<u8>, bid: &BidOut<'_>) {
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(&hex(bid.id.0));
    out.extend_from_slice(b"\",\"impid\":");
    string(out, bid.impid);
    out.extend_from_slice(b",\"price\":");
    bid.price.write(out);
    out.extend_from_slice(bid.line_item_json.as_bytes());
    out.extend_from_slice(b",\"adm\":\"");
    write_adm(out, bid);
    out.push(b'"');
    out.extend_from_slice(bid.creative_json.as_bytes());
    if let Some(deal) = bid.dealid {
        out.extend_from_slice(b",\"dealid\":");
        string(out, deal);
    }
    let numbers = [
        ("slotinpod", bid.slotinpod),
        ("exp", bid.exp.map(i64::from)),
        ("wratio", bid.flex.map(|(wratio, _)| wratio)),
        ("hratio", bid.flex.map(|(_, hratio)| hratio)),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            signed_member(out, name, number);
        }
    }
    out.extend_from_slice(bid.dsa_json.as_bytes());
    if let Some((urls, tokens)) = &bid.notices {
        let begins = [tokens.win, tokens.bill, tokens.loss];
        for ((head, tail), token) in urls.parts.iter().zip(begins) {
            if !head.is_empty() {
                for part in [head, token, tokens.rest, tail] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
        }
    }
    out.push(b'}');
}

/// The pixel's macros, and what stands around its URL for each, as the insides of JSON strings.
const PIXELS: [(&str, &str, &str); 3] = [
    (
        PIXEL_HTML_MACRO,
        r#"<img src=\""#,
        r#"\" width=\"1\" height=\"1\" alt=\"\" style=\"position:absolute\">"#,
    ),
    (
        PIXEL_VAST_MACRO,
        "<Impression><![CDATA[",
        "]]></Impression>",
    ),
    (PIXEL_URL_MACRO, "", ""),
];

/// The markup, with what stands for our macros.
fn write_adm(out: &mut Vec<u8>, bid: &BidOut<'_>) {
    let mut rest = bid.adm_json;
    // A dollar sign is rare in markup.
    while let Some(at) = memchr::memchr(b'$', rest.as_bytes()) {
        let (before, own) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.extend_from_slice(before.as_bytes());
        let written = match &bid.notices {
            _ if !own.starts_with(OWN_MACRO) => None,
            Some((urls, tokens)) => urls.write_own(own, tokens, out),
            None if own.starts_with(CLICK_MACRO) => {
                out.extend_from_slice(bid.landing.as_bytes());
                Some(CLICK_MACRO.len())
            }
            None => {
                let pixel = PIXELS.into_iter().find(|(name, ..)| own.starts_with(name));
                pixel.map(|(name, ..)| name.len())
            }
        };
        let length = written.unwrap_or_else(|| {
            out.push(b'$');
            1
        });
        rest = own.get(length..).unwrap_or("");
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Writes a no-bid with its reason (`nbr`, OpenRTB 3.0's list).
pub fn write_no_bid(out: &mut Vec<u8>, request_id: &str, nbr: u16) {
    out.extend_from_slice(b"{\"id\":");
    string(out, request_id);
    member(out, "nbr", nbr.into());
    out.push(b'}');
}

fn name_of_member(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn member(out: &mut Vec<u8>, name: &str, value: u32) {
    name_of_member(out, name);
    integer(out, value);
}

/// A member of a bid: written without a text of its own on the way.
fn signed_member(out: &mut Vec<u8>, name: &str, value: i64) {
    name_of_member(out, name);
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = arrayvec::ArrayVec::<u8, 20>::new();
    let mut left = value.unsigned_abs();
    loop {
        digits.push(b'0' + (left % 10) as u8);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend(digits.iter().rev());
}

fn array<T>(out: &mut Vec<u8>, elements: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (nth, element) in elements.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

fn integer(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(value.to_string().as_bytes());
}

fn into_text(out: Vec<u8>) -> Box<str> {
    String::from_utf8(out).unwrap_or_default().into()
}

/// Sixteen digits, lower case.
fn hex(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (digit, byte) in digits
        .as_chunks_mut()
        .0
        .iter_mut()
        .zip(number.to_be_bytes())
    {
        *digit = [byte >> 4, byte & 0xf].map(|nibble| match nibble {
            0..10 => b'0' + nibble,
            _ => b'a' + (nibble - 10),
        });
    }
    digits
}

fn string(out: &mut Vec<u8>, text: &str) {
    // Gathered, not searched: without a way out early the compiler looks at sixteen bytes at once.
    let escapes = text
        .bytes()
        .map(|b| u8::from(b < 0x20 || b == b'"' || b == b'\\'));
    if escapes.fold(0, |any, one| any | one) == 0 {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        let _ = serde_json::to_writer(&mut *out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bid<'a>(seat: &'a str, impid: &'a str, creative_json: &'a str) -> BidOut<'a> {
        BidOut {
            id: BidId(0xabc),
            seat,
            impid,
            price: Price::from_micros(4_200_000).expect("a price"),
            line_item_json: r#","adid":"li","cid":"c""#,
            adm_json: "<a href=\\\"x\\\">",
            landing: "https://acme.example/",
            creative_json,
            dealid: (impid == "2").then_some("deal \"one\""),
            dsa_json: "",
            slotinpod: None,
            exp: None,
            flex: None,
            notices: None,
        }
    }

    fn creative(cat: &[Box<str>]) -> Box<str> {
        let creative = CreativeOut {
            mtype: Mtype::Banner,
            adomain: "acme.example",
            crid: "cr",
            cat,
            cattax: 7,
            attr: &[1, 16],
            apis: &[],
            size: Some((300, 250)),
            bundle: None,
            iurl: None,
            language: None,
            langb: None,
            dur: None,
            protocol: None,
        };
        creative.part()
    }

    fn written(bids: &[BidOut<'_>], id: &str, currency: Currency) -> String {
        let mut out = Vec::new();
        write_bids(&mut out, id, currency, bids);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn to_the_byte() {
        assert_eq!(*line_item_part("li", "c"), *r#","adid":"li","cid":"c""#);
        let creative = creative(&["596".into()]);
        assert_eq!(
            written(&[bid("acme", "1", &creative)], "r-1", Currency::USD),
            r#"{"id":"r-1","seatbid":[{"bid":[{"id":"0000000000000abc","impid":"1","price":4.2,"adid":"li","cid":"c","adm":"<a href=\"x\">","adomain":["acme.example"],"crid":"cr","cat":["596"],"cattax":7,"attr":[1,16],"w":300,"h":250,"mtype":1}],"seat":"acme"}]}"#
        );
        assert_eq!(&hex(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }

    #[test]
    fn seats_are_gathered_and_the_currency_said() {
        let eur = "EUR".parse().expect("a code");
        let text = written(
            &[bid("a", "1", ""), bid("b", "2", ""), bid("a", "3", "")],
            "é\u{2028}\"",
            eur,
        );
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["id"], "é\u{2028}\"");
        assert_eq!(value["cur"], "EUR");
        let seats: Vec<_> = value["seatbid"]
            .as_array()
            .expect("seats")
            .iter()
            .map(|s| (&s["seat"], s["bid"].as_array().map(Vec::len)))
            .collect();
        assert_eq!(seats, [(&"a".into(), Some(2)), (&"b".into(), Some(1))]);
        assert_eq!(value["seatbid"][1]["bid"][0]["dealid"], "deal \"one\"");
        assert!(!text.contains("null"));
    }

    /// The response types of two other crates read what we write.
    #[test]
    fn other_readers_agree() {
        let text = written(
            &[
                bid("a", "1", &creative(&["IAB1".into()])),
                bid("b", "2", &creative(&[])),
            ],
            "r",
            Currency::USD,
        );
        let theirs: ::openrtb::current::BidResponse =
            serde_json::from_str(&text).expect("openrtb reads it");
        let iab: iab::openrtb2::BidResponse = serde_json::from_str(&text).expect("iab reads it");
        let _ = (theirs, iab);
    }

    #[test]
    fn a_no_bid_says_why() {
        let mut out = Vec::new();
        write_no_bid(&mut out, "r", 2);
        assert_eq!(out, br#"{"id":"r","nbr":2}"#);
    }
}
