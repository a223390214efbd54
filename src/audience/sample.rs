//! What is remembered of rows while they are read, so that guards can hold a new version against the live one.
//!
//! A version file holds no ids, so two of them cannot be compared person by person. While rows are read the user keys
//! are there: those of the [`PEOPLE_MAX`] smallest are kept with their memberships. User keys are keyed hashes, so the
//! smallest are as good as drawn by lot, and the same whatever the order of the rows. They stay in memory and are
//! dropped with the upload.
//!
//! Invariant: what is kept are all memberships of each person kept, and the people are those with the smallest keys,
//! as many as there is room for. Cost: one comparison a row; 3 MB for people in twelve segments, at most 40 MB.

use std::collections::BTreeMap;

use crate::ids::{Name, UserKey, trimmed};

/// How many people are kept: any share is then known to within 0.03, but for one time in ten thousand.
pub const PEOPLE_MAX: usize = 4096;
/// Memberships kept in all. People in more than 128 segments each leave room for fewer people.
const MEMBERSHIPS_MAX: usize = 1 << 19;
/// Sources told apart; in a file whose columns are swapped every row has another one.
const SOURCES_MAX: usize = 256;
/// Stands for a membership that never expires, and is later than all that do.
const NEVER: i64 = i64::MAX;

/// What is collected while rows are read.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// The second at which each membership expires, by person, then segment.
    memberships: BTreeMap<(UserKey, u32), i64>,
    people: usize,
    /// Nobody from this key on is kept.
    end: Option<UserKey>,
    sources: Sources,
    last_source: usize,
    last_expiry: Option<i64>,
}

impl Sample {
    /// Takes note of a good row's person.
    pub(super) fn person(&mut self, key: UserKey, segments: &[u16], expires: Option<i64>) {
        let expires = expires.unwrap_or(NEVER);
        self.last_expiry = self.last_expiry.max(Some(expires));
        if self.end.is_none_or(|end| key < end) {
            self.keep(key, segments, expires);
        }
    }

    fn keep(&mut self, key: UserKey, segments: &[u16], expires: i64) {
        let of_person = (key, 0)..=(key, u32::MAX);
        if self.memberships.range(of_person).next().is_none() {
            self.people += 1;
        }
        for &segment in segments {
            let kept = self.memberships.entry((key, segment.into()));
            let kept = kept.or_insert(expires);
            *kept = expires.max(*kept);
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.people > PEOPLE_MAX || self.memberships.len() > MEMBERSHIPS_MAX {
            let Some((&(last, _), _)) = self.memberships.last_key_value() else {
                return;
            };
            self.memberships.split_off(&(last, 0));
            self.people -= 1;
            self.end = Some(last);
        }
    }

    /// Takes note of a good row's source.
    pub(super) fn source(&mut self, source: &str) {
        let source = trimmed(source);
        let is = |(name, _): &(String, u64)| name.eq_ignore_ascii_case(source);
        let named = &mut self.sources.named;
        // Rows of one source mostly come together.
        let known = match named.get(self.last_source) {
            Some(last) if is(last) => Some(self.last_source),
            _ => named.iter().position(is),
        };
        if let Some(at) = known {
            self.last_source = at;
            if let Some((_, rows)) = named.get_mut(at) {
                *rows += 1;
            }
        } else if named.len() < SOURCES_MAX {
            self.last_source = named.len();
            named.push((source.to_ascii_lowercase(), 1));
        } else {
            self.sources.others += 1;
        }
    }

    /// Takes in what another one saw of the same upload. Each keeps at least those of its people that both together keep,
    /// so nothing of them is missing.
    pub(super) fn merge(&mut self, other: Self) {
        self.last_expiry = self.last_expiry.max(other.last_expiry);
        self.end = match (self.end, other.end) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        for (membership, expires) in other.memberships {
            let kept = self.memberships.entry(membership).or_insert(expires);
            *kept = expires.max(*kept);
        }
        if let Some(end) = self.end {
            self.memberships.split_off(&(end, 0));
        }
        self.people = 0;
        let mut before = None;
        for (key, _) in self.memberships.keys() {
            self.people += usize::from(before != Some(*key));
            before = Some(*key);
        }
        self.trim();
        for (source, rows) in other.sources.named {
            self.add_source(source, rows);
        }
        self.sources.others += other.sources.others;
    }

    fn add_source(&mut self, source: String, rows: u64) {
        let named = &mut self.sources.named;
        if let Some((_, known)) = named.iter_mut().find(|(name, _)| *name == source) {
            *known += rows;
        } else if named.len() < SOURCES_MAX {
            named.push((source, rows));
        } else {
            self.sources.others += rows;
        }
    }

    /// What was seen, with segments by their place in `segments`.
    pub(super) fn into_seen(self, segments: &[Name]) -> Seen {
        let mut people: Vec<SeenPerson> = Vec::with_capacity(self.people);
        for ((key, segment), expires) in self.memberships {
            match people.last_mut() {
                Some(person) if person.key == key => person.memberships.push((segment, expires)),
                _ => people.push(SeenPerson {
                    key,
                    memberships: vec![(segment, expires)],
                }),
            }
        }
        Seen {
            people,
            segments: segments.to_vec(),
            sources: self.sources,
            last_expiry: self.last_expiry,
        }
    }
}

/// What was seen of the rows of an upload.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Some of the people, drawn as by lot: all of them where there are few.
    pub people: Vec<SeenPerson>,
    /// The names of the segments.
    pub segments: Vec<Name>,
    /// Where the ids are from.
    pub sources: Sources,
    /// The latest second at which a membership expires, [`i64::MAX`] where one never does; `None` without rows.
    pub last_expiry: Option<i64>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct SeenPerson {
    /// Who.
    pub key: UserKey,
    /// Each segment, by its place among the names, and the second at which the membership is over.
    pub memberships: Vec<(u32, i64)>,
}

/// How many good rows each source has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The first few hundred sources, in lower case. Where columns are swapped these are ids: not to be shown or
    /// stored unless many rows share one.
    pub named: Vec<(String, u64)>,
    /// Rows of all others.
    pub others: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<Name> {
        let name = |n| format!("s{n}").parse().expect("a name");
        (0..count).map(name).collect()
    }

    fn seen(rows: &[(u128, u16, Option<i64>)]) -> Seen {
        let mut sample = Sample::default();
        for &(key, segment, expires) in rows {
            sample.person(UserKey(key), &[segment], expires);
        }
        sample.into_seen(&names(300))
    }

    fn kept(seen: &Seen) -> Vec<(UserKey, Vec<(u32, i64)>)> {
        let people = seen.people.iter();
        people.map(|p| (p.key, p.memberships.clone())).collect()
    }

    #[test]
    fn the_smallest_keys_are_kept_with_all_that_is_theirs_in_any_order() {
        // Twice as many people as are kept, three rows each, far apart.
        let people = 2 * PEOPLE_MAX as u128;
        let mut rows: Vec<(u128, u16, Option<i64>)> = (0..3 * people)
            .map(|n| (n * 7919 % people, (n / people) as u16, None))
            .collect();
        let forward = seen(&rows);
        rows.reverse();
        let expected: Vec<_> = (0..PEOPLE_MAX as u128)
            .map(|key| (UserKey(key), vec![(0, NEVER), (1, NEVER), (2, NEVER)]))
            .collect();
        assert_eq!(kept(&forward), expected);
        assert_eq!(kept(&seen(&rows)), expected);
    }

    #[test]
    fn people_in_many_segments_leave_room_for_fewer() {
        let all: Vec<u16> = (0..1000).collect();
        let mut sample = Sample::default();
        for key in (0..PEOPLE_MAX as u128).rev() {
            sample.person(UserKey(key), &all, None);
        }
        let seen = sample.into_seen(&names(1000));
        assert_eq!(seen.people.len(), MEMBERSHIPS_MAX / 1000);
        assert!(seen.people.iter().all(|p| p.memberships.len() == 1000));
        assert_eq!(seen.people[0].key, UserKey(0));
    }

    #[test]
    fn a_membership_named_twice_has_its_latest_expiry() {
        let rows = [
            (1, 5, Some(10)),
            (1, 5, Some(30)),
            (1, 5, Some(20)),
            (2, 5, None),
        ];
        let seen = seen(&rows);
        assert_eq!(seen.people[0].memberships, [(5, 30)]);
        assert_eq!(seen.last_expiry, Some(NEVER));
        assert_eq!(self::seen(&rows[..3]).last_expiry, Some(30));
        assert_eq!(self::seen(&[]).last_expiry, None);
    }

    #[test]
    fn sources_are_told_apart_as_ids_are_and_bounded() {
        let mut sample = Sample::default();
        for source in ["ifa", " IFA ", "uidapi.com", "UidAPI.com", "ifa"] {
            sample.source(source);
        }
        let expected = [("ifa".to_owned(), 3), ("uidapi.com".to_owned(), 2)];
        assert_eq!(sample.sources.named, expected);
        for n in 0..1000 {
            sample.source(&format!("id-{n}"));
        }
        assert_eq!(sample.sources.named.len(), SOURCES_MAX);
        assert_eq!(sample.sources.others, 1000 - (SOURCES_MAX as u64 - 2));
    }

    #[test]
    fn what_several_saw_is_what_one_would_have_seen() {
        let people = 3 * PEOPLE_MAX as u128;
        let rows: Vec<(u128, u16, Option<i64>)> = (0..4 * people)
            .map(|n| (n * 7919 % people, (n % 5) as u16, Some((n % 7) as i64)))
            .collect();
        let mut several = [Sample::default(), Sample::default(), Sample::default()];
        for (n, &(key, segment, expires)) in rows.iter().enumerate() {
            let one = &mut several[n * n % 3];
            one.person(UserKey(key), &[segment], expires);
            one.source(if n % 2 == 0 { "ifa" } else { "email" });
        }
        let mut merged = Sample::default();
        several.into_iter().for_each(|one| merged.merge(one));
        let merged = merged.into_seen(&names(300));
        assert_eq!(kept(&merged), kept(&seen(&rows)));
        assert_eq!(merged.last_expiry, Some(6));
        let sources: u64 = merged.sources.named.iter().map(|(_, rows)| rows).sum();
        assert_eq!(
            (merged.sources.named.len(), sources),
            (2, rows.len() as u64)
        );
    }

    proptest! {
        #[test]
        fn order_leaves_no_trace(
            rows in proptest::collection::vec((0u128..50, 0u16..8, proptest::option::of(0i64..100)), 0..200),
            shift in 0usize..200,
        ) {
            let mut turned = rows.clone();
            turned.rotate_left(shift % rows.len().max(1));
            prop_assert_eq!(kept(&seen(&rows)), kept(&seen(&turned)));
        }
    }
}
