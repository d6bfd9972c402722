// A service that calls a local HTTP server through node:http and fetch, with opossum round the call that fails at times.
//
// Where its spans go is set by OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL alone.
'use strict';

const { NodeSDK } = require('@opentelemetry/sdk-node');
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http');
const { UndiciInstrumentation } = require('@opentelemetry/instrumentation-undici');

const sdk = new NodeSDK({
  instrumentations: [
    new HttpInstrumentation({ disableIncomingRequestInstrumentation: true }), // the local server is not part of it
    new UndiciInstrumentation(), // fetch
  ],
});
sdk.start(); // before http is loaded

const http = require('node:http');
const { setTimeout: sleep } = require('node:timers/promises');
const { trace, SpanStatusCode } = require('@opentelemetry/api');
const CircuitBreaker = require('opossum');

const CALLS = Number(process.env.CALLS ?? 2000);
const UNREACHABLE = 'http://127.0.0.1:9'; // nothing listens on the discard port
const tracer = trace.getTracer('shop-client');
const agent = new http.Agent({ keepAlive: true });
let paymentsDown = false;

const server = http.createServer(async (request, response) => {
  const path = request.url.split('?')[0];
  if (path === '/slow') await sleep(100);
  const statuses = { '/items': 200, '/slow': 200, '/payments': paymentsDown ? 503 : 200, '/broken': 500 };
  response.writeHead(statuses[path] ?? 404, { 'Content-Length': 0 }).end();
});

function get(url, timeout = 1000) {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent, signal: AbortSignal.timeout(timeout) }, (response) => {
      response.resume().on('end', resolve).on('error', reject);
    });
    request.on('error', reject);
  });
}

async function main() {
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const shop = `http://127.0.0.1:${server.address().port}`;

  const breaker = new CircuitBreaker(
    async (order) => {
      const response = await fetch(`${shop}/payments?order=${order}`);
      await response.arrayBuffer();
      if (!response.ok) throw new Error(`payments answered ${response.status}`);
    },
    { name: 'payments', timeout: 1000, errorThresholdPercentage: 50, resetTimeout: 200, rollingCountTimeout: 500 },
  );

  const checkout = (order) =>
    tracer.startActiveSpan('checkout', async (span) => {
      try {
        await breaker.fire(order);
      } catch (error) {
        span.recordException(error); // the breaker's refusal too
        span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
        throw error;
      } finally {
        span.end();
      }
    });

  function call(i) {
    if (i % 2) return checkout(i);
    if (i % 40 === 0) return get(`${shop}/missing`);
    if (i % 40 === 10) return get(`${shop}/broken`);
    if (i % 40 === 20) return get(`${shop}/slow`, i % 80 === 20 ? 50 : 1000); // every other one times out
    if (i % 80 === 30) return get(`${UNREACHABLE}/stock`);
    return get(`${shop}/items?page=${i % 10}`);
  }

  const outcomes = {};
  for (let i = 0; i < CALLS; i++) {
    paymentsDown = i % 200 >= 150;
    const outcome = await call(i).then(() => 'returned', (error) => error.code ?? error.message);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    await sleep(5);
  }

  breaker.shutdown();
  agent.destroy();
  server.close();
  await sdk.shutdown(); // sends what is still queued
  console.log(outcomes);
}

main();
