//! Threads that read rows: one cuts the input, the others take the blocks apart.
//!
//! The input is read, unpacked and cut by whoever calls, since only there can it be; blocks go to the next thread that has
//! room. Each block knows on which line it begins, so that bad rows are reported by their lines whoever came upon them. An
//! input of one block is taken apart by the caller.
//!
//! A thread that panics closes its channel, which ends the reading with an error.

use std::io::{self, BufRead};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;

use super::super::rows::{Block, Blocks, Dialect, ReadError, RowFormat};
use super::collector::Collector;

/// Blocks that may wait for a thread, besides the one that it is at.
const QUEUED: usize = 2;

/// Reads one input to its end.
pub(super) fn read(
    collectors: &mut [Collector],
    format: &RowFormat,
    blocks: Blocks<impl BufRead>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ReadError> {
    let Some((first, others)) = collectors.split_first_mut() else {
        return Ok(());
    };
    let mut blocks = blocks;
    let (dialect, block) = Dialect::begin(format, first.says(), &mut blocks)?;
    let before: u64 = others.iter().map(Collector::rows_seen).sum();
    let mut block = block;
    while first.has_to_find_the_list() && !blocks.is_at_end() {
        dialect.take_all(first, &block);
        first.failed()?;
        let Some(next) = blocks.next(block.emptied())? else {
            block = Block::default();
            break;
        };
        block = next;
    }
    if blocks.is_at_end() || others.is_empty() {
        let mut next = Some(block);
        while let Some(block) = next {
            dialect.take_all(first, &block);
            first.failed()?;
            next = blocks.next(block.emptied())?;
            if next.is_some() {
                progress(before + first.rows_seen());
            }
        }
    } else {
        let seen = AtomicU64::new(before + first.rows_seen());
        thread::scope(|scope| {
            let (back, spare) = channel();
            let mut hands = Vec::new();
            let mut work = Vec::new();
            for (number, collector) in std::iter::once(&mut *first).chain(others).enumerate() {
                let (give, take) = sync_channel::<Block>(QUEUED);
                let (dialect, seen, back) = (&dialect, &seen, Sender::clone(&back));
                let labour = move || {
                    for block in take {
                        let before = collector.rows_seen();
                        dialect.take_all(collector, &block);
                        seen.fetch_add(collector.rows_seen() - before, Ordering::Relaxed);
                        collector.failed()?;
                        // Nobody wants it where the reading is over.
                        let _ = back.send(block.emptied());
                    }
                    Ok(())
                };
                let name = format!("kith-build-{number}");
                work.push(
                    thread::Builder::new()
                        .name(name)
                        .spawn_scoped(scope, labour)?,
                );
                hands.push(give);
            }
            let dealt = (|| {
                let mut next = Some(block);
                let mut turn = 0;
                while let Some(block) = next {
                    if !deal(&hands, &mut turn, block) {
                        break;
                    }
                    progress(seen.load(Ordering::Relaxed));
                    next = blocks.next(spare.try_recv().unwrap_or_default())?;
                }
                Ok(())
            })();
            drop(hands);
            let panicked = || io::Error::other("a thread that takes rows apart has panicked");
            let done = work
                .into_iter()
                .map(|work| work.join().unwrap_or_else(|_| Err(panicked().into())));
            // All are waited for, and what went wrong with the input comes first.
            done.fold(dealt, |told: Result<(), ReadError>, own| told.and(own))
        })?;
    }
    first.reject_these(blocks.take_refused());
    let seen = collectors.iter().map(Collector::rows_seen).sum();
    progress(seen);
    Ok(())
}

/// Gives a block to a thread that has room, or waits for the one whose turn it is; false where one is gone.
fn deal(hands: &[SyncSender<Block>], turn: &mut usize, block: Block) -> bool {
    let mut block = block;
    for _ in 0..hands.len() {
        *turn = (*turn + 1) % hands.len();
        match hands[*turn].try_send(block) {
            Ok(()) => return true,
            Err(TrySendError::Full(again)) => block = again,
            Err(TrySendError::Disconnected(_)) => return false,
        }
    }
    hands[*turn].send(block).is_ok()
}
