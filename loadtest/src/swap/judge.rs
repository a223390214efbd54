//! Which version an answer came from, and whether it could have.
//!
//! A version may be live from when it was asked for (its upload or activation was sent) until the next change was
//! acknowledged. An answer is right if the version that it gives away may have been live at some time between when the
//! request was sent and when it was answered. And live versions only follow each other: once an answer came from
//! one, no request sent after that may be answered from the one before.
//!
//! Answers are noted while the load runs (32 bytes each) and judged after it, when all changes are known.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use memchr::memmem;
use serde::Serialize;

use super::versions::{IMPS, MIXED_CPM, segment_of, segment_of_price};
use crate::tally::Outcome;
use crate::watch::{Ended, Watch};

/// Most wrong answers told one by one.
const EXAMPLES_MAX: usize = 5;

/// A change of the live version.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The version that went live.
    pub version: u64,
    /// When the change was asked for.
    pub asked: Instant,
    /// When it was acknowledged.
    pub acknowledged: Instant,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// All its prices are of this segment.
    Segment(u8),
    /// Its prices are of several versions, or of the line item that wants two.
    Mixed,
    /// It has no bid.
    NoBid,
    /// It has not one bid for each imp, or a price that nobody set.
    Strange,
    /// There is no answer.
    Nothing,
}

/// One request's end.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// When it was sent, or due if it never was.
    pub sent: Instant,
    /// When it was answered.
    pub ended: Instant,
    /// What the answer says.
    pub says: Says,
}

/// Notes every answer, and which stage the run is in for those who follow it.
#[derive(Debug)]
pub struct Answers<'s> {
    stage: &'s AtomicUsize,
    /// In the order in which they came.
    pub noted: Vec<Answer>,
}

impl<'s> Answers<'s> {
    /// Tells the stage to `stage`.
    #[must_use]
    pub fn new(stage: &'s AtomicUsize) -> Self {
        Self {
            stage,
            noted: Vec::new(),
        }
    }
}

impl Watch for Answers<'_> {
    fn ended(&mut self, ended: &Ended<'_>) {
        self.stage.fetch_max(ended.stage, Ordering::Relaxed);
        let says = match ended.outcome {
            Outcome::Bid => read(ended.body),
            Outcome::NoBid => Says::NoBid,
            Outcome::Failed(_) | Outcome::Unsent => Says::Nothing,
        };
        self.noted.push(Answer {
            sent: ended.sent.unwrap_or(ended.due),
            ended: ended.ended,
            says,
        });
    }
}

/// What a bid response's prices say. The key cannot be found inside of a string by mistake: there its quotes are escaped.
#[must_use]
pub fn read(body: &[u8]) -> Says {
    const KEY: &[u8] = b"\"price\":";
    let mut said = None;
    let mut bids = 0;
    for at in memmem::find_iter(body, KEY) {
        let rest = body.get(at + KEY.len()..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b',' | b'}'))
            .unwrap_or(rest.len());
        let text = rest
            .get(..end)
            .and_then(|text| std::str::from_utf8(text).ok());
        let Some(price) = text.and_then(|text| text.trim().parse::<f64>().ok()) else {
            return Says::Strange;
        };
        if (price - MIXED_CPM).abs() < 1e-9 {
            return Says::Mixed;
        }
        let Some(segment) = segment_of_price(price) else {
            return Says::Strange;
        };
        if said.is_some_and(|said| said != segment) {
            return Says::Mixed;
        }
        said = Some(segment);
        bids += 1;
    }
    match said {
        // Ten segments.
        Some(segment) if bids == IMPS => Says::Segment(segment as u8),
        _ => Says::Strange,
    }
}

/// How many answers were what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Requests that ended.
    pub answers: u64,
    /// Right: from a version that was live when they were asked or answered.
    pub right: u64,
    /// Of these, those during which more than one version may have been live.
    pub during_a_swap: u64,
    /// Errors, and requests that were never sent.
    pub failed: u64,
    /// From two versions at once.
    pub mixed: u64,
    /// From a version that was not live, or none that there is.
    pub wrong: u64,
    /// Without a bid, though everybody is in every version.
    pub no_bids: u64,
    /// From the version before one that had already answered an earlier request.
    pub went_back: u64,
    /// Some of those that are not right.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether every answer was right.
    #[must_use]
    pub fn all_right(&self) -> bool {
        self.answers > 0 && self.right == self.answers
    }
}

/// Judges `answers` by the `changes`, in the order in which these were made.
#[must_use]
pub fn judge<'a>(changes: &[Change], answers: impl Iterator<Item = &'a Answer> + Clone) -> Verdict {
    let mut verdict = Verdict::default();
    // When each change was first seen in an answer that can have come from no other.
    let mut first_seen: Vec<Option<Instant>> = vec![None; changes.len()];
    for answer in answers.clone() {
        let mut from = origins(changes, answer);
        if let (Some(only), None) = (from.next(), from.next())
            && let Some(seen) = first_seen.get_mut(only)
        {
            *seen = Some(seen.map_or(answer.ended, |before| before.min(answer.ended)));
        }
    }
    // Whatever shows a later change shows this one too.
    for at in (1..first_seen.len()).rev() {
        let later = first_seen[at];
        if let Some(later) = later
            && first_seen[at - 1].is_none_or(|own| own > later)
        {
            first_seen[at - 1] = Some(later);
        }
    }
    for answer in answers {
        verdict.answers += 1;
        let count = match answer.says {
            Says::Segment(_) => match origins(changes, answer).last() {
                None => &mut verdict.wrong,
                Some(latest) => {
                    let next = first_seen.get(latest + 1).copied().flatten();
                    if next.is_some_and(|seen| seen < answer.sent) {
                        &mut verdict.went_back
                    } else {
                        verdict.during_a_swap +=
                            u64::from(may_be_live(changes, answer).nth(1).is_some());
                        verdict.right += 1;
                        continue;
                    }
                }
            },
            Says::Mixed => &mut verdict.mixed,
            Says::NoBid => &mut verdict.no_bids,
            Says::Strange => &mut verdict.wrong,
            Says::Nothing => &mut verdict.failed,
        };
        *count += 1;
        if verdict.examples.len() < EXAMPLES_MAX {
            let live: Vec<u64> = may_be_live(changes, answer)
                .filter_map(|at| changes.get(at))
                .map(|c| c.version)
                .collect();
            let took = answer.ended.saturating_duration_since(answer.sent);
            verdict.examples.push(format!(
                "{:?} in {} \u{b5}s, while the live version was one of {live:?}",
                answer.says,
                took.as_micros()
            ));
        }
    }
    verdict
}

/// The changes whose version may have been live at some time between an answer's request and its end.
fn may_be_live(changes: &[Change], answer: &Answer) -> impl Iterator<Item = usize> {
    let ends = changes
        .iter()
        .skip(1)
        .map(|next| Some(next.acknowledged))
        .chain([None]);
    changes
        .iter()
        .zip(ends)
        .enumerate()
        .filter_map(move |(at, (change, end))| {
            (change.asked <= answer.ended && end.is_none_or(|end| end >= answer.sent)).then_some(at)
        })
}

/// Those of them that put everybody in the segment that the answer says.
fn origins(changes: &[Change], answer: &Answer) -> impl Iterator<Item = usize> {
    let says = answer.says;
    may_be_live(changes, answer).filter(move |at| {
        changes
            .get(*at)
            .is_some_and(|change| says == Says::Segment(segment_of(change.version) as u8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn prices_say_what_answered() {
        let body = |prices: &[&str]| {
            let bids: Vec<String> = prices
                .iter()
                .map(|price| {
                    format!("{{\"id\":\"\\\"price\\\":7\",\"price\":{price},\"crid\":\"cr\"}}")
                })
                .collect();
            format!(
                "{{\"id\":\"r\",\"seatbid\":[{{\"bid\":[{}]}}]}}",
                bids.join(",")
            )
        };
        for (prices, says) in [
            (&["1", "1.0"][..], Says::Segment(0)),
            (&["10", "10"], Says::Segment(9)),
            (&["3", "4"], Says::Mixed),
            (&["99", "99"], Says::Mixed),
            (&["3", "99"], Says::Mixed),
            (&["3"], Says::Strange),
            (&["3", "3", "3"], Says::Strange),
            (&["3.5", "3.5"], Says::Strange),
            (&["x", "3"], Says::Strange),
            (&[], Says::Strange),
        ] {
            assert_eq!(read(body(prices).as_bytes()), says, "{prices:?}");
        }
    }

    /// Changes at 0–0, 100–200, 300–400 ms to versions 1, 2, 1; answers as (sent, ended, says).
    fn verdict(answers: &[(u64, u64, Says)]) -> Verdict {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let changes =
            [(1, 0, 0), (2, 100, 200), (1, 300, 400)].map(|(version, asked, acknowledged)| {
                Change {
                    version,
                    asked: at(asked),
                    acknowledged: at(acknowledged),
                }
            });
        let answers: Vec<Answer> = answers
            .iter()
            .map(|(sent, ended, says)| Answer {
                sent: at(*sent),
                ended: at(*ended),
                says: *says,
            })
            .collect();
        judge(&changes, answers.iter())
    }

    #[test]
    fn an_answer_must_be_from_a_version_that_was_live() {
        use Says::Segment;
        for (sent, ended, says, right) in [
            (10, 20, Segment(1), true),
            (10, 20, Segment(2), false),
            (90, 110, Segment(2), true),
            (190, 250, Segment(1), true),
            (201, 250, Segment(1), false),
            (201, 250, Segment(2), true),
            (250, 310, Segment(1), true),
            (399, 500, Segment(2), true),
            (401, 500, Segment(2), false),
            (401, 500, Segment(1), true),
            (401, 500, Segment(3), false),
        ] {
            let verdict = verdict(&[(sent, ended, says)]);
            assert_eq!(
                (verdict.right, verdict.wrong),
                (u64::from(right), u64::from(!right)),
                "{sent} {ended} {says:?}"
            );
        }
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let verdict = verdict(&[
            (10, 20, Says::NoBid),
            (10, 20, Says::Mixed),
            (10, 20, Says::Strange),
            (10, 1010, Says::Nothing),
            (120, 130, Says::Segment(1)),
        ]);
        assert_eq!(
            (
                verdict.no_bids,
                verdict.mixed,
                verdict.wrong,
                verdict.failed,
                verdict.right,
                verdict.answers
            ),
            (1, 1, 1, 1, 1, 5)
        );
        assert_eq!((verdict.during_a_swap, verdict.examples.len()), (1, 4));
        assert!(!verdict.all_right());
    }

    #[test]
    fn versions_do_not_come_back_once_the_next_was_seen() {
        use Says::Segment;
        // Both within the swap from 1 to 2; the second was sent after the first had shown version 2.
        let back = verdict(&[(110, 120, Segment(2)), (130, 140, Segment(1))]);
        assert_eq!((back.right, back.went_back), (1, 1));
        let overlapping = verdict(&[(110, 120, Segment(2)), (119, 140, Segment(1))]);
        assert!(overlapping.all_right());
        // A rollback to version 1 is a change of its own.
        let rolled_back = verdict(&[
            (110, 120, Segment(2)),
            (310, 320, Segment(1)),
            (330, 340, Segment(1)),
        ]);
        assert!(rolled_back.all_right());
        // Seeing the rollback is seeing version 2 too.
        let skipped = verdict(&[(310, 320, Segment(1)), (330, 340, Segment(2))]);
        assert_eq!((skipped.right, skipped.went_back), (1, 1));
    }
}
