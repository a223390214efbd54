//! The name that a person probably meant.

/// The candidate nearest to `word`, if it is near enough to be a slip of the fingers: one in four letters wrong, and
/// one more.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The distance is quadratic in the length; what is longer than any name of ours is no slip.
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_near() {
        let names = ["targeting", "creatives", "price"];
        for (word, want) in [
            ("targetting", Some("targeting")),
            ("Creative", Some("creatives")),
            ("prcie", Some("price")),
            ("budget", None),
        ] {
            assert_eq!(nearest(word, names), want, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), names), None);
    }
}
