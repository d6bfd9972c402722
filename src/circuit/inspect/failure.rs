use super::super::pattern::Pattern;

/// gRPC's status codes by number.
/// Source: <https://grpc.io/docs/guides/status-codes/>.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Which answers a breaker would count as failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRule {
    /// HTTP statuses, one bit each.
    http: [u64; 16],
    /// gRPC statuses, one bit each.
    grpc: u32,
    /// Whether a span of status ERROR failed where there is no protocol status.
    pub span_status: bool,
}

impl Default for FailureRule {
    /// HTTP from 500 on and 429; gRPC's server errors: those that the semantic conventions say a server span has
    /// failed with.
    fn default() -> Self {
        let mut rule = Self { http: [0; 16], grpc: 0, span_status: true };
        (500..600).chain([429]).for_each(|status| rule.add_http(status));
        [2, 4, 12, 13, 14, 15].into_iter().for_each(|status| rule.add_grpc(status));
        rule
    }
}

impl FailureRule {
    /// A rule by which only spans of status ERROR without a protocol status are failures.
    pub const fn empty() -> Self {
        Self { http: [0; 16], grpc: 0, span_status: true }
    }

    /// An HTTP status, below 1 000, that is a failure.
    pub fn add_http(&mut self, status: u16) {
        if let Some(word) = self.http.get_mut(usize::from(status / 64)) {
            *word |= 1 << (status % 64);
        }
    }

    /// A gRPC status, below 32, that is a failure.
    pub fn add_grpc(&mut self, status: u8) {
        self.grpc |= 1_u32.checked_shl(u32::from(status)).unwrap_or_default();
    }

    /// Whether an HTTP status is a failure.
    pub fn http(&self, status: u16) -> bool {
        self.http.get(usize::from(status / 64)).is_some_and(|word| word >> (status % 64) & 1 == 1)
    }

    /// Whether a gRPC status is a failure.
    pub fn grpc(&self, status: u8) -> bool {
        self.grpc.checked_shr(u32::from(status)).unwrap_or_default() & 1 == 1
    }
}

/// A rule of its own for some callees.
#[derive(Clone, Debug)]
pub struct FailureOverride {
    /// Names of callees or breakers.
    pub target: Pattern,
    /// The rule for them.
    pub rule: FailureRule,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_breakers_count() {
        let rule = FailureRule::default();
        let failures: Vec<u16> = [200, 302, 404, 409, 429, 499, 500, 503, 599, 600, 65_535].into_iter().filter(|status| rule.http(*status)).collect();
        assert_eq!(failures, [429, 500, 503, 599]);
        let failures: Vec<u8> = (0..=255).filter(|status| rule.grpc(*status)).collect();
        assert_eq!(failures, [2, 4, 12, 13, 14, 15]);
    }
}
