//! The request bodies that are measured: of 1.5 and of 2.8 KB, four ids each, from people who are wanted or not.

use std::fmt::Write as _;

use crate::scene::{CATEGORIES, CATEGORY_UNWANTED, Dice, SOURCES, id, wanted};

/// How large, and so how much is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// About 1.5 KB: one imp.
    Light,
    /// About 2.8 KB: two imps, deals, long block lists, what SSPs add.
    Heavy,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// People in segments that line items want.
    Wanted,
    /// People whom we know and nobody wants.
    Unwanted,
    /// So many in a hundred wanted, the rest not.
    Mixed(usize),
}

/// Bodies for a closed loop, each of another person. Their `tmax` is so long that none is late.
pub fn bodies(weight: Weight, who: Who, people: usize, count: usize) -> Vec<String> {
    let mut dice = Dice::new(3);
    let wanted = wanted(people);
    (0..count)
        .map(|n| {
            let is_wanted = match who {
                Who::Wanted => true,
                Who::Unwanted => false,
                Who::Mixed(share) => dice.below(100) < share,
            };
            let person = if is_wanted {
                dice.below(wanted)
            } else {
                wanted + dice.below(people - wanted)
            };
            let category = if is_wanted {
                CATEGORIES[dice.below(CATEGORIES.len())]
            } else {
                CATEGORY_UNWANTED
            };
            body(weight, person, category, n, &mut dice)
        })
        .collect()
}

fn body(weight: Weight, person: usize, category: &str, n: usize, dice: &mut Dice) -> String {
    let heavy = weight == Weight::Heavy;
    let ids = SOURCES.map(|source| id(source, person));
    let mut out = format!(
        r#"{{"id":"{:016x}-{n:08x}","at":1,"tmax":999,"cur":["USD"],"test":0,"#,
        dice.below(1 << 40)
    );
    out.push_str(r#""imp":["#);
    for imp in 1..=if heavy { 2 } else { 1 } {
        let comma = if imp > 1 { "," } else { "" };
        let _ = write!(
            out,
            r#"{comma}{{"id":"{imp}","tagid":"slot-{}","bidfloor":0.{:02},"bidfloorcur":"USD","secure":1,"instl":0,
"banner":{{"w":300,"h":250,"pos":1,"battr":[1,2,3,8,9,10,13,14],"api":[3,5,6],"format":[{{"w":300,"h":250}},{{"w":728,"h":90}},{{"w":320,"h":50}}]}}"#,
            dice.below(10_000),
            dice.below(80)
        );
        if heavy {
            let _ = write!(
                out,
                r#","pmp":{{"private_auction":0,"deals":[{{"id":"deal-{}","bidfloor":1.5,"bidfloorcur":"USD","at":1}},{{"id":"other-{}","bidfloor":3.25,"at":3}}]}},
"ext":{{"gpid":"/1234/news.example/section{}#slot{imp}","data":{{"pbadslot":"/1234/news.example/section"}},"prebid":{{"bidder":{{"x":{{"placementId":{}}}}}}},"viewability":0.{:02}}}"#,
                dice.below(50),
                dice.below(1000),
                dice.below(40),
                dice.below(100_000),
                dice.below(100)
            );
        }
        out.push('}');
    }
    out.push(']');
    let _ = write!(
        out,
        r#","site":{{"id":"s{}","domain":"news{}.example","page":"https:\/\/news{}.example\/2026\/11\/story-{}.html","cat":["{category}","{category}-2"],
"publisher":{{"id":"p{}","name":"News Group {}"}},"ext":{{"amp":0}}}}"#,
        dice.below(500),
        dice.below(500),
        dice.below(500),
        dice.below(100_000),
        dice.below(100),
        dice.below(100)
    );
    let _ = write!(
        out,
        r#","device":{{"ua":"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
"ip":"203.0.113.{}","devicetype":4,"make":"Apple","model":"iPhone","os":"iOS","osv":"18.1","language":"en","connectiontype":2,"dnt":0,"lmt":0,"js":1,"w":390,"h":844,
"ifa":"{}","geo":{{"country":"USA","region":"CA","city":"Example City","zip":"90001","type":2}}}}"#,
        dice.below(256),
        ids[1]
    );
    let _ = write!(
        out,
        r#","user":{{"id":"x{:012x}","buyeruid":"{}","yob":1984,"gender":"F","eids":[{{"source":"uidapi.com","uids":[{{"id":"{}","atype":3}}]}},{{"source":"crm.example","uids":[{{"id":"{}","atype":1}}]}}]"#,
        dice.below(1 << 40),
        ids[0],
        ids[2],
        ids[3]
    );
    if heavy {
        out.push_str(r#","data":[{"id":"dmp.example","name":"dmp","segment":[{"id":"4711","value":"1"},{"id":"4712","value":"1"},{"id":"4713","value":"1"}],"ext":{"segtax":4}}]"#);
    }
    out.push('}');
    out.push_str(r#","regs":{"coppa":0,"ext":{"gdpr":0,"us_privacy":"1YNN"}}"#);
    out.push_str(r#","source":{"tid":"9c3ad1f0-4f42-4a0c-a7de-2f9c1e4d10ab","ext":{"schain":{"ver":"1.0","complete":1,"nodes":[{"asi":"ssp.example","sid":"1001","hp":1}]}}}"#);
    if heavy {
        out.push_str(
            r#","bcat":["IAB25","IAB26","IAB7-39","IAB8-5","IAB8-18","IAB9-9","IAB14-1","IAB24"]"#,
        );
        out.push_str(r#","badv":["#);
        for n in 0..12 {
            let comma = if n > 0 { "," } else { "" };
            let _ = write!(out, r#"{comma}"rival{n}.example""#);
        }
        out.push(']');
    }
    out.push('}');
    out
}
