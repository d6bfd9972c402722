/// Strikes that are further apart have nothing to do with each other. Nanoseconds.
const QUIET: u64 = 30_000_000_000;

/// The last times that something went wrong, the newest first: its number among all, to tell how many went well in between,
/// and its end.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::circuit) struct Strikes([(u32, u64); 2]);

impl Strikes {
    /// Notes that it went wrong, in order of arrival; gives the latest end of those it goes wrong together with, if it is
    /// one of two in five, or of three in ten.
    pub(in crate::circuit) fn strike(&mut self, end: u64, number: u32) -> Option<u64> {
        let [first, second] = self.0;
        self.0 = [(number, end), first];
        let close = |(before, at): (u32, u64), all: u32| at > 0 && number.wrapping_sub(before) < all && end.abs_diff(at) < QUIET;
        let together = end.max(first.1);
        if close(first, 5) { Some(together) } else { close(second, 10).then(|| together.max(second.1)) }
    }

    /// Whether the last two were two of five, and lately.
    pub(in crate::circuit) fn are_close(&self, now: u64) -> bool {
        let [(last, at), (before, then)] = self.0;
        at > 0 && then > 0 && last.wrapping_sub(before) < 5 && now.abs_diff(at) < QUIET
    }

    /// The end of the last one; 0 if there was none.
    pub(in crate::circuit) const fn last(&self) -> u64 {
        self.0[0].1
    }
}
