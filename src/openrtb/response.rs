//! Writes a bid response (§4.2), straight into the connection's buffer.
//!
//! Only what the specification's types say, no nulls; prices print as the shortest decimal that reads back as the
//! same micros. Markup and the other texts of a creative come escaped from the book, once per campaign upload and not
//! once per bid.

use std::io::Write as _;

use super::request::Size;
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
    /// The line item.
    pub adid: &'a str,
    /// Markup, escaped for JSON, without the quotes.
    pub adm_json: &'a str,
    /// Advertiser domain.
    pub adomain: &'a str,
    /// Campaign.
    pub cid: &'a str,
    /// Creative.
    pub crid: &'a str,
    /// Creative categories.
    pub cat: &'a [Box<str>],
    /// Taxonomy of `cat`.
    pub cattax: u32,
    /// Creative attributes.
    pub attr: &'a [u32],
    /// Size of the creative.
    pub size: Size,
    /// The deal it answers, if any.
    pub dealid: Option<&'a str>,
}

/// §4.2.4 `mtype`: banner.
const MTYPE_BANNER: u8 = 1;
/// `cattax` when not said.
const CATTAX_DEFAULT: u32 = 1;

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
    print(
        out,
        format_args!("{{\"id\":\"{:016x}\",\"impid\":", bid.id.0),
    );
    string(out, bid.impid);
    print(out, format_args!(",\"price\":{},\"adid\":", bid.price));
    string(out, bid.adid);
    out.extend_from_slice(b",\"adm\":\"");
    out.extend_from_slice(bid.adm_json.as_bytes());
    out.extend_from_slice(b"\",\"adomain\":[");
    string(out, bid.adomain);
    out.extend_from_slice(b"],\"cid\":");
    string(out, bid.cid);
    out.extend_from_slice(b",\"crid\":");
    string(out, bid.crid);
    if !bid.cat.is_empty() {
        out.extend_from_slice(b",\"cat\":[");
        for (nth, category) in bid.cat.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            string(out, category);
        }
        out.push(b']');
        if bid.cattax != CATTAX_DEFAULT {
            print(out, format_args!(",\"cattax\":{}", bid.cattax));
        }
    }
    if !bid.attr.is_empty() {
        out.extend_from_slice(b",\"attr\":[");
        for (nth, attribute) in bid.attr.iter().enumerate() {
            print(
                out,
                format_args!("{}{attribute}", if nth > 0 { "," } else { "" }),
            );
        }
        out.push(b']');
    }
    if let Some(deal) = bid.dealid {
        out.extend_from_slice(b",\"dealid\":");
        string(out, deal);
    }
    print(
        out,
        format_args!(
            ",\"w\":{},\"h\":{},\"mtype\":{MTYPE_BANNER}}}",
            bid.size.w, bid.size.h
        ),
    );
}

/// Writes a no-bid with its reason (`nbr`, OpenRTB 3.0's list).
pub fn write_no_bid(out: &mut Vec<u8>, request_id: &str, nbr: u16) {
    out.extend_from_slice(b"{\"id\":");
    string(out, request_id);
    print(out, format_args!(",\"nbr\":{nbr}}}"));
}

fn print(out: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = out.write_fmt(what);
}

fn string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
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

    fn bid<'a>(seat: &'a str, impid: &'a str, cat: &'a [Box<str>]) -> BidOut<'a> {
        BidOut {
            id: BidId(0xabc),
            seat,
            impid,
            price: Price::from_micros(4_200_000).expect("a price"),
            adid: "li",
            adm_json: "<a href=\\\"x\\\">",
            adomain: "acme.example",
            cid: "c",
            crid: "cr",
            cat,
            cattax: 7,
            attr: &[1, 16],
            size: Size { w: 300, h: 250 },
            dealid: (impid == "2").then_some("deal \"one\""),
        }
    }

    fn written(bids: &[BidOut<'_>], id: &str, currency: Currency) -> String {
        let mut out = Vec::new();
        write_bids(&mut out, id, currency, bids);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn to_the_byte() {
        let cat = ["596".into()];
        assert_eq!(
            written(&[bid("acme", "1", &cat)], "r-1", Currency::USD),
            r#"{"id":"r-1","seatbid":[{"bid":[{"id":"0000000000000abc","impid":"1","price":4.2,"adid":"li","adm":"<a href=\"x\">","adomain":["acme.example"],"cid":"c","crid":"cr","cat":["596"],"cattax":7,"attr":[1,16],"w":300,"h":250,"mtype":1}],"seat":"acme"}]}"#
        );
    }

    #[test]
    fn seats_are_gathered_and_the_currency_said() {
        let eur = "EUR".parse().expect("a code");
        let text = written(
            &[bid("a", "1", &[]), bid("b", "2", &[]), bid("a", "3", &[])],
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
        let cat = ["IAB1".into()];
        let text = written(
            &[bid("a", "1", &cat), bid("b", "2", &[])],
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
