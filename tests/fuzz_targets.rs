//! The fuzz targets without a fuzzer: every seed, and a few thousand cheap mutations of each target's, the same in every run.
//!
//! `fuzz/README.md` says how to let them run for longer.

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

const MUTATIONS: u32 = 4_000;

/// What a mutation may put in: what JSON, requests and consent strings are made of.
const TOKENS: [&str; 41] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\n",
    " ",
    "null",
    "true",
    "-0",
    "1e999",
    "1.0",
    "\"1\"",
    "9007199254740993",
    "\u{feff}",
    "é",
    "\"id\":",
    "\"imp\":",
    "\"ext\":{",
    "\"regs\":",
    "\"user\":",
    "\"consent\":",
    "\"gpp\":",
    "\"gdpr\":1",
    "\"assets\":[{",
    "\"coppa\":",
    "\"bcat\":[",
    "\"eids\":[",
    "\"data\":[",
    "~",
    ".",
    "A",
    "DBAA",
    "1YNN",
    "{},{},{},{},",
    "[[[[[[[[",
];

/// Numbers that look random and are the same every time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound.max(1)
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the seeds")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).expect("a seed"))
        .collect()
}

/// One to four small changes.
fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(24)).min(bytes.len());
        match random.below(7) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => drop(bytes.drain(at..end)),
            2 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            3 => bytes.truncate(at),
            4 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len());
                bytes.splice(at..end, other[from..].iter().copied().take(64));
            }
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(at..at, token.bytes());
            }
        }
    }
}

fn run(name: &str, target: fn(&[u8])) {
    run_with(name, seeds(name), target);
}

fn run_with(name: &str, seeds: Vec<Vec<u8>>, target: fn(&[u8])) {
    assert!(seeds.len() > 4, "{name}: where are the seeds?");
    for seed in &seeds {
        target(seed);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for n in 0..MUTATIONS {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &seeds, &mut random);
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        assert!(
            outcome.is_ok(),
            "{name}, mutation {n}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

#[test]
fn any_bytes_are_read_or_refused() {
    run("request", targets::request);
}

#[test]
fn any_signals_open_the_gate_or_close_it() {
    run("gate", targets::gate);
}

#[test]
fn any_native_document_is_asked_for_or_not() {
    run("native", targets::native);
}

#[test]
fn any_version_file_is_read_or_refused() {
    run("version", targets::version);
}

/// Sealing leaves a sound file as it is, so that what is mutated afterwards is not refused for its checksums; and without it no
/// mutation would get past them.
#[test]
fn sealed_files_get_past_the_checksums() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for name in [
        "format-v1.kith",
        "format-v2.kith",
        "format-v2-filter.kith",
        "format-v3.kith",
        "format-v3-identity.kith",
    ] {
        let mut file = std::fs::read(folder.join(name)).expect("the fixture");
        targets::version(&file);
        let sound = file.clone();
        targets::seal(&mut file);
        assert!(file == sound, "{name}");
        // As_of: anything is a position.
        file[56] ^= 1;
        let open = |file: &[u8]| kith::audience::Version::from_bytes(file).is_ok();
        assert!(!open(&file), "{name}");
        targets::seal(&mut file);
        assert!(open(&file), "{name}");
    }
}
