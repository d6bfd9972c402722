// The usual OpenTelemetry start-up (node --require ./tracing.js app.js): OTLP/HTTP exporter, http, express and undici. With SAMPLE=0.1 traces
// that begin here are sampled by that ratio and say so in tracestate (ot=th:…); who has a parent does as the parent.
const { NodeSDK } = require('@opentelemetry/sdk-node')
const { createTraceState, trace } = require('@opentelemetry/api')
const { ParentBasedSampler, TraceIdRatioBasedSampler } = require('@opentelemetry/sdk-trace-base')
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http')
const { ExpressInstrumentation } = require('@opentelemetry/instrumentation-express')
const { UndiciInstrumentation } = require('@opentelemetry/instrumentation-undici')

class ThresholdSampler {
  constructor(ratio) {
    this.ratio = new TraceIdRatioBasedSampler(ratio)
    const threshold = Math.floor((1 - ratio) * 2 ** 52).toString(16).padStart(13, '0').replace(/0+$/, '')
    this.state = createTraceState(`ot=th:${threshold}`)
  }

  shouldSample(...args) {
    return { ...this.ratio.shouldSample(...args), traceState: this.state }
  }

  toString() {
    return `Threshold{${this.ratio}}`
  }
}

const { SAMPLE } = process.env
const sdk = new NodeSDK({
  instrumentations: [new HttpInstrumentation(), new ExpressInstrumentation(), new UndiciInstrumentation()],
  sampler: SAMPLE ? new ParentBasedSampler({ root: new ThresholdSampler(Number(SAMPLE)) }) : undefined
})
sdk.start()
process.on('SIGTERM', () => sdk.shutdown().finally(() => process.exit(0)))
