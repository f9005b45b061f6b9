//! What a packet thread tells others: fixed-size records, in blocks that are recycled.
//!
//! A packet thread only *tries* to hand a full block over. Records that find no room are counted as
//! unrecorded; they never read as lost packets, since packet counts are kept by the packet thread
//! itself. A mark tells the reader that something ends behind the records before it. The last block is sent
//! by [`Pipe::finish`].

use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, TrySendError, bounded};

/// The four timestamps of a reply that came back in time, or of several that share them, in nanoseconds
/// since the Unix epoch.
///
/// T1 and T4 are of the Session-Sender's clock, T2 and T3 of the Session-Reflector's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Sequence number of the request, extended to 64 bits.
    pub seq: u64,
    /// T1 as it stood in the packet: user space, before the send call.
    pub t1_ns: i64,
    /// T1 as the kernel or the interface stamped it; `None` where this packet has no such stamp.
    pub t1_stamp_ns: Option<i64>,
    /// T2, arrival at the Session-Reflector.
    pub t2_ns: i64,
    /// T3, departure from the Session-Reflector.
    pub t3_ns: i64,
    /// T4, arrival of the reply.
    pub t4_ns: i64,
    /// Index of the request's size in the session's list of sizes.
    pub size_class: u8,
    /// How many packets of one train this is of: this one, and those with the next sequence numbers.
    pub count: u16,
}

const _: () = assert!(size_of::<Sample>() <= 64);

impl Sample {
    /// Whether another sample is of the packets that follow, and they share these timestamps too.
    #[must_use]
    pub fn continues_in(&self, next: &Self) -> bool {
        next.seq.checked_sub(self.seq) == Some(self.count.into())
            && (next.t1_ns, next.t1_stamp_ns) == (self.t1_ns, self.t1_stamp_ns)
            && (next.t2_ns, next.t3_ns, next.t4_ns) == (self.t2_ns, self.t3_ns, self.t4_ns)
            && next.size_class == self.size_class
    }
}

/// What goes through a [`Pipe`].
pub trait Record {
    /// How many records it stands for.
    fn packets(&self) -> u64 {
        1
    }
}

impl Record for Sample {
    fn packets(&self) -> u64 {
        self.count.into()
    }
}

/// Records of one block.
const BLOCK: usize = 256;
/// Blocks between a packet thread and the one that reads them.
pub(crate) const BLOCKS: usize = 256;

/// A reader's rest: a fraction of the time in which the blocks are filled at 10 million records/s.
const REST: Duration = Duration::from_millis(1);
/// A reader that has found nothing so often waits to be woken.
const RESTS: u32 = 4;

/// Records, and what is said of all until then.
#[derive(Debug)]
struct Block<T, M> {
    records: Vec<T>,
    mark: Option<M>,
}

impl<T, M> Block<T, M> {
    fn new() -> Self {
        Self {
            records: Vec::with_capacity(BLOCK),
            mark: None,
        }
    }
}

/// The packet thread's end: records of `T`, and between them marks of `M`.
#[derive(Debug)]
pub struct Pipe<T = Sample, M = ()> {
    block: Block<T, M>,
    full: Sender<Block<T, M>>,
    empty: Receiver<Block<T, M>>,
    unrecorded: u64,
}

/// The reading thread's end.
#[derive(Debug)]
pub struct Blocks<T = Sample, M = ()> {
    full: Receiver<Block<T, M>>,
    empty: Sender<Block<T, M>>,
}

/// A pipe with all its blocks allocated.
#[must_use]
pub fn pipe<T, M>() -> (Pipe<T, M>, Blocks<T, M>) {
    pipe_of(BLOCKS)
}

/// The same of so many blocks, at least two: with fewer it takes less memory, and room runs out
/// sooner.
#[must_use]
pub fn pipe_of<T, M>(blocks: usize) -> (Pipe<T, M>, Blocks<T, M>) {
    let blocks = blocks.max(2);
    let (full_in, full_out) = bounded(blocks);
    let (empty_in, empty_out) = bounded(blocks);
    for _ in 1..blocks {
        // There is room: the channel holds as many as this loop sends.
        let _ = empty_in.try_send(Block::new());
    }
    let pipe = Pipe {
        block: Block::new(),
        full: full_in,
        empty: empty_out,
        unrecorded: 0,
    };
    (
        pipe,
        Blocks {
            full: full_out,
            empty: empty_in,
        },
    )
}

impl<T: Record, M> Pipe<T, M> {
    /// Adds a record, or counts it as unrecorded where the reader is behind by every block.
    pub fn push(&mut self, record: T) {
        let packets = record.packets();
        if !self.try_push(record) {
            self.unrecorded += packets;
        }
    }

    /// Whether there is room for a record: then the next [`try_push`](Self::try_push) finds it.
    pub fn has_room(&mut self) -> bool {
        let records = &self.block.records;
        records.len() < records.capacity() || self.hand_over()
    }

    /// Adds a record if there is room.
    pub fn try_push(&mut self, record: T) -> bool {
        let room = self.has_room();
        if room {
            self.block.records.push(record);
        }
        room
    }

    /// Adds a mark behind the records so far, if there is room, and hands them over.
    pub fn try_mark(&mut self, mark: M) -> bool {
        self.block.mark = Some(mark);
        let handed_over = self.hand_over();
        if !handed_over {
            self.block.mark = None;
        }
        handed_over
    }

    /// Hands a started block over, so that a slow session's records arrive in good time.
    pub fn flush(&mut self) {
        if !self.block.records.is_empty() {
            self.hand_over();
        }
    }

    /// Records that found no room so far.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded
    }

    /// Sends the last block, with a last mark, and returns how many records found no room.
    #[must_use]
    pub fn finish(mut self, mark: Option<M>) -> u64 {
        let records: u64 = self.block.records.iter().map(T::packets).sum();
        if records == 0 && mark.is_none() {
            return self.unrecorded;
        }
        self.block.mark = mark;
        // The packets are over: waiting for room delays nothing that is measured.
        match self.full.send(self.block) {
            Ok(()) => self.unrecorded,
            Err(_) => self.unrecorded + records,
        }
    }

    /// Swaps the block for an empty one; false where there is none.
    fn hand_over(&mut self) -> bool {
        let Ok(next) = self.empty.try_recv() else {
            return false;
        };
        let block = std::mem::replace(&mut self.block, next);
        match self.full.try_send(block) {
            Ok(()) => true,
            Err(TrySendError::Full(block) | TrySendError::Disconnected(block)) => {
                self.block = block;
                false
            }
        }
    }
}

impl<T, M> Blocks<T, M> {
    /// Shows the records of the next block to `f`, and the mark behind them; false when the packet thread
    /// has finished.
    pub fn next(&self, f: impl FnOnce(&[T], Option<&M>)) -> bool {
        let Ok(block) = self.full.recv() else {
            return false;
        };
        f(&block.records, block.mark.as_ref());
        self.give_back(block);
        true
    }

    /// Shows every block to `f`, as [`next`](Self::next) does, until the packet thread has finished. Rests in
    /// between: to be woken for each block, thousands of times a second, costs more than the records do.
    pub fn each(&self, mut f: impl FnMut(&[T], Option<&M>)) {
        while self.next(&mut f) {
            let mut rests = 0;
            while rests < RESTS {
                match self.full.try_recv() {
                    Ok(block) => {
                        rests = 0;
                        f(&block.records, block.mark.as_ref());
                        self.give_back(block);
                    }
                    Err(TryRecvError::Disconnected) => break,
                    Err(TryRecvError::Empty) => {
                        rests += 1;
                        // `sleep` ends the thread where the system refuses it.
                        std::thread::park_timeout(REST);
                    }
                }
            }
        }
    }

    fn give_back(&self, mut block: Block<T, M>) {
        block.records.clear();
        block.mark = None;
        // There is room: there are as many blocks as the channel holds.
        let _ = self.empty.try_send(block);
    }
}

/// The reading ends of several packet threads.
#[derive(Debug)]
pub struct Joined<T = Sample>(Vec<Option<Blocks<T>>>);

impl<T> Joined<T> {
    /// Blocks of all of these, as they come.
    #[must_use]
    pub fn new(pipes: Vec<Blocks<T>>) -> Self {
        Self(pipes.into_iter().map(Some).collect())
    }

    /// Shows `f` which pipe has its next block, and the records; `None` in their place when that
    /// packet thread has finished. False when all have.
    pub fn next(&mut self, f: impl FnOnce(usize, Option<&[T]>)) -> bool {
        if let [Some(one)] = self.0.as_slice()
            && let Ok(block) = one.full.recv()
        {
            f(0, Some(&block.records));
            one.give_back(block);
            return true;
        }
        let open: Vec<usize> = (0..self.0.len())
            .filter(|at| self.0[*at].is_some())
            .collect();
        let mut select = Select::new();
        for blocks in self.0.iter().flatten() {
            select.recv(&blocks.full);
        }
        if open.is_empty() {
            return false;
        }
        let ready = select.select();
        let at = open[ready.index()];
        let Some(blocks) = &self.0[at] else {
            return false;
        };
        match ready.recv(&blocks.full) {
            Ok(block) => {
                f(at, Some(&block.records));
                blocks.give_back(block);
            }
            Err(_) => {
                f(at, None);
                self.0[at] = None;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seq: u64) -> Sample {
        Sample {
            seq,
            t1_ns: 0,
            t1_stamp_ns: None,
            t2_ns: 0,
            t3_ns: 0,
            t4_ns: 0,
            size_class: 0,
            count: 1,
        }
    }

    #[test]
    fn every_sample_arrives_once_and_in_order() {
        let (mut pipe, blocks) = pipe::<Sample, ()>();
        let total = 100_000;
        let writer = std::thread::spawn(move || {
            for seq in 0..total {
                pipe.push(sample(seq));
                while pipe.block.records.len() == BLOCK && pipe.empty.is_empty() {
                    std::thread::yield_now();
                }
            }
            pipe.finish(None)
        });
        let mut next = 0;
        while blocks.next(|samples, _| {
            for s in samples {
                assert_eq!(s.seq, next);
                next += 1;
            }
        }) {}
        assert_eq!((next, writer.join().unwrap()), (total, 0));
    }

    #[test]
    fn joined_pipes_are_read_to_the_end_of_each() {
        let (pipes, blocks): (Vec<_>, Vec<_>) = (0..3).map(|_| pipe::<Sample, ()>()).unzip();
        for (thread, mut pipe) in (0..).zip(pipes) {
            for seq in 0..thread * 1000 {
                pipe.push(sample(seq));
            }
            assert_eq!(pipe.finish(None), 0);
        }
        let mut joined = Joined::new(blocks);
        let (mut seen, mut over) = ([0; 3], Vec::new());
        while joined.next(|thread, block| match block {
            Some(block) => {
                assert_eq!(block[0].seq, seen[thread]);
                seen[thread] += block.len() as u64;
            }
            None => over.push(thread),
        }) {}
        over.sort_unstable();
        assert_eq!((seen, over), ([0, 1000, 2000], vec![0, 1, 2]));
    }

    #[test]
    fn a_mark_stands_behind_the_records_before_it() {
        let (mut pipe, blocks) = pipe_of::<Sample, u64>(3);
        pipe.push(sample(0));
        assert!(pipe.try_mark(7));
        pipe.push(sample(1));
        pipe.push(sample(2));
        assert!(pipe.try_mark(8));
        pipe.push(sample(3));
        assert!(!pipe.try_mark(9), "there is no further block");
        let mut seen = Vec::new();
        let mut look = |samples: &[Sample], mark: Option<&u64>| {
            seen.push((samples.len(), mark.copied()));
        };
        assert!(blocks.next(&mut look));
        assert!(pipe.try_mark(10));
        assert_eq!(pipe.finish(Some(11)), 0);
        while blocks.next(&mut look) {}
        assert_eq!(
            seen,
            [(1, Some(7)), (2, Some(8)), (1, Some(10)), (0, Some(11))]
        );
    }

    #[test]
    fn a_stalled_reader_costs_samples_that_are_counted_and_none_twice() {
        let (mut pipe, blocks) = pipe::<Sample, ()>();
        let total = (BLOCK * BLOCKS) as u64 + 1000;
        for seq in 0..total {
            pipe.push(Sample {
                count: 3,
                ..sample(3 * seq)
            });
        }
        let total = 3 * total;
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while blocks.next(|samples, _| seen += samples.iter().map(Sample::packets).sum::<u64>())
            {
            }
            seen
        });
        let unrecorded = pipe.finish(None);
        assert_eq!(unrecorded, 3000);
        assert_eq!(reader.join().unwrap() + unrecorded, total);
    }
}
