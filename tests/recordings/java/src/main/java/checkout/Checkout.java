/*
 * The caller, `checkout`: Spring MVC with Resilience4j by annotations, under the OpenTelemetry Java agent. The Spring profile
 * is the scenario (settings of the breakers: application.yml; faults of the callees and load: phases.json):
 *
 *  named     paymentsBreaker and inventoryBreaker. POST /order lets every exception through (500, recorded on the SERVER span),
 *            GET /quote has a fallback, so nothing of it is recorded.
 *  silent    the same, but an exception handler answers 503 for a rejection and 502 for a failed call: nothing is recorded.
 *            paymentsBreaker goes half-open by timer.
 *  bulkhead  payments behind a breaker, a rate limiter and a bulkhead; POST /order lets all three through, GET /quote has one
 *            fallback for all.
 *  two       chargeBreaker and refundBreaker on the one callee payments: POST /charge, POST /refund, POST /exchange (both).
 */
package checkout;

import io.github.resilience4j.bulkhead.annotation.Bulkhead;
import io.github.resilience4j.circuitbreaker.CallNotPermittedException;
import io.github.resilience4j.circuitbreaker.CircuitBreakerRegistry;
import io.github.resilience4j.circuitbreaker.annotation.CircuitBreaker;
import io.github.resilience4j.ratelimiter.annotation.RateLimiter;
import java.io.FileWriter;
import java.io.IOException;
import java.io.PrintWriter;
import java.time.Duration;
import java.time.Instant;
import java.util.Locale;
import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.context.properties.ConfigurationProperties;
import org.springframework.boot.context.properties.ConfigurationPropertiesScan;
import org.springframework.context.annotation.Profile;
import org.springframework.core.annotation.Order;
import org.springframework.http.HttpStatus;
import org.springframework.stereotype.Component;
import org.springframework.web.bind.annotation.ExceptionHandler;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.bind.annotation.RestControllerAdvice;
import org.springframework.web.client.HttpClientErrorException;
import org.springframework.web.client.RestClient;
import org.springframework.web.client.RestClientException;

@SpringBootApplication
@ConfigurationPropertiesScan
public class Checkout {

    public static void main(String[] args) {
        SpringApplication.run(Checkout.class, args);
    }

    @RestController
    static class Health {
        @GetMapping("/health")
        Map<String, String> health() {
            return Map.of("status", "up");
        }
    }

    // ---- named, silent -----------------------------------------------------------------------------------------------

    @Component
    static class Inventory {
        private final RestClient http;

        Inventory(RestClient.Builder builder, @Value("${inventory.url}") String url) {
            http = builder.baseUrl(url).build();
        }

        @CircuitBreaker(name = "inventoryBreaker")
        public String reserve() {
            return http.post().uri("/reserve").retrieve().body(String.class);
        }
    }

    @Component
    static class Payments {
        private final RestClient http;

        Payments(RestClient.Builder builder, @Value("${payments.url}") String url) {
            http = builder.baseUrl(url).build();
        }

        @CircuitBreaker(name = "paymentsBreaker")
        public String charge() {
            return http.post().uri("/charge").retrieve().body(String.class);
        }

        @CircuitBreaker(name = "paymentsBreaker", fallbackMethod = "usualFee")
        public String fee() {
            return http.get().uri("/fee").retrieve().body(String.class);
        }

        String usualFee(Exception e) {
            return "{\"fee\": 1}";
        }
    }

    @RestController
    @Profile({"named", "silent"})
    static class Shop {
        private final Inventory inventory;
        private final Payments payments;

        Shop(Inventory inventory, Payments payments) {
            this.inventory = inventory;
            this.payments = payments;
        }

        @PostMapping("/order")
        String order() {
            inventory.reserve();
            return payments.charge();
        }

        @GetMapping("/quote")
        String quote() {
            return payments.fee();
        }
    }

    /** A declined card is the customer's own fault: no failure to a breaker, and no exception on a span. */
    @RestControllerAdvice
    @Order(0)
    static class Declined {
        @ExceptionHandler(HttpClientErrorException.class)
        @ResponseStatus(HttpStatus.PAYMENT_REQUIRED)
        String declined() {
            return "declined";
        }
    }

    @RestControllerAdvice
    @Profile("silent")
    static class Mapped {
        @ExceptionHandler(CallNotPermittedException.class)
        @ResponseStatus(HttpStatus.SERVICE_UNAVAILABLE)
        String rejected() {
            return "try again later";
        }

        @ExceptionHandler(RestClientException.class)
        @ResponseStatus(HttpStatus.BAD_GATEWAY)
        String failed() {
            return "a service we need has failed";
        }
    }

    // ---- bulkhead ----------------------------------------------------------------------------------------------------

    /** Resilience4j's own order: the breaker outside, then the rate limiter, then the bulkhead. */
    @Component
    @Profile("bulkhead")
    static class GuardedPayments {
        private final RestClient http;

        GuardedPayments(RestClient.Builder builder, @Value("${payments.url}") String url) {
            http = builder.baseUrl(url).build();
        }

        @CircuitBreaker(name = "paymentsBreaker")
        @RateLimiter(name = "paymentsLimiter")
        @Bulkhead(name = "paymentsBulkhead")
        public String charge() {
            return http.post().uri("/charge").retrieve().body(String.class);
        }

        @CircuitBreaker(name = "paymentsBreaker", fallbackMethod = "usualFee")
        @RateLimiter(name = "paymentsLimiter")
        @Bulkhead(name = "paymentsBulkhead")
        public String fee() {
            return http.get().uri("/fee").retrieve().body(String.class);
        }

        String usualFee(Exception e) {
            return "{\"fee\": 1}";
        }
    }

    @RestController
    @Profile("bulkhead")
    static class GuardedShop {
        private final GuardedPayments payments;

        GuardedShop(GuardedPayments payments) {
            this.payments = payments;
        }

        @PostMapping("/order")
        String order() {
            return payments.charge();
        }

        @GetMapping("/quote")
        String quote() {
            return payments.fee();
        }
    }

    // ---- two ---------------------------------------------------------------------------------------------------------

    @Component
    @Profile("two")
    static class SplitPayments {
        private final RestClient http;

        SplitPayments(RestClient.Builder builder, @Value("${payments.url}") String url) {
            http = builder.baseUrl(url).build();
        }

        @CircuitBreaker(name = "chargeBreaker")
        public String charge() {
            return http.post().uri("/charge").retrieve().body(String.class);
        }

        @CircuitBreaker(name = "refundBreaker")
        public String refund() {
            return http.post().uri("/refund").retrieve().body(String.class);
        }
    }

    @RestController
    @Profile("two")
    static class Desk {
        private final SplitPayments payments;

        Desk(SplitPayments payments) {
            this.payments = payments;
        }

        @PostMapping("/charge")
        String charge() {
            return payments.charge();
        }

        @PostMapping("/refund")
        String refund() {
            return payments.refund();
        }

        @PostMapping("/exchange")
        String exchange() {
            payments.refund();
            return payments.charge();
        }
    }

    // ---- the breakers' own log ---------------------------------------------------------------------------------------

    @ConfigurationProperties("truth")
    record Breakers(String file, String instance, Map<String, String> callees, Map<String, String> paths) {}

    /** One line per transition, and beside it (file.calls) one per call that a breaker let through, to tell what no span can show. */
    @Component
    static class Truth {
        private final PrintWriter transitions;
        private final PrintWriter calls;

        Truth(Breakers breakers, CircuitBreakerRegistry registry) throws IOException {
            transitions = new PrintWriter(new FileWriter(breakers.file()), true);
            calls = new PrintWriter(new FileWriter(breakers.file() + ".calls"), true);
            breakers.callees().forEach((name, callee) -> {
                String path = breakers.paths() == null ? null : breakers.paths().get(name);
                String aliases = path == null ? "" : String.format(
                    ", \"breaker\": \"%s\", \"aliases\": [\"%s\", \"POST %s\", \"%s %s\"]", name, path, path, callee, path);
                var events = registry.circuitBreaker(name).getEventPublisher();
                events.onStateTransition(e -> transitions.printf(
                    "{\"t_ns\": %d, \"name\": \"%s\", \"from\": \"%s\", \"to\": \"%s\", \"instance\": \"%s\", \"callee\": \"%s\", \"service\": \"checkout\"%s}%n",
                    now(), name, lower(e.getStateTransition().getFromState()), lower(e.getStateTransition().getToState()),
                    breakers.instance(), callee, aliases));
                events.onSuccess(e -> call(name, e.getElapsedDuration()));
                events.onError(e -> call(name, e.getElapsedDuration()));
                events.onIgnoredError(e -> {
                    if (e.getThrowable() instanceof HttpClientErrorException) {
                        call(name, e.getElapsedDuration());
                    }
                });
            });
        }

        private void call(String name, Duration elapsed) {
            calls.printf("{\"start_ns\": %d, \"name\": \"%s\"}%n", now() - elapsed.toNanos(), name);
        }

        private static String lower(Enum<?> state) {
            return state.name().toLowerCase(Locale.ROOT);
        }

        private static long now() {
            Instant now = Instant.now();
            return now.getEpochSecond() * 1_000_000_000L + now.getNano();
        }
    }
}
