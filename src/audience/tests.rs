//! The whole way, rows to lookups, against an oracle too simple to be wrong; and files that must be refused.

mod damage;
mod delta_rows;
mod every_flip;
mod filters;
mod graphs;
mod layered;
mod lookups;
mod mapped;
mod measure;
mod row_reports;

use crate::clock::Timestamp;
use crate::ids::{Keyer, Kind, SecretKey, UserKey};

use super::{Audience, Builder, RowFormat, RowReport, VersionMeta};

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([7; 32]))
}

fn key(id: &str) -> UserKey {
    keyer().user_key("ifa", id).expect("a good id")
}

fn meta(version: u64) -> VersionMeta {
    VersionMeta {
        kind: Kind::Audience,
        dataset: "crm".parse().expect("a name"),
        version,
        base: None,
        as_of: None,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn build(meta: VersionMeta, format: &RowFormat, input: &[u8]) -> (Vec<u8>, RowReport) {
    let mut builder = Builder::new(meta, keyer()).expect("an audience");
    builder
        .read_rows(format, input, &mut |_| {})
        .expect("readable");
    let mut file = Vec::new();
    let report = builder.finish(&mut file).expect("some good row");
    (file, report)
}

fn build_csv(rows: &str) -> (Vec<u8>, RowReport) {
    build(
        meta(1),
        &RowFormat::Csv,
        format!("source,id,segments,expires\n{rows}").as_bytes(),
    )
}

fn open(file: &[u8]) -> Audience {
    Audience::from_bytes(file).expect("a sound file")
}

/// The names of the segments an id is in, sorted; `None` where the id is not in the version.
fn look_up(audience: &Audience, key: UserKey, now: Timestamp) -> Option<Vec<String>> {
    let names: Vec<&str> = audience.segments().collect();
    let mut found = Vec::new();
    match audience.lookup(key, now, |index| {
        found.push(names[index as usize].to_owned());
    }) {
        super::Lookup::Found => {
            found.sort();
            Some(found)
        }
        super::Lookup::Absent => {
            assert_eq!(found.len(), 0);
            None
        }
        super::Lookup::Damaged => panic!("a sound file answers"),
    }
}
