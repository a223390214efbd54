//! What requests name back to us, numbered: seats, deals, sizes and formats, categories, domains, apps.
//!
//! A request may list thousands of blocked domains and a book may have thousands of line items; comparing every pair of
//! texts would let one request buy seconds of our time. So the book numbers the few names that it knows, a request's
//! lists are turned into sets of those numbers once, and each check of a line item is a look at a bit.
//!
//! A creative's *slot* is what an imp must offer for it to be shown there: for a banner its size, else its format.
//!
//! A category stands for itself and the categories above it (`IAB3-1` for `IAB3` too), a domain for itself and the domains
//! above it: who blocks those, blocks it.
#![deny(clippy::indexing_slicing)]

use arrayvec::ArrayString;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::program::Mix;
use super::{Advertiser, Creative, Format, LineItem};

/// Longest name looked up; the book has none longer.
const NAME_BYTES_MAX: usize = 256;
/// Longest language tag that is looked for; a creative's has at most 35 bytes.
const LANGUAGE_BYTES_MAX: usize = 64;

/// Names and their numbers, from 0.
#[derive(Debug, Default)]
struct Numbers(HashMap<Box<str>, u32, BuildHasherDefault<Mix>>);

impl Numbers {
    fn number(&mut self, name: &str) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(name.into()).or_insert(next)
    }

    /// The number of a name, whatever the case of its ASCII letters; the names themselves are lower case.
    fn get_folded(&self, name: &str) -> Option<u32> {
        let mut folded = [0u8; NAME_BYTES_MAX];
        let folded = folded.get_mut(..name.len())?;
        folded.copy_from_slice(name.as_bytes());
        folded.make_ascii_lowercase();
        self.0.get(std::str::from_utf8(folded).ok()?).copied()
    }
}

/// A book's names and which line item and creative they concern.
#[derive(Debug, Default)]
pub struct Terms {
    seats: Numbers,
    deals: Numbers,
    domains: Numbers,
    /// By taxonomy.
    categories: HashMap<u32, Numbers, BuildHasherDefault<Mix>>,
    categories_len: usize,
    languages: Numbers,
    bundles: Numbers,
    /// Of banners, sorted: a size's place is its slot. The slots of the other formats come behind.
    sizes: Box<[(u32, u32)]>,
    /// The sizes of each proportion, in least terms.
    proportions: HashMap<(u32, u32), Vec<u32>>,
    line_items: Box<[LineItemTerms]>,
    creatives: Box<[CreativeTerms]>,
}

/// The numbers of one line item.
#[derive(Debug, Default)]
pub struct LineItemTerms {
    /// Its seat; `None` for the exchange's.
    pub seat: Option<u32>,
    /// Its deals, sorted.
    pub deals: Box<[u32]>,
}

/// The numbers of one creative.
#[derive(Debug, Default)]
pub struct CreativeTerms {
    /// What an imp must offer.
    pub slot: Option<u32>,
    /// The taxonomy of its categories.
    pub cattax: u32,
    /// For each category, itself and those above it.
    pub categories: Box<[Box<[u32]>]>,
    /// Its advertiser's domain and those above it.
    pub domains: Box<[u32]>,
    /// Its language tag and those above it (`zh-hant`, `zh`); none where it has no language.
    pub languages: Box<[u32]>,
    /// The app that it advertises, where it does.
    pub bundle: Option<u32>,
    /// Whether its markup holds a script.
    pub script: bool,
    /// Whether its markup holds an inline frame.
    pub iframe: bool,
}

impl Terms {
    pub(super) fn of(
        line_items: &[LineItem],
        creatives: &[Creative],
        advertisers: &[Advertiser],
    ) -> Self {
        let mut terms = Self::default();
        let mut sizes: Vec<(u32, u32)> = creatives
            .iter()
            .filter(|creative| creative.format == Format::Banner)
            .filter_map(|creative| creative.w.zip(creative.h))
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        for (slot, (w, h)) in (0u32..).zip(&sizes) {
            let common = common_divisor(*w, *h);
            let proportion = (w / common, h / common);
            terms.proportions.entry(proportion).or_default().push(slot);
        }
        terms.sizes = sizes.into();
        terms.line_items = line_items
            .iter()
            .map(|line_item| {
                let mut deals: Vec<u32> = line_item
                    .deals
                    .iter()
                    .map(|deal| terms.deals.number(deal))
                    .collect();
                deals.sort_unstable();
                LineItemTerms {
                    seat: line_item
                        .seat
                        .as_deref()
                        .map(|seat| terms.seats.number(seat)),
                    deals: deals.into(),
                }
            })
            .collect();
        // Categories of all taxonomies share one range of numbers, so that one set of bits holds them.
        let mut all_categories = Numbers::default();
        terms.creatives = creatives
            .iter()
            .map(|creative| {
                let own = terms.categories.entry(creative.cattax).or_default();
                let categories = creative.categories.iter().map(|category| {
                    let category = category.to_ascii_lowercase();
                    upwards(&category, '-', Side::Right)
                        .map(|name| {
                            let number =
                                all_categories.number(&format!("{} {name}", creative.cattax));
                            own.0.insert(name.into(), number);
                            number
                        })
                        .collect()
                });
                let categories = categories.collect();
                let advertiser = advertisers.get(creative.advertiser as usize);
                let domain = advertiser
                    .map_or("", |advertiser| &advertiser.domain)
                    .to_ascii_lowercase();
                let domains = upwards(&domain, '.', Side::Left)
                    .map(|name| terms.domains.number(name))
                    .collect();
                let markup = creative.adm.as_ref();
                let markup = markup.map_or("", |markup| &markup.escaped);
                let markup = markup.to_ascii_lowercase();
                CreativeTerms {
                    slot: terms.slot_of(creative),
                    cattax: creative.cattax,
                    categories,
                    domains,
                    languages: {
                        let tag = creative.language.as_deref().or(creative.langb.as_deref());
                        let tag = tag.unwrap_or("").trim().to_ascii_lowercase();
                        upwards(&tag, '-', Side::Right)
                            .map(|tag| terms.languages.number(tag))
                            .collect()
                    },
                    bundle: creative
                        .bundle
                        .as_deref()
                        .map(|bundle| terms.bundles.number(&bundle.to_ascii_lowercase())),
                    script: markup.contains("<script"),
                    iframe: markup.contains("<iframe"),
                }
            })
            .collect();
        terms.categories_len = all_categories.0.len();
        terms
    }

    fn slot_of(&self, creative: &Creative) -> Option<u32> {
        if creative.format != Format::Banner {
            return self.slot(creative.format);
        }
        let (w, h) = creative.w.zip(creative.h)?;
        self.size(i64::from(w), i64::from(h))
    }

    /// The number of a seat that line items bid for.
    pub fn seat(&self, name: &str) -> Option<u32> {
        self.seats.0.get(name).copied()
    }

    /// How many seats there are.
    pub fn seats(&self) -> usize {
        self.seats.0.len()
    }

    /// The number of a deal that line items buy through.
    pub fn deal(&self, id: &str) -> Option<u32> {
        self.deals.0.get(id).copied()
    }

    /// The slot of a size that a banner has.
    pub fn size(&self, w: i64, h: i64) -> Option<u32> {
        let size = (u32::try_from(w).ok()?, u32::try_from(h).ok()?);
        self.sizes
            .binary_search(&size)
            .ok()
            .and_then(|place| u32::try_from(place).ok())
    }

    /// The slots of the banners' sizes that are in proportion `wratio` to `hratio`, and their widths.
    pub fn in_proportion(&self, wratio: i64, hratio: i64) -> impl Iterator<Item = (u32, u32)> {
        let ratio = u32::try_from(wratio).ok().zip(u32::try_from(hratio).ok());
        let found = ratio.and_then(|(w, h)| {
            let common = common_divisor(w, h);
            let proportion = (w.checked_div(common)?, h.checked_div(common)?);
            self.proportions.get(&proportion)
        });
        found.into_iter().flatten().filter_map(|slot| {
            let (w, _) = self.sizes.get(*slot as usize)?;
            Some((*slot, *w))
        })
    }

    /// The slot of a format other than banner.
    pub fn slot(&self, format: Format) -> Option<u32> {
        let behind = match format {
            Format::Banner => return None,
            Format::Video => 0,
            Format::Audio => 1,
            Format::Native => 2,
        };
        u32::try_from(self.sizes.len() + behind).ok()
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.sizes.len() + (Format::ALL.len() - 1)
    }

    /// The number of an app, whatever the case of its bundle.
    pub fn bundle(&self, bundle: &str) -> Option<u32> {
        self.bundles.get_folded(bundle.trim())
    }

    /// How many apps there are.
    pub fn bundles(&self) -> usize {
        self.bundles.0.len()
    }

    /// The number of a category of a taxonomy, whatever its case.
    pub fn category(&self, cattax: u32, name: &str) -> Option<u32> {
        self.categories.get(&cattax)?.get_folded(name.trim())
    }

    /// How many categories there are, over all taxonomies.
    pub fn categories(&self) -> usize {
        self.categories_len
    }

    /// The number of a domain, whatever its case and a final dot.
    pub fn domain(&self, name: &str) -> Option<u32> {
        self.domains.get_folded(name.trim().trim_end_matches('.'))
    }

    /// Tells the numbers of a language tag, whatever its case and be it `fr-CA` or `fr_CA`, and of each above it, with how
    /// far above it that is. One longer than any tag has none.
    pub fn language(&self, tag: &str, mut each: impl FnMut(usize, u32)) {
        let mut spelled = ArrayString::<LANGUAGE_BYTES_MAX>::new();
        for letter in tag.trim().chars() {
            let letter = if letter == '_' { '-' } else { letter };
            if spelled.try_push(letter).is_err() {
                return;
            }
        }
        for (steps, tag) in upwards(&spelled, '-', Side::Right).enumerate() {
            if let Some(number) = self.languages.get_folded(tag) {
                each(steps, number);
            }
        }
    }

    /// How many languages there are.
    pub fn languages(&self) -> usize {
        self.languages.0.len()
    }

    /// How many domains there are.
    pub fn domains(&self) -> usize {
        self.domains.0.len()
    }

    /// The numbers of the line item at that place of the book.
    pub fn line_item(&self, place: u32) -> Option<&LineItemTerms> {
        self.line_items.get(place as usize)
    }

    /// The numbers of the creative at that place of the book.
    pub fn creative(&self, place: u32) -> Option<&CreativeTerms> {
        self.creatives.get(place as usize)
    }
}

/// Euclid's; of 0 and 0 it is 0.
fn common_divisor(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        _ => common_divisor(b, a % b),
    }
}

/// Which end of a name is its most special part, which falls off on the way up.
#[derive(Clone, Copy)]
enum Side {
    /// The left part is the special one: `shop` of `shop.acme.example`.
    Left,
    /// The right part is: `1` of `IAB3-1`.
    Right,
}

/// The name and every name above it.
fn upwards(name: &str, separator: char, special: Side) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name).filter(|name| !name.is_empty()), move |name| {
        let (left, right) = match special {
            Side::Left => name.split_once(separator)?,
            Side::Right => name.rsplit_once(separator)?,
        };
        Some(match special {
            Side::Left => right,
            Side::Right => left,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_upwards() {
        let up = |name, separator, special| upwards(name, separator, special).collect::<Vec<_>>();
        assert_eq!(
            up("shop.acme.example", '.', Side::Left),
            ["shop.acme.example", "acme.example", "example"]
        );
        assert_eq!(
            up("iab3-1-2", '-', Side::Right),
            ["iab3-1-2", "iab3-1", "iab3"]
        );
        assert_eq!(up("", '.', Side::Left), [""; 0]);
    }

    #[test]
    fn long_names_are_nobodys() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.number("abc"), 0);
        assert_eq!(numbers.number("abc"), 0);
        assert_eq!(numbers.get_folded("ABC"), Some(0));
        assert_eq!(numbers.get_folded(&"a".repeat(10_000)), None);
    }
}
