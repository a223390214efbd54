//! One request in other spellings: what a rewriting changes is how it is said, never what.

use serde_json::{Map, Value};

/// Another spelling of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewrite {
    /// Keys in the opposite order.
    Reversed,
    /// White space wherever it may stand, a byte order mark before it.
    Spaced,
    /// Every object has fields more, before and behind its own, that nobody reads.
    UnknownFields,
    /// Every character of keys and strings as an escape.
    Escaped,
    /// `1` as `1.0`, where a number is read.
    Pointed,
    /// `1` as `"1"`, where a number is read.
    Quoted,
    /// `1` as `true`, where a flag is read.
    Booleans,
    /// Every empty object and list, and every empty string, as `null`.
    Nulls,
}

impl Rewrite {
    pub(crate) const ALL: [Self; 8] = [
        Self::Reversed,
        Self::Spaced,
        Self::UnknownFields,
        Self::Escaped,
        Self::Pointed,
        Self::Quoted,
        Self::Booleans,
        Self::Nulls,
    ];

    /// The request, written so.
    pub(crate) fn of(self, tree: &Value) -> String {
        let mut out = String::new();
        if self == Self::Spaced {
            out.push('\u{feff}');
        }
        self.write(tree, "", &mut out);
        out
    }

    fn write(self, value: &Value, path: &str, out: &mut String) {
        let is_empty = match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        self.space(out);
        match value {
            _ if is_empty && self == Self::Nulls && MAY_BE_NULL.contains(&path) => {
                out.push_str("null")
            }
            Value::Object(fields) => self.object(fields, path, out),
            Value::Array(list) => {
                out.push('[');
                for (place, element) in list.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    self.write(element, path, out);
                }
                out.push(']');
            }
            Value::String(text) => self.string(text, out),
            Value::Number(number) => match self {
                Self::Pointed if is_number(path) && !number.is_f64() => {
                    out.push_str(&format!("{number}.0"));
                }
                Self::Quoted if is_number(path) => out.push_str(&format!("\"{number}\"")),
                Self::Booleans if FLAGS.contains(&path) && number.as_u64() == Some(0) => {
                    out.push_str("false")
                }
                Self::Booleans if FLAGS.contains(&path) && number.as_u64() == Some(1) => {
                    out.push_str("true")
                }
                _ => out.push_str(&number.to_string()),
            },
            Value::Bool(_) | Value::Null => out.push_str(&value.to_string()),
        }
        self.space(out);
    }

    fn object(self, fields: &Map<String, Value>, path: &str, out: &mut String) {
        const UNKNOWN: [&str; 3] = [
            r#""zz":{"id":"zz","imp":[{"id":"zz"}],"gdpr":1,"coppa":1,"bcat":["IAB3"]}"#,
            r#""ID":7,"Coppa":"\ud800","a key that is longer than any that is known":[[],{"":1e999}]"#,
            r#""zz":null"#,
        ];
        let mut entries: Vec<(&String, &Value)> = fields.iter().collect();
        if self == Self::Reversed {
            entries.reverse();
        }
        out.push('{');
        let adds = self == Self::UnknownFields;
        if adds {
            out.push_str(UNKNOWN.first().unwrap_or(&""));
        }
        for (place, (key, value)) in entries.into_iter().enumerate() {
            if place > 0 || adds {
                out.push(',');
            }
            self.space(out);
            self.string(key, out);
            self.space(out);
            out.push(':');
            let below = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            self.write(value, &below, out);
        }
        if adds {
            out.push(',');
            out.push_str(&UNKNOWN[1..].join(","));
        }
        self.space(out);
        out.push('}');
    }

    fn string(self, text: &str, out: &mut String) {
        if self != Self::Escaped {
            out.push_str(&Value::from(text).to_string());
            return;
        }
        out.push('"');
        let mut units = [0; 2];
        for character in text.chars() {
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
        out.push('"');
    }

    fn space(self, out: &mut String) {
        if self == Self::Spaced {
            out.push_str(" \r\n\t");
        }
    }
}

fn is_number(path: &str) -> bool {
    FLAGS.contains(&path) || NUMBERS.contains(&path)
}

/// Where a 0/1 flag is read.
const FLAGS: [&str; 15] = [
    "test",
    "imp.secure",
    "imp.instl",
    "imp.rwdd",
    "imp.pmp.private_auction",
    "device.lmt",
    "device.dnt",
    "regs.coppa",
    "regs.gdpr",
    "regs.gpc",
    "regs.ext.gdpr",
    "regs.ext.gpc",
    "imp.video.skip",
    "source.schain.complete",
    "source.ext.schain.complete",
];

/// Where any other number is read.
const NUMBERS: [&str; 59] = [
    "at",
    "tmax",
    "cattax",
    "imp.bidfloor",
    "imp.exp",
    "imp.banner.w",
    "imp.banner.h",
    "imp.banner.pos",
    "imp.banner.battr",
    "imp.banner.btype",
    "imp.banner.api",
    "imp.banner.format.w",
    "imp.banner.format.h",
    "imp.banner.format.wratio",
    "imp.banner.format.hratio",
    "imp.banner.format.wmin",
    "imp.video.w",
    "imp.video.h",
    "imp.video.pos",
    "imp.video.minduration",
    "imp.video.maxduration",
    "imp.video.linearity",
    "imp.video.protocols",
    "imp.video.api",
    "imp.video.battr",
    "imp.video.maxbitrate",
    "imp.video.mincpmpersec",
    "imp.video.durfloors.mindur",
    "imp.video.durfloors.maxdur",
    "imp.video.durfloors.bidfloor",
    "imp.audio.minduration",
    "imp.audio.maxduration",
    "imp.audio.rqddurs",
    "imp.audio.poddur",
    "imp.audio.maxseq",
    "imp.audio.slotinpod",
    "imp.audio.protocols",
    "imp.native.request.assets.id",
    "imp.native.request.assets.required",
    "imp.native.request.assets.title.len",
    "imp.native.request.assets.img.type",
    "imp.native.request.assets.img.wmin",
    "imp.native.request.assets.data.type",
    "imp.native.request.assets.data.len",
    "imp.pmp.deals.bidfloor",
    "imp.pmp.deals.at",
    "device.devicetype",
    "device.connectiontype",
    "user.yob",
    "user.data.ext.segtax",
    "user.eids.mm",
    "user.eids.uids.atype",
    "user.ext.eids.mm",
    "user.ext.eids.uids.atype",
    "regs.gpp_sid",
    "regs.ext.gpp_sid",
    "regs.dsa.dsarequired",
    "regs.ext.dsa.dsarequired",
    "imp.qty.multiplier",
];

/// Where what is empty says no more than `null`.
const MAY_BE_NULL: [&str; 24] = [
    "cur",
    "wseat",
    "bseat",
    "bcat",
    "acat",
    "badv",
    "bapp",
    "wlang",
    "wlangb",
    "user.id",
    "user.buyeruid",
    "user.consent",
    "user.ext.consent",
    "user.eids",
    "user.ext.eids",
    "user.ext",
    "regs.ext",
    "regs.gpp",
    "regs.us_privacy",
    "regs.ext.us_privacy",
    "device.ifa",
    "device.geo",
    "imp.bidfloorcur",
    "imp.pmp.deals",
];
