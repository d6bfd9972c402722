use std::io::{self, Read};

use bytes::Bytes;

use super::door::TooMuch;

/// Accounts for memory before it is taken and when it is given back.
pub trait Account: Send {
    /// Accounts for so many bytes more.
    ///
    /// # Errors
    /// There is no room for them now; nothing was added.
    fn hold(&mut self, bytes: usize) -> Result<(), TooMuch>;

    /// Gives back so many of the bytes that were accounted for.
    fn release(&mut self, bytes: usize);
}

/// Accounts for nothing: for data whose size is bounded in another way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unaccounted;

impl Account for Unaccounted {
    fn hold(&mut self, _: usize) -> Result<(), TooMuch> {
        Ok(())
    }

    fn release(&mut self, _: usize) {}
}

/// Bytes, and the memory that holding them takes.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The bytes.
    pub bytes: Bytes,
    /// Bytes of memory they were accounted for with: their buffer's size.
    pub weight: usize,
}

/// The least by which a buffer grows.
const GROWTH_MIN: usize = 4 << 10;

/// Bytes that become more, in one buffer whose whole size is accounted for before it is allocated.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// What is accounted for.
    weight: usize,
    /// The most bytes that it may hold.
    limit: usize,
    /// How many it will probably hold in the end, 0 if that is not known; growing stops there first.
    expected: usize,
}

impl Buffer {
    pub(super) fn new(limit: usize, expected: usize) -> Self {
        Self { bytes: Vec::new(), weight: 0, limit, expected: expected.min(limit) }
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that can be added without growing.
    pub(super) const fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Makes room for so many bytes more. Old and new buffer are both accounted for while one is copied to the other.
    pub(super) fn make_room(&mut self, more: usize, account: &mut dyn Account) -> Result<(), TooMuch> {
        let needed = self.len().saturating_add(more);
        if needed > self.limit {
            return Err(TooMuch::Request(self.limit));
        }
        if more <= self.room() {
            return Ok(());
        }
        let size = self.grown(needed);
        account.hold(size)?;
        self.bytes.reserve_exact(size - self.len());
        account.release(self.weight);
        self.weight = size;
        Ok(())
    }

    /// The size of a buffer that takes the place of this one: twice as large, or what is expected in the end as soon as
    /// that is near enough. So at most one and a half times of what comes in the end is held at one time.
    fn grown(&self, needed: usize) -> usize {
        let before = self.bytes.capacity();
        if before == 0 {
            return needed;
        }
        if needed <= self.expected && self.expected / 4 <= before {
            return self.expected;
        }
        (2 * before).max(before + GROWTH_MIN).clamp(needed, self.limit)
    }

    /// Adds bytes for which there is room.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Reads as many bytes as there is room for; fewer mean that there are no more.
    pub(super) fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        let room = self.room() as u64;
        source.take(room).read_to_end(&mut self.bytes)
    }

    /// What it holds. Where more than half of the buffer is empty, it is exchanged for a smaller one.
    pub(super) fn freeze(mut self, account: &mut dyn Account) -> Held {
        let length = self.len();
        if length < self.weight / 2 && account.hold(length).is_ok() {
            self.bytes.shrink_to_fit();
            account.release(self.weight);
            self.weight = length;
        }
        Held { bytes: self.bytes.into(), weight: self.weight }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Knows what is held, and the most that ever was.
    #[derive(Default)]
    pub(in crate::net) struct Scale {
        pub(in crate::net) held: usize,
        pub(in crate::net) most: usize,
    }

    impl Account for Scale {
        fn hold(&mut self, bytes: usize) -> Result<(), TooMuch> {
            self.held += bytes;
            self.most = self.most.max(self.held);
            Ok(())
        }

        fn release(&mut self, bytes: usize) {
            self.held -= bytes;
        }
    }

    fn filled(bytes: usize, limit: usize, expected: usize) -> (Held, Scale) {
        let mut scale = Scale::default();
        let mut buffer = Buffer::new(limit, expected);
        for piece in vec![1; bytes].chunks(1000) {
            buffer.make_room(piece.len(), &mut scale).unwrap();
            buffer.extend(piece);
            assert_eq!(scale.held, buffer.bytes.capacity());
        }
        (buffer.freeze(&mut scale), scale)
    }

    #[test]
    fn a_buffer_is_accounted_for_whole_while_it_grows() {
        let (held, scale) = filled(1_000_000, 1 << 30, 1 << 30);
        assert_eq!((held.bytes.len(), held.weight), (1_000_000, scale.held));
        assert!(scale.held <= 2_000_000, "{}", scale.held);
    }

    #[test]
    fn what_is_announced_is_what_a_buffer_grows_to() {
        for announced in [1_000_001, 1_048_576, 1_500_000, 2_000_000] {
            let (held, scale) = filled(announced, 1 << 30, announced);
            assert_eq!((held.weight, scale.held), (announced, announced));
            assert!(scale.most <= announced + announced / 2 + 1, "{} for {announced}", scale.most);
        }
    }

    #[test]
    fn a_false_announcement_costs_nothing() {
        let (held, scale) = filled(10_000, 1 << 30, 1 << 30);
        assert!(scale.most < 40_000, "{}", scale.most);
        assert_eq!((held.bytes.len(), held.weight), (10_000, scale.held));
        let (held, _) = filled(1_000_000, 1 << 30, 10);
        assert_eq!(held.bytes.len(), 1_000_000);
    }

    #[test]
    fn no_more_than_the_limit_is_taken() {
        let (mut scale, mut buffer) = (Scale::default(), Buffer::new(1500, usize::MAX));
        buffer.make_room(1000, &mut scale).unwrap();
        buffer.extend(&[0; 1000]);
        assert_eq!(buffer.make_room(501, &mut scale), Err(TooMuch::Request(1500)));
        buffer.make_room(500, &mut scale).unwrap();
        assert_eq!(scale.held, 1500);
    }
}
