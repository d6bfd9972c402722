//! What today's libraries write when a breaker refuses a call, as they write it.
//!
//! Each text was read in the source of the library, or seen in what real applications sent (November 2026). A row says by
//! which types and texts an error is recognised; where errors and their causes stand is the same for all.

use std::sync::{Arc, LazyLock};

use super::rule::{Meaning, NameAt, Place, Rule};

use Meaning::{ForcedOpen, Full, Limit, Maybe, NoBreaker, Opened, ProbeFailed, Rejected};

/// One row: library, meaning, types, of which one must be there, or else texts, which must all be there, and where the
/// name is.
type Row = (&'static str, Meaning, &'static [&'static str], &'static [&'static str], Name);

/// Where the name is, in short.
#[derive(Clone, Copy)]
enum Name {
    No,
    Between(&'static str, &'static str),
    WordBefore(&'static str),
    Whole,
}

use Name::{Between, No, Whole, WordBefore};

/// The first that fits an error counts, so what is no breaker stands before what looks like it.
const ROWS: &[Row] = &[
    // Bulkheads and limiters of the same libraries.
    ("resilience4j", NoBreaker, &["resilience4j.bulkhead.bulkheadfullexception"], &["bulkhead '", "is full and does not permit further calls"], No),
    ("resilience4j", NoBreaker, &["resilience4j.ratelimiter.requestnotpermitted"], &["ratelimiter '", "does not permit further calls"], No),
    ("resilience4j", NoBreaker, &[], &["timelimiter '", "recorded a timeout exception"], No),
    ("hystrix", NoBreaker, &[], &["could not be queued for execution"], No),
    ("hystrix", NoBreaker, &[], &["could not acquire a semaphore for execution"], No),
    ("hystrix", NoBreaker, &[], &["timed-out and"], No),
    ("hystrix", NoBreaker, &[], &["fallback execution rejected"], No),
    ("hystrix-go", NoBreaker, &[], &["hystrix: max concurrency"], No),
    ("hystrix-go", NoBreaker, &[], &["hystrix: timeout"], No),
    ("cep21-circuit", NoBreaker, &[], &["circuit is open: concurrencyreached=true"], No),
    ("polly", NoBreaker, &["polly.ratelimiting.ratelimiterrejectedexception"], &[], No),
    ("polly", NoBreaker, &["polly.timeout.timeoutrejectedexception"], &[], No),
    ("polly", NoBreaker, &["polly.bulkhead.bulkheadrejectedexception"], &[], No),
    ("sentinel", NoBreaker, &["slots.block.flow.flowexception"], &["sentinelblockexception: flowexception"], No),
    ("smallrye", NoBreaker, &["faulttolerance.exceptions.bulkheadexception"], &[], No),
    // Of dev.failsafe, and of net.jodah.failsafe before version 3.
    ("failsafe", NoBreaker, &["failsafe.bulkheadfullexception", "failsafe.ratelimitexceededexception"], &[], No),
    ("akka", NoBreaker, &[], &["circuit breaker timed out."], No),
    ("vertx", NoBreaker, &["io.vertx.circuitbreaker.timeoutexception"], &[], No),
    ("opossum", NoBreaker, &["esemlocked"], &[], No),
    ("cockatiel", NoBreaker, &["bulkheadrejectederror"], &["bulkhead capacity exceeded"], No),
    ("semian", NoBreaker, &["semian::resourcebusyerror"], &[], No),
    // Held open by an operator.
    ("resilience4j", ForcedOpen, &[], &["circuitbreaker '", "is forced_open and does not permit further calls"], Between("CircuitBreaker '", "'")),
    ("polly", ForcedOpen, &["polly.circuitbreaker.isolatedcircuitexception"], &["the circuit is manually held open"], No),
    ("cockatiel", ForcedOpen, &["isolatedcircuiterror"], &[], No),
    // JVM. Resilience4j also as the cause of what Spring Cloud CircuitBreaker throws.
    ("resilience4j", Full, &[], &["circuitbreaker '", "is half_open and does not permit further calls"], Between("CircuitBreaker '", "'")),
    (
        "resilience4j",
        Rejected,
        &["resilience4j.circuitbreaker.callnotpermittedexception"],
        &["circuitbreaker '", "and does not permit further calls"],
        Between("CircuitBreaker '", "'"),
    ),
    // Before version 0.15.
    ("resilience4j", Rejected, &["resilience4j.circuitbreaker.circuitbreakeropenexception"], &[], Between("CircuitBreaker '", "'")),
    ("hystrix", Rejected, &[], &["short-circuited and", "fallback"], WordBefore(" short-circuited")),
    ("hystrix", Rejected, &[], &["hystrix circuit short-circuited and is open"], No),
    ("sentinel", Rejected, &["slots.block.degrade.degradeexception"], &["sentinelblockexception: degradeexception"], No),
    ("sentinel", Rejected, &[], &["blocked by sentinel: degradeexception"], No),
    ("smallrye", Full, &[], &["circuit breaker is half-open"], WordBefore(" circuit breaker is")),
    ("smallrye", Rejected, &["faulttolerance.exceptions.circuitbreakeropenexception"], &[], WordBefore(" circuit breaker is")),
    ("failsafe", Rejected, &["failsafe.circuitbreakeropenexception"], &[], No),
    ("akka", Rejected, &["akka.pattern.circuitbreakeropenexception", "akka.pattern.opencircuitexception"], &[], No),
    ("pekko", Rejected, &["pekko.pattern.circuitbreakeropenexception"], &[], No),
    ("akka", Rejected, &[], &["circuit breaker is open; calls are failing fast"], No),
    ("micronaut", Rejected, &["micronaut.retry.exception.circuitopenexception"], &[], No),
    ("vertx", Rejected, &["io.vertx.circuitbreaker.opencircuitexception"], &[], No),
    ("armeria", Rejected, &["armeria.client.circuitbreaker.failfastexception"], &[], No),
    ("finagle", Rejected, &["finagle.failedfastexception"], &[], No),
    ("helidon", Rejected, &["helidon.faulttolerance.circuitbreakeropenexception"], &[], No),
    ("commons-lang", Rejected, &["commons.lang3.concurrent.circuitbreakingexception"], &[], No),
    ("arrow", Rejected, &["circuitbreaker$executionrejected", "circuitbreaker.executionrejected"], &[], No),
    ("rezilience", Rejected, &["circuitbreaker$circuitbreakeropen"], &[], No),
    ("monix", Rejected, &["monix.execution.exceptions.executionrejectedexception"], &[], No),
    // .NET; Polly's types may be generic.
    ("polly", Rejected, &["polly.circuitbreaker.brokencircuitexception"], &["the circuit is now open and is not allowing calls"], No),
    // Python. pybreaker says which call opened it; aiobreaker writes the same texts.
    ("pybreaker", Opened, &[], &["failures threshold reached, circuit breaker opened"], No),
    ("pybreaker", ProbeFailed, &[], &["trial call failed, circuit breaker opened"], No),
    ("pybreaker", Rejected, &["pybreaker.circuitbreakererror"], &["timeout not elapsed yet, circuit breaker still open"], No),
    ("aiobreaker", Rejected, &["aiobreaker.state.circuitbreakererror"], &[], No),
    ("circuitbreaker", Rejected, &["circuitbreaker.circuitbreakererror"], &["circuit \"", "\" open until"], Between("Circuit \"", "\"")),
    ("purgatory", Rejected, &["purgatory.domain.model.openedstate"], &[], No),
    (
        "aws-lambda-powertools",
        Rejected,
        &["aws_lambda_powertools.utilities.circuit_breaker.exceptions.circuitbreakeropenerror"],
        &[],
        Between("Circuit '", "'"),
    ),
    // Node.js.
    ("opossum", Rejected, &["eopenbreaker"], &[], No),
    ("cockatiel", Rejected, &["brokencircuiterror"], &["execution prevented because the circuit breaker is open"], No),
    ("brakes", Rejected, &["circuitbrokenerror"], &[], Between("[Breaker: ", "]")),
    // Go. An application that wraps the error keeps its text at the end.
    ("hystrix-go", Rejected, &[], &["hystrix: circuit open"], No),
    ("kratos", Rejected, &[], &["request failed due to circuit breaker triggered"], No),
    ("sentinel-golang", Rejected, &[], &["sentinelblockerror: blocktypecircuitbreaking"], No),
    ("cep21-circuit", Rejected, &[], &["circuit is open: concurrencyreached=false"], No),
    ("failsafe-go", Rejected, &[], &["circuit breaker open"], No),
    // Ruby.
    ("semian", Rejected, &[], &["semian::opencircuiterror"], Between("[", "] Semian")),
    ("semian", Rejected, &["semian::opencircuiterror", "::circuitopenerror"], &[], Between("[", "]")),
    ("stoplight", Rejected, &["stoplight::error::redlight"], &[], Whole),
    ("circuitbox", Rejected, &["circuitbox::opencircuiterror"], &[], No),
    ("circuit_breaker", Rejected, &["circuitbreaker::circuitbrokenexception"], &[], No),
    // PHP: types in their own spelling, and as the SDK writes them.
    (
        "ganesha",
        Rejected,
        &["ganesha\\exception\\rejectedexception", "ganesha.exception.rejectedexception"],
        &[],
        Between("\"", "\" is not available"),
    ),
    // Rust.
    ("tower-resilience", Rejected, &[], &["circuit is open; call not permitted"], No),
    ("failsafe-rs", Rejected, &[], &["call was rejected"], No),
    // Proxies and gateways.
    ("traefik", Rejected, &[], &["blocked by circuit-breaker"], No),
    ("linkerd", Rejected, &[], &["service in fail-fast"], No),
    // Breakers of people's own, and libraries that are not listed, by what nearly all call it: after all that say more.
    ("other", ForcedOpen, &["isolatedcircuitexception"], &["circuit", "' is forced_open"], Between("'", "'")),
    (
        "other",
        Rejected,
        &[
            "circuitbreakeropenexception",
            "circuitbreakeropenerror",
            "circuitopenexception",
            "circuitopenerror",
            "opencircuitexception",
            "opencircuiterror",
            "brokencircuitexception",
            "brokencircuiterror",
            "circuitbrokenexception",
            "circuitbrokenerror",
            "circuitbreakeropen",
            "circuitisopen",
        ],
        &["circuit breaker '", "' is open"],
        Between("Circuit breaker '", "'"),
    ),
    ("other", Rejected, &[], &["circuit breaker \"", "\" is open"], Between("Circuit breaker \"", "\"")),
    ("other", Rejected, &[], &["circuitbreaker '", "' is open"], Between("CircuitBreaker '", "'")),
    ("other", Rejected, &[], &["circuit '", "' is open"], Between("Circuit '", "'")),
    ("other", Rejected, &[], &["circuit \"", "\" is open"], Between("Circuit \"", "\"")),
    // gobreaker, go-zero, Dapr, opossum and others.
    ("gobreaker", Rejected, &[], &["circuit breaker is open"], No),
    ("other", Rejected, &[], &["circuit breaker for '", "' is open"], Between("circuit breaker for '", "'")),
    ("other", Rejected, &[], &["circuit breaker for ", " is open"], Between("circuit breaker for ", " is open")),
    ("other", Rejected, &[], &["circuit breaker ", " is open"], Between("circuit breaker ", " is open")),
    ("opossum", Rejected, &[], &["breaker is open"], No),
    ("vertx", Rejected, &[], &["open circuit"], No),
    ("other", Rejected, &[], &["breaker open"], No),
    ("other", Rejected, &[], &["circuit open"], No),
    ("other", Rejected, &[], &["circuit is open"], No),
    ("gobreaker", Maybe, &[], &["too many requests"], No),
];

/// A flag: library, meaning, attribute, values, of which one must be there.
type Flag = (&'static str, Meaning, &'static str, &'static [&'static str]);

/// What proxies say by attributes. What Envoy calls circuit breaking (`UO`, `x-envoy-overloaded`) limits connections and
/// requests; where outlier detection left no host (`UH`), something is open.
const FLAGS: &[Flag] = &[
    ("envoy", Limit, "response_flags", &["UO"]),
    ("envoy", Limit, "http.response.header.x-envoy-overloaded", &["*"]),
    ("envoy", Rejected, "response_flags", &["UH"]),
    ("linkerd", Rejected, "http.response.header.l5d-proxy-error", &["service in fail-fast"]),
];

/// Texts that count at the end only: in the middle of a sentence they may be about anything.
const AT_END: [&str; 10] = [
    " is open",
    "circuit breaker open",
    "circuit breaker is open",
    "breaker is open",
    "breaker open",
    "circuit is open",
    "circuit open",
    "open circuit",
    "call was rejected",
    "too many requests",
];

/// The library of each of [`rules`], in their order.
pub fn names() -> Arc<[Arc<str>]> {
    static NAMES: LazyLock<Arc<[Arc<str>]>> = LazyLock::new(|| rules().into_iter().map(|rule| Arc::from(rule.library)).collect());
    Arc::clone(&NAMES)
}

/// The rules for the libraries that are known.
pub fn rules() -> Vec<Rule> {
    ROWS.iter().flat_map(of_row).chain(FLAGS.iter().map(of_flag)).collect()
}

/// One rule for each type, and one for the texts.
fn of_row((library, meaning, types, texts, name): &Row) -> impl Iterator<Item = Rule> + use<> {
    let by_type = types.iter().map(|kind| (Place::Type, std::slice::from_ref(kind)));
    let by_text = (!texts.is_empty()).then_some((Place::Message, *texts));
    let (library, meaning, name) = (*library, *meaning, *name);
    by_type.chain(by_text).map(move |(place, texts)| Rule {
        library: library.into(),
        meaning,
        place,
        texts: texts.iter().map(|text| (*text).into()).collect(),
        name: match name {
            No => NameAt::Nowhere,
            Between(start, end) => NameAt::Between(start.into(), end.into()),
            WordBefore(end) => NameAt::WordBefore(end.into()),
            Whole => NameAt::Whole,
        },
        at_end: texts.last().is_some_and(|text| AT_END.contains(text)),
        own: false,
    })
}

fn of_flag((library, meaning, attribute, values): &Flag) -> Rule {
    Rule {
        library: (*library).into(),
        meaning: *meaning,
        place: Place::Flag((*attribute).into()),
        texts: values.iter().map(|value| (*value).into()).collect(),
        name: NameAt::Nowhere,
        at_end: false,
        own: false,
    }
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

    /// Type, message, and what they are recognised as: library, meaning, name.
    const WRITTEN: &[(&str, &str, &str, Meaning, &str)] = &[
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
        ("circuitbreaker.CircuitBreakerError", "Circuit \"pay\" OPEN until 2026 (5 failures, 4 sec remaining)", "circuitbreaker", Rejected, "pay"),
        ("EOPENBREAKER", "Breaker is open", "opossum", Rejected, ""),
        ("Error", "Execution prevented because the circuit breaker is open", "cockatiel", Rejected, ""),
        ("*fmt.wrapError", "charge card: circuit breaker is open", "gobreaker", Rejected, ""),
        ("*errors.errorString", "too many requests", "gobreaker", Maybe, ""),
        ("*errors.errorString", "circuit breaker open", "failsafe-go", Rejected, ""),
        ("Net::CircuitOpenError", "[pay] Semian::OpenCircuitError caused by x", "semian", Rejected, "pay"),
        ("Stoplight::Error::RedLight", "pay-light", "stoplight", Rejected, "pay-light"),
        ("net.jodah.failsafe.CircuitBreakerOpenException", "", "failsafe", Rejected, ""),
        ("dev.failsafe.CircuitBreakerOpenException", "", "failsafe", Rejected, ""),
        ("io.micronaut.retry.exception.CircuitOpenException", "Circuit Open: Connection refused", "micronaut", Rejected, ""),
        ("io.vertx.circuitbreaker.OpenCircuitException", "open circuit", "vertx", Rejected, ""),
        ("com.linecorp.armeria.client.circuitbreaker.FailFastException", "", "armeria", Rejected, ""),
        (
            "aws_lambda_powertools.utilities.circuit_breaker.exceptions.CircuitBreakerOpenError",
            "Circuit 'pay' is open.",
            "aws-lambda-powertools",
            Rejected,
            "pay",
        ),
        ("Ackintosh\\Ganesha\\Exception\\RejectedException", "\"pay\" is not available", "ganesha", Rejected, "pay"),
        ("com.acme.CircuitBreakerOpenException", "", "other", Rejected, ""),
        ("RuntimeError", "Circuit breaker 'pay' is OPEN", "other", Rejected, "pay"),
        (
            "io.github.resilience4j.circuitbreaker.CallNotPermittedException",
            "CircuitBreaker 'pay' is FORCED_OPEN and does not permit further calls",
            "resilience4j",
            ForcedOpen,
            "pay",
        ),
        ("Polly.CircuitBreaker.IsolatedCircuitException", "The circuit is manually held open and is not allowing calls.", "polly", ForcedOpen, ""),
        ("*errors.joinError", "circuit breaker is open\nfallback: refused", "gobreaker", Rejected, ""),
        ("*fmt.wrapError", "circuit breaker is open: payments", "gobreaker", Rejected, ""),
        ("Error", "Circuit breaker is open, retry in 5s", "gobreaker", Rejected, ""),
        ("Error", "Circuit breaker pay is open", "other", Rejected, "pay"),
        ("Error", "The circuit breaker for 'pay' is open", "other", Rejected, "pay"),
        ("acme.CircuitBreakerOpen", "no", "other", Rejected, ""),
        ("", "blocked by circuit-breaker (\"NetworkErrorRatio() > 0.5\")", "traefik", Rejected, ""),
        (
            "org.eclipse.microprofile.faulttolerance.exceptions.CircuitBreakerOpenException",
            "Shop#pay circuit breaker is open",
            "smallrye",
            Rejected,
            "Shop#pay",
        ),
    ];

    #[test]
    fn libraries_are_recognised_by_what_they_write() {
        for (kind, message, library, meaning, name) in WRITTEN {
            let expected = || Some(((*library).to_owned(), *meaning, (*name).to_owned()));
            assert_eq!(found(kind, message, ""), expected(), "{kind}: {message}");
            // The same as a cause, by its line in a stack trace.
            let stack_trace = format!("com.acme.PayFailed: no\n\tat com.acme.Pay.go(Pay.java:9)\nCaused by: {kind}: {message}\n\t... 12 more");
            let behind = found("com.acme.PayFailed", "no", &stack_trace);
            assert_eq!(behind, expected(), "{stack_trace}");
        }
        let stack = "NoFallbackAvailableException: No fallback available.\nCaused by: \
                     io.github.resilience4j.circuitbreaker.CallNotPermittedException: CircuitBreaker 'pay' is OPEN and does not permit";
        let spring = found("org.springframework.cloud.client.circuitbreaker.NoFallbackAvailableException", "No fallback available.", stack);
        assert_eq!(spring, Some(("resilience4j".to_owned(), Rejected, "pay".to_owned())));
    }

    #[test]
    fn causes_are_found_however_they_are_written() {
        for (stack_trace, library, name) in [
            (
                "Acme.PayException: Payment failed\n ---> Polly.CircuitBreaker.BrokenCircuitException: The circuit is now open and is not allowing \
                 calls.\n   at Polly.X()\n   --- End of inner exception stack trace ---\n   at Acme.Pay.Go()",
                "polly",
                "",
            ),
            (
                "a.B: refused\n\tat a.b.C(D.java:1)\n\tSuppressed: io.github.resilience4j.circuitbreaker.CallNotPermittedException: CircuitBreaker \
                 'payments' is OPEN and does not permit further calls\n\t\tat x.y(Z.java)\nCaused by: java.net.ConnectException: refused",
                "resilience4j",
                "payments",
            ),
            (
                "Traceback (most recent call last):\n  File \"a.py\", line 1, in pay\npybreaker.CircuitBreakerError: Timeout not elapsed yet, circuit \
                 breaker still open\n\nDuring handling of the above exception, another exception occurred:\n\nacme.PayError: no",
                "pybreaker",
                "",
            ),
            ("Error: no\n    at pay (/app/pay.js:3:9)\n  [cause]: Error: Breaker is open\n      at x (/app/y.js:1:1)", "opossum", ""),
            ("pay.rb:3:in 'pay': [stock] Semian::OpenCircuitError caused by x (Net::CircuitOpenError)", "semian", "stock"),
            ("payment failed\n\nCaused by:\n    0: call pay\n    1: circuit is open; call not permitted", "tower-resilience", ""),
            ("a.B: no\nCaused by: a.ExecutionException: net.jodah.failsafe.CircuitBreakerOpenException", "failsafe", ""),
            ("a.B: no\nCaused by: a.C: Order 17 failed: PayCommand short-circuited and fallback failed.", "hystrix", "PayCommand"),
        ] {
            let found = found("com.acme.PayFailed", "no", stack_trace);
            assert_eq!(found, Some((library.to_owned(), Rejected, name.to_owned())), "{stack_trace}");
        }
        let wrapped = "Request processing failed; nested exception is com.netflix.hystrix.exception.HystrixRuntimeException: PayCommand \
                       short-circuited and fallback failed.";
        assert_eq!(found("a.ServletException", wrapped, ""), Some(("hystrix".to_owned(), Rejected, "PayCommand".to_owned())));
        let frames = "a.B: no\n\tat io.github.resilience4j.circuitbreaker.CircuitBreaker.acquirePermission(CircuitBreaker.java:1)\n\tat \
                      a.CircuitBreakerOpenException.of(X.java:1)\n#1 /app/x.php(3): a.CircuitBreakerOpenException->of()";
        assert_eq!(found("a.B", "no", frames), None, "a frame is no cause");
    }

    #[test]
    fn a_limiter_beside_it_does_not_hide_a_refusal() {
        let limited = Said { message: b"TimeLimiter 'payments' recorded a timeout exception.", ..Said::default() };
        let refused = Said { message: b"CircuitBreaker 'payments' is OPEN and does not permit further calls", ..Said::default() };
        let behind =
            Said { stack_trace: b"a.B: no\nSuppressed: a.C: CircuitBreaker 'payments' is OPEN and does not permit further calls", ..limited };
        let of_ours = |meaning| {
            let texts = vec!["payments".into()];
            let (library, name, at_end) = ("acme".into(), NameAt::Nowhere, false);
            Rule { library, meaning, place: Place::Message, texts, at_end, name, own: true }
        };
        let matcher = Matcher::new(rules()).unwrap();
        for said in [&[limited, refused][..], &[refused, limited], &[behind]] {
            assert_eq!(matcher.find(said, |_| &[]).map(|found| (found.meaning, found.name)), Some((Rejected, &b"payments"[..])));
            let overruled = Matcher::new([of_ours(NoBreaker)].into_iter().chain(rules()).collect()).unwrap();
            assert_eq!(overruled.find(said, |_| &[]).map(|found| found.meaning), Some(NoBreaker), "a user's own rule overrules it");
        }
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
        assert_eq!(flagged("UF,UO").map(|found| found.meaning), Some(Limit));
        assert_eq!(flagged("UH").map(|found| found.meaning), Some(Rejected));
        assert_eq!(flagged("-"), None);
        assert_eq!(flagged("UOX"), None);
    }
}
