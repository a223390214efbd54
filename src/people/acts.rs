//! What may be done about people, and why it may be refused.

use super::Known;
use crate::ids::UserKey;

/// What is to be done, by keys and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Update(Update),
    Link(Link),
    Unlink {
        key: UserKey,
    },
    /// Of these keys nothing is known any more.
    Erase {
        keys: Vec<UserKey>,
    },
    /// Whoever has one of these does not want to be known.
    OptOut {
        keys: Vec<UserKey>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) key: UserKey,
    /// Segments, each once: into it, or out of it.
    pub(super) changes: Vec<(u32, bool)>,
    /// Datasets that are set as a whole: the id is in no other segment of theirs than those it comes into here.
    pub(super) sets: Vec<u32>,
    /// Seconds.
    pub(super) ttl: u32,
    /// The writer, and his number.
    pub(super) order: Option<(u32, u64)>,
    /// It only takes people out of reach: it is still taken when others are refused.
    pub(super) suppresses: bool,
}

impl Update {
    /// The numbers of the datasets that it is about; one of them may come several times.
    pub(super) fn datasets(&self, known: &Known) -> impl Iterator<Item = u32> {
        let changed = self.changes.iter();
        let changed = changed.map(|(number, _)| known.dataset_of(*number));
        changed.chain(self.sets.iter().copied())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) key: UserKey,
    pub(super) source: u32,
    pub(super) person: UserKey,
    /// Seconds.
    pub(super) ttl: u32,
}

/// Why a row is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The id was erased.
    #[error("this id was erased, and nothing is held of it any more")]
    Erased,
    /// The writer is further.
    #[error(
        "too late: this writer had given higher sequence numbers longer ago than people.order_window; if its numbers began anew, give it another name"
    )]
    Late,
    /// There are as many as may be.
    #[error(
        "too many changes are held of this id (64); upload a version that has them, with its as_of"
    )]
    TooManyChanges,
    /// There is no room.
    #[error(
        "there is no room for updates and links of more ids: send this again when some are over, or covered by versions with an as_of, or raise people.ids"
    )]
    Full,
    /// A person has so many ids.
    #[error("this person has as many ids as a person may (limits.ids_per_person)")]
    PersonFull,
    /// A person has so many ids of that source.
    #[error("this person has as many ids of this source as a person may (limits.ids_per_source)")]
    SourceFull,
}
