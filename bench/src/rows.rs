//! Rows of people that there are not: so many ids, each in some of the segments, the popular ones first as in Zipf's law.
//!
//! Drawn from a seed, a row from its own number, so that any run makes the same rows and threads can share the work. A
//! person's segments are drawn by the inverse of 1/rank's sum: rank ⌊segments^u⌋ for u even in 0 to 1. How many is
//! geometric about the mean, at least one, and what is drawn twice counts once; the mean that comes of it is what `kith
//! build` reports.
//!
//! Cost: a row of two segments 60 ns, of twelve 250 ns; two threads and a writer.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use crate::random::Random;

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct People {
    /// How many ids.
    pub ids: u64,
    /// Segments there are.
    pub segments: u32,
    /// Segments an id is in, on average, about.
    pub mean: f64,
    /// Where the drawing begins.
    pub seed: u64,
}

/// Ids that one thread writes at a time.
const BLOCK_IDS: u64 = 8192;

impl People {
    /// Writes all of them as CSV.
    pub fn write(self, out: &mut impl Write, threads: usize) -> io::Result<()> {
        out.write_all(b"source,id,segments\n")?;
        let blocks = self.ids.div_ceil(BLOCK_IDS);
        let names: Vec<String> = (0..=self.segments)
            .map(|n| format!("segment-{n}"))
            .collect();
        let ranks = Ranks::new(self.segments);
        let threads = threads.max(1) as u64;
        thread::scope(|scope| {
            let lanes: Vec<Receiver<Vec<u8>>> = (0..threads)
                .map(|first| {
                    let (give, take) = sync_channel(2);
                    let (names, ranks) = (&names, &ranks);
                    scope.spawn(move || {
                        for block in (first..blocks).step_by(threads as usize) {
                            let mut text = Vec::with_capacity(256 * BLOCK_IDS as usize);
                            let from = block * BLOCK_IDS;
                            for id in from..(from + BLOCK_IDS).min(self.ids) {
                                self.row(id, names, ranks, &mut text);
                            }
                            if give.send(text).is_err() {
                                return;
                            }
                        }
                    });
                    take
                })
                .collect();
            for block in 0..blocks {
                let text = lanes[(block % threads) as usize].recv();
                out.write_all(&text.map_err(io::Error::other)?)?;
            }
            out.flush()
        })
    }

    /// Draws the segments of one id after the other.
    pub fn drawer(self) -> Drawer {
        Drawer {
            people: self,
            ranks: Ranks::new(self.segments),
        }
    }

    fn row(self, id: u64, names: &[String], ranks: &Ranks, out: &mut Vec<u8>) {
        out.extend_from_slice(b"ifa,");
        // No id is all zeros.
        uuid(id + 1, out);
        let mut drawn = [0u32; 256];
        for (nth, rank) in self.draw(id, ranks, &mut drawn).iter().enumerate() {
            out.push(if nth == 0 { b',' } else { b'|' });
            out.extend_from_slice(names[*rank as usize].as_bytes());
        }
        out.push(b'\n');
    }

    fn draw<'d>(self, id: u64, ranks: &Ranks, drawn: &'d mut [u32; 256]) -> &'d mut [u32] {
        let mut random = Random(self.seed ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut count = 0;
        // Of 2³², how likely there is one more: a mean of m takes m - 1 in m.
        let more = (1.0 - 1.0 / self.mean.max(1.0)) * 2f64.powi(32);
        loop {
            let rank = ranks.draw(random.next());
            if !drawn[..count].contains(&rank) {
                drawn[count] = rank;
                count += 1;
            }
            if count == drawn.len() || (random.next() >> 32) as f64 >= more {
                break;
            }
        }
        &mut drawn[..count]
    }
}

/// The same people without the text.
#[derive(Debug)]
pub struct Drawer {
    people: People,
    ranks: Ranks,
}

impl Drawer {
    /// The numbers of the segments that an id is in, ascending.
    pub fn segments(&self, id: u64, out: &mut Vec<u32>) {
        let mut drawn = [0u32; 256];
        let drawn = self.people.draw(id, &self.ranks, &mut drawn);
        drawn.sort_unstable();
        out.clear();
        out.extend_from_slice(drawn);
    }
}

/// Ids look like advertising ids; any two numbers give two.
pub fn uuid(id: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut digit = || {
        let own = DIGITS[(mixed >> 60) as usize];
        mixed = mixed.rotate_left(4);
        own
    };
    for length in [8, 4, 4, 4, 12] {
        if length != 8 {
            out.push(b'-');
        }
        for _ in 0..length {
            out.push(digit());
        }
    }
}

/// Ranks from 0, each 1 / (rank + 1) as likely as the first, looked up by even steps of u.
#[derive(Debug)]
struct Ranks(Vec<u32>);

const STEPS: usize = 1 << 16;

impl Ranks {
    fn new(segments: u32) -> Self {
        let of = |step: usize| {
            let u = (step as f64 + 0.5) / STEPS as f64;
            (f64::from(segments).powf(u) as u32).clamp(1, segments.max(1)) - 1
        };
        Self((0..STEPS).map(of).collect())
    }

    fn draw(&self, random: u64) -> u32 {
        self.0[(random >> 48) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_on_any_number_of_threads() {
        let people = People {
            ids: 20_000,
            segments: 200,
            mean: 2.4,
            seed: 1,
        };
        let (mut one, mut three) = (Vec::new(), Vec::new());
        people.write(&mut one, 1).expect("to memory");
        people.write(&mut three, 3).expect("to memory");
        assert!(one == three);
        let text = String::from_utf8(one).expect("text");
        let ids: std::collections::BTreeSet<&str> = text
            .lines()
            .skip(1)
            .filter_map(|l| l.split(',').nth(1))
            .collect();
        assert_eq!(ids.len(), 20_000);
        let named = text.matches('|').count() + ids.len();
        let mean = named as f64 / ids.len() as f64;
        assert!((2.25..2.4).contains(&mean), "{mean}");
        let (drawer, mut drawn) = (people.drawer(), Vec::new());
        for (id, line) in (0..).zip(text.lines().skip(1)) {
            drawer.segments(id, &mut drawn);
            let mut named: Vec<u32> = line
                .split(['|', ','])
                .filter_map(|name| name.strip_prefix("segment-")?.parse().ok())
                .collect();
            named.sort_unstable();
            assert_eq!(drawn, named, "id {id}");
        }
    }
}
