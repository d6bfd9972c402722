package shop;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.github.resilience4j.circuitbreaker.CircuitBreaker;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.instrumentation.javahttpclient.JavaHttpClientTelemetry;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/**
 * A service that calls a local HTTP server through java.net.http, with resilience4j round the call that fails at times.
 * Where its spans go is set by OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL alone.
 */
public class Client {
  private static final Map<String, Integer> STATUSES = Map.of("/items", 200, "/slow", 200, "/broken", 500);
  private static volatile int payments = 200;
  private final OpenTelemetrySdk sdk = AutoConfiguredOpenTelemetrySdk.initialize().getOpenTelemetrySdk();
  private final HttpClient http = JavaHttpClientTelemetry.create(sdk)
      .newHttpClient(HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build());
  private final CircuitBreaker breaker = CircuitBreaker.of("payments", CircuitBreakerConfig.custom()
      .slidingWindowSize(10).minimumNumberOfCalls(5).permittedNumberOfCallsInHalfOpenState(3)
      .waitDurationInOpenState(Duration.ofMillis(200)).build());

  private static void answer(HttpExchange exchange) throws IOException {
    String path = exchange.getRequestURI().getPath();
    if (path.equals("/slow")) LockSupport.parkNanos(100_000_000);
    exchange.sendResponseHeaders(path.equals("/payments") ? payments : STATUSES.getOrDefault(path, 404), -1);
    exchange.close();
  }

  private String get(String url, int timeoutMillis) throws Exception {
    var request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofMillis(timeoutMillis)).build();
    int status = http.send(request, BodyHandlers.discarding()).statusCode();
    if (status < 500) return "returned";
    throw new IOException("answered " + status);
  }

  private String checkout(String url) throws Exception {
    Span span = sdk.getTracer("shop-client").spanBuilder("checkout").startSpan();
    try (var scope = span.makeCurrent()) {
      return breaker.executeCallable(() -> get(url, 1000));
    } catch (Exception e) { // the breaker's refusal too
      span.recordException(e);
      span.setStatus(StatusCode.ERROR, e.getMessage());
      throw e;
    } finally {
      span.end();
    }
  }

  private String call(String shop, int i) throws Exception {
    if (i % 2 == 1) return checkout(shop + "/payments?order=" + i);
    if (i % 40 == 0) return get(shop + "/missing", 1000);
    if (i % 40 == 10) return get(shop + "/broken", 1000);
    if (i % 40 == 20) return get(shop + "/slow", i % 80 == 20 ? 50 : 1000); // every other one times out
    if (i % 80 == 30) return get("http://127.0.0.1:9/stock", 1000); // nothing listens on the discard port
    return get(shop + "/items?page=" + i % 10, 1000);
  }

  public static void main(String[] args) throws Exception {
    System.setProperty("sun.net.httpserver.nodelay", "true");
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
    server.createContext("/", Client::answer);
    var threads = Executors.newCachedThreadPool();
    server.setExecutor(threads);
    server.start();
    var client = new Client();
    var outcomes = new TreeMap<String, Integer>();
    int calls = Integer.parseInt(System.getenv().getOrDefault("CALLS", "2000"));
    for (int i = 0; i < calls; i++) {
      payments = i % 200 >= 150 ? 503 : 200;
      try {
        outcomes.merge(client.call("http://127.0.0.1:" + server.getAddress().getPort(), i), 1, Integer::sum);
      } catch (Exception e) {
        outcomes.merge(e.getClass().getSimpleName(), 1, Integer::sum);
      }
      Thread.sleep(5);
    }
    server.stop(0);
    threads.shutdown();
    client.sdk.getSdkTracerProvider().forceFlush().join(10, TimeUnit.SECONDS); // sends what is still queued
    System.out.println(outcomes);
  }
}
