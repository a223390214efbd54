//! Whose id an id is, and who does not want to be known: links, erasure and opt-out.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{IdsOf, Linked, Register};
use crate::ids::UserKey;
use crate::people::acts::{Link, Rejection};

impl Register {
    pub(super) fn check_link(
        &self,
        link: &Link,
        ids_of: IdsOf<'_>,
        now: i64,
    ) -> Result<(), Rejection> {
        if self.standing(link.key).erased || self.standing(link.person).erased {
            return Err(Rejection::Erased);
        }
        let mut ids = ids_of(link.person);
        ids.retain(|(id, _)| {
            self.linked(*id, now)
                .is_none_or(|of| of.person == link.person)
        });
        let live = self.held(link.person).map(|held| held.members.as_slice());
        for id in live.unwrap_or_default() {
            let linked = self.linked(*id, now);
            if let Some(linked) = linked.filter(|_| !ids.iter().any(|(known, _)| known == id)) {
                ids.push((*id, linked.source));
            }
        }
        if ids.iter().any(|(id, _)| *id == link.key) {
            return Ok(());
        }
        if ids.len() >= self.room.ids_per_person {
            return Err(Rejection::PersonFull);
        }
        let same = ids.iter().filter(|(_, source)| *source == link.source);
        if same.count() >= self.room.ids_per_source {
            return Err(Rejection::SourceFull);
        }
        self.has_room(true, false)
    }

    /// The link of an id that is not over.
    pub(in crate::people) fn linked(&self, id: UserKey, now: i64) -> Option<Linked> {
        let link = self.held(id)?.link?;
        (i64::from(link.expires) > now).then_some(link)
    }

    /// Who opts out by a link that was just made: all who are one person now, where one of them did, or she herself. For good: the
    /// link may end.
    pub(in crate::people) fn reached(
        &self,
        link: &Link,
        ids_of: IdsOf<'_>,
        now: i64,
    ) -> Vec<UserKey> {
        let is_hers = |of: Linked| of.person == link.person;
        let mut all = vec![link.key, link.person];
        // Members whose link is over stand there until they are swept.
        let live = self.held(link.person).map(|held| held.members.as_slice());
        let lasting = |id: &&UserKey| self.linked(**id, now).is_some_and(is_hers);
        all.extend(live.unwrap_or_default().iter().filter(lasting));
        // What a version says holds where no live link says otherwise.
        let by_version = ids_of(link.person).into_iter().map(|(id, _)| id);
        all.extend(by_version.filter(|id| self.linked(*id, now).is_none_or(is_hers)));
        let is_joined = self.linked(link.key, now).is_some_and(is_hers);
        let opted_out = |key: &UserKey| self.standing(*key).opted_out;
        if !is_joined || !all.iter().any(opted_out) {
            return Vec::new();
        }
        all.retain(|key| !opted_out(key));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Links an id, unless a later link of it is known.
    pub(super) fn link(&mut self, key: UserKey, linked: Linked) {
        if self.standing(key).erased || self.standing(linked.person).erased {
            return;
        }
        let before = self.held(key).and_then(|held| held.link);
        if before.is_some_and(|before| before.rank >= linked.rank) {
            return;
        }
        if before.is_some_and(|before| before.person != linked.person) {
            self.unlink(key);
        }
        let is_fresh = self.held(key).is_none_or(|held| held.link.is_none());
        self.counts.links = self.counts.links.saturating_add(usize::from(is_fresh));
        if let Some(held) = self.entry(key) {
            held.link = Some(linked);
        }
        if let Some(person) = self.entry(linked.person)
            && !person.members.contains(&key)
        {
            person.members.push(key);
        }
    }

    pub(super) fn unlink(&mut self, key: UserKey) {
        let Some(link) = self.entry(key).and_then(|held| held.link.take()) else {
            return;
        };
        self.counts.links = self.counts.links.saturating_sub(1);
        if let Some(person) = self.entry(link.person) {
            person.members.retain(|member| *member != key);
        }
    }

    pub(super) fn erase(&mut self, key: UserKey) {
        self.unlink(key);
        let members = self
            .entry(key)
            .map(|held| std::mem::take(&mut held.members));
        for member in members.unwrap_or_default() {
            self.unlink(member);
        }
        let Some(held) = self.entry(key) else { return };
        let opinions = std::mem::take(&mut held.opinions);
        let is_fresh = !std::mem::replace(&mut held.standing.erased, true);
        self.counts.changes = self.counts.changes.saturating_sub(opinions.len());
        self.counts.erased = self.counts.erased.saturating_add(usize::from(is_fresh));
    }

    pub(super) fn opt_out(&mut self, key: UserKey) {
        let Some(held) = self.entry(key) else { return };
        let is_fresh = !std::mem::replace(&mut held.standing.opted_out, true);
        self.counts.opted_out = self.counts.opted_out.saturating_add(usize::from(is_fresh));
    }
}
