//! What the audience store costs: lookups beside one random access to as much memory, and deltas.
//!
//! Everything is measured in turns in one run, since the machine's speed changes from minute to minute: a round is a walk
//! through memory whose every step waits for the one before, then lookups of ids that are there and that are not, one by one and
//! four together, over the full version and over its deltas. Lookups one by one are a plain loop, in which the processor may begin
//! one before the last is over as far as it guesses the way there. In those called *chained* the key waits for the segments that the
//! last told; where it told none, only for the guess that it would.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::time::Instant;

use kith::audience::{Approach, Audience, AudienceFile, Builder, Probe, RowFormat, VersionMeta};
use kith::clock::Timestamp;
use kith::ids::{Keyer, SecretKey, UserKey};
use memmap2::{Advice, MmapMut};
use serde::Serialize;

use crate::random::Random;
use crate::rows::{People, uuid};

/// Deltas over the full version.
const DELTAS: u64 = 10;
/// A cache line.
const LINE: usize = 64;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Who is in the full version.
    pub people: People,
    /// Rounds, of which the first warms up.
    pub rounds: usize,
    /// Lookups, or steps, of each kind in a round.
    pub lookups: usize,
    /// Only the lookups of this name, to profile them.
    pub only: Option<String>,
}

/// What was measured. Times are medians over the rounds, nanoseconds an id.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Ids in the full version.
    pub ids: u64,
    /// Segments an id is in.
    pub segments_an_id: f64,
    /// Bytes of the full version by ids.
    pub bytes_an_id: f64,
    /// One step of the walk, through as much memory as the version takes.
    pub access_ns: f64,
    /// Lookups, by what was asked.
    pub lookups: Vec<Lookups>,
    /// What each delta took.
    pub deltas: Vec<Delta>,
    /// Making a full version of all of it, and opening that; where there were deltas.
    pub compact_seconds: Option<f64>,
}

/// Lookups of one kind.
#[derive(Debug, Serialize)]
pub struct Lookups {
    /// What was asked.
    pub name: &'static str,
    /// Nanoseconds an id.
    pub ns: f64,
    /// By one random access, median of the rounds' own ratios.
    pub accesses: f64,
    /// The least and the most of these.
    pub spread: (f64, f64),
}

/// A delta, from its rows to being served.
#[derive(Debug, Serialize)]
pub struct Delta {
    /// Rows, each of another id.
    pub rows: u64,
    /// From CSV to a version file.
    pub build_seconds: f64,
    /// Verified and merged into the layer.
    pub open_seconds: f64,
    /// Bytes of the layer then.
    pub layer_bytes: u64,
}

/// Measures.
///
/// # Errors
/// Where there is not enough memory, or a mistake in the bench.
pub fn run(effort: &Effort) -> io::Result<Report> {
    let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
    let base = full(effort.people, &keyer)?;
    let mut layered = vec![base.clone()];
    let mut deltas = Vec::new();
    for number in 1..=DELTAS {
        let below = layered.last().unwrap_or(&base);
        let (next, told) = delta(effort.people, number, below, &keyer)?;
        deltas.push(told);
        layered.push(next);
    }
    let ten = layered.pop().unwrap_or_else(|| base.clone());
    let one = layered.swap_remove(1);
    drop(layered);

    let began = Instant::now();
    let mut whole = Vec::new();
    ten.compact(&mut whole).map_err(io::Error::other)?;
    Audience::from_bytes(&whole).map_err(io::Error::other)?;
    drop(whole);
    let compact_seconds = began.elapsed().as_secs_f64();

    let layers = [
        ("hit under one delta", &one, true, 1, false),
        ("hit under ten deltas", &ten, true, 1, false),
        ("miss under ten deltas", &ten, false, 1, false),
    ];
    Ok(Report {
        deltas,
        compact_seconds: Some(compact_seconds),
        ..measure(effort, &keyer, &base, &layers)?
    })
}

/// Measures lookups in a version that `kith build` made of the same people under a key.
///
/// # Errors
/// Where there is not enough memory, or the file or the key cannot be read or do not belong together.
pub fn run_on(effort: &Effort, file: &Path, key_file: &Path) -> io::Result<Report> {
    let key = SecretKey::load(key_file).map_err(io::Error::other)?;
    let keyer = Keyer::new(&key);
    let base = Audience::open(file).map_err(io::Error::other)?;
    if base.key_id() != keyer.key_id() || base.ids() != effort.people.ids {
        return Err(io::Error::other(format!(
            "{} has {} ids under key {}, not {} under {}",
            file.display(),
            base.ids(),
            base.key_id(),
            effort.people.ids,
            keyer.key_id()
        )));
    }
    measure(effort, &keyer, &base, &[])
}

/// What is asked of which audience: for ids that are there or not, how many together, each waiting for the answer before or not.
type Asked<'a> = (&'static str, &'a Audience, bool, usize, bool);

fn measure(
    effort: &Effort,
    keyer: &Keyer,
    base: &Audience,
    more: &[Asked<'_>],
) -> io::Result<Report> {
    let mut walk = Walk::new(usize::try_from(base.bytes()).map_err(io::Error::other)?)?;
    let mut random = Random(1);
    let known: Vec<UserKey> = (0..effort.lookups)
        .map(|_| key(keyer, random.next() % effort.people.ids))
        .collect::<io::Result<_>>()?;
    let unknown: Vec<UserKey> = (0..effort.lookups as u64)
        .map(|n| key(keyer, (1 << 40) + n))
        .collect::<io::Result<_>>()?;
    let mut kinds = vec![
        ("hit", base, true, 1, false),
        ("hit, four together", base, true, 4, false),
        ("miss", base, false, 1, false),
        ("miss, four together", base, false, 4, false),
        ("hit, chained", base, true, 1, true),
        ("miss, chained", base, false, 1, true),
    ];
    kinds.extend_from_slice(more);
    let mut accesses = Vec::new();
    let mut times = vec![Vec::new(); kinds.len()];
    let wanted = |name: &str| effort.only.as_deref().is_none_or(|only| only == name);
    for round in 0..effort.rounds {
        let access = walk.steps(effort.lookups);
        for (times, (name, audience, there, together, chain)) in times.iter_mut().zip(&kinds) {
            let keys = if *there { &known } else { &unknown };
            if wanted(name) {
                let ns = ask(audience, keys, *together, *chain);
                times.push((ns, ns / access));
            }
        }
        accesses.push(access);
        if round == 0 {
            // It has warmed up.
            accesses.clear();
            times.iter_mut().for_each(Vec::clear);
        }
    }
    let asked = kinds.iter().zip(times);
    let asked = asked.filter(|((name, ..), _)| wanted(name));
    let lookups = asked.map(|((name, ..), times)| {
        let ratios: Vec<f64> = times.iter().map(|(_, ratio)| *ratio).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        Lookups {
            name,
            ns: median(times.iter().map(|(ns, _)| *ns).collect()),
            accesses: median(ratios),
            spread: (least, most),
        }
    });
    Ok(Report {
        ids: base.ids(),
        segments_an_id: base.membership_count() as f64 / base.ids() as f64,
        bytes_an_id: base.bytes() as f64 / base.ids() as f64,
        access_ns: median(accesses),
        lookups: lookups.collect(),
        deltas: Vec::new(),
        compact_seconds: None,
    })
}

fn meta(version: u64, base: Option<u64>) -> io::Result<VersionMeta> {
    Ok(VersionMeta {
        kind: kith::ids::Kind::Audience,
        dataset: "bench".parse().map_err(io::Error::other)?,
        version,
        base,
        as_of: None,
    })
}

fn key(keyer: &Keyer, id: u64) -> io::Result<UserKey> {
    let mut text = Vec::new();
    uuid(id + 1, &mut text);
    let text = std::str::from_utf8(&text).map_err(io::Error::other)?;
    keyer.user_key("ifa", text).map_err(io::Error::other)
}

fn full(people: People, keyer: &Keyer) -> io::Result<Audience> {
    let (rows, out) = io::pipe()?;
    let writer = std::thread::spawn(move || people.write(&mut io::BufWriter::new(out), 1));
    let mut builder = Builder::new(meta(1, None)?, keyer.clone()).map_err(io::Error::other)?;
    builder
        .read_rows(
            &RowFormat::Csv,
            io::BufReader::with_capacity(1 << 18, rows),
            &mut |_| {},
        )
        .map_err(io::Error::other)?;
    writer
        .join()
        .map_err(|_| io::Error::other("the generator has panicked"))??;
    let mut file = Vec::new();
    builder.finish(&mut file).map_err(io::Error::other)?;
    Audience::from_bytes(&file).map_err(io::Error::other)
}

/// A hundredth of the ids: some are put into a segment, some taken out of one, one in ten is new and one in twenty goes.
fn delta(
    people: People,
    number: u64,
    below: &Audience,
    keyer: &Keyer,
) -> io::Result<(Audience, Delta)> {
    use std::io::Write as _;
    let mut random = Random(number << 32);
    let mut rows = b"source,id,add,remove,delete\n".to_vec();
    let stride = 100;
    for turn in 0..people.ids / stride {
        // One of each hundred, so that no id comes twice.
        let id = match random.next() % 10 {
            0 => people.ids + number * people.ids + turn,
            _ => turn * stride + random.next() % stride,
        };
        rows.extend_from_slice(b"ifa,");
        uuid(id + 1, &mut rows);
        let segment = |random: &mut Random| random.next() % u64::from(people.segments);
        match random.next() % 20 {
            0 => writeln!(rows, ",,,true")?,
            n if n % 2 == 0 => writeln!(rows, ",segment-{},,", segment(&mut random))?,
            _ => {
                let (add, remove) = (segment(&mut random), segment(&mut random));
                let remove = (remove + u64::from(add == remove)) % u64::from(people.segments);
                writeln!(rows, ",segment-{add},segment-{remove},")?;
            }
        }
    }
    let began = Instant::now();
    let made = meta(number + 1, Some(number))?;
    let mut builder = Builder::delta(made, 1, keyer.clone()).map_err(io::Error::other)?;
    builder
        .read_rows(&RowFormat::Csv, rows.as_slice(), &mut |_| {})
        .map_err(io::Error::other)?;
    let mut file = Vec::new();
    let report = builder.finish(&mut file).map_err(io::Error::other)?;
    let build_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let file = AudienceFile::from_bytes(&file).map_err(io::Error::other)?;
    let next = below.changed_by(&[file]).map_err(io::Error::other)?;
    let told = Delta {
        rows: report.rows,
        build_seconds,
        open_seconds: began.elapsed().as_secs_f64(),
        layer_bytes: next.bytes() - next.base().bytes(),
    };
    Ok((next, told))
}

/// Nanoseconds an id, where so many are asked for together.
#[inline(never)]
fn ask(audience: &Audience, keys: &[UserKey], together: usize, chain: bool) -> f64 {
    let zero = black_box(0usize);
    let now = Timestamp::from_unix_seconds(0);
    let mut members = 0usize;
    let mut probes: Vec<Probe> = Vec::with_capacity(together);
    let mut approaches: Vec<Approach> = Vec::with_capacity(together);
    let began = Instant::now();
    for batch in 0..keys.len() / together {
        // Nothing is added, but the processor has to wait for the answers before to know it.
        let from = batch * together + if chain { members & zero } else { 0 };
        let keys = &keys[from..from + together];
        if let [key] = keys {
            let approach = audience.approach(audience.probe(*key));
            black_box(audience.lookup_at(approach, now, |rank| members += rank as usize));
            continue;
        }
        probes.clear();
        probes.extend(keys.iter().map(|key| audience.probe(*key)));
        approaches.clear();
        approaches.extend(probes.iter().map(|probe| audience.approach(*probe)));
        for approach in &approaches {
            black_box(audience.lookup_at(*approach, now, |rank| members += rank as usize));
        }
    }
    began.elapsed().as_nanos() as f64 / keys.len() as f64
}

/// Memory, each of whose lines says which one comes next.
struct Walk {
    memory: MmapMut,
    at: usize,
}

impl Walk {
    fn new(bytes: usize) -> io::Result<Self> {
        let lines = (bytes / LINE).max(2);
        let mut memory = MmapMut::map_anon(lines * LINE)?;
        let _ = memory.advise(Advice::HugePage);
        // One cycle through all of them: Sattolo's shuffle.
        let mut next: Vec<u32> = (0u32..).take(lines).collect();
        let mut random = Random(3);
        for last in (1..lines).rev() {
            next.swap(last, (random.next() % last as u64) as usize);
        }
        for (line, next) in memory.chunks_exact_mut(LINE).zip(next) {
            line[..4].copy_from_slice(&next.to_le_bytes());
        }
        Ok(Self { memory, at: 0 })
    }

    /// Nanoseconds a step.
    fn steps(&mut self, steps: usize) -> f64 {
        let began = Instant::now();
        for _ in 0..steps {
            let line = &self.memory[self.at * LINE..];
            self.at = u32::from_le_bytes([line[0], line[1], line[2], line[3]]) as usize;
        }
        black_box(self.at);
        began.elapsed().as_nanos() as f64 / steps as f64
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{} ids, {:.2} segments an id, {:.2} bytes an id\none random access to as much memory: {:.0} ns\n\n{:<24}{:>8}{:>12}{:>16}\n",
            self.ids,
            self.segments_an_id,
            self.bytes_an_id,
            self.access_ns,
            "lookup",
            "ns",
            "accesses",
            "least to most"
        );
        for lookups in &self.lookups {
            let (least, most) = lookups.spread;
            let spread = format!("{least:.2} to {most:.2}");
            let Lookups {
                name, ns, accesses, ..
            } = lookups;
            let _ = writeln!(text, "{name:<24}{ns:>8.0}{accesses:>12.2}{spread:>16}");
        }
        let Some(compact_seconds) = self.compact_seconds else {
            return text;
        };
        let _ = writeln!(
            text,
            "\n{:<8}{:>10}{:>12}{:>12}{:>14}",
            "delta", "rows", "build s", "open s", "layer MB"
        );
        for (number, delta) in (1..).zip(&self.deltas) {
            let _ = writeln!(
                text,
                "{number:<8}{:>10}{:>12.2}{:>12.2}{:>14.1}",
                delta.rows,
                delta.build_seconds,
                delta.open_seconds,
                delta.layer_bytes as f64 / 1e6
            );
        }
        let _ = writeln!(text, "\ncompacted and opened in {compact_seconds:.2} s");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works() {
        let report = run(&Effort {
            people: People {
                ids: 20_000,
                segments: 50,
                mean: 3.0,
                seed: 1,
            },
            rounds: 3,
            lookups: 2_000,
            only: None,
        });
        let report = report.expect("measured");
        assert_eq!(report.ids, 20_000);
        assert_eq!(report.deltas.len(), 10);
        assert!(report.deltas.iter().all(|delta| delta.rows == 200));
        assert!(report.lookups.iter().all(|lookups| lookups.ns > 0.0));
        assert!(report.table().contains("hit under ten deltas"));
    }
}
