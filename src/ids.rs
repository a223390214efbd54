//! Names and keys: who is who, in newtypes, each checked once where it enters.
//!
//! A person's id never travels far inside Kith. At the edge it is put in [normal form](Keyer::user_key) and
//! hashed under the deployment's [`SecretKey`] into a 128-bit [`UserKey`]; everything behind the edge
//! (lookups, overlay, caps) speaks of that key only, and it has no readable `Debug`.
//!
//! Cost: one SipHash-2-4-128 of `source ++ 0xff ++ id`, about 40 ns for a UUID, no allocation.

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use siphasher::sip128::SipHasher24;
use wide::u8x16;

/// Longest id in bytes, after trimming. Real ids are 16 to 100 bytes; a longer one is junk or an attack.
pub const ID_BYTES_MAX: usize = 256;
/// Longest source in bytes: a DNS name is at most 253.
pub const SOURCE_BYTES_MAX: usize = 253;
/// Longest dataset or segment name in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Between source and id in the hashed text. Not a byte of UTF-8, so no pair can imitate another.
const SOURCE_END: u8 = 0xff;
/// Source, end and id are put in normal form in blocks of so many bytes.
const BLOCK: usize = 16;
const SHORT_BLOCKS: usize = 6;
const BLOCKS_MAX: usize = (SOURCE_BYTES_MAX + 1 + ID_BYTES_MAX).div_ceil(BLOCK);

/// The deployment's secret: 32 random bytes that key every hash of an id. Never printed, never in a version file.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// A key made of the given bytes, for tests and fixtures.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the key file, or makes it (mode 600) when it is not there.
    ///
    /// The file holds 64 hex digits and a newline. A new one is written beside, synced and linked into place, so
    /// that of two processes starting at once one makes the key and both read it. What a process that was killed left
    /// beside is removed.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        /// Another process that starts may take our unfinished file for a killed one's. It does so once.
        const TRIES: usize = 8;
        remove_unfinished(path);
        for _ in 0..TRIES {
            match Self::read(path) {
                Err(KeyFileError::Missing { .. }) => {}
                other => return other,
            }
            match Self::create(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => other.map_err(|source| KeyFileError::Io {
                    path: path.display().to_string(),
                    source,
                })?,
            }
        }
        Self::read(path)
    }

    /// Makes the key file unless another process is faster. Not found: another process removed it unfinished.
    fn create(path: &Path) -> io::Result<()> {
        let random =
            |bytes: &mut [u8]| getrandom::fill(bytes).map_err(|e| io::Error::other(e.to_string()));
        let (mut bytes, mut suffix) = ([0u8; 32], [0u8; 8]);
        random(&mut bytes)?;
        random(&mut suffix)?;
        let folder = folder_of(path);
        std::fs::create_dir_all(folder)?;
        let mut beside = unfinished(path);
        beside.push(Hex(&suffix).to_string());
        let beside = folder.join(beside);
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            writeln!(file, "{}", Hex(&bytes))?;
            file.sync_all()?;
            match std::fs::hard_link(&beside, path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        })();
        let _ = std::fs::remove_file(&beside);
        written?;
        std::fs::File::open(folder)?.sync_all()
    }

    /// Reads an existing key file, and removes what a process that was killed while it made one left beside.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        remove_unfinished(path);
        Self::read(path)
    }

    fn read(path: &Path) -> Result<Self, KeyFileError> {
        let shown = || path.display().to_string();
        let io = |source| KeyFileError::Io {
            path: shown(),
            source,
        };
        let file = std::fs::File::open(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => KeyFileError::Missing { path: shown() },
            _ => io(e),
        })?;
        let mode = file.metadata().map_err(io)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Readable {
                path: shown(),
                mode: mode & 0o777,
            });
        }
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text).map_err(io)?;
        parse_hex::<32>(text.trim())
            .map(Self)
            .ok_or_else(|| KeyFileError::Malformed { path: shown() })
    }

    /// A sub-key for one purpose, so that no two uses share key material. `label` must be unique to the use.
    fn derive(&self, label: &str) -> [u8; 32] {
        // A fixed-length secret first: no length extension can turn one label's digest into another's.
        Sha256::new()
            .chain_update(self.0)
            .chain_update(label.as_bytes())
            .finalize()
            .into()
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// What the names of key files in the making begin with; they lie beside the key file.
fn unfinished(path: &Path) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new-");
    name
}

/// They hold keys that nothing was ever hashed under. What cannot be removed does no harm.
fn remove_unfinished(path: &Path) {
    let start = unfinished(path);
    let entries = std::fs::read_dir(folder_of(path)).into_iter().flatten();
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name
            .as_encoded_bytes()
            .starts_with(start.as_encoded_bytes())
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Why the key file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It could not be read or made.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not there, and no new one would do.
    #[error(
        "key file {path} is not there; restore it from a backup: versions made under it cannot be read with another"
    )]
    Missing {
        /// The file.
        path: String,
    },
    /// It is not 64 hex digits.
    #[error(
        "key file {path} is not 64 hex digits; restore it from a backup: versions made under it cannot be read with another"
    )]
    Malformed {
        /// The file.
        path: String,
    },
    /// Others than its owner may read it.
    #[error("key file {path} has mode {mode:o}; others may read it: chmod 600 {path}")]
    Readable {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
}

/// The public name of a [`SecretKey`]: 8 bytes derived from it, written into every version file made under it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// 128-bit keyed hash of (source, id in normal form). Equal keys mean the same id of the same source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey(pub u128);

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(..)")
    }
}

/// Turns (source, id) into [`UserKey`]s. Cheap to clone; one a thread.
#[derive(Clone)]
pub struct Keyer {
    sip: SipHasher24,
    label: SipHasher24,
    id: KeyId,
}

impl fmt::Debug for Keyer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyer({})", self.id)
    }
}

impl Keyer {
    /// A keyer under the deployment's key.
    pub fn new(key: &SecretKey) -> Self {
        let sip = |label| {
            let mut half = [0u8; 16];
            half.copy_from_slice(&key.derive(label)[..16]);
            SipHasher24::new_with_key(&half)
        };
        let mut id = [0u8; 8];
        id.copy_from_slice(&key.derive("kith key id")[..8]);
        Self {
            sip: sip("kith user key"),
            label: sip("kith short hash"),
            id: KeyId(id),
        }
    }

    /// The public name of the key in use.
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// The user key of an id, which is put in normal form here and nowhere else.
    ///
    /// Normal form: source and id trimmed; source in ASCII lower case; id in lower case where the source is `ifa`,
    /// and where it is `email` or `phone` and the id is a hex SHA-256.
    pub fn user_key(&self, source: &str, id: &str) -> Result<UserKey, IdRefused> {
        let (source, id) = (trimmed(source), trimmed(id));
        check_source(source)?;
        check_id(id)?;
        // Nearly all are short, and a long buffer takes time to clear.
        if source.len() + 1 + id.len() <= SHORT_BLOCKS * BLOCK {
            self.key_of::<SHORT_BLOCKS>(source, id)
        } else {
            self.key_of::<BLOCKS_MAX>(source, id)
        }
    }

    /// The key of a source and an id that are trimmed and fit into so many blocks.
    #[inline(always)]
    fn key_of<const BLOCKS: usize>(&self, source: &str, id: &str) -> Result<UserKey, IdRefused> {
        // What is not written over is a byte that is neither looked for nor changed.
        let mut blocks = [[b'-'; BLOCK]; BLOCKS];
        let length = source.len() + 1 + id.len();
        blocks.as_flattened_mut()[..source.len()].copy_from_slice(source.as_bytes());
        let has_space = to_lowercase(&mut blocks[..source.len().div_ceil(BLOCK)]);
        let (source_part, rest) = blocks.as_flattened_mut().split_at_mut(source.len());
        rest[0] = SOURCE_END;
        let id_part = &mut rest[1..=id.len()];
        id_part.copy_from_slice(id.as_bytes());
        if folds_case(source_part, id) {
            id_part.make_ascii_lowercase();
        }
        if has_space || has_control(&blocks[..length.div_ceil(BLOCK)]) {
            let in_source = has_space || source.bytes().any(|byte| byte.is_ascii_control());
            return Err(match in_source {
                true => IdRefused::SourceMalformed,
                false => IdRefused::ControlCharacter,
            });
        }
        let text = &blocks.as_flattened()[..length];
        Ok(UserKey(self.sip.hash(text).as_u128()))
    }

    /// A short keyed hash by which a person can tell two ids apart in an explanation without seeing either:
    /// 8 hex digits, not a user key and not a part of one.
    pub fn short_hash(&self, key: UserKey) -> String {
        let hash = self.label.hash(&key.0.to_le_bytes());
        Hex(&hash.h1.to_be_bytes()[..4]).to_string()
    }
}

fn folds_case(source: &[u8], id: &str) -> bool {
    match source {
        b"ifa" => true,
        b"email" | b"phone" => id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        _ => false,
    }
}

fn check_source(source: &str) -> Result<(), IdRefused> {
    if source.is_empty() {
        return Err(IdRefused::NoSource);
    }
    if source.len() > SOURCE_BYTES_MAX {
        return Err(IdRefused::SourceTooLong);
    }
    Ok(())
}

/// Without the white space around it. Most texts have none, and that is seen from their two ends.
pub(crate) fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [b'!'..=b'~', .., b'!'..=b'~'] => text,
        _ => text.trim(),
    }
}

/// Puts ASCII letters in lower case, and says whether there is a space.
fn to_lowercase(blocks: &mut [[u8; BLOCK]]) -> bool {
    let mut spaces = u8x16::ZERO;
    for block in blocks {
        let bytes = u8x16::new(*block);
        let (first, last) = (u8x16::splat(b'A'), u8x16::splat(b'Z'));
        let capitals = bytes.max(first).min(last).simd_eq(bytes);
        spaces |= bytes.simd_eq(u8x16::splat(b' '));
        *block = (bytes | (capitals & u8x16::splat(0x20))).to_array();
    }
    spaces.any()
}

/// Whether there is an ASCII control character, sixteen bytes at a time.
fn has_control(blocks: &[[u8; BLOCK]]) -> bool {
    let controls = blocks.iter().fold(u8x16::ZERO, |controls, block| {
        let bytes = u8x16::new(*block);
        let low = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        controls | low | bytes.simd_eq(u8x16::splat(0x7f))
    });
    controls.any()
}

fn check_id(id: &str) -> Result<(), IdRefused> {
    if id.is_empty() {
        return Err(IdRefused::Empty);
    }
    if id.len() > ID_BYTES_MAX {
        return Err(IdRefused::TooLong);
    }
    if id.bytes().all(|b| b == b'0' || b == b'-') {
        return Err(IdRefused::AllZero);
    }
    if is_placeholder(id) {
        return Err(IdRefused::Placeholder);
    }
    Ok(())
}

/// What is sent where there is no id, in lower case.
const PLACEHOLDERS: [&str; 8] = [
    "null",
    "unknown",
    "optout",
    "undefined",
    "none",
    "nan",
    "n/a",
    "-1",
];
const PLACEHOLDER_BYTES_MAX: usize = 9;

/// A source and an id in the normal form whose key [`Keyer::user_key`] gives.
///
/// # Errors
/// Where it gives none, but for what stands inside of them.
pub fn normal_form(source: &str, id: &str) -> Result<(String, String), IdRefused> {
    let (source, id) = (trimmed(source), trimmed(id));
    check_source(source)?;
    check_id(id)?;
    let source = source.to_ascii_lowercase();
    let id = match folds_case(source.as_bytes(), id) {
        true => id.to_ascii_lowercase(),
        false => id.to_owned(),
    };
    Ok((source, id))
}

/// How a macro begins and ends that nobody has filled in. Single braces are none: some ids are GUIDs in them.
const MACROS: [(&str, &str); 4] = [("${", "}"), ("{{", "}}"), ("%%", "%%"), ("[", "]")];

fn is_placeholder(id: &str) -> bool {
    let is_word = id.len() <= PLACEHOLDER_BYTES_MAX
        && PLACEHOLDERS
            .iter()
            .any(|word| id.eq_ignore_ascii_case(word));
    let may_be_macro = matches!(id.as_bytes(), [b'$' | b'{' | b'%' | b'[' | b'_', ..]);
    let is_enclosed = |(begin, end): &(&str, &str)| id.starts_with(begin) && id.ends_with(end);
    is_word || may_be_macro && (MACROS.iter().any(is_enclosed) || is_underlined(id))
}

/// `__IDFA__`. An id in base64 may begin and end so too; hardly one has only capitals between.
fn is_underlined(id: &str) -> bool {
    let name = id.strip_prefix("__").and_then(|id| id.strip_suffix("__"));
    name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
}

/// Why an id is refused: looked up, it would merge thousands of people or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdRefused {
    /// Nothing is left after trimming.
    #[error("the id is empty")]
    Empty,
    /// Over [`ID_BYTES_MAX`] bytes.
    #[error("the id is longer than 256 bytes")]
    TooLong,
    /// Only zeros and dashes, as devices send that withhold their id.
    #[error("the id is all zeros")]
    AllZero,
    /// `null`, `unknown`, `optout` and the like, or a macro that nobody has filled in.
    #[error("the id is a placeholder, not an id")]
    Placeholder,
    /// A control character inside.
    #[error("the id holds a control character")]
    ControlCharacter,
    /// No source.
    #[error("the source is empty")]
    NoSource,
    /// Over [`SOURCE_BYTES_MAX`] bytes.
    #[error("the source is longer than 253 bytes")]
    SourceTooLong,
    /// A space or control character in the source.
    #[error("the source holds a space or a control character")]
    SourceMalformed,
}

/// A dataset's, exchange's or segment's own name: 1 to 64 of `a-z A-Z 0-9 . _ -`, and not `.` or `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameRefused;

    fn from_str(text: &str) -> Result<Self, NameRefused> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits && plain && text != "." && text != ".." {
            Ok(Self(text.into()))
        } else {
            Err(NameRefused)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse()
            .map_err(|e| serde::de::Error::custom(format!("`{text}`: {e}")))
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

/// The text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 64 of a-z A-Z 0-9 . _ - (and not . or ..)")]
pub struct NameRefused;

/// A segment outside its dataset: `dataset/segment`, as in `crm/vip`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentRef {
    /// The dataset it belongs to.
    pub dataset: Name,
    /// Its name there.
    pub segment: Name,
}

impl FromStr for SegmentRef {
    type Err = SegmentRefused;

    fn from_str(text: &str) -> Result<Self, SegmentRefused> {
        let (dataset, segment) = text.split_once('/').ok_or(SegmentRefused)?;
        let name = |part: &str| part.parse().map_err(|_| SegmentRefused);
        Ok(Self {
            dataset: name(dataset)?,
            segment: name(segment)?,
        })
    }
}

impl fmt::Display for SegmentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dataset, self.segment)
    }
}

/// The text does not name a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a segment is written dataset/segment, each 1 to 64 of a-z A-Z 0-9 . _ -")]
pub struct SegmentRefused;

/// What a dataset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Segments of ids, exact.
    Audience,
    /// One approximate set of ids.
    Filter,
    /// Which ids are one person.
    Identity,
    /// The campaigns document.
    Campaigns,
    /// What segments are worth, for prices.
    Scores,
}

impl Kind {
    /// The kind's word in files, queries and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audience => "audience",
            Self::Filter => "filter",
            Self::Identity => "identity",
            Self::Campaigns => "campaigns",
            Self::Scores => "scores",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = KindUnknown;

    fn from_str(text: &str) -> Result<Self, KindUnknown> {
        [
            Self::Audience,
            Self::Filter,
            Self::Identity,
            Self::Campaigns,
            Self::Scores,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or(KindUnknown)
    }
}

/// The text is not a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a kind is audience, filter, identity, campaigns or scores")]
pub struct KindUnknown;

/// Bytes shown as lower-case hex.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Exactly `N` bytes of hex, or nothing.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0u8; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keyer() -> Keyer {
        Keyer::new(&SecretKey::from_bytes([7; 32]))
    }

    fn same(a: (&str, &str), b: (&str, &str)) -> bool {
        let key = |(source, id): (&str, &str)| keyer().user_key(source, id).expect("a good id");
        key(a) == key(b)
    }

    #[test]
    fn normal_form_is_decided_here() {
        assert!(same(("ifa", "AB-1"), ("ifa", " ab-1\t")));
        assert!(same(("UidApi.com", "x"), ("uidapi.com", "x")));
        assert!(!same(("uidapi.com", "X"), ("uidapi.com", "x")));
        let hash = "A".repeat(64);
        assert!(same(("email", &hash), ("email", &hash.to_lowercase())));
        assert!(
            !same(("email", "QUJD"), ("email", "qujd")),
            "base64 keeps its case"
        );
    }

    proptest! {
        /// What the blocks make of it is what the words of [`Keyer::user_key`] say.
        #[test]
        fn normal_form_is_the_same_at_any_length(
            source in prop_oneof![Just("ifa"), Just("Email"), Just("x.com"), Just(" a\u{a0}"), Just("ÀB.example")],
            more in "[A-Za-z. \x7fé]{0,40}",
            id in prop_oneof!["[A-F0-9]{64}", "[ \t]{0,2}[A-Z0-9a-z é\x01-]{1,120}[\u{2003} ]{0,2}"],
        ) {
            for source in [source.to_owned(), format!("{source}{more}")] {
                let (trimmed_source, trimmed_id) = (source.trim(), id.trim());
                let folded = trimmed_source.to_ascii_lowercase();
                let is_hash = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
                let folds = folded == "ifa" || (["email", "phone"].contains(&&*folded) && is_hash);
                let end = if folds { trimmed_id.to_ascii_lowercase() } else { trimmed_id.to_owned() };
                let text = [folded.as_bytes(), &[0xff], end.as_bytes()].concat();
                let has_control = |text: &str| text.bytes().any(|b| b.is_ascii_control());
                let want = if trimmed_id.is_empty() {
                    Err(IdRefused::Empty)
                } else if trimmed_id.bytes().all(|b| b == b'0' || b == b'-') {
                    Err(IdRefused::AllZero)
                } else if has_control(trimmed_source) || trimmed_source.contains(' ') {
                    Err(IdRefused::SourceMalformed)
                } else if has_control(trimmed_id) {
                    Err(IdRefused::ControlCharacter)
                } else {
                    Ok(UserKey(keyer().sip.hash(&text).as_u128()))
                };
                prop_assert_eq!(keyer().user_key(&source, &id), want);
            }
        }
    }

    #[test]
    fn no_source_reaches_into_another() {
        assert!(!same(("buyeruid", "u1"), ("exchange:demo", "u1")));
        assert!(!same(("a", "bc"), ("ab", "c")));
        assert!(!same(("a", "\u{ff}b"), ("a\u{ff}", "b")));
    }

    #[test]
    fn another_key_gives_another_hash_and_name() {
        let other = Keyer::new(&SecretKey::from_bytes([8; 32]));
        assert_ne!(other.user_key("ifa", "x"), keyer().user_key("ifa", "x"));
        assert_ne!(other.key_id(), keyer().key_id());
    }

    #[test]
    fn junk_ids_are_refused() {
        let refused = |id: &str| keyer().user_key("ifa", id).expect_err(id);
        assert_eq!(refused(" "), IdRefused::Empty);
        assert_eq!(
            refused("00000000-0000-0000-0000-000000000000"),
            IdRefused::AllZero
        );
        assert_eq!(refused("0000-000-000-0000"), IdRefused::AllZero);
        assert_eq!(refused("NULL"), IdRefused::Placeholder);
        for placeholder in [
            "OptOut",
            "undefined",
            "None",
            "-1",
            "N/A",
            "${UID}",
            "{{IFA}}",
            "{{user.id}}",
            "%%ID%%",
            "[IDFA]",
            "__IDFA__",
        ] {
            assert_eq!(
                refused(placeholder),
                IdRefused::Placeholder,
                "{placeholder}"
            );
        }
        for id in [
            "nobody",
            "__x",
            "{x",
            "1-",
            "none-1",
            "{0f5c2a9e-0000-4000-8000-00000000a001}",
            "__aB3x9Qz__",
        ] {
            assert!(keyer().user_key("ifa", id).is_ok(), "{id}");
        }
        assert_eq!(refused("a\0b"), IdRefused::ControlCharacter);
        assert_eq!(refused(&"x".repeat(257)), IdRefused::TooLong);
        assert_eq!(keyer().user_key("", "x"), Err(IdRefused::NoSource));
        assert_eq!(
            keyer().user_key(&"s".repeat(254), "x"),
            Err(IdRefused::SourceTooLong)
        );
        assert!(keyer().user_key(&"s".repeat(253), &"x".repeat(256)).is_ok());
    }

    #[test]
    fn names_cannot_walk_the_file_system() {
        for bad in ["", ".", "..", "a/b", "a\0", "é", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for bad in ["vip", "crm/", "/vip", "a/b/c"] {
            assert!(bad.parse::<SegmentRef>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "crm/vip".parse::<SegmentRef>().expect("named").to_string(),
            "crm/vip"
        );
    }

    #[test]
    fn the_key_file_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made/key");
        let first = Keyer::new(&SecretKey::load_or_create(&path).expect("made")).key_id();
        assert_eq!(
            first,
            Keyer::new(&SecretKey::load_or_create(&path).expect("read")).key_id()
        );
        assert_eq!(
            std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(
            SecretKey::load(&path),
            Err(KeyFileError::Readable { .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        std::fs::write(&path, "short").expect("write");
        assert!(matches!(
            SecretKey::load_or_create(&path),
            Err(KeyFileError::Malformed { .. })
        ));
    }

    #[test]
    fn what_a_killed_process_left_beside_the_key_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let names = || {
            let entries = std::fs::read_dir(folder.path()).expect("a folder");
            let mut names: Vec<_> = entries.map(|e| e.expect("one").file_name()).collect();
            names.sort();
            names
        };
        let left = format!("key.new-{}", std::process::id());
        for _ in 0..2 {
            std::fs::write(folder.path().join(&left), "half").expect("written");
            std::fs::write(folder.path().join("key.newer"), "").expect("written");
            SecretKey::load_or_create(&path).expect("a key");
            assert_eq!(names(), ["key", "key.newer"]);
        }
    }

    #[test]
    fn processes_that_start_at_once_agree_on_the_key() {
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0..20 {
            let path = folder.path().join(format!("{round}/key"));
            let load = || Keyer::new(&SecretKey::load_or_create(&path).expect("a key")).key_id();
            let ids = std::thread::scope(|scope| {
                let loads = [(); 4].map(|()| scope.spawn(load));
                loads.map(|load| load.join().expect("done"))
            });
            assert!(ids.iter().all(|id| *id == load()));
        }
    }

    #[test]
    fn nothing_secret_is_printable() {
        let key = keyer().user_key("ifa", "x").expect("a good id");
        assert_eq!(
            format!("{key:?} {:?}", SecretKey::from_bytes([1; 32])),
            "UserKey(..) SecretKey(..)"
        );
        assert_eq!(keyer().short_hash(key).len(), 8);
    }
}
