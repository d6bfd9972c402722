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

/// A gRPC status by its name, however it is written: `DEADLINE_EXCEEDED`, `deadline_exceeded` (Connect), `DeadlineExceeded`
/// (Go), `StatusCode.DEADLINE_EXCEEDED` (Python).
pub(super) fn grpc_status(name: &[u8]) -> Option<u8> {
    let exactly = GRPC_STATUSES.iter().position(|known| known.as_bytes() == name);
    exactly.or_else(|| loosely(name)).and_then(|at| u8::try_from(at).ok())
}

#[cold]
fn loosely(name: &[u8]) -> Option<usize> {
    let name = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let is = |known: &str| letters(known.as_bytes()).eq(letters(name));
    // Go and Connect write it with one L.
    if is("CANCELED") { Some(1) } else { GRPC_STATUSES.iter().position(|known| is(known)) }
}

fn letters(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_uppercase)
}

/// Errors that are none: clients of databases and caches say by them that there is nothing of that name.
pub const IGNORED: [&str; 22] = [
    "*redis: nil",
    "*redigo: nil returned",
    "*no rows in result set",
    "*no rows returned by a query that expected to return at least one row",
    "*mongo: no documents in result",
    "*memcache: cache miss",
    "*record not found",
    "*leveldb: not found",
    "*datastore: no such entity",
    "Sequence contains no elements*",
    "EmptyResultDataAccessException",
    "NoResultException",
    "NoResultFound",
    "DoesNotExist",
    "EntityNotFoundException",
    "EntityNotFoundError",
    "ModelNotFoundException",
    "RecordNotFound",
    "NoResultsError",
    "EmptyResultError",
    "DocumentNotFoundException",
    "DocumentNotFoundError",
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
    /// Types and texts of errors that are none.
    pub ignore: Vec<Pattern>,
    /// Whether these are the [usual ones](IGNORED), which hold only where no status of HTTP or gRPC was answered.
    pub ignores_by_default: bool,
}

impl Default for FailureRule {
    /// HTTP from 500 on and 429; gRPC's server errors: those that the semantic conventions say a server span has
    /// failed with. What is [ignored](IGNORED) is none.
    fn default() -> Self {
        let mut rule = Self { ignore: IGNORED.map(Pattern::new).to_vec(), ignores_by_default: true, ..Self::empty() };
        (500..600).chain([429]).for_each(|status| rule.add_http(status));
        [2, 4, 12, 13, 14, 15].into_iter().for_each(|status| rule.add_grpc(status));
        rule
    }
}

impl FailureRule {
    /// A rule by which only spans of status ERROR without a protocol status are failures.
    pub const fn empty() -> Self {
        Self { http: [0; 16], grpc: 0, span_status: true, ignore: Vec::new(), ignores_by_default: false }
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

    /// Whether an error is none: by its type, with or without the package, or by its text.
    pub fn ignores(&self, kind: &[u8], text: &[u8]) -> bool {
        let within = |byte: &u8| matches!(byte, b'.' | b':' | b'$' | b'\\' | b'/');
        let own = kind.rsplit(within).next().unwrap_or_default();
        let said = [kind, own, text.trim_ascii()];
        self.ignore.iter().any(|pattern| said.iter().any(|said| !said.is_empty() && pattern.matches(said)))
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

    #[test]
    fn grpc_statuses_are_read_however_they_are_written() {
        for (name, status) in [
            ("UNAVAILABLE", Some(14)),
            ("unavailable", Some(14)),
            ("Unavailable", Some(14)),
            ("DeadlineExceeded", Some(4)),
            ("deadline_exceeded", Some(4)),
            ("StatusCode.DEADLINE_EXCEEDED", Some(4)),
            ("Canceled", Some(1)),
            ("cancelled", Some(1)),
            ("ok", Some(0)),
            ("OK", Some(0)),
            ("14", None),
            ("", None),
            ("fine", None),
        ] {
            assert_eq!(grpc_status(name.as_bytes()), status, "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_no_failure() {
        let rule = FailureRule::default();
        for (kind, text) in [
            ("github.com/go-redis/redis/v8/internal/proto.RedisError", "redis: nil"),
            ("*errors.errorString", "sql: no rows in result set"),
            ("*fmt.wrapError", "load cart: redis: nil"),
            ("org.springframework.dao.EmptyResultDataAccessException", "Incorrect result size: expected 1, actual 0"),
            ("ActiveRecord::RecordNotFound", ""),
            ("Doctrine\\ORM\\NoResultException", ""),
        ] {
            assert!(rule.ignores(kind.as_bytes(), text.as_bytes()), "{kind}: {text}");
        }
        for (kind, text) in
            [("", ""), ("timeout", "context deadline exceeded"), ("redis: nil?", "redis: nil returned late"), ("FileDoesNotExist", "")]
        {
            assert!(!rule.ignores(kind.as_bytes(), text.as_bytes()), "{kind}: {text}");
        }
        assert!(!FailureRule::empty().ignores(b"", b"redis: nil"));
    }
}
