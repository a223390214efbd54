//! Huffman codes of bounded length, over the few symbols of one context.

use super::{CODE_BITS, Entry, SYMBOLS};

/// The lengths of the best codes of at most [`CODE_BITS`] bits for symbols that come so often; 0 for those that never do. By
/// package-merge (Larmore and Hirschberg, 1990). A symbol that is alone has length 0.
pub(super) fn lengths(counts: &[u64; SYMBOLS]) -> [u8; SYMBOLS] {
    /// A weight, and how often each symbol is in the package.
    type Package = (u64, [u8; SYMBOLS]);
    let mut single: Vec<Package> = Vec::with_capacity(SYMBOLS);
    for (symbol, count) in counts.iter().enumerate() {
        if *count > 0 {
            let mut symbols = [0; SYMBOLS];
            if let Some(own) = symbols.get_mut(symbol) {
                *own = 1;
            }
            single.push((*count, symbols));
        }
    }
    let mut lengths = [0; SYMBOLS];
    if single.len() < 2 {
        return lengths;
    }
    // Stable: of equal weights the first symbol comes first, so that equal counts give equal codes.
    single.sort_by_key(|(weight, _)| *weight);
    let add = |into: &mut [u8; SYMBOLS], more: &[u8; SYMBOLS]| {
        for (into, more) in into.iter_mut().zip(more) {
            *into = into.saturating_add(*more);
        }
    };
    let mut packages = single.clone();
    for _ in 1..CODE_BITS {
        let mut next = single.clone();
        for pair in packages.chunks_exact(2) {
            if let [(one, symbols), (other, more)] = pair {
                let mut both = *symbols;
                add(&mut both, more);
                next.push((one.saturating_add(*other), both));
            }
        }
        next.sort_by_key(|(weight, _)| *weight);
        packages = next;
    }
    let taken = single.len().saturating_mul(2).saturating_sub(2);
    for (_, symbols) in packages.iter().take(taken) {
        add(&mut lengths, symbols);
    }
    lengths
}

/// Gives each symbol of a context its canonical code, and each run of bits its meaning. Nothing where the lengths are not those of a
/// whole code.
pub(super) fn fill(
    context: usize,
    lengths: &[u8; SYMBOLS],
    codes: &mut [u16; SYMBOLS],
    table: &mut [Entry],
) -> Option<()> {
    let room = u32::try_from(table.len()).ok()?;
    let longest = room.checked_ilog2()?;
    let mut taken = 0u32;
    // The codes of a length stand before those of the next; within one, by symbol.
    for length in 1..=longest {
        let step = room >> length;
        for (symbol, own) in lengths.iter().enumerate() {
            if u32::from(*own) != length {
                continue;
            }
            if taken >= room {
                return None;
            }
            // The first bit of a code is the lowest one of the bits read.
            let code = taken.checked_div(step)?.reverse_bits() >> u32::BITS.saturating_sub(length);
            *codes.get_mut(symbol)? = code as u16;
            for behind in 0..step {
                let bits = code | behind << length;
                *table.get_mut(bits as usize)? = Entry::of(symbol, *own, context as u32);
            }
            taken = taken.saturating_add(step);
        }
    }
    let known = lengths.iter().all(|length| u32::from(*length) <= longest);
    (known && taken == room).then_some(())
}
