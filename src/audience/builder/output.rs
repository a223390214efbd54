//! A version file on its way out: written forward, but for the header, which is known last.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;

use super::super::format::{BLOCK_BYTES, HEADER_BYTES, Section};

/// Where a version file can be written to: what is fresh and empty, and whose first bytes can be put right at the end.
pub trait HeadLast: Write {
    /// Replaces the first bytes of what was written.
    fn write_head(&mut self, head: &[u8]) -> io::Result<()>;
}

impl HeadLast for Vec<u8> {
    fn write_head(&mut self, head: &[u8]) -> io::Result<()> {
        let first = self.get_mut(..head.len());
        first
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(head);
        Ok(())
    }
}

impl HeadLast for io::Sink {
    fn write_head(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl HeadLast for BufWriter<File> {
    fn write_head(&mut self, head: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.get_ref().write_all_at(head, 0)
    }
}

/// Writes sections and takes their checksums.
pub(super) struct Sections<'a> {
    out: &'a mut dyn HeadLast,
    /// Of each block so far, and of what there is of the next.
    sums: Vec<u8>,
    block: crc32fast::Hasher,
    room: usize,
    current: crc32fast::Hasher,
    length: u64,
    done: Vec<Section>,
}

impl<'a> Sections<'a> {
    /// Leaves room for the header.
    pub(super) fn begin(out: &'a mut dyn HeadLast) -> io::Result<Self> {
        out.write_all(&[0; HEADER_BYTES])?;
        Ok(Self {
            out,
            sums: Vec::new(),
            block: crc32fast::Hasher::new(),
            room: BLOCK_BYTES,
            current: crc32fast::Hasher::new(),
            length: 0,
            done: Vec::new(),
        })
    }

    /// How long the section is so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.current.update(bytes);
        self.length += bytes.len() as u64;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (block, rest) = bytes.split_at(bytes.len().min(self.room));
            self.block.update(block);
            self.room -= block.len();
            bytes = rest;
            if self.room == 0 {
                self.end_block();
            }
        }
        Ok(())
    }

    fn end_block(&mut self) {
        let sum = std::mem::take(&mut self.block).finalize();
        self.sums.extend(sum.to_le_bytes());
        self.room = BLOCK_BYTES;
    }

    pub(super) fn end_section(&mut self) {
        self.done.push(Section {
            length: std::mem::take(&mut self.length),
            crc: std::mem::take(&mut self.current).finalize(),
        });
    }

    /// Writes the checksums' section and then the header that `header` makes of all sections.
    pub(super) fn finish<E: From<io::Error>>(
        mut self,
        header: impl FnOnce(Vec<Section>) -> Result<[u8; HEADER_BYTES], E>,
    ) -> Result<(), E> {
        if self.room < BLOCK_BYTES {
            self.end_block();
        }
        self.out.write_all(&self.sums)?;
        self.done.push(Section {
            length: self.sums.len() as u64,
            crc: crc32fast::hash(&self.sums),
        });
        let header = header(self.done)?;
        self.out.write_head(&header)?;
        Ok(self.out.flush()?)
    }
}
