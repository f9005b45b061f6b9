//! Replies that answer packets of the session.

/// The first reply in time to a packet, or those to `count` packets with consecutive numbers that left
/// and came together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) seq: u64,
    pub(super) reflector_seq: u32,
    pub(super) count: u16,
    pub(super) t1_ns: Option<i64>,
    /// About when it came.
    pub(super) near: i64,
    /// A clock was set while it was under way.
    pub(super) stepped: bool,
}

impl Answer {
    /// Sequence numbers of the packets and of the replies.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (u64, u32)> {
        let (seq, reflector_seq) = (self.seq, self.reflector_seq);
        (0..self.count).map(move |n| {
            let reflector_seq = reflector_seq.wrapping_add(n.into());
            (seq + u64::from(n), reflector_seq)
        })
    }
}
