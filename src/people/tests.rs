//! What only shows when the parts work together: rows, register, journal, checkpoint and table against a plain account of what was
//! said; on storage and a clock that are simulated.

mod disk;
mod model;
mod world;

use model::Model;
use world::{Dice, Step, World};

fn number(name: &str, usual: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(usual, |text| text.parse().expect(name))
}

/// Seeds above those of every day under which something was wrong once.
const FOUND_SOMETHING: [u64; 1] = [2050];

/// Any order of updates, uploads, deltas, rollbacks, erasures, opt-outs, links, restarts, checkpoints and time: after every step a bid
/// knows of everybody what a plain account of all that was said comes to.
#[test]
fn any_order_of_anything_comes_to_what_was_said() {
    let (from, count) = (number("KITH_SIM_FROM", 0), number("KITH_SIM_SEEDS", 200));
    let all = (from..from + count).chain(FOUND_SOMETHING);
    for seed in all {
        let mut dice = Dice::of(seed);
        let (mut world, mut model) = (World::new(), Model::default());
        let mut taken = Vec::new();
        for _ in 0..8 + dice.below(16) {
            let step = Step::drawn(&mut dice, &world);
            taken.push(format!("{:>6} {step:?}", world.now));
            world.take(&step, &mut model);
            if let Err(wrong) = world.compare(&model) {
                panic!("seed {seed}: {wrong}\n{}", taken.join("\n"));
            }
        }
    }
}

/// All orders of a few operations to depth six: who was erased or opted out is never again in a segment, whatever comes after, and what
/// is kept holds nothing of her.
#[test]
fn no_order_of_operations_to_depth_six_brings_an_erased_id_back() {
    let depth = usize::try_from(number("KITH_DEPTH", 3)).expect("a depth");
    let mut orders = 0u64;
    let mut path = Vec::new();
    walk(depth, &mut path, &mut orders);
    assert!(orders >= (Step::ERASING.len() as u64).pow(u32::try_from(depth).expect("few")));
}

fn walk(depth: usize, path: &mut Vec<usize>, orders: &mut u64) {
    if path.len() == depth {
        *orders += 1;
        let (mut world, mut model) = (World::new(), Model::default());
        for place in path.iter() {
            world.take(&Step::ERASING[*place], &mut model);
            if let Err(wrong) = world
                .compare(&model)
                .and_then(|()| world.has_no_trace(&model))
            {
                let steps: Vec<_> = path.iter().map(|place| &Step::ERASING[*place]).collect();
                panic!("{wrong} at step {place} of {steps:#?}");
            }
        }
        return;
    }
    for place in 0..Step::ERASING.len() {
        path.push(place);
        walk(depth, path, orders);
        path.pop();
    }
}
