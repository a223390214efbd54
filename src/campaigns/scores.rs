//! What segments are worth: a score for each, from a dataset of kind scores, that multiplies prices.
//!
//! A scores document is a version of its dataset like any other, made by whoever models audiences. A line item whose price names
//! the dataset pays its `cpm` times the greatest score among the segments that its targeting asks somebody to be in and the
//! person is in. [`Book::tie_scores`] finds each segment's score once, off the bid path.

use std::collections::HashMap;

use super::Book;
use super::compile::SEGMENTS_MAX;
use super::document::{DocumentError, Errors, Fields, read};
use super::pricing::millionths;
use crate::ids::{Name, SegmentRef};

/// A score for each of some segments.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// In millionths: over 0 and up to a hundred.
    by_segment: HashMap<SegmentRef, u32>,
}

impl Scores {
    /// Reads a scores document, JSON or TOML: the scores, or everything that is wrong with it.
    pub fn read(document: &[u8]) -> Result<Self, Vec<DocumentError>> {
        let root = read(document).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let mut scores = Self::default();
        let root = Fields::open(&root, String::new(), None, &["scores"], &mut errors);
        if let Some(root) = root {
            root.required(
                "scores",
                "[{\"segment\": \"crm/vip\", \"score\": \"1.8\"}]",
                &mut errors,
            );
            let rows: Vec<_> = root.list("scores", SEGMENTS_MAX, &mut errors).collect();
            for (path, node) in rows {
                scores.row(path, node, &mut errors);
            }
        }
        errors.finish().map(|()| scores)
    }

    fn row(&mut self, path: String, node: &super::document::Node, errors: &mut Errors) {
        let known = ["segment", "score"];
        let Some(fields) = Fields::open(node, path, None, &known, errors) else {
            return;
        };
        fields.required("segment", "\"crm/vip\"", errors);
        let segment: Option<SegmentRef> = fields.parsed("segment", errors);
        let node = fields.required("score", "\"1.8\"", errors);
        let score = node.and_then(|node| millionths(&node.decimal()?));
        if node.is_some() && score.is_none() {
            let message =
                "expected a decimal over 0 and up to 100, with at most 6 decimals, like \"1.8\"";
            fields.wrong("score", message, errors);
        }
        let score = score.and_then(|score| u32::try_from(score).ok());
        if let (Some(segment), Some(score)) = (segment, score)
            && self.by_segment.insert(segment, score).is_some()
        {
            let message = "has a score above already: give it one";
            fields.wrong("segment", message, errors);
        }
    }

    /// How many segments have one.
    pub fn len(&self) -> usize {
        self.by_segment.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.by_segment.is_empty()
    }
}

/// The live scores of a book's segments: by the dataset's place in [`Book::scores`], then by the segment's slot, in millionths; 0
/// where it has none.
#[derive(Debug, Default)]
pub struct TiedScores(Box<[Box<[u32]>]>);

impl TiedScores {
    /// A segment's score, in millionths: by the place of its dataset and by its slot.
    pub fn of(&self, dataset: u32, slot: u32) -> Option<u32> {
        let of = self.0.get(usize::try_from(dataset).ok()?)?;
        let score = *of.get(usize::try_from(slot).ok()?)?;
        (score > 0).then_some(score)
    }
}

impl Book {
    /// Finds the score of each segment that targeting names. `live`: a dataset's live scores, if it has any.
    pub fn tie_scores<'s>(&self, live: impl Fn(&Name) -> Option<&'s Scores>) -> TiedScores {
        let of = |scores: &Scores| -> Box<[u32]> {
            let segments = self.segments.iter();
            let score = |segment| scores.by_segment.get(segment).copied().unwrap_or(0);
            segments.map(score).collect()
        };
        let datasets = self.scores.iter();
        TiedScores(
            datasets
                .map(|name| live(name).map(of).unwrap_or_default())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_as_json_and_as_toml() {
        let json = br#"{"scores": [{"segment": "crm/vip", "score": "1.8"}, {"segment": "site/cart", "score": 2}]}"#;
        let toml = b"[[scores]]\nsegment = \"crm/vip\"\nscore = 1.8\n[[scores]]\nsegment = \"site/cart\"\nscore = \"2\"\n";
        let scores = Scores::read(json).expect("good");
        assert_eq!(Scores::read(toml).expect("good"), scores);
        let of = |segment: &str| {
            let segment: SegmentRef = segment.parse().expect("a segment");
            scores.by_segment.get(&segment).copied()
        };
        assert_eq!(of("crm/vip"), Some(1_800_000));
        assert_eq!(of("site/cart"), Some(2_000_000));
        assert_eq!((scores.len(), of("crm/old")), (2, None));
        assert!(Scores::read(b"{\"scores\": []}").expect("good").is_empty());
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let told = |document: &str| -> Vec<String> {
            let errors = Scores::read(document.as_bytes()).expect_err("refused");
            errors.iter().map(ToString::to_string).collect()
        };
        let a_score =
            "expected a decimal over 0 and up to 100, with at most 6 decimals, like \"1.8\"";
        assert_eq!(
            told(
                r#"{"scores": [{"segment": "vip", "score": 0}, {"segment": "crm/vip", "score": "1"}, {"segment": "crm/vip", "score": 101},
                {"segment": "crm/vip", "score": 2}, {"score": null}], "more": 1}"#
            ),
            [
                "more: there is no key `more`; there are scores".to_owned(),
                "scores[0].segment: `vip`: a segment is written dataset/segment, each 1 to 64 of a-z A-Z 0-9 . _ -".to_owned(),
                format!("scores[0].score: {a_score}"),
                format!("scores[2].score: {a_score}"),
                "scores[3].segment: has a score above already: give it one".to_owned(),
                "scores[4].segment: is required, like \"crm/vip\"".to_owned(),
                "scores[4].score: is required, like \"1.8\"".to_owned(),
            ]
        );
        assert_eq!(
            told("{}"),
            ["scores: is required, like [{\"segment\": \"crm/vip\", \"score\": \"1.8\"}]"]
        );
    }
}
