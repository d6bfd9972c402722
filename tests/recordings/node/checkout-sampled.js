// node-sampled10, node-sampled50: opossum around payments and around inventory; traces begin here and are sampled by ratio ($SAMPLE). An order's
// rejection goes to the error handler, which records it and answers 500; a quote's is caught, answered 503, and nothing is recorded.
const express = require('express')
const CircuitBreaker = require('opossum')
const { trace, SpanStatusCode } = require('@opentelemetry/api')
const { watch, post, payments, inventory } = require('./common')

const options = { timeout: 1000, resetTimeout: 5000, errorThresholdPercentage: 50, volumeThreshold: 10, rollingCountTimeout: 3000 }
const pay = watch(new CircuitBreaker(() => post(`${payments}/charge`), { ...options, name: 'payments' }), 'payments')
const reserve = watch(new CircuitBreaker(() => post(`${inventory}/reserve`), { ...options, name: 'inventory' }), 'inventory')

const app = express()
app.post('/order', async (req, res) => {
  const paid = await pay.fire()
  res.json({ paid, reserved: await reserve.fire() })
})
app.get('/quote', async (req, res) => {
  try {
    const price = await pay.fire()
    res.json({ price, stock: await reserve.fire() })
  } catch {
    res.status(503).json({ later: true })
  }
})
app.use((error, req, res, next) => {
  const span = trace.getActiveSpan()
  span?.recordException(error)
  span?.setStatus({ code: SpanStatusCode.ERROR, message: error.message })
  res.status(500).json({ error: error.message })
})
app.listen(process.env.PORT, '127.0.0.1')
