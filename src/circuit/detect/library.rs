//! What today's libraries write when a breaker refuses a call, as they write it.
//!
//! Each text was read in the source of the library, or seen in what real applications sent (November 2026).

use std::sync::{Arc, LazyLock};

use super::rule::{Meaning, NameAt, Place, Rule};

use Meaning::{Full, Maybe, NoBreaker, Opened, ProbeFailed, Rejected};

/// One row: library, meaning, place (`type`, `message`, `stack_trace`, or an attribute), texts, where the name is.
type Row = (&'static str, Meaning, &'static str, &'static [&'static str], Name);

/// Where the name is, in short.
#[derive(Clone, Copy)]
enum Name {
    No,
    Between(&'static str, &'static str),
    Before(&'static str),
    Whole,
}

use Name::{Before, Between, No, Whole};

/// The first that fits counts, so what is no breaker stands before what looks like it.
const ROWS: &[Row] = &[
    // Bulkheads and limiters of the same libraries.
    ("resilience4j", NoBreaker, "message", &["bulkhead '", "is full and does not permit further calls"], No),
    ("resilience4j", NoBreaker, "message", &["ratelimiter '", "does not permit further calls"], No),
    ("resilience4j", NoBreaker, "type", &["resilience4j.bulkhead.bulkheadfullexception"], No),
    ("resilience4j", NoBreaker, "type", &["resilience4j.ratelimiter.requestnotpermitted"], No),
    ("resilience4j", NoBreaker, "message", &["timelimiter '", "recorded a timeout exception"], No),
    ("hystrix", NoBreaker, "message", &["could not be queued for execution"], No),
    ("hystrix", NoBreaker, "message", &["could not acquire a semaphore for execution"], No),
    ("hystrix", NoBreaker, "message", &["timed-out and"], No),
    ("hystrix", NoBreaker, "message", &["fallback execution rejected"], No),
    ("hystrix-go", NoBreaker, "message", &["hystrix: max concurrency"], No),
    ("hystrix-go", NoBreaker, "message", &["hystrix: timeout"], No),
    ("polly", NoBreaker, "type", &["polly.ratelimiting.ratelimiterrejectedexception"], No),
    ("polly", NoBreaker, "type", &["polly.timeout.timeoutrejectedexception"], No),
    ("polly", NoBreaker, "type", &["polly.bulkhead.bulkheadrejectedexception"], No),
    ("sentinel", NoBreaker, "type", &["slots.block.flow.flowexception"], No),
    ("sentinel", NoBreaker, "message", &["sentinelblockexception: flowexception"], No),
    ("smallrye", NoBreaker, "type", &["faulttolerance.exceptions.bulkheadexception"], No),
    ("failsafe", NoBreaker, "type", &["dev.failsafe.bulkheadfullexception"], No),
    ("failsafe", NoBreaker, "type", &["dev.failsafe.ratelimitexceededexception"], No),
    ("akka", NoBreaker, "message", &["circuit breaker timed out."], No),
    ("opossum", NoBreaker, "type", &["esemlocked"], No),
    ("cockatiel", NoBreaker, "message", &["bulkhead capacity exceeded"], No),
    // Resilience4j, also as the cause of what Spring Cloud CircuitBreaker throws.
    ("resilience4j", Full, "message", &["circuitbreaker '", "is half_open and does not permit further calls"], Between("CircuitBreaker '", "'")),
    ("resilience4j", Rejected, "message", &["circuitbreaker '", "and does not permit further calls"], Between("CircuitBreaker '", "'")),
    ("resilience4j", Rejected, "type", &["resilience4j.circuitbreaker.callnotpermittedexception"], Between("CircuitBreaker '", "'")),
    (
        "spring-cloud-circuitbreaker",
        Rejected,
        "stack_trace",
        &["Caused by: io.github.resilience4j.circuitbreaker.CallNotPermittedException"],
        Between("CircuitBreaker '", "'"),
    ),
    ("hystrix", Rejected, "message", &["short-circuited and"], Before(" short-circuited")),
    ("hystrix", Rejected, "message", &["hystrix circuit short-circuited and is open"], No),
    ("polly", Rejected, "type", &["polly.circuitbreaker.brokencircuitexception"], No),
    ("polly", Rejected, "type", &["polly.circuitbreaker.isolatedcircuitexception"], No),
    ("polly", Rejected, "message", &["the circuit is now open and is not allowing calls"], No),
    ("polly", Rejected, "message", &["the circuit is manually held open and is not allowing calls"], No),
    ("sentinel", Rejected, "type", &["slots.block.degrade.degradeexception"], No),
    ("sentinel", Rejected, "message", &["sentinelblockexception: degradeexception"], No),
    ("sentinel", Rejected, "message", &["blocked by sentinel: degradeexception"], No),
    ("smallrye", Full, "message", &["circuit breaker is half-open"], Before(" circuit breaker is")),
    ("smallrye", Rejected, "type", &["faulttolerance.exceptions.circuitbreakeropenexception"], Before(" circuit breaker is")),
    ("failsafe", Rejected, "type", &["dev.failsafe.circuitbreakeropenexception"], No),
    ("akka", Rejected, "type", &["akka.pattern.circuitbreakeropenexception"], No),
    ("pekko", Rejected, "type", &["pekko.pattern.circuitbreakeropenexception"], No),
    ("akka", Rejected, "message", &["circuit breaker is open; calls are failing fast"], No),
    // Python. pybreaker says which call opened it; aiobreaker writes the same texts.
    ("pybreaker", Opened, "message", &["failures threshold reached, circuit breaker opened"], No),
    ("pybreaker", ProbeFailed, "message", &["trial call failed, circuit breaker opened"], No),
    ("pybreaker", Rejected, "message", &["timeout not elapsed yet, circuit breaker still open"], No),
    ("pybreaker", Rejected, "type", &["pybreaker.circuitbreakererror"], No),
    ("aiobreaker", Rejected, "type", &["aiobreaker.state.circuitbreakererror"], No),
    ("circuitbreaker", Rejected, "type", &["circuitbreaker.circuitbreakererror"], Between("Circuit \"", "\"")),
    ("circuitbreaker", Rejected, "message", &["circuit \"", "\" open until"], Between("Circuit \"", "\"")),
    // Node.js.
    ("opossum", Rejected, "type", &["eopenbreaker"], No),
    ("cockatiel", Rejected, "message", &["execution prevented because the circuit breaker is open"], No),
    // Go. An application that wraps the error keeps its text at the end.
    ("hystrix-go", Rejected, "message", &["hystrix: circuit open"], No),
    ("kratos", Rejected, "message", &["request failed due to circuit breaker triggered"], No),
    ("failsafe-go", Rejected, "message", &["circuit breaker open"], No),
    // Ruby.
    ("semian", Rejected, "message", &["semian::opencircuiterror"], Between("[", "]")),
    ("semian", Rejected, "type", &["circuitopenerror"], Between("[", "]")),
    ("semian", Rejected, "type", &["semian::opencircuiterror"], Between("[", "]")),
    ("stoplight", Rejected, "type", &["stoplight::error::redlight"], Whole),
    // Rust.
    ("tower-resilience", Rejected, "message", &["circuit is open; call not permitted"], No),
    ("failsafe-rs", Rejected, "message", &["call was rejected"], No),
    // Proxies and gateways.
    ("traefik", Rejected, "message", &["blocked by circuit-breaker"], No),
    ("envoy", Rejected, "response_flags", &["UO", "UH"], No),
    ("envoy", Rejected, "http.response.header.x-envoy-overloaded", &["*"], No),
    ("linkerd", Rejected, "http.response.header.l5d-proxy-error", &["service in fail-fast"], No),
    ("linkerd", Rejected, "message", &["service in fail-fast"], No),
    // gobreaker, go-zero, Dapr, opossum and others: after all that say more.
    ("gobreaker", Rejected, "message", &["circuit breaker is open"], No),
    ("opossum", Rejected, "message", &["breaker is open"], No),
    ("gobreaker", Maybe, "message", &["too many requests"], No),
];

/// Texts that count at the end only: in the middle of a sentence they may be about anything.
const AT_END: [&str; 5] = ["circuit breaker open", "circuit breaker is open", "breaker is open", "call was rejected", "too many requests"];

/// The library of each of [`rules`], in their order.
pub fn names() -> Arc<[Arc<str>]> {
    static NAMES: LazyLock<Arc<[Arc<str>]>> = LazyLock::new(|| ROWS.iter().map(|(library, ..)| Arc::from(*library)).collect());
    Arc::clone(&NAMES)
}

/// The rules for the libraries that are known.
pub fn rules() -> Vec<Rule> {
    let rule = |(library, meaning, place, texts, name): &Row| Rule {
        library: (*library).into(),
        meaning: *meaning,
        place: match *place {
            "type" => Place::Type,
            "message" => Place::Message,
            "stack_trace" => Place::StackTrace,
            attribute => Place::Flag(attribute.into()),
        },
        texts: texts.iter().map(|text| (*text).into()).collect(),
        name: match *name {
            No => NameAt::Nowhere,
            Between(start, end) => NameAt::Between(start.into(), end.into()),
            Before(end) => NameAt::Before(end.into()),
            Whole => NameAt::Whole,
        },
        at_end: AT_END.contains(&texts.last().copied().unwrap_or_default()),
    };
    ROWS.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::rule::{Matcher, Said},
        *,
    };

    fn found(kind: &str, message: &str, stack_trace: &str) -> Option<(String, Meaning, String)> {
        let matcher = Matcher::new(rules()).unwrap();
        let said = Said { kind: kind.as_bytes(), message: message.as_bytes(), stack_trace: stack_trace.as_bytes() };
        let found = matcher.find(&[said], |_| &[])?;
        let library = matcher.rules()[usize::from(found.rule)].library.to_string();
        Some((library, found.meaning, String::from_utf8_lossy(found.name).into_owned()))
    }

    #[test]
    fn libraries_are_recognised_by_what_they_write() {
        for (kind, message, library, meaning, name) in [
            (
                "io.github.resilience4j.circuitbreaker.CallNotPermittedException",
                "CircuitBreaker 'payments' is OPEN and does not permit further calls",
                "resilience4j",
                Rejected,
                "payments",
            ),
            ("com.netflix.hystrix.exception.HystrixRuntimeException", "Pay short-circuited and no fallback available.", "hystrix", Rejected, "Pay"),
            ("Polly.CircuitBreaker.BrokenCircuitException`1[[System.Int32]]", "", "polly", Rejected, ""),
            ("pybreaker.CircuitBreakerError", "Timeout not elapsed yet, circuit breaker still open", "pybreaker", Rejected, ""),
            ("pybreaker.CircuitBreakerError", "Failures threshold reached, circuit breaker opened", "pybreaker", Opened, ""),
            ("pybreaker.CircuitBreakerError", "Trial call failed, circuit breaker opened", "pybreaker", ProbeFailed, ""),
            (
                "aiobreaker.state.CircuitBreakerError",
                "('Timeout not elapsed yet, circuit breaker still open', datetime.datetime(2026, 1, 1))",
                "pybreaker",
                Rejected,
                "",
            ),
            (
                "circuitbreaker.CircuitBreakerError",
                "Circuit \"pay\" OPEN until 2026 (5 failures, 4 sec remaining)",
                "circuitbreaker",
                Rejected,
                "pay",
            ),
            ("EOPENBREAKER", "Breaker is open", "opossum", Rejected, ""),
            ("Error", "Execution prevented because the circuit breaker is open", "cockatiel", Rejected, ""),
            ("*fmt.wrapError", "charge card: circuit breaker is open", "gobreaker", Rejected, ""),
            ("*errors.errorString", "too many requests", "gobreaker", Maybe, ""),
            ("*errors.errorString", "circuit breaker open", "failsafe-go", Rejected, ""),
            ("Net::CircuitOpenError", "[pay] Semian::OpenCircuitError caused by x", "semian", Rejected, "pay"),
            ("Stoplight::Error::RedLight", "pay-light", "stoplight", Rejected, "pay-light"),
            ("", "blocked by circuit-breaker (\"NetworkErrorRatio() > 0.5\")", "traefik", Rejected, ""),
            (
                "org.eclipse.microprofile.faulttolerance.exceptions.CircuitBreakerOpenException",
                "Shop#pay circuit breaker is open",
                "smallrye",
                Rejected,
                "Shop#pay",
            ),
        ] {
            assert_eq!(found(kind, message, ""), Some((library.to_owned(), meaning, name.to_owned())), "{kind}: {message}");
        }
        let stack = "NoFallbackAvailableException: No fallback available.\nCaused by: \
                     io.github.resilience4j.circuitbreaker.CallNotPermittedException: CircuitBreaker 'pay' is OPEN and does not permit";
        let spring = found("org.springframework.cloud.client.circuitbreaker.NoFallbackAvailableException", "No fallback available.", stack);
        assert_eq!(spring, Some(("spring-cloud-circuitbreaker".to_owned(), Rejected, "pay".to_owned())));
    }

    #[test]
    fn every_row_of_the_table_is_found_by_what_it_looks_for() {
        let matcher = Matcher::new(rules()).unwrap();
        for (index, rule) in (0_u16..).zip(matcher.rules()) {
            let text = rule.texts.join(" x ");
            let mut said = Said::default();
            let flag = match &rule.place {
                Place::Type => {
                    said.kind = text.as_bytes();
                    None
                }
                Place::Message => {
                    said.message = text.as_bytes();
                    None
                }
                Place::StackTrace => {
                    said.stack_trace = text.as_bytes();
                    None
                }
                Place::Flag(key) => Some((key, rule.texts[0].as_bytes())),
            };
            let found = matcher.find(&[said], |key| flag.filter(|(known, _)| ***known == *key).map(|(_, value)| value).unwrap_or_default());
            let found = found.unwrap_or_else(|| panic!("nothing finds {rule:?}"));
            assert_eq!(found.meaning, rule.meaning, "{rule:?}");
            assert!(found.rule <= index, "{rule:?}");
        }
    }

    #[test]
    fn what_is_no_breaker_is_none() {
        for (kind, message) in [
            ("io.github.resilience4j.bulkhead.BulkheadFullException", "Bulkhead 'pay' is full and does not permit further calls"),
            ("io.github.resilience4j.ratelimiter.RequestNotPermitted", "RateLimiter 'pay' does not permit further calls"),
            ("akka.pattern.CircuitBreaker$$anon$1", "Circuit Breaker Timed out."),
            ("", "hystrix: timeout"),
        ] {
            assert_eq!(found(kind, message, "").map(|(_, meaning, _)| meaning), Some(NoBreaker), "{message}");
        }
        assert_eq!(found("java.net.ConnectException", "Connection refused", ""), None);
        assert_eq!(found("Error", "call was rejected by the risk engine", ""), None);
        assert_eq!(found("Error", "circuit breaker open in substation 7", ""), None);
        assert_eq!(found("", "", ""), None);
    }

    #[test]
    fn proxies_tell_by_flags() {
        let matcher = Matcher::new(rules()).unwrap();
        let flagged = |value: &'static str| matcher.find(&[], |key| if key == "response_flags" { value.as_bytes() } else { &[] });
        assert_eq!(flagged("UF,UO").map(|found| found.meaning), Some(Rejected));
        assert_eq!(flagged("-"), None);
        assert_eq!(flagged("UOX"), None);
    }
}
